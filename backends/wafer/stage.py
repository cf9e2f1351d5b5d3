"""The state of compiling one rectangle: which values are in memory and how they lie, what the segment wants bound, what is still read.

Constants, inputs and states are *free* until a nest first reads them: that nest decides how they are cut, since they are laid into
memory from outside before cycle 0. Constants are stored in the order in which a nest walks them (any affine access is undone when the
image is written), once for each different walk.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from math import prod
from typing import Any

import numpy as np

from ...errors import UnsupportedOp
from ...ir.access import strided
from ...ir.evaluate import evaluate
from ...ir.expr import Expr, axes_of
from ...ir.graph import Access, Constant, Graph, Index, Input, Node, State
from ...ir.types import BOOL, F16, DType
from ...machines.wafer.builder import Range, full, one
from ...machines.wafer.isa import NUMPY, WORDS, Element, Op
from ...machines.wafer.tables import ObjectKind
from .emitter import Emitter, Role
from .layout import WHOLE, Choice, Ref, Shard, Shards, Split, Splits, Value, X, Y, clashes, local_shape, reference, row_major
from .lines import PLAIN, reduce_line
from .memory import BANKS
from .relayout import Step, after, cheapest, plans


def element_of(dtype: DType) -> Element:
    """How a core stores values of an IR type: halves and small integers in a word, everything else in two."""
    if dtype is F16:
        return Element.F16
    if dtype.is_float:
        return Element.F32
    return Element.I16 if dtype is BOOL or dtype.bits <= 16 else Element.I32


ROOMY_WORDS = 4096
"""A source that would take more words than this on every core is laid out in even parts instead."""


def stored_element(node: Node) -> Element:
    """How a core stores a source: a constant whose stored form is f16 in that form, whatever its type."""
    return Element.F16 if isinstance(node, Constant) and node.ref.storage == "f16" else element_of(node.dtype)


@dataclass(frozen=True)
class Placed:
    """Contents of an object at cycle 0: a dense array seen through a placement (builder arguments)."""

    node: int
    """The Constant whose values they are, or -1."""
    key: tuple[object, ...]
    """What array is made of them (beside the constant's own key)."""
    make: Callable[[np.ndarray], np.ndarray]
    view: tuple[int, ...]
    origin: tuple[tuple[int, int, int], ...]
    coef: tuple[tuple[int, ...], ...]
    rows: Range
    cols: Range


@dataclass(frozen=True)
class Bound:
    """A piece of an input or state (its node) or of an output (its number): the object and where its elements lie in the tensor."""

    node: int
    obj: int
    view: tuple[int, ...]
    origin: tuple[tuple[int, int, int], ...]
    coef: tuple[tuple[int, ...], ...]
    rows: Range
    cols: Range


@dataclass
class Stage:
    """One rectangle under compilation."""

    e: Emitter
    graph: Graph
    half_sums: bool = False
    """Whether contractions add in f16 (option `accumulate=fp16`)."""
    values: dict[int, dict[Shards, Value]] = field(default_factory=dict)
    """For every computed node its copies by shards."""
    uses: dict[int, int] = field(default_factory=dict)
    imports: dict[int, Value] = field(default_factory=dict)
    exports: dict[int, Value] = field(default_factory=dict)
    placed: dict[int, Placed] = field(default_factory=dict)
    inputs: list[Bound] = field(default_factory=list)
    states: list[Bound] = field(default_factory=list)
    outputs: list[Bound] = field(default_factory=list)
    constants: dict[tuple[object, ...], int] = field(default_factory=dict)
    chosen: dict[int, Choice] = field(default_factory=dict)
    """How each node that is done was cut."""
    temporaries: list[int] = field(default_factory=list)
    """Objects to free when the node under compilation is done."""
    placements: set[int] = field(default_factory=set)
    """Inputs and states that have a place."""
    pinned: set[int] = field(default_factory=set)
    """Objects that stay: inputs, states and outputs."""

    # ---- sources

    def source_ref(self, node: Node, access: Access, axes: Sequence[int], splits: Splits, last: int | None = None) -> Ref:
        """A constant in the walk of a nest; `last` names the axis to lie innermost. The image holds every element in that order."""
        assert isinstance(node, Constant)
        used = [a for a in range(len(axes)) if axes[a] > 1 and any(isinstance(x, Index) and dict(x.terms).get(a) for x in access)]
        if last in used:
            used = [a for a in used if a != last] + [last]
        extents = tuple(axes[a] for a in used)
        cut = {s.axis: (m, s) for m, s in enumerate(splits) if s is not None and s.axis in used}
        local = tuple(cut[a][1].tile if a in cut else axes[a] for a in used)
        fmt = stored_element(node)
        row = _padded_row(local, fmt) if last in used else 0
        key = (node.ref.key, fmt, access, tuple(axes), tuple(used), splits)
        if key not in self.constants:
            alone = [k for k, a in enumerate(used) if a in cut or (row and k == len(used) - 1)]
            view, ext, groups = _merge_dims(extents, local, alone)
            origin = []
            for group in groups:
                m, split = cut.get(used[group[0]], (0, None)) if group else (0, None)
                tile = split.tile if split else 0
                origin.append((0, tile if split and m == Y else 0, tile if split and m == X else 0))
            pitch = row_major((*ext[:-1], row)) if row else None
            obj = self.e.object(fmt, ext or (1,), ObjectKind.WEIGHT, pitch)
            self.constants[key] = obj
            make = _maker(access, axes, used, fmt)
            rows = full(min(self.e.rows, splits[Y].count) if splits[Y] and splits[Y].axis in used else self.e.rows)  # type: ignore[union-attr]
            cols = full(min(self.e.cols, splits[X].count) if splits[X] and splits[X].axis in used else self.e.cols)  # type: ignore[union-attr]
            coef = tuple(tuple(int(i == j) for j in range(len(ext))) for i in range(len(ext)))
            image = (fmt, access, tuple(axes), tuple(used))
            self.placed[obj] = Placed(node.id, image, make, view or (1,), tuple(origin) or ((0, 0, 0),), coef or ((0,),), rows, cols)
        strides = [0] * len(axes)
        for a, s in zip(used, row_major((*local[:-1], row) if row else local), strict=True):
            strides[a] = s
        return Ref(self.constants[key], fmt, 0, tuple(strides))

    def iota(self, extent: int, split: Split | None, m: int) -> Ref:
        """Positions along an axis as i32, one dimension."""
        key = ("iota", extent, split, m if split else 0)
        if key not in self.constants:
            size = split.tile if split else extent
            obj = self.e.object(Element.I32, (size,), ObjectKind.CONSTANT)
            self.constants[key] = obj
            tile = split.tile if split else 0
            origin = ((0, tile if m == Y else 0, tile if m == X else 0),)
            rows = full(split.count if split and m == Y else self.e.rows)
            cols = full(split.count if split and m == X else self.e.cols)
            whole = split.tile * split.count if split else extent
            array = np.arange(whole, dtype=np.int32)
            self.placed[obj] = Placed(-1, ("iota", whole), lambda _: array, (whole,), origin, ((1,),), rows, cols)
        return Ref(self.constants[key], Element.I32, 0, (1,))

    def table(self, part: Expr, axes: Sequence[int], splits: Splits) -> Ref:
        """The values of an expression over positions alone, as an f32 constant over the axes that it walks."""
        used = list(axes_of(part))
        extents = tuple(axes[a] for a in used)
        cut = {s.axis: (m, s) for m, s in enumerate(splits) if s is not None and s.axis in used}
        local = tuple(cut[a][1].tile if a in cut else axes[a] for a in used)
        key = ("table", part, tuple(axes), splits)
        if key not in self.constants:
            view, ext, groups = _merge_dims(extents, local, [k for k, a in enumerate(used) if a in cut])
            origin = []
            for group in groups:
                m, split = cut.get(used[group[0]], (0, None))
                tile = split.tile if split else 0
                origin.append((0, tile if m == Y else 0, tile if m == X else 0))
            obj = self.e.object(Element.F32, ext or (1,), ObjectKind.CONSTANT)
            self.constants[key] = obj
            y, x = (s if s is not None and s.axis in used else None for s in splits)
            coef = tuple(tuple(int(i == j) for j in range(len(ext))) for i in range(len(ext)))
            rest = tuple(a for a in range(len(axes)) if a not in used)

            def make(_: np.ndarray) -> np.ndarray:
                array = np.broadcast_to(evaluate(part, [], axes), axes).transpose([*rest, *used])[(0,) * len(rest)]
                return np.ascontiguousarray(array).astype(np.float32)

            rows, cols = full(y.count if y else self.e.rows), full(x.count if x else self.e.cols)
            image = ("table", part, tuple(axes))
            self.placed[obj] = Placed(-1, image, make, view or (1,), tuple(origin) or ((0, 0, 0),), coef or ((0,),), rows, cols)
        strides = [0] * len(axes)
        for a, s in zip(used, row_major(local), strict=True):
            strides[a] = s
        return Ref(self.constants[key], Element.F32, 0, tuple(strides))

    def place_free(self, node: Node, shards: Shards) -> Value:
        """Give an input, a state or a constant (read whole) its place."""
        fmt = element_of(node.dtype)
        if isinstance(node, Constant):
            rank = len(node.shape)
            access = tuple(Index(0, ((d, 1),)) if node.shape[d] > 1 else Index() for d in range(rank))
            splits = _splits_of(shards)
            ref = self.source_ref(node, access, node.shape, splits)
            value = Value(node.shape, ref.fmt, shards, ref.obj, local_shape(node.shape, shards))
        else:
            kind = ObjectKind.INPUT if isinstance(node, Input) else ObjectKind.STATE
            local = local_shape(node.shape, shards)
            words_kind = ObjectKind.STATE
            view, ext, origin, rows, cols = self.spread(node.shape, local, shards)
            obj = self.e.object(fmt, ext, words_kind)
            self.e.builder.objects[obj]["kind"] = int(kind)
            value = Value(node.shape, fmt, shards, obj, local)
            assert isinstance(node, (Input, State))
            coef = tuple(tuple(int(i == j) for j in range(len(ext))) for i in range(len(ext)))
            bound = Bound(node.id, obj, view, origin, coef, rows, cols)
            (self.inputs if isinstance(node, Input) else self.states).append(bound)
        self.pinned.add(value.obj)
        self.placements.add(node.id)
        self.values.setdefault(node.id, {})[shards] = value
        return value

    def spread(
        self, shape: Sequence[int], local: Sequence[int], shards: Shards
    ) -> tuple[tuple[int, ...], tuple[int, ...], tuple[tuple[int, int, int], ...], Range, Range]:
        """View, object extents, origins and cores of a value, for a placement: dimensions that are not cut are merged."""
        cut = {s.dim: m for m, s in enumerate(shards) if s is not None}
        padded = [d for d in range(len(shape)) if shape[d] != local[d]]
        view, ext, groups = _merge_dims(tuple(shape), tuple(local), sorted(set(cut) | set(padded)))
        origin = []
        for group in groups:
            m = cut.get(group[0]) if group else None
            shard = shards[m] if m is not None else None
            origin.append((0, shard.tile if shard and m == Y else 0, shard.tile if shard and m == X else 0))
        y, x = shards
        rows = full(y.count if y else self.e.rows)
        cols = full(x.count if x else self.e.cols)
        return view or (1,), ext or (1,), tuple(origin) or ((0, 0, 0),), rows, cols

    def bound(self, node: int, value: Value) -> Bound:
        """Where a value lies, for a binding."""
        view, ext, origin, rows, cols = self.spread(value.shape, value.local, value.shards)
        coef = tuple(tuple(int(i == j) for j in range(len(ext))) for i in range(len(ext)))
        return Bound(node, value.obj, view, origin, coef, rows, cols)

    def mark(self) -> tuple[Any, ...]:
        """A state to return to with `back`."""
        lists = (len(self.inputs), len(self.states), len(self.outputs))
        values = {k: dict(v) for k, v in self.values.items()}
        sets = (set(self.pinned), set(self.placements))
        return (self.e.mark(), values, dict(self.uses), dict(self.placed), dict(self.constants), *sets, lists)

    def back(self, mark: tuple[Any, ...]) -> None:
        """Forget everything since `mark`."""
        emitter, values, uses, placed, constants, pinned, placements, (inputs, states, outputs) = mark
        self.values = {k: dict(v) for k, v in values.items()}
        self.uses, self.placed, self.constants = dict(uses), dict(placed), dict(constants)
        self.pinned, self.placements = set(pinned), set(placements)
        self.e.back(emitter)
        self.temporaries = []
        del self.inputs[inputs:], self.states[states:], self.outputs[outputs:]

    # ---- values

    def new(self, shape: Sequence[int], fmt: Element, shards: Shards, kind: ObjectKind = ObjectKind.ACTIVATION) -> Value:
        """An uninitialised value."""
        local = local_shape(shape, shards)
        ext = self.spread(shape, local, shards)[1] if placeable(shape, shards) else (prod(local),)
        return Value(tuple(shape), fmt, shards, self.e.object(fmt, ext, kind), local)

    def variants(self, node_id: int) -> dict[Shards, Value]:
        """The copies of a value that are in memory."""
        return self.values.get(node_id, {})

    def operand(
        self, node_id: int, access: Access, axes: Sequence[int], splits: Splits, last: int | None = None, clean: bool = False,
        clipped: bool = False,
    ) -> Ref:  # fmt: skip
        """Where the cores of `splits` read a node; makes copies whole and places free sources on the way. `last` names the axis that a
        constant should have innermost, `clean` asks for zeros in padding (which holds anything finite or not elsewhere). `clipped` says
        that cores read only what there is, wherever the access leads."""
        node, size = self.graph[node_id], (self.e.rows, self.e.cols)
        if isinstance(node, Constant) and all(isinstance(x, Index) for x in access) and not clipped:
            return self.source_ref(node, access, axes, splits, last)
        if not self.variants(node_id):
            self.place_free(node, free_shards(node, access, axes, splits, size))
        if clean:
            for value in self.variants(node_id).values():
                self._clean(value)
        found = [p for v in self.variants(node_id).values() for p in plans(v, access, axes, splits, size)]
        plan = cheapest(found, self.e.words.holes[1]) or min(found, key=lambda p: p.words)
        value = plan.value
        for step in plan.steps:
            whole = step.full and not value.shift
            before = value
            value = self.unshard(node_id, value, step.m) if whole else collect(self, value, step, splits)
            if before.obj in self.temporaries:
                self.temporaries.remove(before.obj)
                self.e.free(before.obj)
        return reference(value if clipped else self._padded(value, access, axes, splits), access, axes, splits)

    def _clean(self, value: Value) -> None:
        """Zeros where a value's blocks reach beyond the tensor."""
        y, x = _splits_of(value.shards)
        for d, extent in enumerate(value.shape):
            m = next((m for m, s in enumerate(value.shards) if s is not None and s.dim == d), None)
            shard = value.shards[m] if m is not None else None
            first = extent - shard.tile * (shard.count - 1) if shard is not None else extent
            role = self.e.role((y, x))
            if shard is not None:
                last = one(shard.count - 1)
                role = Role(last, role.cols) if m == Y else Role(role.rows, last)
            if first < value.local[d]:
                part = [n - first if k == d else n for k, n in enumerate(value.local)]
                target = Ref(value.obj, value.fmt, first * value.strides[d], value.strides)
                self.e.vec(Op.MOV, PLAIN[value.fmt], role, part, target, 0.0)

    def _padded(self, value: Value, access: Access, axes: Sequence[int], splits: Splits) -> Value:
        """The value, or a copy with zeros behind its end where cores of a padded cut would read beyond it."""
        local = list(value.local)
        for d, entry in enumerate(access):
            if not isinstance(entry, Index) or any(value.offsets[d]):
                continue
            high = entry.offset
            for axis, c in entry.terms:
                m = next((m for m, s in enumerate(splits) if s is not None and s.axis == axis), None)
                split = splits[m] if m is not None else None
                shard = value.shards[m] if m is not None else None
                extent = axes[axis]
                if split is not None:
                    extent = split.tile if shard is not None and shard.dim == d else split.tile * split.count
                high += max(0, c * (extent - 1))
            local[d] = max(local[d], high + 1)
        if tuple(local) == value.local:
            return value
        size = prod(local)
        obj = self.e.object(value.fmt, (size,), ObjectKind.SCRATCH)
        self.temporaries.append(obj)
        copy = Value(value.shape, value.fmt, value.shards, obj, tuple(local), value.shift)
        role = self.e.role(splits)
        self.e.vec(Op.MOV, PLAIN[value.fmt], role, [size], Ref(obj, value.fmt, 0, (1,)), 0.0)
        source = Ref(value.obj, value.fmt, 0, value.strides)
        self.e.vec(Op.MOV, PLAIN[value.fmt], role, value.local, Ref(obj, value.fmt, 0, copy.strides), source)
        return copy

    def unshard(self, node_id: int, value: Value, m: int) -> Value:
        """A copy that is whole along mesh axis `m`: blocks laid into zeros and added up along every line."""
        shard = value.shards[m]
        assert shard is not None
        shards: Shards = (None, value.shards[X]) if m == Y else (value.shards[Y], None)
        known = self.variants(node_id).get(shards)
        if known is not None:
            return known
        local = list(value.local)
        local[shard.dim] = shard.tile * shard.count
        other = value.shards[1 - m]
        size = prod(local)
        obj = self.e.object(value.fmt, (size,), ObjectKind.ACTIVATION)
        whole = Value(value.shape, value.fmt, shards, obj, tuple(local))
        y, x = (Split(0, 1, s.count) if s else None for s in value.shards)
        lines: Splits = (None, x) if m == Y else (y, None)
        fmt = PLAIN[value.fmt]
        flat = Ref(obj, value.fmt, 0, (1,))
        self.e.vec(Op.MOV, fmt, self.e.role(lines), [size], flat, 0.0)
        step = shard.tile * whole.strides[shard.dim]
        d = Ref(obj, value.fmt, 0, whole.strides, step if m == Y else 0, step if m == X else 0)
        self.e.vec(Op.MOV, fmt, self.e.role((y, x)), value.local, d, Ref(value.obj, value.fmt, 0, value.strides))
        across = other.count if other else (self.e.cols if m == Y else self.e.rows)
        reduce_line(self.e, m, shard.count, across, flat, size)
        self.values[node_id][shards] = whole
        return whole

    def done(self, node_id: int, value: Value) -> None:
        """A node has been computed."""
        self.drop_temporaries()
        self.values.setdefault(node_id, {})[value.shards] = value

    def drop_temporaries(self) -> None:
        """Free the copies that were made for one nest."""
        for obj in self.temporaries:
            self.e.free(obj)
        self.temporaries = []

    def release(self, operands: Sequence[int]) -> None:
        """One reader less for each operand; memory of values without readers is free again."""
        for operand in operands:
            self.uses[operand] -= 1
            if self.uses[operand] == 0:
                copies = self.values.pop(operand, {})
                for value in copies.values():
                    if value.obj not in self.pinned and value.obj in self.e.address:
                        self.e.free(value.obj)
                if operand in self.placements:
                    self.values[operand] = {k: v for k, v in copies.items() if v.obj in self.pinned}


def collect(stage: Stage, value: Value, step: Step, splits: Splits) -> Value:
    """Carry out one step of a relayout: a copy for one nest, freed when the node is done."""
    e, m = stage.e, step.m
    shard = value.shards[m]
    assert shard is not None
    made = after(value, step)
    buffer = e.object(value.fmt, (made.size,), ObjectKind.SCRATCH)
    home = buffer if step.blocks == 1 else e.object(value.fmt, (made.size,), ObjectKind.SCRATCH)
    stage.temporaries.append(home)
    fmt = PLAIN[value.fmt]
    flat = Ref(buffer, value.fmt, 0, (1,))
    count = lines_of(e, value, step, splits)
    for block in range(step.blocks):
        e.vec(Op.MOV, fmt, _cells(m, full(shard.count), full(count)), [made.size], flat, 0.0)
        for lines, part, source, target in _pieces(value, made, step, block, count):
            role = _cells(m, full(shard.count), lines)
            source, target = replace(source, obj=value.obj), replace(target, obj=buffer)
            window = step.windows[shard.dim]
            if window is None:
                move = shard.tile * made.strides[shard.dim]
                target = replace(target, per_row=move if m == Y else 0, per_col=move if m == X else 0)
                e.vec(Op.MOV, fmt, role, part, target, source)
                continue
            rank = len(part)
            index = stage.iota(shard.tile * shard.count, Split(shard.dim, shard.tile, shard.count), m)
            index = index.walk([int(d == shard.dim) for d in range(rank)])
            target = target.walk([0 if d == shard.dim else s for d, s in enumerate(target.strides)])
            per = [0 if k == m else window.per[k] for k in (Y, X)]
            look = (window.first + window.per[m] * block, window.width, made.strides[shard.dim], per[Y], per[X])
            inner = max((d for d in range(rank) if d != shard.dim and part[d] > 1), key=lambda d: part[d], default=-1)
            e.vec(Op.STX, fmt, role, part, target, source, None, index, inner=inner, look=look)
        reduce_line(e, m, shard.count, count, flat, made.size)
        if home != buffer:
            e.vec(Op.MOV, fmt, _cells(m, one(block), full(count)), [made.size], replace(flat, obj=home), flat)
    if home != buffer:
        e.free(buffer)
    return replace(made, obj=home)


def lines_of(e: Emitter, value: Value, step: Step, splits: Splits) -> int:
    """How many lines take part in a copy for a nest: those that hold the value and, in the last step, run the nest."""
    other, across = value.shards[1 - step.m], splits[1 - step.m]
    count = other.count if other is not None else (e.cols if step.m == Y else e.rows)
    return min(count, across.count) if across is not None and step.last else count


def _cells(m: int, along: Range, across: Range) -> Role:
    return Role(along, across) if m == Y else Role(across, along)


def _pieces(value: Value, made: Value, step: Step, block: int, count: int) -> list[tuple[Range, list[int], Ref, Ref]]:
    """What every core copies in one round: (lines, extents, source, target). Lines whose windows reach beyond the tensor copy less."""
    m = step.m
    shard = value.shards[m]
    assert shard is not None
    narrow = [d for d, w in enumerate(step.windows) if w is not None and d != shard.dim]

    def place(line: int) -> list[tuple[int, int]]:
        """Per narrowed dimension how much of the window lies before the tensor, and how much of it lies inside."""
        found = []
        for d in narrow:
            window = step.windows[d]
            assert window is not None
            start = window.first + window.per[m] * block + window.per[1 - m] * line
            skip = max(0, -start)
            found.append((skip, min(window.width, value.local[d] - start) - skip))
        return found

    first = [w.first + w.per[m] * block for d in narrow if (w := step.windows[d]) is not None]
    per = sum(w.per[1 - m] * value.strides[d] for d in narrow if (w := step.windows[d]) is not None)
    pieces: list[tuple[Range, list[int], Ref, Ref]] = []
    line = 0
    while line < count:
        here = place(line)
        end = line + 1
        while end < count and place(end) == here:
            end += 1
        if all(n > 0 for _, n in here):
            part = list(value.local)
            source = target = 0
            for d, at, (skip, n) in zip(narrow, first, here, strict=True):
                part[d] = n
                source += (at + skip) * value.strides[d]
                target += skip * made.strides[d]
            moves = 0 if end == line + 1 else per
            source += per * line if end == line + 1 else 0
            from_ = Ref(-1, value.fmt, source, value.strides, 0 if m == Y else moves, moves if m == Y else 0)
            pieces.append(((line, end, 1), part, from_, Ref(-1, value.fmt, target, made.strides)))
        line = end
    return pieces


def _padded_row(local: Sequence[int], fmt: Element) -> int:
    """The length to which rows of a constant are padded so that all start at the same bank (C6), 0 where they are not."""
    step = BANKS // WORDS[fmt]
    if len(local) < 2 or local[-1] % step == 0:
        return 0
    padded = -(-local[-1] // step) * step
    return padded if padded * 4 <= local[-1] * 5 else 0


def ideal_shards(shape: Sequence[int], access: Access, axes: Sequence[int], splits: Splits) -> Shards:
    """How a source should be cut so that every core holds just what a nest reads there; whole where that is no block."""
    found: list[Shard | None] = [None, None]
    for m, split in enumerate(splits):
        if split is None:
            continue
        for d, entry in enumerate(access):
            coefficient = dict(entry.terms).get(split.axis, 0) if isinstance(entry, Index) else 0
            taken = m == X and found[Y] is not None and found[Y].dim == d  # type: ignore[union-attr]
            if coefficient > 0 and not taken:
                shard = Shard(d, coefficient * split.tile, split.count)
                whole = Value(tuple(shape), Element.F16, (shard, None) if m == Y else (None, shard), 0, tuple(shape))
                if not clashes(whole, access, axes, splits) and shard.tile * shard.count >= shape[d]:
                    found[m] = shard
                    break
    return (found[0], found[1])


def free_shards(node: Node, access: Access, axes: Sequence[int], splits: Splits, size: tuple[int, int]) -> Shards:
    """Where a source is laid for its first reader: just what each core reads, or in even parts where all of it would be much."""
    shards = ideal_shards(node.shape, access, axes, splits)
    if prod(local_shape(node.shape, shards)) * WORDS[element_of(node.dtype)] <= ROOMY_WORDS:
        return shards
    even = roomy_shards(node.shape, *size)
    return min(shards, even, key=lambda s: prod(local_shape(node.shape, s))) if placeable(node.shape, even) else shards


def roomy_shards(shape: Sequence[int], rows: int, cols: int) -> Shards:
    """A cut that keeps little of a large tensor on each core."""
    if prod(shape) <= 1024 or not shape:
        return WHOLE
    d = max(range(len(shape)), key=lambda i: shape[i])
    tile = -(-shape[d] // cols)
    x = Shard(d, tile, -(-shape[d] // tile)) if cols > 1 else None
    rest = [i for i in range(len(shape)) if i != d]
    e = max(rest, key=lambda i: shape[i], default=-1)
    if rows == 1 or e < 0 or shape[e] == 1:
        return (None, x)
    tile = -(-shape[e] // rows)
    return (Shard(e, tile, -(-shape[e] // tile)), x)


def _splits_of(shards: Shards) -> Splits:
    y, x = (Split(s.dim, s.tile, s.count) if s else None for s in shards)
    return (y, x)


def placeable(shape: Sequence[int], shards: Shards) -> bool:
    """Whether a placement (four dimensions) can describe a value that is cut like this."""
    cut = {s.dim for s in shards if s is not None}
    runs, inside = 0, False
    for d, extent in enumerate(shape):
        if d in cut:
            runs, inside = runs + 1, False
        elif extent > 1 and not inside:
            runs, inside = runs + 1, True
    return runs <= 4


def _merge_dims(
    shape: Sequence[int], local: Sequence[int], keep: Sequence[int]
) -> tuple[tuple[int, ...], tuple[int, ...], list[list[int]]]:
    """Dimensions merged into at most four, those in `keep` on their own: view, local extents, and which dimensions form each."""
    groups: list[list[int]] = []
    for d in range(len(shape)):
        if shape[d] == 1 and local[d] == 1 and d not in keep:
            continue
        if groups and d not in keep and groups[-1][0] not in keep:
            groups[-1].append(d)
        else:
            groups.append([d])
    if len(groups) > 4:
        raise UnsupportedOp(f"a value of shape {list(shape)} cut along {list(keep)} has more than four runs of dimensions")
    view = tuple(prod(shape[d] for d in g) for g in groups)
    ext = tuple(prod(local[d] for d in g) for g in groups)
    return view, ext, groups


def _maker(access: Access, axes: Sequence[int], used: Sequence[int], fmt: Element) -> Callable[[np.ndarray], np.ndarray]:
    """A function that gives a constant as an array over the axes `used`, in their order."""

    def make(values: np.ndarray) -> np.ndarray:
        array = strided(values, access, axes, full=True)
        rest = [a for a in range(len(axes)) if a not in used]
        array = array.transpose([*rest, *used])[(0,) * len(rest)]
        with np.errstate(over="ignore"):
            return np.ascontiguousarray(array).astype(NUMPY[fmt])

    return make
