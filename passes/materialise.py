"""Moves where a backend cannot address an operand: the inverse of folding views.

A backend says `can_address(node, operand)`, operand being a position in the node's operands. Where it cannot, a Move writes the operand
as the node walks it (one dimension an axis that the access uses, in the order of the axes), and the node reads that with a plain access.
Layout changes stay a decision, visible and costed; equal Moves are one node.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import ClassVar

from ..ir.access import axes_used, is_affine
from ..ir.graph import Access, Contract, Gather, Graph, GraphBuilder, Index, Map, Move, Node, Piece, Reduce
from ..ir.normal import normal_axes
from ..ir.store import ConstantStore
from ..ir.verify import require
from .base import Pass

CanAddress = Callable[[Node, int], bool]


@dataclass(frozen=True)
class Materialise(Pass):
    """Inserts the Moves that `can_address` asks for."""

    name: ClassVar[str] = "materialise"
    can_address: CanAddress = lambda node, operand: True

    def run(self, graph: Graph, store: ConstantStore) -> Graph:
        return materialise(graph, self.can_address)

    def ensures(self, graph: Graph) -> None:
        require(graph, self.name)


def materialise(graph: Graph, can_address: CanAddress) -> Graph:
    """The graph with a Move before every operand that the backend cannot address. Regions and repeats are dropped: find them after."""
    builder = GraphBuilder()
    new_id: list[int] = []
    for node in graph.nodes:
        moved = replace(node, operands=tuple(new_id[o] for o in node.operands))
        if isinstance(moved, Map | Reduce | Contract | Gather):
            for number in range(len(node.operands)):
                if not can_address(node, number):
                    moved = _with_move(builder, moved, number)
        new_id.append(builder.add(moved))
    return builder.finish([new_id[o] for o in graph.outputs], {k: new_id[v] for k, v in graph.updates.items()})


def _with_move(builder: GraphBuilder, node: Map | Reduce | Contract | Gather, number: int) -> Map | Reduce | Contract | Gather:
    access = node.accesses[number]
    if not is_affine(access):
        return node
    walked = sorted(axes_used(access))
    place = {axis: n for n, axis in enumerate(walked)}
    extents = tuple(node.axes[a] for a in walked)
    local: Access = tuple(Index(e.offset, tuple((place[a], c) for a, c in e.terms)) for e in access if isinstance(e, Index))
    groups = tuple((n,) for n in range(len(walked)))
    piece = normal_axes(Piece(0, extents, local, groups, (0,) * len(walked), (1,) * len(walked)))
    source = builder.nodes[node.operands[number]]
    if extents == source.shape and all(e == Index(0, ((d, 1),)) for d, e in enumerate(local)):
        return node
    made = builder.new(Move, (source.id,), dtype=source.dtype, shape=extents, origin=node.origin, pieces=(piece,))
    plain: Access = tuple(Index(0, ((axis, 1),)) for axis in walked)
    operands = (*node.operands[:number], made, *node.operands[number + 1 :])
    return replace(node, operands=operands, accesses=(*node.accesses[:number], plain, *node.accesses[number + 1 :]))
