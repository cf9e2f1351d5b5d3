"""The matrix planes: rules TSP-020 to 026, and what every pass multiplies (docs/tsp-model.md section 3)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ...machines.tsp import isa
from ...machines.tsp.isa import HALF_BOTH, DType, Opcode
from . import kernels
from .flatten import Array, Flat, expand
from .queues import time_runs
from .report import Report
from .streams import meetings


@dataclass(frozen=True)
class Passes:
    """What the planes do, resolved.

    `content[w, row]`: tap element (of an LW) that IW event w installs in a row, -1 where cleared. `iw_burst[w]`. Per ABC burst in `abc`:
    `iw` (event, -1 none), `acc` (burst, -1 none), `partner` (odd-plane ABC of an fp16 even one, and the reverse; -1 none).
    Per accumulator element, in `acc_row`, `acc_k` (flat ACC burst and element number): `acc_source` = element that stored what it adds.
    """

    content: Array
    iw_burst: Array
    abc: Array
    iw: Array
    acc: Array
    partner: Array
    acc_row: Array
    acc_k: Array
    acc_source: Array


def plane_of(flat: Flat, rows: Array) -> Array:
    """chip * 4 + plane of MXM bursts."""
    result: Array = flat.b["chip"][rows] * 4 + (flat.b["unit"][rows] - isa.MXM_BASE) // 3
    return result


def analyse(flat: Flat, report: Report) -> Passes:
    """Resolve weights, passes and accumulators and record what breaks the MXM rules."""
    events, content, loader, iw_events = _weights(flat, report)
    abc = flat.of(Opcode.ABC)
    plane = plane_of(flat, abc)
    order = np.lexsort((flat.b["t0"][abc], plane))
    abc, plane = abc[order], plane[order]
    iw = _installed(flat, report, abc, plane, events[iw_events])
    partner = _pairs(flat, report, abc, plane, iw, events[iw_events])
    _rates(flat, report, abc)
    acc = _match_acc(flat, report, abc, plane)
    _types(flat, report, abc, plane, iw, events, iw_events, loader)
    acc_row, acc_k, source = _entries(flat, report)
    return Passes(content, events[iw_events], abc, iw, acc, partner, acc_row, acc_k, source)


def _weights(flat: Flat, report: Report) -> tuple[Array, Array, Array, Array]:
    """TSP-020, and IW before the last LW + 1 (TSP-021). Returns the W queue events, contents and loaders of the IWs."""
    b, m = flat.b, flat.machine
    events = flat.of(Opcode.LW, Opcode.IW)
    plane = plane_of(flat, events)
    is_iw = b["opcode"][events] == Opcode.IW
    order = np.lexsort((is_iw, b["t0"][events], plane))
    events, plane, is_iw = events[order], plane[order], is_iw[order]
    first_tap = np.zeros(flat.size, np.int64)
    first_tap[flat.taps.burst[::-1]] = flat.taps.first[::-1]
    iw_events = np.flatnonzero(is_iw)
    content = np.full((len(iw_events), m.vector), -1, np.int64)
    loader = np.full((len(iw_events), 2), -1, np.int64)
    double = np.zeros(len(events), np.uint8)
    kernels.weight_queue(plane, is_iw, b["n"][events], b["row0"][events], first_tap[events], m.vector, m.lw_rows, content, loader, double)
    for e in map(int, np.flatnonzero(double)):
        report.bursts("TSP-020", "the burst overwrites buffer rows that no IW has taken", flat, [events[e]])
    loads = np.flatnonzero(~is_iw)
    span = int(flat.last[events].max(initial=0)) + 2
    iw_key = plane[iw_events] * span + b["t0"][events[iw_events]]
    at = np.searchsorted(iw_key, plane[loads] * span + b["t0"][events[loads]])
    for e, k in zip(loads.tolist(), at.tolist(), strict=True):
        if k < len(iw_key) and iw_key[k] <= plane[e] * span + flat.last[events[e]]:
            iw_row = int(events[iw_events[k]])
            same = b["t0"][iw_row] == b["t0"][events[e]]
            rule = "TSP-020" if same else "TSP-021"
            report.bursts(rule, "LW before the previous IW + 1" if same else "IW before the last LW + 1", flat, [iw_row, events[e]])
    return events, content, loader, iw_events


def _installed(flat: Flat, report: Report, abc: Array, plane: Array, iws: Array) -> Array:
    """IW event of each ABC burst; TSP-021 (IW inside), TSP-022 (none)."""
    b = flat.b
    span = int(max(flat.last.max(initial=0), 0)) + flat.machine.mxm_install + 2
    iw_plane, iw_time = plane_of(flat, iws), b["t0"][iws]
    key = iw_plane * span + iw_time + 1
    first = b["t0"][abc]
    at = np.searchsorted(key, plane * span + np.maximum(first - flat.machine.mxm_install, -1) + 1, side="right") - 1
    found = (at >= 0) & (iw_plane[np.maximum(at, 0)] == plane) if len(iws) else np.zeros(len(abc), bool)
    for row in map(int, abc[~found]):
        report.bursts("TSP-022", "no weights are installed", flat, [row])
    both = (b["half"][abc] == HALF_BOTH) & (b["dtype"][abc] == DType.F16)
    until = flat.last[abc] - flat.machine.mxm_install + both
    end = np.searchsorted(key, plane * span + until + 1, side="right") - 1
    for k in map(int, np.flatnonzero(end > at)):
        report.bursts("TSP-021", "IW inside the span of an ABC burst", flat, [iws[end[k]], abc[k]])
    return np.where(found, at, -1)


def _pairs(flat: Flat, report: Report, abc: Array, plane: Array, iw: Array, iws: Array) -> Array:
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
            report.bursts("TSP-026", "an fp16 burst needs an equal one on the other plane of its pair", flat, [row])
            continue
        partner[k] = other
        times = [int(b["t0"][iws[iw[j]]]) if iw[j] >= 0 else -1 for j in (k, other)]
        if times[0] != times[1] and not plane[k] & 1:
            report.bursts("TSP-022", f"weights of the pair were installed at {times[0]} and {times[1]}", flat, [row, abc[other]])
    return partner


def _rates(flat: Flat, report: Report, abc: Array) -> None:
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
            report.bursts("TSP-023", "an fp16 vector over all lanes needs two cycles", flat, [joined["row"][r], joined["row"][j]])


def _match_acc(flat: Flat, report: Report, abc: Array, plane: Array) -> Array:
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
        report.bursts("TSP-024", f"no ACC {flat.machine.acc_latency} cycles later with the same elements", flat, [row])
    for row in map(int, np.setdiff1d(acc, result)):
        report.bursts("TSP-024", f"an ACC without an ABC {flat.machine.acc_latency} cycles earlier with the same elements", flat, [row])
    return result


def _types(flat: Flat, report: Report, abc: Array, plane: Array, iw: Array, events: Array, iw_events: Array, loader: Array) -> None:
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
            report.bursts(
                "TSP-026",
                f"the plane changes its number type after {idle} idle cycles, {flat.machine.mode_change} are needed",
                flat,
                [abc[k], abc[k - 1]],
            )


def _entries(flat: Flat, report: Report) -> tuple[Array, Array, Array]:
    """TSP-025; accumulator elements in order of (plane, time) as burst, k and the element that stored what they add."""
    b = flat.b
    rows = flat.of(Opcode.ACC)
    owner, time = flat.times(rows)
    row = rows[owner]
    _, k = expand(flat.count[rows])
    n = b["n"][row]
    entry = b["entry"][row] + (k % n) * b["entry_stride"][row] + (k // n) * b["entry_stride2"][row]
    plane = plane_of(flat, row)
    order = np.argsort(plane * (int(time.max(initial=0)) + 1) + time, kind="stable")
    row, k, entry, plane = row[order], k[order], entry[order], plane[order]
    source = np.full(len(row), -1, np.int64)
    fault = np.zeros(len(row), np.uint8)
    kernels.accumulators(plane, entry, b["add"][row], b["store"][row], flat.machine.acc_depth, source, fault)
    texts = {1: "entry outside the depth", 2: "add from an entry never stored", 3: "store over an entry that nothing used"}
    for burst, kind in sorted({(int(row[e]), int(fault[e])) for e in np.flatnonzero(fault)}):
        report.bursts("TSP-025", texts[kind], flat, [burst])
    return row, k, source
