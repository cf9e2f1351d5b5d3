"""Collecting breaches: one place that gives violations their form and keeps their number readable."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from ...errors import Violation

LIMIT = 50
"""Breaches of one rule that are listed in full; the rest are counted in one last record."""


@dataclass
class Breaches:
    """Violations found so far in one segment or in the program; rules in `skip` are not recorded."""

    skip: frozenset[str] = frozenset()
    provenance: Sequence[str] = ()
    found: list[Violation] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)
    fatal: bool = False

    def add(
        self,
        rule: str,
        unit: str,
        message: str,
        *,
        cycle: int = -1,
        claimants: Iterable[str] = (),
        prov: Iterable[int] = (),
        fatal: bool = False,
    ) -> None:
        """Record one breach. `fatal` ones make the tables unreadable for later checks: they stop the judgement and cannot be skipped."""
        self.fatal |= fatal
        if rule in self.skip and not fatal:
            return
        self.counts[rule] += 1
        if self.counts[rule] <= LIMIT:
            where = tuple(dict.fromkeys(self.provenance[p] for p in prov if 0 <= p < len(self.provenance)))
            self.found.append(Violation(rule, cycle, unit, message, tuple(claimants), where))

    def all(self) -> tuple[Violation, ...]:
        """Every record, and one a rule that says how many more there are."""
        more = [
            Violation(rule, -1, "wafer", f"{count - LIMIT} more breaches of this rule")
            for rule, count in sorted(self.counts.items())
            if count > LIMIT
        ]
        return (*self.found, *more)
