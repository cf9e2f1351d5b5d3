"""What every row holds at every time within a block: rule TSP-009 (docs/tsp-model.md section 2).

A row keeps no bytes here. Each element of a READ is linked to the write of its block that it sees, or to the row's content before the
block, so that moving data costs nothing and the numbers can be computed in any order that respects the links. Rows are told apart by slot
(allocation): allocations that share rows never live at one time (TSP-010, `store.py`). Slices of an allocation that a Scatter (or a Gather
beside writes) touches are *dynamic*: which rows are written depends on data, so their accesses run in order of time on bytes.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ...machines.tsp.isa import Opcode
from ...machines.tsp.tables import Kind
from . import kernels
from .flatten import Flat
from .layout import Array
from .report import Notes

UNDEFINED = -(1 << 62)


@dataclass(frozen=True)
class Memory:
    """Links between rows and values of a block.

    `link[claim element]` of READ bursts: tap element of the write seen (>= 0), -1 - place (the row before the block) or UNDEFINED.
    `starts`, `writers`: CSR by place into tap elements of writes in order of time. `dynamic[burst]`: MEM burst on a dynamic slice.
    `bound[pair]`: rows of the pair hold something before cycle 0. `outside`: places not bound whose content before the block is read;
    `written`: places that the block writes of slots that outlive it.
    """

    link: Array
    starts: Array
    writers: Array
    dynamic: Array
    bound: Array
    outside: Array
    written: Array

    def final(self, places: Array) -> Array:
        """Tap element of the last write to each of some written places."""
        result: Array = self.writers[self.starts[places + 1] - 1]
        return result


def analyse(flat: Flat, notes: Notes) -> Memory:
    """Link all accesses and record writes to constants."""
    b, layout = flat.b, flat.layout
    stores = flat.of(Opcode.WRITE, Opcode.SCATTER)
    for row in map(int, stores[layout.kinds[b["alloc"][stores]] == Kind.CONST] if len(stores) else []):
        notes.bursts("TSP-009", "write to a constant", [row])
    pair_dynamic = layout.dynamic(flat.pair_slot, flat.pair_unit)
    bound = (layout.kinds[flat.pair_slot] <= Kind.STATE) | pair_dynamic
    mem = np.flatnonzero(b["pair"] >= 0)
    dynamic = np.zeros(flat.size, bool)
    dynamic[mem] = pair_dynamic[b["pair"][mem]]
    starts, w_time, w_element = _writes(flat, dynamic)
    link = np.full(flat.claims.total, UNDEFINED, np.int64)
    reads = flat.of(Opcode.READ)
    reads = reads[~dynamic[reads]]
    first_claim = np.full(flat.size, 0, np.int64)
    first_claim[flat.claims.burst] = flat.claims.first
    kernels.versions(
        flat.place(reads), b["t0"][reads], b["n"][reads], b["i"][reads], b["n2"][reads], b["i2"][reads], b["stride"][reads],
        b["stride2"][reads], first_claim[reads], starts, w_time, w_element, link,
    )  # fmt: skip
    open_place = np.repeat(~bound, layout.rows[flat.pair_slot])
    seen = np.zeros(flat.places, bool)
    seen[-1 - link[(link < 0) & (link > UNDEFINED)]] = True
    kept = np.repeat(layout.kept[flat.pair_slot], layout.rows[flat.pair_slot])
    written = np.flatnonzero((starts[1:] > starts[:-1]) & kept)
    return Memory(link, starts, w_element, dynamic, bound, np.flatnonzero(seen & open_place), written)


def unfilled_reads(flat: Flat, memory: Memory, missing: Array) -> Array:
    """READ bursts that see the content before the block of one of the places `missing`."""
    lost = np.zeros(flat.places, bool)
    lost[missing] = True
    element = np.flatnonzero((memory.link < 0) & (memory.link > UNDEFINED))
    element = element[lost[-1 - memory.link[element]]]
    claims = np.searchsorted(flat.claims.first, element, side="right") - 1
    return np.unique(flat.claims.burst[claims])


def _writes(flat: Flat, dynamic: Array) -> tuple[Array, Array, Array]:
    """Writes sorted by (place, time): CSR by place, time, tap element."""
    writes = flat.of(Opcode.WRITE)
    writes = writes[~dynamic[writes]]
    elements = flat.elements(writes)
    place, time = flat.addresses(elements), flat.times(elements)
    count = flat.count[writes]
    element = np.arange(len(place)) + (flat.first_tap[writes] - np.cumsum(count) + count)[elements.owner]
    span = int(time.max(initial=0)) + 1
    order = np.argsort(place * span + time, kind="stable")
    starts = np.zeros(flat.places + 1, np.int64)
    np.cumsum(np.bincount(place, minlength=flat.places), out=starts[1:])
    return starts, time[order], element[order]
