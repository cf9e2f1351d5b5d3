"""Rates on cores, ramps and links: rules W10, W30, W31 (T10).

A claim takes amount/span of a unit that serves one a cycle. The claims on a unit that overlap must sum to at most 1; the greatest sum is
attained at the start of some claim, so only starts are tested. Sums are exact: amounts are scaled to a common denominator.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import lcm

import numpy as np

from ...machines.wafer import tables as tb
from .breaches import Breaches
from .deliveries import Deliveries
from .events import Event
from .flows import Fabric
from .model import Ints, SegmentView, Separable
from .overlaps import Claim, Sweep, claim_of

_EXACT = 1 << 62


def issue_claims(seg: SegmentView, events: Sequence[Event]) -> list[Claim]:
    """Beats of every event (C3), and of replaced route entries (F7)."""
    free_moves = seg.machine.issue == "overlapped"
    claims = [claim_of(e, 0 if free_moves and e.burst.fabric and e.burst.op.op.name == "MOV" else e.burst.m) for e in events]
    t = {name: column.tolist() for name, column in seg.routes.items()}
    for i, since in enumerate(t["since"]):
        if since and t["region"][i] != tb.NONE:
            rows, cols = range(*t["rows"][i]), range(*t["cols"][i])
            cost = seg.machine.cost.route_change_beats
            time = Separable(since - cost, np.zeros(len(rows), np.int64), np.zeros(len(cols), np.int64))
            claims.append(Claim(t["region"][i], rows, cols, time, cost, cost, f"route change of colour {t['colour'][i]}", -1))
    return [c for c in claims if c.amount]


def send_claims(events: Sequence[Event]) -> list[Claim]:
    """Wavelets out of each core."""
    return [claim_of(e, e.burst.n_out) for e in events if e.burst.n_out]


def arrival_claims(seg: SegmentView, deliveries: Deliveries, events: Sequence[Event]) -> list[Claim]:
    """Wavelets into each core, at the cycles at which they arrive."""
    claims = []
    for e in events:
        delivery = deliveries.of(e) if e.burst.n_in else None
        if delivery is None:
            continue
        b = e.burst
        time = Separable(0, np.zeros(len(b.rows), np.int64), np.zeros(len(b.cols), np.int64), delivery.arrive)
        span = min(seg.bursts[p.send[0]].span for p in delivery.parts)
        claims.append(Claim(b.region.id, b.rows, b.cols, time, span, b.n_in, b.name, b.prov, 0, e))
    return claims


def check_core_rates(claims: Sequence[Claim], rule: str, unit: str, fabric: Fabric, out: Breaches) -> None:
    """Sums on each core: the claims that meet at the start of another one."""
    sweep = Sweep(claims)
    meets: list[list[tuple[int, tuple[Ints, Ints], tuple[Ints, Ints], bool]]] = [[] for _ in sweep.claims]
    for m in sweep.meetings():
        meets[m.first].append((m.second, m.rows, m.cols, True))
        meets[m.second].append((m.first, m.rows, m.cols, False))
    for i, own in enumerate(sweep.claims):
        others = meets[i]
        if not others:
            continue
        scale = lcm(own.span, *(sweep.claims[j].span for j, *_ in others))
        bound = own.amount * (scale // own.span) + sum(sweep.claims[j].amount * (scale // sweep.claims[j].span) for j, *_ in others)
        if bound <= scale:
            continue
        total = np.full((len(own.rows), len(own.cols)), own.amount * (scale // own.span), np.int64 if bound < _EXACT else object)
        for j, rows, cols, is_first in others:
            other = sweep.claims[j]
            mine, theirs = ((rows[0], cols[0]), (rows[1], cols[1])) if is_first else ((rows[1], cols[1]), (rows[0], cols[0]))
            delta = _start_difference(own, other, mine, theirs)
            here = (delta <= 0) & (delta > -other.span)
            if here.any():
                total[np.ix_(*mine)] += here * (other.amount * (scale // other.span))
        bad = np.argwhere(total > scale)
        if len(bad):
            _report(sweep, i, [j for j, *_ in others], tuple(bad[0].tolist()), rule, unit, fabric, out, len(bad))


def _start_difference(own: Claim, other: Claim, mine: tuple[Ints, Ints], theirs: tuple[Ints, Ints]) -> Ints:
    """T_other - T_own on the common cores."""
    a, b = own.time, other.time
    out = (b.base - a.base) + (b.u[theirs[0]] - a.u[mine[0]])[:, None] + (b.v[theirs[1]] - a.v[mine[1]])[None, :]
    if a.dense is not None:
        out = out - a.dense[np.ix_(*mine)]
    if b.dense is not None:
        out = out + b.dense[np.ix_(*theirs)]
    return out


def _report(
    sweep: Sweep, i: int, others: Sequence[int], at: tuple[int, ...], rule: str, unit: str, fabric: Fabric, out: Breaches, count: int
) -> None:
    own = sweep.claims[i]
    cycle = int(own.time.array[at])
    y, x = own.rows[at[0]], own.cols[at[1]]
    here = [own]
    for j in others:
        c = sweep.claims[j]
        if y in c.rows and x in c.cols:
            t = int(c.time.array[c.rows.index(y), c.cols.index(x)])
            if t <= cycle < t + c.span:
                here.append(c)
    region = fabric.seg.regions[own.region]
    core = fabric.core((region.y + y) * fabric.seg.w + region.x + x)
    sums = " + ".join(f"{c.amount}/{c.span}" for c in here)
    message = f"{unit} claims {sums} exceed 1 ({count} cores)"
    out.add(rule, core, message, cycle=cycle, claimants=[c.name for c in here], prov=[c.prov for c in here])


def check_link_rates(seg: SegmentView, fabric: Fabric, deliveries: Deliveries, events: Sequence[Event], out: Breaches) -> None:
    """W30: only events that share a link and whose passages may meet are compared, claim by claim."""
    sends = [e for e in events if e.burst.n_out]
    flows = [deliveries.flow(e) for e in sends]
    reach = [int(f.link_hops.max()) if len(f.link_hops) else 0 for f in flows]
    crowded = {id(f): bool((np.diff(np.sort(f.link)) == 0).any()) for f in {id(f): f for f in flows}.values()}
    shared: dict[tuple[int, int], bool] = {}
    suspects: set[int] = {i for i, f in enumerate(flows) if crowded[id(f)]}
    lows, mark = np.array([e.low for e in sends]), np.zeros(4 * fabric.size, bool)
    for i, e in enumerate(sends):
        for j in range(i + 1, int(np.searchsorted(lows, e.end + reach[i] + 1))):
            key = (id(flows[i]), id(flows[j]))
            if key not in shared:
                mark[flows[i].link] = True
                shared[key] = bool(mark[flows[j].link].any())
                mark[flows[i].link] = False
            if shared[key]:
                suspects |= {i, j}
    if not suspects:
        return
    order = sorted(suspects)
    link, start, index = [], [], []
    when = np.zeros(fabric.size, np.int64)
    for i in order:
        e, f = sends[i], flows[i]
        when[e.burst.core_ids] = e.time.array
        link.append(f.link)
        start.append(when[f.link_src] + f.link_hops)
        index.append(np.full(len(f.link), i))
    spans = np.array([e.burst.span + e.burst.control for e in sends], np.int64)
    amounts = np.array([e.burst.n_out + e.burst.control for e in sends], np.int64)
    _sweep_links(np.concatenate(link), np.concatenate(start), np.concatenate(index), spans, amounts, sends, seg, fabric, out)


def _sweep_links(
    link: Ints,
    start: Ints,
    index: Ints,
    spans: Ints,
    amounts: Ints,
    sends: Sequence[Event],
    seg: SegmentView,
    fabric: Fabric,
    out: Breaches,
) -> None:
    order = np.lexsort((start, link))
    link, start, index = link[order], start[order], index[order]
    end = start + spans[index]
    group = np.r_[True, link[1:] != link[:-1]]
    offset = np.cumsum(group) * (int(end.max()) - int(start.min()) + 1)
    running = np.maximum.accumulate(end - int(start.min()) + offset)
    meets = np.flatnonzero(~group[1:] & (start[1:] - int(start.min()) + offset[1:] < running[:-1])) + 1
    first = np.maximum.accumulate(np.where(group, np.arange(len(link)), 0))
    for i in meets.tolist():
        before = np.arange(first[i], i)
        here = [int(index[i]), *index[before[end[before] > start[i]]].tolist()]
        after = i + 1
        while after < len(link) and link[after] == link[i] and start[after] == start[i]:
            here.append(int(index[after]))
            after += 1
        scale = lcm(*(int(spans[k]) for k in here))
        if sum(int(amounts[k]) * (scale // int(spans[k])) for k in here) > scale:
            port = tb.Port(int(link[i]) % 4).name
            sums = " + ".join(f"{amounts[k]}/{spans[k]}" for k in here)
            bursts = [sends[k].burst for k in here]
            cycle = int(start[i]) + 1 + seg.machine.ramp_cycles
            message = f"link {port}: claims {sums} exceed 1"
            out.add(
                "W30",
                fabric.core(int(link[i]) // 4),
                message,
                cycle=cycle,
                claimants=[b.name for b in bursts],
                prov=[b.prov for b in bursts],
            )
