"""What the executor computes: every ALU operation, byte movers, passes, data-dependent memory, instances; against plain numpy."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from tsp_programs import MACHINE, Builder, G, edit, example_e, program_tables, region

from spatialc.errors import BadInput
from spatialc.machines.program import Program
from spatialc.machines.tsp import tables
from spatialc.machines.tsp.builder import In, Out, SegmentBuilder
from spatialc.machines.tsp.isa import HALF_BOTH, NUMPY, WIDTH, DType, E, Opcode, W
from spatialc.machines.tsp.tables import Kind
from spatialc.runtime_sim.tsp import check, execute, prepare

RNG = np.random.default_rng(3)
STORED = {DType.I8: "i8", DType.I16: "i16", DType.I32: "i32", DType.F16: "f16", DType.F32: "f32"}
I8, I16, I32, F16, F32 = DType.I8, DType.I16, DType.I32, DType.F16, DType.F32


def alu_program(opcode: Opcode, types: list[DType], result: DType, n: int = 3, **fields: Any) -> Program:
    """n vectors through ALU 0: operands from West slices 0.. and 4.., result to East slices 0.. ."""
    b = Builder()
    s = b.s
    for number, dtype in enumerate(types):
        slices = [(0, 4 * number + p) for p in range(WIDTH[dtype])]
        x = b.memory(Kind.INPUT, slices, n)
        for p, (h, slice_) in enumerate(slices):
            s.mem_read(h, slice_, x, 0, Out(4 * number + p, E, G.alu_take(0, E)), t=1 - number, n=n)
        stored = STORED[dtype]
        b.bind("ab"[number], "input", NUMPY[dtype].name, stored, [n, 320], [region(x, [n, 320], 1, [1, 0], [[sl] for sl in slices])])
    width = WIDTH[result]
    y = b.memory(Kind.OUTPUT, [(1, p) for p in range(width)], n)
    two = In(4, E) if len(types) == 2 else None
    dtype2 = fields.pop("dtype2", None)
    s.alu(0, opcode, In(0, E), two, [Out(8, E, G.mem_take(1, 0, E), width)], types[0], t=6, n=n, dtype2=dtype2, **fields)
    for p in range(width):
        s.mem_write(1, p, y, 0, In(8 + p, E), t=9, n=n)
    b.bind("y", "output", NUMPY[result].name, STORED[result], [n, 320], [region(y, [n, 320], 1, [1, 0], [[(1, p)] for p in range(width)])])
    return b.program()


def values(dtype: DType, positive: bool = False) -> np.ndarray:
    """Random values of a format, extremes included."""
    kind = NUMPY[dtype]
    if dtype in (F16, F32):
        data = (RNG.standard_normal((3, 320)) * 8).astype(kind)
        return np.abs(data) + kind.type(0.01) if positive else data
    limits = np.iinfo(kind)
    data = RNG.integers(limits.min, limits.max, (3, 320), endpoint=True).astype(kind)
    data[0, :4] = limits.min, limits.max, 0, -1
    return data


def saturated(wide: np.ndarray, dtype: DType) -> np.ndarray:
    limits = np.iinfo(NUMPY[dtype])
    return np.clip(wide, limits.min, limits.max)


_INT = (I8, I16, I32)
_PYTHON: dict[Opcode, Any] = {
    Opcode.ADD: np.add,
    Opcode.SUB: np.subtract,
    Opcode.MUL: np.multiply,
    Opcode.MAX: np.maximum,
    Opcode.MIN: np.minimum,
}


@pytest.mark.parametrize("dtype", [I8, I16, I32, F16, F32])
@pytest.mark.parametrize(("opcode", "modular"), [*((op, 0) for op in sorted(_PYTHON)), *((op, 1) for op in sorted(_PYTHON)[:3])])
def test_arithmetic(opcode: Opcode, dtype: DType, modular: int) -> None:
    a, b = values(dtype), values(dtype)
    fields = {"modular": modular} if opcode not in (Opcode.MAX, Opcode.MIN) else {}
    run = execute(alu_program(opcode, [dtype, dtype], dtype, **fields), {"a": a, "b": b})
    assert run.violations == ()
    wide = _PYTHON[opcode](a.astype(np.int64), b.astype(np.int64)) if dtype in _INT else _PYTHON[opcode](a, b)
    expected = (saturated(wide, dtype) if not modular else wide).astype(NUMPY[dtype]) if dtype in _INT else wide
    assert np.array_equal(run.outputs["y"], expected)


@pytest.mark.parametrize("opcode", [Opcode.EQ, Opcode.NE, Opcode.GT, Opcode.GE, Opcode.LT, Opcode.LE])
def test_compares_give_integers(opcode: Opcode) -> None:
    a = values(F32)
    b = np.where(RNG.random((3, 320)) < 0.5, a, values(F32))
    run = execute(alu_program(opcode, [F32, F32], I8, dtype2=I8), {"a": a, "b": b})
    name = {"EQ": "equal", "NE": "not_equal", "GT": "greater", "GE": "greater_equal", "LT": "less", "LE": "less_equal"}[opcode.name]
    assert np.array_equal(run.outputs["y"], getattr(np, name)(a, b).astype(np.int8))


def test_bits_shifts_and_masks() -> None:
    a, b = values(I32), values(I32)
    for opcode, expected in ((Opcode.AND, a & b), (Opcode.OR, a | b), (Opcode.XOR, a ^ b)):
        assert np.array_equal(execute(alu_program(opcode, [I32, I32], I32), {"a": a, "b": b}).outputs["y"], expected)
    count = RNG.integers(0, 32, (3, 320)).astype(np.int32)
    assert np.array_equal(execute(alu_program(Opcode.SHL, [I32, I32], I32), {"a": a, "b": count}).outputs["y"], a << count)
    assert np.array_equal(execute(alu_program(Opcode.SHR, [I32, I32], I32), {"a": a, "b": count}).outputs["y"], a >> count)
    x, m = values(F32), RNG.integers(0, 3, (3, 320)).astype(np.int8)
    for opcode, kept in ((Opcode.SELECT, m != 0), (Opcode.MASK_BAR, m == 0)):
        run = execute(alu_program(opcode, [F32, I8], F32, dtype2=I8), {"a": x, "b": m})
        assert np.array_equal(run.outputs["y"], np.where(kept, x, 0))


@pytest.mark.parametrize("opcode", [Opcode.EXP2, Opcode.LOG2, Opcode.RSQRT])
def test_functions_round_the_double_value(opcode: Opcode) -> None:
    a = values(F32, positive=opcode != Opcode.EXP2)
    wide = a.astype(np.float64)
    with np.errstate(invalid="ignore"):
        expected = {"EXP2": np.exp2(wide), "LOG2": np.log2(wide), "RSQRT": 1 / np.sqrt(wide)}[opcode.name].astype(np.float32)
    assert np.array_equal(execute(alu_program(opcode, [F32], F32), {"a": a}).outputs["y"], expected)


def test_tanh_is_fixed_point() -> None:
    a = values(I16)
    got = execute(alu_program(Opcode.TANH, [I16], I16), {"a": a}).outputs["y"]
    assert np.abs(got * 3.05185e-5 - np.tanh(a / 5461.17)).max() < 2e-5


@pytest.mark.parametrize(
    ("source", "target", "modular"),
    [
        (F32, F16, 0), (F32, F16, 1), (F32, I8, 0), (F32, I16, 0), (F32, I32, 0),
        (I32, F32, 0), (I16, F32, 0), (F16, F32, 0), (I32, I8, 1), (I8, I32, 0),
    ],
)  # fmt: skip
def test_casts(source: DType, target: DType, modular: int) -> None:
    a = values(source)
    if source == F32:
        a[0, :6] = 0.5, 1.5, -2.5, 1e6, -1e6, 300.25
    run = execute(alu_program(Opcode.CAST, [source], target, dtype2=target, modular=modular), {"a": a})
    kind = NUMPY[target]
    if target in (F16, F32):
        with np.errstate(over="ignore"):
            expected = (np.clip(a, -65504, 65504) if target == F16 and not modular else a).astype(kind)
    else:
        wide = np.rint(a.astype(np.float64)).astype(np.int64)
        expected = wide.astype(kind) if modular else saturated(wide, target).astype(kind)
    assert np.array_equal(run.outputs["y"], expected)


def test_transpose_bypass_and_broadcast() -> None:
    b = Builder()
    s = b.s
    sources = [(0, p) for p in range(17, 36) if (0, p) not in MACHINE.reserved_slices][:16]
    x = b.memory(Kind.INPUT, sources, 2)
    data = RNG.integers(0, 256, (16, 2, 320)).astype(np.uint8)
    y = b.memory(Kind.OUTPUT, [(0, p) for p in (*range(8), 40)], 2, bank=1)
    for number, (h, slice_) in enumerate(sources):
        until = [G.sxm_take(0, W)]
        s.mem_read(h, slice_, x, 0, Out(number, W, until[0]), t=30 - 15 + slice_ // 4, n=2)
    start = 30
    outs = [Out(j, E, G.mem_take(0, j, E)) for j in range(8)]
    s.transpose(0, 1, In(0, W), outs, t=start, n=2)
    for j in range(8):
        s.mem_write(0, j, y, 0, In(j, E), t=start + 4 + 17 - 3 - j // 4, n=2)
    s.broadcast(0, In(3, W), [Out(12, E, G.mem_take(0, 40, E))], t=start, n=2)
    s.mem_write(0, 40, y, 0, In(12, E), t=start + 36 + 4, n=2)
    b.bind("x", "input", "uint8", "u8", [16, 2, 320], [
        region(x, [16, 2, 320], 2, [0, 1, 0], [[sl]], start=[j, 0, 0], shape=[1, 2, 320]) for j, sl in enumerate(sources)])  # fmt: skip
    b.bind("y", "output", "uint8", "u8", [8, 2, 320], [
        region(y, [8, 2, 320], 2, [0, 1, 0], [[(0, j)]], start=[j, 0, 0], shape=[1, 2, 320]) for j in range(8)])  # fmt: skip
    b.bind("z", "output", "uint8", "u8", [2, 320], [region(y, [2, 320], 1, [1, 0], [[(0, 40)]])])
    run = execute(b.program(), {"x": data})
    assert run.violations == ()
    blocks = data.reshape(16, 2, 20, 16)
    assert np.array_equal(run.outputs["y"], blocks.transpose(3, 1, 2, 0)[:8].reshape(8, 2, 320))
    assert np.array_equal(run.outputs["z"], np.repeat(data[3, :, :1], 320, axis=1))


def matmul_program(m: int = 24, tiles: int = 3, apart: bool = False, rows: int = 320, lanes: int = 320) -> tuple[Program, np.ndarray]:
    """x [m, 320 tiles] @ W [320, 320 tiles]^T in fp16 in each hemisphere, K tiles summed in accumulator entries.

    `apart`: the partial results of the even plane are outputs besides. From `rows` and `lanes` on the last tile is zero.
    """
    b = Builder()
    s = b.s
    weights = (RNG.standard_normal((2, tiles, 320, 320)) / 20).astype(np.float16)
    weights[:, -1, rows:], weights[:, -1, :, lanes:] = 0, 0
    for h in (0, 1):
        slices = [(h, s_) for s_ in range(43, 7, -1) if (1, s_) not in MACHINE.reserved_slices and (h, s_) not in MACHINE.reserved_slices]
        slices = [*slices, (0, 5)][:32]
        out, away = h, 1 - h
        image = np.zeros((32, 20 * tiles, 320), np.uint8)
        order = sorted(slices)
        for p in range(2):
            for j in range(16):
                planes = weights[h].view(np.uint8).reshape(tiles, 320, 320, 2)
                image[order.index(slices[16 * p + j])] = planes[:, j::16, :, p].reshape(-1, 320)
        w = b.constant(slices, image)
        x = b.memory(Kind.INPUT, [(h, 0), (h, 1)], m * tiles)
        y = b.memory(Kind.OUTPUT, [(h, 2), (h, 3)], m, bank=1)
        z = b.memory(Kind.OUTPUT, [(h, p) for p in (4, 6, 7, 2)], m, row=1000) if apart else -1
        take = G.mxm_take(h)
        for k in range(tiles):
            at = 31 - h + k * (2 * m + 8)
            for number, (_, slice_) in enumerate(slices):
                s.mem_read(h, slice_, w, 20 * k, Out(number % 16, out, take), t=at + 20 * (number // 16) - 20 + slice_ // 4, n=20)
            for p in range(2):
                s.lw(2 * h + p, 0, t=at + 20 * p)
                s.iw(2 * h + p, t=at + 2 * m + 2)
                s.mem_read(h, p, x, m * k, Out(16 + p, out, take), t=at + 2 * m + 3 - 20, n=m, i=2)
            for p in range(2):
                last = k == tiles - 1
                group = (p if h else 1 - p) * 4
                end = G.alu_take(15 * (1 - h), away)
                s.abc(2 * h + p, 16, F16, t=at + 2 * m + 3, n=m, i=2, half=HALF_BOTH)
                s.acc(
                    2 * h + p,
                    t=at + 2 * m + 17,
                    n=m,
                    i=2,
                    add=int(k > 0),
                    store=int(not last),
                    out=Out(group, away, end, 4) if last else None,
                )
        t = 31 - h + (tiles - 1) * (2 * m + 8) + 2 * m + 3 + 67
        first, second, mid, end = (0, 2, 8, 0) if h else (15, 13, 28, 4)
        s.alu(first, Opcode.ADD, In(0, away), In(4, away), [Out(mid, out, G.alu_take(second, out), 4)], F32, t=t, n=m, i=2)
        s.alu(second, Opcode.CAST, In(mid, out), None, [Out(end, out, G.mem_take(h, 2, out), 2)], F32, t=t + 3, n=m, i=2, dtype2=F16)
        for p in range(2):
            s.mem_write(h, 2 + p, y, 0, In(end + p, out), t=t + 6, n=m, i=2)
        if apart:
            _partial_output(b, h, m, t, z)
        name = "we"[h]
        planes = [[(h, 0)], [(h, 1)]]
        b.bind(f"x{name}", "input", "float16", "f16", [m, 320 * tiles], [region(x, [m, 320 * tiles], 1, [1, m], planes)])
        b.bind(f"y{name}", "output", "float16", "f16", [m, 320], [region(y, [m, 320], 1, [1, 0], [[(h, 2)], [(h, 3)]])])
    return b.program(), weights


def _partial_output(b: Builder, h: int, m: int, t: int, z: int) -> None:
    """Copy the partial result of the even plane to memory besides."""
    away, out = 1 - h, h
    group = 0 if h else 4
    copier = 1 if h else 14
    s = b.s
    end = G.alu_take(15 * (1 - h), away)
    assert G.alu_take(copier, away) < end
    places = (4, 6, 7, 2)
    target = 12 if h else 24
    s.alu(
        copier, Opcode.IDENTITY, In(group, away), None, [Out(target, out, [G.mem_take(h, p, out) for p in places], 4)], F32, t=t, n=m, i=2
    )
    for p, slice_ in enumerate(places):
        s.mem_write(h, slice_, z, 0, In(target + p, out), t=t + 3 + slice_ // 4, n=m, i=2)
    b.bind(f"z{'we'[h]}", "output", "float32", "f32", [m, 320], [region(z, [m, 320], 1, [1, 0], [[(h, p)] for p in places])])


@pytest.mark.parametrize("apart", [False, True])
def test_sums_over_k_tiles_in_both_hemispheres(apart: bool) -> None:
    program, weights = matmul_program(apart=apart)
    x = RNG.standard_normal((2, 24, 960)).astype(np.float16)
    inputs = {"xw": x[0], "xe": x[1]}
    exact = execute(program, inputs, exact=True)
    assert [str(v) for v in exact.violations] == []
    for h in (0, 1):
        name = "we"[h]
        whole = sum(x[h][:, 320 * k : 320 * k + 320].astype(np.float64) @ weights[h, k].astype(np.float64).T for k in range(3))
        assert np.abs(exact.outputs[f"y{name}"] - whole).max() < 2e-3 * np.abs(whole).max()
        if apart:
            high = (weights[h].view(np.uint16) & 0xFF00).view(np.float16).astype(np.float64)
            low = weights[h].astype(np.float64) - high
            part = sum(x[h][:, 320 * k : 320 * k + 320].astype(np.float64) @ low[k].T for k in range(3))
            assert np.allclose(exact.outputs[f"z{name}"], part, atol=1e-5)
    blocked = execute(program, inputs)
    assert blocked.order == ("exact" if apart else "blocked")
    for name in exact.outputs:
        assert np.allclose(blocked.outputs[name], exact.outputs[name], rtol=2e-3, atol=2e-4)


@pytest.mark.parametrize(("tiles", "rows", "lanes"), [(2, 200, 129), (3, 1, 320), (3, 320, 1), (2, 0, 0)])
@pytest.mark.parametrize("odd", [0.0, np.inf, np.nan])
@pytest.mark.filterwarnings("ignore:invalid value")
def test_weights_that_are_zero_add_nothing_to_finite_vectors(tiles: int, rows: int, lanes: int, odd: float) -> None:
    program, weights = matmul_program(tiles=tiles, rows=rows, lanes=lanes)
    x = RNG.standard_normal((24, 320 * tiles)).astype(np.float16)
    x[5, -1] = odd
    run = execute(program, {"xw": x, "xe": x})
    for h, name in enumerate(("yw", "ye")):
        whole = x.astype(np.float32) @ weights[h].transpose(0, 2, 1).reshape(320 * tiles, 320).astype(np.float32)
        whole = np.where(np.isinf(whole), np.sign(whole) * 65504, whole)
        assert np.allclose(run.outputs[name], whole, rtol=2e-3, atol=2e-4, equal_nan=True)


def test_full_planes_use_a_plausible_power() -> None:
    program, _ = matmul_program(m=128, tiles=24)
    run = execute(program, {}, timing_only=True)
    assert run.violations == ()
    busy = run.breakdown["compute"] / run.cycles
    watts = run.energy_j / (run.cycles / MACHINE.clock_hz)
    assert busy > 0.9
    assert 140 < watts < 300
    assert run.utilization["mxm"] > 0.9


def scatter_program() -> Program:
    """Scatter one row into a state of 8 rows at rows given by a map, then read all of it."""
    b = Builder()
    s = b.s
    cache = b.memory(Kind.STATE, [(0, 21)], 8, row=16)
    fresh, codes = b.memory(Kind.INPUT, [(0, 43)], 1), b.memory(Kind.INPUT, [(0, 42)], 1)
    y = b.memory(Kind.OUTPUT, [(0, 0)], 8)
    until = G.mem_take(0, 21, E)
    s.mem_read(0, 43, fresh, 0, Out(0, E, until), t=0)
    s.mem_read(0, 42, codes, 0, Out(1, E, until), t=0)
    s.scatter(0, 21, cache, In(0, E), In(1, E), t=5)
    s.mem_read(0, 21, cache, 0, Out(2, E, G.mem_take(0, 0, E)), t=6, n=8)
    s.mem_write(0, 0, y, 0, In(2, E), t=11, n=8)
    for name, kind, obj, where, n in (
        ("fresh", "input", fresh, 43, 1),
        ("codes", "input", codes, 42, 1),
        ("cache", "state", cache, 21, 8),
        ("y", "output", y, 0, 8),
    ):
        b.bind(name, kind, "uint8", "u8", [n, 320], [region(obj, [n, 320], 1, [1, 0], [[(0, where)]])])
    return b.program()


def test_scatter_updates_a_state_between_runs() -> None:
    program = prepare(scatter_program())
    assert program.violations == ()
    cache = np.zeros((8, 320), np.uint8)
    states: dict[str, np.ndarray] = {}
    for row in (3, 0, 3, 7):
        fresh = RNG.integers(0, 256, (1, 320)).astype(np.uint8)
        codes = np.zeros((20, 16), np.uint8)
        codes[:, 0] = 16 + row
        cache[row] = fresh[0]
        run = program.run({"fresh": fresh, "codes": codes.reshape(1, 320)}, states)
        assert run.violations == ()
        assert np.array_equal(run.outputs["y"], cache)
        states = dict(run.states)
        assert np.array_equal(states["cache"], cache)
    alone, first = (p.run({"fresh": fresh, "codes": codes.reshape(1, 320)}) for p in (program, prepare(scatter_program())))
    assert np.array_equal(alone.outputs["y"], first.outputs["y"]) and np.flatnonzero(alone.outputs["y"].any(axis=1)).tolist() == [row]
    codes[4, 0] = 15
    assert [v.rule for v in program.run({"fresh": fresh, "codes": codes.reshape(1, 320)}, states).violations] == ["TSP-012"]
    early = edit(scatter_program(), 3, t0=4)
    assert "TSP-011" in {v.rule for v in check(early)}


def test_instances_rebind_one_segment() -> None:
    layers = 4
    b = Builder()
    s = SegmentBuilder("layer")
    x, w, y = s.object(6, [(0, 0)]), s.object(6, [(0, 4)]), s.object(6, [(1, 0)])
    s.mem_read(0, 0, x, 0, Out(0, E, G.alu_take(0, E)), t=1, n=3, n2=2, i2=5, stride2=3)
    s.mem_read(0, 4, w, 0, Out(4, E, G.alu_take(0, E)), t=0, n=3, n2=2, i2=5, stride2=3)
    s.alu(0, Opcode.ADD, In(0, E), In(4, E), [Out(8, E, G.mem_take(1, 0, E))], I8, t=6, n=3, n2=2, i2=5, modular=1)
    s.mem_write(1, 0, y, 0, In(8, E), t=9, n=3, n2=2, i2=5, stride2=3)
    back = SegmentBuilder("back")
    source, target = back.object(6, [(1, 0)]), back.object(6, [(0, 0)])
    back.mem_read(1, 0, source, 0, Out(0, W, G.mem_take(0, 0, W)), t=0, n=6)
    back.mem_write(0, 0, target, 0, In(0, W), t=1 + 4 + 0, n=6)
    images = {f"image.{k}": RNG.integers(0, 256, (1, 6, 320)).astype(np.uint8) for k in range(layers)}
    alloc = [{"kind": Kind.INPUT, "rows": 6, "west": 1}]
    instances, binds, before = [], [], 0
    for k in range(layers):
        alloc += [
            {"kind": Kind.CONST, "rows": 6, "west": 16, "row": 6 * k},
            {"kind": Kind.SCRATCH, "rows": 6, "east": 1, "row": 6 * (k % 2)},
        ]
        alloc.append({"kind": Kind.OUTPUT if k == layers - 1 else Kind.SCRATCH, "rows": 6, "west": 1, "row": 6 * (k + 1), "bank": 1})
        first, move = 2 * k, 2 * k + 1
        instances += [{"segment": 0, "offset": 40 * k}, {"segment": 1, "offset": 40 * k + 20}]
        binds += [{"instance": first, "object": o, "allocation": a} for o, a in ((x, before), (w, 3 * k + 1), (y, 3 * k + 2))]
        binds += [{"instance": move, "object": o, "allocation": a} for o, a in ((source, 3 * k + 2), (target, 3 * k + 3))]
        before = 3 * k + 3
    b.bind("x", "input", "int8", "i8", [6, 320], [region(0, [6, 320], 1, [1, 0], [[(0, 0)]])])
    b.bind("y", "output", "int8", "i8", [6, 320], [region(before, [6, 320], 1, [1, 0], [[(0, 0)]])])
    made = program_tables(b) | {
        "instances": tables.INSTANCES.from_rows(instances), "binds": tables.BINDS.from_rows(binds),
        "allocations": tables.ALLOCATIONS.from_rows(alloc),
        "placements": tables.PLACEMENTS.from_rows([{"image": k, "allocation": 3 * k + 1} for k in range(layers)]),
    }  # fmt: skip
    cycles = 40 * (layers - 1) + 20 + 5 + 5 + 20
    program = Program("tsp", MACHINE.to_json(), tuple(b.bindings), made, (s.segment(), back.segment()), images, cycles)
    data = RNG.integers(-128, 128, (6, 320)).astype(np.int8)
    run = execute(program, {"x": data})
    assert [str(v) for v in run.violations] == []
    total = sum(image[0].view(np.int8).astype(int) for image in images.values()) + data
    assert np.array_equal(run.outputs["y"], total.astype(np.int8))
    crowded = {**made, "instances": tables.INSTANCES.from_rows([*instances[:-1], {"segment": 1, "offset": 40 * (layers - 1) + 8}])}
    assert {v.rule for v in check(replace(program, tables=crowded, predicted_cycles=cycles - 12))} >= {"TSP-009"}


def test_timing_needs_no_weights_and_numbers_do() -> None:
    program, _ = example_e(np.zeros((320, 320), np.float16))
    bare = replace(program, images={})
    run = execute(bare, {}, timing_only=True)
    assert (run.cycles, run.legal, run.outputs) == (132, True, {})
    with pytest.raises(BadInput, match="without weights"):
        execute(bare, {"x": np.zeros((1, 320), np.float16)})


def test_wrong_inputs_are_one_sentence() -> None:
    program, _ = example_e(np.zeros((320, 320), np.float16))
    with pytest.raises(BadInput, match="input x is missing"):
        execute(program, {})
    with pytest.raises(BadInput, match=r"input x has shape \[2, 320\], the program takes \[1, 320\]"):
        execute(program, {"x": np.zeros((2, 320))})
    with pytest.raises(BadInput, match="no input 'z'"):
        execute(program, {"x": np.zeros((1, 320)), "z": np.zeros(1)})


@pytest.mark.parametrize("sparse", ["no", "weights", "activations"])
def test_int8_passes_are_exact(sparse: str) -> None:
    """Dense operands, and weights or activations with at most one entry a row (computed as a gather), against integers."""
    rows, k = 40, 3
    b = Builder()
    s = b.s
    slices = [(1, p) for p in range(43, 20, -1) if (1, p) not in MACHINE.reserved_slices][:16]
    weights = RNG.integers(-128, 128, (320, 320)).astype(np.int8)
    if sparse == "weights":
        weights[:] = 0
        weights[np.arange(300), RNG.integers(0, 320, 300)] = RNG.integers(-128, 128, 300)
    order = sorted(slices)
    w = b.constant(slices, np.stack([weights[slices.index(sl) :: 16] for sl in order]).view(np.uint8))
    x = b.memory(Kind.INPUT, [(1, 0)], rows)
    y = b.memory(Kind.OUTPUT, [(1, p) for p in range(4)], rows, bank=1)
    take = G.mxm_take(1)
    for j, (h, slice_) in enumerate(slices):
        s.mem_read(h, slice_, w, 0, Out(j, E, take), t=30 - 20 + slice_ // 4, n=20)
    s.lw(3, 0, t=30)
    s.iw(3, t=50)
    for p in range(k):
        t = 51 + p * rows
        s.mem_read(1, 0, x, 0, Out(16, E, take), t=t - 20, n=rows)
        s.abc(3, 16, I8, t=t, n=rows)
        s.acc(3, t=t + 14, n=rows, add=int(p > 0), store=int(p < k - 1), out=Out(0, W, G.alu_take(0, W), 4) if p == k - 1 else None)
    t = 51 + (k - 1) * rows + 67
    s.alu(0, Opcode.IDENTITY, In(0, W), None, [Out(4, E, G.mem_take(1, 0, E), 4)], I32, t=t, n=rows)
    for p in range(4):
        s.mem_write(1, p, y, 0, In(4 + p, E), t=t + 3, n=rows)
    b.bind("x", "input", "int8", "i8", [rows, 320], [region(x, [rows, 320], 1, [1, 0], [[(1, 0)]])])
    b.bind("y", "output", "int32", "i32", [rows, 320], [region(y, [rows, 320], 1, [1, 0], [[(1, p)] for p in range(4)])])
    data = RNG.integers(-128, 128, (rows, 320)).astype(np.int8)
    if sparse == "activations":
        data[:] = 0
        data[np.arange(rows - 1), RNG.integers(0, 320, rows - 1)] = RNG.integers(-128, 128, rows - 1)
    expected = k * (data.astype(np.int64) @ weights.T.astype(np.int64))
    for exact in (False, True):
        run = execute(b.program(), {"x": data}, exact=exact)
        assert [str(v) for v in run.violations] == []
        assert np.array_equal(run.outputs["y"], expected)
