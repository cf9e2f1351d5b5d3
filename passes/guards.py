"""Removal of the guards that lowering writes against fully masked softmax rows (canonicalisation rule 6).

`select((m == -inf), 0, m)` with m the maximum of masked scores is m where every row keeps at least one score; then the sum of
exponentials is at least 1 and `select((l == 0), 1, l)` is l. A row keeps a score when the mask, an expression over axes, is true at some
position of the reduced axes; scores themselves (products and sums of contractions and finite constants) are not -inf.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import replace

import numpy as np

from ..ir import expr as ex
from ..ir.graph import Constant, Contract, Gather, Index, Map, Node, Reduce
from ..ir.interval import ExprIntervals, affine
from ..ir.normal import affine_expr
from ..ir.store import ConstantStore
from ..ir.types import BOOL

_FINITE = frozenset(("add", "sub", "mul", "neg", "cast", "div", "tanh", "min", "max", "abs", "fma"))
_MOST_ELEMENTS = 1 << 18  # of a constant whose values are looked at


class Guards:
    """Proofs about softmax rows, remembered by node. `at` gives nodes by id."""

    def __init__(self, store: ConstantStore, at: Callable[[int], Node]) -> None:
        self.store = store
        self.at = at
        self._full: dict[int, bool] = {}
        self._finite: dict[int, bool] = {}

    def without_guards(self, node: Map | Reduce) -> Map | Reduce:
        """`node` with the guards removed that are proven needless."""
        if not any(e.op == "select" for e in ex.postorder(node.expr)):
            return node
        done: dict[int, ex.Expr] = {}
        for entry in ex.postorder(node.expr):
            args = [done[id(a)] for a in entry.args]
            kept = self._kept(node, entry)
            if kept is not None:
                done[id(entry)] = done[id(kept)]
            elif all(a is b for a, b in zip(args, entry.args, strict=True)):
                done[id(entry)] = entry
            else:
                done[id(entry)] = ex.rebuild(entry, args)
        return replace(node, expr=done[id(node.expr)])

    def _kept(self, node: Map | Reduce, entry: ex.Expr) -> ex.Expr | None:
        """The value that a needless guard guards, or None."""
        if entry.op != "select" or entry.args[0].op != "eq" or entry.args[1].op != "const":
            return None
        (tested, against), (_, instead, kept) = entry.args[0].args, entry.args
        if tested is not kept or kept.op != "arg" or against.op != "const":
            return None
        source = self.at(node.operands[kept.index])
        if not isinstance(source, Reduce):
            return None
        if against.value == -math.inf and instead.value == 0 and source.op == "max":
            return kept if self.keeps_a_score(source) else None
        if against.value == 0 and instead.value == 1 and source.op == "sum":
            return kept if self._is_positive(source) else None
        return None

    def keeps_a_score(self, node: Reduce) -> bool:
        """Whether a maximum is above -inf in every row."""
        if node.id not in self._full:
            self._full[node.id] = self._row_exists(node, node.expr, list(node.operands))
        return self._full[node.id]

    def _row_exists(self, node: Reduce, expr: ex.Expr, operands: list[int]) -> bool:
        if expr.op == "arg":
            source = self.at(operands[expr.index])
            access = node.accesses[expr.index]
            if isinstance(source, Map) and _is_plain(access, node, source):
                order = _axis_of_source(access, source)
                inner = ex.substitute(source.expr, axes=lambda leaf: ex.axis(order[leaf.index]))
                return self._row_exists_in(node, inner, source)
            return self._is_finite(source)
        return self._row_exists_in(node, expr, node)

    def _row_exists_in(self, node: Reduce, expr: ex.Expr, reads: Map | Reduce) -> bool:
        tests: list[ex.Expr] = []
        while expr.op == "select" and expr.args[2].op == "const" and expr.args[2].value == -math.inf:
            tests.append(expr.args[0])
            expr = expr.args[1]
        if not self._finite_entry(expr, reads):
            return False
        if not tests:
            return True
        mask = tests[0]
        for test in tests[1:]:
            mask = ex.make("and", mask, test)
        return not ex.args_of(mask) and never_empty(mask, node.axes, node.reduced)

    def _finite_entry(self, root: ex.Expr, reads: Map | Reduce) -> bool:
        """Whether an expression is built from finite values by operators that keep them so (overflow aside)."""
        for entry in ex.postorder(root):
            if entry.op == "arg":
                if not self._is_finite(self.at(reads.operands[entry.index])):
                    return False
            elif entry.op == "const":
                if isinstance(entry.value, float) and not math.isfinite(entry.value):
                    return False
            elif entry.args and entry.op not in _FINITE and not (entry.op == "select" or not entry.dtype.is_float):
                return False
        return True

    def _is_finite(self, node: Node) -> bool:
        if node.id not in self._finite:
            self._finite[node.id] = self._finite_node(node)
        return self._finite[node.id]

    def _finite_node(self, node: Node) -> bool:
        if isinstance(node, Contract) or not node.dtype.is_float:
            return True
        if isinstance(node, Constant):
            if node.size > _MOST_ELEMENTS or not self.store.has(node.ref.key):
                return node.size > _MOST_ELEMENTS  # a weight
            return bool(np.isfinite(self.store.get(node.ref.key)).all())
        if isinstance(node, Gather):
            return self._is_finite(self.at(node.operands[0]))
        return isinstance(node, Map) and self._finite_entry(node.expr, node)

    def _is_positive(self, node: Reduce) -> bool:
        """Whether a sum of exp(s - m) has a term exp(0) in every row: m is the row's maximum and above -inf."""
        expr, reads = node.expr, node
        if expr.op == "arg":
            source = self.at(node.operands[expr.index])
            if not isinstance(source, Map):
                return False
            return self._is_exponential(source.expr, source)
        return self._is_exponential(expr, reads)

    def _is_exponential(self, expr: ex.Expr, reads: Map | Reduce) -> bool:
        if expr.op != "exp" or expr.args[0].op != "sub" or expr.args[0].args[1].op != "arg":
            return False
        maximum = self.at(reads.operands[expr.args[0].args[1].index])
        return isinstance(maximum, Reduce) and maximum.op == "max" and self.keeps_a_score(maximum)


