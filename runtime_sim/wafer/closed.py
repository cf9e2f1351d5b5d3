"""Closed forms of FMAC loops (N6): a shifting product evaluated as one matrix product.

A loop qualifies by what its bursts do, never by a name: it moves whole blocks between cores without changing them (MOV to and from the
fabric), and it adds products of such blocks onto f32 accumulators that nothing in the loop reads. For such a loop the executor first moves
*identities* instead of data: for every repetition, block and core, which core's block of the start of the loop has arrived there through
the resolved routes. If these identities show that every core meets, over the repetitions, exactly the pairs (a, s) that make up its row
and column of one product, the values are computed by one product; if not, the loop is run repetition by repetition.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np

from ...machines.wafer import tables as tb
from ...machines.wafer.isa import Element, Op, Semantics
from .addresses import nest, reads, start, writes
from .deliveries import Deliveries
from .events import Event
from .model import BurstView, Ints, LoopView, SegmentView
from .order import Step
from .products import axis_kinds

if TYPE_CHECKING:
    from .engine import Engine

Slot = tuple[int, int, int]
"""A block of memory: object, first element, elements."""


@dataclass(frozen=True)
class Sum:
    """One FMAC burst of a closed loop: for every repetition and core of its role, the blocks that it multiplies, as core * slots + slot."""

    burst: BurstView
    a: Ints
    s: Ints
    rows_hold_a: bool
    """Whether `a` blocks are those of the core's row and `s` blocks those of its column, or the other way round."""
    labels: Ints
    """Block of the row operand for (row, k): int64 [rows, reps]; `others`: of the column operand, int64 [reps, columns]."""
    others: Ints
    a_slots: tuple[Slot, ...]
    s_slots: tuple[Slot, ...]


@dataclass(frozen=True)
class ClosedLoop:
    """A loop evaluated as products, then as the final arrangement of the blocks that it moved."""

    loop: LoopView
    bursts: tuple[BurstView, ...]
    sums: tuple[Sum, ...]
    moved: dict[int, tuple[tuple[Slot, ...], Ints]] = field(default_factory=dict)
    """Object -> its slots, and int64 [slots, h, w]: which block lies there at the end."""

    def evaluate(self, engine: Engine) -> None:
        """Apply to the engine's memory."""
        before = {obj: engine.memory[obj].copy() for obj in self.moved}
        for total in self.sums:
            self._add(total, engine, before)
        for obj, (slots, block) in self.moved.items():
            array, old = engine.memory.target(obj), before[obj]
            flat = old.reshape(-1, old.shape[-1])
            for number, (_, first, count) in enumerate(slots):
                core, slot = np.divmod(block[number], len(slots))
                for source, (_, begin, _) in enumerate(slots):
                    here = slot == source
                    if here.any():
                        array[here, first : first + count] = flat[core[here], begin : begin + count]
        engine.blocked = True

    def _add(self, total: Sum, engine: Engine, before: dict[int, np.ndarray]) -> None:
        burst = total.burst
        kinds = axis_kinds(burst.ext, burst.d.stride, burst.a.stride, burst.s.stride)
        assert kinds is not None
        sides = []
        for name, held, slots in (("a", total.labels if total.rows_hold_a else total.others, total.a_slots),
                                  ("s", total.others if total.rows_hold_a else total.labels, total.s_slots)):  # fmt: skip
            operand = burst.operand(name)
            array = before.get(operand.obj, engine.memory[operand.obj])
            keep = "M" if name == "a" else "N"
            ext = tuple(n if k in ("K", keep) else 1 for n, k in zip(burst.ext, kinds, strict=True))
            core, slot = np.divmod(held, len(slots))
            first = np.array([begin for _, begin, _ in slots])[slot]
            offset = int(start(burst, operand, 0, 0, engine.seg)) - slots[_slot_of(slots, burst, operand.obj, name, 0, engine.seg)][1]
            elements = first[..., None] + offset + nest(ext, operand.stride)
            tiles = array.reshape(-1, array.shape[-1])[core[..., None], elements].reshape(*held.shape, *ext)
            sides.append(_matrix(tiles, kinds, keep))
        left, right = sides if total.rows_hold_a else sides[::-1]
        # left [rows, reps, free, K] x right [reps, columns, free, K]
        h, reps, m, k = left.shape
        w, n = right.shape[1], right.shape[2]
        product = left.transpose(0, 2, 1, 3).reshape(h * m, reps * k) @ right.transpose(0, 3, 1, 2).reshape(reps * k, w * n)
        out = product.reshape(h, m, w, n).transpose(0, 2, 1, 3)
        self._store(burst, kinds, out if total.rows_hold_a else out.transpose(0, 1, 3, 2), engine)

    @staticmethod
    def _store(burst: BurstView, kinds: str, out: np.ndarray, engine: Engine) -> None:
        """Add [rows, columns, M, N] onto the accumulator, in the order in which the nest walks it."""
        order = [i for letter in "MN" for i, k in enumerate(kinds) if k == letter]
        shape = [burst.ext[i] for i in order]
        placed = out.reshape(*out.shape[:2], *shape).transpose(0, 1, *(2 + int(i) for i in np.argsort(order)))
        ext = tuple(1 if k == "K" else n for n, k in zip(burst.ext, kinds, strict=True))
        cores = engine.cores(Step(Event(burst)))
        acc = engine.read(Event(burst), "d", cores, ext)
        engine.write(Event(burst), cores, np.asarray(acc + placed.reshape(*out.shape[:2], *ext), np.float32), ext=ext)


