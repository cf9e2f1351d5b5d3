"""Pausing Python's garbage collector while a program is judged and run.

A judgement makes hundreds of thousands of objects that all stay alive until it is done; a collector that walks them again and again takes a
sixth of the time and finds nothing.
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
