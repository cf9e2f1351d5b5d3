"""Scalar expressions over a nest, one burst an operator, in f32 and i32 scratch memory.

Every entry of the (lowered) expression is computed over only those axes that it depends on: a row's scale factor is computed once a
row and then read with stride 0. Truth values are 1 or 0 in the format in which they were compared. Entries are freed after their last
use; a nest whose temporaries do not fit is cut by the caller.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import prod

from ...errors import UnsupportedOp
from ...ir.expr import Expr, postorder
from ...ir.types import BOOL
from ...machines.wafer.isa import Element, Fmt, Op
from .emitter import Emitter, Role
from .layout import Ref, row_major
from .lines import PLAIN

CONVERT = {
    (Element.F16, Element.F32): Fmt.F16_F32, (Element.F32, Element.F16): Fmt.F32_F16, (Element.F32, Element.I32): Fmt.F32_I32,
    (Element.I32, Element.F32): Fmt.I32_F32, (Element.F16, Element.I16): Fmt.F16_I16, (Element.I16, Element.F16): Fmt.I16_F16,
    (Element.I16, Element.F32): Fmt.I16_F32, (Element.F32, Element.I16): Fmt.F32_I16, (Element.I16, Element.I32): Fmt.I16_I32,
    (Element.I32, Element.I16): Fmt.I32_I16,
}  # fmt: skip
_UNARY = {
    "neg": Op.NEG, "abs": Op.ABS, "exp": Op.EXP, "exp2": Op.EXP2, "log": Op.LOG, "sqrt": Op.SQRT, "rsqrt": Op.RSQRT, "recip": Op.RCP,
    "sin": Op.SIN, "cos": Op.COS, "erf": Op.ERF, "floor": Op.FLOOR,
}  # fmt: skip
_BINARY = {
    "add": Op.ADD, "sub": Op.SUB, "mul": Op.MUL, "div": Op.DIV, "min": Op.MIN, "max": Op.MAX, "eq": Op.CMP_EQ, "ne": Op.CMP_NE,
    "lt": Op.CMP_LT, "le": Op.CMP_LE, "gt": Op.CMP_GT, "ge": Op.CMP_GE, "shl": Op.SHL, "shr": Op.SHR, "and": Op.AND, "or": Op.OR,
    "xor": Op.XOR,
}  # fmt: skip
_TRUTH = {"and": Op.MUL, "or": Op.MAX, "xor": Op.CMP_NE, "eq": Op.CMP_EQ, "ne": Op.CMP_NE, "lt": Op.CMP_LT, "le": Op.CMP_LE,
          "gt": Op.CMP_GT, "ge": Op.CMP_GE}  # fmt: skip


@dataclass
class _Buffer:
    """A computed entry: where it lies and whether its memory is ours to free; a literal has a value instead."""

    ref: Ref | None
    fmt: Element
    owned: bool = False
    value: float | None = None


Leaf = Callable[[int], Ref]
"""The reference of operand `index` (or of axis positions) over the nest's axes."""


def convert(e: Emitter, role: Role, axes: Sequence[int], d: Ref, a: Ref) -> None:
    """d = a over the nest, in d's format."""
    if d.fmt == a.fmt:
        e.vec(Op.MOV, PLAIN[d.fmt], role, axes, d, a)
    elif (a.fmt, d.fmt) in CONVERT:
        e.vec(Op.CVT, CONVERT[a.fmt, d.fmt], role, axes, d, a)
    else:  # the only missing pair: through f32
        middle = e.scratch(Element.F32, prod(axes))
        walk = Ref(middle.obj, Element.F32, 0, row_major(axes))
        convert(e, role, axes, walk, a)
        convert(e, role, axes, d, walk)
        e.free(middle.obj)


