"""Lane moves: any rearrangement of elements, exactly, through the matrix planes in int8 mode.

out[m, n] = sum_k A[m, k] W[n, k] moves bytes when one operand is a selection. Two forms, chosen by cost:

- *selection*: W selects lanes (a constant 0/1 matrix), A are source vectors: vector m of the result takes its lanes from one source vector,
  all vectors with the same lane pattern share one W;
- *unit vectors*: W are source vectors, A are unit vectors e_k: vector m of the result takes lane k of source vector n into lane n, which
  transposes and broadcasts.

Rows all of whose elements lie in their lanes already need neither: the vector unit puts them together by masks (`_merged`).

A result vector that needs several sources is summed in the accumulator, since every byte comes from exactly one of them. Each byte plane is
moved on its own, two planes at a time on the two matrix planes of the West hemisphere, and a cast to int8 gives the byte back: products
with 0 and 1 of signed bytes are exact.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from ...machines.tsp.isa import WIDTH, DType, Opcode
from .engine import MatrixJob, Pass, Plane, Provider, Sink, fixed, onto
from .memory import LANES, STRIPES, Seq, Storage, plane_seq
from .recipes import Recipe, Ref
from .route import ChainOp
from .values import Copy, Value

if TYPE_CHECKING:
    from .lower import Lowering

Array = np.ndarray
MERGE = 200
"""Cycles that putting rows together by masks costs beside one for every vector that takes part."""
MERGED = 8
"""Most vectors that a row is put together from by masks."""
SIDE = 0
"""Byte moves run on the West planes, contractions in f16 on the East pair: no plane ever changes its number type (MX-11)."""


@dataclass(frozen=True)
class Pairs:
    """Result vector `row[p]` takes moving vector `moving[p]` through `patterns[pattern[p]]`, a map of 320 lanes in which -1 is nothing."""

    row: Array
    moving: Array
    pattern: Array
    patterns: Array

    @property
    def vectors(self) -> int:
        return len(self.row)


def move(lowering: Lowering, value: Value, need: Array, clean: bool = False) -> Copy:
    """A new copy of `value` with exactly the vectors `need` [vectors, 320]; `clean`: its open lanes hold zero.

    Array rows that a tile does not load keep what an earlier tile left there, so clean results load all 320.
    """
    return Copy(need, _taken(lowering, _sources(value, need), clean), (), _replicated(need), clean)


def move_cost(value: Value, need: Array) -> float:
    """Estimated cycles a pair of byte planes of `move`."""
    return _cheapest(_sources(value, need), True).cost


def _sources(value: Value, need: Array) -> list[_Source]:
    """The copies that hold all of `need`."""
    sources = []
    for copy in value.copies:
        vector, lane = copy.origin(value.size)
        valid = need >= 0
        at = np.where(valid, vector[need], -1)
        if not (at[valid] < 0).any():
            sources.append(_Source(copy.seq, at, np.where(valid, lane[need], -1), copy.replicated))
    assert sources, "no copy holds all elements"
    return sources


def move_pool(lowering: Lowering, seq: Seq, vector: Array, lane: Array) -> Seq:
    """Fresh vectors of which number m holds, in lane n, lane `lane[m, n]` of element `vector[m, n]` of `seq` (anything where -1)."""
    return _taken(lowering, [_Source(seq, vector, lane)], False)


@dataclass(frozen=True, eq=False)
class _Source:
    """Lane n of row m is taken from lane `lane[m, n]` of element `vector[m, n]` of `seq`; `everywhere`: the lanes of a vector are equal."""

    seq: Seq
    vector: Array
    lane: Array
    everywhere: bool = False

    def placed(self) -> Array:
        """Rows whose elements are in their lanes already, in not more than MERGED vectors."""
        open_ = self.vector < 0
        found: Array = ((self.lane == np.arange(LANES)) | open_ | self.everywhere).all(axis=1) & ~open_.all(axis=1)
        rows = np.flatnonzero(found)
        found[rows[_distinct(self.vector[rows]) > MERGED]] = False
        return found


def _taken(lowering: Lowering, sources: Sequence[_Source], clean: bool, stages: bool = True) -> Seq:
    """The rows of one of the sources: those whose lanes are in place put together by masks, the others moved in the cheapest way."""
    plan = _cheapest(sources, stages)
    source, rows = sources[plan.source], len(plan.placed)
    if plan.option is not None and not plan.placed.any():
        return _carry_out(lowering, source.seq, plan.option, rows, clean)
    order = np.empty(rows, dtype=np.int64)
    parts = _merged(lowering, source.seq, source.vector, np.flatnonzero(plan.placed), clean)
    if plan.option is not None:
        rest = np.flatnonzero(~plan.placed)
        parts.append((rest, _carry_out(lowering, source.seq, plan.option, len(rest), clean)))
    order[np.concatenate([index for index, _ in parts])] = np.arange(rows)
    return Seq.join([seq for _, seq in parts]).take(order)


def _merged(lowering: Lowering, seq: Seq, vector: Array, rows: Array, clean: bool) -> list[tuple[Array, Seq]]:
    """(row numbers, their vectors) for rows whose elements are in their lanes, by the number of vectors that a row comes from.

    A row from one vector is that vector itself, unless open lanes must be zero.
    """
    parts = []
    for count in range(1, MERGED + 1):
        index = rows[_distinct(vector[rows]) == count]
        if not len(index):
            continue
        some = vector[index]
        top = some.max(axis=1)
        if count == 1 and not (clean and (some < 0).any()):
            parts.append((index, seq.take(top)))
            continue
        providers: dict[Ref, Provider] = {}
        recipe = Recipe(())
        result: Ref | None = None
        for k in range(count):
            kept, held = Ref("mask", DType.I8, k), Ref("arg", seq.dtype, k)
            providers |= {held: lowering.engine.provide(seq.take(top)), kept: lowering.mask(some == top[:, None], DType.I8)}
            chosen = recipe.op(Opcode.SELECT, held, kept, dtype2=DType.I8)
            result = chosen if result is None else recipe.op(Opcode.OR, result, chosen)
            top = np.where(some < top[:, None], some, -1).max(axis=1)
        assert result is not None
        parts.append((index, lowering.run_prims("merge", recipe.prims, result, providers.__getitem__, len(index), seq.dtype)))
    return parts


@dataclass(frozen=True)
class _Option:
    """One way to rearrange: pairs, whether they are unit vectors, and for two stages what the second stage does with the first's result."""

    cost: float
    pairs: Pairs
    is_unit: bool
    then: tuple[Array, Array] | None = None


