"""Number formats: which type every value has at rest, what contractions take, and where a value stays f32 whatever the table says.

A policy is one row of `POLICIES`. Arithmetic inside a Map or Reduce is f32 on every machine here; what a policy decides is the type in
which values are stored between nodes and the operand type of contractions (with f32 accumulation). Every rounding is then visible in the
graph, and the interpreter predicts the error.

Contractions of few rows with a constant are *wide*: the activation and the result stay f32, and the weight is f32 rounded to its stored
half format. A machine multiplies such an activation in two half-precision pieces, which costs little where it waits for weights anyway.
Each rounding of an activation to f16 is a step, and later layers amplify it: in a deep trained model two executions that differ in the
order of their sums alone part by as much as f16 costs in all, unless the steps are taken out.

Stay f32 everywhere: results of Reduce and Scan, the inside of a softmax (scores to exponentials), graph inputs and outputs, values that a
Sort or arg-max compares, squares, angles, residual sums (they grow from layer to layer, in trained models to within a factor of three of
what f16 holds, and every later layer reads their rounding) and values with finite members beyond 65504 (masks filled with finfo.min,
which f16 would turn into -inf and a fully masked row into NaN).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np

from ..errors import BadInput
from ..ir import expr as ex
from ..ir.access import contract_size
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
    Sort,
)
from ..ir.store import ConstantStore
from ..ir.types import F16, F32, DType
from ..ir.verify import require
from .base import Pass
from .convert import add_cast
from .patterns import find_softmax
from .quantise import stored_as

F16_MAX = 65504.0
_MOST_CHECKED = 1 << 24  # elements of a constant whose range is looked at; larger ones are weights


@dataclass(frozen=True)
class Policy:
    """`operands` of contractions, type of values `rest`ing between nodes, and the `weights` storage of `passes.quantise`.

    Contractions of at most `wide_rows` rows with a constant take f32 activations.
    """

    operands: DType
    rest: DType
    weights: str = "dense"
    wide_rows: int = 0


WIDE_ROWS = 32
"""Below 20 rows of f16 the TSP's planes wait for weights (docs/tsp-model.md section 3), so up to 10 rows the second piece is free there;
up to here it costs a tenth of the cycles of a whole model."""

POLICIES: dict[tuple[str, str], Policy] = {
    ("tsp", "fp16"): Policy(F16, F32, wide_rows=WIDE_ROWS),
    ("wafer", "fp16"): Policy(F16, F16, wide_rows=WIDE_ROWS),
    ("wafer", "fp32"): Policy(F32, F32),
    ("cgla", "fp32"): Policy(F32, F32),
    ("cgla", "fp16"): Policy(F32, F32, "f16"),
    ("cgla", "q8_0"): Policy(F32, F32, "q8_0"),
}


def policy_of(target: str, precision: str) -> Policy:
    """The row of the table. Raises BadInput for a format that the target lacks."""
    if (target, precision) not in POLICIES:
        known = sorted(p for t, p in POLICIES if t == target)
        raise BadInput(f"{target} has no precision {precision!r}; it has {', '.join(known) or 'none'}")
    return POLICIES[target, precision]


@dataclass(frozen=True)
class Precision(Pass):
    """Gives every float value its type by the policy."""

    name: ClassVar[str] = "precision"
    operands: DType = F32
    rest: DType = F32
    wide_rows: int = 0

    def run(self, graph: Graph, store: ConstantStore) -> Graph:
        graph = all_f32(graph, store)
        if self.operands is F32 and self.rest is F32:
            return graph
        wide = _wide(graph, self.wide_rows)
        return retyped(graph, store, _assigned(graph, store, self.operands, self.rest, wide), self.operands, wide)

    def ensures(self, graph: Graph) -> None:
        require(graph, self.name)


# --- everything f32 --------------------------------------------------------------------------------------------------------------------


def all_f32(graph: Graph, store: ConstantStore) -> Graph:
    """The graph with every other float type replaced by f32, roundings of half formats inside expressions included."""
    if not any(_half_or_double(node) for node in graph.nodes):
        return graph
    builder = GraphBuilder()
    new_id: list[int] = []
    for node in graph.nodes:
        operands = tuple(new_id[o] for o in node.operands)
        dtype = F32 if node.dtype.is_float else node.dtype
        new: Node = replace(node, operands=operands, dtype=dtype)
        if isinstance(new, Map | Reduce):
            new = replace(new, expr=_expr_f32(new.expr))
        elif isinstance(new, Contract) and new.acc.is_float:
            new = replace(new, acc=F32)
        elif isinstance(node, Constant) and node.dtype is not dtype:
            new = constant_as(node, dtype, store)
        new_id.append(builder.add(new))
    return builder.finish([new_id[o] for o in graph.outputs], {k: new_id[v] for k, v in graph.updates.items()})


def _half_or_double(node: Node) -> bool:
    if node.dtype.is_float and node.dtype is not F32:
        return True
    if isinstance(node, Contract):
        return node.acc.is_float and node.acc is not F32
    return isinstance(node, Map | Reduce) and any(e.dtype.is_float and e.dtype is not F32 for e in ex.postorder(node.expr))


def _expr_f32(root: ex.Expr) -> ex.Expr:
    done: dict[int, ex.Expr] = {}
    for entry in ex.postorder(root):
        dtype = F32 if entry.dtype.is_float else entry.dtype
        args = [done[id(a)] for a in entry.args]
        if entry.op == "arg":
            made = ex.arg(entry.index, dtype)
        elif entry.op == "const" and entry.value is not None:
            made = ex.const(entry.value, dtype)
        elif entry.op == "cast":
            made = ex.cast(args[0], dtype)
        else:
            made = ex.rebuild(entry, args) if args else entry
        done[id(entry)] = made
    return done[id(root)]


def constant_as(node: Constant, dtype: DType, store: ConstantStore) -> Constant:
    """The constant in another float type, under a key of its own (its value is converted when asked for)."""
    old, key = node.ref.key, f"{node.ref.key}:{dtype}"
    if store.has(old):
        store.put(key, lambda: np.asarray(store.get(old)).astype(dtype.array))
    return replace(node, dtype=dtype, ref=ConstantRef(key, dtype, node.shape))


# --- which type ------------------------------------------------------------------------------------------------------------------------


def _wide(graph: Graph, rows: int) -> frozenset[int]:
    """Contractions of a computed value with a constant in which an element of the constant meets at most `rows` rows."""
    found = []
    for node in graph.nodes:
        if not isinstance(node, Contract) or not node.dtype.is_float:
            continue
        constant = [isinstance(graph[o], Constant) for o in node.operands]
        if sum(constant) == 1:
            size = contract_size(node)
            found += [node.id] if (size.m if constant[1] else size.n) <= rows else []
    return frozenset(found)


def _assigned(graph: Graph, store: ConstantStore, operands: DType, rest: DType, wide: frozenset[int]) -> list[DType]:
    """The type of every node: f16 where it may be and the policy wants it."""
    fixed = _stays_f32(graph, store)
    halves = _only_contracted(graph, fixed, wide) if operands is F16 else [False] * len(graph.nodes)
    around = wide | {o for n in wide for o in graph[n].operands if not isinstance(graph[o], Constant)}
    around |= {n.id for n in graph.nodes if isinstance(n, Contract) and _only_mapped(graph, n)}
    dtypes: list[DType] = []
    for node in graph.nodes:
        wanted = F16 if halves[node.id] or (rest is F16 and not fixed[node.id] and node.id not in around) else F32
        if not node.dtype.is_float:
            wanted = node.dtype
        elif isinstance(node, Gather):
            wanted = dtypes[node.operands[0]]
        elif isinstance(node, Constant) and operands is F16 and rest is F32:
            wanted = F16 if _is_table(graph, node) and not fixed[node.id] else F32
        dtypes.append(wanted)
    for name, update in graph.updates.items():  # a state has one type before and after the run
        state = next(n for n in graph.states if n.name == name)
        if dtypes[state.id] is not dtypes[update]:
            dtypes[state.id] = dtypes[update] = F32
    return dtypes


def _only_mapped(graph: Graph, node: Contract) -> bool:
    """Whether only Maps and Reduces read a contraction: the sum that they start from is rounded once, when their result is stored."""
    return all(isinstance(graph[u], Map | Reduce) for u in graph.users[node.id])


def _is_table(graph: Graph, node: Constant) -> bool:
    """Whether a constant is only looked up and contracted: such tables are held in the operand format."""
    users = [graph[u] for u in graph.users[node.id]]
    return bool(users) and all(isinstance(u, Contract) or (isinstance(u, Gather) and u.operands[0] == node.id) for u in users)


def _only_contracted(graph: Graph, fixed: list[bool], wide: frozenset[int]) -> list[bool]:
    """Values that reach nothing but contractions, through assemblies, lookups and states: they are best made in the operand type.

    What a contraction of `wide` reads is not of that type, unless it is its constant.
    """
    states = {graph.updates[n.name]: n.id for n in graph.states if n.name in graph.updates}
    refused: set[int] = set()
    roots = set(graph.outputs)
    while True:
        half = [False] * len(graph.nodes)
        for node in reversed(graph.nodes):
            users = [graph[u] for u in graph.users[node.id]]
            reaches = all((isinstance(u, Contract) and u.id not in wide) or (_carries(u, node.id) and half[u.id]) for u in users)
            kept_for_state = states.get(node.id) not in refused if node.id in states else bool(users)
            free = node.dtype.is_float and node.id not in roots and not fixed[node.id] and node.id not in refused
            half[node.id] = reaches and free and kept_for_state and not isinstance(node, Input)
        wrong = {s for u, s in states.items() if half[u] != half[s]}
        if not wrong - refused:
            return half
        refused |= wrong | {u for u, s in states.items() if s in wrong}


def _carries(user: Node, operand: int) -> bool:
    """Whether a node hands on the values of an operand unchanged."""
    if isinstance(user, Gather):
        return user.operands[0] == operand
    return isinstance(user, Move) or (isinstance(user, Scatter) and operand in user.operands[:2])


def _stays_f32(graph: Graph, store: ConstantStore) -> list[bool]:
    """Values that must not be rounded to f16, for the reasons that the module says."""
    fixed = [isinstance(n, Reduce | Scan | Input) or _beyond_f16(n, store) for n in graph.nodes]
    for output in graph.outputs:
        fixed[output] = True
    for node in graph.nodes:
        if isinstance(node, Sort) or (isinstance(node, Reduce) and node.op in ("argmax", "argmin")):
            for operand in node.operands:
                fixed[operand] = True
    for match in find_softmax(graph):
        inside = [match.scores, match.exp]
        if match.scale is not None and not all(isinstance(graph[u], Contract) for u in graph.users[match.scale]):
            inside.append(match.scale)
        for number in inside:
            if number is not None:
                _fix_scores(graph, number, fixed)
    for node in graph.nodes:
        for operand in _angles(node):
            fixed[operand] = True
        if isinstance(node, Map) and (terms := _residual_terms(graph, node)):
            fixed[node.id] = True
            for operand in terms:
                fixed[operand] |= isinstance(graph[operand], Contract) and graph.users[operand] == (node.id,)
    for node in graph.nodes:  # what carries a fixed value is fixed
        if isinstance(node, Move) and any(fixed[o] and not isinstance(graph[o], Input) for o in node.operands):
            fixed[node.id] = True
    return fixed


def _angles(node: Node) -> set[int]:
    """The operands that a Map or Reduce takes the sine or cosine of: an angle of many turns has no digits to lose."""
    if not isinstance(node, Map | Reduce):
        return set()
    waves = [e for e in ex.postorder(node.expr) if e.op in ("sin", "cos")]
    return {node.operands[i] for wave in waves for i in ex.args_of(wave)}


def _residual_terms(graph: Graph, node: Map) -> tuple[int, ...]:
    """The computed tensors of the result's size that `node` adds up and does nothing else with; fewer than two: no residual sum."""
    terms: list[int] = []
    pending = [node.expr]
    while pending:
        entry = pending.pop()
        if entry.op == "add":
            pending.extend(entry.args)
        elif entry.op == "arg":
            source = graph[node.operands[entry.index]]
            if not isinstance(source, Constant) and source.size == node.size:
                terms.append(source.id)
    return tuple(terms) if len(terms) > 1 else ()


