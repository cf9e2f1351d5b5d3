"""Pairs of claims that meet on a core: the one sweep that rate, queue, thread and hazard rules share.

A claim holds the cores of a role for `span` cycles from a first cycle per core. Two claims are compared only where their bounding
intervals meet; bounds of time differences come from separable times, so most pairs never build an array.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from .events import Event
from .model import Ints, Separable


@dataclass(frozen=True)
class Claim:
    """`amount`/`span` of a resource on the cores of a role (region, rows, cols) over [time, time + span)."""

    region: int
    rows: range
    cols: range
    time: Separable
    span: int
    amount: int
    name: str
    prov: int
    lead: int = 0
    """Cycles by which the claim may reach back before `time` (a queue that fills before it is read)."""
    event: Event | None = None


def claim_of(event: Event, amount: int, lead: int = 0) -> Claim:
    """The claim of an event over its own [T, E)."""
    b = event.burst
    return Claim(b.region.id, b.rows, b.cols, event.time, b.span, amount, b.name, b.prov, lead, event)


@dataclass(frozen=True)
class Meeting:
    """Two claims on common cores: index arrays into both roles, and T_second - T_first there (bounds, or the array on demand)."""

    first: int
    second: int
    rows: tuple[Ints, Ints]
    cols: tuple[Ints, Ints]
    low: int
    high: int


@lru_cache(maxsize=4096)
def common_members(a: range, b: range) -> tuple[Ints, Ints] | None:
    """Index arrays of the common members of two progressions, None where there are none."""
    _, ia, ib = np.intersect1d(np.array(a), np.array(b), assume_unique=True, return_indices=True)
    return (ia, ib) if len(ia) else None


class Sweep:
    """Claims in order of time, and the meetings among them."""

    def __init__(self, claims: Sequence[Claim]) -> None:
        self.claims = sorted(claims, key=lambda c: (c.time.low - c.lead, c.name))
        self.low = np.array([c.time.low - c.lead for c in self.claims], np.int64)
        self.end = np.array([c.time.high + c.span for c in self.claims], np.int64)

    def common(self, a: range, b: range) -> tuple[Ints, Ints] | None:
        """Index arrays of the common members of two progressions, None where there are none."""
        return common_members(a, b)

    def meetings(self) -> Iterator[Meeting]:
        """Every pair whose bounding intervals meet on common cores, the earlier claim first."""
        last = np.searchsorted(self.low, self.end, "left")
        for i, first in enumerate(self.claims):
            for j in range(i + 1, int(last[i])):
                second = self.claims[j]
                if first.region != second.region:
                    continue
                rows, cols = self.common(first.rows, second.rows), self.common(first.cols, second.cols)
                if rows is None or cols is None:
                    continue
                low, high = difference_bounds(first.time, second.time, rows, cols)
                if low - second.lead < first.span and -high - first.lead < second.span:
                    yield Meeting(i, j, rows, cols, low, high)

    def difference(self, meeting: Meeting) -> Ints:
        """T_second - T_first on the common cores, int64 [rows, columns]."""
        return difference(self.claims[meeting.first].time, self.claims[meeting.second].time, meeting.rows, meeting.cols)


def difference_bounds(a: Separable, b: Separable, rows: tuple[Ints, Ints], cols: tuple[Ints, Ints]) -> tuple[int, int]:
    """Smallest and greatest b - a on common cores."""
    if a.dense is not None or b.dense is not None:
        values = difference(a, b, rows, cols)
        return int(values.min()), int(values.max())
    u, v = b.u[rows[1]] - a.u[rows[0]], b.v[cols[1]] - a.v[cols[0]]
    base = b.base - a.base
    return base + int(u.min()) + int(v.min()), base + int(u.max()) + int(v.max())


def difference(a: Separable, b: Separable, rows: tuple[Ints, Ints], cols: tuple[Ints, Ints]) -> Ints:
    """b - a on common cores, int64 [rows, columns]."""
    u, v = b.u[rows[1]] - a.u[rows[0]], b.v[cols[1]] - a.v[cols[0]]
    out = (b.base - a.base) + u[:, None] + v[None, :]
    if a.dense is not None:
        out = out - a.dense[np.ix_(rows[0], cols[0])]
    if b.dense is not None:
        out = out + b.dense[np.ix_(rows[1], cols[1])]
    return out


def overlap_mask(delta: Ints, first_span: int, second_span: int) -> NDArray[np.bool_]:
    """Where [0, first_span) and [delta, delta + second_span) intersect."""
    return (delta < first_span) & (delta > -second_span)
