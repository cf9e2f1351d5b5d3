"""The text form of a graph: `print_graph` writes it, `parse` (ir.parse) reads it back.

One line a node, in order; axes are letters i, j, k, ... by position (a1, a2, ... after z). `parse(print_graph(g)) == g` for every legal
graph, without origins and values of constants. Operands of a node are numbered by first use in its text; a node whose operands are in
another order lists them (`reading`) and names them `$0`, `$1`. The grammar is in docs/ir.md.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from functools import singledispatch

import numpy as np

from .evaluate import round_to
from .expr import Expr, Number, uses_of
from .graph import (
    Access,
    Constant,
    Contract,
    Gather,
    Graph,
    Group,
    Index,
    Input,
    Lookup,
    Map,
    Move,
    Node,
    Origin,
    Reduce,
    Scan,
    Scatter,
    Sort,
    State,
)
from .parse import parse
from .types import BF16, F64, DType

__all__ = ["INFIX", "letter", "parse", "print_expr", "print_graph", "print_node", "print_number"]

INFIX = {
    "add": "+", "sub": "-", "mul": "*", "div": "/", "eq": "==", "ne": "!=",
    "lt": "<", "le": "<=", "gt": ">", "ge": ">=", "and": "&", "or": "|",
}  # fmt: skip


def letter(axis: int) -> str:
    """The name of an axis: i to z, then a1, a2, ..."""
    return chr(ord("i") + axis) if axis < 18 else f"a{axis - 17}"


def print_number(value: Number, dtype: DType) -> str:
    """The shortest text that parses back to the same value of that type."""
    if dtype.kind == "bool":
        return "true" if value else "false"
    if dtype.is_int:
        return str(int(value))
    number = float(value)
    if math.isfinite(number) and number == int(number) and abs(number) < 1e6:
        return "-0.0" if number == 0 and math.copysign(1.0, number) < 0 else str(int(number))
    if dtype is F64:
        return repr(number)
    scalar = np.float32(number) if dtype is BF16 else round_to(np.array(number), dtype)[()]
    return str(scalar)


def _index(entry: Index) -> str:
    parts = []
    for axis, c in entry.terms:
        name = letter(axis)
        parts.append(name if c == 1 else f"-{name}" if c == -1 else f"{c}*{name}")
    if entry.offset or not parts:
        parts.append(str(entry.offset))
    return "+".join(parts).replace("+-", "-")


def _access(access: Access, lookup: Callable[[int], str]) -> str:
    return ",".join(lookup(e.operand) if isinstance(e, Lookup) else _index(e) for e in access)


def _no_lookup(operand: int) -> str:
    raise ValueError(f"lookup of operand {operand} in an affine access")


def _reads(operands: Sequence[int], accesses: Sequence[Access]) -> list[str]:
    return [f"%{o}[{_access(a, _no_lookup)}]" for o, a in zip(operands, accesses, strict=True)]


def _groups(groups: Sequence[Group]) -> str:
    def one(group: Group) -> str:
        return "0" if not group else letter(group[0]) if len(group) == 1 else f"({' '.join(map(letter, group))})"

    return f"[{','.join(map(one, groups))}]"


def _axes(axes: Sequence[int]) -> str:
    return "over" + "".join(f" {letter(a)}:{extent}" for a, extent in enumerate(axes))


def print_expr(root: Expr, arg: Callable[[int], str] = "${}".format) -> str:
    """An expression in infix form; `arg` writes operand i. A constant carries its type where its neighbours do not give it."""
    if root.op == "arg":
        return arg(root.index)
    if root.op == "axis":
        return letter(root.index)
    if root.op == "const":
        number = print_number(root.value if root.value is not None else 0, root.dtype)
        return number if root.dtype.kind == "bool" else f"{root.dtype}({number})"
    if root.op == "cast":
        return f"{root.dtype}({print_expr(root.args[0], arg)})"
    alike = root.args[1:] if root.op == "select" else root.args
    typed = any(a.op != "const" for a in alike)

    def operand(entry: Expr) -> str:
        if typed and entry.op == "const":
            return print_number(entry.value if entry.value is not None else 0, entry.dtype)
        return print_expr(entry, arg)

    parts = [print_expr(root.args[0], arg), *map(operand, alike)] if root.op == "select" else list(map(operand, alike))
    if root.op in INFIX:
        return f"({parts[0]} {INFIX[root.op]} {parts[1]})"
    return f"{root.op}({', '.join(parts)})"


def _plain(reads: Sequence[str], uses: Sequence[int]) -> bool:
    """True where the operands can be read off the text: each used, numbered by first use, no two alike."""
    return list(uses) == list(range(len(reads))) and len(set(reads)) == len(reads)


@singledispatch
def _body(node: Node) -> str:
    raise TypeError(f"no text form for {type(node).__name__}")


def _range(bounds: tuple[int, int] | None) -> str:
    return f" range {bounds[0]} to {bounds[1]}" if bounds else ""


@_body.register
def _input(node: Input) -> str:
    return f"input {json.dumps(node.name)}{_range(node.range)}"


@_body.register
def _constant(node: Constant) -> str:
    return f"constant {json.dumps(node.ref.key)}" + ("" if node.ref.storage == "dense" else f" as {json.dumps(node.ref.storage)}")


@_body.register
def _state(node: State) -> str:
    initial = f" = {json.dumps(node.initial)}" if node.initial is not None else ""
    return f"state {json.dumps(node.name)}{initial}{_range(node.range)}"


def _nested(head: str, node: Map | Reduce) -> str:
    reads = _reads(node.operands, node.accesses)
    nest = f"{head} {_groups(node.groups)} {_axes(node.axes)}"
    if _plain(reads, uses_of(node.expr)):
        return f"{nest}: {print_expr(node.expr, reads.__getitem__)}"
    return f"{nest} reading {', '.join(reads)}: {print_expr(node.expr)}"


@_body.register
def _map(node: Map) -> str:
    return _nested("map", node)


@_body.register
def _reduce(node: Reduce) -> str:
    return _nested(f"reduce {node.op}", node)


@_body.register
def _contract(node: Contract) -> str:
    first, second = _reads(node.operands, node.accesses)
    return f"contract {_groups(node.groups)} {_axes(node.axes)}: {first} * {second} acc {node.acc}"


@_body.register
def _gather(node: Gather) -> str:
    reads = [f"%{node.operands[0]}", *_reads(node.operands[1:], node.accesses[1:])]
    nest = f"gather {_groups(node.groups)} {_axes(node.axes)}"
    uses = [0, *dict.fromkeys(e.operand for e in node.accesses[0] if isinstance(e, Lookup))]
    if _plain(reads, uses) and len(set(node.operands[:1])) == 1:
        return f"{nest}: {reads[0]}[{_access(node.accesses[0], reads.__getitem__)}]"
    return f"{nest} reading {', '.join(reads)}: $0[{_access(node.accesses[0], '${}'.format)}]"


@_body.register
def _scatter(node: Scatter) -> str:
    reads = [f"%{node.operands[0]}", *_reads(node.operands[1:], node.accesses)]
    uses = [0, 1, *dict.fromkeys(e.operand for e in node.target if isinstance(e, Lookup))]
    head = f"scatter {node.mode} {reads[0]} {_axes(node.axes)}"
    if uses == list(range(len(reads))) and len(set(reads[2:])) == len(reads[2:]):
        return f"{head}: [{_access(node.target, reads.__getitem__)}] <- {reads[1]}"
    return f"{head} reading {', '.join(reads[1:])}: [{_access(node.target, '${}'.format)}] <- $1"


@_body.register
def _move(node: Move) -> str:
    plain = _plain([f"%{o}" for o in node.operands], list(dict.fromkeys(p.operand for p in node.pieces)))
    alone = node.is_view
    parts = []
    for piece in node.pieces:
        at = "" if alone else f"at [{','.join(map(str, piece.corner))}] "
        if any(s != 1 for s in piece.step):
            at += f"step [{','.join(map(str, piece.step))}] "
        name = f"%{node.operands[piece.operand]}" if plain else f"${piece.operand}"
        parts.append(f"{at}{_groups(piece.groups)} {_axes(piece.axes)}: {name}[{_access(piece.access, _no_lookup)}]")
    fill = "" if node.fill is None else f"fill {print_number(node.fill, node.dtype)} "
    listed = "" if plain else f"reading {', '.join(f'%{o}' for o in node.operands)} "
    return f"move {fill}{listed}{'; '.join(parts)}"


@_body.register
def _sort(node: Sort) -> str:
    return f"sort %{node.operands[0]} axis {node.axis} {'descending' if node.descending else 'ascending'} first {node.count}"


@_body.register
def _scan(node: Scan) -> str:
    return f"scan {node.op} {', '.join(f'%{o}' for o in node.operands)} axis {node.axis}{' reverse' if node.reverse else ''}"


def _origin(origin: Origin) -> str:
    parts = [", ".join(origin.fx), origin.module, origin.source, origin.op]
    return "  # " + " | ".join(p for p in parts if p) if any(parts) else ""


def print_node(node: Node, *, origins: bool = False) -> str:
    """One node as one line."""
    head = f"%{node.id}: {node.dtype}[{','.join(map(str, node.shape))}] = {_body(node)}"
    return head + _origin(node.origin) if origins else head


def print_graph(graph: Graph, *, origins: bool = True) -> str:
    """The whole graph, overlays included, with a newline at the end."""
    lines = [print_node(node, origins=origins) for node in graph.nodes]
    lines.append(f"output {', '.join(f'%{o}' for o in graph.outputs)}".rstrip())
    lines.extend(f"update {json.dumps(name)} = %{value}" for name, value in graph.updates.items())
    for region in graph.regions:
        roles = ", ".join(f"%{n} {json.dumps(r)}" for n, r in zip(region.nodes, region.roles, strict=True))
        lines.append(f"region {json.dumps(region.kind)} {roles}")
    lines.extend(f"repeat start {r.start} period {r.period} count {r.count}" for r in graph.repeats)
    return "\n".join(lines) + "\n"
