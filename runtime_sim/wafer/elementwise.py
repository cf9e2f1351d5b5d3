"""Bursts that compute every element of their destination from the elements at the same place of their operands.

`elementwise` is what one of them computes. A segment is evaluated again and again, for all instances and runs, and what an operand is of
its object's array depends on how that array is stored alone: `Elementwise` finds the views of a burst once for every way in which its
objects have been stored, and computes straight into the destination.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import TYPE_CHECKING

import numpy as np

from ...machines.wafer import tables as tb
from ...machines.wafer.isa import Element, Semantics
from .addresses import nest
from .arithmetic import (
    Values,
    Writer,
    binary,
    binary_into,
    convert,
    convert_into,
    dtype_of,
    keep_into,
    merge_pairs,
    select,
    select_into,
    to_format,
    unary,
    unary_into,
)
from .model import BurstView
from .order import Step
from .storage import Memory, Place, Reader, dense

if TYPE_CHECKING:
    from .engine import Engine

MEM, IMM, NO = tb.OperandKind.MEM, tb.OperandKind.IMM, tb.OperandKind.NONE
Strides = tuple[tuple[int, ...], ...]


def elementwise(burst: BurstView, a: Values | None, b: Values | None, s: Values | None) -> Values:
    """Every meaning without state: [*cores, n3, n2, n1, n0], rounded to the destination's format."""
    op, meaning = burst.op, burst.op.meaning
    assert a is not None and op.d is not None and op.a is not None
    if meaning is Semantics.UNARY:
        return unary(op.op, a, op.d)
    if meaning is Semantics.CONVERT:
        return convert(a, op.a, op.d)
    second = b if b is not None else s
    assert second is not None
    if meaning is Semantics.SELECT:
        assert s is not None
        return select(a, second, s)
    if meaning is Semantics.MERGE_PAIRS:
        return merge_pairs(a, second)
    return binary(op.op, a, second, op.d)


def immediate(value: float, fmt: Element) -> Values:
    """An immediate in its format, 0-dimensional."""
    if dtype_of(fmt).kind == "i":
        return np.asarray(to_format(np.asarray(int(value), np.int64), fmt))
    return np.asarray(to_format(np.asarray(value, np.float64), fmt))


@cache
def _walks_once(ext: tuple[int, ...], stride: tuple[int, ...]) -> bool:
    elements = nest(ext, stride)
    return len(np.unique(elements)) == len(elements)


def sequential_axes(burst: BurstView) -> tuple[int, ...]:
    """Axes that must be evaluated visit by visit, outermost first: those along which the destination stays in place; if the walk
    revisits elements in another way, all but a moving innermost one."""
    return _sequential(burst.ext, burst.d.stride) if burst.d.kind is MEM else ()


@cache
def _sequential(ext: tuple[int, ...], stride: tuple[int, ...]) -> tuple[int, ...]:
    still = [d for d in range(4) if ext[d] > 1 and stride[d] == 0]
    moving = tuple(1 if d in still else n for d, n in enumerate(ext))
    if _walks_once(moving, stride):
        return tuple(still)
    return tuple(sorted({*still, *(d for d in range(3) if ext[d] > 1)}))


def keeps(burst: BurstView) -> bool:
    """A masked move: elements that are not selected stay as they are."""
    return burst.op.meaning is Semantics.SELECT and burst.s.kind is NO


@dataclass(frozen=True)
class Bound:
    """The views of a burst on objects that are stored in one way."""

    sources: tuple[Reader | None, Reader | None, Reader | None]
    """How to see a, b and s in the arrays of their objects; None for what is none or an immediate."""
    target: Reader
    small: tuple[int, int, int] | None
    """Shape of the array that becomes the object's; None where the burst writes into the one that is there."""


