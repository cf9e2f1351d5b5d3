"""The worked examples of docs/tsp-model.md section 12, built from real bursts and judged by the executor."""

from __future__ import annotations

import numpy as np
import pytest
import tsp_programs as tsp
from tsp_programs import MACHINE, Builder, G, edit, example_e, region

from spatialc.machines.program import Program
from spatialc.machines.tsp.builder import In, Out
from spatialc.machines.tsp.isa import DType, E, Opcode, W
from spatialc.machines.tsp.tables import Kind
from spatialc.runtime_sim.tsp import check, execute

RNG = np.random.default_rng(7)


def rules(program: Program) -> set[str]:
    """Ids of the rules that a program breaks."""
    return {violation.rule for violation in check(program)}


def example_a(rows: int) -> tuple[Program, dict[str, int]]:
    """int8 weights in West S16(25-27, 29-37, 39-42), result at an ALU that also reads a mask from group 2."""
    slices = [(0, s) for s in (25, 26, 27, *range(29, 38), 39, 40, 41, 42)]
    b = Builder()
    s, at = b.s, {}
    w = b.constant(slices, RNG.integers(0, 256, (16, rows, 320)))
    x = b.memory(Kind.INPUT, [(0, 43)], 1)
    mask = b.constant([(0, 8), (0, 9), (0, 10), (0, 11)], np.full((4, 1, 320), 255))
    y = b.memory(Kind.OUTPUT, [(1, 0), (1, 1), (1, 2), (1, 3)], 1)
    take = G.mxm_take(0)
    for number, (h, slice_) in enumerate(slices):
        at.setdefault("weights", s.mem_read(h, slice_, w, 0, Out(number, W, take), t=slice_ // 4 - 6, n=rows))
    s.lw(0, 0, t=14, n=rows)
    s.iw(0, t=14 + rows)
    s.mem_read(0, 43, x, 0, Out(16, W, take), t=15 + rows - 10)
    at["abc"] = s.abc(0, 16, DType.I8, t=15 + rows)
    s.acc(0, t=29 + rows, out=Out(16, E, G.alu_take(4, E), 4))
    for p in range(4):
        at.setdefault("mask", s.mem_read(0, 8 + p, mask, 0, Out(20 + p, E, G.alu_take(4, E)), t=75 + rows))
    at["alu"] = s.alu(4, Opcode.AND, In(16, E), In(20, E), [Out(8, E, G.mem_take(1, 0, E), 4)], DType.I32, t=82 + rows)
    for p in range(4):
        s.mem_write(1, p, y, 0, In(8 + p, E), t=85 + rows)
    b.bind("x", "input", "int8", "i8", [320], [region(x, [320], 0, [0], [[(0, 43)]])])
    b.bind("y", "output", "int32", "i32", [320], [region(y, [320], 0, [0], [[(1, p)] for p in range(4)])])
    return b.program(), at


@pytest.mark.parametrize("rows", [1, 5, 20])
def test_example_a_is_82_and_76(rows: int) -> None:
    program, at = example_a(rows)
    t0 = program.segments[0].tables["bursts"]["t0"]
    alu, first_weight_on_stream = int(t0[at["alu"]]), int(t0[at["weights"]]) + MACHINE.mem_read
    assert alu - first_weight_on_stream == 82 + rows - 1
    assert int(t0[at["mask"]]) - int(t0[at["weights"]]) == 76 + rows - 1
    x = RNG.integers(-128, 128, 320).astype(np.int8)
    run = execute(program, {"x": x})
    assert run.violations == ()
    image = program.images["image.0"].view(np.int8)
    weights = np.zeros((320, 320), np.int64)
    for j in range(16):
        weights[j : 16 * rows : 16] = image[j]
    assert np.array_equal(run.outputs["y"], weights @ x.astype(np.int64))


@pytest.mark.parametrize(
    ("burst", "by", "rule"), [("alu", -1, "TSP-007"), ("mask", 1, "TSP-007"), ("abc", -1, "TSP-007"), ("weights", 1, "TSP-007")]
)
def test_example_a_has_no_slack(burst: str, by: int, rule: str) -> None:
    program, at = example_a(5)
    row = at[burst]
    assert rule in rules(edit(program, row, t0=int(program.segments[0].tables["bursts"]["t0"][row]) + by))


def sxm_program(turned: bool) -> tuple[Program, int]:
    """Examples B (through the vector unit) and C (turned round in group 10); returns the cycle of the distributor's result."""
    b = Builder()
    s = b.s
    sources = [(0, p) for p in range(17, 36) if (0, p) not in MACHINE.reserved_slices][:16]
    maps = b.constant(sources, np.zeros((16, 1, 320)))
    table = b.constant([(0, 43)], RNG.integers(0, 256, (1, 4096, 320)), bank=1)
    codes = b.constant([(0, 39)], np.tile(np.arange(16, dtype=np.uint8), 20)[None, None])
    y = b.memory(Kind.OUTPUT, [(0, s_) for s_ in (40, 41, 42, 36)], 1)
    start = 30
    for number, (h, slice_) in enumerate(sources):
        s.mem_read(h, slice_, maps, 0, Out(number, W, G.sxm_take(0, W)), t=start - 1 - (17 - 3 - slice_ // 4))
    s.transpose(0, 0, In(0, W), [Out(0, E, G.mem_take(0, 43, E))], t=start)
    if turned:
        s.gather(0, 43, table, In(0, E), Out(8, W, G.sxm_take(0, W)), t=start + 8)
        end = start + 13
    else:
        s.gather(0, 43, table, In(0, E), Out(0, E, G.alu_take(0, E)), t=start + 8)
        for alu in range(3):
            out = Out(8, W, G.sxm_take(0, W)) if alu == 2 else Out(alu + 1, E, G.alu_take(alu + 1, E))
            s.alu(alu, Opcode.NEG, In(alu, E), None, [out], DType.I8, t=start + 24 + 3 * alu, modular=1)
        end = start + 48
    s.mem_read(0, 39, codes, 0, Out(12, W, G.sxm_take(0, W)), t=end - 1 - (17 - 2 - 9 - 1))
    outs = Out(16, E, [G.mem_take(0, 40, E)] * 3 + [G.mem_take(0, 36, E)], 4)
    s.distribute(0, 0, In(8, W), In(12, W), [outs], t=end, lowest=1)
    for p, slice_ in enumerate((40, 41, 42, 36)):
        s.mem_write(0, slice_, y, 0, In(16 + p, E), t=end + 2 + 4 + (slice_ == 36))
    b.bind("y", "output", "int32", "i32", [320], [region(y, [320], 0, [0], [[(0, s_)] for s_ in (40, 41, 42, 36)])])
    return b.program(), end + MACHINE.distributor - start


@pytest.mark.parametrize(("turned", "cycles"), [(False, 50), (True, 15)])
def test_examples_b_and_c(turned: bool, cycles: int) -> None:
    program, taken = sxm_program(turned)
    assert taken == cycles
    run = execute(program, {})
    assert run.violations == ()
    row = program.images["image.1"][0, 0].astype(np.int64)
    expected = row if turned else (-row) % 256
    words = run.outputs["y"].view(np.uint8).reshape(20, 16, 4)
    assert np.array_equal(words[:, :4].reshape(20, 16), expected.reshape(20, 16))


def example_d() -> Program:
    """Vector add: West slices 21 and 8 to East slice 5."""
    b = Builder()
    s = b.s
    one, other = b.memory(Kind.INPUT, [(0, 21)], 1), b.memory(Kind.INPUT, [(0, 8)], 1)
    y = b.memory(Kind.OUTPUT, [(1, 5)], 1)
    s.mem_read(0, 21, one, 0, Out(0, E, G.alu_take(0, E)), t=0)
    s.mem_read(0, 8, other, 0, Out(4, E, G.alu_take(0, E)), t=3)
    s.alu(0, Opcode.ADD, In(0, E), In(4, E), [Out(8, E, G.mem_take(1, 5, E))], DType.I8, t=10)
    s.mem_write(1, 5, y, 0, In(8, E), t=14)
    b.bind("a", "input", "int8", "i8", [320], [region(one, [320], 0, [0], [[(0, 21)]])])
    b.bind("b", "input", "int8", "i8", [320], [region(other, [320], 0, [0], [[(0, 8)]])])
    b.bind("y", "output", "int8", "i8", [320], [region(y, [320], 0, [0], [[(1, 5)]])])
    return b.program()


def test_example_d() -> None:
    program = example_d()
    a, c = (RNG.integers(-128, 128, 320).astype(np.int8) for _ in range(2))
    run = execute(program, {"a": a, "b": c})
    assert run.violations == ()
    assert run.cycles == 34
    assert np.array_equal(run.outputs["y"], np.clip(a.astype(int) + c, -128, 127))
    for row, by in ((0, 1), (1, -1), (2, 1), (3, 1), (3, -1)):
        moved = int(program.segments[0].tables["bursts"]["t0"][row]) + by
        assert "TSP-007" in rules(edit(program, row, t0=moved))


@pytest.mark.parametrize("exact", [False, True])
def test_example_e_is_132_cycles(exact: bool) -> None:
    weights, x = RNG.standard_normal((320, 320)).astype(np.float16), RNG.standard_normal((1, 320)).astype(np.float16)
    program, _ = example_e(weights)
    run = execute(program, {"x": x}, exact=exact)
    assert run.violations == ()
    assert run.cycles == 132
    assert sum(run.breakdown.values()) == 132
    wide = x.astype(np.float64) @ weights.astype(np.float64).T
    if exact:
        assert np.array_equal(run.outputs["y"], wide.astype(np.float32).astype(np.float16))
    assert np.linalg.norm(run.outputs["y"] - wide) < 5e-4 * np.linalg.norm(wide)


def test_geometry_of_section_1() -> None:
    assert (G.sr0, G.c2c, G.sxm, G.mxm) == (2, 15, 17, 22)
    assert G.mem_drive_x(0, 21, E) == -7
    assert G.mem_take_x(1, 5, E) == 3
    assert tsp.MACHINE.capacity_bytes == 207_093_760
