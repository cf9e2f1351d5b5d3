"""Values from one rectangle to the next: the last column sends along every row, all columns of the neighbour listen.

A transfer is a small segment with two regions side by side that live only while it runs. Values that move are whole along X, so each
core of a row needs the same block; rows move at the same time, one wavelet a cycle.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ...machines.program import Segment
from ...machines.wafer import timing
from ...machines.wafer.builder import FABRIC, SegmentBuilder, full, mem, one
from ...machines.wafer.description import WaferMachine
from ...machines.wafer.isa import Element, Op, find
from ...machines.wafer.tables import NONE, ObjectKind, Port, Trigger
from .lines import PLAIN
from .wires import Ints

_COLOUR = 6


@dataclass(frozen=True)
class Carried:
    """One value: its format, object extents, rows that hold it, and its words in the source and the target rectangle."""

    fmt: Element
    ext: tuple[int, ...]
    rows: int
    source_word: int
    target_word: int

    @property
    def size(self) -> int:
        total = 1
        for n in self.ext:
            total *= n
        return total


@dataclass(frozen=True)
class Transfer:
    """The segment, its cycles, and the object ids of every value in the source and in the target region."""

    segment: Segment
    cycles: int
    sources: tuple[int, ...]
    targets: tuple[int, ...]


def build_transfer(
    machine: WaferMachine, name: str, rows: int, source_cols: int, target_cols: int, values: Sequence[Carried], late: Ints | None = None
) -> Transfer:
    """Values one after another from a rectangle to its eastern neighbour of the same rows; `late` is what defects add on its cores."""
    b = SegmentBuilder(name)
    west, east = b.region(source_cols, rows), b.region(target_cols, rows, x=source_cols)
    colour = machine.colours[_COLOUR]
    lines = full(rows)
    b.route(NONE, colour, lines, one(source_cols - 1), Port.RAMP, [Port.E])
    if target_cols > 1:
        b.route(NONE, colour, lines, (source_cols, source_cols + target_cols - 1, 1), Port.W, [Port.E, Port.RAMP])
    b.route(NONE, colour, lines, one(source_cols + target_cols - 1), Port.W, [Port.RAMP])
    now = 0
    heard: list[int] = []
    sources, targets = [], []
    queues: dict[str, Any] = {"q": 1, **({"mt": 0} if machine.microthreads else {})}
    for value in values:
        size = value.size
        a = b.object(west, value.source_word, value.fmt, value.ext, ObjectKind.INPUT)
        d = b.object(east, value.target_word, value.fmt, value.ext, ObjectKind.ACTIVATION)
        sources.append(a)
        targets.append(d)
        row = find(Op.MOV, PLAIN[value.fmt])
        n = timing.wavelets_of(size, value.fmt)
        ext = (1, 1, 1, size)
        out = timing.beats(machine, row, ext, None, timing.Vector(value.source_word, value.fmt, (0, 0, 0, 1)), None, None, False, n, 1)
        into = timing.beats(machine, row, ext, timing.Vector(value.target_word, value.fmt, (0, 0, 0, 1)), None, None, None, False, n, 1)
        span = max(out, into, n)
        lag = timing.arrival_lag(
            timing.Stream(n, out, span), timing.Stream(n, into, span), machine.ramp_cycles, machine.cost.wavelet_cycles
        )
        held = full(value.rows)
        b.burst(
            west, Op.MOV, PLAIN[value.fmt], now, span, rows=held, cols=one(source_cols - 1), d=FABRIC, a=mem(a, 1), ext=(size,),
            trigger=Trigger.HOLD if heard else Trigger.AFTER, after=(), cout=colour, qout=min(machine.output_queues), **queues,
        )  # fmt: skip
        times: dict[str, Any] = {"tx": 1} if target_cols > 1 else {}
        worst = 0
        if late is not None and late[: value.rows].any():
            behind = late + np.arange(target_cols)
            behind[value.rows :] = 0
            times, worst = {"dense": b.vector(behind.reshape(-1))}, int(late[: value.rows, -1].max())
        heard.append(b.burst(
            east, Op.MOV, PLAIN[value.fmt], now + lag + 1, span, rows=held, cols=full(target_cols), d=mem(d, 1), a=FABRIC, ext=(size,),
            trigger=Trigger.ARRIVE, after=(), cin=colour, qin=min(machine.input_queues), **times, **queues,
        ))  # fmt: skip
        b.regions[west]["last"] = now + span
        now = now + lag + target_cols + worst + span
    b.regions[east]["last"] = now
    return Transfer(b.build(), now, tuple(sources), tuple(targets))
