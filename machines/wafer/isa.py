"""The wafer's operations as data: one row an (operation, format signature) with operand formats, width class and meaning.

A burst names an `op` and a `fmt`; together they select a row of `OPS`, which says which operands the burst has, the number format of
each, how many elements a beat takes (a width class whose figure is in the machine description, table 2.1 of `docs/wafer-model.md`) and
what is computed (`Semantics`). The executor computes values from `Semantics` alone; the emitter chooses rows by `find`.

Operands. `d` destination, `a` and `b` vector sources, `s` scalar: a memory element, an immediate or the next half of a queue, constant
within an inner vector (its innermost stride is 0). In a row whose `b` may be missing (`two_of`), the second operand is `b` or else `s`.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from functools import cache

from ...errors import BadInput


class Element(IntEnum):
    """Number format of one element in memory or in a wavelet (C4)."""

    F16 = 0
    F32 = 1
    I16 = 2
    I32 = 3


NUMPY = {Element.F16: "float16", Element.F32: "float32", Element.I16: "int16", Element.I32: "int32"}
WORDS = {Element.F16: 1, Element.F32: 2, Element.I16: 1, Element.I32: 2}
PER_WAVELET = {Element.F16: 2, Element.F32: 1, Element.I16: 2, Element.I32: 1}


class Fmt(IntEnum):
    """Format signature of a burst: plain formats, widening ones, and the conversions of CVT (source, destination)."""

    F16 = 0
    F32 = 1
    I16 = 2
    I32 = 3
    F16_F32 = 4
    """f16 sources into f32 (`fmachs`, `faddhs`, CVT up)."""
    F32_F16 = 5
    F32_I32 = 6
    I32_F32 = 7
    F16_I16 = 8
    I16_F16 = 9
    I16_F32 = 10
    F32_I16 = 11
    I16_I32 = 12
    I32_I16 = 13


class Op(IntEnum):
    """Operation of a burst. Rows of `OPS` say which formats each has."""

    MOV = 0
    FMAC = 1
    ADD = 2
    SUB = 3
    MUL = 4
    ABS = 5
    NEG = 6
    SCALE = 7
    MAX = 8
    MIN = 9
    CMP_EQ = 10
    CMP_NE = 11
    CMP_LT = 12
    CMP_LE = 13
    CMP_GT = 14
    CMP_GE = 15
    SEL = 16
    CVT = 17
    FLOOR = 18
    AND = 19
    OR = 20
    XOR = 21
    SHL = 22
    SHR = 23
    EXP = 24
    EXP2 = 25
    LOG = 26
    RCP = 27
    RSQRT = 28
    SQRT = 29
    DIV = 30
    ERF = 31
    SIN = 32
    COS = 33
    LDX = 34
    STX = 35
    ARGMAX = 36
    SWITCH = 37


class Semantics(IntEnum):
    """How a row uses its operands; elementwise maths is then chosen by `op`."""

    UNARY = 0
    """d = op(a)."""
    BINARY = 1
    """d = op(a, b) or op(a, s)."""
    MULTIPLY_ADD = 2
    """d = d + a * s (rounding: N2)."""
    SELECT = 3
    """d = b where a != 0, else s; without s, elements with a == 0 keep d (a masked move)."""
    CONVERT = 4
    """d = a in the format of d. Float to integer truncates and saturates, NaN gives 0; integer to narrower integer wraps."""
    LOAD_INDEXED = 5
    """d[v] = a[(i - lo) * stride + v] where lo <= i < lo + count, else 0; i is the i32 element s of the vector."""
    STORE_INDEXED = 6
    """d[(i - lo) * stride + v] = a[v] where lo <= i < lo + count; else nothing."""
    MERGE_PAIRS = 7
    """Elements 2j, 2j+1 are a (value, index) pair: the greater value wins, then the lower index; NaN wins over all."""
    ADVANCE = 8
    """Advance the position of colour `cout` in the core's own router (F6a)."""


@dataclass(frozen=True)
class OpRow:
    """One legal (operation, signature). `a`, `b`, `s`, `d` are element formats or None where the operand may not be present."""

    op: Op
    fmt: Fmt
    meaning: Semantics
    d: Element | None
    a: Element | None
    b: Element | None = None
    s: Element | None = None
    width: str = ""
    """Width class: key of the machine's `widths`; empty for scalar functions."""
    function: str = ""
    """Scalar function: key of the machine's `scalar_beats`; beats are per element."""

    @property
    def two_of(self) -> bool:
        """Whether the second operand is `b` or else `s`."""
        return self.meaning in (Semantics.BINARY, Semantics.MERGE_PAIRS) and self.s is not None


