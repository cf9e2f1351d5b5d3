"""Rows that outlive a block: rules TSP-009, 010 and 061 between blocks (docs/tsp-model.md section 2).

The store numbers the rows of every allocation that is bound before cycle 0, dynamic, read by another block or read at the end. Blocks are
taken in the order of `seams.make_blocks`: what one reads from outside must have been filled by then. Other rows live and die in one block.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from ...machines.program import Program
from ...machines.tsp import isa
from ...machines.tsp.description import TspMachine
from ...machines.tsp.isa import unit_name
from ...machines.tsp.tables import Kind
from . import kernels
from .bindings import Region, lay_out
from .flatten import Flat
from .layout import Array, Binds, Block, Columns
from .report import Report

_FOREVER = 1 << 60


@dataclass(frozen=True)
class Store:
    """Where rows are kept. `owner, unit`: slices of all allocations, in order; `base` number of the first row of each (-1: not kept).

    `size` rows, of which the first `constants` never change; `filled` the rows that hold something so far, `fresh` the ranges (from, to) of
    rows that do so before cycle 0 and may change. `buffers` number of row 0 of the weight buffer of plane 0 of chip 0; row r of plane p of
    chip c is 320 (4 c + p) + r rows on.
    """

    owner: Array
    unit: Array
    base: Array
    size: int
    constants: int
    filled: Array
    fresh: list[tuple[int, int]]
    buffers: int

    @cached_property
    def _code(self) -> Array:
        result: Array = self.owner * isa.QUEUES + self.unit
        return result

    def slices(self, allocation: Array, unit: Array) -> Array:
        """Numbers of slices of allocations, all of which there are."""
        result: Array = np.searchsorted(self._code, allocation * isa.QUEUES + unit)
        return result

    def number(self, slices: Array, rows: Array) -> Array:
        """Number of rows of slices; -1 where they are not kept."""
        base = self.base[slices]
        return np.where(base >= 0, base + rows, -1)

    def pairs(self, block: Block, flat: Flat, alloc: Columns) -> tuple[Array, Array]:
        """(slice, row in it) of row 0 of every pair of a block."""
        slot = block.slots[flat.pair_slot]
        return self.slices(slot, flat.pair_unit), block.first[flat.pair_slot] - alloc["row"][slot]

    def region(self, region: Region) -> tuple[Array, Array]:
        """(slice, row in it) of a region's vectors, as its `units`."""
        return self.slices(np.full_like(region.units, region.allocation), region.units), region.rows

    def holds(self, rows: Array) -> Array:
        """Which of some row numbers are kept and filled."""
        result = rows >= 0
        result[result] = self.filled[rows[result]]
        return result


