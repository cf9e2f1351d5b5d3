"""Reads the text form of a graph (grammar in docs/ir.md): a tokeniser and one method per rule of the grammar."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any, TypeVar

from ..errors import BadInput
from . import expr as ex
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
    Node,
    Piece,
    Reduce,
    Region,
    Repeat,
    Scan,
    Scatter,
    Sort,
    State,
)
from .types import BOOL, DTYPES, DType

_TOKEN = re.compile(
    r'\s*(?:(?P<string>"(?:[^"\\]|\\.)*")|(?P<id>%\d+)|(?P<arg>\$\d+)|(?P<number>\d+(?:\.\d*)?(?:[eE][+-]?\d+)?)|(?P<word>[A-Za-z_]\w*)'
    r"|(?P<sign><-|==|!=|<=|>=|[-+*/<>&|=:;,()\[\]]))"
)
_OPERATOR = {
    "+": "add", "-": "sub", "*": "mul", "/": "div", "==": "eq", "!=": "ne",
    "<": "lt", "<=": "le", ">": "gt", ">=": "ge", "&": "and", "|": "or",
}  # fmt: skip
_Read = tuple[int, Access]
_T = TypeVar("_T")
_Untyped = int | float  # a literal whose type its neighbours give


def parse(text: str) -> Graph:
    """The graph that the text says, without origins. Raises BadInput with the line number and what was expected."""
    nodes: list[Node] = []
    outputs: tuple[int, ...] = ()
    updates: dict[str, int] = {}
    regions: list[Region] = []
    repeats: list[Repeat] = []
    for number, line in enumerate(text.splitlines(), start=1):
        tokens = _tokens(line, number)
        if not tokens:
            continue
        reader = _Line(tokens, number, nodes)
        if tokens[0].startswith("%"):
            nodes.append(reader.node())
        elif reader.take("output"):
            outputs = tuple(reader.separated(reader.id)) if reader.more else ()
        elif reader.take("update"):
            name = reader.string()
            reader.expect("=")
            updates[name] = reader.id()
        elif reader.take("region"):
            kind = reader.string()
            roles = reader.separated(lambda r=reader: (r.id(), r.string()))  # type: ignore[misc]
            regions.append(Region(kind, tuple(n for n, _ in roles), tuple(r for _, r in roles)))
        elif reader.take("repeat"):
            repeats.append(Repeat(*(reader.named(word) for word in ("start", "period", "count"))))
        else:
            raise BadInput(f"line {number}: {tokens[0]!r} starts no line; nodes, output, update, region and repeat do")
        reader.end()
    return Graph(tuple(nodes), outputs, updates, tuple(regions), tuple(repeats))


def _tokens(line: str, number: int) -> list[str]:
    tokens = []
    at = 0
    line = line.rstrip()
    while at < len(line):
        match = _TOKEN.match(line, at)
        if match is None:
            rest = line[at:].lstrip()
            if rest.startswith("#") or not rest:
                break
            raise BadInput(f"line {number}: cannot read {rest[:20]!r}")
        tokens.append(match.group(match.lastgroup or 0))
        at = match.end()
    return tokens


def axis_of(name: str) -> int | None:
    """The axis a letter stands for, or None."""
    if len(name) == 1 and "i" <= name <= "z":
        return ord(name) - ord("i")
    if name[0] == "a" and name[1:].isdigit():
        return int(name[1:]) + 17
    return None


class _Line:
    """One line as tokens, with a position."""

    def __init__(self, tokens: list[str], number: int, nodes: list[Node]) -> None:
        self.tokens = tokens
        self.number = number
        self.nodes = nodes
        self.at = 0
        self.reads: list[_Read] = []  # operands of the current node, in order of first use
        self.listed = False  # the node gave its operands as a list

    # --- tokens

    @property
    def more(self) -> bool:
        return self.at < len(self.tokens)

    def peek(self) -> str:
        return self.tokens[self.at] if self.more else "end of line"

    def next(self) -> str:
        if not self.more:
            raise self.error("more")
        self.at += 1
        return self.tokens[self.at - 1]

    def take(self, word: str) -> bool:
        if self.peek() != word:
            return False
        self.at += 1
        return True

    def expect(self, word: str) -> None:
        if not self.take(word):
            raise self.error(repr(word))

    def error(self, wanted: str) -> BadInput:
        before = " ".join(self.tokens[max(0, self.at - 4) : self.at])
        return BadInput(f"line {self.number}: expected {wanted}, found {self.peek()!r} after {before!r}")

    def end(self) -> None:
        if self.more:
            raise self.error("end of line")

    def integer(self) -> int:
        sign = -1 if self.take("-") else 1
        token = self.peek()
        if not token.isdigit():
            raise self.error("an integer")
        return sign * int(self.next())

    def named(self, word: str) -> int:
        self.expect(word)
        return self.integer()

    def string(self) -> str:
        if not self.peek().startswith('"'):
            raise self.error("a string")
        return str(json.loads(self.next()))

    def id(self) -> int:
        if not self.peek().startswith("%"):
            raise self.error("a node id")
        value = int(self.next()[1:])
        if value >= len(self.nodes):
            raise BadInput(f"line {self.number}: %{value} is used before it is defined")
        return value

    def dtype(self) -> DType:
        if self.peek() not in DTYPES:
            raise self.error("an element type")
        return DTYPES[self.next()]

    def separated(self, item: Callable[[], _T], by: str = ",") -> list[_T]:
        found = [item()]
        while self.take(by):
            found.append(item())
        return found

    def bracketed(self, item: Callable[[], _T]) -> list[_T]:
        self.expect("[")
        found = [] if self.peek() == "]" else self.separated(item)
        self.expect("]")
        return found

    # --- nodes

    def node(self) -> Node:
        number = int(self.next()[1:])
        if number != len(self.nodes):
            raise BadInput(f"line {self.number}: node %{number} stands where %{len(self.nodes)} is due")
        self.expect(":")
        dtype = self.dtype()
        shape = tuple(self.bracketed(self.integer))
        self.expect("=")
        kind = self.next()
        rule = _KINDS.get(kind)
        if rule is None:
            raise BadInput(f"line {self.number}: unknown kind {kind!r}; known are {', '.join(sorted(_KINDS))}")
        return rule(self, {"id": number, "dtype": dtype, "shape": shape})

    def range(self) -> tuple[int, int] | None:
        if not self.take("range"):
            return None
        low = self.integer()
        self.expect("to")
        return low, self.integer()

    def axes(self) -> tuple[int, ...]:
        self.expect("over")
        extents: list[int] = []
        while self.more and (axis := axis_of(self.peek())) is not None:
            if axis != len(extents):
                raise self.error("the next axis letter")
            self.next()
            self.expect(":")
            extents.append(self.integer())
        return tuple(extents)

    def axis(self) -> int:
        axis = axis_of(self.peek())
        if axis is None:
            raise self.error("an axis letter")
        self.next()
        return axis

    def group(self) -> Group:
        if self.take("0"):
            return ()
        if not self.take("("):
            return (self.axis(),)
        found = []
        while not self.take(")"):
            found.append(self.axis())
        return tuple(found)

    def nest(self) -> dict[str, Any]:
        groups = tuple(self.bracketed(self.group))
        return {"groups": groups, "axes": self.axes()}

    def listing(self, item: Callable[[], _Read]) -> None:
        """The optional list of operands, then the colon."""
        self.listed = self.take("reading")
        if self.listed:
            self.reads.extend(self.separated(item))
        self.expect(":")

    def index(self) -> Index:
        offset, terms = 0, []
        sign = -1 if self.take("-") else 1
        while True:
            if self.peek().isdigit():
                number = sign * int(self.next())
                if self.take("*"):
                    terms.append((self.axis(), number))
                else:
                    offset += number
            else:
                terms.append((self.axis(), sign))
            if self.take("+"):
                sign = 1
            elif self.take("-"):
                sign = -1
            else:
                return Index.of(offset, terms)

    def affine(self) -> Access:
        return tuple(self.bracketed(self.index))

    def read(self) -> _Read:
        return self.id(), self.affine()

    def operand(self, first: int = 0) -> int:
        """The number of the operand that is read here: `$n`, or a read that is new or equal to an earlier one from `first` on."""
        if self.peek().startswith("$"):
            return int(self.next()[1:])
        read = self.read()
        for number in range(first, len(self.reads)):
            if self.reads[number] == read:
                return number
        self.reads.append(read)
        return len(self.reads) - 1

    def lookups(self, first: int) -> Access:
        def entry() -> Index | Lookup:
            return Lookup(self.operand(first)) if self.peek()[0] in "%$" else self.index()

        return tuple(self.bracketed(entry))

    def operands(self) -> tuple[int, ...]:
        return tuple(o for o, _ in self.reads)

    def accesses(self) -> tuple[Access, ...]:
        return tuple(a for _, a in self.reads)

    # --- expressions

    def expression(self) -> ex.Expr:
        value = self.term()
        if not isinstance(value, ex.Expr):
            raise self.error("a typed expression")
        return value

    def term(self) -> ex.Expr | _Untyped:
        token = self.peek()
        if token == "(":
            self.next()
            first = self.term()
            name = _OPERATOR.get(self.next())
            if name is None:
                self.at -= 1
                raise self.error("an operator")
            second = self.term()
            self.expect(")")
            return self.apply(name, [first, second])
        if token[0] in "%$":
            number = self.operand()
            if number >= len(self.reads):
                raise BadInput(f"line {self.number}: operand ${number} is not in the list of {len(self.reads)}")
            return ex.arg(number, self.nodes[self.reads[number][0]].dtype)
        if token in ("true", "false"):
            return ex.const(self.next() == "true", BOOL)
        if token == "-" or token[0].isdigit() or token in ("inf", "nan"):
            return self.literal()
        if (axis := axis_of(token)) is not None and token not in DTYPES:
            self.next()
            return ex.axis(axis)
        return self.call(self.next())

    def literal(self) -> _Untyped:
        sign = -1 if self.take("-") else 1
        token = self.next()
        if token in ("inf", "nan"):
            return sign * float(token)
        try:
            return sign * int(token)
        except ValueError:
            return sign * float(token)

    def call(self, name: str) -> ex.Expr:
        self.expect("(")
        args = self.separated(self.term)
        self.expect(")")
        if name in DTYPES:
            if isinstance(args[0], ex.Expr):
                return ex.cast(args[0], DTYPES[name])
            return ex.const(args[0], DTYPES[name])
        if name not in ex.OPS:
            raise BadInput(f"line {self.number}: unknown operator {name!r}")
        return self.apply(name, args)

    def apply(self, name: str, args: list[ex.Expr | _Untyped]) -> ex.Expr:
        """`name(args)`, where literals take the type of the other operands."""
        alike = args[1:] if name == "select" else args
        dtype = next((a.dtype for a in alike if isinstance(a, ex.Expr)), None)
        if dtype is None:
            raise self.error(f"a typed operand of {name}")
        typed = [a if isinstance(a, ex.Expr) else ex.const(a, dtype) for a in args]
        try:
            return ex.make(name, *typed)
        except TypeError as error:
            raise BadInput(f"line {self.number}: {error}") from None


def _input(line: _Line, common: dict[str, Any]) -> Node:
    return Input(operands=(), name=line.string(), range=line.range(), **common)


def _constant(line: _Line, common: dict[str, Any]) -> Node:
    key = line.string()
    storage = line.string() if line.take("as") else "dense"
    return Constant(operands=(), ref=ConstantRef(key, common["dtype"], common["shape"], storage), **common)


def _state(line: _Line, common: dict[str, Any]) -> Node:
    name = line.string()
    initial = line.string() if line.take("=") else None
    return State(operands=(), name=name, initial=initial, range=line.range(), **common)


def _map(line: _Line, common: dict[str, Any]) -> Node:
    nest = line.nest()
    line.listing(line.read)
    expression = line.expression()
    return Map(operands=line.operands(), accesses=line.accesses(), expr=expression, **nest, **common)


def _reduce(line: _Line, common: dict[str, Any]) -> Node:
    op = line.next()
    nest = line.nest()
    line.listing(line.read)
    expression = line.expression()
    return Reduce(operands=line.operands(), accesses=line.accesses(), expr=expression, op=op, **nest, **common)


def _contract(line: _Line, common: dict[str, Any]) -> Node:
    nest = line.nest()
    line.expect(":")
    first = line.read()
    line.expect("*")
    second = line.read()
    line.expect("acc")
    return Contract(operands=(first[0], second[0]), accesses=(first[1], second[1]), acc=line.dtype(), **nest, **common)


def _gather(line: _Line, common: dict[str, Any]) -> Node:
    nest = line.nest()
    line.listing(lambda: (line.id(), line.affine() if line.peek() == "[" else ()))
    if line.listed:
        line.expect("$0")
    else:
        line.reads.append((line.id(), ()))
    data = line.lookups(1)
    return Gather(operands=line.operands(), accesses=(data, *line.accesses()[1:]), **nest, **common)


def _scatter(line: _Line, common: dict[str, Any]) -> Node:
    mode = line.next()
    base = line.id()
    axes = line.axes()
    line.reads.append((base, ()))
    line.listing(line.read)
    if not line.listed:  # the source comes last in the text and is operand 1
        line.reads.append((-1, ()))
    target = line.lookups(2)
    line.expect("<-")
    if line.listed:
        line.expect("$1")
    else:
        line.reads[1] = line.read()
    return Scatter(operands=line.operands(), axes=axes, target=target, accesses=line.accesses()[1:], mode=mode, **common)


def _move(line: _Line, common: dict[str, Any]) -> Node:
    dtype = common["dtype"]
    fill: int | float | bool | None = None
    if line.take("fill"):
        fill = line.next() == "true" if dtype is BOOL else line.literal()
        fill = float(fill) if dtype.is_float else fill
    names: list[int] = line.separated(line.id) if line.take("reading") else []
    rank = len(common["shape"])
    pieces = line.separated(lambda: _piece(line, names, rank), by=";")
    return Move(operands=tuple(names), pieces=tuple(pieces), fill=fill, **common)


def _piece(line: _Line, names: list[int], rank: int) -> Piece:
    corner = tuple(line.bracketed(line.integer)) if line.take("at") else (0,) * rank
    step = tuple(line.bracketed(line.integer)) if line.take("step") else (1,) * rank
    nest = line.nest()
    line.expect(":")
    if line.peek().startswith("$"):
        number = int(line.next()[1:])
    else:
        name = line.id()
        if name not in names:
            names.append(name)
        number = names.index(name)
    return Piece(number, nest["axes"], line.affine(), nest["groups"], corner, step)


def _sort(line: _Line, common: dict[str, Any]) -> Node:
    operand = line.id()
    axis = line.named("axis")
    descending = line.take("descending")
    if not descending:
        line.expect("ascending")
    return Sort(operands=(operand,), axis=axis, descending=descending, count=line.named("first"), **common)


def _scan(line: _Line, common: dict[str, Any]) -> Node:
    op = line.next()
    operands = tuple(line.separated(line.id))
    return Scan(operands=operands, op=op, axis=line.named("axis"), reverse=line.take("reverse"), **common)


_KINDS: dict[str, Callable[[_Line, dict[str, Any]], Node]] = {
    "input": _input, "constant": _constant, "state": _state, "map": _map, "reduce": _reduce, "contract": _contract,
    "gather": _gather, "scatter": _scatter, "move": _move, "sort": _sort, "scan": _scan,
}  # fmt: skip
