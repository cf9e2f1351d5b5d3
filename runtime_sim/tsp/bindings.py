"""Where logical tensors lie: the regions of a `Binding` as index arrays (machines/tsp/tables.py, section Bindings)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from ...errors import BadInput
from ...machines.program import Binding
from ...machines.tsp.description import TspMachine
from ...machines.tsp.tables import STORED
from .layout import Array


@dataclass(frozen=True)
class Region:
    """One region laid out: vectors of the box in C order of (outer axes, lane tile).

    `units, rows` [planes, vectors] MEM unit, and row in `allocation`, of every byte plane; `elements` [vectors, lanes] flat indices into
    the logical tensor, -1 where a lane holds none.
    """

    allocation: int
    units: Array
    rows: Array
    elements: Array


def lay_out(region: Mapping[str, Any], shape: tuple[int, ...], machine: TspMachine) -> Region:
    """Index arrays of a region that `structure.region_problem` accepts."""
    start, box, strides, axis = region["start"], region["shape"], region["strides"], region["lane_axis"]
    tile, offset = region["lane_tile"], region["lane_offset"]
    counts = [-(-n // tile) if a == axis else n for a, n in enumerate(box)]
    grid = np.indices(counts, dtype=np.int64).reshape(len(counts), -1) if counts else np.zeros((0, 1), np.int64)
    vector = np.zeros(grid.shape[1], np.int64)
    pitch = np.ones(len(shape), np.int64)
    for a in range(len(shape) - 2, -1, -1):
        pitch[a] = pitch[a + 1] * shape[a + 1]
    base = np.zeros(grid.shape[1], np.int64)
    lane = np.arange(machine.vector) - offset
    held = np.broadcast_to((lane >= 0) & (lane < (tile if axis is not None else 1)), (grid.shape[1], machine.vector))
    extra = np.zeros((grid.shape[1], machine.vector), np.int64)
    for a in range(len(shape)):
        vector += grid[a] * strides[a]
        if a == axis:
            along = grid[a][:, None] * tile + lane[None, :]
            held = held & (along < box[a])
            extra = (start[a] + along) * pitch[a]
        else:
            base += (start[a] + grid[a]) * pitch[a]
    if axis is None and region["broadcast"]:
        held = np.ones_like(held)
    elements = np.where(held, base[:, None] + extra, -1)
    planes = np.array(region["planes"], np.int64)
    stripe = planes[:, vector % planes.shape[1], :]
    rows = np.broadcast_to(region["row"] + vector // planes.shape[1], stripe.shape[:2])
    return Region(region["allocation"], stripe[..., 0] * 44 + stripe[..., 1], rows, elements)


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
