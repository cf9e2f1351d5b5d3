"""The TSP executor: judges a program by every rule of docs/tsp-model.md, counts its cycles and computes its numbers from the instructions.

`check` lists breaches; `execute` judges and runs; `prepare` does the judging once for programs that run many times.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from ...errors import BadInput, Violation
from ...machines.program import Binding, Program
from ...machines.tsp.tables import STORED, Kind
from ..execution import Execution
from . import kernels
from .bindings import encode, lay_out, logical
from .counters import Counts, count
from .evaluate import Evaluation
from .legality import Analysis, analyse
from .report import Report
from .values import Values, place_values

__all__ = ["Prepared", "check", "execute", "prepare"]


def check(program: Program, *, skip: frozenset[str] = frozenset()) -> list[Violation]:
    """Structure and every rule that needs no data. Raises BadInput only for a container that cannot be read."""
    return analyse(program, skip)[1]


@dataclass
class Prepared:
    """A judged program with its arena of constants, ready to run. Rows of constants are loaded once and never change."""

    program: Program
    violations: tuple[Violation, ...]
    analysis: Analysis | None
    counts: Counts | None
    values: Values | None = None
    arena: np.ndarray | None = None

    def run(self, inputs: Mapping[str, np.ndarray], states: Mapping[str, np.ndarray] | None = None, *, exact: bool = False) -> Execution:
        """Compute the numbers of one run; outputs are empty where the program broke a rule."""
        if self.analysis is None or self.counts is None or self.violations:
            return self.execution()
        _load(self)
        assert self.values is not None and self.arena is not None
        report = Report(self.program)
        arena = self.arena
        _clear(self)
        given = {("input", name): value for name, value in inputs.items()} | {
            ("state", name): value for name, value in (states or {}).items()
        }
        for binding in self.program.bindings:
            if binding.kind == "output":
                continue
            value = given.pop((binding.kind, binding.name), None)
            if value is None and binding.kind == "input":
                raise BadInput(f"input {binding.name} is missing")
            _bind(self, binding, np.zeros(binding.shape, np.float32) if value is None else np.asarray(value))
        if given:
            kind, name = sorted(given)[0]
            raise BadInput(f"the program has no {kind} {name!r}")
        evaluation = Evaluation(self.analysis, self.values, arena, report, exact)
        evaluation.run()
        outputs: dict[str, np.ndarray] = {}
        kept: dict[str, np.ndarray] = {}
        for binding in self.program.bindings:
            if binding.kind != "input":
                (outputs if binding.kind == "output" else kept)[binding.name] = _read(self, evaluation, binding)
        return self.execution(outputs, kept, tuple(report.violations()), "exact" if exact or self.values.parts else "blocked")

    def execution(
        self, outputs: Mapping[str, np.ndarray] | None = None, states: Mapping[str, np.ndarray] | None = None,
        found: tuple[Violation, ...] = (), order: str = "blocked",
    ) -> Execution:  # fmt: skip
        """The record of a run, with what is known of the schedule."""
        c = self.counts
        if c is None or self.analysis is None:
            return Execution({}, {}, self.violations, 0, 0, {}, {}, {}, {}, 0.0, {}, 0.0, order=order)
        return Execution(
            outputs=outputs or {}, states=states or {}, violations=self.violations + found, cycles=self.analysis.cycles,
            interval_cycles=c.interval_cycles, breakdown=c.breakdown, utilization=c.utilization, traffic=c.traffic, memory=c.memory,
            energy_j=c.energy_j, energy_breakdown=c.energy_breakdown, time_s=c.time_s, load_s=c.load_s,
            chips=self.analysis.flat.chips, order=order,
        )  # fmt: skip


def prepare(program: Program, *, skip: frozenset[str] = frozenset()) -> Prepared:
    """Judge a program once. Raises BadInput only for a container that cannot be read."""
    analysis, violations = analyse(program, skip)
    return Prepared(program, tuple(violations), analysis, None if analysis is None else count(analysis))


def execute(
    program: Program, inputs: Mapping[str, np.ndarray], states: Mapping[str, np.ndarray] | None = None, *,
    timing_only: bool = False, exact: bool = False, skip: frozenset[str] = frozenset(),
) -> Execution:  # fmt: skip
    """Judge and run a program. `inputs`, `states` by binding name in logical shape; absent states are zero.

    Raises BadInput for wrong inputs; breaches of rules are in `violations`, never raised.
    """
    prepared = prepare(program, skip=skip)
    return prepared.execution() if timing_only else prepared.run(inputs, states, exact=exact)


def _load(p: Prepared) -> None:
    """Lay out the arena and load constants, once; reset what earlier runs wrote."""
    assert p.analysis is not None
    if p.values is None:
        p.values = place_values(p.analysis)
        p.arena = np.empty(p.values.size + 8, np.uint8)
        placed = p.program.tables["placements"]
        p.arena[: p.values.bound] = 0
        for image, allocation in zip(placed["image"].tolist(), placed["allocation"].tolist(), strict=True):
            array = p.program.images.get(f"image.{image}")
            if array is None:
                raise BadInput(f"the program was compiled without weights (image.{image} is absent); it can only be timed")
            units = sorted(unit for a, unit in p.values.allocation_base if a == allocation)
            for unit, rows in zip(units, array, strict=True):
                base = p.values.allocation_base[allocation, unit]
                p.arena[base : base + rows.size] = rows.reshape(-1)


def _clear(p: Prepared) -> None:
    """Zero every row that is not constant, as before cycle 0 of the first run."""
    assert p.values is not None and p.arena is not None and p.analysis is not None
    alloc, vector = _alloc(p), p.analysis.machine.vector
    for (allocation, _), base in p.values.allocation_base.items():
        if alloc["kind"][allocation] != Kind.CONST:
            p.arena[base : base + int(alloc["rows"][allocation]) * vector] = 0


def _alloc(p: Prepared) -> dict[str, np.ndarray]:
    return {name: np.asarray(column, np.int64) for name, column in p.program.tables["allocations"].items()}


def _bind(p: Prepared, binding: Binding, value: np.ndarray) -> None:
    """Write a tensor into all its regions before cycle 0."""
    assert p.analysis is not None and p.values is not None and p.arena is not None
    vector = p.analysis.machine.vector
    data = encode(binding, value)
    width = data.dtype.itemsize
    for where in binding.where or ():
        region = lay_out(where, binding.shape, _alloc(p), p.analysis.machine)
        vectors = np.where(region.elements >= 0, data[np.maximum(region.elements, 0)], data.dtype.type(0)).astype(data.dtype)
        planes = vectors.view(np.uint8).reshape(len(vectors), vector, width)
        rows = p.arena[: p.values.bound // vector * vector].reshape(-1, vector)
        for plane in range(width):
            rows[p.values.row_offset[region.places[plane]] // vector] = planes[:, :, plane]


def _read(p: Prepared, evaluation: Evaluation, binding: Binding) -> np.ndarray:
    """A tensor after the end, each element from the first region that holds it."""
    assert p.analysis is not None and p.values is not None and p.arena is not None
    a, v = p.analysis, p.values
    stored = np.dtype(STORED[binding.stored])
    result = np.zeros(int(np.prod(binding.shape)), stored)
    for region in reversed(a.memory.outputs[f"{binding.kind}:{binding.name}"]):
        final = a.memory.final(region.places)
        source = np.where(final >= 0, a.feeds.source[np.maximum(final, 0)], -1)
        bound = (final < 0) & (final > -(1 << 62))
        offset = np.where(source >= 0, v.offset[np.maximum(source, 0)], -1)
        offset[bound] = v.row_offset[-1 - final[bound]]
        step = np.where(source >= 0, v.step[np.maximum(source, 0)], 1)
        out = np.empty((region.places.shape[1], a.machine.vector * stored.itemsize), np.uint8)
        kernels.fetch(p.arena, np.ascontiguousarray(offset), np.ascontiguousarray(step), out)
        held = region.elements >= 0
        result[region.elements[held]] = out.view(stored)[held]
    return logical(binding, result)
