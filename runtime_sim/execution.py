"""What the executor reports: values, verdict, cycles and counters, the same for every machine."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np

from ..errors import Violation


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
