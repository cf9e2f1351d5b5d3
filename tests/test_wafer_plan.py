"""Plans (`runtime_sim/wafer/plan.py`): groups of steps evaluated at once give what the steps give one by one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from wafer_lines import k_tree, reduction, summed_product
from wafer_programs import chain, edited

from spatialc import api
from spatialc.machines.program import Program
from spatialc.machines.wafer.isa import Op
from spatialc.models.llama import Llama, LlamaConfig, LlamaDecode
from spatialc.models.zoo import Request, build
from spatialc.runtime_sim.wafer import analysis, arithmetic, execute, kernels
from spatialc.runtime_sim.wafer.arrays import Contents
from spatialc.runtime_sim.wafer.collectives import LineSum, Spread
from spatialc.runtime_sim.wafer.judge import judge
from spatialc.runtime_sim.wafer.order import Step
from spatialc.runtime_sim.wafer.plan import make_plan


def llama() -> Llama:
    torch.manual_seed(3)
    return Llama(LlamaConfig(vocabulary=40, width=64, layers=2, heads=2, kv_heads=1, hidden=96, context=8)).eval()


Case = tuple[Program, dict[str, np.ndarray], dict[str, np.ndarray]]


def prefill() -> Case:
    ids = torch.tensor([[3, 9, 27, 1, 5, 38]])
    program = api.compile(llama(), (ids,), target="wafer")
    return program.container, program._inputs((ids,), {}, timing_only=False), {}


def decode() -> Case:
    args = torch.tensor([[7]]), torch.tensor([5])
    program = api.compile(LlamaDecode(llama(), 1, 8).eval(), args, target="wafer")
    rng = np.random.default_rng(0)
    states = {b.name: rng.standard_normal(b.shape).astype(np.float32) for b in program.container.bindings_of("state")}
    return program.container, program._inputs(args, {}, timing_only=False), states


def stages() -> Case:
    case = build("tiny", Request(seq=16))
    program = api.compile(case.module, case.args, case.kwargs, target="wafer")
    return program.container, program._inputs(case.args, case.kwargs, timing_only=False), {}


CASES: dict[str, Callable[[], Case]] = {"prefill": prefill, "decode": decode, "stages": stages}


def step_by_step(monkeypatch: pytest.MonkeyPatch) -> None:
    """Plans without groups."""

    def plain(seg: Any, deliveries: Any, steps: Any, held: Any, kept: Any, exact: bool, plain: bool) -> Any:
        return make_plan(seg, deliveries, steps, held, kept, exact, True)

    monkeypatch.setattr(analysis, "make_plan", plain)


@pytest.mark.parametrize("name", CASES)
def test_groups_keep_every_bit_in_the_machines_order(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    program, inputs, states = CASES[name]()
    joined = execute(program, inputs, states, exact=True)
    blocked = execute(program, inputs, states)
    step_by_step(monkeypatch)
    single = execute(program, inputs, states, exact=True)
    assert joined.order == single.order == "exact" and blocked.order == "blocked"
    for key, value in {**single.outputs, **single.states}.items():
        found = {**joined.outputs, **joined.states}[key]
        np.testing.assert_array_equal(found, value)
        other = {**blocked.outputs, **blocked.states}[key]
        scale = max(float(np.abs(value).max()), 1e-6)
        assert np.abs(other.astype(np.float64) - value).max() <= 4e-3 * scale


def actions(program: Program, exact: bool = False) -> list[Any]:
    layout = judge(program).layout
    assert layout is not None
    shares = [(i, Contents(layout).share(i.number)) for i in layout.instances]
    return [a for i, share in shares for a in i.analysis.plan(exact, share.held, share.kept, False).actions]


@pytest.mark.parametrize("k", [1, 3])
def test_a_line_takes_up_the_products_that_fill_it(k: int) -> None:
    """Zeros, products, sums along a line and their spread are one product, also where a core has but one k; with `exact` the products are
    made first."""
    program = summed_product(4, 2, k, 8)
    assert not judge(program).violations
    (line,) = actions(program)
    assert isinstance(line, LineSum) and line.products and line.cells is not None
    assert [type(a) for a in actions(program, exact=True)] == [Step, Step, LineSum]
    rng = np.random.default_rng(0)
    inputs = {"x": rng.normal(size=(2, 4 * k)).astype(np.float16), "w": rng.normal(size=(4 * k, 8)).astype(np.float16)}
    wanted = inputs["x"].astype(np.float64) @ inputs["w"].astype(np.float64)
    for exact in (False, True):
        run = execute(program, inputs, exact=exact)
        assert run.order == ("exact" if exact else "blocked")
        np.testing.assert_allclose(run.outputs["y"], wanted, atol=1e-5)


def test_two_axes_that_walk_one_dimension_read_what_the_core_holds() -> None:
    """Scalars x[m + k] run over the end of a row of x: the next elements are the next row's, not those of the core beside."""
    program = summed_product(4, 2, 3, 8)
    bursts = {name: column.copy() for name, column in program.segments[0].tables["bursts"].items()}
    bursts["s_stride"][1] = (0, 1, 1, 0)
    changed = replace(program, segments=(replace(program.segments[0], tables={**program.segments[0].tables, "bursts": bursts}),))
    assert not judge(changed).violations
    rng = np.random.default_rng(0)
    inputs = {"x": rng.normal(size=(2, 12)).astype(np.float16), "w": rng.normal(size=(12, 8)).astype(np.float16)}
    blocked, exact = (execute(changed, inputs, exact=e).outputs["y"] for e in (False, True))
    np.testing.assert_allclose(blocked, exact, atol=1e-5)


