"""Regions, repeats and materialised operands."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from spatialc.ir.access import (
    access_strides,
    contract_axes,
    contract_size,
    distinct,
    footprint,
    strided,
    whole,
)
from spatialc.ir.graph import Contract, Graph, Index, Lookup, Move, Nest, Node
from spatialc.ir.interpret import interpret
from spatialc.ir.store import ConstantStore
from spatialc.ir.text import parse, print_graph
from spatialc.ir.verify import verify
from spatialc.passes import repeats as repeats_module
from spatialc.passes.fuse import find_regions
from spatialc.passes.materialise import materialise
from spatialc.passes.repeats import FindRepeats, find_repeats, sources_first

Array = np.ndarray[Any, Any]
STORE = ConstantStore()


def model(layers: int, extra: int | None = None) -> Graph:
    """Attention layers with a norm and an activation; layer `extra` has one node more."""
    lines = ['f32[6,8] = input "x"']
    weights = {}
    for n in range(layers):
        for name in ("q", "k", "v", "up"):
            weights[n, name] = len(lines)
            lines.append(f'f32[8,8] = constant "{n}.{name}"')
    x = 0

    def add(text: str) -> int:
        lines.append(text)
        return len(lines) - 1

    for n in range(layers):
        squares = add(f"f32[6] = reduce sum [i] over i:6 j:8: (%{x}[i,j] * %{x}[i,j])")
        norm = add(f"f32[6,8] = map [i,j] over i:6 j:8: (%{x}[i,j] * rsqrt((%{squares}[i] + 1)))")
        q, k, v = (
            add(f"f32[6,8] = contract [i,j] over i:6 j:8 k:8: %{norm}[i,k] * %{weights[n, w]}[j,k] acc f32") for w in ("q", "k", "v")
        )
        s = add(f"f32[6,6] = contract [i,j] over i:6 j:6 k:8: %{q}[i,k] * %{k}[j,k] acc f32")
        mask = add(f"f32[6,6] = map [i,j] over i:6 j:6: select((j <= i), %{s}[i,j], -inf)")
        top = add(f"f32[6] = reduce max [i] over i:6 j:6: %{mask}[i,j]")
        e = add(f"f32[6,6] = map [i,j] over i:6 j:6: exp((%{mask}[i,j] - %{top}[i]))")
        total = add(f"f32[6] = reduce sum [i] over i:6 j:6: %{e}[i,j]")
        p = add(f"f32[6,6] = map [i,j] over i:6 j:6: (%{e}[i,j] / %{total}[i])")
        o = add(f"f32[6,8] = contract [i,j] over i:6 j:8 k:6: %{p}[i,k] * %{v}[k,j] acc f32")
        u = add(f"f32[6,8] = contract [i,j] over i:6 j:8 k:8: %{o}[i,k] * %{weights[n, 'up']}[j,k] acc f32")
        a = add(f"f32[6,8] = map [i,j] over i:6 j:8: tanh(%{u}[i,j])")
        x = add(f"f32[6,8] = map [i,j] over i:6 j:8: (%{x}[i,j] + %{a}[i,j])")
        if n == extra:
            x = add(f"f32[6,8] = map [i,j] over i:6 j:8: floor(%{x}[i,j])")
    body = "\n".join(f"%{n}: {line}" for n, line in enumerate(lines))
    return parse(f"{body}\noutput %{x}\n")


def kinds(graph: Graph) -> dict[str, list[dict[str, str]]]:
    found: dict[str, list[dict[str, str]]] = {}
    for region in graph.regions:
        found.setdefault(region.kind, []).append({role: graph[n].kind for n, role in zip(region.nodes, region.roles, strict=True)})
    return found


def test_regions_of_a_layer() -> None:
    graph = model(1)
    graph = replace(graph, regions=find_regions(graph))
    assert verify(graph) == []
    found = kinds(graph)
    assert found["norm"] == [{"squares": "Reduce", "scale": "Map"}]
    assert set(found["attention"][0]) == {"scores", "mask", "max", "exp", "sum", "scale", "values"}
    assert found["contraction"][0] == {"contract": "Contract", "epilogue": "Map"}
    assert [len(r.nodes) for r in graph.regions if r.kind == "contraction"] == [3]


def test_a_softmax_that_others_read_is_no_attention() -> None:
    graph = model(1)
    scores = next(n.id for n in graph.nodes if n.kind == "Map" and n.shape == (6, 6))
    graph = replace(graph, outputs=(*graph.outputs, scores))
    assert "attention" not in kinds(replace(graph, regions=find_regions(graph)))
    assert "softmax" in kinds(replace(graph, regions=find_regions(graph)))


def test_a_gather_of_weights_is_routed() -> None:
    graph = parse(
        '%0: f32[4,3,8] = constant "experts"\n%1: i64[5] = input "expert" range 0 to 3\n%2: f32[5,8] = input "x"\n'
        "%3: f32[5,3,8] = gather [i,j,k] over i:5 j:3 k:8: %0[%1[i],j,k]\n"
        "%4: f32[5,3] = contract [i,j] over i:5 j:3 k:8: %2[i,k] * %3[i,j,k] acc f32\noutput %4\n"
    )
    (region,) = find_regions(graph)
    assert (region.kind, region.nodes, region.roles) == ("routed", (3, 4), ("gather", "contract"))


def test_repeats_are_the_layers() -> None:
    graph = FindRepeats().run(model(5), STORE)
    assert verify(graph) == []
    (repeat,) = graph.repeats
    assert (repeat.period, repeat.count) == (15, 5)


def test_an_odd_layer_splits_a_repeat() -> None:
    graph = FindRepeats().run(model(7, extra=2), STORE)
    assert verify(graph) == []
    assert sorted((r.period, r.count) for r in graph.repeats) == [(15, 3), (15, 4)]


def test_layers_that_read_elsewhere_are_no_repeat() -> None:
    lines = ['%0: f32[4] = input "x"']
    for n, before in enumerate((0, 3, 3)):  # the third layer reads what the second does
        first = 1 + 3 * n
        lines.append(f"%{first}: f32[4] = map [i] over i:4: exp(%{before}[i])")
        lines.append(f"%{first + 1}: f32[4] = map [i] over i:4: tanh(%{first}[i])")
        lines.append(f"%{first + 2}: f32[4] = map [i] over i:4: (%{first + 1}[i] + %{before}[i])")
    text = "\n".join(lines)
    straight = text.replace("%7: f32[4] = map [i] over i:4: exp(%3[i])", "%7: f32[4] = map [i] over i:4: exp(%6[i])").replace(
        "(%8[i] + %3[i])", "(%8[i] + %6[i])"
    )
    shortest = 2
    for graph, count in ((parse(straight + "\noutput %9\n"), 3), (parse(text + "\noutput %9, %6\n"), 2)):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(repeats_module, "_SHORTEST", shortest)
            found = find_repeats(graph)
        assert [r.count for r in found] == [count]
        assert verify(replace(graph, repeats=found)) == []


def test_a_region_that_is_left_and_entered_again_is_none() -> None:
    graph = parse(
        '%0: f32[4,8] = input "x"\n%1: f32[4] = reduce sum [i] over i:4 j:8: (%0[i,j] * %0[i,j])\n'
        "%2: f32[4] = map [i] over i:4: tanh(%1[i])\n"
        "%3: f32[4,8] = map [i,j] over i:4 j:8: ((%0[i,j] * rsqrt(%1[i])) + %2[i])\noutput %3\n"
    )
    assert [r for r in find_regions(graph) if 1 in r.nodes] == []


def test_one_layer_repeats_nothing() -> None:
    assert find_repeats(model(1)) == ()


def test_sources_move_to_the_front_and_values_stay() -> None:
    text = (
        '%0: f32[4] = input "x"\n%1: f32[4] = map [i] over i:4: exp(%0[i])\n%2: f32[4] = constant "c"\n'
        "%3: f32[4] = map [i] over i:4: (%1[i] + %2[i])\noutput %3\n"
    )
    graph = sources_first(parse(text))
    assert [n.kind for n in graph.nodes] == ["Input", "Constant", "Map", "Map"]
    store = ConstantStore()
    store.put("c", np.ones(4, np.float32))
    x = {"x": np.arange(4, dtype=np.float32)}
    np.testing.assert_array_equal(interpret(graph, x, store=store)[0][0], interpret(parse(text), x, store=store)[0][0])


def test_materialise_writes_what_cannot_be_addressed() -> None:
    text = (
        '%0: f32[12,4] = input "x"\n%1: f32[8,6] = input "w"\n'
        "%2: f32[4,8] = contract [i,j] over i:4 j:8 k:6: %0[2*k+1,i] * %1[j,k] acc f32\n"
        "%3: f32[4,8] = contract [i,j] over i:4 j:8 k:6: %0[2*k+1,i] * %1[-j+7,k] acc f32\noutput %2, %3\n"
    )

    def can_address(node: Node, operand: int) -> bool:
        """Operands whose last dimension is K only."""
        assert isinstance(node, Nest)
        last = node.accesses[operand][-1]
        return isinstance(last, Index) and last.terms[-1][0] == 2

    graph = materialise(parse(text), can_address)
    assert verify(graph) == []
    moves = [n for n in graph.nodes if isinstance(n, Move)]
    assert len(moves) == 1, "both contractions share the transposed operand"
    assert print_graph(graph, origins=False).splitlines()[2] == "%2: f32[4,6] = move [i,j] over i:4 j:6: %0[2*j+1,i]"
    rng = np.random.default_rng(0)
    inputs = {"x": rng.standard_normal((12, 4)).astype(np.float32), "w": rng.standard_normal((8, 6)).astype(np.float32)}
    for got, want in zip(interpret(graph, inputs, store=STORE)[0], interpret(parse(text), inputs, store=STORE)[0], strict=True):
        np.testing.assert_allclose(got, want, rtol=1e-5)


# --- questions about accesses ----------------------------------------------------------------------------------------------------------


def contraction(line: str, *sources: str) -> Contract:
    node = parse("\n".join([*sources, line, "output %2"]) + "\n")[2]
    assert isinstance(node, Contract)
    return node


GROUPED = contraction(
    "%2: f32[2,6,5,7] = contract [i,(j k),l,m] over i:2 j:3 k:2 l:5 m:7 n:8: %0[i,2*j+k,l,n] * %1[i,j,m,n] acc f32",
    '%0: f32[2,6,5,8] = input "q"',
    '%1: f32[2,3,7,8] = input "k"',
)
CONVOLUTION = contraction(
    "%2: f32[4,6] = contract [i,j] over i:4 j:6 k:3 l:3: %0[i,k,l] * %1[k,2*j+l] acc f32",
    '%0: f32[4,3,3] = input "w"',
    '%1: f32[3,13] = input "x"',
)


def test_roles_of_axes() -> None:
    roles = contract_axes(GROUPED)
    assert (roles.batch, roles.m, roles.n, roles.k) == ((0, 1), (2, 3), (4,), (5,))
    size = contract_size(GROUPED)
    assert (size.batch, size.m, size.n, size.k, size.macs) == (6, 10, 7, 8, 3360)
    roles = contract_axes(CONVOLUTION)
    assert (roles.batch, roles.m, roles.n, roles.k) == ((), (0,), (1,), (2, 3))


def test_strides_are_those_of_the_numpy_view() -> None:
    q = np.arange(2 * 6 * 5 * 8, dtype=np.float32).reshape(2, 6, 5, 8)
    found = access_strides(GROUPED.accesses[0], q.shape, 6)
    assert found.offset == 0 and found.strides == (240, 80, 40, 8, 0, 1)
    seen = strided(q, GROUPED.accesses[0], GROUPED.axes)
    assert seen.shape == (2, 3, 2, 5, 1, 8) and np.shares_memory(seen, q)
    assert seen.strides == tuple(4 * s for s in (240, 80, 40, 8, 0, 1))
    flipped = strided(np.arange(10), (Index(9, ((0, -2),)),), (5,))
    assert flipped.tolist() == [9, 7, 5, 3, 1]


def test_footprints_of_tiles() -> None:
    access = CONVOLUTION.accesses[1]
    assert footprint(access, whole(CONVOLUTION.axes), (3, 13)) == ((0, 3), (0, 13))
    tile = ((0, 4), (2, 4), (0, 3), (0, 3))
    assert footprint(access, tile, (3, 13)) == ((0, 3), (4, 9))
    assert distinct(access, tile, (3, 13)) == 15
    assert footprint((Lookup(1), Index(1, ((0, 3),))), ((1, 3),), (9, 20)) == ((0, 9), (4, 8))
    assert distinct((Index(1, ((0, 3),)),), ((1, 3),), (20,)) == 2


def test_a_position_that_all_layers_read_stands_before_them() -> None:
    lines = ['%0: f32[4] = state "x"', '%1: i32[1] = input "position" range -4 to 3']
    before, position = 0, -1
    for n in range(3):
        a = len(lines)
        lines.append(f"%{a}: f32[4] = map [i] over i:4: exp(%{before}[i])")
        if not n:
            position = a + 1
            lines.append(f"%{position}: i32[1] = map [0] over: abs(%1[0])")
        b = len(lines)
        lines.append(f"%{b}: f32[4] = scatter add %{a} over: [%{position}[0]] <- %{before}[0]")
        lines.append(f"%{b + 1}: f32[4] = map [i] over i:4: tanh(%{b}[i])")
        lines.append(f"%{b + 2}: f32[4] = map [i] over i:4: (%{b + 1}[i] + %{before}[i])")
        before = b + 2
    graph = FindRepeats().run(parse("\n".join(lines) + f"\noutput %{before}\n"), STORE)
    assert verify(graph) == []
    assert [(r.start, r.period, r.count) for r in graph.repeats] == [(3, 4, 3)]
