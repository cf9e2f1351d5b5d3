"""The text listing of a TSP program parses back to the same program."""

from __future__ import annotations

import numpy as np
import pytest
from test_tsp_rules import LEGAL
from tsp_programs import edit, example_e

from spatialc.errors import BadInput
from spatialc.machines.tsp.listing import listing, parse


@pytest.mark.parametrize("name", LEGAL)
def test_listing_round_trips(name: str) -> None:
    program = LEGAL[name]()
    text = listing(program)
    again = parse(text, program.images)
    assert again.digest() == program.digest()
    assert listing(again) == text


def test_listing_keeps_odd_programs() -> None:
    program, at = example_e(np.zeros((320, 320), np.float16))
    for odd in ({"unit": 500}, {"opcode": 99}, {"a_dir": 7}, {"a_stream": -5}, {"dtype": 44}, {"provenance": 12}, {"t0": -9}):
        changed = edit(program, at["add"], **odd)
        assert parse(listing(changed), program.images).digest() == changed.digest()
    shuffled = edit(edit(program, 0, "claims", burst=5), 5, "claims", burst=0)
    assert parse(listing(shuffled), program.images).digest() == shuffled.digest()


def test_listing_is_ordered_by_cycle_and_readable() -> None:
    program, _ = example_e(np.zeros((320, 320), np.float16))
    lines = [line for line in listing(program).splitlines() if line.startswith("@")]
    assert len(lines) == len(program.segments[0].tables["bursts"]["unit"])
    times = [int(line[1:].split()[0]) for line in lines]
    assert times == sorted(times)
    assert "@18 MXM2.W LW #32 a=0E n=20" in lines


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.replace("tsp listing 1", "tsp listing 2"), "first line"),
        (lambda t: t.replace(" LW ", " LX "), "is not a burst"),
        (lambda t: t.replace("n=20", "q=20", 1), "is not a burst"),
        (lambda t: t.replace("#32", "#3200"), "not numbered"),
        (lambda t: t.replace("table binds {", "table binds {{"), "does not parse"),
    ],
)
def test_garbled_listings_are_refused(change: object, message: str) -> None:
    program, _ = example_e(np.zeros((320, 320), np.float16))
    text = change(listing(program))  # type: ignore[operator]
    with pytest.raises(BadInput, match=message):
        parse(text, program.images)
    with pytest.raises(BadInput, match=r"needs image\.0"):
        parse(listing(program))
