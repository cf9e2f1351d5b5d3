"""Runs of ALU operations as one compiled loop: a row goes through a whole run while it is in the cache.

A run is a stretch of groups (`schedule.group_bursts`) of operations that the loop knows, with nothing between them that computes. Each
element of each burst is one operation on 320 lanes. Operations that take results of each other are computed one after the other, in the
order of their groups, by one thread; sets of them that share nothing may go to different threads. What no operation outside the run takes
is kept in a few rows of its own. All this is found once per layout from who feeds whom.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np

from ...machines.tsp.isa import DType, Opcode
from ..threads import THREADS, each
from . import chain_kernels as ck
from .flatten import ALU_CODES, expand
from .layout import Array, Columns

if TYPE_CHECKING:
    from .evaluate import Evaluation

_THREADED = 1024
"""Operations of a run from which on threads share it."""
_FLOATS = {Opcode.ADD: ck.ADD, Opcode.SUB: ck.SUB, Opcode.MUL: ck.MUL, Opcode.NEG: ck.NEG, Opcode.RSQRT: ck.RSQRT}
_BITS = {Opcode.AND: (ck.AND2, ck.AND4), Opcode.OR: (ck.OR2, ck.OR4), Opcode.XOR: (ck.XOR2, ck.XOR4)}
_MASKS = {Opcode.SELECT: (ck.TAKE2, ck.TAKE4), Opcode.MASK_BAR: (ck.DROP2, ck.DROP4)}
_WIDE = {DType.F16: 0, DType.I16: 0, DType.F32: 1, DType.I32: 1}
_CASTS: dict[tuple[int, int], tuple[int, int]] = {
    (DType.F32, DType.F16): (ck.TO_HALF_CLIPPED, ck.TO_HALF), (DType.I32, DType.I8): (ck.TO_BYTE_CLIPPED, ck.TO_BYTE),
}  # fmt: skip


def kind_of(opcode: int, dtype: int, dtype2: int, modular: int) -> int:
    """The number under which `chain_kernels.rows` knows an operation; -1 where it does not."""
    code, kind, kind2 = Opcode(opcode), DType(dtype), DType(dtype2)
    if code in _FLOATS and kind == DType.F32:
        return _FLOATS[code]
    if code in _BITS and kind in _WIDE:
        return _BITS[code][_WIDE[kind]]
    if code in _MASKS and kind in _WIDE and kind2 == DType.I8:
        return _MASKS[code][_WIDE[kind]]
    if code == Opcode.CAST and (kind, kind2) in _CASTS:
        return _CASTS[kind, kind2][modular]
    return -1


def chain_kinds(b: Columns) -> Array:
    """`kind_of` each ALU burst that is not an IDENTITY, -1 of all others."""
    limits = 128, len(DType), len(DType), 2
    code = np.ravel_multi_index(tuple(b[name] for name in ("opcode", "dtype", "dtype2", "modular")), limits)
    kinds = np.full(int(np.prod(limits)), -1, np.int64)
    for one in np.flatnonzero(np.bincount(code)).tolist():
        opcode, *types = (int(k) for k in np.unravel_index(one, limits))
        kinds[one] = kind_of(opcode, *types) if opcode in ALU_CODES else -1
    result: Array = kinds[code]
    return result


def find_runs(groups: list[Array], kind: Array, idle: Array) -> list[tuple[int, int]]:
    """(first, last) group of each run: operations that have a `kind` (see `kind_of`), or are `idle`, by burst."""
    runs: list[tuple[int, int]] = []
    for number, rows in enumerate(groups):
        if ((kind[rows] >= 0) | idle[rows]).all():
            runs.append((runs.pop()[0] if runs and runs[-1][1] == number - 1 else number, number))
    return runs


@dataclass(frozen=True)
class Chain:
    """The operations of a run in the order in which they are computed, as `chain_kernels.rows` takes them. `shares`: (from, to) of each
    thread, which needs `slots` rows for itself.
    """

    kind: Array
    target: Array
    where: Array
    step: Array
    whole: Array
    shares: list[tuple[int, int]]
    slots: int

    def run(self, e: Evaluation) -> None:
        """Compute all operations in the arena of a block."""

        def compute(share: tuple[int, int]) -> None:
            ck.rows(
                *e.place.arena.views, e.offset, self.kind, self.target, self.where, self.step, self.whole, *share, self.slots, e.vector
            )  # fmt: skip

        each(compute, self.shares)


def make_chain(e: Evaluation, rows: Array) -> Chain:
    """The run of the ALU bursts `rows`, in the order of their groups."""
    v, vector, count = e.v, e.vector, e.v.count[rows]
    owner, k = expand(count)
    burst, size = rows[owner], len(owner)
    width = np.stack([v.width_a[burst], v.width_b[burst]], axis=1)
    lead = np.stack([np.zeros(size, np.int64), width[:, 0]], axis=1)
    plane = np.arange(4)
    held = plane < width[:, :, None]
    taps = e.a.flat.first_tap[burst][:, None, None] + (lead[:, :, None] + plane) * count[owner][:, None, None] + k[:, None, None]
    source = np.where(held, e.a.feeds.source[np.where(held, taps, 0)], -1)
    giver, byte = _givers(e, rows, source)
    parent = np.arange(size)
    ck.components(giver.reshape(size, 8), parent)
    order = np.lexsort((np.arange(size), parent))
    place = np.empty(size + 1, np.int64)
    place[order], place[-1] = np.arange(size), -1
    source, giver, byte, held = source[order], place[giver[order]], byte[order], held[order]
    burst, k, width = burst[order], k[order], width[order]
    cuts = _shares(parent[order])
    last = np.full(size, -1, np.int64)
    taken = np.flatnonzero(giver >= 0)
    last[giver.reshape(-1)[taken]] = taken // 8  # of several uses the last one stays
    inner, slot = v.base[burst] < 0, np.full(size, -1, np.int64)
    slots = ck.slots(giver.reshape(size, 8), last, inner, np.array(cuts), slot)
    target = np.where(inner, -2 - slot * 4 * vector, v.base[burst] + k * v.width[burst] * vector)
    own = (giver >= 0) & inner[giver]
    where, step = np.where(own, target[giver] - byte, v.offset[source]), np.where(own, v.width[burst][giver], v.step[source])
    sign = np.where(own, -1, 1)
    even = (
        (where[..., :1] + sign * plane == where)
        & (step == width[..., None])
        & (own == own[..., :1])
        & ((giver >= 0) | (v.leaf[source] >= 0))
    )
    whole = (even | ~held).all(axis=2) & held[..., 0] & (np.where(own, -2 - where, where)[..., 0] % 4 == 0) & (width > 1)
    outer = (v.leaf[source] < 0) & (source >= 0)
    where[outer] = ck.OUTER + source[outer]
    return Chain(v.chained[burst], target, where.reshape(size, 8), step.reshape(size, 8), whole, cuts, slots)


def _givers(e: Evaluation, rows: Array, source: Array) -> tuple[Array, Array]:
    """(operation of the run of bursts `rows` that computes each claim element of `source`, or -1; which of its bytes)."""
    flat, claims, leaf = e.a.flat, e.a.flat.claims, e.v.leaf[source]
    first = np.full(flat.size, -1, np.int64)
    first[rows] = np.cumsum(e.v.count[rows]) - e.v.count[rows]
    claim = e.a.feeds.claim_of[np.maximum(leaf, 0)]
    known = (leaf >= 0) & (first[claims.burst[claim]] >= 0)
    return np.where(known, first[claims.burst[claim]] + leaf - claims.first[claim], -1), claims.plane[claim]


def _shares(parent: Array) -> list[tuple[int, int]]:
    """Cuts operations into about equal shares, one a thread, between sets (`parent`) that share nothing."""
    size = len(parent)
    parts = THREADS if size >= _THREADED else 1
    heads = np.flatnonzero(np.append(True, parent[1:] != parent[:-1]))
    ends = np.append(heads, size)[np.searchsorted(heads, size * np.arange(1, parts) // parts)]
    cuts = np.unique([0, *ends.tolist(), size]).tolist()
    return list(pairwise(cuts))
