"""Lowerings of complex arithmetic and Fourier transforms: a complex value is a pair of real ones, a transform is constant Contracts."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from math import prod
from typing import Any

import numpy as np

from ...ir.expr import Expr
from ...ir.types import DType
from ..emit import Emitter
from ..registry import LOWERINGS, lowers_complex
from ..scalar import op
from ..types import Pair, Refused, Value
from .contract import matmul_values
from .resample import along

Operand = Pair | Value | complex | float | int


def _parts(x: Operand) -> tuple[Value | float, Value | float | None]:
    """Real and imaginary part; None where the number is real."""
    if isinstance(x, Pair):
        return x.re, x.im
    if isinstance(x, complex):
        return x.real, x.imag if x.imag else None
    return x, None


def _real(lo: Emitter, function: Callable[..., Expr], *operands: Value | float) -> Value:
    dtype: DType = lo.dtype
    return lo.pointwise(function, *operands, compute=dtype, result=dtype)


def _combine(lo: Emitter, name: str, a: Value | float, b: Value | float) -> Value | float:
    if not isinstance(a, Value) and not isinstance(b, Value):
        return {"add": a + b, "sub": a - b, "mul": a * b}[name]
    return _real(lo, lambda p, q: op(name, p, q), a, b)


def _whole(lo: Emitter, part: Value | float | None, shape: Sequence[int]) -> Value:
    """A part as a value of the full shape."""
    if isinstance(part, Value):
        return part if part.shape == tuple(shape) else lo.broadcast_to(lo.cast(part, lo.dtype), shape)
    return lo.full(shape, part or 0.0, lo.dtype)


def _pair(lo: Emitter, re: Value | float | None, im: Value | float | None) -> Pair:
    return Pair(_whole(lo, re, lo.shape), _whole(lo, im, lo.shape))


@lowers_complex("aten.view_as_complex.default")
def view_as_complex(lo: Emitter, x: Value) -> Pair:
    last = x.ndim - 1
    re, im = (lo.reshape(lo.slice(x, last, n, 1), x.shape[:-1]) for n in (0, 1))
    return Pair(re, im)


@lowers_complex("aten.view_as_real.default")
def view_as_real(lo: Emitter, x: Pair) -> Value:
    n = len(x.shape)
    pieces = [(lo.reshape(part, (*x.shape, 1)), [*[0] * n, k], [1] * (n + 1)) for k, part in enumerate((x.re, x.im))]
    return lo.assemble((*x.shape, 2), pieces)


@lowers_complex("aten.complex.default")
def complex_(lo: Emitter, re: Value, im: Value) -> Pair:
    return _pair(lo, re, im)


@lowers_complex("aten.polar.default")
def polar(lo: Emitter, size: Value, angle: Value) -> Pair:
    return Pair(
        _real(lo, lambda r, a: op("mul", r, op("cos", a)), size, angle), _real(lo, lambda r, a: op("mul", r, op("sin", a)), size, angle)
    )


@lowers_complex("aten._to_copy.default", "aten.to.dtype")
def to_copy(lo: Emitter, x: Pair | Value, *_: object, **__: object) -> Pair | Value:
    if isinstance(x, Value):
        return _pair(lo, lo.cast(x, lo.dtype), None)
    if not lo.result.is_complex:
        return lo.cast(x.re, lo.dtype)
    return Pair(lo.cast(x.re, lo.dtype), lo.cast(x.im, lo.dtype))


@lowers_complex("aten.real.default")
def real(lo: Emitter, x: Pair | Value) -> Value:
    return x.re if isinstance(x, Pair) else x


@lowers_complex("aten.imag.default")
def imag(lo: Emitter, x: Pair) -> Value:
    return x.im


@lowers_complex("aten._conj.default", "aten.conj.default", "aten._conj_physical.default", "aten.conj_physical.default")
def conj(lo: Emitter, x: Pair | Value) -> Pair | Value:
    return Pair(x.re, _real(lo, lambda v: op("neg", v), x.im)) if isinstance(x, Pair) else x


@lowers_complex("aten.neg.default")
def neg(lo: Emitter, x: Pair) -> Pair:
    return Pair(_real(lo, lambda v: op("neg", v), x.re), _real(lo, lambda v: op("neg", v), x.im))


@lowers_complex("aten.abs.default")
def abs_(lo: Emitter, x: Pair) -> Value:
    return _real(lo, lambda a, b: op("sqrt", op("add", op("mul", a, a), op("mul", b, b))), x.re, x.im)


@lowers_complex("aten.angle.default")
def angle(lo: Emitter, x: Pair) -> Value:
    return _real(lo, lambda a, b: op("atan2", b, a), x.re, x.im)


@lowers_complex("aten.exp.default")
def exp(lo: Emitter, x: Pair) -> Pair:
    return Pair(
        _real(lo, lambda a, b: op("mul", op("exp", a), op("cos", b)), x.re, x.im),
        _real(lo, lambda a, b: op("mul", op("exp", a), op("sin", b)), x.re, x.im),
    )


def _sum(name: str) -> Callable[..., Pair]:
    def lowering(lo: Emitter, x: Operand, y: Operand, alpha: float = 1) -> Pair:
        (a, b), (c, d) = _parts(x), _parts(y)
        if alpha != 1:
            c = _combine(lo, "mul", c, alpha)
            d = None if d is None else _combine(lo, "mul", d, alpha)
        re = _combine(lo, name, a, c)
        if d is None:
            return _pair(lo, re, b)
        return _pair(lo, re, _combine(lo, name, 0.0 if b is None else b, d))

    return lowering


lowers_complex("aten.add.Tensor", "aten.add.Scalar")(_sum("add"))
lowers_complex("aten.sub.Tensor", "aten.sub.Scalar")(_sum("sub"))


@lowers_complex("aten.mul.Tensor", "aten.mul.Scalar")
def mul(lo: Emitter, x: Operand, y: Operand) -> Pair:
    (a, b), (c, d) = _parts(x), _parts(y)
    if d is None:
        return _pair(lo, _combine(lo, "mul", a, c), None if b is None else _combine(lo, "mul", b, c))
    if b is None:
        return _pair(lo, _combine(lo, "mul", a, c), _combine(lo, "mul", a, d))

    def cross(sign: str) -> Callable[..., Expr]:
        return lambda p, q, r, s: op(sign, op("mul", p, q), op("mul", r, s))

    return _pair(lo, _real(lo, cross("sub"), a, c, b, d), _real(lo, cross("add"), a, d, b, c))


@lowers_complex("aten.div.Tensor", "aten.div.Scalar")
def div(lo: Emitter, x: Operand, y: Operand) -> Pair:
    (a, b), (c, d) = _parts(x), _parts(y)
    if d is None:
        parts = [None if p is None else _real(lo, lambda u, v: op("div", u, v), p, c) for p in (a, b)]
        return _pair(lo, *parts)
    zero = 0.0 if b is None else b

    def quotient(sign: str) -> Callable[..., Expr]:
        def function(p: Expr, q: Expr, r: Expr, s: Expr) -> Expr:
            size = op("add", op("mul", r, r), op("mul", s, s))
            if sign == "re":
                return op("div", op("add", op("mul", p, r), op("mul", q, s)), size)
            return op("div", op("sub", op("mul", q, r), op("mul", p, s)), size)

        return function

    return _pair(lo, _real(lo, quotient("re"), a, zero, c, d), _real(lo, quotient("im"), a, zero, c, d))


@lowers_complex("aten.mm.default", "aten.bmm.default", "aten.matmul.default")
def matmul(lo: Emitter, x: Pair | Value, y: Pair | Value) -> Pair:
    a, b = (x.re, x.im) if isinstance(x, Pair) else (x, None)
    c, d = (y.re, y.im) if isinstance(y, Pair) else (y, None)

    def both(p: Value | None, q: Value | None) -> Value | None:
        return None if p is None or q is None else matmul_values(lo, p, q)

    def joined(name: str, p: Value | None, q: Value | None) -> Value | None:
        return p if q is None else q if p is None else _real(lo, lambda u, v: op(name, u, v), p, q)

    re = both(a, c)
    outer = both(b, d)
    return _pair(lo, joined("sub", re, outer), joined("add", both(a, d), both(b, c)))


@lowers_complex("aten.sum.dim_IntList", "aten.sum.default", "aten.mean.dim")
def sum_(lo: Emitter, x: Pair, *args: Any, **kwargs: Any) -> Pair:
    function = LOWERINGS[lo.origin.op]
    return Pair(function(lo, x.re, *args, **kwargs), function(lo, x.im, *args, **kwargs))


# -- Fourier transforms -------------------------------------------------------------------------------------------------------------------


def _scale(normalization: int, points: int) -> float:
    """0: none, 1: by the root of the number of points, 2: by the number of points."""
    return (1.0, 1.0 / math.sqrt(points), 1.0 / points)[normalization]


def _angles(rows: int, columns: int, points: int) -> np.ndarray[Any, Any]:
    """2 pi row column / points, reduced first so that large products lose no precision."""
    return 2.0 * np.pi * (np.outer(np.arange(rows), np.arange(columns)) % points) / points


def _transform(lo: Emitter, x: Pair | Value, dim: int, scale: float, forward: bool, rows: int | None = None) -> Pair:
    """One dimension: (a + ib)(cos -+ i sin), `rows` output frequencies (default all)."""
    points = x.shape[dim]
    angles = _angles(rows or points, points, points)
    cosine, sine = np.cos(angles) * scale, np.sin(angles) * (scale if forward else -scale)

    def by(part: Value, matrix: np.ndarray[Any, Any]) -> Value:
        return along(lo, part, dim, matrix, "fourier")

    if isinstance(x, Value):
        return Pair(by(x, cosine), by(x, -sine))
    return Pair(
        _real(lo, lambda p, q: op("add", p, q), by(x.re, cosine), by(x.im, sine)),
        _real(lo, lambda p, q: op("sub", p, q), by(x.im, cosine), by(x.re, sine)),
    )


@lowers_complex("aten._fft_c2c.default")
def fft_c2c(lo: Emitter, x: Pair, dims: Sequence[int], normalization: int, forward: bool) -> Pair:
    scale = _scale(normalization, prod(x.shape[d] for d in dims))
    for n, dim in enumerate(dims):
        x = _transform(lo, x, dim % len(x.shape), scale if n == 0 else 1.0, forward)
    return x


@lowers_complex("aten._fft_r2c.default")
def fft_r2c(lo: Emitter, x: Value, dims: Sequence[int], normalization: int, onesided: bool) -> Pair:
    scale = _scale(normalization, prod(x.shape[d] for d in dims))
    last = dims[-1] % x.ndim
    result = _transform(lo, x, last, scale, True, x.shape[last] // 2 + 1 if onesided else None)
    for dim in dims[:-1]:
        result = _transform(lo, result, dim % x.ndim, 1.0, True)
    return result


@lowers_complex("aten._fft_c2r.default")
def fft_c2r(lo: Emitter, x: Pair, dims: Sequence[int], normalization: int, last_dim_size: int) -> Value:
    """The half spectrum counts twice, except the constant and, for an even length, the highest frequency."""
    if not isinstance(x, Pair):
        raise Refused("a complex-to-real transform needs a complex operand")
    last = dims[-1] % len(x.shape)
    scale = _scale(normalization, prod(x.shape[d] for d in dims[:-1]) * last_dim_size)
    for dim in dims[:-1]:
        x = _transform(lo, x, dim % len(x.shape), 1.0, False)
    half = last_dim_size // 2 + 1
    x = Pair(lo.slice(x.re, last, 0, half), lo.slice(x.im, last, 0, half))
    weights = np.full(half, 2.0)
    weights[0] = 1.0
    if last_dim_size % 2 == 0:
        weights[-1] = 1.0
    angles = _angles(last_dim_size, half, last_dim_size)
    cosine, sine = np.cos(angles) * weights * scale, np.sin(angles) * weights * scale
    return _real(lo, lambda p, q: op("sub", p, q), along(lo, x.re, last, cosine, "fourier"), along(lo, x.im, last, sine, "fourier"))
