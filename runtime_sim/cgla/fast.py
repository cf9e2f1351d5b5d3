"""Proven-equal fast forms of the dataflow: multiply-add chains compiled, integer block sums as exact fp32 matrix products.

What is recognised are slots and how they feed each other, never an operator of a model. `FastFlow` gives the same bits as `Dataflow`:
a chain of FMA slots runs in the same order with the same roundings (`chains.py`); a chain of SML8 with AD32 is an integer sum, which an
fp32 matrix product gives exactly while every partial sum stays below 2^24.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

import numpy as np
from numpy.typing import NDArray

from . import words as w
from .chain_forms import Axes, Chain, GridLoads, SumGroup, find_chain, float_links, is_fml, is_sml, is_sml_add, summed_chain
from .chains import BLOCK, PASS, Floats, padded, run_chain
from .dataflow import Dataflow
from .kernel import Slot, Value
from .words import Words

MIN_LINKS = 2
EXACT_LINKS = 256
LOOP_WIDTH = 256


class FastFlow(Dataflow):
    """Dataflow with the fast forms; falls back to the elementwise operations wherever a form does not fit."""

    def _make(self, value: Value, last: bool) -> Words:
        if value.kind == "alu":
            slot = self.kernel.slots[(value.row, value.col)]
            fast = self._fast(slot, value, last)
            if fast is not None:
                return fast
        return super()._make(value, last)

    def _fast(self, slot: Slot, value: Value, last: bool) -> Words | None:
        if slot["self"]:
            return self._fast_running(slot) if last and slot.init & 1 and not (slot.op2 or slot.op3 or slot.init & 2) else None
        floats = float_links(slot, self)
        if floats is not None and len(floats.slots) >= MIN_LINKS:
            return self._float_chain(floats, last)
        sums = find_chain(slot, self, is_sml_add, is_sml, "ex3")
        if sums is not None and MIN_LINKS <= len(sums.slots) <= EXACT_LINKS:
            return self._integer_chain(sums, last)
        return None

    # --- fp32 chains -------------------------------------------------------------------------------------------------------------

    def _float_chain(self, chain: Chain, last: bool) -> Words | None:
        left, right = self._sides(chain, last)
        shape = np.broadcast_shapes(*(x.shape for x in (*left, *right)))
        start = np.zeros(1, dtype=np.uint64) if chain.head is None else self.value(chain.head, last)
        full = np.broadcast_shapes(shape, start.shape) if start.ndim > 1 else shape
        if prod(full) * len(chain.slots) < 4096:
            return None
        axes, flip = _roles(left, right, ())
        a, b = (right, left) if flip else (left, right)
        if full != shape:
            return None
        return self._run(a, b, axes, full, start, np.zeros(0, dtype=np.uint64), chain.head is None, False)

    def _fast_running(self, slot: Slot) -> Words | None:
        """The last value of a running fp32 sum that restarts at first(n)."""
        if slot.op1_name not in ("FAD", "FMA"):
            return None
        begin = self._begin(slot)
        inner = tuple(range(len(self.outer_shape), len(self.digits)))
        if slot.op1_name == "FMA":
            left, right = ([self._side(slot, index, False)] for index in (2, 3))
            return self._summed(left, right, inner, begin, None)
        chain = summed_chain(slot, self)
        if chain is not None:
            gathered = self._gathered(slot)
            if gathered is not None:
                return gathered
            left, right = self._sides(chain, False)
            return self._summed(left, right, inner, begin, chain)
        addend = self.operand(slot, 2, False)
        assert addend is not None
        return self._loop_sum(begin, addend)

    def _loop_sum(self, begin: Words, addend: Words) -> Words | None:
        """begin + x0 + x1 + ... one inner cell after the other, all outer cells at once."""
        outer = np.broadcast_shapes(begin.shape, addend.shape)[: len(self.outer_shape)]
        if prod(outer) < LOOP_WIDTH:
            return None
        count = prod(self.inner_shape)
        steps = np.broadcast_to(addend, outer + self.inner_shape).reshape(-1, count)
        total = w.parts(np.broadcast_to(begin, outer + (1,) * self.inner).reshape(-1), "<f4").copy()
        with np.errstate(all="ignore"):
            for step in range(count):
                total += w.parts(steps[:, step], "<f4")
        return w.join(total).reshape(outer + (1,) * self.inner)

    def _summed(self, left: list[Words], right: list[Words], inner: tuple[int, ...], begin: Words, chain: Chain | None) -> Words | None:
        shape = np.broadcast_shapes(*(x.shape for x in (*left, *right)))
        outer = np.broadcast_shapes(shape[: len(self.outer_shape)], begin.shape[: len(self.outer_shape)])
        if outer != shape[: len(self.outer_shape)]:
            return None
        axes, flip = _roles(left, right, inner)
        a, b = (right, left) if flip else (left, right)
        result_shape = outer + (1,) * self.inner
        if chain is None:
            return self._run(a, b, axes, result_shape, begin, np.zeros(0, dtype=np.uint64), False, False)
        head = np.zeros(1, dtype=np.uint64) if chain.head is None else self.value(chain.head, False).reshape(-1)
        return self._run(a, b, axes, result_shape, begin, head, chain.head is None, True)

    def _begin(self, slot: Slot) -> Words:
        """What a restarting sum begins with: ex1 at the first inner cell."""
        begin = self._side(slot, 1, False)
        return begin[(slice(None),) * len(self.outer_shape) + (slice(0, 1),) * self.inner]

    def _gathered(self, slot: Slot) -> Words | None:
        """The summed chain where every factor is a recipe over one affine load. The other sums of its group are computed with it."""
        group = self.load.sum_group(slot, self) if isinstance(self.load, GridLoads) else None
        if group is None:
            return None
        assert isinstance(self.load, GridLoads)
        start = self._start(group, [self._begin(member) for member in group.slots])
        if start is None:
            return None
        sums = group.sums(self.load.plan, self.load.lane, start).reshape(-1)
        for member, places in zip(group.slots, group.places, strict=True):
            self.memo[(Value("alu", member.row, member.col, 0), True)] = w.join(sums[places])
        return self.memo[(Value("alu", slot.row, slot.col, 0), True)]

    def _start(self, group: SumGroup, begins: Sequence[Words]) -> Floats | None:
        """What the sums of a group begin with; None where that varies more than they do."""
        if any(np.broadcast_shapes(group.form.shape, begin.shape) != group.form.shape for begin in begins):
            return None
        start = np.zeros(group.extents, dtype=np.float32)
        for begin, places in zip(begins, group.places, strict=True):
            start.reshape(-1)[places] = w.parts(np.broadcast_to(begin, group.form.shape), "<f4")
        return start

    def start_of(self, group: SumGroup) -> Floats | None:
        """What the sums of a group begin with where that is constant."""
        drivers = [self.kernel.driver(self.kernel.source_row(slot.row, bool(slot.fold)), slot.ex1) for slot in group.slots]
        if any(driver is None or driver.kind != "const" for driver in drivers):
            return None
        return self._start(group, [self._begin(member) for member in group.slots])

    def _side(self, slot: Slot, index: int, last: bool) -> Words:
        operand = self.operand(slot, index, last)
        assert operand is not None
        return operand

    def _sides(self, chain: Chain, last: bool) -> tuple[list[Words], list[Words]]:
        """Both factors of every link (a bare product has its factors in ex1 and ex2)."""
        pairs = [(1, 2) if is_fml(slot) else (2, 3) for slot in chain.slots]
        left = [self._side(slot, pair[0], last) for slot, pair in zip(chain.slots, pairs, strict=True)]
        right = [self._side(slot, pair[1], last) for slot, pair in zip(chain.slots, pairs, strict=True)]
        return left, right

    def _run(
        self, a: list[Words], b: list[Words], axes: Axes, shape: tuple[int, ...], start: Words, head: Words, product: bool, add: bool
    ) -> Words:
        """Packs both sides, runs the compiled chain and brings the result back to the grid of `shape`."""
        sizes = {axis: max(x.shape[axis] for x in (*a, *b)) for axis in range(len(self.digits))}
        wide, narrow = (prod(sizes[axis] for axis in group) for group in (axes.wide, axes.narrow))
        left = _pack(a, axes.batch, axes.steps, axes.wide, sizes, BLOCK)
        right = _pack(b, axes.batch, axes.steps, axes.narrow, sizes, PASS)
        begin = np.broadcast_to(start.reshape((1,) * len(self.digits)) if start.ndim == 1 else start, shape)
        order = (*axes.batch, *axes.narrow, *axes.wide, *axes.steps)
        lanes = w.parts(begin.transpose(order).reshape(-1, narrow, wide), "<f4")
        first = np.zeros((left.shape[0], right.shape[3], left.shape[3]), dtype=np.float32)
        first[:, :narrow, :wide] = np.moveaxis(lanes, -1, 1).reshape(-1, narrow, wide)
        pair = w.parts(head[:1] if head.size else np.zeros(1, dtype=np.uint64), "<f4").reshape(-1)
        heads = np.ascontiguousarray(np.tile(pair, left.shape[0] // 2), dtype=np.float32)
        out = run_chain(left, right, heads, first, product, add)[:, :narrow, :wide]
        joined = w.join(np.moveaxis(out.reshape(-1, 2, narrow, wide), 1, -1))
        extents = [shape[axis] for axis in order]
        return joined.reshape(extents).transpose(np.argsort(order))

    # --- integer sums ------------------------------------------------------------------------------------------------------------

    def _integer_chain(self, chain: Chain, last: bool) -> Words | None:
        left = [self._side(slot, 1, last) for slot in chain.slots]
        right = [self._side(slot, 2, last) for slot in chain.slots]
        axes, flip = _roles(left, right, ())
        a, b = (right, left) if flip else (left, right)
        sizes = {axis: max(x.shape[axis] for x in (*a, *b)) for axis in range(len(self.digits))}
        wide, narrow = (prod(sizes[axis] for axis in group) for group in (axes.wide, axes.narrow))
        sums = np.matmul(_pack_bytes(a, axes.batch, axes.wide, sizes), np.swapaxes(_pack_bytes(b, axes.batch, axes.narrow, sizes), -1, -2))
        joined = w.join(np.moveaxis(sums.astype(np.int32).reshape(-1, 2, wide, narrow), 1, -1))
        order = (*axes.batch, *axes.wide, *axes.narrow)
        result = joined.reshape([sizes[axis] for axis in order]).transpose(np.argsort(order))
        return result if chain.head is None else w.op1("ADD", 0, (np.ascontiguousarray(result), self.value(chain.head, last)))


def _roles(left: Sequence[Words], right: Sequence[Words], steps: tuple[int, ...]) -> tuple[Axes, bool]:
    """Roles of the grid axes, and whether the right operands are the wide side."""
    rank = left[0].ndim
    in_left = [any(x.shape[axis] > 1 for x in left) for axis in range(rank)]
    in_right = [any(x.shape[axis] > 1 for x in right) for axis in range(rank)]
    free = [axis for axis in range(rank) if axis not in steps]
    only_left = tuple(axis for axis in free if in_left[axis] and not in_right[axis])
    only_right = tuple(axis for axis in free if in_right[axis] and not in_left[axis])
    batch = tuple(axis for axis in free if in_left[axis] == in_right[axis])
    sizes = [max(max(x.shape[axis] for x in side) for side in (left, right)) for axis in range(rank)]
    flip = prod(sizes[axis] for axis in only_right) > prod(sizes[axis] for axis in only_left)
    if flip:
        only_left, only_right = only_right, only_left
    return Axes(batch, only_left, only_right, steps), flip


def _spread(
    side: Sequence[Words], batch: tuple[int, ...], steps: tuple[int, ...], own: tuple[int, ...], sizes: dict[int, int]
) -> tuple[list[NDArray[np.uint64]], int, int, int]:
    """Every operand over (batch, steps, own) axes, and the extents of the three groups."""
    order = (*batch, *steps, *own)
    rest = [axis for axis in range(side[0].ndim) if axis not in order]
    extents = tuple(prod(sizes[axis] for axis in group) for group in (batch, steps, own))
    spread = []
    for array in side:
        target = tuple(sizes[axis] for axis in order) + (1,) * len(rest)
        spread.append(np.broadcast_to(array.transpose((*order, *rest)), target).reshape(extents))
    return spread, extents[0], extents[1], extents[2]


def _pack(
    side: Sequence[Words], batch: tuple[int, ...], steps: tuple[int, ...], own: tuple[int, ...], sizes: dict[int, int], multiple: int
) -> Floats:
    """Operands as fp32 [batch * 2 words, steps, links, own padded to a multiple]."""
    spread, count, depth, width = _spread(side, batch, steps, own, sizes)
    packed = np.zeros((count, 2, depth, len(side), padded(width, multiple)), dtype=np.float32)
    for link, array in enumerate(spread):
        packed[:, :, :, link, :width] = np.moveaxis(w.parts(array, "<f4"), -1, 1)
    return packed.reshape(count * 2, depth, len(side), -1)


def _pack_bytes(side: Sequence[Words], batch: tuple[int, ...], own: tuple[int, ...], sizes: dict[int, int]) -> Floats:
    """The bytes that SML8 multiplies, as fp32 [batch * 2 words, own, 2 * links]."""
    spread, count, _, width = _spread(side, batch, (), own, sizes)
    packed = np.empty((count, 2, width, 2 * len(side)), dtype=np.float32)
    for link, array in enumerate(spread):
        lanes = w.parts(array.reshape(count, width), "i1").reshape(count, width, 2, 4)[..., 0::2]
        packed[..., 2 * link : 2 * link + 2] = np.moveaxis(lanes, 2, 1)
    return packed.reshape(count * 2, width, -1)
