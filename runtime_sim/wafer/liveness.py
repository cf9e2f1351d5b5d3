"""What is written and read when: rule W44, lifetimes for W42, and masks that the seams between instances need.

The pass walks the steps in the order of evaluation with booleans instead of values. Neighbouring elements of an object that every access
touches together are one *atom*: masks are [rows, columns, atoms], so that a block of thousands of elements costs what one element does.
Objects whose every element is written are skipped from then on.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...machines.wafer import tables as tb
from ...machines.wafer.isa import Semantics
from .addresses import footprint, reads, start, writes
from .breaches import Breaches
from .events import Event, ends
from .flows import Fabric
from .model import BurstView, Ints, SegmentView
from .order import Step

FILLED = (tb.ObjectKind.WEIGHT, tb.ObjectKind.CONSTANT, tb.ObjectKind.STATE, tb.ObjectKind.INPUT)
PRELOADED = (tb.ObjectKind.WEIGHT, tb.ObjectKind.CONSTANT)
Mask = NDArray[np.bool_]


@dataclass
class Life:
    """Cycles of one object in its segment: first and last access, end of the last write, first read; -1 where there is none."""

    first_write: int = -1
    last_write_end: int = -1
    first_read: int = -1
    last_read_end: int = -1

    @property
    def first(self) -> int:
        """First access of any kind, -1 without one."""
        known = [t for t in (self.first_write, self.first_read) if t >= 0]
        return min(known, default=-1)

    @property
    def end(self) -> int:
        """End of the last access, -1 without one."""
        return max(self.last_write_end, self.last_read_end)


@dataclass
class Liveness:
    """Per object: life, atoms written by the end, atoms of objects with contents that are read before they are written."""

    seg: SegmentView
    lives: dict[int, Life] = field(default_factory=dict)
    atoms: dict[int, Ints] = field(default_factory=dict)
    """Object -> atom of every element, ascending from 0; only objects that are not full from the start."""
    full: set[int] = field(default_factory=set)
    _written: dict[int, Mask] = field(default_factory=dict)
    _needed: dict[int, Mask] = field(default_factory=dict)
    _places: dict[tuple[Any, ...], tuple[Any, ...]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for obj in self.seg.objects.values():
            self.lives[obj.id] = Life()
        for burst in self.seg.bursts:
            self._times(burst)

    def _times(self, burst: BurstView) -> None:
        events = [Event(burst, k, outer) for k in ends(burst.loop) for outer in ends(burst.outer)]
        low, end = min(e.low for e in events), max(e.end for e in events)
        for name in reads(burst):
            life = self.lives[burst.operand(name).obj]
            life.first_read = low if life.first_read < 0 else min(life.first_read, low)
            life.last_read_end = max(life.last_read_end, end)
        for name in writes(burst):
            life = self.lives[burst.operand(name).obj]
            life.first_write = low if life.first_write < 0 else min(life.first_write, low)
            life.last_write_end = max(life.last_write_end, end)

    # -- results -------------------------------------------------------------------------------------------------------------------

    def written(self, number: int) -> Mask:
        """Elements of an object that are written by the end, [rows, columns, elements]."""
        obj = self.seg.objects[number]
        region = self.seg.regions[obj.region]
        if number not in self._written:
            return np.zeros((region.h, region.w, obj.size), bool)
        return np.asarray(self._written[number][..., self.atoms[number]])

    def needed(self, number: int) -> Mask | None:
        """Elements of an object with contents that are read before they are written; None where there are none."""
        mask = self._needed.get(number)
        return None if mask is None or not mask.any() else np.asarray(mask[..., self.atoms[number]])

    # -- the pass ------------------------------------------------------------------------------------------------------------------

    def walk(self, steps: Sequence[Step], fabric: Fabric, out: Breaches) -> None:
        """W44 over all steps; fills what `written` and `needed` give."""
        self._find_atoms(steps)
        reported: set[tuple[int, str]] = set()
        satisfied: set[tuple[tuple[int, int, int], str]] = set()
        for step in steps:
            burst = step.event.burst
            for name in reads(burst):
                number = burst.operand(name).obj
                if number in self.full or (step.event.key, name) in satisfied:
                    continue
                if step.at is not None and self._written[number][self._at(Step(step.event), name)].all():
                    # what is written stays written: all later levels of this event find it too
                    satisfied.add((step.event.key, name))
                    continue
                at = self._at(step, name)
                missing = ~self._written[number][at]
                if not missing.any():
                    continue
                if number in self._needed:
                    self._needed[number][at] |= missing
                elif (burst.row, name) not in reported:
                    reported.add((burst.row, name))
                    self._report(step, name, missing, fabric, out)
            for name in writes(burst):
                number = burst.operand(name).obj
                if number not in self.full and burst.op.meaning is not Semantics.STORE_INDEXED:
                    self._written[number][self._at(step, name)] = True
                    if self._written[number].all():
                        self.full.add(number)
        self._places.clear()

    def _find_atoms(self, steps: Sequence[Step]) -> None:
        """Cut every object where some access begins or ends."""
        cuts: dict[int, Mask] = {}
        for obj in self.seg.objects.values():
            if obj.kind in PRELOADED:
                self.full.add(obj.id)
            else:
                cuts[obj.id] = np.zeros(obj.size + 1, bool)
        seen: set[tuple[Any, ...]] = set()
        for step in steps:
            event, burst = step.event, step.event.burst
            for name in (*reads(burst), *writes(burst)):
                operand = burst.operand(name)
                key = (burst.row, name, *((event.k, event.outer) if operand.step != (0, 0) else ()))
                if operand.obj not in cuts or key in seen:
                    continue
                seen.add(key)
                first = start(burst, operand, event.k, event.outer, self.seg)
                elements = footprint(burst, name)
                if first.ndim == 0 and int(elements[-1]) - int(elements[0]) + 1 == len(elements):
                    cuts[operand.obj][[int(first) + int(elements[0]), int(first) + int(elements[-1]) + 1]] = True
                    continue
                first = np.unique(first)
                jumps = np.flatnonzero(np.diff(elements) > 1)
                cut = cuts[operand.obj]
                cut[first[:, None] + elements[np.r_[0, jumps + 1]]] = True
                cut[first[:, None] + elements[np.r_[jumps, -1]] + 1] = True
        for number, cut in cuts.items():
            obj = self.seg.objects[number]
            region = self.seg.regions[obj.region]
            cut[0] = False
            self.atoms[number] = np.cumsum(cut[:-1], dtype=np.int64)
            shape = region.h, region.w, int(self.atoms[number][-1]) + 1
            self._written[number] = np.zeros(shape, bool)
            if obj.kind in FILLED:
                self._needed[number] = np.zeros(shape, bool)

    def _at(self, step: Step, name: str) -> tuple[Any, ...]:
        """Index of the atoms that a step touches: slices where they form a block."""
        event, burst = step.event, step.event.burst
        operand = burst.operand(name)
        first = start(burst, operand, event.k, event.outer, self.seg)
        rows, cols = burst.rows, burst.cols
        if step.at is None and first.ndim == 0:
            key = (rows, cols, operand.obj, burst.ext, operand.stride, burst.look, name, int(first))
            if key not in self._places:
                place = self._atoms_of(burst, name, first)
                block = slice(int(place[0]), int(place[-1]) + 1) if place[-1] - place[0] == len(place) - 1 else place
                if isinstance(block, slice):
                    index: tuple[Any, ...] = (slice(rows.start, rows.stop, rows.step), slice(cols.start, cols.stop, cols.step), block)
                else:
                    index = np.ix_(np.array(rows), np.array(cols), block)
                self._places[key] = index
            return self._places[key]
        y, x = np.array(rows), np.array(cols)
        if step.at is None:
            return y[:, None, None], x[None, :, None], self._atoms_of(burst, name, first)
        if first.ndim:
            first = first.reshape(-1)[step.at]
        return y[step.at // len(cols)][:, None], x[step.at % len(cols)][:, None], self._atoms_of(burst, name, first)

    def _atoms_of(self, burst: BurstView, name: str, first: Ints) -> Ints:
        """Atoms that a walk touches from each first element, [*first, n]; some may be named twice."""
        elements, atoms = footprint(burst, name), self.atoms[burst.operand(name).obj]
        if int(elements[-1]) - int(elements[0]) + 1 != len(elements):
            found = atoms[first[..., None] + elements]
            return np.unique(found) if first.ndim == 0 else found
        low, high = atoms[first + int(elements[0])], atoms[first + int(elements[-1])]
        return np.asarray(np.minimum(low[..., None] + np.arange(int((high - low).max()) + 1), high[..., None]))

    def _report(self, step: Step, name: str, missing: Mask, fabric: Fabric, out: Breaches) -> None:
        burst = step.event.burst
        at = np.argwhere(missing)[0]
        if missing.ndim == 3:
            core = int(burst.core_ids[at[0], at[1]])
        else:
            assert step.at is not None
            core = int(burst.core_ids.reshape(-1)[step.at[at[0]]])
        message = f"operand {name} reads words of object {burst.operand(name).obj} that nothing has written"
        out.add("W44", fabric.core(core), message, cycle=step.event.low, claimants=[burst.name], prov=[burst.prov])
