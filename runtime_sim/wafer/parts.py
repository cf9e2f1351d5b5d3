"""Sums over lines of cores that hold zeros and one part each: what they come to is found once, then copied."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from math import prod
from typing import TYPE_CHECKING

import numpy as np
from numpy.lib.stride_tricks import as_strided

from ...machines.wafer import tables as tb
from ...machines.wafer.isa import Semantics
from ..threads import each, even
from . import kernels
from .addresses import nest
from .arithmetic import Values
from .model import BurstView, Ints
from .order import Step
from .storage import Memory, Place, seen_once, stored_once

if TYPE_CHECKING:
    from .engine import Engine

MEM = tb.OperandKind.MEM


@dataclass
class Stored:
    """Where parts chosen by `index` go, of `size` cores stored as `alike` (`stored_once`).

    Element `taken` [lines, elements] of all parts is the only one that is added to that element of the sums, -1 where there is none; None
    where there are several.
    """

    index: Values
    size: int
    alike: tuple[bool, bool]
    taken: Ints | None
    strides: tuple[int, ...] = ()
    """How the object with the parts was stored, and `seen`: its parts as a view of such an array; () where that is not known."""
    seen: Callable[[Values], Values] = field(default=lambda array: array)
    chosen: Values | None = None
    """What the object with the indices held, without copies of equal cores; `lasting`: the array that holds it in all runs."""
    lasting: Values | None = None

    def note(self, engine: Engine, step: Step) -> None:
        """Note how the objects of a step are stored, where they lie at one place on all its cores."""
        burst, memory = step.event.burst, engine.memory
        place = Place.of((burst.rows, burst.cols), engine.begin(step.event, "a"))
        by_index = burst.op.meaning is Semantics.STORE_INDEXED
        if step.at is not None or place is None or (by_index and burst.s.kind is not MEM):
            return
        self.strides = memory[burst.a.obj].strides
        self.seen = place.reader(burst.ext, burst.a.stride, self.strides)
        self.chosen = seen_once(memory[burst.s.obj]).copy() if by_index else None

    def same(self, memory: Memory, burst: BurstView) -> bool:
        """Whether the parts are stored, and chosen, as they were."""
        if not self.strides or memory[burst.a.obj].strides != self.strides:
            return False
        if self.chosen is None or (self.lasting is not None and memory[burst.s.obj] is self.lasting):
            return True
        # other arrays are used again, for other instances' indices too
        alike = np.array_equal(seen_once(memory[burst.s.obj]), self.chosen)
        if alike and memory.forms(burst.s.obj) is not None:
            self.lasting = memory[burst.s.obj]
        return alike

    @cached_property
    def steps(self) -> tuple[tuple[int, ...], tuple[int, ...], int] | None:
        """Extents, strides and first element of a nest through the parts that is all sums in order, None where there is none."""
        if self.taken is None or not self.taken.size or (self.taken < 0).any():
            return None
        first = self.taken.reshape(-1)
        begin, ext, stride = int(first[0]), list[int](), list[int]()
        while len(first) > 1:
            jump = np.diff(first)
            run = int(np.argmax(np.r_[jump != jump[0], True])) + 1
            if len(first) % run or (np.diff(first.reshape(-1, run)) != jump[0]).any():
                return None
            ext.insert(0, run)
            stride.insert(0, int(jump[0]))
            first = first[::run]
        return (tuple(ext), tuple(stride), begin) if len(ext) <= 6 else None

    @cached_property
    def cells(self) -> tuple[Ints, Ints]:
        """Sums that get a part, and the parts that they get."""
        assert self.taken is not None
        flat = self.taken.reshape(-1)
        cell = np.flatnonzero(flat >= 0)
        return cell, flat[cell]

    def store(self, parts: Values, out: Values) -> None:
        """Make the sums of flat parts with zeros. No sum is a negative zero."""
        if self.steps is not None:
            ext, stride, begin = self.steps
            seen = as_strided(parts[begin:], ext, tuple(s * parts.itemsize for s in stride))
            np.add(seen, _ZERO, out=out.reshape(ext))
            return
        cell, taken = self.cells
        out[...] = 0
        out.reshape(-1)[cell] += parts[taken]


_FIRST, _ZERO = np.zeros((1, 1), np.int32), np.zeros((), np.float32)


@dataclass(frozen=True)
class Parts:
    """What a step stores among zeros: `place` [lines, length] is the position of every core of the lines in the step's role (-1 for a core
    without a part), `first` and `low` [cores of the role] the first element in the line's and the index that stores there."""

    step: Step
    place: Ints
    first: Ints
    low: Ints

    def sums(self, engine: Engine, out: Values, half: bool) -> None:
        """Sums over the lines of arrays that hold one part each, added to zeros: fills `out` [lines, elements]."""
        burst, memory = self.step.event.burst, engine.memory
        known = engine.places.get(id(self))
        if known is not None and known.taken is not None and known.same(memory, burst):
            known.store(np.ascontiguousarray(known.seen(memory[burst.a.obj])).reshape(-1), out)
            return
        cores = engine.cores(self.step)
        values = engine.source("a", self.step, cores, None)
        assert values is not None
        visits, inner, limit, pace = 1, burst.count, 1, 0
        index = _FIRST
        if burst.op.meaning is Semantics.STORE_INDEXED:
            visits, inner, limit, pace = prod(burst.ext[:3]), burst.ext[3], burst.look[1], burst.look[2]
            given = engine.scalar(self.step, cores, None)
            assert given is not None
            given = seen_once(given) if given.ndim == 6 else given
            lead = (1, 1) if given.ndim == 0 or given.shape[:2] == (1, 1) else cores.shape
            index = np.broadcast_to(given, (*lead, *burst.ext[:3], 1)).reshape(-1, visits)
        whole = np.broadcast_to(values, (*cores.shape, *burst.ext))
        filled, alike = stored_cores(whole), stored_once(whole)
        steps = nest(burst.ext, burst.d.stride).reshape(visits, inner)
        if known is None or (known.size, known.alike) != (len(filled), alike) or not np.array_equal(known.index, index):
            taken: Ints | None = np.full(out.shape, -1, np.int64)
            source, chosen = numbers_in(whole, np.arange(burst.cores)), np.ascontiguousarray(index)
            alone = kernels.one_part(self.place, source, self.first, chosen, self.low, limit, pace, steps, taken)
            known = engine.places[id(self)] = Stored(index.copy(), len(filled), alike, taken if alone else None)
            known.note(engine, self.step)
        if known.taken is not None:
            known.store(filled.reshape(-1), out)
            return
        out[...] = 0
        source, index = numbers_in(whole, np.arange(burst.cores)), np.ascontiguousarray(np.broadcast_to(index, (burst.cores, visits)))
        filled, bits = filled.reshape(-1, visits, inner), out.view(np.uint32)

        def add(lines: slice) -> None:
            """The sums of some lines."""
            kernels.sum_parts(
                filled, source, self.first, index, self.low, limit, pace, steps, self.place[lines], out[lines], bits[lines], half
            )

        each(add, even(len(self.place), self.place.size * visits * inner))


def flat_cores(array: Values, cores: Ints) -> tuple[Values, Ints]:
    """An array [rows, columns, ..] as [cores, ..] without copies of equal cores, and the numbers of `cores` in it."""
    return stored_cores(array), numbers_in(array, cores)


def stored_cores(array: Values) -> Values:
    """An array [rows, columns, ..] as [cores, ..] without copies of equal cores."""
    return np.ascontiguousarray(seen_once(array)).reshape(-1, *array.shape[2:])


def numbers_in(array: Values, cores: Ints) -> Ints:
    """Numbers of cores among the stored ones of an array [rows, columns, ..]."""
    w, uniform = array.shape[1], stored_once(array)
    if not any(uniform):
        return cores
    y, x = (0 if uniform[0] else cores // w), (0 if uniform[1] else cores % w)
    return np.broadcast_to(y * (1 if uniform[1] else w) + x, cores.shape)
