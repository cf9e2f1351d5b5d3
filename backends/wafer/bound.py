"""Lower bounds of section 10 of the machine page: no schedule of the graph on this machine can take fewer cycles."""

from __future__ import annotations

from math import ceil, prod, sqrt
from typing import Any

from ...ir.expr import Expr, axes_of, entries, postorder
from ...ir.graph import Contract, Graph, Map, Reduce
from ...machines.wafer.description import WaferMachine
from .latency import class_bound
from .wires import dead_cores

_COMPARE = frozenset(("le", "lt", "ge", "gt"))


def lower_bound(graph: Graph, machine: WaferMachine, region: tuple[int, int] | None = None) -> dict[str, Any]:
    """`bound_cycles` (the largest kind), `bound_kind`, every kind by name, and `class_bound_cycles` where that is defined (`latency.py`).

    compute: multiply-accumulates at the width of the default FMAC plus element-wise points at the widest operation, over all live cores of
    the machine or of the region that the user fixed, unpadded, masked pairs of causal products left out; link: what a core must hear of
    its part of the largest product, given its memory; io: nothing enters or leaves during a program, so 0.
    """
    cores = region[0] * region[1] if region else int((~dead_cores(machine)).sum())
    width = machine.widths["fmachs"]
    wide = max(machine.widths.values())
    words = machine.memory_words - machine.data_first_word
    products, points, link = 0, 0.0, 0
    for node in graph.nodes:
        if isinstance(node, Contract):
            macs = prod(node.axes) * _unmasked(graph, node)
            products += ceil(macs / (cores * width))
            link = max(link, ceil((macs / cores / sqrt(8 * words) - words) / 2))
        elif (isinstance(node, Map) and any(True for _ in entries(node.expr))) or isinstance(node, Reduce):
            points += prod(node.axes) / wide
    kinds = {"compute": products + int(points / cores), "link": max(0, link), "io": 0}
    kind = max(kinds, key=lambda k: kinds[k])
    latency = class_bound(graph, machine, region)
    beside = {} if latency is None else {"class_bound_cycles": latency}
    return {"bound_cycles": max(1, kinds[kind]), "bound_kind": kind, **kinds, **beside}


def _unmasked(graph: Graph, node: Contract) -> float:
    """The share of a product that its readers look at: half (and no diagonal) where all of them mask by comparing two positions."""
    users = [graph[u] for u in graph.users[node.id]]
    masked = [isinstance(u, Map) and _masks_pairs(u.expr) for u in users]
    return 0.5 if users and all(masked) else 1.0


def _masks_pairs(expr: Expr) -> bool:
    return any(e.op == "select" and any(c.op in _COMPARE and len(axes_of(c)) == 2 for c in postorder(e.args[0])) for e in postorder(expr))
