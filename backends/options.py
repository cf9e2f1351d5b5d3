"""What a caller may ask of a backend, the same for every machine."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any


def _silent(stage: str, done: int, total: int) -> None:
    """The default progress report: none."""


@dataclass(frozen=True)
class CompileOptions:
    """Options of one compilation.

    `machine` is the machine's own description object; `precision` names the format of section 7 of the design (`fp16`, `fp32`, `q8_0`,
    ...; None is the machine's default); `host_ops` is `published`, `embedding` or `none`; `overhead` is `ideal` or `software`;
    `accumulate` is `fp32` or `fp16` (wafer); `region` fixes a rectangle (width, height) on the wafer; `strategy` is `greedy` or
    `solver` (tsp); `meta` is copied into the program (model, phase, batch, seq, context, pytree specs); `paths` maps binding names to
    torch's pytree paths; `progress(stage, done, total)` is called during long work.
    """

    machine: Any
    precision: str | None = None
    host_ops: str = "none"
    overhead: str = "ideal"
    accumulate: str = "fp32"
    region: tuple[int, int] | None = None
    strategy: str = "greedy"
    seed: int = 0
    meta: Mapping[str, Any] = field(default_factory=dict)
    paths: Mapping[str, str] = field(default_factory=dict)
    progress: Callable[[str, int, int], None] = _silent
