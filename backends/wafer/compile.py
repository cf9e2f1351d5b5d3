"""Compile a graph for the wafer: cut it into stages, give each a rectangle, compile equal stages once, and put the program together.

All rectangles have the same rows and lie side by side in the order of the stages, so that values move along rows. A rectangle is tried
from the narrowest that can hold the constants; `Full` anywhere makes it wider, and then all of them taller. A first, unlimited run of a
stage finds how many words its constants take on a core; the second keeps those free from above while activations grow from below.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain
from math import ceil, prod, sqrt
from typing import Any

import numpy as np

from ...errors import BadInput, Infeasible
from ...ir.graph import Constant, Contract, Gather, Graph, Input, Map, Move, Node, Reduce, Scan, Scatter, Sort, State, identity_access
from ...ir.store import ConstantStore
from ...machines.program import Binding, Program, Segment
from ...machines.wafer.builder import ProgramBuilder
from ...machines.wafer.description import WORD_BYTES, Defects, WaferMachine
from ...machines.wafer.isa import NUMPY, WORDS
from ...machines.wafer.tables import PHI, RHO, ObjectKind, image_key
from ...passes.computed import with_copies
from ...passes.digits import split_digits
from ..options import CompileOptions
from .bound import lower_bound
from .choose import LARGE_WORDS, Chooser, largest_divisor, units_of
from .contract import emit_contract
from .elementwise import convert
from .emitter import Emitter
from .layout import WHOLE, Choice, Ref, Shard, Shards, Split, Splits, Value, X, Y
from .lines import lay_routes, retimed
from .memory import Full
from .movement import emit_gather, emit_move, emit_scatter
from .nests import emit_map, emit_reduce
from .order import emit_scan, emit_sort
from .partition import Part, cut_points, split
from .relayout import plans
from .stage import Bound, Stage, _splits_of, element_of, roomy_shards, stored_element
from .transfer import Carried, Transfer, build_transfer
from .wires import most_columns, physical_map

EMITTERS: dict[type[Node], Callable[[Stage, Any, Splits], Value]] = {
    Map: emit_map, Reduce: emit_reduce, Move: emit_move, Gather: emit_gather, Scatter: emit_scatter,
    Sort: emit_sort, Scan: emit_scan,
}  # fmt: skip
_UNLIMITED = 1 << 24
_TRIES = 16
"""Cuts of one node that are tried before the rectangle is given up."""
_HEIGHTS = 5
_WIDTHS = 8
"""Numbers of rows, and of columns for each, that are tried before a model is called infeasible."""
_WHOLE_CORES = 256
"""A model whose constants would fit this many cores stays one stage."""
_FILLS = (0.03, 0.12)
"""Shares of a core's data words that constants are meant to take. More cores do less each but wait longer for sums along their lines:
the fastest program is taken."""
_DENSE = 0.45
"""The share where none of these finds room."""
_ROOMY = 0.1
"""Weights are stored in f32 for f32 activations where all constants take less than this share of the wafer."""


@dataclass
class Pool:
    """What the stages of a program share: provenance strings by number, beats of bursts by what they depend on, and what became of every
    stage on every rectangle that was tried."""

    numbers: dict[str, int] = field(default_factory=dict)
    counted: dict[tuple[Any, ...], int] = field(default_factory=dict)
    tried: dict[tuple[Any, ...], Stage | Full] = field(default_factory=dict)

    def number(self, node: Node) -> int:
        """The index of a node's provenance string."""
        origin = node.origin
        text = " ".join(x for x in (node.kind.lower(), origin.module, origin.op, origin.source) if x)
        return self.numbers.setdefault(text, len(self.numbers))


