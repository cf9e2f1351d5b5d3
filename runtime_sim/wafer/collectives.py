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
from typing import TYPE_CHECKING

import numpy as np

from ...machines.wafer import tables as tb
from ...machines.wafer.isa import Fmt, Op
from ..threads import each, even
from . import kernels
from .arithmetic import Values, binary
from .events import Event
from .model import BurstView, Ints, RegionView
from .order import Step
from .parts import Parts, flat_cores
from .products import contraction, kinds_of, summed_extents
from .storage import strided

if TYPE_CHECKING:
    from .engine import Engine


_ZERO = np.zeros((), np.float32)


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
        size = engine.memory.shapes[self.into.obj][2]
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

    @cached_property
    def _taken(self) -> tuple[Ints | None, ...]:
        """For every product: the rows or columns of its cores in the order of the lines; None where that is theirs."""
        along = self.lines[:, -1] // self.region.w if self.axis == 1 else self.lines[:, -1] % self.region.w
        found: list[Ints | None] = []
        for event in self.products:
            members = event.burst.rows if self.axis == 1 else event.burst.cols
            place = (along - members.start) // members.step
            found.append(None if np.array_equal(place, np.arange(len(members))) else place)
        return tuple(found)

    def _multiplied(self, engine: Engine, out: Values) -> None:
        """Sum over the line of products, one large product a burst."""
        for number, (event, taken) in enumerate(zip(self.products, self._taken, strict=True)):
            burst, kinds = event.burst, kinds_of(event.burst)
            assert kinds is not None
            step = Step(event)
            total = contraction(engine, step, engine.cores(step), None, kinds, self.axis)
            total = total[:, 0] if self.axis == 1 else total[0]
            view = strided(out, int(engine.begin(event, "d")) - self.own.begin, burst.d.stride, summed_extents(burst.ext, kinds))
            if number == 0 and view.size < out.size:
                out[...] = 0
            # the first one is added to zeros, which leaves no negative zero
            before = _ZERO if number == 0 and view.size == out.size else view
            np.add(total if taken is None or len(total) == 1 else total[taken], before, out=view)
        engine.blocked = True


def replace(engine: Engine, run: Run, cells: Cells, values: Values, anew: bool) -> None:
    """Make `values` all that an object holds; core by core if `anew`."""
    size = engine.memory.shapes[run.obj][2]
    array = engine.memory.blank((*cells.small, size), values.dtype)
    if cells.all_in_order:
        array.reshape(-1, size)[:, run.begin : run.begin + run.count] = values
    else:
        array.reshape(-1, size)[cells.cell, run.begin : run.begin + run.count] = values[cells.index]
    engine.memory.keep(run.obj, array, anew)
