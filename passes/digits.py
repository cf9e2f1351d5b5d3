"""Dimensions that readers walk by digits become dimensions of their own.

A reader that walks a dimension of 3136 as `k + 49*l` sees digits of 64 and 49. Where values are dealt out by whole dimensions, what one
core needs of such a value is spread over all cores. Here the value gets the dimensions [64, 49] instead, and so does every value that is
computed from it or that it comes from point by point. Nodes keep their numbers and order; inputs, constants, states and outputs keep
their shapes.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import TypeVar

from ..ir.graph import Access, Contract, Gather, Graph, Group, Index, Lookup, Map, Move, Node, Piece, Reduce
from ..ir.normal import normalise, split_axis

NARROW = 8
"""Digits with fewer values than this are no dimensions: they would deal a value out over too few cores."""

_Nest = Map | Reduce | Contract | Gather
_N = TypeVar("_N", bound=Map | Reduce | Contract | Gather | Piece)
_Read = tuple[int, int, Index]
"""(node, dimension, entry) of an affine read."""


def split_digits(graph: Graph) -> Graph:
    """The graph with such dimensions split; itself where there are none."""
    found = _Digits(graph)
    bounds = found.bounds()
    if not bounds:
        return graph
    nodes = tuple(_rewritten(node, found.cuts, bounds) for node in graph.nodes)
    return replace(graph, nodes=nodes)


@dataclass(frozen=True)
class _Loop:
    """A nest or a piece of a Move: what its axes walk."""

    key: tuple[int, int]
    """(node, piece or -1)."""
    axes: tuple[int, ...]
    reads: tuple[_Read, ...]
    groups: tuple[Group, ...]
    """Of the result, where that may have other dimensions; else none."""
    fixed: frozenset[int]
    """Axes that may not be cut: positions on them are results."""


def _loops(node: Node, free: bool) -> Iterator[_Loop]:
    """The loops of a node; `free`: its result may have other dimensions."""
    if isinstance(node, Move):
        for number, piece in enumerate(node.pieces):
            yield _Loop((node.id, number), piece.axes, tuple(_reads(node.operands[piece.operand], piece.access)), (), frozenset())
    elif isinstance(node, _Nest):
        reads = [read for operand, access in zip(node.operands, node.accesses, strict=True) for read in _reads(operand, access)]
        ordered = isinstance(node, Reduce) and node.op in ("argmax", "argmin")
        kept = {a for group in node.groups for a in group}
        fixed = frozenset(a for a in range(len(node.axes)) if ordered and a not in kept)
        yield _Loop((node.id, -1), node.axes, tuple(reads), node.groups if free else (), fixed)


def _reads(operand: int, access: Access) -> Iterator[_Read]:
    return ((operand, d, entry) for d, entry in enumerate(access) if isinstance(entry, Index))


@dataclass
class _Digits:
    """Where dimensions and axes are cut: numbers of elements below a cut, each dividing the next and the extent."""

    graph: Graph
    cuts: dict[tuple[int, int, int], list[int]] = field(default_factory=dict)
    """By (node, piece or -1, axis)."""
    dims: dict[tuple[int, int], list[int]] = field(default_factory=dict)
    """By (node, dimension), of those that may be split."""

    def __post_init__(self) -> None:
        graph = self.graph
        kept = {*graph.outputs, *graph.updates.values()}
        for node in graph.nodes:
            if isinstance(node, _Nest) and node.id not in kept and all(isinstance(graph[u], _Nest | Move) for u in graph.users[node.id]):
                self.dims |= {(node.id, d): [] for d in range(len(node.shape))}
        for node in graph.nodes:
            for operand, access in zip(node.operands, node.accesses, strict=True) if isinstance(node, Gather) else ():
                for d, entry in enumerate(access):
                    if not isinstance(entry, Index):
                        self.dims.pop((operand, d), None)
        free = {number for number, _ in self.dims}
        self.loops = [loop for node in graph.nodes for loop in _loops(node, node.id in free)]

    def bounds(self) -> dict[tuple[int, int], tuple[int, ...]]:
        """The dimensions to split, and where; `cuts` are the axes to split with them."""
        for loop in self.loops:
            for number, d, entry in loop.reads:
                if len(entry.terms) > 1:
                    for c in sorted(c for _, c in entry.terms):
                        self._wish(number, d, c)
        both_ways = [*self.loops, *reversed(self.loops)]  # cuts go from readers to what they read, and on to its other readers
        while sum(self._settled(loop) for loop in both_ways):
            pass
        bad = {place for loop in self.loops for place in self._clashes(loop)}
        return {place: tuple(points) for place, points in self.dims.items() if points and place not in bad}

    def _wish(self, number: int, d: int, point: int) -> None:
        """A cut of a dimension that leaves no narrow digits."""
        points = self.dims.get((number, d))
        extent = self.graph[number].shape[d]
        if points is not None and point >= NARROW and all(max(p, point) >= NARROW * min(p, point) for p in (*points, extent)):
            _insert(points, extent, point)

    def _settled(self, loop: _Loop) -> bool:
        """Carry cuts from dimensions to axes and from axes to dimensions; whether anything changed."""
        changed = False
        places = [(number, d, a, c) for number, d, entry in loop.reads for a, c in entry.terms]
        places += [(loop.key[0], d, a, c) for d, a, c in _grouped(loop.groups, loop.axes)]
        walked = [(self.dims[n, d], self.graph[n].shape[d], a, c) for n, d, a, c in places if (n, d) in self.dims and c > 0]
        for points, _, a, c in walked:
            for point in points:
                if point % c == 0 and a not in loop.fixed:
                    changed |= _insert(self.cuts.setdefault((*loop.key, a), []), loop.axes[a], point // c)
        for points, extent, a, c in walked:
            for cut in self.cuts.get((*loop.key, a), ()):
                changed |= _insert(points, extent, c * cut)
        return changed

    def _clashes(self, loop: _Loop) -> Iterator[tuple[int, int]]:
        """Dimensions whose digits some loop does not walk one by one."""
        for number, d, entry in loop.reads:
            if self.dims.get((number, d)):
                pieces = [(a, c * low, high // low) for a, c in entry.terms for low, high in self._digits(loop, a)]
                if _by_digits(entry.offset, pieces, self.dims[number, d], self.graph[number].shape[d]) is None:
                    yield number, d
        for d in range(len(loop.groups)):
            here = {c * low for k, a, c in _grouped(loop.groups, loop.axes) if k == d for low, _ in self._digits(loop, a)}
            if not here.issuperset(self.dims.get((loop.key[0], d), ())):
                yield loop.key[0], d

    def _digits(self, loop: _Loop, axis: int) -> list[tuple[int, int]]:
        points = [1, *self.cuts.get((*loop.key, axis), ()), loop.axes[axis]]
        return list(pairwise(points))


def _insert(points: list[int], extent: int, point: int) -> bool:
    """Add a cut where it lies inside the extent and every cut divides the next; whether it is new."""
    if not 1 < point < extent or extent % point or point in points or any(max(p, point) % min(p, point) for p in points):
        return False
    points.append(point)
    points.sort()
    return True


def _grouped(groups: Iterable[Group], axes: Sequence[int]) -> list[tuple[int, int, int]]:
    """(dimension, axis, elements below it) of every axis of a result."""
    found = []
    for d, group in enumerate(groups):
        step = 1
        for a in reversed(group):
            found.append((d, a, step))
            step *= axes[a]
    return found


def _by_digits(offset: int, terms: Sequence[tuple[int, int, int]], points: Sequence[int], extent: int) -> list[Index] | None:
    """The read `offset + sum(c * axis)` of a dimension as reads of its digits, outermost first; terms are (axis, c, extent of the axis).

    None where a digit would carry into the next.
    """
    lows, highs = [1, *points], [*points, extent]
    entries = []
    for low, high in zip(reversed(lows), reversed(highs), strict=True):
        mine = [(a, c, n) for a, c, n in terms if low <= c < high]
        start = offset % high // low
        if any(c % low for _, c, _ in mine) or start + sum(c // low * (n - 1) for _, c, n in mine) >= high // low:
            return None
        entries.append(Index.of(start, ((a, c // low) for a, c, _ in mine)))
    return entries if all(c > 0 for _, c, _ in terms) and 0 <= offset < extent else None


def _rewritten(node: Node, cuts: dict[tuple[int, int, int], list[int]], bounds: dict[tuple[int, int], tuple[int, ...]]) -> Node:
    """A node over split dimensions; `cuts` name its axes to split by (node, piece or -1, axis)."""
    if isinstance(node, Move):
        pieces = [_cut(piece, node.id, k, cuts) for k, piece in enumerate(node.pieces)]
        return replace(node, pieces=tuple(replace(p, access=_access(node.operands[p.operand], p.access, p.axes, bounds)) for p in pieces))
    if not isinstance(node, _Nest):
        return node
    made = _cut(node, node.id, -1, cuts)
    accesses = tuple(_access(o, access, made.axes, bounds) for o, access in zip(made.operands, made.accesses, strict=True))
    groups: list[Group] = []
    shape: list[int] = []
    for d, group in enumerate(made.groups):
        points = bounds.get((node.id, d), ())
        parts: dict[int, list[int]] = {point: [] for point in (*reversed(points), 1)}
        for _, a, step in _grouped([group], made.axes):
            parts[max(point for point in parts if point <= step)].insert(0, a)
        groups += [tuple(part) for part in parts.values()]
        ends = (node.shape[d], *reversed(points))
        shape += [high // low for high, low in zip(ends, parts, strict=True)]
    return normalise(replace(made, accesses=accesses, groups=tuple(groups), shape=tuple(shape)))


def _cut(nest: _N, node: int, piece: int, cuts: dict[tuple[int, int, int], list[int]]) -> _N:
    for axis in reversed(range(len(nest.axes))):
        at = axis
        for point in reversed(cuts.get((node, piece, axis), [])):
            nest = split_axis(nest, at, point)
            at += 1
    return nest


def _access(operand: int, access: Access, axes: Sequence[int], bounds: dict[tuple[int, int], tuple[int, ...]]) -> Access:
    """The access to an operand some of whose dimensions are split. The extent of the outermost digit plays no part in the digits below."""
    found: list[Index | Lookup] = []
    for d, entry in enumerate(access):
        points = bounds.get((operand, d))
        if points is None or not isinstance(entry, Index):
            found.append(entry)
            continue
        made = _by_digits(entry.offset, [(a, c, axes[a]) for a, c in entry.terms], points, 1 << 62)
        assert made is not None
        found += made
    return tuple(found)
