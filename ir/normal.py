"""The normal form of a node: equal computations become equal nodes.

No axis of extent 1; axes numbered in the order of the result, then the reduced ones by first use; two axes that every access walks as
one, and that are neighbours in one group or both reduced, are one axis; operands numbered by first use, none twice, none unused.
Splitting an axis is the inverse step, used where an access composes with a view only digit by digit.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any, TypeVar

from . import expr as ex
from .graph import Access, Contract, Gather, Group, Index, Lookup, Map, Move, Node, Piece, Reduce, Scatter
from .types import I64

_ORDERED = ("argmax", "argmin")  # their result depends on the order of the reduced axes


@dataclass(frozen=True, slots=True)
class AxisMap:
    """How axes of a nest are rewritten: axis -> terms over new axes, and the new extents."""

    terms: Mapping[int, tuple[tuple[int, int], ...]]
    axes: tuple[int, ...]

    def index(self, entry: Index) -> Index:
        return Index.of(entry.offset, ((n, c * k) for a, c in entry.terms for n, k in self.terms[a]))

    def access(self, access: Access) -> Access:
        return tuple(self.index(e) if isinstance(e, Index) else e for e in access)

    def expr(self, root: ex.Expr) -> ex.Expr:
        return ex.substitute(root, axes=lambda leaf: affine_expr(Index.of(0, self.terms[leaf.index])))


def affine_expr(index: Index) -> ex.Expr:
    """`offset + sum(coefficient * axis)` as an i64 expression."""
    total: ex.Expr | None = None
    for axis, coefficient in index.terms:
        term = ex.make("mul", ex.axis(axis), ex.const(coefficient, I64))
        total = term if total is None else ex.make("add", total, term)
    offset = ex.const(index.offset, I64)
    return offset if total is None else ex.make("add", total, offset)


NestLike = Map | Reduce | Contract | Gather | Piece
_N = TypeVar("_N", bound=Map | Reduce | Contract | Gather | Piece | Scatter)


def _with(node: _N, **fields: Any) -> _N:
    return replace(node, **fields)


def _accesses(node: NestLike | Scatter) -> tuple[Access, ...]:
    if isinstance(node, Piece):
        return (node.access,)
    return (*node.accesses, node.target) if isinstance(node, Scatter) else node.accesses


def rewrite_axes(node: _N, change: AxisMap, groups: Callable[[Group], Group]) -> _N:
    """The nest over new axes; `groups` rewrites each group."""
    if isinstance(node, Piece):
        return _with(node, axes=change.axes, access=change.access(node.access), groups=tuple(map(groups, node.groups)))
    accesses = tuple(map(change.access, node.accesses))
    if isinstance(node, Scatter):
        return _with(node, axes=change.axes, accesses=accesses, target=change.access(node.target))
    new = _with(node, axes=change.axes, accesses=accesses, groups=tuple(map(groups, node.groups)))
    if isinstance(new, Map | Reduce) and ex.axes_of(new.expr):
        return _with(new, expr=change.expr(new.expr))
    return new


def split_axis(node: _N, axis: int, inner: int) -> _N:
    """The same nest with `axis` cut into (outer, inner), `inner` dividing its extent; later axes move up by one."""
    outer = node.axes[axis] // inner
    axes = (*node.axes[:axis], outer, inner, *node.axes[axis + 1 :])
    terms: dict[int, tuple[tuple[int, int], ...]] = {a: ((a + (a > axis), 1),) for a in range(len(node.axes))}
    terms[axis] = ((axis, inner), (axis + 1, 1))

    def groups(group: Group) -> Group:
        return tuple(n for a in group for n in ((axis, axis + 1) if a == axis else (a + (a > axis),)))

    return rewrite_axes(node, AxisMap(terms, axes), groups)


def _renumber(node: _N, order: Sequence[int]) -> _N:
    """Axes in the given order; axes that are left out have extent 1."""
    if list(order) == list(range(len(node.axes))):
        return node
    place = {a: n for n, a in enumerate(order)}
    terms = {a: ((place[a], 1),) if a in place else () for a in range(len(node.axes))}
    change = AxisMap(terms, tuple(node.axes[a] for a in order))
    return rewrite_axes(node, change, lambda group: tuple(place[a] for a in group if a in place))


def _standard_order(node: NestLike) -> list[int]:
    """Axes of extent above 1: those of the result in its order, then reduced ones by first use (ascending where order matters)."""
    kept = [a for group in node.groups for a in group]
    if isinstance(node, Piece | Map | Gather):
        return [a for a in kept if node.axes[a] > 1]
    known = set(kept)
    rest = [a for a in range(len(node.axes)) if a not in known]
    if len(rest) > 1 and not (isinstance(node, Reduce) and node.op in _ORDERED):
        first: dict[int, None] = {}
        for access in node.accesses:
            for entry in access:
                if isinstance(entry, Index):
                    for a, _ in sorted(entry.terms, key=lambda t: (-abs(t[1]), t[0])):
                        first.setdefault(a)
        rest = [a for a in first if a not in known] + [a for a in rest if a not in first]
    return [a for a in (*kept, *rest) if node.axes[a] > 1]


def _walk_as_one(accesses: Iterable[Access], outer: int, inner: int, extent: int) -> bool:
    for access in accesses:
        for entry in access:
            if isinstance(entry, Index) and entry.terms:
                c_outer = c_inner = 0
                for a, c in entry.terms:
                    if a == outer:
                        c_outer = c
                    elif a == inner:
                        c_inner = c
                if c_outer != c_inner * extent:
                    return False
    return True


def _candidates(node: NestLike | Scatter) -> list[tuple[int, int]]:
    """Pairs (outer, inner) that may be one axis, as far as the result goes."""
    if isinstance(node, Scatter):
        return [(a, a + 1) for a in range(len(node.axes) - 1)]
    pairs = [(g[n], g[n + 1]) for g in node.groups for n in range(len(g) - 1)]
    if isinstance(node, Reduce | Contract):
        reduced = node.reduced
        if isinstance(node, Reduce) and node.op in _ORDERED:
            pairs.extend(pairwise(reduced))
        else:
            pairs.extend((a, b) for a in reduced for b in reduced if a != b)
    return pairs


def mergeable(node: NestLike | Scatter) -> tuple[int, int] | None:
    """Two axes (outer, inner) that could be one, or None."""
    pairs = _candidates(node)
    if not pairs:
        return None
    valued = set(ex.axes_of(node.expr)) if isinstance(node, Map | Reduce) else set()
    accesses = _accesses(node)
    for outer, inner in pairs:
        if outer not in valued and inner not in valued and _walk_as_one(accesses, outer, inner, node.axes[inner]):
            return outer, inner
    return None


def _merge(node: _N, outer: int, inner: int) -> _N:
    """`outer` and `inner` as one axis at the place of `outer`; the place of `inner` gets extent 1."""
    extent = node.axes[outer] * node.axes[inner]
    axes = tuple(extent if a == outer else 1 if a == inner else e for a, e in enumerate(node.axes))
    terms: dict[int, tuple[tuple[int, int], ...]] = {a: ((a, 1),) for a in range(len(node.axes))}
    terms[outer] = ()  # its coefficient is that of the inner axis times an extent
    terms[inner] = ((outer, 1),)
    return rewrite_axes(node, AxisMap(terms, axes), lambda group: tuple(a for a in group if a != inner))


def normal_axes(node: _N) -> _N:
    """The nest with its axes in normal form."""
    while True:
        if isinstance(node, Scatter):
            order = [a for a, extent in enumerate(node.axes) if extent > 1]
        else:
            order = _standard_order(node)
        node = _renumber(node, order)
        pair = mergeable(node)
        if pair is None:
            return node
        node = _merge(node, *pair)


def _unique_reads(reads: Sequence[tuple[int, Access]], order: Iterable[int]) -> tuple[list[tuple[int, Access]], dict[int, int]]:
    """Reads in the given order without repeats, and old number -> new number."""
    found: dict[tuple[int, Access], int] = {}
    place = {}
    for number in order:
        place[number] = found.setdefault(reads[number], len(found))
    return list(found), place


def normal_operands(node: Node) -> Node:
    """The node with operands numbered by first use, none twice, none unused."""
    if isinstance(node, Map | Reduce):
        while True:
            uses = ex.uses_of(node.expr)
            reads, place = _unique_reads(list(zip(node.operands, node.accesses, strict=True)), uses)
            if len(reads) == len(node.operands) and uses == list(range(len(reads))):
                return node
            expr = ex.substitute(node.expr, args=lambda leaf, place=place: ex.arg(place[leaf.index], leaf.dtype))  # type: ignore[misc]
            node = replace(node, operands=tuple(o for o, _ in reads), accesses=tuple(a for _, a in reads), expr=expr)
    if isinstance(node, Gather):
        uses = [e.operand for e in node.accesses[0] if isinstance(e, Lookup)]
        reads, place = _unique_reads(list(zip(node.operands, node.accesses, strict=True)), uses)
        data = tuple(Lookup(1 + place[e.operand]) if isinstance(e, Lookup) else e for e in node.accesses[0])
        return replace(node, operands=(node.operands[0], *(o for o, _ in reads)), accesses=(data, *(a for _, a in reads)))
    if isinstance(node, Scatter):
        uses = [e.operand for e in node.target if isinstance(e, Lookup)]
        all_reads = [(node.operands[0], ()), *zip(node.operands[1:], node.accesses, strict=True)]
        reads, place = _unique_reads(all_reads, uses)
        target = tuple(Lookup(2 + place[e.operand]) if isinstance(e, Lookup) else e for e in node.target)
        operands = (*node.operands[:2], *(o for o, _ in reads))
        return replace(node, operands=operands, accesses=(node.accesses[0], *(a for _, a in reads)), target=target)
    if isinstance(node, Move):
        used = list(dict.fromkeys(node.operands[p.operand] for p in node.pieces))
        pieces = tuple(replace(p, operand=used.index(node.operands[p.operand])) for p in node.pieces)
        return replace(node, operands=tuple(used), pieces=pieces)
    return node


def normalise(node: Node) -> Node:
    """The node in normal form: same value, same shape."""
    if isinstance(node, Map | Reduce):
        before = normal_operands(node)
        assert isinstance(before, Map | Reduce)
        after = normal_axes(before)
        return after if after.expr is before.expr else normalise(after)  # positions that vanish may free operands
    if isinstance(node, Contract | Gather | Scatter):
        return normal_axes(normal_operands(node))  # type: ignore[type-var]
    if isinstance(node, Move):
        return normal_operands(replace(node, pieces=tuple(map(normal_axes, node.pieces))))
    return node
