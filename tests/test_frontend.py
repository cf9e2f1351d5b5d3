"""The walk from a module to a graph: provenance, constants, states, bindings, refusals, and properties over shapes and types."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import nn

from spatialc.errors import BadInput, UnsupportedOp
from spatialc.frontend import Lowered, lower_module
from spatialc.ir.graph import Constant, Contract, Gather, Input, Map, Move, Scatter, State
from spatialc.ir.interpret import interpret
from spatialc.ir.verify import verify

QUICK = settings(max_examples=40, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])


def array(tensor: torch.Tensor) -> np.ndarray:
    return (tensor.float() if tensor.dtype is torch.bfloat16 else tensor).detach().numpy()


def check(module: nn.Module, args: tuple[Any, ...], tolerance: float = 1e-5, kwargs: dict[str, Any] | None = None) -> Lowered:
    """Lower, verify, interpret and compare with torch; inputs are tensors at the top level."""
    lowered = lower_module(module, args, kwargs)
    assert verify(lowered.graph) == []
    inputs = {b.name: array(eval(b.path, {"args": args, "kwargs": kwargs or {}})) for b in lowered.input_bindings}
    outputs, _ = interpret(lowered.graph, inputs, store=lowered.store)
    with torch.no_grad():
        expected = [t for t in torch.utils._pytree.tree_leaves(module(*args, **(kwargs or {}))) if isinstance(t, torch.Tensor)]
    assert len(outputs) == len(expected)
    for got, want in zip(outputs, expected, strict=True):
        assert got.shape == want.shape
        np.testing.assert_allclose(got, array(want), rtol=tolerance, atol=tolerance)
    return lowered


class Fn(nn.Module):
    """A function as a module."""

    def __init__(self, function: Any) -> None:
        super().__init__()
        self.function = function

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        return self.function(*args, **kwargs)


# -- provenance, constants, bindings ----------------------------------------------------------------------------------------------


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.proj = nn.Linear(4, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.relu(self.proj(x))


class Stack(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.blocks = nn.ModuleList([Block(), Block()])

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for block in self.blocks:
            x = block(x)
        return x


def test_provenance_names_module_line_and_op() -> None:
    graph = lower_module(Stack(), (torch.randn(2, 4),)).graph
    contracts = [n for n in graph.nodes if isinstance(n, Contract)]
    assert [n.origin.module for n in contracts] == ["blocks.0.proj", "blocks.1.proj"]
    assert {n.origin.op for n in contracts} == {"aten.linear.default"}
    relu = next(n for n in graph.nodes if n.origin.op == "aten.relu.default")
    assert relu.origin.module == "blocks.0" and relu.origin.source.startswith("test_frontend.py:") and relu.origin.fx == ("relu",)


class Tied(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(9, 4)
        self.head = nn.Linear(4, 9, bias=False)
        self.head.weight = self.table.weight
        self.register_buffer("scale", torch.tensor([2.0, 3.0, 4.0, 5.0])[1:3])
        self.register_buffer("again", self.scale)

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        return self.head(self.table(ids) * torch.cat([self.scale, self.again]))


def test_tied_tensors_are_one_constant() -> None:
    lowered = check(Tied(), (torch.tensor([[1, 2, 8]]),))
    constants = [n for n in lowered.graph.nodes if isinstance(n, Constant)]
    assert sorted(n.ref.key for n in constants) == ["scale", "table.weight"]
    assert lowered.vocabulary_axis and not lowered.class_axis
    (ids,) = lowered.graph.inputs
    assert ids.range == (0, 8)


def test_constants_are_views_of_torchs_memory() -> None:
    module = Tied()
    value = lower_module(module, (torch.tensor([[1]]),)).store.get("table.weight")
    assert np.shares_memory(value, module.table.weight.detach().numpy())


def test_meta_tensors_have_a_key_and_no_value() -> None:
    with torch.device("meta"):
        module = Stack()
        x = torch.randn(2, 4)
    lowered = lower_module(module, (x,))
    assert verify(lowered.graph) == []
    assert lowered.graph.constants and not any(lowered.store.has(n.ref.key) for n in lowered.graph.constants)
    with pytest.raises(BadInput, match="has no value"):
        interpret(lowered.graph, {"x": np.zeros((2, 4), np.float32)}, store=lowered.store)


def test_bf16_weights_are_widened_when_read() -> None:
    module = nn.Linear(4, 3).to(torch.bfloat16)
    lowered = check(module, (torch.randn(2, 4).to(torch.bfloat16),), 1e-2)
    assert lowered.store.get("weight").dtype == np.float32


def test_bindings_follow_the_pytrees() -> None:
    def function(x: torch.Tensor, more: dict[str, Any], scale: float, unused: torch.Tensor, *, flag: bool, y: torch.Tensor) -> Any:
        first = x + more["z"][0] if flag else x
        return {"a": (first, None, 3), "b": x}, y * scale

    args = (torch.ones(2), {"z": [torch.ones(2)]}, 2.5, torch.ones(7))
    lowered = lower_module(Fn(function), args, {"flag": True, "y": torch.ones(3)})
    assert [(b.path, b.kind) for b in lowered.input_bindings] == [
        ("args[0]", "input"), ("args[1]['z'][0]", "input"), ("kwargs['y']", "input"),
    ]  # fmt: skip
    assert lowered.unused_inputs == {"args[3]"}
    assert [b.path for b in lowered.output_bindings] == ["out[0]['a'][0]", "out[0]['b']", "out[1]"]
    assert lowered.output_leaves == (0, (None,), (3,), 1, 2)
    assert lowered.output_bindings[2].dtype is torch.float32 and lowered.output_bindings[2].shape == (3,)


def test_training_flags_survive() -> None:
    module = nn.Sequential(nn.Linear(4, 4), nn.Dropout(0.5)).train()
    check(module.eval(), (torch.randn(2, 4),))
    module.train()
    lower_module(module, (torch.randn(2, 4),))
    assert module.training and module[1].training


# -- states -----------------------------------------------------------------------------------------------------------------------


class Counter(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("count", torch.tensor([1.0, 2.0]))
        self.register_buffer("fresh", torch.zeros(2))

    def forward(self, x: torch.Tensor, memory: torch.Tensor) -> torch.Tensor:
        self.count.add_(x)
        self.fresh.copy_(x)
        memory.mul_(2)
        return self.count + memory


def test_changed_buffers_and_arguments_become_states() -> None:
    module = Counter()
    lowered = lower_module(module, (torch.ones(2), torch.ones(2)))
    states = {n.name: n for n in lowered.graph.nodes if isinstance(n, State)}
    assert set(states) == {"count", "fresh", "memory"} == set(lowered.graph.updates)
    assert states["count"].initial == "count" and states["fresh"].initial is None
    assert [(b.name, b.kind) for b in lowered.input_bindings] == [("x", "input"), ("memory", "state")]
    with torch.no_grad():
        module(torch.ones(2), torch.ones(2))  # the initial value is a copy: running the module must not change it
    x, memory = np.array([1.0, 1.0], np.float32), np.array([5.0, 6.0], np.float32)
    outputs, states_after = interpret(lowered.graph, {"x": x}, states={"memory": memory}, store=lowered.store)
    np.testing.assert_array_equal(states_after["count"], [2.0, 3.0])
    np.testing.assert_array_equal(states_after["memory"], [10.0, 12.0])
    np.testing.assert_array_equal(states_after["fresh"], x)
    np.testing.assert_array_equal(outputs[0], [12.0, 15.0])


class CachedAttention(nn.Module):
    """One head of attention over a cache of fixed length; `position` is where this step writes."""

    def __init__(self, length: int = 6, width: int = 8) -> None:
        super().__init__()
        self.qkv = nn.Linear(width, 3 * width)
        self.register_buffer("keys", torch.zeros(1, length, width))
        self.register_buffer("values", torch.zeros(1, length, width))

    def forward(self, x: torch.Tensor, position: torch.Tensor) -> torch.Tensor:
        q, k, v = self.qkv(x).chunk(3, dim=-1)
        self.keys.index_copy_(1, position, k)
        self.values.index_copy_(1, position, v)
        mask = torch.arange(self.keys.shape[1]) <= position
        return nn.functional.scaled_dot_product_attention(q, self.keys, self.values, attn_mask=mask)


def test_decode_steps_with_a_cache_equal_torchs() -> None:
    torch.manual_seed(0)
    module = CachedAttention()
    steps = [torch.randn(1, 1, 8) for _ in range(4)]
    lowered = lower_module(module, (steps[0], torch.tensor([0])))
    assert verify(lowered.graph) == []
    writes = [lowered.graph[node] for node in lowered.graph.updates.values()]
    assert len(writes) == 2 and all(isinstance(n, Scatter) and isinstance(lowered.graph[n.operands[0]], State) for n in writes)
    states: dict[str, np.ndarray] = {}
    for number, x in enumerate(steps):
        inputs = {"x": x.numpy(), "position": np.array([number])}
        (got,), states = interpret(lowered.graph, inputs, states=states, store=lowered.store)
        with torch.no_grad():
            want = module(x, torch.tensor([number]))
        np.testing.assert_allclose(got, want.numpy(), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(states["keys"], module.keys.numpy(), rtol=1e-6, atol=1e-6)


def test_static_cache_of_the_library_decodes_the_same_tokens() -> None:
    transformers = pytest.importorskip("transformers")
    config = transformers.LlamaConfig(
        vocab_size=64, hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2,
        max_position_embeddings=16,
    )  # fmt: skip
    torch.manual_seed(0)
    model = transformers.LlamaForCausalLM(config).eval()

    class Step(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = model
            for n in range(2):
                for kind in ("k", "v"):
                    self.register_buffer(f"{kind}{n}", torch.zeros(1, 2, 16, 8))

        def forward(self, ids: torch.Tensor, position: torch.Tensor) -> torch.Tensor:
            cache = transformers.StaticCache(config=config, max_cache_len=16)
            for n, layer in enumerate(cache.layers):
                layer.lazy_initialization(self.k0[:, :, :1], self.v0[:, :, :1])
                layer.keys, layer.values = getattr(self, f"k{n}"), getattr(self, f"v{n}")
                layer.cumulative_length = position[0].clone()
            return model(input_ids=ids, past_key_values=cache, position_ids=position[None], use_cache=True).logits

    lowered = lower_module(Step(), (torch.tensor([[3]]), torch.tensor([0])))
    assert verify(lowered.graph) == [] and set(lowered.graph.updates) == {"k0", "v0", "k1", "v1"}
    ids, states = [3], {}
    for n in range(6):
        inputs = {"ids": np.array([[ids[-1]]]), "position": np.array([n])}
        (logits,), states = interpret(lowered.graph, inputs, states=states, store=lowered.store)
        ids.append(int(logits[0, -1].argmax()))
    with torch.no_grad():
        want = model.generate(torch.tensor([[3]]), max_new_tokens=6, do_sample=False, pad_token_id=0, eos_token_id=None)
    assert ids == want[0].tolist()


# -- refusals ----------------------------------------------------------------------------------------------------------------------


class Unknown(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner = Fn(lambda x: torch.linalg.inv(x) + torch.randn(3, 3))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.inner(x)
        return torch.special.i0(y) + x[x > 0].sum()


def test_every_missing_op_is_named_at_once() -> None:
    with pytest.raises(UnsupportedOp) as error:
        lower_module(Unknown(), (torch.eye(3),))
    lines = str(error.value).splitlines()
    number = Unknown.forward.__code__.co_firstlineno
    inner = Fn.forward.__code__.co_firstlineno + 1
    assert lines == [
        "4 ops cannot be compiled:",
        f"  aten.linalg_inv_ex.default in inner (test_frontend.py:{inner}): "
        "dense linear algebra (factorisations, inverses, eigenvalues) has no form in the IR",
        f"  aten.randn.default in inner (test_frontend.py:{inner}): it draws random numbers",
        f"  aten.i0.default in the root module (test_frontend.py:{number + 2}): "
        "special functions (gamma, Bessel, inverse error function) have no form in the IR",
        f"  aten.index.Tensor in the root module (test_frontend.py:{number + 2}): the shape (u0) depends on data",
    ]
    assert len(error.value.ops) == 4


def test_a_custom_op_without_lowering_is_named() -> None:
    @torch.library.custom_op("spatialc_test::mystery", mutates_args=())
    def mystery(x: torch.Tensor) -> torch.Tensor:
        return x.clone()

    mystery.register_fake(torch.empty_like)
    message = r"1 op cannot be compiled:\n  spatialc_test\.mystery\.default .*no lowering is registered for it"
    with pytest.raises(UnsupportedOp, match=message):
        lower_module(Fn(lambda x: mystery(x) + 1), (torch.ones(3),))


@pytest.mark.parametrize(
    ("function", "reason"),
    [
        (lambda x: torch.nn.functional.max_pool1d(x, 2, return_indices=True)[1], "result 1 has no form|positions that max pooling gives"),
        (lambda x: torch.complex(x, x), "a complex result cannot be returned"),
        (lambda x: x[:, :0], "a result without elements cannot be returned"),
        (lambda x: x.view(torch.int32), "reading the bits of f32 as i32"),
        (lambda x: torch.nn.functional.dropout(x, 0.5, True), "draws random numbers"),
        (lambda x: torch.median(x), "order statistics"),
    ],
)
def test_refusals_say_why(function: Any, reason: str) -> None:
    with pytest.raises(UnsupportedOp, match=reason):
        lower_module(Fn(function), (torch.ones(3, 4),))


def test_data_dependent_control_flow_is_refused_in_one_sentence() -> None:
    with pytest.raises(UnsupportedOp, match=r"^torch\.export cannot trace Fn: "):
        lower_module(Fn(lambda x: x + 1 if x.sum() > 0 else x), (torch.ones(3),))


def test_wrong_arguments_are_bad_input() -> None:
    with pytest.raises(BadInput, match="Linear cannot be called with these inputs"):
        lower_module(nn.Linear(3, 3), (torch.ones(3), torch.ones(3)))


# -- shape of what comes out ---------------------------------------------------------------------------------------------------------


def test_views_are_moves_and_masks_are_never_stored() -> None:
    def function(q: torch.Tensor) -> torch.Tensor:
        return nn.functional.scaled_dot_product_attention(q, q, q, is_causal=True).transpose(1, 2).reshape(2, 5, 12)

    lowered = check(Fn(function), (torch.randn(2, 3, 5, 4),))
    kinds = [type(n) for n in lowered.graph.nodes if not isinstance(n, Input)]
    assert set(kinds) <= {Contract, Map, Move, *[type(n) for n in lowered.graph.nodes if n.kind == "Reduce"]}
    assert not lowered.graph.constants and kinds.count(Contract) == 2
    assert all(n.is_view for n in lowered.graph.nodes if isinstance(n, Move))


def test_grouped_queries_are_an_access() -> None:
    def function(q: torch.Tensor, k: torch.Tensor) -> torch.Tensor:
        return nn.functional.scaled_dot_product_attention(q, k, k, enable_gqa=True)

    lowered = check(Fn(function), (torch.randn(1, 6, 5, 4), torch.randn(1, 2, 7, 4)))
    scores = next(n for n in lowered.graph.nodes if isinstance(n, Contract))
    assert len(scores.axes) == 5 and scores.groups[1] == (0, 1)  # key head, query within it: no repeated keys


def test_experts_are_gathered_for_one_contract() -> None:
    pytest.importorskip("transformers.integrations.moe")

    def function(x: torch.Tensor, w: torch.Tensor, ends: torch.Tensor) -> torch.Tensor:
        return torch.ops.transformers.grouped_mm_fallback(x, w, ends)

    lowered = check(Fn(function), (torch.randn(7, 4), torch.randn(3, 4, 5), torch.tensor([2, 2, 6])))
    gather = next(n for n in lowered.graph.nodes if isinstance(n, Gather))
    assert [type(lowered.graph[u]) for u in lowered.graph.users[gather.id]] == [Contract]


# -- properties over shapes and types ------------------------------------------------------------------------------------------------

EXTENTS = st.lists(st.integers(1, 6), min_size=1, max_size=4)
DTYPES = st.sampled_from([torch.float32, torch.float64, torch.bfloat16, torch.float16, torch.int64, torch.int32, torch.int8, torch.bool])
ROUNDING = {torch.bfloat16: 1e-2, torch.float16: 1e-3, torch.float32: 1e-5, torch.float64: 1e-6}


def tensor_of(shape: list[int], dtype: torch.dtype, seed: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    if dtype.is_floating_point:
        return torch.randn(shape, generator=generator).to(dtype)
    return torch.randint(0, 2 if dtype is torch.bool else 7, shape, generator=generator).to(dtype)


@QUICK
@given(st.data())
def test_reshapes_keep_row_major_order(data: st.DataObject) -> None:
    shape = data.draw(EXTENTS)
    factors = data.draw(st.permutations([p for n in shape for p in ([2, n // 2] if n % 2 == 0 else [n])]))
    cuts = sorted(data.draw(st.sets(st.integers(0, len(factors)), max_size=3)) | {0, len(factors)})
    target = [int(np.prod(factors[low:high])) for low, high in pairwise(cuts)]
    order = data.draw(st.permutations(range(len(shape))))
    check(Fn(lambda x: x.reshape(target) + x.permute(order).reshape(target)), (torch.arange(float(np.prod(shape))).reshape(shape),), 0.0)


@QUICK
@given(EXTENTS, st.data(), DTYPES, DTYPES)
def test_promotion_and_broadcasting(shape: list[int], data: st.DataObject, first: torch.dtype, second: torch.dtype) -> None:
    other = [data.draw(st.sampled_from([1, n])) for n in shape[data.draw(st.integers(0, len(shape))) :]]
    x, y = tensor_of(shape, first, 1), tensor_of(other, second, 2)

    def function(x: torch.Tensor, y: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return x + y, x * y, torch.maximum(x, y), x < y, torch.where(x > y, x, y), x / (y + 1), x * 0.1

    common = torch.promote_types(first, second)
    check(Fn(function), (x, y), max(ROUNDING.get(t, 1e-6) for t in (common, first)))


@QUICK
@given(EXTENTS, st.data(), st.sampled_from([torch.float32, torch.bfloat16, torch.int64]))
def test_reductions_over_any_dimensions(shape: list[int], data: st.DataObject, dtype: torch.dtype) -> None:
    dims = sorted(data.draw(st.sets(st.integers(0, len(shape) - 1), min_size=1)))
    keep = data.draw(st.booleans())

    def function(x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        real = x if x.is_floating_point() else x.float()
        moments = real.mean(dims, keep), real.var(dims, correction=0)
        return x.sum(dims, keep), *moments, x.amax(dims, keep), real.softmax(dims[0]), x.argmin(dims[0])

    check(Fn(function), (tensor_of(shape, dtype, 3),), 2 * ROUNDING.get(dtype, 1e-5))


@settings(QUICK, max_examples=12)
@given(st.data())
def test_slices_pads_and_writes(data: st.DataObject) -> None:
    shape = data.draw(st.lists(st.integers(2, 7), min_size=1, max_size=3))
    dim = data.draw(st.integers(0, len(shape) - 1))
    start = data.draw(st.integers(0, shape[dim] - 1))
    step = data.draw(st.integers(1, 3))
    pads = data.draw(st.lists(st.integers(-1, 2), min_size=2, max_size=2))

    def function(x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        piece = x.narrow(dim, start, shape[dim] - start)[(slice(None),) * dim + (slice(0, None, step),)]
        written = x.clone()
        written[(slice(None),) * dim + (slice(start, None, step),)] = piece * 2
        return piece, written, nn.functional.pad(x, pads, value=3.0), x.roll(start, dim), torch.cat([x, piece], dim), x.flip(dim)

    if shape[-1] + sum(pads) > 0:
        check(Fn(function), (torch.randn(shape),))


@QUICK
@given(st.data())
def test_convolutions(data: st.DataObject) -> None:
    rank = data.draw(st.integers(1, 2))
    groups, per_in, per_out = (data.draw(st.integers(1, 3)) for _ in range(3))
    kernel = [data.draw(st.integers(1, 3)) for _ in range(rank)]
    stride = [data.draw(st.integers(1, 3)) for _ in range(rank)]
    padding = [data.draw(st.integers(0, 2)) for _ in range(rank)]
    dilation = [data.draw(st.integers(1, 2)) for _ in range(rank)]
    transposed = data.draw(st.booleans())
    extents = [data.draw(st.integers(5, 8)) for _ in range(rank)]
    x = torch.randn(2, groups * per_in, *extents)
    weight = torch.randn(groups * per_in, per_out, *kernel) if transposed else torch.randn(groups * per_out, per_in, *kernel)
    bias = torch.randn(groups * per_out)

    def function(x: torch.Tensor, w: torch.Tensor, c: torch.Tensor) -> torch.Tensor:
        return torch.ops.aten.convolution(x, w, c, stride, padding, dilation, transposed, [0] * rank, groups)

    check(Fn(function), (x, weight, bias), 1e-4)


@QUICK
@given(st.data())
def test_advanced_indexing_puts_dimensions_where_torch_does(data: st.DataObject) -> None:
    shape = [data.draw(st.integers(2, 4)) for _ in range(data.draw(st.integers(1, 4)))]
    common = data.draw(st.lists(st.integers(1, 3), max_size=2))
    indices: list[torch.Tensor | None] = []
    for extent in shape:
        if data.draw(st.booleans()):
            own = [data.draw(st.sampled_from([1, n])) for n in common]
            indices.append(torch.from_numpy(np.random.default_rng(extent).integers(-extent, extent, own)))
        else:
            indices.append(None)
    if all(i is None for i in indices):
        return
    x = torch.randn(shape)
    found = [i for i in indices if i is not None]

    def bound(given: tuple[torch.Tensor, ...]) -> list[torch.Tensor | None]:
        rest = iter(given)
        return [None if i is None else next(rest) for i in indices]

    def function(x: torch.Tensor, *given: torch.Tensor) -> tuple[torch.Tensor, ...]:
        read = torch.ops.aten.index.Tensor(x, bound(given))
        return read, torch.ops.aten.index_put.default(x, bound(given), torch.ones(()) * 0.5, True)

    check(Fn(function), (x, *found))
