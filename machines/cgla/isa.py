"""The CGLA instruction set as data: one row an operation.

A slot is one cascade op1 -> op2 -> op3 on a 64-bit word, seen as two 32-bit words (w1:w0, w0 the low half), and two address
generators EA0, EA1. What the operations compute is in `docs/cgla-model.md` section 3; names are those of the public EMAX7 headers.
`X_` operations are marked extensions that a preset may switch off. Codes are positions in these tables.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum


@dataclass(frozen=True)
class Op1:
    """One op1: number of operands (ex1..), whether ex1 is an accumulator that may take the slot's own last result, highest `mode`."""

    name: str
    arity: int
    accumulates: bool = False
    modes: int = 1
    ext: bool = False
    macs: int = 0


@dataclass(frozen=True)
class Op2:
    """One op2 (logic and sums) with the operand src4; `unary` takes none."""

    name: str
    unary: bool = False


@dataclass(frozen=True)
class MemoryOp:
    """One memory op: bytes moved by one access, whether it stores, and on which of EA0, EA1 it may stand."""

    name: str
    size: int
    store: bool
    ea0: bool
    ea1: bool


OP1: tuple[Op1, ...] = (
    Op1("NOP", 1),
    Op1("FOR", 2),
    Op1("ADD", 2, accumulates=True),
    Op1("SUB", 2, accumulates=True),
    Op1("ADD3", 3, accumulates=True),
    Op1("SUB3", 3, accumulates=True),
    Op1("FMA", 3, accumulates=True, macs=2),
    Op1("FMS", 3, accumulates=True, macs=2),
    Op1("FML", 2),
    Op1("FAD", 2, accumulates=True),
    Op1("FML3", 3),
    Op1("CMP_EQ", 2),
    Op1("CMP_NE", 2),
    Op1("CMP_LT", 2),
    Op1("CMP_LE", 2),
    Op1("CMP_GT", 2),
    Op1("CMP_GE", 2),
    Op1("CMOV", 3),
    Op1("SML8", 2, macs=4),
    Op1("SML16", 2, macs=4),
    Op1("CVT53", 3, modes=8),
    Op1("CVT86", 3, modes=8),
    Op1("FMI", 2),
    Op1("MMRG", 3),
    Op1("MMAX", 2, accumulates=True),
    Op1("MMIN", 2, accumulates=True),
    Op1("MH2BW", 2),
    Op1("X_H2F", 1, modes=2, ext=True),
    Op1("X_F2H", 2, ext=True),
    Op1("X_FMAX", 2, accumulates=True, ext=True),
    Op1("X_FMIN", 2, accumulates=True, ext=True),
    Op1("X_F2B", 2, ext=True),
    Op1("X_CVT36", 3, modes=16, ext=True),
    Op1("X_CVT4", 1, modes=4, ext=True),
)
OP2: tuple[Op2, ...] = (
    Op2("NOP", unary=True),
    Op2("AND"),
    Op2("OR"),
    Op2("XOR"),
    Op2("SUMHH", unary=True),
    Op2("SUMHL", unary=True),
    Op2("AD32"),
    Op2("ROTS"),
)
OP3: tuple[str, ...] = ("NOP", "SLL", "SRL", "SRAA", "SRAB", "SRLM")
EXPAND: tuple[str, ...] = ("H3210", "H1010", "H3232", "B5410", "B7632")
MEMORY: tuple[MemoryOp, ...] = (
    MemoryOp("NONE", 0, False, True, True),
    MemoryOp("LDR", 8, False, True, True),
    MemoryOp("LDWR", 4, False, True, True),
    MemoryOp("LDBR", 1, False, True, True),
    MemoryOp("LDRU", 8, False, True, True),
    MemoryOp("LDRQ", 32, False, False, True),
    MemoryOp("STR", 8, True, True, False),
    MemoryOp("STWR", 4, True, True, False),
    MemoryOp("STBR", 1, True, True, False),
    MemoryOp("STRQ", 32, True, True, False),
    MemoryOp("IM_PREF", 0, False, True, False),
    MemoryOp("IM_DRAIN", 0, False, False, True),
)
MASK: tuple[str, ...] = ("D0", "W0", "W1", "H0", "H1", "H2", "H3", "B0", "B1", "B2", "B3", "B4", "B5", "B6", "B7")

OP1_CODE: dict[str, int] = {op.name: code for code, op in enumerate(OP1)}
OP2_CODE: dict[str, int] = {op.name: code for code, op in enumerate(OP2)}
OP3_CODE: dict[str, int] = {name: code for code, name in enumerate(OP3)}
EXPAND_CODE: dict[str, int] = {name: code for code, name in enumerate(EXPAND)}
MEMORY_CODE: dict[str, int] = {op.name: code for code, op in enumerate(MEMORY)}
MASK_CODE: dict[str, int] = {name: code for code, name in enumerate(MASK)}


class Source(IntEnum):
    """Where src4 (op2) and src5 (op3) come from (1.5): nothing, the immediate, ex2 (src4 only) or ex3."""

    NONE = 0
    IMM = 1
    EX2 = 2
    EX3 = 3


class Address(IntEnum):
    """Where the base or offset of a memory op comes from (1.7): zero, its own register, or the slot's shared BR select."""

    NONE = 0
    REG = 1
    BR = 2


class BrInput(IntEnum):
    """What drives BR[r][c][k] (1.3): nothing (it may hold a constant), TRk, a scalar load (EA0 at k = 0, EA1 at k = 1), the ALU
    result (k = 2) or word k of LDRQ."""

    OFF = 0
    TR = 1
    LOAD = 2
    ALU = 3
    WIDE = 4


class StoreData(IntEnum):
    """Data of a store: nothing, the ALU result of the slot, TR0..TR3 of the slot, or all four TRs (STRQ)."""

    NONE = 0
    ALU = 1
    TR0 = 2
    TR1 = 3
    TR2 = 4
    TR3 = 5
    TRQ = 6


TR_FROM_ALU = 16


class Register(IntEnum):
    """Host-written registers of one slot: four BR constants, and base and offset of EA0 and EA1 (two 16-byte pairs)."""

    BR0 = 0
    BR1 = 1
    BR2 = 2
    BR3 = 3
    EA0_BASE = 4
    EA0_OFFSET = 5
    EA1_BASE = 6
    EA1_OFFSET = 7
