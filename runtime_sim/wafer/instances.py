"""Instances: where segments lie on the wafer, what fills their objects, and the rules at the seams between them.

Segments are judged once (`analysis`); here are the rules that need absolute places and cycles: W02, W40, W42 for objects of all instances,
the words and the order of objects that continue one another (W41, W43, W44), bindings (W50) and defects (W04).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import reduce
from itertools import pairwise
from typing import Any

import numpy as np

from ...machines.program import Binding, Program
from ...machines.wafer import tables as tb
from ...machines.wafer.description import WaferMachine
from ...machines.wafer.isa import NUMPY, WORDS
from .analysis import Analysis
from .breaches import Breaches
from .liveness import FILLED
from .model import ObjectView, RegionView
from .placing import Map, Placements

Slot = tuple[int, int]
"""(instance, object id)."""


@dataclass(frozen=True)
class Bind:
    """One row of `binds`."""

    kind: tb.BindKind
    image: int
    placement: int
    source: int
    source_object: int
    word: int


@dataclass(frozen=True)
class Piece:
    """One piece of a binding: an object of an instance and a placement."""

    slot: Slot
    placement: int


@dataclass
class Instance:
    """One placed segment."""

    number: int
    segment: int
    x: int
    y: int
    start: int
    analysis: Analysis
    binds: dict[int, Bind] = field(default_factory=dict)

    def region(self, obj: ObjectView) -> RegionView:
        """Region of an object, in the segment's frame."""
        return self.analysis.seg.regions[obj.region]

    def rectangle(self, region: RegionView) -> tuple[int, int, int, int]:
        """(x, y, w, h) of a region in the program rectangle."""
        ox, oy = self.analysis.seg.origin
        return self.x + ox + region.x, self.y + oy + region.y, region.w, region.h

    def word(self, obj: ObjectView) -> int:
        """Word address of an object in this instance."""
        bind = self.binds.get(obj.id)
        return obj.word if bind is None or bind.word == tb.NONE else bind.word


