"""The reference interpreter: what a graph means, in numpy alone.

One function per kind, in a registry. Affine accesses are strided views without copies, a contraction is one batched matrix product,
values are freed after their last use, and half formats round entry by entry (`ir.evaluate`), so that the interpreter predicts a
machine's error before a backend exists. It is the reference for every lowering and every pass; it is not built for speed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from itertools import pairwise
from math import prod
from typing import Any, TypeVar

import numpy as np
from numpy.lib.stride_tricks import as_strided

from ..errors import BadInput
from .access import Array, contract_axes, order_of, strided
from .evaluate import evaluate, round_to, work_type
from .graph import (
    Access,
    Constant,
    Contract,
    Gather,
    Graph,
    Index,
    Input,
    Lookup,
    Map,
    Move,
    Nest,
    Node,
    Reduce,
    Scan,
    Scatter,
    Sort,
    State,
)
from .store import ConstantStore
from .types import BOOL, F16, F32, F64, I64, DType

_POINTS = 1 << 18  # points of a Map or Reduce evaluated at once, so that temporaries stay in the cache
_GATHER_BYTES = 1 << 23  # a Gather larger than this that feeds one Contract is evaluated block by block

Rule = Callable[[Any, Sequence[Array]], Array]
_N = TypeVar("_N", bound=Node)
RULES: dict[type[Node], Rule] = {}


def _rule(kind: type[_N]) -> Callable[[Callable[[_N, Sequence[Array]], Array]], Callable[[_N, Sequence[Array]], Array]]:
    def register(function: Callable[[_N, Sequence[Array]], Array]) -> Callable[[_N, Sequence[Array]], Array]:
        RULES[kind] = function
        return function

    return register


def interpret(
    graph: Graph,
    inputs: Mapping[str, Array],
    *,
    states: Mapping[str, Array] | None = None,
    store: ConstantStore,
    upto: int | None = None,
    observe: Callable[[Node, Array], None] | None = None,
) -> tuple[tuple[Array, ...], dict[str, Array]]:
    """Outputs (in the order of `graph.outputs`) and every state after the run.

    `inputs` and `states` are keyed by name, arrays in logical shape (bf16 as float32); a state that is not given starts from its
    initial value. With `upto` only that node and what it needs are computed, and its value is the one output. `observe` sees each
    node's value. Raises BadInput for a missing or misshapen input, an index out of range, or a constant without value.
    """
    outputs = graph.outputs if upto is None else (upto,)
    updates = graph.updates if upto is None else {}
    wanted = _needed(graph, (*outputs, *updates.values()))
    if upto is None:
        for state in graph.states:
            wanted[state.id] = True
    remaining = [0] * len(graph.nodes)
    for node in graph.nodes:
        if wanted[node.id]:
            for operand in node.operands:
                remaining[operand] += 1
    kept = {*outputs, *updates.values(), *(n.id for n in graph.states)}
    blocked = {} if observe else _blocked_gathers(graph, wanted, kept)
    values: dict[int, Array] = {}
    for node in graph.nodes:
        if not wanted[node.id] or node.id in blocked:
            continue
        if isinstance(node, (Input, State, Constant)):
            value = _source(node, inputs, states or {}, store)
        elif isinstance(node, Contract) and any(o in blocked for o in node.operands):
            value = _contract_gathered(node, graph, values, blocked)
        else:
            value = compute(node, [values[o] for o in node.operands])
        values[node.id] = value
        if observe:
            observe(node, value)
        for operand in _reads(node, graph, blocked):
            remaining[operand] -= 1
            if not remaining[operand] and operand not in kept:
                values.pop(operand, None)
    after = {n.name: values[graph.updates.get(n.name, n.id)] for n in graph.states} if upto is None else {}
    return tuple(values[o] for o in outputs), after


def compute(node: Node, operands: Sequence[Array]) -> Array:
    """The value of one compute node from the values of its operands."""
    return RULES[type(node)](node, operands)


def _needed(graph: Graph, roots: Sequence[int]) -> list[bool]:
    wanted = [False] * len(graph.nodes)
    for root in roots:
        wanted[root] = True
    for node in reversed(graph.nodes):
        if wanted[node.id]:
            for operand in node.operands:
                wanted[operand] = True
    return wanted


def _reads(node: Node, graph: Graph, blocked: Mapping[int, int]) -> list[int]:
    """Operands whose value is no longer needed once `node` is computed: those of a blocked Gather count for its reader."""
    reads = []
    for operand in node.operands:
        reads.extend([operand, *graph[operand].operands] if operand in blocked else [operand])
    return reads


# --- sources ---------------------------------------------------------------------------------------------------------------------------


def _source(node: Input | State | Constant, inputs: Mapping[str, Array], states: Mapping[str, Array], store: ConstantStore) -> Array:
    if isinstance(node, Constant):
        return _border(store.get(node.ref.key), node, f"constant {node.ref.key!r}", None)
    if isinstance(node, Input):
        if node.name not in inputs:
            raise BadInput(f"input {node.name!r} is missing: the graph takes {node.dtype}{list(node.shape)} under that name")
        return _border(inputs[node.name], node, f"input {node.name!r}", node.range)
    if node.name in states:
        return _border(states[node.name], node, f"state {node.name!r}", node.range)
    if node.initial is None:
        return np.zeros(node.shape, node.dtype.array)
    return _border(store.get(node.initial), node, f"initial value of state {node.name!r}", node.range)


def _border(value: Array, node: Node, what: str, bounds: tuple[int, int] | None) -> Array:
    """`value` in the node's type, after checks of shape and range."""
    array = np.asarray(value)
    if array.shape != node.shape:
        raise BadInput(f"{what} has shape {list(array.shape)}, the graph takes {list(node.shape)}")
    if node.dtype.is_float:
        return round_to(array.astype(work_type(node.dtype), copy=False) if node.dtype is not F16 else array, node.dtype)
    if node.dtype is not BOOL and array.size and array.dtype != node.dtype.array:
        low, high = node.dtype.limits
        bounds = (max(low, bounds[0]), min(high, bounds[1])) if bounds else (low, high)
    if bounds and array.size and (array.min() < bounds[0] or array.max() > bounds[1]):
        raise BadInput(f"{what} holds values from {array.min()} to {array.max()}, the graph takes {bounds[0]} to {bounds[1]}")
    return array.astype(node.dtype.array, copy=False)


