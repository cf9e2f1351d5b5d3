"""Sort and Scan on a rectangle, along an axis that every core holds whole.

Sort counts, for every element, how many come before it (that is its rank) and stores its position at that rank. Scan doubles its
reach: after step s every element holds the combination of the last 2s elements.
"""

from __future__ import annotations

from itertools import pairwise
from math import prod

from ...errors import UnsupportedOp
from ...ir.expr import arg, axis, cast, make
from ...ir.graph import Index, Node, Reduce, Scan, Sort
from ...ir.types import BOOL, F32, I32
from ...machines.wafer.isa import Element, Op
from .elementwise import convert
from .layout import Ref, Splits, Value, local_axes
from .lines import PLAIN
from .movement import dim_shards
from .nests import emit_reduce
from .stage import Stage, element_of

_SCANS = {"add": Op.ADD, "mul": Op.MUL, "max": Op.MAX, "min": Op.MIN}


def emit_sort(stage: Stage, node: Node, splits: Splits) -> Value:
    """Order of the first `count` elements along the axis; stable. NaN is not ordered (its rank is that of no element)."""
    assert isinstance(node, Sort)
    source = stage.graph[node.operands[0]]
    rank = len(source.shape)
    live = [d for d in range(rank) if source.shape[d] > 1]
    axes = (*(source.shape[d] for d in live), source.shape[node.axis])
    number = {d: k for k, d in enumerate(live)}
    mine = tuple(Index(0, ((number[d], 1),)) if d in number else Index() for d in range(rank))
    other = tuple(Index(0, ((len(live), 1),)) if d == node.axis else mine[d] for d in range(rank))
    work = F32 if source.dtype.is_float else I32
    x, y = (cast(arg(k, source.dtype), BOOL if source.dtype is BOOL else work) for k in (0, 1))
    if source.dtype is BOOL:
        x, y = cast(x, I32), cast(y, I32)
    before = make("gt" if node.descending else "lt", y, x)
    tie = make("and", make("eq", y, x), make("lt", axis(len(live)), axis(number.get(node.axis, 0))))
    groups = tuple((number[d],) if d in number else () for d in range(rank))
    ranks = Reduce(
        id=-1, operands=(source.id, source.id), dtype=I32, shape=source.shape, axes=axes, accesses=(mine, other), groups=groups,
        expr=cast(make("or", before, tie), I32), op="sum",
    )  # fmt: skip
    cut = tuple(None if s is None else type(s)(number[s.axis], s.tile, s.count) for s in splits)
    place = emit_reduce(stage, ranks, (cut[0], cut[1]))
    shards = dim_shards(splits)
    value = stage.new(node.shape, element_of(node.dtype), shards)
    order = value if value.fmt == Element.I32 else stage.new(node.shape, Element.I32, shards)
    local = local_axes(source.shape, splits)
    positions = stage.iota(source.shape[node.axis], None, 0).walk([int(d == node.axis) for d in range(rank)])
    target = Ref(order.obj, Element.I32, 0, tuple(0 if d == node.axis else order.strides[d] for d in range(rank)))
    index = Ref(place.obj, Element.I32, 0, place.strides)
    role = stage.e.role(splits)
    look = (0, node.count, order.strides[node.axis], 0, 0)
    stage.e.vec(Op.MOV, PLAIN[Element.I32], role, [order.size], Ref(order.obj, Element.I32, 0, (1,)), 0.0)
    stage.e.vec(Op.STX, PLAIN[Element.I32], role, local, target, positions, None, index, inner=-1, look=look)
    stage.e.free(place.obj)
    if order is not value:
        walk = local_axes(node.shape, splits)
        convert(stage.e, role, walk, Ref(value.obj, value.fmt, 0, value.strides), Ref(order.obj, Element.I32, 0, order.strides))
        stage.e.free(order.obj)
    return value


def emit_scan(stage: Stage, node: Node, splits: Splits) -> Value:
    """Inclusive scan along an axis."""
    assert isinstance(node, Scan)
    if node.op not in _SCANS:
        return _emit_linear(stage, node, splits)
    e = stage.e
    shape = local_axes(node.shape, splits)
    role = e.role(splits)
    access = tuple(Index(0, ((d, 1),)) for d in range(len(shape)))
    source = stage.operand(node.operands[0], access, node.shape, splits)
    value = stage.new(node.shape, element_of(node.dtype), dim_shards(splits))
    work = Element.F32 if node.dtype.is_float else Element.I32
    size = prod(shape)
    flat = [e.scratch(work, size), e.scratch(work, size)]
    now, then = (Ref(f.obj, work, 0, value.strides) for f in flat)
    convert(e, role, shape, now, source)
    step = value.strides[node.axis]
    n, reach = shape[node.axis], 1
    while reach < n:
        head, tail = list(shape), list(shape)
        head[node.axis], tail[node.axis] = reach, n - reach
        keep, shifted = (n - reach, 0) if node.reverse else (0, reach)
        e.vec(Op.MOV, PLAIN[work], role, head, then.moved(keep * step), now.moved(keep * step))
        other = reach if node.reverse else 0
        e.vec(_SCANS[node.op], PLAIN[work], role, tail, then.moved(shifted * step), now.moved(shifted * step), now.moved(other * step))
        now, then = then, now
        reach *= 2
    convert(e, role, shape, Ref(value.obj, value.fmt, 0, value.strides), now)
    for block in flat:
        e.free(block.obj)
    return value


def _emit_linear(stage: Stage, node: Scan, splits: Splits) -> Value:
    """h[t] = a[t] * h[t-1] + b[t], one step after another."""
    e = stage.e
    if node.op != "linear" or not node.dtype.is_float:
        raise UnsupportedOp(f"the wafer has no scan {node.op} of {node.dtype}")
    shape = local_axes(node.shape, splits)
    role = e.role(splits)
    access = tuple(Index(0, ((d, 1),)) for d in range(len(shape)))
    value = stage.new(node.shape, element_of(node.dtype), dim_shards(splits))
    blocks = [e.scratch(Element.F32, prod(shape)) for _ in range(2)]
    a, h = (Ref(block.obj, Element.F32, 0, value.strides) for block in blocks)
    convert(e, role, shape, a, stage.operand(node.operands[0], access, node.shape, splits))
    convert(e, role, shape, h, stage.operand(node.operands[1], access, node.shape, splits))
    step = value.strides[node.axis]
    row = list(shape)
    row[node.axis] = 1
    n = shape[node.axis]
    order = list(range(n - 1, -1, -1)) if node.reverse else list(range(n))
    if len(node.operands) > 2:
        start = stage.operand(node.operands[2], access, node.shape, splits)
        first = order[0] * step
        e.vec(Op.MUL, PLAIN[Element.F32], role, row, a.moved(first), a.moved(first), start)
        e.vec(Op.ADD, PLAIN[Element.F32], role, row, h.moved(first), h.moved(first), a.moved(first))
    for before, here in pairwise(order):
        e.vec(Op.MUL, PLAIN[Element.F32], role, row, a.moved(here * step), a.moved(here * step), h.moved(before * step))
        e.vec(Op.ADD, PLAIN[Element.F32], role, row, h.moved(here * step), h.moved(here * step), a.moved(here * step))
    convert(e, role, shape, Ref(value.obj, value.fmt, 0, value.strides), h)
    for block in blocks:
        e.free(block.obj)
    return value
