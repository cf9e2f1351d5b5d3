"""The CGLA backend on its own: digit systems, placed kernels, plans, bounds, and programs of small graphs judged by the executor."""

from __future__ import annotations

import itertools
from dataclasses import replace
from math import prod

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from spatialc.backends.cgla import compile_graph, lower_bound
from spatialc.backends.cgla.body import BRS, COLUMNS
from spatialc.backends.cgla.contract import plan_contract
from spatialc.backends.cgla.digits import Box, Radix, cover, refine
from spatialc.backends.cgla.gemm import FORMS, GemmKernel, max_groups, placed_kernel
from spatialc.backends.cgla.intervals import History
from spatialc.backends.options import CompileOptions
from spatialc.errors import Infeasible
from spatialc.ir.interpret import interpret
from spatialc.ir.store import ConstantStore
from spatialc.ir.text import parse
from spatialc.machines.catalog import load_machine
from spatialc.machines.cgla.tables import EXPR_CODE, SPECIAL_OPS
from spatialc.machines.program import Program, Segment
from spatialc.passes.quantise import decode_q8_0, encode_q8_0
from spatialc.passes.repeats import FindRepeats
from spatialc.runtime_sim.cgla import check, execute

RNG = np.random.default_rng(7)
PRESET = "cgla-imax3-28nm"


def points(box: Box, extents: list[int]) -> dict[int, int]:
    """Flattened position -> item in memory of every point of a box."""
    found = {}
    for steps in itertools.product(*(range(d.extent) for d in box.digits)):
        where = list(box.start)
        item = box.offset
        for step, digit in zip(steps, box.digits, strict=True):
            where[digit.axis] += step * digit.step
            item += step * digit.weight
        flat = 0
        for extent, position in zip(extents, where, strict=True):
            assert position < extent
            flat = flat * extent + position
        assert flat not in found
        found[flat] = item
    return found


EXTENTS = st.lists(st.sampled_from([1, 2, 3, 4, 6, 8, 12]), min_size=1, max_size=3)


@settings(max_examples=150, deadline=None)
@given(EXTENTS, st.lists(st.sampled_from([2, 3, 4, 8]), max_size=3), st.data())
def test_boxes_cover_every_position_once(extents: list[int], radices: list[int], data: st.DataObject) -> None:
    size = prod(extents)
    order = data.draw(st.permutations(range(len(radices) + 1)))
    weights = [0] * (len(radices) + 1)
    reach = 1
    for level in order:
        weights[level] = reach
        reach *= [*radices, size][level]
    layout = Radix(tuple(radices), tuple(weights))
    expected = {f: layout.offset(f) for f in range(size)}
    boxes = refine(extents, layout)
    if boxes is not None:
        parts = [points(box, extents) for box in boxes]
        assert sum(map(len, parts)) == size
        assert {f: item for part in parts for f, item in part.items()} == expected
    start = data.draw(st.integers(0, size - 1))
    parts = [points(box, [size]) for box in cover(start, size, layout)]
    assert sum(map(len, parts)) == size - start
    assert {f: item for part in parts for f, item in part.items()} == {f: expected[f] for f in range(start, size)}


@pytest.mark.parametrize("form", sorted(FORMS))
@pytest.mark.parametrize("bits", [1, 3, 9])
def test_kernels_fill_the_lane_and_no_boundary_overflows(form: str, bits: int) -> None:
    kernel = GemmKernel(form, max_groups(form, 64), bits, 64)
    placed = placed_kernel(kernel)
    assert placed.last_row == kernel.store_row < 64
    used: dict[int, set[tuple[int, int]]] = {}
    for slot in placed.slots:
        driven = {(slot["col"], k) for k in range(COLUMNS) if slot.get(f"br{k}")}
        used.setdefault(slot["row"], set()).update(driven)
    for held in placed.held:
        if held.register < COLUMNS:
            assert (held.col, int(held.register)) not in used.get(held.row, set())
            used.setdefault(held.row, set()).add((held.col, int(held.register)))
    assert max(map(len, used.values())) <= BRS
    assert {"f16": 63, "f32": 60, "q8_0": 52}[form] == kernel.store_row