def _matrix(tiles: np.ndarray, kinds: str, keep: str) -> np.ndarray:
    """[x, y, n3, n2, n1, n0] -> [x, y, free, K]."""
    order = [2 + i for letter in (keep, "K") for i, k in enumerate(kinds) if k == letter]
    rest = [2 + i for i, k in enumerate(kinds) if k not in ("K", keep)]
    free = int(np.prod([tiles.shape[2 + i] for i, k in enumerate(kinds) if k == keep]))
    return tiles.transpose(0, 1, *order, *rest).reshape(*tiles.shape[:2], free, -1)


def _slot_of(slots: Sequence[Slot], burst: BurstView, obj: int, name: str, k: int, seg: SegmentView) -> int:
    """Number of the slot in which operand `name` lies in repetition k."""
    low = int(start(burst, burst.operand(name), k, 0, seg))
    return next(i for i, (_, first, count) in enumerate(slots) if first <= low < first + count)


def close_loops(seg: SegmentView, deliveries: Deliveries, steps: Sequence[Step]) -> list[Step | ClosedLoop]:
    """Steps with every loop that qualifies replaced by its closed form, where its first step was."""
    out: list[Step | ClosedLoop] = []
    forms = {loop.id: form for loop in seg.loops.values() if (form := _close(seg, deliveries, loop, steps)) is not None}
    done: set[int] = set()
    for step in steps:
        loop = step.event.burst.loop.id
        if loop not in forms:
            out.append(step)
        elif loop not in done:
            done.add(loop)
            out.append(forms[loop])
    return out


def _close(seg: SegmentView, deliveries: Deliveries, loop: LoopView, steps: Sequence[Step]) -> ClosedLoop | None:
    inside = [b for b in seg.bursts if b.loop.id == loop.id]
    if loop.rep < 2 or loop.parent != tb.NONE or not inside or any(other.parent == loop.id for other in seg.loops.values()):
        return None
    if not all(_is_move(b) or _is_sum(b, inside) for b in inside) or not any(_is_sum(b, inside) for b in inside):
        return None
    if not _alone(inside, steps) or not all(b.row in deliveries.invariant for b in inside if b.n_in):
        return None
    tracker = _Tracker(seg, deliveries, loop, inside)
    return tracker.form()


def _is_move(burst: BurstView) -> bool:
    """A whole block to or from the fabric, unchanged."""
    one_side = (burst.n_in > 0) != (burst.n_out > 0)
    if burst.op.op is not Op.MOV or not one_side or not burst.time.uniform:
        return False
    operand = burst.a if burst.n_out else burst.d
    return operand.kind is tb.OperandKind.MEM and np.array_equal(nest(burst.ext, operand.stride), np.arange(burst.count))


