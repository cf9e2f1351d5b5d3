"""Everything that is judged and counted once per segment, and reused for all its instances."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from ...machines.program import Segment
from ...machines.wafer.description import WaferMachine
from ...machines.wafer.isa import WORDS
from .addresses import reads, writes
from .breaches import Breaches
from .closed import close_loops
from .deliveries import Deliveries
from .engine import Engine
from .events import Event, clipped, expanded
from .fields import check_bursts, check_rows
from .flows import Fabric, Flow, Hops
from .hazards import Hazards
from .liveness import Liveness
from .model import BurstView, Ints, SegmentView, view_segment
from .order import Step, Wave, order, unfolded
from .plan import Plan, make_plan
from .rates import arrival_claims, check_core_rates, check_link_rates, issue_claims, send_claims
from .triggers import Triggers


@dataclass
class Counters:
    """Sums over all cores and repetitions of one segment."""

    beats: int = 0
    link_cycles: int = 0
    wavelet_hops: int = 0
    wavelets: int = 0
    memory_bytes: int = 0


@dataclass
class Analysis:
    """One segment on one place: views, flows, verdict, order of evaluation, counters."""

    seg: SegmentView
    fabric: Fabric
    deliveries: Deliveries
    liveness: Liveness
    breaches: Breaches
    end: int
    counters: Counters
    compute: Ints = field(default_factory=lambda: np.zeros((0, 2), np.int64))
    """Intervals [start, end) in which some core computes; `moves`: in which some core sends or receives; `flight`: wavelets on the way."""
    moves: Ints = field(default_factory=lambda: np.zeros((0, 2), np.int64))
    flight: Ints = field(default_factory=lambda: np.zeros((0, 2), np.int64))
    steps: list[Step | Wave] = field(default_factory=list)
    _plans: dict[tuple[bool, frozenset[int], frozenset[int], bool], Plan] = field(default_factory=dict)
    _engine: Engine | None = None

    def plan(self, exact: bool, held: frozenset[int], kept: frozenset[int], plain: bool) -> Plan:
        """What to run for values (`make_plan`): loops in closed form unless `exact` (N6)."""
        key = exact, held, kept, plain
        if key not in self._plans:
            steps: list[Any] = list(self.steps)
            if self.seg.loops and not exact:
                steps = close_loops(self.seg, self.deliveries, unfolded(steps))
            self._plans[key] = make_plan(self.seg, self.deliveries, steps, held, kept, exact, plain)
        return self._plans[key]

    def named(self, segment: Segment) -> Analysis:
        """The analysis of a segment that is equal but for where its rows come from."""
        origins = {name: segment.tables[name]["prov"].tolist() for name in ("regions", "objects")}
        objects = {o.id: replace(o, prov=p) for o, p in zip(self.seg.objects.values(), origins["objects"], strict=True)}
        regions = {r.id: replace(r, prov=p) for r, p in zip(self.seg.regions.values(), origins["regions"], strict=True)}
        return replace(self, seg=replace(self.seg, name=segment.name, objects=objects, regions=regions))

    def engine(self) -> Engine:
        """The evaluator of this segment."""
        if self._engine is None:
            self._engine = Engine(self.seg, self.deliveries)
        return self._engine

    @property
    def runnable(self) -> bool:
        """Whether values can be computed: every receive has its delivery, of its own length."""
        return self.deliveries.complete and not self.breaches.counts["W32"]


def analyse(segment: Segment, machine: WaferMachine, breaches: Breaches, hops: Hops | None = None) -> Analysis | None:
    """Judge one segment; None where its tables cannot be read further (the breaches say why)."""
    check_rows(segment, machine, breaches)
    if breaches.fatal:
        return None
    seg = view_segment(segment, machine)
    check_bursts(seg, breaches)
    if breaches.fatal:
        return None
    fabric = Fabric(seg, hops or Hops.straight(seg.w, seg.h), breaches)
    fabric.check_sharing()
    fabric.check_circles()
    deliveries = Deliveries(seg, fabric, breaches)
    events = clipped(seg.bursts)
    deliveries.check(events)
    Triggers(seg, fabric, deliveries, breaches).check()
    check_core_rates(issue_claims(seg, events), "W10", "issue", fabric, breaches)
    check_core_rates(send_claims(events), "W31", "outward ramp", fabric, breaches)
    check_core_rates(arrival_claims(seg, deliveries, events), "W31", "inward ramp", fabric, breaches)
    check_link_rates(seg, fabric, deliveries, events, breaches)
    Hazards(seg, fabric, deliveries, breaches).check(events)
    liveness = Liveness(seg)
    end = max((e.end for e in events), default=0)
    out = Analysis(seg, fabric, deliveries, liveness, breaches, end, _count(seg, deliveries))
    out.steps = order(list(expanded(seg.bursts)), deliveries)
    liveness.walk(out.steps, fabric, breaches)
    out.compute = intervals([b for b in seg.bursts if not b.fabric])
    out.moves = intervals([b for b in seg.bursts if b.fabric])
    out.flight = _flight(seg, deliveries)
    return out


def _count(seg: SegmentView, deliveries: Deliveries) -> Counters:
    total, lengths = Counters(), dict[int, int]()

    def length_of(flow: Flow) -> int:
        """Cycles that a wavelet is on all links of a flow."""
        if id(flow) not in lengths:
            lengths[id(flow)] = int(_link_length(deliveries, flow.link).sum())
        return lengths[id(flow)]

    for burst in seg.bursts:
        runs = burst.repetitions * burst.cores
        total.beats += burst.m * runs
        for name in (*reads(burst), *writes(burst)):
            count = burst.count // burst.ext[3] if name == "s" else burst.count
            total.memory_bytes += 2 * WORDS[seg.objects[burst.operand(name).obj].fmt] * count * runs
        if not burst.n_out:
            continue
        total.wavelets += burst.n_out * runs
        if burst.row in deliveries.flows:
            flow = deliveries.flows[burst.row]
            links, length = len(flow.link) * burst.repetitions, length_of(flow) * burst.repetitions
        else:
            flows = [deliveries.event_flows[e.key] for e in expanded([burst]) if e.key in deliveries.event_flows]
            links = sum(len(f.link) for f in flows)
            length = sum(length_of(f) for f in flows)
        total.link_cycles += burst.n_out * links
        total.wavelet_hops += burst.n_out * length
    return total


def _link_length(deliveries: Deliveries, link: Ints) -> Ints:
    return deliveries.fabric.hops.length[link % 4, link // 4]


def intervals(bursts: list[BurstView]) -> Ints:
    """Union of [T, E) over cores and repetitions, as sorted disjoint intervals [n, 2]."""
    parts = []
    for burst in bursts:
        starts = burst.time.values
        if burst.repetitions == 1:
            parts.append(np.stack([starts, starts + burst.span], axis=1))
            continue
        shifts = np.arange(burst.loop.rep)[:, None] * burst.loop.period + np.arange(burst.outer.rep)[None, :] * burst.outer.period
        begin = (starts[:, None] + shifts.reshape(1, -1)).reshape(-1)
        parts.append(union(np.stack([begin, begin + burst.span], axis=1)))
    return union(np.concatenate(parts)) if parts else np.zeros((0, 2), np.int64)


def union(spans: Ints) -> Ints:
    """Sorted disjoint union of intervals [n, 2]."""
    if not len(spans):
        return np.zeros((0, 2), np.int64)
    spans = spans[np.argsort(spans[:, 0], kind="stable")]
    reach = np.maximum.accumulate(spans[:, 1])
    new = np.r_[True, spans[1:, 0] > reach[:-1]]
    return np.stack([spans[new, 0], reach[np.r_[new[1:], True]]], axis=1)


def _flight(seg: SegmentView, deliveries: Deliveries) -> Ints:
    """Union of the times from a send's first beat to the end of its receives."""
    parts = []
    for burst in seg.bursts:
        if not burst.n_in:
            continue
        event = Event(burst)
        delivery = deliveries.of(event)
        if delivery is None:
            continue
        shifts = (
            np.arange(burst.loop.rep)[:, None] * burst.loop.period + np.arange(burst.outer.rep)[None, :] * burst.outer.period
        ).reshape(-1)
        sends = [(seg.bursts[p.send[0]], p.src) for p in delivery.parts]
        low = min(b.time.low if b.time.uniform else int(_send_times(seg, b.row)[src].min()) for b, src in sends)
        if burst.row in deliveries.invariant:
            parts.append(np.stack([low + shifts, event.end + shifts], axis=1))
        else:
            parts.append(np.array([[low, event.end]], np.int64))
    return union(np.concatenate(parts)) if parts else np.zeros((0, 2), np.int64)


def _send_times(seg: SegmentView, row: int) -> Ints:
    burst = seg.bursts[row]
    out = np.zeros(seg.w * seg.h, np.int64)
    out[burst.core_ids] = burst.time.array
    return out
