"""`execute`: load, evaluate every instance, read the outputs, count."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from ...errors import BadInput
from ...machines.program import Binding, Program
from ...machines.wafer import tables as tb
from ...machines.wafer.isa import NUMPY, WORDS, Element
from ..execution import Execution
from ..threads import one_thread_products
from .arithmetic import Values, dtype_of
from .instances import Layout, Slot
from .judge import Judgement, judge, missing_images
from .model import Ints
from .placing import LOGICAL, Map, checked
from .storage import Memory, seen_from, strided


class Arrays:
    """Arrays of the owned slots; slots that continue others share theirs. Arrays live from first to last use."""

    def __init__(self, layout: Layout, inputs: Mapping[str, np.ndarray], states: Mapping[str, np.ndarray]) -> None:
        self.layout = layout
        self.arrays: dict[Slot, Values] = {}
        self.given: dict[Slot, list[tuple[Binding, int]]] = {}
        self.values: dict[str, np.ndarray] = {}
        program = layout.program
        for binding in program.bindings:
            if binding.kind == "output":
                continue
            if binding.kind == "state" and binding.name not in states:
                self.values[binding.name] = np.zeros(binding.shape, LOGICAL.get(binding.dtype, binding.dtype))
            else:
                self.values[binding.name] = checked(
                    binding.name, inputs if binding.kind == "input" else states, binding.shape, binding.dtype
                )
            self._check_range(binding)
            for piece in layout.pieces[binding.name]:
                self.given.setdefault(layout.root(piece.slot), []).append((binding, piece.placement))
        self.kept = {layout.root(p.slot) for b in program.bindings if b.kind != "input" for p in layout.pieces[b.name]}
        self.written: set[Slot] = set()
        """Owned slots that some instance writes; others may be one array seen from many cores."""
        self.spare: dict[tuple[tuple[int, ...], np.dtype[Any]], list[Values]] = {}
        """Arrays of finished instances, used again: fresh pages are what costs most."""
        self.common: dict[tuple[Any, ...], Values] = {}
        """What several instances find of one image by one placement and only read, made once; `lasting`: `id` of the arrays seen."""
        self.lasting: set[int] = set()
        self.binds = Counter((b.image, b.placement) for i in layout.instances for b in i.binds.values() if b.kind is tb.BindKind.PLACED)
        self.padded: dict[Slot, Values] = {}
        """Tensors with the padding that a slot sees in them."""
        self.last: dict[Slot, Slot] = {}
        for instance in sorted(layout.instances, key=lambda i: (i.start, i.number)):
            for number in instance.analysis.seg.objects:
                root = layout.root((instance.number, number))
                if self.last.get(root, (-1, 0))[0] == instance.number:
                    # two objects of one instance on the same words: the last use of one is not that of the other
                    self.kept.add(root)
                self.last[root] = (instance.number, number)
                if instance.analysis.liveness.lives[number].last_write_end >= 0:
                    self.written.add(root)

    def _check_range(self, binding: Binding) -> None:
        values = self.values[binding.name]
        if binding.range and values.size and (values.min() < binding.range[0] or values.max() > binding.range[1]):
            low, high = binding.range
            raise BadInput(f"input {binding.name!r} holds {values.min()}..{values.max()}; the program takes integers from {low} to {high}")

    def array(self, slot: Slot) -> Values:
        """The array of a slot, made and filled on first use."""
        root = self.layout.root(slot)
        if root not in self.arrays:
            self.arrays[root] = self._fill(root)
        return self.arrays[root]

    def pick(self, slot: Slot, cores: Ints, elements: Ints) -> Values | None:
        """Elements [n, k] of cores [n] (flat positions) of a slot that nothing has used yet and that one tensor of its format fills; None
        for any other."""
        source, root = self._tensor(slot), self.layout.root(slot)
        if source is None:
            return None
        obj = self.layout.object(root)
        w = self.layout.instances[root[0]].region(obj).w
        found = source[0].pick(source[1], cores // w, cores % w, elements)
        return None if found is None else found.astype(dtype_of(obj.fmt))

    def walk(self, slot: Slot, rows: range, cols: range, begin: int, stride: tuple[int, ...], ext: tuple[int, ...]) -> Values | None:
        """What a nest finds of such a slot, as a view of the tensor [rows, columns, *ext]; None for any other."""
        source = self._tensor(slot)
        if source is None:
            return None
        mapping, tensor = source
        if mapping.wide is None:
            return mapping.walk(lambda: tensor, rows, cols, begin, stride, ext)
        return mapping.wide.walk(lambda: self._padded(self.layout.root(slot), mapping, tensor), rows, cols, begin, stride, ext)

    def _padded(self, root: Slot, mapping: Map, tensor: Values) -> Values:
        """The tensor of a slot with its padding, made once."""
        if root not in self.padded:
            self.padded[root] = mapping.padded(tensor)
        return self.padded[root]

    def _tensor(self, slot: Slot) -> tuple[Map, Values] | None:
        """The tensor of its format that alone fills a slot that nothing has used yet, and how it lies in it."""
        root = self.layout.root(slot)
        obj, bind = self.layout.object(root), self.layout.instances[root[0]].binds.get(root[1])
        sources = [] if root in self.arrays or (bind is not None and bind.kind is tb.BindKind.IMAGE) else self._sources(root)
        return sources[0] if len(sources) == 1 and str(sources[0][1].dtype) == NUMPY[obj.fmt] else None

    def _sources(self, slot: Slot) -> list[tuple[Map, Values]]:
        """Tensors that an owned slot's contents come from, and how they lie in it."""
        layout = self.layout
        bind = layout.instances[slot[0]].binds.get(slot[1])
        if bind is not None and bind.kind is tb.BindKind.PLACED:
            return [(layout.map_of(slot, bind.placement), layout.program.images[tb.image_key(bind.image)])]
        return [(layout.map_of(slot, placement), self.values[binding.name]) for binding, placement in self.given.get(slot, [])]

    def _fill(self, slot: Slot) -> Values:
        layout = self.layout
        obj, instance = layout.object(slot), layout.instances[slot[0]]
        region = instance.region(obj)
        dtype = dtype_of(obj.fmt)
        bind = instance.binds.get(slot[1])
        shape = (region.h, region.w, obj.size)
        sources = self._sources(slot)
        if len(sources) == 1 and slot not in self.written and any(sources[0][0].covers):
            if bind is None or bind.kind is not tb.BindKind.PLACED or self.binds[bind.image, bind.placement] < 2:
                return _shared(*sources[0], shape, obj.fmt)
            key = id(sources[0][0]), bind.image, shape, obj.fmt
            if key not in self.common:
                self.common[key] = _shared(*sources[0], shape, obj.fmt)
                self.lasting.add(id(self.common[key].base))
            return self.common[key]
        spare = self.spare.get((shape, dtype), [])
        used = bool(spare)
        out = spare.pop() if used else np.zeros(shape, dtype)
        if bind is not None and bind.kind is tb.BindKind.IMAGE:
            tiles = layout.program.images[tb.image_key(bind.image)]
            strided(out, 0, obj.stride, obj.ext)[...] = tiles
        if used and (len(sources) > 1 or (sources and not _covers(sources[0][0], shape))):
            out[...] = 0
        for mapping, tensor in sources:
            mapping.load(out, tensor, obj.fmt, keep=len(sources) > 1)
        return out

    def release(self, slot: Slot) -> None:
        """After the last use of an object in its instance: drop its array, unless a later instance or a binding needs it."""
        root = self.layout.root(slot)
        if self.last[root] != slot or root in self.kept:
            return
        self.padded.pop(root, None)
        self.reuse(self.arrays.pop(root, None))

    def reuse(self, array: Values | None) -> None:
        """Keep the memory of an array that nothing uses any more."""
        if array is not None and not array.flags.c_contiguous and isinstance(array.base, np.ndarray):
            array = array.base
        if array is None or array.base is not None or id(array) in self.lasting:
            return
        if array.flags.c_contiguous and array.flags.writeable:
            self.spare.setdefault((array.shape, array.dtype), []).append(array)

    def blank(self, shape: tuple[int, ...], dtype: np.dtype[Any]) -> Values:
        """An array to be written: what nothing writes of it is not read (W44)."""
        spare = self.spare.get((shape, dtype))
        return spare.pop() if spare else np.zeros(shape, dtype)

    def read(self, binding: Binding) -> np.ndarray:
        """The value of an output or state at the end, in logical type and shape."""
        out: np.ndarray | None = None
        for piece in self.layout.pieces[binding.name]:
            array = self.array(piece.slot)
            if out is None:
                out = np.zeros(int(np.prod(binding.shape, dtype=np.int64)), array.dtype)
            self.layout.map_of(piece.slot, piece.placement).unload(array, out)
        assert out is not None
        wanted = np.dtype(LOGICAL.get(binding.dtype, binding.dtype))
        return (out != 0 if wanted.kind == "b" else out.astype(wanted)).reshape(binding.shape)


