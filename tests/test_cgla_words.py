"""Slot operations against their definitions on single words."""

from __future__ import annotations

import struct

import numpy as np
import pytest

from spatialc.runtime_sim.cgla import words as w


def one(value: int) -> w.Words:
    return np.array([value], dtype=np.uint64)


def floats(low: float, high: float) -> w.Words:
    return one(struct.unpack("<Q", struct.pack("<ff", low, high))[0])


def as_floats(words: w.Words) -> tuple[float, float]:
    low, high = struct.unpack("<ff", struct.pack("<Q", int(words[0])))
    return low, high


def ints(low: int, high: int) -> w.Words:
    return one(struct.unpack("<Q", struct.pack("<ii", low, high))[0])


def as_ints(words: w.Words) -> tuple[int, int]:
    low, high = struct.unpack("<ii", struct.pack("<Q", int(words[0])))
    return low, high


def packed(*values: int) -> w.Words:
    return one(int.from_bytes(bytes(v & 0xFF for v in values), "little"))


def halves(*values: float) -> w.Words:
    return np.array(values, dtype=np.float16).view(np.uint64)


def test_expand() -> None:
    word = one(0x7766554433221100)
    assert [int(w.expand(word, mode)[0]) for mode in range(5)] == [
        0x7766554433221100, 0x3322110033221100, 0x7766554477665544, 0x0055004400110000, 0x0077006600330022,
    ]  # fmt: skip


def test_masks() -> None:
    word = one(0x7766554433221100)
    expected = [0x7766554433221100, 0x33221100, 0x77665544, 0x1100, 0x3322, 0x5544, 0x7766] + [0x11 * i for i in range(8)]
    assert [int(w.mask_offset(word, mode)[0]) for mode in range(15)] == expected


def test_fma_rounds_twice() -> None:
    third = np.float32(1 / 3)
    result = as_floats(w.op1("FMA", 0, (floats(-1 / 9, 1), floats(1 / 3, 2), floats(1 / 3, 3))))
    assert result == (float(np.float32(-1 / 9) + np.float32(third * third)), 7.0)
    exact = float(third) * float(third) + float(np.float32(-1 / 9))
    assert result[0] != np.float32(exact)


def test_float_ops() -> None:
    a, b, c = floats(1, 2), floats(3, 4), floats(5, 6)
    assert as_floats(w.op1("FMS", 0, (a, b, c))) == (-14.0, -22.0)
    assert as_floats(w.op1("FML", 0, (a, b))) == (3.0, 8.0)
    assert as_floats(w.op1("FAD", 0, (a, b))) == (4.0, 6.0)
    assert as_floats(w.op1("FMI", 0, (b, ints(-7, 3)))) == (-21.0, 12.0)
    assert as_floats(w.op1("FML3", 0, (a, one(0x000000F900000080), one(0x0000000100000001)))) == (0.0, 14.0)
    assert as_floats(w.op1("X_FMAX", 0, (floats(-3, 1), floats(-2, 0)))) == (-2.0, 1.0)
    assert np.isnan(as_floats(w.op1("X_FMAX", 0, (floats(float("nan"), 1), floats(-2, 0))))[0])


def test_denormals_are_kept() -> None:
    assert as_floats(w.op1("FML", 0, (floats(1e-30, 0), floats(1e-12, 0))))[0] == float(np.float32(1e-30) * np.float32(1e-12)) != 0


def test_integer_ops_wrap() -> None:
    assert as_ints(w.op1("ADD", 0, (ints(2**31 - 1, 5), ints(1, -7)))) == (-(2**31), -2)
    assert as_ints(w.op1("SUB3", 0, (ints(10, 0), ints(3, 1), ints(4, 2)))) == (3, -3)
    assert as_ints(w.op1("CMP_LT", 0, (ints(1, -1), ints(2, 1)))) == (1, 0)
    assert as_ints(w.op1("CMOV", 0, (ints(1, 2), ints(10, 20), ints(30, 40)))) == (10, 40)


def test_sml8_chain_of_q8_0() -> None:
    total = ints(0, 0)
    for _ in range(8):
        total = w.op2("AD32", w.op1("SML8", 0, (w.expand(packed(*[-127] * 8), 3), w.expand(packed(*[127] * 8), 3))), total)
        total = w.op2("AD32", w.op1("SML8", 0, (w.expand(packed(*[-127] * 8), 4), w.expand(packed(*[127] * 8), 4))), total)
    assert as_ints(total) == (-516128, -516128)


def test_sml16() -> None:
    left = np.array([1000, -2000, 3, 4], dtype=np.int16).view(np.uint64)
    assert as_ints(w.op1("SML16", 0, (left, packed(5, 99, -6, 99, 7, 99, 8, 99)))) == (17000, 53)


