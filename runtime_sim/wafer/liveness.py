"""What is written and read when: rule W44, lifetimes for W42, and masks that the seams between instances need.

The pass walks the steps in the order of evaluation with booleans instead of values. Neighbouring elements of an object that every access
touches together are one *atom*, and rows (columns) of cores that every access touches together are one *band*: masks are [bands of rows,
bands of columns, atoms], so that a block of thousands of elements on thousands of cores costs what one element does. Objects whose every
element is written are skipped from then on.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache
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
from .order import Step, Wave

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
    bands: dict[int, tuple[Ints, Ints]] = field(default_factory=dict)
    """Object -> band of every row and of every column of its region; the same objects as `atoms`."""
    full: set[int] = field(default_factory=set)
    _written: dict[int, Mask] = field(default_factory=dict)
    _needed: dict[int, Mask] = field(default_factory=dict)
    _places: dict[tuple[Any, ...], tuple[Any, ...]] = field(default_factory=dict)
    _wholes: dict[int, tuple[bool, bool]] = field(default_factory=dict)
    _reached: dict[tuple[int, range], Ints] = field(default_factory=dict)

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
        return self._spread(self._written[number], number)

    def complete(self, number: int) -> bool:
        """Whether every element of an object is written by the end."""
        return number in self._written and bool(self._written[number].all())

    def needed(self, number: int) -> Mask | None:
        """Elements of an object with contents that are read before they are written; None where there are none."""
        mask = self._needed.get(number)
        return None if mask is None or not mask.any() else self._spread(mask, number)

    def _spread(self, mask: Mask, number: int) -> Mask:
        """A mask of bands and atoms as [rows, columns, elements]."""
        rows, cols = self.bands[number]
        return np.asarray(mask[..., self.atoms[number]][rows[:, None], cols[None, :]])

    # -- the pass ------------------------------------------------------------------------------------------------------------------

    def walk(self, items: Sequence[Step | Wave], fabric: Fabric, out: Breaches) -> None:
        """W44 over all steps; fills what `written` and `needed` give."""
        steps = [step for item in items for step in (_steps_of(item) if isinstance(item, Wave) else (item,))]
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
                    self._report(step, name, fabric, out)
            for name in writes(burst):
                number = burst.operand(name).obj
                if number not in self.full and burst.op.meaning is not Semantics.STORE_INDEXED:
                    self._written[number][self._at(step, name)] = True
                    if self._written[number].all():
                        self.full.add(number)
        self._places.clear()
        self._wholes.clear()
        self._reached.clear()

    def _find_atoms(self, steps: Sequence[Step]) -> None:
        """Cut every object where some access begins or ends."""
        cuts: dict[int, Mask] = {}
        for obj in self.seg.objects.values():
            if obj.kind in PRELOADED:
                self.full.add(obj.id)
            else:
                cuts[obj.id] = np.zeros(obj.size + 1, bool)
        seen: set[tuple[Any, ...]] = set()
        roles: dict[int, tuple[dict[range, None], dict[range, None]]] = {number: ({}, {}) for number in cuts}
        apart: tuple[set[int], set[int]] = set(), set()
        for step in steps:
            event, burst = step.event, step.event.burst
            for name in (*reads(burst), *writes(burst)):
                operand = burst.operand(name)
                if operand.obj in cuts and step.at is not None:
                    for side, whole in zip(apart, self._whole(step), strict=True):
                        side.update(() if whole else (operand.obj,))
                key = (burst.row, name, *((event.k, event.outer) if operand.step != (0, 0) else ()))
                if operand.obj not in cuts or key in seen:
                    continue
                seen.add(key)
                for known, role in zip(roles[operand.obj], (burst.rows, burst.cols), strict=True):
                    known[role] = None
                first = start(burst, operand, event.k, event.outer, self.seg)
                elements = footprint(burst, name)
                if first.ndim == 0 and int(elements[-1]) - int(elements[0]) + 1 == len(elements):
                    cuts[operand.obj][[int(first) + int(elements[0]), int(first) + int(elements[-1]) + 1]] = True
                    continue
                if first.ndim:
                    for side, alike in zip(apart, ((first == first[:1]).all(), (first == first[:, :1]).all()), strict=True):
                        side.update(() if alike else (operand.obj,))
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
            sides = zip(apart, roles[number], (region.h, region.w), strict=True)
            rows, cols = (np.arange(n) if number in side else _bands(tuple(known), n) for side, known, n in sides)
            self.bands[number] = rows, cols
            shape = int(rows.max()) + 1, int(cols.max()) + 1, int(self.atoms[number][-1]) + 1
            self._written[number] = np.zeros(shape, bool)
            if obj.kind in FILLED:
                self._needed[number] = np.zeros(shape, bool)

    def _at(self, step: Step, name: str) -> tuple[Any, ...]:
        """Index of the atoms that a step touches: slices where they form a block."""
        event, burst = step.event, step.event.burst
        operand = burst.operand(name)
        first = start(burst, operand, event.k, event.outer, self.seg)
        if step.at is None and first.ndim == 0:
            key = (burst.rows, burst.cols, operand.obj, burst.ext, operand.stride, burst.look, name, int(first))
            if key not in self._places:
                bands = zip(self.bands[operand.obj], (burst.rows, burst.cols), strict=True)
                places = [*(self._members(band, role) for band, role in bands), self._atoms_of(burst, name, first)]
                blocks = [slice(int(p[0]), int(p[-1]) + 1) if p[-1] - p[0] == len(p) - 1 else None for p in places]
                self._places[key] = np.ix_(*places) if None in blocks else tuple(blocks)
            return self._places[key]
        h, w = len(burst.rows), len(burst.cols)
        across, along = self._whole(step)
        if step.at is not None and not (across or along):
            if first.ndim:
                first = first.reshape(-1)[step.at]
            # every core is a band of its own
            y, x = np.array(burst.rows)[step.at // w], np.array(burst.cols)[step.at % w]
            return y[:, None], x[:, None], self._atoms_of(burst, name, first)
        y = np.arange(h) if step.at is None or across else step.at[::w] // w
        x = np.arange(w) if step.at is None or along else step.at[: len(step.at) // h] % w
        rows, cols = (np.array(role)[at] for role, at in ((burst.rows, y), (burst.cols, x)))
        (band_y, one_y), (band_x, one_x) = (
            np.unique(band[at], return_index=True) for band, at in zip(self.bands[operand.obj], (rows, cols), strict=True)
        )
        if first.ndim:
            first = first[np.ix_(y[one_y], x[one_x])]
        return band_y[:, None, None], band_x[None, :, None], self._atoms_of(burst, name, first)

    def _members(self, band: Ints, role: range) -> Ints:
        """Bands that a role reaches, ascending."""
        key = id(band), role
        if key not in self._reached:
            self._reached[key] = np.unique(band[role.start : role.stop : role.step])
        return self._reached[key]

    def _whole(self, step: Step) -> tuple[bool, bool]:
        """Whether a step takes, with a core, all rows of its role, and whether all columns (as the levels of a time that does not depend on
        the row, or on the column)."""
        burst = step.event.burst
        if burst.row not in self._wholes:
            time = burst.time
            self._wholes[burst.row] = (
                time.dense is None and bool((time.u == time.u[0]).all()),
                time.dense is None and bool((time.v == time.v[0]).all()),
            )
        return self._wholes[burst.row] if step.at is not None else (True, True)

    def _atoms_of(self, burst: BurstView, name: str, first: Ints) -> Ints:
        """Atoms that a walk touches from each first element, [*first, n]; some may be named twice."""
        elements, atoms = footprint(burst, name), self.atoms[burst.operand(name).obj]
        if int(elements[-1]) - int(elements[0]) + 1 != len(elements):
            found = atoms[first[..., None] + elements]
            return np.unique(found) if first.ndim == 0 else found
        low, high = atoms[first + int(elements[0])], atoms[first + int(elements[-1])]
        return np.asarray(np.minimum(low[..., None] + np.arange(int((high - low).max()) + 1), high[..., None]))

    def _report(self, step: Step, name: str, fabric: Fabric, out: Breaches) -> None:
        event, burst = step.event, step.event.burst
        number = burst.operand(name).obj
        atoms = self._atoms_of(burst, name, start(burst, burst.operand(name), event.k, event.outer, self.seg))
        rows, cols = (band[np.array(role)] for band, role in zip(self.bands[number], (burst.rows, burst.cols), strict=True))
        missing = ~self._written[number][rows[:, None, None], cols[None, :, None], atoms].all(axis=-1)
        at = np.arange(burst.cores) if step.at is None else step.at
        core = int(burst.core_ids.reshape(-1)[at[missing.reshape(-1)[at]][0]])
        message = f"operand {name} reads words of object {number} that nothing has written"
        out.add("W44", fabric.core(core), message, cycle=event.low, claimants=[burst.name], prov=[burst.prov])


def _steps_of(wave: Wave) -> list[Step]:
    """The steps of a wave; whole events where none reads what one of them writes, so that their order does not matter here."""
    written = {e.burst.operand(p).obj for e in wave.events for p in writes(e.burst)}
    read = {e.burst.operand(p).obj for e in wave.events for p in reads(e.burst)}
    return wave.steps if written & read else [Step(e) for e in wave.events]


@lru_cache(maxsize=4096)
def _bands(roles: tuple[range, ...], count: int) -> Ints:
    """Number of the band of each of `count` rows or columns: those that exactly the same of the roles hold are one."""
    held = np.zeros((count, max(len(roles), 1)), bool)
    for number, role in enumerate(roles):
        held[role.start : role.stop : role.step, number] = True
    _, first, band = np.unique(held, axis=0, return_index=True, return_inverse=True)
    # numbered in order of appearance, so that neighbours stay neighbours
    return np.argsort(np.argsort(first))[band.reshape(-1)]
