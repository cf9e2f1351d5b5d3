"""All bytes of a run behind one address: constants where the program's images lie, then rows that change and computed results."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from .layout import Array
from .store import Store

ALIGN = 64
"""Results begin at multiples of this, so that they can be seen as wider numbers."""


@dataclass(frozen=True)
class Arena:
    """`memory` [bytes] begins at the lowest address of any image or of the arena's own bytes, rounded down to a multiple of ALIGN, and ends
    with the highest: a row is a plain offset, and no constant is copied. Between them lies what is not the arena's. No offset leads there:
    those of rows are in `at`, those of results are compared with the room for them (`values.Values.moved`).

    `at[row]`: offset of each row of the store, -1 for rows of constants that no image holds, and last -1 for row -1. `rows` [rows, 320] are
    the ones that can change, of which the first is row `first` of the store. `start`: offset of the first of its own bytes, `results` of
    the first after the rows. `kept`: the arrays that hold the bytes.
    """

    memory: Array
    at: Array
    rows: Array
    first: int
    start: int
    results: int
    kept: tuple[Array, ...]

    @cached_property
    def views(self) -> tuple[Array, Array, Array, Array]:
        """The memory as numbers of 1, 2 and 4 bytes, and as fp32."""
        memory = self.memory[: len(self.memory) // 4 * 4]
        return memory, memory.view(np.uint16), memory.view(np.uint32), memory.view(np.float32)

    def offset(self, row: Array) -> Array:
        """Offsets of rows of the store; -1 for row -1."""
        result: Array = self.at[row]
        return result

    def constant(self, offset: Array) -> Array:
        """Which offsets lead to constants, or to nothing (-1)."""
        result: Array = (offset < self.start) | (offset >= self.start + self.kept[-1].nbytes)
        return result


def make_arena(store: Store, images: Sequence[tuple[Array, Array]], space: int, vector: int) -> Arena:
    """All rows are zero. `images`: (number of row 0 of every slice, bytes [slices, rows, 320]) of each placed image; `space` bytes of
    results."""
    changing = store.size - store.constants
    own = np.zeros(changing * vector + space, np.uint8)
    placed = [(first, np.ascontiguousarray(image)) for first, image in images]
    kept = (*(image for _, image in placed), own)
    base = min(array.ctypes.data for array in kept) // ALIGN * ALIGN
    end = max(array.ctypes.data + array.nbytes for array in kept)
    memory = np.frombuffer(memoryview((ctypes.c_uint8 * (end - base)).from_address(base)), np.uint8)
    at = np.full(store.size + 1, -1, np.int64)
    for first, image in placed:
        count = image.shape[1]
        for number, row in enumerate(first.tolist()):
            at[row : row + count] = image.ctypes.data - base + np.arange(number * count, (number + 1) * count) * vector
    start = own.ctypes.data - base
    at[store.constants : -1] = start + np.arange(changing) * vector
    rows = own[: changing * vector].reshape(-1, vector)
    return Arena(memory, at, rows, store.constants, start, start + changing * vector, kept)
