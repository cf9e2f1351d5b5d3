"""Every registered lowering against torch: one table of calls, exported a batch at a time, interpreted and compared."""

from __future__ import annotations

import functools
import importlib.util
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from spatialc.frontend import lower_exported
from spatialc.frontend.export import decompose, is_plain
from spatialc.frontend.provenance import op_name
from spatialc.frontend.registry import COMPLEX, LOWERINGS, NOTHING, REFUSED
from spatialc.ir.interpret import interpret
from spatialc.ir.verify import verify

BATCH = 40
FIRST_RESULT = (  # ops whose second result, positions, is refused
    "aten.cummax", "aten.cummin", "aten.max_pool1d_with", "aten.max_pool2d_with", "aten.max_pool3d_with", "aten.adaptive_max",
)  # fmt: skip
NO_VALUES = {  # uninitialised memory: only types and shapes mean something
    "aten.empty.memory_format", "aten.empty_like.default", "aten.empty_permuted.default", "aten.empty_strided.default",
    "aten.new_empty.default", "aten.new_empty_strided.default",
}  # fmt: skip


def tables() -> dict[str, list[Any]]:
    """The calls in the file beside this one (tests are no package, so it is loaded by its path)."""
    spec = importlib.util.spec_from_file_location("frontend_cases", Path(__file__).with_name("frontend_cases.py"))
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return dict(module.TABLES)


Case = tuple[Any, ...]
TABLES = tables()
BATCHES = [
    (f"{family}-{start // BATCH}", cases[start : start + BATCH])
    for family, cases in TABLES.items()
    for start in range(0, len(cases), BATCH)
]


def operator_of(name: str) -> Any:
    found: Any = torch.ops
    for part in name.split("."):
        found = getattr(found, part)
    return found


class Batch(torch.nn.Module):
    """Calls every case on its own tensors; complex ones travel as pairs of reals."""

    def __init__(self, cases: list[Case]) -> None:
        super().__init__()
        self.cases = cases

    def tensors(self) -> list[torch.Tensor]:
        """Complex tensors travel as pairs of reals; strides stay."""
        leaves = [leaf for case in self.cases for leaf in torch.utils._pytree.tree_leaves(case[1:]) if isinstance(leaf, torch.Tensor)]
        return [torch.view_as_real(leaf) if leaf.is_complex() else leaf for leaf in leaves]

    def forward(self, *tensors: torch.Tensor) -> list[list[torch.Tensor]]:
        given = iter(tensors)

        def bound(leaf: Any) -> Any:
            if not isinstance(leaf, torch.Tensor):
                return leaf
            return torch.view_as_complex(next(given)) if leaf.is_complex() else next(given)

        results = []
        for name, *arguments in self.cases:
            arguments = torch.utils._pytree.tree_map(bound, arguments)
            keywords = arguments.pop() if arguments and isinstance(arguments[-1], dict) else {}
            out = operator_of(name)(*arguments, **keywords)
            out = list(out) if isinstance(out, list | tuple) else [out]
            if name.startswith(FIRST_RESULT):
                out = out[:1]
            results.append([torch.view_as_real(t.resolve_conj()) if t.is_complex() else t for t in out if t.numel()])
        return results


@functools.cache
def evaluated(number: int, decomposed: bool) -> tuple[list[list[np.ndarray]], list[list[torch.Tensor]], frozenset[str]]:
    """What the interpreter gives for each case of a batch, what torch gives, and the ops in the lowered program."""
    module = Batch(BATCHES[number][1])
    tensors = tuple(module.tensors())
    with torch.no_grad():
        expected = module(*tensors)
        program = torch.export.export(module, tensors, strict=False)
        if decomposed:
            program = decompose(program)
    lowered = lower_exported(program)
    assert verify(lowered.graph) == []
    inputs = {binding.name: numbers(tensors[int(binding.path[5:-1])]) for binding in lowered.input_bindings}
    outputs = iter(interpret(lowered.graph, inputs, store=lowered.store)[0])
    got = [[next(outputs) for _ in tensors_of] for tensors_of in expected]
    names = frozenset(op_name(node) for node in program.graph.nodes if node.op == "call_function")
    return got, expected, names


