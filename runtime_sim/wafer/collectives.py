"""Sums along lines of cores and spreads from one core to many, evaluated at once.

Both are what a group of bursts does together, found by following deliveries (`plan`), never by a name:

- a *line sum*: the core at the end of a line sends its elements, every core on the way adds its own to what arrives and passes the sum on,
  the last one stores it. One pass over the line replaces a step for every hop, in the same order of additions.
- a *spread*: a core sends its elements, others store what they receive. Where these cores are all that hold anything of the object, the
  object is one array seen through a stride of 0 from then on, so that what follows is computed once instead of on every core.

A line sum may take up what filled its object: zeros with a core's own part stored among them, or zeros with products added (N6: one
product over the whole line). Then the elements in between, which nothing else reads, are never made.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from math import prod
from typing import TYPE_CHECKING

import numpy as np

from ...machines.wafer import tables as tb
from ...machines.wafer.isa import Fmt, Op, Semantics
from ..threads import each, even
from . import kernels
from .addresses import nest
from .arithmetic import Values, binary
from .events import Event
from .model import BurstView, Ints, RegionView
from .order import Step
from .products import contraction, kinds_of, summed_extents
from .storage import seen_once, stored_once, strided

if TYPE_CHECKING:
    from .engine import Engine


@dataclass(frozen=True)
class Run:
    """Consecutive elements of an object, the same on all cores."""

    obj: int
    begin: int
    count: int


@dataclass(frozen=True)
class Cells:
    """Where the values of some sources lie in an object: `small` is the shape [rows, columns] of its array, 1 along an axis on which all
    cores hold the same; value `index[i]` belongs in cell `cell[i]` of it."""

    small: tuple[int, int]
    cell: Ints
    index: Ints

    @cached_property
    def all_in_order(self) -> bool:
        """Whether every cell holds the value of its own number."""
        order = np.arange(self.small[0] * self.small[1])
        return np.array_equal(self.cell, order) and np.array_equal(self.index, order)


@dataclass(frozen=True)
class Spread:
    """Cores `target` of an object receive the elements of cores `source` of another (flat positions in their regions)."""

    bursts: tuple[BurstView, ...]
    taken: Run
    given: Run
    source: Ints
    target: Ints
    cells: Cells | None = None
    """Where the given elements become all that the object holds: by number of the sending core in `senders`."""
    senders: Ints | None = None
    anew: bool = False
    """Whether other cores then add to the object."""

    def evaluate(self, engine: Engine) -> None:
        """Apply to the engine's memory."""
        if self.cells is not None and self.senders is not None:
            base, index = flat_cores(engine.memory[self.taken.obj], self.senders)
            replace(engine, self.given, self.cells, base[index, self.taken.begin : self.taken.begin + self.taken.count], self.anew)
            return
        target = engine.memory.target(self.given.obj)
        base, index = flat_cores(engine.memory[self.taken.obj], self.source)
        begin, flat = self.given.begin, target.reshape(-1, target.shape[-1])
        kernels.move(base, index, self.taken.begin, flat, self.target, begin, self.given.count)


@dataclass(frozen=True)
class Stored:
    """Where parts chosen by `index` go, of `size` cores stored as `alike` (`stored_once`).

    Element `taken` [lines, elements] of all parts is the only one that is added to that element of the sums, -1 where there is none; None
    where there are several.
    """

    index: Values
    size: int
    alike: tuple[bool, bool]
    taken: Ints | None

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
            seen = np.lib.stride_tricks.as_strided(parts[begin:], ext, tuple(s * parts.itemsize for s in stride), writeable=False)
            np.add(seen, np.zeros((), parts.dtype), out=out.reshape(ext))
            return
        cell, taken = self.cells
        out[...] = 0
        out.reshape(-1)[cell] += parts[taken]


_FIRST = np.zeros((1, 1), np.int32)


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
        burst, cores = self.step.event.burst, engine.cores(self.step)
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
        known = engine.places.get(id(self))
        if known is None or (known.size, known.alike) != (len(filled), alike) or not np.array_equal(known.index, index):
            taken: Ints | None = np.full(out.shape, -1, np.int64)
            source, chosen = numbers_in(whole, np.arange(burst.cores)), np.ascontiguousarray(index)
            alone = kernels.one_part(self.place, source, self.first, chosen, self.low, limit, pace, steps, taken)
            known = engine.places[id(self)] = Stored(index.copy(), len(filled), alike, taken if alone else None)
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


