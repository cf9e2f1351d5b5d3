"""Where every value's bytes are: one arena for the rows bound before cycle 0 and for every computed result.

Moving data (Read, Write, Send, Receive, IDENTITY, a copying transposer) is resolved here to pointers, once per program; only what
computes has bytes of its own. A pointer is (offset, step): lane l of the byte is `arena[offset + l step]`; offset -1 reads as zero.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from ...machines.tsp import isa
from ...machines.tsp.isa import DType, Opcode
from ...machines.tsp.tables import Kind
from .flatten import ACC_CODES, ALU_CODES, Array, expand, result_dtype
from .joins import Joins, find_joins, paired_passes
from .legality import Analysis
from .memory import UNDEFINED, allocation_slices, first_place
from .schedule import group_bursts, last_uses, place

_WIDTH = np.array([isa.WIDTH[DType(d)] for d in range(len(DType))], np.int64)
_ALIGN = 64


@dataclass(frozen=True)
class Values:
    """Pointers of one program, and its computing bursts in the `groups` of `schedule.group_bursts`.

    `offset`, `step` per claim element; `row_offset` per place (-1: no bytes before cycle 0); `base`, `width`, `count` of the result of each
    computing burst; `first_tap` its first tap element; `leaf` the claim element (or -1 - place) that each claim element's bytes come from.
    `fused`: ADD bursts that only join partial results of fp16 passes (MX-8); `parts`: partial results are needed apart.
    `total` offset of the rounded sum of each fp16 pass, by its even ACC burst. `size` bytes of the arena, of which `bound` hold rows.
    """

    groups: list[Array]
    offset: Array
    step: Array
    leaf: Array
    row_offset: Array
    base: Array
    width: Array
    count: Array
    first_tap: Array
    fused: Array
    parts: bool
    total: Array
    bound: int
    size: int
    allocation_base: dict[tuple[int, int], int] = field(default_factory=dict)


def first_taps(a: Analysis) -> Array:
    """Number of the first tap element of each burst."""
    taps = a.flat.taps
    result = np.zeros(a.flat.size, np.int64)
    result[taps.burst[::-1]] = taps.first[::-1]
    return result


def resolve_leaves(a: Analysis, first_tap: Array) -> Array:
    """Follow every claim element to the one that computed its bytes, or to a row bound before cycle 0."""
    flat, claims, source = a.flat, a.flat.claims, a.feeds.source
    feed = np.append(source, UNDEFINED)
    feed[feed == -1] = UNDEFINED
    following = np.arange(claims.total, dtype=np.int64)
    code = flat.b["opcode"]
    element_code = code[claims.burst][a.feeds.claim_of]
    read = np.flatnonzero((element_code == Opcode.READ) & ~a.memory.dynamic[claims.burst][a.feeds.claim_of])
    link = a.memory.link[read]
    following[read] = np.where(link >= 0, feed[np.where(link >= 0, link, -1)], link)
    moving = (code == Opcode.IDENTITY) | ((code == Opcode.TRANSPOSE) & (flat.b["null"] == 1))
    through = np.flatnonzero(moving[claims.burst])
    owner, k = expand((claims.n * claims.n2)[through])
    owner = through[owner]
    burst = claims.burst[owner]
    following[claims.first[owner] + k] = feed[first_tap[burst] + claims.plane[owner] * flat.count[burst] + k]
    _links(a, first_tap, feed, following)
    loose = np.flatnonzero(following != np.arange(claims.total))
    while len(loose):
        ahead = following[loose]
        inside = ahead >= 0
        loose, ahead = loose[inside], ahead[inside]
        further = following[ahead]
        changed = further != ahead
        following[loose[changed]] = further[changed]
        loose = loose[changed]
    return following


def _links(a: Analysis, first_tap: Array, feed: Array, following: Array) -> None:
    """Receive elements take what their Send took."""
    claims = a.flat.claims
    sent = feed[first_tap[a.sends >> 32] + (a.sends & 0xFFFFFFFF)]
    order = np.argsort(a.receives, kind="stable")
    keys = a.receives[order]
    rows = np.flatnonzero(a.flat.b["opcode"][claims.burst] == Opcode.RECEIVE)
    owner, k = expand((claims.n * claims.n2)[rows])
    owner = rows[owner]
    wanted = claims.burst[owner] * (1 << 32) + k
    at = np.minimum(np.searchsorted(keys, wanted), max(len(keys) - 1, 0))
    found = keys[at] == wanted if len(keys) else np.zeros(len(wanted), bool)
    following[claims.first[owner] + k] = UNDEFINED
    following[(claims.first[owner] + k)[found]] = sent[order[at[found]]]


def result_shape(a: Analysis) -> tuple[Array, Array]:
    """(count, width) of the result of each burst: elements that leave, and byte planes."""
    b = a.flat.b
    code = b["opcode"]
    count = np.where(a.computing, a.flat.count, 0)
    reduce = np.isin(code, ACC_CODES)
    count[reduce] = np.where(b["last"][reduce] == 1, b["n2"][reduce], 0)
    count[np.isin(code, (Opcode.WRITE, Opcode.SCATTER))] = 0
    width = _WIDTH[result_dtype(b)]
    width[code == Opcode.ACC] = 4
    width[code == Opcode.TRANSPOSE] = 16
    distribute = code == Opcode.DISTRIBUTE
    width[distribute] = np.where(b["lowest"][distribute] == 1, 4, 8)
    return count, width


def place_values(a: Analysis) -> Values:
    """Lay out the arena and point every claim element at its bytes."""
    flat, vector = a.flat, a.machine.vector
    first_tap = first_taps(a)
    leaf = resolve_leaves(a, first_tap)
    joins = find_joins(a, leaf, first_tap)
    groups = group_bursts(a)
    row_offset, bound, allocation_base = _bound_rows(a)
    count, width = result_shape(a)
    sizes = np.where(joins.whole, 0, count * width * vector)
    halves = a.passes.acc[paired_passes(a)]
    if not joins.parts:
        sizes[halves] = 0
    even = halves[(flat.b["unit"][halves] - isa.MXM_BASE) // 3 % 2 == 0]
    sums = np.zeros(flat.size, np.int64)
    sums[even] = np.where(flat.b["emit"][even] == 1, flat.count[even] * 4 * vector, 0)
    base, total, end = place(groups, sizes, sums, *last_uses(a, groups, leaf, joins), bound)
    offset, step = _pointers(a, leaf, base, width, row_offset, joins, total)
    return Values(
        groups=groups, offset=offset, step=step, leaf=leaf, row_offset=row_offset, base=base, width=width, count=count,
        first_tap=first_tap, fused=joins.whole, parts=joins.parts, total=total, bound=bound, size=end, allocation_base=allocation_base,
    )  # fmt: skip


def _bound_rows(a: Analysis) -> tuple[Array, int, dict[tuple[int, int], int]]:
    flat = a.flat
    alloc = {name: np.asarray(column, np.int64) for name, column in a.program.tables["allocations"].items()}
    owner, unit = allocation_slices(alloc)
    places = first_place(flat, alloc, owner, unit)
    row_offset = np.full(flat.places, -1, np.int64)
    slots = set(np.unique((flat.b["alloc"] * isa.QUEUES + flat.b["unit"])[a.memory.dynamic]).tolist())
    bound = 0
    bases: dict[tuple[int, int], int] = {}
    vector = a.machine.vector
    for index, first, u in zip(owner.tolist(), places.tolist(), unit.tolist(), strict=True):
        if alloc["kind"][index] <= Kind.STATE or index * isa.QUEUES + u in slots:
            rows = int(alloc["rows"][index])
            bases[index, u] = bound
            row_offset[first : first + rows] = bound + np.arange(rows) * vector
            bound += rows * vector
    return row_offset, -(-bound // _ALIGN) * _ALIGN, bases


def _pointers(a: Analysis, leaf: Array, base: Array, width: Array, row_offset: Array, joins: Joins, total: Array) -> tuple[Array, Array]:
    flat, claims, vector = a.flat, a.flat.claims, a.machine.vector
    burst = claims.burst
    interleaved = np.isin(flat.b["opcode"], ALU_CODES) | (flat.b["opcode"] == Opcode.ACC)
    stride = width[burst] * vector
    first = np.where(base[burst] >= 0, base[burst] + claims.plane * np.where(interleaved[burst], 1, vector), -1)
    of = a.feeds.claim_of
    k = np.arange(claims.total) - claims.first[of]
    own = np.where(first[of] >= 0, first[of] + k * stride[of], -1)
    added = np.flatnonzero(joins.whole[burst][of])
    sums = joins.first[burst[of[added]]] + k[added]
    own[added] = total[joins.head[sums]] + joins.k[sums] * 4 * vector + claims.plane[of[added]]
    own_step = np.where(interleaved[burst], width[burst], 1)[of]
    computed = leaf >= 0
    at = np.where(computed, leaf, 0)
    offset, step = own[at] if claims.total else own, own_step[at] if claims.total else own_step
    rows = (leaf < 0) & (leaf > UNDEFINED)
    offset[~computed] = -1
    offset[rows] = row_offset[-1 - leaf[rows]]
    step[~computed] = 1
    return offset, step
