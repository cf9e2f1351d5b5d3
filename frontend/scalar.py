"""Scalar functions as expressions of the IR: activations and the arithmetic that ATen has and the IR builds from smaller operators.

Each is written once, here; the hash-consed shape is what a machine with a unit for it recognises.
"""

from __future__ import annotations

import math

from ..ir.expr import Expr, Number, cast, const, make
from ..ir.types import BOOL

INF = math.inf


def op(name: str, *args: Expr | Number) -> Expr:
    """`make`, with Python numbers taken as constants of the other operands' type (for `select`: of the branches' type)."""
    branches = args[1:] if name == "select" else args
    like = next(a for a in branches if isinstance(a, Expr))
    return make(name, *(a if isinstance(a, Expr) else const(a, like.dtype) for a in args))


def sigmoid(x: Expr) -> Expr:
    return op("recip", op("add", 1.0, op("exp", op("neg", x))))


def silu(x: Expr) -> Expr:
    return op("mul", x, sigmoid(x))


def gelu_erf(x: Expr) -> Expr:
    return op("mul", op("mul", x, 0.5), op("add", 1.0, op("erf", op("mul", x, math.sqrt(0.5)))))


def gelu_tanh(x: Expr) -> Expr:
    cube = op("mul", op("mul", x, x), x)
    inner = op("mul", math.sqrt(2.0 / math.pi), op("add", x, op("mul", 0.044715, cube)))
    return op("mul", op("mul", 0.5, x), op("add", 1.0, op("tanh", inner)))


def softplus(x: Expr, beta: Number = 1.0, threshold: Number = 20.0) -> Expr:
    scaled = op("mul", x, beta)
    return op("select", op("gt", scaled, threshold), x, op("div", op("log1p", op("exp", scaled)), beta))


def log_sigmoid(x: Expr) -> Expr:
    return op("sub", op("min", x, 0.0), op("log1p", op("exp", op("neg", op("abs", x)))))


def mish(x: Expr) -> Expr:
    return op("mul", x, op("tanh", softplus(x)))


def relu(x: Expr) -> Expr:
    return op("max", x, 0)


def leaky_relu(x: Expr, slope: Expr | Number = 0.01) -> Expr:
    return op("select", op("gt", x, 0.0), x, op("mul", x, slope))


def elu(x: Expr, alpha: Number = 1.0, scale: Number = 1.0, input_scale: Number = 1.0) -> Expr:
    below = op("mul", op("expm1", op("mul", x, input_scale)), alpha * scale)
    return op("select", op("le", x, 0.0), below, op("mul", x, scale))


def clamp(x: Expr, low: Expr | Number | None = None, high: Expr | Number | None = None) -> Expr:
    """min(max(x, low), high), as torch orders them."""
    if low is not None:
        x = op("max", x, low)
    return op("min", x, high) if high is not None else x


def hard_sigmoid(x: Expr) -> Expr:
    return op("mul", clamp(op("add", x, 3.0), 0.0, 6.0), 1.0 / 6.0)


def hard_swish(x: Expr) -> Expr:
    return op("mul", op("mul", x, clamp(op("add", x, 3.0), 0.0, 6.0)), 1.0 / 6.0)


def log_base(x: Expr, base: float) -> Expr:
    return op("mul", op("log", x), 1.0 / math.log(base))


def is_finite(x: Expr) -> Expr:
    if not x.dtype.is_float:
        return make("eq", x, x)
    return make("not", make("or", make("isnan", x), make("isinf", x)))


def nan_to_num(x: Expr, nan: Number, high: Number, low: Number) -> Expr:
    if not x.dtype.is_float:
        return x
    x = op("select", op("isnan", x), nan, x)
    return op("select", op("eq", x, INF), high, op("select", op("eq", x, -INF), low, x))


def truth(x: Expr) -> Expr:
    """`x != 0` as bool."""
    return cast(x, BOOL)


def divide(x: Expr, y: Expr, rounding: str | None) -> Expr:
    """torch.div: true division of floats, floor or truncated division of floats and integers."""
    if x.dtype.is_float:
        quotient = op("div", x, y)
        return quotient if rounding is None else op(rounding, quotient)
    if rounding == "floor":
        return op("idiv", x, y)
    size = op("idiv", op("abs", x), op("abs", y))
    return op("mul", op("mul", op("sign", x), op("sign", y)), size)


def floor_divide(x: Expr, y: Expr) -> Expr:
    """Floor division by way of the exact remainder, as torch does it: floor(x / y) is wrong where the quotient rounds up."""
    if not x.dtype.is_float:
        return op("idiv", x, y)
    exact = op("round", op("div", op("sub", x, remainder(x, y)), y))
    infinite = op("or", op("eq", y, 0.0), op("isinf", x))
    return op("select", infinite, op("div", x, y), exact)


def remainder(x: Expr, y: Expr) -> Expr:
    """The remainder with the divisor's sign."""
    if not x.dtype.is_float:
        return op("mod", x, y)
    rest = op("fmod", x, y)
    other_side = op("and", op("ne", rest, 0.0), op("ne", op("lt", rest, 0.0), op("lt", y, 0.0)))
    return op("select", other_side, op("add", rest, y), rest)


def integer_power(x: Expr, exponent: int) -> Expr:
    """x**exponent for a non-negative integer exponent, by squaring."""
    result: Expr = const(1, x.dtype)
    square = x
    while exponent:
        if exponent & 1:
            result = op("mul", result, square)
        exponent >>= 1
        if exponent:
            square = op("mul", square, square)
    return result
