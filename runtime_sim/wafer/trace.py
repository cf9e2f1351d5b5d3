"""Colours whose routers change: heads are followed hop by hop at the cycle at which they pass (F6, F7, W21 to W27).

Position of a router at a cycle = number of advances in force there by then, modulo the number of positions that it has. Advances come
from SWITCH bursts and from control wavelets; senders are followed in order of their first beat, so that a control wavelet is known to
those that come later, and a last pass compares the position that was used with the one that the final list of advances gives.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from ...machines.wafer import tables as tb
from .breaches import Breaches
from .events import Event
from .flows import OPPOSITE, RAMP, Entries, Fabric, Flow
from .model import Ints

_SPAN = 1 << 44


@dataclass
class Passages:
    """Routers passed: router, first and last cycle there, position used, key of the sending event."""

    router: list[Ints] = field(default_factory=list)
    first: list[Ints] = field(default_factory=list)
    last: list[Ints] = field(default_factory=list)
    position: list[Ints] = field(default_factory=list)
    sender: list[Ints] = field(default_factory=list)


class Tracer:
    """Follows the sends of one colour of one region."""

    def __init__(self, fabric: Fabric, entries: Entries, out: Breaches) -> None:
        self.fabric, self.entries, self.out = fabric, entries, out
        self.keys = sorted(entries.rx)
        self.rx = np.stack([entries.rx[k].reshape(-1) for k in self.keys]).astype(np.int64)
        self.tx = np.stack([entries.tx[k].reshape(-1) for k in self.keys]).astype(np.int64)
        numbers = sorted({k[0] for k in self.keys})
        present = np.stack([np.any([self.rx[i] >= 0 for i, k in enumerate(self.keys) if k[0] == n], axis=0) for n in numbers])
        self.positions = np.maximum(present.sum(axis=0), 1)
        for i in range(1, len(numbers)):
            holes = np.flatnonzero(present[i] & ~present[i - 1])
            if len(holes) or numbers[i] != i:
                core = fabric.core(int(holes[0])) if len(holes) else f"region {entries.region}"
                out.add("W21", core, f"colour {entries.colour}: positions are not numbered 0, 1, ..")
        self.advances = np.zeros(0, np.int64)
        self.passages = Passages()

    def follow(self, sends: Sequence[Event], switches: Sequence[Event]) -> dict[tuple[int, int, int], Flow]:
        """The flow of every sending event, by key. `switches` are all SWITCH events of the colour."""
        ramp = self.fabric.seg.machine.ramp_cycles
        marks = [np.zeros(0, np.int64)]
        marks += [e.burst.core_ids.reshape(-1) * _SPAN + e.time.array.reshape(-1) + 1 + ramp for e in switches]
        self.advances = np.sort(np.concatenate(marks))
        levels: list[tuple[int, int, Ints]] = []
        for number, event in enumerate(sends):
            times = event.time.array.reshape(-1)
            levels += [(int(t), number, event.burst.core_ids.reshape(-1)[times == t]) for t in np.unique(times)]
        parts: list[list[Flow]] = [[] for _ in sends]
        for t, number, cores in sorted(levels, key=lambda item: (item[0], item[1])):
            parts[number].append(self._follow(sends[number], number, t, cores))
        self._recheck(sends)
        return {event.key: _join(flows) for event, flows in zip(sends, parts, strict=True)}

    def _position(self, router: Ints, cycle: Ints) -> Ints:
        count = np.searchsorted(self.advances, router * _SPAN + cycle, "right") - np.searchsorted(self.advances, router * _SPAN, "left")
        return np.asarray(count % self.positions[router], np.int64)

    def _entry(self, router: Ints, position: Ints, cycle: Ints) -> Ints:
        """Index into `keys` of the entry in force, -1 where there is none."""
        best = np.full(len(router), -1)
        for i, (number, since) in enumerate(self.keys):
            best[(position == number) & (cycle >= since) & (self.rx[i, router] >= 0)] = i
        return best

    def _follow(self, event: Event, number: int, t: int, cores: Ints) -> Flow:
        burst, fabric = event.burst, self.fabric
        ramp = fabric.seg.machine.ramp_cycles
        length = burst.span + int(burst.control)
        src, router, hops, port = cores, cores, np.zeros(len(cores), np.int64), np.full(len(cores), RAMP)
        mask = fabric._mask(self.entries.region)
        out: list[list[Ints]] = [[] for _ in range(6)]
        passed: list[tuple[Ints, Ints]] = []
        limit = fabric.seg.w + fabric.seg.h + 4
        for step in range(limit + 2):
            if not len(router):
                break
            cycle = t + 1 + ramp + hops
            position = self._position(router, cycle)
            entry = self._entry(router, position, cycle)
            good = (entry >= 0) & (self.rx[np.maximum(entry, 0), router] == port)
            for core in router[~good][:1].tolist():
                rule = "W26" if step == 0 else "W24"
                message = f"colour {self.entries.colour} comes by a port that is not the rx of its position"
                self.out.add(rule, fabric.core(core), message, cycle=t, claimants=[burst.name], prov=[burst.prov])
            if step > limit:
                self.out.add("W25", fabric.core(int(router[0])), "a wavelet runs in a circle", claimants=[burst.name], prov=[burst.prov])
            src, router, hops, entry, position = src[good], router[good], hops[good], entry[good], position[good]
            self._note(router, t + 1 + ramp + hops, length, position, number)
            passed.append((router, hops))
            tx = self.tx[entry, router]
            home = tx >> RAMP & 1 > 0
            for k, values in enumerate((router[home], src[home], hops[home])):
                out[k].append(values)
            nexts: list[tuple[Ints, Ints, Ints, Ints]] = []
            for p in range(4):
                leave = tx >> p & 1 > 0
                target = fabric.neighbour[p, router[leave]]
                for k, values in enumerate((router[leave] * 4 + p, src[leave], hops[leave])):
                    out[3 + k].append(values)
                inside = (target >= 0) & mask[target]
                if not inside.all():
                    core = fabric.core(int(router[leave][~inside][0]))
                    message = f"colour {self.entries.colour} leaves its region by {tb.Port(p).name}"
                    self.out.add("W23", core, message, claimants=[burst.name], prov=[burst.prov])
                far = hops[leave] + fabric.hops.length[p, router[leave]]
                nexts.append((src[leave][inside], target[inside], far[inside], np.full(int(inside.sum()), int(OPPOSITE[p]))))
            src, router, hops, port = (np.concatenate([n[i] for n in nexts]) for i in range(4))
        if burst.control:
            new = [r * _SPAN + t + 2 + ramp + h + burst.span for r, h in passed]
            self.advances = np.sort(np.concatenate([self.advances, *new]))
        return Flow(*(np.concatenate(part) if part else np.zeros(0, np.int64) for part in out))

    def _note(self, router: Ints, first: Ints, length: int, position: Ints, number: int) -> None:
        p = self.passages
        p.router.append(router)
        p.first.append(first)
        p.last.append(first + length)
        p.position.append(position)
        p.sender.append(np.full(len(router), number))

    def _recheck(self, sends: Sequence[Event]) -> None:
        """W27: a position or entry that changes while a wavelet of the colour is in the router."""
        p = self.passages
        if not p.router:
            return
        router, first, last, position, sender = (np.concatenate(part) for part in (p.router, p.first, p.last, p.position, p.sender))
        begin, finish = self._advances_by(router, first), self._advances_by(router, last - 1)
        bad = (begin != finish) | (begin % self.positions[router] != position)
        for number, since in self.keys:
            if since:
                index = self.keys.index((number, since))
                bad |= (self.rx[index, router] >= 0) & (position == number) & (last > since - 2) & (first < since)
        for i in np.flatnonzero(bad).tolist():
            event = sends[int(sender[i])]
            message = f"colour {self.entries.colour} changes while a wavelet is in the router"
            unit = self.fabric.core(int(router[i]))
            self.out.add("W27", unit, message, cycle=int(first[i]), claimants=[event.burst.name], prov=[event.burst.prov])

    def _advances_by(self, router: Ints, cycle: Ints) -> Ints:
        count = np.searchsorted(self.advances, router * _SPAN + cycle, "right") - np.searchsorted(self.advances, router * _SPAN, "left")
        return np.asarray(count, np.int64)


def _join(flows: Sequence[Flow]) -> Flow:
    if len(flows) == 1:
        return flows[0]
    names = ("dst", "src", "hops", "link", "link_src", "link_hops")
    return Flow(*(np.concatenate([getattr(f, name) for f in flows]) for name in names))
