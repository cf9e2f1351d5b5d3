"""What one launch does, before any data: loops, addresses, footprints and the rules that they decide.

A plan belongs to a (kernel, register set) pair and is made once. Addresses must come from counters and registers, not from loaded
data, so every address vector is known here. Vectors that only differ by a register base share one `Offsets`; each is decomposed into
mixed-radix digits, from which the grid of the fast evaluation follows.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...errors import Violation
from ...machines.cgla.description import CglaMachine
from ...machines.cgla.isa import MEMORY, OP1, Address, Register, Source
from ...machines.cgla.timing import exec_cycles
from . import words as w
from .dataflow import DataDependent, Dataflow, no_loads
from .kernel import COLUMNS, Kernel, Slot, Value

Ints = NDArray[np.int64]
RegisterSet = Mapping[tuple[int, int, int], int]
ADDRESS_LIMIT = 1 << 31
ITERATION_LIMIT = 1 << 26
WORD = 4


@dataclass(frozen=True)
class Offsets:
    """One address vector over n without its register part: the full vector, its digits (radix, stride) innermost first or None, and its
    distinct values in ascending order."""

    vector: Ints
    digits: tuple[tuple[int, int], ...] | None
    unique: Ints
    spread: dict[int, Ints] = field(default_factory=dict, compare=False, repr=False)

    @cached_property
    def grain(self) -> int:
        """The largest number that divides every difference of two values, 0 where there is one value."""
        return int(np.gcd.reduce(self.unique - self.unique[0]))

    def words(self, size: int) -> Ints:
        """Distinct word addresses of accesses of `size` bytes without a base."""
        if size not in self.spread:
            self.spread[size] = words_of(self.unique, size)
        return self.spread[size]

    @property
    def low(self) -> int:
        """Smallest value."""
        return int(self.unique[0])

    @property
    def high(self) -> int:
        """Largest value."""
        return int(self.unique[-1])


@dataclass(frozen=True)
class MemoryAccess:
    """One load or store of a launch: its place, its address (`base` + offsets), its LMM partition and when it is enabled.

    `enable` is None where every iteration is enabled, else the enable bits of each n (0..3); `data_gated` marks a store whose predicate
    depends on loaded data, so that `enable` is unknown.
    """

    row: int
    col: int
    ea: int
    op: str
    size: int
    store: bool
    base: int
    offsets: Offsets
    part_start: int
    part_size: int
    enable: NDArray[np.uint8] | None = None
    data_gated: bool = False

    @cached_property
    def words(self) -> Ints:
        """Distinct logical addresses of the 4-byte words touched, ascending."""
        if self.enable is None:
            if self.base % WORD == 0:
                return self.offsets.words(self.size) + self.base
            return words_of(self.offsets.unique + self.base, self.size)
        vector = self.offsets.vector + self.base
        if self.op != "STR":
            return words_of(np.unique(vector[self.enable != 0]), self.size)
        low, high = vector[(self.enable & 1) != 0], vector[(self.enable & 2) != 0] + WORD
        return np.unique(np.concatenate([low, high]))

    @property
    def first(self) -> int:
        """Logical address in iteration 0."""
        return self.base + int(self.offsets.vector[0])

    @cached_property
    def places(self) -> Ints:
        """Physical byte addresses of `words`."""
        words = self.words
        if words.size and words[0] // self.part_size == words[-1] // self.part_size:
            return words + (self.part_start - int(words[0]) // self.part_size * self.part_size)
        return self.physical(words)

    def physical(self, logical: Ints) -> Ints:
        """Physical byte addresses in the row's LMM (1.9)."""
        return self.part_start + logical % self.part_size


