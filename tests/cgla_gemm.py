"""Chain kernels for the executor's tests: out[set, col] = sum over k of W * X with fp32, fp16 or int8 words.

Iterations n = i1 * steps + i0 with i1 = set * columns + col. Each link of the chain has its own weights and activations in the row above
its multiply; the offsets travel down in slots 2 and 3; a self FAD adds the chains of all steps, and the last iteration of each i1 is
the one that stays stored.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from cgla_cases import ALU, BR_, LOADED, REG, TR, Bench, Registers, const, counter, loops

from spatialc.machines.cgla.builder import br, slot
from spatialc.machines.cgla.description import CglaMachine
from spatialc.machines.cgla.isa import Register, Source, StoreData
from spatialc.machines.cgla.tables import BufferKind
from spatialc.machines.program import Program

IMM, EX3 = int(Source.IMM), int(Source.EX3)


@dataclass
class Chain:
    """Sizes of a chain kernel; `steps` and `columns` are powers of two. `kind`: fp32, fp16 or int8."""

    machine: CglaMachine
    kind: str = "fp32"
    links: int = 4
    steps: int = 4
    columns: int = 4
    sets: int = 3
    slots: list[dict[str, Any]] = field(default_factory=list)
    registers: Registers = field(default_factory=dict)
    ranges: dict[tuple[int, int], tuple[int, int, int, int]] = field(default_factory=dict)

    @property
    def weight_bytes(self) -> int:
        return self.sets * self.steps * 8

    @property
    def input_bytes(self) -> int:
        return self.columns * self.steps * 8

    def weights(self, link: int) -> int:
        return link * self.weight_bytes

    def inputs(self, link: int) -> int:
        base = -(-self.links * self.weight_bytes // 32) * 32
        return base + link * self.input_bytes

    def outputs(self) -> int:
        return -(-(self.inputs(0) + self.links * self.input_bytes) // 32) * 32

    def address_rows(self) -> None:
        """Counters in row 0, fields in row 1, sums in row 2: weight, input and output offsets leave row 2 in slots 2, 3 and 1."""
        made, self.registers = loops(self.steps, self.columns * self.sets)
        self.slots += made
        inner, constants = counter(2, 8, 1)
        self.registers.update(constants)
        outer, constants = counter(3, 1, 2)
        self.registers.update(constants)
        self.slots += [inner, outer]
        shift = (self.steps * 8).bit_length() - 1
        low = self.columns - 1
        high = ~low & 0xFFFFFFFF
        down = shift - low.bit_length()
        self.slots += [
            slot(1, 0, op1="NOP", ex1=br(3, 2), op2="AND", src4=IMM, imm4=low, op3="SLL", src5=IMM, imm5=shift, br2=ALU),
            slot(1, 1, op1="NOP", ex1=br(3, 2), op2="AND", src4=IMM, imm4=high, op3="SLL" if down >= 0 else "SRL", src5=IMM,
                 imm5=abs(down), br2=ALU),
            slot(1, 2, tr2=br(2, 2), br2=TR),
            slot(1, 3, op1="NOP", ex1=br(3, 2), op3="SLL", src5=IMM, imm5=3, br2=ALU),
            slot(2, 1, tr2=br(3, 2), br2=TR),
            slot(2, 2, op1="ADD", ex1=br(1, 2), ex2=br(2, 2), br2=ALU),
            slot(2, 3, op1="ADD", ex1=br(0, 2), ex2=br(2, 2), br2=ALU),
        ]  # fmt: skip

    def load(self, row: int, col: int, select: int, base: int) -> None:
        """An EA1 load in slot `col` at base + the offset that travels in `select`."""
        for made in self.slots:
            if (made["row"], made["col"]) == (row, col):
                break
        else:
            made = slot(row, col)
            self.slots.append(made)
        made.update(slot(row, col, ea1="LDR", ea1_base=REG, ea1_offset=BR_, ea1_mask="W0", br_offset=select, br1=LOADED))
        self.registers[(row, col, int(Register.EA1_BASE))] = base

    def passes(self, row: int) -> None:
        """Offsets travel on in BR2 of slots 1, 2 and 3."""
        for col in (1, 2, 3):
            for made in self.slots:
                if (made["row"], made["col"]) == (row, col):
                    break
            else:
                made = slot(row, col)
                self.slots.append(made)
            made.update({"tr2": br(col, 2), "br2": TR})


def chain_program(chain: Chain) -> Program:
    """The kernel, its data and one launch. Inputs `w` and `x`, output `y` [sets, columns, 2] as fp32 pairs (int8: int32 pairs)."""
    bench = Bench(chain.machine)
    chain.address_rows()
    row = 3
    for link in range(chain.links):
        chain.load(row, 0, br(2, 2), chain.weights(link))
        chain.load(row, 1, br(3, 2), chain.inputs(link))
        if link:
            chain.slots[[(s["row"], s["col"]) for s in chain.slots].index((row, 0))].update({"tr2": br(0, 2), "br2": TR})
        chain.passes(row)
        multiply(chain, row + 1, link)
        chain.passes(row + 1)
        row += 2
    chain.slots += final(chain, row)
    chain.registers[(row + 1, 0, int(Register.EA0_BASE))] = chain.outputs()
    return finish(chain, bench, row)


def multiply(chain: Chain, row: int, link: int) -> None:
    """One link: FMA (FML at the head), or SML8 with AD32."""
    if chain.kind == "int8":
        fields = {"op1": "SML8", "ex1": br(0, 1), "ex2": br(1, 1), "expand1": "B5410", "expand2": "B5410"}
        if link:
            fields.update({"op2": "AD32", "src4": EX3, "ex3": br(0, 2)})
    elif link:
        fields = {"op1": "FMA", "ex1": br(0, 2), "ex2": br(0, 1), "ex3": br(1, 1), "expand3": "H1010"}
    else:
        fields = {"op1": "FML", "ex1": br(0, 1), "ex2": br(1, 1), "expand2": "H1010"}
    chain.slots.append(slot(row, 0, **fields, br2=ALU))


def final(chain: Chain, row: int) -> list[dict[str, Any]]:
    """Self sum over the steps, then the store; the zero that starts it is a constant of the row above."""
    name = "ADD" if chain.kind == "int8" else "FAD"
    chain.registers.update(const(row - 1, 0, 3, 0))
    return [
        slot(row, 0, op1=name, ex1=br(0, 3), ex2=br(0, 2), self=1, init=1, br2=ALU),
        slot(row, 1, tr2=br(1, 2), br2=TR),
        slot(row + 1, 0, op1="NOP", ex1=br(0, 2), ea0="STR", ea0_base=REG, ea0_offset=BR_, ea0_mask="W0", br_offset=br(1, 2),
             store=StoreData.ALU),
    ]  # fmt: skip


def finish(chain: Chain, bench: Bench, row: int) -> Program:
    """Data, phases, DMAs and the launch."""
    kind = {"int8": "i8"}.get(chain.kind, "f32")
    per = 8 if kind == "i8" else 2
    w = bench.buffer(BufferKind.INPUT, chain.links * chain.weight_bytes, "w", kind, (chain.links, chain.sets, chain.steps, per))
    x = bench.buffer(BufferKind.INPUT, chain.links * chain.input_bytes, "x", kind, (chain.links, chain.columns, chain.steps, per))
    size = chain.sets * chain.columns * 8
    y = bench.buffer(BufferKind.OUTPUT, size, "y", "i32" if kind == "i8" else "f32", (chain.sets, chain.columns, 2))
    for link in range(chain.links):
        at = 3 + 2 * link
        chain.ranges[(at, 0)] = (chain.weights(link), chain.weights(link) + chain.weight_bytes - 1, 1, 0)
        chain.ranges[(at, 1)] = (chain.inputs(link), chain.inputs(link) + chain.input_bytes - 1, 1, 0)
    chain.ranges[(row + 1, 0)] = (chain.outputs(), chain.outputs() + size - 1, 0, 1)
    mask = sum(1 << (3 + 2 * link) for link in range(chain.links))
    sets = bench.prepare(chain.slots, chain.registers, chain.ranges)
    bench.load(0, w, 0, 0, chain.links * chain.weight_bytes, mask)
    bench.load(1, x, 0, chain.inputs(0), chain.links * chain.input_bytes, mask)
    bench.launch(sets, chain.slots, chain.steps * chain.columns * chain.sets)
    bench.drain(0, y, 0, chain.outputs(), size, 1 << (row + 1))
    return bench.build()


def chain_inputs(chain: Chain, seed: int = 0) -> dict[str, np.ndarray]:
    """Random words."""
    rng = np.random.default_rng(seed)
    shapes = ((chain.links, chain.sets, chain.steps), (chain.links, chain.columns, chain.steps))
    if chain.kind == "int8":
        return {n: rng.integers(-127, 128, (*s, 8)).astype(np.int8) for n, s in zip("wx", shapes, strict=True)}
    return {n: rng.standard_normal((*s, 2)).astype(np.float32) for n, s in zip("wx", shapes, strict=True)}


def chain_result(chain: Chain, data: dict[str, np.ndarray]) -> np.ndarray:
    """The result in the machine's order, from the definition of the chain."""
    w, x = data["w"], data["x"]
    if chain.kind == "int8":
        wide = [a.reshape(*a.shape[:-1], 2, 4)[..., :2].astype(np.int64) for a in (w, x)]
        return np.einsum("lskwb,lckwb->scw", *wide).astype(np.int32)
    total = np.zeros((chain.sets, chain.columns, 2), dtype=np.float32)
    for k in range(chain.steps):
        value = np.zeros_like(total)
        for link in range(chain.links):
            term = w[link, :, None, k, :] * x[link, None, :, k, :1]
            value = term if link == 0 else value + term
        total = total + value
    return total
