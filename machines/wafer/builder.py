"""Builders that write wafer tables row by row: what an emitter, a test or a parser of the listing uses.

Nothing here decides anything: a builder numbers rows, fills canonical defaults (an operand's stride is 0 where the extent is 1), and
orders them as W05 demands.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ..program import Segment, Table
from .isa import Element, Fmt, Op
from .tables import (
    BINDS,
    BURSTS,
    INSTANCES,
    LOOPS,
    NONE,
    OBJECTS,
    OPERANDS,
    PLACEMENTS,
    POOL,
    REGIONS,
    ROUTES,
    STREAMS,
    BindKind,
    ObjectKind,
    OperandKind,
    Port,
    Trigger,
)

Range = tuple[int, int, int]
Row = dict[str, Any]


@dataclass(frozen=True)
class Operand:
    """One operand of a burst; see `tables` for the meaning of the fields. Strides may be given for the innermost extents only."""

    kind: OperandKind = OperandKind.NONE
    obj: int = NONE
    addr: int = 0
    stride: tuple[int, ...] = ()
    step: tuple[int, int] = (0, 0)
    wrap: tuple[int, int] = (0, 0)
    py: int = 0
    px: int = 0
    pvy: int = NONE
    pvx: int = NONE
    value: float = 0.0


NO_OPERAND = Operand()
FABRIC = Operand(OperandKind.FABRIC)


def mem(
    obj: int,
    *stride: int,
    addr: int = 0,
    step: int | tuple[int, int] = 0,
    wrap: int | tuple[int, int] = 0,
    py: int = 0,
    px: int = 0,
    pvy: int = NONE,
    pvx: int = NONE,
) -> Operand:
    """A memory operand: object id, strides in elements of the innermost extents (outer first), word offset, and per-repetition steps."""
    steps = step if isinstance(step, tuple) else (step, 0)
    wraps = wrap if isinstance(wrap, tuple) else (wrap, 0)
    return Operand(OperandKind.MEM, obj, addr, stride, steps, wraps, py, px, pvy, pvx)


def imm(value: float) -> Operand:
    """An immediate operand."""
    return Operand(OperandKind.IMM, value=value)


def full(n: int) -> Range:
    """The progression 0, 1, .. n-1 of a role."""
    return (0, n, 1)


def one(i: int) -> Range:
    """The progression of the single index i."""
    return (i, i + 1, 1)


def mask(*ports: Port) -> int:
    """tx mask of these ports."""
    return sum(1 << port for port in ports)


@dataclass
class SegmentBuilder:
    """Collects the rows of one segment. Every method that adds something numbered returns its id."""

    name: str
    regions: list[Row] = field(default_factory=list)
    objects: list[Row] = field(default_factory=list)
    routes: list[Row] = field(default_factory=list)
    loops: list[Row] = field(default_factory=list)
    vectors: list[tuple[int, ...]] = field(default_factory=list)
    bursts: list[Row] = field(default_factory=list)

    def region(self, w: int, h: int, *, x: int = 0, y: int = 0, first: int = 0, last: int = 0, prov: int = NONE) -> int:
        """A rectangle of w columns and h rows, alive over the cycles [first, last); `build` sets a `last` of 0 to the end of its bursts."""
        self.regions.append({"id": len(self.regions), "x": x, "y": y, "w": w, "h": h, "first": first, "last": last, "prov": prov})
        return len(self.regions) - 1

    def object(
        self, region: int, word: int, fmt: Element, ext: Sequence[int], kind: ObjectKind, *, stride: Sequence[int] = (), prov: int = NONE
    ) -> int:
        """A block of memory; without `stride` its elements are dense, the last extent fastest."""
        shape = (1,) * (4 - len(ext)) + tuple(ext)
        if stride:
            strides = [0] * (4 - len(stride)) + list(stride)
        else:
            strides = [int(np.prod(shape[d + 1 :], dtype=np.int64)) for d in range(4)]
        strides = [s if n > 1 else 0 for s, n in zip(strides, shape, strict=True)]
        row = {"id": len(self.objects), "region": region, "word": word, "fmt": int(fmt), "ext": shape, "stride": strides, "kind": int(kind)}
        self.objects.append({**row, "prov": prov})
        return len(self.objects) - 1

    def route(
        self, region: int, colour: int, rows: Range, cols: Range, rx: Port, tx: int | Sequence[Port], *, position: int = 0, since: int = 0
    ) -> None:
        """One entry for a progression of routers; `tx` is a mask or a list of ports."""
        bits = tx if isinstance(tx, int) else mask(*tx)
        place = {"region": region, "colour": colour, "position": position, "rows": canonical(rows), "cols": canonical(cols)}
        self.routes.append({**place, "rx": int(rx), "tx": bits, "since": since})

    def loop(self, rep: int, period: int, first: int, *, parent: int = NONE) -> int:
        """A loop; its bursts are given with the cycles of repetition 0."""
        self.loops.append({"id": len(self.loops), "parent": parent, "rep": rep, "period": period if rep > 1 else 0, "first": first})
        return len(self.loops) - 1

    def vector(self, values: Sequence[int] | np.ndarray) -> int:
        """A pool vector; equal vectors share one number."""
        key = tuple(np.asarray(values).tolist())
        if key in self.vectors:
            return self.vectors.index(key)
        self.vectors.append(key)
        return len(self.vectors) - 1

    def retime(self, burst: int, t0: int, **rest: int) -> None:
        """Give a burst other cycles; `rest` may hold ty, tx, vy, vx and dense."""
        row = self.bursts[burst]
        for name in ("ty", "tx", "vy", "vx", "dense"):
            row.pop(name, None)
        t0 += self._fold(row["rows"], rest, "ty", "vy") + self._fold(row["cols"], rest, "tx", "vx")
        row.update({"t0": t0, **rest})

    def copy(self) -> SegmentBuilder:
        """An independent copy of everything that can still change."""
        tables = (self.regions, self.objects, self.routes, self.loops, self.bursts)
        regions, objects, routes, loops, bursts = ([dict(row) for row in rows] for rows in tables)
        return SegmentBuilder(self.name, regions, objects, routes, loops, list(self.vectors), bursts)

    def burst(
        self,
        region: int,
        op: Op,
        fmt: Fmt,
        t0: int,
        span: int,
        *,
        rows: Range,
        cols: Range,
        d: Operand = NO_OPERAND,
        a: Operand = NO_OPERAND,
        b: Operand = NO_OPERAND,
        s: Operand = NO_OPERAND,
        ext: Sequence[int] = (1,),
        trigger: Trigger = Trigger.AFTER,
        after: Sequence[int | tuple[int, int]] = (),
        loop: int = NONE,
        **rest: Any,
    ) -> int:
        """One burst; `after` holds ids or (id, lag) pairs; `rest` are further columns (ty, tx, vy, vx, dense, cin, qin, cout, qout, q,
        mt, control, look, prov). Returns the burst's id."""
        extents = (1,) * (4 - len(ext)) + tuple(ext)
        rows, cols = canonical(rows), canonical(cols)
        t0 += self._fold(rows, rest, "ty", "vy") + self._fold(cols, rest, "tx", "vx")
        pairs = [item if isinstance(item, tuple) else (item, 0) for item in after]
        row: Row = {
            "id": len(self.bursts), "region": region, "op": int(op), "fmt": int(fmt), "t0": t0, "span": span, "rows": rows, "cols": cols,
            "ext": extents, "trigger": int(trigger), "loop": loop, **rest,
            "after": [p[0] for p in pairs] + [NONE] * (4 - len(pairs)), "lag": [p[1] for p in pairs] + [0] * (4 - len(pairs)),
        }  # fmt: skip
        for name, operand in zip(OPERANDS, (d, a, b, s), strict=True):
            row |= operand_columns(name, operand, extents)
            if operand.kind is OperandKind.IMM:
                row["imm"] = operand.value
        self.bursts.append(row)
        return len(self.bursts) - 1

    def _fold(self, role: Range, rest: dict[str, Any], slope: str, vector: str) -> int:
        """Cycles of a role of one row (column), taken out of its slope and vector as W05 wants it."""
        if len(range(*role)) > 1:
            return 0
        number = rest.pop(vector, NONE)
        return int(rest.pop(slope, 0)) * role[0] + (self.vectors[number][role[0]] if number != NONE else 0)

    def end_of(self, burst: int) -> int:
        """End of a burst on its latest core, in its last repetition."""
        row = self.bursts[burst]
        rows, cols = list(range(*row["rows"])), list(range(*row["cols"]))
        late = [max(row.get(slope, 0) * i + (self.vectors[row[vector]][i] if row.get(vector, NONE) != NONE else 0) for i in role)
                for role, slope, vector in ((rows, "ty", "vy"), (cols, "tx", "vx"))]  # fmt: skip
        dense = 0
        if row.get("dense", NONE) != NONE:
            w = self.regions[row["region"]]["w"]
            dense = int(np.reshape(self.vectors[row["dense"]], (-1, w))[slice(*row["rows"]), slice(*row["cols"])].max())
        end: int = int(row["t0"]) + sum(late) + dense + int(row["span"])
        loop = row["loop"]
        while loop != NONE:
            end += int((self.loops[loop]["rep"] - 1) * self.loops[loop]["period"])
            loop = self.loops[loop]["parent"]
        return end

    def build(self) -> Segment:
        """The segment with rows in canonical order."""
        self._keep_used_vectors()
        for region in self.regions:
            if region["last"] == 0:
                ends = [self.end_of(i) for i, row in enumerate(self.bursts) if row["region"] == region["id"]]
                region["last"] = max([region["first"], *ends])
        numbers = [np.full(len(values), v) for v, values in enumerate(self.vectors)]
        pool = {"vector": np.concatenate(numbers), "value": np.concatenate(self.vectors)} if numbers else {}
        bursts = sorted(self.bursts, key=lambda row: (row["region"], row["t0"], row["id"]))
        tables: dict[str, Table] = {
            "regions": REGIONS.from_rows(self.regions),
            "objects": OBJECTS.from_rows(self.objects),
            "routes": ROUTES.from_rows(self.routes),
            "loops": LOOPS.from_rows(self.loops),
            "pool": POOL.from_columns(sum(map(len, numbers)), **pool),
            "bursts": BURSTS.from_rows(bursts),
        }
        return Segment(self.name, tables)

    def _keep_used_vectors(self) -> None:
        """Drop pool vectors that folding left without use, and renumber."""
        names = ("vy", "vx", "dense", *(f"{p}_{v}" for p in OPERANDS for v in ("pvy", "pvx")))
        used = sorted({row[name] for row in self.bursts for name in names if row.get(name, NONE) != NONE})
        self._clear_idle(names)
        number = {old: new for new, old in enumerate(used)}
        for row in self.bursts:
            row.update({name: number[row[name]] for name in names if row.get(name, NONE) != NONE})
        self.vectors = [self.vectors[old] for old in used]

    def _clear_idle(self, names: Sequence[str]) -> None:
        """Set values that no role reaches to 0."""
        reached = {number: np.zeros(len(values), bool) for number, values in enumerate(self.vectors)}
        for row in self.bursts:
            rows, cols = slice(*row["rows"]), slice(*row["cols"])
            for name in names:
                number = row.get(name, NONE)
                if number == NONE:
                    continue
                if name == "dense":
                    reached[number].reshape(-1, self.regions[row["region"]]["w"])[rows, cols] = True
                else:
                    reached[number][rows if name.endswith("y") else cols] = True
        for number, values in enumerate(self.vectors):
            if not reached[number].all():
                self.vectors[number] = tuple(np.where(reached[number], values, 0).tolist())


