"""Proven-equal fast forms of the dataflow: multiply-add chains compiled, integer block sums as exact fp32 matrix products.

What is recognised are slots and how they feed each other, never an operator of a model. `FastFlow` gives the same bits as `Dataflow`:
a chain of FMA slots runs in the same order with the same roundings (`chains.py`); a chain of SML8 with AD32 is an integer sum, which an
fp32 matrix product gives exactly while every partial sum stays below 2^24.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...machines.cgla.isa import OP2_CODE, Source
from . import words as w
from .chains import BLOCK, COLUMNS, Floats, padded, run_chain
from .dataflow import Dataflow
from .kernel import Slot, Value
from .packing import Factor, Gather, gathers, pack, same_words, sizes_of, trace
from .plan import LaunchPlan, MemoryAccess, Offsets
from .words import Words

MIN_LINKS = 2
EXACT_LINKS = 256
LOOP_WIDTH = 256


@dataclass(frozen=True)
class Chain:
    """Links from top to bottom and what the first one adds to: a value, or None where the first link is a bare product."""

    slots: tuple[Slot, ...]
    head: Value | None


@dataclass(frozen=True)
class _Axes:
    """Grid axes by role: `batch` (both sides), `wide` (left side only), `narrow` (right side only), `steps` (summed one by one)."""

    batch: tuple[int, ...]
    wide: tuple[int, ...]
    narrow: tuple[int, ...]
    steps: tuple[int, ...]


@dataclass(frozen=True)
class ChainForm:
    """How a summed chain is gathered: index arrays of its wide and narrow sides, axes by role and the shape of the result."""

    axes: _Axes
    shape: tuple[int, ...]
    wide: list[Gather]
    narrow: list[Gather]
    wide_key: Any
    narrow_key: Any
    merged: bool


class GridLoads:
    """A load source that knows addresses: forms of chains are made once a plan."""

    plan: LaunchPlan
    memory: NDArray[np.uint8]

    def __init__(self, plan: LaunchPlan, memory: NDArray[np.uint8], digits: tuple[int, ...]) -> None:
        self.plan = plan
        self.memory = memory
        self.digits = digits
        self.by_place = {(access.row, access.col, access.ea): access for access in plan.accesses if not access.store}

    def access_of(self, value: Value) -> MemoryAccess:
        """The load behind a value."""
        return self.by_place[(value.row, value.col, 1 if value.kind == "wide" else value.part)]

    def strides(self, offsets: Offsets) -> tuple[int, ...] | None:
        """Address steps of each digit, or None where the vector is not affine on the grid."""
        raise NotImplementedError

    def chain_form(self, chain: Chain, flow: FastFlow) -> ChainForm | None:
        """The form of a chain, None where a factor is no recipe over an affine load."""
        key = ("chain", chain.slots[-1].row, chain.slots[-1].col)
        if key not in self.plan.forms:
            self.plan.forms[key] = self._make_form(chain, flow)
        form: ChainForm | None = self.plan.forms[key]
        return form

    def _make_form(self, chain: Chain, flow: FastFlow) -> ChainForm | None:
        sides: list[list[Factor]] = [[], []]
        for slot in chain.slots:
            for side, index in zip(sides, (1, 2) if _is_fml(slot) else (2, 3), strict=True):
                driver = flow.kernel.driver(flow.kernel.source_row(slot.row, bool(slot.fold)), slot[f"ex{index}"])
                assert driver is not None
                factor = trace(flow.kernel, self.plan.constants, driver, slot[f"expand{index}"])
                if factor is None:
                    return None
                side.append(factor)
        steps = [[self.strides(self.access_of(factor.load).offsets) for factor in side] for side in sides]
        if any(stride is None for side in steps for stride in side):
            return None
        known = [[stride for stride in side if stride is not None] for side in steps]
        depends = [[digit > 1 and any(stride[axis] for stride in side) for axis, digit in enumerate(self.digits)] for side in known]
        outer = range(len(flow.outer_shape))
        only = [tuple(axis for axis in outer if depends[i][axis] and not depends[1 - i][axis]) for i in (0, 1)]
        batch = tuple(axis for axis in outer if depends[0][axis] == depends[1][axis])
        wide = int(prod(self.digits[axis] for axis in only[1]) > prod(self.digits[axis] for axis in only[0]))
        inner = tuple(range(len(flow.outer_shape), len(self.digits)))
        shape = tuple(
            digit if axis in outer and (depends[0][axis] or depends[1][axis]) else 1 for axis, digit in enumerate(self.digits)
        )
        extents = tuple(digit if axis in inner else shape[axis] for axis, digit in enumerate(self.digits))
        made = []
        for i in (wide, 1 - wide):
            accesses = [self.access_of(factor.load) for factor in sides[i]]
            made.append(gathers(sides[i], accesses, known[i], extents, self.memory.shape[1], (batch, inner, only[i])))
        if made[0] is None or made[1] is None:
            return None
        keys = [self.plan.forms.setdefault(("side", tuple(sides[i]), batch, only[i]), len(self.plan.forms)) for i in (wide, 1 - wide)]
        merged = all(same_words(factor) for factor in sides[1 - wide])
        return ChainForm(_Axes(batch, only[wide], only[1 - wide], inner), shape, made[0], made[1], keys[0], keys[1], merged)


class FastFlow(Dataflow):
    """Dataflow with the fast forms; falls back to the elementwise operations wherever a form does not fit."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.packs: dict[Any, Floats] = {}

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
        floats = self._float_links(slot)
        if floats is not None and len(floats.slots) >= MIN_LINKS:
            return self._float_chain(floats, last)
        sums = self._chain(slot, _is_sml_add, _is_sml, "ex3")
        if sums is not None and MIN_LINKS <= len(sums.slots) <= EXACT_LINKS:
            return self._integer_chain(sums, last)
        return None

    def _float_links(self, slot: Slot) -> Chain | None:
        """The fp32 chain that ends in a slot; found once a kernel."""
        place = (slot.row, slot.col)
        if place not in self.kernel.chains:
            self.kernel.chains[place] = self._chain(slot, _is_fma, _is_fml, "ex1")
        chain: Chain | None = self.kernel.chains[place]
        return chain

    def _chain(self, slot: Slot, link: object, first: object, through: str) -> Chain | None:
        """The longest chain that ends in `slot`."""
        assert callable(link) and callable(first)
        slots: list[Slot] = []
        current = slot
        while link(current):
            slots.append(current)
            above = self.kernel.driver(self.kernel.source_row(current.row, bool(current.fold)), current[through])
            assert above is not None
            if above.kind != "alu":
                return Chain(tuple(reversed(slots)), above)
            maker = self.kernel.slots[(above.row, above.col)]
            if first(maker):
                return Chain((maker, *reversed(slots)), None)
            if not link(maker):
                return Chain(tuple(reversed(slots)), above)
            current = maker
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
        begin = self.operand(slot, 1, False)
        assert begin is not None
        if begin.ndim and any(n > 1 for n in begin.shape[len(self.outer_shape) :]):
            begin = begin[(slice(None),) * len(self.outer_shape) + (slice(0, 1),) * self.inner]
        inner = tuple(range(len(self.outer_shape), len(self.digits)))
        if slot.op1_name == "FMA":
            left, right = ([self._side(slot, index, False)] for index in (2, 3))
            return self._summed(left, right, inner, begin, None)
        maker = self.kernel.driver(self.kernel.source_row(slot.row, bool(slot.fold)), slot.ex2)
        if slot.expand2 == 0 and maker is not None and maker.kind == "alu" and (maker, False) not in self.memo:
            chain = self._float_links(self.kernel.slots[(maker.row, maker.col)])
            if chain is not None and (chain.head is None or chain.head.kind == "const"):
                gathered = self._gathered(chain, begin)
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

    def _summed(
        self, left: list[Words], right: list[Words], inner: tuple[int, ...], begin: Words, chain: Chain | None
    ) -> Words | None:
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

    def _gathered(self, chain: Chain, begin: Words) -> Words | None:
        """The summed chain where every factor is a recipe over one affine load: index arrays from the plan, one gather a recipe."""
        if not isinstance(self.load, GridLoads):
            return None
        form = self.load.chain_form(chain, self)
        if form is None or np.broadcast_shapes(form.shape, begin.shape) != form.shape:
            return None
        head = np.zeros(1, dtype=np.uint64) if chain.head is None else self.value(chain.head, False).reshape(-1)
        pair = w.parts(head[:1], "<f4").reshape(-1)
        merged = form.merged and bool(pair.view(np.uint32)[0] == pair.view(np.uint32)[1])
        layout = ("pairs", "low") if merged else ("split", "split")
        left = self._packed(form.wide_key, form.wide, layout[0], BLOCK)
        right = self._packed(form.narrow_key, form.narrow, layout[1], COLUMNS)
        axes = form.axes
        batch, wide, narrow = sizes_of((axes.batch, axes.wide, axes.narrow), tuple(form.shape))
        order = (*axes.batch, *axes.narrow, *axes.wide, *axes.steps)
        lanes = w.parts(np.broadcast_to(begin, form.shape).transpose(order).reshape(batch, narrow, wide), "<f4")
        first = np.zeros((left.shape[0], right.shape[3], left.shape[3]), dtype=np.float32)
        if merged:
            first[:, :narrow, : 2 * wide] = lanes.reshape(batch, narrow, 2 * wide)
            heads = np.full(batch, pair[0], dtype=np.float32)
        else:
            first[:, :narrow, :wide] = np.moveaxis(lanes, -1, 1).reshape(-1, narrow, wide)
            heads = np.ascontiguousarray(np.tile(pair, batch), dtype=np.float32)
        out = run_chain(left, right, heads, first, chain.head is None, True)[:, :narrow]
        if merged:
            joined = w.join(out[..., : 2 * wide].reshape(batch, narrow, wide, 2))
        else:
            joined = w.join(np.moveaxis(out[..., :wide].reshape(batch, 2, narrow, wide), 1, -1))
        return joined.reshape([form.shape[axis] for axis in order]).transpose(np.argsort(order))

    def _packed(self, key: Any, parts: list[Gather], layout: str, multiple: int) -> Floats:
        """One side of a chain; chains that share a side share its packing."""
        if (key, layout) not in self.packs:
            assert isinstance(self.load, GridLoads)
            links = sum(len(part.links) for part in parts)
            self.packs[(key, layout)] = pack(self.load.memory, parts, links, multiple, layout)
        return self.packs[(key, layout)]

    def _side(self, slot: Slot, index: int, last: bool) -> Words:
        operand = self.operand(slot, index, last)
        assert operand is not None
        return operand

    def _sides(self, chain: Chain, last: bool) -> tuple[list[Words], list[Words]]:
        """Both factors of every link (a bare product has its factors in ex1 and ex2)."""
        pairs = [(1, 2) if _is_fml(slot) else (2, 3) for slot in chain.slots]
        left = [self._side(slot, pair[0], last) for slot, pair in zip(chain.slots, pairs, strict=True)]
        right = [self._side(slot, pair[1], last) for slot, pair in zip(chain.slots, pairs, strict=True)]
        return left, right

    def _run(
        self, a: list[Words], b: list[Words], axes: _Axes, shape: tuple[int, ...], start: Words, head: Words, product: bool, add: bool
    ) -> Words:
        """Packs both sides, runs the compiled chain and brings the result back to the grid of `shape`."""
        sizes = {axis: max(x.shape[axis] for x in (*a, *b)) for axis in range(len(self.digits))}
        wide, narrow = (prod(sizes[axis] for axis in group) for group in (axes.wide, axes.narrow))
        left = _pack(a, axes.batch, axes.steps, axes.wide, sizes, BLOCK)
        right = _pack(b, axes.batch, axes.steps, axes.narrow, sizes, COLUMNS)
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


def _plain(slot: Slot) -> bool:
    return not (slot["self"] or slot.init or slot.op3)


def _is_fma(slot: Slot) -> bool:
    return slot.op1_name == "FMA" and _plain(slot) and not slot.op2 and slot.expand1 == 0


def _is_fml(slot: Slot) -> bool:
    return slot.op1_name == "FML" and _plain(slot) and not slot.op2


def _is_sml(slot: Slot) -> bool:
    return slot.op1_name == "SML8" and _plain(slot) and not slot.op2


def _is_sml_add(slot: Slot) -> bool:
    return slot.op1_name == "SML8" and _plain(slot) and slot.op2 == OP2_CODE["AD32"] and slot.src4 == Source.EX3 and slot.expand3 == 0


def _roles(left: Sequence[Words], right: Sequence[Words], steps: tuple[int, ...]) -> tuple[_Axes, bool]:
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
    return _Axes(batch, only_left, only_right, steps), flip


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
