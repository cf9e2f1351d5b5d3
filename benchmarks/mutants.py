"""Does the executor notice? Change one field of a compiled program, at random, and see whether it is rejected or gives other numbers.

    python benchmarks/mutants.py [-t tsp -t cgla -t wafer] [--count 300] [--seed 0] [--model tiny]

Each mutant is one change: a field of one row of one table (cycle, unit, address, stride, count, stream, colour, opcode, ...), a dropped
row or a duplicated row. Digests follow the change, and the rules that only compare the predicted with the counted cycles are off, since
they would hide the others. A mutant is killed by a rule, killed by its numbers (other outputs or states, or other cycles), or survives.
"""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from dataclasses import dataclass, replace

import numpy as np

from spatialc import api, errors
from spatialc.machines.program import Program, Segment, Table
from spatialc.models.zoo import Request, build

PREDICTED = {"tsp": frozenset({"TSP-060"}), "cgla": frozenset({"CGLA-032-end"}), "wafer": frozenset({"W52"})}
NAMES_ONLY = ("provenance", "prov", "label")  # columns that name where a row comes from and mean nothing to the machine


@dataclass(frozen=True)
class Place:
    """One table of a program: `segment` is None for the program's own tables."""

    segment: str | None
    table: str


@dataclass(frozen=True)
class Mutant:
    """A changed program and what was changed, in words."""

    program: Program
    category: str
    what: str


def tables_of(program: Program) -> dict[Place, Table]:
    """Every table with rows, in a fixed order."""
    found = {Place(None, name): table for name, table in sorted(program.tables.items())}
    for segment in program.segments:
        found |= {Place(segment.name, name): table for name, table in sorted(segment.tables.items())}
    return {place: table for place, table in found.items() if len(next(iter(table.values()), ()))}


def with_table(program: Program, place: Place, table: Table) -> Program:
    """The program with one table replaced."""
    if place.segment is None:
        return program.with_tables(**{place.table: table})
    segments = [Segment(s.name, {**s.tables, place.table: table}) if s.name == place.segment else s for s in program.segments]
    return replace(program, segments=tuple(segments))


def mutate(program: Program, generator: np.random.Generator) -> Mutant:
    """One random change. Tables are drawn by the square root of their size, so that small ones are hit too."""
    tables = tables_of(program)
    places = list(tables)
    weights = np.sqrt([len(next(iter(tables[p].values()))) for p in places])
    place = places[int(generator.choice(len(places), p=weights / weights.sum()))]
    table = tables[place]
    rows = len(next(iter(table.values())))
    row = int(generator.integers(rows))
    where = f"{place.segment or 'program'}.{place.table}[{row}]"
    kind = generator.random()
    if kind < 0.08:
        return Mutant(with_table(program, place, {k: np.delete(a, row, 0) for k, a in table.items()}), "dropped row", where)
    if kind < 0.16:
        doubled = {k: np.insert(a, row, a[row], 0) for k, a in table.items()}
        return Mutant(with_table(program, place, doubled), "duplicated row", where)
    columns = [name for name in sorted(table) if name not in NAMES_ONLY]
    column = columns[int(generator.integers(len(columns)))]
    array = table[column].copy()
    index = (row, *(int(generator.integers(n)) for n in array.shape[1:]))
    before = array[index]
    array[index] = _other(before, array, generator)
    return Mutant(with_table(program, place, {**table, column: array}), column, f"{where}.{column}: {before} -> {array[index]}")


def _other(before: np.generic, array: np.ndarray, generator: np.random.Generator) -> object:
    """A different value of the column's type: a neighbour, another value that the column holds, or a random small change."""
    if array.dtype.kind == "f":
        return before * 2 + 1
    if array.dtype.kind == "b":
        return not before
    info = np.iinfo(array.dtype)
    choice = generator.random()
    others = np.unique(array[array != before])
    if choice < 0.4 and len(others):
        return others[int(generator.integers(len(others)))]
    delta = int(generator.choice([1, -1, 2, -2, 4, -4, 8, 16, -16, 64]))
    value = int(before) + delta
    return value if info.min <= value <= info.max else int(before) - delta


@dataclass(frozen=True)
class Verdict:
    """`killer` is a rule id, `numbers`, `cycles`, or `` for a survivor."""

    mutant: Mutant
    killer: str


def judge(mutant: Mutant, inputs: dict[str, np.ndarray], baseline: object, target: str) -> Verdict:
    """Check, then execute; the first rule that complains is the killer."""
    simulator = api._simulator(target)
    try:
        violations = simulator.check(mutant.program, skip=PREDICTED[target])
        if not violations:
            run = simulator.execute(mutant.program, inputs, skip=PREDICTED[target])
            violations = list(run.violations)
    except errors.BadInput as error:
        return Verdict(mutant, f"structure ({str(error)[:40]})")
    if violations:
        return Verdict(mutant, violations[0].rule)
    same = all(np.array_equal(run.outputs[k], baseline.outputs[k], equal_nan=True) for k in baseline.outputs)
    same = same and all(np.array_equal(run.states[k], baseline.states[k], equal_nan=True) for k in baseline.states)
    if not same:
        return Verdict(mutant, "numbers")
    return Verdict(mutant, "" if run.cycles == baseline.cycles else "cycles")


def campaign(target: str, count: int, seed: int, model: str) -> list[Verdict]:
    """`count` mutants of one compiled model."""
    case = build(model, Request(seq=None))
    program = api.compile(case.module, case.args, case.kwargs, target=target)
    inputs = program._inputs(case.args, case.kwargs, timing_only=False)
    baseline = api._simulator(target).execute(program.container, inputs, skip=PREDICTED[target])
    if baseline.violations:
        raise SystemExit(f"{target}: the program is not legal to begin with: {baseline.violations[0]}")
    generator = np.random.default_rng(seed)
    return [judge(mutate(program.container, generator), inputs, baseline, target) for _ in range(count)]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-t", "--target", action="append", choices=sorted(PREDICTED))
    parser.add_argument("--count", type=int, default=300)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--model", default="tiny")
    options = parser.parse_args()
    worst = 0.0
    for target in options.target or ["tsp", "cgla", "wafer"]:
        verdicts = campaign(target, options.count, options.seed, options.model)
        survivors = [v for v in verdicts if not v.killer]
        killers = Counter(v.killer for v in verdicts if v.killer)
        by_rule = sum(n for name, n in killers.items() if name not in ("numbers", "cycles"))
        print(f"{target}: {len(verdicts)} mutants, {by_rule} rejected, {killers['numbers']} other numbers, "
              f"{killers['cycles']} other cycles, {len(survivors)} survive ({len(survivors) / len(verdicts):.1%})")  # fmt: skip
        for name, number in sorted(killers.items(), key=lambda item: (-item[1], item[0])):
            print(f"  {name:16} {number}")
        for verdict in survivors:
            print(f"  survivor: {verdict.mutant.what}")
        worst = max(worst, len(survivors) / len(verdicts))
    return 0 if worst <= 0.01 else 1


if __name__ == "__main__":
    sys.exit(main())
