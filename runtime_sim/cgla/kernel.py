"""A kernel as the executor sees it: its configured slots, what drives every boundary register, and the rules on fields alone.

A *value* is what a boundary register (BR) holds in an iteration: a constant that the host wrote, the result of an ALU, a scalar load or
one word of a wide load. Transfer registers only pass values on, so `driver` follows them upward; a value is named by where it is made.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np

from ...errors import Violation
from ...machines.cgla.description import CglaMachine
from ...machines.cgla.isa import EXPAND, MASK, MEMORY, OP1, OP2, OP3, TR_FROM_ALU, Address, BrInput, Source, StoreData
from ...machines.cgla.tables import SLOTS
from ...machines.program import Table

SLOT_FIELDS: tuple[str, ...] = tuple(column.name for column in SLOTS.columns if column.name != "kernel")
COLUMNS = 4


class Value(NamedTuple):
    """A value by its maker: kind `const` (BR of row, col, part), `alu`, `load` (part = EA) or `wide` (part = word)."""

    kind: str
    row: int
    col: int
    part: int


@dataclass(frozen=True)
class Slot:
    """One configured slot; `fields` are the columns of the `slots` table by name."""

    fields: Mapping[str, int]

    def __getattr__(self, name: str) -> int:
        try:
            return self.fields[name]
        except KeyError as error:
            raise AttributeError(name) from error

    def __getitem__(self, name: str) -> int:
        return self.fields[name]

    @property
    def op1_name(self) -> str:
        """Mnemonic of op1."""
        return OP1[self.fields["op1"]].name

    @property
    def alu_active(self) -> bool:
        """True where the ALU computes anything."""
        return self.fields["op1"] != 0 or self.fields["ex1"] >= 0 or self.fields["op2"] != 0 or self.fields["op3"] != 0

    def memory(self, ea: int) -> str:
        """Mnemonic of the memory op of EA0 or EA1."""
        return MEMORY[self.fields[f"ea{ea}"]].name

    def loads(self, ea: int) -> bool:
        """True where EA0 or EA1 is a load of data into BRs."""
        op = MEMORY[self.fields[f"ea{ea}"]]
        return op.size > 0 and not op.store

    @property
    def stores(self) -> bool:
        """True where EA0 stores."""
        return MEMORY[self.fields["ea0"]].store


@dataclass
class Kernel:
    """One kernel: slots by (row, col), breaches of the rules on fields, and the loops."""

    number: int
    slots: dict[tuple[int, int], Slot]
    rows: int
    provenance: tuple[str, ...] = ()
    violations: list[Violation] = field(default_factory=list)
    drivers: dict[tuple[int, int], Value | None] = field(default_factory=dict)
    chains: dict[tuple[int, int], Any] = field(default_factory=dict)
    recipes: dict[Value, Any] = field(default_factory=dict)
    ports: dict[tuple[int, int], int] = field(default_factory=dict)

    @property
    def usable(self) -> bool:
        """True where no field rule is broken, so that the kernel can be evaluated."""
        return not self.violations

    @property
    def loops(self) -> int:
        """1 or 2 hardware loops."""
        second = self.slots.get((0, 1))
        return 2 if second is not None and second.op1_name == "FOR" else 1

    def row_shape(self) -> list[tuple[int, bool]]:
        """(row, folded) of every configured row."""
        rows: dict[int, bool] = {}
        for (row, _), slot in self.slots.items():
            rows[row] = rows.get(row, False) or bool(slot.fold)
        return sorted(rows.items())

    def port_ops(self, row: int, ea: int) -> int:
        """Slots of a row that have a memory op on EA0 (port 0) or EA1 (port 1); IM ops do not count, STRQ counts all four (2.8)."""
        if (row, ea) not in self.ports:
            self.ports[(row, ea)] = self._port_ops(row, ea)
        return self.ports[(row, ea)]

    def _port_ops(self, row: int, ea: int) -> int:
        count = 0
        for col in range(COLUMNS):
            slot = self.slots.get((row, col))
            if slot is None:
                continue
            name = slot.memory(ea)
            count += 4 if name == "STRQ" else int(name not in ("NONE", "IM_PREF", "IM_DRAIN"))
        return min(count, 4)

    def source_row(self, row: int, fold: bool) -> int:
        """The row whose BRs a slot of `row` reads."""
        return row if fold else (row - 1) % self.rows

    def driver(self, row: int, select: int) -> Value | None:
        """What BR[row][select] holds; None where nothing drives it and it cannot hold a constant either (an illegal select)."""
        key = (row, select)
        if key not in self.drivers:
            self.drivers[key] = self._follow(row, select)
        return self.drivers[key]

    def _follow(self, row: int, select: int) -> Value | None:
        hops = 0
        while True:
            col, k = divmod(select, COLUMNS)
            slot = self.slots.get((row, col))
            source = slot[f"br{k}"] if slot is not None else BrInput.OFF
            if source == BrInput.OFF:
                return Value("const", row, col, k)
            assert slot is not None
            if source == BrInput.ALU:
                return Value("alu", row, col, 0)
            if source == BrInput.LOAD:
                return Value("load", row, col, k)
            if source == BrInput.WIDE:
                return Value("wide", row, col, k)
            select = slot[f"tr{k}"]
            if select == TR_FROM_ALU:
                return Value("alu", row, col, 0)
            if select < 0 or hops > self.rows:
                return None
            row = (row - 1) % self.rows
            hops += 1

    def reads(self, position: tuple[int, int]) -> Iterator[tuple[str, int, int]]:
        """(field, row of the BR, select) of every BR that a slot reads, transfer registers included."""
        row = position[0]
        fields = self.slots[position].fields
        fold_row = self.source_row(row, bool(fields["fold"]))
        above = (row - 1) % self.rows
        for name in ("ex1", "ex2", "ex3", "pred0", "pred1", "pred2", "pred3"):
            if fields[name] >= 0:
                yield name, fold_row, fields[name]
        for part in ("base", "offset"):
            select = fields[f"br_{part}"]
            for ea in (0, 1):
                if select >= 0 and fields[f"ea{ea}_{part}"] == Address.BR:
                    yield f"br_{part}", fold_row if ea == 0 else above, select
        for k in range(4):
            if 0 <= fields[f"tr{k}"] < TR_FROM_ALU:
                yield f"tr{k}", above, fields[f"tr{k}"]

    @cached_property
    def data_constants(self) -> tuple[tuple[int, int, int], ...]:
        """(row, col, k) of every constant that stored data or a predicate may depend on, other than through an address."""
        found: set[tuple[int, int, int]] = set()
        seen: set[tuple[tuple[int, int], tuple[str, ...]]] = set()
        waiting: list[tuple[tuple[int, int], tuple[str, ...]]] = [
            (position, ("ex", "pred", "tr")) for position, slot in self.slots.items() if slot.stores
        ]
        while waiting:
            position, fields = waiting.pop()
            if (position, fields) in seen:
                continue
            seen.add((position, fields))
            for name, row, select in self.reads(position):
                value = self.driver(row, select) if name.startswith(fields) else None
                if value is not None and value.kind == "const":
                    found.add((value.row, value.col, value.part))
                elif value is not None and value.kind == "alu":
                    waiting.append(((value.row, value.col), ("ex",)))
        return tuple(sorted(found))

    @cached_property
    def constants(self) -> frozenset[tuple[int, int, int]]:
        """(row, col, k) of every BR read as a constant by an active operand, predicate, address or passed value."""
        result = set()
        for position in self.slots:
            for _, row, select in self.reads(position):
                value = self.driver(row, select)
                if value is not None and value.kind == "const":
                    result.add((value.row, value.col, value.part))
        return frozenset(result)


def decode_kernels(slots: Table, count: int, machine: CglaMachine, provenance: list[tuple[str, ...]]) -> list[Kernel]:
    """All kernels of a program with the breaches of rules 001 to 015, 034, 037 and 038 that fields alone show."""
    numbers = slots["kernel"]
    order = np.argsort(numbers, kind="stable")
    columns = {name: slots[name][order].tolist() for name in SLOT_FIELDS}
    bounds = np.searchsorted(numbers[order], np.arange(count + 1))
    kernels = []
    for number in range(count):
        kernel = Kernel(number, {}, machine.rows, provenance[number])
        for index in range(int(bounds[number]), int(bounds[number + 1])):
            slot = Slot({name: columns[name][index] for name in SLOT_FIELDS})
            _add_slot(kernel, slot)
        if not kernel.violations:
            FieldRules(kernel, machine).check()
        kernels.append(kernel)
    return kernels


def _breach(kernel: Kernel, rule: str, position: tuple[int, int], message: str) -> None:
    unit = f"kernel {kernel.number} row {position[0]} slot {position[1]}"
    kernel.violations.append(Violation(rule, -1, unit, message, (), kernel.provenance))


_LIMITS: dict[str, tuple[int, int]] = {
    "op1": (0, len(OP1) - 1), "op2": (0, len(OP2) - 1), "op3": (0, len(OP3) - 1), "mode": (0, 15), "self": (0, 1), "init": (0, 3),
    "fold": (0, 1), "imm5": (0, 63), "truth": (0, 0xFFFF), "ea0": (0, len(MEMORY) - 1), "ea1": (0, len(MEMORY) - 1),
    "ea0_mask": (0, len(MASK) - 1), "ea1_mask": (0, len(MASK) - 1), "lmm": (1, 3),
    **{f"expand{i}": (0, len(EXPAND) - 1) for i in (1, 2, 3)},
    **{f"ea{ea}_{part}": (0, max(Address)) for ea in (0, 1) for part in ("base", "offset")},
    "store": (0, max(StoreData)), **{f"br{k}": (0, max(BrInput)) for k in range(4)},
}  # fmt: skip
_SELECTS = ("ex1", "ex2", "ex3", "br_base", "br_offset", "tr0", "tr1", "tr2", "tr3")


def _add_slot(kernel: Kernel, slot: Slot) -> None:
    position = (slot.row, slot.col)
    if not (0 <= slot.row < kernel.rows and 0 <= slot.col < COLUMNS):
        _breach(kernel, "CGLA-001", position, f"the lane has rows 0..{kernel.rows - 1} and slots 0..3")
        return
    if position in kernel.slots:
        _breach(kernel, "CGLA-002", position, "the slot is configured twice; it has one ALU op, one EA0, one EA1 and one predicate table")
        return
    for name, (low, high) in _LIMITS.items():
        if not low <= slot[name] <= high:
            _breach(kernel, "CGLA-001", position, f"{name} is {slot[name]}, it must be in {low}..{high}")
    for name in _SELECTS:
        high = TR_FROM_ALU if name.startswith("tr") else 15
        if not -1 <= slot[name] <= high:
            _breach(kernel, "CGLA-007", position, f"{name} selects BR {slot[name]}; the row above has BRs 0..15")
    for i in range(4):
        if not -1 <= slot[f"pred{i}"] <= 15:
            _breach(kernel, "CGLA-037", position, f"predicate input {i} selects BR {slot[f'pred{i}']}; the row above has BRs 0..15")
    kernel.slots[position] = slot


class FieldRules:
    """The rules on the fields of one kernel (model section 10, column "fields" and "definition table")."""

    def __init__(self, kernel: Kernel, machine: CglaMachine) -> None:
        self.kernel = kernel
        self.machine = machine

    def check(self) -> None:
        """Appends every breach to the kernel's list."""
        self._loops()
        for position, slot in sorted(self.kernel.slots.items()):
            self._operands(position, slot)
            self._accumulator(position, slot)
            self._addresses(position, slot)
            self._store(position, slot)
            self._registers(position, slot)
            self._predicate(position, slot)
            self._sources(position, slot)
        for row, _ in self.kernel.row_shape():
            self._row(row)

    def _report(self, rule: str, position: tuple[int, int], message: str) -> None:
        _breach(self.kernel, rule, position, message)

    def _loops(self) -> None:
        first = self.kernel.slots.get((0, 0))
        if first is None or first.op1_name != "FOR":
            self._report("CGLA-009", (0, 0), "slot (0, 0) must hold the FOR of LOOP0")
        for position, slot in sorted(self.kernel.slots.items()):
            if slot.op1_name != "FOR":
                continue
            if position not in ((0, 0), (0, 1)):
                self._report("CGLA-009", position, "FOR stands in slots (0, 0) and (0, 1) only")
            if any(slot[name] for name in ("op2", "op3", "self", "init", "fold", "expand1", "expand2")):
                self._report("CGLA-009", position, "a loop slot has no op2, op3, self, init, fold or expansion")
            for select in (slot.ex1, slot.ex2):
                value = self.kernel.driver((position[0] - 1) % self.kernel.rows, select) if select >= 0 else None
                if value is not None and value.kind != "const":
                    self._report("CGLA-009", position, "loop counts are constants")

    def _operands(self, position: tuple[int, int], slot: Slot) -> None:
        op, second = OP1[slot.op1], OP2[slot.op2]
        if op.ext and op.name not in self.machine.extensions:
            self._report("CGLA-034", position, f"{op.name} is an extension that machine {self.machine.name} switches off")
        if slot.mode >= op.modes:
            self._report("CGLA-001", position, f"{op.name} has modes 0..{op.modes - 1}, not {slot.mode}")
        if second.unary == (slot.src4 != Source.NONE) or slot.src4 not in tuple(Source):
            self._report("CGLA-006", position, f"op2 {second.name} with src4 = {slot.src4}: it is the immediate, ex2 or ex3")
        if (slot.op3 == 0) == (slot.src5 != Source.NONE) or slot.src5 not in (Source.NONE, Source.IMM, Source.EX3):
            self._report("CGLA-006", position, f"op3 {OP3[slot.op3]} with src5 = {slot.src5}: it is the immediate or ex3")
        if (slot.imm4 and slot.src4 != Source.IMM) or (slot.imm5 and slot.src5 != Source.IMM):
            self._report("CGLA-001", position, "an immediate that nothing uses must be 0")
        used = {1, 2, 3} & set(range(1, op.arity + 1)) if slot.alu_active else set()
        used |= {2} if slot.src4 == Source.EX2 else set()
        used |= {3} if Source.EX3 in (slot.src4, slot.src5) else set()
        for i in (1, 2, 3):
            if i in used and slot[f"ex{i}"] < 0:
                self._report("CGLA-003", position, f"{op.name} needs operand {i}, and no BR is selected for it")
            if i not in used and (slot[f"ex{i}"] >= 0 or slot[f"expand{i}"]):
                self._report("CGLA-001", position, f"operand {i} is selected and not used by {op.name}")

    def _accumulator(self, position: tuple[int, int], slot: Slot) -> None:
        if slot["self"] and not OP1[slot.op1].accumulates:
            self._report("CGLA-010", position, f"self on {slot.op1_name}, whose ex1 is no accumulator")
        if slot.init & 1 and not slot["self"]:
            self._report("CGLA-010", position, "init bit 0 reloads an accumulator, and the slot has no self")
        if slot.init & 2 and OP1[slot.op1].arity < 2:
            self._report("CGLA-010", position, f"init bit 1 gates operand 2, which {slot.op1_name} does not have")

    def _addresses(self, position: tuple[int, int], slot: Slot) -> None:
        for ea in (0, 1):
            op = MEMORY[slot[f"ea{ea}"]]
            if not (op.ea0, op.ea1)[ea]:
                self._report("CGLA-001", position, f"{op.name} cannot stand on EA{ea}")
            idle = op.size == 0
            fields = (slot[f"ea{ea}_base"], slot[f"ea{ea}_offset"], slot[f"ea{ea}_mask"])
            if idle and any(fields):
                self._report("CGLA-001", position, f"EA{ea} has address fields and no memory op")
            if slot[f"ea{ea}_offset"] == Address.NONE and slot[f"ea{ea}_mask"]:
                self._report("CGLA-001", position, f"EA{ea} masks an offset that it does not have")
        for part in ("base", "offset"):
            users = [ea for ea in (0, 1) if slot[f"ea{ea}_{part}"] == Address.BR]
            if bool(users) != (slot[f"br_{part}"] >= 0):
                self._report("CGLA-015", position, f"the slot's BR select for the {part} is {slot[f'br_{part}']} with users {users}")
        pair = [slot.memory(ea) == "LDRU" for ea in (0, 1)]
        if any(pair) and not all(pair):
            self._report("CGLA-014", position, "a pair load takes EA0 and EA1 of one slot")
        if slot.fold and slot.loads(0) and Address.BR in (slot.ea0_base, slot.ea0_offset):
            self._report("CGLA-012", position, "a folded EA0 load with a BR address would leave the row one pass late")

    def _store(self, position: tuple[int, int], slot: Slot) -> None:
        if slot.stores != (slot.store != StoreData.NONE):
            self._report("CGLA-001", position, f"EA0 {slot.memory(0)} with store data {slot.store}")
            return
        if not slot.stores:
            return
        if (slot.memory(0) == "STRQ") != (slot.store == StoreData.TRQ):
            self._report("CGLA-001", position, "STRQ stores the four TRs, the other stores one word")
        if slot.store == StoreData.ALU and not slot.alu_active:
            self._report("CGLA-003", position, "the store takes the result of an ALU that computes nothing")
        trs = range(4) if slot.store == StoreData.TRQ else [slot.store - StoreData.TR0] if slot.store >= StoreData.TR0 else []
        for k in trs:
            if slot[f"tr{k}"] < 0:
                self._report("CGLA-003", position, f"the store takes TR{k}, which selects nothing")
            if slot.fold:
                self._report("CGLA-012", position, "a store of the second pass cannot take a TR of the first")

    def _registers(self, position: tuple[int, int], slot: Slot) -> None:
        wide = slot.memory(1) == "LDRQ"
        drives = [slot[f"br{k}"] for k in range(4)]
        for k, source in enumerate(drives):
            if source == BrInput.LOAD and (k > 1 or not slot.loads(k) or (k == 1 and slot.memory(1) in ("LDRU", "LDRQ"))):
                self._report("CGLA-004", position, f"BR{k} takes a scalar load that is not there; EA0 drives BR0, EA1 drives BR1")
            if source == BrInput.ALU and (k != 2 or not slot.alu_active):
                self._report("CGLA-004", position, f"BR{k} takes the ALU result; only BR2 does, and the ALU must compute")
            if source == BrInput.TR and slot[f"tr{k}"] < 0:
                self._report("CGLA-004", position, f"BR{k} takes TR{k}, which selects nothing")
            if source == BrInput.WIDE and not wide:
                self._report("CGLA-004", position, f"BR{k} takes a wide load, and EA1 has none")
            if wide and source in (BrInput.TR, BrInput.ALU, BrInput.LOAD):
                self._report("CGLA-038", position, f"BR{k} of a slot with LDRQ carries another value")
        if slot.loads(0) and drives[0] != BrInput.LOAD:
            self._report("CGLA-004", position, "the EA0 load drives no BR")
        if slot.loads(1) and slot.memory(1) not in ("LDRU", "LDRQ") and drives[1] != BrInput.LOAD:
            self._report("CGLA-004", position, "the EA1 load drives no BR")
        for k in range(4):
            stored = slot.store in (StoreData.TRQ, StoreData.TR0 + k)
            if slot[f"tr{k}"] >= 0 and drives[k] != BrInput.TR and not stored:
                self._report("CGLA-001", position, f"TR{k} selects a BR and drives nothing")
            if slot[f"tr{k}"] == TR_FROM_ALU and not slot.alu_active:
                self._report("CGLA-003", position, f"TR{k} takes the result of an ALU that computes nothing")
        leaves = BrInput.ALU in drives or any(slot[f"tr{k}"] == TR_FROM_ALU for k in range(4))
        if slot.op1_name == "FOR" and leaves:
            self._report("CGLA-009", position, "the result of a loop slot is no data")
        if slot.fold and leaves:
            self._report("CGLA-012", position, "a folded result leaves the row")
        if slot.alu_active and not leaves and slot.op1_name != "FOR" and slot.store != StoreData.ALU:
            self._report("CGLA-001", position, f"the result of {slot.op1_name} goes nowhere")

    def _predicate(self, position: tuple[int, int], slot: Slot) -> None:
        gated = slot.truth != 0xFFFF or any(slot[f"pred{i}"] >= 0 for i in range(4))
        if gated and not slot.stores:
            self._report("CGLA-037", position, "the predicate gates no store of its slot")
        elif slot.truth not in (0, 0xFFFF) and all(slot[f"pred{i}"] < 0 for i in range(4)):
            self._report("CGLA-037", position, "a truth table without inputs is all ones or all zeros")

    def _sources(self, position: tuple[int, int], slot: Slot) -> None:
        for name, row, select in self.kernel.reads(position):
            maker = self.kernel.slots.get((row, select // COLUMNS))
            source = maker[f"br{select % COLUMNS}"] if maker is not None else BrInput.OFF
            if row == position[0]:
                from_alu = source == BrInput.ALU or (
                    maker is not None and source == BrInput.TR and maker[f"tr{select % COLUMNS}"] == TR_FROM_ALU
                )
                if from_alu:
                    rule = "CGLA-037" if name.startswith("pred") else "CGLA-011"
                    self._report(rule, position, f"{name} reads an ALU result of its own row; feedback exists within one slot only")
            if position[0] == 0 and row == self.kernel.rows - 1 and source != BrInput.OFF:
                self._report("CGLA-008", position, f"{name} reads a driven BR of row {row}; it may hold constants only")

    def _row(self, row: int) -> None:
        cells = [(col, self.kernel.slots[(row, col)]) for col in range(COLUMNS) if (row, col) in self.kernel.slots]
        zero = self.kernel.slots.get((row, 0))
        fold = zero.fold if zero is not None else 0
        for col, slot in cells:
            if slot.stores and slot.fold != fold:
                self._report("CGLA-012", (row, col), f"the store follows the fold flag of slot 0 ({fold}), and its slot has {slot.fold}")
        stored = any(slot.stores for _, slot in cells)
        for col, slot in cells:
            if slot.fold and not (slot.alu_active or slot.stores or (col == 0 and stored)):
                self._report("CGLA-012", (row, col), "fold moves nothing: the slot has no ALU op and no store")
        quads = [col for col, slot in cells if slot.memory(0) == "STRQ"]
        others = [col for col, slot in cells if slot.memory(0) != "NONE"]
        if quads and len(others) > 1:
            self._report("CGLA-013", (row, quads[0]), f"STRQ takes EA0 of all four slots, and slots {others} use EA0")
