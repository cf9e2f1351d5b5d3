"""One segment, checked once for all its instances: fields, register state, residency, DMA, time and order of data.

The result, a `SegmentReport`, holds what instances need: the breaches (with relative cycles), the length, the cycles of each cause, what
the segment relies on at its entry and leaves at its exit, and the order in which a run takes its steps.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...errors import Violation
from ...machines.cgla.tables import Direction, Phase
from ...machines.cgla.timing import beats, conf_cycles, dma_cycles, port_interval, store_cycles
from ...machines.program import Segment, length
from .ddr_order import Access, SymbolUse, order_accesses
from .decode import DDR_ALIGN, Decoded
from .host import HostError, HostTask, decode_tasks, shared_rows
from .intervals import crossing, overlapping, priority_cover, rate_peak
from .lane import (
    UNKNOWN,
    Registers,
    Residency,
    RowPart,
    changed_ranges,
    changed_registers,
    changed_slots,
    pieces,
    receivers,
    row_parts,
)
from .plan import ADDRESS_LIMIT, Ints, LaunchPlan

Row = dict[str, Any]


@dataclass
class SegmentReport:
    """What is known about a segment after its one check."""

    segment: Segment
    violations: list[Violation] = field(default_factory=list)
    length: int = 0
    breakdown: dict[str, int] = field(default_factory=dict)
    entries: dict[int, Registers] = field(default_factory=dict)
    exits: dict[int, Registers] = field(default_factory=dict)
    symbols: list[int] = field(default_factory=list)
    uses: dict[int, SymbolUse] = field(default_factory=dict)
    steps: list[tuple[int, str, int]] = field(default_factory=list)
    launches: dict[int, LaunchPlan] = field(default_factory=dict)
    dmas: list[Row] = field(default_factory=list)
    parts: dict[int, list[RowPart]] = field(default_factory=dict)
    tasks: list[HostTask | HostError] = field(default_factory=list)
    counts: dict[str, float] = field(default_factory=dict)
    host_ops: dict[str, int] = field(default_factory=dict)
    lanes: dict[int, int] = field(default_factory=dict)


def rows_of(table: Any) -> list[Row]:
    """The rows of a columnar table as dictionaries of Python numbers."""
    names = list(table)
    return [dict(zip(names, values, strict=True)) for values in zip(*(table[name].tolist() for name in names), strict=True)]


@lru_cache(maxsize=256)
def _fraction(numerator: int, denominator: int) -> Fraction:
    return Fraction(numerator, denominator)


def check_segment(decoded: Decoded, segment: Segment) -> SegmentReport:
    """Checks one segment."""
    return _Checker(decoded, segment).run()


class _Checker:
    def __init__(self, decoded: Decoded, segment: Segment) -> None:
        self.decoded = decoded
        self.machine = decoded.machine
        self.segment = segment
        self.result = SegmentReport(segment)
        self.phases = rows_of(segment.tables["phases"])
        self.launch_rows = rows_of(segment.tables["launches"])
        self.dma_rows = rows_of(segment.tables["dmas"])
        self.host_rows = rows_of(segment.tables["host_tasks"])
        self.result.symbols = segment.tables["symbols"]["bytes"].tolist()
        self.result.dmas = self.dma_rows
        self.spans: dict[str, list[tuple[int, int]]] = {}
        self.intervals: list[Fraction] = []

    def report(self, rule: str, unit: str, message: str, cycle: int = -1, source: int = -1, claimants: Sequence[str] = ()) -> None:
        """Adds a breach of this segment."""
        where = f"segment {self.segment.name}: {unit}"
        self.result.violations.append(Violation(rule, cycle, where, message, tuple(claimants), self.decoded.provenance(source)))

    def run(self) -> SegmentReport:
        """All checks in order; rows with fields out of range are left out."""
        self.result.tasks = decode_tasks(self.segment.tables, self.result.symbols)
        self._fields()
        for lane in range(self.machine.lanes):
            LaneReplay(self, lane).run()
        self._host()
        self._cores()
        self._bandwidth()
        self._data_order()
        self._totals()
        return self.result

    # --- fields ------------------------------------------------------------------------------------------------------------------

    def _fields(self) -> None:
        if any(size < 1 for size in self.result.symbols):
            self.report("CGLA-001", "symbols", "a symbol has no bytes")
        for message in shared_rows(self.segment.tables):
            self.report("CGLA-001", "host tasks", message)
        kernels = len(self.decoded.kernels)
        targets = {Phase.CONF: range(kernels), Phase.REGV: self.decoded.register_sets, Phase.RANGE: self.decoded.range_sets}
        self.phases = [
            row for row in self.phases
            if self._place("phase", row) and self._need(row["kind"] in tuple(Phase), row, f"phase kind {row['kind']}")
            and self._need(row["target"] in targets[Phase(row["kind"])], row, f"{Phase(row['kind']).name} of unknown set {row['target']}")
        ]  # fmt: skip
        for index, row in enumerate(self.launch_rows):
            row["index"] = index
        self.launch_rows = [
            row for row in self.launch_rows
            if self._place("launch", row) and self._need(0 <= row["kernel"] < kernels, row, f"launch of unknown kernel {row['kernel']}")
            and self._need(row["registers"] in self.decoded.register_sets, row, f"launch with unknown register set {row['registers']}")
            and self._need(row["ranges"] == -1 or row["ranges"] in self.decoded.range_sets, row, f"unknown range set {row['ranges']}")
        ]  # fmt: skip
        good = []
        for index, row in enumerate(self.dma_rows):
            row["index"] = index
            if self._place("DMA", row) and self._dma_fields(row):
                good.append(row)
        self.dma_rows = good
        self._entries(kernels)

    def _need(self, condition: bool, row: Row, message: str, rule: str = "CGLA-001") -> bool:
        if not condition:
            self.report(rule, f"lane {row.get('lane', '-')}", message, row["start"], row["provenance"])
        return condition

    def _place(self, what: str, row: Row) -> bool:
        lane, core = row["lane"], row["core"]
        if not self._need(0 <= lane < self.machine.lanes, row, f"{what} on lane {lane}; the machine has {self.machine.lanes}"):
            return False
        memory = self.machine.memory_of(lane)
        cores = range(memory * self.machine.host_cores, (memory + 1) * self.machine.host_cores)
        good = self._need(core in cores, row, f"{what} by core {core}; lane {lane} belongs to cores {cores.start}..{cores.stop - 1}")
        if row["start"] < 0 or row["length"] < 0:
            return self._need(False, row, f"{what} starts at {row['start']} for {row['length']} cycles", "CGLA-030") and good
        return good

    def _dma_fields(self, row: Row) -> bool:
        symbols = self.result.symbols
        known = row["direction"] in tuple(Direction) and 0 <= row["tag"] <= 3
        good = self._need(known, row, f"direction {row['direction']}, tag {row['tag']}")
        good &= self._need(0 <= row["symbol"] < len(symbols), row, f"DMA of unknown symbol {row['symbol']}")
        good &= self._need(row["iv_num"] >= 1 and row["iv_den"] >= 1, row, f"interval {row['iv_num']}/{row['iv_den']}")
        aligned = row["offset"] % 4 == 0 and row["lmm"] % 4 == 0 and row["bytes"] % 4 == 0 and row["bytes"] >= 8
        aligned = aligned and (row["offset"] - row["lmm"]) % DDR_ALIGN == 0 and row["index_stride"] % DDR_ALIGN == 0
        message = f"DDR offset {row['offset']}, LMM {row['lmm']}, {row['bytes']} bytes: multiples of 4, at least 8, congruent mod 32"
        good &= self._need(aligned, row, message, "CGLA-024")
        good &= self._need(row["lmm"] >= 0 and row["lmm"] + row["bytes"] <= ADDRESS_LIMIT, row, f"LMM address {row['lmm']}", "CGLA-035")
        indexed = row["index_symbol"] != -1
        if indexed:
            known = 0 <= row["index_symbol"] < len(symbols) and row["index_bytes"] in (4, 8) and row["index_limit"] >= 1
            inside = known and 0 <= row["index_offset"] <= symbols[row["index_symbol"]] - row["index_bytes"] and row["index_stride"] >= 0
            good &= self._need(inside, row, f"index symbol {row['index_symbol']} of the DMA address")
        else:
            unused = (row["index_offset"], row["index_bytes"], row["index_stride"], row["index_limit"])
            good &= self._need(unused == (0, 0, 0, 0), row, "index fields of a DMA without an index must be 0")
        if good:
            reach = row["offset"] + row["bytes"] + (max(row["index_limit"], 1) - 1) * row["index_stride"]
            inside = row["offset"] >= 0 and reach <= symbols[row["symbol"]]
            good &= self._need(inside, row, f"DMA reaches byte {reach} of a symbol of {symbols[row['symbol']]}", "CGLA-036")
        return bool(good)

    def _entries(self, kernels: int) -> None:
        for row in rows_of(self.segment.tables["entry"]):
            lane = row["lane"]
            known = 0 <= lane < self.machine.lanes and lane not in self.result.entries and -1 <= row["kernel"] < kernels
            known = known and (row["registers"] == -1 or row["registers"] in self.decoded.register_sets)
            known = known and (row["ranges"] == -1 or row["ranges"] in self.decoded.range_sets)
            if not known:
                self.report("CGLA-001", f"entry of lane {lane}", "unknown lane, kernel or set, or a lane twice")
                continue
            values = self.decoded.register_sets.get(row["registers"], {})
            ranges = self.decoded.range_sets.get(row["ranges"], {})
            self.result.entries[lane] = Registers(row["kernel"], dict(values), dict(ranges))

    # --- host and time -----------------------------------------------------------------------------------------------------------

    def _host(self) -> None:
        good = []
        for index, (row, task) in enumerate(zip(self.host_rows, self.result.tasks, strict=True)):
            row["index"] = index
            unit = f"host task {index}"
            if isinstance(task, HostError):
                self.report(task.rule, unit, str(task), row["start"], row["provenance"])
                continue
            if not 0 <= row["core"] < self.machine.cores or row["start"] < 0:
                self.report("CGLA-001", unit, f"core {row['core']}, start {row['start']}", row["start"], row["provenance"])
                continue
            if row["length"] != task.cycles(self.machine):
                message = f"lasts {row['length']} cycles, it takes {task.cycles(self.machine)}"
                self.report("CGLA-032", unit, message, row["start"], row["provenance"])
            pool = self.decoded.program.provenance
            label = pool[row["label"]] if 0 <= row["label"] < len(pool) else task.kind.name.lower()
            self.result.host_ops[label] = self.result.host_ops.get(label, 0) + 1
            good.append(row)
        self.host_rows = good

    def _cores(self) -> None:
        busy: dict[int, list[tuple[int, int, str, int]]] = {}
        for row in self.phases:
            name = Phase(row["kind"]).name
            busy.setdefault(row["core"], []).append((row["start"], row["start"] + row["length"], name, row["provenance"]))
        for row in self.launch_rows:
            busy.setdefault(row["core"], []).append((row["start"], row["start"] + self.machine.t_launch, "launch", row["provenance"]))
        for row in self.dma_rows:
            busy.setdefault(row["core"], []).append((row["start"], row["start"] + self.machine.t_dma, "DMA set-up", row["provenance"]))
        for row in self.host_rows:
            busy.setdefault(row["core"], []).append((row["start"], row["start"] + row["length"], "host task", row["provenance"]))
        for core, spans in sorted(busy.items()):
            for one, two in overlapping([(start, end) for start, end, _, _ in spans]):
                claimants = [f"{spans[i][2]} at {spans[i][0]}..{spans[i][1]}" for i in (one, two)]
                self.report("CGLA-033", f"core {core}", "two tasks at once", spans[two][0], spans[two][3], claimants)
        self.result.counts["core_cycles"] = float(sum(end - start for spans in busy.values() for start, end, _, _ in spans))

    def data_span(self, row: Row) -> tuple[int, int]:
        """The cycles in which the beats of a DMA run."""
        return row["start"] + self.machine.t_dma, row["start"] + row["length"]

    def _bandwidth(self) -> None:
        for row in self.dma_rows:
            interval = _fraction(row["iv_num"], row["iv_den"])
            if interval < self.machine.beat_interval:
                message = f"{interval} cycles a beat; the machine needs {self.machine.beat_interval}"
                self.report("CGLA-027", f"lane {row['lane']} DMA", message, row["start"], row["provenance"])
            expected = dma_cycles(self.machine, row["lmm"], row["bytes"], interval)
            if row["length"] != expected:
                message = f"DMA of {row['bytes']} bytes lasts {row['length']} cycles, it takes {expected}"
                self.report("CGLA-032", f"lane {row['lane']}", message, row["start"], row["provenance"])
        requests = [(*self.data_span(row), _fraction(row["iv_den"], row["iv_num"]), i) for i, row in enumerate(self.dma_rows)]
        groups: dict[str, tuple[list[int], Fraction]] = {}
        for i, row in enumerate(self.dma_rows):
            groups.setdefault(f"lane {row['lane']}", ([], Fraction(1)))[0].append(i)
            limit = 1 / self.machine.memory_interval
            groups.setdefault(f"memory {self.machine.memory_of(row['lane'])}", ([], limit))[0].append(i)
        for unit, (members, limit) in sorted(groups.items()):
            peak = rate_peak([requests[i] for i in members], limit)
            if peak is not None:
                claimants = [f"DMA {self.dma_rows[i]['index']} of lane {self.dma_rows[i]['lane']}" for i in peak[1]]
                self.report("CGLA-028", unit, f"more than {limit} beats a cycle", peak[0], -1, claimants)

    def _data_order(self) -> None:
        accesses = []
        for row in self.dma_rows:
            begin, end = self.data_span(row)
            write = row["direction"] == Direction.DRAIN
            indexed = row["index_symbol"] != -1
            run = row["bytes"] + ((row["index_limit"] - 1) * row["index_stride"] if indexed else 0)
            unit = f"lane {row['lane']} DMA {row['index']}"
            start = np.array([row["offset"]], dtype=np.int64)
            accesses.append(Access(begin, end, row["symbol"], start, run, write, not indexed, "CGLA-030", unit, row["provenance"]))
            if indexed:
                at = np.array([row["index_offset"]], dtype=np.int64)
                symbol, size, source = row["index_symbol"], row["index_bytes"], row["provenance"]
                accesses.append(Access(row["start"], begin, symbol, at, size, False, True, "CGLA-033", unit, source))
        for row in self.host_rows:
            task = self.result.tasks[row["index"]]
            assert isinstance(task, HostTask)
            begin, end = row["start"], row["start"] + row["length"]
            unit = f"host task {row['index']}"
            for number, operand in enumerate(task.operands):
                starts, run = task.runs(number)
                scatter = number == 0 and bool(operand.lookups)
                if number or (scatter and task.op != "set"):
                    accesses.append(Access(begin, end, operand.symbol, starts, run, False, True, "CGLA-033", unit, row["provenance"]))
                if number == 0:
                    accesses.append(Access(begin, end, operand.symbol, starts, run, True, not scatter, "CGLA-036", unit, row["provenance"]))
        self.result.uses = order_accesses(
            accesses, lambda rule, access, message: self.report(rule, access.unit, message, access.begin, access.source)
        )

    def _totals(self) -> None:
        result = self.result
        spans: dict[str, list[tuple[int, int]]] = {name: [] for name in ("EXEC", "LOAD", "DRAIN", "host", "CONF", "REGV", "RANGE")}
        for row in self.launch_rows:
            spans["EXEC"].append((row["start"], row["start"] + row["length"]))
            result.lanes[row["lane"]] = result.lanes.get(row["lane"], 0) + row["length"]
            for name, value in result.launches[row["index"]].counts.items() if row["index"] in result.launches else ():
                result.counts[name] = result.counts.get(name, 0.0) + value
        for row in self.dma_rows:
            spans[Direction(row["direction"]).name].append((row["start"], row["start"] + row["length"]))
            moved = float(beats(row["lmm"], row["bytes"]) * 32)
            result.counts["dma_bytes"] = result.counts.get("dma_bytes", 0.0) + moved
            result.counts["dma_cycles"] = result.counts.get("dma_cycles", 0.0) + row["length"] - self.machine.t_dma
        for row in self.host_rows:
            spans["host"].append((row["start"], row["start"] + row["length"]))
        for row in self.phases:
            spans[Phase(row["kind"]).name].append((row["start"], row["start"] + row["length"]))
        result.length = max((end for group in spans.values() for _, end in group), default=0)
        result.breakdown = priority_cover(list(spans.items()), result.length)
        result.steps += [(row["start"], "host", row["index"]) for row in self.host_rows]
        result.steps.sort()


class LaneReplay:
    """Replays one lane of a segment: registers, residency, DMA receivers and what overlaps what."""

    def __init__(self, checker: _Checker, lane: int) -> None:
        self.checker = checker
        self.decoded = checker.decoded
        self.machine = checker.machine
        self.result = checker.result
        self.lane = lane
        self.held = self.result.entries[lane].copy() if lane in self.result.entries else Registers()
        self.written = Registers()
        self.residency: Residency | None = None
        self.phases = [row for row in checker.phases if row["lane"] == lane]
        self.launches = [row for row in checker.launch_rows if row["lane"] == lane]
        self.dmas = [row for row in checker.dma_rows if row["lane"] == lane]
        self.told: set[tuple[int, int]] = set()
        self.enabled: dict[tuple[int, bool], list[RowPart]] = {}
        self.taken: dict[tuple[int, bool, int, int], list[RowPart] | None] = {}
        self.steady: dict[Any, int] = {}
        self.newest = {Phase.REGV: UNKNOWN, Phase.RANGE: UNKNOWN}

    def report(self, rule: str, message: str, row: Row, claimants: Sequence[str] = ()) -> None:
        """Adds a breach of this lane."""
        self.checker.report(rule, f"lane {self.lane}", message, row["start"], row["provenance"], claimants)

    def run(self) -> None:
        """Events in order of start, then the pairs that overlap in time."""
        if not (self.phases or self.launches or self.dmas):
            return
        self.residency = Residency(self.machine)
        events: list[tuple[int, int, int, Callable[[Row], None], Row]] = []
        events += [(row["start"], 0, i, self._phase, row) for i, row in enumerate(self.phases)]
        events += [(row["start"], 1, i, self._dma, row) for i, row in enumerate(self.dmas)]
        events += [(row["start"], 2, i, self._launch, row) for i, row in enumerate(self.launches)]
        for _, _, _, handle, row in sorted(events, key=lambda event: event[:3]):
            handle(row)
        self._order()
        self._overlaps()
        self.result.exits[self.lane] = self.written

    def _phase(self, row: Row) -> None:
        kind, target = Phase(row["kind"]), row["target"]
        if kind != Phase.REGV:
            self.enabled.clear()
            self.taken.clear()
        if kind == Phase.CONF:
            kernels = self.decoded.kernels
            held = kernels[self.held.kernel] if self.held.kernel != UNKNOWN else None
            expected = conf_cycles(self.machine, changed_slots(self.machine, held, kernels[target]))
            self.held.kernel = self.written.kernel = target
        elif kind == Phase.REGV:
            wanted = self.decoded.register_sets[target]
            expected = store_cycles(self.machine, self._changed_registers(target))
            self.held.values.update(wanted)
            self.written.values.update(wanted)
        else:
            ranges = self.decoded.range_sets[target]
            expected = store_cycles(self.machine, changed_ranges(self.held.ranges, ranges))
            self.held.ranges.update(ranges)
            self.written.ranges.update(ranges)
        if kind != Phase.CONF:
            self.newest[kind] = target
        if row["length"] != expected:
            self.report("CGLA-032", f"{kind.name} of {target} lasts {row['length']} cycles, it takes {expected}", row)

    def _changed_registers(self, target: int) -> int:
        """Stores of a REGV phase, counted once for two sets that follow one another and name the same registers."""
        sets, newest = self.decoded.register_sets, self.newest[Phase.REGV]
        if newest == UNKNOWN or sets[newest].keys() != sets[target].keys():
            return changed_registers(self.held.values, sets[target])
        known = self.decoded.register_changes
        if (newest, target) not in known:
            known[(newest, target)] = changed_registers(sets[newest], sets[target])
        return known[(newest, target)]

    def _dma(self, row: Row) -> None:
        assert self.residency is not None
        drain = row["direction"] == Direction.DRAIN
        first, last = row["lmm"], row["lmm"] + row["bytes"] - 1
        key = (row["tag"], drain, first, last)
        if self.taken.get(key) is None:
            self.taken[key] = self._parts(row, drain, first, last)
        parts = self.taken[key]
        if parts is None:
            return
        mask = sum(1 << part[0] for part in parts)
        if mask != row["rows"]:
            rule = "CGLA-023" if drain else "CGLA-022"
            self.report(rule, f"rows {mask:#x} take part, the program lists {row['rows']:#x}", row)
        if self.steady.get(id(parts)) != self.residency.state:
            self._move(row, parts, drain)
        self.result.parts[row["index"]] = parts
        self.result.steps.append((row["start"], "dma", row["index"]))

    def _parts(self, row: Row, drain: bool, first: int, last: int) -> list[RowPart] | None:
        """What each row gives or takes; None where that breaks a rule."""
        parts = row_parts(self._receivers(row["tag"], drain), first, last)
        rule = "CGLA-023" if drain else "CGLA-022"
        word = "gives" if drain else "takes"
        for part in parts:
            if part[4] == 0:
                self.report(rule, f"row {part[0]} {word} beats with tag {row['tag']}, and its slot is not configured", row)
            elif part[2] - part[1] + 1 > part[4]:
                self.report("CGLA-021", f"the descriptor of row {part[0]} is wider than its partition of {part[4]} bytes", row)
        if any(part[4] == 0 or part[2] - part[1] + 1 > part[4] for part in parts):
            return None
        if not self._covered(parts, first, last):
            self.report(rule, f"bytes of {first}..{last} that no enabled descriptor of slot {row['tag']} {word}", row)
            return None
        return parts

    def _move(self, row: Row, parts: list[RowPart], drain: bool) -> None:
        """Residency of a DMA; a drain or load that changed nothing and broke no rule does so again while the contents stay."""
        assert self.residency is not None
        before = self.residency.state, len(self.checker.result.violations)
        if drain:
            self._drain(row, parts)
        else:
            for part in parts:
                self.residency.load(part)
        if before == (self.residency.state, len(self.checker.result.violations)):
            self.steady[id(parts)] = self.residency.state

    def _receivers(self, tag: int, read: bool) -> list[RowPart]:
        """Enabled descriptors of a slot, kept until the next register phase."""
        if (tag, read) not in self.enabled:
            kernel = self.decoded.kernels[self.held.kernel] if self.held.kernel != UNKNOWN else None
            self.enabled[(tag, read)] = receivers(self.machine, kernel, self.held.ranges, tag, read)
        return self.enabled[(tag, read)]

    @staticmethod
    def _covered(parts: Sequence[RowPart], first: int, last: int) -> bool:
        reach = first
        for low, high in sorted((part[1], part[2]) for part in parts):
            if low > reach:
                return False
            reach = max(reach, high + 1)
        return reach > last

    def _drain(self, row: Row, parts: Sequence[RowPart]) -> None:
        assert self.residency is not None
        lines = sorted((part[1] // 32, part[2] // 32 + 1, part[0]) for part in parts)
        for one, two in overlapping([(low, high) for low, high, _ in lines]):
            message = f"a line is given by rows {lines[one][2]} and {lines[two][2]}"
            self.report("CGLA-023", message, row)
        for part in parts:
            byte = self.residency.missing(part)
            if byte is not None:
                self.report("CGLA-023", f"drains byte {byte} of row {part[0]}, which was never loaded or stored", row)

    def _launch(self, row: Row) -> None:
        assert self.residency is not None
        kernel = self.decoded.kernels[row["kernel"]]
        self._relies(row)
        if not kernel.usable:
            return
        plan = self.decoded.planner.plan(row["kernel"], row["registers"])
        key = (row["kernel"], row["registers"])
        if not plan.usable:
            if key not in self.told:
                for violation in plan.violations:
                    claimants = (*violation.claimants, f"launch {row['index']} of lane {self.lane}")
                    self.report(violation.rule, f"{violation.unit}: {violation.message}", row, claimants)
                self.told.add(key)
            return
        expected = self.machine.t_launch + plan.exec_cycles
        if row["length"] != expected:
            self.report("CGLA-032", f"launch lasts {row['length']} cycles, it takes {expected}", row)
        self.result.launches[row["index"]] = plan
        self.result.steps.append((row["start"], "launch", row["index"]))
        if self.steady.get(id(plan)) != self.residency.state:
            self._touch(row, plan)

    def _touch(self, row: Row, plan: LaunchPlan) -> None:
        """Loads and stores of a launch; one that changed nothing and broke no rule does so again while the contents stay."""
        assert self.residency is not None
        before = self.residency.state
        wrong = self.residency.mismatches(plan)
        for rule, address, access in wrong:
            where = f"row {access.row} slot {access.col} EA{access.ea}"
            what = "was never loaded or stored" if rule == "CGLA-017" else "lies under another array"
            self.report(rule, f"{where} loads byte {address}, which {what}", row)
        for access in plan.accesses:
            if access.store:
                self.residency.store(access)
        if self.residency.state == before and not wrong:
            self.steady[id(plan)] = before

    def _relies(self, row: Row) -> None:
        if self.held.kernel != row["kernel"]:
            self.report("CGLA-031", f"launch of kernel {row['kernel']}, the lane holds {self.held.kernel}", row)
        if self.newest[Phase.REGV] != row["registers"]:
            self._relies_on_values(row)
        if row["ranges"] not in (-1, self.newest[Phase.RANGE]):
            ranges = self.decoded.range_sets[row["ranges"]]
            moved = sorted(place for place, descriptor in ranges.items() if self.held.ranges.get(place) != descriptor)
            if moved:
                self.report("CGLA-031", f"descriptor of row {moved[0][0]} slot {moved[0][1]} is not what was last written", row)

    def _relies_on_values(self, row: Row) -> None:
        """Register values against what the lane holds (a set that was just written holds by itself)."""
        wanted = self.decoded.register_sets[row["registers"]]
        unknown = sorted(place for place in wanted if place not in self.held.values)
        stale = sorted(place for place, value in wanted.items() if place in self.held.values and self.held.values[place] != value)
        constants = [place for place in unknown if place[2] <= 3]
        if constants:
            self.report("CGLA-005", f"constant of row {constants[0][0]} slot {constants[0][1]} BR{constants[0][2]} was never written", row)
        others = [place for place in unknown if place[2] > 3] + stale
        if others:
            self.report("CGLA-031", f"register {others[0][2]} of row {others[0][0]} slot {others[0][1]} is not what was last written", row)

    # --- overlaps in time --------------------------------------------------------------------------------------------------------

    def _order(self) -> None:
        whole = [(row["start"], row["start"] + row["length"]) for row in self.launches]
        for one, two in overlapping(whole):
            message = "two launches of one lane overlap"
            claimants = [f"launch {self.launches[i]['index']}" for i in (one, two)]
            self.report("CGLA-030", message, self.launches[two], claimants)
        phases = [(row["start"], row["start"] + row["length"]) for row in self.phases]
        for one, two in overlapping(phases):
            names = [Phase(self.phases[i]["kind"]).name for i in (one, two)]
            self.report("CGLA-030", f"{names[0]} and {names[1]} of one lane overlap", self.phases[two])
        busy = whole + [(row["start"], row["start"] + row["length"]) for row in self.dmas]
        names = ["a launch"] * len(whole) + ["a DMA"] * len(self.dmas)
        for i, j in crossing(phases, busy):
            message = f"{Phase(self.phases[i]['kind']).name} while {names[j]} at {busy[j][0]}..{busy[j][1]} runs on the lane"
            self.report("CGLA-029", message, self.phases[i])

    def _overlaps(self) -> None:
        data = [self.checker.data_span(row) for row in self.dmas]
        whole = [(row["start"], row["start"] + row["length"]) for row in self.launches]
        footprints: dict[int, dict[int, tuple[Ints, Ints]]] = {}
        fine: set[tuple[Any, ...]] = set()
        for i, j in crossing(whole, data):
            launch, dma = self.launches[i], self.dmas[j]
            plan = self.result.launches.get(launch["index"])
            parts = self.result.parts.get(dma["index"])
            if plan is None or parts is None:
                continue
            if id(plan) not in footprints:
                footprints[id(plan)] = _footprint(plan, self.machine.lmm_bytes // 32)
            executing = data[j][1] > launch["start"] + self.machine.t_launch
            key = (id(plan), id(parts), dma["tag"], dma["direction"], executing, dma["iv_num"], dma["iv_den"])
            if key not in fine:
                known = len(self.checker.result.violations)
                self._collision(launch, dma, parts, footprints[id(plan)])
                if executing:
                    self._ports(launch, dma, parts, plan)
                if known == len(self.checker.result.violations):
                    fine.add(key)
        for one, two in _pairs(data):
            if Direction.LOAD in (self.dmas[one]["direction"], self.dmas[two]["direction"]):
                left, right = (self.result.parts.get(self.dmas[i]["index"], []) for i in (one, two))
                if _parts_meet(left, right):
                    claimants = [f"DMA {self.dmas[i]['index']}" for i in (one, two)]
                    self.report("CGLA-030", "two DMAs touch the same LMM bytes at once", self.dmas[two], claimants)

    def _collision(self, launch: Row, dma: Row, parts: Sequence[RowPart], footprint: dict[int, tuple[Ints, Ints]]) -> None:
        load = dma["direction"] == Direction.LOAD
        for part in parts:
            if part[0] not in footprint:
                continue
            reads, writes = footprint[part[0]]
            for low, high in _physical(part):
                for lines in (reads, writes) if load else (writes,):
                    if np.searchsorted(lines, high // 32, side="right") > np.searchsorted(lines, low // 32, side="left"):
                        verb = "loads into" if load else "drains"
                        message = f"{verb} LMM lines of row {part[0]} that launch {launch['index']} uses at the same time"
                        self.report("CGLA-025", message, dma, (f"launch {launch['index']}", f"DMA {dma['index']}"))
                        return

    def _ports(self, launch: Row, dma: Row, parts: Sequence[RowPart], plan: LaunchPlan) -> None:
        load = dma["direction"] == Direction.LOAD
        name, ea = ("IM_PREF", 0) if load else ("IM_DRAIN", 1)
        slots = plan.kernel.slots
        bare = [part[0] for part in parts if (part[0], dma["tag"]) not in slots or slots[(part[0], dma["tag"])].memory(ea) != name]
        if bare:
            self.report("CGLA-026", f"row {bare[0]} slot {dma['tag']} has no {name} in the kernel that runs", dma)
        worst = max((plan.kernel.port_ops(part[0], ea) for part in parts), default=0)
        floor = port_interval(worst)
        if floor is None or _fraction(dma["iv_num"], dma["iv_den"]) < floor:
            left = "no port cycle" if floor is None else f"a beat every {floor} cycles"
            message = f"a row with {worst} EA{ea} ops leaves {left} during EXEC"
            self.report("CGLA-027", message, dma, (f"launch {launch['index']}", f"DMA {dma['index']}"))


def _footprint(plan: LaunchPlan, lines: int) -> dict[int, tuple[Ints, Ints]]:
    """Physical 32-byte lines of each row (of `lines`) that a launch reads and writes, ascending."""
    marks: dict[int, tuple[NDArray[np.bool_], NDArray[np.bool_]]] = {}
    for access in plan.accesses:
        if access.row not in marks:
            marks[access.row] = np.zeros(lines, dtype=bool), np.zeros(lines, dtype=bool)
        marks[access.row][int(access.store)][access.physical(access.words) // 32] = True
    return {row: (np.flatnonzero(read), np.flatnonzero(written)) for row, (read, written) in marks.items()}


def _physical(part: RowPart) -> list[tuple[int, int]]:
    """Inclusive physical byte ranges of a row part."""
    return [(physical, physical + count - 1) for physical, _, count in pieces(part)]


def _pairs(spans: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
    return [(i, j) for i, j in crossing(spans, spans) if i < j]


def _parts_meet(left: Sequence[RowPart], right: Sequence[RowPart]) -> bool:
    rows: dict[int, list[tuple[int, int]]] = {}
    for part in left:
        rows.setdefault(part[0], []).extend(_physical(part))
    return any(low <= high2 and low2 <= high for part in right for low, high in _physical(part) for low2, high2 in rows.get(part[0], ()))


__all__ = ["SegmentReport", "check_segment", "length", "rows_of"]
