"""The judge of wafer programs: legality, cycles and values from instructions alone (`docs/wafer-model.md`).

`check` lists every breach of a machine rule; `execute` also computes the values that the program's bursts move and make, counts cycles,
traffic and energy; `prepare` does the judging once for programs that run many times. Segments are analysed once and reused by all their
instances.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from ...errors import BadInput, Violation
from ...machines.program import Program
from ..execution import Execution, executing
from .arrays import Contents
from .counters import count
from .evaluate import NOTHING, Run, evaluate
from .judge import Judgement, judge, missing_images

__all__ = ["Prepared", "check", "execute", "prepare"]


def check(program: Program, *, skip: frozenset[str] = frozenset()) -> list[Violation]:
    """Every breach of a rule that needs no data, rules in `skip` left out; empty where the program is legal."""
    return list(judge(program, skip).violations)


@dataclass
class Prepared:
    """A judged program with the plans of its segments, ready to run. Constants are read from the program's images, which must not change;
    from the second run on they are kept in the forms in which the numbers take them."""

    verdict: Judgement
    skip: frozenset[str] = frozenset()
    """Rules that it was not judged by."""

    @cached_property
    def contents(self) -> Contents | None:
        """What fills the objects; None for a program whose streams do not pair: it cannot be evaluated."""
        layout = self.verdict.layout
        if layout is None or not all(i.analysis.runnable for i in layout.instances):
            return None
        return Contents(layout, legal=not self.verdict.violations and not self.skip)

    @cached_property
    def counts(self) -> dict[str, Any]:
        """The counters."""
        return count(self.verdict)

    def run(self, inputs: Mapping[str, np.ndarray], states: Mapping[str, np.ndarray] | None = None, *, exact: bool = False) -> Execution:
        """Compute the numbers of one run; outputs are empty where the program cannot be evaluated. Raises BadInput for wrong inputs."""
        if self.contents is None:
            return self.execution()
        missing = missing_images(self.verdict.program, self.contents.layout)
        if missing:
            raise BadInput(f"the program holds no {missing[0]} ({len(missing)} images): weights are not at hand, use timing_only")
        return self.execution(evaluate(self.contents, inputs, states or {}, exact))

    def execution(self, ran: Run = NOTHING) -> Execution:
        """The record of a run, with what is known of the schedule."""
        verdict = self.verdict
        return Execution(
            outputs=ran.outputs, states=ran.states, violations=verdict.violations, cycles=verdict.cycles,
            interval_cycles=verdict.cycles, breakdown=verdict.breakdown, order="blocked" if ran.blocked else "exact", **self.counts,
        )  # fmt: skip


def prepare(program: Program, *, skip: frozenset[str] = frozenset()) -> Prepared:
    """Judge a program once. Raises BadInput only for a container that cannot be read."""
    return Prepared(judge(program, skip), skip)


execute = executing(prepare)
