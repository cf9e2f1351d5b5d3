"""Loop nests on the array (`host_ops="none"`): recipes, layouts, reductions, looked-up rows; nothing runs on the host."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import nn

import spatialc
from spatialc.errors import UnsupportedOp
from spatialc.models import gpt2, llama

TINY = llama.LlamaConfig(vocabulary=64, width=64, layers=2, heads=4, kv_heads=2, hidden=96, context=32)


class Apply(nn.Module):
    """One function as a module."""

    def __init__(self, function: Callable[..., torch.Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, *inputs: torch.Tensor) -> torch.Tensor:
        return self.function(*inputs)


def on_array(module: nn.Module, *inputs: torch.Tensor, host_ops: str = "none") -> tuple[torch.Tensor, spatialc.api.Result]:
    """The first output and the result of a run in which every op has a place."""
    program = spatialc.compile(module.eval(), inputs, target="cgla", host_ops=host_ops)
    assert program.check() == []
    result = program.run(*inputs)
    assert result.legal, result.data.violations
    assert result.data.status == "ok"
    return result.outputs[0], result


SPREAD = torch.linspace(-9.0, 9.0, 257)
FUNCTIONS: dict[str, tuple[Callable[[torch.Tensor], torch.Tensor], torch.Tensor]] = {
    "exp": (torch.exp, torch.linspace(-80.0, 80.0, 257)),
    "far below": (torch.exp, torch.tensor([-float("inf"), -1e30, -200.0, 0.0])),
    "reciprocal": (torch.reciprocal, torch.cat([SPREAD - 20, SPREAD + 20, torch.tensor([1e-30, 1e30, -3e-7])])),
    "reciprocal root": (torch.rsqrt, torch.logspace(-30, 30, 99)),
    "root": (torch.sqrt, torch.cat([torch.zeros(1), torch.logspace(-20, 20, 98)])),
    "tanh": (torch.tanh, SPREAD),
    "erf": (torch.erf, SPREAD / 3),
    "sine": (torch.sin, torch.cat([SPREAD, torch.linspace(0, 20000, 257)])),
    "cosine": (torch.cos, torch.cat([SPREAD, torch.linspace(0, 20000, 257)])),
    "gelu": (nn.functional.gelu, SPREAD),
    "silu": (nn.functional.silu, SPREAD),
    "silu far out": (nn.functional.silu, SPREAD * 30),
    "tanh far out": (torch.tanh, SPREAD * 30),
    "sizes": (lambda x: torch.minimum(x.abs(), torch.maximum(-x, x * 0.5)), SPREAD),
    "chosen": (lambda x: torch.where(x < 0.25, x * 2, torch.where(x > 3, -x, x - 1)), SPREAD),
}


@pytest.mark.parametrize("name", sorted(FUNCTIONS))
def test_functions(name: str) -> None:
    function, values = FUNCTIONS[name]
    found, result = on_array(Apply(function), values.reshape(1, -1))
    wanted = function(values.double()).float().reshape(1, -1)
    error = (found - wanted).abs() / wanted.abs().clamp(min=1.0 if name not in ("exp", "reciprocal", "reciprocal root", "root") else 1e-38)
    assert float(error.max()) <= 1e-6, float(error.max())
    assert result.host_ops == {}


ODD = torch.tensor([[-0.0, 0.0, float("inf"), -float("inf"), 1e-39, -1e-39, 2.0, -2.0]])
COMPARISONS: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "less": lambda x: torch.where(x < 0, 1.0, 2.0),
    "greater": lambda x: torch.where(x > 0, 1.0, 2.0),
    "at most": lambda x: torch.where(x <= 0, 1.0, 2.0),
    "at least": lambda x: torch.where(x >= 0, 1.0, 2.0),
    "equal": lambda x: torch.where(x == 0, 1.0, 2.0),
    "different": lambda x: torch.where(x != 0, 1.0, 2.0),
    "equal to the other end": lambda x: torch.where(x == x.flip(-1), 1.0, 2.0),
}


@pytest.mark.parametrize("name", sorted(COMPARISONS))
def test_comparisons_of_zeros_and_infinities(name: str) -> None:
    found, _ = on_array(Apply(COMPARISONS[name]), ODD)
    assert torch.equal(found, COMPARISONS[name](ODD))


def test_functions_of_nan_are_nan() -> None:
    x = torch.tensor([[float("nan"), -float("nan"), 1.0, -1.0]])
    program = spatialc.compile(
        Apply(lambda x: torch.sigmoid(x) + torch.tanh(x) + torch.exp(x)).eval(), (x,), target="cgla", host_ops="none"
    )
    assert program.run(x).outputs[0].isnan().tolist() == [[True, True, False, False]]


LAYOUTS: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "transposed": lambda x: x.transpose(0, 2) + 1.0,
    "sum of a column": lambda x: x.sum(1),
    "largest": lambda x: x.amax(-1),
    "smallest": lambda x: x.amin(-1),
    "whole sum": lambda x: x.reshape(-1).sum(),
    "assembled": lambda x: torch.cat([x[:, :2], -x], 1),
    "turned": lambda x: x.flip(-1) * 2.0,
    "softmax": lambda x: torch.softmax(x, -1),
    "causal": lambda x: torch.softmax(torch.where(torch.tril(torch.ones(6, 8)) > 0, x, -float("inf")), -1),
    "norm": lambda x: nn.functional.layer_norm(x, (8,)),
}


@pytest.mark.parametrize("name", sorted(LAYOUTS))
def test_layouts_and_reductions(name: str) -> None:
    torch.manual_seed(3)
    x = torch.randn(4, 6, 8)
    found, result = on_array(Apply(LAYOUTS[name]), x)
    torch.testing.assert_close(found, LAYOUTS[name](x), rtol=2e-6, atol=2e-6)
    assert result.host_ops == {}


def put(x: torch.Tensor, place: int) -> torch.Tensor:
    y = x.clone()
    y[place] = x.sum()
    return y


PARTS: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "after": lambda x: torch.cat([x, x[:1]]),
    "before": lambda x: torch.cat([x[2:3], x]),
    "between": lambda x: torch.stack([x.sum(), x.amax(), x.amin()]),
    "into the middle": lambda x: put(x, 3),
    "into the last": lambda x: put(x, 7),
    "into the first of two": lambda x: put(x[:2], 0),
    "two": lambda x: torch.stack([x[5], x[1]]),
    "every other": lambda x: torch.stack([x[:3], -x[3:6]], -1),
}


@pytest.mark.parametrize("name", sorted(PARTS))
def test_single_elements_leave_their_neighbours_alone(name: str) -> None:
    x = torch.arange(1.0, 9.0)
    found, result = on_array(Apply(PARTS[name]), x)
    assert torch.equal(found, PARTS[name](x))
    assert result.host_ops == {}


def test_a_nest_larger_than_a_local_memory_is_cut() -> None:
    torch.manual_seed(4)
    x, y = torch.randn(40, 600), torch.randn(600)
    found, result = on_array(Apply(lambda a, b: a * b), x, y)
    torch.testing.assert_close(found, x * y, rtol=0, atol=0)
    assert result.host_ops == {}


@pytest.mark.parametrize("name", ["gpt2", "llama"])
def test_whole_models(name: str) -> None:
    torch.manual_seed(0)
    config = gpt2.GPT2Config(vocabulary=64, width=64, heads=4, layers=2, context=32)
    model = gpt2.GPT2(config) if name == "gpt2" else llama.Llama(TINY)
    ids = torch.randint(0, 64, (1, 9))
    with torch.no_grad():
        wanted = model(ids)
    for host_ops, left in (("none", {}), ("embedding", {"gather": 1})):
        found, result = on_array(model, ids, host_ops=host_ops)
        assert result.host_ops == left
        assert float((found - wanted).norm() / wanted.norm()) < 1e-2


def test_decoding_with_a_cache_equals_the_published_mode() -> None:
    torch.manual_seed(0)
    module = llama.LlamaDecode(llama.Llama(TINY), 1, 12).eval()
    example = (torch.zeros(1, 1, dtype=torch.int64), torch.tensor([0]))
    sessions = [spatialc.compile(module, example, target="cgla", host_ops=mode).session() for mode in ("none", "published")]
    for position in range(3):
        ids = torch.randint(0, 64, (1, 1))
        alone, hosted = (session.run(ids, torch.tensor([position])) for session in sessions)
        assert alone.legal and alone.host_ops == {} and hosted.host_ops
        torch.testing.assert_close(alone.outputs[0], hosted.outputs[0], rtol=1e-4, atol=1e-5)


def test_both_evaluations_are_bit_equal_and_programs_are_deterministic() -> None:
    torch.manual_seed(1)
    x = torch.randn(5, 24)
    module = Apply(lambda a: nn.functional.gelu(a) / a.abs().sum(-1, keepdim=True))
    program = spatialc.compile(module, (x,), target="cgla", host_ops="none")
    fast, exact = program.execute((x,)), program.execute((x,), exact=True)
    np.testing.assert_array_equal(fast.outputs[0].numpy(), exact.outputs[0].numpy())
    assert program.digest() == spatialc.compile(module, (x,), target="cgla", host_ops="none").digest()


def test_what_has_no_place_is_listed_whole() -> None:
    module = Apply(lambda x: torch.cumsum(torch.topk(x, 3).values, -1) + torch.log1p(x[..., :3]))
    with pytest.raises(UnsupportedOp, match="use host_ops='published'") as caught:
        spatialc.compile(module, (torch.rand(2, 8),), target="cgla", host_ops="none")
    text = str(caught.value)
    assert "sort" in text and "scan" in text and "log1p of f32" in text
    assert len(caught.value.ops) >= 3