def numbers(tensor: torch.Tensor) -> np.ndarray:
    return (tensor.float() if tensor.dtype is torch.bfloat16 else tensor).numpy()


TOLERANCE = {torch.float64: 1e-6, torch.float32: 2e-5, torch.float16: 2e-3, torch.bfloat16: 1.6e-2}


@pytest.mark.parametrize("decomposed", [False, True], ids=["direct", "decomposed"])
@pytest.mark.parametrize("number", range(len(BATCHES)), ids=[name for name, _ in BATCHES])
def test_lowerings_give_torchs_numbers(number: int, decomposed: bool) -> None:
    got, expected, _ = evaluated(number, decomposed)
    wrong = []
    for case, values, wants in zip(BATCHES[number][1], got, expected, strict=True):
        for value, want in zip(values, wants, strict=True):
            problem = difference(value, want, case[0] in NO_VALUES)
            if problem:
                wrong.append(f"{case[0]}{[tuple(a.shape) if isinstance(a, torch.Tensor) else a for a in case[1:]]}: {problem}")
    assert wrong == []


def difference(value: np.ndarray, want: torch.Tensor, types_only: bool) -> str:
    """Empty where `value` is torch's `want`."""
    expected = numbers(want)
    if value.dtype != expected.dtype or value.shape != expected.shape:
        return f"{value.dtype}{value.shape}, torch gives {expected.dtype}{expected.shape}"
    if types_only:
        return ""
    if not want.is_floating_point():
        return "" if np.array_equal(value, expected) else f"{value}, torch gives {expected}"
    tolerance = TOLERANCE[want.dtype]
    if np.allclose(value, expected, rtol=tolerance, atol=tolerance, equal_nan=True):
        return ""
    return f"{value}, torch gives {expected}"


def test_every_lowering_has_a_case_that_reaches_it() -> None:
    reached: set[str] = set()
    for number in range(len(BATCHES)):
        for decomposed in (False, True):
            reached |= evaluated(number, decomposed)[2]
    known = set(LOWERINGS) | set(COMPLEX)
    if not TABLES["experts"][1:]:
        known.discard("transformers.grouped_mm_fallback.default")
    assert sorted(known - reached) == []


def test_every_name_is_an_operator_of_torch() -> None:
    names = set(LOWERINGS) | set(COMPLEX) | set(REFUSED)
    for name in names:
        if not name.startswith(("transformers.", "higher_order.")):
            operator_of(name)  # raises AttributeError for a name that torch does not have


def test_both_ways_are_taken() -> None:
    """The direct path must be direct: a batch of lowered ops needs no decomposition."""
    module = Batch(BATCHES[0][1])
    assert is_plain(torch.export.export(module, tuple(module.tensors()), strict=False))


def test_the_documented_ops_are_the_ones_we_take() -> None:
    """Every op of transformer models in the page's table is lowered, refused, or arithmetic on sizes."""
    page = Path(__file__).parent.parent / "docs" / "frontend.md"
    rows = [line.strip("| \n").split(" | ") for line in page.read_text().splitlines() if line.startswith(("| aten.", "| transformers."))]
    assert len(rows) > 100
    for name, _, _, where in rows:
        families = {table[name].__module__.rpartition(".")[2] for table in (LOWERINGS, COMPLEX) if name in table}
        check_only, refused = where.startswith("nothing") and name in NOTHING, where.startswith("refused") and name in REFUSED
        assert where in families or check_only or refused, name
    known = len(set(LOWERINGS) | set(COMPLEX))
    assert f"{known} names in {len(TABLES)} families, and {len(REFUSED)} refused" in page.read_text()
