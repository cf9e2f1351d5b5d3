"""The executor: judges programs by the machines' rules, computes their numbers from instructions and counts their cycles."""

from __future__ import annotations

import importlib
import importlib.util
import sys


def _load_numba_beside(module: str) -> None:
    """Import numba where some other module has the name of a tool that numba looks for.

    numba extends the `coverage` package if it can import one, and fails on a single file of that name (a script `coverage.py` in the
    working folder, say). There the import must find nothing.
    """
    if "numba" in sys.modules or module in sys.modules:
        return
    found = importlib.util.find_spec(module)
    if found is None or found.submodule_search_locations is not None:
        return
    sys.modules[module] = None  # type: ignore[assignment]
    try:
        importlib.import_module("numba")
    finally:
        del sys.modules[module]


_load_numba_beside("coverage")
