"""From scalar expressions of the IR to operations of the vector unit.

The unit has no divide, no immediates and few functions (VX-6), so that the rest is written out here: division as y * rsqrt(x)^2 with the
sign of x, exp through exp2, sin and cos by Cody-Waite reduction and a polynomial, erf by Abramowitz and Stegun 7.1.26 (1.5e-7 absolute),
rounding by the magic number 1.5 * 2^23. Errors stay below 1e-6 relative, 1e-6 absolute near zeros (docs/tsp-backend.md).
A select is `a where c` OR `b where not c`, which needs no third operand.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np

from ...errors import UnsupportedOp
from ...ir import types as ir_types
from ...ir.evaluate import evaluate
from ...ir.expr import Expr, postorder
from ...ir.graph import Graph, Map, Reduce
from ...ir.types import DType as IrType
from ...machines.tsp.isa import NUMPY, WIDTH, DType, Opcode

ISA_TYPE: dict[IrType, DType] = {
    ir_types.F32: DType.F32, ir_types.F64: DType.F32, ir_types.BF16: DType.F32, ir_types.F16: DType.F16,
    ir_types.I64: DType.I32, ir_types.I32: DType.I32, ir_types.I16: DType.I16, ir_types.U8: DType.I16,
    ir_types.I8: DType.I8, ir_types.BOOL: DType.I8,
}  # fmt: skip
"""How values of an IR type are held. i64 is held as i32: `narrow` has proven that nothing larger occurs."""


@dataclass(frozen=True)
class Ref:
    """An operand: `kind` is op (number `index`), arg (operand `index` of the node), fold (an expression over axes), const (`bits`)."""

    kind: str
    dtype: DType
    index: int = -1
    expr: Expr | None = None
    bits: int = 0


@dataclass(frozen=True)
class Prim:
    """One vector operation in terms of refs."""

    opcode: Opcode
    dtype: DType
    args: tuple[Ref, ...]
    dtype2: DType = DType.NONE
    modular: int = 0


def constant_bits(value: float | int | bool, dtype: DType) -> int:
    """The bit pattern of a number."""
    array = np.array([value]).astype(NUMPY[dtype])
    return int(array.view(f"<u{WIDTH[dtype]}")[0])


@dataclass
class Recipe:
    """Collects the operations of one expression; equal operations are made once."""

    axes: tuple[int, ...]
    positive: Callable[[int], bool] = lambda index: False
    prims: list[Prim] = field(default_factory=list)
    known: dict[Prim, Ref] = field(default_factory=dict)
    done: dict[int, Ref] = field(default_factory=dict)

    # building blocks -----------------------------------------------------------------------------------------------------
    def op(self, opcode: Opcode, *args: Ref, dtype: DType | None = None, dtype2: DType = DType.NONE, modular: int = 0) -> Ref:
        """Append an operation, or find its equal."""
        prim = Prim(opcode, args[0].dtype if dtype is None else dtype, args, dtype2, modular)
        if prim not in self.known:
            converts = opcode == Opcode.CAST or Opcode.EQ <= opcode <= Opcode.LE
            self.prims.append(prim)
            self.known[prim] = Ref("op", dtype2 if converts else prim.dtype, len(self.prims) - 1)
        return self.known[prim]

    def const(self, value: float | int | bool, dtype: DType = DType.F32) -> Ref:
        """A constant operand."""
        return Ref("const", dtype, bits=constant_bits(value, dtype))

    def bits(self, pattern: int) -> Ref:
        """A 32-bit pattern used as an f32 operand of a bit operation."""
        return Ref("const", DType.F32, bits=pattern)

    def add(self, a: Ref, b: Ref) -> Ref:
        return self.op(Opcode.ADD, a, b, modular=int(a.dtype not in (DType.F16, DType.F32)))

    def sub(self, a: Ref, b: Ref) -> Ref:
        return self.op(Opcode.SUB, a, b, modular=int(a.dtype not in (DType.F16, DType.F32)))

    def mul(self, a: Ref, b: Ref) -> Ref:
        return self.op(Opcode.MUL, a, b, modular=int(a.dtype not in (DType.F16, DType.F32)))

    def cast(self, a: Ref, dtype: DType) -> Ref:
        """Conversion to nearest; to f16 with infinities."""
        return a if a.dtype == dtype else self.op(Opcode.CAST, a, dtype2=dtype, modular=1)

    def compare(self, opcode: Opcode, a: Ref, b: Ref) -> Ref:
        return self.op(opcode, a, b, dtype2=DType.I8)

    def select(self, condition: Ref, a: Ref, b: Ref) -> Ref:
        """a where condition, else b; a zero branch costs nothing."""
        zero = 0
        if b.kind == "const" and b.bits == zero:
            return self.op(Opcode.SELECT, a, condition, dtype2=condition.dtype)
        if a.kind == "const" and a.bits == zero:
            return self.op(Opcode.MASK_BAR, b, condition, dtype2=condition.dtype)
        yes = self.op(Opcode.SELECT, a, condition, dtype2=condition.dtype)
        return self.op(Opcode.OR, yes, self.op(Opcode.MASK_BAR, b, condition, dtype2=condition.dtype))

    def magnitude(self, a: Ref) -> Ref:
        """|a| of an f32."""
        return self.op(Opcode.AND, a, self.bits(0x7FFFFFFF))

    def sign_of(self, a: Ref) -> Ref:
        """The sign bit of an f32."""
        return self.op(Opcode.AND, a, self.bits(0x80000000))

    def reciprocal(self, a: Ref, positive: bool) -> Ref:
        """1 / a as rsqrt(|a|)^2 with the sign of a."""
        root = self.op(Opcode.RSQRT, a if positive else self.magnitude(a))
        square = self.mul(root, root)
        return square if positive else self.op(Opcode.XOR, square, self.sign_of(a))

    def nearest(self, a: Ref) -> Ref:
        """The nearest integer of |a| < 2^22, halves to even; larger magnitudes are integers already."""
        magic = self.const(12582912.0)
        rounded = self.sub(self.add(a, magic), magic)
        return self.select(self.compare(Opcode.LT, self.magnitude(a), self.const(4194304.0)), rounded, a)

    def floor(self, a: Ref) -> Ref:
        near = self.nearest(a)
        over = self.compare(Opcode.GT, near, a)
        return self.sub(near, self.op(Opcode.SELECT, self.const(1.0), over, dtype2=DType.I8))

    def truncate(self, a: Ref) -> Ref:
        return self.op(Opcode.OR, self.floor(self.magnitude(a)), self.sign_of(a))

    def exp2_of(self, a: Ref, factor: float) -> Ref:
        return self.op(Opcode.EXP2, self.mul(a, self.const(factor)))

    def polynomial(self, x: Ref, coefficients: list[float]) -> Ref:
        """Horner, highest coefficient first."""
        value = self.add(self.mul(x, self.const(coefficients[0])), self.const(coefficients[1]))
        for c in coefficients[2:]:
            value = self.add(self.mul(value, x), self.const(c))
        return value

    # expressions ---------------------------------------------------------------------------------------------------------
    def lower(self, root: Expr) -> Ref:
        """The ref of an expression's value. Raises UnsupportedOp for an operator without a recipe."""
        folds = _folds(root)
        for entry in postorder(root):
            if id(entry) in self.done:
                continue
            if folds[id(entry)]:
                self.done[id(entry)] = self._fold(entry)
            elif entry.op == "arg":
                self.done[id(entry)] = Ref("arg", ISA_TYPE[entry.dtype], entry.index)
            else:
                self.done[id(entry)] = self._entry(entry, [self.done[id(a)] for a in entry.args])
        return self.done[id(root)]

    def _fold(self, entry: Expr) -> Ref:
        dtype = ISA_TYPE[entry.dtype]
        if any(e.op == "axis" for e in postorder(entry)):
            return Ref("fold", dtype, expr=entry)
        value = np.asarray(evaluate(entry, [], ())).reshape(-1)[:1]
        if entry.dtype is ir_types.BOOL or not entry.dtype.is_float:
            return self.const(int(value[0]), dtype)
        return Ref("const", dtype, bits=int(value.astype(NUMPY[dtype]).view(f"<u{WIDTH[dtype]}")[0]))

    def _entry(self, entry: Expr, args: list[Ref]) -> Ref:
        if entry.op == "cast":
            return self._convert(entry, args[0])
        is_float = entry.args[0].dtype.is_float if entry.op != "select" else False
        if entry.op in _SIMPLE:
            return self._simple(entry.op, args, entry)
        table = _FLOAT if is_float else _INTEGER
        rule = table.get(entry.op)
        if rule is None:
            raise UnsupportedOp(f"the vector unit has no recipe for {entry.op} of {entry.args[0].dtype}")
        if is_float and args[0].dtype == DType.F16:  # functions are f32 only: convert around
            wide = [self.cast(a, DType.F32) for a in args]
            result = rule(self, wide, entry)
            return result if entry.dtype is ir_types.BOOL else self.cast(result, DType.F16)
        return rule(self, args, entry)

    def _simple(self, op: str, args: list[Ref], entry: Expr) -> Ref:
        opcode = _SIMPLE[op]
        if op in ("eq", "ne", "lt", "le", "gt", "ge"):
            return self.compare(opcode, *args)
        if op == "select":
            return self.select(*args)
        if op == "not":
            return self.op(Opcode.XOR, args[0], self.const(1 if entry.dtype is ir_types.BOOL else -1, args[0].dtype))
        modular = int(opcode in (Opcode.ADD, Opcode.SUB, Opcode.MUL, Opcode.NEG) and args[0].dtype not in (DType.F16, DType.F32))
        return self.op(opcode, *args, modular=modular)

    def _convert(self, entry: Expr, a: Ref) -> Ref:
        source, target = entry.args[0].dtype, entry.dtype
        wanted = ISA_TYPE[target]
        if target is ir_types.BOOL:
            return a if source is ir_types.BOOL else self.compare(Opcode.NE, a, self.const(0, a.dtype))
        if source.is_float and target.is_int:
            wide = self.cast(a, DType.F32)
            return self.op(Opcode.CAST, self.truncate(wide), dtype2=wanted)
        if target is ir_types.BF16 and source is not ir_types.BF16:
            raise UnsupportedOp("the vector unit does not round to bf16; precision must have replaced it")
        return self.cast(a, wanted)


