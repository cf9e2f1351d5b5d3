"""The tables of a TSP program: the contract between whoever writes programs and the executor (docs/tsp-model.md).

A **segment** holds `bursts`, `claims` and `objects`; times are relative to its instances, memory rows relative to its objects. An
**instance** runs a segment on a chip at a cycle; `binds` says for each (instance, object) which **allocation** it is. So thirty equal
layers are one segment, thirty instances and thirty times as many binds.

*Element (k2, k)*, k < n, k2 < n2, of a burst happens at `offset + t0 + k i + k2 i2` (MT-8). The outer level is optional (n2 = 1, i2 = 0);
where it is used, i2 > (n - 1) i, so that elements are in order of time. Steps of a level with one element are canonical: i = 1, stride = 0,
entry_stride = 0 where n = 1; i2, stride2, entry_stride2 = 0 where n2 = 1 (`canonical` sees to it).

*Memory.* MEM bursts name an object; the slice is the unit. The row of an element is `allocation.row + bind.row + row + k stride + k2
stride2` in bank `allocation.bank`. It must lie in the object's rows, and the slice in the object's masks (TSP-002). Slices are never
remapped: they decide the timing. Gather and Scatter have no row: the map holds rows of the bank (absolute, 0..4095), which must lie in
the object's rows (TSP-012).

*Streams.* Operands a, b and map m name their first stream and direction (0 W, 1 E); how many adjacent streams they take follows from
opcode and dtype: LW, TRANSPOSE 16; DISTRIBUTE 8 (lowest: 1), its map 1; PERMUTE 1, its map 2 (low byte, high byte of the source lane);
ABC 1 (I8) or 2 (F16: low, high); ALU operands 1, 2 or 4, aligned to that; all others 1. Byte plane p of an operand is its stream + p.

*Claims.* Every stream that a burst drives is one row of `claims`: the burst (row number in this segment), stream, direction and `until`,
the pos of its last consumer (MT-5; `geometry.Geometry` gives the pos of every unit). A result wider than a byte claims each of its
streams; byte plane p is the stream with `stream % width == p` (width of the result: ALU by dtype, ACC 4, TRANSPOSE 16, DISTRIBUTE 8 or
lowest 4). An ALU may claim several groups, in both directions. Elements of a claim are those of its burst, except `acc` ALU operations
with `last`, which drive only after the last k of each k2, and those without `last`, which drive nothing.

| opcode | unit | drives at |
| --- | --- | --- |
| READ | MEM | t + mem_read, at the drive stop of the slice |
| GATHER | MEM | t + gather_turn if the data leaves against the map's direction, else t + gather_same |
| ALU operations | ALU | t + alu, at the ALU's write place |
| ACC with emit | MXM R | t + mxm_drain (34), at stop S inward, 4 streams SG4-aligned |
| TRANSPOSE, DISTRIBUTE, PERMUTE, SHIFT, BROADCAST | SXM | t + latency, at stop S |
| RECEIVE | C2C | t, at the C2C stop; the matching SEND is at t - c2c_hop |

Operands are taken at t at the unit's stop. fp16 uses plane pairs (0, 1) and (2, 3): the even plane is loaded with the low bytes of the
weights, the odd one with the high bytes; both A queues run equal ABC bursts (same t0, n, i, n2, i2, a, half), both R queues their ACC.
The ACC of an ABC burst starts 14 later with the same n, i, n2, i2.

*Program tables.* `instances`, `binds`, `allocations`, `placements`, `links`. Constants: image `image.K` (uint8 [slices, rows, 320],
slices of the allocation in ascending order, West first) is loaded into allocation A before cycle 0 where `placements` has the row (K, A).
INPUT and STATE allocations are zero before cycle 0 where no binding covers them. Regions of inputs lie in INPUT, of states in STATE, of
outputs in OUTPUT, STATE or CONST allocations; every INPUT, STATE and OUTPUT allocation has a region, every CONST one a placement.

*Bindings.* `Binding.where` is a list of regions, JSON objects with these keys:

| key | meaning |
| --- | --- |
| `allocation` | row of `allocations` |
| `row` | first row, relative to the allocation |
| `start`, `shape` | the box of the logical tensor that the region holds |
| `lane_axis` | axis along lanes, or null: one element a vector |
| `lane_tile`, `lane_offset` | elements of the lane axis in one vector, and the lane of the first |
| `broadcast` | with lane_axis null: the element fills all lanes (inputs only), else it lies in lane `lane_offset` |
| `strides` | per axis of the box: vectors from one index to the next (of the lane axis: from one tile to the next) |
| `planes` | per byte plane, low first: list of [hemisphere, slice]. vector v is in slice `planes[p][v % L]`, row `row + v // L` |

Element type and number of planes follow from `Binding.stored` (`f16 f32 i8 i16 i32 u8 bool`). Lanes of a vector that hold no element are
0. The regions of an input must cover it, and may overlap (copies); of an output or state, the first region that holds an element is read
after the end.
"""

