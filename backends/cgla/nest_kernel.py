"""Kernels of loop nests: a scalar expression over operands read through affine addresses, mapped or reduced (model section 7).

One iteration computes one element. The nest has two loops; every operand, the result included, has one address word that counts its two
steps, and a row of its own whose local memory holds its tile. The expression is a DAG of slots levelled as early as its operands and the
four slots of a row allow; the last row stores, after adding over LOOP0 in its own slot where the nest is a sum.

    row 0        LOOP0, LOOP1
    next rows    counters of LOOP0 and LOOP1, two operands a word; their sums
    next rows    one load a row
    rows below   the expression, then the reduction and the store

Functions that the array lacks are recipes (model section 3): exp by reduction to [-ln 2 / 2, ln 2 / 2] and a polynomial of degree 6,
reciprocal and reciprocal root by three Newton steps, sine and cosine by reduction to [-pi / 2, pi / 2] and a polynomial of degree 11 (for
angles up to 25,000), the others from these. Errors are within 1e-6 relative, near zeros absolute.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from math import factorial, log, pi
from struct import pack, unpack

from ...machines.cgla.isa import OP1
from .body import Body, Placed, Value, place
from .host import ExprRow

BOTH = 0x0000000100000001
LOW = 0xFFFFFFFF
LN2_HIGH = 0.693359375  # 10 bits, so that its products with whole numbers up to 2^13 are exact
LN2_LOW = log(2.0) - LN2_HIGH
ROUND = 1.5 * 2.0**23
EXP_LOW, EXP_HIGH = -86.5, 87.0  # a normal number and one whose reciprocal is normal
PI_PARTS = (3.140625, 0.0009670257568359375, pi - 3.140625 - 0.0009670257568359375)  # products with whole numbers below 2^13 are exact
ERF = (0.254829592, -0.284496736, 1.421413741, -1.453152027, 1.061405429)
ERF_P = 0.3275911
START = {"sum": 0.0, "max": float("-inf"), "min": float("inf")}
ACCUMULATE = {"sum": "FAD", "max": "X_FMAX", "min": "X_FMIN"}


WHOLE = {"i64", "i32", "bool"}
LOADS = {"f32": "LDWR", "i32": "LDWR", "i64": "LDWR", "bool": "LDBR"}
"""Loads by dtype; the array computes with the low word of an i64, which every value that `narrow` leaves fits."""
STORES = {"f32": "STWR", "i32": "STWR", "bool": "STBR"}


class NoSlot(Exception):
    """An entry of an expression for which the array has no slots."""


@dataclass(frozen=True)
class NestKernel:
    """One kernel: the expression, the reduction ("" for a map) and the rows of the lane.

    `dtypes` are those of the result and of the operands; `axes` gives for each axis that the expression uses as a value the loop that
    counts it (0, 1, or -1 for neither).
    """

    exprs: tuple[ExprRow, ...]
    dtypes: tuple[str, ...]
    reduce: str
    axes: tuple[tuple[int, int], ...]
    rows: int

    @property
    def title(self) -> str:
        """What a person reads."""
        names = [entry.op for entry in self.exprs if entry.op not in ("arg", "const", "axis")]
        return " ".join([f"reduce {self.reduce}" if self.reduce else "map", *names][:8])

    @property
    def operands(self) -> int:
        """How many operands it reads."""
        return len(self.dtypes) - 1


def word(value: float) -> int:
    """An fp32 constant in both words."""
    return int(unpack("<I", pack("<f", value))[0]) * BOTH


class NestWriter:
    """Writes the body of a kernel. Constants are named by their value, so that a register set can give them."""

    def __init__(self, kernel: NestKernel) -> None:
        self.kernel = kernel
        self.body = Body(kernel.rows)
        self.used: dict[int, int] = {}
        self.load_rows: list[int] = []

    def write(self) -> Body:
        """Counters, loads, expression, store."""
        body, kernel = self.body, self.kernel
        body.alu(0, "FOR", body.constant("loop0"), body.constant("minus1"), col=0)
        body.alu(0, "FOR", body.constant("loop1"), body.constant("minus1"), col=1)
        addresses = self._addresses(kernel.operands + 1)
        axes = self._axes()
        values: list[Value] = []
        last = 2
        for number in range(1, kernel.operands + 1):
            row = last = max(last, addresses[number // 2].row) + 1
            self.load_rows.append(row)
            values.append(
                body.load(row, f"base{number}", addresses[number // 2], ("W0", "W1")[number % 2], op=LOADS[kernel.dtypes[number]])
            )
        root = self._expression(values, axes)
        if kernel.reduce:
            start = self.constant(START[kernel.reduce])
            row = max(root.row, last, addresses[0].row) + 1
            result = body.alu(row, ACCUMULATE[kernel.reduce], start, root, self_init=1, col=0)
        else:
            result = body.alu(max(root.row, last, addresses[0].row) + 1, "NOP", root, col=0)
        body.store(result, "base0", addresses[0], "W0", op=STORES[kernel.dtypes[0]])
        return body

    def _addresses(self, count: int) -> list[Value]:
        """The address words, two operands each."""
        found = []
        for pair in range(-(-count // 2)):
            inner = self._counter(f"in{pair}", 1, pair)
            outer = self._counter(f"out{pair}", 2, pair)
            found.append(self.slot("ADD", inner, outer))
        return found

    def _counter(self, name: str, init: int, pair: int) -> Value:
        """step * i0 (init 1) or step * i1 (init 2)."""
        row = self._free(1 + pair // 2)
        return self.body.alu(row, "ADD", self.body.constant(f"{name}.start"), self.body.constant(f"{name}.step"), self_init=init)

    def _axes(self) -> dict[int, Value]:
        """The positions on the axes that the expression uses."""
        found = {}
        for number, (axis, loop) in enumerate(self.kernel.axes):
            first = self.body.constant(f"axis{axis}")
            found[axis] = first if loop < 0 else self.slot("ADD", self._counter(f"count{axis}", 1 + loop, number), first)
        return found

    # --- slots -------------------------------------------------------------------------------------------------------------------

    def _free(self, row: int) -> int:
        """The first row from `row` on with a free slot, taken."""
        while self.used.get(row, 0) >= 4:
            row += 1
        self.used[row] = self.used.get(row, 0) + 1
        return row

    def slot(self, op1: str, *operands: Value, **more: int | str) -> Value:
        """An operation as early as its operands allow."""
        row = self._free(max([1, *(value.row + 1 for value in operands)]))
        return self.body.alu(row, op1, *operands, **more)  # type: ignore[arg-type]

    def constant(self, value: float) -> Value:
        """An fp32 constant."""
        return self.body.constant(f"={word(value):016x}")

    def whole(self, value: int) -> Value:
        """An integer constant in both words."""
        return self.body.constant(f"={(value & LOW) * BOTH:016x}")

    # --- expressions -------------------------------------------------------------------------------------------------------------

    def _expression(self, values: list[Value], axes: dict[int, Value]) -> Value:
        made: list[Value] = []
        for entry in self.kernel.exprs:
            if entry.op == "arg":
                made.append(values[entry.a - 1])
            elif entry.op == "axis":
                made.append(axes[entry.a])
            elif entry.op == "const":
                made.append(self.constant(entry.real) if entry.dtype == "f32" else self.whole(entry.integer))
            else:
                sources = [made[i] for i in (entry.a, entry.b, entry.c) if i >= 0]
                kinds = [self.kernel.exprs[i].dtype for i in (entry.a, entry.b, entry.c) if i >= 0]
                made.append(self._entry(entry, sources, kinds))
        return made[-1]

    def _entry(self, entry: ExprRow, sources: list[Value], kinds: list[str]) -> Value:
        if entry.op == "cast" and not {kinds[0], entry.dtype} - WHOLE:
            return sources[0] if kinds[0] == entry.dtype or entry.dtype != "bool" else self.slot("CMP_NE", sources[0], self.whole(0))
        if entry.op == "cast" and kinds[0] in WHOLE and entry.dtype == "f32":
            return self.slot("FMI", self.constant(1.0), sources[0])
        if entry.op == "mul" and kinds[0] in WHOLE:
            return self._scaled(entry, sources)
        floats = kinds[-1] == "f32"
        table = FLOAT_RULES if floats else WHOLE_RULES
        rule = table.get(entry.op)
        if rule is None or {*kinds, entry.dtype} - WHOLE - {"f32"}:
            raise NoSlot(f"{entry.op} of {kinds[0]}")
        return rule(self, *sources)

    def _scaled(self, entry: ExprRow, sources: list[Value]) -> Value:
        """An integer times a power of two, the only product of integers that a slot has."""
        for number, other in ((entry.a, 1), (entry.b, 0)):
            factor = self.kernel.exprs[number]
            if factor.op == "const" and factor.integer > 0 and factor.integer & (factor.integer - 1) == 0:
                return self.slot("NOP", sources[other], op3="SLL", imm5=factor.integer.bit_length() - 1)
        raise NoSlot("a product of integers")

    def sub(self, a: Value, b: Value) -> Value:
        """a - b, the product with 1 being exact."""
        return self.slot("FMS", a, b, self.constant(1.0))

    def less(self, a: Value, b: Value) -> Value:
        """1 where a < b: the sign of the difference, of which equal infinities are no part; NaN has no place."""
        difference = self.unsigned_zero(self.sub(a, b))
        return self.slot("NOP", self.slot("CMOV", self.slot("CMP_EQ", a, b), self.whole(0), difference), op3="SRL", imm5=31)

    def unsigned_zero(self, a: Value) -> Value:
        """a, with a negative zero made positive: bits are equal then where numbers are."""
        return self.slot("FAD", a, self.constant(0.0))

    def invert(self, a: Value) -> Value:
        """The other truth value."""
        return self.slot("NOP", a, op2="XOR", imm4=BOTH)

    def negate(self, a: Value) -> Value:
        """-a."""
        return self.slot("NOP", a, op2="XOR", imm4=(1 << 31) * BOTH)

    def absolute(self, a: Value) -> Value:
        """The size of a."""
        return self.slot("NOP", a, op2="AND", imm4=0x7FFFFFFF * BOTH)

    def polynomial(self, x: Value, coefficients: tuple[float, ...]) -> Value:
        """Horner's rule, the highest power first."""
        value = self.constant(coefficients[0])
        for coefficient in coefficients[1:]:
            value = self.slot("FMA", self.constant(coefficient), value, x)
        return value

    def exp(self, x: Value) -> Value:
        """e^x: x = n ln 2 + r, a polynomial in r, and n added to its exponent; 0 from the lower end of the range down, the largest power
        above it, NaN of NaN."""
        raised = self.slot("X_FMAX", x, self.constant(EXP_LOW))
        bounded = self.slot("X_FMIN", raised, self.constant(EXP_HIGH))
        rounded = self.slot("FMA", self.constant(ROUND), bounded, self.constant(1 / log(2.0)))
        n = self.slot("FAD", rounded, self.constant(-ROUND))
        rest = self.slot("FMS", self.slot("FMS", bounded, n, self.constant(LN2_HIGH)), n, self.constant(LN2_LOW))
        power = self.polynomial(rest, (1 / 720, 1 / 120, 1 / 24, 1 / 6, 0.5, 1.0, 1.0))
        value = self.slot("ADD", power, self.slot("NOP", rounded, op3="SLL", imm5=23))
        return self.slot("CMOV", self.slot("CMP_EQ", raised, self.constant(EXP_LOW)), self.whole(0), value)

    def reciprocal(self, x: Value) -> Value:
        """1 / x by Newton's steps from a guess of its bits."""
        value = self.slot("SUB", self.whole(0x7EF311C7), x)
        for _ in range(3):
            value = self.slot("FML", value, self.slot("FMS", self.constant(2.0), x, value))
        return value

    def reciprocal_root(self, x: Value) -> Value:
        """1 / sqrt(x) by Newton's steps from a guess of its bits."""
        half = self.slot("FML", x, self.constant(0.5))
        value = self.slot("SUB", self.whole(0x5F3759DF), self.slot("NOP", x, op3="SRL", imm5=1))
        for _ in range(3):
            factor = self.slot("FMS", self.constant(1.5), self.slot("FML", half, value), value)
            value = self.slot("FML", value, factor)
        return value

    def sine(self, x: Value, turned: bool = False) -> Value:
        """sin x, or with `turned` cos x: x = n pi + r (with `turned` (n + 1/2) pi + r), a polynomial in r, and the sign of (-1)^n."""
        shifted = self.slot("FMA", self.constant(-0.5 if turned else 0.0), x, self.constant(1 / pi))
        rounded = self.slot("FAD", shifted, self.constant(ROUND))
        turns = self.slot("FAD", rounded, self.constant(-ROUND))
        rest = x
        if turned:
            turns = self.slot("FAD", turns, self.constant(0.5))
        for part in PI_PARTS:
            rest = self.slot("FMS", rest, turns, self.constant(part))
        square = self.slot("FML", rest, rest)
        series = self.polynomial(square, tuple((-1) ** k / factorial(2 * k + 1) for k in range(5, -1, -1)))
        value = self.slot("FML", series, self.negate(rest) if turned else rest)
        return self.slot("ADD", value, self.slot("NOP", rounded, op3="SLL", imm5=31))

    def signed(self, compare: str, a: Value, b: Value) -> Value:
        """A comparison of signed integers: unsigned once their top bits are flipped."""
        flipped = [self.slot("NOP", value, op2="XOR", imm4=(1 << 31) * BOTH) for value in (a, b)]
        return self.slot(compare, *flipped)

    def tanh(self, x: Value) -> Value:
        """1 - 2 / (1 + e^2x)."""
        below = self.slot("FAD", self.exp(self.slot("FAD", x, x)), self.constant(1.0))
        return self.slot("FMS", self.constant(1.0), self.reciprocal(below), self.constant(2.0))

    def erf(self, x: Value) -> Value:
        """1 - p(t) e^-x^2 with t = 1 / (1 + p |x|) (Abramowitz and Stegun 7.1.26), with the sign of x."""
        size = self.absolute(x)
        t = self.reciprocal(self.slot("FMA", self.constant(1.0), size, self.constant(ERF_P)))
        falling = self.exp(self.negate(self.slot("FML", size, size)))
        series = self.slot("FML", self.polynomial(t, tuple(reversed(ERF))), t)
        value = self.slot("FMS", self.constant(1.0), series, falling)
        return self.slot("CMOV", self.slot("NOP", x, op3="SRL", imm5=31), self.negate(value), value)


