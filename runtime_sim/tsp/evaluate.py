"""The numbers: bursts computed in groups, in the order of `schedule.group_bursts`, on one arena of bytes (docs/tsp-model.md, 2 to 5).

Bursts of one level, operation and shape are one numpy operation; matrix passes are in `products.py`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from ...machines.tsp.isa import ACC_OPS, NUMPY, DType, Opcode
from ..threads import each
from . import alu, lanes
from .arena import Arena
from .byte_passes import Selections
from .chains import make_chain
from .flatten import ALU_CODES, Flat, expand
from .layout import Array, Block
from .legality import Analysis
from .operands import Operand, find_operand
from .products import Products
from .report import Report
from .values import Values

_CHUNK = 512
"""Elements that an ALU group computes at a time: operands and result stay in the cache."""
_LEAVING = 8192
"""Rows that leave a block at a time."""
_ALL = 1 << 62


@dataclass(frozen=True)
class Place:
    """Where a block computes: the arena with the store's rows, of which `buffers` is the first of its weight buffers (see `store.Store`);
    `rows` the row number of each of the block's places; `views` the arena as numbers of 1, 2 and 4 bytes and as fp32."""

    block: Block
    arena: Arena
    rows: Array
    buffers: int
    selections: Selections
    views: tuple[Array, Array, Array, Array]
    report: Report

    def breach(self, rule: str, message: str, flat: Flat, row: int) -> None:
        """Record what only data show."""
        self.report.bursts(rule, message, flat, self.block, [row])


