"""int8 passes (docs/tsp-model.md MX-6): entries wrap at 2^31, so that any order of summing is exact.

Passes that are summed as one and whose sums nobody else sees are one chain, computed where its last pass is.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from ..threads import THREADS, each
from . import lanes, products
from .arena import Arena
from .flatten import expand
from .layout import Array

if TYPE_CHECKING:
    from .evaluate import Evaluation

_THREADED = 256
"""Vectors of a group from which on its passes are shared by threads."""
_RUNS = 40
"""Runs of neighbouring lanes up to which a tile that moves lanes is taken run by run."""


class Selections:
    """Tiles of constants that only move lanes: `lane`, `factor` [number, 320], `runs` [number, runs, 4] and their `counts` as
    `lanes.selection` gives them. `data` is the arena as int8.
    """

    def __init__(self, arena: Arena) -> None:
        self.arena, self.data = arena, arena.memory.view(np.int8)
        vector = arena.rows.shape[1]
        self.known: dict[bytes, int] = {}
        self.groups: dict[tuple[int, bytes], Array] = {}
        self.size = 0
        self.lane, self.factor, self.runs, self.counts = (
            np.empty((16, *shape), np.int32) for shape in ((vector,), (vector,), (_RUNS, 4), ())
        )  # fmt: skip

    def of(self, group: ByteGroup, e: Evaluation) -> Array:
        """`numbers` of the tiles of a group. Where they lie follows from where the block's pairs do that hold them."""
        key = id(group), e.place.pairs[group.pairs].tobytes()
        if key not in self.groups:
            self.groups[key] = self.numbers(e.offset[group.tiles], e.v.step[group.tiles])
        return self.groups[key]

    def numbers(self, offset: Array, step: Array) -> Array:
        """Number of each of some tiles [tiles, 320], -1 for those that do more than move lanes or may change."""
        result = np.full(len(offset), -1, np.int64)
        for q in np.flatnonzero(self.arena.constant(offset).all(axis=1)).tolist():
            key = offset[q].tobytes() + step[q].tobytes()
            if key not in self.known:
                self.known[key] = self._add(offset[q], step[q])
            result[q] = self.known[key]
        return result

    def _add(self, offset: Array, step: Array) -> int:
        if self.size == len(self.lane):
            self.lane, self.factor, self.runs, self.counts = (
                np.concatenate([table, table]) for table in (self.lane, self.factor, self.runs, self.counts)
            )
        at = self.size
        count = lanes.selection(self.data, offset, step, self.lane[at], self.factor[at], self.runs[at])
        if count < -1:
            return -1
        self.counts[at] = count
        self.size += 1
        return at


@dataclass(frozen=True)
class ByteGroup:
    """Chains of one group, found once per layout.

    Per chain `first` row of the result and `count` of vectors; chain c has the passes starts[c] to starts[c + 1], pass p the vectors from
    vector[p] on and the tile tile[p]. `vectors`, `tiles` [tiles, 320]: claim elements of all vectors and tiles, which lie in the `pairs` of
    a block or are computed in it. `before`: where lies what the first passes add (-1: nothing), empty where none adds. The sums go to
    each of `slots`. `shares`: (chain, from, to) of the vectors that each thread takes.
    """

    first: Array
    count: Array
    starts: Array
    vector: Array
    tile: Array
    vectors: Array
    tiles: Array
    pairs: Array
    before: Array
    slots: list[Array]
    shares: list[tuple[Array, Array, Array]]

    def run(self, e: Evaluation) -> None:
        """Compute all sums in the arena of a block."""
        out, *others = self.slots
        if len(self.before):
            lanes.rows_of(e.arena, self.before, out.view(np.uint8))
        elif e.exact:
            out[...] = 0
        dense = np.ones(len(self.vectors), np.uint8) if e.exact else self._light(e, out)
        if dense.any():
            each(lambda c: self._dense(e, c, dense, out), range(len(self.first)))
        for other in others:
            other[...] = out

    def _light(self, e: Evaluation, out: Array) -> Array:
        """Compute what needs no product; returns which vectors are left."""
        chosen = e.place.selections
        picks = chosen.of(self, e)
        dense = np.zeros(len(self.vectors), np.uint8)

        def compute(share: tuple[Array, Array, Array]) -> None:
            lanes.byte_passes(
                chosen.data, e.offset, e.v.step, picks, chosen.lane, chosen.factor, chosen.runs, chosen.counts, *share,
                not len(self.before), self.first, self.count, self.starts, self.vector, self.tile, self.vectors, self.tiles, out, dense,
            )  # fmt: skip

        each(compute, self.shares)
        return dense

    def _dense(self, e: Evaluation, c: int, dense: Array, out: Array) -> None:
        """Multiply out the dense vectors of chain c."""
        data = e.place.selections.data
        for p in range(int(self.starts[c]), int(self.starts[c + 1])):
            m = np.flatnonzero(dense[self.vector[p] : self.vector[p] + self.count[c]])
            if not len(m):
                continue
            x, weights = np.empty((len(m), e.vector), np.float32), np.empty((e.vector, e.vector), np.float32)
            lanes.bytes_as_floats(data, e.offset, e.v.step, self.vectors[self.vector[p] + m], x)
            lanes.bytes_as_floats(data, e.offset, e.v.step, self.tiles[self.tile[p]], weights)
            out[self.first[c] + m] += (x @ weights.T).astype(np.int32)


def plan(e: Evaluation, rows: Array, kind: int) -> list[Callable[[Evaluation], None]]:
    """What computes int8 ACC bursts of one `kind` (`schedule.pass_kind`): chains by their last passes."""
    v, stores, emits = e.v, bool(kind & 4), bool(kind & 8)
    rows = rows[v.after[rows] < 0]
    if not len(rows) or not (stores or emits):
        return []
    flat, passes = e.a.flat, e.a.passes
    chains = [products.chain(e, row) for row in rows.tolist()]
    k = v.pass_of[[row for chain in chains for row in chain]]
    starts = np.cumsum([0, *(len(chain) for chain in chains)])
    count, sizes = flat.count[rows], flat.count[passes.abc[k]]
    iws, tile = np.unique(passes.iw[k], return_inverse=True)
    tiles = v.installed[iws]
    heads = np.array([chain[0] for chain in chains])
    pairs = np.flatnonzero(np.bincount((1 + v.pair[tiles]).reshape(-1))) - 1
    before = products.before(e, heads) if flat.b["add"][heads].any() else np.zeros(0, np.int64)
    slots = [e.slot(rows, np.int32, int(count.sum()), base) for base, used in ((v.stored, stores), (v.base, emits)) if used]
    return [
        ByteGroup(
            np.cumsum(count) - count, count, starts, np.cumsum(sizes) - sizes, tile, e.sources(passes.abc[k], 0, 1)[0], tiles,
            pairs[pairs >= 0], before, slots, _shares(count, np.diff(starts)),
        ).run
    ]  # fmt: skip


def _shares(count: Array, passes: Array) -> list[tuple[Array, Array, Array]]:
    """Cuts chains of `count` vectors in `passes` into shares of about equal work, one a thread; a chain may be cut between vectors."""
    owner, m = expand(count)
    work = np.cumsum(passes[owner])
    parts = THREADS if len(owner) >= _THREADED else 1
    shares = []
    for one in np.split(np.arange(len(owner)), np.searchsorted(work, work[-1] * np.arange(1, parts) // parts)):
        if len(one):
            chain, begin = np.unique(owner[one], return_index=True)
            low = m[one[begin]]
            shares.append((chain, low, low + np.diff(np.append(begin, len(one)))))
    return shares
