"""The numbers: bursts computed in groups, in the order of `schedule.group_bursts`, on one arena of bytes (docs/tsp-model.md, 2 to 5).

Bursts of one level, operation and shape are one numpy operation. A matrix pass is one float32 product; where an ADD joins the two partial
results of an fp16 pass the product is taken with whole weights (MX-8), and `exact` takes both parts in double and rounds once instead.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ...machines.tsp import isa
from ...machines.tsp.isa import ACC_OPS, HALF_BOTH, NUMPY, DType, Opcode
from . import alu, kernels
from .flatten import ALU_CODES, Array, expand, tap_widths
from .legality import Analysis
from .report import Report
from .values import Values

_LANES_HALF = 160
_I8 = int(DType.I8)
_CHUNK = 1024
"""Elements that an ALU group computes at a time: operands and result stay in the cache."""
HALF_TABLE = np.arange(1 << 16, dtype=np.uint16).view(np.float16).astype(np.float32)
"""float32 value of every fp16 bit pattern."""


@dataclass
class Evaluation:
    """One run over an arena.

    `states` are accumulators of ALUs, `sums` stored accumulator entries of passes, by burst; `tiles` are installed arrays,
    `selections` those that only move lanes, by IW event and by the rows they were loaded from.
    """

    a: Analysis
    v: Values
    arena: Array
    report: Report
    exact: bool
    states: dict[int, Array] = field(default_factory=dict)
    sums: dict[int, Array] = field(default_factory=dict)
    tiles: dict[tuple[int, ...], Array] = field(default_factory=dict)
    selections: dict[bytes | int, tuple[Array, Array] | None] = field(default_factory=dict)

    def __post_init__(self) -> None:
        a = self.a
        self.parts = self.v.parts or self.exact
        self.vector = a.machine.vector
        self.width_a, self.width_b = tap_widths(a.flat.b, 0), tap_widths(a.flat.b, 1)
        self.chain = dict(zip(a.chain[1].tolist(), a.chain[0].tolist(), strict=True))
        passes = a.passes
        self.pass_of = {int(acc): k for k, acc in enumerate(passes.acc.tolist()) if acc >= 0}
        sort = np.lexsort((passes.acc_k, passes.acc_row))
        self._acc_elements = sort
        self._acc_start = np.searchsorted(passes.acc_row[sort], np.arange(a.flat.size + 1))
        adders = np.flatnonzero(passes.acc_source >= 0)
        edges = np.unique(passes.acc_row[passes.acc_source[adders]] * (1 << 32) + passes.acc_row[adders])
        self.waiting = {int(k): int(n) for k, n in zip(*np.unique(edges >> 32, return_counts=True), strict=True)}
        self._sole_source = self._sole_sources()
        used = passes.iw[passes.iw >= 0]
        self.tile_uses = np.bincount(used, minlength=len(passes.iw_burst)) if len(used) else np.zeros(len(passes.iw_burst), np.int64)

    def _sole_sources(self) -> Array:
        """For each ACC burst the one burst whose element k stored what its element k adds, for all k; -1 where it is not that simple."""
        passes, flat = self.a.passes, self.a.flat
        result = np.full(flat.size, -1, np.int64)
        rows = np.unique(passes.acc_row)
        if not len(rows):
            return result
        sort = self._acc_elements
        source = passes.acc_source[sort]
        giver = np.where(source >= 0, passes.acc_row[source], -1)
        straight = (source >= 0) & (passes.acc_k[source] == passes.acc_k[sort])
        starts = self._acc_start[rows]
        first = giver[starts]
        simple = np.minimum.reduceat(straight & (giver == np.repeat(first, flat.count[rows])), starts)
        result[rows] = np.where(simple & (flat.count[np.maximum(first, 0)] == flat.count[rows]), first, -1)
        return result

    def run(self) -> None:
        """Compute all bursts."""
        with np.errstate(all="ignore"):
            for group in self.v.groups:
                code = int(self.a.flat.b["opcode"][group[0]])
                _HANDLERS[code](self, group)

    # operands ------------------------------------------------------------------------------------------------------------
    def pointers(self, rows: Array, lead: Any, width: int) -> tuple[Array, Array]:
        """(offset, step) [width, elements] of `width` streams from the lead-th tap of each burst."""
        flat, v = self.a.flat, self.v
        if len(rows) == 1 and not np.ndim(lead):
            size = int(flat.count[rows[0]])
            start = int(v.first_tap[rows[0]]) + int(lead) * size
            source = self.a.feeds.source[start : start + width * size].reshape(width, size)
            known = source >= 0
            return np.where(known, v.offset[source], -1), np.where(known, v.step[source], 1)
        count = flat.count[rows]
        owner, k = expand(count)
        at = v.first_tap[rows][owner] + (lead[owner] if np.ndim(lead) else lead) * count[owner] + k
        element = at[None, :] + np.arange(width)[:, None] * count[owner][None, :]
        source = self.a.feeds.source[element]
        known = source >= 0
        source = np.maximum(source, 0)
        return np.where(known, v.offset[source], -1), np.where(known, v.step[source], 1)

    def take(self, offset: Array, step: Array, dtype: Any) -> Array:
        """Operand values [elements, 320] of a numpy type: a view where the bytes lie evenly, one copy of values that repeat."""
        kind = np.dtype(dtype)
        width, count = offset.shape
        if count == 0:
            return np.zeros((0, self.vector), kind)
        pitch = int(offset[0, 1] - offset[0, 0]) if count > 1 else 0
        planes = np.arange(width)[:, None]
        whole = bool((offset[0] >= 0).all() and (offset == offset[0] + planes).all() and (step == width).all())
        if whole and pitch >= 0 and (count == 1 or bool((np.diff(offset[0]) == pitch).all())):
            return np.ndarray((count, self.vector), kind, self.arena.data, int(offset[0, 0]), (pitch, kind.itemsize))
        change = np.flatnonzero(np.append(True, (offset[:, 1:] != offset[:, :-1]).any(axis=0)))
        repeats = len(change) * 2 <= count
        out = np.empty((len(change) if repeats else count, self.vector * width), np.uint8)
        some = change if repeats else slice(None)
        kernels.fetch(self.arena, np.ascontiguousarray(offset[:, some]), np.ascontiguousarray(step[:, some]), out)
        values: Array = out.view(kind)
        if not repeats:
            return values
        if len(change) == 1:
            return np.broadcast_to(values, (count, self.vector))
        return np.repeat(values, np.diff(np.append(change, count)), axis=0)

    def operand(self, rows: Array, lead: int, dtype: int, width: int) -> Array:
        """Values of an ALU operand."""
        return self.take(*self.pointers(rows, lead, width), NUMPY[DType(dtype)])

    def slot(self, rows: Array, dtype: Any, count: int) -> Array:
        """The results of consecutive bursts as one array [count, 320]."""
        kind = np.dtype(dtype)
        start = int(self.v.base[rows[0]])
        result: Array = self.arena[start : start + count * self.vector * kind.itemsize].view(kind).reshape(count, self.vector)
        return result

    # ALUs ----------------------------------------------------------------------------------------------------------------
    def run_alu(self, rows: Array) -> None:
        """A group of one ALU operation; joined partial results (MX-8) are already where they belong."""
        b, v = self.a.flat.b, self.v
        rows = rows[~v.fused[rows]]
        if not len(rows):
            return
        head = int(rows[0])
        code, dtype, dtype2, modular = (int(b[name][head]) for name in ("opcode", "dtype", "dtype2", "modular"))
        width = int(self.width_a[head])
        kind = alu.result_type(code, dtype, dtype2)
        out = self.slot(rows, kind, int(v.count[rows].sum()))
        x = self.pointers(rows, 0, width)
        y, other = None, dtype2 if code in (Opcode.SELECT, Opcode.MASK_BAR) else dtype
        if self.width_b[head]:
            y = self.pointers(rows, width, int(self.width_b[head]))
        for low in range(0, len(out), _CHUNK):
            part = slice(low, low + _CHUNK)
            first = self.take(x[0][:, part], x[1][:, part], NUMPY[DType(dtype)])
            second = None if y is None else self.take(y[0][:, part], y[1][:, part], NUMPY[DType(other)])
            alu.apply(code, dtype, dtype2, modular, first, second, out[part])

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
        x = self.operand(rows, 0, dtype, int(self.width_a[head])).reshape(len(rows), n2, n, self.vector)
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
        """Matrix passes, one product each; the odd burst of an fp16 pair is done with the even one."""
        b, passes = self.a.flat.b, self.a.passes
        byte_passes = []
        for row in rows.tolist():
            k = self.pass_of.get(row)
            if k is None:
                continue
            if b["dtype"][passes.abc[k]] == _I8:
                byte_passes.append((row, k))
            elif passes.partner[k] >= 0 and (b["unit"][row] - isa.MXM_BASE) // 3 % 2 == 0:
                self._half_pass(row, k)
        if byte_passes:
            self._int8_passes(byte_passes)

    def _weights(self, k: int, *, part: int) -> Array:
        """The array of pass k as float32 [320, 320]: int8 (part -1), fp16 whole (0), low (1) or high (2) byte."""
        passes = self.a.passes
        even, odd = int(passes.iw[k]), int(passes.iw[passes.partner[k]]) if part >= 0 else -1
        key = (even, odd, part)
        tile = self.tiles.get(key)
        if tile is None:
            low = self._tile_pointers(even)
            tile = np.empty((self.vector, self.vector), np.float32)
            if part < 0:
                tile[...] = self.take(*low, np.int8)
            else:
                high = self._tile_pointers(odd)
                whole = (np.concatenate([low[0], high[0]]), np.concatenate([low[1], high[1]]))
                if part:
                    whole[0][0] = -1
                kernels.fetch_half(self.arena, *whole, HALF_TABLE, tile)
                if part == 1:
                    tile = self._weights(k, part=0) - tile
        self.tiles[key] = tile
        return tile

    def _selection(self, k: int) -> tuple[Array, Array] | None:
        """(lane, factor) per output of an int8 pass whose weights have at most one entry a row: such a pass only moves lanes."""
        iw = int(self.a.passes.iw[k])
        if iw in self.selections:
            return self.selections[iw]
        pointers = self._tile_pointers(iw)
        settled = int(pointers[0].max()) < self.v.bound and not self.a.memory.dynamic.any()
        key = pointers[0].tobytes() if settled else b""
        if not settled or key not in self.selections:
            tile = self.take(*pointers, np.int8)
            chosen = None
            if int(np.count_nonzero(tile)) <= self.vector:
                lane = (tile != 0).argmax(axis=1)
                factor = tile[np.arange(self.vector), lane].astype(np.int32)
                lane = np.where(factor != 0, lane, -1)
                if np.count_nonzero(factor) == np.count_nonzero(tile):
                    chosen = (lane, factor)
            self.selections[key] = chosen
        self.selections[iw] = self.selections[key]
        return self.selections[key]

    def _tile_pointers(self, iw: int) -> tuple[Array, Array]:
        if iw < 0:
            return np.full((1, self.vector), -1, np.int64), np.ones((1, self.vector), np.int64)
        element = self.a.passes.content[iw]
        source = np.where(element >= 0, self.a.feeds.source[np.maximum(element, 0)], -1)
        known = source >= 0
        source = np.maximum(source, 0)
        return np.where(known, self.v.offset[source], -1)[None], np.where(known, self.v.step[source], 1)[None]

    def _release(self, k: int) -> None:
        """Forget tiles whose passes are all done."""
        iw = int(self.a.passes.iw[k])
        if iw < 0:
            return
        self.tile_uses[iw] -= 1
        if not self.tile_uses[iw]:
            for key in [key for key in self.tiles if key[0] == iw]:
                del self.tiles[key]

    def _before(self, row: int, dtype: Any) -> Array:
        """What an ACC burst adds to, [elements, 320] to be overwritten: zeros, or the entries that it finds."""
        passes = self.a.passes
        sole = int(self._sole_source[row])
        if sole >= 0:
            left = self.waiting[sole] - 1
            self.waiting[sole] = left
            return self.sums[sole].copy() if left else self.sums.pop(sole)
        result = np.zeros((int(self.a.flat.count[row]), self.vector), dtype)
        if not self.a.flat.b["add"][row]:
            return result
        elements = self._acc_elements[self._acc_start[row] : self._acc_start[row + 1]]
        source = passes.acc_source[elements]
        froms, ks = passes.acc_row[np.maximum(source, 0)], passes.acc_k[np.maximum(source, 0)]
        distinct = np.unique(froms[source >= 0]).tolist()
        for burst in distinct:
            mine = (froms == burst) & (source >= 0)
            result[mine] = self.sums[burst][ks[mine]]
        for burst in distinct:
            self.waiting[burst] -= 1
            if not self.waiting[burst]:
                del self.sums[burst]
        return result

    def _lanes(self, half: int) -> slice:
        return slice(None) if half == HALF_BOTH else slice(half * _LANES_HALF, (half + 1) * _LANES_HALF)

    def _half_pass(self, row: int, k: int) -> None:
        """An fp16 pass of a plane pair; `row` is its even ACC burst."""
        b, v, passes = self.a.flat.b, self.v, self.a.passes
        abc = int(passes.abc[k])
        count = int(self.a.flat.count[row])
        x = np.empty((count, self.vector), np.float32)
        kernels.fetch_half(self.arena, *self.pointers(np.array([abc]), 0, 2), HALF_TABLE, x)
        lanes = self._lanes(int(b["half"][abc]))
        if self.parts:
            self._apart(row, k, x[:, lanes], lanes)
        else:
            result = x[:, lanes] @ self._weights(k, part=0)[:, lanes].T
            if b["add"][row]:
                result += self._before(row, np.float32)
            if b["store"][row] and self.waiting.get(row):
                self.sums[row] = result
            if b["emit"][row]:
                start = int(v.total[row])
                self.arena[start : start + result.nbytes].view(np.float32).reshape(result.shape)[...] = result
        self._release(k)

    def _apart(self, row: int, k: int, x: Array, lanes: slice) -> None:
        """The parts of an fp16 pass in double: entries are rounded when stored, the joined sum once (MX-8, MX-9)."""
        b, v, passes = self.a.flat.b, self.v, self.a.passes
        odd = int(passes.acc[passes.partner[k]])
        wide = x.astype(np.float64)
        joined = np.zeros((len(x), self.vector))
        for acc, part in ((row, 1), (odd, 2)):
            result = wide @ self._weights(k, part=part)[:, lanes].T.astype(np.float64)
            result += self._before(acc, np.float32)
            if b["store"][acc] and self.waiting.get(acc):
                self.sums[acc] = result.astype(np.float32)
            if b["emit"][acc] and v.parts:
                start = int(v.base[acc])
                self.arena[start : start + result.size * 4].view(np.float32).reshape(result.shape)[...] = result
            joined += result
        if b["emit"][row]:
            start = int(v.total[row])
            self.arena[start : start + joined.size * 4].view(np.float32).reshape(joined.shape)[...] = joined

    def _int8_product(self, k: int, x: Array) -> Array:
        """x [count, 320] times the array of pass k as int32; vectors with at most one entry pick columns (a transpose is made of such)."""
        if not self.exact and int(np.count_nonzero(x, axis=1).max(initial=0)) <= 1:
            key = (int(self.a.passes.iw[k]), -1, -2)
            if key not in self.tiles:
                self.tiles[key] = np.ascontiguousarray(self.take(*self._tile_pointers(key[0]), np.int8).T)
            lane = (x != 0).argmax(axis=1)
            picked: Array = self.tiles[key][lane] * x[np.arange(len(x)), lane].astype(np.int32)[:, None]
            return picked
        product: Array = (x.astype(np.float32) @ self._weights(k, part=-1).T).astype(np.int32)
        return product

    def _int8_passes(self, group: list[tuple[int, int]]) -> None:
        """int8 passes (ACC burst, pass) of one group: sums of at most 320 products are exact in float32; entries wrap at 2^31 (MX-6)."""
        b, passes = self.a.flat.b, self.a.passes
        abc = passes.abc[[k for _, k in group]]
        offset, step = self.pointers(abc, 0, 1)
        counts = self.a.flat.count[abc]
        result = np.zeros((offset.shape[1], self.vector), np.int32)
        lanes = np.full((len(group), self.vector), -1, np.int64)
        factors = np.zeros((len(group), self.vector), np.int32)
        ends = np.cumsum(counts)
        for number, ((row, k), end, count) in enumerate(zip(group, ends.tolist(), counts.tolist(), strict=True)):
            mine = slice(end - count, end)
            if b["add"][row]:
                result[mine] = self._before(row, np.int32)
            chosen = None if self.exact else self._selection(k)
            if chosen is None:
                result[mine] += self._int8_product(k, self.take(offset[:, mine], step[:, mine], np.int8))
            else:
                lanes[number], factors[number] = chosen
        kernels.select(self.arena, offset[0], step[0], np.repeat(np.arange(len(group)), counts), lanes, factors, result)
        for (row, k), end, count in zip(group, ends.tolist(), counts.tolist(), strict=True):
            if b["store"][row] and self.waiting.get(row):
                self.sums[row] = result[end - count : end]
            if b["emit"][row]:
                self.spread(np.array([row]), result[end - count : end].view(np.uint8))
            self._release(k)

    # SXM -----------------------------------------------------------------------------------------------------------------
    def run_sxm(self, rows: Array) -> None:
        """Byte permutations inside a superlane or over all lanes."""
        b, m = self.a.flat.b, self.a.machine
        for row in rows.tolist():
            one = np.array([row])
            code, count = int(b["opcode"][row]), int(self.a.flat.count[row])
            taken = int(self.width_a[row])
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
        fits = (address >= b["low"][row]) & (address < b["high"][row])
        if not fits.all():
            at = np.argwhere(~fits)[0]
            self.report.bursts(
                "TSP-012",
                f"the map names row {address[tuple(at)]} at element {at[0]}, the object has rows {b['low'][row]}..{b['high'][row] - 1}",
                flat,
                [row],
            )
        bank = (b["chip"][row] * isa.MEM_QUEUES + b["unit"][row]) * m.banks + b["bank"][row]
        where = self.v.row_offset[bank * m.rows + np.where(fits, address, b["low"][row])]
        if (where < 0).any():
            self.report.bursts("TSP-009", "the map names a row that was never written nor bound", flat, [row])
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
        result: Array = self.v.row_offset[place]
        return result

    def run_read(self, rows: Array) -> None:
        """A Read of a dynamic slice copies its rows as they are now."""
        lanes = np.arange(self.vector)
        for row in rows.tolist():
            self.spread(np.array([row]), self.arena[self._rows(row)[:, None] + lanes])

    def run_write(self, rows: Array) -> None:
        """A Write into a dynamic slice."""
        lanes = np.arange(self.vector)
        for row in rows.tolist():
            data = self.take(*self.pointers(np.array([row]), 0, 1), np.uint8)
            self.arena[self._rows(row)[:, None] + lanes] = data


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
