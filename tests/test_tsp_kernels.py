"""The burst arithmetic of the executor against element-by-element counting."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tsp_programs import Builder, G, example_e, region

from spatialc.machines.tsp.builder import In, Out
from spatialc.machines.tsp.isa import DType, E, Opcode
from spatialc.machines.tsp.tables import Kind
from spatialc.runtime_sim.tsp import counters, kernels, lanes, legality, schedule
from spatialc.runtime_sim.tsp.streams import meetings, sorted_runs

Run = tuple[int, int, int, int, int, int]
RUN = st.tuples(st.integers(0, 1), st.integers(-20, 40), st.integers(1, 6), st.integers(1, 9), st.integers(0, 6), st.integers(0, 4))
"""key, first diagonal, n, i, pos, length."""


def columns(runs: Sequence[Run]) -> list[np.ndarray]:
    key, d0, n, i, pos, length = (np.array(column, np.int64) for column in zip(*runs, strict=True))
    return [key, d0, n, np.where(n == 1, 1, i), pos, pos + length]


def cells(run: Run) -> set[tuple[int, int, int]]:
    key, d0, n, i, pos, length = run
    return {(key, d0 + k * i, p) for k in range(n) for p in range(pos, pos + length + 1)}


@settings(max_examples=200, deadline=None)
@given(st.lists(RUN, min_size=1, max_size=9))
def test_meetings_equal_expanded_cells(runs: list[Run]) -> None:
    first, other = meetings(*columns(runs))
    found = set(first.tolist()) | set(other.tolist())
    for r, j in zip(first.tolist(), other.tolist(), strict=True):
        assert cells(runs[r]) & cells(runs[j])
    crowded = any(cells(a) & cells(b) for k, a in enumerate(runs) for b in runs[:k])
    assert bool(found) == crowded


@settings(max_examples=200, deadline=None)
@given(st.lists(RUN, min_size=1, max_size=6), st.lists(RUN, min_size=1, max_size=6))
def test_matching_equals_lookup(claims: list[Run], takes: list[Run]) -> None:
    kept: list[Run] = []
    for claim in claims:
        if not any(cells(claim) & cells(other) for other in kept):
            kept.append(claim)
    key, d0, n, i, pos, until = columns(kept)
    first = np.cumsum(n) - n
    order, ends = sorted_runs(key, d0, n, i)
    t_key, t_d0, t_n, t_i, t_pos, _ = columns(takes)
    t_first = np.cumsum(t_n) - t_n
    source, covered = np.full(int(t_n.sum()), -1, np.int64), np.zeros(int(n.sum()), np.uint8)
    kernels.match(
        key[order], d0[order], n[order], i[order], pos[order], until[order], first[order], ends,
        t_key, t_d0, t_n, t_i, t_pos, t_first, np.searchsorted(key[order], np.arange(4)), source, covered,
    )  # fmt: skip
    held = {}
    for c, claim in enumerate(kept):
        for k in range(claim[2]):
            for p in range(pos[c], until[c] + 1):
                held[claim[0], int(d0[c] + k * i[c]), p] = (int(first[c]) + k, p == until[c])
    expected_source = []
    expected_covered = np.zeros(int(n.sum()), np.uint8)
    for t in range(len(takes)):
        for k in range(int(t_n[t])):
            element, at_end = held.get((int(t_key[t]), int(t_d0[t] + k * t_i[t]), int(t_pos[t])), (-1, False))
            expected_source.append(element)
            if at_end:
                expected_covered[element] = 1
    assert source.tolist() == expected_source
    assert covered.tolist() == expected_covered.tolist()


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 4), st.integers(1, 5))
def test_fetch_gathers_byte_planes(seed: int, width: int, count: int) -> None:
    rng = np.random.default_rng(seed)
    arena = rng.integers(0, 256, 4000).astype(np.uint8)
    offset, step = rng.integers(-1, 1500, (width, count)), rng.integers(1, 5, (width, count))
    out = lanes.fetch(arena, 320, offset, step)
    for m in range(count):
        for p in range(width):
            o, s = int(offset[p, m]), int(step[p, m])
            expected = arena[o : o + 320 * s : s] if o >= 0 else np.zeros(320, np.uint8)
            assert np.array_equal(out[m, p::width], expected)


def test_program_bytes_of_queues() -> None:
    """IC-3: a burst 16 B, + 16 B repeat, + 16 B outer level, + 16 B an idle gap; interleaved bursts 16 B an element and gap."""
    b = Builder()
    x, y = b.memory(Kind.INPUT, [(0, 0)], 8), b.memory(Kind.OUTPUT, [(1, 0)], 8)
    for t, row, n in ((0, 0, 4), (1, 4, 4)):
        b.s.mem_read(0, 0, x, row, Out(0, E, G.alu_take(0, E)), t=t, n=n, i=2)
        b.s.mem_write(1, 0, y, row, In(8, E), t=t + 8, n=n, i=2)
    b.s.alu(0, Opcode.NEG, In(0, E), None, [Out(8, E, G.mem_take(1, 0, E))], DType.I8, t=5, n=8)
    b.bind("x", "input", "int8", "i8", [8, 320], [region(x, [8, 320], 1, [1, 0], [[(0, 0)]])])
    b.bind("y", "output", "int8", "i8", [8, 320], [region(y, [8, 320], 1, [1, 0], [[(1, 0)]])])
    analysis, violations = legality.analyse(b.program())
    assert violations == []
    assert analysis is not None
    reads = 8 * 16
    writes = 16 + 8 * 16
    negate = 16 + 16 + 16
    assert counters.program_bytes(analysis) == reads + writes + negate


def test_counters_of_example_e() -> None:
    analysis, _ = legality.analyse(example_e(np.zeros((320, 320), np.float16))[0])
    assert analysis is not None
    counts = counters.count(analysis)
    rows = 32 * 20 + 2 + 2
    assert counts.traffic["onchip_bytes"] == rows * 320
    for name, joules in (("sram", rows * 300e-12), ("fp16_mac", 320 * 320 * 0.8e-12), ("alu", 2 * 150e-12)):
        assert counts.energy_breakdown[name] == pytest.approx(joules)
    assert counts.memory["used_bytes"] == rows * 320
    weight_hops = 20 * sum(22 - (3 + s // 4) for s in range(8, 44) if s not in (16, 20, 24, 28))
    moves = 2 * (22 - 3) + 8 * (17 + 2)
    assert counts.traffic["byte_hops"] == (weight_hops + moves) * 320


def test_a_result_without_bytes_has_no_place() -> None:
    """A burst that gives no result of a kind must not be given the place of another one's."""
    groups = [np.array([0, 1]), np.array([2])]
    emitted, kept = np.array([64, 0, 64]), np.array([0, 64, 0])
    last = np.array([1, 1, 1]), np.array([1, 1, 1])
    (first, second), end = schedule.place(groups, (emitted, kept), last, np.arange(2))
    assert first.tolist() == [0, -1, 128] and second.tolist() == [-1, 64, -1] and end == 192
