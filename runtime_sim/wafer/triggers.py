"""Why bursts start when they do: W37 (T7), and that bursts stay inside their region's life (W02)."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...machines.wafer import tables as tb
from .breaches import Breaches
from .deliveries import Deliveries
from .events import Event, ends
from .flows import Fabric
from .model import BurstView, Ints, LoopView, SegmentView
from .overlaps import Sweep


class Triggers:
    """Recomputes the first beat of every burst from its predecessors and arrivals."""

    def __init__(self, seg: SegmentView, fabric: Fabric, deliveries: Deliveries, out: Breaches) -> None:
        self.seg, self.fabric, self.deliveries, self.out = seg, fabric, deliveries, out
        self.tight: set[int] = set()
        self._sweep = Sweep([])

    def check(self) -> None:
        """Equality at the first repetition of every loop, and a tight period at the second."""
        for burst in self.seg.bursts:
            self._life(burst)
            for outer in range(min(2, burst.outer.rep)):
                for k in range(min(2, burst.loop.rep)):
                    self._event(Event(burst, k, outer))
        self._first_cycles()
        for loop in self.seg.loops.values():
            if loop.rep > 1 and loop.id not in self.tight and any(self._inside(b, loop) for b in self.seg.bursts):
                self.out.add("W37", f"loop {loop.id}", f"period {loop.period} is not tight: nothing in repetition 1 waits for repetition 0")

    def _first_cycles(self) -> None:
        """A loop begins with its first burst (W37), a region ends with its last one (W05)."""
        for loop in self.seg.loops.values():
            starts = [b.time.low for b in self.seg.bursts if self._inside(b, loop)]
            if starts and min(starts) != loop.first:
                self.out.add("W37", f"loop {loop.id}", f"first cycle {loop.first} is not that of its first burst, {min(starts)}")
        for region in self.seg.regions.values():
            ends_ = [Event(b, b.loop.rep - 1, b.outer.rep - 1).end for b in self.seg.bursts if b.region.id == region.id]
            if ends_ and max(ends_) < region.last:
                self.out.add("W05", f"region {region.id}", f"lives until {region.last}, its last burst ends at {max(ends_)}")

    @staticmethod
    def _inside(burst: BurstView, loop: LoopView) -> bool:
        return loop.id in (burst.loop.id, burst.outer.id)

    def _life(self, burst: BurstView) -> None:
        events = [Event(burst, k, outer) for k in ends(burst.loop) for outer in ends(burst.outer)]
        low, high = min(e.low for e in events), max(e.end for e in events)
        if low < burst.region.first or high > burst.region.last:
            life = f"[{burst.region.first}, {burst.region.last})"
            message = f"runs over [{low}, {high}), outside the life {life} of its region"
            self.out.add("W02", f"region {burst.region.id}", message, cycle=low, claimants=[burst.name], prov=[burst.prov])

    def _event(self, event: Event) -> None:
        burst = event.burst
        if self._plainly(burst):
            return
        wanted, waits = self._predecessors(event)
        if burst.trigger is tb.Trigger.ARRIVE:
            arrival = self.deliveries.earliest(event)
            if arrival is None:
                return
            waits = waits | (arrival >= wanted)
            wanted = np.maximum(wanted, arrival)
        actual = event.time.array
        if event.k == 0 and event.outer == 0 and burst.trigger is not tb.Trigger.HOLD:
            bad = actual != wanted
        else:
            bad = actual < wanted
            if burst.trigger is not tb.Trigger.HOLD and ((actual == wanted) & waits).any():
                if event.k == 1:
                    self.tight.add(burst.loop.id)
                if event.outer == 1:
                    self.tight.add(burst.outer.id)
        if bad.any():
            at = tuple(np.argwhere(bad)[0].tolist())
            core = self.fabric.core(int(burst.core_ids[at]))
            message = f"starts at {int(actual[at])}, its trigger {burst.trigger.name} gives {int(wanted[at])} ({int(bad.sum())} cores)"
            self.out.add("W37", core, message, cycle=int(actual[at]), claimants=[burst.name], prov=[burst.prov])

    def _plainly(self, burst: BurstView) -> bool:
        """Whether a burst outside of loops starts, on all cores at one time, when the last of predecessors ends that are on all of them."""
        if burst.loop.id != tb.NONE or burst.trigger is tb.Trigger.ARRIVE or not burst.after or not burst.time.uniform:
            return False
        last = -1
        for number, lag in burst.after:
            before = self.seg.by_id[number]
            alike = before.region.id == burst.region.id and before.loop.id == tb.NONE and before.time.uniform and not lag
            if not alike or not (_holds(before.rows, burst.rows) and _holds(before.cols, burst.cols)):
                return False
            last = max(last, before.time.high + before.span)
        return burst.time.low == last

    def _predecessors(self, event: Event) -> tuple[Ints, NDArray[np.bool_]]:
        """Greatest end of the predecessors on each core (the first cycle of loop or region without any), and where there is one."""
        burst = event.burst
        first = burst.loop.first if burst.loop.id != tb.NONE else burst.region.first
        wanted = np.full((len(burst.rows), len(burst.cols)), -1, np.int64)
        for number, lag in burst.after:
            before = self.seg.by_id[number]
            source = self._repetition(event, before, lag)
            if source is None or before.region.id != burst.region.id:
                continue
            rows, cols = self._sweep.common(burst.rows, before.rows), self._sweep.common(burst.cols, before.cols)
            if rows is None or cols is None:
                continue
            end = before.span + (source.time.low if source.time.uniform else source.time.array[np.ix_(rows[1], cols[1])])
            if lag and burst.loop.id in self.deliveries.gated:
                end = end + self.seg.machine.cost.gate_cycles
            place: Any = ... if len(rows[0]) * len(cols[0]) == wanted.size else np.ix_(rows[0], cols[0])
            wanted[place] = np.maximum(wanted[place], end)
        waits = wanted >= 0
        return np.where(waits, wanted, first + burst.shift_of(event.k, event.outer)), waits

    @staticmethod
    def _repetition(event: Event, before: BurstView, lag: int) -> Event | None:
        """The repetition of a predecessor that counts, None where it does not exist."""
        burst = event.burst
        if before.loop.id == burst.loop.id and burst.loop.id != tb.NONE:
            k, outer = event.k - lag, event.outer
            if k < 0:
                k, outer = burst.loop.rep - 1, outer - 1
            return Event(before, k, outer) if outer >= 0 else None
        if before.loop.id == tb.NONE:
            return Event(before) if not lag else None
        common = {before.loop.id: 0, before.outer.id: 1}
        for mine, rep in ((burst.loop.id, event.k), (burst.outer.id, event.outer)):
            if mine != tb.NONE and mine in common:
                if rep - lag < 0:
                    return None
                return Event(before, rep - lag, 0) if common[mine] == 0 else Event(before, before.loop.rep - 1, rep - lag)
        return Event(before, before.loop.rep - 1, before.outer.rep - 1) if not lag else None


def _holds(outer: range, inner: range) -> bool:
    """Whether a progression holds all members of another one."""
    return outer == inner or (inner[0] in outer and inner[-1] in outer and (len(inner) == 1 or inner.step % outer.step == 0))
