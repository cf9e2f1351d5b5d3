"""A contraction whose operand is gathered by a data-dependent index (experts chosen by a router): contract with all, then choose.

sum_k x[t, k] W[index[t], n, k] = (sum_k x[t, k] W[e, n, k]) at e = index[t]. W stays in memory as stationary tiles, where gathering it
first would move a whole matrix through the planes for every index.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ...ir.access import access_strides, axes_used
from ...ir.expr import arg, axis, const, make
from ...ir.expr import cast as cast_expr
from ...ir.graph import Contract, Gather, Graph, Index, Lookup
from ...ir.types import F32, I64
from .contract_plan import planned
from .lower import Lowering
from .lower_contract import Operand, Roles, contract, extent, in_halves
from .lower_map import converted, reduce_value, result_strides
from .memory import LANES, STRIPES
from .recipes import ISA_TYPE
from .values import Value, row_major_strides


@dataclass(frozen=True)
class Reads:
    """What a contraction reads through a gather, in terms of its own axes: offset and strides of the data and of the index."""

    data: tuple[int, tuple[int, ...]]
    index: tuple[int, tuple[int, ...]]
    choices: int
    """Extent of the dimension that is looked up."""
    step: int
    """Its stride in the data."""


def reads_through(graph: Graph, node: Contract, position: int) -> Reads | None:
    """The reads of operand `position`, a Gather; None where data and index do not fall apart into affine reads."""
    gather = graph[node.operands[position]]
    assert isinstance(gather, Gather)
    lookups = [(d, entry.operand) for d, entry in enumerate(gather.accesses[0]) if isinstance(entry, Lookup)]
    if len(lookups) != 1 or gather.reduced:
        return None
    dimension, o = lookups[0]
    data_shape = graph[gather.operands[0]].shape
    rank = len(gather.axes)
    sources = (
        access_strides(gather.accesses[0], data_shape, rank),
        access_strides(gather.accesses[o], graph[gather.operands[o]].shape, rank),
    )
    offsets = [source.offset for source in sources]
    strides = [[0] * len(node.axes) for _ in sources]
    for entry, group in zip(node.accesses[position], gather.groups, strict=True):
        assert isinstance(entry, Index)
        for number, source in enumerate(sources):
            step = _even_step([source.strides[a] for a in group], [gather.axes[a] for a in group])
            if step is None:
                return None
            offsets[number] += entry.offset * step
            for a, coefficient in entry.terms:
                strides[number][a] += coefficient * step
    if any(strides[0][a] and strides[1][a] for a in range(len(node.axes))) or any(strides[1][a] for a in node.reduced):
        return None
    data, index = ((offset, tuple(steps)) for offset, steps in zip(offsets, strides, strict=True))
    return Reads(data, index, data_shape[dimension], row_major_strides(data_shape)[dimension])


def _even_step(strides: Sequence[int], extents: Sequence[int]) -> int | None:
    """The step of a flat walk over axes with these strides, or None where it is uneven."""
    step, size = 0, 1
    for stride, n in reversed(list(zip(strides, extents, strict=True))):
        if n > 1:
            if size == 1:
                step = stride
            elif stride != step * size:
                return None
            size *= n
    return step


def defers(graph: Graph, node: Gather) -> bool:
    """True where every reader is a contraction that had better take all the data and choose afterwards."""
    users = [graph[user] for user in graph.users[node.id]]
    return bool(users) and all(isinstance(user, Contract) and _pays(graph, user, node) for user in users)


def _pays(graph: Graph, user: Contract, gather: Gather) -> bool:
    positions = [k for k, o in enumerate(user.operands) if o == gather.id]
    reads = reads_through(graph, user, positions[0]) if len(positions) == 1 else None
    if reads is None:
        return False
    other = axes_used(user.accesses[1 - positions[0]])
    kept = [a for a in range(len(user.axes)) if a not in user.reduced]
    m = extent(user.axes, [a for a in kept if a in other])
    n = extent(user.axes, [a for a in kept if reads.data[1][a]])
    k = extent(user.axes, user.reduced)
    points = extent(user.axes, [a for a in kept if reads.index[1][a]])
    tiles = -(-n // LANES) * -(-k // LANES)
    load = -(-min(n, LANES) // STRIPES) + 1
    every = reads.choices * (max(2 * m, load) + points) * tiles
    one_by_one = points * (-(-n * k // LANES) * -(-reads.choices // LANES) + load * tiles)
    return every <= 2 * one_by_one


def gathered_contract(lowering: Lowering, node: Contract, position: int) -> Value:
    """The contraction with every choice, [choice, M, N], then the chosen ones: a sum over choices of which one is not zero."""
    reads = reads_through(lowering.graph, node, position)
    assert reads is not None
    gather = lowering.graph[node.operands[position]]
    assert isinstance(gather, Gather)
    entry = next(entry for entry in gather.accesses[0] if isinstance(entry, Lookup))
    index = gather.operands[entry.operand]
    rank = len(node.axes)
    axes = (*node.axes, reads.choices)
    x = _extended((lowering.value(node.operands[1 - position]), *lowering.operand_strides(node, 1 - position)), 0)
    data = _extended((lowering.value(gather.operands[0]), *reads.data), reads.step)
    kept = [a for group in node.groups for a in group]
    walks = [(bool(x.strides[a]), bool(data.strides[a])) for a in range(rank)]
    roles = Roles(
        (rank, *(a for a in kept if walks[a] == (True, True))), tuple(a for a in kept if walks[a] == (True, False)),
        tuple(a for a in kept if walks[a] == (False, True)), node.reduced,
    )  # fmt: skip
    order = (*roles.batch, *roles.m, *roles.n)
    shape = tuple(axes[a] for a in order)
    strides = [0] * len(axes)
    for a, step in zip(order, row_major_strides(shape), strict=True):
        strides[a] = step
    roles, _ = planned(lowering, axes, x, data, roles)
    every = contract(lowering, in_halves(lowering, x), in_halves(lowering, data), roles, axes, strides, shape)
    # now over the kept axes and the choices
    names = [*kept, rank]
    chosen = make("eq", cast_expr(arg(1, lowering.graph[index].dtype), I64), axis(len(kept)))
    expr = make("select", chosen, arg(0, F32), const(0.0, F32))
    result = (*result_strides(node.groups, node.axes, node.shape), 0)
    operands = [
        (every, 0, tuple(strides[a] for a in names)),
        (lowering.value(index), reads.index[0], (*(reads.index[1][a] for a in kept), 0)),
    ]
    value = reduce_value(
        lowering, "sum", expr, operands, [axes[a] for a in names], [len(kept)], [result[a] for a in names], node.shape,
        lanes=[names.index(a) for a in roles.n] or None,
    )  # fmt: skip
    return converted(lowering, value, ISA_TYPE[node.dtype], node.dtype)


def _extended(operand: tuple[Value, int, Sequence[int]], step: int) -> Operand:
    value, offset, strides = operand
    return Operand(value, offset, (*strides, step))
