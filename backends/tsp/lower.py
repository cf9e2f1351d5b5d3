"""Lowering of nodes: operands are fetched as tables of elements, moved where their lanes differ, and run through the engine.

`Lowering` holds the values of one chip's segment. Its parts, by kind of node, are in `lower_map.py` (Map, Reduce), `lower_contract.py`
(Contract, Gather, Scatter) and `move.py` (lane moves).
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from typing import Any

import numpy as np

from ...errors import Infeasible, UnsupportedOp
from ...ir.access import access_strides
from ...ir.graph import Access, Graph, Node
from ...ir.store import ConstantStore
from ...machines.tsp.isa import NUMPY, WIDTH, DType, Opcode
from .engine import Avoid, Engine, Image, Maker, Provider, Sink
from .memory import LANES, Seq, Storage
from .recipes import Prim, Ref, positive_nodes
from .route import ChainOp, balance, levels, result_type
from .values import Copy, Digits, Value, along_lanes, arrange, row_major_strides

Array = np.ndarray
BLOCK = 2048
"""Vectors that a long list of operations takes at a time."""


@dataclass
class Lowering:
    """Values of the nodes lowered so far, on one engine."""

    engine: Engine
    graph: Graph
    store: ConstantStore
    values: dict[int, Value] = field(default_factory=dict)
    deferred: frozenset[int] = frozenset()
    """Gathers that are left to the contractions that read them."""
    known: frozenset[int] = frozenset()
    """Constants whose numbers are the same in every copy of the section, so that the program may depend on them."""

    @cached_property
    def positive(self) -> frozenset[int]:
        """Nodes whose every element is surely > 0 or NaN."""
        return positive_nodes(self.graph)

    def surely_positive(self, node: Node) -> Callable[[int], bool]:
        """Whether the k-th operand of a node is such a node."""
        return lambda k: node.operands[k] in self.positive

    def value(self, number: int) -> Value:
        """The value of a node."""
        return self.values[number]

    def users(self, number: int) -> tuple[int, ...]:
        """Nodes that read a node."""
        return self.graph.users[number]

    # tables --------------------------------------------------------------------------------------------------------------
    def operand_strides(self, node: Any, k: int) -> tuple[int, tuple[int, ...]]:
        """Flat offset and flat stride per axis of an affine operand."""
        found = access_strides(node.accesses[k], self.graph[node.operands[k]].shape, len(node.axes))
        return found.offset, found.strides

    # fetching ------------------------------------------------------------------------------------------------------------
    def fetch(self, value: Value, need: Array, clean: bool = False) -> Provider:
        """A provider of the vectors `need` [vectors, 320] of a value; `clean`: lanes of -1 must hold zero."""
        if not clean:
            need = filled_rows(spread_constant_rows(need))
        if value.array is not None:
            return self._constant(value, need)
        for copy in value.copies:
            found = copy.locate(need, value.size)
            if found is not None and (not clean or _is_clean(copy, found, need)):
                return self.engine.provide(copy.seq.take(found))
        for copy in value.copies:
            found = copy.locate(need, value.size)
            if found is not None:
                return self._cleaned(value, copy, found, need)
        from .move import move

        unique, inverse = unique_rows(need)
        copy = move(self, value, unique, clean and bool((unique < 0).any()))
        value.copies.append(copy)
        return self.engine.provide(copy.seq.take(inverse))

    def _constant(self, value: Value, need: Array) -> Provider:
        unique, inverse = unique_rows(need)

        def image(array: Array | None, first: int, last: int) -> Array:
            assert value.array is not None
            flat = (value.array if array is None else value.derived(array)).reshape(-1)
            some = unique[first:last]
            return np.asarray(np.where(some >= 0, flat[np.maximum(some, 0)], flat.dtype.type(0)))

        return self.constant_vectors(image, len(unique), value.dtype, inverse, (unique.tobytes(), constant_identity(value)), value.source)

    def constant_vectors(self, image: Image, count: int, dtype: DType, index: Array, key: Hashable, source: int | None = None) -> Provider:
        """A provider of the vectors `index` of an image (see `Engine.constant`)."""

        def get(avoid: Avoid, part: Array | None) -> Seq:
            wanted = index if part is None else index[part]
            return Seq.chain(self.engine.constant(count, dtype, avoid, key, image, source)).take(wanted)

        return Provider(get)

    def table(self, rows: Array, dtype: DType, index: Array) -> Provider:
        """A provider of constant vectors `rows[index]`."""
        return self.constant_vectors(lambda _, first, last: rows[first:last], len(rows), dtype, index, (rows.shape[1], rows.tobytes()))

    def splat(self, bits: int, dtype: DType, count: int) -> Provider:
        """A provider of `count` times the same constant in all lanes."""
        width = WIDTH[dtype]
        number = np.array([bits], dtype=f"<u{width}").view(NUMPY[dtype])
        return self.table(np.repeat(number[None], LANES, axis=1), dtype, np.zeros(count, dtype=np.int64))

    def _cleaned(self, value: Value, copy: Copy, found: Array, need: Array) -> Provider:
        """The vectors `found` with zeros in the lanes that `need` leaves open, as a new copy."""
        unique, inverse = unique_rows(need)
        first = np.zeros(len(unique), dtype=np.int64)
        first[inverse] = np.arange(len(need))
        source = copy.seq.take(found[first])
        mask = self.mask(unique >= 0, value.dtype)
        op = ChainOp(Opcode.AND, value.dtype, (("in", 0), ("in", 1)))
        target = self.sink(value.dtype, len(unique))
        (seq,) = self.engine.run("clean", [self.engine.provide(source), mask], [op], [Sink(0, target)], len(unique))
        made = Copy(unique, seq, copy.lanes, False, True)
        value.copies.append(made)
        return self.engine.provide(seq.take(inverse))

    def mask(self, valid: Array, dtype: DType) -> Provider:
        """All bits set in the valid lanes of every vector, none elsewhere."""
        unique, inverse = unique_rows(valid.astype(np.int8))
        ones = np.where(unique > 0, -1, 0).astype(f"<i{WIDTH[dtype]}").view(NUMPY[dtype])
        return self.table(ones, dtype, inverse)

    def sink(self, dtype: DType, count: int, spare: bool = False) -> Maker:
        """A fresh linear storage."""
        return lambda avoid: self.engine.scratch(dtype, count, avoid, spare)

    # running expressions -------------------------------------------------------------------------------------------------
    def run_prims(
        self, label: str, prims: Sequence[Prim], result: Ref, source: Any, count: int, dtype: DType, spare: bool = False,
        tail: ChainOp | None = None, group: int = 1,
    ) -> Seq:  # fmt: skip
        """Run a list of operations over `count` vectors; returns fresh vectors in format `dtype`, one for every `group` of them.

        `source(ref)` gives the provider of an arg, fold or constant. `tail`, an accumulation, is applied to `result` in the last chain.
        Long lists run block by block, so that what is held between chains stays small.
        """
        refs = dict.fromkeys(ref for ref in (*(a for prim in prims for a in prim.args), result) if ref.kind != "op")
        sources = {ref: source(ref) for ref in refs}
        block = max(1, BLOCK // group) * group
        if count <= 2 * block:
            return self._run_prims(label, prims, result, sources, count, self.sink(dtype, count // group, spare), tail, group)
        engine = self.engine
        parts: list[Seq] = []
        for first in range(0, count, block):
            index = np.arange(first, min(first + block, count))
            held = len(engine.storages)
            part = {ref: provider.take(index) for ref, provider in sources.items()}
            sink = self._beside(dtype, len(index) // group, spare, parts)
            parts.append(self._run_prims(label, prims, result, part, len(index), sink, tail, group))
            kept = {id(storage) for storage in parts[-1].storages}
            fresh, engine.storages = engine.storages[held:], engine.storages[:held]
            for storage in fresh:
                if id(storage) in kept:
                    engine.storages.append(storage)
                else:
                    engine.allocator.release(storage)
        return Seq.join(parts)

    def _beside(self, dtype: DType, count: int, spare: bool, parts: Sequence[Seq]) -> Maker:
        """A fresh storage in the hemisphere of earlier parts, where that has room."""
        beside = frozenset(unit for part in parts for unit in part.units)
        other = frozenset(unit for unit in range(88) if beside and unit // 44 != next(iter(beside)) // 44)

        def make(avoid: Avoid) -> Seq:
            try:
                return self.engine.scratch(dtype, count, avoid | other, spare, beside)
            except Infeasible:
                return self.engine.scratch(dtype, count, avoid, spare)

        return make

    def _run_prims(
        self, label: str, prims: Sequence[Prim], result: Ref, sources: dict[Ref, Provider], count: int, sink: Maker,
        tail: ChainOp | None, group: int,
    ) -> Seq:  # fmt: skip
        """One block, cut into chains that fit the ALU grid."""
        last_use = {number: max((k for k, prim in enumerate(prims) if Ref("op", r.dtype, r.index) in prim.args), default=-1)
                    for number, r in ((n, _ref_of(prims, n)) for n in range(len(prims)))}  # fmt: skip
        if result.kind == "op":
            last_use[result.index] = max(last_use[result.index], len(prims) - 1)
        temps: dict[int, Provider] = {}
        start = 0
        if not prims or (result.kind != "op"):
            return self._chunk(label, prims, 0, 0, result, sources, temps, last_use, count, sink, tail, group)[0]
        while start < len(prims):
            for stop in _cuts(start, len(prims)):
                try:
                    seqs = self._chunk(label, prims, start, stop, result, sources, temps, last_use, count, sink, tail, group)
                    break
                except _NoFit:
                    if stop == start + 1 and not (tail is not None and stop == len(prims)):
                        raise UnsupportedOp(f"one vector operation does not fit the ALU grid: {prims[start]}") from None
            start = stop
            if start == len(prims):
                return seqs[0]
        raise AssertionError("unreachable")

    def _chunk(
        self, label: str, prims: Sequence[Prim], start: int, stop: int, result: Ref, sources: dict[Ref, Provider],
        temps: dict[int, Provider], last_use: dict[int, int], count: int, sink: Maker, tail: ChainOp | None, group: int,
    ) -> list[Seq]:  # fmt: skip
        """One chain: operations start..stop, whose results that are needed later go to temporaries."""
        final = stop == len(prims)
        feeds: list[Provider] = []
        fixed: list[bool] = []
        types: list[DType] = []
        shared: dict[Any, int] = {}
        ops: list[ChainOp] = []

        def feed(ref: Ref) -> tuple[str, int]:
            if ref.kind == "op" and ref.index >= start:
                return "op", ref.index - start
            moving = ref.kind in ("op", "arg")
            key: Any = (ref.kind, ref.index) if moving else len(feeds)
            if key not in shared:
                shared[key] = len(feeds)
                feeds.append(temps[ref.index] if ref.kind == "op" else sources[ref])
                fixed.append(moving)
                types.append(ref.dtype)
            return "in", shared[key]

        ops += [ChainOp(p.opcode, p.dtype, tuple(feed(a) for a in p.args), p.dtype2, p.modular) for p in prims[start:stop]]
        outputs = [k - start for k in range(start, stop) if last_use[k] >= stop]
        answer: int | None = None
        if final:
            if tail is not None:
                ops.append(ChainOp(tail.opcode, tail.dtype, (feed(result),)))
                answer = len(ops) - 1
            elif result.kind == "op" and result.index >= start:
                answer = result.index - start
            else:
                ops.append(ChainOp(Opcode.IDENTITY, result.dtype, (feed(result),)))
                answer = len(ops) - 1
        balanced, renamed = balance(ops, fixed, types)
        if len(balanced) > 16:
            raise _NoFit
        sinks = [] if answer is None else [Sink(renamed[answer], sink)]
        made: list[int] = []
        for k in outputs:
            sinks.append(Sink(renamed[k], self.sink(result_type(ops[k]), count)))
            made.append(k + start)
        if not self.engine.fits([0] * len(feeds), balanced, [(s.op, 1) for s in sinks]):
            raise _NoFit
        if max(levels(balanced)) > 10:
            raise _NoFit
        try:
            seqs = self.engine.run(label, feeds, balanced, sinks, count, group)
        except UnsupportedOp:
            raise _NoFit from None
        for number, seq in zip(made, seqs[len(sinks) - len(made) :], strict=True):
            temps[number] = self.engine.provide(seq)
        return seqs


class _NoFit(Exception):
    """A chain does not fit; cut it shorter."""


def _cuts(start: int, count: int) -> list[int]:
    rest = count - start
    return [start + n for n in dict.fromkeys((rest, 14, 12, 10, 8, 6, 5, 4, 3, 2, 1)) if 1 <= n <= rest]


def _ref_of(prims: Sequence[Prim], number: int) -> Ref:
    prim = prims[number]
    converts = prim.opcode == Opcode.CAST or Opcode.EQ <= prim.opcode <= Opcode.LE
    return Ref("op", prim.dtype2 if converts else prim.dtype, number)


def constant_identity(value: Value) -> Hashable:
    """What tells constants apart: the node and what is made of its array, or the array itself where there is no node."""
    made = value.transform.__name__ if value.transform is not None else ""
    return (value.source, made) if value.source is not None else id(value.array)


def spread_constant_rows(need: Array) -> Array:
    """Rows that ask for one element only ask for it in every lane: open lanes may hold anything, and equal rows become equal."""
    top = need.max(axis=1, keepdims=True)
    same = ((need == top) | (need < 0)).all(axis=1, keepdims=True)
    return np.asarray(np.where(same, top, need)) if same.any() else need


def filled_rows(need: Array) -> Array:
    """Rows that ask for nothing ask for what the first other row does: a vector that nobody fills could not be read."""
    empty = need.max(axis=1) < 0
    return np.where(empty[:, None], need[int(empty.argmin())], need) if empty.any() else need


def unique_rows(table: Array) -> tuple[Array, Array]:
    """Distinct rows in order of first appearance, and the number of each row among them.

    Rows are told apart by a 64-bit hash of their bytes (odd multipliers of a fixed generator).
    """
    if len(table) == 1:
        return table, np.zeros(1, dtype=np.int64)
    rows = np.ascontiguousarray(table)
    bits = rows.view(np.uint8).reshape(len(rows), -1)
    words = bits.view(np.uint64) if bits.shape[1] % 8 == 0 else bits.astype(np.uint64)
    mixed = words * _mixer(words.shape[1])
    keys = (mixed ^ (mixed >> np.uint64(29))).sum(axis=1, dtype=np.uint64)
    _, first, inverse = np.unique(keys, return_index=True, return_inverse=True)
    order = np.argsort(first)
    rank = np.empty_like(order)
    rank[order] = np.arange(len(order))
    return rows[first[order]], rank[inverse.reshape(-1)]


@lru_cache(maxsize=8)
def _mixer(width: int) -> Array:
    """Odd multipliers, one a lane, fixed."""
    return np.random.Generator(np.random.PCG64(width)).integers(0, 1 << 63, width, dtype=np.uint64) * np.uint64(2) + np.uint64(1)


def _is_clean(copy: Copy, found: Array, need: Array) -> bool:
    open_lanes = need < 0
    if not open_lanes.any():
        return True
    return copy.clean and bool((copy.element[found][open_lanes] < 0).all())


def digits(strides: Sequence[int], extents: Sequence[int], axes: Sequence[int]) -> Digits:
    """(stride, extent) of the axes named, in that order."""
    return tuple((strides[a], extents[a]) for a in axes)


def lane_axes(value: Value, strides: Sequence[int], extents: Sequence[int]) -> tuple[int, ...] | None:
    """The axes that walk along the lanes of a value's first copy, outermost first; None where the copy is irregular."""
    if not value.copies or not value.copies[0].lanes:
        return None
    lanes = value.copies[0].lanes
    found = []
    for a, stride in enumerate(strides):
        if stride and extents[a] > 1:
            position = along_lanes(lanes, stride)
            if position >= 0:
                found.append((position, -abs(stride), a))
    return tuple(a for _, _, a in sorted(found))


__all__ = ["Access", "Lowering", "Node", "Storage", "arrange", "digits", "lane_axes", "row_major_strides", "unique_rows"]
