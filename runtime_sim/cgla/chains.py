"""Long fp32 chains as one compiled loop, in the machine's order.

A column of FMA slots computes v = (((h + a1 b1) + a2 b2) + ...) with every product and every sum rounded to fp32; a self-updating FAD
below it adds the v of one iteration after the other. The loop here does the same operations in the same order for many independent
outputs at once (nothing is re-associated, no product is fused with its sum), so it equals the slot-by-slot evaluation bit for bit.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
BLOCK = 32
MAX_THREADS = 8
THREADED_WORK = 1 << 22
COLUMNS = 4


@lru_cache(maxsize=1)
def _compiled() -> Callable[..., None]:
    from numba import njit

    @njit(nogil=True, fastmath=False)  # type: ignore[untyped-decorator]
    def chain(a: Any, b: Any, head: Any, product_head: bool, add: bool, out: Any, first_job: int, last_job: int) -> None:
        _, steps, links, width = a.shape
        columns = b.shape[3]
        blocks = width // BLOCK
        for job in range(first_job, last_job):
            t = job // blocks
            j0 = (job % blocks) * BLOCK
            v = np.empty((COLUMNS, BLOCK), np.float32)
            total = np.empty((COLUMNS, BLOCK), np.float32)
            for c0 in range(0, columns, COLUMNS):
                for c in range(COLUMNS):
                    for j in range(BLOCK):
                        total[c, j] = out[t, c0 + c, j0 + j]
                for k in range(steps):
                    first = 0
                    if product_head:
                        first = 1
                        for c in range(COLUMNS):
                            for j in range(BLOCK):
                                v[c, j] = a[t, k, 0, j0 + j] * b[t, k, 0, c0 + c]
                    elif add:
                        for c in range(COLUMNS):
                            for j in range(BLOCK):
                                v[c, j] = head[t]
                    else:
                        for c in range(COLUMNS):
                            for j in range(BLOCK):
                                v[c, j] = total[c, j]
                    for r in range(first, links):
                        x0 = b[t, k, r, c0]
                        x1 = b[t, k, r, c0 + 1]
                        x2 = b[t, k, r, c0 + 2]
                        x3 = b[t, k, r, c0 + 3]
                        for j in range(BLOCK):
                            w = a[t, k, r, j0 + j]
                            v[0, j] += w * x0
                            v[1, j] += w * x1
                            v[2, j] += w * x2
                            v[3, j] += w * x3
                    if add:
                        for c in range(COLUMNS):
                            for j in range(BLOCK):
                                total[c, j] += v[c, j]
                    else:
                        for c in range(COLUMNS):
                            for j in range(BLOCK):
                                total[c, j] = v[c, j]
                for c in range(COLUMNS):
                    for j in range(BLOCK):
                        out[t, c0 + c, j0 + j] = total[c, j]

    compiled: Callable[..., None] = chain
    return compiled


@lru_cache(maxsize=1)
def _pool() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(min(os.cpu_count() or 1, MAX_THREADS))


def run_chain(a: Floats, b: Floats, head: Floats, start: Floats, product_head: bool, add: bool) -> Floats:
    """`a` [T, K, R, J], `b` [T, K, R, C], `head` [T], `start` [T, C, J] -> [T, C, J]; J a multiple of BLOCK, C of COLUMNS.

    With `add`: for each k, v = head (or the first product), then R products added, then start += v. Without: the R products of each k are
    added to `start` one after the other (with `product_head`, K = 1 and the first product takes the place of `start`).
    """
    out = np.ascontiguousarray(start)
    jobs = a.shape[0] * (a.shape[3] // BLOCK)
    work = a.size * b.shape[3]
    threads = min(os.cpu_count() or 1, MAX_THREADS, jobs) if work >= THREADED_WORK else 1
    cuts = [jobs * i // threads for i in range(threads + 1)]
    function = _compiled()
    if threads == 1:
        function(a, b, head, product_head, add, out, 0, jobs)
        return out
    pieces = [_pool().submit(function, a, b, head, product_head, add, out, low, high) for low, high in pairwise(cuts)]
    for piece in pieces:
        piece.result()
    return out


def padded(size: int, multiple: int) -> int:
    """The next multiple."""
    return -(-size // multiple) * multiple
