"""The table of lowerings: one function an ATen overload (or custom op), and the ops that are refused with a reason.

A lowering takes the emitter and the FX node's arguments, with tensors replaced by values, and returns a value (or a tuple of values
for an op with several results; None for a result that nothing may read).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

Lowering = Callable[..., Any]
_F = TypeVar("_F", bound=Lowering)

LOWERINGS: dict[str, Lowering] = {}
COMPLEX: dict[str, Lowering] = {}  # used instead where an argument is a complex pair
PARTWISE: set[str] = set()  # ops that act on the real and the imaginary part alike (views)
TAKES_EMPTY: set[str] = set()  # ops that give elements although an operand has none
REFUSED: dict[str, str] = {}
NOTHING = frozenset(  # ops that check or constrain and compute nothing
    {
        "aten._assert_tensor_metadata.default", "aten._assert_async.msg", "aten._assert_scalar.default", "aten.sym_constrain_range.default",
        "aten.sym_constrain_range_for_size.default", "aten._functional_assert_async.msg", "aten._linalg_check_errors.default",
        "aten._print.default",
    }
)  # fmt: skip


def lowers(*names: str, parts: bool = False, empty: bool = False) -> Callable[[_F], _F]:
    """Registers a lowering under names such as `aten.add.Tensor`.

    `parts`: it acts on both parts of a complex value alike; `empty`: it takes operands without elements (and gives some).
    """

    def register(function: _F) -> _F:
        for name in names:
            add(name, function)
            if parts:
                PARTWISE.add(name)
            if empty:
                TAKES_EMPTY.add(name)
        return function

    return register


def lowers_complex(*names: str) -> Callable[[_F], _F]:
    """Registers the lowering used where an argument of the op is complex (or for ops that make complex values)."""

    def register(function: _F) -> _F:
        for name in names:
            if name in COMPLEX:
                raise ValueError(f"{name} has two complex lowerings")
            COMPLEX[name] = function
        return function

    return register


def add(name: str, function: Lowering) -> None:
    """Put one lowering into the table; a name has one."""
    if name in LOWERINGS:
        raise ValueError(f"{name} has two lowerings")
    LOWERINGS[name] = function


def refuses(reason: str, *names: str) -> None:
    """Ops that are known and cannot be compiled: the reason goes into the error."""
    for name in names:
        REFUSED[name] = reason


def supported_ops() -> dict[str, tuple[str, ...]]:
    """The lowered ops by family (the module that holds the lowering), and the refused ones under `refused`."""
    families: dict[str, set[str]] = {}
    for table in (LOWERINGS, COMPLEX):
        for name, function in table.items():
            families.setdefault(function.__module__.rpartition(".")[2], set()).add(name)
    families["refused"] = set(REFUSED)
    return {family: tuple(sorted(names)) for family, names in families.items()}
