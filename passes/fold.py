"""Constant folding (canonicalisation rule 6): small constant nodes are evaluated, and regular results become expressions over axes.

A result that is uniform, an integer affine in its indices, or a band of truth values (causal and sliding masks) is an operand-less Map
and inlines into its readers; anything else goes into the store under the digest of its bytes.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from math import prod
from typing import Any

import numpy as np

from ..ir import expr as ex
from ..ir.graph import Constant, ConstantRef, Index, Input, Map, Move, Node, Reduce, State
from ..ir.interpret import compute
from ..ir.normal import affine_expr
from ..ir.store import ConstantStore
from ..ir.types import BOOL, I64, DType

Array = np.ndarray[Any, Any]
MOST_BYTES = 1 << 20  # of a result, and of each operand
_MOST_POINTS = 1 << 24  # of a reduction


def _bytes(node: Node) -> int:
    return node.size * max(1, node.dtype.bytes)


class Folder:
    """Values of constant nodes, computed once. `at` gives nodes by id."""

    def __init__(self, store: ConstantStore, at: Callable[[int], Node]) -> None:
        self.store = store
        self.at = at
        self._values: dict[int, Array | None] = {}

    def value(self, node_id: int) -> Array | None:
        """The value of a small constant, of an operand-less Map or of a view of one; None for anything else."""
        if node_id not in self._values:
            self._values[node_id] = self._find(self.at(node_id))
        return self._values[node_id]

    def _find(self, node: Node) -> Array | None:
        if _bytes(node) > MOST_BYTES:
            return None
        if isinstance(node, Constant):
            if not self.store.has(node.ref.key):
                return None
            value = np.asarray(self.store.get(node.ref.key)).reshape(node.shape)
            return value.astype(node.dtype.array, copy=False)
        if isinstance(node, Map) and not node.operands:
            return compute(node, [])
        if isinstance(node, Move) and node.is_view:
            source = self.value(node.operands[0])
            return None if source is None else compute(node, [source])
        return None

    def fold(self, node: Node) -> Node:
        """`node` as a Constant or operand-less Map where all that it reads is constant and small; else `node`."""
        if isinstance(node, Input | State) or _bytes(node) > MOST_BYTES:
            return node
        if isinstance(node, Constant):
            return self._regular_constant(node)
        if isinstance(node, Map) and not node.operands:
            return node
        if (isinstance(node, Move) and node.is_view) or (isinstance(node, Reduce) and prod(node.axes) > _MOST_POINTS):
            return node
        values: list[Array] = []
        for operand in node.operands:
            value = self.value(operand)
            if value is None:
                return node
            values.append(value)
        return self.constant(node, compute(node, values))

    def constant(self, like: Node, value: Array) -> Node:
        """A node with the value and type of `like`: an expression where the value is regular, else a new constant of the store."""
        expr = recognise(value, like.dtype)
        if expr is not None:
            return iota(like, expr)
        return self.stored(like, value)

    def stored(self, like: Node, value: Array) -> Constant:
        """A Constant of that value, keyed by its content."""
        value = np.ascontiguousarray(value).reshape(like.shape)
        digest = hashlib.sha256(f"{like.dtype}{list(like.shape)}".encode() + value.tobytes()).hexdigest()[:24]
        key = f"folded/{digest}"
        self.store.put(key, value)
        ref = ConstantRef(key, like.dtype, like.shape)
        return Constant(id=like.id, operands=(), dtype=like.dtype, shape=like.shape, origin=like.origin, ref=ref)

    def _regular_constant(self, node: Constant) -> Node:
        if node.dtype.is_float or node.ref.storage != "dense":
            return node
        value = self._find(node)
        expr = None if value is None else recognise(value, node.dtype)
        return node if expr is None else iota(node, expr)

    def needs_tensor(self, node: Node) -> list[int]:
        """Operand-less Maps that `node` reads but cannot take in as an expression, small enough to be constants."""
        if isinstance(node, Map | Reduce) or (isinstance(node, Move) and node.is_view):
            return []
        maps = [o for o in dict.fromkeys(node.operands) if isinstance(self.at(o), Map) and not self.at(o).operands]
        return [o for o in maps if _bytes(self.at(o)) <= MOST_BYTES]


def iota(like: Node, expr: ex.Expr) -> Map:
    """An operand-less Map of the shape of `like`, with one axis for every dimension of extent above 1."""
    wide = [d for d, extent in enumerate(like.shape) if extent > 1]
    groups = tuple((wide.index(d),) if d in wide else () for d in range(len(like.shape)))
    return Map(
        id=like.id, operands=(), dtype=like.dtype, shape=like.shape, origin=like.origin, axes=tuple(like.shape[d] for d in wide),
        accesses=(), groups=groups, expr=expr,
    )  # fmt: skip


def recognise(value: Array, dtype: DType) -> ex.Expr | None:
    """`value` as an expression over one axis for every dimension of extent above 1, or None: uniform, affine integers, bands."""
    squeezed = value.reshape([e for e in value.shape if e > 1])
    uniform = _uniform(squeezed, dtype)
    if uniform is not None:
        return uniform
    if dtype.is_int:
        return _affine(squeezed, dtype)
    return _band(squeezed) if dtype is BOOL else None


def _uniform(value: Array, dtype: DType) -> ex.Expr | None:
    first = value.reshape(-1)[0]
    if dtype.is_float:
        bits = np.ascontiguousarray(value).view({2: np.uint16, 4: np.uint32, 8: np.uint64}[value.itemsize])
        same = bool((bits == bits.reshape(-1)[0]).all())
    else:
        same = bool((value == first).all())
    return ex.const(first.item(), dtype) if same else None


def _affine(value: Array, dtype: DType) -> ex.Expr | None:
    wide = value.astype(np.int64, copy=False)
    origin = wide.reshape(-1)[0]
    steps = [int(np.take(wide, 1, axis=d).reshape(-1)[0] - origin) for d in range(wide.ndim)]
    expected = np.full([1] * wide.ndim, origin)
    for d, step in enumerate(steps):
        shape = [1] * wide.ndim
        shape[d] = -1
        expected = expected + step * np.arange(wide.shape[d]).reshape(shape)
    if not np.array_equal(expected, wide):
        return None
    return ex.cast(affine_expr(Index.of(int(origin), enumerate(steps))), dtype)


def _band(value: Array) -> ex.Expr | None:
    """True where low <= column - row <= high over the last two dimensions, the same for all others."""
    if value.ndim < 2:
        return _run(value) if value.ndim == 1 else None
    plane = value.reshape(-1, *value.shape[-2:])
    if not (plane == plane[:1]).all():
        return None
    rows, columns = plane.shape[1:]
    difference = np.arange(columns)[None, :] - np.arange(rows)[:, None]
    inside = difference[plane[0]]
    low, high = int(inside.min()), int(inside.max())
    i, j = ex.axis(value.ndim - 2), ex.axis(value.ndim - 1)
    tests = []
    if high < columns - 1:
        tests.append((difference <= high, ex.make("le", j, ex.make("add", i, ex.const(high, I64)))))
    if low > 1 - rows:
        tests.append((difference >= low, ex.make("ge", j, ex.make("add", i, ex.const(low, I64)))))
    return _conjunction(plane[0], tests)


def _run(value: Array) -> ex.Expr | None:
    """True on one interval of positions."""
    where = np.flatnonzero(value)
    low, high = int(where[0]), int(where[-1])
    position = np.arange(len(value))
    tests = []
    if low > 0:
        tests.append((position >= low, ex.make("ge", ex.axis(0), ex.const(low, I64))))
    if high < len(value) - 1:
        tests.append((position <= high, ex.make("le", ex.axis(0), ex.const(high, I64))))
    return _conjunction(value, tests)


def _conjunction(value: Array, tests: list[tuple[Array, ex.Expr]]) -> ex.Expr | None:
    found = np.ones(value.shape, dtype=bool)
    expr: ex.Expr | None = None
    for truth, test in tests:
        found = found & truth
        expr = test if expr is None else ex.make("and", expr, test)
    return expr if expr is not None and np.array_equal(found, value) else None
