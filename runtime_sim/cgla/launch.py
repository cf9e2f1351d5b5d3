"""One EXEC on data: loads from the local memories, the dataflow of all iterations, stores back.

A launch is a pure function of its entry state (5.6), so all loads read the memories as they are and all stores are applied at the end,
each slot's later iterations over its earlier ones. `exact` evaluates every slot on all iterations; otherwise the grid is cut where
addresses change their stride, values that do not depend on a digit are computed once, stores whose last iteration wins are computed for
that iteration alone, and long multiply-add chains run compiled (`fast.py`). Both give the same bits.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import prod
from typing import Any

import numpy as np
from numpy.lib.stride_tricks import as_strided
from numpy.typing import NDArray

from .chain_forms import GridLoads, LaneMemory, SumGroup
from .chains import Floats
from .dataflow import Dataflow
from .fast import FastFlow
from .kernel import Value
from .plan import Ints, LaunchPlan, MemoryAccess, Offsets
from .words import Words, join

Memory = NDArray[np.uint8]


@dataclass(frozen=True)
class Grid:
    """Radices of the iteration grid, outermost first; the last `inner` multiply to L0. `sizes` are the iterations a step of each digit."""

    digits: tuple[int, ...]
    inner: int

    @property
    def sizes(self) -> tuple[int, ...]:
        """Iterations that one step of each digit skips."""
        return tuple(prod(self.digits[i + 1 :]) for i in range(len(self.digits)))


def plain_grid(plan: LaunchPlan) -> Grid:
    """(L1, L0)."""
    return Grid((plan.loop1, plan.loop0), 1)


def fine_grid(plan: LaunchPlan) -> Grid:
    """The coarsest grid on which the address vectors are affine; vectors that do not fit are gathered over the whole grid."""
    marks = {plan.loop0, plan.iterations}
    for offsets in {id(access.offsets): access.offsets for access in plan.accesses}.values():
        if offsets.digits is None:
            continue
        more = set(marks)
        reach = 1
        for radix, _ in offsets.digits:
            reach *= radix
            more.add(reach)
        chain = sorted(more - {1})
        if all(high % low == 0 for low, high in pairwise(chain)):
            marks = more
    chain = [1, *sorted(marks - {1})]
    radices = [high // low for low, high in pairwise(chain)] or [1]
    inner = sum(1 for mark in chain[1:] if mark <= plan.loop0)
    if inner == 0:
        radices.insert(0, 1)
        inner = 1
    return Grid(tuple(reversed(radices)), inner)


def _grid(plan: LaunchPlan) -> Grid:
    if "grid" not in plan.forms:
        plan.forms["grid"] = fine_grid(plan)
    grid: Grid = plan.forms["grid"]
    return grid


class Loader(GridLoads):
    """Gives load data over a grid."""

    def __init__(self, plan: LaunchPlan, lane: LaneMemory, grid: Grid, dense: bool) -> None:
        super().__init__(plan, lane, grid.digits)
        self.grid = grid
        self.dense = dense
        self.steps: dict[int, tuple[int, ...] | None] = {}

    def strides(self, offsets: Offsets) -> tuple[int, ...] | None:
        """Address steps of each digit, or None where the vector is not affine on the grid."""
        key = id(offsets)
        if key not in self.steps:
            self.steps[key] = None if self.dense else affine(offsets, self.grid)
        return self.steps[key]

    def __call__(self, value: Value, last: bool) -> Words:
        access = self.access_of(value)
        extra = 8 * value.part if value.kind == "wide" else 0
        dtype = {1: np.uint8, 4: np.uint32}.get(access.size, np.uint64)
        row = self.memory[access.row]
        strides = self.strides(access.offsets)
        if strides is not None:
            first = access.base + int(access.offsets.vector[0]) + extra
            shape = [digit if step else 1 for digit, step in zip(self.grid.digits, strides, strict=True)]
            if last:
                for axis in range(len(shape) - self.grid.inner, len(shape)):
                    first += (shape[axis] - 1) * strides[axis]
                    shape[axis] = 1
            view = _view(row, access, first, shape, strides, dtype, extra)
            if view is not None:
                return view.astype(np.uint64, copy=False)
        index = grid_vector(access.offsets.vector, self.grid, last) + access.base
        physical = access.physical(index + 0)
        if access.op == "LDRU":
            data = row[access.part_start + (index[..., None] + np.arange(8)) % access.part_size]
            return join(data)
        size = np.dtype(dtype).itemsize
        words: Words = row.view(dtype)[(physical + extra) // size].astype(np.uint64)
        return words


def affine(offsets: Offsets, grid: Grid) -> tuple[int, ...] | None:
    """Address steps of each grid digit; None where the vector is not affine in them."""
    if offsets.digits is None:
        return None
    vector = offsets.vector
    steps = tuple(int(vector[size] - vector[0]) if digit > 1 else 0 for digit, size in zip(grid.digits, grid.sizes, strict=True))
    reach = 1
    marks = {int(np.prod(grid.digits[i:], dtype=np.int64)) for i in range(len(grid.digits))} | {1}
    for radix, _ in offsets.digits:
        reach *= radix
        if reach not in marks:
            return None
    return steps


def grid_vector(vector: Ints, grid: Grid, last: bool) -> Ints:
    """A vector over n on the grid; `last`: at the last inner cell."""
    if not last:
        return vector.reshape(grid.digits)
    inner = prod(grid.digits[len(grid.digits) - grid.inner :])
    return vector.reshape(-1, inner)[:, -1].reshape(grid.digits[: len(grid.digits) - grid.inner] + (1,) * grid.inner)


def _view(
    row: Memory, access: MemoryAccess, first: int, shape: Sequence[int], strides: Sequence[int], dtype: type, extra: int
) -> NDArray[np.unsignedinteger] | None:
    """The words as a strided view of the row's memory; None where the array wraps in its partition."""
    size = np.dtype(dtype).itemsize
    low = first + sum(min(0, (n - 1) * step) for n, step in zip(shape, strides, strict=True))
    high = first + sum(max(0, (n - 1) * step) for n, step in zip(shape, strides, strict=True)) + size - 1
    if low // access.part_size != high // access.part_size or low < 0:
        return None
    start = access.part_start + first % access.part_size
    return as_strided(row[start : start + size].view(dtype), shape, strides)[...].reshape(shape)


