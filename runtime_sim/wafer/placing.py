"""Placements: which tensor element lies where (images, inputs, outputs, states)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
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

LOGICAL = {
    "f64": "float64", "float64": "float64", "f32": "float32", "float32": "float32", "bf16": "float32", "bfloat16": "float32",
    "f16": "float16", "float16": "float16", "i64": "int64", "int64": "int64", "i32": "int32", "int32": "int32", "i16": "int16",
    "int16": "int16", "i8": "int8", "int8": "int8", "u8": "uint8", "uint8": "uint8", "bool": "bool",
}  # fmt: skip
"""numpy type of a binding's logical type (bf16 travels as float32)."""


@dataclass(frozen=True)
class Map:
    """Where the elements of an object lie in a tensor: linear index [rows, columns, elements] of the placed cores, -1 for padding, and
    the element numbers of the last axis. Along a mesh axis on which all cores hold the same part, `linear` has extent 1."""

    rows: slice
    cols: slice
    covers: tuple[bool, bool]
    """Whether the placed rows (columns) are copies of one another and all of the region's."""
    elements: Ints
    linear: NDArray[np.int32]
    padded: bool
    """Whether some entries of `linear` are -1."""
    size: int


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
            self._maps[key] = self._resolve(self._rows[placement], obj, region)
        return self._maps[key]

    def _resolve(self, row: int, obj: ObjectView, region: RegionView) -> Map:
        t = self.program.tables["placements"]
        view, origin, coef = t["view"][row].tolist(), t["origin"][row].tolist(), t["coef"][row]
        rows, cols = (range(*t[name][row].tolist()) for name in ("rows", "cols"))
        index = int(t["index"][row])
        slices = [slice(r.start, r.stop, r.step) for r in (rows, cols)]
        copies = [index == tb.NONE and all(o[1 + axis] == 0 for o in origin) for axis in (0, 1)]
        covers = (copies[0] and len(rows) == region.h, copies[1] and len(cols) == region.w)
        rows, cols = (r[:1] if same else r for r, same in zip((rows, cols), copies, strict=True))
        shape = (len(rows), len(cols), int(np.prod(obj.ext)))
        core, element = np.zeros(shape[:2], np.int64), np.zeros(shape[2], np.int64)
        outside = None
        for d in range(4):
            constant, per_row, per_column = origin[d]
            base: Ints = constant + per_row * np.array(rows, np.int64)[:, None] + per_column * np.array(cols, np.int64)[None, :]
            if index != tb.NONE:
                base = self.program.images[tb.image_key(index)][np.ix_(np.array(rows), np.array(cols), np.array([d]))][..., 0].astype(
                    np.int64
                )
            step = nest(obj.ext, tuple(coef[d].tolist()))
            core, element = core * view[d] + base, element * view[d] + step
            if base.min() + step.min() < 0 or base.max() + step.max() >= view[d]:
                at = base[..., None] + step
                outside = (at < 0) | (at >= view[d]) | (False if outside is None else outside)
        linear = core.astype(np.int32)[..., None] + element.astype(np.int32)
        if outside is not None:
            linear[outside] = -1
        return Map(slices[0], slices[1], covers, nest(obj.ext, obj.stride), linear, outside is not None, int(np.prod(view)))


def picked(mapping: Map, tensor: Values, fmt: Element) -> Values:
    """The elements of a tensor that an object holds, in its format: as `linear`, 0 for padding."""
    flat = tensor.reshape(-1)
    values = to_format(flat, fmt).astype(dtype_of(fmt), copy=False) if tensor.dtype != NUMPY[fmt] else flat
    found = np.take(values, mapping.linear, mode="clip").astype(dtype_of(fmt), copy=False)
    return np.where(mapping.linear < 0, np.zeros((), found.dtype), found) if mapping.padded else found


def unload(source: Values, mapping: Map, tensor: Values) -> None:
    """Copy an object's elements into a flat tensor; of copies, the first."""
    r, c, _ = mapping.linear.shape
    values = source[mapping.rows, mapping.cols][:r, :c][..., mapping.elements]
    if not mapping.padded:
        tensor[mapping.linear] = values
        return
    inside = mapping.linear >= 0
    tensor[mapping.linear[inside]] = values[inside]


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
