"""Traffic on the lines of a rectangle: the chain reduction to one end and the broadcast back (section 7.1 of the machine page).

Three colours a mesh axis serve every collective of a program, with routes that never change: two that alternate from core to core
carry the chain towards index 0, the third is a multicast away from it. A chain adds (or takes the maximum of) what arrives and what
the core holds and sends it on in one fused burst, so its partial sums travel in the format they are computed in. An all-gather is the
same program: every core lays its block into zeros and the zeros are added, which is exact.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from enum import IntEnum
from typing import Any

import numpy as np

from ...machines.wafer import timing
from ...machines.wafer.builder import FABRIC, NO_OPERAND, Operand, Range, SegmentBuilder, full, mem, one
from ...machines.wafer.description import WaferMachine
from ...machines.wafer.isa import PER_WAVELET, WORDS, Element, Fmt, Op, find
from ...machines.wafer.tables import Port, Trigger
from .emitter import Emitter, Line, Role
from .layout import Ref, Splits, X, Y
from .wires import Ints, Wires

PLAIN = {Element.F16: Fmt.F16, Element.F32: Fmt.F32, Element.I16: Fmt.I16, Element.I32: Fmt.I32}
_COLOURS = {X: (0, 1, 2), Y: (3, 4, 5)}
_TOWARDS = {X: Port.W, Y: Port.N}
_AWAY = {X: Port.E, Y: Port.S}


def _cells(m: int, along: Range, across: Range) -> tuple[Range, Range]:
    """(rows, cols) of a set of cores given along and across mesh axis `m`."""
    return (along, across) if m == Y else (across, along)


def lay_routes(e: Emitter) -> None:
    """The routes of both axes, for the whole life of the rectangle."""
    for m, size, other in ((Y, e.rows, e.cols), (X, e.cols, e.rows)):
        if size == 1:
            continue
        colours = [e.machine.colours[c] for c in _COLOURS[m]]
        across = full(other)
        for parity in (0, 1):
            senders = (parity if parity else 2, size, 2)  # index 0 receives only
            receivers = (1 - parity, size - 1, 2)
            if senders[0] < size:
                e.builder.route(e.region, colours[parity], *_cells(m, _canonical(senders), across), Port.RAMP, [_TOWARDS[m]])
            if receivers[0] < size - 1:
                e.builder.route(e.region, colours[parity], *_cells(m, _canonical(receivers), across), _AWAY[m], [Port.RAMP])
        e.builder.route(e.region, colours[2], *_cells(m, one(0), across), Port.RAMP, [_AWAY[m]])
        if size > 2:
            e.builder.route(e.region, colours[2], *_cells(m, (1, size - 1, 1), across), _TOWARDS[m], [_AWAY[m], Port.RAMP])
        e.builder.route(e.region, colours[2], *_cells(m, one(size - 1), across), _TOWARDS[m], [Port.RAMP])


class Leg(IntEnum):
    """The bursts of a collective: a chain to index 0 (send, pass on, take) and a multicast back (spread, hear)."""

    SEND = 0
    PASS = 1
    TAKE = 2
    SPREAD = 3
    HEAR = 4


@dataclass(frozen=True)
class Start:
    """When a burst of a collective begins: cycle `t0` at index 0 and `slope` more an index, on the cores `along` a line; `extra` is what
    defects add on each core, [rows, cols]."""

    leg: Leg
    along: Range
    t0: int
    slope: int = 0
    extra: Ints | None = None


def reduce_line(e: Emitter, m: int, members: int, across: int, buffer: Ref, size: int, op: Op = Op.ADD) -> None:
    """`buffer` (dense, `size` elements) on the first `members` cores of every line along `m` becomes their sum (or `op`) on *all* cores
    of those lines. `across` is the number of lines that take part; the clock moves on."""
    fmt = PLAIN[buffer.fmt]
    length = e.rows if m == Y else e.cols
    if length == 1:
        return
    n = timing.wavelets_of(size, buffer.fmt)
    block = mem(buffer.obj, 1, addr=buffer.base * WORDS[buffer.fmt])
    none = NO_OPERAND
    shapes = [(Op.MOV, none, block, none), (op, none, none, block), (op, block, none, block), (Op.MOV, block, none, none)]
    beats = [e.beats(find(o, fmt), [size], d, a, b, none, n) for o, d, a, b in shapes]
    line = Line(
        m, members, length, full(across), size, n, max(n, *beats), fmt, (beats[0], beats[1], beats[2], beats[3]), len(e.builder.bursts)
    )
    _emit(e, line, block, op)


def reduce_splits(e: Emitter, splits: Splits, axes: Collection[int], buffer: Ref, size: int, op: Op = Op.ADD) -> None:
    """`buffer` on the cores of `splits` is combined along every mesh axis that cuts one of `axes`; all cores of those lines get it."""
    taken = [m for m in (Y, X) if (split := splits[m]) is not None and split.axis in axes]
    for m in taken:
        split, other = splits[m], splits[1 - m]
        assert split is not None
        spread = m == X and Y in taken  # the sums along Y are in all rows by now
        across = other.count if other is not None and not spread else (e.cols if m == Y else e.rows)
        reduce_line(e, m, split.count, across, buffer, size, op)


def _lag(machine: WaferMachine, line: Line, sender: int, receiver: int) -> int:
    """Cycles from a sender's first beat to the first beat of a core one hop away (indices into `line.beats`)."""
    out = timing.Stream(line.n, line.beats[sender], line.span)
    into = timing.Stream(line.n, line.beats[receiver], line.span)
    return timing.arrival_lag(out, into, machine.ramp_cycles, machine.cost.wavelet_cycles) + 1


