"""The proofs of `benchmarks/mutants_harmless.py`: they never call a change harmless that shows in some number, and they can say no."""

from __future__ import annotations

import sys
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parent.parent / "benchmarks"))

import mutants_changes as changes
import mutants_judge as m
from mutants_bytes import carries_nothing_live
from mutants_harmless import harmless
from mutants_poison import nothing_takes

from spatialc.machines.program import Program
from spatialc.machines.tsp.isa import DType, Opcode
from spatialc.machines.wafer.isa import Op

PLACE = changes.Place(0, "bursts")


@cache
def subject(target: str) -> m.Subject:
    """The decode step with a few of its runs."""
    whole = m.decode_subject(target)
    return replace(whole, runs=whole.runs[:3])


def changed(program: Program, place: changes.Place, row: int, column: str, value: object) -> Program:
    """The program with one field changed."""
    table = changes.tables_of(program)[place]
    array = table[column].copy()
    array[row] = value
    return changes.with_table(program, place, {**table, column: array})


def legal(program: Program) -> bool:
    return not m.simulate(program.target).check(program, skip=m.PREDICTED[program.target])


def shows(one: Program, other: Program) -> bool:
    """Whether two legal programs differ in some number, with their own constants or with noise in place of them."""
    runs = subject(one.target).runs[:1]
    noisy = [[m.with_noise(program, largest) for program in (one, other)] for largest in m.LARGEST]
    return not all(m.agree(*pair, runs) for pair in ((one, other), *noisy))


def test_bytes_of_moves_that_nothing_depends_on() -> None:
    """Reads of other rows of their objects: what is proven harmless shows in no number, and some are, some are not."""
    program = subject("tsp").program
    bursts = changes.tables_of(program)[PLACE]
    rows = changes.tables_of(program)[changes.Place(0, "objects")]["rows"]
    room = rows[bursts["object"]] - (bursts["n"] - 1) * bursts["stride"] - (bursts["n2"] - 1) * bursts["stride2"]
    rng = np.random.default_rng(1)
    found = []
    for read in rng.permutation(np.flatnonzero((bursts["opcode"] == Opcode.READ) & (room > 1))).tolist():
        other = changed(program, PLACE, read, "row", (bursts["row"][read] + 1) % room[read])
        if len(found) < 10 and legal(other):
            found.append((carries_nothing_live(program, other), shows(program, other)))
    assert (True, True) not in found
    assert {proven for proven, _ in found} == {True, False}


def test_a_change_of_an_operation_is_no_change_of_moves() -> None:
    program = subject("tsp").program
    bursts = changes.tables_of(program)[PLACE]
    row = int(np.flatnonzero(bursts["opcode"] == Opcode.MUL)[0])
    assert carries_nothing_live(program, program)
    assert not carries_nothing_live(program, changed(program, PLACE, row, "opcode", Opcode.ADD))


def test_absurd_values_where_nothing_takes_them() -> None:
    """Of the halves that a rotation reads core by core, one is chosen by constants: what the other reads elsewhere is looked at nowhere."""
    program, runs = subject("wafer").program, subject("wafer").runs[:1]
    bursts = changes.tables_of(program)[PLACE]
    rows = np.flatnonzero((bursts["a_px"] == -1) & (bursts["a_step"][:, 0] == 8))
    others = [changed(program, PLACE, int(row), "a_step", [4, 0]) for row in rows]
    found = [nothing_takes(program, other, 0, int(row), runs) for row, other in zip(rows, others, strict=True)]
    assert [not shows(program, other) for other in others] == found
    assert set(found) == {True, False}


def test_routes_that_no_wavelet_passes() -> None:
    """Routes cut short: legal exactly where every wavelet still goes the same way."""
    program = subject("wafer").program
    routes = changes.Place(0, "routes")
    table = changes.tables_of(program)[routes]
    checked = 0
    for row in range(changes.rows_of(table)):
        for column in ("rows", "cols"):
            start, stop, step = table[column][row].tolist()
            if stop - step > start + step:
                other = changed(program, routes, row, column, [start, stop - step, step])
                assert bool(harmless(program, other, 0, "routes", row, column, ())) == legal(other)
                checked += 1
    assert checked > 3


