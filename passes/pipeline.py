"""The machine-independent pipeline: which passes run, in which order, and why."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from ..errors import BadInput
from ..ir.graph import Graph
from ..ir.store import ConstantStore
from ..ir.text import print_graph
from ..ir.verify import require
from .base import Pass
from .canonicalise import Canonicalise
from .fuse import Fuse
from .materialise import CanAddress, Materialise
from .narrow import Narrow
from .precision import Precision, policy_of
from .quantise import Quantise
from .repeats import FindRepeats

Dump = Callable[[str, str], None]


def passes_for(target: str, precision: str, can_address: CanAddress | None = None) -> list[Pass]:
    """The passes of one compilation, in order. With `can_address` operands that the backend cannot address are materialised."""
    policy = policy_of(target, precision)
    materialise: list[Pass] = [Materialise(can_address)] if can_address is not None else []
    return [
        Canonicalise(),  # views, masks and constants fold, so that later passes meet few kinds of nodes
        Narrow(),  # no machine has 64-bit integers; before precision, which only touches floats
        Quantise(policy.weights),  # weights get their stored form while they are still plain operands of contractions
        Precision(policy.operands, policy.rest, policy.wide_rows),  # every rounding of the machine becomes visible to the interpreter
        *materialise,  # layout changes the backend needs, shared where equal
        FindRepeats(),  # layers are compiled once; sources move to the front
        Fuse(),  # regions last: every other pass would have to keep them
    ]


def run_pipeline(
    graph: Graph,
    store: ConstantStore,
    passes: Sequence[Pass],
    *,
    verify: bool = False,
    dump_after: str | None = None,
    dump: Dump | None = None,
) -> Graph:
    """The graph after all passes. With `verify` each pass's conditions are checked before and after it.

    `dump(name, text)` receives the text form after the pass named `dump_after`. Raises BadInput where no pass has that name.
    """
    names = [p.name for p in passes]
    if dump_after is not None and dump_after not in names:
        raise BadInput(f"there is no pass {dump_after!r}; passes are {', '.join(names)}")
    if verify:
        require(graph, "lowering")
    for step in passes:
        if verify:
            step.requires(graph)
        graph = step.run(graph, store)
        if verify:
            require(graph, step.name)
            step.ensures(graph)
        if dump is not None and step.name == dump_after:
            dump(step.name, print_graph(graph))
    return graph


def prepare(
    graph: Graph,
    store: ConstantStore,
    target: str,
    precision: str,
    verify: bool = False,
    dump_after: str | None = None,
    dump: Dump | None = None,
    can_address: CanAddress | None = None,
) -> Graph:
    """A lowered graph made ready for the backend of `target` in the format `precision`."""
    return run_pipeline(graph, store, passes_for(target, precision, can_address), verify=verify, dump_after=dump_after, dump=dump)
