"""Dimensions that readers walk by digits are split where no reader's digits carry, and nothing else changes."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from spatialc import api
from spatialc.ir.interpret import interpret
from spatialc.ir.store import ConstantStore
from spatialc.ir.text import parse
from spatialc.ir.verify import require
from spatialc.passes.digits import split_digits

CASES = {
    "a value and what it comes from": (
        """
%0: f32[3,640] = input "x"
%1: f32[3,640] = map [i,j] over i:3 j:640: (%0[i,j] * 2)
%2: f32[3,640] = map [i,j] over i:3 j:640: (%1[i,j] + 1)
%3: f32[3,16,40] = map [i,j,k] over i:3 j:16 k:40: (%2[i,j+16*k] * %1[i,j+16*k])
output %3
""",
        {1: (3, 40, 16), 2: (3, 40, 16), 3: (3, 16, 40)},
    ),
    "a contraction that sums over one digit, and a group of axes": (
        """
%0: f32[640,32] = input "x"
%1: f32[640,32] = map [(i j),k] over i:20 j:32 k:32: %0[i+20*j,k]
%2: f32[16,32,32] = contract [i,j,k] over i:16 j:32 k:32 l:40: %1[i+16*l,j] * %1[i+16*l,k] acc f32
output %2
""",
        {1: (40, 16, 32)},
    ),
    "digits that carry": (
        """
%0: f32[640] = input "x"
%1: f32[640] = map [i] over i:640: (%0[i] * 2)
%2: f32[16,39] = map [i,j] over i:16 j:39: (%1[i+16*j+5] + 1)
output %2
""",
        {1: (640,)},
    ),
    "narrow digits": (
        """
%0: f32[640] = input "x"
%1: f32[640] = map [i] over i:640: (%0[i] * 2)
%2: f32[4,160] = map [i,j] over i:4 j:160: (%1[i+4*j] + 1)
output %2
""",
        {1: (640,)},
    ),
    "positions that are results": (
        """
%0: f32[640] = input "x"
%1: f32[640] = map [i] over i:640: (%0[i] * 2)
%2: i64[] = reduce argmax [] over i:640: %1[i]
%3: f32[16,40] = map [i,j] over i:16 j:40: (%1[i+16*j] + 1)
output %2, %3
""",
        {1: (640,)},
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_dimensions_are_split_by_the_digits_of_their_readers(name: str) -> None:
    text, shapes = CASES[name]
    graph = parse(text)
    require(graph, "the case")
    made = split_digits(graph)
    require(made, "digits")
    assert {number: made[number].shape for number in shapes} == shapes
    x, store = np.random.default_rng(0).standard_normal(graph.inputs[0].shape).astype("f4"), ConstantStore()
    for got, want in zip(interpret(made, {"x": x}, store=store)[0], interpret(graph, {"x": x}, store=store)[0], strict=True):
        np.testing.assert_allclose(got, want, rtol=1e-6)


class Buckets(torch.nn.Module):
    """Scores plus values looked up in buckets of relative positions, heads innermost, seen in another order than they were made in."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.inner = torch.nn.Linear(64, 512)
        self.register_buffer("index", torch.randint(0, 32, (1024, 32)))

    def forward(self, x: torch.Tensor, queries: torch.Tensor, keys: torch.Tensor) -> torch.Tensor:
        z = self.inner(x).view(2, 2, 16, 32, 16).permute(0, 2, 1, 4, 3).reshape(1024, 32)
        z = torch.gather(z, 1, self.index).view(2, 2, 16, 16, 32)
        return torch.softmax((queries @ keys).view(2, 2, 16, 16, 32) + z, -1)


def test_a_wafer_holds_what_is_cut_by_inner_digits() -> None:
    module = Buckets()
    inputs = 0.3 * torch.randn(2, 2, 16, 64), torch.randn(64, 16, 4), torch.randn(64, 4, 32)
    result = api.compile(module, inputs, target="wafer", region=(12, 84)).run(*inputs)
    assert result.data.status == "ok"
