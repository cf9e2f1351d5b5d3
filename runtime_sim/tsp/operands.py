"""How the operands of a group of bursts lie, found once per layout from who feeds whom: evenly in the results, or element by element."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from . import lanes
from .layout import Array


@dataclass(frozen=True)
class Operand:
    """Consecutive elements of some streams. `start` >= 0: they lie evenly in the arena from that byte on, `pitch` bytes apart.

    Otherwise `source` [streams, distinct] are the claim elements to fetch, each for `repeats` elements (None: for one).
    """

    count: int
    start: int
    pitch: int
    source: Array
    repeats: Array | None

    def values(self, arena: Array, vector: int, offset: Array, step: Array, dtype: Any) -> Array:
        """The operand [count, 320] as a numpy type; `offset`, `step` point every claim element to its bytes."""
        kind = np.dtype(dtype)
        if self.start >= 0:
            return np.ndarray((self.count, vector), kind, arena.data, self.start, (self.pitch, kind.itemsize))
        found: Array = lanes.fetch(arena, vector, offset[self.source], step[self.source]).view(kind)
        if self.repeats is None:
            return found
        return np.broadcast_to(found, (self.count, vector)) if len(found) == 1 else np.repeat(found, self.repeats, axis=0)


def find_operand(source: Array, leaf: Array, offset: Array, step: Array) -> Operand:
    """The operand of claim elements `source` [streams, count] (-1: none); `leaf`, `offset`, `step` end with those of none."""
    width, count = source.shape
    origin = leaf[source]
    if count and (origin >= 0).all():
        at = offset[source]
        pitch = int(at[0, 1] - at[0, 0]) if count > 1 else 0
        whole = bool((at == at[0] + np.arange(width)[:, None]).all() and (step[source] == width).all())
        if whole and pitch >= 0 and bool((np.diff(at[0]) == pitch).all()):
            return Operand(count, int(at[0, 0]), pitch, source[:, :0], None)
    change = np.flatnonzero(np.append(True, (origin[:, 1:] != origin[:, :-1]).any(axis=0))) if count else np.zeros(0, np.int64)
    if len(change) * 2 > count:
        return Operand(count, -1, 0, source, None)
    return Operand(count, -1, 0, source[:, change], np.diff(np.append(change, count)))
