"""Values, accesses and nodes of the dataflow IR, and the builder that makes graphs.

A compute node is a loop nest over an iteration space; each operand is read through an affine access and the result is a grouping of
axes. Eleven kinds, one result a node, immutable, referring to each other by id (their position in `Graph.nodes`).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from math import prod
from typing import TYPE_CHECKING, Any, TypeVar

from .expr import Expr
from .types import DType

if TYPE_CHECKING:
    import networkx


@dataclass(frozen=True, slots=True)
class Index:
    """Position on one dimension of an operand: `offset + sum(coefficient * axis)`; terms have ascending axes, non-zero coefficients."""

    offset: int = 0
    terms: tuple[tuple[int, int], ...] = ()

    @classmethod
    def of(cls, offset: int, terms: Iterable[tuple[int, int]]) -> Index:
        """Normalised: equal axes are added up, zero coefficients dropped, axes ascending."""
        total: dict[int, int] = {}
        for axis, coefficient in terms:
            total[axis] = total.get(axis, 0) + coefficient
        return cls(offset, tuple(sorted((a, c) for a, c in total.items() if c)))

    def bounds(self, axes: Sequence[int]) -> tuple[int, int]:
        """Smallest and largest position over the iteration space `axes` (extents)."""
        low = high = self.offset
        for axis, coefficient in self.terms:
            reach = coefficient * (axes[axis] - 1)
            low, high = low + min(reach, 0), high + max(reach, 0)
        return low, high


@dataclass(frozen=True, slots=True)
class Lookup:
    """A dimension whose position is the value of an integer operand at this point (Gather data and Scatter target only)."""

    operand: int


Access = tuple[Index | Lookup, ...]
Group = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a node comes from: FX node names, module path, `file.py:line` of the user's or library's frame, ATen op."""

    fx: tuple[str, ...] = ()
    module: str = ""
    source: str = ""
    op: str = ""


NO_ORIGIN = Origin()


@dataclass(frozen=True, slots=True)
class ConstantRef:
    """A constant by reference: `key` in the store beside the graph, `dtype` and `shape` of the decoded value, how it is stored."""

    key: str
    dtype: DType
    shape: tuple[int, ...]
    storage: str = "dense"


@dataclass(frozen=True, kw_only=True)
class Node:
    """Common fields. `operands` are node ids; `id` equals the node's position in its graph."""

    id: int
    operands: tuple[int, ...]
    dtype: DType
    shape: tuple[int, ...]
    origin: Origin = field(default=NO_ORIGIN, compare=False)

    @property
    def kind(self) -> str:
        return type(self).__name__

    @property
    def size(self) -> int:
        """Number of elements of the result."""
        return prod(self.shape)


@dataclass(frozen=True, kw_only=True)
class Input(Node):
    name: str
    range: tuple[int, int] | None = None


@dataclass(frozen=True, kw_only=True)
class Constant(Node):
    ref: ConstantRef


@dataclass(frozen=True, kw_only=True)
class State(Node):
    """A buffer that the program reads and updates; the node is its value before the run. `initial` is a constant key or None for zeros."""

    name: str
    initial: str | None = None
    range: tuple[int, int] | None = None


@dataclass(frozen=True, kw_only=True)
class Nest(Node):
    """A loop nest: `axes` extents, one access per operand, one group of axes per result dimension."""

    axes: tuple[int, ...]
    accesses: tuple[Access, ...]
    groups: tuple[Group, ...]

    @property
    def reduced(self) -> tuple[int, ...]:
        """Axes in no group, ascending."""
        kept = {a for group in self.groups for a in group}
        return tuple(a for a in range(len(self.axes)) if a not in kept)


@dataclass(frozen=True, kw_only=True)
class Map(Nest):
    expr: Expr


@dataclass(frozen=True, kw_only=True)
class Reduce(Nest):
    expr: Expr
    op: str


@dataclass(frozen=True, kw_only=True)
class Contract(Nest):
    acc: DType


@dataclass(frozen=True, kw_only=True)
class Gather(Nest):
    """Operand 0 is the data, read through an access with at least one Lookup; the others are integer operands in order of first use."""


@dataclass(frozen=True, slots=True)
class Piece:
    """One part of a Move: a nest that reads `operand` (a position in the node's operands) and writes the result from `corner` by `step`."""

    operand: int
    axes: tuple[int, ...]
    access: Access
    groups: tuple[Group, ...]
    corner: tuple[int, ...]
    step: tuple[int, ...]

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(prod(self.axes[a] for a in group) for group in self.groups)


@dataclass(frozen=True, kw_only=True)
class Move(Node):
    """Pieces written in order into the result, later over earlier; `fill` is the value elsewhere, None where pieces cover everything."""

    pieces: tuple[Piece, ...]
    fill: float | int | bool | None = None

    @property
    def is_view(self) -> bool:
        """True for one piece that is the whole result: it folds into readers where composition holds."""
        piece = self.pieces[0]
        whole = not any(piece.corner) and set(piece.step) <= {1} and piece.shape == self.shape
        return len(self.pieces) == 1 and self.fill is None and whole


@dataclass(frozen=True, kw_only=True)
class Scatter(Node):
    """Operands base, source, indices...; `target` addresses the base, `accesses` read source and indices; mode set add max min."""

    axes: tuple[int, ...]
    target: Access
    accesses: tuple[Access, ...]
    mode: str


