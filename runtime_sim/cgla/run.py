"""Runs a judged program on data: instance after instance, each segment's steps in order of their start.

Launches that are matrix products run from DDR to DDR, many at once (`sources.py`): the rules have shown that every byte is there when it
is read and stays until then. So an exact run, and a program that breaks a rule about more than its predicted end, take every step as it is.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from ...errors import Violation
from ...machines.cgla.tables import BufferKind, Direction
from .account import state_buffers
from .chain_forms import LaneMemory
from .chains import expect
from .host import HostError, HostTask, run_task
from .lane import RowPart, pieces
from .launch import run_launch
from .memory import Ddr, check_names
from .plan import LaunchPlan
from .products import product_form, run_product
from .seams import PROGRAM_END, Verdict
from .segment import Row, SegmentReport
from .sources import Step, make_tape, plain_tape

Bytes = NDArray[np.uint8]


@dataclass(frozen=True)
class Run:
    """Outputs and states after a run, breaches that only data show, and whether sums were taken in another order than the machine's."""

    outputs: dict[str, np.ndarray]
    states: dict[str, np.ndarray]
    violations: list[Violation]
    blocked: bool


NOTHING = Run({}, {}, [], False)


class Runner:
    """A judged program whose schedule can be followed, ready to run: what does not depend on data is found in the first run."""

    def __init__(self, verdict: Verdict) -> None:
        self.verdict = verdict
        machine = verdict.decoded.machine
        self.lanes = [LaneMemory(machine.rows, machine.lmm_bytes) for _ in range(machine.lanes)]
        self.macs = sum(verdict.reports[segment].counts.get("macs", 0.0) for segment, _ in verdict.instances)
        # a wrong prediction moves nothing
        self.joinable = all(breach.unit == PROGRAM_END for breach in verdict.violations)

    @cached_property
    def joined_tapes(self) -> Mapping[int, Sequence[Step]]:
        """Steps by segment, matrix products joined."""
        return {number: make_tape(report, self.lanes) for number, report in self.verdict.reports.items()}

    def run(self, inputs: Mapping[str, np.ndarray], states: Mapping[str, np.ndarray], exact: bool) -> Run:
        """Runs it; without `exact`, launches may be taken as products. Raises BadInput for inputs that do not fit."""
        verdict = self.verdict
        program = verdict.decoded.program
        check_names(program, inputs, "input")
        check_names(program, states, "state")
        ddr = Ddr(verdict.decoded)
        for number, binding in state_buffers(verdict, BufferKind.INPUT):
            ddr.put(number, inputs[binding.name])
        for number, binding in state_buffers(verdict, BufferKind.STATE):
            if binding.name in states:
                ddr.put(number, states[binding.name])
        for lane in self.lanes:
            lane.clear()
        if not exact:
            expect(self.macs)
        joined = not exact and self.joinable
        tapes = self.joined_tapes if joined else {number: plain_tape(report) for number, report in verdict.reports.items()}
        blocked = False
        for index, (segment, cycle) in enumerate(verdict.instances):
            runner = _Instance(verdict.reports[segment], ddr, verdict.binds[index], self.lanes, exact, joined)
            for step in tapes[segment]:
                try:
                    runner.step(step)
                except HostError as error:
                    kind = "dma" if step.kind in ("load", "drain") else step.kind
                    breach = Violation(error.rule, cycle + step.start, f"instance {index} {kind} {step.number}", str(error))
                    return Run({}, {}, [breach], blocked)
            blocked = blocked or runner.blocked
        outputs = {binding.name: ddr.get(number) for number, binding in state_buffers(verdict, BufferKind.OUTPUT)}
        after = {binding.name: ddr.get(number) for number, binding in state_buffers(verdict, BufferKind.STATE)}
        return Run(outputs, after, [], blocked)


class _Instance:
    def __init__(
        self,
        report: SegmentReport,
        ddr: Ddr,
        binds: Mapping[int, tuple[int, int]],
        lanes: Sequence[LaneMemory],
        exact: bool,
        joined: bool,
    ) -> None:
        self.report = report
        self.ddr = ddr
        self.binds = binds
        self.lanes = lanes
        self.exact = exact
        self.joined = joined
        self.blocked = False
        self.launch_lane = report.segment.tables["launches"]["lane"].tolist()

    def view(self, symbol: int) -> Bytes:
        """The bytes of a symbol of this instance."""
        buffer, offset = self.binds[symbol]
        return self.ddr.buffers[buffer][offset : offset + self.report.symbols[symbol]]

    def step(self, step: Step) -> None:
        """One DMA, launch, host task or batch of products."""
        if step.batch is not None:
            self.blocked = True
            step.batch.run(self.view)
        elif step.kind == "launch":
            self._launch(self.report.launches[step.number], self.lanes[self.launch_lane[step.number]])
        elif step.kind == "host":
            task = self.report.tasks[step.number]
            assert isinstance(task, HostTask)
            run_task(task, self.view)
        else:
            self._dma(self.report.dmas[step.number], self.report.parts[step.number])

    def _launch(self, plan: LaunchPlan, lane: LaneMemory) -> None:
        form = product_form(plan, lane) if self.joined else None
        if form is None:
            run_launch(plan, lane, self.exact)
        else:
            self.blocked = True
            run_product(form, lane)

    def _dma(self, row: Row, parts: Sequence[RowPart]) -> None:
        offset = row["offset"]
        if row["index_symbol"] != -1:
            raw = self.view(row["index_symbol"])[row["index_offset"] : row["index_offset"] + row["index_bytes"]]
            value = int(raw.view(np.int32 if row["index_bytes"] == 4 else np.int64)[0])
            if not 0 <= value < row["index_limit"]:
                raise HostError("CGLA-036", f"the DMA index is {value}, it must be in 0..{row['index_limit'] - 1}")
            offset += value * row["index_stride"]
        data = self.view(row["symbol"])[offset : offset + row["bytes"]]
        lane = self.lanes[row["lane"]]
        for part in parts:
            local = lane.data[part[0]]
            if row["direction"] == Direction.LOAD:
                lane.touch(part[0])
            for place, logical, count in pieces(part):
                source = logical - row["lmm"]
                if row["direction"] == Direction.LOAD:
                    local[place : place + count] = data[source : source + count]
                else:
                    data[source : source + count] = local[place : place + count]
