"""Small legal CGLA programs for the executor's tests, written with the public builders by a one-lane scheduler."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any

import numpy as np

from spatialc.machines.cgla.builder import LaneState, ProgramBuilder, SegmentBuilder, br, slot
from spatialc.machines.cgla.description import CglaMachine, load_machine
from spatialc.machines.cgla.isa import Address, BrInput, Register, StoreData
from spatialc.machines.cgla.tables import BufferKind, Direction, Phase
from spatialc.machines.cgla.timing import conf_cycles, dma_cycles, exec_cycles, store_cycles
from spatialc.machines.program import Binding, Program

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
    """A counter in row 0: step * n (init 0), step * i0 (init 1), step * i1 (init 2: adds at first(n) only, so it starts at 0 as step - step)."""
    made = slot(0, col, op1="ADD", ex1=br(col, 0), ex2=br(col, 1), self=1, init=init, br2=ALU)
    return made, {**const(LAST, col, 0, (-step) & MINUS_ONE), **const(LAST, col, 1, step)}


@dataclass
class Bench:
    """Writes launches of one lane one after the other: CONF, REGV, RANGE, LOADs, EXEC, DRAINs."""

    machine: CglaMachine = field(default_factory=lambda: load_machine("cgla-imax3-28nm"))
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
    bench = Bench(machine or load_machine("cgla-imax3-28nm"))
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


def inputs_of(program: Program, seed: int = 0) -> dict[str, np.ndarray]:
    """Random fp32 inputs."""
    generator = np.random.default_rng(seed)
    return {b.name: generator.standard_normal(b.shape).astype(np.float32) for b in program.bindings_of("input")}


__all__ = ["ALU", "BR_", "LOADED", "NONE", "REG", "TR", "WIDE", "Bench", "Fraction", "const", "counter", "inputs_of", "loops", "vector_add"]