def linear(n: int, k: int, m: int, storage: str = "") -> str:
    """Text of y = relu(x w^T)."""
    return f"""
%0: f32[{n},{k}] = input "x"
%1: f32[{m},{k}] = constant "w"{storage}
%2: f32[{n},{m}] = contract [i,j] over i:{n} j:{m} k:{k}: %0[i,k] * %1[j,k] acc f32
%3: f32[{n},{m}] = map [i,j] over i:{n} j:{m}: max(%2[i,j], 0)
output %3
"""


def weights(m: int, k: int) -> ConstantStore:
    store = ConstantStore()
    store.put("w", RNG.standard_normal((m, k)).astype(np.float16).astype(np.float32))
    return store


def compiled(text: str, store: ConstantStore, preset: str = PRESET, precision: str = "fp16", **fields: object) -> Program:
    machine = load_machine("cgla", preset, fields)
    return compile_graph(parse(text), store, CompileOptions(machine=machine, host_ops="published", precision=precision))


def run(text: str, store: ConstantStore, inputs: dict[str, np.ndarray], limit: float = 2e-6, **options: object) -> Program:
    """Compile, judge and execute; numbers must equal the interpreter's."""
    program = compiled(text, store, **options)  # type: ignore[arg-type]
    execution = execute(program, inputs)
    assert [str(v) for v in execution.violations] == []
    assert execution.cycles == program.predicted_cycles
    assert 0 <= program.bound["bound_cycles"] <= execution.cycles
    expected, _ = interpret(parse(text), inputs, store=store)
    for position, want in enumerate(expected):
        got = execution.outputs[f"output_{position}"]
        assert got.dtype == want.dtype
        if want.dtype.kind == "f":
            error = np.linalg.norm(got.astype(np.float64) - want) / max(np.linalg.norm(want.astype(np.float64)), 1e-30)
            assert error <= limit, f"output {position}: relative error {error}"
        else:
            np.testing.assert_array_equal(got, want)
    return program


@pytest.mark.parametrize("shape", [(1, 64, 64), (5, 30, 10), (33, 100, 200), (4, 4, 2), (200, 48, 6)])
@pytest.mark.parametrize("precision", ["fp16", "fp32"])
def test_linear(shape: tuple[int, int, int], precision: str) -> None:
    n, k, m = shape
    run(linear(n, k, m), weights(m, k), {"x": RNG.standard_normal((n, k)).astype(np.float32)}, precision=precision)


@pytest.mark.parametrize(
    "fields",
    [
        {"lanes": 1},
        {"lanes": 4},
        {"lanes": 8, "lanes_per_memory": 8},
        {"lmm_bytes": 32768},
        {"rows": 32},
        {"dma": "peak"},
        {"extensions": ()},
        {"preset": "cgla-imax3-fpga"},
    ],
    ids=str,
)
def test_machines(fields: dict[str, object]) -> None:
    run(linear(37, 130, 150), weights(150, 130), {"x": RNG.standard_normal((37, 130)).astype(np.float32)}, **fields)


def test_block_weights_keep_their_values_and_save_bytes() -> None:
    store = weights(70, 96)
    store.put("w", decode_q8_0(encode_q8_0(store.get("w"))))
    inputs = {"x": RNG.standard_normal((9, 96)).astype(np.float32)}
    blocked = run(linear(9, 96, 70, ' as "q8_0"'), store, inputs, precision="q8_0")
    halves = run(linear(9, 96, 70), store, inputs, limit=1e-3)
    assert sum(image.nbytes for image in blocked.images.values()) < 0.6 * sum(image.nbytes for image in halves.images.values())


ATTENTION = """
%0: f32[20,48] = input "q"
%1: f32[11,32] = input "k"
%2: f32[3,20,11] = contract [i,j,k] over i:3 j:20 k:11 l:16: %0[j,16*i+l] * %1[k,l] acc f32
%3: f32[33,7] = constant "w"
%4: f32[20,7] = contract [i,j] over i:20 j:7 k:3 l:11: %2[k,i,l] * %3[11*k+l,j] acc f32
%5: f32[20,7] = map [i,j] over i:20 j:7: select((j <= i), %4[i,j], -1)
%6: f32[20] = reduce max [i] over i:20 j:7: %5[i,j]
output %2, %4, %6
"""


