"""The errors that users of spatialc meet. Every message is one sentence: what was found, what is allowed, what to do next."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


class SpatialcError(Exception):
    """Base of every error that spatialc raises on purpose."""


class BadInput(SpatialcError):
    """A wrong argument, file, shape, machine field or program file (exit code 2)."""


class UnsupportedOp(SpatialcError):
    """Ops that cannot be compiled, all of them at once.

    `ops` holds one line an op: its name, module path, Python line and the reason.
    """

    def __init__(self, message: str, ops: Sequence[str] = ()) -> None:
        super().__init__(message)
        self.ops = tuple(ops)


class Infeasible(SpatialcError):
    """The model does not fit the machine (exit code 3): a result, not a crash."""

    def __init__(
        self,
        resource: str,
        demand: float,
        bound: float,
        unit: str,
        where: str,
        levers: Sequence[str] = (),
    ) -> None:
        self.resource = resource
        self.demand = demand
        self.bound = bound
        self.gap = demand - bound
        self.unit = unit
        self.where = where
        self.levers = tuple(levers)
        advice = f"; try: {', '.join(self.levers)}" if self.levers else ""
        super().__init__(
            f"{resource} is too small in {where}: needs {demand:,.0f} {unit}, has {bound:,.0f}, {self.gap:,.0f} too many{advice}"
        )


@dataclass(frozen=True)
class Violation:
    """One breach of one machine rule, found by the executor.

    `rule` is the id of the machine model page (`TSP-006`, `CGLA-017`, `W33`), `cycle` the first cycle of the breach (-1 where a rule
    has no cycle), `unit` the unit or place in words, `claimants` the bursts or tables in conflict, `provenance` where they come from.
    """

    rule: str
    cycle: int
    unit: str
    message: str
    claimants: tuple[str, ...] = ()
    provenance: tuple[str, ...] = ()

    def __str__(self) -> str:
        at = f" cycle {self.cycle}" if self.cycle >= 0 else ""
        who = f" [{' / '.join(self.claimants)}]" if self.claimants else ""
        where = f" from {', '.join(self.provenance)}" if self.provenance else ""
        return f"{self.rule}{at} {self.unit}: {self.message}{who}{where}"


class LegalityError(SpatialcError):
    """A schedule that breaks a machine rule; raised only on request (`Program.check(strict=True)`)."""

    def __init__(self, violations: Sequence[Violation]) -> None:
        self.violations = tuple(violations)
        first = str(self.violations[0]) if self.violations else "no violation"
        more = f" (and {len(self.violations) - 1} more)" if len(self.violations) > 1 else ""
        super().__init__(first + more)
