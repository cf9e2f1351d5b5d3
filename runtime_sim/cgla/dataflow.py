"""Values of a kernel over all iterations of a launch.

The iterations n = i1 * L0 + i0 of a launch are the cells of a mixed-radix grid: `digits` are the radices, outermost first, and the last
`inner` of them multiply to L0. A value is an array with one axis a digit, of extent 1 where it does not depend on that digit. With
the digits (L1, L0) and full loads this is the plain slot-by-slot evaluation; with finer digits the same elementwise operations run on
what is distinct, so the results are bit-equal. A self-update runs along the inner digits (and along all where nothing resets it) in the
order of n, never re-associated.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import prod
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from ...machines.cgla.isa import OP1, OP2, OP3, TR_FROM_ALU, Source
from . import words as w
from .kernel import Kernel, Slot, Value
from .words import Words


class LoadSource(Protocol):
    """Gives the data of a load as an array over the grid (`last`: only at the last inner cell, inner axes of extent 1)."""

    def __call__(self, value: Value, last: bool) -> Words: ...


class DataDependent(Exception):
    """A value that needs loaded data was asked for where only counters are known."""


def no_loads(value: Value, last: bool) -> Words:
    """A load source for address slices."""
    raise DataDependent(value)


class Dataflow:
    """Evaluates values of one kernel on one grid; results are kept by (value, last)."""

    def __init__(
        self, kernel: Kernel, constants: Mapping[tuple[int, int, int], int], digits: tuple[int, ...], inner: int, load: LoadSource
    ) -> None:
        self.kernel = kernel
        self.constants = constants
        self.digits = digits
        self.inner = inner
        self.load = load
        self.outer_shape = digits[: len(digits) - inner]
        self.inner_shape = digits[len(digits) - inner :]
        self.memo: dict[tuple[Value, bool], Words] = {}

    @property
    def one_step(self) -> bool:
        """True where L0 = 1, so that every iteration is a first and a last one."""
        return prod(self.inner_shape) == 1

    def value(self, value: Value, last: bool = False) -> Words:
        """The value on the grid, or at the last inner cells."""
        key = (value, last)
        if key not in self.memo:
            self.memo[key] = self._make(value, last)
        return self.memo[key]

    def release(self, value: Value) -> None:
        """Forget a value that nothing needs any more."""
        self.memo.pop((value, False), None)
        self.memo.pop((value, True), None)

    def _make(self, value: Value, last: bool) -> Words:
        if value.kind == "const":
            raw = self.constants.get((value.row, value.col, value.part), 0)
            return np.full((1,) * len(self.digits), raw, dtype=np.uint64)
        if value.kind in ("load", "wide"):
            return self.load(value, last)
        slot = self.kernel.slots[(value.row, value.col)]
        if slot["self"]:
            return self._running(slot, last)
        operands = self.operands(slot, last)
        return self.cascade(slot, operands)

    def select(self, slot: Slot, name: str, last: bool) -> Words:
        """The BR that a field of a slot selects (folded slots read their own row)."""
        driver = self.kernel.driver(self.kernel.source_row(slot.row, bool(slot.fold)), slot[name])
        assert driver is not None
        return self.value(driver, last)

    def operand(self, slot: Slot, index: int, last: bool) -> Words | None:
        """Operand `index` of a slot, expanded (CVT53 and its like take the raw word); None where it is not selected."""
        if slot[f"ex{index}"] < 0:
            return None
        return w.expand(self.select(slot, f"ex{index}", last), slot[f"expand{index}"])

    def operands(self, slot: Slot, last: bool) -> list[Words | None]:
        """The three expanded operands, with the gate of init bit 1 applied to the second."""
        result = [self.operand(slot, index, last) for index in (1, 2, 3)]
        if slot.init & 2 and result[1] is not None:
            result[1] = self._gated(result[1], last)
        return result

    def _gated(self, source: Words, last: bool) -> Words:
        """src2 at the first inner cell, 0 elsewhere."""
        if self.one_step:
            return source
        if last:
            return np.zeros((1,) * len(self.digits), dtype=np.uint64)
        full = np.zeros(source.shape[: len(self.outer_shape)] + self.inner_shape, dtype=np.uint64)
        first: tuple[Any, ...] = (Ellipsis, *(0,) * self.inner)
        full[first] = np.broadcast_to(source, full.shape)[first]
        return full

    def cascade(self, slot: Slot, operands: list[Words | None]) -> Words:
        """op1 -> op2 -> op3 on given operands."""
        arity = OP1[slot.op1].arity
        taken = tuple(operand for operand in operands[:arity] if operand is not None)
        result = w.op1(slot.op1_name, slot.mode, taken)
        return self.tail(slot, result, operands)

    def tail(self, slot: Slot, result: Words, operands: list[Words | None]) -> Words:
        """op2 -> op3."""
        if slot.op2:
            source = {Source.EX2: operands[1], Source.EX3: operands[2]}.get(Source(slot.src4), np.uint64(slot.imm4))
            result = w.op2(OP2[slot.op2].name, result, None if source is None else np.asarray(source, dtype=np.uint64))
        if slot.op3:
            amount = operands[2] if slot.src5 == Source.EX3 else np.uint64(slot.imm5)
            result = w.op3(OP3[slot.op3], result, np.asarray(amount, dtype=np.uint64))
        return result

    def _running(self, slot: Slot, last: bool) -> Words:
        """A self-updating slot: its running result along the inner digits, or along all digits where nothing resets it."""
        resets = bool(slot.init & 1)
        operands = self.operands(slot, False)
        start = operands[0]
        assert start is not None
        steps = operands[1:]
        outer = np.broadcast_shapes(*(x.shape[: len(self.outer_shape)] for x in operands if x is not None)) if resets else self.outer_shape
        shape = outer + self.inner_shape
        length = prod(self.inner_shape) if resets else prod(shape)
        flat: list[Words | None] = [None if x is None else np.broadcast_to(x, shape).reshape(-1, length) for x in steps]
        begin = np.broadcast_to(start, shape).reshape(-1, length)[:, :1]
        result = self._accumulate(slot, begin, flat, length).reshape(shape)
        return self.at_last(result) if last else result

    def at_last(self, array: Words) -> Words:
        """The last inner cell of an array, inner axes kept with extent 1."""
        index = tuple(slice(-1, None) if axis >= len(self.outer_shape) else slice(None) for axis in range(len(self.digits)))
        return array[index]

    def _accumulate(self, slot: Slot, begin: Words, steps: list[Words | None], length: int) -> Words:
        name = slot.op1_name
        second, third = steps
        assert second is not None
        if _masked_sum(slot):
            addend = second if third is None or name in ("ADD", "SUB") else w.op1("ADD", 0, (second, third))
            if not ((np.bitwise_or.reduce(addend, axis=None) | np.bitwise_or.reduce(begin, axis=None)) & _below(slot.imm4)).any():
                return _integer_sum(begin, addend, name) & np.uint64(slot.imm4)
        if slot.op2 or slot.op3:
            return self._stepwise(slot, begin, steps, length)
        if name in ("ADD", "SUB", "ADD3", "SUB3"):
            return _integer_sum(begin, second if third is None or name in ("ADD", "SUB") else w.op1("ADD", 0, (second, third)), name)
        if name in ("FMA", "FMS"):
            assert third is not None
            addend = w.product(second ^ np.uint64(0x8000000080000000) if name == "FMS" else second, third)
            return _scan(np.add, begin, addend, "<f4")
        if name == "FAD":
            return _scan(np.add, begin, second, "<f4")
        if name in ("X_FMAX", "X_FMIN"):
            return _scan(np.maximum if name == "X_FMAX" else np.minimum, begin, second, "<f4")
        return _scan(np.maximum if name == "MMAX" else np.minimum, begin, second, "u1")

    def _stepwise(self, slot: Slot, begin: Words, steps: list[Words | None], length: int) -> Words:
        """The cascade of a self slot with op2 or op3 feeds back whole: one step at a time over all segments."""
        out = np.empty((begin.shape[0], length), dtype=np.uint64)
        current = begin[:, 0]
        for step in range(length):
            now: list[Words | None] = [current, *(None if x is None else x[:, step] for x in steps)]
            current = self.cascade(slot, now)
            out[:, step] = current
        return out

    def predicate(self, slot: Slot, last: bool = False) -> NDArray[np.uint8]:
        """Enable bits of a store: bit 0 the low half, bit 1 the high half, over the grid."""
        shape = (1,) * len(self.digits)
        index = [np.zeros(shape, dtype=np.uint32), np.zeros(shape, dtype=np.uint32)]
        for bit in range(4):
            if slot[f"pred{bit}"] < 0:
                continue
            source = self.select(slot, f"pred{bit}", last)
            for half in (0, 1):
                one = ((source >> np.uint64(32 * half)) & np.uint64(1)).astype(np.uint32)
                index[half] = index[half] | (one << np.uint32(bit))
        low, high = ((np.uint32(slot.truth) >> i) & np.uint32(1) for i in index)
        return (low | (high << np.uint32(1))).astype(np.uint8)

    def stored(self, slot: Slot) -> list[Value]:
        """What a store writes, by its maker: one value, or four for STRQ."""
        own = Value("alu", slot.row, slot.col, 0)
        if slot.store == 1:
            return [own]
        result = []
        for k in range(4) if slot.store == 6 else [slot.store - 2]:
            passed = None if slot[f"tr{k}"] == TR_FROM_ALU else self.kernel.driver((slot.row - 1) % self.kernel.rows, slot[f"tr{k}"])
            result.append(own if slot[f"tr{k}"] == TR_FROM_ALU else passed)
        return [value for value in result if value is not None]

    def store_data(self, slot: Slot, last: bool = False) -> list[Words]:
        """The words that a store writes."""
        return [self.value(value, last) for value in self.stored(slot)]


def _masked_sum(slot: Slot) -> bool:
    """True for an integer sum of which each word keeps one block of bits.

    Masking once at the end is the same as masking every step: what is cut above the block vanishes modulo its top, and where all
    addends have no bits below the block (`_below`) nothing carries into it.
    """
    halves = (slot.imm4 & 0xFFFFFFFF, slot.imm4 >> 32)
    block = all((half + (half & -half)) & half == 0 for half in halves)
    integer = slot.op1_name in ("ADD", "SUB", "ADD3", "SUB3")
    return integer and OP2[slot.op2].name == "AND" and slot.src4 == Source.IMM and not slot.op3 and block


def _below(mask: int) -> np.uint64:
    """The bits of each word below the lowest bit of its mask."""
    low, high = mask & 0xFFFFFFFF, mask >> 32
    return np.uint64(max((low & -low) - 1, 0) | max((high & -high) - 1, 0) << 32)


def _integer_sum(begin: Words, addend: Words, name: str) -> Words:
    lanes = w.parts(addend, "<u4").astype(np.uint32)
    if name.startswith("SUB"):
        lanes = (np.uint32(0) - lanes).astype(np.uint32)
    total = np.add.accumulate(lanes, axis=-2, dtype=np.uint32)
    return w.join((total + w.parts(begin, "<u4")).astype(np.uint32))


def _scan(function: np.ufunc, begin: Words, addend: Words, dtype: str) -> Words:
    """begin, then one value a step, accumulated strictly in order."""
    lanes = np.concatenate([w.parts(begin, dtype), w.parts(np.ascontiguousarray(addend), dtype)], axis=-2)
    with np.errstate(all="ignore"):
        return w.join(np.ascontiguousarray(function.accumulate(lanes, axis=-2)[:, 1:]))
