"""Host tasks of IR nodes: one function a kind, over row-major DDR values.

In the `published` mode everything but contractions is the host's work, as in the published systems. A node becomes one loop nest (a Move
one for each piece); operand accesses become strides, lookups become looked-up positions, expressions are copied entry by entry.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import prod

from ...ir.access import access_strides, order_of, row_major
from ...ir.expr import arg, args_of, cast, make
from ...ir.graph import Access, Contract, Gather, Lookup, Map, Move, Nest, Node, Piece, Reduce, Scan, Scatter, Sort
from ...ir.types import DType
from ...machines.cgla.tables import DTYPE_BYTES, HostKind
from .hoist import Hoisted, hoist
from .host import ExprRow, HostLookup, HostOperand, HostTask, constant, encode, identity


@dataclass(frozen=True)
class Value:
    """A row-major value in DDR: symbol, dtype as stored, shape."""

    symbol: int
    dtype: str
    shape: tuple[int, ...]


def operand_of(value: Value, access: Access, rank: int, lookups: Callable[[int], int] | None = None) -> HostOperand:
    """The operand that reads `value` through an access of a nest of `rank` axes; `lookups` numbers index operands as task operands."""
    view = access_strides(access, value.shape, rank)
    strides = {a: s for a, s in enumerate(view.strides) if s}
    found = []
    for entry, step, extent in zip(access, row_major(value.shape), value.shape, strict=True):
        if isinstance(entry, Lookup):
            assert lookups is not None
            found.append(HostLookup(lookups(entry.operand), step, extent))
    return HostOperand(value.symbol, value.dtype, strides, view.offset * DTYPE_BYTES[value.dtype], tuple(found))


def result_of(value: Value, axes: Sequence[int], groups: Sequence[tuple[int, ...]]) -> HostOperand:
    """The result operand of a nest: row-major over its groups."""
    order = order_of(groups)
    steps = row_major([axes[a] for a in order])
    return HostOperand(value.symbol, value.dtype, {a: s for a, s in zip(order, steps, strict=True) if axes[a] > 1})


def _nest_operands(node: Nest, values: Sequence[Value], result: Value) -> tuple[HostOperand, ...]:
    rank = len(node.axes)
    reads = [operand_of(v, access, rank, lambda j: j + 1) for v, access in zip(values, node.accesses, strict=True)]
    return (result_of(result, node.axes, node.groups), *reads)


Scratch = Callable[[int, str], tuple[int, str]]


def map_tasks(node: Map, values: Sequence[Value], result: Value, scratch: Scratch, label: str, tables: bool = False) -> list[HostTask]:
    """One MAP, after those of its invariant parts."""
    target, *reads = _nest_operands(node, values, result)
    hoisted = hoist(node, reads, scratch, label, tables)
    exprs, operands = _read(hoisted, (target,), result.dtype)
    return [*hoisted.tasks, HostTask(HostKind.MAP, node.axes, operands, exprs, label=label)]


def reduce_tasks(
    node: Reduce, values: Sequence[Value], result: Value, scratch: Scratch, label: str, tables: bool = False
) -> list[HostTask]:
    """One REDUCE, after the MAPs of its invariant parts."""
    target, *reads = _nest_operands(node, values, result)
    hoisted = hoist(node, reads, scratch, label, tables)
    exprs, operands = _read(hoisted, (target,), "")
    return [*hoisted.tasks, HostTask(HostKind.REDUCE, node.axes, operands, exprs, op=node.op, label=label)]


def _read(hoisted: Hoisted, target: tuple[HostOperand, ...], cast_to: str) -> tuple[tuple[ExprRow, ...], tuple[HostOperand, ...]]:
    """Expression rows and operands, those that the expression reads."""
    used = args_of(hoisted.expr)
    exprs = encode(hoisted.expr, {index: position + 1 for position, index in enumerate(used)}, cast=cast_to)
    return exprs, (*target, *(hoisted.operands[index] for index in used))


def contract_tasks(node: Contract, values: Sequence[Value], result: Value, types: Sequence[DType], label: str) -> list[HostTask]:
    """A contraction as a REDUCE of products: integers and double precision, which the array does not have."""
    product = make("mul", cast(arg(0, types[0]), node.acc), cast(arg(1, types[1]), node.acc))
    exprs = encode(product, {0: 1, 1: 2})
    return [HostTask(HostKind.REDUCE, node.axes, _nest_operands(node, values, result), exprs, op="sum", label=label)]


def gather_tasks(node: Gather, values: Sequence[Value], result: Value, label: str) -> list[HostTask]:
    """One MAP whose first operand is looked up."""
    operands = _nest_operands(node, values, result)
    return [HostTask(HostKind.MAP, node.axes, operands, identity(values[0].dtype, result.dtype), label=label)]


def copy_task(source: Value, result: Value, label: str) -> HostTask:
    """A row-major copy, converted to the result's dtype."""
    size = prod(source.shape)
    strides = {0: 1} if size > 1 else {}
    operands = (HostOperand(result.symbol, result.dtype, strides), HostOperand(source.symbol, source.dtype, strides))
    return HostTask(HostKind.MAP, (size,), operands, identity(source.dtype, result.dtype), label=label)


