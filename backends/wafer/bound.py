"""Lower bounds of section 10 of the machine page: no schedule of the graph on this machine can take fewer cycles."""

from __future__ import annotations

from math import prod
from typing import Any

from ...ir.expr import entries
from ...ir.graph import Contract, Graph, Map, Reduce
from ...machines.wafer.description import WaferMachine


def lower_bound(graph: Graph, machine: WaferMachine, region: tuple[int, int] | None = None) -> dict[str, Any]:
    """`bound_cycles` (the largest kind), `bound_kind` and every kind by name.

    compute: multiply-accumulates at the widest FMAC that the default precision allows plus element-wise beats at the widest operation,
    spread over all cores of the machine or of the region that the user fixed; io: nothing enters or leaves during a program.
    """
    cores = region[0] * region[1] if region else machine.program_cols * machine.program_rows - len(machine.defects.cores)
    width = machine.widths["fmachs"]
    wide = max(machine.widths.values())
    compute = 0
    elementwise = 0.0
    for node in graph.nodes:
        if isinstance(node, Contract):
            compute += -(-prod(node.axes) // (cores * width))
        elif isinstance(node, (Map, Reduce)):
            elementwise += sum(1 for _ in entries(node.expr)) and prod(node.shape) / wide
    total = max(1, compute + int(elementwise / cores))
    return {"bound_cycles": total, "bound_kind": "compute", "compute": total, "io": 0}
