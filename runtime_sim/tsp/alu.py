"""What one ALU operation does to numbers (docs/tsp-model.md VX-6 to VX-8). Arrays are [elements, 320]; results go into `out`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from ...machines.tsp.isa import NUMPY, DType, Opcode
from .layout import Array

TANH_PRE, TANH_POST = 5461.17, 3.05185e-5
_UNSIGNED: dict[int, np.dtype[Any]] = {1: np.dtype("u1"), 2: np.dtype("<u2"), 4: np.dtype("<u4")}
_FLOAT = (DType.F16, DType.F32)
_INTEGER = {Opcode.ADD: np.add, Opcode.SUB: np.subtract, Opcode.MUL: np.multiply}
_COMPARE: dict[int, Any] = {
    Opcode.EQ: np.equal, Opcode.NE: np.not_equal, Opcode.GT: np.greater,
    Opcode.GE: np.greater_equal, Opcode.LT: np.less, Opcode.LE: np.less_equal,
}  # fmt: skip
_BITS: dict[int, Any] = {Opcode.AND: np.bitwise_and, Opcode.OR: np.bitwise_or, Opcode.XOR: np.bitwise_xor}
_DOUBLE: dict[int, Callable[[Array], Array]] = {
    Opcode.EXP2: np.exp2, Opcode.LOG2: np.log2, Opcode.RSQRT: lambda x: 1.0 / np.sqrt(x),
}  # fmt: skip
REDUCE: dict[int, Any] = {Opcode.ACC_ADD: np.add, Opcode.ACC_MAX: np.maximum, Opcode.ACC_MIN: np.minimum}
"""Folding of acc operations along an axis that is not the lanes: numpy takes it element by element, in order."""


def result_type(opcode: int, dtype: int, dtype2: int) -> np.dtype[Any]:
    """numpy type of the result."""
    kind: np.dtype[Any] = NUMPY[DType(dtype2 if opcode in _COMPARE or opcode == Opcode.CAST else dtype)]
    return kind


def apply(opcode: int, dtype: int, dtype2: int, modular: int, a: Array, b: Array | None, out: Array) -> None:
    """out := opcode(a, b). `a` is of type `dtype`, `b` too (SELECT, MASK_BAR: of dtype2), `out` of `result_type`."""
    with np.errstate(all="ignore"):
        if b is None:
            _unary(opcode, dtype, dtype2, modular, a, out)
        else:
            _binary(opcode, dtype, modular, a, b, out)


def _binary(opcode: int, dtype: int, modular: int, a: Array, b: Array, out: Array) -> None:
    if opcode in _INTEGER:
        function = _INTEGER[Opcode(opcode)]
        if dtype in _FLOAT or modular:
            function(a, b, out=out)
        else:
            _saturate(function(a.astype(np.int64), b.astype(np.int64)), out)
    elif opcode in _COMPARE:
        out[...] = _COMPARE[opcode](a, b)
    elif opcode in _BITS:
        kind = _UNSIGNED[out.dtype.itemsize]
        _BITS[opcode](_bits(a, kind), _bits(b, kind), out=out.view(kind))
    elif opcode in (Opcode.SHL, Opcode.SHR):
        count = b & (8 * b.dtype.itemsize - 1)
        (np.left_shift if opcode == Opcode.SHL else np.right_shift)(a, count, out=out)
    elif opcode in (Opcode.SELECT, Opcode.MASK_BAR):
        taken = _bits(b, _UNSIGNED[b.dtype.itemsize]).astype(np.uint8) != 0
        out[...] = 0
        np.copyto(out, a, where=taken if opcode == Opcode.SELECT else ~taken)
    else:
        (np.maximum if opcode == Opcode.MAX else np.minimum)(a, b, out=out)


def _unary(opcode: int, dtype: int, dtype2: int, modular: int, a: Array, out: Array) -> None:
    if opcode in _DOUBLE:
        out[...] = _DOUBLE[opcode](a.astype(np.float64))
    elif opcode == Opcode.NEG:
        if dtype in _FLOAT or modular:
            np.negative(a, out=out)
        else:
            _saturate(-a.astype(np.int64), out)
    elif opcode == Opcode.CAST:
        _cast(dtype, dtype2, modular, a, out)
    elif opcode == Opcode.TANH:
        _saturate(np.rint(np.tanh(a.astype(np.float64) / TANH_PRE) / TANH_POST), out)
    else:
        out[...] = a


def _bits(a: Array, kind: np.dtype[Any]) -> Array:
    return a.view(kind) if a.strides[-1] == a.itemsize else np.ascontiguousarray(a).view(kind)


def _saturate(wide: Array, out: Array) -> None:
    limits, given = np.iinfo(out.dtype), np.iinfo(wide.dtype if wide.dtype.kind == "i" else np.int64)
    np.copyto(out, np.clip(wide, max(limits.min, given.min), min(limits.max, given.max)), casting="unsafe")


def _cast(dtype: int, dtype2: int, modular: int, a: Array, out: Array) -> None:
    if dtype2 == DType.F16:
        out[...] = a if modular or dtype == DType.F16 else np.clip(a, np.float32(-65504), np.float32(65504)) if dtype == DType.F32 else a
        if not modular and dtype == DType.I32:
            out[...] = np.clip(a, -65504, 65504)
    elif dtype2 == DType.F32:
        out[...] = a
    else:
        whole = a
        if dtype in _FLOAT:
            whole = np.nan_to_num(np.rint(a.astype(np.float64)), nan=0.0, posinf=2.0**62, neginf=-(2.0**62))
            whole = np.clip(whole, -(2.0**62), 2.0**62).astype(np.int64)
        if modular:
            np.copyto(out, whole, casting="unsafe")
        else:
            _saturate(whole, out)
