"""The dataflow IR: types, accesses, expressions, graph, verifier, text form and reference interpreter."""

from .graph import Graph, GraphBuilder
from .store import ConstantStore

__all__ = ["ConstantStore", "Graph", "GraphBuilder"]