def _fix_scores(graph: Graph, number: int, fixed: list[bool]) -> None:
    """A softmax value and the Maps and contraction that only compute it."""
    fixed[number] = True
    for operand in graph[number].operands:
        source = graph[operand]
        alone = graph.users[operand] == (number,) and source.size == graph[number].size
        if isinstance(source, Map | Contract) and not fixed[operand] and alone:
            if isinstance(source, Map):
                _fix_scores(graph, operand, fixed)
            fixed[operand] = True


def _beyond_f16(node: Node, store: ConstantStore) -> bool:
    if isinstance(node, Constant):
        if not node.dtype.is_float or node.size > _MOST_CHECKED or not store.has(node.ref.key):
            return False
        values: np.ndarray[Any, Any] = np.asarray(store.get(node.ref.key))
        finite = values[np.isfinite(values)]
        return bool(finite.size) and float(np.abs(finite).max()) > F16_MAX
    if isinstance(node, Move) and isinstance(node.fill, float):
        return np.isfinite(node.fill) and abs(node.fill) > F16_MAX
    if not isinstance(node, Map):
        return False
    square = node.expr.op == "mul" and node.expr.args[0] is node.expr.args[1]
    return square or any(
        e.op == "const" and e.dtype.is_float and e.value is not None and np.isfinite(e.value) and abs(e.value) > F16_MAX
        for e in ex.postorder(node.expr)
    )


