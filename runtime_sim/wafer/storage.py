"""The arrays of one instance's objects as the evaluator sees them.

An object is [rows, columns, elements] of its region. Where all rows or columns are known to hold the same it is one array seen through a
stride of 0: such arrays are never written, `target` makes them whole first.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from math import prod
from operator import itemgetter
from typing import Any, Protocol

import numpy as np
from numpy.lib.stride_tricks import as_strided

from ..threads import THREADS, each, even
from . import kernels
from .arithmetic import Values
from .model import Ints

Reader = Callable[[Values], Values]
"""How to see an operand in the array of its object."""


@cache
def dense(ext: tuple[int, ...], stride: tuple[int, ...]) -> bool:
    """Whether a nest walks consecutive elements in order."""
    expected = 1
    for n, s in zip(reversed(ext), reversed(stride), strict=True):
        if n > 1 and s != expected:
            return False
        expected *= n
    return True


@cache
def gapless(ext: tuple[int, ...], stride: tuple[int, ...]) -> bool:
    """Whether a nest walks every element between its first and its last."""
    reach = 0
    for s, n in sorted((abs(s), n) for n, s in zip(ext, stride, strict=True) if n > 1 and s):
        if s > reach + 1:
            return False
        reach += s * (n - 1)
    return True


def strided(base: Values, begin: int, stride: Sequence[int], ext: Sequence[int]) -> Values:
    """A view [*cores, *ext] of [*cores, elements]."""
    if dense(tuple(ext), tuple(stride)):
        # splitting an axis never copies
        return base[..., begin : begin + int(prod(ext))].reshape(*base.shape[:-1], *ext)
    item = base.strides[-1]
    shifted = base[..., begin:]
    shape, strides = (*base.shape[:-1], *ext), (*base.strides[:-1], *(s * item for s in stride))
    return as_strided(shifted, shape, strides)


@dataclass(frozen=True)
class Place:
    """Where an operand's walk begins on the cores of a role: element `first` on the first one, `down` and `right` more for every row and
    column after it."""

    role: tuple[range, range]
    first: int
    down: int = 0
    right: int = 0

    @classmethod
    def of(cls, role: tuple[range, range], at: Ints) -> Place | None:
        """From first elements, 0-dimensional or [rows, columns]; None where they do not grow evenly."""
        if not at.ndim:
            return cls(role, int(at))
        first, down, right = (int(at[min(y, len(at) - 1), min(x, at.shape[1] - 1)]) for y, x in ((0, 0), (1, 0), (0, 1)))
        down, right = down - first, right - first
        even = first + down * np.arange(at.shape[0])[:, None] + right * np.arange(at.shape[1])[None, :]
        return cls(role, first, down, right) if np.array_equal(even, at) else None

    @property
    def still(self) -> bool:
        """Whether it is the same element on all cores."""
        return not self.down and not self.right

    def reader(self, ext: tuple[int, ...], stride: tuple[int, ...], strides: tuple[int, ...], flat: bool = False) -> Reader:
        """How to see a nest's elements in arrays [rows, columns, elements] of such strides: as a view [.., *ext], or, for runs that are to
        stay `flat`, [.., elements]; rows and columns on which all is the same are one."""
        cores = [slice(0, 1) if s == 0 else slice(r.start, r.stop, r.step) for s, r in zip(strides[:2], self.role, strict=True)]
        if dense(ext, stride) and self.still:
            run = itemgetter((*cores, slice(self.first, self.first + int(prod(ext)))))
            return run if flat else lambda array: _split(run(array), ext)
        place = (*cores, slice(self.first, None))
        jumps = (self.down, self.right)
        lead = tuple(1 if s == 0 and not jump else len(r) for s, jump, r in zip(strides[:2], jumps, self.role, strict=True))
        steps = tuple(s * r.step + jump * strides[2] for s, jump, r in zip(strides[:2], jumps, self.role, strict=True))
        shape, steps = (*lead, *ext), (*steps, *(s * strides[2] for s in stride))
        return lambda array: as_strided(array[place], shape, steps)


def _split(run: Values, ext: tuple[int, ...]) -> Values:
    """[rows, columns, elements] with the elements as a nest: splitting an axis never copies."""
    return run.reshape(*run.shape[:2], *ext)


def seen_from(array: Values, shape: tuple[int, int, int]) -> Values:
    """A contiguous array with extent 1 along mesh axes on which all cores hold the same, seen from all cores."""
    strides = tuple(0 if n == 1 else s for n, s in zip(array.shape, array.strides, strict=True))
    return np.ndarray(shape, array.dtype, array, strides=strides)


def stored_once(array: Values) -> tuple[bool, bool]:
    """Whether all rows, and whether all columns, are one."""
    return array.strides[0] == 0 and array.shape[0] > 1, array.strides[1] == 0 and array.shape[1] > 1


def copied(values: Values, out: Values) -> None:
    """Copy an array, f16 perhaps, into a contiguous f32 one of its shape, in one part a thread."""
    shape, strides = merged(values.shape, values.strides)
    flat = out.reshape(shape)
    given = as_strided(values, shape, strides, writeable=False)
    half = values.dtype == np.float16 and len(shape) <= 3 and strides[-1] == 2 and kernels.pays(values.size)
    if half:
        lead = (1,) * (3 - len(shape))
        flat, given = flat.reshape(*lead, *shape), given.view(np.uint16).reshape(*lead, *shape)
    axis = next((i for i, n in enumerate(flat.shape) if n >= THREADS), 0)

    def copy(part: slice) -> None:
        """One part."""
        index = (slice(None),) * axis + (part,)
        if half:
            kernels.from_half(given[index], flat[index], flat[index].view(np.uint32))
        else:
            np.copyto(flat[index], given[index])

    each(copy, even(flat.shape[axis], values.size))


def merged(shape: tuple[int, ...], strides: tuple[int, ...]) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Fewest axes that walk the same elements in the same order."""
    out: list[tuple[int, int]] = []
    for n, s in zip(shape, strides, strict=True):
        if n == 1:
            continue
        if out and out[-1][1] == n * s:
            out[-1] = (out[-1][0] * n, s)
        else:
            out.append((n, s))
    out = out or [(1, 0)]
    return tuple(n for n, _ in out), tuple(s for _, s in out)


