"""Lower bound of a graph on a machine: model section 9, from the graph and the preset alone, never from a program."""

from __future__ import annotations

from math import ceil, prod
from typing import Any

from ...ir.access import contract_size, distinct, whole
from ...ir.expr import entries
from ...ir.graph import Constant, Contract, Graph, Input, Map, Nest, Node, Reduce, State
from ...machines.cgla.description import CglaMachine

_ARITHMETIC = frozenset({"add", "sub", "mul", "neg", "fma"})
_FREE = frozenset({"and", "or", "xor", "not", "shl", "shr", "abs"})
STORED_BITS = {"f16": 16.0, "q8_0": 8.5, "q4_0": 4.5, "q4_1": 5.0, "q3_k": 3.4375, "q6_k": 6.5625}


def lower_bound(graph: Graph, machine: CglaMachine, host_ops: str = "published", precision: str = "fp16") -> dict[str, Any]:
    """`bound_cycles`, `bound_kind` and every kind. With host ops only contractions count, since the rest does not run on the array."""
    slots = read = written = 0.0
    for node in graph.nodes:
        if isinstance(node, Contract):
            size = contract_size(node)
            slots += size.macs / (4 if node.acc.is_int else 2)
        elif host_ops == "none" and isinstance(node, Map | Reduce):
            slots += prod(node.axes) * _expression_slots(node) / 2
        else:
            continue
        read += sum(_operand_bytes(graph, node, i) for i in range(len(node.operands)))
        written += node.size * min(node.dtype.bytes, 4)
    lanes, rows = machine.lanes, machine.rows
    moved = _compulsory_bytes(graph, host_ops, precision) / 32
    interval = max(machine.beat_interval / lanes, machine.memory_interval / machine.memories)
    kinds = {
        "slots": ceil(slots / (rows * lanes)),
        "ports": ceil(max(read / (rows * 64 * lanes), written / (rows * 8 * lanes))),
        "dma": ceil(moved * interval),
        "launch": machine.t_launch + 24 + machine.t_dma if slots else 0,
    }
    kind = max(kinds, key=lambda name: kinds[name])
    return {"bound_cycles": kinds[kind], "bound_kind": kind, **{f"bound_{name}": value for name, value in kinds.items()}}


def _expression_slots(node: Map | Reduce) -> float:
    """Slots of one value pair: 1/2 for a float add or multiply, 1 for a comparison, selection, conversion or function, 0 for bits."""
    total = 0.5 if isinstance(node, Reduce) and node.op in ("sum", "prod") else 1.0 if isinstance(node, Reduce) else 0.0
    for entry in entries(node.expr):
        total += 0.5 if entry.op in _ARITHMETIC else 0.0 if entry.op in _FREE else 1.0
    return total


def _operand_bytes(graph: Graph, node: Nest, position: int) -> float:
    operand = graph[node.operands[position]]
    return distinct(node.accesses[position], whole(node.axes), operand.shape) * operand.dtype.bits / 8


def _weight_bits(node: Constant, precision: str) -> float:
    """Stored bits an item of a weight: its storage, or fp16 unless fp32 is asked for."""
    if node.ref.storage in STORED_BITS:
        return STORED_BITS[node.ref.storage]
    return float(min(node.dtype.bits, 32 if precision == "fp32" else 16))


def _compulsory_bytes(graph: Graph, host_ops: str, precision: str) -> float:
    """Bytes that must cross the DMA: weights of contractions once; without host ops also inputs, outputs and states."""
    total = 0.0
    seen: set[int] = set()
    for node in graph.nodes:
        if not isinstance(node, Contract):
            continue
        for position, operand_id in enumerate(node.operands):
            source = _through_cast(graph, graph[operand_id])
            if isinstance(source, Constant) and source.id not in seen:
                seen.add(source.id)
                total += distinct(node.accesses[position], whole(node.axes), graph[operand_id].shape) * _weight_bits(source, precision) / 8
    if host_ops == "none":
        border: list[Node] = [n for n in graph.nodes if isinstance(n, Input | State)] + [graph[o] for o in graph.outputs]
        total += sum(n.size * n.dtype.bytes for n in border) + sum(graph[u].size * graph[u].dtype.bytes for u in graph.updates.values())
    return total


def _through_cast(graph: Graph, node: Node) -> Node:
    if isinstance(node, Map) and len(node.operands) == 1 and node.expr.op == "cast":
        return graph[node.operands[0]]
    return node
