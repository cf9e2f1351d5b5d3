"""Matrix passes (docs/tsp-model.md section 3): what every plane multiplies, adds and emits.

An fp16 pass is one float32 product. Where an ADD joins the two partial results of every pass it is taken with whole weights (MX-8); `exact`
takes both parts in double and rounds once instead. int8 passes are in `byte_passes.py`. Which vectors and weights a group of passes takes
is found once per layout; a block adds where they are.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from ...machines.tsp import isa
from ...machines.tsp.isa import HALF_BOTH
from ..threads import each
from . import lanes
from .flatten import expand
from .layout import Array

if TYPE_CHECKING:
    from .evaluate import Evaluation

_LANES_HALF = 160
_WHOLE = 8
"""Passes of a group from which on a unit is a whole tile: fewer are cut in halves, so that threads get equal shares."""


class _Room(threading.local):
    """Memory of each thread for numbers on their way, kept from one product to the next."""

    def __init__(self) -> None:
        self.weights, self.sums = np.empty((2, 0), np.float32)

    def take(self, name: str, rows: int, columns: int) -> Array:
        """A float32 array [rows, columns] that holds anything."""
        room: Array = getattr(self, name)
        if len(room) < rows * columns:
            room = np.empty(rows * columns, np.float32)
            setattr(self, name, room)
        return room[: rows * columns].reshape(rows, columns)


_ROOM = _Room()


@dataclass(frozen=True)
class Unit:
    """fp16 passes that are summed as one, for the rows `columns` of their arrays, which are columns of the result.

    `passes`: which vectors, which of their lanes, and the claim elements [2, rows] of the weights. `before`: offsets of what each of the
    `count` elements of the first pass adds, if it adds anything. The sums go to the offsets `out`.
    """

    passes: list[tuple[int, slice, Array]]
    columns: slice
    count: int
    before: Array | None
    out: tuple[int, ...]


@dataclass(frozen=True)
class HalfGroup:
    """fp16 passes of one group: claim elements [2, count] of all different `vectors`, and the `units` that take them."""

    vectors: list[Array]
    units: list[Unit]

    def run(self, e: Evaluation) -> None:
        """Compute all sums in the arena of a block."""
        vectors = Vectors(e, self.vectors)
        each(lambda unit: _product(e, unit, vectors), self.units)


class Vectors:
    """The vectors of a group as float32, each fetched by the thread that first needs it."""

    def __init__(self, e: Evaluation, sources: list[Array]) -> None:
        self.e, self.sources = e, sources
        self.locks = [threading.Lock() for _ in sources]
        self.known: list[tuple[Array, bool] | None] = [None] * len(sources)

    def take(self, number: int) -> tuple[Array, bool]:
        """(vectors [count, 320], whether all of their numbers are finite)."""
        with self.locks[number]:
            known = self.known[number]
            if known is None:
                source = self.sources[number]
                vectors = np.empty((source.shape[1], self.e.vector), np.float32)
                self.known[number] = known = vectors, _fetch(self.e, source, 0, vectors)[2]
            return known


def plan(e: Evaluation, rows: Array) -> list[Callable[[Evaluation], None]]:
    """What computes the fp16 ACC bursts `rows`; the odd burst of a pair is done with the even one."""
    evens = rows[(e.a.flat.b["unit"][rows] - isa.MXM_BASE) // 3 % 2 == 0]
    evens = evens[e.a.passes.partner[e.v.pass_of[evens]] >= 0]
    if e.v.parts or e.exact:
        return [lambda e: each(partial(_apart, e), evens.tolist())]
    last = evens[e.v.after[evens] < 0]
    needed = last[(e.v.total[last] >= 0) | (e.v.stored[last] >= 0)]
    return [_half_group(e, needed).run] if len(needed) else []


def chain(e: Evaluation, row: int) -> list[int]:
    """ACC bursts of the passes that are summed as one, of which `row` is the last."""
    result = [row]
    while e.v.before[result[-1]] >= 0:
        result.append(int(e.v.before[result[-1]]))
    return result[::-1]


def before(e: Evaluation, rows: Array) -> Array:
    """Offsets of what each element of ACC bursts adds, 320 of 4 bytes; -1 where it adds nothing."""
    flat, passes, v = e.a.flat, e.a.passes, e.v
    owner, k = expand(flat.count[rows])
    source = v.add_source[v.add_first[rows][owner] + k]
    result: Array = np.where(source >= 0, v.stored[passes.acc_row[source]] + passes.acc_k[source] * 4 * e.vector, -1)
    return result


def _half_group(e: Evaluation, rows: Array) -> HalfGroup:
    """fp16 passes of plane pairs by the even ACC bursts of the last that are summed; units over the same vectors follow each other."""
    v, flat = e.v, e.a.flat
    known: dict[bytes, int] = {}
    vectors: list[Array] = []
    alike: dict[tuple[tuple[int, int, int], ...], list[Unit]] = {}
    width = e.vector if len(rows) >= _WHOLE else e.vector // 2
    for row in rows.tolist():
        acc, taken = chain(e, row), []
        for k in v.pass_of[acc].tolist():
            source, part = _activation(e, k)
            number = known.setdefault(v.leaf[source].tobytes(), len(vectors))
            if number == len(vectors):
                vectors.append(source)
            taken.append((number, part, _tile(e, k)))
        added = before(e, np.array(acc[:1])) if flat.b["add"][acc[0]] else None
        out = tuple(int(base[row]) for base in (v.total, v.stored) if base[row] >= 0)
        for low in range(0, e.vector, width):
            columns = slice(low, low + width)
            passes = [(number, part, np.ascontiguousarray(tile[:, columns])) for number, part, tile in taken]
            key = tuple((number, part.start, part.stop) for number, part, _ in passes)
            alike.setdefault(key, []).append(Unit(passes, columns, int(flat.count[row]), added, out))
    return HalfGroup(vectors, [unit for units in alike.values() for unit in units])


def _fetch(e: Evaluation, source: Array, lane: int, out: Array) -> tuple[int, int, bool]:
    """Lanes from `lane` on of the fp16 operands `source` [2, rows], as many as `out` has, as float32; returns what `fetch_half` does."""
    result: tuple[int, int, bool] = lanes.fetch_half(e.arena, e.offset, e.v.step, source, lane, out.view(np.uint32), out)
    return result


def _activation(e: Evaluation, k: int) -> tuple[Array, slice]:
    """(claim elements of the vectors of an fp16 pass, the lanes that it takes)."""
    abc = int(e.a.passes.abc[k])
    half = int(e.a.flat.b["half"][abc])
    part = slice(0, e.vector) if half == HALF_BOTH else slice(half * _LANES_HALF, (half + 1) * _LANES_HALF)
    return e.sources(np.array([abc]), 0, 2), part


def _tile(e: Evaluation, k: int) -> Array:
    """Claim elements [2, 320] of the two arrays of an fp16 pass."""
    passes = e.a.passes
    return e.v.installed[[passes.iw[k], passes.iw[passes.partner[k]]]]


def _sums(e: Evaluation, offset: int, count: int) -> Array:
    """The sums [count, 320] from an offset on as float32."""
    start = offset // 4
    return e.place.arena.views[3][start : start + count * e.vector].reshape(count, e.vector)


def _added(e: Evaluation, offset: Array) -> Array:
    """What fp16 ACC bursts add [elements, 320]."""
    out = np.empty((len(offset), e.vector), np.float32)
    lanes.rows_of(e.arena, offset, out.view(np.uint8))
    return out


@np.errstate(all="ignore")
def _product(e: Evaluation, unit: Unit, vectors: Vectors) -> None:
    """Passes over vectors, summed with rounded entries (MX-9). Where all vectors are finite, weights that are zero add nothing."""
    out, *others = (_sums(e, offset, unit.count)[:, unit.columns] for offset in unit.out)
    adds = unit.before is not None
    if unit.before is not None:
        out[...] = _added(e, unit.before)[:, unit.columns]
    for number, part, source in unit.passes:
        taken, finite = vectors.take(number)
        weights = _ROOM.take("weights", source.shape[1], part.stop - part.start)
        rows, count, _ = _fetch(e, source, part.start, weights)
        if finite:
            weights = weights[:rows, :count]
        rows, count = weights.shape
        x = taken[:, part.start : part.start + count]
        if adds:
            product = np.matmul(x, weights.T, out=_ROOM.take("sums", len(x), rows))
            np.add(out[:, :rows], product, out=out[:, :rows])
        else:
            np.matmul(x, weights.T, out=out[:, :rows])
            out[:, rows:] = 0
        adds = True
    for other in others:
        other[...] = out


@np.errstate(all="ignore")
def _apart(e: Evaluation, row: int) -> None:
    """The parts of an fp16 pass in double: entries are rounded when stored, the joined sum once (MX-8, MX-9);
    `row` is its even ACC burst."""
    b, v, passes, count = e.a.flat.b, e.v, e.a.passes, int(e.a.flat.count[row])
    k = int(v.pass_of[row])
    odd = int(passes.acc[passes.partner[k]])
    source, part = _activation(e, k)
    vectors, tile = np.empty((count, e.vector), np.float32), _tile(e, k)
    low, high = np.empty((2, e.vector, e.vector), np.float32)
    _fetch(e, source, 0, vectors)
    _fetch(e, tile, 0, low)
    _fetch(e, np.array([np.full_like(tile[0], -1), tile[1]]), 0, high)
    x = vectors[:, part].astype(np.float64)
    joined = np.zeros((count, e.vector))
    for acc, weights in ((row, low - high), (odd, high)):
        if acc < 0:
            continue
        result = x @ weights[:, part].T.astype(np.float64)
        if b["add"][acc]:
            result += _added(e, before(e, np.array([acc])))
        for base in (v.stored, v.base):
            if base[acc] >= 0:
                _sums(e, int(base[acc]), count)[...] = result
        joined += result
    if v.total[row] >= 0:
        _sums(e, int(v.total[row]), count)[...] = joined
