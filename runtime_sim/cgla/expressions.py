"""Scalar expressions of host loop nests, evaluated on numpy arrays.

An expression is a list of entries in order of use; each rounds to its dtype. f16 and bf16 values are held as f32 arrays that were
rounded, so a sum of two halves rounds once, as on a machine that computes in f32 and stores halves. Semantics are IEEE: `min` and `max`
propagate NaN, comparisons with NaN are false except `ne`, float to int truncates and saturates with NaN as 0.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]

NUMPY_DTYPE: dict[str, str] = {
    "f32": "float32", "f16": "float32", "bf16": "float32", "f64": "float64", "i64": "int64", "i32": "int32", "i16": "int16", "i8": "int8",
    "u8": "uint8", "bool": "bool",
}  # fmt: skip
FLOATS = frozenset({"f32", "f16", "bf16", "f64"})


@dataclass(frozen=True)
class Entry:
    """One entry: its op, dtype name, operand entries (or leaf number in `a`) and constant."""

    op: str
    dtype: str
    a: int
    b: int
    c: int
    constant: float | int


def round_bf16(values: Array) -> Array:
    """f32 values rounded to bf16 (nearest even), as f32."""
    bits = np.ascontiguousarray(values, dtype=np.float32).view(np.uint32)
    rounded = ((bits + np.uint32(0x7FFF) + ((bits >> np.uint32(16)) & np.uint32(1))) & np.uint32(0xFFFF0000)).view(np.float32)
    return np.where(np.isnan(values), values, rounded).astype(np.float32, copy=False)


def settle(values: Array, dtype: str) -> Array:
    """Round computed values to a dtype name (see module text)."""
    if dtype == "f16":
        with np.errstate(all="ignore"):
            return np.asarray(values).astype(np.float16).astype(np.float32)
    if dtype == "bf16":
        return round_bf16(np.asarray(values))
    return np.asarray(values).astype(NUMPY_DTYPE[dtype], copy=False)


def cast(values: Array, dtype: str) -> Array:
    """Cast with the IR's rules: float to int truncates and saturates, NaN is 0; int to int wraps; float to bool is `!= 0`."""
    if dtype == "bool":
        return np.not_equal(values, 0)
    if values.dtype.kind == "f" and dtype not in FLOATS:
        info = np.iinfo(NUMPY_DTYPE[dtype])
        wide = np.nan_to_num(np.trunc(values.astype(np.float64)), nan=0.0, posinf=np.inf, neginf=-np.inf)
        high = np.nextafter(np.float64(info.max) + 1.0, 0.0)
        clipped = np.clip(wide, float(info.min), high).astype(NUMPY_DTYPE[dtype])
        return np.where(wide >= high, _limit(info.max, dtype), clipped)
    return settle(values, dtype)


def _limit(value: int, dtype: str) -> Array:
    """A limit of an integer dtype as a scalar array of it."""
    return np.array(value, dtype=NUMPY_DTYPE[dtype])


def _erf(a: Array) -> Array:
    from .erf import erf  # numba is imported only where a program needs it

    return erf(a.astype(np.float64))


def _sign(a: Array) -> Array:
    return np.sign(a)


_UNARY: dict[str, Callable[[Array], Array]] = {
    "neg": np.negative, "abs": np.abs, "exp": np.exp, "exp2": np.exp2, "expm1": np.expm1, "log": np.log, "log1p": np.log1p,
    "sqrt": np.sqrt, "rsqrt": lambda a: 1 / np.sqrt(a), "recip": lambda a: 1 / a, "sin": np.sin, "cos": np.cos, "tanh": np.tanh,
    "erf": _erf, "acos": np.arccos, "floor": np.floor, "ceil": np.ceil, "trunc": np.trunc,
    "round": np.rint, "sign": _sign, "not": np.invert, "isnan": np.isnan, "isinf": np.isinf,
}  # fmt: skip
_BINARY: dict[str, Callable[[Array, Array], Array]] = {
    "add": np.add, "sub": np.subtract, "mul": np.multiply, "div": np.divide, "min": np.minimum, "max": np.maximum,
    "idiv": np.floor_divide, "mod": np.mod, "fmod": np.fmod, "shl": np.left_shift, "shr": np.right_shift, "and": np.bitwise_and,
    "or": np.bitwise_or, "xor": np.bitwise_xor, "pow": np.power, "atan2": np.arctan2, "eq": np.equal, "ne": np.not_equal, "lt": np.less,
    "le": np.less_equal, "gt": np.greater, "ge": np.greater_equal,
}  # fmt: skip


def evaluate(entries: Sequence[Entry], arguments: Sequence[Array], axes: Sequence[Array]) -> Array:
    """The root (last entry) over broadcasting `arguments` (by operand number) and `axes` (int64 index arrays)."""
    uses = [0] * len(entries)
    for entry in entries:
        if entry.op not in ("arg", "axis", "const"):
            for source in (entry.a, entry.b, entry.c):
                if source >= 0:
                    uses[source] += 1
    values: list[Array | None] = []
    with np.errstate(all="ignore"):
        for entry in entries:
            values.append(_entry(entry, values, arguments, axes))
            if entry.op in ("arg", "axis", "const"):
                continue
            for source in (entry.a, entry.b, entry.c):
                if source >= 0:
                    uses[source] -= 1
                    if not uses[source]:
                        values[source] = None
    root = values[-1]
    assert root is not None
    return root


def _entry(entry: Entry, values: Sequence[Array | None], arguments: Sequence[Array], axes: Sequence[Array]) -> Array:
    if entry.op == "arg":
        return arguments[entry.a]
    if entry.op == "axis":
        return axes[entry.a]
    if entry.op == "const":
        return settle(np.array(entry.constant), entry.dtype)
    first = values[entry.a]
    assert first is not None
    if entry.op == "cast":
        return cast(first, entry.dtype)
    if entry.op in _UNARY:
        return settle(_UNARY[entry.op](first), entry.dtype)
    second = values[entry.b]
    assert second is not None
    if entry.op in _BINARY:
        return settle(_BINARY[entry.op](first, second), entry.dtype)
    third = values[entry.c]
    assert third is not None
    if entry.op == "select":
        return settle(np.where(first, second, third), entry.dtype)
    return settle(first * second + third, entry.dtype)