# --- rewriting -------------------------------------------------------------------------------------------------------------------------


def _is_lookup(node: Node) -> bool:
    """A looked-up row of a half-precision table becomes f32 once, so that the first layer reads what the others read."""
    return isinstance(node, Gather)


def retyped(graph: Graph, store: ConstantStore, dtypes: list[DType], operands: DType, wide: frozenset[int] = frozenset()) -> Graph:
    """The f32 graph with node n in `dtypes[n]` and contractions over `operands`; casts go into expressions where there is one.

    Contractions of `wide` take f32, from constants that are stored in f16.
    """
    builder = GraphBuilder()
    new_id: list[int] = []

    def read(old: int, wanted: DType) -> int:
        """Node `old` in type `wanted`: a constant is converted for good, anything else by a cast."""
        source = graph[old]
        if isinstance(source, Constant) and builder.nodes[new_id[old]].dtype is not wanted:
            return builder.add(constant_as(source, wanted, store))
        return add_cast(builder, new_id[old], wanted)

    def stored(old: int) -> int:
        """Node `old` in f32; a constant holds what its f16 form decodes to."""
        source = graph[old]
        return builder.add(stored_as(source, "f16", store)) if isinstance(source, Constant) else read(old, F32)

    for node in graph.nodes:
        dtype = dtypes[node.id]
        plain = tuple(new_id[o] for o in node.operands)
        new: Node = replace(node, operands=plain, dtype=dtype)
        if isinstance(node, Constant):
            new = constant_as(node, dtype, store) if dtype is not node.dtype else node
        elif isinstance(node, Map | Reduce):
            plain = tuple(read(o, F32) if dtypes[o] is F16 and dtype is F32 and _is_lookup(graph[o]) else new_id[o] for o in node.operands)
            types = [builder.nodes[o].dtype for o in plain]
            expr = ex.substitute(node.expr, args=lambda leaf, types=types: ex.cast(ex.arg(leaf.index, types[leaf.index]), leaf.dtype))  # type: ignore[misc]
            new = replace(node, operands=plain, dtype=dtype, expr=ex.cast(expr, dtype) if isinstance(node, Map) else expr)
        elif node.id in wide:
            new = replace(node, operands=tuple(stored(o) for o in node.operands), dtype=dtype)
        elif isinstance(node, Contract) and graph[node.operands[0]].dtype.is_float:
            new = replace(node, operands=tuple(read(o, operands) for o in node.operands), dtype=dtype)
        elif isinstance(node, Move | Scan):
            new = replace(node, operands=tuple(read(o, dtype) for o in node.operands), dtype=dtype)
        elif isinstance(node, Scatter):
            carried = tuple(read(o, dtype) for o in node.operands[:2])
            new = replace(node, operands=carried + plain[2:], dtype=dtype)
        elif isinstance(node, Gather):
            new = replace(node, operands=plain, dtype=builder.nodes[plain[0]].dtype)
        new_id.append(builder.add(new))
    updates = {name: read(value, dtypes[value]) for name, value in graph.updates.items()}
    return builder.finish([new_id[o] for o in graph.outputs], updates)
