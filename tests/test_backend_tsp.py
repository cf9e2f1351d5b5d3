"""The TSP backend: every kind of node compiles to a legal schedule that the executor runs to the interpreter's numbers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from spatialc import api
from spatialc.backends.options import CompileOptions
from spatialc.backends.tsp import compile_graph, lower_bound
from spatialc.errors import Infeasible
from spatialc.ir.expr import arg, axis, const, make
from spatialc.ir.graph import (
    Constant,
    ConstantRef,
    Contract,
    Gather,
    Graph,
    GraphBuilder,
    Index,
    Input,
    Lookup,
    Map,
    Move,
    Piece,
    Reduce,
    Repeat,
    Scan,
    Scatter,
    Sort,
    State,
)
from spatialc.ir.interpret import interpret
from spatialc.ir.store import ConstantStore
from spatialc.ir.types import F16, F32, I64
from spatialc.machines.catalog import load_machine
from spatialc.machines.tsp.description import TspMachine
from spatialc.models.zoo import Request, build
from spatialc.runtime_sim.tsp import execute

Case = tuple[Graph, dict[str, np.ndarray], ConstantStore]


def at(*terms: tuple[int, int], offset: int = 0) -> Index:
    return Index.of(offset, terms)


def normal(*shape: int, dtype: str = "f4") -> np.ndarray:
    return np.random.default_rng(sum(shape)).standard_normal(shape).astype(dtype)


def judged(case: Case, tolerance: float = 1e-6, states: dict[str, np.ndarray] | None = None, machine: TspMachine | None = None) -> Any:
    """Compile, execute and compare with the interpreter; returns the execution."""
    graph, inputs, store = case
    program = compile_graph(graph, store, CompileOptions(machine or load_machine("tsp")))
    run = execute(program, inputs, states)
    assert not run.violations, run.violations[0]
    assert run.cycles == program.predicted_cycles >= program.bound["bound_cycles"]
    outputs, updated = interpret(graph, inputs, states=states, store=store)
    for number, want in enumerate(outputs):
        close(run.outputs[f"output_{number}"], np.asarray(want), tolerance)
    for name in graph.updates:
        close(run.states[name], np.asarray(updated[name]), tolerance)
    return run


def close(got: np.ndarray, want: np.ndarray, tolerance: float) -> None:
    assert got.shape == want.shape
    if want.dtype.kind != "f":
        assert np.array_equal(got, want)
        return
    finite = np.isfinite(want)
    assert np.array_equal(np.isfinite(got), finite)
    assert np.linalg.norm(got[finite] - want[finite]) <= tolerance * max(np.linalg.norm(want[finite]), 1e-12)


def contraction(constant: bool, m: int, n: int, k: int) -> Case:
    b, store = GraphBuilder(), ConstantStore()
    x = b.new(Input, dtype=F16, shape=(m, k), name="x")
    inputs = {"x": normal(m, k, dtype="f2")}
    if constant:
        w = b.new(Constant, dtype=F16, shape=(n, k), ref=ConstantRef("w", F16, (n, k)))
        store.put("w", normal(n, k, dtype="f2"))
    else:
        w = b.new(Input, dtype=F16, shape=(n, k), name="w")
        inputs["w"] = normal(n, k, dtype="f2")
    c = b.new(
        Contract, [x, w], dtype=F32, shape=(m, n), axes=(m, n, k), groups=((0,), (1,)), acc=F32,
        accesses=((at((0, 1)), at((2, 1))), (at((1, 1)), at((2, 1)))),
    )  # fmt: skip
    return b.finish([c]), inputs, store


def wide(stored: str, n: int, constant_first: bool = False) -> Case:
    """f32 operands: an activation in two pieces of f16, and a constant in one piece (stored in f16) or two."""
    b, store = GraphBuilder(), ConstantStore()
    m, k = 5, 400
    x = b.new(Input, dtype=F32, shape=(m, k), name="x")
    w = b.new(Constant, dtype=F32, shape=(n, k), ref=ConstantRef("w", F32, (n, k), stored))
    store.put("w", normal(n, k, dtype="f2" if stored == "f16" else "f4").astype("f4"))
    reads = (at((0, 1)), at((2, 1))), (at((1, 1)), at((2, 1)))
    c = b.new(
        Contract, [w, x] if constant_first else [x, w], dtype=F32, shape=(m, n), axes=(m, n, k), groups=((0,), (1,)), acc=F32,
        accesses=reads[::-1] if constant_first else reads,
    )  # fmt: skip
    return b.finish([c]), {"x": normal(m, k)}, store


def heads() -> Case:
    """Batched scores of two heads whose lanes lie side by side: both operands need a lane move."""
    b = GraphBuilder()
    x = b.new(Input, dtype=F16, shape=(6, 32), name="x")
    y = b.new(Input, dtype=F16, shape=(9, 32), name="y")
    c = b.new(
        Contract, [x, y], dtype=F32, shape=(2, 6, 9), axes=(2, 6, 9, 16), groups=((0,), (1,), (2,)), acc=F32,
        accesses=((at((1, 1)), at((0, 16), (3, 1))), (at((2, 1)), at((0, 16), (3, 1)))),
    )  # fmt: skip
    return b.finish([c]), {"x": normal(6, 32, dtype="f2"), "y": normal(9, 32, dtype="f2")}, ConstantStore()


def softmax() -> Case:
    b = GraphBuilder()
    full, row = (at((0, 1)), at((1, 1)), at((2, 1))), (at((0, 1)), at((1, 1)))
    axes, groups = (2, 7, 40), ((0,), (1,), (2,))
    x = b.new(Input, dtype=F32, shape=axes, name="x")
    mask = make("le", axis(2), make("add", axis(1), const(30, I64)))
    scaled = make("select", mask, make("mul", arg(0, F32), const(0.125)), const(float("-inf")))
    s = b.new(Map, [x], dtype=F32, shape=axes, axes=axes, accesses=(full,), groups=groups, expr=scaled)
    m = b.new(Reduce, [s], dtype=F32, shape=(2, 7), axes=axes, accesses=(full,), groups=groups[:2], expr=arg(0, F32), op="max")
    shifted = make("exp", make("sub", arg(0, F32), arg(1, F32)))
    e = b.new(Map, [s, m], dtype=F32, shape=axes, axes=axes, accesses=(full, row), groups=groups, expr=shifted)
    total = b.new(Reduce, [e], dtype=F32, shape=(2, 7), axes=axes, accesses=(full,), groups=groups[:2], expr=arg(0, F32), op="sum")
    p = b.new(
        Map, [e, total], dtype=F32, shape=axes, axes=axes, accesses=(full, row), groups=groups, expr=make("div", arg(0, F32), arg(1, F32))
    )
    return b.finish([p]), {"x": 3 * normal(*axes)}, ConstantStore()


def norm() -> Case:
    """A sum over 400 lanes (two tiles, the second open) that is used again in every lane."""
    b = GraphBuilder()
    full = (at((0, 1)), at((1, 1)))
    x = b.new(Input, dtype=F32, shape=(7, 400), name="x")
    square = make("mul", arg(0, F32), arg(0, F32))
    s = b.new(Reduce, [x], dtype=F32, shape=(7,), axes=(7, 400), accesses=(full,), groups=((0,),), expr=square, op="sum")
    scaled = make("mul", arg(0, F32), make("rsqrt", arg(1, F32)))
    y = b.new(Map, [x, s], dtype=F32, shape=(7, 400), axes=(7, 400), accesses=(full, (at((0, 1)),)), groups=((0,), (1,)), expr=scaled)
    return b.finish([s, y]), {"x": normal(7, 400)}, ConstantStore()


def gather() -> Case:
    b, store = GraphBuilder(), ConstantStore()
    table = b.new(Constant, dtype=F32, shape=(500, 72), ref=ConstantRef("t", F32, (500, 72)))
    store.put("t", normal(500, 72))
    ids = b.new(Input, dtype=I64, shape=(1, 6), name="ids", range=(0, 499))
    c = b.new(
        Gather, [table, ids], dtype=F32, shape=(1, 6, 72), axes=(6, 72), groups=((), (0,), (1,)),
        accesses=((Lookup(1), at((1, 1))), (at(), at((0, 1)))),
    )  # fmt: skip
    return b.finish([c]), {"ids": np.array([[0, 499, 320, 7, 7, 128]])}, store


def move() -> Case:
    b = GraphBuilder()
    x = b.new(Input, dtype=F32, shape=(6, 40), name="x")
    left = Piece(0, (6, 20), (at((0, 1)), at((1, 1), offset=20)), ((0,), (1,)), (0, 0), (1, 1))
    right = Piece(0, (6, 20), (at((0, 1)), at((1, 1))), ((0,), (1,)), (0, 20), (1, 1))
    turned = Piece(0, (40, 6), (at((1, 1)), at((0, 1))), ((0,), (1,)), (0, 1), (1, 1))
    rolled = b.new(Move, [x], dtype=F32, shape=(6, 40), pieces=(left, right))
    padded = b.new(Move, [x], dtype=F32, shape=(40, 8), fill=-1.5, pieces=(turned,))
    return b.finish([rolled, padded]), {"x": normal(6, 40)}, ConstantStore()


def extreme() -> Case:
    b = GraphBuilder()
    x = b.new(Input, dtype=F32, shape=(4, 50), name="x")
    c = b.new(
        Reduce,
        [x],
        dtype=I64,
        shape=(4,),
        axes=(4, 50),
        accesses=((at((0, 1)), at((1, 1))),),
        groups=((0,),),
        expr=arg(0, F32),
        op="argmax",
    )
    return b.finish([c]), {"x": np.round(normal(4, 50))}, ConstantStore()


def scatter() -> Case:
    b = GraphBuilder()
    x = b.new(Input, dtype=F32, shape=(2, 10, 16), name="x")
    y = b.new(Input, dtype=F32, shape=(2, 1, 16), name="y")
    p = b.new(Input, dtype=I64, shape=(1,), name="p", range=(0, 9))
    c = b.new(
        Scatter, [x, y, p], dtype=F32, shape=(2, 10, 16), axes=(2, 16), target=(at((0, 1)), Lookup(2), at((1, 1))),
        accesses=((at((0, 1)), at(), at((1, 1))), (at(),)), mode="set",
    )  # fmt: skip
    return b.finish([c]), {"x": normal(2, 10, 16), "y": normal(2, 1, 16), "p": np.array([3])}, ConstantStore()


def sort() -> Case:
    b = GraphBuilder()
    x = b.new(Input, dtype=F32, shape=(3, 9), name="x")
    return (
        b.finish([b.new(Sort, [x], dtype=I64, shape=(3, 4), axis=1, descending=True, count=4)]),
        {"x": np.round(normal(3, 9))},
        ConstantStore(),
    )


def scan() -> Case:
    b = GraphBuilder()
    x = b.new(Input, dtype=F32, shape=(3, 9), name="x")
    return b.finish([b.new(Scan, [x], dtype=F32, shape=(3, 9), op="add", axis=1)]), {"x": normal(3, 9)}, ConstantStore()


CASES: dict[str, Callable[[], Case]] = {
    "stationary constant": lambda: contraction(True, 5, 96, 64),
    "tiles of all axes": lambda: contraction(True, 130, 700, 700),
    "wide activation": lambda: wide("f16", 700), "wide constant": lambda: wide("dense", 96, True),
    "both dynamic": lambda: contraction(False, 5, 96, 64),
    "heads": heads, "softmax": softmax, "norm": norm, "gather": gather, "move": move, "argmax": extreme, "scatter": scatter,
    "sort": sort, "scan": scan,
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_every_kind_runs_legally_with_the_right_numbers(name: str) -> None:
    judged(CASES[name]())


@pytest.mark.parametrize("op", ["exp", "sin", "cos", "erf", "tanh", "log1p", "floor", "round", "sqrt", "abs", "recip", "sign"])
def test_recipes_of_functions(op: str) -> None:
    b = GraphBuilder()
    x = b.new(Input, dtype=F32, shape=(2, 33), name="x")
    y = b.new(
        Map,
        [x],
        dtype=F32,
        shape=(2, 33),
        axes=(2, 33),
        accesses=((at((0, 1)), at((1, 1))),),
        groups=((0,), (1,)),
        expr=make(op, arg(0, F32)),
    )
    values = 3 * normal(2, 33)
    judged((b.finish([y]), {"x": np.abs(values) if op in ("log1p", "sqrt") else values}, ConstantStore()), 2e-6)


def layers(count: int, repeated: bool) -> Case:
    """`count` equal layers x + w_c x with weights of their own."""
    b, store = GraphBuilder(), ConstantStore()
    weights = []
    for c in range(count):
        weights.append(b.new(Constant, dtype=F16, shape=(64, 64), ref=ConstantRef(f"w{c}", F16, (64, 64))))
        store.put(f"w{c}", (normal(64, 64) * (0.05 + 0.01 * c)).astype("f2"))
    x = b.new(Input, dtype=F32, shape=(4, 64), name="x")
    full = (at((0, 1)), at((1, 1)))
    start = len(b.nodes)
    for w in weights:
        half = b.new(Map, [x], dtype=F16, shape=(4, 64), axes=(4, 64), accesses=(full,), groups=((0,), (1,)), expr=_half(arg(0, F32)))
        product = b.new(
            Contract, [half, w], dtype=F32, shape=(4, 64), axes=(4, 64, 64), groups=((0,), (1,)), acc=F32,
            accesses=((at((0, 1)), at((2, 1))), (at((1, 1)), at((2, 1)))),
        )  # fmt: skip
        x = b.new(
            Map, [x, product], dtype=F32, shape=(4, 64), axes=(4, 64), accesses=(full, full), groups=((0,), (1,)),
            expr=make("add", arg(0, F32), arg(1, F32)),
        )  # fmt: skip
    graph = b.finish([x])
    repeats = (Repeat(start, 3, count),) if repeated else ()
    return Graph(graph.nodes, graph.outputs, graph.updates, (), repeats), {"x": normal(4, 64)}, store


def _half(value: Any) -> Any:
    from spatialc.ir.expr import cast

    return cast(value, F16)


def test_repeated_layers_are_one_segment_with_the_numbers_of_all() -> None:
    graph, inputs, store = layers(5, True)
    program = compile_graph(graph, store, CompileOptions(load_machine("tsp")))
    segments = [len(segment.tables["bursts"]["unit"]) for segment in program.segments]
    assert np.bincount(program.tables["instances"]["segment"]).max() == 4  # the first layer reads the input and stands apart
    whole = compile_graph(*layers(5, False)[::2], CompileOptions(load_machine("tsp")))
    assert sum(segments) < len(whole.segments[0].tables["bursts"]["unit"])
    judged((graph, inputs, store), 1e-3)


def test_layers_that_do_not_fit_one_chip_go_on_over_a_link() -> None:
    machine = load_machine("tsp").model_copy(update={"rows": 160})
    run = judged(wide_layers(), 1e-3, machine=machine)
    assert run.chips > 1


def test_chips_with_less_memory_are_more_chips_and_nothing_is_refused_that_a_smaller_one_takes() -> None:
    case = build("tiny", Request(seq=8))
    chips = []
    for rows in (96, 128, 160, 256):
        run = api.compile(case.module, case.args, case.kwargs, target="tsp", changes={"rows": rows}).run(*case.args, **case.kwargs)
        assert run.data.status == "ok"
        chips.append(run.data.chips)
    assert chips == [2, 1, 1, 1]
    with pytest.raises(Infeasible, match=r"in section repeat1: needs 80 rows, has 64"):
        api.compile(case.module, case.args, case.kwargs, target="tsp", changes={"rows": 64})


def wide_layers() -> Case:
    b, store = GraphBuilder(), ConstantStore()
    weights = []
    for c in range(4):
        weights.append(b.new(Constant, dtype=F16, shape=(640, 640), ref=ConstantRef(f"w{c}", F16, (640, 640))))
        store.put(f"w{c}", (normal(640, 640) * 0.01).astype("f2"))
    x = b.new(Input, dtype=F32, shape=(2, 640), name="x")
    full = (at((0, 1)), at((1, 1)))
    start = len(b.nodes)
    for w in weights:
        half = b.new(Map, [x], dtype=F16, shape=(2, 640), axes=(2, 640), accesses=(full,), groups=((0,), (1,)), expr=_half(arg(0, F32)))
        x = b.new(
            Contract, [half, w], dtype=F32, shape=(2, 640), axes=(2, 640, 640), groups=((0,), (1,)), acc=F32,
            accesses=((at((0, 1)), at((2, 1))), (at((1, 1)), at((2, 1)))),
        )  # fmt: skip
    graph = b.finish([x])
    return Graph(graph.nodes, graph.outputs, graph.updates, (), (Repeat(start, 2, 4),)), {"x": normal(2, 640)}, store


def test_state_is_read_before_it_is_updated() -> None:
    b = GraphBuilder()
    s = b.new(State, dtype=F32, shape=(3, 20), name="cache")
    x = b.new(Input, dtype=F32, shape=(3, 20), name="x")
    full = (at((0, 1)), at((1, 1)))
    y = b.new(
        Map,
        [s, x],
        dtype=F32,
        shape=(3, 20),
        axes=(3, 20),
        accesses=(full, full),
        groups=((0,), (1,)),
        expr=make("add", arg(0, F32), arg(1, F32)),
    )
    case = (b.finish([s, y], {"cache": y}), {"x": normal(3, 20)}, ConstantStore())
    judged(case, states={"cache": normal(3, 20) + 1})


def test_compiling_twice_gives_the_same_bytes() -> None:
    graph, _, store = norm()
    options = CompileOptions(load_machine("tsp"))
    assert compile_graph(graph, store, options).digest() == compile_graph(graph, store, options).digest()


def test_a_model_without_room_is_infeasible() -> None:
    graph, _, store = wide_layers()
    with pytest.raises(Infeasible, match="too small"):
        compile_graph(graph, store, CompileOptions(load_machine("tsp").model_copy(update={"rows": 40})))


def test_bound_terms_of_one_contraction() -> None:
    graph, _, _ = contraction(True, 128, 640, 640)
    bound = lower_bound(graph, load_machine("tsp"))
    assert bound["compute_cycles"] == 128 * 640 * 640 // 102_400
    assert bound["inward_cycles"] == 128 * 640 * 8 // 20_480
    assert bound["bound_cycles"] == max(bound[f"{kind}_cycles"] for kind in ("compute", "outward", "inward", "large", "latency"))
