"""Small legal CGLA programs for the executor's tests, written with the public builders by a one-lane scheduler."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from spatialc.machines.catalog import load_machine
from spatialc.machines.cgla.builder import LaneState, ProgramBuilder, SegmentBuilder, br, slot
from spatialc.machines.cgla.description import CglaMachine
from spatialc.machines.cgla.isa import Address, BrInput, Register, StoreData
from spatialc.machines.cgla.tables import PROGRAM_TABLES, SEGMENT_TABLES, BufferKind, Direction, Phase
from spatialc.machines.cgla.timing import conf_cycles, dma_cycles, exec_cycles, store_cycles
from spatialc.machines.program import Binding, Program, Segment, concatenate

MINUS_ONE = 0xFFFFFFFF
LAST = 63
REG, BR_, NONE = int(Address.REG), int(Address.BR), int(Address.NONE)
TR, LOADED, ALU, WIDE = int(BrInput.TR), int(BrInput.LOAD), int(BrInput.ALU), int(BrInput.WIDE)
Registers = dict[tuple[int, int, int], int]


def const(row: int, col: int, k: int, value: int) -> Registers:
    """A constant in BR[row][col][k]."""
    return {(row, col, k): value & 0xFFFFFFFFFFFFFFFF}


def loops(loop0: int, loop1: int | None = None) -> tuple[list[dict[str, Any]], Registers]:
    """FOR slots and their constants; BR[63][0][0..1] and BR[63][1][0] are taken."""
    slots = [slot(0, 0, op1="FOR", ex1=br(0, 0), ex2=br(0, 1))]
    registers = {**const(LAST, 0, 0, loop0), **const(LAST, 0, 1, MINUS_ONE)}
    if loop1 is not None:
        slots.append(slot(0, 1, op1="FOR", ex1=br(1, 0), ex2=br(0, 1)))
        registers.update(const(LAST, 1, 0, loop1))
    return slots, registers


def counter(col: int, step: int, init: int = 0) -> tuple[dict[str, Any], Registers]:
    """A counter in row 0: step * n (init 0), step * i0 (init 1), step * i1 (init 2: it adds at first(n) only)."""
    made = slot(0, col, op1="ADD", ex1=br(col, 0), ex2=br(col, 1), self=1, init=init, br2=ALU)
    return made, {**const(LAST, col, 0, (-step) & MINUS_ONE), **const(LAST, col, 1, step)}


@dataclass
class Bench:
    """Writes launches of one lane one after the other: CONF, REGV, RANGE, LOADs, EXEC, DRAINs."""

    machine: CglaMachine = field(default_factory=lambda: load_machine("cgla", "cgla-imax3-28nm"))
    lane: int = 0
    clock: int = 0

    def __post_init__(self) -> None:
        self.program = ProgramBuilder(self.machine)
        self.segment: SegmentBuilder = self.program.segment("main")
        self.state = LaneState(self.machine.rows)
        self.binds: dict[int, tuple[int, int]] = {}

    def buffer(self, kind: BufferKind, size: int, name: str = "", dtype: str = "f32", shape: Sequence[int] = (), image: Any = None) -> int:
        """A buffer with a symbol bound to it; returns the symbol."""
        binding = Binding(name, kind.name.lower(), dtype, tuple(shape), dtype, name) if name else None
        number = self.program.buffer(kind, size, binding, image)
        symbol = self.segment.symbol(size)
        self.binds[symbol] = (number, 0)
        return symbol

    def prepare(self, slots: Sequence[dict[str, Any]], registers: Registers, ranges: Mapping[Any, Any]) -> tuple[int, int, int]:
        """CONF, REGV, RANGE; returns the three set numbers."""
        kernel, values = self.program.kernel(slots), self.program.register_set(registers)
        descriptors = self.program.range_set(ranges) if ranges else -1
        self.phase(Phase.CONF, kernel, conf_cycles(self.machine, self.state.configure(slots)))
        self.phase(Phase.REGV, values, store_cycles(self.machine, self.state.write_registers(registers)))
        if ranges:
            self.phase(Phase.RANGE, descriptors, store_cycles(self.machine, self.state.write_ranges(ranges)))
        return kernel, values, descriptors

    def phase(self, kind: Phase, target: int, length: int) -> None:
        self.segment.phase(kind, self.lane, target, self.clock, length)
        self.clock += length

    def dma(self, direction: Direction, tag: int, symbol: int, offset: int, lmm: int, size: int, rows: int, **more: int) -> None:
        length = dma_cycles(self.machine, lmm, size, self.machine.beat_interval)
        interval = self.machine.beat_interval
        self.segment.dma(direction, self.lane, tag, symbol, offset, lmm, size, rows, interval, self.clock, length, **more)
        self.clock += length

    def load(self, tag: int, symbol: int, offset: int, lmm: int, size: int, rows: int, **more: int) -> None:
        self.dma(Direction.LOAD, tag, symbol, offset, lmm, size, rows, **more)

    def drain(self, tag: int, symbol: int, offset: int, lmm: int, size: int, rows: int, **more: int) -> None:
        self.dma(Direction.DRAIN, tag, symbol, offset, lmm, size, rows, **more)

    def launch(self, sets: tuple[int, int, int], slots: Sequence[Mapping[str, Any]], iterations: int) -> None:
        rows: dict[int, bool] = {}
        for row in slots:
            rows[row["row"]] = rows.get(row["row"], False) or bool(row.get("fold", 0))
        length = self.machine.t_launch + exec_cycles(iterations, rows.items())
        self.segment.launch(self.lane, *sets, self.clock, length)
        self.clock += length

    def build(self) -> Program:
        self.program.instance(self.segment, 0, self.binds)
        return self.program.build(self.clock)


def vector_add(count: int = 16, machine: CglaMachine | None = None) -> Program:
    """c = a + b for `count` fp32 pairs: two loads in row 1, FAD and store in row 2."""
    bench = Bench(machine or load_machine("cgla", "cgla-imax3-28nm"))
    size = count * 8
    a = bench.buffer(BufferKind.INPUT, size, "a", shape=(count * 2,))
    b = bench.buffer(BufferKind.INPUT, size, "b", shape=(count * 2,))
    c = bench.buffer(BufferKind.OUTPUT, size, "c", shape=(count * 2,))
    slots, registers = vector_add_kernel(count)
    stride = -(-size // 32) * 32
    ranges = {(1, 0): (0, size - 1, 1, 0), (1, 1): (stride, stride + size - 1, 1, 0), (2, 0): (2 * stride, 2 * stride + size - 1, 0, 1)}
    registers.update({
        (1, 0, Register.EA1_BASE): 0, (1, 1, Register.EA1_BASE): stride, (2, 0, Register.EA0_BASE): 2 * stride,
    })  # fmt: skip
    sets = bench.prepare(slots, registers, ranges)
    bench.load(0, a, 0, 0, size, 1 << 1)
    bench.load(1, b, 0, stride, size, 1 << 1)
    bench.launch(sets, slots, count)
    bench.drain(0, c, 0, 2 * stride, size, 1 << 2)
    return bench.build()


def vector_add_kernel(count: int) -> tuple[list[dict[str, Any]], Registers]:
    """Slots and constants of `vector_add`."""
    slots, registers = loops(count)
    made, constants = counter(2, 8)
    slots += [
        made,
        slot(1, 0, ea1="LDR", ea1_base=REG, ea1_offset=BR_, ea1_mask="W0", br_offset=br(2, 2), br1=LOADED),
        slot(1, 1, ea1="LDR", ea1_base=REG, ea1_offset=BR_, ea1_mask="W0", br_offset=br(2, 2), br1=LOADED),
        slot(1, 2, tr2=br(2, 2), br2=TR),
        slot(2, 0, op1="FAD", ex1=br(0, 1), ex2=br(1, 1), ea0="STR", ea0_base=REG, ea0_offset=BR_, ea0_mask="W0", br_offset=br(2, 2),
             store=StoreData.ALU),
    ]  # fmt: skip
    return slots, {**registers, **constants}


def prefetch(count: int = 64, offset: int = 0) -> Program:
    """`vector_add` that loads another array into row 3 while it runs, then drains it again."""
    bench = Bench()
    size = count * 8
    names = ("a", "b", "d")
    a, b, d = (bench.buffer(BufferKind.INPUT, size, name, shape=(count * 2,)) for name in names)
    c, e = (bench.buffer(BufferKind.OUTPUT, size, name, shape=(count * 2,)) for name in ("c", "e"))
    slots, registers = vector_add_kernel(count)
    slots.append(slot(3, 0, ea0="IM_PREF"))
    top = 4 * size + offset
    ranges = {
        (1, 0): (0, size - 1, 1, 0), (1, 1): (size, 2 * size - 1, 1, 0), (2, 0): (2 * size, 3 * size - 1, 0, 1),
        (3, 0): (top, top + size - 1, 1, 1),
    }  # fmt: skip
    registers.update({
        (1, 0, Register.EA1_BASE): 0, (1, 1, Register.EA1_BASE): size, (2, 0, Register.EA0_BASE): 2 * size,
    })  # fmt: skip
    sets = bench.prepare(slots, registers, ranges)
    bench.load(0, a, 0, 0, size, 1 << 1)
    bench.load(1, b, 0, size, size, 1 << 1)
    start = bench.clock
    bench.launch(sets, slots, count)
    after = bench.clock
    bench.clock = start + bench.machine.t_launch
    bench.load(0, d, 0, top, size, 1 << 3)
    bench.clock = max(after, bench.clock)
    bench.drain(0, c, 0, 2 * size, size, 1 << 2)
    bench.drain(0, e, 0, top, size, 1 << 3)
    return bench.build()


def edited(program: Program, table: str, where: Mapping[str, int] | int, **fields: Any) -> Program:
    """The program with fields of one row changed; the row by number or by the values of some columns."""

    def change(tables: Mapping[str, Any]) -> dict[str, Any]:
        columns = {name: array.copy() for name, array in tables[table].items()}
        if isinstance(where, int):
            index = where
        else:
            hits = np.all([columns[name] == value for name, value in where.items()], axis=0)
            index = int(np.flatnonzero(hits)[0])
        for name, value in fields.items():
            columns[name][index] = value
        return {**tables, table: columns}

    if table in program.tables:
        return replace(program, tables=change(program.tables))
    first = program.segments[0]
    return replace(program, segments=(Segment(first.name, change(first.tables)), *program.segments[1:]))


def appended(program: Program, table: str, **fields: Any) -> Program:
    """The program with one more row."""
    kind = {t.name: t for t in (*PROGRAM_TABLES, *SEGMENT_TABLES)}[table]
    row = kind.from_rows([fields])
    if table in program.tables:
        return program.with_tables(**{table: concatenate([program.tables[table], row])})
    first = program.segments[0]
    tables = {**first.tables, table: concatenate([first.tables[table], row])}
    return replace(program, segments=(Segment(first.name, tables), *program.segments[1:]))


def dropped(program: Program, table: str, index: int) -> Program:
    """The program without one row."""

    def cut(tables: Mapping[str, Any]) -> dict[str, Any]:
        return {**tables, table: {name: np.delete(array, index, axis=0) for name, array in tables[table].items()}}

    if table in program.tables:
        return replace(program, tables=cut(program.tables))
    first = program.segments[0]
    return replace(program, segments=(Segment(first.name, cut(first.tables)), *program.segments[1:]))


def inputs_of(program: Program, seed: int = 0) -> dict[str, np.ndarray]:
    """Random fp32 inputs."""
    generator = np.random.default_rng(seed)
    return {b.name: generator.standard_normal(b.shape).astype(np.float32) for b in program.bindings_of("input")}
