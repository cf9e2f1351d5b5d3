"""Small interval algebra on time and on bytes."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from fractions import Fraction
from math import lcm

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]


def overlapping(intervals: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
    """Index pairs (earlier, later) of half-open intervals that meet, each interval against the longest one before it; empty intervals
    meet nothing."""
    order = sorted((index for index in range(len(intervals)) if intervals[index][1] > intervals[index][0]), key=lambda i: (intervals[i], i))
    result = []
    longest = -1
    for index in order:
        if longest >= 0 and intervals[index][0] < intervals[longest][1]:
            result.append((longest, index))
        if longest < 0 or intervals[index][1] > intervals[longest][1]:
            longest = index
    return result


def crossing(left: Sequence[tuple[int, int]], right: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
    """All (i, j) with left[i] and right[j] half-open intervals that meet."""
    if not left or not right:
        return []
    a, b = np.array(left, dtype=np.int64), np.array(right, dtype=np.int64)
    order = np.argsort(b[:, 0], kind="stable")
    starts = b[order, 0]
    running = np.maximum.accumulate(b[order, 1])
    firsts = np.searchsorted(running, a[:, 0], side="right")
    lasts = np.searchsorted(starts, a[:, 1], side="left")
    result = []
    for i in np.flatnonzero((firsts < lasts) & (a[:, 0] < a[:, 1])).tolist():
        near = order[firsts[i] : lasts[i]]
        meets = np.maximum(b[near, 0], a[i, 0]) < np.minimum(b[near, 1], a[i, 1])
        result += [(i, j) for j in near[meets].tolist()]
    return result


def rate_peak(requests: Iterable[tuple[int, int, Fraction, int]], limit: Fraction) -> tuple[int, list[int]] | None:
    """(cycle, requests) where the sum of rates of active (start, end, rate, id) requests first exceeds `limit`."""
    known = [request for request in requests if request[1] > request[0]]
    unit = lcm(limit.denominator, *{rate.denominator for _, _, rate, _ in known})
    events = []
    for start, end, rate, name in known:
        amount = rate.numerator * (unit // rate.denominator)
        events.append((start, 1, name, amount))
        events.append((end, 0, name, -amount))
    total, most = 0, int(limit * unit)
    active: list[int] = []
    for cycle, begins, name, change in sorted(events):
        total += change
        if not begins:
            active.remove(name)
            continue
        active.append(name)
        if total > most:
            return cycle, list(active)
    return None


def strided_runs(item: int, terms: Sequence[tuple[int, int]], limit: int = 1 << 20) -> tuple[Ints, int]:
    """(starts, run length) in bytes, from 0, of the bytes {sum of axis * stride} with items of `item` bytes; `terms` are (extent, stride
    in bytes). Runs may overlap or touch. Beyond `limit` runs the hull is returned as one."""
    run = item
    origin = 0
    gaps: list[tuple[int, int]] = []
    for extent, stride in sorted(terms, key=lambda term: abs(term[1])):
        if extent <= 1 or stride == 0:
            continue
        if stride < 0:
            origin += stride * (extent - 1)
        if abs(stride) <= run and not gaps:
            run += abs(stride) * (extent - 1)
        else:
            gaps.append((extent, abs(stride)))
    starts = np.zeros(1, dtype=np.int64) + origin
    count = 1
    for extent, _ in gaps:
        count *= extent
    if count > limit:
        return starts, run + sum((extent - 1) * stride for extent, stride in gaps)
    for extent, stride in gaps:
        starts = (starts[:, None] + np.arange(extent, dtype=np.int64) * stride).ravel()
    return starts, run


def priority_cover(layers: Sequence[tuple[str, Sequence[tuple[int, int]]]], end: int) -> dict[str, int]:
    """Cycles of [0, end) given to the first layer that is active, the rest to `wait`; the values sum to `end`."""
    points = sorted({0, end, *(min(max(p, 0), end) for _, spans in layers for span in spans for p in span)})
    position = {point: index for index, point in enumerate(points)}
    taken = np.zeros(max(len(points) - 1, 0), dtype=bool)
    widths = np.diff(np.array(points, dtype=np.int64))
    result = {}
    for name, spans in layers:
        delta = np.zeros(len(points) + 1, dtype=np.int64)
        for low, high in spans:
            if high > low:
                delta[position[min(max(low, 0), end)]] += 1
                delta[position[min(max(high, 0), end)]] -= 1
        active = (np.cumsum(delta)[: len(widths)] > 0) & ~taken
        result[name] = int(widths[active].sum())
        taken |= active
    result["wait"] = int(widths[~taken].sum())
    return result
