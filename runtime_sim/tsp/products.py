"""Matrix passes (docs/tsp-model.md section 3): what every plane multiplies, adds and emits.

An fp16 pass is one float32 product. Where an ADD joins the two partial results of every pass it is taken with whole weights (MX-8); `exact`
takes both parts in double and rounds once instead. int8 passes are in `byte_passes.py`. Which vectors and weights a group of passes takes
is found once per layout; a block adds where they are.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from ...machines.tsp import isa
from ...machines.tsp.isa import HALF_BOTH
from ..threads import THREADS, each
from . import lanes
from .byte_passes import BytePasses
from .flatten import expand
from .layout import Array
from .schedule import HALF

if TYPE_CHECKING:
    from .evaluate import Evaluation

_LANES_HALF = 160
_WHOLE = 16
"""Passes of a group from which on a unit is a whole tile: fewer are cut in halves, so that threads get equal shares."""


@dataclass(frozen=True)
class Unit:
    """fp16 passes that are summed as one, for the rows `columns` of their arrays, which are columns of the result.

    `passes`: which vectors, which of their lanes, and the claim elements [2, rows] of the weights; `first, last`: even ACC bursts of the
    first and the last.
    """

    passes: list[tuple[int, slice, Array]]
    columns: slice
    first: int
    last: int


@dataclass(frozen=True)
class HalfGroup:
    """fp16 passes of one group: claim elements [2, count] of all different `vectors`, and the `jobs` that take them."""

    vectors: list[Array]
    jobs: list[list[Unit]]


class Products:
    """The planes of one block in one run. `parts`: partial results are computed apart."""

    def __init__(self, e: Evaluation) -> None:
        self.e, self.a, self.v, self.arena, self.vector = e, e.a, e.v, e.arena, e.vector
        self.parts = e.v.parts or e.exact
        self.bytes = BytePasses(self)

    def run(self, rows: Array) -> None:
        """ACC bursts of one kind (`schedule.pass_kind`); the odd burst of an fp16 pair is done with the even one."""
        kind = int(self.v.kind[rows[0]])
        if kind == HALF:
            evens = rows[(self.a.flat.b["unit"][rows] - isa.MXM_BASE) // 3 % 2 == 0]
            evens = evens[self.a.passes.partner[self.v.pass_of[evens]] >= 0]
            if self.parts:
                each(self._apart, evens.tolist())
            else:
                self._half_passes(evens[self.v.after[evens] < 0])
        elif kind:
            self.bytes.run(rows[self.v.after[rows] < 0], kind)

    def chain(self, row: int) -> list[int]:
        """ACC bursts of the passes that are summed as one, of which `row` is the last."""
        result = [row]
        while self.v.before[result[-1]] >= 0:
            result.append(int(self.v.before[result[-1]]))
        return result[::-1]

    def before(self, rows: Array) -> Array:
        """Offsets of what each element of ACC bursts adds, 320 of 4 bytes; -1 where it adds nothing."""
        flat, passes, v = self.a.flat, self.a.passes, self.v
        owner, k = expand(flat.count[rows])
        source = v.add_source[v.add_first[rows][owner] + k]
        result: Array = np.where(source >= 0, v.stored[passes.acc_row[source]] + passes.acc_k[source] * 4 * self.vector, -1)
        return result

    def _added(self, row: int) -> Array:
        """What an fp16 ACC burst adds [elements, 320]."""
        out = np.empty((int(self.a.flat.count[row]), self.vector), np.float32)
        lanes.rows_of(self.arena, self.before(np.array([row])), out.view(np.uint8))
        return out

    # fp16 ----------------------------------------------------------------------------------------------------------------
    def _half(self, source: Array, lane: int, out: Array) -> None:
        """Lanes from `lane` on of the fp16 operands `source` [2, rows], as many as `out` has, as float32."""
        lanes.fetch_half(self.arena, self.e.offset[source], self.v.step[source], lane, out.view(np.uint32), out)

    def _vectors(self, source: Array) -> Array:
        out = np.empty((source.shape[1], self.vector), np.float32)
        self._half(source, 0, out)
        return out

    def _weights(self, source: Array, part: slice, cut: bool, room: Array) -> Array:
        """Lanes `part` of the weights `source` [2, rows], in `room`; where `cut`, without the rows and lanes at the end that are zero."""
        rows, count = source.shape[1], part.stop - part.start
        tile = room[: rows * count].reshape(rows, count)
        self._half(source, part.start, tile)
        return tile if not cut else tile[tuple(slice(end) for end in lanes.used(tile.view(np.uint32)))]

    def _activation(self, k: int) -> tuple[Array, slice]:
        """(claim elements of the vectors of an fp16 pass, the lanes that it takes)."""
        abc = int(self.a.passes.abc[k])
        half = int(self.a.flat.b["half"][abc])
        part = slice(0, self.vector) if half == HALF_BOTH else slice(half * _LANES_HALF, (half + 1) * _LANES_HALF)
        return self.e.sources(np.array([abc]), 0, 2), part

    def _tile(self, k: int) -> Array:
        """Claim elements [2, 320] of the two arrays of an fp16 pass."""
        passes = self.a.passes
        return self.v.installed[[passes.iw[k], passes.iw[passes.partner[k]]]]

    def _sums(self, row: int, base: Array) -> Array:
        """The slot of a burst's sums [elements, 320] as float32."""
        start, size = int(base[row]), int(self.a.flat.count[row]) * self.vector
        return self.arena[start : start + size * 4].view(np.float32).reshape(-1, self.vector)

    def _half_group(self, rows: Array) -> HalfGroup:
        """fp16 passes of plane pairs by the even ACC bursts of the last that are summed; units over the same vectors follow each other."""
        v = self.v
        known: dict[bytes, int] = {}
        vectors: list[Array] = []
        alike: dict[tuple[tuple[int, int, int], ...], list[list[Unit]]] = {}
        needed = rows[(v.total[rows] >= 0) | (v.stored[rows] >= 0)]
        parts = 1 if len(needed) >= _WHOLE else 2
        for row in needed.tolist():
            chain, taken = self.chain(row), []
            for k in v.pass_of[chain].tolist():
                source, part = self._activation(k)
                number = known.setdefault(v.leaf[source].tobytes(), len(vectors))
                if number == len(vectors):
                    vectors.append(source)
                taken.append((number, part, self._tile(k)))
            for low in range(0, self.vector, self.vector // parts):
                columns = slice(low, low + self.vector // parts)
                passes = [(number, part, np.ascontiguousarray(tile[:, columns])) for number, part, tile in taken]
                key = tuple((number, part.start, part.stop) for number, part, _ in passes)
                alike.setdefault(key, []).append([Unit(passes, columns, chain[0], row)])
        units = [unit for group in alike.values() for found in group for unit in found]
        size = max(-(-len(units) // (2 * THREADS)), 1)
        return HalfGroup(vectors, [units[low : low + size] for low in range(0, len(units), size)])

    def _half_passes(self, rows: Array) -> None:
        if not len(rows):
            return
        head = int(rows[0])
        if head not in self.v.halves:
            self.v.halves[head] = self._half_group(rows)
        group = self.v.halves[head]
        vectors = [self._vectors(source) for source in group.vectors]
        finite = [bool(np.isfinite(x).all()) for x in vectors]
        each(lambda job: self._products(job, vectors, finite), group.jobs)

    @np.errstate(all="ignore")
    def _products(self, units: list[Unit], vectors: list[Array], finite: list[bool]) -> None:
        """Passes over vectors, summed with rounded entries (MX-9). Where all vectors are finite, weights that are zero add nothing."""
        v, room = self.v, np.empty(self.vector * self.vector, np.float32)
        for unit in units:
            out, *others = (self._sums(unit.last, base)[:, unit.columns] for base in (v.total, v.stored) if base[unit.last] >= 0)
            adds = bool(self.a.flat.b["add"][unit.first])
            if adds:
                out[...] = self._added(unit.first)[:, unit.columns]
            for number, part, source in unit.passes:
                weights = self._weights(source, part, finite[number], room)
                rows, count = weights.shape
                x = vectors[number][:, part.start : part.start + count]
                if adds:
                    out[:, :rows] += x @ weights.T
                else:
                    np.matmul(x, weights.T, out=out[:, :rows])
                    out[:, rows:] = 0
                adds = True
            for other in others:
                other[...] = out

    @np.errstate(all="ignore")
    def _apart(self, row: int) -> None:
        """The parts of an fp16 pass in double: entries are rounded when stored, the joined sum once (MX-8, MX-9);
        `row` is its even ACC burst."""
        b, v, passes = self.a.flat.b, self.v, self.a.passes
        k = int(v.pass_of[row])
        odd = int(passes.acc[passes.partner[k]])
        source, part = self._activation(k)
        x, tile = self._vectors(source)[:, part].astype(np.float64), self._tile(k)
        upper = np.array([np.full_like(tile[0], -1), tile[1]])
        high = self._vectors(upper)
        low = self._vectors(tile) - high
        joined = np.zeros((len(x), self.vector))
        for acc, weights in ((row, low), (odd, high)):
            if acc < 0:
                continue
            result = x @ weights[:, part].T.astype(np.float64)
            if b["add"][acc]:
                result += self._added(acc)
            for base in (v.stored, v.base):
                if base[acc] >= 0:
                    self._sums(acc, base)[...] = result
            joined += result
        if v.total[row] >= 0:
            self._sums(row, v.total)[...] = joined
