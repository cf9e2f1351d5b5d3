"""Typed views of a wafer segment's tables, as the other parts of the executor read them.

Nothing is judged here: `fields` has checked every column before a view is trusted. Cores of a segment are numbered row-major in its
*frame*, the bounding box of its regions; times are relative to the instance's start.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...machines.program import Segment
from ...machines.wafer import tables as tb
from ...machines.wafer.description import WaferMachine
from ...machines.wafer.isa import WORDS, Element, OpRow, Semantics, find
from ...machines.wafer.timing import Stream, Vector, beats, wavelets_of

Ints = NDArray[np.int64]


@dataclass(frozen=True)
class RegionView:
    """One rectangle; `x`, `y` are relative to the frame's corner."""

    id: int
    x: int
    y: int
    w: int
    h: int
    first: int
    last: int
    prov: int


@dataclass(frozen=True)
class ObjectView:
    """One memory object; `size` is its number of elements."""

    id: int
    region: int
    word: int
    fmt: Element
    ext: tuple[int, ...]
    stride: tuple[int, ...]
    kind: tb.ObjectKind
    prov: int

    @cached_property
    def size(self) -> int:
        """Elements from the first to the last that the extents reach."""
        return 1 + sum((n - 1) * s for n, s in zip(self.ext, self.stride, strict=True))

    @property
    def words(self) -> int:
        """Words of one core."""
        return self.size * WORDS[self.fmt]


@dataclass(frozen=True)
class LoopView:
    """One loop; `outer` are repetitions and period of its parent (1, 0 without one)."""

    id: int
    parent: int
    rep: int
    period: int
    first: int


NO_LOOP = LoopView(-1, -1, 1, 0, 0)


@dataclass(frozen=True)
class OperandView:
    """One operand of a burst."""

    kind: tb.OperandKind
    obj: int
    addr: int
    stride: tuple[int, ...]
    step: tuple[int, ...]
    wrap: tuple[int, ...]
    py: int
    px: int
    pvy: int
    pvx: int


@dataclass(frozen=True)
class Separable:
    """An integer per core of a role, `base + u[row] + v[column] (+ dense)`: cheap to bound, an array only where it must be."""

    base: int
    u: Ints
    v: Ints
    dense: Ints | None = None

    @cached_property
    def array(self) -> Ints:
        """int64 [rows, columns] of the role."""
        out = (self.base + self.u)[:, None] + self.v[None, :]
        return out if self.dense is None else out + self.dense

    @cached_property
    def low(self) -> int:
        """Smallest value."""
        return int(self.array.min()) if self.dense is not None else self.base + int(self.u.min()) + int(self.v.min())

    @cached_property
    def high(self) -> int:
        """Greatest value."""
        return int(self.array.max()) if self.dense is not None else self.base + int(self.u.max()) + int(self.v.max())

    @property
    def values(self) -> Ints:
        """All values, ascending."""
        if self.uniform:
            return np.array([self.low])
        if self.dense is not None:
            return np.unique(self.array)
        u, v = (side[:1] if (side == side[0]).all() else np.unique(side) for side in (self.u, self.v))
        return self.base + (u + v if 1 in (len(u), len(v)) else np.unique(u[:, None] + v[None, :]))

    @cached_property
    def uniform(self) -> bool:
        """Whether all cores have the same value."""
        return self.low == self.high

    def shift(self, cycles: int) -> Separable:
        """The same plus a constant."""
        return Separable(self.base + cycles, self.u, self.v, self.dense) if cycles else self


@dataclass
class BurstView:
    """One row of the burst table with what follows from it: role, operation row, times, beats, wavelets."""

    row: int
    id: int
    loop: LoopView
    outer: LoopView
    region: RegionView
    rows: range
    cols: range
    op: OpRow
    trigger: tb.Trigger
    after: tuple[tuple[int, int], ...]
    span: int
    d: OperandView
    a: OperandView
    b: OperandView
    s: OperandView
    imm: float
    ext: tuple[int, int, int, int]
    cin: int
    qin: int
    cout: int
    qout: int
    q: int
    mt: int
    control: bool
    look: tuple[int, ...]
    prov: int
    time: Separable
    core_ids: Ints
    """int64 [rows, columns]: numbers of the role's cores in the frame."""
    fin: Element | None = None
    fout: Element | None = None
    m: int = 1
    n_in: int = 0
    n_out: int = 0

    @property
    def count(self) -> int:
        """Elements of the whole nest."""
        e = self.ext
        return e[0] * e[1] * e[2] * e[3]

    @property
    def cores(self) -> int:
        """Cores of the role."""
        return len(self.rows) * len(self.cols)

    @cached_property
    def read_names(self) -> tuple[str, ...]:
        """Memory operands that it reads; an accumulator and the target of a masked move are read as well as written."""
        names = [p for p in "abs" if self.operand(p).kind is tb.OperandKind.MEM]
        masked = self.op.meaning is Semantics.SELECT and self.s.kind is tb.OperandKind.NONE
        return (*names, "d") if self.op.meaning is Semantics.MULTIPLY_ADD or masked else tuple(names)

    @cached_property
    def write_names(self) -> tuple[str, ...]:
        """Memory operands that it writes."""
        return ("d",) if self.d.kind is tb.OperandKind.MEM else ()

    @property
    def repetitions(self) -> int:
        """How often it runs: own loop times parent."""
        return self.loop.rep * self.outer.rep

    @property
    def scalar_stream(self) -> bool:
        """Whether its fabric source is the scalar (`sfab`)."""
        return self.s.kind is tb.OperandKind.FABRIC

    @property
    def fabric(self) -> bool:
        """Whether it has a fabric operand."""
        return self.n_in > 0 or self.n_out > 0

    @property
    def stream_in(self) -> Stream:
        """Consumption of its fabric source."""
        return Stream(self.n_in, self.m, self.span)

    @property
    def stream_out(self) -> Stream:
        """Production of its fabric destination; a control wavelet is one more."""
        return Stream(self.n_out, self.m, self.span)

    @property
    def name(self) -> str:
        """For messages."""
        return f"burst {self.id} ({self.op.op.name} {self.op.fmt.name})"

    def operand(self, name: str) -> OperandView:
        """Operand d, a, b or s."""
        return getattr(self, name)  # type: ignore[no-any-return]

    def shift_of(self, k: int, outer: int) -> int:
        """Cycles from repetition (0, 0) to repetition (k, outer)."""
        return k * self.loop.period + outer * self.outer.period


