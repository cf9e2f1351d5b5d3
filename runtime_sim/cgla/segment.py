"""One segment, checked once for all its instances: fields, register state, residency, DMA, time and order of data.

The result, a `SegmentReport`, holds what instances need: the breaches (with relative cycles), the length, the cycles of each cause, what
the segment relies on at its entry and leaves at its exit, and the order in which a run takes its steps.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from functools import lru_cache
from typing import Any

import numpy as np

from ...errors import Violation
from ...machines.cgla.tables import Direction, Phase
from ...machines.cgla.timing import beats, dma_cycles
from ...machines.program import Segment, length
from .ddr_order import Access, SymbolUse, order_accesses
from .decode import DDR_ALIGN, Decoded
from .host import HostError, HostTask, decode_tasks, shared_rows
from .intervals import overlapping, priority_cover, rate_peak
from .lane import Registers, RowPart
from .plan import ADDRESS_LIMIT, LaunchPlan
from .replay import LaneReplay

Row = dict[str, Any]


FAR = 1 << 48
"""Cycles beyond which a time cannot be meant; keeps sums of times inside 64 bits."""


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
    return Checker(decoded, segment).run()


class Checker:
    """One check of a segment: its rows, the report that grows, and the breaches of everything but the lanes (`replay.py`)."""

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
        if not (0 <= row["start"] < FAR and 0 <= row["length"] < FAR):
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
            if not (0 <= row["core"] < self.machine.cores and 0 <= row["start"] < FAR):
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
        known: dict[tuple[int, ...], tuple[Fraction, bool, int]] = {}
        for row in self.dma_rows:
            key = row["lmm"] % DDR_ALIGN, row["bytes"], row["iv_num"], row["iv_den"]
            if key not in known:
                rate = _fraction(row["iv_num"], row["iv_den"])
                known[key] = rate, rate < self.machine.beat_interval, dma_cycles(self.machine, row["lmm"], row["bytes"], rate)
            interval, fast, expected = known[key]
            if fast:
                message = f"{interval} cycles a beat; the machine needs {self.machine.beat_interval}"
                self.report("CGLA-027", f"lane {row['lane']} DMA", message, row["start"], row["provenance"])
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


__all__ = ["SegmentReport", "check_segment", "length", "rows_of"]
