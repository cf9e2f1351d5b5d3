"""Runs a judged program on data: instance after instance, each segment's steps in order of their start.

What overlaps in the machine's time may overlap here: a launch runs in a thread until a launch of its lane starts, or data of a request
move, after it has ended. The rules have shown that requests beside it touch other bytes (CGLA-025, CGLA-030), so a program that breaks any
rule runs step by step.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from ...errors import Violation
from ...machines.cgla.tables import BufferKind, Direction
from ..threads import THREADS
from .account import state_buffers
from .chain_forms import LaneMemory
from .chains import expect
from .host import HostError, HostTask, run_task
from .lane import RowPart, pieces
from .launch import run_launch, summed_stores
from .memory import Ddr, check_names
from .seams import Verdict
from .segment import Row, SegmentReport

Bytes = NDArray[np.uint8]
THREADED_MACS = 1 << 17


@lru_cache(maxsize=1)
def _pool() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(THREADS)


def run_program(
    verdict: Verdict, inputs: Mapping[str, np.ndarray], states: Mapping[str, np.ndarray], exact: bool
) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray], list[Violation]]:
    """(outputs, states after, breaches that only data show). Raises BadInput for inputs that do not fit."""
    program, machine = verdict.decoded.program, verdict.decoded.machine
    check_names(program, inputs, "input")
    check_names(program, states, "state")
    ddr = Ddr(verdict.decoded)
    for number, binding in state_buffers(verdict, BufferKind.INPUT):
        ddr.put(number, inputs[binding.name])
    for number, binding in state_buffers(verdict, BufferKind.STATE):
        if binding.name in states:
            ddr.put(number, states[binding.name])
    lanes = [LaneMemory(machine.rows, machine.lmm_bytes) for _ in range(machine.lanes)]
    threads = not exact and not verdict.violations
    breaches: list[Violation] = []
    if not exact:
        expect(sum(verdict.reports[segment].counts.get("macs", 0.0) for segment, _ in verdict.instances))
    for index, (segment, cycle) in enumerate(verdict.instances):
        report = verdict.reports[segment]
        runner = _Instance(report, ddr, verdict.binds[index], lanes, machine.t_dma, exact, threads)
        for start, kind, number in report.steps:
            try:
                runner.step(start, kind, number)
            except HostError as error:
                unit = f"instance {index} {kind} {number}"
                breaches.append(Violation(error.rule, cycle + start, unit, str(error)))
                return {}, {}, breaches
        runner.finish()
    outputs = {binding.name: ddr.get(number) for number, binding in state_buffers(verdict, BufferKind.OUTPUT)}
    after = {binding.name: ddr.get(number) for number, binding in state_buffers(verdict, BufferKind.STATE)}
    return outputs, after, breaches


class _Instance:
    def __init__(
        self,
        report: SegmentReport,
        ddr: Ddr,
        binds: Mapping[int, tuple[int, int]],
        lanes: Sequence[LaneMemory],
        t_dma: int,
        exact: bool,
        threads: bool,
    ) -> None:
        self.report = report
        self.ddr = ddr
        self.binds = binds
        self.lanes = lanes
        self.t_dma = t_dma
        self.exact = exact
        self.threads = threads
        self.launch_lane = report.segment.tables["launches"]["lane"].tolist()
        self.launch_length = report.segment.tables["launches"]["length"].tolist()
        self.running: dict[int, tuple[int, Future[None]]] = {}

    def view(self, symbol: int) -> Bytes:
        """The bytes of a symbol of this instance."""
        buffer, offset = self.binds[symbol]
        return self.ddr.buffers[buffer][offset : offset + self.report.symbols[symbol]]

    def step(self, start: int, kind: str, number: int) -> None:
        """One DMA, launch or host task."""
        if kind == "launch":
            lane = self.launch_lane[number]
            self._wait(lane, start)
            plan, memory = self.report.launches[number], self.lanes[lane]
            if self.threads and plan.counts["macs"] >= THREADED_MACS and summed_stores(plan, memory) is not None:
                self.running[lane] = start + self.launch_length[number], _pool().submit(run_launch, plan, memory, False)
            else:
                run_launch(plan, memory, self.exact)
        elif kind == "dma":
            row = self.report.dmas[number]
            self._wait(row["lane"], start + self.t_dma)  # its data move from then on
            self._dma(row, self.report.parts[number])
        else:
            task = self.report.tasks[number]
            assert isinstance(task, HostTask)
            run_task(task, self.view)

    def finish(self) -> None:
        """Waits for every launch."""
        for lane in list(self.running):
            self._wait(lane, None)

    def _wait(self, lane: int, start: int | None) -> None:
        """Waits for the launch of a lane if it has ended by cycle `start` (None: in any case)."""
        if lane in self.running and (start is None or self.running[lane][0] <= start):
            self.running.pop(lane)[1].result()

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
