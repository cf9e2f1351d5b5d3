"""Resources in time: reservations on a line of cycles, first gap first."""

from __future__ import annotations

from bisect import bisect_left, bisect_right


class Timeline:
    """Disjoint busy intervals of one resource."""

    def __init__(self) -> None:
        self._starts: list[int] = []
        self._ends: list[int] = []

    def find(self, earliest: int, length: int) -> int:
        """First cycle from `earliest` on at which the resource is free for `length` cycles."""
        position = bisect_right(self._ends, earliest)
        start = earliest
        for index in range(position, len(self._starts)):
            if start + length <= self._starts[index]:
                return start
            start = max(start, self._ends[index])
        return start

    def reserve(self, start: int, length: int) -> None:
        """Take [start, start + length); it must be free. Neighbouring intervals are joined."""
        if length <= 0:
            return
        end = start + length
        index = bisect_left(self._starts, start)
        joins_left = index > 0 and self._ends[index - 1] == start
        joins_right = index < len(self._starts) and self._starts[index] == end
        assert index == 0 or self._ends[index - 1] <= start
        assert index == len(self._starts) or end <= self._starts[index]
        if joins_left and joins_right:
            self._ends[index - 1] = self._ends.pop(index)
            self._starts.pop(index)
        elif joins_left:
            self._ends[index - 1] = end
        elif joins_right:
            self._starts[index] = start
        else:
            self._starts.insert(index, start)
            self._ends.insert(index, end)

    @property
    def end(self) -> int:
        """First cycle after the last reservation."""
        return self._ends[-1] if self._ends else 0
