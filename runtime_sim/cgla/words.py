"""What the operations of a slot compute, on arrays of 64-bit words.

Every function takes and returns `uint64` arrays that broadcast against each other; an array element is one word pair w1:w0 of one
iteration. Meanings follow `docs/cgla-model.md` section 3: two 32-bit words side by side, fp32 with round to nearest even and kept
denormals, products rounded before sums, integers modulo 2^32. The bit fields of CVT53, SML8, MMRG, MH2BW, SUMHH, SUMHL, ROTS and the
shifts are those of the public C emulation of EMAX7; CVT86, SML16 and the X_ operations are defined by the model page.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

Words = NDArray[np.uint64]

LOW = np.uint64(0x00000000FFFFFFFF)
HIGH = np.uint64(0xFFFFFFFF00000000)


def _u(value: int) -> np.uint64:
    return np.uint64(value)


def parts(words: Words, dtype: str) -> NDArray[Any]:
    """The words as an array with one more axis: their lanes of `dtype`, lowest first."""
    flat = np.ascontiguousarray(words)
    return flat.reshape(*flat.shape, 1).view(dtype)


def join(lanes: NDArray[Any]) -> Words:
    """The inverse of `parts`: lanes on the last axis become words."""
    result: Words = np.ascontiguousarray(lanes).view(np.uint64)[..., 0]
    return result


def expand(words: Words, mode: int) -> Words:
    """Operand expansion: H3210, H1010, H3232, B5410, B7632 (codes 0..4)."""
    if mode == 0:
        return words
    if mode == 1:
        return (words << _u(32)) | (words & LOW)
    if mode == 2:
        return (words & HIGH) | (words >> _u(32))
    if mode == 3:
        return ((words << _u(8)) & _u(0x00FF000000FF0000)) | (words & _u(0x000000FF000000FF))
    return ((words >> _u(8)) & _u(0x00FF000000FF0000)) | ((words >> _u(16)) & _u(0x000000FF000000FF))


def mask_offset(words: Words, mode: int) -> Words:
    """Offset mask: D0, W0, W1, H0..H3, B0..B7 (codes 0..14), zero-extended."""
    if mode == 0:
        return words
    if mode <= 2:
        return (words >> _u(32 * (mode - 1))) & LOW
    if mode <= 6:
        return (words >> _u(16 * (mode - 3))) & _u(0xFFFF)
    return (words >> _u(8 * (mode - 7))) & _u(0xFF)


def _f32(words: Words) -> NDArray[np.float32]:
    return parts(words, "<f4")


def _u32(words: Words) -> NDArray[np.uint32]:
    return parts(words, "<u4")


def _float2(function: Callable[..., NDArray[np.float32]]) -> Callable[..., Words]:
    def apply(*operands: Words) -> Words:
        with np.errstate(all="ignore"):
            return join(function(*(_f32(operand) for operand in operands)).astype(np.float32, copy=False))

    return apply


def _int2(function: Callable[..., NDArray[np.uint32]]) -> Callable[..., Words]:
    def apply(*operands: Words) -> Words:
        return join(function(*(_u32(operand) for operand in operands)).astype(np.uint32, copy=False))

    return apply


def product(left: Words, right: Words) -> Words:
    """fp32 products, each rounded."""
    return _PRODUCT(left, right)


_PRODUCT = _float2(lambda a, b: a * b)
_TABLE = (np.arange(16, dtype=np.float32) - np.float32(8)).astype(np.float32)


def _fml3(a: Words, b: Words, c: Words) -> Words:
    shift = (_u32(c) & np.uint32(7)) * np.uint32(4)
    nibble = (_u32(b) >> shift) & np.uint32(15)
    with np.errstate(all="ignore"):
        return join((_f32(a) * _TABLE[nibble]).astype(np.float32, copy=False))


def _cmov(a: Words, b: Words, c: Words) -> Words:
    choose = (_u32(a) & np.uint32(1)).astype(bool)
    return join(np.where(choose, _u32(b), _u32(c)))


def _sml8(a: Words, b: Words) -> Words:
    left, right = parts(a, "i1").astype(np.int32), parts(b, "i1").astype(np.int32)
    prod = left * right
    return join(np.stack([prod[..., 0] + prod[..., 2], prod[..., 4] + prod[..., 6]], axis=-1).astype(np.int32))


def _sml16(a: Words, b: Words) -> Words:
    left, right = parts(a, "<i2").astype(np.int32), parts(b, "i1").astype(np.int32)
    low = left[..., 0] * right[..., 0] + left[..., 1] * right[..., 2]
    high = left[..., 2] * right[..., 4] + left[..., 3] * right[..., 6]
    return join(np.stack([low, high], axis=-1).astype(np.int32))


def _scale6(words: Words, mode: int) -> NDArray[np.int32]:
    word = _u32(words)
    high = (word >> np.uint32((mode & ~1) + 8)) & np.uint32(3)
    low = (word >> np.uint32(mode & ~3)) & np.uint32(15)
    return ((high << np.uint32(4)) | low).astype(np.int32)


def _quant3(bits: Words, quants: Words, mode: int) -> NDArray[np.int32]:
    high: NDArray[Any] = (parts(bits, "u1").astype(np.int32) >> mode) & 1
    low = (parts(quants, "u1").astype(np.int32) >> (2 * (mode & 3))) & 3
    result: NDArray[np.int32] = low - np.where(high == 1, 0, 4).astype(np.int32)
    return result


def cvt53(mode: int, a: Words, b: Words, c: Words) -> Words:
    """8 bytes = (5-bit scale of the word) * (3-bit quant of field `mode`), modulo 2^8."""
    scale = np.repeat((_scale6(a, mode) >> 1) - 16, 4, axis=-1)
    return join((scale * _quant3(b, c, mode)).astype(np.int8))


def cvt36(mode: int, a: Words, b: Words, c: Words) -> Words:
    """4 int16 = (6-bit scale - 32) * (3-bit quant of field `mode & 7`) of the bytes of word `mode >> 3`."""
    half = mode >> 3
    scale = _scale6(a, mode & 7)[..., half : half + 1] - 32
    return join((scale * _quant3(b, c, mode & 7)[..., 4 * half : 4 * half + 4]).astype(np.int16))


def cvt86(mode: int, a: Words, b: Words, c: Words) -> Words:
    """4 int16 = (int8 scale) * (6-bit quant - 32) of the bytes of word `mode >> 2`: two bits from field `mode & 3` of ex2, four from
    the low (fields 0, 1) or high nibble (fields 2, 3) of ex3; the scale is byte 0 of that word of ex1."""
    field, half = mode & 3, mode >> 2
    scale = parts(a, "i1")[..., 4 * half : 4 * half + 1].astype(np.int32)
    high = (parts(b, "u1").astype(np.int32) >> (2 * field)) & 3
    low = (parts(c, "u1").astype(np.int32) >> (4 * (field >> 1))) & 15
    quant = ((high << 4) | low) - 32
    return join((scale * quant[..., 4 * half : 4 * half + 4]).astype(np.int16))


def _fmi(a: Words, b: Words) -> Words:
    with np.errstate(all="ignore"):
        return join(_f32(a) * parts(b, "<i4").astype(np.float32))


def _mmrg(a: Words, b: Words, c: Words) -> Words:
    byte = _u(0x000000FF000000FF)
    merged: Words = ((a & byte) << _u(24)) | ((b & byte) << _u(16)) | ((c & byte) << _u(8))
    return merged


def _mh2bw(a: Words, b: Words) -> Words:
    left, right = (np.minimum(parts(x, "<u2"), 255).astype(np.uint8) for x in np.broadcast_arrays(a, b))
    order = (right[..., 0], right[..., 1], left[..., 0], left[..., 1], right[..., 2], right[..., 3], left[..., 2], left[..., 3])
    return join(np.stack(order, axis=-1))


def _bytewise(function: Callable[..., NDArray[np.uint8]]) -> Callable[..., Words]:
    return lambda a, b: join(function(*(parts(x, "u1") for x in np.broadcast_arrays(a, b))))


def h2f(mode: int, a: Words) -> Words:
    """Two halves (mode 0: low pair, 1: high pair) to two fp32, exact."""
    with np.errstate(all="ignore"):
        return join(parts(a, "<f2")[..., 2 * mode : 2 * mode + 2].astype(np.float32))


def _f2h(a: Words, b: Words) -> Words:
    left, right = np.broadcast_arrays(a, b)
    with np.errstate(all="ignore"):
        return join(np.concatenate([_f32(left), _f32(right)], axis=-1).astype(np.float16))


def _f2b(a: Words, b: Words) -> Words:
    left, right = np.broadcast_arrays(a, b)
    values = np.concatenate([_f32(left), _f32(right)], axis=-1)
    with np.errstate(all="ignore"):
        rounded = np.clip(np.nan_to_num(np.rint(values), nan=0.0, posinf=127.0, neginf=-128.0), -128, 127).astype(np.int8)
    return join(np.concatenate([rounded, rounded], axis=-1))


def cvt4(mode: int, a: Words) -> Words:
    """8 int8 = nibble (mode & 1) of each byte, minus 8 for modes 0 and 1."""
    nibble = (parts(a, "u1") >> np.uint8(4 * (mode & 1))) & np.uint8(15)
    return join((nibble.astype(np.int8) - np.int8(8 if mode < 2 else 0)).astype(np.int8))


OP1_FUNCTIONS: dict[str, Callable[..., Words]] = {
    "NOP": lambda a: a,
    "ADD": _int2(lambda a, b: a + b),
    "SUB": _int2(lambda a, b: a - b),
    "ADD3": _int2(lambda a, b, c: a + (b + c)),
    "SUB3": _int2(lambda a, b, c: a - (b + c)),
    "FMA": _float2(lambda a, b, c: a + b * c),
    "FMS": _float2(lambda a, b, c: a + (-b) * c),
    "FML": _PRODUCT,
    "FAD": _float2(lambda a, b: a + b),
    "FML3": _fml3,
    "CMP_EQ": _int2(lambda a, b: a == b),
    "CMP_NE": _int2(lambda a, b: a != b),
    "CMP_LT": _int2(lambda a, b: a < b),
    "CMP_LE": _int2(lambda a, b: a <= b),
    "CMP_GT": _int2(lambda a, b: a > b),
    "CMP_GE": _int2(lambda a, b: a >= b),
    "CMOV": _cmov,
    "SML8": _sml8,
    "SML16": _sml16,
    "FMI": _fmi,
    "MMRG": _mmrg,
    "MMAX": _bytewise(np.maximum),
    "MMIN": _bytewise(np.minimum),
    "MH2BW": _mh2bw,
    "X_F2H": _f2h,
    "X_FMAX": _float2(np.maximum),
    "X_FMIN": _float2(np.minimum),
    "X_F2B": _f2b,
}
OP1_MODED: dict[str, Callable[..., Words]] = {"CVT53": cvt53, "CVT86": cvt86, "X_H2F": h2f, "X_CVT36": cvt36, "X_CVT4": cvt4}


def op1(name: str, mode: int, operands: tuple[Words, ...]) -> Words:
    """Result of op1 on expanded operands."""
    if name in OP1_MODED:
        return OP1_MODED[name](mode, *operands)
    return OP1_FUNCTIONS[name](*operands)


def _sum_halves(words: Words, position: int) -> Words:
    half = parts(words, "<u2").astype(np.uint32)
    sums = np.minimum(half[..., 0::2] + half[..., 1::2], 0xFFFF).astype(np.uint16)
    zero = np.zeros_like(sums)
    lanes = np.stack([zero, sums] if position else [sums, zero], axis=-1)
    return join(lanes.reshape(*lanes.shape[:-2], 4))


def _rots(words: Words, amounts: Words) -> Words:
    value, by = _u32(words), parts(amounts, "u1").astype(np.uint32)
    result: NDArray[Any] | None = None
    for index in range(3):
        shift = np.stack([by[..., index], by[..., 4 + index]], axis=-1) & np.uint32(31)
        turned = (value >> shift) | (value << ((np.uint32(32) - shift) & np.uint32(31)))
        result = turned if result is None else result ^ turned
    assert result is not None
    return join(result)


def op2(name: str, words: Words, operand: Words | None) -> Words:
    """Result of op2 on the result of op1 and src4."""
    if name == "NOP":
        return words
    if name == "SUMHH":
        return _sum_halves(words, 1)
    if name == "SUMHL":
        return _sum_halves(words, 0)
    assert operand is not None
    if name == "AND":
        return words & operand
    if name == "OR":
        return words | operand
    if name == "XOR":
        return words ^ operand
    if name == "AD32":
        return OP1_FUNCTIONS["ADD"](words, operand)
    return _rots(words, operand)


def op3(name: str, words: Words, amount: Words) -> Words:
    """Result of op3: shifts by the low six bits of src5."""
    if name == "NOP":
        return words
    by = (np.asarray(amount, dtype=np.uint64) & _u(63))[..., None]
    if name in ("SLL", "SRL"):
        wide = _u32(words).astype(np.uint64)
        moved = (wide << by) if name == "SLL" else (wide >> by)
        return join((moved & LOW).astype(np.uint32))
    if name == "SRLM":
        return join((parts(words, "<u2").astype(np.uint64) >> by).astype(np.uint16))
    signed = parts(words, "<i4").astype(np.int64)
    if name == "SRAB":
        signed = (signed << np.int64(40)) >> np.int64(40)
    return join((signed >> by.astype(np.int64)).astype(np.int32))
