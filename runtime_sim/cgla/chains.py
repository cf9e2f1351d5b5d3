"""Long fp32 chains as one compiled loop, in the machine's order.

A column of FMA slots computes v = (((h + a1 b1) + a2 b2) + ...) with every product and every sum rounded to fp32; a self-updating FAD
below it adds the v of one iteration after the other. The loop here does the same operations in the same order for many independent
outputs at once, four links and four columns a pass over memory. Nothing is re-associated and no product is fused with its sum, so it
equals the slot-by-slot evaluation bit for bit.
"""

from __future__ import annotations

from types import ModuleType

import numpy as np
from numpy.typing import NDArray

from ..threads import each, even
from . import kernels as loops

Floats = NDArray[np.float32]
BLOCK = 32
THREADED_WORK = 1 << 22
PASS = 4


def kernels() -> ModuleType | None:
    """The compiled loops, None while programs are small enough to run in numpy."""
    return loops if _WARM_UP.over else None


def run_chain(a: Floats, b: Floats, head: Floats, start: Floats, product_head: bool, add: bool) -> Floats:
    """`a` [T, K, R, J], `b` [T, K, R, C], `head` [T], `start` [T, C, J] -> [T, C, J]; J a multiple of BLOCK, C of PASS.

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
    each(lambda part: loops.chain(a, b, head, product_head, add, out, block, part.start, part.stop), even(jobs, work, THREADED_WORK))
    return out


def stepped(a: Floats, b: Floats, head: Floats, product_head: bool, add: bool, out: Floats) -> None:
    """`run_chain` in numpy, one link at a time, into `out`."""
    product = np.empty_like(out)
    value = np.empty_like(out) if add else out
    with np.errstate(all="ignore"):
        for k in range(a.shape[1]):
            if add:
                value[...] = head[:, None, None]
            for link in range(a.shape[2]):
                first = product_head and link == 0
                np.multiply(a[:, k, link, None, :], b[:, k, link, :, None], out=value if first else product)
                if not first:
                    np.add(value, product, out=value)
            if add:
                np.add(out, value, out=out)


class _WarmUp:
    """Small programs run in numpy, because numba takes about half a second to load: until so many elements went through links."""

    def __init__(self, elements: int) -> None:
        self.elements = elements
        self.over = False

    def takes(self, a: Floats, b: Floats) -> bool:
        """Whether this chain runs in numpy; counts its elements, and for each of its links as many as its call costs."""
        if not self.over:
            self.elements -= a.shape[0] * a.shape[1] * a.shape[2] * (a.shape[3] * b.shape[3] + LINK_ELEMENTS)
            self.over = self.elements < 0
        return not self.over


LINK_ELEMENTS = 4096
_WARM_UP = _WarmUp(elements=1 << 29)


def expect(macs: float) -> None:
    """Says how many products a program has: one that is not small is compiled from its first chain on."""
    _WARM_UP.over = _WARM_UP.over or macs > _WARM_UP.elements


def padded(size: int, multiple: int) -> int:
    """The next multiple."""
    return -(-size // multiple) * multiple
