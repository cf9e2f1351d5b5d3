"""Every rule that needs no data, in one pass: `analyse` gives the verdict and all that the numbers are computed from."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ...errors import Violation
from ...machines.program import Program
from ...machines.tsp.description import TspMachine, parse
from . import graph, memory, planes, queues, streams
from .flatten import Array, Flat, flatten
from .report import Report
from .structure import check_container, check_structure, element_total

ELEMENT_LIMIT = 1 << 27
"""Elements (of bursts) beyond which a program is refused rather than expanded."""
CYCLE_LIMIT = 1 << 31
"""Cycles beyond which a program is refused: 2.4 seconds of tsp-v1."""


@dataclass(frozen=True)
class Analysis:
    """A program laid flat and resolved. `level` orders bursts for computing; `receives`, `sends` are matched link elements."""

    program: Program
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
    cycles: int


def machine_of(program: Program) -> TspMachine:
    """The machine that the program was compiled for."""
    return parse(dict(program.machine), "the program's machine")


def analyse(program: Program, skip: frozenset[str] = frozenset()) -> tuple[Analysis | None, list[Violation]]:
    """Structure and every static rule. The analysis is None where the structure leaves nothing to analyse."""
    check_container(program)
    machine = machine_of(program)
    report = Report(program, skip)
    if not check_structure(program, machine, report):
        return None, report.violations()
    total = element_total(program)
    if total > ELEMENT_LIMIT:
        report.add("TSP-001", f"the bursts have {total:,} elements, at most {ELEMENT_LIMIT:,} can be checked")
        return None, report.violations()
    flat = flatten(program, machine)
    if count_cycles(flat) > CYCLE_LIMIT:
        report.add("TSP-001", f"the program takes {count_cycles(flat):,} cycles, at most {CYCLE_LIMIT:,} can be checked")
        return None, report.violations()
    queues.check_queues(flat, report)
    chain = queues.check_accumulating_alus(flat, report)
    links = {name: np.asarray(column, np.int64) for name, column in program.tables["links"].items()}
    receives, sends = queues.check_links(flat, report, links)
    feeds = streams.resolve(flat, report)
    rows = memory.analyse(flat, program, feeds, report)
    passes = planes.analyse(flat, report)
    computing = graph.computes(flat, rows)
    hops = (sends // graph.CODE, receives // graph.CODE)
    pairs = graph.edges(flat, feeds, rows, passes, [chain, hops], report)
    level = graph.order(flat, pairs, computing, report)
    cycles = count_cycles(flat)
    if cycles != program.predicted_cycles:
        report.add("TSP-060", f"the program predicts {program.predicted_cycles} cycles, it takes {cycles}")
    return Analysis(program, machine, flat, feeds, rows, passes, chain, receives, sends, computing, level, cycles), report.violations()


def count_cycles(flat: Flat) -> int:
    """MT-1: last superlane-0 cycle in which an element issues, + 1, + one cycle per further superlane; 0 for an empty program."""
    return int(flat.last.max()) + flat.machine.superlanes if flat.size else 0
