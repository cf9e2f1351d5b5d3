"""Compile dataflow graphs for the CGLA machine (see `docs/cgla-backend.md`)."""

from __future__ import annotations

from ...ir.graph import Gather, Nest, Node, Scatter
from .bound import lower_bound
from .compile import compile_graph


def can_address(node: Node, operand: int) -> bool:
    """Whether the backend reads this operand through the node's own access: host nests and packing take any affine access and any
    lookup, so nothing has to be materialised first."""
    return isinstance(node, Nest | Gather | Scatter) and 0 <= operand < len(node.operands)


__all__ = ["can_address", "compile_graph", "lower_bound"]
