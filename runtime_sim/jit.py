"""numba's compilers with their on-disk cache, so that a fresh process loads machine code instead of compiling it.

numba itself is imported when the first of these functions is called: it takes longer to import than a small program takes to run. It
keeps the code beside the source file, or in the user's cache folder where that is read-only. Where neither can be written it refuses to
cache; the code is then compiled in every process.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import update_wrapper
from threading import RLock
from typing import Any, TypeVar, cast

import numpy as np

F = TypeVar("F", bound=Callable[..., Any])
Values = np.ndarray[Any, Any]
_LOCK = RLock()


def loaded() -> bool:
    """Whether numba is there, so that calling one more function costs little."""
    return "numba" in sys.modules


class _Later:
    """A function that is compiled when it is first called, `compiler` being given whether to cache."""

    def __init__(self, function: Callable[..., Any], compiler: Callable[[bool], Callable[..., Any]]) -> None:
        update_wrapper(self, function)
        self._function, self._compiler = function, compiler
        self._made: Callable[..., Any] | None = None

    def made(self) -> Callable[..., Any]:
        """The compiled function; those that it calls are compiled first, as numba must find them in its module."""
        with _LOCK:
            if self._made is None:
                known = self._function.__globals__
                for name in self._function.__code__.co_names:
                    callee = known.get(name)
                    if isinstance(callee, _Later) and callee is not self:
                        known[name] = callee.made()
                try:
                    self._made = self._compiler(True)(self._function)
                except RuntimeError:
                    self._made = self._compiler(False)(self._function)
            return self._made

    def __call__(self, *args: Any) -> Any:
        """Compile if need be, and call."""
        return (self._made or self.made())(*args)


def compiled(function: F) -> F:
    """`function` as machine code that runs without the interpreter lock, with strict IEEE arithmetic (nothing fused or re-associated)."""

    def compiler(cache: bool) -> Callable[..., Any]:
        import numba

        return cast(Callable[..., Any], numba.njit(cache=cache, nogil=True, fastmath=False))

    return cast(F, _Later(function, compiler))


def elementwise(function: Callable[[float], float]) -> Callable[[Values], Values]:
    """`function` over every element of a float64 array."""

    def compiler(cache: bool) -> Callable[..., Any]:
        import numba

        return cast(Callable[..., Any], numba.vectorize(["float64(float64)"], cache=cache))

    return cast(Callable[[Values], Values], _Later(function, compiler))