def _folds(root: Expr) -> dict[int, bool]:
    """For every entry: no operand below it, so that its value is known when compiling."""
    folds: dict[int, bool] = {}
    for entry in postorder(root):
        folds[id(entry)] = entry.op in ("axis", "const") or (
            entry.op != "arg" and bool(entry.args) and all(folds[id(a)] for a in entry.args)
        )
    return folds


def is_positive(root: Expr, positive: Callable[[int], bool]) -> bool:
    """True where the value is surely > 0 or NaN (exponentials, their sums and products, positive constants, marked operands)."""
    sure: dict[int, bool] = {}
    for entry in postorder(root):
        below = [sure[id(a)] for a in entry.args]
        if entry.op == "const":
            found = float(entry.value or 0) > 0
        elif entry.op in ("add", "mul", "div", "max", "recip"):
            found = all(below)
        elif entry.op == "select":
            found = all(below[1:])
        elif entry.op == "arg":
            found = positive(entry.index)
        else:
            found = entry.op in ("exp", "exp2", "rsqrt", "sqrt")
        sure[id(entry)] = found
    return sure[id(root)]


def positive_nodes(graph: Graph) -> frozenset[int]:
    """Nodes whose every element is surely > 0 or NaN."""
    found: set[int] = set()
    for node in graph.nodes:
        if isinstance(node, Map) or (isinstance(node, Reduce) and node.op in ("sum", "max", "min")):
            inside = [operand in found for operand in node.operands]
            if is_positive(node.expr, inside.__getitem__):
                found.add(node.id)
    return frozenset(found)


