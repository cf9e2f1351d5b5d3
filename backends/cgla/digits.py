"""Mixed radix: from the axes of a nest to the digits of a blocked layout, as few affine boxes as possible.

A flattened index f runs over axes (outer to inner); a blocked layout writes f as digits of given radices (inner to outer, the last one
open) and gives each digit a weight in memory. Where the axes' boundaries and the digits' boundaries nest, one affine nest copies
everything; a tail that does not fill its digit is a box of its own.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Digit:
    """One loop of a box: `extent` steps, each `step` positions of axis `axis` (a position in the list of axes) and `weight` items."""

    axis: int
    extent: int
    step: int
    weight: int


@dataclass(frozen=True)
class Box:
    """A nest of digits (outer to inner): `start[a]` is the first position on axis a, `offset` the first item in memory."""

    digits: tuple[Digit, ...]
    start: tuple[int, ...]
    offset: int


@dataclass(frozen=True)
class Radix:
    """A blocked layout of one flattened index: `radices` inner to outer without the open one, `weights` one more."""

    radices: tuple[int, ...]
    weights: tuple[int, ...]

    def offset(self, position: int, level: int = 0) -> int:
        """Items from the start for a position counted in blocks of `level` (0: single positions)."""
        total = 0
        for radix, weight in zip(self.radices[level:], self.weights[level:], strict=False):
            total += position % radix * weight
            position //= radix
        return total + position * self.weights[-1]


def refine(extents: Sequence[int], layout: Radix) -> list[Box] | None:
    """Boxes that cover the index space of `extents` (outer to inner), or None where the two digit systems do not nest."""
    pending = [a for a in range(len(extents)) if extents[a] > 1]
    return _descend(list(pending), [extents[a] for a in pending], 1, 0, _Cursor(0, 1), layout, (), len(extents))


@dataclass(frozen=True)
class _Cursor:
    """Progress inside one radix: its level and how much of it is used up."""

    level: int
    used: int


def _descend(
    axes: list[int], extents: list[int], step: int, offset: int, cursor: _Cursor, layout: Radix, done: tuple[Digit, ...], rank: int
) -> list[Box] | None:
    """Digits from the innermost pending axis outwards; `step` is the position step reached on that axis."""
    while axes:
        axis, left = axes[-1], extents[-1]
        if left == 1:
            axes, extents, step = axes[:-1], extents[:-1], 1
            continue
        weight = layout.weights[cursor.level] * cursor.used
        if cursor.level == len(layout.radices):
            done = (Digit(axis, left, step, weight), *done)
            axes, extents, step, cursor = axes[:-1], extents[:-1], 1, _Cursor(cursor.level, cursor.used * left)
            continue
        room = layout.radices[cursor.level] // cursor.used
        if room == 1:
            cursor = _Cursor(cursor.level + 1, 1)
        elif left % room == 0:
            done = (Digit(axis, room, step, weight), *done)
            extents, step, cursor = [*extents[:-1], left // room], step * room, _Cursor(cursor.level + 1, 1)
        elif room % left == 0 or (len(axes) == 1 and left < room):
            done = (Digit(axis, left, step, weight), *done)
            axes, extents, step, cursor = axes[:-1], extents[:-1], 1, _Cursor(cursor.level, cursor.used * left)
        elif len(axes) == 1:
            return _split(axis, left, room, step, offset, cursor, layout, done, rank)
        else:
            return None
    return [Box(done, (0,) * rank, offset)]


def _split(
    axis: int, left: int, room: int, step: int, offset: int, cursor: _Cursor, layout: Radix, done: tuple[Digit, ...], rank: int
) -> list[Box] | None:
    """The outermost axis fills `left // room` whole digits and a tail."""
    blocks, tail = divmod(left, room)
    weight = layout.weights[cursor.level] * cursor.used
    inside = (Digit(axis, room, step, weight), *done)
    full = _descend([axis], [blocks], step * room, offset, _Cursor(cursor.level + 1, 1), layout, inside, rank)
    if full is None:
        return None
    start = [0] * rank
    start[axis] = blocks * room * step
    rest = Box((Digit(axis, tail, step, weight), *done), tuple(start), offset + layout.offset(blocks, cursor.level + 1))
    return [*full, rest]


def cover(start: int, stop: int, layout: Radix) -> list[Box]:
    """Boxes of one axis (number 0) for the positions start..stop - 1; always succeeds."""
    boxes = []
    position = start
    while position < stop:
        level, block = 0, 1
        for radix in layout.radices:
            if position % (block * radix) or position + block * radix > stop:
                break
            level, block = level + 1, block * radix
        count = (stop - position) // block
        if level < len(layout.radices):
            count = min(count, layout.radices[level] - position // block % layout.radices[level])
        digits = [Digit(0, count, block, layout.weights[level])]
        inner = 1
        for below in range(level):
            digits.insert(1, Digit(0, layout.radices[below], inner, layout.weights[below]))
            inner *= layout.radices[below]
        boxes.append(Box(tuple(d for d in digits if d.extent > 1), (position,), layout.offset(position)))
        position += count * block
    return boxes
