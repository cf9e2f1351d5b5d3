"""Lowerings of softmax and scaled dot-product attention.

Softmax is m = max(s); e = exp(s - m); e / sum(e), in float32 for the half precisions. Attention gives zeros for a fully masked row, so
its softmax carries two guards (`m` of -inf reads as 0, a sum of 0 as 1), which canonicalisation removes where no row can be empty.
"""

from __future__ import annotations

import math

from ...ir.expr import Expr, arg, axis, cast, const
from ...ir.graph import Access, Group
from ...ir.types import BOOL, DType
from ..emit import Emitter, Read, broadcast_access, ix
from ..registry import lowers
from ..scalar import op
from ..types import Refused, Value, wide
from .reduce import over


def softmax_values(lo: Emitter, x: Value, dim: int, dtype: DType, *, guarded: bool = False) -> Value:
    """Softmax along `dim` in `dtype`; with guards a row of -inf gives zeros instead of NaN."""
    compute = wide(dtype)
    top = over(lo, "max", x, (dim,), True, lambda v: v, compute)

    def shifted(v: Expr, m: Expr) -> Expr:
        return op("exp", op("sub", v, op("select", op("eq", m, -math.inf), 0.0, m) if guarded else m))

    powers = lo.pointwise(shifted, x, top, compute=compute, result=compute)
    total = over(lo, "sum", powers, (dim,), True, lambda v: v, compute)

    def share(e: Expr, z: Expr) -> Expr:
        return op("div", e, op("select", op("eq", z, 0.0), 1.0, z) if guarded else z)

    return lo.pointwise(share, powers, total, compute=compute, result=dtype)


@lowers("aten.softmax.int", "aten._softmax.default")
def softmax(lo: Emitter, x: Value, dim: int, *_: object, **__: object) -> Value:
    if not x.ndim:
        return lo.full((), 1.0, lo.dtype)
    return softmax_values(lo, x, dim % x.ndim, lo.dtype)


@lowers("aten._safe_softmax.default")
def safe_softmax(lo: Emitter, x: Value, dim: int, dtype: object = None) -> Value:
    return softmax_values(lo, x, dim % x.ndim, lo.dtype, guarded=True)


@lowers("aten.log_softmax.int", "aten._log_softmax.default")
def log_softmax(lo: Emitter, x: Value, dim: int, *_: object, **__: object) -> Value:
    dim %= x.ndim
    compute = wide(lo.dtype)
    top = over(lo, "max", x, (dim,), True, lambda v: v, compute)
    powers = lo.pointwise(lambda v, m: op("exp", op("sub", v, m)), x, top, compute=compute, result=compute)
    total = over(lo, "sum", powers, (dim,), True, lambda v: v, compute)
    return lo.pointwise(lambda v, m, z: op("sub", op("sub", v, m), op("log", z)), x, top, total, compute=compute)


@lowers("aten.scaled_dot_product_attention.default")
def attention(
    lo: Emitter,
    query: Value,
    key: Value,
    value: Value,
    attn_mask: Value | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    *,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Value:
    """Query [..., Hq, S, D], key [..., Hk, T, D], value [..., Hk, T, E]; query head h reads key head h // (Hq / Hk) under `enable_gqa`."""
    if dropout_p:
        raise Refused("attention with dropout draws random numbers: call module.eval()")
    batch = lo.shape[:-2]
    compute = wide(query.dtype)
    factor = 1.0 / math.sqrt(query.shape[-1]) if scale is None else scale
    heads = batch[-1] if batch else 1
    repeat = heads // key.shape[-3] if enable_gqa and key.ndim > 2 else 1
    # Axes: batch..., (key head, head within it), S, T, D. Without grouped queries the inner head axis has extent 1.
    lead = (*batch[:-1], heads // repeat, repeat) if batch else ()
    n = len(lead)
    groups: list[Group] = [(d,) for d in range(n - 2)] + ([(n - 2, n - 1)] if n else [])

    def leading(x: Value, grouped: bool) -> Access:
        shape = x.shape[:-2]
        skip = len(batch) - len(shape)
        access = [ix() if e == 1 else ix(skip + d) for d, e in enumerate(shape)]
        if access and shape[-1] > 1 and not grouped:
            access[-1] = ix((n - 2, repeat), n - 1)
        return tuple(access)

    s, t = query.shape[-2], key.shape[-2]
    rows, columns, inner = n, n + 1, n + 2
    scores = lo.contract(
        (*lead, s, t, query.shape[-1]),
        [*groups, (rows,), (columns,)],
        (query, (*leading(query, False), ix(rows), ix(inner))),
        (key, (*leading(key, True), ix(columns), ix(inner))),
        compute,
    )
    masked = _masked_scores(lo, scores, attn_mask, factor, is_causal)
    guarded = attn_mask is not None or is_causal
    shares = softmax_values(lo, masked, scores.ndim - 1, query.dtype, guarded=guarded)
    return lo.contract(
        (*lead, s, value.shape[-1], t),
        [*groups, (rows,), (columns,)],
        (shares, (*leading(shares, False), ix(rows), ix(inner))),
        (value, (*leading(value, True), ix(inner), ix(columns))),
    )


def _masked_scores(lo: Emitter, scores: Value, mask: Value | None, factor: float, is_causal: bool) -> Value:
    """factor * scores, with -inf where a bool mask is false or a key lies after its query, plus a float mask."""
    reads: list[Read] = [(scores, broadcast_access(scores.shape, scores.shape))]
    expr = op("mul", arg(0, scores.dtype), factor)
    blocked = const(-math.inf, scores.dtype)
    if is_causal:
        row, column = axis(scores.ndim - 2), axis(scores.ndim - 1)
        expr = op("select", op("le", column, row), expr, blocked)
    if mask is not None:
        leaf = arg(1, mask.dtype)
        reads.append((mask, broadcast_access(mask.shape, scores.shape)))
        expr = op("select", leaf, expr, blocked) if mask.dtype is BOOL else op("add", expr, cast(leaf, scores.dtype))
    return lo.map(scores.shape, [(d,) for d in range(scores.ndim)], reads, expr)