def _is_sum(burst: BurstView, inside: Sequence[BurstView]) -> bool:
    """An f32 FMAC of two memory operands onto a place that stays and that no other burst of the loop touches."""
    mem = tb.OperandKind.MEM
    if burst.op.meaning is not Semantics.MULTIPLY_ADD or burst.op.d is not Element.F32 or burst.fabric or burst.s.kind is not mem:
        return False
    kinds = axis_kinds(burst.ext, burst.d.stride, burst.a.stride, burst.s.stride)
    if kinds is None or "B" in kinds or burst.d.step != (0, 0) or not burst.time.uniform:
        return False
    touched = [b.operand(p).obj for b in inside if b is not burst for p in (*reads(b), *writes(b))]
    return burst.d.obj not in touched and burst.d.obj not in (burst.a.obj, burst.s.obj)


def _alone(inside: Sequence[BurstView], steps: Sequence[Step]) -> bool:
    """Whether no burst outside the loop that shares an object with it is evaluated between its first and last step."""
    rows = {b.row for b in inside}
    objects = {b.operand(p).obj for b in inside for p in (*reads(b), *writes(b))}
    places = [i for i, step in enumerate(steps) if step.event.burst.row in rows]
    for step in steps[places[0] : places[-1] + 1]:
        b = step.event.burst
        if b.row not in rows and any(b.operand(p).obj in objects for p in (*reads(b), *writes(b))):
            return False
    return all(step.at is None for step in steps[places[0] : places[-1] + 1] if step.event.burst.row in rows)


class _Tracker:
    """Moves identities of blocks through one loop."""

    def __init__(self, seg: SegmentView, deliveries: Deliveries, loop: LoopView, inside: Sequence[BurstView]) -> None:
        self.seg, self.deliveries, self.loop = seg, deliveries, loop
        self.inside = sorted(inside, key=lambda b: (b.time.low, b.id))
        self.moves = [b for b in self.inside if b.fabric]
        self.sums = [b for b in self.inside if not b.fabric]
        self.slots: dict[int, list[Slot]] = {}
        self.block: dict[int, Ints] = {}

    def form(self) -> ClosedLoop | None:
        """The closed form, None where identities do not make products."""
        if not self._find_slots():
            return None
        seen: dict[int, list[tuple[Ints, Ints]]] = {b.row: [] for b in self.sums}
        flight: dict[int, Ints] = {}
        for k in range(self.loop.rep):
            for burst in self.inside:
                if burst.n_out:
                    flight[burst.row] = self._here(burst, "a", k).reshape(-1)
                elif burst.n_in:
                    if not self._arrive(burst, k, flight):
                        return None
                else:
                    pair = self._pair(burst, k)
                    if pair is None:
                        return None
                    seen[burst.row].append(pair)
        sums = []
        for burst in self.sums:
            found = self._match(burst, seen[burst.row])
            if found is None:
                return None
            sums.append(found)
        moved = {obj: (tuple(self.slots[obj]), block) for obj, block in self.block.items()}
        return ClosedLoop(self.loop, tuple(self.inside), tuple(sums), moved)

    def _find_slots(self) -> bool:
        """Blocks of every moved object: disjoint runs, equal for all bursts that touch them."""
        found: dict[int, set[Slot]] = {}
        for burst in self.moves:
            name = "a" if burst.n_out else "d"
            operand = burst.operand(name)
            for k in range(min(self.loop.rep, 64)):
                first = start(burst, operand, k, 0, self.seg)
                if first.ndim:
                    return False
                found.setdefault(operand.obj, set()).add((operand.obj, int(first), burst.count))
                if operand.wrap[0] and k >= operand.wrap[0]:
                    break
                if not operand.wrap[0] and operand.step[0]:
                    return False
        for obj, slots in found.items():
            ordered = sorted(slots, key=lambda s: s[1])
            if any(a[1] + a[2] > b[1] for a, b in pairwise(ordered)):
                return False
            self.slots[obj] = ordered
            region = self.seg.regions[self.seg.objects[obj].region]
            cores = np.arange(region.h * region.w).reshape(region.h, region.w)
            self.block[obj] = np.stack([cores * len(ordered) + i for i in range(len(ordered))])
        return True

    def _slot(self, burst: BurstView, name: str, k: int) -> int:
        """Number of the slot that an operand uses in repetition k, -1 where it uses none as a whole."""
        operand = burst.operand(name)
        first = start(burst, operand, k, 0, self.seg)
        if first.ndim:
            return -1
        elements = nest(burst.ext, operand.stride)
        low, high = int(first) + int(elements.min()), int(first) + int(elements.max())
        for i, (_, begin, count) in enumerate(self.slots.get(operand.obj, [])):
            if begin <= low and high < begin + count:
                return i
        return -1

    def _here(self, burst: BurstView, name: str, k: int) -> Ints:
        """Blocks that an operand finds on the cores of the role."""
        block = self.block[burst.operand(name).obj][self._slot(burst, name, k)]
        return np.asarray(block[np.ix_(np.array(burst.rows), np.array(burst.cols))])

    def _arrive(self, burst: BurstView, k: int, flight: dict[int, Ints]) -> bool:
        got = np.full(burst.cores, -1)
        for part in self.deliveries.invariant[burst.row].parts:
            send = self.seg.bursts[part.send[0]]
            if send.row not in flight or send.a.obj != burst.d.obj:
                return False
            place = np.full(self.seg.w * self.seg.h, -1)
            place[send.core_ids.reshape(-1)] = np.arange(send.cores)
            got[part.at] = flight[send.row][place[part.src]]
        slot = self._slot(burst, "d", k)
        target = self.block[burst.d.obj][slot]
        target[np.ix_(np.array(burst.rows), np.array(burst.cols))] = got.reshape(len(burst.rows), len(burst.cols))
        return bool((got >= 0).all())

    def _pair(self, burst: BurstView, k: int) -> tuple[Ints, Ints] | None:
        """Blocks that an FMAC multiplies in repetition k; its place inside a block must stay the same."""
        for name in ("a", "s"):
            if burst.operand(name).obj not in self.slots:
                return None
            slot, first = self._slot(burst, name, k), self._slot(burst, name, 0)
            if slot < 0:
                return None
            slots = self.slots[burst.operand(name).obj]
            inside = int(start(burst, burst.operand(name), k, 0, self.seg)) - slots[slot][1]
            if inside != int(start(burst, burst.operand(name), 0, 0, self.seg)) - slots[first][1]:
                return None
        return self._here(burst, "a", k), self._here(burst, "s", k)

    def _match(self, burst: BurstView, pairs: Sequence[tuple[Ints, Ints]]) -> Sum | None:
        a, s = np.stack([p[0] for p in pairs], axis=-1), np.stack([p[1] for p in pairs], axis=-1)
        slots = tuple(self.slots[burst.a.obj]), tuple(self.slots[burst.s.obj])
        for rows_hold_a in (True, False):
            found = _factor(a, s) if rows_hold_a else _factor(s, a)
            if found is not None:
                return Sum(burst, a, s, rows_hold_a, found[0], found[1], *slots)
        return None


