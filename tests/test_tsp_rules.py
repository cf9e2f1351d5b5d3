"""Every rule of docs/tsp-model.md section 10: a small legal program, broken in one place, yields that rule."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from test_tsp_examples import example_a, example_d, rules, sxm_program
from tsp_programs import MACHINE, Builder, G, allocation, drop, duplicate, edit, example_e, program_tables, region

from spatialc.errors import BadInput
from spatialc.machines.program import Program
from spatialc.machines.tsp import tables
from spatialc.machines.tsp.builder import In, Out, SegmentBuilder
from spatialc.machines.tsp.isa import HALF_BOTH, Class, DType, E, Opcode, W, sxm_unit
from spatialc.machines.tsp.tables import Kind
from spatialc.runtime_sim.tsp import check, execute

RNG = np.random.default_rng(11)
WEIGHTS = RNG.standard_normal((320, 320)).astype(np.float16)


def column(program: Program, row: int, name: str) -> int:
    return int(program.segments[0].tables["bursts"][name][row])


def shifted(program: Program, row: int, by: int) -> Program:
    return edit(program, row, t0=column(program, row, "t0") + by)


def half(change: Callable[[Program, dict[str, int]], Program]) -> Program:
    """Example E, changed."""
    return change(*example_e(WEIGHTS))


def reduction(**first: Any) -> Program:
    """Sum of 8 int32 rows of West slices 0..3 by one accumulating ALU; fields of the ALU burst may be overridden."""
    b = Builder()
    s = b.s
    x = b.memory(Kind.INPUT, [(0, p) for p in range(4)], 8)
    y = b.memory(Kind.OUTPUT, [(1, p) for p in range(4)], 1)
    for p in range(4):
        s.mem_read(0, p, x, 0, Out(p, E, G.alu_take(1, E)), t=0, n=8)
    s.alu(1, Opcode.ACC_ADD, In(0, E), None, [Out(4, E, G.mem_take(1, 0, E), 4)], DType.I32, t=5, n=8, first=1, last=1)
    for p in range(4):
        s.mem_write(1, p, y, 0, In(4 + p, E), t=15)
    b.bind("x", "input", "int32", "i32", [8, 320], [region(x, [8, 320], 1, [1, 0], [[(0, p)] for p in range(4)])])
    b.bind("y", "output", "int32", "i32", [320], [region(y, [320], 0, [0], [[(1, p)] for p in range(4)])])
    program = b.program()
    return edit(program, 4, **first) if first else program


def split_reduction(between: bool = False) -> Program:
    """`reduction` in two bursts of 4, the second of which continues the first; `between` puts another operation of that ALU amid them."""
    b = Builder()
    s = b.s
    x = b.memory(Kind.INPUT, [(0, p) for p in range(4)], 8)
    y = b.memory(Kind.OUTPUT, [(1, p) for p in range(4)], 1)
    until = G.alu_take(1, E)
    for p in range(4):
        s.mem_read(0, p, x, 0, Out(p, E, until), t=0, n=4)
    s.alu(1, Opcode.ACC_ADD, In(0, E), None, [], DType.I32, t=5, n=4, first=1)
    for p in range(4):
        s.mem_read(0, p, x, 4, Out(p, E, until), t=10, n=4)
    s.alu(1, Opcode.ACC_ADD, In(0, E), None, [Out(4, E, G.mem_take(1, 0, E), 4)], DType.I32, t=15, n=4, last=1)
    for p in range(4):
        s.mem_write(1, p, y, 0, In(4 + p, E), t=21)
    if between:
        s.mem_read(0, 0, x, 0, Out(12, E, until), t=7)
        s.alu(1, Opcode.NEG, In(12, E), None, [Out(13, E, G.mem_take(1, 4, E))], DType.I8, t=12)
    b.bind("x", "input", "int32", "i32", [8, 320], [region(x, [8, 320], 1, [1, 0], [[(0, p)] for p in range(4)])])
    b.bind("y", "output", "int32", "i32", [320], [region(y, [320], 0, [0], [[(1, p)] for p in range(4)])])
    return b.program()


def short_region() -> Program:
    """Example D with an output region that leaves the last elements out."""
    program = example_d()
    output = program.bindings[2]
    return replace(program, bindings=(*program.bindings[:2], replace(output, where=[{**output.where[0], "shape": [300]}])))


def twice_placed() -> Program:
    """The gather's table filled twice."""
    program = embedding()
    return program.with_tables(placements={name: np.repeat(column, 2) for name, column in program.tables["placements"].items()})


