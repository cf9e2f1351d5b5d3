"""Where the bytes of local memories come from, followed through the steps of a segment without data.

A load brings bytes of a DDR symbol, a launch that is a matrix product (`products.py`) leaves its results, a drain takes them to DDR. A
product whose factors all come from loads, whose symbols were not written since, and whose results are drained once and whole, is computed
from DDR to DDR, and what no other step needs is not copied through the local memories. The other launches, the loads and drains
around them run as they are. The order of the rest is kept: a product waits until its drain, and is computed before any step that
writes what it reads, or reads or writes what it writes.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from ...machines.cgla.tables import Direction, HostKind
from .chain_forms import LaneMemory
from .host import HostTask
from .lane import pieces
from .plan import WORD, LaunchPlan
from .products import Batch, Product, Side, product_form
from .segment import Row, SegmentReport

ATTEMPTS = 3


class Step(NamedTuple):
    """One step of a run: `host`, `load`, `drain` or `launch` with its number, or `products` with their batch. `start` is its cycle."""

    start: int
    kind: str
    number: int
    batch: Batch | None = None


class Loaded(NamedTuple):
    """Bytes that requests brought: the byte with logical address a is byte a + `move` of the symbol, as it was after so many writes."""

    dmas: tuple[int, ...]
    symbol: int
    version: int
    move: int


class Piece(NamedTuple):
    """Bytes [low, high) of a row and their source: a load, or the product of a launch."""

    low: int
    high: int
    source: Loaded | Product


def make_tape(report: SegmentReport, lanes: Sequence[LaneMemory]) -> list[Step]:
    """The steps of a segment in an order that gives the same bytes in DDR. Launches whose results are needed in local memory are found
    by trying."""
    plain: set[int] = set()
    for _ in range(ATTEMPTS):
        tracer = _Tracer(report, lanes, plain)
        tape = tracer.run()
        if not tracer.refused:
            return tape
        plain |= tracer.refused
    return _Tracer(report, lanes, set(report.launches)).run()


def plain_tape(report: SegmentReport) -> list[Step]:
    """The steps of a segment as they are."""
    return [Step(start, kind, number) for start, kind, number in report.steps]


class _Tracer:
    def __init__(self, report: SegmentReport, lanes: Sequence[LaneMemory], plain: set[int]) -> None:
        self.report = report
        self.lanes = lanes
        self.plain = plain
        self.refused: set[int] = set()
        self.needed: set[int] = set()
        self.steps: list[Step] = []
        self.now = 0
        self.rows: list[list[list[Piece]]] = [[[] for _ in memory.data] for memory in lanes]
        self.versions = [0] * len(report.symbols)
        self.pending: list[Product] = []
        self.reads: dict[int, int] = {}
        self.writes: dict[int, list[tuple[int, int]]] = {}
        self.launch_lane = report.segment.tables["launches"]["lane"].tolist()

    def run(self) -> list[Step]:
        """All steps in order; loads that nothing needs in local memory are left out."""
        for start, kind, number in self.report.steps:
            self.now = start
            if kind == "host":
                self._host(number)
            elif kind == "launch":
                self._launch(number)
            elif self.report.dmas[number]["direction"] == Direction.LOAD:
                self._load(number)
            else:
                self._drain(number)
        self._flush()
        return [step for step in self.steps if step.kind != "load" or step.number in self.needed]

    def _step(self, kind: str, number: int, batch: Batch | None = None) -> None:
        self.steps.append(Step(self.now, kind, number, batch))

    # --- what lies where ---------------------------------------------------------------------------------------------------------

    def _put(self, lane: int, row: int, low: int, high: int, source: Loaded | Product | None) -> None:
        """Bytes [low, high) of a row come from `source` now; None: they are there for real."""
        kept = []
        for piece in self.rows[lane][row]:
            if piece.low < low:
                kept.append(Piece(piece.low, min(piece.high, low), piece.source))
            if piece.high > high:
                kept.append(Piece(max(piece.low, high), piece.high, piece.source))
        if source is not None:
            kept.append(Piece(low, high, source))
        self.rows[lane][row] = kept

    def _add(self, lane: int, row: int, low: int, high: int, loaded: Loaded) -> None:
        """Bytes that a request brings; they join those beside them that come from the bytes beside theirs."""
        for piece in self.rows[lane][row]:
            source = piece.source
            if (piece.high == low or piece.low == high) and isinstance(source, Loaded) and source[1:] == loaded[1:]:
                low, high = min(low, piece.low), max(high, piece.high)
                loaded = loaded._replace(dmas=tuple(sorted({*loaded.dmas, *source.dmas})))
        self._put(lane, row, low, high, loaded)

    def _need(self, lane: int, row: int, low: int, high: int) -> None:
        """A step reads these bytes in local memory."""
        for piece in self.rows[lane][row]:
            if piece.low < high and low < piece.high:
                if isinstance(piece.source, Loaded):
                    self.needed.update(piece.source.dmas)
                else:
                    self.refused.add(piece.source.launch)

    def _origin(self, lane: int, side: Side) -> tuple[int, list[int]] | None:
        """The symbol that all factors of a side come from and, for each partition, how far they lie after their logical addresses."""
        symbol, version = -1, -1
        moves: list[int] = []
        rows = self.rows[lane]
        for row, low, high, partition in side.spans:
            source: Loaded | Product | None = None
            for piece in rows[row]:
                if piece[0] <= low and high <= piece[1]:
                    source = piece[2]
                    break
            if not isinstance(source, Loaded) or (symbol != -1 and (symbol, version) != (source.symbol, source.version)):
                return None
            symbol, version = source.symbol, source.version
            if partition == len(moves):
                moves.append(source.move)
            elif source.move != moves[partition]:
                return None
        return (symbol, moves) if version == self.versions[symbol] else None

    # --- products that wait ------------------------------------------------------------------------------------------------------

    def _flush(self, symbol: int = -1) -> None:
        """Computes what is drained. What is not and reads `symbol`, which is written next, cannot be computed later."""
        ready = [product for product in self.pending if product.result is not None]
        self.pending = [product for product in self.pending if product.result is None]
        if symbol != -1:
            self.refused.update(product.launch for product in self.pending if symbol in product.symbols)
        if ready:
            self._step("products", -1, Batch(ready))
        self.writes.clear()
        self.reads.clear()
        for product in self.pending:
            self._reading(product)

    def _reading(self, product: Product) -> None:
        for symbol in product.symbols:
            self.reads[symbol] = self.reads.get(symbol, 0) + 1

    def _before_read(self, symbol: int) -> None:
        if symbol in self.writes:
            self._flush()

    def _before_write(self, symbol: int) -> None:
        if symbol in self.writes or symbol in self.reads:
            self._flush(symbol)
        self.versions[symbol] += 1

    def _overlaps(self, symbol: int, low: int, high: int) -> bool:
        """Whether a waiting product writes some of these bytes."""
        spans = self.writes.get(symbol, [])
        after = bisect_left(spans, (low, low))
        return (after > 0 and spans[after - 1][1] > low) or (after < len(spans) and spans[after][0] < high)

    # --- steps -------------------------------------------------------------------------------------------------------------------

    def _host(self, number: int) -> None:
        task = self.report.tasks[number]
        assert isinstance(task, HostTask)
        for operand in task.operands[0 if task.kind == HostKind.SCATTER else 1 :]:
            self._before_read(operand.symbol)
        self._before_write(task.operands[0].symbol)
        self._step("host", number)

    def _load(self, number: int) -> None:
        row = self.report.dmas[number]
        self._before_read(row["symbol"])
        indexed = row["index_symbol"] != -1
        if indexed:
            self._before_read(row["index_symbol"])
            self.needed.add(number)
        self._step("load", number)
        for part in self.report.parts[number]:
            for place, _, count in pieces(part):
                if indexed:
                    self._put(row["lane"], part[0], place, place + count, None)
                else:
                    loaded = Loaded((number,), row["symbol"], self.versions[row["symbol"]], row["offset"] - row["lmm"])
                    self._add(row["lane"], part[0], place, place + count, loaded)

    def _launch(self, number: int) -> None:
        plan, lane = self.report.launches[number], self.launch_lane[number]
        form = None if number in self.plain else product_form(plan, self.lanes[lane])
        sides = None if form is None else [self._origin(lane, side) for side in (form.wide, form.narrow)]
        if form is None or sides is None or sides[0] is None or sides[1] is None:
            self._plain_launch(number, plan, lane)
            return
        (wide, left), (narrow, right) = sides[0], sides[1]
        for symbol in (wide, narrow):
            self._before_read(symbol)
        product = Product(number, form, (wide, narrow), (np.array(left), np.array(right)))
        self.pending.append(product)
        self._reading(product)
        self._put(lane, form.row, form.first, form.first + form.size, product)

    def _plain_launch(self, number: int, plan: LaunchPlan, lane: int) -> None:
        self._step("launch", number)
        for row, low, high, _ in _hulls(plan, False):
            self._need(lane, row, low, high)
        for row, low, high, whole in _hulls(plan, True):
            if not whole:
                self._need(lane, row, low, high)
            self._put(lane, row, low, high, None)

    def _drain(self, number: int) -> None:
        row = self.report.dmas[number]
        found = self._drained(row, number)
        if found is None:
            self._before_write(row["symbol"])
            if row["index_symbol"] != -1:
                self._before_read(row["index_symbol"])
            self._step("drain", number)
            for part in self.report.parts[number]:
                for place, _, count in pieces(part):
                    self._need(row["lane"], part[0], place, place + count)
            return
        symbol = row["symbol"]
        if symbol in self.reads or any(self._overlaps(symbol, place, place + product.form.size) for product, place in found):
            self._flush(symbol)
        self.versions[symbol] += 1
        for product, place in found:
            product.result = symbol, place
            insort(self.writes.setdefault(symbol, []), (place, place + product.form.size))

    def _drained(self, row: Row, number: int) -> list[tuple[Product, int]] | None:
        """The waiting products whose results a drain takes whole and for the first time, and the bytes of the symbol where they go; None
        where it takes anything else."""
        if row["index_symbol"] != -1:
            return None
        result = []
        for part in self.report.parts[number]:
            for place, logical, count in pieces(part):
                inside = [p for p in self.rows[row["lane"]][part[0]] if p.low < place + count and place < p.high]
                if sum(p.high - p.low for p in inside) != count:
                    return None
                for low, high, source in inside:
                    whole = isinstance(source, Product) and (low, high) == (source.form.first, source.form.first + source.form.size)
                    if not isinstance(source, Product) or not whole or source.result is not None:
                        return None
                    if low < place or high > place + count:
                        return None
                    result.append((source, row["offset"] + logical - row["lmm"] + low - place))
        return result


def _hulls(plan: LaunchPlan, store: bool) -> list[tuple[int, int, int, bool]]:
    """(row, first byte, end, whether all between is touched for certain) of every load or store of a launch in local memory."""
    if ("hulls", store) not in plan.forms:
        hulls = set()
        for access in plan.accesses:
            if access.store == store and access.words.size:
                place = access.places
                low, high = int(place.min()), int(place.max()) + WORD
                sure = not access.data_gated and access.op != "STBR" and np.unique(place).size * WORD == high - low
                hulls.add((access.row, low, high, sure))
        plan.forms[("hulls", store)] = sorted(hulls)
    found: list[tuple[int, int, int, bool]] = plan.forms[("hulls", store)]
    return found


__all__ = ["Step", "make_tape", "plain_tape"]