def test_batched_and_joined_axes() -> None:
    store = ConstantStore()
    store.put("w", RNG.standard_normal((33, 7)).astype(np.float16).astype(np.float32))
    inputs = {"q": RNG.standard_normal((20, 48)).astype(np.float32), "k": RNG.standard_normal((11, 32)).astype(np.float32)}
    run(ATTENTION, store, inputs)


KINDS = """
%0: f32[6,8] = input "x"
%1: i64[4] = input "ids" range 0 to 5
%2: f32[4,8] = gather [i,j] over i:4 j:8: %0[%1[i],j]
%3: f32[6,8] = scatter add %0 over i:4 j:8: [%1[i],j] <- %2[i,j]
%4: i64[6,3] = sort %0 axis 1 descending first 3
%5: f32[6,8] = scan add %0 axis 1
%6: f32[8,8] = move fill 0 at [1,0] [i,j] over i:6 j:8: %5[i,j]
%7: i64[6] = reduce argmax [i] over i:6 j:8: %0[i,j]
%8: bool[6] = reduce any [i] over i:6 j:8: (%0[i,j] > 1.5)
%9: f32[6] = reduce sum [i] over i:6 j:8: exp(%0[i,j])
%10: f16[6,8] = map [i,j] over i:6 j:8: f16((%0[i,j] / %9[i]))
%11: f32[8,6] = move [j,i] over i:6 j:8: %0[i,j]
output %2, %3, %4, %5, %6, %7, %8, %10, %11
"""


def test_every_host_kind() -> None:
    inputs = {"x": RNG.standard_normal((6, 8)).astype(np.float32), "ids": np.array([5, 0, 5, 2])}
    run(KINDS, ConstantStore(), inputs)


TYPED = """
%0: f16[5,40] = input "x"
%1: f16[9,40] = constant "w"
%2: f16[5,9] = contract [i,j] over i:5 j:9 k:40: %0[i,k] * %1[j,k] acc f32
%3: i8[5,7] = input "a" range -128 to 127
%4: i8[6,7] = input "b" range -128 to 127
%5: i32[5,6] = contract [i,j] over i:5 j:6 k:7: %3[i,k] * %4[j,k] acc i32
%6: bf16[5,9] = map [i,j] over i:5 j:9: bf16(%2[i,j])
%7: bf16[9,9] = contract [i,j] over i:9 j:9 k:5: %6[k,i] * %6[k,j] acc f32
%8: f64[5] = reduce sum [i] over i:5 j:9: f64(%2[i,j])
output %2, %5, %7, %8
"""


def test_formats() -> None:
    store = ConstantStore()
    store.put("w", RNG.standard_normal((9, 40)).astype(np.float16))
    inputs = {
        "x": RNG.standard_normal((5, 40)).astype(np.float16),
        "a": RNG.integers(-128, 128, (5, 7)).astype(np.int8),
        "b": RNG.integers(-128, 128, (6, 7)).astype(np.int8),
    }
    run(TYPED, store, inputs, limit=1e-3)


CACHE = """
%0: f32[1,8] = input "x"
%1: i64[1] = input "pos" range 0 to 4
%2: f32[5,8] = state "cache"
%3: f32[5,8] = scatter set %2 over i:1 j:8: [%1[0],j] <- %0[0,j]
%4: f32[1,5] = contract [0,i] over i:5 j:8: %0[0,j] * %3[i,j] acc f32
output %4
update "cache" = %3
"""


@pytest.mark.parametrize(("n", "k", "m"), [(3, 60000, 6), (1, 30011 * 2, 1), (2, 50021, 3)], ids=["divides", "large factors", "prime"])
def test_long_sums_are_cut(n: int, k: int, m: int) -> None:
    store = weights(m, k)  # all of one sign: where terms cancel, what rounding leaves has no bound relative to the sum
    store.put("w", np.abs(store.get("w")))
    run(linear(n, k, m), store, {"x": np.abs(RNG.standard_normal((n, k))).astype(np.float32)}, limit=5e-6, lmm_bytes=32768)


DEPTHWISE = """
%0: f32[96,20] = input "x"
%1: f32[96,5] = constant "w"
%2: f32[96,16] = contract [i,j] over i:96 j:16 k:5: %0[i,j+k] * %1[i,k] acc f32
%3: f32[16,16] = contract [i,j] over i:16 j:16 k:96: %2[k,i] * %2[k,j] acc f32
output %3
"""


