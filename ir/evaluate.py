"""Scalar expressions over numpy arrays: one row of a table per operator, every entry rounded to its own type.

f16 and bf16 are computed in f32 and rounded entry by entry, so an evaluated expression rounds where a machine of that format would.
bf16 values are float32 arrays whose low 16 bits are zero.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any

import numpy as np

from .expr import Expr, postorder
from .types import BF16, BOOL, F16, F32, DType

Array = np.ndarray[Any, Any]


def round_to(values: Array, dtype: DType) -> Array:
    """Float values rounded to `dtype` (nearest, ties to even) and held in `dtype.array`."""
    if dtype is BF16:
        return round_bf16(values)
    return values.astype(dtype.array, copy=False)


def round_bf16(values: Array) -> Array:
    """Rounded to 8 significant bits, held as float32; infinities and NaN stay."""
    single = np.asarray(values, dtype=np.float32, order="C")
    bits = single.view(np.uint32)
    rounded = (bits + (np.uint32(0x7FFF) + ((bits >> np.uint32(16)) & np.uint32(1)))) & np.uint32(0xFFFF0000)
    return np.where(np.isnan(single), np.float32(np.nan), rounded.view(np.float32))


_ERF_STEP = 1024  # table points a unit
_ERF_END = 6.0  # erf(6) is 1 in double precision


@lru_cache(maxsize=1)
def _erf_table() -> tuple[Array, Array]:
    points = [i / _ERF_STEP for i in range(int(_ERF_END) * _ERF_STEP + 2)]
    value = np.array([math.erf(x) for x in points])
    slope = np.array([2.0 / math.sqrt(math.pi) * math.exp(-x * x) / _ERF_STEP for x in points])
    return value, slope


def erf(values: Array) -> Array:
    """erf in double precision by cubic Hermite interpolation on exact values and slopes; the error is below 2e-14."""
    wide = np.asarray(values, dtype=np.float64)
    value, slope = _erf_table()
    position = np.minimum(np.abs(wide), _ERF_END) * _ERF_STEP
    position = np.where(np.isnan(position), 0.0, position)
    cell = position.astype(np.intp)
    t = position - cell
    left, right = value[cell], value[cell + 1]
    s0, s1 = slope[cell], slope[cell + 1]
    rise = right - left
    result = left + t * (s0 + t * ((3.0 * rise - 2.0 * s0 - s1) + t * (s0 + s1 - 2.0 * rise)))
    return np.where(np.isnan(wide), np.nan, np.copysign(result, wide))


def _fma(a: Array, b: Array, c: Array) -> Array:
    wide = a.astype(np.float64) * b  # exact for products of two f32
    return (wide + c).astype(a.dtype)


def _one(dtype: np.dtype[Any]) -> Any:
    return dtype.type(1)


OPERATORS: dict[str, Callable[..., Any]] = {
    "add": np.add, "sub": np.subtract, "mul": np.multiply, "div": np.true_divide, "min": np.minimum, "max": np.maximum,
    "neg": np.negative, "abs": np.abs, "sign": np.sign, "fma": _fma, "pow": np.power, "atan2": np.arctan2, "fmod": np.fmod,
    "idiv": np.floor_divide, "mod": np.mod, "shl": np.left_shift, "shr": np.right_shift,
    "and": np.bitwise_and, "or": np.bitwise_or, "xor": np.bitwise_xor, "not": np.invert,
    "exp": np.exp, "exp2": np.exp2, "expm1": np.expm1, "log": np.log, "log1p": np.log1p, "sqrt": np.sqrt,
    "rsqrt": lambda x: _one(x.dtype) / np.sqrt(x), "recip": lambda x: _one(x.dtype) / x,
    "sin": np.sin, "cos": np.cos, "tanh": np.tanh, "erf": lambda x: erf(x).astype(x.dtype), "acos": np.arccos,
    "floor": np.floor, "ceil": np.ceil, "trunc": np.trunc, "round": np.rint, "isnan": np.isnan, "isinf": np.isinf,
    "eq": np.equal, "ne": np.not_equal, "lt": np.less, "le": np.less_equal, "gt": np.greater, "ge": np.greater_equal,
    "select": np.where,
}  # fmt: skip


def work_type(dtype: DType) -> np.dtype[Any]:
    """The numpy type in which entries of `dtype` are computed: float32 for the half formats."""
    return np.dtype(np.float32) if dtype in (F16, BF16) else dtype.array


def convert(values: Array, source: DType, target: DType) -> Array:
    """A cast by the rules of the IR; half formats come and go as rounded float32 (`work_type`)."""
    if target is BOOL:
        return np.asarray(values != 0)
    if target.is_float:
        if target is F16:
            with np.errstate(over="ignore"):
                return values.astype(np.float16).astype(np.float32)
        return round_bf16(values) if target is BF16 else values.astype(target.array, copy=False)
    if source.is_float:
        return _saturate(values, target)
    return values.astype(target.array, copy=False)


def _saturate(values: Array, target: DType) -> Array:
    """float to int: truncated, saturated, NaN gives 0."""
    bottom, top = target.limits
    wide = np.trunc(values.astype(np.float64))
    wide = np.where(np.isnan(wide), 0.0, wide)
    low, high = wide <= float(bottom), wide >= float(top)
    middle = np.where(low | high, 0.0, wide).astype(target.array)
    return np.where(low, bottom, np.where(high, top, middle)).astype(target.array)


def evaluate(root: Expr, args: Sequence[Array], axes: Sequence[int], start: Sequence[int] | None = None) -> Array:
    """The value of `root` at every point of a nest of extents `axes`.

    `args[i]` is operand i seen from the nest (rank `len(axes)`, extent 1 where it does not vary), `start` the position of the first
    point on each axis. The result broadcasts to `axes` and is held in the storage type of `root.dtype`.
    """
    order = postorder(root)
    last_use = {id(a): position for position, entry in enumerate(order) for a in entry.args}
    values: dict[int, Array] = {}
    with np.errstate(all="ignore"):
        for position, entry in enumerate(order):
            values[id(entry)] = _entry(entry, values, args, axes, start)
            for a in entry.args:
                if last_use[id(a)] == position:
                    values.pop(id(a), None)
        return round_to(values[id(root)], root.dtype) if root.dtype in (F16,) else values[id(root)]


def _entry(entry: Expr, values: dict[int, Array], args: Sequence[Array], axes: Sequence[int], start: Sequence[int] | None) -> Array:
    if entry.op == "arg":
        return args[entry.index].astype(work_type(entry.dtype), copy=False)
    if entry.op == "axis":
        shape = [1] * len(axes)
        shape[entry.index] = axes[entry.index]
        first = start[entry.index] if start else 0
        return np.arange(first, first + axes[entry.index], dtype=np.int64).reshape(shape)
    if entry.op == "const":
        shape = [1] * len(axes)
        exact = np.full(shape, entry.value, dtype=np.float64 if entry.dtype.is_float else entry.dtype.array)
        return convert(exact, F32, entry.dtype) if entry.dtype.is_float else exact
    operands = [values[id(a)] for a in entry.args]
    if entry.op == "cast":
        return convert(operands[0], entry.args[0].dtype, entry.dtype)
    value = np.asarray(OPERATORS[entry.op](*operands))
    if entry.dtype is F16:
        return value.astype(np.float16).astype(np.float32)
    if entry.dtype is BF16:
        return round_bf16(value)
    return value
