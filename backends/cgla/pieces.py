"""How a graph is cut into pieces: stretches of nodes, and repeated layers that are compiled once and instantiated for every copy.

A piece has a template (the nodes of its first copy). Copy c replaces every template id by its counterpart; the replacement must be one
function of the id (else the copies are compiled on their own), and everything that the copies read must be alike in type and shape.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass

from ...ir.access import access_strides, order_of, row_major
from ...ir.graph import Constant, Graph, Input, Move, Node, Repeat, Scatter, State

MAX_PLAIN = 400
"""Nodes of a stretch that is not repeated: longer ones are cut, so that a segment stays small."""


@dataclass(frozen=True)
class Piece:
    """Template nodes [start, stop) and, for every copy, the node that stands for each template id."""

    start: int
    stop: int
    copies: tuple[Mapping[int, int], ...]

    def counterpart(self, copy: int, node_id: int) -> int:
        """The node of copy `copy` for a template id, inside or outside of the template."""
        return self.copies[copy].get(node_id, node_id)


def in_place(graph: Graph) -> dict[int, int]:
    """Nodes that may update the buffer of a State where it lies: node -> State.

    The node is the state's update, a Scatter into the state or an assembly that starts with the whole state, and no later node reads the
    old value.
    """
    names = {state.name: state.id for state in graph.states}
    found: dict[int, int] = {}
    for name, update in sorted(graph.updates.items()):
        node, state = graph[update], names[name]
        later = [user for user in graph.users[state] if user > update]
        if later or state in graph.outputs or update in found or not node.operands or node.operands[0] != state:
            continue
        scatter = isinstance(node, Scatter) and state not in node.operands[1:]
        if scatter or (isinstance(node, Move) and _starts_whole(node, graph[state])):
            found[update] = state
    return found


def _starts_whole(node: Move, state: Node) -> bool:
    first, *rest = node.pieces
    whole = not any(first.corner) and set(first.step) <= {1} and first.shape == state.shape == node.shape and first.operand == 0
    view = access_strides(first.access, state.shape, len(first.axes))
    straight = not view.offset and order_of(first.groups) == tuple(range(len(first.axes))) and view.strides == row_major(first.axes)
    reads_state = any(node.operands[piece.operand] == state.id for piece in rest)
    return node.fill is None and whole and straight and not reads_state


def cut(graph: Graph) -> list[Piece]:
    """Pieces in order that cover every node once."""
    pieces: list[Piece] = []
    position = 0
    for repeat in sorted(graph.repeats, key=lambda r: r.start):
        for start, count in ((repeat.start, repeat.count), (repeat.start + repeat.period, repeat.count - 1)):
            copies = _copies(graph, Repeat(start, repeat.period, count)) if count > 1 and start >= position else None
            if copies is not None:
                pieces += _plain(position, start)
                pieces.append(Piece(start, start + repeat.period, copies))
                position = start + repeat.period * count
                break
    return pieces + _plain(position, len(graph.nodes))


def _plain(start: int, stop: int) -> list[Piece]:
    return [Piece(low, min(low + MAX_PLAIN, stop), ({},)) for low in range(start, stop, MAX_PLAIN)]


def _copies(graph: Graph, repeat: Repeat) -> tuple[Mapping[int, int], ...] | None:
    """The replacements of every copy, or None where the copies are not alike enough for one segment."""
    aliases = in_place(graph)
    found: list[Mapping[int, int]] = []
    for copy in range(repeat.count):
        shift = copy * repeat.period
        mapping: dict[int, int] = {}
        for template in range(repeat.start, repeat.start + repeat.period):
            one, other = graph[template], graph[template + shift]
            if type(one) is not type(other) or one.shape != other.shape or one.dtype is not other.dtype:
                return None
            pairs = [(template, template + shift), *zip(one.operands, other.operands, strict=True)]
            if (template in aliases) != (template + shift in aliases):
                return None
            if template in aliases:
                pairs.append((aliases[template], aliases[template + shift]))
            for here, there in pairs:
                if mapping.setdefault(here, there) != there or not _alike(graph[here], graph[there]):
                    return None
            if _form(one) != _form(other):
                return None
        found.append(mapping)
    return tuple(found)


def _form(node: Node) -> tuple[object, ...]:
    """What of a node must be equal in all copies."""
    if isinstance(node, Input | Constant | State):
        return ()
    skipped = ("id", "operands", "origin")
    return tuple(getattr(node, field.name) for field in dataclasses.fields(node) if field.name not in skipped)


def _alike(one: Node, other: Node) -> bool:
    """Whether two values can take each other's place: type and shape, and both constants (of one storage) or both not."""
    if one.shape != other.shape or one.dtype is not other.dtype or isinstance(one, Constant) != isinstance(other, Constant):
        return False
    return not isinstance(one, Constant) or not isinstance(other, Constant) or one.ref.storage == other.ref.storage
