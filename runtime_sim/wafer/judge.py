"""The verdict on a whole program: segments judged once, instances at their offsets, seams for real."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from hashlib import sha256

import numpy as np

from ...errors import BadInput, Violation
from ...machines.program import Program, Segment
from ...machines.wafer import tables as tb
from ...machines.wafer.description import WaferMachine, from_json, matches_preset
from .analysis import Analysis, analyse, union
from .breaches import Breaches
from .defects import PhysicalMap, check_dead, read_map
from .fields import FAR
from .host import check_streams
from .instances import Instance, Layout
from .model import Ints, frame_of
from .placing import Placements
from .seams import check_seams


@dataclass
class Judgement:
    """What `check` and `execute` both need: violations, layout (None where the program cannot be read further), cycles."""

    program: Program
    machine: WaferMachine
    violations: tuple[Violation, ...]
    layout: Layout | None
    cycles: int

    @cached_property
    def breakdown(self) -> dict[str, int]:
        """Cycles by cause, summing to `cycles`: some core computes; else some core moves data; else wavelets fly; else all wait."""
        layout = self.layout
        causes: dict[str, int] = {}
        known: Ints = np.zeros((0, 2), np.int64)
        for cause in ("compute", "moves", "flight"):
            parts = [getattr(i.analysis, cause) + i.start for i in layout.instances] if layout else []
            merged = union(np.concatenate([known, *parts]))
            causes[cause] = _length(merged) - _length(known)
            known = merged
        names = {"compute": causes["compute"], "communication": causes["moves"], "hops": causes["flight"]}
        return {**names, "wait": self.cycles - _length(known)}


def _length(spans: Ints) -> int:
    return int((spans[:, 1] - spans[:, 0]).sum()) if len(spans) else 0


def judge(program: Program, skip: frozenset[str] = frozenset()) -> Judgement:
    """Check everything that needs no data. Raises BadInput only where the container itself cannot be read."""
    machine = from_json(program.machine, "the program's machine")
    _validate(program)
    out = Breaches(skip, program.provenance)
    if not matches_preset(machine):
        out.add("W06", machine.name, f"differs from the preset {machine.preset!r} in fields that it does not list")
    placed = _instances(program, machine, out)
    if placed is None or out.fatal:
        return Judgement(program, machine, out.all(), None, 0)
    placements = Placements(program)
    layout = Layout(program, machine, placed, placements, out)
    if out.fatal:
        return Judgement(program, machine, out.all(), None, layout.end)
    layout.check()
    check_seams(layout, out)
    cycles = max(layout.end, check_streams(layout, out))
    if cycles != program.predicted_cycles:
        out.add("W52", "program", f"predicted {program.predicted_cycles} cycles, counted {cycles}")
    return Judgement(program, machine, out.all(), None if out.fatal else layout, cycles)


def _validate(program: Program) -> None:
    if program.target != "wafer":
        raise BadInput(f"the program is for {program.target!r}, not for the wafer")
    for kind in tb.PROGRAM_TABLES:
        if kind.name not in program.tables:
            raise BadInput(f"the program lacks the table {kind.name!r}")
        kind.validate(program.tables[kind.name], "program")
    for segment in program.segments:
        for kind in tb.SEGMENT_TABLES:
            if kind.name not in segment.tables:
                raise BadInput(f"segment {segment.name} lacks the table {kind.name!r}")
            kind.validate(segment.tables[kind.name], f"segment {segment.name}")


def _instances(program: Program, machine: WaferMachine, out: Breaches) -> list[Instance] | None:
    """Every instance with the analysis of its segment (per place where defects make places differ)."""
    t = {name: column.tolist() for name, column in program.tables["instances"].items()}
    physical = read_map(program, machine, out)
    ids = program.tables["placements"]["id"].tolist()
    if ids != sorted(set(ids)) or any(i < 0 for i in ids):
        out.add("W05", "table placements", "ids are not unique and ascending", fatal=True)
    for i, (segment, start) in enumerate(zip(t["segment"], t["start"], strict=True)):
        if not 0 <= segment < len(program.segments) or not 0 <= start < FAR or max(abs(t["x"][i]), abs(t["y"][i])) > 4096:
            out.add("W01", f"instance {i}", f"segment {segment} or start {start} is out of range", fatal=True)
    if out.fatal:
        return None
    found: list[Instance] = []
    known: dict[tuple[bytes, bytes], Analysis] = {}
    for number, segment in enumerate(t["segment"]):
        place = (t["x"][number], t["y"][number])
        analysis = _analysis(program, machine, segment, place, physical, known, out)
        if analysis is None:
            return None
        found.append(Instance(number, segment, *place, t["start"][number], analysis))
    if physical is not None:
        check_dead(physical, [i.rectangle(r) for i in found for r in i.analysis.seg.regions.values()], out)
    return found


def _analysis(
    program: Program, machine: WaferMachine, segment: int, place: tuple[int, int], physical: PhysicalMap | None,
    known: dict[tuple[bytes, bytes], Analysis], out: Breaches,
) -> Analysis | None:  # fmt: skip
    hops = None
    if physical is not None:
        fx, fy, fw, fh = frame_of(program.segments[segment])
        x, y = place[0] + fx, place[1] + fy
        if x < 0 or y < 0 or x + fw > physical.phi.shape[1] or y + fh > len(physical.rho):
            out.add("W04", f"segment {program.segments[segment].name}", "lies outside the physical map", fatal=True)
            return None
        hops = physical.hops(x, y, fw, fh)
    lengths = hops.length.tobytes() if hops else b""
    key = str(segment).encode(), lengths
    if key in known:
        return known[key]
    same = _content(program.segments[segment]), lengths
    if same in known:
        known[key] = known[same].named(program.segments[segment])
    else:
        mine = Breaches(out.skip, program.provenance)
        analysis = analyse(program.segments[segment], machine, mine, hops)
        name = program.segments[segment].name
        for v in mine.all():
            out.found.append(replace(v, unit=f"{name}: {v.unit}"))
        out.fatal |= mine.fatal
        if analysis is None:
            out.fatal = True
            return None
        known[key] = analysis
        if not mine.counts:
            # a segment without breaches stands for all that differ from it in names alone
            known[same] = analysis
    return known[key]


def _content(segment: Segment) -> bytes:
    """Digest of a segment's tables without the columns that only name where rows come from."""
    found = sha256()
    for name, table in sorted(segment.tables.items()):
        for column, array in sorted(table.items()):
            if column != "prov":
                found.update(f"{name}.{column} {array.dtype} {array.shape} ".encode())
                found.update(np.ascontiguousarray(array).tobytes())
    return found.digest()


def missing_images(program: Program, layout: Layout) -> list[str]:
    """Names of images that binds refer to and the program does not hold."""
    keys: Mapping[str, np.ndarray] = program.images
    wanted = {tb.image_key(b.image) for i in layout.instances for b in i.binds.values() if b.kind is not tb.BindKind.OBJECT}
    return sorted(wanted - set(keys))
