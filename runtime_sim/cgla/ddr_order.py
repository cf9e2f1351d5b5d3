"""Order of DDR accesses inside one segment: who writes and reads which bytes of which symbol, and when.

A read must start after every write of its bytes has ended (a host task: CGLA-033, a DMA: CGLA-030); a write after every earlier read
and write of them (CGLA-030 and CGLA-036); one request may write what it reads itself (an update in place). Bytes that the segment reads
before it writes them are *required* at its entry; bytes that it surely writes are *provided* at its end. Seams between instances use
only these two.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import gcd

import numpy as np
from numpy.typing import NDArray

from .intervals import Ints


@dataclass(frozen=True)
class Access:
    """One access of a symbol during [begin, end): bytes at starts + [0, run); `sure` is False where a write may go elsewhere (index)."""

    begin: int
    end: int
    symbol: int
    starts: Ints
    run: int
    write: bool
    sure: bool
    rule: str
    unit: str
    source: int


Spans = NDArray[np.int64]
EDGE_BYTES = 64


@dataclass
class SymbolUse:
    """Bytes of a symbol as [start, end) rows: required at entry, provided at the end, and the hull of all accesses and of all writes."""

    required: Spans
    provided: Spans
    hull: tuple[int, int]
    write_hull: tuple[int, int] | None


def order_accesses(accesses: Sequence[Access], report: Callable[[str, Access, str], None]) -> dict[int, SymbolUse]:
    """Checks the order on each symbol and returns what each needs and gives."""
    by_symbol: dict[int, list[Access]] = {}
    for access in accesses:
        by_symbol.setdefault(access.symbol, []).append(access)
    return {symbol: _symbol(sorted(group, key=_key), report) for symbol, group in sorted(by_symbol.items())}


def _key(access: Access) -> tuple[int, int, str, bool]:
    return access.begin, access.end, access.unit, access.write


def _hull(group: Sequence[Access]) -> tuple[int, int]:
    return min(int(a.starts.min()) for a in group), max(int(a.starts.max()) + a.run for a in group)


def _symbol(group: list[Access], report: Callable[[str, Access, str], None]) -> SymbolUse:
    low, high = _hull(group)
    writes = [access for access in group if access.write]
    if not writes:
        return SymbolUse(np.array([[low, high]], dtype=np.int64), np.empty((0, 2), dtype=np.int64), (low, high), None)
    few = sum(access.starts.size for access in group) < (high - low) // EDGE_BYTES
    cells = Edges(group) if few else Grid(group, low, high)
    write_end = np.full(cells.count, -1, dtype=np.int64)
    read_end = np.full(cells.count, -1, dtype=np.int64)
    sure = np.zeros(cells.count, dtype=bool)
    required = np.zeros(cells.count, dtype=bool)
    own_reads: list[tuple[slice | Ints, Access]] = []
    for access in group:
        where = cells.of(access)
        if own_reads and own_reads[0][1].unit != access.unit:
            for read_cells, read in own_reads:
                read_end[read_cells] = np.maximum(read_end[read_cells], read.end)
            own_reads = []
        if access.write:
            if (write_end[where] > access.begin).any():
                report("CGLA-036", access, "writes bytes that another request is still writing")
            if (read_end[where] > access.begin).any():
                report("CGLA-030", access, "overwrites bytes that are still being read")
            write_end[where] = access.end
            if access.sure:
                sure[where] = True
        else:
            if (write_end[where] > access.begin).any():
                report(access.rule, access, "starts before the data that it reads are written")
            own_reads.append((where, access))
            required[where] |= ~sure[where]
    return SymbolUse(cells.spans(required), cells.spans(sure), (low, high), _hull(writes))


class Cells(ABC):
    """The bytes of a symbol in pieces that every access takes whole: piece i is [edge(i), edge(i + 1))."""

    count: int

    @abstractmethod
    def position(self, address: Ints) -> Ints:
        """The piece that begins at each address."""

    @abstractmethod
    def edge(self, cells: Ints) -> Ints:
        """Where each piece begins."""

    def of(self, access: Access) -> slice | Ints:
        """The pieces of an access."""
        first, last = self.position(access.starts), self.position(access.starts + access.run)
        if first.size == 1:
            return slice(int(first[0]), int(last[0]))
        counts = last - first
        if (counts == 1).all():
            return first
        before = np.cumsum(counts) - counts
        return np.repeat(first - before, counts) + np.arange(int(counts.sum()), dtype=np.int64)

    def spans(self, flags: NDArray[np.bool_]) -> Spans:
        """[start, end) rows of the pieces that are set."""
        ends = np.flatnonzero(np.diff(np.concatenate([[0], flags.astype(np.int8), [0]])))
        return self.edge(ends).reshape(-1, 2)


class Edges(Cells):
    """Pieces between all ends of all accesses."""

    def __init__(self, group: Sequence[Access]) -> None:
        ends = [end for access in group for end in (access.starts, access.starts + access.run)]
        self.edges = np.unique(np.concatenate(ends))
        self.count = self.edges.size - 1

    def position(self, address: Ints) -> Ints:
        """The piece that begins at each address."""
        return np.searchsorted(self.edges, address)

    def edge(self, cells: Ints) -> Ints:
        """Where each piece begins."""
        edges: Ints = self.edges[cells]
        return edges


class Grid(Cells):
    """Pieces of one size."""

    def __init__(self, group: Sequence[Access], low: int, high: int) -> None:
        self.low = low
        self.grain = 0
        for access in group:
            self.grain = gcd(self.grain, access.run, int(np.gcd.reduce(access.starts - low)))
        self.count = (high - low) // self.grain

    def position(self, address: Ints) -> Ints:
        """The piece that begins at each address."""
        return (address - self.low) // self.grain

    def edge(self, cells: Ints) -> Ints:
        """Where each piece begins."""
        return cells * self.grain + self.low
