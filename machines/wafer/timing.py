"""Beats, wavelets and arrival times of a burst: rules C5 to C9, F12 and T2 to T6 as functions of numbers.

These are facts of the machine, used by emitters to write schedules and by the executor to recompute them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from .description import WaferMachine
from .isa import PER_WAVELET, WORDS, Element, OpRow, Semantics

Extents = tuple[int, int, int, int]


def ceil_div(a: int, b: int) -> int:
    """ceil(a / b) for integers."""
    return -(-a // b)


@dataclass(frozen=True)
class Vector:
    """A memory vector as the beat count sees it: first word address, element format, strides (elements, n3..n0), and whether repetitions
    or the position of the core move it by a distance that is not a multiple of 8 words."""

    word: int
    fmt: Element
    stride: tuple[int, ...]
    drifts: bool = False


def stride_limit(stride: int, width: int) -> int:
    """C5: elements a beat for one memory operand of this stride, in elements."""
    if stride in (0, 1):
        return width
    residue = stride % 8
    if residue == 0:
        return 1
    return min(width, 2) if residue in (1, 7, 4) else width


Run = tuple[int, tuple[int, ...]]


def merge_extents(ext: Sequence[int], strides: Sequence[Sequence[int]], fixed: Sequence[Sequence[int]]) -> list[Run]:
    """C7: extents outermost first with one stride per operand, after merging adjacent extents that form one run for every operand.
    `fixed` operands (scalars) merge only where they do not move. The last entry is the inner vector."""
    runs: list[Run] = []
    for d in (3, 2, 1, 0):
        n = ext[d]
        if n == 1 and runs:
            continue
        here = tuple(s[d] for s in strides)
        still = all(s[d] == 0 for s in fixed)
        if runs and runs[-1][0] == 1 and still:
            runs[-1] = (n, here)
        elif runs and still and len(runs) == 1 and all(s == t * runs[-1][0] for s, t in zip(here, runs[-1][1], strict=True)):
            runs[-1] = (runs[-1][0] * n, runs[-1][1])
        else:
            runs.append((n, here))
    return runs[::-1]


def conflicting_vectors(runs: Sequence[Run], first: Vector, second: Vector, k0: int, k1: int) -> int:
    """C6: how many inner vectors read two stride-1 sources whose word addresses do not differ by 4 modulo 8. `k0`, `k1` are the places of
    the two sources in the stride tuples of `runs`."""
    outer = runs[:-1]
    total = int(np.prod([n for n, _ in outer], dtype=np.int64))
    if runs[-1][1][k0] != 1 or runs[-1][1][k1] != 1 or runs[-1][0] == 1:
        return 0
    if first.drifts or second.drifts:
        return total
    counts = np.zeros(8, np.int64)
    counts[(first.word - second.word) % 8] = 1
    for n, strides in outer:
        step = (strides[k0] * WORDS[first.fmt] - strides[k1] * WORDS[second.fmt]) % 8
        moves = np.bincount((np.arange(min(n, 8)) * step) % 8, minlength=8) if n <= 8 else _residues(n, step)
        counts = np.array([sum(counts[(r - m) % 8] * moves[m] for m in range(8)) for r in range(8)])
    return total - int(counts[4])


def _residues(n: int, step: int) -> np.ndarray:
    """How often each residue modulo 8 occurs among 0, step, .. (n-1)*step."""
    per = np.bincount((np.arange(8) * step) % 8, minlength=8)
    rest = np.bincount((np.arange(n % 8) * step) % 8, minlength=8) if n % 8 else np.zeros(8, np.int64)
    return per * (n // 8) + rest


def beats(
    machine: WaferMachine,
    row: OpRow,
    ext: Extents,
    d: Vector | None = None,
    a: Vector | None = None,
    b: Vector | None = None,
    s_stride: tuple[int, ...] | None = None,
    s_fabric: bool = False,
    wavelets: int = 0,
    q: int = 1,
) -> int:
    """m of T2: beats of one burst on one core.

    `d`, `a`, `b` are the memory vectors (None: absent, immediate or fabric), `s_stride` the strides of a memory scalar, `wavelets` the
    greatest number of wavelets of a fabric vector (0 without one) and `q` their rate.
    """
    if row.meaning is Semantics.ADVANCE:
        return 1
    vectors = [v for v in (d, a, b) if v is not None]
    strides = [v.stride for v in vectors]
    moving = row.meaning in (Semantics.LOAD_INDEXED, Semantics.STORE_INDEXED) or s_fabric
    fixed = [(1, 1, 1, 0)] if moving else ([s_stride] if s_stride is not None else [])
    runs = merge_extents(ext, strides, fixed)
    n0, inner = runs[-1]
    vector_count = int(np.prod([n for n, _ in runs[:-1]], dtype=np.int64))
    count = vector_count * n0
    if row.function:
        m = count * machine.scalar_beats[row.function][machine.overhead == "software"]
    else:
        width = min([machine.widths[row.width], *(stride_limit(s, machine.widths[row.width]) for s in inner)])
        m = vector_count * ceil_div(n0, width)
        if machine.bank_conflicts:
            m += conflicts(row, runs, d, a, b, vectors) * ceil_div(n0, width)
    if row.meaning in (Semantics.LOAD_INDEXED, Semantics.STORE_INDEXED):
        m += 2 * vector_count
    m += _overhead_beats(machine, vector_count, ceil_div(vector_count, 2) if s_fabric else 0)
    return max(m, ceil_div(wavelets, q)) if wavelets else m


def conflicts(row: OpRow, runs: Sequence[Run], d: Vector | None, a: Vector | None, b: Vector | None, vectors: Sequence[Vector]) -> int:
    """Inner vectors of a burst that pay C6: sources are a and b, or for FMAC a and the accumulator."""
    second = d if row.meaning is Semantics.MULTIPLY_ADD else b
    if a is None or second is None:
        return 0
    places = {id(v): k for k, v in enumerate(vectors)}
    return conflicting_vectors(runs, a, second, places[id(a)], places[id(second)])


def _overhead_beats(machine: WaferMachine, vectors: int, scalar_wavelets: int) -> int:
    cost = machine.cost
    return (cost.map_beats * vectors if vectors > 1 else cost.burst_beats) + cost.dispatch_beats * scalar_wavelets


def wavelets_of(count: int, fmt: Element) -> int:
    """F12: wavelets that carry `count` elements; an odd half is padded."""
    return ceil_div(count, PER_WAVELET[fmt])


@dataclass(frozen=True)
class Stream:
    """n wavelets of one burst over `span` cycles in m beats: when each leaves or is taken, in cycles from the burst's first beat."""

    n: int
    m: int
    span: int

    def times(self, sends: bool) -> np.ndarray:
        """int64 [n]: wavelet i belongs to beat floor(i*m/n); a sender puts the wavelets of one beat out one a cycle (T3)."""
        i = np.arange(self.n, dtype=np.int64)
        beat = i * self.m // self.n
        cycle = beat * self.span // self.m
        return cycle + (i - -(-beat * self.n // self.m)) if sends else cycle


@lru_cache(maxsize=65536)
def arrival_lag(sender: Stream, receiver: Stream, ramp_cycles: int, extra: int = 0) -> int:
    """T5: a receiver may start at `T_send + H + lag` at the earliest. `extra` is `beta` of the software model."""
    return int((sender.times(True) - receiver.times(False)).max()) + 1 + 2 * ramp_cycles + extra


@lru_cache(maxsize=65536)
def backlog(sender: Stream, receiver: Stream, delay: int, ramp_cycles: int) -> int:
    """T6: most wavelets that wait at the receiver when it starts `delay` cycles after `T_send + H`."""
    arrive = sender.times(True) + 1 + 2 * ramp_cycles
    take = receiver.times(False) + delay
    return int((np.arange(1, sender.n + 1) - np.searchsorted(take, arrive, side="right")).max())
