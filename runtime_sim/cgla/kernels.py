"""The compiled inner loops of the CGLA executor: factors out of the local memories, and multiply-add chains in the machine's order.

Compiled code is cached on disk and numba is imported at the first call (`runtime_sim/jit.py`): small programs run without it.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ..jit import compiled

HALF_STEP = np.float32(2.0**-24)


@compiled
def chain(a: Any, b: Any, head: Any, product_head: bool, add: bool, out: Any, block: int, first_job: int, last_job: int) -> None:
    """Jobs [first_job, last_job) of `chains.run_chain`, a job being `block` outputs of one t, into `out` [T, C, J]."""
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


@compiled
def widened(half: Any) -> Any:
    """The bits of a half (uint32) as fp32, exact; infinities and NaN keep their payload."""
    size = half & np.uint32(0x7FFF)
    bits = size << np.uint32(13)
    if size < np.uint32(0x0400):
        bits = np.float32(np.float32(size) * HALF_STEP).view(np.uint32)
    elif size >= np.uint32(0x7C00):
        bits |= np.uint32(0x7F800000)
    else:
        bits += np.uint32(0x38000000)
    return bits | ((half & np.uint32(0x8000)) << np.uint32(16))


@compiled
def pack(words: Any, index: Any, links: Any, recipe: int, expand: int, layout: int, out: Any) -> None:
    """Words at `index` [batch, steps, links, own] as the bits of fp32 into `out` [batch, heads, steps, all links, width].

    `recipe`: 0 the word's two fp32, 1 and 2 its low and high pair of halves. `expand`: 0 both, 1 the first twice, 2 the second twice.
    `layout`: 0 the two values in separate heads, 1 next to each other, 2 the first alone.
    """
    batch, steps, count, own = index.shape
    shift = np.uint64(32 if recipe == 2 else 0)
    for b in range(batch):
        for s in range(steps):
            for i in range(count):
                first = out[b, 0, s, links[i]]
                second = out[b, out.shape[1] - 1, s, links[i]]
                for o in range(own):
                    word = words[index[b, s, i, o]]
                    if recipe == 0:
                        low, high = np.uint32(word & np.uint64(0xFFFFFFFF)), np.uint32(word >> np.uint64(32))
                    else:
                        pair = np.uint32((word >> shift) & np.uint64(0xFFFFFFFF))
                        low, high = widened(pair & np.uint32(0xFFFF)), widened(pair >> np.uint32(16))
                    if expand == 1:
                        high = low
                    elif expand == 2:
                        low = high
                    if layout == 0:
                        first[o] = low
                        second[o] = high
                    elif layout == 1:
                        first[2 * o] = low
                        first[2 * o + 1] = high
                    else:
                        first[o] = low
