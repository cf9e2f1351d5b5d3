"""Between instances: programs cut into many instances break the same rules and give the same numbers and counters as in one piece."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from test_tsp_numbers import matmul_program, scatter_program
from test_tsp_rules import CASES, LEGAL, bank_clash
from tsp_programs import MACHINE, Builder, G, program_tables, region

from spatialc.machines.program import Program, Segment
from spatialc.machines.tsp import tables
from spatialc.machines.tsp.builder import In, Out, SegmentBuilder
from spatialc.machines.tsp.isa import DType, E, Opcode
from spatialc.machines.tsp.tables import Kind
from spatialc.runtime_sim.tsp import check, execute, legality

TIMED = [(rule, make) for rule, make in CASES if rule not in ("TSP-001", "TSP-002")]
"""Cases of rules that are not judged on the tables of a segment alone."""


def cut(program: Program, part: Callable[[int, int], np.ndarray]) -> Program:
    """The program with each segment cut in pieces: part(segment, bursts) numbers the piece of every burst. Times stay what they are."""
    segments: list[Segment] = []
    pieces: list[list[int]] = []
    for number, segment in enumerate(program.segments):
        bursts, claims, mine = segment.tables["bursts"], segment.tables["claims"], []
        which = part(number, len(bursts["unit"]))
        for piece in np.unique(which).tolist():
            rows = np.flatnonzero(which == piece)
            place = np.full(len(which), -1)
            place[rows] = np.arange(len(rows))
            taken = np.flatnonzero(which[claims["burst"]] == piece)
            some = {name: column[rows].copy() for name, column in bursts.items()}
            some["t0"] -= 7 * piece
            driven = {name: column[taken].copy() for name, column in claims.items()}
            driven["burst"] = place[driven["burst"]].astype(driven["burst"].dtype)
            mine.append(len(segments))
            segments.append(Segment(f"{segment.name}.{piece}", {**segment.tables, "bursts": some, "claims": driven}))
        pieces.append([*mine])
    instances, binds = [], []
    old = {name: column.tolist() for name, column in program.tables["instances"].items()}
    bound = [dict(zip(program.tables["binds"], row, strict=True)) for row in zip(*program.tables["binds"].values(), strict=True)]
    for k, (segment_, chip, offset) in enumerate(zip(old["segment"], old["chip"], old["offset"], strict=True)):
        for piece in pieces[segment_]:
            binds += [{**bind, "instance": len(instances)} for bind in bound if bind["instance"] == k]
            shift = 7 * int(segments[piece].name.rpartition(".")[2])
            instances.append({"segment": piece, "chip": chip, "offset": offset + shift})
    made = {"instances": tables.INSTANCES.from_rows(instances), "binds": tables.BINDS.from_rows(binds)}
    return replace(program, segments=tuple(segments), tables={**program.tables, **made})


def singly(_: int, bursts: int) -> np.ndarray:
    return np.arange(bursts)


def halves(seed: int) -> Callable[[int, int], np.ndarray]:
    rng = np.random.default_rng(seed)
    return lambda _, bursts: rng.integers(0, 2, bursts)


CUTS: dict[str, Callable[[int, int], np.ndarray]] = {"singly": singly, "halves": halves(1), "other halves": halves(2)}


@pytest.mark.parametrize("way", CUTS)
@pytest.mark.parametrize(("rule", "make"), TIMED, ids=[f"{rule}-{k}" for k, (rule, _) in enumerate(TIMED)])
def test_rules_hold_across_instances(rule: str, make: Callable[[], Program], way: str) -> None:
    program = make()
    found = {v.rule for v in check(program)}
    assert rule in found
    assert {v.rule for v in check(cut(program, CUTS[way]))} == found


def inputs(program: Program) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(3)
    return {b.name: rng.integers(0, 3, b.shape).astype(np.float64) for b in program.bindings if b.kind == "input"}


NUMBERS: dict[str, Callable[[], Program]] = {
    **LEGAL, "matmul": lambda: matmul_program()[0], "apart": lambda: matmul_program(apart=True)[0], "scatter": scatter_program,
}  # fmt: skip


@pytest.mark.parametrize("way", CUTS)
@pytest.mark.parametrize("name", NUMBERS)
def test_cut_programs_run_alike(name: str, way: str) -> None:
    program = NUMBERS[name]()
    given = inputs(program)
    if name == "embedding":
        given = {"codes": np.tile(np.repeat([103, 0], [1, 15]), 40).reshape(2, 320)}
    if name == "scatter":
        given["codes"] = np.tile(np.repeat([18, 0], [1, 15]), 20).reshape(1, 320)
    one, many = execute(program, given), execute(cut(program, CUTS[way]), given)
    assert [str(v) for v in (*one.violations, *many.violations)] == []
    for values, others in ((one.outputs, many.outputs), (one.states, many.states)):
        assert values.keys() == others.keys()
        assert all(np.array_equal(values[key], others[key]) for key in values)
    for field in ("cycles", "interval_cycles", "breakdown", "utilization", "traffic", "memory", "energy_breakdown", "chips"):
        assert getattr(one, field) == pytest.approx(getattr(many, field)), field


def layer() -> Segment:
    """y := x + w, 4 rows of int8, 15 cycles: reads of W0 and W4, ALU 0, writes of E0."""
    s = SegmentBuilder("layer")
    x, w, y = s.object(4, [(0, 0)]), s.object(4, [(0, 4)]), s.object(4, [(1, 0)])
    s.mem_read(0, 0, x, 0, Out(0, E, G.alu_take(0, E)), t=1, n=4)
    s.mem_read(0, 4, w, 0, Out(4, E, G.alu_take(0, E)), t=0, n=4)
    s.alu(0, Opcode.ADD, In(0, E), In(4, E), [Out(8, E, G.mem_take(1, 0, E))], DType.I8, t=6, n=4, modular=1)
    s.mem_write(1, 0, y, 0, In(8, E), t=9, n=4)
    return s.segment()


def stack(depth: int, pitch: int = 15, **changes: dict[int, dict[str, int]]) -> Program:
    """`depth` layers, each adding its constant to the same x; `changes` of rows of instances, binds or allocations."""
    b = Builder()
    rows: dict[str, list[dict[str, Any]]] = {"allocations": [{"kind": Kind.INPUT, "rows": 4, "west": 1}], "instances": [], "binds": []}
    for k in range(depth):
        rows["allocations"] += [{"kind": Kind.CONST, "rows": 4, "west": 16, "row": 4 * k}]
        rows["allocations"] += [{"kind": Kind.OUTPUT, "rows": 4, "east": 1, "row": 4 * k, "bank": 1}]
        rows["instances"].append({"segment": 0, "offset": pitch * k})
        rows["binds"] += [{"instance": k, "object": o, "allocation": a} for o, a in enumerate((0, 2 * k + 1, 2 * k + 2))]
        b.bind(f"y{k}", "output", "int8", "i8", [4, 320], [region(2 * k + 2, [4, 320], 1, [1, 0], [[(1, 0)]])])
    for name, edits in changes.items():
        for row, fields in edits.items():
            rows[name][row] = {**rows[name][row], **fields}
    b.bind("x", "input", "int8", "i8", [4, 320], [region(0, [4, 320], 1, [1, 0], [[(0, 0)]])])
    types = {"allocations": tables.ALLOCATIONS, "instances": tables.INSTANCES, "binds": tables.BINDS}
    made = program_tables(b) | {name: types[name].from_rows(rows[name]) for name in rows}
    made["placements"] = tables.PLACEMENTS.from_rows([{"image": k, "allocation": 2 * k + 1} for k in range(depth)])
    rng = np.random.default_rng(5)
    images = {f"image.{k}": rng.integers(0, 256, (1, 4, 320)).astype(np.uint8) for k in range(depth)}
    last = max(instance["offset"] for instance in rows["instances"]) + 12
    return Program("tsp", MACHINE.to_json(), tuple(b.bindings), made, (layer(),), images, last + 20)


def rules(program: Program) -> set[str]:
    return {v.rule for v in check(program)}


def layouts(program: Program) -> tuple[int, int]:
    """(blocks, different layouts)."""
    judgement, violations = legality.analyse(program)
    assert judgement is not None
    assert violations == []
    return len(judgement.blocks), len(judgement.layouts)


def test_equal_layers_are_judged_once() -> None:
    program = stack(40)
    assert layouts(program) == (40, 1)
    x = np.random.default_rng(6).integers(-128, 128, (4, 320)).astype(np.int8)
    run = execute(program, {"x": x})
    for k in range(40):
        assert np.array_equal(run.outputs[f"y{k}"], x + program.images[f"image.{k}"][0].view(np.int8))


def test_layers_back_to_back_are_judged_apart() -> None:
    """At a pitch of 4 cycles neighbours use the same queues one after the other: they share no cycle of a queue, no stream and no row."""
    blocks, different = layouts(stack(6, pitch=4))
    assert (blocks, different) == (6, 1)
    x = np.ones((4, 320), np.int8)
    tight, loose = execute(stack(6, pitch=4), {"x": x}), execute(stack(6), {"x": x})
    assert tight.violations == ()
    assert all(np.array_equal(tight.outputs[name], loose.outputs[name]) for name in loose.outputs)


@pytest.mark.parametrize("clash", [None, 0, 2])
def test_banks_are_judged_block_by_block(clash: int | None) -> None:
    """Layers that differ in their banks are judged once but for TSP-005, which is found in the layer that breaks it."""
    one, layers, pitch = bank_clash(1), 3, 100
    base = [dict(zip(one.tables["allocations"], row, strict=True)) for row in zip(*one.tables["allocations"].values(), strict=True)]
    rows: dict[str, list[dict[str, Any]]] = {"allocations": [], "instances": [], "binds": []}
    bindings = []
    for k in range(layers):
        bank = k % 2
        for place, held in zip(base, (bank, bank if k == clash else 1 - bank), strict=True):
            rows["allocations"].append({**place, "row": place["row"] + 32 * k, "bank": held})
        rows["binds"] += [{"instance": k, "object": o, "allocation": 2 * k + o} for o in (0, 1)]
        rows["instances"].append({"segment": 0, "offset": pitch * k})
        for b in one.bindings:
            where = [{**place, "allocation": place["allocation"] + 2 * k} for place in b.where or ()]
            bindings.append(replace(b, name=f"{b.name}{k}", where=where))
    types = {"allocations": tables.ALLOCATIONS, "instances": tables.INSTANCES, "binds": tables.BINDS}
    made = one.tables | {name: types[name].from_rows(rows[name]) for name in rows}
    cycles = one.predicted_cycles + pitch * (layers - 1)
    judgement, violations = legality.analyse(replace(one, tables=made, bindings=tuple(bindings), predicted_cycles=cycles))
    assert judgement is not None
    assert (len(judgement.blocks), len(judgement.layouts)) == (layers, 1)
    assert {v.rule for v in violations} == (set() if clash is None else {"TSP-005"})
    assert all(f"@{clash} " in claimant for v in violations for claimant in v.claimants)


@pytest.mark.parametrize(
    ("rule", "changes"),
    [
        ("TSP-004", {"instances": {2: {"offset": 33}, 3: {"offset": 36}}}),
        ("TSP-006", {"instances": {2: {"offset": 30}, 3: {"offset": 33}}}),
        ("TSP-009", {"allocations": {0: {"kind": Kind.SCRATCH}}}),
        ("TSP-010", {"allocations": {4: {"row": 2}}}),
        ("TSP-061", {"binds": {5: {"allocation": 2}}}),
    ],
)
def test_a_broken_seam_is_found(rule: str, changes: dict[str, Any]) -> None:
    assert rules(stack(4)) == set()
    assert rule in rules(stack(4, **changes))


def handed_over(late: int = 0) -> Program:
    """A Read in one instance whose value the Write of another instance takes."""
    b = Builder()
    s = b.s
    x, y = b.memory(Kind.INPUT, [(0, 0)], 4), b.memory(Kind.OUTPUT, [(1, 0)], 4)
    s.mem_read(0, 0, x, 0, Out(0, E, G.mem_take(1, 0, E)), t=0, n=4)
    s.mem_write(1, 0, y, 0, In(0, E), t=5, n=4)
    b.bind("x", "input", "int8", "i8", [4, 320], [region(x, [4, 320], 1, [1, 0], [[(0, 0)]])])
    b.bind("y", "output", "int8", "i8", [4, 320], [region(y, [4, 320], 1, [1, 0], [[(1, 0)]])])
    program = cut(b.program(), singly)
    instances = {name: column.copy() for name, column in program.tables["instances"].items()}
    instances["offset"][1] += late
    return replace(program.with_tables(instances=instances), predicted_cycles=program.predicted_cycles + late)


def test_streams_feed_other_instances() -> None:
    assert layouts(handed_over()) == (1, 1)
    x = np.arange(1280, dtype=np.int8).reshape(4, 320)
    assert np.array_equal(execute(handed_over(), {"x": x}).outputs["y"], x)
    assert rules(handed_over(late=1)) == {"TSP-007", "TSP-008"}
    assert rules(handed_over(late=400)) == {"TSP-007", "TSP-008"}


def moves(name: str, *times: tuple[int, int]) -> Segment:
    """(slice, cycle): four rows go from that slice in the West to the same one in the East."""
    s = SegmentBuilder(name)
    for place, t in times:
        x, y = s.object(4, [(0, place)]), s.object(4, [(1, place)])
        hops = G.mem_take(1, place, E) // 16 - G.mem_drive(0, place, E) // 16
        s.mem_read(0, place, x, 0, Out(place, E, G.mem_take(1, place, E)), t=t, n=4)
        s.mem_write(1, place, y, 0, In(place, E), t=t + 1 + hops, n=4)
    return s.segment()


def test_only_what_waits_for_each_other_is_one_block() -> None:
    """The first two use slice 0 in this order and slice 4 in the other; the third comes after both, and runs by itself."""
    parts = (moves("a", (0, 0), (4, 200)), moves("b", (4, 100), (0, 100)), moves("c", (0, 300)))
    order = [[0, 4], [4, 0], [0]]
    b = Builder()
    rows: dict[str, list[dict[str, Any]]] = {"allocations": [], "instances": [], "binds": []}
    for k, places in enumerate(order):
        rows["instances"].append({"segment": k})
        for number, place in enumerate(places):
            for side, kind in ((0, Kind.INPUT), (1, Kind.OUTPUT)):
                at = len(rows["allocations"])
                rows["binds"].append({"instance": k, "object": 2 * number + side, "allocation": at})
                rows["allocations"].append({"kind": kind, "rows": 4, ("west", "east")[side]: 1 << place, "row": 4 * k})
                role = ("input", "output")[side]
                b.bind(f"{role}{at}", role, "int8", "i8", [4, 320], [region(at, [4, 320], 1, [1, 0], [[(side, place)]])])
    types = {"allocations": tables.ALLOCATIONS, "instances": tables.INSTANCES, "binds": tables.BINDS}
    made = program_tables(b) | {name: types[name].from_rows(rows[name]) for name in rows}
    last = int(parts[2].tables["bursts"]["t0"].max()) + 3
    program = Program("tsp", MACHINE.to_json(), tuple(b.bindings), made, parts, {}, last + 20)
    judgement, violations = legality.analyse(program)
    assert judgement is not None
    assert violations == []
    assert [block.members.tolist() for block in judgement.blocks] == [[0, 1], [2]]


def test_depth_beyond_the_element_limit_is_timed() -> None:
    """Equal layers cost no more to judge: more elements than could be expanded."""
    depth = 3000
    s = SegmentBuilder("long")
    x, y = s.object(1, [(0, 0)]), s.object(1, [(1, 0)])
    n = 50_000
    s.mem_read(0, 0, x, 0, Out(0, E, G.mem_take(1, 0, E)), t=0, n=n, stride=0)
    s.mem_write(1, 0, y, 0, In(0, E), t=5, n=n, stride=0)
    b = Builder()
    b.bind("x", "input", "int8", "i8", [1, 320], [region(0, [1, 320], 1, [1, 0], [[(0, 0)]])])
    b.bind("y", "output", "int8", "i8", [1, 320], [region(1, [1, 320], 1, [1, 0], [[(1, 0)]])])
    places = [{"kind": Kind.INPUT, "rows": 1, "west": 1}, {"kind": Kind.OUTPUT, "rows": 1, "east": 1}]
    made = program_tables(b) | {
        "instances": tables.INSTANCES.from_rows([{"segment": 0, "offset": (n + 60) * k} for k in range(depth)]),
        "binds": tables.BINDS.from_rows([{"instance": k, "object": o, "allocation": o} for k in range(depth) for o in (0, 1)]),
        "allocations": tables.ALLOCATIONS.from_rows(places),
    }
    cycles = (n + 60) * (depth - 1) + 5 + n - 1 + 20
    program = Program("tsp", MACHINE.to_json(), tuple(b.bindings), made, (s.segment(),), {}, cycles)
    assert 2 * n * depth > legality.ELEMENT_LIMIT
    run = execute(program, {}, timing_only=True)
    assert [str(v) for v in run.violations] == []
    assert run.cycles == cycles == sum(run.breakdown.values())
