"""Compiling a graph for the TSP: sections become segments, their copies instances, and instances fill chips in order.

Every section is lowered once, on a timeline of its own. Constants, inputs and state choose their slices there; rows are given when the
instances are known (`assemble.py`). Values that pass from section to section, or from copy to copy, lie in **slots**: rows that no
later section's scratch uses, at the same place on every chip.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ...errors import Infeasible, UnsupportedOp
from ...ir.graph import Constant, Contract, Gather, Graph, Input, Map, Move, Node, Reduce, Scan, Scatter, Sort, State
from ...ir.store import ConstantStore
from ...machines.program import Program
from ...machines.tsp.isa import NUMPY
from ...machines.tsp.tables import Kind
from ..options import CompileOptions
from .assemble import Assembly, Slot
from .bound import lower_bound
from .engine import Engine
from .gathered import defers
from .lower import Lowering as BaseLowering
from .lower import digits
from .lower_contract import lower_contract
from .lower_gather import lower_gather
from .lower_map import lower_map, lower_reduce
from .lower_move import ensure_copy, lower_move
from .lower_other import lower_scan, lower_scatter, lower_sort
from .memory import LANES, Allocator, Seq, Storage
from .recipes import ISA_TYPE
from .sections import Section, cut, read_outside
from .step import Timeline
from .values import Copy, Value, arrange, row_major_strides

Box = tuple[tuple[int, int], ...]
"""(start, extent) per dimension."""


@dataclass
class Lowering(BaseLowering):
    """The lowering of one section: sources and imported values are made at first use."""

    slots: Mapping[int, Slot] = field(default_factory=dict)
    borders: dict[int, list[Storage]] = field(default_factory=dict)

    def users(self, number: int) -> tuple[int, ...]:
        """Nodes that read a node."""
        return self.graph.users[number]

    def value(self, number: int) -> Value:
        """The value of a node: lowered here, a source, or imported from a slot."""
        if number not in self.values:
            node = self.graph[number]
            if isinstance(node, Constant):
                self.values[number] = self._constant_node(node)
            elif isinstance(node, (Input, State)):
                self.values[number] = self._border(node)
            else:
                self.values[number] = self._import(number)
        return self.values[number]

    def _constant_node(self, node: Constant) -> Value:
        return Value(node.shape, ISA_TYPE[node.dtype], array=constant_array(node, self.store), source=node.id)

    def _border(self, node: Input | State) -> Value:
        element, lanes = border_layout(node.shape)
        kind = Kind.INPUT if isinstance(node, Input) else Kind.STATE
        storages = []
        for _, count in border_parts(node.shape, self.engine.machine.rows):
            storage = self.engine.allocator.linear(ISA_TYPE[node.dtype], count, kind, frozenset(), node.name)
            storage.source = node.id
            storages.append(storage)
        self.borders[node.id] = storages
        return Value(node.shape, ISA_TYPE[node.dtype], [Copy(element, Seq.chain(storages), lanes, False, True)])

    def _import(self, number: int) -> Value:
        slot = self.slots[number]
        storages = slot.storages(number)
        copy = Copy(slot.element, Seq.chain(storages), slot.lanes, slot.replicated, slot.clean)
        return Value(self.graph[number].shape, slot.dtype, [copy])


def constant_array(node: Constant, store: ConstantStore) -> np.ndarray:
    """The value of a constant in its format on the machine."""
    return np.asarray(store.get(node.ref.key)).reshape(node.shape).astype(NUMPY[ISA_TYPE[node.dtype]], copy=False)


_RULES: Mapping[type[Node], Callable[[Any, Any], Value]] = {
    Map: lower_map, Reduce: lower_reduce, Contract: lower_contract, Gather: lower_gather, Move: lower_move, Scatter: lower_scatter,
    Scan: lower_scan, Sort: lower_sort,
}  # fmt: skip


def compile_graph(graph: Graph, store: ConstantStore, options: CompileOptions) -> Program:
    """A legal static schedule of the whole graph; with the strategy `solver` the faster of greedy's and one with balanced constants.

    Raises Infeasible where chips run out, UnsupportedOp for what has no recipe.
    """
    programs: list[Program] = []
    failure: Infeasible | None = None
    for solve in (False, True) if options.strategy == "solver" else (False,):
        try:
            programs.append(_compiled(graph, store, options, solve))
        except Infeasible as error:
            failure = error
    if not programs:
        assert failure is not None
        raise failure
    return min(programs, key=lambda program: program.predicted_cycles)


def _compiled(graph: Graph, store: ConstantStore, options: CompileOptions, solve: bool) -> Program:
    allocator = Allocator(options.machine)
    sections = cut(graph)
    assembly = Assembly(options.machine, graph, store, allocator, options)
    wanted = read_outside(graph, sections)
    done: set[int] = set()
    position = 0
    while position < len(sections):
        options.progress("emit", position, len(sections))
        assembly.begin(sections[position])
        lowering, rest = _lower_section(graph, store, sections[position], assembly)
        if solve:
            _release(lowering, final=True)
            plan = allocator.solved(options.seed)
            lowering, rest = _lower_section(graph, store, sections[position], assembly, plan)
        if rest:
            sections[position : position + 1] = sections[position].split(rest)
            wanted = read_outside(graph, sections)
        section = sections[position]
        local = local_updates(graph, section)
        done |= {counterpart for number in local for counterpart in section.copies(number)}
        if position == len(sections) - 1:
            _outputs(lowering, assembly)
            local = {number for number in graph.updates.values() if number not in done} | local
        _exports(lowering, section, wanted[position], assembly)
        _states(lowering, assembly, {name: number for name, number in graph.updates.items() if number in local})
        _release(lowering, final=True)
        assembly.add(section, lowering.engine.timeline, lowering.borders)
        position += 1
    return assembly.program(lower_bound(graph, options.machine))


def _lower_section(
    graph: Graph, store: ConstantStore, section: Section, assembly: Assembly, plan: Sequence[int] = ()
) -> tuple[Lowering, frozenset[int]]:
    """The section lowered, and which of its nodes are left for another section because memory has become crowded.

    `plan` are the sets that its striped constants lie in (`Allocator.solved`); without one they choose as they come.
    """
    allocator = assembly.allocator
    allocator.begin(plan)
    engine = Engine(assembly.machine, allocator, Timeline(section.name))
    keep = {*graph.outputs, *graph.updates.values()}
    inside = set(section.nodes)
    for number in section.nodes:
        keep |= {number} if any(user not in inside for user in graph.users[number]) else set()
    deferred = frozenset(n for n in section.nodes if n not in keep and isinstance(node := graph[n], Gather) and defers(graph, node))
    lowering = Lowering(engine, graph, store, deferred=deferred, known=known_indices(graph, store, section), slots=assembly.slots)
    reads = {
        number: [r for o in graph[number].operands for r in (graph[o].operands if o in deferred else (o,))]
        for number in section.nodes if number not in deferred
    }  # fmt: skip
    last = {operand: number for number, operands in reads.items() for operand in operands}
    ending: dict[int, list[int]] = {}
    for number, user in last.items():
        ending.setdefault(user, []).append(number)
    for position, (number, operands) in enumerate(reads.items()):
        node = graph[number]
        engine.label = f"%{number} {node.origin.module or node.kind}"
        for operand in operands:
            lowering.value(operand)
        lowering.values[number] = _lowered(lowering, node)
        for done in ending.get(number, ()):
            if done in inside and done not in keep:
                lowering.values[done].clear()
        _release(lowering)
        if section.count == 1 and allocator.crowded() and position + 1 < len(reads):
            waiting = frozenset(list(reads)[position + 1 :])
            later = {gather for gather in deferred if not waiting.isdisjoint(graph.users[gather])}
            if all(waiting.issuperset(graph.users[gather]) for gather in later):  # a gather is made where all of its readers are
                return lowering, waiting | later
    return lowering, frozenset()


def known_indices(graph: Graph, store: ConstantStore, section: Section) -> frozenset[int]:
    """Constants that gathers of a section look positions up in, where all copies of the section hold the same numbers."""
    found, changing = set(), set()
    for number in section.nodes:
        if isinstance(graph[number], Gather):
            for c, counterpart in enumerate(section.copies(number)):
                for first, now in zip(graph[number].operands[1:], graph[counterpart].operands[1:], strict=True):
                    node, other = graph[first], graph[now]
                    if not isinstance(node, Constant) or not isinstance(other, Constant):
                        continue
                    found.add(first)
                    if c and first != now and not np.array_equal(constant_array(node, store), constant_array(other, store)):
                        changing.add(first)
    return frozenset(found - changing)


def _lowered(lowering: Lowering, node: Node) -> Value:
    try:
        return _RULES[type(node)](lowering, node)
    except UnsupportedOp as error:
        where = f"{node.origin.op or node.kind} in {node.origin.module or 'the model'} ({node.origin.source or 'no source line'}): {error}"
        raise UnsupportedOp(f"tsp cannot compile {where}", [where]) from error


def border_layout(shape: tuple[int, ...]) -> tuple[np.ndarray, Any]:
    """The arrangement of inputs, outputs and state: the last dimension along lanes, the others along vectors, row-major."""
    extents = shape or (1,)
    strides = row_major_strides(extents)
    lanes = digits(strides, extents, (len(extents) - 1,))
    return arrange(0, digits(strides, extents, range(len(extents) - 1)), lanes), lanes


def border_parts(shape: tuple[int, ...], most: int) -> list[tuple[Box, int]]:
    """Boxes (start, extent per dimension) in row-major order and their vectors, each of at most `most` vectors."""
    extents = shape or (1,)
    tiles = -(-extents[-1] // LANES)
    outer = extents[:-1]
    whole = tuple((0, n) for n in extents)
    if int(np.prod(outer, dtype=np.int64)) * tiles <= most:
        return [(whole, int(np.prod(outer, dtype=np.int64)) * tiles)]
    depth = next(d for d in range(len(outer)) if int(np.prod(outer[d + 1 :], dtype=np.int64)) * tiles <= most)
    inner = int(np.prod(outer[depth + 1 :], dtype=np.int64)) * tiles
    step = most // inner
    parts = []
    for lead in np.ndindex(*outer[:depth]):
        for first in range(0, outer[depth], step):
            count = min(step, outer[depth] - first)
            parts.append(((*((i, 1) for i in lead), (first, count), *whole[depth + 1 :]), count * inner))
    return parts


def _release(lowering: Lowering, final: bool = False) -> None:
    """Give back scratch that no value refers to any more."""
    live: set[int] = set()
    if not final:
        live = {id(s) for value in lowering.values.values() for copy in value.stored() for s in _used(copy.seq)}
    remaining = []
    for storage in lowering.engine.storages:
        if id(storage) not in live:
            lowering.engine.allocator.release(storage)
        else:
            remaining.append(storage)
    lowering.engine.storages = remaining


def _used(seq: Seq) -> list[Storage]:
    return [seq.storages[int(k)] for k in np.unique(seq.which)]


def _states(lowering: Lowering, assembly: Assembly, updates: Mapping[str, int]) -> None:
    """Write new values of states back, when all that this section reads of them, outputs and exports among it, has been read."""
    engine = lowering.engine
    engine.label = "state"
    pending: list[tuple[Seq, Seq]] = []
    for name, number in sorted(updates.items()):
        state = _state_node(lowering.graph, name)
        target = lowering.value(state).copies[0].seq
        assembly.updated.add(lowering.borders[state][0])
        source = arranged(lowering, number)
        if not _same_vectors(source, target):
            pending.append((source, target))
    written = {id(storage) for _, target in pending for storage in target.storages}
    moved = []
    for source, target in pending:  # a new value that is an old one is read before any is written
        if target.units & source.units or any(id(storage) in written for storage in _used(source)):
            source = engine.copy(source, target.units)
        moved.append((source, target))
    for source, target in moved:
        engine.copy_into(source, target)


def _same_vectors(one: Seq, two: Seq) -> bool:
    """Whether two sequences of one length are the same stored vectors in the same order."""
    both, count = Seq.join([one, two]), len(one)
    return np.array_equal(both.which[:count], both.which[count:]) and np.array_equal(both.vector[:count], both.vector[count:])


def _state_node(graph: Graph, name: str) -> int:
    return next(node.id for node in graph.states if node.name == name)


def local_updates(graph: Graph, section: Section) -> set[int]:
    """Update values made by a section (its first copy) whose old state nobody outside that copy reads: written back in the section."""
    inside, found = set(section.nodes), set()
    for name, number in graph.updates.items():
        state = _state_node(graph, name)
        if number in inside and state not in graph.outputs and all(user in inside for user in graph.users[state]):
            found.add(number)
    return found


def _outputs(lowering: Lowering, assembly: Assembly) -> None:
    """Copy every output to where its binding says."""
    engine = lowering.engine
    engine.label = "results"
    done: dict[int, list[tuple[Box, Storage]]] = {}
    for position, number in enumerate(lowering.graph.outputs):
        if number not in done:
            shape = lowering.graph[number].shape
            done[number] = _in_place(lowering, number)
        if not done[number]:
            source = arranged(lowering, number)
            first = 0
            for box, count in border_parts(shape, engine.machine.rows):
                part = source.take(np.arange(first, first + count))
                storage = engine.allocator.linear(source.dtype, count, Kind.OUTPUT, part.units, f"output {position}")
                engine.copy_into(part, Seq.of(storage))
                done[number].append((box, storage))
                first += count
        assembly.outputs.append((f"output_{position}", number, done[number]))


def _in_place(lowering: Lowering, number: int) -> list[tuple[Box, Storage]]:
    """A large result of a contraction that already lies as an output: its storages become the output's, without a copy."""
    value = lowering.value(number)
    shape = lowering.graph[number].shape
    if not value.copies or not value.copies[0].blocks or number not in lowering.values or not shape:
        return []
    copy = value.copies[0]
    if not np.array_equal(copy.element, border_layout(shape)[0]):
        return []
    found: list[tuple[Box, Storage]] = []
    for storage, low, high in copy.blocks:
        if storage.kind != Kind.SCRATCH or storage.slot is not None:
            return []
        start = low * LANES
        found.append(((*((0, n) for n in shape[:-1]), (start, min(high * LANES, shape[-1]) - start)), storage))
    for _, storage in found:
        storage.kind = Kind.OUTPUT
    return found


