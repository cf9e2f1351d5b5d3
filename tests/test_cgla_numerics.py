"""The executor's numbers: against a scalar machine that steps through iterations, and the fast forms against the exact ones."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

sys.path.insert(0, str(Path(__file__).parent))

from cgla_cases import ALU, BR_, LOADED, REG, TR, Bench, const, counter, edited, inputs_of, loops, vector_add
from cgla_gemm import Chain, chain_inputs, chain_program, chain_result

from spatialc.machines.catalog import load_machine
from spatialc.machines.cgla.builder import br, slot
from spatialc.machines.cgla.isa import MEMORY, OP1, OP1_CODE, OP2, OP2_CODE, OP3, Register, Source, StoreData
from spatialc.machines.cgla.tables import BufferKind
from spatialc.machines.program import Program
from spatialc.runtime_sim.cgla import execute
from spatialc.runtime_sim.cgla import words as w

SMALL = load_machine("cgla", "cgla-imax3-28nm")


class ScalarLane:
    """One lane, one iteration and one slot at a time, straight from the slot table; memory is one dictionary of bytes a row."""

    def __init__(self, program: Program, data: dict[str, np.ndarray]) -> None:
        slots, table = program.tables["slots"], program.tables["registers"]
        self.slots = {
            (int(r), int(c)): {name: int(column[i]) for name, column in slots.items()}
            for i, (r, c) in enumerate(zip(slots["row"], slots["col"], strict=True))
        }
        self.registers = {
            tuple(int(v) for v in key): int(value)
            for *key, value in zip(table["row"], table["col"], table["register"], table["value"], strict=True)
        }
        self.memory: dict[tuple[int, int], int] = {}
        self.own: dict[tuple[int, int], Any] = {}
        ranges = program.segments[0].tables["dmas"]
        descriptors = program.tables["descriptors"]
        for i in range(len(ranges["lane"])):
            if ranges["direction"][i] == 0:
                raw = data[program.bindings[int(ranges["symbol"][i])].name].reshape(-1).view(np.uint8)
                for r, c, top, bottom, write in zip(*(descriptors[n] for n in ("row", "col", "top", "bottom", "write")), strict=True):
                    if c == ranges["tag"][i] and write:
                        for byte in range(int(ranges["bytes"][i])):
                            at = int(ranges["lmm"][i]) + byte
                            if top <= at <= bottom:
                                self.memory[(int(r), at)] = int(raw[byte])

    def run(self) -> None:
        loop0 = self.constant(63, self.slots[(0, 0)]["ex1"])
        loop1 = self.constant(63, self.slots[(0, 1)]["ex1"]) if (0, 1) in self.slots and self.slots[(0, 1)]["op1"] == 1 else 1
        for n in range(loop0 * loop1):
            self.step(n, n % loop0 == 0)

    def constant(self, row: int, select: int) -> int:
        return self.registers[(row, select // 4, select % 4)]

    def step(self, n: int, first: bool) -> None:
        boundary: dict[int, dict[int, int]] = {63: {}}
        for r, c, k in self.registers:
            if k < 4:
                boundary.setdefault(r, {})[4 * c + k] = self.registers[(r, c, k)]
        stores = []
        for (row, col), s in sorted(self.slots.items()):
            above = boundary.get((row - 1) % 64, {})
            out = boundary.setdefault(row, {})
            loaded = {ea: self.fetch(s, row, ea, above) for ea in (0, 1)}
            result = None
            if s["ex1"] >= 0 and OP1[s["op1"]].name != "FOR":
                result = self.alu(s, (row, col), above, n, first)
            for k in range(4):
                source = s[f"br{k}"]
                if source == TR:
                    out[4 * col + k] = above[s[f"tr{k}"]] if s[f"tr{k}"] < 16 else result  # type: ignore[assignment]
                elif source == LOADED:
                    out[4 * col + k] = loaded[k]  # type: ignore[assignment]
                elif source == ALU:
                    out[4 * col + k] = result  # type: ignore[assignment]
            if MEMORY[s["ea0"]].store:
                value = result if s["store"] == StoreData.ALU else above[s[f"tr{s['store'] - 2}"]]
                stores.append((row, self.address(s, row, 0, above), value))
        for row, address, value in stores:
            for byte in range(8):
                self.memory[(row, address + byte)] = int(value) >> (8 * byte) & 0xFF

    def address(self, s: dict[str, int], row: int, ea: int, above: dict[int, int]) -> int:
        base = self.registers[(row, s["col"], 4 + 2 * ea)]
        return base + (above[s["br_offset"]] & 0xFFFFFFFF if s[f"ea{ea}_offset"] == BR_ else 0)

    def fetch(self, s: dict[str, int], row: int, ea: int, above: dict[int, int]) -> int | None:
        op = MEMORY[s[f"ea{ea}"]]
        if op.store or op.size == 0:
            return None
        address = self.address(s, row, ea, above)
        return sum(self.memory[(row, address + byte)] << (8 * byte) for byte in range(8))

    def alu(self, s: dict[str, int], place: tuple[int, int], above: dict[int, int], n: int, first: bool) -> int:
        operands = []
        for i in (1, 2, 3):
            if s[f"ex{i}"] < 0:
                operands.append(None)
                continue
            value = np.array([above[s[f"ex{i}"]]], dtype=np.uint64)
            if i == 1 and s["self"] and n != 0 and not (s["init"] & 1 and first):
                value = self.own[place]
                operands.append(value)
                continue
            value = w.expand(value, s[f"expand{i}"])
            if i == 2 and s["init"] & 2 and n != 0 and not first:
                value = np.zeros_like(value)
            operands.append(value)
        op = OP1[s["op1"]]
        result = w.op1(op.name, s["mode"], tuple(x for x in operands[: op.arity] if x is not None))
        source = {Source.EX2: operands[1], Source.EX3: operands[2]}.get(Source(s["src4"]), np.array([s["imm4"]], dtype=np.uint64))
        result = w.op2(OP2[s["op2"]].name, result, source)
        result = w.op3(OP3[s["op3"]], result, operands[2] if s["src5"] == 3 else np.array([s["imm5"]], dtype=np.uint64))
        self.own[place] = result
        return int(result[0])


OPS = ("ADD", "SUB", "ADD3", "FMA", "FMS", "FML", "FAD", "CMP_LT", "CMOV", "SML8", "FMI", "X_H2F", "X_F2H", "X_FMAX", "X_F2B", "NOP")


MASKS = np.array([0x0000FFFF0000FFFF, 0xFFFFFFFF000001F0, 0x00FF00FF12345678, 0xFFFFFFFFFFFFFFFE], dtype=np.uint64)


def random_kernel(rng: np.random.Generator, depth: int) -> Program:
    """Rows of random operations on whatever the row above holds, random self-updates, one store at the end."""
    loop0, loop1 = int(rng.integers(1, 6)), int(rng.integers(1, 6))
    count = loop0 * loop1
    bench = Bench()
    size = count * 8
    a = bench.buffer(BufferKind.INPUT, size, "a", shape=(count * 2,))
    b = bench.buffer(BufferKind.INPUT, size, "b", shape=(count * 2,))
    y = bench.buffer(BufferKind.OUTPUT, size, "y", shape=(count * 2,))
    slots, registers = loops(loop0, loop1)
    made, constants = counter(2, 8)
    stride = -(-size // 32) * 32
    load = {"ea1": "LDR", "ea1_base": REG, "ea1_offset": BR_, "ea1_mask": "W0", "br_offset": br(2, 2), "br1": LOADED}
    slots += [made, slot(1, 0, **load), slot(1, 1, **load), slot(1, 2, tr2=br(2, 2), br2=TR)]
    registers.update({**constants, (1, 0, int(Register.EA1_BASE)): 0, (1, 1, int(Register.EA1_BASE)): stride})
    live = [br(0, 1), br(1, 1)]
    for row in range(2, 2 + depth):
        live = random_row(rng, row, live, slots, registers)
    last = 2 + depth
    slots.append(slot(last, 0, op1="NOP", ex1=live[0], ea0="STR", ea0_base=REG, ea0_offset=BR_, ea0_mask="W0", br_offset=br(2, 2),
                      store=StoreData.ALU))  # fmt: skip
    registers[(last, 0, int(Register.EA0_BASE))] = 2 * stride
    ranges = {(1, 0): (0, size - 1, 1, 0), (1, 1): (stride, stride + size - 1, 1, 0), (last, 0): (2 * stride, 2 * stride + size - 1, 0, 1)}
    sets = bench.prepare(slots, registers, ranges)
    bench.load(0, a, 0, 0, size, 2)
    bench.load(1, b, 0, stride, size, 2)
    bench.launch(sets, slots, count)
    bench.drain(0, y, 0, 2 * stride, size, 1 << last)
    return bench.build()


def random_row(rng: np.random.Generator, row: int, live: list[int], slots: list[Any], registers: Any) -> list[int]:
    """Slots 0 and 1 compute, slots 2 and 3 pass on (slot 2 the address); returns the selects that the next row may read."""
    registers.update(const(row - 1, 3, 3, int(rng.integers(0, 2**63)) & int(rng.choice(MASKS))))
    pool = [*live, br(3, 3)]
    for col in (0, 1):
        name = str(rng.choice(OPS))
        op = next(op for op in OP1 if op.name == name)
        fields: dict[str, int | str] = {"op1": name, "br2": ALU, "mode": int(rng.integers(0, op.modes))}
        for i in range(1, op.arity + 1):
            fields[f"ex{i}"] = int(rng.choice(pool))
            fields[f"expand{i}"] = str(rng.choice(["H3210", "H1010", "H3232", "B5410", "B7632"]))
        if op.accumulates and rng.random() < 0.6:
            fields.update({"self": 1, "init": int(rng.integers(0, 4))})
            if rng.random() < 0.5:
                fields.update({"op2": "AND", "src4": int(Source.IMM), "imm4": int(rng.choice(MASKS))})
                slots.append(slot(row, col, **fields))
                continue
        if name == "SML8" and rng.random() < 0.5:
            fields.update({"op2": "AD32", "src4": int(Source.EX3), "ex3": int(rng.choice(pool))})
        elif rng.random() < 0.2:
            fields.update({"op2": "XOR", "src4": int(Source.IMM), "imm4": 0x00FF00FF, "op3": "SRL", "src5": int(Source.IMM), "imm5": 3})
        slots.append(slot(row, col, **fields))
    slots.append(slot(row, 2, tr2=br(2, 2), br2=TR))
    slots.append(slot(row, 3, tr0=int(rng.choice(pool)), br0=TR))
    return [br(0, 2), br(1, 2), br(3, 0)]


def same(left: np.ndarray, right: np.ndarray) -> None:
    """Equal bits, but for the payload of NaNs."""
    np.testing.assert_array_equal(left, right)
    keep = ~np.isnan(left)
    np.testing.assert_array_equal(left[keep].view(np.uint32), right[keep].view(np.uint32))


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 6))
def test_random_kernels_equal_the_scalar_machine(seed: int, depth: int) -> None:
    rng = np.random.default_rng(seed)
    program = random_kernel(rng, depth)
    data = inputs_of(program, seed % 1000)
    exact, fast = execute(program, data, exact=True), execute(program, data)
    assert exact.violations == fast.violations == ()
    same(exact.outputs["y"], fast.outputs["y"])
    scalar = ScalarLane(program, data)
    scalar.run()
    base = int(program.tables["descriptors"]["top"][2])
    row = 2 + depth
    raw = bytes(scalar.memory[(row, base + i)] for i in range(exact.outputs["y"].size * 4))
    same(np.frombuffer(raw, dtype=np.float32), exact.outputs["y"])


@pytest.mark.parametrize("kind", ["fp32", "int8"])
@pytest.mark.parametrize(("links", "steps", "columns", "sets"), [(4, 4, 4, 3), (8, 8, 2, 40), (6, 16, 16, 5), (3, 1, 8, 9), (5, 8, 1, 33)])
def test_chains_equal_their_definition_in_both_forms(kind: str, links: int, steps: int, columns: int, sets: int) -> None:
    chain = Chain(SMALL, kind, links, steps, columns, sets)
    program, data = chain_program(chain), chain_inputs(chain)
    expected = chain_result(chain, data)
    for exact in (True, False):
        result = execute(program, data, exact=exact)
        assert result.violations == ()
        np.testing.assert_array_equal(result.outputs["y"], expected)


def test_fast_forms_are_used(monkeypatch: pytest.MonkeyPatch) -> None:
    from spatialc.runtime_sim.cgla import chain_forms, fast

    used: list[str] = []
    run_chain, integers = chain_forms.run_chain, fast.FastFlow._integer_chain

    def floats(*arguments: Any) -> Any:
        used.append("fp32")
        return run_chain(*arguments)

    def sums(self: fast.FastFlow, chain: fast.Chain, last: bool) -> w.Words | None:
        used.append("int8")
        return integers(self, chain, last)

    monkeypatch.setattr(chain_forms, "run_chain", floats)
    monkeypatch.setattr(fast.FastFlow, "_integer_chain", sums)
    for kind in ("fp32", "int8"):
        chain = Chain(SMALL, kind, 6, 8, 8, 12)
        execute(chain_program(chain), chain_inputs(chain))
    assert set(used) == {"fp32", "int8"}


@pytest.mark.parametrize(("product_head", "add", "steps"), [(True, True, 5), (False, True, 5), (False, False, 3), (True, False, 1)])
@pytest.mark.parametrize("links", [1, 3, 4, 9])
def test_compiled_chains_equal_stepped_ones(product_head: bool, add: bool, steps: int, links: int) -> None:
    from spatialc.runtime_sim.cgla import chains

    rng = np.random.default_rng(links)
    a = rng.standard_normal((2, steps, links, 64)).astype(np.float32)
    b = rng.standard_normal((2, steps, links, 8)).astype(np.float32)
    head, start = rng.standard_normal(2).astype(np.float32), rng.standard_normal((2, 8, 64)).astype(np.float32)
    expected = start.copy()
    chains.stepped(a, b, head, product_head, add, expected)
    compiled = start.copy()
    chains.loops.chain(a, b, head, product_head, add, compiled, 32, 0, 4)
    np.testing.assert_array_equal(compiled, expected)


@pytest.mark.parametrize("layout", ["split", "pairs", "low"])
@pytest.mark.parametrize("expand", [0, 1, 2])
@pytest.mark.parametrize("recipe", ["word", "low halves", "high halves"])
def test_compiled_factors_equal_their_definition(recipe: str, expand: int, layout: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from spatialc.runtime_sim.cgla import chains, packing

    rng = np.random.default_rng(expand)
    memory = rng.integers(0, 256, 4096, dtype=np.uint8)
    memory[:16] = np.array([0x0001, 0x83FF, 0x7C00, 0xFC00, 0x0000, 0x8000, 0x7BFF, 0x0400], dtype=np.uint16).view(np.uint8)
    memory[16:] = rng.standard_normal(2040).astype(np.float16).view(np.uint8)
    inner: tuple[Any, ...] = ("load",)
    if recipe != "word":
        inner = ("alu", OP1_CODE["X_H2F"], int(recipe == "high halves"), 0, 0, 0, 0, 0, 0, ("expand", 0, ("load",)), None, None)
    own = np.array([0, 8, 24, 16, 1000])
    part = packing.Gather(
        ("expand", expand, inner), (0, 2), np.array([0, 512]), np.array([0, 0]), 4096, np.array([0, 8]), np.array([16, 0, -8]) + 8, own, 8
    )
    assert part.code() is not None
    first = np.array([[0, 512], [64, 8]])
    index = part.index(first)
    assert index.shape == (2, 2, 3, 2, 5)
    assert index[1, 1, 2, 0, 3] == 64 + 8 + 0 + 16
    outs = []
    for compiled in (chains.loops, None):
        monkeypatch.setattr(packing, "kernels", lambda found=compiled: found)
        out = np.zeros((2, 2, 2 if layout == "split" else 1, 3, 4, 16), dtype=np.float32)
        packing.pack(memory, [part], [first], layout, out)
        outs.append(out.view(np.uint32))
        assert not out[..., [1, 3], :].any()
    np.testing.assert_array_equal(outs[0], outs[1])
    lanes = w.parts(packing.compute(part.recipe, memory.view(np.uint64)[index // 8]), "<f4").view(np.uint32)
    taken = outs[0][..., [0, 2], :]
    if layout == "pairs":
        np.testing.assert_array_equal(taken[:, :, 0, :, :, :10].reshape(lanes.shape), lanes)
    elif layout == "low":
        np.testing.assert_array_equal(taken[:, :, 0, :, :, :5], lanes[..., 0])
    else:
        np.testing.assert_array_equal(np.moveaxis(taken[..., :5], 2, -1), lanes)


def test_changed_slots_change_the_numbers() -> None:
    program = vector_add()
    data = inputs_of(program)
    broken = edited(program, "slots", {"row": 2, "col": 0}, expand1=1)
    result = execute(broken, data)
    assert result.violations == ()
    assert not np.array_equal(result.outputs["c"], data["a"] + data["b"])
    subtracted = edited(program, "slots", {"row": 2, "col": 0}, op2=OP2_CODE["XOR"], src4=1, imm4=1 << 63)
    assert not np.array_equal(execute(subtracted, data).outputs["c"], data["a"] + data["b"])


def test_breakdown_sums_to_cycles_and_timing_needs_no_data() -> None:
    program = vector_add()
    result = execute(program, {}, timing_only=True)
    assert result.cycles == program.predicted_cycles == sum(result.breakdown.values())
    assert result.outputs == {}
    assert result.energy_j == pytest.approx(sum(result.energy_breakdown.values()))


def test_exp2_recipe() -> None:
    """Degree-5 Horner in slot operations: exp2(-0.5) within 2.2e-7."""
    f = lambda value: np.array([value, value], dtype=np.float32).view(np.uint64)  # noqa: E731
    big = 1.5 * 2.0**23
    x = f(-0.5)
    t = w.op1("FAD", 0, (x, f(big)))
    n = w.op1("FAD", 0, (t, f(-big)))
    r = w.op1("FMS", 0, (x, n, f(1.0)))
    fit = np.polynomial.Chebyshev.interpolate(np.exp2, 5, domain=[-0.5, 0.5]).convert(kind=np.polynomial.Polynomial)
    coefficients = [float(c) for c in fit.coef[::-1]]
    p = f(coefficients[0])
    for coefficient in coefficients[1:]:
        p = w.op1("FMA", 0, (f(coefficient), p, r))
    bits = w.op1("ADD", 0, (p, w.op3("SLL", t, np.array([23], dtype=np.uint64))))
    value = float(bits.view(np.float32)[0])
    assert abs(value - 2**-0.5) / 2**-0.5 < 2.2e-7
