"""The numbers of one operation (section 6): whole arrays in, whole arrays out, rounded once to the destination's format.

Values are float32 arrays for f16 and f32 elements and int32 arrays for i16 and i32 elements; every stored value is representable in its
format. f16 sums, products and quotients are computed in float32 and rounded again: 24 bits are at least twice 11 plus 2, so the second
rounding changes nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...machines.wafer.isa import Element, Op
from ..threads import each, even
from .kernels import erf, pays, round_half

Values = NDArray[Any]
Writer = Callable[[Values, Any, Any, Any], Any]
"""Computes operands a, b and s (None where there is none) into an array of the result's shape."""


def dtype_of(fmt: Element) -> np.dtype[Any]:
    """Array type that holds values of a format."""
    return np.dtype(np.float32 if fmt in (Element.F16, Element.F32) else np.int32)


def to_format(values: Values, fmt: Element) -> Values:
    """Round (floats, to nearest even) or wrap (integers) to a format."""
    if fmt is Element.F16:
        with np.errstate(over="ignore"):
            return values.astype(np.float16).astype(np.float32)
    if fmt is Element.F32:
        return values.astype(np.float32, copy=False)
    wide = values.astype(np.int64, copy=False)
    return wide.astype(np.int16 if fmt is Element.I16 else np.int32).astype(np.int32)


def _rounded(fresh: Values) -> Values:
    """A new float32 array rounded to f16 in place."""
    if not fresh.flags.c_contiguous or fresh.size < 64 or not pays(fresh.size):
        return to_format(fresh, Element.F16)
    flat = fresh.reshape(-1)
    round_half(flat, flat.view(np.uint32))
    return fresh


def convert(values: Values, source: Element, target: Element) -> Values:
    """CVT: float to integer truncates and saturates, NaN gives 0; integer to integer wraps."""
    if dtype_of(source).kind == "f" and dtype_of(target).kind == "i":
        limit = 1 << (15 if target is Element.I16 else 31)
        whole = np.where(np.isnan(values), 0.0, np.clip(np.trunc(values.astype(np.float64)), -limit, limit - 1))
        return whole.astype(np.int32)
    if dtype_of(source).kind == "i" and target is Element.F16:
        return to_format(values.astype(np.float64), target)
    if target is Element.F16:
        return _rounded(np.array(values, np.float32))
    return to_format(values, target)


def multiply_add(acc: Values, a: Values, s: Values, fmt_a: Element, fmt_d: Element) -> Values:
    """N2: one FMAC step. The product of two f16 is exact in float32; f32 operands are fused through float64 with a sticky last bit."""
    if fmt_d is Element.F16:
        with np.errstate(over="ignore"):
            return (acc.astype(np.float64) + a.astype(np.float64) * s).astype(np.float16).astype(np.float32)
    if fmt_a is Element.F16:
        return np.asarray(acc + a * s)
    return _fused(acc, a, s)


def _fused(acc: Values, a: Values, s: Values) -> Values:
    """acc + a * s with one rounding to float32: the float64 sum is rounded to odd, so that the second rounding is right."""
    product = a.astype(np.float64) * s
    total = product + acc
    part = total - product
    error = (product - (total - part)) + (acc - part)
    if np.any(error):
        even = (total.view(np.int64) & 1) == 0
        inexact = even & (error != 0) & np.isfinite(total)
        total = np.where(inexact, np.nextafter(total, np.where(error > 0, np.inf, -np.inf)), total)
    return total.astype(np.float32)


def _shift_left(x: Values, n: Values) -> Values:
    return np.where((n < 0) | (n > 31), 0, x.astype(np.int64) << np.clip(n, 0, 31))


def _shift_right(x: Values, n: Values) -> Values:
    return np.asarray(x >> np.clip(n, 0, 31))


_BINARY: dict[Op, Callable[[Values, Values], Values]] = {
    Op.ADD: np.add,
    Op.SUB: np.subtract,
    Op.MUL: np.multiply,
    Op.SCALE: np.multiply,
    Op.DIV: np.divide,
    Op.MAX: np.maximum,
    Op.MIN: np.minimum,
    Op.CMP_EQ: np.equal,
    Op.CMP_NE: np.not_equal,
    Op.CMP_LT: np.less,
    Op.CMP_LE: np.less_equal,
    Op.CMP_GT: np.greater,
    Op.CMP_GE: np.greater_equal,
    Op.AND: np.bitwise_and,
    Op.OR: np.bitwise_or,
    Op.XOR: np.bitwise_xor,
    Op.SHL: _shift_left,
    Op.SHR: _shift_right,
}


def _double(function: Callable[[Values], Values]) -> Callable[[Values], Values]:
    return lambda x: function(x.astype(np.float64))