def _canonical(along: Range) -> Range:
    """The shortest form of a progression."""
    count = len(range(*along))
    return (along[0], along[0] + (count - 1) * along[2] + 1, along[2] if count > 1 else 1)


def line_starts(machine: WaferMachine, line: Line, now: int, wires: Wires | None) -> tuple[list[Start], int]:
    """When the bursts of a collective begin that starts at `now`, in their order, and when the last of them ends on its last core."""
    starts: list[Start] = []
    root, late = now, None
    if line.members > 1:
        starts, root, late = _chain_starts(machine, line, now, wires)
    starts.append(Start(Leg.SPREAD, one(0), root, extra=late))
    arrive = root + _lag(machine, line, 0, 3) - 1
    behind = None if wires is None else wires.away[line.m] + (0 if late is None else late)
    starts.append(Start(Leg.HEAR, _canonical((1, line.length, 1)), arrive, 1, behind))
    worst = 0 if behind is None else int((behind[-1] if line.m == Y else behind[:, -1])[slice(*line.across)].max())
    return starts, arrive + line.length - 1 + line.span + worst


def _chain_starts(machine: WaferMachine, line: Line, now: int, wires: Wires | None) -> tuple[list[Start], int, Ints | None]:
    """The bursts of a chain; when the root has the result, and what defects add to that on each line."""
    last = line.members - 1
    starts = [Start(Leg.SEND, one(last), now)]
    extra = late = None
    if wires is not None:
        towards = wires.towards[line.m]
        late = np.broadcast_to(towards[last : last + 1] if line.m == Y else towards[:, last : last + 1], towards.shape)
        extra = late - towards
    root = now + _lag(machine, line, 0, 2)
    if last > 1:
        hop = _lag(machine, line, 1, 1)
        t0 = now + _lag(machine, line, 0, 1) + (last - 1) * hop
        root = t0 - hop + _lag(machine, line, 1, 2)
        evens = [Start(Leg.PASS, _canonical((2, last, 2)), t0, -hop, extra)] if last > 2 else []
        starts += [Start(Leg.PASS, _canonical((1, last, 2)), t0, -hop, extra), *evens]
    starts.append(Start(Leg.TAKE, one(0), root, extra=late))
    return starts, root + line.span, late


def times_of(builder: SegmentBuilder, region: int, line: Line, start: Start) -> dict[str, int]:
    """Columns t0, ty, tx, vy, vx and dense of a burst of a collective."""
    rows, cols = (slice(*r) for r in _cells(line.m, start.along, line.across))
    first, single = start.along[0], start.along[1] - start.along[0] == 1
    if start.extra is None or not start.extra[rows, cols].any():
        slope = {"ty" if line.m == Y else "tx": start.slope} if start.slope and not single else {}
        return {"t0": start.t0 + (start.slope * first if single else 0), **slope}
    h, w = builder.regions[region]["h"], builder.regions[region]["w"]
    times = np.zeros((h, w), np.int64)
    index = np.arange(h)[:, None] if line.m == Y else np.arange(w)[None, :]
    times[rows, cols] = (start.extra + start.slope * index)[rows, cols]
    if not single:
        return {"t0": start.t0, "dense": builder.vector(times.reshape(-1))}
    name, vector = ("vx", times[first]) if line.m == Y else ("vy", times[:, first])
    return {"t0": start.t0, name: builder.vector(vector)}


