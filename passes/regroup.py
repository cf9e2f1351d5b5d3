"""Views that no reader could take in (canonicalisation rule 2): the producer takes over the view's result shape.

Where a nest is read by nothing but a view that regroups or permutes its result, the nest can write the view's result at once: its axes,
split where the view splits them, are grouped as the view groups them.
"""

from __future__ import annotations

from dataclasses import replace
from math import prod

from ..ir.graph import Contract, Gather, Graph, GraphBuilder, Group, Index, Map, Move, Node, Piece, Reduce
from ..ir.normal import normalise, split_axis

_NestNode = Map | Reduce | Contract | Gather


def regroup_views(graph: Graph) -> Graph:
    """The graph with every such view merged into its producer."""
    roots = {*graph.outputs, *graph.updates.values()}
    merged: dict[int, Node] = {}
    for node in graph.nodes:
        if isinstance(node, Move) and node.is_view:
            producer = graph[node.operands[0]]
            if isinstance(producer, _NestNode) and graph.users[producer.id] == (node.id,) and producer.id not in roots:
                new = regrouped(producer, node)
                if new is not None:
                    merged[node.id] = new
    if not merged:
        return graph
    builder = GraphBuilder()
    new_id: list[int] = []
    for node in graph.nodes:
        made = merged.get(node.id, node)
        new_id.append(builder.add(replace(made, operands=tuple(new_id[o] for o in made.operands))))
    return builder.finish([new_id[o] for o in graph.outputs], {k: new_id[v] for k, v in graph.updates.items()})


def regrouped(producer: _NestNode, view: Move) -> Node | None:
    """`producer` with the result of `view`, or None where the view does more than regroup and permute."""
    piece = view.pieces[0]
    if prod(piece.axes) != producer.size:
        return None
    place: dict[int, Group] = {}  # axis of the view -> axes of the producer
    for d in range(len(producer.shape)):
        entry = piece.access[d]
        if not isinstance(entry, Index) or entry.offset or not _is_radix(entry, piece, producer.shape[d]):
            return None
        outer_first = [a for a, _ in sorted(entry.terms, key=lambda t: -t[1])]
        split = _refined(producer, d, [piece.axes[a] for a in outer_first])
        if split is None:
            return None
        producer, parts, shift = split
        place = {v: tuple(shift(a) for a in group) for v, group in place.items()}
        place.update(zip(outer_first, parts, strict=True))
    if len(place) != len(piece.axes):
        return None
    groups = tuple(tuple(a for v in group for a in place[v]) for group in piece.groups)
    return normalise(replace(producer, groups=groups, shape=view.shape, origin=view.origin if not producer.origin.fx else producer.origin))


def _is_radix(entry: Index, piece: Piece, extent: int) -> bool:
    """Whether the terms walk 0 to extent - 1 once each, as digits."""
    step = 1
    for axis, coefficient in sorted(entry.terms, key=lambda t: t[1]):
        if coefficient != step:
            return False
        step *= piece.axes[axis]
    return step == extent


def _refined(producer: _NestNode, dimension: int, extents: list[int]) -> tuple[_NestNode, list[Group], _Shift] | None:
    """The producer's axes of one result dimension, split so that each of `extents` (outer first) is a run of whole axes."""
    shift = _Shift()
    parts: list[Group] = []
    group = list(producer.groups[dimension])
    for want in reversed(extents):
        taken: list[int] = []
        have = 1
        while have < want:
            if not group:
                return None
            axis = group.pop()
            extent = producer.axes[axis]
            if (want // have) % extent == 0 and want % have == 0:
                taken.insert(0, axis)
                have *= extent
                continue
            inner = want // have
            if want % have or extent % inner:
                return None
            producer = split_axis(producer, axis, inner)
            shift = shift.after(axis)
            parts = [tuple(a + (a > axis) for a in part) for part in parts]
            taken = [axis + 1, *(a + (a > axis) for a in taken)]
            group = [a + (a > axis) for a in group]
            group.append(axis)
            have = want
        parts.insert(0, tuple(taken))
    return (producer, parts, shift) if not group else None


class _Shift:
    """How axis numbers move when axes are split, one after the other."""

    def __init__(self, splits: tuple[int, ...] = ()) -> None:
        self.splits = splits

    def after(self, axis: int) -> _Shift:
        return _Shift((*self.splits, axis))

    def __call__(self, axis: int) -> int:
        for split in self.splits:
            axis += axis > split
        return axis
