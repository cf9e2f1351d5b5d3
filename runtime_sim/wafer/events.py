"""Events: one repetition of one burst, and which repetitions prove all (T8)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property, lru_cache

from .model import BurstView, LoopView, Separable


@dataclass(frozen=True)
class Event:
    """Repetition (k, outer) of a burst; `key` identifies it."""

    burst: BurstView
    k: int = 0
    outer: int = 0

    @property
    def key(self) -> tuple[int, int, int]:
        """(row of the burst, k, outer)."""
        return self.burst.row, self.k, self.outer

    @cached_property
    def time(self) -> Separable:
        """First beat on each core of the role."""
        return self.burst.time.shift(self.burst.shift_of(self.k, self.outer))

    @property
    def low(self) -> int:
        """First beat on the earliest core."""
        return self.time.low

    @property
    def end(self) -> int:
        """End on the latest core."""
        return self.time.high + self.burst.span


def ends(loop: LoopView) -> tuple[int, ...]:
    """Repetitions 0, 1, last - 1 and last."""
    return _ends(loop.rep)


@lru_cache(maxsize=1024)
def _ends(rep: int) -> tuple[int, ...]:
    return tuple(sorted({0, min(1, rep - 1), max(rep - 2, 0), rep - 1}))


def clipped(bursts: Iterable[BurstView]) -> list[Event]:
    """The events that stand for all, in order of time."""
    events = [Event(b, k, outer) for b in bursts for outer in ends(b.outer) for k in ends(b.loop)]
    return sorted(events, key=lambda e: (e.low, e.burst.id, e.outer, e.k))


def expanded(bursts: Iterable[BurstView]) -> Iterator[Event]:
    """Every event, by burst."""
    for b in bursts:
        for outer in range(b.outer.rep):
            for k in range(b.loop.rep):
                yield Event(b, k, outer)
