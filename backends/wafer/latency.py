"""The latency kind of section 10: what a chain of products costs on one rectangle a layer, whatever the block layout.

It is defined where a step depends on all of the step before: every product with weights reads its input whole (one row, as in decode).
The chain is the longest path of products in the graph; values pass through nodes that compute point by point, reduce or assemble. Each
product pays its share of multiply-accumulates and half a line (the cores far from the root may be given less), or the whole line where
that is more; lines are the rectangle's two sides in turn. It bounds a class of schedules, not the machine.
"""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass
from math import prod

import numpy as np

from ...ir.access import axes_used
from ...ir.graph import Constant, Contract, Graph, Map, Move, Reduce, Scatter, State
from ...machines.wafer.description import WaferMachine
from ...machines.wafer.isa import WORDS
from .stage import element_of


@dataclass(frozen=True)
class Link:
    """One product of a chain: its multiply-accumulates, and the groups among which its line is divided (those of the KV heads for
    scores, else 1)."""

    macs: int
    groups: int


def class_bound(graph: Graph, machine: WaferMachine, region: tuple[int, int] | None = None) -> int | None:
    """`class_bound_cycles`, None where the kind is not defined: products of several rows, or no chain. `region` is (columns, rows)."""
    chain = _chain(graph)
    if len(chain) < 2:
        return None
    starts = sorted({0} | {r.start + c * r.period for r in graph.repeats for c in range(r.count + 1)})
    layers: dict[int, list[Link]] = {}
    for before, node in zip([None, *chain[:-1]], chain, strict=True):
        layers.setdefault(bisect_right(starts, node.id) - 1, []).append(_link(graph, before, node))
    words = dict.fromkeys(layers, 0)
    for source, number in {(o, bisect_right(starts, n.id) - 1) for n in graph.nodes for o in n.operands}:
        if number in words and isinstance(graph[source], (Constant, State)):
            words[number] += graph[source].size * WORDS[element_of(graph[source].dtype)]
    known: dict[tuple[tuple[Link, ...], int], int] = {}
    total = 0
    for number, links in layers.items():
        key = (tuple(links), words[number])
        if key not in known:
            known[key] = layer_cycles(machine, key[0], key[1], region)
        total += known[key]
    return total


def layer_cycles(machine: WaferMachine, links: tuple[Link, ...], words: int, region: tuple[int, int] | None = None) -> int:
    """The cheapest rectangle that holds `words`, with either side first; 0 where none holds them."""
    data = machine.memory_words - machine.data_first_word
    cols, rows = region or (machine.program_cols, machine.program_rows)
    a, b = np.arange(1, rows + 1)[:, None], np.arange(1, cols + 1)[None, :]
    if region:
        a, b = a[-1:], b[:, -1:]
    best = None
    for sides in ((a, b), (b, a)):
        total = np.zeros((a.shape[0], b.shape[1]), np.int64)
        for number, link in enumerate(links):
            line = np.maximum(sides[number % 2] // link.groups, 1)
            local = -(-link.macs // (a * b * machine.widths["fmachs"]))
            total += np.maximum(local + line // 2, line - 1) + 2 * machine.ramp_cycles + 1
        fitting = total[a * b * data >= words]
        if fitting.size:
            best = int(fitting.min()) if best is None else min(best, int(fitting.min()))
    return best or 0


def _chain(graph: Graph) -> list[Contract]:
    """The longest path of products, the one of most multiply-accumulates among equals; empty where a product with weights has rows."""
    reach: list[tuple[int, int, int]] = []
    """Per node: products on the best path to it, their multiply-accumulates, and the last of them (-1: none)."""
    before: dict[int, int] = {}
    for node in graph.nodes:
        best = (0, 0, -1)
        if isinstance(node, (Map, Reduce, Move, Scatter, Contract)):
            best = max((reach[o] for o in node.operands), key=lambda r: (r[0], r[1], -r[2]), default=best)
        if isinstance(node, Contract):
            if _rows(graph, node) > 1:
                return []
            before[node.id] = best[2]
            best = (best[0] + 1, best[1] + prod(node.axes), node.id)
        reach.append(best)
    end = max(reach, key=lambda r: (r[0], r[1], -r[2]), default=(0, 0, -1))[2]
    path = []
    while end >= 0:
        node = graph[end]
        assert isinstance(node, Contract)
        path.append(node)
        end = before[end]
    return path[::-1]


def _rows(graph: Graph, node: Contract) -> int:
    """Outputs that read different parts of the activation of a product with weights; 1 for a product of two activations."""
    weights = [isinstance(graph[o], Constant) for o in node.operands]
    if not any(weights):
        return 1
    kept = {a for group in node.groups for a in group}
    return prod(node.axes[a] for a in kept & axes_used(node.accesses[weights.index(True) - 1]))


def _link(graph: Graph, before: Contract | None, node: Contract) -> Link:
    """Scores, the product of two activations that follows one with weights, sum along the columns of one group."""

    def weighted(product: Contract) -> bool:
        return any(isinstance(graph[o], Constant) for o in product.operands)

    shared = axes_used(node.accesses[0]) & axes_used(node.accesses[1]) - set(node.reduced)
    scores = not weighted(node) and before is not None and weighted(before)
    return Link(prod(node.axes), prod(node.axes[a] for a in shared) if scores else 1)
