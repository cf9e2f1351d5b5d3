"""Questions about affine accesses: strides, numpy views, footprints of boxes, and the roles of a contraction's axes.

An access reads an operand at `offset + sum(coefficient * axis)` on each dimension, so over a row-major operand it is one base offset and
one stride an axis: one numpy strided view, or one descriptor on a machine. A tile of a node is a box of its iteration space; what the
tile reads of an operand is the image of the box under the access.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np
from numpy.lib.stride_tricks import as_strided

from .graph import Access, Contract, Group, Index, Lookup

Array = np.ndarray[Any, Any]
Box = tuple[tuple[int, int], ...]  # for every axis (or dimension) the half-open interval [low, high)


@dataclass(frozen=True, slots=True)
class Strides:
    """Where an access lies in a row-major operand: element `offset` at the origin of the nest, element stride of every axis."""

    offset: int
    strides: tuple[int, ...]


def row_major(shape: Sequence[int]) -> tuple[int, ...]:
    """Element strides of a row-major array of that shape."""
    strides = [1] * len(shape)
    for d in range(len(shape) - 2, -1, -1):
        strides[d] = strides[d + 1] * shape[d + 1]
    return tuple(strides)


def access_strides(access: Access, shape: Sequence[int], rank: int) -> Strides:
    """Element offset and stride of each of `rank` axes when `access` reads a row-major operand of `shape`. Lookups count as offset 0."""
    offset = 0
    strides = [0] * rank
    for entry, step in zip(access, row_major(shape), strict=True):
        if isinstance(entry, Index):
            offset += entry.offset * step
            for axis, coefficient in entry.terms:
                strides[axis] += coefficient * step
    return Strides(offset, tuple(strides))


def is_affine(access: Access) -> bool:
    """True where no dimension is looked up."""
    return all(isinstance(entry, Index) for entry in access)


def axes_used(access: Access) -> frozenset[int]:
    """Axes that an access walks."""
    return frozenset(axis for entry in access if isinstance(entry, Index) for axis, _ in entry.terms)


def strided(array: Array, access: Access, axes: Sequence[int], *, full: bool = False) -> Array:
    """The operand as seen from the nest: a view of rank `len(axes)`, without a copy, for any affine access.

    Axes that the access does not walk have extent 1 there (numpy broadcasting does the rest), or stride 0 with `full`.
    """
    offsets = []
    strides = [0] * len(axes)
    used = [full] * len(axes)
    for entry, step in zip(access, array.strides, strict=True):
        if not isinstance(entry, Index):
            raise TypeError("an access with lookups is not a view")
        offsets.append(slice(entry.offset, None))
        for axis, coefficient in entry.terms:
            strides[axis] += coefficient * step
            used[axis] = True
    shape = [extent if u else 1 for extent, u in zip(axes, used, strict=True)]
    return as_strided(array[tuple(offsets)], shape, strides, writeable=False)


def order_of(groups: Sequence[Group]) -> tuple[int, ...]:
    """Axes in the order in which the result walks them."""
    return tuple(a for group in groups for a in group)


def footprint(access: Access, box: Box, shape: Sequence[int]) -> Box:
    """The smallest box of the operand that holds all that is read from `box`; a looked-up dimension counts whole."""
    image = []
    for entry, extent in zip(access, shape, strict=True):
        if isinstance(entry, Lookup):
            image.append((0, extent))
            continue
        low = high = entry.offset
        for axis, coefficient in entry.terms:
            first, last = coefficient * box[axis][0], coefficient * (box[axis][1] - 1)
            low, high = low + min(first, last), high + max(first, last)
        image.append((low, high + 1))
    return tuple(image)


def distinct(access: Access, box: Box, shape: Sequence[int]) -> int:
    """Number of operand elements in the footprint of `box`: exact where each dimension is read without gaps, else an upper bound."""
    total = 1
    for entry, (low, high) in zip(access, footprint(access, box, shape), strict=True):
        if isinstance(entry, Lookup):
            total *= high - low
        else:
            points = prod(box[axis][1] - box[axis][0] for axis, _ in entry.terms)
            total *= min(points, high - low)
    return total


def whole(axes: Sequence[int]) -> Box:
    """The box of the whole iteration space."""
    return tuple((0, extent) for extent in axes)


@dataclass(frozen=True, slots=True)
class ContractAxes:
    """Axes of a Contract by role: `batch` in both operands and the result, `m` first operand only, `n` second only, `k` summed."""

    batch: tuple[int, ...]
    m: tuple[int, ...]
    n: tuple[int, ...]
    k: tuple[int, ...]


def contract_axes(node: Contract) -> ContractAxes:
    """The roles of a Contract's axes, each role in the order of the result (K ascending).

    An axis of the result that neither operand walks counts as M. A window axis such as `k` in `[2*k+m]` has the role its place in the
    result gives it.
    """
    first, second = (axes_used(access) for access in node.accesses)
    batch, m, n = [], [], []
    for axis in order_of(node.groups):
        if axis in first and axis in second:
            batch.append(axis)
        elif axis in second:
            n.append(axis)
        else:
            m.append(axis)
    return ContractAxes(tuple(batch), tuple(m), tuple(n), node.reduced)


@dataclass(frozen=True, slots=True)
class ContractSize:
    """Extents of a Contract by role, multiplied up."""

    batch: int
    m: int
    n: int
    k: int

    @property
    def macs(self) -> int:
        return self.batch * self.m * self.n * self.k


def contract_size(node: Contract) -> ContractSize:
    """Batch, M, N and K of a Contract as plain numbers."""
    roles = contract_axes(node)
    b, m, n, k = (prod(node.axes[a] for a in axes) for axes in (roles.batch, roles.m, roles.n, roles.k))
    return ContractSize(b, m, n, k)