def _is_plain(access: tuple[object, ...], node: Reduce, source: Map) -> bool:
    """Whether the reduction reads `source` axis by axis."""
    if any(len(g) > 1 for g in source.groups):
        return False
    return all(
        isinstance(e, Index) and e.offset == 0 and len(e.terms) == len(g) and all(c == 1 for _, c in e.terms)
        for e, g in zip(access, source.groups, strict=True)
    )


def _axis_of_source(access: tuple[object, ...], source: Map) -> dict[int, int]:
    """For each axis of `source` the axis of the reader that walks it."""
    found = {}
    for entry, group in zip(access, source.groups, strict=True):
        if isinstance(entry, Index) and group:
            found[group[0]] = entry.terms[0][0]
    return found


def never_empty(mask: ex.Expr, axes: tuple[int, ...], reduced: Iterable[int]) -> bool:
    """Whether for every position of the kept axes some position of the reduced ones makes `mask` true.

    Tried are the ends of each reduced axis and the positions where a comparison turns over, as functions of the kept axes.
    """
    open_axes = [a for a in reduced if a in ex.axes_of(mask)]
    return _search(mask, axes, open_axes)


def _search(mask: ex.Expr, axes: tuple[int, ...], open_axes: list[int]) -> bool:
    intervals = ExprIntervals(axes, ())
    if intervals.of(mask).single == 1:
        return True
    if not open_axes:
        return False
    axis, rest = open_axes[0], open_axes[1:]
    for place in _turning_points(mask, axes, axis):
        tried = ex.substitute(mask, axes=lambda leaf, place=place: affine_expr(place) if leaf.index == axis else leaf)  # type: ignore[misc]
        if tried.dtype is BOOL and _search(tried, axes, rest):
            return True
    return False


def _turning_points(mask: ex.Expr, axes: tuple[int, ...], axis: int) -> list[Index]:
    places = {Index(0): None, Index(axes[axis] - 1): None}
    for entry in ex.postorder(mask):
        if entry.op not in ("lt", "le", "gt", "ge", "eq") or not entry.args[0].dtype.is_int:
            continue
        left, right = (affine(a) for a in entry.args)
        if left is None or right is None:
            continue
        difference = Index.of(left.offset - right.offset, (*left.terms, *((t, -c) for t, c in right.terms)))
        slope = dict(difference.terms).get(axis, 0)
        if slope not in (1, -1):
            continue
        turn = Index.of(-slope * difference.offset, ((a, -slope * c) for a, c in difference.terms if a != axis))
        for shift in (0, -1, 1):
            moved = Index(turn.offset + shift, turn.terms)
            low, high = moved.bounds(axes)
            if low >= 0 and high < axes[axis]:
                places.setdefault(moved)
    return list(places)
