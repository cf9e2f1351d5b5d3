"""Work that falls into parts which write apart from each other, on the threads of this machine: numpy and compiled loops let others run."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from itertools import pairwise
from typing import Any

THREADS = min(len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1, 8)


@lru_cache(maxsize=1)
def _pool() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(THREADS)


def each(function: Callable[[Any], None], parts: Sequence[Any]) -> None:
    """Call `function` with every part, in any order; returns when all are done."""
    if len(parts) < 2 or THREADS < 2:
        for part in parts:
            function(part)
    else:
        list(_pool().map(function, parts))


def slices(weights: Sequence[int]) -> list[slice]:
    """Cuts rows with these weights into one slice a thread, of about equal weight."""
    total, ends, done = sum(weights), [0], 0
    for row, weight in enumerate(weights):
        done += weight
        if done * THREADS >= total * len(ends):
            ends.append(row + 1)
    if ends[-1] != len(weights):
        ends.append(len(weights))
    return [slice(a, b) for a, b in pairwise(ends) if a < b]
