"""Map and Reduce: expressions over vectors, and reductions along vectors and along lanes.

The iteration space becomes vectors x lanes: some axes run along the lanes, the others enumerate vectors. Lanes are chosen so that the
operands need as few lane moves as possible. A reduction takes the axes along vectors by an accumulating ALU; what remains along the
lanes is turned into vectors by a move and accumulated again.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ...errors import UnsupportedOp
from ...ir.evaluate import evaluate
from ...ir.expr import Expr, arg, axes_of, axis, const, make, postorder
from ...ir.expr import cast as cast_expr
from ...ir.graph import Map, Reduce
from ...ir.types import BOOL, F16, F32, I32
from ...ir.types import DType as IrType
from ...machines.tsp.isa import NUMPY, DType, Opcode
from .engine import Provider
from .lower import Lowering, digits, lane_axes, unique_rows
from .memory import LANES
from .recipes import ISA_TYPE, Recipe, Ref
from .route import ChainOp
from .values import Copy, Value, arrange, row_major_strides

Array = np.ndarray


class Nesting:
    """An iteration space with axes split into vectors (`rows`) and lanes; tables of elements are made from strides."""

    def __init__(self, axes: Sequence[int], rows: Sequence[int], lanes: Sequence[int]) -> None:
        self.axes, self.rows, self.lanes = tuple(axes), tuple(rows), tuple(lanes)

    def table(self, offset: int, strides: Any) -> Array:
        """[vectors, 320] flat element numbers of an operand read with these strides, or as an array over the axes says."""
        if isinstance(strides, np.ndarray):
            index = self.table(0, row_major_strides(self.axes))
            return np.where(index >= 0, strides.reshape(-1)[np.maximum(index, 0)], -1)
        return arrange(offset, digits(strides, self.axes, self.rows), digits(strides, self.axes, self.lanes))

    @property
    def vectors(self) -> int:
        return int(np.prod([self.axes[a] for a in self.rows], dtype=np.int64)) * self.tiles

    @property
    def width(self) -> int:
        """Elements along lanes."""
        return int(np.prod([self.axes[a] for a in self.lanes], dtype=np.int64))

    @property
    def tiles(self) -> int:
        return -(-self.width // LANES)


def result_strides(groups: Sequence[Sequence[int]], axes: Sequence[int], shape: Sequence[int]) -> tuple[int, ...]:
    """Flat stride of every axis in a node's result; 0 for reduced axes."""
    strides = [0] * len(axes)
    for group, step in zip(groups, row_major_strides(shape), strict=True):
        for a in reversed(group):
            strides[a] = step
            step *= axes[a]
    return tuple(strides)


def choose_lanes(
    lowering: Lowering, operands: Sequence[tuple[Value, int, Any]], axes: Sequence[int], fallback: Sequence[int]
) -> tuple[int, ...]:
    """The axes to run along lanes: those that spare the most lane moves of the operands; ties go to the fewest vectors."""
    candidates = [tuple(fallback)]
    for value, _, strides in operands:
        if value.array is None:
            found = None if isinstance(strides, np.ndarray) else lane_axes(value, strides, axes)
            if found and found not in candidates:
                candidates.append(found)
    if len(candidates) == 1:
        return candidates[0]
    best: tuple[float, tuple[int, ...]] | None = None
    for lanes in candidates:
        nest = Nesting(axes, [a for a in range(len(axes)) if a not in lanes], lanes)
        cost = float(nest.vectors)
        for value, offset, strides in operands:
            if value.array is None:
                need = nest.table(offset, strides)
                if all(copy.locate(need, value.size) is None for copy in value.copies):
                    cost += 200 + 3 * _elements_read(strides, axes) / 64
        if best is None or cost < best[0]:
            best = (cost, lanes)
    assert best is not None
    return best[1]


def _elements_read(strides: Any, axes: Sequence[int]) -> int:
    """How many elements of an operand a nest reads."""
    walked = axes if isinstance(strides, np.ndarray) else [n for n, stride in zip(axes, strides, strict=False) if stride]
    return int(np.prod(walked, dtype=np.int64))


def axis_table(expr: Expr, nest: Nesting) -> Array:
    """Values of an expression over axes at every [vector, lane] of a nest; open lanes hold 0."""
    used = set(axes_of(expr))
    extents = [n if a in used else 1 for a, n in enumerate(nest.axes)]
    values = np.broadcast_to(np.asarray(evaluate(expr, [], extents)), extents)
    strides = [s if a in used else 0 for a, s in enumerate(row_major_strides(extents))]
    index = nest.table(0, strides)
    return np.where(index >= 0, values.reshape(-1)[np.maximum(index, 0)], 0).astype(NUMPY[ISA_TYPE[expr.dtype]])


