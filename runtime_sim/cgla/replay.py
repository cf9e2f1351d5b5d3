"""One lane of a segment, event after event: registers, residency, who takes part in a DMA, and what overlaps what.

A launch or DMA that changed nothing in the residency map and broke no rule does so again while the map stays as it is, so a tile that
follows another one in the same places is not looked at twice.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from fractions import Fraction
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ...machines.cgla.tables import Direction, Phase
from ...machines.cgla.timing import conf_cycles, port_interval, store_cycles
from .intervals import crossing, overlapping
from .lane import UNKNOWN, Registers, Residency, RowPart, changed_ranges, changed_registers, changed_slots, pieces, receivers, row_parts
from .plan import Ints, LaunchPlan

if TYPE_CHECKING:
    from .segment import Checker, Row


class LaneReplay:
    """Replays one lane of a segment: registers, residency, DMA receivers and what overlaps what."""

    def __init__(self, checker: Checker, lane: int) -> None:
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
        # its data begin when it is set up: what the host writes to DDR before then is moved
        self.result.steps.append((row["start"] + self.machine.t_dma, "dma", row["index"]))

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
        if floor is None or Fraction(dma["iv_num"], dma["iv_den"]) < floor:
            left = "no port cycle" if floor is None else f"a beat every {floor} cycles"
            message = f"a row with {worst} EA{ea} ops leaves {left} during EXEC"
            self.report("CGLA-027", message, dma, (f"launch {launch['index']}", f"DMA {dma['index']}"))


def _footprint(plan: LaunchPlan, lines: int) -> dict[int, tuple[Ints, Ints]]:
    """Physical 32-byte lines of each row (of `lines`) that a launch reads and writes, ascending."""
    marks: dict[int, tuple[NDArray[np.bool_], NDArray[np.bool_]]] = {}
    for access in plan.accesses:
        if access.row not in marks:
            marks[access.row] = np.zeros(lines, dtype=bool), np.zeros(lines, dtype=bool)
        marks[access.row][int(access.store)][access.places // 32] = True
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