def progression(triple: list[int]) -> range:
    """The range of a (start, stop, step) column."""
    return range(triple[0], triple[1], triple[2])


@dataclass
class SegmentView:
    """All tables of a segment as views, and its frame: `origin` (x, y) relative to the instance and size `w`, `h`."""

    name: str
    machine: WaferMachine
    regions: dict[int, RegionView]
    objects: dict[int, ObjectView]
    loops: dict[int, LoopView]
    bursts: list[BurstView]
    routes: Mapping[str, Any]
    vectors: dict[int, Ints]
    origin: tuple[int, int]
    w: int
    h: int
    by_id: dict[int, BurstView] = field(default_factory=dict)

    _grids: dict[tuple[int, range, range], tuple[Ints, Ints, Ints]] = field(default_factory=dict)
    _beats: dict[tuple[Any, ...], int] = field(default_factory=dict)
    ranges: dict[tuple[int, str], tuple[int, int]] = field(default_factory=dict)
    """First and last element that operands touch, by burst and name, as far as they have been asked for."""

    def grid(self, region: RegionView, rows: range, cols: range) -> tuple[Ints, Ints, Ints]:
        """Rows, columns and core numbers [rows, columns] of a role; the same arrays for equal roles."""
        key = region.id, rows, cols
        if key not in self._grids:
            y, x = np.array(rows, np.int64), np.array(cols, np.int64)
            self._grids[key] = y, x, (region.y + y)[:, None] * self.w + (region.x + x)[None, :]
        return self._grids[key]

    @cached_property
    def shapes(self) -> dict[int, tuple[int, int, int]]:
        """[rows, columns, elements] of every object."""
        return {o.id: (self.regions[o.region].h, self.regions[o.region].w, o.size) for o in self.objects.values()}

    @cached_property
    def written(self) -> frozenset[int]:
        """Objects that some burst writes."""
        return frozenset(b.d.obj for b in self.bursts if b.d.kind is tb.OperandKind.MEM)


def read_vectors(segment: Segment) -> dict[int, Ints]:
    """Pool vectors by number."""
    pool = segment.tables["pool"]
    numbers, values = pool["vector"], pool["value"].astype(np.int64)
    starts = np.flatnonzero(np.r_[True, numbers[1:] != numbers[:-1]]) if len(numbers) else np.zeros(0, int)
    ends = np.r_[starts[1:], len(numbers)] if len(numbers) else starts
    return {int(numbers[a]): values[a:z] for a, z in zip(starts, ends, strict=True)}


def _table_rows(table: Mapping[str, np.ndarray]) -> list[dict[str, Any]]:
    columns = {name: array.tolist() for name, array in table.items()}
    count = len(next(iter(columns.values())))
    return [{name: values[i] for name, values in columns.items()} for i in range(count)]


def frame_of(segment: Segment) -> tuple[int, int, int, int]:
    """Bounding box (x, y, w, h) of the segment's regions, relative to the instance."""
    r = segment.tables["regions"]
    if not len(r["id"]):
        return 0, 0, 1, 1
    x, y = int(r["x"].min()), int(r["y"].min())
    return x, y, int((r["x"] + r["w"]).max()) - x, int((r["y"] + r["h"]).max()) - y