_F16, _F32, _I16, _I32 = Element.F16, Element.F32, Element.I16, Element.I32
_PLAIN = {Fmt.F16: _F16, Fmt.F32: _F32, Fmt.I16: _I16, Fmt.I32: _I32}
_BASE_WIDTH = {Fmt.F16: "half", Fmt.F32: "single", Fmt.I16: "int16", Fmt.I32: "int32"}
_COMPARE_WIDTH = {Fmt.F16: "compare_half", Fmt.F32: "compare_single", Fmt.I16: "compare_half", Fmt.I32: "compare_single"}
_CONVERSIONS = {
    Fmt.F16_F32: (_F16, _F32),
    Fmt.F32_F16: (_F32, _F16),
    Fmt.F32_I32: (_F32, _I32),
    Fmt.I32_F32: (_I32, _F32),
    Fmt.F16_I16: (_F16, _I16),
    Fmt.I16_F16: (_I16, _F16),
    Fmt.I16_F32: (_I16, _F32),
    Fmt.F32_I16: (_F32, _I16),
    Fmt.I16_I32: (_I16, _I32),
    Fmt.I32_I16: (_I32, _I16),
}
_FUNCTIONS = (Op.EXP, Op.EXP2, Op.LOG, Op.RCP, Op.RSQRT, Op.SQRT, Op.ERF, Op.SIN, Op.COS)


def _rows() -> list[OpRow]:
    rows = [
        OpRow(Op.FMAC, Fmt.F16, Semantics.MULTIPLY_ADD, _F16, _F16, s=_F16, width="fmach"),
        OpRow(Op.FMAC, Fmt.F16_F32, Semantics.MULTIPLY_ADD, _F32, _F16, s=_F16, width="fmachs"),
        OpRow(Op.FMAC, Fmt.F32, Semantics.MULTIPLY_ADD, _F32, _F32, s=_F32, width="fmacs"),
        OpRow(Op.ADD, Fmt.F16_F32, Semantics.BINARY, _F32, _F16, _F32, _F32, "single"),
        OpRow(Op.FLOOR, Fmt.F32, Semantics.UNARY, _F32, _F32, width="convert"),
        OpRow(Op.DIV, Fmt.F32, Semantics.BINARY, _F32, _F32, _F32, _F32, function="div"),
        OpRow(Op.ARGMAX, Fmt.F32, Semantics.MERGE_PAIRS, _F32, _F32, _F32, width="pair"),
        OpRow(Op.SWITCH, Fmt.F16, Semantics.ADVANCE, None, None),
    ]
    rows += [OpRow(op, Fmt.F32, Semantics.UNARY, _F32, _F32, function=op.name.lower()) for op in _FUNCTIONS]
    for fmt, (source, target) in _CONVERSIONS.items():
        rows.append(OpRow(Op.CVT, fmt, Semantics.CONVERT, target, source, width="convert"))
    for fmt, e in _PLAIN.items():
        base, compare = _BASE_WIDTH[fmt], _COMPARE_WIDTH[fmt]
        multiply = {Fmt.F32: "fmuls", Fmt.I32: "int32_mul"}.get(fmt, base)
        rows.append(OpRow(Op.MOV, fmt, Semantics.UNARY, e, e, width=base))
        rows += [OpRow(op, fmt, Semantics.BINARY, e, e, e, e, base) for op in (Op.ADD, Op.SUB)]
        rows.append(OpRow(Op.MUL, fmt, Semantics.BINARY, e, e, e, e, multiply))
        rows += [OpRow(op, fmt, Semantics.UNARY, e, e, width=base) for op in (Op.ABS, Op.NEG)]
        rows += [OpRow(op, fmt, Semantics.BINARY, e, e, e, e, compare) for op in (Op.MAX, Op.MIN)]
        rows += [OpRow(Op(op), fmt, Semantics.BINARY, e, e, e, e, compare) for op in range(Op.CMP_EQ, Op.CMP_GE + 1)]
        rows.append(OpRow(Op.SEL, fmt, Semantics.SELECT, e, e, e, e, compare))
        rows.append(OpRow(Op.LDX, fmt, Semantics.LOAD_INDEXED, e, e, s=_I32, width=base))
        rows.append(OpRow(Op.STX, fmt, Semantics.STORE_INDEXED, e, e, s=_I32, width=base))
        if fmt in (Fmt.F16, Fmt.F32):
            rows.append(OpRow(Op.SCALE, fmt, Semantics.BINARY, e, e, None, e, base))
        else:
            rows += [OpRow(op, fmt, Semantics.BINARY, e, e, e, e, base) for op in (Op.AND, Op.OR, Op.XOR)]
            rows += [OpRow(op, fmt, Semantics.BINARY, e, e, e, e, "shift") for op in (Op.SHL, Op.SHR)]
    return rows


OPS: dict[tuple[Op, Fmt], OpRow] = {(row.op, row.fmt): row for row in _rows()}
"""Every legal (operation, signature). SCALE is a product with a power of two: its scalar is an immediate whose mantissa is 1.
SHR is arithmetic. MAX and MIN propagate NaN; comparisons with NaN are false except CMP_NE; results of comparisons are 1 or 0."""


@cache
def find(op: Op | int, fmt: Fmt | int) -> OpRow:
    """The row of (op, fmt). Raises BadInput where the machine has no such operation."""
    try:
        return OPS[Op(op), Fmt(fmt)]
    except (KeyError, ValueError) as error:
        raise BadInput(f"the wafer has no operation {op!r} in format {fmt!r}") from error
