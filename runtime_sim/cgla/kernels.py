"""The compiled inner loops of the CGLA executor: factors out of the local memories, and multiply-add chains in the machine's order.

Compiled code is cached on disk and numba is imported at the first call (`runtime_sim/jit.py`): small programs run without it.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ..jit import compiled

LEAST_NORMAL = np.float32(2.0**-14)
LEAST_BITS = np.uint32(0x38800000)


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
    size = np.uint32(half & np.uint32(0x7FFF))
    bits = np.uint32(size << np.uint32(13))
    small = np.float32(np.uint32(bits + LEAST_BITS).view(np.float32) - LEAST_NORMAL).view(np.uint32)
    normal = np.uint32(bits + np.uint32(0x38000000))
    bits = np.uint32(bits | np.uint32(0x7F800000)) if size >= np.uint32(0x7C00) else normal
    bits = small if size < np.uint32(0x0400) else bits
    return bits | np.uint32((half & np.uint32(0x8000)) << np.uint32(16))


@compiled
def pack(words: Any, first: Any, batch: Any, steps: Any, own: Any, links: Any, recipe: int, expand: int, layout: int, out: Any) -> None:
    """Factors from 4-byte `words` as the bits of fp32 into `out` [sets, batch, heads, steps, all links, width]: the factor of a link lies
    at `first` [sets, links] plus the steps of each axis (`own` not negative), all in words.

    `recipe`: 0 the two fp32 there, 1 and 2 the low and high pair of halves. `expand`: 0 both, 1 the first twice, 2 the second twice.
    `layout`: 0 the two values in separate heads, 1 next to each other, 2 the first alone.
    """
    for f in range(first.shape[0]):
        for b in range(batch.size):
            for s in range(steps.size):
                for i in range(links.size):
                    source = words[first[f, i] + batch[b] + steps[s] :]
                    low = out[f, b, 0, s, links[i]]
                    high = out[f, b, out.shape[2] - 1, s, links[i]]
                    for o in range(own.size):
                        if recipe == 0:
                            x, y = source[own[o]], source[own[o] + 1]
                        else:
                            pair = source[own[o] + recipe - 1]
                            x, y = widened(np.uint32(pair & np.uint32(0xFFFF))), widened(np.uint32(pair >> np.uint32(16)))
                        x = y if expand == 2 else x
                        y = x if expand == 1 else y
                        if layout == 0:
                            low[o] = x
                            high[o] = y
                        elif layout == 1:
                            low[2 * o] = x
                            low[2 * o + 1] = y
                        else:
                            low[o] = x


@compiled
def pack_halves(words: Any, first: Any, batch: Any, steps: Any, count: int, stride: int, links: Any, out: Any) -> None:
    """`pack` of `count` pairs of halves, `stride` words from one to the next, next to each other."""
    pairs = np.empty(count, np.uint32)
    halves = pairs.view(np.uint16)
    for f in range(first.shape[0]):
        for b in range(batch.size):
            for s in range(steps.size):
                for i in range(links.size):
                    source = words[first[f, i] + batch[b] + steps[s] :]
                    row = out[f, b, 0, s, links[i]]
                    for o in range(count):
                        pairs[o] = source[o * stride]
                    for o in range(2 * count):
                        row[o] = widened(np.uint32(halves[o]))


@compiled
def pack_words(words: Any, first: Any, batch: Any, steps: Any, count: int, stride: int, links: Any, out: Any) -> None:
    """`pack` of `count` single words, `stride` from one to the next."""
    for f in range(first.shape[0]):
        for b in range(batch.size):
            for s in range(steps.size):
                for i in range(links.size):
                    source = words[first[f, i] + batch[b] + steps[s] :]
                    row = out[f, b, 0, s, links[i]]
                    for o in range(count):
                        row[o] = source[o * stride]