def arranged(lowering: Lowering, number: int) -> Seq:
    """The value as inputs and outputs are arranged."""
    value = lowering.value(number)
    element, _ = border_layout(value.shape)
    if value.array is not None:
        return ensure_copy(lowering, value).seq
    return lowering.fetch(value, element)(frozenset())


def _exports(lowering: Lowering, section: Section, wanted: set[int], assembly: Assembly) -> None:
    """Put every value that leaves the section, or passes on to the next copy, into its slot."""
    engine = lowering.engine
    engine.label = f"{section.name} exports"
    carried = assembly.carried(section)
    for number in sorted(wanted):
        value = lowering.values[number]
        if number in carried:
            slot = assembly.slots[carried[number]]
            source = lowering.fetch(value, slot.element, slot.clean)(frozenset())
        else:
            copy = ensure_copy(lowering, value)
            source = copy.seq
            slot = Slot.of(copy, engine.allocator, f"%{number}", source.units, section.count > 1)
        assembly.export(section, number, slot)
        targets = slot.storages(number)
        for storage, (bank, row) in zip(targets, assembly.places[number], strict=True):
            storage.after = engine.allocator.until(storage, bank, row)
        if source.units & frozenset(u for s in targets for u in s.units):
            source = engine.copy(source, frozenset(u for s in targets for u in s.units))
        engine.copy_into(source, Seq.chain(targets))
