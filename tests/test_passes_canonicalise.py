"""Canonicalisation rule by rule: the text before, the text after, and the same values."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from spatialc.ir.graph import Constant, Graph, Input
from spatialc.ir.interpret import interpret
from spatialc.ir.store import ConstantStore
from spatialc.ir.text import parse, print_graph
from spatialc.passes.canonicalise import canonicalise

Array = np.ndarray[Any, Any]


def filled(graph: Graph, store: ConstantStore) -> dict[str, Array]:
    """Inputs for a graph; constants without a value get one."""
    rng = np.random.default_rng(0)
    inputs: dict[str, Array] = {}
    for node in graph.nodes:
        if not isinstance(node, Input | Constant):
            continue
        low, high = (node.range or (0, 3)) if isinstance(node, Input) else (0, 3)
        value = rng.standard_normal(node.shape).astype(np.float32) if node.dtype.is_float else rng.integers(low, high + 1, node.shape)
        if isinstance(node, Input):
            inputs[node.name] = value.astype(node.dtype.array)
        elif not store.has(node.ref.key):
            store.put(node.ref.key, value.astype(node.dtype.array))
    return inputs


def check(before: str, after: str, **constants: Array) -> Graph:
    """Canonicalising `before` gives exactly `after`, and the values stay."""
    store = ConstantStore()
    for key, value in constants.items():
        store.put(key, value)
    graph = parse(before)
    inputs = filled(graph, store)
    want, _ = interpret(graph, inputs, store=store)
    result = canonicalise(graph, store)
    got, _ = interpret(result, inputs, store=store)
    for a, b in zip(got, want, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-6, atol=1e-6)
    assert print_graph(result, origins=False) == after
    return result


BIG = '%0: f32[4,6] = input "x"\n'


def test_views_compose_into_readers() -> None:
    check(
        BIG
        + "%1: f32[6,4] = move [i,j] over i:6 j:4: %0[j,i]\n"
        + "%2: f32[3,2,4] = move [i,j,k] over i:3 j:2 k:4: %1[2*i+j,k]\n"
        + "%3: f32[3,2,4] = map [i,j,k] over i:3 j:2 k:4: exp(%2[i,j,k])\noutput %3\n",
        BIG + "%1: f32[3,2,4] = map [i,j,k] over i:3 j:2 k:4: exp(%0[k,2*i+j])\noutput %1\n",
    )


def test_a_reader_is_split_where_a_merge_needs_it() -> None:
    check(
        '%0: f32[2,3,4] = input "x"\n'
        + "%1: f32[4,6] = move [i,(j k)] over i:4 j:2 k:3: %0[j,k,i]\n"
        + "%2: f32[4,6] = map [i,j] over i:4 j:6: exp(%1[i,j])\noutput %2\n",
        '%0: f32[2,3,4] = input "x"\n%1: f32[4,6] = map [i,(j k)] over i:4 j:2 k:3: exp(%0[j,k,i])\noutput %1\n',
    )


def test_a_merge_after_an_unaligned_slice_stays_a_move() -> None:
    text = (
        '%0: f32[3,4] = input "x"\n'
        + "%1: f32[12] = move [(i j)] over i:4 j:3: %0[j,i]\n"
        + "%2: f32[7] = map [i] over i:7: exp(%1[i+1])\noutput %2\n"
    )
    check(text, text)


def test_a_read_inside_one_piece_reads_that_piece() -> None:
    check(
        BIG
        + '%1: f32[4,2] = input "y"\n'
        + "%2: f32[4,8] = move at [0,0] [i,j] over i:4 j:6: %0[i,j]; at [0,6] [i,j] over i:4 j:2: %1[i,j]\n"
        + "%3: f32[4,2] = map [i,j] over i:4 j:2: exp(%2[i,j+6])\noutput %3\n",
        BIG + '%1: f32[4,2] = input "y"\n%2: f32[4,2] = map [i,j] over i:4 j:2: exp(%1[i,j])\noutput %2\n',
    )


def test_a_read_of_padding_reads_the_fill() -> None:
    check(
        BIG
        + "%1: f32[9,6] = move fill 2.5 at [5,0] [i,j] over i:4 j:6: %0[i,j]\n"
        + "%2: f32[4,6] = map [i,j] over i:4 j:6: (%0[i,j] * %1[i,j])\noutput %2\n",
        BIG + "%1: f32[4,6] = map [i,j] over i:4 j:6: (%0[i,j] * 2.5)\noutput %1\n",
    )


def test_assemblies_splice_and_overwritten_pieces_go() -> None:
    check(
        '%0: f32[4] = input "a"\n%1: f32[4] = input "b"\n%2: f32[4] = input "c"\n'
        + "%3: f32[12] = move at [0] [i] over i:4: %0[i]; at [4] [i] over i:4: %1[i]; at [8] [i] over i:4: %2[i]\n"
        + "%4: f32[12] = move at [0] [i] over i:12: %3[i]; at [4] [i] over i:4: %0[i]\noutput %4\n",
        '%0: f32[4] = input "a"\n%1: f32[4] = input "b"\n%2: f32[4] = input "c"\n'
        + "%3: f32[12] = move at [0] [i] over i:4: %0[i]; at [8] [i] over i:4: %2[i]; at [4] [i] over i:4: %0[i]\noutput %3\n",
    )


def test_a_producer_takes_over_the_shape_of_its_only_view() -> None:
    check(
        BIG
        + '%1: f32[8,6] = input "w"\n'
        + "%2: f32[4,8] = contract [i,j] over i:4 j:8 k:6: %0[i,k] * %1[j,k] acc f32\n"
        + "%3: f32[2,4,4] = move [i,j,k] over i:2 j:4 k:4: %2[j,4*i+k]\noutput %3\n",
        BIG
        + '%1: f32[8,6] = input "w"\n'
        + "%2: f32[2,4,4] = contract [i,j,k] over i:2 j:4 k:4 l:6: %0[j,l] * %1[4*i+k,l] acc f32\noutput %2\n",
    )


def test_maps_inline_into_their_only_reader() -> None:
    check(
        BIG
        + "%1: f32[4,6] = map [i,j] over i:4 j:6: exp(%0[i,j])\n"
        + "%2: f32[4] = reduce sum [i] over i:4 j:6: %1[i,j]\n"
        + "%3: f32[4] = map [i] over i:4: log(%2[i])\noutput %3\n",
        BIG + "%1: f32[4] = reduce sum [i] over i:4 j:6: exp(%0[i,j])\n%2: f32[4] = map [i] over i:4: log(%1[i])\noutput %2\n",
    )


def test_maps_with_several_readers_stay_unless_cheap() -> None:
    expensive = (
        BIG
        + "%1: f32[4,6] = map [i,j] over i:4 j:6: exp(%0[i,j])\n"
        + "%2: f32[4,6] = map [i,j] over i:4 j:6: (%1[i,j] + %0[i,j])\n"
        + "%3: f32[4,6] = map [i,j] over i:4 j:6: (%1[i,j] - %0[i,j])\noutput %2, %3\n"
    )
    check(expensive, expensive)
    check(
        expensive.replace("exp(", "neg("),
        BIG
        + "%1: f32[4,6] = map [i,j] over i:4 j:6: (neg(%0[i,j]) + %0[i,j])\n"
        + "%2: f32[4,6] = map [i,j] over i:4 j:6: (neg(%0[i,j]) - %0[i,j])\noutput %1, %2\n",
    )


def test_affine_lookups_become_indices() -> None:
    check(
        BIG
        + "%1: i64[3] = map [i] over i:3: (i + 1)\n"
        + "%2: f32[3,6] = gather [i,j] over i:3 j:6: %0[%1[i],j]\n"
        + "%3: f32[3,6] = map [i,j] over i:3 j:6: exp(%2[i,j])\noutput %3\n",
        BIG + "%1: f32[3,6] = map [i,j] over i:3 j:6: exp(%0[i+1,j])\noutput %1\n",
    )


def test_a_gather_from_positions_is_an_expression() -> None:
    check(
        '%0: i64[3] = input "i" range 0 to 9\n'
        + "%1: i64[10] = map [i] over i:10: (i * 2)\n"
        + "%2: i64[3] = gather [i] over i:3: %1[%0[i]]\noutput %2\n",
        '%0: i64[3] = input "i" range 0 to 9\n%1: i64[3] = map [i] over i:3: (%0[i] * 2)\noutput %1\n',
    )


def test_a_set_scatter_along_axes_is_an_assembly() -> None:
    check(
        BIG
        + '%1: f32[2,6] = input "y"\n%2: i64[2] = map [i] over i:2: ((i * 2) + 1)\n'
        + "%3: f32[4,6] = scatter set %0 over i:2 j:6: [%2[i],j] <- %1[i,j]\noutput %3\n",
        BIG
        + '%1: f32[2,6] = input "y"\n'
        + "%2: f32[4,6] = move at [0,0] [i,j] over i:4 j:6: %0[i,j]; at [1,0] step [2,1] [i,j] over i:2 j:6: %1[i,j]\noutput %2\n",
    )


def test_rotate_half_becomes_part_of_one_map() -> None:
    check(
        BIG
        + "%1: f32[4,3] = map [i,j] over i:4 j:3: neg(%0[i,j+3])\n"
        + "%2: f32[4,6] = move at [0,0] [i,j] over i:4 j:3: %1[i,j]; at [0,3] [i,j] over i:4 j:3: %0[i,j]\n"
        + "%3: f32[4,6] = map [i,j] over i:4 j:6: (%2[i,j] * %0[i,j])\noutput %3\n",
        BIG
        + "%1: f32[4,6] = map [i,(j k)] over i:4 j:2 k:3: (select((j == 0), neg(%0[i,-3*j+k+3]), %0[i,-3*j+k+3]) * %0[i,3*j+k])\n"
        + "output %1\n",
    )


def test_interleaved_rotation_too() -> None:
    check(
        BIG
        + "%1: f32[4,3] = map [i,j] over i:4 j:3: neg(%0[i,2*j+1])\n"
        + "%2: f32[4,6] = move at [0,0] step [1,2] [i,j] over i:4 j:3: %1[i,j]; at [0,1] step [1,2] [i,j] over i:4 j:3: %0[i,2*j]\n"
        + "output %2\n",
        BIG + "%1: f32[4,6] = map [i,(j k)] over i:4 j:3 k:2: select((k == 0), neg(%0[i,2*j-k+1]), %0[i,2*j-k+1])\noutput %1\n",
    )


def test_slices_put_together_again_are_the_whole() -> None:
    check(
        BIG
        + "%1: f32[4,6] = move at [0,0] [i,j] over i:4 j:3: %0[i,j]; at [0,3] [i,j] over i:4 j:3: %0[i,j+3]\n"
        + "%2: f32[4,6] = map [i,j] over i:4 j:6: exp(%1[i,j])\noutput %2\n",
        BIG + "%1: f32[4,6] = map [i,j] over i:4 j:6: exp(%0[i,j])\noutput %1\n",
    )


def test_mask_code_becomes_a_comparison_of_axes() -> None:
    """arange, expand, cumulative sums and comparisons, as transformers writes them."""
    check(
        '%0: f32[4,4] = input "s"\n'
        + "%1: i64[4] = map [i] over i:4: 1\n".replace(": 1\n", ": i64(1)\n")
        + "%2: i64[4] = scan add %1 axis 0\n"
        + "%3: i64[4] = map [i] over i:4: (%2[i] - 1)\n"
        + "%4: i64[4,4] = move [i,j] over i:4 j:4: %3[j]\n"
        + "%5: bool[4,4] = map [i,j] over i:4 j:4: (%4[i,j] <= %3[i])\n"
        + "%6: bool[4,4] = map [i,j] over i:4 j:4: (%5[i,j] & (i >= 0))\n"
        + "%7: f32[4,4] = map [i,j] over i:4 j:4: select(%6[i,j], %0[i,j], -inf)\noutput %7\n",
        '%0: f32[4,4] = input "s"\n%1: f32[4,4] = map [i,j] over i:4 j:4: select((j <= i), %0[i,j], -inf)\noutput %1\n',
    )


def test_constant_masks_are_recognised() -> None:
    rows, columns = np.arange(5)[:, None], np.arange(7)[None]
    check(
        '%0: bool[1,5,7] = constant "mask"\n%1: f32[5,7] = input "s"\n'
        + "%2: f32[5,7] = map [i,j] over i:5 j:7: select(%0[0,i,j], %1[i,j], 0)\noutput %2\n",
        '%0: f32[5,7] = input "s"\n'
        + "%1: f32[5,7] = map [i,j] over i:5 j:7: select(((j <= (i + 2)) & (j >= (i + -1))), %0[i,j], 0)\noutput %1\n",
        mask=((columns <= rows + 2) & (columns >= rows - 1))[None],
    )


def test_small_constants_fold_and_large_ones_do_not() -> None:
    table = np.linspace(0, 1, 12, dtype=np.float32).reshape(3, 4) ** 2
    text = '%0: f32[3,4] = constant "t"\n%1: f32[3,4] = map [i,j] over i:3 j:4: exp(%0[i,j])\noutput %1\n'
    store = ConstantStore()
    store.put("t", table)
    graph = canonicalise(parse(text), store)
    (node,) = graph.nodes
    assert isinstance(node, Constant) and node.ref.key.startswith("folded/")
    np.testing.assert_allclose(store.get(node.ref.key), np.exp(table), rtol=1e-6)
    large = text.replace("3,4", "1024,300").replace("i:3 j:4", "i:1024 j:300")
    store.put("t", np.zeros((1024, 300), np.float32))
    assert len(canonicalise(parse(large), store).nodes) == 2
    assert len(canonicalise(parse(text), ConstantStore()).nodes) == 2, "a constant without value folds nothing"


SOFTMAX = """\
%0: f32[2,{q},{k}] = input "s"
%1: f32[2,{q},4] = input "a"
%2: f32[2,{k},4] = input "b"
%3: f32[2,{q},{k}] = contract [i,j,k] over i:2 j:{q} k:{k} l:4: %1[i,j,l] * %2[i,k,l] acc f32
%4: f32[2,{q},{k}] = map [i,j,k] over i:2 j:{q} k:{k}: {score}
%5: f32[2,{q}] = reduce max [i,j] over i:2 j:{q} k:{k}: %4[i,j,k]
%6: f32[2,{q},{k}] = map [i,j,k] over i:2 j:{q} k:{k}: exp((%4[i,j,k] - select((%5[i,j] == -inf), 0, %5[i,j])))
%7: f32[2,{q}] = reduce sum [i,j] over i:2 j:{q} k:{k}: %6[i,j,k]
%8: f32[2,{q},{k}] = map [i,j,k] over i:2 j:{q} k:{k}: (%6[i,j,k] / select((%7[i,j] == 0), 1, %7[i,j]))
output %8
"""


@pytest.mark.parametrize(
    ("score", "guarded"),
    [
        ("select((k <= j), (%3[i,j,k] * 0.5), -inf)", False),
        ("select(((k <= (j + 2)) & (k > (j - 1))), %3[i,j,k], -inf)", False),
        ("(%3[i,j,k] * 0.5)", False),
        ("select((k < j), %3[i,j,k], -inf)", True),  # the first row is empty
        ("select((k >= (j + 3)), %3[i,j,k], -inf)", True),  # so is the last
        ("(%3[i,j,k] + %0[i,j,k])", True),  # a bias from outside may hold -inf
        ("select((%0[i,j,k] > 0), %3[i,j,k], -inf)", True),  # a mask from outside
    ],
)
def test_softmax_guards_go_where_no_row_is_empty(score: str, guarded: bool) -> None:
    graph = canonicalise(parse(SOFTMAX.format(q=5, k=7, score=score)), ConstantStore())
    assert print_graph(graph).split("reduce max")[1].count("select((%") == (2 if guarded else 0)


def test_equal_computations_are_one_node() -> None:
    check(
        BIG
        + "%1: f32[6,4] = move [i,j] over i:6 j:4: %0[j,i]\n"
        + "%2: f32[4] = reduce sum [i] over i:4 j:6: (%1[j,i] * %0[i,j])\n"
        + "%3: f32[4] = reduce sum [j] over i:6 j:4: (%0[j,i] * %1[i,j])\noutput %2, %3\n",
        BIG + "%1: f32[4] = reduce sum [i] over i:4 j:6: (%0[i,j] * %0[i,j])\noutput %1, %1\n",
    )


def test_a_contract_without_k_is_a_product() -> None:
    check(
        '%0: f32[4] = input "a"\n%1: f32[6] = input "b"\n'
        + "%2: f32[4,6] = contract [i,j] over i:4 j:6: %0[i] * %1[j] acc f32\noutput %2\n",
        '%0: f32[4] = input "a"\n%1: f32[6] = input "b"\n%2: f32[4,6] = map [i,j] over i:4 j:6: (%0[i] * %1[j])\noutput %2\n',
    )


def test_intervals_decide_comparisons() -> None:
    check(
        '%0: i64[4] = input "i" range 0 to 9\n%1: f32[10,3] = input "t"\n'
        + "%2: i64[4] = map [i] over i:4: select((%0[i] < 0), (%0[i] + 10), %0[i])\n"
        + "%3: f32[4,3] = gather [i,j] over i:4 j:3: %1[%2[i],j]\noutput %3\n",
        '%0: i64[4] = input "i" range 0 to 9\n%1: f32[10,3] = input "t"\n'
        + "%2: f32[4,3] = gather [i,j] over i:4 j:3: %1[%0[i],j]\noutput %2\n",
    )


def test_states_and_updates_survive() -> None:
    text = (
        '%0: f32[4,6] = state "cache"\n%1: f32[1,6] = input "x"\n'
        + "%2: f32[4,6] = move at [0,0] [i,j] over i:4 j:6: %0[i,j]; at [2,0] [0,i] over i:6: %1[0,i]\n"
        + '%3: f32[4] = reduce sum [i] over i:4 j:6: %2[i,j]\noutput %3\nupdate "cache" = %2\n'
    )
    graph = check(text, text)
    cache = np.ones((4, 6), np.float32)
    outputs, states = interpret(graph, {"x": np.full((1, 6), 3, np.float32)}, states={"cache": cache}, store=ConstantStore())
    assert outputs[0].tolist() == [6, 6, 18, 6] and states["cache"][2].tolist() == [3] * 6


def test_a_digit_that_just_overflows_stays_a_move() -> None:
    text = (
        '%0: f32[3,4] = input "x"\n'
        + "%1: f32[12] = move [(i j)] over i:4 j:3: %0[j,i]\n"
        + "%2: f32[4] = map [i] over i:4: exp(%1[i])\noutput %2\n"
    )
    check(text, text)


def test_a_dense_read_of_interleaved_pieces_stays() -> None:
    text = (
        '%0: f32[4] = input "a"\n%1: f32[4] = input "b"\n'
        + "%2: f32[8] = move at [0] step [2] [i] over i:4: %0[i]; at [1] step [2] [i] over i:4: %1[i]\n"
        + "%3: f32[5] = map [i] over i:5: exp(%2[i+1])\n"
    )
    check(text + "output %3\n", text + "output %3\n")
    check(
        text + "%4: f32[4] = map [i] over i:4: exp(%2[2*i+1])\noutput %4\n",
        '%0: f32[4] = input "a"\n%1: f32[4] = input "b"\n%2: f32[4] = map [i] over i:4: exp(%1[i])\noutput %2\n',
    )


def test_a_piece_with_gaps_hides_nothing() -> None:
    text = (
        '%0: f32[8] = input "base"\n%1: f32[4] = input "a"\n%2: f32[3] = input "b"\n'
        + "%3: f32[8] = move at [0] [i] over i:8: %0[i]; at [2] [i] over i:3: %2[i]; at [0] step [2] [i] over i:4: %1[i]\noutput %3\n"
    )
    check(text, text)


def test_readers_behind_a_view_count() -> None:
    check(
        BIG
        + "%1: f32[4,6] = map [i,j] over i:4 j:6: exp(%0[i,j])\n"
        + "%2: f32[6,4] = move [i,j] over i:6 j:4: %1[j,i]\n"
        + "%3: f32[6,4] = map [i,j] over i:6 j:4: (%2[i,j] + 1)\n"
        + "%4: f32[6,4] = map [i,j] over i:6 j:4: tanh(%2[i,j])\noutput %3, %4\n",
        BIG
        + "%1: f32[4,6] = map [i,j] over i:4 j:6: exp(%0[i,j])\n"
        + "%2: f32[6,4] = map [i,j] over i:6 j:4: (%1[j,i] + 1)\n"
        + "%3: f32[6,4] = map [i,j] over i:6 j:4: tanh(%1[j,i])\noutput %2, %3\n",
    )


def test_a_reversed_set_is_no_assembly() -> None:
    text = (
        BIG
        + '%1: f32[3,6] = input "y"\n%2: i64[3] = map [i] over i:3: (2 - i)\n'
        + "%3: f32[4,6] = scatter set %0 over i:3 j:6: [%2[i],j] <- %1[i,j]\noutput %3\n"
    )
    check(
        text,
        BIG + '%1: f32[3,6] = input "y"\n%2: f32[4,6] = scatter set %0 over i:3 j:6: [-i+2,j] <- %1[i,j]\noutput %2\n',
    )
