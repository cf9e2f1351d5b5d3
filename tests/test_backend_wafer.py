"""The wafer backend: graphs of every kind compile to legal programs whose numbers equal the interpreter's."""

from __future__ import annotations

import sys

import numpy as np
import pytest

from spatialc.backends.options import CompileOptions
from spatialc.backends.wafer import compile as driver
from spatialc.backends.wafer import compile_graph, lower_bound
from spatialc.backends.wafer.choose import Chooser
from spatialc.backends.wafer.layout import Choice, Split, Splits
from spatialc.errors import Infeasible
from spatialc.ir.expr import Expr, arg, axis, cast, const, make
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
    Piece,
    Reduce,
    Scan,
    Scatter,
    Sort,
    State,
)
from spatialc.ir.interpret import interpret
from spatialc.ir.store import ConstantStore
from spatialc.ir.types import BOOL, F16, F32, I32, DType
from spatialc.machines.catalog import load_machine
from spatialc.runtime_sim.wafer import execute

MACHINE = load_machine("wafer", "wafer-wse2")
REGIONS = [(1, 1), (3, 2), (8, 8)]


def at(*terms: tuple[int, int], offset: int = 0) -> Index:
    return Index(offset, terms)


def values(shape: tuple[int, ...], seed: int, dtype: str = "float16") -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape).astype(dtype)


class Model:
    """A graph under construction with its constants and inputs."""

    def __init__(self) -> None:
        self.b, self.store = GraphBuilder(), ConstantStore()
        self.inputs: dict[str, np.ndarray] = {}
        self.states: dict[str, np.ndarray] = {}

    def constant(self, array: np.ndarray, dtype: DType = F16) -> int:
        key = f"c{len(self.b.nodes)}"
        self.store.put(key, array)
        return self.b.new(Constant, dtype=dtype, shape=array.shape, ref=ConstantRef(key, dtype, array.shape))

    def input(self, array: np.ndarray, dtype: DType = F16, limits: tuple[int, int] | None = None) -> int:
        name = f"x{len(self.inputs)}"
        self.inputs[name] = array
        return self.b.new(Input, dtype=dtype, shape=array.shape, name=name, range=limits)

    def state(self, array: np.ndarray, dtype: DType = F16) -> int:
        name = f"s{len(self.states)}"
        self.states[name] = array
        return self.b.new(State, dtype=dtype, shape=array.shape, name=name)

    def linear(self, x: int, weight: np.ndarray, dtype: DType = F16) -> int:
        rows, k = self.b[x].shape
        w = self.constant(weight)
        n = weight.shape[0]
        return self.b.new(
            Contract, (x, w), dtype=dtype, shape=(rows, n), axes=(rows, n, k), acc=F32, groups=((0,), (1,)),
            accesses=((at((0, 1)), at((2, 1))), (at((1, 1)), at((2, 1)))),
        )  # fmt: skip

    def pointwise(self, operands: tuple[int, ...], shape: tuple[int, ...], expr: Expr) -> int:
        identity = tuple(at((d, 1)) for d in range(len(shape)))
        return self.b.new(
            Map, operands, dtype=expr.dtype, shape=shape, axes=shape, accesses=(identity,) * len(operands),
            groups=tuple((d,) for d in range(len(shape))), expr=expr,
        )  # fmt: skip

    def check(self, outputs: list[int], tolerance: float = 2e-3, **options: object) -> None:
        """Compile on several rectangles; every program is legal, counts what it predicts and computes what the interpreter does."""
        graph = self.b.finish(outputs, self.updates if hasattr(self, "updates") else None)
        expected, after = interpret(graph, self.inputs, states=self.states, store=self.store)
        for region in REGIONS:
            try:
                program = compile_graph(graph, self.store, CompileOptions(machine=MACHINE, region=region, **options))  # type: ignore[arg-type]
            except Infeasible:
                assert region == (1, 1)
                continue
            result = execute(program, self.inputs, self.states)
            assert [str(v) for v in result.violations] == []
            assert result.cycles == program.predicted_cycles
            for number, wanted in enumerate(expected):
                compare(result.outputs[f"output_{number}"], wanted, tolerance)
            for name, wanted in after.items():
                compare(result.states[name], wanted, tolerance)


def compare(found: np.ndarray, wanted: np.ndarray, tolerance: float) -> None:
    if wanted.dtype.kind in "iub":
        assert (found == wanted).all()
        return
    finite = np.isfinite(wanted)
    assert (np.isfinite(found) == finite).all()
    error = np.linalg.norm(found[finite] - wanted[finite].astype(np.float64))
    assert error <= tolerance * max(np.linalg.norm(wanted[finite].astype(np.float64)), 1e-6)


def f32(number: int = 0) -> Expr:
    return cast(arg(number, F16), F32)


