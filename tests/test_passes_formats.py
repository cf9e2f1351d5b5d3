"""Narrow, quantise and precision: which types values get, and that the graph still means the same."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from spatialc.errors import BadInput, UnsupportedOp
from spatialc.ir.graph import Constant, Contract, Graph, Map
from spatialc.ir.interpret import interpret
from spatialc.ir.store import ConstantStore
from spatialc.ir.text import parse, print_graph
from spatialc.ir.types import BF16, F16, F32, I8, I32
from spatialc.ir.verify import verify
from spatialc.passes.narrow import Narrow
from spatialc.passes.pipeline import passes_for, prepare, run_pipeline
from spatialc.passes.precision import POLICIES, Precision, policy_of
from spatialc.passes.quantise import Quantise, decode_q8_0, encode_q8_0

Array = np.ndarray[Any, Any]
STORE = ConstantStore()


def text_of(graph: Graph) -> str:
    return print_graph(graph, origins=False)


# --- narrow ----------------------------------------------------------------------------------------------------------------------------

LOOKUP = """\
%0: i64[3] = input "ids" range 0 to 9
%1: f32[10,4] = input "table"
%2: f32[3,4] = gather [i,j] over i:3 j:4: %1[%0[i],j]
%3: f32[3,4] = map [i,j] over i:3 j:4: select((j <= (i + 1)), %2[i,j], 0)
output %3
"""


def test_no_wide_integer_is_left() -> None:
    graph = Narrow().run(parse(LOOKUP), STORE)
    assert verify(graph, narrowed=True) == []
    assert graph.inputs[0].dtype is I32 and graph.inputs[0].range == (0, 9)
    assert "(i32(j) <= (i32(i) + 1))" in text_of(graph)
    inputs = {"ids": np.array([9, 0, 3]), "table": np.arange(40, dtype=np.float32).reshape(10, 4)}
    np.testing.assert_array_equal(interpret(graph, inputs, store=STORE)[0][0], interpret(parse(LOOKUP), inputs, store=STORE)[0][0])
    with pytest.raises(BadInput, match="values from 0 to 10, the graph takes 0 to 9"):
        interpret(graph, {**inputs, "ids": np.array([10, 0, 3])}, store=STORE)


def test_the_smallest_type_is_the_one_asked_for() -> None:
    graph = Narrow(least_bits=8).run(parse(LOOKUP), STORE)
    assert graph.inputs[0].dtype is I8
    assert verify(graph, narrowed=True) == []


def test_what_needs_64_bits_is_refused_with_the_reason() -> None:
    text = '%0: i64[4] = input "x" range 0 to 1000000\n%1: i64[4] = map [i] over i:4: (%0[i] * 100000)\noutput %1\n'
    with pytest.raises(UnsupportedOp, match="from 0 to 100000000000"):
        Narrow().run(parse(text), STORE)


def test_inputs_without_a_range_get_one_that_their_sums_fit() -> None:
    text = '%0: i64[64] = input "mask"\n%1: i64[64] = scan add %0 axis 0\noutput %1\n'
    graph = Narrow().run(parse(text), STORE)
    assert graph.inputs[0].range == (-(1 << 15), (1 << 15) - 1)
    outputs, _ = interpret(graph, {"mask": np.ones(64, np.int64)}, store=STORE)
    assert outputs[0].dtype == np.int32 and outputs[0][-1] == 64


def test_a_position_state_keeps_one_type() -> None:
    text = '%0: i64[1] = state "position" range 0 to 63\n%1: i64[1] = map [0] over: (%0[0] + 1)\noutput\nupdate "position" = %1\n'
    graph = Narrow(least_bits=8).run(parse(text), STORE)
    assert verify(graph, narrowed=True) == []
    assert interpret(graph, {}, states={"position": np.array([5])}, store=STORE)[1]["position"] == 6


# --- quantise --------------------------------------------------------------------------------------------------------------------------

LINEAR = """\
%0: f32[5,64] = input "x"
%1: f32[8,64] = constant "w"
%2: f32[64,8] = constant "v"
%3: f32[8] = constant "b"
%4: f32[5,8] = contract [i,j] over i:5 j:8 k:64: %0[i,k] * %1[j,k] acc f32
%5: f32[5,8] = contract [i,j] over i:5 j:8 k:64: %0[i,k] * %2[k,j] acc f32
%6: f32[5,8] = map [i,j] over i:5 j:8: ((%4[i,j] + %5[i,j]) + %3[j])
output %6
"""


def linear_store() -> tuple[ConstantStore, dict[str, Array]]:
    rng = np.random.default_rng(1)
    store = ConstantStore()
    for key, shape in (("w", (8, 64)), ("v", (64, 8)), ("b", (8,))):
        store.put(key, rng.standard_normal(shape).astype(np.float32))
    return store, {"x": rng.standard_normal((5, 64)).astype(np.float32)}


def test_q8_0_blocks_are_those_of_gguf() -> None:
    values = np.random.default_rng(0).standard_normal((3, 96)).astype(np.float32)
    planes = encode_q8_0(values)
    assert planes["quants"].dtype == np.int8 and planes["scales"].shape == (3, 3)
    decoded = decode_q8_0(planes)
    assert np.abs(decoded - values).max() <= np.abs(values).max() / 127 * 0.51
    gguf = pytest.importorskip("gguf")
    theirs = gguf.quants.dequantize(gguf.quants.quantize(values, gguf.GGMLQuantizationType.Q8_0), gguf.GGMLQuantizationType.Q8_0)
    np.testing.assert_array_equal(decoded, theirs)


@pytest.mark.parametrize(("storage", "error"), [("f16", 1e-3), ("q8_0", 1e-2)])
def test_weights_of_contractions_are_stored_and_others_are_not(storage: str, error: float) -> None:
    store, inputs = linear_store()
    graph = Quantise(storage).run(parse(LINEAR), store)
    assert verify(graph) == []
    stored = {n.ref.storage for n in graph.constants if n.shape != (8,)}
    assert stored == {storage} and [n.ref.key for n in graph.constants if n.shape == (8,)] == ["b"]
    want = interpret(parse(LINEAR), inputs, store=store)[0][0]
    got = interpret(graph, inputs, store=store)[0][0]
    assert 0 < np.linalg.norm(got - want) / np.linalg.norm(want) < error


def test_a_block_format_runs_along_k() -> None:
    store, _ = linear_store()
    graph = Quantise("q8_0").run(parse(LINEAR), store)
    transposed = next(n for n in graph.constants if n.ref.key.startswith("v@"))
    assert transposed.shape == (8, 64)
    assert store.block(transposed.ref.key)["scales"].shape == (8, 2)


def test_int8_weights_decoded_by_a_map_become_one_constant() -> None:
    text = (
        '%0: f32[5,64] = input "x"\n%1: i8[8,64] = constant "q"\n%2: f32[8] = constant "scale"\n'
        "%3: f32[8,64] = map [i,j] over i:8 j:64: (f32(%1[i,j]) * %2[i])\n"
        "%4: f32[5,8] = contract [i,j] over i:5 j:8 k:64: %0[i,k] * %3[j,k] acc f32\noutput %4\n"
    )
    store = ConstantStore()
    store.put("q", np.arange(-128, 128, dtype=np.int8).repeat(2).reshape(8, 64))
    store.put("scale", np.linspace(0.1, 1, 8, dtype=np.float32))
    graph = Quantise().run(parse(text), store)
    weights = graph[graph.nodes[-1].operands[1]]
    assert isinstance(weights, Constant) and weights.ref.storage == "int8_channel"
    inputs = {"x": np.ones((5, 64), np.float32)}
    np.testing.assert_array_equal(interpret(graph, inputs, store=store)[0][0], interpret(parse(text), inputs, store=store)[0][0])


def test_unknown_storage_is_refused() -> None:
    with pytest.raises(BadInput, match="no storage 'q9'"):
        Quantise("q9").run(parse(LINEAR), STORE)


# --- precision -------------------------------------------------------------------------------------------------------------------------

ATTENTION = """\
%0: f32[6,8] = input "x"
%1: f32[8,8] = constant "wq"
%2: f32[8,8] = constant "wk"
%3: f32[8] = constant "gain"
%4: f32[6] = reduce sum [i] over i:6 j:8: (%0[i,j] * %0[i,j])
%5: f32[6,8] = map [i,j] over i:6 j:8: ((%0[i,j] * rsqrt(((%4[i] * 0.125) + 1e-05))) * %3[j])
%6: f32[6,8] = contract [i,j] over i:6 j:8 k:8: %5[i,k] * %1[j,k] acc f32
%7: f32[6,8] = contract [i,j] over i:6 j:8 k:8: %5[i,k] * %2[j,k] acc f32
%8: f32[6,6] = contract [i,j] over i:6 j:6 k:8: %6[i,k] * %7[j,k] acc f32
%9: f32[6,6] = map [i,j] over i:6 j:6: (%8[i,j] + select((j <= i), f32(0), {mask}))
%10: f32[6] = reduce max [i] over i:6 j:6: %9[i,j]
%11: f32[6,6] = map [i,j] over i:6 j:6: exp((%9[i,j] - %10[i]))
%12: f32[6] = reduce sum [i] over i:6 j:6: %11[i,j]
%13: f32[6,6] = map [i,j] over i:6 j:6: (%11[i,j] / %12[i])
%14: f32[6,8] = contract [i,j] over i:6 j:8 k:6: %13[i,k] * %5[k,j] acc f32
%15: f32[6,8] = map [i,j] over i:6 j:8: (%0[i,j] + %14[i,j])
%16: f32[6,8] = contract [i,j] over i:6 j:8 k:8: %15[i,k] * %1[j,k] acc f32
%17: f32[6,8] = map [i,j] over i:6 j:8: (%15[i,j] + %16[i,j])
output %17
""".replace("{mask}", "-3.4028235e+38")


def attention() -> tuple[Graph, ConstantStore, dict[str, Array]]:
    rng = np.random.default_rng(2)
    store = ConstantStore()
    for key in ("wq", "wk"):
        store.put(key, rng.standard_normal((8, 8)).astype(np.float32) * 0.3)
    store.put("gain", rng.standard_normal(8).astype(np.float32))
    return parse(ATTENTION), store, {"x": rng.standard_normal((6, 8)).astype(np.float32)}


def types_by_origin(graph: Graph) -> dict[str, str]:
    """The type of every compute node, by what it computes."""
    found = {}
    for node in graph.nodes:
        if isinstance(node, Map):
            found[node.expr.op if node.expr.op != "cast" else "cast " + node.expr.args[0].op] = node.dtype.name
    return found


@pytest.mark.parametrize(("target", "bound"), [("tsp", 2e-3), ("wafer", 4e-3)])
def test_contractions_take_halves_and_the_error_is_small(target: str, bound: float) -> None:
    graph, store, inputs = attention()
    policy = policy_of(target, "fp16")
    half = Precision(policy.operands, policy.rest).run(graph, store)
    assert verify(half) == []
    for node in half.nodes:
        if isinstance(node, Contract):
            assert all(half[o].dtype is F16 for o in node.operands) and node.acc is F32
        if node.kind == "Reduce":
            assert node.dtype is F32
    want, got = (interpret(g, inputs, store=store)[0][0] for g in (graph, half))
    assert got.dtype == np.float32 and 0 < np.linalg.norm(got - want) / np.linalg.norm(want) < bound


def test_contractions_of_few_rows_with_a_constant_take_f32_activations() -> None:
    graph, store, inputs = attention()
    for rest in (F32, F16):
        mixed = Precision(F16, rest, wide_rows=6).run(graph, store)
        assert verify(mixed) == []
        for node in mixed.nodes:
            if isinstance(node, Contract):
                sources = [mixed[o] for o in node.operands]
                weights = [s for s in sources if isinstance(s, Constant)]
                assert {s.dtype for s in sources} == {F32 if weights else F16}
                for weight in weights:
                    value = store.get(weight.ref.key)
                    assert weight.ref.storage == "f16" and np.array_equal(value, value.astype(np.float16).astype(np.float32))
        want, got = (interpret(g, inputs, store=store)[0][0] for g in (graph, mixed))
        assert 0 < np.linalg.norm(got - want) / np.linalg.norm(want) < 2e-3
    assert Precision(F16, F32, wide_rows=5).run(graph, store) == Precision(F16, F32).run(graph, store), "six rows are too many"


def test_tsp_keeps_f32_except_for_what_only_contractions_read() -> None:
    graph, store, _ = attention()
    half = Precision(F16, F32).run(graph, store)
    by_shape = [(n.kind, n.dtype) for n in half.nodes if n.kind in ("Map", "Contract")]
    assert by_shape[0] == ("Map", F16), "the norm is read by contractions only"
    softmax = [n for n in half.nodes if isinstance(n, Map) and n.shape == (6, 6)]
    assert [n.dtype for n in softmax] == [F32, F32, F16], "scores and exponentials f32, probabilities f16"
    residual = [n for n in half.nodes if isinstance(n, Map) and n.shape == (6, 8)][1:]
    assert F32 in {n.dtype for n in residual}


def test_the_wafer_rests_in_halves_but_not_inside_a_softmax() -> None:
    graph, store, _ = attention()
    half = Precision(F16, F16).run(graph, store)
    scores = [n for n in half.nodes if isinstance(n, Contract) and n.shape == (6, 6)]
    assert [n.dtype for n in scores] == [F32]
    assert [n.dtype for n in half.nodes if isinstance(n, Map) and n.shape == (6, 6)] == [F32, F32, F16]
    adds = [n for n in half.nodes if isinstance(n, Map) and n.expr.op == "add" and not any(half[o].kind == "Constant" for o in n.operands)]
    assert adds and all(n.dtype is F32 for n in adds), "residual sums"
    added = {o for n in adds for o in n.operands}
    values = [n for n in half.nodes if isinstance(n, Contract) and n.shape == (6, 8)]
    assert [n.dtype for n in values] == [F32 if n.id in added else F16 for n in values]
    assert {n.dtype for n in values} == {F16, F32}


def test_a_fully_masked_row_is_no_nan() -> None:
    """A finite mask below the least f16 stays f32, so the row is uniform as in torch."""
    text = ATTENTION.replace("(j <= i)", "(j < i)")
    store, inputs = attention()[1:]
    for target in ("tsp", "wafer"):
        policy = policy_of(target, "fp16")
        outputs, _ = interpret(Precision(policy.operands, policy.rest).run(parse(text), store), inputs, store=store)
        want, _ = interpret(parse(text), inputs, store=store)
        np.testing.assert_allclose(outputs[0], want[0], rtol=0.02, atol=0.02)


def test_constants_and_squares_that_halves_cannot_hold_stay_f32() -> None:
    text = (
        '%0: f32[4] = input "x"\n%1: f32[4] = constant "big"\n%2: f32[4] = map [i] over i:4: (%0[i] * %0[i])\n'
        "%3: f32[4] = map [i] over i:4: (%2[i] + %1[i])\n%4: f32[4] = map [i] over i:4: exp(%3[i])\n"
        "%5: f32[4] = map [i] over i:4: ((%2[i] - %3[i]) * %4[i])\noutput %5\n"
    )
    store = ConstantStore()
    store.put("big", np.array([1, 2, 3, 1e6], np.float32))
    graph = Precision(F16, F16).run(parse(text), store)
    assert [n.dtype for n in graph.nodes] == [F32, F32, F32, F16, F16, F32]
    store.put("big", np.ones(4, np.float32))
    assert Precision(F16, F16).run(parse(text), store).constants[0].dtype is F16


def test_bf16_and_doubles_become_f32() -> None:
    text = '%0: bf16[4] = input "x"\n%1: f64[4] = map [i] over i:4: exp(f64((%0[i] * 0.1)))\noutput %1\n'
    graph = Precision().run(parse(text), STORE)
    assert {n.dtype for n in graph.nodes} == {F32} and BF16.name not in text_of(graph)


def test_a_cache_that_only_contractions_read_is_kept_in_halves() -> None:
    text = (
        '%0: f32[6,8] = state "k"\n%1: i64[1] = input "pos"\n%2: f32[1,8] = input "x"\n%3: f32[1,8] = map [0,i] over i:8: neg(%2[0,i])\n'
        "%4: f32[6,8] = scatter set %0 over i:8: [%1[0],i] <- %3[0,i]\n"
        '%5: f32[1,6] = contract [0,i] over i:6 j:8: %2[0,j] * %4[i,j] acc f32\noutput %5\nupdate "k" = %4\n'
    )
    graph = Precision(F16, F32).run(parse(text), STORE)
    assert graph.states[0].dtype is F16 and verify(graph) == []
    also_read = text.replace("output %5", "%6: f32[6] = reduce sum [i] over i:6 j:8: %4[i,j]\noutput %5, %6")
    graph = Precision(F16, F32).run(parse(also_read), STORE)
    assert graph.states[0].dtype is F32 and verify(graph) == []
    old_read = text.replace("output %5", "%6: f32[6] = reduce sum [i] over i:6 j:8: %0[i,j]\noutput %5, %6")
    graph = Precision(F16, F32).run(parse(old_read), STORE)
    assert graph.states[0].dtype is F32 and verify(graph) == []
    assert graph[3].dtype is F32, "what is written to an f32 cache is not rounded"


def test_policies_name_what_a_target_lacks() -> None:
    with pytest.raises(BadInput, match="tsp has no precision 'q4_0'; it has fp16"):
        policy_of("tsp", "q4_0")
    assert {target for target, _ in POLICIES} == {"tsp", "cgla", "wafer"}


# --- pipeline --------------------------------------------------------------------------------------------------------------------------


def test_the_pipeline_dumps_after_a_pass_and_verifies() -> None:
    graph, store, inputs = attention()
    seen: list[tuple[str, str]] = []
    result = prepare(graph, store, "wafer", "fp16", True, "precision", lambda name, text: seen.append((name, text)))
    assert [name for name, _ in seen] == ["precision"] and "f16[6,8]" in seen[0][1]
    assert result.regions and interpret(result, inputs, store=store)[0][0].shape == (6, 8)
    with pytest.raises(BadInput, match="there is no pass 'frobnicate'; passes are canonicalise, narrow"):
        run_pipeline(graph, store, passes_for("tsp", "fp16"), dump_after="frobnicate")


@pytest.mark.parametrize(("target", "precision"), sorted(POLICIES))
def test_the_pipeline_is_deterministic(target: str, precision: str) -> None:
    graph, store, _ = attention()
    assert prepare(graph, store, target, precision, verify=True) == prepare(graph, store, target, precision)


def test_angles_and_what_makes_them_stay_f32() -> None:
    text = (
        '%0: f32[1] = input "position"\n%1: f32[4] = constant "frequency"\n'
        "%2: f32[4] = map [i] over i:4: (%0[0] * %1[i])\n%3: f32[4] = map [i] over i:4: cos(%2[i])\n"
        "%4: f32[4] = map [i] over i:4: (%3[i] * 2)\noutput %4\n"
    )
    store = ConstantStore()
    store.put("frequency", np.ones(4, np.float32))
    half = Precision(F16, F16).run(parse(text), store)
    angle, wave = (n for n in half.nodes if isinstance(n, Map) and n.id not in half.outputs)
    assert (angle.dtype, wave.dtype) == (F32, F16)
