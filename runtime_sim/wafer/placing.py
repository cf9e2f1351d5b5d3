"""Placements: which tensor element lies where (images, inputs, outputs, states)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...errors import BadInput
from ...machines.program import Program
from ...machines.wafer import tables as tb
from ...machines.wafer.isa import NUMPY, Element
from .addresses import nest
from .arithmetic import Values, dtype_of, to_format
from .model import Ints, ObjectView, RegionView
from .storage import strided

LOGICAL = {
    "f64": "float64", "float64": "float64", "f32": "float32", "float32": "float32", "bf16": "float32", "bfloat16": "float32",
    "f16": "float16", "float16": "float16", "i64": "int64", "int64": "int64", "i32": "int32", "int32": "int32", "i16": "int16",
    "int16": "int16", "i8": "int8", "int8": "int8", "u8": "uint8", "uint8": "uint8", "bool": "bool",
}  # fmt: skip
"""numpy type of a binding's logical type (bf16 travels as float32)."""
_MOST_PADDING = 4
"""A tensor is copied with its padding where that takes at most this many times the tensor and what is placed of it."""


@dataclass(frozen=True)
class Map:
    """Where the elements of an object lie in a flat tensor: element i of core (y, x) at `core[y, x] + element[i]`, positions outside the
    tensor's view are padding. Along a mesh axis on which all placed cores hold the same part, `core` has extent 1."""

    rows: slice
    cols: slice
    covers: tuple[bool, bool]
    """Whether the placed rows (columns) are copies of one another and all of the region's."""
    ext: tuple[int, ...]
    stride: tuple[int, ...]
    """Extents and strides of the object's elements."""
    core: Ints
    element: Ints
    bounds: tuple[tuple[Ints, Ints, int], ...]
    """Dimensions that some positions leave: first index of every core, steps of the elements, indices there are."""
    steps: tuple[int, ...] | None
    """Steps in the tensor along rows, columns and the object's extents; None where cores lie at listed places."""
    view: tuple[int, ...]
    """Extents of the tensor."""
    wide: Map | None = None
    """The same in the tensor with its padding (`padded`); None without padding, or where steps alone do not reach it."""

    def padded(self, tensor: Values) -> Values:
        """A copy of the tensor with the zeros that its padding stands for, as `wide` sees it."""
        assert self.wide is not None
        out = np.zeros(self.wide.view, tensor.dtype)
        out[tuple(slice(n) for n in self.view)] = tensor.reshape(self.view)
        return out

    @property
    def elements(self) -> Ints:
        """Numbers of the placed elements in the object."""
        return nest(self.ext, self.stride)

    def placed(self, array: Values) -> Values:
        """The placed cores and elements of an object's array, as a view [rows, columns, *ext]."""
        return strided(array[self.rows, self.cols], 0, self.stride, self.ext)

    @cached_property
    def _pieces(self) -> list[tuple[slice, slice, bool]]:
        """Parts of `core` that together are all of it, and whether one is seen in the tensor by steps alone, without padding."""
        r, c = self.core.shape
        if self.steps is None:
            return [(slice(0, r), slice(0, c), False)]
        inside = np.ones((r, c), bool)
        for base, step, limit in self.bounds:
            inside &= (base + step.min() >= 0) & (base + step.max() < limit)
        y, x = int(inside[:, 0].argmin()) or r * bool(inside[0, 0]), int(inside[0].argmin()) or c * bool(inside[0, 0])
        if not y or not x or not inside[:y, :x].all():
            y = x = 0
        parts = [(slice(0, y), slice(0, x), True), (slice(y, r), slice(0, c), False), (slice(0, y), slice(x, c), False)]
        return [(rows, cols, whole) for rows, cols, whole in parts if rows.start < rows.stop and cols.start < cols.stop]

    def linear(self, rows: slice, cols: slice) -> Ints:
        """Positions in the tensor of a part of `core`, [rows, columns, *ext]; -1 for padding."""
        out = self.core[rows, cols, None] + self.element
        for base, step, limit in self.bounds:
            at = base[rows, cols, None] + step
            out[(at < 0) | (at >= limit)] = -1
        return out.reshape(*out.shape[:2], *self.ext)

    def pick(self, tensor: Values, y: Ints, x: Ints, elements: Ints) -> Values | None:
        """Elements [n, k] of cores (y, x) [n]; None where the object's elements or cores are not all placed."""
        every = range(self.rows.stop)[self.rows], range(self.cols.stop)[self.cols]
        if not np.array_equal(self.elements, np.arange(len(self.element))) or any(r.start or r.step != 1 for r in every):
            return None
        if len(y) and (y.max() >= len(every[0]) or x.max() >= len(every[1])):
            return None
        r, c = self.core.shape
        y, x = (0 * y if r == 1 else y), (0 * x if c == 1 else x)
        at = self.core[y, x][:, None] + self.element[elements]
        found = np.take(tensor.reshape(-1), at, mode="clip")
        for base, step, limit in self.bounds:
            index = base[y, x][:, None] + step[elements]
            found[(index < 0) | (index >= limit)] = 0
        return found

    def walk(
        self, tensor: Callable[[], Values], rows: range, cols: range, begin: int, stride: tuple[int, ...], ext: tuple[int, ...]
    ) -> Values | None:  # fmt: skip
        """What a nest of the object's elements finds on the cores of a role, as a view of the tensor [rows, columns, *ext]; None where
        steps alone do not reach it."""
        if self.steps is None or self.bounds:
            return None
        index, rest = [0] * 4, begin
        for d in sorted(range(4), key=lambda d: -self.stride[d]):
            if self.stride[d]:
                index[d], rest = divmod(rest, self.stride[d])
        steps, last = [], list(index)  # several axes may walk one dimension
        for n, s in zip(ext, stride, strict=True):
            d = self.stride.index(s) if s in self.stride else -1
            if n > 1 and s:
                last[d] += n - 1
                if d < 0 or last[d] >= self.ext[d]:
                    return None
            steps.append(self.steps[2 + d] if n > 1 and s else 0)
        if rest or any(i >= n for i, n in zip(index, self.ext, strict=True)):
            return None
        first, along = 0, []
        for axis, (role, placed) in enumerate(((rows, self.rows), (cols, self.cols))):
            known = range(placed.start, placed.stop, placed.step)
            if role[0] not in known or role[-1] not in known or (len(role) > 1 and role.step % known.step):
                return None
            step = self.steps[axis] if self.core.shape[axis] > 1 else 0
            first += known.index(role[0]) * step
            along.append(role.step // known.step * step if len(role) > 1 else 0)
        first += int(self.core[0, 0]) + sum(i * s for i, s in zip(index, self.steps[2:], strict=True))
        flat = tensor().reshape(-1)
        strides = tuple(s * flat.itemsize for s in (*along, *steps))
        return np.ndarray((len(rows), len(cols), *ext), flat.dtype, flat, first * flat.itemsize, strides)

    def _seen(self, flat: Values, rows: slice, cols: slice) -> Values:
        """A part without padding as a view of the tensor, [rows, columns, *ext]."""
        assert self.steps is not None
        first = flat[int(self.core[rows.start, cols.start]) + int(self.element[0]) :]
        shape = (rows.stop - rows.start, cols.stop - cols.start, *self.ext)
        return np.lib.stride_tricks.as_strided(first, shape, tuple(s * flat.itemsize for s in self.steps))

    def _of(self, placed: Values, rows: slice, cols: slice) -> Values:
        """The part of a view [rows, columns, *ext] of an object that belongs to a part of `core`."""
        every = slice(None)
        r, c = self.core.shape
        return placed[every if r == 1 else rows, every if c == 1 else cols]

    def load(self, array: Values, tensor: Values, fmt: Element, keep: bool) -> None:
        """Copy the tensor's elements into an object's array, in its format; padding is 0, or stays what it is with `keep`."""
        flat = tensor.reshape(-1)
        values = to_format(flat, fmt).astype(dtype_of(fmt), copy=False) if tensor.dtype != NUMPY[fmt] else flat
        placed = self.placed(array)
        for rows, cols, whole in self._pieces:
            target = self._of(placed, rows, cols)
            if whole:
                target[...] = self._seen(values, rows, cols)
                continue
            linear = self.linear(rows, cols)
            found = np.take(values, linear, mode="clip").astype(array.dtype, copy=False)
            if keep:
                np.copyto(target, found, where=linear >= 0)
            else:
                target[...] = np.where(linear < 0, np.zeros((), found.dtype), found)

    def unload(self, array: Values, tensor: Values) -> None:
        """Copy an object's elements into a flat tensor; of copies, the first."""
        r, c = self.core.shape
        placed = self.placed(array)[:r, :c]
        for rows, cols, whole in self._pieces:
            values = placed[rows, cols]
            if whole and self._apart(rows, cols):
                self._seen(tensor, rows, cols)[...] = values
                continue
            linear = self.linear(rows, cols)
            inside = linear >= 0
            tensor[linear[inside]] = values[inside]

    def _apart(self, rows: slice, cols: slice) -> bool:
        """Whether a part without padding names every position once."""
        assert self.steps is not None
        reach = 0
        for step, n in sorted(zip(map(abs, self.steps), (rows.stop - rows.start, cols.stop - cols.start, *self.ext), strict=True)):
            if n > 1 and step <= reach:
                return False
            reach += step * (n - 1)
        return True

    def cover(self, tensor: NDArray[np.bool_], written: NDArray[np.bool_] | None) -> None:
        """Set what is placed of a flat tensor; only the elements `written` [region's rows, columns, elements] if given."""
        r, c = self.core.shape
        placed = None if written is None else self.placed(written)[:r, :c]
        for rows, cols, whole in self._pieces:
            values = None if placed is None else placed[rows, cols]
            if whole and (values is None or values.all()):
                self._seen(tensor, rows, cols)[...] = True
                continue
            linear = self.linear(rows, cols)
            tensor[linear[linear >= 0 if values is None else (linear >= 0) & values]] = True


@dataclass
class Placements:
    """The placement table of a program, resolved on demand."""

    program: Program
    _maps: dict[tuple[Any, ...], Map] = field(default_factory=dict)
    _rows: dict[int, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._rows = {int(i): row for row, i in enumerate(self.program.tables["placements"]["id"])}

    def problem(self, placement: int, obj: ObjectView, region: RegionView, size: int) -> str:
        """Why an object of a region cannot hold its part of a tensor of `size` elements by a placement; empty where it can."""
        if placement not in self._rows:
            return f"placement {placement} is not there"
        t, row = self.program.tables["placements"], self._rows[placement]
        view = t["view"][row].astype(np.int64)
        if (view < 1).any() or int(np.prod(view)) != size:
            return f"placement {placement} views {view.tolist()}, the tensor has {size} elements"
        for name, limit in (("rows", region.h), ("cols", region.w)):
            start, stop, step = t[name][row].tolist()
            if step < 1 or not 0 <= start < stop <= limit:
                return f"placement {placement} has {name} {[start, stop, step]} outside its region"
            if len(range(start, stop, step)) == 1 and (step != 1 or stop != start + 1 or t["origin"][row][:, 1 + (name == "cols")].any()):
                return f"placement {placement} is not canonical in {name}"
        if any(n == 1 and t["coef"][row][:, e].any() for e, n in enumerate(obj.ext)):
            return f"placement {placement} steps along an extent of 1"
        index = int(t["index"][row])
        if index != tb.NONE and t["origin"][row].any():
            return f"placement {placement} has both an index and origins"
        if index != tb.NONE:
            image = self.program.images.get(tb.image_key(index))
            if image is None or image.dtype != np.int32 or image.shape != (region.h, region.w, 4):
                return f"placement {placement} needs image {index} as int32 [{region.h}, {region.w}, 4]"
        if np.abs(t["origin"][row].astype(np.int64)).max() > 1 << 24 or np.abs(t["coef"][row].astype(np.int64)).max() > 1 << 24:
            return f"placement {placement} has steps out of range"
        return ""

    def resolve(self, placement: int, obj: ObjectView, region: RegionView) -> Map:
        """The map of an object (its extents and strides) under a placement."""
        key = (placement, obj.ext, obj.stride, region.h, region.w)
        if key not in self._maps:
            view = self.program.tables["placements"]["view"][self._rows[placement]].tolist()
            found, reach = self._resolve(self._rows[placement], obj, region, view)
            inside = found.steps is not None and all(base.min() + step.min() >= 0 for base, step, _ in found.bounds)
            if found.bounds and inside and prod(reach) <= _MOST_PADDING * (prod(view) + found.core.size * found.element.size):
                found = replace(found, wide=self._resolve(self._rows[placement], obj, region, reach)[0])
            self._maps[key] = found
        return self._maps[key]

    def _resolve(self, row: int, obj: ObjectView, region: RegionView, view: Sequence[int]) -> tuple[Map, list[int]]:
        """The map in a tensor of these extents, and extents that also hold its padding behind them."""
        t = self.program.tables["placements"]
        origin, coef = t["origin"][row].tolist(), t["coef"][row]
        rows, cols = (range(*t[name][row].tolist()) for name in ("rows", "cols"))
        index = int(t["index"][row])
        slices = [slice(r.start, r.stop, r.step) for r in (rows, cols)]
        copies = [index == tb.NONE and all(o[1 + axis] == 0 for o in origin) for axis in (0, 1)]
        covers = (copies[0] and len(rows) == region.h, copies[1] and len(cols) == region.w)
        rows, cols = (r[:1] if same else r for r, same in zip((rows, cols), copies, strict=True))
        shape = (len(rows), len(cols), int(np.prod(obj.ext)))
        core, element = np.zeros(shape[:2], np.int64), np.zeros(shape[2], np.int64)
        bounds, steps, reach = [], np.zeros(6, np.int64), list(view)
        for d in range(4):
            constant, per_row, per_column = origin[d]
            base: Ints = constant + per_row * np.array(rows, np.int64)[:, None] + per_column * np.array(cols, np.int64)[None, :]
            if index != tb.NONE:
                listed = self.program.images[tb.image_key(index)]
                base = listed[np.ix_(np.array(rows), np.array(cols), np.array([d]))][..., 0].astype(np.int64)
            step = nest(obj.ext, tuple(coef[d].tolist()))
            core, element = core * view[d] + base, element * view[d] + step
            steps = steps * view[d] + np.array([per_row * rows.step, per_column * cols.step, *coef[d].tolist()])
            if base.min() + step.min() < 0 or base.max() + step.max() >= view[d]:
                bounds.append((base, step, view[d]))
                reach[d] = max(view[d], int(base.max() + step.max()) + 1)
        listed_steps = tuple(steps.tolist()) if index == tb.NONE else None
        return Map(slices[0], slices[1], covers, obj.ext, obj.stride, core, element, tuple(bounds), listed_steps, tuple(view)), reach


def checked(name: str, given: Mapping[str, np.ndarray], shape: tuple[int, ...], dtype: str) -> np.ndarray:
    """The argument of a binding, in its logical type. Raises BadInput."""
    if name not in given:
        raise BadInput(f"input {name!r} is missing; the program takes it as {dtype}{list(shape)}")
    array = np.asarray(given[name])
    if tuple(array.shape) != tuple(shape):
        raise BadInput(f"input {name!r} has shape {list(array.shape)}, the program was compiled for {list(shape)}")
    wanted = np.dtype(LOGICAL.get(dtype, dtype))
    if wanted.kind in "iub" and array.dtype.kind not in "iub":
        raise BadInput(f"input {name!r} is {array.dtype}, the program takes {dtype}")
    return array.astype(wanted, copy=False)
