"""The verifier catches each rule: one broken graph a rule id, and the unbroken one is legal."""

from __future__ import annotations

from dataclasses import replace

import pytest

from spatialc.ir import expr as ex
from spatialc.ir.graph import Graph, Index, Lookup, Map, Node, Region, Repeat
from spatialc.ir.text import parse
from spatialc.ir.types import F32, I32
from spatialc.ir.verify import VerificationError, is_convex, require, verify

SOURCES = """\
%0: f32[4,6] = input "x"
%1: i64[3] = input "ids" range 0 to 4
%2: f32[5,6] = constant "w"
%3: f32[4,6] = state "s"
"""


def graph(*lines: str) -> Graph:
    return parse(SOURCES + "\n".join(lines) + "\n")


def rules(g: Graph, **flags: bool) -> set[str]:
    return {breach.rule for breach in verify(g, **flags)}


LEGAL = graph(
    "%4: f32[4,5] = contract [i,j] over i:4 j:5 k:6: %0[i,k] * %2[j,k] acc f32",
    "%5: f32[4,5] = map [i,j] over i:4 j:5: exp(%4[i,j])",
    "%6: f32[4] = reduce sum [i] over i:4 j:5: %5[i,j]",
    "%7: f32[3,6] = gather [i,j] over i:3 j:6: %2[%1[i],j]",
    "%8: f32[5,6] = scatter set %2 over i:3 j:6: [%1[i],j] <- %7[i,j]",
    "%9: i64[4,2] = sort %0 axis 1 ascending first 2",
    "%10: f32[4,6] = scan add %0 axis 1",
    "%11: f32[8,6] = move at [0,0] [i,j] over i:4 j:6: %0[i,j]; at [4,0] [i,j] over i:4 j:6: %10[i,j]",
    "output %5, %6, %8, %9, %11",
    'update "s" = %10',
)


def changed(node: int, **fields: object) -> Graph:
    """The legal graph with fields of one node replaced."""
    nodes = list(LEGAL.nodes)
    nodes[node] = replace(nodes[node], **fields)  # type: ignore[arg-type]
    return replace(LEGAL, nodes=tuple(nodes))


def test_the_legal_graph_is_legal() -> None:
    assert verify(LEGAL, canonical=True) == []


@pytest.mark.parametrize(
    ("rule", "broken"),
    [
        ("IR-001", changed(4, id=9)),
        ("IR-001", changed(4, operands=(0, 5))),
        ("IR-001", replace(LEGAL, outputs=(99,))),
        ("IR-002", changed(0, shape=(4, 0))),
        ("IR-002", changed(4, shape=(5, 4))),
        ("IR-003", changed(4, operands=(0,))),
        ("IR-003", changed(5, expr=None)),
        ("IR-003", changed(11, pieces=())),
        ("IR-010", graph("%4: f32[1,6] = map [i,j] over i:1 j:6: %0[i,j]", "output %4")),
        ("IR-010", graph("%4: f32[6] = map [i] over i:6: exp(%0[i])", "output %4")),
        ("IR-010", changed(5, accesses=((Index(0, ((1, 1), (0, 1))), Index()),))),
        ("IR-011", graph("%4: f32[6] = map [i] over i:6: exp(%0[i,0])", "output %4")),
        ("IR-011", graph("%4: f32[4] = map [i] over i:4: exp(%0[i-1,0])", "output %4")),
        ("IR-011", graph("%4: f32[5] = map [i] over i:5: exp(%0[i,0])", "output %4")),
        ("IR-012", graph("%4: f32[4] = map [i] over i:4 j:6: exp(%0[i,j])", "output %4")),
        ("IR-012", graph("%4: f32[4,4] = map [i,i] over i:4: exp(%0[i,0])", "output %4")),
        ("IR-020", changed(5, expr=ex.make("exp", ex.arg(1, F32)))),
        ("IR-020", changed(5, expr=ex.cast(ex.axis(7), F32))),
        ("IR-020", changed(5, expr=ex.const(1.0))),
        ("IR-020", changed(5, expr=ex.cast(ex.arg(0, I32), F32))),
        ("IR-021", changed(5, dtype=I32)),
        ("IR-021", changed(4, acc=I32)),
        ("IR-021", changed(6, op="median")),
        ("IR-021", graph("%4: i64[8,6] = move at [0,0] [i,j] over i:4 j:6: %0[i,j]; at [4,0] [i,j] over i:4 j:6: %0[i,j]", "output %4")),
        ("IR-030", graph("%4: f32[8,6] = move at [0,0] [i,j] over i:4 j:6: %0[i,j]", "output %4")),
        ("IR-030", graph("%4: f32[8,6] = move fill 0 at [5,0] [i,j] over i:4 j:6: %0[i,j]", "output %4")),
        ("IR-031", changed(7, accesses=((Index(0, ((0, 1),)), Index(0, ((1, 1),))), (Index(0, ((0, 1),)),)))),
        ("IR-031", changed(7, operands=(2, 0), accesses=((Lookup(1), Index(0, ((1, 1),))), (Index(0, ((0, 1),)), Index())))),
        ("IR-032", changed(8, mode="xor")),
        ("IR-032", changed(8, shape=(4, 6))),
        ("IR-033", changed(9, count=9)),
        ("IR-033", changed(9, axis=2)),
        ("IR-033", changed(10, op="linear")),
        ("IR-040", replace(LEGAL, updates={"other": 10})),
        ("IR-040", replace(LEGAL, updates={"s": 6})),
        ("IR-040", graph('%4: f32[4,6] = state "s"', "output %4")),
        ("IR-040", graph('%4: f32[5,6] = constant "w"', "output %4")),
        ("IR-050", replace(LEGAL, regions=(Region("r", (5, 6), ("a",)),))),
        ("IR-050", replace(LEGAL, regions=(Region("r", (5, 6), ("a", "b")), Region("q", (6, 7), ("a", "b"))))),
        ("IR-050", replace(LEGAL, repeats=(Repeat(5, 1, 2),))),
    ],
)
def test_a_broken_graph_is_caught(rule: str, broken: Graph) -> None:
    assert rule in rules(broken)