def wide_broadcast() -> Program:
    """Example D with an input that has its lanes and would fill all of them."""
    program = example_d()
    first = program.bindings[0]
    return replace(program, bindings=(replace(first, where=[{**first.where[0], "broadcast": True}]), *program.bindings[1:]))


def passes(second: DType | None = None, wait: int = 0, entries: tuple[dict[str, int], dict[str, int]] = ({}, {})) -> Program:
    """Two int8 passes over the same tile on plane 2: the first stores an entry, the second adds it and emits (or is the fp16 of a pair)."""
    b = Builder()
    s = b.s
    slices = [(1, s_) for s_ in range(29, 38)] + [(1, s_) for s_ in range(39, 44)] + [(1, 27), (1, 26)]
    w = b.constant(slices, RNG.integers(0, 256, (16, 1, 320)))
    x = b.memory(Kind.INPUT, [(1, 0), (1, 1)], 2)
    y = b.memory(Kind.OUTPUT, [(1, p) for p in range(4)], 1, bank=1)
    take = G.mxm_take(1)

    def load(plane: int, t: int) -> None:
        for number, (h, slice_) in enumerate(sorted(slices)):
            if plane == 2 or t != 40:
                s.mem_read(h, slice_, w, 0, Out(number, E, take), t=t - 20 + slice_ // 4)
        s.lw(plane, 0, t=t, n=1)
        s.iw(plane, t=t + 1)

    load(2, 40)
    for row in range(2):
        s.mem_read(1, 0, x, row, Out(16, E, take), t=22 + row)
    s.abc(2, 16, DType.I8, t=42)
    s.acc(2, t=56, **{"entry": 3, "store": 1, **entries[0]})  # type: ignore[arg-type]
    s.abc(2, 16, DType.I8, t=43)
    s.acc(2, t=57, out=Out(0, W, G.alu_take(0, W), 4), **{"entry": 3, "add": 1, **entries[1]})  # type: ignore[arg-type]
    s.alu(0, Opcode.IDENTITY, In(0, W), None, [Out(4, E, G.mem_take(1, 0, E), 4)], DType.I32, t=110)
    for p in range(4):
        s.mem_write(1, p, y, 0, In(4 + p, E), t=113)
    if second is not None:
        at = 44 + wait
        load(2, at)
        s.lw(3, 0, t=at, n=1)
        s.iw(3, t=at + 1)
        for p in range(2):
            s.mem_read(1, p, x, 0, Out(16 + p, E, take), t=at + 2 - 20)
        for plane in (2, 3):
            s.abc(plane, 16, DType.F16, t=at + 2)
            s.acc(plane, t=at + 16, entry=7, store=1)
    b.bind("x", "input", "float16", "f16", [2, 320], [region(x, [2, 320], 1, [1, 0], [[(1, 0)], [(1, 1)]])])
    b.bind("y", "output", "int32", "i32", [320], [region(y, [320], 0, [0], [[(1, p)] for p in range(4)])])
    return b.program()


def self_feeding() -> Program:
    """A Read and a Write of two elements that feed each other."""
    b = Builder()
    s = b.s
    x = b.memory(Kind.STATE, [(0, 0), (1, 0)], 3)
    s.mem_read(0, 0, x, 0, Out(0, E, G.mem_take(1, 0, E)), t=0, n=2, i=40)
    s.mem_read(1, 0, x, 0, Out(1, W, G.mem_take(0, 0, W)), t=9, n=2, i=40)
    s.mem_write(1, 0, x, 0, In(0, E), t=5, n=2, i=40)
    s.mem_write(0, 0, x, 1, In(1, W), t=14, n=2, i=40)
    b.bind("x", "state", "uint8", "u8", [3, 320], [region(x, [3, 320], 1, [1, 0], [[(0, 0)]])])
    return b.program()


def permuted(conflict: bool) -> Program:
    """A permute and, in the same or another cycle, a shift in the West SXM."""
    b = Builder()
    s = b.s
    order = RNG.permutation(320).astype("<u2")
    x = b.memory(Kind.INPUT, [(0, 43)], 1)
    m = b.constant([(0, 41), (0, 42)], order.view(np.uint8).reshape(320, 2).T[:, None])
    y = b.memory(Kind.OUTPUT, [(0, 40)], 2)
    s.mem_read(0, 43, x, 0, Out(0, W, G.sxm_take(0, W)), t=0)
    for p in range(2):
        s.mem_read(0, 41 + p, m, 0, Out(2 + p, W, G.sxm_take(0, W)), t=0)
    s.permute(0, In(0, W), In(2, W), [Out(4, E, G.mem_take(0, 40, E))], t=5)
    late = 0 if conflict else 1
    s.mem_read(0, 43, x, 0, Out(8 + late, W, G.sxm_take(0, W)), t=late or 2)
    if conflict:
        s = b.s
    s.shift(0, 16, In(8 + late, W), [Out(5, E, G.mem_take(0, 40, E))], t=5 + (late or 2))
    s.mem_write(0, 40, y, 0, In(4, E), t=57)
    s.mem_write(0, 40, y, 1, In(5, E), t=45 + (late or 2))
    b.bind("x", "input", "uint8", "u8", [320], [region(x, [320], 0, [0], [[(0, 43)]])])
    b.bind("y", "output", "uint8", "u8", [2, 320], [region(y, [2, 320], 1, [1, 0], [[(0, 40)]])])
    program = b.program()
    return edit(edit(program, 4, t0=0), 5, t0=5) if conflict else program


def two_chips(interval: int = 24, delay: int = 216) -> Program:
    """Three vectors from chip 0 to chip 1."""
    b = Builder()
    x = b.memory(Kind.INPUT, [(0, 43)], 3)
    b.s.mem_read(0, 43, x, 0, Out(0, W, G.c2c_take(0, W)), t=0, n=3, i=interval)
    b.s.send(0, In(0, W), t=3, n=3, i=interval)
    b.bind("x", "input", "uint8", "u8", [3, 320], [region(0, [3, 320], 1, [1, 0], [[(0, 43)]])])
    far = SegmentBuilder("far")
    y = far.object(3, [(0, 40)])
    far.receive(0, [Out(7, E, G.mem_take(0, 40, E))], t=3 + delay, n=3, i=interval)
    far.mem_write(0, 40, y, 0, In(7, E), t=3 + delay + 2, n=3, i=interval)
    b.bind("y", "output", "uint8", "u8", [3, 320], [region(1, [3, 320], 1, [1, 0], [[(0, 40)]])])
    program = b.program(3 + delay + 2 + 2 * interval + 20)
    made = program_tables(b) | {
        "instances": tables.INSTANCES.from_rows([{"segment": 0, "chip": 0}, {"segment": 1, "chip": 1}]),
        "binds": tables.BINDS.from_rows([{"instance": 0, "object": 0, "allocation": 0}, {"instance": 1, "object": y, "allocation": 1}]),
        "allocations": tables.ALLOCATIONS.from_rows(
            [*b.allocations, {"kind": Kind.OUTPUT, "chip": 1, "rows": 3, "west": 1 << 40}]
        ),
        "links": tables.LINKS.from_rows(tables.mesh_links(2)),
    }  # fmt: skip
    return replace(program, segments=(*program.segments, far.segment()), tables=made)


def embedding() -> Program:
    """Gather of two rows of a 16-row table by an input map."""
    b = Builder()
    s = b.s
    table = b.constant([(0, 20 + 1)], RNG.integers(0, 256, (1, 16, 320)), row=100)
    codes = b.memory(Kind.INPUT, [(0, 43)], 2)
    y = b.memory(Kind.OUTPUT, [(0, 0)], 2)
    s.mem_read(0, 43, codes, 0, Out(0, E, G.mem_take(0, 21, E)), t=0, n=2)
    s.gather(0, 21, table, In(0, E), Out(1, E, G.mem_take(0, 0, E)), t=5, n=2)
    s.mem_write(0, 0, y, 0, In(1, E), t=11, n=2)
    b.bind("codes", "input", "uint8", "u8", [2, 320], [region(codes, [2, 320], 1, [1, 0], [[(0, 43)]])])
    b.bind("y", "output", "uint8", "u8", [2, 320], [region(y, [2, 320], 1, [1, 0], [[(0, 0)]])])
    return b.program()


def bank_clash(bank: int) -> Program:
    """A Read and a Write of slice W8 in one cycle."""
    b = Builder()
    s = b.s
    x = b.memory(Kind.INPUT, [(0, 8), (0, 40)], 4)
    y = b.memory(Kind.OUTPUT, [(0, 8), (0, 0)], 4, bank=bank, row=8)
    s.mem_read(0, 40, x, 0, Out(0, E, G.mem_take(0, 8, E)), t=0, n=4)
    s.mem_write(0, 8, y, 0, In(0, E), t=8, n=4)
    s.mem_read(0, 8, x, 0, Out(1, E, G.mem_take(0, 0, E)), t=10, n=4)
    s.mem_write(0, 0, y, 0, In(1, E), t=12, n=4)
    both = [[8, 40], [8, 0]]
    for name, kind, obj, (first, second) in (("x", "input", x, both[0]), ("y", "output", y, both[1])):
        planes = [
            region(obj, [2, 4, 320], 2, [0, 1, 0], [[(0, p)]], start=[k, 0, 0], shape=[1, 4, 320]) for k, p in enumerate((first, second))
        ]
        b.bind(name, kind, "uint8", "u8", [2, 4, 320], planes)
    return b.program()


LEGAL: dict[str, Callable[[], Program]] = {
    "a": lambda: example_a(5)[0], "d": example_d, "e": lambda: example_e(WEIGHTS)[0], "sxm": lambda: sxm_program(False)[0],
    "reduction": reduction, "split": split_reduction, "passes": passes,
    "typed": lambda: passes(DType.F16, wait=22), "permuted": lambda: permuted(False),
    "chips": two_chips, "embedding": embedding, "banks": lambda: bank_clash(1),
}  # fmt: skip


@pytest.mark.parametrize("name", LEGAL)
def test_base_programs_are_legal(name: str) -> None:
    assert [str(v) for v in check(LEGAL[name]())] == []


D_READ, D_OTHER, D_ADD, D_WRITE = range(4)
CASES: list[tuple[str, Callable[[], Program]]] = [
    *(("TSP-001", lambda f=f, v=v: edit(example_d(), D_ADD, **{f: v})) for f, v in (
        ("unit", 200), ("unit", -1), ("unit", 0), ("opcode", 9), ("dtype", 0), ("dtype", 77), ("n", 0), ("i", 0), ("n2", 0), ("i2", 5),
        ("t0", -3), ("row", 1), ("stride", 1), ("entry", 1), ("a_stream", -1),
        ("a_stream", 40), ("a_dir", 2), ("modular", 2), ("provenance", 3),
    )),
    ("TSP-001", lambda: edit(example_d(), D_READ, object=9)),
    ("TSP-001", lambda: half(lambda p, at: edit(p, at["lw"], row0=16))),
    ("TSP-001", lambda: half(lambda p, at: edit(p, at["abc"], half=3))),
    ("TSP-001", lambda: half(lambda p, at: edit(p, at["acc"], entry=1))),
    ("TSP-001", lambda: edit(example_d(), 0, "claims", burst=50)),
    ("TSP-001", lambda: edit(example_d(), 2, "claims", burst=D_WRITE)),
    ("TSP-001", lambda: edit(two_chips(), 1, link=9)),
    ("TSP-001", lambda: twice_placed()),
    ("TSP-001", lambda: wide_broadcast()),
    ("TSP-002", lambda: edit(example_d(), D_READ, row=1)),
    ("TSP-002", lambda: edit(reduction(), 0, stride=2)),
    ("TSP-002", lambda: edit(reduction(), 0, stride=-1)),
    ("TSP-002", lambda: edit(example_d(), D_READ, unit=22)),
    ("TSP-002", lambda: allocation(example_d(), 0, row=4096)),
    ("TSP-002", lambda: allocation(example_d(), 0, bank=2)),
    ("TSP-002", lambda: allocation(example_d(), 0, west=1 << 22)),
    ("TSP-003", lambda: allocation(edit(edit(example_d(), D_READ, unit=20), 0, "objects", west=1 << 20), 0, west=1 << 20)),
    ("TSP-004", lambda: duplicate(example_d(), D_WRITE)),
    ("TSP-004", lambda: duplicate(example_d(), D_ADD, a_stream=4, b_stream=0)),
    ("TSP-005", lambda: bank_clash(0)),
    ("TSP-006", lambda: edit(example_d(), 1, "claims", stream=0)),
    ("TSP-006", lambda: duplicate(example_d(), D_READ)),
    ("TSP-007", lambda: shifted(example_d(), D_WRITE, 1)),
    ("TSP-007", lambda: edit(example_d(), D_ADD, a_stream=1)),
    ("TSP-007", lambda: edit(example_d(), 0, "claims", until=G.alu_take(0, E) - 1)),
    ("TSP-007", lambda: drop(example_d(), D_READ)),
    ("TSP-008", lambda: edit(example_d(), 0, "claims", until=G.alu_take(0, E) + 1)),
    ("TSP-008", lambda: drop(example_d(), D_WRITE)),
    ("TSP-008", lambda: edit(reduction(), 4, n=7)),
    ("TSP-009", lambda: allocation(replace(example_d(), bindings=example_d().bindings[1:]), 0, kind=Kind.SCRATCH)),
    ("TSP-009", lambda: allocation(example_d(), 2, kind=Kind.CONST)),
    ("TSP-010", lambda: allocation(example_d(), 1, west=1 << 8 | 1 << 21)),
    ("TSP-011", self_feeding),
    ("TSP-020", lambda: half(lambda p, at: duplicate(p, at["lw"], n=1))),
    ("TSP-020", lambda: half(lambda p, at: shifted(p, at["lw"], 20))),
    ("TSP-021", lambda: half(lambda p, at: shifted(p, at["iw"], -1))),
    ("TSP-021", lambda: half(lambda p, at: shifted(p, at["iw"], 1))),
    ("TSP-021", lambda: half(lambda p, at: duplicate(p, at["iw"], t0=39))),
    ("TSP-022", lambda: half(lambda p, at: drop(p, at["iw"]))),
    ("TSP-022", lambda: half(lambda p, at: edit(edit(p, at["lw"], n=19), at["iw"], t0=37))),
    ("TSP-023", lambda: half(lambda p, at: edit(p, at["abc"], n=2, i=1))),
    ("TSP-024", lambda: half(lambda p, at: shifted(p, at["acc"], 1))),
    ("TSP-024", lambda: half(lambda p, at: edit(p, at["acc"], n=2, i=2))),
    ("TSP-024", lambda: half(lambda p, at: drop(p, at["acc"]))),
    ("TSP-024", lambda: half(lambda p, at: drop(p, at["abc"]))),
    ("TSP-025", lambda: passes(entries=({"entry": 128}, {}))),
    ("TSP-025", lambda: passes(entries=({}, {"entry": 4}))),
    ("TSP-025", lambda: passes(entries=({}, {"add": 0, "store": 1}))),
    ("TSP-026", lambda: passes(DType.F16, wait=21)),
    ("TSP-026", lambda: half(lambda p, at: edit(p, at["abc"], unit=p.segments[0].tables["bursts"]["unit"][at["abc"]] - 6))),
    ("TSP-026", lambda: half(lambda p, at: edit(p, at["abc"], half=0))),
    ("TSP-027", lambda: half(lambda p, at: edit(p, at["lw"], a_stream=1))),
    ("TSP-027", lambda: half(lambda p, at: edit(p, at["lw"], a_dir=W))),
    ("TSP-027", lambda: half(lambda p, at: edit(p, at["abc"], a_stream=1))),
    ("TSP-030", lambda: edit(example_d(), D_ADD, a_stream=16)),
    ("TSP-030", lambda: edit(example_d(), 2, "claims", stream=16)),
    ("TSP-031", lambda: half(lambda p, at: edit(p, at["cast"], unit=91))),
    ("TSP-031", lambda: edit(reduction(), 4, opcode=Opcode.ACC_MAX)),
    ("TSP-032", lambda: edit(example_d(), D_ADD, b_stream=1, b_dir=W)),
    ("TSP-033", lambda: half(lambda p, at: edit(p, at["cast"], dtype=DType.I32))),
    ("TSP-033", lambda: edit(example_a(5)[0], example_a(5)[1]["alu"], a_stream=17)),
    ("TSP-034", lambda: reduction(first=0)),
    ("TSP-034", lambda: duplicate(reduction(), 4, t0=8, n=1, opcode=Opcode.ACC_ADD)),
    ("TSP-034", lambda: split_reduction(between=True)),
    ("TSP-034", lambda: edit(split_reduction(), 4, opcode=Opcode.ACC_MAX, unit=90)),
    ("TSP-040", lambda: shifted(sxm_program(False)[0], 21 + 1, 1)),
    ("TSP-041", lambda: permuted(True)),
    ("TSP-050", lambda: two_chips(interval=23)),
    ("TSP-051", lambda: two_chips(delay=215)),
    ("TSP-051", lambda: edit(two_chips(), 1, n=2)),
    ("TSP-051", lambda: two_chips().with_tables(links=tables.LINKS.from_rows([]))),
    ("TSP-060", lambda: replace(example_d(), predicted_cycles=35)),
    ("TSP-061", lambda: replace(drop(example_d(), D_WRITE))),
    ("TSP-061", lambda: short_region()),
]  # fmt: skip


@pytest.mark.parametrize(("rule", "make"), CASES, ids=[f"{rule}-{k}" for k, (rule, _) in enumerate(CASES)])
def test_rule_is_detected(rule: str, make: Callable[[], Program]) -> None:
    found = check(make())
    assert rule in {violation.rule for violation in found}, [str(v) for v in found]
    assert all(violation.message for violation in found)


def test_a_broken_segment_hides_nothing_in_another() -> None:
    """Tables that lie one after the other: each breach names its own segment and row, whatever broke before it."""
    good = reduction()
    size = len(good.segments[0].tables["bursts"]["n"])
    claims = {**good.segments[0].tables["claims"]}
    claims["burst"] = np.full_like(claims["burst"], size)
    parts = [
        *(edit(good, 4, **fields).segments[0] for fields in ({"n": 0}, {"dtype": DType.NONE}, {}, {"a_stream": 30})),
        replace(good.segments[0], tables=good.segments[0].tables | {"claims": claims}),
        edit(good, 2, row=1).segments[0], edit(good, 3, object=2).segments[0],
    ]  # fmt: skip
    parts = [replace(part, name=f"s{k}") for k, part in enumerate(parts)]
    found = check(replace(good, segments=(*good.segments, *parts)))
    places = {v.claimants[0].split()[0] if v.claimants else v.unit for v in found if v.rule in ("TSP-001", "TSP-002")}
    assert places == {"s0#4", "s1#4", "s3#4", "segment s4", "s5#2", "s6#3"}
    assert check(replace(good, segments=(*good.segments, parts[2]))) == []


def test_every_rule_has_a_case() -> None:
    numbers = [*range(1, 13), *range(20, 28), *range(30, 35), 40, 41, 50, 51, 60, 61]
    wanted = {f"TSP-{number:03}" for number in numbers}
    assert {rule for rule, _ in CASES} | {"TSP-012"} == wanted


def test_gather_reads_rows_and_faults_beyond_the_object() -> None:
    program = embedding()
    table = program.images["image.0"][0]
    codes = np.zeros((2, 20, 16), np.uint8)
    codes[:, :, 0] = 100 + RNG.integers(0, 16, (2, 20))
    run = execute(program, {"codes": codes.reshape(2, 320)})
    assert run.violations == ()
    expected = np.stack([[table[codes[k, s, 0] - 100, 16 * s : 16 * s + 16] for s in range(20)] for k in range(2)])
    assert np.array_equal(run.outputs["y"], expected.reshape(2, 320))
    codes[1, 3, 1] = 1
    assert [v.rule for v in execute(program, {"codes": codes.reshape(2, 320)}).violations] == ["TSP-012"]


def test_skip_switches_a_rule_off() -> None:
    program = replace(example_d(), predicted_cycles=1)
    assert rules(program) == {"TSP-060"}
    assert check(program, skip=frozenset({"TSP-060"})) == []


def test_unreadable_containers() -> None:
    program = example_d()
    with pytest.raises(BadInput, match="lacks the table binds"):
        check(replace(program, tables={k: v for k, v in program.tables.items() if k != "binds"}))
    with pytest.raises(BadInput, match="not for tsp"):
        check(replace(program, target="wafer"))
    with pytest.raises(BadInput, match="field rows"):
        check(replace(program, machine={**program.machine, "rows": 0}))


def test_links_move_vectors_between_chips() -> None:
    x = RNG.integers(0, 256, (3, 320)).astype(np.uint8)
    run = execute(two_chips(), {"x": x})
    assert run.violations == ()
    assert run.chips == 2
    assert np.array_equal(run.outputs["y"], x)


def test_permute_and_shift() -> None:
    program = permuted(False)
    x = RNG.integers(0, 256, 320).astype(np.uint8)
    run = execute(program, {"x": x})
    order = np.ascontiguousarray(program.images["image.0"][:, 0].T).view("<u2").reshape(-1)
    assert np.array_equal(run.outputs["y"][0], x[order])
    assert np.array_equal(run.outputs["y"][1], np.concatenate([np.zeros(16, np.uint8), x[:-16]]))


def test_accumulators_and_reductions() -> None:
    x = RNG.integers(-1000, 1000, (8, 320)).astype(np.int32)
    for make in (reduction, split_reduction):
        assert np.array_equal(execute(make(), {"x": x}).outputs["y"], x.sum(axis=0))
    program = passes()
    y = RNG.standard_normal((2, 320)).astype(np.float16)
    low = y.view(np.int8).reshape(2, 320, 2)[:, :, 0].astype(np.int64)
    weights = np.zeros((320, 320), np.int64)
    weights[:16] = program.images["image.0"].view(np.int8)[:, 0]
    assert np.array_equal(execute(program, {"x": y}).outputs["y"], weights @ low.sum(axis=0))


def test_units_of_rows_are_what_they_seem() -> None:
    assert sxm_unit(1, Class.C2C) == 143
    assert HALF_BOTH == 2
    assert MACHINE.reserved_slices >= {(0, 16), (1, 28)}


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("allocation", 99), ("allocation", "0"), ("row", -1), ("row", 1),
        ("start", [1]), ("start", None), ("shape", [321]), ("shape", [320.5]),
        ("lane_axis", 3), ("lane_tile", 0), ("lane_tile", 400), ("lane_offset", 1), ("broadcast", 1), ("strides", [1, 2]), ("planes", []),
        ("planes", [[[0, 99]]]), ("planes", [[0]]), ("planes", [[[0, 21], [0, 8]]]), ("planes", [[[0, 21], [0, 21]]]),
    ],
)  # fmt: skip
def test_garbled_regions_are_refused_by_rule(field: str, value: object) -> None:
    program = example_d()
    changed = replace(program.bindings[0], where=[{**program.bindings[0].where[0], field: value}])
    assert rules(replace(program, bindings=(changed, *program.bindings[1:]))) == {"TSP-001"}
    assert rules(replace(program, bindings=(replace(changed, where=None), *program.bindings[1:]))) == {"TSP-001"}
    assert rules(replace(program, bindings=(replace(changed, kind="toll"), *program.bindings[1:]))) == {"TSP-001"}
