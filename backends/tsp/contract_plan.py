"""How a contraction runs: which axes of K lie along lanes and which have tiles of their own, or on the vector unit altogether.

Costs are estimates in cycles: matrix passes (two cycles a moving vector, never less than the loading of the tile), and lane moves of
operands that do not lie as they are asked for, judged from a sample of vectors.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np

from ...ir.graph import Contract
from ...machines.tsp.isa import WIDTH
from .lower import Lowering, digits, lane_axes, spread_constant_rows
from .lower_contract import Operand, Roles, extent
from .memory import LANES, STRIPES
from .move import move_cycles
from .values import arrange

SAMPLE = 48
"""Vectors from which a move is judged."""


def planned(lowering: Lowering, axes: Sequence[int], moving: Operand, stationary: Operand, roles: Roles) -> tuple[Roles, float]:
    """The roles with K divided at the least cost, and that cost."""
    best: tuple[float, Roles] | None = None
    for lanes in _divisions(axes, roles.k):
        found = Roles(roles.batch, roles.m, roles.n, lanes, tuple(a for a in roles.k if a not in lanes))
        moves = fetch_cycles(lowering, moving, axes, (*roles.batch, *roles.m, *found.tiles), lanes)
        moves += fetch_cycles(lowering, stationary, axes, (*roles.batch, *roles.n, *found.tiles), lanes)
        cost = matrix_cycles(lowering, axes, found) + moves
        if stationary.value.array is None:
            cost += extent(axes, (*roles.batch, *roles.n)) * found.tiles_k(axes)
        if best is None or cost < best[0]:
            best = (cost, found)
        if not moves:
            break
    assert best is not None
    return best[1], best[0]


def _divisions(axes: Sequence[int], k: Sequence[int]) -> list[tuple[int, ...]]:
    """Sets of K axes for the lanes, all of K first; axes of extent 1 cost nothing there."""
    long = [a for a in k if axes[a] > 1]
    if len(long) > 4:
        return [tuple(k[first:]) for first in range(len(k))]
    sizes = range(len(long), 0, -1)
    chosen = [set(kept) for size in sizes for kept in itertools.combinations(long, size)] or [set()]
    return [tuple(a for a in k if a in kept or axes[a] == 1) for kept in chosen]


def matrix_cycles(lowering: Lowering, axes: Sequence[int], roles: Roles) -> int:
    """Cycles of the passes."""
    m, n, depth = extent(axes, roles.m), extent(axes, roles.n), lowering.engine.machine.acc_depth
    load = -(-min(n, LANES) // STRIPES) + 1
    block = (m // depth) * max(2 * depth, load) + (max(2 * (m % depth), load) if m % depth else 0)
    return extent(axes, roles.batch) * -(-n // LANES) * roles.tiles_k(axes) * block


def fetch_cycles(lowering: Lowering, operand: Operand, axes: Sequence[int], rows: Sequence[int], lanes: Sequence[int]) -> float:
    """Estimated cycles of the lane moves that bring a value into vectors [rows, tiles of lanes]; 0 where it lies so, or is a constant."""
    value = operand.value
    if value.array is not None:
        return 0.0
    bases = np.unique(arrange(operand.offset, digits(operand.strides, axes, rows), ())[:, 0])
    along = arrange(0, (), digits(operand.strides, axes, lanes))
    sample = bases[:: max(1, len(bases) // SAMPLE)]
    need = np.where(along[None] >= 0, sample[:, None, None] + along[None], -1).reshape(-1, LANES)
    need = spread_constant_rows(need)
    if any(copy.locate(need, value.size) is not None for copy in value.copies):
        return 0.0
    scale = len(bases) / len(sample)
    costs = []
    for copy in value.copies:
        vector, lane = copy.origin(value.size)
        if (vector[need[need >= 0]] < 0).any():
            continue
        spots = len(np.unique(lane[bases])), len(np.unique(vector[bases]))
        costs.append(move_cycles(np.where(need >= 0, vector[need], -1), np.where(need >= 0, lane[need], -1), scale, spots))
    return min(costs, default=0.0) * max(1, WIDTH[value.dtype] // 2)


def vector_lanes(lowering: Lowering, node: Contract, operands: Sequence[Operand], limit: float) -> tuple[int, ...] | None:
    """The axes along lanes with which the vector unit multiplies and sums in fewer than `limit` cycles, or None."""
    axes = node.axes
    kept = [a for group in node.groups for a in group if axes[a] > 1]
    candidates: list[tuple[int, ...]] = [(a,) for a in kept]
    for operand in operands:
        if operand.value.array is None:
            found = tuple(a for a in lane_axes(operand.value, operand.strides, axes) or () if a in kept)
            candidates += [found] if found else []
    best: tuple[float, tuple[int, ...]] | None = None
    for lanes in dict.fromkeys(candidates):
        rows = [a for a in range(len(axes)) if a not in lanes]
        cost: float = extent(axes, rows) * -(-extent(axes, lanes) // LANES)
        for operand in operands:
            if cost < limit:
                cost += fetch_cycles(lowering, operand, axes, rows, lanes)
        if cost < limit and (best is None or cost < best[0]):
            best = (cost, lanes)
    return None if best is None else best[1]