def view_segment(segment: Segment, machine: WaferMachine) -> SegmentView:
    """Views of a segment whose fields are in range."""
    fx, fy, fw, fh = frame_of(segment)
    regions = {
        r["id"]: RegionView(r["id"], r["x"] - fx, r["y"] - fy, r["w"], r["h"], r["first"], r["last"], r["prov"])
        for r in _table_rows(segment.tables["regions"])
    }
    objects = {
        o["id"]: ObjectView(
            o["id"], o["region"], o["word"], Element(o["fmt"]), tuple(o["ext"]), tuple(o["stride"]), tb.ObjectKind(o["kind"]), o["prov"]
        )
        for o in _table_rows(segment.tables["objects"])
    }
    loops = {r["id"]: LoopView(r["id"], r["parent"], r["rep"], r["period"], r["first"]) for r in _table_rows(segment.tables["loops"])}
    vectors = read_vectors(segment)
    out = SegmentView(segment.name, machine, regions, objects, loops, [], segment.tables["routes"], vectors, (fx, fy), fw, fh)
    for index, row in enumerate(_table_rows(segment.tables["bursts"])):
        out.bursts.append(_view_burst(index, row, out))
    out.by_id = {burst.id: burst for burst in out.bursts}
    return out


def _view_burst(index: int, row: dict[str, Any], seg: SegmentView) -> BurstView:
    region = seg.regions[row["region"]]
    loop = seg.loops.get(row["loop"], NO_LOOP)
    outer = seg.loops.get(loop.parent, NO_LOOP)
    rows, cols = progression(row["rows"]), progression(row["cols"])
    y, x, core_ids = seg.grid(region, rows, cols)
    u, v = row["ty"] * y, row["tx"] * x
    if row["vy"] != tb.NONE:
        u = u + seg.vectors[row["vy"]][y]
    if row["vx"] != tb.NONE:
        v = v + seg.vectors[row["vx"]][x]
    dense = None
    if row["dense"] != tb.NONE:
        dense = seg.vectors[row["dense"]].reshape(region.h, region.w)[np.ix_(y, x)]
    d, a, b, s = (_view_operand(row, p) for p in tb.OPERANDS)
    after = tuple((i, lag) for i, lag in zip(row["after"], row["lag"], strict=True) if i != tb.NONE)
    burst = BurstView(
        row=index, id=row["id"], loop=loop, outer=outer, region=region, rows=rows, cols=cols, op=find(row["op"], row["fmt"]),
        trigger=tb.Trigger(row["trigger"]), after=after, span=row["span"], d=d, a=a, b=b, s=s, imm=row["imm"], ext=tuple(row["ext"]),
        cin=row["cin"], qin=row["qin"], cout=row["cout"], qout=row["qout"], q=row["q"], mt=row["mt"], control=bool(row["control"]),
        look=tuple(row["look"]), prov=row["prov"], time=Separable(row["t0"], u, v, dense),
        core_ids=core_ids,
    )  # fmt: skip
    _derive(burst, seg)
    return burst


def _view_operand(row: dict[str, Any], p: str) -> OperandView:
    return OperandView(
        tb.OperandKind(row[f"{p}_kind"]), row[f"{p}_obj"], row[f"{p}_addr"], tuple(row[f"{p}_stride"]), tuple(row[f"{p}_step"]),
        tuple(row[f"{p}_wrap"]), row[f"{p}_py"], row[f"{p}_px"], row[f"{p}_pvy"], row[f"{p}_pvx"],
    )  # fmt: skip


def _derive(burst: BurstView, seg: SegmentView) -> None:
    """Fabric formats, wavelets and beats of a burst (C5 to C9, F12)."""
    op = burst.op
    fabric = tb.OperandKind.FABRIC
    for operand, fmt in ((burst.a, op.a), (burst.b, op.b), (burst.s, op.s)):
        if operand.kind is fabric and fmt is not None:
            burst.fin = fmt
    if burst.d.kind is fabric:
        burst.fout = op.d
    vector_in = fabric in (burst.a.kind, burst.b.kind)
    if burst.fin is not None:
        streamed = burst.count // burst.ext[3] if not vector_in else burst.count
        burst.n_in = wavelets_of(streamed, burst.fin)
    if burst.fout is not None:
        burst.n_out = wavelets_of(burst.count, burst.fout)
    vectors = {name: memory_vector(burst.operand(name), seg) for name in ("d", "a", "b")}
    scalar = burst.s.stride if burst.s.kind is tb.OperandKind.MEM else None
    wavelets, q = max(burst.n_in if vector_in else 0, burst.n_out), max(burst.q, 1)
    key = (op.op, op.fmt, burst.ext, *vectors.values(), scalar, burst.scalar_stream, wavelets, q)
    if key not in seg._beats:
        seg._beats[key] = beats(
            seg.machine, op, burst.ext, **vectors, s_stride=scalar, s_fabric=burst.scalar_stream,
            wavelets=wavelets, q=q,
        )  # fmt: skip
    burst.m = seg._beats[key]


def memory_vector(operand: OperandView, seg: SegmentView) -> Vector | None:
    """What the beat count needs of a memory operand; None for other kinds."""
    if operand.kind is not tb.OperandKind.MEM:
        return None
    target = seg.objects[operand.obj]
    words = WORDS[target.fmt]
    moves = operand.step[0] * words % 8 != 0 or operand.step[1] * words % 8 != 0
    # only the bank counts (C6)
    return Vector((target.word + operand.addr) % 8, target.fmt, operand.stride, moves)