class Evaluation:
    """One run of one block over an arena. `rows` are the store's row numbers of the block's places.

    `states` are accumulators of ALUs by burst.
    """

    def __init__(self, a: Analysis, v: Values, place: Place, exact: bool) -> None:
        self.a, self.v, self.place, self.exact = a, v, place, exact
        self.arena, self.vector = place.arena.memory, a.machine.vector
        self.row_offset = place.arena.offset(place.rows)
        v.offset[v.outer] = self.row_offset[v.outer_place]
        plane = v.old // self.vector
        buffers = place.buffers + (place.block.chips[plane // 4] * 4 + plane % 4) * self.vector + v.old % self.vector
        v.offset[a.flat.claims.total : -1] = place.arena.offset(buffers)
        self.offset = v.offset
        self.states: dict[int, Array] = {}
        self.chain = dict(zip(a.chain[1].tolist(), a.chain[0].tolist(), strict=True))
        self.products = Products(self)

    def run(self) -> None:
        """Compute all bursts, then leave in the store what outlives the block."""
        if not self.v.chains:
            each(lambda run: self._find_chain(*run), list(self.v.runs.items()))
        with np.errstate(all="ignore"):
            number = 0
            while number < len(self.v.groups):
                group, until = self.v.groups[number], self.v.runs.get(number, -1)
                if until < 0:
                    _HANDLERS[int(self.a.flat.b["opcode"][group[0]])](self, group)
                else:
                    self.run_chain(number)
                number = max(until, number) + 1
        self._leave()

    def _leave(self) -> None:
        """Rows that pass through are read before anything is written: they may be overwritten. Results lie apart from rows."""
        memory, passes, arena = self.a.memory, self.a.passes, self.place.arena
        plane, row = np.nonzero(passes.buffer >= 0)
        chip = self.place.block.chips[passes.planes[plane] // 4]
        buffers = self.place.buffers + (chip * 4 + passes.planes[plane] % 4) * self.vector + row
        offset, step = self.at(self.a.leaving)
        target = arena.offset(np.concatenate([self.place.rows[memory.written], buffers]))
        apart = offset >= arena.results
        passing = lanes.fetch(self.arena, self.vector, offset[None, ~apart], step[None, ~apart])

        made = offset[apart], step[apart], target[apart]
        each(
            lambda low: lanes.move(self.arena, self.vector, *(column[low : low + _LEAVING] for column in made)),
            range(0, len(made[0]), _LEAVING),
        )
        arena.rows[(target[~apart] - arena.start) // self.vector] = passing

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
        """The operand of a group in pieces of `chunk` elements; found once per layout."""
        key = (int(rows[0]), lead)
        known = self.v.operands
        if key not in known:
            v, source = self.v, self.sources(rows, lead, width)
            cuts = range(0, source.shape[1], chunk)
            known[key] = [find_operand(source[:, low : low + chunk], v.leaf, v.offset, v.step) for low in cuts]
        return known[key]

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
    def _find_chain(self, first: int, last: int) -> None:
        """The run of groups first to last, once per layout; joined partial results (MX-8) are already where they belong."""
        rows = np.concatenate(self.v.groups[first : last + 1])
        rows = rows[~self.v.fused[rows]]
        self.v.chains[first] = make_chain(self, rows) if len(rows) else None

    def run_chain(self, first: int) -> None:
        """The groups of a run."""
        if (chain := self.v.chains[first]) is not None:
            chain.run(self)

    def run_alu(self, rows: Array) -> None:
        """A group of one ALU operation; joined partial results (MX-8) are already where they belong."""
        b, v = self.a.flat.b, self.v
        rows = rows[~v.fused[rows]]
        if not len(rows):
            return
        head = int(rows[0])
        code, dtype, dtype2, modular = (int(b[name][head]) for name in ("opcode", "dtype", "dtype2", "modular"))
        width, width_b = int(self.v.width_a[head]), int(self.v.width_b[head])
        kind = alu.result_type(code, dtype, dtype2)
        out = self.slot(rows, kind, int(v.count[rows].sum()), v.base)
        other = dtype2 if code in (Opcode.SELECT, Opcode.MASK_BAR) else dtype
        x = self.operands(rows, 0, width, _CHUNK)
        y = self.operands(rows, width, width_b, _CHUNK) if width_b else None

        def compute(part: int) -> None:
            second = None if y is None else self.values(y[part], other)
            alu.apply(code, dtype, dtype2, modular, self.values(x[part], dtype), second, out[part * _CHUNK : (part + 1) * _CHUNK])

        each(compute, range(len(x)))

    def spread(self, rows: Array, out: Array) -> None:
        """Write consecutive results [elements, bytes] into the slots of `rows`."""
        at = 0
        for row, count in zip(rows.tolist(), self.v.count[rows].tolist(), strict=True):
            start = int(self.v.base[row])
            part = out[at : at + count]
            self.arena[start : start + part.size] = part.reshape(-1)
            at += count

    def run_reduce(self, rows: Array) -> None:
        """acc operations: a group of equal shape, folded over the inner level in order of time (VX-7)."""
        b = self.a.flat.b
        head = int(rows[0])
        code, dtype, n, n2 = (int(b[name][head]) for name in ("opcode", "dtype", "n", "n2"))
        fold = alu.REDUCE[code]
        x = self.values(self.operands(rows, 0, int(self.v.width_a[head]), _ALL)[0], dtype).reshape(len(rows), n2, n, self.vector)
        with np.errstate(all="ignore"):
            if not b["first"][head]:
                before = np.stack([self.states.pop(self.chain.get(row, -1), np.zeros(self.vector, x.dtype)) for row in rows.tolist()])
                x = np.concatenate([before[:, None, None, :], x], axis=2)
            result = fold.reduce(x, axis=2, dtype=x.dtype)
        if b["last"][head]:
            self.spread(rows, np.ascontiguousarray(result.reshape(-1, self.vector)).view(np.uint8))
        else:
            for at, row in enumerate(rows.tolist()):
                self.states[row] = result[at, -1]

    # MXM -----------------------------------------------------------------------------------------------------------------
    def run_acc(self, rows: Array) -> None:
        """Matrix passes of one kind."""
        self.products.run(rows)

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
            self.place.breach(
                "TSP-012", f"the map names row {address[tuple(at)]} at element {at[0]}, the object has rows {low}..{high - 1}", flat, row
            )
        pair = int(b["pair"][row])
        where = self.row_offset[flat.pair_first[pair] + np.where(fits, address - first, b["low"][row])]
        if not self.a.memory.bound[pair]:
            self.place.breach("TSP-009", "the map names a row that was never written nor bound", flat, row)
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
        _, place = self.a.flat.addresses(np.array([row]))
        result: Array = self.row_offset[place]
        return result

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


_HANDLERS: dict[int, Callable[[Evaluation, Array], None]] = {
    **{int(code): Evaluation.run_alu for code in ALU_CODES},
    **{int(code): Evaluation.run_reduce for code in ACC_OPS},
    **{int(code): Evaluation.run_sxm for code in (Opcode.TRANSPOSE, Opcode.DISTRIBUTE, Opcode.PERMUTE, Opcode.SHIFT, Opcode.BROADCAST)},
    int(Opcode.ACC): Evaluation.run_acc,
    int(Opcode.GATHER): Evaluation.run_gather,
    int(Opcode.SCATTER): Evaluation.run_scatter,
    int(Opcode.READ): Evaluation.run_read,
    int(Opcode.WRITE): Evaluation.run_write,
}
