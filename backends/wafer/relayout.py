"""Bring a value to the cores of a nest that need it in another cut.

Along every mesh axis in which the value's blocks are not what the nest reads, the blocks are brought together on each line: zeros, this
core's part stored into them, and a line reduction that adds the parts. What is brought together is either the whole dimension or only
the *window* of it that the nest reads on that line; dimensions that every core holds whole are narrowed to their windows as well. Where
the window differs from core to core of the line (the nest is cut along the same mesh axis), the lines do it block by block, and each
core keeps its own block: an exchange that needs memory for two blocks only.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

from ...ir.graph import Access, Index
from ...machines.wafer.isa import WORDS
from .layout import Shards, Splits, Value, X, Y, clashes
from .lines import line_cycles

_MOST_BLOCKS = 64
"""An exchange in more blocks than this is not considered."""


@dataclass(frozen=True)
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


@lru_cache(maxsize=1 << 16)
def _ways(
    form: tuple[Any, ...], access: Access, axes: tuple[int, ...], splits: Splits, size: tuple[int, int], lookups: tuple[int, ...]
) -> tuple[tuple[tuple[Step, ...], int, float], ...]:
    """Steps, words and cycles of the plans for a value of this form."""
    shape, fmt, shards, local, shift = form
    value = Value(shape, fmt, shards, -1, local, shift)
    need = [m for m in clashes(value, access, axes, splits) if m not in lookups]
    if not need:
        return (((), 0, 0.0),)
    found = []
    for order in [need] if len(need) == 1 else [need, need[::-1]]:
        found += list(_plans(value, order, access, axes, splits, size, (), 0, 0.0))
    kept: list[tuple[tuple[Step, ...], int, float]] = []
    for way in sorted(found, key=lambda w: w[2]):
        if not kept or way[1] < kept[-1][1]:
            kept.append(way)
    return tuple(kept)


def cheapest(found: Sequence[Plan], room: int) -> Plan | None:
    """The plan of fewest cycles whose copies take at most `room` words."""
    return min((p for p in found if p.words <= room), key=lambda p: p.cycles, default=None)


def _plans(
    value: Value, order: Sequence[int], access: Access, axes: Sequence[int], splits: Splits, size: tuple[int, int],
    steps: tuple[Step, ...], words: int, cycles: float,
) -> Iterator[tuple[tuple[Step, ...], int, float]]:  # fmt: skip
    if not order:
        yield steps, words, cycles
        return
    m = order[0]
    for step in _steps(value, m, access, axes, splits, len(order) == 1):
        made = after(value, step)
        block = made.size
        shard = value.shards[m]
        assert shard is not None
        indexed = step.windows[shard.dim] is not None
        each = block / 4 + value.size * (1.5 if indexed else 0.25) + line_cycles(block, value.fmt, shard.count, size[m])
        if step.blocks > 1:
            each += block / 4
        held = (block * (2 if step.blocks > 1 else 1) + (value.size if steps else 0)) * WORDS[value.fmt]
        total = cycles + each * step.blocks
        yield from _plans(made, order[1:], access, axes, splits, size, (*steps, step), max(words, held), total)


def _steps(value: Value, m: int, access: Access, axes: Sequence[int], splits: Splits, last: bool) -> Iterator[Step]:
    """Whole; narrowed to what a line needs; narrowed to what each core needs."""
    rank = len(value.local)
    yield Step(m, (None,) * rank, 1, last)
    seen: set[tuple[Window | None, ...]] = {(None,) * rank}
    split = splits[m]
    for own in (False, True) if split is not None else (False,):
        windows = _windows(value, m, access, axes, splits, own, last)
        blocks = split.count if split is not None and any(w is not None and w.per[m] for w in windows) else 1
        if windows not in seen and blocks <= _MOST_BLOCKS:
            seen.add(windows)
            yield Step(m, windows, blocks, last)


def _windows(value: Value, m: int, access: Access, axes: Sequence[int], splits: Splits, own: bool, last: bool) -> tuple[Window | None, ...]:
    """The window of every dimension; positions along the other mesh axis count only if nothing is brought together along it later."""
    shard, other = value.shards[m], value.shards[1 - m]
    assert shard is not None
    cut = (own if m == Y else last, own if m == X else last)
    found: list[Window | None] = []
    for d in range(len(value.local)):
        whole = shard.tile * shard.count if d == shard.dim else value.local[d]
        window = window_of(d, access, axes, splits, cut)
        fixed = (other is not None and other.dim == d) or any(value.offsets[d])
        found.append(window if window is not None and not fixed and window.width < whole else None)
    return tuple(found)
