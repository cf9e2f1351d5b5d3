"""The CGLA executor: judges a program by the rules of `docs/cgla-model.md`, computes its numbers from its slots and counts its cycles.

It reads programs and machine descriptions only. `check` lists every breach without data; `execute` judges and runs; `prepare` does the
judging once for programs that run many times.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from ...errors import Violation
from ...machines.cgla.tables import BufferKind
from ...machines.program import Program
from ..execution import Execution, executing
from .account import breakdown, energy, host_ops, occupancy, totals, traffic, utilization
from .decode import decode
from .run import NOTHING, Run, Runner
from .seams import PROGRAM_END, Verdict, judge

__all__ = ["END_CHECK", "Prepared", "check", "execute", "prepare"]

END_CHECK = "CGLA-032-end"


def check(program: Program, *, skip: frozenset[str] = frozenset()) -> list[Violation]:
    """Every breach of CGLA-001 to CGLA-038 that needs no data, without the rules in `skip` (`CGLA-032-end` skips the comparison with the
    program's predicted end alone). Raises BadInput only for a container that is not a CGLA program."""
    return _kept(judge(decode(program)).violations, skip)


@dataclass
class Prepared:
    """A judged program, ready to run; its images must not change."""

    verdict: Verdict
    skip: frozenset[str]

    @cached_property
    def runner(self) -> Runner | None:
        """None for a program that breaks a rule other than lengths and order of time: it cannot be evaluated."""
        return Runner(self.verdict) if computable(self.verdict) else None

    def run(self, inputs: Mapping[str, np.ndarray], states: Mapping[str, np.ndarray] | None = None, *, exact: bool = False) -> Execution:
        """Compute the numbers of one run; outputs are empty where the program cannot be evaluated. Raises BadInput for wrong inputs.

        With `exact` every slot is evaluated on all iterations. Without, fast forms take their place: equal ones, and matrix products for
        launches that are sums of products (`order` is "blocked" then).
        """
        return self.execution() if self.runner is None else self.execution(self.runner.run(inputs, states or {}, exact))

    def execution(self, ran: Run = NOTHING) -> Execution:
        """The record of a run, with what is known of the schedule."""
        found = tuple(_kept([*self.verdict.violations, *ran.violations], self.skip))
        order = "blocked" if ran.blocked else "exact"
        return replace(self.schedule, outputs=ran.outputs, states=ran.states, violations=found, order=order)

    @cached_property
    def schedule(self) -> Execution:
        """The record of the schedule alone."""
        verdict, machine = self.verdict, self.verdict.decoded.machine
        counts = totals(verdict)
        joules = energy(machine, verdict.cycles, counts)
        return Execution(
            outputs={}, states={}, violations=(), cycles=verdict.cycles, interval_cycles=verdict.cycles, breakdown=breakdown(verdict),
            utilization=utilization(verdict, machine, counts), traffic=traffic(counts), memory=occupancy(verdict, machine),
            energy_j=sum(joules.values()), energy_breakdown=joules, time_s=verdict.cycles / machine.clock_hz,
            load_s=_load_seconds(verdict), chips=1, host_ops=host_ops(verdict),
        )  # fmt: skip


def prepare(program: Program, *, skip: frozenset[str] = frozenset()) -> Prepared:
    """Judge a program once. Raises BadInput only for a container that is not a CGLA program."""
    return Prepared(judge(decode(program)), skip)


execute = executing(prepare)


_TIME_RULES = frozenset({"CGLA-027", "CGLA-028", "CGLA-029", "CGLA-032", "CGLA-034"})


def computable(verdict: Verdict) -> bool:
    """True where every breach concerns time alone."""
    return verdict.runnable and all(breach.rule in _TIME_RULES for breach in verdict.violations)


def _kept(violations: list[Violation], skip: frozenset[str]) -> list[Violation]:
    return [breach for breach in violations if breach.rule not in skip and not (END_CHECK in skip and breach.unit == PROGRAM_END)]


def _load_seconds(verdict: Verdict) -> float:
    """Time to bring the weights into DMA-able memory by host copies before cycle 0."""
    machine = verdict.decoded.machine
    table = verdict.decoded.program.tables["buffers"]
    weights = int(table["bytes"][table["kind"] == BufferKind.IMAGE].sum())
    return float(weights / (machine.host_memcpy_bytes_per_cycle * machine.clock_hz))
