"""The program container: same input, same bytes; anything damaged is one clear sentence."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path

import numpy as np
import pytest

from spatialc.errors import BadInput
from spatialc.machines.program import Binding, Column, Program, Segment, TableType, load_program

TABLE = TableType("bursts", (Column("t0", "int64", "first cycle"), Column("after", "int32", "predecessors", (2,), -1)))


def sample() -> Program:
    table = TABLE.from_rows([{"t0": 5}, {"t0": 9, "after": (0, 3)}])
    return Program(
        "tsp", {"name": "tsp-v1"}, (Binding("x", "input", "i64", (2, 3), "i32", "args[0]", (0, 7), [{"row": 1}]),), {"instances": table},
        (Segment("layer", {"bursts": table}),), {"w": np.arange(6, dtype=np.float16).reshape(2, 3)}, 42, {"bound_cycles": 7},
        ("model.layers.0",), {"model": "sample"},
    )  # fmt: skip


def assert_same(a: Program, b: Program) -> None:
    assert a.digest() == b.digest()
    assert (a.bindings, a.meta, a.bound, a.provenance, a.predicted_cycles) == (
        b.bindings,
        b.meta,
        b.bound,
        b.provenance,
        b.predicted_cycles,
    )
    np.testing.assert_array_equal(a.segments[0].tables["bursts"]["after"], b.segments[0].tables["bursts"]["after"])
    np.testing.assert_array_equal(a.images["w"], b.images["w"])


def test_round_trip_and_equal_bytes(tmp_path: Path) -> None:
    digests = [sample().save(tmp_path / name) for name in ("a.spx", "b.spx")]
    assert digests[0] == digests[1] == sample().digest()
    assert (tmp_path / "a.spx").read_bytes() == (tmp_path / "b.spx").read_bytes()
    assert_same(load_program(tmp_path / "a.spx"), sample())
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.spx", "b.spx"]


def test_members_are_stored_aligned_and_undated(tmp_path: Path) -> None:
    sample().save(tmp_path / "a.spx")
    with zipfile.ZipFile(tmp_path / "a.spx") as archive:
        for info in archive.infolist():
            assert info.compress_type == zipfile.ZIP_STORED
            assert info.date_time == (1980, 1, 1, 0, 0, 0)
            start = info.header_offset + 30 + len(info.filename) + len(info.extra)
            assert start % 64 == 0


def test_a_change_of_any_part_changes_the_digest() -> None:
    from dataclasses import replace

    first = sample()
    table = {**first.tables["instances"], "t0": first.tables["instances"]["t0"] + 1}
    others = [
        first.with_tables(instances=table), replace(first, images={"w": first.images["w"] + 1}), replace(first, predicted_cycles=43),
        replace(first, machine={"name": "other"}), replace(first, segments=(Segment("layer", {"bursts": table}),)),
        replace(first, states={"total": np.ones(3, np.float32)}),
    ]  # fmt: skip
    assert len({p.digest() for p in [first, *others]}) == 7


def rewrite(path: Path, name: str, data: bytes) -> None:
    with zipfile.ZipFile(path) as archive:
        members = {info.filename: archive.read(info) for info in archive.infolist()}
    members[name] = data
    with zipfile.ZipFile(path, "w") as archive:
        for key, value in members.items():
            archive.writestr(key, value)


@pytest.mark.parametrize("keep", [0, 10, 500, -40])
def test_truncated_file(tmp_path: Path, keep: int) -> None:
    path = tmp_path / "a.spx"
    sample().save(path)
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(BadInput, match=r"not a complete \.spx program"):
        load_program(path)


def test_altered_member(tmp_path: Path) -> None:
    path = tmp_path / "a.spx"
    sample().save(path)
    data = path.read_bytes()
    image = sample().images["w"].tobytes()
    assert data.count(image) == 1
    path.write_bytes(data.replace(image, image[:-1] + b"\x77"))
    with pytest.raises(BadInput):
        load_program(path)


def test_hostile_members(tmp_path: Path) -> None:
    path = tmp_path / "a.spx"
    for name, data, message in (
        ("../evil", b"x", "members that its header does not list"),
        ("program.json", b"{}", "not a valid spatialc program"),
        ("program.json", b"[1, 2]", "not a valid spatialc program"),
        ("images.safetensors", b"\xff" * 20, "sha256 of images.safetensors"),
    ):
        sample().save(path)
        rewrite(path, name, data)
        with pytest.raises(BadInput, match=message):
            load_program(path)


def test_compressed_members_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "bomb.spx"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("program.json", json.dumps({"format": "spatialc"}) + " " * 100_000)
    with pytest.raises(BadInput, match="compressed or encrypted"):
        load_program(path)


def test_missing_file_and_missing_folder(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="is not there"):
        load_program(tmp_path / "none.spx")
    with pytest.raises(BadInput, match="does not exist"):
        sample().save(tmp_path / "nowhere" / "a.spx")


def test_tables_are_typed() -> None:
    with pytest.raises(BadInput, match="no column 'cycle'"):
        TABLE.from_rows([{"cycle": 1}])
    good = TABLE.from_rows([{}])
    TABLE.validate(good, "x")
    with pytest.raises(BadInput, match=r"column bursts\.t0 is int32"):
        TABLE.validate({**good, "t0": good["t0"].astype(np.int32)}, "x")
    with pytest.raises(BadInput, match="different lengths"):
        TABLE.validate({**good, "t0": np.zeros(3, np.int64)}, "x")
