"""Assemblies (Moves of several pieces): the half of canonicalisation rule 1 that concerns them, and rule 5.

Pieces read through views; a piece that reads another assembly is spliced into its parts; pieces that later ones overwrite go; uniform
pieces become the fill. An assembly of equal pieces whose reads of one operand differ affinely in the piece number is a Map with an axis
for that number and a `select` on it (rotate_half becomes part of one Map), or a plain view where the pieces compute the same.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from math import prod

import numpy as np

from ..ir import expr as ex
from ..ir.compose import through
from ..ir.graph import Access, Group, Index, Map, Move, Node, Piece
from ..ir.normal import normal_axes
from ..ir.verify import covers
from .reads import Filled, positions, through_move

_MOST_PIECES = 256
_MOST_SELECTS = 4  # pieces that compute different things
_MOST_ENTRIES = 8  # of what a piece may compute to become part of a select

Number = int | float | bool


@dataclass(frozen=True, slots=True)
class _Part:
    """A piece with the id of the node that it reads; its own operand number is not used until the end."""

    source: int
    piece: Piece


def simplify_move(move: Move, at: Callable[[int], Node]) -> Node:
    """The same value with its pieces simplified: a Move, or a Map where only a fill or a select is left."""
    parts = [_Part(move.operands[p.operand], p) for p in move.pieces]
    fill = move.fill
    for _ in range(8):
        before = parts
        parts, fill = _composed(parts, fill, at)
        parts, fill = _uniform(parts, fill, at)
        parts = _visible(parts, move.shape)
        if parts == before:
            break
    parts = [_Part(p.source, normal_axes(p.piece)) for p in parts]
    if not parts:
        value = ex.const(fill if fill is not None else 0, move.dtype)
        return _map(move, move.shape, (), (), tuple((d,) for d in range(len(move.shape))), value)
    if fill is not None and covers([p.piece for p in parts], move.shape):
        fill = None
    simple = _as_map(move, parts, at) if fill is None else None
    return simple or _move(move, parts, fill)


def _move(move: Move, parts: list[_Part], fill: Number | None) -> Move:
    sources = list(dict.fromkeys(p.source for p in parts))
    pieces = tuple(replace(p.piece, operand=sources.index(p.source)) for p in parts)
    return replace(move, operands=tuple(sources), pieces=pieces, fill=fill)


def _map(
    move: Move, axes: tuple[int, ...], operands: tuple[int, ...], accesses: tuple[Access, ...], groups: tuple[Group, ...], expr: ex.Expr
) -> Map:
    return Map(
        id=move.id, operands=operands, dtype=move.dtype, shape=move.shape, origin=move.origin, axes=axes, accesses=accesses,
        groups=groups, expr=expr,
    )  # fmt: skip


# --- pieces that read Moves ------------------------------------------------------------------------------------------------------------


def _composed(parts: list[_Part], fill: Number | None, at: Callable[[int], Node]) -> tuple[list[_Part], Number | None]:
    result: list[_Part] = []
    for number, part in enumerate(parts):
        source = at(part.source)
        if not isinstance(source, Move):
            result.append(part)
            continue
        found = through_move(part.piece, 0, source)
        if isinstance(found, tuple):
            result.append(_Part(source.operands[found[1]], found[0]))
            continue
        clear = not any(_overlap(part.piece, earlier.piece) for earlier in parts[:number])
        if isinstance(found, Filled):
            if clear and (fill is None or _same(fill, found.value)):
                fill = found.value
            else:
                result.append(part)
            continue
        spliced = None if source.is_view else _spliced(part.piece, source)
        needs_fill = source.fill is not None
        if spliced is None or len(result) + len(spliced) > _MOST_PIECES or (needs_fill and not (clear and _agree(fill, source.fill))):
            result.append(part)
            continue
        fill = source.fill if needs_fill else fill
        result.extend(spliced)
    return result, fill


def _same(a: Number, b: Number) -> bool:
    return a == b or (a != a and b != b)


def _agree(a: Number | None, b: Number | None) -> bool:
    return a is None or b is None or _same(a, b)


def _overlap(a: Piece, b: Piece) -> bool:
    """Whether the bounding boxes of two pieces meet."""
    for ca, sa, na, cb, sb, nb in zip(a.corner, a.step, a.shape, b.corner, b.step, b.shape, strict=True):
        if ca > cb + sb * (nb - 1) or cb > ca + sa * (na - 1):
            return False
    return True


def _spliced(piece: Piece, inner: Move) -> list[_Part] | None:
    """The parts of `inner` that a piece reads, for a piece that reads a box of it axis by axis; None where it does not compose."""
    dimension = {group[0]: d for d, group in enumerate(piece.groups) if len(group) == 1}
    entries = [e for e in piece.access if isinstance(e, Index)]
    walked = [a for e in entries for a, _ in e.terms]
    plain = all(len(e.terms) <= 1 and all(c == 1 for _, c in e.terms) for e in entries)
    if not plain or sorted(walked) != list(range(len(piece.axes))) or sorted(dimension) != list(range(len(piece.axes))):
        return None
    found = []
    for part in inner.pieces:
        if any(s != 1 for s in part.step):
            return None
        window = _window(entries, piece, part)
        if window is None:
            continue
        axes, starts = window
        corner = list(piece.corner)
        for axis, d in dimension.items():
            corner[d] += piece.step[d] * starts[axis]
        local = tuple(Index(e.offset - c + sum(starts[a] for a, _ in e.terms), e.terms) for e, c in zip(entries, part.corner, strict=True))
        cut = replace(piece, axes=axes, access=local, corner=tuple(corner))
        composed = positions(_without_units(cut), 0, part.groups, part.axes)
        if composed is None:
            return None
        new, position = composed
        found.append(_Part(inner.operands[part.operand], replace(new, access=through(part.access, position))))
    return found


def _without_units(piece: Piece) -> Piece:
    """The piece without its axes of extent 1."""
    kept = [a for a, extent in enumerate(piece.axes) if extent > 1]
    place = {a: n for n, a in enumerate(kept)}
    access = tuple(Index(e.offset, tuple((place[a], c) for a, c in e.terms if a in place)) for e in piece.access if isinstance(e, Index))
    groups = tuple(tuple(place[a] for a in g if a in place) for g in piece.groups)
    return replace(piece, axes=tuple(piece.axes[a] for a in kept), access=access, groups=groups)


def _window(entries: list[Index], piece: Piece, part: Piece) -> tuple[tuple[int, ...], dict[int, int]] | None:
    """Extents and first positions of the piece's axes inside one part, or None where they do not meet."""
    axes = list(piece.axes)
    starts = dict.fromkeys(range(len(axes)), 0)
    for e, corner, extent in zip(entries, part.corner, part.shape, strict=True):
        if not e.terms:
            if not corner <= e.offset < corner + extent:
                return None
            continue
        axis = e.terms[0][0]
        low = max(0, corner - e.offset)
        high = min(piece.axes[axis], corner + extent - e.offset)
        if low >= high:
            return None
        axes[axis], starts[axis] = high - low, low
    return tuple(axes), starts


