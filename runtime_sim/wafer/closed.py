"""Closed forms of FMAC loops (N6)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from .deliveries import Deliveries
from .engine import Engine
from .model import SegmentView
from .order import Step


@dataclass(frozen=True)
class ClosedLoop:
    """One loop evaluated as matrix products."""

    def evaluate(self, engine: Engine) -> None:
        """Apply to the engine's memory."""
        raise NotImplementedError


def close_loops(seg: SegmentView, deliveries: Deliveries, steps: Sequence[Step]) -> list[Step | ClosedLoop]:
    """Steps with loops replaced."""
    return list(steps)
