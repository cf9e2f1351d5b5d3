"""Weights in files: safetensors and GGUF, memory-mapped, and the stored block forms of quantised weights.

A module's values are always decoded numbers. Where a parameter holds exactly the decoded rows of a block tensor of a GGUF file,
`attach_blocks` marks it, and lowering gives its constant that storage and its planes, so that a machine may compute on the stored form.

Planes (R rows of K values, blocks of 32 or 256 along the row; formats of ggml's `ggml-common.h`): `quants` [R, K] is i8 (u8 for q4_1).

| format | quants | other planes | value |
| --- | --- | --- | --- |
| q8_0 | -128..127 | scales f16 [R, K/32] | quant * scale |
| q4_0 | -8..7 | scales f16 [R, K/32] | quant * scale |
| q4_1 | 0..15 | scales f16, mins f16 [R, K/32] | quant * scale + min |
| q6_k | -32..31 | subscales i8 [R, K/16], scales f16 [R, K/256] | quant * (scale * subscale) |
| q3_k | -4..3 | subscales i8 [R, K/16] in -32..31, scales f16 [R, K/256] | quant * (scale * subscale) |
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ..errors import BadInput

Array = np.ndarray[Any, Any]
Planes = dict[str, Array]

_BLOCK_ATTRIBUTE = "spatialc_block"


def read_safetensors(path: str | Path) -> dict[str, torch.Tensor]:
    """Every tensor of the file as a view of its memory map. Raises BadInput for a file that is not safetensors."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return dict(load_file(str(path)))
    except (SafetensorError, OSError) as error:
        raise BadInput(f"{Path(path).name} cannot be read as safetensors: {error}") from error


# -- block formats ------------------------------------------------------------------------------------------------------------


def _halves(block: Array) -> Array:
    """16 bytes with two 4-bit values each: the low halves, then the high ones."""
    return np.concatenate([block & 0x0F, block >> 4], axis=-1)


def _half(block: Array) -> Array:
    return np.ascontiguousarray(block).view(np.float16)[..., 0]


def _q8_0(blocks: Array) -> Planes:
    return {"quants": np.ascontiguousarray(blocks[..., 2:]).view(np.int8), "scales": _half(blocks[..., :2])}


def _q4_0(blocks: Array) -> Planes:
    return {"quants": _halves(blocks[..., 2:]).astype(np.int8) - np.int8(8), "scales": _half(blocks[..., :2])}


def _q4_1(blocks: Array) -> Planes:
    return {"quants": _halves(blocks[..., 4:]), "scales": _half(blocks[..., :2]), "mins": _half(blocks[..., 2:4])}


def _q6_k(blocks: Array) -> Planes:
    """128 bytes of low four bits, 64 of high two bits, 16 sub-scales, one scale."""
    lead = blocks.shape[:-1]
    low: Array = blocks[..., :128].reshape(*lead, 2, 1, 64) >> np.array([0, 4], np.uint8)[:, None]
    low = (low & 0x0F).reshape(*lead, 8, 32)
    high: Array = blocks[..., 128:192].reshape(*lead, 2, 1, 32) >> np.array([0, 2, 4, 6], np.uint8)[:, None]
    high = (high & 0x03).reshape(*lead, 8, 32)
    quants = (low | (high << 4)).astype(np.int8) - np.int8(32)
    return {
        "quants": quants.reshape(*lead, 16, 16), "subscales": np.ascontiguousarray(blocks[..., 192:208]).view(np.int8),
        "scales": _half(blocks[..., 208:210]),
    }  # fmt: skip


def _q3_k(blocks: Array) -> Planes:
    """32 bytes of high bits (inverted), 64 of low two bits, 12 of packed 6-bit sub-scales, one scale."""
    lead = blocks.shape[:-1]
    packed = blocks[..., 96:108]
    low_scales = (packed[..., None, :8] >> np.array([0, 4], np.uint8)[:, None]).reshape(*lead, 16) & 0x0F
    high_scales = (packed[..., None, 8:] >> np.array([0, 2, 4, 6], np.uint8)[:, None]).reshape(*lead, 16) & 0x03
    subscales = (low_scales | (high_scales << 4)).astype(np.int8) - np.int8(32)
    low: Array = blocks[..., 32:96].reshape(*lead, 2, 1, 32) >> np.array([0, 2, 4, 6], np.uint8)[:, None]
    low = (low & 0x03).reshape(*lead, 16, 16)
    high: Array = blocks[..., None, :32] >> np.arange(8, dtype=np.uint8)[:, None]
    high = ((high & 1) ^ 1).reshape(*lead, 16, 16)
    quants = low.astype(np.int8) - (high << 2).astype(np.int8)
    return {"quants": quants, "subscales": subscales, "scales": _half(blocks[..., 108:110])}


@dataclass(frozen=True)
class BlockFormat:
    """Values and bytes of one block, and how its planes are taken out of bytes [R, blocks, bytes]."""

    values: int
    bytes: int
    split: Callable[[Array], Planes]


