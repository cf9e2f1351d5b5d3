"""Plans of contractions: roles of the operands, tiles, loop order and DDR layouts for the matrix product kernels.

A Contract is flattened to [batch] x M x N x K. The *weights* are the operand that stays in the rows (M outputs), the *activations* the one
whose columns (N) stream through. The plan picks the tile sizes by the time of a lane: max(EXEC, DMA) of every launch, with the cheaper of
two orders (weights outer or columns outer).
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise

from ...errors import Infeasible
from ...ir.access import contract_axes
from ...ir.graph import Contract
from ...machines.cgla.description import CglaMachine
from ...machines.cgla.timing import exec_cycles
from .digits import Radix
from .gemm import CHAINS, FORMS, INPUTS, OUTPUTS, GemmKernel, Geometry, max_groups

MAX_SET_BITS = 12
NEAR = 1.04
"""Plans this close to the cheapest count as equal: the estimate is no better, and fewer launches are simpler."""


@dataclass(frozen=True)
class Roles:
    """Axes of a Contract seen from the array: `weights` and `inputs` are operand numbers (0 or 1)."""

    weights: int
    inputs: int
    batch: tuple[int, ...]
    m: tuple[int, ...]
    n: tuple[int, ...]
    k: tuple[int, ...]


def roles_of(node: Contract, constant: tuple[bool, bool]) -> Roles:
    """Which operand stays: a constant one, else the one that walks the innermost axis of the result (results are then row-major)."""
    axes = contract_axes(node)
    if constant[0] != constant[1]:
        first = constant[0]
    else:
        kept = [a for group in node.groups for a in group if a not in axes.batch]
        first = bool(kept) and kept[-1] in axes.m
    if first:
        return Roles(0, 1, axes.batch, axes.m, axes.n, axes.k)
    return Roles(1, 0, axes.batch, axes.n, axes.m, axes.k)


@dataclass(frozen=True)
class Plan:
    """Tiles of one contraction on all lanes.

    `column_tiles` x `output_tiles` launches a batch element; `weights_outer`: the column tiles run inside an output tile.
    """

    geometry: Geometry
    batch: int
    m: int
    n: int
    k: int
    column_tiles: int
    output_tiles: int
    weights_outer: bool
    cycles: int

    @property
    def launches(self) -> int:
        """Launches on all lanes."""
        return self.batch * self.column_tiles * self.output_tiles

    def shares(self, lanes: int) -> list[list[tuple[int, int, int]]]:
        """(batch, column tile, output tile) of the launches of every lane, in order: whole batch elements where there are enough of
        them, else parts of the outputs, else consecutive launches."""
        tiles = [(c, o) for c in range(self.column_tiles) for o in range(self.output_tiles)]
        if self.weights_outer:
            tiles.sort(key=lambda tile: (tile[1], tile[0]))
        jobs = [(b, c, o) for b in range(self.batch) for c, o in tiles]
        if self.batch >= lanes or self.output_tiles < lanes:
            edges = [len(jobs) * n // lanes for n in range(lanes + 1)]
            return [jobs[low:high] for low, high in pairwise(edges)]
        edges = [self.output_tiles * n // lanes for n in range(lanes + 1)]
        return [[job for job in jobs if low <= job[2] < high] for low, high in pairwise(edges)]

    @property
    def padded_k(self) -> int:
        g = self.geometry
        return g.kernel.groups * g.steps * INPUTS

    @property
    def padded_m(self) -> int:
        return self.output_tiles * self.geometry.outputs

    @property
    def padded_n(self) -> int:
        return self.column_tiles * self.geometry.width

    @property
    def weight_items(self) -> int:
        """Items of all weight tiles of one batch element (forms without blocks)."""
        return self.padded_k * self.padded_m

    @property
    def input_items(self) -> int:
        return self.padded_k * self.padded_n

    @property
    def result_items(self) -> int:
        return self.padded_m * self.padded_n

    def weight_layout(self) -> tuple[Radix, Radix]:
        """Digits of K and of M in [M tile][K / 4][2^b][4][2]."""
        sets = 1 << self.geometry.kernel.set_bits
        block = INPUTS * OUTPUTS
        return Radix((INPUTS,), (OUTPUTS, sets * block)), Radix((OUTPUTS, sets), (1, block, self.padded_k // INPUTS * sets * block))

    def input_layout(self) -> tuple[Radix, Radix]:
        """Digits of K and of N in [N tile][G][2][T][N][2]."""
        g = self.geometry
        part = g.steps * g.width * 2
        columns = Radix((g.width,), (2, self.padded_k * g.width))
        if g.kernel.rule.groups:
            return Radix((2, 2, g.kernel.groups), (1, part, 2 * part, g.width * 2)), columns
        return Radix((2, 2, g.steps), (1, part, g.width * 2, 2 * part)), columns

    def result_layout(self) -> tuple[Radix, Radix]:
        """Digits of M and of N in [N tile][M tile][N][M]."""
        g = self.geometry
        tile = g.width * g.outputs
        return Radix((g.outputs,), (1, tile)), Radix((g.width,), (g.outputs, self.output_tiles * tile))


def plan_contract(machine: CglaMachine, form: str, batch: int, m: int, n: int, k: int, fetched: bool, where: str) -> Plan:
    """The plan for weights in `form`; with `fetched` the first weights are there before the first launch.

    It is the legal plan with the fewest launches among those within 4 % of the cheapest. Raises Infeasible where not even the smallest
    tile fits a row's local memory.
    """
    blocks = -(-k // INPUTS)
    most = max_groups(form, machine.rows)
    if not most:
        need = GemmKernel(form, FORMS[form].groups or 1, 1, machine.rows).store_row + 1
        raise Infeasible("rows of a lane", need, machine.rows, "rows", where, ["a machine with more rows", "precision fp16"])
    steps = -(-blocks // most)
    groups = FORMS[form].groups or -(-blocks // steps)
    half = machine.lmm_bytes // 2
    found: list[Plan] = []
    for bits in range(3 if FORMS[form].tail else 1, MAX_SET_BITS + 1):
        kernel = GemmKernel(form, groups, bits, machine.rows)
        if (steps << bits) * kernel.set_bytes > half:
            break
        found += _column_plans(machine, kernel, steps, (batch, m, n, k), fetched)
        if found and (OUTPUTS << bits) >= m * 2:
            break
    if not found:
        levers = ["a larger local memory (lmm_bytes)", "a smaller inner dimension"]
        need = max(steps * 2 * GemmKernel(form, groups, 1, machine.rows).set_bytes, steps * CHAINS * 8)
        raise Infeasible("local memory of a row", need, half, "bytes", where, levers)
    best = min(plan.cycles for plan in found)
    near = [plan for plan in found if plan.cycles <= best * NEAR]
    return min(near, key=lambda plan: (plan.launches, plan.cycles, plan.result_items))


Sizes = tuple[int, int, int, int]
IMPERFECT = Fraction(1, 10)
"""Share of the shorter of EXEC and DMA that does not overlap, as an allowance."""


def _column_plans(machine: CglaMachine, kernel: GemmKernel, steps: int, sizes: Sizes, fetched: bool) -> list[Plan]:
    """Plans with the fewest column tiles that fit, with activations in two places and in one."""
    _, m, n, _ = sizes
    groups_total = -(-n // CHAINS)
    sets = 1 << kernel.set_bits
    half = machine.lmm_bytes // 2
    result_limit = half // (CHAINS * OUTPUTS * 4 * sets)
    plans = []
    for single in (False, True):
        limit = min(result_limit, (machine.lmm_bytes if single else half) // (steps * CHAINS * 8))
        if limit < 1:
            continue
        columns = -(-groups_total // -(-groups_total // limit))
        geometry = Geometry(kernel, steps, columns, machine.lmm_bytes, single)
        tiles = (-(-groups_total // columns), -(-m // (OUTPUTS * sets)))
        plans += [_timed(machine, geometry, sizes, tiles, outer, fetched) for outer in (False, True)]
    return plans


def _timed(machine: CglaMachine, geometry: Geometry, sizes: Sizes, tiles: tuple[int, int], outer: bool, fetched: bool) -> Plan:
    """The plan with its estimated cycles on the busiest lane; `tiles` are column tiles and output tiles."""
    together = min(machine.lanes_per_memory, machine.lanes)
    beat = max(machine.beat_interval, machine.memory_interval * together) / 32
    batch, m, n, k = sizes
    column_tiles, output_tiles = tiles
    if batch >= machine.lanes or output_tiles < machine.lanes:
        busiest = -(-batch * column_tiles * output_tiles // machine.lanes)
    else:
        busiest = batch * column_tiles * -(-output_tiles // machine.lanes)
    execute = machine.t_launch + exec_cycles(geometry.iterations, [(geometry.kernel.store_row, False)])
    moved = (geometry.weight_bytes, geometry.input_bytes, geometry.result_bytes)
    weights, inputs, results = (machine.t_dma + int(size * beat) for size in moved)
    places = 1 if geometry.single_input else 2
    weight_share = Fraction(1, column_tiles) if outer or output_tiles <= 2 else Fraction(1)
    input_share = Fraction(1, output_tiles) if not outer or column_tiles <= places else Fraction(1)
    overlapped = weights * weight_share + results + (0 if geometry.single_input else inputs * input_share)
    alone = inputs * input_share if geometry.single_input else Fraction(0)
    slower, faster = max(Fraction(execute), overlapped), min(Fraction(execute), overlapped)
    cycles = busiest * (slower + faster * IMPERFECT + alone) + inputs + results + (0 if fetched else weights)
    return Plan(geometry, batch, m, n, k, column_tiles, output_tiles, outer, int(cycles))
