"""All bytes of a run behind one address: constants where the program's images lie, then rows that change and computed results."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from .layout import Array
from .store import Store

ALIGN = 64
"""Results begin at multiples of this, so that they can be seen as wider numbers."""


@dataclass(frozen=True)
class Arena:
    """`memory` [bytes] begins at the lowest address of any image or of the arena's own bytes, rounded down to a multiple of ALIGN, and ends
    with the highest: a row is a plain offset, and no constant is copied. Between them lies what is not the arena's. No offset leads there:
    those of rows come from `first`, those of results are compared with the room for them (`values.Values.move`).

    `first[slice]`: offset of row 0 of each slice of the store; -1 where it is not kept, or a constant that no image holds. `rows`
    [rows, 320] are the ones that can change, of which the first is row `constants` of the store; `buffers` offset of the first row of its
    weight buffers. `start`: offset of the first of the arena's own bytes, `results` of the first after the rows. `kept`: the arrays that
    hold the bytes. `views`: the memory as numbers of 1, 2 and 4 bytes, and as fp32.
    """

    memory: Array
    first: Array
    rows: Array
    constants: int
    buffers: int
    start: int
    results: int
    kept: tuple[Array, ...]
    views: tuple[Array, Array, Array, Array]

    def offset(self, slices: Array, rows: Array) -> Array:
        """Offsets of rows of slices of the store; -1 where they are not kept."""
        first = self.first[slices]
        return np.where(first >= 0, first + rows * self.rows.shape[1], -1)

    def constant(self, offset: Array) -> Array:
        """Which offsets lead to constants, or to nothing (-1)."""
        result: Array = (offset < self.start) | (offset >= self.start + self.kept[-1].nbytes)
        return result

    def clear(self, ranges: Sequence[tuple[int, int]]) -> None:
        """Zero rows from, to of the store that can change."""
        for low, high in ranges:
            self.rows[low - self.constants : high - self.constants] = 0


def make_arena(store: Store, images: Sequence[tuple[int, Array]], space: int, vector: int) -> Arena:
    """All rows are zero. `images`: (allocation, bytes [slices, rows, 320]) of each placed image; `space` bytes of results."""
    changing = store.size - store.constants
    own = np.zeros(changing * vector + space, np.uint8)
    placed = [(allocation, np.ascontiguousarray(image)) for allocation, image in images]
    kept = (*(image for _, image in placed), own)
    base = min(array.ctypes.data for array in kept) // ALIGN * ALIGN
    end = max(array.ctypes.data + array.nbytes for array in kept)
    memory = np.frombuffer(memoryview((ctypes.c_uint8 * (end - base)).from_address(base)), np.uint8)
    start = own.ctypes.data - base
    first = np.where(store.base >= store.constants, start + (store.base - store.constants) * vector, -1)
    for allocation, image in placed:
        slices = np.arange(*np.searchsorted(store.owner, [allocation, allocation + 1]))
        first[slices] = image.ctypes.data - base + np.arange(len(slices)) * (image.shape[1] * vector)
    rows = own[: changing * vector].reshape(-1, vector)
    whole = memory[: len(memory) // 4 * 4]
    views = whole, whole.view(np.uint16), whole.view(np.uint32), whole.view(np.float32)
    buffers = start + (store.buffers - store.constants) * vector
    return Arena(memory, first, rows, store.constants, buffers, start, start + changing * vector, kept, views)
