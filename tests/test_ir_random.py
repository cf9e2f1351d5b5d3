"""Random graphs against numpy: the interpreter, the text form, the verifier and canonicalisation on the same graphs.

Each step of a graph is drawn by hypothesis and computed twice: as IR nodes and directly in numpy, which is the oracle.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from math import prod
from typing import Any

import numpy as np
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from spatialc.ir import expr as ex
from spatialc.ir.graph import (
    Constant,
    ConstantRef,
    Contract,
    Gather,
    Graph,
    GraphBuilder,
    Index,
    Input,
    Lookup,
    Map,
    Move,
    Node,
    Piece,
    Reduce,
    Scan,
    Scatter,
    Sort,
    identity_access,
)
from spatialc.ir.interpret import interpret
from spatialc.ir.normal import normalise
from spatialc.ir.store import ConstantStore
from spatialc.ir.text import parse, print_graph
from spatialc.ir.types import F32, I64
from spatialc.ir.verify import verify
from spatialc.passes.canonicalise import canonicalise

Array = np.ndarray[Any, Any]
QUICK = settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))


@dataclass
class Program:
    """A graph under construction, with the oracle's value of every node that later steps may use."""

    builder: GraphBuilder = field(default_factory=GraphBuilder)
    store: ConstantStore = field(default_factory=ConstantStore)
    inputs: dict[str, Array] = field(default_factory=dict)
    values: list[tuple[int, Array]] = field(default_factory=list)

    def add(self, node: Node, value: Array) -> None:
        assert node.shape == value.shape
        self.values.append((self.builder.add(normalise(node)), value))

    def source(self, shape: tuple[int, ...], seed: int, constant: bool) -> None:
        value = np.random.default_rng(seed).integers(-4, 5, shape).astype(np.float32)
        name = f"v{len(self.values)}"
        if constant:
            self.store.put(name, value)
            node: Node = Constant(id=-1, operands=(), dtype=F32, shape=shape, ref=ConstantRef(name, F32, shape))
        else:
            self.inputs[name] = value
            node = Input(id=-1, operands=(), dtype=F32, shape=shape, name=name)
        self.add(node, value)

    def finish(self) -> Graph:
        return self.builder.finish([n for n, _ in self.values[-3:]])


def groups_of(shape: tuple[int, ...]) -> tuple[tuple[int, ...], ...]:
    return tuple((d,) for d in range(len(shape)))


def view(operand: int, shape: tuple[int, ...], axes: tuple[int, ...], access: Any, groups: Any) -> Move:
    piece = Piece(0, axes, access, groups, (0,) * len(shape), (1,) * len(shape))
    return Move(id=-1, operands=(operand,), dtype=F32, shape=shape, pieces=(piece,))


def permute(p: Program, draw: Any, n: int, v: Array) -> None:
    order = draw(st.permutations(range(v.ndim)))
    shape = tuple(v.shape[d] for d in order)
    access = tuple(Index(0, ((order.index(d), 1),)) for d in range(v.ndim))
    p.add(view(n, shape, shape, access, groups_of(shape)), v.transpose(order))


def slice_(p: Program, draw: Any, n: int, v: Array) -> None:
    d = draw(st.integers(0, v.ndim - 1))
    start = draw(st.integers(0, v.shape[d] - 1))
    step = draw(st.sampled_from([1, 1, 2, -1]))
    cut = v[(slice(None),) * d + (slice(start, None, step),)]
    access = tuple(Index(start if e == d else 0, ((e, step if e == d else 1),)) for e in range(v.ndim))
    p.add(view(n, cut.shape, cut.shape, access, groups_of(cut.shape)), cut)


def merge(p: Program, draw: Any, n: int, v: Array) -> None:
    if v.ndim < 2:
        return
    d = draw(st.integers(0, v.ndim - 2))
    shape = (*v.shape[:d], v.shape[d] * v.shape[d + 1], *v.shape[d + 2 :])
    groups = (*((e,) for e in range(d)), (d, d + 1), *((e,) for e in range(d + 2, v.ndim)))
    p.add(view(n, shape, v.shape, identity_access(v.ndim), groups), v.reshape(shape))


