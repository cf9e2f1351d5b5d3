"""The compiled loops between vectors and flat tensors: vector v holds count[v] elements in the lanes from `lane` on (`bindings.Region`)."""

from __future__ import annotations

from typing import Any

from ..jit import compiled


@compiled
def take(flat: Any, first: Any, count: Any, lane: int, pitch: int, vectors: Any) -> None:
    """vectors[v, lane + k] = flat[first[v] + k pitch]."""
    for v in range(len(first)):
        for k in range(count[v]):
            vectors[v, lane + k] = flat[first[v] + k * pitch]


@compiled
def give(vectors: Any, first: Any, count: Any, lane: int, pitch: int, flat: Any) -> None:
    """flat[first[v] + k pitch] = vectors[v, lane + k]."""
    for v in range(len(first)):
        for k in range(count[v]):
            flat[first[v] + k * pitch] = vectors[v, lane + k]


@compiled
def mark(first: Any, count: Any, pitch: int, flat: Any) -> None:
    """flat[first[v] + k pitch] = True."""
    for v in range(len(first)):
        for k in range(count[v]):
            flat[first[v] + k * pitch] = True
