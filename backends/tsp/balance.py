"""`--strategy solver`: which set of slices every stationary constant of a section lies in, chosen for all of them together.

The greedy lowering chooses as constants come, so that a large one that comes last raises the fullest slices. CP-SAT chooses
again for the constants that were asked for, and the section is lowered anew.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

EFFORT = 4.0
"""Deterministic seconds of the solver for one section."""


@dataclass(frozen=True)
class Choice:
    """A constant that needs `rows` rows in each slice of a set: the sets that it may lie in, the one chosen, and the list it is part of."""

    rows: int
    sets: tuple[int, ...]
    chosen: int
    part_of: int


def balanced(choices: Sequence[Choice], others: Sequence[int], seed: int) -> list[int]:
    """A set for every choice, so that the fullest set, beside rows taken by `others` [sets], is as low as can be.

    Among equals, constants of one list share sets. The greedy choice is the first solution: the result is never fuller.
    """
    from ortools.sat.python import cp_model

    model = cp_model.CpModel()
    lies = [{s: model.new_bool_var(f"choice{k}_set{s}") for s in choice.sets} for k, choice in enumerate(choices)]
    for choice, options in zip(choices, lies, strict=True):
        model.add_exactly_one(options.values())
        for s, option in options.items():
            model.add_hint(option, int(s == choice.chosen))
    fullest = model.new_int_var(0, max(others, default=0) + sum(choice.rows for choice in choices), "fullest")
    for s, rows in enumerate(others):
        model.add(rows + sum(choice.rows * options[s] for choice, options in zip(choices, lies, strict=True) if s in options) <= fullest)
    used = {(choice.part_of, s): model.new_bool_var(f"list{choice.part_of}_set{s}") for choice in choices for s in choice.sets}
    for choice, options in zip(choices, lies, strict=True):
        for s, option in options.items():
            model.add_implication(option, used[choice.part_of, s])
    model.minimize(fullest * (len(used) + 1) + sum(used.values()))
    solver = cp_model.CpSolver()
    solver.parameters.num_workers = 1
    solver.parameters.random_seed = seed
    solver.parameters.max_deterministic_time = EFFORT
    if solver.solve(model) not in (cp_model.OPTIMAL, cp_model.FEASIBLE):
        return [choice.chosen for choice in choices]
    return [next(s for s, option in options.items() if solver.boolean_value(option)) for options in lies]