def test_many_small_products_stay_on_the_host() -> None:
    store = ConstantStore()
    store.put("w", RNG.standard_normal((96, 5)).astype(np.float16).astype(np.float32))
    program = run(DEPTHWISE, store, {"x": RNG.standard_normal((96, 20)).astype(np.float32)})
    tables = program.segments[0].tables
    labels = [program.provenance[label] for label in tables["host_tasks"]["label"].tolist()]
    assert labels.count("contract batched") == 2  # one loop nest, cut over two cores
    assert 0 < len(tables["launches"]["start"]) <= 4


def test_state_is_updated_where_it_lies() -> None:
    program = compiled(CACHE, ConstantStore())
    assert sum(b.kind == "state" for b in program.bindings) == 1
    states: dict[str, np.ndarray] = {"cache": np.zeros((5, 8), np.float32)}
    expected = states
    for position in (0, 3, 1):
        inputs = {"x": RNG.standard_normal((1, 8)).astype(np.float32), "pos": np.array([position])}
        execution = execute(program, inputs, states)
        (want,), expected = interpret(parse(CACHE), inputs, states=expected, store=ConstantStore())
        assert execution.legal
        np.testing.assert_allclose(execution.outputs["output_0"], want, rtol=1e-5, atol=1e-6)
        np.testing.assert_array_equal(execution.states["cache"], expected["cache"])
        states = dict(execution.states)


