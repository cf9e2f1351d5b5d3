"""Defective wafers: dead cores and links are routed around, at the price that G5 states, and numbers do not change."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from test_backend_wafer_stages import ROWS, WIDTH, residual_layers

from spatialc import api, cli
from spatialc.backends.options import CompileOptions
from spatialc.backends.wafer import compile as driver
from spatialc.backends.wafer import compile_graph
from spatialc.backends.wafer.wires import dead_cores, physical_map
from spatialc.errors import BadInput, Infeasible
from spatialc.machines.catalog import load_machine
from spatialc.machines.program import Program
from spatialc.machines.wafer.defects import random_defects, read_defects, with_defects
from spatialc.machines.wafer.description import WaferMachine
from spatialc.machines.wafer.tables import PHI, RHO
from spatialc.runtime_sim.execution import Execution
from spatialc.runtime_sim.wafer import check, execute

WSE2 = load_machine("wafer", "wafer-wse2")
LEFT, TOP = WSE2.program_x, WSE2.program_y
SIDE = 24
SMALL = load_machine("wafer", "wafer-wse2", {"program_cols": SIDE, "program_rows": SIDE})
"""A wafer too small for its programs to lie between the defects."""
X = np.random.default_rng(1).standard_normal((ROWS, WIDTH)).astype(np.float16)


@pytest.fixture(autouse=True)
def staged(monkeypatch: pytest.MonkeyPatch) -> None:
    """Four layers in four rectangles of 20 rows and 5 columns."""
    monkeypatch.setattr(driver, "_WHOLE_CORES", 0)
    monkeypatch.setattr(driver, "_row_counts", lambda *_: iter([20]))
    monkeypatch.setattr(driver._Plan, "_widths", lambda plan, part, limit: iter([min(5, limit)]))


def compiled(machine: WaferMachine) -> tuple[Program, Execution]:
    graph, store = residual_layers()
    program = compile_graph(graph, store, CompileOptions(machine=machine))
    result = execute(program, {"x": X})
    assert [str(v) for v in result.violations] == []
    assert result.cycles == program.predicted_cycles
    return program, result


def dead(cores: list[tuple[int, int]], links: list[tuple[int, int, str]] | None = None) -> WaferMachine:
    """The small wafer with defects at positions of its program rectangle."""
    found = {"cores": [(LEFT + x, TOP + y) for x, y in cores], "links": [(LEFT + x, TOP + y, port) for x, y, port in links or []]}
    return with_defects(SMALL, found, "test")


def assert_equal_but_slower(machine: WaferMachine, least: int = 1) -> Program:
    _, whole = compiled(SMALL)
    program, result = compiled(machine)
    assert np.array_equal(result.outputs["output_0"], whole.outputs["output_0"])
    assert result.cycles >= whole.cycles + least
    return program


def test_dead_cores_are_skipped() -> None:
    program = assert_equal_but_slower(dead([(3, 4), (4, 4), (9, 4), (9, 5), (15, 17), (0, 0), (19, 11)]))
    phi, rho = program.images[PHI] - LEFT, program.images[RHO] - TOP
    assert phi.shape == (20, 20) and len(rho) == 20
    places = {(x, y) for y, row in zip(rho.tolist(), phi.tolist(), strict=True) for x in row}
    assert not places & {(3, 4), (4, 4), (9, 4), (9, 5), (15, 17), (0, 0), (19, 11)}


def test_a_dead_row_is_left_out() -> None:
    program, _ = compiled(dead([(x, 9) for x in range(0, SIDE, 2)]))
    assert 9 not in (program.images[RHO] - TOP).tolist()


def test_random_defects() -> None:
    program = assert_equal_but_slower(random_defects(SMALL, 0.02, seed=5))
    again, _ = compiled(random_defects(SMALL, 0.02, seed=5))
    assert program.digest() == again.digest()
    compiled(random_defects(SMALL, 0.01, seed=6))


@pytest.mark.parametrize("port", ["E", "W", "N", "S"])
def test_dead_links_cost_two_cycles(port: str) -> None:
    """Every row and column passes a dead link, wherever the program lies."""
    links = [(x, y, port) for x in range(10, 13) for y in range(SIDE)] if port in "EW" else []
    links += [(x, y, port) for x in range(SIDE) for y in range(10, 13)] if port in "NS" else []
    assert_equal_but_slower(dead([], links), least=2)


def test_a_program_between_the_defects_pays_nothing() -> None:
    machine = with_defects(WSE2, {"cores": [(LEFT + 5, TOP + 5), (LEFT + 400, TOP + 300)]}, "test")
    program, result = compiled(machine)
    assert result.cycles == compiled(WSE2)[1].cycles
    assert program.images[PHI].min() > LEFT + 5 or program.images[RHO].min() > TOP + 5


def test_a_map_onto_a_dead_core_is_illegal() -> None:
    machine = dead([(7, 7)])
    program, _ = compiled(machine)
    phi = program.images[PHI].copy()
    row = int(np.flatnonzero(program.images[RHO] == TOP + 7)[0])
    column = int(np.searchsorted(phi[row], LEFT + 7)) - 1
    assert phi[row, column] == LEFT + 6
    phi[row, column] = LEFT + 7
    assert "W04" in {v.rule for v in check(replace(program, images={**program.images, PHI: phi}), skip=frozenset({"W52"}))}


def test_maps_follow_one_line() -> None:
    """At one dead core in a hundred, hops stay short in both directions."""
    machine = random_defects(WSE2, 0.01, seed=1)
    found = physical_map(machine, 400, 680)
    assert (np.diff(found.rho) > 0).all() and (np.diff(found.phi, axis=1) > 0).all()
    here = dead_cores(machine)[(found.rho - TOP)[:, None], found.phi - LEFT]
    assert not here.any()
    assert found.east[:, :-1].mean() < 1.15 and found.south[:-1].mean() < 1.5


def test_too_many_dead_cores_in_a_row() -> None:
    graph, store = residual_layers()
    machine = dead([(x, y) for x in range(6) for y in range(SIDE)])
    with pytest.raises(Infeasible, match=r"live cores in a row is too small .* needs 20 cores, has 18"):
        compile_graph(graph, store, CompileOptions(machine=machine, region=(20, 20)))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("cores: 3", "is not a readable JSON file of defects"),
        ("[]", "must hold defects as"),
        ('{"rows": []}', "must hold defects as"),
        ('{"cores": [[3, "a"]]}', "defects.cores.0.1 = 'a': Input should be a valid integer"),
        ('{"cores": [[2000, 3]]}', r"the defect at \(2000, 3\) lies outside the fabric of 757 x 996 cores"),
        ('{"links": [[5, 3, "Q"]]}', "defects.links.0.2 = 'Q': Input should be 'E', 'W', 'N' or 'S'"),
    ],
)
def test_bad_files(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "defects.json"
    path.write_text(text)
    with pytest.raises(BadInput, match=message):
        read_defects(WSE2, path)


def test_bad_options() -> None:
    with pytest.raises(BadInput, match="not a readable JSON file"):
        read_defects(WSE2, "no such file")
    with pytest.raises(BadInput, match=r"the defect rate is 1\.5"):
        random_defects(WSE2, 1.5, 0)
    with pytest.raises(BadInput, match="either a file of defects or a defect rate"):
        api._with_defects(WSE2, api.Options(defects="x.json", defect_rate=0.1))


def test_command_line(tmp_path: Path) -> None:
    path, out = tmp_path / "defects.json", tmp_path / "result.json"
    path.write_text(json.dumps({"cores": [[LEFT + x, TOP + y] for x in range(0, 700, 3) for y in range(0, 900, 4)]}))
    options = ["compare", "tiny", "-t", "wafer", "--json", str(out)]
    assert cli._run([*options, "--defects", str(path)]) == 0
    (row,) = json.loads(out.read_text())
    assert row["status"] == "ok" and row["cycles"] == row["predicted_cycles"]
    assert cli._run([*options, "--defects", str(path), "--defect-rate", "0.1"]) == 2
    assert cli._run([*options, "--defect-rate", "0.01", "--seed", "3"]) == 0
