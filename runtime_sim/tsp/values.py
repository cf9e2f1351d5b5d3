"""Where every value's bytes are: one arena for the rows of the store and, behind them, for the computed results of one block at a time.

Moving data (Read, Write, Send, Receive, IDENTITY, a copying transposer) is resolved here to pointers, once per layout; only what
computes has bytes of its own. A pointer is (offset, step): lane l of the byte is `arena[offset + l step]`; offset -1 reads as zero.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from ...machines.tsp import isa
from ...machines.tsp.isa import DType, Opcode
from . import pointers
from .chains import chain_kinds, find_runs
from .flatten import ACC_CODES, ALU_CODES, ROLE_A, ROLE_B, among, expand, result_dtype, tap_widths
from .joins import Joins, find_joins, paired_passes
from .layout import Array
from .legality import Analysis
from .memory import UNDEFINED
from .planes import plane_of
from .schedule import HALF, group_bursts, last_uses, pass_kind, place, stored_sums, sums_after, sums_before

if TYPE_CHECKING:
    from .evaluate import Evaluation
    from .layout import Block

_WIDTH = np.array([isa.WIDTH[DType(d)] for d in range(len(DType))], np.int64)


@dataclass
class Values:
    """Pointers of one layout, and its computing bursts in the `groups` of `schedule.group_bursts`.

    `offset`, `step` per claim element; elements `outer` are bytes of rows of the pairs `outer_pair`, `outer_byte` from the pair's row 0,
    which `point` fills in for a block. Behind the claim elements are rows `old` of weight buffers (local plane * 320 + row) as they were
    before the block, and last no element at all.
    `installed` [IW events, 320]: the one that each event installs. `base`, `width`, `count` of the result of each computing burst;
    `width_a`, `width_b` streams of its operands; `leaf` the claim element (or -1 - place) that each claim element's bytes come from. Of ACC
    bursts: `kind` (`schedule.pass_kind`), `pass_of` the pass (-1 none), and from `add_first` on in `add_source` the accumulator element
    that each of its elements adds; `before`, `after`: passes that are summed as one (`schedule.sums_before`). `fused`: ADD bursts that only
    join partial results of fp16 passes (MX-8); `parts`: partial results are needed apart. `total`: offset of the rounded sum of each fp16
    pass, by its even ACC burst; `stored`: of the entries that other passes add. `size`: end of the results. `chained`: what ALU
    bursts are to `chains.py` (`chains.chain_kinds`); `runs`: last group of each run by its first. `steps` by `exact`: what computes a
    block, made when the first one is computed.
    """

    groups: list[Array]
    offset: Array
    step: Array
    leaf: Array
    outer: Array
    outer_pair: Array
    outer_byte: Array
    installed: Array
    old: Array
    base: Array
    width: Array
    count: Array
    width_a: Array
    width_b: Array
    kind: Array
    pass_of: Array
    add_first: Array
    add_source: Array
    before: Array
    after: Array
    fused: Array
    parts: bool
    total: Array
    stored: Array
    size: int
    chained: Array
    runs: dict[int, int]
    steps: dict[bool, list[Callable[[Evaluation], None]]] = field(default_factory=dict)
    pointed: Block | None = None

    @cached_property
    def pair(self) -> Array:
        """The pair of each claim element and what is behind them; -1 of those that are no bytes of one as it was before the block."""
        result = np.full(len(self.offset), -1, np.int64)
        result[self.outer] = self.outer_pair
        return result

    def move(self, by: int, lanes: int) -> None:
        """Put the results `by` bytes further on; none may lie beyond their end."""
        last = (self.offset + (lanes - 1) * self.step).max(where=self.offset >= 0, initial=-1)
        assert last < max(self.size, 1), "a result lies outside the arena"
        for at in (self.offset, self.base, self.total, self.stored):
            np.add(at, by, out=at, where=at >= 0)

    def point(self, block: Block, pairs: Array, buffers: Array) -> None:
        """Fill in where the pairs of a block and its rows `old` lie."""
        if self.pointed is not block:
            pointers.point(self.outer, self.outer_pair, self.outer_byte, pairs, self.offset)
            self.offset[len(self.offset) - 1 - len(self.old) : -1] = buffers
            self.pointed = block


def resolve_leaves(a: Analysis) -> Array:
    """Follow every claim element to the one that computed its bytes, or to a row as it was before the block."""
    flat, claims, source = a.flat, a.flat.claims, a.feeds.source
    code = flat.b["opcode"]
    how = np.full(flat.size, pointers.KEPT, np.int8)
    how[(code == Opcode.READ) & ~a.memory.dynamic] = pointers.READ
    how[(code == Opcode.IDENTITY) | ((code == Opcode.TRANSPOSE) & (flat.b["null"] == 1))] = pointers.MOVED
    following = np.empty(claims.total, np.int64)
    pointers.first_step(
        claims.first, claims.n * claims.n2, claims.burst, claims.plane, how, flat.first_tap, flat.count, a.memory.link, source, UNDEFINED,
        following,
    )  # fmt: skip
    _links(a, following)
    pointers.follow(following)
    return following


def _links(a: Analysis, following: Array) -> None:
    """Receive elements take what their Send took."""
    claims = a.flat.claims
    sent = a.feeds.source[a.flat.first_tap[a.sends >> 32] + (a.sends & 0xFFFFFFFF)]
    sent[sent < 0] = UNDEFINED
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
    reduce = among(code, ACC_CODES)
    count[reduce] = np.where(b["last"][reduce] == 1, b["n2"][reduce], 0)
    count[among(code, (Opcode.WRITE, Opcode.SCATTER)) | (code == Opcode.ACC) & (b["emit"] == 0)] = 0
    width = _WIDTH[result_dtype(b)]
    width[code == Opcode.ACC] = 4
    width[code == Opcode.TRANSPOSE] = 16
    distribute = code == Opcode.DISTRIBUTE
    width[distribute] = np.where(b["lowest"][distribute] == 1, 4, 8)
    return count, width


def place_values(a: Analysis) -> Values:
    """Lay out the results from byte 0 on, and point every claim element at its bytes."""
    flat, vector = a.flat, a.machine.vector
    leaf = resolve_leaves(a)
    joins = find_joins(a, leaf)
    groups = group_bursts(a)
    count, width = result_shape(a)
    sizes = np.where(joins.whole, 0, count * width * vector)
    halves = a.passes.acc[paired_passes(a)]
    if not joins.parts:
        sizes[halves] = 0
    even = halves[(flat.b["unit"][halves] - isa.MXM_BASE) // 3 % 2 == 0]
    sums = np.zeros(flat.size, np.int64)
    sums[even] = np.where(flat.b["emit"][even] == 1, flat.count[even] * 4 * vector, 0)
    kind, before = pass_kind(a), sums_before(a)
    after = sums_after(before)
    kept = np.where(stored_sums(a) & ((after < 0) | (kind == HALF)), flat.count * 4 * vector, 0)
    chained = chain_kinds(flat.b)
    runs = find_runs(groups, chained, joins.whole)
    ends, group = np.arange(len(groups)), np.zeros(flat.size, np.int64)
    for number, rows in enumerate(groups):
        group[rows] = number
    for number, until in runs:
        ends[number : until + 1] = until
    last = last_uses(a, groups, leaf, joins, before)
    if len(groups):
        sizes[(chained >= 0) & (last[0] <= ends[group])] = 0
    (base, total, stored), end = place(groups, (sizes, sums, kept), last, ends)
    installed, old = _installed(a)
    leaf = np.append(leaf, np.full(len(old) + 1, UNDEFINED))
    offset, step = _pointers(a, leaf, base, width, joins, total)
    passes = a.passes
    pass_of = np.full(flat.size, -1, np.int64)
    with_acc = np.flatnonzero(passes.acc >= 0)
    pass_of[passes.acc[with_acc]] = with_acc
    sort, add_first = passes.by_burst(flat)
    add_source = passes.acc_source[sort]
    outer = np.flatnonzero((leaf < 0) & (leaf > UNDEFINED))
    outer_pair, outer_row = flat.within(-1 - leaf[outer])
    return Values(
        groups=groups, offset=offset, step=step, leaf=leaf, outer=outer, outer_pair=outer_pair, outer_byte=outer_row * vector,
        installed=installed, old=old, base=base, width=width, count=count, width_a=tap_widths(flat.b, ROLE_A),
        width_b=tap_widths(flat.b, ROLE_B), kind=kind, pass_of=pass_of, add_first=add_first, add_source=add_source, before=before,
        after=after, fused=joins.whole, parts=joins.parts, total=total, stored=stored, size=end, chained=chained, runs=dict(runs),
    )  # fmt: skip


def _pointers(a: Analysis, leaf: Array, base: Array, width: Array, joins: Joins, total: Array) -> tuple[Array, Array]:
    flat, claims = a.flat, a.flat.claims
    interleaved = among(flat.b["opcode"], ALU_CODES) | (flat.b["opcode"] == Opcode.ACC)
    offset, step = np.empty((2, len(leaf)), np.int64)
    pointers.addresses(
        leaf, a.feeds.claim_of, claims.first, claims.burst, claims.plane, base, width, interleaved, joins.whole, joins.first, joins.head,
        joins.k, total, a.machine.vector, offset, step,
    )  # fmt: skip
    return offset, step


def _installed(a: Analysis) -> tuple[Array, Array]:
    """(what every IW event installs in each row, as claim elements; rows of weight buffers that it takes as they were before the block).

    The latter, local plane * 320 + row, are numbered from the number of claim elements on.
    """
    passes, vector = a.passes, a.machine.vector
    result: Array = a.feeds.source[np.maximum(passes.content, 0)] if a.feeds.source.size else np.full(passes.content.shape, -1, np.int64)
    event, row = np.nonzero(passes.content < 0)
    old, number = np.unique(plane_of(a.flat, passes.iw_burst)[event] * vector + row, return_inverse=True)
    result[event, row] = a.flat.claims.total + number
    return result, old
