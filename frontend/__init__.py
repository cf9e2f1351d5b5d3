"""Torch in, `ir.Graph` out: export, the lowering tables, the constant store."""

from __future__ import annotations

from .lower import Binding, Lowered, lower_exported, lower_module
from .registry import supported_ops

__all__ = ["Binding", "Lowered", "lower_exported", "lower_module", "supported_ops"]
