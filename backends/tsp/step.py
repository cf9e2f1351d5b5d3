"""One step of a schedule: bursts and claims with relative times, and the resources they hold.

A step (one operator, or a part of one) is built with times of its own and placed as a whole: `Timeline.place` shifts it to the
earliest cycle at which every resource it needs is free. Resources are queues, memory slices, plane arrays and stream sections; each is
held from the first to the last use in the step. Streams are held on diagonals (MT-3), per direction and section (West, vector unit, East),
so that steps overlap wherever they do not touch. Steps that touch the same slice keep their order, which gives every read-after-write,
write-after-read and write-after-write order for memory.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ...machines.program import Segment
from ...machines.tsp.builder import Out
from ...machines.tsp.description import TspMachine
from ...machines.tsp.geometry import Geometry
from ...machines.tsp.isa import Opcode
from ...machines.tsp.tables import BURSTS, CLAIMS, OBJECTS, canonical, slice_mask
from .memory import Seq, hemisphere
from .runs import Run, runs

Array = np.ndarray


@dataclass
class Step:
    """Bursts (columns), their claims and the span of every resource; times may be negative until placed."""

    machine: TspMachine
    geometry: Geometry
    label: str = ""
    bursts: list[dict[str, int]] = field(default_factory=list)
    outs: list[list[Out]] = field(default_factory=list)
    objects: list[Any] = field(default_factory=list)
    spans: dict[tuple[Any, ...], list[int]] = field(default_factory=dict)

    def hold(self, key: tuple[Any, ...], low: int, high: int) -> None:
        """Resource `key` is in use from `low` to `high` (cycles, or diagonals for streams)."""
        span = self.spans.get(key)
        if span is None:
            self.spans[key] = [low, high]
        else:
            span[0] = min(span[0], low)
            span[1] = max(span[1], high)

    def burst(self, run: Run, outs: Sequence[Out] = (), storage: Any = None, **columns: int) -> None:
        """A burst with the times of `run` (column 0). Claims are held by the caller."""
        columns |= {"t0": run.base[0], "n": run.n, "i": max(run.step[0], 1), "n2": run.n2, "i2": run.step2[0]}
        if run.n == 1 and run.n2 > 1:
            columns |= {"n": run.n2, "i": run.step2[0], "n2": 1, "i2": 0}
        self.bursts.append(columns)
        self.outs.append(list(outs))
        self.objects.append(storage)
        last = run.base[0] + (run.n - 1) * run.step[0] + (run.n2 - 1) * run.step2[0]
        self.hold(("unit", columns["unit"]), run.base[0], last)

    def hold_stream(self, stream: int, direction: int, x: int, until: int, first: int, last: int) -> None:
        """The claim of a stream driven at stop x in cycles first..last, needed until pos `until`."""
        sigma = 2 * direction - 1
        end = sigma * ((until + 7) // 16)
        d0, d1 = first - sigma * x, last - sigma * x
        sections = {_section(x), _section(end)} | ({1} if x * end < 0 else set())
        for section in sections:
            self.hold(("stream", direction, stream, section), d0, d1)

    # MEM -----------------------------------------------------------------------------------------------------------------
    def read(self, seq: Seq, plane: int, tau: Array, x: int, direction: int, stream: int, until: int) -> None:
        """Byte plane `plane` of `seq` on one stream, element k at stop x in cycle tau[k]."""
        sigma = 2 * direction - 1
        for storage, unit, index in _by_slice(seq, plane):
            side, number = hemisphere(unit), unit % 44
            drive = self.geometry.mem_drive_x(side, number, direction)
            lead = sigma * (x - drive) + self.machine.mem_read
            rows = storage.offsets[plane] + seq.vector[index] // storage.stripes
            for run in runs((tau[index] - lead, rows)):
                self.burst(
                    run, [Out(stream, direction, until)], storage, unit=unit, opcode=Opcode.READ,
                    row=run.base[1], **_strides(run, 1, "stride", "stride2"),
                )  # fmt: skip
                last = int(tau[index[run.first + run.size - 1]])
                self.hold_stream(stream, direction, drive, until, run.base[0] + self.machine.mem_read, last - lead + self.machine.mem_read)

    def write(self, seq: Seq, plane: int, tau: Array, x: int, direction: int, stream: int) -> Array:
        """Byte plane `plane` into the rows of `seq`, element k driven at stop x in cycle tau[k]; returns pos of the take per element."""
        sigma = 2 * direction - 1
        until = np.empty(len(tau), dtype=np.int64)
        for storage, unit, index in _by_slice(seq, plane):
            side, number = hemisphere(unit), unit % 44
            take = self.geometry.mem_take_x(side, number, direction)
            lag = sigma * (take - x)
            until[index] = self.geometry.mem_take(side, number, direction)
            rows = storage.offsets[plane] + seq.vector[index] // storage.stripes
            for run in runs((tau[index] + lag, rows)):
                self.burst(
                    run, (), storage, unit=unit, opcode=Opcode.WRITE, a_stream=stream, a_dir=direction,
                    row=run.base[1], **_strides(run, 1, "stride", "stride2"),
                )  # fmt: skip
        return until


def _section(x: int) -> int:
    return 0 if x < -2 else 2 if x > 2 else 1


def _strides(run: Run, column: int, inner: str, outer: str) -> dict[str, int]:
    if run.n == 1 and run.n2 > 1:
        return {inner: run.step2[column], outer: 0}
    return {inner: run.step[column], outer: run.step2[column] if run.n2 > 1 else 0}


def _by_slice(seq: Seq, plane: int) -> list[tuple[Any, int, Array]]:
    """(storage, slice, element numbers) of every slice that holds a part of the sequence."""
    parts = []
    for number in np.unique(seq.which).tolist():
        storage = seq.storages[number]
        index = np.flatnonzero(seq.which == number)
        if storage.stripes == 1:
            parts.append((storage, storage.planes[plane][0], index))
            continue
        stripe = seq.vector[index] % storage.stripes
        parts += [(storage, storage.planes[plane][j], index[stripe == j]) for j in np.unique(stripe).tolist()]
    return parts


def _root(storage: Any) -> Any:
    """The storage that a part of one belongs to."""
    while storage.parent is not None:
        storage = storage.parent
    return storage


@dataclass
class Timeline:
    """When every resource of one chip is free again, and the bursts placed so far."""

    name: str
    free: dict[tuple[Any, ...], int] = field(default_factory=dict)
    first: dict[tuple[Any, ...], int] = field(default_factory=dict)
    provenance: dict[str, int] = field(default_factory=dict)
    end: int = 0
    objects: list[Any] = field(default_factory=list)
    bursts: list[dict[str, int]] = field(default_factory=list)
    outs: list[list[Out]] = field(default_factory=list)

    def place(self, step: Step, earliest: int = 0) -> int:
        """Emit the step at its earliest legal cycle; returns the shift that was added to its times."""
        shift = earliest - min(burst["t0"] for burst in step.bursts)
        for key, (low, _) in step.spans.items():
            if key in self.free:
                shift = max(shift, self.free[key] - low)
        for columns, storage in zip(step.bursts, step.objects, strict=True):
            if storage is not None:  # its rows are another's until then, in all of its slices
                shift = max(shift, _root(storage).after + 1 - columns["t0"])
        self.put(step, shift)
        return shift

    def put(self, step: Step, shift: int = 0) -> None:
        """Emit the step at a given cycle."""
        for key, (low, high) in step.spans.items():
            self.first.setdefault(key, low + shift)
            self.free[key] = high + shift + 1
        label = self.provenance.setdefault(step.label, len(self.provenance))
        for columns, outs, storage in zip(step.bursts, step.outs, step.objects, strict=True):
            columns["t0"] += shift
            columns["provenance"] = label
            last = columns["t0"] + (columns["n"] - 1) * columns["i"] + (columns["n2"] - 1) * columns["i2"]
            if storage is not None:
                columns["object"] = self.number(storage)
                root = _root(storage)
                root.first = min(root.first, columns["t0"])
                root.last = max(root.last, last)
            self.bursts.append(columns)
            self.outs.append(outs)
            self.end = max(self.end, last)

    def number(self, storage: Any) -> int:
        """The object of a storage in this segment, declared at first use."""
        storage = _root(storage)
        if storage.number < 0:
            storage.number = len(self.objects)
            self.objects.append(storage)
        return int(storage.number)

    def segment(self) -> Segment:
        """Everything placed so far, as one segment; objects are in the order of their numbers."""
        return Segment(self.name, {"bursts": self._burst_table(), "claims": self._claim_table(), "objects": self._object_table()})

    def _burst_table(self) -> dict[str, Array]:
        table = {}
        for column in BURSTS.columns:
            default = column.default
            table[column.name] = np.array([burst.get(column.name, default) for burst in self.bursts], dtype=column.dtype)
        return canonical(table)

    def _claim_table(self) -> dict[str, Array]:
        rows: list[tuple[int, int, int, int]] = []
        for number, outs in enumerate(self.outs):
            for out in outs:
                untils = out.until if isinstance(out.until, list) else [out.until] * out.width
                rows += [(number, out.stream + plane, out.direction, until) for plane, until in enumerate(untils)]
        columns = np.array(rows, dtype=np.int64).reshape(-1, 4).T
        names = [column.name for column in CLAIMS.columns]
        return CLAIMS.from_columns(len(rows), **dict(zip(names, columns, strict=True)))

    def _object_table(self) -> dict[str, Array]:
        pairs = [[(unit // 44, unit % 44) for unit in sorted(storage.units)] for storage in self.objects]
        return OBJECTS.from_rows(
            {"rows": storage.rows, "west": slice_mask(own, 0), "east": slice_mask(own, 1)}
            for storage, own in zip(self.objects, pairs, strict=True)
        )
