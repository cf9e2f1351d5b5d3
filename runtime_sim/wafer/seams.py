"""Seams between instances: routes that a region finds already set, and colours that cross other regions (F7, W10, W28)."""

from __future__ import annotations

import numpy as np

from ...machines.wafer import tables as tb
from .breaches import Breaches
from .instances import Instance, Layout
from .model import Ints, RegionView


def check_seams(layout: Layout, out: Breaches) -> None:
    """All rules of this module."""
    _crossings(layout, out)
    _route_changes(layout, out)


def _crossings(layout: Layout, out: Breaches) -> None:
    """W28: traffic between regions shares no colour with another instance's live regions on a router."""
    for a in layout.instances:
        between = {c: e for (r, c), e in a.analysis.fabric.colours.items() if r == tb.NONE}
        if not between:
            continue
        for b in layout.instances:
            if a is b or a.start + a.analysis.end <= b.start or b.start + b.analysis.end <= a.start:
                continue
            for (_, colour), theirs in b.analysis.fabric.colours.items():
                if colour in between and len(np.intersect1d(_routers(a, between[colour].rx), _routers(b, theirs.rx))):
                    names = [f"instance {a.number}", f"instance {b.number}"]
                    out.add("W28", names[1], f"colour {colour} is used by both on one router", claimants=names)


def _routers(instance: Instance, rx: dict[tuple[int, int], np.ndarray]) -> Ints:
    """Routers of an instance that have an entry, as numbers in the program rectangle."""
    used = np.logical_or.reduce([array >= 0 for array in rx.values()])
    y, x = np.nonzero(used)
    ox, oy = instance.analysis.seg.origin
    return (y + oy + instance.y) * 8192 + x + ox + instance.x


def _route_changes(layout: Layout, out: Breaches) -> None:
    """F7 at the start of a region: every entry that differs from what an earlier region left in the router costs the core its beats
    before the region's first burst there."""
    order = sorted(layout.instances, key=lambda i: (i.start, i.number))
    seen: set[tuple[int, int, int, int]] = set()
    for position, later in enumerate(order):
        for region in later.analysis.seg.regions.values():
            earlier = _previous(order[:position], later, region)
            if earlier is None or (earlier.segment == later.segment and (earlier.x, earlier.y) == (later.x, later.y)):
                continue
            key = (earlier.segment, later.segment, later.x - earlier.x, later.y - earlier.y)
            if key not in seen:
                seen.add(key)
                _compare(layout, earlier, later, region, out)


def _previous(order: list[Instance], later: Instance, region: RegionView) -> Instance | None:
    """The last instance before whose regions meet this one."""
    x, y, w, h = later.rectangle(region)
    for earlier in reversed(order):
        for other in earlier.analysis.seg.regions.values():
            ox, oy, ow, oh = earlier.rectangle(other)
            if ox < x + w and x < ox + ow and oy < y + h and y < oy + oh:
                return earlier
    return None


def _entries(instance: Instance) -> dict[int, tuple[Ints, Ints]]:
    """colour -> routers (numbers in the program rectangle) and rx * 32 + tx of position 0 at the start."""
    out: dict[int, tuple[list[Ints], list[Ints]]] = {}
    ox, oy = instance.analysis.seg.origin
    for (_, colour), entries in instance.analysis.fabric.colours.items():
        for (number, since), rx in entries.rx.items():
            if since:
                continue
            y, x = np.nonzero(rx >= 0)
            code = (rx[y, x].astype(np.int64) * 32 + entries.tx[number, since][y, x]) * 8 + number
            routers, codes = out.setdefault(colour, ([], []))
            routers.append((y + oy + instance.y) * 8192 + x + ox + instance.x)
            codes.append(code)
    return {c: (np.concatenate(r), np.concatenate(k)) for c, (r, k) in out.items()}


def _compare(layout: Layout, earlier: Instance, later: Instance, region: RegionView, out: Breaches) -> None:
    before, after = _entries(earlier), _entries(later)
    x0, y0, w, h = later.rectangle(region)
    changed = np.zeros((h, w), np.int64)
    for colour, (routers, codes) in after.items():
        if colour not in before:
            continue
        known = dict(zip((before[colour][0] * 8 + before[colour][1] % 8).tolist(), before[colour][1].tolist(), strict=True))
        for router, code in zip(routers.tolist(), codes.tolist(), strict=True):
            y, x = divmod(router, 8192)
            old = known.get(router * 8 + code % 8)
            if old is not None and old != code and 0 <= y - y0 < h and 0 <= x - x0 < w:
                changed[y - y0, x - x0] += 1
    if not changed.any():
        return
    first = np.full((h, w), 1 << 60, np.int64)
    for burst in later.analysis.seg.bursts:
        if burst.region.id == region.id:
            place = np.ix_(np.array(burst.rows), np.array(burst.cols))
            first[place] = np.minimum(first[place], burst.time.array)
    need = region.first + changed * layout.machine.cost.route_change_beats
    bad = np.argwhere(first < need)
    if len(bad):
        y, x = bad[0].tolist()
        entries = f"{changed[y, x]} route entries change from instance {earlier.number}"
        message = f"{entries}, its core has no beats for that before cycle {first[y, x]}"
        unit = f"core ({x0 + x}, {y0 + y})"
        out.add(
            "W10", unit, message, cycle=later.start + region.first, claimants=[f"instance {later.number}", f"instance {earlier.number}"]
        )
