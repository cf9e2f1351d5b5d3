"""Emits nodes of the dataflow IR in the terms lowerings think in: broadcast, reshape, reduce, contract, assemble, look up.

Every method returns a `Value`. Nests may be described with axes of extent 1; they are dropped before the node is made, so lowerings need
no special case for them. Views are single-piece Moves: canonicalisation folds them into their readers.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from math import prod
from typing import Any

import numpy as np

from ..ir.expr import Expr, arg, axis, cast, const, make, substitute
from ..ir.graph import (
    NO_ORIGIN,
    Access,
    Constant,
    ConstantRef,
    Contract,
    Gather,
    GraphBuilder,
    Group,
    Index,
    Lookup,
    Map,
    Move,
    Origin,
    Piece,
    Reduce,
    Scan,
    Scatter,
    Sort,
    identity_access,
)
from ..ir.store import ConstantStore
from ..ir.types import F32, F64, I8, I32, I64, DType
from .types import Number, Refused, Result, Value, wide

Read = tuple[Value, Access]


def ix(*terms: tuple[int, int] | int, offset: int = 0) -> Index:
    """An index from axes (an axis alone has coefficient 1) and an offset."""
    return Index.of(offset, ((t, 1) if isinstance(t, int) else t for t in terms))


def squeeze(
    axes: Sequence[int], accesses: Sequence[Access], groups: Sequence[Group]
) -> tuple[tuple[int, ...], tuple[Access, ...], tuple[Group, ...], dict[int, int]]:
    """The same nest without axes of extent 1, and the new number of every axis that stays."""
    new = {old: n for n, old in enumerate(a for a, extent in enumerate(axes) if extent > 1)}

    def clean(index: Index | Lookup) -> Index | Lookup:
        return index if isinstance(index, Lookup) else Index.of(index.offset, ((new[a], c) for a, c in index.terms if a in new))

    kept = tuple(tuple(new[a] for a in group if a in new) for group in groups)
    return tuple(axes[a] for a in new), tuple(tuple(map(clean, access)) for access in accesses), kept, new


def broadcast_access(shape: Sequence[int], result: Sequence[int]) -> Access:
    """How a value of `shape` is read at every point of `result` (axis d = dimension d), aligned at the right."""
    lead = len(result) - len(shape)
    return tuple(ix() if extent == 1 else ix(lead + d) for d, extent in enumerate(shape))


def broadcast_shape(*shapes: Sequence[int]) -> tuple[int, ...]:
    """The common shape under broadcasting."""
    return tuple(int(n) for n in np.broadcast_shapes(*map(tuple, shapes)))


class Emitter:
    """A graph builder with the current FX node's provenance and result types."""

    def __init__(self, builder: GraphBuilder, store: ConstantStore) -> None:
        self.builder = builder
        self.store = store
        self.origin: Origin = NO_ORIGIN
        self.results: tuple[Result | None, ...] = ()
        self.used: frozenset[int] = frozenset()  # which results of the current FX node are read
        self.common: Callable[..., DType] = self._no_node  # torch's common type of the arguments at these positions
        self.operand_stride: Callable[[int], tuple[int, ...]] = self._no_node  # torch's strides of the argument at this position

    @staticmethod
    def _no_node(*_: int) -> Any:
        raise RuntimeError("no FX node is being lowered")

    @property
    def result(self) -> Result:
        """The type of the only (or first) result."""
        first = self.results[0] if self.results else None
        if first is None:
            raise Refused("it has no tensor result")
        return first

    @property
    def dtype(self) -> DType:
        return self.result.dtype

    @property
    def shape(self) -> tuple[int, ...]:
        return self.result.shape

    # -- nodes ------------------------------------------------------------------------------------------------------------------

    def _value(self, kind: type[Any], operands: Sequence[Value], dtype: DType, shape: Sequence[int], **fields: Any) -> Value:
        node_id = self.builder.new(kind, [v.id for v in operands], dtype=dtype, shape=shape, origin=self.origin, **fields)
        return Value(node_id, dtype, tuple(shape))

    @staticmethod
    def _unique(reads: Sequence[Read], expr: Expr) -> tuple[list[Read], Expr]:
        """Equal reads are one operand; reads that the expression does not use are dropped."""
        order: dict[Read, int] = {}

        def leaf(entry: Expr) -> Expr:
            return arg(order.setdefault(reads[entry.index], len(order)), entry.dtype)

        expr = substitute(expr, args=leaf)
        return list(order), expr

    def _nest(self, axes: Sequence[int], groups: Sequence[Group], reads: Sequence[Read], expr: Expr) -> tuple[dict[str, Any], list[Value]]:
        unique, expr = self._unique(reads, expr)
        shape = [prod(axes[a] for a in group) for group in groups]
        axes, accesses, groups, new = squeeze(axes, [access for _, access in unique], groups)
        expr = substitute(expr, axes=lambda e: axis(new[e.index]) if e.index in new else const(0, I64))
        fields = {"axes": axes, "accesses": accesses, "groups": groups, "expr": expr, "shape": shape}
        return fields, [value for value, _ in unique]

    def map(self, axes: Sequence[int], groups: Sequence[Group], reads: Sequence[Read], expr: Expr) -> Value:
        """One scalar expression over the iteration space; `arg(i)` is read i."""
        fields, operands = self._nest(axes, groups, reads, expr)
        return self._value(Map, operands, fields["expr"].dtype, **fields)

    def reduce(self, op: str, axes: Sequence[int], groups: Sequence[Group], reads: Sequence[Read], expr: Expr) -> Value:
        """`op` over the axes in no group. Without such an axis (of extent above 1) it is a Map."""
        kept = {a for group in groups for a in group}
        if all(extent == 1 or a in kept for a, extent in enumerate(axes)):
            return self.map(axes, groups, reads, const(0, I64) if op.startswith("arg") else expr)
        fields, operands = self._nest(axes, groups, reads, expr)
        dtype = I64 if op.startswith("arg") else fields["expr"].dtype
        return self._value(Reduce, operands, dtype, op=op, **fields)

    def contract(self, axes: Sequence[int], groups: Sequence[Group], a: Read, b: Read, dtype: DType | None = None) -> Value:
        """The product of two reads of one dtype, summed over the axes in no group; `dtype` is the result's (default: the operands')."""
        operands, result = a[0].dtype, dtype or a[0].dtype
        kept = {x for group in groups for x in group}
        summed = any(extent > 1 and x not in kept for x, extent in enumerate(axes))
        if not summed or (operands.is_int and operands is not I8):
            narrow = I32 if operands is I8 else wide(operands)
            product = make("mul", cast(arg(0, operands), narrow), cast(arg(1, operands), narrow))
            if not summed:
                return self.map(axes, groups, [a, b], cast(product, result))
            return self.cast(self.reduce("sum", axes, groups, [a, b], product), result)
        acc = F64 if operands is F64 else I32 if operands is I8 else F32
        shape = [prod(axes[x] for x in group) for group in groups]
        axes, accesses, groups, _ = squeeze(axes, (a[1], b[1]), groups)
        return self._value(Contract, (a[0], b[0]), result, shape, axes=axes, accesses=accesses, groups=groups, acc=acc)

    def view(self, x: Value, axes: Sequence[int], access: Access, groups: Sequence[Group]) -> Value:
        """An access as a value: the piece is the whole result."""
        shape = tuple(prod(axes[a] for a in group) for group in groups)
        axes, (access,), groups, _ = squeeze(axes, [access], groups)
        if (
            shape == x.shape
            and all(index == ix(*groups[d]) if len(groups[d]) < 2 else False for d, index in enumerate(access))
            and sum(map(len, groups)) == len(axes)
        ):
            return x
        piece = Piece(0, axes, access, groups, (0,) * len(shape), (1,) * len(shape))
        return self._value(Move, [x], x.dtype, shape, pieces=(piece,))

    def assemble(
        self, shape: Sequence[int], parts: Sequence[tuple[Value, Sequence[int], Sequence[int]]], fill: Number | None = None
    ) -> Value:
        """Values written at (corner, step) into a result of `shape`, later over earlier; `fill` where nothing is written."""
        order: dict[Value, int] = {}
        pieces = []
        for value, corner, step in parts:
            groups: Sequence[Group] = [(d,) for d in range(value.ndim)]
            axes, (access,), groups, _ = squeeze(value.shape, [identity_access(value.ndim)], groups)
            pieces.append(Piece(order.setdefault(value, len(order)), axes, access, groups, tuple(corner), tuple(step)))
        return self._value(Move, list(order), parts[0][0].dtype, shape, pieces=tuple(pieces), fill=fill)

    def gather(
        self, axes: Sequence[int], groups: Sequence[Group], data: Value, access: Sequence[Index | int], reads: Sequence[Read]
    ) -> Value:
        """Reads `data` with some positions looked up: an int n in `access` is the value of `reads[n]`."""
        shape = [prod(axes[a] for a in group) for group in groups]
        order: dict[Read, int] = {}
        target: Access = tuple(i if isinstance(i, Index) else Lookup(1 + order.setdefault(reads[i], len(order))) for i in access)
        axes, accesses, groups, _ = squeeze(axes, [target, *(a for _, a in order)], groups)
        operands = [data, *(v for v, _ in order)]
        return self._value(Gather, operands, data.dtype, shape, axes=axes, accesses=accesses, groups=groups)

    def scatter(
        self, mode: str, axes: Sequence[int], base: Value, access: Sequence[Index | int], source: Read, reads: Sequence[Read]
    ) -> Value:
        """Writes `source` into a copy of `base` at positions some of which are looked up in `reads`, as in `gather`."""
        order: dict[Read, int] = {}
        target: Access = tuple(i if isinstance(i, Index) else Lookup(2 + order.setdefault(reads[i], len(order))) for i in access)
        axes, squeezed, _, _ = squeeze(axes, [target, source[1], *(a for _, a in order)], ())
        operands = [base, source[0], *(v for v, _ in order)]
        return self._value(Scatter, operands, base.dtype, base.shape, axes=axes, target=squeezed[0], accesses=squeezed[1:], mode=mode)

    def sort(self, x: Value, dim: int, descending: bool, count: int) -> Value:
        """The i64 order of the first `count` elements along `dim`."""
        shape = tuple(count if d == dim else n for d, n in enumerate(x.shape))
        return self._value(Sort, [x], I64, shape, axis=dim, descending=descending, count=count)

    def scan(self, op: str, x: Value, dim: int) -> Value:
        """The inclusive cumulative `op` along `dim`."""
        return self._value(Scan, [x], x.dtype, x.shape, op=op, axis=dim)

    def constant(self, key: str, array: np.ndarray[Any, Any], dtype: DType) -> Value:
        """A constant made by a lowering (interpolation and Fourier matrices); equal keys must mean equal values."""
        self.store.put(key, array.astype(dtype.array))
        return self._value(Constant, [], dtype, array.shape, ref=ConstantRef(key, dtype, array.shape))

    # -- pointwise --------------------------------------------------------------------------------------------------------------

    def pointwise(
        self,
        function: Callable[..., Expr],
        *operands: Value | Number,
        compute: DType | Sequence[DType] | None = None,
        result: DType | None = None,
        shape: Sequence[int] | None = None,
    ) -> Value:
        """`function` of broadcast operands.

        `compute` is the type (or one type an operand) the operands are cast to; the half precisions compute in float32. `result` is the
        type of the value, by default the FX node's.
        """
        result = result or self.dtype
        types = [compute or result] * len(operands) if isinstance(compute, DType) or compute is None else list(compute)
        values = [v for v in operands if isinstance(v, Value)]
        shape = tuple(shape) if shape is not None else broadcast_shape(*(v.shape for v in values))
        reads: list[Read] = []
        leaves: list[Expr] = []
        for operand, dtype in zip(operands, types, strict=True):
            target = wide(dtype)
            if isinstance(operand, Value):
                leaves.append(cast(arg(len(reads), operand.dtype), target))
                reads.append((operand, broadcast_access(operand.shape, shape)))
            else:
                leaves.append(const(operand, target))
        return self.map(shape, [(d,) for d in range(len(shape))], reads, cast(function(*leaves), result))

    def cast(self, x: Value, dtype: DType) -> Value:
        """`x` in another element type."""
        return x if x.dtype is dtype else self.pointwise(lambda v: cast(v, dtype), x, compute=x.dtype, result=dtype)

    def full(self, shape: Sequence[int], number: Number, dtype: DType) -> Value:
        """A value of one number: a Map without operands."""
        return self.map(shape, [(d,) for d in range(len(shape))], [], const(number, dtype))

    def generate(self, shape: Sequence[int], function: Callable[..., Expr]) -> Value:
        """A value made from its positions: `function(axis0, axis1, ...)`."""
        return self.map(shape, [(d,) for d in range(len(shape))], [], function(*(axis(d) for d in range(len(shape)))))

    # -- views ------------------------------------------------------------------------------------------------------------------

    def permute(self, x: Value, order: Sequence[int]) -> Value:
        """Result dimension d is dimension `order[d]` of `x`."""
        place = {old: new for new, old in enumerate(order)}
        access = tuple(ix(place[d]) for d in range(x.ndim))
        return self.view(x, [x.shape[d] for d in order], access, [(d,) for d in range(x.ndim)])

    def broadcast_to(self, x: Value, shape: Sequence[int]) -> Value:
        """`x` repeated to `shape`, without a copy."""
        return self.view(x, shape, broadcast_access(x.shape, shape), [(d,) for d in range(len(shape))])

    def slice(self, x: Value, dim: int, start: int, count: int, step: int = 1) -> Value:
        """`count` elements along `dim` from `start` by `step`, which may be negative."""
        axes = [count if d == dim else n for d, n in enumerate(x.shape)]
        access = tuple(ix((d, step), offset=start) if d == dim else ix(d) for d in range(x.ndim))
        return self.view(x, axes, access, [(d,) for d in range(x.ndim)])

    def reshape(self, x: Value, shape: Sequence[int]) -> Value:
        """The same elements in row-major order in another shape.

        With axes that refine both shapes it is one view; where the shapes do not nest ((4, 6) to (6, 4)) the dimensions between
        their common cuts are flattened first.
        """
        shape = tuple(shape)
        if shape == x.shape:
            return x
        old, new = _cuts(x.shape), _cuts(shape)
        cuts = sorted(old | new)
        if any(high % low for low, high in pairwise(cuts)):
            common = sorted(old & new)
            middle = [high // low for low, high in pairwise(common)][::-1]
            return self.reshape(self.reshape(x, middle), shape)
        axes = [high // low for low, high in pairwise(cuts)][::-1]
        strides = cuts[:-1][::-1]
        return self.view(
            x,
            axes,
            tuple(Index.of(0, ((a, strides[a] // low) for a in _between(strides, low, high))) for low, high in _spans(x.shape)),
            [tuple(_between(strides, low, high)) for low, high in _spans(shape)],
        )


def _spans(shape: Sequence[int]) -> list[tuple[int, int]]:
    """For every dimension its stride and its stride times its extent, in row-major order."""
    spans = []
    high = prod(shape)
    for extent in shape:
        spans.append((high // extent, high))
        high //= extent
    return spans


def _cuts(shape: Sequence[int]) -> set[int]:
    return {1, *(high for _, high in _spans(shape))}


def _between(strides: Sequence[int], low: int, high: int) -> list[int]:
    return [a for a, stride in enumerate(strides) if low <= stride < high]
