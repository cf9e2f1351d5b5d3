"""Lookups that are affine after all (canonicalisation rule 4), and kinds that became simpler ones.

A Gather whose index is a position of the nest is a view; a Scatter that sets along axes is an assembly; a Contract that sums nothing is
a product, a Reduce that reduces nothing is a Map, a Map that computes nothing is a view.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from ..ir import expr as ex
from ..ir.compose import through
from ..ir.graph import Access, Contract, Gather, Index, Lookup, Map, Move, Node, Piece, Reduce, Scatter, whole_piece
from ..ir.interval import affine
from ..ir.normal import affine_expr, normal_operands
from ..ir.types import I64, DType
from .reads import positions


def affine_lookups(node: Node, at: Callable[[int], Node]) -> Node:
    """A Gather or Scatter whose index operands that are affine in the axes are read as plain positions."""
    if not isinstance(node, Gather | Scatter):
        return node
    first = 1 if isinstance(node, Gather) else 2
    changed = False
    for number in range(first, len(node.operands)):
        source = at(node.operands[number])
        if not isinstance(source, Map) or source.operands:
            continue
        index = affine(source.expr)
        found = None if index is None else positions(node, number, source.groups, source.axes)
        if index is None or found is None:
            continue
        node, position = found
        place = through((index,), position)[0]
        assert isinstance(place, Index)
        extents = at(node.operands[0]).shape
        looked = node.accesses[0] if isinstance(node, Gather) else node.target
        low, high = place.bounds(node.axes)
        if any(isinstance(e, Lookup) and e.operand == number and (low < 0 or high >= extents[d]) for d, e in enumerate(looked)):
            continue
        access = tuple(place if isinstance(e, Lookup) and e.operand == number else e for e in looked)
        node = replace(node, accesses=(access, *node.accesses[1:])) if isinstance(node, Gather) else replace(node, target=access)
        changed = True
    return normal_operands(node) if changed else node


def lookup_in_expression(node: Node, at: Callable[[int], Node]) -> Node:
    """A Gather from an expression over axes is that expression at the looked-up positions."""
    if not isinstance(node, Gather):
        return node
    data = at(node.operands[0])
    if not isinstance(data, Map) or data.operands or any(len(g) > 1 for g in data.groups):
        return node
    place: dict[int, ex.Expr] = {}
    for entry, group in zip(node.accesses[0], data.groups, strict=True):
        for axis in group:
            if isinstance(entry, Lookup):
                place[axis] = ex.cast(ex.arg(entry.operand, at(node.operands[entry.operand]).dtype), I64)
            else:
                place[axis] = affine_expr(entry)
    expr = ex.substitute(data.expr, axes=lambda leaf: place[leaf.index])
    zero = tuple(Index() for _ in data.shape)
    return normal_operands(
        Map(
            id=node.id, operands=node.operands, dtype=node.dtype, shape=node.shape, origin=node.origin, axes=node.axes,
            accesses=(zero, *node.accesses[1:]), groups=node.groups, expr=expr,
        )
    )  # fmt: skip


def as_map(view: Move) -> Map:
    """A view as a Map that computes nothing."""
    piece = view.pieces[0]
    return Map(
        id=view.id, operands=view.operands, dtype=view.dtype, shape=view.shape, origin=view.origin, axes=piece.axes,
        accesses=(piece.access,), groups=piece.groups, expr=ex.arg(0, view.dtype),
    )  # fmt: skip


def simpler_kind(node: Node, at: Callable[[int], Node]) -> Node:
    """The same value by a simpler kind, where there is one."""
    if isinstance(node, Gather) and not any(isinstance(e, Lookup) for e in node.accesses[0]):
        return _view(node, node.axes, node.accesses[0], node.groups)
    if isinstance(node, Map) and node.expr.op == "arg":
        return _view(node, node.axes, node.accesses[node.expr.index], node.groups, node.expr.index)
    if isinstance(node, Contract) and not node.reduced:
        expr = _product(node, at(node.operands[0]).dtype)
        return Map(
            id=node.id, operands=node.operands, dtype=node.dtype, shape=node.shape, origin=node.origin, axes=node.axes,
            accesses=node.accesses, groups=node.groups, expr=expr,
        )  # fmt: skip
    if isinstance(node, Reduce) and not node.reduced:
        expr = ex.const(0, node.dtype) if node.op in ("argmax", "argmin") else node.expr
        return Map(
            id=node.id, operands=node.operands, dtype=node.dtype, shape=node.shape, origin=node.origin, axes=node.axes,
            accesses=node.accesses, groups=node.groups, expr=expr,
        )  # fmt: skip
    if isinstance(node, Scatter):
        return _assembly(node)
    return node


def _product(node: Contract, operand: DType) -> ex.Expr:
    wide = [ex.cast(ex.arg(n, operand), node.acc) for n in range(2)]
    return ex.cast(ex.make("mul", *wide), node.dtype)


def _view(node: Node, axes: tuple[int, ...], access: Access, groups: tuple[tuple[int, ...], ...], operand: int = 0) -> Move:
    piece = Piece(0, axes, access, groups, (0,) * len(node.shape), (1,) * len(node.shape))
    return Move(id=node.id, operands=(node.operands[operand],), dtype=node.dtype, shape=node.shape, origin=node.origin, pieces=(piece,))


def _assembly(node: Scatter) -> Node:
    """`set` at positions that are one axis a dimension: the base with one piece written over it."""
    if node.mode != "set" or any(isinstance(e, Lookup) or len(e.terms) > 1 for e in node.target):
        return node
    entries = [e for e in node.target if isinstance(e, Index)]
    walked = [a for e in entries for a, _ in e.terms]
    if sorted(walked) != list(range(len(node.axes))) or any(c < 1 for e in entries for _, c in e.terms):
        return node
    groups = tuple(tuple(a for a, _ in e.terms) for e in entries)
    step = tuple(e.terms[0][1] if e.terms else 1 for e in entries)
    whole = whole_piece(node.shape)
    part = Piece(1, node.axes, node.accesses[0], groups, tuple(e.offset for e in entries), step)
    return Move(id=node.id, operands=node.operands[:2], dtype=node.dtype, shape=node.shape, origin=node.origin, pieces=(whole, part))
