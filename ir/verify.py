"""The verifier: every breach of the IR's rules, each with its rule id, the node, its operands and where it comes from.

Rules are registered functions that yield breaches; ids are those of docs/ir.md section 10. `canonical` adds the rules that hold after
canonicalisation only, `narrowed` those after `narrow`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, fields, replace
from math import prod
from typing import Any

from ..errors import SpatialcError
from . import expr as ex
from .access import order_of
from .compose import digits
from .graph import (
    Access,
    Constant,
    ConstantRef,
    Contract,
    Gather,
    Graph,
    Group,
    Index,
    Input,
    Lookup,
    Map,
    Move,
    Nest,
    Node,
    Piece,
    Reduce,
    Repeat,
    Scan,
    Scatter,
    Sort,
    State,
)
from .interval import intervals_of
from .normal import mergeable
from .text import print_node
from .types import BOOL, DTYPES, F16, F32, F64, I8, I32, I64, DType

REDUCE_OPS = ("sum", "prod", "max", "min", "any", "all", "argmax", "argmin")
SCAN_OPS = ("add", "mul", "max", "min", "linear")
SCATTER_MODES = ("set", "add", "max", "min")
OPERAND_COUNTS: dict[type[Node], tuple[int, int]] = {
    Input: (0, 0), Constant: (0, 0), State: (0, 0), Map: (0, 1 << 20), Reduce: (0, 1 << 20), Contract: (2, 2), Move: (1, 1 << 20),
    Gather: (2, 1 << 20), Scatter: (2, 1 << 20), Sort: (1, 1), Scan: (1, 3),
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Breach:
    """One broken rule. `lines` are the node and its operands in text form, `origin` is where the node comes from."""

    rule: str
    node: int
    message: str
    lines: tuple[str, ...] = ()
    origin: str = ""

    def __str__(self) -> str:
        where = f" ({self.origin})" if self.origin else ""
        shown = "".join(f"\n    {line}" for line in self.lines)
        return f"{self.rule} %{self.node}: {self.message}{where}{shown}"


class VerificationError(SpatialcError):
    """A graph that breaks the rules of the IR: a defect of the pass that made it. `breaches` lists all of them."""

    def __init__(self, breaches: Sequence[Breach], after: str = "") -> None:
        self.breaches = tuple(breaches)
        head = f"{len(breaches)} breaches of the IR's rules" + (f" after {after}" if after else "")
        super().__init__("\n".join([head, *map(str, self.breaches[:20])]))


Found = Iterator[tuple[str, str]]  # (rule, message)
_NodeRule = Callable[[Graph, Node], Found]
_NODE_RULES: list[_NodeRule] = []


def _node_rule(function: _NodeRule) -> _NodeRule:
    _NODE_RULES.append(function)
    return function


def verify(graph: Graph, *, canonical: bool = False, narrowed: bool = False) -> list[Breach]:
    """All breaches, in node order. An empty list is a legal graph."""
    found: list[Breach] = []
    broken = False
    for position, node in enumerate(graph.nodes):
        issues = list(_identity(graph, node, position))
        broken |= bool(issues)
        if not issues:
            issues = list(_structure(graph, node))
        if not issues:
            for rule in _NODE_RULES:
                issues.extend(rule(graph, node))
        if not issues and canonical:
            issues = list(_canonical(graph, node))
        found.extend(_breach(graph, node, *issue) for issue in issues)
    found.extend(_graph_rules(graph))
    if not found and not broken:
        known = intervals_of(graph)
        for node in graph.nodes:
            if isinstance(node, Gather):
                found.extend(_breach(graph, node, *issue) for issue in _index_range(graph, node, known))
    if narrowed:
        border = {*graph.outputs}
        for node in graph.nodes:
            wide = node.dtype is I64 or any(e.dtype is I64 and e.op != "axis" for e in _entries(node))
            if wide and not isinstance(node, Input) and node.id not in border:
                found.append(_breach(graph, node, "IR-041", "i64 inside a narrowed graph"))
    return sorted(found, key=lambda b: (b.node, b.rule))


def require(graph: Graph, after: str = "", *, canonical: bool = False, narrowed: bool = False) -> None:
    """Raises VerificationError where `verify` finds anything."""
    breaches = verify(graph, canonical=canonical, narrowed=narrowed)
    if breaches:
        raise VerificationError(breaches, after)


def _line(node: Node) -> str:
    try:
        return print_node(node)
    except Exception:  # a malformed node has no text form; the breach still names it
        return f"%{node.id}: {node.kind} (no text form)"


def _breach(graph: Graph, node: Node, rule: str, message: str) -> Breach:
    operands = [graph.nodes[o] for o in node.operands if 0 <= o < len(graph.nodes)]
    origin = " | ".join(p for p in (", ".join(node.origin.fx), node.origin.module, node.origin.source) if p)
    return Breach(rule, node.id, message, tuple(map(_line, [node, *dict.fromkeys(operands)])), origin)


def _entries(node: Node) -> tuple[ex.Expr, ...]:
    return ex.postorder(node.expr) if isinstance(node, Map | Reduce) else ()


# --- IR-001 to IR-003: what every later rule relies on ---------------------------------------------------------------------------------


def _identity(graph: Graph, node: Node, position: int) -> Found:
    if node.id != position:
        yield "IR-001", f"id {node.id} at position {position}"
    for operand in node.operands:
        if not 0 <= operand < position:
            yield "IR-001", f"operand %{operand} does not precede its user"


def _structure(graph: Graph, node: Node) -> Found:
    if not isinstance(node.dtype, DType) or DTYPES.get(node.dtype.name) is not node.dtype:
        yield "IR-002", f"unknown element type {node.dtype!r}"
    if any(not isinstance(e, int) or e < 1 for e in node.shape):
        yield "IR-002", f"shape {list(node.shape)} has an extent below 1"
    low, high = OPERAND_COUNTS.get(type(node), (-1, -1))
    if not low <= len(node.operands) <= high:
        yield "IR-003", f"{node.kind} with {len(node.operands)} operands"
    missing = [f.name for f in fields(node) if getattr(node, f.name, None) is None and f.name not in ("range", "initial", "fill")]
    if missing:
        yield "IR-003", f"{node.kind} lacks {', '.join(missing)}"
        return
    if isinstance(node, Nest) and len(node.accesses) != len(node.operands):
        yield "IR-003", f"{len(node.accesses)} accesses for {len(node.operands)} operands"
    if isinstance(node, Scatter) and len(node.accesses) != len(node.operands) - 1:
        yield "IR-003", f"{len(node.accesses)} accesses for {len(node.operands) - 1} operands after the base"
    if isinstance(node, Move) and not node.pieces:
        yield "IR-003", "Move without pieces"
    if isinstance(node, Move):
        for piece in node.pieces:
            if not 0 <= piece.operand < len(node.operands):
                yield "IR-003", f"a piece reads operand number {piece.operand} of {len(node.operands)}"
            if {len(piece.groups), len(piece.corner), len(piece.step)} != {len(node.shape)}:
                yield "IR-003", f"a piece has another rank than the result {list(node.shape)}"
    if isinstance(node, Nest):
        if any(not 0 <= a < len(node.axes) for a in order_of(node.groups)):
            yield "IR-010", f"a group names an axis that does not exist in {list(node.axes)}"
        elif _group_shape(node.axes, node.groups) != node.shape:
            yield "IR-002", f"groups give {list(_group_shape(node.axes, node.groups))}, the shape is {list(node.shape)}"


def _group_shape(axes: Sequence[int], groups: Sequence[Group]) -> tuple[int, ...]:
    return tuple(prod(axes[a] for a in group) for group in groups)


# --- accesses --------------------------------------------------------------------------------------------------------------------------


def _access(access: Access, shape: Sequence[int], axes: Sequence[int], lookups: bool) -> Found:
    if len(access) != len(shape):
        yield "IR-010", f"an access of {len(access)} entries reads an operand of {len(shape)} dimensions"
        return
    for d, entry in enumerate(access):
        if isinstance(entry, Lookup):
            if not lookups:
                yield "IR-010", f"a lookup on dimension {d} of an operand that has affine accesses only"
            continue
        numbers = [a for a, _ in entry.terms]
        if numbers != sorted(set(numbers)) or any(c == 0 for _, c in entry.terms) or any(not 0 <= a < len(axes) for a in numbers):
            yield "IR-010", f"terms {entry.terms} on dimension {d} are not ascending, non-zero and of existing axes"
            continue
        low, high = entry.bounds(axes)
        if low < 0 or high >= shape[d]:
            yield "IR-011", f"positions {low} to {high} leave dimension {d} of extent {shape[d]}"


def _axes(axes: Sequence[int]) -> Found:
    if any(e < 2 for e in axes):
        yield "IR-010", f"axes {list(axes)} have an extent below 2"


@_node_rule
def _nest(graph: Graph, node: Node) -> Found:
    if not isinstance(node, Nest):
        return
    yield from _axes(node.axes)
    order = order_of(node.groups)
    if len(set(order)) != len(order):
        yield "IR-012", "an axis is in two groups"
    if isinstance(node, Map | Gather) and len(set(order)) != len(node.axes):
        yield "IR-012", f"an axis of a {node.kind} is in no group"
    for number, (operand, access) in enumerate(zip(node.operands, node.accesses, strict=True)):
        yield from _access(access, graph[operand].shape, node.axes, isinstance(node, Gather) and number == 0)


# --- expressions and types -------------------------------------------------------------------------------------------------------------


@_node_rule
def _expression(graph: Graph, node: Node) -> Found:
    if not isinstance(node, Map | Reduce):
        return
    used = set()
    for entry in ex.postorder(node.expr):
        if entry.op == "arg":
            used.add(entry.index)
            if not 0 <= entry.index < len(node.operands):
                yield "IR-020", f"the expression reads operand {entry.index} of {len(node.operands)}"
            elif graph[node.operands[entry.index]].dtype is not entry.dtype:
                yield "IR-020", f"operand {entry.index} is {graph[node.operands[entry.index]].dtype}, the expression reads {entry.dtype}"
        elif entry.op == "axis" and not 0 <= entry.index < len(node.axes):
            yield "IR-020", f"the expression uses axis {entry.index} of {len(node.axes)}"
        elif entry.args and entry.op != "cast":
            yield from _entry_types(entry)
    unused = set(range(len(node.operands))) - used
    if unused:
        yield "IR-020", f"operands {sorted(unused)} are not used"


def _entry_types(entry: ex.Expr) -> Found:
    if entry.op not in ex.OPS or len(entry.args) != ex.OPS[entry.op].arity:
        yield "IR-020", f"no operator {entry.op} of {len(entry.args)} operands"
        return
    values = entry.args[1:] if entry.op == "select" else entry.args
    if any(v.dtype is not values[0].dtype for v in values):
        yield "IR-020", f"{entry.op} has mixed operands {', '.join(v.dtype.name for v in values)}"
    if entry.op == "select" and entry.args[0].dtype is not BOOL:
        yield "IR-020", f"select on {entry.args[0].dtype}"
    result = BOOL if ex.OPS[entry.op].gives == "bool" else values[0].dtype
    if entry.dtype is not result:
        yield "IR-020", f"{entry.op} of {values[0].dtype} says it gives {entry.dtype}"


@_node_rule
def _types(graph: Graph, node: Node) -> Found:
    if isinstance(node, Map) and node.expr.dtype is not node.dtype:
        yield "IR-021", f"the expression gives {node.expr.dtype}, the node says {node.dtype}"
    elif isinstance(node, Reduce):
        if node.op not in REDUCE_OPS:
            yield "IR-021", f"unknown reduction {node.op!r}"
        wanted = I64 if node.op in ("argmax", "argmin") else node.expr.dtype
        if node.dtype is not wanted and not (wanted is I64 and node.dtype.is_int):
            yield "IR-021", f"{node.op} of {node.expr.dtype} gives {wanted}, the node says {node.dtype}"
        if node.op in ("any", "all") and node.expr.dtype is not BOOL:
            yield "IR-021", f"{node.op} of {node.expr.dtype}"
    elif isinstance(node, Contract):
        first, second = (graph[o].dtype for o in node.operands)
        if first is not second:
            yield "IR-021", f"operands {first} and {second} of one contraction"
        if node.acc not in accumulators(first):
            yield "IR-021", f"{first} operands do not accumulate in {node.acc}"
    elif isinstance(node, Gather | Scatter | Scan):
        reads = node.operands[:1] if isinstance(node, Gather) else node.operands[:2] if isinstance(node, Scatter) else node.operands
        if any(graph[o].dtype is not node.dtype for o in reads):
            yield "IR-021", f"{node.kind} of {', '.join(graph[o].dtype.name for o in reads)} says it gives {node.dtype}"
    elif isinstance(node, Move) and any(graph[o].dtype is not node.dtype for o in node.operands):
        yield "IR-021", f"pieces of {', '.join(graph[o].dtype.name for o in node.operands)} in a Move of {node.dtype}"
    elif isinstance(node, Sort) and not node.dtype.is_int:
        yield "IR-021", f"an order is an integer, the node says {node.dtype}"


def accumulators(operand: DType) -> tuple[DType, ...]:
    """Accumulation types that a contraction of such operands may have."""
    if operand is F64:
        return (F64,)
    if operand.is_float:
        return (F32, F16) if operand is F16 else (F32,)
    return (I32,) if operand is I8 else (I32, I64)


# --- Move, Gather, Scatter, Sort, Scan -------------------------------------------------------------------------------------------------


@_node_rule
def _move(graph: Graph, node: Node) -> Found:
    if not isinstance(node, Move):
        return
    inside = True
    for piece in node.pieces:
        yield from _axes(piece.axes)
        order = order_of(piece.groups)
        if sorted(order) != list(range(len(piece.axes))):
            yield "IR-030", "a piece needs every axis in exactly one group"
            inside = False
            continue
        yield from _access(piece.access, graph[node.operands[piece.operand]].shape, piece.axes, False)
        for d, (corner, step, extent) in enumerate(zip(piece.corner, piece.step, piece.shape, strict=True)):
            if corner < 0 or step < 1 or corner + step * (extent - 1) >= node.shape[d]:
                yield "IR-030", f"a piece from {corner} by {step} of {extent} leaves dimension {d} of extent {node.shape[d]}"
                inside = False
    if inside and node.fill is None and not covers(node.pieces, node.shape):
        yield "IR-030", "pieces leave a gap and there is no fill"


def _lattice(piece: Piece, d: int) -> frozenset[int]:
    return frozenset(range(piece.corner[d], piece.corner[d] + piece.step[d] * piece.shape[d], piece.step[d]))


def covers(pieces: Sequence[Piece], shape: Sequence[int]) -> bool:
    """True where the pieces together write every element: exact, by cutting each dimension where the set of pieces changes."""

    def full(candidates: Sequence[Piece], d: int) -> bool:
        if d == len(shape):
            return bool(candidates)
        lattices = [_lattice(p, d) for p in candidates]
        signatures = {tuple(position in lattice for lattice in lattices) for position in range(shape[d])}
        return all(full([p for p, hit in zip(candidates, s, strict=True) if hit], d + 1) for s in signatures)

    return full(list(pieces), 0)


@_node_rule
def _lookups(graph: Graph, node: Node) -> Found:
    if isinstance(node, Gather):
        rule, access, first = "IR-031", node.accesses[0], 1
        if not any(isinstance(e, Lookup) for e in access):
            yield rule, "a Gather without a lookup is a view"
    elif isinstance(node, Scatter):
        rule, access, first = "IR-032", node.target, 2
        yield from _axes(node.axes)
        yield from (("IR-032", m) for _, m in _access(access, node.shape, node.axes, True))
        for operand, read in zip(node.operands[1:], node.accesses, strict=True):
            yield from _access(read, graph[operand].shape, node.axes, False)
        if node.mode not in SCATTER_MODES:
            yield rule, f"unknown mode {node.mode!r}"
        if graph[node.operands[0]].shape != node.shape:
            yield rule, f"the base is {list(graph[node.operands[0]].shape)}, the result {list(node.shape)}"
    else:
        return
    used = {e.operand for e in access if isinstance(e, Lookup)}
    wanted = set(range(first, len(node.operands)))
    if used != wanted:
        yield rule, f"lookups name operands {sorted(used)}, index operands are {sorted(wanted)}"
    for number in sorted(wanted):
        if not graph[node.operands[number]].dtype.is_int:
            yield rule, f"index operand {number} is {graph[node.operands[number]].dtype}"


def _index_range(graph: Graph, node: Gather, known: Sequence[Any]) -> Found:
    shape = graph[node.operands[0]].shape
    for d, entry in enumerate(node.accesses[0]):
        if isinstance(entry, Lookup):
            low, high = known[node.operands[entry.operand]].limits
            if high < 0 or low >= shape[d]:
                yield "IR-031", f"every index ({low} to {high}) is outside dimension {d} of extent {shape[d]}"


@_node_rule
def _order(graph: Graph, node: Node) -> Found:
    if isinstance(node, Sort):
        shape = graph[node.operands[0]].shape
        if not 0 <= node.axis < len(shape):
            yield "IR-033", f"axis {node.axis} of an operand of rank {len(shape)}"
        elif not 1 <= node.count <= shape[node.axis]:
            yield "IR-033", f"first {node.count} of {shape[node.axis]}"
        elif node.shape != (*shape[: node.axis], node.count, *shape[node.axis + 1 :]):
            yield "IR-033", f"the order of {list(shape)} has another shape than {list(node.shape)}"
    elif isinstance(node, Scan):
        shapes = [graph[o].shape for o in node.operands]
        if node.op not in SCAN_OPS:
            yield "IR-033", f"unknown scan {node.op!r}"
        if not 0 <= node.axis < len(shapes[0]):
            yield "IR-033", f"axis {node.axis} of an operand of rank {len(shapes[0])}"
            return
        line = (*shapes[0][: node.axis], *shapes[0][node.axis + 1 :])
        count_ok = len(shapes) in (2, 3) if node.op == "linear" else len(shapes) == 1
        if not count_ok or any(s != node.shape for s in shapes[:2]) or any(s != line for s in shapes[2:]):
            yield "IR-033", f"{node.op} of operands {', '.join(str(list(s)) for s in shapes)} gives {list(node.shape)}"


# --- canonical graphs ------------------------------------------------------------------------------------------------------------------


def _canonical(graph: Graph, node: Node) -> Found:
    if isinstance(node, Reduce) and not node.reduced:
        yield "IR-012", "a Reduce without a reduced axis is a Map"
    if isinstance(node, Contract) and not node.reduced:
        yield "IR-012", "a Contract without a summed axis is a Map"
    nests = node.pieces if isinstance(node, Move) else [node] if isinstance(node, Nest | Scatter) else []
    for nest in nests:
        pair = mergeable(nest)  # type: ignore[arg-type]
        if pair:
            yield "IR-013", f"axes {pair[0]} and {pair[1]} are walked as one"
    if isinstance(node, Map | Reduce | Contract | Gather):
        for operand, access in zip(node.operands, node.accesses, strict=True):
            view = graph[operand]
            if isinstance(view, Move) and view.is_view and all(isinstance(e, Index) for e in access):
                piece = view.pieces[0]
                affine = [e for e in access if isinstance(e, Index)]
                if isinstance(digits(affine, node.axes, piece.groups, piece.axes), dict):
                    yield "IR-030", f"the view %{operand} composes into this node"


# --- the graph as a whole --------------------------------------------------------------------------------------------------------------


def _graph_rules(graph: Graph) -> Iterator[Breach]:
    count = len(graph.nodes)
    for what, ids in (("output", graph.outputs), ("update", tuple(graph.updates.values()))):
        for value in ids:
            if not 0 <= value < count:
                yield Breach("IR-001", value, f"{what} names a node that does not exist; there are {count}")
    yield from _names(graph)
    yield from _regions(graph)
    for repeat in graph.repeats:
        message = repeat_breach(graph, repeat)
        if message:
            yield Breach("IR-050", repeat.start, message)


def _names(graph: Graph) -> Iterator[Breach]:
    keys: dict[tuple[str, DType, tuple[int, ...]], int] = {}
    for node in graph.constants:
        key = (node.ref.key, node.ref.dtype, node.ref.shape)
        if key in keys:
            yield _breach(graph, node, "IR-040", f"constant {node.ref.key!r} is also %{keys[key]}")
        keys[key] = node.id
        if (node.ref.dtype, node.ref.shape) != (node.dtype, node.shape):
            yield _breach(graph, node, "IR-040", f"the constant is {node.ref.dtype}{list(node.ref.shape)}, the node says otherwise")
    names: dict[str, int] = {}
    named: list[State | Input] = [*graph.states, *graph.inputs]
    for state in named:
        if state.name in names:
            yield _breach(graph, state, "IR-040", f"{state.name!r} is also the name of %{names[state.name]}")
        names[state.name] = state.id
    states = {n.name: n for n in graph.states}
    for name, value in graph.updates.items():
        if name not in states:
            yield Breach("IR-040", value, f"an update of {name!r}, which is no state")
        elif 0 <= value < len(graph.nodes):
            before, after = states[name], graph[value]
            if (before.shape, before.dtype) != (after.shape, after.dtype):
                message = f"state {name!r} is {before.dtype}{list(before.shape)}, its update {after.dtype}{list(after.shape)}"
                yield _breach(graph, after, "IR-040", message)


def _regions(graph: Graph) -> Iterator[Breach]:
    owner: dict[int, int] = {}
    for number, region in enumerate(graph.regions):
        first = min(region.nodes, default=0)
        if len(region.roles) != len(region.nodes) or not region.nodes:
            yield Breach("IR-050", first, f"region {region.kind} has {len(region.nodes)} nodes and {len(region.roles)} roles")
        for node in region.nodes:
            if not 0 <= node < len(graph.nodes):
                yield Breach("IR-050", node, f"region {region.kind} names a node that does not exist")
            elif node in owner:
                yield _breach(graph, graph[node], "IR-050", f"in two regions, {graph.regions[owner[node]].kind} and {region.kind}")
            owner[node] = number
        if all(0 <= n < len(graph.nodes) for n in region.nodes) and not is_convex(graph, region.nodes):
            yield Breach("IR-050", first, f"region {region.kind} is not convex: a path leaves it and comes back")


def is_convex(graph: Graph, nodes: Sequence[int]) -> bool:
    """True where no path between two of `nodes` runs through a node outside."""
    inside = set(nodes)
    outside_after: set[int] = set()  # nodes outside that depend on a node inside
    for node in graph.nodes[min(inside) : max(inside) + 1]:
        behind = any(o in outside_after for o in node.operands)
        if node.id in inside:
            if behind:
                return False
        elif behind or any(o in inside for o in node.operands):
            outside_after.add(node.id)
    return True


def repeat_breach(graph: Graph, repeat: Repeat) -> str | None:
    """Why the copies of a repeat do not correspond, or None."""
    start, period, count = repeat.start, repeat.period, repeat.count
    if start < 0 or period < 1 or count < 2 or start + period * count > len(graph.nodes):
        return f"repeat from {start} of {count} copies of {period} nodes leaves the graph of {len(graph.nodes)}"
    for r in range(period):
        for c in range(1, count):
            before, node = graph[start + (c - 1) * period + r], graph[start + c * period + r]
            if token(before) != token(node):
                return f"%{before.id} and %{node.id} differ in more than ids"
            for a, b in zip(before.operands, node.operands, strict=True):
                if not corresponds(graph, repeat, c, a, b):
                    return f"operands %{a} of %{before.id} and %{b} of %{node.id} do not correspond"
    return None


def corresponds(graph: Graph, repeat: Repeat, copy: int, before: int, now: int) -> bool:
    """Operands of one position in the first copy, in copy - 1 and in `copy`: the same place of a copy, one outside node, or equal sources.

    The first copy may take from outside what later copies take from the copy before them (the layer's input).
    """
    low = repeat.start
    end = low + repeat.period * repeat.count
    if now < low or now >= end:
        if before == now:
            return True
        a, b = graph[before], graph[now]
        same = (a.dtype, a.shape) == (b.dtype, b.shape)
        if isinstance(a, Constant) and isinstance(b, Constant):
            return same and a.ref.storage == b.ref.storage
        return same and isinstance(a, State) and isinstance(b, State)
    place, owner = (now - low) % repeat.period, (now - low) // repeat.period
    if before == now:  # one node inside the first copy, read by all, is no correspondence
        return False
    if owner == copy:
        return before == now - repeat.period
    if owner != copy - 1:
        return False
    if copy == 1:
        earlier = graph[before]
        return (earlier.dtype, earlier.shape) == (graph[now].dtype, graph[now].shape) and not low <= before < end
    return before == low + (copy - 2) * repeat.period + place


def token(node: Node) -> tuple[Any, ...]:
    """What corresponding nodes of a repeat have in common: everything but ids, constant keys and state names."""
    if isinstance(node, Constant):
        ref: ConstantRef = replace(node.ref, key="")
        return (Constant, node.dtype, node.shape, ref)
    if isinstance(node, State | Input):
        return (type(node), node.dtype, node.shape, node.range)
    skipped = ("id", "operands", "origin")
    return (type(node), *(getattr(node, f.name) for f in fields(node) if f.name not in skipped))