def silu(x: Expr) -> Expr:
    return make("mul", x, make("recip", make("add", const(1.0), make("exp", make("neg", x)))))


def test_layers_alternate_without_transposes() -> None:
    m = Model()
    x = m.input(values((16, 64), 1))
    up = m.linear(x, values((128, 64), 2) * np.float16(0.1))
    gate = m.pointwise((up,), (16, 128), cast(silu(f32()), F16))
    down = m.linear(gate, values((64, 128), 3) * np.float16(0.1))
    m.check([m.pointwise((x, down), (16, 64), cast(make("add", f32(0), f32(1)), F16))])


def test_f32_activations_meet_weights_that_are_stored_in_f16(monkeypatch: pytest.MonkeyPatch) -> None:
    """The products are those of f32, far closer than f16 operands would allow; where room is short the weights take one word each."""
    m = Model()
    x = m.input(values((5, 96), 1, "float32"), F32)
    weights = values((40, 96), 2).astype("float32")
    m.store.put("w", weights)
    w = m.b.new(Constant, dtype=F32, shape=weights.shape, ref=ConstantRef("w", F32, weights.shape, "f16"))
    y = m.b.new(
        Contract, (x, w), dtype=F32, shape=(5, 40), axes=(5, 40, 96), acc=F32, groups=((0,), (1,)),
        accesses=((at((0, 1)), at((2, 1))), (at((1, 1)), at((2, 1)))),
    )  # fmt: skip
    for room, size in ((1.0, 4), (0.0, 2)):
        monkeypatch.setattr(driver, "_ROOMY", room)
        m.check([y], tolerance=1e-6)
        program = compile_graph(m.b.finish([y]), m.store, CompileOptions(machine=MACHINE, region=(8, 8)))
        assert sum(image.nbytes for image in program.images.values()) == size * weights.size


def test_softmax_over_padded_cuts() -> None:
    m = Model()
    x = m.input(values((13, 11), 1))
    access = (at((0, 1)), at((1, 1)))
    top = m.b.new(Reduce, (x,), dtype=F32, shape=(13, 1), axes=(13, 11), accesses=(access,), groups=((0,), ()), expr=f32(), op="max")
    wide = make("exp", make("sub", f32(0), arg(1, F32)))
    e = m.b.new(
        Map, (x, top), dtype=F32, shape=(13, 11), axes=(13, 11), accesses=(access, (at((0, 1)), at())), groups=((0,), (1,)), expr=wide
    )
    total = m.b.new(
        Reduce, (e,), dtype=F32, shape=(13, 1), axes=(13, 11), accesses=(access,), groups=((0,), ()), expr=arg(0, F32), op="sum"
    )
    p = m.b.new(
        Map, (e, total), dtype=F16, shape=(13, 11), axes=(13, 11), accesses=(access, (at((0, 1)), at())), groups=((0,), (1,)),
        expr=cast(make("div", arg(0, F32), arg(1, F32)), F16),
    )  # fmt: skip
    m.check([p, m.linear(p, values((7, 11), 3))])


@pytest.mark.parametrize("op", ["sum", "prod", "max", "min", "argmax", "argmin"])
def test_reduce(op: str) -> None:
    m = Model()
    x = m.input(values((6, 5, 12), 4))
    m.check([m.b.new(
        Reduce, (x,), dtype=I32 if op.startswith("arg") else F32, shape=(5,), axes=(6, 5, 12),
        accesses=((at((0, 1)), at((1, 1)), at((2, 1))),), groups=((1,),), expr=f32(), op=op,
    )])  # fmt: skip


def test_sums_over_both_mesh_axes_reach_all_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    """Six rows and five columns of an 8 x 8 rectangle hold the parts; the total is read by all of it."""
    m = Model()
    x, y = m.input(values((6, 5), 4)), m.input(values((64, 64), 5))
    access = (at((0, 1)), at((1, 1)))
    total = m.b.new(Reduce, (x,), dtype=F32, shape=(), axes=(6, 5), accesses=(access,), groups=(), expr=f32(), op="sum")
    scaled = m.b.new(
        Map, (y, total), dtype=F32, shape=(64, 64), axes=(64, 64), accesses=(access, ()), groups=((0,), (1,)),
        expr=make("div", f32(), arg(1, F32)),
    )  # fmt: skip
    force(monkeypatch, {total: (Split(0, 1, 6), Split(1, 1, 5)), scaled: (Split(0, 8, 8), Split(1, 8, 8))})
    m.check([total, scaled])


def force(monkeypatch: pytest.MonkeyPatch, cuts: dict[int, Splits]) -> None:
    """Cut nodes as given, on 8 x 8 cores."""
    monkeypatch.setattr(Chooser, "choices", lambda _, node: [Choice(0.0, cuts[node.id])])
    monkeypatch.setattr(driver._Plan, "_widths", lambda _, part, limit: iter([limit]))
    monkeypatch.setattr(sys.modules[__name__], "REGIONS", [(8, 8)])