def test_extents_along_which_nothing_steps() -> None:
    program = subject("wafer").program
    bursts = changes.tables_of(program)[PLACE]
    flat = (bursts["ext"] == 1).all(1) & np.isin(bursts["op"], (Op.ADD, Op.RSQRT)) & (bursts["d_kind"] == 1) & (bursts["a_kind"] == 1)
    row = int(np.flatnonzero(flat)[0])
    other = changed(program, PLACE, row, "ext", [1, 1, 1, 2])
    assert "no operand steps" in harmless(program, other, 0, "bursts", row, "ext", ())
    assert legal(other)
    assert not shows(program, other)
    sums = int(np.flatnonzero((bursts["op"] == Op.FMAC) & (bursts["ext"][:, 0] == 1))[0])
    again = changed(program, PLACE, sums, "ext", [2, *bursts["ext"][sums][1:]])
    assert harmless(program, again, 0, "bursts", sums, "ext", ()) == ""


def test_names_that_nothing_refers_to() -> None:
    program = subject("wafer").program
    bursts = changes.tables_of(program)[PLACE]
    named = np.isin(bursts["id"], bursts["after"])
    for row, free in ((int(np.flatnonzero(~named)[0]), True), (int(np.flatnonzero(named)[0]), False)):
        other = changed(program, PLACE, row, "id", 1 << 20)
        assert bool(harmless(program, other, 0, "bursts", row, "id", ())) is free


def test_descriptors_that_a_lane_holds_already() -> None:
    """Dropped descriptors: legal exactly where the lanes hold the same ones after every RANGE phase."""
    program = subject("cgla").program
    place = changes.Place(-1, "descriptors")
    found = []
    for row in range(0, changes.rows_of(changes.tables_of(program)[place]), 97):
        other = changes.drop_row(program, place, row)
        found.append(bool(harmless(program, other, -1, "descriptors", row, "", ())))
        assert found[-1] == legal(other)
    assert set(found) == {True, False}


def test_zeros_of_another_type() -> None:
    program = subject("cgla").program
    tables = program.segments[0].tables
    tasks, exprs = tables["host_tasks"], changes.Place(0, "host_exprs")
    first = tasks["first_expr"][tasks["exprs"] == 1]
    zeros = [
        row for row in first.tolist() if harmless(program, changed(program, exprs, row, "dtype", 4), 0, "host_exprs", row, "dtype", ())
    ]
    assert zeros
    for row in zeros[:2]:
        assert not shows(program, changed(program, exprs, row, "dtype", 4))
        one = changed(program, exprs, row, "real", 1.0)
        assert harmless(one, changed(one, exprs, row, "dtype", 4), 0, "host_exprs", row, "dtype", ()) == ""


def test_requests_that_bring_what_a_lane_holds() -> None:
    """Loads given to the other lane: what is legal and called harmless shows nowhere, and some load brings again what was there."""
    program = subject("cgla").program
    place = changes.Place(0, "dmas")
    dmas = changes.tables_of(program)[place]
    loads = np.flatnonzero((dmas["direction"] == 0) & (dmas["lane"] == 1))
    found = []
    for row in loads[:8].tolist():
        other = changed(program, place, row, "lane", 0)
        if legal(other):
            found.append((bool(harmless(program, other, 0, "dmas", row, "lane", ())), shows(program, other)))
    assert (True, False) in found
    assert (True, True) not in found


def test_bits_of_another_type() -> None:
    program = subject("tsp").program
    bursts = changes.tables_of(program)[PLACE]
    for opcode, same in ((Opcode.OR, True), (Opcode.MUL, False)):
        row = int(np.flatnonzero((bursts["opcode"] == opcode) & (bursts["dtype"] == DType.F32))[0])
        other = changed(program, PLACE, row, "dtype", DType.I32)
        assert bool(harmless(program, other, 0, "bursts", row, "dtype", ())) is same
