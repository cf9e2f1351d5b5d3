"""Every rule that needs no data, in one pass: `analyse` gives the verdict and all that the numbers are computed from.

Blocks of equal layout are judged once (`analyse_layout`); blocks against each other by `seams.py` (who touches whom) and `store.py` (rows).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from ...errors import Violation
from ...machines.program import Program
from ...machines.tsp.description import TspMachine, parse
from ..threads import each, gather
from . import graph, memory, planes, queues, store, streams
from .bindings import Region
from .flatten import Flat, flatten
from .layout import Array, Binds, Block, Columns, Layout
from .report import Notes, Report
from .seams import make_blocks
from .structure import check_container, check_structure, last_cycle, segment_elements

ELEMENT_LIMIT = 1 << 27
"""Elements (of bursts of blocks of different layout) beyond which a program is refused rather than expanded."""
CYCLE_LIMIT = 1 << 31
"""Cycles beyond which a program is refused: 2.4 seconds of tsp-v1."""


@dataclass(frozen=True)
class Analysis:
    """A layout laid flat and resolved. `level` orders bursts for computing; `receives`, `sends` are matched link elements."""

    machine: TspMachine
    flat: Flat
    feeds: streams.Feeds
    memory: memory.Memory
    passes: planes.Passes
    chain: tuple[Array, Array]
    receives: Array
    sends: Array
    computing: Array
    level: Array

    @cached_property
    def leaving(self) -> Array:
        """Tap elements whose bytes outlive the block, in rows of memory and of weight buffers."""
        return np.concatenate([self.memory.final(self.memory.written), self.passes.buffer[self.passes.buffer >= 0]])


@dataclass(frozen=True)
class Judgement:
    """A program as the executor sees it: `blocks` in an order in which they can be computed, block k resolved by `layouts[of[k]]`, its
    pairs (see `flatten.Flat`) lie in the slices and rows `pairs[k]` of the store (`store.Store.pairs`).

    `used_rows`: rows that allocations cover, all chips. `outputs`: regions of outputs and states by "kind:name".
    """

    program: Program
    machine: TspMachine
    binds: Binds
    blocks: list[Block]
    layouts: list[Analysis]
    of: list[int]
    store: store.Store
    pairs: list[tuple[Array, Array]]
    outputs: dict[str, list[Region]]
    used_rows: int
    cycles: int
    chips: int


def machine_of(program: Program) -> TspMachine:
    """The machine that the program was compiled for."""
    return parse(dict(program.machine), "the program's machine")


def analyse(program: Program, skip: frozenset[str] = frozenset()) -> tuple[Judgement | None, list[Violation]]:
    """Structure and every static rule. The judgement is None where the structure leaves nothing to analyse."""
    check_container(program)
    machine = machine_of(program)
    report = Report(program, skip)
    if not check_structure(program, machine, report):
        return None, report.violations()
    binds = Binds(program)
    last = last_cycle(program)
    cycles = last + machine.superlanes if last >= 0 else 0
    elements = segment_elements(program)
    total = int(elements[np.unique(binds.instances["segment"])].sum())
    if cycles > CYCLE_LIMIT:
        report.add("TSP-001", f"the program takes {cycles:,} cycles, at most {CYCLE_LIMIT:,} can be checked")
        return None, report.violations()
    blocks = make_blocks(program, machine, binds) if total <= ELEMENT_LIMIT else []
    total = max(total, sum(int(elements[layout.segments].sum()) for layout in {b.layout.key(): b.layout for b in blocks}.values()))
    if total > ELEMENT_LIMIT:
        report.add("TSP-001", f"different blocks have {total:,} elements, at most {ELEMENT_LIMIT:,} can be checked")
        return None, report.violations()
    layouts, notes, of = _analyse_layouts(program, machine, blocks, elements)
    banks = _check_banks(layouts, of, blocks)
    for block, number, clashes in zip(blocks, of, banks, strict=True):
        report.replay(notes[number], block)
        report.replay(clashes, block)
    used_rows = store.check_capacity(program, binds, machine, report)
    chips = int(max(binds.instances["chip"].max(initial=0), binds.allocations["chip"].max(initial=0))) + 1
    rows = store.lay_store(binds, blocks, machine, chips)
    pairs = [_fill(block, layouts[number], rows, binds.allocations, report) for block, number in zip(blocks, of, strict=True)]
    outputs = store.output_regions(program, binds.allocations, machine, rows, report)
    if cycles != program.predicted_cycles:
        report.add("TSP-060", f"the program predicts {program.predicted_cycles} cycles, it takes {cycles}")
    judgement = Judgement(program, machine, binds, blocks, layouts, of, rows, pairs, outputs, used_rows, cycles, chips)
    return judgement, report.violations()


def _analyse_layouts(
    program: Program, machine: TspMachine, blocks: list[Block], elements: Array
) -> tuple[list[Analysis], list[Notes], list[int]]:
    """Different layouts with their breaches, and the layout number of each block. `elements` of each segment: the largest go first."""
    keys = [block.layout.key() for block in blocks]
    different = {key: block.layout for key, block in zip(keys, blocks, strict=True)}
    number = {key: k for k, key in enumerate(different)}
    layouts = list(different.values())
    order = sorted(range(len(layouts)), key=lambda k: -int(elements[layouts[k].segments].sum()))
    found = dict(zip(order, gather(lambda k: analyse_layout(program, machine, layouts[k]), order), strict=True))
    return [found[k][0] for k in range(len(layouts))], [found[k][1] for k in range(len(layouts))], [number[key] for key in keys]


def _check_banks(layouts: list[Analysis], of: list[int], blocks: list[Block]) -> list[Notes]:
    """The breaches of TSP-005 of each block; blocks of one layout may lie in unlike banks."""
    keys = [(number, block.layout.bank.tobytes()) for number, block in zip(of, blocks, strict=True)]
    different = {key: block.layout.bank for key, block in zip(keys, blocks, strict=True)}
    found = {(number, key): Notes(layouts[number].flat) for number, key in different}
    each(lambda key: queues.check_banks(layouts[key[0]].flat, different[key], found[key]), list(different))
    return [found[key] for key in keys]


def analyse_layout(program: Program, machine: TspMachine, layout: Layout) -> tuple[Analysis, Notes]:
    """Every rule that holds within a block, whatever the banks."""
    flat = flatten(program, machine, layout)
    notes = Notes(flat)
    queues.check_queues(flat, notes)
    chain = queues.check_accumulating_alus(flat, notes)
    receives, sends = queues.check_links(flat, notes)
    feeds = streams.resolve(flat, notes)
    rows = memory.analyse(flat, notes)
    passes = planes.analyse(flat, notes)
    computing = graph.computes(flat, rows)
    hops = (sends // graph.CODE, receives // graph.CODE)
    pairs = graph.edges(flat, feeds, rows, passes, [chain, hops], notes)
    level = graph.order(flat, pairs, computing, notes)
    return Analysis(machine, flat, feeds, rows, passes, chain, receives, sends, computing, level), notes


def _fill(block: Block, a: Analysis, rows: store.Store, alloc: Columns, report: Report) -> tuple[Array, Array]:
    """TSP-009 between blocks: what a block reads from outside is there; then mark what it writes. Returns where its pairs lie."""
    slices, first = rows.pairs(block, a.flat, alloc)

    def number(places: Array) -> Array:
        pair, row = a.flat.within(places)
        return rows.number(slices[pair], first[pair] + row)

    missing = a.memory.outside[~rows.holds(number(a.memory.outside))]
    if len(missing):
        for row in map(int, memory.unfilled_reads(a.flat, a.memory, missing)):
            report.bursts("TSP-009", "read of a row that was never written nor bound through its allocation", a.flat, block, [row])
    rows.filled[number(a.memory.written)] = True
    return slices, first
