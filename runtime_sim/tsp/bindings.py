"""Where logical tensors lie: the regions of a `Binding` as index arrays (machines/tsp/tables.py, section Bindings)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np

from ...errors import BadInput
from ...machines.program import Binding
from ...machines.tsp.description import TspMachine
from ...machines.tsp.tables import STORED
from .layout import Array


@dataclass(frozen=True)
class Region:
    """One region laid out: vectors of a box of the logical tensor in C order of its axes, of which `axis` counts tiles of `tile` elements.

    `units, rows` [planes, vectors] MEM unit, and row in `allocation`, of every byte plane. The box has `box` elements from `start` on in a
    tensor of `shape`; elements of a tile lie in the lanes from `lane` on. Without an axis every element has a vector of its own, where
    `broadcast` in all of its lanes.
    """

    allocation: int
    units: Array
    rows: Array
    shape: tuple[int, ...]
    start: tuple[int, ...]
    box: tuple[int, ...]
    axis: int | None
    tile: int
    lane: int
    broadcast: bool
    lanes: int

    @cached_property
    def elements(self) -> Array:
        """[vectors, lanes] flat indices into the logical tensor, -1 where a lane holds none."""
        return self.take(np.arange(1, int(np.prod(self.shape)) + 1)) - 1

    def _inside(self, flat: Array) -> Array:
        box: Any = (*(slice(s, s + n) for s, n in zip(self.start, self.box, strict=True)), ...)
        result: Array = flat.reshape(self.shape)[box]
        return result

    def _tiles(self, flat: Array, vectors: Array) -> Iterator[tuple[Array, Array]]:
        """(elements of a flat tensor, lanes of vectors that hold them): views of one shape, which together are the region."""
        inside, counts = self._inside(flat), list(self.box)
        if self.axis is None:
            yield inside, vectors.reshape(*counts, self.lanes)[..., self.lanes - 1 if self.broadcast else self.lane]
            return
        counts[self.axis] = -(-counts[self.axis] // self.tile)
        grid, inside = np.moveaxis(vectors.reshape(*counts, self.lanes), self.axis, 0), np.moveaxis(inside, self.axis, -1)
        for number, lanes in enumerate(grid):
            part = inside[..., number * self.tile : (number + 1) * self.tile]
            yield part, lanes[..., self.lane : self.lane + part.shape[-1]]

    def take(self, flat: Array) -> Array:
        """The vectors [vectors, lanes] of a flat tensor of unsigned numbers; zero in lanes that hold no element."""
        result = np.zeros((self.units.shape[1], self.lanes), flat.dtype)
        for part, lanes in self._tiles(flat, result):
            lanes[...] = part
        if self.broadcast:
            result[:] = result[:, -1:]
        return result

    def give(self, vectors: Array, flat: Array) -> None:
        """Write vectors [vectors, lanes] into a flat tensor of the same type."""
        for part, lanes in self._tiles(flat, vectors):
            part[...] = lanes

    def mark(self, flat: Array) -> None:
        """Set the elements that are held."""
        self._inside(flat)[...] = True

    def cut(self, parts: int) -> list[Region]:
        """At most so many regions of neighbouring vectors that together are this one."""
        axis = next((a for a, n in enumerate(self.box) if n > 1), None)
        if axis is None or axis == self.axis:
            return [self]
        size = self.box[axis]
        parts, each = min(parts, size), self.units.shape[1] // size
        result = []
        for low, high in ((size * k // parts, size * (k + 1) // parts) for k in range(parts)):
            start, box = list(self.start), list(self.box)
            start[axis], box[axis] = start[axis] + low, high - low
            some = slice(low * each, high * each)
            result.append(replace(self, units=self.units[:, some], rows=self.rows[:, some], start=tuple(start), box=tuple(box)))
        return result


def lay_out(region: Mapping[str, Any], shape: tuple[int, ...], machine: TspMachine) -> Region:
    """Index arrays of a region that `structure.region_problem` accepts."""
    box, axis, tile = region["shape"], region["lane_axis"], region["lane_tile"]
    counts = [-(-n // tile) if a == axis else n for a, n in enumerate(box)]
    grid = np.indices(counts, dtype=np.int64).reshape(len(counts), -1) if counts else np.zeros((0, 1), np.int64)
    vector = np.array(region["strides"], np.int64) @ grid
    planes = np.array(region["planes"], np.int64)
    stripe = planes[:, vector % planes.shape[1], :]
    rows = np.broadcast_to(region["row"] + vector // planes.shape[1], stripe.shape[:2])
    return Region(
        region["allocation"], stripe[..., 0] * 44 + stripe[..., 1], rows, tuple(shape), tuple(region["start"]), tuple(box), axis, tile,
        region["lane_offset"], bool(axis is None and region["broadcast"]), machine.vector,
    )  # fmt: skip


def encode(binding: Binding, value: Array) -> Array:
    """The logical values in the stored format, flat; raises BadInput for a wrong shape or a value out of range."""
    if tuple(value.shape) != tuple(binding.shape):
        raise BadInput(f"{binding.kind} {binding.name} has shape {list(value.shape)}, the program takes {list(binding.shape)}")
    if binding.range is not None and value.size:
        low, high = int(value.min()), int(value.max())
        if low < binding.range[0] or high > binding.range[1]:
            raise BadInput(f"{binding.kind} {binding.name} holds {low}..{high}, the program takes {binding.range[0]}..{binding.range[1]}")
    stored = np.dtype(STORED[binding.stored])
    with np.errstate(over="ignore"):
        return np.ascontiguousarray(value).astype(stored).reshape(-1)


def logical(binding: Binding, flat: Array) -> Array:
    """Values read from the machine as the logical tensor: torch's dtype, bfloat16 as float32."""
    names = {"bfloat16": "float32", "bool": "bool"}
    name = binding.dtype.removeprefix("torch.")
    short = {
        "f16": "float16",
        "f32": "float32",
        "bf16": "float32",
        "f64": "float64",
        "i8": "int8",
        "i16": "int16",
        "i32": "int32",
        "i64": "int64",
        "u8": "uint8",
    }
    return flat.reshape(binding.shape).astype(np.dtype(names.get(name, short.get(name, name))), copy=False)
