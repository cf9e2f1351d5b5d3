"""Composition of accesses: reading a view of a value as reading the value itself.

Each result dimension of a view is a mixed-radix group of the view's axes. The consumer's index on that dimension is split into digits,
innermost first: a digit of extent E takes the terms whose coefficient is not a multiple of E, and composition holds if their range stays
within [0, E). Where one axis is too long but divisible, splitting that axis of the consumer helps (`Split`); otherwise there is no affine
access, and the view must be a real Move.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import gcd

from .graph import Access, Group, Index, Lookup


@dataclass(frozen=True, slots=True)
class Split:
    """What would make a composition possible: cut consumer axis `axis` into (outer, inner)."""

    axis: int
    inner: int


def digits(
    access: Sequence[Index], axes: Sequence[int], groups: Sequence[Group], extents: Sequence[int]
) -> dict[int, Index] | Split | None:
    """Position on each axis of a producer (`groups`, `extents`) as a function of the consumer's axes, when its result is read by `access`.

    `axes` are the consumer's extents. Returns the positions, a `Split` that would help, or None where the access mixes digits.
    """
    found: dict[int, Index] = {}
    for entry, group in zip(access, groups, strict=True):
        rest = entry
        for axis in reversed(group[1:]):
            extent = extents[axis]
            low = Index(rest.offset % extent, tuple(t for t in rest.terms if t[1] % extent))
            high = Index(rest.offset // extent, tuple((a, c // extent) for a, c in rest.terms if not c % extent))
            bottom, top = low.bounds(axes)
            if bottom < 0 or top >= extent:
                return _split_for(low, extent, axes)
            found[axis] = low
            rest = high
        if group:
            found[group[0]] = rest
    return found


def _split_for(low: Index, extent: int, axes: Sequence[int]) -> Split | None:
    """An axis whose range runs over the digit and that can be cut where the digit turns over."""
    for axis, coefficient in sorted(low.terms, key=lambda t: -abs(t[1])):
        inner = extent // gcd(coefficient, extent)
        if inner < axes[axis] and axes[axis] % inner == 0:
            return Split(axis, inner)
    return None


def through(source: Access, position: dict[int, Index]) -> Access:
    """An access of the producer, with each of its axes replaced by that axis's position in terms of the consumer's axes."""

    def entry(e: Index | Lookup) -> Index | Lookup:
        if isinstance(e, Lookup):
            return e
        offset = e.offset + sum(c * position[a].offset for a, c in e.terms)
        return Index.of(offset, ((n, c * k) for a, c in e.terms for n, k in position[a].terms))

    return tuple(map(entry, source))
