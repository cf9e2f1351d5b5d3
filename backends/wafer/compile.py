"""Compile a graph for the wafer: choose a rectangle, compile every node on it in order, and put the program together.

A rectangle is tried from the smallest that can hold the constants; `Full` anywhere makes it larger. A first, unlimited run finds how many
words the constants take on a core; the second keeps those free from above while activations grow from below.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from math import ceil, prod, sqrt
from typing import Any

import numpy as np

from ...errors import BadInput, Infeasible
from ...ir.graph import Constant, Contract, Gather, Graph, Input, Map, Move, Node, Reduce, Scan, Scatter, Sort, State
from ...ir.store import ConstantStore
from ...machines.program import Binding, Program, Segment
from ...machines.wafer.builder import ProgramBuilder
from ...machines.wafer.description import WaferMachine
from ...machines.wafer.isa import NUMPY, WORDS
from ...machines.wafer.tables import image_key
from ..options import CompileOptions
from .bound import lower_bound
from .choose import Chooser, largest_divisor, units_of
from .elementwise import convert
from .emitter import Emitter
from .layout import WHOLE, Ref, Splits, Value
from .lines import lay_routes
from .memory import Full
from .movement import emit_gather, emit_move, emit_scatter
from .nests import emit_contract, emit_map, emit_reduce
from .order import emit_scan, emit_sort
from .stage import Bound, Stage, _splits_of, element_of, identity

EMITTERS: dict[type[Node], Callable[[Stage, Any, Splits], Value]] = {
    Map: emit_map, Reduce: emit_reduce, Contract: emit_contract, Move: emit_move, Gather: emit_gather, Scatter: emit_scatter,
    Sort: emit_sort, Scan: emit_scan,
}  # fmt: skip
_UNLIMITED = 1 << 24
_TRIES = 6
"""Cuts of one node that are tried before the rectangle is given up."""


class Provenance:
    """The program's pool of strings."""

    def __init__(self) -> None:
        self.numbers: dict[str, int] = {}

    def number(self, node: Node) -> int:
        """The index of a node's provenance string."""
        origin = node.origin
        text = " ".join(x for x in (node.kind.lower(), origin.module, origin.op, origin.source) if x)
        return self.numbers.setdefault(text, len(self.numbers))


def compile_stage(
    graph: Graph, store: ConstantStore, machine: WaferMachine, rows: int, cols: int, reserve: int | None, pool: Provenance,
    units: list[tuple[int, ...]],
) -> Stage:  # fmt: skip
    """The whole graph on one rectangle. `reserve` words of a core are kept for constants; None measures without limits. Raises Full."""
    emitter = Emitter(machine, "whole", rows, cols, reserve or 0)
    if reserve is None:
        emitter.words.high = emitter.words.top = _UNLIMITED
    stage = Stage(emitter, graph, store)
    lay_routes(emitter)
    stage.uses = {n.id: 0 for n in graph.nodes}
    for node in graph.nodes:
        for operand in node.operands:
            stage.uses[operand] += 1
    for kept in (*graph.outputs, *graph.updates.values()):
        stage.uses[kept] += 1
    chooser = Chooser(stage, units)
    for node in graph.nodes:
        if isinstance(node, (Constant, Input, State)):
            continue
        emitter.prov = pool.number(node)
        _compile_node(stage, chooser, node)
    emitter.prov = -1
    _finish(stage)
    emitter.builder.regions[0]["last"] = emitter.now
    return stage


def _compile_node(stage: Stage, chooser: Chooser, node: Node) -> None:
    """The node with its cheapest cut that fits."""
    failure: Full | None = None
    for choice in chooser.choices(node)[:_TRIES]:
        mark = stage.mark()
        try:
            value = EMITTERS[type(node)](stage, node, choice.splits)
        except Full as full:
            failure = full
            stage.back(mark)
            continue
        stage.done(node.id, value)
        stage.release(node.operands)
        return
    raise failure or Full(_node_words(node))


def _node_words(node: Node) -> int:
    return prod(node.shape) * WORDS[element_of(node.dtype)]


def _finish(stage: Stage) -> None:
    """States in their places, outputs bound."""
    graph = stage.graph
    for name, update in sorted(graph.updates.items()):
        state = next(n for n in graph.states if n.name == name)
        if not stage.variants(state.id):
            stage.place_free(state, WHOLE)
        home = next(v for v in stage.variants(state.id).values() if v.obj in stage.pinned)
        new = graph[update]
        if home.obj not in {v.obj for v in stage.variants(update).values()}:
            splits = _splits_of(home.shards)
            source = stage.operand(new.id, identity(len(home.shape)), home.shape, splits)
            convert(stage.e, stage.e.role(splits), home.local, Ref(home.obj, home.fmt, 0, home.strides), source)
    for node in (*graph.inputs, *graph.states):
        if not stage.variants(node.id):
            stage.place_free(node, WHOLE)
    for number, output in enumerate(graph.outputs):
        node = graph[output]
        if not stage.variants(output):
            stage.place_free(node, WHOLE)
        value = max(stage.variants(output).values(), key=lambda v: sum(s is not None for s in v.shards))
        if value.obj in stage.pinned and isinstance(node, (Input, State)):
            value = _copied(stage, value)
        stage.outputs.append(stage.bound(f"output_{number}", value))


