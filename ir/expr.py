"""Scalar expressions: a hash-consed DAG, one pool per process, compared by identity.

Leaves are `arg(i, dtype)` (operand i read at the current point), `axis(i)` (an i64) and `const(value, dtype)`. Every entry has a dtype
and its value is rounded to it, so an interpreter knows where half precision rounds. There is no implicit promotion: mixed operands
are refused when an entry is made. Local rewrites that never change float rounding are applied here, on construction.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from .types import BF16, BOOL, F32, F64, I64, DType

Number = int | float | bool


@dataclass(frozen=True, slots=True)
class OpRule:
    """One operator: number of operands, what types it takes (`float int bool number any`) and the result (`same bool`)."""

    arity: int
    takes: str
    gives: str = "same"


OPS: dict[str, OpRule] = {
    **{name: OpRule(2, "number") for name in ("add", "sub", "mul", "min", "max")},
    **{name: OpRule(2, "float") for name in ("div", "pow", "atan2")},
    **{name: OpRule(2, "int") for name in ("idiv", "mod", "shl", "shr")},
    "fmod": OpRule(2, "number"),
    "fma": OpRule(3, "float"),
    **{name: OpRule(1, "number") for name in ("neg", "abs", "sign")},
    **{name: OpRule(2, "bits") for name in ("and", "or", "xor")},
    "not": OpRule(1, "bits"),
    **{
        name: OpRule(1, "float")
        for name in (
            "exp", "exp2", "expm1", "log", "log1p", "sqrt", "rsqrt", "recip", "sin", "cos", "tanh", "erf", "acos",
            "floor", "ceil", "trunc", "round",
        )
    },
    **{name: OpRule(1, "float", "bool") for name in ("isnan", "isinf")},
    **{name: OpRule(2, "any", "bool") for name in ("eq", "ne", "lt", "le", "gt", "ge")},
    "select": OpRule(3, "any"),
    "cast": OpRule(1, "any"),
}  # fmt: skip


class Expr:
    """One entry of the DAG. Equal entries are the same object. `size` counts the entries of the tree below it, shared ones each time."""

    __slots__ = ("_order", "args", "dtype", "index", "op", "size", "value")

    def __init__(self, op: str, dtype: DType, args: tuple[Expr, ...], value: Number | None, index: int) -> None:
        self.op = op
        self.dtype = dtype
        self.args = args
        self.value = value
        self.index = index
        self.size: int = 1 + sum(a.size for a in args)
        self._order: tuple[Expr, ...] | None = None

    def __repr__(self) -> str:
        if self.op == "arg":
            return f"arg{self.index}"
        if self.op == "axis":
            return f"axis{self.index}"
        if self.op == "const":
            return repr(self.value)
        return f"{self.op}:{self.dtype}({', '.join(map(repr, self.args))})"

    def __reduce__(self) -> tuple[object, tuple[object, ...]]:
        return (_intern, (self.op, self.dtype, self.args, self.value, self.index))

    def __deepcopy__(self, memo: object) -> Expr:
        return self


_pool: dict[tuple[object, ...], Expr] = {}


def _intern(op: str, dtype: DType, args: tuple[Expr, ...] = (), value: Number | None = None, index: int = -1) -> Expr:
    bits = struct.pack("<d", value) if isinstance(value, float) else value  # -0.0 and 0.0 differ, nan equals itself
    key = (op, dtype.name, tuple(map(id, args)), type(value).__name__, bits, index)
    found = _pool.get(key)
    if found is None:
        found = _pool[key] = Expr(op, dtype, args, value, index)
    return found


def arg(index: int, dtype: DType) -> Expr:
    """The value of operand `index` at the current point."""
    return _intern("arg", dtype, (), None, index)


def axis(index: int) -> Expr:
    """The position on axis `index`, as i64."""
    return _intern("axis", I64, (), None, index)


def const(value: Number, dtype: DType = F32) -> Expr:
    """A literal, rounded to the given type. Raises ValueError for an infinity or NaN of integer type."""
    if dtype.is_float:
        value = nearest(float(value), dtype)
    elif dtype.kind == "bool":
        value = bool(value)
    else:
        if isinstance(value, float) and not math.isfinite(value):
            raise ValueError(f"{value} is not an {dtype}")
        value = int(value)
    return _intern("const", dtype, (), value)


def nearest(value: float, dtype: DType) -> float:
    """`value` rounded to a float type, ties to even, overflow to infinity."""
    if dtype is F64 or not math.isfinite(value):
        return value
    if dtype is BF16:
        bits = int(np.float32(_single(value)).view(np.uint32))
        return float(np.uint32((bits + 0x7FFF + ((bits >> 16) & 1)) & 0xFFFF0000).view(np.float32))
    return _single(value) if dtype is F32 else _half(value)


def _single(value: float) -> float:
    with np.errstate(over="ignore"):
        return float(np.float32(value))


def _half(value: float) -> float:
    with np.errstate(over="ignore"):
        return float(np.float16(value))


def make(op: str, *args: Expr) -> Expr:
    """The entry `op(args)`; raises TypeError for mixed or wrong operand types. Use `cast` for casts."""
    rule = OPS[op]
    if len(args) != rule.arity:
        raise TypeError(f"{op} takes {rule.arity} operands, not {len(args)}")
    values = args[1:] if op == "select" else args
    if op == "select" and args[0].dtype is not BOOL:
        raise TypeError(f"select needs a bool, not {args[0].dtype}")
    first = values[0].dtype
    if any(v.dtype is not first for v in values):
        raise TypeError(f"{op} has mixed operands {', '.join(v.dtype.name for v in values)}")
    ok = {
        "float": first.is_float, "int": first.is_int, "number": first.kind != "bool",
        "bits": not first.is_float, "any": True,
    }[rule.takes]  # fmt: skip
    if not ok:
        raise TypeError(f"{op} does not take {first}")
    simpler = _rewrite(op, args)
    return simpler if simpler is not None else _intern(op, BOOL if rule.gives == "bool" else first, args)


def cast(value: Expr, dtype: DType) -> Expr:
    """`value` converted to `dtype` (float to int truncates and saturates, NaN gives 0; to bool is `ne 0`)."""
    if value.dtype is dtype:
        return value
    if value.op == "const" and value.value is not None:
        number = value.value
        if dtype.is_float and not value.dtype.is_float:
            return const(float(number), dtype)
        if dtype.kind == "bool":
            return const(number != 0, dtype)
        if not value.dtype.is_float and dtype.is_int:
            wrapped = int(number) & ((1 << dtype.bits) - 1)
            if dtype.name != "u8" and wrapped >> (dtype.bits - 1):
                wrapped -= 1 << dtype.bits
            return const(wrapped, dtype)
    return _intern("cast", dtype, (value,))


def _is(value: Expr, number: Number) -> bool:
    return value.op == "const" and value.value == number


def _rewrite(op: str, args: tuple[Expr, ...]) -> Expr | None:
    """A simpler entry that equals `op(args)` bit for bit, or None."""
    a = args[0]
    b = args[1] if len(args) > 1 else a
    if op == "mul":
        if _is(b, 1):
            return a
        if _is(a, 1):
            return b
    elif op in ("add", "sub") and not a.dtype.is_float:
        if _is(b, 0):
            return a
        if op == "add" and _is(a, 0):
            return b
    elif op in ("add", "sub") and _is(b, 0) and str(b.value) == ("-0.0" if op == "add" else "0.0"):
        return a  # x + -0.0 and x - 0.0 are x for every x, x + 0.0 is not (x = -0.0)
    elif op == "div" and _is(b, 1):
        return a
    elif op == "not" and a.op == "not":
        return a.args[0]
    elif op in ("and", "or") and a.dtype is BOOL:
        for x, y in ((a, b), (b, a)):
            if x.op == "const":
                return (y if x.value else x) if op == "and" else (x if x.value else y)
        if a is b:
            return a
    elif op == "select":
        if a.op == "const":
            return args[1] if a.value else args[2]
        if args[1] is args[2]:
            return args[1]
    elif op in ("eq", "le", "ge") and a is b and not a.dtype.is_float:
        return const(True, BOOL)
    elif op in ("ne", "lt", "gt") and a is b and not a.dtype.is_float:
        return const(False, BOOL)
    elif op in ("min", "max") and a is b:
        return a
    if op == "pow" and b.op == "const":
        return _power(a, float(b.value or 0.0))
    return _fold_integers(op, args)


def _power(base: Expr, exponent: float) -> Expr | None:
    if exponent == 2.0:
        return make("mul", base, base)
    if exponent == 3.0:
        return make("mul", make("mul", base, base), base)
    if exponent == 0.5:
        return make("sqrt", base)
    if exponent == -0.5:
        return make("rsqrt", base)
    if exponent == -1.0:
        return make("recip", base)
    if exponent == 1.0:
        return base
    return None


_INTEGER: dict[str, Callable[..., Number]] = {
    "add": lambda x, y: x + y, "sub": lambda x, y: x - y, "mul": lambda x, y: x * y, "neg": lambda x: -x, "abs": abs,
    "min": min, "max": max, "idiv": lambda x, y: x // y, "mod": lambda x, y: x % y,
    "eq": lambda x, y: x == y, "ne": lambda x, y: x != y, "lt": lambda x, y: x < y, "le": lambda x, y: x <= y,
    "gt": lambda x, y: x > y, "ge": lambda x, y: x >= y, "not": lambda x: (not x) if isinstance(x, bool) else ~x,
    "and": lambda x, y: x & y, "or": lambda x, y: x | y, "xor": lambda x, y: x ^ y,
}  # fmt: skip


def _fold_integers(op: str, args: tuple[Expr, ...]) -> Expr | None:
    """Constants of integer and bool type are computed here; floats are left to the interpreter, which owns their rounding."""
    if op not in _INTEGER or any(a.op != "const" or a.dtype.is_float for a in args):
        return None
    if op in ("idiv", "mod") and args[1].value == 0:
        return None
    value = _INTEGER[op](*(a.value for a in args))
    result = BOOL if OPS[op].gives == "bool" else args[0].dtype
    if result.is_int and not -(1 << (result.bits - 1)) <= value < (1 << (result.bits - 1)):
        return None
    return const(value, result)


def postorder(root: Expr) -> tuple[Expr, ...]:
    """Every distinct entry below `root`, operands before users, in a fixed order."""
    if root._order is None:
        seen: set[int] = set()
        order: list[Expr] = []
        stack: list[tuple[Expr, bool]] = [(root, False)]
        while stack:
            entry, done = stack.pop()
            if done:
                order.append(entry)
            elif id(entry) not in seen:
                seen.add(id(entry))
                if entry.args:
                    stack.append((entry, True))
                    stack.extend((a, False) for a in reversed(entry.args))
                else:
                    order.append(entry)
        root._order = tuple(order)
    return root._order


def entries(root: Expr) -> Iterator[Expr]:
    """The operators of `root` (no leaves), operands first: what a machine must execute a point."""
    return (e for e in postorder(root) if e.args)


def substitute(root: Expr, *, args: Callable[[Expr], Expr] | None = None, axes: Callable[[Expr], Expr] | None = None) -> Expr:
    """`root` with its `arg` and `axis` leaves replaced; entries are made again, so local rewrites apply."""
    done: dict[int, Expr] = {}
    for entry in postorder(root):
        if entry.op == "arg":
            new = args(entry) if args else entry
        elif entry.op == "axis":
            new = axes(entry) if axes else entry
        elif not entry.args:
            new = entry
        else:
            new = rebuild(entry, [done[id(a)] for a in entry.args])
        done[id(entry)] = new
    return done[id(root)]


def rebuild(entry: Expr, new_args: Sequence[Expr]) -> Expr:
    """The same operator over other operands."""
    return cast(new_args[0], entry.dtype) if entry.op == "cast" else make(entry.op, *new_args)


def args_of(root: Expr) -> tuple[int, ...]:
    """Operand numbers that `root` reads, ascending."""
    return tuple(sorted({e.index for e in postorder(root) if e.op == "arg"}))


def axes_of(root: Expr) -> tuple[int, ...]:
    """Axes whose position `root` uses as a value, ascending."""
    return tuple(sorted({e.index for e in postorder(root) if e.op == "axis"}))


def uses_of(root: Expr) -> list[int]:
    """Operands of an expression in the order of its text."""
    found: dict[int, None] = {}
    seen: set[int] = set()
    stack = [root]
    while stack:
        entry = stack.pop()
        if id(entry) not in seen:
            seen.add(id(entry))
            if entry.op == "arg":
                found.setdefault(entry.index)
            stack.extend(reversed(entry.args))
    return list(found)
