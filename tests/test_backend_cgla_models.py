"""Whole models through the passes and the CGLA backend: legal programs with torch's numbers."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from spatialc import api
from spatialc.machines.catalog import load_machine
from spatialc.models.zoo import Request, build
from spatialc.runtime_sim.cgla import execute, sources
from spatialc.runtime_sim.cgla import run as runner


@pytest.mark.parametrize(
    ("precision", "machine"), [("fp16", None), ("fp32", "cgla-imax3-fpga"), ("q8_0", None)], ids=["fp16", "fp32-fpga", "q8_0"]
)
def test_tiny_model(precision: str, machine: str | None) -> None:
    case = build("tiny", Request())
    program = api.compile(case.module, case.args, target="cgla", precision=precision, machine=machine, verify=True)
    assert len(program.container.segments) < len(program.container.tables["instances"]["segment"])
    result = program.execute(case.args, interpreter=True)
    assert result.legal, result.violations[:5]
    assert result.cycles == program.predicted_cycles
    numerics = result.data.numerics
    assert numerics is not None
    assert numerics.passed, numerics
    assert {"pack", "unpack", "gather"} <= result.host_ops.keys()
    assert program.execute(timing_only=True).cycles == result.cycles


def _tapes(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """The kinds of the steps of every tape made from now on."""
    made: list[list[str]] = []

    def make(*arguments: Any) -> list[sources.Step]:
        tape = sources.make_tape(*arguments)
        made.append([step.kind for step in tape])
        return tape

    monkeypatch.setattr(runner, "make_tape", make)
    return made


@pytest.mark.parametrize("lanes", [1, 2, 3])
def test_products_from_ddr_and_from_local_memory_are_the_same_bits(lanes: int, monkeypatch: pytest.MonkeyPatch) -> None:
    case = build("llama-tiny", Request(seq=12))
    machine = load_machine("cgla", None, {"lanes": lanes})
    program = api.compile(case.module, case.args, target="cgla", machine=machine).container
    inputs = {binding.name: case.args[0].numpy() for binding in program.bindings_of("input")}
    kinds = _tapes(monkeypatch)
    found = execute(program, inputs)
    assert (found.violations, found.order) == ((), "blocked")
    assert sum(kind == "products" for tape in kinds for kind in tape) > 4
    assert sum(kind == "launch" for tape in kinds for kind in tape) * 4 < sum(len(tape) for tape in kinds)
    exact = execute(program, inputs, exact=True)
    monkeypatch.setattr(runner, "make_tape", lambda report, _: sources.plain_tape(report))
    plain = execute(program, inputs)
    assert exact.order == "exact"
    for name, array in found.outputs.items():
        np.testing.assert_array_equal(plain.outputs[name], array)
        assert np.linalg.norm(array - exact.outputs[name]) < 5e-6 * np.linalg.norm(array)


def test_decode_steps_keep_the_cache() -> None:
    case = build("llama-tiny", Request(phase="decode", context=8))
    reference = build("llama-tiny", Request(phase="decode", context=8)).module
    session = api.compile(case.module, case.args, target="cgla", phase="decode", context=8).session()
    token = expected = case.args[0]
    for position in range(4):
        place = torch.tensor([position])
        result = session.run(token, place)
        assert result.legal, result.violations[:5]
        with torch.no_grad():
            scores = reference(expected, place)
        token, expected = (x.argmax(-1).reshape(1, 1) for x in (result.outputs[0], scores))
        assert torch.equal(token, expected)
