"""Copies for what leaves a graph without being computed in it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from ..ir.graph import Graph, Move, Node, whole_piece


def with_copies(graph: Graph, uncomputed: Callable[[Node], bool]) -> Graph:
    """The graph with a copy, at its end, for every output and new value of a state that `uncomputed` holds for.

    A state that keeps its value needs none.
    """
    nodes = list(graph.nodes)

    def computed(number: int) -> int:
        node = graph[number]
        if not uncomputed(node):
            return number
        pieces = (whole_piece(node.shape),)
        nodes.append(Move(id=len(nodes), operands=(number,), dtype=node.dtype, shape=node.shape, origin=node.origin, pieces=pieces))
        return len(nodes) - 1

    outputs = tuple(computed(o) for o in graph.outputs)
    same = {(node.name, node.id) for node in graph.states}
    updates = {name: number if (name, number) in same else computed(number) for name, number in sorted(graph.updates.items())}
    return replace(graph, nodes=tuple(nodes), outputs=outputs, updates=updates)