@dataclass(frozen=True, eq=False)
class _Plan:
    """How to take rows: from which source, which of them are in place, how the others are moved, and the cost of it all."""

    cost: float
    source: int
    placed: Array
    option: _Option | None


def _cheapest(sources: Sequence[_Source], stages: bool) -> _Plan:
    """The cheapest source and way; rows in place are put together by masks, or moved with the others where that costs less.

    Ways are tried in the order of an estimate of their vectors, until no estimate is below the best cost.
    """
    tries: list[tuple[float, int, int, bool]] = []
    kinds: list[tuple[Array, float]] = []
    for k, source in enumerate(sources):
        placed = source.placed()
        merging = MERGE * len(np.unique(counts := _distinct(source.vector[placed]))) + int(counts.sum())
        if placed.all():
            return _Plan(merging, k, placed, None)
        for some, cost in ((placed, float(merging)), (np.zeros_like(placed), 0.0))[not placed.any() :]:
            tries += [(cost + _estimate(moving[~some]), len(kinds), k, moving is source.lane) for moving in (source.vector, source.lane)]
            kinds.append((some, cost))
    best: _Plan | None = None
    for estimate, kind, k, is_unit in sorted(tries):
        if best is not None and estimate >= best.cost:
            break
        placed, cost = kinds[kind]
        vector, lane = sources[k].vector[~placed], sources[k].lane[~placed]
        pairs = _pairs(lane, vector, LANES) if is_unit else _pairs(vector, lane, len(sources[k].seq))
        options = [_Option(pairs.vectors + (360 if is_unit else 60) * len(pairs.patterns), pairs, is_unit)]
        if stages and not is_unit and len(pairs.patterns) > 48:
            options.append(_two_stages(pairs, vector.shape))
        for option in options:
            if best is None or cost + option.cost < best.cost:
                best = _Plan(cost + option.cost, k, placed, option)
    assert best is not None
    return best


def pool_cost(seq: Seq, vector: Array, lane: Array) -> float:
    """Estimated cycles a pair of byte planes of `move_pool`."""
    return _cheapest([_Source(seq, vector, lane)], True).cost


def _distinct(vector: Array) -> Array:
    """How many vectors (-1 is none) every row names."""
    sample = np.sort(vector, axis=1)
    found: Array = (np.diff(sample, axis=1) != 0).sum(axis=1) + (sample[:, 0] >= 0)
    return found