def words_of(addresses: Ints, size: int) -> Ints:
    """Distinct word addresses of accesses of `size` bytes."""
    if size <= WORD:
        return np.unique(addresses & ~(WORD - 1))
    if addresses.size and not (addresses & (WORD - 1)).any():
        count = size // WORD
        if addresses.size > 1 and int(np.diff(addresses).min()) >= size:
            return (addresses[:, None] + np.arange(count) * WORD).ravel()
        return np.unique((addresses[:, None] + np.arange(count) * WORD).ravel())
    last = addresses + size - 1
    spans = ((addresses & ~(WORD - 1))[:, None] + np.arange(size // WORD + 1) * WORD).ravel()
    return np.unique(spans[spans <= np.repeat(last, size // WORD + 1)])


@dataclass
class LaunchPlan:
    """Everything about a launch that does not depend on data. `model` is the first plan of its `shape`."""

    kernel: Kernel
    constants: dict[tuple[int, int, int], int]
    loop0: int
    loop1: int
    exec_cycles: int
    accesses: list[MemoryAccess]
    violations: list[Violation]
    addresses: dict[tuple[int, int, int], int] = field(default_factory=dict)
    counts: dict[str, float] = field(default_factory=dict)
    forms: dict[Any, Any] = field(default_factory=dict)
    model: LaunchPlan | None = None

    @cached_property
    def by_place(self) -> dict[tuple[int, int, int], MemoryAccess]:
        """Loads and stores by row, slot and EA."""
        return {(access.row, access.col, access.ea): access for access in self.accesses}

    @cached_property
    def shape(self) -> tuple[Any, ...]:
        """Plans of one shape differ in where their accesses begin alone."""
        data = tuple(self.constants.get(place, 0) for place in self.kernel.data_constants)
        steps = tuple((a.offsets.digits or id(a.offsets), a.data_gated) for a in self.accesses)
        enabled = tuple(a.enable.tobytes() for a in self.accesses if a.enable is not None)
        return self.kernel.number, self.loop0, self.loop1, data, steps, enabled

    @property
    def iterations(self) -> int:
        """N = L0 * L1."""
        return self.loop0 * self.loop1

    @property
    def usable(self) -> bool:
        """True where the launch can be evaluated."""
        return not self.violations


class Planner:
    """Makes and keeps the plans of a program."""

    def __init__(self, machine: CglaMachine, kernels: list[Kernel], register_sets: Mapping[int, RegisterSet]) -> None:
        self.machine = machine
        self.kernels = kernels
        self.register_sets = register_sets
        self.plans: dict[tuple[int, int], LaunchPlan] = {}
        self.pool: dict[bytes, Offsets] = {}
        self.models: dict[Any, LaunchPlan] = {}
        self.counts: dict[tuple[int, int], dict[str, float]] = {}

    def plan(self, kernel: int, registers: int) -> LaunchPlan:
        """The plan of a kernel with a register set."""
        key = (kernel, registers)
        if key not in self.plans:
            plan = _PlanMaker(self, self.kernels[kernel], registers, self.register_sets.get(registers, {})).make()
            if plan.usable:
                plan.model = self.models.setdefault(plan.shape, plan)
            self.plans[key] = plan
        return self.plans[key]

    def offsets(self, vector: Ints) -> Offsets:
        """The shared `Offsets` of a vector."""
        key = vector.tobytes() if vector.size <= 64 else vector.shape[0].to_bytes(8, "little") + _digest(vector)
        known = self.pool.get(key)
        if known is None or not np.array_equal(known.vector, vector):
            known = Offsets(vector, decompose(vector), np.unique(vector))
            self.pool[key] = known
        return known


def _digest(vector: Ints) -> bytes:
    weights = np.arange(1, vector.size + 1, dtype=np.uint64)
    return int((vector.astype(np.uint64) * weights).sum(dtype=np.uint64)).to_bytes(8, "little")


def decompose(vector: Ints) -> tuple[tuple[int, int], ...] | None:
    """Mixed-radix affine digits (radix, stride), innermost first: vector[n] = vector[0] + sum of digit * stride. None if there are none."""
    digits = []
    while vector.size > 1:
        stride = int(vector[1] - vector[0])
        other = np.flatnonzero(np.diff(vector) != stride)
        radix = int(other[0]) + 1 if other.size else vector.size
        if vector.size % radix:
            return None
        rows = vector.reshape(-1, radix)
        if radix > 1 and not np.array_equal(rows, rows[:, :1] + stride * np.arange(radix)):
            return None
        if radix == 1:
            return None
        digits.append((radix, stride))
        vector = np.ascontiguousarray(rows[:, 0])
    return tuple(digits)


class _PlanMaker:
    def __init__(self, planner: Planner, kernel: Kernel, number: int, registers: Mapping[tuple[int, int, int], int]) -> None:
        self.planner = planner
        self.machine = planner.machine
        self.kernel = kernel
        self.number = number
        self.registers = registers
        self.constants = {(r, c, k): value for (r, c, k), value in registers.items() if k <= Register.BR3}
        self.violations: list[Violation] = []
        self.vectors: dict[tuple[tuple[Value, int] | None, ...], Offsets | None] = {}

    def _report(self, rule: str, place: tuple[int, int], message: str) -> None:
        unit = f"kernel {self.kernel.number} row {place[0]} slot {place[1]}"
        self.violations.append(Violation(rule, -1, unit, message, (f"register set {self.number}",), self.kernel.provenance))

    def _scalar(self, slot: Slot, ea: int, part: str) -> int:
        """The register part of the base or offset of an EA."""
        if slot[f"ea{ea}_{part}"] != Address.REG:
            return 0
        value = self.registers[(slot.row, slot.col, _register(ea, part))]
        mask = slot[f"ea{ea}_mask"] if part == "offset" else 0
        return int(w.mask_offset(np.array([value], dtype=np.uint64), mask)[0]) if mask else value

    def make(self) -> LaunchPlan:
        self._constants()
        loop0, loop1 = self._loops()
        plan = LaunchPlan(self.kernel, self.constants, loop0, loop1, 0, [], self.violations)
        plan.exec_cycles = exec_cycles(plan.iterations, self.kernel.row_shape())
        if self.violations:
            return plan
        flow = Dataflow(self.kernel, self.constants, (loop1, loop0), 1, no_loads)
        for (row, col), slot in sorted(self.kernel.slots.items()):
            for ea in (0, 1):
                if slot.loads(ea) or (ea == 0 and slot.stores):
                    access = self._access(flow, slot, row, col, ea, plan.iterations)
                    if access is not None:
                        plan.accesses.append(access)
        self._pairs(plan)
        if not self.violations:
            StoreRules(plan, self.machine.lmm_bytes, self._report).check()
        known = self.planner.counts
        key = self.kernel.number, plan.iterations
        plan.counts = dict(known[key]) if key in known and not self.violations else _counts(plan)
        if not self.violations:
            known[key] = plan.counts
        return plan

    def _constants(self) -> None:
        for row, col, k in sorted(self.kernel.constants):
            if (row, col, k) not in self.constants:
                self._report("CGLA-003", (row, col), f"BR{k} holds nothing in this kernel and is read as a constant")
        for row, col, k in sorted(self.constants):
            slot = self.kernel.slots.get((row, col))
            if slot is not None and slot[f"br{k}"] != 0:
                self._report("CGLA-005", (row, col), f"BR{k} holds a constant and is driven")

    def _loops(self) -> tuple[int, int]:
        counts = []
        for col in range(self.kernel.loops):
            slot = self.kernel.slots[(0, col)]
            above = self.kernel.rows - 1
            values = [self.constants.get((above, select // COLUMNS, select % COLUMNS), 0) for select in (slot.ex1, slot.ex2)]
            count, step = values[0] & 0xFFFFFFFF, values[1] & 0xFFFFFFFF
            if not 1 <= count < ADDRESS_LIMIT:
                self._report("CGLA-009", (0, col), f"the loop count is {count}; it must be in 1..{ADDRESS_LIMIT - 1}")
                count = 1
            if step != 0xFFFFFFFF:
                self._report("CGLA-009", (0, col), f"the loop counts down by {step:#x}; operand 2 must be -1")
            counts.append(count)
        loop0, loop1 = counts[0], counts[1] if len(counts) > 1 else 1
        if loop0 * loop1 > ITERATION_LIMIT:
            self._report("CGLA-035", (0, 0), f"{loop0} x {loop1} iterations; a launch has at most {ITERATION_LIMIT}")
            return 1, 1
        return loop0, loop1

    def _part(self, flow: Dataflow, slot: Slot, ea: int, part: str) -> tuple[int, tuple[Value, int] | None]:
        """(scalar, (value, mask) or None) of the base or offset of an EA."""
        kind = slot[f"ea{ea}_{part}"]
        mask = slot[f"ea{ea}_mask"] if part == "offset" else 0
        if kind == Address.NONE:
            return 0, None
        if kind == Address.REG:
            if (slot.row, slot.col, _register(ea, part)) not in self.registers:
                self._report("CGLA-031", (slot.row, slot.col), f"EA{ea} {part} register is used and not in the register set")
                return 0, None
            return self._scalar(slot, ea, part), None
        fold = bool(slot.fold) and ea == 0
        driver = self.kernel.driver(self.kernel.source_row(slot.row, fold), slot[f"br_{part}"])
        assert driver is not None
        flow.value(driver)
        return 0, (driver, mask)

    def _vector(self, flow: Dataflow, parts: tuple[tuple[Value, int] | None, ...]) -> Offsets | None:
        """The sum of the parts that come from BRs, None beyond 31 bits; equal parts share one vector."""
        if parts not in self.vectors:
            total = np.zeros((1, 1), dtype=np.int64)
            good = True
            for part in parts:
                if part is not None:
                    vector = w.mask_offset(flow.value(part[0]), part[1])
                    good = good and not (vector >= np.uint64(ADDRESS_LIMIT)).any()
                    total = total + vector.astype(np.int64)
            full = np.ascontiguousarray(np.broadcast_to(total, flow.digits).reshape(-1))
            self.vectors[parts] = self.planner.offsets(full) if good else None
        return self.vectors[parts]

    def _access(self, flow: Dataflow, slot: Slot, row: int, col: int, ea: int, iterations: int) -> MemoryAccess | None:
        try:
            base, base_vector = self._part(flow, slot, ea, "base")
            offset, offset_vector = self._part(flow, slot, ea, "offset")
        except DataDependent:
            self._report("CGLA-035", (row, col), f"the address of EA{ea} depends on loaded data")
            return None
        offsets = self._vector(flow, (base_vector, offset_vector))
        if offsets is None:
            self._report("CGLA-035", (row, col), f"base or offset of EA{ea} goes beyond 31 bits")
            return None
        scalar = base + offset
        if scalar + offsets.high >= ADDRESS_LIMIT or base >= ADDRESS_LIMIT or offset >= ADDRESS_LIMIT:
            self._report("CGLA-035", (row, col), f"EA{ea} reaches address {scalar + offsets.high:#x}, beyond 31 bits")
            return None
        op = MEMORY[slot[f"ea{ea}"]]
        if op.name != "LDRU" and op.size > 1 and ((offsets.low + scalar) % op.size or offsets.grain % op.size):
            self._report("CGLA-016", (row, col), f"{op.name} on EA{ea} is not aligned to {op.size} bytes")
            return None
        start, size = partition(self.machine.lmm_bytes, slot.lmm, col)
        enable, gated = self._enable(flow, slot, iterations) if op.store else (None, False)
        return MemoryAccess(row, col, ea, op.name, op.size, op.store, scalar, offsets, start, size, enable, gated)

    def _enable(self, flow: Dataflow, slot: Slot, iterations: int) -> tuple[NDArray[np.uint8] | None, bool]:
        used = 2 if slot.memory(0) == "STR" else 1
        if slot.truth == 0xFFFF:
            return None, False
        try:
            bits = flow.predicate(slot)
        except DataDependent:
            return None, True
        full = np.broadcast_to(bits, flow.digits).reshape(iterations)
        full = full & np.uint8(3 if used == 2 else 1)
        return (None, False) if (full == (3 if used == 2 else 1)).all() else (np.ascontiguousarray(full), False)

    def _pairs(self, plan: LaunchPlan) -> None:
        by_place = {(access.row, access.col, access.ea): access for access in plan.accesses}
        for (row, col, ea), access in by_place.items():
            if access.op != "LDRU" or ea == 1:
                continue
            other = by_place.get((row, col, 1))
            if other is None:
                continue
            same = other.base + other.offsets.vector - access.base - access.offsets.vector
            if (same != 8).any():
                self._report("CGLA-014", (row, col), "EA1 of a pair load must be EA0 + 8 in every iteration")


def _register(ea: int, part: str) -> int:
    """The register of the base or offset of an EA."""
    return int((Register.EA0_BASE, Register.EA0_OFFSET, Register.EA1_BASE, Register.EA1_OFFSET)[2 * ea + (part == "offset")])


def partition(lmm_bytes: int, mode: int, col: int) -> tuple[int, int]:
    """(first physical byte, bytes) of the LMM partition of a slot (1.9)."""
    if mode == 1:
        return 0, lmm_bytes
    if mode == 2:
        return (col // 2) * (lmm_bytes // 2), lmm_bytes // 2
    return col * (lmm_bytes // 4), lmm_bytes // 4


class StoreRules:
    """Rules 018, 019 and the part of 020 inside one launch: who touches which physical word under which logical address."""

    def __init__(self, plan: LaunchPlan, lmm_bytes: int, report: object) -> None:
        self.plan = plan
        self.lmm_bytes = lmm_bytes
        self.report = report

    def check(self) -> None:
        """Reports every breach through the planner's reporter."""
        report = self.report
        assert callable(report)
        stores = [access for access in self.plan.accesses if access.store]
        rows = {access.row for access in stores}
        logical: list[tuple[Ints, MemoryAccess]] = [(access.words, access) for access in stores]
        for index, (words, access) in enumerate(logical):
            for other_words, other in logical[:index]:
                if self._bytes_meet(access, words, other, other_words):
                    message = f"stores the same bytes as row {other.row} slot {other.col}; only one slot may"
                    report("CGLA-019", (access.row, access.col), message)
        for row in sorted(rows | {access.row for access in self.plan.accesses}):
            self._row([access for access in self.plan.accesses if access.row == row], report)

    @staticmethod
    def _bytes_meet(one: MemoryAccess, one_words: Ints, two: MemoryAccess, two_words: Ints) -> bool:
        if one_words.size == 0 or two_words.size == 0 or one_words[0] > two_words[-1] or two_words[0] > one_words[-1]:
            return False
        if one.size == 1 and two.size == 1:
            return bool(np.intersect1d(one.offsets.unique + one.base, two.offsets.unique + two.base).size)
        return bool(np.intersect1d(one_words, two_words, assume_unique=True).size)

    @staticmethod
    def _apart(accesses: list[MemoryAccess]) -> bool:
        """Whether each array of a row fits its partition and no two of them share a byte, by their hulls. Loads whose physical places lie
        equally far from their logical ones are one array."""
        hulls: dict[tuple[int, int], tuple[int, int]] = {}
        for access in accesses:
            if not access.words.size:
                continue
            logical, last = int(access.words[0]), int(access.words[-1])
            low = logical % access.part_size
            high = low + last - logical + WORD
            if high > access.part_size:
                return False
            key = (access.part_start + low - logical, 1 + access.col if access.store else 0)
            known = hulls.get(key, (access.part_start + low, access.part_start + high))
            hulls[key] = min(known[0], access.part_start + low), max(known[1], access.part_start + high)
        return all(one[1] <= two[0] for one, two in pairwise(sorted(hulls.values())))

    def _row(self, accesses: list[MemoryAccess], report: object) -> None:
        assert callable(report)
        if self._apart(accesses):
            return
        lies = np.full(self.lmm_bytes // WORD, -1, dtype=np.int64)
        places: set[tuple[int, int, int]] = set()
        for access in accesses:
            key = (access.base, id(access.offsets), access.part_start)
            if (access.op == "LDRU" and access.ea == 1) or (key in places and not access.store):
                continue
            places.add(key)
            words = access.words
            place = access.places // WORD
            there = lies[place]
            if ((there != words) & (there >= 0)).any():
                report("CGLA-020", (access.row, access.col), "two arrays of this launch lie on the same physical bytes of the row")
            lies[place] = np.where(there >= 0, there, words)
            if words.size and words[-1] - words[0] >= access.part_size and np.unique(place).size != place.size:
                report("CGLA-020", (access.row, access.col), f"an array wider than its partition of {access.part_size} bytes")
        loads = [access for access in accesses if not access.store]
        for store in (access for access in accesses if access.store):
            written = np.zeros(lies.size, dtype=bool)
            written[store.places // WORD] = True
            for load in loads:
                if written[load.places // WORD].any() and not self._reload(load, store):
                    message = f"loads bytes that slot {store.col} of the row stores in the same launch"
                    report("CGLA-018", (load.row, load.col), message)

    def _reload(self, load: MemoryAccess, store: MemoryAccess) -> bool:
        """The exception of 5.6: the value only starts accumulators, at first(n), before the bytes are stored."""
        kernel, plan = self.plan.kernel, self.plan
        value = Value("load", load.row, load.col, load.ea)
        for position, slot in kernel.slots.items():
            for name, row, select in kernel.reads(position):
                if name.startswith("tr") and slot.store not in (6, 2 + int(name[2])):
                    continue
                if kernel.driver(row, select) == value and not (name == "ex1" and slot["self"] and slot.init & 1):
                    return False
        stored = (store.offsets.vector + store.base) & ~(WORD - 1)
        spans = (stored[:, None] + np.arange(max(1, store.size // WORD)) * WORD).ravel()
        when = np.repeat(np.arange(plan.iterations), max(1, store.size // WORD))
        unique, first = np.unique(spans, return_index=True)
        first_store = when[first]
        firsts = np.arange(0, plan.iterations, plan.loop0)
        taken = (load.offsets.vector[firsts] + load.base) & ~(WORD - 1)
        count = max(1, load.size // WORD)
        consumed = (taken[:, None] + np.arange(count) * WORD).ravel()
        at = np.repeat(firsts, count)
        slot_index = np.minimum(np.searchsorted(unique, consumed), unique.size - 1)
        hit = unique[slot_index] == consumed
        return not bool((hit & (first_store[slot_index] < at)).any())


def _counts(plan: LaunchPlan) -> dict[str, float]:
    """Operations of the launch for energy and utilisation: slot operations, LMM accesses of 8 bytes, BR transfers, MACs."""
    iterations = plan.iterations
    slots = lmm = br = macs = ext = 0.0
    for slot in plan.kernel.slots.values():
        if slot.alu_active:
            slots += iterations
            macs += iterations * OP1[slot.op1].macs
            ext += iterations * OP1[slot.op1].ext
            operands = sum(slot[f"ex{i}"] >= 0 for i in (1, 2, 3)) + (slot.src4 == Source.IMM)
            br += iterations * operands
        br += iterations * sum(slot[f"tr{k}"] >= 0 for k in range(4))
    for access in plan.accesses:
        lmm += iterations * max(1, access.size // 8)
    return {"slot_ops": slots, "lmm_accesses": lmm, "br_transfers": br, "macs": macs, "extension_ops": ext}