class Part:
    """One instance's part of the arrays (`storage.Owner`)."""

    def __init__(self, arrays: Arrays, number: int) -> None:
        self.arrays, self.number = arrays, number
        layout = arrays.layout
        roots = {obj: layout.root((number, obj)) for obj in layout.instances[number].analysis.seg.objects}
        self.held = frozenset(obj for obj, root in roots.items() if root != (number, obj))
        """Objects that continue another instance's."""
        first = {root: obj for obj, root in reversed(roots.items())}
        counts = Counter(roots.values())
        self.same = {obj: first[root] for obj, root in roots.items() if counts[root] > 1}
        """Objects that are the same words as another one of this instance, by the first of them."""
        self.kept = frozenset(obj for obj, root in roots.items() if root in arrays.kept or arrays.last[root] != (number, obj))
        """Objects that are read after this instance has ended."""

    def shape(self, obj: int) -> tuple[int, int, int]:
        """[rows, columns, elements] of an object."""
        view = self.arrays.layout.object((self.number, obj))
        region = self.arrays.layout.instances[self.number].region(view)
        return region.h, region.w, view.size

    def fetch(self, obj: int) -> Values:
        """The array of an object, filled with what it holds."""
        return self.arrays.array((self.number, obj))

    def pick(self, obj: int, cores: Values, elements: Values) -> Values | None:
        """Elements [n, k] of cores [n] of an object filled by one tensor, straight from it."""
        return self.arrays.pick((self.number, obj), cores, elements)

    def walk(self, obj: int, rows: range, cols: range, begin: int, stride: tuple[int, ...], ext: tuple[int, ...]) -> Values | None:
        """What a nest finds of an object filled by one tensor, as a view of that tensor."""
        return self.arrays.walk((self.number, obj), rows, cols, begin, stride, ext)

    def put(self, obj: int, array: Values) -> None:
        """Replace the array of an object."""
        root = self.arrays.layout.root((self.number, obj))
        self.arrays.reuse(self.arrays.arrays.get(root))
        self.arrays.arrays[root] = array

    def blank(self, shape: tuple[int, ...], dtype: np.dtype[Any]) -> Values:
        """An array to be written."""
        return self.arrays.blank(shape, dtype)

    def release(self, obj: int) -> None:
        """After the last use of an object by this instance."""
        self.arrays.release((self.number, obj))


