"""The TSP instruction set as data: opcodes, number formats, queues, the ALU grid.

One `Op` row per opcode says which queue class runs it and what its operands are; emitter, executor and listing read the same table.
Facts and rule ids: docs/tsp-model.md sections 2 to 7.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from typing import Any

import numpy as np

WEST, EAST = 0, 1
"""Hemispheres; the same numbers name directions of travel: W = 0 (westward), E = 1 (eastward)."""
W, E = 0, 1


class DType(IntEnum):
    """Number formats on streams; `NONE` is a byte without a declared format (moved by MEM and SXM)."""

    NONE = 0
    I8 = 1
    I16 = 2
    I32 = 3
    F16 = 4
    F32 = 5


WIDTH = {DType.NONE: 1, DType.I8: 1, DType.I16: 2, DType.I32: 4, DType.F16: 2, DType.F32: 4}
"""Bytes of one element = streams of one operand (VX-4)."""
NUMPY: dict[DType, np.dtype[Any]] = {
    DType.NONE: np.dtype("u1"), DType.I8: np.dtype("i1"), DType.I16: np.dtype("<i2"),
    DType.I32: np.dtype("<i4"), DType.F16: np.dtype("<f2"), DType.F32: np.dtype("<f4"),
}  # fmt: skip


class Class(IntEnum):
    """Classes of queues (IC-1)."""

    MEM = 0
    VXM = 1
    MXM_W = 2
    MXM_A = 3
    MXM_R = 4
    DISTRIBUTOR = 5
    TRANSPOSER = 6
    PERMUTOR = 7
    SHIFTER = 8
    RESERVED = 9
    C2C = 10


class Opcode(IntEnum):
    """Opcodes. Numbers are part of the file format."""

    READ = 1
    WRITE = 2
    GATHER = 3
    SCATTER = 4

    LW = 10
    IW = 11
    ABC = 12
    ACC = 13

    ADD = 20
    SUB = 21
    MUL = 22
    NEG = 23
    AND = 24
    OR = 25
    XOR = 26
    SHL = 27
    SHR = 28
    IDENTITY = 29
    SELECT = 30
    ACC_ADD = 31

    MAX = 40
    MIN = 41
    EQ = 42
    NE = 43
    GT = 44
    GE = 45
    LT = 46
    LE = 47
    CAST = 48
    EXP2 = 49
    LOG2 = 50
    RSQRT = 51
    TANH = 52
    ACC_MAX = 53
    ACC_MIN = 54
    MASK_BAR = 55

    TRANSPOSE = 60
    DISTRIBUTE = 61
    PERMUTE = 62
    SHIFT = 63
    BROADCAST = 64

    SEND = 70
    RECEIVE = 71


@dataclass(frozen=True)
class Op:
    """What one opcode needs. `inputs` counts stream operands a, b; `fields` are the burst columns it uses beyond the common ones."""

    opcode: Opcode
    queues: tuple[Class, ...]
    inputs: int
    fields: tuple[str, ...] = ()
    dtypes: tuple[DType, ...] = ()
    large: bool = False
    doc: str = ""


_ANY = (DType.I8, DType.I16, DType.I32, DType.F16, DType.F32)
_INT = (DType.I8, DType.I16, DType.I32)
_MEM, _VXM = (Class.MEM,), (Class.VXM,)
_ADDRESS = ("object", "row", "stride", "stride2")
_ALU = ("a_stream", "a_dir", "dtype")
_ENTRY = ("entry", "entry_stride", "entry_stride2", "add", "store", "emit")
_MAP = ("a_stream", "a_dir", "m_stream", "m_dir")
_ALU2 = (*_ALU, "b_stream", "b_dir")

OPS: dict[Opcode, Op] = {
    op.opcode: op
    for op in (
        Op(Opcode.READ, _MEM, 0, _ADDRESS, doc="row -> stream, driven at t + mem_read"),
        Op(Opcode.WRITE, _MEM, 1, (*_ADDRESS, "a_stream", "a_dir"), doc="stream -> row, visible at t + 1"),
        Op(Opcode.GATHER, _MEM, 0, ("object", "m_stream", "m_dir"), doc="row named by the map of each superlane -> stream"),
        Op(Opcode.SCATTER, _MEM, 1, ("object", "a_stream", "a_dir", "m_stream", "m_dir"), doc="stream -> rows named by the map"),
        Op(Opcode.LW, (Class.MXM_W,), 1, ("a_stream", "a_dir", "row0"), doc="16 streams -> buffer rows row0 + 16 k + j"),
        Op(Opcode.IW, (Class.MXM_W,), 0, doc="buffer -> array"),
        Op(Opcode.ABC, (Class.MXM_A,), 1, ("a_stream", "a_dir", "dtype", "half"), (DType.I8, DType.F16), doc="activations into the array"),
        Op(Opcode.ACC, (Class.MXM_R,), 0, _ENTRY, doc="products into accumulator entries, and out"),
        *(Op(code, _VXM, 2, (*_ALU2, "modular"), _ANY, doc=doc) for code, doc in
          ((Opcode.ADD, "a + b"), (Opcode.SUB, "a - b"), (Opcode.MUL, "a * b"))),
        Op(Opcode.NEG, _VXM, 1, (*_ALU, "modular"), _ANY, doc="-a"),
        *(Op(code, _VXM, 2, _ALU2, _ANY, doc=doc) for code, doc in
          ((Opcode.AND, "bits of a and b"), (Opcode.OR, "bits of a or b"), (Opcode.XOR, "bits of a xor b"))),
        Op(Opcode.SHL, _VXM, 2, _ALU2, _INT, doc="a << b, b in 0..bits-1"),
        Op(Opcode.SHR, _VXM, 2, _ALU2, _INT, doc="a >> b arithmetic, b in 0..bits-1"),
        Op(Opcode.IDENTITY, _VXM, 1, _ALU, _ANY, doc="a"),
        Op(Opcode.SELECT, _VXM, 2, (*_ALU2, "dtype2"), _ANY, doc="a where the low byte of b (of type dtype2) is not 0, else 0"),
        Op(Opcode.ACC_ADD, _VXM, 1, (*_ALU, "first", "last"), _ANY, doc="state + a"),
        *(Op(code, _VXM, 2, _ALU2, _ANY, True, doc) for code, doc in ((Opcode.MAX, "larger of a, b"), (Opcode.MIN, "smaller of a, b"))),
        *(Op(code, _VXM, 2, (*_ALU2, "dtype2"), _ANY, True, f"a {sign} b: 1 or 0 of integer type dtype2") for code, sign in
          ((Opcode.EQ, "=="), (Opcode.NE, "!="), (Opcode.GT, ">"), (Opcode.GE, ">="), (Opcode.LT, "<"), (Opcode.LE, "<="))),
        Op(Opcode.CAST, _VXM, 1, (*_ALU, "dtype2", "modular"), _ANY, True,
           "a as dtype2: nearest even, saturating; modular: integers wrap, fp16 overflows to infinity"),
        *(Op(code, _VXM, 1, _ALU, (DType.F32,), True, doc) for code, doc in
          ((Opcode.EXP2, "2 ** a"), (Opcode.LOG2, "log2(a)"), (Opcode.RSQRT, "1 / sqrt(a)"))),
        Op(Opcode.TANH, _VXM, 1, _ALU, (DType.I16,), True, "tanh, int16 fixed point: pre-scale 5461.17, post-scale 3.05185e-5"),
        Op(Opcode.ACC_MAX, _VXM, 1, (*_ALU, "first", "last"), _ANY, True, "max(state, a)"),
        Op(Opcode.ACC_MIN, _VXM, 1, (*_ALU, "first", "last"), _ANY, True, "min(state, a)"),
        Op(Opcode.MASK_BAR, _VXM, 2, (*_ALU2, "dtype2"), _ANY, True, "a where the low byte of b (of type dtype2) is 0, else 0"),
        Op(Opcode.TRANSPOSE, (Class.TRANSPOSER,), 1, ("a_stream", "a_dir", "null"), doc="16 x 16 bytes of each superlane, or copy"),
        Op(Opcode.DISTRIBUTE, (Class.DISTRIBUTOR,), 1, (*_MAP, "bypass", "lowest"), doc="lane picked by the map inside each superlane"),
        Op(Opcode.PERMUTE, (Class.PERMUTOR,), 1, _MAP, doc="lane l takes lane map[l]; map on streams m, m + 1"),
        Op(Opcode.SHIFT, (Class.SHIFTER,), 1, ("a_stream", "a_dir", "amount"), doc="lane l takes lane l - amount, zeros enter"),
        Op(Opcode.BROADCAST, (Class.SHIFTER,), 1, ("a_stream", "a_dir"), doc="every lane takes lane 0"),
        Op(Opcode.SEND, (Class.C2C,), 1, ("a_stream", "a_dir", "link"), doc="stream -> link"),
        Op(Opcode.RECEIVE, (Class.C2C,), 0, ("link",), doc="link -> stream, driven in the cycle of the Receive"),
    )
}  # fmt: skip

ACC_OPS = frozenset({Opcode.ACC_ADD, Opcode.ACC_MAX, Opcode.ACC_MIN})
COMPARES = frozenset({Opcode.EQ, Opcode.NE, Opcode.GT, Opcode.GE, Opcode.LT, Opcode.LE})
LARGE_ALUS = frozenset({0, 2, 5, 7, 8, 10, 13, 15})
ROW_REACH = ((0, 1, 2, 3), (2, 3, 4, 5), (4, 5, 6, 7), (6, 7, 0, 1))
"""SG4 numbers that the ALUs of each row may read and write, either direction (GAPI vxm.png)."""

HALF_LOW, HALF_HIGH, HALF_BOTH = 0, 1, 2
"""Lanes an fp16 ABC burst multiplies: 0..159, 160..319, or all 320 at half the rate (MX-7)."""

MEM_QUEUES = 88
VXM_BASE = 88
MXM_BASE = 104
SXM_BASE = 116
SXM_QUEUES = 14
QUEUES = 144
_SXM_CLASSES = (
    *(Class.DISTRIBUTOR,) * 4, *(Class.TRANSPOSER,) * 2, Class.PERMUTOR, *(Class.SHIFTER,) * 2, *(Class.RESERVED,) * 4, Class.C2C,
)  # fmt: skip

QUEUE_CLASS: tuple[Class, ...] = (
    *(Class.MEM,) * 88, *(Class.VXM,) * 16, *(Class.MXM_W, Class.MXM_A, Class.MXM_R) * 4, *_SXM_CLASSES * 2,
)  # fmt: skip
"""Class of each of the 144 queues by unit number."""


def mem_unit(hemisphere: int, slice_: int) -> int:
    """Queue of a MEM slice."""
    return hemisphere * 44 + slice_


def alu_unit(alu: int) -> int:
    """Queue of ALU 0..15 (id = 4 row + rank)."""
    return VXM_BASE + alu


def mxm_unit(plane: int, kind: Class) -> int:
    """Queue W, A or R of plane 0..3."""
    return MXM_BASE + 3 * plane + (kind - Class.MXM_W)


def sxm_unit(hemisphere: int, kind: Class, index: int = 0) -> int:
    """Queue of an SXM unit: distributor 0..3, transposer 0..1, permutor, shifter 0..1, C2C."""
    return SXM_BASE + SXM_QUEUES * hemisphere + _SXM_CLASSES.index(kind) + index


def unit_name(unit: int) -> str:
    """`MEM.W21`, `ALU5`, `MXM2.A`, `SXM.E.transposer1`, `C2C.W`; `unit 7?` for a number that is none."""
    if not 0 <= unit < QUEUES:
        return f"unit {unit}?"
    if unit < VXM_BASE:
        return f"MEM.{'WE'[unit // 44]}{unit % 44}"
    if unit < MXM_BASE:
        return f"ALU{unit - VXM_BASE}"
    if unit < SXM_BASE:
        plane, kind = divmod(unit - MXM_BASE, 3)
        return f"MXM{plane}.{'WAR'[kind]}"
    hemisphere, index = divmod(unit - SXM_BASE, SXM_QUEUES)
    kind_ = _SXM_CLASSES[index]
    if kind_ is Class.C2C:
        return f"C2C.{'WE'[hemisphere]}"
    return f"SXM.{'WE'[hemisphere]}.{kind_.name.lower()}{index - _SXM_CLASSES.index(kind_)}"