@dataclass(frozen=True, kw_only=True)
class Sort(Node):
    axis: int
    descending: bool
    count: int


@dataclass(frozen=True, kw_only=True)
class Scan(Node):
    op: str
    axis: int
    reverse: bool = False


@dataclass(frozen=True)
class Region:
    """An overlay from fusion: a convex set of nodes and the role each plays; the graph means the same without it."""

    kind: str
    nodes: tuple[int, ...]
    roles: tuple[str, ...]


@dataclass(frozen=True)
class Repeat:
    """Nodes `start + c*period + r` for c < count correspond: equal in everything but ids and constant keys."""

    start: int
    period: int
    count: int


@dataclass(frozen=True)
class Graph:
    """Nodes in topological order (FX order kept), outputs (one per tensor of torch's flattened outputs), state updates and overlays."""

    nodes: tuple[Node, ...]
    outputs: tuple[int, ...]
    updates: Mapping[str, int] = field(default_factory=dict)
    regions: tuple[Region, ...] = ()
    repeats: tuple[Repeat, ...] = ()

    def __getitem__(self, node_id: int) -> Node:
        return self.nodes[node_id]

    @cached_property
    def users(self) -> tuple[tuple[int, ...], ...]:
        """For every node the ids of the nodes that read it, ascending, each once."""
        found: list[list[int]] = [[] for _ in self.nodes]
        for node in self.nodes:
            for operand in dict.fromkeys(node.operands):
                found[operand].append(node.id)
        return tuple(map(tuple, found))

    def networkx(self) -> networkx.DiGraph[int]:
        """The graph as a networkx view (operand -> user), for its algorithms: build it once, never ask it in a loop over nodes."""
        import networkx

        view: networkx.DiGraph[int] = networkx.DiGraph()
        view.add_nodes_from(range(len(self.nodes)))
        view.add_edges_from((operand, node.id) for node in self.nodes for operand in node.operands)
        return view

    @property
    def inputs(self) -> tuple[Input, ...]:
        return tuple(n for n in self.nodes if isinstance(n, Input))

    @property
    def constants(self) -> tuple[Constant, ...]:
        return tuple(n for n in self.nodes if isinstance(n, Constant))

    @property
    def states(self) -> tuple[State, ...]:
        return tuple(n for n in self.nodes if isinstance(n, State))


_N = TypeVar("_N", bound=Node)


class GraphBuilder:
    """Appends nodes; equal nodes (everything but id and origin) are one node, so common subexpressions cost nothing."""

    def __init__(self) -> None:
        self.nodes: list[Node] = []
        self._known: dict[tuple[Any, ...], int] = {}

    def add(self, node: Node) -> int:
        """Append `node` (its `id` is ignored) or find its equal; returns the id."""
        key = (type(node), *(getattr(node, f.name) for f in dataclasses.fields(node) if f.name not in ("id", "origin")))
        found = self._known.get(key)
        if found is None:
            found = self._known[key] = len(self.nodes)
            self.nodes.append(dataclasses.replace(node, id=found))
        elif node.origin.fx:
            kept = self.nodes[found]
            names = tuple(dict.fromkeys(kept.origin.fx + node.origin.fx))
            self.nodes[found] = dataclasses.replace(kept, origin=dataclasses.replace(kept.origin, fx=names))
        return found

    def new(
        self, kind: type[_N], operands: Sequence[int] = (), *, dtype: DType, shape: Sequence[int], origin: Origin = NO_ORIGIN, **fields: Any
    ) -> int:
        """`add(kind(...))` with the common fields filled in."""
        return self.add(kind(id=-1, operands=tuple(operands), dtype=dtype, shape=tuple(shape), origin=origin, **fields))

    def __getitem__(self, node_id: int) -> Node:
        return self.nodes[node_id]

    def finish(self, outputs: Sequence[int], updates: Mapping[str, int] | None = None) -> Graph:
        """The graph with dead nodes removed (inputs and states stay) and ids renumbered."""
        updates = dict(updates or {})
        live = [isinstance(n, (Input, State)) for n in self.nodes]
        for root in (*outputs, *updates.values()):
            live[root] = True
        for node in reversed(self.nodes):
            if live[node.id]:
                for operand in node.operands:
                    live[operand] = True
        new_id = {}
        nodes: list[Node] = []
        for node in self.nodes:
            if live[node.id]:
                new_id[node.id] = len(nodes)
                operands = tuple(new_id[o] for o in node.operands)
                nodes.append(dataclasses.replace(node, id=len(nodes), operands=operands))
        return Graph(tuple(nodes), tuple(new_id[o] for o in outputs), {k: new_id[v] for k, v in sorted(updates.items())})


def identity_access(ndim: int) -> Access:
    """`[i, j, ...]`: every dimension read by the axis of its number."""
    return tuple(Index(0, ((d, 1),)) for d in range(ndim))


def whole_piece(shape: tuple[int, ...]) -> Piece:
    """All of a Move's operand 0, as it is."""
    rank = len(shape)
    return Piece(0, shape, identity_access(rank), tuple((d,) for d in range(rank)), (0,) * rank, (1,) * rank)
