"""What is written and read when: rule W44, lifetimes for W42, and masks that the seams between instances need.

The pass walks the steps in the order of evaluation with one boolean per element instead of a value. Objects whose every element is
written are skipped from then on.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...machines.wafer import tables as tb
from ...machines.wafer.isa import Semantics
from .addresses import reads, start, walk, writes
from .breaches import Breaches
from .events import Event, ends
from .flows import Fabric
from .model import BurstView, ObjectView, SegmentView
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
    """Per object: life, elements written by the end, elements of inputs that are read before they are written."""

    seg: SegmentView
    lives: dict[int, Life] = field(default_factory=dict)
    written: dict[int, Mask] = field(default_factory=dict)
    needed: dict[int, Mask] = field(default_factory=dict)
    full: set[int] = field(default_factory=set)
    _known: dict[tuple[int, str], tuple[np.ndarray, bool]] = field(default_factory=dict)

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

    def _shape(self, obj: ObjectView) -> tuple[int, int, int]:
        region = self.seg.regions[obj.region]
        return region.h, region.w, obj.size

    def walk(self, steps: Sequence[Step], fabric: Fabric, out: Breaches) -> None:
        """W44 over all steps; fills `written` and `needed`."""
        for obj in self.seg.objects.values():
            if obj.kind in PRELOADED:
                self.full.add(obj.id)
                continue
            self.written[obj.id] = np.zeros(self._shape(obj), bool)
            if obj.kind in FILLED:
                self.needed[obj.id] = np.zeros(self._shape(obj), bool)
        reported: set[tuple[int, str]] = set()
        for step in steps:
            burst = step.event.burst
            for name in reads(burst):
                number = burst.operand(name).obj
                if number in self.full:
                    continue
                at = self._at(step, name)
                missing = ~self.written[number][at]
                if not missing.any():
                    continue
                if number in self.needed:
                    self.needed[number][at] |= missing
                elif (burst.row, name) not in reported:
                    reported.add((burst.row, name))
                    self._report(step, name, missing, fabric, out)
            for name in writes(burst):
                number = burst.operand(name).obj
                if number not in self.full and burst.op.meaning is not Semantics.STORE_INDEXED:
                    self.written[number][self._at(step, name)] = True
                    if self.written[number].all():
                        self.full.add(number)
        for obj in self.seg.objects.values():
            if obj.id not in self.written:
                self.written[obj.id] = np.broadcast_to(np.zeros((), bool), self._shape(obj))

    def _at(self, step: Step, name: str) -> tuple[Any, ...]:
        """Index of the elements that a step touches: slices where they form a block."""
        burst = step.event.burst
        rows, cols = burst.rows, burst.cols
        if step.at is None:
            first = start(burst, burst.operand(name), step.event.k, step.event.outer, self.seg)
            elements, dense = self._walks(burst, name)
            if first.ndim == 0 and dense:
                begin = int(first) + int(elements[0])
                block = slice(begin, begin + len(elements))
                return slice(rows.start, rows.stop, rows.step), slice(cols.start, cols.stop, cols.step), block
        index = self._index(step)
        return (*index, self._elements(step, name, index[0].ndim))

    def _walks(self, burst: BurstView, name: str) -> tuple[np.ndarray, bool]:
        key = (burst.row, name)
        if key not in self._known:
            elements = np.unique(walk(burst, name))
            self._known[key] = (elements, len(elements) == int(elements[-1]) - int(elements[0]) + 1)
        return self._known[key]

    @staticmethod
    def _index(step: Step) -> tuple[Any, ...]:
        """Core indices of a step that broadcast against [rows, columns, elements], or [cores, elements] for a level."""
        burst = step.event.burst
        rows, cols = np.array(burst.rows), np.array(burst.cols)
        if step.at is None:
            return rows[:, None, None], cols[None, :, None]
        return rows[step.at // len(cols)][:, None], cols[step.at % len(cols)][:, None]

    def _elements(self, step: Step, name: str, rank: int) -> np.ndarray:
        event, burst = step.event, step.event.burst
        first = start(burst, burst.operand(name), event.k, event.outer, self.seg)
        if first.ndim and step.at is not None:
            first = first.reshape(-1)[step.at]
        steps, _ = self._walks(burst, name)
        return np.asarray(first[..., None] + steps if first.ndim else (first + steps).reshape((1,) * (rank - 1) + (-1,)))

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
