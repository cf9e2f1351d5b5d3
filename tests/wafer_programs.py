"""Small wafer programs written by hand, for tests of the executor: lines, local products, a shifting product."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np

from spatialc.machines.catalog import load_machine
from spatialc.machines.program import Binding, Program, Segment
from spatialc.machines.wafer.builder import FABRIC, ProgramBuilder, Range, SegmentBuilder, full, imm, mem, one
from spatialc.machines.wafer.description import WaferMachine
from spatialc.machines.wafer.isa import Element, Fmt, Op
from spatialc.machines.wafer.tables import ObjectKind, Port, Trigger, image_key

WSE2 = load_machine("wafer", "wafer-wse2")
BASE = 7680


def program_of(
    segment: Segment,
    builder: ProgramBuilder,
    bindings: Sequence[Binding],
    cycles: int,
    images: Mapping[str, np.ndarray] | None = None,
    machine: WaferMachine = WSE2,
    more: Sequence[Segment] = (),
) -> Program:
    """A program of one segment (and others) with its predicted cycles."""
    return Program("wafer", machine.to_json(), tuple(bindings), builder.tables(), (segment, *more), images or {}, cycles)


def bound(name: str, kind: str, dtype: str, shape: Sequence[int], *pieces: tuple[int, int, int]) -> Binding:
    """A binding with pieces (instance, object, placement)."""
    where = [{"instance": i, "object": o, "placement": p} for i, o, p in pieces]
    return Binding(name, kind, dtype, tuple(shape), where=where)


def edited(program: Program, table: str, row: int, segment: int | None = 0, **fields: Any) -> Program:
    """The program with fields of one row replaced; `segment` None edits a program-level table."""
    tables = program.tables if segment is None else program.segments[segment].tables
    columns = {name: array.copy() for name, array in tables[table].items()}
    for name, value in fields.items():
        columns[name][row] = value
    if segment is None:
        return program.with_tables(**{table: columns})
    changed = replace(program.segments[segment], tables={**tables, table: columns})
    segments = list(program.segments)
    segments[segment] = changed
    return replace(program, segments=tuple(segments))


def without(program: Program, table: str, row: int, segment: int = 0) -> Program:
    """The program without one row of a segment table."""
    tables = program.segments[segment].tables
    columns = {name: np.delete(array, row, axis=0) for name, array in tables[table].items()}
    segments = list(program.segments)
    segments[segment] = replace(program.segments[segment], tables={**tables, table: columns})
    return replace(program, segments=tuple(segments))


def chain(p: int, b: int, rows: int = 2, *, fmt: Element = Element.F32, machine: WaferMachine = WSE2) -> Program:
    """Sum of p vectors of b elements along each row, west to east: every core adds its own on the way (fused)."""
    s = SegmentBuilder("chain")
    r = s.region(p, rows)
    words = 2 * b
    x = s.object(r, BASE, fmt, [b], ObjectKind.INPUT)
    y = s.object(r, BASE + words + (-words) % 8 + 4, fmt, [b], ObjectKind.OUTPUT)
    plain = Fmt(int(fmt))
    for c in (0, 1):
        if len(range(c, p - 1, 2)):
            s.route(r, c, full(rows), (c, p - 1, 2), Port.RAMP, [Port.E])
            s.route(r, c, full(rows), (c + 1, p, 2), Port.W, [Port.RAMP])
    s.burst(r, Op.MOV, plain, 0, b, rows=full(rows), cols=one(0), d=FABRIC, a=mem(x, 1), ext=(b,), cout=0, qout=2, q=1)
    own = {"rows": full(rows), "a": FABRIC, "b": mem(x, 1), "ext": (b,), "trigger": Trigger.ARRIVE, "q": 1}
    for c in (0, 1):
        cols = (c + 1, p - 1, 2)
        if len(range(*cols)):
            s.burst(r, Op.ADD, plain, 0, b, tx=6, cols=cols, d=FABRIC, cin=c, qin=2, cout=1 - c, qout=3, **own)
    s.burst(r, Op.ADD, plain, 6 * (p - 1), b, cols=one(p - 1), d=mem(y, 1), cin=(p - 2) % 2, qin=3, **own)
    builder = ProgramBuilder()
    i = builder.instance(0, 5, 7, 0)
    place_x = builder.placement([rows, p, b], [(0, 1, 0), (0, 0, 1), (0, 0, 0)], [[0], [0], [1]], full(rows), full(p), ext=[b])
    place_y = builder.placement([rows, b], [(0, 1, 0), (0, 0, 0)], [[0], [1]], full(rows), one(p - 1), ext=[b])
    kind = "f32" if fmt is Element.F32 else "f16"
    bindings = [bound("x", "input", kind, (rows, p, b), (i, x, place_x)), bound("y", "output", kind, (rows, b), (i, y, place_y))]
    return program_of(s.build(), builder, bindings, b + 6 * (p - 1), machine=machine)


def local_product(h: int, w: int, mt: int, k: int, nt: int) -> Program:
    """y = x @ W with x cut along rows and W along columns: one FMAC burst, then a rounding to f16."""
    s = SegmentBuilder("product")
    r = s.region(w, h)
    x = s.object(r, BASE, Element.F16, [mt, k], ObjectKind.INPUT)
    at = BASE + mt * k + (-mt * k) % 8
    b = s.object(r, at, Element.F16, [k, nt], ObjectKind.WEIGHT)
    at += k * nt + (-k * nt) % 8 + 4
    c = s.object(r, at, Element.F32, [mt, nt], ObjectKind.ACTIVATION)
    at += 2 * mt * nt + (-2 * mt * nt) % 8
    y = s.object(r, at, Element.F16, [mt, nt], ObjectKind.OUTPUT)
    role: dict[str, Any] = {"rows": full(h), "cols": full(w)}
    zero_span, beats = mt * nt, 2 * mt * k * ((nt + 1) // 2)
    z = s.burst(r, Op.MOV, Fmt.F32, 0, zero_span, d=mem(c, nt, 1), a=imm(0), ext=(mt, nt), **role)
    f = s.burst(
        r, Op.FMAC, Fmt.F16_F32, zero_span, beats, d=mem(c, nt, 0, 1), a=mem(b, 0, nt, 1), s=mem(x, k, 1, 0), ext=(mt, k, nt), after=[z],
        **role,
    )  # fmt: skip
    end = zero_span + beats
    s.burst(r, Op.CVT, Fmt.F32_F16, end, mt * nt, d=mem(y, nt, 1), a=mem(c, nt, 1), ext=(mt, nt), after=[f], **role)
    builder = ProgramBuilder()
    i = builder.instance(0, 0, 0, 0)
    px = builder.placement([h * mt, k], [(0, mt, 0), (0, 0, 0)], [[1, 0], [0, 1]], full(h), full(w), ext=[mt, k])
    pw = builder.placement([k, w * nt], [(0, 0, 0), (0, 0, nt)], [[1, 0], [0, 1]], full(h), full(w), ext=[k, nt])
    py = builder.placement([h * mt, w * nt], [(0, mt, 0), (0, 0, nt)], [[1, 0], [0, 1]], full(h), full(w), ext=[mt, nt])
    builder.bind_placed(i, b, 0, pw)
    weight = np.random.default_rng(1).normal(size=(k, w * nt)).astype(np.float16)
    bindings = [bound("x", "input", "f16", (h * mt, k), (i, x, px)), bound("y", "output", "f16", (h * mt, w * nt), (i, y, py))]
    return program_of(s.build(), builder, bindings, end + mt * nt, {image_key(0): weight})


def ring_ranks(p: int) -> np.ndarray:
    """Rank of each core of a line in the folded ring 0, 2, 4, .. 5, 3, 1."""
    order = [*range(0, p, 2), *reversed(range(1, p, 2))]
    ranks = np.zeros(p, np.int64)
    ranks[order] = np.arange(p)
    return ranks


def ring_routes(s: SegmentBuilder, r: int, p: int, across: int, colours: Sequence[int], along_x: bool) -> list[tuple[Range, int, int]]:
    """Routes of a folded ring along one axis: every core sends to its successor. Returns (cores, send colour, receive colour)."""
    ahead, back = (Port.E, Port.W) if along_x else (Port.S, Port.N)

    def entry(core: int, colour: int, rx: Port, tx: Port) -> None:
        line = (full(across), one(core)) if along_x else (one(core), full(across))
        s.route(r, colours[colour], *line, rx, [tx])

    send = [(c // 2 % 3) if c % 2 == 0 else (c // 2 + 1) % 3 for c in range(p)]
    if p % 2:
        send[p - 1] = ((p - 1) // 2 + 1) % 3
    receive = [0] * p
    for core in range(p):
        colour = send[core]
        last = core == p - 1 or (core == p - 2 and core % 2 == 0)
        if core == 1:
            target, step = 0, -1
        elif core % 2 == 0:
            target = (core + 1 if core == p - 2 else core - 1) if last else core + 2
            step = 1 if target > core else -1
        else:
            target, step = core - 2, -1
        out, into = (ahead, back) if step > 0 else (back, ahead)
        entry(core, colour, Port.RAMP, out)
        if abs(target - core) == 2:
            entry(core + step, colour, into, out)
        entry(target, colour, into, Port.RAMP)
        receive[target] = colour
    groups: dict[tuple[int, int, int], list[int]] = {}
    for core in range(p):
        groups.setdefault((send[core], receive[core], core % 2), []).append(core)
    out: list[tuple[Range, int, int]] = []
    for (to, by, _), cores in groups.items():
        regular = all(b - a == cores[1] - cores[0] for a, b in pairwise(cores))
        for part in [cores] if regular else [[c] for c in cores]:
            step = part[1] - part[0] if len(part) > 1 else 1
            out.append(((part[0], part[-1] + 1, step), colours[to], colours[by]))
    return out


def mesh_product(p: int, mt: int, kt: int, nt: int) -> Program:
    """MeshGEMM of section 7.2 on p x p cores: y = x @ W with both operands moving on folded rings, C staying, double buffers."""
    s = SegmentBuilder("mesh")
    r = s.region(p, p)
    sizes = (mt * kt, kt * nt)
    a = s.object(r, BASE, Element.F16, [2, mt, kt], ObjectKind.INPUT)
    at = BASE + 2 * sizes[0] + (-2 * sizes[0]) % 8
    b = s.object(r, at, Element.F16, [2, kt, nt], ObjectKind.INPUT)
    at += 2 * sizes[1] + (-2 * sizes[1]) % 8 + 4
    c = s.object(r, at, Element.F32, [mt, nt], ObjectKind.OUTPUT)
    waves = [n // 2 for n in sizes]
    beats = 2 * mt * kt * ((nt + 1) // 2)
    moves = sum(2 * (n // 2) for n in waves)
    period = next(t for t in range(9, 1 << 20) if beats * (t - 8) + moves * t <= t * (t - 8) and t - 8 >= max(waves))
    zero = mt * nt
    loop = s.loop(p, period, zero)
    everywhere: dict[str, Any] = {"rows": full(p), "cols": full(p)}
    z = s.burst(r, Op.MOV, Fmt.F32, 0, zero, d=mem(c, nt, 1), a=imm(0), ext=(mt, nt), **everywhere)
    receives: list[int] = []
    for obj, size, along_x, colours, qout, qin in ((a, sizes[0], True, (0, 1, 2), 2, 4), (b, sizes[1], False, (3, 4, 5), 3, 5)):
        for cores, send, receive in ring_routes(s, r, p, p, colours, along_x):
            line = {"rows": full(p), "cols": cores} if along_x else {"rows": cores, "cols": full(p)}
            into = s.burst(
                r, Op.MOV, Fmt.F16, zero + 8, period - 8, d=mem(obj, 1, addr=size, step=-size, wrap=2), a=FABRIC, ext=(size,), loop=loop,
                trigger=Trigger.HOLD, cin=receive, qin=qin, q=2, **line,
            )  # fmt: skip
            s.burst(
                r, Op.MOV, Fmt.F16, zero, period - 8, d=FABRIC, a=mem(obj, 1, step=size, wrap=2), ext=(size,), loop=loop,
                after=[(z, 0), (into, 1)], cout=send, qout=qout, q=2, **line,
            )  # fmt: skip
            receives.append(into)
    s.burst(
        r, Op.FMAC, Fmt.F16_F32, zero, period, d=mem(c, nt, 0, 1), a=mem(b, 0, nt, 1, step=sizes[1], wrap=2),
        s=mem(a, kt, 1, 0, step=sizes[0], wrap=2), ext=(mt, kt, nt), loop=loop, after=[(z, 0)], **everywhere,
    )  # fmt: skip
    builder = ProgramBuilder()
    i = builder.instance(0, 0, 0, 0)
    ranks = ring_ranks(p)
    # the tile of step 0: sending to the successor lets the index fall by one a step
    k0 = (ranks[:, None] + ranks[None, :]) % p
    ia, ib = np.full((p, p, 4), -1, np.int32), np.full((p, p, 4), -1, np.int32)
    y, x = np.mgrid[:p, :p]
    for index, first, second in ((ia, y * mt, k0 * kt), (ib, k0 * kt, x * nt)):
        index[..., :2], index[..., 2], index[..., 3] = 0, first, second
    images = {image_key(0): ia, image_key(1): ib}
    pa = builder.placement([p * mt, p * kt], [], [[1 << 20, 1, 0], [0, 0, 1]], full(p), full(p), index=0)
    pb = builder.placement([p * kt, p * nt], [], [[1 << 20, 1, 0], [0, 0, 1]], full(p), full(p), index=1)
    py = builder.placement([p * mt, p * nt], [(0, mt, 0), (0, 0, nt)], [[1, 0], [0, 1]], full(p), full(p), ext=[mt, nt])
    bindings = [
        bound("x", "input", "f16", (p * mt, p * kt), (i, a, pa)),
        bound("w", "input", "f16", (p * kt, p * nt), (i, b, pb)),
        bound("y", "output", "f32", (p * mt, p * nt), (i, c, py)),
    ]
    return program_of(s.build(), builder, bindings, zero + p * period, images)


def star(p: int, b: int) -> Program:
    """Every core of a line sends to core p-1 in turn, nearest first; a router passes what comes from further away once its own core has
    sent (F6a). Bursts: one send for all, one SWITCH for all, the receives in order."""
    s = SegmentBuilder("star")
    r = s.region(p, 1)
    x = s.object(r, BASE, Element.F32, [b], ObjectKind.INPUT)
    y = s.object(r, BASE + 2 * b + (-2 * b) % 8 + 4, Element.F32, [b], ObjectKind.OUTPUT)
    s.route(r, 0, one(0), (0, p - 1, 1), Port.RAMP, [Port.E])
    if p > 2:
        s.route(r, 0, one(0), (1, p - 1, 1), Port.W, [Port.E], position=1)
    s.route(r, 0, one(0), one(p - 1), Port.W, [Port.RAMP])
    # the send of distance h leaves at (h-1)*(b-1): its last wavelet is one hop ahead of the next one
    starts = [max(0, (p - 2 - c) * (b - 1)) for c in range(p - 1)] + [0]
    sends = s.burst(
        r, Op.MOV, Fmt.F32, 0, b, vx=s.vector(starts), rows=one(0), cols=(0, p - 1, 1), d=FABRIC, a=mem(x, 1), ext=(b,), cout=0, qout=2,
        q=1, trigger=Trigger.HOLD,
    )  # fmt: skip
    if p > 2:
        s.burst(r, Op.SWITCH, Fmt.F16, b, 1, vx=s.vector(starts), rows=one(0), cols=(1, p - 1, 1), after=[sends], cout=0)
    before: tuple[int, ...] = ()
    for k in range(p - 1):
        first = s.burst(
            r, Op.ADD, Fmt.F32, k * b + 6, b, rows=one(0), cols=one(p - 1), d=mem(y, 1), a=FABRIC, b=mem(y if k else x, 1), ext=(b,),
            trigger=Trigger.ARRIVE, cin=0, qin=2, q=1, after=before,
        )  # fmt: skip
        before = (first,)
    builder = ProgramBuilder()
    i = builder.instance(0, 0, 0, 0)
    place_x = builder.placement([p, b], [(0, 0, 1), (0, 0, 0)], [[0], [1]], full(1), full(p), ext=[b])
    place_y = builder.placement([b], [(0, 0, 0)], [[1]], full(1), one(p - 1), ext=[b])
    bindings = [bound("x", "input", "f32", (p, b), (i, x, place_x)), bound("y", "output", "f32", (b,), (i, y, place_y))]
    return program_of(s.build(), builder, bindings, b * (p - 1) + 6)
