"""The tables of a CGLA program: the contract between the emitter and the executor.

**Program level** (in `Program.tables`): `kernels`, `slots`, `registers`, `descriptors`, `buffers`, `instances`, `binds`.
**Segment level** (in `Segment.tables`): `symbols`, `entry`, `phases`, `launches`, `dmas`, `host_tasks`, `host_operands`,
`host_terms`, `host_lookups`, `host_axes`, `host_exprs`. A table without rows is present and empty.

*Kernel* = the configuration of the 256 slots of a lane (`slots` rows of one kernel number; slots without a row are not valid).
*Register set* = every host-written register a launch relies on: BR constants and EA base and offset registers (`registers` rows of
one set number). *Range set* = the descriptors of a lane (`descriptors` rows of one set number). Sets are complete, not deltas.

**Register state.** A `CONF` phase names a kernel, `REGV` a register set, `RANGE` a range set. The phase writes what its set holds and
the lane does not hold yet; its length follows from that number (2.11). A register keeps its value until written. A launch names the
kernel, register set and range set that it relies on; every value of them must be what the lane holds (CGLA-031). CONF replaces the
whole configuration: slots that the kernel does not have are cleared. REGV and RANGE leave registers outside their set as they are;
a range set writes `write = read = 0` where a stale descriptor must not take beats.

**Segments and instances.** Times in a segment are relative to its instance's `cycle`; DDR is named by *symbols* (numbers 0.. of the
segment's `symbols` table). `instances` lists the runs of segments in order of time; their windows [cycle, cycle + length of the
segment) may not overlap. `binds` gives each (instance, symbol) its buffer and byte offset. At the entry of a segment its `entry` rows
declare, for each lane, the kernel, register set and range set that the lane is known to hold (-1: nothing known); the executor
verifies them at every seam against what the instance before left (values outside the declared sets count as unknown inside the
segment). No LMM line is valid at the entry of a segment. So one check of a segment holds for all its instances.

**DDR.** Every buffer has an address (multiple of 32) and a size; buffers do not overlap. `IMAGE` buffers hold `Program.images` of the
name `image_name(buffer)`; `INPUT`, `OUTPUT` and `STATE` buffers belong to the binding of number `binding` (row-major, in the binding's
`stored` dtype, one of `HOST_DTYPES`, at byte 0), and a `STATE` buffer starts as its image where the program has one, else as zeros;
`WORK` buffers hold nothing at the start.
"""

from __future__ import annotations

from enum import IntEnum

from ..program import Column, Table, TableType
from .isa import Address, BrInput, Source, StoreData


class BufferKind(IntEnum):
    """What a DDR buffer is for."""

    IMAGE = 0
    INPUT = 1
    OUTPUT = 2
    STATE = 3
    WORK = 4


class Phase(IntEnum):
    """Register phases of a lane."""

    CONF = 0
    REGV = 1
    RANGE = 2


class Direction(IntEnum):
    """Direction of a DMA: DDR to LMM, LMM to DDR."""

    LOAD = 0
    DRAIN = 1


class HostKind(IntEnum):
    """Kinds of host loop nests: see `HOST_TASKS`."""

    MAP = 0
    REDUCE = 1
    SCATTER = 2
    SORT = 3
    SCAN = 4


HOST_DTYPES: tuple[str, ...] = ("f32", "f16", "bf16", "f64", "i64", "i32", "i16", "i8", "u8", "bool")
HOST_DTYPE_CODE: dict[str, int] = {name: code for code, name in enumerate(HOST_DTYPES)}
DTYPE_BYTES: dict[str, int] = {
    "f32": 4, "f16": 2, "bf16": 2, "f64": 8, "i64": 8, "i32": 4, "i16": 2, "i8": 1, "u8": 1, "bool": 1,
}  # fmt: skip

REDUCE_OPS: tuple[str, ...] = ("sum", "prod", "max", "min", "any", "all", "argmax", "argmin")
SCATTER_OPS: tuple[str, ...] = ("set", "add", "max", "min")
SCAN_OPS: tuple[str, ...] = ("add", "mul", "max", "min", "linear")

