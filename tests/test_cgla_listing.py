"""The text listing prints every row and parses back to the same bytes."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parent))

from cgla_cases import Bench, edited, prefetch, vector_add
from cgla_gemm import Chain, chain_program

from spatialc.errors import BadInput
from spatialc.machines.catalog import load_machine
from spatialc.machines.cgla.builder import HostExpr, HostOperand
from spatialc.machines.cgla.listing import listing, parse
from spatialc.machines.cgla.tables import BufferKind, HostKind
from spatialc.machines.program import Program


def hosted() -> Program:
    bench = Bench()
    weights = np.arange(8, dtype=np.float32)
    w = bench.buffer(BufferKind.IMAGE, 32, image=weights)
    y = bench.buffer(BufferKind.OUTPUT, 32, "y", shape=(8,))
    exprs = [HostExpr("arg", "f32", 1), HostExpr("const", "f32", constant=0.1), HostExpr("mul", "f32", 0, 1)]
    bench.segment.host(HostKind.MAP, [8], HostOperand(y, "f32", (1,)), [HostOperand(w, "f32", (1,))], exprs, start=0, length=320)
    return bench.build()


@pytest.mark.parametrize("make", [vector_add, prefetch, hosted, lambda: chain_program(Chain(load_machine("cgla"), "int8"))])
def test_listing_round_trips(make: object) -> None:
    assert callable(make)
    program = make()
    text = listing(program)
    again = parse(text, program.images)
    assert again.digest() == program.digest()
    assert listing(again) == text


def test_lines_are_ordered_by_cycle_and_readable() -> None:
    text = listing(vector_add())
    cycles = [int(line.split()[0][1:]) for line in text.splitlines() if line.startswith("@")]
    assert cycles == sorted(cycles)
    assert "slots#5 row=2 op1=FAD ex1=1 ex2=5 ea0=STR ea0_base=REG ea0_offset=BR ea0_mask=W0 br_offset=10 store=ALU" in text
    assert "@0 phases#0 length=512" in text


def test_unknown_codes_survive() -> None:
    program = edited(vector_add(), "slots", 0, op1=77)
    assert parse(listing(program)).digest() == program.digest()


@pytest.mark.parametrize(("text", "message"), [("hello", "starts with"), ("cgla listing 1\nslots#0 nonsense=3", "line 2")])
def test_bad_text_is_named(text: str, message: str) -> None:
    with pytest.raises(BadInput, match=message):
        parse(text)
