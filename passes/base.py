"""What a pass is: a frozen dataclass whose fields are its options, pure (graph in, graph out), with its conditions beside it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from ..ir.graph import Graph
from ..ir.store import ConstantStore


@dataclass(frozen=True)
class Pass:
    """One rewrite of the whole graph.

    `requires` and `ensures` raise where the graph before or after breaks what the pass relies on or promises; both are run by the
    pipeline with `--verify`. A pass may put new constants into the store; keys that are there keep their values.
    """

    name: ClassVar[str] = "pass"

    def requires(self, graph: Graph) -> None:
        """Raises where the pass cannot work on `graph`; nothing by default."""

    def run(self, graph: Graph, store: ConstantStore) -> Graph:
        """The rewritten graph."""
        raise NotImplementedError

    def ensures(self, graph: Graph) -> None:
        """Raises where the result breaks what the pass promises; nothing by default."""
