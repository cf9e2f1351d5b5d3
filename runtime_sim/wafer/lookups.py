"""Accesses whose place is data: LDX and STX, an index in memory choosing one of `look` places (table 2.1)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from . import kernels
from .addresses import nest
from .arithmetic import Values
from .model import BurstView, Ints
from .order import Step
from .storage import seen_once

if TYPE_CHECKING:
    from .engine import Cores, Engine


def lowest(burst: BurstView) -> Ints:
    """The index that means the first place, int64 [rows, columns] of the role."""
    lo, _, _, per_row, per_column = burst.look
    return np.asarray(lo + per_row * np.array(burst.rows, np.int64)[:, None] + per_column * np.array(burst.cols, np.int64)[None, :])


def indices(engine: Engine, step: Step, cores: Cores) -> tuple[Values, Ints]:
    """Indices of all visits [*cores, visits] and those that mean the first place [*cores, 1], one row or column where all are the same."""
    burst = step.event.burst
    low = cores.of(lowest(burst)).reshape(*cores.shape, 1)
    index = engine.scalar(step, cores, None)
    assert index is not None
    if cores.view and index.ndim == 6:
        index = seen_once(index)
        alike = [not pace and index.shape[axis] == 1 for axis, pace in enumerate(burst.look[3:])]
        low = low[tuple(slice(0, 1) if one else slice(None) for one in alike)]
    lead = index.shape[: len(cores.shape)] if index.ndim else (1,) * len(cores.shape)
    return np.broadcast_to(index, (*lead, *burst.ext[:3], 1)).reshape(*lead, -1), low


def load(engine: Engine, step: Step, cores: Cores) -> Values:
    """What LDX finds, [*cores, n3, n2, n1, n0]; 0 where the index is out of range."""
    burst = step.event.burst
    index, low = indices(engine, step, cores)
    found = index >= low
    found &= index < low + burst.look[1]
    known, few = np.nonzero(found), found.shape[:-1]
    chosen = (np.broadcast_to(index, found.shape)[known].astype(np.int64) - np.broadcast_to(low, found.shape)[known]) * burst.look[2]
    # rows or columns that all choose the same are found once, and stand for all
    copies = [range(n) if once < n else range(1) for once, n in zip(few, cores.shape, strict=True)]
    core: Ints = np.zeros((), np.int64)
    for n, at, more in zip(cores.shape, known[:-1], np.ix_(*(np.array(c) for c in (*copies, range(1))))[:-1], strict=True):
        core = core * n + at + more
    core, visit, chosen = (a.reshape(-1) for a in np.broadcast_arrays(core, known[-1], chosen))
    begin = np.broadcast_to(cores.of(engine.begin(step.event, "a")), cores.shape).reshape(-1)
    visits = found.shape[-1]
    steps = nest(burst.ext, burst.a.stride).reshape(visits, burst.ext[3])
    values = engine.memory.pick(burst.a.obj, engine.flat(burst, cores)[core], (begin[core] + chosen)[:, None] + steps[visit])
    out = np.zeros((*cores.shape, *burst.ext), values.dtype)
    out.reshape(-1, burst.ext[3])[core * visits + visit] = values
    return out


def store(engine: Engine, step: Step, cores: Cores, streamed: Values | None) -> None:
    """Write what STX stores."""
    burst = step.event.burst
    index, low = indices(engine, step, cores)
    offset = index.astype(np.int64) - low
    values = engine.source("a", step, cores, streamed)
    assert values is not None
    at = cores.of(engine.begin(step.event, "d"))
    target = engine.memory.target(burst.d.obj)
    flat = engine.flat(burst, cores)
    visits, inner = int(np.prod(burst.ext[:3])), burst.ext[3]
    kernels.store_indexed(
        np.ascontiguousarray(np.broadcast_to(values, (*cores.shape, *burst.ext))).reshape(len(flat), visits, inner),
        target.reshape(-1, target.shape[-1]), flat, np.broadcast_to(at, cores.shape).reshape(-1),
        np.broadcast_to(offset * burst.look[2], (*cores.shape, visits)).reshape(len(flat), visits),
        np.broadcast_to((offset >= 0) & (offset < burst.look[1]), (*cores.shape, visits)).reshape(len(flat), visits),
        nest(burst.ext, burst.d.stride).reshape(visits, inner),
    )  # fmt: skip
