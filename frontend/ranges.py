"""Ranges of integer inputs from their use: an id that indexes a table of n rows lies in [0, n).

An index that wraps (negative positions count from the end) lies in [-n, n). The range is inclusive, like `Input.range`; an input with
several uses takes what all of them allow.
"""

from __future__ import annotations

import dataclasses

from ..ir.expr import Expr, arg
from ..ir.graph import Gather, Graph, Input, Lookup, Map, Move, Node, Scatter, State
from .scalar import op


def derive_ranges(graph: Graph) -> Graph:
    """`graph` with the ranges of integer inputs and states that positions come from directly (through views and wrapping)."""
    found: dict[int, tuple[int, int]] = {}
    for node in graph.nodes:
        if not isinstance(node, Gather | Scatter):
            continue
        base = graph[node.operands[0]]
        access = node.accesses[0] if isinstance(node, Gather) else node.target
        for extent, index in zip(base.shape, access, strict=True):
            if isinstance(index, Lookup):
                source, low = _source(graph, graph[node.operands[index.operand]], extent)
                if isinstance(source, Input | State):
                    old = found.get(source.id, (low, extent - 1))
                    found[source.id] = (max(old[0], low), min(old[1], extent - 1))
    if not found:
        return graph
    nodes = [_ranged(node, found) for node in graph.nodes]
    return dataclasses.replace(graph, nodes=tuple(nodes))


def _ranged(node: Node, found: dict[int, tuple[int, int]]) -> Node:
    if node.id in found and isinstance(node, Input | State) and found[node.id][0] <= found[node.id][1]:
        return dataclasses.replace(node, range=found[node.id])
    return node


def _source(graph: Graph, node: Node, extent: int) -> tuple[Node, int]:
    """The node whose values are the positions, and the lowest one it may hold."""
    low = 0
    while True:
        if isinstance(node, Move) and node.is_view:
            node = graph[node.operands[0]]
        elif isinstance(node, Map) and len(node.operands) == 1 and node.expr is _wrap(arg(0, graph[node.operands[0]].dtype), extent):
            node, low = graph[node.operands[0]], -extent
        else:
            return node, low


def _wrap(leaf: Expr, extent: int) -> Expr:
    return op("select", op("lt", leaf, 0), op("add", leaf, extent), leaf)
