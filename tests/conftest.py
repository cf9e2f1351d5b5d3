"""What all tests share: a module's random numbers begin anew with every test, so that none depends on which tests ran before it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

_STARTS: dict[str, Mapping[str, Any]] = {}


@pytest.fixture(autouse=True)
def numbers_from_the_start(request: pytest.FixtureRequest) -> None:
    """Puts the generator `RNG` of a test's module where it stood before the first test."""
    generator = getattr(request.module, "RNG", None)
    if generator is not None:
        start = _STARTS.setdefault(request.module.__name__, generator.bit_generator.state)
        generator.bit_generator.state = start
