"""The one machine operation behind every lowering: streams from memory or matrix planes, through a chain of ALUs, into memory.

`Engine.run` takes sources, a chain of operations and sinks, finds a placement on the ALU grid, works out every cycle from the geometry,
emits the bursts as one `Step` and places it on the timeline. A `MatrixJob` beside it feeds matrix planes: passes of stationary tiles
and moving vectors whose results enter the chain `acc + drain + 19` cycles after their activation.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field

import numpy as np

from ...errors import Infeasible, UnsupportedOp
from ...machines.tsp import isa
from ...machines.tsp.builder import Out
from ...machines.tsp.description import TspMachine
from ...machines.tsp.geometry import Geometry
from ...machines.tsp.isa import HALF_BOTH, WIDTH, Class, DType, Opcode
from ...machines.tsp.tables import Kind
from .memory import STRIPES, Allocator, Seq, Storage
from .route import OUTSIDE, Chain, ChainOp, Placement, is_accumulation, levels, place, result_type
from .runs import Run, line, runs
from .step import Step, Timeline

Array = np.ndarray
Avoid = frozenset[int]
Image = Callable[[Array | None, int, int], Array]
Maker = Callable[[Avoid], Seq]
"""Makes a sequence that lies in none of the slices named."""


@dataclass(frozen=True, eq=False)
class Provider:
    """A sequence to read: called with slices to avoid it gives one that lies in none of them, copying where it must.

    `get(avoid, index)` gives the elements `index` only, all of them where that is None.
    """

    get: Callable[[Avoid, Array | None], Seq]
    index: Array | None = None

    def __call__(self, avoid: Avoid) -> Seq:
        return self.get(avoid, self.index)

    def take(self, index: Array) -> Provider:
        """The elements at `index`, in that order."""
        return Provider(self.get, index if self.index is None else self.index[index])


NOWHERE = -(1 << 40)
WIDEST = 24
"""Most slices that one operand may lie in: a wider one leaves no room for the others of its step."""


@dataclass(frozen=True)
class Plane:
    """A chain input that comes from matrix plane `number` of the job (0 or 1)."""

    number: int
    dtype: DType


@dataclass(frozen=True)
class Sink:
    """Where the result of operation `op` goes: `make(avoid)` gives the sequence to write, one vector per result."""

    op: int
    make: Maker


@dataclass(frozen=True)
class Pass:
    """One stationary tile and the moving vectors `start:stop` that meet it.

    `vector` is the tile's first vector in the stationary storages, `rows` its number of vectors (loaded 16 at a time).
    """

    vector: int
    rows: int
    start: int
    stop: int
    entry: int = 0
    add: int = 0
    store: int = 0
    emit: int = 1
    same: bool = False
    """Every 16 rows of the tile are the 16 vectors at `vector`: one vector in all array rows, say."""


@dataclass(frozen=True)
class MatrixJob:
    """Passes on the planes of one hemisphere.

    `stationary[q]` and `moving[q]` are (storages or provider, byte planes) of plane q of the hemisphere: f16 uses two planes with bytes 0
    and 1 as stationary and both bytes moving; i8 uses one or two planes with one byte each. Equal entries are loaded or streamed once.
    """

    side: int
    dtype: DType
    passes: tuple[Pass, ...]
    stationary: tuple[tuple[tuple[Storage, ...], int], ...]
    moving: tuple[tuple[Provider, tuple[int, ...]], ...]


@dataclass
class Engine:
    """Emitter of one segment."""

    machine: TspMachine
    allocator: Allocator
    timeline: Timeline
    geometry: Geometry = field(init=False)
    constants: dict[Hashable, list[tuple[Storage, ...]]] = field(default_factory=dict)
    storages: list[Storage] = field(default_factory=list)
    label: str = ""

    def __post_init__(self) -> None:
        self.geometry = Geometry.of(self.machine)

    # memory --------------------------------------------------------------------------------------------------------------
    def scratch(self, dtype: DType, vectors: int, avoid: Avoid, spare: bool = False, beside: Avoid = frozenset()) -> Seq:
        """Fresh vectors in linear storages of one hemisphere, in slices of `beside` where these have room."""
        made = self.allocator.chunks(dtype, vectors, Kind.SCRATCH, avoid, self.label, spare, beside)
        self.storages += made
        return Seq.chain(made)

    def scratch_striped(self, dtype: DType, vectors: int, avoid: Avoid, tile: int) -> tuple[Storage, ...]:
        """Fresh storages over 16 slices, of whole tiles."""
        made = self.allocator.striped(dtype, vectors, Kind.SCRATCH, avoid, self.label, tile)
        self.storages += made
        return tuple(made)

    def constant(
        self, vectors: int, dtype: DType, avoid: Avoid, key: Hashable, image: Image, source: int | None = None, tile: int = 0
    ) -> tuple[Storage, ...]:
        """Constant storages in none of the slices of `avoid`, shared by equal `key`.

        `image(array, first, last)` gives the vectors `first:last` [vectors, lanes], from the array of node `source` where there is one.
        With `tile` they are striped and cut into whole tiles.
        """
        known = self.constants.setdefault((dtype, source, tile, key), [])
        for storages in known:
            if not any(avoid & storage.units for storage in storages):
                return storages
        if tile:
            made = self.allocator.striped(dtype, vectors, Kind.CONST, avoid, self.label, tile)
        else:
            made = self.allocator.chunks(dtype, vectors, Kind.CONST, avoid, self.label)
        first = 0
        for storage in made:
            storage.image = _part(image, first, first + storage.vectors)
            storage.source = source
            first += storage.vectors
        known.append(tuple(made))
        return known[-1]

    def provide(self, seq: Seq) -> Provider:
        """A provider of an existing sequence: itself, or a copy elsewhere where it lies in slices to avoid or in both hemispheres."""

        def get(avoid: Avoid, index: Array | None) -> Seq:
            part = seq if index is None else seq.take(index)
            units = part.units
            if not avoid & units and len({unit // 44 for unit in units}) == 1 and len(units) <= WIDEST:
                return part
            distinct, place = part.distinct()
            return self.copy(part, avoid) if len(distinct) == len(part) else self.copy(distinct, avoid).take(place)

        return Provider(get)

    def copy(self, seq: Seq, avoid: Avoid = frozenset()) -> Seq:
        """The sequence as fresh linear vectors in none of the slices of `avoid`.

        Where it lies in so many slices that none are left beside them, what lies in the target's slices goes elsewhere first.
        """
        try:
            target = self.scratch(seq.dtype, len(seq), avoid | seq.units)
        except Infeasible:
            target = self.scratch(seq.dtype, len(seq), avoid)
            near = np.array([not target.units.isdisjoint(storage.units) for storage in seq.storages])[seq.which]
            if near.all():
                raise
            away = self.copy(seq.take(np.flatnonzero(near)), target.units)
            order = np.arange(len(seq))
            order[near] = len(seq) + np.arange(len(away))
            seq = Seq.join([seq, away]).take(order)
        self.copy_into(seq, target)
        return target

    def copy_into(self, seq: Seq, target: Seq) -> None:
        """Copy element by element, through one ALU; a sequence in both hemispheres is copied in two steps."""
        home = np.array([next(iter(storage.units)) // 44 for storage in seq.storages])[seq.which]
        for side in (0, 1):
            index = np.flatnonzero(home == side)
            if len(index):
                part, into = seq.take(index), target.take(index)
                identity = ChainOp(Opcode.IDENTITY, seq.dtype, (("in", 0),))
                self.run("copy", [fixed(part)], [identity], [Sink(0, onto(into))], len(index))

    # running -------------------------------------------------------------------------------------------------------------
    def run(
        self, label: str, sources: Sequence[Provider | Plane], ops: Sequence[ChainOp], sinks: Sequence[Sink], count: int,
        group: int = 1, job: MatrixJob | None = None,
    ) -> list[Seq]:  # fmt: skip
        """Emit one step and return what the sinks were given.

        `count` elements flow at one a cycle (or as the job emits them). An accumulating operation takes `group` successive elements into
        one result; operations marked `after` and their sources then see count / group elements. Raises UnsupportedOp where the chain
        does not fit the ALU grid (callers cut chains that may be long).
        """
        taken: Avoid = frozenset()
        moving: list[Seq] = []
        if job is not None:
            taken = frozenset().union(*(storage.units for storages, _ in job.stationary for storage in storages))
            for provider, _ in job.moving:
                known = [seq for seq, (other, _) in zip(moving, job.moving, strict=False) if other is provider]
                moving.append(known[0] if known else provider(taken))
                taken |= moving[-1].units
        feeds: list[Seq | Plane] = []
        for source in sources:
            if isinstance(source, Plane):
                feeds.append(source)
            else:
                seq = source(taken)
                taken |= seq.units
                feeds.append(seq)
        targets = []
        for sink in sinks:
            target = sink.make(taken)
            taken |= target.units
            targets.append(target)
        chain = self._chain(feeds, ops, [(sink.op, target) for sink, target in zip(sinks, targets, strict=True)], job)
        placement = place(chain)
        if placement is None:
            raise UnsupportedOp(f"a chain of {len(ops)} vector operations does not fit the ALU grid ({label})")
        step = Step(self.machine, self.geometry, f"{self.label} {label}")
        tau = np.arange(count, dtype=np.int64)
        if job is not None:
            tau = _Matrix(step, job, moving, feeds, placement, ops).emit()
        _Vector(step, tau, group, feeds, ops, placement, list(zip((s.op for s in sinks), targets, strict=True))).emit()
        self.timeline.place(step)
        return targets

    def fits(self, directions: Sequence[int], ops: Sequence[ChainOp], outputs: Sequence[tuple[int, int]]) -> bool:
        """True where the chain has a placement."""
        return place(Chain(tuple(ops), tuple(directions), tuple(sorted(set(outputs))))) is not None

    def _chain(
        self, feeds: Sequence[Seq | Plane], ops: Sequence[ChainOp], sinks: Sequence[tuple[int, Seq]], job: MatrixJob | None
    ) -> Chain:
        inputs = []
        for feed in feeds:
            side = job.side if isinstance(feed, Plane) and job else next(iter(feed.units)) // 44  # type: ignore[union-attr]
            inputs.append(1 - side)
        outputs = sorted({(op, unit // 44) for op, target in sinks for unit in target.units})
        forbidden: frozenset[tuple[int, int]] = frozenset()
        if job is not None:
            forbidden = frozenset((job.side, g) for g in range(5))
        return Chain(tuple(ops), tuple(inputs), tuple(outputs), forbidden)


def fixed(seq: Seq) -> Provider:
    """A provider of one sequence, whose caller knows that it lies in none of the slices to avoid."""
    return Provider(lambda avoid, index: seq if index is None else seq.take(index))


def onto(seq: Seq) -> Maker:
    """A sink's place that is chosen already."""
    return lambda avoid: seq


