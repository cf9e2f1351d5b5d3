"""The registers of one lane and the residency map of its local memories.

Registers keep their values over launches (2.11); a phase writes what differs from what is known to be held. The residency map holds,
for each row and 4-byte word of its LMM, the logical address of the word that lies there, or -1 (5.4).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from ...machines.cgla.description import CglaMachine
from ...machines.cgla.isa import Register
from .kernel import COLUMNS, Kernel
from .plan import WORD, Ints, LaunchPlan, MemoryAccess, partition

Place = tuple[int, int, int]
Descriptor = tuple[int, int, int, int]
UNKNOWN = -1


@dataclass
class Registers:
    """What a lane is known to hold: a kernel (or UNKNOWN), register values and descriptors (top, bottom, write, read)."""

    kernel: int = UNKNOWN
    values: dict[Place, int] = field(default_factory=dict)
    ranges: dict[tuple[int, int], Descriptor] = field(default_factory=dict)

    def copy(self) -> Registers:
        """An independent copy."""
        return Registers(self.kernel, dict(self.values), dict(self.ranges))


def changed_slots(machine: CglaMachine, held: Kernel | None, wanted: Kernel) -> int:
    """Slots whose configuration word differs; all of them where nothing is known."""
    if held is None:
        return machine.rows * COLUMNS
    return sum(held.slots.get(position) != wanted.slots.get(position) for position in held.slots.keys() | wanted.slots.keys())


def changed_registers(held: Mapping[Place, int], wanted: Mapping[Place, int]) -> int:
    """Stores of a REGV phase: one a constant, one a pair of EA registers."""
    stores = set()
    for (row, col, register), value in wanted.items():
        if held.get((row, col, register)) != value:
            stores.add((row, col, register if register <= Register.BR3 else 4 + (register - 4) // 2))
    return len(stores)


def changed_ranges(held: Mapping[tuple[int, int], Descriptor], wanted: Mapping[tuple[int, int], Descriptor]) -> int:
    """Stores of a RANGE phase."""
    return sum(held.get(place) != descriptor for place, descriptor in wanted.items())


RowPart = tuple[int, int, int, int, int]


def pieces(part: RowPart) -> list[tuple[int, int, int]]:
    """(physical byte, logical byte, bytes) of a row part; two where it wraps in its partition."""
    _, low, high, start, size = part
    first, count = low % size, high - low + 1
    head = min(count, size - first)
    whole = [(start + first, low, head)]
    return whole if head == count else [*whole, (start, low + head, count - head)]


class Residency:
    """Which logical word lies in which physical word of each row of a lane. `state` changes with the contents."""

    def __init__(self, machine: CglaMachine) -> None:
        self.machine = machine
        self.logical = np.full((machine.rows, machine.lmm_bytes // WORD), -1, dtype=np.int32)
        self.state = 0

    def _put(self, row: int, where: slice | Ints, words: Ints | NDArray[np.int32]) -> None:
        held = self.logical[row]
        if not np.array_equal(held[where], words):
            held[where] = words
            self.state += 1

    def load(self, part: RowPart) -> None:
        """Words that a DMA brought."""
        for physical, logical, count in pieces(part):
            words = np.arange(logical, logical + count, WORD, dtype=np.int32)
            self._put(part[0], slice(physical // WORD, physical // WORD + words.size), words)

    def missing(self, part: RowPart) -> int | None:
        """The first logical byte of a row part that was never loaded or stored."""
        for physical, logical, count in pieces(part):
            words = np.arange(logical, logical + count, WORD, dtype=np.int32)
            there = self.logical[part[0], physical // WORD : physical // WORD + words.size]
            bad = np.flatnonzero(there != words)
            if bad.size:
                return int(words[bad[0]])
        return None

    def mismatches(self, plan: LaunchPlan) -> list[tuple[str, int, MemoryAccess]]:
        """(rule, logical address, load) of the first word of each load that is not there: never loaded (017) or overwritten (020)."""
        place, words, owner, loads = self._expected(plan)
        there = self.logical.reshape(-1)[place]
        wrong = np.flatnonzero(there != words)
        result = []
        for index in np.unique(owner[wrong], return_index=True)[1].tolist() if wrong.size else ():
            at = wrong[index]
            result.append(("CGLA-017" if there[at] < 0 else "CGLA-020", int(words[at]), loads[int(owner[at])]))
        return result

    def _expected(self, plan: LaunchPlan) -> tuple[Ints, Ints, Ints, list[MemoryAccess]]:
        """Physical words of the lane that a launch loads and the logical words they must hold; kept with the plan."""
        if "expected" not in plan.forms:
            row_words = self.logical.shape[1]
            loads: dict[tuple[int, int, int, int], MemoryAccess] = {}
            for access in plan.accesses:
                if not access.store and not (access.op == "LDRU" and access.ea == 1):
                    loads.setdefault((access.row, access.base, id(access.offsets), access.part_start), access)
            words = [access.words for access in loads.values()]
            empty = np.empty(0, dtype=np.int64)
            places = [a.row * row_words + a.places // WORD for a in loads.values()]
            owner = np.repeat(np.arange(len(words)), [x.size for x in words])
            plan.forms["expected"] = (
                np.concatenate([empty, *places]), np.concatenate([empty, *words]).astype(np.int32), owner, list(loads.values())
            )  # fmt: skip
        expected: tuple[Ints, Ints, Ints, list[MemoryAccess]] = plan.forms["expected"]
        return expected

    def store(self, access: MemoryAccess) -> None:
        """Words that a store leaves behind; where it may or may not write, or writes parts of a word, only words that were there stay."""
        words = access.words
        place = access.places // WORD
        if access.data_gated or access.op == "STBR":
            sure = self.logical[access.row, place] == words
            if access.op == "STBR" and not access.data_gated:
                enabled = access.offsets.vector if access.enable is None else access.offsets.vector[access.enable != 0]
                count = np.searchsorted(words, np.unique(enabled + access.base) & ~(WORD - 1))
                sure |= np.bincount(count, minlength=words.size) == WORD
            self._put(access.row, place, np.where(sure, words, -1))
            return
        self._put(access.row, place, words)


def receivers(
    machine: CglaMachine, kernel: Kernel | None, ranges: Mapping[tuple[int, int], Descriptor], tag: int, read: bool
) -> list[RowPart]:
    """(row, top, bottom, partition start, partition size) of every enabled descriptor of slot `tag`; size 0 where the slot is not
    configured."""
    result = []
    for row in range(machine.rows):
        descriptor = ranges.get((row, tag))
        if descriptor is not None and descriptor[3 if read else 2]:
            slot = kernel.slots.get((row, tag)) if kernel is not None else None
            start, size = partition(machine.lmm_bytes, slot.lmm, tag) if slot is not None else (-1, 0)
            result.append((row, descriptor[0], descriptor[1], start, size))
    return result


def row_parts(enabled: Sequence[RowPart], first: int, last: int) -> list[RowPart]:
    """The parts of bytes first..last that fall into each descriptor: (row, low, high, partition start, partition size)."""
    return [
        (row, max(first, top), min(last, bottom), start, size)
        for row, top, bottom, start, size in enabled
        if top <= last and first <= bottom
    ]