from __future__ import annotations

from enum import IntEnum

import numpy as np

from ..program import Column, TableType


class Kind(IntEnum):
    """What an allocation is. CONST, INPUT, STATE live from before cycle 0; STATE and OUTPUT to the end; CONST is never written."""

    CONST = 0
    INPUT = 1
    STATE = 2
    OUTPUT = 3
    SCRATCH = 4


def _c(name: str, doc: str, dtype: str = "int32", default: int = 0) -> Column:
    return Column(name, dtype, doc, (), default)


BURSTS = TableType(
    "bursts",
    (
        _c("unit", "queue 0..143 (isa.mem_unit, alu_unit, mxm_unit, sxm_unit)", "int16"),
        _c("opcode", "isa.Opcode", "int16"),
        _c("t0", "cycle of the first element, relative to the instance", "int64"),
        _c("n", "elements of the inner level", default=1),
        _c("i", "cycles between them", default=1),
        _c("n2", "repetitions of the inner level", default=1),
        _c("i2", "cycles between repetitions; 0 where n2 = 1"),
        _c("object", "MEM: row of `objects`", default=-1),
        _c("row", "MEM: first row, relative to the object"),
        _c("stride", "MEM: rows from element to element"),
        _c("stride2", "MEM: rows from repetition to repetition"),
        _c("a_stream", "first stream of operand a", "int16", -1),
        _c("a_dir", "direction of a: 0 W, 1 E", "int16"),
        _c("b_stream", "first stream of operand b", "int16", -1),
        _c("b_dir", "direction of b", "int16"),
        _c("m_stream", "first stream of the map", "int16", -1),
        _c("m_dir", "direction of the map", "int16"),
        _c("dtype", "ALU: type of the operands; ABC: type of the activations and weights (isa.DType)", "int16"),
        _c("dtype2", "CAST, compares: type of the result; SELECT, MASK_BAR: type of b", "int16"),
        _c("half", "ABC F16: isa.HALF_LOW, HALF_HIGH, HALF_BOTH", "int16"),
        _c("row0", "LW: first buffer row"),
        _c("entry", "ACC: first entry"),
        _c("entry_stride", "ACC: entries from element to element"),
        _c("entry_stride2", "ACC: entries from repetition to repetition"),
        _c("add", "ACC: 1 adds the entry, 0 starts from zero", "int16"),
        _c("store", "ACC: 1 writes the entry", "int16"),
        _c("emit", "ACC: 1 drives the sum (claims 4 streams)", "int16"),
        _c("first", "acc ALU ops: 1 starts a new state at k = 0 of every k2", "int16"),
        _c("last", "acc ALU ops: 1 drives the state after k = n - 1 of every k2", "int16"),
        _c("modular", "integers: 1 wraps, 0 saturates; CAST to F16: 1 overflows to infinity, 0 saturates", "int16"),
        _c("null", "TRANSPOSE: 1 copies", "int16"),
        _c("bypass", "DISTRIBUTE: bit j lets stream j pass unchanged", "int16"),
        _c("lowest", "DISTRIBUTE: 1 expands one stream to four: lanes 4 l + p of the map choose plane p of lane l", "int16"),
        _c("amount", "SHIFT: lanes, positive to higher lanes"),
        _c("link", "SEND, RECEIVE: link 0..15, of hemisphere link // 8", "int16", -1),
        _c("provenance", "row of the program's provenance pool, or -1", default=-1),
    ),
)