class Layout:
    """All instances of a program, and who shares whose words."""

    def __init__(
        self, program: Program, machine: WaferMachine, instances: Sequence[Instance], placements: Placements, out: Breaches
    ) -> None:
        self.program, self.machine, self.instances, self.placements, self.out = program, machine, list(instances), placements, out
        self.end = max((i.start + i.analysis.end for i in instances), default=0)
        self.pieces: dict[str, list[Piece]] = {}
        self._read_binds()
        for binding in program.bindings:
            self.pieces[binding.name] = self._read_pieces(binding)

    def object(self, slot: Slot) -> ObjectView:
        """The object of a slot."""
        return self.instances[slot[0]].analysis.seg.objects[slot[1]]

    def root(self, slot: Slot) -> Slot:
        """The slot that owns a slot's words: the start of its chain of OBJECT binds."""
        while True:
            bind = self.instances[slot[0]].binds.get(slot[1])
            if bind is None or bind.kind is not tb.BindKind.OBJECT or bind.source == tb.NONE:
                return slot
            slot = (bind.source, bind.source_object)

    def map_of(self, slot: Slot, placement: int) -> Map:
        """Where an object's elements lie in a tensor."""
        obj = self.object(slot)
        return self.placements.resolve(placement, obj, self.instances[slot[0]].region(obj))

    def slots(self) -> Iterator[Slot]:
        """Every object of every instance."""
        for instance in self.instances:
            for number in instance.analysis.seg.objects:
                yield instance.number, number

    # -- reading -------------------------------------------------------------------------------------------------------------------

    def _read_binds(self) -> None:
        t = {name: column.tolist() for name, column in self.program.tables["binds"].items()}
        keys = list(zip(t["instance"], t["object"], strict=True))
        if keys != sorted(set(keys)):
            self.out.add("W05", "table binds", "rows are not ordered by instance and object, or bind an object twice", fatal=True)
        for i, (number, obj) in enumerate(keys):
            unit = f"bind of object {obj} of instance {number}"
            if not 0 <= number < len(self.instances) or obj not in self.instances[number].analysis.seg.objects:
                self.out.add("W01", unit, "unknown instance or object", fatal=True)
                continue
            if t["kind"][i] not in list(tb.BindKind):
                self.out.add("W01", unit, f"unknown kind {t['kind'][i]}", fatal=True)
                continue
            bind = Bind(tb.BindKind(t["kind"][i]), t["image"][i], t["placement"][i], t["source"][i], t["source_object"][i], t["word"][i])
            unused = {
                tb.BindKind.IMAGE: (bind.placement, bind.source, bind.source_object),
                tb.BindKind.PLACED: (bind.source, bind.source_object),
                tb.BindKind.OBJECT: (bind.image, bind.placement),
            }
            if any(value != tb.NONE for value in unused[bind.kind]) or (bind.source == tb.NONE) != (bind.source_object == tb.NONE):
                self.out.add("W05", unit, "an unused field is not -1")
            self._check_bind(unit, number, obj, bind)
            self.instances[number].binds[obj] = bind

    def _check_bind(self, unit: str, number: int, obj: int, bind: Bind) -> None:
        target = self.object((number, obj))
        if bind.word != tb.NONE:
            first, last = self.machine.data_first_word, self.machine.memory_words
            if not first <= bind.word <= last - target.words:
                self.out.add(
                    "W40", unit, f"words [{bind.word}, {bind.word + target.words}) leave the data words [{first}, {last})", fatal=True
                )
            if (bind.word - target.word) % 8:
                self.out.add("W13", unit, f"word {bind.word} is not at the same place modulo 8 as the segment's {target.word}")
        if bind.kind is tb.BindKind.OBJECT and bind.source != tb.NONE:
            known = 0 <= bind.source < number and bind.source_object in self.instances[bind.source].analysis.seg.objects
            if not known:
                self.out.add("W01", unit, f"object {bind.source_object} of instance {bind.source} is not an earlier one", fatal=True)

    def _read_pieces(self, binding: Binding) -> list[Piece]:
        unit = f"{binding.kind} {binding.name}"
        pieces: list[Piece] = []
        where = binding.where if isinstance(binding.where, list) else []
        for item in where:
            ok = (
                isinstance(item, Mapping)
                and set(item) == {"instance", "object", "placement"}
                and all(type(v) is int for v in item.values())
            )
            if not ok or not 0 <= item["instance"] < len(self.instances):
                self.out.add("W50", unit, f"{item!r} is not a piece of an object", fatal=True)
                continue
            slot = (item["instance"], item["object"])
            if slot[1] not in self.instances[slot[0]].analysis.seg.objects:
                self.out.add("W50", unit, f"instance {slot[0]} has no object {slot[1]}", fatal=True)
                continue
            region = self.instances[slot[0]].region(self.object(slot))
            size = int(np.prod(binding.shape, dtype=np.int64))
            problem = self.placements.problem(item["placement"], self.object(slot), region, size)
            if problem:
                self.out.add("W50", unit, problem, fatal=True)
                continue
            wanted = {"input": tb.ObjectKind.INPUT, "state": tb.ObjectKind.STATE}.get(binding.kind)
            root = self.object(self.root(slot))
            if wanted is not None and root.kind is not wanted:
                self.out.add("W50", unit, f"object {slot[1]} of instance {slot[0]} is {root.kind.name}, not {wanted.name}")
            pieces.append(Piece(slot, item["placement"]))
        if not where:
            self.out.add("W50", unit, "lies nowhere on the machine")
        return pieces

    # -- rules ---------------------------------------------------------------------------------------------------------------------

    def check(self) -> None:
        """Rules of this module; the tables are readable."""
        self._regions()
        self._images()
        self._chains()
        self._contents()
        self._words()
        self._coverage()

    def _regions(self) -> None:
        """W02: inside the program rectangle, and apart while they live."""
        found = []
        for instance in self.instances:
            for region in instance.analysis.seg.regions.values():
                x, y, w, h = instance.rectangle(region)
                name = f"region {region.id} of instance {instance.number}"
                if x < 0 or y < 0 or x + w > self.machine.program_cols or y + h > self.machine.program_rows:
                    size = f"{self.machine.program_cols} x {self.machine.program_rows}"
                    self.out.add(
                        "W02",
                        name,
                        f"columns {x}..{x + w - 1}, rows {y}..{y + h - 1} leave the program rectangle {size}",
                        prov=[region.prov],
                    )
                found.append((x, y, x + w, y + h, instance.start + region.first, instance.start + region.last, name, region.prov))
        if found and min(f[4] for f in found) > 0:
            self.out.add("W05", "table instances", "nothing starts at cycle 0")
        box = np.array([f[:6] for f in found], np.int64).reshape(-1, 6)
        for i, j in _meeting(box, (0, 2), (1, 3), (4, 5)):
            a, b = found[i], found[j]
            message = "two regions that live at one time intersect"
            self.out.add("W02", a[6], message, cycle=max(a[4], b[4]), claimants=[a[6], b[6]], prov=[a[7], b[7]])

    def _images(self) -> None:
        """W50: images and placements of binds fit their objects. A program without any image is for timing only."""
        bound = [tb.image_key(b.image) for i in self.instances for b in i.binds.values() if b.kind is not tb.BindKind.OBJECT]
        empty = not any(key in self.program.images for key in bound)
        for instance in self.instances:
            for number, bind in sorted(instance.binds.items()):
                if bind.kind is tb.BindKind.OBJECT:
                    continue
                obj, unit = self.object((instance.number, number)), f"bind of object {number} of instance {instance.number}"
                image = self.program.images.get(tb.image_key(bind.image))
                region = instance.region(obj)
                if image is None:
                    if not empty or bind.image < 0:
                        self.out.add("W50", unit, f"image {bind.image} is not there", fatal=True)
                    continue
                if str(image.dtype) != NUMPY[obj.fmt]:
                    self.out.add("W13", unit, f"image {bind.image} is {image.dtype}, the object {obj.fmt.name}", fatal=True)
                elif bind.kind is tb.BindKind.IMAGE and image.shape != (region.h, region.w, *obj.ext):
                    wanted = [region.h, region.w, *obj.ext]
                    self.out.add("W50", unit, f"image {bind.image} has shape {list(image.shape)}, it must be {wanted}", fatal=True)
                elif bind.kind is tb.BindKind.PLACED and (problem := self.placements.problem(bind.placement, obj, region, image.size)):
                    self.out.add("W50", unit, problem, fatal=True)

    def _chains(self) -> None:
        """W41, W43, W44: an object that continues another one is the same words, read after they are written."""
        for instance in self.instances:
            for number, bind in sorted(instance.binds.items()):
                if bind.kind is not tb.BindKind.OBJECT or bind.source == tb.NONE:
                    continue
                mine, source = self.object((instance.number, number)), self.object((bind.source, bind.source_object))
                other = self.instances[bind.source]
                unit = f"object {number} of instance {instance.number}"
                who = [f"object {source.id} of instance {other.number}", unit]
                same = instance.rectangle(instance.region(mine)) == other.rectangle(other.region(source))
                if not same or (instance.word(mine), mine.fmt, mine.size) != (other.word(source), source.fmt, source.size):
                    self.out.add("W41", unit, "continues an object of other words, cores or format", claimants=who, fatal=True)
                    continue
                life, before = instance.analysis.liveness.lives[number], other.analysis.liveness.lives[source.id]
                if before.last_write_end >= 0 and life.first >= 0 and instance.start + life.first < other.start + before.last_write_end:
                    cycle = instance.start + life.first
                    message = f"is used before its source is written at {other.start + before.last_write_end}"
                    self.out.add("W43", unit, message, cycle=cycle, claimants=who, prov=[mine.prov, source.prov])
                chain = (bind.source, bind.source_object)
                if self.object(self.root((instance.number, number))).kind in FILLED or self._complete(chain):
                    continue
                needed = instance.analysis.liveness.needed(number)
                if needed is not None and (needed & ~self._written(chain)).any():
                    self.out.add("W44", unit, "reads words that its source has not written", claimants=who, prov=[mine.prov, source.prov])

    def _chain(self, slot: Slot) -> Iterator[Slot]:
        """A slot and those that it continues."""
        yield slot
        bind = self.instances[slot[0]].binds.get(slot[1])
        while bind is not None and bind.kind is tb.BindKind.OBJECT and bind.source != tb.NONE:
            yield (bind.source, bind.source_object)
            bind = self.instances[bind.source].binds.get(bind.source_object)

    def _written(self, slot: Slot) -> np.ndarray:
        """Elements written in a slot's chain."""
        return reduce(np.logical_or, (self.instances[i].analysis.liveness.written(obj) for i, obj in self._chain(slot)))

    def _complete(self, slot: Slot) -> bool:
        """Whether every element is written in one of a slot's chain."""
        return any(self.instances[i].analysis.liveness.complete(obj) for i, obj in self._chain(slot))

    def _contents(self) -> None:
        """W44: objects with contents at cycle 0 get them from somewhere."""
        bound = {piece.slot for b in self.program.bindings if b.kind != "output" for piece in self.pieces[b.name]}
        for slot in self.slots():
            obj, bind = self.object(slot), self.instances[slot[0]].binds.get(slot[1])
            if (
                obj.kind not in FILLED
                or slot in bound
                or (bind is not None and (bind.kind is not tb.BindKind.OBJECT or bind.source != tb.NONE))
            ):
                continue
            self.out.add("W44", f"object {slot[1]} of instance {slot[0]}", f"{obj.kind.name} without contents", prov=[obj.prov])

    def lifetimes(self) -> dict[Slot, tuple[int, int]]:
        """Absolute [first, end) of every owned block of words (roots of chains)."""
        out: dict[Slot, tuple[int, int]] = {}
        kept = {self.root(piece.slot) for b in self.program.bindings if b.kind != "input" for piece in self.pieces[b.name]}
        for slot in self.slots():
            obj, root = self.object(slot), self.root(slot)
            life, start = self.instances[slot[0]].analysis.liveness.lives[slot[1]], self.instances[slot[0]].start
            whole = obj.kind in (tb.ObjectKind.WEIGHT, tb.ObjectKind.CONSTANT, tb.ObjectKind.STATE)
            if whole:
                first, end = 0, max(self.end, 1)
            elif life.first < 0:
                continue
            else:
                first, end = start + life.first, start + life.end
                if obj.kind is tb.ObjectKind.INPUT and root == slot:
                    first = 0
            if root in kept:
                end = max(self.end, 1)
            known = out.get(root, (first, end))
            out[root] = (min(known[0], first), max(known[1], end))
        return out

    def _words(self) -> None:
        """W42: objects that are alive at one time do not share words."""
        rows: list[tuple[Any, ...]] = []
        for slot, (first, end) in sorted(self.lifetimes().items()):
            obj, instance = self.object(slot), self.instances[slot[0]]
            x, y, w, h = instance.rectangle(instance.region(obj))
            word = instance.word(obj)
            rows.append((x, y, x + w, y + h, word, word + obj.words, first, end, slot))
        box = np.array([r[:8] for r in rows], np.int64).reshape(-1, 8)
        for i, j in _meeting(box, (0, 2), (4, 5), (6, 7), (1, 3)):
            a, b = rows[i], rows[j]
            names = [f"object {r[8][1]} of instance {r[8][0]}" for r in (a, b)]
            words = f"[{max(a[4], b[4])}, {min(a[5], b[5])})"
            prov = [self.object(r[8]).prov for r in (a, b)]
            self.out.add("W42", names[0], f"shares words {words} with {names[1]}", cycle=max(a[6], b[6]), claimants=names, prov=prov)

    def _coverage(self) -> None:
        """W50: outputs and states are complete at the end, from elements that were written."""
        for binding in self.program.bindings:
            size = int(np.prod(binding.shape, dtype=np.int64))
            covered = np.zeros(size, bool)
            for piece in self.pieces[binding.name]:
                mapping = self.map_of(piece.slot, piece.placement)
                made = binding.kind != "input" and self.object(self.root(piece.slot)).kind not in FILLED
                mapping.cover(covered, self._written(piece.slot) if made and not self._complete(piece.slot) else None)
            if not covered.all() and self.pieces[binding.name]:
                missing = int(size - covered.sum())
                self.out.add("W50", f"{binding.kind} {binding.name}", f"{missing} of {size} elements are nowhere or never written")

    def used_bytes(self) -> int:
        """M2: bytes of all cores that regions use: the union of their objects' words, and the reserved 15 KiB."""
        boxes = []
        for instance in self.instances:
            for obj in instance.analysis.seg.objects.values():
                x, y, w, h = instance.rectangle(instance.region(obj))
                boxes.append((x, y, x + w, y + h, instance.word(obj), instance.word(obj) + obj.words))
        regions = {i.rectangle(r) for i in self.instances for r in i.analysis.seg.regions.values()}
        total = 0
        for x0, y0, x1, y1 in cells([(x, y, x + w, y + h) for x, y, w, h in sorted(regions)]):
            inside = sorted({b[4:] for b in boxes if b[0] <= x0 and x1 <= b[2] and b[1] <= y0 and y1 <= b[3]})
            words, reach = 0, 0
            for first, last in inside:
                words += max(0, last - max(first, reach))
                reach = max(reach, last)
            total += (x1 - x0) * (y1 - y0) * 2 * (words + self.machine.data_first_word)
        return total

    def cores(self) -> int:
        """Cores that regions use."""
        regions = {i.rectangle(r) for i in self.instances for r in i.analysis.seg.regions.values()}
        return sum((x1 - x0) * (y1 - y0) for x0, y0, x1, y1 in cells([(x, y, x + w, y + h) for x, y, w, h in sorted(regions)]))

    def image_bytes(self) -> int:
        """Bytes that the host loads before cycle 0: the bound objects, copies and padding included."""
        total = 0
        for instance in self.instances:
            for number, bind in instance.binds.items():
                if bind.kind is not tb.BindKind.OBJECT:
                    obj = self.object((instance.number, number))
                    region = instance.region(obj)
                    total += region.w * region.h * obj.size * WORDS[obj.fmt] * 2
        return total