@pytest.mark.parametrize(
    "cut",
    [(Split(1, 2, 8), Split(2, 3, 6)), (Split(2, 4, 5), Split(1, 4, 4)), (Split(1, 6, 3), None), (Split(0, 1, 4), Split(1, 6, 3))],
)
@pytest.mark.parametrize("laid", [(Split(1, 1, 6), Split(2, 2, 7)), (Split(2, 4, 4), Split(0, 2, 2)), (None, None)])
def test_pieces_of_a_cut_result(monkeypatch: pytest.MonkeyPatch, cut: Splits, laid: Splits) -> None:
    """Padding and concatenation cut along the dimensions in which pieces lie, wherever their operands are."""
    m = Model()
    x, y = m.input(values((4, 6, 14), 1)), m.input(values((4, 14, 3), 2))
    a = m.pointwise((x,), (4, 6, 14), cast(make("abs", f32()), F16))
    b = m.pointwise((y,), (4, 14, 3), cast(make("neg", f32()), F16))
    whole = ((0,), (1,), (2,))
    pieces = (
        Piece(0, (4, 6, 14), (at((0, 1)), at((1, 1)), at((2, 1))), whole, (0, 1, 2), (1, 1, 1)),
        Piece(1, (4, 3, 7), (at((0, 1)), at((2, 2)), at((1, 1))), whole, (0, 8, 3), (1, 2, 1)),
        Piece(1, (4, 5), (at((0, 1)), at((1, 1), offset=4), at(offset=2)), ((0,), (), (1,)), (0, 15, 11), (1, 1, 1)),
    )
    out = m.b.new(Move, (a, b), dtype=F16, shape=(4, 16, 18), pieces=pieces, fill=2.0)
    force(monkeypatch, {a: laid, b: (Split(1, 2, 7), Split(2, 1, 3)), out: cut})
    m.check([out])


UNARY = ["exp", "expm1", "tanh", "erf", "sin", "cos", "floor", "ceil", "trunc", "round", "sign", "abs", "log1p", "neg"]


@pytest.mark.parametrize("op", UNARY)
def test_functions(op: str) -> None:
    m = Model()
    x = m.input(np.linspace(-0.9, 4.0, 96, dtype=np.float16).reshape(8, 12))
    m.check([m.pointwise((x,), (8, 12), make(op, f32()))], tolerance=2e-6)


def test_integer_division_and_masks() -> None:
    m = Model()
    ids = m.input(np.arange(-24, 24, dtype=np.int32).reshape(6, 8), I32, (-24, 23))
    x = arg(0, I32)
    divided = make("add", make("idiv", x, const(7, I32)), make("mul", make("mod", x, const(4, I32)), const(100, I32)))
    causal = make("and", make("le", axis(1), axis(0)), make("gt", x, const(-20, I32)))
    m.check([
        m.pointwise((ids,), (6, 8), divided),
        m.pointwise((ids,), (6, 8), make("select", causal, cast(x, F32), const(-np.inf, F32))),
    ])  # fmt: skip


def test_heads_of_a_fused_projection() -> None:
    """Scores of heads that lie in one dimension, at an offset, with more tokens than a head has columns."""
    m = Model()
    x = m.input(values((12, 32), 5))
    qkv = m.linear(x, values((96, 32), 6) * np.float16(0.2))
    scores = m.b.new(
        Contract, (qkv, qkv), dtype=F32, shape=(4, 12, 12), axes=(4, 12, 12, 8), acc=F32, groups=((0,), (1,), (2,)),
        accesses=((at((1, 1)), at((0, 8), (3, 1))), (at((2, 1)), at((0, 8), (3, 1), offset=32))),
    )  # fmt: skip
    p = m.pointwise((scores,), (4, 12, 12), cast(arg(0, F32), F16))
    m.check([m.b.new(
        Contract, (p, qkv), dtype=F16, shape=(12, 32), axes=(12, 4, 8, 12), acc=F32, groups=((0,), (1, 2)),
        accesses=((at((1, 1)), at((0, 1)), at((3, 1))), (at((3, 1)), at((1, 8), (2, 1), offset=64))),
    )])  # fmt: skip


def test_assembly_and_views() -> None:
    m = Model()
    a, b = m.input(values((4, 6), 7)), m.input(values((4, 3), 8))
    pieces = (
        Piece(0, (6, 4), (at((1, 1)), at((0, -1), offset=5)), ((1,), (0,)), (0, 0), (1, 1)),
        Piece(1, (4, 3), (at((0, 1)), at((1, 1))), ((0,), (1,)), (0, 6), (1, 2)),
    )
    m.check([m.b.new(Move, (a, b), dtype=F16, shape=(4, 12), pieces=pieces, fill=-1.0)])


