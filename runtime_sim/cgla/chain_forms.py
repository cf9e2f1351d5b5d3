"""Where the fast forms apply: chains of slots, their factors by address, and which of them run together.

A form depends on slots and addresses alone, so it is made once a launch plan. Self-updating FADs of one row whose chains share their
wide factors (several activation columns of the same weights) form one group and run as one compiled chain.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import prod
from typing import Any

import numpy as np

from ...machines.cgla.isa import OP2_CODE, Source
from .chains import BLOCK, PASS, Floats, padded, run_chain
from .dataflow import Dataflow
from .kernel import COLUMNS, Slot, Value
from .packing import Factor, Gather, gathers, heads, pack_lane, same_words, sizes_of, trace
from .plan import Ints, LaunchPlan, MemoryAccess, Offsets

PACKS_KEPT = 16


class LaneMemory:
    """The local memories of a lane, bytes [rows, bytes a row], and packed factors that stay true while their rows do not change."""

    def __init__(self, rows: int, row_bytes: int) -> None:
        self.data = np.zeros((rows, row_bytes), dtype=np.uint8)
        self.versions = [0] * rows
        self.packs: dict[Any, tuple[tuple[int, ...], Floats]] = {}

    def clear(self) -> None:
        """Zeros in all rows."""
        self.data[:] = 0
        self.versions = [version + 1 for version in self.versions]

    def touch(self, row: int) -> None:
        """To be called for every row that is written."""
        self.versions[row] += 1

    def packed(self, key: Any, rows: Sequence[int], parts: list[Gather], links: int, multiple: int, layout: str) -> Floats:
        """Packed factors, kept while none of `rows` is written."""
        now = tuple(self.versions[row] for row in rows)
        known = self.packs.pop((key, layout), None)
        if known is None or known[0] != now:
            known = now, self._pack(parts, links, multiple, layout, None if known is None else known[1])
        self.packs[(key, layout)] = known
        if len(self.packs) > PACKS_KEPT:
            del self.packs[next(iter(self.packs))]
        return known[1]

    def _pack(self, parts: list[Gather], links: int, multiple: int, layout: str, known: Floats | None) -> Floats:
        """Factors [batch * heads, steps, links, own padded to `multiple`], in the place of an older packing."""
        batch, steps, own = parts[0].batch.size, parts[0].steps.size, parts[0].own.size
        shape = batch * heads(layout), steps, links, padded(own * (2 if layout == "pairs" else 1), multiple)
        result = np.zeros(shape, dtype=np.float32) if known is None else known
        pack_lane(self.data.reshape(-1), parts, layout, result.reshape(1, batch, -1, *shape[1:]))
        return result


@dataclass(frozen=True)
class Chain:
    """Links from top to bottom and what the first one adds to: a value, or None where the first link is a bare product."""

    slots: tuple[Slot, ...]
    head: Value | None


@dataclass(frozen=True)
class Axes:
    """Grid axes by role: `batch` (both sides), `wide` (left side only), `narrow` (right side only), `steps` (summed one by one)."""

    batch: tuple[int, ...]
    wide: tuple[int, ...]
    narrow: tuple[int, ...]
    steps: tuple[int, ...]


@dataclass(frozen=True)
class ChainForm:
    """How a summed chain is gathered: its wide and narrow sides, axes by role and the shape of the result."""

    axes: Axes
    shape: tuple[int, ...]
    wide: list[Gather]
    narrow: list[Gather]
    wide_key: Any
    narrow_key: Any
    merged: bool
    wide_rows: tuple[int, ...]
    narrow_rows: tuple[int, ...]

    @property
    def layouts(self) -> tuple[str, str]:
        """How the factors of the wide and of the narrow side are packed."""
        return ("pairs", "low") if self.merged else ("split", "split")

    @property
    def links(self) -> int:
        """Products of one step."""
        return sum(len(part.links) for part in self.wide)


@dataclass(frozen=True)
class SumGroup:
    """Self-updating FADs of one row that run together: their slots, and one form whose narrow sides lie one after the other.

    `head` is what each step's chain begins with (a value for each word of a factor), None where its first link is a bare product. The
    sums are an array of `extents` [batch, narrow, wide]; `places` are the flat positions of each slot's results in it [.., 2 words].
    """

    slots: tuple[Slot, ...]
    head: Floats | None
    form: ChainForm
    extents: tuple[int, int, int]
    places: tuple[Ints, ...]

    def sums(self, plan: LaunchPlan, lane: LaneMemory, start: Floats) -> Floats:
        """The sums that begin with `start` [batch, narrow, wide], over the local memories of a lane."""
        form = self.form
        layout, links = form.layouts, form.links
        left = lane.packed((id(plan), "wide", form.wide_key), form.wide_rows, form.wide, links, BLOCK, layout[0])
        right = lane.packed((id(plan), "narrow", form.narrow_key), form.narrow_rows, form.narrow, links, PASS, layout[1])
        head = np.zeros(self.extents[0], dtype=np.float32) if self.head is None else self.head
        return run_chain(left, right, head, start, self.head is None, True)


class GridLoads:
    """A load source that knows addresses: forms of chains are made once a plan."""

    def __init__(self, plan: LaunchPlan, lane: LaneMemory, digits: tuple[int, ...]) -> None:
        self.plan = plan
        self.lane = lane
        self.memory = lane.data
        self.digits = digits
        if "loads" not in plan.forms:
            plan.forms["loads"] = {(access.row, access.col, access.ea): access for access in plan.accesses if not access.store}
        self.by_place: dict[tuple[int, int, int], MemoryAccess] = plan.forms["loads"]

    def access_of(self, value: Value) -> MemoryAccess:
        """The load behind a value."""
        return self.by_place[(value.row, value.col, 1 if value.kind == "wide" else value.part)]

    def strides(self, offsets: Offsets) -> tuple[int, ...] | None:
        """Address steps of each digit, or None where the vector is not affine on the grid."""
        raise NotImplementedError

    def chain_form(self, chain: Chain, flow: Dataflow) -> ChainForm | None:
        """The form of a chain, None where a factor is no recipe over an affine load."""
        key = ("chain", chain.slots[-1].row, chain.slots[-1].col)
        if key not in self.plan.forms:
            self.plan.forms[key] = self._make_form(chain, flow)
        form: ChainForm | None = self.plan.forms[key]
        return form

    def _make_form(self, chain: Chain, flow: Dataflow) -> ChainForm | None:
        sides: list[list[Factor]] = [[], []]
        for slot in chain.slots:
            for side, index in zip(sides, (1, 2) if is_fml(slot) else (2, 3), strict=True):
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
        wide = min((0, 1), key=lambda i: self._cost(sides[1 - i], only[i], only[1 - i]))
        inner = tuple(range(len(flow.outer_shape), len(self.digits)))
        shape = tuple(digit if axis in outer and (depends[0][axis] or depends[1][axis]) else 1 for axis, digit in enumerate(self.digits))
        extents = tuple(digit if axis in inner else shape[axis] for axis, digit in enumerate(self.digits))
        made = []
        for i in (wide, 1 - wide):
            accesses = [self.access_of(factor.load) for factor in sides[i]]
            made.append(gathers(sides[i], accesses, known[i], extents, self.memory.shape[1], (batch, inner, only[i])))
        if made[0] is None or made[1] is None:
            return None
        keys = [self.plan.forms.setdefault(("side", tuple(sides[i]), batch, only[i]), len(self.plan.forms)) for i in (wide, 1 - wide)]
        merged = all(same_words(factor) for factor in sides[1 - wide])
        rows = [tuple(sorted({factor.load.row for factor in sides[i]})) for i in (wide, 1 - wide)]
        axes = Axes(batch, only[wide], only[1 - wide], inner)
        return ChainForm(axes, shape, made[0], made[1], keys[0], keys[1], merged, rows[0], rows[1])

    def _cost(self, narrow: Sequence[Factor], wide_axes: tuple[int, ...], narrow_axes: tuple[int, ...]) -> tuple[int, bool]:
        """Products of a step with these roles, padding included; equal costs go to the form with merged words."""
        merged = all(same_words(factor) for factor in narrow)
        own, other = sizes_of((wide_axes, narrow_axes), self.digits)
        return (padded(2 * own, BLOCK) if merged else 2 * padded(own, BLOCK)) * padded(other, PASS), not merged

    def sum_group(self, slot: Slot, flow: Dataflow) -> SumGroup | None:
        """The group of a self-updating FAD, None where its chain has no form."""
        key = ("sums", slot.row)
        if key not in self.plan.forms:
            self.plan.forms[key] = self._make_groups(slot.row, flow)
        groups: dict[int, SumGroup] = self.plan.forms[key]
        return groups.get(slot.col)

    def _make_groups(self, row: int, flow: Dataflow) -> dict[int, SumGroup]:
        together: dict[Any, list[tuple[Slot, Chain, ChainForm]]] = {}
        for col in range(COLUMNS):
            slot = flow.kernel.slots.get((row, col))
            chain = summed_chain(slot, flow) if slot is not None else None
            form = self.chain_form(chain, flow) if chain is not None else None
            if slot is None or chain is None or form is None:
                continue
            head = None if chain.head is None else self.plan.constants.get((chain.head.row, chain.head.col, chain.head.part), 0)
            shape = tuple((part.geometry, part.size, part.starts.tobytes(), (part.first - part.first[0]).tobytes()) for part in form.narrow)
            together.setdefault((form.wide_key, form.axes, form.shape, form.merged, head, shape), []).append((slot, chain, form))
        result = {}
        for (*_, head, _), members in together.items():
            group = _joined(members, head)
            result.update({slot.col: group for slot in group.slots})
        return result


def _joined(members: Sequence[tuple[Slot, Chain, ChainForm]], head: int | None) -> SumGroup:
    """One group of slots whose forms share their wide side."""
    slots, _, forms = zip(*members, strict=True)
    form, count = forms[0], len(forms)
    narrow = [_beside([f.narrow[i] for f in forms]) for i in range(len(form.narrow))]
    rows = tuple(sorted({r for f in forms for r in f.narrow_rows}))
    pair = None if head is None else np.array([head], dtype=np.uint64).view(np.float32)
    merged = form.merged and (pair is None or bool(pair.view(np.uint32)[0] == pair.view(np.uint32)[1]))
    joined = replace(form, narrow=narrow, narrow_key=tuple(f.narrow_key for f in forms), narrow_rows=rows, merged=merged)
    axes = form.axes
    batch, wide, each = sizes_of((axes.batch, axes.wide, axes.narrow), form.shape)
    heads = 1 if merged else 2
    extents = (batch * heads, padded(count * each, PASS), padded(wide * (3 - heads), BLOCK))
    positions = np.arange(prod(extents), dtype=np.int64).reshape(extents)[:, : count * each]
    if merged:
        positions = positions[..., : 2 * wide].reshape(batch, count, each, wide, 2)
    else:
        positions = np.moveaxis(positions[..., :wide].reshape(batch, 2, count * each, wide), 1, -1).reshape(batch, count, each, wide, 2)
    order = (*axes.batch, *axes.narrow, *axes.wide, *axes.steps)
    shape = [form.shape[axis] for axis in order]
    back = (*np.argsort(order).tolist(), len(order))
    places = tuple(np.ascontiguousarray(positions[:, i].reshape([*shape, 2]).transpose(back)) for i in range(count))
    value = None if pair is None else np.ascontiguousarray(np.full(batch, pair[0]) if merged else np.tile(pair, batch), dtype=np.float32)
    return SumGroup(slots, value, joined, extents, places)


def _beside(parts: Sequence[Gather]) -> Gather:
    """One side of several forms that differ in where it begins, as further elements of the own axis."""
    begins = [int(part.first[0]) for part in parts]
    low = min(begins)
    own = np.concatenate([part.own + begin - low for part, begin in zip(parts, begins, strict=True)])
    loads = tuple(places for part in parts for places in part.loads)
    return replace(parts[0], first=parts[0].first + (low - begins[0]), own=own, loads=loads)


def float_links(slot: Slot, flow: Dataflow) -> Chain | None:
    """The fp32 chain that ends in a slot; found once a kernel."""
    place = (slot.row, slot.col)
    if place not in flow.kernel.chains:
        flow.kernel.chains[place] = find_chain(slot, flow, is_fma, is_fml, "ex1")
    chain: Chain | None = flow.kernel.chains[place]
    return chain


def summed_chain(slot: Slot, flow: Dataflow) -> Chain | None:
    """The chain that a self-updating FAD with a restart at first(n) adds up, None where there is none or it starts from a moving value."""
    plain = slot["self"] and slot.op1_name == "FAD" and slot.init == 1 and not (slot.op2 or slot.op3 or slot.expand2)
    if not plain:
        return None
    maker = flow.kernel.driver(flow.kernel.source_row(slot.row, bool(slot.fold)), slot.ex2)
    if maker is None or maker.kind != "alu":
        return None
    chain = float_links(flow.kernel.slots[(maker.row, maker.col)], flow)
    return chain if chain is not None and (chain.head is None or chain.head.kind == "const") else None


def find_chain(slot: Slot, flow: Dataflow, link: object, first: object, through: str) -> Chain | None:
    """The longest chain that ends in `slot`."""
    assert callable(link) and callable(first)
    slots: list[Slot] = []
    current = slot
    while link(current):
        slots.append(current)
        above = flow.kernel.driver(flow.kernel.source_row(current.row, bool(current.fold)), current[through])
        assert above is not None
        if above.kind != "alu":
            return Chain(tuple(reversed(slots)), above)
        maker = flow.kernel.slots[(above.row, above.col)]
        if first(maker):
            return Chain((maker, *reversed(slots)), None)
        if not link(maker):
            return Chain(tuple(reversed(slots)), above)
        current = maker
    return None


def _plain(slot: Slot) -> bool:
    return not (slot["self"] or slot.init or slot.op3)


def is_fma(slot: Slot) -> bool:
    """An FMA that only multiplies and adds."""
    return slot.op1_name == "FMA" and _plain(slot) and not slot.op2 and slot.expand1 == 0


def is_fml(slot: Slot) -> bool:
    """A bare fp32 product."""
    return slot.op1_name == "FML" and _plain(slot) and not slot.op2


def is_sml(slot: Slot) -> bool:
    """A bare SML8."""
    return slot.op1_name == "SML8" and _plain(slot) and not slot.op2


def is_sml_add(slot: Slot) -> bool:
    """An SML8 whose AD32 takes the sum from above."""
    return slot.op1_name == "SML8" and _plain(slot) and slot.op2 == OP2_CODE["AD32"] and slot.src4 == Source.EX3 and slot.expand3 == 0