class Sources:
    """Providers of an expression's operands over a nest."""

    def __init__(self, lowering: Lowering, nest: Nesting, operands: Sequence[tuple[Value, int, Any]]) -> None:
        self.lowering, self.nest, self.operands = lowering, nest, operands
        self.known: dict[int, Provider] = {}

    def __call__(self, ref: Ref) -> Provider:
        if ref.kind == "const":
            return self.lowering.splat(ref.bits, ref.dtype, self.nest.vectors)
        if ref.kind == "fold":
            assert ref.expr is not None
            rows, index = unique_rows(axis_table(ref.expr, self.nest))
            return self.lowering.table(rows, ref.dtype, index)
        if ref.kind == "mask":
            valid = self.nest.table(0, row_major_strides(self.nest.axes)) >= 0
            return self.lowering.mask(valid, ref.dtype)
        if ref.index not in self.known:
            value, offset, strides = self.operands[ref.index]
            self.known[ref.index] = self.lowering.fetch(value, self.nest.table(offset, strides))
        return self.known[ref.index]


def run_map(
    lowering: Lowering, expr: Expr, operands: Sequence[tuple[Value, int, Any]], axes: Sequence[int],
    strides: Sequence[int], shape: Sequence[int], fallback: Sequence[int], label: str, lanes: Sequence[int] | None = None,
    positive: Callable[[int], bool] = lambda index: False,
) -> Value:  # fmt: skip
    """One Map: `strides` are those of the result. Half precision results are left with zeros in open lanes, as contractions need."""
    chosen = tuple(lanes) if lanes is not None else choose_lanes(lowering, operands, axes, fallback)
    nest = Nesting(axes, [a for a in range(len(axes)) if a not in chosen], chosen)
    recipe = Recipe(tuple(axes), positive)
    result = recipe.lower(expr)
    padded = nest.width % LANES != 0
    clean = not padded
    if padded and expr.dtype is F16 and recipe.prims:
        result = recipe.op(Opcode.AND, result, Ref("mask", result.dtype))
        clean = True
    dtype = ISA_TYPE[expr.dtype]
    spare = dtype == DType.F16
    seq = lowering.run_prims(label, recipe.prims, result, Sources(lowering, nest, operands), nest.vectors, dtype, spare)
    element = nest.table(0, strides)
    return Value(tuple(shape), dtype, [Copy(element, seq, digits(strides, axes, chosen), False, clean)])


def lower_map(lowering: Lowering, node: Map) -> Value:
    """A Map node."""
    operands = operand_list(lowering, node)
    strides = result_strides(node.groups, node.axes, node.shape)
    fallback = next((group for group in reversed(node.groups) if group), ())
    return run_map(
        lowering,
        node.expr,
        operands,
        node.axes,
        strides,
        node.shape,
        fallback,
        "map",
        positive=lowering.surely_positive(node),
    )


def operand_list(lowering: Lowering, node: Any) -> list[tuple[Value, int, tuple[int, ...]]]:
    """(value, offset, strides) of every operand."""
    return [(lowering.value(o), *lowering.operand_strides(node, k)) for k, o in enumerate(node.operands)]


_ACCUMULATE = {"sum": Opcode.ACC_ADD, "max": Opcode.ACC_MAX, "min": Opcode.ACC_MIN, "any": Opcode.ACC_MAX, "all": Opcode.ACC_MIN}


def lower_reduce(lowering: Lowering, node: Reduce) -> Value:
    """A Reduce node of any operation."""
    operands = operand_list(lowering, node)
    strides = result_strides(node.groups, node.axes, node.shape)
    positive = lowering.surely_positive(node)
    expr = node.expr
    if node.op in ("argmax", "argmin"):
        return _arg_extreme(lowering, node, operands, strides)
    if node.op == "prod":
        return _product(lowering, node, operands, strides)
    if expr.dtype in (F16,) and node.op == "sum":
        expr = cast_expr(expr, F32)
    value = reduce_value(lowering, node.op, expr, operands, node.axes, node.reduced, strides, node.shape, positive)
    return converted(lowering, value, ISA_TYPE[node.dtype], node.dtype)


