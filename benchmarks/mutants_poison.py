"""Whether what a change makes differ is ever looked at: a test with absurd values in its place.

A wafer burst is cut into one burst a core. On the cores where the change makes it read other elements, or on which it runs in one of the
two programs alone, it stores a constant instead of its result: once as large as its format holds, once as small, once neither. If all
outputs and states stay what they were in every run, nothing takes what the change changed. The cut program is no legal schedule
(predecessors are named per role), so it is run for its numbers alone. A constant of a CGLA host task is exchanged in the same way.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from spatialc.machines.program import Program, Segment
from spatialc.machines.wafer import tables as tb
from spatialc.machines.wafer.description import from_json
from spatialc.machines.wafer.isa import OPS, Element, Fmt, Op, OpRow
from spatialc.runtime_sim import cgla, wafer
from spatialc.runtime_sim.execution import Execution
from spatialc.runtime_sim.wafer.addresses import start
from spatialc.runtime_sim.wafer.model import BurstView, SegmentView, view_segment

Runs = Sequence[tuple[Mapping[str, np.ndarray], Mapping[str, np.ndarray]]]
_ABSURD = {Element.F16: (65504.0, -65504.0, 1234.5), Element.F32: (3e38, -3e38, 1234.5)}
_MOVES = {Element.F16: Fmt.F16, Element.F32: Fmt.F32}
_RULES = frozenset(f"W{n:02}" for n in range(60))


def nothing_takes(before: Program, after: Program, segment: int, row: int, runs: Runs) -> bool:
    """Whether what burst `row` stores is not looked at on the cores on which the change of an address or of its role shows."""
    views = [view_segment(program.segments[segment], from_json(program.machine, "machine")) for program in (before, after)]
    one, two = (next(b for b in view.bursts if b.row == row) for view in views)
    element = OPS[one.op.op, one.op.fmt].d
    if one.loop.rep * one.outer.rep > 1 or one.d.kind is not tb.OperandKind.MEM or one.fin is not None or element not in _ABSURD:
        return False
    wide, program = (one, before) if one.cores >= two.cores else (two, after)
    mine, others = set(one.core_ids.reshape(-1).tolist()), set(two.core_ids.reshape(-1).tolist())
    changed = ~np.isin(wide.core_ids, sorted(mine & others))
    if mine == others:
        changed = _other_addresses(one, two, views)
    if one.d != two.d or not changed.any() or not (mine <= others or others <= mine):
        return False
    wanted = [wafer.execute(before, *run, skip=_RULES) for run in runs]
    for value in _ABSURD[element]:
        cut = _cut(program, segment, wide, changed, (OPS[Op.MOV, _MOVES[element]], value))
        if not all(same_numbers(wafer.execute(cut, *run, skip=_RULES), known) for run, known in zip(runs, wanted, strict=True)):
            return False
    return True


def _other_addresses(one: BurstView, two: BurstView, views: Sequence[SegmentView]) -> np.ndarray:
    """bool [rows, columns] of the role: cores on which a source operand begins elsewhere; all where it is another one."""
    changed = np.zeros(one.core_ids.shape, bool)
    for name in "abs":
        x, y = one.operand(name), two.operand(name)
        if x != y and x.kind is y.kind is tb.OperandKind.MEM:
            alike = replace(y, step=x.step, wrap=x.wrap, py=x.py, px=x.px, pvy=x.pvy, pvx=x.pvx, addr=x.addr) == x
            changed |= (start(one, x, 0, 0, views[0]) != start(two, y, 0, 0, views[1])) | (not alike)
    return changed


def no_constant_shows(program: Program, segment: int, row: int, runs: Runs) -> bool:
    """Whether a constant of a CGLA host task may be anything."""
    wanted = [cgla.execute(program, *run) for run in runs]
    segments, old = list(program.segments), program.segments[segment]
    for value in _ABSURD[Element.F32]:
        table = {**old.tables["host_exprs"], "real": old.tables["host_exprs"]["real"].copy()}
        table["real"][row] = value
        segments[segment] = Segment(old.name, {**old.tables, "host_exprs": table})
        other = replace(program, segments=tuple(segments))
        if not all(same_numbers(cgla.execute(other, *run), known) for run, known in zip(runs, wanted, strict=True)):
            return False
    return True


def same_numbers(found: Execution, wanted: Execution) -> bool:
    """Whether two runs leave the same outputs and states."""
    pairs = ((found.outputs, wanted.outputs), (found.states, wanted.states))
    return all(a.keys() == b.keys() and all(np.array_equal(a[k], b[k], equal_nan=b[k].dtype.kind == "f") for k in b) for a, b in pairs)


def _cut(program: Program, segment: int, burst: BurstView, changed: np.ndarray, instead: tuple[OpRow, float]) -> Program:
    """The program with a burst in one piece a core, of which those of `changed` [rows, columns] store a constant."""
    table = program.segments[segment].tables["bursts"]
    kept = {name: np.delete(column, burst.row, 0) for name, column in table.items()}
    pieces: dict[str, list[Any]] = {name: [] for name in table}
    number, fresh = int(table["id"][burst.row]), int(table["id"].max()) + 1
    for k, ((i, j), absurd) in enumerate(np.ndenumerate(changed)):
        piece = {name: column[burst.row].copy() for name, column in table.items()}
        y, x = burst.rows[i], burst.cols[j]
        piece |= {"id": fresh + k if k else number, "t0": int(burst.time.array[i, j]), "rows": [y, y + 1, 1], "cols": [x, x + 1, 1]}
        piece |= {"ty": 0, "tx": 0, "vy": tb.NONE, "vx": tb.NONE, "dense": tb.NONE}
        if absurd:
            piece |= _constant(table, *instead)
        for name, value in piece.items():
            pieces[name].append(value)
    whole = {name: np.concatenate([column, np.array(pieces[name], column.dtype)]) for name, column in kept.items()}
    order = np.lexsort((whole["id"], whole["t0"], whole["region"]))
    segments = list(program.segments)
    old = segments[segment]
    segments[segment] = Segment(old.name, {**old.tables, "bursts": {name: column[order] for name, column in whole.items()}})
    return replace(program, segments=tuple(segments))


def _constant(table: Mapping[str, np.ndarray], row: OpRow, value: float) -> dict[str, Any]:
    """The fields that make a burst store an immediate."""
    defaults = {column.name: np.full(table[column.name].shape[1:], column.default) for column in tb.BURSTS.columns}
    unused = {name: value for name, value in defaults.items() if name[:2] in ("a_", "b_", "s_")}
    return {**unused, "op": int(row.op), "fmt": int(row.fmt), "a_kind": int(tb.OperandKind.IMM), "imm": value}
