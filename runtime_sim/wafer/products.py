"""FMAC bursts as matrix products (N6): the same sums in another order, for speed.

The nest of a burst is read as a contraction from its strides alone: an axis along which the destination stays is summed (K), one that
moves destination and vector is M, destination and scalar N, all three a batch (B). The mesh axes of its role join in: along a line whose
sums are taken they are summed too, elsewhere an axis along which only one operand differs from core to core is M or N, and one along
which neither does is computed once. Whether cores differ is known from how objects are stored (`storage`), never from values. So a
contraction over a rectangle becomes one large product where its operands are copies.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from math import prod
from typing import TYPE_CHECKING, Any

import numpy as np

from ...machines.wafer import tables as tb
from ...machines.wafer.isa import Element, Semantics
from ..threads import even, gather
from .arithmetic import Values
from .model import BurstView
from .order import Step
from .storage import seen_once

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


def kinds_of(burst: BurstView) -> str | None:
    """`axis_kinds` of an FMAC burst that sums in f32 over two operands that are no immediates; None for any other burst."""
    immediate = tb.OperandKind.IMM in (burst.a.kind, burst.s.kind)
    if burst.op.meaning is not Semantics.MULTIPLY_ADD or burst.op.d is not Element.F32 or immediate:
        return None
    a = burst.a.stride if burst.a.kind is tb.OperandKind.MEM else streamed_stride(burst.ext)
    s = burst.s.stride if burst.s.kind is tb.OperandKind.MEM else streamed_stride((*burst.ext[:3], 1))
    return axis_kinds(burst.ext, burst.d.stride, a, s)


def streamed_stride(ext: tuple[int, ...]) -> tuple[int, ...]:
    """Strides of a stream over a nest: every element comes once, in order."""
    return tuple(prod(ext[i + 1 :]) if n > 1 else 0 for i, n in enumerate(ext))


def summed_extents(ext: tuple[int, int, int, int], kinds: str) -> tuple[int, int, int, int]:
    """A nest's extents with 1 for those of K."""
    n3, n2, n1, n0 = (1 if kind == "K" else n for kind, n in zip(kinds, ext, strict=True))
    return n3, n2, n1, n0


def contraction(engine: Engine, step: Step, cores: Cores, streamed: Values | None, kinds: str, line: int | None) -> Values:
    """The products of an FMAC event summed over K, and over the cores along the mesh axis `line` if given: [rows, columns, n3, n2, n1, n0],
    with extent 1 along axes that are summed and along mesh axes on which no core differs. Cores that form no rectangle are one column."""
    sides = {name: _operand(engine, step, cores, streamed, name, kinds) for name in "as"}
    rows, cols = cores.shape if cores.view else (cores.shape[0], 1)
    mesh = ""
    for axis, n in enumerate((rows, cols)):
        differ = tuple(side.shape[axis] > 1 for side in sides.values())
        mesh += "K" if axis == line else {(True, True): "B", (True, False): "M", (False, True): "N", (False, False): "1"}[differ]
        if axis == line:
            sides = {name: np.broadcast_to(side, (*side.shape[:axis], n, *side.shape[axis + 1 :])) for name, side in sides.items()}
    letters = mesh + kinds
    shape = [1 if letter in "1K" else n for letter, n in zip(letters, (rows, cols, *step.event.burst.ext), strict=True)]
    total = _matmul(*(_matrix(engine, step, sides[name], name, letters) for name in "as"))
    kept = [i for letter in "BMN1K" for i, k in enumerate(letters) if k == letter]
    return total.reshape([shape[i] for i in kept]).transpose(np.argsort(kept))


def _operand(engine: Engine, step: Step, cores: Cores, streamed: Values | None, name: str, kinds: str) -> Values:
    """[rows, columns, n3, n2, n1, n0], extents 1 where the operand does not move and where all rows or columns are stored once."""
    event, burst = step.event, step.event.burst
    operand = burst.operand(name)
    ext = burst.ext if name == "a" else (*burst.ext[:3], 1)
    still = "N" if name == "a" else "M"
    moved = tuple(1 if k == still else n for k, n in zip(kinds, ext, strict=True))
    values = None
    if operand.kind is not tb.OperandKind.MEM:
        assert streamed is not None
        values = streamed.reshape(*cores.shape, *ext)
    elif operand.obj not in engine.seg.written and cores.where is None:
        begin = engine.begin(event, name)
        if not begin.ndim:
            values = engine.memory.walk(operand.obj, burst.rows, burst.cols, int(begin), operand.stride, moved)
    if values is None:
        values = engine.read(event, name, cores, moved)
    if not cores.view:
        values = values.reshape(values.shape[0], 1, *values.shape[1:])
    return seen_once(values)


def _matrix(engine: Engine, step: Step, values: Values, name: str, letters: str) -> Values:
    """One operand as [B, M, K] or [B, K, N]."""
    free = "M" if name == "a" else "N"
    axes = {letter: [i for i, k in enumerate(letters) if k == letter] for letter in "BMNK1"}
    still = axes["N" if name == "a" else "M"] + axes["1"]
    b, f, k = (prod(values.shape[i] for i in axes[letter]) for letter in ("B", free, "K"))
    # the copy keeps the axis innermost that is so in memory
    inner = {letter: min((abs(values.strides[i]) for i in axes[letter] if values.shape[i] > 1), default=1 << 60) for letter in (free, "K")}
    free_inside = f > 1 and inner[free] <= inner["K"]
    order = (*axes["B"], *axes["K"], *axes[free]) if free_inside else (*axes["B"], *axes[free], *axes["K"])
    shape = (b, k, f) if free_inside else (b, f, k)
    matrix = engine.arranged(step, name, (letters, free_inside), values.transpose(*order, *still), shape)
    return matrix if free_inside == (name == "s") else matrix.swapaxes(-1, -2)


def _matmul(left: Values, right: Values) -> Values:
    """left @ right, [batch, rows, columns], in one part a thread where it is large."""
    (batch, m, k), n = left.shape, right.shape[-1]
    if n > m and right.strides[-2] < right.strides[-1]:
        # the side with more rows first: it is read in the order in which it lies
        return _matmul(right.swapaxes(-1, -2), left.swapaxes(-1, -2)).swapaxes(-1, -2)
    out = np.empty((batch, m, n), np.float32)
    work = batch * m * n * k // 32

    def part(index: Sequence[Any]) -> None:
        np.matmul(left[index[0], index[1]], right[index[0], :, index[2]], out=out[index[0], index[1], index[2]])

    every = slice(None)
    if batch > 1:
        gather(part, [(cut, every, every) for cut in even(batch, work)])
    elif n > m:
        gather(part, [(every, every, cut) for cut in even(n, work)])
    else:
        gather(part, [(every, cut, every) for cut in even(m, work)])
    return out