def converted(lowering: Lowering, value: Value, dtype: DType, target: IrType) -> Value:
    """The value in another format, element by element."""
    if value.dtype == dtype:
        return value
    source = next(t for t, d in ISA_TYPE.items() if d == value.dtype and t is not BOOL)
    strides = row_major_strides(value.shape)
    fallback = tuple(range(len(value.shape)))[-1:]
    return run_map(
        lowering, cast_expr(arg(0, source), target), [(value, 0, strides)], value.shape, strides, value.shape, fallback, "convert"
    )


def reduce_value(
    lowering: Lowering, op: str, expr: Expr, operands: Sequence[tuple[Value, int, Any]], axes: Sequence[int],
    reduced: Sequence[int], strides: Sequence[int], shape: Sequence[int], positive: Callable[[int], bool] = lambda index: False,
    lanes: Sequence[int] | None = None,
) -> Value:  # fmt: skip
    """Accumulate over the reduced axes that run along vectors, then over those along lanes; `lanes` says which these are, if given."""
    kept = [a for a in range(len(axes)) if a not in reduced]
    if lanes is None:
        lanes = choose_lanes(lowering, operands, axes, _natural_lanes(axes, kept, reduced, strides))
    if set(lanes) & set(reduced) and set(lanes) & set(kept):
        lanes = tuple(a for a in lanes if a in kept)
    along = [a for a in lanes if a in reduced]
    inner = [a for a in reduced if a not in lanes]
    outer = [a for a in kept if a not in lanes]
    if not along:
        return _accumulate(lowering, op, expr, operands, axes, outer, inner, lanes, strides, shape, positive)
    partial = _partial(lowering, op, expr, operands, axes, outer, inner, lanes, positive)
    # second stage: the partial results are [kept..., lanes]; keep along lanes, reduce along vectors
    extents = [axes[a] for a in outer] + [_partial_width(axes, lanes)]
    read = row_major_strides(extents)
    source = next(t for t, d in ISA_TYPE.items() if d == partial.dtype and (t is not BOOL))
    new_strides = [strides[a] for a in outer] + [0]
    return _accumulate(
        lowering,
        op,
        arg(0, source),
        [(partial, 0, read)],
        extents,
        [],
        [len(outer)],
        tuple(range(len(outer))),
        new_strides,
        shape,
        positive,
    )


def _natural_lanes(axes: Sequence[int], kept: Sequence[int], reduced: Sequence[int], strides: Sequence[int]) -> tuple[int, ...]:
    innermost = [a for a in kept if strides[a]]
    return (min(innermost, key=lambda a: strides[a]),) if innermost else (max(reduced),)


def _partial_width(axes: Sequence[int], lanes: Sequence[int]) -> int:
    width = int(np.prod([axes[a] for a in lanes], dtype=np.int64))
    return min(width, LANES)


def _neutral(op: str, dtype: IrType) -> float | int | bool:
    if op in ("sum", "any"):
        return 0
    if op == "all":
        return 1
    if dtype.is_float:
        return float("-inf") if op == "max" else float("inf")
    top = (1 << (min(dtype.bits, 32) - 1)) - 1
    return -top - 1 if op == "max" else top


def _accumulate(
    lowering: Lowering, op: str, expr: Expr, operands: Sequence[tuple[Value, int, Any]], axes: Sequence[int],
    outer: Sequence[int], inner: Sequence[int], lanes: Sequence[int], strides: Sequence[int], shape: Sequence[int],
    positive: Callable[[int], bool],
) -> Value:  # fmt: skip
    """Vectors ordered [outer, tile, inner], each group of `inner` accumulated into one vector; lanes are kept."""
    nest = Nesting(axes, [*outer, *inner], lanes)
    group = int(np.prod([axes[a] for a in inner], dtype=np.int64))
    order = np.arange(nest.vectors).reshape(-1, group, nest.tiles).transpose(0, 2, 1).reshape(-1)
    seq = _fold(lowering, op, expr, operands, nest, order, group, positive)
    element = arrange(0, digits(strides, axes, outer), digits(strides, axes, lanes))
    return Value(tuple(shape), ISA_TYPE[expr.dtype], [Copy(element, seq, digits(strides, axes, lanes))])


