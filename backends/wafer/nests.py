"""Map and Reduce on a rectangle: local bursts, then line reductions along the mesh axes that cut a reduced axis."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import product
from math import inf, prod

from ...ir.expr import Expr, arg, args_of, axes_of, cast, const, make, postorder, rebuild
from ...ir.graph import Map, Nest, Node, Reduce
from ...ir.types import BOOL, F32, I32, DType
from ...machines.wafer.isa import Element, Op
from .elementwise import Evaluator, convert
from .emitter import Role
from .layout import Ref, Splits, Value, X, Y, local_axes, result_shards, row_major
from .lines import PLAIN, reduce_splits
from .memory import Full
from .recipes import AXIS, lower
from .stage import Stage, element_of

Box = tuple[tuple[int, int], ...]
"""Per axis the first local point and the number of points."""
_PIECE_WORDS = 1 << 12
"""Temporaries of a nest are cut to about this many words while there is room for more, so that activations find room as well."""
TABLE = 1 << 18
"""`arg(TABLE + k)` is table k of an expression."""
_TABULATE = frozenset(("pow", "exp", "exp2", "log", "sin", "cos", "sqrt", "rsqrt", "tanh", "erf", "div", "recip"))
COMBINE = {"sum": Op.ADD, "max": Op.MAX, "min": Op.MIN, "prod": Op.MUL, "any": Op.MAX, "all": Op.MIN}


def boxes(axes: Sequence[int], allowed: Sequence[int], parts: int) -> list[Box]:
    """The nest cut into at least `parts` boxes along `allowed` axes, longest extents first; as many as there are points at most."""
    cut = list(axes)
    while prod(-(-n // c) for n, c in zip(axes, cut, strict=True)) < parts:
        longest = max(allowed, key=lambda a: cut[a], default=-1)
        if longest < 0 or cut[longest] == 1:
            break
        cut[longest] = -(-cut[longest] // 2)
    ranges = [[(s, min(c, n - s)) for s in range(0, n, c)] for n, c in zip(axes, cut, strict=True)]
    return list(product(*ranges))


def piecewise(stage: Stage, axes: Sequence[int], allowed: Sequence[int], words: int, emit: Callable[[Box], None]) -> None:
    """`emit` for boxes that together are the nest; finer boxes until the temporaries of each find room. `words` estimates what the whole
    nest would need. Raises Full where even single points do not fit."""
    limit = prod(axes[a] for a in allowed)
    parts = min(limit, max(1, -(-words // _PIECE_WORDS)))
    while True:
        mark = stage.e.mark()
        try:
            for box in boxes(axes, allowed, parts):
                emit(box)
            return
        except Full:
            stage.e.back(mark)
            if parts >= limit:
                raise
            parts = min(parts * 2, limit)


def window(ref: Ref, box: Box) -> Ref:
    """The operand from the first point of the box."""
    return ref.moved(sum(s * first for s, (first, _) in zip(ref.strides, box, strict=True)))


def result_ref(value: Value, groups: Sequence[tuple[int, ...]], axes: Sequence[int]) -> Ref:
    """Where a nest with local extents `axes` writes its result."""
    strides = [0] * len(axes)
    for group, step in zip(groups, value.strides, strict=True):
        for a in reversed(group):
            strides[a] = step
            step *= axes[a]
    return Ref(value.obj, value.fmt, 0, tuple(strides))


def tabulated(expr: Expr) -> tuple[Expr, dict[int, Expr]]:
    """The expression with slow parts that depend on positions alone (rotary angles, say) replaced by pseudo operands, and those parts."""
    tables: dict[int, Expr] = {}
    done: dict[int, Expr] = {}
    pure: dict[int, bool] = {}
    slow: dict[int, bool] = {}
    for entry in postorder(expr):
        pure[id(entry)] = entry.op != "arg" and all(pure[id(a)] for a in entry.args)
        slow[id(entry)] = entry.op in _TABULATE or any(slow[id(a)] for a in entry.args)

    def rebuilt(entry: Expr) -> Expr:
        if id(entry) not in done:
            if pure[id(entry)] and slow[id(entry)] and entry.dtype.is_float and axes_of(entry):
                number = next((k for k, e in tables.items() if e is entry), TABLE + len(tables))
                tables[number] = entry
                done[id(entry)] = arg(number, F32)
            else:
                done[id(entry)] = rebuild(entry, [rebuilt(a) for a in entry.args]) if entry.args else entry
        return done[id(entry)]

    return rebuilt(expr), tables


def leaves(stage: Stage, node: Nest, expr: Expr, splits: Splits, tables: Mapping[int, Expr] | None = None) -> dict[int, Ref]:
    """References of all operands, axis positions and tables that a lowered expression reads."""
    found = {}
    rank = len(node.axes)
    for index, part in (tables or {}).items():
        found[index] = stage.table(part, node.axes, splits)
    for index in args_of(expr):
        if index >= TABLE:
            continue
        if index >= AXIS:
            axis = index - AXIS
            at = next(((m, s) for m, s in enumerate(splits) if s is not None and s.axis == axis), None)
            ref = stage.iota(node.axes[axis], at[1] if at else None, at[0] if at else 0)
            found[index] = ref.walk([int(a == axis) for a in range(rank)])
        else:
            found[index] = stage.operand(node.operands[index], node.accesses[index], node.axes, splits)
    return found


def _temporaries(expr: Expr) -> int:
    """A guess at how many full-size temporaries are alive at once."""
    return min(4, 1 + sum(1 for e in postorder(expr) if e.args))


def emit_map(stage: Stage, node: Node, splits: Splits) -> Value:
    """One expression at every point."""
    assert isinstance(node, Map)
    plain_expr, tables = tabulated(node.expr)
    expr = lower(plain_expr)
    axes = local_axes(node.axes, splits)
    refs = leaves(stage, node, expr, splits, tables)
    shards = result_shards(node.groups, node.axes, splits)
    assert shards is not None
    value = stage.new(node.shape, element_of(node.dtype), shards)
    target = result_ref(value, node.groups, axes)
    role = stage.e.role(splits)

    def emit(box: Box) -> None:
        here = Evaluator(stage.e, role, [n for _, n in box], lambda i: window(refs[i], box))
        here.store(expr, window(target, box))

    plain = expr.op == "arg" and refs[expr.index].fmt == value.fmt
    piecewise(stage, axes, range(len(axes)), 0 if plain else 2 * prod(axes) * _temporaries(expr), emit)
    return value


def _fold(stage: Stage, role: Role, block: Ref, extents: Sequence[int], axis: int, op: Op) -> None:
    """Halve `axis` of a dense block until one is left: the upper half is combined into the lower."""
    n = extents[axis]
    shape = list(extents)
    while n > 1:
        half = n // 2
        shape[axis] = half
        upper = block.moved(block.strides[axis] * (n - half))
        stage.e.vec(op, PLAIN[block.fmt], role, shape, block, block, upper)
        n -= half


def emit_reduce(stage: Stage, node: Node, splits: Splits) -> Value:
    """Sum, product, extremes over axes in no group; argmax and argmin as an extreme and then the lowest position that has it."""
    assert isinstance(node, Reduce)
    if node.op in ("argmax", "argmin"):
        return _emit_arg(stage, node, splits)
    shards = result_shards(node.groups, node.axes, splits)
    assert shards is not None
    value = stage.new(node.shape, element_of(node.dtype), shards)
    expr = lower(node.expr)
    _reduce_into(stage, node, splits, expr, leaves(stage, node, expr, splits), node.op, value)
    return value


def _reduce_into(stage: Stage, node: Reduce, splits: Splits, expr: Expr, refs: dict[int, Ref], op_name: str, value: Value) -> None:
    """value = op over the reduced axes of `expr`; points of a padded cut count as the operator's neutral element."""
    op = COMBINE[op_name]
    for m, split in enumerate(splits):
        if split is not None and split.axis in node.reduced and split.tile * split.count > node.axes[split.axis]:
            a = split.axis
            refs[AXIS + a] = stage.iota(node.axes[a], split, m).walk([int(b == a) for b in range(len(node.axes))])
            expr = make("select", make("lt", arg(AXIS + a, I32), const(node.axes[a], I32)), expr, _neutral(op_name, expr.dtype))
    work = Element.F32 if expr.dtype.is_float else Element.I32
    axes = local_axes(node.axes, splits)
    reduced = node.reduced
    kept = [a for group in node.groups for a in group]
    target = result_ref(value, node.groups, axes)
    role = stage.e.role(splits)

    def emit(box: Box) -> None:
        extents = [n for _, n in box]
        size = prod(extents[a] for a in kept)
        total = stage.e.scratch(work, size)
        shape = [extents[a] if a in kept else 1 for a in range(len(extents))]
        strides = dense_strides(shape, kept)
        walk = Ref(total.obj, work, 0, strides)
        _accumulate(stage, role, box, reduced, expr, refs, op, walk, kept)
        reduce_splits(stage.e, splits, reduced, Ref(total.obj, work, 0, (1,)), size, op)
        final = stage.e.role((None if splits[Y] and splits[Y].axis in reduced else splits[Y],  # type: ignore[union-attr]
                              None if splits[X] and splits[X].axis in reduced else splits[X]))  # type: ignore[union-attr]  # fmt: skip
        convert(stage.e, final, shape, window(target, box), walk)
        stage.e.free(total.obj)

    piecewise(stage, axes, kept, 2 * prod(axes[a] for a in kept), emit)


