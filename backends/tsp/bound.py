"""Lower bounds of the cycles of a graph (docs/tsp-model.md section 9), from the graph alone."""

from __future__ import annotations

from math import prod
from typing import Any

from ...ir.access import contract_size
from ...ir.expr import postorder
from ...ir.graph import Constant, Contract, Graph, Map, Reduce
from ...ir.types import I8
from ...machines.tsp.description import TspMachine

_TRANSCENDENTAL = frozenset({"exp", "exp2", "expm1", "log", "log1p", "rsqrt", "sqrt", "tanh", "pow", "recip", "div", "erf"})
_LARGE = frozenset({"exp", "exp2", "log", "rsqrt", "tanh"})


def lower_bound(graph: Graph, machine: TspMachine, chips: int = 1) -> dict[str, Any]:
    """`bound_cycles`, `bound_kind` and every term, each a number of cycles that no schedule of the graph can undercut."""
    lanes = machine.vector
    macs16 = macs8 = inward = 0.0
    operands: dict[int, float] = {}
    large = 0
    for node in graph.nodes:
        if isinstance(node, Contract):
            macs = contract_size(node).macs
            small = graph[node.operands[0]].dtype is I8
            macs16, macs8 = (macs16, macs8 + macs) if small else (macs16 + macs, macs8)
            inward += node.size * (4 if small else 8)
            for operand in node.operands:
                operands[operand] = graph[operand].size * (1 if small else 2)
        elif isinstance(node, (Map, Reduce)):
            count = sum(e.op in _LARGE for e in postorder(node.expr))
            large += count * prod(node.axes)
    cut = 64 * lanes
    terms = {
        "compute": (macs16 / lanes**2 + macs8 / (4 * lanes**2)) / chips,
        "outward": sum(operands.values()) / (cut + cut // 4) / chips,
        "inward": inward / cut / chips,
        "large": large / (8 * lanes) / chips,
        "latency": float(_latency(graph, machine)),
    }
    kind = max(terms, key=lambda name: terms[name])
    return {"bound_cycles": int(terms[kind]), "bound_kind": kind, **{f"{name}_cycles": int(value) for name, value in terms.items()}}


def _latency(graph: Graph, machine: TspMachine) -> int:
    """The longest chain of dependent contractions and functions (section 9, last row)."""
    lanes = machine.vector
    longest = [0] * len(graph.nodes)
    ends = [0] * len(graph.nodes)
    for node in graph.nodes:
        before = max((longest[o] for o in node.operands), default=0)
        if isinstance(node, Contract):
            size = contract_size(node)
            stored = max((2 * graph[o].size for o in node.operands if isinstance(graph[o], Constant)), default=0)
            weights = max(0, stored - 8 * lanes**2) / (80 * lanes)
            points = -(-size.macs // (8 * lanes))
            longest[node.id] = int(before + min(90, points) + weights)
            ends[node.id] = int(before + min(53, points) + weights)
        elif isinstance(node, (Map, Reduce)):
            longest[node.id] = before + 3 * _depth(node)
            ends[node.id] = longest[node.id]
        else:
            longest[node.id] = ends[node.id] = before
    last = max((ends[o] for o in (*graph.outputs, *graph.updates.values())), default=0)
    return 5 + last + machine.superlanes - 1


def _depth(node: Map | Reduce) -> int:
    """Transcendentals on the longest path of the expression."""
    depth: dict[int, int] = {}
    for entry in postorder(node.expr):
        depth[id(entry)] = max((depth[id(a)] for a in entry.args), default=0) + (entry.op in _TRANSCENDENTAL)
    return depth[id(node.expr)]
