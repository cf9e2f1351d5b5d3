"""The schedule of one segment: explicit start cycles for every phase, launch, DMA request and host task.

Everything is appended in dependency order; each resource (host cores, lanes) is a line of cycles, each symbol (a piece of DDR) knows when
its bytes are there and until when they are read. A lane runs launches in the order of model rule 2.13: register writes while nothing else
moves, then the launch, and while it executes the DMA requests that fetch the next tile and drain the last result.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any

from ...machines.cgla import tables as t
from ...machines.cgla.description import CglaMachine
from ...machines.cgla.isa import Register
from ...machines.cgla.timing import conf_cycles, dma_cycles, store_cycles
from ...machines.program import Table
from .body import Placed
from .gemm import Geometry, placed_kernel
from .host import HostTask
from .intervals import History
from .lane import LaneRun
from .row_copies import Looked
from .timeline import Timeline

COLUMNS = 4
SPLIT_CYCLES = 4000
"""Host tasks longer than this are cut over the host cores."""

Registers = Mapping[tuple[int, int, Register], int]
Descriptors = Mapping[tuple[int, int], tuple[int, int, int, int]]


class Pools:
    """What all segments of a program share: kernels, register sets, range sets and provenance strings, each stored once."""

    def __init__(self, machine: CglaMachine) -> None:
        self.machine = machine
        self.provenance: dict[str, int] = {}
        self.kernels: dict[Hashable, int] = {}
        self.titles: list[str] = []
        self._sets: dict[tuple[Any, ...], int] = {}
        self._ranges: dict[tuple[Any, ...], int] = {}
        self._settings: dict[tuple[Geometry, tuple[int, int, int]], tuple[int, int, int]] = {}
        self.registers: list[Registers] = []
        self.ranges: list[Descriptors] = []
        self.slots: list[dict[tuple[int, int], dict[str, int]]] = []

    def note(self, text: str) -> int:
        """The row of a provenance string, -1 for none."""
        return self.provenance.setdefault(text, len(self.provenance)) if text else -1

    def kernel(self, kernel: Hashable, title: str, placed: Placed) -> int:
        """The number of a kernel with that body."""
        if kernel not in self.kernels:
            self.kernels[kernel] = len(self.kernels)
            self.titles.append(title)
            self.slots.append({(s["row"], s["col"]): s for s in placed.slots})
        return self.kernels[kernel]

    def register_set(self, values: Registers) -> int:
        """The number of a register set."""
        key = tuple(sorted(values.items()))
        if key not in self._sets:
            self._sets[key] = len(self.registers)
            self.registers.append(dict(values))
        return self._sets[key]

    def settings(self, geometry: Geometry, places: tuple[int, int, int]) -> tuple[int, int, int]:
        """The numbers of kernel, register set and range set of a geometry whose arrays use these places."""
        key = (geometry, places)
        if key not in self._settings:
            registers, product = self.register_set(geometry.registers(places)), geometry.kernel
            kernel = self.kernel(product, f"{product.form} product, {product.groups} groups", placed_kernel(product))
            self._settings[key] = kernel, registers, self.range_set(geometry.descriptors())
        return self._settings[key]

    def range_set(self, values: Descriptors) -> int:
        """The number of a range set; it holds every descriptor of the lane, so that none is stale."""
        whole = {(row, col): values.get((row, col), (0, 3, 0, 0)) for row in range(self.machine.rows) for col in range(COLUMNS)}
        key = tuple(sorted(whole.items()))
        if key not in self._ranges:
            self._ranges[key] = len(self.ranges)
            self.ranges.append(whole)
        return self._ranges[key]


@dataclass(frozen=True)
class Place:
    """A contiguous piece of DDR: symbol and byte offset."""

    symbol: int
    offset: int

    def shifted(self, offset: int) -> Place:
        """The piece that starts `offset` bytes later."""
        return Place(self.symbol, self.offset + offset)


def _index_columns(looked: Looked | None) -> dict[str, int]:
    """The index columns of a DMA row."""
    if looked is None:
        return {"index_symbol": -1, "index_offset": 0, "index_bytes": 0, "index_stride": 0, "index_limit": 0}
    return {
        "index_symbol": looked.symbol, "index_offset": looked.offset, "index_bytes": looked.size, "index_stride": looked.stride,
        "index_limit": looked.limit,
    }  # fmt: skip


@dataclass(frozen=True)
class Job:
    """One launch of a geometry: where its weights, activations and results are."""

    weights: Place
    inputs: Place
    results: Place
    provenance: str = ""


@dataclass
class Lane:
    """What a lane holds and until when it is busy."""

    number: int
    core: int
    free: int = 0
    kernel: int = -1
    registers: dict[tuple[int, int, Register], int] = field(default_factory=dict)
    ranges: dict[tuple[int, int], tuple[int, int, int, int]] = field(default_factory=dict)
    fetched: tuple[Geometry, Place] | None = None


class Schedule:
    """One segment under construction."""

    def __init__(self, pools: Pools) -> None:
        self.pools = pools
        self.machine = pools.machine
        self.symbols: list[History] = []
        self.cores = [Timeline() for _ in range(self.machine.cores)]
        self.lanes = [Lane(n, self._core_of(n)) for n in range(self.machine.lanes)]
        self.rows: dict[str, list[dict[str, Any]]] = {table.name: [] for table in t.SEGMENT_TABLES}
        self.length = 0
        together = min(self.machine.lanes_per_memory, self.machine.lanes)
        self.interval: Fraction = max(self.machine.beat_interval, self.machine.memory_interval * together)

    def _core_of(self, lane: int) -> int:
        machine = self.machine
        return machine.memory_of(lane) * machine.host_cores + lane % machine.lanes_per_memory % machine.host_cores

    def symbol(self, size: int) -> int:
        """A new symbol of `size` bytes."""
        self.symbols.append(History(size))
        return len(self.symbols) - 1

    # --- host --------------------------------------------------------------------------------------------------------------------------

    def host(self, task: HostTask) -> None:
        """Schedule a host task, in parts over the cores where it is long; a part waits for the bytes that it reads alone."""
        cycles = task.cycles(self.machine)
        parts = task.split(len(self.cores)) if cycles > SPLIT_CYCLES else [task]
        result, *reads = task.operands
        target = self.symbols[result.symbol]
        free = [target.free(part.span(0, target.size)) for part in parts]
        ends = []
        for part, earliest in zip(parts, free, strict=True):
            spans = [part.span(number, self.symbols[o.symbol].size) for number, o in enumerate(reads, 1)]
            ready = max([earliest, *(self.symbols[o.symbol].ready(span) for o, span in zip(reads, spans, strict=True))])
            length = part.cycles(self.machine)
            start, core = min((core.find(ready, length), n) for n, core in enumerate(self.cores))
            self.cores[core].reserve(start, length)
            self._host_rows(part, core, start, length)
            ends.append(start + length)
            for operand, span in zip(reads, spans, strict=True):
                self.symbols[operand.symbol].read(span, ends[-1])
        for part, end in zip(parts, ends, strict=True):
            target.wrote(part.span(0, target.size), end)
        self.length = max([self.length, *ends])

    def _host_rows(self, task: HostTask, core: int, start: int, length: int) -> None:
        rows = self.rows
        first_axis, first_operand, first_expr = len(rows["host_axes"]), len(rows["host_operands"]), len(rows["host_exprs"])
        rows["host_axes"] += [{"extent": extent} for extent in task.extents]
        for operand in task.operands:
            number = len(rows["host_operands"])
            rows["host_operands"].append({"symbol": operand.symbol, "offset": operand.offset, "dtype": t.HOST_DTYPE_CODE[operand.dtype]})
            strides = [(a, s) for a, s in sorted(operand.strides.items()) if s and task.extents[a] > 1]
            rows["host_terms"] += [{"operand": number, "axis": a, "stride": s} for a, s in strides]
            rows["host_lookups"] += [
                {"operand": number, "index": look.index, "stride": look.stride, "limit": look.limit} for look in operand.lookups
            ]
        rows["host_exprs"] += [entry.row() for entry in task.exprs]
        rows["host_tasks"].append(
            {
                "core": core, "start": start, "length": length, "kind": int(task.kind), "op": task.op_code, "axis": task.axis,
                "flag": task.flag, "count": task.count, "first_axis": first_axis, "axes": len(task.extents),
                "first_operand": first_operand, "operands": len(task.operands), "first_expr": first_expr, "exprs": len(task.exprs),
                "label": self.pools.note(task.label), "provenance": self.pools.note(task.provenance),
            }
        )  # fmt: skip

    # --- array -------------------------------------------------------------------------------------------------------------------------

    def launches(self, geometry: Geometry, shares: Sequence[Sequence[Job]]) -> None:
        """Run the jobs `shares[lane]` on each lane, tile after tile, with the next tile fetched and the last result drained meanwhile."""
        for lane, jobs in zip(self.lanes, shares, strict=False):
            if jobs:
                LaneRun(self, lane, geometry, jobs).run()

    def preload(self, geometry: Geometry, shares: Sequence[Sequence[Job]]) -> None:
        """Configure the lanes for a geometry and load the first weights of each, while the host makes the activations."""
        for lane, jobs in zip(self.lanes, shares, strict=False):
            if jobs:
                LaneRun(self, lane, geometry, jobs).preload()

    def occupy_core(self, lane: Lane, earliest: int, length: int) -> int:
        """Reserve the lane's host core; returns the start."""
        start = self.cores[lane.core].find(earliest, length)
        self.cores[lane.core].reserve(start, length)
        return start

    def configure(self, lane: Lane, geometry: Geometry, places: tuple[int, int, int]) -> tuple[int, int, int]:
        """The lane holds a geometry whose arrays use these places; returns the numbers of kernel, register set and range set."""
        settings = self.pools.settings(geometry, places)
        self.hold(lane, *settings)
        return settings

    def hold(self, lane: Lane, kernel: int, register_set: int, range_set: int) -> None:
        """CONF, REGV and RANGE as far as anything changes."""
        pools = self.pools
        values = pools.registers[register_set]
        if lane.kernel != kernel:
            self._phase(lane, t.Phase.CONF, kernel, conf_cycles(self.machine, self._changed_slots(lane.kernel, kernel)))
            lane.kernel = kernel
        stores = {
            (row, col, register if register <= Register.BR3 else 4 + (register - 4) // 2)
            for (row, col, register), value in values.items()
            if lane.registers.get((row, col, register)) != value
        }
        self._phase(lane, t.Phase.REGV, register_set, store_cycles(self.machine, len(stores)))
        lane.registers.update(values)
        wanted = pools.ranges[range_set]
        changed = sum(lane.ranges.get(place) != descriptor for place, descriptor in wanted.items())
        self._phase(lane, t.Phase.RANGE, range_set, store_cycles(self.machine, changed))
        lane.ranges.update(wanted)

    def launch(self, lane: Lane, numbers: tuple[int, int, int], executes: int, provenance: str) -> int:
        """Append a launch of kernel, register set and range set whose EXEC lasts `executes` cycles; returns the start of EXEC."""
        start = self.occupy_core(lane, lane.free, self.machine.t_launch)
        length = self.machine.t_launch + executes
        self.rows["launches"].append(
            {
                "lane": lane.number, "core": lane.core, "kernel": numbers[0], "registers": numbers[1], "ranges": numbers[2],
                "start": start, "length": length, "provenance": self.pools.note(provenance),
            }
        )  # fmt: skip
        lane.free = start + length
        self.length = max(self.length, lane.free)
        return start + self.machine.t_launch

    def _changed_slots(self, held: int, wanted: int) -> int:
        if held < 0:
            return self.machine.rows * COLUMNS
        old, new = self.pools.slots[held], self.pools.slots[wanted]
        return sum(old.get(place) != new.get(place) for place in old.keys() | new.keys())

    def _phase(self, lane: Lane, kind: t.Phase, target: int, length: int) -> None:
        if not length:
            return
        start = self.occupy_core(lane, lane.free, length)
        self.rows["phases"].append(
            {"lane": lane.number, "core": lane.core, "kind": int(kind), "target": target, "start": start, "length": length}
        )
        lane.free = start + length
        self.length = max(self.length, lane.free)

    def dma(self, lane: Lane, direction: t.Direction, tag: int, place: Place, lmm: int, size: int, receivers: Sequence[int],
            earliest: int, provenance: str, looked: Looked | None = None) -> int:  # fmt: skip
        """One DMA request after `earliest`, after its data are there; returns its end. `looked` adds an index to its DDR address."""
        symbol = self.symbols[place.symbol]
        loading = direction == t.Direction.LOAD
        span = (place.offset, place.offset + size + ((looked.limit - 1) * looked.stride if looked is not None else 0))
        after = symbol.ready(span) if loading else symbol.free(span)
        if looked is not None:
            after = max(after, self.symbols[looked.symbol].ready((looked.offset, looked.offset + looked.size)))
        length = dma_cycles(self.machine, place.offset, size, self.interval)
        start = self.occupy_core(lane, max(earliest, after), self.machine.t_dma)
        self.rows["dmas"].append(
            {
                "lane": lane.number, "core": lane.core, "direction": int(direction), "tag": tag, "symbol": place.symbol,
                "offset": place.offset, "lmm": lmm, "bytes": size, "iv_num": self.interval.numerator,
                "iv_den": self.interval.denominator, "rows": sum(1 << row for row in receivers), "start": start, "length": length,
                "provenance": self.pools.note(provenance), **_index_columns(looked),
            }
        )  # fmt: skip
        end = start + length
        if looked is not None:
            self.symbols[looked.symbol].read((looked.offset, looked.offset + looked.size), start + self.machine.t_dma)
        if loading:
            symbol.read(span, end)
        else:
            symbol.wrote(span, end)
        self.length = max(self.length, end)
        return end

    def dma_end(self, lane: Lane, size: int, earliest: int) -> int:
        """When a request of `size` bytes from an aligned address would end, at the earliest."""
        start = self.cores[lane.core].find(earliest, self.machine.t_dma)
        return start + dma_cycles(self.machine, 0, size, self.interval)

    def finish(self) -> dict[str, Table]:
        """The tables of the segment."""
        self.rows["symbols"] = [{"bytes": symbol.size} for symbol in self.symbols]
        return {table.name: table.from_rows(self.rows[table.name]) for table in t.SEGMENT_TABLES}
