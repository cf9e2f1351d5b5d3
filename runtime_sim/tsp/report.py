"""Collects breaches as `Violation` records, at most a fixed number per rule, with the bursts that caused them by name."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from ...errors import Violation
from ...machines.program import Program
from ...machines.tsp.isa import Opcode, unit_name
from .flatten import Flat
from .layout import Block

LIMIT = 20
"""Records kept per rule; the last says how many more there are."""


def opcode_name(code: int) -> str:
    """Mnemonic of an opcode, `opcode 9?` for a number that is none."""
    try:
        return Opcode(code).name
    except ValueError:
        return f"opcode {code}?"


@dataclass
class Notes:
    """Breaches of one layout, by bursts of its `flat`; `Report.replay` writes them down for each block that has it."""

    flat: Flat
    found: list[tuple[str, str, list[int], int | None]] = field(default_factory=list)
    counts: dict[str, int] = field(default_factory=dict)

    def bursts(self, rule: str, message: str, rows: Sequence[int], cycle: int | None = None) -> None:
        """Record a breach by flat bursts; the first names unit and cycle."""
        self.counts[rule] = self.counts.get(rule, 0) + 1
        if self.counts[rule] <= LIMIT:
            self.found.append((rule, message, [int(row) for row in rows], cycle))


class Report:
    """Breaches of one check. Rules in `skip` are not recorded."""

    def __init__(self, program: Program, skip: frozenset[str] = frozenset()) -> None:
        self.program = program
        self.skip = skip
        self._found: dict[str, list[Violation]] = {}
        self._more: dict[str, int] = {}

    def add(
        self,
        rule: str,
        message: str,
        *,
        cycle: int = -1,
        unit: str = "program",
        claimants: Sequence[str] = (),
        provenance: Sequence[str] = (),
    ) -> None:
        """Record one breach."""
        if rule in self.skip:
            return
        found = self._found.setdefault(rule, [])
        if len(found) < LIMIT:
            found.append(Violation(rule, int(cycle), unit, message, tuple(claimants), tuple(provenance)))
        else:
            self._more[rule] = self._more.get(rule, 0) + 1

    def full(self, rule: str) -> bool:
        """True where further records of this rule would only be counted (or are skipped)."""
        return rule in self.skip or len(self._found.get(rule, ())) >= LIMIT

    def bursts(self, rule: str, message: str, flat: Flat, block: Block, rows: Sequence[int], cycle: int | None = None) -> None:
        """Record a breach by bursts of a block; the first names unit and cycle (from the block's start)."""
        if self.full(rule):
            self.add(rule, message)
            return
        b = flat.b
        head = int(rows[0])
        texts = []
        for r in map(int, rows):
            segment = self.program.segments[int(b["segment"][r])].name
            texts.append(f"{segment}#{int(b['source'][r])}@{int(block.members[b['instance'][r]])} {opcode_name(int(b['opcode'][r]))}")
        pool = self.program.provenance
        sources = sorted({pool[p] for p in (int(b["provenance"][r]) for r in map(int, rows)) if 0 <= p < len(pool)})
        place = f"chip {int(block.chips[b['chip'][head]])} {unit_name(int(b['unit'][head]))}"
        when = block.start + (int(b["t0"][head]) if cycle is None else cycle)
        self.add(rule, message, cycle=when, unit=place, claimants=texts, provenance=sources)

    def replay(self, notes: Notes, block: Block) -> None:
        """Record a layout's breaches where one of its blocks runs."""
        for rule, message, rows, cycle in notes.found:
            self.bursts(rule, message, notes.flat, block, rows, cycle)
        for rule, count in notes.counts.items():
            if count > LIMIT and rule not in self.skip:
                self._more[rule] = self._more.get(rule, 0) + count - LIMIT

    def violations(self) -> list[Violation]:
        """All records by rule id, in the order found."""
        result = []
        for rule in sorted(self._found):
            result += self._found[rule]
            if self._more.get(rule):
                result.append(Violation(rule, -1, "program", f"{self._more[rule]} more breaches of this rule are not listed"))
        return result

    def __len__(self) -> int:
        return sum(len(found) for found in self._found.values())