Rule = Callable[..., Value]
FLOAT_RULES: dict[str, Rule] = {
    "add": lambda s, a, b: s.slot("FAD", a, b),
    "sub": lambda s, a, b: s.sub(a, b),
    "mul": lambda s, a, b: s.slot("FML", a, b),
    "fma": lambda s, a, b, c: s.slot("FMA", c, a, b),
    "div": lambda s, a, b: s.slot("FML", a, s.reciprocal(b)),
    "neg": lambda s, a: s.negate(a),
    "abs": lambda s, a: s.absolute(a),
    "max": lambda s, a, b: s.slot("X_FMAX", a, b),
    "min": lambda s, a, b: s.slot("X_FMIN", a, b),
    "exp": lambda s, a: s.exp(a),
    "recip": lambda s, a: s.reciprocal(a),
    "rsqrt": lambda s, a: s.reciprocal_root(a),
    "sqrt": lambda s, a: s.slot("FML", a, s.reciprocal_root(a)),
    "tanh": lambda s, a: s.tanh(a),
    "erf": lambda s, a: s.erf(a),
    "sin": lambda s, a: s.sine(a),
    "cos": lambda s, a: s.sine(a, True),
    "lt": lambda s, a, b: s.less(a, b),
    "gt": lambda s, a, b: s.less(b, a),
    "le": lambda s, a, b: s.invert(s.less(b, a)),
    "ge": lambda s, a, b: s.invert(s.less(a, b)),
    "eq": lambda s, a, b: s.slot("CMP_EQ", s.unsigned_zero(a), s.unsigned_zero(b)),
    "ne": lambda s, a, b: s.slot("CMP_NE", s.unsigned_zero(a), s.unsigned_zero(b)),
    "select": lambda s, a, b, c: s.slot("CMOV", a, b, c),
}
"""Entries whose last operand is fp32; truth values are 0 and 1."""
WHOLE_RULES: dict[str, Rule] = {
    "select": lambda s, a, b, c: s.slot("CMOV", a, b, c),
    "sub": lambda s, a, b: s.slot("SUB", a, b),
    "add": lambda s, a, b: s.slot("ADD", a, b),
    "lt": lambda s, a, b: s.signed("CMP_LT", a, b),
    "le": lambda s, a, b: s.signed("CMP_LE", a, b),
    "gt": lambda s, a, b: s.signed("CMP_GT", a, b),
    "ge": lambda s, a, b: s.signed("CMP_GE", a, b),
    "eq": lambda s, a, b: s.slot("CMP_EQ", a, b),
    "ne": lambda s, a, b: s.slot("CMP_NE", a, b),
    "and": lambda s, a, b: s.slot("CMOV", a, b, s.whole(0)),
    "or": lambda s, a, b: s.slot("CMOV", a, s.whole(1), b),
    "not": lambda s, a: s.invert(a),
}
"""Entries whose last operand is an integer or a truth value."""


@dataclass(frozen=True)
class PlacedNest:
    """A placed kernel: its body, the rows that load each operand, and the row that stores."""

    placed: Placed
    load_rows: tuple[int, ...]

    @property
    def store_row(self) -> int:
        """The row whose memory holds the result."""
        return self.placed.last_row


@lru_cache(maxsize=256)
def placed_nest(kernel: NestKernel) -> PlacedNest:
    """The placed body. Raises NoSlot for an expression that the array lacks, Infeasible where it needs more rows or values."""
    writer = NestWriter(kernel)
    body = writer.write()
    return PlacedNest(place(body), tuple(writer.load_rows))


def extensions(kernel: NestKernel) -> set[str]:
    """Extension ops that the kernel needs."""
    codes = {slot.get("op1", 0) for slot in placed_nest(kernel).placed.slots}
    return {OP1[code].name for code in codes if OP1[code].ext}