def test_gather_scatter_sort_scan() -> None:
    m = Model()
    table = m.constant(values((50, 16), 9))
    ids = m.input(np.array([3, 49, 0, 7, 7], np.int32), I32, (0, 49))
    rows = m.b.new(
        Gather, (table, ids), dtype=F16, shape=(5, 16), axes=(5, 16), accesses=((Lookup(1), at((1, 1))), (at((0, 1)),)),
        groups=((0,), (1,)),
    )  # fmt: skip
    base = m.input(values((9, 16), 10))
    where = m.input(np.array([8, 1, 1, 0, 4], np.int32), I32, (0, 8))
    nest = {"axes": (5, 16), "target": (Lookup(2), at((1, 1))), "accesses": ((at((0, 1)), at((1, 1))), (at((0, 1)),))}
    added = m.b.new(Scatter, (base, rows, where), dtype=F16, shape=(9, 16), mode="add", **nest)
    put = m.b.new(Scatter, (base, rows, where), dtype=F16, shape=(9, 16), mode="set", **nest)
    order = m.b.new(Sort, (rows,), dtype=I32, shape=(5, 4), axis=1, descending=True, count=4)
    running = m.b.new(Scan, (rows,), dtype=F16, shape=(5, 16), op="add", axis=1, reverse=False)
    m.check([rows, added, put, order, running])


def test_state_is_updated_in_place() -> None:
    m = Model()
    cache = m.state(values((4, 10, 8), 11))
    new = m.input(values((4, 8), 12))
    position = m.input(np.array([6], np.int32), I32, (0, 9))
    update = m.b.new(
        Scatter, (cache, new, position), dtype=F16, shape=(4, 10, 8), mode="set", axes=(4, 8),
        target=(at((0, 1)), Lookup(2), at((1, 1))), accesses=((at((0, 1)), at((1, 1))), (at(),)),
    )  # fmt: skip
    m.updates = {"s0": update}  # type: ignore[attr-defined]
    m.check([m.pointwise((update,), (4, 10, 8), cast(make("mul", f32(), const(2.0)), F16))])


def test_software_overheads_are_paid() -> None:
    m = Model()
    x = m.input(values((8, 32), 1))
    y = m.linear(x, values((64, 32), 2))
    m.check([y], overhead="software")
    graph = m.b.finish([y])
    ideal, software = (
        compile_graph(graph, m.store, CompileOptions(machine=MACHINE, region=(8, 8), overhead=o)).predicted_cycles
        for o in ("ideal", "software")
    )
    assert software > ideal


def test_half_sums_are_cheaper_and_coarser() -> None:
    m = Model()
    x = m.input(values((8, 32), 1))
    y = m.linear(x, values((64, 32), 2))
    m.check([y], tolerance=2e-2, accumulate="fp16")
    graph = m.b.finish([y])
    full, half = (
        compile_graph(graph, m.store, CompileOptions(machine=MACHINE, region=(8, 8), accumulate=a)).predicted_cycles
        for a in ("fp32", "fp16")
    )
    assert half < full


def test_bools_are_stored_and_reduced() -> None:
    m = Model()
    x = m.input(values((6, 8), 13))
    positive = m.pointwise((x,), (6, 8), make("gt", f32(), const(0.0)))
    access = (at((0, 1)), at((1, 1)))
    found = m.b.new(
        Reduce, (positive,), dtype=BOOL, shape=(6,), axes=(6, 8), accesses=(access,), groups=((0,),), expr=arg(0, BOOL), op="any"
    )
    m.check([positive, found])


def two_layers() -> tuple[Graph, Model]:
    m = Model()
    x = m.input(values((4, 64), 1))
    m.check_output = m.linear(m.linear(x, values((64, 64), 2)), values((64, 64), 3))  # type: ignore[attr-defined]
    return m.b.finish([m.check_output]), m  # type: ignore[attr-defined]


def test_programs_are_deterministic_and_bounded() -> None:
    graph, m = two_layers()
    options = CompileOptions(machine=MACHINE, region=(8, 8))
    first, second = (compile_graph(graph, m.store, options) for _ in range(2))
    assert first.digest() == second.digest()
    assert 0 < lower_bound(graph, MACHINE, (8, 8))["bound_cycles"] <= first.predicted_cycles


def test_infeasible_names_the_memory() -> None:
    m = Model()
    x = m.input(values((4, 512), 1))
    graph = m.b.finish([m.linear(x, values((512, 512), 2))])
    with pytest.raises(Infeasible, match="core memory is too small"):
        compile_graph(graph, m.store, CompileOptions(machine=MACHINE, region=(2, 2)))
