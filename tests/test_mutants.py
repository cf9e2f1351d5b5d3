"""A small deterministic version of `benchmarks/mutants.py`: random changes of compiled programs do not pass the executors unnoticed."""

from __future__ import annotations

import re
import sys
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parent))
sys.path.insert(0, str(Path(__file__).parent.parent / "benchmarks"))

import mutants_changes as changes
import mutants_judge as m
import mutants_rules as rules
from mutants_harmless import harmless
from wafer_programs import star

from spatialc.runtime_sim.wafer import check, kernels

MUTANTS = 40
SEED = 11


@cache
def subject(target: str) -> m.Subject:
    """The decode step, compiled once a machine, with two of its runs: positions from the start and from the end."""
    whole = m.decode_subject(target)
    return replace(whole, runs=(whole.runs[0], whole.runs[2]))


@cache
def verdicts(target: str) -> tuple[m.Verdict, ...]:
    one = subject(target)
    expected = m.baseline(one)
    return tuple(m.judge(one, expected, changes.mutate(one.program, np.random.default_rng([SEED, number]))) for number in range(MUTANTS))


@pytest.mark.parametrize("target", m.TARGETS)
def test_no_mutant_survives(target: str) -> None:
    found = verdicts(target)
    assert [v for v in found if v.kind in ("survivor", "crash")] == []
    killed = [v for v in found if v.kind in ("rejected", "numbers", "cycles")]
    assert len(killed) >= 0.9 * MUTANTS
    assert len({v.category for v in found}) >= 10
    assert len({v.detail for v in killed if v.kind == "rejected"}) >= 4


@pytest.mark.parametrize("target", ["tsp", "wafer"])
def test_a_judge_that_sees_no_rule_lets_mutants_through(target: str) -> None:
    """With every rule off, some rejected mutants would pass: the kills are the rules' doing."""
    one = subject(target)
    off = frozenset(rules.rule_ids(target))
    passed = 0
    for number in range(MUTANTS // 2):
        mutant = changes.mutate(one.program, np.random.default_rng([SEED, number]))
        named = {v.rule for v in m.simulate(target).check(mutant.program)}
        passed += bool(named) and not m.simulate(target).check(mutant.program, skip=off)
    assert passed >= 3


SWITCHED_OFF = [
    ("tsp", "TSP-008"), ("tsp", "TSP-005"), ("tsp", "TSP-060"), ("cgla", "CGLA-017"), ("cgla", "CGLA-028"), ("cgla", "CGLA-022"),
    ("wafer", "W32"), ("wafer", "W44"), ("wafer", "W51"), ("wafer", "W52"),
]  # fmt: skip


@pytest.mark.parametrize(("target", "rule"), SWITCHED_OFF)
def test_a_mutant_survives_where_its_rule_is_off(target: str, rule: str) -> None:
    alone = []
    for broken in rules.directed(target)[rule]:
        program = broken()
        if {v.rule for v in m.simulate(target).check(program)} == {rule}:
            alone.append(m.simulate(target).check(program, skip=frozenset({rule})))
    assert alone
    assert all(found == [] for found in alone)


@pytest.mark.parametrize("target", m.TARGETS)
def test_every_rule_kills_a_mutant_of_its_own(target: str) -> None:
    kills = rules.directed_kills(target)
    assert list(kills) == rules.rule_ids(target)
    assert [rule for rule, own in kills.items() if own.cases == 0 or own.kills < own.cases] == []


@pytest.mark.parametrize("target", m.TARGETS)
def test_mutants_are_changes_and_repeat(target: str) -> None:
    one = subject(target)
    for number in range(8):
        first, second = (changes.mutate(one.program, np.random.default_rng([5, number])) for _ in range(2))
        assert first.what == second.what
        assert first.program.digest() == second.program.digest() != one.program.digest()


def test_a_field_without_a_reason_is_no_harmless_change() -> None:
    program = subject("wafer").program
    bursts = program.segments[0].tables["bursts"]
    place = changes.Place(0, "bursts")
    moved = changes.with_table(program, place, {**bursts, "t0": bursts["t0"] + 1})
    assert harmless(program, moved, 0, "bursts", 0, "t0", ()) == ""
    assert harmless(program, moved, 0, "bursts", 0, "", ()) == ""


def test_rule_ids_are_those_of_the_pages() -> None:
    docs = Path(__file__).parent.parent / "docs"
    for target in m.TARGETS:
        page = (docs / f"{target}-model.md").read_text()
        named = re.findall(r"^\| ((?:TSP-|CGLA-|W)\d+) \| ", page, re.MULTILINE)
        assert list(dict.fromkeys(named)) == rules.rule_ids(target)


@pytest.mark.parametrize("pays", [True, False])
def test_deliveries_that_meet_where_nothing_receives_are_missed_by_no_way_of_pairing(pays: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    program = star(5, 4)
    for row in (4, 3, 2):
        program = changes.drop_burst(program, changes.Place(0, "bursts"), row)
    monkeypatch.setattr(kernels, "pays", lambda count: pays)
    assert "W34" in {violation.rule for violation in check(program)}
