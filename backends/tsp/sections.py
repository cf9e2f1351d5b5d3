"""Cutting a graph into sections that become segments: plain stretches of nodes, and repeats compiled once for all their copies."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from math import prod

from ...ir.graph import Constant, Graph, Input, Repeat, State

PLAIN_BYTES = 48 << 20
"""Constants of one plain section: small enough that sections can be spread over chips."""


@dataclass(frozen=True)
class Section:
    """Nodes `nodes` of the first copy; copy c holds node + c * period. A plain section has one copy."""

    name: str
    nodes: tuple[int, ...]
    period: int = 0
    count: int = 1

    def copies(self, node: int) -> list[int]:
        """The nodes that correspond to a node of the first copy."""
        return [node + c * self.period for c in range(self.count)]

    def split(self, rest: frozenset[int]) -> list[Section]:
        """A plain section without the nodes `rest`, and a section of these."""
        first = tuple(node for node in self.nodes if node not in rest)
        return [Section(self.name, first), Section(f"{self.name}+", tuple(sorted(rest)))]


def cut(graph: Graph) -> list[Section]:
    """Sections in order; the last is plain, so that results leave from one place."""
    sections: list[Section] = []
    plain: list[int] = []
    held = 0.0
    starts = {repeat.start: repeat for repeat in map(partial(_trimmed, graph), graph.repeats) if repeat is not None}
    number = 0

    def close() -> None:
        nonlocal plain, held
        if plain:
            sections.append(Section(f"part{len(sections)}", tuple(plain)))
        plain, held = [], 0.0

    while number < len(graph.nodes):
        if number in starts:
            close()
            repeat = starts[number]
            sections.append(Section(f"repeat{len(sections)}", tuple(range(number, number + repeat.period)), repeat.period, repeat.count))
            number += repeat.period * repeat.count
            continue
        node = graph[number]
        if not isinstance(node, (Input, Constant, State)):
            size = sum(2.2 * prod(graph[o].shape) for o in node.operands if isinstance(graph[o], Constant))
            if held and held + size > PLAIN_BYTES:
                close()
            plain.append(number)
            held += size
        number += 1
    close()
    if not sections or sections[-1].count > 1:
        sections.append(Section("results", ()))
    return sections


def _trimmed(graph: Graph, repeat: Repeat) -> Repeat | None:
    """The repeat, without its first copy where that one reads a source that the others get from the copy before; None if unusable."""
    for skip in (0, 1):
        start, count = repeat.start + skip * repeat.period, repeat.count - skip
        if _usable(graph, start, repeat.period, count):
            return Repeat(start, repeat.period, count)
    return None


def _usable(graph: Graph, start: int, period: int, count: int) -> bool:
    """False where a copy reads what is neither its own, nor of the copy before it, nor the same for all copies."""
    if count < 2:
        return False
    for c in range(1, count):
        for r in range(period):
            for first, now in zip(graph[start + r].operands, graph[start + c * period + r].operands, strict=True):
                if isinstance(graph[now], (Constant, State)) or now == first:
                    continue
                if isinstance(graph[first], (Input, Constant, State)):
                    return False
                if now < start or (now - start) // period not in (c, c - 1):
                    return False
    return True


def mapping(graph: Graph, section: Section, copy: int) -> dict[int, int]:
    """Every node that the first copy holds or reads -> its counterpart for `copy`."""
    found = {node: node + copy * section.period for node in section.nodes}
    for node in section.nodes:
        for first, now in zip(graph[node].operands, graph[node + copy * section.period].operands, strict=True):
            if first not in found:
                found[first] = now
    return found


def read_outside(graph: Graph, sections: Sequence[Section]) -> dict[int, set[int]]:
    """Of every section (by position) the nodes of its first copy that some copy gives to another copy, section, output or update."""
    owner: dict[int, tuple[int, int, int]] = {}
    for position, section in enumerate(sections):
        for node in section.nodes:
            for c, counterpart in enumerate(section.copies(node)):
                owner[counterpart] = (position, c, node)
    found: dict[int, set[int]] = {position: set() for position in range(len(sections))}
    for reader in graph.nodes:
        here = owner.get(reader.id)
        for operand in reader.operands:
            there = owner.get(operand)
            if there is not None and here is not None and there[:2] != here[:2]:
                found[there[0]].add(there[2])
    final = len(sections) - 1
    for number in (*graph.outputs, *graph.updates.values()):
        there = owner.get(number)
        if there is not None and there[0] != final:
            found[there[0]].add(there[2])
    return found