def fill_task(value: float | int | bool, result: Value, label: str) -> HostTask:
    """One value everywhere."""
    size = prod(result.shape)
    operands = (HostOperand(result.symbol, result.dtype, {0: 1} if size > 1 else {}),)
    return HostTask(HostKind.MAP, (size,), operands, constant(value, result.dtype), label=label)


def piece_task(piece: Piece, value: Value, result: Value, label: str) -> HostTask:
    """One piece of a Move: positions of the piece, scaled by `step`, from `corner` on."""
    rank = len(piece.axes)
    strides: dict[int, int] = {}
    offset = 0
    for group, corner, step, stride in zip(piece.groups, piece.corner, piece.step, row_major(result.shape), strict=True):
        offset += corner * stride
        inner = step * stride
        for axis in reversed(group):
            strides[axis] = inner
            inner *= piece.axes[axis]
    terms = {a: s for a, s in strides.items() if piece.axes[a] > 1}
    target = HostOperand(result.symbol, result.dtype, terms, offset * DTYPE_BYTES[result.dtype])
    operands = (target, operand_of(value, piece.access, rank))
    return HostTask(HostKind.MAP, piece.axes or (1,), operands, identity(value.dtype, result.dtype), label=label)


def move_tasks(node: Move, values: Sequence[Value], result: Value, label: str, skip: int = 0) -> list[HostTask]:
    """The fill, where there is one, then every piece from number `skip` on."""
    tasks = [fill_task(node.fill, result, label)] if node.fill is not None and not skip else []
    return tasks + [piece_task(piece, values[piece.operand], result, label) for piece in node.pieces[skip:]]


def scatter_tasks(node: Scatter, values: Sequence[Value], result: Value, label: str, in_place: bool) -> list[HostTask]:
    """A copy of the base unless the result is the base itself, then one SCATTER."""
    base, source, *indices = values
    rank = len(node.axes)
    target = operand_of(result, node.target, rank, lambda j: j)
    reads = [operand_of(v, access, rank) for v, access in zip([source, *indices], node.accesses, strict=True)]
    task = HostTask(HostKind.SCATTER, node.axes, (target, *reads), identity(source.dtype, result.dtype), op=node.mode, label=label)
    return [task] if in_place else [copy_task(base, result, label), task]


def sort_tasks(node: Sort, values: Sequence[Value], result: Value, label: str) -> list[HostTask]:
    """One SORT along the axis."""
    source = values[0]
    rank = len(source.shape)
    kept = {d: s for d, s in enumerate(row_major(result.shape)) if result.shape[d] > 1 or d == node.axis}
    read = {d: s for d, s in enumerate(row_major(source.shape)) if source.shape[d] > 1 or d == node.axis}
    operands = (HostOperand(result.symbol, result.dtype, kept), HostOperand(source.symbol, source.dtype, read))
    shape = source.shape if rank else (1,)
    return [HostTask(HostKind.SORT, shape, operands, axis=node.axis, flag=int(node.descending), count=node.count, label=label)]


def scan_tasks(node: Scan, values: Sequence[Value], result: Value, label: str) -> list[HostTask]:
    """One SCAN along the axis; the first state of a linear recurrence has no term on it."""
    operands = [result, *values]
    axes = result.shape
    found = []
    for number, value in enumerate(operands):
        shape = value.shape
        if number == 3 and len(shape) == len(axes) - 1:
            shape = (*shape[: node.axis], 1, *shape[node.axis :])
        strides = {d: s for d, s in enumerate(row_major(shape)) if shape[d] > 1}
        found.append(HostOperand(value.symbol, value.dtype, strides))
    return [HostTask(HostKind.SCAN, axes, tuple(found), op=node.op, axis=node.axis, flag=int(node.reverse), label=label)]


def label_of(node: Node) -> str:
    """The name that `host_ops` counts: the kind, and the operator of a reduction."""
    kind = node.kind.lower()
    return f"{kind} {node.op}" if isinstance(node, (Reduce, Scan)) else kind
