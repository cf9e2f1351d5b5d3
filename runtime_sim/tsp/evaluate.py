"""The numbers: bursts computed in groups, in the order of `schedule.group_bursts`, on one arena of bytes (docs/tsp-model.md, 2 to 5).

Bursts of one level, operation and shape are one numpy operation; matrix passes are in `products.py`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from ...machines.tsp.isa import ACC_OPS, NUMPY, DType, Opcode
from ..threads import each, even
from . import alu, byte_passes, lanes, products
from .arena import Arena
from .byte_passes import Selections
from .chains import Chain, make_chain
from .flatten import ALU_CODES, expand
from .layout import Array, Block
from .legality import Analysis
from .operands import Operand, find_operand
from .report import Report
from .schedule import HALF
from .values import Values

_CHUNK = 512
"""Elements that an ALU group computes at a time: operands and result stay in the cache."""
_LEAVING = 8192
"""Rows that leave a block at a time."""
_ALL = 1 << 62


@dataclass(frozen=True)
class Place:
    """Where a block computes: the arena with the store's rows, and the offset of row 0 of each of the block's `pairs` in it (-1: it is not
    kept)."""

    block: Block
    arena: Arena
    pairs: Array
    selections: Selections


Step = Callable[["Evaluation"], None]


class Evaluation:
    """One run of one block over an arena.

    `states` are accumulators of ALUs by burst.
    """

    def __init__(self, a: Analysis, v: Values, place: Place, report: Report, exact: bool) -> None:
        self.a, self.v, self.place, self.report, self.exact = a, v, place, report, exact
        self.arena, self.vector = place.arena.memory, a.machine.vector
        plane = v.old // self.vector
        v.point(place.block, place.pairs, self._buffers(plane, v.old % self.vector))
        self.offset = v.offset
        self.states: dict[int, Array] = {}
        self.chain = dict(zip(a.chain[1].tolist(), a.chain[0].tolist(), strict=True))

    def run(self) -> None:
        """Compute all bursts, then leave in the store what outlives the block."""
        if self.exact not in self.v.steps:
            self.v.steps[self.exact] = self._plan()
        with np.errstate(all="ignore"):
            for step in self.v.steps[self.exact]:
                step(self)
        self._leave()

    def _plan(self) -> list[Step]:
        """What computes the groups of a layout, in order; groups whose results are found in another one are left out."""
        chains: dict[int, Chain | None] = {}

        def find(first: int) -> None:
            rows = np.concatenate(self.v.groups[first : self.v.runs[first] + 1])
            rows = rows[~self.v.fused[rows]]
            chains[first] = make_chain(self, rows) if len(rows) else None

        each(find, list(self.v.runs))
        steps: list[Step] = []
        number = 0
        while number < len(self.v.groups):
            rows, until = self.v.groups[number], self.v.runs.get(number, number)
            chain = chains.get(number)
            if chain is not None:
                steps.append(chain.run)
            elif number not in chains:
                steps += _PLANS[int(self.a.flat.b["opcode"][rows[0]])](self, rows)
            number = until + 1
        return steps

    def _buffers(self, plane: Array, row: Array) -> Array:
        """Offsets of rows of the weight buffers of planes (local chip * 4 + plane)."""
        first: Array = self.place.block.chips[plane // 4] * 4 + plane % 4
        result: Array = self.place.arena.buffers + (first * self.vector + row) * self.vector
        return result

    def rows(self, places: Array) -> Array:
        """Offsets of rows of the block."""
        pair, row = self.a.flat.within(places)
        first = self.place.pairs[pair]
        return np.where(first >= 0, first + row * self.vector, -1)

    def _leave(self) -> None:
        """Rows that pass through are read before anything is written: they may be overwritten. Results lie apart from rows."""
        memory, passes, arena = self.a.memory, self.a.passes, self.place.arena
        plane, row = np.nonzero(passes.buffer >= 0)
        offset, step = self.at(self.a.leaving)
        target = np.concatenate([self.rows(memory.written), self._buffers(passes.planes[plane], row)])
        apart = offset >= arena.results
        passing = lanes.fetch(self.arena, self.vector, offset[None, ~apart], step[None, ~apart])

        made = offset[apart], step[apart], target[apart]
        each(
            lambda low: lanes.move(self.arena, self.vector, *(column[low : low + _LEAVING] for column in made)),
            range(0, len(made[0]), _LEAVING),
        )
        arena.rows[(target[~apart] - arena.start) // self.vector] = passing

    def breach(self, rule: str, message: str, row: int) -> None:
        """Record what only data show."""
        self.report.bursts(rule, message, self.a.flat, self.place.block, [row])

    # operands ------------------------------------------------------------------------------------------------------------
    def at(self, taps: Array) -> tuple[Array, Array]:
        """(offset, step) of what tap elements take."""
        source = self.a.feeds.source[taps]
        return self.offset[source], self.v.step[source]

    def sources(self, rows: Array, lead: int, width: int) -> Array:
        """Claim elements [width, elements] of `width` streams from the lead-th tap of each burst."""
        result: Array = self.a.feeds.source[self._taps(rows, lead, width)]
        return result

    def pointers(self, rows: Array, lead: int, width: int) -> tuple[Array, Array]:
        """(offset, step) of such streams."""
        return self.at(self._taps(rows, lead, width))

    def _taps(self, rows: Array, lead: int, width: int) -> Array:
        flat = self.a.flat
        if len(rows) == 1:
            size, start = int(flat.count[rows[0]]), int(flat.first_tap[rows[0]])
            return np.arange(start + lead * size, start + (lead + width) * size).reshape(width, size)
        count = flat.count[rows]
        owner, k = expand(count)
        first = flat.first_tap[rows][owner] + lead * count[owner] + k
        result: Array = first[None, :] + np.arange(width)[:, None] * count[owner][None, :]
        return result

    def take(self, offset: Array, step: Array, dtype: Any) -> Array:
        """Values [elements, 320] of a numpy type at pointers."""
        result: Array = lanes.fetch(self.arena, self.vector, offset, step).view(dtype)
        return result

    def operands(self, rows: Array, lead: int, width: int, chunk: int) -> list[Operand]:
        """The operand of a group in pieces of `chunk` elements."""
        v, source = self.v, self.sources(rows, lead, width)
        return [find_operand(source[:, low : low + chunk], v.leaf, v.offset, v.step) for low in range(0, source.shape[1], chunk)]

    def values(self, operand: Operand, dtype: int) -> Array:
        """An ALU operand as numbers."""
        return operand.values(self.arena, self.vector, self.offset, self.v.step, NUMPY[DType(dtype)])

    def slot(self, rows: Array, dtype: Any, count: int, base: Array) -> Array:
        """The results of consecutive bursts at `base` as one array [count, 320]."""
        kind = np.dtype(dtype)
        start = int(base[rows[0]])
        result: Array = self.arena[start : start + count * self.vector * kind.itemsize].view(kind).reshape(count, self.vector)
        return result

    # ALUs ----------------------------------------------------------------------------------------------------------------
    def plan_alu(self, rows: Array) -> list[Step]:
        """A group of one ALU operation; joined partial results (MX-8) are already where they belong."""
        v = self.v
        rows = rows[~v.fused[rows]]
        if not len(rows):
            return []
        head = int(rows[0])
        code, dtype, dtype2, modular = (int(self.a.flat.b[name][head]) for name in ("opcode", "dtype", "dtype2", "modular"))
        width, width_b = int(v.width_a[head]), int(v.width_b[head])
        out = self.slot(rows, alu.result_type(code, dtype, dtype2), int(v.count[rows].sum()), v.base)
        other = dtype2 if code in (Opcode.SELECT, Opcode.MASK_BAR) else dtype
        x = self.operands(rows, 0, width, _CHUNK)
        y = self.operands(rows, width, width_b, _CHUNK) if width_b else None

        def compute(e: Evaluation, part: int) -> None:
            second = None if y is None else e.values(y[part], other)
            alu.apply(code, dtype, dtype2, modular, e.values(x[part], dtype), second, out[part * _CHUNK : (part + 1) * _CHUNK])

        return [lambda e: each(partial(compute, e), range(len(x)))]

    def spread(self, rows: Array, out: Array) -> None:
        """Write consecutive results [elements, bytes] into the slots of `rows`."""
        at = 0
        for row, count in zip(rows.tolist(), self.v.count[rows].tolist(), strict=True):
            start = int(self.v.base[row])
            part = out[at : at + count]
            self.arena[start : start + part.size] = part.reshape(-1)
            at += count

    def plan_reduce(self, rows: Array) -> list[Step]:
        """acc operations: a group of equal shape, folded over the inner level in order of time (VX-7)."""
        b = self.a.flat.b
        head = int(rows[0])
        code, dtype, n, n2 = (int(b[name][head]) for name in ("opcode", "dtype", "n", "n2"))
        fold, operand = alu.REDUCE[code], self.operands(rows, 0, int(self.v.width_a[head]), _ALL)[0]

        def compute(e: Evaluation) -> None:
            x = e.values(operand, dtype).reshape(len(rows), n2, n, e.vector)
            if not b["first"][head]:
                before = np.stack([e.states.pop(e.chain.get(row, -1), np.zeros(e.vector, x.dtype)) for row in rows.tolist()])
                x = np.concatenate([before[:, None, None, :], x], axis=2)
            result = np.empty((len(rows), n2, e.vector), x.dtype)

            def part(cut: slice) -> None:
                with np.errstate(all="ignore"):
                    fold.reduce(x[:, cut], axis=2, dtype=x.dtype, out=result[:, cut])

            each(part, even(n2, x.size))
            if b["last"][head]:
                e.spread(rows, result.reshape(-1, e.vector).view(np.uint8))
            else:
                for at, row in enumerate(rows.tolist()):
                    e.states[row] = result[at, -1]

        return [compute]

    # MXM -----------------------------------------------------------------------------------------------------------------
    def plan_acc(self, rows: Array) -> list[Step]:
        """Matrix passes of one kind (`schedule.pass_kind`)."""
        kind = int(self.v.kind[rows[0]])
        return products.plan(self, rows) if kind == HALF else byte_passes.plan(self, rows, kind) if kind else []

    # SXM -----------------------------------------------------------------------------------------------------------------
    def run_sxm(self, rows: Array) -> None:
        """Byte permutations inside a superlane or over all lanes."""
        b, m = self.a.flat.b, self.a.machine
        for row in rows.tolist():
            one = np.array([row])
            code, count = int(b["opcode"][row]), int(self.a.flat.count[row])
            taken = int(self.v.width_a[row])
            offset, step = self.pointers(one, 0, taken)
            x = self.take(offset.T.reshape(1, -1), step.T.reshape(1, -1), np.uint8).reshape(count, taken, m.superlanes, m.lanes)
            if code == Opcode.TRANSPOSE:
                out = x.transpose(0, 3, 2, 1)
            elif code == Opcode.DISTRIBUTE:
                out = self._distribute(row, x)
            elif code == Opcode.PERMUTE:
                low, high = self.pointers(one, taken, 2)
                index = self.take(low, high, np.dtype("<u2")).astype(np.int64)
                out = np.where(index < self.vector, np.take_along_axis(x.reshape(count, -1), np.minimum(index, self.vector - 1), axis=1), 0)
            elif code == Opcode.SHIFT:
                out = np.zeros((count, self.vector), np.uint8)
                amount = int(b["amount"][row])
                line = x.reshape(count, -1)
                out[:, max(amount, 0) : self.vector + min(amount, 0)] = line[:, max(-amount, 0) : self.vector - max(amount, 0)]
            else:
                out = np.repeat(x.reshape(count, -1)[:, :1], self.vector, axis=1)
            self.spread(one, np.ascontiguousarray(out).reshape(count, -1))

    def _distribute(self, row: int, x: Array) -> Array:
        b = self.a.flat.b
        one = np.array([row])
        taken = x.shape[1]
        index = self.take(*self.pointers(one, taken, 1), np.uint8).reshape(len(x), 1, *x.shape[2:]).astype(np.int64)
        if b["lowest"][row]:
            picks = index[:, 0].reshape(len(x), x.shape[2], 4, 4).transpose(0, 3, 1, 2)
            source = np.broadcast_to(x, (len(x), 4, *x.shape[2:]))
            quarter = np.where(picks < 16, np.take_along_axis(source, np.minimum(picks, 15), axis=3), 0)
            out = np.zeros((len(x), 4, *x.shape[2:]), np.uint8)
            out[..., :4] = quarter
            return out
        index = np.broadcast_to(index, x.shape)
        moved = np.where(index < 16, np.take_along_axis(x, np.minimum(index, 15), axis=3), 0)
        kept = (int(b["bypass"][row]) >> np.arange(taken) & 1).astype(bool)
        return np.where(kept[None, :, None, None], x, moved)

    # MEM -----------------------------------------------------------------------------------------------------------------
    def _mapped(self, row: int, lead: int) -> Array:
        """Arena offsets [elements, superlanes] of the rows that a map names; -1 and a record where it names none (TSP-012, 009)."""
        flat, m = self.a.flat, self.a.machine
        b = flat.b
        offset, step = self.pointers(np.array([row]), lead, 1)
        raw = self.take(offset, step, np.uint8).reshape(-1, m.superlanes, m.lanes)
        address = raw[..., 0].astype(np.int64) | raw[..., 1].astype(np.int64) << 8
        first = int(self.place.block.first[b["alloc"][row]])
        low, high = first + int(b["low"][row]), first + int(b["high"][row])
        fits = (address >= low) & (address < high)
        if not fits.all():
            at = np.argwhere(~fits)[0]
            self.breach("TSP-012", f"the map names row {address[tuple(at)]} at element {at[0]}, the object has rows {low}..{high - 1}", row)
        pair = int(b["pair"][row])
        where = self.rows(flat.pair_first[pair] + np.where(fits, address - first, b["low"][row]))
        if not self.a.memory.bound[pair]:
            self.breach("TSP-009", "the map names a row that was never written nor bound", row)
            where[:] = -1
        return np.where(fits, where, -1)

    def _superlanes(self, where: Array) -> Array:
        m = self.a.machine
        return where[:, :, None] + np.arange(m.superlanes)[:, None] * m.lanes + np.arange(m.lanes)

    def run_gather(self, rows: Array) -> None:
        """One address per superlane and element (ME-3)."""
        for row in rows.tolist():
            where = self._mapped(row, 0)
            data = self.arena[np.maximum(self._superlanes(where), 0)]
            data[where < 0] = 0
            self.spread(np.array([row]), data.reshape(len(where), -1))

    def run_scatter(self, rows: Array) -> None:
        """Element by element; a later element overwrites an earlier one."""
        for row in rows.tolist():
            data = self.take(*self.pointers(np.array([row]), 0, 1), np.uint8)
            where = self._mapped(row, 1)
            for k in range(len(where)):
                good = where[k] >= 0
                at = self._superlanes(where[k : k + 1])[0][good]
                self.arena[at] = data[k].reshape(self.a.machine.superlanes, -1)[good]

    def _rows(self, row: int) -> Array:
        return self.rows(self.a.flat.addresses(self.a.flat.elements(np.array([row]))))

    def run_read(self, rows: Array) -> None:
        """A Read of a dynamic slice copies its rows as they are now."""
        lane = np.arange(self.vector)
        for row in rows.tolist():
            self.spread(np.array([row]), self.arena[self._rows(row)[:, None] + lane])

    def run_write(self, rows: Array) -> None:
        """A Write into a dynamic slice."""
        lane = np.arange(self.vector)
        for row in rows.tolist():
            data = self.take(*self.pointers(np.array([row]), 0, 1), np.uint8)
            self.arena[self._rows(row)[:, None] + lane] = data


def _as_it_comes(run: Callable[[Evaluation, Array], None]) -> Callable[[Evaluation, Array], list[Step]]:
    """Groups of which nothing is found beforehand."""
    return lambda _, rows: [lambda e: run(e, rows)]


_PLANS: dict[int, Callable[[Evaluation, Array], list[Step]]] = {
    **{int(code): Evaluation.plan_alu for code in ALU_CODES},
    **{int(code): Evaluation.plan_reduce for code in ACC_OPS},
    **{
        int(code): _as_it_comes(Evaluation.run_sxm)
        for code in (Opcode.TRANSPOSE, Opcode.DISTRIBUTE, Opcode.PERMUTE, Opcode.SHIFT, Opcode.BROADCAST)
    },
    int(Opcode.ACC): Evaluation.plan_acc,
    int(Opcode.GATHER): _as_it_comes(Evaluation.run_gather),
    int(Opcode.SCATTER): _as_it_comes(Evaluation.run_scatter),
    int(Opcode.READ): _as_it_comes(Evaluation.run_read),
    int(Opcode.WRITE): _as_it_comes(Evaluation.run_write),
}
