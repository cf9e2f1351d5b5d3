"""Lowerings of ops that only move data: views (which fold into readers) and assemblies (concat, pad, roll, slice_scatter)."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

from ...ir.graph import Index
from ..emit import Emitter, ix
from ..registry import lowers
from ..types import Empty, Number, Refused, Value

# -- views --------------------------------------------------------------------------------------------------------------------------------


@lowers(
    "aten.clone.default", "aten.alias.default", "aten.detach.default", "aten.contiguous.default", "aten.lift_fresh_copy.default",
    "aten.dropout.default", "aten.resolve_conj.default",
    "aten.resolve_neg.default", "aten.lift.default", "aten.detach_copy.default",
    parts=True,
)  # fmt: skip
def identity(lo: Emitter, x: Value, p: float = 0.0, train: bool = False, **_: object) -> Value:
    if train and p:
        raise Refused("dropout in training mode draws random numbers: call module.eval()")
    return x


@lowers(
    "aten.view.default", "aten._unsafe_view.default", "aten.reshape.default", "aten.unsqueeze.default", "aten.squeeze.default",
    "aten.squeeze.dim", "aten.squeeze.dims", "aten.flatten.using_ints", "aten.unflatten.int", "aten.unsqueeze_copy.default",
    "aten.squeeze_copy.default", "aten.squeeze_copy.dims", "aten.view_copy.default",
    parts=True,
)  # fmt: skip
def reshape(lo: Emitter, x: Value, *_: object) -> Value:
    return lo.reshape(x, lo.shape)


@lowers("aten.expand.default", parts=True)
def expand(lo: Emitter, x: Value, *_: object, **__: object) -> Value:
    return lo.broadcast_to(x, lo.shape)


@lowers("aten.permute.default", "aten.permute_copy.default", parts=True)
def permute(lo: Emitter, x: Value, dims: Sequence[int]) -> Value:
    return lo.permute(x, [d % x.ndim for d in dims])


@lowers("aten.transpose.int", parts=True)
def transpose(lo: Emitter, x: Value, first: int, second: int) -> Value:
    order = list(range(x.ndim))
    if order:
        order[first], order[second] = order[second], order[first]
    return lo.permute(x, order)


@lowers("aten.t.default", "aten.numpy_T.default", parts=True)
def reverse_dims(lo: Emitter, x: Value) -> Value:
    return lo.permute(x, range(x.ndim)[::-1])


@lowers("aten.slice.Tensor", "aten.slice_copy.Tensor", parts=True)
def slice_(lo: Emitter, x: Value, dim: int = 0, start: int | None = None, end: int | None = None, step: int = 1) -> Value:
    dim %= x.ndim
    begin, stop, _ = slice(start, end).indices(x.shape[dim])
    return lo.slice(x, dim, begin, len(range(begin, stop, step)), step)


@lowers("aten.select.int", parts=True)
def select(lo: Emitter, x: Value, dim: int, index: int) -> Value:
    dim %= x.ndim
    return lo.reshape(lo.slice(x, dim, index % x.shape[dim], 1), lo.shape)


@lowers("aten.narrow.default", parts=True)
def narrow(lo: Emitter, x: Value, dim: int, start: int, length: int) -> Value:
    dim %= x.ndim
    return lo.slice(x, dim, start % x.shape[dim], length)


@lowers("aten.split_with_sizes.default", parts=True)
def split_with_sizes(lo: Emitter, x: Value, sizes: Sequence[int], dim: int = 0) -> list[Value | Empty]:
    dim %= x.ndim
    parts: list[Value | Empty] = []
    start = 0
    for size in sizes:
        shape = (*x.shape[:dim], size, *x.shape[dim + 1 :])
        parts.append(lo.slice(x, dim, start, size) if size else Empty(x.dtype, shape))
        start += size
    return parts


@lowers("aten.split.Tensor", parts=True)
def split(lo: Emitter, x: Value, size: int, dim: int = 0) -> list[Value | Empty]:
    extent = x.shape[dim]
    return split_with_sizes(lo, x, [min(size, extent - start) for start in range(0, extent, size)], dim)


@lowers("aten.chunk.default", parts=True)
def chunk(lo: Emitter, x: Value, chunks: int, dim: int = 0) -> list[Value | Empty]:
    return split(lo, x, -(-x.shape[dim] // chunks), dim)


@lowers("aten.unbind.int", parts=True)
def unbind(lo: Emitter, x: Value, dim: int = 0) -> list[Value]:
    dim %= x.ndim
    shape = x.shape[:dim] + x.shape[dim + 1 :]
    return [lo.reshape(lo.slice(x, dim, n, 1), shape) for n in range(x.shape[dim])]


@lowers("aten.repeat.default", "aten.tile.default", parts=True)
def repeat(lo: Emitter, x: Value, repeats: Sequence[int]) -> Value:
    lead = max(len(repeats) - x.ndim, 0)
    repeats = [1] * (x.ndim - len(repeats)) + list(repeats)
    shape = [1] * lead + list(x.shape)
    axes = [n for pair in zip(repeats, shape, strict=True) for n in pair]
    access = tuple(ix(2 * (lead + d) + 1) for d in range(x.ndim))
    return lo.view(x, axes, access, [(2 * d, 2 * d + 1) for d in range(len(shape))])


@lowers("aten.repeat_interleave.self_int", parts=True)
def repeat_interleave(lo: Emitter, x: Value, repeats: int, dim: int | None = None, **_: object) -> Value:
    if dim is None:
        x, dim = lo.reshape(x, (prod(x.shape),)), 0
    dim %= x.ndim
    axes = [*x.shape, repeats]
    groups = [(d, x.ndim) if d == dim else (d,) for d in range(x.ndim)]
    return lo.view(x, axes, tuple(ix(d) for d in range(x.ndim)), groups)


@lowers("aten.flip.default", parts=True)
def flip(lo: Emitter, x: Value, dims: Sequence[int]) -> Value:
    for dim in dims:
        dim %= x.ndim
        x = lo.slice(x, dim, x.shape[dim] - 1, x.shape[dim], -1)
    return x


@lowers("aten.unfold.default", parts=True)
def unfold(lo: Emitter, x: Value, dimension: int, size: int, step: int) -> Value:
    """Windows of `size` every `step` along one dimension; the window is the last dimension."""
    if not x.ndim:
        return lo.reshape(x, lo.shape)
    dimension %= x.ndim
    count = (x.shape[dimension] - size) // step + 1
    axes = [count if d == dimension else n for d, n in enumerate(x.shape)] + [size]
    access = tuple(ix((d, step), x.ndim) if d == dimension else ix(d) for d in range(x.ndim))
    return lo.view(x, axes, access, [(d,) for d in range(x.ndim + 1)])


@lowers("aten.diagonal.default", "aten.diagonal_copy.default", parts=True)
def diagonal(lo: Emitter, x: Value, offset: int = 0, dim1: int = 0, dim2: int = 1) -> Value:
    dim1, dim2 = dim1 % x.ndim, dim2 % x.ndim
    rest = [d for d in range(x.ndim) if d not in (dim1, dim2)]
    axes = [x.shape[d] for d in rest] + [lo.shape[-1]]
    places = {d: ix(n) for n, d in enumerate(rest)}
    places[dim1] = ix(len(rest), offset=max(-offset, 0))
    places[dim2] = ix(len(rest), offset=max(offset, 0))
    return lo.view(x, axes, tuple(places[d] for d in range(x.ndim)), [(a,) for a in range(len(axes))])


@lowers("aten.as_strided.default", parts=True)
def as_strided(lo: Emitter, x: Value, size: Sequence[int], stride: Sequence[int], offset: int | None = None) -> Value:
    """Torch's layout of the operand is undone first: its dimensions in order of falling stride give the storage."""
    layout = lo.operand_stride(0)
    order = sorted(range(x.ndim), key=lambda d: (-layout[d], -x.shape[d], d))
    expected = 1
    for d in reversed(order):
        if x.shape[d] > 1 and layout[d] != expected:
            raise Refused("as_strided of a tensor that is not dense has no form in the IR")
        expected *= x.shape[d]
    flat = lo.reshape(lo.permute(x, order), (prod(x.shape),))
    index = Index.of(offset or 0, enumerate(stride))
    low, high = index.bounds(size)
    if low < 0 or high >= flat.shape[0]:
        raise Refused("as_strided reaches outside its operand")
    return lo.view(flat, size, (index,), [(d,) for d in range(len(size))])


