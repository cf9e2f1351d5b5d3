"""int8 passes (docs/tsp-model.md MX-6): entries wrap at 2^31, so that any order of summing is exact.

Passes that are summed as one and whose sums nobody else sees are one chain, computed where its last pass is.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from ..threads import THREADS, each
from . import lanes
from .arena import Arena
from .flatten import expand
from .layout import Array

if TYPE_CHECKING:
    from .products import Products

_THREADED = 256
"""Vectors of a group from which on its passes are shared by threads."""
_RUNS = 40
"""Runs of neighbouring lanes up to which a tile that moves lanes is taken run by run."""


class Selections:
    """Tiles of constants that only move lanes, found once a run: `lane`, `factor` [number, 320], `runs` [number, runs, 4] and their
    `counts` as `lanes.selection` gives them. `data` is the arena as int8.
    """

    def __init__(self, arena: Arena) -> None:
        self.arena, self.data = arena, arena.memory.view(np.int8)
        vector = arena.rows.shape[1]
        self.known: dict[bytes, int] = {}
        self.recent: dict[int, tuple[Array, Array]] = {}
        self.size = 0
        self.lane, self.factor, self.runs, self.counts = (
            np.empty((16, *shape), np.int32) for shape in ((vector,), (vector,), (_RUNS, 4), ())
        )  # fmt: skip

    def of(self, group: ByteGroup, offset: Array) -> Array:
        """`numbers` of the tiles of a group, which mostly lie where they lay in the block before."""
        before, result = self.recent.get(id(group), (None, None))
        if before is None or result is None or not np.array_equal(before, offset):
            result = self.numbers(offset, group.tiles[1])
            self.recent[id(group)] = offset, result
        return result

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
    vector[p] on and the tile tile[p]. `vectors`, `tiles` [tiles, 320]: claim elements and steps of all vectors and tiles. `before`: where
    lies what the first passes add (-1: nothing), empty where none adds. `shares`: (chain, from, to) of the vectors that each thread takes.
    """

    first: Array
    count: Array
    starts: Array
    vector: Array
    tile: Array
    vectors: tuple[Array, Array]
    tiles: tuple[Array, Array]
    before: Array
    shares: list[tuple[Array, Array, Array]]


class BytePasses:
    """The int8 passes of one block in one run."""

    def __init__(self, products: Products) -> None:
        self.p, self.e, self.a, self.v = products, products.e, products.a, products.v

    def run(self, rows: Array, kind: int) -> None:
        """Chains by the ACC bursts of their last passes, all of one `kind` (`schedule.pass_kind`)."""
        v, stores, emits = self.v, bool(kind & 4), bool(kind & 8)
        if not len(rows) or not (stores or emits):
            return
        head = int(rows[0])
        if head not in v.bytes:
            v.bytes[head] = self._group(rows)
        g = v.bytes[head]
        slots = [self.e.slot(rows, np.int32, int(g.count.sum()), base) for base, used in ((v.stored, stores), (v.base, emits)) if used]
        out = slots[0]
        if len(g.before):
            lanes.rows_of(self.e.arena, g.before, out.view(np.uint8))
        offset, tile_offset = self.e.offset[g.vectors[0]], self.e.offset[g.tiles[0]]
        if self.e.exact:
            if not len(g.before):
                out[...] = 0
            dense = np.ones(len(offset), np.uint8)
        else:
            dense = self._light(g, offset, tile_offset, out)
        if dense.any():
            each(lambda c: self._dense(g, c, offset, tile_offset, dense, out), range(len(g.first)))
        for other in slots[1:]:
            other[...] = out

    def _light(self, g: ByteGroup, offset: Array, tile_offset: Array, out: Array) -> Array:
        """Compute what needs no product; returns which vectors are left."""
        chosen = self.e.place.selections
        dense = np.zeros(len(offset), np.uint8)
        picks = chosen.of(g, tile_offset)

        def compute(share: tuple[Array, Array, Array]) -> None:
            lanes.byte_passes(
                chosen.data, offset, g.vectors[1], tile_offset, g.tiles[1], picks, chosen.lane, chosen.factor, chosen.runs, chosen.counts,
                *share, not len(g.before), g.first, g.count, g.starts, g.vector, g.tile, out, dense,
            )  # fmt: skip

        each(compute, g.shares)
        return dense

    def _dense(self, g: ByteGroup, c: int, offset: Array, tile_offset: Array, dense: Array, out: Array) -> None:
        """Multiply out the dense vectors of chain c."""
        data, vector = self.e.place.selections.data, self.e.vector
        for p in range(int(g.starts[c]), int(g.starts[c + 1])):
            m = np.flatnonzero(dense[g.vector[p] : g.vector[p] + g.count[c]])
            if not len(m):
                continue
            x, weights = np.empty((len(m), vector), np.float32), np.empty((vector, vector), np.float32)
            lanes.bytes_as_floats(data, offset[g.vector[p] + m], g.vectors[1][g.vector[p] + m], x)
            lanes.bytes_as_floats(data, tile_offset[g.tile[p]], g.tiles[1][g.tile[p]], weights)
            out[g.first[c] + m] += (x @ weights.T).astype(np.int32)

    def _group(self, rows: Array) -> ByteGroup:
        flat, passes, v = self.a.flat, self.a.passes, self.v
        chains = [self.p.chain(row) for row in rows.tolist()]
        k = v.pass_of[[row for chain in chains for row in chain]]
        starts = np.cumsum([0, *(len(chain) for chain in chains)])
        count = flat.count[rows]
        sizes = flat.count[passes.abc[k]]
        iws, tile = np.unique(passes.iw[k], return_inverse=True)
        source, tiles = self.e.sources(passes.abc[k], 0, 1)[0], v.installed[iws]
        heads = np.array([chain[0] for chain in chains])
        return ByteGroup(
            np.cumsum(count) - count, count, starts, np.cumsum(sizes) - sizes, tile, (source, v.step[source]), (tiles, v.step[tiles]),
            self.p.before(heads) if flat.b["add"][heads].any() else np.zeros(0, np.int64), _shares(count, np.diff(starts)),
        )  # fmt: skip


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
