"""CGLA presets, field ranges and the worked checks of the model page that are pure arithmetic."""

from __future__ import annotations

from fractions import Fraction

import pytest

from spatialc.errors import BadInput
from spatialc.machines.catalog import find_target, load_machine
from spatialc.machines.cgla.description import EXTENSIONS
from spatialc.machines.cgla.isa import OP1, OP1_CODE
from spatialc.machines.cgla.timing import beats, dma_cycles, exec_cycles, host_cycles, port_interval


def rows(last: int, *folded: int) -> list[tuple[int, bool]]:
    return [(row, row in folded) for row in range(last + 1)]


def test_exec_length() -> None:
    assert exec_cycles(10, rows(0)) == 48
    assert exec_cycles(1000, rows(63)) == 4512
    assert exec_cycles(1000, rows(63, 63)) == 4520
    assert exec_cycles(1000, rows(63, 40)) == 4512
    assert exec_cycles(64, rows(50, 50)) == 672


def test_port_rates() -> None:
    assert port_interval(4) is None
    assert port_interval(3) == 4
    assert port_interval(0) == 1


def test_dma_length() -> None:
    machine = load_machine("cgla", "cgla-imax3-fpga")
    assert beats(4, 33000) == 1032
    assert dma_cycles(machine, 4, 33000, Fraction(37, 4)) == 9720


def test_host_length() -> None:
    machine = load_machine("cgla", "cgla-imax3-fpga")
    assert host_cycles(machine, 70, 8, 1) == 10 + 2 + 20 + 300


@pytest.mark.parametrize("name", find_target("cgla").presets)
def test_presets(name: str) -> None:
    machine = load_machine("cgla", name)
    assert (machine.name, machine.rows, machine.lanes, machine.memories, machine.cores) == (name, 64, 2, 1, 2)
    assert machine.beat_interval == Fraction(37, 4)
    assert machine.memory_interval == Fraction(37, 8)
    peak = load_machine("cgla", name, {"dma": "peak"})
    assert peak.beat_interval == 1
    assert peak.memory_interval == Fraction(1, 2)


def test_published_numbers() -> None:
    fpga, asic = load_machine("cgla", "cgla-imax3-fpga"), load_machine("cgla", "cgla-imax3-28nm")
    assert (fpga.clock_hz, fpga.lmm_bytes, fpga.t_launch, fpga.t_dma) == (145e6, 524288, 240, 174)
    assert (asic.clock_hz, asic.lmm_bytes, asic.t_launch, asic.t_dma) == (840e6, 65536, 168, 168)


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        ({"lanes": 9}, "lanes"),
        ({"lmm_bytes": 1000}, "lmm_bytes"),
        ({"dma_interval": "0"}, "dma_interval"),
        ({"speed": 3}, "speed"),
        ({"extensions": ["X_DIV"]}, "X_DIV"),
    ],
)
def test_wrong_fields_are_named(overrides: dict[str, object], words: str) -> None:
    with pytest.raises(BadInput, match=words):
        load_machine("cgla", "cgla-imax3-28nm", overrides)


def test_unknown_machine() -> None:
    with pytest.raises(BadInput, match="cgla-imax3-fpga"):
        load_machine("cgla", "imax9")


def test_instruction_table() -> None:
    assert len(OP1_CODE) == len(OP1)
    assert EXTENSIONS == ("X_H2F", "X_F2H", "X_FMAX", "X_FMIN", "X_F2B", "X_CVT36", "X_CVT4")
    assert {op.name for op in OP1 if op.accumulates} >= {"ADD", "FMA", "FAD", "X_FMAX"}
    assert not OP1[OP1_CODE["SML8"]].accumulates