LEAVES: tuple[str, ...] = ("arg", "axis", "const")
UNARY: tuple[str, ...] = (
    "neg", "abs", "exp", "exp2", "expm1", "log", "log1p", "sqrt", "rsqrt", "recip", "sin", "cos", "tanh", "erf", "acos",
    "floor", "ceil", "trunc", "round", "sign", "not", "isnan", "isinf", "cast",
)  # fmt: skip
BINARY: tuple[str, ...] = (
    "add", "sub", "mul", "div", "min", "max", "idiv", "mod", "fmod", "shl", "shr", "and", "or", "xor", "pow", "atan2",
    "eq", "ne", "lt", "le", "gt", "ge",
)  # fmt: skip
TERNARY: tuple[str, ...] = ("select", "fma")
EXPR_OPS: tuple[str, ...] = LEAVES + UNARY + BINARY + TERNARY
EXPR_CODE: dict[str, int] = {name: code for code, name in enumerate(EXPR_OPS)}
SPECIAL_OPS: frozenset[str] = frozenset(
    {"exp", "exp2", "expm1", "log", "log1p", "sqrt", "rsqrt", "recip", "sin", "cos", "tanh", "erf", "acos", "pow", "atan2", "div",
     "fmod", "idiv", "mod"}
)  # fmt: skip
"""Expression entries timed at the host's `special` rate; the other non-leaf entries are flops (casts included)."""


def image_name(buffer: int) -> str:
    """Name in `Program.images` of the content of an IMAGE buffer."""
    return f"buffer.{buffer}"


def _ints(*columns: tuple[str, str]) -> tuple[Column, ...]:
    return tuple(Column(name, "int64", doc) for name, doc in columns)


def _slot_columns() -> tuple[Column, ...]:
    select = "one of the 16 BRs above as 4 * column + k (fold: of the same row), -1 unused"
    columns = [
        Column("kernel", "int32", "kernel number"),
        Column("row", "int16", "row 0..63"),
        Column("col", "int16", "slot 0..3"),
        Column("op1", "int16", "code in isa.OP1"),
        Column("mode", "int16", "op1 mode (CVT field, X_H2F: 0 low halves, 1 high halves)"),
        Column("op2", "int16", "code in isa.OP2"),
        Column("op3", "int16", "code in isa.OP3"),
    ]
    columns += [Column(f"ex{i}", "int16", f"operand {i}: {select}", default=-1) for i in (1, 2, 3)]
    columns += [Column(f"expand{i}", "int16", f"code in isa.EXPAND for operand {i}") for i in (1, 2, 3)]
    columns += [
        Column("self", "int16", "1: ex1 is the slot's own last result (2.2)"),
        Column("init", "int16", "bit 0: ex1 from its BR at first(n); bit 1: src2 = 0 unless n = 0 or first(n)"),
        Column("fold", "int16", "1: operands from the BRs of the same row, 8 cycles later (2.3)"),
        Column("src4", "int16", "isa.Source of op2's operand"),
        Column("imm4", "uint64", "64-bit immediate of op2, 0 unless src4 = IMM"),
        Column("src5", "int16", "isa.Source of op3's operand (NONE, IMM, EX3)"),
        Column("imm5", "int16", "6-bit immediate of op3, 0 unless src5 = IMM"),
    ]
    columns += [Column(f"pred{i}", "int16", f"predicate input c{i}: {select} (reads 0)", default=-1) for i in range(4)]
    columns += [Column("truth", "int32", "16-entry truth table: bit (c3 c2 c1 c0); 65535 enables always", default=0xFFFF)]
    for ea in ("ea0", "ea1"):
        columns += [
            Column(ea, "int16", "code in isa.MEMORY"),
            Column(f"{ea}_base", "int16", "isa.Address of the base: NONE (zero), REG (own register) or BR (`br_base`)"),
            Column(f"{ea}_offset", "int16", "isa.Address of the offset: NONE, REG or BR (`br_offset`)"),
            Column(f"{ea}_mask", "int16", "code in isa.MASK applied to the offset, whole (D0) or a zero-extended part"),
        ]
    columns += [
        Column("br_base", "int16", f"the slot's one BR select for bases: {select}", default=-1),
        Column("br_offset", "int16", f"the slot's one BR select for offsets: {select}", default=-1),
        Column("store", "int16", "isa.StoreData of the EA0 store"),
    ]
    columns += [Column(f"tr{k}", "int16", "a BR above (0..15), 16: the slot's ALU result, -1 unused", default=-1) for k in range(4)]
    columns += [Column(f"br{k}", "int16", f"isa.BrInput that drives BR[row][col][{k}]") for k in range(4)]
    columns += [Column("lmm", "int16", "LMM partition of the slot: 1 whole, 2 half (col div 2), 3 quarter (col)", default=1)]
    return tuple(columns)


