"""What objects hold, on which cores, at a place of a segment's plan."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .model import BurstView, Ints


@dataclass
class Held:
    """What an object may hold (or what of it may be read) at a place of the plan: on which cores, from which to which element."""

    cores: NDArray[np.bool_]
    low: int
    high: int
    filled: list[int] = field(default_factory=list)
    """Actions since the fill that covered it, the fill first; empty where something else touched it."""

    def add(self, cores: Any, low: int, high: int) -> None:
        """More elements on more cores (an index of `cores`)."""
        if not self.cores.any():
            self.low, self.high = low, high
        self.cores[cores] = True
        self.low, self.high = min(self.low, low), max(self.high, high)

    def drop(self, cores: Any, low: int, high: int) -> None:
        """Without these elements of these cores, where that leaves none there."""
        if low <= self.low and self.high <= high:
            self.cores[cores] = False

    def both(self, other: Held) -> Held:
        """What is in this one and in another one."""
        low, high = max(self.low, other.low), min(self.high, other.high)
        return Held(self.cores & other.cores if low <= high else np.zeros_like(self.cores), low, high, self.filled)


def among(numbers: Ints, count: int) -> NDArray[np.bool_]:
    """Which of 0 .. count - 1 are among the numbers."""
    out = np.zeros(count, bool)
    out[numbers] = True
    return out


def role_of(burst: BurstView) -> tuple[slice, slice]:
    """The cores of a burst as an index of [rows, columns] of its region."""
    rows, cols = burst.rows, burst.cols
    return slice(rows.start, rows.stop, rows.step), slice(cols.start, cols.stop, cols.step)
