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
            self.written[obj.id] = np.zeros(self._shape(obj), bool)
            if obj.kind in FILLED:
                self.needed[obj.id] = np.zeros(self._shape(obj), bool)
        reported: set[tuple[int, str]] = set()
        for step in steps:
            burst = step.event.burst
            index: tuple[Any, ...] | None = None
            for name in reads(burst):
                number = burst.operand(name).obj
                if number in self.full:
                    continue
                index = index or self._index(step)
                at = (*index, self._elements(step, name, len(index[0].shape)))
                if number in self.needed:
                    self.needed[number][at] |= ~self.written[number][at]
                elif not self.written[number][at].all() and (burst.row, name) not in reported:
                    reported.add((burst.row, name))
                    self._report(step, name, at, fabric, out)
            for name in writes(burst):
                number = burst.operand(name).obj
                if number not in self.full and burst.op.meaning is not Semantics.STORE_INDEXED:
                    index = index or self._index(step)
                    self.written[number][(*index, self._elements(step, name, len(index[0].shape)))] = True
                    if self.written[number].all():
                        self.full.add(number)

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
        steps = np.unique(walk(burst, name))
        return first[..., None] + steps if first.ndim else (first + steps).reshape((1,) * (rank - 1) + (-1,))

    def _report(self, step: Step, name: str, at: tuple[Any, ...], fabric: Fabric, out: Breaches) -> None:
        burst = step.event.burst
        number = burst.operand(name).obj
        bad = np.argwhere(~self.written[number][at])[0]
        rows, cols = np.broadcast_arrays(at[0], at[1])
        place = tuple(min(int(i), n - 1) for i, n in zip(bad, rows.shape, strict=True))
        core = fabric.core((burst.region.y + int(rows[place])) * self.seg.w + burst.region.x + int(cols[place]))
        message = f"operand {name} reads words of object {number} that nothing has written"
        out.add("W44", core, message, cycle=step.event.low, claimants=[burst.name], prov=[burst.prov])