KERNELS = TableType("kernels", (Column("provenance", "int32", "row of Program.provenance, -1 none", default=-1),))
"""One row a kernel; its row number is the kernel number."""

SLOTS = TableType("slots", _slot_columns())
"""One row a configured slot; (kernel, row, col) is unique. N comes from the constants that the FOR slots (0,0) and (0,1) read: ex1 is
the constant L0 (L1), ex2 the constant -1 (as two 32-bit words, or only the low one)."""

REGISTERS = TableType(
    "registers",
    (
        Column("set", "int32", "register set number"),
        Column("row", "int16", "row"),
        Column("col", "int16", "slot"),
        Column("register", "int16", "isa.Register"),
        Column("value", "uint64", "value; EA registers below 2^31"),
    ),
)
"""(set, row, col, register) is unique. Writing base, offset or both of one EA is one 16-byte store."""

DESCRIPTORS = TableType(
    "descriptors",
    (
        Column("set", "int32", "range set number"),
        Column("row", "int16", "row"),
        Column("col", "int16", "slot (the tag c of DMA requests)"),
        Column("top", "int64", "first logical byte, multiple of 4"),
        Column("bottom", "int64", "last logical byte, inclusive; bottom + 1 a multiple of 4"),
        Column("write", "int16", "1: takes beats of LOADs with tag col"),
        Column("read", "int16", "1: gives beats to DRAINs with tag col"),
    ),
)

BUFFERS = TableType(
    "buffers",
    (
        Column("kind", "int16", "BufferKind"),
        Column("address", "int64", "DDR byte address, multiple of 32"),
        Column("bytes", "int64", "size, at least 1"),
        Column("binding", "int32", "row of Program.bindings for INPUT, OUTPUT, STATE; else -1", default=-1),
    ),
)

INSTANCES = TableType(
    "instances",
    (
        Column("segment", "int32", "position in Program.segments"),
        Column("cycle", "int64", "cycle of the segment's time 0"),
        Column("provenance", "int32", "row of Program.provenance, -1 none", default=-1),
    ),
)

BINDS = TableType(
    "binds",
    (
        Column("instance", "int32", "row of instances"),
        Column("symbol", "int32", "symbol of the instance's segment"),
        Column("buffer", "int32", "row of buffers"),
        Column("offset", "int64", "byte of the buffer where the symbol starts, multiple of 32"),
    ),
)

SYMBOLS = TableType("symbols", (Column("bytes", "int64", "bytes of the symbol; the segment touches no byte outside"),))
"""One row a symbol; its row number is the symbol number. All symbols of an instance are bound, to disjoint bytes where one is written."""

ENTRY = TableType(
    "entry",
    (
        Column("lane", "int16", "lane; a lane without a row enters with nothing known"),
        Column("kernel", "int32", "kernel that the lane holds, -1 not known", default=-1),
        Column("registers", "int32", "register set whose values the lane holds, -1 none", default=-1),
        Column("ranges", "int32", "range set whose descriptors the lane holds, -1 none", default=-1),
    ),
)

PHASES = TableType(
    "phases",
    (
        Column("lane", "int16", "lane"),
        Column("core", "int16", "host core that stores the registers; of the lane's memory"),
        Column("kind", "int16", "Phase"),
        Column("target", "int32", "kernel, register set or range set that is written"),
        Column("start", "int64", "first cycle"),
        Column("length", "int64", "cycles, by 2.11"),
        Column("provenance", "int32", "row of Program.provenance, -1 none", default=-1),
    ),
)

