"""Bodies and their placement: a data flow graph with rows becomes the configured slots of a kernel (model section 4).

A `Body` is written with the row of every operation; `place` finds the rest: the slot of each ALU operation, load and store, the boundary
register (BR) of every live value and constant at every boundary, and the transfer registers that carry values down. It keeps rules 1.3
to 1.7 by construction: a load leaves through BR0 (EA0) or BR1 (EA1) of its slot, an ALU result through BR2, everything else through any
BR that is left, at most 16 a boundary.

Values of constants and base registers are named, not known: one kernel serves many register sets.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from ...errors import Infeasible
from ...machines.cgla.isa import (
    EXPAND_CODE,
    MASK_CODE,
    MEMORY_CODE,
    OP1_CODE,
    OP2_CODE,
    OP3_CODE,
    Address,
    BrInput,
    Register,
    Source,
    StoreData,
)

COLUMNS = 4
BRS = 16


@dataclass(frozen=True, eq=False)
class Value:
    """A 64-bit value: a named constant (`row` -1), or the result of an operation in `row`."""

    row: int
    name: str = ""

    @property
    def constant(self) -> bool:
        return self.row < 0


@dataclass(frozen=True, eq=False)
class Operand:
    """An ALU operand with its expansion."""

    value: Value
    expand: str = "H3210"


@dataclass(frozen=True, eq=False)
class Alu:
    """One cascade op1 -> op2 -> op3. `self_init` is None, or the init bits of a slot that accumulates on its own result."""

    result: Value
    op1: str
    operands: tuple[Operand, ...]
    op2: str = "NOP"
    imm4: int | None = None
    op3: str = "NOP"
    imm5: int | None = None
    mode: int = 0
    self_init: int | None = None
    col: int | None = None


@dataclass(frozen=True, eq=False)
class Memory:
    """A load (result is set) or a store of an ALU result of the same row; address = base register `base` + masked `offset`."""

    row: int
    op: str
    base: str
    offset: Value
    mask: str
    result: Value | None = None
    data: Value | None = None


@dataclass(frozen=True)
class Ring:
    """A slot that takes (`IM_PREF`) or gives (`IM_DRAIN`) ring data while the kernel runs."""

    row: int
    col: int
    op: str


@dataclass(frozen=True)
class Held:
    """One host-written register of a kernel: where it is and the name of its value."""

    row: int
    col: int
    register: Register
    name: str


@dataclass(frozen=True)
class Placed:
    """A placed body: rows of the `slots` table (without `kernel`) and the registers that a register set must give."""

    slots: tuple[dict[str, int], ...]
    held: tuple[Held, ...]
    last_row: int


@dataclass
class Body:
    """A kernel body under construction; `rows` is the height of the lane."""

    rows: int
    alus: list[Alu] = field(default_factory=list)
    memory: list[Memory] = field(default_factory=list)
    rings: list[Ring] = field(default_factory=list)
    constants: dict[str, Value] = field(default_factory=dict)

    def constant(self, name: str) -> Value:
        """The constant of that name."""
        return self.constants.setdefault(name, Value(-1, name))

    def alu(
        self, row: int, op1: str, *operands: Value | Operand, op2: str = "NOP", imm4: int | None = None, op3: str = "NOP",
        imm5: int | None = None, mode: int = 0, self_init: int | None = None, col: int | None = None,
    ) -> Value:  # fmt: skip
        """An ALU operation in `row`; returns its result."""
        result = Value(row)
        wrapped = tuple(o if isinstance(o, Operand) else Operand(o) for o in operands)
        self.alus.append(Alu(result, op1, wrapped, op2, imm4, op3, imm5, mode, self_init, col))
        return result

    def load(self, row: int, base: str, offset: Value, mask: str, op: str = "LDR") -> Value:
        """A scalar load in `row`; returns its word."""
        result = Value(row)
        self.memory.append(Memory(row, op, base, offset, mask, result=result))
        return result

    def store(self, data: Value, base: str, offset: Value, mask: str, op: str = "STR") -> None:
        """A store of an ALU result in the row that makes it."""
        self.memory.append(Memory(data.row, op, base, offset, mask, data=data))

    def ring(self, row: int, col: int, op: str) -> None:
        """Let slot (row, col) take or give ring data during EXEC."""
        self.rings.append(Ring(row, col, op))


def _blank(row: int, col: int) -> dict[str, int]:
    return {"row": row, "col": col}


class _Placement:
    """Working state of `place`: slot dictionaries and the BR of every value at every boundary."""

    def __init__(self, body: Body) -> None:
        self.body = body
        self.slots: dict[tuple[int, int], dict[str, int]] = {}
        self.held: list[Held] = []
        self.alu_col: dict[Value, int] = {}
        self.load_place: dict[Value, tuple[int, int]] = {}
        self.where: list[dict[Value, int]] = [{} for _ in range(body.rows)]
        self.last_row = max([a.result.row for a in body.alus] + [m.row for m in body.memory])
        if self.last_row >= body.rows:
            raise Infeasible("rows of a lane", self.last_row + 1, body.rows, "rows", "a kernel body", ["a machine with more rows"])

    def slot(self, row: int, col: int) -> dict[str, int]:
        return self.slots.setdefault((row, col), _blank(row, col))

    def columns(self) -> None:
        """Slots of ALU operations (fixed ones first), ring fields, loads and stores, row by row."""
        body = self.body
        for row in range(self.last_row + 1):
            alus = [a for a in body.alus if a.result.row == row]
            free = [c for c in range(COLUMNS) if c not in {a.col for a in alus}]
            for alu in sorted(alus, key=lambda a: a.col is None):
                self.alu_col[alu.result] = alu.col if alu.col is not None else _take(free, row, "ALU slots")
            self._memory(row)

    def _memory(self, row: int) -> None:
        fields: list[list[object]] = [[None] * COLUMNS, [None] * COLUMNS]
        offsets: list[Value | None] = [None] * COLUMNS
        for ring in self.body.rings:
            if ring.row == row:
                ea = 0 if ring.op == "IM_PREF" else 1
                fields[ea][ring.col] = ring
                self.slot(row, ring.col)[f"ea{ea}"] = MEMORY_CODE[ring.op]
        ops = [m for m in self.body.memory if m.row == row]
        for op in sorted(ops, key=lambda m: m.data is None):
            places = [(self.alu_col[op.data], 0)] if op.data is not None else [(c, ea) for ea in (1, 0) for c in range(COLUMNS)]
            for col, ea in places:
                if fields[ea][col] is None and offsets[col] in (None, op.offset):
                    fields[ea][col], offsets[col] = op, op.offset
                    self._address(op, row, col, ea)
                    break
            else:
                raise Infeasible("memory ports of a row", len(ops), 2 * COLUMNS, "accesses", f"row {row} of a kernel body")

    def _address(self, op: Memory, row: int, col: int, ea: int) -> None:
        slot = self.slot(row, col)
        slot[f"ea{ea}"] = MEMORY_CODE[op.op]
        slot[f"ea{ea}_base"] = Address.REG
        slot[f"ea{ea}_offset"] = Address.BR
        slot[f"ea{ea}_mask"] = MASK_CODE[op.mask]
        self.held.append(Held(row, col, Register.EA1_BASE if ea else Register.EA0_BASE, op.base))
        if op.data is not None:
            slot["store"] = StoreData.ALU
        else:
            assert op.result is not None
            self.load_place[op.result] = (col, ea)

    def registers(self) -> None:
        """BRs at every boundary, top down. Boundary r lies between rows r and r + 1; constants of row 0 lie in the last row."""
        uses = _uses(self.body)
        last_use = {value: row for row in sorted(uses) for value in uses[row]}
        for row in range(self.body.rows):
            below = (row + 1) % self.body.rows
            wanted = uses.get(below, {})
            taken: set[int] = set()
            here = self.where[row]
            live = [v for v in self._values() if v.row <= row and last_use.get(v, -1) > row]
            for value in live:
                if value.row == row:
                    here[value] = self._leave(value, row)
                    taken.add(here[value])
            for value in live:
                if value.row < row:
                    here[value] = self._pass(value, row, taken)
            for value in sorted((v for v in wanted if v.constant), key=lambda v: v.name):
                select = _free_br(taken, row)
                here[value] = select
                taken.add(select)
                self.held.append(Held(row, select // COLUMNS, Register(Register.BR0 + select % COLUMNS), value.name))

    def _values(self) -> list[Value]:
        made = [a.result for a in self.body.alus if a.op1 != "FOR"]
        return made + [m.result for m in self.body.memory if m.result is not None]

    def _leave(self, value: Value, row: int) -> int:
        if value in self.load_place:
            col, ea = self.load_place[value]
            self.slot(row, col)[f"br{ea}"] = BrInput.LOAD
            return col * COLUMNS + ea
        col = self.alu_col[value]
        self.slot(row, col)["br2"] = BrInput.ALU
        return col * COLUMNS + 2

    def _pass(self, value: Value, row: int, taken: set[int]) -> int:
        above = self.where[row - 1][value]
        select = above if above not in taken else _free_br(taken, row)
        taken.add(select)
        col, k = divmod(select, COLUMNS)
        slot = self.slot(row, col)
        slot[f"tr{k}"] = above
        slot[f"br{k}"] = BrInput.TR
        return select

    def operands(self) -> None:
        """Operand selects, operations and offset selects, once every BR is known."""
        for alu in self.body.alus:
            row = alu.result.row
            slot = self.slot(row, self.alu_col[alu.result])
            slot["op1"], slot["mode"] = OP1_CODE[alu.op1], alu.mode
            slot["op2"], slot["op3"] = OP2_CODE[alu.op2], OP3_CODE[alu.op3]
            for i, operand in enumerate(alu.operands, 1):
                slot[f"ex{i}"] = self.select(operand.value, row)
                slot[f"expand{i}"] = EXPAND_CODE[operand.expand]
            if alu.imm4 is not None:
                slot["src4"], slot["imm4"] = Source.IMM, alu.imm4
            if alu.imm5 is not None:
                slot["src5"], slot["imm5"] = Source.IMM, alu.imm5
            if alu.self_init is not None:
                slot["self"], slot["init"] = 1, alu.self_init
        for op in self.body.memory:
            col = self.alu_col[op.data] if op.data is not None else self.load_place[op.result][0]  # type: ignore[index]
            self.slot(op.row, col)["br_offset"] = self.select(op.offset, op.row)

    def select(self, value: Value, row: int) -> int:
        return self.where[(row - 1) % self.body.rows][value]


def _take(free: list[int], row: int, what: str) -> int:
    if not free:
        raise Infeasible(what, COLUMNS + 1, COLUMNS, "slots", f"row {row} of a kernel body")
    return free.pop(0)


def _free_br(taken: set[int], row: int) -> int:
    """A free BR, from the slots' BR3 downwards: loads and ALU results never need that one."""
    for k in (3, 2, 1, 0):
        for col in range(COLUMNS):
            if col * COLUMNS + k not in taken:
                return col * COLUMNS + k
    raise Infeasible("boundary registers", len(taken) + 1, BRS, "values", f"the boundary below row {row} of a kernel body")


def _uses(body: Body) -> dict[int, dict[Value, None]]:
    """For every row the values that it reads from the row above, in order of first use."""
    uses: dict[int, dict[Value, None]] = {}
    for alu in body.alus:
        for operand in alu.operands:
            uses.setdefault(alu.result.row, {})[operand.value] = None
    for op in body.memory:
        uses.setdefault(op.row, {})[op.offset] = None
    return uses


def place(body: Body) -> Placed:
    """Slots and registers of a body. Raises Infeasible where a row or boundary holds more than the machine has."""
    placement = _Placement(body)
    placement.columns()
    placement.registers()
    placement.operands()
    slots = tuple({k: int(v) for k, v in placement.slots[key].items()} for key in sorted(placement.slots))
    held = tuple(sorted(placement.held, key=lambda h: (h.row, h.col, h.register)))
    return Placed(slots, held, placement.last_row)