def _estimate(moving: Array) -> float:
    """Vectors that a move by these moving vectors would take, from a sample of rows."""
    return float(np.maximum(_distinct(moving[:: max(1, len(moving) // 24)]), 1).mean() * len(moving))


def move_cycles(vector: Array, lane: Array, scale: float, spots: tuple[int, int]) -> float:
    """Estimated cycles a pair of byte planes to take lane `lane[m, n]` of vector `vector[m, n]`, for `scale` times as many such vectors.

    `spots`: how many lanes, and how many vectors, the first elements of all the vectors come from. Patterns differ by these at most.
    """
    costs = []
    for moving, mapped, limit, price in ((vector, lane, spots[0], 60), (lane, vector, spots[1], 360)):
        pairs = _pairs(moving, mapped, int(moving.max()) + 1)
        patterns = min(len(pairs.patterns) * scale, limit * max(1.0, pairs.vectors / len(vector)))
        costs.append(pairs.vectors * scale + (price + LANES // 4) * max(patterns, 1.0))
    return min(costs) + 200


def _two_stages(pairs: Pairs, shape: tuple[int, ...]) -> _Option:
    """First every pair's lanes are packed to the front, then spread to where they belong: patterns add instead of multiplying."""
    from .lower import unique_rows

    maps = pairs.patterns[pairs.pattern]
    valid = maps >= 0
    rank = np.cumsum(valid, axis=1) - 1
    packed = np.full(maps.shape, -1, dtype=np.int32)
    at = np.nonzero(valid)
    packed[at[0], rank[at]] = maps[at]
    keyed, number = unique_rows(np.concatenate([pairs.moving[:, None].astype(np.int32), packed], axis=1))
    patterns, pattern = unique_rows(np.ascontiguousarray(keyed[:, 1:]))
    first = Pairs(np.arange(len(keyed)), keyed[:, 0].astype(np.int64), pattern, patterns)
    vector = np.full(shape, -1, dtype=np.int64)
    lane = np.full(shape, -1, dtype=np.int64)
    vector[pairs.row[at[0]], at[1]] = number[at[0]]
    lane[pairs.row[at[0]], at[1]] = rank[at]
    spread = len(unique_rows(np.where(valid, rank, -1).astype(np.int32))[0])
    return _Option(first.vectors + pairs.vectors + 60 * (len(patterns) + spread) + 300, first, False, (vector, lane))


def _carry_out(lowering: Lowering, seq: Seq, option: _Option, rows: int, clean: bool) -> Seq:
    if option.then is None:
        return _run(lowering, seq, option.pairs, option.is_unit, rows, clean or _accumulates(option.pairs), clean)
    packed = _run(lowering, seq, option.pairs, False, option.pairs.vectors, False, False)
    return _taken(lowering, [_Source(packed, *option.then)], clean, stages=False)


def _replicated(need: Array) -> bool:
    return bool((need == need[:, :1]).all())


def _accumulates(pairs: Pairs) -> bool:
    return len(np.unique(pairs.row)) != len(pairs.row)


def _pairs(moving: Array, mapped: Array, size: int) -> Pairs:
    """Group [vectors, 320] maps: for every vector and every distinct `moving` in it the pattern of `mapped`."""
    from .lower import unique_rows

    rows = len(moving)
    valid = moving >= 0
    top = moving.max(axis=1)
    if ((moving == top[:, None]) | ~valid).all():  # one source a vector
        kept = np.flatnonzero(top >= 0)
        patterns, number = unique_rows(mapped[kept].astype(np.int32))
        return Pairs(kept, top[kept], number, patterns)
    keys = np.where(valid, np.arange(rows)[:, None] * (size + 1) + moving, -1)
    unique = np.unique(keys)
    unique = unique[unique >= 0]
    row, source = unique // (size + 1), unique % (size + 1)
    maps = np.where(moving[row] == source[:, None], mapped[row], -1)
    patterns, number = unique_rows(maps.astype(np.int32))
    return Pairs(row, source, number, patterns)


def _run(lowering: Lowering, seq: Seq, pairs: Pairs, is_unit: bool, rows: int, zeros: bool, clean: bool) -> Seq:
    """Emit the passes for every byte plane; returns the storage of the result."""
    engine = lowering.engine
    width = WIDTH[seq.dtype]
    accumulate = _accumulates(pairs)
    reach = int(np.nonzero((pairs.patterns >= 0).any(axis=0))[0].max()) + 1
    tile = LANES if clean else -(-reach // STRIPES) * STRIPES
    even = bool((pairs.patterns == pairs.patterns[:, :1]).all())  # one vector in all array rows: a broadcast
    order, passes, used = _passes(pairs, tile, rows, accumulate, engine.machine.acc_depth)
    if even:
        passes = [replace(item, vector=item.vector // tile * STRIPES, same=True) for item in passes]
    if even and is_unit:
        stationary = stripe(lowering, seq.take(np.repeat(pairs.patterns[:, 0], STRIPES)), STRIPES)
        moving: Provider = lowering.table(np.eye(LANES, dtype=np.int8), DType.I8, pairs.moving[order])
    elif is_unit:
        stationary = _stationary_rows(lowering, seq, pairs, tile, zeros or accumulate)
        units = np.eye(LANES, dtype=np.int8)
        moving = lowering.table(units, DType.I8, pairs.moving[order])
    else:
        held = STRIPES if even else tile
        patterns = pairs.patterns[:, :held]

        def selection(_: Array | None, first: int, last: int) -> Array:
            some = patterns[first // held : last // held]
            made = np.zeros((len(some) * held, LANES), dtype=np.int8)
            at = np.nonzero(some >= 0)
            made[at[0] * held + at[1], some[at]] = 1
            return made

        key = (patterns.shape, patterns.tobytes())
        stationary = engine.constant(len(patterns) * held, DType.I8, frozenset(), key, selection, None, held)
        moving = engine.provide(seq.take(pairs.moving[order]))
    taken = frozenset(unit for storage in stationary for unit in storage.units)
    fed = moving(taken)
    moving = fixed(fed)
    target = engine.scratch(seq.dtype, rows, taken | fed.units)
    for first in range(0, width, 2):
        planes = range(first, min(first + 2, width))
        job = MatrixJob(
            SIDE, DType.I8, tuple(passes),
            tuple((stationary, p if is_unit else 0) for p in planes),
            tuple((moving, (0,) if is_unit else (p,)) for p in planes),
        )  # fmt: skip
        ops = [ChainOp(Opcode.CAST, DType.I32, (("in", q),), DType.I8) for q in range(len(planes))]
        sinks = [Sink(q, onto(plane_seq(target, p).take(used))) for q, p in enumerate(planes)]
        engine.run("move", [Plane(q, DType.I32) for q in range(len(planes))], ops, sinks, len(used), job=job)
    return target


def _passes(pairs: Pairs, tile: int, rows: int, accumulate: bool, depth: int) -> tuple[Array, list[Pass], Array]:
    """Order of the pairs, passes over it, and the result vector of every emission in order."""
    if not accumulate:
        order = np.lexsort((pairs.row, pairs.pattern))
        bounds = np.flatnonzero(np.diff(pairs.pattern[order], prepend=-1, append=len(pairs.patterns)))
        passes = [Pass(int(pairs.pattern[order[a]]) * tile, tile, int(a), int(b)) for a, b in itertools.pairwise(bounds)]
        return order, passes, pairs.row[order]
    block = pairs.row // depth
    order = np.lexsort((pairs.row, pairs.pattern, block))
    row, pattern, group = pairs.row[order], pairs.pattern[order], block[order]
    first = np.zeros(len(order), dtype=bool)
    last = np.zeros(len(order), dtype=bool)
    first[np.unique(row, return_index=True)[1]] = True
    last[len(order) - 1 - np.unique(row[::-1], return_index=True)[1]] = True
    cut = (np.diff(row) != 1) | (np.diff(pattern) != 0) | (np.diff(group) != 0) | (first[1:] != first[:-1]) | (last[1:] != last[:-1])
    starts = np.concatenate([[0], np.flatnonzero(cut) + 1, [len(order)]])
    passes = [
        Pass(int(pattern[a]) * tile, tile, int(a), int(b), int(row[a]) % depth, int(not first[a]), int(not last[a]), int(last[a]))
        for a, b in itertools.pairwise(starts)
    ]
    return order, passes, row[last]


def _stationary_rows(lowering: Lowering, seq: Seq, pairs: Pairs, tile: int, zeros: bool) -> tuple[Storage, ...]:
    """Source vectors striped over 16 slices in the order in which tiles load them; open rows are zero, or any vector."""
    wanted = pairs.patterns[:, :tile]
    if zeros:
        flat = wanted.reshape(-1)
        source = seq.take(np.maximum(flat, 0))
        if (flat < 0).any():
            empty = lowering.table(np.zeros((1, 1)), seq.dtype, np.zeros(1, dtype=np.int64))(frozenset())
            source = Seq.join([seq, empty]).take(np.where(flat >= 0, flat, len(seq)))
    else:
        filler = wanted.max(axis=1, keepdims=True)
        source = seq.take(np.where(wanted >= 0, wanted, filler).reshape(-1))
    return stripe(lowering, source, tile)


def stripe(lowering: Lowering, source: Seq, tile: int) -> tuple[Storage, ...]:
    """A copy of a sequence as stationary tiles."""
    engine = lowering.engine
    source = engine.provide(source)(frozenset())
    made = engine.scratch_striped(source.dtype, len(source), source.units, tile)
    engine.copy_into(source, Seq.chain(made))
    return made