_UNARY: dict[Op, Callable[[Values], Values]] = {
    Op.MOV: lambda x: x,
    Op.ABS: np.abs,
    Op.NEG: np.negative,
    Op.FLOOR: np.floor,
    Op.EXP: _double(np.exp),
    Op.EXP2: _double(np.exp2),
    Op.LOG: _double(np.log),
    Op.RCP: _double(np.reciprocal),
    Op.RSQRT: _double(lambda x: 1.0 / np.sqrt(x)),
    Op.SQRT: np.sqrt,
    Op.ERF: _double(erf),
    Op.SIN: _double(np.sin),
    Op.COS: _double(np.cos),
}
"""N5: scalar functions are evaluated in float64 and rounded once, within one ulp of float32."""


def unary(op: Op, a: Values, fmt: Element) -> Values:
    """d = op(a) in the destination's format; a move does not round."""
    if op is Op.MOV:
        return a
    with np.errstate(all="ignore"):
        return to_format(_UNARY[op](a), fmt)


def binary(op: Op, a: Values, b: Values, fmt: Element) -> Values:
    """d = op(a, b) in the destination's format."""
    wide = np.int64 if dtype_of(fmt).kind == "i" and op in (Op.ADD, Op.SUB, Op.MUL) else None
    with np.errstate(all="ignore"):
        out = _BINARY[op](a.astype(wide), b.astype(wide)) if wide else _BINARY[op](a, b)
        return _rounded(out) if fmt is Element.F16 and out.dtype == np.float32 else to_format(out, fmt)


def select(condition: Values, yes: Values, no: Values) -> Values:
    """`yes` where the condition is not zero (NaN counts as not zero)."""
    return np.where(condition != 0, yes, no)


def merge_pairs(a: Values, b: Values) -> Values:
    """ARGMAX on arrays whose last axis interleaves (value, index)."""
    av, ai, bv, bi = a[..., 0::2], a[..., 1::2], b[..., 0::2], b[..., 1::2]
    an, bn = np.isnan(av), np.isnan(bv)
    first = np.where(an | bn, np.where(an & bn, ai < bi, an), (av > bv) | ((av == bv) & (ai < bi)))
    out = np.empty(np.broadcast_shapes(a.shape, b.shape), np.float32)
    out[..., 0::2], out[..., 1::2] = np.where(first, av, bv), np.where(first, ai, bi)
    return out


def select_into(out: Values, a: Values, b: Values | None, s: Values) -> None:
    """`select` into an array that is no operand's."""
    np.copyto(out, s)
    if b is not None:
        np.copyto(out, b, where=a != 0)


def keep_into(out: Values, a: Values, b: Values, s: None) -> None:
    """A masked move: `b` where `a` is not zero."""
    np.copyto(out, b, where=a != 0)


def _round_into(out: Values) -> None:
    """Round an array to f16 in place."""
    if out.flags.c_contiguous:
        rounded = _rounded(out)
        if rounded is not out:
            out[...] = rounded
    else:
        out[...] = to_format(out, Element.F16)


def convert_into(source: Element, target: Element) -> Writer | None:
    """`convert` into an array; None where that is no shorter way."""
    if dtype_of(source).kind != "f" or dtype_of(target).kind != "f":
        return None
    half = target is Element.F16

    def write(out: Values, a: Values, b: None, s: None) -> None:
        np.copyto(out, a)
        if half:
            _round_into(out)

    return write


_PLAIN = (Op.ABS, Op.NEG, Op.FLOOR, Op.SQRT)
_WORK = 8
"""Elements of a sum that take as long as one of a function in float64."""


def unary_into(op: Op, source: Element, target: Element) -> Writer | None:
    """`unary` into an array; None where that is no shorter way."""
    function = _UNARY[op]
    if op is Op.MOV:
        return lambda out, a, b, s: np.copyto(out, a)
    if source is not Element.F32 or target is not Element.F32:
        return None
    if op in _PLAIN:
        plain: Any = function
        return lambda out, a, b, s: plain(a, out=out)

    def write(out: Values, a: Values, b: None, s: None) -> None:
        axis = max(range(out.ndim), key=lambda axis: out.shape[axis])

        def part(cut: slice) -> None:
            index = (slice(None),) * axis + (cut,)
            with np.errstate(all="ignore"):
                out[index] = function(a[index])

        if a.shape == out.shape:
            each(part, even(out.shape[axis], out.size * _WORK))
        else:
            out[...] = function(a)

    return write


def binary_into(op: Op, first: Element, second: Element, target: Element) -> Writer | None:
    """`binary` into an array; None where that is no shorter way."""
    function, kinds = _BINARY[op], {dtype_of(fmt) for fmt in (first, second, target)}
    if not isinstance(function, np.ufunc) or len(kinds) > 1 or target is Element.I16:
        return None
    kind = kinds.pop()
    half = target is Element.F16 and function.resolve_dtypes((kind, kind, None))[-1] == kind  # comparisons give 0 and 1

    def write(out: Values, a: Values, b: Values | None, s: Values | None) -> None:
        function(a, b if b is not None else s, out=out)
        if half:
            _round_into(out)

    return write