CLAIMS = TableType(
    "claims",
    (
        _c("burst", "row of `bursts`"),
        _c("stream", "stream 0..31", "int16"),
        _c("direction", "0 W, 1 E", "int16"),
        _c("until", "pos of the last consumer"),
    ),
)

OBJECTS = TableType(
    "objects",
    (
        _c("rows", "rows in each slice"),
        _c("west", "bit s: slice s of the West hemisphere", "int64"),
        _c("east", "bit s: slice s of the East hemisphere", "int64"),
    ),
)

INSTANCES = TableType(
    "instances",
    (_c("segment", "position in Program.segments"), _c("chip", "chip 0.."), _c("offset", "cycle of the segment's time 0", "int64")),
)

BINDS = TableType(
    "binds",
    (
        _c("instance", "row of `instances`"),
        _c("object", "row of the segment's `objects`"),
        _c("allocation", "row of `allocations`"),
        _c("row", "row of the object's row 0, relative to the allocation"),
    ),
)

ALLOCATIONS = TableType(
    "allocations",
    (
        _c("kind", "Kind", "int16"),
        _c("chip", "chip 0.."),
        _c("bank", "bank 0, 1", "int16"),
        _c("row", "first row in every slice"),
        _c("rows", "rows in each slice"),
        _c("west", "bit s: slice s of the West hemisphere", "int64"),
        _c("east", "bit s: slice s of the East hemisphere", "int64"),
    ),
)

PLACEMENTS = TableType("placements", (_c("image", "K of `image.K`"), _c("allocation", "row of `allocations`, of kind CONST")))

LINKS = TableType(
    "links",
    (
        _c("chip_a", "one end"), _c("link_a", "its link 0..15", "int16"),
        _c("chip_b", "other end"), _c("link_b", "its link 0..15", "int16"),
    ),
)  # fmt: skip

SEGMENT_TABLES = (BURSTS, CLAIMS, OBJECTS)
PROGRAM_TABLES = (INSTANCES, BINDS, ALLOCATIONS, PLACEMENTS, LINKS)

STORED = {"f16": "<f2", "f32": "<f4", "i8": "i1", "i16": "<i2", "i32": "<i4", "u8": "u1", "bool": "u1"}
"""numpy type of each `Binding.stored`; its itemsize is the number of byte planes."""


def canonical(bursts: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The same `bursts` table, its steps of one-element levels set to their only value (in place)."""
    single, flat = bursts["n"] == 1, bursts["n2"] == 1
    bursts["i"][single] = 1
    bursts["i2"][flat] = 0
    for inner, outer in (("stride", "stride2"), ("entry_stride", "entry_stride2")):
        bursts[inner][single] = 0
        bursts[outer][flat] = 0
    return bursts


def slice_mask(slices: list[tuple[int, int]], hemisphere: int) -> int:
    """Bit mask of the (hemisphere, slice) pairs that lie in one hemisphere."""
    mask = 0
    for side, slice_ in slices:
        if side == hemisphere:
            mask |= 1 << slice_
    return mask


def mask_slices(west: int, east: int) -> list[tuple[int, int]]:
    """(hemisphere, slice) pairs of two masks in image order: West first, ascending."""
    return [(0, s) for s in range(64) if west >> s & 1] + [(1, s) for s in range(64) if east >> s & 1]


def mesh_links(chips: int) -> list[dict[str, int]]:
    """One link between every pair of at most eight chips (CC-2); peers alternate between the hemispheres."""

    def number(chip: int, peer: int) -> int:
        k = peer if peer < chip else peer - 1
        return (k % 2) * 8 + k // 2

    return [
        {"chip_a": a, "link_a": number(a, b), "chip_b": b, "link_b": number(b, a)}
        for a in range(chips)
        for b in range(a + 1, chips)
    ]  # fmt: skip