FORMATS: dict[str, BlockFormat] = {
    "q8_0": BlockFormat(32, 34, _q8_0),
    "q4_0": BlockFormat(32, 18, _q4_0),
    "q4_1": BlockFormat(32, 20, _q4_1),
    "q6_k": BlockFormat(256, 210, _q6_k),
    "q3_k": BlockFormat(256, 110, _q3_k),
}


def decode(planes: Mapping[str, Array]) -> Array:
    """The float32 values [R, K] of planes of any of the formats."""
    rows, columns = planes["quants"].shape
    scales = planes["scales"].astype(np.float32)
    if "subscales" in planes:
        subscales = planes["subscales"].astype(np.float32)
        scales = np.repeat(scales, subscales.shape[1] // scales.shape[1], axis=1) * subscales
    values: Array = planes["quants"].astype(np.float32).reshape(rows, scales.shape[1], -1) * scales[..., None]
    if "mins" in planes:
        values = values + planes["mins"].astype(np.float32)[..., None]
    return values.reshape(rows, columns)


@dataclass(frozen=True)
class Block:
    """A weight matrix in its stored form: format, raw bytes [R, bytes] (memory-mapped), and the row of the file each row comes from."""

    format: str
    raw: Array
    rows: Array | None = None

    @property
    def shape(self) -> tuple[int, int]:
        kind = FORMATS[self.format]
        return int(self.raw.shape[0]), int(self.raw.shape[1]) // kind.bytes * kind.values

    def planes(self) -> Planes:
        """The planes, in the order of this matrix's rows."""
        raw = self.raw if self.rows is None else self.raw[self.rows]
        planes = FORMATS[self.format].split(raw.reshape(raw.shape[0], -1, FORMATS[self.format].bytes))
        return {name: plane.reshape(raw.shape[0], -1) for name, plane in planes.items()}

    def values(self) -> Array:
        """The decoded float32 matrix."""
        return decode(self.planes())


# -- GGUF ---------------------------------------------------------------------------------------------------------------------


class GgufFile:
    """A memory-mapped GGUF file: decoded tensors by name, and the stored form of those in a block format we know."""

    def __init__(self, path: str | Path) -> None:
        try:
            import gguf
        except ImportError as error:
            raise BadInput("GGUF files need the package 'gguf': pip install 'spatialc[hf]'") from error
        self._gguf = gguf
        try:
            self._reader = gguf.GGUFReader(str(path))
        except (ValueError, OSError, IndexError) as error:
            raise BadInput(f"{Path(path).name} cannot be read as GGUF: {error}") from error
        self._tensors = {tensor.name: tensor for tensor in self._reader.tensors}

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(self._tensors)

    def shape(self, name: str) -> tuple[int, ...]:
        """Extents of the decoded tensor, outermost first."""
        return tuple(int(n) for n in self._tensors[name].shape[::-1])

    def get(self, name: str) -> Array:
        """The decoded value: a view of the map for float32 and float16, float32 for everything else."""
        tensor = self._tensors[name]
        if tensor.tensor_type.name in ("F32", "F16"):
            return np.asarray(tensor.data)
        return np.asarray(self._gguf.quants.dequantize(tensor.data, tensor.tensor_type), np.float32)

    def block(self, name: str) -> Block | None:
        """The stored form, or None for a tensor that is not a matrix in a known block format."""
        tensor = self._tensors[name]
        kind = tensor.tensor_type.name.lower()
        if kind not in FORMATS or len(tensor.shape) != 2:
            return None
        return Block(kind, np.asarray(tensor.data).view(np.uint8))


def attach_blocks(module: torch.nn.Module, file: GgufFile) -> int:
    """Mark every parameter of `module` whose rows are the decoded rows of one block tensor of `file`, in any order; returns how many.

    Names and row orders differ between GGUF and model libraries (rotary weights are permuted), so rows are matched by content: a
    parameter is only marked where it equals its stored form bit for bit.
    """
    wanted: dict[tuple[int, int], list[torch.nn.Parameter]] = {}
    for parameter in module.parameters():
        if parameter.dim() == 2 and parameter.dtype is torch.float32 and not parameter.is_meta:
            wanted.setdefault((parameter.shape[0], parameter.shape[1]), []).append(parameter)
    marked = 0
    for name in file.names:
        block = file.block(name)
        candidates = wanted.get(block.shape, []) if block is not None else []
        if block is None or not candidates:
            continue
        values = block.values()
        row_of = {row.tobytes(): number for number, row in enumerate(values)}
        for parameter in candidates:
            array = parameter.detach().numpy()
            rows = [row_of.get(np.ascontiguousarray(row).tobytes()) for row in array[:1]]
            if rows[0] is None:
                continue
            rows = [row_of.get(np.ascontiguousarray(row).tobytes()) for row in array]
            if None in rows:
                continue
            order = np.array(rows, np.int64)
            in_order = bool(np.array_equal(order, np.arange(len(order))))
            setattr(parameter, _BLOCK_ATTRIBUTE, replace(block, rows=None if in_order else order))
            marked += 1
    return marked


def block_of(tensor: torch.Tensor) -> Block | None:
    """The stored form that `attach_blocks` found for a parameter."""
    found = getattr(tensor, _BLOCK_ATTRIBUTE, None)
    return found if isinstance(found, Block) else None
