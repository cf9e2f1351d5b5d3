"""Work that falls into parts which write apart from each other, on the threads of this machine: numpy and compiled loops let others run."""

from __future__ import annotations

import ctypes
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import contextmanager
from functools import lru_cache
from importlib import import_module
from typing import TypeVar

P = TypeVar("P")
R = TypeVar("R")
THREADS = min(len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1, 8)

_SHARED = 1 << 18
"""Work below which handing it to another thread costs more than it saves."""


_HERE = threading.local()


def _mark() -> None:
    _HERE.pooled = True


@lru_cache(maxsize=1)
def _pool() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(THREADS, initializer=_mark)


def gather(function: Callable[[P], R], parts: Sequence[P]) -> list[R]:
    """What `function` returns for every part; it is called in any order, by this thread too. Parts of a part run where it runs."""
    if len(parts) < 2 or THREADS < 2 or getattr(_HERE, "pooled", False):
        return [function(part) for part in parts]
    found: dict[int, R] = {}
    left = iter(range(len(parts)))  # each number is taken once: the interpreter lock is held while it is

    def work() -> None:
        for at in left:
            found[at] = function(parts[at])

    others = [_pool().submit(work) for _ in range(min(THREADS, len(parts)) - 1)]
    _HERE.pooled = True
    try:
        work()
    finally:
        _HERE.pooled = False
        started = [other for other in others if not other.cancel()]
        wait(started)
    for other in started:
        other.result()
    return [found[at] for at in range(len(parts))]


def each(function: Callable[[P], None], parts: Sequence[P]) -> None:
    """Call `function` with every part, in any order; returns when all are done."""
    gather(function, parts)


@lru_cache(maxsize=1)
def _blas() -> tuple[Callable[[], int], Callable[[int], None]] | None:
    """The functions that tell and set how many threads numpy's own OpenBLAS takes; None where it multiplies with another library."""
    library = ctypes.CDLL(import_module("numpy._core._multiarray_umath").__file__)
    for name in ("scipy_openblas", "openblas"):
        for end in ("64_", ""):
            tell, set_to = (getattr(library, f"{name}_{verb}_num_threads{end}", None) for verb in ("get", "set"))
            if tell is not None and set_to is not None:
                return tell, set_to
    return None


@contextmanager
def one_thread_products() -> Iterator[None]:
    """Matrix products of numpy run on the thread that asks for them: threads of its own would wait, spinning, beside those of `each`."""
    found = _blas()
    if found is None:
        yield
        return
    tell, set_to = found
    before = tell()
    set_to(1)
    try:
        yield
    finally:
        set_to(before)


def even(count: int, work: int, least: int = _SHARED) -> list[slice]:
    """Cuts `count` equal rows into one slice a thread; into one alone where all `work` (elements touched, say) is less than `least`."""
    parts = THREADS if work >= least else 1
    return [slice(count * i // parts, count * (i + 1) // parts) for i in range(parts) if count * i // parts < count * (i + 1) // parts]
