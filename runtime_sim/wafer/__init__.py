"""The judge of wafer programs: legality, cycles and values from instructions alone (`docs/wafer-model.md`).

`check` lists every breach of a machine rule; `execute` also computes the values that the program's bursts move and make, counts cycles,
traffic and energy. Segments are analysed once and reused by all their instances.
"""

from __future__ import annotations

from ...errors import Violation
from ...machines.program import Program
from .judge import judge
from .run import execute

__all__ = ["check", "execute"]


def check(program: Program, *, skip: frozenset[str] = frozenset()) -> list[Violation]:
    """Every breach of a rule that needs no data, rules in `skip` left out; empty where the program is legal."""
    return list(judge(program, skip).violations)
