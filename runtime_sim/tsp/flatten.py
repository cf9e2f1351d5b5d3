"""A layout laid flat: every burst of its members at its cycle, chip and rows, with the streams it drives and takes.

All is relative to the block. Members are offset additions on whole columns. A *claim* is one driven stream of one burst (MT-5), a *tap*
one stream that a burst takes. Both are progressions of diagonals d0 + k i + k2 i2 on one (chip, direction, stream); `elements` of a claim
or tap are numbered consecutively from its `first`, in order of time. No legality is judged here; `structure.py` has checked the fields.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from ...machines.program import Program
from ...machines.tsp import isa
from ...machines.tsp.description import TspMachine
from ...machines.tsp.geometry import Geometry
from ...machines.tsp.isa import Class, DType, Opcode
from ...machines.tsp.tables import BURSTS, CLAIMS
from .layout import Array, Columns, Layout

ROLE_A, ROLE_B, ROLE_M = 0, 1, 2
_WIDTH = np.array([isa.WIDTH[DType(d)] for d in range(len(DType))], dtype=np.int64)
_CLASS = np.array([int(c) for c in isa.QUEUE_CLASS], dtype=np.int64)
ALU_CODES = np.array(sorted(int(op.opcode) for op in isa.OPS.values() if op.queues == (Class.VXM,)))
ACC_CODES = np.array(sorted(int(code) for code in isa.ACC_OPS))
COMPARE_CODES = np.array(sorted(int(code) for code in isa.COMPARES))
TWO_OPERANDS = np.array(sorted(int(op.opcode) for op in isa.OPS.values() if op.inputs == 2))
MASKED = np.array([int(Opcode.SELECT), int(Opcode.MASK_BAR)])
SXM_CODES = np.array([int(Opcode.TRANSPOSE), int(Opcode.DISTRIBUTE), int(Opcode.PERMUTE), int(Opcode.SHIFT), int(Opcode.BROADCAST)])


@dataclass(frozen=True)
class Flow:
    """Claims or taps as columns of one length.

    `burst` flat burst, `role` operand (taps), `plane` byte plane, `key` (chip 2 + direction) 32 + stream, `pos` place of drive or take,
    `until` last consumer (claims), `d0, n, i, n2, i2` the diagonals, `dtype`, `first` number of the first element.
    """

    columns: Columns
    total: int

    def __getattr__(self, name: str) -> Array:
        try:
            return self.columns[name]
        except KeyError as error:
            raise AttributeError(name) from error

    @property
    def size(self) -> int:
        """Number of claims or taps."""
        return len(self.columns["burst"])

    @cached_property
    def runs(self) -> Columns:
        """Inner progressions: one row per k2, with `owner`, key, d0, n, i, pos, until, first; contiguous outer levels are merged."""
        c = self.columns
        n, i, n2, i2 = c["n"].copy(), c["i"].copy(), c["n2"].copy(), c["i2"].copy()
        single = (n == 1) & (n2 > 1)
        n[single], i[single], n2[single] = n2[single], i2[single], 1
        merged = (n2 > 1) & (i2 == n * i)
        n[merged], n2[merged] = n[merged] * n2[merged], 1
        owner, k2 = expand(n2)
        return {
            "owner": owner, "key": c["key"][owner], "d0": c["d0"][owner] + k2 * i2[owner], "n": n[owner], "i": i[owner],
            "pos": c["pos"][owner], "until": c["until"][owner], "first": c["first"][owner] + k2 * n[owner],
        }  # fmt: skip


def among(code: Array, some: Any) -> Array:
    """Which opcodes are some of these."""
    table = np.zeros(128, bool)
    table[some if isinstance(some, np.ndarray) else [int(one) for one in some]] = True
    result: Array = table[code]
    return result


def expand(counts: Array) -> tuple[Array, Array]:
    """(owner, index) of counts[0] + counts[1] + ... rows: owner r appears counts[r] times with index 0, 1, ..."""
    owner = np.repeat(np.arange(len(counts)), counts)
    starts = np.cumsum(counts) - counts
    return owner, np.arange(len(owner)) - starts[owner]


@dataclass(frozen=True)
class Elements:
    """Elements of the bursts `rows` in order: `owner` position of the burst in `rows`, number in the `inner` and in the `outer` level."""

    rows: Array
    owner: Array
    inner: Array
    outer: Array

    def steps(self, first: Array, step: Array, step2: Array) -> Array:
        """Values that begin with `first` of a burst and change by `step` in the inner level and by `step2` in the outer one."""
        result: Array = first[self.rows][self.owner]
        result += self.inner * step[self.rows][self.owner]
        if (self.outer > 0).any():
            result += self.outer * step2[self.rows][self.owner]
        return result


@dataclass(frozen=True)
class Flat:
    """All bursts of a layout.

    `b` has the columns of BURSTS (t0 from the block's start) and `chip` (local), `instance` (member), `segment, source` (row in the
    segment), `cls` (isa.Class), `alloc` (slot, -1 none), `bound` (number of its object among those of all members), `address` (row of the
    first element in its slot), `low, high` (rows of its object in the slot), `pair`: position of its (slot, MEM unit) in `pair_slot,
    pair_unit`, whose rows are places from `pair_first`.
    """

    machine: TspMachine
    geometry: Geometry
    layout: Layout
    b: Columns
    claims: Flow
    taps: Flow
    chips: int
    pair_slot: Array
    pair_unit: Array
    pair_first: Array
    places: int

    @property
    def size(self) -> int:
        """Number of bursts."""
        return len(self.b["unit"])

    @cached_property
    def count(self) -> Array:
        """Elements of each burst."""
        result: Array = self.b["n"] * self.b["n2"]
        return result

    @cached_property
    def last(self) -> Array:
        """Cycle of the last element of each burst."""
        b = self.b
        result: Array = b["t0"] + (b["n"] - 1) * b["i"] + (b["n2"] - 1) * b["i2"]
        return result

    def of(self, *opcodes: int) -> Array:
        """Flat rows of these opcodes, ascending."""
        return np.flatnonzero(among(self.b["opcode"], opcodes))

    def elements(self, rows: Array) -> Elements:
        """All elements of the bursts `rows`, in order."""
        run, outer = expand(self.b["n2"][rows])
        member, inner = expand(self.b["n"][rows][run])
        return Elements(rows, run[member], inner, outer[member])

    def times(self, e: Elements) -> Array:
        """Cycle of elements."""
        return e.steps(*(self.b[name] for name in ("t0", "i", "i2")))

    def addresses(self, e: Elements) -> Array:
        """Place of elements of MEM bursts; places number the rows of all (slot, MEM unit) pairs."""
        first = np.zeros(self.size, np.int64)
        first[e.rows] = self.place(e.rows)
        return e.steps(first, self.b["stride"], self.b["stride2"])

    def place(self, rows: Array) -> Array:
        """Place of the first element of MEM bursts."""
        result: Array = self.pair_first[self.b["pair"][rows]] + self.b["address"][rows]
        return result

    @cached_property
    def _pair(self) -> Array:
        extent = np.diff(np.append(self.pair_first, self.places))
        return np.repeat(np.arange(len(extent)), extent)

    def within(self, places: Array) -> tuple[Array, Array]:
        """(pair, row from its row 0) of places."""
        pair = self._pair[places]
        return pair, places - self.pair_first[pair]

    @cached_property
    def first_tap(self) -> Array:
        """Number of the first tap element of each burst (0 where it has none)."""
        result = np.zeros(self.size, np.int64)
        result[self.taps.burst[::-1]] = self.taps.first[::-1]
        return result


def _joined(program: Program, segments: Array, table: str, names: list[str]) -> tuple[Columns, Array]:
    """Rows of one table of some segments one after the other, as int64, and the number of rows of each."""
    tables = [program.segments[int(s)].tables[table] for s in segments]
    sizes = np.array([len(t[names[0]]) for t in tables], dtype=np.int64)
    return {name: np.concatenate([np.asarray(t[name], np.int64) for t in tables] or [np.zeros(0, np.int64)]) for name in names}, sizes


def flatten(program: Program, machine: TspMachine, layout: Layout) -> Flat:
    """Lay a block flat. The tables must have passed `structure.check_structure`."""
    geometry = Geometry.of(machine)
    segments, member = np.unique(layout.segments, return_inverse=True)
    source, sizes = _joined(program, segments, "bursts", [c.name for c in BURSTS.columns])
    counts = sizes[member]
    owner, index = expand(counts)
    row = (np.cumsum(sizes) - sizes)[member][owner] + index
    b = {name: column[row] for name, column in source.items()}
    b["t0"] += layout.offsets[owner]
    b |= {"chip": layout.chips[owner], "instance": owner, "segment": layout.segments[owner], "source": index, "cls": _CLASS[b["unit"]]}
    _bind(program, layout, b)
    mem = np.flatnonzero(b["alloc"] >= 0)
    pairs, inverse = np.unique(b["alloc"][mem] * isa.QUEUES + b["unit"][mem], return_inverse=True)
    b["pair"] = np.full(len(row), -1, np.int64)
    b["pair"][mem] = inverse
    extent = layout.rows[pairs // isa.QUEUES]
    claims, claim_sizes = _joined(program, segments, "claims", [c.name for c in CLAIMS.columns])
    claim_owner, claim_index = expand(claim_sizes[member])
    claim_row = (np.cumsum(claim_sizes) - claim_sizes)[member][claim_owner] + claim_index
    first_burst = np.cumsum(counts) - counts
    claim = {name: column[claim_row] for name, column in claims.items()}
    claim["burst"] += first_burst[claim_owner]
    return Flat(
        machine, geometry, layout, b, _claim_flow(machine, geometry, b, claim), _tap_flow(geometry, b),
        int(layout.chips.max(initial=0)) + 1, pairs // isa.QUEUES, pairs % isa.QUEUES, np.cumsum(extent) - extent, int(extent.sum()),
    )  # fmt: skip


def _bind(program: Program, layout: Layout, b: Columns) -> None:
    """Resolve objects: slot (-1 where none), number, first row in the slot, and the object's rows [low, high)."""
    rows = [np.asarray(program.segments[int(s)].tables["objects"]["rows"], np.int64) for s in layout.segments]
    sizes = np.array([len(r) for r in rows], np.int64)
    start = np.cumsum(sizes) - sizes
    has = b["object"] >= 0
    if not len(layout.slot):
        b |= {name: np.zeros_like(b["row"]) for name in ("bound", "address", "low", "high")}
        b["alloc"] = np.full_like(b["row"], -1)
        return
    at = np.where(has, start[b["instance"]] + b["object"], 0)
    b["alloc"] = np.where(has, layout.slot[at], -1)
    b["bound"] = at
    b["low"] = np.where(has, layout.row[at], 0)
    b["high"] = b["low"] + np.where(has, np.concatenate(rows)[at], 0)
    b["address"] = np.where(has, b["low"] + b["row"], 0)


