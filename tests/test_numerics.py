"""The verdict on numbers: errors that must be seen, ties that may be forgiven."""

from __future__ import annotations

import numpy as np
import pytest

from spatialc.report.numerics import argmax_agreement, judge, relative_error, where_they_part


def test_relative_error_is_l2_and_worst_over_outputs() -> None:
    want = [np.array([3.0, 4.0], np.float32), np.array([1.0], np.float32)]
    assert relative_error(want, want) == (0.0, 0.0)
    assert relative_error([want[0], np.array([1.5], np.float32)], want) == (0.5, 0.5)
    assert relative_error([np.array([3.0, 4.5], np.float32), want[1]], want)[1] == pytest.approx(0.1)


@pytest.mark.parametrize(
    ("got", "want"),
    [
        (np.array([1, 2]), np.array([1, 3])),
        (np.array([True]), np.array([False])),
        (np.array([np.nan], np.float32), np.array([1.0], np.float32)),
        (np.array([1.0], np.float32), np.array([np.inf], np.float32)),
        (np.array([-np.inf], np.float32), np.array([np.inf], np.float32)),
        (np.zeros((1, 2), np.float32), np.zeros(2, np.float32)),
    ],
)
def test_hard_differences_are_infinite(got: np.ndarray, want: np.ndarray) -> None:
    assert relative_error([got], [want])[1] == float("inf")
    assert relative_error([want], [want])[1] == 0.0


def test_a_missing_output_is_wrong() -> None:
    assert relative_error([], [np.zeros(1)])[1] == float("inf")


def test_argmax_ties_are_only_those_that_the_format_cannot_tell_apart() -> None:
    want = np.array([[1.0, 1.0001, 0.0], [1.0, 2.0, 0.0]])
    got = np.array([[1.1, 1.0, 0.0], [2.0, 1.0, 0.0]])
    assert argmax_agreement(got, want, 1e-3) == (0.5, 1)
    assert argmax_agreement(got, want, 1e-6) == (0.0, 0)
    assert argmax_agreement(want, want, 0.0) == (1.0, 0)


def test_judge_needs_both_references() -> None:
    want, got = np.ones(4, np.float32), np.full(4, 1.005, np.float32)
    assert judge([got], [want], tolerance=1e-2).passed
    assert not judge([got], [want], tolerance=1e-3).passed
    assert not judge([got], [want], tolerance=1e-2, interpreted=[want], interpreter_tolerance=2e-3).passed


def test_where_they_part_names_the_worst_first() -> None:
    text = where_they_part(np.array([1.0, 2.0, 9.0]), np.array([1.0, 2.5, 3.0]))
    assert text.splitlines()[0] == "  at [2]: got 9.0, expected 3.0"
