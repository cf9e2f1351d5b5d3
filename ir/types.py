"""Element types of the dataflow IR, their numpy arithmetic types and their resolution."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, slots=True)
class DType:
    """One element type. `array` is the numpy type in which the interpreter holds values (bf16 is held as rounded float32)."""

    name: str
    bits: int
    kind: str  # "float", "int", "bool"
    array: np.dtype[np.generic]

    @property
    def is_float(self) -> bool:
        return self.kind == "float"

    @property
    def is_int(self) -> bool:
        return self.kind == "int"

    @property
    def limits(self) -> tuple[int, int]:
        """Smallest and largest value of an integer or bool type."""
        if self.kind == "bool":
            return 0, 1
        if self.name == "u8":
            return 0, 255
        return -(1 << (self.bits - 1)), (1 << (self.bits - 1)) - 1

    @property
    def bytes(self) -> int:
        return self.bits // 8

    def __repr__(self) -> str:
        return self.name

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return (dtype, (self.name,))


F64 = DType("f64", 64, "float", np.dtype(np.float64))
F32 = DType("f32", 32, "float", np.dtype(np.float32))
BF16 = DType("bf16", 16, "float", np.dtype(np.float32))
F16 = DType("f16", 16, "float", np.dtype(np.float16))
I64 = DType("i64", 64, "int", np.dtype(np.int64))
I32 = DType("i32", 32, "int", np.dtype(np.int32))
I16 = DType("i16", 16, "int", np.dtype(np.int16))
I8 = DType("i8", 8, "int", np.dtype(np.int8))
U8 = DType("u8", 8, "int", np.dtype(np.uint8))
BOOL = DType("bool", 8, "bool", np.dtype(np.bool_))

DTYPES: dict[str, DType] = {t.name: t for t in (F64, F32, BF16, F16, I64, I32, I16, I8, U8, BOOL)}


def dtype(name: str) -> DType:
    """The element type of that name; raises KeyError."""
    return DTYPES[name]