LAUNCHES = TableType(
    "launches",
    (
        Column("lane", "int16", "lane"),
        Column("core", "int16", "host core, busy for t_launch from `start`"),
        Column("kernel", "int32", "kernel relied on"),
        Column("registers", "int32", "register set relied on"),
        Column("ranges", "int32", "range set relied on, -1: no descriptor"),
        Column("start", "int64", "first cycle; EXEC starts t_launch later"),
        Column("length", "int64", "cycles: t_launch + EXEC"),
        Column("provenance", "int32", "row of Program.provenance, -1 none", default=-1),
    ),
)

DMAS = TableType(
    "dmas",
    (
        Column("lane", "int16", "lane"),
        Column("core", "int16", "host core, busy for t_dma from `start`"),
        Column("direction", "int16", "Direction"),
        Column("tag", "int16", "slot c whose descriptors take or give the beats"),
        Column("symbol", "int32", "DDR symbol"),
        Column("offset", "int64", "DDR byte inside the symbol"),
        Column("index_symbol", "int32", "symbol of an i32 or i64 value v that the host adds to the address, -1 none", default=-1),
        Column("index_offset", "int64", "byte of the value inside that symbol"),
        Column("index_bytes", "int16", "4 or 8 with an index, else 0"),
        Column("index_stride", "int64", "DDR address = symbol + offset + v * index_stride, multiple of 32"),
        Column("index_limit", "int64", "0 <= v < index_limit"),
        Column("lmm", "int64", "logical LMM byte address, congruent to the DDR address mod 32"),
        Column("bytes", "int64", "length, multiple of 4, at least 8"),
        Column("iv_num", "int64", "cycles a beat as a fraction: numerator"),
        Column("iv_den", "int64", "denominator", default=1),
        Column("rows", "uint64", "bit r: row r takes beats (LOAD) or gives them (DRAIN)"),
        Column("start", "int64", "first cycle; beats run from start + t_dma"),
        Column("length", "int64", "cycles: t_dma + ceil(beats * iv)"),
        Column("provenance", "int32", "row of Program.provenance, -1 none", default=-1),
    ),
)

HOST_TASKS = TableType(
    "host_tasks",
    (
        Column("core", "int16", "host core"),
        Column("start", "int64", "first cycle"),
        Column("length", "int64", "cycles, by section 8"),
        Column("kind", "int16", "HostKind"),
        Column("op", "int16", "REDUCE: REDUCE_OPS; SCATTER: SCATTER_OPS; SCAN: SCAN_OPS; else 0"),
        Column("axis", "int16", "SORT, SCAN: the axis that is sorted or scanned; else -1", default=-1),
        Column("flag", "int16", "SORT: 1 descending; SCAN: 1 reverse; else 0"),
        Column("count", "int64", "SORT: number of first elements kept; else 0"),
        Column("first_axis", "int32", "rows of host_axes"),
        Column("axes", "int32", "number of axes"),
        Column("first_operand", "int32", "rows of host_operands; the first one is the result"),
        Column("operands", "int32", "number of operands, the result included"),
        Column("first_expr", "int32", "rows of host_exprs; the last one is the root"),
        Column("exprs", "int32", "number of entries; SORT has none: it takes operand 1 as it is; so has SCAN"),
        Column("label", "int32", "row of Program.provenance: the name that `host_ops` counts, -1 the kind's name", default=-1),
        Column("provenance", "int32", "row of Program.provenance, -1 none", default=-1),
    ),
)
"""One host loop nest over `axes`; all operands are read before the result is written, so that a task may work in place. At each
point every operand has one element (`host_operands`), and

- MAP: result = expr. One MAP writes each result element once; Move pieces, fills, casts, gathers (operands with lookups) are MAPs.
- REDUCE: the axes without a term in the result are reduced: result = op over them of expr. Sums and products accumulate in f32 for
  f16, bf16, f32, in f64 for f64 and i64 for integers; argmax and argmin give the row-major position among the reduced axes (first wins,
  NaN wins over all); max and min propagate NaN.
- SCATTER: result element (whose position has lookups) = op(old, expr); `set`: last in row-major order wins. The old content stays.
- SORT: along `axis` the stable order (positions as integers) of operand 1; NaN sorts as largest; the result keeps the first `count`,
  so its own extent on that axis is `count`.
- SCAN: inclusive scan along `axis` of operand 1; `linear`: h[t] = a[t] h[t-1] + b[t] with operands a, b and optionally h[-1]
  (operand 3, without a term on `axis`).

Cost: ceil(bytes / memcpy) + ceil(flops / flop rate) + ceil(special / special rate) + call cycles, where bytes = for each operand the
product of the extents of the axes it depends on (an operand with lookups: of all axes of its lookups too) times its item size, flops =
points * (entries of the expression that are neither leaves nor special, +1 for REDUCE, SCATTER and SCAN, +ceil(log2(extent)) for SORT),
special = points * special entries (`SPECIAL_OPS`)."""

