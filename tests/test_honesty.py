"""The judge takes the compiler's word for nothing: numbers, cycles and verdict come from the instructions alone."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from functools import cache
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest

from spatialc import api
from spatialc.machines.program import Program, Table
from spatialc.models.zoo import Case, Request, build
from spatialc.runtime_sim.execution import Execution

TARGETS = ("tsp", "cgla", "wafer")
END_RULE = {"tsp": "TSP-060", "cgla": "CGLA-032", "wafer": "W52"}
NOTES = ("provenance", "prov", "label")
"""Columns that refer to the pool of provenance strings: shown in messages and beside counts, never obeyed."""


@cache
def case() -> Case:
    return build("tiny", Request(prompt="two plus"))


@cache
def compiled(target: str) -> Program:
    return api.compile(case().module, case().args, target=target).container


def execute(program: Program, *, exact: bool = False, timing_only: bool = False) -> Execution:
    ids = case().args[0].numpy()
    inputs = {binding.name: ids for binding in program.bindings_of("input")}
    result = import_module(f"spatialc.runtime_sim.{program.target}").execute(program, inputs, exact=exact, timing_only=timing_only)
    assert isinstance(result, Execution)
    return result


@cache
def run(target: str) -> Execution:
    result = execute(compiled(target))
    assert result.violations == ()
    assert result.cycles > 0
    assert [array.shape for array in result.outputs.values()] == [(*case().args[0].shape, 32)]
    return result


def anonymous(program: Program) -> Program:
    """The program without anything that names an operator, describes the model or claims a bound; segments are called by number."""

    def silent(table: Table) -> dict[str, np.ndarray]:
        return {name: np.full_like(column, -1) if name in NOTES else column for name, column in table.items()}

    segments = tuple(
        replace(segment, name=f"s{number}", tables={name: silent(table) for name, table in segment.tables.items()})
        for number, segment in enumerate(program.segments)
    )
    tables = {name: silent(table) for name, table in program.tables.items()}
    bindings = tuple(replace(binding, path="") for binding in program.bindings)
    return replace(program, segments=segments, tables=tables, bindings=bindings, provenance=(), meta={}, bound={})


def assert_same(first: Execution, second: Execution) -> None:
    assert first.violations == second.violations
    assert (first.cycles, first.interval_cycles, first.breakdown) == (second.cycles, second.interval_cycles, second.breakdown)
    assert (first.energy_j, first.traffic, first.memory) == (second.energy_j, second.traffic, second.memory)
    # the compiler chooses the names of host tasks, not their number
    assert sum(first.host_ops.values()) == sum(second.host_ops.values())
    assert first.outputs.keys() == second.outputs.keys()
    for name, array in first.outputs.items():
        np.testing.assert_array_equal(array, second.outputs[name])


@pytest.mark.parametrize("target", TARGETS)
def test_names_and_claims_are_not_read(target: str) -> None:
    assert compiled(target).provenance
    assert_same(execute(anonymous(compiled(target))), run(target))


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("error", [-1, 1])
def test_a_wrong_prediction_is_a_breach(target: str, error: int) -> None:
    program = compiled(target)
    result = execute(replace(program, predicted_cycles=program.predicted_cycles + error), timing_only=True)
    assert {violation.rule for violation in result.violations} == {END_RULE[target]}
    assert result.cycles == run(target).cycles


@pytest.mark.parametrize("target", TARGETS)
def test_outputs_follow_the_images(target: str) -> None:
    """Numbers come from the weights in the container: with other weights the same schedule gives other numbers."""
    program = compiled(target)
    halved = {name: (array // 2).astype(array.dtype) for name, array in program.images.items()}
    result = execute(replace(program, images=halved))
    assert result.cycles == run(target).cycles
    for name, array in run(target).outputs.items():
        assert not np.array_equal(result.outputs[name], array)


@pytest.mark.parametrize("target", TARGETS)
def test_summation_orders_agree(target: str) -> None:
    exact = execute(compiled(target), exact=True)
    assert exact.order == "exact"
    assert (exact.violations, exact.cycles) == (run(target).violations, run(target).cycles)
    for name, array in run(target).outputs.items():
        if run(target).order == "exact":
            np.testing.assert_array_equal(array, exact.outputs[name])
        else:
            # the orders differ by roundings of fp32 sums, which later fp16 roundings carry along
            distance = np.linalg.norm(array - exact.outputs[name]) / np.linalg.norm(exact.outputs[name])
            assert distance < np.finfo(np.float16).eps


@pytest.mark.parametrize("target", TARGETS)
def test_timing_needs_no_data(target: str) -> None:
    timed = execute(compiled(target), timing_only=True)
    assert timed.outputs == {}
    assert_same(replace(timed, outputs=run(target).outputs), run(target))


@pytest.mark.parametrize("target", TARGETS)
def test_two_compilations_give_the_same_bytes(target: str) -> None:
    assert api.compile(case().module, case().args, target=target).digest() == compiled(target).digest()


FRESH = """
import json, sys
from importlib import import_module
import numpy as np
from spatialc.machines.program import load_program
program = load_program(sys.argv[1])
simulator = import_module(f"spatialc.runtime_sim.{program.target}")
result = simulator.execute(program, {b.name: np.array(json.loads(sys.argv[2])) for b in program.bindings_of("input")})
np.savez(sys.argv[3], **result.outputs)
known = [name for name in sys.modules if name == "torch" or name.startswith(("spatialc.backends", "spatialc.passes", "spatialc.ir"))]
print(json.dumps([program.digest(), result.cycles, len(result.violations), known]))
"""


@pytest.mark.parametrize("target", TARGETS)
def test_a_saved_program_runs_alone(target: str, tmp_path: Path) -> None:
    """A fresh process that has neither the model nor the compiler nor torch gets the same numbers from the file."""
    digest = compiled(target).save(tmp_path / "program.spx")
    ids = json.dumps(case().args[0].tolist())
    arguments = [str(tmp_path / "program.spx"), ids, str(tmp_path / "outputs.npz")]
    process = subprocess.run([sys.executable, "-c", FRESH, *arguments], capture_output=True, text=True, check=False)
    assert process.returncode == 0, process.stderr
    assert json.loads(process.stdout) == [digest, run(target).cycles, 0, []]
    with np.load(tmp_path / "outputs.npz") as outputs:
        assert set(outputs) == set(run(target).outputs)
        for name, array in run(target).outputs.items():
            np.testing.assert_array_equal(outputs[name], array)
