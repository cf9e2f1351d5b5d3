"""Loop nests as launches: tiles, DMA requests, registers and the order on the lanes.

A nest is brought to few axes (neighbours that every operand walks as one are merged); the innermost is LOOP0, the next LOOP1, the others
are walked launch by launch. A tile is as much of the two loops as keeps every operand within its row's local memory. What a tile reads is
fetched as one piece of DDR an operand (the hull of its addresses), what it writes is drained in its dense runs, or, where these are
smaller than a request can be, as a hull that was fetched before. Tiles are shared out over the lanes in order.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise, product
from typing import TYPE_CHECKING

from ...errors import Infeasible
from ...machines.cgla import tables as t
from ...machines.cgla.isa import Register
from ...machines.cgla.tables import DTYPE_BYTES, HostKind
from ...machines.cgla.timing import exec_cycles
from .host import HostTask
from .nest_kernel import LOADS, LOW, STORES, NestKernel, NoSlot, PlacedNest, extensions, placed_nest

if TYPE_CHECKING:
    from .schedule import Lane, Schedule

LINE = 32
WORD = 4
SMALLEST_DMA = 8
REDUCTIONS = ("sum", "max", "min")


@dataclass(frozen=True)
class Axis:
    """One axis of a nest: extent, byte stride of every operand, and the task axis whose value it is (-1 where merged)."""

    extent: int
    strides: tuple[int, ...]
    number: int

    @property
    def reduced(self) -> bool:
        """Whether the result does not depend on it."""
        return self.extent > 1 and self.strides[0] == 0


@dataclass(frozen=True)
class Tile:
    """Part of a nest: byte offset of every operand, extents of the two loops, and the positions that the axes begin at."""

    offsets: tuple[int, ...]
    extents: tuple[int, int]
    firsts: tuple[int, ...]


@dataclass(frozen=True)
class Nest:
    """A nest that the array computes; with `modify` a tile of the result is fetched before it is written."""

    task: HostTask
    kernel: NestKernel
    axes: tuple[Axis, ...]
    tiles: tuple[Tile, ...]
    modify: bool


def nest_of(task: HostTask, rows: int, lmm_bytes: int, known: frozenset[str], sizes: Sequence[int], filled: bool) -> Nest:
    """The launches of a task; `sizes` are the bytes of its operands' symbols, `filled` says that the result's are all written. Raises
    NoSlot where the array cannot compute it."""
    if task.kind not in (HostKind.MAP, HostKind.REDUCE) or (task.kind == HostKind.REDUCE and task.op not in REDUCTIONS):
        raise NoSlot(f"{task.kind.name.lower()} {task.op}")
    result, *reads = task.operands
    strange = [o.dtype for o in reads if o.dtype not in LOADS] + [result.dtype] * (result.dtype not in STORES)
    if strange or (task.kind == HostKind.REDUCE and result.dtype != "f32"):
        raise NoSlot(f"{(strange or [result.dtype])[0]} in memory")
    valued = sorted({entry.a for entry in task.exprs if entry.op == "axis"})
    alone = not filled and not result.offset and sizes[0] == SMALLEST_DMA
    axes = _axes(task, valued, alone)
    if any(axis.reduced for axis in axes[:-1]):
        raise NoSlot("a reduction over several axes")
    if task.kind == HostKind.MAP and axes[-1].reduced:
        raise NoSlot("a result that is written more than once")
    loops = {axis.number: place for place, axis in enumerate(reversed(axes)) if place < 2}
    counted = tuple((number, loops.get(number, -1)) for number in valued)
    op = task.op if task.kind == HostKind.REDUCE else ""
    kernel = NestKernel(task.exprs, tuple(operand.dtype for operand in task.operands), op, counted, rows)
    try:
        missing = extensions(kernel) - known
    except Infeasible as error:
        raise NoSlot(f"more {error.resource} than a lane has") from error
    if missing:
        raise NoSlot(f"{min(missing)}, an extension that is off")
    tiles = tuple(_tiles(task, axes, lmm_bytes, valued))
    small = any(not _movable(_pieces(task, axes, tile, 0, sizes[0], False)) for tile in tiles)
    moves = (_pieces(task, axes, tile, number, size, True) for tile in tiles for number, size in enumerate(sizes) if number or small)
    if not all(map(_movable, moves)) or (small and not filled):
        raise NoSlot("a piece of less than 8 bytes, or of parts of words")
    return Nest(task, kernel, tuple(axes), tiles, small)


def _movable(pieces: Sequence[tuple[int, int]]) -> bool:
    """Whether a request can move each of (DDR offset, bytes)."""
    return all(count >= SMALLEST_DMA and not (start | count) % WORD for start, count in pieces)


def _axes(task: HostTask, valued: Sequence[int], alone: bool) -> list[Axis]:
    """The axes of a task, outermost first by the steps of the result, merged; at least two. `alone`: the result has two words that
    nobody has written."""
    made = [
        Axis(extent, tuple(operand.strides.get(axis, 0) * DTYPE_BYTES[operand.dtype] for operand in task.operands), axis)
        for axis, extent in enumerate(task.extents)
        if extent > 1 or axis in valued
    ]
    made.sort(key=lambda axis: (axis.reduced, [-abs(stride) for stride in axis.strides], axis.number))
    merged: list[Axis] = []
    for axis in made:
        above = merged[-1] if merged else None
        joins = above is not None and above.number not in valued and axis.number not in valued and above.reduced == axis.reduced
        if above is not None and joins and all(high == low * axis.extent for high, low in zip(above.strides, axis.strides, strict=True)):
            merged[-1] = Axis(above.extent * axis.extent, axis.strides, axis.number)
        else:
            merged.append(axis)
    if alone and all(axis.extent == 1 or axis.reduced for axis in merged) and DTYPE_BYTES[task.operands[0].dtype] == WORD:
        # a request moves two words at least: a single element is computed twice
        twice = Axis(2, (WORD, *(0 for _ in task.operands[1:])), -1)
        merged = [twice, *(merged[-1:] or [Axis(1, twice.strides, -1)])] if len(merged) < 2 else merged
    return [Axis(1, (0,) * len(task.operands), -1)] * (2 - len(merged)) + merged


def _tiles(task: HostTask, axes: Sequence[Axis], lmm_bytes: int, valued: Sequence[int]) -> Iterator[Tile]:
    """Tiles in the order of the result."""
    *outer, loop1, loop0 = axes
    limit = lmm_bytes - 2 * LINE
    limit -= max(DTYPE_BYTES[operand.dtype] for operand in task.operands)
    widest = max(abs(stride) for stride in loop0.strides) or 1
    most0 = min(loop0.extent, limit // widest + 1)
    if most0 < loop0.extent and loop0.reduced:
        raise NoSlot("a reduction longer than a local memory")
    most1 = loop1.extent if most0 == loop0.extent else 1
    for low, stride in zip(loop0.strides, loop1.strides, strict=True):
        if stride:
            most1 = min(most1, (limit - (most0 - 1) * abs(low)) // abs(stride) + 1)
    offsets = [operand.offset for operand in task.operands]
    for positions in product(*(range(axis.extent) for axis in outer)):
        for low1, high1 in _cuts(loop1.extent, most1):
            for low0, high0 in _cuts(loop0.extent, most0):
                where = (*positions, low1, low0)
                moved = tuple(
                    offset + sum(position * axis.strides[number] for position, axis in zip(where, axes, strict=True))
                    for number, offset in enumerate(offsets)
                )
                first = {axis.number: position for position, axis in zip(where, axes, strict=True)}
                yield Tile(moved, (high0 - low0, high1 - low1), tuple(first.get(number, 0) for number in valued))


def _cuts(extent: int, most: int) -> Iterator[tuple[int, int]]:
    """Parts of nearly equal length, none longer than `most`."""
    count = -(-extent // most)
    yield from pairwise(extent * number // count for number in range(count + 1))


def _pieces(task: HostTask, axes: Sequence[Axis], tile: Tile, number: int, size: int, hull: bool) -> list[tuple[int, int]]:
    """(DDR offset, bytes) of what an operand of a tile covers: its `hull`, or its dense runs."""
    steps = [(axes[-1 - loop].strides[number], extent) for loop, extent in enumerate(tile.extents)]
    low = tile.offsets[number] + sum(min(stride * (extent - 1), 0) for stride, extent in steps)
    item = DTYPE_BYTES[task.operands[number].dtype]
    high = tile.offsets[number] + sum(max(stride * (extent - 1), 0) for stride, extent in steps) + item
    if hull:
        low, high = low // WORD * WORD, -(-high // WORD) * WORD
        if high - low < SMALLEST_DMA:
            low = max(min(low, size // WORD * WORD - SMALLEST_DMA), 0)
            high = max(high, low + SMALLEST_DMA)
        return [(low, high - low if high <= size else 0)]
    run, starts = item, [low]
    for stride, extent in sorted((abs(stride), extent) for stride, extent in steps if extent > 1 and stride):
        if stride == run and len(starts) == 1:
            run *= extent
        else:
            starts = [start + stride * i for i in range(extent) for start in starts]
    return [(start, run) for start in sorted(starts)]


class NestRun:
    """The launches of one nest on the lanes of a schedule."""

    def __init__(self, schedule: Schedule, nest: Nest) -> None:
        self.schedule = schedule
        self.nest = nest
        self.machine = schedule.machine
        self.placed: PlacedNest = placed_nest(nest.kernel)
        self.rows = (self.placed.store_row, *self.placed.load_rows)
        self.sizes = [schedule.symbols[operand.symbol].size for operand in nest.task.operands]
        pools = schedule.pools
        self.kernel = pools.kernel(nest.kernel, nest.kernel.title, self.placed.placed)
        lmm = self.machine.lmm_bytes
        self.ranges = pools.range_set(
            {
                (row, 0): (number * lmm, (number + 1) * lmm - 1, int(number > 0 or nest.modify), int(number == 0))
                for number, row in enumerate(self.rows)
            }
        )

    def run(self) -> None:
        """Tile after tile, each lane its part."""
        tiles, lanes = self.nest.tiles, self.schedule.lanes
        for lane, (low, high) in zip(lanes, pairwise(len(tiles) * n // len(lanes) for n in range(len(lanes) + 1)), strict=True):
            for tile in tiles[low:high]:
                self._tile(lane, tile)

    def _tile(self, lane: Lane, tile: Tile) -> None:
        """Registers, loads, the launch, drains."""
        schedule, task = self.schedule, self.nest.task
        modify = self.nest.modify
        pieces = [_pieces(task, self.nest.axes, tile, n, size, n > 0 or modify) for n, size in enumerate(self.sizes)]
        registers = schedule.pools.register_set(self._registers(tile, [found[0][0] for found in pieces]))
        schedule.hold(lane, self.kernel, registers, self.ranges)
        lane.fetched = None
        cursor = lane.free
        for number, found in list(enumerate(pieces))[0 if modify else 1 :]:
            cursor = self._moves(lane, t.Direction.LOAD, number, found, cursor)
        lane.free = cursor
        rows = sorted({slot["row"] for slot in self.placed.placed.slots})
        length = exec_cycles(tile.extents[0] * tile.extents[1], [(row, False) for row in rows])
        schedule.launch(lane, (self.kernel, registers, self.ranges), length, task.provenance)
        lane.free = self._moves(lane, t.Direction.DRAIN, 0, pieces[0], lane.free)

    def _moves(self, lane: Lane, direction: t.Direction, number: int, pieces: Sequence[tuple[int, int]], cursor: int) -> int:
        from .schedule import Place  # the schedule runs nests, so it is imported where it is complete

        operand, row = self.nest.task.operands[number], self.rows[number]
        for offset, size in pieces:
            at = self._at(number, pieces[0][0]) + offset - pieces[0][0]
            place = Place(operand.symbol, offset)
            cursor = self.schedule.dma(lane, direction, 0, place, at, size, (row,), cursor, self.nest.task.provenance)
        return cursor

    def _at(self, number: int, offset: int) -> int:
        """Logical address of the first byte of an operand's tile: congruent to its DDR offset."""
        return number * self.machine.lmm_bytes + offset % LINE

    def _registers(self, tile: Tile, lows: Sequence[int]) -> dict[tuple[int, int, Register], int]:
        """Every register that the kernel names."""
        loop1, loop0 = self.nest.axes[-2:]
        values = {"loop0": tile.extents[0], "loop1": tile.extents[1], "minus1": LOW}
        for number, low in enumerate(lows):
            values[f"base{number}"] = self._at(number, low)
        leads = [offset - low for offset, low in zip(tile.offsets, lows, strict=True)]
        for pair in range(-(-len(lows) // 2)):
            numbers = [n for n in (2 * pair, 2 * pair + 1) if n < len(lows)]
            for name, axis, lead in (("in", loop0, leads), ("out", loop1, [0] * len(leads))):
                steps = [axis.strides[n] for n in numbers]
                values[f"{name}{pair}.step"] = _pair(steps)
                values[f"{name}{pair}.start"] = _pair([lead[n] - step for n, step in zip(numbers, steps, strict=True)])
        for (number, _), first in zip(self.nest.kernel.axes, tile.firsts, strict=True):
            values |= {f"axis{number}": first, f"count{number}.step": 1, f"count{number}.start": LOW}
        held = self.placed.placed.held
        return {(h.row, h.col, h.register): int(h.name[1:], 16) if h.name[0] == "=" else values[h.name] for h in held}


def _pair(words: Sequence[int]) -> int:
    """One or two 32-bit words as one register value."""
    return sum((value & LOW) << 32 * place for place, value in enumerate(words))
