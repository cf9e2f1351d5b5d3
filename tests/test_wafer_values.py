"""Values come from instructions: every operation against numpy, orders of summation, lookups, and streams."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from wafer_programs import BASE, bound, chain, local_product, mesh_product, program_of, star

from spatialc.errors import BadInput
from spatialc.machines.program import Binding, Program
from spatialc.machines.wafer.builder import NO_OPERAND, Operand, ProgramBuilder, SegmentBuilder, full, imm, mem
from spatialc.machines.wafer.isa import NUMPY, WORDS, Element, Fmt, Op, Semantics, find
from spatialc.machines.wafer.tables import ObjectKind, OperandKind
from spatialc.runtime_sim.wafer import check, execute, kernels
from spatialc.runtime_sim.wafer.addresses import nest
from spatialc.runtime_sim.wafer.engine import Engine
from spatialc.runtime_sim.wafer.flows import jump
from spatialc.runtime_sim.wafer.instances import _meeting
from spatialc.runtime_sim.wafer.judge import judge
from spatialc.runtime_sim.wafer.kernels import round_half
from spatialc.runtime_sim.wafer.parts import Parts
from spatialc.runtime_sim.wafer.storage import copied, gapless

F16, F32, I16, I32 = Element.F16, Element.F32, Element.I16, Element.I32
NAMES = {F16: "f16", F32: "f32", I16: "i16", I32: "i32"}


def one_burst(
    op: Op, fmt: Fmt, sizes: dict[str, tuple[Element, int]], ext: tuple[int, ...], preload: bool = False, **operands: Any
) -> Program:
    """A program of one burst on 2 x 2 cores. `sizes` gives format and elements of the objects d, a, b, s in use; operands are functions
    of the object id, or Operands. With `preload`, d is a state that the burst changes."""
    s = SegmentBuilder("one")
    r = s.region(2, 2)
    builder = ProgramBuilder()
    i = builder.instance(0, 0, 0, 0)
    at, ids, bindings = BASE, {}, []
    for name, (element, size) in sizes.items():
        kind = (ObjectKind.STATE if preload else ObjectKind.OUTPUT) if name == "d" else ObjectKind.INPUT
        at += 4 * (name == "b")
        ids[name] = s.object(r, at, element, [size], kind)
        at += size * WORDS[element]
        at += -at % 8
        place = builder.placement([2, 2, size], [(0, 1, 0), (0, 0, 1), (0, 0, 0)], [[0], [0], [1]], full(2), full(2), ext=[size])
        role = ("state" if preload else "output") if name == "d" else "input"
        bindings.append(bound(name, role, NAMES[element], (2, 2, size), (i, ids[name], place)))
    rest = {k: v for k, v in operands.items() if k not in "dabs"}
    placed: dict[str, Operand] = {}
    for name in "dabs":
        value = operands.get(name, NO_OPERAND)
        placed[name] = value if isinstance(value, Operand) else value(ids[name])
    span = 1 << 14
    s.burst(r, op, fmt, 0, span, rows=full(2), cols=full(2), ext=ext, **placed, **rest)
    return program_of(s.build(), builder, bindings, span)


def run(program: Program, **inputs: np.ndarray) -> np.ndarray:
    """The program's output d (or state d) for inputs, after checking that it is legal."""
    assert check(program) == []
    states = {b.name: inputs.pop(b.name) for b in program.bindings_of("state")}
    result = execute(program, inputs, states)
    return (result.states if states else result.outputs)["d"]


