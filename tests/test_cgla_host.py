"""Host tasks: every kind against numpy, their cost, and instances, entry state and indexed DMAs of the container."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parent))

from cgla_cases import Bench, appended, edited, inputs_of, vector_add, vector_add_kernel

from spatialc.errors import BadInput
from spatialc.machines.catalog import load_machine
from spatialc.machines.cgla.builder import HostExpr as E
from spatialc.machines.cgla.builder import HostOperand as O
from spatialc.machines.cgla.builder import slot
from spatialc.machines.cgla.isa import Register
from spatialc.machines.cgla.tables import DTYPE_BYTES, BufferKind, HostKind, Phase
from spatialc.machines.cgla.timing import dma_cycles, exec_cycles, host_cycles
from spatialc.machines.program import Program
from spatialc.runtime_sim.cgla import check, execute
from spatialc.runtime_sim.cgla.host import HostTask, decode_tasks

RNG = np.random.default_rng(0)


def task_program(
    kind: HostKind, extents: Sequence[int], result: tuple[str, tuple[int, ...], tuple[int, ...]],
    operands: Sequence[tuple[np.ndarray, tuple[int, ...], str]], exprs: Sequence[E], op: str = "", seed: np.ndarray | None = None,
    lookups: dict[int, tuple[tuple[int, int, int], ...]] | None = None, **more: int,
) -> tuple[Program, dict[str, np.ndarray]]:  # fmt: skip
    """One host task: result (dtype, shape, strides), operands (array, strides, dtype); `seed` is the state that a scatter updates."""
    bench = Bench()
    data = {}
    made = []
    lookups = lookups or {}
    for number, (array, strides, dtype) in enumerate(operands, start=1):
        name = f"in{number}"
        symbol = bench.buffer(BufferKind.INPUT, array.size * DTYPE_BYTES[dtype], name, dtype, array.shape)
        data[name] = array
        made.append(O(symbol, dtype, strides, lookups=lookups.get(number, ())))
    dtype, shape, strides = result
    kind_of = BufferKind.OUTPUT if seed is None else BufferKind.STATE
    target = bench.buffer(kind_of, int(np.prod(shape)) * DTYPE_BYTES[dtype], "out", dtype, shape)
    bench.segment.host(kind, extents, O(target, dtype, strides, lookups=lookups.get(0, ())), made, exprs, op=op, start=0, length=1, **more)
    segment = bench.segment.build()
    task = decode_tasks(segment.tables, segment.tables["symbols"]["bytes"].tolist())[0]
    assert isinstance(task, HostTask), task
    bench.segment.rows["host_tasks"][0]["length"] = bench.clock = task.cycles(bench.machine)
    return bench.build(), data


def run(program: Program, data: dict[str, np.ndarray], seed: np.ndarray | None = None) -> np.ndarray:
    result = execute(program, data, {} if seed is None else {"out": seed})
    assert result.violations == ()
    return np.asarray(result.outputs["out"] if seed is None else result.states["out"])


ARG, ARG2 = E("arg", "f32", 1), E("arg", "f32", 2)


def test_map_with_transposed_access_and_axis() -> None:
    x = RNG.standard_normal((3, 5)).astype(np.float32)
    exprs = [ARG, E("exp", "f32", 0), E("axis", "i64", 1), E("cast", "f32", 2), E("mul", "f32", 1, 3)]
    program, data = task_program(HostKind.MAP, [5, 3], ("f32", (5, 3), (3, 1)), [(x, (1, 5), "f32")], exprs)
    np.testing.assert_array_equal(run(program, data), np.exp(x.T) * np.arange(3, dtype=np.float32))


def test_half_values_round_at_each_entry() -> None:
    x = RNG.standard_normal(64).astype(np.float32)
    exprs = [ARG, E("cast", "f16", 0), E("mul", "f16", 1, 1), E("cast", "bf16", 2)]
    program, data = task_program(HostKind.MAP, [64], ("f32", (64,), (1,)), [(x, (1,), "f32")], exprs)
    half = (x.astype(np.float16).astype(np.float32) ** 2).astype(np.float16).astype(np.float32)
    bits = half.view(np.uint32)
    expected = ((bits + 0x7FFF + ((bits >> 16) & 1)) & 0xFFFF0000).astype(np.uint32).view(np.float32)
    np.testing.assert_array_equal(run(program, data), expected)


def test_gather_by_lookup() -> None:
    table = RNG.standard_normal((10, 4)).astype(np.float32)
    ids = np.array([3, 9, 0, 3], dtype=np.int64)
    program, data = task_program(
        HostKind.MAP, [4, 4], ("f32", (4, 4), (4, 1)), [(table, (0, 1), "f32"), (ids, (1, 0), "i64")], [ARG],
        lookups={1: ((2, 4, 10),)},
    )  # fmt: skip
    np.testing.assert_array_equal(run(program, data), table[ids])
    data["in2"] = np.array([3, 9, 10, 3], dtype=np.int64)
    result = execute(program, data)
    assert {violation.rule for violation in result.violations} == {"CGLA-036"}
    assert result.outputs == {}


@pytest.mark.parametrize(
    ("op", "function"),
    [("sum", np.sum), ("max", np.max), ("min", np.min), ("prod", np.prod)],
)
def test_reduce(op: str, function: object) -> None:
    assert callable(function)
    x = RNG.standard_normal((4, 6, 3)).astype(np.float32)
    exprs = [ARG, E("abs", "f32", 0)]
    program, data = task_program(HostKind.REDUCE, [4, 6, 3], ("f32", (4, 3), (3, 0, 1)), [(x, (18, 3, 1), "f32")], exprs, op)
    np.testing.assert_allclose(run(program, data), function(np.abs(x), axis=1), rtol=1e-6)


def test_arg_reductions_take_the_first_and_nan() -> None:
    x = np.array([[1, 5, 5, 2], [3, np.nan, 9, 9]], dtype=np.float32)
    program, data = task_program(HostKind.REDUCE, [2, 4], ("i64", (2,), (1, 0)), [(x, (4, 1), "f32")], [ARG], "argmax")
    np.testing.assert_array_equal(run(program, data), [1, 1])


def test_sum_of_products_is_a_matrix_product() -> None:
    a, b = RNG.standard_normal((5, 7)).astype(np.float32), RNG.standard_normal((7, 3)).astype(np.float32)
    program, data = task_program(
        HostKind.REDUCE, [5, 3, 7], ("f32", (5, 3), (3, 1, 0)), [(a, (7, 0, 1), "f32"), (b, (0, 1, 3), "f32")],
        [ARG, ARG2, E("mul", "f32", 0, 1)], "sum",
    )  # fmt: skip
    np.testing.assert_allclose(run(program, data), a @ b, rtol=1e-5, atol=1e-6)


def test_scatter_set_takes_the_last_and_add_sums() -> None:
    base = np.zeros(6, dtype=np.float32)
    x, where = np.array([1, 2, 3], dtype=np.float32), np.array([4, 1, 4], dtype=np.int64)
    for op, expected in (("set", [0, 2, 0, 0, 3, 0]), ("add", [0, 2, 0, 0, 4, 0])):
        program, data = task_program(
            HostKind.SCATTER, [3], ("f32", (6,), (0,)), [(x, (1,), "f32"), (where, (1,), "i64")], [ARG], op, base,
            {0: ((2, 1, 6),)},
        )  # fmt: skip
        np.testing.assert_array_equal(run(program, data, base), expected)


@pytest.mark.parametrize("descending", [0, 1])
def test_sort_is_stable_and_nan_is_largest(descending: int) -> None:
    x = np.array([3, 1, np.nan, 3, 2], dtype=np.float32)
    program, data = task_program(
        HostKind.SORT, [5], ("i64", (3,), (1,)), [(x, (1,), "f32")], [], axis=0, flag=descending, count=3
    )  # fmt: skip
    np.testing.assert_array_equal(run(program, data), [2, 0, 3] if descending else [1, 4, 0])


@pytest.mark.parametrize("reverse", [0, 1])
def test_scan(reverse: int) -> None:
    x = RNG.standard_normal((3, 8)).astype(np.float32)
    program, data = task_program(
        HostKind.SCAN, [3, 8], ("f32", (3, 8), (8, 1)), [(x, (8, 1), "f32")], [], "add", axis=1, flag=reverse
    )  # fmt: skip
    expected = np.flip(np.cumsum(np.flip(x, 1), axis=1), 1) if reverse else np.cumsum(x, axis=1)
    np.testing.assert_array_equal(run(program, data), expected)


def test_linear_scan() -> None:
    a, b, h = (RNG.standard_normal(shape).astype(np.float32) for shape in ((6, 2), (6, 2), (2,)))
    program, data = task_program(
        HostKind.SCAN, [6, 2], ("f32", (6, 2), (2, 1)), [(a, (2, 1), "f32"), (b, (2, 1), "f32"), (h, (0, 1), "f32")], [], "linear", axis=0
    )  # fmt: skip
    expected, state = [], h
    for step in range(6):
        state = a[step] * state + b[step]
        expected.append(state)
    np.testing.assert_array_equal(run(program, data), np.stack(expected))


def test_cost_counts_bytes_flops_and_special() -> None:
    x = np.ones((4, 8), dtype=np.float32)
    bias = np.ones(8, dtype=np.float32)
    exprs = [ARG, ARG2, E("add", "f32", 0, 1), E("exp", "f32", 2)]
    program, _ = task_program(HostKind.MAP, [4, 8], ("f32", (4, 8), (8, 1)), [(x, (8, 1), "f32"), (bias, (0, 1), "f32")], exprs)
    segment = program.segments[0]
    task = decode_tasks(segment.tables, segment.tables["symbols"]["bytes"].tolist())[0]
    assert isinstance(task, HostTask)
    assert task.cost() == (4 * (32 + 32 + 8), 32, 32)


@pytest.mark.parametrize(
    ("table", "where", "fields"),
    [
        ("host_tasks", 0, {"kind": 9}),
        ("host_axes", 0, {"extent": 0}),
        ("host_operands", 1, {"offset": 2}),
        ("host_operands", 1, {"symbol": 9}),
        ("host_terms", 0, {"axis": 5}),
        ("host_terms", 0, {"stride": 0}),
        ("host_exprs", 1, {"a": 3}),
        ("host_exprs", 0, {"op": 200}),
        ("host_exprs", 0, {"dtype": 1}),
        ("host_exprs", 0, {"b": 0}),
        ("host_exprs", 1, {"real": 1.0}),
        ("host_exprs", 1, {"op": 0, "a": 1}),
        ("host_tasks", 0, {"exprs": 1}),
        ("host_tasks", 0, {"axes": 1}),
        ("host_terms", 3, {"operand": 2}),
        ("host_terms", 3, {"axis": 0}),
    ],
)
def test_malformed_tasks_are_breaches(table: str, where: int, fields: dict[str, int]) -> None:
    x = np.ones((4, 8), dtype=np.float32)
    program, data = task_program(HostKind.MAP, [4, 8], ("f32", (4, 8), (8, 1)), [(x, (8, 1), "f32")], [ARG, E("neg", "f32", 0)])
    broken = edited(program, table, where, **fields)
    assert {violation.rule for violation in check(broken)} & {"CGLA-001", "CGLA-036"}
    assert execute(broken, data).outputs == {}


def test_a_term_along_an_axis_of_one_is_a_breach() -> None:
    x = np.ones((1, 8), dtype=np.float32)
    program, data = task_program(HostKind.MAP, [1, 8], ("f32", (1, 8), (8, 1)), [(x, (8, 1), "f32")], [ARG, E("neg", "f32", 0)])
    assert execute(program, data).legal
    assert program.segments[0].tables["host_terms"]["axis"].tolist() == [1, 1]
    longer = appended(program, "host_terms", operand=1, axis=0, stride=8)
    assert "CGLA-001" in {violation.rule for violation in check(longer)}


def test_a_binding_that_says_it_lies_elsewhere_is_a_breach() -> None:
    x = np.ones((4, 8), dtype=np.float32)
    program, _ = task_program(HostKind.MAP, [4, 8], ("f32", (4, 8), (8, 1)), [(x, (8, 1), "f32")], [ARG, E("neg", "f32", 0)])
    for buffer, wanted in ((0, set()), (1, {"CGLA-001"})):
        bindings = (replace(program.bindings[0], where={"buffer": buffer}), *program.bindings[1:])
        assert {violation.rule for violation in check(replace(program, bindings=bindings))} == wanted


def test_a_set_that_no_phase_writes_is_a_breach() -> None:
    program = vector_add()
    for table, fields in (("registers", {"row": 5, "col": 3, "register": 0, "value": 1}), ("descriptors", {"bottom": 31})):
        found = check(appended(program, table, set=7, **fields))
        assert {violation.rule for violation in found} == {"CGLA-001"}, found


# --- segments, instances, entry state ---------------------------------------------------------------------------------------------


def repeated(copies: int = 3) -> Program:
    """A segment that adds one array to a running sum in place, `copies` times, and whose entry state is its own exit state."""
    count = 16
    size = count * 8
    bench = Bench()
    machine = bench.machine
    slots, registers = vector_add_kernel(count)
    registers.update({(1, 0, Register.EA1_BASE): 0, (1, 1, Register.EA1_BASE): size, (2, 0, Register.EA0_BASE): 2 * size})
    ranges = {(1, 0): (0, size - 1, 1, 0), (1, 1): (size, 2 * size - 1, 1, 0), (2, 0): (2 * size, 3 * size - 1, 0, 1)}
    sets = bench.prepare(slots, registers, ranges)
    setup = bench.segment
    setup_length = bench.clock
    bench.clock = 0
    layer = bench.segment = bench.program.segment("layer")
    layer.entry(0, *sets)
    a, total = layer.symbol(size), layer.symbol(size)
    bench.phase(Phase.CONF, sets[0], 0)
    bench.load(0, total, 0, 0, size, 2)
    bench.load(1, a, 0, size, size, 2)
    bench.launch(sets, slots, count)
    bench.drain(0, total, 0, 2 * size, size, 4)
    length = bench.clock
    assert length == 2 * dma_cycles(machine, 0, size, machine.beat_interval) + 256 + dma_cycles(machine, 0, size, machine.beat_interval)
    from spatialc.machines.program import Binding

    program = bench.program
    arrays = [program.buffer(BufferKind.INPUT, size, Binding(f"a{i}", "input", "f32", (32,), "f32")) for i in range(copies)]
    state = program.buffer(BufferKind.STATE, size, Binding("total", "state", "f32", (32,), "f32"))
    program.instance(setup, 0, {})
    for i in range(copies):
        program.instance(layer, setup_length + i * length, {a: (arrays[i], 0), total: (state, 0)})
    return program.build(setup_length + copies * length)


def test_one_segment_runs_as_many_instances() -> None:
    program = repeated()
    data = inputs_of(program)
    start = np.ones(32, dtype=np.float32)
    result = execute(program, data, {"total": start})
    assert result.violations == ()
    expected = start
    for name in ("a0", "a1", "a2"):
        expected = expected + data[name]
    np.testing.assert_array_equal(result.states["total"], expected)
    assert result.breakdown["EXEC"] == 3 * 256


def test_seams_are_checked() -> None:
    program = repeated()
    early = edited(program, "instances", 2, cycle=int(program.tables["instances"]["cycle"][2]) - 1)
    assert "CGLA-030" in {violation.rule for violation in check(early)}
    without = replace(program, tables={**program.tables, "instances": {k: v[1:] for k, v in program.tables["instances"].items()}})
    binds = {k: v.copy() for k, v in program.tables["binds"].items()}
    binds["instance"] -= 1
    assert "CGLA-031" in {violation.rule for violation in check(without.with_tables(binds=binds))}
    assert "CGLA-036" in {violation.rule for violation in check(edited(program, "binds", 0, buffer=3))}
    extra = appended(program, "binds", instance=1, symbol=0, buffer=0)
    assert "CGLA-001" in {violation.rule for violation in check(extra)}


def test_indexed_dma_reads_a_table_row() -> None:
    bench = Bench()
    table = bench.buffer(BufferKind.INPUT, 8 * 64, "table", shape=(8, 16))
    ids = bench.buffer(BufferKind.INPUT, 16, "ids", "i64", (2,))
    y = bench.buffer(BufferKind.OUTPUT, 64, "y", shape=(16,))
    slots = [slot(0, 0, op1="FOR", ex1=0, ex2=1), slot(1, 0)]
    registers = {(63, 0, 0): 1, (63, 0, 1): 0xFFFFFFFF}
    bench.prepare(slots, registers, {(1, 0): (0, 63, 1, 1)})
    index = {"index_symbol": ids, "index_offset": 8, "index_bytes": 8, "index_stride": 64, "index_limit": 8}
    bench.load(0, table, 0, 0, 64, 2, **index)
    bench.drain(0, y, 0, 0, 64, 2)
    program = bench.build()
    data = {"table": RNG.standard_normal((8, 16)).astype(np.float32), "ids": np.array([1, 6])}
    result = execute(program, data)
    assert result.violations == ()
    np.testing.assert_array_equal(result.outputs["y"], data["table"][6])
    assert {v.rule for v in execute(program, {**data, "ids": np.array([1, 8])}).violations} == {"CGLA-036"}
    assert exec_cycles(1, [(0, False)]) == 12


def test_wrong_inputs_are_named() -> None:
    program = vector_add()
    data = inputs_of(program)
    with pytest.raises(BadInput, match="input 'b' is missing"):
        execute(program, {"a": data["a"]})
    with pytest.raises(BadInput, match=r"shape \[3\]"):
        execute(program, {**data, "a": np.zeros(3, dtype=np.float32)})
    with pytest.raises(BadInput, match="no input 'z'"):
        execute(program, {**data, "z": data["a"]})
    with pytest.raises(BadInput, match="for 'tsp'"):
        check(replace(program, target="tsp"))


@pytest.mark.parametrize("exact", [True, False])
def test_a_dma_moves_what_the_host_writes_while_it_is_set_up(exact: bool) -> None:
    bench = Bench(load_machine("cgla", "cgla-imax3-28nm").model_copy(update={"host_call_cycles": 10}))
    count, size, stride = 16, 128, 128
    a, b = (bench.buffer(BufferKind.INPUT, size, name, shape=(32,)) for name in ("a", "b"))
    work, result = bench.buffer(BufferKind.WORK, size), bench.buffer(BufferKind.OUTPUT, size, "c", shape=(32,))
    slots, registers = vector_add_kernel(count)
    places = {(1, 0, Register.EA1_BASE): 0, (1, 1, Register.EA1_BASE): stride, (2, 0, Register.EA0_BASE): 2 * stride}
    rows = {(1, 0): (0, size - 1, 1, 0), (1, 1): (stride, stride + size - 1, 1, 0), (2, 0): (2 * stride, 2 * stride + size - 1, 0, 1)}
    sets = bench.prepare(slots, registers | places, rows)
    bench.load(0, a, 0, 0, size, 2)
    double = [E("arg", "f32", 1), E("add", "f32", 0, 0)]
    length = host_cycles(bench.machine, 2 * size, 32, 0)
    assert 20 + length < bench.machine.t_dma
    bench.segment.host(HostKind.MAP, [32], O(work, "f32", (1,)), [O(b, "f32", (1,))], double, start=bench.clock + 20, length=length, core=1)
    bench.load(1, work, 0, stride, size, 2)
    bench.launch(sets, slots, count)
    bench.drain(0, result, 0, 2 * stride, size, 4)
    program = bench.build()
    data = inputs_of(program)
    run = execute(program, data, exact=exact)
    assert not run.violations
    assert np.array_equal(run.outputs["c"], data["a"] + 2 * data["b"])
