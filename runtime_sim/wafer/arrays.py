"""The arrays of a program's objects: what fills them, how long they live, and which of them all runs share."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ...errors import BadInput
from ...machines.program import Binding
from ...machines.wafer import tables as tb
from ...machines.wafer.isa import NUMPY, Element
from .arithmetic import Values, dtype_of
from .instances import Layout, Slot
from .model import Ints
from .placing import LOGICAL, Map, checked
from .storage import seen_from, strided

Source = tuple[Map, Values]
"""A tensor that (a part of) a slot's contents come from, and how it lies in it."""
Spare = dict[tuple[tuple[int, ...], np.dtype[Any]], list[Values]]


class Contents:
    """What fills the owned slots of a layout and how long each is needed, known before any data; and what constants look like in the
    forms in which they are used, which all runs see and none writes."""

    def __init__(self, layout: Layout, legal: bool = False) -> None:
        self.layout, self.legal = layout, legal
        self.spare: Spare = {}
        """Arrays of finished instances and runs, used again: fresh pages are what costs most. Only legal programs read nothing that was
        not written; in others every array begins with zeros, so that all runs find the same there."""
        self.lasts = False
        """Whether every form of a constant is kept. A single run needs each but once, and does without that memory."""
        self.fixed: dict[Any, Values] = {}
        """Arrays of constants, by slot, or by placement and image where several instances find the same; `lasting`: their `id`."""
        self.lasting: set[int] = set()
        self.forms: dict[Slot, dict[Any, Values]] = {}
        """Operands that are read from constants, by what the evaluator calls their form."""
        self._shares: dict[int, Share] = {}
        self.padded: dict[Slot, Values] = {}
        """Images with the padding that a slot sees in them."""
        program = layout.program
        self.binds = Counter((b.image, b.placement) for i in layout.instances for b in i.binds.values() if b.kind is tb.BindKind.PLACED)
        self.given: dict[Slot, list[tuple[Binding, int]]] = {}
        for binding in program.bindings:
            for piece in layout.pieces[binding.name] if binding.kind != "output" else ():
                self.given.setdefault(layout.root(piece.slot), []).append((binding, piece.placement))
        self.kept = {layout.root(p.slot) for b in program.bindings if b.kind != "input" for p in layout.pieces[b.name]}
        self.written: set[Slot] = set()
        """Owned slots that some instance writes; others may be one array seen from many cores."""
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

    def share(self, number: int) -> Share:
        """An instance's share, found once."""
        if number not in self._shares:
            roots = {obj: self.layout.root((number, obj)) for obj in self.layout.instances[number].analysis.seg.objects}
            first, counts = {root: obj for obj, root in reversed(roots.items())}, Counter(roots.values())
            self._shares[number] = Share(
                roots,
                held=frozenset(obj for obj, root in roots.items() if root != (number, obj)),
                kept=frozenset(obj for obj, root in roots.items() if root in self.kept or self.last[root] != (number, obj)),
                same={obj: first[root] for obj, root in roots.items() if counts[root] > 1},
                ends=frozenset(obj for obj, root in roots.items() if root not in self.kept and self.last[root] == (number, obj)),
            )
        return self._shares[number]

    def constant(self, root: Slot) -> bool:
        """Whether an owned slot holds an image in all runs, from beginning to end."""
        bind = self.layout.instances[root[0]].binds.get(root[1])
        if bind is None or bind.kind is tb.BindKind.OBJECT or root in self.written:
            return False
        return bind.kind is tb.BindKind.PLACED or root not in self.given

    def image(self, root: Slot) -> Source | None:
        """The image that a placement puts into an owned slot, None for any other."""
        bind = self.layout.instances[root[0]].binds.get(root[1])
        if bind is None or bind.kind is not tb.BindKind.PLACED:
            return None
        return self.layout.map_of(root, bind.placement), self.layout.program.images[tb.image_key(bind.image)]

    def tiles(self, root: Slot) -> Values | None:
        """The image that holds what every core of an owned slot has, None for any other."""
        bind = self.layout.instances[root[0]].binds.get(root[1])
        return self.layout.program.images[tb.image_key(bind.image)] if bind is not None and bind.kind is tb.BindKind.IMAGE else None

    def shape(self, root: Slot) -> tuple[int, int, int]:
        """[rows, columns, elements] of a slot."""
        obj = self.layout.object(root)
        region = self.layout.instances[root[0]].region(obj)
        return region.h, region.w, obj.size

    def array(self, root: Slot) -> Values | None:
        """What all runs (or several instances) find in an owned slot, made once; None where that is nothing."""
        source = self.image(root) if self.constant(root) else None
        if source is not None and any(source[0].covers):
            bind = self.layout.instances[root[0]].binds[root[1]]
            if self.binds[bind.image, bind.placement] > 1:
                key: Any = id(source[0]), bind.image, self.shape(root), self.layout.object(root).fmt
                return self._fixed(key, root, source)
        return self._fixed(root, root, source) if self.lasts and self.constant(root) else None

    def _fixed(self, key: Any, root: Slot, source: Source | None) -> Values:
        if key not in self.fixed:
            fmt = self.layout.object(root).fmt
            if source is not None:
                self.fixed[key] = shared(*source, self.shape(root), fmt)
            else:
                self.fixed[key] = np.zeros(self.shape(root), dtype_of(fmt))
                self.load(root, [], self.fixed[key])
            array = self.fixed[key]
            self.lasting.add(id(array if array.base is None else array.base))
        return self.fixed[key]

    def load(self, root: Slot, sources: Sequence[Source], out: Values) -> None:
        """Fill an array of zeros, or one that a single source covers, with what an owned slot holds before the program runs."""
        obj, tiles = self.layout.object(root), self.tiles(root)
        if tiles is not None:
            strided(out, 0, obj.stride, obj.ext)[...] = tiles
        for mapping, tensor in sources:
            mapping.load(out, tensor, obj.fmt, keep=len(sources) > 1)