def _covers(mapping: Map, shape: tuple[int, int, int]) -> bool:
    """Whether a map fills every element of an object's array."""
    placed = (len(range(*mapping.rows.indices(shape[0]))), len(range(*mapping.cols.indices(shape[1]))), len(mapping.element))
    return placed == shape


def _shared(mapping: Map, tensor: Values, shape: tuple[int, int, int], fmt: Element) -> Values:
    """A read-only object whose rows or columns are copies: one array, seen from every core through a stride of 0."""
    h, w, size = shape
    own = np.zeros((1 if mapping.covers[0] else h, 1 if mapping.covers[1] else w, size), dtype_of(fmt))
    rows, cols = (slice(0, 1) if mapping.covers[axis] else given for axis, given in enumerate((mapping.rows, mapping.cols)))
    replace(mapping, rows=rows, cols=cols).load(own, tensor, fmt, keep=False)
    return seen_from(own, shape)


def execute(
    program: Program, inputs: Mapping[str, np.ndarray], states: Mapping[str, np.ndarray] | None = None, *, timing_only: bool = False,
    exact: bool = False, skip: frozenset[str] = frozenset(),
) -> Execution:  # fmt: skip
    """Judge a program, and run it on inputs unless `timing_only`. Raises BadInput for inputs that do not fit."""
    verdict = judge(program, skip)
    layout = verdict.layout
    outputs: dict[str, np.ndarray] = {}
    after: dict[str, np.ndarray] = {}
    order = "exact"
    if layout is not None and not timing_only and all(i.analysis.runnable for i in layout.instances):
        missing = missing_images(program, layout)
        if missing:
            raise BadInput(f"the program holds no {missing[0]} ({len(missing)} images): weights are not at hand, use timing_only")
        outputs, after, order = _evaluate(layout, inputs, states or {}, exact)
    return Execution(
        outputs=outputs, states=after, violations=verdict.violations, cycles=verdict.cycles, interval_cycles=verdict.cycles,
        breakdown=verdict.breakdown, order=order, **_counters(verdict),
    )  # fmt: skip


