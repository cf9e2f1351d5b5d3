"""How a value lies on a rectangle of cores, and how a loop nest is cut over it.

A rectangle has two mesh axes: 0 is Y (rows), 1 is X (columns). A value is cut along at most one of its dimensions per mesh axis into
equal blocks (`Shard`); along a mesh axis without a shard every core holds the same copy. A loop nest is cut in the same way (`Split`):
an axis of its iteration space is dealt out in blocks, the rest is walked by every core. A value that is whole along a mesh axis can be
read by any split of it (each core walks from its own offset), so slicing costs nothing; only un-sharding needs the fabric.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod

from ...ir.graph import Access, Index
from ...machines.wafer.isa import Element

Y, X = 0, 1


@dataclass(frozen=True, slots=True)
class Shard:
    """Dimension `dim` of a value in `count` blocks of `tile` elements (the last may be padding in part)."""

    dim: int
    tile: int
    count: int


@dataclass(frozen=True, slots=True)
class Split:
    """Axis `axis` of a nest in `count` blocks of `tile` points along one mesh axis."""

    axis: int
    tile: int
    count: int


Shards = tuple[Shard | None, Shard | None]
Splits = tuple[Split | None, Split | None]
WHOLE: Shards = (None, None)


@dataclass(frozen=True)
class Choice:
    """A priced cut."""

    cycles: float
    splits: Splits
    keep: Splits = (None, None)
    """Contract: what each core of a line stores of a result that the line has in full."""
    chunk: tuple[int, int] | None = None
    """Contract: an axis, and how much of it to do at a time, where operands do not fit otherwise."""


@dataclass(frozen=True)
class Value:
    """A tensor on the machine: logical shape, element format, shards, object id, and the local extents of one core's block.

    `local` may exceed the logical extents (padding); elements of the block are row-major over `local`. A copy made for one nest may hold
    windows: `shift` gives per dimension the position of its first element, constant and per row and column of the rectangle.
    """

    shape: tuple[int, ...]
    fmt: Element
    shards: Shards
    obj: int
    local: tuple[int, ...]
    shift: tuple[tuple[int, int, int], ...] = ()

    @property
    def offsets(self) -> tuple[tuple[int, int, int], ...]:
        """`shift`, zeros where there is none."""
        return self.shift or ((0, 0, 0),) * len(self.local)

    @property
    def strides(self) -> tuple[int, ...]:
        """Element stride of each dimension inside a block."""
        return row_major(self.local)

    @property
    def size(self) -> int:
        """Elements of one core's block."""
        return prod(self.local)


def row_major(shape: Sequence[int]) -> tuple[int, ...]:
    """Element strides of a dense array."""
    strides = [1] * len(shape)
    for d in range(len(shape) - 2, -1, -1):
        strides[d] = strides[d + 1] * shape[d + 1]
    return tuple(strides)


def local_shape(shape: Sequence[int], shards: Shards) -> tuple[int, ...]:
    """Extents of one block."""
    local = list(shape)
    for shard in shards:
        if shard is not None:
            local[shard.dim] = shard.tile
    return tuple(local)


@dataclass(frozen=True)
class Ref:
    """Where a nest finds an operand in a core's memory: object, first element, element stride of every axis of the nest, and the
    elements by which row y and column x move it (`per_row`, `per_col`)."""

    obj: int
    fmt: Element
    base: int
    strides: tuple[int, ...]
    per_row: int = 0
    per_col: int = 0

    def moved(self, elements: int) -> Ref:
        """The same walk from another first element."""
        return Ref(self.obj, self.fmt, self.base + elements, self.strides, self.per_row, self.per_col)

    def walk(self, strides: Sequence[int]) -> Ref:
        """The same place with other strides."""
        return Ref(self.obj, self.fmt, self.base, tuple(strides), self.per_row, self.per_col)


def matches(shard: Shard, access: Access, axes: Sequence[int], split: Split | None) -> bool:
    """Whether the blocks of `shard` are exactly what the cores of `split` read through `access` (mixed radix: the split axis walks whole
    blocks and everything else stays inside one block)."""
    entry = access[shard.dim]
    if split is None or not isinstance(entry, Index) or split.count != shard.count:
        return False
    coefficient = dict(entry.terms).get(split.axis, 0)
    if coefficient <= 0 or coefficient * split.tile != shard.tile:
        return False
    rest = Index(entry.offset, tuple(t for t in entry.terms if t[0] != split.axis))
    low, high = rest.bounds(axes)
    return low >= 0 and high < coefficient


def clashes(value: Value, access: Access, axes: Sequence[int], splits: Splits) -> tuple[int, ...]:
    """Mesh axes along which the value must be made whole before this nest can read it."""
    found = []
    for m in (Y, X):
        shard = value.shards[m]
        if shard is not None and not matches(shard, access, axes, splits[m]):
            found.append(m)
    return tuple(found)


def reference(value: Value, access: Access, axes: Sequence[int], splits: Splits) -> Ref:
    """Where the cores of `splits` read `value` through `access`; the caller has removed all clashes. Lookups count as position 0."""
    base = 0
    strides = [0] * len(axes)
    per = [0, 0]
    for d, (entry, step) in enumerate(zip(access, value.strides, strict=True)):
        if not isinstance(entry, Index):
            continue
        first, per_row, per_col = value.offsets[d]
        base += (entry.offset - first) * step
        per[Y] -= per_row * step
        per[X] -= per_col * step
        for axis, coefficient in entry.terms:
            strides[axis] += coefficient * step
        for m in (Y, X):
            split, shard = splits[m], value.shards[m]
            if split is not None and not (shard is not None and shard.dim == d):
                per[m] += dict(entry.terms).get(split.axis, 0) * split.tile * step
    return Ref(value.obj, value.fmt, base, tuple(strides), per[0], per[1])


def local_axes(axes: Sequence[int], splits: Splits) -> tuple[int, ...]:
    """Extents of the nest on one core."""
    local = list(axes)
    for split in splits:
        if split is not None:
            local[split.axis] = split.tile
    return tuple(local)


def result_shards(groups: Sequence[tuple[int, ...]], axes: Sequence[int], splits: Splits) -> Shards | None:
    """Shards of the result of a nest cut by `splits`; reduced axes leave it whole. None where a split axis is not the outermost of its
    group, so that its blocks are not blocks of the result."""
    shards: list[Shard | None] = [None, None]
    for m, split in enumerate(splits):
        if split is None:
            continue
        for d, group in enumerate(groups):
            if split.axis in group:
                if group[0] != split.axis:
                    return None
                inner = prod(axes[a] for a in group[1:])
                shards[m] = Shard(d, split.tile * inner, split.count)
    return (shards[0], shards[1])
