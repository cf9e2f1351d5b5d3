"""Reading through Moves (canonicalisation rule 1): a read of a view, or of one piece of an assembly, becomes a read of the source.

A nest here is a Map, Reduce, Contract, Gather or Scatter node or one Piece of a Move; its reads are numbered like its operands.
Where an access composes only after an axis of the reader is split, the reader is split.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, TypeVar

from ..ir import expr as ex
from ..ir.compose import Split, digits, through
from ..ir.graph import Access, Contract, Gather, Group, Index, Lookup, Map, Move, Node, Piece, Reduce, Scatter
from ..ir.normal import split_axis

NestLike = Map | Reduce | Contract | Gather | Scatter | Piece
_N = TypeVar("_N", bound=NestLike)
_MOST_SPLITS = 8


@dataclass(frozen=True, slots=True)
class Filled:
    """A read that only meets the fill of an assembly."""

    value: float | int | bool


def read_of(nest: NestLike, number: int) -> Access:
    """The access of operand `number` (for a Scatter the source is 1)."""
    if isinstance(nest, Piece):
        return nest.access
    return nest.accesses[number - 1] if isinstance(nest, Scatter) else nest.accesses[number]


def with_read(nest: _N, number: int, operand: int, access: Access) -> _N:
    """The nest reading `operand` (a node id) by `access` as its operand `number`; a Piece keeps its operand number."""
    fields: dict[str, Any]
    if isinstance(nest, Piece):
        fields = {"access": access}
    else:
        place = number - 1 if isinstance(nest, Scatter) else number
        fields = {
            "operands": (*nest.operands[:number], operand, *nest.operands[number + 1 :]),
            "accesses": (*nest.accesses[:place], access, *nest.accesses[place + 1 :]),
        }
    return replace(nest, **fields)


def positions(nest: _N, number: int, groups: tuple[Group, ...], extents: tuple[int, ...]) -> tuple[_N, dict[int, Index]] | None:
    """The reader (split where needed) and, for each axis of the producer, its position in terms of the reader's axes."""
    for _ in range(_MOST_SPLITS):
        access = read_of(nest, number)
        affine = tuple(e for e in access if isinstance(e, Index))
        if len(affine) != len(access):
            return None
        found = digits(affine, nest.axes, groups, extents)
        if found is None:
            return None
        if isinstance(found, dict):
            return nest, found
        nest = split_axis(nest, found.axis, found.inner)
    return None


def _looked_up(nest: Gather, piece: Piece) -> Gather | None:
    """A Gather whose data is a view: looked-up dimensions must be whole dimensions of the source."""
    for _ in range(_MOST_SPLITS):
        access = nest.accesses[0]
        plain = tuple(Index() if isinstance(e, Lookup) else e for e in access)
        found = digits(plain, nest.axes, piece.groups, piece.axes)
        if found is None:
            return None
        if isinstance(found, Split):
            nest = split_axis(nest, found.axis, found.inner)
            continue
        looked: dict[int, Lookup] = {}
        for entry, group in zip(access, piece.groups, strict=True):
            if isinstance(entry, Lookup):
                if len(group) != 1:
                    return None
                looked[group[0]] = entry
        source: list[Index | Lookup] = []
        for dimension in piece.access:
            assert isinstance(dimension, Index)
            axes = [a for a, _ in dimension.terms]
            if not any(a in looked for a in axes):
                source.extend(through((dimension,), found))
            elif dimension == Index(0, ((axes[0], 1),)):
                source.append(looked[axes[0]])
            else:
                return None
        if {e.operand for e in source if isinstance(e, Lookup)} != {e.operand for e in looked.values()}:
            return None
        return replace(nest, accesses=(tuple(source), *nest.accesses[1:]))
    return None


def through_move(nest: _N, number: int, move: Move) -> tuple[_N, int] | Filled | None:
    """The nest reading the source of `move` instead of its result, with the operand number of that source in the Move.

    `Filled` where only the fill is read, None where the read mixes pieces or does not compose.
    """
    if move.is_view:
        piece = move.pieces[0]
        if isinstance(nest, Gather) and number == 0:
            gathered = _looked_up(nest, piece)
            return None if gathered is None else (gathered, piece.operand)  # type: ignore[return-value]
        return _into_piece(nest, number, piece)
    if isinstance(nest, Gather) and number == 0:
        return None
    return _one_piece(nest, number, move)


def _into_piece(nest: _N, number: int, piece: Piece) -> tuple[_N, int] | None:
    found = positions(nest, number, piece.groups, piece.axes)
    if found is None:
        return None
    nest, position = found
    return with_read(nest, number, _operand(nest, number), through(piece.access, position)), piece.operand


def _operand(nest: NestLike, number: int) -> int:
    return nest.operand if isinstance(nest, Piece) else nest.operands[number]


def _one_piece(nest: _N, number: int, move: Move) -> tuple[_N, int] | Filled | None:
    """A read of an assembly that lies inside one piece, or in none."""
    access = read_of(nest, number)
    entries = [e for e in access if isinstance(e, Index)]
    bounds = [e.bounds(nest.axes) for e in entries]
    for piece in reversed(move.pieces):
        relation = _relation(entries, bounds, piece)
        if relation == "apart":
            continue
        if relation == "across":
            return None
        local = tuple(
            Index((e.offset - corner) // step, tuple((a, c // step) for a, c in e.terms))
            for e, corner, step in zip(entries, piece.corner, piece.step, strict=True)
        )
        return _into_piece(with_read(nest, number, _operand(nest, number), local), number, piece)
    return None if move.fill is None else Filled(move.fill)


def _relation(entries: list[Index], bounds: list[tuple[int, int]], piece: Piece) -> str:
    """How a read lies to a piece: `inside`, `apart`, or `across`."""
    inside = True
    for entry, (low, high), corner, step, extent in zip(entries, bounds, piece.corner, piece.step, piece.shape, strict=True):
        last = corner + step * (extent - 1)
        if high < corner or low > last:
            return "apart"
        strides = all(c % step == 0 for _, c in entry.terms)
        if step > 1 and strides and (entry.offset - corner) % step:
            return "apart"
        inside &= low >= corner and high <= last and strides
    return "inside" if inside else "across"


def _constant_operand(node: Map | Reduce, number: int, value: ex.Expr) -> Map | Reduce:
    return replace(node, expr=ex.substitute(node.expr, args=lambda leaf: value if leaf.index == number else leaf))


def fold_reads(node: Node, at: Callable[[int], Node]) -> Node:
    """`node` (not a Move) with every read of a Move replaced by reads of its source, as far as they compose. `at` gives nodes by id."""
    if not isinstance(node, Map | Reduce | Contract | Gather | Scatter):
        return node
    first = 1 if isinstance(node, Scatter) else 0
    for number in range(first, len(node.operands)):
        while True:
            move = at(node.operands[number])
            if not isinstance(move, Move):
                break
            found = through_move(node, number, move)
            if isinstance(found, Filled) and isinstance(node, Map | Reduce):
                node = _constant_operand(node, number, ex.const(found.value, move.dtype))
            if found is None or isinstance(found, Filled):
                break
            node, place = found
            node = with_read(node, number, move.operands[place], read_of(node, number))
    return node