def _part(image: Image, first: int, last: int) -> Callable[[Array | None], Array]:
    return lambda array: image(array, first, last)


class _Vector:
    """Emission of the ALU chain, its reads and writes."""

    def __init__(
        self, step: Step, tau: Array, group: int, feeds: Sequence[Seq | Plane], ops: Sequence[ChainOp], placement: Placement,
        sinks: Sequence[tuple[int, Seq]],
    ) -> None:  # fmt: skip
        self.step, self.group, self.feeds, self.ops, self.placement, self.sinks = step, group, feeds, ops, placement, sinks
        self.geometry = step.geometry
        self.alu_cycles = step.machine.alu
        self.level = levels(ops)
        self.before = tau
        self.after = tau[group - 1 :: group]

    def emit(self) -> None:
        """All bursts of the chain."""
        self._reads()
        for number in range(len(self.ops)):
            self._operation(number)

    def _times(self, number: int) -> Array:
        op = self.ops[number]
        return (self.after if op.after else self.before) + self.alu_cycles * self.level[number]

    def _reads(self) -> None:
        readers: dict[int, list[int]] = {}
        for number, op in enumerate(self.ops):
            for kind, k in op.args:
                if kind == "in":
                    readers.setdefault(k, []).append(number)
        for k, numbers in sorted(readers.items()):
            feed = self.feeds[k]
            if isinstance(feed, Plane):
                continue
            direction, lane = self.placement.inputs[k]
            until = max(int(self.geometry.alu_take(self.placement.alus[number], direction)) for number in numbers)
            tau = self._times(numbers[0])
            for plane in range(WIDTH[feed.dtype]):
                self.step.read(feed, plane, tau, int(self.geometry.vxm_x(direction)), direction, 4 * lane + plane, until)

    def _operation(self, number: int) -> None:
        op, alu = self.ops[number], self.placement.alus[number]
        tau = self._times(number)
        width = WIDTH[result_type(op)]
        accumulates = is_accumulation(op)
        results = (tau[self.group - 1 :: self.group] if accumulates else tau) + self.alu_cycles
        drives: list[tuple[int, int, Array]] = []
        for (direction, lane), reader in self.placement.drives[number]:
            drives.append((direction, lane, self._untils(number, direction, lane, reader, width, results)))
        columns = {
            "unit": isa.alu_unit(alu), "opcode": int(op.opcode), "dtype": int(op.dtype), "dtype2": int(op.dtype2), "modular": op.modular,
        }  # fmt: skip
        for name, (direction, lane) in zip("ab", self.placement.operands[number], strict=False):
            columns |= {f"{name}_stream": 4 * lane, f"{name}_dir": direction}
        if accumulates:
            columns |= {"first": 1, "last": 1}
        for index in _classes([until for _, _, until in drives], len(results)):
            outs = [
                Out(4 * lane, direction, [int(until[p, index[0]]) for p in range(width)], width)
                for direction, lane, until in drives
                if until[0, index[0]] > NOWHERE
            ]
            assert outs, "a result that nobody takes"
            if accumulates:
                self._accumulation(tau, index, outs, columns)
            else:
                for run in runs((tau[index],)):
                    self.step.burst(run, outs, **columns)
        for direction, lane, until in drives:
            for plane in range(width):
                self.step.hold_stream(
                    4 * lane + plane, direction, int(self.geometry.vxm_x(direction)), int(until[plane].max()),
                    int(results[0]), int(results[-1]),
                )  # fmt: skip

    def _accumulation(self, tau: Array, index: Array, outs: list[Out], columns: dict[str, int]) -> None:
        """Bursts with n = group; groups at equal distances share one burst."""
        for run in runs((tau.reshape(-1, self.group)[index, 0],)):
            for k2 in range(run.n2):
                first = run.first + k2 * run.n
                members = tau.reshape(-1, self.group)[index[first : first + run.n]]
                inner = runs((members.reshape(-1),))
                if len(inner) == 1 and (inner[0].n == self.group or (inner[0].n2 == 1 and len(members) == 1)):
                    self.step.burst(inner[0], outs, **columns)
                    continue
                if self.group == 1 or len(inner) == 1:  # a line of n x group elements: cut it into its groups
                    interval = int(members[0, 1] - members[0, 0]) if self.group > 1 else 1
                    outer = int(members[1, 0] - members[0, 0])
                    self.step.burst(Run(0, self.group, len(members), (int(members[0, 0]),), (interval,), (outer,)), outs, **columns)
                    continue
                raise UnsupportedOp("an accumulation over elements at unequal distances")

    def _untils(self, number: int, direction: int, lane: int, reader: int, width: int, results: Array) -> Array:
        """pos of the last consumer of every result and byte plane on one lane, NOWHERE for results that go the other way.

        Emits the writes of results that leave.
        """
        until = np.empty((width, len(results)), dtype=np.int64)
        if reader != OUTSIDE:
            until[:] = int(self.geometry.pos(self.geometry.vxm_x(direction), direction, 2 * reader))
            return until
        until[:] = NOWHERE
        for op, target in self.sinks:
            if op == number:
                index = _toward(target, direction)
                if len(index):
                    part = target.take(index)
                    for plane in range(width):
                        took = self.step.write(
                            part, plane, results[index], int(self.geometry.vxm_x(direction)), direction, 4 * lane + plane
                        )
                        until[plane, index] = np.maximum(until[plane, index], took)
        return until