def _copied(stage: Stage, value: Value) -> Value:
    """A copy, for an output that is an input or the old value of a state."""
    new = stage.new(value.shape, value.fmt, value.shards)
    role = stage.e.role(_splits_of(value.shards))
    convert(stage.e, role, value.local, Ref(new.obj, new.fmt, 0, new.strides), Ref(value.obj, value.fmt, 0, value.strides))
    return new


def rectangles(graph: Graph, machine: WaferMachine, options: CompileOptions) -> Iterator[tuple[int, int]]:
    """(rows, columns) to try, small first: enough cores for the constants, with rows and columns that divide the contractions' extents."""
    if options.region is not None:
        cols, rows = options.region
        if not (1 <= rows <= machine.program_rows and 1 <= cols <= machine.program_cols):
            raise BadInput(f"a region of {cols} x {rows} does not fit the {machine.program_cols} x {machine.program_rows} cores")
        yield rows, cols
        return
    words = sum(n.size * WORDS[element_of(n.dtype)] for n in graph.constants)
    contracts = [n for n in graph.nodes if isinstance(n, Contract)]
    extents = sorted({a for n in contracts for a in n.axes if a >= 16})
    data = machine.memory_words - machine.data_first_word
    cores = max(1, words / (0.45 * data))
    if words < data // 8 and not any(n.size > data // 16 for n in graph.nodes):
        cores = 1
    limit = min(machine.program_rows, machine.program_cols)
    side = max(1, ceil(sqrt(cores)))
    seen: set[tuple[int, int]] = set()
    for _ in range(24):
        best = max(range(side, min(limit, 2 * side) + 1), key=lambda s: (_fill(s, extents), -s)) if side > 1 else 1
        if (best, best) not in seen:
            seen.add((best, best))
            yield best, best
        if side >= limit:
            return
        side = min(limit, max(side + 1, ceil(side * 1.4)))


def _fill(side: int, extents: list[int]) -> float:
    """How well a side of this length divides the extents: the mean of used to present rows, against the length itself."""
    if not extents:
        return 0.0
    return sum(largest_divisor(n, side) / side for n in extents) / len(extents) - 0.002 * side


def compile_graph(graph: Graph, store: ConstantStore, options: CompileOptions) -> Program:
    """The program. Raises Infeasible where no rectangle of the machine can hold the model, UnsupportedOp for what a core cannot do."""
    machine = options.machine
    if options.overhead != machine.overhead:
        changed = tuple(sorted({*machine.changed, "overhead"})) if machine.preset else ()
        machine = machine.model_copy(update={"overhead": options.overhead, "changed": changed})
    units = units_of(graph)
    failure: Full | None = None
    last = (0, 0)
    for rows, cols in rectangles(graph, machine, options):
        last = (rows, cols)
        try:
            measured = compile_stage(graph, store, machine, rows, cols, None, Provenance(), units)
            pool = Provenance()
            reserve = _UNLIMITED - measured.e.words.top
            stage = compile_stage(graph, store, machine, rows, cols, reserve, pool, units)
        except Full as full:
            failure = full
            continue
        return assemble(stage, options, machine, pool)
    lacking = failure.words if failure else 0
    where = f"a region of {last[1]} x {last[0]} cores"
    levers = ("a larger region", "a shorter sequence", "fp16 partial sums")
    raise Infeasible("core memory", machine.data_bytes + 2 * lacking, machine.data_bytes, "bytes", where, levers)


def assemble(stage: Stage, options: CompileOptions, machine: WaferMachine, pool: Provenance) -> Program:
    """One segment, one instance, its images and bindings."""
    builder = ProgramBuilder()
    instance = builder.instance(0, 0, 0, 0)
    images: dict[str, np.ndarray] = {}
    numbers: dict[tuple[object, ...], int] = {}
    for obj, placed in sorted(stage.placed.items()):
        if placed.key not in numbers:
            numbers[placed.key] = len(numbers)
            images[image_key(numbers[placed.key])] = placed.make().reshape(-1)
        placement = builder.placement(placed.view, placed.origin, placed.coef, placed.rows, placed.cols)
        builder.bind_placed(instance, obj, numbers[placed.key], placement)
    bindings = [
        _binding(stage, builder, instance, options, kind, bound)
        for kind, found in (("input", stage.inputs), ("output", stage.outputs), ("state", stage.states))
        for bound in found
    ]
    segment: Segment = stage.e.builder.build()
    return Program(
        target="wafer",
        machine=machine.to_json(),
        bindings=tuple(bindings),
        tables=dict(builder.tables()),
        segments=(segment,),
        images=images,
        predicted_cycles=stage.e.now,
        bound=lower_bound(stage.graph, machine, options.region),
        provenance=tuple(pool.numbers),
        meta=dict(options.meta),
    )


def _binding(stage: Stage, builder: ProgramBuilder, instance: int, options: CompileOptions, kind: str, bound: Bound) -> Binding:
    graph = stage.graph
    if kind == "output":
        node = graph[graph.outputs[int(bound.name.rpartition("_")[2])]]
    else:
        node = next(n for n in (*graph.inputs, *graph.states) if n.name == bound.name)
    placement = builder.placement(bound.view, bound.origin, bound.coef, bound.rows, bound.cols)
    limits = node.range if isinstance(node, (Input, State)) else None
    where = [{"instance": instance, "object": bound.obj, "placement": placement}]
    stored = NUMPY[element_of(node.dtype)]
    return Binding(bound.name, kind, node.dtype.name, node.shape, stored, options.paths.get(bound.name, bound.name), limits, where)
