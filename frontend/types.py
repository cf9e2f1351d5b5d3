"""What an FX value is while it is lowered: a real value, a complex pair, an empty tensor, and torch's element types."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from ..ir.types import BF16, BOOL, F16, F32, F64, I8, I16, I32, I64, U8, DType

Number = int | float | bool

_REAL: dict[torch.dtype, DType] = {
    torch.float64: F64, torch.float32: F32, torch.bfloat16: BF16, torch.float16: F16, torch.int64: I64, torch.int32: I32,
    torch.int16: I16, torch.int8: I8, torch.uint8: U8, torch.bool: BOOL,
}  # fmt: skip
_PARTS: dict[torch.dtype, DType] = {torch.complex64: F32, torch.complex128: F64}


class Refused(Exception):
    """One FX node that cannot be lowered; the text is the reason. The walk collects all of them into one UnsupportedOp."""


@dataclass(frozen=True, slots=True)
class Value:
    """A node of the graph under construction with the type of its result."""

    id: int
    dtype: DType
    shape: tuple[int, ...]

    @property
    def ndim(self) -> int:
        return len(self.shape)


@dataclass(frozen=True, slots=True)
class Pair:
    """A complex tensor: its real and imaginary parts, of one shape."""

    re: Value
    im: Value

    @property
    def shape(self) -> tuple[int, ...]:
        return self.re.shape

    @property
    def dtype(self) -> DType:
        return self.re.dtype


@dataclass(frozen=True, slots=True)
class Empty:
    """A tensor without elements. The IR has no zero extents: readers drop it."""

    dtype: DType
    shape: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Result:
    """The type torch gives one result of an FX node. For a complex result `dtype` is that of its parts."""

    dtype: DType
    shape: tuple[int, ...]
    stride: tuple[int, ...]
    is_complex: bool = False


def from_torch(dtype: torch.dtype) -> DType:
    """The IR's element type for a real torch dtype; raises Refused for complex, quantised and 8-bit float types."""
    found = _REAL.get(dtype)
    if found is None:
        raise Refused(f"element type {str(dtype).removeprefix('torch.')} has no form in the IR")
    return found


def result_of(tensor: torch.Tensor) -> Result:
    """The static type of a (fake) tensor; raises Refused where a size depends on data."""
    if tensor.is_sparse:
        raise Refused("sparse tensors have no form in the IR")
    if not all(isinstance(s, int) for s in tensor.shape):
        raise Refused(f"the shape ({', '.join(map(str, tensor.shape))}) depends on data")
    parts = _PARTS.get(tensor.dtype)
    dtype = parts if parts is not None else from_torch(tensor.dtype)
    stride = tuple(tensor.stride()) if tensor.layout is torch.strided else ()
    return Result(dtype, tuple(tensor.shape), stride, parts is not None)


def wide(dtype: DType) -> DType:
    """The type in which torch computes scalar functions of `dtype` values: float32 for the half precisions."""
    return F32 if dtype in (BF16, F16) else dtype
