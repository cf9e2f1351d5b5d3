"""TSP programs of several sections: values that are read before and after a repeat, and states with several places, over two runs."""

from __future__ import annotations

import copy

import pytest
import torch

import spatialc

WIDTH = 64
FORMS = ("skip", "both", "counter", "swap", "stores")


class Layer(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.up, self.down = torch.nn.Linear(WIDTH, 2 * WIDTH), torch.nn.Linear(2 * WIDTH, WIDTH)
        self.register_buffer("kept", torch.zeros(4, WIDTH))

    def forward(self, x: torch.Tensor, count: torch.Tensor | None = None, store: bool = False) -> torch.Tensor:
        if store:
            now = self.kept * 0.5 + x
            self.kept.copy_(now)
            x = torch.tanh(now)
        x = x + self.down(torch.relu(self.up(x)))
        return x if count is None else torch.tanh(x * count)


class Model(torch.nn.Module):
    """Six layers between two products; `form` says what is read around them."""

    def __init__(self, form: str) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.form = form
        self.layers = torch.nn.ModuleList(Layer() for _ in range(6))
        self.head = torch.nn.Linear(WIDTH, WIDTH)
        self.register_buffer("count", torch.ones(1, WIDTH))

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        x = x0 = torch.tanh(self.head(x))
        for layer in self.layers:
            x = layer(x, self.count if self.form == "counter" else None, self.form in ("swap", "stores"))
        if self.form == "counter":
            self.count.copy_(self.count * 0.5 + 1)
        if self.form == "swap":
            first, second = self.layers[0].kept.clone(), self.layers[1].kept.clone()
            self.layers[0].kept.copy_(second)
            self.layers[1].kept.copy_(first)
        return (x, x0) if self.form == "both" else (x * x0,) if self.form == "skip" else (self.head(x),)


@pytest.mark.parametrize(("form", "target"), [*((form, "tsp") for form in FORMS), ("counter", "cgla"), ("counter", "wafer")])
def test_two_runs_of_a_session_are_torchs(form: str, target: str) -> None:
    model = Model(form).eval()
    torch.manual_seed(1)
    inputs = [torch.randn(4, WIDTH) for _ in range(3)]
    session = spatialc.compile(copy.deepcopy(model), (inputs[0],), target=target).session()
    with torch.no_grad():
        for x in inputs:
            result, wanted = session.run(x), model(x)
            assert result.legal
            for got, want in zip(result.outputs, wanted, strict=True):
                assert float((got - want).norm() / want.norm()) < 2e-3


def test_states_are_compared_with_the_interpreter_too(monkeypatch: pytest.MonkeyPatch) -> None:
    model = Model("stores").eval()
    x = torch.randn(4, WIDTH)
    assert spatialc.compare(copy.deepcopy(model), (x,), targets=("tsp",))[0].data.status == "ok"
    from spatialc.backends.tsp import compile as backend

    monkeypatch.setattr(backend, "_states", lambda lowering, assembly, updates: None)
    assert spatialc.compare(copy.deepcopy(model), (x,), targets=("tsp",))[0].data.status == "wrong"


class Rotation(torch.nn.Module):
    """New values of states that are old ones: in another order of rows, and of one another; `old` leaves a repeat."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        for name in ("a", "b", "c"):
            self.register_buffer(name, torch.randn(4, WIDTH))
        self.layers = torch.nn.ModuleList(Layer() for _ in range(5))
        for layer in self.layers:
            layer.kept.normal_()

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        first, old = self.a.clone(), []
        self.a.copy_(self.b)
        self.b.copy_(first)
        self.c.copy_(torch.roll(self.c, 1, 0))
        for layer in self.layers:
            old.append(torch.roll(layer.kept, 1, 0))
            x = layer(x + layer.kept[:1])
            layer.kept.copy_(torch.cat([layer.kept[1:], x[:1]]))
        return x + self.c, self.a - self.b, torch.stack(old).sum(0)


@pytest.mark.parametrize("target", ["tsp", "cgla", "wafer"])
def test_new_values_of_states_may_be_old_ones(target: str) -> None:
    (result,) = spatialc.compare(Rotation().eval(), (torch.randn(4, WIDTH),), targets=(target,))
    assert result.data.status == "ok"
