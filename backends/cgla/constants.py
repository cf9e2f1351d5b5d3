"""Loop nests that read nothing, or what is known: their result is known when the program is compiled, so it is an image like a weight."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.lib.stride_tricks import as_strided

from ...ir import expr as ex
from ...ir.access import row_major
from ...ir.graph import Index, Map
from ...ir.interpret import compute
from ...ir.types import dtype as dtype_of
from ...machines.cgla.tables import DTYPE_BYTES, HostKind
from .host import HostOperand, HostTask

Array = np.ndarray[Any, Any]


def known_result(task: HostTask, known: Mapping[int, Array]) -> Array | None:
    """The items of a task's result in the order of their addresses; None where it reads what is not `known` (items by symbol) or leaves
    gaps."""
    result, *reads = task.operands
    if task.kind != HostKind.MAP or result.offset or any(o.lookups or o.symbol not in known for o in reads):
        return None
    order = sorted((a for a, extent in enumerate(task.extents) if extent > 1), key=lambda a: -result.strides.get(a, 0))
    if [result.strides.get(a, 0) for a in order] != list(row_major([task.extents[a] for a in order])):
        return None
    root = _expression(task)
    axes = range(len(task.extents))
    whole = tuple(Index(0, ((axis, 1),) if task.extents[axis] > 1 else ()) for axis in axes)
    node = Map(
        id=0, operands=tuple(range(len(reads))), dtype=root.dtype, shape=task.extents, axes=task.extents,
        accesses=(whole,) * len(reads), groups=tuple((axis,) for axis in axes), expr=root,
    )  # fmt: skip
    values = compute(node, [_view(known[operand.symbol], operand, task.extents) for operand in reads])
    rest = [a for a in axes if a not in order]
    return np.ascontiguousarray(values.transpose([*order, *rest])).reshape(-1)


def _view(values: Array, operand: HostOperand, extents: tuple[int, ...]) -> Array:
    first = values[operand.offset // DTYPE_BYTES[operand.dtype] :]
    return as_strided(first, extents, [operand.strides.get(axis, 0) * values.itemsize for axis in range(len(extents))])


def _expression(task: HostTask) -> ex.Expr:
    made: list[ex.Expr] = []
    for entry in task.exprs:
        dtype = dtype_of(entry.dtype)
        sources = [made[i] for i in (entry.a, entry.b, entry.c) if i >= 0] if entry.op not in ("arg", "axis", "const") else []
        if entry.op == "arg":
            made.append(ex.arg(entry.a - 1, dtype))
        elif entry.op == "axis":
            made.append(ex.axis(entry.a))
        elif entry.op == "const":
            made.append(ex.const(entry.real if dtype.is_float else entry.integer, dtype))
        elif entry.op == "cast":
            made.append(ex.cast(sources[0], dtype))
        else:
            made.append(ex.make(entry.op, *sources))
    return made[-1]
