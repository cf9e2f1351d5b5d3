"""The TSP executor: judges a program by every rule of docs/tsp-model.md, counts its cycles and computes its numbers from the instructions.

`check` lists breaches; `execute` judges and runs; `prepare` does the judging once for programs that run many times.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property, partial

import numpy as np

from ...errors import BadInput, Violation
from ...machines.program import Binding, Program
from ...machines.tsp.tables import STORED
from ..execution import Execution, executing
from ..threads import THREADS, each, even, one_thread_products
from . import lanes
from .arena import ALIGN, Arena, make_arena
from .bindings import Region, encode, lay_out, logical
from .byte_passes import Selections
from .counters import Counts, count
from .evaluate import Evaluation, Place
from .layout import Array
from .legality import Judgement, analyse
from .report import Report
from .values import Values, place_values

__all__ = ["Prepared", "check", "execute", "prepare"]


def check(program: Program, *, skip: frozenset[str] = frozenset()) -> list[Violation]:
    """Structure and every rule that needs no data. Raises BadInput only for a container that cannot be read."""
    return analyse(program, skip)[1]


@dataclass
class Prepared:
    """A judged program with its arena of rows, ready to run. Constants are read from the program's images, which must not change.

    `values` by layout, the `arena` and the `places` of all blocks are made by the first run.
    """

    program: Program
    violations: tuple[Violation, ...]
    judgement: Judgement | None
    values: list[Values] = field(default_factory=list)
    places: list[Place] = field(default_factory=list)
    arena: Arena | None = None

    @cached_property
    def counts(self) -> Counts | None:
        """The counters; None where there is no judgement."""
        return None if self.judgement is None else count(self.judgement)

    def run(self, inputs: Mapping[str, np.ndarray], states: Mapping[str, np.ndarray] | None = None, *, exact: bool = False) -> Execution:
        """Compute the numbers of one run; outputs are empty where the program broke a rule."""
        if self.judgement is None or self.violations:
            return self.execution()
        j = self.judgement
        given = {("input", name): value for name, value in inputs.items()} | {
            ("state", name): value for name, value in (states or {}).items()
        }
        for binding in self.program.bindings:
            if binding.kind == "input" and ("input", binding.name) not in given:
                raise BadInput(f"input {binding.name} is missing")
        arena = _load(self, j)
        for binding in self.program.bindings:
            if binding.kind != "output":
                value = given.pop((binding.kind, binding.name), None)
                _bind(j, arena, binding, np.zeros(binding.shape, np.float32) if value is None else np.asarray(value))
        if given:
            kind, name = sorted(given)[0]
            raise BadInput(f"the program has no {kind} {name!r}")
        report = Report(self.program)
        with one_thread_products():
            for number, place in zip(j.of, self.places, strict=True):
                Evaluation(j.layouts[number], self.values[number], place, report, exact).run()
        outputs: dict[str, np.ndarray] = {}
        kept: dict[str, np.ndarray] = {}
        for binding in self.program.bindings:
            if binding.kind != "input":
                (outputs if binding.kind == "output" else kept)[binding.name] = _read(j, arena, binding)
        apart = exact or any(values.parts for values in self.values)
        return self.execution(outputs, kept, tuple(report.violations()), "exact" if apart else "blocked")

    def execution(
        self, outputs: Mapping[str, np.ndarray] | None = None, states: Mapping[str, np.ndarray] | None = None,
        found: tuple[Violation, ...] = (), order: str = "blocked",
    ) -> Execution:  # fmt: skip
        """The record of a run, with what is known of the schedule."""
        c = self.counts
        if c is None or self.judgement is None:
            return Execution({}, {}, self.violations, 0, 0, {}, {}, {}, {}, 0.0, {}, 0.0, order=order)
        return Execution(
            outputs=outputs or {}, states=states or {}, violations=self.violations + found, cycles=self.judgement.cycles,
            interval_cycles=c.interval_cycles, breakdown=c.breakdown, utilization=c.utilization, traffic=c.traffic, memory=c.memory,
            energy_j=c.energy_j, energy_breakdown=c.energy_breakdown, time_s=c.time_s, load_s=c.load_s,
            chips=self.judgement.chips, order=order,
        )  # fmt: skip


def prepare(program: Program, *, skip: frozenset[str] = frozenset()) -> Prepared:
    """Judge a program once. Raises BadInput only for a container that cannot be read."""
    judgement, violations = analyse(program, skip)
    return Prepared(program, tuple(violations), judgement)


execute = executing(prepare)


def _load(p: Prepared, j: Judgement) -> Arena:
    """The arena: rows of the store, zero but for all constants, and room for the results of one block."""
    if p.arena is not None:
        p.arena.clear(j.store.fresh)
        return p.arena
    placed = p.program.tables["placements"]
    images = []
    for image, allocation in zip(placed["image"].tolist(), placed["allocation"].tolist(), strict=True):
        if f"image.{image}" not in p.program.images:
            raise BadInput(f"the program was compiled without weights (image.{image} is absent); it can only be timed")
        images.append((allocation, p.program.images[f"image.{image}"]))
    found: dict[int, Values] = {}

    def place(number: int) -> None:
        found[number] = place_values(j.layouts[number])

    largest = sorted(range(len(j.layouts)), key=lambda number: -j.layouts[number].flat.claims.total)
    each(lambda job: job(), [partial(getattr, p, "counts"), *(partial(place, number) for number in largest)])  # counters beside them
    p.values = [found[number] for number in range(len(j.layouts))]
    arena = make_arena(j.store, images, max((v.size for v in p.values), default=0) + ALIGN, j.machine.vector)
    each(lambda number: p.values[number].move(-(-arena.results // ALIGN) * ALIGN, j.machine.vector), largest)
    selections = Selections(arena)
    p.places = [Place(block, arena, arena.offset(*pairs), selections) for block, pairs in zip(j.blocks, j.pairs, strict=True)]
    p.arena = arena
    return arena


def _bind(j: Judgement, arena: Arena, binding: Binding, value: np.ndarray) -> None:
    """Write a tensor into all its regions before cycle 0."""
    vector = j.machine.vector
    data = encode(binding, value)
    width = data.dtype.itemsize
    for where in binding.where or ():
        region = lay_out(where, binding.shape, j.machine)
        planes = region.take(data.view(f"u{width}")).view(np.uint8).reshape(-1, vector, width)
        row = (arena.offset(*j.store.region(region)) - arena.start) // vector
        for plane in range(width):
            arena.rows[row[plane]] = planes[:, :, plane]


def _read(j: Judgement, arena: Arena, binding: Binding) -> np.ndarray:
    """A tensor after the end, each element from the first region that holds it."""
    stored = np.dtype(STORED[binding.stored])
    result = np.zeros(int(np.prod(binding.shape)), stored)
    for region in reversed(j.outputs[f"{binding.kind}:{binding.name}"]):
        parts = region.cut(len(even(THREADS, region.units.size * region.lanes)))
        each(lambda part: _give(j, arena, part, result.view(f"u{stored.itemsize}")), parts)
    return logical(binding, result)


def _give(j: Judgement, arena: Arena, region: Region, flat: Array) -> None:
    """Write the vectors of a region into a flat tensor of unsigned numbers."""
    offset = arena.offset(*j.store.region(region))
    found = lanes.fetch(arena.memory, region.lanes, offset, np.ones_like(offset))
    region.give(found.view(flat.dtype), flat)