def _emit(e: Emitter, line: Line, block: Operand, op: Op) -> None:
    """The bursts of a collective. Index members-1 sends, the cores between add and pass on, index 0 adds and keeps the sum, and sends it
    to all cores of its line."""
    none = NO_OPERAND
    operands = {
        Leg.SEND: (Op.MOV, FABRIC, block, none), Leg.PASS: (op, FABRIC, FABRIC, block), Leg.TAKE: (op, block, FABRIC, block),
        Leg.SPREAD: (Op.MOV, FABRIC, block, none), Leg.HEAR: (Op.MOV, block, FABRIC, none),
    }  # fmt: skip
    starts, end = line_starts(e.machine, line, e.now, None)
    for start in starts:
        rows, cols = _cells(line.m, start.along, line.across)
        # the whole chain waits for what came before it
        waits = (1, line.members - 1, 1) if start.leg is Leg.PASS else start.along
        trigger, after = e.reason(Role(*_cells(line.m, waits, line.across)))
        if start.leg in (Leg.PASS, Leg.TAKE, Leg.HEAR):
            trigger = Trigger.ARRIVE
        if start.leg is Leg.SPREAD and line.members > 1:
            trigger, after = Trigger.AFTER, (len(e.builder.bursts) - 1,)
        if start.leg is Leg.HEAR:
            after = ()
        what, d, a, b = operands[start.leg]
        rest: dict[str, Any] = times_of(e.builder, e.region, line, start) | _queues(e, line, start)
        e.builder.burst(
            e.region, what, line.fmt, span=line.span, rows=rows, cols=cols, d=d, a=a, b=b, ext=(line.size,), trigger=trigger,
            after=after, q=1, prov=e.prov, **rest,
        )  # fmt: skip
    e.lines.append(line)
    e.now, e.last = end, None


def _queues(e: Emitter, line: Line, start: Start) -> dict[str, int]:
    """Colours and queues of a burst. A core of the chain sends by the colour of its parity and hears the other."""
    chain, spread = _COLOURS[line.m][:2], _COLOURS[line.m][2]
    parity = start.along[0] % 2
    cin = {Leg.PASS: chain[1 - parity], Leg.TAKE: chain[1], Leg.HEAR: spread}.get(start.leg)
    cout = {Leg.SEND: chain[parity], Leg.PASS: chain[parity], Leg.SPREAD: spread}.get(start.leg)
    found = {"mt": 0} if e.machine.microthreads else {}
    if cin is not None:
        found |= {"cin": e.machine.colours[cin], "qin": e.qin}
    if cout is not None:
        found |= {"cout": e.machine.colours[cout], "qout": e.qout}
    return found


def retimed(e: Emitter, name: str, wires: Wires | None) -> tuple[SegmentBuilder, int]:
    """The rectangle's bursts for these wires, and the cycle at which the last of them ends. Every local burst starts when the one before
    it has ended everywhere."""
    builder, now, burst = e.builder.copy(), 0, 0
    builder.name = name
    collectives = {line.first: line for line in e.lines}
    while burst < len(builder.bursts):
        line = collectives.get(burst)
        if line is None:
            builder.retime(burst, now)
            now += builder.bursts[burst]["span"]
            burst += 1
            continue
        starts, now = line_starts(e.machine, line, now, wires)
        for start in starts:
            builder.retime(burst, **times_of(builder, e.region, line, start))
            burst += 1
    builder.regions[e.region]["last"] = now
    return builder, now


def line_cycles(size: int, fmt: Element, members: int, length: int) -> int:
    """Cycles of `reduce_line` in the ideal model, for choosing layouts."""
    n = -(-size // PER_WAVELET[fmt])
    chain = n + (members - 1) * 6 if members > 1 else 0
    return chain + (n + length + 4 if length > 1 else 0)
