"""Repeats: layers that compute the same with other weights (docs/ir.md section 8), found without graph isomorphism.

Every node has a token (everything but ids, constant keys and state names). Where the sequence of tokens equals its own shift by a period
for long enough, copies correspond if their operands do. Sources are left out of the sequence, so it does not matter where constants
stand; the graph is first put in an order in which sources come before everything else.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

from ..ir.graph import Constant, Graph, Input, Node, Region, Repeat, State
from ..ir.store import ConstantStore
from ..ir.verify import corresponds, require, token
from .base import Pass

_SHORTEST = 4  # nodes of a period worth compiling once


@dataclass(frozen=True)
class FindRepeats(Pass):
    """Adds repeats to the graph; sources move to the front."""

    name: ClassVar[str] = "repeats"

    def run(self, graph: Graph, store: ConstantStore) -> Graph:
        graph = sources_first(graph)
        return replace(graph, repeats=find_repeats(graph))

    def ensures(self, graph: Graph) -> None:
        require(graph, self.name)


def sources_first(graph: Graph) -> Graph:
    """The same graph with inputs, constants and states first, then what depends on inputs alone, each part in its old order.

    What is computed from inputs alone (a position, a mask) is shared by the layers, but stands in the first one that reads it.
    """
    ranks: list[int] = []
    for node in graph.nodes:
        shared = bool(node.operands) and all(isinstance(graph[o], Input) or ranks[o] == 1 for o in node.operands)
        ranks.append(0 if isinstance(node, Input | Constant | State) else 1 if shared else 2)
    order = sorted(range(len(graph.nodes)), key=lambda n: (ranks[n], n))
    new_id = [0] * len(order)
    for place, old in enumerate(order):
        new_id[old] = place
    nodes: list[Node] = []
    for old in order:
        node = graph[old]
        nodes.append(replace(node, id=len(nodes), operands=tuple(new_id[o] for o in node.operands)))
    regions = tuple(
        Region(r.kind, *zip(*sorted((new_id[n], role) for n, role in zip(r.nodes, r.roles, strict=True)), strict=True))
        for r in graph.regions
    )
    return Graph(tuple(nodes), tuple(new_id[o] for o in graph.outputs), {k: new_id[v] for k, v in graph.updates.items()}, regions)


def find_repeats(graph: Graph) -> tuple[Repeat, ...]:
    """Repeats that do not overlap, the one that covers most nodes first; returned in order."""
    numbers: dict[object, int] = {}
    tokens = [numbers.setdefault(token(n), len(numbers)) for n in graph.nodes]
    free = [not isinstance(n, Input | Constant | State) for n in graph.nodes]
    found: list[Repeat] = []
    while True:
        best = _best(graph, tokens, free)
        if best is None:
            return tuple(sorted(found, key=lambda r: r.start))
        found.append(best)
        for n in range(best.start, best.start + best.period * best.count):
            free[n] = False


def _best(graph: Graph, tokens: list[int], free: list[bool]) -> Repeat | None:
    """The repeat that covers most free nodes, with the shortest period among equals."""
    best: Repeat | None = None
    for period in _periods(tokens, free):
        for start, length in _runs(tokens, free, period):
            repeat = _aligned(graph, start, period, length)
            if repeat is None:
                continue
            covered = repeat.period * repeat.count
            if best is None or (covered, -repeat.period) > (best.period * best.count, -best.period):
                best = repeat
    return best


def _periods(tokens: list[int], free: list[bool]) -> list[int]:
    """Distances between successive occurrences of rare tokens: the period of a repeat is among them."""
    places: dict[int, list[int]] = {}
    for n, t in enumerate(tokens):
        if free[n]:
            places.setdefault(t, []).append(n)
    counts: dict[int, int] = {}
    for line in places.values():
        for step in (1, 2, 3, 4):
            for a, b in zip(line, line[step:], strict=False):
                counts[b - a] = counts.get(b - a, 0) + 1
    likely = sorted(counts, key=lambda p: (-counts[p], p))
    return sorted(p for p in likely[:64] if p >= _SHORTEST)


def _runs(tokens: list[int], free: list[bool], period: int) -> list[tuple[int, int]]:
    """Maximal stretches (start, length) in which every token equals the one a period later, length counted without that period."""
    runs = []
    start = None
    for n in range(len(tokens) - period + 1):
        same = n < len(tokens) - period and tokens[n] == tokens[n + period] and free[n] and free[n + period]
        if same and start is None:
            start = n
        elif not same and start is not None:
            if n - start >= period:
                runs.append((start, n - start))
            start = None
    return runs


def _aligned(graph: Graph, start: int, period: int, length: int) -> Repeat | None:
    """The longest repeat inside a run whose operands correspond, over the places where a copy may begin."""
    best: Repeat | None = None
    for shift in range(min(period, length - period + 1)):
        most = (length - shift) // period + 1
        if best is not None and most <= best.count:
            break
        first, count = _matching(graph, start + shift, period, most)
        if count >= 2 and (best is None or count > best.count):
            best = Repeat(first, period, count)
    return best


def _matching(graph: Graph, start: int, period: int, most: int) -> tuple[int, int]:
    """The longest chain of corresponding copies among `most` from `start`: where it begins, and how many."""
    best = (start, 1)
    first = start
    while (most - (first - start) // period) > best[1]:
        count = 1
        limit = most - (first - start) // period
        while count < limit and _copy_corresponds(graph, Repeat(first, period, limit), count):
            count += 1
        if count > best[1]:
            best = (first, count)
        first += period * count
    return best


def _copy_corresponds(graph: Graph, repeat: Repeat, copy: int) -> bool:
    for r in range(repeat.period):
        before = graph[repeat.start + (copy - 1) * repeat.period + r]
        node = graph[repeat.start + copy * repeat.period + r]
        for a, b in zip(before.operands, node.operands, strict=True):
            if not corresponds(graph, repeat, copy, a, b):
                return False
    return True
