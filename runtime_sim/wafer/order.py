"""The order in which events are evaluated: the machine's order wherever one event can see another's result.

Most events of a schedule do not overlap in start time, so sorting by first beat is enough. Where start times of two events interleave
over the cores (lines, skewed waves), a graph of `must come first` is built: on common cores by start time, along deliveries from sender
to receiver. An event in a cycle of that graph (a chain reduction feeds itself core by core) is evaluated in levels of equal start time.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import Any

import networkx as nx
import numpy as np

from .deliveries import Deliveries
from .events import Event
from .model import Ints
from .overlaps import Sweep, difference_bounds

Graph = Any
"""A networkx DiGraph of positions in a cluster."""


@dataclass(frozen=True)
class Step:
    """One evaluation: a whole event, or its cores at one level (flat positions in the role)."""

    event: Event
    at: Ints | None = None
    covers: bool = False
    """Whether what it writes is all that its object holds afterwards (of what anything still reads)."""
    spans: bool = False
    """Whether it writes on all cores that hold anything of its object."""
    anew: bool = False
    """Whether what it writes is all that its object holds, to which other cores then add."""


@dataclass(frozen=True)
class Wave:
    """Events that see their own results, or one another's, core by core: evaluated in levels of equal start time."""

    events: tuple[Event, ...]

    @cached_property
    def steps(self) -> list[Step]:
        """The levels, in order."""
        return _levels(self.events)


def unfolded(items: Iterable[Any]) -> list[Any]:
    """Items with every wave as its steps."""
    return [step for item in items for step in (item.steps if isinstance(item, Wave) else (item,))]


def order(events: Sequence[Event], deliveries: Deliveries) -> list[Step | Wave]:
    """Steps and waves in a legal order, the same on every run."""
    ranked = sorted(events, key=lambda e: (e.low, e.burst.id, e.outer, e.k))
    out: list[Step | Wave] = []
    cluster: list[Event] = []
    reach = -1
    for event in ranked:
        if cluster and event.low > reach:
            out += _cluster(cluster, deliveries)
            cluster = []
        cluster.append(event)
        reach = max(reach, event.time.high) if len(cluster) > 1 else event.time.high
    return out + (_cluster(cluster, deliveries) if cluster else [])


def _cluster(events: list[Event], deliveries: Deliveries) -> list[Step | Wave]:
    if all(event.time.uniform for event in events):
        return [Step(event) for event in events]
    graph: Graph = nx.DiGraph()
    graph.add_nodes_from(range(len(events)))
    _core_edges(events, graph)
    _delivery_edges(events, deliveries, graph)
    joined = nx.condensation(graph)
    steps: list[Step | Wave] = []
    for node in nx.lexicographical_topological_sort(joined, key=lambda n: min(joined.nodes[n]["members"])):
        members = sorted(joined.nodes[node]["members"])
        if len(members) == 1 and not graph.has_edge(members[0], members[0]):
            steps.append(Step(events[members[0]]))
        else:
            steps.append(Wave(tuple(events[i] for i in members)))
    return steps


def _core_edges(events: list[Event], graph: Graph) -> None:
    sweep = Sweep([])
    for i, first in enumerate(events):
        for j in range(i + 1, len(events)):
            second = events[j]
            a, b = first.burst, second.burst
            if a.region.id != b.region.id:
                continue
            rows, cols = sweep.common(a.rows, b.rows), sweep.common(a.cols, b.cols)
            if rows is None or cols is None:
                continue
            low, high = difference_bounds(first.time, second.time, rows, cols)
            if high > 0:
                graph.add_edge(i, j)
            if low < 0:
                graph.add_edge(j, i)


def _delivery_edges(events: list[Event], deliveries: Deliveries, graph: Graph) -> None:
    place = {event.key: i for i, event in enumerate(events)}
    for i, event in enumerate(events):
        delivery = deliveries.of(event) if event.burst.n_in else None
        for part in delivery.parts if delivery else ():
            if part.send in place:
                graph.add_edge(place[part.send], i)


def _levels(events: Sequence[Event]) -> list[Step]:
    found: list[tuple[int, int, Step]] = []
    for rank, event in enumerate(events):
        times = event.time.array.reshape(-1)
        ranked = np.argsort(times, kind="stable")
        ordered = times[ranked]
        cuts = [0, *(np.flatnonzero(ordered[1:] != ordered[:-1]) + 1).tolist(), len(ranked)]
        found += [(int(ordered[a]), rank, Step(event, ranked[a:z])) for a, z in pairwise(cuts)]
    return [step for _, _, step in sorted(found, key=lambda item: item[:2])]
