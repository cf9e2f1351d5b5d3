"""The interpreter's arithmetic: rounding of half formats, casts, IEEE cases, lookups in blocks, states, and what it refuses."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch

from spatialc.errors import BadInput
from spatialc.ir import expr as ex
from spatialc.ir import interpret as module
from spatialc.ir.evaluate import erf, evaluate, round_bf16
from spatialc.ir.interpret import interpret
from spatialc.ir.interval import ExprIntervals, Interval, intervals_of
from spatialc.ir.store import ConstantStore
from spatialc.ir.text import parse
from spatialc.ir.types import BF16, BOOL, F16, F32, I8, I32, I64, DType

Array = np.ndarray[Any, Any]
STORE = ConstantStore()


def run(text: str, **inputs: Array) -> Array:
    """The first output of a graph."""
    return interpret(parse(text), inputs, store=STORE)[0][0]


def value(expr: ex.Expr, *args: Array) -> Array:
    shaped = [np.asarray(a) for a in args]
    axes = shaped[0].shape if shaped else ()
    return evaluate(expr, shaped, axes)


# --- arithmetic ------------------------------------------------------------------------------------------------------------------------


def test_erf_is_exact_in_f32() -> None:
    x = np.concatenate([np.linspace(-7, 7, 4001), [0.0, -0.0, 1e-30, math.inf, -math.inf]])
    exact = np.array([math.erf(v) for v in x])
    assert np.abs(erf(x) - exact).max() < 2e-14
    small = np.array([1e-12, 1e-5, 1e-3])
    np.testing.assert_allclose(erf(small), [math.erf(v) for v in small], rtol=1e-10)
    assert math.isnan(erf(np.array([math.nan]))[0])


@pytest.mark.parametrize(("dtype", "torch_type"), [(F16, torch.float16), (BF16, torch.bfloat16)])
def test_every_entry_rounds(dtype: DType, torch_type: torch.dtype) -> None:
    """(a * b + a) / b in a half format, as torch computes it operator by operator."""
    a, b = torch.randn(2, 1000, generator=torch.Generator().manual_seed(0)).to(torch_type)
    x, y = ex.arg(0, dtype), ex.arg(1, dtype)
    expr = ex.make("div", ex.make("add", ex.make("mul", x, y), x), y)
    held = [t.float().numpy().astype(dtype.array) for t in (a, b)]
    got = value(expr, *held)
    assert got.dtype == dtype.array
    np.testing.assert_array_equal(got.astype(np.float32), ((a * b + a) / b).float().numpy())


def test_bf16_rounds_to_even_and_keeps_nan() -> None:
    x = torch.tensor([1.0, 1.00390625, 1.01171875, 3.3895314e38, math.inf, -math.inf, math.nan, 1e-40])
    np.testing.assert_array_equal(round_bf16(x.numpy()), x.to(torch.bfloat16).float().numpy())


def test_casts_saturate_and_wrap() -> None:
    x = np.array([1e20, -1e20, math.nan, 2.9, -2.9], np.float32)
    assert value(ex.cast(ex.arg(0, F32), I8), x).tolist() == [127, -128, 0, 2, -2]
    assert value(ex.cast(ex.arg(0, F32), I64), x)[:3].tolist() == [2**63 - 1, -(2**63), 0]
    assert value(ex.cast(ex.arg(0, I32), I8), np.array([300, -129], np.int32)).tolist() == [44, 127]
    assert value(ex.cast(ex.arg(0, F32), BOOL), np.array([0.0, -0.0, math.nan, 0.5], np.float32)).tolist() == [False, False, True, True]


def test_special_values() -> None:
    x = np.array([-math.inf, 0.0, math.nan], np.float32)
    assert value(ex.make("exp", ex.arg(0, F32)), x)[0] == 0
    assert value(ex.make("log", ex.arg(0, F32)), x)[1] == -math.inf
    assert np.isnan(value(ex.make("sub", ex.arg(0, F32), ex.arg(0, F32)), x)[0])
    assert np.isnan(value(ex.make("max", ex.arg(0, F32), ex.const(1.0)), x)[2])
    assert value(ex.make("lt", ex.arg(0, F32), ex.const(1.0)), x).tolist() == [True, True, False]
    guarded = ex.make("select", ex.make("isnan", ex.arg(0, F32)), ex.const(0.0), ex.arg(0, F32))
    assert value(guarded, x).tolist() == [-math.inf, 0, 0]


def test_integer_division_floors() -> None:
    x = np.array([-7, 7, -1], np.int64)
    assert value(ex.make("idiv", ex.arg(0, I64), ex.const(2, I64)), x).tolist() == [-4, 3, -1]
    assert value(ex.make("mod", ex.arg(0, I64), ex.const(4, I64)), x).tolist() == [1, 3, 3]


# --- kinds -----------------------------------------------------------------------------------------------------------------------------


def test_convolution_is_a_contraction() -> None:
    x, w = torch.randn(2, 4, 9, 11), torch.randn(6, 2, 3, 3)
    want = torch.nn.functional.conv2d(x, w, stride=2, groups=2)
    got = run(
        '%0: f32[2,4,9,11] = input "x"\n%1: f32[6,2,3,3] = input "w"\n'
        "%2: f32[2,6,4,5] = contract [i,(j k),l,m] over i:2 j:2 k:3 l:4 m:5 n:2 o:3 p:3: "
        "%0[i,2*j+n,2*l+o,2*m+p] * %1[3*j+k,n,o,p] acc f32\noutput %2\n",
        x=x.numpy(),
        w=w.numpy(),
    )
    np.testing.assert_allclose(got, want.numpy(), rtol=1e-5, atol=1e-5)


def test_integer_contractions_are_exact() -> None:
    rng = np.random.default_rng(0)
    a, b = rng.integers(-128, 128, (2, 3, 700)).astype(np.int8)
    got = run(
        '%0: i8[3,700] = input "a"\n%1: i8[3,700] = input "b"\n'
        "%2: i32[3,3] = contract [i,j] over i:3 j:3 k:700: %0[i,k] * %1[j,k] acc i32\noutput %2\n",
        a=a,
        b=b,
    )
    np.testing.assert_array_equal(got, a.astype(np.int32) @ b.astype(np.int32).T)


def test_half_operands_accumulate_in_f32() -> None:
    a = np.full((1, 4096), 1.0, np.float16)
    text = '%0: f16[1,4096] = input "a"\n%1: f32[1,1] = contract [0,0] over i:4096: %0[0,i] * %0[0,i] acc f32\noutput %1\n'
    assert run(text, a=a)[0, 0] == 4096, "a half accumulator would stop at 2048"


def test_extremes_positions_and_nan() -> None:
    x = np.array([[1, 5, 5, 2], [3, math.nan, 9, math.nan]], np.float32)
    head = '%0: f32[2,4] = input "x"\n%1: '
    nest = "[i] over i:2 j:4: %0[i,j]\noutput %1\n"
    assert run(f"{head}i64[2] = reduce argmax {nest}", x=x).tolist() == [1, 1]
    assert run(f"{head}i64[2] = reduce argmin {nest}", x=x).tolist() == [0, 1]
    top = run(f"{head}f32[2] = reduce max {nest}", x=x)
    assert top[0] == 5 and np.isnan(top[1])
    order = run('%0: f32[2,4] = input "x"\n%1: i64[2,4] = sort %0 axis 1 descending first 4\noutput %1\n', x=x)
    assert order.tolist() == [[1, 2, 3, 0], [1, 3, 2, 0]], "stable, NaN is largest"


def test_the_last_of_equal_targets_wins() -> None:
    got = run(
        '%0: f32[3,2] = input "base"\n%1: f32[4,2] = input "source"\n%2: i64[4] = input "at"\n'
        "%3: f32[3,2] = scatter set %0 over i:4 j:2: [%2[i],j] <- %1[i,j]\noutput %3\n",
        base=np.zeros((3, 2), np.float32),
        source=np.arange(8, dtype=np.float32).reshape(4, 2),
        at=np.array([2, 0, 2, 0]),
    )
    assert got.tolist() == [[6, 7], [0, 0], [4, 5]]


def test_lookups_beside_offsets_and_strides() -> None:
    table = np.arange(60, dtype=np.float32).reshape(5, 12)
    got = run(
        '%0: f32[5,12] = input "t"\n%1: i64[3] = input "i"\n%2: f32[3,4] = gather [i,j] over i:3 j:4: %0[%1[i],2*j+3]\noutput %2\n',
        t=table,
        i=np.array([4, 0, 2]),
    )
    np.testing.assert_array_equal(got, table[[4, 0, 2], 3:10:2])
    got = run(
        '%0: f32[5,12] = input "t"\n%1: i64[3] = input "i"\n%2: f32[3] = gather [i] over i:3: %0[i+1,%1[i]]\noutput %2\n',
        t=table,
        i=np.array([11, 0, 5]),
    )
    assert got.tolist() == [23, 24, 41]


def test_a_linear_recurrence() -> None:
    rng = np.random.default_rng(0)
    a, b, h = rng.random((5, 3)), rng.random((5, 3)), rng.random(3)
    text = (
        '%0: f64[5,3] = input "a"\n%1: f64[5,3] = input "b"\n%2: f64[3] = input "h"\n'
        "%3: f64[5,3] = scan linear %0, %1, %2 axis 0\noutput %3\n"
    )
    got = run(text, a=a, b=b, h=h)
    for t in range(5):
        h = a[t] * h + b[t]
        np.testing.assert_allclose(got[t], h)


def test_routed_weights_are_gathered_in_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    text = (
        '%0: f32[4,6,8] = input "w"\n%1: i64[10] = input "expert"\n%2: f32[10,8] = input "x"\n'
        "%3: f32[10,6,8] = gather [i,j,k] over i:10 j:6 k:8: %0[%1[i],j,k]\n"
        "%4: f32[10,6] = contract [i,j] over i:10 j:6 k:8: %2[i,k] * %3[i,j,k] acc f32\noutput %4\n"
    )
    rng = np.random.default_rng(0)
    inputs = {"w": rng.random((4, 6, 8), np.float32), "expert": rng.integers(0, 4, 10), "x": rng.random((10, 8), np.float32)}
    whole = run(text, **inputs)
    monkeypatch.setattr(module, "_GATHER_BYTES", 3 * 6 * 8 * 4)
    parts: list[tuple[int, ...]] = []
    original = module.compute

    def spy(node: Any, operands: Any) -> Array:
        if node.kind == "Gather":
            parts.append(node.shape)
        return original(node, operands)

    monkeypatch.setattr(module, "compute", spy)
    np.testing.assert_allclose(run(text, **inputs), whole, rtol=1e-6)
    assert parts == [(3, 6, 8), (3, 6, 8), (3, 6, 8), (1, 6, 8)]


# --- the run as a whole ----------------------------------------------------------------------------------------------------------------

COUNTER = (
    '%0: f32[2] = state "total"\n%1: f32[2] = input "x"\n%2: f32[2] = map [i] over i:2: (%0[i] + %1[i])\n'
    '%3: f32[2] = state "other"\noutput %0\nupdate "total" = %2\n'
)


def test_states_are_updated_at_the_end() -> None:
    outputs, states = interpret(parse(COUNTER), {"x": np.ones(2, np.float32)}, store=STORE)
    assert outputs[0].tolist() == [0, 0] and states["total"].tolist() == [1, 1] and states["other"].tolist() == [0, 0]
    outputs, states = interpret(parse(COUNTER), {"x": np.ones(2, np.float32)}, states=states, store=STORE)
    assert outputs[0].tolist() == [1, 1] and states["total"].tolist() == [2, 2]


def test_upto_and_observe() -> None:
    seen: list[int] = []
    outputs, states = interpret(
        parse(COUNTER), {"x": np.ones(2, np.float32)}, store=STORE, upto=1, observe=lambda node, _: seen.append(node.id)
    )
    assert outputs[0].tolist() == [1, 1] and seen == [1] and states == {}


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ({}, "input 'x' is missing"),
        ({"x": np.ones(3)}, r"input 'x' has shape \[3\], the graph takes \[2\]"),
    ],
)
def test_wrong_inputs_are_refused(inputs: dict[str, Array], message: str) -> None:
    with pytest.raises(BadInput, match=message):
        interpret(parse(COUNTER), inputs, store=STORE)


def test_an_index_out_of_range_is_refused() -> None:
    text = '%0: f32[4] = input "t"\n%1: i64[2] = input "i"\n%2: f32[2] = gather [i] over i:2: %0[%1[i]]\noutput %2\n'
    with pytest.raises(BadInput, match="looks up positions -1 to 3 in a dimension of 4"):
        run(text, t=np.zeros(4, np.float32), i=np.array([3, -1]))


def test_a_constant_without_value_is_refused() -> None:
    with pytest.raises(BadInput, match="constant 'w' has no value"):
        run('%0: f32[2] = constant "w"\noutput %0\n')


# --- intervals -------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("body", "low", "high"),
    [
        ("(i - j)", -5, 3),
        ("((i * 6) + j)", 0, 23),
        ("idiv(((i * 6) + j), 6)", 0, 3),
        ("mod(((i * 6) + j), 6)", 0, 5),
        ("min((i + j), 4)", 0, 4),
        ("abs((i - 5))", 2, 5),
        ("select((i > 1), %0[i], j)", -3, 9),
        ("(%0[i] * %0[i])", 0, 81),
        ("i64((f32(%0[i]) * 0.5))", -1, 4),
        ("max(%0[i], 0)", 0, 9),
        ("(%0[i] & 7)", 0, 7),
    ],
)
def test_intervals(body: str, low: int, high: int) -> None:
    nest = "[i,j] over i:4 j:6" + (" reading %0[i]" if "%0" in body else "")
    text = f'%0: i64[4] = input "x" range -3 to 9\n%1: i64[4,6] = map {nest}: {body.replace("%0[i]", "$0")}\noutput %1\n'
    graph = parse(text)
    assert intervals_of(graph)[1].limits == (low, high)


def test_intervals_hold_for_every_value() -> None:
    """Random integer expressions over axes: no value leaves its interval."""
    rng = np.random.default_rng(0)
    for _ in range(300):
        leaves = [ex.axis(0), ex.axis(1), ex.const(int(rng.integers(-4, 5)), I64), ex.const(int(rng.integers(1, 5)), I64)]
        for _ in range(rng.integers(1, 7)):
            op = str(rng.choice(["add", "sub", "mul", "min", "max", "idiv", "mod", "abs", "neg", "select"]))
            a, b, c = (leaves[int(k)] for k in rng.integers(0, len(leaves), 3))
            if op in ("idiv", "mod"):
                b = leaves[3]
            if op == "select":
                leaves.append(ex.make("select", ex.make("lt", a, b), b, c))
            else:
                leaves.append(ex.make(op, a) if op in ("abs", "neg") else ex.make(op, a, b))
        axes = (4, 7)
        analysis = ExprIntervals(axes, ())
        for leaf in leaves:
            found: Interval = analysis.of(leaf)
            values = np.broadcast_to(evaluate(leaf, [], axes), axes)
            assert found.low <= values.min() and values.max() <= found.high
            np.testing.assert_array_equal(np.broadcast_to(evaluate(analysis.decided(leaf), [], axes), axes), values)
