"""Which send feeds which receive: rules W32 to W36 and times T3 to T6.

At each core the deliveries of a colour, in order of arrival, pair one to one with its receiving bursts in order of time. Loops are paired
at repetitions 0, 1, last - 1 and last; if these pairs join equal repetitions and look alike, they stand for all (T8). Otherwise every
repetition is paired.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import accumulate, pairwise

import numpy as np

from ...machines.wafer import tables as tb
from ...machines.wafer.isa import PER_WAVELET
from ...machines.wafer.timing import arrival_lag, backlog
from . import kernels
from .breaches import Breaches
from .events import Event, clipped, expanded
from .flows import Fabric, Flow
from .model import BurstView, Ints, SegmentView
from .trace import Tracer

Key = tuple[int, int, int]


@dataclass(frozen=True)
class Part:
    """The cores of a receive that one sending event feeds: flat positions in the role, and the source core of each."""

    send: Key
    at: Ints
    src: Ints


@dataclass(frozen=True)
class Delivery:
    """What a receiving event gets: its parts, and `T_send + H` per core [rows, columns]."""

    parts: tuple[Part, ...]
    arrive: Ints


@dataclass(frozen=True)
class _Pairs:
    """What arrives at every receiving event, by position in its role: number of the sending event, source core, `T_send + H`."""

    send: list[Ints]
    src: list[Ints]
    arrive: list[Ints]


class Deliveries:
    """All pairs of one segment."""

    def __init__(self, seg: SegmentView, fabric: Fabric, out: Breaches) -> None:
        self.seg, self.fabric, self.out = seg, fabric, out
        self.invariant: dict[int, Delivery] = {}
        self.explicit: dict[Key, Delivery] = {}
        self.flows: dict[int, Flow] = {}
        self.event_flows: dict[Key, Flow] = {}
        self.gated = gated_loops(seg)
        self._waits: dict[Key, tuple[int, int]] = {}
        self.complete = True
        groups: dict[tuple[int, int], tuple[list[BurstView], list[BurstView], list[BurstView]]] = {}
        for burst in seg.bursts:
            for role, colour in ((0, burst.cout if burst.n_out else -1), (1, burst.cin if burst.n_in else -1)):
                if colour >= 0:
                    groups.setdefault(self._channel(burst, colour), ([], [], []))[role].append(burst)
            if burst.op.op.name == "SWITCH":
                groups.setdefault(self._channel(burst, burst.cout), ([], [], []))[2].append(burst)
        for (region, colour), (sends, receives, switches) in sorted(groups.items()):
            self._pair_group(region, colour, sends, receives, switches)

    def _channel(self, burst: BurstView, colour: int) -> tuple[int, int]:
        entries = self.fabric.entries_of(burst, colour)
        return (entries.region if entries else burst.region.id), colour

    def of(self, event: Event) -> Delivery | None:
        """What a receiving event gets; None where it could not be paired."""
        if event.key in self.explicit:
            return self.explicit[event.key]
        base = self.invariant.get(event.burst.row)
        if base is None or not (event.k or event.outer):
            return base
        parts = tuple(Part((p.send[0], event.k, event.outer), p.at, p.src) for p in base.parts)
        return Delivery(parts, base.arrive + event.burst.shift_of(event.k, event.outer))

    def flow(self, event: Event) -> Flow:
        """The flow of a sending event."""
        return self.event_flows.get(event.key) or self.flows[event.burst.row]

    def _pair_group(self, region: int, colour: int, sends: list[BurstView], receives: list[BurstView], switches: list[BurstView]) -> None:
        entries = self.fabric.colours.get((region, colour))
        static = all(self.fabric.is_static(b) for b in sends)
        if static:
            for burst in sends:
                self.flows[burst.row] = self.fabric.static_flow(burst)
            ends_s, ends_r = clipped(sends), clipped(receives)
            short = len(ends_s) < sum(b.repetitions for b in sends) or len(ends_r) < sum(b.repetitions for b in receives)
            paired = self._pair(colour, ends_s, ends_r, report=not short)
            if (paired is None and not short) or (paired is not None and self._keep_invariant(paired, ends_s, ends_r)):
                return
        every = sorted(expanded(sends), key=lambda e: (e.low, e.key))
        if not static:
            assert entries is not None
            tracer = Tracer(self.fabric, entries, self.out)
            self.event_flows |= tracer.follow(every, sorted(expanded(switches), key=lambda e: e.key))
        taking = list(expanded(receives))
        paired = self._pair(colour, every, taking)
        if paired is not None:
            self.explicit |= _split(paired, every, taking)

    def _pair(self, colour: int, sends: Sequence[Event], receives: Sequence[Event], report: bool = True) -> _Pairs | None:
        """Match in order at each core; W33 and W34 where the counts differ."""
        flows = [self.flow(event) for event in sends]
        found = self._in_turn(sends, receives, flows) if kernels.pays(sum(len(flow.dst) for flow in flows)) else None
        if found is not None:
            return found
        times, when = [], np.zeros(self.fabric.size, np.int64)
        for event, flow in zip(sends, flows, strict=True):
            when[event.burst.core_ids] = event.time.array
            times.append(when[flow.src] + flow.hops)
        sc, st, ss = _cat([flow.dst for flow in flows]), _cat(times), _cat([flow.src for flow in flows])
        rc, rt = _cat([e.burst.core_ids.reshape(-1) for e in receives]), _cat([e.time.array.reshape(-1) for e in receives])
        send = np.repeat(np.arange(len(sends)), [len(flow.dst) for flow in flows])
        difference = np.bincount(rc, minlength=self.fabric.size) - np.bincount(sc, minlength=self.fabric.size)
        if difference.any():
            if report:
                index = np.repeat(np.arange(len(receives)), [e.burst.cores for e in receives])
                self._unmatched(colour, difference, sends, receives, (sc, send), (rc, index))
            return None
        place = np.empty(len(sc), np.int64)
        place[self._places(sc, st)] = np.arange(len(sc))
        take = place[self._places(rc, rt)]
        bounds = list(accumulate((e.burst.cores for e in receives), initial=0))
        parts = ([values[a:z] for a, z in pairwise(bounds)] for values in (send[take], ss[take], st[take]))
        return _Pairs(*parts)

    def _in_turn(self, sends: Sequence[Event], receives: Sequence[Event], flows: Sequence[Flow]) -> _Pairs | None:
        """The same where deliveries can be made and taken in order of time, one waiting at a core, and no two times of a core are equal;
        None elsewhere."""
        if sum(len(flow.dst) for flow in flows) != sum(event.burst.cores for event in receives):
            return None
        size, never = self.fabric.size, np.iinfo(np.int64).min
        first, waiting, state = np.zeros(size, np.int64), np.full((3, size), -1, np.int64), np.full((2, size), never, np.int64)
        number = np.empty(max((event.burst.cores for event in receives), default=0), np.int64)
        todo = sorted(range(len(sends)), key=lambda i: sends[i].time.high, reverse=True)
        taken: dict[int, tuple[Ints, Ints, Ints]] = {}
        for i in sorted(range(len(receives)), key=lambda i: receives[i].time.high):
            while todo:
                time, flow = sends[todo[-1]].time, flows[todo[-1]]
                start = time.low if time.uniform and time.low >= 0 else -1
                if start < 0:
                    first[sends[todo[-1]].burst.core_ids] = time.array
                if not kernels.deliver(flow.dst, flow.src, flow.hops, todo[-1], start, first, waiting, state[0]):
                    break
                todo.pop()
            cores = receives[i].burst.core_ids.reshape(-1)
            src, arrive = np.empty(len(cores), np.int64), np.empty(len(cores), np.int64)
            time = receives[i].time
            start, times = (time.low, first) if time.uniform and time.low >= 0 else (-1, time.array.reshape(-1))
            low, high = kernels.take(cores, start, times, waiting, state[1], number, src, arrive)
            if low < 0:
                return None
            taken[i] = np.broadcast_to(np.int64(low), len(cores)) if low == high else number[: len(cores)].copy(), src, arrive
        if todo or (waiting[0] >= 0).any():
            return None
        return _Pairs(*([taken[i][column] for i in range(len(receives))] for column in range(3)))

    def _places(self, cores: Ints, times: Ints) -> Ints:
        """The place of every entry among all in order of core and time; equal times in order of the entries."""
        out = np.empty(len(cores), np.int64)
        out[np.lexsort((times, cores))] = np.arange(len(cores))
        return out

    def _unmatched(
        self, colour: int, difference: Ints, sends: Sequence[Event], receives: Sequence[Event], s: tuple[Ints, Ints], r: tuple[Ints, Ints]
    ) -> None:
        self.complete = False
        for rule, sign, (cores, index), events in (("W33", 1, r, receives), ("W34", -1, s, sends)):
            bad = np.flatnonzero(difference * sign > 0)
            if not len(bad):
                continue
            core = int(bad[0])
            names = sorted({(events[i].burst.id, events[i].burst.name, events[i].burst.prov) for i in np.unique(index[cores == core])})
            what = "a receive that no delivery matches" if rule == "W33" else "a delivery that is never received"
            message = f"colour {colour}: {what} ({len(bad)} cores)"
            self.out.add(rule, self.fabric.core(core), message, claimants=[n[1] for n in names], prov=[n[2] for n in names])

    def _keep_invariant(self, pairs: _Pairs, sends: list[Event], receives: list[Event]) -> bool:
        """Whether pairs join equal repetitions in one way; if so, keep one delivery a burst."""
        if not all(e.burst.repetitions == 1 for e in (*sends, *receives)):
            s_rep = np.array([(e.k, e.outer, e.burst.loop.id) for e in sends]).reshape(-1, 3)
            if any((s_rep[send] != (e.k, e.outer, e.burst.loop.id)).any() for send, e in zip(pairs.send, receives, strict=True)):
                return False
        kept: dict[int, Delivery] = {}
        first: dict[int, tuple[Ints, Ints]] = {}
        rows = np.array([e.burst.row for e in sends])
        for i in sorted(range(len(receives)), key=lambda i: receives[i].key):
            send, src, burst = pairs.send[i], pairs.src[i], receives[i].burst
            if burst.row in first:
                if not (np.array_equal(first[burst.row][0], rows[send]) and np.array_equal(first[burst.row][1], src)):
                    return False
                continue
            if burst.repetitions > 1:
                first[burst.row] = (rows[send], src)
            parts = tuple(Part((sends[s].burst.row, 0, 0), at, of) for s, at, of in _groups(send, src))
            kept[burst.row] = Delivery(parts, pairs.arrive[i].reshape(len(burst.rows), len(burst.cols)))
        self.invariant |= kept
        return True

    def extra(self, burst: BurstView) -> int:
        """`beta` of the software model for the wavelets of a sending burst."""
        return 0 if burst.loop.id in self.gated else self.seg.machine.cost.wavelet_cycles

    def lag(self, send: BurstView, receive: BurstView) -> int:
        """T5: cycles from `T_send + H` to the earliest first beat of the receiver."""
        if send.stream_out.n != receive.stream_in.n:
            return 0  # W32 says so; no time fits
        return arrival_lag(send.stream_out, receive.stream_in, self.seg.machine.ramp_cycles, self.extra(send))

    def earliest(self, event: Event) -> Ints | None:
        """A of T5 per core of the role."""
        delivery = self.of(event)
        if delivery is None:
            return None
        if len(delivery.parts) == 1:
            return delivery.arrive + self.lag(self.seg.bursts[delivery.parts[0].send[0]], event.burst)
        out = delivery.arrive.reshape(-1).copy()
        for part in delivery.parts:
            out[part.at] += self.lag(self.seg.bursts[part.send[0]], event.burst)
        return out.reshape(delivery.arrive.shape)

    def waits(self, event: Event, delivery: Delivery) -> tuple[int, int]:
        """Least and greatest time from `T_send + H` to the first beat of a receiving event, over its cores."""
        if event.key not in self._waits:
            if event.time.uniform:
                found = event.low - int(delivery.arrive.max()), event.low - int(delivery.arrive.min())
            else:
                delay = event.time.array - delivery.arrive
                found = int(delay.min()), int(delay.max())
            self._waits[event.key] = found
        return self._waits[event.key]

    def check(self, events: Sequence[Event]) -> None:
        """W32, W35, W36 on the given (clipped) events."""
        seen: set[tuple[int, int]] = set()
        for event in events:
            delivery = self.of(event) if event.burst.n_in else None
            if delivery is None:
                continue
            low, high = self.waits(event, delivery)
            delay = np.broadcast_to(low, event.burst.cores) if low == high else (event.time.array - delivery.arrive).reshape(-1)
            for part in delivery.parts:
                send = self.seg.bursts[part.send[0]]
                if (send.row, event.burst.row) not in seen:
                    seen.add((send.row, event.burst.row))
                    self._check_payload(send, event.burst)
                self._check_times(send, event, delay[: len(part.at)] if low == high else delay[part.at], part)

    def _check_payload(self, send: BurstView, receive: BurstView) -> None:
        wrong = []
        if send.n_out != receive.n_in:
            wrong.append(f"{send.n_out} wavelets are sent, {receive.n_in} are received")
        if send.fout != receive.fin:
            wrong.append(f"{send.fout and send.fout.name} is sent, {receive.fin and receive.fin.name} is received")
        elif send.fout is not None and PER_WAVELET[send.fout] == 2 and _streamed(send, True) != _streamed(receive, False):
            wrong.append("numbers of halves differ")
        if receive.span != send.span and not (receive.m > send.span and receive.span == receive.m):
            wrong.append(f"span {receive.span} does not follow the sender's {send.span}")
        if wrong:
            who, prov = [send.name, receive.name], [send.prov, receive.prov]
            self.out.add("W32", f"colour {receive.cin}", "; ".join(wrong), claimants=who, prov=prov)

    def _check_times(self, send: BurstView, event: Event, delay: Ints, part: Part) -> None:
        receive, machine = event.burst, self.seg.machine
        if send.n_out != receive.n_in:
            return
        who, prov = [send.name, receive.name], [send.prov, receive.prov]
        lag, extra = self.lag(send, receive), self.extra(send)
        known = _values(delay)
        if known[0] < lag:
            early = np.flatnonzero(delay < lag)
            at = int(part.at[early[0]])
            core, cycle = self.fabric.core(int(receive.core_ids.reshape(-1)[at])), int(event.time.array.reshape(-1)[at])
            message = f"colour {receive.cin} is taken {lag - int(delay[early[0]])} cycles before it arrives"
            self.out.add("W35", core, message, cycle=cycle, claimants=who, prov=prov)
        depth = machine.input_queues.get(receive.qin, 0) + 2
        if send.n_out <= depth:
            return
        for value in (v for v in known if v >= lag):
            waiting = backlog(send.stream_out, receive.stream_in, value - extra, machine.ramp_cycles)
            if waiting > depth:
                at = int(part.at[np.flatnonzero(delay == value)[0]])
                core, cycle = self.fabric.core(int(receive.core_ids.reshape(-1)[at])), int(event.time.array.reshape(-1)[at])
                message = f"queue {receive.qin} would hold {waiting} wavelets, {depth} fit"
                self.out.add("W36", core, message, cycle=cycle, claimants=who, prov=prov)


def _streamed(burst: BurstView, sends: bool) -> int:
    """Elements that a burst streams."""
    return burst.count // burst.ext[3] if not sends and burst.scalar_stream else burst.count


def _values(array: Ints) -> list[int]:
    """What an array holds, ascending; most hold one value."""
    alike = array.strides == (0,) or not len(array) or not (array != array[0]).any()
    found: list[int] = (array[:1] if alike else np.unique(array)).tolist()
    return found


def _cat(parts: Sequence[Ints]) -> Ints:
    return np.concatenate(parts) if parts else np.zeros(0, np.int64)


def _groups(values: Ints, sources: Ints) -> list[tuple[int, Ints, Ints]]:
    """Values, where they are, and the sources there, ascending."""
    found = _values(values)
    if len(found) == 1:
        return [(found[0], _numbers(len(values)), sources)]
    places = [(value, np.flatnonzero(values == value)) for value in found]
    return [(value, at, sources[at]) for value, at in places]


@lru_cache(maxsize=64)
def _numbers(count: int) -> Ints:
    """0 .. count - 1, not to be written."""
    return np.arange(count)


def _split(pairs: _Pairs, sends: Sequence[Event], receives: Sequence[Event]) -> dict[Key, Delivery]:
    out = {}
    for send, src, arrive, event in zip(pairs.send, pairs.src, pairs.arrive, receives, strict=True):
        parts = tuple(Part(sends[s].key, at, of) for s, at, of in _groups(send, src))
        out[event.key] = Delivery(parts, arrive.reshape(len(event.burst.rows), len(event.burst.cols)))
    return out


def gated_loops(seg: SegmentView) -> set[int]:
    """Loops whose repetition joins two or more fabric-in bursts on some core."""
    counts: dict[int, Ints] = {}
    for burst in seg.bursts:
        if burst.n_in and burst.loop.id != tb.NONE:
            counts.setdefault(burst.loop.id, np.zeros(seg.w * seg.h, np.int64))[burst.core_ids.reshape(-1)] += 1
    return {loop for loop, count in counts.items() if count.max() > 1}
