"""Every rule id against broken programs of its own, those of the executors' rule tests, for `mutants.py`."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from mutants_judge import simulate

from spatialc.machines.program import Program


def rule_tests(target: str) -> Any:
    """The rule tests of an executor."""
    folder = str(Path(__file__).resolve().parent.parent / "tests")
    if folder not in sys.path:
        sys.path.insert(0, folder)
    return importlib.import_module(f"test_{target}_rules")


def directed(target: str) -> dict[str, list[Callable[[], Program]]]:
    """Rule to the programs of the executor's rule tests that break it."""
    module = rule_tests(target)
    cases = module.BREAKS.items() if target == "wafer" else module.CASES
    found: dict[str, list[Callable[[], Program]]] = {}
    for rule, broken in cases:
        found.setdefault(rule, []).append(broken)
    return found


def gather_fault() -> tuple[Program, dict[str, np.ndarray]]:
    """The TSP program whose data break TSP-012: a Gather that is given a row outside its object."""
    module = rule_tests("tsp")
    codes = np.zeros((2, 20, 16), np.uint8)
    codes[:, :, 0] = 100
    codes[1, 3, 1] = 1
    return module.embedding(), {"codes": codes.reshape(2, 320)}


def rule_ids(target: str) -> list[str]:
    """Every rule of the machine's page."""
    numbers = {
        "tsp": [*range(1, 13), *range(20, 28), *range(30, 35), 40, 41, 50, 51, 60, 61],
        "cgla": range(1, 39),
        "wafer": [*range(1, 7), *range(10, 14), *range(20, 29), *range(30, 40), *range(40, 45), *range(50, 53)],
    }[target]
    return [f"TSP-{n:03}" if target == "tsp" else f"CGLA-{n:03}" if target == "cgla" else f"W{n:02}" for n in numbers]


@dataclass(frozen=True)
class RuleKills:
    """What one rule's own broken programs show: how many it rejects, of how many, and how many no other rule would reject."""

    cases: int
    kills: int
    alone: int


def directed_kills(target: str) -> dict[str, RuleKills]:
    """Every rule on its own broken programs; other rules may reject them as well, `alone` says how often none does."""
    rules = rule_ids(target)
    found = {}
    for rule, programs in directed(target).items():
        kills = alone = 0
        for broken in programs:
            named = {violation.rule for violation in simulate(target).check(broken())}
            kills += rule in named
            alone += named == {rule}
        found[rule] = RuleKills(len(programs), kills, alone)
    if target == "tsp":
        program, inputs = gather_fault()
        named = {violation.rule for violation in simulate(target).execute(program, inputs).violations}
        found["TSP-012"] = RuleKills(1, int("TSP-012" in named), int(named == {"TSP-012"}))
    return {rule: found.get(rule, RuleKills(0, 0, 0)) for rule in rules}
