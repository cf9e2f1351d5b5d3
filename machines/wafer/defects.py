"""Lists of dead cores and links for a wafer (G4): read from a JSON file, or drawn at random."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ...errors import BadInput
from .description import WaferMachine, from_json


def read_defects(machine: WaferMachine, path: str | Path) -> WaferMachine:
    """The machine with the defects of a JSON file: `{"cores": [[x, y], ...], "links": [[x, y, "E"], ...]}`, physical positions in the
    fabric, either list optional. Raises BadInput."""
    try:
        data = json.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise BadInput(f"{path} is not a readable JSON file of defects: {error}") from error
    if not isinstance(data, dict) or not set(data) <= {"cores", "links"}:
        form = '{"cores": [[x, y], ...], "links": [[x, y, "E"], ...]}'
        raise BadInput(f"{path} must hold defects as {form}")
    return with_defects(machine, data, str(path))


def random_defects(machine: WaferMachine, rate: float, seed: int) -> WaferMachine:
    """The machine whose cores are dead with probability `rate` each, independently, the same for the same seed. Raises BadInput."""
    if not 0 <= rate < 1:
        raise BadInput(f"the defect rate is {rate}, allowed is 0 up to but not including 1")
    dead = np.random.default_rng(seed).random((machine.program_rows, machine.program_cols)) < rate
    cores = [[x + machine.program_x, y + machine.program_y] for y, x in np.argwhere(dead).tolist()]
    return with_defects(machine, {"cores": cores}, "defect rate")


def with_defects(machine: WaferMachine, defects: Mapping[str, Any], where: str) -> WaferMachine:
    """The machine with these defects in place of its own; `where` begins the sentence of an error. Raises BadInput."""
    changed = sorted({*machine.changed, "defects"}) if machine.preset else []
    return from_json({**machine.to_json(), "defects": defects, "changed": changed}, where)
