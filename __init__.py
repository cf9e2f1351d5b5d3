"""spatialc: compile PyTorch transformers into static schedules for spatial arrays, run, check and compare those schedules.

`compile(module, args, kwargs, target="tsp")` gives a `Program`; `program.run(*args)` a `Result`; `compare(module, args)` one result a
machine. Everything is imported on first use, so that `import spatialc` costs nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from .collector import paused

if TYPE_CHECKING:
    from .api import Program, Result, Session, compare, compile, load
    from .errors import BadInput, Infeasible, LegalityError, SpatialcError, UnsupportedOp, Violation

__version__ = "0.1.0"

_HOME = {
    **dict.fromkeys(("Program", "Result", "Session", "compare", "compile", "load"), ".api"),
    **dict.fromkeys(("BadInput", "Infeasible", "LegalityError", "SpatialcError", "UnsupportedOp", "Violation"), ".errors"),
}

__all__ = [
    "BadInput", "Infeasible", "LegalityError", "Program", "Result", "Session", "SpatialcError", "UnsupportedOp", "Violation",
    "compare", "compile", "load",
]  # fmt: skip


def __getattr__(name: str) -> Any:
    if name in _HOME:
        with paused():
            return getattr(import_module(_HOME[name], __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