def _factor(first: Ints, second: Ints) -> tuple[Ints, Ints] | None:
    """For blocks [rows, columns, reps] met by every core: alpha [rows, reps] and beta [reps, columns] such that each core (y, x) meets
    exactly the pairs (alpha[y, k], beta[k, x]), in any order; None where there are none."""
    h, _, reps = first.shape
    label = _positions(second[0, 0])
    if label is None:
        return None
    # the first column names k by the column operand, so that alpha follows; the first row then gives beta
    k = label(second[:, 0])
    if (k < 0).any() or (np.sort(k, axis=1) != np.arange(reps)).any():
        return None
    alpha = np.take_along_axis(first[:, 0], np.argsort(k, axis=1), axis=1)
    name = _positions(alpha[0])
    if name is None:
        return None
    along = name(first[0])
    if (along < 0).any() or (np.sort(along, axis=1) != np.arange(reps)).any():
        return None
    beta = np.take_along_axis(second[0], np.argsort(along, axis=1), axis=1).T
    for y in range(h):
        of_row = _positions(alpha[y])
        if of_row is None:
            return None
        k = of_row(first[y])
        if (k < 0).any() or (np.sort(k, axis=1) != np.arange(reps)).any() or (np.take_along_axis(beta.T, k, axis=1) != second[y]).any():
            return None
    return alpha, beta


def _positions(values: Ints) -> Callable[[Ints], Ints] | None:
    """A function from values to their positions (-1: not among them); None where a value occurs twice."""
    order = np.argsort(values, kind="stable")
    ranked = values[order]
    if (ranked[1:] == ranked[:-1]).any():
        return None

    def position(wanted: Ints) -> Ints:
        at = np.minimum(np.searchsorted(ranked, wanted), len(ranked) - 1)
        return np.where(ranked[at] == wanted, order[at], -1)

    return position
