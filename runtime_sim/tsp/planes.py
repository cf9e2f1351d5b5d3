"""The matrix planes: rules TSP-020 to 026, and what every pass multiplies (docs/tsp-model.md section 3)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ...machines.tsp import isa
from ...machines.tsp.isa import HALF_BOTH, DType, Opcode
from . import kernels
from .flatten import Flat
from .layout import Array
from .queues import time_runs
from .report import Notes
from .streams import meetings


@dataclass(frozen=True)
class Passes:
    """What the planes do, resolved.

    `content[w, row]`: tap element (of an LW) that IW event w installs in a row, -1 where the buffer row is as it was before the block (see
    `store.py`). `iw_burst[w]`. `buffer[plane, row]`: tap element that the buffer holds after the block, -1 where as before; `planes` the
    local chip * 4 + plane of its rows. `opens`: planes whose state crosses the block's begin, `closes`: its end. Per ABC burst in `abc`:
    `iw` (event, -1 none), `acc` (burst, -1 none), `partner` (odd-plane ABC of an fp16 even one, and the reverse; -1 none).
    Per accumulator element, in `acc_row`, `acc_k` (flat ACC burst and element number): `acc_source` = element that stored what it adds.
    """

    content: Array
    iw_burst: Array
    buffer: Array
    planes: Array
    opens: Array
    closes: Array
    abc: Array
    iw: Array
    acc: Array
    partner: Array
    acc_row: Array
    acc_k: Array
    acc_source: Array

    def by_burst(self, flat: Flat) -> tuple[Array, Array]:
        """(accumulator elements ordered by ACC burst and element number, position of the first one of every burst)."""
        count = np.zeros(flat.size, np.int64)
        count[self.acc_row] = flat.count[self.acc_row]
        first = np.cumsum(count) - count
        order = np.empty(len(self.acc_row), np.int64)
        order[first[self.acc_row] + self.acc_k] = np.arange(len(order))
        return order, first


def plane_of(flat: Flat, rows: Array) -> Array:
    """chip * 4 + plane of MXM bursts."""
    result: Array = flat.b["chip"][rows] * 4 + (flat.b["unit"][rows] - isa.MXM_BASE) // 3
    return result


def analyse(flat: Flat, notes: Notes) -> Passes:
    """Resolve weights, passes and accumulators and record what breaks the MXM rules."""
    weights = _weights(flat, notes)
    events, iw_events = weights.events, weights.iw_events
    abc = flat.of(Opcode.ABC)
    plane = plane_of(flat, abc)
    order = np.lexsort((flat.b["t0"][abc], plane))
    abc, plane = abc[order], plane[order]
    iw = _installed(flat, notes, abc, plane, events[iw_events])
    partner = _pairs(flat, notes, abc, plane, iw, events[iw_events])
    _rates(flat, notes, abc)
    acc = _match_acc(flat, notes, abc, plane)
    _types(flat, notes, abc, plane, iw, events, iw_events, weights.loader)
    entries = _entries(flat, notes)
    opens = np.unique(np.concatenate([plane[iw < 0], entries.opens]))
    closes = np.unique(np.concatenate([weights.closes, entries.closes]))
    return Passes(
        weights.content, events[iw_events], weights.buffer, weights.planes, opens, closes, abc, iw, acc, partner, entries.row, entries.k,
        entries.source,
    )  # fmt: skip


@dataclass(frozen=True)
class _Weights:
    """Events of the W queues in order of (plane, time), of which `iw_events` install; `closes`: planes left with rows that no IW took."""

    events: Array
    iw_events: Array
    content: Array
    loader: Array
    buffer: Array
    planes: Array
    closes: Array


def _weights(flat: Flat, notes: Notes) -> _Weights:
    """TSP-020, and IW before the last LW + 1 (TSP-021)."""
    b, m = flat.b, flat.machine
    events = flat.of(Opcode.LW, Opcode.IW)
    plane = plane_of(flat, events)
    is_iw = b["opcode"][events] == Opcode.IW
    order = np.lexsort((is_iw, b["t0"][events], plane))
    events, plane, is_iw = events[order], plane[order], is_iw[order]
    iw_events = np.flatnonzero(is_iw)
    planes, number = np.unique(plane, return_inverse=True)
    content = np.full((len(iw_events), m.vector), -1, np.int64)
    loader = np.full((len(iw_events), 2), -1, np.int64)
    double = np.zeros(len(events), np.uint8)
    buffer, fresh = np.full((len(planes), m.vector), -1, np.int64), np.zeros((len(planes), m.vector), np.uint8)
    kernels.weight_queue(
        number, is_iw, b["n"][events], b["row0"][events], flat.first_tap[events], m.lw_rows, buffer, fresh, content, loader, double
    )
    for e in map(int, np.flatnonzero(double)):
        notes.bursts("TSP-020", "the burst overwrites buffer rows that no IW has taken", [events[e]])
    loads = np.flatnonzero(~is_iw)
    span = int(flat.last[events].max(initial=0)) + 2
    iw_key = plane[iw_events] * span + b["t0"][events[iw_events]]
    at = np.searchsorted(iw_key, plane[loads] * span + b["t0"][events[loads]])
    inside = at < len(iw_key)
    inside[inside] = iw_key[at[inside]] <= (plane[loads] * span + flat.last[events[loads]])[inside]
    for e, k in zip(loads[inside].tolist(), at[inside].tolist(), strict=True):
        iw_row = int(events[iw_events[k]])
        same = b["t0"][iw_row] == b["t0"][events[e]]
        rule = "TSP-020" if same else "TSP-021"
        notes.bursts(rule, "LW before the previous IW + 1" if same else "IW before the last LW + 1", [iw_row, events[e]])
    return _Weights(events, iw_events, content, loader, buffer, planes, planes[fresh.any(axis=1)])


def _installed(flat: Flat, notes: Notes, abc: Array, plane: Array, iws: Array) -> Array:
    """IW event of each ABC burst; TSP-021 (IW inside), TSP-022 (none)."""
    b = flat.b
    span = int(max(flat.last.max(initial=0), 0)) + flat.machine.mxm_install + 2
    iw_plane, iw_time = plane_of(flat, iws), b["t0"][iws]
    key = iw_plane * span + iw_time + 1
    first = b["t0"][abc]
    at = np.searchsorted(key, plane * span + np.maximum(first - flat.machine.mxm_install, -1) + 1, side="right") - 1
    found = (at >= 0) & (iw_plane[np.maximum(at, 0)] == plane) if len(iws) else np.zeros(len(abc), bool)
    for row in map(int, abc[~found]):
        notes.bursts("TSP-022", "no weights are installed", [row])
    both = (b["half"][abc] == HALF_BOTH) & (b["dtype"][abc] == DType.F16)
    until = flat.last[abc] - flat.machine.mxm_install + both
    end = np.searchsorted(key, plane * span + until + 1, side="right") - 1
    for k in map(int, np.flatnonzero(end > at)):
        notes.bursts("TSP-021", "IW inside the span of an ABC burst", [iws[end[k]], abc[k]])
    return np.where(found, at, -1)


def _pairs(flat: Flat, notes: Notes, abc: Array, plane: Array, iw: Array, iws: Array) -> Array:
    """Partner ABC of each fp16 burst; TSP-026 (no pair), TSP-022 (different IW times)."""
    b = flat.b
    partner = np.full(len(abc), -1, np.int64)
    half = np.flatnonzero(b["dtype"][abc] == DType.F16)
    lookup = {(int(plane[k]), int(b["t0"][abc[k]])): k for k in half.tolist()}
    for k in half.tolist():
        other = lookup.get((int(plane[k]) ^ 1, int(b["t0"][abc[k]])), -1)
        row = int(abc[k])
        alike = other >= 0 and all(b[name][row] == b[name][abc[other]] for name in ("n", "i", "n2", "i2", "a_stream", "half"))
        if not alike:
            notes.bursts("TSP-026", "an fp16 burst needs an equal one on the other plane of its pair", [row])
            continue
        partner[k] = other
        times = [int(b["t0"][iws[iw[j]]]) if iw[j] >= 0 else -1 for j in (k, other)]
        if times[0] != times[1] and not plane[k] & 1:
            notes.bursts("TSP-022", f"weights of the pair were installed {abs(times[0] - times[1])} cycles apart", [row, abc[other]])
    return partner


def _rates(flat: Flat, notes: Notes, abc: Array) -> None:
    """TSP-023: an fp16 `both` element occupies two cycles."""
    b = flat.b
    runs = time_runs(flat, abc)
    both = np.flatnonzero((b["half"][runs["row"]] == HALF_BOTH) & (b["dtype"][runs["row"]] == DType.F16))
    if not len(both):
        return
    joined = {name: np.concatenate([runs[name], runs[name][both]]) for name in runs}
    joined["t0"][len(runs["row"]) :] += 1
    second = np.arange(len(joined["row"])) >= len(runs["row"])
    first, other = meetings(plane_of(flat, joined["row"]), joined["t0"], joined["n"], joined["i"])
    for r, j in zip(first.tolist(), other.tolist(), strict=True):
        if second[r] != second[j]:
            notes.bursts("TSP-023", "an fp16 vector over all lanes needs two cycles", [joined["row"][r], joined["row"][j]])


def _match_acc(flat: Flat, notes: Notes, abc: Array, plane: Array) -> Array:
    """TSP-024: the ACC burst of each ABC burst."""
    b = flat.b
    acc = flat.of(Opcode.ACC)
    span = int(flat.last.max(initial=0)) + flat.machine.acc_latency + 1
    key = plane_of(flat, acc) * span + b["t0"][acc]
    order = np.argsort(key, kind="stable")
    wanted = plane * span + b["t0"][abc] + flat.machine.acc_latency
    at = np.searchsorted(key[order], wanted)
    found = at < len(acc)
    found[found] = key[order[at[found]]] == wanted[found]
    result = np.full(len(abc), -1, np.int64)
    result[found] = acc[order[at[found]]]
    for name in ("n", "i", "n2", "i2"):
        found &= b[name][np.maximum(result, 0)] == b[name][abc] if len(acc) else found
    result[~found] = -1
    for row in map(int, abc[~found]):
        notes.bursts("TSP-024", f"no ACC {flat.machine.acc_latency} cycles later with the same elements", [row])
    for row in map(int, np.setdiff1d(acc, result)):
        notes.bursts("TSP-024", f"an ACC without an ABC {flat.machine.acc_latency} cycles earlier with the same elements", [row])
    return result


def _types(flat: Flat, notes: Notes, abc: Array, plane: Array, iw: Array, events: Array, iw_events: Array, loader: Array) -> None:
    """TSP-026: idle cycles between number types (MX-11)."""
    b = flat.b
    dtype, last = b["dtype"][abc], flat.last[abc]
    changed = np.flatnonzero((plane[1:] == plane[:-1]) & (dtype[1:] != dtype[:-1])) + 1 if len(abc) > 1 else np.zeros(0, np.int64)
    for k in map(int, changed):
        if iw[k] < 0:
            continue
        load = int(loader[iw[k], 0])
        begin = int(b["t0"][events[load if load >= 0 else iw_events[iw[k]]]])
        idle = begin - int(last[:k][plane[:k] == plane[k]].max()) - 1
        if idle < flat.machine.mode_change:
            notes.bursts(
                "TSP-026",
                f"the plane changes its number type after {idle} idle cycles, {flat.machine.mode_change} are needed",
                [abc[k], abc[k - 1]],
            )


@dataclass(frozen=True)
class _Entries:
    """Accumulator elements in order of (plane, time): burst, element, and the element that stored what they add (-1 none)."""

    row: Array
    k: Array
    source: Array
    opens: Array
    closes: Array


def _entries(flat: Flat, notes: Notes) -> _Entries:
    """TSP-025."""
    b = flat.b
    rows = flat.of(Opcode.ACC)
    elements, count = flat.elements(rows), flat.count[rows]
    time, entry = flat.times(elements), elements.steps(b["entry"], b["entry_stride"], b["entry_stride2"])
    k = np.arange(len(time)) - (np.cumsum(count) - count)[elements.owner]
    plane = plane_of(flat, rows)[elements.owner]
    order = np.argsort(plane * (int(time.max(initial=0)) + 1) + time, kind="stable")
    row, k, entry, plane = rows[elements.owner][order], k[order], entry[order], plane[order]
    planes = np.flatnonzero(np.bincount(plane))
    number = np.searchsorted(planes, plane)
    source = np.full(len(row), -1, np.int64)
    fault = np.zeros(len(row), np.uint8)
    holder = np.full((len(planes), flat.machine.acc_depth), -1, np.int64)
    used = np.ones(holder.shape, np.uint8)
    kernels.accumulators(number, entry, b["add"][row], b["store"][row], holder, used, source, fault)
    texts = {1: "entry outside the depth", 2: "add from an entry never stored", 3: "store over an entry that nothing used"}
    for burst, kind in sorted({(int(row[e]), int(fault[e])) for e in np.flatnonzero(fault)}):
        notes.bursts("TSP-025", texts[kind], [burst])
    return _Entries(row, k, source, np.unique(plane[fault == 2]), planes[~used.all(axis=1)])
