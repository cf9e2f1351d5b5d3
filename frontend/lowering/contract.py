"""Lowerings of matrix products: one Contract each, with a Map for bias and scale."""

from __future__ import annotations

from ...ir.graph import Access, Group, Index
from ...ir.types import I8, I32
from ..emit import Emitter, broadcast_shape, ix
from ..registry import lowers
from ..scalar import op
from ..types import Number, Refused, Value


def matmul_values(lo: Emitter, a: Value, b: Value, *, transpose_b: bool = False) -> Value:
    """Batched product of the last two dimensions, leading ones broadcast; vectors as torch.matmul takes them.

    Axes: batch..., M, N, K. With `transpose_b` the second operand is [..., N, K].
    """
    if not a.ndim or not b.ndim:
        raise Refused("a matrix product needs at least vectors")
    vector_a, vector_b = a.ndim == 1, b.ndim == 1
    batch_a = () if vector_a else a.shape[:-2]
    batch_b = () if vector_b else b.shape[:-2]
    batch = broadcast_shape(batch_a, batch_b)
    lead = len(batch)
    m, n, k = lead, lead + 1, lead + 2
    rows = 1 if vector_a else a.shape[-2]
    columns = 1 if vector_b else b.shape[-2] if transpose_b else b.shape[-1]
    axes = (*batch, rows, columns, a.shape[-1])

    def leading(shape: tuple[int, ...]) -> tuple[Index, ...]:
        return tuple(ix() if e == 1 else ix(lead - len(shape) + d) for d, e in enumerate(shape))

    read_a: Access = (ix(k),) if vector_a else (*leading(batch_a), ix(m), ix(k))
    read_b: Access = (ix(k),) if vector_b else (*leading(batch_b), *((ix(n), ix(k)) if transpose_b else (ix(k), ix(n))))
    groups: list[Group] = [(d,) for d in range(lead)]
    if not vector_a:
        groups.append((m,))
    if not vector_b:
        groups.append((n,))
    dtype = lo.dtype if a.dtype is I8 and lo.dtype is I32 else None
    return lo.contract(axes, groups, (a, read_a), (b, read_b), dtype)


@lowers("aten.mm.default", "aten.bmm.default", "aten.matmul.default", "aten.mv.default", "aten.dot.default", "aten._int_mm.default")
def matmul(lo: Emitter, a: Value, b: Value) -> Value:
    return matmul_values(lo, a, b)


@lowers("aten.linear.default")
def linear(lo: Emitter, x: Value, weight: Value, bias: Value | None = None) -> Value:
    if weight.ndim == 1:
        product = matmul_values(lo, x, weight)
    else:
        product = _linear(lo, x, weight)
    return product if bias is None else lo.pointwise(lambda p, b: op("add", p, b), product, bias)


def _linear(lo: Emitter, x: Value, weight: Value) -> Value:
    """Every leading dimension of `x` is an M axis; weight is [N, K]."""
    lead = x.ndim - 1
    axes = (*x.shape[:-1], weight.shape[0], x.shape[-1])
    rows = tuple(ix(d) for d in range(lead))
    groups: list[Group] = [(d,) for d in range(lead + 1)]
    return lo.contract(axes, groups, (x, (*rows, ix(lead + 1))), (weight, (ix(lead), ix(lead + 1))))


@lowers("aten.addmm.default", "aten.baddbmm.default", "aten.addmv.default")
def addmm(lo: Emitter, bias: Value, a: Value, b: Value, *, beta: Number = 1, alpha: Number = 1) -> Value:
    product = matmul_values(lo, a, b)
    if product.shape != lo.shape:
        raise Refused("the summed batched product has no form in the IR")
    if beta == 0:
        return lo.pointwise(lambda p: op("mul", p, alpha), product)
    return lo.pointwise(lambda c, p: op("add", op("mul", c, beta), op("mul", p, alpha)), bias, product, shape=lo.shape)


@lowers("aten.outer.default", "aten.ger.default")
def outer(lo: Emitter, a: Value, b: Value) -> Value:
    return lo.pointwise(lambda p, q: op("mul", p, q), lo.reshape(a, (a.shape[0], 1)), b)
