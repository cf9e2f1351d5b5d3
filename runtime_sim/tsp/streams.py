"""Claims against claims, takes against claims: rules TSP-006, 007, 008, 033, 040 (docs/tsp-model.md MT-3 to MT-9)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ...machines.tsp.isa import Class, DType, Opcode
from . import kernels
from .flatten import ROLE_M, Flat, Flow
from .layout import Array, Columns
from .report import Notes

_SUM, _WEIGHT = len(DType), len(DType)
_STREAM_TYPES = (*DType, "sum of a pass")
_TAP_TYPES = (
    tuple(range(len(DType) + 1)),
    *((DType.NONE, dtype, *((_SUM,) if dtype in (DType.I32, DType.F32) else ())) for dtype in list(DType)[1:]),
    (DType.NONE, DType.I8, DType.F16),
)
"""TSP-033: formats that each kind of take accepts from its producer; takes of weights come last, sums of passes are int32 or fp32."""


@dataclass(frozen=True)
class Feeds:
    """`source[tap element]` is the claim element it reads (-1: none); `claim_of`, `tap_of` number the owners of elements."""

    source: Array
    claim_of: Array
    tap_of: Array


def sorted_runs(key: Array, d0: Array, n: Array, i: Array) -> tuple[Array, Array]:
    """Order of runs by (key, d0), and in that order the running maximum of their last diagonal within a key."""
    if not len(key):
        return np.zeros(0, np.int64), np.zeros(0, np.int64)
    end = d0 + (n - 1) * i
    low = int(d0.min())
    span = int(end.max()) - low + 1
    order = np.argsort(key * span + (d0 - low), kind="stable")
    base = key[order] * span
    return order, np.maximum.accumulate(base + (end[order] - low)) - base + low


def meetings(key: Array, d0: Array, n: Array, i: Array, pos: Array | None = None, until: Array | None = None) -> tuple[Array, Array]:
    """Pairs (r, j) of runs that meet (MT-9), at most one j per r."""
    order, ends = sorted_runs(key, d0, n, i)
    flat = np.zeros(len(order), np.int64)
    out = np.empty(len(order), np.int64)
    kernels.conflicts(
        key[order], d0[order], n[order], i[order], flat if pos is None else pos[order], flat if until is None else until[order], ends, out
    )
    hit = np.flatnonzero(out >= 0)
    return order[hit], order[out[hit]]


def _owners(flow: Flow) -> Array:
    return np.repeat(np.arange(flow.size, dtype=np.int64), flow.n * flow.n2)


def resolve(flat: Flat, notes: Notes) -> Feeds:
    """Match every take with its claim and record what breaks the stream rules."""
    claims, taps = flat.claims, flat.taps
    runs = claims.runs
    order, ends = sorted_runs(runs["key"], runs["d0"], runs["n"], runs["i"])
    c: Columns = {name: column[order] for name, column in runs.items()}
    clash = np.empty(len(order), np.int64)
    kernels.conflicts(c["key"], c["d0"], c["n"], c["i"], c["pos"], c["until"], ends, clash)
    _report_clashes(flat, notes, c, clash)
    bucket = np.searchsorted(c["key"], np.arange(flat.chips * 64 + 1))
    source = np.full(taps.total, -1, np.int64)
    covered = np.zeros(claims.total, np.uint8)
    t = taps.runs
    kernels.match(
        c["key"], c["d0"], c["n"], c["i"], c["pos"], c["until"], c["first"], ends,
        t["key"], t["d0"], t["n"], t["i"], t["pos"], t["first"], bucket, source, covered,
    )  # fmt: skip
    feeds = Feeds(source, _owners(claims), _owners(taps))
    _report_missing(flat, notes, feeds)
    _report_unused(flat, notes, feeds, covered)
    _report_types(flat, notes, feeds)
    return feeds


def _report_clashes(flat: Flat, notes: Notes, c: Columns, clash: Array) -> None:
    claims = flat.claims
    for r in map(int, np.flatnonzero(clash >= 0)):
        a, b = int(c["owner"][r]), int(c["owner"][clash[r]])
        notes.bursts(
            "TSP-006", f"stream {claims.stream[a]} {'WE'[claims.direction[a]]} is driven twice on one diagonal",
            [claims.burst[a], claims.burst[b]],
        )  # fmt: skip


def _report_missing(flat: Flat, notes: Notes, feeds: Feeds) -> None:
    taps = flat.taps
    lost = np.unique(feeds.tap_of[feeds.source < 0])
    if not len(lost):
        return
    sxm = (flat.b["cls"][taps.burst] >= Class.DISTRIBUTOR) & (flat.b["cls"][taps.burst] < Class.C2C)
    for tap in map(int, lost):
        rule = "TSP-040" if taps.role[tap] == ROLE_M and sxm[tap] else "TSP-007"
        row = int(taps.burst[tap])
        first = int(taps.first[tap])
        k = int(np.flatnonzero(feeds.source[first : first + int(flat.count[row])] < 0)[0])
        cycle = int(flat.b["t0"][row] + (k % flat.b["n"][row]) * flat.b["i"][row] + (k // flat.b["n"][row]) * flat.b["i2"][row])
        what = "map" if rule == "TSP-040" else "operand"
        notes.bursts(rule, f"{what} on stream {taps.stream[tap]} {'WE'[taps.direction[tap]]} is not there", [row], cycle)


def _report_unused(flat: Flat, notes: Notes, feeds: Feeds, covered: Array) -> None:
    claims = flat.claims
    for claim in map(int, np.unique(feeds.claim_of[covered == 0])):
        stream = f"stream {claims.stream[claim]} {'WE'[claims.direction[claim]]}"
        notes.bursts("TSP-008", f"nobody takes {stream} at its end pos {claims.until[claim]}", [claims.burst[claim]])


def _report_types(flat: Flat, notes: Notes, feeds: Feeds) -> None:
    claims, taps = flat.claims, flat.taps
    allowed = np.zeros((len(_STREAM_TYPES), len(_TAP_TYPES)), bool)
    for tap_type, producers in enumerate(_TAP_TYPES):
        allowed[list(producers), tap_type] = True
    code = flat.b["opcode"]
    produced = np.where(code[claims.burst] == Opcode.ACC, _SUM, claims.dtype)
    wanted = np.where(code[taps.burst] == Opcode.LW, _WEIGHT, taps.dtype)
    wrong = np.zeros(taps.size, np.uint8)
    kernels.mismatches(taps.first, taps.n * taps.n2, wanted, feeds.source, feeds.claim_of, produced, allowed, wrong)
    for tap in map(int, np.flatnonzero(wrong)):
        notes.bursts("TSP-033", "the operand has another number format than its producer", [taps.burst[tap]])
