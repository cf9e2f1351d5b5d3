"""Inlining of Maps into the Maps and Reduces that read them (canonicalisation rule 3).

A producer is inlined when this is its only reader, when it has no operands (masks and positions are expressions over axes), or when it is
one cheap primitive of one operand. Not otherwise: unlimited inlining computes residual sums and cosines several times.
"""

from __future__ import annotations

from dataclasses import replace

from ..ir import expr as ex
from ..ir.compose import through
from ..ir.graph import Map, Reduce
from ..ir.normal import affine_expr, normal_operands
from .reads import positions

MOST_ENTRIES = 64
_MOST_AXIS_ENTRIES = 160  # of an expression over axes alone, which every reader may simplify by intervals
_CHEAP = frozenset(("neg", "abs", "not", "cast", "add", "sub", "mul", "min", "max", "eq", "ne", "lt", "le", "gt", "ge"))


def is_cheap(root: ex.Expr) -> bool:
    """One primitive of one operand, constants aside."""
    return root.op in _CHEAP and [a.op for a in root.args].count("arg") == 1 and all(a.op in ("arg", "const") for a in root.args)


def may_inline(producer: Map, reads: int) -> bool:
    """Whether a producer that is read `reads` times belongs into its readers."""
    return reads <= 1 or not producer.operands or is_cheap(producer.expr)


def inline(reader: Map | Reduce, number: int, producer: Map) -> Map | Reduce | None:
    """`reader` computing `producer` in place of reading it as operand `number`; None where accesses do not compose or it grows too big."""
    found = positions(reader, number, producer.groups, producer.axes)
    if found is None:
        return None
    reader, position = found
    shift = len(reader.operands)
    inner = ex.substitute(
        producer.expr,
        args=lambda leaf: ex.arg(shift + leaf.index, leaf.dtype),
        axes=lambda leaf: affine_expr(position[leaf.index]),
    )
    if not _fits(reader.expr, number, inner):
        return None
    expr = ex.substitute(reader.expr, args=lambda leaf: inner if leaf.index == number else leaf)
    accesses = tuple(through(access, position) for access in producer.accesses)
    merged = replace(reader, operands=reader.operands + producer.operands, accesses=reader.accesses + accesses, expr=expr)
    result = normal_operands(merged)
    assert isinstance(result, Map | Reduce)
    return result


def _fits(root: ex.Expr, number: int, inner: ex.Expr) -> bool:
    """Whether `root` stays small with its operand `number` replaced: sizes are counted without building the tree."""
    sizes: dict[int, int] = {}
    for entry in ex.postorder(root):
        if entry.op == "arg" and entry.index == number:
            sizes[id(entry)] = inner.size
        else:
            sizes[id(entry)] = 1 + sum(sizes[id(a)] for a in entry.args)
    limit = MOST_ENTRIES if ex.args_of(inner) else _MOST_AXIS_ENTRIES
    return sizes[id(root)] <= max(limit, root.size)
