"""Machine files: presets load, users' files and --set are checked with line, field, value and allowed range."""

from __future__ import annotations

from pathlib import Path

import pytest

from spatialc.errors import BadInput
from spatialc.machines.catalog import TARGETS, load_machine, parse_changes, target_of


@pytest.mark.parametrize("target", sorted(TARGETS))
def test_every_preset_loads_and_says_where_each_number_comes_from(target: str) -> None:
    for preset in TARGETS[target].presets:
        assert load_machine(target, preset).name == preset
        assert target_of(preset) == target
        for line in (TARGETS[target].folder / f"{preset}.yaml").read_text().splitlines():
            value = line.partition(":")[2].split("#")[0].strip()
            if value and value[0].isdigit():
                assert "#" in line, f"{preset}: no source beside {line!r}"


def test_a_file_may_change_some_fields_of_a_preset(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text("target: tsp\nbase: tsp-v1\nname: mine\nclock_hz: 1.0e+9\nenergy:\n  idle_w: 60\n")
    machine = load_machine("tsp", str(path))
    assert (machine.name, machine.clock_hz, machine.energy.idle_w) == ("mine", 1e9, 60)
    assert machine.streams == load_machine("tsp").streams


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("base: tsp-v1\nclock_hz: -1\n", r"mine.yaml line 2: clock_hz = -1: input should be greater than 0"),
        ("base: tsp-v1\nenergy:\n  idle_w: hot\n", r"mine.yaml line 3: energy.idle_w = 'hot': input should be a valid number"),
        ("base: tsp-v1\nclok_hz: 1\n", r"mine.yaml line 2: clok_hz = 1: extra inputs are not permitted"),
        ("base: tsp-v9\n", r"line 1: base = 'tsp-v9' is no tsp preset; use tsp-v1"),
        ("base: [\n", r"not a readable YAML file"),
        ("- 1\n", r"must hold machine fields"),
        ("target: wafer\nbase: wafer-wse2\n", r"describes another target than tsp"),
    ],
)
def test_wrong_files(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(text)
    with pytest.raises(BadInput, match=message):
        load_machine("tsp", str(path))


def test_set_changes_fields() -> None:
    machine = load_machine("cgla", None, parse_changes(["dma=peak", "energy.slot_pj=3"]))
    assert (machine.dma, machine.energy.slot_pj) == ("peak", 3.0)
    for setting, message in (("lanes=99", "--set: lanes = 99"), ("nope=1", "has no field 'nope'"), ("lanes", "--set takes FIELD=VALUE")):
        with pytest.raises(BadInput, match=message):
            load_machine("cgla", None, parse_changes([setting]))


def test_unknown_machine_and_target() -> None:
    with pytest.raises(BadInput, match="there is no wafer machine 'x': presets are wafer-wse2, wafer-wse3, or give a YAML file"):
        load_machine("wafer", "x")
    with pytest.raises(BadInput, match="there is no target 'gpu'; targets are tsp, cgla, wafer"):
        load_machine("gpu")
