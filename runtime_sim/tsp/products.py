"""Matrix passes (docs/tsp-model.md section 3): what every plane multiplies, adds and emits.

An fp16 pass is one float32 product. Where an ADD joins the two partial results of every pass it is taken with whole weights (MX-8); `exact`
takes both parts in double and rounds once instead. int8 passes of one group are one call of a kernel, exact in any order.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from ...machines.tsp import isa
from ...machines.tsp.isa import HALF_BOTH
from ..threads import each, slices
from . import kernels
from .arena import Arena
from .flatten import expand
from .layout import Array
from .schedule import HALF

if TYPE_CHECKING:
    from .evaluate import Evaluation

_LANES_HALF = 160
_TILES = 4
"""Tiles of one product: its weights stay below 2 MB."""
_THREADED = 256
"""Vectors of a group from which on its passes are shared by threads."""


class Selections:
    """Tiles of constants that only move lanes, found once a run: `lane`, `factor` [number, 320] as `kernels.selection` gives them.

    `data` is the arena as int8.
    """

    def __init__(self, arena: Arena) -> None:
        self.arena, self.data = arena, arena.memory.view(np.int8)
        vector = arena.rows.shape[1]
        self.known: dict[bytes, int] = {}
        self.size = 0
        self.lane, self.factor = np.empty((16, vector), np.int64), np.empty((16, vector), np.int32)

    def numbers(self, offset: Array, step: Array) -> Array:
        """Number of each of some tiles [tiles, 320], -1 for those that do more than move lanes or may change."""
        result = np.full(len(offset), -1, np.int64)
        for q in np.flatnonzero(self.arena.constant(offset).all(axis=1)).tolist():
            key = offset[q].tobytes()
            if key not in self.known:
                self.known[key] = self._add(offset[q], step[q])
            result[q] = self.known[key]
        return result

    def _add(self, offset: Array, step: Array) -> int:
        if self.size == len(self.lane):
            self.lane, self.factor = np.concatenate([self.lane, self.lane]), np.concatenate([self.factor, self.factor])
        if not kernels.selection(self.data, offset, step, self.lane[self.size], self.factor[self.size]):
            return -1
        self.size += 1
        return self.size - 1


class Products:
    """The planes of one block in one run. `parts`: partial results are computed apart."""

    def __init__(self, e: Evaluation) -> None:
        self.e, self.a, self.v, self.arena, self.vector = e, e.a, e.v, e.arena, e.vector
        self.parts = e.v.parts or e.exact
        self.activations: dict[bytes, Array] = {}

    def run(self, rows: Array) -> None:
        """ACC bursts of one kind (`schedule.pass_kind`); the odd burst of an fp16 pair is done with the even one."""
        kind = int(self.v.kind[rows[0]])
        if kind == HALF:
            self.activations.clear()
            evens = rows[(self.a.flat.b["unit"][rows] - isa.MXM_BASE) // 3 % 2 == 0]
            evens = evens[self.a.passes.partner[self.v.pass_of[evens]] >= 0]
            if self.parts:
                for row in evens.tolist():
                    self._apart(row)
            else:
                self._half_passes(evens[self.v.after[evens] < 0])
        elif kind:
            self._byte_passes(rows, kind)

    # fp16 ----------------------------------------------------------------------------------------------------------------
    def _half(self, offset: Array, step: Array, out: Array) -> Array:
        """fp16 operands of two byte planes as float32."""
        kernels.fetch_half(self.arena, np.ascontiguousarray(offset), np.ascontiguousarray(step), out.view(np.uint32), out)
        return out

    def _activation(self, k: int) -> tuple[bytes, int]:
        """(which vectors, which half) an fp16 pass takes; passes of one group that take the same ones share them in `activations`."""
        abc = int(self.a.passes.abc[k])
        offset, step = self.e.pointers(np.array([abc]), 0, 2)
        key = offset.tobytes() + step.tobytes()
        if key not in self.activations:
            self.activations[key] = self._half(offset, step, np.empty((offset.shape[1], self.vector), np.float32))
        return key, int(self.a.flat.b["half"][abc])

    def _vectors(self, activation: tuple[bytes, int]) -> tuple[Array, slice]:
        """(vectors [count, lanes], their lanes)."""
        key, half = activation
        lanes = slice(None) if half == HALF_BOTH else slice(half * _LANES_HALF, (half + 1) * _LANES_HALF)
        return self.activations[key][:, lanes], lanes

    def _tiles(self, iws: Array) -> tuple[Array, Array]:
        """(offset, step) [len(iws), 320] of the rows of installed arrays."""
        passes, place = self.a.passes, self.e.place
        content = passes.content[iws]
        offset, step = self.e.at(np.maximum(content, 0))
        old = np.nonzero(content < 0)
        if len(old[0]):
            plane = self.v.iw_plane[iws[old[0]]]
            first = place.buffers + (place.block.chips[plane // 4] * 4 + plane % 4) * self.vector
            offset[old], step[old] = place.arena.offset(first + old[1]), 1
        return offset, step

    def _weights(self, k: Array) -> Array:
        """The whole arrays of fp16 passes as float32 [320 passes, 320]."""
        passes = self.a.passes
        offset, step = self._tiles(np.concatenate([passes.iw[k], passes.iw[passes.partner[k]]]))
        rows = len(k) * self.vector
        return self._half(offset.reshape(2, rows), step.reshape(2, rows), np.empty((rows, self.vector), np.float32))

    def _part(self, k: int, high: bool) -> Array:
        """The array of fp16 pass k of which only the high byte, or the rest, counts (MX-8)."""
        passes = self.a.passes
        offset, step = self._tiles(np.array([passes.iw[k], passes.iw[passes.partner[k]]]))
        offset[0] = -1
        part = self._half(offset, step, np.empty((self.vector, self.vector), np.float32))
        return part if high else self._weights(np.array([k])) - part

    def _sums(self, row: int, base: Array) -> Array:
        """The slot of a burst's sums [elements, 320] as float32."""
        start, size = int(base[row]), int(self.a.flat.count[row]) * self.vector
        return self.arena[start : start + size * 4].view(np.float32).reshape(-1, self.vector)

    def _before(self, rows: Array, out: Array) -> Array:
        """What ACC bursts add, into `out` [elements, 320] of 4 bytes each."""
        flat, passes, v = self.a.flat, self.a.passes, self.v
        owner, k = expand(flat.count[rows])
        source = v.add_source[v.add_first[rows][owner] + k]
        at = np.where(source >= 0, v.stored[passes.acc_row[source]] + passes.acc_k[source] * 4 * self.vector, -1)
        kernels.rows_of(self.arena, at, out.view(np.uint8))
        return out

    def _half_passes(self, rows: Array) -> None:
        """fp16 passes of plane pairs by the even ACC bursts of the last that are summed: those of equal vectors are one product."""
        alike: dict[tuple[tuple[bytes, int], ...], list[list[int]]] = {}
        for row in rows.tolist():
            chain = [row]
            while self.v.before[chain[0]] >= 0:
                chain.insert(0, int(self.v.before[chain[0]]))
            key = tuple(self._activation(int(self.v.pass_of[one])) for one in chain)
            alike.setdefault(key, []).append(chain)
        each(
            lambda job: self._product(job[0], np.array(job[1])),
            [(vectors, chains[low : low + _TILES]) for vectors, chains in alike.items() for low in range(0, len(chains), _TILES)],
        )

    def _product(self, vectors: tuple[tuple[bytes, int], ...], chains: Array) -> None:
        """Passes chains[tile, p] over vectors[p], summed over p with rounded entries (MX-9)."""
        b, v = self.a.flat.b, self.v
        shape = int(self.a.flat.count[chains[0, 0]]), len(chains) * self.vector
        out = np.empty(shape, np.float32)
        more = np.empty(shape, np.float32) if len(vectors) > 1 else out
        for p, activation in enumerate(vectors):
            x, lanes = self._vectors(activation)
            np.matmul(x, self._weights(v.pass_of[chains[:, p]])[:, lanes].T, out=more if p else out)
            if p:
                out += more
                continue
            for number, row in enumerate(chains[:, 0].tolist()):
                if b["add"][row]:
                    before = self._before(np.array([row]), np.empty((shape[0], self.vector), np.float32))
                    out[:, number * self.vector : (number + 1) * self.vector] += before
        for number, row in enumerate(chains[:, -1].tolist()):
            for base in (v.total, v.stored):
                if base[row] >= 0:
                    self._sums(row, base)[...] = out[:, number * self.vector : (number + 1) * self.vector]

    def _apart(self, row: int) -> None:
        """The parts of an fp16 pass in double: entries are rounded when stored, the joined sum once (MX-8, MX-9);
        `row` is its even ACC burst."""
        b, v, passes = self.a.flat.b, self.v, self.a.passes
        k = int(v.pass_of[row])
        odd = int(passes.acc[passes.partner[k]])
        x, lanes = self._vectors(self._activation(k))
        wide = x.astype(np.float64)
        joined = np.zeros((len(x), self.vector))
        for acc, high in ((row, False), (odd, True)):
            if acc < 0:
                continue
            result = wide @ self._part(k, high)[:, lanes].T.astype(np.float64)
            if b["add"][acc]:
                result += self._before(np.array([acc]), np.empty((len(x), self.vector), np.float32))
            if v.stored[acc] >= 0:
                self._sums(acc, v.stored)[...] = result
            if v.base[acc] >= 0:
                self._sums(acc, v.base)[...] = result
            joined += result
        if v.total[row] >= 0:
            self._sums(row, v.total)[...] = joined

    # int8 ----------------------------------------------------------------------------------------------------------------
    def _byte_passes(self, rows: Array, kind: int) -> None:
        """int8 passes: entries wrap at 2^31 (MX-6)."""
        flat, passes, v = self.a.flat, self.a.passes, self.v
        stores, emits = bool(kind & 4), bool(kind & 8)
        slots = [
            self.e.slot(rows, np.int32, int(flat.count[rows].sum()), base) for base, used in ((v.stored, stores), (v.base, emits)) if used
        ]
        if not slots:
            return
        out = slots[0]
        if kind & 2:
            self._before(rows, out)
        else:
            out[...] = 0
        k = v.pass_of[rows]
        count = flat.count[rows]
        first = np.cumsum(count) - count
        offset, step = self.e.pointers(passes.abc[k], 0, 1)
        iws, tile = np.unique(passes.iw[k], return_inverse=True)
        tiles = self._tiles(iws)
        dense = np.ones(len(rows), np.uint8)
        if not self.e.exact:
            dense[:] = 0
            chosen = self.e.place.selections
            picks = chosen.numbers(*tiles)

            def compute(some: slice) -> None:
                kernels.byte_passes(
                    chosen.data, offset[0], step[0], first[some], count[some], tile[some], *tiles, picks, chosen.lane, chosen.factor,
                    np.empty(self.vector, np.int8), out, dense[some],
                )  # fmt: skip

            each(compute, slices(count.tolist()) if len(out) >= _THREADED else [slice(None)])
        for p in np.flatnonzero(dense).tolist():
            mine = slice(int(first[p]), int(first[p] + count[p]))
            x = self.e.take(offset[:, mine], step[:, mine], np.int8).astype(np.float32)
            weights = self.e.take(tiles[0][tile[p]][None], tiles[1][tile[p]][None], np.int8).astype(np.float32)
            out[mine] += (x @ weights.T).astype(np.int32)
        for other in slots[1:]:
            other[...] = out