def compile_stage(
    part: Part, machine: WaferMachine, rows: int, cols: int, reserve: int | None, pool: Pool, incoming: Sequence[Shards],
    half_sums: bool = False, first: Mapping[int, Choice] | None = None,
) -> Stage:  # fmt: skip
    """One stage on one rectangle; `incoming` says how its imports lie. `reserve` words of a core are kept for constants; None measures
    without limits. `first` are cuts to try before any other is priced. Raises Full."""
    graph = part.graph
    emitter = Emitter(machine, "stage", rows, cols, reserve or 0, pool.counted)
    if reserve is None:
        emitter.words.high = emitter.words.top = _UNLIMITED
    stage = Stage(emitter, graph, half_sums)
    lay_routes(emitter)
    stage.uses = {n.id: 0 for n in graph.nodes}
    for node in graph.nodes:
        for operand in node.operands:
            stage.uses[operand] += 1
    for kept in (*graph.outputs, *graph.updates.values(), *part.exports):
        stage.uses[kept] += 1
    for node_id, shards in zip(part.imports, incoming, strict=True):
        node = graph[node_id]
        value = stage.new(node.shape, element_of(node.dtype), shards, ObjectKind.INPUT)
        stage.done(node_id, value)
        stage.imports[node_id] = value
    chooser = Chooser(stage, units_of(graph))
    for node in graph.nodes:
        if isinstance(node, (Constant, Input, State)):
            continue
        emitter.prov = pool.number(node)
        _compile_node(stage, chooser, node, (first or {}).get(node.id))
    emitter.prov = -1
    for node_id in part.exports:
        stage.exports[node_id] = _exported(stage, node_id)
    _finish(stage, part)
    emitter.builder.regions[0]["last"] = emitter.now
    return stage


