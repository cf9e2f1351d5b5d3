"""The lowerings, one module a family of ops. Importing a module fills the registry."""

from __future__ import annotations

from importlib import import_module

FAMILIES = (
    "pointwise", "reduce", "contract", "convolution", "pooling", "normalisation", "attention", "views", "index", "sort", "resample",
    "complex", "experts", "refused",
)  # fmt: skip


def load() -> None:
    """Fill the registry."""
    for family in FAMILIES:
        import_module(f".{family}", __package__)
