"""Outputs of a machine against a reference: relative error, arg-max agreement, and where they part."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from .result import Numerics

Array = np.ndarray[Any, Any]


def relative_error(got: Sequence[Array], want: Sequence[Array]) -> tuple[float, float]:
    """(largest absolute error, worst relative L2 error) over the outputs.

    Integer and boolean outputs must be equal; a difference, or an infinity or NaN on one side only, is an infinite error. So is a
    wrong shape or count. Infinities of one sign on both sides are equal.
    """
    if len(got) != len(want):
        return float("inf"), float("inf")
    worst_abs = worst_rel = 0.0
    for a, b in zip(got, want, strict=True):
        if a.shape != b.shape:
            return float("inf"), float("inf")
        if b.dtype.kind != "f":
            if not np.array_equal(a, b):
                return float("inf"), float("inf")
            continue
        finite = np.isfinite(b)
        if not np.array_equal(finite, np.isfinite(a)) or not np.array_equal(a[~finite], b[~finite], equal_nan=True):
            return float("inf"), float("inf")
        whole = bool(finite.all())
        x, y = ((v if whole else v[finite]).astype(np.float64) for v in (a, b))
        difference = np.abs(x - y)
        worst_abs = max(worst_abs, float(difference.max(initial=0.0)))
        worst_rel = max(worst_rel, float(np.linalg.norm(difference) / max(float(np.linalg.norm(y)), 1e-12)))
    return worst_abs, worst_rel


def argmax_agreement(got: Array, want: Array, resolution: float) -> tuple[float, int]:
    """(share of rows whose arg-max over the last axis is the reference's, number of ties among the differing rows).

    A differing row is a tie, and counts as agreeing, when the reference's own values at the two positions are closer than
    `resolution` times the row's largest magnitude: the format cannot tell them apart.
    """
    a, b = got.reshape(-1, got.shape[-1]), want.reshape(-1, want.shape[-1])
    rows = np.arange(len(b))
    mine, theirs = a.argmax(-1), b.argmax(-1)
    gap = b[rows, theirs].astype(np.float64) - b[rows, mine]
    tie = (mine != theirs) & (gap <= resolution * np.abs(b).max(-1))
    agree = (mine == theirs) | tie
    return float(agree.mean()), int(tie.sum())


def judge(
    got: Sequence[Array],
    want: Sequence[Array],
    *,
    tolerance: float,
    reference: str = "torch fp32 eager",
    resolution: float | None = None,
    interpreted: Sequence[Array] | None = None,
    interpreter_tolerance: float | None = None,
    states: Sequence[Array] = (),
) -> Numerics:
    """The verdict on outputs. `resolution` (relative spacing of the format) asks for arg-max agreement on the first output.

    `interpreted` are the interpreter's outputs, and after them its new values of what the run left in `states`.
    """
    max_abs, rel = relative_error(got, want)
    passed = rel <= tolerance
    own = None
    if interpreted is not None:
        own = relative_error([*got, *states], interpreted)[1]
        passed = passed and own <= (interpreter_tolerance or 0.0)
    share, ties = None, None
    if resolution is not None and got and got[0].shape == want[0].shape and got[0].ndim:
        share, ties = argmax_agreement(got[0], want[0], resolution)
    return Numerics(
        max_abs_err=max_abs, rel_l2_err=rel, argmax_agreement=share, argmax_ties=ties, reference=reference, tolerance=tolerance,
        interpreter_rel_l2_err=own, interpreter_tolerance=interpreter_tolerance if own is not None else None, passed=bool(passed),
    )  # fmt: skip


def where_they_part(got: Array, want: Array, rows: int = 5) -> str:
    """The worst elements, one a line: index, got, wanted. For failure messages."""
    if got.shape != want.shape:
        return f"shape {got.shape}, expected {want.shape}"
    difference = np.abs(got.astype(np.float64) - want.astype(np.float64))
    difference = np.where(np.isnan(difference), np.inf, difference)
    worst = np.argsort(-difference, axis=None, kind="stable")[:rows]
    lines = []
    for flat in worst:
        index = tuple(int(i) for i in np.unravel_index(flat, got.shape))
        lines.append(f"  at {list(index)}: got {got[index]!s}, expected {want[index]!s}")
    return "\n".join(lines)
