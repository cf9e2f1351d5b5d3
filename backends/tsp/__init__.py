"""The TSP backend: layouts, vector recipes, routing on the ALU grid, matrix passes, and a timeline of resources."""

from __future__ import annotations

from ...ir.graph import Graph, Node
from ...machines.tsp.description import TspMachine
from .bound import lower_bound as _bound
from .compile import compile_graph

__all__ = ["can_address", "compile_graph", "lower_bound"]


def lower_bound(graph: Graph, machine: TspMachine) -> dict[str, object]:
    """The bounds of docs/tsp-model.md section 9 for one run on one chip."""
    return _bound(graph, machine)


def can_address(node: Node, operand: int) -> bool:
    """True: operands whose lanes differ are moved where they are fetched, and such moves are shared by all later readers."""
    return True
