"""Where constant values live: beside the graph, by key, never inside it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from ..errors import BadInput


class ConstantStore:
    """Values by key: arrays, or functions that make them when asked (memory-mapped files, views of torch parameters).

    bf16 values are held as float32. `has` is false for tensors without a value (meta device): nothing folds, `get` refuses.
    `block` gives the stored form of a block format (`q8_0`, ...): a mapping of planes, where the source has one.
    """

    def __init__(self) -> None:
        self._values: dict[str, np.ndarray[Any, Any] | Callable[[], np.ndarray[Any, Any]]] = {}
        self._blocks: dict[str, Callable[[], dict[str, np.ndarray[Any, Any]]]] = {}

    def put(self, key: str, value: np.ndarray[Any, Any] | Callable[[], np.ndarray[Any, Any]]) -> None:
        """Store an array, or a function that returns it, under `key`; a later value replaces an earlier one."""
        self._values[key] = value

    def put_block(self, key: str, planes: Callable[[], dict[str, np.ndarray[Any, Any]]]) -> None:
        """Store the block form of `key` (planes such as `quants` and `scales`)."""
        self._blocks[key] = planes

    def has(self, key: str) -> bool:
        """True where `get(key)` will give a value."""
        return key in self._values

    def get(self, key: str) -> np.ndarray[Any, Any]:
        """The decoded value. Raises BadInput for a key without value."""
        if key not in self._values:
            raise BadInput(f"constant {key!r} has no value (a meta tensor?): only timing-only runs work without weights")
        value = self._values[key]
        return value() if callable(value) else value

    def block(self, key: str) -> dict[str, np.ndarray[Any, Any]]:
        """The stored planes of a block format. Raises KeyError."""
        return self._blocks[key]()
