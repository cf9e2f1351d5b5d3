"""Cut a graph into stages, each for a rectangle of its own; layers that repeat become equal stages.

A stage is a run of nodes in graph order. It reads constants, inputs and states where it likes, values of earlier stages as *imports*, and
offers as *exports* what later stages read (values that only pass through are both), the last of several equal layers what the others offer.
Equal stages have equal keys: they are compiled once.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

from ...ir.graph import Constant, Graph, Input, Node, State
from ...machines.wafer.isa import WORDS
from .stage import stored_element


@dataclass(frozen=True)
class Part:
    """One stage as a graph of its own: imports first (as inputs), then sources, then the nodes; `original` are their ids outside."""

    graph: Graph
    imports: tuple[int, ...]
    """Ids in `graph`, in the order of the ids outside."""
    exports: tuple[int, ...]
    outputs: tuple[tuple[int, int], ...]
    """(number of the program's output, id in `graph`)."""
    original: tuple[int, ...]
    key: tuple[Any, ...]

    def taken(self, before: Part) -> list[int]:
        """Which of the exports of the stage before are the imports of this one, in order: positions in its `exports`."""
        offered = [before.original[i] for i in before.exports]
        return [offered.index(self.original[i]) for i in self.imports]

    def words(self) -> int:
        """Words of the constants that it reads, each once."""
        return sum(n.size * WORDS[stored_element(n)] for n in self.graph.constants)


def cut_points(graph: Graph, words: int) -> list[int]:
    """Node ids at which stages begin: the copies of repeats, or else nothing when all constants are fewer than `words`."""
    if sum(n.size * WORDS[stored_element(n)] for n in graph.constants) <= words:
        return [0]
    points = {0}
    for repeat in graph.repeats:
        points |= {repeat.start + c * repeat.period for c in range(repeat.count + 1)}
    return sorted(p for p in points if p < len(graph.nodes))


def split(graph: Graph, points: list[int]) -> list[Part]:
    """The stages that begin at `points`; stages without nodes that compute are joined to the next."""
    bounds = [*points, len(graph.nodes)]
    spans = [(a, b) for a, b in pairwise(bounds) if any(not _source(n) for n in graph.nodes[a:b])]
    stage_of = {}
    for number, (a, b) in enumerate(spans):
        for node in graph.nodes[a:b]:
            if not _source(node):
                stage_of[node.id] = number
    last_use: dict[int, int] = {}
    for node in graph.nodes:
        if not _source(node):
            for operand in node.operands:
                if operand in stage_of:
                    last_use[operand] = max(last_use.get(operand, 0), stage_of[node.id])
    live_outs = [sorted(v for v, last in last_use.items() if stage_of[v] <= number < last) for number in range(len(spans))]
    _alike(graph, spans, live_outs)
    parts = []
    for number, live_out in enumerate(live_outs):
        live_in = sorted(v for v, last in last_use.items() if stage_of[v] < number <= last)
        nodes = [graph[i] for i in sorted(stage_of) if stage_of[i] == number]
        unread = [n.id for n in (*graph.inputs, *graph.states) if not graph.users[n.id]] if number == len(spans) - 1 else []
        parts.append(_part(graph, nodes, live_in, live_out, unread))
    return parts


def _alike(graph: Graph, spans: list[tuple[int, int]], live_outs: list[list[int]]) -> None:
    """The last copy of a repeat exports what the others export, though nobody reads all of it: it is then the same stage as they are."""
    number_of = {a: number for number, (a, _) in enumerate(spans)}
    for repeat in graph.repeats:
        start = repeat.start + (repeat.count - 1) * repeat.period
        if start in number_of and start - repeat.period in number_of:
            others = {v + repeat.period for v in live_outs[number_of[start - repeat.period]]}
            last = number_of[start]
            if min(others, default=start) >= start and set(live_outs[last]) < others:
                live_outs[last] = sorted(others)


def _source(node: Node) -> bool:
    return isinstance(node, (Constant, Input, State))


def _part(graph: Graph, nodes: list[Node], live_in: list[int], live_out: list[int], unread: list[int]) -> Part:
    inside = {n.id for n in nodes}
    updates = {name: v for name, v in sorted(graph.updates.items()) if v in inside}
    sources = {o for n in nodes for o in n.operands if _source(graph[o])} | {s.id for s in graph.states if s.name in updates} | set(unread)
    original = [*live_in, *sorted(sources), *(n.id for n in nodes)]
    number = {old: new for new, old in enumerate(original)}
    made: list[Node] = []
    for old in original:
        node = graph[old]
        if old in live_in:
            made.append(Input(id=number[old], operands=(), dtype=node.dtype, shape=node.shape, origin=node.origin, name=f"@{number[old]}"))
        else:
            made.append(replace(node, id=number[old], operands=tuple(number[o] for o in node.operands)))
    outputs = tuple((k, number[o]) for k, o in enumerate(graph.outputs) if o in inside)
    exports = tuple(number[v] for v in live_out)
    sub = Graph(tuple(made), tuple(i for _, i in outputs), {name: number[v] for name, v in updates.items()})
    names = {n.name: f"s{n.id}" for n in sub.states}
    key = (tuple(_anonymous(n) for n in made), exports, outputs, tuple(sorted((names[k], v) for k, v in sub.updates.items())))
    return Part(sub, tuple(range(len(live_in))), exports, outputs, tuple(original), key)


def _anonymous(node: Node) -> Node:
    """The node without what differs between equal layers: names of constants and states."""
    if isinstance(node, Constant):
        return replace(node, ref=replace(node.ref, key=f"c{node.id}"))
    return replace(node, name=f"s{node.id}", initial=None) if isinstance(node, State) else node
