"""Scatter, Scan and Sort in terms of maps and reductions."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np

from ...errors import UnsupportedOp
from ...ir.access import axes_used
from ...ir.expr import Expr, arg, axis, const, make
from ...ir.expr import cast as cast_expr
from ...ir.graph import Index, Lookup, Scan, Scatter, Sort
from ...ir.types import BOOL, F32, I64
from ...machines.tsp.isa import DType
from .lower import Lowering
from .lower_map import reduce_value, run_map
from .recipes import ISA_TYPE
from .values import Value, row_major_strides

Array = np.ndarray


# Scatter ----------------------------------------------------------------------------------------------------------------


def lower_scatter(lowering: Lowering, node: Scatter) -> Value:
    """One select (or add, max, min) over the base for every point of the index operands, in order, several to a Map."""
    base = lowering.value(node.operands[0])
    shape = node.shape or (1,)
    looked = [(d, e.operand) for d, e in enumerate(node.target) if isinstance(e, Lookup)]
    index_axes = sorted({a for _, o in looked for a in axes_used(node.accesses[o - 1])})
    points = list(itertools.product(*(range(node.axes[a]) for a in index_axes)))
    if len(points) > 4096:
        raise UnsupportedOp(f"a scatter over {len(points)} looked-up points has no TSP recipe")
    dtype = lowering.graph[node.operands[0]].dtype
    strides = row_major_strides(shape)
    chunk = 4
    current = base
    for first in range(0, len(points), chunk):
        operands: list[tuple[Value, int, Any]] = [(current, 0, strides)]
        expr = arg(0, dtype)
        for point in points[first : first + chunk]:
            expr = _scatter_point(lowering, node, dict(zip(index_axes, point, strict=True)), looked, operands, expr)
        current = run_map(lowering, expr, operands, shape, strides, node.shape, (len(shape) - 1,), "scatter")
    return current


def _scatter_point(
    lowering: Lowering, node: Scatter, point: dict[int, int], looked: Sequence[tuple[int, int]], operands: list[tuple[Value, int, Any]],
    before: Expr,
) -> Expr:  # fmt: skip
    """The value after the writes of one index point."""
    shape = node.shape or (1,)
    free = [a for a in range(len(node.axes)) if a not in point]
    source_id = node.operands[1]
    source_dtype = lowering.graph[source_id].dtype
    inside, elements = _scatter_source(lowering, node, point, free)
    operands.append((lowering.value(source_id), 0, elements))
    source = arg(len(operands) - 1, source_dtype)
    hit: Expr | None = None
    for d, o in looked:
        offset, steps = _access(lowering, node, o)
        at = offset + sum(steps[a] * p for a, p in point.items())
        operands.append((lowering.value(node.operands[o]), at, (0,) * len(shape)))
        read = cast_expr(arg(len(operands) - 1, lowering.graph[node.operands[o]].dtype), I64)
        same = make("eq", read, axis(d))
        hit = same if hit is None else make("and", hit, same)
    if not inside.all():
        operands.append((Value(shape, DType.I8, array=inside.astype(np.int8)), 0, row_major_strides(shape)))
        box = arg(len(operands) - 1, BOOL)
        hit = box if hit is None else make("and", hit, box)
    if node.mode == "set":
        return source if hit is None else make("select", hit, source, before)
    merged = make(node.mode, before, source)
    return merged if hit is None else make("select", hit, merged, before)


def _access(lowering: Lowering, node: Scatter, o: int) -> tuple[int, tuple[int, ...]]:
    from ...ir.access import access_strides

    found = access_strides(node.accesses[o - 1], lowering.graph[node.operands[o]].shape, len(node.axes))
    return found.offset, found.strides


def _scatter_source(lowering: Lowering, node: Scatter, point: dict[int, int], free: Sequence[int]) -> tuple[Array, Array]:
    """Where the base is written (for some value of the lookups), and the element of the source written there, in the base's shape."""
    shape = node.shape or (1,)
    offset, steps = _access(lowering, node, 1)
    extents = [node.axes[a] for a in free]
    source = np.full(extents, offset + sum(steps[a] * p for a, p in point.items()), dtype=np.int64)
    for k, a in enumerate(free):
        source += (steps[a] * np.arange(node.axes[a])).reshape([-1 if j == k else 1 for j in range(len(free))])
    inside = np.zeros(shape, dtype=bool)
    elements = np.full(shape, -1, dtype=np.int64)
    place: list[Any] = []
    for d, entry in enumerate(node.target):
        if isinstance(entry, Lookup):
            place.append(None)
            continue
        assert isinstance(entry, Index)
        position = np.full(extents, entry.offset + sum(c * point[a] for a, c in entry.terms if a in point), dtype=np.int64)
        for a, c in entry.terms:
            if a not in point:
                position += (c * np.arange(node.axes[a])).reshape([-1 if b == a else 1 for b in free])
        place.append(position)
        del d
    looked = [d for d, p in enumerate(place) if p is None]
    moved_inside = np.moveaxis(inside, looked, range(-len(looked), 0)) if looked else inside
    moved_elements = np.moveaxis(elements, looked, range(-len(looked), 0)) if looked else elements
    key = tuple(p for p in place if p is not None)
    if key:
        moved_inside[key] = True
        moved_elements[key] = source[(..., *(None,) * len(looked))] if looked else source
    else:
        moved_inside[...] = True
        moved_elements[...] = source.reshape(-1)[0]
    return inside, elements


# Scan and Sort ----------------------------------------------------------------------------------------------------------


