"""Words of a core, dealt out at compile time: activations from the bottom up, constants from the top down.

Every core of a rectangle keeps its objects at the same addresses, so one allocator serves the rectangle. Activations live from their
first write to their last read and are placed first-fit; constants live for the whole program and never move. Addresses are multiples
of 8 words (one round of the banks), so that bank rule C6 holds for all instances alike.
"""

from __future__ import annotations

from dataclasses import dataclass, field

BANKS = 8


class Full(Exception):
    """No room on a core; the caller cuts finer, or takes a larger rectangle."""

    def __init__(self, words: int) -> None:
        super().__init__(f"{words} words do not fit")
        self.words = words


def round_up(words: int, to: int = BANKS) -> int:
    """The next multiple of `to`."""
    return -(-words // to) * to


@dataclass
class Words:
    """Free words of one core between `low` and `high`; `reserve` of them are kept for constants still to come."""

    low: int
    high: int
    reserve: int = 0
    top: int = 0
    peak: int = 0
    blocks: list[tuple[int, int]] = field(default_factory=list)
    """Taken blocks (start, end) of activations, ascending."""

    def __post_init__(self) -> None:
        self.top = self.top or self.high
        self.peak = self.peak or self.low

    def copy(self) -> Words:
        """An independent copy, to return to."""
        return Words(self.low, self.high, self.reserve, self.top, self.peak, list(self.blocks))

    @property
    def ceiling(self) -> int:
        """First word that activations may not use."""
        return min(self.top, self.high - self.reserve)

    def take(self, words: int) -> int:
        """The address of a block of `words` words. Raises Full."""
        words = round_up(max(words, 1))
        start = self.low
        for index, (first, end) in enumerate(self.blocks):
            if first - start >= words:
                self.blocks.insert(index, (start, start + words))
                return start
            start = end
        if start + words > self.ceiling:
            raise Full(start + words - self.ceiling)
        self.blocks.append((start, start + words))
        self.peak = max(self.peak, start + words)
        return start

    def give(self, start: int) -> None:
        """Return the block at `start`."""
        self.blocks = [block for block in self.blocks if block[0] != start]

    def constant(self, words: int) -> int:
        """The address of a block that stays taken for the whole program. Raises Full."""
        start = (self.top - max(words, 1)) // BANKS * BANKS
        if start < self.peak:
            raise Full(self.peak - start)
        self.top = start
        return start

    @property
    def holes(self) -> tuple[int, int]:
        """Words of the largest free run below the ceiling, and of all of them."""
        runs, start = [], self.low
        for first, end in (*self.blocks, (self.ceiling, self.ceiling)):
            runs.append(first - start)
            start = end
        return max(0, *runs), sum(max(0, n) for n in runs)
