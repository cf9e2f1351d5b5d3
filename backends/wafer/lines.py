"""Traffic on the lines of a rectangle: the chain reduction to one end and the broadcast back (section 7.1 of the machine page).

Three colours a mesh axis serve every collective of a program, with routes that never change: two that alternate from core to core
carry the chain towards index 0, the third is a multicast away from it. A chain adds (or takes the maximum of) what arrives and what
the core holds and sends it on in one fused burst, so its partial sums travel in the format they are computed in. An all-gather is the
same program: every core lays its block into zeros and the zeros are added, which is exact.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

from ...machines.wafer import timing
from ...machines.wafer.builder import FABRIC, NO_OPERAND, Operand, Range, full, mem, one
from ...machines.wafer.isa import PER_WAVELET, WORDS, Element, Fmt, Op, find
from ...machines.wafer.tables import Port, Trigger
from .emitter import Emitter, Last, Role
from .layout import Ref, Splits, X, Y

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


@dataclass(frozen=True)
class _Line:
    """One collective along mesh axis `m`: members, the lines that take part, elements, wavelets and their common span."""

    m: int
    members: int
    across: Range
    size: int
    n: int
    span: int
    fmt: Fmt
    beats: tuple[int, int, int, int]
    """Beats of a send, of a fused receive and send, of a receive that adds, and of a plain receive."""


def reduce_line(e: Emitter, m: int, members: int, across: int, buffer: Ref, size: int, op: Op = Op.ADD) -> None:
    """`buffer` (dense, `size` elements) on the first `members` cores of every line along `m` becomes their sum (or `op`) on *all* cores
    of those lines. `across` is the number of lines that take part; the clock moves on."""
    fmt = PLAIN[buffer.fmt]
    length = e.rows if m == Y else e.cols
    n = timing.wavelets_of(size, buffer.fmt)
    block = mem(buffer.obj, 1, addr=buffer.base * WORDS[buffer.fmt])
    none = NO_OPERAND
    shapes = [(Op.MOV, none, block, none), (op, none, none, block), (op, block, none, block), (Op.MOV, block, none, none)]
    beats = [e.beats(find(o, fmt), [size], d, a, b, none, n) for o, d, a, b in shapes]
    line = _Line(m, members, full(across), size, n, max(n, *beats), fmt, (beats[0], beats[1], beats[2], beats[3]))
    if members > 1:
        _chain(e, line, block, op)
    if length > 1:
        _broadcast(e, line, block, length)


def reduce_splits(e: Emitter, splits: Splits, axes: Collection[int], buffer: Ref, size: int, op: Op = Op.ADD) -> None:
    """`buffer` on the cores of `splits` is combined along every mesh axis that cuts one of `axes`; all cores of those lines get it."""
    taken = [m for m in (Y, X) if (split := splits[m]) is not None and split.axis in axes]
    for m in taken:
        split, other = splits[m], splits[1 - m]
        assert split is not None
        spread = m == X and Y in taken  # the sums along Y are in all rows by now
        across = other.count if other is not None and not spread else (e.cols if m == Y else e.rows)
        reduce_line(e, m, split.count, across, buffer, size, op)


def _lag(e: Emitter, line: _Line, sender: int, receiver: int) -> int:
    """Cycles from a sender's first beat to the first beat of a core one hop away (indices into `line.beats`)."""
    out = timing.Stream(line.n, line.beats[sender], line.span)
    into = timing.Stream(line.n, line.beats[receiver], line.span)
    return timing.arrival_lag(out, into, e.machine.ramp_cycles, e.machine.cost.wavelet_cycles) + 1


def _canonical(along: Range) -> Range:
    """The shortest form of a progression."""
    count = len(range(*along))
    return (along[0], along[0] + (count - 1) * along[2] + 1, along[2] if count > 1 else 1)


def _burst(
    e: Emitter, line: _Line, along: Range, t0: int, slope: int, op: Op, operands: tuple[Operand, Operand, Operand],
    colours: tuple[int, int], trigger: Trigger, after: tuple[int, ...],
) -> int:  # fmt: skip
    """One burst of a collective; `t0` is the cycle at index 0, `colours` those of its input and output (-1: none)."""
    along = _canonical(along)
    rows, cols = _cells(line.m, along, line.across)
    cin, cout = colours
    rest: dict[str, Any] = {}
    if along[1] - along[0] == 1:
        t0, slope = t0 + slope * along[0], 0
    if slope:
        rest["ty" if line.m == Y else "tx"] = slope
    if cin >= 0:
        rest |= {"cin": e.machine.colours[cin], "qin": e.qin}
    if cout >= 0:
        rest |= {"cout": e.machine.colours[cout], "qout": e.qout}
    if e.machine.microthreads:
        rest["mt"] = 0
    d, a, b = operands
    return e.builder.burst(
        e.region, op, line.fmt, t0, line.span, rows=rows, cols=cols, d=d, a=a, b=b, ext=(line.size,), trigger=trigger, after=after, q=1,
        prov=e.prov, **rest,
    )  # fmt: skip


def _chain(e: Emitter, line: _Line, block: Operand, op: Op) -> None:
    """Index members-1 sends, the cores between add and pass on, index 0 keeps the result."""
    colours = _COLOURS[line.m]
    last = line.members - 1
    trigger, after = e.reason(Role(*_cells(line.m, one(last), line.across)))
    _burst(e, line, one(last), e.now, 0, Op.MOV, (FABRIC, block, NO_OPERAND), (-1, colours[last % 2]), trigger, after)
    root_time = e.now + _lag(e, line, 0, 2)
    if last > 1:
        hop = _lag(e, line, 1, 1)
        t0 = e.now + _lag(e, line, 0, 1) + (last - 1) * hop
        root_time = t0 - hop + _lag(e, line, 1, 2)
        after = e.reason(Role(*_cells(line.m, (1, last, 1), line.across)))[1]
        for parity in (1, 0):
            along = (parity or 2, last, 2)
            if along[0] < last:
                pair = (colours[1 - parity], colours[parity])
                _burst(e, line, along, t0, -hop, op, (FABRIC, FABRIC, block), pair, Trigger.ARRIVE, after)
    after = e.reason(Role(*_cells(line.m, one(0), line.across)))[1]
    root = _burst(e, line, one(0), root_time, 0, op, (block, FABRIC, block), (colours[1], -1), Trigger.ARRIVE, after)
    e.now = root_time + line.span
    e.last = Last(root, Role(*_cells(line.m, one(0), line.across)), e.now)


def _broadcast(e: Emitter, line: _Line, block: Operand, length: int) -> None:
    """Index 0 sends its block to all cores of its line."""
    spread = _COLOURS[line.m][2]
    trigger, after = e.reason(Role(*_cells(line.m, one(0), line.across)))
    _burst(e, line, one(0), e.now, 0, Op.MOV, (FABRIC, block, NO_OPERAND), (-1, spread), trigger, after)
    arrive = e.now + _lag(e, line, 0, 3) - 1
    _burst(e, line, (1, length, 1), arrive, 1, Op.MOV, (block, FABRIC, NO_OPERAND), (spread, -1), Trigger.ARRIVE, ())
    e.now = max(e.now, arrive + length - 1) + line.span
    e.last = None


def line_cycles(size: int, fmt: Element, members: int, length: int) -> int:
    """Cycles of `reduce_line` in the ideal model, for choosing layouts."""
    n = -(-size // PER_WAVELET[fmt])
    chain = n + (members - 1) * 6 if members > 1 else 0
    return chain + (n + length + 4 if length > 1 else 0)