def seen_once(values: Values) -> Values:
    """[rows, columns, ..] cut to one row or column where all are one."""
    return values[tuple(slice(0, 1) if values.strides[axis] == 0 else slice(None) for axis in (0, 1))]


class Owner(Protocol):
    """Where the arrays of all instances live."""

    def fetch(self, obj: int) -> Values:
        """The array of an object, filled with what it holds."""
        ...

    def put(self, obj: int, array: Values) -> None:
        """Replace the array of an object."""
        ...

    def blank(self, shape: tuple[int, ...], dtype: np.dtype[Any]) -> Values:
        """An array to be written."""
        ...

    def pick(self, obj: int, cores: Values, elements: Values) -> Values | None:
        """Elements [n, k] of cores [n] (flat positions) of an object that nothing has fetched yet, without fetching it; None where that
        is not possible."""
        ...

    def walk(self, obj: int, rows: range, cols: range, begin: int, stride: tuple[int, ...], ext: tuple[int, ...]) -> Values | None:
        """What a nest finds of such an object on the cores of a role, as a view [rows, columns, *ext] of another type perhaps; None where
        that is not possible."""
        ...

    def forms(self, obj: int) -> dict[Any, Values] | None:
        """Where operands read from an object stay for all runs, None where they do not."""
        ...

    def release(self, obj: int) -> None:
        """After the last use of an object by this instance."""
        ...


class Memory:
    """Arrays of one instance, fetched on first use. Objects that are the same words (`same`: object -> the one that stands for it) are
    one array; `shapes` are [rows, columns, elements] by object."""

    def __init__(self, owner: Owner | None, same: Mapping[int, int], shapes: Mapping[int, tuple[int, int, int]]) -> None:
        self._owner, self._same, self.shapes = owner, same, shapes
        self._arrays: dict[int, Values] = {}

    def _at(self, obj: int) -> int:
        return self._same.get(obj, obj)

    def __getitem__(self, obj: int) -> Values:
        """The array of an object, to be read."""
        obj = self._at(obj)
        if obj not in self._arrays:
            assert self._owner is not None
            self._arrays[obj] = self._owner.fetch(obj)
        return self._arrays[obj]

    def pick(self, obj: int, cores: Values, elements: Values) -> Values:
        """Elements [n, k] of cores [n] (flat positions in the region)."""
        assert self._owner is not None
        found = None if self._at(obj) in self._arrays else self._owner.pick(obj, cores, elements)
        if found is not None:
            return found
        array = self[obj]
        return np.asarray(array[(cores // array.shape[1])[:, None], (cores % array.shape[1])[:, None], elements])

    def walk(self, obj: int, rows: range, cols: range, begin: int, stride: tuple[int, ...], ext: tuple[int, ...]) -> Values | None:
        """What a nest finds of an object that nothing has used yet, without making its array; None where that is not possible."""
        assert self._owner is not None
        return None if self._at(obj) in self._arrays else self._owner.walk(obj, rows, cols, begin, stride, ext)

    def forms(self, obj: int) -> dict[Any, Values] | None:
        """Where operands read from an object stay for all runs, None where they do not."""
        assert self._owner is not None
        return self._owner.forms(self._at(obj))

    def target(self, obj: int) -> Values:
        """The array of an object, to be written in place: contiguous."""
        array = self[obj]
        if not array.flags.c_contiguous:
            array = np.array(array, order="C")
            self.put(obj, array)
        return array

    def renew(self, obj: int) -> None:
        """Give an object that holds nothing of use an array to be written core by core."""
        array = self[obj]
        if not array.flags.c_contiguous:
            self.put(obj, self.blank(array.shape, array.dtype))

    def blank(self, shape: tuple[int, ...], dtype: np.dtype[Any]) -> Values:
        """An array to be written."""
        assert self._owner is not None
        return self._owner.blank(shape, dtype)

    def keep(self, obj: int, array: Values, anew: bool = False) -> None:
        """Make an array with extent 1 along mesh axes on which all cores hold the same an object's; core by core if `anew`."""
        shape = self.shapes[obj]
        self.put(obj, array if array.shape == shape else seen_from(array, shape))
        if anew:
            self.target(obj)

    def put(self, obj: int, array: Values) -> None:
        """Replace the array of an object."""
        assert self._owner is not None
        self._arrays[self._at(obj)] = array
        self._owner.put(obj, array)

    def release(self, obj: int) -> None:
        """After the last use of an object: give its array back."""
        assert self._owner is not None
        if obj not in self._same:
            self._arrays.pop(obj, None)
        self._owner.release(obj)
