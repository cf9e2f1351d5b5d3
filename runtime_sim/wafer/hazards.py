"""Pairs of bursts that meet on a core: queues (W38), microthreads (W39) and memory hazards (W43)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from ...machines.wafer import tables as tb
from .addresses import footprint, nest, one_to_one, reads, start, writes
from .breaches import Breaches
from .deliveries import Deliveries
from .events import Event
from .flows import Fabric
from .model import BurstView, Ints, SegmentView
from .overlaps import Claim, Meeting, Sweep, claim_of, overlap_mask

Mask = NDArray[np.bool_]


class Hazards:
    """One sweep over all meetings of bursts on cores."""

    def __init__(self, seg: SegmentView, fabric: Fabric, deliveries: Deliveries, out: Breaches) -> None:
        self.seg, self.fabric, self.deliveries, self.out = seg, fabric, deliveries, out
        self._sets: dict[tuple[int, str], tuple[Ints, int, int]] = {}

    def check(self, events: Sequence[Event]) -> None:
        """Every rule of this module on clipped events."""
        for burst in self.seg.bursts:
            self._own_queues(burst)
            self._within(burst)
        sweep = Sweep([claim_of(e, 0, self._lead(e)) for e in events])
        for m in sweep.meetings():
            a, b = sweep.claims[m.first], sweep.claims[m.second]
            assert a.event is not None and b.event is not None
            self._queues(sweep, m, a, b)
            if m.low < a.span and -m.high < b.span:
                self._threads(sweep, m, a, b)
                self._memory(sweep, m, a, b)

    def _lead(self, event: Event) -> int:
        """Longest time that a receive's first wavelet waits in its queue."""
        delivery = self.deliveries.of(event) if event.burst.n_in else None
        if delivery is None:
            return 0
        return max(0, self.deliveries.waits(event, delivery)[1] - 1 - 2 * self.seg.machine.ramp_cycles)

    def _own_queues(self, burst: BurstView) -> None:
        machine = self.seg.machine
        for name, queue, known in (("qin", burst.qin, machine.input_queues), ("qout", burst.qout, machine.output_queues)):
            if queue >= 0 and queue not in known:
                message = f"{name} {queue} is not one of {sorted(known)}"
                self.out.add("W38", f"region {burst.region.id}", message, claimants=[burst.name], prov=[burst.prov])

    def _breach(self, rule: str, sweep: Sweep, m: Meeting, mask: Mask, message: str) -> None:
        a, b = sweep.claims[m.first], sweep.claims[m.second]
        at = np.argwhere(mask)[0]
        row, column = int(m.rows[1][at[0]]), int(m.cols[1][at[1]])
        cycle = int(b.time.array[row, column])
        region = self.seg.regions[b.region]
        core = self.fabric.core((region.y + b.rows[row]) * self.seg.w + region.x + b.cols[column])
        self.out.add(rule, core, message, cycle=cycle, claimants=[a.name, b.name], prov=[a.prov, b.prov])

    def _queues(self, sweep: Sweep, m: Meeting, a: Claim, b: Claim) -> None:
        """W38: one burst at a time; another colour only once the queue is empty."""
        first, second = a.event.burst, b.event.burst  # type: ignore[union-attr]
        delta = None
        if first.n_in and second.n_in and first.qin == second.qin:
            other = first.cin != second.cin
            delta = sweep.difference(m)
            mask = (delta - (b.lead if other else 0) < a.span) & (delta > -b.span - (a.lead if other else 0))
            if mask.any():
                what = f"is bound to colours {first.cin} and {second.cin}" if other else "is read by two bursts"
                self._breach("W38", sweep, m, mask, f"input queue {first.qin} {what} at a time")
        if first.n_out and second.n_out and first.qout == second.qout:
            mask = overlap_mask(sweep.difference(m) if delta is None else delta, a.span, b.span)
            if mask.any():
                self._breach("W38", sweep, m, mask, f"output queue {first.qout} is written by two bursts at a time")

    def _thread(self, burst: BurstView) -> int:
        """F11: -1 is the main thread."""
        if not burst.fabric:
            return -1
        if self.seg.machine.microthreads:
            return burst.mt
        return burst.qout if burst.n_out else burst.qin

    def _threads(self, sweep: Sweep, m: Meeting, a: Claim, b: Claim) -> None:
        first, second = self._thread(a.event.burst), self._thread(b.event.burst)  # type: ignore[union-attr]
        if first != second:
            return
        mask = overlap_mask(sweep.difference(m), a.span, b.span)
        if mask.any():
            what = "two bursts of the main thread" if first < 0 else f"microthread {first} is used by two bursts"
            self._breach("W39", sweep, m, mask, f"{what} at a time")

    def _memory(self, sweep: Sweep, m: Meeting, a: Claim, b: Claim) -> None:
        """W43 between two bursts."""
        ea, eb = a.event, b.event
        assert ea is not None and eb is not None
        pairs = [(p, q) for p in writes(ea.burst) for q in (*reads(eb.burst), *writes(eb.burst))]
        pairs += [(p, q) for p in reads(ea.burst) for q in writes(eb.burst)]
        for p, q in dict.fromkeys(pairs):
            if ea.burst.operand(p).obj == eb.burst.operand(q).obj:
                self._conflict(sweep, m, ea, p, eb, q)

    def _conflict(self, sweep: Sweep, m: Meeting, ea: Event, p: str, eb: Event, q: str) -> None:
        first, second = ea.burst, eb.burst
        begin = start(first, first.operand(p), ea.k, ea.outer, self.seg)
        other = start(second, second.operand(q), eb.k, eb.outer, self.seg)
        begin = begin[np.ix_(m.rows[0], m.cols[0])] if begin.ndim else begin
        other = other[np.ix_(m.rows[1], m.cols[1])] if other.ndim else other
        shift = np.asarray(other - begin)
        touched = np.zeros(shift.shape, bool)
        for value in np.unique(shift).tolist():
            if self._meet(first, p, second, q, value):
                touched |= shift == value
        if not touched.any():
            return
        delta = sweep.difference(m)
        mask = touched & overlap_mask(delta, first.span, second.span)
        if not mask.any():
            return
        mask &= ~self._in_step(first, p, second, q, shift, delta)
        if mask.any():
            obj = first.operand(p).obj
            kind = {
                (True, True): "both write",
                (True, False): "one writes what the other reads",
                (False, True): "one writes what the other reads",
            }
            what = kind[p in writes(first), q in writes(second)]
            self._breach("W43", sweep, m, mask, f"{what} in object {obj} at a time")

    def _elements(self, burst: BurstView, name: str) -> tuple[Ints, int, int]:
        key = (burst.row, name)
        if key not in self._sets:
            elements = footprint(burst, name)
            self._sets[key] = (elements, int(elements[0]), int(elements[-1]))
        return self._sets[key]

    def _meet(self, first: BurstView, p: str, second: BurstView, q: str, shift: int) -> bool:
        """Whether the walks share an element when the second starts `shift` elements after the first."""
        a, low_a, high_a = self._elements(first, p)
        b, low_b, high_b = self._elements(second, q)
        if low_b + shift > high_a or high_b + shift < low_a:
            return False
        if len(a) == high_a - low_a + 1 and len(b) == high_b - low_b + 1:
            return True
        return bool(np.isin(b + shift, a, assume_unique=True).any())

    def _in_step(self, first: BurstView, p: str, second: BurstView, q: str, shift: Ints, delta: Ints) -> Mask:
        """Where both walk the same elements in the same order, the later one at least a beat behind for every element."""
        a, b = first.operand(p), second.operand(q)
        same = np.array_equal(nest(first.ext, a.stride), nest(second.ext, b.stride)) and one_to_one(first, a)
        if not same:
            return np.zeros(delta.shape, bool)
        count = first.count
        position = np.arange(count, dtype=np.int64)
        ca = (position * first.m // count) * first.span // first.m
        cb = (position * second.m // count) * second.span // second.m
        after = (delta > 0) & (delta + int((cb - ca).min()) >= 1)
        before = (delta < 0) & (-delta + int((ca - cb).min()) >= 1)
        return np.asarray((shift == 0) & (after | before))

    def _within(self, burst: BurstView) -> None:
        """W43 inside one burst: a source may meet the destination only by walking it element for element."""
        if burst.d.kind is not tb.OperandKind.MEM:
            return
        for name in "abs":
            operand = burst.operand(name)
            if operand.kind is not tb.OperandKind.MEM or operand.obj != burst.d.obj:
                continue
            first = start(burst, burst.d, 0, 0, self.seg)
            reps = [(k, outer) for k in {0, burst.loop.rep - 1} for outer in {0, burst.outer.rep - 1}]
            same_motion = (operand.step, operand.wrap, operand.py, operand.px, operand.pvy, operand.pvx) == (
                burst.d.step, burst.d.wrap, burst.d.py, burst.d.px, burst.d.pvy, burst.d.pvx,
            )  # fmt: skip
            aligned = name != "s" and same_motion and operand.addr == burst.d.addr and operand.stride == burst.d.stride
            if aligned:
                continue
            if not same_motion:
                reps = [(k, outer) for k in range(min(burst.loop.rep, 64)) for outer in range(min(burst.outer.rep, 64))]
            for k, outer in reps:
                first = start(burst, burst.d, k, outer, self.seg)
                shift = np.unique(start(burst, operand, k, outer, self.seg) - first)
                if any(self._meet(burst, "d", burst, name, int(value)) for value in shift):
                    message = f"operand {name} reads what the burst writes, not element for element"
                    self.out.add("W43", f"region {burst.region.id}", message, claimants=[burst.name], prov=[burst.prov])
                    break
