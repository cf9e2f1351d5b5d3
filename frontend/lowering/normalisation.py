"""Lowerings of normalisation: two Reduces (sum, squared distances) and one Map; with stored statistics one Map."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

from ...ir.expr import Expr
from ...ir.types import DType
from ..emit import Emitter
from ..registry import lowers
from ..scalar import op
from ..types import Refused, Value, wide
from .reduce import moments, total

_EPSILON = {"f64": 2.220446049250313e-16, "f32": 1.1920928955078125e-07, "bf16": 0.0078125, "f16": 0.0009765625}


def _scaled(x: Expr, weight: Expr | None, bias: Expr | None) -> Expr:
    if weight is not None:
        x = op("mul", x, weight)
    return op("add", x, bias) if bias is not None else x


def _normalised(
    lo: Emitter, x: Value, stats: tuple[Value, Value, int], eps: float, weight: Value | None, bias: Value | None, dtype: DType
) -> Value:
    """(x - mean) * rsqrt(variance + eps) * weight + bias."""
    first, second, count = stats
    operands = [v for v in (weight, bias) if v is not None]

    def function(v: Expr, total: Expr, squares: Expr, *rest: Expr) -> Expr:
        scale = op("rsqrt", op("add", op("mul", squares, 1.0 / count), eps))
        unit = op("mul", op("sub", v, op("mul", total, 1.0 / count)), scale)
        parameters = iter(rest)
        return _scaled(unit, next(parameters) if weight else None, next(parameters) if bias else None)

    return lo.pointwise(function, x, first, second, *operands, result=dtype, shape=x.shape)


def _statistics(lo: Emitter, stats: tuple[Value, Value, int], eps: float) -> tuple[Value | None, Value | None]:
    """Mean and reciprocal deviation, in the shapes torch gives them, where the model reads them."""
    first, second, count = stats
    found: list[Value | None] = [None, None]
    for n in (1, 2):
        result = lo.results[n] if n < len(lo.results) else None  # the composite op has one result
        if n in lo.used and result is not None:
            source, scale = (first, None) if n == 1 else (second, eps)

            def function(v: Expr, eps: float | None = scale) -> Expr:
                average = op("mul", v, 1.0 / count)
                return average if eps is None else op("rsqrt", op("add", average, eps))

            found[n - 1] = lo.reshape(lo.pointwise(function, source, result=result.dtype), result.shape)
    return found[0], found[1]


@lowers("aten.layer_norm.default")
def layer_norm(
    lo: Emitter, x: Value, shape: Sequence[int], weight: Value | None = None, bias: Value | None = None, eps: float = 1e-5, *_: object
) -> Value:
    dims = range(x.ndim - len(shape), x.ndim)
    return _normalised(lo, x, moments(lo, x, dims), eps, weight, bias, lo.dtype)


@lowers("aten.native_layer_norm.default")
def native_layer_norm(
    lo: Emitter, x: Value, shape: Sequence[int], weight: Value | None, bias: Value | None, eps: float
) -> tuple[Value | None, ...]:
    stats = moments(lo, x, range(x.ndim - len(shape), x.ndim))
    return _normalised(lo, x, stats, eps, weight, bias, lo.dtype), *_statistics(lo, stats, eps)


@lowers("aten.rms_norm.default")
def rms_norm(lo: Emitter, x: Value, shape: Sequence[int], weight: Value | None = None, eps: float | None = None) -> Value:
    dims = range(x.ndim - len(shape), x.ndim)
    count = prod(shape)
    squares = total(lo, x, dims, True, lambda v: op("mul", v, v))
    floor = _EPSILON[wide(x.dtype).name] if eps is None else eps

    def function(v: Expr, q: Expr, *rest: Expr) -> Expr:
        unit = op("mul", v, op("rsqrt", op("add", op("mul", q, 1.0 / count), floor)))
        return _scaled(unit, rest[0] if rest else None, None)

    return lo.pointwise(function, x, squares, *([weight] if weight is not None else []), shape=x.shape)


def _per_channel(lo: Emitter, parameter: Value | None, ndim: int) -> Value | None:
    """A parameter of one value a channel, shaped to broadcast against [N, C, ...]."""
    return parameter if parameter is None else lo.reshape(parameter, (1, parameter.shape[0], *[1] * (ndim - 2)))


def _group_norm(
    lo: Emitter, x: Value, weight: Value | None, bias: Value | None, groups: int, eps: float
) -> tuple[Value, tuple[Value, Value, int]]:
    batch, channels = x.shape[:2]
    grouped = lo.reshape(x, (batch, groups, channels // groups, prod(x.shape[2:])))

    def parameter(p: Value | None) -> Value | None:
        return p if p is None else lo.reshape(p, (1, groups, channels // groups, 1))

    stats = moments(lo, grouped, (2, 3))
    return lo.reshape(_normalised(lo, grouped, stats, eps, parameter(weight), parameter(bias), lo.dtype), x.shape), stats


@lowers("aten.group_norm.default")
def group_norm(
    lo: Emitter, x: Value, groups: int, weight: Value | None = None, bias: Value | None = None, eps: float = 1e-5, *_: object
) -> Value:
    return _group_norm(lo, x, weight, bias, groups, eps)[0]


@lowers("aten.native_group_norm.default")
def native_group_norm(
    lo: Emitter, x: Value, weight: Value | None, bias: Value | None, n: int, c: int, hw: int, groups: int, eps: float
) -> tuple[Value | None, ...]:
    value, stats = _group_norm(lo, x, weight, bias, groups, eps)
    return value, *_statistics(lo, stats, eps)


@lowers("aten._native_batch_norm_legit_no_training.default")
def batch_norm_stored(
    lo: Emitter, x: Value, weight: Value | None, bias: Value | None, mean: Value, variance: Value, momentum: float, eps: float
) -> tuple[Value | None, ...]:
    """One Map with the stored statistics."""
    parameters = [_per_channel(lo, p, x.ndim) for p in (mean, variance, weight, bias)]
    operands = [p for p in parameters if p is not None]

    def function(v: Expr, m: Expr, q: Expr, *rest: Expr) -> Expr:
        left = iter(rest)
        unit = op("mul", op("sub", v, m), op("rsqrt", op("add", q, eps)))
        return _scaled(unit, next(left) if weight else None, next(left) if bias else None)

    return lo.pointwise(function, x, *operands, shape=x.shape), None, None


@lowers("aten._native_batch_norm_legit.no_stats")
def batch_norm_own(
    lo: Emitter, x: Value, weight: Value | None, bias: Value | None, training: bool, momentum: float, eps: float
) -> tuple[Value | None, ...]:
    """Statistics of this batch: reduced over everything but the channels."""
    stats = moments(lo, x, [d for d in range(x.ndim) if d != 1])
    value = _normalised(lo, x, stats, eps, _per_channel(lo, weight, x.ndim), _per_channel(lo, bias, x.ndim), lo.dtype)
    return value, *_statistics(lo, stats, eps)


@lowers("aten.batch_norm.default")
def batch_norm(
    lo: Emitter,
    x: Value,
    weight: Value | None,
    bias: Value | None,
    mean: Value | None,
    variance: Value | None,
    training: bool,
    momentum: float,
    eps: float,
    *_: object,
) -> Value | None:
    if training and mean is not None:
        raise Refused("batch norm in training mode updates its statistics: call module.eval()")
    if mean is None or variance is None:
        return batch_norm_own(lo, x, weight, bias, True, momentum, eps)[0]
    return batch_norm_stored(lo, x, weight, bias, mean, variance, momentum, eps)[0]