HOST_AXES = TableType("host_axes", (Column("extent", "int64", "extent of the axis, at least 1"),))

HOST_OPERANDS = TableType(
    "host_operands",
    (
        Column("symbol", "int32", "DDR symbol"),
        Column("offset", "int64", "byte inside the symbol, multiple of the item size"),
        Column("dtype", "int16", "position in HOST_DTYPES of the stored elements"),
    ),
)
"""Element position (in items from `offset`) = sum of stride * axis (`host_terms`) + sum of stride * value (`host_lookups`). bf16 is
stored as the upper half of f32, bool as a byte. All positions lie inside the symbol."""

HOST_TERMS = TableType("host_terms", _ints(("operand", "row of host_operands"), ("axis", "axis 0.."), ("stride", "in items")))

HOST_LOOKUPS = TableType(
    "host_lookups",
    _ints(
        ("operand", "row of host_operands whose position is looked up"),
        ("index", "which operand of the task (1..) holds the integer value, without lookups itself"),
        ("stride", "in items"),
        ("limit", "0 <= value < limit"),
    ),
)

HOST_EXPRS = TableType(
    "host_exprs",
    (
        Column("op", "int16", "code in EXPR_OPS"),
        Column("dtype", "int16", "position in HOST_DTYPES of the entry; f16 and bf16 compute in f32 and round here"),
        Column("a", "int32", "first operand: entry of this expression; arg: operand of the task (1..); axis: axis", default=-1),
        Column("b", "int32", "second operand", default=-1),
        Column("c", "int32", "third operand", default=-1),
        Column("real", "float64", "const of a float dtype"),
        Column("integer", "int64", "const of an integer or bool dtype"),
    ),
)

PROGRAM_TABLES: tuple[TableType, ...] = (KERNELS, SLOTS, REGISTERS, DESCRIPTORS, BUFFERS, INSTANCES, BINDS)
SEGMENT_TABLES: tuple[TableType, ...] = (
    SYMBOLS, ENTRY, PHASES, LAUNCHES, DMAS, HOST_TASKS, HOST_AXES, HOST_OPERANDS, HOST_TERMS, HOST_LOOKUPS, HOST_EXPRS,
)  # fmt: skip

Tables = dict[str, Table]

__all__ = [
    "BINARY", "BINDS", "BUFFERS", "DESCRIPTORS", "DMAS", "DTYPE_BYTES", "ENTRY", "EXPR_CODE", "EXPR_OPS", "HOST_AXES", "HOST_DTYPES",
    "HOST_DTYPE_CODE", "HOST_EXPRS", "HOST_LOOKUPS", "HOST_OPERANDS", "HOST_TASKS", "HOST_TERMS", "INSTANCES", "KERNELS", "LAUNCHES",
    "LEAVES", "PHASES", "PROGRAM_TABLES", "REDUCE_OPS", "REGISTERS", "SCAN_OPS", "SCATTER_OPS", "SEGMENT_TABLES", "SLOTS", "SPECIAL_OPS",
    "SYMBOLS", "TERNARY", "UNARY", "Address", "BrInput", "BufferKind", "Direction", "HostKind", "Phase", "Source", "StoreData", "Tables",
    "image_name",
]  # fmt: skip
