"""Where wavelets go: route tables resolved into flows (rules F1, F5 to F7, W21 to W28).

A *flow* says, for the senders of a burst, which cores its wavelets reach, how far they travel and which links they use. Colours whose
routers never change (one position, no replaced entry) form a forest in which every router has one source (`kernels.lead`). Other colours
are traced head by head, one array step a hop, at the cycle at which the first wavelet passes each router.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from ...machines.wafer import tables as tb
from . import kernels
from .breaches import Breaches
from .model import BurstView, Ints, SegmentView, progression

E, W, N, S, RAMP = (int(p) for p in tb.Port)
OPPOSITE = np.array([W, E, S, N], np.int64)


@dataclass(frozen=True)
class Hops:
    """Length in cycles of the link out of each core of the frame, by port: int64 [4, h*w] (G5); 1 without defects."""

    length: Ints

    @staticmethod
    def straight(w: int, h: int) -> Hops:
        """A frame without defects."""
        return Hops(np.ones((4, w * h), np.int64))


@dataclass(frozen=True)
class Flow:
    """Deliveries (`dst`, `src`, `hops`) and link uses (`link` = 4 * router + port, `link_src`, `link_hops`) of one burst's wavelets."""

    dst: Ints
    src: Ints
    hops: Ints
    link: Ints
    link_src: Ints
    link_hops: Ints


@dataclass
class Entries:
    """The entries of one colour in one region, by position: rx (-1: none) and tx mask of every router of the frame; `since` epochs."""

    colour: int
    region: int
    rx: dict[tuple[int, int], NDArray[np.int8]] = field(default_factory=dict)
    tx: dict[tuple[int, int], NDArray[np.uint8]] = field(default_factory=dict)
    """Keyed by (position, since)."""

    @property
    def static(self) -> bool:
        """Whether there is one position and no replaced entry."""
        return set(self.rx) == {(0, 0)}


@dataclass
class Forest:
    """A static colour: source router, hop cycles and hop count of every router (-1 where no source leads there)."""

    entries: Entries
    root: Ints
    hops: Ints
    count: Ints
    cyclic: NDArray[np.bool_]


