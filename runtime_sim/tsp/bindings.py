"""Where logical tensors lie: the regions of a `Binding` as index arrays (machines/tsp/tables.py, section Bindings)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from ...errors import BadInput
from ...machines.program import Binding
from ...machines.tsp.description import TspMachine
from ...machines.tsp.tables import STORED
from . import regions
from .layout import Array


@dataclass(frozen=True)
class Region:
    """One region laid out: vectors of the box in C order of (outer axes, lane tile).

    `units, rows` [planes, vectors] MEM unit, and row in `allocation`, of every byte plane. Vector v holds `count`[v] elements in the lanes
    from `lane` on: flat indices `first`[v], `first`[v] + `pitch`, ... into the logical tensor.
    """

    allocation: int
    units: Array
    rows: Array
    first: Array
    count: Array
    lane: int
    pitch: int
    lanes: int

    @cached_property
    def elements(self) -> Array:
        """[vectors, lanes] flat indices into the logical tensor, -1 where a lane holds none."""
        k = np.arange(self.lanes) - self.lane
        result: Array = np.where((k >= 0) & (k < self.count[:, None]), self.first[:, None] + k * self.pitch, -1)
        return result

    def take(self, flat: Array) -> Array:
        """The vectors [vectors, lanes] of a flat tensor of unsigned numbers; zero in lanes that hold no element."""
        result = np.zeros((len(self.first), self.lanes), flat.dtype)
        regions.take(flat, self.first, self.count, self.lane, self.pitch, result)
        return result

    def mark(self, flat: Array) -> None:
        """Set the elements that are held."""
        regions.mark(self.first, self.count, self.pitch, flat)


def lay_out(region: Mapping[str, Any], shape: tuple[int, ...], machine: TspMachine) -> Region:
    """Index arrays of a region that `structure.region_problem` accepts."""
    start, box, strides, axis = region["start"], region["shape"], region["strides"], region["lane_axis"]
    tile, lane = region["lane_tile"], region["lane_offset"]
    counts = [-(-n // tile) if a == axis else n for a, n in enumerate(box)]
    grid = np.indices(counts, dtype=np.int64).reshape(len(counts), -1) if counts else np.zeros((0, 1), np.int64)
    vector, first = np.zeros((2, grid.shape[1]), np.int64)
    count, pitch, step = np.ones(grid.shape[1], np.int64), 0, 1
    for a in range(len(shape) - 1, -1, -1):
        vector += grid[a] * strides[a]
        first += (start[a] + grid[a] * (tile if a == axis else 1)) * step
        if a == axis:
            pitch, count = step, np.minimum(box[a] - grid[a] * tile, tile)
        step *= shape[a]
    if axis is None and region["broadcast"]:
        count[:], lane = machine.vector, 0
    planes = np.array(region["planes"], np.int64)
    stripe = planes[:, vector % planes.shape[1], :]
    rows = np.broadcast_to(region["row"] + vector // planes.shape[1], stripe.shape[:2])
    return Region(region["allocation"], stripe[..., 0] * 44 + stripe[..., 1], rows, first, count, lane, pitch, machine.vector)


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
