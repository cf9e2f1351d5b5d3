"""Regions: which nodes a backend may run as one program (an overlay; the graph means the same without it).

Matched from seeds along users: attention (two contractions around a softmax), softmax, norm, routed (a Gather that only feeds a
contraction), contraction (with the Maps before it whose work is not repeated along N and the Maps after it on the same M, N box),
pointwise (Maps that only feed Maps). Regions are convex, and a node is in at most one.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

from ..ir.access import contract_size
from ..ir.graph import Contract, Gather, Graph, Map, Node, Region
from ..ir.store import ConstantStore
from ..ir.verify import is_convex, require
from .base import Pass
from .patterns import Softmax, find_norms, find_softmax, same_box

_MOST_EPILOGUE = 4


@dataclass(frozen=True)
class Fuse(Pass):
    """Adds regions to the graph; existing ones are replaced."""

    name: ClassVar[str] = "fuse"

    def run(self, graph: Graph, store: ConstantStore) -> Graph:
        return replace(graph, regions=find_regions(graph))

    def ensures(self, graph: Graph) -> None:
        require(graph, self.name)


def find_regions(graph: Graph) -> tuple[Region, ...]:
    """All regions, in order of their first node."""
    finder = _Finder(graph)
    finder.softmaxes()
    finder.norms()
    finder.contractions()
    finder.pointwise()
    return tuple(sorted(finder.regions, key=lambda r: r.nodes))


class _Finder:
    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.regions: list[Region] = []
        self.taken: set[int] = set()
        self.roots = {*graph.outputs, *graph.updates.values()}

    def _add(self, kind: str, roles: dict[int, str]) -> bool:
        """Keep a region if its nodes are free and it is convex."""
        nodes = tuple(sorted(roles))
        if len(nodes) < 2 or self.taken & set(nodes) or not is_convex(self.graph, nodes):
            return False
        self.regions.append(Region(kind, nodes, tuple(roles[n] for n in nodes)))
        self.taken.update(nodes)
        return True

    def _only_reader(self, node: int) -> Node | None:
        """The one node that reads `node`, if there is one and the value goes nowhere else."""
        users = self.graph.users[node]
        return self.graph[users[0]] if len(users) == 1 and node not in self.roots else None

    def softmaxes(self) -> None:
        for match in find_softmax(self.graph):
            roles = {match.max: "max", match.sum: "sum"}
            if match.exp is not None:
                roles[match.exp] = "exp"
            if match.scale is not None:
                roles[match.scale] = "scale"
            attention = self._attention(match, roles)
            if not (attention and self._add("attention", attention)):
                self._add("softmax", roles)

    def _attention(self, match: Softmax, softmax: dict[int, str]) -> dict[int, str] | None:
        """The softmax with the contraction that gives its scores (through Maps on the way) and the one that takes its result."""
        if match.scores is None or match.scale is None:
            return None
        roles = dict(softmax)
        inside = {match.max, match.exp, match.sum, match.scale}
        node = self.graph[match.scores]
        while isinstance(node, Map):
            if not set(self.graph.users[node.id]) <= inside or node.id in self.roots:
                return None
            roles[node.id] = "mask"
            inside.add(node.id)
            before = [o for o in node.operands if isinstance(self.graph[o], Contract | Map) and self.graph[o].size == node.size]
            if len(before) != 1:
                return None
            node = self.graph[before[0]]
        reader = self._only_reader(match.scale)
        if not isinstance(node, Contract) or not isinstance(reader, Contract) or not set(self.graph.users[node.id]) <= inside:
            return None
        roles[node.id] = "scores"
        roles[reader.id] = "values"
        return roles

    def norms(self) -> None:
        for match in find_norms(self.graph):
            roles = {match.squares: "squares", match.scale: "scale"}
            if match.mean is not None:
                roles[match.mean] = "mean"
            self._add("norm", roles)

    def contractions(self) -> None:
        for node in self.graph.nodes:
            if not isinstance(node, Contract) or node.id in self.taken:
                continue
            gathers = [o for o in node.operands if isinstance(self.graph[o], Gather) and self._only_reader(o) is node]
            if gathers and self._add("routed", {node.id: "contract", **dict.fromkeys(gathers, "gather")}):
                continue
            roles = {node.id: "contract"}
            if contract_size(node).n == 1 or contract_size(node).m == 1:
                roles |= dict.fromkeys(self._prologue(node), "prologue")
            roles |= dict.fromkeys(self._epilogue(node), "epilogue")
            while len(roles) > 1 and not self._add("contraction", roles):
                roles.pop(max(n for n, r in roles.items() if r != "contract"))

    def _prologue(self, node: Contract) -> list[int]:
        """Maps that only this contraction reads and whose elements it reads once."""
        size = contract_size(node)
        found = []
        for number, operand in enumerate(node.operands):
            repeated = size.n if number == 0 else size.m
            if isinstance(self.graph[operand], Map) and self._only_reader(operand) is node and repeated == 1 and operand not in self.taken:
                found.append(operand)
        return found

    def _epilogue(self, node: Contract) -> list[int]:
        """Maps that follow, one reader each, element by element on the contraction's result."""
        found: list[int] = []
        last: Node = node
        while len(found) < _MOST_EPILOGUE:
            reader = self._only_reader(last.id)
            if not isinstance(reader, Map) or reader.id in self.taken or not same_box(reader, reader.operands.index(last.id), last):
                break
            found.append(reader.id)
            last = reader
        return found

    def pointwise(self) -> None:
        for node in self.graph.nodes:
            if not isinstance(node, Map) or node.id in self.taken:
                continue
            roles = {node.id: "map"}
            last: Node = node
            while True:
                reader = self._only_reader(last.id)
                if not isinstance(reader, Map) or reader.id in self.taken or not same_box(reader, reader.operands.index(last.id), last):
                    break
                roles[reader.id] = "map"
                last = reader
            self._add("pointwise", roles)
