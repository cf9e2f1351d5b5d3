"""One FMAC burst as matrix products (N6): the same sums in another order, for speed.

The nest of a burst is read as a contraction from its strides alone: an axis along which the destination stays is summed (K), one that
moves destination and vector is M, destination and scalar N, all three a batch. Cores whose vector (scalar) elements are equal bit for bit
along a row (column) of the role share one product, so that a contraction over a rectangle becomes one large product where its operands
are copies. Everything else stays with the visit-by-visit evaluation.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from math import prod
from typing import TYPE_CHECKING, Any

import numpy as np

from ...machines.wafer.isa import Element
from ..threads import even, gather
from .arithmetic import Values
from .events import Event
from .model import BurstView
from .order import Step

if TYPE_CHECKING:
    from .engine import Cores, Engine

_KINDS = {(False, True, True): "K", (True, True, False): "M", (True, False, True): "N", (True, True, True): "B"}


@cache
def axis_kinds(ext: tuple[int, ...], d: tuple[int, ...], a: tuple[int, ...], s: tuple[int, ...]) -> str | None:
    """One letter an axis: K, M, N, B (batch) or 1 (extent 1); None where the nest is no product of two operands."""
    letters = []
    for n, dd, aa, ss in zip(ext, d, a, s, strict=True):
        key = (dd != 0, aa != 0, ss != 0)
        found = "1" if n == 1 else _KINDS.get(key)
        if found is None:
            return None
        letters.append(found)
    return "".join(letters)


def product(burst: BurstView, a: Values, s: Values) -> Values | None:
    """Sum of a * s over K, for operands [*cores, n3, n2, n1, n0] (extents 1 where they do not move), with the elements of the remaining
    axes in their order. None where the burst is not such a product, or its format sums in f16."""
    if burst.op.d is not Element.F32 or s.ndim == 0 or a.ndim == 0:
        return None
    kinds = axis_kinds(burst.ext, burst.d.stride, burst.a.stride, burst.s.stride)
    if kinds is None or "K" not in kinds:
        return None
    lead = a.ndim - 4
    order = [i for letter in "BMKN1" for i, k in enumerate(kinds) if k == letter]
    sizes = _sizes(burst.ext, kinds)
    cores = a.shape[:lead]
    left = _arranged(a, lead, order, burst, kinds, "N").reshape(*cores, sizes["B"], sizes["M"], sizes["K"])
    right = _arranged(s, lead, order, burst, kinds, "M").reshape(*cores, sizes["B"], sizes["K"], sizes["N"])
    total = _multiply(left, right)
    shape = [*cores, *(burst.ext[i] for letter in "BMN1" for i, k in enumerate(kinds) if k == letter)]
    kept = [i for letter in "BMN1" for i, k in enumerate(kinds) if k == letter]
    placed = total.reshape(shape)
    back = np.argsort(kept)
    return placed.transpose(*range(lead), *(lead + int(i) for i in back))


def line_product(engine: Engine, event: Event, axis: int) -> tuple[Values, tuple[int, ...]]:
    """An FMAC event summed over K and over the cores along a mesh axis: [cores of the other axis, n3, n2, n1, n0] and its extents (1 for
    those of K). The burst is a product (`axis_kinds`)."""
    burst = event.burst
    kinds = axis_kinds(burst.ext, burst.d.stride, burst.a.stride, burst.s.stride)
    assert kinds is not None
    cores = engine.cores(Step(event))
    both = {name: _operand(engine, event, cores, name, kinds, axis) for name in "as"}
    alike = tuple(_uniform(both[name], 0) for name in "as")
    left, right = (_side(engine, event, both[name], name, kinds, (axis, *alike)) for name in "as")
    lines = cores.shape[1 - axis]
    b, m, n = (_sizes(burst.ext, kinds)[letter] for letter in "BMN")
    if left.ndim == 3 and right.ndim == 3 and left.shape[1] == lines * m:
        # every line has the same scalars
        total = _matmul(left, right).reshape(b, lines, m, n).transpose(1, 0, 2, 3)
    elif left.ndim == 3 and right.ndim == 3:
        total = _matmul(left, right).reshape(b, m, lines, n).transpose(2, 0, 1, 3)
    else:
        total = _matmul(left, right)
    kept = [i for letter in "BMN1K" for i, k in enumerate(kinds) if k == letter]
    ext = tuple(1 if k == "K" else size for k, size in zip(kinds, burst.ext, strict=True))
    return total.reshape(lines, *(ext[i] for i in kept)).transpose(0, *(1 + int(i) for i in np.argsort(kept))), ext


@cache
def _sizes(ext: tuple[int, ...], kinds: str) -> dict[str, int]:
    """Elements of the axes of each kind."""
    return {letter: prod(size for size, kind in zip(ext, kinds, strict=True) if kind == letter) for letter in "BMKN"}


def _side(engine: Engine, event: Event, values: Values, name: str, kinds: str, form: tuple[Any, ...]) -> Values:
    """One operand of a line product: [B, rows, columns] where all lines have one side in common (`form`: axis of the lines, whether those
    of a and of s are alike), else one a line."""
    burst, alike = event.burst, form[1:]
    free = "M" if name == "a" else "N"
    letters = {letter: [2 + i for i, k in enumerate(kinds) if k == letter] for letter in "BMNK1"}
    still = letters["N" if name == "a" else "M"] + letters["1"]
    b, f, k = (_sizes(burst.ext, kinds)[letter] for letter in ("B", free, "K"))
    inner = [1, *letters["K"]]
    one_product = any(alike)
    if alike[1] if name == "s" else alike == (True, False):
        values = values[:1]
    outer = [0, *letters[free]] if one_product else letters[free]
    lead = letters["B"] if one_product else [0, *letters["B"]]
    size = k * values.shape[1]
    # the copy keeps the axis innermost that is so in memory
    strides = values.strides
    steps = [strides[i] for i in letters[free] if values.shape[i] > 1]
    free_inside = bool(steps) and min(steps) <= min((strides[i] for i in letters["K"] if values.shape[i] > 1), default=1 << 60)
    head = (b,) if one_product else (values.shape[0], b)
    wide = f * (values.shape[0] if one_product else 1)
    order = (*lead, *inner, *outer, *still) if free_inside else (*lead, *outer, *inner, *still)
    shape = (*head, size, wide) if free_inside else (*head, wide, size)
    matrix = engine.arranged(event, name, (*form, kinds), values.transpose(order), shape)
    return matrix if free_inside == (name == "s") else matrix.swapaxes(-1, -2)


def _operand(engine: Engine, event: Event, cores: Cores, name: str, kinds: str, axis: int) -> Values:
    """[lines, cores of a line, n3, n2, n1, n0], extents 1 where the operand does not move."""
    burst = event.burst
    ext = burst.ext if name == "a" else (*burst.ext[:3], 1)
    still = "N" if name == "a" else "M"
    moved = tuple(1 if k == still else n for k, n in zip(kinds, ext, strict=True))
    operand, begin, values = burst.operand(name), engine.begin(event, name), None
    if operand.obj not in engine.seg.written and not begin.ndim:
        values = engine.memory.walk(operand.obj, burst.rows, burst.cols, int(begin), operand.stride, moved)
    if values is None:
        values = engine.read(event, name, cores, moved)
    return values if axis == 1 else values.swapaxes(0, 1)


def _uniform(values: Values, axis: int) -> bool:
    """Whether all cores along a mesh axis hold the same, by the way they are stored."""
    return values.strides[axis] == 0 or values.shape[axis] == 1


def _arranged(values: Values, lead: int, order: Sequence[int], burst: BurstView, kinds: str, still: str) -> Values:
    """Axes in the order B, M, K, N; axes along which the operand does not move cut to extent 1."""
    pick = tuple(slice(0, 1) if kinds[i] == still else slice(None) for i in range(4))
    cut = values[(..., *pick)]
    target = [1 if kinds[i] == still else burst.ext[i] for i in range(4)]
    cut = np.broadcast_to(cut, (*values.shape[:lead], *target))
    return cut.transpose(*range(lead), *(lead + i for i in order))


def _matmul(left: Values, right: Values) -> Values:
    """left @ right, [.., rows, columns], in one part a thread where it is large."""
    lead, (m, k), n = left.shape[:-2], left.shape[-2:], right.shape[-1]
    out = np.empty((*lead, m, n), np.result_type(left, right))
    if len(lead) == 1 and lead[0] > 1:
        gather(lambda part: np.matmul(left[part], right[part], out=out[part]), even(lead[0], prod(lead) * m * n * k // 32))
    elif n > m:
        gather(lambda part: np.matmul(left, right[..., part], out=out[..., part]), even(n, prod(lead) * m * n * k // 32))
    else:
        gather(lambda part: np.matmul(left[..., part, :], right, out=out[..., part, :]), even(m, prod(lead) * m * n * k // 32))
    return out


def _multiply(left: Values, right: Values) -> Values:
    """[*cores, B, M, K] x [*cores, B, K, N], with one product for all cores of a row or column that share an operand."""
    if left.ndim != 5:
        return _matmul(left, right)
    h, w, batch, m, k = left.shape
    n = right.shape[-1]
    left_rows, left_cols = (_same_along(left, axis) for axis in (0, 1))
    right_rows, right_cols = (_same_along(right, axis) for axis in (0, 1))
    if left_cols and right_rows:
        # operands as [batch, h*m, k] and [batch, k, w*n]
        out = _matmul(left[:, 0].transpose(1, 0, 2, 3).reshape(batch, h * m, k), right[0].transpose(1, 2, 0, 3).reshape(batch, k, w * n))
        return out.reshape(batch, h, m, w, n).transpose(1, 3, 0, 2, 4)
    if left_rows and right_cols:
        out = _matmul(left[0].transpose(1, 0, 2, 3).reshape(batch, w * m, k), right[:, 0].transpose(1, 2, 0, 3).reshape(batch, k, h * n))
        return out.reshape(batch, w, m, h, n).transpose(3, 1, 0, 2, 4)
    if right_cols:
        # one product a row: all columns' M x N
        out = _matmul(left.transpose(0, 2, 1, 3, 4).reshape(h, batch, w * m, k), right[:, 0])
        return out.reshape(h, batch, w, m, n).transpose(0, 2, 1, 3, 4)
    if left_cols:
        out = _matmul(left[:, 0], right.transpose(0, 2, 3, 1, 4).reshape(h, batch, k, w * n))
        return out.reshape(h, batch, m, w, n).transpose(0, 3, 1, 2, 4)
    if right_rows:
        out = _matmul(left.transpose(1, 2, 0, 3, 4).reshape(w, batch, h * m, k), right[0])
        return out.reshape(w, batch, h, m, n).transpose(2, 0, 1, 3, 4)
    if left_rows:
        out = _matmul(left[0], right.transpose(1, 2, 3, 0, 4).reshape(w, batch, k, h * n))
        return out.reshape(w, batch, m, h, n).transpose(3, 0, 1, 2, 4)
    return _matmul(left, right)


def _same_along(values: Values, axis: int) -> bool:
    """Whether all cores along a mesh axis hold the same bits (NaN never counts as same)."""
    if values.shape[axis] == 1:
        return False
    if values.strides[axis] == 0:
        return True
    first = values[:1] if axis == 0 else values[:, :1]
    probe = values[-1:] if axis == 0 else values[:, -1:]
    return bool(np.array_equal(first, probe)) and bool((values == first).all())
