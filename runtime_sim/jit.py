"""numba's compilers with their on-disk cache, so that a fresh process loads machine code instead of compiling it.

numba keeps the code beside the source file, or in the user's cache folder where that is read-only. Where neither can be written it refuses
to cache; the code is then compiled in every process.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar, cast

import numba
import numpy as np

F = TypeVar("F", bound=Callable[..., Any])
Values = np.ndarray[Any, Any]


def compiled(function: F) -> F:
    """`function` as machine code that runs without the interpreter lock, with strict IEEE arithmetic (nothing fused or re-associated)."""
    try:
        return cast(F, numba.njit(cache=True, nogil=True, fastmath=False)(function))
    except RuntimeError:
        return cast(F, numba.njit(nogil=True, fastmath=False)(function))


def elementwise(function: Callable[[float], float]) -> Callable[[Values], Values]:
    """`function` over every element of a float64 array."""
    try:
        return cast(Callable[[Values], Values], numba.vectorize(["float64(float64)"], cache=True)(function))
    except RuntimeError:
        return cast(Callable[[Values], Values], numba.vectorize(["float64(float64)"])(function))
