"""Values from instructions: every step reads its operands, computes, and writes or streams the result (section 6).

An object is one array [h, w, elements] for all cores of its region; a step works on all cores of its role at once. What a burst sends is
kept as a buffer [cores of the role, elements]; receivers copy from it through the resolved flows, so a wrong route gives a wrong number.
Destinations that a nest visits more than once (stride 0) are evaluated visit by visit in the order n3, n2, n1, n0 (N3), vectorised over
everything else.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from ...machines.wafer import tables as tb
from ...machines.wafer.isa import Fmt, Op, Semantics
from . import kernels, lookups
from .addresses import nest, start
from .arithmetic import Values, dtype_of, multiply_add, select
from .deliveries import Deliveries
from .elementwise import bind, elementwise, immediate, keeps, sequential_axes
from .events import Event
from .model import BurstView, Ints, SegmentView
from .order import Step
from .plan import Plan
from .products import contraction, kinds_of, summed_extents
from .storage import Memory, copied, dense, seen_from, seen_once, stored_once, strided

if TYPE_CHECKING:
    from .parts import Stored

MEM, FABRIC, IMM, NO = tb.OperandKind.MEM, tb.OperandKind.FABRIC, tb.OperandKind.IMM, tb.OperandKind.NONE
Key = tuple[int, int, int]


@dataclass(frozen=True)
class Cores:
    """The cores of a step: `take(array)` gives [*shape, elements]; `where` are flat positions in the role (None: all)."""

    index: tuple[Any, ...]
    shape: tuple[int, ...]
    where: Ints | None
    view: bool

    def of(self, values: Ints) -> Ints:
        """Per-core values of a role [rows, columns] at these cores, shaped like them; 0-dimensional ones pass."""
        if values.ndim == 0 or self.where is None:
            return values
        return values.reshape(-1)[self.where].reshape(self.shape)


@dataclass
class Engine:
    """Evaluates the steps of one segment on the objects of one instance. Reused for all instances of the segment."""

    seg: SegmentView
    deliveries: Deliveries
    memory: Memory = field(default_factory=lambda: Memory(None, {}, {}))
    buffers: dict[Key, Values] = field(default_factory=dict)
    uses: dict[Key, int] = field(default_factory=dict)
    exact: bool = False
    places: dict[int, Stored] = field(default_factory=dict)
    """Where the parts of a line go, by `id` of the parts: the same in all runs of a plan in which their indices are."""
    blocked: bool = False
    """Whether a closed form was used in the last run."""
    _cores: dict[tuple[int, bytes], Cores] = field(default_factory=dict)
    _spare: dict[tuple[int, int, np.dtype[Any]], list[Values]] = field(default_factory=dict)
    _flats: dict[tuple[int, int], Ints] = field(default_factory=dict)
    _parts: dict[tuple[Key, int], list[tuple[Key, Ints, Ints]]] = field(default_factory=dict)
    _places: dict[int, Ints] = field(default_factory=dict)
    _starts: dict[tuple[int, str, int, int], Ints] = field(default_factory=dict)
    _arranged: dict[tuple[Any, ...], Values] = field(default_factory=dict)
    _fresh: set[tuple[Any, ...]] = field(default_factory=set)
    """Keys of `_arranged` that hold this run's values."""

    def run(self, plan: Plan, memory: Memory, exact: bool) -> None:
        """Evaluate the actions of a plan on the objects of an instance, in the machine's order if `exact`."""
        self.exact = exact
        self.memory = memory
        self.blocked = False
        self.buffers = {}
        self.uses = dict(plan.uses)
        self._fresh.clear()
        for number, action in enumerate(plan.actions):
            if isinstance(action, Step):
                if number not in plan.bound:
                    plan.bound[number] = bind(self, action)
                bound = plan.bound[number]
                if bound is None or not bound.run(memory):
                    self.step(action)
            else:
                action.evaluate(self)
            for obj in plan.done.get(number, ()):
                memory.release(obj)

    def forget(self) -> None:
        """Drop the memory of streams and operands that no run is using."""
        self.buffers, self._spare, self._arranged = {}, {}, {}

    def arranged(self, step: Step, name: str, form: Hashable, values: Values, shape: tuple[int, ...]) -> Values:
        """An operand as f32 in another shape: a view where that is possible, else a copy, made once a run where nothing in the segment
        writes the operand."""
        burst, at = step.event.burst, b"" if step.at is None else step.at.tobytes()
        operand = burst.operand(name)
        if values.dtype == np.float32:
            try:
                return np.reshape(values, shape, copy=False)
            except ValueError:
                pass
        if operand.kind is not MEM or operand.obj in self.seg.written or operand.step != (0, 0):
            return values.reshape(shape).astype(np.float32, copy=False)
        key = (operand.obj, operand.addr, operand.stride, burst.ext, burst.d.stride, burst.rows, burst.cols, at, name, form, shape)
        if (lasting := self.memory.forms(operand.obj)) is not None:
            if key not in lasting:
                lasting[key] = np.empty(values.shape, np.float32)
                copied(values, lasting[key])
            return lasting[key].reshape(shape)
        if key not in self._fresh:
            self._fresh.add(key)
            # pages that were used before are what makes a copy fast
            copied(values, self._arranged.setdefault(key, np.empty(values.shape, np.float32)))
        return self._arranged[key].reshape(shape)

    def cores(self, step: Step) -> Cores:
        """Index of the step's cores in arrays of its region."""
        burst = step.event.burst
        key = (burst.row, b"" if step.at is None else step.at.tobytes())
        if key not in self._cores:
            self._cores[key] = _cores(burst, step.at)
        return self._cores[key]

    def step(self, step: Step) -> None:
        """One burst on all its cores, or on one level of them."""
        burst = step.event.burst
        if burst.op.meaning is Semantics.ADVANCE:
            return
        cores = self.cores(step)
        if burst.n_in and self._stream(step, cores):
            return
        streamed = self._receive(step, cores) if burst.n_in else None
        if burst.op.meaning is Semantics.LOAD_INDEXED:
            self._emit(step, cores, lookups.load(self, step, cores))
        elif burst.op.meaning is Semantics.STORE_INDEXED:
            lookups.store(self, step, cores, streamed)
        else:
            self._compute(step, cores, streamed)

    # -- operands ------------------------------------------------------------------------------------------------------------------

    def begin(self, event: Event, name: str) -> Ints:
        """First element of a memory operand, per core of the role or for all."""
        burst = event.burst
        operand = burst.operand(name)
        moving = operand.step != (0, 0)
        key = (burst.row, name, event.k if moving else 0, event.outer if moving else 0)
        if key not in self._starts:
            if len(self._starts) > 20_000:
                self._starts.clear()
            self._starts[key] = _still(start(burst, operand, event.k, event.outer, self.seg))
        return self._starts[key]

    def read(self, event: Event, name: str, cores: Cores, ext: Sequence[int], offset: int = 0) -> Values:
        """A memory operand as [*cores, n3, n2, n1, n0]: a strided view where the address is the same on all cores."""
        operand = event.burst.operand(name)
        base = self.memory[operand.obj][cores.index]
        at = self.begin(event, name) + offset
        if at.ndim == 0:
            return strided(base, int(at), operand.stride, ext)
        at = cores.of(at)
        base, at = _common(base, at) if cores.view else (base, at)
        steps = nest(tuple(ext), operand.stride)
        if len(steps) < 8 or not kernels.pays(at.size * len(steps)) or not cores.view or at.size != base.shape[0] * base.shape[1]:
            found = np.take_along_axis(base, at[..., None] + steps, axis=-1)
        else:
            found = np.empty((*at.shape, len(steps)), base.dtype)
            kernels.gather(base, np.ascontiguousarray(at), steps, found)
        found = found.reshape(*at.shape, *ext)
        return found if at.shape == cores.shape else np.broadcast_to(found, (*cores.shape, *ext))

    def write(
        self, event: Event, cores: Cores, values: Values, *, where: Values | None = None, last: tuple[Any, ...] | None = None,
        ext: Sequence[int] = (), offset: int = 0,
    ) -> None:  # fmt: skip
        """Store [*cores, n3, n2, n1, n0] (rounded already) to the destination. `where` masks elements; `last` picks, of a walk that
        revisits elements, the visits whose value stays; `ext` replaces the nest's extents and `offset` moves its start."""
        burst = event.burst
        extents = tuple(ext) or burst.ext
        target = self.memory.target(burst.d.obj)
        at = self.begin(event, "d") + offset
        if at.ndim == 0 and cores.view and last is None:
            view = strided(target[cores.index], int(at), burst.d.stride, extents)
            if where is None:
                view[...] = values
            else:
                np.copyto(view, values, where=where)
            return
        steps = nest(extents, burst.d.stride)
        elements = (cores.of(at)[..., None] if at.ndim else at) + steps
        flat = np.broadcast_to(values, (*cores.shape, *extents)).reshape(*cores.shape, len(steps))
        if last is not None:
            elements, flat = elements[..., last[0]], flat[..., last[0]]
        if where is not None:
            old = np.take_along_axis(target[cores.index], np.broadcast_to(elements, flat.shape), axis=-1)
            flat = np.where(np.broadcast_to(where, (*cores.shape, *extents)).reshape(flat.shape), flat, old)
        if cores.view and last is None and len(steps) >= 8 and kernels.pays(flat.size):
            kernels.scatter(target[cores.index], np.ascontiguousarray(cores.of(at)), steps, flat)
            return
        target[(*_lead(cores), elements)] = flat

    def _replace(self, step: Step, cores: Cores, values: Values, ext: tuple[int, ...]) -> None:
        """Make values [rows, columns, *ext] (or one value) all that their object holds: along a mesh axis on which they are the same, one
        array seen from all cores."""
        obj = step.event.burst.d.obj
        h, w, size = self.memory.shapes[obj]
        if not values.ndim:
            self.memory.put(obj, seen_from(values.reshape(1, 1, 1), (h, w, size)))
            return
        cut = seen_once(values)
        small = (1 if cut.shape[0] == 1 else h, 1 if cut.shape[1] == 1 else w)
        made = values.flags.owndata and values.flags.c_contiguous
        if made and values.size == small[0] * small[1] * size and dense(ext, step.event.burst.d.stride):
            # nothing else sees what an operation has just made
            self.memory.keep(obj, values.reshape(*small, size))
            return
        array, view = self._room(step, cores, cut.shape, ext, values.dtype)
        view[...] = cut
        self.memory.keep(obj, array)

    def _room(self, step: Step, cores: Cores, cut: Sequence[int], ext: tuple[int, ...], dtype: np.dtype[Any]) -> tuple[Values, Values]:
        """An array to become the object's, stored once along mesh axes on which `cut` is 1, and what the step writes of it."""
        obj = step.event.burst.d.obj
        small = tuple(1 if few == 1 else n for few, n in zip(cut, self.memory.shapes[obj][:2], strict=False))
        index = tuple(slice(0, 1) if n == 1 else cores.index[axis] for axis, n in enumerate(small))
        array = self.memory.blank((*small, self.memory.shapes[obj][2]), dtype)
        return array, strided(array[index], int(self.begin(step.event, "d")), step.event.burst.d.stride, ext)

    def _narrow(self, step: Step, cores: Cores, values: Values) -> bool:
        """Store values that are the same on all rows or columns in an array that is stored once for them, or that is one value so far;
        False where there is none."""
        burst = step.event.burst
        array = self.memory[burst.d.obj]
        h, w, size = array.shape
        if values.ndim not in (0, 6):
            return False
        cut = seen_once(values) if values.ndim else values
        if array.strides == (0, 0, 0) and size > 1 and values.ndim:
            small = (1 if cut.shape[0] == 1 else h, 1 if cut.shape[1] == 1 else w)
            if small == (h, w):
                return False
            whole = self.memory.blank((*small, size), array.dtype)
            whole[...] = array[0, 0, 0]
            array = seen_from(whole, (h, w, size))
            self.memory.put(burst.d.obj, array)
        once = stored_once(array)
        if not any(once) or array.strides[2] == 0 or (values.ndim and any(o and cut.shape[axis] > 1 for axis, o in enumerate(once))):
            return False
        index = tuple(slice(0, 1) if single else cores.index[axis] for axis, single in enumerate(once))
        strided(array[index], int(self.begin(step.event, "d")), burst.d.stride, burst.ext)[...] = cut
        return True

    def scalar(self, step: Step, cores: Cores, streamed: Values | None) -> Values | None:
        """The scalar operand, broadcastable to [*cores, n3, n2, n1, n0]."""
        burst = step.event.burst
        if burst.s.kind is NO:
            return None
        assert burst.op.s is not None
        if burst.s.kind is IMM:
            return immediate(burst.imm, burst.op.s)
        if burst.s.kind is FABRIC:
            assert streamed is not None
            return streamed.reshape(*cores.shape, *burst.ext[:3], 1)
        return self.read(step.event, "s", cores, (*burst.ext[:3], 1))

    def source(self, name: str, step: Step, cores: Cores, streamed: Values | None) -> Values | None:
        """Vector operand a or b as [*cores, n3, n2, n1, n0]."""
        burst = step.event.burst
        operand, fmt = burst.operand(name), getattr(burst.op, name)
        if operand.kind is NO:
            return None
        if operand.kind is IMM:
            return immediate(burst.imm, fmt)
        if operand.kind is FABRIC:
            assert streamed is not None
            return streamed.reshape(*cores.shape, *burst.ext)
        return self.read(step.event, name, cores, burst.ext)

    # -- results -------------------------------------------------------------------------------------------------------------------

    def _compute(self, step: Step, cores: Cores, streamed: Values | None) -> None:
        burst = step.event.burst
        visited = sequential_axes(burst)
        if visited and not self.exact and self._product(step, cores, streamed, visited):
            return
        a = self.source("a", step, cores, streamed)
        b = self.source("b", step, cores, streamed)
        s = self.scalar(step, cores, streamed)
        if visited and feeds_back(burst):
            self._visit(step, cores, (a, b, s), visited)
        elif keeps(burst):
            assert a is not None and b is not None
            chosen = np.broadcast_to(a, (*cores.shape, *burst.ext)) != 0
            self.write(step.event, cores, np.broadcast_to(b, chosen.shape), where=chosen)
        elif burst.op.meaning is Semantics.MULTIPLY_ADD:
            self.write(step.event, cores, combine(burst, self.read(step.event, "d", cores, burst.ext), a, b, s))
        elif visited and burst.d.kind is MEM:
            last = _last_visit(burst)
            self.write(step.event, cores, np.broadcast_to(elementwise(burst, a, b, s), (*cores.shape, *burst.ext)), last=last)
        else:
            self._emit(step, cores, self._once(cores, burst, a, b, s))

    @staticmethod
    def _once(cores: Cores, burst: BurstView, *sources: Values | None) -> Values:
        """`elementwise`, along a mesh axis on which all operands are stored once only once."""
        arrays = [v for v in sources if v is not None and v.ndim]
        if not cores.view or not arrays or any(v.ndim != 6 for v in arrays):
            return elementwise(burst, *sources)
        once = [n > 1 and all(v.strides[axis] == 0 or v.shape[axis] == 1 for v in arrays) for axis, n in enumerate(cores.shape)]
        if not any(once):
            return elementwise(burst, *sources)
        index = tuple(slice(0, 1) if single else slice(None) for single in once)
        return elementwise(burst, *(v[index] if v is not None and v.ndim else v for v in sources))

    def _product(self, step: Step, cores: Cores, streamed: Values | None, visited: Sequence[int]) -> bool:
        """Evaluate an FMAC burst in closed form (N6); False where it has none."""
        event, burst = step.event, step.event.burst
        kinds = kinds_of(burst)
        if kinds is None or any(burst.d.stride[d] for d in visited):
            return False
        ext = summed_extents(burst.ext, kinds)
        total = contraction(self, step, cores, streamed, kinds, None)
        self.blocked = True
        if step.covers:
            before = seen_once(self.read(event, "d", cores, ext))
            array, view = self._room(step, cores, np.broadcast_shapes(before.shape, total.shape), ext, total.dtype)
            np.add(before, total, out=view)
            self.memory.keep(burst.d.obj, array)
            return True
        if not cores.view:
            total = total[:, 0]
        at = self.begin(event, "d")
        if at.ndim == 0 and cores.view:
            view = strided(self.memory.target(burst.d.obj)[cores.index], int(at), burst.d.stride, ext)
            np.add(view, total, out=view)
        else:
            self.write(event, cores, self.read(event, "d", cores, ext) + total, ext=ext)
        return True

    def _visit(self, step: Step, cores: Cores, sources: tuple[Values | None, ...], visited: Sequence[int]) -> None:
        """A destination that is visited again and again: one step of the sum a visit, in the order of the nest (N3)."""
        event, burst = step.event, step.event.burst
        lead = len(cores.shape)
        ext = tuple(1 if d in visited else n for d, n in enumerate(burst.ext))
        still = all(burst.d.stride[d] == 0 for d in visited)
        acc = np.array(self.read(event, "d", cores, ext))
        again = [p for p in ("a", "b") if same_walk(burst, p)]
        for visit in np.ndindex(*(burst.ext[d] for d in visited)):
            pick: list[Any] = [slice(None)] * (lead + 4)
            for d, i in zip(visited, visit, strict=True):
                pick[lead + d] = slice(i, i + 1)
            offset = sum(burst.d.stride[d] * i for d, i in zip(visited, visit, strict=True))
            if not still:
                acc = np.array(self.read(event, "d", cores, ext, offset))
            x, y, z = (_picked(v, tuple(pick), lead) for v in sources)
            acc = combine(burst, acc, acc if "a" in again else x, acc if "b" in again else y, z)
            if not still:
                self.write(event, cores, acc, ext=ext, offset=offset)
        if still:
            self.write(event, cores, acc, ext=ext)

    def _emit(self, step: Step, cores: Cores, values: Values) -> None:
        """Write a result to memory or stream it."""
        burst = step.event.burst
        if burst.d.kind is MEM:
            if step.covers and values.ndim in (0, 6):
                self._replace(step, cores, values, burst.ext)
            elif not (step.spans and self._narrow(step, cores, values)):
                if step.anew:
                    self.memory.renew(burst.d.obj)
                self.write(step.event, cores, values)
            return
        assert burst.op.d is not None
        key = step.event.key
        buffer = self._buffer(key, burst)
        if cores.where is None:
            buffer.reshape(*cores.shape, *burst.ext)[...] = values
        else:
            buffer[cores.where] = np.broadcast_to(values, (*cores.shape, *burst.ext)).reshape(-1, burst.count)
        self._unused(key)

    def _buffer(self, key: Key, burst: BurstView) -> Values:
        """The buffer of a sending event, [cores of the role, elements]."""
        assert burst.op.d is not None
        if key not in self.buffers:
            kind = (burst.cores, burst.count, dtype_of(burst.op.d))
            spare = self._spare.get(kind)
            self.buffers[key] = spare.pop() if spare else np.empty(kind[:2], kind[2])
        return self.buffers[key]

    def _unused(self, key: Key) -> None:
        """Give a buffer back that no receiver will copy from."""
        if self.uses.get(key, 0) == 0 and key in self.buffers:
            buffer = self.buffers.pop(key)
            self._spare.setdefault((*buffer.shape, buffer.dtype), []).append(buffer)

    def _stream(self, step: Step, cores: Cores) -> bool:
        """Moves and sums of a stream with contiguous memory, in one pass; False where the burst is something else."""
        event, burst = step.event, step.event.burst
        if burst.op.op not in (Op.MOV, Op.ADD) or burst.op.fmt not in (Fmt.F16, Fmt.F32) or burst.s.kind is not NO:
            return False
        own = "b" if burst.a.kind is FABRIC else "a"
        named = [own] if burst.op.op is Op.ADD else []
        named += ["d"] if burst.d.kind is MEM else []
        if any(self.begin(event, name).ndim or not dense(burst.ext, burst.operand(name).stride) for name in named):
            return False
        places = {}
        for name in reversed(named):
            array = self.memory.target(burst.operand(name).obj)
            places[name] = (array.reshape(-1, array.shape[-1]), int(self.begin(event, name)))
        here = self.flat(burst, cores)
        role = np.arange(burst.cores) if cores.where is None else cores.where
        target, start = places["d"] if "d" in places else (self._buffer(step.event.key, burst), 0)
        index = here if "d" in places else role
        half = burst.op.fmt is Fmt.F16
        for key, at, source in self._sources(step, cores):
            send = self._key(key, event)
            if burst.op.op is Op.MOV:
                kernels.move(self.buffers[send], source, 0, target, index[at], start, burst.count)
            else:
                mine, first = places[own]
                bits = target.view(np.uint32)
                kernels.add(self.buffers[send], source, mine, here[at], first, target, bits, index[at], start, burst.count, half)
            self._used(send, len(source))
        if "d" not in places:
            self._unused(step.event.key)
        return True

    def flat(self, burst: BurstView, cores: Cores) -> Ints:
        """Numbers of the step's cores in its region, row-major."""
        key = (burst.row, id(cores))
        if key not in self._flats:
            flat = (np.array(burst.rows)[:, None] * burst.region.w + np.array(burst.cols)[None, :]).reshape(-1)
            self._flats[key] = flat if cores.where is None else flat[cores.where]
        return self._flats[key]

    def _receive(self, step: Step, cores: Cores) -> Values:
        """What arrives for the step's cores: [*cores, elements]."""
        event, burst = step.event, step.event.burst
        assert burst.fin is not None
        count = burst.count // burst.ext[3] if burst.scalar_stream else burst.count
        parts = self._sources(step, cores)
        if len(parts) == 1:
            key, _, source = parts[0]
            send = self._key(key, event)
            out = self.buffers[send][source, :count]
            self._used(send, len(source))
            return out.reshape(*cores.shape, count)
        whole = np.empty((int(np.prod(cores.shape)), count), dtype_of(burst.fin))
        for key, at, source in parts:
            send = self._key(key, event)
            whole[at] = self.buffers[send][source, :count]
            self._used(send, len(source))
        return whole.reshape(*cores.shape, count)

    def _key(self, key: Key, event: Event) -> Key:
        """The sending event of a part: the same repetition where one delivery stands for all."""
        return (key[0], event.k, event.outer) if event.burst.row in self.deliveries.invariant else key

    def _sources(self, step: Step, cores: Cores) -> list[tuple[Key, Ints, Ints]]:
        """For each sending event: flat positions among the step's cores, and positions in the sender's role."""
        event = step.event
        fixed = event.burst.row in self.deliveries.invariant
        name = (event.burst.row, -1, -1) if fixed else event.key
        cache = (name, id(cores))
        if cache not in self._parts:
            delivery = self.deliveries.of(event)
            assert delivery is not None
            rank = np.full(event.burst.cores, -1)
            wanted = np.arange(event.burst.cores) if cores.where is None else cores.where
            rank[wanted] = np.arange(len(wanted))
            found = []
            for part in delivery.parts:
                at = rank[part.at]
                mine = at >= 0
                if mine.any():
                    found.append((part.send, at[mine], self._place(part.send[0])[part.src[mine]]))
            if len(found) == 1 and not np.array_equal(found[0][1], np.arange(len(wanted))):
                key, at, source = found[0]
                found = [(key, np.arange(len(at)), source[np.argsort(at)])]
            if not fixed:
                return found
            self._parts[cache] = found
        return self._parts[cache]

    def _used(self, key: Key, count: int) -> None:
        self.uses[key] -= count
        self._unused(key)

    def _place(self, row: int) -> Ints:
        """Position in a sender's role of every core of the frame."""
        if row not in self._places:
            burst = self.seg.bursts[row]
            place = np.zeros(self.seg.w * self.seg.h, np.int64)
            place[burst.core_ids.reshape(-1)] = np.arange(burst.cores)
            self._places[row] = place
        return self._places[row]