# --- nests -----------------------------------------------------------------------------------------------------------------------------


def _empty(node: Nest, dtype: np.dtype[Any]) -> tuple[Array, Array]:
    """A result to fill: as an array with one dimension per kept axis in result order, and the same memory with the axes ascending."""
    order = order_of(node.groups)
    result = np.empty([node.axes[a] for a in order], dtype)
    ascending = sorted(order)
    return result, result.transpose([order.index(a) for a in ascending])


def _views(node: Nest, operands: Sequence[Array]) -> list[Array]:
    return [strided(value, access, node.axes) for value, access in zip(operands, node.accesses, strict=True)]


def _blocks(extents: Sequence[int], axis: int | None) -> list[tuple[int, int]]:
    """Intervals of `axis` of about `_POINTS` points each."""
    if axis is None:
        return [(0, 0)]
    total = prod(extents)
    count = min(extents[axis], max(1, total // _POINTS))
    edges = [extents[axis] * i // count for i in range(count + 1)]
    return list(pairwise(edges))


def _part(view: Array, axis: int | None, low: int, high: int) -> Array:
    if axis is None or view.shape[axis] == 1:
        return view
    return view[(slice(None),) * axis + (slice(low, high),)]


def _rounded(value: Array, dtype: DType) -> Array:
    return round_to(value, dtype) if dtype.is_float else value.astype(dtype.array, copy=False)


@_rule(Map)
def _map(node: Map, operands: Sequence[Array]) -> Array:
    views = _views(node, operands)
    result, target = _empty(node, node.dtype.array)
    axis = 0 if node.axes else None
    for low, high in _blocks(node.axes, axis):
        extents = (high - low, *node.axes[1:]) if node.axes else ()
        start = (low, *(0 for _ in node.axes[1:])) if node.axes else ()
        block = evaluate(node.expr, [_part(v, axis, low, high) for v in views], extents, start)
        if axis is None:
            target[...] = block.reshape(())
        else:
            target[low:high] = block
    return result.reshape(node.shape)


_SUMS: dict[str, Callable[..., Any]] = {"sum": np.add.reduce, "prod": np.multiply.reduce}
_EXTREMES: dict[str, Callable[..., Any]] = {
    "max": np.maximum.reduce, "min": np.minimum.reduce, "any": np.logical_or.reduce, "all": np.logical_and.reduce,
}  # fmt: skip
_POSITIONS: dict[str, Callable[..., Any]] = {"argmax": np.argmax, "argmin": np.argmin}


def _sum_type(dtype: DType) -> np.dtype[Any]:
    """f32 for f16, bf16 and f32, f64 for f64, i64 for integers."""
    if dtype.is_float:
        return F64.array if dtype is F64 else F32.array
    return I64.array


@_rule(Reduce)
def _reduce(node: Reduce, operands: Sequence[Array]) -> Array:
    views = _views(node, operands)
    reduced = node.reduced
    kept = [a for a in range(len(node.axes)) if a not in reduced]
    result, target = _empty(node, node.dtype.array)
    axis = kept[0] if kept else None
    for low, high in _blocks(node.axes, axis):
        extents, start = list(node.axes), [0] * len(node.axes)
        if axis is not None:
            extents[axis], start[axis] = high - low, low
        block = evaluate(node.expr, [_part(v, axis, low, high) for v in views], extents, start)
        block = np.broadcast_to(block, extents)
        if node.op in _POSITIONS:
            lines = block.transpose([*kept, *reduced]).reshape([extents[a] for a in kept] + [-1])
            total = _POSITIONS[node.op](lines, axis=-1)
        elif node.op in _SUMS:
            with np.errstate(all="ignore"):
                total = _SUMS[node.op](block, axis=reduced, dtype=_sum_type(node.dtype))
        else:
            total = _EXTREMES[node.op](block, axis=reduced)
        total = _rounded(np.asarray(total), node.dtype)
        if axis is None:
            target[...] = total
        else:
            target[low:high] = total
    return result.reshape(node.shape)


# --- contraction -----------------------------------------------------------------------------------------------------------------------


def _matrix(array: Array) -> Array:
    """The same values in a layout that the matrix product takes without its slow path: one of the two inner strides is one element."""
    inner, outer = array.strides[-1], array.strides[-2]
    size = array.itemsize
    ok = (inner == size and outer % size == 0 and outer >= size * array.shape[-1]) or (
        outer == size and inner % size == 0 and inner >= size * array.shape[-2]
    )
    return array if ok else np.ascontiguousarray(array)


def _product_type(node: Contract, operand: DType) -> np.dtype[Any]:
    """Where products and sums are computed: f32 for float operands up to 32 bits, f64 for f64 and (exactly) for narrow integers."""
    if operand.is_float:
        return F64.array if F64 in (operand, node.acc) else F32.array
    return F64.array if operand.bits <= 16 else I64.array


def _operand_type(array: Array, node: Contract) -> DType:
    if array.dtype == np.float32 or array.dtype == np.float16:
        return F32
    return {np.dtype(np.float64): F64, np.dtype(np.int64): I64}.get(array.dtype, DType("int", array.dtype.itemsize * 8, "int", array.dtype))


@_rule(Contract)
def _contract(node: Contract, operands: Sequence[Array]) -> Array:
    """One batched matrix product: axes are sorted by role and each operand becomes [batch, M, K] or [batch, K, N]."""
    roles = contract_axes(node)
    work = _product_type(node, _operand_type(operands[0], node))
    extents = [prod(node.axes[a] for a in role) for role in (roles.batch, roles.m, roles.n, roles.k)]
    first, second = (
        strided(value.astype(work, copy=False), access, node.axes, full=True) for value, access in zip(operands, node.accesses, strict=True)
    )
    m_free, n_free = (tuple(0 for _ in axes) for axes in (roles.n, roles.m))
    first = _drop(first, roles.n, m_free).transpose(_positions(roles.batch + roles.m + roles.k, roles.n))
    second = _drop(second, roles.m, n_free).transpose(_positions(roles.batch + roles.k + roles.n, roles.m))
    batch, m, n, k = extents
    product: Array
    with np.errstate(all="ignore"):
        product = np.matmul(_matrix(first.reshape(batch, m, k)), _matrix(second.reshape(batch, k, n)))
    if node.dtype.is_int:
        product = np.rint(product).astype(np.int64, copy=False) if work == F64.array else product
    product = _rounded(product, node.dtype)
    made = roles.batch + roles.m + roles.n
    product = product.reshape([node.axes[a] for a in made])
    return product.transpose([made.index(a) for a in order_of(node.groups)]).reshape(node.shape)


def _drop(view: Array, axes: Sequence[int], at: Sequence[int]) -> Array:
    """`view` at position `at` of `axes`, which it does not vary along."""
    selection: list[Any] = [slice(None)] * view.ndim
    for axis, position in zip(axes, at, strict=True):
        selection[axis] = position
    plane: Array = view[tuple(selection)]
    return plane


def _positions(axes: Sequence[int], dropped: Sequence[int]) -> list[int]:
    """Where `axes` are after `dropped` axes are gone."""
    return [a - sum(d < a for d in dropped) for a in axes]


# --- assembly --------------------------------------------------------------------------------------------------------------------------


def grouped(view: Array, axes: Sequence[int], order: Sequence[int], shape: Sequence[int]) -> Array:
    """A full view of a nest with its axes permuted into the order of the result and joined into result dimensions."""
    return np.broadcast_to(view, tuple(axes)).transpose(order).reshape(shape)


@_rule(Move)
def _move(node: Move, operands: Sequence[Array]) -> Array:
    if node.is_view:
        piece = node.pieces[0]
        view = strided(operands[piece.operand], piece.access, piece.axes, full=True)
        return grouped(view, piece.axes, order_of(piece.groups), node.shape)
    result = np.empty(node.shape, node.dtype.array)
    if node.fill is not None:
        result[...] = node.fill
    for piece in node.pieces:
        view = strided(operands[piece.operand], piece.access, piece.axes, full=True)
        corners = zip(piece.corner, piece.step, piece.shape, strict=True)
        where = tuple(slice(c, c + s * (n - 1) + 1, s) for c, s, n in corners)
        result[where] = grouped(view, piece.axes, order_of(piece.groups), piece.shape)
    return result


# --- lookups ---------------------------------------------------------------------------------------------------------------------------


def _addressed(
    node: Node, access: Access, data: Array, axes: Sequence[int], index: Mapping[int, Array], points: Sequence[int]
) -> tuple[Array, Array, list[int]]:
    """How an access with lookups addresses contiguous `data`.

    Axes split into `points` (where a position is computed) and the rest, which walk `data` by fixed strides. Returns the flat position
    of every point (rank of `points`), `data` as [flat position, other axes...] without a copy, and those other axes.
    """
    free = [a for a in range(len(axes)) if a not in points]
    base = np.zeros([axes[a] for a in points], dtype=np.int64)
    strides = [0] * len(axes)
    for d, entry in enumerate(access):
        step = data.strides[d] // data.itemsize
        if isinstance(entry, Lookup):
            position = index[entry.operand]
            if position.size and (position.min() < 0 or position.max() >= data.shape[d]):
                raise BadInput(
                    f"{node.kind} %{node.id} ({node.origin.op or 'no op'} at {node.origin.source or 'unknown line'}) looks up positions "
                    f"{position.min()} to {position.max()} in a dimension of {data.shape[d]}"
                )
            base += position.transpose([*points, *free]).reshape([position.shape[a] for a in points]) * step
        else:
            base += entry.offset * step
            for axis, coefficient in entry.terms:
                strides[axis] += coefficient * step
    for number, axis in enumerate(points):
        shape = [1] * len(points)
        shape[number] = axes[axis]
        base += (np.arange(axes[axis]) * strides[axis]).reshape(shape)
    flat = data.reshape(-1)
    reach = int(base.max()) + 1 if base.size else 1
    walk = as_strided(flat, [reach, *(axes[a] for a in free)], [data.itemsize, *(strides[a] * data.itemsize for a in free)])
    return base, walk, free


@_rule(Gather)
def _gather(node: Gather, operands: Sequence[Array]) -> Array:
    data = np.ascontiguousarray(operands[0]).reshape(operands[0].shape)
    index = {n: strided(operands[n].astype(np.int64, copy=False), node.accesses[n], node.axes) for n in range(1, len(operands))}
    points = [a for a in range(len(node.axes)) if any(v.shape[a] > 1 for v in index.values())]
    base, walk, free = _addressed(node, node.accesses[0], data, node.axes, index, points)
    made = [*points, *free]
    rows: Array = walk[base]
    return rows.transpose([made.index(a) for a in order_of(node.groups)]).reshape(node.shape)


_SCATTER: dict[str, Any] = {"add": np.add, "max": np.maximum, "min": np.minimum}


@_rule(Scatter)
def _scatter(node: Scatter, operands: Sequence[Array]) -> Array:
    """Axes that alone walk a dimension of the base move whole; all others are points, visited in row-major order so that the last wins."""
    work = work_type(node.dtype) if node.mode != "set" else node.dtype.array
    result = np.array(operands[0], dtype=work, order="C")
    index: dict[int, Array] = {}
    views = [strided(value, access, node.axes) for value, access in zip(operands[1:], node.accesses, strict=True)]
    for number, view in enumerate(views[1:], start=2):
        index[number] = view.astype(np.int64, copy=False)
    alone = {e.terms[0][0] for e in node.target if isinstance(e, Index) and len(e.terms) == 1}
    looked = {a for a in range(len(node.axes)) if any(v.shape[a] > 1 for v in index.values())}
    shared = {a for e in node.target if isinstance(e, Index) and len(e.terms) > 1 for a, _ in e.terms}
    points = [a for a in range(len(node.axes)) if a not in alone or a in looked or a in shared]
    base, walk, free = _addressed(node, node.target, result, node.axes, index, points)
    source = np.broadcast_to(views[0], tuple(node.axes)).transpose([*points, *free])
    source = source.reshape([-1, *(node.axes[a] for a in free)]).astype(work, copy=False)
    if node.mode == "set":
        walk[base.reshape(-1)] = source
    else:
        _SCATTER[node.mode].at(walk, base.reshape(-1), source)
    return _rounded(result, node.dtype)


# --- orders and recurrences ------------------------------------------------------------------------------------------------------------


@_rule(Sort)
def _sort(node: Sort, operands: Sequence[Array]) -> Array:
    values = np.moveaxis(operands[0], node.axis, -1)
    extent = values.shape[-1]
    if node.descending:  # the reverse of a stable ascending order of the reversed line keeps ties by lower position
        order = extent - 1 - np.argsort(values[..., ::-1], axis=-1, kind="stable")[..., ::-1]
    else:
        order = np.argsort(values, axis=-1, kind="stable")
    return np.ascontiguousarray(np.moveaxis(order[..., : node.count], -1, node.axis)).astype(node.dtype.array, copy=False)


_SCANS: dict[str, Any] = {"add": np.add, "mul": np.multiply, "max": np.maximum, "min": np.minimum}


@_rule(Scan)
def _scan(node: Scan, operands: Sequence[Array]) -> Array:
    work = work_type(node.dtype)
    result: Array
    lines = [np.moveaxis(v.astype(work, copy=False), node.axis, 0) for v in operands[:2]]
    if node.reverse:
        lines = [line[::-1] for line in lines]
    with np.errstate(all="ignore"):
        if node.op == "linear":
            result = np.empty(lines[0].shape, work)
            last = operands[2].astype(work, copy=False) if len(operands) == 3 else np.zeros(lines[0].shape[1:], work)
            for t in range(len(result)):
                last = result[t] = lines[0][t] * last + lines[1][t]
        else:
            result = _SCANS[node.op].accumulate(lines[0], axis=0, dtype=work)
    if node.reverse:
        result = result[::-1]
    return _rounded(np.ascontiguousarray(np.moveaxis(result, 0, node.axis)), node.dtype)


# --- a Gather that only feeds a Contract -----------------------------------------------------------------------------------------------


def _blocked_gathers(graph: Graph, wanted: Sequence[bool], kept: set[int]) -> dict[int, int]:
    """Large Gathers read by one Contract alone, with the Contract's axis along which both can be cut: gather id -> axis."""
    found: dict[int, int] = {}
    for node in graph.nodes:
        if not isinstance(node, Gather) or not wanted[node.id] or node.id in kept or node.size * node.dtype.bytes < _GATHER_BYTES:
            continue
        readers = [u for u in graph.users[node.id] if wanted[u]]
        if len(readers) != 1:
            continue
        reader = graph[readers[0]]
        if not isinstance(reader, Contract) or reader.operands.count(node.id) != 1 or any(o in found for o in reader.operands):
            continue
        axis = _cut_axis(node, reader)
        if axis is not None:
            found[node.id] = axis
    return found


def _cut_axis(gather: Gather, reader: Contract) -> int | None:
    access = reader.accesses[reader.operands.index(gather.id)]
    results = set(order_of(reader.groups))
    for d, entry in enumerate(access):
        if isinstance(entry, Index) and entry.offset == 0 and len(entry.terms) == 1 and len(gather.groups[d]) == 1:
            axis, coefficient = entry.terms[0]
            alone = sum(axis in (a for a, _ in e.terms) for e in access if isinstance(e, Index)) == 1
            if coefficient == 1 and alone and axis in results and reader.axes[axis] == gather.shape[d]:
                return axis
    return None


def _shift(access: Access, axis: int, low: int) -> Access:
    """The access with `axis` counted from `low`."""

    def moved(entry: Index | Lookup) -> Index | Lookup:
        if isinstance(entry, Lookup):
            return entry
        return Index(entry.offset + sum(c * low for a, c in entry.terms if a == axis), entry.terms)

    return tuple(moved(entry) for entry in access)


def _cut(node: Nest, axis: int, low: int, high: int, fixed: Sequence[int] = ()) -> Nest:
    """The nest restricted to [low, high) of `axis`; operands in `fixed` are already cut."""
    axes = tuple(high - low if a == axis else e for a, e in enumerate(node.axes))
    accesses = tuple(a if n in fixed else _shift(a, axis, low) for n, a in enumerate(node.accesses))
    shape = tuple(prod(axes[a] for a in group) for group in node.groups)
    return replace(node, axes=axes, accesses=accesses, shape=shape)


def _contract_gathered(node: Contract, graph: Graph, values: Mapping[int, Array], blocked: Mapping[int, int]) -> Array:
    """A Contract over a Gather that is never whole in memory: both are evaluated block by block along one axis."""
    place = next(n for n, o in enumerate(node.operands) if o in blocked)
    gather = graph[node.operands[place]]
    assert isinstance(gather, Gather)
    axis = blocked[gather.id]
    access = node.accesses[place]
    dimension = next(d for d, e in enumerate(access) if isinstance(e, Index) and any(a == axis for a, _ in e.terms))
    gather_axis = gather.groups[dimension][0]
    sources = [values[o] for o in gather.operands]
    other = values[node.operands[1 - place]]
    result, _ = _empty(node, node.dtype.array)
    order = order_of(node.groups)
    along = order.index(axis)
    rows = max(1, _GATHER_BYTES * gather.shape[dimension] // (gather.size * gather.dtype.bytes))
    for low in range(0, node.axes[axis], rows):
        high = min(low + rows, node.axes[axis])
        part = compute(_cut(gather, gather_axis, low, high), sources)
        piece = _cut(node, axis, low, high, fixed=(place,))
        pair = [part, other] if place == 0 else [other, part]
        block = compute(piece, pair).reshape([piece.axes[a] for a in order])
        result[(slice(None),) * along + (slice(low, high),)] = block
    return result.reshape(node.shape)
