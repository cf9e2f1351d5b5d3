"""Lowerings of elementwise ATen ops: one Map each.

Arithmetic is done in the node's own result type and comparisons in torch's common type of the operands; half precision computes in
float32 and rounds once, as torch's kernels do.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from ...ir.expr import Expr, cast, const, make
from ...ir.types import BOOL, F64, DType
from .. import scalar as s
from ..emit import Emitter
from ..registry import add, lowers
from ..scalar import op
from ..types import Number, Refused, Value, wide

Operand = Value | Number


def _direct(name: str) -> Callable[..., Expr]:
    return lambda *values: make(name, *values)


# -- one operand, result type -------------------------------------------------------------------------------------------------------------

UNARY: dict[str, Callable[[Expr], Expr]] = {
    **{
        name: _direct(name)
        for name in ("abs", "neg", "exp", "exp2", "expm1", "log", "log1p", "sqrt", "rsqrt", "sin", "cos", "tanh", "erf", "acos")
    },
    "reciprocal": _direct("recip"),
    "sigmoid": s.sigmoid,
    "silu": s.silu,
    "mish": s.mish,
    "log_sigmoid": s.log_sigmoid,
    "relu": s.relu,
    "relu6": lambda x: s.clamp(x, 0.0, 6.0),
    "hardsigmoid": s.hard_sigmoid,
    "hardswish": s.hard_swish,
    "tan": lambda x: op("div", op("sin", x), op("cos", x)),
    "asin": lambda x: op("atan2", x, op("sqrt", op("mul", op("sub", 1.0, x), op("add", 1.0, x)))),
    "atan": lambda x: op("atan2", x, const(1.0, x.dtype)),
    "sinh": lambda x: op("mul", op("sub", op("exp", x), op("exp", op("neg", x))), 0.5),
    "cosh": lambda x: op("mul", op("add", op("exp", x), op("exp", op("neg", x))), 0.5),
    "asinh": lambda x: op("mul", op("sign", x), op("log", op("add", op("abs", x), op("sqrt", op("add", op("mul", x, x), 1.0))))),
    "acosh": lambda x: op("log", op("add", x, op("sqrt", op("sub", op("mul", x, x), 1.0)))),
    "atanh": lambda x: op("mul", op("sub", op("log1p", x), op("log1p", op("neg", x))), 0.5),
    "erfc": lambda x: op("sub", 1.0, op("erf", x)),
    "log2": lambda x: s.log_base(x, 2.0),
    "log10": lambda x: s.log_base(x, 10.0),
    "square": lambda x: op("mul", x, x),
    "positive": lambda x: x,
    "frac": lambda x: op("sub", x, op("trunc", x)),
}
_INTEGER_IDENTITY = ("floor", "ceil", "trunc", "round")
TESTS: dict[str, Callable[[Expr], Expr]] = {
    "logical_not": lambda x: op("not", s.truth(x)),
    "isnan": lambda x: op("isnan", x) if x.dtype.is_float else op("ne", x, x),
    "isinf": lambda x: op("isinf", x) if x.dtype.is_float else op("ne", x, x),
    "isfinite": s.is_finite,
    "isposinf": lambda x: op("eq", x, s.INF) if x.dtype.is_float else op("ne", x, x),
    "isneginf": lambda x: op("eq", x, -s.INF) if x.dtype.is_float else op("ne", x, x),
    "signbit": lambda x: op("lt", x, 0),
}


def _unary(function: Callable[[Expr], Expr]) -> Callable[..., Value]:
    def lowering(lo: Emitter, x: Value, *_: object, **__: object) -> Value:
        return lo.pointwise(function, x)

    return lowering


def _test(function: Callable[[Expr], Expr]) -> Callable[..., Value]:
    def lowering(lo: Emitter, x: Value) -> Value:
        return lo.pointwise(function, x, compute=x.dtype, result=BOOL)

    return lowering


for _name, _function in UNARY.items():
    add(f"aten.{_name}.default", _unary(_function))
for _name, _function in TESTS.items():
    add(f"aten.{_name}.default", _test(_function))
for _name in _INTEGER_IDENTITY:
    add(f"aten.{_name}.default", _unary(lambda x, n=_name: op(n, x) if x.dtype.is_float else x))  # type: ignore[misc]


@lowers("aten.sign.default", "aten.sgn.default")
def sign(lo: Emitter, x: Value) -> Value:
    """The sign of NaN is 0."""

    def function(v: Expr) -> Expr:
        return op("sub", cast(op("gt", v, 0), v.dtype), cast(op("lt", v, 0), v.dtype)) if v.dtype.is_float else op("sign", v)

    return x if x.dtype is BOOL else lo.pointwise(function, x)


@lowers("aten.bitwise_not.default")
def bitwise_not(lo: Emitter, x: Value) -> Value:
    return lo.pointwise(lambda v: op("not", v), x, compute=x.dtype)


@lowers("aten.round.decimals")
def round_decimals(lo: Emitter, x: Value, *, decimals: int) -> Value:
    scale = 10.0 ** abs(decimals)
    if decimals >= 0:
        return lo.pointwise(lambda v: op("div", op("round", op("mul", v, scale)), scale), x)
    return lo.pointwise(lambda v: op("mul", op("round", op("div", v, scale)), scale), x)


@lowers("aten.gelu.default")
def gelu(lo: Emitter, x: Value, *, approximate: str = "none") -> Value:
    return lo.pointwise(s.gelu_tanh if approximate == "tanh" else s.gelu_erf, x)


@lowers("aten.softplus.default")
def softplus(lo: Emitter, x: Value, beta: Number = 1.0, threshold: Number = 20.0) -> Value:
    return lo.pointwise(lambda v: s.softplus(v, beta, threshold), x)


@lowers("aten.leaky_relu.default")
def leaky_relu(lo: Emitter, x: Value, negative_slope: Number = 0.01) -> Value:
    return lo.pointwise(lambda v: s.leaky_relu(v, negative_slope), x)


@lowers("aten.prelu.default", "aten._prelu_kernel.default")
def prelu(lo: Emitter, x: Value, weight: Value) -> Value:
    if weight.ndim == 1 and weight.shape[0] > 1 and x.ndim > 1:
        weight = lo.reshape(weight, (1, weight.shape[0], *[1] * (x.ndim - 2)))
    return lo.pointwise(s.leaky_relu, x, weight, shape=x.shape)


@lowers("aten.elu.default")
def elu(lo: Emitter, x: Value, alpha: Number = 1.0, scale: Number = 1.0, input_scale: Number = 1.0) -> Value:
    return lo.pointwise(lambda v: s.elu(v, alpha, scale, input_scale), x)


@lowers("aten.celu.default")
def celu(lo: Emitter, x: Value, alpha: Number = 1.0) -> Value:
    return lo.pointwise(lambda v: s.elu(v, alpha, 1.0, 1.0 / alpha), x)


@lowers("aten.selu.default")
def selu(lo: Emitter, x: Value) -> Value:
    return lo.pointwise(lambda v: s.elu(v, 1.6732632423543772, 1.0507009873554805), x)


@lowers("aten.hardtanh.default")
def hardtanh(lo: Emitter, x: Value, min_val: Number = -1.0, max_val: Number = 1.0) -> Value:
    return lo.pointwise(lambda v: s.clamp(v, min_val, max_val), x)


@lowers("aten.threshold.default")
def threshold(lo: Emitter, x: Value, threshold: Number, value: Number) -> Value:
    return lo.pointwise(lambda v: op("select", op("le", v, threshold), const(value, v.dtype), v), x)


@lowers("aten.hardshrink.default")
def hardshrink(lo: Emitter, x: Value, lambd: Number = 0.5) -> Value:
    return lo.pointwise(lambda v: op("select", op("le", op("abs", v), lambd), 0.0, v), x)


@lowers("aten.softshrink.default")
def softshrink(lo: Emitter, x: Value, lambd: Number = 0.5) -> Value:
    return lo.pointwise(
        lambda v: op("select", op("gt", v, lambd), op("sub", v, lambd), op("select", op("lt", v, -lambd), op("add", v, lambd), 0.0)), x
    )


@lowers("aten.glu.default")
def glu(lo: Emitter, x: Value, dim: int = -1) -> Value:
    dim %= x.ndim
    half = x.shape[dim] // 2
    first, second = lo.slice(x, dim, 0, half), lo.slice(x, dim, half, half)
    return lo.pointwise(lambda a, b: op("mul", a, s.sigmoid(b)), first, second)


@lowers("aten.nan_to_num.default")
def nan_to_num(lo: Emitter, x: Value, nan: Number | None = None, posinf: Number | None = None, neginf: Number | None = None) -> Value:
    largest = largest_of(x.dtype)
    high = largest if posinf is None else posinf
    low = -largest if neginf is None else neginf
    return lo.pointwise(lambda v: s.nan_to_num(v, nan or 0.0, high, low), x)


@lowers("aten.logit.default")
def logit(lo: Emitter, x: Value, eps: float | None = None) -> Value:
    def function(v: Expr) -> Expr:
        v = v if eps is None else s.clamp(v, eps, 1.0 - eps)
        return op("log", op("div", v, op("sub", 1.0, v)))

    return lo.pointwise(function, x)


def largest_of(dtype: DType) -> float:
    """The largest finite number of a float type."""
    return {"f64": 1.7976931348623157e308, "f32": 3.4028234663852886e38, "bf16": 3.3895313892515355e38, "f16": 65504.0}.get(dtype.name, 0.0)


# -- casts --------------------------------------------------------------------------------------------------------------------------------


@lowers(
    "aten._to_copy.default", "aten.to.dtype", "aten.to.dtype_layout", "aten.to.device", "aten.to.other", "aten.type_as.default", parts=True
)
def to_copy(lo: Emitter, x: Value, *_: object, **__: object) -> Value:
    return lo.cast(x, lo.dtype)


# -- two operands -------------------------------------------------------------------------------------------------------------------------


@lowers("aten.add.Tensor", "aten.add.Scalar")
def add_(lo: Emitter, x: Operand, y: Operand, alpha: Number = 1) -> Value:
    if lo.dtype is BOOL:
        return lo.pointwise(lambda a, b: op("or", a, b), x, y)
    return lo.pointwise(lambda a, b: op("add", a, op("mul", b, alpha)), x, y)


@lowers("aten.sub.Tensor", "aten.sub.Scalar")
def sub(lo: Emitter, x: Operand, y: Operand, alpha: Number = 1) -> Value:
    return lo.pointwise(lambda a, b: op("sub", a, op("mul", b, alpha)), x, y)


@lowers("aten.rsub.Tensor", "aten.rsub.Scalar")
def rsub(lo: Emitter, x: Operand, y: Operand, alpha: Number = 1) -> Value:
    return sub(lo, y, x, alpha)


@lowers("aten.mul.Tensor", "aten.mul.Scalar")
def mul(lo: Emitter, x: Operand, y: Operand) -> Value:
    return lo.pointwise(lambda a, b: op("and" if lo.dtype is BOOL else "mul", a, b), x, y)


@lowers("aten.div.Tensor", "aten.div.Scalar", "aten.div.Tensor_mode", "aten.div.Scalar_mode")
def div(lo: Emitter, x: Operand, y: Operand, *, rounding_mode: str | None = None) -> Value:
    if rounding_mode == "floor":
        return floor_divide(lo, x, y)
    return lo.pointwise(lambda a, b: s.divide(a, b, rounding_mode), x, y)


@lowers("aten.floor_divide.default", "aten.floor_divide.Scalar")
def floor_divide(lo: Emitter, x: Operand, y: Operand) -> Value:
    return lo.pointwise(s.floor_divide, x, y)


@lowers("aten.remainder.Tensor", "aten.remainder.Scalar", "aten.remainder.Scalar_Tensor")
def remainder(lo: Emitter, x: Operand, y: Operand) -> Value:
    return lo.pointwise(s.remainder, x, y)


@lowers("aten.fmod.Tensor", "aten.fmod.Scalar")
def fmod(lo: Emitter, x: Operand, y: Operand) -> Value:
    return lo.pointwise(lambda a, b: op("fmod", a, b), x, y)


@lowers("aten.pow.Tensor_Scalar")
def pow_scalar(lo: Emitter, x: Value, exponent: Number) -> Value:
    if not lo.dtype.is_float:
        if exponent < 0:
            raise Refused("an integer tensor has no negative power")
        return lo.pointwise(lambda v: s.integer_power(v, int(exponent)), x)
    if exponent == 0:
        return lo.full(x.shape, 1.0, lo.dtype)
    return lo.pointwise(lambda v: op("pow", v, float(exponent)), x)


@lowers("aten.pow.Tensor_Tensor", "aten.pow.Scalar")
def pow_tensor(lo: Emitter, x: Operand, y: Operand) -> Value:
    if not lo.dtype.is_float:
        if isinstance(x, Value) or x not in (1, 2):
            raise Refused("powers of integers by a tensor of integers have no form in the IR")
        base = int(x)
        return lo.pointwise(lambda b: op("shl", const(1, b.dtype), b) if base == 2 else const(1, b.dtype), y)
    return lo.pointwise(lambda a, b: op("pow", a, b), x, y)


@lowers("aten.atan2.default")
def atan2(lo: Emitter, x: Operand, y: Operand) -> Value:
    return lo.pointwise(lambda a, b: op("atan2", a, b), x, y)


@lowers("aten.maximum.default", "aten.max.other")
def maximum(lo: Emitter, x: Value, y: Value) -> Value:
    return lo.pointwise(lambda a, b: op("or" if lo.dtype is BOOL else "max", a, b), x, y)


@lowers("aten.minimum.default", "aten.min.other")
def minimum(lo: Emitter, x: Value, y: Value) -> Value:
    return lo.pointwise(lambda a, b: op("and" if lo.dtype is BOOL else "min", a, b), x, y)


def _nan_avoiding(name: str) -> Callable[..., Value]:
    """fmax and fmin: the other operand where one is NaN."""

    def function(a: Expr, b: Expr) -> Expr:
        best = op(name, a, b)
        if not a.dtype.is_float:
            return best
        return op("select", op("isnan", a), b, op("select", op("isnan", b), a, best))

    def lowering(lo: Emitter, x: Value, y: Value) -> Value:
        return lo.pointwise(function, x, y)

    return lowering


add("aten.fmax.default", _nan_avoiding("max"))
add("aten.fmin.default", _nan_avoiding("min"))


@lowers("aten.logaddexp.default")
def logaddexp(lo: Emitter, x: Value, y: Value) -> Value:
    def function(a: Expr, b: Expr) -> Expr:
        top = op("max", a, b)
        gap = op("neg", op("abs", op("sub", a, b)))
        return op("select", op("and", op("isinf", a), op("eq", a, b)), a, op("add", top, op("log1p", op("exp", gap))))

    return lo.pointwise(function, x, y)


@lowers("aten.clamp.default", "aten.clamp.Tensor", "aten.clip.default")
def clamp(lo: Emitter, x: Value, min: Operand | None = None, max: Operand | None = None) -> Value:
    names = [n for n, bound in (("low", min), ("high", max)) if bound is not None]
    bounds = [b for b in (min, max) if b is not None]
    return lo.pointwise(lambda v, *b: s.clamp(v, **dict(zip(names, b, strict=True))), x, *bounds)


@lowers("aten.clamp_min.default", "aten.clamp_min.Tensor")
def clamp_min(lo: Emitter, x: Value, bound: Operand) -> Value:
    return clamp(lo, x, bound)


@lowers("aten.clamp_max.default", "aten.clamp_max.Tensor")
def clamp_max(lo: Emitter, x: Value, bound: Operand) -> Value:
    return clamp(lo, x, None, bound)


# -- comparisons and logic ----------------------------------------------------------------------------------------------------------------


def _compare(name: str) -> Callable[..., Value]:
    def lowering(lo: Emitter, x: Operand, y: Operand) -> Value:
        return lo.pointwise(lambda a, b: op(name, a, b), x, y, compute=lo.common(0, 1), result=BOOL)

    return lowering


for _name in ("eq", "ne", "lt", "le", "gt", "ge"):
    for _overload in ("Tensor", "Scalar"):
        add(f"aten.{_name}.{_overload}", _compare(_name))


def _bitwise(name: str) -> Callable[..., Value]:
    def lowering(lo: Emitter, x: Operand, y: Operand) -> Value:
        return lo.pointwise(lambda a, b: op(name, a, b), x, y)

    return lowering


for _name, _op in (("bitwise_and", "and"), ("bitwise_or", "or"), ("bitwise_xor", "xor")):
    for _overload in ("Tensor", "Scalar", "Scalar_Tensor"):
        add(f"aten.{_name}.{_overload}", _bitwise(_op))
for _name, _op in (("bitwise_left_shift", "shl"), ("bitwise_right_shift", "shr")):
    for _overload in ("Tensor", "Tensor_Scalar"):
        add(f"aten.{_name}.{_overload}", _bitwise(_op))
for _name, _op in (("__and__", "and"), ("__or__", "or"), ("__xor__", "xor"), ("__lshift__", "shl"), ("__rshift__", "shr")):
    for _overload in ("Tensor", "Scalar"):
        add(f"aten.{_name}.{_overload}", _bitwise(_op))


def _logical(name: str) -> Callable[..., Value]:
    def lowering(lo: Emitter, x: Value, y: Value) -> Value:
        types = (x.dtype, y.dtype)
        return lo.pointwise(lambda a, b: op(name, s.truth(a), s.truth(b)), x, y, compute=types, result=BOOL)

    return lowering


for _name in ("and", "or", "xor"):
    add(f"aten.logical_{_name}.default", _logical(_name))


# -- selection ----------------------------------------------------------------------------------------------------------------------------


@lowers("aten.where.self", "aten.where.ScalarOther", "aten.where.ScalarSelf", "aten.where.Scalar")
def where(lo: Emitter, condition: Value, x: Operand, y: Operand) -> Value:
    types = (condition.dtype, lo.dtype, lo.dtype)
    return lo.pointwise(lambda c, a, b: op("select", s.truth(c), a, b), condition, x, y, compute=types)


@lowers("aten.masked_fill.Scalar", "aten.masked_fill.Tensor")
def masked_fill(lo: Emitter, x: Value, mask: Value, value: Operand) -> Value:
    return where(lo, mask, value, x)


@lowers("aten.lerp.Scalar", "aten.lerp.Tensor")
def lerp(lo: Emitter, x: Value, end: Value, weight: Operand) -> Value:
    return lo.pointwise(lambda a, b, w: op("add", a, op("mul", w, op("sub", b, a))), x, end, weight)


@lowers("aten.addcmul.default")
def addcmul(lo: Emitter, x: Value, a: Value, b: Value, *, value: Number = 1) -> Value:
    return lo.pointwise(lambda v, p, q: op("add", v, op("mul", op("mul", p, q), value)), x, a, b)


@lowers("aten.addcdiv.default")
def addcdiv(lo: Emitter, x: Value, a: Value, b: Value, *, value: Number = 1) -> Value:
    return lo.pointwise(lambda v, p, q: op("add", v, op("mul", op("div", p, q), value)), x, a, b)


# -- values made from nothing -------------------------------------------------------------------------------------------------------------


@lowers(
    "aten.full.default", "aten.full_like.default", "aten.new_full.default", "aten.scalar_tensor.default",
    empty=True,
)  # fmt: skip
def full(lo: Emitter, *args: Any, **_: object) -> Value:
    number = args[-1]
    if not isinstance(number, int | float | bool):
        raise Refused("the fill value depends on data")
    return lo.full(lo.shape, number, lo.dtype)


@lowers(
    "aten.zeros.default", "aten.zeros_like.default", "aten.new_zeros.default", "aten.empty.memory_format", "aten.empty_like.default",
    "aten.empty_permuted.default", "aten.new_empty.default", "aten.empty_strided.default", "aten.new_empty_strided.default",
    empty=True,
)  # fmt: skip
def zeros(lo: Emitter, *_: object, **__: object) -> Value:
    """Uninitialised memory is zeros here: any value is allowed, and this one is deterministic."""
    return lo.full(lo.shape, 0, lo.dtype)


@lowers("aten.ones.default", "aten.ones_like.default", "aten.new_ones.default", empty=True)
def ones(lo: Emitter, *_: object, **__: object) -> Value:
    return lo.full(lo.shape, 1, lo.dtype)


@lowers("aten.fill.Scalar", "aten.fill.Tensor")
def fill(lo: Emitter, x: Value, value: Operand) -> Value:
    if isinstance(value, Value):
        return lo.broadcast_to(lo.cast(lo.reshape(value, ()), lo.dtype), x.shape)
    return lo.full(x.shape, value, lo.dtype)


@lowers("aten.arange.start_step", "aten.arange.start", "aten.arange.default")
def arange(lo: Emitter, *args: Number, **_: object) -> Value:
    start, step = (args[0] if len(args) > 1 else 0), (args[2] if len(args) > 2 else 1)
    return lo.generate(lo.shape, lambda i: cast(_ramp(i, start, step), lo.dtype))


def _ramp(position: Expr, start: Number, step: Number) -> Expr:
    """start + step * position; in double precision where a number is not whole, as torch computes it."""
    if all(float(n).is_integer() for n in (start, step)):
        return op("add", op("mul", position, int(step)), int(start))
    return op("add", op("mul", cast(position, F64), step), start)


@lowers("aten.linspace.default")
def linspace(lo: Emitter, start: Number, end: Number, steps: int, **_: object) -> Value:
    step = (end - start) / max(steps - 1, 1)
    half = steps // 2

    def function(i: Expr) -> Expr:
        up = op("add", op("mul", cast(i, F64), step), start)
        down = op("sub", end, op("mul", op("sub", steps - 1.0, cast(i, F64)), step))
        return cast(op("select", op("lt", i, half), up, down) if steps > 1 else up, lo.dtype)

    return lo.generate(lo.shape, function)


@lowers("aten.eye.default", "aten.eye.m")
def eye(lo: Emitter, *_: object, **__: object) -> Value:
    return lo.generate(lo.shape, lambda i, j: cast(op("eq", i, j), lo.dtype))


def _triangle(keep: str) -> Callable[..., Value]:
    def lowering(lo: Emitter, x: Value, diagonal: int = 0) -> Value:
        inside = lo.generate(x.shape[-2:], lambda i, j: op(keep, op("sub", j, i), diagonal))
        zero = const(0, wide(x.dtype))
        return lo.pointwise(lambda c, v: op("select", c, v, zero), inside, x, compute=(BOOL, x.dtype))

    return lowering


add("aten.tril.default", _triangle("le"))
add("aten.triu.default", _triangle("ge"))


@lowers("aten.diff.default")
def diff(lo: Emitter, x: Value, n: int = 1, dim: int = -1, prepend: Value | None = None, append: Value | None = None) -> Value:
    dim %= x.ndim
    parts = [lo.cast(p, x.dtype) for p in (prepend, x, append) if p is not None]
    if len(parts) > 1:
        extent, pieces = 0, []
        for part in parts:
            pieces.append((part, [extent if d == dim else 0 for d in range(x.ndim)], [1] * x.ndim))
            extent += part.shape[dim]
        x = lo.assemble([extent if d == dim else e for d, e in enumerate(x.shape)], pieces)
    for _ in range(n):
        left = x.shape[dim] - 1
        later, earlier = lo.slice(x, dim, 1, left), lo.slice(x, dim, 0, left)
        name = "xor" if x.dtype is BOOL else "sub"
        x = lo.pointwise(lambda a, b, name=name: op(name, a, b), later, earlier, compute=x.dtype, result=x.dtype)
    return x


@lowers("aten.heaviside.default")
def heaviside(lo: Emitter, x: Value, values: Value) -> Value:
    return lo.pointwise(lambda a, b: op("select", op("eq", a, 0), b, cast(op("gt", a, 0), a.dtype)), x, values)


@lowers("aten.xlogy.Tensor")
def xlogy(lo: Emitter, x: Value, y: Value) -> Value:
    def function(a: Expr, b: Expr) -> Expr:
        value = op("select", op("eq", a, 0.0), 0.0, op("mul", a, op("log", b)))
        return op("select", op("isnan", b), math.nan, value)

    return lo.pointwise(function, x, y)