@dataclass(frozen=True)
class LineSum:
    """The sums along `lines` [lines, length] (flat positions in the region, in the order of addition), stored at the last core of each."""

    bursts: tuple[BurstView, ...]
    region: RegionView
    lines: Ints
    own: Run
    into: Run
    root: BurstView
    """The burst at the end of every line: what it does is done all along it."""
    cells: Cells | None = None
    """Where the sums become all that the object of `into` holds, by number of the line."""
    anew: bool = False
    """Whether other cores then add to the object."""
    products: tuple[Event, ...] = ()
    """FMAC events that made the elements, in place of memory; `axis`: the mesh axis along which the lines run."""
    axis: int = 0
    placed: Parts | None = None
    """What was stored among zeros, in place of memory."""

    @property
    def adds(self) -> bool:
        """Whether it is a sum of floats; else another operation takes the place of the additions."""
        return self.root.op.op is Op.ADD and self.root.op.fmt in (Fmt.F16, Fmt.F32)

    @property
    def half(self) -> bool:
        """Whether every sum is rounded to f16."""
        return self.root.op.fmt is Fmt.F16

    def evaluate(self, engine: Engine) -> None:
        """Apply to the engine's memory."""
        size = engine.memory.shape(self.into.obj)[2]
        if self.cells is not None and self.cells.all_in_order and self.into.count == size and (self.products or self.placed is not None):
            # the sums are made where they stay
            array = engine.memory.blank((*self.cells.small, size), np.dtype(np.float32))
            self._sums(engine, array.reshape(-1, size))
            engine.memory.keep(self.into.obj, array, self.anew)
            return
        sums = self._sums(engine, np.empty((len(self.lines), self.own.count), np.float32))
        if self.cells is not None:
            replace(engine, self.into, self.cells, sums, self.anew)
            return
        target = engine.memory.target(self.into.obj)
        target.reshape(-1, target.shape[-1])[self.lines[:, -1], self.into.begin : self.into.begin + self.into.count] = sums

    def _sums(self, engine: Engine, out: Values) -> Values:
        """The sums [lines, elements], in `out` where they are floats."""
        if self.products:
            self._multiplied(engine, out)
            return out
        if self.placed is not None:
            self.placed.sums(engine, out, self.half)
            return out
        array = engine.memory[self.own.obj]
        base, index = flat_cores(array, self.lines)
        if not self.adds:
            return self._folded(base, index)
        bits = out.view(np.uint32)

        def add(lines: slice) -> None:
            """The sums of some lines."""
            kernels.sum_lines(base, index[lines], self.own.begin, out[lines], bits[lines], self.half)

        each(add, even(len(index), index.size * self.own.count))
        return out

    def _folded(self, base: Values, index: Ints) -> Values:
        """The operation along the line, what arrives being the operand that comes from the fabric."""
        run = slice(self.own.begin, self.own.begin + self.own.count)
        out, first, op = base[index[:, 0], run], self.root.a.kind is tb.OperandKind.FABRIC, self.root.op
        assert op.d is not None
        for core in range(1, index.shape[1]):
            own = base[index[:, core], run]
            out = binary(op.op, out, own, op.d) if first else binary(op.op, own, out, op.d)
        return out

    def _multiplied(self, engine: Engine, out: Values) -> None:
        """Sum over the line of products, one large product a burst."""
        out[...] = 0
        along = self.lines[:, -1] // self.region.w if self.axis == 1 else self.lines[:, -1] % self.region.w
        for event in self.products:
            burst, kinds = event.burst, kinds_of(event.burst)
            assert kinds is not None
            step = Step(event)
            total = contraction(engine, step, engine.cores(step), None, kinds, self.axis)
            total = total[:, 0] if self.axis == 1 else total[0]
            members = burst.rows if self.axis == 1 else burst.cols
            place = (along - members.start) // members.step
            view = strided(out, int(engine.begin(event, "d")) - self.own.begin, burst.d.stride, summed_extents(burst.ext, kinds))
            view += total if len(total) == 1 or np.array_equal(place, np.arange(len(members))) else total[place]
        engine.blocked = True


def replace(engine: Engine, run: Run, cells: Cells, values: Values, anew: bool) -> None:
    """Make `values` all that an object holds; core by core if `anew`."""
    size = engine.memory.shape(run.obj)[2]
    array = engine.memory.blank((*cells.small, size), values.dtype)
    if cells.all_in_order:
        array.reshape(-1, size)[:, run.begin : run.begin + run.count] = values
    else:
        array.reshape(-1, size)[cells.cell, run.begin : run.begin + run.count] = values[cells.index]
    engine.memory.keep(run.obj, array, anew)


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
