"""How the TSP backend chooses to run contractions, gathers and long maps; every choice is legal and gives the interpreter's numbers."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from spatialc.backends.options import CompileOptions
from spatialc.backends.tsp import compile_graph
from spatialc.backends.tsp.assemble import _Chip
from spatialc.backends.tsp.engine import Engine
from spatialc.backends.tsp.memory import Allocator, Seq, Storage
from spatialc.backends.tsp.recipes import positive_nodes
from spatialc.backends.tsp.step import Timeline
from spatialc.ir.expr import Expr, arg, cast, const, make
from spatialc.ir.graph import Constant, ConstantRef, Contract, Gather, Graph, GraphBuilder, Index, Input, Lookup, Map, Move, Piece, Reduce
from spatialc.ir.interpret import interpret
from spatialc.ir.store import ConstantStore
from spatialc.ir.types import F16, F32, I64, DType
from spatialc.machines.catalog import load_machine
from spatialc.machines.program import Program
from spatialc.machines.tsp.isa import Class, mxm_unit
from spatialc.machines.tsp.isa import DType as MachineType
from spatialc.machines.tsp.tables import Kind
from spatialc.runtime_sim.tsp import execute

Case = tuple[Graph, dict[str, np.ndarray], ConstantStore]


def at(*terms: tuple[int, int], offset: int = 0) -> Index:
    return Index.of(offset, terms)


def random(*shape: int, dtype: str = "f4") -> np.ndarray:
    return np.random.default_rng(sum(shape)).standard_normal(shape).astype(dtype)


def constant(b: GraphBuilder, store: ConstantStore, name: str, array: np.ndarray, dtype: DType) -> Any:
    store.put(name, array)
    return b.new(Constant, dtype=dtype, shape=array.shape, ref=ConstantRef(name, dtype, array.shape))


def judged(case: Case, tolerance: float = 1e-6) -> Program:
    """Compile, execute and compare with the interpreter."""
    graph, inputs, store = case
    program = compile_graph(graph, store, CompileOptions(load_machine("tsp")))
    run = execute(program, inputs, None)
    assert not run.violations, run.violations[0]
    outputs, _ = interpret(graph, inputs, states=None, store=store)
    for got, want in zip(run.outputs.values(), outputs, strict=True):
        assert np.linalg.norm(got.astype(float) - want.astype(float)) <= tolerance * np.linalg.norm(want.astype(float))
    return program


def bursts(program: Program, unit: int) -> int:
    return sum(int((segment.tables["bursts"]["unit"] == unit).sum()) for segment in program.segments)


def convolution(channels: int, depthwise: bool) -> Case:
    """Two images of 6 x 6 positions, channels last, padded, a window of 3 x 3."""
    b, store = GraphBuilder(), ConstantStore()
    x = b.new(Input, dtype=F16, shape=(2, 6, 6, channels), name="x")
    axes = (2, channels, 6, 6)
    piece = Piece(0, axes, (at((0, 1)), at((2, 1)), at((3, 1)), at((1, 1))), ((0,), (1,), (2,), (3,)), (0, 0, 1, 1), (1, 1, 1, 1))
    padded = b.new(Move, [x], dtype=F16, shape=(2, channels, 8, 8), pieces=(piece,), fill=0)
    shape = (channels, 1, 3, 3) if depthwise else (24, channels, 3, 3)
    w = constant(b, store, "w", random(*shape, dtype="f2"), F16)
    if depthwise:
        y = b.new(
            Contract, [padded, w], dtype=F32, shape=axes, axes=(*axes, 3, 3), groups=((0,), (1,), (2,), (3,)), acc=F32,
            accesses=((at((0, 1)), at((1, 1)), at((2, 1), (4, 1)), at((3, 1), (5, 1))), (at((1, 1)), at(), at((4, 1)), at((5, 1)))),
        )  # fmt: skip
    else:
        y = b.new(
            Contract, [padded, w], dtype=F32, shape=(2, 6, 6, 24), axes=(2, 24, 6, 6, channels, 3, 3),
            groups=((0,), (2,), (3,), (1,)), acc=F32,
            accesses=(
                (at((0, 1)), at((4, 1)), at((2, 1), (5, 1)), at((3, 1), (6, 1))),
                (at((1, 1)), at((4, 1)), at((5, 1)), at((6, 1))),
            ),
        )  # fmt: skip
    return b.finish([y]), {"x": random(2, 6, 6, channels, dtype="f2")}, store


def test_a_window_over_channels_last_moves_no_lanes() -> None:
    program = judged(convolution(160, depthwise=False))
    assert bursts(program, mxm_unit(2, Class.MXM_A)) == 9, "nine tiles of K"
    assert not bursts(program, mxm_unit(0, Class.MXM_A)), "no moves"


def test_a_depthwise_window_runs_on_the_vector_unit() -> None:
    assert not bursts(judged(convolution(160, depthwise=True)), mxm_unit(2, Class.MXM_A))


def experts(tokens: int, chosen: int, count: int, n: int, k: int) -> Case:
    """out[t, j] = W[index[t, j]] x[t], as routers of experts ask for."""
    b, store = GraphBuilder(), ConstantStore()
    x = b.new(Input, dtype=F16, shape=(tokens, k), name="x")
    ids = b.new(Input, dtype=I64, shape=(tokens, chosen), name="ids", range=(0, count - 1))
    w = constant(b, store, "w", random(count, n, k, dtype="f2"), F16)
    gathered = b.new(
        Gather, [w, ids], dtype=F16, shape=(tokens * chosen, n, k), axes=(tokens, chosen, n, k), groups=((0, 1), (2,), (3,)),
        accesses=((Lookup(1), at((2, 1)), at((3, 1))), (at((0, 1)), at((1, 1)))),
    )  # fmt: skip
    y = b.new(
        Contract, [x, gathered], dtype=F32, shape=(tokens * chosen, n), axes=(tokens, chosen, n, k), groups=((0, 1), (2,)), acc=F32,
        accesses=((at((0, 1)), at((3, 1))), (at((0, chosen), (1, 1)), at((2, 1)), at((3, 1)))),
    )  # fmt: skip
    inputs = {"x": random(tokens, k, dtype="f2"), "ids": np.random.default_rng(1).integers(0, count, (tokens, chosen))}
    return b.finish([y]), inputs, store


@pytest.mark.parametrize("chosen", [1, 2])
def test_experts_are_chosen_after_contracting_with_all(chosen: int) -> None:
    case = experts(6, chosen, 3, 40, 48)
    program = judged(case)
    assert sum(image.nbytes for image in program.images.values()) < 4 << 20, "no table with a row for every weight"


def test_a_crowded_section_goes_on_in_another(monkeypatch: pytest.MonkeyPatch) -> None:
    """A gather that is left to its contraction goes with it; what the rest reads lies between the two."""
    monkeypatch.setattr(Allocator, "crowded", lambda self: True)
    b, store = GraphBuilder(), ConstantStore()
    flat = (at((0, 1)), at((1, 1)))
    x = b.new(Input, dtype=F32, shape=(6, 48), name="x")
    ids = b.new(Input, dtype=I64, shape=(6,), name="ids", range=(0, 2))
    w = constant(b, store, "w", random(3, 40, 48, dtype="f2"), F16)
    total = b.new(Reduce, [x], dtype=F32, shape=(6, 1), axes=(6, 48), accesses=(flat,), groups=((0,), ()), expr=arg(0, F32), op="sum")
    gathered = b.new(
        Gather, [w, ids], dtype=F16, shape=(6, 40, 48), axes=(6, 40, 48), groups=((0,), (1,), (2,)),
        accesses=((Lookup(1), at((1, 1)), at((2, 1))), (at((0, 1)),)),
    )  # fmt: skip
    shifted = b.new(
        Map, [x, total], dtype=F16, shape=(6, 48), axes=(6, 48), accesses=(flat, (at((0, 1)), at())), groups=((0,), (1,)),
        expr=cast(make("add", arg(0, F32), arg(1, F32)), F16),
    )  # fmt: skip
    y = b.new(
        Contract, [shifted, gathered], dtype=F32, shape=(6, 40), axes=(6, 40, 48), groups=((0,), (1,)), acc=F32,
        accesses=((at((0, 1)), at((2, 1))), (at((0, 1)), at((1, 1)), at((2, 1)))),
    )  # fmt: skip
    z = b.new(
        Map, [y, total], dtype=F32, shape=(6, 40), axes=(6, 40), accesses=(flat, (at((0, 1)), at())), groups=((0,), (1,)),
        expr=make("mul", arg(0, F32), arg(1, F32)),
    )  # fmt: skip
    program = judged((b.finish([z]), {"x": random(6, 48), "ids": np.array([2, 0, 1, 1, 0, 2])}, store))
    assert len(program.segments) == 4


def test_a_gather_at_known_positions_is_a_move() -> None:
    b, store = GraphBuilder(), ConstantStore()
    x = b.new(Input, dtype=F32, shape=(5, 30), name="x")
    ids = constant(b, store, "ids", np.array([3, 29, 0, 3, 17]), I64)
    y = b.new(
        Gather, [x, ids], dtype=F32, shape=(5, 5), axes=(5, 5), groups=((0,), (1,)), accesses=((at((0, 1)), Lookup(1)), (at((1, 1)),)),
    )  # fmt: skip
    assert judged((b.finish([y]), {"x": random(5, 30)}, store)).predicted_cycles < 400


def long_chain(read: Expr) -> Expr:
    """More operations than the ALU grid takes at once."""
    for k in range(12):
        read = make("add", make("mul", read, const(0.5)), make("max", read, const(-1.0 - k)))
    return read


def test_a_long_map_runs_block_by_block() -> None:
    b = GraphBuilder()
    x = b.new(Input, dtype=F32, shape=(4100, 8), name="x")
    y = b.new(
        Map, [x], dtype=F32, shape=(4100, 8), axes=(4100, 8), groups=((0,), (1,)), accesses=((at((0, 1)), at((1, 1))),),
        expr=long_chain(arg(0, F32)),
    )  # fmt: skip
    judged((b.finish([y]), {"x": random(4100, 8)}, ConstantStore()))


def test_a_copy_into_both_hemispheres_drives_each_result_one_way() -> None:
    machine = load_machine("tsp")
    engine = Engine(machine, Allocator(machine), Timeline("copy"))
    west, east = (frozenset(range(44 * side, 44 * side + 44)) for side in (0, 1))
    source = engine.scratch(MachineType.F16, 4, west)
    target = Seq.join([engine.scratch(MachineType.F16, 2, west | source.units), engine.scratch(MachineType.F16, 2, east)])
    engine.copy_into(source, target)
    claims = engine.timeline.segment().tables["claims"]
    assert (claims["until"] > 0).all()


def test_signs_are_known_of_every_node_once() -> None:
    """Sixty Maps that read the one before twice, each an expression of sixty entries that do: paths through either would be 2^60."""
    b = GraphBuilder()
    x = b.new(Input, dtype=F32, shape=(4,), name="x", range=None)
    entry = make("add", make("exp", arg(0, F32)), make("exp", arg(1, F32)))
    for _ in range(60):
        entry = make("add", entry, entry)
    last = b.new(Map, operands=(x, x), dtype=F32, shape=(4,), axes=(4,), accesses=((at((0, 1)),),) * 2, groups=((0,),), expr=entry)
    for _ in range(60):
        grown = make("mul", arg(0, F32), arg(1, F32))
        last = b.new(
            Map, operands=(last, last), dtype=F32, shape=(4,), axes=(4,), accesses=((at((0, 1)),),) * 2, groups=((0,),), expr=grown
        )
    sure = positive_nodes(b.finish((last,)))
    assert last in sure and x not in sure


def test_rows_pass_to_another_allocation_when_the_last_holder_is_done_in_all_of_its_slices() -> None:
    free = np.zeros((88, 2, 4096), dtype=bool)
    chip = _Chip(free, free.copy())

    def use(first: int, last: int) -> Timeline:
        storage = Storage(MachineType.I8, 8, ((3,),), (0,), Kind.SCRATCH, 0, 20, 8, first=first, last=last)
        return Timeline("part", objects=[storage])

    rows = [{"bank": 0, "row": 20}, {"bank": 0, "row": 24}, {"bank": 1, "row": 20}, {"bank": 0, "row": 28}]
    chip.run(use(0, 100), [0], rows, 7)
    assert chip.earliest(use(10, 50), [1], rows) == 107 + 1 - 10  # rows 24 to 31 meet rows 20 to 27
    assert chip.earliest(use(10, 50), [0], rows) == 0
    assert chip.earliest(use(10, 50), [2], rows) == chip.earliest(use(10, 50), [3], rows) == 0
    chip.run(use(10, 50), [1], rows, 98)
    assert chip.earliest(use(0, 1), [3], rows) == 98 + 50 + 1
