"""Assemblies on the TSP: what they read of constants, vectors that lie in all slices, rows put together by masks, growing assemblies."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from spatialc import api
from spatialc.backends.options import CompileOptions
from spatialc.backends.tsp import compile_graph
from spatialc.ir.expr import arg, const, make
from spatialc.ir.graph import Constant, ConstantRef, Graph, GraphBuilder, Index, Input, Map, Move, Piece
from spatialc.ir.interpret import interpret
from spatialc.ir.store import ConstantStore
from spatialc.ir.types import F16, F32
from spatialc.machines.catalog import load_machine
from spatialc.machines.program import Program
from spatialc.machines.tsp.isa import Class, mxm_unit
from spatialc.runtime_sim.tsp import execute


def at(*terms: tuple[int, int], offset: int = 0) -> Index:
    return Index.of(offset, terms)


def normal(*shape: int) -> np.ndarray:
    return np.random.default_rng(sum(shape)).standard_normal(shape).astype("f4")


def judged(graph: Graph, inputs: dict[str, np.ndarray], store: ConstantStore) -> Program:
    """Compile, execute and compare with the interpreter, bit by bit."""
    program = compile_graph(graph, store, CompileOptions(load_machine("tsp")))
    run = execute(program, inputs, None)
    assert not run.violations, run.violations[0]
    outputs, _ = interpret(graph, inputs, states=None, store=store)
    for got, want in zip(run.outputs.values(), outputs, strict=True):
        assert np.array_equal(got, want)
    return program


def moves(program: Program) -> int:
    """Activations of the planes that move lanes."""
    return sum(int((segment.tables["bursts"]["unit"] == mxm_unit(0, Class.MXM_A)).sum()) for segment in program.segments)


def test_an_assembly_lays_down_only_the_rows_of_a_constant_that_it_reads() -> None:
    b, store = GraphBuilder(), ConstantStore()
    x = b.new(Input, dtype=F32, shape=(4, 64), name="x")
    w = b.new(Constant, dtype=F32, shape=(30000, 64), ref=ConstantRef("w", F32, (30000, 64)))
    store.put("w", np.broadcast_to(normal(1, 64), (30000, 64)))
    pieces = (
        Piece(0, (4, 64), (at((0, 1)), at((1, 1))), ((0,), (1,)), (0, 0), (1, 1)),
        Piece(1, (4, 64), (at(offset=7), at((1, 1))), ((0,), (1,)), (0, 64), (1, 1)),
    )
    y = b.new(Move, [x, w], dtype=F32, shape=(4, 128), pieces=pieces)
    program = judged(b.finish([y]), {"x": normal(4, 64)}, store)
    assert sum(image.nbytes for image in program.images.values()) < 1 << 20


def test_vectors_that_lie_in_all_slices_are_copied_in_two_steps() -> None:
    b = GraphBuilder()
    count = 40
    xs = [b.new(Input, dtype=F32, shape=(64,), name=f"x{k}") for k in range(count)]
    pieces = tuple(Piece(k, (64,), (at((0, 1)),), ((), (0,)), (k, 0), (1, 1)) for k in range(count))
    y = b.new(Move, xs, dtype=F32, shape=(count, 64), pieces=pieces)
    full = (at((0, 1)), at((1, 1)))
    z = b.new(
        Map, [y], dtype=F32, shape=(count, 64), axes=(count, 64), accesses=(full,), groups=((0,), (1,)),
        expr=make("add", arg(0, F32), const(1.0)),
    )  # fmt: skip
    judged(b.finish([z]), {f"x{k}": normal(64) + k for k in range(count)}, ConstantStore())


@pytest.mark.parametrize("sources", [2, 5])
def test_rows_whose_elements_are_in_their_lanes_are_put_together_by_masks(sources: int) -> None:
    b = GraphBuilder()
    width = 20
    shape = (30, width * sources)
    xs = [b.new(Input, dtype=F16, shape=shape, name=f"x{k}") for k in range(sources)]
    pieces = tuple(
        Piece(k, (30, width), (at((0, 1)), at((1, 1), offset=width * k)), ((0,), (1,)), (0, width * k), (1, 1)) for k in range(sources)
    )
    y = b.new(Move, xs, dtype=F16, shape=shape, pieces=pieces)
    inputs = {f"x{k}": (normal(*shape) + k).astype("f2") for k in range(sources)}
    assert not moves(judged(b.finish([y]), inputs, ConstantStore()))


class Substitution(torch.nn.Module):
    """Row after row of the inverse of a triangular matrix, each from the rows before it, written into the whole."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        a = x.tril(-1)
        for k in range(1, x.shape[-1]):
            row = a[..., k, :k].clone()
            a[..., k, :k] = row + (row.unsqueeze(-1) * a[..., :k, :k].clone()).sum(-2)
        return a


def test_growing_assemblies_share_what_they_move() -> None:
    x = 0.2 * torch.from_numpy(normal(2, 3, 24, 24))
    program = api.compile(Substitution(), (x,), target="tsp")
    result = program.run(x)
    assert result.data.status == "ok"
    assert result.data.chips == 1
    assert sum(image.nbytes for image in program.container.images.values()) < 8 << 20