def split(p: Program, draw: Any, n: int, v: Array) -> None:
    d = draw(st.integers(0, v.ndim - 1))
    inner = draw(st.sampled_from([k for k in range(1, v.shape[d] + 1) if v.shape[d] % k == 0]))
    shape = (*v.shape[:d], v.shape[d] // inner, inner, *v.shape[d + 1 :])
    access = tuple(Index.of(0, ((d, inner), (d + 1, 1))) if e == d else Index(0, ((e + (e > d), 1),)) for e in range(v.ndim))
    p.add(view(n, shape, shape, access, groups_of(shape)), v.reshape(shape))


def expand(p: Program, draw: Any, n: int, v: Array) -> None:
    d = draw(st.integers(0, v.ndim))
    times = draw(st.integers(1, 3))
    shape = (*v.shape[:d], times, *v.shape[d:])
    access = tuple(Index(0, ((e + (e >= d), 1),)) for e in range(v.ndim))
    p.add(view(n, shape, shape, access, groups_of(shape)), np.broadcast_to(np.expand_dims(v, d), shape))


UNARY = {"neg": np.negative, "abs": np.abs, "tanh": np.tanh, "floor": np.floor}
BINARY = {"add": np.add, "sub": np.subtract, "mul": np.multiply, "max": np.maximum}


def unary(p: Program, draw: Any, n: int, v: Array) -> None:
    op = draw(st.sampled_from(sorted(UNARY)))
    expr = ex.make(op, ex.arg(0, F32))
    node = Map(
        id=-1,
        operands=(n,),
        dtype=F32,
        shape=v.shape,
        axes=v.shape,
        accesses=(identity_access(v.ndim),),
        groups=groups_of(v.shape),
        expr=expr,
    )
    p.add(node, UNARY[op](v))


def masked(p: Program, draw: Any, n: int, v: Array) -> None:
    """A triangular select over the last two dimensions: positions used as values."""
    if v.ndim < 2:
        return
    i, j = v.ndim - 2, v.ndim - 1
    shift = draw(st.integers(-2, 2))
    test = ex.make("le", ex.axis(j), ex.make("add", ex.axis(i), ex.const(shift, I64)))
    expr = ex.make("select", test, ex.arg(0, F32), ex.const(draw(st.sampled_from([0.0, 7.5, -1.25])), F32))
    mask = np.arange(v.shape[j])[None] <= np.arange(v.shape[i])[:, None] + shift
    node = Map(
        id=-1,
        operands=(n,),
        dtype=F32,
        shape=v.shape,
        axes=v.shape,
        accesses=(identity_access(v.ndim),),
        groups=groups_of(v.shape),
        expr=expr,
    )
    p.add(node, np.where(mask, v, np.float32(expr.args[2].value or 0)))


def binary(p: Program, draw: Any, n: int, v: Array) -> None:
    m, w = draw(st.sampled_from(p.values))
    try:
        shape = np.broadcast_shapes(v.shape, w.shape)
    except ValueError:
        return
    if prod(shape) > 2000:
        return
    op = draw(st.sampled_from(sorted(BINARY)))

    def read(x: Array) -> Any:
        lead = len(shape) - x.ndim
        return tuple(Index(0, ((d + lead, 1),)) if x.shape[d] == shape[d + lead] else Index() for d in range(x.ndim))

    node = Map(
        id=-1, operands=(n, m), dtype=F32, shape=shape, axes=shape, accesses=(read(v), read(w)), groups=groups_of(shape),
        expr=ex.make(op, ex.arg(0, F32), ex.arg(1, F32)),
    )  # fmt: skip
    p.add(node, BINARY[op](v, w))


def reduce_(p: Program, draw: Any, n: int, v: Array) -> None:
    d = draw(st.integers(0, v.ndim - 1))
    op = draw(st.sampled_from(["sum", "max", "min"]))
    groups = tuple((e,) if e != d else () for e in range(v.ndim))
    shape = tuple(1 if e == d else s for e, s in enumerate(v.shape))
    node = Reduce(
        id=-1, operands=(n,), dtype=F32, shape=shape, axes=v.shape, accesses=(identity_access(v.ndim),), groups=groups,
        expr=ex.arg(0, F32), op=op,
    )  # fmt: skip
    p.add(node, getattr(np, op)(v, axis=d, keepdims=True))


def contract(p: Program, draw: Any, n: int, v: Array) -> None:
    """v [.., M, K] times a constant [N, K]."""
    columns = draw(st.integers(1, 4))
    w = np.random.default_rng(draw(st.integers(0, 99))).integers(-3, 4, (columns, v.shape[-1])).astype(np.float32)
    key = f"w{len(p.values)}"
    p.store.put(key, w)
    m = p.builder.add(Constant(id=-1, operands=(), dtype=F32, shape=w.shape, ref=ConstantRef(key, F32, w.shape)))
    axes = (*v.shape[:-1], columns, v.shape[-1])
    r = v.ndim
    accesses = (tuple(Index(0, ((d if d < r - 1 else r, 1),)) for d in range(r)), (Index(0, ((r - 1, 1),)), Index(0, ((r, 1),))))
    shape = (*v.shape[:-1], columns)
    node = Contract(id=-1, operands=(n, m), dtype=F32, shape=shape, axes=axes, accesses=accesses, groups=groups_of(shape), acc=F32)
    p.add(node, v @ w.T)


def concat(p: Program, draw: Any, n: int, v: Array) -> None:
    d = draw(st.integers(0, v.ndim - 1))
    same = [
        (m, w)
        for m, w in p.values
        if w.ndim == v.ndim and all(a == b for e, (a, b) in enumerate(zip(w.shape, v.shape, strict=True)) if e != d)
    ]
    m, w = draw(st.sampled_from(same))
    out = np.concatenate([v, w], axis=d)
    corner = tuple(v.shape[d] if e == d else 0 for e in range(v.ndim))
    ones = (1,) * v.ndim
    pieces = (
        Piece(0, v.shape, identity_access(v.ndim), groups_of(v.shape), (0,) * v.ndim, ones),
        Piece(1, w.shape, identity_access(w.ndim), groups_of(w.shape), corner, ones),
    )
    p.add(Move(id=-1, operands=(n, m), dtype=F32, shape=out.shape, pieces=pieces), out)


def pad(p: Program, draw: Any, n: int, v: Array) -> None:
    before, after = draw(st.integers(0, 2)), draw(st.integers(0, 2))
    out = np.pad(v, [(before, after)] * v.ndim, constant_values=2.0)
    piece = Piece(0, v.shape, identity_access(v.ndim), groups_of(v.shape), (before,) * v.ndim, (1,) * v.ndim)
    p.add(Move(id=-1, operands=(n,), dtype=F32, shape=out.shape, pieces=(piece,), fill=2.0), out)


def indices(p: Program, draw: Any, extent: int, regular: bool) -> tuple[int, Array]:
    """Index values: an arithmetic progression as a Map over axes, or arbitrary ones as a constant."""
    count = draw(st.integers(1, 4))
    if regular:
        step = draw(st.sampled_from([0, 1])) if extent >= count else 0
        value = np.arange(count) * step
        expr = ex.make("mul", ex.axis(0), ex.const(step, I64))
        node: Node = Map(id=-1, operands=(), dtype=I64, shape=(count,), axes=(count,), accesses=(), groups=((0,),), expr=expr)
    else:
        value = np.array(draw(st.lists(st.integers(0, extent - 1), min_size=count, max_size=count)), dtype=np.int64)
        key = f"i{len(p.values)}"
        p.store.put(key, value)
        node = Constant(id=-1, operands=(), dtype=I64, shape=(count,), ref=ConstantRef(key, I64, (count,)))
    return p.builder.add(normalise(node)), value


def gather(p: Program, draw: Any, n: int, v: Array) -> None:
    m, index = indices(p, draw, v.shape[0], draw(st.booleans()))
    shape = (len(index), *v.shape[1:])
    access = (Lookup(1), *(Index(0, ((d, 1),)) for d in range(1, v.ndim)))
    node = Gather(
        id=-1, operands=(n, m), dtype=F32, shape=shape, axes=shape, accesses=(access, (Index(0, ((0, 1),)),)), groups=groups_of(shape)
    )
    p.add(node, v[index])


def scatter(p: Program, draw: Any, n: int, v: Array) -> None:
    m, index = indices(p, draw, v.shape[0], draw(st.booleans()))
    shape = (len(index), *v.shape[1:])
    update = np.random.default_rng(draw(st.integers(0, 99))).integers(-3, 4, shape).astype(np.float32)
    key = f"u{len(p.values)}"
    p.store.put(key, update)
    u = p.builder.add(Constant(id=-1, operands=(), dtype=F32, shape=shape, ref=ConstantRef(key, F32, shape)))
    target = (Lookup(2), *(Index(0, ((d, 1),)) for d in range(1, v.ndim)))
    accesses = (identity_access(v.ndim), (Index(0, ((0, 1),)),))
    mode = draw(st.sampled_from(["set", "add", "max"]))
    node = Scatter(id=-1, operands=(n, u, m), dtype=F32, shape=v.shape, axes=shape, target=target, accesses=accesses, mode=mode)
    out = v.copy()
    for row, target_row in enumerate(index):
        old = out[target_row]
        out[target_row] = {"set": update[row], "add": old + update[row], "max": np.maximum(old, update[row])}[mode]
    p.add(node, out)


def scan(p: Program, draw: Any, n: int, v: Array) -> None:
    d, reverse = draw(st.integers(0, v.ndim - 1)), draw(st.booleans())
    line = np.flip(v, d) if reverse else v
    out = np.cumsum(line, axis=d, dtype=np.float32)
    out = np.flip(out, d) if reverse else out
    p.add(Scan(id=-1, operands=(n,), dtype=F32, shape=v.shape, op="add", axis=d, reverse=reverse), out)


def ordered(p: Program, draw: Any, n: int, v: Array) -> None:
    """The two ends of a stable order, gathered."""
    d = v.ndim - 1
    descending = draw(st.booleans())
    key = -v if descending else v
    order = np.argsort(key, axis=d, kind="stable")
    count = draw(st.integers(1, v.shape[d]))
    shape = (*v.shape[:-1], count)
    sort = p.builder.add(Sort(id=-1, operands=(n,), dtype=I64, shape=shape, axis=d, descending=descending, count=count))
    access = (*(Index(0, ((e, 1),)) for e in range(d)), Lookup(1))
    node = Gather(
        id=-1, operands=(n, sort), dtype=F32, shape=shape, axes=shape, accesses=(access, identity_access(v.ndim)), groups=groups_of(shape)
    )
    p.add(node, np.take_along_axis(v, order[..., :count], axis=d))


STEPS = [
    permute, slice_, merge, split, expand, unary, masked, binary, binary, reduce_, contract, concat, pad, gather, scatter, scan, ordered,
]  # fmt: skip


@st.composite
def programs(draw: Any) -> Program:
    p = Program()
    for number in range(2):
        shape = tuple(draw(st.lists(st.integers(1, 6), min_size=1, max_size=3)))
        p.source(shape, number, draw(st.booleans()))
    for _ in range(draw(st.integers(1, 10))):
        n, v = draw(st.sampled_from(p.values[-3:]))
        if v.size <= 1500 and v.ndim <= 5 and np.abs(v).max() < 1e4:
            draw(st.sampled_from(STEPS))(p, draw, n, v)
    return p


def assert_close(got: Array, want: Array) -> None:
    assert got.shape == want.shape and got.dtype == want.dtype
    np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-4)


@QUICK
@given(programs())
def test_interpreter_equals_numpy(program: Program) -> None:
    graph = program.finish()
    assert verify(graph) == []
    outputs, states = interpret(graph, program.inputs, store=program.store)
    assert states == {}
    for got, (_, want) in zip(outputs, program.values[-3:], strict=True):
        assert_close(got, want)


@QUICK
@given(programs())
def test_canonicalisation_keeps_values_and_is_a_fixed_point(program: Program) -> None:
    graph = canonicalise(program.finish(), program.store)
    assert verify(graph, canonical=True) == []
    outputs, _ = interpret(graph, program.inputs, store=program.store)
    for got, (_, want) in zip(outputs, program.values[-3:], strict=True):
        assert_close(got, want)
    assert canonicalise(graph, program.store) == graph


@QUICK
@given(programs())
def test_text_parses_back(program: Program) -> None:
    for graph in (program.finish(), canonicalise(program.finish(), program.store)):
        assert parse(print_graph(graph)) == graph
