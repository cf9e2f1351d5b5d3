"""Lowerings of indexed reads and writes: Gather and Scatter, with torch's rules for negative indices and for where dimensions go."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import prod

from ...ir.expr import Expr, arg, cast, const
from ...ir.graph import Access, Group, Index, identity_access
from ...ir.types import BOOL, F64, I64
from ..emit import Emitter, Read, broadcast_access, broadcast_shape, ix
from ..registry import add, lowers
from ..scalar import op
from ..types import Empty, Number, Refused, Value


def wrapped(lo: Emitter, index: Value, extent: int) -> Value:
    """Negative positions count from the end."""
    if index.dtype.name == "u8":
        raise Refused("an index of unsigned bytes is a mask in torch: cast it to bool or int64")
    return lo.pointwise(lambda i: op("select", op("lt", i, 0), op("add", i, extent), i), index, compute=index.dtype, result=index.dtype)


@lowers("aten.embedding.default")
def embedding(lo: Emitter, table: Value, index: Value, *_: object) -> Value:
    n = index.ndim
    axes = (*index.shape, table.shape[1])
    return lo.gather(axes, [(d,) for d in range(n + 1)], table, [0, ix(n)], [(index, identity_access(n))])


@lowers("aten.index_select.default", parts=True)
def index_select(lo: Emitter, x: Value, dim: int, index: Value) -> Value:
    if not x.ndim:
        return x
    dim %= x.ndim
    index = lo.reshape(index, (lo.shape[dim],))
    access: list[Index | int] = [ix(d) for d in range(x.ndim)]
    access[dim] = 0
    return lo.gather(lo.shape, [(d,) for d in range(x.ndim)], x, access, [(wrapped(lo, index, x.shape[dim]), (ix(dim),))])


@lowers("aten.gather.default")
def gather(lo: Emitter, x: Value, dim: int, index: Value, **_: object) -> Value:
    if not x.ndim:
        return x
    dim %= x.ndim
    access: list[Index | int] = [ix(d) for d in range(x.ndim)]
    access[dim] = 0
    index = wrapped(lo, index, x.shape[dim])
    return lo.gather(index.shape, [(d,) for d in range(x.ndim)], x, access, [(index, identity_access(x.ndim))])


@lowers("aten.take_along_dim.default")
def take_along_dim(lo: Emitter, x: Value, index: Value, dim: int | None = None) -> Value:
    """Like gather, with the other dimensions broadcast."""
    if dim is None:
        return gather(lo, lo.reshape(x, (prod(x.shape),)), 0, lo.reshape(index, (prod(index.shape),)))
    dim %= x.ndim
    common = broadcast_shape(*([1 if d == dim else n for d, n in enumerate(v.shape)] for v in (x, index)))
    x, index = (lo.broadcast_to(v, [v.shape[d] if d == dim else n for d, n in enumerate(common)]) for v in (x, index))
    return gather(lo, x, dim, index)


# -- index.Tensor and index_put -----------------------------------------------------------------------------------------------------------


class Indexing:
    """One nest for x[indices]: broadcast index axes and the axes of the dimensions that are not indexed, in torch's result order.

    `axes` are the result's dimensions. Indexed dimensions that are neighbours leave their axes in place; otherwise the index axes come
    first.
    """

    def __init__(self, lo: Emitter, x: Value, indices: Sequence[Value | None]) -> None:
        indices = [*indices, *[None] * (x.ndim - len(indices))]
        found = [d for d, index in enumerate(indices) if index is not None]
        tensors = [index for index in indices if index is not None]
        self.index_shape = broadcast_shape(*(t.shape for t in tensors))
        adjacent = found == list(range(found[0], found[-1] + 1))
        first = found[0] if adjacent else 0
        count = len(self.index_shape)
        free = [d for d in range(x.ndim) if d not in found]
        before, after = free[:first], free[first:]
        self.axes = (*(x.shape[d] for d in before), *self.index_shape, *(x.shape[d] for d in after))
        place = {d: n for n, d in enumerate(before)} | {d: first + count + n for n, d in enumerate(after)}
        self.reads: list[Read] = []
        self.access: list[Index | int] = []
        for d, index in enumerate(indices):
            if index is None:
                self.access.append(ix(place[d]))
                continue
            self.access.append(len(self.reads))
            self.reads.append((wrapped(lo, index, x.shape[d]), self._index_access(index, first, count)))

    @staticmethod
    def _index_access(index: Value, first: int, count: int) -> Access:
        lead = count - index.ndim
        return tuple(ix() if extent == 1 else ix(first + lead + d) for d, extent in enumerate(index.shape))


def _refuse_masks(indices: Sequence[Value | Empty | None]) -> list[Value | None]:
    if any(isinstance(i, Value) and i.dtype is BOOL for i in indices):
        raise Refused("indexing with a bool mask gives a shape that depends on data: use torch.where or a gather of fixed size")
    return [i if isinstance(i, Value) else None for i in indices]


@lowers("aten.index.Tensor", "aten._unsafe_index.Tensor", parts=True)
def index_tensor(lo: Emitter, x: Value, indices: Sequence[Value | Empty | None]) -> Value:
    nest = Indexing(lo, x, _refuse_masks(indices))
    groups: list[Group] = [(a,) for a in range(len(nest.axes))]
    return lo.gather(nest.axes, groups, x, nest.access, nest.reads)


@lowers("aten._unsafe_masked_index.default")
def masked_index(lo: Emitter, x: Value, mask: Value, indices: Sequence[Value | None], fill: Number) -> Value:
    """Reads where the mask holds, with positions clamped into range elsewhere."""
    clamped = [
        i if i is None else lo.pointwise(lambda v, n=x.shape[d] - 1: op("min", op("max", v, 0), n), i, compute=i.dtype, result=i.dtype)
        for d, i in enumerate(indices)
    ]
    value = index_tensor(lo, x, clamped)
    return lo.pointwise(lambda m, v: op("select", m, v, const(fill, v.dtype)), mask, value, compute=(BOOL, x.dtype))


@lowers("aten.index_put.default", "aten._unsafe_index_put.default", "aten._index_put_impl.default", empty=True)
def index_put(
    lo: Emitter, x: Value, indices: Sequence[Value | Empty | None], values: Value | Empty, accumulate: bool = False, *_: object
) -> Value:
    masks = [i for i in indices if isinstance(i, Value) and i.dtype is BOOL]
    if isinstance(values, Empty) or any(isinstance(i, Empty) for i in indices):
        return x
    if masks:
        return _masked_put(lo, x, indices, masks[0], values, accumulate)
    nest = Indexing(lo, x, _refuse_masks(indices))
    source = (lo.cast(values, x.dtype), broadcast_access(values.shape, nest.axes))
    return lo.scatter("add" if accumulate else "set", nest.axes, x, nest.access, source, nest.reads)


def _masked_put(lo: Emitter, x: Value, indices: Sequence[Value | Empty | None], mask: Value, values: Value, accumulate: bool) -> Value:
    """x[mask] = scalar is a select over the dimensions of the mask, which may be followed by whole dimensions."""
    first = next(d for d, i in enumerate(indices) if i is not None)
    others = [i for i in indices if i is not None and i is not mask]
    if others or any(n != 1 for n in values.shape):
        raise Refused("writing several values through a bool mask depends on data: use torch.where or a scatter")
    lead = x.ndim - first - mask.ndim
    mask = lo.reshape(mask, (*mask.shape, *[1] * lead))
    scalar = lo.reshape(values, ())
    if accumulate:
        return lo.pointwise(lambda m, a, b: op("select", m, op("add", a, b), a), mask, x, scalar, compute=(BOOL, x.dtype, x.dtype))
    return lo.pointwise(lambda m, a, b: op("select", m, b, a), mask, x, scalar, compute=(BOOL, x.dtype, x.dtype))


# -- scatter along one dimension ----------------------------------------------------------------------------------------------------------

_MODES = {"sum": "add", "add": "add", "amax": "max", "amin": "min"}


def _scatter(lo: Emitter, x: Value, dim: int, index: Value | Empty, source: Value | Number, mode: str) -> Value:
    if isinstance(index, Empty):
        return x
    if not x.ndim:
        x, index = lo.reshape(x, (1,)), lo.reshape(index, (1,))
        return lo.reshape(_scatter(lo, x, 0, index, lo.reshape(source, (1,)) if isinstance(source, Value) else source, mode), ())
    dim %= x.ndim
    access: list[Index | int] = [ix(d) for d in range(x.ndim)]
    access[dim] = 0
    value = lo.cast(source, x.dtype) if isinstance(source, Value) else lo.full(index.shape, source, x.dtype)
    reads = [(wrapped(lo, index, x.shape[dim]), identity_access(x.ndim))]
    return lo.scatter(mode, index.shape, x, access, (value, identity_access(x.ndim)), reads)


@lowers("aten.scatter.src", "aten.scatter.value", empty=True)
def scatter(lo: Emitter, x: Value, dim: int, index: Value | Empty, source: Value | Number) -> Value:
    return _scatter(lo, x, dim, index, source, "set")


@lowers("aten.scatter.reduce", "aten.scatter.value_reduce", empty=True)
def scatter_with(lo: Emitter, x: Value, dim: int, index: Value | Empty, source: Value | Number, *, reduce: str) -> Value:
    if reduce not in _MODES:
        raise Refused(f"scatter with reduce={reduce!r} has no form in the IR")
    return _scatter(lo, x, dim, index, source, _MODES[reduce])


@lowers("aten.scatter_add.default", empty=True)
def scatter_add(lo: Emitter, x: Value, dim: int, index: Value | Empty, source: Value) -> Value:
    return _scatter(lo, x, dim, index, source, "add")


@lowers("aten.scatter_reduce.two", empty=True)
def scatter_reduce(
    lo: Emitter, x: Value, dim: int, index: Value | Empty, source: Value, reduce: str, *, include_self: bool = True
) -> Value:
    if not include_self or reduce not in _MODES:
        raise Refused(f"scatter_reduce with reduce={reduce!r}, include_self={include_self} has no form in the IR")
    return _scatter(lo, x, dim, index, source, _MODES[reduce])


def _along(mode: str) -> Callable[..., Value]:
    """index_copy, index_add, index_fill: whole slices along one dimension."""

    def lowering(lo: Emitter, x: Value, dim: int, index: Value, source: Value | Number, *, alpha: Number = 1) -> Value:
        shape = x.shape or (1,)
        base = lo.reshape(x, shape)
        dim %= len(shape)
        index = lo.reshape(index, (index.shape[0] if index.ndim else 1,))
        axes = [index.shape[0] if d == dim else n for d, n in enumerate(shape)]
        access: list[Index | int] = [ix(d) for d in range(len(shape))]
        access[dim] = 0
        if isinstance(source, Value) and source.shape:
            value = lo.reshape(lo.cast(source, x.dtype), axes)
        else:
            scalar = lo.cast(source, x.dtype) if isinstance(source, Value) else lo.full((), source, x.dtype)
            value = lo.broadcast_to(scalar, axes)
        if alpha != 1:
            value = lo.pointwise(lambda v: op("mul", v, alpha), value, compute=x.dtype, result=x.dtype)
        reads = [(wrapped(lo, index, shape[dim]), (ix(dim),))]
        return lo.reshape(lo.scatter(mode, axes, base, access, (value, identity_access(len(shape))), reads), x.shape)

    return lowering


add("aten.index_copy.default", _along("set"))
add("aten.index_add.default", _along("add"))
add("aten.index_fill.int_Scalar", _along("set"))
add("aten.index_fill.int_Tensor", _along("set"))


# -- counting -----------------------------------------------------------------------------------------------------------------------------


@lowers("aten.histc.default")
def histc(lo: Emitter, x: Value, bins: int = 100, min: Number = 0, max: Number = 0) -> Value:
    """Counts per equal bucket of [min, max]; values outside count nowhere (they add 0 to bucket 0)."""
    if min == max:
        raise Refused("histc with limits taken from the data has no form in the IR: give min and max")
    flat = lo.reshape(x, (prod(x.shape),))

    valid = lo.pointwise(lambda a: op("and", op("ge", a, min), op("le", a, max)), flat, compute=flat.dtype, result=BOOL)

    def place(a: Expr) -> Expr:
        position = op("div", op("mul", op("sub", a, float(min)), float(bins)), float(max - min))
        return op("min", cast(op("floor", position), I64), bins - 1)

    bucket = lo.pointwise(place, flat, compute=flat.dtype if flat.dtype.is_float else F64, result=I64)
    bucket = lo.pointwise(lambda ok, b: op("select", ok, b, 0), valid, bucket, compute=(BOOL, I64), result=I64)
    ones = lo.cast(valid, lo.dtype)
    base = lo.full((bins,), 0, lo.dtype)
    return lo.scatter("add", flat.shape, base, [0], (ones, (ix(0),)), [(bucket, (ix(0),))])


@lowers("aten.bucketize.Tensor", "aten.searchsorted.Tensor")
def bucketize(
    lo: Emitter, x: Value, y: Value, *, right: bool = False, side: str | None = None, sorter: Value | None = None, **_: object
) -> Value:
    """The number of boundaries below (or, with `right`, at most) each value; searchsorted has the operands the other way round."""
    if sorter is not None:
        raise Refused("searchsorted with a sorter has no form in the IR: sort the sequence first")
    right = right or side == "right"
    values, bounds = (y, x) if lo.origin.op.startswith("aten.searchsorted") else (x, y)
    n = values.ndim
    dtype = lo.common(0, 1)
    lead: Access = tuple(ix(d) for d in range(n - 1)) if bounds.ndim > 1 else ()

    test = op("le" if right else "lt", cast(arg(1, bounds.dtype), dtype), cast(arg(0, values.dtype), dtype))
    axes = (*values.shape, bounds.shape[-1])
    reads: list[Read] = [(values, identity_access(n)), (bounds, (*lead, ix(n)))]
    return lo.cast(lo.reduce("sum", axes, [(d,) for d in range(n)], reads, cast(test, I64)), lo.dtype)
