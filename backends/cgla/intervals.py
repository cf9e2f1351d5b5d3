"""When bytes of a piece of DDR are ready, and until when they are read: what a schedule must wait for."""

from __future__ import annotations

Span = tuple[int, int]


class History:
    """Writes and reads of one symbol, as byte spans [low, high) with the cycle at which each ends."""

    def __init__(self, size: int) -> None:
        self.size = size
        self._writes: list[tuple[int, int, int]] = []
        self._reads: list[tuple[int, int, int]] = []

    def ready(self, span: Span) -> int:
        """Cycle from which the bytes may be read."""
        return _latest(self._writes, span)

    def free(self, span: Span) -> int:
        """Cycle from which the bytes may be written."""
        return max(_latest(self._writes, span), _latest(self._reads, span))

    def wrote(self, span: Span, end: int) -> None:
        """Bytes that were written until `end`."""
        self._writes = _with(self._writes, span, end)

    def read(self, span: Span, end: int) -> None:
        """Bytes that were read until `end`."""
        self._reads = _with(self._reads, span, end)


def _latest(entries: list[tuple[int, int, int]], span: Span) -> int:
    low, high = span
    return max((end for first, last, end in entries if first < high and low < last), default=0)


def _with(entries: list[tuple[int, int, int]], span: Span, end: int) -> list[tuple[int, int, int]]:
    """The entries with a new one; those that it covers in space and time go."""
    low, high = span
    kept = [entry for entry in entries if not (low <= entry[0] and entry[1] <= high and entry[2] <= end)]
    kept.append((low, high, end))
    return kept
