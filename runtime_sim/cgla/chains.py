"""Long fp32 chains as one compiled loop, in the machine's order.

A column of FMA slots computes v = (((h + a1 b1) + a2 b2) + ...) with every product and every sum rounded to fp32; a self-updating FAD
below it adds the v of one iteration after the other. The loop here does the same operations in the same order for many independent
outputs at once, four links and four columns a pass over memory. Nothing is re-associated and no product is fused with its sum, so it
equals the slot-by-slot evaluation bit for bit.
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
    def chain(a: Any, b: Any, head: Any, product_head: bool, add: bool, out: Any, block: int, first_job: int, last_job: int) -> None:
        _, steps, links, width = a.shape
        columns = b.shape[3]
        blocks = width // block
        v0, v1 = np.empty(block, np.float32), np.empty(block, np.float32)
        v2, v3 = np.empty(block, np.float32), np.empty(block, np.float32)
        for job in range(first_job, last_job):
            t = job // blocks
            j0 = (job % blocks) * block
            for c in range(0, columns, 4):
                o0, o1, o2, o3 = (out[t, c, j0:], out[t, c + 1, j0:], out[t, c + 2, j0:], out[t, c + 3, j0:])
                for k in range(steps):
                    w, x = a[t, k], b[t, k]
                    r = 0
                    if product_head:
                        for j in range(block):
                            p = w[0, j0 + j]
                            v0[j], v1[j], v2[j], v3[j] = p * x[0, c], p * x[0, c + 1], p * x[0, c + 2], p * x[0, c + 3]
                        r = 1
                    elif add:
                        v0[:], v1[:], v2[:], v3[:] = head[t], head[t], head[t], head[t]
                    else:
                        for j in range(block):
                            v0[j], v1[j], v2[j], v3[j] = o0[j], o1[j], o2[j], o3[j]
                    while r + 4 <= links:
                        wa, wb, wc, wd = (w[r, j0:], w[r + 1, j0:], w[r + 2, j0:], w[r + 3, j0:])
                        a0, a1, a2, a3 = (x[r, c], x[r, c + 1], x[r, c + 2], x[r, c + 3])
                        b0, b1, b2, b3 = (x[r + 1, c], x[r + 1, c + 1], x[r + 1, c + 2], x[r + 1, c + 3])
                        c0, c1, c2, c3 = (x[r + 2, c], x[r + 2, c + 1], x[r + 2, c + 2], x[r + 2, c + 3])
                        d0, d1, d2, d3 = (x[r + 3, c], x[r + 3, c + 1], x[r + 3, c + 2], x[r + 3, c + 3])
                        for j in range(block):
                            p, q, s, u = wa[j], wb[j], wc[j], wd[j]
                            v0[j] = (((v0[j] + p * a0) + q * b0) + s * c0) + u * d0
                            v1[j] = (((v1[j] + p * a1) + q * b1) + s * c1) + u * d1
                            v2[j] = (((v2[j] + p * a2) + q * b2) + s * c2) + u * d2
                            v3[j] = (((v3[j] + p * a3) + q * b3) + s * c3) + u * d3
                        r += 4
                    while r < links:
                        for j in range(block):
                            p = w[r, j0 + j]
                            v0[j] += p * x[r, c]
                            v1[j] += p * x[r, c + 1]
                            v2[j] += p * x[r, c + 2]
                            v3[j] += p * x[r, c + 3]
                        r += 1
                    if add:
                        for j in range(block):
                            o0[j] += v0[j]
                            o1[j] += v1[j]
                            o2[j] += v2[j]
                            o3[j] += v3[j]
                    else:
                        for j in range(block):
                            o0[j], o1[j], o2[j], o3[j] = v0[j], v1[j], v2[j], v3[j]

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
    if _WARM_UP.takes(a, b):
        stepped(a, b, head, product_head, add, out)
        return out
    block = next(size for size in (4 * BLOCK, 2 * BLOCK, BLOCK) if a.shape[3] % size == 0)
    jobs = a.shape[0] * (a.shape[3] // block)
    work = a.size * b.shape[3]
    threads = min(os.cpu_count() or 1, MAX_THREADS, jobs) if work >= THREADED_WORK else 1
    cuts = [jobs * i // threads for i in range(threads + 1)]
    function = _compiled()
    if threads == 1:
        function(a, b, head, product_head, add, out, block, 0, jobs)
        return out
    pieces = [_pool().submit(function, a, b, head, product_head, add, out, block, low, high) for low, high in pairwise(cuts)]
    for piece in pieces:
        piece.result()
    return out


def stepped(a: Floats, b: Floats, head: Floats, product_head: bool, add: bool, out: Floats) -> None:
    """`run_chain` in numpy, one link at a time, into `out`."""
    with np.errstate(all="ignore"):
        for k in range(a.shape[1]):
            value = np.broadcast_to(head[:, None, None], out.shape) if add else out
            for link in range(a.shape[2]):
                product = a[:, k, link, None, :] * b[:, k, link, :, None]
                value = product if product_head and link == 0 else value + product
            out[...] = out + value if add else value


class _WarmUp:
    """Small programs run in numpy: compiling the loop takes longer than all their chains. Ends after a number of link steps."""

    def __init__(self, steps: int, work: int) -> None:
        self.steps = steps
        self.work = work

    def takes(self, a: Floats, b: Floats) -> bool:
        """Whether this chain runs in numpy; counts its steps."""
        steps = a.shape[1] * a.shape[2]
        if steps > self.steps or a.size * b.shape[3] > self.work:
            return False
        self.steps -= steps
        return True


_WARM_UP = _WarmUp(steps=20_000, work=1 << 22)


def padded(size: int, multiple: int) -> int:
    """The next multiple."""
    return -(-size // multiple) * multiple