_LOG2E, _LN2 = 1.4426950408889634, 0.6931471805599453
_SIMPLE: Mapping[str, Opcode] = {
    "add": Opcode.ADD, "sub": Opcode.SUB, "mul": Opcode.MUL, "neg": Opcode.NEG, "min": Opcode.MIN, "max": Opcode.MAX,
    "and": Opcode.AND, "or": Opcode.OR, "xor": Opcode.XOR, "not": Opcode.XOR, "shl": Opcode.SHL, "shr": Opcode.SHR,
    "eq": Opcode.EQ, "ne": Opcode.NE, "lt": Opcode.LT, "le": Opcode.LE, "gt": Opcode.GT, "ge": Opcode.GE, "select": Opcode.SELECT,
}  # fmt: skip

Rule = Callable[[Recipe, list[Ref], Expr], Ref]


def _div(r: Recipe, a: list[Ref], e: Expr) -> Ref:
    inverse = r.reciprocal(a[1], is_positive(e.args[1], r.positive))
    return inverse if a[0] == r.const(1.0) else r.mul(a[0], inverse)


def _sqrt(r: Recipe, a: list[Ref], e: Expr) -> Ref:
    return r.mul(a[0], r.op(Opcode.RSQRT, r.op(Opcode.MAX, a[0], r.const(1e-37))))