class Fabric:
    """All routes of a segment, resolved on demand and cached."""

    def __init__(self, seg: SegmentView, hops: Hops, out: Breaches) -> None:
        self.seg, self.hops, self.out = seg, hops, out
        self.size = seg.w * seg.h
        self.neighbour = _neighbours(seg.w, seg.h)
        self.region_of: dict[int, NDArray[np.bool_]] = {}
        self.colours = self._read()
        self._forests: dict[tuple[int, int], Forest] = {}
        self._flows: dict[tuple[int, int, bytes], Flow] = {}
        self._senders: dict[tuple[int, int], NDArray[np.bool_]] = {}
        self.moving = {(b.region.id, b.cout) for b in seg.bursts if b.op.op.name == "SWITCH" or b.control}

    def _mask(self, region: int) -> NDArray[np.bool_]:
        """Cores of a region in the frame; region -1 is the whole frame."""
        if region not in self.region_of:
            mask = np.zeros((self.seg.h, self.seg.w), bool)
            if region == tb.NONE:
                mask[:] = True
            else:
                r = self.seg.regions[region]
                mask[r.y : r.y + r.h, r.x : r.x + r.w] = True
            self.region_of[region] = mask.reshape(-1)
        return self.region_of[region]

    def _read(self) -> dict[tuple[int, int], Entries]:
        found: dict[tuple[int, int], Entries] = {}
        t = {name: column.tolist() for name, column in self.seg.routes.items()}
        for i in sorted(range(len(t["region"])), key=lambda row: t["since"][row]):
            region, colour, key = t["region"][i], t["colour"][i], (t["position"][i], t["since"][i])
            entries = found.setdefault((region, colour), Entries(colour, region))
            rows, cols = progression(t["rows"][i]), progression(t["cols"][i])
            if region == tb.NONE:
                y0, x0 = -self.seg.origin[1], -self.seg.origin[0]
            else:
                y0, x0 = self.seg.regions[region].y, self.seg.regions[region].x
            if key not in entries.rx:
                entries.rx[key] = np.full((self.seg.h, self.seg.w), -1, np.int8)
                entries.tx[key] = np.zeros((self.seg.h, self.seg.w), np.uint8)
            ys, xs = slice(y0 + rows.start, y0 + rows.stop, rows.step), slice(x0 + cols.start, x0 + cols.stop, cols.step)
            if (entries.rx[key][ys, xs] >= 0).any():
                message = f"two entries for position {key[0]} from cycle {key[1]}"
                self.out.add("W21", f"colour {colour} in region {region}, rows {t['rows'][i]} cols {t['cols'][i]}", message)
            if key[1] and not any((rx[ys, xs] >= 0).all() for k, rx in entries.rx.items() if k[0] == key[0] and k[1] < key[1]):
                self.out.add("W05", f"colour {colour} in region {region}", f"the entry from cycle {key[1]} replaces none")
            entries.rx[key][ys, xs] = t["rx"][i]
            entries.tx[key][ys, xs] = t["tx"][i]
        return dict(sorted(found.items()))

    def check_sharing(self) -> None:
        """W28: a colour on one router for a region and for traffic between regions, or for two regions that live at one time."""
        used = {key: np.logical_or.reduce([rx.reshape(-1) >= 0 for rx in e.rx.values()]) for key, e in self.colours.items()}
        keys = sorted(used)
        for i, first in enumerate(keys):
            for second in keys[i + 1 :]:
                if first[1] != second[1] or not self._together(first[0], second[0]):
                    continue
                both = np.flatnonzero(used[first] & used[second])
                if len(both):
                    who = [f"region {first[0]}", f"region {second[0]}"]
                    self.out.add("W28", self.core(int(both[0])), f"colour {first[1]} is used by both", claimants=who)

    def check_circles(self) -> None:
        """W25: routers of one colour that feed each other in a circle."""
        for entries in self.colours.values():
            if entries.static:
                at = np.flatnonzero(self._forest(entries).cyclic)
                if len(at):
                    self.out.add("W25", self.core(int(at[0])), f"colour {entries.colour} runs in a circle")

    def _together(self, first: int, second: int) -> bool:
        if tb.NONE in (first, second):
            return True
        a, b = self.seg.regions[first], self.seg.regions[second]
        return a.first < b.last and b.first < a.last

    def core(self, index: int) -> str:
        """A core in words: segment coordinates."""
        y, x = divmod(index, self.seg.w)
        return f"core ({x + self.seg.origin[0]}, {y + self.seg.origin[1]})"

    def entries_of(self, burst: BurstView, colour: int) -> Entries | None:
        """The entries that a burst's colour refers to: its own region's, else those between regions."""
        return self.colours.get((burst.region.id, colour)) or self.colours.get((tb.NONE, colour))

    def is_static(self, burst: BurstView) -> bool:
        """Whether the flow of a sending burst is the same at all times."""
        entries = self.entries_of(burst, burst.cout)
        return entries is None or (entries.static and (burst.region.id, burst.cout) not in self.moving)

    def static_flow(self, burst: BurstView) -> Flow:
        """The flow of a burst on a static colour; breaches on its way are recorded once per colour and set of senders."""
        entries = self.entries_of(burst, burst.cout)
        key = (entries.region if entries else -2, burst.cout, burst.core_ids.tobytes())
        if key not in self._flows:
            self._flows[key] = self._resolve(burst, entries)
        return self._flows[key]

    def _resolve(self, burst: BurstView, entries: Entries | None) -> Flow:
        senders = burst.core_ids.reshape(-1)
        if entries is None:
            self.out.add("W26", self.core(int(senders[0])), f"colour {burst.cout} has no route", claimants=[burst.name], prov=[burst.prov])
            return _NOTHING
        forest = self._forest(entries)
        rx, tx = entries.rx[0, 0].reshape(-1), entries.tx[0, 0].reshape(-1)
        wrong = senders[rx[senders] != RAMP]
        if len(wrong):
            message = f"colour {burst.cout} is sent where the router does not take it from RAMP"
            self.out.add("W26", self.core(int(wrong[0])), message, claimants=[burst.name], prov=[burst.prov])
        sends = np.zeros(self.size, bool)
        sends[senders[rx[senders] == RAMP]] = True
        active = (forest.root >= 0) & sends[np.maximum(forest.root, 0)]
        self._check_way(burst, entries, forest, active, rx, tx)
        dst = np.flatnonzero(active & (tx >> RAMP & 1 > 0))
        links = [np.flatnonzero(active & (tx >> port & 1 > 0)) * 4 + port for port in range(4)]
        link = np.sort(np.concatenate(links))
        return Flow(dst, forest.root[dst], forest.hops[dst], link, forest.root[link // 4], forest.hops[link // 4])

    def _check_way(
        self, burst: BurstView, entries: Entries, forest: Forest, active: NDArray[np.bool_], rx: NDArray[np.int8], tx: NDArray[np.uint8]
    ) -> None:
        """W23 to W25 on the routers that a burst's wavelets pass."""
        mask = self._mask(entries.region)
        who = {"claimants": [burst.name], "prov": [burst.prov]}
        for port in range(4):
            leaving = np.flatnonzero(active & (tx >> port & 1 > 0))
            target = self.neighbour[port, leaving]
            outside = (target < 0) | ~mask[target]
            for core in leaving[outside][:1].tolist():
                self.out.add("W23", self.core(core), f"colour {entries.colour} leaves its region by {tb.Port(port).name}", **who)  # type: ignore[arg-type]
            inside = leaving[~outside]
            target = target[~outside]
            for core in inside[rx[target] != OPPOSITE[port]][:1].tolist():
                there = self.core(int(self.neighbour[port, core]))
                message = f"colour {entries.colour} enters it from {tb.Port(int(OPPOSITE[port])).name}, which is not its rx"
                self.out.add("W24", there, message, **who)  # type: ignore[arg-type]
        region = self.seg.regions.get(entries.region)
        limit = (region.h + region.w if region else self.seg.h + self.seg.w) + 4
        far = np.flatnonzero(active & (forest.count > limit))
        if len(far):
            self.out.add("W25", self.core(int(far[0])), f"colour {entries.colour} runs over more than {limit} hops", **who)  # type: ignore[arg-type]

    def _forest(self, entries: Entries) -> Forest:
        key = (entries.region, entries.colour)
        if key not in self._forests:
            self._forests[key] = self._jump(entries)
        return self._forests[key]

    def _jump(self, entries: Entries) -> Forest:
        rx, tx = entries.rx[0, 0].reshape(-1).astype(np.int64), entries.tx[0, 0].reshape(-1)
        here = np.arange(self.size)
        parent, length, count = np.full(self.size, -1), np.zeros(self.size, np.int64), np.zeros(self.size, np.int64)
        parent[rx == RAMP] = here[rx == RAMP]
        for port in range(4):
            at = np.flatnonzero(rx == port)
            source = self.neighbour[port, at]
            fed = (source >= 0) & (tx[source] >> OPPOSITE[port] & 1 > 0) & (rx[source] >= 0)
            at, source = at[fed], source[fed]
            parent[at], length[at], count[at] = source, self.hops.length[OPPOSITE[port], source], 1
        (kernels.lead if kernels.pays(self.size) else jump)(parent, length, count, 4 * self.size)
        reached = (parent >= 0) & (rx[np.maximum(parent, 0)] == RAMP)
        return Forest(entries, np.where(reached, parent, -1), length, count, (parent >= 0) & ~reached)


def jump(parent: Ints, length: Ints, count: Ints, most: int) -> None:
    """`kernels.lead` with whole arrays: everyone takes the parent of its parent, again and again."""
    far = np.flatnonzero((parent >= 0) & (parent != np.arange(len(parent))))
    for _ in range(int(np.ceil(np.log2(len(parent) + 1))) + 1):
        over = parent[far]
        step = parent[over]
        length[far] += length[over]
        count[far] = np.minimum(count[far] + count[over], most)
        parent[far] = step
        # who has come to a root, or to one that leads nowhere, is done
        far = far[(step >= 0) & (step != over)]
        if not len(far):
            break


_NOTHING = Flow(*(np.zeros(0, np.int64) for _ in range(6)))


def _neighbours(w: int, h: int) -> Ints:
    """int64 [4, h*w]: the core that a port leads to, -1 at the border of the frame."""
    ids = np.arange(w * h, dtype=np.int64).reshape(h, w)
    out = np.full((4, h, w), -1, np.int64)
    out[E, :, :-1], out[W, :, 1:] = ids[:, 1:], ids[:, :-1]
    out[S, :-1], out[N, 1:] = ids[1:], ids[:-1]
    return out.reshape(4, -1)
