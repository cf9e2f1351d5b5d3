"""Blocks: instances that are judged together, as they look from inside and where they are.

A *layout* holds everything that decides what the bursts of a block do to each other: segments, times relative to the block's start, chips
by local number, and objects as rows of *slots* (allocations by local number). Blocks of equal layout share one analysis; a *block* says at
which cycle, on which chips and in which allocations a layout runs. What happens between blocks is judged in `seams.py` and `store.py`.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from ...machines.program import Program, Table
from ...machines.tsp import isa
from ...machines.tsp.tables import Kind

Array = np.ndarray
Columns = dict[str, Array]


def int_columns(table: Table) -> Columns:
    """The columns of a table as int64."""
    return {name: np.asarray(column, np.int64) for name, column in table.items()}


@dataclass(frozen=True)
class Layout:
    """A block from inside.

    Per member `segments, offsets, chips`; per object of the members in order `slot, row, bank` (row: of the object's row 0 from the slot's
    first used row); per slot `kinds`, `rows` (extent used), `kept` (read after the block or by another one), `west, east` (masks of dynamic
    slices, see `memory.py`). `links`: for each local chip and link 0..15, 16 times the local chip plus link at its other end, or -1.
    """

    segments: Array
    offsets: Array
    chips: Array
    slot: Array
    row: Array
    bank: Array
    kinds: Array
    rows: Array
    kept: Array
    west: Array
    east: Array
    links: Array

    def key(self) -> bytes:
        """Equal for layouts that are equal but for their banks, which matter to TSP-005 alone (`queues.check_banks`)."""
        columns = [np.asarray(column, np.int64) for name, column in vars(self).items() if name != "bank"]
        return np.array([len(column) for column in columns], np.int64).tobytes() + b"".join(column.tobytes() for column in columns)

    def dynamic(self, slot: Array, unit: Array) -> Array:
        """Whether MEM units of slots are dynamic slices."""
        mask = np.where(unit < 44, self.west[slot], self.east[slot])
        result: Array = (mask >> (unit % 44) & 1).astype(bool)
        return result


@dataclass(frozen=True)
class Block:
    """A layout at a place: `members` rows of instances, `start` the cycle of its time 0, `chips`, `slots` the program's chips and
    allocations by local number, `first` the bank row of each slot's first used row."""

    layout: Layout
    members: Array
    start: int
    chips: Array
    slots: Array
    first: Array


class Binds:
    """The program's instances and binds, indexed by (instance, object). `earliest`: first cycle of each segment."""

    def __init__(self, program: Program) -> None:
        self.program = program
        self.instances = int_columns(program.tables["instances"])
        self.allocations = int_columns(program.tables["allocations"])
        self.links = int_columns(program.tables["links"])
        self.earliest = np.array([int(np.min(s.tables["bursts"]["t0"], initial=1 << 60)) for s in program.segments], np.int64)
        self.earliest[self.earliest == 1 << 60] = 0
        self.objects = [int_columns(segment.tables["objects"]) for segment in program.segments]
        sizes = np.array([len(o["rows"]) for o in self.objects], np.int64)
        self.sizes = sizes[self.instances["segment"]]
        self.start = np.cumsum(self.sizes) - self.sizes
        binds = int_columns(program.tables["binds"])
        total = int(self.sizes.sum())
        self.allocation, self.row = np.zeros(total, np.int64), np.zeros(total, np.int64)
        at = self.start[binds["instance"]] + binds["object"]
        self.allocation[at], self.row[at] = binds["allocation"], binds["row"]

    def of(self, members: Array) -> tuple[Array, Array, Array]:
        """(allocation, row in it, rows) of every object of the instances `members`, in order."""
        at = np.concatenate([np.arange(self.start[m], self.start[m] + self.sizes[m]) for m in members.tolist()] or [np.zeros(0, np.int64)])
        rows = [self.objects[s]["rows"] for s in self.instances["segment"][members].tolist()]
        return self.allocation[at], self.row[at], np.concatenate(rows or [np.zeros(0, np.int64)])

    @cached_property
    def dynamic_slices(self) -> tuple[Array, Array]:
        """(west, east) masks by allocation of its dynamic slices: those with a Scatter, or with a Gather beside a Write."""
        seen = {code: np.zeros((len(self.allocations["kind"]), isa.MEM_QUEUES), bool) for code in ("scatter", "gather", "write")}
        codes = {"scatter": isa.Opcode.SCATTER, "gather": isa.Opcode.GATHER, "write": isa.Opcode.WRITE}
        used = []
        for segment in self.program.segments:
            b = segment.tables["bursts"]
            rows = np.isin(b["opcode"], [int(code) for code in codes.values()])
            used.append(np.unique(np.stack([b["opcode"][rows], b["object"][rows], b["unit"][rows]]).astype(np.int64), axis=1))
        for instance, segment in enumerate(self.instances["segment"].tolist()):
            opcode, obj, unit = used[segment]
            if not len(opcode):
                continue
            allocation = self.allocation[self.start[instance] + obj]
            for name, code in codes.items():
                mine = opcode == code
                seen[name][allocation[mine], unit[mine]] = True
        slices = seen["scatter"] | (seen["gather"] & seen["write"])
        weight = np.int64(1) << np.arange(44, dtype=np.int64)
        return slices[:, :44] @ weight, slices[:, 44:] @ weight


def _first_seen(values: Array) -> tuple[Array, Array]:
    """(distinct values in order of first appearance, number of each value in that order)."""
    distinct, first, inverse = np.unique(values, return_index=True, return_inverse=True)
    order = np.argsort(first, kind="stable")
    rank = np.empty(len(order), np.int64)
    rank[order] = np.arange(len(order))
    return distinct[order], rank[inverse.reshape(-1)]


def make_block(binds: Binds, members: Array, kept: Array, dynamic: tuple[Array, Array]) -> Block:
    """The block of some instances; `kept` by allocation."""
    inst, alloc = binds.instances, binds.allocations
    members = members[np.lexsort((members, inst["offset"][members]))]
    start = int((inst["offset"] + binds.earliest[inst["segment"]])[members].min())
    chips, local = _first_seen(inst["chip"][members])
    allocation, row, rows = binds.of(members)
    slots, slot = _first_seen(allocation)
    first, end = np.full(len(slots), 1 << 40), np.zeros(len(slots), np.int64)
    np.minimum.at(first, slot, row)
    np.maximum.at(end, slot, row + rows)
    ends = np.full(len(chips) * 16, -1, np.int64)
    number = {int(chip): k for k, chip in enumerate(chips)}
    for a, la, c, lc in zip(*(binds.links[name].tolist() for name in ("chip_a", "link_a", "chip_b", "link_b")), strict=True):
        if a in number and c in number:
            ends[number[a] * 16 + la], ends[number[c] * 16 + lc] = number[c] * 16 + lc, number[a] * 16 + la
    kinds = alloc["kind"][slots]
    layout = Layout(
        inst["segment"][members], inst["offset"][members] - start, local, slot, row - first[slot], alloc["bank"][allocation], kinds,
        end - first, kept[slots] & (kinds != Kind.CONST), dynamic[0][slots], dynamic[1][slots], ends,
    )  # fmt: skip
    return Block(layout, members, start, chips, slots, alloc["row"][slots] + first)
