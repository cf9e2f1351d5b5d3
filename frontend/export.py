"""From a module (or an exported program) to a functional graph of ATen ops with our own decomposition table.

Composite ops that map to one of our nodes are kept whole (their names are the table of lowerings itself), everything else is decomposed
by torch. Tracing is non-strict, in eval mode and without gradients; the module's training flags are put back.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch.export import ExportedProgram
from torch.export.graph_signature import OutputKind

from ..errors import BadInput, UnsupportedOp
from . import lowering
from .provenance import op_name
from .registry import COMPLEX, LOWERINGS, NOTHING

lowering.load()


def decompositions() -> Any:
    """torch's default table without the ops that have a lowering of their own."""
    table: Any = torch.export.default_decompositions()
    for op in list(table.keys()):
        name = str(op)
        if name in LOWERINGS or name in COMPLEX:
            table.pop(op)
    return table


class Exported(torch.nn.Module):
    """A loaded exported program as a module: torch can run it, and lowering takes the program itself."""

    def __init__(self, program: ExportedProgram) -> None:
        super().__init__()
        self.program = program
        self._call = (program.module(),)  # in a tuple: an exported graph refuses train() and eval()
        for name, buffer in self._call[0].named_buffers():
            self.register_buffer(name.replace(".", "_"), buffer)

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        return self._call[0](*args, **kwargs)


@contextmanager
def _evaluating(module: torch.nn.Module) -> Iterator[None]:
    modes = [(m, m.training) for m in module.modules()]
    module.eval()
    try:
        yield
    finally:
        for part, training in modes:
            part.training = training


def export(module: torch.nn.Module | ExportedProgram, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None) -> ExportedProgram:
    """An exported program for the shapes of `args` and `kwargs`, functional and over ops that the lowerings take where they can.

    It is decomposed by torch only where it holds an op without a lowering, or one that writes in place.

    Raises UnsupportedOp where torch cannot trace the module (control flow on data), with torch's own reason.
    """
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        if isinstance(module, Exported):
            module = module.program
        if isinstance(module, ExportedProgram):
            return module if is_plain(module) else decompose(module)
        with _evaluating(module):
            try:
                program = torch.export.export(module, tuple(args), dict(kwargs or {}), strict=False)
            except Exception as error:
                raise _failure(module, error) from error
            return program if is_plain(program) else decompose(program)


def is_plain(program: ExportedProgram) -> bool:
    """Whether every op has a lowering and none writes in place: then decomposition, which costs as much as export, is not needed."""
    changes = (OutputKind.BUFFER_MUTATION, OutputKind.USER_INPUT_MUTATION)
    if any(spec.kind in changes for spec in program.graph_signature.output_specs):
        return False
    for node in program.graph.nodes:
        if node.op == "get_attr":
            return False
        if node.op == "call_function":
            name = op_name(node)
            if isinstance(node.target, torch._ops.OpOverload) and node.target._schema.is_mutable:
                return False
            if name not in LOWERINGS and name not in COMPLEX and name not in NOTHING and name != "operator.getitem":
                return False
    return True


def decompose(program: ExportedProgram) -> ExportedProgram:
    """`program` over the ops that the lowerings take."""
    try:
        decomposed: ExportedProgram = program.run_decompositions(decompositions())
        return decomposed
    except Exception as error:
        raise _failure(program, error) from error


def _failure(what: object, error: Exception) -> Exception:
    """Wrong arguments are the caller's, anything else is a model that torch.export refuses."""
    first = (str(error).strip().splitlines() or [""])[0]
    name = type(what).__name__
    if isinstance(error, TypeError) and "argument" in first:
        return BadInput(f"{name} cannot be called with these inputs: {first}")
    return UnsupportedOp(f"torch.export cannot trace {name}: {type(error).__name__}: {first}", [first])
