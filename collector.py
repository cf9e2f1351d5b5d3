"""Pausing Python's garbage collector while a model is compiled, judged or run.

Each of these makes hundreds of thousands of objects (torch alone 100,000 when it loads its tracer) that all stay alive until it is done; a
collector that walks them again and again takes a sixth to a third of the time and finds next to nothing.
"""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def paused() -> Iterator[None]:
    """No garbage collection inside."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()
