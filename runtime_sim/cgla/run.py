"""Runs a judged program on data: instance after instance, each segment's steps in order of their start."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from ...errors import Violation
from ...machines.cgla.tables import BufferKind, Direction
from .account import state_buffers
from .chain_forms import LaneMemory
from .host import HostError, HostTask, run_task
from .launch import run_launch
from .memory import Ddr, check_names
from .seams import Verdict
from .segment import Row, RowPart, SegmentReport

Bytes = NDArray[np.uint8]


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
    breaches: list[Violation] = []
    for index, (segment, cycle) in enumerate(verdict.instances):
        report = verdict.reports[segment]
        runner = _Instance(report, ddr, verdict.binds[index], lanes)
        for start, kind, number in report.steps:
            try:
                runner.step(kind, number, exact)
            except HostError as error:
                unit = f"instance {index} {kind} {number}"
                breaches.append(Violation(error.rule, cycle + start, unit, str(error)))
                return {}, {}, breaches
    outputs = {binding.name: ddr.get(number) for number, binding in state_buffers(verdict, BufferKind.OUTPUT)}
    after = {binding.name: ddr.get(number) for number, binding in state_buffers(verdict, BufferKind.STATE)}
    return outputs, after, breaches


class _Instance:
    def __init__(self, report: SegmentReport, ddr: Ddr, binds: Mapping[int, tuple[int, int]], lanes: Sequence[LaneMemory]) -> None:
        self.report = report
        self.ddr = ddr
        self.binds = binds
        self.lanes = lanes
        self.launch_lane = report.segment.tables["launches"]["lane"].tolist()

    def view(self, symbol: int) -> Bytes:
        """The bytes of a symbol of this instance."""
        buffer, offset = self.binds[symbol]
        return self.ddr.buffers[buffer][offset : offset + self.report.symbols[symbol]]

    def step(self, kind: str, number: int, exact: bool) -> None:
        """One DMA, launch or host task."""
        if kind == "launch":
            run_launch(self.report.launches[number], self.lanes[self.launch_lane[number]], exact)
        elif kind == "dma":
            self._dma(self.report.dmas[number], self.report.parts[number])
        else:
            task = self.report.tasks[number]
            assert isinstance(task, HostTask)
            run_task(task, self.view)

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
        for number, low, high, start, size in parts:
            first, count = low - row["lmm"], high - low + 1
            place = low % size
            head = min(count, size - place)
            local = lane.data[number]
            if row["direction"] == Direction.LOAD:
                lane.touch(number)
            pieces = ((start + place, first, head), (start, first + head, count - head))
            for at, source, amount in pieces:
                if amount and row["direction"] == Direction.LOAD:
                    local[at : at + amount] = data[source : source + amount]
                elif amount:
                    data[source : source + amount] = local[at : at + amount]
