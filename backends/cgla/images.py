"""Constant images: what lies in DDR from model load on, in the layout that its reader wants.

An image is described before it is made, so that layers that differ in their constants alone share one segment, and equal images (tied
weights) are stored once.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np
from numpy.lib.stride_tricks import as_strided
from numpy.typing import NDArray

from ...ir.evaluate import round_bf16
from ...ir.graph import ConstantRef
from ...ir.store import ConstantStore
from ...machines.cgla.tables import DTYPE_BYTES
from .gemm import INPUTS, OUTPUTS

Array = NDArray[Any]
_NUMPY = {"f16": np.float16, "f32": np.float32, "f64": np.float64}


@dataclass(frozen=True)
class RowMajor:
    """The whole constant in its logical order, as `dtype`."""

    dtype: str
    shape: tuple[int, ...]

    @property
    def size(self) -> int:
        """Bytes."""
        return prod(self.shape) * DTYPE_BYTES[self.dtype]

    def make(self, value: Array) -> Array:
        """The image of a decoded constant."""
        return stored(np.ascontiguousarray(value).reshape(-1), self.dtype)


@dataclass(frozen=True)
class Weights:
    """Weight tiles [batch][M tile][K / 4][2^b][4][2] of the matrix product kernels, zeros where M or K are padded.

    `batch`, `m`, `k` are pairs (extent, stride in items of the row-major constant), outer to inner; `offset` the item of the origin.
    """

    dtype: str
    offset: int
    batch: tuple[tuple[int, int], ...]
    m: tuple[tuple[int, int], ...]
    k: tuple[tuple[int, int], ...]
    output_tiles: int
    sets: int
    blocks: int

    @property
    def size(self) -> int:
        """Bytes."""
        items = prod(e for e, _ in self.batch) * self.output_tiles * self.blocks * self.sets * INPUTS * OUTPUTS
        return items * DTYPE_BYTES[self.dtype]

    def padded(self, value: Array, dtype: np.dtype[Any]) -> Array:
        """The operand as [batch, M, K] with zeros where M or K are padded."""
        flat = np.ascontiguousarray(value).reshape(-1)[self.offset :]
        axes = (*self.batch, *self.m, *self.k)
        view = as_strided(flat, [e for e, _ in axes], [s * flat.itemsize for _, s in axes], writeable=False)
        batch, m, k = (prod(e for e, _ in part) for part in (self.batch, self.m, self.k))
        padded = np.zeros((batch, self.output_tiles * self.sets * OUTPUTS, self.blocks * INPUTS), dtype=dtype)
        with np.errstate(over="ignore"):
            padded[:, :m, :k] = view.reshape(batch, m, k)
        return padded

    def make(self, value: Array) -> Array:
        """The image of a decoded constant."""
        padded = self.padded(value, np.dtype(_NUMPY[self.dtype]))
        tiles = padded.reshape(len(padded), self.output_tiles, self.sets, OUTPUTS, self.blocks, INPUTS)
        return np.ascontiguousarray(tiles.transpose(0, 1, 4, 2, 5, 3)).reshape(-1)


@dataclass(frozen=True)
class Blocks:
    """Q8_0 weight tiles: per tile the integers [8 groups][K block][sets][2][4], then the fp16 scales [K block][sets][2].

    A block is 32 inputs of one output: scale = max|w| / 127 rounded to fp16, integers w / scale rounded to nearest. Values that were
    Q8_0 before come out as they were, since some integer of such a block is 127.
    """

    source: Weights

    @property
    def tile_bytes(self) -> int:
        """Bytes of one tile: 34 a block and output."""
        return self.source.blocks // 8 * self.source.sets * OUTPUTS * 34

    @property
    def size(self) -> int:
        """Bytes."""
        return prod(e for e, _ in self.source.batch) * self.source.output_tiles * self.tile_bytes

    def make(self, value: Array) -> Array:
        """The image of a decoded constant, as bytes."""
        source = self.source
        padded = source.padded(value, np.dtype(np.float32))
        blocks = padded.reshape(-1, source.sets, OUTPUTS, source.blocks // 8, 32)
        scales = (np.abs(blocks).max(axis=-1) / np.float32(127)).astype(np.float16)
        safe = np.where(scales == 0, np.float32(1), scales.astype(np.float32))
        integers = np.clip(np.rint(blocks / safe[..., None]), -127, 127).astype(np.int8)
        grouped = integers.reshape(*blocks.shape[:-1], 8, INPUTS).transpose(0, 4, 3, 1, 2, 5)
        tiles = len(blocks)
        parts = [np.ascontiguousarray(grouped).reshape(tiles, -1).view(np.uint8)]
        parts.append(np.ascontiguousarray(scales.transpose(0, 3, 1, 2)).reshape(tiles, -1).view(np.uint8))
        return np.concatenate(parts, axis=1).reshape(-1)


Image = RowMajor | Weights | Blocks


def stored(values: Array, dtype: str) -> Array:
    """Values in the DDR form of a dtype: bf16 as the upper half of f32, bool as a byte."""
    if dtype == "bf16":
        bits: Array = (round_bf16(values.astype(np.float32)).view(np.uint32) >> np.uint32(16)).astype(np.uint16)
        return bits
    if dtype == "bool":
        truth: Array = (values != 0).astype(np.uint8)
        return truth
    if dtype in _NUMPY:
        with np.errstate(over="ignore"):
            floats: Array = values.astype(_NUMPY[dtype], copy=False)
            return floats
    integers: Array = values.astype({"i64": np.int64, "i32": np.int32, "i16": np.int16, "i8": np.int8, "u8": np.uint8}[dtype], copy=False)
    return integers


def image_array(image: Image, ref: ConstantRef, store: ConstantStore) -> Array:
    """The bytes of an image as an array."""
    made: Array = image.make(np.asarray(store.get(ref.key)))
    return made
