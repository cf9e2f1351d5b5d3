"""Fields, indices and places of a TSP program: rules TSP-001, 002, 003, 027, 030 to 033 (alignment), judged on tables alone.

Everything here is before instances are laid out, in all segments at once; what later checks index with has been ranged here.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ...errors import BadInput
from ...machines.program import Program, Segment, length
from ...machines.tsp import isa
from ...machines.tsp.description import TspMachine
from ...machines.tsp.isa import DType, Opcode
from ...machines.tsp.tables import BURSTS, PROGRAM_TABLES, SEGMENT_TABLES, STORED, Kind, mask_slices
from .flatten import (
    ACC_CODES,
    ALU_CODES,
    COMPARE_CODES,
    MASKED,
    ROLE_A,
    ROLE_B,
    ROLE_M,
    SXM_CODES,
    TWO_OPERANDS,
    among,
    expand,
    result_dtype,
    tap_widths,
)
from .layout import Array, Columns
from .report import Report, opcode_name

COMMON = ("unit", "opcode", "t0", "n", "i", "n2", "i2", "provenance")
FLAGS = ("add", "store", "emit", "first", "last", "modular", "null", "lowest", "a_dir", "b_dir", "m_dir")
ONE_CLAIM = (Opcode.READ, Opcode.GATHER, Opcode.PERMUTE, Opcode.SHIFT, Opcode.BROADCAST)
_MEM = (Opcode.READ, Opcode.WRITE, Opcode.GATHER, Opcode.SCATTER)
TIME_LIMIT = 1 << 46
"""Cycles and positions beyond this are out of range: sums of them still fit 64 bits."""

_KNOWN = np.array(sorted(isa.OPS))
_REACH = np.array([[g in reach for g in range(8)] for reach in isa.ROW_REACH])
_LARGE = np.array([alu in isa.LARGE_ALUS for alu in range(16)])
_ALLOWED = np.zeros((isa.QUEUES, 128), dtype=bool)
_TYPES = np.zeros((128, len(DType)), dtype=bool)
_NEEDS_LARGE = np.zeros(128, dtype=bool)
_USES = {column.name: np.zeros(128, dtype=bool) for column in BURSTS.columns}
for _op in isa.OPS.values():
    for _unit in range(isa.QUEUES):
        _ALLOWED[_unit, _op.opcode] = isa.QUEUE_CLASS[_unit] in _op.queues
    for _type in _op.dtypes or (DType.NONE,):
        _TYPES[_op.opcode, _type] = True
    _NEEDS_LARGE[_op.opcode] = _op.large
    for _name in (*COMMON, *_op.fields):
        _USES[_name][_op.opcode] = True


def check_container(program: Program) -> None:
    """Tables present, typed and of one length; raises BadInput for a container that cannot be read."""
    if program.target != "tsp":
        raise BadInput(f"the program is for {program.target!r}, not for tsp")
    for wanted, tables, where in [
        *((t, program.tables, "program") for t in PROGRAM_TABLES),
        *((t, s.tables, f"segment {s.name}") for s in program.segments for t in SEGMENT_TABLES),
    ]:
        if wanted.name not in tables:
            raise BadInput(f"{where} lacks the table {wanted.name}")
        wanted.validate(tables[wanted.name], where)


class SegmentChecks:
    """Checks of segments, whose tables lie one after the other; `fault` records rows of their bursts.

    Per burst its `segment`, its row `source` there, and of the segment's `objects` the first and how many there are; per claim the segment
    (`claimed`) and the same of its `bursts`. The burst of a claim and the object of a burst count within the segment.
    """

    def __init__(self, report: Report, machine: TspMachine, segments: Sequence[Segment]) -> None:
        self.report, self.machine, self.segments = report, machine, segments
        self.sound, self.numbers = np.ones(len(segments), bool), np.zeros(0, np.int64)

    def _join(self, numbers: Array) -> None:
        """Take these segments alone from here on."""
        self.numbers = numbers
        joined, sizes = [], []
        for name in ("bursts", "claims", "objects"):
            tables = [self.segments[k].tables[name] for k in numbers.tolist()]
            joined.append({column: np.concatenate([np.asarray(t[column], np.int64) for t in tables]) for column in tables[0]})
            sizes.append(np.array([length(table) for table in tables]))
        self.b, self.c, self.o = joined
        owner, self.source = expand(sizes[0])
        self.segment = numbers[owner]
        of = np.repeat(np.arange(len(numbers)), sizes[1])
        self.claimed = numbers[of]
        self.bursts = (np.cumsum(sizes[0]) - sizes[0])[of], sizes[0][of]
        self.objects = (np.cumsum(sizes[2]) - sizes[2])[owner], sizes[2][owner]

    def fault(self, rule: str, wrong: Array, say: Callable[[int], str]) -> None:
        """Record `rule` for every row where `wrong`."""
        rows = np.flatnonzero(wrong)
        if rule in ("TSP-001", "TSP-002"):
            self.sound[self.segment[rows]] = False
        pool = self.report.program.provenance
        for row in map(int, rows):
            if self.report.full(rule):
                self.report.add(rule, "")
                continue
            b = self.b
            source, name = int(b["provenance"][row]), self.segments[self.segment[row]].name
            self.report.add(
                rule, say(row), cycle=int(b["t0"][row]), unit=isa.unit_name(int(b["unit"][row])),
                claimants=[f"{name}#{self.source[row]} {opcode_name(int(b['opcode'][row]))}"],
                provenance=[pool[source]] if 0 <= source < len(pool) else [],
            )  # fmt: skip

    def run(self) -> bool:
        """All rules of this file, in stages; a segment whose breach leaves the rest without meaning goes no further.

        Returns whether there is none.
        """
        stages: tuple[tuple[Callable[[], None], ...], ...] = (
            (self._codes,), (self._fields,), (self._sizes,), (self._ranges,), (self._types,), (self._claim_fields,),
            (self._operands, self._claims), (self._alus, self._objects), (self._memory,),
        )  # fmt: skip
        for stage in stages:
            left = np.flatnonzero(self.sound)
            if not len(left):
                break
            if len(left) != len(self.numbers):
                self._join(left)
            for check in stage:
                check()
        return bool(self.sound.all())

    def _codes(self) -> None:
        b = self.b
        bad = ~np.isin(b["opcode"], _KNOWN) | (b["unit"] < 0) | (b["unit"] >= isa.QUEUES)
        self.fault("TSP-001", bad, lambda r: f"unit {b['unit'][r]} or opcode {b['opcode'][r]} is unknown")

    def _fields(self) -> None:
        b = self.b
        self.fault("TSP-001", ~_ALLOWED[b["unit"], b["opcode"]], lambda r: f"{isa.unit_name(int(b['unit'][r]))} does not run this opcode")
        code = b["opcode"]
        for column in BURSTS.columns:
            unused = ~_USES[column.name][code] & (b[column.name] != column.default)
            name = column.name
            self.fault("TSP-001", unused, lambda r, name=name: f"field {name} = {b[name][r]} is not used by this opcode")  # type: ignore[misc]

    def _within(self, name: str, low: int, high: int, rows: Any = True) -> None:
        column = self.b[name]
        self.fault("TSP-001", ((column < low) | (column > high)) & rows, lambda r: f"field {name} = {column[r]} is outside {low}..{high}")

    def _sizes(self) -> None:
        self._within("t0", -TIME_LIMIT, TIME_LIMIT)
        for name in ("n", "i", "n2"):
            self._within(name, 1, (1 << 31) - 1)

    def _ranges(self) -> None:
        b, m, within = self.b, self.machine, self._within
        within("i", 1, 1, b["n"] == 1)
        for name in ("stride", "entry_stride"):
            within(name, 0, 0, b["n"] == 1)
        for name in ("i2", "stride2", "entry_stride2"):
            within(name, 0, 0, b["n2"] == 1)
        slow = (b["n2"] > 1) & (b["i2"] <= (b["n"] - 1) * b["i"])
        self.fault("TSP-001", slow, lambda r: f"i2 = {b['i2'][r]} is not larger than the inner span {(b['n'][r] - 1) * b['i'][r]}")
        for name in FLAGS:
            within(name, 0, 1)
        within("dtype", 0, len(DType) - 1)
        within("dtype2", 0, len(DType) - 1)
        within("provenance", -1, len(self.report.program.provenance) - 1)
        within("half", 0, 2)
        within("half", 0, 0, b["dtype"] == DType.I8)
        within("bypass", 0, 255)
        within("bypass", 0, 0, b["lowest"] == 1)
        within("amount", 1 - m.vector, m.vector - 1)
        within("row", -(1 << 30), 1 << 30)

    def _types(self) -> None:
        b, code, m = self.b, self.b["opcode"], self.machine
        self.fault("TSP-001", ~_TYPES[code, b["dtype"]], lambda r: f"dtype {DType(int(b['dtype'][r])).name} is not one of this opcode")
        ints = np.isin(b["dtype2"], (DType.I8, DType.I16, DType.I32))
        wrong = (among(code, COMPARE_CODES) | among(code, MASKED)) & ~ints | (code == Opcode.CAST) & (b["dtype2"] == DType.NONE)
        self.fault("TSP-001", wrong, lambda r: f"dtype2 {DType(int(b['dtype2'][r])).name} is not one of this opcode")
        lw = code == Opcode.LW
        rows = b["row0"] + m.lw_rows * b["n"]
        outside = lw & ((b["row0"] < 0) | (rows > m.vector) | (b["n2"] > 1))
        self.fault("TSP-001", outside, lambda r: f"buffer rows {b['row0'][r]}..{rows[r] - 1} are not within 0..{m.vector - 1}")
        self.fault("TSP-001", (code == Opcode.IW) & (b["n"] * b["n2"] > 1), lambda r: "an IW burst has one element")
        self.fault("TSP-001", (code == Opcode.ACC) & (b["store"] + b["emit"] == 0), lambda r: "an ACC neither stores nor emits")
        passing = (code == Opcode.ACC) & (b["add"] + b["store"] == 0)
        for name in ("entry", "entry_stride", "entry_stride2"):
            self._within(name, 0, 0, passing)
        link = among(code, (Opcode.SEND, Opcode.RECEIVE))
        wrong = link & ((b["link"] < 0) | (b["link"] >= m.links) | (b["link"] // 8 != (b["unit"] - isa.SXM_BASE) // isa.SXM_QUEUES))
        self.fault("TSP-001", wrong, lambda r: f"link {b['link'][r]} is not of this hemisphere")

    def _operands(self) -> None:
        b = self.b
        for role, prefix in ((ROLE_A, "a"), (ROLE_B, "b"), (ROLE_M, "m")):
            width = tap_widths(b, role)
            stream = b[f"{prefix}_stream"]
            wrong = (width > 0) & ((stream < 0) | (stream + width > self.machine.streams))
            self.fault("TSP-001", wrong, lambda r, stream=stream: f"streams from {stream[r]} are not within 0..31")  # type: ignore[misc]
        code = b["opcode"]
        group = np.where(code == Opcode.TRANSPOSE, 16, np.where((code == Opcode.DISTRIBUTE) & (b["lowest"] == 0), 8, 1))
        self.fault("TSP-001", b["a_stream"] % group != 0, lambda r: f"stream {b['a_stream'][r]} does not start a group of {group[r]}")
        mxm = among(code, (Opcode.LW, Opcode.ABC))
        width = np.where(mxm, tap_widths(b, ROLE_A), 1)
        inward = mxm & (b["a_dir"] != (b["unit"] - isa.MXM_BASE) // 6)
        self.fault("TSP-027", inward, lambda r: "the operand is not an outward stream")
        self.fault(
            "TSP-027", mxm & (b["a_stream"] % width != 0), lambda r: f"stream {b['a_stream'][r]} does not start a group of {width[r]}"
        )

    def _claim_fields(self) -> None:
        c = self.c
        wrong = (c["burst"] < 0) | (c["burst"] >= self.bursts[1]) | (c["stream"] < 0) | (c["stream"] > 31)
        wrong |= (c["direction"] < 0) | (c["direction"] > 1) | (np.abs(c["until"]) > 1 << 20)
        for number in np.unique(self.claimed[wrong]).tolist():
            row, name = int(np.flatnonzero(wrong[self.claimed == number])[0]), self.segments[number].name
            self.sound[number] = False
            self.report.add("TSP-001", f"claim {row} of segment {name} has a field out of range", unit=f"segment {name}")

    def _claims(self) -> None:
        b, c, size = self.b, self.c, len(self.segment)
        code, of = b["opcode"], c["burst"] + self.bursts[0]
        count = np.bincount(of, minlength=size)
        alu, reduce = among(code, ALU_CODES), among(code, ACC_CODES)
        drives = (
            (alu & ~(reduce & (b["last"] == 0)))
            | among(code, SXM_CODES)
            | (code == Opcode.RECEIVE)
            | ((code == Opcode.ACC) & (b["emit"] == 1))
        )
        drives |= among(code, ONE_CLAIM)
        self.fault("TSP-001", drives & (count == 0), lambda r: "the result is driven on no stream")
        self.fault("TSP-001", ~drives & (count > 0), lambda r: "a burst without a result claims streams")
        self.fault("TSP-001", among(code, ONE_CLAIM) & (count > 1), lambda r: f"{count[r]} streams claimed for a one-stream result")
        width = np.ones(size, dtype=np.int64)
        width[alu] = np.array([isa.WIDTH[DType(d)] for d in range(len(DType))])[result_dtype(b)[alu]]
        width[code == Opcode.ACC] = 4
        whole = alu | (code == Opcode.ACC)
        group = (of * 2 + c["direction"]) * 32 + c["stream"] // width[of]
        _, position, number = np.unique(group, return_inverse=True, return_counts=True)
        short = whole[of] & (number[position] != width[of])
        partial = np.zeros(size, dtype=bool)
        partial[of[short]] = True
        self.fault("TSP-001", partial, lambda r: f"a result of {width[r]} streams is not claimed as a whole aligned group")
        piece = (of * 2 + c["direction"]) * 32 + c["stream"]
        piece.sort()
        for twice in np.unique(self.segment[piece[1:][piece[1:] == piece[:-1]] // 64]).tolist():
            self.sound[twice] = False
            self.report.add("TSP-006", "a burst claims one stream twice", unit=f"segment {self.segments[twice].name}")
        wide = {int(Opcode.ACC): 4, int(Opcode.TRANSPOSE): 16}
        span = np.zeros(size, dtype=np.int64)
        for opcode, streams in wide.items():
            span[code == opcode] = streams
        span[code == Opcode.DISTRIBUTE] = np.where(b["lowest"][code == Opcode.DISTRIBUTE] == 1, 4, 8)
        grouped = span[of] > 0
        home = (c["direction"] * 32 + c["stream"] // np.maximum(span[of], 1))[grouped]
        low, high = np.full(size, 1 << 30), np.full(size, -1)
        np.minimum.at(low, of[grouped], home)
        np.maximum.at(high, of[grouped], home)
        self.fault("TSP-001", (span > 0) & (high > low), lambda r: f"the result lies in more than one group of {span[r]} streams")
        self._acc_direction(of, c["direction"], code)

    def _acc_direction(self, of: Array, direction: Array, code: Array) -> None:
        b = self.b
        wrong = np.zeros(len(code), dtype=bool)
        emits = code[of] == Opcode.ACC
        rows = of[emits]
        wrong[rows[direction[emits] == (b["unit"][rows] - isa.MXM_BASE) // 6]] = True
        self.fault("TSP-001", wrong, lambda r: "results of a plane are driven inward, not outward")

    def _alus(self) -> None:
        b, c, code = self.b, self.c, self.b["opcode"]
        alu = among(code, ALU_CODES)
        number = np.where(alu, b["unit"] - isa.VXM_BASE, 0)
        self.fault("TSP-031", alu & _NEEDS_LARGE[code] & ~_LARGE[number], lambda r: f"ALU {number[r]} is small")
        two = alu & among(code, TWO_OPERANDS)
        for role, prefix, rows in ((ROLE_A, "a", alu), (ROLE_B, "b", two)):
            stream, width = b[f"{prefix}_stream"], np.maximum(tap_widths(b, role), 1)
            far = rows & ~_REACH[number // 4, np.clip(stream // 4, 0, 7)]
            self.fault("TSP-030", far, lambda r, stream=stream: f"SG4 {stream[r] // 4} is out of reach of ALU {number[r]}")  # type: ignore[misc]
            skewed = rows & (stream % width != 0)
            self.fault("TSP-033", skewed, lambda r: "an operand does not start at a multiple of its width")
        both = two & (b["a_stream"] // 4 == b["b_stream"] // 4) & (b["a_dir"] != b["b_dir"])
        self.fault("TSP-032", both, lambda r: f"both operands are SG4 {b['a_stream'][r] // 4}, from opposite directions")
        of = c["burst"] + self.bursts[0]
        far_out = alu[of] & ~_REACH[number[of] // 4, c["stream"] // 4]
        wrong = np.zeros(len(code), dtype=bool)
        wrong[of[far_out]] = True
        self.fault("TSP-030", wrong, lambda r: f"ALU {number[r]} cannot write that SG4")

    def _objects(self) -> None:
        b = self.b
        mem = among(b["opcode"], _MEM)
        wrong = mem & ((b["object"] < 0) | (b["object"] >= self.objects[1]))
        self.fault("TSP-001", wrong, lambda r: f"object {b['object'][r]} is not declared")

    def _memory(self) -> None:
        b, o = self.b, self.o
        mem = among(b["opcode"], _MEM)
        if not mem.any():
            return
        obj = np.where(mem, self.objects[0] + b["object"], 0)
        slice_ = np.where(mem, b["unit"] % 44, 0)
        mask = np.where(b["unit"] < 44, o["west"][obj], o["east"][obj])
        self.fault("TSP-002", mem & (mask >> slice_ & 1 == 0), lambda r: f"slice {slice_[r]} does not hold object {b['object'][r]}")
        steps = ((b["n"] - 1) * b["stride"], (b["n2"] - 1) * b["stride2"])
        low = b["row"] + np.minimum(steps[0], 0) + np.minimum(steps[1], 0)
        high = b["row"] + np.maximum(steps[0], 0) + np.maximum(steps[1], 0)
        direct = among(b["opcode"], (Opcode.READ, Opcode.WRITE))
        out = direct & ((low < 0) | (high >= o["rows"][obj]))
        self.fault(
            "TSP-002", out, lambda r: f"rows {low[r]}..{high[r]} are not within the {o['rows'][obj[r]]} rows of object {b['object'][r]}"
        )


def check_structure(program: Program, machine: TspMachine, report: Report) -> bool:
    """All rules of this file. Returns False where later checks would have nothing sound to stand on."""
    sound = SegmentChecks(report, machine, program.segments).run()
    sound &= _check_places(program, machine, report)
    if sound:
        sound = _check_binds(program, report) and _check_times(program, machine, report)
    _check_links(program, report)
    return sound and _check_bindings(program, machine, report)


def _int(table: Any) -> Columns:
    return {name: np.asarray(column, dtype=np.int64) for name, column in table.items()}


def _check_places(program: Program, machine: TspMachine, report: Report) -> bool:
    """Instances, allocations, placements: indices, chips, banks, rows, reserved slices."""
    sound = True
    inst, alloc = _int(program.tables["instances"]), _int(program.tables["allocations"])

    def each(rule: str, wrong: Array, what: str) -> None:
        nonlocal sound
        for row in map(int, np.flatnonzero(wrong)):
            sound = sound and rule == "TSP-003"
            report.add(rule, what, unit=f"row {row}")

    wrong = (inst["segment"] < 0) | (inst["segment"] >= len(program.segments)) | (inst["chip"] < 0) | (inst["chip"] >= machine.chips)
    each("TSP-001", wrong | (np.abs(inst["offset"]) > TIME_LIMIT), "an instance names a segment, chip or cycle that is none")
    each("TSP-001", (alloc["kind"] < 0) | (alloc["kind"] > max(Kind)) | (alloc["chip"] < 0) | (alloc["chip"] >= machine.chips),
         "an allocation has an unknown kind or chip")  # fmt: skip
    beyond = ((alloc["west"] | alloc["east"]) >> machine.slices != 0) | (alloc["bank"] < 0) | (alloc["bank"] >= machine.banks)
    each("TSP-002", beyond | (alloc["row"] < 0) | (alloc["rows"] < 0) | (alloc["row"] + alloc["rows"] > machine.rows),
         "an allocation lies outside a bank or slice")  # fmt: skip
    reserved = [sum(1 << s for side, s in machine.reserved_slices if side == h) for h in (0, 1)]
    each("TSP-003", (alloc["west"] & reserved[0] != 0) | (alloc["east"] & reserved[1] != 0), "an allocation lies in a reserved slice")
    placed = _int(program.tables["placements"])
    wrong = (placed["allocation"] < 0) | (placed["allocation"] >= len(alloc["kind"])) | (placed["image"] < 0)
    each("TSP-001", wrong, "a placement names an allocation that is none")
    _, first = np.unique(placed["allocation"], return_index=True)
    each("TSP-001", ~np.isin(np.arange(len(placed["image"])), first), "a second placement fills the same allocation")
    if sound and len(placed["allocation"]):
        each("TSP-001", alloc["kind"][placed["allocation"]] != Kind.CONST, "a placement fills an allocation that is not constant")
        for image, row in zip(placed["image"].tolist(), placed["allocation"].tolist(), strict=True):
            array = program.images.get(f"image.{image}")
            slices = int(alloc["west"][row]).bit_count() + int(alloc["east"][row]).bit_count()
            shape = (slices, int(alloc["rows"][row]), machine.vector)
            if array is not None and (array.shape != shape or array.dtype != np.uint8):
                sound = False
                report.add(
                    "TSP-001",
                    f"image.{image} is {array.dtype}{list(array.shape)}, its allocation needs uint8{list(shape)}",
                    unit=f"allocation {row}",
                )
    return sound


def _check_binds(program: Program, report: Report) -> bool:
    """Every object of every instance is bound once, inside its allocation, on its chip."""
    inst, binds, alloc = (_int(program.tables[name]) for name in ("instances", "binds", "allocations"))
    sizes = np.array([len(s.tables["objects"]["rows"]) for s in program.segments], dtype=np.int64)
    per_instance = sizes[inst["segment"]] if len(inst["segment"]) else np.zeros(0, np.int64)
    wrong = (
        (binds["instance"] < 0)
        | (binds["instance"] >= len(per_instance))
        | (binds["allocation"] < 0)
        | (binds["allocation"] >= len(alloc["kind"]))
    )
    if not wrong.any():
        wrong = (binds["object"] < 0) | (binds["object"] >= per_instance[binds["instance"]])
    if wrong.any():
        report.add("TSP-001", "a bind names an instance, object or allocation that is none", unit=f"bind {int(np.flatnonzero(wrong)[0])}")
        return False
    slot = (np.cumsum(per_instance) - per_instance)[binds["instance"]] + binds["object"]
    times = np.bincount(slot, minlength=int(per_instance.sum()))
    if (times != 1).any():
        at = int(np.flatnonzero(times != 1)[0])
        report.add("TSP-001", f"an object of an instance is bound {times[at]} times, not once", unit=f"object slot {at}")
        return False
    objects = [_int(s.tables["objects"]) for s in program.segments]
    joined = {name: np.concatenate([o[name] for o in objects] or [np.zeros(0, np.int64)]) for name in ("rows", "west", "east")}
    row = (np.cumsum(sizes) - sizes)[inst["segment"][binds["instance"]]] + binds["object"] if len(slot) else slot
    a = binds["allocation"]
    outside = (joined["west"][row] & ~alloc["west"][a] != 0) | (joined["east"][row] & ~alloc["east"][a] != 0)
    outside |= (binds["row"] < 0) | (joined["rows"][row] < 0) | (binds["row"] + joined["rows"][row] > alloc["rows"][a])
    outside |= alloc["chip"][a] != inst["chip"][binds["instance"]]
    for at in map(int, np.flatnonzero(outside)):
        report.add("TSP-002", f"object {binds['object'][at]} does not fit allocation {a[at]}", unit=f"instance {binds['instance'][at]}")
    return not outside.any()


def _check_times(program: Program, machine: TspMachine, report: Report) -> bool:
    """No element before cycle 0; MEM queues of reserved slices."""
    inst = _int(program.tables["instances"])
    reserved = {h * 44 + s for h, s in machine.reserved_slices}
    sound = True
    earliest = [int(np.min(s.tables["bursts"]["t0"], initial=TIME_LIMIT)) for s in program.segments]
    for row, (segment, offset) in enumerate(zip(inst["segment"].tolist(), inst["offset"].tolist(), strict=True)):
        if earliest[segment] != TIME_LIMIT and earliest[segment] + offset < 0:
            report.add("TSP-001", f"a burst starts at cycle {earliest[segment] + offset}, before cycle 0", unit=f"instance {row}")
            sound = False
    for segment_ in program.segments:
        used = np.isin(segment_.tables["bursts"]["unit"], sorted(reserved))
        for row in map(int, np.flatnonzero(used)):
            unit = isa.unit_name(int(segment_.tables["bursts"]["unit"][row]))
            report.add("TSP-003", "the slice is reserved for the system", unit=unit, claimants=[f"{segment_.name}#{row}"])
    return sound


def _check_links(program: Program, report: Report) -> None:
    links = _int(program.tables["links"])
    ends = np.concatenate([links["chip_a"] * 16 + links["link_a"], links["chip_b"] * 16 + links["link_b"]])
    if len(np.unique(ends)) != len(ends) or ((links["link_a"] | links["link_b"]) >> 4).any():
        report.add("TSP-001", "a link end is used twice or is none", unit="links")


def _check_bindings(program: Program, machine: TspMachine, report: Report) -> bool:
    """Regions of bindings: fields, boxes, places inside their allocation."""
    alloc = _int(program.tables["allocations"])
    sound = True
    bound: set[tuple[str, int]] = set()
    for binding in program.bindings:
        if binding.kind not in _HOLDS or not isinstance(binding.where, list):
            report.add("TSP-001", "a binding is an input, output or state with a list of regions", unit=f"binding {binding.name}")
            sound = False
            continue
        for index, region in enumerate(binding.where):
            problem = region_problem(region, binding.shape, binding.stored, alloc, machine)
            if problem:
                sound = False
                report.add("TSP-001", problem, unit=f"binding {binding.name} region {index}")
                continue
            bound.add((binding.kind, region["allocation"]))
            kind = Kind(int(alloc["kind"][region["allocation"]]))
            if kind not in _HOLDS[binding.kind]:
                report.add("TSP-001", f"an {binding.kind} lies in a {kind.name} allocation", unit=f"binding {binding.name} region {index}")
    bound |= {("placement", int(row)) for row in program.tables["placements"]["allocation"]}
    for row, kind_ in enumerate(alloc["kind"].tolist()):
        if kind_ in _FILLED and (_FILLED[Kind(kind_)], row) not in bound:
            report.add("TSP-001", f"the {Kind(kind_).name} allocation has no {_FILLED[Kind(kind_)]}", unit=f"allocation {row}")
    return sound


_HOLDS = {"input": (Kind.INPUT,), "state": (Kind.STATE,), "output": (Kind.OUTPUT, Kind.STATE, Kind.CONST)}
_FILLED = {Kind.CONST: "placement", Kind.INPUT: "input", Kind.STATE: "state", Kind.OUTPUT: "output"}
REGION_KEYS = frozenset({"allocation", "row", "start", "shape", "lane_axis", "lane_tile", "lane_offset", "broadcast", "strides", "planes"})


def _well_typed(region: dict[str, Any]) -> bool:
    """Integers, lists of integers and lists of [hemisphere, slice] lists, where they belong."""

    def whole(value: Any) -> bool:
        return isinstance(value, int) and not isinstance(value, bool) and abs(value) < 1 << 40

    lists = all(isinstance(region[name], list) and all(map(whole, region[name])) for name in ("start", "shape", "strides"))
    numbers = all(whole(region[name]) for name in ("allocation", "row", "lane_tile", "lane_offset"))
    axis = region["lane_axis"] is None or whole(region["lane_axis"])
    planes = isinstance(region["planes"], list) and all(
        isinstance(plane, list) and all(isinstance(pair, list) and len(pair) == 2 and all(map(whole, pair)) for pair in plane)
        for plane in region["planes"]
    )
    return lists and numbers and axis and planes and isinstance(region["broadcast"], bool)


def region_problem(region: Any, shape: Sequence[int], stored: str, alloc: Columns, machine: TspMachine) -> str:
    """What is wrong with a region, or '' (its fields may be anything that JSON holds)."""
    if not isinstance(region, dict) or set(region) != REGION_KEYS:
        return f"a region needs exactly the keys {sorted(REGION_KEYS)}"
    if not _well_typed(region):
        return "a field of the region has the wrong type"
    if stored not in STORED:
        return f"stored format {stored!r} is none of {sorted(STORED)}"
    allocation, rank = region["allocation"], len(shape)
    if not 0 <= allocation < len(alloc["kind"]):
        return f"allocation {allocation} is none"
    start, box, strides, axis = region["start"], region["shape"], region["strides"], region["lane_axis"]
    if not len(start) == len(box) == len(strides) == rank:
        return f"start, shape and strides must have {rank} entries"
    if any(s < 0 or n < 1 or s + n > size for s, n, size in zip(start, box, shape, strict=True)):
        return f"box {start} + {box} is not within {list(shape)}"
    if axis is not None and not 0 <= axis < rank:
        return f"lane_axis {axis} is none"
    if axis is not None and region["broadcast"]:
        return "only an element that has a vector of its own can fill all lanes"
    if not (region["lane_tile"] >= 1 and region["lane_offset"] >= 0 and region["lane_offset"] + region["lane_tile"] <= machine.vector):
        return "lanes are not within a vector"
    if (
        len(region["planes"]) != np.dtype(STORED[stored]).itemsize
        or len({len(plane) for plane in region["planes"]}) != 1
        or not region["planes"][0]
    ):
        return f"planes must be {np.dtype(STORED[stored]).itemsize} lists of slices of one length"
    tiles = [-(-n // region["lane_tile"]) if a == axis else n for a, n in enumerate(box)]
    last = sum((n - 1) * max(s, 0) for n, s in zip(tiles, strides, strict=True))
    first = sum((n - 1) * min(s, 0) for n, s in zip(tiles, strides, strict=True))
    rows = int(alloc["rows"][allocation])
    if first < 0 or region["row"] < 0 or region["row"] + last // len(region["planes"][0]) >= rows:
        return f"vectors {first}..{last} are not within the {rows} rows of allocation {allocation}"
    pairs = [(h, s) for plane in region["planes"] for h, s in plane]
    if len(set(pairs)) < len(pairs):
        return "two byte planes or stripes lie in one slice"
    held = set(mask_slices(int(alloc["west"][allocation]), int(alloc["east"][allocation])))
    if any(pair not in held for pair in pairs):
        return f"a slice of planes is not of allocation {allocation}"
    return ""


def segment_elements(program: Program) -> Array:
    """Elements of all bursts of each segment (before anything is expanded)."""
    tables = [segment.tables["bursts"] for segment in program.segments]
    return np.array([int((np.asarray(b["n"], np.int64) * b["n2"]).sum()) for b in tables], np.int64)


def last_cycle(program: Program) -> int:
    """Last cycle in which an element issues; -1 where none does."""
    last = []
    for segment in program.segments:
        b = _int({name: segment.tables["bursts"][name] for name in ("t0", "n", "i", "n2", "i2")})
        last.append(int((b["t0"] + (b["n"] - 1) * b["i"] + (b["n2"] - 1) * b["i2"]).max(initial=-TIME_LIMIT * 4)))
    instances = _int(program.tables["instances"])
    return max((last[s] + o for s, o in zip(instances["segment"].tolist(), instances["offset"].tolist(), strict=True)), default=-1)
