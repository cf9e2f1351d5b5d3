"""Contractions whose inner dimension does not fit a row's local memory: partial products, then their sum.

`Y = sum over k of X W` becomes `P[s] = sum over the k of part s`, with the parts as one more result axis, and `Y = sum over s of P[s]`.
The parts are batch elements to the array; the sum is a reduction like any other.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from math import prod

from ...ir.expr import arg, cast
from ...ir.graph import Access, Contract, Graph, GraphBuilder, Index, Map, Node, Reduce
from ...ir.types import BF16, F16, F32
from ...machines.cgla.description import CglaMachine
from ...passes.repeats import find_repeats
from .gemm import CHAINS, FORMS, INPUTS, max_groups

ROOM = 4
"""Parts are this many times smaller than they have to be, so that tiles are not slivers."""


def longest_inner(machine: CglaMachine, form: str) -> int:
    """Largest K of one launch in a weight form."""
    rule = FORMS[form]
    smallest = rule.bytes << (3 if rule.tail else 1)
    steps = min(machine.lmm_bytes // 2 // smallest, machine.lmm_bytes // (CHAINS * 8))
    return steps * max_groups(form, machine.rows) * INPUTS


def split_long_contractions(graph: Graph, machine: CglaMachine) -> Graph:
    """The graph with every contraction of floats whose K exceeds what any weight form holds cut into parts.

    A prime K has parts of one element, which the host sums."""
    limit = longest_inner(machine, "f32")
    if not limit or not any(_too_long(node, limit) for node in graph.nodes):
        return graph
    builder = GraphBuilder()
    new_id: list[int] = []
    for node in graph.nodes:
        operands = tuple(new_id[o] for o in node.operands)
        cut = _cut(node, limit) if isinstance(node, Contract) and _too_long(node, limit) else None
        if cut is None or not isinstance(node, Contract):
            new_id.append(builder.add(replace(node, operands=operands)))
        else:
            new_id.append(_parts(builder, node, operands, *cut))
    changed = builder.finish([new_id[o] for o in graph.outputs], {name: new_id[value] for name, value in graph.updates.items()})
    return Graph(changed.nodes, changed.outputs, changed.updates, (), find_repeats(changed))


def _too_long(node: Node, limit: int) -> bool:
    return isinstance(node, Contract) and node.acc is F32 and prod(node.axes[a] for a in node.reduced) > limit


def _cut(node: Contract, limit: int) -> tuple[int, int] | None:
    """(axis, number of parts): the smallest number that divides one summed axis and leaves short enough parts."""
    inner = prod(node.axes[a] for a in node.reduced)
    least = -(-inner * ROOM // limit)
    choices = [(parts, axis) for axis in node.reduced for parts in range(2, node.axes[axis] + 1) if node.axes[axis] % parts == 0]
    fitting = [choice for choice in choices if choice[0] >= least]
    if fitting:
        parts, axis = min(fitting)
        return axis, parts
    parts, axis = max(choices, default=(1, -1))
    return (axis, parts) if inner // parts <= limit and parts > 1 else None


def _parts(builder: GraphBuilder, node: Contract, operands: Sequence[int], axis: int, parts: int) -> int:
    """The partial products and their sum; returns the id of the sum in the type of the contraction."""
    inner = node.axes[axis] // parts
    outer = len(node.axes)
    axes = (*(inner if a == axis else extent for a, extent in enumerate(node.axes)), parts)

    def access(old: Access) -> Access:
        return tuple(
            Index.of(e.offset, [*e.terms, *((outer, c * inner) for a, c in e.terms if a == axis)]) if isinstance(e, Index) else e
            for e in old
        )

    partial = builder.new(
        Contract, operands, dtype=F32, shape=(parts, *node.shape), origin=node.origin, axes=axes,
        accesses=tuple(access(a) for a in node.accesses), groups=((outer,), *node.groups), acc=node.acc,
    )  # fmt: skip
    kept = [extent for extent in node.shape if extent > 1]
    place = iter(range(1, len(kept) + 1))
    number = [next(place) if extent > 1 else -1 for extent in node.shape]
    reads = tuple(Index(0, ((n, 1),)) if n >= 0 else Index() for n in number)
    total = builder.new(
        Reduce, (partial,), dtype=F32, shape=node.shape, origin=node.origin, axes=(parts, *kept),
        accesses=((Index(0, ((0, 1),)), *reads),), groups=tuple((n,) if n >= 0 else () for n in number), expr=arg(0, F32), op="sum",
    )  # fmt: skip
    if node.dtype not in (F16, BF16):
        return total
    plain = tuple(Index(0, ((n - 1, 1),)) if n >= 0 else Index() for n in number)
    return builder.new(
        Map, (total,), dtype=node.dtype, shape=node.shape, origin=node.origin, axes=tuple(kept), accesses=(plain,),
        groups=tuple((n - 1,) if n >= 0 else () for n in number), expr=cast(arg(0, F32), node.dtype),
    )  # fmt: skip