def same_walk(burst: BurstView, name: str) -> bool:
    """Whether a source walks exactly the destination's elements (so that it sees what was just written)."""
    return bool(burst.operand(name) == burst.d)


def feeds_back(burst: BurstView) -> bool:
    """Whether a visit needs what earlier visits wrote."""
    return burst.op.meaning is Semantics.MULTIPLY_ADD or keeps(burst) or any(same_walk(burst, p) for p in ("a", "b"))


def combine(burst: BurstView, acc: Values, a: Values | None, b: Values | None, s: Values | None) -> Values:
    """The new value of a destination that is read as well as written."""
    if burst.op.meaning is Semantics.MULTIPLY_ADD:
        assert a is not None and s is not None and burst.op.a is not None and burst.op.d is not None
        return multiply_add(acc, a, s, burst.op.a, burst.op.d)
    if keeps(burst):
        assert a is not None and b is not None
        return select(a, b, acc)
    return elementwise(burst, a, b, s)


def _last_visit(burst: BurstView) -> tuple[Ints]:
    """Positions of the nest that write an element last, in order."""
    elements = nest(burst.ext, burst.d.stride)
    _, back = np.unique(elements[::-1], return_index=True)
    return (np.sort(len(elements) - 1 - back),)


def _picked(values: Values | None, pick: tuple[Any, ...], lead: int) -> Values | None:
    if values is None or values.ndim == 0:
        return values
    return values[tuple(slice(None) if values.shape[i] == 1 and i >= lead else p for i, p in enumerate(pick))]


