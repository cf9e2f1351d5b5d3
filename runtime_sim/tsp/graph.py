"""The graph of bursts: who must be computed before whom; rule TSP-011 (docs/tsp-model.md MT-10)."""

from __future__ import annotations

import numpy as np

from ...machines.tsp import isa
from ...machines.tsp.isa import Opcode
from . import kernels
from .flatten import ALU_CODES, SXM_CODES, Flat, among
from .layout import Array
from .memory import Memory
from .planes import Passes
from .report import Notes
from .streams import Feeds

CODE = 1 << 32


def computes(flat: Flat, memory: Memory) -> Array:
    """Bursts that make new bytes, as opposed to moving them."""
    code = flat.b["opcode"]
    result: Array = (among(code, ALU_CODES) & (code != Opcode.IDENTITY)) | (among(code, SXM_CODES) & (flat.b["null"] == 0))
    result |= (code == Opcode.ACC) | (code == Opcode.GATHER) | memory.dynamic
    return result


def _changes(owner_of: Array, owner_burst: Array, source: Array, source_of: Array, source_burst: Array) -> Array:
    out = np.empty((2, len(source)), np.int64)
    return out[:, : kernels.change_edges(owner_of, owner_burst, source, source_of, source_burst, out)]


def edges(flat: Flat, feeds: Feeds, memory: Memory, passes: Passes, chains: list[tuple[Array, Array]], notes: Notes) -> Array:
    """Unique (before, after) pairs of flat bursts."""
    claims, taps = flat.claims, flat.taps
    parts = [
        _changes(feeds.tap_of, taps.burst, feeds.source, feeds.claim_of, claims.burst),
        _changes(feeds.claim_of, claims.burst, memory.link, feeds.tap_of, taps.burst),
        _changes(
            np.arange(passes.content.size) // passes.content.shape[1], passes.iw_burst, passes.content.reshape(-1), feeds.tap_of, taps.burst
        ),
    ]
    order = np.arange(len(passes.acc_row))
    parts.append(_changes(order, passes.acc_row, passes.acc_source, order, passes.acc_row))
    parts.append(_pair_sources(flat, passes))
    with_iw = passes.iw >= 0
    parts.append(np.stack([passes.iw_burst[passes.iw[with_iw]], passes.abc[with_iw]]))
    with_acc = passes.acc >= 0
    parts.append(np.stack([passes.abc[with_acc], passes.acc[with_acc]]))
    paired = with_acc & (passes.partner >= 0)
    parts.append(np.stack([passes.abc[passes.partner[paired]], passes.acc[paired]]))
    parts += [np.stack(chain) for chain in chains]
    parts.append(_dynamic_order(flat, memory, notes))
    joined = np.concatenate(parts, axis=1)
    keep = joined[0] != joined[1]
    _report_loops(flat, joined[0, ~keep], notes)
    unique = np.unique(joined[0, keep] * CODE + joined[1, keep])
    return np.stack([unique // CODE, unique % CODE])


def _pair_sources(flat: Flat, passes: Passes) -> Array:
    """What the ACC of one plane of an fp16 pair adds comes before that of the other plane as well: both are computed together."""
    twin = np.full(flat.size, -1, np.int64)
    paired = np.flatnonzero((passes.acc >= 0) & (passes.partner >= 0))
    twin[passes.acc[paired]] = passes.acc[passes.partner[paired]]
    adds = np.flatnonzero(passes.acc_source >= 0)
    before, after = passes.acc_row[passes.acc_source[adds]], twin[passes.acc_row[adds]]
    return np.stack([before[after >= 0], after[after >= 0]])


def _report_loops(flat: Flat, rows: Array, notes: Notes) -> None:
    """TSP-011: a burst that feeds itself."""
    for row in map(int, np.unique(rows)):
        notes.bursts("TSP-011", "the burst depends on its own results; it must be split", [row])


def _dynamic_order(flat: Flat, memory: Memory, notes: Notes) -> Array:
    """Accesses of each dynamic (allocation, slice) in order of time: readers after the last writer, writers after all since."""
    b = flat.b
    rows = np.flatnonzero(memory.dynamic)
    slot = b["alloc"][rows] * isa.QUEUES + b["unit"][rows]
    order = np.lexsort((b["t0"][rows], slot))
    rows, slot = rows[order], slot[order]
    pairs: list[tuple[int, int]] = []
    writer, readers, busy_read, busy_write = -1, list[int](), -1, -1
    for k, row in enumerate(rows.tolist()):
        if k == 0 or slot[k] != slot[k - 1]:
            writer, readers, busy_read, busy_write = -1, [], -1, -1
        begin, end = int(b["t0"][row]), int(flat.last[row])
        writes = b["opcode"][row] in (Opcode.WRITE, Opcode.SCATTER)
        if begin <= (max(busy_read, busy_write) if writes else busy_write):
            notes.bursts(
                "TSP-011",
                "data-dependent accesses of one slice overlap in time; they must be split",
                [row, *readers[-1:], *([writer] if writer >= 0 else [])],
            )
        if writer >= 0:
            pairs.append((writer, row))
        if writes:
            pairs += [(reader, row) for reader in readers]
            writer, readers, busy_write = row, [], max(busy_write, end)
        else:
            readers.append(row)
            busy_read = max(busy_read, end)
    return np.array(pairs, np.int64).reshape(-1, 2).T


def order(flat: Flat, pairs: Array, weight: Array, notes: Notes) -> Array:
    """Level of every burst: the largest number of computing bursts on a path to it; records TSP-011 for a cycle."""
    size = flat.size
    by_source = np.argsort(pairs[0], kind="stable")
    starts = np.zeros(size + 1, np.int64)
    np.cumsum(np.bincount(pairs[0], minlength=size), out=starts[1:])
    degree = np.bincount(pairs[1], minlength=size).astype(np.int64)
    level = np.zeros(size, np.int64)
    reached = kernels.levels(starts, pairs[1][by_source], weight.astype(np.int64), degree, level, np.empty(size, np.int64))
    if reached < size:
        stuck = np.flatnonzero(degree > 0)
        notes.bursts("TSP-011", f"{len(stuck)} bursts wait for each other; one of them must be split", stuck[:2].tolist())
    return level