def _tanh(r: Recipe, a: list[Ref], e: Expr) -> Ref:
    grown = r.add(r.exp2_of(a[0], 2 * _LOG2E), r.const(1.0))
    return r.sub(r.const(1.0), r.mul(r.reciprocal(grown, True), r.const(2.0)))


def _erf(r: Recipe, a: list[Ref], e: Expr) -> Ref:
    x = r.magnitude(a[0])
    t = r.reciprocal(r.add(r.mul(x, r.const(0.3275911)), r.const(1.0)), True)
    tail = r.mul(r.polynomial(t, [1.061405429, -1.453152027, 1.421413741, -0.284496736, 0.254829592]), t)
    value = r.sub(r.const(1.0), r.mul(tail, r.exp2_of(r.mul(x, x), -_LOG2E)))
    return r.op(Opcode.XOR, value, r.sign_of(a[0]))


_SIN = [-2.50521084e-08, 2.75573192e-06, -1.98412698e-04, 8.33333333e-03, -1.66666667e-01, 1.0]
_PI_PARTS = (3.140625, 9.67502593994140625e-4, 1.509957990978376432e-7)


def _sine(r: Recipe, x: Ref, shift: float) -> Ref:
    """(-1)^n sin(x - (n + shift) pi) with n the nearest integer of x / pi - shift: sin for shift 0, -cos for 1/2."""
    turns = r.mul(x, r.const(1 / math.pi))
    magic = r.const(12582912.0)
    n = r.sub(r.add(r.sub(turns, r.const(shift)) if shift else turns, magic), magic)
    centre = r.add(n, r.const(shift)) if shift else n
    rest = x
    for part in _PI_PARTS:
        rest = r.sub(rest, r.mul(centre, r.const(part)))
    square = r.mul(rest, rest)
    value = r.mul(r.polynomial(square, _SIN), rest)
    half = r.mul(n, r.const(0.5))
    odd = r.sub(half, r.sub(r.add(half, magic), magic))  # 0 or +-1/2
    return r.mul(value, r.sub(r.const(1.0), r.mul(r.mul(odd, odd), r.const(8.0))))


def _abs(r: Recipe, a: list[Ref], e: Expr) -> Ref:
    return r.magnitude(a[0])


def _pow(r: Recipe, a: list[Ref], e: Expr) -> Ref:
    exponent = e.args[1]
    if exponent.op == "const" and float(exponent.value or 0) == int(exponent.value or 0) and 0 < int(exponent.value or 0) <= 16:
        return _integer_power(r, a[0], int(exponent.value or 0))
    return r.op(Opcode.EXP2, r.mul(a[1], r.op(Opcode.LOG2, a[0])))


def _integer_power(r: Recipe, base: Ref, exponent: int) -> Ref:
    result: Ref | None = None
    square = base
    while exponent:
        if exponent & 1:
            result = square if result is None else r.mul(result, square)
        exponent >>= 1
        if exponent:
            square = r.mul(square, square)
    assert result is not None
    return result


