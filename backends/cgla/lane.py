"""The launches of one geometry on one lane: which tile lies where, and what moves while the array executes.

Weights and activations have two places each; while a launch uses one, the next tile fills the other, in chunks of whole rows, in the order
of first use and as far as the execution lasts. A chunk that the next launch needs is loaded in any case.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ...machines.cgla import tables as t
from ...machines.cgla.timing import exec_cycles
from .gemm import Geometry, placed_kernel

if TYPE_CHECKING:
    from .schedule import Job, Lane, Place, Schedule

CHUNK_BYTES = 96 << 10
"""Smallest DMA request that a tile is cut into."""


@dataclass(frozen=True)
class _Chunk:
    """Bytes [offset, offset + size) of a tile and the rows that take them."""

    offset: int
    size: int
    rows: tuple[int, ...]


def _chunks(rows: Sequence[int], sizes: Sequence[int]) -> list[_Chunk]:
    """A tile cut at rows."""
    found: list[_Chunk] = []
    offset = start = 0
    taken: list[int] = []
    for row, size in zip(rows, sizes, strict=True):
        taken.append(row)
        offset += size
        if offset - start >= CHUNK_BYTES:
            found.append(_Chunk(start, offset - start, tuple(taken)))
            start, taken = offset, []
    if taken:
        found.append(_Chunk(start, offset - start, tuple(taken)))
    return found


class Array:
    """One streamed array (weights or activations): what its two places hold, and what is still on the way."""

    def __init__(self, run: LaneRun, name: str) -> None:
        self.run = run
        self.name = name
        self.held: list[Place | None] = [None, None]
        self.filling: tuple[Place, int] | None = None
        self.missing: list[_Chunk] = []
        geometry = run.geometry
        rows = geometry.receivers(name)
        if name == "w":
            sizes = [geometry.weight_part if part < geometry.kernel.groups else geometry.scale_part for part in range(len(rows))]
        else:
            sizes = [geometry.input_part] * len(rows)
        self.chunks = _chunks(rows, sizes)

    def wanted(self, job: Job) -> Place:
        """The tile that a job reads."""
        return job.weights if self.name == "w" else job.inputs

    def place_of(self, job: Job) -> int:
        """Where that tile lies (0 if nowhere yet)."""
        tile = self.wanted(job)
        return self.held.index(tile) if tile in self.held else 0

    def load(self, tile: Place, index: int, cursor: int, limit: int | None, job: Job) -> int:
        """Load what is missing of a tile into a place; with a limit only chunks that end by then. Returns the end of the last one."""
        if tile in self.held:
            return cursor
        if self.filling != (tile, index):
            self.filling, self.missing = (tile, index), list(self.chunks)
            self.held[index] = None
        while self.missing:
            chunk = self.missing[0]
            end = self.run.load(self, tile, index, chunk, cursor, limit, job)
            if end is None:
                return cursor
            cursor = end
            self.missing.pop(0)
        self.held[index], self.filling = tile, None
        return cursor


class LaneRun:
    """The launches of one geometry on one lane."""

    def __init__(self, schedule: Schedule, lane: Lane, geometry: Geometry, jobs: Sequence[Job]) -> None:
        self.schedule = schedule
        self.lane = lane
        self.geometry = geometry
        self.jobs = jobs
        self.weights = Array(self, "w")
        self.inputs = Array(self, "x")
        if lane.fetched is not None and lane.fetched[0] == geometry:
            self.weights.held[0] = lane.fetched[1]
        lane.fetched = None
        rows = [(slot["row"], False) for slot in placed_kernel(geometry.kernel).slots]
        self.exec_cycles = exec_cycles(geometry.iterations, rows)

    def run(self) -> None:
        """Fetch, launch, prefetch and drain."""
        lane, schedule = self.lane, self.schedule
        schedule.configure(lane, self.geometry, self._places(0))
        for number, job in enumerate(self.jobs):
            self._fetch(job)
            places = self._places(number)
            numbers = schedule.configure(lane, self.geometry, places)
            cursor = schedule.launch(lane, numbers, self.exec_cycles, job.provenance)
            limit = lane.free
            if number:
                cursor = self._drain(number - 1, cursor)
            lane.free = max(lane.free, self._prefetch(number, places, cursor, limit))
        lane.free = self._drain(len(self.jobs) - 1, lane.free)

    def preload(self) -> None:
        """Configure the lane and load the first weights, before the first activations exist."""
        lane, job = self.lane, self.jobs[0]
        self.schedule.configure(lane, self.geometry, (0, 0, 0))
        lane.free = self.weights.load(job.weights, 0, lane.free, None, job)
        lane.fetched = (self.geometry, job.weights)

    def _places(self, number: int) -> tuple[int, int, int]:
        """Places of weights, activations and the result of a job."""
        job = self.jobs[number]
        return self.weights.place_of(job), self.inputs.place_of(job), number % 2

    def _fetch(self, job: Job) -> None:
        """Load what a job lacks before its launch, into the place that is being filled if there is one."""
        cursor = self.lane.free
        for array in (self.weights, self.inputs):
            tile = array.wanted(job)
            index = array.filling[1] if array.filling is not None and array.filling[0] == tile else 0
            cursor = array.load(tile, index, cursor, None, job)
        self.lane.free = max(self.lane.free, cursor)

    def _prefetch(self, number: int, busy: tuple[int, int, int], cursor: int, limit: int) -> int:
        """Load ahead into the places that the running launch does not use, until its EXEC ends."""
        blocked = {"x"} if self.geometry.single_input else set()
        for ahead in range(number + 1, len(self.jobs)):
            job = self.jobs[ahead]
            for array, used in ((self.weights, busy[0]), (self.inputs, busy[1])):
                tile = array.wanted(job)
                if array.name in blocked or tile in array.held:
                    continue
                needed = [array.wanted(self.jobs[j]) for j in range(number + 1, ahead)]
                if array.held[1 - used] is not None and array.held[1 - used] in needed:
                    blocked.add(array.name)
                    continue
                cursor = array.load(tile, 1 - used, cursor, None if ahead == number + 1 else limit, job)
                if tile not in array.held:
                    return cursor
                blocked.add(array.name)
            if len(blocked) == 2:
                break
        return cursor

    def load(self, array: Array, tile: Place, index: int, chunk: _Chunk, cursor: int, limit: int | None, job: Job) -> int | None:
        """One DMA request of a tile, None where it would not end by `limit`."""
        geometry = self.geometry
        if limit is not None and self.schedule.dma_end(self.lane, chunk.size, cursor) > limit:
            return None
        base = geometry.weight_at(index) if array.name == "w" else geometry.input_at(index)
        tag = index if array.name == "w" else 2 + index
        place = tile.shifted(chunk.offset)
        return self.schedule.dma(
            self.lane, t.Direction.LOAD, tag, place, base + chunk.offset, chunk.size, chunk.rows, cursor, job.provenance
        )

    def _drain(self, number: int, cursor: int) -> int:
        g, job, index = self.geometry, self.jobs[number], number % 2
        return self.schedule.dma(
            self.lane, t.Direction.DRAIN, index, job.results, g.result_at(index), g.result_bytes, g.receivers("y"), cursor, job.provenance
        )