def lower_scan(lowering: Lowering, node: Scan) -> Value:
    """Doubling: after step d every position holds the result over its last 2 d positions; positions run along vectors."""
    shape = node.shape
    n = shape[node.axis]
    strides = row_major_strides(shape)
    others = [d for d in range(len(shape)) if d != node.axis and shape[d] > 1]
    lanes = tuple(others[-1:]) or tuple(d for d in range(len(shape)) if d != node.axis)[-1:]
    dtype = lowering.graph[node.operands[0]].dtype
    values = [lowering.value(o) for o in node.operands]
    if node.op == "linear":
        return _linear_scan(lowering, node, values, lanes, dtype)
    current = values[0]
    step = 1
    while step < n:
        shifted = _shifted(shape, node.axis, step, node.reverse)
        valid = _valid(node, n, step)
        combined = make(node.op, arg(0, dtype), arg(1, dtype))
        expr = make("select", valid, combined, arg(0, dtype))
        current = run_map(lowering, expr, [(current, 0, strides), (current, 0, shifted)], shape, strides, shape, lanes, "scan", lanes)
        step *= 2
    return current


def _valid(node: Scan, n: int, step: int) -> Expr:
    position = axis(node.axis)
    return make("lt", position, const(n - step, I64)) if node.reverse else make("ge", position, const(step, I64))


def _shifted(shape: Sequence[int], along: int, step: int, reverse: bool) -> Array:
    """Flat element `step` positions earlier (later when reversed) for every position; itself where there is none."""
    index = np.arange(int(np.prod(shape))).reshape(shape)
    position = np.arange(shape[along])
    moved = position + step if reverse else position - step
    moved = np.where((moved >= 0) & (moved < shape[along]), moved, position)
    return np.take(index, moved, axis=along)


def _linear_scan(lowering: Lowering, node: Scan, values: Sequence[Value], lanes: tuple[int, ...], dtype: Any) -> Value:
    """h[t] = a[t] h[t-1] + b[t]: pairs (a, b) compose associatively."""
    shape = node.shape
    n, strides = shape[node.axis], row_major_strides(shape)
    a, b = values[0], values[1]
    if len(values) > 2:
        first = make("eq", axis(node.axis), const(n - 1 if node.reverse else 0, I64))
        started = make("select", first, make("add", make("mul", arg(0, dtype), arg(2, dtype)), arg(1, dtype)), arg(1, dtype))
        initial = np.broadcast_to(np.arange(values[2].size).reshape(values[2].shape), shape) if values[2].size != a.size else None
        spread: Any = strides if initial is None else np.ascontiguousarray(initial)
        b = run_map(
            lowering, started, [(a, 0, strides), (b, 0, strides), (values[2], 0, spread)], shape, strides, shape, lanes, "scan", lanes
        )
    step = 1
    while step < n:
        shifted = _shifted(shape, node.axis, step, node.reverse)
        valid = _valid(node, n, step)
        grown = make("add", make("mul", arg(0, dtype), arg(2, dtype)), arg(1, dtype))
        expr_b = make("select", valid, grown, arg(1, dtype))
        reads: list[tuple[Value, int, Any]] = [(a, 0, strides), (b, 0, strides), (b, 0, shifted)]
        expr_a = make("select", valid, make("mul", arg(0, dtype), arg(1, dtype)), arg(0, dtype))
        new_b = run_map(lowering, expr_b, reads, shape, strides, shape, lanes, "scan", lanes)
        a = run_map(lowering, expr_a, [(a, 0, strides), (a, 0, shifted)], shape, strides, shape, lanes, "scan", lanes)
        b = new_b
        step *= 2
    return b


def lower_sort(lowering: Lowering, node: Sort) -> Value:
    """Ranks by counting who comes first, then the position of every rank: n^2 comparisons, no data-dependent control."""
    source = lowering.graph[node.operands[0]]
    value = lowering.value(node.operands[0])
    shape = source.shape
    n = shape[node.axis]
    rank = len(shape)
    strides = row_major_strides(shape)
    # axes: the value's own (position i on the sorted one), then j
    axes = (*shape, n)
    at_i = (*strides, 0)
    at_j = (*(0 if d == node.axis else s for d, s in enumerate(strides)), strides[node.axis])
    x_i, x_j = arg(0, source.dtype), arg(1, source.dtype)
    if source.dtype is BOOL:
        from ...ir.types import I8

        x_i, x_j = cast_expr(x_i, I8), cast_expr(x_j, I8)
    before = make("gt" if node.descending else "lt", x_j, x_i)
    tie = make("and", make("eq", x_j, x_i), make("lt", axis(rank), axis(node.axis)))
    count = cast_expr(make("or", before, tie), F32)
    order = reduce_value(lowering, "sum", count, [(value, 0, at_i), (value, 0, at_j)], axes, [rank], (*strides, 0), shape)
    # axes: the result's (rank r on the sorted one), then i
    axes = (*node.shape, n)
    out = row_major_strides(node.shape)
    read = (*(0 if d == node.axis else s for d, s in enumerate(strides)), strides[node.axis])
    hit = make("eq", arg(0, F32), cast_expr(axis(node.axis), F32))
    position = make("select", hit, cast_expr(axis(rank), F32), const(0.0))
    found = reduce_value(lowering, "sum", position, [(order, 0, read)], axes, [rank], (*out, 0), node.shape)
    from .lower_map import converted

    return converted(lowering, found, ISA_TYPE[node.dtype], node.dtype)