def test_a_line_that_others_look_into_takes_up_nothing() -> None:
    """Without the spread, the elements in between stay in memory: they are made."""
    program = summed_product(4, 2, 3, 8, spread=False)
    assert not judge(program).violations
    assert [type(a) for a in actions(program)] == [Step, Step, LineSum]


def test_a_chain_of_another_operation_is_one_action(monkeypatch: pytest.MonkeyPatch) -> None:
    """The greatest elements along a line, NaN and infinities among them, as step by step."""
    program = chain(5, 8)
    for row, op in enumerate(program.segments[0].tables["bursts"]["op"].tolist()):
        if op == Op.ADD:
            program = edited(program, "bursts", row, op=int(Op.MAX))
    assert not judge(program).violations
    (line,) = [a for a in actions(program) if isinstance(a, LineSum)]
    assert line.root.op.op is Op.MAX
    x = np.random.default_rng(0).normal(size=(2, 5, 8)).astype(np.float32)
    x[0, 1, 2], x[1, 3, 4], x[1, 0, 7] = np.nan, -np.inf, np.inf
    joined = execute(program, {"x": x}).outputs["y"]
    step_by_step(monkeypatch)
    np.testing.assert_array_equal(joined, execute(program, {"x": x}).outputs["y"])
    np.testing.assert_array_equal(joined, x.max(axis=1))


def test_compiled_models_have_groups() -> None:
    found = [a for make in CASES.values() for a in actions(make()[0], exact=True)]
    assert any(isinstance(a, LineSum) and a.adds for a in found) and any(isinstance(a, LineSum) and not a.adds for a in found)


def test_a_broadcast_alone_is_a_spread() -> None:
    """Where the root adds two lines, one after the other, their sum is spread by itself."""
    assert any(isinstance(a, Spread) for a in actions(reduction(k_tree(6, (2,)), 4)))


@pytest.mark.parametrize("case", [prefill, decode])
def test_whole_arrays_give_what_compiled_loops_give(case: Callable[[], Case], monkeypatch: pytest.MonkeyPatch) -> None:
    program, inputs, states = case()
    seen = []
    for pays in (True, False):
        for module in (kernels, arithmetic):
            monkeypatch.setattr(module, "pays", lambda count, pays=pays: pays)
        done = execute(program, inputs, states)
        seen.append({name: array.tobytes() for name, array in {**done.outputs, **done.states}.items()})
    assert seen[0] == seen[1]