def _meeting(box: np.ndarray, *axes: tuple[int, int]) -> list[tuple[int, int]]:
    """Pairs i < j of boxes whose half-open intervals intersect on every axis (columns of first and end), in order."""
    order = np.argsort(box[:, axes[0][0]], kind="stable")
    ranked = box[order]
    # in order of their first end, only those that begin before this one ends can meet it
    last = np.searchsorted(ranked[:, axes[0][0]], ranked[:, axes[0][1]])
    count = np.maximum(last - np.arange(len(ranked)) - 1, 0)
    ends = np.cumsum(count)
    found: list[tuple[int, int]] = []
    low = 0
    while low < len(ranked):
        # pairs in blocks, so that few are there at a time
        begin = int(ends[low] - count[low])
        high = max(int(np.searchsorted(ends, begin + (1 << 18))), low + 1)
        i = np.repeat(np.arange(low, high), count[low:high])
        j = np.arange(len(i)) + begin - np.repeat(ends[low:high] - count[low:high], count[low:high]) + i + 1
        for first, end in axes:
            hit = (ranked[j, first] < ranked[i, end]) & (ranked[i, first] < ranked[j, end])
            i, j = i[hit], j[hit]
        found += [(min(a, b), max(a, b)) for a, b in zip(order[i].tolist(), order[j].tolist(), strict=True)]
        low = high
    return sorted(found)


def cells(rectangles: Sequence[tuple[int, int, int, int]]) -> list[tuple[int, int, int, int]]:
    """The union of rectangles as disjoint cells of the grid that their borders make."""
    xs = sorted({x for r in rectangles for x in (r[0], r[2])})
    ys = sorted({y for r in rectangles for y in (r[1], r[3])})
    out = []
    for y0, y1 in pairwise(ys):
        row = [r for r in rectangles if r[1] <= y0 and y1 <= r[3]]
        for x0, x1 in pairwise(xs):
            if any(r[0] <= x0 and x1 <= r[2] for r in row):
                out.append((x0, y0, x1, y1))
    return out
