"""Reductions along a line: the cycles of section 7.1, counted by the executor on real bursts, with the right sums."""

from __future__ import annotations

import numpy as np
import pytest
from wafer_lines import Tree, binary_tree, chain_tree, k_tree, recurrence, reduction, total_cycles, two_phase
from wafer_programs import star

from spatialc.machines.program import Program
from spatialc.runtime_sim.wafer import check, execute


def summed(program: Program) -> None:
    """The program is legal and its output is the sum of its input over cores."""
    assert check(program) == []
    shape = program.bindings[0].shape
    x = np.random.default_rng(0).integers(-8, 8, shape).astype(np.float32)
    y = execute(program, {"x": x}).outputs["y"]
    axis = len(shape) - 2
    wanted = x.sum(axis=axis)
    assert np.array_equal(y, np.broadcast_to(np.expand_dims(wanted, axis), y.shape) if y.ndim == x.ndim else wanted)


@pytest.mark.parametrize(("p", "b"), [(2, 1), (5, 1), (8, 8), (33, 3)])
def test_chain_is_exact(p: int, b: int) -> None:
    program = reduction(chain_tree(p), b, rows=2)
    summed(program)
    assert execute(program, {}, timing_only=True).cycles == b + (p - 1) * 6


@pytest.mark.parametrize(("p", "b"), [(2, 4), (5, 4), (9, 8), (6, 2)])
def test_star_is_exact(p: int, b: int) -> None:
    program = star(p, b)
    summed(program)
    assert execute(program, {}, timing_only=True).cycles == b * (p - 1) + 6


@pytest.mark.parametrize(("p", "g", "b"), [(16, 4, 8), (12, 3, 2), (20, 5, 5)])
def test_unfused_two_phase_is_exact(p: int, g: int, b: int) -> None:
    program = reduction(two_phase(p, g), b)
    summed(program)
    assert execute(program, {}, timing_only=True).cycles == 2 * b + p - 1 + 5 * (g + p // g - 2)


@pytest.mark.parametrize("tree", [binary_tree(8), binary_tree(16), k_tree(12, ()), k_tree(20, (4,)), k_tree(30, (6, 2))])
@pytest.mark.parametrize("b", [2, 8])
def test_trees_equal_the_recurrence(tree: Tree, b: int) -> None:
    program = reduction(tree, b)
    summed(program)
    assert execute(program, {}, timing_only=True).cycles == total_cycles(tree, b)


def test_published_figures_of_the_recurrence() -> None:
    assert recurrence(binary_tree(64), 8)[2] == 102
    assert total_cycles(k_tree(420, ()), 10) == 1505
    assert total_cycles(k_tree(420, (21,)), 10) == 565
    assert total_cycles(k_tree(420, (52, 5)), 10) == 529
    assert total_cycles(k_tree(720, (80, 9)), 23) == 908
