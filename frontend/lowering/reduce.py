"""Lowerings of reductions. Half precision accumulates in float32 and rounds at the end; a mean is a sum times 1/n."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from math import prod
from typing import Any

from ...ir.expr import Expr, arg, cast, make
from ...ir.graph import Group, identity_access
from ...ir.types import BOOL, I64, DType
from .. import scalar as s
from ..emit import Emitter
from ..registry import add, lowers
from ..scalar import op
from ..types import Empty, Number, Refused, Value, wide

Dims = Sequence[int] | int | None


def normal_dims(ndim: int, dim: Dims) -> tuple[int, ...]:
    """Ascending dimensions; None and () mean all."""
    if isinstance(dim, int):
        dim = (dim,)
    if not dim:
        return tuple(range(ndim))
    return tuple(sorted({d % ndim for d in dim})) if ndim else ()


def over(lo: Emitter, name: str, x: Value, dims: Sequence[int], keepdim: bool, function: Callable[[Expr], Expr], compute: DType) -> Value:
    """Reduce of `function(x)`, computed in `compute`, over `dims`."""
    groups: list[Group] = [() if d in dims else (d,) for d in range(x.ndim) if keepdim or d not in dims]
    expr = function(cast(arg(0, x.dtype), compute))
    return lo.reduce(name, x.shape, groups, [(x, identity_access(x.ndim))], expr)


def total(lo: Emitter, x: Value, dims: Sequence[int], keepdim: bool, function: Callable[[Expr], Expr] = lambda v: v) -> Value:
    """The float32 (or wider) sum of `function(x)`."""
    return over(lo, "sum", x, dims, keepdim, function, wide(x.dtype))


@lowers("aten.sum.dim_IntList", "aten.sum.default", empty=True)
def sum_(lo: Emitter, x: Value | Empty, dim: Dims = None, keepdim: bool = False, **_: object) -> Value:
    if isinstance(x, Empty):
        return lo.full(lo.shape, 0, lo.dtype)
    compute = wide(lo.dtype)
    return lo.cast(over(lo, "sum", x, normal_dims(x.ndim, dim), keepdim, lambda v: v, compute), lo.dtype)


@lowers("aten.mean.dim", "aten.mean.default")
def mean(lo: Emitter, x: Value, dim: Dims = None, keepdim: bool = False, **_: object) -> Value:
    dims = normal_dims(x.ndim, dim)
    count = prod(x.shape[d] for d in dims)
    return lo.pointwise(lambda v: op("mul", v, 1.0 / count), over(lo, "sum", x, dims, keepdim, lambda v: v, wide(lo.dtype)))


@lowers("aten.prod.default", "aten.prod.dim_int")
def prod_(lo: Emitter, x: Value, dim: Dims = None, keepdim: bool = False, **_: object) -> Value:
    return lo.cast(over(lo, "prod", x, normal_dims(x.ndim, dim), keepdim, lambda v: v, wide(lo.dtype)), lo.dtype)


def _extreme(name: str) -> Callable[..., Value]:
    def lowering(lo: Emitter, x: Value, dim: Dims = None, keepdim: bool = False) -> Value:
        """The extreme value; of bools it is any or all."""
        kind = {"max": "any", "min": "all"}[name] if x.dtype is BOOL else name
        return over(lo, kind, x, normal_dims(x.ndim, dim), keepdim, lambda v: v, x.dtype)

    return lowering


def _position(name: str) -> Callable[..., Value]:
    def lowering(lo: Emitter, x: Value, dim: int | None = None, keepdim: bool = False) -> Value:
        """The first position of the extreme; without a dimension, in row-major order of the whole tensor."""
        return over(lo, name, x, normal_dims(x.ndim, dim), keepdim, lambda v: v, x.dtype)

    return lowering


def _extreme_and_position(name: str) -> Callable[..., tuple[Value, Value | None]]:
    def lowering(lo: Emitter, x: Value, dim: int, keepdim: bool = False) -> tuple[Value, Value | None]:
        value = _extreme(name)(lo, x, dim, keepdim)
        return value, _position("arg" + name)(lo, x, dim, keepdim) if 1 in lo.used else None

    return lowering


for _name in ("max", "min"):
    for _op in (f"aten.a{_name}.default", f"aten.{_name}.default"):
        add(_op, _extreme(_name))
    add(f"aten.arg{_name}.default", _position("arg" + _name))
    add(f"aten.{_name}.dim", _extreme_and_position(_name))


@lowers("aten.aminmax.default")
def aminmax(lo: Emitter, x: Value, *, dim: int | None = None, keepdim: bool = False) -> tuple[Value, Value]:
    return _extreme("min")(lo, x, dim, keepdim), _extreme("max")(lo, x, dim, keepdim)


def _truth(name: str) -> Callable[..., Value]:
    def lowering(lo: Emitter, x: Value, dim: Dims = None, keepdim: bool = False) -> Value:
        return lo.cast(over(lo, name, x, normal_dims(x.ndim, dim), keepdim, s.truth, x.dtype), lo.dtype)

    return lowering


for _name in ("any", "all"):
    for _overload in ("default", "dim", "dims"):
        add(f"aten.{_name}.{_overload}", _truth(_name))


@lowers("aten.count_nonzero.default", "aten.count_nonzero.dim_IntList")
def count_nonzero(lo: Emitter, x: Value, dim: Dims = None) -> Value:
    return over(lo, "sum", x, normal_dims(x.ndim, dim), False, lambda v: cast(s.truth(v), I64), x.dtype)


# -- moments ------------------------------------------------------------------------------------------------------------------------------


def moments(lo: Emitter, x: Value, dims: Sequence[int]) -> tuple[Value, Value, int]:
    """Float32 (or wider) sum of x and sum of squared distances from the mean, both with kept dimensions, and the number of elements."""
    count = prod(x.shape[d] for d in dims)
    first = total(lo, x, dims, True)
    groups: list[Group] = [() if d in dims else (d,) for d in range(x.ndim)]
    access = identity_access(x.ndim)
    kept = tuple(type(i)(0) if d in dims else i for d, i in enumerate(access))
    distance = make("sub", cast(arg(0, x.dtype), first.dtype), op("mul", arg(1, first.dtype), 1.0 / count))
    second = lo.reduce("sum", x.shape, groups, [(x, access), (first, kept)], make("mul", distance, distance))
    return first, second, count


def _variance(lo: Emitter, x: Value, dim: Dims, correction: Number | None) -> tuple[Value, Value, float, int]:
    dims = normal_dims(x.ndim, dim)
    first, second, count = moments(lo, x, dims)
    freedom = max(count - (1 if correction is None else correction), 0)
    return first, second, 1.0 / freedom if freedom else math.inf, count


def _drop(lo: Emitter, x: Value, index: int) -> Value:
    result = lo.results[index]
    assert result is not None
    return lo.reshape(lo.cast(x, result.dtype), result.shape)


@lowers("aten.var.correction")
def var(lo: Emitter, x: Value, dim: Dims = None, *, correction: Number | None = None, keepdim: bool = False) -> Value:
    _, second, scale, _ = _variance(lo, x, dim, correction)
    return _drop(lo, lo.pointwise(lambda v: op("mul", v, scale), second, result=second.dtype), 0)


@lowers("aten.std.correction")
def std(lo: Emitter, x: Value, dim: Dims = None, *, correction: Number | None = None, keepdim: bool = False) -> Value:
    _, second, scale, _ = _variance(lo, x, dim, correction)
    return _drop(lo, lo.pointwise(lambda v: op("sqrt", op("mul", v, scale)), second, result=second.dtype), 0)


@lowers("aten.var_mean.correction")
def var_mean(lo: Emitter, x: Value, dim: Dims = None, *, correction: Number | None = None, keepdim: bool = False) -> tuple[Value, Value]:
    first, second, scale, count = _variance(lo, x, dim, correction)
    variance = lo.pointwise(lambda v: op("mul", v, scale), second, result=second.dtype)
    average = lo.pointwise(lambda v: op("mul", v, 1.0 / count), first, result=first.dtype)
    return _drop(lo, variance, 0), _drop(lo, average, 1)


@lowers("aten.std_mean.correction")
def std_mean(lo: Emitter, x: Value, dim: Dims = None, *, correction: Number | None = None, keepdim: bool = False) -> tuple[Value, Value]:
    first, second, scale, count = _variance(lo, x, dim, correction)
    deviation = lo.pointwise(lambda v: op("sqrt", op("mul", v, scale)), second, result=second.dtype)
    average = lo.pointwise(lambda v: op("mul", v, 1.0 / count), first, result=first.dtype)
    return _drop(lo, deviation, 0), _drop(lo, average, 1)


# -- norms and log-sums -------------------------------------------------------------------------


def _norm(lo: Emitter, x: Value, order: Number, dims: Sequence[int], keepdim: bool) -> Value:
    if order == 2:
        return lo.pointwise(lambda v: op("sqrt", v), total(lo, x, dims, keepdim, lambda v: op("mul", v, v)))
    if order == 1:
        return lo.cast(total(lo, x, dims, keepdim, lambda v: op("abs", v)), lo.dtype)
    if order == 0:
        return lo.cast(total(lo, x, dims, keepdim, lambda v: cast(s.truth(v), v.dtype)), lo.dtype)
    if math.isinf(order):
        name = "max" if order > 0 else "min"
        return over(lo, name, x, dims, keepdim, lambda v: op("abs", v), x.dtype)
    powers = total(lo, x, dims, keepdim, lambda v: op("pow", op("abs", v), float(order)))
    return lo.pointwise(lambda v: op("pow", v, 1.0 / order), powers)


@lowers("aten.linalg_vector_norm.default")
def vector_norm(lo: Emitter, x: Value, ord: Number = 2, dim: Dims = None, keepdim: bool = False, **_: Any) -> Value:
    return _norm(lo, x, ord, normal_dims(x.ndim, dim), keepdim)


@lowers("aten.norm.Scalar", "aten.norm.ScalarOpt_dim")
def norm(lo: Emitter, x: Value, p: Number | None = 2, dim: Dims = None, keepdim: bool = False) -> Value:
    return _norm(lo, x, 2 if p is None else p, normal_dims(x.ndim, dim), keepdim)


@lowers("aten.logsumexp.default")
def logsumexp(lo: Emitter, x: Value, dim: Dims, keepdim: bool = False) -> Value:
    if not x.dtype.is_float:
        raise Refused("logsumexp of integers has no form in the IR")
    dims = normal_dims(x.ndim, dim)
    compute = wide(x.dtype)
    top = over(lo, "max", x, dims, True, lambda v: v, compute)
    top = lo.pointwise(lambda v: op("select", op("isinf", v), 0.0, v), top, result=compute)
    powers = lo.pointwise(lambda v, m: op("exp", op("sub", v, m)), x, top, compute=compute, result=compute)
    value = lo.pointwise(lambda v, m: op("add", op("log", v), m), total(lo, powers, dims, True), top, compute=compute, result=compute)
    return _drop(lo, value, 0)
