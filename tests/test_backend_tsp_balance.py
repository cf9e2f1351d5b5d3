"""The TSP's solver strategy: constants balanced over sets of slices, and programs that are never slower than greedy's."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from spatialc import api
from spatialc.backends.tsp.balance import Choice, balanced
from spatialc.errors import BadInput
from spatialc.models.zoo import Request, build


def fullest(choices: list[Choice], others: list[int], sets: tuple[int, ...] | list[int]) -> int:
    """Rows of the fullest set where choice k lies in `sets[k]`."""
    return max(rows + sum(c.rows for c, s in zip(choices, sets, strict=True) if s == k) for k, rows in enumerate(others))


@pytest.mark.parametrize("seed", range(6))
def test_the_fullest_set_is_as_low_as_any_assignment_makes_it(seed: int) -> None:
    draw = np.random.default_rng(seed)
    others = draw.integers(0, 200, 3).tolist()
    choices = []
    for k in range(7):
        sets = tuple(sorted(draw.permutation(3)[: int(draw.integers(1, 4))].tolist()))
        choices.append(Choice(int(draw.integers(20, 300)), sets, sets[0], k // 2))
    got = balanced(choices, others, 0)
    assert all(s in choice.sets for choice, s in zip(choices, got, strict=True))
    best = min(fullest(choices, others, sets) for sets in itertools.product(*(choice.sets for choice in choices)))
    assert fullest(choices, others, got) == best
    assert balanced(choices, others, 0) == got


def test_constants_of_one_list_share_a_set_where_that_costs_nothing() -> None:
    choices = [Choice(100, (0, 1), k % 2, k // 2) for k in range(4)]
    got = balanced(choices, [0, 0], 0)
    assert got[0] == got[1] != got[2] == got[3]


def test_a_solved_program_is_legal_no_slower_and_the_same_every_time() -> None:
    case = build("tiny", Request(seq=32))
    greedy, solved, again = (
        api.compile(case.module, case.args, case.kwargs, target="tsp", strategy=strategy) for strategy in ("greedy", "solver", "solver")
    )
    assert solved.predicted_cycles < greedy.predicted_cycles
    assert solved.digest() == again.digest()
    result = solved.run(*case.args, **case.kwargs)
    assert result.data.status == "ok"


def test_other_strategies_are_refused() -> None:
    case = build("tiny", Request(seq=8))
    with pytest.raises(BadInput, match="strategy is 'best'; it may be greedy, solver"):
        api.compile(case.module, case.args, case.kwargs, target="tsp", strategy="best")