def result_dtype(b: Columns) -> Array:
    """Number format of the result of each burst; NONE for bytes moved by MEM, SXM and links."""
    code, dtype, dtype2 = b["opcode"], b["dtype"], b["dtype2"]
    result = np.zeros_like(code)
    alu = among(code, ALU_CODES)
    result[alu] = dtype[alu]
    other = among(code, COMPARE_CODES) | (code == Opcode.CAST)
    result[other] = dtype2[other]
    return result


def _claim_flow(machine: TspMachine, g: Geometry, b: Columns, claim: Columns) -> Flow:
    row, direction = claim["burst"], claim["direction"]
    code, unit, cls = b["opcode"][row], b["unit"][row], b["cls"][row]
    x, pos, delay = np.zeros_like(row), np.zeros_like(row), np.zeros_like(row)
    mem = cls == Class.MEM
    x[mem] = g.mem_drive_x(unit[mem] // 44, unit[mem] % 44, direction[mem])
    pos[mem] = g.mem_drive(unit[mem] // 44, unit[mem] % 44, direction[mem])
    delay[mem] = np.where(
        code[mem] == Opcode.READ, machine.mem_read,
        np.where(direction[mem] == b["m_dir"][row[mem]], machine.gather_same, machine.gather_turn),
    )  # fmt: skip
    vxm = cls == Class.VXM
    x[vxm], pos[vxm], delay[vxm] = g.vxm_x(direction[vxm]), g.alu_drive(unit[vxm] - isa.VXM_BASE, direction[vxm]), machine.alu
    mxm = cls == Class.MXM_R
    side = (unit[mxm] - isa.MXM_BASE) // 6
    x[mxm], pos[mxm], delay[mxm] = g.sxm_x(side), g.pos(g.sxm_x(side), direction[mxm], 0), machine.mxm_drain
    sxm = (cls >= Class.DISTRIBUTOR) & (cls < Class.C2C)
    side = (unit[sxm] - isa.SXM_BASE) // isa.SXM_QUEUES
    x[sxm], pos[sxm] = g.sxm_x(side), g.sxm_drive(side, direction[sxm])
    for opcode, latency in (
        (Opcode.TRANSPOSE, machine.transposer), (Opcode.DISTRIBUTE, machine.distributor), (Opcode.PERMUTE, machine.permute),
        (Opcode.SHIFT, machine.shift), (Opcode.BROADCAST, machine.broadcast),
    ):  # fmt: skip
        delay[code == opcode] = latency
    c2c = cls == Class.C2C
    side = (unit[c2c] - isa.SXM_BASE) // isa.SXM_QUEUES
    x[c2c], pos[c2c] = g.c2c_x(side), g.c2c_drive(side, direction[c2c])
    t0, n, i, n2, i2 = (b[name][row] for name in ("t0", "n", "i", "n2", "i2"))
    reduce = among(code, ACC_CODES)
    t0, n, i = np.where(reduce, t0 + (n - 1) * i, t0), np.where(reduce, 1, n), np.where(reduce, 1, i)
    dtype = result_dtype(b)[row]
    width = _WIDTH[dtype]
    width[code == Opcode.ACC], width[code == Opcode.TRANSPOSE] = 4, 16
    distribute = code == Opcode.DISTRIBUTE
    width[distribute] = np.where(b["lowest"][row[distribute]] == 1, 4, 8)
    columns = {
        "burst": row, "stream": claim["stream"], "direction": direction, "plane": claim["stream"] % width, "until": claim["until"],
        "key": (b["chip"][row] * 2 + direction) * 32 + claim["stream"], "pos": pos, "d0": t0 + delay - (2 * direction - 1) * x,
        "n": n, "i": i, "n2": n2, "i2": i2, "dtype": dtype, "role": np.zeros_like(row),
    }  # fmt: skip
    return _numbered(columns)


def tap_widths(b: Columns, role: int) -> Array:
    """Streams that each burst takes as operand a, b or map m (0: it has none)."""
    code = b["opcode"]
    width = np.zeros_like(code)
    alu = among(code, ALU_CODES)
    if role == ROLE_A:
        width[alu] = _WIDTH[b["dtype"][alu]]
        width[among(code, (Opcode.LW, Opcode.TRANSPOSE))] = 16
        width[among(code, (Opcode.WRITE, Opcode.SCATTER, Opcode.PERMUTE, Opcode.SHIFT, Opcode.BROADCAST, Opcode.SEND))] = 1
        abc = code == Opcode.ABC
        width[abc] = _WIDTH[b["dtype"][abc]]
        distribute = code == Opcode.DISTRIBUTE
        width[distribute] = np.where(b["lowest"][distribute] == 1, 1, 8)
    elif role == ROLE_B:
        two = alu & among(code, TWO_OPERANDS)
        masked = among(code, MASKED)
        width[two] = np.where(masked[two], _WIDTH[b["dtype2"][two]], _WIDTH[b["dtype"][two]])
    else:
        width[among(code, (Opcode.GATHER, Opcode.SCATTER, Opcode.DISTRIBUTE))] = 1
        width[code == Opcode.PERMUTE] = 2
    return width


def _tap_flow(g: Geometry, b: Columns) -> Flow:
    parts = []
    for role, prefix in ((ROLE_A, "a"), (ROLE_B, "b"), (ROLE_M, "m")):
        width = tap_widths(b, role)
        row, plane = expand(width)
        dtype = b["dtype"][row].copy()
        typed = among(b["opcode"][row], ALU_CODES) | (b["opcode"][row] == Opcode.ABC)
        if role == ROLE_B:
            masked = among(b["opcode"][row], MASKED)
            dtype[masked] = b["dtype2"][row][masked]
        dtype[~typed] = DType.NONE
        parts.append(
            {
                "burst": row, "plane": plane, "role": np.full_like(row, role), "stream": b[f"{prefix}_stream"][row] + plane,
                "direction": b[f"{prefix}_dir"][row], "dtype": dtype,
            }
        )  # fmt: skip
    columns: dict[str, Any] = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    order = np.lexsort((columns["plane"], columns["role"], columns["burst"]))
    columns = {name: column[order] for name, column in columns.items()}
    row, direction = columns["burst"], columns["direction"]
    unit, cls = b["unit"][row], b["cls"][row]
    x, pos = np.zeros_like(row), np.zeros_like(row)
    mem = cls == Class.MEM
    x[mem] = g.mem_take_x(unit[mem] // 44, unit[mem] % 44, direction[mem])
    pos[mem] = g.mem_take(unit[mem] // 44, unit[mem] % 44, direction[mem])
    vxm = cls == Class.VXM
    x[vxm], pos[vxm] = g.vxm_x(direction[vxm]), g.alu_take(unit[vxm] - isa.VXM_BASE, direction[vxm])
    mxm = (cls == Class.MXM_W) | (cls == Class.MXM_A)
    side = (unit[mxm] - isa.MXM_BASE) // 6
    x[mxm], pos[mxm] = g.mxm_x(side), g.mxm_take(side)
    sxm = (cls >= Class.DISTRIBUTOR) & (cls < Class.C2C)
    side = (unit[sxm] - isa.SXM_BASE) // isa.SXM_QUEUES
    x[sxm], pos[sxm] = g.sxm_x(side), g.sxm_take(side, direction[sxm])
    c2c = cls == Class.C2C
    side = (unit[c2c] - isa.SXM_BASE) // isa.SXM_QUEUES
    x[c2c], pos[c2c] = g.c2c_x(side), g.c2c_take(side, direction[c2c])
    columns |= {
        "key": (b["chip"][row] * 2 + direction) * 32 + columns["stream"], "pos": pos, "until": pos,
        "d0": b["t0"][row] - (2 * direction - 1) * x, "n": b["n"][row], "i": b["i"][row], "n2": b["n2"][row], "i2": b["i2"][row],
    }  # fmt: skip
    return _numbered(columns)


def _numbered(columns: Columns) -> Flow:
    count = columns["n"] * columns["n2"]
    columns["first"] = np.cumsum(count) - count
    return Flow(columns, int(count.sum()))
