"""Runs of ALU operations as one loop: the bits that one operation at a time gives."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from spatialc import api
from spatialc.machines.tsp.isa import NUMPY, DType, Opcode
from spatialc.runtime_sim.tsp import alu, chain_kernels, chains, prepare

LANES = 320
KNOWN = [
    (code, dtype, dtype2, modular)
    for code, dtype, dtype2, modular in product(Opcode, DType, DType, (0, 1))
    if chains.kind_of(code, dtype, dtype2, modular) >= 0 and (dtype2 == DType.NONE or code in (Opcode.CAST, Opcode.SELECT, Opcode.MASK_BAR))
]
SPECIAL = np.array(
    [
        0.0, -0.0, np.inf, -np.inf, np.nan, 1e-45, -1e-40, 5.9e-8, 2.0**-25, 3 * 2.0**-26, 6.1e-5, 65503.0, 65504.0, 65519.9, 65520.0,
        -7e4, 1e30,
    ],
    np.float32,
)  # fmt: skip


def operand(rng: np.random.Generator, dtype: DType, rows: int) -> np.ndarray:
    kind = np.dtype(NUMPY[dtype])
    if kind.kind == "f":
        values = (rng.standard_normal((rows, LANES)) * 2.0 ** rng.integers(-30, 20, (rows, LANES))).astype(np.float32)
        values[:, : len(SPECIAL)] = SPECIAL
        with np.errstate(over="ignore"):
            return values.astype(kind)
    info = np.iinfo(kind)
    whole = rng.integers(info.min, info.max, (rows, LANES), kind, endpoint=True)
    result: np.ndarray = whole >> rng.integers(0, 8 * kind.itemsize, (rows, LANES)).astype(kind)
    return result


@pytest.mark.parametrize("apart", [False, True])
@pytest.mark.parametrize("operation", KNOWN, ids=[f"{code.name}-{a.name}-{b.name}-{m}" for code, a, b, m in KNOWN])
def test_an_operation_gives_the_bits_of_numpy(operation: tuple[Opcode, DType, DType, int], apart: bool) -> None:
    """Operands interleaved, or byte planes apart; results in the arena."""
    code, dtype, dtype2, modular = operation
    rng, rows = np.random.default_rng(7), 3
    other = dtype2 if code in (Opcode.SELECT, Opcode.MASK_BAR) else dtype
    x = operand(rng, dtype, rows)
    y = operand(rng, other, rows) if code not in (Opcode.NEG, Opcode.RSQRT, Opcode.CAST) else None
    expected = np.empty((rows, LANES), alu.result_type(code, dtype, dtype2))
    with np.errstate(all="ignore"):
        alu.apply(code, dtype, dtype2, modular, x, y, expected)
    data = np.zeros(3 * rows * LANES * 4, np.uint8)
    where, step, whole = np.full((rows, 8), -1), np.ones((rows, 8), np.int64), np.ones((rows, 2), bool)
    for place, values in enumerate((x, y)):
        if values is None:
            continue
        width, base = values.dtype.itemsize, place * rows * LANES * 4
        whole[:, place] = not apart and width > 1
        planes = values.view(np.uint8).reshape(rows, LANES, width)
        laid = planes.transpose(0, 2, 1) if apart else planes
        data[base : base + planes.size] = laid.reshape(-1)
        plane = np.arange(width)
        first = base + np.arange(rows)[:, None] * LANES * width
        where[:, 4 * place : 4 * place + width] = first + plane * (LANES if apart else 1)
        step[:, 4 * place : 4 * place + width] = 1 if apart else width
    size = expected.dtype.itemsize
    target = 2 * rows * LANES * 4 + np.arange(rows) * LANES * size
    views = [data.view(kind) for kind in (np.uint8, np.uint16, np.uint32, np.float32)]
    kinds = np.full(rows, chains.kind_of(code, dtype, dtype2, modular))
    chain_kernels.rows(*views, np.array([-1]), kinds, target, where, step, whole, 0, rows, 1, LANES)
    found = data[2 * rows * LANES * 4 :][: rows * LANES * size].view(expected.dtype).reshape(rows, LANES)
    nan = np.isnan(expected) if expected.dtype.kind == "f" else np.zeros(expected.shape, bool)
    assert np.array_equal(found.view(np.uint8).reshape(rows, LANES, size)[~nan], expected.view(np.uint8).reshape(rows, LANES, size)[~nan])
    if nan.any():
        assert np.isnan(found[nan]).all()


@settings(max_examples=100, deadline=None)
@given(st.lists(st.lists(st.integers(0, 30), max_size=3), min_size=1, max_size=30), st.integers(0, 2**32 - 1))
def test_rows_of_its_own_are_free_when_they_are_given(takes: list[list[int]], seed: int) -> None:
    """No operation gets the row of one that is still taken, of itself or of what it takes; sets that share nothing are told apart."""
    size = len(takes)
    source = np.full((size, 8), -1)
    for r, some in enumerate(takes):
        for p, given_ in enumerate(s for s in some if s < r):
            source[r, p] = given_
    parent = np.arange(size)
    chain_kernels.components(source, parent)
    for r, p in zip(*np.nonzero(source >= 0), strict=True):
        assert parent[r] == parent[source[r, p]]
    last = np.full(size, -1)
    for r in range(size):
        for s in source[r][source[r] >= 0]:
            last[s] = r
    inner, slot = np.random.default_rng(seed).random(size) < 0.7, np.full(size, -1)
    most = chain_kernels.slots(source, last.copy(), inner, np.array([[0, size]]), slot)
    assert (slot[~inner] == -1).all() and slot.max(initial=-1) < most + (most == 0)
    for r in np.flatnonzero(inner):
        assert slot[r] >= 0
        for s in range(r):
            assert not (inner[s] and slot[s] == slot[r] and last[s] >= r)


def test_operands_that_lie_interleaved_are_taken_whole() -> None:
    """Of runs whose operations are computed in another order than that of their groups, and of different widths."""
    program = prepare(
        api.compile(torch.nn.Sequential(torch.nn.Softmax(-1), torch.nn.GELU()), (torch.zeros(400, 96),), target="tsp").container
    )
    x = np.random.default_rng(8).standard_normal((400, 96)).astype(np.float32)
    names = [binding.name for binding in program.program.bindings if binding.kind == "input"]
    first, again = program.run({names[0]: x}), program.run({names[0]: x})
    assert all(np.array_equal(first.outputs[name], again.outputs[name]) for name in first.outputs)
    found = [
        step.__self__ for values in program.values for step in values.steps[False] if isinstance(getattr(step, "__self__", 0), chains.Chain)
    ]
    assert any(chain.whole.any() for chain in found)
    single = (chain_kernels.NEG, chain_kernels.RSQRT, *range(chain_kernels.TO_HALF, chain_kernels.AND4))
    masked = (chain_kernels.TAKE4, chain_kernels.DROP4, chain_kernels.TAKE2, chain_kernels.DROP2)
    for chain in found:
        for kind, where, step, whole in zip(chain.kind, chain.where, chain.step, chain.whole, strict=True):
            width = 2 if kind >= chain_kernels.AND2 else 4
            for side, size in enumerate((width, 0 if kind in single or kind in masked else width)):
                place, pitch = where[4 * side :][:size], step[4 * side :][:size]
                if not size or place[0] == -1 or place[0] >= chain_kernels.OUTER:
                    assert not whole[side]
                    continue
                sign = 1 if place[0] >= 0 else -1
                first_byte = place[0] if place[0] >= 0 else -2 - place[0]
                assert whole[side] == (
                    np.array_equal(place, place[0] + sign * np.arange(size)) and (pitch == size).all() and first_byte % 4 == 0
                )