@dataclass(frozen=True)
class Share:
    """What an instance has of the owned slots, the same in all runs."""

    roots: Mapping[int, Slot]
    """Object -> the slot that owns its words."""
    held: frozenset[int]
    """Objects that continue another instance's."""
    kept: frozenset[int]
    """Objects that are read after this instance has ended."""
    same: Mapping[int, int]
    """Objects that are the same words as another one of this instance, by the first of them."""
    ends: frozenset[int]
    """Objects whose arrays nothing needs after their last use by this instance."""


class Arrays:
    """Arrays of the owned slots in one run; slots that continue others share theirs. Arrays live from first to last use."""

    def __init__(self, contents: Contents, inputs: Mapping[str, np.ndarray], states: Mapping[str, np.ndarray]) -> None:
        self.contents, self.layout = contents, contents.layout
        self.arrays: dict[Slot, Values] = {}
        self.values: dict[str, np.ndarray] = {}
        for binding in self.layout.program.bindings:
            if binding.kind == "output":
                continue
            if binding.kind == "state" and binding.name not in states:
                self.values[binding.name] = np.zeros(binding.shape, LOGICAL.get(binding.dtype, binding.dtype))
            else:
                self.values[binding.name] = checked(
                    binding.name, inputs if binding.kind == "input" else states, binding.shape, binding.dtype
                )
            self._check_range(binding)
        self.spare = contents.spare
        self.padded: dict[Slot, Values] = {}
        """Tensors with the padding that a slot sees in them."""

    def _check_range(self, binding: Binding) -> None:
        values = self.values[binding.name]
        if binding.range and values.size and (values.min() < binding.range[0] or values.max() > binding.range[1]):
            low, high = binding.range
            raise BadInput(f"input {binding.name!r} holds {values.min()}..{values.max()}; the program takes integers from {low} to {high}")

    def array(self, root: Slot) -> Values:
        """The array of an owned slot, made and filled on first use."""
        if root not in self.arrays:
            fixed = self.contents.array(root)
            self.arrays[root] = self._fill(root) if fixed is None else fixed
        return self.arrays[root]

    def forms(self, root: Slot) -> dict[Any, Values] | None:
        """Where operands read from a slot stay for all runs; None where it is no constant, or where they need not stay."""
        return self.contents.forms.setdefault(root, {}) if self.contents.lasts and self.contents.constant(root) else None

    def pick(self, root: Slot, cores: Ints, elements: Ints) -> Values | None:
        """Elements [n, k] of cores [n] (flat positions) of a slot that nothing has used yet and that one tensor of its format fills; None
        for any other."""
        source = self._tensor(root)
        if source is None:
            return None
        obj = self.layout.object(root)
        w = self.layout.instances[root[0]].region(obj).w
        found = source[0].pick(source[1], cores // w, cores % w, elements)
        return None if found is None else found.astype(dtype_of(obj.fmt))

    def walk(self, root: Slot, rows: range, cols: range, begin: int, stride: tuple[int, ...], ext: tuple[int, ...]) -> Values | None:
        """What a nest finds of such a slot, as a view of the tensor [rows, columns, *ext]; None for any other."""
        source = self._tensor(root)
        if source is None:
            return None
        mapping, tensor = source
        if mapping.wide is None:
            return mapping.walk(lambda: tensor, rows, cols, begin, stride, ext)
        return mapping.wide.walk(lambda: self._padded(root, mapping, tensor), rows, cols, begin, stride, ext)

    def _padded(self, root: Slot, mapping: Map, tensor: Values) -> Values:
        """The tensor of a slot with its padding, made once."""
        lasts = self.contents.lasts and self.contents.constant(root)
        known = self.contents.padded if lasts else self.padded
        if root not in known:
            known[root] = mapping.padded(tensor)
        return known[root]

    def _tensor(self, root: Slot) -> Source | None:
        """The tensor of its format that alone fills a slot that nothing has used yet, and how it lies in it."""
        sources = [] if root in self.arrays or self.contents.tiles(root) is not None else self._sources(root)
        return sources[0] if len(sources) == 1 and str(sources[0][1].dtype) == NUMPY[self.layout.object(root).fmt] else None

    def _sources(self, root: Slot) -> list[Source]:
        """Tensors that an owned slot's contents come from, and how they lie in it."""
        image = self.contents.image(root)
        if image is not None:
            return [image]
        return [
            (self.layout.map_of(root, placement), self.values[binding.name]) for binding, placement in self.contents.given.get(root, [])
        ]

    def _fill(self, root: Slot) -> Values:
        fmt, shape = self.layout.object(root).fmt, self.contents.shape(root)
        sources = self._sources(root)
        if len(sources) == 1 and root not in self.contents.written and any(sources[0][0].covers):
            return shared(*sources[0], shape, fmt)
        spare = self.spare.get((shape, dtype_of(fmt)), [])
        used = bool(spare)
        out = spare.pop() if used else np.zeros(shape, dtype_of(fmt))
        if used and (len(sources) > 1 or (sources and not _covers(sources[0][0], shape))):
            out[...] = 0
        self.contents.load(root, sources, out)
        return out

    def release(self, root: Slot) -> None:
        """Drop the array of a slot that nothing needs any more."""
        self.padded.pop(root, None)
        self.reuse(self.arrays.pop(root, None))

    def finish(self) -> None:
        """After the last read: leave all arrays to the next run."""
        for array in self.arrays.values():
            self.reuse(array)
        self.arrays.clear()

    def reuse(self, array: Values | None) -> None:
        """Keep the memory of an array that nothing uses any more (of a legal program)."""
        if not self.contents.legal:
            return
        if array is not None and not array.flags.c_contiguous and isinstance(array.base, np.ndarray):
            array = array.base
        if array is None or array.base is not None or id(array) in self.contents.lasting:
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
            array = self.array(self.layout.root(piece.slot))
            if out is None:
                out = np.zeros(int(np.prod(binding.shape, dtype=np.int64)), array.dtype)
            self.layout.map_of(piece.slot, piece.placement).unload(array, out)
        assert out is not None
        wanted = np.dtype(LOGICAL.get(binding.dtype, binding.dtype))
        return (out != 0 if wanted.kind == "b" else out.astype(wanted)).reshape(binding.shape)


class Part:
    """One instance's part of the arrays (`storage.Owner`)."""

    def __init__(self, arrays: Arrays, share: Share) -> None:
        self.arrays, self.share = arrays, share

    def fetch(self, obj: int) -> Values:
        """The array of an object, filled with what it holds."""
        return self.arrays.array(self.share.roots[obj])

    def forms(self, obj: int) -> dict[Any, Values] | None:
        """Where operands read from an object stay for all runs, None where they do not."""
        return self.arrays.forms(self.share.roots[obj])

    def pick(self, obj: int, cores: Values, elements: Values) -> Values | None:
        """Elements [n, k] of cores [n] of an object filled by one tensor, straight from it."""
        return self.arrays.pick(self.share.roots[obj], cores, elements)

    def walk(self, obj: int, rows: range, cols: range, begin: int, stride: tuple[int, ...], ext: tuple[int, ...]) -> Values | None:
        """What a nest finds of an object filled by one tensor, as a view of that tensor."""
        return self.arrays.walk(self.share.roots[obj], rows, cols, begin, stride, ext)

    def put(self, obj: int, array: Values) -> None:
        """Replace the array of an object."""
        root = self.share.roots[obj]
        self.arrays.reuse(self.arrays.arrays.get(root))
        self.arrays.arrays[root] = array

    def blank(self, shape: tuple[int, ...], dtype: np.dtype[Any]) -> Values:
        """An array to be written."""
        return self.arrays.blank(shape, dtype)

    def release(self, obj: int) -> None:
        """After the last use of an object by this instance."""
        if obj in self.share.ends:
            self.arrays.release(self.share.roots[obj])


def _covers(mapping: Map, shape: tuple[int, int, int]) -> bool:
    """Whether a map fills every element of an object's array."""
    placed = (len(range(*mapping.rows.indices(shape[0]))), len(range(*mapping.cols.indices(shape[1]))), len(mapping.element))
    return placed == shape


def shared(mapping: Map, tensor: Values, shape: tuple[int, int, int], fmt: Element) -> Values:
    """A read-only object whose rows or columns are copies: one array, seen from every core through a stride of 0."""
    h, w, size = shape
    own = np.zeros((1 if mapping.covers[0] else h, 1 if mapping.covers[1] else w, size), dtype_of(fmt))
    rows, cols = (slice(0, 1) if mapping.covers[axis] else given for axis, given in enumerate((mapping.rows, mapping.cols)))
    replace(mapping, rows=rows, cols=cols).load(own, tensor, fmt, keep=False)
    return seen_from(own, shape)
