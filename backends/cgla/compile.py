"""From a graph to a program: pieces become segments, copies become instances, values become DDR buffers.

Values that one piece makes and another reads (and inputs, outputs and states) have buffers of their own; constants have an image in the
layout of their reader; what lives inside a segment lies in one scratch buffer that all segments share. Instances run one after the other.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ...errors import Infeasible, UnsupportedOp
from ...ir.graph import Constant, ConstantRef, Graph, Input, Node, State
from ...ir.store import ConstantStore
from ...machines.cgla import tables as t
from ...machines.cgla.description import CglaMachine
from ...machines.program import Binding, Program, Segment, Table
from ...passes.computed import with_copies
from ..options import CompileOptions
from .bound import lower_bound
from .emit import Bound, Emitter, Given, Imaged, Scratch, Shared, Tabled, constant_cast
from .images import Image, image_array, stored
from .nest_launch import SMALLEST_DMA
from .nests import Value
from .pieces import Piece, cut, in_place
from .schedule import Pools
from .split import split_long_contractions

ALIGN = 64


def _aligned(size: int) -> int:
    return -(-size // ALIGN) * ALIGN


@dataclass(frozen=True)
class _Compiled:
    """One segment and what its symbols are bound to (template ids)."""

    piece: Piece
    tables: Mapping[str, Table]
    bounds: tuple[Bound, ...]
    sizes: tuple[int, ...]
    length: int


class _Memory:
    """DDR buffers, laid out one after the other, none smaller than `smallest` bytes."""

    def __init__(self, smallest: int) -> None:
        self.smallest = smallest
        self.rows: list[dict[str, int]] = []
        self._next = 0

    def add(self, kind: t.BufferKind, size: int, binding: int = -1) -> int:
        """A new buffer; returns its number."""
        size = max(size, 1 if kind == t.BufferKind.IMAGE else self.smallest)
        self.rows.append({"kind": int(kind), "address": self._next, "bytes": size, "binding": binding})
        self._next += _aligned(size)
        return len(self.rows) - 1

    def require(self, ddr_bytes: int) -> None:
        """Raises Infeasible where the buffers do not fit."""
        if self._next > ddr_bytes:
            levers = ["more memory (ddr_bytes)", "a smaller weight format (precision q8_0)", "a shorter sequence"]
            raise Infeasible("DMA-able memory", self._next, ddr_bytes, "bytes", "the whole program", levers)


class _Linker:
    """Gives buffers to values, images and scratch, and binds the symbols of every instance."""

    def __init__(self, graph: Graph, store: ConstantStore, options: CompileOptions, aliases: Mapping[int, int]) -> None:
        self.graph = graph
        self.store = store
        self.options = options
        self.aliases = aliases
        self.memory = _Memory(1 if options.host_ops == "published" else SMALLEST_DMA)
        self.bindings: list[Binding] = []
        self.images: dict[str, np.ndarray[Any, Any]] = {}
        self._image_buffers: dict[tuple[ConstantRef, Image], int] = {}
        self._value_buffers: dict[int, int] = {}
        self._tables: dict[bytes, int] = {}
        self.copies: list[tuple[int, int]] = []
        self.outputs: dict[int, int] = {}
        self._borders()

    def _borders(self) -> None:
        """Buffers of inputs, states and outputs; outputs and updates that cannot lie where they are computed are copied at the end."""
        graph = self.graph
        for given in graph.inputs:
            self._value_buffers[given.id] = self._bind("input", t.BufferKind.INPUT, given.name, given, given.range)
        for state in graph.states:
            buffer = self._value_buffers[state.id] = self._bind("state", t.BufferKind.STATE, state.name, state, state.range)
            if state.initial is not None and self.store.has(state.initial):
                first = stored(np.ascontiguousarray(self.store.get(state.initial)).reshape(-1), state.dtype.name)
                if first.any():
                    self.images[t.image_name(buffer)] = first
        for position, output in enumerate(graph.outputs):
            node = graph[output]
            buffer = self._bind("output", t.BufferKind.OUTPUT, f"output_{position}", node, None)
            moved = isinstance(node, Input | Constant) or output in self.aliases or constant_cast(graph, output) is not None
            if moved or output in self._value_buffers:
                self.copies.append((output, buffer))
            else:
                self._value_buffers[output] = buffer
        for name, update in sorted(graph.updates.items()):
            state = next(s for s in graph.states if s.name == name)
            if update != state.id and self.aliases.get(update) != state.id:
                self.copies.append((update, self._value_buffers[state.id]))

    def _bind(self, kind: str, buffer: t.BufferKind, name: str, node: Node, bounds: tuple[int, int] | None) -> int:
        stored = node.dtype.name
        path = str(self.options.paths.get(name, name))
        number = len(self.bindings)
        self.bindings.append(Binding(name, kind, stored, node.shape, stored, path, bounds, {"buffer": len(self.memory.rows)}))
        return self.memory.add(buffer, node.size * node.dtype.bytes, number)

    def value(self, node_id: int) -> int:
        """The buffer of a value that crosses pieces."""
        node_id = self.aliases.get(node_id, node_id)
        if node_id not in self._value_buffers:
            node = self.graph[node_id]
            self._value_buffers[node_id] = self.memory.add(t.BufferKind.WORK, node.size * node.dtype.bytes)
        return self._value_buffers[node_id]

    def image(self, node_id: int, image: Image) -> int:
        """The buffer of an image of a constant; without a value it stays empty (timing only)."""
        node = self.graph[node_id]
        assert isinstance(node, Constant)
        key = (node.ref, image)
        if key not in self._image_buffers:
            buffer = self._image_buffers[key] = self.memory.add(t.BufferKind.IMAGE, image.size)
            if self.store.has(node.ref.key):
                self.images[t.image_name(buffer)] = image_array(image, node.ref, self.store)
        return self._image_buffers[key]

    def table(self, values: np.ndarray[Any, Any], node_id: int) -> int:
        """The buffer of known bytes, which are the value of a node for other pieces (-1: of none)."""
        key = values.tobytes()
        if key not in self._tables:
            buffer = self._tables[key] = self.memory.add(t.BufferKind.IMAGE, len(key))
            self.images[t.image_name(buffer)] = values
        if node_id >= 0:
            self._value_buffers[node_id] = self._tables[key]
        return self._tables[key]


def compile_graph(graph: Graph, store: ConstantStore, options: CompileOptions) -> Program:
    """Compile `graph` for the machine of `options`. Raises Infeasible and UnsupportedOp."""
    machine: CglaMachine = options.machine
    graph = split_long_contractions(graph, machine)
    # the copies at the end must not take the old value of a state that one of them writes
    graph = with_copies(graph, lambda node: isinstance(node, State))
    pools = Pools(machine)
    aliases = in_place(graph)
    linker = _Linker(graph, store, options, aliases)
    pieces = cut(graph)
    crossing = _crossing(graph, pieces)
    compiled = []
    missing: list[tuple[str, str, str]] = []
    for number, piece in enumerate(pieces):
        options.progress("compile", number, len(pieces))
        compiled.append(_compile_piece(graph, pools, options, piece, crossing, aliases, missing))
    if linker.copies:  # a segment of their own: a state's buffer has one symbol in the segment that reads it
        end = Piece(len(graph.nodes), len(graph.nodes), ({},))
        compiled.append(_compile_piece(graph, pools, options, end, crossing, aliases, missing, linker.copies))
    _refuse(options, missing)
    options.progress("compile", len(pieces), len(pieces))
    return _link(graph, options, pools, linker, [c for c in compiled if c.length])


def _refuse(options: CompileOptions, missing: Sequence[tuple[str, str, str]]) -> None:
    """Lists every op that has no place on the array; `missing` are (label, why, provenance)."""
    if not missing:
        return
    kinds = Counter(f"{label} ({why})" for label, why, _ in missing)
    listed = ", ".join(f"{count} {kind}" for kind, count in sorted(kinds.items()))
    lost = f"leaves {len(missing)} ops without a place on this machine ({listed})"
    message = f"host_ops={options.host_ops!r} {lost}: use host_ops='published'"
    raise UnsupportedOp(message, [f"{label}: {why}: {where}" for label, why, where in missing])


def _crossing(graph: Graph, pieces: Sequence[Piece]) -> frozenset[int]:
    """Template ids whose value is read outside of their own copy, in any copy."""
    home: dict[int, tuple[int, int]] = {}
    template: dict[int, int] = {}
    for number, piece in enumerate(pieces):
        for copy in range(len(piece.copies)):
            for node_id in range(piece.start, piece.stop):
                actual = piece.counterpart(copy, node_id)
                home[actual] = (number, copy)
                template[actual] = node_id
    found = {template[o] for o in graph.outputs} | {template[u] for u in graph.updates.values()}
    for node in graph.nodes:
        for operand in node.operands:
            if home[operand] != home[node.id]:
                found.add(template[operand])
    return frozenset(found)


def _compile_piece(
    graph: Graph, pools: Pools, options: CompileOptions, piece: Piece, crossing: frozenset[int], aliases: Mapping[int, int],
    missing: list[tuple[str, str, str]], copies: Sequence[tuple[int, int]] = (),
) -> _Compiled:  # fmt: skip
    emitter = Emitter(graph, pools, options, piece.stop, crossing, aliases, missing)
    emitter.fetch_ahead(piece.start)
    for node_id in range(piece.start, piece.stop):
        emitter.emit(graph[node_id])
    emitter.flush()
    for source, buffer in copies:
        node = graph[source]
        symbol = emitter.symbol(Given(buffer), node.size * node.dtype.bytes)
        emitter.copy(source, Value(symbol, node.dtype.name, node.shape))
    schedule = emitter.schedule
    sizes = tuple(symbol.size for symbol in schedule.symbols)
    return _Compiled(piece, schedule.finish(), tuple(emitter.bounds), sizes, schedule.length)


def _link(graph: Graph, options: CompileOptions, pools: Pools, linker: _Linker, compiled: Sequence[_Compiled]) -> Program:
    """Program tables: instances one after the other, symbols bound to buffers."""
    scratch_size = max([_scratch_bytes(segment) for segment in compiled], default=0)
    scratch = linker.memory.add(t.BufferKind.WORK, scratch_size) if scratch_size else -1
    instances: list[dict[str, int]] = []
    binds: list[dict[str, int]] = []
    cycle = 0
    for number, segment in enumerate(compiled):
        for copy in range(len(segment.piece.copies)):
            binds += _binds(linker, segment, copy, len(instances), scratch)
            start = segment.piece.counterpart(copy, segment.piece.start)
            module = graph[start].origin.module if start < len(graph.nodes) else "outputs and states"
            instances.append({"segment": number, "cycle": cycle, "provenance": pools.note(module)})
            cycle += segment.length
    linker.memory.require(options.machine.ddr_bytes)
    tables = {
        "kernels": t.KERNELS.from_rows([{"provenance": pools.note(title)} for title in pools.titles]),
        "slots": t.SLOTS.from_rows([{"kernel": n, **slot} for n, slots in enumerate(pools.slots) for _, slot in sorted(slots.items())]),
        "registers": t.REGISTERS.from_rows(
            [
                {"set": n, "row": row, "col": col, "register": int(register), "value": value}
                for n, values in enumerate(pools.registers)
                for (row, col, register), value in sorted(values.items())
            ]
        ),
        "descriptors": t.DESCRIPTORS.from_rows(
            [
                {"set": n, "row": row, "col": col, "top": top, "bottom": bottom, "write": write, "read": read}
                for n, values in enumerate(pools.ranges)
                for (row, col), (top, bottom, write, read) in sorted(values.items())
            ]
        ),
        "buffers": t.BUFFERS.from_rows(linker.memory.rows),
        "instances": t.INSTANCES.from_rows(instances),
        "binds": t.BINDS.from_rows(binds),
    }
    return Program(
        target="cgla",
        machine=options.machine.to_json(),
        bindings=tuple(linker.bindings),
        tables=tables,
        segments=tuple(Segment(f"segment{n}", segment.tables) for n, segment in enumerate(compiled)),
        images=linker.images,
        predicted_cycles=cycle,
        bound=lower_bound(graph, options.machine, options.host_ops, options.precision or "fp16"),
        provenance=tuple(pools.provenance),
        meta=dict(options.meta),
    )


def _scratch_bytes(segment: _Compiled) -> int:
    return sum(_aligned(size) for size, bound in zip(segment.sizes, segment.bounds, strict=True) if isinstance(bound, Scratch))


def _binds(linker: _Linker, segment: _Compiled, copy: int, instance: int, scratch: int) -> list[dict[str, int]]:
    rows = []
    offset = 0
    for symbol, (bound, size) in enumerate(zip(segment.bounds, segment.sizes, strict=True)):
        row = {"instance": instance, "symbol": symbol, "offset": 0}
        if isinstance(bound, Shared):
            row["buffer"] = linker.value(segment.piece.counterpart(copy, bound.node))
        elif isinstance(bound, Imaged):
            row["buffer"] = linker.image(segment.piece.counterpart(copy, bound.node), bound.image)
        elif isinstance(bound, Tabled):
            row["buffer"] = linker.table(bound.values, segment.piece.counterpart(copy, bound.node) if bound.node >= 0 else -1)
        elif isinstance(bound, Given):
            row["buffer"] = bound.number
        else:
            row["buffer"], row["offset"] = scratch, offset
            offset += _aligned(size)
        rows.append(row)
    return rows
