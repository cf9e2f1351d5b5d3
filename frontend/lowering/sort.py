"""Lowerings of sorting and cumulative ops: Sort gives the order, values are a Gather; ties go to the lowest position."""

from __future__ import annotations

from collections.abc import Callable
from math import prod

from ...ir.graph import Index, identity_access
from ...ir.types import BOOL, I64, U8
from ..emit import Emitter, ix
from ..registry import add, lowers
from ..scalar import op
from ..types import Refused, Value, wide


def order(lo: Emitter, x: Value, dim: int, descending: bool, count: int) -> Value:
    """The i64 positions of the first `count` elements in order; bools and bytes sort as integers."""
    if x.dtype in (BOOL, U8):
        x = lo.cast(x, I64)
    return lo.sort(x, dim, descending, count)


def taken(lo: Emitter, x: Value, dim: int, positions: Value) -> Value:
    """Elements of `x` at positions along `dim`, which are in range."""
    access: list[Index | int] = [ix(d) for d in range(x.ndim)]
    access[dim] = 0
    return lo.gather(positions.shape, [(d,) for d in range(x.ndim)], x, access, [(positions, identity_access(x.ndim))])


@lowers("aten.sort.default", "aten.sort.stable")
def sort(lo: Emitter, x: Value, dim: int = -1, descending: bool = False, *, stable: bool | None = None) -> tuple[Value | None, Value]:
    if not x.ndim:
        return x, lo.full((), 0, I64)
    dim %= x.ndim
    positions = order(lo, x, dim, descending, x.shape[dim])
    return taken(lo, x, dim, positions) if 0 in lo.used else None, positions


@lowers("aten.argsort.default", "aten.argsort.stable")
def argsort(lo: Emitter, x: Value, dim: int = -1, descending: bool = False, *, stable: bool | None = None) -> Value:
    return lo.full((), 0, I64) if not x.ndim else order(lo, x, dim % x.ndim, descending, x.shape[dim])


@lowers("aten.topk.default")
def topk(lo: Emitter, x: Value, k: int, dim: int = -1, largest: bool = True, sorted: bool = True) -> tuple[Value | None, Value]:
    if not x.ndim:
        return x, lo.full((), 0, I64)
    dim %= x.ndim
    positions = order(lo, x, dim, largest, k)
    return taken(lo, x, dim, positions) if 0 in lo.used else None, positions


def _cumulative(name: str) -> Callable[..., Value]:
    def lowering(lo: Emitter, x: Value, dim: int, **_: object) -> Value:
        x = lo.cast(x, wide(lo.dtype))
        return lo.cast(lo.scan(name, x, dim % x.ndim) if x.ndim else x, lo.dtype)

    return lowering


add("aten.cumsum.default", _cumulative("add"))
add("aten.cumprod.default", _cumulative("mul"))


def _cumulative_extreme(name: str) -> Callable[..., tuple[Value, None]]:
    def lowering(lo: Emitter, x: Value, dim: int) -> tuple[Value, None]:
        if 1 in lo.used:
            raise Refused(f"the positions that cum{name} gives have no form in the IR")
        return lo.scan(name, x, dim % x.ndim) if x.ndim else x, None

    return lowering


add("aten.cummax.default", _cumulative_extreme("max"))
add("aten.cummin.default", _cumulative_extreme("min"))


@lowers("aten.take.default")
def take(lo: Emitter, x: Value, index: Value) -> Value:
    flat = lo.reshape(x, (prod(x.shape),))
    n = index.ndim
    positive = lo.pointwise(
        lambda i: op("select", op("lt", i, 0), op("add", i, flat.shape[0]), i), index, compute=index.dtype, result=index.dtype
    )
    return lo.gather(index.shape, [(d,) for d in range(n)], flat, [0], [(positive, identity_access(n))])
