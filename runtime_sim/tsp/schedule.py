"""In which order results are computed, and where in the arena they live until their last use.

Bursts of one level, operation and shape form a *group*, computed at once. A group's results are one region, given back after the last group
that takes any of them, so that a long program needs memory for what lives at one time only.
"""

from __future__ import annotations

from bisect import insort

import numpy as np

from ...machines.tsp import isa
from ...machines.tsp.isa import ACC_OPS, DType, Opcode
from . import pointers
from .arena import ALIGN
from .flatten import among
from .joins import Joins
from .layout import Array
from .legality import Analysis

_NEVER = 1 << 60
HALF = 16
"""`pass_kind` of fp16 passes."""


def pass_kind(a: Analysis) -> Array:
    """What an int8 ACC burst does: 1, + 2 where it adds, 4 stores what another adds, 8 emits; 16 of fp16; 0 of all others."""
    b, passes = a.flat.b, a.passes
    result = np.zeros(a.flat.size, np.int64)
    known = np.flatnonzero(passes.acc >= 0)
    acc = passes.acc[known]
    kind = 1 + 2 * b["add"][acc] + 4 * stored_sums(a)[acc] + 8 * b["emit"][acc]
    result[acc] = np.where(b["dtype"][passes.abc[known]] == DType.F16, HALF, kind)
    return result


def stored_sums(a: Analysis) -> Array:
    """ACC bursts of which another one adds an entry."""
    result = np.zeros(a.flat.size, bool)
    result[a.passes.acc_row[a.passes.acc_source[a.passes.acc_source >= 0]]] = True
    return result


def group_bursts(a: Analysis) -> list[Array]:
    """Computing bursts in the order of evaluation, cut into groups."""
    b = a.flat.b
    rows = np.flatnonzero(a.computing)
    if not len(rows):
        return []
    kind = [pass_kind(a), b["modular"], b["dtype2"], b["dtype"], b["opcode"], a.level]
    shape = [b["n2"], b["n"], b["last"], b["first"]]
    order = rows[np.lexsort([rows, *(column[rows] for column in (*shape, *kind))])]
    reduce = among(b["opcode"][order], list(ACC_OPS))
    new = np.zeros(len(order), bool)
    for column in kind:
        new[1:] |= column[order][1:] != column[order][:-1]
    for column in shape:
        new[1:] |= (column[order][1:] != column[order][:-1]) & reduce[1:]
    return np.split(order, np.flatnonzero(new))


