"""Memory ops, predicates, partitions, prefetch rates and the energy check, each as a small launch with a known result."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parent))

from cgla_cases import ALU, BR_, LOADED, REG, TR, WIDE, Bench, Registers, const, counter, edited, inputs_of, loops, prefetch, vector_add

from spatialc.machines.catalog import load_machine
from spatialc.machines.cgla.builder import br, slot
from spatialc.machines.cgla.isa import Register, StoreData
from spatialc.machines.cgla.tables import BufferKind
from spatialc.machines.program import Program, Segment
from spatialc.runtime_sim.cgla import check, ddr_order, execute
from spatialc.runtime_sim.cgla.account import energy
from spatialc.runtime_sim.cgla.ddr_order import Access

A0, A1 = int(Register.EA0_BASE), int(Register.EA1_BASE)


def program(
    slots: list[dict[str, Any]], registers: Registers, count: int, reads: dict[int, tuple[int, int]], out: tuple[int, int, int, int],
    steps: tuple[int, ...] = (8,), dtype: str = "f32",
) -> Program:  # fmt: skip
    """A launch of `count` iterations; counters of `steps` in slots 2, 3; `reads` row -> (address, bytes) of input x; out (row, slot,
    address, bytes) of output y."""
    bench = Bench()
    item = 4 if dtype == "f32" else 1
    made, constants = loops(count)
    for col, step in zip((2, 3), steps, strict=False):
        row, more = counter(col, step)
        made.append(row)
        constants.update(more)
    constants.update(registers)
    made += slots
    size = max(bytes_ for _, bytes_ in reads.values())
    x = bench.buffer(BufferKind.INPUT, size, "x", dtype if dtype == "f32" else "u8", (size // item,))
    y = bench.buffer(BufferKind.OUTPUT, out[3], "y", dtype if dtype == "f32" else "u8", (out[3] // item,))
    ranges = {(row, 0): (address, address + bytes_ - 1, 1, 0) for row, (address, bytes_) in reads.items()}
    ranges[(out[0], out[1])] = (out[2], out[2] + out[3] - 1, 0, 1)
    sets = bench.prepare(made, constants, ranges)
    for row, (address, bytes_) in reads.items():
        bench.load(0, x, 0, address, bytes_, 1 << row)
    bench.launch(sets, made, count)
    bench.drain(out[1], y, 0, out[2], out[3], 1 << out[0])
    return bench.build()


def outputs(made: Program, data: dict[str, np.ndarray]) -> np.ndarray:
    exact, fast = execute(made, data, exact=True), execute(made, data)
    assert exact.violations == fast.violations == ()
    np.testing.assert_array_equal(exact.outputs["y"], fast.outputs["y"])
    return np.asarray(fast.outputs["y"])


def passed(row: int) -> dict[str, Any]:
    """The counter of slot 2 travels on."""
    return slot(row, 2, tr2=br(2, 2), br2=TR)


def store(row: int, name: str, **fields: Any) -> dict[str, Any]:
    return slot(row, 0, ea0=name, ea0_base=REG, ea0_offset=BR_, ea0_mask="W0", br_offset=br(2, 2), store=StoreData.ALU, **fields)


def offset_load(row: int, col: int, name: str, select: int = br(2, 2), ea: int = 1) -> dict[str, Any]:
    fields: dict[str, Any] = {f"ea{ea}": name, f"ea{ea}_base": REG, f"ea{ea}_offset": BR_, f"ea{ea}_mask": "W0", "br_offset": select}
    return slot(row, col, **fields, **{f"br{ea}": LOADED})


@pytest.mark.parametrize(("name", "size"), [("LDR", 8), ("LDWR", 4), ("LDBR", 1)])
def test_scalar_loads_extend_with_zeros(name: str, size: int) -> None:
    count = 8
    counters = (size, 8)
    slots = [
        offset_load(1, 0, name), slot(1, 2, tr2=br(3, 2), br2=TR),
        store(2, "STR", op1="NOP", ex1=br(0, 1)),
    ]  # fmt: skip
    registers = {(1, 0, A1): 0, (2, 0, A0): 256}
    made = program(slots, registers, count, {1: (0, 64)}, (2, 0, 256, 64), counters, "u8")
    x = np.arange(100, 164, dtype=np.uint8)
    expected = np.zeros((count, 8), dtype=np.uint8)
    expected[:, :size] = x[: count * size].reshape(count, size)
    np.testing.assert_array_equal(outputs(made, {"x": x}), expected.ravel())


def test_ea0_loads_leave_through_br0() -> None:
    slots = [offset_load(1, 0, "LDR", ea=0), passed(1), store(2, "STR", op1="NOP", ex1=br(0, 0))]
    made = program(slots, {(1, 0, A0): 0, (2, 0, A0): 256}, 8, {1: (0, 64)}, (2, 0, 256, 64))
    x = np.arange(16, dtype=np.float32)
    np.testing.assert_array_equal(outputs(made, {"x": x}), x)


def test_pair_load_is_unaligned() -> None:
    pair = slot(1, 0, ea0="LDRU", ea0_base=REG, ea0_offset=BR_, ea0_mask="W0", ea1="LDRU", ea1_base=REG, ea1_offset=BR_, ea1_mask="W0",
                br_offset=br(2, 2), br0=LOADED)  # fmt: skip
    slots = [pair, passed(1), store(2, "STR", op1="NOP", ex1=br(0, 0))]
    made = program(slots, {(1, 0, A0): 3, (1, 0, A1): 11, (2, 0, A0): 256}, 4, {1: (0, 64)}, (2, 0, 256, 32), dtype="u8")
    x = np.arange(64, dtype=np.uint8)
    np.testing.assert_array_equal(outputs(made, {"x": x}), x[3:35])


def test_wide_load_and_wide_store() -> None:
    quad = slot(1, 0, ea1="LDRQ", ea1_base=REG, ea1_offset=BR_, ea1_mask="W0", br_offset=br(2, 2), **{f"br{k}": WIDE for k in range(4)})
    back = slot(2, 1, ea0="STRQ", ea0_base=REG, ea0_offset=BR_, ea0_mask="W0", br_offset=br(2, 2), store=StoreData.TRQ,
                tr0=br(0, 3), tr1=br(0, 2), tr2=br(0, 1), tr3=br(0, 0))  # fmt: skip
    slots = [quad, passed(1), back]
    made = program(slots, {(1, 0, A1): 0, (2, 1, A0): 256}, 4, {1: (0, 128)}, (2, 1, 256, 128), (32,))
    x = np.arange(32, dtype=np.float32)
    np.testing.assert_array_equal(outputs(made, {"x": x}), x.reshape(4, 4, 2)[:, ::-1].ravel())


@pytest.mark.parametrize(("name", "size"), [("STWR", 4), ("STBR", 1)])
def test_narrow_stores(name: str, size: int) -> None:
    slots = [offset_load(1, 0, "LDR"), slot(1, 2, tr2=br(3, 2), br2=TR), store(2, name, op1="NOP", ex1=br(0, 1))]
    made = program(slots, {(1, 0, A1): 0, (2, 0, A0): 256}, 8, {1: (0, 64)}, (2, 0, 256, 8 * size), (8, size), "u8")
    x = np.arange(64, dtype=np.uint8)
    np.testing.assert_array_equal(outputs(made, {"x": x}), x.reshape(8, 8)[:, :size].ravel())


def test_predicate_from_a_counter_gates_halves() -> None:
    """Only iterations with n >= 4 store, and of those only the low half (the high words compare 0 < 0)."""
    slots = [
        offset_load(1, 0, "LDR"), slot(1, 1, op1="CMP_LT", ex1=br(0, 3), ex2=br(2, 2), br2=ALU), passed(1),
        store(2, "STR", op1="NOP", ex1=br(0, 1), pred0=br(1, 2), truth=0b10),
    ]  # fmt: skip
    registers = {**const(0, 0, 3, 24), (1, 0, A1): 0, (2, 0, A0): 256}
    made = program(slots, registers, 8, {1: (0, 64)}, (2, 0, 256, 64))
    assert {violation.rule for violation in check(made)} == {"CGLA-023"}
    drained = edited(made, "dmas", 1, lmm=256 + 32, bytes=32)
    assert {violation.rule for violation in check(drained)} >= {"CGLA-023"}, "high halves were never stored"


def test_predicate_from_data_keeps_what_was_there() -> None:
    """Stores over loaded bytes where a value is positive: the sign bit of each word, shifted down, decides."""
    slots = [
        offset_load(1, 0, "LDR"), passed(1),
        slot(2, 0, op1="NOP", ex1=br(0, 1), op3="SRL", src5=1, imm5=31, br2=ALU), passed(2),
        slot(2, 3, op1="FML", ex1=br(0, 1), ex2=br(3, 3), br2=ALU),
        store(3, "STR", op1="NOP", ex1=br(3, 2), pred0=br(0, 2), truth=0b01), slot(3, 1),
    ]  # fmt: skip
    registers = {**const(1, 3, 3, 0x4120000041200000), (1, 0, A1): 0, (3, 0, A0): 0}
    bench = Bench()
    made, constants = loops(8)
    row, more = counter(2, 8)
    made += [row, *slots]
    x = bench.buffer(BufferKind.INPUT, 64, "x", shape=(16,))
    y = bench.buffer(BufferKind.OUTPUT, 64, "y", shape=(16,))
    ranges = {(1, 0): (0, 63, 1, 0), (3, 1): (0, 63, 1, 1)}
    sets = bench.prepare(made, {**constants, **more, **registers}, ranges)
    bench.load(0, x, 0, 0, 64, 2)
    bench.load(1, x, 0, 0, 64, 8)
    bench.launch(sets, made, 8)
    bench.drain(1, y, 0, 0, 64, 8)
    values = np.random.default_rng(3).standard_normal(16).astype(np.float32)
    np.testing.assert_array_equal(outputs(bench.build(), {"x": values}), np.where(values >= 0, values * 10, values))


@pytest.mark.parametrize("mode", [1, 2, 3])
def test_partitions_of_a_row(mode: int) -> None:
    """The same program with every slot in half or quarter partitions gives the same numbers."""
    base = vector_add()
    slots = {name: column.copy() for name, column in base.tables["slots"].items()}
    slots["lmm"][:] = mode
    made = base.with_tables(slots=slots)
    data = inputs_of(made)
    result = execute(made, data)
    assert result.violations == ()
    np.testing.assert_array_equal(result.outputs["c"], data["a"] + data["b"])


def test_partitions_are_the_same_bytes_seen_differently() -> None:
    """A slot in quarter mode does not find what another slot loaded in whole mode, unless the bytes coincide."""
    base = vector_add()
    moved = edited(base, "slots", {"row": 1, "col": 1}, lmm=3)
    assert check(moved) == []
    lost = edited(edited(base, "descriptors", {"row": 1, "col": 1}, col=0), "dmas", 1, tag=0)
    assert {violation.rule for violation in check(lost)} & {"CGLA-001", "CGLA-022"}


def test_prefetch_waits_for_busy_ports() -> None:
    """At peak rate a beat needs every port cycle: one EA0 load in the receiving row allows a beat every 4/3 cycles only."""
    base = prefetch()
    peak = {**base.machine, "dma": "peak"}
    dmas = {name: column.copy() for name, column in base.segments[0].tables["dmas"].items()}
    dmas["iv_num"][:] = 1
    dmas["iv_den"][:] = 1
    tables = {**base.segments[0].tables, "dmas": dmas}
    fast = replace(base, machine=peak, segments=(Segment("main", tables),))
    assert "CGLA-027" not in {violation.rule for violation in check(fast)}
    slots = {name: np.append(column, column[-1:]) for name, column in fast.tables["slots"].items()}
    for name, value in {"col": 1, "ea0": 1, "ea0_base": REG, "br0": LOADED}.items():
        slots[name][-1] = value
    registers = {name: np.append(column, column[-1:]) for name, column in fast.tables["registers"].items()}
    for name, value in {"row": 3, "col": 1, "register": A0, "value": 8192}.items():
        registers[name][-1] = value
    assert "CGLA-027" in {violation.rule for violation in check(fast.with_tables(slots=slots, registers=registers))}


def test_full_load_takes_3_to_8_watts_a_pair_of_lanes() -> None:
    machine = load_machine("cgla", "cgla-imax3-28nm")
    cycles = 1_000_000
    rows = machine.rows * machine.lanes
    counts = {"slot_ops": 1.0 * rows * cycles, "lmm_accesses": 2.0 * rows * cycles, "br_transfers": 3.0 * rows * cycles}
    watts = sum(energy(machine, cycles, counts).values()) / (cycles / machine.clock_hz)
    assert 3 < watts < 8


@pytest.mark.parametrize("seed", range(8))
def test_order_of_accesses_by_edges_equals_that_on_a_grid(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(seed)
    accesses = []
    for number in range(12):
        starts = np.sort(rng.choice(40, rng.integers(1, 6), replace=False)) * 8
        begin = int(rng.integers(0, 20))
        write, sure = bool(rng.integers(2)), bool(rng.integers(4))
        accesses.append(Access(begin, begin + 5, 0, starts, int(rng.integers(1, 6)) * 4, write, sure, "CGLA-030", f"request {number}", -1))
    seen = []
    for few in (1, 1 << 30):
        monkeypatch.setattr(ddr_order, "EDGE_BYTES", few)
        breaches: list[tuple[str, str, str]] = []
        uses = ddr_order.order_accesses(accesses, lambda rule, access, message, to=breaches: to.append((rule, access.unit, message)))  # type: ignore[misc]
        seen.append((breaches, [(u.required.tolist(), u.provided.tolist(), u.hull, u.write_hull) for u in uses.values()]))
    assert seen[0] == seen[1]