@pytest.mark.parametrize(
    ("rule", "broken"),
    [
        ("IR-012", graph("%4: f32[4,6] = reduce sum [i,j] over i:4 j:6: %0[i,j]", "output %4")),
        ("IR-012", graph("%4: f32[4,6] = contract [i,j] over i:4 j:6: %0[i,j] * %0[i,j] acc f32", "output %4")),
        ("IR-013", graph("%4: f32[24] = map [(i j k)] over i:4 j:2 k:3: exp(%0[i,3*j+k])", "output %4")),
        ("IR-013", graph("%4: f32[4] = reduce sum [i] over i:4 j:2 k:3: %0[i,3*j+k]", "output %4")),
        (
            "IR-030",
            graph("%4: f32[6,4] = move [i,j] over i:6 j:4: %0[j,i]", "%5: f32[6,4] = map [i,j] over i:6 j:4: exp(%4[i,j])", "output %5"),
        ),
    ],
)
def test_canonical_rules(rule: str, broken: Graph) -> None:
    assert rule not in rules(broken)
    assert rule in rules(broken, canonical=True)


def test_a_gather_whose_indices_all_miss_is_caught() -> None:
    g = parse('%0: f32[4,6] = input "x"\n%1: i64[3] = input "i" range 4 to 9\n%2: f32[3] = gather [i] over i:3: %0[%1[i],0]\noutput %2\n')
    assert rules(g) == {"IR-031"}


def test_narrowed_graphs_have_no_wide_integers_inside() -> None:
    g = graph("%4: i64[3] = map [i] over i:3: (%1[i] + 1)", "%5: f32[3] = gather [i] over i:3: %0[%4[i],0]", "output %5")
    assert "IR-041" in rules(g, narrowed=True)
    assert "IR-041" not in rules(graph("%4: f32[4] = map [i] over i:4: select((i <= i), %0[i,0], 1)", "output %4"), narrowed=True)


def test_breaches_show_the_node_its_operands_and_the_origin() -> None:
    nodes: list[Node] = list(LEGAL.nodes)
    origin = replace(nodes[5].origin, fx=("exp_3",), source="model.py:7")
    nodes[5] = replace(nodes[5], dtype=I32, origin=origin)
    breach = next(b for b in verify(replace(LEGAL, nodes=tuple(nodes))) if b.node == 5)
    assert breach.lines[0].startswith("%5: i32[4,5] = map") and breach.lines[1].startswith("%4: ")
    assert "exp_3 | model.py:7" in str(breach)


def test_require_raises_with_all_breaches() -> None:
    node = LEGAL.nodes[5]
    assert isinstance(node, Map)
    with pytest.raises(VerificationError, match="after frob") as error:
        require(changed(5, dtype=I32), "frob")
    assert len(error.value.breaches) >= 1


def test_convexity() -> None:
    g = graph(
        "%4: f32[4,6] = map [i,j] over i:4 j:6: exp(%0[i,j])",
        "%5: f32[4,6] = map [i,j] over i:4 j:6: neg(%4[i,j])",
        "%6: f32[4,6] = map [i,j] over i:4 j:6: (%4[i,j] + %5[i,j])",
        "output %6",
    )
    assert is_convex(g, (4, 5, 6)) and is_convex(g, (4, 5)) and not is_convex(g, (4, 6))
    assert rules(replace(g, regions=(Region("r", (4, 6), ("a", "b")),))) == {"IR-050"}


def test_repeats_correspond() -> None:
    layers = [
        f"%{4 + 2 * n}: f32[4,6] = map [i,j] over i:4 j:6: exp(%{3 + 2 * n if n else 0}[i,j])" + "\n"
        f"%{5 + 2 * n}: f32[4,6] = map [i,j] over i:4 j:6: neg(%{4 + 2 * n}[i,j])"
        for n in range(3)
    ]
    g = graph(*layers, "output %9")
    assert rules(replace(g, repeats=(Repeat(4, 2, 3),))) == set()
    assert rules(replace(g, repeats=(Repeat(4, 3, 2),))) == {"IR-050"}
    crossed = graph(
        *layers[:2],
        "%8: f32[4,6] = map [i,j] over i:4 j:6: exp(%5[i,j])",
        "%9: f32[4,6] = map [i,j] over i:4 j:6: neg(%8[i,j])",
        "output %9",
    )
    assert rules(replace(crossed, repeats=(Repeat(4, 2, 3),))) == {"IR-050"}
