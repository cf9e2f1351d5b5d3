"""Lowerings of pooling: a Reduce with a window access over a padded input; uneven adaptive pooling is a Contract with averaging rows."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from math import prod

import numpy as np

from ...ir.expr import Expr, arg, cast, const
from ...ir.graph import Access, Group
from ...ir.types import I64
from ..emit import Emitter, ix
from ..registry import add, lowers
from ..scalar import op
from ..types import Refused, Value, wide
from .resample import along
from .views import pad_to

Sizes = Sequence[int] | int


def _sizes(numbers: Sizes, count: int, default: Sequence[int] = ()) -> list[int]:
    if isinstance(numbers, int):
        return [numbers] * count
    if not numbers:
        return list(default)
    return list(numbers) * count if len(numbers) == 1 else list(numbers)


class Windows:
    """The windows of one pooling: kernel, stride, padding and dilation a spatial dimension, and the output extents torch gives."""

    def __init__(self, lo: Emitter, x: Value, count: int, kernel: Sizes, stride: Sizes, padding: Sizes, dilation: Sizes = 1) -> None:
        self.count = count
        self.kernel = _sizes(kernel, count)
        self.stride = _sizes(stride, count, self.kernel)
        self.padding = _sizes(padding, count)
        self.dilation = _sizes(dilation, count)
        self.outputs = lo.shape[-count:]
        self.lead = x.shape[: x.ndim - count]
        self.inputs = x.shape[x.ndim - count :]

    def pooled(self, lo: Emitter, x: Value, name: str, fill: float, expr: Expr) -> Value:
        """Reduce over each window of `x` padded by `fill`; axes are lead..., outputs..., taps..."""
        n, spatial = len(self.lead), range(self.count)
        reach = [d * (k - 1) + 1 for d, k in zip(self.dilation, self.kernel, strict=True)]
        extents = [max((self.outputs[i] - 1) * self.stride[i] + reach[i], self.inputs[i] + self.padding[i]) for i in spatial]
        x = pad_to(lo, x, [*[0] * n, *self.padding], (*self.lead, *extents), fill)
        axes = (*self.lead, *self.outputs, *self.kernel)
        access: Access = (
            *(ix(d) for d in range(n)),
            *(ix((n + i, self.stride[i]), (n + self.count + i, self.dilation[i])) for i in spatial),
        )
        groups: list[Group] = [(d,) for d in range(n + self.count)]
        return lo.reduce(name, axes, groups, [(x, access)], expr)

    def sizes(self, dimension: int, include_pad: bool) -> list[int]:
        """How many elements each window of one dimension counts, as torch counts them."""
        k, s, p = self.kernel[dimension], self.stride[dimension], self.padding[dimension]
        n = self.inputs[dimension]
        low, high = (-p, n + p) if include_pad else (0, n)
        return [min(o * s - p + k, high) - max(o * s - p, low) for o in range(self.outputs[dimension])]


def _max_pool(count: int, indices: bool) -> Callable[..., Value | tuple[Value, None]]:
    def lowering(
        lo: Emitter, x: Value, kernel: Sizes, stride: Sizes = (), padding: Sizes = 0, dilation: Sizes = 1, ceil_mode: bool = False
    ) -> Value | tuple[Value, None]:
        if indices and 1 in lo.used:
            raise Refused("the positions that max pooling gives have no form in the IR")
        windows = Windows(lo, x, count, kernel, stride, padding, dilation)
        lowest: float = -math.inf if x.dtype.is_float else -(1 << (x.dtype.bits - 1))
        value = windows.pooled(lo, x, "max", lowest, arg(0, x.dtype))
        return (value, None) if indices else value

    return lowering


def _avg_pool(count: int) -> Callable[..., Value]:
    def lowering(
        lo: Emitter,
        x: Value,
        kernel: Sizes,
        stride: Sizes = (),
        padding: Sizes = 0,
        ceil_mode: bool = False,
        count_include_pad: bool = True,
        divisor_override: int | None = None,
    ) -> Value:
        windows = Windows(lo, x, count, kernel, stride, padding)
        compute = wide(x.dtype)
        total = windows.pooled(lo, x, "sum", 0.0, cast(arg(0, x.dtype), compute))
        counts = [windows.sizes(i, count_include_pad) for i in range(count)]
        if divisor_override or all(len(set(c)) == 1 for c in counts):
            scale = 1.0 / (divisor_override or prod(c[0] for c in counts))
            return lo.pointwise(lambda v: op("mul", v, scale), total)
        number = lo.generate(windows.outputs, lambda *o: cast(_window_sizes(windows, o, count_include_pad), compute))
        return lo.pointwise(lambda v, c: op("div", v, c), total, number)

    return lowering


def _window_sizes(windows: Windows, positions: Sequence[Expr], include_pad: bool) -> Expr:
    """`Windows.sizes` of every dimension, multiplied, as an expression of the output position."""
    size: Expr = const(1, I64)
    for i, place in enumerate(positions):
        k, s, p, n = windows.kernel[i], windows.stride[i], windows.padding[i], windows.inputs[i]
        low, high = (-p, n + p) if include_pad else (0, n)
        start = op("sub", op("mul", place, s), p)
        size = op("mul", size, op("sub", op("min", op("add", start, k), high), op("max", start, low)))
    return size


for _count in (1, 2, 3):
    add(f"aten.max_pool{_count}d.default", _max_pool(_count, False))
    add(f"aten.max_pool{_count}d_with_indices.default", _max_pool(_count, True))
    add(f"aten.avg_pool{_count}d.default", _avg_pool(_count))


def _even(x: Value, sizes: Sequence[int]) -> bool:
    return all(n % o == 0 for n, o in zip(x.shape[-len(sizes) :], sizes, strict=True))


@lowers(
    "aten.adaptive_avg_pool1d.default", "aten.adaptive_avg_pool2d.default", "aten.adaptive_avg_pool3d.default",
    "aten._adaptive_avg_pool2d.default", "aten._adaptive_avg_pool3d.default",
)  # fmt: skip
def adaptive_avg_pool(lo: Emitter, x: Value, sizes: Sizes) -> Value:
    count = 1 if isinstance(sizes, int) else len(sizes)
    outputs = lo.shape[-count:]
    kernel = [n // o for n, o in zip(x.shape[-count:], outputs, strict=True)]
    if _even(x, outputs):
        return _avg_pool(count)(lo, x, kernel)
    for i in range(count):
        x = along(lo, x, x.ndim - count + i, _averaging(x.shape[x.ndim - count + i], outputs[i]), "adaptive_average")
    return x


def _averaging(inputs: int, outputs: int) -> np.ndarray[tuple[int, int], np.dtype[np.float64]]:
    """Row o averages the inputs from floor(o * n / m) to ceil((o + 1) * n / m)."""
    matrix = np.zeros((outputs, inputs))
    for o in range(outputs):
        low, high = o * inputs // outputs, -(-(o + 1) * inputs // outputs)
        matrix[o, low:high] = 1.0 / (high - low)
    return matrix


def _adaptive_max_pool(count: int) -> Callable[..., tuple[Value, None]]:
    def lowering(lo: Emitter, x: Value, sizes: Sizes) -> tuple[Value, None]:
        outputs = lo.shape[-count:]
        if 1 in lo.used or not _even(x, outputs):
            raise Refused("adaptive max pooling of uneven windows, or of positions, has no form in the IR")
        kernel = [n // o for n, o in zip(x.shape[-count:], outputs, strict=True)]
        value = _max_pool(count, False)(lo, x, kernel)
        assert isinstance(value, Value)
        return value, None

    return lowering


for _count in (1, 2, 3):
    add(f"aten.adaptive_max_pool{_count}d.default", _adaptive_max_pool(_count))