# --- pieces that need not be there -----------------------------------------------------------------------------------------------------


def _uniform(parts: list[_Part], fill: Number | None, at: Callable[[int], Node]) -> tuple[list[_Part], Number | None]:
    """Pieces of one constant value become the fill where nothing earlier shows through."""
    result: list[_Part] = []
    for part in parts:
        source = at(part.source)
        if isinstance(source, Map) and source.expr.op == "const" and source.expr.value is not None:
            value = source.expr.value
            clear = not any(_overlap(part.piece, earlier.piece) for earlier in result)
            if clear and (fill is None or _same(fill, value)):
                fill = value
                continue
        result.append(part)
    return result, fill


def _visible(parts: list[_Part], shape: tuple[int, ...]) -> list[_Part]:
    """Parts that later ones do not overwrite, one alone or (for a base under slices) together."""
    if len(parts) < 2 or not shape:
        return parts[-1:]
    corner, step, extent = (np.array([v(p.piece) for p in parts]) for v in (_corner, _step, _extent))
    last = corner + step * (extent - 1)
    inside = (corner[:, None] >= corner[None]).all(-1) & (last[:, None] <= last[None]).all(-1)
    hidden = np.triu(inside & (step == 1).all(-1)[None], 1).any(1)
    kept = [p for p, gone in zip(parts, hidden, strict=True) if not gone]
    if 2 < len(kept) <= 64 and kept[0].piece.shape == shape and covers([p.piece for p in kept[1:]], shape):
        return kept[1:]
    return kept