def allocation_slices(alloc: Columns) -> tuple[Array, Array]:
    """(allocation, MEM unit) of every slice of every allocation, slices in image order."""
    masks = np.stack([alloc["west"], alloc["east"]], axis=1)
    owner, unit = np.nonzero((masks[:, :, None] >> np.arange(isa.MEM_QUEUES // 2) & 1).reshape(-1, isa.MEM_QUEUES))
    return owner, unit


def lay_store(binds: Binds, blocks: list[Block], machine: TspMachine, chips: int) -> Store:
    """Number the rows: constants first, weight buffers last."""
    alloc = binds.allocations
    owner, unit = allocation_slices(alloc)
    west, east = binds.dynamic_slices
    dynamic = (np.where(unit < 44, west[owner], east[owner]) >> (unit % 44) & 1).astype(bool)
    outlives = np.zeros(len(alloc["kind"]), bool)
    for block in blocks:
        outlives[block.slots[block.layout.kept]] = True
    kept = (alloc["kind"][owner] <= Kind.STATE) | (alloc["kind"][owner] == Kind.OUTPUT) | dynamic | outlives[owner]
    order = np.flatnonzero(kept)
    order = order[np.argsort(alloc["kind"][owner[order]] != Kind.CONST, kind="stable")]
    rows = alloc["rows"][owner[order]]
    base = np.full(len(owner), -1, np.int64)
    base[order] = np.cumsum(rows) - rows
    size = int(rows.sum())
    held = (alloc["kind"][owner[order]] <= Kind.STATE) | dynamic[order]
    constants = int(rows[alloc["kind"][owner[order]] == Kind.CONST].sum())
    total = size + chips * 4 * machine.vector
    fresh = [(int(base[k]), int(base[k] + alloc["rows"][owner[k]])) for k in order[held].tolist() if base[k] >= constants]
    return Store(owner, unit, base, total, constants, np.repeat(held, rows), [*fresh, (size, total)], size)


def output_regions(program: Program, alloc: Columns, machine: TspMachine, store: Store, report: Report) -> dict[str, list[Region]]:
    """TSP-061 after the last block, and the layout of outputs and states for reading them."""
    result = {}
    for binding in program.bindings:
        if binding.kind == "input":
            continue
        regions = [lay_out(region, binding.shape, machine) for region in binding.where or ()]
        result[f"{binding.kind}:{binding.name}"] = regions
        held = np.zeros(int(np.prod(binding.shape)), bool)
        for region in regions:
            region.mark(held)
        if not held.all():
            report.add(
                "TSP-061", f"{(~held).sum()} elements of {binding.kind} {binding.name} lie in no region", unit=f"binding {binding.name}"
            )
        for number, region in enumerate(regions):
            missing = ~store.holds(store.number(*store.region(region)))
            if missing.any():
                plane, vector = (int(k) for k in np.argwhere(missing)[0])
                row = int(alloc["row"][region.allocation] + region.rows[plane, vector])
                report.add(
                    "TSP-061", f"{missing.sum()} rows of region {number} are not written at the end (first: {row})",
                    unit=unit_name(int(region.units[plane, vector])), claimants=[f"binding {binding.name}"],
                )  # fmt: skip
    return result


def check_capacity(program: Program, binds: Binds, machine: TspMachine, report: Report) -> int:
    """TSP-010 for all allocations, by their first and last access. Returns the rows that at least one allocation covers, all chips."""
    alloc, kind = binds.allocations, binds.allocations["kind"]
    born, dies = _lives(program, binds)
    born[(kind <= Kind.STATE)] = -1
    dies[kind == Kind.INPUT] = np.maximum(dies[kind == Kind.INPUT], -1)
    dies[(kind == Kind.CONST) | (kind == Kind.STATE)] = _FOREVER
    dies[(kind == Kind.OUTPUT) & (born < _FOREVER)] = _FOREVER
    owner, unit = allocation_slices(alloc)
    bank = (alloc["chip"][owner] * isa.MEM_QUEUES + unit) * machine.banks + alloc["bank"][owner]
    row0 = alloc["row"][owner]
    keep = np.flatnonzero(alloc["rows"][owner] > 0)
    order = keep[np.lexsort((row0[keep], bank[keep]))]
    group, bank, row0 = owner[order], bank[order], row0[order]
    row1 = row0 + alloc["rows"][group]
    out = np.empty((2, 4096), np.int64)
    found = kernels.overlaps(bank, row0, row1, born[group], dies[group], group, out)
    for one, other in sorted({(int(min(p)), int(max(p))) for p in out[:, :found].T}):
        report.add(
            "TSP-010", f"{Kind(int(kind[one])).name} and {Kind(int(kind[other])).name} allocations share rows while both live",
            cycle=max(int(born[one]), int(born[other]), 0), unit=f"chip {alloc['chip'][one]} memory",
            claimants=[f"allocation {one}", f"allocation {other}"],
        )  # fmt: skip
    if not len(order):
        return 0
    span = machine.rows + 1
    reach = np.maximum.accumulate(bank * span + row1)
    before = np.append(0, reach[:-1])
    return int(np.maximum(bank * span + row1 - np.maximum(before, bank * span + row0), 0).sum())


def _lives(program: Program, binds: Binds) -> tuple[Array, Array]:
    """(first, last) cycle of an access of each allocation; beyond all cycles where there is none."""
    size = len(binds.allocations["kind"])
    born, dies = np.full(size, _FOREVER), np.full(size, -_FOREVER)
    windows = []
    for number, segment in enumerate(program.segments):
        b = {name: np.asarray(segment.tables["bursts"][name], np.int64) for name in ("object", "t0", "n", "i", "n2", "i2")}
        objects = len(binds.objects[number]["rows"])
        first, last = np.full(objects, _FOREVER), np.full(objects, -_FOREVER)
        mem = np.flatnonzero(b["object"] >= 0)
        np.minimum.at(first, b["object"][mem], b["t0"][mem])
        np.maximum.at(last, b["object"][mem], (b["t0"] + (b["n"] - 1) * b["i"] + (b["n2"] - 1) * b["i2"])[mem])
        windows.append((first, last))
    for instance, (segment, offset) in enumerate(zip(*(binds.instances[n].tolist() for n in ("segment", "offset")), strict=True)):
        first, last = windows[segment]
        used = np.flatnonzero(last > -_FOREVER)
        mine = binds.allocation[binds.start[instance] + used]
        np.minimum.at(born, mine, first[used] + offset)
        np.maximum.at(dies, mine, last[used] + offset)
    return born, dies