@dataclass
class Elementwise:
    """A burst that has its operands in memory, at one place on all cores, and writes no element twice."""

    step: Step
    places: dict[str, Place]
    """Where the walks of the memory operands begin."""
    write: Writer
    given: tuple[Values | None, Values | None, Values | None]
    """The immediates among a, b and s."""
    _bound: dict[Strides, Bound | None] = field(default_factory=dict)

    def __post_init__(self) -> None:
        burst = self.step.event.burst
        self.dtype = dtype_of(Element.F32 if burst.op.d is None else burst.op.d)
        objects = [burst.operand(p).obj for p in self.places if p != "d" or not self.step.covers]
        self.objects = tuple(objects)
        """Objects whose storage decides what the views are."""
        self.from_memory = tuple(burst.operand(p).obj if burst.operand(p).kind is MEM else -1 for p in "abs")

    def run(self, memory: Memory) -> bool:
        """Evaluate on an instance's objects; False, and nothing is done, where the destination has to be stored in another way first."""
        key = tuple([memory[obj].strides for obj in self.objects])
        if key not in self._bound:
            self._bound[key] = self._bind(dict(zip(self.objects, key, strict=True)), memory.shapes)
        bound = self._bound[key]
        if bound is None:
            return False
        a, b, s = [
            immediate if reader is None else reader(memory[obj])
            for reader, obj, immediate in zip(bound.sources, self.from_memory, self.given, strict=True)
        ]
        obj = self.step.event.burst.d.obj
        if bound.small is None:
            self.write(bound.target(memory[obj]), a, b, s)
        else:
            array = memory.blank(bound.small, self.dtype)
            self.write(bound.target(array), a, b, s)
            memory.keep(obj, array)
        return True

    def _bind(self, strides: dict[int, tuple[int, ...]], shapes: Mapping[int, tuple[int, int, int]]) -> Bound | None:
        burst, step = self.step.event.burst, self.step
        ext = {p: (*burst.ext[:3], 1) if p == "s" else burst.ext for p in "dabs"}
        read = [p for p in self.places if p != "d"]
        once = [
            n == 1 or all(strides[burst.operand(p).obj][axis] == 0 and not (self.places[p].down, self.places[p].right)[axis] for p in read)
            for axis, n in enumerate((len(burst.rows), len(burst.cols)))
        ]
        flat = all(dense(burst.ext, burst.operand(p).stride) and ext[p] == burst.ext and place.still for p, place in self.places.items())
        shape = shapes[burst.d.obj]
        small: tuple[int, int, int] | None = None
        stored: tuple[int, ...]
        if step.covers:
            small = (1 if once[0] else shape[0], 1 if once[1] else shape[1], shape[2] if read else 1)
            stored = (small[1] * small[2] * 4, small[2] * 4, 4)
            single = [n == 1 for n in small[:2]]
        else:
            stored = strides[burst.d.obj]
            single = [s == 0 and n > 1 for s, n in zip(stored[:2], shape[:2], strict=True)]
            apart = any(one and not alike for one, alike in zip(single, once, strict=True))
            if (any(single) and (apart or not step.spans or keeps(burst))) or stored[2] == 0:
                return None
        stored = (*(0 if one else s for one, s in zip(single, stored[:2], strict=True)), stored[2])
        held = {p: strides[burst.operand(p).obj] for p in read} | {"d": stored}
        see = {p: place.reader(ext[p], burst.operand(p).stride, held[p], flat) for p, place in self.places.items()}
        # an immediate alone is one value for all cores and elements
        return Bound((see.get("a"), see.get("b"), see.get("s")), see["d"] if read else lambda array: array, small)


def bind(engine: Engine, step: Step) -> Elementwise | None:
    """A step as such a burst, None where it is something else."""
    burst, op = step.event.burst, step.event.burst.op
    known = op.meaning in (Semantics.UNARY, Semantics.CONVERT, Semantics.SELECT, Semantics.BINARY)
    if not known or step.at is not None or burst.fabric or burst.d.kind is not MEM or sequential_axes(burst):
        return None
    names = [p for p in "abs" if burst.operand(p).kind is MEM]
    places = {p: Place.of((burst.rows, burst.cols), engine.begin(step.event, p)) for p in (*names, "d")}
    known_places = {p: place for p, place in places.items() if place is not None}
    if not (names or step.covers) or len(known_places) < len(places):
        return None
    given = [
        immediate(burst.imm, fmt) if fmt is not None and burst.operand(p).kind is IMM else None
        for p, fmt in zip("abs", (op.a, op.b, op.s), strict=True)
    ]
    apart = step.covers or all(burst.operand(p).obj != burst.d.obj for p in names)
    return Elementwise(step, known_places, _writer(burst, apart), (given[0], given[1], given[2]))


def _writer(burst: BurstView, apart: bool) -> Writer:
    """`elementwise` of a burst into an array, which may be (part of) an operand's if not `apart`."""
    op = burst.op
    assert op.a is not None and op.d is not None
    second = op.b if burst.b.kind is not NO else op.s
    if keeps(burst):
        return keep_into
    if op.meaning is Semantics.SELECT and apart:
        return select_into
    found = None
    if op.meaning is Semantics.UNARY:
        found = unary_into(op.op, op.a, op.d)
    elif op.meaning is Semantics.CONVERT:
        found = convert_into(op.a, op.d)
    elif op.meaning is Semantics.BINARY and second is not None:
        found = binary_into(op.op, op.a, second, op.d)
    if found is not None:
        return found

    def assign(out: Values, a: Values | None, b: Values | None, s: Values | None) -> None:
        out[...] = elementwise(burst, a, b, s)

    return assign
