"""Random single-field changes of small CGLA programs: the executor rejects them, or the numbers change, or the change means the same."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parent))

from cgla_cases import inputs_of, prefetch
from cgla_gemm import Chain, chain_inputs, chain_program

from spatialc.machines.catalog import load_machine
from spatialc.machines.program import Program, Segment
from spatialc.runtime_sim.cgla import END_CHECK, execute

HARMLESS = {
    ("dmas", "core"): "another core of the board sets the request up",
    ("phases", "core"): "another core stores the registers",
    ("launches", "core"): "another core starts the launch",
    ("dmas", "start"): "moved inside its slack",
    ("phases", "start"): "moved inside its slack",
    ("launches", "start"): "moved inside its slack",
    ("launches", "ranges"): "the launch relies on no descriptor",
    ("instances", "cycle"): "the whole program starts later",
    ("descriptors", "top"): "covers words that no request moves",
    ("descriptors", "bottom"): "covers words that no request moves",
    ("descriptors", "read"): "enabled for requests that never come",
    ("descriptors", "write"): "enabled for requests that never come",
    ("buffers", "address"): "moved into free DDR",
    ("buffers", "bytes"): "a larger buffer",
    ("symbols", "bytes"): "a larger symbol inside its buffer",
    ("slots", "lmm"): "a partition that keeps all arrays of the row apart and is used by all who share bytes",
    ("slots", "expand1"): "expands a word whose used half stays",
    ("slots", "expand2"): "expands a word whose used half stays",
    ("slots", "expand3"): "expands a word whose used half stays",
    ("slots", "ea0_mask"): "the high half of the offset is zero",
    ("slots", "ea1_mask"): "the high half of the offset is zero",
    ("slots", "ea1_base"): "the register holds zero",
    ("slots", "init"): "with one loop, first(n) is n = 0",
    ("registers", "value"): "a start value that rounds away, or bits above a used half",
}
MUTANTS = 150


def mutate(program: Program, rng: np.random.Generator) -> tuple[Program, str, str] | None:
    """The program with one random field of one random row changed."""
    places: list[tuple[int, str, str]] = []
    for segment, tables in enumerate([program.tables, *(s.tables for s in program.segments)]):
        places += [
            (segment, table, column) for table, columns in tables.items() for column, array in columns.items()
            if len(array) and column not in ("provenance", "label")
        ]  # fmt: skip
    segment, table, column = places[int(rng.integers(len(places)))]
    tables = program.tables if segment == 0 else program.segments[segment - 1].tables
    array = tables[table][column].copy()
    index = int(rng.integers(len(array)))
    info = np.iinfo(array.dtype)
    new = int(array[index]) + int(rng.choice([1, -1, 4, 32, -32])) if rng.random() < 0.8 else int(rng.integers(0, 64))
    new = min(max(new, info.min), info.max)
    if new == array[index]:
        return None
    array[index] = new
    changed: Mapping[str, object] = {**tables, table: {**tables[table], column: array}}
    if segment == 0:
        return replace(program, tables=changed), table, column  # type: ignore[arg-type]
    segments = list(program.segments)
    segments[segment - 1] = Segment(segments[segment - 1].name, changed)  # type: ignore[arg-type]
    return replace(program, segments=tuple(segments)), table, column


def test_mutants_are_rejected_or_change_the_numbers() -> None:
    chain = Chain(load_machine("cgla", "cgla-imax3-28nm"), "fp32", 4, 4, 4, 3)
    survivors = []
    total = 0
    for seed, (program, data) in enumerate([(chain_program(chain), chain_inputs(chain)), (prefetch(), inputs_of(prefetch()))]):
        expected = execute(program, data).outputs
        rng = np.random.default_rng(seed)
        for _ in range(MUTANTS):
            mutant = mutate(program, rng)
            if mutant is None:
                continue
            total += 1
            result = execute(mutant[0], data, skip=frozenset({END_CHECK}))
            if result.violations or set(result.outputs) != set(expected):
                continue
            if all(np.array_equal(result.outputs[name], expected[name]) for name in expected):
                survivors.append(mutant[1:])
    assert total > 250
    assert [place for place in survivors if place not in HARMLESS] == []
    assert len(survivors) <= 0.05 * total, survivors
