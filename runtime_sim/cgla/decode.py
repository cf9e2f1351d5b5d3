"""A program as the executor reads it: machine, kernels, register and range sets, buffers, instances, with the breaches of plain fields.

Reading never trusts the emitter: tables of the wrong shape are `BadInput` (nothing can be judged), fields out of range are breaches of
CGLA-001 and CGLA-021, and rows that cannot be used are left out of what follows.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise

from ...errors import BadInput, Violation
from ...machines.cgla.description import CglaMachine, parse_machine
from ...machines.cgla.isa import Register
from ...machines.cgla.tables import HOST_DTYPES, PROGRAM_TABLES, SEGMENT_TABLES, BufferKind, Phase
from ...machines.program import Program, length
from .kernel import COLUMNS, Kernel, decode_kernels
from .lane import Descriptor, Place
from .plan import ADDRESS_LIMIT, Planner

DDR_ALIGN = 32


@dataclass
class Decoded:
    """The readable parts of a program and the breaches found while reading."""

    program: Program
    machine: CglaMachine
    kernels: list[Kernel]
    register_sets: dict[int, dict[Place, int]]
    range_sets: dict[int, dict[tuple[int, int], Descriptor]]
    planner: Planner
    register_changes: dict[tuple[int, int], int] = field(default_factory=dict)
    violations: list[Violation] = field(default_factory=list)

    def provenance(self, index: int) -> tuple[str, ...]:
        """The provenance string of that number as a tuple, empty for -1."""
        pool = self.program.provenance
        return (pool[index],) if 0 <= index < len(pool) else ()

    def report(self, rule: str, unit: str, message: str, cycle: int = -1, source: int = -1, claimants: Sequence[str] = ()) -> None:
        """Adds one breach."""
        self.violations.append(Violation(rule, cycle, unit, message, tuple(claimants), self.provenance(source)))


def decode(program: Program) -> Decoded:
    """Reads a program. Raises BadInput where its tables are not those of a CGLA program."""
    if program.target != "cgla":
        raise BadInput(f"the program is for {program.target!r}; the CGLA executor runs programs for 'cgla'")
    machine = parse_machine(program.machine, "program")
    for table_type in PROGRAM_TABLES:
        if table_type.name not in program.tables:
            raise BadInput(f"the program has no table {table_type.name!r}")
        table_type.validate(program.tables[table_type.name], "program")
    for segment in program.segments:
        for table_type in SEGMENT_TABLES:
            if table_type.name not in segment.tables:
                raise BadInput(f"segment {segment.name!r} has no table {table_type.name!r}")
            table_type.validate(segment.tables[table_type.name], f"segment {segment.name!r}")
    tables = program.tables
    count = length(tables["kernels"])
    pool = program.provenance
    provenance: list[tuple[str, ...]] = [(pool[i],) if 0 <= i < len(pool) else () for i in tables["kernels"]["provenance"].tolist()]
    kernels = decode_kernels(tables["slots"], count, machine, provenance)
    decoded = Decoded(program, machine, kernels, {}, {}, Planner(machine, kernels, {}))
    outside = [k for k in tables["slots"]["kernel"].tolist() if not 0 <= k < count]
    if outside:
        decoded.report("CGLA-001", "slots", f"slots of kernel {outside[0]}; the program has kernels 0..{count - 1}")
    for kernel in kernels:
        decoded.violations += kernel.violations
    _registers(decoded)
    _descriptors(decoded)
    decoded.planner = Planner(machine, kernels, decoded.register_sets)
    _buffers(decoded)
    _named(decoded)
    return decoded


def _named(decoded: Decoded) -> None:
    """CGLA-001: every kernel, register set and range set is written by some phase: rows of others would mean nothing."""
    written: dict[int, set[int]] = {kind: set() for kind in Phase}
    for segment in decoded.program.segments:
        for kind, target in zip(segment.tables["phases"]["kind"].tolist(), segment.tables["phases"]["target"].tolist(), strict=True):
            written.setdefault(kind, set()).add(target)
    known = {Phase.CONF: range(len(decoded.kernels)), Phase.REGV: decoded.register_sets, Phase.RANGE: decoded.range_sets}
    for kind, numbers in known.items():
        for number in sorted(set(numbers) - written[kind]):
            decoded.report("CGLA-001", f"{kind.name} of set {number}", "no phase writes this set")


def _registers(decoded: Decoded) -> None:
    table = decoded.program.tables["registers"]
    rows, machine = decoded.register_sets, decoded.machine
    columns = (table[name].tolist() for name in ("set", "row", "col", "register", "value"))
    for number, row, col, register, value in zip(*columns, strict=True):
        unit = f"register set {number} row {row} slot {col}"
        if number < 0 or not (0 <= row < machine.rows and 0 <= col < COLUMNS and 0 <= register <= max(Register)):
            decoded.report("CGLA-001", unit, f"register {register} is not in the machine")
            continue
        held = rows.setdefault(number, {})
        if (row, col, register) in held:
            decoded.report("CGLA-001", unit, f"register {register} is set twice")
        if register > Register.BR3 and value >= ADDRESS_LIMIT:
            decoded.report("CGLA-035", unit, f"address register {register} holds {value:#x}, beyond 31 bits")
            continue
        held[(row, col, register)] = value


def _descriptors(decoded: Decoded) -> None:
    table = decoded.program.tables["descriptors"]
    machine = decoded.machine
    columns = (table[name].tolist() for name in ("set", "row", "col", "top", "bottom", "write", "read"))
    for number, row, col, top, bottom, write, read in zip(*columns, strict=True):
        unit = f"range set {number} row {row} slot {col}"
        if number < 0 or not (0 <= row < machine.rows and 0 <= col < COLUMNS) or write not in (0, 1) or read not in (0, 1):
            decoded.report("CGLA-001", unit, f"descriptor with write {write} and read {read} is not of the machine")
            continue
        held = decoded.range_sets.setdefault(number, {})
        if (row, col) in held:
            decoded.report("CGLA-001", unit, "the slot has two descriptors; one a slot at a time")
        if not 0 <= top <= bottom < ADDRESS_LIMIT or top % 4 or (bottom + 1) % 4:
            decoded.report("CGLA-021", unit, f"descriptor [{top}, {bottom}] is empty, not aligned to 4 bytes, or beyond 31 bits")
            continue
        if bottom - top + 1 > machine.lmm_bytes:
            decoded.report("CGLA-021", unit, f"descriptor of {bottom - top + 1} bytes; the row has {machine.lmm_bytes}")
            continue
        held[(row, col)] = (top, bottom, write, read)


def _buffers(decoded: Decoded) -> None:
    table = decoded.program.tables["buffers"]
    program = decoded.program
    spans = []
    columns = (table[name].tolist() for name in ("kind", "address", "bytes", "binding"))
    owners: dict[int, int] = {}
    for number, (kind, address, size, binding) in enumerate(zip(*columns, strict=True)):
        unit = f"buffer {number}"
        if kind not in tuple(BufferKind) or size < 1 or address < 0 or address % DDR_ALIGN:
            decoded.report("CGLA-001", unit, f"kind {kind}, address {address:#x} or size {size} is out of range")
            continue
        if address + size > decoded.machine.ddr_bytes:
            decoded.report("CGLA-036", unit, f"ends at {address + size}, beyond the {decoded.machine.ddr_bytes} bytes of DDR")
        bound = kind in (BufferKind.INPUT, BufferKind.OUTPUT, BufferKind.STATE)
        if bound != (0 <= binding < len(program.bindings)) or (not bound and binding != -1):
            decoded.report("CGLA-001", unit, f"{BufferKind(kind).name} buffer with binding {binding}")
        elif bound:
            expected = program.bindings[binding].kind
            if expected != BufferKind(kind).name.lower() or program.bindings[binding].stored not in HOST_DTYPES or binding in owners:
                decoded.report("CGLA-001", unit, f"binding {program.bindings[binding].name!r} is no {BufferKind(kind).name} of its own")
            if program.bindings[binding].where not in (None, {"buffer": number}):
                decoded.report("CGLA-001", unit, f"binding {program.bindings[binding].name!r} says that it lies elsewhere")
            owners[binding] = number
        spans.append((address, address + size, number))
    spans.sort()
    for (_, end, one), (start, _, two) in pairwise(spans):
        if start < end:
            decoded.report("CGLA-036", f"buffer {two}", f"overlaps buffer {one} in DDR", claimants=(f"buffer {one}", f"buffer {two}"))
    missing = sorted(set(range(len(program.bindings))) - set(owners))
    if missing:
        decoded.report("CGLA-001", "buffers", f"binding {program.bindings[missing[0]].name!r} has no buffer")