def test_halves() -> None:
    word = halves(1.5, -2.0, 65504.0, 6e-8)
    assert as_floats(w.op1("X_H2F", 0, (word,))) == (1.5, -2.0)
    assert as_floats(w.op1("X_H2F", 1, (word,))) == (65504.0, float(np.float16(6e-8)))
    back = w.op1("X_F2H", 0, (floats(1.5, -2.0), floats(1e9, 1 + 2**-11)))
    np.testing.assert_array_equal(back.view(np.float16), np.array([1.5, -2.0, np.inf, 1.0], dtype=np.float16))


def test_bytes() -> None:
    word = w.op1("X_F2B", 0, (floats(2.5, -3.5), floats(300, -300)))
    assert list(word.view(np.int8)) == [2, -4, 127, -128] * 2
    assert list(w.op1("X_CVT4", 0, (packed(*[0xF0] * 8),)).view(np.int8)) == [-8] * 8
    assert list(w.op1("X_CVT4", 3, (packed(*[0xF0] * 8),)).view(np.int8)) == [15] * 8


@pytest.mark.parametrize("mode", range(8))
def test_q3_fields(mode: int) -> None:
    rng = np.random.default_rng(mode)
    scale, high, low = (rng.integers(0, 2**63, 1, dtype=np.int64).view(np.uint64) for _ in range(3))
    got5 = w.op1("CVT53", mode, (scale, high, low)).view(np.int8)
    for word in (0, 1):
        bits = int(scale[0]) >> (32 * word) & 0xFFFFFFFF
        six = ((bits >> ((mode & ~1) + 8)) & 3) << 4 | (bits >> (mode & ~3)) & 15
        quants = []
        for byte in range(4 * word, 4 * word + 4):
            q = (int(low[0]) >> (8 * byte) & 0xFF) >> (2 * (mode & 3)) & 3
            quants.append(q - (0 if int(high[0]) >> (8 * byte + mode) & 1 else 4))
        assert list(got5[4 * word : 4 * word + 4]) == [((six >> 1) - 16) * q for q in quants]
        got6 = w.op1("X_CVT36", mode | word << 3, (scale, high, low)).view(np.int16)
        assert list(got6) == [(six - 32) * q for q in quants]


@pytest.mark.parametrize("field", range(4))
def test_q6_fields(field: int) -> None:
    scale, high, low = packed(-100, 0, 0, 0, 57, 0, 0, 0), packed(*range(16, 24)), packed(*range(200, 208))
    for half in (0, 1):
        got = w.op1("CVT86", field | half << 2, (scale, high, low)).view(np.int16)
        for i in range(4):
            byte = 4 * half + i
            quant = ((16 + byte) >> (2 * field) & 3) << 4 | (200 + byte) >> (4 * (field >> 1)) & 15
            assert got[i] == (57 if half else -100) * (quant - 32)


def test_logic_and_shifts() -> None:
    word = one(0x80000001F0000003)
    assert int(w.op3("SLL", word, one(4))[0]) == 0x0000001000000030
    assert int(w.op3("SRL", word, one(4))[0]) == 0x080000000F000000
    assert int(w.op3("SRAA", word, one(4))[0]) == 0xF8000000FF000000
    assert int(w.op3("SRAB", one(0x0080000000400000), one(4))[0]) == 0xFFF8000000040000
    assert int(w.op3("SRLM", word, one(4))[0]) == 0x080000000F000000
    assert int(w.op3("SRL", word, one(40))[0]) == 0
    assert int(w.op2("XOR", word, one(1))[0]) == 0x80000001F0000002
    assert int(w.op2("SUMHH", one(0xFFFF000200030004), None)[0]) == 0xFFFF000000070000
    assert int(w.op2("SUMHL", one(0xFFFF000200030004), None)[0]) == 0x0000FFFF00000007
    rotated = int(w.op2("ROTS", one(0x0000000180000000), one(0x0003020100030201))[0])
    low = 0x80000000 >> 1 ^ 0x80000000 >> 2 ^ 0x80000000 >> 3
    high = 1 << 31 ^ 1 << 30 ^ 1 << 29
    assert rotated == high << 32 | low


def test_media() -> None:
    a, b, c = packed(1, 9, 9, 9, 2, 9, 9, 9), packed(3, 9, 9, 9, 4, 9, 9, 9), packed(5, 9, 9, 9, 6, 9, 9, 9)
    assert list(w.op1("MMRG", 0, (a, b, c)).view(np.uint8)) == [0, 5, 3, 1, 0, 6, 4, 2]
    assert list(w.op1("MMAX", 0, (packed(1, 200), packed(2, 100))).view(np.uint8))[:2] == [2, 200]
    wide = np.array([300, 7, 8, 9], dtype=np.uint16).view(np.uint64)
    other = np.array([1, 2, 3, 4], dtype=np.uint16).view(np.uint64)
    assert list(w.op1("MH2BW", 0, (wide, other)).view(np.uint8)) == [1, 2, 255, 7, 3, 4, 8, 9]