class Evaluator:
    """Evaluates expressions over one nest (`axes`: extents on one core)."""

    def __init__(self, e: Emitter, role: Role, axes: Sequence[int], leaf: Leaf) -> None:
        self.e, self.role, self.axes, self.leaf = e, role, tuple(axes), leaf
        self._holders: dict[int, int] = {}

    def dense(self, fmt: Element, deps: Sequence[bool]) -> Ref:
        """New scratch over the axes marked in `deps`."""
        shape = [n if dep else 1 for n, dep in zip(self.axes, deps, strict=True)]
        block = self.e.scratch(fmt, prod(shape))
        strides = tuple(s if dep else 0 for s, dep in zip(row_major(shape), deps, strict=True))
        self._holders[block.obj] = 1
        return Ref(block.obj, fmt, 0, strides)

    def store(self, root: Expr, d: Ref) -> None:
        """d = root at every point; d's strides belong to the nest's axes."""
        result = self.evaluate(root, d)
        if result.ref is d:
            return
        if result.value is not None:
            self.e.vec(Op.MOV, PLAIN[d.fmt], self.role, self.axes, d, result.value)
        else:
            assert result.ref is not None
            convert(self.e, self.role, self.axes, d, result.ref)
            self._free(result)

    def evaluate(self, root: Expr, into: Ref | None = None) -> _Buffer:
        """The value of `root`; the last operator writes to `into` where formats allow."""
        order = postorder(root)
        uses: dict[int, int] = {}
        for entry in order:
            for a in entry.args:
                uses[id(a)] = uses.get(id(a), 0) + 1
        done: dict[int, _Buffer] = {}
        casts: dict[tuple[int, Element], _Buffer] = {}
        for entry in order:
            target = into if entry is root else None
            done[id(entry)] = self._entry(entry, [done[id(a)] for a in entry.args], casts, target)
            for a in dict.fromkeys(entry.args):
                uses[id(a)] -= entry.args.count(a)
                if uses[id(a)] == 0:
                    self._drop(done, casts, a)
        result = done[id(root)]
        for buffer in casts.values():
            self._free(buffer)
        return result

    def _drop(self, done: dict[int, _Buffer], casts: dict[tuple[int, Element], _Buffer], entry: Expr) -> None:
        buffer = done[id(entry)]
        for key in [k for k in casts if k[0] == id(buffer)]:
            self._free(casts.pop(key))
        self._free(buffer)

    def _free(self, buffer: _Buffer) -> None:
        if buffer.owned and buffer.ref is not None:
            buffer.owned = False
            self._holders[buffer.ref.obj] -= 1
            if self._holders[buffer.ref.obj] == 0:
                self.e.free(buffer.ref.obj)

    def _deps(self, *refs: Ref | None) -> list[bool]:
        found = [r.strides for r in refs if r is not None]
        return [any(s[x] for s in found) for x in range(len(self.axes))]

    def _as(self, buffer: _Buffer, fmt: Element, casts: dict[tuple[int, Element], _Buffer]) -> _Buffer:
        """The buffer in another format, converted once."""
        if buffer.value is not None or buffer.fmt == fmt:
            return buffer
        key = (id(buffer), fmt)
        if key not in casts:
            assert buffer.ref is not None
            deps = self._deps(buffer.ref)
            ref = self.dense(fmt, deps)
            convert(self.e, self.role, [n if dep else 1 for n, dep in zip(self.axes, deps, strict=True)], ref, buffer.ref)
            casts[key] = _Buffer(ref, fmt, True)
        return casts[key]

    def _fits(self, into: Ref | None, fmt: Element, deps: Sequence[bool]) -> bool:
        """Whether a result over `deps` may be written straight to `into`."""
        return into is not None and into.fmt == fmt and all(dep or n == 1 for dep, n in zip(deps, self.axes, strict=True))

    def _write(self, op: Op, fmt: Element, into: Ref | None, a: _Buffer, b: _Buffer | None = None) -> _Buffer:
        """One operator. A literal first operand is an immediate, a literal second operand the scalar."""
        deps = self._deps(a.ref, b.ref if b else None)
        direct = self._fits(into, fmt, deps)
        d = into if direct and into is not None else self.dense(fmt, deps)
        axes = [n if dep else 1 for n, dep in zip(self.axes, deps, strict=True)]
        if b is None:
            self.e.vec(op, PLAIN[fmt], self.role, axes, d, a.ref)
        elif b.ref is None:
            self.e.vec(op, PLAIN[fmt], self.role, axes, d, a.ref if a.ref is not None else a.value, None, b.value)
        else:
            self.e.vec(op, PLAIN[fmt], self.role, axes, d, a.ref if a.ref is not None else a.value, b.ref)
        return _Buffer(d, fmt, not direct)

    def _entry(self, entry: Expr, args: list[_Buffer], casts: dict[tuple[int, Element], _Buffer], into: Ref | None) -> _Buffer:
        if entry.op == "const":
            assert entry.value is not None
            return _Buffer(None, Element.F32, False, float(entry.value))
        if entry.op == "arg":
            ref = self.leaf(entry.index)
            return _Buffer(ref, ref.fmt)
        if entry.op == "cast":
            return self._cast(entry, args[0], casts)
        if all(a.value is not None for a in args):
            args = [self._literal(args[0], entry.args[0]), *args[1:]]
        if entry.op == "select":
            return self._select(entry, args, casts, into)
        source = entry.args[0].dtype
        if source is BOOL:
            work = next((a.fmt for a in args if a.value is None and a.fmt in (Element.F32, Element.I32)), Element.I32)
        else:
            work = Element.F32 if source.is_float else Element.I32
        args = [self._as(a, work, casts) for a in args]
        if entry.op in _UNARY:
            return self._write(_UNARY[entry.op], work, into, args[0])
        table = _TRUTH if source is BOOL else _BINARY
        if entry.op not in table:
            raise UnsupportedOp(f"the wafer has no operation {entry.op} on {source}")
        return self._write(table[entry.op], work, into, args[0], args[1])

    def _share(self, a: _Buffer) -> _Buffer:
        """The same memory under another entry."""
        if a.owned and a.ref is not None:
            self._holders[a.ref.obj] += 1
        return _Buffer(a.ref, a.fmt, a.owned)

    def _literal(self, buffer: _Buffer, entry: Expr) -> _Buffer:
        """A literal laid into memory, where an operator has no memory operand at all."""
        fmt = Element.F32 if entry.dtype.is_float else Element.I32
        ref = self.dense(fmt, [False] * len(self.axes))
        self.e.vec(Op.MOV, PLAIN[fmt], self.role, [1] * len(self.axes), ref, buffer.value)
        return _Buffer(ref, fmt, True)

    def _cast(self, entry: Expr, a: _Buffer, casts: dict[tuple[int, Element], _Buffer]) -> _Buffer:
        if a.value is not None:
            return a
        if entry.dtype is BOOL:
            if entry.args[0].dtype is BOOL:
                return self._share(a)
            work = Element.F32 if entry.args[0].dtype.is_float else Element.I32
            return self._write(Op.CMP_NE, work, None, self._as(a, work, casts), _Buffer(None, work, False, 0.0))
        work = Element.F32 if entry.dtype.is_float else Element.I32
        if a.fmt == work:
            return self._share(a)
        assert a.ref is not None
        deps = self._deps(a.ref)
        ref = self.dense(work, deps)
        convert(self.e, self.role, [n if dep else 1 for n, dep in zip(self.axes, deps, strict=True)], ref, a.ref)
        return _Buffer(ref, work, True)

    def _select(self, entry: Expr, args: list[_Buffer], casts: dict[tuple[int, Element], _Buffer], into: Ref | None) -> _Buffer:
        """d = b where the condition is not 0, else the other value: one SEL with an immediate, or a move and a masked move."""
        work = Element.F32 if entry.dtype.is_float else Element.I32
        if entry.dtype is BOOL:
            work = next((a.fmt for a in args if a.value is None and a.fmt in (Element.F32, Element.I32)), Element.I32)
        condition, yes, no = (self._as(a, work, casts) for a in args)
        deps = self._deps(condition.ref, yes.ref, no.ref)
        axes = [n if dep else 1 for n, dep in zip(self.axes, deps, strict=True)]
        direct = self._fits(into, work, deps)
        d = into if direct and into is not None else self.dense(work, deps)
        fmt = PLAIN[work]
        if no.value is not None and yes.value is None:
            self.e.vec(Op.SEL, fmt, self.role, axes, d, condition.ref, yes.ref, no.value)
        else:
            self.e.vec(Op.MOV, fmt, self.role, axes, d, no.ref if no.ref is not None else no.value)
            self.e.vec(Op.SEL, fmt, self.role, axes, d, condition.ref, yes.ref if yes.ref is not None else yes.value)
        return _Buffer(d, work, not direct)
