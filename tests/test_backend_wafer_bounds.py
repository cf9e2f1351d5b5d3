"""The bounds that a wafer program carries: every kind, and the latency of the class of block layouts beside them."""

from __future__ import annotations

from dataclasses import replace
from itertools import product
from math import ceil

import numpy as np
import pytest

from spatialc.backends.wafer import lower_bound
from spatialc.backends.wafer.latency import Link, class_bound, layer_cycles
from spatialc.ir.graph import Constant, ConstantRef, Contract, Graph, GraphBuilder, Index, Input, Repeat, State
from spatialc.ir.types import F16, F32
from spatialc.machines.catalog import load_machine

SMALL = load_machine("wafer", "wafer-wse2", {"program_cols": 14, "program_rows": 11})
WORDS, WIDTH, D = 16_896, 2, 5


def brute(links: tuple[Link, ...], words: int) -> int:
    """The page's formula, rectangle by rectangle."""
    found = []
    for a, b in product(range(1, 12), range(1, 15)):
        if a * b * WORDS < words:
            continue
        for sides in ((a, b), (b, a)):
            total = 0
            for i, link in enumerate(links):
                line = max(1, sides[i % 2] // link.groups)
                total += max(ceil(link.macs / (a * b * WIDTH)) + line // 2, line - 1) + D
            found.append(total)
    return min(found, default=0)


@pytest.mark.parametrize("seed", range(6))
def test_layers_by_brute_force(seed: int) -> None:
    rng = np.random.default_rng(seed)
    links = tuple(Link(int(rng.integers(1, 4000)), int(rng.choice([1, 1, 1, 3]))) for _ in range(rng.integers(1, 7)))
    words = int(rng.integers(0, 100 * WORDS))
    assert layer_cycles(SMALL, links, words) == brute(links, words)


def at(*axes: int) -> tuple[Index, ...]:
    return tuple(Index(0, ((a, 1),)) for a in axes)


def attention(rows: int, layers: int = 1) -> Graph:
    """Layers of query, scores against a cache of 20 positions in 2 groups, values, output."""
    b = GraphBuilder()
    x = b.new(Input, dtype=F16, shape=(rows, 8), name="x")
    if rows == 1:
        x = b.new(Input, dtype=F16, shape=(8,), name="y")
    wanted = []
    for layer in range(layers):
        wq, wo = (b.new(Constant, dtype=F16, shape=(8, 8), ref=ConstantRef(f"w{layer}{k}", F16, (8, 8))) for k in range(2))
        cache = b.new(State, dtype=F16, shape=(2, 20, 4), name=f"s{layer}")
        wanted.append((wq, wo, cache))
    for wq, wo, cache in wanted:
        nest = {"dtype": F16, "acc": F32}
        if rows > 1:
            return b.finish([b.new(Contract, (x, wq), shape=(rows, 8), axes=(rows, 8, 8), accesses=(at(0, 2), at(1, 2)),
                                   groups=((0,), (1,)), **nest)])  # fmt: skip
        q = b.new(Contract, (x, wq), shape=(2, 4), axes=(2, 4, 8), accesses=(at(2), (Index(0, ((0, 4), (1, 1))), *at(2))),
                  groups=((0,), (1,)), **nest)  # fmt: skip
        s = b.new(Contract, (q, cache), shape=(2, 20), axes=(2, 20, 4), accesses=(at(0, 2), at(0, 1, 2)), groups=((0,), (1,)), **nest)
        v = b.new(Contract, (s, cache), shape=(2, 4), axes=(2, 4, 20), accesses=(at(0, 2), at(0, 2, 1)), groups=((0,), (1,)), **nest)
        x = b.new(Contract, (v, wo), shape=(8,), axes=(8, 2, 4), accesses=(at(1, 2), (*at(0), Index(0, ((1, 4), (2, 1))))),
                  groups=((0,),), **nest)  # fmt: skip
    return b.finish([x])


def test_a_decode_step() -> None:
    links = (Link(64, 1), Link(160, 2), Link(160, 1), Link(64, 1))
    assert class_bound(attention(1), SMALL) == brute(links, 2 * 64 + 160)
    two = attention(1, 2)
    first = min(n.id for n in two.nodes if isinstance(n, Contract))
    assert class_bound(replace(two, repeats=(Repeat(first, 4, 2),)), SMALL) == 2 * brute(links, 2 * 64 + 160)


def test_rows_have_no_latency_kind() -> None:
    found = lower_bound(attention(5), SMALL)
    assert class_bound(attention(5), SMALL) is None and "class_bound_cycles" not in found
    assert {"compute", "link", "io", "bound_kind"} <= set(found)


def test_the_class_bound_stands_beside_the_bound() -> None:
    found = lower_bound(attention(1), SMALL)
    assert found["bound_cycles"] == max(1, found["compute"], found["link"], found["io"])
    assert found["class_bound_cycles"] > found["bound_cycles"]
