"""Values on the machine: which vector and lane hold which element, in how many copies.

A **copy** is a table `element[vector, lane]` of flat element numbers (-1 where a lane holds nothing that matters) over a sequence of
stored vectors. A node asks for its operands as such tables; `Copy.locate` finds the vectors that already are what is asked for, so that
every affine access that keeps elements in their lanes costs nothing, whatever nest it comes from.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from math import prod

import numpy as np

from ...machines.tsp.isa import DType
from .memory import LANES, Seq, Storage

Array = np.ndarray
Digits = tuple[tuple[int, int], ...]
"""(stride in flat element numbers, extent), outermost first."""


@dataclass(eq=False)
class Copy:
    """One arrangement of a value. `lanes` names the digits along lanes where the arrangement is regular; `replicated`: all lanes equal."""

    element: Array
    seq: Seq
    lanes: Digits = ()
    replicated: bool = False
    clean: bool = False
    """True where lanes that hold nothing hold zero."""
    blocks: tuple[tuple[Storage, int, int], ...] = ()
    """Where the copy is [vectors, tiles] with tiles low..high of all vectors in one storage each: (storage, low, high)."""
    _row: Array | None = None
    _lane: Array | None = None

    def _invert(self, size: int) -> tuple[Array, Array]:
        if self._row is None or self._lane is None:
            row = np.full(size, -1, dtype=np.int64)
            lane = np.full(size, -1, dtype=np.int32)
            if self.replicated:
                row[self.element[:, 0]] = np.arange(len(self.element))
                lane[self.element[:, 0]] = 0
            else:
                at = np.nonzero(self.element >= 0)
                flat = self.element[at]
                row[flat], lane[flat] = at
            self._row, self._lane = row, lane
        return self._row, self._lane

    def locate(self, need: Array, size: int) -> Array | None:
        """Vector numbers that hold `need` [vectors, 320] lane by lane, or None."""
        row, _ = self._invert(size)
        top = need.max(axis=1)
        if not (top >= 0).any():
            return np.zeros(len(need), dtype=np.int64)
        found = np.where(top >= 0, row[np.maximum(top, 0)], 0)
        if (found < 0).any():
            return None
        for some in (slice(0, 1), slice(None)):  # most tables that do not match differ at once
            held = self.element[found[some], :1] if self.replicated else self.element[found[some]]
            if not ((held == need[some]) | (need[some] < 0)).all():
                return None
        return found

    def origin(self, size: int) -> tuple[Array, Array]:
        """(vector, lane) of every element; -1 where this copy lacks it."""
        return self._invert(size)


@dataclass(eq=False)
class Value:
    """A node's result on the machine: its format, its copies, and for constants the array itself."""

    shape: tuple[int, ...]
    dtype: DType
    copies: list[Copy] = field(default_factory=list)
    array: Array | None = None
    source: int | None = None
    """Of a constant: the graph node whose array it is."""
    transform: Callable[[Array], Array] | None = None
    """Of a constant: how `array` comes from the node's array, where it is not the same."""
    pieces: list[Value] = field(default_factory=list)
    """f16 values whose sum it is, where a contraction has asked for them."""
    _derived: tuple[Array, Array] | None = None
    """What `derived` was asked for last: a constant's storages follow each other."""

    def clear(self) -> None:
        """Forget where it lies: nothing reads it any more."""
        self.copies.clear()
        self.pieces.clear()

    def stored(self) -> list[Copy]:
        """All copies, those of its pieces among them."""
        return [*self.copies, *(copy for piece in self.pieces for copy in piece.copies)]

    def derived(self, array: Array) -> Array:
        """What `array` would be for another node's array: the same constant of another layer."""
        if self.transform is None:
            return array
        if self._derived is None or self._derived[0] is not array:
            self._derived = (array, self.transform(array))
        return self._derived[1]

    @property
    def size(self) -> int:
        return prod(self.shape)


def arrange(base: int, rows: Digits, lanes: Digits) -> Array:
    """The table of a nest: vectors enumerate the `rows` digits and then tiles of 320 lanes, lanes enumerate the `lanes` digits.

    Returns [vectors, 320] flat element numbers; the last tile is padded with -1.
    """
    along = enumerate_digits(lanes)
    tiles = -(-len(along) // LANES)
    table = np.full((int(np.prod([extent for _, extent in rows], dtype=np.int64)), tiles * LANES), -1, dtype=np.int64)
    np.add((base + enumerate_digits(rows))[:, None], along, out=table[:, : len(along)])
    return table.reshape(-1, LANES)


def enumerate_digits(digits: Digits) -> Array:
    """Flat element numbers of a nest, outermost digit first."""
    total = np.zeros(1, dtype=np.int64)
    for stride, extent in digits:
        total = (total[:, None] + stride * np.arange(extent)).reshape(-1)
    return total


def along_lanes(lanes: Digits, stride: int) -> int:
    """The position among `lanes` of the digit that an axis of this stride walks, or -1."""
    for k, (step, extent) in enumerate(lanes):
        if step <= abs(stride) < step * extent:
            return k
    return -1


def row_major_strides(shape: Sequence[int]) -> tuple[int, ...]:
    """Flat strides of a row-major array."""
    strides: list[int] = []
    step = 1
    for extent in reversed(shape):
        strides.append(step)
        step *= extent
    return tuple(reversed(strides))