@lowers("aten.view.dtype")
def view_dtype(lo: Emitter, x: Value, dtype: object) -> Value:
    if lo.dtype is not x.dtype:
        raise Refused(f"reading the bits of {x.dtype} as {lo.dtype} has no form in the IR")
    return x


# -- assemblies ---------------------------------------------------------------------------------------------------------------------------


@lowers("aten.cat.default", "aten.concat.default", parts=True, empty=True)
def cat(lo: Emitter, parts: Sequence[Value | Empty], dim: int = 0) -> Value:
    shape = lo.shape
    dim %= len(shape)
    full = [lo.cast(p, lo.dtype) for p in parts if isinstance(p, Value)]
    if len(full) == 1:
        return full[0]
    pieces, start = [], 0
    for part in full:
        pieces.append((part, [start if d == dim else 0 for d in range(len(shape))], [1] * len(shape)))
        start += part.shape[dim]
    return lo.assemble(shape, pieces)


@lowers("aten.stack.default", parts=True)
def stack(lo: Emitter, parts: Sequence[Value], dim: int = 0) -> Value:
    dim %= len(lo.shape)
    unit = [1 if d == dim else n for d, n in enumerate(lo.shape)]
    return cat(lo, [lo.reshape(p, unit) for p in parts], dim)


@lowers("aten.constant_pad_nd.default", parts=True, empty=True)
def constant_pad(lo: Emitter, x: Value | Empty, pad: Sequence[int], value: Number = 0.0) -> Value:
    """Pads are (before, after) from the last dimension to the first; negative ones cut."""
    if isinstance(x, Empty):
        return lo.full(lo.shape, value, lo.dtype)
    before = [0] * x.ndim
    for n in range(len(pad) // 2):
        d = x.ndim - 1 - n
        low, high = pad[2 * n], pad[2 * n + 1]
        start, stop = max(-low, 0), x.shape[d] - max(-high, 0)
        if start >= stop:
            return lo.full(lo.shape, value, lo.dtype)
        x = lo.slice(x, d, start, stop - start)
        before[d] = max(low, 0)
    return pad_to(lo, x, before, lo.shape, value)


@lowers("aten.pad.default", parts=True)
def pad(lo: Emitter, x: Value, pad: Sequence[int], mode: str = "constant", value: Number | None = None) -> Value:
    if mode == "constant":
        return constant_pad(lo, x, pad, value or 0.0)
    for n in range(len(pad) // 2):
        x = _pad_border(lo, x, x.ndim - 1 - n, pad[2 * n], pad[2 * n + 1], mode)
    return x


def _pad_border(lo: Emitter, x: Value, dim: int, before: int, after: int, mode: str) -> Value:
    """One dimension extended by its own elements: mirrored, repeated at the border, or around."""
    if before < 0 or after < 0:
        raise Refused(f"negative {mode} padding has no form in the IR")
    extent = x.shape[dim]

    def border(start: int, count: int, step: int) -> Value:
        if mode == "replicate":
            return lo.broadcast_to(lo.slice(x, dim, start, 1), [count if d == dim else n for d, n in enumerate(x.shape)])
        return lo.slice(x, dim, start, count, step)

    starts = {"reflect": (before, extent - 2, -1), "replicate": (0, extent - 1, 1), "circular": (extent - before, 0, 1)}
    if mode not in starts:
        raise Refused(f"padding mode {mode!r} has no form in the IR")
    first, last, step = starts[mode]
    parts = [(border(first, before, step), 0)] if before else []
    parts.append((x, before))
    if after:
        parts.append((border(last, after, step), before + extent))
    shape = [before + extent + after if d == dim else n for d, n in enumerate(x.shape)]
    unit = [1] * x.ndim
    pieces = [(part, [at if d == dim else 0 for d in range(x.ndim)], unit) for part, at in parts]
    return lo.assemble(shape, pieces) if len(pieces) > 1 else x


def pad_to(lo: Emitter, x: Value, before: Sequence[int], shape: Sequence[int], value: Number, step: Sequence[int] = ()) -> Value:
    """`x` at `before` (by `step`) in a result of `shape` that is `value` elsewhere."""
    step = list(step) or [1] * x.ndim
    if tuple(shape) == x.shape and not any(before):
        return x
    number = float(value) if x.dtype.is_float else bool(value) if x.dtype.kind == "bool" else int(value)
    return lo.assemble(shape, [(x, before, step)], number)


@lowers("aten.slice_scatter.default", parts=True, empty=True)
def slice_scatter(
    lo: Emitter, x: Value, src: Value | Empty, dim: int = 0, start: int | None = None, end: int | None = None, step: int = 1
) -> Value:
    if isinstance(src, Empty):
        return x
    dim %= x.ndim
    begin, _, _ = slice(start, end).indices(x.shape[dim])
    src = lo.broadcast_to(lo.cast(src, x.dtype), [src.shape[d] if d == dim else n for d, n in enumerate(x.shape)])
    if src.shape == x.shape:
        return src
    corner = [begin if d == dim else 0 for d in range(x.ndim)]
    steps = [step if d == dim else 1 for d in range(x.ndim)]
    return lo.assemble(x.shape, [(x, [0] * x.ndim, [1] * x.ndim), (src, corner, steps)])


@lowers("aten.select_scatter.default", parts=True)
def select_scatter(lo: Emitter, x: Value, src: Value, dim: int, index: int) -> Value:
    dim %= x.ndim
    src = lo.reshape(src, [1 if d == dim else n for d, n in enumerate(x.shape)])
    return slice_scatter(lo, x, src, dim, index % x.shape[dim], index % x.shape[dim] + 1)


@lowers("aten.copy.default", parts=True)
def copy(lo: Emitter, x: Value, src: Value, non_blocking: bool = False) -> Value:
    return lo.broadcast_to(lo.cast(src, lo.dtype), lo.shape)


@lowers("aten.roll.default", parts=True)
def roll(lo: Emitter, x: Value, shifts: Sequence[int] | int, dims: Sequence[int] | int = ()) -> Value:
    shifts = [shifts] if isinstance(shifts, int) else list(shifts)
    dims = [dims] if isinstance(dims, int) else list(dims)
    if not dims:
        return lo.reshape(roll(lo, lo.reshape(x, (prod(x.shape),)), shifts, [0]), x.shape)
    for shift, dim in zip(shifts, dims, strict=True):
        dim %= x.ndim
        extent = x.shape[dim]
        split_at = -shift % extent
        if split_at:
            head, tail = lo.slice(x, dim, 0, split_at), lo.slice(x, dim, split_at, extent - split_at)
            corner = [extent - split_at if d == dim else 0 for d in range(x.ndim)]
            x = lo.assemble(x.shape, [(tail, [0] * x.ndim, [1] * x.ndim), (head, corner, [1] * x.ndim)])
    return x


@lowers("aten.meshgrid.indexing", "aten.meshgrid.default")
def meshgrid(lo: Emitter, tensors: Sequence[Value], *, indexing: str = "ij") -> list[Value]:
    order = list(range(len(tensors)))
    if indexing == "xy" and len(order) > 1:
        order[0], order[1] = 1, 0
    extents = [prod(t.shape) for t in tensors]
    shape = [extents[o] for o in order]
    return [
        lo.view(lo.reshape(t, (extents[n],)), shape, (ix(order.index(n)),), [(d,) for d in range(len(shape))])
        for n, t in enumerate(tensors)
    ]


@lowers("aten.diag_embed.default")
def diag_embed(lo: Emitter, x: Value, offset: int = 0, dim1: int = -2, dim2: int = -1) -> Value:
    ndim = x.ndim + 1
    dim1, dim2 = dim1 % ndim, dim2 % ndim
    shape = lo.shape
    rest = [d for d in range(ndim) if d not in (dim1, dim2)]
    # The diagonal of the last two dimensions of a flat buffer is a strided write: every (width + 1)-th element.
    width = shape[dim2]
    flat = prod((shape[dim1], width))
    rows = prod(x.shape[:-1])
    source = lo.reshape(x, (rows, x.shape[-1]))
    first = max(-offset, 0) * width + max(offset, 0)
    written = lo.assemble((rows, flat), [(source, [0, first], [1, width + 1])], 0 if not x.dtype.is_float else 0.0)
    square = lo.reshape(written, (*x.shape[:-1], shape[dim1], width))
    source_of = {d: n for n, d in enumerate(rest)} | {dim1: len(rest), dim2: len(rest) + 1}
    return lo.permute(square, [source_of[d] for d in range(ndim)])
