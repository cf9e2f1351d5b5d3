"""The text listing of a program, whatever its machine: one line a burst, ordered by cycle; it parses back to the same program."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from typing import Any

import numpy as np

from ..errors import BadInput
from .catalog import TARGETS, find_target
from .program import Program


def listing_of(program: Program) -> str:
    """The listing of `program`. Raises BadInput for an unknown target."""
    return str(_module(program.target).listing(program))


def parse_listing(text: str, images: Mapping[str, np.ndarray[Any, Any]] | None = None) -> Program:
    """The program that `text` lists, with the images that a listing only names. Raises BadInput naming the wrong line."""
    target = next((name for name in TARGETS if text.lower().startswith(name)), None)
    if target is None:
        raise BadInput(f"a listing starts with its target ({', '.join(TARGETS)}), not {text[:20]!r}")
    program: Program = _module(target).parse(text, images)
    return program


def _module(target: str) -> Any:
    return import_module(f".{find_target(target).name}.listing", __package__)
