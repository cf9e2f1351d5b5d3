"""Whole models through the passes and the CGLA backend: legal programs with torch's numbers."""

from __future__ import annotations

import pytest
import torch

from spatialc import api
from spatialc.models.zoo import Request, build


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