def canonical(role: Range) -> Range:
    """The shortest form of a progression: the stop just after the last member, step 1 for a single one."""
    count = len(range(*role))
    return (role[0], role[0] + (count - 1) * role[2] + 1, role[2] if count > 1 else 1) if count else role


def operand_columns(name: str, operand: Operand, extents: Sequence[int]) -> Row:
    """The columns of operand `name` (d, a, b or s), with strides zeroed where the extent is 1."""
    stride = (0,) * (4 - len(operand.stride)) + operand.stride
    return {
        f"{name}_kind": int(operand.kind), f"{name}_obj": operand.obj, f"{name}_addr": operand.addr,
        f"{name}_stride": [s if n > 1 else 0 for s, n in zip(stride, extents, strict=True)],
        f"{name}_step": operand.step, f"{name}_wrap": operand.wrap, f"{name}_py": operand.py, f"{name}_px": operand.px,
        f"{name}_pvy": operand.pvy, f"{name}_pvx": operand.pvx,
    }  # fmt: skip


@dataclass
class ProgramBuilder:
    """Collects instances, binds and placements, the program-level tables."""

    instances: list[Row] = field(default_factory=list)
    binds: list[Row] = field(default_factory=list)
    placements: list[Row] = field(default_factory=list)
    streams: list[Row] = field(default_factory=list)

    def stream(self, binding: int, start: int, span: int) -> None:
        """Let binding number `binding` cross the host link over [start, start + span) instead of before or after the program."""
        self.streams.append({"binding": binding, "start": start, "span": span})

    def instance(self, segment: int, x: int, y: int, start: int) -> int:
        """Place segment number `segment`; returns the instance's row."""
        self.instances.append({"segment": segment, "x": x, "y": y, "start": start})
        return len(self.instances) - 1

    def bind_placed(self, instance: int, obj: int, image: int, placement: int, *, word: int = NONE) -> None:
        """Fill an object from a dense array through a placement."""
        row = {"instance": instance, "object": obj, "kind": int(BindKind.PLACED), "image": image, "placement": placement, "word": word}
        self.binds.append(row)

    def bind_object(self, instance: int, obj: int, source: int, source_object: int, *, word: int = NONE) -> None:
        """Let an object be the same words as an object of an earlier instance."""
        row = {"instance": instance, "object": obj, "kind": int(BindKind.OBJECT), "source": source, "source_object": source_object}
        self.binds.append({**row, "word": word})

    def relocate(self, instance: int, obj: int, word: int) -> None:
        """Only move an object to another word address."""
        self.binds.append({"instance": instance, "object": obj, "kind": int(BindKind.OBJECT), "word": word})

    def placement(
        self,
        view: Sequence[int],
        origin: Sequence[tuple[int, int, int]],
        coef: Sequence[Sequence[int]],
        rows: Range,
        cols: Range,
        *,
        index: int = NONE,
        ext: Sequence[int] = (),
    ) -> int:
        """A placement of a tensor viewed as `view`; lists for fewer than 4 dimensions (extents) belong to the last ones. Equal ones share
        an id. `ext` are the extents of its objects: along those of 1 there are no steps."""
        lead = 4 - len(view)
        rows, cols = canonical(rows), canonical(cols)
        table = np.zeros((4, 4), np.int32)
        if len(range(*rows)) == 1:
            origin = [(constant + y * rows[0], 0, x) for constant, y, x in origin]
        if len(range(*cols)) == 1:
            origin = [(constant + x * cols[0], y, 0) for constant, y, x in origin]
        for d, steps in enumerate(coef):
            table[lead + d, 4 - len(steps) :] = steps
        table[:, [e for e, n in enumerate(ext, 4 - len(ext)) if n == 1]] = 0
        row: Row = {
            "id": len(self.placements), "view": (1,) * lead + tuple(view), "origin": [(0, 0, 0)] * (4 - len(origin)) + list(origin),
            "coef": table.tolist(), "rows": rows, "cols": cols, "index": index,
        }  # fmt: skip
        for known in self.placements:
            if {**known, "id": 0} == {**row, "id": 0}:
                return int(known["id"])
        self.placements.append(row)
        return len(self.placements) - 1

    def tables(self) -> Mapping[str, Table]:
        """The program-level tables in canonical order."""
        binds = sorted(self.binds, key=lambda row: (row["instance"], row["object"]))
        return {
            "instances": INSTANCES.from_rows(self.instances),
            "binds": BINDS.from_rows(binds),
            "placements": PLACEMENTS.from_rows(self.placements),
            "streams": STREAMS.from_rows(sorted(self.streams, key=lambda row: (row["binding"], row["start"]))),
        }
