"""The command line: exit codes, one clear sentence an error, JSON that is only JSON."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from spatialc import cli
from spatialc.machines.listing import parse_listing
from spatialc.machines.program import load_program


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    """Exit code, standard output, standard error."""
    code = cli._run(arguments)
    captured = capsys.readouterr()
    return code, captured.out, captured.err.strip()


ERRORS = [
    (("frob",), "spatialc: No such command 'frob'."),
    (("compare", "--sed", "1"), "spatialc: No such option: --sed (Possible options: --seed, --seq, --set)"),
    (("compile", "tiny"), "spatialc: Missing option '-t' / '--target'."),
    (("compare", "nope"), "spatialc: there is no model 'nope': "),
    (("compare", "-t", "gpu"), "spatialc: there is no target 'gpu'; targets are tsp, cgla, wafer"),
    (("compare", "-t", "tsp", "--set", "lanes=7"), "spatialc: --set: lanes = 7: input should be greater than or equal to 16"),
    (("compare", "-t", "tsp", "--set", "lans=7"), "spatialc: a tsp machine has no field 'lans'; fields are acc_depth, alu, "),
    (("compare", "-t", "tsp", "--machine", "wafer-wse2"), "spatialc: machine wafer-wse2 is a wafer, which was not asked for with -t"),
    (("compare", "-t", "tsp", "--precision", "int4"), "spatialc: tsp has no int4; its formats are fp16"),
    (("compare", "-t", "wafer", "--region", "8"), "spatialc: --region takes WIDTHxHEIGHT such as 64x64, not '8'"),
    (("compare", "-t", "tsp", "--defect-rate", "0.01"), "spatialc: defect_rate 0.01 means nothing on tsp: only wafer takes it"),
    (("compare", "-t", "wafer", "--strategy", "solver"), "spatialc: strategy solver means nothing on wafer: only tsp takes it"),
    (("compare", "-t", "tsp", "--host-ops", "embedding"), "spatialc: host_ops embedding means nothing on tsp: only cgla takes it"),
    (("compare", "--context", "9"), "spatialc: a prefill has no cache: --context is for --phase decode"),
    (("compare", "--prompt", "a" * 65), "spatialc: 65 tokens are more than the model's context of 64"),
    (("compile", "tiny", "-t", "tsp", "-o", "/nowhere/x.spx"), "spatialc: cannot write /nowhere/x.spx: the folder /nowhere does not exist"),
    (("run", "none.spx"), "spatialc: none.spx is not there; `spatialc compile MODEL -t TARGET -o none.spx` writes such a file"),
    (("check", "none.spx"), "spatialc: none.spx is not there; `spatialc compile MODEL -t TARGET -o none.spx` writes such a file"),
]


@pytest.mark.parametrize(("arguments", "message"), ERRORS, ids=[" ".join(a)[:40] for a, _ in ERRORS])
def test_errors_are_one_sentence(capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], message: str) -> None:
    code, out, err = run(capsys, *arguments)
    assert (code, out) == (2, "")
    assert err.startswith(message)
    assert len(err.splitlines()) == 1


def test_lists(capsys: pytest.CaptureFixture[str]) -> None:
    for command, word in (("models", "smollm2-135m"), ("machines", "wafer-wse3"), ("ops", "aten")):
        code, out, _ = run(capsys, command)
        assert code == 0
        assert word in out


def test_help_names_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(capsys)
    assert code == 0
    for command in ("compare", "compile", "run", "check", "show", "machines", "models", "ops"):
        assert command in out


@pytest.fixture(scope="module", params=["tsp", "cgla", "wafer"])
def program(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("spx") / f"{request.param}.spx"
    assert cli._run(("compile", "tiny", "-t", request.param, "--prompt", "two plus one is", "-o", str(path))) == 0
    return path


def test_compare_prints_only_json(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = run(capsys, "compare", "tiny", "-t", "cgla", "--json", "-")
    (row,) = json.loads(out)
    assert (code, err) == (0, "")
    assert (row["target"], row["status"], row["legal"], row["violations"]) == ("cgla", "ok", True, [])
    assert row["cycles"] == row["predicted_cycles"] == sum(row["cycle_breakdown"].values())
    assert 0 < row["bound_fraction"] <= 1
    assert row["numerics"]["passed"]


def test_compare_shows_the_next_token_beside_torchs(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(capsys, "compare", "-t", "cgla", "--prompt", "two plus one is thr")
    assert code == 0
    assert "'e' (torch: 'e')" in out


def test_run_check_and_show_a_saved_program(capsys: pytest.CaptureFixture[str], program: Path, tmp_path: Path) -> None:
    code, out, _ = run(capsys, "check", str(program))
    assert (code, "legal" in out) == (0, True)
    ids = np.array([[1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15]])
    save_file({"args[0]": ids}, str(tmp_path / "in.safetensors"))
    arguments = ("run", str(program), "--input", str(tmp_path / "in.safetensors"), "--output", str(tmp_path / "out.safetensors"))
    code, out, _ = run(capsys, *arguments, "--reference", "tiny", "--json", "-")
    row = json.loads(out)
    assert (code, row["status"], row["numerics"]["passed"]) == (0, "ok", True)
    (logits,) = load_file(str(tmp_path / "out.safetensors")).values()
    assert logits.shape == (1, 15, 32)
    code, out, _ = run(capsys, "show", str(program))
    assert (code, row["digest"] in out.replace("\n", "").replace(" ", "").replace("│", "")) == (0, True)
    code, out, _ = run(capsys, "show", str(program), "--listing")
    assert code == 0
    assert len(out.splitlines()) > 20
    container = load_program(program)
    assert parse_listing(out, container.images).digest() == container.digest() == row["digest"]
    code, _, _ = run(capsys, "show", str(program), "--placement", str(tmp_path / "place.svg"))
    assert code == 0
    assert (tmp_path / "place.svg").read_text().startswith("<?xml")


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.zeros((1, 4), np.int64), "spatialc: args[0] has shape [1, 4], the program was compiled for [1, 15]"),
        (np.zeros((1, 15), np.float32), "spatialc: args[0] holds float32 values, the program takes i64"),
        (np.full((1, 15), 99), "spatialc: args[0] holds values from 99 to 99, allowed are 0 to 31"),
    ],
)
def test_wrong_inputs(capsys: pytest.CaptureFixture[str], program: Path, tmp_path: Path, array: np.ndarray, message: str) -> None:
    save_file({"args[0]": array}, str(tmp_path / "in.safetensors"))
    assert run(capsys, "run", str(program), "--input", str(tmp_path / "in.safetensors")) == (2, "", message)


def test_damaged_program(capsys: pytest.CaptureFixture[str], program: Path, tmp_path: Path) -> None:
    cut = tmp_path / "cut.spx"
    cut.write_bytes(program.read_bytes()[:-100])
    code, _, err = run(capsys, "run", str(cut))
    assert (code, "is not a complete .spx program" in err) == (2, True)
