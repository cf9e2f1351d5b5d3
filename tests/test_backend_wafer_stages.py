"""Programs of several rectangles: equal layers share a segment, transfers carry values, constants differ by instance."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from spatialc.backends.options import CompileOptions
from spatialc.backends.wafer import compile as driver
from spatialc.backends.wafer import compile_graph
from spatialc.ir.expr import arg, cast, make
from spatialc.ir.graph import Constant, ConstantRef, Contract, Graph, GraphBuilder, Index, Input, Map, Repeat
from spatialc.ir.interpret import interpret
from spatialc.ir.store import ConstantStore
from spatialc.ir.types import F16, F32
from spatialc.machines.catalog import load_machine
from spatialc.runtime_sim.wafer import check, execute

MACHINE = load_machine("wafer", "wafer-wse2")
WIDTH, ROWS, LAYERS = 64, 12, 4


def residual_layers(rotated: bool = False) -> tuple[Graph, ConstantStore]:
    """x + w2 |w1 x|, four times; `rotated`: x + w2 w1 |x|, where a layer also makes the |x| of the next, and the last |x| is read."""
    b, store = GraphBuilder(), ConstantStore()
    rng = np.random.default_rng(0)

    def at(*axes: int) -> tuple[Index, ...]:
        return tuple(Index(0, ((a, 1),)) for a in axes)

    x = b.new(Input, dtype=F16, shape=(ROWS, WIDTH), name="x")
    weights = []
    for key in range(2 * LAYERS):
        store.put(f"w{key}", (rng.standard_normal((WIDTH, WIDTH)) * 0.1).astype(np.float16))
        weights.append(b.new(Constant, dtype=F16, shape=(WIDTH, WIDTH), ref=ConstantRef(f"w{key}", F16, (WIDTH, WIDTH))))
    start = len(b.nodes)
    nest = {"shape": (ROWS, WIDTH), "dtype": F16}

    def linear(value: int, weight: int) -> int:
        return b.new(
            Contract, (value, weight), axes=(ROWS, WIDTH, WIDTH), accesses=(at(0, 2), at(1, 2)), groups=((0,), (1,)), acc=F32, **nest
        )

    def pointwise(op: str, *operands: int) -> int:
        leaves = [cast(arg(k, F16), F32) for k in range(len(operands))]
        expr = make(op, *leaves) if len(leaves) > 1 else make("abs", leaves[0])
        access = (at(0, 1),) * len(operands)
        return b.new(Map, operands, axes=(ROWS, WIDTH), accesses=access, groups=((0,), (1,)), expr=cast(expr, F16), **nest)

    if rotated:
        y = pointwise("abs", x)
        start = len(b.nodes)
        for layer in range(LAYERS):
            x = pointwise("add", x, linear(linear(y, weights[2 * layer]), weights[2 * layer + 1]))
            y = pointwise("abs", x)
        x = pointwise("add", y, y)
    else:
        for layer in range(LAYERS):
            x = pointwise("add", x, linear(pointwise("abs", linear(x, weights[2 * layer])), weights[2 * layer + 1]))
    graph = b.finish([x])
    return replace(graph, repeats=(Repeat(start, 4, LAYERS),)), store


@pytest.fixture
def staged(monkeypatch: pytest.MonkeyPatch) -> None:
    """Cut even a small model into one stage a layer."""
    monkeypatch.setattr(driver, "_WHOLE_CORES", 0)


@pytest.mark.usefixtures("staged")
def test_layers_share_a_segment_and_keep_their_weights() -> None:
    graph, store = residual_layers()
    program = compile_graph(graph, store, CompileOptions(machine=MACHINE))
    assert len(program.tables["instances"]["segment"]) == 2 * LAYERS - 1
    assert len(program.segments) < 2 * LAYERS - 1
    x = np.random.default_rng(1).standard_normal((ROWS, WIDTH)).astype(np.float16)
    result = execute(program, {"x": x})
    assert [str(v) for v in result.violations] == []
    assert result.cycles == program.predicted_cycles
    expected = interpret(graph, {"x": x}, store=store)[0][0].astype(np.float64)
    assert np.linalg.norm(result.outputs["output_0"] - expected) <= 2e-3 * np.linalg.norm(expected)


@pytest.mark.usefixtures("staged")
def test_the_last_layer_is_the_same_stage_though_less_of_it_is_read() -> None:
    graph, store = residual_layers(rotated=True)
    program = compile_graph(graph, store, CompileOptions(machine=MACHINE))
    used = [program.segments[i].name for i in program.tables["instances"]["segment"].tolist()]
    layers = [name for name in used if name.startswith("stage")][1:-1]
    assert len(layers) == LAYERS
    assert len(set(layers[1:])) == 1  # the first may find its imports in other cuts
    x = np.random.default_rng(1).standard_normal((ROWS, WIDTH)).astype(np.float16)
    result = execute(program, {"x": x})
    assert result.violations == ()
    assert result.cycles == program.predicted_cycles
    expected = interpret(graph, {"x": x}, store=store)[0][0].astype(np.float64)
    assert np.linalg.norm(result.outputs["output_0"] - expected) <= 2e-3 * np.linalg.norm(expected)


@pytest.mark.usefixtures("staged")
def test_a_transfer_too_early_is_illegal() -> None:
    graph, store = residual_layers()
    program = compile_graph(graph, store, CompileOptions(machine=MACHINE))
    instances = {name: column.copy() for name, column in program.tables["instances"].items()}
    instances["start"][1] -= 40
    rules = {v.rule for v in check(program.with_tables(instances=instances), skip=frozenset({"W52"}))}
    assert rules & {"W02", "W43", "W44"}