def test_state_starts_from_its_initial_value() -> None:
    text = CACHE.replace('state "cache"', 'state "cache" = "first"')
    store = ConstantStore()
    store.put("first", RNG.standard_normal((5, 8)).astype(np.float32))
    inputs = {"x": RNG.standard_normal((1, 8)).astype(np.float32), "pos": np.array([2])}
    execution = execute(compiled(text, store), inputs)
    (want,), after = interpret(parse(text), inputs, store=store)
    np.testing.assert_allclose(execution.outputs["output_0"], want, rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(execution.states["cache"], after["cache"])


NORM = """
%0: f32[64,48] = input "x"
%1: f32[64] = reduce sum [i] over i:64 j:48: (%0[i,j] * %0[i,j])
%2: f32[64,48] = map [i,j] over i:64 j:48: (%0[i,j] * rsqrt((%1[i] + 0.5)))
%3: f32[64,48] = map [i,j] over i:64 j:48: (%2[i,j] / sqrt(%1[i]))
output %2, %3
"""


def test_invariant_functions_are_computed_once_a_row() -> None:
    program = run(NORM, ConstantStore(), {"x": RNG.standard_normal((64, 48)).astype(np.float32)})
    tables = program.segments[0].tables
    special = {EXPR_CODE[name] for name in SPECIAL_OPS}
    counted = 0
    columns = [tables["host_tasks"][name].tolist() for name in ("first_expr", "exprs", "first_axis", "axes")]
    for first, count, axis, axes in zip(*columns, strict=True):
        points = prod(tables["host_axes"]["extent"][axis : axis + axes].tolist())
        counted += points * sum(op in special for op in tables["host_exprs"]["op"][first : first + count].tolist())
    assert counted == 64 * 3


def test_history_waits_for_the_bytes_alone() -> None:
    history = History(100)
    history.wrote((0, 50), 10)
    history.wrote((50, 100), 30)
    history.read((0, 20), 40)
    assert [history.ready(span) for span in ((0, 50), (49, 51), (60, 100))] == [10, 30, 30]
    assert [history.free(span) for span in ((0, 10), (20, 50), (0, 100))] == [40, 10, 40]
    history.wrote((0, 100), 50)
    assert history.ready((0, 1)) == 50


def test_equal_input_gives_equal_bytes() -> None:
    store = weights(20, 30)
    assert compiled(linear(5, 30, 20), store).digest() == compiled(linear(5, 30, 20), store).digest()


def test_an_earlier_launch_is_illegal() -> None:
    program = compiled(linear(5, 64, 64), weights(64, 64))
    assert check(program) == []
    starts = program.segments[0].tables["launches"]["start"]
    starts[0] -= 1
    assert check(program)


def test_what_does_not_fit_says_so() -> None:
    machine = load_machine("cgla", PRESET, {"rows": 8})
    with pytest.raises(Infeasible, match="rows of a lane is too small"):
        plan_contract(machine, "f16", 1, 4, 4, 4, True, "a test")
    with pytest.raises(Infeasible, match="local memory of a row is too small"):
        plan_contract(load_machine("cgla", PRESET), "f32", 1, 4, 4, 1 << 20, False, "a test")
    with pytest.raises(Infeasible, match="DMA-able memory is too small"):
        compiled(linear(5, 1024, 1024), weights(1024, 1024), ddr_bytes=1 << 20)


def test_bounds() -> None:
    machine = load_machine("cgla", PRESET)
    bound = lower_bound(parse(linear(128, 768, 3072)), machine)
    assert bound["bound_slots"] == 128 * 768 * 3072 // 2 // 128
    assert bound["bound_dma"] == -(-768 * 3072 * 2 // 32 * 37 // 8)
    assert bound["bound_kind"] == "slots"
    assert lower_bound(parse(linear(1, 768, 3072)), machine)["bound_kind"] == "dma"


LAYERS = """
%0: f32[4,16] = input "x"
{constants}
{layers}
output %{last}
"""


def layered(depth: int) -> tuple[str, ConstantStore]:
    store = ConstantStore()
    constants, layers, last = [], [], 0
    for layer in range(depth):
        store.put(f"w{layer}", RNG.standard_normal((16, 16)).astype(np.float16).astype(np.float32))
        constants.append(f'%{layer + 1}: f32[16,16] = constant "w{layer}"')
    for layer in range(depth):
        at = depth + 1 + 2 * layer
        layers.append(f"%{at}: f32[4,16] = contract [i,j] over i:4 j:16 k:16: %{last}[i,k] * %{layer + 1}[j,k] acc f32")
        layers.append(f"%{at + 1}: f32[4,16] = map [i,j] over i:4 j:16: (%{at}[i,j] + %{last}[i,j])")
        last = at + 1
    return LAYERS.format(constants="\n".join(constants), layers="\n".join(layers), last=last), store


def test_repeated_layers_are_one_segment() -> None:
    inputs = {"x": RNG.standard_normal((4, 16)).astype(np.float32)}
    sizes = []
    for depth in (6, 12):
        text, store = layered(depth)
        graph = FindRepeats().run(parse(text), store)
        assert graph.repeats
        options = CompileOptions(machine=load_machine("cgla", PRESET), host_ops="published")
        program = compile_graph(graph, store, options)
        execution = execute(program, inputs)
        assert execution.legal
        assert execution.cycles == program.predicted_cycles
        (want,), _ = interpret(graph, inputs, store=store)
        assert np.linalg.norm(execution.outputs["output_0"] - want) <= 1e-5 * np.linalg.norm(want)  # the values grow from layer to layer
        sizes.append(sum(len(next(iter(table.values()))) for segment in program.segments for table in segment.tables.values()))
    assert sizes[0] == sizes[1]


@pytest.mark.parametrize("form", ["fp16", "fp32"])
def test_products_over_launches_are_the_sums_of_the_launches(form: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from spatialc.runtime_sim import threads
    from spatialc.runtime_sim.cgla import products
    from spatialc.runtime_sim.cgla import run as runner
    from spatialc.runtime_sim.cgla.sources import plain_tape

    program = compiled(linear(40, 300, 700), weights(700, 300), precision=form)
    assert len(program.segments[0].tables["launches"]["lane"]) > 4
    inputs = {"x": RNG.standard_normal((40, 300)).astype(np.float32)}
    exact = execute(program, inputs, exact=True)
    assert exact.order == "exact"
    found = []
    for least, packed in ((0, 1), (0, 1 << 20), (1 << 60, 1 << 20)):
        monkeypatch.setattr(products, "SHARED_PRODUCTS", least)
        monkeypatch.setattr(products, "PACKED_BYTES", packed)
        monkeypatch.setattr(threads, "THREADS", 2)
        run = execute(program, inputs)
        assert (run.violations, run.order) == ((), "blocked")
        found.append(run.outputs["output_0"])
        np.testing.assert_array_equal(found[-1], found[0])
    other = execute(replace(program, predicted_cycles=program.predicted_cycles + 1), inputs)
    assert (other.legal, other.order) == (False, "blocked")
    np.testing.assert_array_equal(other.outputs["output_0"], found[0])
    monkeypatch.setattr(runner, "make_tape", lambda report, lanes: plain_tape(report))
    run = execute(program, inputs)
    assert (run.violations, run.order) == ((), "blocked")
    np.testing.assert_array_equal(run.outputs["output_0"], found[0])
    error = np.linalg.norm(found[0] - exact.outputs["output_0"]) / np.linalg.norm(exact.outputs["output_0"])
    assert 0 < error < 4 * np.finfo(np.float32).eps


@pytest.mark.parametrize("form", ["fp16", "fp32"])
def test_products_of_other_register_sets_are_those_found_afresh(form: str) -> None:
    from spatialc.runtime_sim.cgla.chain_forms import LaneMemory
    from spatialc.runtime_sim.cgla.decode import decode
    from spatialc.runtime_sim.cgla.products import product_form
    from spatialc.runtime_sim.cgla.seams import judge

    decoded = decode(compiled(linear(300, 300, 700), weights(700, 300), precision=form))
    lane = LaneMemory(decoded.machine.rows, decoded.machine.lmm_bytes)
    (report,) = judge(decoded).reports.values()
    plans = {id(plan): plan for plan in report.launches.values() if plan.model is not plan}.values()
    assert plans
    for plan in plans:
        assert plan.model is not None
        found = product_form(plan, lane)
        assert "sums" not in plan.forms
        plan.forms, plan.model = {}, None
        fresh = product_form(plan, lane)
        assert found is not None
        assert fresh is not None
        assert (found.row, found.first, found.strides, found.size) == (fresh.row, fresh.first, fresh.strides, fresh.size)
        for one, two in ((found.wide, fresh.wide), (found.narrow, fresh.narrow)):
            assert (one.geometry, one.spans) == (two.geometry, two.spans)
            for moved, made in zip(one.moved(np.arange(200)), two.moved(np.arange(200)), strict=True):
                np.testing.assert_array_equal(moved, made)


def test_runs_of_one_judged_program_are_apart() -> None:
    from spatialc.runtime_sim.cgla import prepare

    program = compiled(linear(40, 300, 700), weights(700, 300))
    first, second = ({"x": RNG.standard_normal((40, 300)).astype(np.float32)} for _ in range(2))
    prepared = prepare(program)
    for exact, inputs in ((False, first), (False, second), (True, first), (False, first)):
        mine, fresh = prepared.run(inputs, exact=exact), execute(program, inputs, exact=exact)
        assert (mine.order, mine.cycles, mine.violations) == (fresh.order, fresh.cycles, ())
        np.testing.assert_array_equal(mine.outputs["output_0"], fresh.outputs["output_0"])


def test_joined_products_bring_what_single_steps_bring_whatever_requests_move(monkeypatch: pytest.MonkeyPatch) -> None:
    """Requests that take other lanes, symbols, places or cycles: both orders of steps give the same bytes if that is legal."""
    from spatialc.runtime_sim.cgla import run as runner
    from spatialc.runtime_sim.cgla.sources import make_tape, plain_tape

    program = compiled(linear(40, 300, 700), weights(700, 300))
    inputs = {"x": RNG.standard_normal((40, 300)).astype(np.float32)}
    (segment,) = program.segments
    requests = segment.tables["dmas"]
    legal = set()
    for _ in range(60):
        field = str(RNG.choice(["lane", "symbol", "offset", "start"]))
        column = requests[field].copy()
        row = int(RNG.integers(len(column)))
        column[row] = RNG.choice(column) if RNG.random() < 0.5 else column[row] + RNG.choice([-32, -1, 1, 32])
        changed = replace(program, segments=(Segment(segment.name, {**segment.tables, "dmas": {**requests, field: column}}),))
        if column[row] == requests[field][row] or check(changed, skip=frozenset({"CGLA-032-end"})):
            continue
        found = []
        for tape in (make_tape, lambda report, lanes: plain_tape(report)):
            monkeypatch.setattr(runner, "make_tape", tape)
            found.append(execute(changed, inputs).outputs["output_0"])
        np.testing.assert_array_equal(*found)
        legal.add((row, field))
    assert len(legal) >= 4