def _sign(r: Recipe, a: list[Ref], e: Expr) -> Ref:
    zero = r.const(0.0)
    up = r.op(Opcode.SELECT, r.const(1.0), r.compare(Opcode.GT, a[0], zero), dtype2=DType.I8)
    return r.sub(up, r.op(Opcode.SELECT, r.const(1.0), r.compare(Opcode.LT, a[0], zero), dtype2=DType.I8))


def _acos(r: Recipe, a: list[Ref], e: Expr) -> Ref:
    """Abramowitz and Stegun 4.4.46: sqrt(1 - |x|) times a polynomial, 2e-8 absolute."""
    x = r.magnitude(a[0])
    poly = r.polynomial(
        x, [-0.0012624911, 0.0066700901, -0.0170881256, 0.0308918810, -0.0501743046, 0.0889789874, -0.2145988016, 1.5707963050]
    )
    value = r.mul(_sqrt(r, [r.sub(r.const(1.0), x)], e), poly)
    negative = r.compare(Opcode.LT, a[0], r.const(0.0))
    return r.select(negative, r.sub(r.const(math.pi), value), value)


_FLOAT: Mapping[str, Rule] = {
    "div": _div,
    "recip": lambda r, a, e: r.reciprocal(a[0], is_positive(e.args[0], r.positive)),
    "sqrt": _sqrt,
    "rsqrt": lambda r, a, e: r.op(Opcode.RSQRT, a[0]),
    "exp": lambda r, a, e: r.exp2_of(a[0], _LOG2E),
    "exp2": lambda r, a, e: r.op(Opcode.EXP2, a[0]),
    "expm1": lambda r, a, e: r.sub(r.exp2_of(a[0], _LOG2E), r.const(1.0)),
    "log": lambda r, a, e: r.mul(r.op(Opcode.LOG2, a[0]), r.const(_LN2)),
    "log1p": lambda r, a, e: r.mul(r.op(Opcode.LOG2, r.add(a[0], r.const(1.0))), r.const(_LN2)),
    "tanh": _tanh,
    "erf": _erf,
    "sin": lambda r, a, e: _sine(r, a[0], 0.0),
    "cos": lambda r, a, e: r.op(Opcode.NEG, _sine(r, a[0], 0.5)),
    "acos": _acos,
    "pow": _pow,
    "abs": _abs,
    "sign": _sign,
    "floor": lambda r, a, e: r.floor(a[0]),
    "ceil": lambda r, a, e: r.op(Opcode.NEG, r.floor(r.op(Opcode.NEG, a[0]))),
    "trunc": lambda r, a, e: r.truncate(a[0]),
    "round": lambda r, a, e: r.nearest(a[0]),
    "fma": lambda r, a, e: r.add(r.mul(a[0], a[1]), a[2]),
    "fmod": lambda r, a, e: r.sub(a[0], r.mul(r.truncate(r.mul(a[0], r.reciprocal(a[1], False))), a[1])),
    "isnan": lambda r, a, e: r.compare(Opcode.NE, a[0], a[0]),
    "isinf": lambda r, a, e: r.compare(Opcode.EQ, r.magnitude(a[0]), r.const(math.inf)),
}


def _idiv(r: Recipe, a: list[Ref], e: Expr) -> Ref:
    """floor(a / b) in f32: exact below 2^22, where (a + 1/2) / b is never closer to an integer than the rounding error."""
    divisor = e.args[1]
    wide = r.add(r.cast(a[0], DType.F32), r.const(0.5))
    if divisor.op == "const":
        return r.cast(r.floor(r.mul(wide, r.const(1.0 / float(divisor.value or 1)))), a[0].dtype)
    return r.cast(r.floor(r.mul(wide, r.reciprocal(r.cast(a[1], DType.F32), False))), a[0].dtype)


_INTEGER: Mapping[str, Rule] = {
    "abs": lambda r, a, e: r.op(Opcode.MAX, a[0], r.op(Opcode.NEG, a[0])),
    "idiv": _idiv,
    "mod": lambda r, a, e: r.sub(a[0], r.mul(_idiv(r, a, e), a[1])),
    "sign": lambda r, a, e: r.op(Opcode.MAX, r.op(Opcode.MIN, a[0], r.const(1, a[0].dtype)), r.const(-1, a[0].dtype)),
}
