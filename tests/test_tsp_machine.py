"""The TSP machine file, instruction tables, geometry and builder."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from tsp_programs import MACHINE, G

from spatialc.errors import BadInput
from spatialc.machines.catalog import load_machine
from spatialc.machines.tsp import isa, tables
from spatialc.machines.tsp.builder import In, Out, SegmentBuilder
from spatialc.machines.tsp.description import parse
from spatialc.machines.tsp.geometry import Geometry
from spatialc.machines.tsp.isa import Class, DType, E, Opcode, W


def test_preset_is_section_13() -> None:
    assert (MACHINE.slices, MACHINE.vector, MACHINE.acc_latency, MACHINE.emit_latency) == (44, 320, 14, 48)
    assert len(MACHINE.user_slices) == 79
    assert MACHINE.capacity_bytes == 207_093_760
    assert parse(MACHINE.to_json()) == MACHINE


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("rows: 0", r"line 2: rows = 0: input should be greater than or equal to 1"),
        ("warp: 9", r"line 2: warp = 9: extra inputs are not permitted"),
        ("reserved: [N4]", "a reserved slice is written W16 or E28"),
        ("vxm_cross: 6", "one even number"),
        ("clock_hz: fast", r"line 2: clock_hz = 'fast'"),
        ("rows: [", "not a readable YAML"),
    ],
)
def test_wrong_machine_files_say_line_field_and_range(tmp_path: Path, line: str, message: str) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(f"name: mine\n{line}\n")
    with pytest.raises(BadInput, match=message):
        load_machine("tsp", str(path))


def test_geometry_follows_the_crossing_times() -> None:
    longer = Geometry.of(MACHINE.model_copy(update={"io_cross": 6, "vxm_cross": 8, "vxm_entry": 8, "sxm_to_mxm": 7}))
    assert (longer.sr0, longer.c2c, longer.sxm, longer.mxm) == (4, 18, 21, 28)


def test_order_along_travel_is_total() -> None:
    """MT-4: MEM drive, SXM and MXM take, drive, ALUs by rank, MEM take; no two of one stop share a pos except same-stop slices."""
    for direction in (W, E):
        alus = [G.alu_take(alu, direction) for alu in range(4)] + [G.alu_drive(alu, direction) for alu in range(4)]
        assert len(set(alus)) == 8
        chain = sorted(range(4), key=lambda alu: G.alu_take(alu, direction))
        assert chain == ([0, 1, 2, 3] if direction == E else [3, 2, 1, 0])
        for h in (0, 1):
            assert G.sxm_take(h, direction) < G.sxm_drive(h, direction)
            for s in (0, 17, 43):
                assert G.mem_drive(h, s, direction) > G.mem_take(h, s, direction)
                assert (G.mem_drive(h, s, direction) - G.mem_take(h, s, direction)) == 16 - 9
        assert G.mem_drive(0, 0, E) < G.alu_take(0, E) < G.mem_take(1, 0, E)
        assert G.mem_drive(1, 0, W) < G.alu_take(3, W) < G.mem_take(0, 0, W)


def test_queues_are_144_and_named_once() -> None:
    names = [isa.unit_name(unit) for unit in range(isa.QUEUES)]
    assert len(set(names)) == 144
    counts = {kind: isa.QUEUE_CLASS.count(kind) for kind in Class}
    assert counts[Class.MEM] == 88
    assert counts[Class.VXM] == 16
    assert sum(counts[kind] for kind in (Class.MXM_W, Class.MXM_A, Class.MXM_R)) == 12
    assert sum(counts[kind] for kind in Class if kind >= Class.DISTRIBUTOR) == 28
    assert isa.unit_name(isa.mem_unit(0, 21)) == "MEM.W21"
    assert isa.unit_name(isa.mxm_unit(3, Class.MXM_R)) == "MXM3.R"
    assert isa.unit_name(isa.sxm_unit(1, Class.SHIFTER, 1)) == "SXM.E.shifter1"


def test_mirror_of_the_alu_grid() -> None:
    """VX-9: ALU a <-> 15 - a, SG4 s <-> (9 - s) mod 8 maps reach onto reach and large onto large."""
    for alu in range(16):
        reach = set(isa.ROW_REACH[alu // 4])
        assert {(9 - s) % 8 for s in reach} == set(isa.ROW_REACH[(15 - alu) // 4])
        assert (alu in isa.LARGE_ALUS) == (15 - alu in isa.LARGE_ALUS)


def test_builder_is_vectorised_and_canonical() -> None:
    s = SegmentBuilder("s")
    obj = s.object(4, [(0, p) for p in range(8)])
    first = s.mem_read(0, np.arange(8), obj, 0, Out(np.arange(8), E, G.alu_take(0, E)), t=np.arange(8), n=np.array([1, 4] * 4), i=3)
    s.alu(0, Opcode.ADD, In(0, E), In(4, E), [Out(8, E, [50, 51], 2)], DType.F16, t=9, n=1, i=7)
    segment = s.segment()
    b, c = segment.tables["bursts"], segment.tables["claims"]
    assert first == 0
    assert b["i"].tolist() == [1, 3] * 4 + [1]
    assert b["stride"].tolist() == [0, 1] * 4 + [0]
    assert c["burst"].tolist() == [*range(8), 8, 8]
    assert c["until"].tolist()[-2:] == [50, 51]
    with pytest.raises(BadInput, match="different lengths"):
        s.add(t0=np.arange(2), n=np.arange(3))
    with pytest.raises(BadInput, match="no column 'speed'"):
        bad = SegmentBuilder("bad")
        bad.add(speed=1)
        bad.segment()


@pytest.mark.parametrize("chips", [1, 2, 5, 8])
def test_mesh_joins_every_pair_once(chips: int) -> None:
    links = tables.mesh_links(chips)
    assert len(links) == chips * (chips - 1) // 2
    ends = [(link["chip_a"], link["link_a"]) for link in links] + [(link["chip_b"], link["link_b"]) for link in links]
    assert len(set(ends)) == len(ends)
    assert all(0 <= link < 16 for _, link in ends)
