"""The text listing prints and parses back to the same program."""

from __future__ import annotations

import numpy as np
import pytest
from wafer_lines import k_tree, reduction
from wafer_programs import chain, edited, local_product, mesh_product, star

from spatialc.errors import BadInput
from spatialc.machines.program import Program
from spatialc.machines.wafer.listing import listing, parse, parse_segments


@pytest.mark.parametrize(
    "program",
    [chain(4, 8), local_product(2, 2, 2, 4, 4), mesh_product(4, 2, 2, 2), star(4, 3), reduction(k_tree(9, (3,)), 4),
     edited(chain(4, 8), "bursts", 0, op=77, imm=0.1)],
)  # fmt: skip
def test_round_trip(program: Program) -> None:
    again = parse(listing(program), program.images)
    for before, after in zip(program.segments, again.segments, strict=True):
        assert before.name == after.name
        for name, table in before.tables.items():
            for column, array in table.items():
                assert array.dtype == after.tables[name][column].dtype and np.array_equal(array, after.tables[name][column]), (name, column)
    assert again.digest() == program.digest()


def test_one_line_a_burst_ordered_by_cycle() -> None:
    program = chain(5, 4)
    lines = [line for line in listing(program).splitlines() if " burst " in line]
    cycles = [int(line.split()[0]) for line in lines]
    assert len(lines) == len(program.segments[0].tables["bursts"]["id"]) and cycles == sorted(cycles)


@pytest.mark.parametrize("line", ["nonsense", "burst id=1", "route rx=UP", "5 burst colour=1", "region w=4 what h=2"])
def test_a_wrong_line_is_named(line: str) -> None:
    with pytest.raises(BadInput, match="line 2"):
        parse_segments(f"segment x\n{line}\n")
