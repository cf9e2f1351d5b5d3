"""Every rule of the wafer machine is detected: a legal program broken in one place yields that rule."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import pytest
from wafer_programs import BASE, WSE2, bound, chain, edited, local_product, mesh_product, program_of, star, without

from spatialc.machines.catalog import load_machine
from spatialc.machines.program import Program, concatenate
from spatialc.machines.wafer.builder import FABRIC, ProgramBuilder, SegmentBuilder, full, mem, one
from spatialc.machines.wafer.isa import Element, Fmt, Op
from spatialc.machines.wafer.tables import ROUTES, ObjectKind, Port, Trigger
from spatialc.runtime_sim.wafer import check


def rules(program: Program) -> set[str]:
    return {violation.rule for violation in check(program)}


def line() -> Program:
    """Four cores in two rows; bursts in order: send of column 0, columns 1 and 2 (fused), column 3."""
    return chain(4, 8)


def local() -> Program:
    """Bursts in order: zero, FMAC, CVT."""
    return local_product(2, 3, 2, 8, 4)


def with_routes(program: Program, *rows: dict[str, Any]) -> Program:
    segment = program.segments[0]
    tables = {**segment.tables, "routes": concatenate([segment.tables["routes"], ROUTES.from_rows(rows)])}
    return dataclasses.replace(program, segments=(dataclasses.replace(segment, tables=tables), *program.segments[1:]))


def route(row: int, column: int, colour: int, rx: Port, tx: Port, region: int = 0, **rest: int) -> dict[str, Any]:
    return {"region": region, "colour": colour, "rows": one(row), "cols": one(column), "rx": int(rx), "tx": 1 << tx, **rest}


def circle() -> Program:
    """Colour 5 runs around four routers."""
    return with_routes(
        line(), route(0, 0, 5, Port.S, Port.E), route(0, 1, 5, Port.W, Port.S), route(1, 1, 5, Port.N, Port.W),
        route(1, 0, 5, Port.E, Port.N),
    )  # fmt: skip


def senders(colours: tuple[int, int], cores: tuple[int, int], span: int = 8, b: int = 16, gap: int = 0) -> Program:
    """Two f32 or f16 streams from columns `cores` to column 2; both start at cycle 0 (the second `gap` later)."""
    s = SegmentBuilder("two")
    r = s.region(3, 1)
    x = s.object(r, BASE, Element.F16, [b], ObjectKind.INPUT)
    y = s.object(r, BASE + 64, Element.F16, [2, b], ObjectKind.OUTPUT)
    for n, (colour, core) in enumerate(zip(colours, cores, strict=True)):
        s.route(r, colour, one(0), one(core), Port.RAMP, [Port.E])
        for between in range(core + 1, 2):
            s.route(r, colour, one(0), one(between), Port.W, [Port.E])
        s.route(r, colour, one(0), one(2), Port.W, [Port.RAMP])
        trigger = Trigger.HOLD if gap * n else Trigger.AFTER
        common = {"rows": one(0), "ext": (b,), "q": 2}
        s.burst(
            r, Op.MOV, Fmt.F16, gap * n, span, cols=one(core), d=FABRIC, a=mem(x, 1), cout=colour, qout=2 + n, trigger=trigger, **common
        )
        at = gap * n + 2 - core + 6
        s.burst(
            r, Op.MOV, Fmt.F16, at, span, cols=one(2), d=mem(y, 1, addr=n * b), a=FABRIC, cin=colour, qin=2 + n, trigger=Trigger.ARRIVE,
            **common,
        )  # fmt: skip
    builder = ProgramBuilder()
    i = builder.instance(0, 0, 0, 0)
    px = builder.placement([3, b], [(0, 0, 1), (0, 0, 0)], [[0], [1]], full(1), full(3))
    py = builder.placement([2, b], [(0, 0, 0), (0, 0, 0)], [[1, 0], [0, 1]], full(1), one(2))
    bindings = [bound("x", "input", "f16", (3, b), (i, x, px)), bound("y", "output", "f16", (2, b), (i, y, py))]
    ends = [gap * n + 2 - core + 6 + span for n, core in enumerate(cores)]
    return program_of(s.build(), builder, bindings, max(ends))


def twice(start: int) -> Program:
    """Two instances of the chain in one place."""
    program = line()
    tables = dict(program.tables)
    first = program.tables["instances"]
    second = {name: array.copy() for name, array in first.items()}
    second["start"][0] = start
    tables["instances"] = concatenate([first, second])
    return dataclasses.replace(program, tables=tables)


def dead() -> Program:
    defects = {"cores": [[WSE2.program_x + 6, WSE2.program_y + 8]], "links": []}
    machine = load_machine("wafer", "wafer-wse2", {"defects": defects})
    return dataclasses.replace(line(), machine=machine.to_json())


def streamed(span: int) -> Program:
    program = local()
    builder = ProgramBuilder()
    builder.stream(0, 0, span)
    return program.with_tables(streams=builder.tables()["streams"])


def half_bound() -> Program:
    program = line()
    x, y = program.bindings
    return dataclasses.replace(program, bindings=(x, dataclasses.replace(y, shape=(3, 8))))


BREAKS: dict[str, Callable[[], Program]] = {
    "W01": lambda: edited(line(), "bursts", 0, op=99),
    "W02": lambda: edited(line(), "instances", 0, segment=None, x=748),
    "W03": lambda: edited(line(), "bursts", 0, rows=(0, 3, 1)),
    "W04": dead,
    "W05": lambda: edited(line(), "bursts", 0, imm=1.0),
    "W06": lambda: dataclasses.replace(line(), machine={**WSE2.to_json(), "clock_hz": 2e9}),
    "W10": lambda: edited(local(), "bursts", 2, t0=40),
    "W11": lambda: edited(line(), "bursts", 1, span=7),
    "W12": lambda: edited(line(), "bursts", 0, a_stride=(0, 0, 0, 200)),
    "W13": lambda: edited(line(), "objects", 0, word=BASE + 1),
    "W20": lambda: edited(line(), "routes", 0, colour=21),
    "W21": lambda: with_routes(line(), route(0, 0, 0, Port.W, Port.E)),
    "W22": lambda: edited(line(), "routes", 1, tx=1 << Port.W | 1 << Port.RAMP),
    "W23": lambda: edited(line(), "routes", 1, tx=1 << Port.E | 1 << Port.RAMP),
    "W24": lambda: edited(line(), "routes", 1, rx=Port.N),
    "W25": circle,
    "W26": lambda: edited(line(), "routes", 0, rx=Port.W),
    "W27": lambda: edited(star(5, 4), "bursts", 1, t0=2),
    "W28": lambda: with_routes(line(), route(0, 0, 0, Port.W, Port.E, region=-1)),
    "W30": lambda: senders((0, 1), (0, 1)),
    "W31": lambda: senders((0, 1), (1, 1)),
    "W32": lambda: edited(line(), "bursts", 1, span=9),
    "W33": lambda: without(line(), "bursts", 0),
    "W34": lambda: without(line(), "bursts", 3),
    "W35": lambda: edited(line(), "bursts", 3, t0=17, trigger=Trigger.HOLD),
    "W36": lambda: edited(line(), "bursts", 3, t0=26, trigger=Trigger.HOLD),
    "W37": lambda: edited(line(), "bursts", 1, t0=7),
    "W38": lambda: edited(line(), "bursts", 0, qout=6),
    "W39": lambda: edited(local(), "bursts", 2, t0=40),
    "W40": lambda: edited(line(), "objects", 0, word=BASE - 8),
    "W41": lambda: edited(line(), "bursts", 0, a_addr=2),
    "W42": lambda: edited(line(), "objects", 1, word=BASE + 8),
    "W43": lambda: edited(local(), "bursts", 2, t0=40),
    "W44": lambda: edited(local(), "bursts", 0, ext=(1, 1, 1, 4), d_stride=(0, 0, 0, 1)),
    "W50": half_bound,
    "W51": lambda: streamed(1),
    "W52": lambda: dataclasses.replace(line(), predicted_cycles=27),
}


@pytest.mark.parametrize("rule", sorted(BREAKS))
def test_each_rule_is_detected(rule: str) -> None:
    assert rule in rules(BREAKS[rule]())


@pytest.mark.parametrize("program", [line(), local(), star(5, 4), mesh_product(4, 2, 4, 4), senders((0, 1), (0, 1), span=16)])
def test_the_unbroken_programs_are_legal(program: Program) -> None:
    assert check(program) == []


def test_a_control_wavelet_needs_a_router_that_it_can_turn() -> None:
    """On a colour whose routers have one position it would mean nothing (F6b)."""
    breaches = [str(v) for v in check(edited(line(), "bursts", 0, control=1))]
    assert any("W05" in text and "whose routers have one position" in text for text in breaches)
