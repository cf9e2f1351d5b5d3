"""Compression of element lists into two-level arithmetic progressions: how many single events become few bursts.

A run covers elements (k2, k), k < n, k2 < n2, and column c of that element is `base[c] + k step[c] + k2 step2[c]` (MT-8).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Run:
    """One burst's worth of elements; `first` is the position of its first element in the list."""

    first: int
    n: int
    n2: int
    base: tuple[int, ...]
    step: tuple[int, ...]
    step2: tuple[int, ...]

    @property
    def size(self) -> int:
        return self.n * self.n2


def line(t: int, n: int, interval: int = 1) -> Run:
    """`n` elements at equal distances, of one column."""
    return Run(0, n, 1, (t,), (interval if n > 1 else 0,), (0,))


def runs(columns: Sequence[Array]) -> list[Run]:
    """Cut the list (one entry per element in every column, times first and ascending) into runs, greedily from the front."""
    table = np.stack([np.asarray(column, dtype=np.int64) for column in columns])
    found: list[Run] = []
    start, count = 0, table.shape[1]
    while start < count:
        run = _front(table, start)
        found.append(run)
        start += run.size
    return found


def _front(table: Array, start: int) -> Run:
    count = table.shape[1] - start
    base = tuple(table[:, start].tolist())
    zero = (0,) * len(base)
    if count == 1:
        return Run(start, 1, 1, base, zero, zero)
    step = table[:, start + 1] - table[:, start]
    n = _linear_length(table, start, step)
    steps = tuple(step.tolist())
    if n == count:
        return Run(start, n, 1, base, steps, zero)
    best = _repeated(table, start, n, step)
    if best is not None:
        return best
    if n == 2 and _linear_length(table, start + 1, table[:, start + 2] - table[:, start + 1]) > 2:
        return Run(start, 1, 1, base, zero, zero)  # two elements are always a line: the longer one begins at the second
    return Run(start, n, 1, base, steps, zero)


def _linear_length(table: Array, start: int, step: Array) -> int:
    """Elements from `start` that advance by `step`; looks ahead in doubling windows so that long lists cost their own length."""
    count = int(table.shape[1]) - start
    window = 64
    while True:
        stop = min(count, window)
        differs = np.flatnonzero((table[:, start + 1 : start + stop] - table[:, start : start + stop - 1] != step[:, None]).any(axis=0))
        if differs.size:
            return int(differs[0]) + 1
        if stop == count:
            return count
        window *= 8


def _repeated(table: Array, start: int, n: int, step: Array) -> Run | None:
    """The run of period n at `start`, where it repeats at least once."""
    blocks = (table.shape[1] - start) // n
    if blocks < 2:
        return None
    step2 = table[:, start + n] - table[:, start]
    if step2[0] <= (n - 1) * step[0]:
        return None
    line = table[:, start, None] + step[:, None] * np.arange(n)
    window = 4
    while True:
        tried = min(blocks, window)
        block = table[:, start : start + tried * n].reshape(table.shape[0], tried, n)
        good = (block == line[:, None, :] + step2[:, None, None] * np.arange(tried)[:, None]).all(axis=(0, 2))
        if not good.all():
            repeats = int(np.flatnonzero(~good)[0])
            break
        if tried == blocks:
            repeats = blocks
            break
        window *= 8
    if repeats < 2:
        return None
    return Run(start, n, repeats, tuple(table[:, start].tolist()), tuple(step.tolist()), tuple(step2.tolist()))
