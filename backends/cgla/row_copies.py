"""Copies of whole rows whose place is looked up: embedding rows, cache appends (model section 7).

The host adds an index times a stride to the DDR address of a request, so a row goes through one local memory without a launch: a
request brings it, another takes it away, one of the two with the index.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product
from typing import TYPE_CHECKING

from ...machines.cgla import tables as t
from ...machines.cgla.tables import DTYPE_BYTES, HostKind
from .host import ExprRow, HostOperand, HostTask
from .nest_kernel import NestKernel, NoSlot, placed_nest

if TYPE_CHECKING:
    from .schedule import Schedule

LINE = 32


@dataclass(frozen=True)
class Looked:
    """An index in DDR: symbol, byte, size of the integer, bytes of a step, and how many values there are."""

    symbol: int
    offset: int
    size: int
    stride: int
    limit: int


@dataclass(frozen=True)
class RowCopies:
    """Rows of `size` bytes between two symbols; `into`: the index places the result, else the source."""

    task: HostTask
    size: int
    into: bool
    loops: tuple[int, ...]


def row_copies(task: HostTask, lmm_bytes: int) -> RowCopies:
    """The copies that a task is. Raises NoSlot where it is something else."""
    into = task.kind == HostKind.SCATTER and task.op == "set"
    if not into and task.kind != HostKind.MAP:
        raise NoSlot(f"{task.kind.name.lower()} {task.op}")
    result, source, *rest = task.operands
    looked = result if into else source
    plain = len(task.exprs) == 1 and task.exprs[0].op == "arg" and result.dtype == source.dtype
    if not plain or len(looked.lookups) != 1 or len(rest) != 1 or (source if into else result).lookups:
        raise NoSlot("a lookup that is no copy of rows")
    if rest[0].dtype not in ("i32", "i64"):
        raise NoSlot(f"an index of {rest[0].dtype}")
    run, loops = 1, []
    for axis in sorted(range(len(task.extents)), key=lambda a: (abs(source.strides.get(a, 0)), -a)):
        steps = source.strides.get(axis, 0), result.strides.get(axis, 0)
        if task.extents[axis] > 1 and steps == (run, run) and not rest[0].strides.get(axis, 0):
            run *= task.extents[axis]
        elif task.extents[axis] > 1:
            loops.append(axis)
    size = run * DTYPE_BYTES[result.dtype]
    stride = looked.lookups[0].stride * DTYPE_BYTES[result.dtype]
    if size % LINE or stride % LINE or size + LINE > lmm_bytes or (result.offset - source.offset) % LINE:
        raise NoSlot(f"rows of {size} bytes, {stride} apart: not whole lines of {LINE}")
    return RowCopies(task, size, into, tuple(sorted(loops)))


class RowRun:
    """The requests of such copies, on the first lane of a schedule."""

    def __init__(self, schedule: Schedule, copies: RowCopies) -> None:
        self.schedule = schedule
        self.copies = copies

    def run(self) -> None:
        """One row after the other."""
        from .schedule import Place  # the schedule knows Looked, so it is imported where it is complete

        schedule, copies = self.schedule, self.copies
        machine, lane = schedule.machine, schedule.lanes[0]
        kernel = NestKernel((ExprRow("arg", "f32", 1),), ("f32", "f32"), "", (), machine.rows)
        nest = placed_nest(kernel)
        row = nest.load_rows[0]
        ranges = schedule.pools.range_set({(row, 0): (0, machine.lmm_bytes - 1, 1, 1)})
        schedule.hold(lane, schedule.pools.kernel(kernel, kernel.title, nest.placed), schedule.pools.register_set({}), ranges)
        lane.fetched = None
        result, source, index = copies.task.operands
        looked = (result if copies.into else source).lookups[0]
        for target, origin, at in self._positions(result, source, index):
            found = Looked(index.symbol, at, DTYPE_BYTES[index.dtype], looked.stride * DTYPE_BYTES[result.dtype], looked.limit)
            for direction, operand, offset, given in (
                (t.Direction.LOAD, source, origin, None if copies.into else found),
                (t.Direction.DRAIN, result, target, found if copies.into else None),
            ):
                lane.free = schedule.dma(
                    lane, direction, 0, Place(operand.symbol, offset), offset % LINE, copies.size, (row,), lane.free,
                    copies.task.provenance, given,
                )  # fmt: skip

    def _positions(self, *operands: HostOperand) -> Iterator[tuple[int, ...]]:
        """Byte offsets of every operand, row after row."""
        task, loops = self.copies.task, self.copies.loops
        for where in product(*(range(task.extents[axis]) for axis in loops)):
            yield tuple(
                o.offset + DTYPE_BYTES[o.dtype] * sum(o.strides.get(axis, 0) * p for axis, p in zip(loops, where, strict=True))
                for o in operands
            )
