"""Casts of whole values, as nodes: what passes insert where an operand must have another type."""

from __future__ import annotations

from ..ir import expr as ex
from ..ir.graph import GraphBuilder, Index, Map
from ..ir.types import DType


def add_cast(builder: GraphBuilder, operand: int, dtype: DType) -> int:
    """A Map that converts node `operand` to `dtype`, in normal form (so that equal conversions are one node); the operand if it has it."""
    source = builder.nodes[operand]
    if source.dtype is dtype:
        return operand
    expr = ex.cast(ex.arg(0, source.dtype), dtype)
    wide = [d for d, extent in enumerate(source.shape) if extent > 1]
    groups = tuple((wide.index(d),) if d in wide else () for d in range(len(source.shape)))
    access = tuple(Index(0, tuple((a, 1) for a in group)) for group in groups)
    return builder.new(
        Map, (operand,), dtype=dtype, shape=source.shape, origin=source.origin, axes=tuple(source.shape[d] for d in wide),
        accesses=(access,), groups=groups, expr=expr,
    )  # fmt: skip
