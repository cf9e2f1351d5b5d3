"""Interval analysis: between which values every integer, truth value and simple float of a graph lies.

An interval is closed and sound: no run with inputs inside their declared ranges gives a value outside. Sources are axes, constants,
comparisons and the declared ranges of inputs and states; float intervals exist so that integers computed through floats (bucketed
positions) stay bounded. Integer arithmetic that might wrap gives the whole type.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import prod

from . import expr as ex
from .graph import Constant, Gather, Graph, Index, Input, Map, Move, Node, Reduce, Scan, Scatter, Sort, State
from .normal import affine_expr
from .store import ConstantStore
from .types import BOOL, I64, DType

Number = int | float
_SMALL = 1 << 22  # elements of an integer constant that are looked at


@dataclass(frozen=True, slots=True)
class Interval:
    """All values v with low <= v <= high, and NaN where `nan`."""

    low: Number
    high: Number
    nan: bool = False

    @property
    def limits(self) -> tuple[Number, Number]:
        return self.low, self.high

    def joined(self, other: Interval) -> Interval:
        return Interval(min(self.low, other.low), max(self.high, other.high), self.nan or other.nan)

    def within(self, low: Number, high: Number) -> bool:
        return low <= self.low and self.high <= high and not self.nan

    @property
    def single(self) -> Number | None:
        return self.low if self.low == self.high and not self.nan else None


TRUE = Interval(1, 1)
FALSE = Interval(0, 0)
EITHER = Interval(0, 1)


def whole(dtype: DType) -> Interval:
    """Everything a type can hold."""
    return Interval(-math.inf, math.inf, True) if dtype.is_float else Interval(*dtype.limits)


def _fit(found: Interval, dtype: DType) -> Interval:
    """An integer result that might wrap is anything; a float that might round is widened by its rounding."""
    if dtype.is_float:
        if math.isnan(found.low) or math.isnan(found.high):
            return whole(dtype)
        if found.low == found.high and found.low == int(found.low if math.isfinite(found.low) else 0) and abs(found.low) < 2048:
            return found
        slack = 2.0 ** (-6 if dtype.bits == 16 else -22 if dtype.bits == 32 else -50)
        return Interval(found.low - abs(found.low) * slack, found.high + abs(found.high) * slack, found.nan)
    low, high = dtype.limits
    return found if low <= found.low and found.high <= high else whole(dtype)


def _product(a: Interval, b: Interval) -> Interval:
    corners = [x * y if x and y else 0 for x in a.limits for y in b.limits]
    infinite = any(math.isinf(v) for v in (*a.limits, *b.limits))
    return Interval(min(corners), max(corners), a.nan or b.nan or infinite)


def _quotient(a: Interval, b: Interval, divide: Callable[[Number, Number], Number]) -> Interval | None:
    if b.low <= 0 <= b.high or any(math.isinf(v) for v in (*a.limits, *b.limits)):
        return None
    corners = [divide(x, y) for x in a.limits for y in b.limits]
    return Interval(min(corners), max(corners), a.nan or b.nan)


def _modulo(a: Interval, b: Interval) -> Interval | None:
    if b.low <= 0:
        return None
    if a.low >= 0 and a.high < b.low:
        return a
    return Interval(0, b.high - 1)


def _add(a: Interval, b: Interval) -> Interval:
    infinite = any(math.isinf(v) for v in (*a.limits, *b.limits))
    return Interval(a.low + b.low, a.high + b.high, a.nan or b.nan or infinite)


def _negated(a: Interval) -> Interval:
    return Interval(-a.high, -a.low, a.nan)


def _magnitude(a: Interval) -> Interval:
    low = 0 if a.low <= 0 <= a.high else min(abs(a.low), abs(a.high))
    return Interval(low, max(abs(a.low), abs(a.high)), a.nan)


def _shift_left(a: Interval, b: Interval) -> Interval | None:
    if a.low < 0 or b.low < 0 or b.high > 62:
        return None
    return Interval(int(a.low) << int(b.low), int(a.high) << int(b.high))


def _shift_right(a: Interval, b: Interval) -> Interval | None:
    if a.low < 0 or b.low < 0 or b.high > 62:
        return None
    return Interval(int(a.low) >> int(b.high), int(a.high) >> int(b.low))


def _rising(function: Callable[[float], float], low: float = -math.inf) -> Callable[[Interval], Interval | None]:
    """The image under a function that never falls; None where it is not defined everywhere."""

    def image(a: Interval) -> Interval | None:
        if a.low < low or math.isnan(a.low):
            return None
        try:
            return Interval(function(float(a.low)), function(float(a.high)), a.nan)
        except (OverflowError, ValueError):
            return None

    return image


def _step(function: Callable[[float], float]) -> Callable[[float], float]:
    return lambda x: x if math.isinf(x) else float(function(x))


def _log(x: float) -> float:
    return -math.inf if x == 0 else math.log(x)


_RULES: dict[str, Callable[..., Interval | None]] = {
    "add": _add, "sub": lambda a, b: _add(a, _negated(b)), "mul": _product, "neg": _negated, "abs": _magnitude,
    "min": lambda a, b: Interval(min(a.low, b.low), min(a.high, b.high), a.nan or b.nan),
    "max": lambda a, b: Interval(max(a.low, b.low), max(a.high, b.high), a.nan or b.nan),
    "div": lambda a, b: _quotient(a, b, lambda x, y: x / y), "idiv": lambda a, b: _quotient(a, b, lambda x, y: x // y),
    "mod": _modulo, "shl": _shift_left, "shr": _shift_right,
    "sign": lambda a: Interval(-1 if a.low < 0 else 0 if a.low == 0 else 1, 1 if a.high > 0 else 0 if a.high == 0 else -1, a.nan),
    "floor": _rising(_step(math.floor)), "ceil": _rising(_step(math.ceil)), "trunc": _rising(_step(math.trunc)),
    "round": _rising(_step(round)), "exp": _rising(math.exp), "sqrt": _rising(math.sqrt, 0.0), "log": _rising(_log, 0.0),
    "tanh": lambda a: Interval(-1, 1, a.nan), "erf": lambda a: Interval(-1, 1, a.nan),
    "sin": lambda a: Interval(-1, 1, a.nan or math.isinf(a.low) or math.isinf(a.high)),
    "cos": lambda a: Interval(-1, 1, a.nan or math.isinf(a.low) or math.isinf(a.high)),
    "lt": lambda a, b: _compare(a.high < b.low, a.low >= b.high, a, b), "le": lambda a, b: _compare(a.high <= b.low, a.low > b.high, a, b),
    "gt": lambda a, b: _compare(a.low > b.high, a.high <= b.low, a, b), "ge": lambda a, b: _compare(a.low >= b.high, a.high < b.low, a, b),
    "eq": lambda a, b: _compare(a.single is not None and a.single == b.single, a.high < b.low or b.high < a.low, a, b),
    "ne": lambda a, b: _not(_compare(a.single is not None and a.single == b.single, a.high < b.low or b.high < a.low, a, b)),
    "isnan": lambda a: EITHER if a.nan else FALSE, "isinf": lambda a: EITHER if math.isinf(a.low) or math.isinf(a.high) else FALSE,
}  # fmt: skip


def _compare(surely: bool, never: bool, a: Interval, b: Interval) -> Interval:
    if never:  # a comparison with NaN is false too
        return FALSE
    return TRUE if surely and not a.nan and not b.nan else EITHER


def _not(a: Interval) -> Interval:
    return Interval(1 - a.high, 1 - a.low)


def _logic(op: str, a: Interval, b: Interval) -> Interval:
    if op == "and":
        return Interval(min(a.low, b.low), min(a.high, b.high))
    if op == "or":
        return Interval(max(a.low, b.low), max(a.high, b.high))
    return Interval(int(a.single != b.single), int(a.single != b.single)) if a.single is not None and b.single is not None else EITHER


def _bits(op: str, a: Interval, b: Interval) -> Interval | None:
    natural = [x for x in (a, b) if x.low >= 0]
    if op == "and" and natural:
        return Interval(0, min(x.high for x in natural))
    if len(natural) < 2:
        return None
    return Interval(0, (1 << max(int(a.high).bit_length(), int(b.high).bit_length())) - 1)


def _cast(a: Interval, source: DType, target: DType) -> Interval:
    if target is BOOL:
        if a.single is not None:
            return TRUE if a.single else FALSE
        return TRUE if (a.low > 0 or a.high < 0) else EITHER
    if target.is_float:
        return _fit(Interval(float(a.low), float(a.high), a.nan), target)
    low, high = target.limits
    if source.is_float:  # saturates, NaN gives 0
        first, last = (low if v <= low else high if v >= high else math.trunc(v) for v in a.limits)
        found = Interval(first, last)
        return found.joined(FALSE) if a.nan else found
    return a if a.within(low, high) else whole(target)


def affine(entry: ex.Expr) -> Index | None:
    """The expression as `offset + sum(coefficient * axis)`, or None. Integer casts are taken as exact: extents are far below 2^31."""
    if entry.op == "axis":
        return Index(0, ((entry.index, 1),))
    if entry.op == "const" and entry.dtype.is_int:
        return Index(int(entry.value or 0))
    if entry.op == "cast" and entry.dtype.bits >= 32 and entry.dtype.is_int and entry.args[0].dtype.is_int:
        return affine(entry.args[0])
    if not entry.dtype.is_int or entry.op not in ("add", "sub", "mul", "neg"):
        return None
    parts = [affine(a) for a in entry.args]
    if any(p is None for p in parts):
        return None
    a = parts[0]
    assert a is not None
    if entry.op == "neg":
        return Index.of(-a.offset, ((t, -c) for t, c in a.terms))
    b = parts[1]
    assert b is not None
    if entry.op == "mul":
        if a.terms and b.terms:
            return None
        many, factor = (a, b.offset) if a.terms else (b, a.offset)
        return Index.of(many.offset * factor, ((t, c * factor) for t, c in many.terms))
    sign = 1 if entry.op == "add" else -1
    return Index.of(a.offset + sign * b.offset, (*a.terms, *((t, sign * c) for t, c in b.terms)))


_COMPARISONS = frozenset(("lt", "le", "gt", "ge", "eq", "ne"))
_ZERO = Interval(0, 0)
_MIRRORED = {"lt": "gt", "le": "ge", "gt": "lt", "ge": "le", "eq": "eq", "ne": "ne"}


def _comparison(op: str, args: Sequence[ex.Expr]) -> ex.Expr | None:
    """A comparison of two sums over axes in one form: what is added on the left, the rest and the offset on the right."""
    left, right = (affine(a) for a in args)
    if left is None or right is None:
        return None
    difference = Index.of(left.offset - right.offset, (*left.terms, *((t, -c) for t, c in right.terms)))
    if not any(c > 0 for _, c in difference.terms):
        op = _MIRRORED[op]
        difference = Index(-difference.offset, tuple((t, -c) for t, c in difference.terms))
    first = Index(0, tuple(t for t in difference.terms if t[1] > 0))
    second = Index(-difference.offset, tuple((t, -c) for t, c in difference.terms if c < 0))
    return ex.make(op, affine_expr(first), affine_expr(second))


class ExprIntervals:
    """Intervals of the entries of expressions over one nest, remembered by entry."""

    def __init__(self, axes: Sequence[int], args: Sequence[Interval]) -> None:
        self.axes = axes
        self.args = args
        self._known: dict[int, Interval] = {}

    def of(self, root: ex.Expr) -> Interval:
        """The interval of `root` at every point of the nest."""
        for entry in ex.postorder(root):
            if id(entry) not in self._known:
                self._known[id(entry)] = self._entry(entry)
        return self._known[id(root)]

    def _entry(self, entry: ex.Expr) -> Interval:
        if entry.op == "arg":
            return self.args[entry.index] if entry.index < len(self.args) else whole(entry.dtype)
        if entry.op == "axis":
            return Interval(0, self.axes[entry.index] - 1)
        if entry.op == "const":
            value = entry.value if entry.value is not None else 0
            return Interval(-math.inf, math.inf, True) if isinstance(value, float) and math.isnan(value) else Interval(value, value)
        args = [self._known[id(a)] for a in entry.args]
        if entry.op == "cast":
            return _cast(args[0], entry.args[0].dtype, entry.dtype)
        if entry.op == "select":
            if args[0].single is not None:
                return args[1] if args[0].single else args[2]
            return args[1].joined(args[2])
        if entry.op in ("and", "or", "xor"):
            found = _logic(entry.op, *args) if entry.dtype is BOOL else _bits(entry.op, *args)
            return found or whole(entry.dtype)
        if entry.op == "not":
            return _not(args[0]) if entry.dtype is BOOL else Interval(-args[0].high - 1, -args[0].low - 1)
        exact = self._affine(entry)
        if exact is not None:
            return exact
        if entry.op == "mul" and entry.args[0] is entry.args[1] and not args[0].nan:
            square = _magnitude(args[0])
            return _fit(Interval(square.low**2, square.high**2 if math.isfinite(square.high) else math.inf), entry.dtype)
        rule = _RULES.get(entry.op)
        found = rule(*args) if rule else None
        if found is None:
            return whole(entry.dtype)
        return found if entry.dtype is BOOL else _fit(found, entry.dtype)

    def _affine(self, entry: ex.Expr) -> Interval | None:
        """Exact intervals of sums over axes, and of comparisons of two of them (their difference has an exact interval)."""
        if entry.op in _COMPARISONS and entry.args[0].dtype.is_int:
            left, right = (affine(a) for a in entry.args)
            if left is None or right is None:
                return None
            difference = Index.of(left.offset - right.offset, (*left.terms, *((t, -c) for t, c in right.terms)))
            return _RULES[entry.op](Interval(*difference.bounds(self.axes)), _ZERO)
        if entry.op in ("add", "sub") and entry.dtype.is_int:
            index = affine(entry)
            return None if index is None else _fit(Interval(*index.bounds(self.axes)), entry.dtype)
        return None

    def decided(self, root: ex.Expr) -> ex.Expr:
        """`root` with everything that the intervals decide replaced: comparisons, selects, min and max, exact integers."""
        done: dict[int, ex.Expr] = {}
        for entry in ex.postorder(root):
            self.of(entry)
            found = self._known[id(entry)]
            if entry.args and not entry.dtype.is_float and found.single is not None:
                done[id(entry)] = ex.const(found.single, entry.dtype)
                continue
            args = [done[id(a)] for a in entry.args]
            simpler = self._choice(entry, args)
            if simpler is None:
                unchanged = all(a is b for a, b in zip(args, entry.args, strict=True))
                simpler = entry if unchanged else ex.rebuild(entry, args)
            done[id(entry)] = simpler
        return done[id(root)]

    def _choice(self, entry: ex.Expr, args: Sequence[ex.Expr]) -> ex.Expr | None:
        if entry.op in ("min", "max") and not entry.dtype.is_float:
            a, b = (self._known[id(x)] for x in entry.args)
            if a.high <= b.low:
                return args[0] if entry.op == "min" else args[1]
            if b.high <= a.low:
                return args[1] if entry.op == "min" else args[0]
        if entry.op in ("idiv", "mod"):
            return self._division(entry, args)
        if entry.op in _COMPARISONS and entry.args[0].dtype is I64:
            return _comparison(entry.op, args)
        if entry.op in ("add", "sub", "mul", "neg") and entry.dtype is I64 and self._known[id(entry)].limits != I64.limits:
            index = affine(ex.rebuild(entry, args))
            return None if index is None else affine_expr(index)
        return None

    def _division(self, entry: ex.Expr, args: Sequence[ex.Expr]) -> ex.Expr | None:
        """Floor division and remainder of an affine value by a constant, where one digit decides them."""
        index, divisor = affine(args[0]), args[1].value if args[1].op == "const" else None
        if index is None or not isinstance(divisor, int) or divisor <= 0 or entry.dtype is not I64:
            return None
        low = Index(index.offset % divisor, tuple(t for t in index.terms if t[1] % divisor))
        high = Index(index.offset // divisor, tuple((a, c // divisor) for a, c in index.terms if not c % divisor))
        bottom, top = low.bounds(self.axes)
        if bottom < 0 or top >= divisor:
            return None
        return affine_expr(low if entry.op == "mod" else high)


def _times(interval: Interval, count: int) -> Interval:
    """The sum of up to `count` (and at least one) values of the interval, at any prefix."""
    low = min(interval.low, interval.low * count if interval.low else 0)
    high = max(interval.high, interval.high * count if interval.high else 0)
    return Interval(low, high, interval.nan)


def _reduce(node: Reduce, found: Interval) -> Interval:
    count = prod(node.axes[a] for a in node.reduced)
    if node.op in ("argmax", "argmin"):
        return Interval(0, count - 1)
    if node.op == "sum":
        low, high = found.low * count if found.low else 0, found.high * count if found.high else 0
        return _fit(Interval(low, high, found.nan or math.isinf(low) or math.isinf(high)), node.dtype)
    if node.op == "prod":
        return whole(node.dtype) if found.high > 1 or found.low < 0 else found
    return found


def _scatter(node: Scatter, base: Interval, source: Interval) -> Interval:
    if node.mode == "add":
        total = _times(source.joined(Interval(0, 0)), prod(node.axes))
        return _fit(_add(base, total), node.dtype)
    return base.joined(source)


def interval_of(
    node: Node,
    operands: Sequence[Interval],
    shapes: Sequence[tuple[int, ...]],
    store: ConstantStore | None = None,
    ranges: Mapping[str, tuple[int, int]] | None = None,
) -> Interval:
    """The interval of one node's value from the intervals and shapes of its operands."""
    ranges = ranges or {}
    if isinstance(node, Input | State):
        bounds = node.range or ranges.get(node.name)
        return Interval(*bounds) if bounds else whole(node.dtype)
    if isinstance(node, Constant):
        small = not node.dtype.is_float and node.size <= _SMALL and store is not None and store.has(node.ref.key)
        if not small or store is None:
            return whole(node.dtype)
        values = store.get(node.ref.key)
        return Interval(int(values.min()), int(values.max()))
    if isinstance(node, Map | Reduce):
        found = ExprIntervals(node.axes, operands).of(node.expr)
        return _reduce(node, found) if isinstance(node, Reduce) else found
    if isinstance(node, Move):
        total = operands[0]
        for interval in operands[1:]:
            total = total.joined(interval)
        if node.fill is None:
            return total
        return whole(node.dtype) if node.fill != node.fill else total.joined(Interval(node.fill, node.fill))
    if isinstance(node, Gather):
        return operands[0]
    if isinstance(node, Scatter):
        return _scatter(node, operands[0], operands[1])
    if isinstance(node, Sort):
        return Interval(0, shapes[0][node.axis] - 1)
    if isinstance(node, Scan):
        if node.op == "add":
            return _fit(_times(operands[0], node.shape[node.axis]), node.dtype)
        return operands[0] if node.op in ("max", "min") else whole(node.dtype)
    return whole(node.dtype)


def intervals_of(graph: Graph, store: ConstantStore | None = None, ranges: Mapping[str, tuple[int, int]] | None = None) -> list[Interval]:
    """The interval of every node's value. `ranges` adds ranges of inputs and states by name, `store` lets small integer constants speak."""
    known: list[Interval] = []
    for node in graph.nodes:
        shapes = [graph[o].shape for o in node.operands]
        known.append(interval_of(node, [known[o] for o in node.operands], shapes, store, ranges))
    return known
