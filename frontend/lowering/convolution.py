"""Lowerings of convolution, any rank, with groups, strides, dilation and transposition.

A convolution is one Contract whose input access has two terms a spatial dimension (`stride * out + dilation * tap`); padding is a Move
with fill. A transposed convolution is the same over an input with `stride - 1` zeros between its elements and a mirrored kernel.
"""

from __future__ import annotations

from collections.abc import Sequence

from ...ir.graph import Access, Group
from ..emit import Emitter, ix
from ..registry import lowers
from ..scalar import op
from ..types import Value
from .views import pad_to


def _per_dimension(numbers: Sequence[int], count: int) -> list[int]:
    """One number a spatial dimension: torch may give one for all."""
    return list(numbers) * count if len(numbers) == 1 else list(numbers)


@lowers("aten.convolution.default")
def convolution(
    lo: Emitter,
    x: Value,
    weight: Value,
    bias: Value | None,
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    transposed: bool,
    output_padding: Sequence[int],
    groups: int,
) -> Value:
    """x [N, C, ...] (or without N), weight [O, C/groups, ...], transposed [C, O/groups, ...]."""
    spatial = weight.ndim - 2
    stride, padding, dilation, extra = (_per_dimension(n, spatial) for n in (stride, padding, dilation, output_padding))
    batched = x.ndim == spatial + 2
    if not batched:
        x = lo.reshape(x, (1, *x.shape))
    kernel = weight.shape[2:]
    if transposed:
        x = _spread(lo, x, kernel, stride, padding, dilation, extra)
        stride = [1] * spatial
    elif any(padding):
        before = [0, 0, *padding]
        x = pad_to(lo, x, before, (*x.shape[:2], *(n + 2 * p for n, p in zip(x.shape[2:], padding, strict=True))), 0.0)
    result = _windowed(lo, x, weight, stride, dilation, groups, transposed)
    if bias is not None:
        bias = lo.reshape(bias, (1, bias.shape[0], *[1] * spatial))
        result = lo.pointwise(lambda p, b: op("add", p, b), result, bias, shape=result.shape)
    return result if batched else lo.reshape(result, result.shape[1:])


def _spread(
    lo: Emitter,
    x: Value,
    kernel: Sequence[int],
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    extra: Sequence[int],
) -> Value:
    """The input of a transposed convolution, spread by the stride and padded so that a plain convolution follows.

    Where the padding exceeds the kernel's reach, the border is cut instead.
    """
    before, shape, starts = [], [], []
    for n, k, s, p, d, e in zip(x.shape[2:], kernel, stride, padding, dilation, extra, strict=True):
        reach = d * (k - 1)
        low, high = reach - p, reach - p + e
        before.append(max(low, 0))
        starts.append((max(-low, 0), (n - 1) * s + 1 + low + high))
        shape.append(before[-1] + (n - 1) * s + 1 + max(high, 0))
    x = pad_to(lo, x, [0, 0, *before], (*x.shape[:2], *shape), 0.0, [1, 1, *stride])
    for axis, (start, count) in enumerate(starts):
        x = lo.slice(x, 2 + axis, start, count)
    return x


def _conv(rank: int) -> None:
    """Registers the composite forms of one rank, which leave out what `aten.convolution` spells out."""

    def plain(
        lo: Emitter, x: Value, weight: Value, bias: Value | None = None, stride: Sequence[int] = (1,), padding: Sequence[int] | str = (0,),
        dilation: Sequence[int] = (1,), groups: int = 1,
    ) -> Value:  # fmt: skip
        if isinstance(padding, str):
            reach = [d * (k - 1) for d, k in zip(_per_dimension(dilation, rank), weight.shape[2:], strict=True)]
            if padding == "same" and any(n % 2 for n in reach):
                before = [*[0] * (x.ndim - rank), *(n // 2 for n in reach)]
                extents = [n + r for n, r in zip(x.shape[-rank:], reach, strict=True)]
                x = pad_to(lo, x, before, (*x.shape[:-rank], *extents), 0.0)
            padding = [n // 2 for n in reach] if padding == "same" and not any(n % 2 for n in reach) else [0] * rank
        return convolution(lo, x, weight, bias, stride, padding, dilation, False, (0,), groups)

    def transposed(
        lo: Emitter, x: Value, weight: Value, bias: Value | None = None, stride: Sequence[int] = (1,), padding: Sequence[int] = (0,),
        output_padding: Sequence[int] = (0,), groups: int = 1, dilation: Sequence[int] = (1,),
    ) -> Value:  # fmt: skip
        return convolution(lo, x, weight, bias, stride, padding, dilation, True, output_padding, groups)

    lowers(f"aten.conv{rank}d.default", f"aten.conv{rank}d.padding")(plain)
    lowers(f"aten.conv_transpose{rank}d.{'default' if rank == 1 else 'input'}")(transposed)


for _rank in (1, 2, 3):
    _conv(_rank)


def _windowed(lo: Emitter, x: Value, weight: Value, stride: Sequence[int], dilation: Sequence[int], groups: int, transposed: bool) -> Value:
    """Axes: N, group, O in group, output positions..., C in group, taps...; the kernel is mirrored where transposed."""
    spatial = weight.ndim - 2
    kernel = weight.shape[2:]
    inner = x.shape[1] // groups
    outer = weight.shape[1] if transposed else weight.shape[0] // groups
    places = [(n - d * (k - 1) - 1) // s + 1 for n, k, s, d in zip(x.shape[2:], kernel, stride, dilation, strict=True)]
    axes = (x.shape[0], groups, outer, *places, inner, *kernel)
    group, out, channel = 1, 2, 3 + spatial
    window = tuple(ix((3 + i, stride[i]), (channel + 1 + i, dilation[i])) for i in range(spatial))
    taps = tuple(ix((channel + 1 + i, -1), offset=kernel[i] - 1) if transposed else ix(channel + 1 + i) for i in range(spatial))
    read: Access = (ix(0), ix((group, inner), channel), *window)
    if transposed:
        table: Access = (ix((group, inner), channel), ix(out), *taps)
    else:
        table = (ix((group, outer), out), ix(channel), *taps)
    grouping: list[Group] = [(0,), (group, out), *((3 + i,) for i in range(spatial))]
    return lo.contract(axes, grouping, (x, read), (weight, table))
