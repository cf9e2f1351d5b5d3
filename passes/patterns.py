"""Shapes of computation that passes look for: softmax and norm, matched on nodes and expressions, never on module names.

A match starts at a seed (a Reduce) and follows its users; no subgraph search.
"""

from __future__ import annotations

from dataclasses import dataclass

from ..ir import expr as ex
from ..ir.graph import Contract, Graph, Index, Map, Node, Reduce


@dataclass(frozen=True, slots=True)
class Softmax:
    """m = max(s), e = exp(s - m), l = sum(e), p = e / l. `scores` is s where a node holds it, `exp` e where it is not inside the sum."""

    scores: int | None
    max: int
    exp: int | None
    sum: int
    scale: int | None

    @property
    def nodes(self) -> tuple[int, ...]:
        return tuple(n for n in (self.max, self.exp, self.sum, self.scale) if n is not None)


@dataclass(frozen=True, slots=True)
class Norm:
    """A sum of squares and the Map that scales by its root; `mean` is the sum before it where the values are centred first."""

    mean: int | None
    squares: int
    scale: int


def reads_under(root: ex.Expr, op: str) -> list[set[int]]:
    """For every entry `op` of an expression, the operands read below it."""
    return [set(ex.args_of(entry)) for entry in ex.postorder(root) if entry.op == op]


def find_softmax(graph: Graph) -> list[Softmax]:
    """Every softmax (and log-softmax) in order of its maximum."""
    found = []
    for node in graph.nodes:
        if isinstance(node, Reduce) and node.op == "max" and node.dtype.is_float:
            match = _softmax(graph, node)
            if match is not None:
                found.append(match)
    return found


def _exponentiates(node: Node, maximum: int) -> bool:
    """Whether an expression has exp(something - maximum)."""
    if not isinstance(node, Map | Reduce) or maximum not in node.operands:
        return False
    number = {n for n, o in enumerate(node.operands) if o == maximum}
    for entry in ex.postorder(node.expr):
        if entry.op == "exp" and entry.args[0].op in ("sub", "add") and number & set(ex.args_of(entry.args[0])):
            return True
    return False


def _softmax(graph: Graph, maximum: Reduce) -> Softmax | None:
    users = [graph[u] for u in graph.users[maximum.id]]
    scores = next((o for o in maximum.operands if isinstance(graph[o], Map | Contract) and graph[o].dtype.is_float), None)
    for user in users:
        if isinstance(user, Reduce) and user.op == "sum" and _exponentiates(user, maximum.id):
            return Softmax(scores, maximum.id, None, user.id, _scale(graph, user.id, {maximum.id, *maximum.operands}))
    for user in users:
        if not isinstance(user, Map) or not _exponentiates(user, maximum.id):
            continue
        for reader in graph.users[user.id]:
            total = graph[reader]
            if isinstance(total, Reduce) and total.op == "sum":
                return Softmax(scores, maximum.id, user.id, total.id, _scale(graph, total.id, {user.id}))
    return None


def _scale(graph: Graph, total: int, values: set[int]) -> int | None:
    """The Map that divides by the sum (or takes its logarithm)."""
    for reader in graph.users[total]:
        node = graph[reader]
        if isinstance(node, Map) and values & set(node.operands):
            return node.id
    return None


def is_sum_of_squares(node: Node) -> bool:
    """A sum whose expression is a product of one value with itself."""
    return isinstance(node, Reduce) and node.op == "sum" and node.expr.op == "mul" and node.expr.args[0] is node.expr.args[1]


def find_norms(graph: Graph) -> list[Norm]:
    """Every root-mean-square or variance normalisation, in order."""
    found = []
    for node in graph.nodes:
        if not isinstance(node, Reduce) or not is_sum_of_squares(node):
            continue
        number = None
        for reader in graph.users[node.id]:
            user = graph[reader]
            rooted = isinstance(user, Map) and any(
                {user.operands[a] for a in group} & {node.id} for op in ("rsqrt", "sqrt", "recip") for group in reads_under(user.expr, op)
            )
            if rooted:
                number = user.id
                break
        if number is not None:
            mean = next((o for o in node.operands if isinstance(graph[o], Reduce)), None)
            shared = mean is not None and mean in graph[number].operands
            found.append(Norm(mean if shared else None, node.id, number))
    return found


def same_box(reader: Map, operand: int, producer: Node) -> bool:
    """Whether `reader` walks the whole of `producer`, element by element in the same order of dimensions, whatever it reads besides."""
    access = reader.accesses[operand]
    if reader.size != producer.size:
        return False
    used: set[int] = set()
    for entry, extent in zip(access, producer.shape, strict=True):
        if not isinstance(entry, Index) or entry.offset or entry.bounds(reader.axes) != (0, extent - 1):
            return False
        used |= {a for a, _ in entry.terms}
    return len(used) == len(reader.axes)
