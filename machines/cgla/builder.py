"""Builders that write the tables of a CGLA program row by row, with names instead of codes and equal sets stored once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any

import numpy as np

from ..program import Binding, Program, Segment, TableType
from . import tables as t
from .description import CglaMachine
from .isa import EXPAND_CODE, MASK_CODE, MEMORY_CODE, OP1_CODE, OP2_CODE, OP3_CODE, Register

Row = dict[str, Any]
Place = tuple[int, int, int]
Descriptor = tuple[int, int, int, int]

_CODES: dict[str, Mapping[str, int]] = {
    "op1": OP1_CODE, "op2": OP2_CODE, "op3": OP3_CODE, "ea0": MEMORY_CODE, "ea1": MEMORY_CODE, "ea0_mask": MASK_CODE,
    "ea1_mask": MASK_CODE, "expand1": EXPAND_CODE, "expand2": EXPAND_CODE, "expand3": EXPAND_CODE,
}  # fmt: skip


def br(col: int, k: int) -> int:
    """The select of BR[row above][col][k]."""
    return 4 * col + k


def slot(row: int, col: int, **fields: int | str) -> Row:
    """One row of `slots` (without its kernel); op, memory, mask and expand fields take mnemonics."""
    result: Row = {"row": row, "col": col}
    for name, value in fields.items():
        result[name] = _CODES[name][value] if isinstance(value, str) else int(value)
    return result


@dataclass(frozen=True)
class HostOperand:
    """An operand of a host nest: strides in items by axis; lookups are (operand number, stride, limit)."""

    symbol: int
    dtype: str
    strides: tuple[int, ...]
    offset: int = 0
    lookups: tuple[tuple[int, int, int], ...] = ()


@dataclass(frozen=True)
class HostExpr:
    """One expression entry: op name, dtype, operands, constant."""

    op: str
    dtype: str
    a: int = -1
    b: int = -1
    c: int = -1
    constant: float = 0


@dataclass
class SegmentBuilder:
    """The tables of one segment while they are written."""

    name: str
    machine: CglaMachine
    rows: dict[str, list[Row]] = field(default_factory=lambda: {table.name: [] for table in t.SEGMENT_TABLES})

    def _add(self, table: str, row: Row) -> int:
        self.rows[table].append(row)
        return len(self.rows[table]) - 1

    def symbol(self, size: int) -> int:
        """A symbol of `size` bytes."""
        return self._add("symbols", {"bytes": size})

    def entry(self, lane: int, kernel: int = -1, registers: int = -1, ranges: int = -1) -> None:
        """What the lane is known to hold when the segment starts."""
        self._add("entry", {"lane": lane, "kernel": kernel, "registers": registers, "ranges": ranges})

    def core_of(self, lane: int) -> int:
        """The host core that serves a lane where nothing else is said."""
        memory = self.machine.memory_of(lane)
        return memory * self.machine.host_cores + (lane % self.machine.lanes_per_memory) % self.machine.host_cores

    def phase(self, kind: t.Phase, lane: int, target: int, start: int, length: int, **more: int) -> int:
        """A CONF, REGV or RANGE phase."""
        row = {"lane": lane, "core": self.core_of(lane), "kind": kind, "target": target, "start": start, "length": length}
        return self._add("phases", {**row, **more})

    def launch(self, lane: int, kernel: int, registers: int, ranges: int, start: int, length: int, **more: int) -> int:
        """A launch."""
        row = {"lane": lane, "core": self.core_of(lane), "kernel": kernel, "registers": registers, "ranges": ranges}
        return self._add("launches", {**row, "start": start, "length": length, **more})

    def dma(
        self, direction: t.Direction, lane: int, tag: int, symbol: int, offset: int, lmm: int, size: int, rows: int, interval: Fraction,
        start: int, length: int, **more: int,
    ) -> int:  # fmt: skip
        """A DMA request; `rows` is the mask of the rows that take or give the beats."""
        row = {
            "direction": direction, "lane": lane, "core": self.core_of(lane), "tag": tag, "symbol": symbol, "offset": offset, "lmm": lmm,
            "bytes": size, "rows": rows, "iv_num": interval.numerator, "iv_den": interval.denominator, "start": start, "length": length,
        }  # fmt: skip
        return self._add("dmas", {**row, **more})

    def host(
        self, kind: t.HostKind, extents: Sequence[int], result: HostOperand, operands: Sequence[HostOperand], exprs: Sequence[HostExpr],
        *, op: str = "", start: int, length: int, core: int = 0, **more: int,
    ) -> int:  # fmt: skip
        """A host task with its axes, operands and expression."""
        ops = {t.HostKind.REDUCE: t.REDUCE_OPS, t.HostKind.SCATTER: t.SCATTER_OPS, t.HostKind.SCAN: t.SCAN_OPS}.get(kind, ("",))
        row: Row = {
            "core": core, "start": start, "length": length, "kind": kind, "op": ops.index(op), "first_axis": len(self.rows["host_axes"]),
            "axes": len(extents), "first_operand": len(self.rows["host_operands"]), "operands": len(operands) + 1,
            "first_expr": len(self.rows["host_exprs"]), "exprs": len(exprs),
        }  # fmt: skip
        for extent in extents:
            self._add("host_axes", {"extent": extent})
        for operand in (result, *operands):
            code = t.HOST_DTYPE_CODE[operand.dtype]
            number = self._add("host_operands", {"symbol": operand.symbol, "offset": operand.offset, "dtype": code})
            for axis, stride in enumerate(operand.strides):
                if stride and extents[axis] > 1:
                    self._add("host_terms", {"operand": number, "axis": axis, "stride": stride})
            for index, stride, limit in operand.lookups:
                self._add("host_lookups", {"operand": number, "index": index, "stride": stride, "limit": limit})
        for expr in exprs:
            real = expr.dtype in ("f32", "f16", "bf16", "f64")
            self._add("host_exprs", {
                "op": t.EXPR_CODE[expr.op], "dtype": t.HOST_DTYPE_CODE[expr.dtype], "a": expr.a, "b": expr.b, "c": expr.c,
                "real": float(expr.constant) if real else 0.0, "integer": 0 if real else int(expr.constant),
            })  # fmt: skip
        return self._add("host_tasks", {**row, **more})

    def build(self) -> Segment:
        """The finished segment."""
        return Segment(self.name, {table.name: table.from_rows(self.rows[table.name]) for table in t.SEGMENT_TABLES})


@dataclass
class ProgramBuilder:
    """The tables of a program while they are written; kernels, register sets and range sets that are equal are stored once."""

    machine: CglaMachine
    rows: dict[str, list[Row]] = field(default_factory=lambda: {table.name: [] for table in t.PROGRAM_TABLES})
    segments: list[SegmentBuilder] = field(default_factory=list)
    images: dict[str, np.ndarray] = field(default_factory=dict)
    bindings: list[Binding] = field(default_factory=list)
    provenance: dict[str, int] = field(default_factory=dict)
    ddr_end: int = 0
    _known: dict[tuple[str, Any], int] = field(default_factory=dict)
    _sets: dict[str, int] = field(default_factory=lambda: {"registers": 0, "descriptors": 0})

    def source(self, text: str) -> int:
        """The number of a provenance string."""
        return self.provenance.setdefault(text, len(self.provenance))

    def kernel(self, slots: Sequence[Row], provenance: int = -1) -> int:
        """A kernel of `slot(...)` rows."""
        key = ("kernel", tuple(tuple(sorted(row.items())) for row in slots))
        if key not in self._known:
            number = len(self.rows["kernels"])
            self._known[key] = number
            self.rows["kernels"].append({"provenance": provenance})
            self.rows["slots"] += [{**row, "kernel": number} for row in slots]
        return self._known[key]

    def register_set(self, values: Mapping[Place, int]) -> int:
        """A register set of (row, col, Register) -> value."""
        key = ("registers", tuple(sorted(values.items())))
        if key not in self._known:
            number = self._next("registers")
            self._known[key] = number
            self.rows["registers"] += [
                {"set": number, "row": r, "col": c, "register": k, "value": v} for (r, c, k), v in sorted(values.items())
            ]
        return self._known[key]

    def range_set(self, ranges: Mapping[tuple[int, int], Descriptor]) -> int:
        """A range set of (row, col) -> (top, bottom, write, read)."""
        key = ("descriptors", tuple(sorted(ranges.items())))
        if key not in self._known:
            number = self._next("descriptors")
            self._known[key] = number
            self.rows["descriptors"] += [
                {"set": number, "row": r, "col": c, "top": top, "bottom": bottom, "write": write, "read": read}
                for (r, c), (top, bottom, write, read) in sorted(ranges.items())
            ]
        return self._known[key]

    def _next(self, table: str) -> int:
        self._sets[table] += 1
        return self._sets[table] - 1

    def buffer(self, kind: t.BufferKind, size: int, binding: Binding | None = None, image: np.ndarray | None = None) -> int:
        """A DDR buffer behind the last one; IMAGE buffers take their content."""
        number = len(self.rows["buffers"])
        bound = -1
        if binding is not None:
            bound = len(self.bindings)
            self.bindings.append(binding)
        self.rows["buffers"].append({"kind": kind, "address": self.ddr_end, "bytes": size, "binding": bound})
        self.ddr_end += -(-size // 32) * 32
        if image is not None:
            self.images[t.image_name(number)] = image
        return number

    def segment(self, name: str) -> SegmentBuilder:
        """A new segment."""
        self.segments.append(SegmentBuilder(name, self.machine))
        return self.segments[-1]

    def instance(self, segment: SegmentBuilder, cycle: int, binds: Mapping[int, tuple[int, int]], provenance: int = -1) -> int:
        """An instance of a segment with symbol -> (buffer, offset)."""
        number = len(self.rows["instances"])
        position = next(i for i, known in enumerate(self.segments) if known is segment)
        self.rows["instances"].append({"segment": position, "cycle": cycle, "provenance": provenance})
        self.rows["binds"] += [
            {"instance": number, "symbol": symbol, "buffer": buffer, "offset": offset} for symbol, (buffer, offset) in sorted(binds.items())
        ]
        return number

    def build(self, predicted_cycles: int, **more: Any) -> Program:
        """The finished program; `more` are further fields of `Program` (bound, meta)."""
        program_tables: dict[str, Any] = {table.name: _table(table, self.rows[table.name]) for table in t.PROGRAM_TABLES}
        return Program(
            "cgla", self.machine.to_json(), tuple(self.bindings), program_tables, tuple(s.build() for s in self.segments), self.images,
            predicted_cycles, provenance=tuple(self.provenance), **more,
        )  # fmt: skip


def _table(table: TableType, rows: Sequence[Row]) -> dict[str, np.ndarray]:
    return table.from_rows(rows)


@dataclass
class LaneState:
    """The registers of a lane as an emitter knows them: counts the stores of each phase and remembers what they leave."""

    rows: int
    kernel: Mapping[tuple[int, int], Row] | None = None
    values: dict[Place, int] = field(default_factory=dict)
    ranges: dict[tuple[int, int], Descriptor] = field(default_factory=dict)

    def configure(self, slots: Sequence[Row]) -> int:
        """Slots whose word changes with this kernel."""
        defaults = {column.name: column.default for column in t.SLOTS.columns}
        wanted = {(row["row"], row["col"]): {**defaults, **row, "kernel": 0} for row in slots}
        held = self.kernel
        self.kernel = wanted
        if held is None:
            return self.rows * 4
        return sum(held.get(place) != wanted.get(place) for place in held.keys() | wanted.keys())

    def write_registers(self, values: Mapping[Place, int]) -> int:
        """Stores that this register set needs."""
        changed = {place for place, value in values.items() if self.values.get(place) != value}
        self.values.update(values)
        return len({(r, c, k if k <= Register.BR3 else 4 + (k - 4) // 2) for r, c, k in changed})

    def write_ranges(self, ranges: Mapping[tuple[int, int], Descriptor]) -> int:
        """Stores that this range set needs."""
        changed = sum(self.ranges.get(place) != descriptor for place, descriptor in ranges.items())
        self.ranges.update(ranges)
        return changed
