"""Canonicalisation: equal computations become equal nodes, views vanish, constants fold (docs/ir.md section 11).

One walk builds a new graph from the old one, node by node, with every rule applied to the node over its already canonical operands;
equal nodes merge as they are added and dead ones go at the end. Walks repeat until nothing changes: the first leaves Maps where they
are, so that readers are counted on a graph without views and duplicates, later ones inline. The number of walks does not depend on the
size of the graph.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import prod
from typing import ClassVar

from ..ir import expr as ex
from ..ir.graph import Constant, Graph, GraphBuilder, Index, Map, Move, Node, Reduce
from ..ir.interval import ExprIntervals, Interval, whole
from ..ir.interval import interval_of as node_interval
from ..ir.normal import normalise
from ..ir.store import ConstantStore
from ..ir.verify import require
from .assembly import simplify_move
from .base import Pass
from .fold import Folder
from .guards import Guards
from .inline import inline, may_inline
from .lookups import affine_lookups, as_map, lookup_in_expression, simpler_kind
from .reads import fold_reads
from .regroup import regroup_views

_MOST_WALKS = 6


@dataclass(frozen=True)
class Canonicalise(Pass):
    """Rules 1 to 6 of docs/ir.md section 11, to a fixed point."""

    name: ClassVar[str] = "canonicalise"
    inline_maps: bool = True

    def run(self, graph: Graph, store: ConstantStore) -> Graph:
        for number in range(_MOST_WALKS):
            before = graph
            graph = _Walk(graph, store, inlining=self.inline_maps and number > 0).run()
            graph = regroup_views(graph)
            if number > 0 and graph == before:
                break
        return graph

    def ensures(self, graph: Graph) -> None:
        require(graph, self.name, canonical=True)


def canonicalise(graph: Graph, store: ConstantStore) -> Graph:
    """The graph in canonical form: same outputs and updates, overlays dropped."""
    return Canonicalise().run(graph, store)


class _Walk:
    """One walk over a graph."""

    def __init__(self, graph: Graph, store: ConstantStore, *, inlining: bool) -> None:
        self.graph = graph
        self.builder = GraphBuilder()
        self.new_id: list[int] = []
        self.inlining = inlining
        self.folder = Folder(store, self.at)
        self.guards = Guards(store, self.at)
        self.reads = _reads(graph)
        self.reads_of_new: dict[int, int] = {}
        self.store = store
        self._intervals: dict[int, Interval] = {}

    def at(self, node_id: int) -> Node:
        return self.builder.nodes[node_id]

    def run(self) -> Graph:
        for node in self.graph.nodes:
            moved = replace(node, operands=tuple(self.new_id[o] for o in node.operands))
            new = self._add(self._simplified(moved))
            self.new_id.append(new)
            self.reads_of_new[new] = self.reads_of_new.get(new, 0) + self.reads[node.id]
        outputs = [self.new_id[o] for o in self.graph.outputs]
        return self.builder.finish(outputs, {k: self.new_id[v] for k, v in self.graph.updates.items()})

    def _add(self, node: Node) -> int:
        """Add a node, or the node it is a mere copy of."""
        if isinstance(node, Move) and node.is_view and _is_identity(node, self.at(node.operands[0])):
            return node.operands[0]
        for operand in self.folder.needs_tensor(node):
            value = self.folder.value(operand)
            if value is not None:
                constant = self.builder.add(self.folder.stored(self.at(operand), value))
                node = replace(node, operands=tuple(constant if o == operand else o for o in node.operands))
        return self.builder.add(node)

    def _simplified(self, node: Node) -> Node:
        if isinstance(node, Constant):
            return self.folder.fold(node)
        for _ in range(8):
            before = node
            if isinstance(node, Move):
                node = self._without_iota(normalise(simplify_move(node, self.at)))
            elif node.operands or isinstance(node, Map):
                node = self._nest(node)
            if node == before:
                break
        return self.folder.fold(node)

    def _without_iota(self, node: Node) -> Node:
        """A view of an expression over axes is such an expression itself."""
        if not isinstance(node, Move) or not node.is_view:
            return node
        source = self.at(node.operands[0])
        if not isinstance(source, Map) or source.operands:
            return node
        return inline(as_map(node), 0, source) or node

    def _nest(self, node: Node) -> Node:
        node = lookup_in_expression(affine_lookups(fold_reads(node, self.at), self.at), self.at)
        if isinstance(node, Map | Reduce):
            node = self._inlined(node)
            node = self._decided(self.guards.without_guards(node))
        node = simpler_kind(node, self.at)
        return normalise(node)

    def _inlined(self, node: Map | Reduce) -> Map | Reduce:
        number = 0
        while number < len(node.operands):
            producer = self.at(node.operands[number])
            count = self.reads_of_new.get(producer.id, 0)
            result = None
            wanted = isinstance(producer, Map) and (self.inlining or not producer.operands)
            if wanted and isinstance(producer, Map) and may_inline(producer, count):
                result = inline(node, number, producer)
            if result is None:
                number += 1
            else:
                node, number = result, 0
        return node

    def _decided(self, node: Map | Reduce) -> Map | Reduce:
        """Comparisons, selects and integer arithmetic that intervals decide."""
        if all(e.dtype.is_float for e in ex.postorder(node.expr)):
            return node
        args = [self._interval(o) for o in node.operands]
        expr = ExprIntervals(node.axes, args).decided(node.expr)
        return node if expr is node.expr else replace(node, expr=expr)

    def _interval(self, node_id: int) -> Interval:
        """The interval of a node of the new graph; floats are not followed."""
        if node_id not in self._intervals:
            node = self.at(node_id)
            if node.dtype.is_float:
                self._intervals[node_id] = whole(node.dtype)
            else:
                shapes = [self.at(o).shape for o in node.operands]
                self._intervals[node_id] = node_interval(node, [self._interval(o) for o in node.operands], shapes, self.store)
        return self._intervals[node_id]


def _reads(graph: Graph) -> list[int]:
    """How often every node is read, outputs and updates included. (The first walk inlines nothing, so later ones meet no foldable view.)"""
    reads = [0] * len(graph.nodes)
    for root in (*graph.outputs, *graph.updates.values()):
        reads[root] += 1
    for node in graph.nodes:
        for operand in node.operands:
            reads[operand] += 1
    return reads


def _is_identity(view: Move, source: Node) -> bool:
    piece = view.pieces[0]
    if view.shape != source.shape:
        return False
    if prod(piece.axes) != source.size:
        return False
    return all(e == Index(0, tuple((a, 1) for a in g)) and len(g) <= 1 for e, g in zip(piece.access, piece.groups, strict=True))