def _cores(burst: BurstView, at: Ints | None) -> Cores:
    rows, cols = burst.rows, burst.cols
    if at is None:
        index = (slice(rows.start, rows.stop, rows.step), slice(cols.start, cols.stop, cols.step))
        return Cores(index, (len(rows), len(cols)), None, True)
    r, c = np.unique(at // len(cols)), np.unique(at % len(cols))
    ranges = [_as_slice(np.array(rows)[r]), _as_slice(np.array(cols)[c])]
    if len(r) * len(c) == len(at) and None not in ranges:
        return Cores(tuple(ranges), (len(r), len(c)), at, True)
    return Cores((np.array(rows)[at // len(cols)], np.array(cols)[at % len(cols)]), (len(at),), at, False)


def _as_slice(values: Ints) -> slice | None:
    if len(values) == 1:
        return slice(int(values[0]), int(values[0]) + 1)
    steps = np.diff(values)
    return slice(int(values[0]), int(values[-1]) + 1, int(steps[0])) if (steps == steps[0]).all() else None


def _still(at: Ints) -> Ints:
    """Addresses per core, with a stride of 0 along an axis on which they are the same."""
    if at.ndim == 0:
        return at
    alike = [bool((at == at[:1]).all()), bool((at == at[:, :1]).all())]
    return np.broadcast_to(at[: 1 if alike[0] else None, : 1 if alike[1] else None], at.shape)


def _common(base: Values, at: Ints) -> tuple[Values, Ints]:
    """Arrays and addresses cut to one row or column where both are stored once for all."""
    index = tuple(slice(0, 1) if base.strides[axis] == 0 and at.strides[axis] == 0 else slice(None) for axis in (0, 1))
    return base[index], at[index]


def _lead(cores: Cores) -> tuple[Any, ...]:
    """Core indices that broadcast against an array [*cores, elements]."""
    if not cores.view:
        return tuple(i[:, None] for i in cores.index)
    rows, cols = (np.arange(s.start, s.stop, s.step or 1) for s in cores.index)
    return rows[:, None, None], cols[None, :, None]