def _toward(target: Seq, direction: int) -> Array:
    home = np.array([next(iter(storage.units)) // 44 for storage in target.storages])
    return np.flatnonzero(home[target.which] == direction)


def _classes(untils: Sequence[Array], count: int) -> list[Array]:
    """Element numbers grouped by equal `until` on every stream."""
    if not untils:
        return [np.arange(count)]
    table = np.concatenate(untils)
    if (table == table[:, :1]).all():
        return [np.arange(count)]
    _, inverse = np.unique(table, axis=1, return_inverse=True)
    inverse = inverse.reshape(-1)
    return [np.flatnonzero(inverse == value) for value in range(int(inverse.max()) + 1)]


class _Matrix:
    """Emission of a matrix job: weight loads, installs, activations, accumulator."""

    ACTIVATION = 16  # first activation stream: the second SG16

    def __init__(
        self, step: Step, job: MatrixJob, moving: Sequence[Seq], feeds: Sequence[Seq | Plane], placement: Placement, ops: Sequence[ChainOp]
    ) -> None:
        self.step, self.job, self.moving = step, job, moving
        self.geometry, self.machine = step.geometry, step.machine
        self.planes = [2 * job.side + q for q in range(len(job.stationary))]
        self.lanes: dict[int, tuple[tuple[int, int], int]] = {}
        for k, feed in enumerate(feeds):
            if isinstance(feed, Plane):
                lane = placement.inputs[k]
                readers = [number for number, op in enumerate(ops) if ("in", k) in op.args]
                until = max(int(self.geometry.alu_take(placement.alus[number], lane[0])) for number in readers)
                self.lanes[feed.number] = (lane, until)
        self.interval = 2 if job.dtype == DType.F16 else 1

    def emit(self) -> Array:
        """All bursts; returns the cycles at which emitted results are at the ALUs, in order."""
        job = self.job
        start: list[int] = []
        loads: list[tuple[int, int, int, int]] = []  # (cycle, first vector, cycles, row stride)
        weights_free = activation_free = 0
        previous: tuple[int, int] | None = None
        shared = all(entry == job.stationary[0] for entry in job.stationary)
        copies = 1 if shared else len(job.stationary)
        for item in job.passes:
            cycles = -(-item.rows // STRIPES)
            if (item.vector, item.rows) != previous:
                loads.append((weights_free, item.vector, cycles, 0 if item.same else 1))
                install = max(weights_free + copies * cycles, activation_free - 1)
                for plane in self.planes:
                    self._w(plane, Opcode.IW, install, 1)
                    self.step.hold(("array", plane), install, install)
                weights_free = install + 1
                activation_free = max(activation_free, install + self.machine.mxm_install)
                previous = (item.vector, item.rows)
            start.append(activation_free)
            activation_free += (item.stop - item.start) * self.interval
        self._loads(loads, shared)
        return self._activations(start)

    def _w(self, plane: int, opcode: Opcode, t: int, n: int, **columns: int) -> None:
        self.step.burst(line(t, n), (), None, unit=isa.mxm_unit(plane, Class.MXM_W), opcode=opcode, **columns)

    def _loads(self, loads: Sequence[tuple[int, int, int, int]], shared: bool) -> None:
        side, take = self.job.side, int(self.geometry.mxm_take(self.job.side))
        x = int(self.geometry.mxm_x(side))
        for q, (storages, byte) in enumerate(self.job.stationary):
            bounds = np.cumsum([0] + [storage.vectors for storage in storages])
            times = [cycle + (0 if shared else q * cycles) for cycle, _, cycles, _ in loads]
            for (_, _, cycles, _), t in zip(loads, times, strict=True):
                self._w(self.planes[q], Opcode.LW, t, cycles, a_stream=0, a_dir=side)
            if shared and q:
                continue
            owner = np.searchsorted(bounds, [first for _, first, _, _ in loads], side="right") - 1
            for number in np.unique(owner).tolist():
                mine = [k for k in range(len(loads)) if owner[k] == number]
                tau = np.concatenate([np.arange(times[k], times[k] + loads[k][2]) for k in mine])
                rows = np.concatenate([(loads[k][1] - bounds[number]) // STRIPES + loads[k][3] * np.arange(loads[k][2]) for k in mine])
                found = runs((tau, rows))
                storage = storages[number]
                for j, unit in enumerate(storage.planes[byte]):
                    self._stripe(storage, unit, storage.offsets[byte], found, x, side, j, take)

    def _stripe(self, storage: Storage, unit: int, offset: int, found: Sequence[Run], x: int, side: int, stream: int, take: int) -> None:
        sigma = 2 * side - 1
        drive = int(self.geometry.mem_drive_x(unit // 44, unit % 44, side))
        lead = sigma * (x - drive) + self.machine.mem_read
        for run in found:
            moved = Run(run.first, run.n, run.n2, (run.base[0] - lead, run.base[1] + offset), run.step, run.step2)
            strides = (
                {"stride": run.step2[1], "stride2": 0} if run.n == 1 and run.n2 > 1
                else {"stride": run.step[1], "stride2": run.step2[1] if run.n2 > 1 else 0}
            )  # fmt: skip
            self.step.burst(
                moved, [Out(stream, side, take)], storage, **{"unit": unit, "opcode": int(Opcode.READ), "row": moved.base[1], **strides}
            )
            last = moved.base[0] + (run.n - 1) * run.step[0] + (run.n2 - 1) * run.step2[0]
            self.step.hold_stream(stream, side, drive, take, moved.base[0] + self.machine.mem_read, last + self.machine.mem_read)

    def _activations(self, start: Sequence[int]) -> Array:
        job, side = self.job, self.job.side
        take, x = int(self.geometry.mxm_take(side)), int(self.geometry.mxm_x(side))
        counts = [item.stop - item.start for item in job.passes]
        tau = np.concatenate([t + self.interval * np.arange(n) for t, n in zip(start, counts, strict=True)])
        index = np.concatenate([np.arange(item.start, item.stop) for item in job.passes])
        streams: dict[tuple[int, tuple[int, ...]], int] = {}
        next_stream = self.ACTIVATION
        for q, (provider, bytes_) in enumerate(job.moving):
            key = (id(provider), bytes_)
            if key not in streams:
                streams[key] = next_stream
                seq = self.moving[q].take(index)
                for plane in bytes_:
                    self.step.read(seq, plane, tau, x, side, next_stream, take)
                    next_stream += 1
            self._plane(q, streams[key], start)
        emitted = [t + self.interval * np.arange(n) for t, n, item in zip(start, counts, job.passes, strict=True) if item.emit]
        arrive = self.machine.emit_latency + abs(int(self.geometry.sxm_x(side))) + abs(int(self.geometry.vxm_x(1)))
        return np.concatenate(emitted) + arrive

    def _plane(self, q: int, stream: int, start: Sequence[int]) -> None:
        job, plane = self.job, self.planes[q]
        (direction, lane), until = self.lanes[q]
        drive = int(self.geometry.sxm_x(job.side))
        for item, t in zip(job.passes, start, strict=True):
            n = item.stop - item.start
            half = HALF_BOTH if job.dtype == DType.F16 else 0
            self.step.burst(
                line(t, n, self.interval), unit=isa.mxm_unit(plane, Class.MXM_A), opcode=Opcode.ABC, a_stream=stream, a_dir=job.side,
                dtype=job.dtype, half=half,
            )  # fmt: skip
            self.step.hold(("array", plane), t, t + self.interval * n)
            accumulate = line(t + self.machine.acc_latency, n, self.interval)
            outs = [Out(4 * lane, direction, until, 4)] if item.emit else []
            self.step.burst(
                accumulate, outs, unit=isa.mxm_unit(plane, Class.MXM_R), opcode=Opcode.ACC, entry=item.entry * bool(item.add or item.store),
                entry_stride=int(n > 1 and bool(item.add or item.store)), add=item.add, store=item.store, emit=item.emit,
            )  # fmt: skip
            if item.emit:
                first = t + self.machine.emit_latency
                last = first + self.interval * (n - 1)
                for p in range(4):
                    self.step.hold_stream(4 * lane + p, direction, drive, until, first, last)
