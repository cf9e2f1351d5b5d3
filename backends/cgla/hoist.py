"""Invariant parts of host expressions: what does not change along every axis of a nest is computed once, in a nest of its own.

A norm reads one reciprocal root a row and a softmax one sum; evaluated at every point they would cost a special function each. A division
by an invariant becomes a product with its reciprocal, as the machine's own recipe for a softmax has it (model section 7); the result
differs by one rounding.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import prod

from ...ir.access import row_major
from ...ir.expr import Expr, arg, args_of, make, postorder, rebuild
from ...ir.graph import Map, Reduce
from ...machines.cgla.tables import SPECIAL_OPS, HostKind
from .host import HostOperand, HostTask, encode

SAVING = 8
"""An invariant part is taken out where its nest has at least this many times fewer points."""


@dataclass(frozen=True)
class Hoisted:
    """The expression that is left, the operands it reads, and the tasks that make the new ones."""

    expr: Expr
    operands: tuple[HostOperand, ...]
    tasks: tuple[HostTask, ...]


def hoist(
    node: Map | Reduce, reads: Sequence[HostOperand], scratch: Callable[[int, str], tuple[int, str]], label: str, tables: bool = False
) -> Hoisted:
    """Take invariant special functions out of a node's expression. `reads` are its operands, `scratch(items, dtype)` makes an array
    and returns its symbol and dtype; with `tables` also whatever reads no operand and so can be known beforehand."""
    total = prod(node.axes)
    root = _reciprocals(node, reads, total)
    depends = _dependences(root, reads)
    special = _special(root)
    operands = list(reads)
    tasks: list[HostTask] = []
    done: dict[int, Expr] = {}
    wanted = _topmost(
        root,
        lambda e: special[id(e)] and (_points(node, depends[id(e)]) * SAVING <= total or (tables and not args_of(e))),
    )
    for entry in postorder(root):
        if id(entry) in wanted:
            axes = sorted(depends[id(entry)])
            symbol, dtype = scratch(_points(node, depends[id(entry)]), entry.dtype.name)
            tasks.append(_task(node, entry, axes, reads, symbol, dtype, label))
            steps = row_major([node.axes[a] for a in axes])
            operands.append(HostOperand(symbol, dtype, dict(zip(axes, steps, strict=True))))
            done[id(entry)] = arg(len(operands) - 1, entry.dtype)
        else:
            done[id(entry)] = rebuild(entry, [done[id(a)] for a in entry.args]) if entry.args else entry
    return Hoisted(done[id(root)], tuple(operands), tuple(tasks))


def _points(node: Map | Reduce, axes: frozenset[int]) -> int:
    return prod(node.axes[a] for a in axes)


def _dependences(root: Expr, reads: Sequence[HostOperand]) -> dict[int, frozenset[int]]:
    """For every entry the axes along which its value changes."""
    found: dict[int, frozenset[int]] = {}
    for entry in postorder(root):
        if entry.op == "arg":
            found[id(entry)] = frozenset(a for a, s in reads[entry.index].strides.items() if s)
        elif entry.op == "axis":
            found[id(entry)] = frozenset({entry.index})
        else:
            found[id(entry)] = frozenset().union(*(found[id(a)] for a in entry.args))
    return found


def _special(root: Expr) -> dict[int, bool]:
    """For every entry whether a special function is in or below it."""
    found: dict[int, bool] = {}
    for entry in postorder(root):
        found[id(entry)] = entry.op in SPECIAL_OPS or any(found[id(a)] for a in entry.args)
    return found


def _reciprocals(node: Map | Reduce, reads: Sequence[HostOperand], total: int) -> Expr:
    """Divisions by invariants as products."""
    depends = _dependences(node.expr, reads)
    done: dict[int, Expr] = {}
    for entry in postorder(node.expr):
        args = [done[id(a)] for a in entry.args]
        division = entry.op == "div" and entry.dtype.name == "f32"
        if division and _points(node, depends[id(entry.args[1])]) * SAVING <= total:
            done[id(entry)] = make("mul", args[0], make("recip", args[1]))
        else:
            done[id(entry)] = rebuild(entry, args) if args else entry
    return done[id(node.expr)]


def _topmost(root: Expr, good: Callable[[Expr], bool]) -> set[int]:
    """Entries that are good and below no good entry on some path from the root."""
    found: set[int] = set()
    stack, seen = [root], {id(root)}
    while stack:
        entry = stack.pop()
        if good(entry):
            found.add(id(entry))
            continue
        for a in entry.args:
            if id(a) not in seen:
                seen.add(id(a))
                stack.append(a)
    return found


def _task(
    node: Map | Reduce, entry: Expr, axes: Sequence[int], reads: Sequence[HostOperand], symbol: int, dtype: str, label: str
) -> HostTask:
    """The nest over `axes` that evaluates one entry into its own array."""
    number = {axis: position for position, axis in enumerate(axes)}
    used = sorted({e.index for e in postorder(entry) if e.op == "arg"})
    operands = [HostOperand(symbol, dtype, dict(enumerate(row_major([node.axes[a] for a in axes]))))]
    for index in used:
        read = reads[index]
        strides = {number[a]: s for a, s in read.strides.items() if s}
        operands.append(HostOperand(read.symbol, read.dtype, strides, read.offset))
    args = {index: position + 1 for position, index in enumerate(used)}
    exprs = encode(entry, args, {axis: [(position, 1)] for axis, position in number.items()})
    return HostTask(HostKind.MAP, tuple(node.axes[a] for a in axes) or (1,), tuple(operands), exprs, label=label)
