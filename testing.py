"""Numeric-equivalence checks for people's own test suites."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from . import api
from .border import to_numpy, torch_outputs
from .report.numerics import where_they_part


def assert_equivalent(
    module: torch.nn.Module,
    args: Sequence[Any] = (),
    kwargs: Mapping[str, Any] | None = None,
    *,
    target: str,
    tolerance: float | None = None,
    **options: Any,
) -> api.Result:
    """Compile `module`, run the schedule and compare with torch fp32 eager; returns the result.

    `tolerance` is the allowed relative L2 error (default: what the number format allows); `options` are those of `spatialc.compile`.
    Raises AssertionError that names broken machine rules, or the outputs and positions where the numbers part; and whatever
    `compile` raises.
    """
    program = api.compile(module, args, kwargs, target=target, **options)
    reference = torch_outputs(module, args, kwargs or {})
    result = program.execute(args, kwargs, reference=reference)
    if not result.legal:
        listed = "\n  ".join(result.violations[:10])
        raise AssertionError(f"the schedule for {target} breaks {len(result.violations)} machine rules:\n  {listed}")
    numerics = result.data.numerics
    assert numerics is not None
    allowed = numerics.tolerance if tolerance is None else tolerance
    if numerics.rel_l2_err > allowed:
        lines = [f"{target} differs from torch: relative L2 error {numerics.rel_l2_err:.3e}, allowed {allowed:.1e}"]
        for index, (got, want) in enumerate(zip(result.outputs, reference, strict=False)):
            lines.append(f"output {index} {list(want.shape)}, worst elements:")
            lines.append(where_they_part(to_numpy(got), to_numpy(want)))
        raise AssertionError("\n".join(lines))
    return result