def _partial(
    lowering: Lowering, op: str, expr: Expr, operands: Sequence[tuple[Value, int, Any]], axes: Sequence[int],
    outer: Sequence[int], inner: Sequence[int], lanes: Sequence[int], positive: Callable[[int], bool],
) -> Value:  # fmt: skip
    """Vectors ordered [outer, inner, tile], accumulated over inner and tiles: [outer..., lanes of one tile]."""
    nest = Nesting(axes, [*outer, *inner], lanes)
    group = int(np.prod([axes[a] for a in inner], dtype=np.int64)) * nest.tiles
    seq = _fold(lowering, op, expr, operands, nest, np.arange(nest.vectors), group, positive)
    width = _partial_width(axes, lanes)
    extents = [axes[a] for a in outer] + [width]
    read = row_major_strides(extents)
    element = arrange(0, digits(read, extents, range(len(outer))), ((1, width),))
    return Value(tuple(extents), ISA_TYPE[expr.dtype], [Copy(element, seq, ((1, width),))])


def _fold(
    lowering: Lowering, op: str, expr: Expr, operands: Sequence[tuple[Value, int, Any]], nest: Nesting, order: Array,
    group: int, positive: Callable[[int], bool],
) -> Any:  # fmt: skip
    """Run the expression over the vectors in `order` and accumulate every `group` of them."""
    recipe = Recipe(nest.axes, positive)
    result = recipe.lower(expr)
    open_lanes = nest.tiles > 1 and nest.width % LANES != 0
    if open_lanes:
        result = _cover(recipe, result, op, expr.dtype)
    sources = Sources(lowering, nest, operands)

    def source(ref: Ref) -> Provider:
        if ref.kind == "neutral":
            valid = nest.table(0, row_major_strides(nest.axes)) >= 0
            neutral = np.where(valid, 0, _neutral(op, expr.dtype)).astype(NUMPY[ref.dtype])
            rows, index = unique_rows(neutral)
            return lowering.table(rows, ref.dtype, index[order])
        provider = sources(ref)
        return provider if (order == np.arange(len(order))).all() else provider.take(order)

    dtype = ISA_TYPE[expr.dtype]
    tail = ChainOp(_ACCUMULATE[op], dtype, ()) if group > 1 else None
    return lowering.run_prims("reduce", recipe.prims, result, source, nest.vectors, dtype, tail=tail, group=group)


def _cover(recipe: Recipe, result: Ref, op: str, dtype: IrType) -> Ref:
    """Open lanes of the last tile hold the neutral element: bits are cleared and the neutral's bits are set."""
    kept = recipe.op(Opcode.AND, result, Ref("mask", result.dtype))
    if _neutral(op, dtype) == 0:
        return kept
    return recipe.op(Opcode.OR, kept, Ref("neutral", result.dtype))


def _arg_extreme(lowering: Lowering, node: Reduce, operands: Any, strides: Sequence[int]) -> Value:
    """argmax, argmin: the extreme, then the smallest position that equals it (or holds NaN)."""
    op = "max" if node.op == "argmax" else "min"
    best = reduce_value(lowering, op, node.expr, operands, node.axes, node.reduced, strides, node.shape)
    position = const(0, I32)
    size = 1
    for a in reversed(node.reduced):
        term = cast_expr(make("mul", axis(a), cast_expr(const(size, I32), axis(a).dtype)), I32)
        position = make("add", position, term)
        size *= node.axes[a]
    extreme = arg(len(operands), node.expr.dtype)
    hit = make("eq", node.expr, extreme)
    if node.expr.dtype.is_float:
        hit = make("or", hit, make("isnan", node.expr))
    chosen = make("select", hit, position, const(size, I32))
    return reduce_value(lowering, "min", chosen, [*operands, (best, 0, tuple(strides))], node.axes, node.reduced, strides, node.shape)


def _product(lowering: Lowering, node: Reduce, operands: Any, strides: Sequence[int]) -> Value:
    """Products factor by factor: one Map per position of the reduced axes."""
    import itertools

    total: Value | None = None
    kept = [a for a in range(len(node.axes)) if a not in node.reduced]
    extents = [node.axes[a] for a in kept]
    out = [strides[a] for a in kept]
    expr, dtype = node.expr, node.expr.dtype
    if any(e.op == "axis" for e in postorder(expr)):
        raise UnsupportedOp("a product whose factors depend on their position has no TSP recipe")
    for point in itertools.product(*(range(node.axes[a]) for a in node.reduced)):
        parts = []
        for value, offset, stride in operands:
            shift = sum(p * stride[a] for p, a in zip(point, node.reduced, strict=True))
            parts.append((value, offset + shift, tuple(stride[a] for a in kept)))
        factor = expr if total is None else make("mul", expr, arg(len(operands), dtype))
        if total is not None:
            parts.append((total, 0, tuple(out)))
        fallback = tuple(range(len(extents)))[-1:]
        total = run_map(lowering, factor, parts, extents, out, node.shape, fallback, "product")
    assert total is not None
    return total
