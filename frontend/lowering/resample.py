"""Lowerings of interpolation: one Contract with a constant matrix a spatial dimension; nearest is a Gather with computed positions.

The rules of source positions, borders and cubic weights (a = -0.75, antialiased a = -0.5) are those of torch's upsample kernels.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ...ir.expr import Expr, cast
from ...ir.graph import Access, Group
from ...ir.types import F32, F64, I64, DType
from ..emit import Emitter, ix
from ..registry import add
from ..scalar import op
from ..types import Value, wide

Matrix = np.ndarray[tuple[int, int], np.dtype[np.float64]]


def along(lo: Emitter, x: Value, dim: int, matrix: Matrix, name: str) -> Value:
    """`matrix` [out, in] applied to one dimension of `x`: a Contract in float32 (or wider) with a constant."""
    dtype = wide(x.dtype)
    digest = hashlib.sha256(matrix.tobytes()).hexdigest()[:12]
    table = lo.constant(f"{name}.{matrix.shape[0]}x{matrix.shape[1]}.{dtype}.{digest}", matrix, dtype)
    axes = (*(matrix.shape[0] if d == dim else n for d, n in enumerate(x.shape)), matrix.shape[1])
    groups: list[Group] = [(d,) for d in range(x.ndim)]
    read: Access = tuple(ix(x.ndim) if d == dim else ix(d) for d in range(x.ndim))
    result = lo.contract(axes, groups, (lo.cast(x, dtype), read), (table, (ix(dim), ix(x.ndim))))
    return lo.cast(result, x.dtype)


def source_scale(inputs: int, outputs: int, align_corners: bool, factor: float | None) -> float:
    """Distance in the input between neighbours of the output."""
    if align_corners:
        return (inputs - 1) / (outputs - 1) if outputs > 1 else 0.0
    return 1.0 / factor if factor else inputs / outputs


def linear_matrix(inputs: int, outputs: int, align_corners: bool, factor: float | None) -> Matrix:
    scale = source_scale(inputs, outputs, align_corners, factor)
    positions = np.arange(outputs)
    source = positions * scale if align_corners else np.maximum((positions + 0.5) * scale - 0.5, 0.0)
    low = np.minimum(source.astype(np.int64), inputs - 1)
    high = np.minimum(low + 1, inputs - 1)
    share = source - low
    matrix = np.zeros((outputs, inputs))
    np.add.at(matrix, (positions, low), 1.0 - share)
    np.add.at(matrix, (positions, high), share)
    return matrix


def _cubic(distance: np.ndarray[Any, Any], a: float) -> np.ndarray[Any, Any]:
    d = np.abs(distance)
    near = ((a + 2) * d - (a + 3)) * d * d + 1
    far = ((a * d - 5 * a) * d + 8 * a) * d - 4 * a
    return np.where(d <= 1, near, np.where(d < 2, far, 0.0))


def cubic_matrix(inputs: int, outputs: int, align_corners: bool, factor: float | None) -> Matrix:
    scale = source_scale(inputs, outputs, align_corners, factor)
    positions = np.arange(outputs)
    source = positions * scale if align_corners else (positions + 0.5) * scale - 0.5
    low = np.floor(source)
    matrix = np.zeros((outputs, inputs))
    for tap in (-1, 0, 1, 2):
        place = np.clip(low + tap, 0, inputs - 1).astype(np.int64)
        np.add.at(matrix, (positions, place), _cubic(source - (low + tap), -0.75))
    return matrix


def smooth_matrix(kind: str, inputs: int, outputs: int, align_corners: bool, factor: float | None) -> Matrix:
    """Antialiased linear or cubic: the filter widens with the scale, its weights are normalised over the input."""
    scale = source_scale(inputs, outputs, align_corners, factor)
    reach = (1.0 if kind == "linear" else 2.0) * max(scale, 1.0)
    sharp = 1.0 / max(scale, 1.0)
    matrix = np.zeros((outputs, inputs))
    for o in range(outputs):
        center = scale * (o + 0.5)
        low = max(int(center - reach + 0.5), 0)
        high = min(int(center + reach + 0.5), inputs)
        distance = (np.arange(low, high) - center + 0.5) * sharp
        weights = np.maximum(1.0 - np.abs(distance), 0.0) if kind == "linear" else _cubic(distance, -0.5)
        total = weights.sum()
        matrix[o, low:high] = weights / total if total else weights
    return matrix


def _matrices(kind: str, smooth: bool) -> Callable[..., Matrix]:
    if smooth:
        return lambda *rest: smooth_matrix(kind, *rest)
    return linear_matrix if kind == "linear" else cubic_matrix


def _interpolation(kind: str, count: int, smooth: bool, vec: bool) -> Callable[..., Value]:
    matrices = _matrices(kind, smooth)

    def lowering(lo: Emitter, x: Value, size: Sequence[int] | None, align_corners: bool, *scales: Any) -> Value:
        factors = list(scales[0]) if vec and scales and scales[0] else [] if vec else list(scales)
        result = x
        for i in range(count):
            inputs, outputs = x.shape[2 + i], lo.shape[2 + i]
            factor = factors[i] if i < len(factors) else None
            if inputs != outputs or (factor not in (None, 1.0)):
                matrix = matrices(inputs, outputs, align_corners, factor)
                result = along(lo, result, 2 + i, matrix, f"{kind}{'_smooth' if smooth else ''}")
        return result

    return lowering


for _name, _kind, _count in (
    ("upsample_linear1d", "linear", 1), ("upsample_bilinear2d", "linear", 2), ("upsample_trilinear3d", "linear", 3),
    ("upsample_bicubic2d", "cubic", 2),
):  # fmt: skip
    add(f"aten.{_name}.vec", _interpolation(_kind, _count, False, True))
    add(f"aten.{_name}.default", _interpolation(_kind, _count, False, False))
for _name, _kind in (("_upsample_bilinear2d_aa", "linear"), ("_upsample_bicubic2d_aa", "cubic")):
    add(f"aten.{_name}.vec", _interpolation(_kind, 2, True, True))
    add(f"aten.{_name}.default", _interpolation(_kind, 2, True, False))


def _nearest(count: int, exact: bool, vec: bool) -> Callable[..., Value]:
    def lowering(lo: Emitter, x: Value, size: Sequence[int] | None, *scales: Any) -> Value:
        factors = list(scales[0]) if vec and scales and scales[0] else [] if vec else list(scales)
        for i in range(count):
            dim, inputs, outputs = 2 + i, x.shape[2 + i], lo.shape[2 + i]
            factor = factors[i] if i < len(factors) else None
            if inputs == outputs and factor in (None, 1.0):
                continue
            real = F64 if x.dtype is F64 else F32
            scale = float(np.float32(source_scale(inputs, outputs, False, factor)))

            def place(o: Expr, real: DType = real, scale: float = scale, last: int = inputs - 1) -> Expr:
                position = cast(o, real)
                position = op("mul", op("add", position, 0.5) if exact else position, scale)
                return op("min", cast(op("floor", position), I64), last)

            index = lo.generate((outputs,), place)
            axes = [outputs if d == dim else n for d, n in enumerate(x.shape)]
            access = [0 if d == dim else ix(d) for d in range(x.ndim)]
            x = lo.gather(axes, [(d,) for d in range(x.ndim)], x, access, [(index, (ix(dim),))])
        return x

    return lowering


for _count in (1, 2, 3):
    for _name, _exact in ((f"upsample_nearest{_count}d", False), (f"_upsample_nearest_exact{_count}d", True)):
        add(f"aten.{_name}.vec", _nearest(_count, _exact, True))
        add(f"aten.{_name}.default", _nearest(_count, _exact, False))
