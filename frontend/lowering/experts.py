"""Lowerings of grouped matrix products, in which each row is multiplied by the matrix of its expert.

Rows are sorted by expert and `ends` gives the running totals, so the expert of row t is the number of ends <= t. The weights are a Gather
that feeds one Contract: no machine expands it, programs go expert by expert.
"""

from __future__ import annotations

from ...ir.expr import Expr, arg, axis, cast, const, make
from ...ir.graph import Access
from ...ir.types import I64
from ..emit import Emitter, ix
from ..registry import lowers
from ..scalar import op
from ..types import Refused, Value


def _experts(lo: Emitter, rows: int, ends: Value) -> Value:
    """For each of `rows` rows the number of its expert, i64; the number of experts for rows after the last end."""
    later = make("le", cast(arg(0, ends.dtype), I64), axis(0))
    return lo.reduce("sum", (rows, ends.shape[0]), [(0,)], [(ends, (ix(1),))], cast(later, I64))


def _product(lo: Emitter, x: Value, weight: Value, expert: Value) -> Value:
    """x [T, K] and weight [E, K, N] give [T, N]; the expert of each row is in range."""
    rows, inner, outer = x.shape[0], weight.shape[1], weight.shape[2]
    access: Access = (ix(0),)
    chosen = lo.gather((rows, inner, outer), [(0,), (1,), (2,)], weight, [0, ix(1), ix(2)], [(expert, access)])
    return lo.contract((rows, outer, inner), [(0,), (1,)], (x, (ix(0), ix(2))), (chosen, (ix(0), ix(2), ix(1))))


@lowers("transformers.grouped_mm_fallback.default")
def grouped_mm_fallback(lo: Emitter, x: Value, weight: Value, ends: Value) -> Value:
    """Rows after the last end are zeros."""
    count = weight.shape[0]
    expert = _experts(lo, x.shape[0], ends)
    clamped = lo.pointwise(lambda e: op("min", e, count - 1), expert, compute=I64, result=I64)
    product = _product(lo, x, weight, clamped)

    def guard(e: Expr, v: Expr) -> Expr:
        return op("select", op("lt", e, count), v, const(0.0, v.dtype))

    column = lo.reshape(expert, (expert.shape[0], 1))
    return lo.pointwise(guard, column, product, compute=(I64, product.dtype), result=product.dtype)


@lowers("aten._grouped_mm.default")
def grouped_mm(
    lo: Emitter, x: Value, weight: Value, offs: Value | None = None, bias: Value | None = None, out_dtype: object = None
) -> Value:
    if x.ndim != 2 or weight.ndim != 3 or offs is None or bias is not None:
        raise Refused("a grouped product is only known of sorted rows [T, K] with weights [E, K, N]")
    expert = _experts(lo, x.shape[0], offs)
    clamped = lo.pointwise(lambda e: op("min", e, weight.shape[0] - 1), expert, compute=I64, result=I64)
    return lo.cast(_product(lo, x, weight, clamped), lo.dtype)
