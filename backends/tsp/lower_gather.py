"""Gather: a contraction of one-hot vectors with the bytes of a table, or a selection after the contraction that reads it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ...ir.access import axes_used
from ...ir.expr import arg
from ...ir.expr import cast as cast_expr
from ...ir.graph import Gather, Index, Lookup
from ...machines.tsp.isa import WIDTH, DType, Opcode
from .engine import MatrixJob, Plane, Provider, Sink, fixed, onto
from .lower import Lowering, digits
from .lower_contract import Operand, Roles, contraction_passes, extent, stationary_tiles
from .lower_map import result_strides, run_map
from .memory import LANES, plane_seq
from .route import ChainOp
from .values import Copy, Value, arrange, row_major_strides

Array = np.ndarray


def lower_gather(lowering: Lowering, node: Gather) -> Value:
    """out = data at looked-up positions: one-hot vectors of the index times the bytes of the data, exact for every format."""
    data = lowering.value(node.operands[0])
    data_shape = lowering.graph[node.operands[0]].shape
    lookups = [(d, entry.operand) for d, entry in enumerate(node.accesses[0]) if isinstance(entry, Lookup)]
    if all(node.operands[o] in lowering.known for _, o in lookups):
        return _known_gather(lowering, node, data, lookups)
    steps = row_major_strides(data_shape)
    offset, data_strides = lowering.operand_strides(node, 0)
    span = [data_shape[d] for d, _ in lookups]
    axes = (*node.axes, *span)
    rank = len(node.axes)
    k = tuple(range(rank, len(axes)))
    strides = (*result_strides(node.groups, node.axes, node.shape), *(0,) * len(k))
    table = Operand(data, offset, (*data_strides, *(steps[d] for d, _ in lookups)))
    index_axes = sorted({a for _, o in lookups for a in axes_used(node.accesses[o])})
    data_axes = {a for entry in node.accesses[0] if isinstance(entry, Index) for a, _ in entry.terms}
    roles = Roles(
        tuple(a for a in index_axes if a in data_axes), tuple(a for a in range(rank) if a not in data_axes),
        tuple(a for a in range(rank) if a in data_axes and a not in index_axes), k,
    )  # fmt: skip
    hot = _one_hot(lowering, node, lookups, axes, (*roles.batch, *roles.m), k)
    return byte_contract(lowering, hot, table, roles, axes, strides, node.shape)


def _known_gather(lowering: Lowering, node: Gather, data: Value, lookups: Sequence[tuple[int, int]]) -> Value:
    """Positions that are known now make a gather a matter of lane moves."""
    steps = row_major_strides(lowering.graph[node.operands[0]].shape)
    offset, strides = lowering.operand_strides(node, 0)
    element = _walk(offset, strides, node.axes)
    for d, o in lookups:
        index = lowering.value(node.operands[o])
        assert index.array is not None
        at = index.array.reshape(-1)[_walk(*lowering.operand_strides(node, o), node.axes)]
        element = element + at.astype(np.int64) * steps[d]
    out = result_strides(node.groups, node.axes, node.shape)
    fallback = next((group for group in reversed(node.groups) if group), ())
    dtype = lowering.graph[node.operands[0]].dtype
    return run_map(lowering, arg(0, dtype), [(data, 0, element)], node.axes, out, node.shape, fallback, "gather")


def _walk(offset: int, strides: Sequence[int], axes: Sequence[int]) -> Array:
    """Flat element numbers over a nest."""
    total = np.full(axes, offset, dtype=np.int64)
    for a, stride in enumerate(strides[: len(axes)]):
        total += (stride * np.arange(axes[a])).reshape([-1 if b == a else 1 for b in range(len(axes))])
    return total


def _one_hot(
    lowering: Lowering, node: Gather, lookups: Sequence[tuple[int, int]], axes: Sequence[int], rows: Sequence[int], k: Sequence[int]
) -> Provider:
    """I8 vectors [rows, K tile]: 1 in the lane of the looked-up position."""
    from ...ir.expr import axis, make
    from ...ir.types import BOOL, I8, I64

    order = tuple(rows) + tuple(k)
    extents = tuple(axes[a] for a in order)
    operands = []
    expr = None
    for number, (_, o) in enumerate(lookups):
        value = lowering.value(node.operands[o])
        offset, steps = lowering.operand_strides(node, o)
        operands.append((value, offset, tuple(steps[a] if a < len(steps) else 0 for a in order)))
        read = cast_expr(arg(number, lowering.graph[node.operands[o]].dtype), I64)
        hit = make("eq", read, axis(len(rows) + number))
        expr = hit if expr is None else make("and", expr, hit)
    assert expr is not None and expr.dtype is BOOL
    strides = row_major_strides(extents)
    lanes = tuple(range(len(rows), len(order)))
    value = run_map(lowering, cast_expr(expr, I8), operands, extents, strides, extents, lanes, "one-hot", lanes)
    return lowering.engine.provide(value.copies[0].seq)


def byte_contract(
    lowering: Lowering, moving: Provider, table: Operand, roles: Roles, axes: Sequence[int], strides: Sequence[int], shape: Sequence[int]
) -> Value:
    """Selections (I8 vectors [batch, M, K tile]) times the bytes of a table: West planes, two byte planes at a time."""
    engine = lowering.engine
    batch, m, n = extent(axes, roles.batch), extent(axes, roles.m), extent(axes, roles.n)
    tiles_k, tiles_n = -(-extent(axes, roles.k) // LANES), -(-n // LANES)
    order = np.arange(batch * m * tiles_k).reshape(batch, m, tiles_k).transpose(0, 2, 1).reshape(-1)
    dtype = table.value.dtype
    weights, rows = stationary_tiles(lowering, table, roles, axes, dtype)
    passes, index = contraction_passes(batch, m, tiles_n, tiles_k, rows, engine.machine.acc_depth)
    out = batch * m * tiles_n
    taken = frozenset(unit for storage in weights for unit in storage.units)
    fed = moving.take(order)(taken)
    target = engine.scratch(dtype, out, taken | fed.units)
    ordered = fixed(fed)
    for first in range(0, WIDTH[dtype], 2):
        planes = range(first, min(first + 2, WIDTH[dtype]))
        job = MatrixJob(0, DType.I8, tuple(passes), tuple((weights, p) for p in planes), tuple((ordered, (0,)) for _ in planes))
        ops = [ChainOp(Opcode.CAST, DType.I32, (("in", q),), DType.I8) for q in range(len(planes))]
        sinks = [Sink(q, onto(plane_seq(target, p).take(index))) for q, p in enumerate(planes)]
        engine.run("gather", [Plane(q, DType.I32) for q in range(len(planes))], ops, sinks, out, job=job)
    lanes = digits(strides, axes, roles.n)
    element = arrange(0, digits(strides, axes, (*roles.batch, *roles.m)), lanes)
    clean = n % LANES == 0 or (table.value.array is not None and rows == LANES)
    return Value(tuple(shape), dtype, [Copy(element, target, lanes, False, clean)])