def _neutral(op: str, dtype: DType) -> Expr:
    """The element that changes no result of the operator."""
    if op in ("any", "all"):
        return const(op == "all", dtype)
    if op in ("sum", "prod"):
        return const(int(op == "prod"), dtype)
    if dtype.is_float:
        return const(-inf if op == "max" else inf, dtype)
    return const(-(2**31) if op == "max" else 2**31 - 1, dtype)


def dense_strides(shape: Sequence[int], order: Sequence[int]) -> tuple[int, ...]:
    """Strides of a dense block whose axes lie in `order`, outermost first; 0 for the others."""
    strides = [0] * len(shape)
    for a, s in zip(order, row_major([shape[a] for a in order]), strict=True):
        strides[a] = s
    return tuple(strides)


def _accumulate(
    stage: Stage, role: Role, box: Box, reduced: Sequence[int], expr: Expr, refs: dict[int, Ref], op: Op, total: Ref, kept: Sequence[int]
) -> None:
    """total = op over this core's reduced axes, in boxes of them that fit."""
    e = stage.e
    extents = [n for _, n in box]
    first = True

    def emit(inside: Box) -> None:
        nonlocal first
        part = tuple((box[a][0] + inside[a][0], inside[a][1]) for a in range(len(box)))
        sizes = [n for _, n in part]
        here = Evaluator(e, role, sizes, lambda i: window(refs[i], part))
        block_ref = e.scratch(total.fmt, prod(sizes))
        order = [a for a in range(len(sizes)) if a in reduced] + list(kept)
        block = Ref(block_ref.obj, total.fmt, 0, dense_strides(sizes, order))
        here.store(expr, block)
        live = list(sizes)
        for a in reduced:
            _fold(stage, role, block, live, a, op)
            live[a] = 1
        if first:
            e.vec(Op.MOV, PLAIN[total.fmt], role, live, total, block)
        else:
            e.vec(op, PLAIN[total.fmt], role, live, total, total, block)
        e.free(block.obj)
        first = False

    limit = prod(extents[a] for a in reduced)
    parts = min(limit, max(1, -(-2 * prod(extents) * _temporaries(expr) // _PIECE_WORDS)))
    while True:
        mark = e.mark()
        first = True
        try:
            for inside in boxes(extents, reduced, parts):
                emit(inside)
            return
        except Full:
            e.back(mark)
            if parts >= limit:
                raise
            parts = min(2 * parts, limit)


def _emit_arg(stage: Stage, node: Reduce, splits: Splits) -> Value:
    """The lowest row-major position among the reduced axes that has the extreme value."""
    shards = result_shards(node.groups, node.axes, splits)
    assert shards is not None
    value = stage.new(node.shape, element_of(node.dtype), shards)
    expr = lower(node.expr)
    refs = leaves(stage, node, expr, splits)
    work = Element.F32 if expr.dtype.is_float else Element.I32
    extreme = stage.new(node.shape, work, shards)
    _reduce_into(stage, node, splits, expr, refs, "max" if node.op == "argmax" else "min", extreme)
    axes = local_axes(node.axes, splits)
    rank = len(node.axes)
    position: Expr = const(0, I32)
    for a in node.reduced:
        position = make("add", make("mul", position, const(node.axes[a], I32)), arg(AXIS + a, I32))
    wide = expr if expr.dtype is not BOOL else cast(expr, I32)
    found = make("eq", wide, arg(AXIS - 1, F32 if work is Element.F32 else I32))
    where = make("select", found, position, const(2**30, I32))
    refs[AXIS - 1] = result_ref(extreme, node.groups, axes)
    for a in node.reduced:
        at = next(((m, s) for m, s in enumerate(splits) if s is not None and s.axis == a), None)
        refs[AXIS + a] = stage.iota(node.axes[a], at[1] if at else None, at[0] if at else 0).walk([int(b == a) for b in range(rank)])
    _reduce_into(stage, node, splits, where, refs, "min", value)
    stage.e.free(extreme.obj)
    return value