def run_launch(plan: LaunchPlan, lane: LaneMemory, exact: bool) -> None:
    """Executes a launch on the local memories of a lane, in place."""
    sums = None if exact else summed_stores(plan, lane)
    if sums is not None:
        _run_sums(plan, lane, sums)
        return
    grid = plain_grid(plan) if exact else _grid(plan)
    loader = Loader(plan, lane, grid, exact)
    make = Dataflow if exact else FastFlow
    flow = make(plan.kernel, plan.constants, grid.digits, grid.inner, loader)
    writes = [write for access in plan.accesses if access.store for write in _store(plan, flow, loader, access, grid, exact)]
    for row, address, data in writes:
        lane.touch(row)
        view = lane.data[row].view(data.dtype)
        view[address // data.dtype.itemsize] = data


@dataclass(frozen=True)
class SummedStores:
    """Stores of a sum group: `start` of its sums, and which of them (flat) go to which 4-byte words of the lane, in order."""

    group: SumGroup
    start: Floats
    taken: Ints
    words: Ints
    rows: tuple[int, ...]


def _run_sums(plan: LaunchPlan, lane: LaneMemory, stores: Sequence[SummedStores]) -> None:
    """Every sum from the memories as they are, then every store."""
    sums = [part.group.sums(plan, lane, part.start.copy()) for part in stores]
    words = lane.data.reshape(-1).view(np.uint32)
    for part, values in zip(stores, sums, strict=True):
        words[part.words] = values.reshape(-1).view(np.uint32)[part.taken]
        for row in part.rows:
            lane.touch(row)


def summed_stores(plan: LaunchPlan, lane: LaneMemory) -> list[SummedStores] | None:
    """The stores of a launch that stores nothing but last values of sums that begin with constants, None for any other launch. Once this
    was asked, such a launch runs without changing its plan."""
    if "sums" not in plan.forms:
        plan.forms["sums"] = _summed_stores(plan, lane)
    sums: list[SummedStores] | None = plan.forms["sums"]
    return sums


def _summed_stores(plan: LaunchPlan, lane: LaneMemory) -> list[SummedStores] | None:
    grid = _grid(plan)
    loader = Loader(plan, lane, grid, False)
    flow = FastFlow(plan.kernel, plan.constants, grid.digits, grid.inner, loader)
    parts: dict[int, tuple[SumGroup, list[tuple[Ints, Ints, int]]]] = {}
    for access in plan.accesses:
        if not access.store:
            continue
        made = _summed_store(plan, flow, loader, access, grid)
        if made is None:
            return None
        for group, taken, words in made:
            parts.setdefault(id(group), (group, []))[1].append((taken, words, access.row))
    result = []
    for group, pieces in parts.values():
        start = flow.start_of(group)
        if start is None:
            return None
        taken, words = (np.concatenate([piece[i] for piece in pieces]) for i in (0, 1))
        result.append(SummedStores(group, start, taken, words, tuple(sorted({row for _, _, row in pieces}))))
    return result


def _summed_store(
    plan: LaunchPlan, flow: FastFlow, loader: Loader, access: MemoryAccess, grid: Grid
) -> list[tuple[SumGroup, Ints, Ints]] | None:
    """(group, positions in its sums, words of the lane) of each word that a store writes; None where it is more than that."""
    last, shape, physical, enable = _store_form(access, loader, grid, False)
    if access.data_gated or not last or access.size < 4:
        return None
    words = (access.row * loader.memory.shape[1] + physical) // 4
    result = []
    for k, value in enumerate(flow.stored(plan.kernel.slots[(access.row, access.col)])):
        slot = plan.kernel.slots[(value.row, value.col)] if value.kind == "alu" else None
        group = loader.sum_group(slot, flow) if slot is not None else None
        if slot is None or group is None:
            return None
        places = group.places[group.slots.index(slot)]
        places = np.broadcast_to(places, (*shape, 2)).reshape(-1, 2)
        for half in range(2 if access.size >= 8 else 1):
            keep = slice(None) if enable is None else np.flatnonzero(enable >> (half if access.size == 8 else 0) & 1)
            result.append((group, places[keep, half], (words + 2 * k + half)[keep]))
    return result


def _store(
    plan: LaunchPlan, flow: Dataflow, loader: Loader, access: MemoryAccess, grid: Grid, exact: bool
) -> list[tuple[int, Ints, NDArray[Any]]]:
    slot = plan.kernel.slots[(access.row, access.col)]
    key = ("store", access.row, access.col, exact)
    if key not in plan.forms:
        plan.forms[key] = _store_form(access, loader, grid, exact)
    last, shape, physical, enable = plan.forms[key]
    if access.data_gated:
        enable = np.broadcast_to(flow.predicate(slot, last), shape).ravel()
    words = [np.ascontiguousarray(np.broadcast_to(word, shape)).ravel() for word in flow.store_data(slot, last)]
    if access.size in (8, 32) and enable is None:
        return [(access.row, physical + 8 * k, word) for k, word in enumerate(words)]
    if access.size == 32:
        assert enable is not None
        keep = enable & 1 != 0
        return [(access.row, (physical + 8 * k)[keep], word[keep]) for k, word in enumerate(words)]
    if access.size == 8:
        assert enable is not None
        halves = words[0].view(np.uint32).reshape(-1, 2)
        picks = [enable & 1 != 0, enable & 2 != 0]
        return [(access.row, physical[keep] + 4 * h, halves[keep, h].copy()) for h, keep in enumerate(picks)]
    data = words[0].astype(np.uint32 if access.size == 4 else np.uint8)
    if enable is not None:
        keep = enable & 1 != 0
        physical, data = physical[keep], data[keep]
    return [(access.row, physical, data)]


def _store_form(
    access: MemoryAccess, loader: Loader, grid: Grid, exact: bool
) -> tuple[bool, tuple[int, ...], Ints, NDArray[np.uint8] | None]:
    """What a store does without its data: whether only the last inner iteration is seen, shape, physical addresses, enable bits."""
    last = not exact and _last_wins(access, loader, grid)
    shape = grid.digits[: len(grid.digits) - grid.inner] + (1,) * grid.inner if last else grid.digits
    index = np.broadcast_to(grid_vector(access.offsets.vector, grid, last), shape).ravel() + access.base
    enable: NDArray[np.uint8] | None = None
    if access.enable is not None:
        enable = grid_vector(access.enable.astype(np.int64), grid, last).ravel().astype(np.uint8)
    return last, shape, access.physical(index), enable


def _last_wins(access: MemoryAccess, loader: Loader, grid: Grid) -> bool:
    """True where only the last inner iteration of a store can be seen: it alone is enabled, or it overwrites the others."""
    inner = prod(grid.digits[len(grid.digits) - grid.inner :])
    if access.data_gated:
        return False
    if access.enable is not None:
        return not access.enable.reshape(-1, inner)[:, :-1].any()
    strides = loader.strides(access.offsets)
    return strides is not None and not any(strides[len(strides) - grid.inner :])