@one_thread_products()
def _evaluate(
    layout: Layout, inputs: Mapping[str, np.ndarray], states: Mapping[str, np.ndarray], exact: bool
) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray], str]:
    memory = Arrays(layout, inputs, states)
    order = "exact"
    with np.errstate(all="ignore"):
        order_of = sorted(layout.instances, key=lambda i: (i.start, i.number))
        final = {id(instance.analysis): instance.number for instance in order_of}
        for instance in order_of:
            part = Part(memory, instance.number)
            plan = instance.analysis.plan(exact, part.held, part.kept, bool(part.same))
            engine = instance.analysis.engine()
            engine.run(plan, Memory(part, part.same), exact)
            order = "blocked" if engine.blocked else order
            if final[id(instance.analysis)] == instance.number:
                # what only this segment needs is not kept for others
                instance.analysis.forget()
                memory.spare.clear()
        outputs = {b.name: memory.read(b) for b in layout.program.bindings_of("output")}
        after = {b.name: memory.read(b) for b in layout.program.bindings_of("state")}
    return outputs, after, order


def _counters(verdict: Judgement) -> dict[str, Any]:
    machine, layout, cycles = verdict.machine, verdict.layout, verdict.cycles
    if layout is None:
        empty: dict[str, Any] = {"utilization": {}, "traffic": {}, "memory": {}, "energy_j": 0.0, "energy_breakdown": {}, "time_s": 0.0}
        return empty
    counts = [i.analysis.counters for i in layout.instances]
    cores = max(layout.cores(), 1)
    beats = sum(c.beats for c in counts)
    wafer_cores = machine.live_cores
    busy_j = beats * machine.energy.busy_beat_pj * 1e-12
    idle_j = max(wafer_cores * cycles - beats, 0) * machine.energy.busy_beat_pj * machine.energy.idle_fraction * 1e-12
    into = sum(_bound_bytes(layout, b) for b in verdict.program.bindings_of("input"))
    out_of = sum(_bound_bytes(layout, b) for b in verdict.program.bindings_of("output"))
    rate_in, rate_out = machine.host_rates()
    wavelets = sum(c.wavelets for c in counts)
    return {
        "utilization": {
            "issue": beats / (cores * max(cycles, 1)),
            "links": sum(c.link_cycles for c in counts) / (4 * cores * max(cycles, 1)),
            "wafer": beats / (wafer_cores * max(cycles, 1)),
        },
        "traffic": {
            "onchip_bytes": float(sum(c.memory_bytes for c in counts) + 4 * wavelets),
            "byte_hops": float(4 * sum(c.wavelet_hops for c in counts)),
            "offchip_bytes": float(into + out_of),
        },
        "memory": {"used_bytes": layout.used_bytes(), "capacity_bytes": wafer_cores * machine.memory_words * 2},
        "energy_j": busy_j + idle_j,
        "energy_breakdown": {"beats": busy_j, "idle": idle_j},
        "time_s": cycles / machine.clock_hz + machine.host.launch_s + into / rate_in + out_of / rate_out,
        "load_s": layout.image_bytes() / rate_in,
    }


def _bound_bytes(layout: Layout, binding: Binding) -> int:
    """Bytes that cross the host link for an input or output: its elements in the machine's format."""
    pieces = layout.pieces[binding.name]
    fmt = layout.object(pieces[0].slot).fmt if pieces else None
    return int(np.prod(binding.shape, dtype=np.int64)) * (WORDS[fmt] * 2 if fmt is not None else 0)
