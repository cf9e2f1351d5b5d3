"""Prepared programs (`runtime_sim/wafer`): every run gives what a fresh execution gives, whatever ran before."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import numpy as np
import pytest
import torch
from test_backend_wafer_stages import residual_layers
from test_wafer_instances import SIZE, SPAN, layers
from wafer_lines import placed_sums, summed_product
from wafer_programs import WSE2, edited

from spatialc import api
from spatialc.backends.options import CompileOptions
from spatialc.backends.wafer import compile as driver
from spatialc.backends.wafer import compile_graph
from spatialc.errors import BadInput
from spatialc.machines.program import Program
from spatialc.machines.wafer.tables import image_key
from spatialc.models.llama import Llama, LlamaConfig, LlamaDecode
from spatialc.runtime_sim.execution import Execution
from spatialc.runtime_sim.wafer import execute, prepare

Data = tuple[dict[str, np.ndarray], dict[str, np.ndarray]]


@cache
def decode() -> Program:
    """A decode step with its cache as State; places are looked up by position."""
    torch.manual_seed(3)
    model = Llama(LlamaConfig(vocabulary=40, width=64, layers=2, heads=2, kv_heads=1, hidden=96, context=8)).eval()
    return api.compile(LlamaDecode(model, 1, 8).eval(), (torch.tensor([[7]]), torch.tensor([5])), target="wafer").container


def stages() -> Program:
    """Equal layers in rectangles side by side: instances of one segment."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(driver, "_WHOLE_CORES", 0)
        return compile_graph(*residual_layers(), CompileOptions(machine=WSE2))


PROGRAMS: dict[str, Callable[[], Program]] = {
    "layers": layers, "product": lambda: summed_product(4, 2, 3, 8), "decode": decode, "stages": stages,
    "placed": lambda: placed_sums(4, 2, 3),
}  # fmt: skip


def data(program: Program, seed: int) -> Data:
    """Inputs and states for a program, integers from the ranges that it takes."""
    rng = np.random.default_rng(seed)
    found: Data = {}, {}
    for binding in program.bindings:
        if binding.kind == "output":
            continue
        low, high = binding.range or (0, 7)
        values = (
            rng.standard_normal(binding.shape) if binding.dtype.startswith("f") else rng.integers(low, high, binding.shape, endpoint=True)
        )
        found[binding.kind == "state"][binding.name] = values.astype({"f16": np.float16, "f32": np.float32}.get(binding.dtype, np.int64))
    return found


def same(first: Execution, second: Execution) -> bool:
    """Whether two executions agree in every bit of their numbers, and in all that was counted."""
    for one, other in ((first.outputs, second.outputs), (first.states, second.states)):
        assert list(one) == list(other)
        if any(one[name].tobytes() != other[name].tobytes() or one[name].dtype != other[name].dtype for name in one):
            return False
    counted = [{**vars(e), "outputs": None, "states": None} for e in (first, second)]
    return counted[0] == counted[1]


@pytest.mark.parametrize("name", PROGRAMS)
def test_runs_of_a_prepared_program_are_fresh_executions(name: str) -> None:
    program = PROGRAMS[name]()
    prepared = prepare(program)
    assert not prepared.verdict.violations
    runs = [(0, False), (1, False), (1, True), (0, False), (0, True), (1, False)]
    for seed, exact in runs:
        inputs, states = data(program, seed)
        assert same(prepared.run(inputs, states, exact=exact), execute(program, inputs, states, exact=exact)), (seed, exact)
    first, second = (prepared.run(*data(program, seed)) for seed in (0, 1))
    assert not same(first, second)
    assert same(prepared.execution(), execute(program, {}, timing_only=True))


def test_states_come_in_by_argument_alone() -> None:
    program = decode()
    prepared, (inputs, states) = prepare(program), data(program, 0)
    before = {name: value.copy() for name, value in states.items()}
    after = prepared.run(inputs, states)
    blank = prepared.run(inputs)
    assert same(blank, execute(program, inputs)) and not same(blank, after)
    assert all(np.array_equal(states[name], value) for name, value in before.items())
    kept = {name: value.copy() for name, value in after.states.items()}
    assert same(prepared.run(inputs, after.states), execute(program, inputs, kept))
    assert all(np.array_equal(after.states[name], value) for name, value in kept.items())


def test_images_and_results_stay_as_they_are() -> None:
    """Constants keep their bytes, and what a run returned is not written by the next."""
    program = stages()
    images = {name: image.tobytes() for name, image in program.images.items()}
    prepared = prepare(program)
    found = [prepared.run(*data(program, seed)) for seed in (0, 1, 2)]
    kept = [{name: value.copy() for name, value in run.outputs.items()} for run in found]
    prepared.run(*data(program, 3))
    assert all(np.array_equal(run.outputs[name], value) for run, values in zip(found, kept, strict=True) for name, value in values.items())
    assert {name: image.tobytes() for name, image in program.images.items()} == images


def test_wrong_inputs_leave_a_prepared_program_as_it_is() -> None:
    program = layers()
    prepared, (inputs, _) = prepare(program), data(layers(), 0)
    with pytest.raises(BadInput, match="shape"):
        prepared.run({"x": inputs["x"][:1]})
    with pytest.raises(BadInput, match="missing"):
        prepared.run({})
    assert same(prepared.run(inputs), execute(program, inputs))


def test_a_program_that_breaks_rules_runs_alike_too() -> None:
    """Words that nothing has written are zeros in every run."""
    product = edited(summed_product(4, 2, 3, 8), "bursts", 0, ext=(1, 1, 1, 2))
    short = edited(layers(starts=(0, SPAN)), "bursts", 0, ext=(1, 1, 1, SIZE - 1))
    for program, rule in ((product, "W44"), (short, "W50")):
        prepared = prepare(program)
        assert rule in {v.rule for v in prepared.verdict.violations}
        for seed in (0, 1, 0):
            inputs, _ = data(program, seed)
            found = prepared.run(inputs)
            assert same(found, execute(program, inputs))
            assert program is product or not found.outputs["y"][..., SIZE - 1].any()


def test_parts_go_where_the_indices_of_their_own_instance_say() -> None:
    """Memory of one instance's indices is used again for those of the next."""
    program = placed_sums(4, 2, 3)
    prepared, (inputs, _) = prepare(program), data(program, 0)
    assert not prepared.verdict.violations
    for _ in range(3):
        outputs = prepared.run(inputs).outputs
        for k in range(3):
            index, wanted = program.images[image_key(k)].reshape(2, -1), np.zeros((2, 8), np.float32)
            np.put_along_axis(wanted, index, inputs[f"x{k}"].reshape(2, -1), axis=1)
            assert np.array_equal(outputs[f"y{k}"], wanted), k
