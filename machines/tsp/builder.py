"""Writing TSP tables: one typed method per opcode, vectorised over rows.

`SegmentBuilder` collects bursts, their claims and objects. Every argument of a method may be a scalar or an array; arrays of one call have
one length and make that many bursts at once. Methods return the first burst's row number. Claims are given as `Out` items: stream,
direction and `until` (pos of the last consumer, `geometry.Geometry`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ...errors import BadInput
from ..program import Segment
from . import isa
from .isa import Class, DType, Opcode
from .tables import BURSTS, CLAIMS, OBJECTS, canonical, slice_mask


@dataclass(frozen=True)
class Out:
    """Streams that a burst drives: `width` adjacent ones from `stream`, each needed until `until` (a sequence: one pos per stream)."""

    stream: Any
    direction: Any
    until: Any
    width: int = 1


@dataclass(frozen=True)
class In:
    """First stream and direction of an operand."""

    stream: Any
    direction: Any


class SegmentBuilder:
    """Bursts, claims and objects of one segment, in the order of the calls."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.count = 0
        self._bursts: list[tuple[int, dict[str, Any]]] = []
        self._claims: list[dict[str, Any]] = []
        self._objects: list[dict[str, int]] = []

    def object(self, rows: int, slices: Sequence[tuple[int, int]]) -> int:
        """Declare an object of `rows` rows in each of the (hemisphere, slice) pairs; returns its number."""
        pairs = list(slices)
        self._objects.append({"rows": rows, "west": slice_mask(pairs, 0), "east": slice_mask(pairs, 1)})
        return len(self._objects) - 1

    def add(self, outs: Sequence[Out] = (), **columns: Any) -> int:
        """Rows of `bursts` with these columns (scalars or arrays of one length); returns the first row number."""
        sizes = {np.size(value) for value in columns.values() if np.ndim(value)}
        if len(sizes) > 1:
            raise BadInput(f"arrays of one burst call have different lengths {sorted(sizes)}")
        size = sizes.pop() if sizes else 1
        first = self.count
        self._bursts.append((size, columns))
        self.count += size
        rows: Any = first if size == 1 else np.arange(first, first + size)
        for out in outs:
            untils = out.until if isinstance(out.until, (list, tuple)) else (out.until,) * out.width
            if len(untils) != out.width:
                raise BadInput(f"{len(untils)} values of until for {out.width} streams")
            for plane, until in enumerate(untils):
                self._claims.append({"burst": rows, "stream": out.stream + plane, "direction": out.direction, "until": until})
        return first

    # MEM -----------------------------------------------------------------------------------------------------------------
    def mem_read(
        self, hemisphere: Any, slice_: Any, obj: Any, row: Any, out: Out, *, t: Any, n: Any = 1, i: Any = 1, stride: Any = 1, **more: Any
    ) -> int:
        """READ rows of an object onto one stream."""
        unit = hemisphere * 44 + slice_
        return self.add([out], unit=unit, opcode=Opcode.READ, object=obj, row=row, stride=stride, t0=t, n=n, i=i, **more)

    def mem_write(
        self, hemisphere: Any, slice_: Any, obj: Any, row: Any, a: In, *, t: Any, n: Any = 1, i: Any = 1, stride: Any = 1, **more: Any
    ) -> int:
        """WRITE a stream into rows of an object."""
        unit = hemisphere * 44 + slice_
        return self.add(
            unit=unit, opcode=Opcode.WRITE, object=obj, row=row, stride=stride, a_stream=a.stream, a_dir=a.direction, t0=t, n=n, i=i, **more
        )

    def gather(self, hemisphere: Any, slice_: Any, obj: Any, m: In, out: Out, *, t: Any, n: Any = 1, i: Any = 1, **more: Any) -> int:
        """GATHER rows that the map names onto one stream."""
        unit = hemisphere * 44 + slice_
        return self.add([out], unit=unit, opcode=Opcode.GATHER, object=obj, m_stream=m.stream, m_dir=m.direction, t0=t, n=n, i=i, **more)

    def scatter(self, hemisphere: Any, slice_: Any, obj: Any, a: In, m: In, *, t: Any, n: Any = 1, i: Any = 1, **more: Any) -> int:
        """SCATTER a stream into rows that the map names."""
        unit = hemisphere * 44 + slice_
        return self.add(
            unit=unit, opcode=Opcode.SCATTER, object=obj, a_stream=a.stream, a_dir=a.direction, m_stream=m.stream, m_dir=m.direction,
            t0=t, n=n, i=i, **more,
        )  # fmt: skip

    # MXM -----------------------------------------------------------------------------------------------------------------
    def lw(self, plane: Any, sg16: Any, *, t: Any, n: Any = 20, row0: Any = 0, **more: Any) -> int:
        """LW: n cycles of 16 outward streams SG16[sg16] into buffer rows row0 + 16 k + j."""
        hemisphere = plane // 2
        unit = isa.MXM_BASE + 3 * plane
        return self.add(unit=unit, opcode=Opcode.LW, a_stream=sg16 * 16, a_dir=hemisphere, row0=row0, t0=t, n=n, i=1, **more)

    def iw(self, plane: Any, *, t: Any, **more: Any) -> int:
        """IW: the buffer into the array."""
        return self.add(unit=isa.MXM_BASE + 3 * plane, opcode=Opcode.IW, t0=t, **more)

    def abc(self, plane: Any, stream: Any, dtype: DType, *, t: Any, n: Any = 1, i: Any = 1, half: Any = 0, **more: Any) -> int:
        """ABC: activation vectors from outward stream(s) into the array."""
        unit = isa.MXM_BASE + 3 * plane + 1
        return self.add(unit=unit, opcode=Opcode.ABC, a_stream=stream, a_dir=plane // 2, dtype=dtype, half=half, t0=t, n=n, i=i, **more)

    def acc(
        self, plane: Any, *, t: Any, n: Any = 1, i: Any = 1, entry: Any = 0, entry_stride: Any = 1,
        add: Any = 0, store: Any = 0, out: Out | None = None, **more: Any,
    ) -> int:  # fmt: skip
        """ACC: products into entries; with `out` (width 4, inward) the sums are emitted."""
        unit = isa.MXM_BASE + 3 * plane + 2
        outs = [] if out is None else [out]
        return self.add(
            outs, unit=unit, opcode=Opcode.ACC, entry=entry, entry_stride=entry_stride, add=add, store=store,
            emit=int(out is not None), t0=t, n=n, i=i, **more,
        )  # fmt: skip

    # VXM -----------------------------------------------------------------------------------------------------------------
    def alu(
        self, alu: Any, opcode: Opcode, a: In, b: In | None, outs: Sequence[Out], dtype: DType, *,
        t: Any, n: Any = 1, i: Any = 1, dtype2: DType | None = None, **more: Any,
    ) -> int:  # fmt: skip
        """One ALU operation; `outs` with the width of the result. `first`, `last`, `modular` pass through `more`."""
        if b is not None:
            more |= {"b_stream": b.stream, "b_dir": b.direction}
        if dtype2 is not None:
            more["dtype2"] = dtype2
        return self.add(
            outs, unit=isa.VXM_BASE + alu, opcode=opcode, a_stream=a.stream, a_dir=a.direction, dtype=dtype, t0=t, n=n, i=i, **more
        )

    # SXM -----------------------------------------------------------------------------------------------------------------
    def transpose(
        self, hemisphere: int, index: int, a: In, outs: Sequence[Out], *, t: Any, n: Any = 1, i: Any = 1, null: int = 0, **more: Any
    ) -> int:
        """TRANSPOSE 16 streams (outs of width 16, or fewer where not all are needed)."""
        unit = isa.sxm_unit(hemisphere, Class.TRANSPOSER, index)
        return self.add(outs, unit=unit, opcode=Opcode.TRANSPOSE, a_stream=a.stream, a_dir=a.direction, null=null, t0=t, n=n, i=i, **more)

    def distribute(
        self, hemisphere: int, index: int, a: In, m: In, outs: Sequence[Out], *,
        t: Any, n: Any = 1, i: Any = 1, bypass: int = 0, lowest: int = 0, **more: Any,
    ) -> int:  # fmt: skip
        """DISTRIBUTE 8 streams by one map (lowest: 1 stream to 4)."""
        unit = isa.sxm_unit(hemisphere, Class.DISTRIBUTOR, index)
        return self.add(
            outs, unit=unit, opcode=Opcode.DISTRIBUTE, a_stream=a.stream, a_dir=a.direction, m_stream=m.stream, m_dir=m.direction,
            bypass=bypass, lowest=lowest, t0=t, n=n, i=i, **more,
        )  # fmt: skip

    def permute(self, hemisphere: int, a: In, m: In, outs: Sequence[Out], *, t: Any, n: Any = 1, i: Any = 1, **more: Any) -> int:
        """PERMUTE one stream by a map of two."""
        unit = isa.sxm_unit(hemisphere, Class.PERMUTOR)
        return self.add(
            outs, unit=unit, opcode=Opcode.PERMUTE, a_stream=a.stream, a_dir=a.direction, m_stream=m.stream, m_dir=m.direction,
            t0=t, n=n, i=i, **more,
        )  # fmt: skip

    def shift(
        self, hemisphere: int, amount: int, a: In, outs: Sequence[Out], *, t: Any, n: Any = 1, i: Any = 1, index: int = 0, **more: Any
    ) -> int:
        """SHIFT one stream by lanes."""
        unit = isa.sxm_unit(hemisphere, Class.SHIFTER, index)
        return self.add(outs, unit=unit, opcode=Opcode.SHIFT, a_stream=a.stream, a_dir=a.direction, amount=amount, t0=t, n=n, i=i, **more)

    def broadcast(self, hemisphere: int, a: In, outs: Sequence[Out], *, t: Any, n: Any = 1, i: Any = 1, index: int = 0, **more: Any) -> int:
        """BROADCAST lane 0 of one stream."""
        unit = isa.sxm_unit(hemisphere, Class.SHIFTER, index)
        return self.add(outs, unit=unit, opcode=Opcode.BROADCAST, a_stream=a.stream, a_dir=a.direction, t0=t, n=n, i=i, **more)

    # C2C -----------------------------------------------------------------------------------------------------------------
    def send(self, link: int, a: In, *, t: Any, n: Any = 1, i: Any = 24, **more: Any) -> int:
        """SEND a stream over a link."""
        unit = isa.sxm_unit(link // 8, Class.C2C)
        return self.add(unit=unit, opcode=Opcode.SEND, link=link, a_stream=a.stream, a_dir=a.direction, t0=t, n=n, i=i, **more)

    def receive(self, link: int, outs: Sequence[Out], *, t: Any, n: Any = 1, i: Any = 24, **more: Any) -> int:
        """RECEIVE from a link onto a stream (a claim per copy)."""
        unit = isa.sxm_unit(link // 8, Class.C2C)
        return self.add(outs, unit=unit, opcode=Opcode.RECEIVE, link=link, t0=t, n=n, i=i, **more)

    # ---------------------------------------------------------------------------------------------------------------------
    def segment(self) -> Segment:
        """The finished segment."""
        return Segment(
            self.name, {"bursts": self._burst_table(), "claims": self._claim_table(), "objects": OBJECTS.from_rows(self._objects)}
        )

    def _burst_table(self) -> dict[str, np.ndarray]:
        table = BURSTS.from_columns(self.count)
        starts = np.cumsum([0] + [size for size, _ in self._bursts])
        _fill(table, [columns for _, columns in self._bursts], starts, BURSTS.name)
        return canonical(table)

    def _claim_table(self) -> dict[str, np.ndarray]:
        sizes = [max((np.size(v) for v in columns.values()), default=1) for columns in self._claims]
        starts = np.cumsum([0, *sizes])
        table = CLAIMS.from_columns(int(starts[-1]))
        _fill(table, self._claims, starts, CLAIMS.name)
        return table


def _fill(table: dict[str, np.ndarray], chunks: list[dict[str, Any]], starts: np.ndarray, name: str) -> None:
    """Write chunk c into rows starts[c]:starts[c+1]; scalars of single rows go in one numpy assignment per column."""
    singles: dict[str, tuple[list[int], list[int]]] = {column: ([], []) for column in table}
    bounds = starts.tolist()
    for index, columns in enumerate(chunks):
        low, high = bounds[index], bounds[index + 1]
        for column, value in columns.items():
            if column not in table:
                raise BadInput(f"table {name} has no column {column!r}")
            if high - low == 1:
                rows, values = singles[column]
                rows.append(low)
                values.append(int(value) if np.ndim(value) == 0 else int(value[0]))
            else:
                table[column][low:high] = value
    for column, (rows, values) in singles.items():
        if rows:
            table[column][rows] = values
