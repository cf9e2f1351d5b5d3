"""Bring a value to the cores of a nest that need it in another cut.

Along every mesh axis in which the value's blocks are not what the nest reads, the blocks are brought together on each line: zeros, this
core's part stored into them, and a line reduction that adds the parts. What is brought together is either the whole dimension or only
the *window* of it that the nest reads on that line; dimensions that every core holds whole are narrowed to their windows as well. Where
the window differs from core to core of the line (the nest is cut along the same mesh axis), the lines do it block by block, and each
core keeps its own block: an exchange that needs memory for two blocks only.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from math import prod
from typing import Any

from ...ir.graph import Access, Index
from ...machines.wafer.isa import WORDS, Element
from .layout import Shards, Splits, Value, X, Y, clashes
from .lines import line_cycles

_MOST_BLOCKS = 64
"""An exchange in more blocks than this is not considered."""


@dataclass(frozen=True, slots=True)
class Window:
    """Positions [first + per[0]*y + per[1]*x, + width) of a dimension."""

    first: int
    width: int
    per: tuple[int, int]


@dataclass(frozen=True)
class Step:
    """Bring the blocks along mesh axis `m` together in `blocks` rounds; `windows` narrows dimensions (None: as the value has them).
    `last` says that nothing is brought together along the other mesh axis afterwards, so that only lines of the nest need the result."""

    m: int
    windows: tuple[Window | None, ...]
    blocks: int
    last: bool

    @property
    def full(self) -> bool:
        """Whether the result is the plain value, whole along `m`."""
        return all(w is None for w in self.windows)


@dataclass(frozen=True)
class Plan:
    """The steps of a relayout, the most words that its copies take at a time, and its price in cycles."""

    value: Value
    steps: tuple[Step, ...]
    words: int
    cycles: float


def window_of(dim: int, access: Access, axes: Sequence[int], splits: Splits, cut: tuple[bool, bool]) -> Window | None:
    """What a nest reads of a dimension; `cut` says for which mesh axes the position of the core is taken into account."""
    entry = access[dim]
    if not isinstance(entry, Index):
        return None
    low = high = entry.offset
    per = [0, 0]
    for axis, coefficient in entry.terms:
        extent = axes[axis]
        for m, split in enumerate(splits):
            if split is not None and split.axis == axis:
                if cut[m]:
                    extent = split.tile
                    per[m] = coefficient * split.tile
                else:
                    extent = max(extent, split.tile * split.count)
        reach = coefficient * (extent - 1)
        low, high = low + min(reach, 0), high + max(reach, 0)
    return Window(low, high - low + 1, (per[0], per[1]))


def after(value: Value, step: Step) -> Value:
    """How the value lies after a step (its object is not known yet)."""
    shard = value.shards[step.m]
    assert shard is not None
    local = list(value.local)
    shift = list(value.offsets)
    local[shard.dim] = shard.tile * shard.count
    for d, window in enumerate(step.windows):
        if window is not None:
            local[d] = window.width
            shift[d] = (window.first, *window.per)
    shards: Shards = (None, value.shards[X]) if step.m == Y else (value.shards[Y], None)
    return replace(value, shards=shards, obj=-1, local=tuple(local), shift=tuple(shift) if any(map(any, shift)) else ())


def plans(
    value: Value, access: Access, axes: Sequence[int], splits: Splits, size: tuple[int, int], lookups: Sequence[int] = ()
) -> list[Plan]:
    """Ways to bring `value` to a nest, cheapest first, each with fewer words than those before it. Mesh axes in `lookups` are left alone.
    `size` is (rows, columns)."""
    form = (value.shape, value.fmt, value.shards, value.local, value.shift)
    return [Plan(value, *way) for way in _ways(form, access, tuple(axes), splits, size, tuple(lookups))]


Way = tuple[tuple[Step, ...], int, float]
"""Steps, words and cycles of a plan."""


@lru_cache(maxsize=1 << 16)
def _ways(
    form: tuple[Any, ...], access: Access, axes: tuple[int, ...], splits: Splits, size: tuple[int, int], lookups: tuple[int, ...]
) -> tuple[Way, ...]:
    """The plans for a value of this form."""
    shape, fmt, shards, local, shift = form
    need = [m for m in clashes(Value(shape, fmt, shards, -1, local, shift), access, axes, splits) if m not in lookups]
    if not need:
        return (((), 0, 0.0),)
    tables: dict[tuple[bool, bool], list[Window | None]] = {}
    for cut in ((False, False), (False, True), (True, False), (True, True)):
        tables[cut] = [window_of(d, access, axes, splits, cut) for d in range(len(local))]
    moved = frozenset(d for d, offset in enumerate(shift) if any(offset))
    found: list[Way] = []
    for order in [need] if len(need) == 1 else [need, need[::-1]]:
        found += _plans(_Form(fmt, shards, local, moved), order, tables, splits, size, ((), 0, 0.0))
    kept: list[Way] = []
    for way in sorted(found, key=lambda w: w[2]):
        if not kept or way[1] < kept[-1][1]:
            kept.append(way)
    return tuple(kept)


def cheapest(found: Sequence[Plan], room: int) -> Plan | None:
    """The plan of fewest cycles whose copies take at most `room` words."""
    return min((p for p in found if p.words <= room), key=lambda p: p.cycles, default=None)


@dataclass(frozen=True, slots=True)
class _Form:
    """What planning sees of a value: its format, shards, extents on a core, and the dimensions that start elsewhere than at 0."""

    fmt: Element
    shards: Shards
    local: tuple[int, ...]
    moved: frozenset[int]


def _plans(
    value: _Form, order: Sequence[int], tables: Mapping[tuple[bool, bool], Sequence[Window | None]], splits: Splits,
    size: tuple[int, int], before: Way,
) -> Iterator[Way]:  # fmt: skip
    """`before` continued along the mesh axes of `order`, in every way; `tables` holds what the nest reads of each dimension, by whether
    the position of the core along each mesh axis counts."""
    m, last = order[0], len(order) == 1
    shard = value.shards[m]
    assert shard is not None
    steps, words, cycles = before
    shards: Shards = (None, value.shards[X]) if m == Y else (value.shards[Y], None)
    old = prod(value.local)
    for windows, blocks in _steps(value, m, tables, splits, last):
        local = list(value.local)
        local[shard.dim] = shard.tile * shard.count
        for d, window in enumerate(windows):
            if window is not None:
                local[d] = window.width
        block = prod(local)
        indexed = windows[shard.dim] is not None
        each = block / 4 + old * (1.5 if indexed else 0.25) + line_cycles(block, value.fmt, shard.count, size[m])
        if blocks > 1:
            each += block / 4
        held = (block * (2 if blocks > 1 else 1) + (old if steps else 0)) * WORDS[value.fmt]
        way: Way = ((*steps, Step(m, windows, blocks, last)), max(words, held), cycles + each * blocks)
        if last:
            yield way
            continue
        moved = value.moved | {d for d, w in enumerate(windows) if w is not None and (w.first or any(w.per))}
        yield from _plans(_Form(value.fmt, shards, tuple(local), moved), order[1:], tables, splits, size, way)


def _steps(
    value: _Form, m: int, tables: Mapping[tuple[bool, bool], Sequence[Window | None]], splits: Splits, last: bool
) -> Iterator[tuple[tuple[Window | None, ...], int]]:
    """Windows and rounds: whole; narrowed to what a line needs; narrowed to what each core needs. Positions along the other mesh axis
    count only if nothing is brought together along it later."""
    none = (None,) * len(value.local)
    yield none, 1
    seen: set[tuple[Window | None, ...]] = {none}
    split, shard, other = splits[m], value.shards[m], value.shards[1 - m]
    assert shard is not None
    for own in (False, True) if split is not None else (False,):
        found: list[Window | None] = []
        for d, window in enumerate(tables[(own, last) if m == Y else (last, own)]):
            whole = shard.tile * shard.count if d == shard.dim else value.local[d]
            fixed = (other is not None and other.dim == d) or d in value.moved
            found.append(window if window is not None and not fixed and window.width < whole else None)
        windows = tuple(found)
        blocks = split.count if split is not None and any(w is not None and w.per[m] for w in windows) else 1
        if windows not in seen and blocks <= _MOST_BLOCKS:
            seen.add(windows)
            yield windows, blocks
