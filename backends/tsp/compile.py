"""Compiling a graph for the TSP: walk the nodes, lower each on the engine, bind inputs, outputs and state, put the program together."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ... import errors
from ...ir.graph import Constant, Contract, Gather, Graph, Input, Map, Move, Node, Reduce, Scan, Scatter, Sort, State
from ...ir.store import ConstantStore
from ...machines.program import Binding, Program
from ...machines.tsp.description import TspMachine
from ...machines.tsp.isa import NUMPY, DType
from ...machines.tsp.tables import ALLOCATIONS, BINDS, INSTANCES, LINKS, PLACEMENTS, Kind, slice_mask
from ..options import CompileOptions
from .bound import lower_bound
from .engine import Engine
from .lower import Lowering as BaseLowering
from .lower import digits
from .lower_contract import lower_contract, lower_gather
from .lower_map import lower_map, lower_reduce
from .lower_other import ensure_copy, lower_move, lower_scan, lower_scatter, lower_sort
from .memory import LANES, Seq, Storage
from .recipes import ISA_TYPE
from .values import Copy, Value, arrange, row_major_strides

STORED = {DType.F16: "f16", DType.F32: "f32", DType.I8: "i8", DType.I16: "i16", DType.I32: "i32"}


@dataclass
class Lowering(BaseLowering):
    """Adds what the walk over a graph keeps."""

    weights: dict[Any, Storage] = field(default_factory=dict)
    bindings: list[Binding] = field(default_factory=list)

    def users(self, number: int) -> tuple[int, ...]:
        """Nodes that read a node."""
        return self.graph.users[number]


_RULES: Mapping[type[Node], Callable[[Any, Any], Value]] = {
    Map: lower_map, Reduce: lower_reduce, Contract: lower_contract, Gather: lower_gather, Move: lower_move, Scatter: lower_scatter,
    Scan: lower_scan, Sort: lower_sort,
}  # fmt: skip


def compile_graph(graph: Graph, store: ConstantStore, options: CompileOptions) -> Program:
    """A legal static schedule of the whole graph. Raises Infeasible where chips run out, UnsupportedOp for what has no recipe."""
    machine: TspMachine = options.machine
    engine = Engine.create(machine, 0, "main")
    lowering = Lowering(engine, graph, store)
    last = _last_uses(graph)
    keep = {*graph.outputs, *graph.updates.values()}
    for node in graph.nodes:
        options.progress("emit", node.id, len(graph.nodes))
        engine.label = f"%{node.id} {node.origin.module or node.kind}"
        lowering.values[node.id] = _value(lowering, node, options)
        for number in last.get(node.id, ()):
            if number not in keep and not isinstance(graph[number], State):
                lowering.values[number].copies.clear()
        _release(lowering)
    engine.label = "results"
    _outputs(lowering, options)
    bound = lower_bound(graph, machine)
    return _program(lowering, options, bound)


def _value(lowering: Lowering, node: Node, options: CompileOptions) -> Value:
    if isinstance(node, Constant):
        array = np.asarray(lowering.store.get(node.ref.key)).reshape(node.shape)
        return Value(node.shape, ISA_TYPE[node.dtype], array=array.astype(NUMPY[ISA_TYPE[node.dtype]], copy=False))
    if isinstance(node, (Input, State)):
        return _border_value(lowering, node, options)
    rule = _RULES[type(node)]
    try:
        return rule(lowering, node)
    except errors.UnsupportedOp as error:
        where = f"{node.origin.op or node.kind} in {node.origin.module or 'the model'} ({node.origin.source or 'no source line'}): {error}"
        raise errors.UnsupportedOp(f"tsp cannot compile {where}", [where]) from error


def border_layout(shape: tuple[int, ...]) -> tuple[np.ndarray, Any]:
    """The arrangement of inputs, outputs and state: the last dimension along lanes, the others along vectors, row-major."""
    extents = shape or (1,)
    strides = row_major_strides(extents)
    lanes = digits(strides, extents, (len(extents) - 1,))
    return arrange(0, digits(strides, extents, range(len(extents) - 1)), lanes), lanes


def _border_value(lowering: Lowering, node: Input | State, options: CompileOptions) -> Value:
    dtype = ISA_TYPE[node.dtype]
    element, lanes = border_layout(node.shape)
    kind = Kind.INPUT if isinstance(node, Input) else Kind.STATE
    storage = lowering.engine.allocator.linear(dtype, len(element), kind, frozenset(), node.name)
    lowering.engine.storages.append(storage)
    lowering.engine.timeline.number(storage)
    lowering.bindings.append(_binding(node.name, kind.name.lower(), node, storage, options))
    return Value(node.shape, dtype, [Copy(element, Seq.of(storage), lanes, False, True)], label=node.name)


def _binding(name: str, kind: str, node: Any, storage: Storage, options: CompileOptions) -> Binding:
    shape = node.shape
    extents = shape or (1,)
    tiles = -(-extents[-1] // LANES)
    vectors = [tiles * s // extents[-1] if extents[-1] else 0 for s in row_major_strides(extents)]
    vectors = [int(np.prod(extents[d + 1 : -1], dtype=np.int64)) * tiles for d in range(len(extents) - 1)] + [1]
    region = {
        "allocation": storage.number, "row": 0, "start": [0] * len(shape), "shape": list(shape),
        "lane_axis": len(shape) - 1 if shape else None, "lane_tile": LANES, "lane_offset": 0, "broadcast": False,
        "strides": vectors if shape else [], "planes": [[[u // 44, u % 44] for u in plane] for plane in storage.planes],
    }  # fmt: skip
    return Binding(
        name, kind, node.dtype.name, tuple(shape), STORED[storage.dtype], options.paths.get(name, ""), getattr(node, "range", None), [region]
    )


def _last_uses(graph: Graph) -> dict[int, list[int]]:
    last: dict[int, int] = {}
    for node in graph.nodes:
        for operand in node.operands:
            last[operand] = node.id
    found: dict[int, list[int]] = {}
    for number, user in last.items():
        found.setdefault(user, []).append(number)
    return found


def _release(lowering: Lowering) -> None:
    """Give back scratch that no value refers to any more."""
    live = {id(s) for value in lowering.values.values() for copy in value.copies for s in _used(copy.seq)}
    remaining = []
    for storage in lowering.engine.storages:
        if storage.kind == Kind.SCRATCH and id(storage) not in live:
            lowering.engine.allocator.release(storage)
        else:
            remaining.append(storage)
    lowering.engine.storages = remaining


def _used(seq: Seq) -> list[Storage]:
    return [seq.storages[int(k)] for k in np.unique(seq.which)]


def _outputs(lowering: Lowering, options: CompileOptions) -> None:
    """Copy every output, and every state update, to where its binding says; all states are read before any is written."""
    engine = lowering.engine
    done: dict[int, Storage] = {}
    pending: list[tuple[Seq, Storage]] = []
    for state, number in lowering.graph.updates.items():
        node = next(n for n in lowering.graph.states if n.name == state)
        target = _used(lowering.values[node.id].copies[0].seq)[0] if lowering.values[node.id].copies else None
        assert target is not None
        source = _arranged(lowering, number)
        if _used(source) == [target]:
            continue
        if target.units & source.units:
            source = Seq.of(engine.copy(source, target.units))
        pending.append((source, target))
    for position, number in enumerate(lowering.graph.outputs):
        node = lowering.graph[number]
        if number not in done:
            source = _arranged(lowering, number)
            storage = engine.allocator.linear(lowering.values[number].dtype, len(source), Kind.OUTPUT, source.units, f"output {position}")
            engine.storages.append(storage)
            engine.copy_into(source, Seq.of(storage))
            done[number] = storage
        name = f"output_{position}"
        lowering.bindings.append(_binding(name, "output", node, done[number], options))
    for seq, target in pending:
        engine.copy_into(seq, Seq.of(target))


def _arranged(lowering: Lowering, number: int) -> Seq:
    value = lowering.values[number]
    if value.array is not None:
        ensure_copy(lowering, value)
        value = Value(value.shape, value.dtype, value.copies)
    element, _ = border_layout(value.shape)
    return lowering.fetch(value, element)(frozenset())


def _program(lowering: Lowering, options: CompileOptions, bound: Mapping[str, Any]) -> Program:
    engine = lowering.engine
    timeline = engine.timeline
    allocations, placements, binds, images = [], [], [], {}
    for number, storage in enumerate(timeline.objects):
        pairs = [(u // 44, u % 44) for u in sorted(storage.units)]
        allocations.append({
            "kind": int(storage.kind), "chip": 0, "bank": storage.bank, "row": storage.base, "rows": storage.rows,
            "west": slice_mask(pairs, 0), "east": slice_mask(pairs, 1),
        })  # fmt: skip
        binds.append({"instance": 0, "object": number, "allocation": number, "row": 0})
        if storage.kind == Kind.CONST:
            images[f"image.{len(placements)}"] = image_of(storage)
            placements.append({"image": len(placements), "allocation": number})
    machine: TspMachine = options.machine
    return Program(
        "tsp", machine.to_json(), tuple(lowering.bindings),
        {
            "instances": INSTANCES.from_rows([{"segment": 0, "chip": 0, "offset": 0}]), "binds": BINDS.from_rows(binds),
            "allocations": ALLOCATIONS.from_rows(allocations), "placements": PLACEMENTS.from_rows(placements), "links": LINKS.from_rows([]),
        },
        (timeline.segment(),), images, timeline.end + machine.superlanes, dict(bound), tuple(timeline.provenance), dict(options.meta),
    )  # fmt: skip


def image_of(storage: Storage) -> np.ndarray:
    """The bytes of a constant storage as [slices ascending, rows, 320]."""
    assert storage.image is not None
    units = sorted(storage.units)
    place = {unit: k for k, unit in enumerate(units)}
    image = np.zeros((len(units), storage.rows, LANES), dtype=np.uint8)
    vectors = np.arange(storage.vectors)
    for p, plane in enumerate(storage.planes):
        slices = np.array([place[u] for u in plane])
        image[slices[vectors % storage.stripes], storage.offsets[p] + vectors // storage.stripes] = storage.image[p]
    return image
