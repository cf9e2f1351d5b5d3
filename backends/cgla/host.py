"""Host tasks: loop nests over DDR operands, as the program tables hold them, and their time (model section 8).

A nest is built from IR nodes or from layout changes; every operand is a symbol (a piece of DDR) with one stride an axis, in items.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from math import ceil, log2, prod

from ...ir.expr import Expr, postorder
from ...machines.cgla.description import CglaMachine
from ...machines.cgla.tables import (
    DTYPE_BYTES,
    EXPR_CODE,
    HOST_DTYPE_CODE,
    LEAVES,
    REDUCE_OPS,
    SCAN_OPS,
    SCATTER_OPS,
    SPECIAL_OPS,
    HostKind,
)
from ...machines.cgla.timing import host_cycles


@dataclass(frozen=True)
class HostLookup:
    """A dimension whose position is the value of task operand `index` (1..): `stride` items a step, `limit` positions."""

    index: int
    stride: int
    limit: int


@dataclass(frozen=True)
class HostOperand:
    """One operand: `symbol` from byte `offset` on, items of `dtype`, `strides` in items by axis (axes without a term are absent)."""

    symbol: int
    dtype: str
    strides: Mapping[int, int]
    offset: int = 0
    lookups: tuple[HostLookup, ...] = ()


@dataclass(frozen=True)
class ExprRow:
    """One entry of a host expression, as the table `host_exprs` has it."""

    op: str
    dtype: str
    a: int = -1
    b: int = -1
    c: int = -1
    real: float = 0.0
    integer: int = 0

    def row(self) -> dict[str, float | int]:
        """The columns of the table."""
        return {
            "op": EXPR_CODE[self.op], "dtype": HOST_DTYPE_CODE[self.dtype], "a": self.a, "b": self.b, "c": self.c,
            "real": self.real, "integer": self.integer,
        }  # fmt: skip


@dataclass(frozen=True)
class HostTask:
    """One loop nest; `operands[0]` is the result, `label` the name that is counted in `host_ops`."""

    kind: HostKind
    extents: tuple[int, ...]
    operands: tuple[HostOperand, ...]
    exprs: tuple[ExprRow, ...] = ()
    op: str = ""
    axis: int = -1
    flag: int = 0
    count: int = 0
    label: str = ""
    provenance: str = field(default="", compare=False)

    @property
    def op_code(self) -> int:
        names = {HostKind.REDUCE: REDUCE_OPS, HostKind.SCATTER: SCATTER_OPS, HostKind.SCAN: SCAN_OPS}.get(self.kind, ())
        return names.index(self.op) if self.op else 0

    def data_bytes(self) -> int:
        """Bytes counted by the cost rule: every operand over the axes it depends on."""
        total = 0
        for operand in self.operands:
            axes = {a for a, s in operand.strides.items() if s}
            for lookup in operand.lookups:
                axes |= {a for a, s in self.operands[lookup.index].strides.items() if s}
            points = prod(self.extents[a] for a in axes)
            if self.kind == HostKind.SORT and operand is self.operands[0]:
                points = points // self.extents[self.axis] * self.count
            total += points * DTYPE_BYTES[operand.dtype]
        return total

    def cycles(self, machine: CglaMachine) -> int:
        """Length of the task on one core."""
        points = prod(self.extents)
        special = sum(1 for e in self.exprs if e.op in SPECIAL_OPS)
        flops = sum(1 for e in self.exprs if e.op not in SPECIAL_OPS and e.op not in LEAVES)
        if self.kind in (HostKind.REDUCE, HostKind.SCATTER, HostKind.SCAN):
            flops += 1
        if self.kind == HostKind.SORT:
            flops += ceil(log2(max(self.extents[self.axis], 2)))
        return host_cycles(machine, self.data_bytes(), points * flops, points * special)

    def span(self, number: int, size: int) -> tuple[int, int]:
        """Bytes [low, high) of its symbol (of `size` bytes) that an operand may touch."""
        operand = self.operands[number]
        item = DTYPE_BYTES[operand.dtype]
        low = high = operand.offset
        for axis, stride in operand.strides.items():
            extent = self.count if self.kind == HostKind.SORT and not number and axis == self.axis else self.extents[axis]
            reach = stride * (extent - 1) * item
            low, high = low + min(reach, 0), high + max(reach, 0)
        for lookup in operand.lookups:
            reach = lookup.stride * (lookup.limit - 1) * item
            low, high = low + min(reach, 0), high + max(reach, 0)
        return max(low, 0), min(high + item, size)

    def split(self, parts: int) -> list[HostTask]:
        """The task as about `parts` tasks over blocks of the result, outermost axes first; alone where no axis can be cut."""
        axis = self._cut_axis() if parts > 1 else None
        if axis is None:
            return [self]
        extent = self.extents[axis]
        if extent < parts:
            slices = [self._slice(axis, low, low + 1) for low in range(extent)]
            return [part for piece in slices for part in piece.split(-(-parts // extent))]
        edges = [extent * i // parts for i in range(parts + 1)]
        return [self._slice(axis, low, high) for low, high in pairwise(edges)]

    def _cut_axis(self) -> int | None:
        """The axis with the largest step in the result, of those that can be cut; axes that the expression uses as values come last."""
        if self.kind not in (HostKind.MAP, HostKind.REDUCE):
            return None
        result = self.operands[0]
        valued = {e.a for e in self.exprs if e.op == "axis"}
        order = [a for a, extent in enumerate(self.extents) if extent > 1 and result.strides.get(a)]
        order.sort(key=lambda a: (a in valued, -abs(result.strides[a]), a))
        return order[0] if order else None

    def _slice(self, axis: int, low: int, high: int) -> HostTask:
        extents = tuple(high - low if a == axis else e for a, e in enumerate(self.extents))
        operands = tuple(replace(o, offset=o.offset + low * o.strides.get(axis, 0) * DTYPE_BYTES[o.dtype]) for o in self.operands)
        return replace(self, extents=extents, operands=operands, exprs=_shifted(self.exprs, axis, low))


def _shifted(exprs: tuple[ExprRow, ...], axis: int, low: int) -> tuple[ExprRow, ...]:
    """The expression with `low` added to every use of an axis."""
    if not low or not any(e.op == "axis" and e.a == axis for e in exprs):
        return exprs
    rows: list[ExprRow] = []
    moved: dict[int, int] = {}
    for number, entry in enumerate(exprs):
        if entry.op not in LEAVES:
            entry = replace(entry, a=moved.get(entry.a, -1), b=moved.get(entry.b, -1), c=moved.get(entry.c, -1))
        rows.append(entry)
        if entry.op == "axis" and entry.a == axis:
            rows.append(ExprRow("const", entry.dtype, integer=low))
            rows.append(ExprRow("add", entry.dtype, len(rows) - 2, len(rows) - 1))
        moved[number] = len(rows) - 1
    return tuple(rows)


def encode(
    root: Expr, args: Mapping[int, int], axes: Mapping[int, Sequence[tuple[int, int]]] | None = None, cast: str = ""
) -> tuple[ExprRow, ...]:
    """Rows of an IR expression. `args` maps operand numbers to task operands, `axes` an axis to its digits as (task axis, step)
    pairs (itself where absent); `cast` adds a last conversion."""
    rows: list[ExprRow] = []
    place: dict[int, int] = {}
    for entry in postorder(root):
        name = entry.dtype.name
        if entry.op == "arg":
            rows.append(ExprRow("arg", name, args[entry.index]))
        elif entry.op == "axis":
            _axis(rows, (axes or {}).get(entry.index, [(entry.index, 1)]))
        elif entry.op == "const":
            value = entry.value if entry.value is not None else 0
            real = float(value) if entry.dtype.is_float else 0.0
            rows.append(ExprRow("const", name, real=real, integer=0 if entry.dtype.is_float else int(value)))
        else:
            operands = [place[id(a)] for a in entry.args]
            rows.append(ExprRow(entry.op, name, *operands))
        place[id(entry)] = len(rows) - 1
    if cast and cast != root.dtype.name:
        rows.append(ExprRow("cast", cast, len(rows) - 1))
    return tuple(rows)


def _axis(rows: list[ExprRow], digits: Sequence[tuple[int, int]]) -> None:
    """The position on a split axis: the sum of its digits times their steps."""
    total = -1
    for axis, step in digits or [(-1, 0)]:
        if axis < 0:
            rows.append(ExprRow("const", "i64"))
        else:
            rows.append(ExprRow("axis", "i64", axis))
        if axis >= 0 and step != 1:
            rows.append(ExprRow("const", "i64", integer=step))
            rows.append(ExprRow("mul", "i64", len(rows) - 2, len(rows) - 1))
        if total >= 0:
            rows.append(ExprRow("add", "i64", total, len(rows) - 1))
        total = len(rows) - 1


def identity(source: str, target: str) -> tuple[ExprRow, ...]:
    """Operand 1 as it is, converted to `target`."""
    rows = (ExprRow("arg", source, 1),)
    return rows if source == target else (*rows, ExprRow("cast", target, 0))


def constant(value: float | int | bool, dtype: str) -> tuple[ExprRow, ...]:
    """A literal."""
    if dtype in ("f16", "f32", "f64", "bf16"):
        return (ExprRow("const", dtype, real=float(value)),)
    return (ExprRow("const", dtype, integer=int(value)),)