def sample(element: Element, n: int, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    if element in (F16, F32):
        return (rng.normal(size=(2, 2, n)) * 3).astype(NUMPY[element])
    return rng.integers(-100, 100, (2, 2, n)).astype(NUMPY[element])


BINARY = {
    Op.ADD: np.add, Op.SUB: np.subtract, Op.MUL: np.multiply, Op.MAX: np.maximum, Op.MIN: np.minimum, Op.CMP_EQ: np.equal,
    Op.CMP_NE: np.not_equal, Op.CMP_LT: np.less, Op.CMP_LE: np.less_equal, Op.CMP_GT: np.greater, Op.CMP_GE: np.greater_equal,
    Op.AND: np.bitwise_and, Op.OR: np.bitwise_or, Op.XOR: np.bitwise_xor,
}  # fmt: skip


@pytest.mark.parametrize("fmt", [Fmt.F16, Fmt.F32, Fmt.I16, Fmt.I32])
@pytest.mark.parametrize("op", sorted(BINARY))
def test_binary_operations(op: Op, fmt: Fmt) -> None:
    try:
        row = find(op, fmt)
    except BadInput:
        assert op in (Op.AND, Op.OR, Op.XOR)
        return
    assert row.d is not None
    sizes = dict.fromkeys("dab", (row.d, 12))
    program = one_burst(op, fmt, sizes, (12,), d=lambda o: mem(o, 1), a=lambda o: mem(o, 1), b=lambda o: mem(o, 1))
    a, b = sample(row.d, 12), sample(row.d, 12, 1)
    b[..., ::3] = a[..., ::3]
    with np.errstate(all="ignore"):
        assert np.array_equal(run(program, a=a, b=b), BINARY[op](a, b).astype(NUMPY[row.d]))


FUNCTIONS = {Op.EXP: np.exp, Op.EXP2: np.exp2, Op.LOG: np.log, Op.RCP: np.reciprocal, Op.SQRT: np.sqrt, Op.SIN: np.sin, Op.COS: np.cos,
             Op.RSQRT: lambda x: 1 / np.sqrt(x), Op.FLOOR: np.floor, Op.ABS: np.abs, Op.NEG: np.negative}  # fmt: skip


@pytest.mark.parametrize("op", sorted(FUNCTIONS))
def test_functions_are_within_one_ulp(op: Op) -> None:
    program = one_burst(op, Fmt.F32, {"d": (F32, 9), "a": (F32, 9)}, (9,), d=lambda o: mem(o, 1), a=lambda o: mem(o, 1))
    a = np.abs(sample(F32, 9)) + np.float32(0.1) if op in (Op.LOG, Op.SQRT, Op.RSQRT) else sample(F32, 9)
    np.testing.assert_array_max_ulp(run(program, a=a), FUNCTIONS[op](a.astype(np.float64)).astype(np.float32), 1)


def test_erf() -> None:
    import math

    program = one_burst(Op.ERF, Fmt.F32, {"d": (F32, 9), "a": (F32, 9)}, (9,), d=lambda o: mem(o, 1), a=lambda o: mem(o, 1))
    a = sample(F32, 9)
    wanted = np.vectorize(math.erf)(a.astype(np.float64)).astype(np.float32)
    np.testing.assert_array_max_ulp(run(program, a=a), wanted, 1)


def test_conversions_round_saturate_and_wrap() -> None:
    values = np.float32([1.5, -1.5, 3e9, -3e9, np.nan, np.inf, 2.9, -0.4])
    a = np.broadcast_to(values, (2, 2, 8)).copy()
    sizes = {"d": (I32, 8), "a": (F32, 8)}
    got = run(one_burst(Op.CVT, Fmt.F32_I32, sizes, (8,), d=lambda o: mem(o, 1), a=lambda o: mem(o, 1)), a=a)
    assert got[0, 0].tolist() == [1, -1, 2**31 - 1, -(2**31), 0, 2**31 - 1, 2, 0]
    half = run(one_burst(Op.CVT, Fmt.F32_F16, {"d": (F16, 8), "a": (F32, 8)}, (8,), d=lambda o: mem(o, 1), a=lambda o: mem(o, 1)), a=a)
    with np.errstate(over="ignore"):
        assert np.array_equal(half, a.astype(np.float16), equal_nan=True)
    wide = np.broadcast_to(np.int32([70000, -70000, 5, -5]), (2, 2, 4)).copy()
    narrow = run(one_burst(Op.CVT, Fmt.I32_I16, {"d": (I16, 4), "a": (I32, 4)}, (4,), d=lambda o: mem(o, 1), a=lambda o: mem(o, 1)), a=wide)
    assert np.array_equal(narrow, wide.astype(np.int16))


def test_select_with_scalar_and_masked_move() -> None:
    sizes = {"d": (F32, 6), "a": (F32, 6), "b": (F32, 6)}
    a, b, d = sample(F32, 6), sample(F32, 6, 1), sample(F32, 6, 2)
    a[..., ::2] = 0
    walk = {name: lambda o: mem(o, 1) for name in "dab"}
    got = run(one_burst(Op.SEL, Fmt.F32, sizes, (6,), **walk, s=imm(-7)), a=a, b=b)
    assert np.array_equal(got, np.where(a != 0, b, np.float32(-7)))
    kept = run(one_burst(Op.SEL, Fmt.F32, sizes, (6,), preload=True, **walk), a=a, b=b, d=d)
    assert np.array_equal(kept, np.where(a != 0, b, d))


def test_a_sum_into_one_element_is_taken_in_order() -> None:
    sizes = {"d": (F16, 1), "a": (F16, 64)}
    program = one_burst(Op.ADD, Fmt.F16, sizes, (64,), preload=True, d=lambda o: mem(o, 0), a=lambda o: mem(o, 1), b=mem(0, 0))
    a = sample(F16, 64) * np.float16(100)
    wanted = np.zeros((2, 2), np.float16)
    for v in range(64):
        wanted = (wanted + a[..., v]).astype(np.float16)
    assert np.array_equal(run(program, a=a, d=np.zeros((2, 2, 1), np.float16))[..., 0], wanted)


def test_lookups_load_and_store_by_index() -> None:
    sizes = {"d": (F32, 12), "a": (F32, 20), "s": (I32, 4)}
    index = np.broadcast_to(np.int32([3, 9, -1, 6]), (2, 2, 4)).copy()
    walk = {"d": lambda o: mem(o, 3, 1), "a": lambda o: mem(o, 0, 1), "s": lambda o: mem(o, 1, 0)}
    program = one_burst(Op.LDX, Fmt.F32, sizes, (4, 3), **walk, look=(2, 5, 4, 1, 0))
    a = sample(F32, 20)
    got = run(program, a=a, s=index)
    for y in range(2):
        for v, i in enumerate([3, 9, -1, 6]):
            lo = 2 + y
            wanted = a[y, 0, (i - lo) * 4 : (i - lo) * 4 + 3] if lo <= i < lo + 5 else np.zeros(3)
            assert np.array_equal(got[y, 0, 3 * v : 3 * v + 3], wanted)
    sizes = {"d": (F32, 20), "a": (F32, 12), "s": (I32, 4)}
    walk = {"d": lambda o: mem(o, 0, 1), "a": lambda o: mem(o, 3, 1), "s": lambda o: mem(o, 1, 0)}
    program = one_burst(Op.STX, Fmt.F32, sizes, (4, 3), preload=True, **walk, look=(2, 5, 4, 0, 0))
    d, a = sample(F32, 20, 5), sample(F32, 12)
    wanted = d.copy()
    for v, i in enumerate([3, 9, -1, 6]):
        if 2 <= i < 7:
            wanted[..., (i - 2) * 4 : (i - 2) * 4 + 3] = a[..., 3 * v : 3 * v + 3]
    assert np.array_equal(run(program, a=a, d=d, s=index), wanted)


def test_argmax_pairs_prefer_the_lower_index_and_nan() -> None:
    sizes = {"d": (F32, 2), "a": (F32, 10)}
    program = one_burst(Op.ARGMAX, Fmt.F32, sizes, (5, 2), preload=True, d=lambda o: mem(o, 0, 1), a=lambda o: mem(o, 2, 1), b=mem(0, 0, 1))
    pairs = np.zeros((2, 2, 5, 2), np.float32)
    pairs[..., 1] = np.arange(5)
    pairs[..., 0] = [1, 7, 3, 7, 2]
    pairs[1, 1, 4, 0] = np.nan
    got = run(program, a=pairs.reshape(2, 2, 10), d=np.broadcast_to(np.float32([-np.inf, 1e9]), (2, 2, 2)).copy())
    assert got[0, 0].tolist() == [7, 1] and got[1, 1, 1] == 4


@given(st.lists(st.floats(width=32), min_size=1, max_size=50))
@settings(max_examples=200, deadline=None)
def test_rounding_kernel_equals_numpy(values: list[float]) -> None:
    x = np.tile(np.array(values, np.float32), 3)
    y = x.copy()
    round_half(y, y.view(np.uint32))
    with np.errstate(over="ignore", invalid="ignore"):
        assert np.array_equal(y, x.astype(np.float16).astype(np.float32), equal_nan=True)


@pytest.mark.parametrize("element", [F16, F32])
def test_a_fused_chain_adds_in_the_order_of_the_cores(element: Element) -> None:
    program = chain(7, 6, rows=3, fmt=element)
    x = np.random.default_rng(3).normal(size=(3, 7, 6)).astype(NUMPY[element])
    wanted = x[:, 0]
    for v in range(1, 7):
        wanted = (wanted + x[:, v]).astype(NUMPY[element])
    assert np.array_equal(execute(program, {"x": x}).outputs["y"], wanted)


def test_products_in_both_orders_agree_within_the_bound() -> None:
    for program in (local_product(3, 2, 2, 40, 5), mesh_product(5, 2, 4, 6)):
        inputs = {
            b.name: np.random.default_rng(n).normal(size=b.shape).astype(np.float16) for n, b in enumerate(program.bindings_of("input"))
        }
        fast, slow = execute(program, inputs), execute(program, inputs, exact=True)
        assert (fast.order, slow.order) == ("blocked", "exact")
        x = inputs["x"].astype(np.float64)
        w = (inputs["w"] if "w" in inputs else program.images["m000000"]).astype(np.float64)
        bound_ = 4 * x.shape[1] * 2.0**-24 * (np.abs(x) @ np.abs(w)) + 2.0**-10 * np.abs(x @ w)
        for result in (fast, slow):
            assert (np.abs(result.outputs["y"] - x @ w) <= bound_).all()


def test_a_wrong_route_gives_a_wrong_number() -> None:
    """Columns 0 and 1 of a chain swapped in the sender's role: legal or not, the sum changes."""
    from wafer_programs import edited

    program = chain(4, 8)
    x = np.random.default_rng(0).normal(size=(2, 4, 8)).astype(np.float32)
    wrong = edited(program, "bursts", 2, b_addr=0, b_stride=(0, 0, 0, 0))
    assert not np.array_equal(execute(wrong, {"x": x}).outputs["y"], execute(program, {"x": x}).outputs["y"])


def test_inputs_are_checked() -> None:
    program = chain(3, 2)
    with pytest.raises(BadInput, match="missing"):
        execute(program, {})
    with pytest.raises(BadInput, match="shape"):
        execute(program, {"x": np.zeros((2, 3, 3), np.float32)})
    assert isinstance(program.bindings[0], Binding)


@pytest.mark.parametrize("pays", [True, False])
def test_halves_are_copied_as_they_are(pays: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every f16, subnormals, infinities and NaN among them, in one run and by a walk with gaps in another order."""
    monkeypatch.setattr(kernels, "pays", lambda count: pays)
    every = np.arange(1 << 16, dtype=np.uint16).view(np.float16)
    for halves in (every, every.reshape(64, 32, 32).transpose(1, 0, 2)[:, ::3], every.reshape(256, 256).T):
        out = np.empty(halves.shape, np.float32)
        copied(halves, out)
        np.testing.assert_array_equal(out.view(np.uint32), halves.astype(np.float32).view(np.uint32))


def test_walks_without_gaps() -> None:
    walks = [
        ((1, 1, 3, 8), (0, 0, 1, 3)), ((2, 3, 1, 4), (12, 4, 0, 1)), ((1, 1, 3, 4), (0, 0, 2, 1)), ((1, 2, 1, 4), (0, -4, 0, 1)),
        ((1, 1, 2, 3), (0, 0, 4, 1)), ((1, 1, 2, 3), (0, 0, 1, 2)), ((1, 1, 2, 3), (0, 0, 0, 1)),
    ]  # fmt: skip
    for ext, stride in walks:
        walked = np.unique(nest(ext, stride))
        assert gapless(ext, stride) == (len(walked) == walked[-1] - walked[0] + 1)


def test_deliveries_in_turn() -> None:
    """One waits at a core at most, and the times of a core rise: else nothing is done."""
    first, waiting, last = np.array([0, 5, 0, 9]), np.full((3, 4), -1), np.full((2, 4), -1)
    cores, source, hops = np.array([0, 2]), np.array([1, 3]), np.array([1, 2])
    assert kernels.deliver(cores, source, hops, 7, -1, first, waiting, last[0])
    assert waiting[:, [0, 2]].tolist() == [[7, 7], [1, 3], [6, 11]] and waiting[0, [1, 3]].tolist() == [-1, -1]
    assert not kernels.deliver(np.array([1, 2]), source, hops, 8, 20, first, waiting, last[0])
    assert waiting[0].tolist() == [7, -1, 7, -1]
    number, src, arrive = np.empty((3, 2), np.int64)
    assert kernels.take(np.array([2, 1]), -1, np.array([30, 30]), waiting, last[1], number, src, arrive) == (-1, -1)
    waiting[0, 2] = 7
    assert kernels.take(np.array([2, 0]), -1, np.array([31, 30]), waiting, last[1], number, src, arrive) == (7, 7)
    assert (number.tolist(), src.tolist(), arrive.tolist()) == ([7, 7], [3, 1], [11, 6])
    assert not kernels.deliver(cores, source, hops, 8, 4, first, waiting, last[0])  # core 0 had one at 6
    assert kernels.deliver(cores, source, hops, 8, 10, first, waiting, last[0])
    assert kernels.take(np.array([0]), -1, np.array([30]), waiting, last[1], number, src, arrive) == (-1, -1)
    assert kernels.take(np.array([2]), 31, first, waiting, last[1], number, src, arrive) == (-1, -1)
    assert kernels.take(np.array([2]), 32, first, waiting, last[1], number, src, arrive) == (8, 8)


def test_routers_lead_to_the_same_roots() -> None:
    """In order or by jumps over whole arrays: forests with branches that lead nowhere and circles with branches into them."""
    rng = np.random.default_rng(4)
    for size in (1, 7, 40, 300):
        parent = rng.integers(-1, size, size)
        parent[rng.random(size) < 0.2] = -1
        roots = rng.random(size) < 0.1
        parent[roots] = np.flatnonzero(roots)
        parent[(parent == np.arange(size)) & ~roots] = -1
        length, seen = np.where((parent >= 0) & ~roots, rng.integers(1, 5, size), 0), []
        for lead in (kernels.lead, jump):
            found = parent.copy(), length.copy(), (length > 0).astype(np.int64)
            lead(*found, 4 * size)
            seen.append(found)
        reached = [(p >= 0) & roots[np.maximum(p, 0)] for p, _, _ in seen]
        assert np.array_equal(*reached) and np.array_equal(*((p >= 0) for p, _, _ in seen))
        for one, other in zip(*seen, strict=True):
            assert np.array_equal(one[reached[0]], other[reached[0]])


def test_pairs_of_boxes_that_meet() -> None:
    rng = np.random.default_rng(2)
    low = rng.integers(0, 9, (900, 2))
    box = np.concatenate([low, low + rng.integers(0, 4, (900, 2))], axis=1)
    meet = [(box[:, None, a] < box[None, :, z]) & (box[None, :, a] < box[:, None, z]) for a, z in ((0, 2), (1, 3))]
    assert _meeting(box, (0, 2), (1, 3)) == [(i, j) for i, j in np.argwhere(meet[0] & meet[1]).tolist() if i < j]


@pytest.mark.parametrize("program", [chain(5, 6), star(5, 4), mesh_product(4, 2, 3, 8)], ids=["chain", "star", "mesh"])
def test_pairs_in_turn_are_those_of_sorting(program: Program, monkeypatch: pytest.MonkeyPatch) -> None:
    found = []
    for pays in (True, False):
        monkeypatch.setattr(kernels, "pays", lambda count, pays=pays: pays)
        layout = judge(program).layout
        assert layout is not None
        pairs = [(i.analysis.deliveries.invariant, i.analysis.deliveries.explicit) for i in layout.instances]
        found.append([
            [(key, d.arrive.tolist(), [(p.send, p.at.tolist(), p.src.tolist()) for p in d.parts]) for key, d in side.items()]
            for both in pairs for side in both
        ])  # fmt: skip
    assert found[0] == found[1]


def test_parts_are_found_again_only_where_they_are_stored_alike() -> None:
    shape = (2, 2)
    still = SimpleNamespace(obj=0, stride=(0, 0, 0, 0))
    burst = SimpleNamespace(
        cores=4, count=1, op=SimpleNamespace(meaning=Semantics.UNARY), ext=(1, 1, 1, 1), d=still, a=still, rows=range(2), cols=range(2)
    )
    step: Any = SimpleNamespace(event=SimpleNamespace(burst=burst), at=None)
    parts = Parts(step, np.array([[0, 1], [2, 3]]), np.array([0, 1, 0, 1]), np.zeros(4, np.int64))
    engine: Any = SimpleNamespace(places={}, memory={}, cores=lambda _: SimpleNamespace(shape=shape), begin=lambda *_: np.zeros((), int))
    for number in (1, 2, 3):
        for stored in (np.array([[1, 2]], np.float32), np.array([[5], [7]], np.float32)):
            values = np.broadcast_to(stored * number, shape)
            engine.memory[0] = values[..., None]
            engine.source = lambda *_, values=values: values[..., None, None, None, None]
            out = np.empty(shape, np.float32)
            parts.sums(engine, out, False)
            assert np.array_equal(out, values)
            # once it is known how the parts lie, they are not looked for again
            engine.source = None
            parts.sums(engine, out, False)
            assert np.array_equal(out, values)


def test_operands_of_different_cores_are_arranged_apart() -> None:
    """Levels of one burst take the same operand on cores of their own."""
    operand = SimpleNamespace(kind=OperandKind.MEM, obj=0, addr=0, stride=(0, 0, 0, 1), step=(0, 0))
    burst = SimpleNamespace(operand=lambda _: operand, ext=(1, 1, 1, 4), d=operand, rows=range(2), cols=range(2))
    seg, memory = SimpleNamespace(written=frozenset()), SimpleNamespace(forms=lambda _: None)
    engine = Engine(cast(Any, seg), cast(Any, None), cast(Any, memory))
    for first in (0, 1):
        step: Any = SimpleNamespace(event=SimpleNamespace(burst=burst), at=np.array([first, first + 2]))
        values = np.arange(16, dtype=np.float32).reshape(4, 4)[step.at].swapaxes(0, 1)
        assert np.array_equal(engine.arranged(step, "s", "form", values, (8,)), values.reshape(8))