def _exported(stage: Stage, node_id: int) -> Value:
    """A copy that is whole along X, cut along Y or not at all, whichever is cheapest to make."""
    for value in stage.variants(node_id).values():
        if value.shards[1] is None:
            return value
    node = stage.graph[node_id]
    access = identity_access(len(node.shape))
    size = (stage.e.rows, stage.e.cols)
    choices: list[tuple[float, Shard | None]] = []
    cuts: list[Shard | None] = [None]
    for d, extent in enumerate(node.shape):
        count = largest_divisor(extent, stage.e.rows)
        if count > 1:
            cuts.append(Shard(d, extent // count, count))
    cuts += [v.shards[Y] for v in stage.variants(node_id).values() if v.shards[Y] is not None]
    for cut in cuts:
        splits: Splits = (Split(cut.dim, cut.tile, cut.count) if cut else None, None)
        found = [p for v in stage.variants(node_id).values() for p in plans(v, access, node.shape, splits, size)]
        words = prod(node.shape) // (cut.count if cut else 1) * WORDS[element_of(node.dtype)]
        found = [p for p in found if max(p.words, words) <= LARGE_WORDS]
        choices += [(p.cycles + words / 8, cut) for p in found]
    if not choices:
        raise Full(_node_words(node))
    cut = min(choices, key=lambda c: (c[0], str(c[1])))[1]
    splits = (Split(cut.dim, cut.tile, cut.count) if cut else None, None)
    source = stage.operand(node_id, access, node.shape, splits)
    value = stage.new(node.shape, element_of(node.dtype), (cut, None))
    convert(stage.e, stage.e.role(splits), value.local, Ref(value.obj, value.fmt, 0, value.strides), source)
    return value


def _compile_node(stage: Stage, chooser: Chooser, node: Node, first: Choice | None) -> None:
    """The node with `first`, or else its cheapest cut that fits."""
    failure: Full | None = None
    for choice in chain([first] if first is not None else [], _cheapest(chooser, node)):
        mark = stage.mark()
        try:
            if isinstance(node, Contract):
                value = emit_contract(stage, node, choice.splits, choice.keep, choice.chunk)
            else:
                value = EMITTERS[type(node)](stage, node, choice.splits)
        except Full as full:
            failure = full
            stage.back(mark)
            continue
        stage.done(node.id, value)
        stage.release(node.operands)
        stage.chosen[node.id] = choice
        return
    raise failure or Full(_node_words(node))


def _cheapest(chooser: Chooser, node: Node) -> Iterator[Choice]:
    """The cheapest cuts, priced when they are asked for."""
    yield from chooser.choices(node)[:_TRIES]


def _node_words(node: Node) -> int:
    return prod(node.shape) * WORDS[element_of(node.dtype)]


def _finish(stage: Stage, part: Part) -> None:
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
            source = stage.operand(new.id, identity_access(len(home.shape)), home.shape, splits)
            convert(stage.e, stage.e.role(splits), home.local, Ref(home.obj, home.fmt, 0, home.strides), source)
    for node in (*graph.inputs, *graph.states):
        if node.id not in stage.placements and node.id not in stage.imports:
            stage.place_free(node, roomy_shards(node.shape, stage.e.rows, stage.e.cols))
    for number, output in part.outputs:
        value = max(stage.variants(output).values(), key=lambda v: sum(s is not None for s in v.shards))
        if value.obj in stage.pinned:
            value = _copied(stage, value)  # the state itself is an output as well
        stage.outputs.append(stage.bound(number, value))


def _copied(stage: Stage, value: Value) -> Value:
    """A copy, for an output that is an input or the old value of a state."""
    new = stage.new(value.shape, value.fmt, value.shards)
    role = stage.e.role(_splits_of(value.shards))
    convert(stage.e, role, value.local, Ref(new.obj, new.fmt, 0, new.strides), Ref(value.obj, value.fmt, 0, value.strides))
    return new


@dataclass
class _Plan:
    """A program in the making: rectangles of equal rows side by side."""

    machine: WaferMachine
    rows: int
    fill: float
    half_sums: bool
    pool: Pool
    parts: list[Part] = field(default_factory=list)
    stages: list[Stage] = field(default_factory=list)
    """One per part; equal parts share one."""
    known: dict[tuple[Any, ...], Stage] = field(default_factory=dict)

    @property
    def cycles(self) -> int:
        """Cycles of all stages, transfers between them left out."""
        return sum(stage.e.now for stage in self.stages)

    def add(self, part: Part, limit: int) -> None:
        """Compile a part on the narrowest rectangle of at most `limit` columns that holds it. Raises Full."""
        incoming = []
        if self.stages:
            exports = list(self.stages[-1].exports.values())
            incoming = [exports[k].shards for k in part.taken(self.parts[-1])]
        key = (part.key, tuple(incoming))
        if key not in self.known:
            self.known[key] = self._compile(part, incoming, limit)
        self.stages.append(self.known[key])
        self.parts.append(part)

    def _compile(self, part: Part, incoming: Sequence[Shards], limit: int) -> Stage:
        failure = Full(0)
        for cols in self._widths(part, limit):
            key = (self.rows, cols, part.key, tuple(incoming))
            if key not in self.pool.tried:
                try:
                    self.pool.tried[key] = self._on(part, incoming, cols)
                except Full as full:
                    self.pool.tried[key] = Full(full.words)
            found = self.pool.tried[key]
            if isinstance(found, Stage):
                return found
            failure = found
        raise failure

    def _on(self, part: Part, incoming: Sequence[Shards], cols: int) -> Stage:
        """The stage on a rectangle of `cols` columns. Raises Full."""
        measured = compile_stage(part, self.machine, self.rows, cols, None, self.pool, incoming, self.half_sums)
        reserve = _UNLIMITED - measured.e.words.top
        return compile_stage(part, self.machine, self.rows, cols, reserve, self.pool, incoming, self.half_sums, measured.chosen)

    def _widths(self, part: Part, limit: int) -> Iterator[int]:
        data = self.machine.memory_words - self.machine.data_first_word
        extents = sorted({a for n in part.graph.nodes if isinstance(n, Contract) for a in n.axes if a >= 16})
        cols = max(1, ceil(part.words() / (self.fill * data) / self.rows))
        for attempt in range(_WIDTHS):
            if cols > limit:
                return
            best = max(range(cols, min(limit, cols + max(1, cols // 4)) + 1), key=lambda s: (_fill(s, extents), -s))
            yield best
            cols = max(best + 1, ceil(best * (1.4 if attempt < 3 else 2.0)))


def _fill(side: int, extents: list[int]) -> float:
    """How well a side of this length divides the extents: the mean of used to present rows, against the length itself."""
    if not extents:
        return 0.0
    return sum(largest_divisor(n, side) / side for n in extents) / len(extents) - 0.002 * side


def _columns(parts: Sequence[Part], machine: WaferMachine, rows: int, fill: float) -> int:
    """Columns that rectangles of so many rows take side by side."""
    data = machine.memory_words - machine.data_first_word
    return sum(max(1, ceil(part.words() / (fill * data) / rows)) for part in parts)


def _row_counts(parts: Sequence[Part], graph: Graph, machine: WaferMachine, fill: float) -> Iterator[int]:
    """Rows to try, small first: about the side of a square that holds the constants of the stage that occurs most often, and as many as
    it takes for all stages to find room side by side."""
    data = machine.memory_words - machine.data_first_word
    by_key: dict[tuple[Any, ...], list[Part]] = {}
    for part in parts:
        by_key.setdefault(part.key, []).append(part)
    main = max(by_key.values(), key=len)[0]
    words = main.words()
    cores = max(1.0, words / (fill * data))
    if len(parts) == 1 and words < data // 8 and not any(n.size > data // 16 for n in graph.nodes):
        cores = 1.0
    extents = sorted({a for n in graph.nodes if isinstance(n, Contract) for a in n.axes if a >= 16})
    limit = machine.program_rows
    side = max(1, ceil(sqrt(cores)), ceil(_columns(parts, machine, 1, fill) / machine.program_cols))
    for _ in range(_HEIGHTS):
        best = max(range(side, min(limit, 2 * side) + 1), key=lambda s: (_fill(s, extents), -s)) if side > 1 else 1
        yield best
        if best >= limit:
            return
        side = min(limit, max(best + 1, ceil(best * 1.3)))


def compile_graph(graph: Graph, store: ConstantStore, options: CompileOptions) -> Program:
    """The program. Raises Infeasible where no rectangles of the machine can hold the model, UnsupportedOp for what a core cannot do."""
    machine = options.machine
    if options.overhead != machine.overhead:
        changed = tuple(sorted({*machine.changed, "overhead"})) if machine.preset else ()
        machine = machine.model_copy(update={"overhead": options.overhead, "changed": changed})
    data = machine.memory_words - machine.data_first_word
    graph = with_copies(graph, lambda node: isinstance(node, (Input, Constant, State)))
    graph = unpacked(graph, _ROOMY * data * machine.program_cols * machine.program_rows)
    best, parts, failure = _best(graph, machine, options)
    if best is None:  # values that readers walk by digits may have to be cut there
        digits = split_digits(graph)
        if digits is not graph:
            graph = digits
            best, parts, failure = _best(graph, machine, options)
    if best is not None:
        return _Assembly(graph, store, options, best, parts).program()
    where = f"{machine.program_cols} x {machine.program_rows} cores" if not options.region else f"a region of {options.region} cores"
    levers = ("a larger region", "a shorter sequence", "fp16 partial sums")
    cores = options.region[0] * options.region[1] if options.region else machine.program_cols * machine.program_rows
    spread = WORD_BYTES * ceil(sum(part.words() for part in parts) / cores)  # were everything dealt out evenly
    demand = max(machine.data_bytes + WORD_BYTES * max(failure.words, 1), spread)
    raise Infeasible("core memory", demand, machine.data_bytes, "bytes", where, levers)


def _best(graph: Graph, machine: WaferMachine, options: CompileOptions) -> tuple[_Plan | None, list[Part], Full]:
    """The fastest plan, None where nothing holds the graph, its stages, and what the last shape lacked."""
    data = machine.memory_words - machine.data_first_word
    parts = split(graph, [0] if options.region else cut_points(graph, _WHOLE_CORES * data))
    pool, best, failure = Pool(), None, Full(0)
    for fill in _FILLS if options.region is None else ():
        plan, _ = _planned(parts, graph, machine, options, fill, pool)
        if plan is not None and (best is None or plan.cycles < best.cycles):
            best = plan
    if best is None:
        best, failure = _planned(parts, graph, machine, options, _DENSE, pool)
    return best, parts, failure


def _planned(
    parts: Sequence[Part], graph: Graph, machine: WaferMachine, options: CompileOptions, fill: float, pool: Pool
) -> tuple[_Plan | None, Full]:
    """The first shape that holds all stages, or what the last one lacked."""
    failure = Full(0)
    for rows, limit in _shapes(parts, graph, machine, options, fill):
        plan = _Plan(machine, rows, fill, options.accumulate == "fp16", pool)
        try:
            for part in parts:
                plan.add(part, limit)
                limit -= plan.stages[-1].e.cols
            return plan, failure
        except Full as full:
            failure = full
    return None, failure


def unpacked(graph: Graph, words: float) -> Graph:
    """The graph with f32 constants stored in f32 where all constants take less than `words` so: then their products need no pieces."""
    if sum(n.size * WORDS[element_of(n.dtype)] for n in graph.constants) > words:
        return graph
    packed = {n.id for n in graph.constants if stored_element(n) != element_of(n.dtype)}
    nodes = [replace(n, ref=replace(n.ref, storage="dense")) if isinstance(n, Constant) and n.id in packed else n for n in graph.nodes]
    return replace(graph, nodes=tuple(nodes))


def _shapes(parts: Sequence[Part], graph: Graph, machine: WaferMachine, options: CompileOptions, fill: float) -> Iterator[tuple[int, int]]:
    """(rows, columns in all) to try."""
    if options.region is None:
        for rows in _row_counts(parts, graph, machine, fill):
            limit = most_columns(machine, rows)
            if len(parts) == 1:
                yield rows, min(limit, rows)
            if _columns(parts, machine, rows, fill) <= limit or fill == _DENSE:
                yield rows, limit
        return
    cols, rows = options.region
    if not (1 <= rows <= machine.program_rows and 1 <= cols <= machine.program_cols):
        raise BadInput(f"a region of {cols} x {rows} does not fit the {machine.program_cols} x {machine.program_rows} cores")
    physical_map(machine, rows, cols)
    yield rows, cols


class _Assembly:
    """Puts segments, instances, images and bindings together."""

    def __init__(self, graph: Graph, store: ConstantStore, options: CompileOptions, plan: _Plan, parts: Sequence[Part]) -> None:
        self.graph, self.store, self.options, self.plan, self.parts = graph, store, options, plan, parts
        self.builder = ProgramBuilder()
        self.segments: list[Segment] = []
        cols = sum(stage.e.cols for stage in plan.stages)
        self.physical = physical_map(plan.machine, plan.rows, cols) if plan.machine.defects != Defects() else None
        self.made: dict[tuple[int, bytes], tuple[int, int]] = {}
        """(segment, cycles) of a stage and its wires."""
        self.images: dict[str, np.ndarray] = {}
        self.image_numbers: dict[tuple[object, ...], int] = {}
        self.where: dict[str, list[dict[str, int]]] = {}
        self.transfers: dict[tuple[Any, ...], tuple[int, Transfer]] = {}

    def program(self) -> Program:
        """Instances from left to right, each after the one before."""
        now, x = 0, 0
        before: tuple[int, Part, Stage] | None = None
        for part, stage in zip(self.parts, self.plan.stages, strict=True):
            moved: list[tuple[int, int]] = []
            if before is not None:
                now, moved = self._transfer(now, x - before[2].e.cols, before, part, stage)
            segment, cycles = self._segment(stage, x)
            instance = self.builder.instance(segment, x, 0, now)
            for (source, source_object), value in zip(moved, stage.imports.values(), strict=True):
                self.builder.bind_object(instance, value.obj, source, source_object)
            self._fill(instance, part, stage)
            before = (instance, part, stage)
            now, x = now + cycles, x + stage.e.cols
        machine = self.plan.machine
        if self.physical is not None:
            self.images |= {RHO: self.physical.rho.astype(np.int32), PHI: self.physical.phi.astype(np.int32)}
        return Program(
            target="wafer", machine=machine.to_json(), bindings=tuple(self._bindings()), tables=dict(self.builder.tables()),
            segments=tuple(self.segments), images=self.images, predicted_cycles=now,
            bound=lower_bound(self.graph, machine, self.options.region), provenance=tuple(self.plan.pool.numbers),
            meta=dict(self.options.meta),
        )  # fmt: skip

    def _segment(self, stage: Stage, x: int) -> tuple[int, int]:
        """The segment of a stage at column x, and its cycles: one for all places whose wires are equal."""
        wires = self.physical.wires(x, stage.e.cols) if self.physical is not None else None
        wires = None if wires is None or wires.straight else wires
        key = (id(stage), wires.key() if wires is not None else b"")
        if key not in self.made:
            name = f"stage{len(self.segments)}"
            builder, cycles = retimed(stage.e, name, wires)
            self.made[key] = (len(self.segments), cycles)
            self.segments.append(builder.build())
        return self.made[key]

    def _transfer(
        self, now: int, x: int, before: tuple[int, Part, Stage], part: Part, stage: Stage
    ) -> tuple[int, list[tuple[int, int]]]:  # fmt: skip
        """Exports of the stage before, at column x, become imports of this one; cycle afterwards, and where each import comes from."""
        instance, earlier, source = before
        exports = list(source.exports.values())
        pairs = list(zip((exports[k] for k in part.taken(earlier)), stage.imports.values(), strict=True))
        if not pairs:
            return now, []
        carried = tuple(self._carried(source, a, stage, b) for a, b in pairs)
        late = None
        if self.physical is not None:
            last = source.e.cols - 1
            away = self.physical.wires(x + last, stage.e.cols + 1).away[X][:, 1:]
            late = away if away.any() else None
        key = (carried, source.e.cols, stage.e.cols, late.tobytes() if late is not None else b"")
        if key not in self.transfers:
            name = f"transfer{len(self.segments)}"
            made = build_transfer(self.plan.machine, name, self.plan.rows, source.e.cols, stage.e.cols, carried, late)
            self.transfers[key] = (len(self.segments), made)
            self.segments.append(made.segment)
        number, transfer = self.transfers[key]
        here = self.builder.instance(number, x, 0, now)
        for (value, _), obj in zip(pairs, transfer.sources, strict=True):
            self.builder.bind_object(here, obj, instance, value.obj)
        return now + transfer.cycles, [(here, obj) for obj in transfer.targets]

    def _carried(self, source: Stage, a: Value, target: Stage, b: Value) -> Carried:
        shard = a.shards[Y]
        return Carried(a.fmt, (a.size,), shard.count if shard else self.plan.rows, source.e.address[a.obj], target.e.address[b.obj])

    def _fill(self, instance: int, part: Part, stage: Stage) -> None:
        """Constants of this instance, and pieces of the program's bindings."""
        for obj, placed in sorted(stage.placed.items()):
            node = self.graph[part.original[placed.node]] if placed.node >= 0 else None
            name = node.ref.key if isinstance(node, Constant) else ""
            key = (name, *placed.key)
            if key not in self.image_numbers:
                number = len(self.image_numbers)
                if not name or self.store.has(name):  # tensors without values: timing-only runs need no image
                    values = np.asarray(self.store.get(name)) if name else np.zeros(0)
                    self.images[image_key(number)] = placed.make(values).reshape(-1)
                self.image_numbers[key] = number
            ext = stage.e.builder.objects[obj]["ext"]
            placement = self.builder.placement(placed.view, placed.origin, placed.coef, placed.rows, placed.cols, ext=ext)
            self.builder.bind_placed(instance, obj, self.image_numbers[key], placement)
        for bound in (*stage.inputs, *stage.states):
            node = self.graph[part.original[bound.node]]
            assert isinstance(node, (Input, State))
            self._piece(node.name, instance, stage, bound)
        for bound in stage.outputs:
            self._piece(f"output_{bound.node}", instance, stage, bound)

    def _piece(self, name: str, instance: int, stage: Stage, bound: Bound) -> None:
        ext = stage.e.builder.objects[bound.obj]["ext"]
        placement = self.builder.placement(bound.view, bound.origin, bound.coef, bound.rows, bound.cols, ext=ext)
        self.where.setdefault(name, []).append({"instance": instance, "object": bound.obj, "placement": placement})

    def _bindings(self) -> Iterator[Binding]:
        """Inputs, outputs and states in graph order."""
        graph, paths = self.graph, self.options.paths
        named: list[tuple[str, str, Node]] = [("input", n.name, n) for n in graph.inputs]
        named += [("output", f"output_{k}", graph[o]) for k, o in enumerate(graph.outputs)]
        named += [("state", n.name, n) for n in graph.states]
        for kind, name, node in named:
            limits = node.range if isinstance(node, (Input, State)) else None
            stored = NUMPY[element_of(node.dtype)]
            where = self.where.get(name, [])
            yield Binding(name, kind, node.dtype.name, node.shape, stored, paths.get(name, name), limits, where)