def _corner(piece: Piece) -> tuple[int, ...]:
    return piece.corner


def _step(piece: Piece) -> tuple[int, ...]:
    return piece.step


def _extent(piece: Piece) -> tuple[int, ...]:
    return piece.shape


# --- rule 5 ----------------------------------------------------------------------------------------------------------------------------


def _as_map(move: Move, parts: list[_Part], at: Callable[[int], Node]) -> Node | None:
    """The assembly as one Map (or view) with an axis for the piece number, or None."""
    layout = _tiling([p.piece for p in parts], move.shape)
    if layout is None:
        return None
    dimension, order, blocked = layout
    computed = [_computed(parts[n], at) for n in order]
    if len(order) < 2 or any(c is None for c in computed):
        return None
    reads = [c for c in computed if c is not None]
    source, first, _, _ = reads[0]
    if any(c[0] != source or (c[1].axes, c[1].groups) != (first.axes, first.groups) for c in reads):
        return None
    exprs = [c[3] for c in reads]
    same = all(e is exprs[0] for e in exprs)
    number = len(first.axes)
    joined = _affine_in_number([c[2] for c in reads], number)
    if joined is None or (not same and len(exprs) > _MOST_SELECTS):
        return None
    axes = (*first.axes, len(order))
    group = first.groups[dimension]
    group = (number, *group) if blocked else (*group, number)
    groups = (*first.groups[:dimension], group, *first.groups[dimension + 1 :])
    expr = exprs[-1]
    for n in range(len(exprs) - 2, -1, -1):
        expr = ex.make("select", ex.make("eq", ex.axis(number), ex.const(n, ex.axis(0).dtype)), exprs[n], expr)
    result = _map(move, axes, (source,), (joined,), groups, expr)
    return result if prod(axes) == move.size else None


def _tiling(pieces: list[Piece], shape: tuple[int, ...]) -> tuple[int, list[int], bool] | None:
    """How equal pieces tile the result: the dimension, the pieces in order, and whether they are blocks (else they interleave)."""
    count = len(pieces)
    shapes = {p.shape for p in pieces}
    if len(shapes) != 1:
        return None
    part = shapes.pop()
    cut = [d for d, (whole, own) in enumerate(zip(shape, part, strict=True)) if whole != own]
    if len(cut) != 1 or part[cut[0]] * count != shape[cut[0]]:
        return None
    d = cut[0]
    if any(p.corner[e] or p.step[e] != 1 for p in pieces for e in range(len(shape)) if e != d):
        return None
    order = sorted(range(count), key=lambda n: pieces[n].corner[d])
    corners = [pieces[n].corner[d] for n in order]
    steps = {p.step[d] for p in pieces}
    length = part[d]
    if corners == [n * length for n in range(count)] and (steps == {1} or length == 1):
        return d, order, True
    if corners == list(range(count)) and steps == {count}:
        return d, order, False
    return None


def _computed(part: _Part, at: Callable[[int], Node]) -> tuple[int, Piece, Access, ex.Expr] | None:
    """What a piece shows as (operand, nest, access, expression of operand 0): of its source, or through a small Map of one operand."""
    source = at(part.source)
    if isinstance(source, Map) and len(source.operands) == 1 and source.expr.size <= _MOST_ENTRIES and not ex.axes_of(source.expr):
        found = positions(part.piece, 0, source.groups, source.axes)
        if found is not None:
            piece, position = found
            return source.operands[0], piece, through(source.accesses[0], position), source.expr
    return part.source, part.piece, part.piece.access, ex.arg(0, source.dtype)


def _affine_in_number(accesses: list[Access], number: int) -> Access | None:
    """One access with an axis `number` for the piece, or None where offsets do not advance evenly."""
    entries = [[e for e in access if isinstance(e, Index)] for access in accesses]
    joined = []
    for dimension in zip(*entries, strict=True):
        offsets = [e.offset for e in dimension]
        step = offsets[1] - offsets[0]
        even = all(o == offsets[0] + n * step for n, o in enumerate(offsets))
        if not even or any(e.terms != dimension[0].terms for e in dimension):
            return None
        joined.append(Index.of(offsets[0], (*dimension[0].terms, (number, step))))
    return tuple(joined)
