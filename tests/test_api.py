"""The public interface: programs, sessions, comparisons, and the check for other people's test suites."""

from __future__ import annotations

import importlib
from pathlib import Path

import pytest
import torch

import spatialc
from spatialc.models.zoo import Request, build
from spatialc.testing import assert_equivalent

TARGETS = ("tsp", "cgla", "wafer")


class Accumulate(torch.nn.Module):
    """A buffer that does not start at zero and changes with every call."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("total", torch.arange(8.0) + 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.total.add_(x)
        return self.total * 2


class Block(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.linear = torch.nn.Linear(16, 24)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.gelu(self.linear(x)).softmax(-1)


@pytest.mark.parametrize("target", TARGETS)
def test_a_session_keeps_state_and_starts_where_the_module_starts(target: str, tmp_path: Path) -> None:
    x = torch.ones(8)
    program = spatialc.compile(Accumulate(), (x,), target=target)
    session = program.session()
    module = Accumulate()
    for _ in range(3):
        result = session.run(x)
        assert result.legal
        torch.testing.assert_close(result.outputs[0], module(x))
    session.reset()
    torch.testing.assert_close(session.run(x).outputs[0], Accumulate()(x))
    program.save(tmp_path / "a.spx")
    torch.testing.assert_close(spatialc.load(tmp_path / "a.spx").session().run(x).outputs[0], Accumulate()(x))


@pytest.mark.parametrize("target", TARGETS)
def test_greedy_decoding_with_a_cache_says_torchs_tokens(target: str) -> None:
    case = build("tiny", Request(phase="decode", context=32))
    session = spatialc.compile(case.module, case.args, target=target).session()
    tokenizer = case.tokenizer
    assert tokenizer is not None
    ids = tokenizer.encode("one plus two is")
    said: list[int] = []
    for position in range(len(ids) + 6):
        token = ids[position] if position < len(ids) else said[-1]
        result = session.run(torch.tensor([[token]]), torch.tensor([position]))
        assert result.legal
        said.append(int(result.outputs[0][0, -1].argmax()))
    assert tokenizer.decode(said[len(ids) - 1 :]) == " three."


@pytest.mark.parametrize(("target", "precision"), [("cgla", "fp32"), ("cgla", "q8_0"), ("wafer", "fp32")])
def test_other_number_formats(target: str, precision: str) -> None:
    x = torch.randn(4, 16, generator=torch.Generator().manual_seed(1))
    result = assert_equivalent(Block().eval(), (x,), target=target, precision=precision)
    assert result.to_dict()["precision"] == precision
    assert result.data.numerics is not None and result.data.numerics.tolerance == (1e-4 if precision == "fp32" else 5e-2)


@pytest.mark.parametrize("target", TARGETS)
def test_assert_equivalent_passes_and_fails(target: str) -> None:
    x = torch.randn(4, 16, generator=torch.Generator().manual_seed(1))
    result = assert_equivalent(Block().eval(), (x,), target=target)
    assert result.legal
    assert result.cycles == result.to_dict()["predicted_cycles"]
    with pytest.raises(
        AssertionError, match=rf"{target} differs from torch: relative L2 error .*, allowed 0.0e\+00\noutput 0 \[4, 24\], worst"
    ) as caught:
        assert_equivalent(Block().eval(), (x,), target=target, tolerance=0.0)
    assert "got " in str(caught.value)


def test_what_cannot_run_is_a_row_of_the_comparison() -> None:
    x = torch.randn(4, 16)
    (row,) = spatialc.compare(torch.nn.LogSigmoid().eval(), (x,), targets=("cgla",), host_ops="none")
    assert (row.data.status, row.data.exit_code()) == ("unsupported", 3)
    big = torch.nn.Linear(4096, 4096, bias=False)
    (row,) = spatialc.compare(big.eval(), (torch.randn(1, 4096),), targets=("wafer",), region=(8, 8))
    assert (row.data.status, row.data.exit_code()) == ("infeasible", 3)
    assert row.data.error is not None
    assert row.data.error["gap"] > 0
    with pytest.raises(spatialc.BadInput, match="there was no run on wafer"):
        _ = row.cycles


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((torch.zeros(3, 16),), r"args\[0\] has shape \[3, 16\], the program was compiled for \[4, 16\]"),
        ((torch.zeros(4, 16, dtype=torch.long),), r"args\[0\] holds int64 values, the program takes f32"),
        ((), r"the program needs args\[0\]; its inputs are args\[0\]: f32\[4, 16\]"),
        ((torch.zeros(4, 16), torch.zeros(1)), r"the program does not take args\[1\]"),
    ],
)
def test_wrong_arguments(arguments: tuple[torch.Tensor, ...], message: str) -> None:
    program = spatialc.compile(Block().eval(), (torch.zeros(4, 16),), target="cgla")
    with pytest.raises(spatialc.BadInput, match=message):
        program.run(*arguments)


@pytest.mark.parametrize("target", TARGETS)
def test_unknown_options_are_named(target: str) -> None:
    with pytest.raises(spatialc.BadInput, match="host_ops is 'some'; it may be published, embedding, none"):
        spatialc.compile(Block().eval(), (torch.zeros(4, 16),), target=target, host_ops="some")


def test_integer_outputs_have_torchs_type() -> None:
    class Largest(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x.argmax(-1)

    x = torch.randn(4, 16, generator=torch.Generator().manual_seed(2))
    for target in TARGETS:
        result = spatialc.compile(Largest(), (x,), target=target).run(x)
        assert torch.equal(result.outputs[0], x.argmax(-1)), target


@pytest.mark.parametrize("target", TARGETS)
def test_a_session_judges_once_and_its_runs_are_apart(target: str, monkeypatch: pytest.MonkeyPatch) -> None:
    module, first, second = Block().eval(), torch.randn(4, 16), torch.randn(4, 16)
    program = spatialc.compile(module, (first,), target=target)
    simulator = importlib.import_module(f"spatialc.runtime_sim.{target}")
    judged = []
    original = simulator.prepare
    monkeypatch.setattr(simulator, "prepare", lambda *a, **k: judged.append(target) or original(*a, **k))
    session = program.session()
    runs = [session.run(x) for x in (first, second, first)]
    assert judged == [target]
    for run, x in zip(runs, (first, second, first), strict=True):
        fresh = program.run(x)
        assert torch.equal(run.outputs[0], fresh.outputs[0])
        assert (run.data.status, run.cycles) == ("ok", fresh.cycles)
