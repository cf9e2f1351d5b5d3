"""What every row holds at every time: rules TSP-009, 010, 061 (docs/tsp-model.md section 2).

A row keeps no bytes here. Each element of a READ is linked to the write it sees, or to the row's content before cycle 0, so that moving
data costs nothing and the numbers can be computed in any order that respects the links. Slices of an allocation that a Scatter (or a
Gather beside writes) touches are *dynamic*: which rows are written depends on data, so their accesses run in order of time on bytes.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ...machines.program import Program
from ...machines.tsp import isa
from ...machines.tsp.isa import Opcode, unit_name
from ...machines.tsp.tables import Kind, mask_slices
from . import kernels
from .bindings import Region, lay_out
from .flatten import Array, Columns, Flat
from .report import Report
from .streams import Feeds

UNDEFINED = -(1 << 62)
_FOREVER = 1 << 60


@dataclass(frozen=True)
class Memory:
    """Links between rows and values.

    `link[claim element]` of READ bursts: tap element of the write seen (>= 0), -1 - place (bound before cycle 0) or UNDEFINED.
    `starts`, `writers`: CSR by place into tap elements of writes in order of time. `initial[place]`: 1 + the allocation that is bound there
    before cycle 0, else 0.
    `dynamic[burst]`: MEM burst on a dynamic slice. `used_rows`: rows that programs occupy, per chip at most.
    """

    link: Array
    starts: Array
    writers: Array
    initial: Array
    dynamic: Array
    outputs: dict[str, list[Region]]
    used_rows: int

    def final(self, places: Array) -> Array:
        """Link of the last content of each place, as `link`."""
        last = self.starts[places + 1]
        written = last > self.starts[places]
        writer = self.writers[np.maximum(last - 1, 0)] if len(self.writers) else np.zeros_like(places)
        return np.where(written, writer, np.where(self.initial[places] != 0, -1 - places, UNDEFINED))


def allocation_slices(alloc: Columns) -> tuple[Array, Array]:
    """(allocation, MEM unit) of every slice of every allocation, slices in image order."""
    owner, unit = [], []
    for a, (west, east) in enumerate(zip(alloc["west"].tolist(), alloc["east"].tolist(), strict=True)):
        pairs = mask_slices(west, east)
        owner += [a] * len(pairs)
        unit += [h * 44 + s for h, s in pairs]
    return np.array(owner, np.int64), np.array(unit, np.int64)


def first_place(flat: Flat, alloc: Columns, owner: Array, unit: Array) -> Array:
    """Place of row 0 of each (allocation, unit)."""
    m = flat.machine
    result: Array = ((alloc["chip"][owner] * isa.MEM_QUEUES + unit) * m.banks + alloc["bank"][owner]) * m.rows + alloc["row"][owner]
    return result


def analyse(flat: Flat, program: Program, feeds: Feeds, report: Report) -> Memory:
    """Link all accesses and record what breaks the memory rules."""
    alloc = {name: np.asarray(column, np.int64) for name, column in program.tables["allocations"].items()}
    owner, unit = allocation_slices(alloc)
    base = first_place(flat, alloc, owner, unit)
    dynamic, slots = _dynamic(flat)
    initial = np.zeros(flat.places, np.int32)
    for a, place, u in zip(owner.tolist(), base.tolist(), unit.tolist(), strict=True):
        if alloc["kind"][a] <= Kind.STATE or (a * isa.QUEUES + u) in slots:
            initial[place : place + int(alloc["rows"][a])] = a + 1
    starts, w_time, w_element, w_alloc = _writes(flat, alloc, dynamic, report)
    link = np.full(flat.claims.total, UNDEFINED, np.int64)
    reads = flat.of(Opcode.READ)
    reads = reads[~dynamic[reads]]
    first_claim = np.full(flat.size, 0, np.int64)
    first_claim[flat.claims.burst] = flat.claims.first
    foreign = np.zeros(len(reads), np.uint8)
    b = flat.b
    kernels.versions(
        flat.place(reads), b["t0"][reads], b["n"][reads], b["i"][reads], b["n2"][reads], b["i2"][reads], b["stride"][reads],
        b["stride2"][reads], first_claim[reads], starts, w_time, w_element, w_alloc, initial, b["alloc"][reads], link, foreign,
    )  # fmt: skip
    for row in map(int, reads[foreign != 0]):
        report.bursts("TSP-009", "read of a row that was never written nor bound through its allocation", flat, [row])
    _check_capacity(flat, program, alloc, owner, unit, base, report)
    memory = Memory(link, starts, w_element, initial, dynamic, {}, _used_rows(flat, alloc, owner, unit, base))
    _outputs(flat, program, alloc, feeds, memory, report)
    return memory


def _dynamic(flat: Flat) -> tuple[Array, set[int]]:
    """MEM bursts on dynamic (allocation, slice) pairs, and the set of those pairs."""
    b = flat.b
    slot = b["alloc"] * isa.QUEUES + b["unit"]
    scattered = np.unique(slot[flat.of(Opcode.SCATTER)])
    both = np.intersect1d(slot[flat.of(Opcode.GATHER)], slot[flat.of(Opcode.WRITE)])
    slots = np.union1d(scattered, both)
    return (b["unit"] < isa.MEM_QUEUES) & np.isin(slot, slots), set(slots.tolist())


def _writes(flat: Flat, alloc: Columns, dynamic: Array, report: Report) -> tuple[Array, Array, Array, Array]:
    """Writes sorted by (place, time): CSR by place, time, tap element, allocation; a write to a constant is TSP-009."""
    b = flat.b
    stores = flat.of(Opcode.WRITE, Opcode.SCATTER)
    for row in map(int, stores[alloc["kind"][b["alloc"][stores]] == Kind.CONST] if len(stores) else []):
        report.bursts("TSP-009", "write to a constant", flat, [row])
    writes = flat.of(Opcode.WRITE)
    writes = writes[~dynamic[writes]]
    owner, place = flat.addresses(writes)
    _, time = flat.times(writes)
    first_tap = np.full(flat.size, 0, np.int64)
    taps = flat.taps
    first_tap[taps.burst[::-1]] = taps.first[::-1]
    k = np.arange(len(owner)) - (np.cumsum(flat.count[writes]) - flat.count[writes])[owner]
    element = first_tap[writes][owner] + k
    span = int(time.max(initial=0)) + 1
    order = np.argsort(place * span + time, kind="stable")
    starts = np.zeros(flat.places + 1, np.int64)
    np.cumsum(np.bincount(place, minlength=flat.places), out=starts[1:])
    return starts, time[order], element[order], b["alloc"][writes[owner[order]]]


def _check_capacity(flat: Flat, program: Program, alloc: Columns, owner: Array, unit: Array, base: Array, report: Report) -> None:
    b = flat.b
    size = len(alloc["kind"])
    born, dies = np.full(size, _FOREVER), np.full(size, -_FOREVER)
    mem = np.flatnonzero(b["alloc"] >= 0)
    np.minimum.at(born, b["alloc"][mem], b["t0"][mem])
    np.maximum.at(dies, b["alloc"][mem], flat.last[mem])
    kind = alloc["kind"]
    born[(kind <= Kind.STATE)] = -1
    dies[kind == Kind.INPUT] = np.maximum(dies[kind == Kind.INPUT], -1)
    dies[(kind == Kind.CONST) | (kind == Kind.STATE)] = _FOREVER
    dies[(kind == Kind.OUTPUT) & (born < _FOREVER)] = _FOREVER
    bank = base // flat.machine.rows
    row0 = base % flat.machine.rows
    keep = np.flatnonzero(alloc["rows"][owner] > 0)
    order = keep[np.lexsort((row0[keep], bank[keep]))]
    group = owner[order]
    out = np.empty((2, 4096), np.int64)
    found = kernels.overlaps(bank[order], row0[order], row0[order] + alloc["rows"][group], born[group], dies[group], group, out)
    for one, other in sorted({(int(min(p)), int(max(p))) for p in out[:, :found].T}):
        report.add(
            "TSP-010", f"{Kind(int(kind[one])).name} and {Kind(int(kind[other])).name} allocations share rows while both live",
            cycle=max(int(born[one]), int(born[other]), 0), unit=f"chip {alloc['chip'][one]} memory",
            claimants=[f"allocation {one}", f"allocation {other}"],
        )  # fmt: skip


def _used_rows(flat: Flat, alloc: Columns, owner: Array, unit: Array, base: Array) -> int:
    """Rows covered by at least one allocation, all chips."""
    edge = np.zeros(flat.places + 1, np.int64)
    np.add.at(edge, base, 1)
    np.add.at(edge, base + alloc["rows"][owner], -1)
    return int((np.cumsum(edge) > 0).sum())


def _final_holder(flat: Flat, feeds: Feeds, memory: Memory, places: Array) -> Array:
    """Allocation through which each place got its last content; -1 where it has none."""
    link = memory.final(places)
    writer = flat.b["alloc"][flat.taps.burst[feeds.tap_of[np.maximum(link, 0)]]] if len(feeds.tap_of) else np.full(link.shape, -1)
    return np.where(link >= 0, writer, memory.initial[places].astype(np.int64) - 1)


def _outputs(flat: Flat, program: Program, alloc: Columns, feeds: Feeds, memory: Memory, report: Report) -> None:
    """TSP-061, and the layout of outputs and states for reading them."""
    for binding in program.bindings:
        if binding.kind == "input":
            continue
        regions = [lay_out(region, binding.shape, alloc, flat.machine) for region in binding.where or ()]
        memory.outputs[f"{binding.kind}:{binding.name}"] = regions
        held = np.zeros(int(np.prod(binding.shape)), bool)
        for region in regions:
            held[region.elements[region.elements >= 0]] = True
        if not held.all():
            report.add(
                "TSP-061", f"{(~held).sum()} elements of {binding.kind} {binding.name} lie in no region", unit=f"binding {binding.name}"
            )
        for number, region in enumerate(regions):
            missing = np.unique(region.places[_final_holder(flat, feeds, memory, region.places) != binding.where[number]["allocation"]])
            if len(missing):
                place = int(missing[0])
                rows = flat.machine.rows
                unit = unit_name(place // rows // flat.machine.banks % isa.MEM_QUEUES)
                report.add(
                    "TSP-061", f"{len(missing)} rows of region {number} are not written at the end (first: {place % rows})",
                    unit=unit, claimants=[f"binding {binding.name}"],
                )  # fmt: skip
