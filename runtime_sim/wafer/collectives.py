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

from dataclasses import dataclass, field
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
from .storage import seen_from, seen_once, stored_once, strided

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
    """Where parts chosen by `index`, of `size` stored cores, go: element `taken[i]` of all parts is the only one (`alone`) that is added to
    element `cell[i]` of all sums. `steps` where these are all sums in order: extents and strides of a nest through the parts."""

    index: bytes
    size: int
    alone: bool
    cell: Ints = field(default_factory=lambda: np.zeros(0, np.int64))
    taken: Ints = field(default_factory=lambda: np.zeros(0, np.int64))

    @cached_property
    def steps(self) -> tuple[tuple[int, ...], tuple[int, ...], int] | None:
        """Extents, strides and first element, None where the parts are no nest or leave gaps."""
        count = len(self.cell)
        if not count or self.cell.max() != count - 1:
            return None
        first = np.empty(count, np.int64)
        first[self.cell] = self.taken
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

    def add(self, parts: Values, out: Values) -> None:
        """Store flat parts in sums that are zeros."""
        if self.steps is None or self.cell.size != out.size:
            out.reshape(-1)[self.cell] += parts[self.taken]
            return
        ext, stride, begin = self.steps
        seen = np.lib.stride_tricks.as_strided(parts[begin:], ext, tuple(s * parts.itemsize for s in stride), writeable=False)
        # no sum is a negative zero
        np.add(seen, np.zeros((), parts.dtype), out=out.reshape(ext))


@dataclass(frozen=True)
class Parts:
    """What a step stores among zeros: `place` [lines, length] is the position of every core of the lines in the step's role (-1 for a core
    without a part), `first` and `low` [cores of the role] the first element in the line's and the index that stores there."""

    step: Step
    place: Ints
    first: Ints
    low: Ints

    def sums(self, engine: Engine, out: Values, half: bool) -> None:
        """Sums over the lines of arrays that hold one part each, added to zeros [lines, elements]."""
        burst, cores = self.step.event.burst, engine.cores(self.step)
        values = engine.source("a", self.step, cores, None)
        assert values is not None
        visits, inner, limit, pace = 1, burst.count, 1, 0
        index = np.zeros((1, 1), np.int32)
        if burst.op.meaning is Semantics.STORE_INDEXED:
            visits, inner, limit, pace = prod(burst.ext[:3]), burst.ext[3], burst.look[1], burst.look[2]
            given = engine.scalar(self.step, cores, None)
            assert given is not None
            given = seen_once(given) if given.ndim == 6 else given
            alike = given.ndim == 0 or given.shape[:2] == (1, 1)
            lead = (1, 1) if alike else cores.shape
            index = np.ascontiguousarray(np.broadcast_to(given, (*lead, *burst.ext[:3], 1))).reshape(-1, visits)
        whole = np.broadcast_to(values, (*cores.shape, *burst.ext))
        filled, source = flat_cores(whole, np.arange(burst.cores))
        steps = nest(burst.ext, burst.d.stride).reshape(visits, inner)
        known = engine.places.get(id(self))
        if known is None or known.size != len(filled) or known.index != index.tobytes():
            known = engine.places[id(self)] = self._stored(len(filled), source, index, steps, (limit, pace), out.shape)
        if known.alone:
            known.add(filled.reshape(-1), out)
            return
        index = np.ascontiguousarray(np.broadcast_to(index, (burst.cores, visits)))
        filled, bits = filled.reshape(-1, visits, inner), out.view(np.uint32)

        def add(lines: slice) -> None:
            """The sums of some lines."""
            kernels.sum_parts(
                filled, source, self.first, index, self.low, limit, pace, steps, self.place[lines], out[lines], bits[lines], half
            )

        each(add, even(len(self.place), self.place.size * visits * inner))

    def _stored(
        self, size: int, source: Ints, index: Values, steps: Ints, reach: tuple[int, int], shape: tuple[int, ...]
    ) -> Stored:  # fmt: skip
        """Where the parts [cores, visits, inner] of `size` stored cores go in the sums."""
        limit, pace = reach
        line, at = np.nonzero(self.place >= 0)
        core = self.place[line, at]
        place = np.broadcast_to(index, (len(self.low), index.shape[1]))[core] - self.low[core][:, None]
        part, visit = np.nonzero((place >= 0) & (place < limit))
        element = (self.first[core[part]] + place[part, visit] * pace)[:, None] + steps[visit]
        inside = (element >= 0) & (element < shape[1])
        cell = (line[part, None] * shape[1] + element)[inside]
        if np.bincount(cell, minlength=1).max() > 1:
            return Stored(index.tobytes(), size, False)
        taken = ((source[core[part]] * steps.shape[0] + visit) * steps.shape[1])[:, None] + np.arange(steps.shape[1])
        return Stored(index.tobytes(), size, True, cell, taken[inside])


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
        sums = self._sums(engine)
        if self.cells is not None:
            replace(engine, self.into, self.cells, sums, self.anew)
            return
        target = engine.memory.target(self.into.obj)
        target.reshape(-1, target.shape[-1])[self.lines[:, -1], self.into.begin : self.into.begin + self.into.count] = sums

    def _sums(self, engine: Engine) -> Values:
        if self.products:
            return self._multiplied(engine)
        if self.placed is not None:
            out = np.zeros((len(self.lines), self.own.count), np.float32)
            self.placed.sums(engine, out, self.half)
            return out
        array = engine.memory[self.own.obj]
        base, index = flat_cores(array, self.lines)
        if not self.adds:
            return self._folded(base, index)
        out = np.empty((len(self.lines), self.own.count), array.dtype)
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

    def _multiplied(self, engine: Engine) -> Values:
        """Sum over the line of products, one large product a burst."""
        out = np.zeros((len(self.lines), self.own.count), np.float32)
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
        return out


def replace(engine: Engine, run: Run, cells: Cells, values: Values, anew: bool) -> None:
    """Make `values` all that an object holds; core by core if `anew`."""
    h, w, size = engine.memory.shape(run.obj)
    array = engine.memory.blank((*cells.small, size), values.dtype)
    if cells.all_in_order:
        array.reshape(-1, size)[:, run.begin : run.begin + run.count] = values
    else:
        array.reshape(-1, size)[cells.cell, run.begin : run.begin + run.count] = values[cells.index]
    engine.memory.put(run.obj, array if cells.small == (h, w) else seen_from(array, (h, w, size)))
    if anew:
        engine.memory.target(run.obj)


def flat_cores(array: Values, cores: Ints) -> tuple[Values, Ints]:
    """An array [rows, columns, ..] as [cores, ..] without copies of equal cores, and the numbers of `cores` in it."""
    _, w, *size = array.shape
    uniform = stored_once(array)
    if not any(uniform) and array.flags.c_contiguous:
        return array.reshape(-1, *size), cores
    base = np.ascontiguousarray(array[: 1 if uniform[0] else None, : 1 if uniform[1] else None])
    y, x = (0 if uniform[0] else cores // w), (0 if uniform[1] else cores % w)
    return base.reshape(-1, *size), np.broadcast_to(y * base.shape[1] + x, cores.shape)
