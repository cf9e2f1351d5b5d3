"""The error function over arrays, compiled once and cached on disk."""

from __future__ import annotations

import math

from ..jit import elementwise


@elementwise
def erf(x: float) -> float:
    """erf in float64."""
    return math.erf(x)
