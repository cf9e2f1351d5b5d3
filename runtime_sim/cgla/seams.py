"""From segments to the program: instances in time, register state over the seams, bound buffers and written bytes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from ...errors import Violation
from ...machines.cgla.tables import BufferKind
from ...machines.program import length
from .decode import DDR_ALIGN, Decoded
from .lane import UNKNOWN, Registers
from .segment import FAR, SegmentReport, check_segment, rows_of

PROGRAM_END = "program end"


@dataclass
class Verdict:
    """All that `check` finds out: breaches, the instances with their binds, and the reports of their segments."""

    decoded: Decoded
    violations: list[Violation] = field(default_factory=list)
    reports: dict[int, SegmentReport] = field(default_factory=dict)
    instances: list[tuple[int, int]] = field(default_factory=list)
    binds: list[dict[int, tuple[int, int]]] = field(default_factory=list)
    cycles: int = 0
    runnable: bool = True


def judge(decoded: Decoded) -> Verdict:
    """Checks every segment once and every instance at its seams."""
    verdict = Verdict(decoded, list(decoded.violations))
    _instances(verdict)
    for number in sorted({segment for segment, _ in verdict.instances}):
        report = check_segment(decoded, decoded.program.segments[number])
        verdict.reports[number] = report
        first = next(cycle for segment, cycle in verdict.instances if segment == number)
        for breach in report.violations:
            at = breach.cycle + first if breach.cycle >= 0 else -1
            verdict.violations.append(Violation(breach.rule, at, breach.unit, breach.message, breach.claimants, breach.provenance))
    _binds(verdict)
    _time(verdict)
    _registers(verdict)
    _data(verdict)
    return verdict


def _report(verdict: Verdict, rule: str, unit: str, message: str, cycle: int = -1, source: int = -1) -> None:
    verdict.violations.append(Violation(rule, cycle, unit, message, (), verdict.decoded.provenance(source)))


def _instances(verdict: Verdict) -> None:
    program = verdict.decoded.program
    for index, row in enumerate(rows_of(program.tables["instances"])):
        if not 0 <= row["segment"] < len(program.segments) or not 0 <= row["cycle"] < FAR:
            _report(verdict, "CGLA-001", f"instance {index}", f"segment {row['segment']} at cycle {row['cycle']}", -1, row["provenance"])
            verdict.runnable = False
            continue
        verdict.instances.append((row["segment"], row["cycle"]))


def _binds(verdict: Verdict) -> None:
    program = verdict.decoded.program
    verdict.binds = [{} for _ in verdict.instances]
    sizes = program.tables["buffers"]["bytes"].tolist()
    if len(verdict.instances) != length(program.tables["instances"]):
        verdict.runnable = False
        return
    for row in rows_of(program.tables["binds"]):
        instance, symbol, buffer, offset = row["instance"], row["symbol"], row["buffer"], row["offset"]
        good = 0 <= instance < len(verdict.instances) and 0 <= buffer < len(sizes)
        symbols = verdict.reports[verdict.instances[instance][0]].symbols if good else []
        good = good and 0 <= symbol < len(symbols) and symbol not in verdict.binds[instance]
        if not good:
            _report(verdict, "CGLA-001", f"instance {instance}", f"symbol {symbol} bound to buffer {buffer}: unknown or bound twice")
            verdict.runnable = False
            continue
        if offset < 0 or offset % DDR_ALIGN or offset + symbols[symbol] > sizes[buffer]:
            message = f"symbol {symbol} of {symbols[symbol]} bytes at byte {offset} (mod {DDR_ALIGN} = 0) of a buffer of {sizes[buffer]}"
            _report(verdict, "CGLA-036", f"instance {instance}", message)
            verdict.runnable = False
            continue
        verdict.binds[instance][symbol] = (buffer, offset)
    for index, (segment, _) in enumerate(verdict.instances):
        missing = sorted(set(range(len(verdict.reports[segment].symbols))) - set(verdict.binds[index]))
        if missing:
            _report(verdict, "CGLA-036", f"instance {index}", f"symbol {missing[0]} is not bound to a buffer")
            verdict.runnable = False


def _time(verdict: Verdict) -> None:
    end = 0
    for index, (segment, cycle) in enumerate(verdict.instances):
        if cycle < end:
            _report(verdict, "CGLA-030", f"instance {index}", f"starts at {cycle}, the instance before it ends at {end}", cycle)
        end = max(end, cycle + verdict.reports[segment].length)
    verdict.cycles = end
    predicted = verdict.decoded.program.predicted_cycles
    if predicted != end:
        _report(verdict, "CGLA-032", PROGRAM_END, f"predicts {predicted} cycles, it takes {end}", end)


def _registers(verdict: Verdict) -> None:
    lanes = {lane: Registers() for lane in range(verdict.decoded.machine.lanes)}
    for index, (segment, cycle) in enumerate(verdict.instances):
        report = verdict.reports[segment]
        for lane, entry in sorted(report.entries.items()):
            held = lanes[lane]
            message = _missing(held, entry)
            if message:
                _report(verdict, "CGLA-031", f"instance {index} lane {lane}", f"enters with {message}", cycle)
        for lane, written in sorted(report.exits.items()):
            if written.kernel != UNKNOWN:
                lanes[lane].kernel = written.kernel
            lanes[lane].values.update(written.values)
            lanes[lane].ranges.update(written.ranges)


def _missing(held: Registers, entry: Registers) -> str:
    if entry.kernel not in (UNKNOWN, held.kernel):
        return f"kernel {entry.kernel}, the lane holds {held.kernel}"
    for place, value in entry.values.items():
        if held.values.get(place) != value:
            return f"register {place[2]} of row {place[0]} slot {place[1]} = {value:#x}, the lane holds {held.values.get(place)}"
    for slot, descriptor in entry.ranges.items():
        if held.ranges.get(slot) != descriptor:
            return f"the descriptor of row {slot[0]} slot {slot[1]} = {descriptor}, the lane holds {held.ranges.get(slot)}"
    return ""


def _data(verdict: Verdict) -> None:
    """Written bytes of every buffer, instance after instance (CGLA-036)."""
    if not verdict.runnable:
        return
    table = verdict.decoded.program.tables["buffers"]
    kinds, sizes = table["kind"].tolist(), table["bytes"].tolist()
    written: dict[int, NDArray[np.bool_]] = {
        i: np.zeros(sizes[i], dtype=bool) for i, kind in enumerate(kinds) if kind in (BufferKind.WORK, BufferKind.OUTPUT)
    }
    for index, (segment, cycle) in enumerate(verdict.instances):
        report, binds = verdict.reports[segment], verdict.binds[index]
        _aliases(verdict, index, report, binds)
        for symbol, use in sorted(report.uses.items()):
            buffer, offset = binds[symbol]
            flags = written.get(buffer)
            if flags is None:
                if use.write_hull is not None and kinds[buffer] in (BufferKind.IMAGE, BufferKind.INPUT):
                    message = f"writes buffer {buffer}, an {BufferKind(kinds[buffer]).name}"
                    _report(verdict, "CGLA-036", f"instance {index}", message, cycle)
                continue
            for low, high in use.required.tolist():
                if not flags[offset + low : offset + high].all():
                    message = f"reads bytes of buffer {buffer} that nothing has written (symbol {symbol}, bytes {low}..{high})"
                    _report(verdict, "CGLA-036", f"instance {index}", message, cycle)
                    break
        for symbol, use in sorted(report.uses.items()):
            buffer, offset = binds[symbol]
            for low, high in use.provided.tolist() if buffer in written else ():
                written[buffer][offset + low : offset + high] = True
    outputs = [i for i, kind in enumerate(kinds) if kind == BufferKind.OUTPUT]
    for buffer in outputs:
        if not written[buffer].all():
            _report(verdict, "CGLA-036", f"buffer {buffer}", "an output that is not written whole")


def _aliases(verdict: Verdict, index: int, report: SegmentReport, binds: Mapping[int, tuple[int, int]]) -> None:
    """Symbols of one instance may share bytes only where none of them is written: the segment was checked with them apart."""
    spans = []
    for symbol, use in sorted(report.uses.items()):
        buffer, offset = binds[symbol]
        spans.append((buffer, offset + use.hull[0], offset + use.hull[1], symbol, use.write_hull is not None))
    spans.sort()
    for position, (buffer, _, high, symbol, writes) in enumerate(spans):
        for other, low, _, second, also in spans[position + 1 :]:
            if other != buffer or low >= high:
                break
            if writes or also:
                message = f"symbols {symbol} and {second} share bytes of buffer {buffer}, and one of them is written"
                _report(verdict, "CGLA-036", f"instance {index}", message)
