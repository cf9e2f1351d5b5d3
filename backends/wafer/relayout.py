"""Bring a value to the cores of a nest that need it in another cut.

Along every mesh axis in which the value's blocks are not what the nest reads, the value is made whole on each line: either all of it
(a copy that other nests can use as well) or only the window of the cut dimension that the nest reads there, which may differ from line
to line. Both are one program: zeros, this core's part stored into them, and a line reduction that adds the parts.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ...ir.graph import Access, Index
from ...machines.wafer.isa import WORDS
from .layout import Shard, Splits, Value, clashes
from .lines import line_cycles


@dataclass(frozen=True)
class Window:
    """What of the cut dimension a line needs: `width` positions from `first + per_line * (index of the line)`."""

    first: int
    width: int
    per_line: int


@dataclass(frozen=True)
class Step:
    """Make whole along mesh axis `m`; all of the dimension, or only a window of it."""

    m: int
    window: Window | None


@dataclass(frozen=True)
class Plan:
    """The steps of a relayout, the words of the largest copy, and its price in cycles."""

    value: Value
    steps: tuple[Step, ...]
    words: int
    cycles: float


def window_of(shard: Shard, m: int, access: Access, axes: Sequence[int], splits: Splits) -> Window | None:
    """The window of `shard.dim` that the nest reads on each line along `m`; None for a looked-up dimension."""
    entry = access[shard.dim]
    if not isinstance(entry, Index):
        return None
    low = high = entry.offset
    per_line = 0
    for axis, coefficient in entry.terms:
        extent = axes[axis]
        across = splits[1 - m]
        along = splits[m]
        if across is not None and across.axis == axis:
            extent = across.tile
            per_line = coefficient * across.tile
        elif along is not None and along.axis == axis:
            extent = max(extent, along.tile * along.count)
        reach = coefficient * (extent - 1)
        low, high = low + min(reach, 0), high + max(reach, 0)
    return Window(low, high - low + 1, per_line)


def plans(
    value: Value, access: Access, axes: Sequence[int], splits: Splits, size: tuple[int, int], lookups: Sequence[int] = ()
) -> list[Plan]:
    """Ways to bring `value` to a nest, cheapest first. Mesh axes in `lookups` are left alone. `size` is (rows, columns)."""
    need = [m for m in clashes(value, access, axes, splits) if m not in lookups]
    if not need:
        return [Plan(value, (), 0, 0.0)]
    orders = [need] if len(need) == 1 else [need, need[::-1]]
    found = []
    for order in orders:
        found.append(_plan(value, order, access, axes, splits, size, False))
        found.append(_plan(value, order, access, axes, splits, size, True))
    return sorted((p for p in found if p is not None), key=lambda p: p.cycles)


def _plan(
    value: Value, order: Sequence[int], access: Access, axes: Sequence[int], splits: Splits, size: tuple[int, int], windowed: bool
) -> Plan | None:
    elements = value.size
    steps: list[Step] = []
    words, cycles = 0, 0.0
    for number, m in enumerate(order):
        shard = value.shards[m]
        assert shard is not None
        window = window_of(shard, m, access, axes, splits) if windowed and number == len(order) - 1 else None
        whole = shard.tile * shard.count
        if windowed and number == len(order) - 1:
            if window is None or window.width >= whole:
                return None
            cycles += elements * 1.5
            elements = elements // shard.tile * window.width
        else:
            cycles += elements / 4
            elements *= shard.count
        cycles += elements / 4 + line_cycles(elements, value.fmt, shard.count, size[m])
        words = max(words, elements * WORDS[value.fmt])
        steps.append(Step(m, window))
    return Plan(value, tuple(steps), words, cycles)


def lines_across(value: Value, m: int, splits: Splits, size: tuple[int, int], window: Window | None) -> int:
    """How many lines along `m` take part: those that hold the value and, for a window, those that run the nest."""
    other = value.shards[1 - m]
    count = other.count if other is not None else size[1 - m]
    across = splits[1 - m]
    if window is not None and across is not None:
        count = min(count, across.count)
    return count


def window_local(value: Value, dim: int, width: int) -> tuple[int, ...]:
    """Local extents of a windowed copy."""
    return tuple(width if d == dim else n for d, n in enumerate(value.local))
