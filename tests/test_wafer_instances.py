"""Segments and instances, seams between them, defects, the software model, host streams."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest
from wafer_programs import BASE, WSE2, bound, chain, edited, program_of

from spatialc.machines.catalog import load_machine
from spatialc.machines.program import Program
from spatialc.machines.wafer.builder import ProgramBuilder, SegmentBuilder, full, imm, mem
from spatialc.machines.wafer.description import from_json
from spatialc.machines.wafer.isa import Element, Fmt, Op
from spatialc.machines.wafer.tables import NONE, PHI, RHO, ObjectKind, image_key
from spatialc.runtime_sim.wafer import check, execute

N, SIZE = 5, 16
H, W = 2, 3
SPAN = 40


def layers(*, starts: tuple[int, ...] = tuple(range(0, N * SPAN, SPAN)), words: tuple[int, ...] = (), gap: int = 64) -> Program:
    """N equal layers y = x + w in one rectangle: one segment, N instances; x and y change places in memory from one to the next, weights
    lie at different words."""
    s = SegmentBuilder("layer")
    r = s.region(W, H)
    x = s.object(r, BASE, Element.F16, [SIZE], ObjectKind.INPUT)
    y = s.object(r, BASE + 16, Element.F16, [SIZE], ObjectKind.OUTPUT)
    w = s.object(r, BASE + 36, Element.F16, [SIZE], ObjectKind.WEIGHT)
    role: dict[str, Any] = {"rows": full(H), "cols": full(W), "ext": (SIZE,)}
    s.burst(r, Op.ADD, Fmt.F16, 0, SPAN, d=mem(y, 1), a=mem(x, 1), b=mem(w, 1), **role)
    builder = ProgramBuilder()
    place = builder.placement([H, W, SIZE], [(0, 1, 0), (0, 0, 1), (0, 0, 0)], [[0], [0], [1]], full(H), full(W))
    images = {}
    for n, start in enumerate(starts):
        i = builder.instance(0, 4, 2, start)
        if n:
            builder.bind_object(i, x, i - 1, y, word=BASE + 16 * (n % 2))
        builder.relocate(i, y, BASE + 16 * ((n + 1) % 2))
        builder.bind_placed(i, w, n, place, word=words[n] if words else BASE + 36 + gap * n)
        images[image_key(n)] = np.random.default_rng(n).normal(size=(H, W, SIZE)).astype(np.float16)
    bindings = [
        bound("x", "input", "f16", (H, W, SIZE), (0, x, place)), bound("y", "output", "f16", (H, W, SIZE), (len(starts) - 1, y, place)),
    ]  # fmt: skip
    return program_of(s.build(), builder, bindings, max(starts) + SPAN, images)


def rules(program: Program) -> set[str]:
    return {v.rule for v in check(program)}


def test_equal_layers_are_one_segment() -> None:
    program = layers()
    assert check(program) == []
    x = np.random.default_rng(9).normal(size=(H, W, SIZE)).astype(np.float16)
    wanted = x
    for n in range(N):
        wanted = (wanted + program.images[image_key(n)]).astype(np.float16)
    result = execute(program, {"x": x})
    assert np.array_equal(result.outputs["y"], wanted)
    assert result.cycles == N * SPAN and sum(result.breakdown.values()) == result.cycles


def test_two_layers_that_live_at_one_time_in_one_place() -> None:
    assert {"W02", "W43"} <= rules(layers(starts=(0, SPAN - 1, 2 * SPAN, 3 * SPAN, 4 * SPAN)))


def test_weights_of_two_layers_on_the_same_words() -> None:
    assert "W42" in rules(layers(words=(BASE + 36, BASE + 100, BASE + 100, BASE + 196, BASE + 260)))


def test_a_relocation_that_moves_banks() -> None:
    assert "W13" in rules(layers(words=(BASE + 36, BASE + 101, BASE + 164, BASE + 228, BASE + 292)))


def test_a_relocation_out_of_memory() -> None:
    assert "W40" in rules(layers(words=(BASE + 36, WSE2.memory_words - 4, BASE + 164, BASE + 228, BASE + 292)))


def test_a_continued_object_on_other_words() -> None:
    assert "W41" in rules(edited(layers(), "binds", 3, segment=None, word=BASE + 256))


def test_a_weight_without_contents() -> None:
    program = layers()
    row = int(np.flatnonzero(program.tables["binds"]["image"] == 2)[0])
    assert "W44" in rules(edited(program, "binds", row, segment=None, kind=2, image=NONE, placement=NONE, source=NONE))


def test_an_input_object_without_contents_is_a_breach_even_where_it_is_written_first() -> None:
    program = layers()
    kinds = program.segments[0].tables["objects"]["kind"]
    inner = [row for row, kind in enumerate(kinds.tolist()) if kind in (ObjectKind.ACTIVATION, ObjectKind.SCRATCH, ObjectKind.OUTPUT)]
    assert inner
    assert "W44" in rules(edited(program, "objects", inner[0], kind=int(ObjectKind.INPUT)))


def test_an_image_of_another_format() -> None:
    program = layers()
    images = {**program.images, image_key(1): program.images[image_key(1)].astype(np.float32)}
    assert "W13" in rules(dataclasses.replace(program, images=images))


def test_a_placement_that_steps_along_an_extent_of_one() -> None:
    program = layers()
    coef = program.tables["placements"]["coef"][0].copy()
    assert not coef[:, :3].any()
    coef[3, 1] = 8
    assert "W50" in rules(edited(program, "placements", 0, segment=None, coef=coef))


def test_a_receive_of_fewer_wavelets_is_a_breach_and_no_crash() -> None:
    assert "W32" in rules(edited(chain(4, 8), "bursts", 3, ext=(1, 1, 1, 6)))


def test_timing_only_needs_no_images() -> None:
    program = dataclasses.replace(layers(), images={})
    result = execute(program, {}, timing_only=True)
    assert result.cycles == N * SPAN and result.outputs == {}


def test_state_is_kept() -> None:
    s = SegmentBuilder("count")
    r = s.region(1, 1)
    x = s.object(r, BASE, Element.F32, [4], ObjectKind.STATE)
    s.burst(r, Op.ADD, Fmt.F32, 0, 4, rows=full(1), cols=full(1), d=mem(x, 1), a=mem(x, 1), s=imm(1.5), ext=(4,))
    builder = ProgramBuilder()
    i = builder.instance(0, 0, 0, 0)
    place = builder.placement([4], [(0, 0, 0)], [[1]], full(1), full(1))
    program = program_of(s.build(), builder, [bound("n", "state", "f32", (4,), (i, x, place))], 4)
    assert check(program) == []
    once = execute(program, {})
    assert once.states["n"].tolist() == [1.5] * 4
    assert execute(program, {}, once.states).states["n"].tolist() == [3.0] * 4


def defective(shift: int) -> Program:
    """A chain of 4 on row 7 whose physical columns skip a dead core after the second; `shift` cycles are allowed for it."""
    dead = (WSE2.program_x + 7, WSE2.program_y + 7)
    machine = load_machine("wafer", "wafer-wse2", {"defects": {"cores": [list(dead)], "links": []}})
    program = chain(4, 8, rows=1)
    rho = (np.arange(20) + machine.program_y).astype(np.int32)
    phi = np.broadcast_to(np.arange(20) + machine.program_x, (20, 20)).astype(np.int32).copy()
    phi[7, 7:] += 1
    program = dataclasses.replace(program, machine=machine.to_json(), images={RHO: rho, PHI: phi}, predicted_cycles=26 + shift)
    for row, t0 in ((2, 12), (3, 18)):
        program = edited(program, "bursts", row, t0=t0 + shift)
    return edited(program, "regions", 0, last=26 + shift)


def test_a_skipped_core_costs_a_cycle() -> None:
    assert check(defective(1)) == []
    assert {"W35", "W37"} <= rules(defective(0))
    x = np.random.default_rng(0).normal(size=(1, 4, 8)).astype(np.float32)
    np.testing.assert_allclose(execute(defective(1), {"x": x}).outputs["y"], x.sum(axis=1), rtol=1e-6)


@pytest.mark.parametrize("row", [[0, 0], [3, 2]])
def test_maps_that_do_not_increase(row: list[int]) -> None:
    program = defective(1)
    phi = program.images[PHI].copy()
    phi[0, :2] = row
    assert "W04" in rules(dataclasses.replace(program, images={**program.images, PHI: phi}))


def test_the_software_model_is_slower() -> None:
    machine = load_machine("wafer", "wafer-wse2", {"overhead": "software"})
    program = dataclasses.replace(chain(4, 8), machine=machine.to_json())
    assert {"W11"} <= rules(program)
    assert from_json(program.machine).cost.burst_beats == 10


def test_one_image_that_is_not_there() -> None:
    program = layers()
    row = int(np.flatnonzero(program.tables["binds"]["image"] == 2)[0])
    assert "W50" in rules(edited(program, "binds", row, segment=None, image=99))
