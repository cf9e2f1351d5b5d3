"""What the executor reports: values, verdict, cycles and counters, the same for every machine."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np

from ..errors import Violation
from ..machines.program import Program


@dataclass(frozen=True)
class Execution:
    """One run of one program, as the judge saw it.

    `outputs` and `states` are arrays in logical shape by binding name (empty in timing-only runs); `breakdown` maps a cause to its
    cycles and sums to `cycles`; `utilization` is the fraction of busy cycles per unit class; `traffic` has `onchip_bytes`,
    `byte_hops` and `offchip_bytes`; `memory` has `used_bytes` and `capacity_bytes`; energies are joules; `order` says whether sums
    were taken in the machine's order (`exact`) or in a closed form that equals it within rounding (`blocked`).
    """

    outputs: Mapping[str, np.ndarray]
    states: Mapping[str, np.ndarray]
    violations: tuple[Violation, ...]
    cycles: int
    interval_cycles: int
    breakdown: Mapping[str, int]
    utilization: Mapping[str, float]
    traffic: Mapping[str, float]
    memory: Mapping[str, int]
    energy_j: float
    energy_breakdown: Mapping[str, float]
    time_s: float
    load_s: float = 0.0
    chips: int = 1
    order: str = "exact"
    host_ops: Mapping[str, int] = field(default_factory=dict)

    @property
    def legal(self) -> bool:
        """True where no rule was broken."""
        return not self.violations


class Prepared(Protocol):
    """What `prepare` of every executor gives: a program judged once, ready for any number of runs, each apart from the others."""

    def run(self, inputs: Mapping[str, np.ndarray], states: Mapping[str, np.ndarray] | None = None, *, exact: bool = False) -> Execution:
        """Compute the numbers of one run. `inputs`, `states` by binding name in logical shape; absent states are zero.

        Outputs are empty where the program cannot be followed. Raises BadInput for wrong inputs; breaches of rules are in `violations`.
        """
        ...

    def execution(self) -> Execution:
        """What is known without data: verdict, cycles, counters."""
        ...


def once(
    prepared: Prepared, inputs: Mapping[str, np.ndarray], states: Mapping[str, np.ndarray] | None, timing_only: bool, exact: bool
) -> Execution:  # fmt: skip
    """One run of a prepared program, without numbers if `timing_only`."""
    return prepared.execution() if timing_only else prepared.run(inputs, states, exact=exact)


class Prepare(Protocol):
    """`prepare` of an executor."""

    def __call__(self, program: Program, *, skip: frozenset[str] = frozenset()) -> Prepared: ...


class Execute(Protocol):
    """`execute` of an executor: judge a program and run it.

    `inputs`, `states` by binding name in logical shape; absent states are zero. With `timing_only` no data move; `exact` takes sums in the
    machine's own order; rules in `skip` are left out.

    Raises BadInput for wrong inputs; breaches of rules are in `violations`, never raised.
    """

    def __call__(
        self, program: Program, inputs: Mapping[str, np.ndarray], states: Mapping[str, np.ndarray] | None = None, *,
        timing_only: bool = False, exact: bool = False, skip: frozenset[str] = frozenset(),
    ) -> Execution: ...  # fmt: skip


def executing(prepare: Prepare) -> Execute:
    """`execute` of the executor whose `prepare` this is."""

    def execute(
        program: Program, inputs: Mapping[str, np.ndarray], states: Mapping[str, np.ndarray] | None = None, *,
        timing_only: bool = False, exact: bool = False, skip: frozenset[str] = frozenset(),
    ) -> Execution:  # fmt: skip
        return once(prepare(program, skip=skip), inputs, states, timing_only, exact)

    execute.__doc__ = Execute.__doc__
    return execute
