"""Every rule of the CGLA model is detected: a legal program broken in one field must be told by that rule id."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parent))

from cgla_cases import (
    ALU,
    BR_,
    LAST,
    LOADED,
    REG,
    TR,
    WIDE,
    Bench,
    appended,
    const,
    counter,
    dropped,
    edited,
    inputs_of,
    loops,
    prefetch,
    vector_add,
)

from spatialc.machines.catalog import load_machine
from spatialc.machines.cgla.builder import HostExpr, HostOperand, br, slot
from spatialc.machines.cgla.isa import OP1_CODE, OP2_CODE, Register, StoreData
from spatialc.machines.cgla.tables import BufferKind, HostKind
from spatialc.machines.cgla.timing import host_cycles
from spatialc.machines.program import Program
from spatialc.runtime_sim.cgla import check, execute

BASE = vector_add()
PREFETCH = prefetch()
PREFETCH_LAUNCH = int(PREFETCH.segments[0].tables["launches"]["start"][0])
FAD, LOAD_A, COUNTER = {"row": 2, "col": 0}, {"row": 1, "col": 0}, {"row": 0, "col": 2}


def rules(program: Program) -> set[str]:
    return {violation.rule for violation in check(program)}


def kernel_program(extra: list[dict[str, int]], registers: dict[tuple[int, int, int], int] | None = None, count: int = 16) -> Program:
    """A launch of FOR, a counter in BR[0][2][2] and more slots, without data."""
    bench = Bench()
    slots, constants = loops(count)
    made, more = counter(2, 8)
    constants.update(more)
    constants.update(registers or {})
    slots += [made, *extra]
    sets = bench.prepare(slots, constants, {})
    bench.launch(sets, slots, count)
    return bench.build()


def test_base_programs_are_legal_and_right() -> None:
    for program in (BASE, PREFETCH):
        data = inputs_of(program)
        result = execute(program, data)
        assert result.violations == ()
        np.testing.assert_array_equal(result.outputs["c"], data["a"] + data["b"])
    np.testing.assert_array_equal(execute(PREFETCH, data).outputs["e"], data["d"])


def _two_slot_maximum() -> Program:
    """CMP and CMOV that feed each other: a running maximum needs one slot."""
    feed = [
        slot(1, 0, op1="CMP_GT", ex1=br(2, 2), ex2=br(1, 2), fold=1, br2=ALU),
        slot(1, 1, op1="CMOV", ex1=br(0, 2), ex2=br(2, 2), ex3=br(1, 2), fold=1, br2=ALU),
        slot(1, 2, tr2=br(2, 2), br2=TR),
    ]
    return kernel_program(feed)


def _load_add_store(self_update: bool, steps: int = 4, rounds: int = 8) -> Program:
    """y[i1] + x in every iteration, load, add and store in one folded row; the exception of 5.6 needs a reloaded accumulator."""
    bench = Bench()
    a = bench.buffer(BufferKind.INPUT, rounds * 8, "a", shape=(rounds * 2,))
    c = bench.buffer(BufferKind.OUTPUT, rounds * 8, "c", shape=(rounds * 2,))
    slots, registers = loops(steps, rounds)
    made, constants = counter(2, 8, 2)
    registers.update({**constants, **const(0, 0, 3, 0x3F8000003F800000)})
    slots += [
        made,
        slot(1, 0, op1="FAD", ex1=br(0, 1), ex2=br(1, 2), fold=1, self=int(self_update), init=int(self_update),
             ea1="LDR", ea1_base=REG, ea1_offset=BR_, ea1_mask="W0", br_offset=br(2, 2), br1=LOADED,
             ea0="STR", ea0_base=REG, ea0_offset=BR_, ea0_mask="W0", store=StoreData.ALU),
        slot(1, 1, tr2=br(0, 3), br2=TR),
        slot(1, 2, tr2=br(2, 2), br2=TR),
    ]  # fmt: skip
    registers.update({(1, 0, int(Register.EA1_BASE)): 0, (1, 0, int(Register.EA0_BASE)): 0})
    sets = bench.prepare(slots, registers, {(1, 0): (0, rounds * 8 - 1, 1, 1)})
    bench.load(0, a, 0, 0, rounds * 8, 1 << 1)
    bench.launch(sets, slots, steps * rounds)
    bench.drain(0, c, 0, 0, rounds * 8, 1 << 1)
    return bench.build()


def _wide_array(machine_name: str, second: int) -> Program:
    """Arrays of 40 KiB and 30 KiB read in one row; the second one at `second`."""
    bench = Bench(load_machine("cgla", machine_name))
    one, two = 40 * 1024, 30 * 1024
    a = bench.buffer(BufferKind.INPUT, one, "a", shape=(one // 4,))
    b = bench.buffer(BufferKind.INPUT, two, "b", shape=(two // 4,))
    count = 3840
    slots, registers = loops(count)
    made, constants = counter(2, 8)
    registers.update(constants)
    load = {"ea1": "LDR", "ea1_base": REG, "ea1_offset": BR_, "ea1_mask": "W0", "br_offset": br(2, 2), "br1": LOADED}
    slots += [made, slot(1, 0, **load), slot(1, 1, **load)]
    registers.update({(1, 0, int(Register.EA1_BASE)): 0, (1, 1, int(Register.EA1_BASE)): second})
    sets = bench.prepare(slots, registers, {(1, 0): (0, one - 1, 1, 0), (1, 1): (second, second + two - 1, 1, 0)})
    bench.load(0, a, 0, 0, one, 1 << 1)
    bench.load(1, b, 0, second, two, 1 << 1)
    bench.launch(sets, slots, count)
    return bench.build()


def _loads(count: int) -> Program:
    """`count` loads of 32 KiB into rows of lane 0 that overlap in time."""
    bench = Bench()
    size = 32768
    slots, registers = loops(4)
    slots += [slot(1 + i, i, lmm=1) for i in range(count)]
    bench.prepare(slots, registers, {(1 + i, i): (0, size - 1, 1, 0) for i in range(count)})
    for i in range(count):
        symbol = bench.buffer(BufferKind.INPUT, size, f"a{i}", shape=(size // 4,))
        start = bench.clock
        bench.load(i, symbol, 0, 0, size, 1 << (1 + i))
        end, bench.clock = bench.clock, start + bench.machine.t_dma
    bench.clock = end
    return bench.build()


def _host(start_early: bool = False, same_core: bool = False, long: bool = True) -> Program:
    """A host task that doubles what `vector_add` drained."""
    bench = Bench()
    size = 16 * 8
    a = bench.buffer(BufferKind.INPUT, size, "a", shape=(32,))
    w = bench.buffer(BufferKind.WORK, size)
    c = bench.buffer(BufferKind.OUTPUT, size, "c", shape=(32,))
    cycles = host_cycles(bench.machine, 2 * size, 32, 0)
    double = [HostExpr("arg", "f32", 1), HostExpr("add", "f32", 0, 0)]
    bench.segment.host(HostKind.MAP, [32], HostOperand(w, "f32", (1,)), [HostOperand(a, "f32", (1,))], double, start=0, length=cycles)
    second = cycles - 5 if start_early else cycles
    core = 0 if same_core or not start_early else 1
    bench.segment.host(HostKind.MAP, [32], HostOperand(c, "f32", (1,)), [HostOperand(w, "f32", (1,))], double, start=second,
                       length=cycles if long else cycles - 1, core=core)  # fmt: skip
    bench.clock = second + (cycles if long else cycles - 1)
    return bench.build()


def _extension_off() -> Program:
    machine = {**BASE.machine, "extensions": []}
    made = kernel_program([slot(1, 0, op1="X_H2F", ex1=br(2, 2), br2=ALU), slot(2, 0, op1="NOP", ex1=br(0, 2), br2=ALU)])
    assert rules(made) == set()
    return replace(made, machine=machine)


def _wide_slot() -> Program:
    quad = slot(1, 0, ea1="LDRQ", ea1_base=REG, br0=WIDE, br1=WIDE, br2=WIDE, br3=TR, tr3=br(2, 2))
    return kernel_program([quad], {(1, 0, int(Register.EA1_BASE)): 0})


def _moved(table: str, where: dict[str, int] | int, program: Program = BASE, **deltas: int) -> Program:
    """Fields of one row changed by a difference."""
    source = program.tables[table] if table in program.tables else program.segments[0].tables[table]
    index = where if isinstance(where, int) else int(np.flatnonzero(np.all([source[n] == v for n, v in where.items()], axis=0))[0])
    return edited(program, table, index, **{name: int(source[name][index]) + delta for name, delta in deltas.items()})


TWO_STORES = [
    slot(1, 0, op1="NOP", ex1=br(2, 2), ea0="STR", ea0_base=REG, store=StoreData.ALU),
    slot(1, 1, op1="NOP", ex1=br(2, 2), ea0="STR", ea0_base=REG, store=StoreData.ALU),
]
STORE_BASES = {(1, 0, int(Register.EA0_BASE)): 0, (1, 1, int(Register.EA0_BASE)): 0}
QUAD = [
    slot(1, 0, ea0="STRQ", ea0_base=REG, store=StoreData.TRQ, **{f"tr{k}": br(2, 2) for k in range(4)}),
    slot(1, 1, op1="NOP", ex1=br(2, 2), ea0="STR", ea0_base=REG, store=StoreData.ALU),
]

CASES: list[tuple[str, Callable[[], Program]]] = [
    ("CGLA-001", lambda: edited(BASE, "slots", FAD, op1=99)),
    ("CGLA-001", lambda: edited(BASE, "launches", 0, lane=7)),
    ("CGLA-001", lambda: edited(BASE, "slots", FAD, row=64)),
    ("CGLA-002", lambda: appended(BASE, "slots", kernel=0, row=2, col=0, op1=OP1_CODE["FAD"], ex1=1, ex2=5)),
    ("CGLA-003", lambda: edited(BASE, "slots", FAD, ex1=br(3, 3))),
    ("CGLA-004", lambda: edited(BASE, "slots", LOAD_A, br0=LOADED)),
    ("CGLA-004", lambda: edited(BASE, "slots", LOAD_A, br3=ALU)),
    ("CGLA-005", lambda: appended(BASE, "registers", set=0, row=1, col=0, register=1, value=5)),
    ("CGLA-005", lambda: dropped(BASE, "phases", 1)),
    ("CGLA-006", lambda: edited(BASE, "slots", FAD, op2=OP2_CODE["AND"], src4=4)),
    ("CGLA-006", lambda: edited(BASE, "slots", FAD, op2=OP2_CODE["AND"])),
    ("CGLA-007", lambda: edited(BASE, "slots", FAD, ex1=16)),
    ("CGLA-008", lambda: kernel_program([slot(LAST, 2, tr0=br(0, 0), br0=TR)])),
    ("CGLA-009", lambda: kernel_program([slot(1, 3, op1="FOR", ex1=br(2, 2), ex2=br(2, 2))])),
    ("CGLA-009", lambda: edited(BASE, "registers", {"row": 63, "col": 0, "register": 0}, value=0)),
    ("CGLA-009", lambda: edited(BASE, "registers", {"row": 63, "col": 0, "register": 1}, value=2)),
    ("CGLA-010", lambda: edited(BASE, "slots", FAD, op1=OP1_CODE["FML"], self=1)),
    ("CGLA-010", lambda: edited(BASE, "slots", FAD, init=1)),
    ("CGLA-011", _two_slot_maximum),
    ("CGLA-012", lambda: kernel_program([slot(1, 0, op1="NOP", ex1=br(2, 2), fold=1, br2=ALU), slot(1, 2, tr2=br(2, 2), br2=TR)])),
    ("CGLA-013", lambda: kernel_program(QUAD, {(1, 0, 4): 0, (1, 1, 4): 64})),
    ("CGLA-014", lambda: kernel_program([slot(1, 0, ea1="LDRU", ea1_base=REG)], {(1, 0, 6): 0})),
    ("CGLA-014", lambda: kernel_program([slot(1, 0, ea0="LDRU", ea0_base=REG, ea1="LDRU", ea1_base=REG, br0=LOADED)],
                                        {(1, 0, 4): 0, (1, 0, 6): 16})),
    ("CGLA-015", lambda: edited(BASE, "slots", LOAD_A, br_base=br(2, 2))),
    ("CGLA-016", lambda: edited(BASE, "registers", {"row": 1, "col": 0, "register": 6}, value=4)),
    ("CGLA-017", lambda: edited(BASE, "registers", {"row": 1, "col": 0, "register": 6}, value=4096)),
    ("CGLA-018", lambda: _load_add_store(False)),
    ("CGLA-019", lambda: kernel_program(TWO_STORES, STORE_BASES)),
    ("CGLA-020", lambda: _wide_array("cgla-imax3-28nm", 40 * 1024)),
    ("CGLA-021", lambda: edited(BASE, "descriptors", 0, top=256)),
    ("CGLA-022", lambda: edited(BASE, "descriptors", 0, write=0)),
    ("CGLA-022", lambda: edited(BASE, "dmas", 0, rows=3)),
    ("CGLA-022", lambda: edited(BASE, "descriptors", 0, bottom=63)),
    ("CGLA-023", lambda: edited(BASE, "descriptors", 2, read=0)),
    ("CGLA-023", lambda: dropped(BASE, "launches", 0)),
    ("CGLA-024", lambda: edited(BASE, "dmas", 0, lmm=4)),
    ("CGLA-024", lambda: edited(BASE, "dmas", 0, bytes=4)),
    ("CGLA-025", lambda: edited(PREFETCH, "dmas", 0, start=PREFETCH_LAUNCH)),
    ("CGLA-026", lambda: edited(PREFETCH, "slots", {"row": 3}, ea0=0)),
    ("CGLA-027", lambda: edited(BASE, "dmas", 0, iv_num=1, iv_den=1)),
    ("CGLA-028", lambda: _loads(3)),
    ("CGLA-029", lambda: _moved("phases", 2, start=40)),
    ("CGLA-030", lambda: _moved("dmas", 0, start=-2000)),
    ("CGLA-030", lambda: edited(BASE, "phases", 0, length=(1 << 63) - 1)),
    ("CGLA-030", lambda: appended(BASE, "instances", segment=0, cycle=10)),
    ("CGLA-031", lambda: dropped(BASE, "phases", 0)),
    ("CGLA-031", lambda: dropped(BASE, "phases", 2)),
    ("CGLA-032", lambda: _moved("launches", 0, length=1)),
    ("CGLA-032", lambda: _moved("dmas", 0, length=1)),
    ("CGLA-032", lambda: _moved("phases", 0, length=-2)),
    ("CGLA-032", lambda: replace(BASE, predicted_cycles=7)),
    ("CGLA-032", lambda: _host(long=False)),
    ("CGLA-033", lambda: _host(start_early=True, same_core=True)),
    ("CGLA-033", lambda: _host(start_early=True)),
    ("CGLA-034", _extension_off),
    ("CGLA-035", lambda: edited(BASE, "registers", {"row": 1, "col": 0, "register": 6}, value=1 << 31)),
    ("CGLA-035", lambda: edited(BASE, "registers", {"row": 63, "col": 2, "register": 0}, value=0xFFFFFF00)),
    ("CGLA-036", lambda: edited(BASE, "buffers", 1, address=32)),
    ("CGLA-036", lambda: edited(BASE, "buffers", 0, kind=int(BufferKind.WORK), binding=-1)),
    ("CGLA-037", lambda: edited(BASE, "slots", LOAD_A, truth=7)),
    ("CGLA-037", lambda: edited(BASE, "slots", FAD, pred0=16)),
    ("CGLA-038", _wide_slot),
]  # fmt: skip


def test_two_loads_of_a_memory_are_within_its_rate() -> None:
    assert rules(_loads(2)) == set()


def test_arrays_of_70_kib_fit_a_row_of_128_kib() -> None:
    machine = {**_wide_array("cgla-imax3-28nm", 40 * 1024).machine, "lmm_bytes": 131072}
    assert rules(replace(_wide_array("cgla-imax3-28nm", 40 * 1024), machine=machine)) == set()


@pytest.mark.parametrize("exact", [False, True])
def test_load_add_store_of_one_address_with_a_reloaded_accumulator(exact: bool) -> None:
    program = _load_add_store(True)
    data = inputs_of(program)
    result = execute(program, data, exact=exact)
    assert result.violations == ()
    expected = data["a"]
    for _ in range(4):
        expected = expected + np.float32(1)
    np.testing.assert_array_equal(result.outputs["c"], expected)


@pytest.mark.parametrize(("rule", "broken"), CASES, ids=[f"{rule}-{index}" for index, (rule, _) in enumerate(CASES)])
def test_rule_is_detected(rule: str, broken: Callable[[], Program]) -> None:
    found = check(broken())
    assert rule in {violation.rule for violation in found}, [str(violation) for violation in found]
    assert rule not in {violation.rule for violation in check(broken(), skip=frozenset({rule}))}


def test_every_rule_has_a_case() -> None:
    assert {rule for rule, _ in CASES} == {f"CGLA-{number:03d}" for number in range(1, 39)}
