"""Scalar expressions in the operations that a core has.

`lower` rewrites an expression into f32, i32 and bool entries only, with every operator that the machine lacks replaced by a recipe over
those that it has (table 2.1 of the machine page). Recipes keep a relative error below 1e-6: polynomials near 0 where the plain formula
would cancel (tanh, expm1, log1p), exact rounding tricks elsewhere. Positions on an axis become pseudo operands, numbered from `AXIS`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import lru_cache

from ...errors import UnsupportedOp
from ...ir.expr import Expr, arg, cast, const, make, postorder
from ...ir.types import BOOL, F32, I32, DType

AXIS = 1 << 16
"""`arg(AXIS + k)` is the position on axis k."""
_TOP, _BOTTOM = 2**31 - 1, -(2**31)

Recipe = Callable[..., Expr]
RECIPES: dict[str, Recipe] = {}


def _recipe(name: str) -> Callable[[Recipe], Recipe]:
    def register(function: Recipe) -> Recipe:
        RECIPES[name] = function
        return function

    return register


def _f(value: float) -> Expr:
    return const(value, F32)


def _polynomial(x: Expr, coefficients: Sequence[float]) -> Expr:
    """Horner, highest power first."""
    total = _f(coefficients[0])
    for c in coefficients[1:]:
        total = make("add", make("mul", total, x), _f(c))
    return total


@_recipe("tanh")
def _tanh(x: Expr) -> Expr:
    z = make("mul", x, x)
    series = _polynomial(z, (-5.70498872745e-3, 2.06390887954e-2, -5.37397155531e-2, 1.33314422036e-1, -3.33332819422e-1))
    small = make("add", make("mul", make("mul", series, z), x), x)
    growth = make("exp", make("mul", x, _f(2.0)))
    large = make("sub", _f(1.0), make("mul", _f(2.0), make("recip", make("add", growth, _f(1.0)))))
    return make("select", make("lt", make("abs", x), _f(0.625)), small, large)


@_recipe("expm1")
def _expm1(x: Expr) -> Expr:
    series = _polynomial(x, [1.0 / math.factorial(n) for n in range(9, 0, -1)])
    return make("select", make("lt", make("abs", x), _f(0.5)), make("mul", series, x), make("sub", make("exp", x), _f(1.0)))


@_recipe("log1p")
def _log1p(x: Expr) -> Expr:
    u = make("add", x, _f(1.0))
    near = make("mul", make("log", u), make("div", x, make("sub", u, _f(1.0))))
    exact = make("or", make("eq", u, _f(1.0)), make("eq", u, _f(math.inf)))
    return make("select", exact, x, near)


@_recipe("ceil")
def _ceil(x: Expr) -> Expr:
    return make("neg", make("floor", make("neg", x)))


@_recipe("trunc")
def _trunc(x: Expr) -> Expr:
    return make("select", make("lt", x, _f(0.0)), _ceil(x), make("floor", x))


@_recipe("round")
def _round(x: Expr) -> Expr:
    magic = _f(12582912.0)  # 1.5 * 2**23: adding it leaves no bits for the fraction
    rounded = make("sub", make("add", x, magic), magic)
    return make("select", make("lt", make("abs", x), _f(4194304.0)), rounded, x)


@_recipe("sign")
def _sign(x: Expr) -> Expr:
    zero = const(0, x.dtype)
    return make("sub", cast(make("gt", x, zero), x.dtype), cast(make("lt", x, zero), x.dtype))


@_recipe("isnan")
def _isnan(x: Expr) -> Expr:
    return make("ne", x, x)


@_recipe("isinf")
def _isinf(x: Expr) -> Expr:
    return make("eq", make("abs", x), _f(math.inf))


@_recipe("fma")
def _fma(x: Expr, y: Expr, z: Expr) -> Expr:
    return make("add", make("mul", x, y), z)


@_recipe("fmod")
def _fmod(x: Expr, y: Expr) -> Expr:
    if not x.dtype.is_float:
        return make("sub", x, make("mul", cast(_trunc(make("div", cast(x, F32), cast(y, F32))), I32), y))
    return make("sub", x, make("mul", _trunc(make("div", x, y)), y))


@_recipe("idiv")
def _idiv(x: Expr, y: Expr) -> Expr:
    """Floor division: a shift for powers of two, else a rounded quotient corrected by its remainder (exact below 2**24)."""
    if y.op == "const" and y.value is not None and y.value > 0 and int(y.value) & (int(y.value) - 1) == 0:
        return make("shr", x, const(int(y.value).bit_length() - 1, I32))
    guess = cast(make("floor", make("div", cast(x, F32), cast(y, F32))), I32)
    rest = make("sub", x, make("mul", guess, y))
    zero = const(0, I32)
    positive = make("gt", y, zero)
    low = make("select", positive, make("lt", rest, zero), make("gt", rest, zero))
    high = make("select", positive, make("ge", rest, y), make("le", rest, y))
    return make("sub", make("add", guess, cast(high, I32)), cast(low, I32))


@_recipe("mod")
def _mod(x: Expr, y: Expr) -> Expr:
    if y.op == "const" and y.value is not None and y.value > 0 and int(y.value) & (int(y.value) - 1) == 0:
        return make("and", x, const(int(y.value) - 1, I32))
    return make("sub", x, make("mul", _idiv(x, y), y))


@_recipe("pow")
def _pow(x: Expr, y: Expr) -> Expr:
    if y.op == "const" and y.value is not None and float(y.value).is_integer() and 0 <= abs(y.value) <= 64:
        return _integer_power(x, int(y.value))
    size = _power_of(x if x.op == "const" else make("abs", x), y)
    if x.op == "const" and x.value is not None and x.value > 0:
        return size
    half = make("mul", y, _f(0.5))
    odd = make("ne", make("floor", half), half)
    return make("select", make("and", make("lt", x, _f(0.0)), odd), make("neg", size), size)


def _power_of(x: Expr, y: Expr) -> Expr:
    """x**y for x >= 0 as 2**(y * log2 x). For a literal base the product is formed in two parts, so that its rounding does not grow with
    the exponent."""
    if x.op != "const" or not x.value or x.value < 0:
        return make("exp2", make("mul", y, make("mul", make("log", x), _f(1.0 / math.log(2.0)))))
    exact = math.log2(float(x.value))
    high = math.floor(exact * 2048) / 2048
    main = make("mul", y, _f(high))
    whole = make("floor", main)
    rest = make("add", make("sub", main, whole), make("mul", y, _f(exact - high)))
    return make("mul", make("exp2", rest), make("exp2", whole))


def _integer_power(x: Expr, n: int) -> Expr:
    if n < 0:
        return make("recip", _integer_power(x, -n))
    total, square = _f(1.0), x
    while n:
        if n & 1:
            total = make("mul", total, square)
        n >>= 1
        if n:
            square = make("mul", square, square)
    return total


def _arctan(x: Expr) -> Expr:
    """Cephes atanf for x >= 0."""
    big = make("gt", x, _f(2.414213562373095))
    middle = make("gt", x, _f(0.4142135623730950))
    one = _f(1.0)
    reduced = make("div", make("sub", x, one), make("add", x, one))
    y = make("select", big, make("neg", make("recip", x)), make("select", middle, reduced, x))
    offset = make("select", big, _f(math.pi / 2), make("select", middle, _f(math.pi / 4), _f(0.0)))
    z = make("mul", y, y)
    series = _polynomial(z, (8.05374449538e-2, -1.38776856032e-1, 1.99777106478e-1, -3.33329491539e-1))
    return make("add", offset, make("add", make("mul", make("mul", series, z), y), y))


@_recipe("atan2")
def _atan2(y: Expr, x: Expr) -> Expr:
    zero = _f(0.0)
    ay, ax = make("abs", y), make("abs", x)
    both = make("and", make("eq", ax, zero), make("eq", ay, zero))
    angle = make("select", both, zero, _arctan(make("div", ay, ax)))
    angle = make("select", make("lt", x, zero), make("sub", _f(math.pi), angle), angle)
    return make("select", make("lt", y, zero), make("neg", angle), angle)


@_recipe("acos")
def _acos(x: Expr) -> Expr:
    one = _f(1.0)
    return _atan2(make("sqrt", make("mul", make("sub", one, x), make("add", one, x))), x)


@_recipe("not")
def _not(x: Expr) -> Expr:
    if x.dtype is BOOL:
        return make("eq", x, const(False, BOOL))
    return make("xor", x, const(-1, I32))


def _work(dtype: DType) -> DType:
    """The type that a core computes in."""
    return F32 if dtype.is_float else BOOL if dtype is BOOL else I32


def _literal(value: float | int | bool, dtype: DType) -> Expr:
    if dtype.is_float:
        return const(float(value), F32)
    return const(bool(value), BOOL) if dtype is BOOL else const(max(_BOTTOM, min(_TOP, int(value))), I32)


@lru_cache(maxsize=4096)
def lower(root: Expr) -> Expr:
    """`root` over f32, i32 and bool entries that a core computes directly. Raises UnsupportedOp."""
    done: dict[int, Expr] = {}
    for entry in postorder(root):
        new = [done[id(a)] for a in entry.args]
        if entry.op == "arg":
            made = arg(entry.index, _work(entry.dtype))
        elif entry.op == "axis":
            made = arg(AXIS + entry.index, I32)
        elif entry.op == "const":
            assert entry.value is not None
            made = _literal(entry.value, entry.dtype)
        elif entry.op == "cast":
            made = cast(new[0], _work(entry.dtype))
        elif entry.op in RECIPES:
            made = RECIPES[entry.op](*new)
            made = made if all(e.op not in RECIPES for e in postorder(made)) else lower(made)
        else:
            try:
                made = make(entry.op, *new)
            except TypeError as error:
                raise UnsupportedOp(f"the wafer cannot compute {entry.op}: {error}") from error
            made = made if made.op not in RECIPES else RECIPES[made.op](*made.args)
        done[id(entry)] = made
    return done[id(root)]