def sums_before(a: Analysis) -> Array:
    """For each int8 ACC burst, and each even one of an fp16 pair, the one burst of the same kind that only stores what it adds, element by
    element; else -1.

    Such passes are summed as one, when the last of them is computed.
    """
    passes, flat = a.passes, a.flat
    result = np.full(flat.size, -1, np.int64)
    rows = np.flatnonzero(np.bincount(passes.acc_row, minlength=flat.size))
    if not len(rows):
        return result
    sort, starts = passes.by_burst(flat)
    source, starts = passes.acc_source[sort], starts[rows]
    giver = np.where(source >= 0, passes.acc_row[source], -1)
    straight = (source >= 0) & (passes.acc_k[source] == passes.acc_k[sort])
    first = giver[starts]
    simple = np.minimum.reduceat(straight & (giver == np.repeat(first, flat.count[rows])), starts) & (first >= 0)
    users = np.unique(giver[giver >= 0] * flat.size + passes.acc_row[sort][giver >= 0])
    alone = np.bincount(users // flat.size, minlength=flat.size) == 1
    kind, odd = pass_kind(a), (flat.b["unit"] - isa.MXM_BASE) // 3 % 2 == 1
    kind = np.where(kind == HALF, np.where(odd, 0, HALF), kind > 0)
    simple &= alone[first] & (kind[first] > 0) & (kind[first] == kind[rows])
    simple &= (flat.b["emit"][first] == 0) & (flat.count[first] == flat.count[rows])
    result[rows[simple]] = first[simple]
    return result


def sums_after(before: Array) -> Array:
    """The burst that is summed with each one and follows it (`before`: `sums_before`); else -1."""
    result = np.full_like(before, -1)
    chained = np.flatnonzero(before >= 0)
    result[before[chained]] = chained
    return result


def _pass_groups(a: Analysis, group: Array, before: Array) -> Array:
    """Group in which the product of each ACC burst is taken: that of the last pass that it is summed with (`before`: `sums_before`)."""
    after, own = sums_after(before), np.arange(len(before))
    last = np.where(after >= 0, after, own)
    while ((further := last[last]) != last).any():
        last = further
    result: Array = group[last]
    twin = np.flatnonzero((a.passes.acc >= 0) & (a.passes.partner >= 0))
    other = a.passes.acc[a.passes.partner[twin]]
    result[a.passes.acc[twin]] = np.maximum(result[a.passes.acc[twin]], np.where(other >= 0, result[other], -1))
    return result


def last_uses(a: Analysis, groups: list[Array], leaf: Array, joins: Joins, before: Array) -> tuple[Array, Array, Array]:
    """(last group that takes a result of each burst, the same of the joined sums of each even ACC burst, and of stored sums); -1 where none
    does."""
    flat, claims, taps = a.flat, a.flat.claims, a.flat.taps
    group = np.full(flat.size, -1, np.int64)
    for number, rows in enumerate(groups):
        group[rows] = number
    passes, code = a.passes, flat.b["opcode"]
    taken = np.where(among(code, (Opcode.LW, Opcode.ABC)), -1, group)
    with_acc = np.flatnonzero(passes.acc >= 0)
    computed = _pass_groups(a, group, before)
    taken[passes.abc[with_acc]] = computed[passes.acc[with_acc]]
    partnered = with_acc[passes.partner[with_acc] >= 0]
    np.maximum.at(taken, passes.abc[passes.partner[partnered]], computed[passes.acc[partnered]])
    installed = np.full(len(passes.iw_burst), -1, np.int64)
    used = np.flatnonzero(passes.iw >= 0)
    np.maximum.at(installed, passes.iw[used], taken[passes.abc[used]])
    tile, row = np.nonzero(passes.content >= 0)
    elements = np.concatenate([passes.content[tile, row], a.leaving])
    when = np.concatenate([installed[tile], np.full(len(a.leaving), _NEVER)])
    result, total = np.full(flat.size, -1, np.int64), np.full(flat.size, -1, np.int64)
    for times, by_burst in ((taken, True), (when, False)):
        pointers.last_taken(
            elements, a.feeds.tap_of, taps.burst, times, by_burst, a.feeds.source, leaf, a.feeds.claim_of, claims.first, claims.burst,
            joins.whole, joins.first, joins.head, result, total,
        )  # fmt: skip
    added = np.flatnonzero(passes.acc_source >= 0)
    stored = np.full(flat.size, -1, np.int64)
    np.maximum.at(stored, passes.acc_row[passes.acc_source[added]], computed[passes.acc_row[added]])
    return result, total, stored


def place(groups: list[Array], sizes: tuple[Array, ...], last: tuple[Array, ...], ends: Array) -> tuple[list[Array], int]:
    """Offsets of each kind of result (`sizes` bytes a burst, taken last by group `last`; -1 for none), and the end of all.

    ends[g]: the last of the groups that are computed together with group g; nothing is given back before that one is done.

    First fit over a list of free gaps: deterministic, and regions of one size are soon used again.
    """
    bases = [np.full(len(size), -1, np.int64) for size in sizes]
    free: list[tuple[int, int]] = [(0, _NEVER)]
    expiry: dict[int, list[tuple[int, int]]] = {}
    end = 0
    for number, rows in enumerate(groups):
        for bytes_, until, offsets in zip((size[rows] for size in sizes), (end_[rows] for end_ in last), bases, strict=True):
            space = -(-bytes_ // ALIGN) * ALIGN
            size = int(space.sum())
            if not size:
                continue
            start = _take(free, size)
            offsets[rows] = np.where(bytes_ > 0, start + np.cumsum(space) - space, -1)
            end = max(end, start + size)
            until_group = max(int(until.max()), number)
            expiry.setdefault(int(ends[until_group]) if until_group < len(ends) else _NEVER, []).append((start, start + size))
        for gap in expiry.pop(number, ()):
            _give(free, gap)
    return bases, end


def _take(free: list[tuple[int, int]], size: int) -> int:
    for at, (low, high) in enumerate(free):
        if high - low >= size:
            free[at : at + 1] = [(low + size, high)] if high - low > size else []
            return low
    raise AssertionError("the last gap has no end")


def _give(free: list[tuple[int, int]], gap: tuple[int, int]) -> None:
    insort(free, gap)
    at = free.index(gap)
    if at + 1 < len(free) and free[at + 1][0] == gap[1]:
        gap = (gap[0], free[at + 1][1])
        free[at : at + 2] = [gap]
    if at and free[at - 1][1] == gap[0]:
        free[at - 1 : at + 1] = [(free[at - 1][0], gap[1])]
