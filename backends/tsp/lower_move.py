"""Move: an assembly of pieces. Vectors that already exist are taken as they are, the others are put together lane by lane.

There are two ways. All rows that are not whole vectors are moved at once from where the operands lie, in the arrangement of the result
that leaves the fewest of them; or every operand is brought into the lanes of the result's rows on its own, where its next reader finds it
again, and masks put the rows together. The second costs little where many assemblies take from the same operands.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ...ir.access import row_major
from ...ir.graph import Move
from ...machines.tsp.isa import NUMPY
from .lower import Lowering, digits, unique_rows
from .lower_map import Nesting
from .memory import LANES, Seq
from .move import MERGE, move_cost, move_pool, pool_cost
from .values import Copy, Value, arrange, row_major_strides

Array = np.ndarray


def ensure_copy(lowering: Lowering, value: Value) -> Copy:
    """A copy of a value that may be a constant without one: rows of its last dimension."""
    if not value.copies:
        value.copies.append(_stored(lowering, value, np.arange(value.size)))
    return value.copies[0]


def _stored(lowering: Lowering, value: Value, used: Array) -> Copy:
    """A copy of a value that holds the elements `used` (flat numbers): of a constant without one the rows with any of them."""
    if value.copies:
        return value.copies[0]
    assert value.array is not None
    width = value.shape[-1] if value.shape else 1
    starts = np.unique(used // width) * width if len(used) else np.zeros(1, dtype=np.int64)
    row = arrange(0, (), ((1, width),))
    element = np.where(row >= 0, starts[:, None, None] + row, -1).reshape(-1, LANES)
    return Copy(element, lowering.fetch(value, element)(frozenset()), ((1, width),), False, True)


@dataclass(frozen=True, eq=False)
class _Rows:
    """An arrangement of the result: `table` [vectors, 320] of its elements, and `vector` and `lane` of a pool that each comes from.

    -1 where lanes are open. `lanes` are the dimensions along lanes.
    """

    lanes: tuple[int, ...]
    table: Array
    pool: Seq
    vector: Array
    lane: Array

    def placed(self) -> Array:
        """Elements that are in their lanes already, and open lanes."""
        found: Array = (self.lane == np.arange(LANES)) | (self.table < 0)
        return found

    def whole(self) -> Array:
        """Rows that are one vector of the pool."""
        top = self.vector.max(axis=1, keepdims=True)
        found: Array = (self.placed() & ((self.vector == top) | (self.table < 0))).all(axis=1)
        return found

    def cost(self) -> float:
        """Estimated cycles a pair of byte planes to make it."""
        rest = ~self.whole()
        return pool_cost(self.pool, self.vector[rest], self.lane[rest]) if rest.any() else 0.0

    def made(self, lowering: Lowering) -> Seq:
        """Its vectors."""
        whole = self.whole()
        number: Array = self.vector.max(axis=1)
        if whole.all():
            return self.pool.take(number)
        made = move_pool(lowering, self.pool, self.vector[~whole], self.lane[~whole])
        number[~whole] = len(self.pool) + np.arange(len(made))
        return Seq.join([self.pool, made]).take(number)


def lower_move(lowering: Lowering, node: Move) -> Value:
    """An assembly in the cheaper of the two ways."""
    shape = node.shape or (1,)
    which, flat = _elements(lowering, node)
    values = [lowering.value(o) for o in node.operands]
    dtype = values[0].dtype
    filled = np.full((1, LANES), node.fill or 0, dtype=NUMPY[dtype])
    fill = lowering.table(filled, dtype, np.zeros(1, dtype=np.int64))(frozenset())
    rows = _from_pool(lowering, values, which, flat, shape, fill)
    cost = rows.cost()
    if cost > MERGE:
        last = next((d for d in reversed(range(len(shape))) if shape[d] > 1), len(shape) - 1)
        apart = _Apart(values, which, flat, shape, last)
        if apart.cost() < cost:
            rows = apart.rows(lowering, fill)
    strides = row_major_strides(shape)
    clean = not (rows.table < 0).any()
    return Value(node.shape, dtype, [Copy(rows.table, rows.made(lowering), digits(strides, shape, rows.lanes), False, clean)])


def _elements(lowering: Lowering, node: Move) -> tuple[Array, Array]:
    """Of every element of the result (flat) the operand that it comes from, -1 for the fill, and the flat element there."""
    shape = node.shape or (1,)
    which = np.full(shape, -1, dtype=np.int32)
    flat = np.full(shape, -1, dtype=np.int64)
    for piece in node.pieces:
        place = tuple(slice(c, c + (n - 1) * s + 1, s) for c, n, s in zip(piece.corner, piece.shape, piece.step, strict=True))
        which[place if node.shape else slice(None)] = piece.operand
        flat[place if node.shape else slice(None)] = _piece_elements(lowering, node, piece)
    return which.reshape(-1), flat.reshape(-1)


def _from_pool(lowering: Lowering, values: Sequence[Value], which: Array, flat: Array, shape: Sequence[int], fill: Seq) -> _Rows:
    """The arrangement that leaves the fewest elements out of place where the operands lie now."""
    copies = [_stored(lowering, value, flat[which == number]) for number, value in enumerate(values)]
    starts = np.cumsum([0] + [len(copy.seq) for copy in copies])
    pool = Seq.join([*(copy.seq for copy in copies), fill])
    vector = np.full(len(which), starts[-1], dtype=np.int64)
    lane = np.full(len(which), -1, dtype=np.int64)
    for number, (value, copy) in enumerate(zip(values, copies, strict=True)):
        row, at = copy.origin(value.size)
        mine = which == number
        vector[mine] = row[flat[mine]] + starts[number]
        lane[mine] = -1 if copy.replicated else at[flat[mine]]
    best: tuple[tuple[int, int, int], _Rows] | None = None
    for lanes in _lane_choices(shape):
        table = _table(shape, lanes)
        open_ = table < 0
        at = np.where(open_, -1, lane[table])
        at = np.where((at < 0) & ~open_, np.arange(LANES), at)  # fills and replicated vectors hold their value in every lane
        rows = _Rows(lanes, table, pool, np.where(open_, -1, vector[table]), at)
        score = (int((~rows.placed().all(axis=1)).sum()), int((~rows.whole()).sum()), len(table))
        if best is None or score < best[0]:
            best = (score, rows)
    assert best is not None
    return best[1]


class _Apart:
    """The result in rows of its dimension `last`, every operand in the lanes in which it is wanted there."""

    def __init__(self, values: Sequence[Value], which: Array, flat: Array, shape: Sequence[int], last: int) -> None:
        self.values, self.lanes, self.table = values, (last,), _table(shape, (last,))
        self.which = np.where(self.table >= 0, which[self.table], -1)
        self.needs: list[tuple[Array, Array]] = []
        """Of every operand the vectors that are wanted, and the one that stands for every row of the result (-1 for none)."""
        for number, value in enumerate(values):
            mine = self.which == number
            index = np.full(len(self.table), -1, dtype=np.int64)
            some = mine.any(axis=1)
            need = _completed(np.where(mine[some], flat[self.table[some]], -1), value.shape[-1] if value.shape else 1)
            unique, index[some] = unique_rows(need) if len(need) else (need, np.zeros(0, dtype=np.int64))
            self.needs.append((unique, index))

    def cost(self) -> float:
        """Estimated cycles a pair of byte planes to make it."""
        total = float(MERGE)
        for value, (need, _) in zip(self.values, self.needs, strict=True):
            if len(need) and value.array is None and all(copy.locate(need, value.size) is None for copy in value.copies):
                total += MERGE + move_cost(value, need)
        return total + sum(int((index >= 0).sum()) for _, index in self.needs)

    def rows(self, lowering: Lowering, fill: Seq) -> _Rows:
        """The arrangement, all operands fetched."""
        parts = [fill]
        vector = np.where(self.table >= 0, 0, -1)
        for number, (value, (need, index)) in enumerate(zip(self.values, self.needs, strict=True)):
            if len(need):
                vector = np.where(self.which == number, sum(len(part) for part in parts) + index[:, None], vector)
                parts.append(lowering.fetch(value, need)(frozenset()))
        return _Rows(self.lanes, self.table, Seq.join(parts), vector, np.where(self.table >= 0, np.arange(LANES), -1))


def _completed(need: Array, width: int) -> Array:
    """Rows whose elements follow each other along rows of `width` elements ask for all of such a row that lies beside them in the lanes.

    Assemblies of growing parts of a value then ask for the same vectors.
    """
    first = (need >= 0).argmax(axis=1)[:, None]
    element = np.take_along_axis(need, first, axis=1)
    column = element % width + np.arange(LANES) - first
    whole = np.where((column >= 0) & (column < width), element - element % width + column, -1)
    same = ((need < 0) | (need == whole)).all(axis=1, keepdims=True)
    return np.where(same, whole, need)


def _table(shape: Sequence[int], lanes: Sequence[int]) -> Array:
    """Elements of a value in an arrangement with some of its dimensions along lanes."""
    return Nesting(shape, [d for d in range(len(shape)) if d not in lanes], lanes).table(0, row_major_strides(shape))


def _lane_choices(shape: Sequence[int]) -> list[tuple[int, ...]]:
    """Single dimensions, last first, and runs of trailing dimensions."""
    choices: list[tuple[int, ...]] = [(d,) for d in reversed(range(len(shape))) if shape[d] > 1] or [(len(shape) - 1,)]
    choices += [tuple(range(first, len(shape))) for first in range(len(shape) - 1)]
    if len(shape) >= 3:
        choices += [(d, len(shape) - 1) for d in range(len(shape) - 2) if shape[d] > 1]
    return list(dict.fromkeys(choices))


def _piece_elements(lowering: Lowering, node: Move, piece: Any) -> Array:
    """Flat element numbers of the piece's operand, in the piece's shape."""
    shape = lowering.graph[node.operands[piece.operand]].shape
    total = np.zeros(piece.axes, dtype=np.int64)
    for entry, step in zip(piece.access, row_major(shape), strict=True):
        total += entry.offset * step
        for a, coefficient in entry.terms:
            total += (coefficient * step * np.arange(piece.axes[a])).reshape([-1 if b == a else 1 for b in range(len(piece.axes))])
    order = [a for group in piece.groups for a in group]
    return total.transpose(order).reshape(piece.shape)
