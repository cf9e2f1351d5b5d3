"""No 64-bit integers: every i64 becomes the smallest type that interval analysis allows, or the graph is refused with the reason.

torch's integers are i64 through lowering so that graphs compare with torch; no machine here has them. Intervals come from axes, constants,
comparisons and the ranges of inputs and states (lowering derives those that follow from use: an id that indexes a table of n rows lies
in [0, n)); the rest gets the whole 32-bit type, which the runtime checks at the border when it converts torch's arrays.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

from ..errors import UnsupportedOp
from ..ir import expr as ex
from ..ir.graph import (
    Constant,
    ConstantRef,
    Contract,
    Gather,
    Graph,
    GraphBuilder,
    Input,
    Map,
    Move,
    Node,
    Reduce,
    Scan,
    Scatter,
    State,
)
from ..ir.interval import ExprIntervals, Interval, intervals_of
from ..ir.store import ConstantStore
from ..ir.text import print_expr
from ..ir.types import I8, I16, I32, I64, DType
from ..ir.verify import require
from .base import Pass
from .convert import add_cast

Range = tuple[int, int]
_MODEST: Range = (-(1 << 15), (1 << 15) - 1)  # assumed of inputs without a range where 32 bits of them would overflow sums


@dataclass(frozen=True)
class Narrow(Pass):
    """`least_bits`: no integer is made smaller than this (machines here compute in 32 bits, so smaller types would only add casts)."""

    name: ClassVar[str] = "narrow"
    least_bits: int = 32

    def run(self, graph: Graph, store: ConstantStore) -> Graph:
        if not any(_wide(node) for node in graph.nodes):
            return graph
        reasons: list[str] = []
        for unknown in (I32.limits, _MODEST):
            ranges = {n.name: unknown for n in _sources(graph)}
            rewriter = _Rewriter(graph, store, ranges, self.least_bits)
            reasons = rewriter.reasons
            if not reasons:
                return rewriter.result
        raise UnsupportedOp(f"{len(reasons)} integer values need more than 32 bits: {reasons[0]}", reasons)

    def ensures(self, graph: Graph) -> None:
        require(graph, self.name, narrowed=True)


def _wide(node: Node) -> bool:
    if node.dtype is I64:
        return True
    return isinstance(node, Map | Reduce) and any(e.dtype is I64 and e.op != "axis" for e in ex.postorder(node.expr))


def _sources(graph: Graph) -> list[Input | State]:
    return [n for n in graph.nodes if isinstance(n, Input | State) and n.dtype is I64 and n.range is None]


class _Rewriter:
    """One attempt with given ranges: `result` where `reasons` is empty."""

    def __init__(self, graph: Graph, store: ConstantStore, ranges: dict[str, Range], least_bits: int) -> None:
        self.graph = graph
        self.store = store
        self.ranges = ranges
        self.least_bits = least_bits
        self.reasons: list[str] = []
        self.intervals = intervals_of(graph, store, ranges)
        self.dtypes: list[DType] = []
        states = {graph.updates[n.name]: n.id for n in graph.states if n.name in graph.updates}
        joined = {s: self.intervals[s].joined(self.intervals[u]) for u, s in states.items()}
        for node in graph.nodes:
            interval = joined.get(node.id, self.intervals[node.id])
            self.dtypes.append(self._narrowed(node, interval) if node.dtype is I64 else node.dtype)
        for update, state in states.items():
            self.dtypes[update] = self.dtypes[state]
        builder = GraphBuilder()
        new_id: list[int] = []
        for node in graph.nodes:
            new_id.append(self._node(builder, node, new_id))
        self.result = builder.finish([new_id[o] for o in graph.outputs], {k: new_id[v] for k, v in graph.updates.items()})

    def _fit(self, interval: Interval) -> DType | None:
        for dtype in (I8, I16, I32):
            if dtype.bits >= self.least_bits and interval.within(*dtype.limits):
                return dtype
        return None

    def _narrowed(self, node: Node, interval: Interval) -> DType:
        found = self._fit(interval)
        if found is None:
            self._refuse(node, f"values from {interval.low} to {interval.high} of {node.kind}")
            return I32
        return found

    def _refuse(self, node: Node, what: str) -> None:
        origin = node.origin
        where = ", ".join(p for p in (origin.op, origin.module, origin.source) if p)
        self.reasons.append(f"%{node.id} ({where}): {what} do not fit 32 bits; declare a smaller range of the integer inputs")

    def _node(self, builder: GraphBuilder, node: Node, new_id: list[int]) -> int:
        operands = [new_id[o] for o in node.operands]
        dtype = self.dtypes[node.id]
        if isinstance(node, Map | Reduce):
            expr = self._expression(node)
            if isinstance(node, Map) or node.op not in ("argmax", "argmin"):
                expr = ex.cast(expr, dtype)
            return builder.add(replace(node, operands=tuple(operands), dtype=dtype, expr=expr))
        if isinstance(node, Input | State) and node.dtype is I64:
            bounds = node.range or self.ranges.get(node.name)
            return builder.add(replace(node, dtype=dtype, range=bounds))
        if isinstance(node, Constant) and node.dtype is I64:
            return builder.add(replace(node, dtype=dtype, ref=ConstantRef(node.ref.key, dtype, node.shape, node.ref.storage)))
        if isinstance(node, Contract) and node.acc is I64:
            operands = [add_cast(builder, o, I32) for o in operands]
            return builder.add(replace(node, operands=tuple(operands), dtype=dtype, acc=I32))
        operands = [self._converted(builder, node, number, operand, dtype) for number, operand in enumerate(operands)]
        return builder.add(replace(node, operands=tuple(operands), dtype=dtype))

    def _converted(self, builder: GraphBuilder, node: Node, number: int, operand: int, dtype: DType) -> int:
        """An operand of a node that moves values unchanged, in the type of its result."""
        source = builder.nodes[operand]
        carried = isinstance(node, Move | Scan) or (isinstance(node, Gather) and number == 0) or (isinstance(node, Scatter) and number < 2)
        if not carried or source.dtype is dtype or not source.dtype.is_int:
            return operand
        return add_cast(builder, operand, dtype)

    def _expression(self, node: Map | Reduce) -> ex.Expr:
        """The expression with every i64 entry in the type that its interval allows; operators work in their widest operand's."""
        known = ExprIntervals(node.axes, [self.intervals[o] for o in node.operands])
        done: dict[int, ex.Expr] = {}
        known.of(node.expr)
        for entry in ex.postorder(node.expr):
            args = [done[id(a)] for a in entry.args]
            if entry.op == "arg":
                done[id(entry)] = ex.arg(entry.index, self.dtypes[node.operands[entry.index]])
            elif not entry.args:
                done[id(entry)] = self._leaf(node, entry)
            elif entry.op == "cast":
                done[id(entry)] = ex.cast(args[0], self._type(node, entry, known)) if entry.dtype is I64 else ex.cast(args[0], entry.dtype)
            else:
                done[id(entry)] = self._operator(node, entry, args, known)
        return done[id(node.expr)]

    def _leaf(self, node: Node, entry: ex.Expr) -> ex.Expr:
        if entry.op == "axis" or entry.dtype is not I64:
            return entry
        value = entry.value if entry.value is not None else 0
        fit = self._fit(Interval(value, value))
        if fit is None:
            self._refuse(node, f"the constant {value}")
        return ex.const(value, fit or I32)

    def _type(self, node: Node, entry: ex.Expr, known: ExprIntervals) -> DType:
        interval = known.of(entry)
        fit = self._fit(interval)
        if fit is None:
            self._refuse(node, f"values from {interval.low} to {interval.high} of {print_expr(entry)}")
        return fit or I32

    def _operator(self, node: Node, entry: ex.Expr, args: list[ex.Expr], known: ExprIntervals) -> ex.Expr:
        alike = args[1:] if entry.op == "select" else args
        if not any(a.dtype is I64 for a in (entry.args[1:] if entry.op == "select" else entry.args)):
            return ex.rebuild(entry, args)
        if entry.op in ("eq", "ne", "lt", "le", "gt", "ge") and all(a.op == "axis" for a in args):
            return ex.rebuild(entry, args)
        types = [I32 if a.op == "axis" else a.dtype for a in alike]
        if entry.dtype is I64:
            types.append(self._type(node, entry, known))
        work = max(types, key=lambda t: t.bits)
        cast = [ex.cast(a, work) for a in alike]
        return ex.rebuild(entry, [args[0], *cast] if entry.op == "select" else cast)
