"""Host tasks: loop nests over DDR that a host core runs, as data in the program (model section 8).

A task is decoded once, checked (fields, positions inside symbols, each result element written once), costed by counting bytes, flops
and special functions, and evaluated with numpy on views of the DDR buffers.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import ceil, log2, prod
from typing import Any

import numpy as np
from numpy.lib.stride_tricks import as_strided
from numpy.typing import NDArray

from ...machines.cgla.description import CglaMachine
from ...machines.cgla.tables import (
    BINARY,
    DTYPE_BYTES,
    EXPR_OPS,
    HOST_DTYPES,
    LEAVES,
    REDUCE_OPS,
    SCAN_OPS,
    SCATTER_OPS,
    SPECIAL_OPS,
    TERNARY,
    HostKind,
)
from ...machines.cgla.timing import host_cycles
from ...machines.program import Table
from .expressions import FLOATS, Array, Entry, cast, evaluate, settle
from .intervals import Ints, strided_runs

View = Callable[[int], NDArray[np.uint8]]
CHUNK_POINTS = 1 << 23


class HostError(Exception):
    """A host task that is not well formed; `rule` is the model rule it breaks."""

    def __init__(self, rule: str, message: str) -> None:
        super().__init__(message)
        self.rule = rule


@dataclass(frozen=True)
class Operand:
    """One operand: symbol, byte offset, dtype, stride in items of each axis, lookups (operand, stride, limit)."""

    symbol: int
    offset: int
    dtype: str
    strides: tuple[int, ...]
    lookups: tuple[tuple[int, int, int], ...]

    @property
    def item(self) -> int:
        """Bytes of an element."""
        return DTYPE_BYTES[self.dtype]


@dataclass(frozen=True)
class HostTask:
    """One decoded task."""

    kind: HostKind
    op: str
    axis: int
    flag: bool
    count: int
    extents: tuple[int, ...]
    operands: tuple[Operand, ...]
    entries: tuple[Entry, ...]

    @property
    def points(self) -> int:
        """Points of the loop nest."""
        return prod(self.extents)

    def result_extents(self) -> tuple[int, ...]:
        """Extents of the axes as the result sees them (a sort keeps `count` elements)."""
        return tuple(self.count if self.kind == HostKind.SORT and a == self.axis else extent for a, extent in enumerate(self.extents))

    def cost(self) -> tuple[int, int, int]:
        """(bytes, flops, special) of the task."""
        data = 0
        for number, operand in enumerate(self.operands):
            extents = self.result_extents() if number == 0 else self.extents
            used = {axis for axis, stride in enumerate(operand.strides) if stride}
            for index, _, _ in operand.lookups:
                used |= {axis for axis, stride in enumerate(self.operands[index].strides) if stride}
            data += operand.item * prod(extents[axis] for axis in sorted(used))
        plain = sum(entry.op not in LEAVES and entry.op not in SPECIAL_OPS for entry in self.entries)
        special = sum(entry.op in SPECIAL_OPS for entry in self.entries)
        plain += self.kind in (HostKind.REDUCE, HostKind.SCATTER, HostKind.SCAN)
        plain += ceil(log2(max(self.extents[self.axis], 2))) if self.kind == HostKind.SORT else 0
        return data, self.points * plain, self.points * special

    def cycles(self, machine: CglaMachine) -> int:
        """Length of the task on one core."""
        return host_cycles(machine, *self.cost())

    def runs(self, number: int) -> tuple[Ints, int]:
        """(starts, length) in bytes of the symbol that operand `number` may touch."""
        operand = self.operands[number]
        extents = self.result_extents() if number == 0 else self.extents
        terms = [(extent, stride * operand.item) for extent, stride in zip(extents, operand.strides, strict=True)]
        terms += [(limit, stride * operand.item) for _, stride, limit in operand.lookups]
        starts, length = strided_runs(operand.item, terms)
        return starts + operand.offset, length


def decode_tasks(tables: Mapping[str, Table], symbols: Sequence[int]) -> list[HostTask | HostError]:
    """All host tasks of a segment; a task that is not well formed stands as its error."""
    rows = {name: {column: array.tolist() for column, array in tables[name].items()} for name in _HOST_TABLES}
    terms: dict[int, list[tuple[int, int]]] = {}
    for operand, axis, stride in zip(*(rows["host_terms"][name] for name in ("operand", "axis", "stride")), strict=True):
        terms.setdefault(operand, []).append((axis, stride))
    lookups: dict[int, list[tuple[int, int, int]]] = {}
    for operand, *rest in zip(*(rows["host_lookups"][name] for name in ("operand", "index", "stride", "limit")), strict=True):
        lookups.setdefault(operand, []).append((rest[0], rest[1], rest[2]))
    result: list[HostTask | HostError] = []
    for number in range(len(rows["host_tasks"]["kind"])):
        try:
            result.append(_decode({name: column[number] for name, column in rows["host_tasks"].items()}, rows, terms, lookups, symbols))
        except HostError as error:
            result.append(error)
    return result


def shared_rows(tables: Mapping[str, Table]) -> list[str]:
    """What is wrong with whom the rows of axes, operands, terms, lookups and expressions belong to: each is of exactly one task."""
    tasks = {name: array.tolist() for name, array in tables["host_tasks"].items()}
    wrong = []
    for first, count, table in _SPANS:
        size = len(next(iter(tables[table].values())))
        owners = np.zeros(size, np.int64)
        for start, amount in zip(tasks[first], tasks[count], strict=True):
            if start >= 0 and amount >= 0 and start + amount <= size:
                owners[start : start + amount] += 1
        wrong += [f"row {row} of {table} belongs to {owners[row]} tasks" for row in np.flatnonzero(owners != 1)[:1]]
    operands = len(tables["host_operands"]["symbol"])
    for table in ("host_terms", "host_lookups"):
        named = tables[table]["operand"]
        wrong += [f"row {row} of {table} names no operand" for row in np.flatnonzero((named < 0) | (named >= operands))[:1]]
    return wrong


_SPANS = (("first_axis", "axes", "host_axes"), ("first_operand", "operands", "host_operands"), ("first_expr", "exprs", "host_exprs"))
_HOST_TABLES = ("host_tasks", "host_axes", "host_operands", "host_terms", "host_lookups", "host_exprs")
_OPS: dict[HostKind, tuple[str, ...]] = {
    HostKind.MAP: ("",), HostKind.REDUCE: REDUCE_OPS, HostKind.SCATTER: SCATTER_OPS, HostKind.SORT: ("",), HostKind.SCAN: SCAN_OPS,
}  # fmt: skip


def _need(condition: bool, message: str, rule: str = "CGLA-001") -> None:
    if not condition:
        raise HostError(rule, message)


def _decode(
    row: Mapping[str, Any],
    rows: Mapping[str, Mapping[str, list[Any]]],
    terms: Mapping[int, list[tuple[int, int]]],
    lookups: Mapping[int, list[tuple[int, int, int]]],
    symbols: Sequence[int],
) -> HostTask:
    _need(row["kind"] in tuple(HostKind), f"host task kind {row['kind']} is unknown")
    kind = HostKind(row["kind"])
    _need(0 <= row["op"] < len(_OPS[kind]), f"op {row['op']} of a {kind.name} is unknown")
    spans = {}
    for first, count, table in _SPANS:
        size = len(next(iter(rows[table].values())))
        _need(row[first] >= 0 and row[count] >= 0 and row[first] + row[count] <= size, f"{first} and {count} leave table {table}")
        spans[table] = range(row[first], row[first] + row[count])
    extents = tuple(rows["host_axes"]["extent"][i] for i in spans["host_axes"])
    _need(all(1 <= extent < 1 << 31 for extent in extents) and prod(extents) < 1 << 40, f"axis extents {extents} are out of range")
    operands = tuple(_operand(i, rows["host_operands"], terms.get(i, []), lookups.get(i, []), extents) for i in spans["host_operands"])
    entries = tuple(_entry(rows["host_exprs"], i) for i in spans["host_exprs"])
    task = HostTask(kind, _OPS[kind][row["op"]], row["axis"], bool(row["flag"]), row["count"], extents, operands, entries)
    _check(task, row)
    for number, operand in enumerate(operands):
        _need(0 <= operand.symbol < len(symbols), f"operand {number} names symbol {operand.symbol}, the segment has {len(symbols)}")
        starts, length = task.runs(number)
        inside = int(starts.min()) >= 0 and int(starts.max()) + length <= symbols[operand.symbol]
        _need(inside, f"operand {number} leaves its symbol of {symbols[operand.symbol]} bytes", "CGLA-036")
    return task


def _operand(
    index: int, table: Mapping[str, list[Any]], terms: list[tuple[int, int]], lookups: list[tuple[int, int, int]], extents: tuple[int, ...]
) -> Operand:
    _need(0 <= table["dtype"][index] < len(HOST_DTYPES), f"operand dtype {table['dtype'][index]} is unknown")
    strides = [0] * len(extents)
    for axis, stride in terms:
        _need(0 <= axis < len(extents) and abs(stride) < 1 << 40, f"a term names axis {axis} of {len(extents)}")
        means = stride != 0 and extents[axis] > 1 and strides[axis] == 0
        _need(means, f"a term of stride {stride} along axis {axis} of extent {extents[axis]} moves nothing, or is the second of its axis")
        strides[axis] = stride
    dtype = HOST_DTYPES[table["dtype"][index]]
    _need(table["offset"][index] % DTYPE_BYTES[dtype] == 0, f"operand offset {table['offset'][index]} is not a multiple of its item size")
    return Operand(table["symbol"][index], table["offset"][index], dtype, tuple(strides), tuple(lookups))


def _entry(table: Mapping[str, list[Any]], index: int) -> Entry:
    op, dtype = table["op"][index], table["dtype"][index]
    _need(0 <= op < len(EXPR_OPS) and 0 <= dtype < len(HOST_DTYPES), f"expression entry {index} has an unknown op or dtype")
    real, integer = table["real"][index], table["integer"][index]
    constant, other = (real, integer) if HOST_DTYPES[dtype] in FLOATS else (integer, real)
    unused = other == 0 and (EXPR_OPS[op] == "const" or constant == 0)
    _need(unused, f"expression entry {index} ({EXPR_OPS[op]} {HOST_DTYPES[dtype]}) holds a constant that it does not use")
    return Entry(EXPR_OPS[op], HOST_DTYPES[dtype], table["a"][index], table["b"][index], table["c"][index], constant)


def _check(task: HostTask, row: Mapping[str, Any]) -> None:
    takes_axis = task.kind in (HostKind.SORT, HostKind.SCAN)
    _need((0 <= task.axis < len(task.extents)) if takes_axis else task.axis == -1, f"axis {task.axis} of a {task.kind.name}")
    _need(row["flag"] in ((0, 1) if takes_axis else (0,)), f"flag {row['flag']} of a {task.kind.name}")
    limit = task.extents[task.axis] if task.kind == HostKind.SORT else 0
    _need((1 <= task.count <= limit) if limit else task.count == 0, f"count {task.count} of a {task.kind.name}")
    wanted = {HostKind.SORT: (2, 2), HostKind.SCAN: (3, 4) if task.op == "linear" else (2, 2)}.get(task.kind, (1, 1 << 16))
    _need(wanted[0] <= len(task.operands) <= wanted[1], f"{task.kind.name} with {len(task.operands)} operands")
    _need(takes_axis != bool(task.entries), f"{task.kind.name} with {len(task.entries)} expression entries")
    for number, entry in enumerate(task.entries):
        _check_entry(task, number, entry)
    used = {source for entry in task.entries if entry.op not in LEAVES for source in (entry.a, entry.b, entry.c)}
    idle = sorted(set(range(len(task.entries) - 1)) - used)
    _need(not idle, f"entries {idle} are not used by a later one")
    for number, operand in enumerate(task.operands):
        allowed = number != 0 or task.kind == HostKind.SCATTER
        _need(allowed or not operand.lookups, "only a SCATTER looks up where its result goes")
        for index, _, limit_value in operand.lookups:
            good = 1 <= index < len(task.operands) and not task.operands[index].lookups and task.operands[index].dtype not in FLOATS
            _need(good and limit_value >= 1, f"lookup of operand {number} by operand {index}")
    if task.kind != HostKind.SCATTER:
        _once(task)


def _check_entry(task: HostTask, number: int, entry: Entry) -> None:
    arity = {"const": 0, "arg": 1, "axis": 1}.get(entry.op, 3 if entry.op in TERNARY else 2 if entry.op in BINARY else 1)
    sources = (entry.a, entry.b, entry.c)
    _need(sources[arity:] == (-1,) * (3 - arity), f"entry {number} ({entry.op}) has operands {sources}, it takes {arity}")
    if entry.op == "arg":
        known = 1 <= entry.a < len(task.operands) and task.operands[entry.a].dtype == entry.dtype
        _need(known, f"arg {entry.a} as {entry.dtype}: no such operand, or of another dtype")
    elif entry.op == "axis":
        _need(0 <= entry.a < len(task.extents) and entry.dtype == "i64", f"axis {entry.a} of {len(task.extents)} as {entry.dtype}")
    else:
        _need(all(0 <= source < number for source in sources[:arity]), f"entry {number} ({entry.op}) uses entries {sources[:arity]}")


def _once(task: HostTask) -> None:
    """Each result element is written once: axes step over what the smaller strides span; only a REDUCE leaves axes out."""
    span = 0
    steps = sorted(zip((abs(s) for s in task.operands[0].strides), task.result_extents(), strict=True))
    for stride, extent in steps:
        if extent == 1 or (stride == 0 and task.kind == HostKind.REDUCE):
            continue
        _need(stride > span, f"the result is written more than once: an axis of {extent} steps by {stride} over a span of {span}")
        span += stride * (extent - 1)


def _fetch(operand: Operand, extents: tuple[int, ...], view: View, values: Sequence[Array]) -> Array:
    """An operand over the axes, extent 1 where it does not depend on one. f16 and bf16 come as f32."""
    raw = view(operand.symbol)
    stored = _numpy(operand.dtype)
    item = operand.item
    shape = tuple(extent if stride else 1 for extent, stride in zip(extents, operand.strides, strict=True))
    if not operand.lookups:
        strides = tuple(stride * item for stride in operand.strides)
        data = _strided(raw, stored, shape, strides, operand.offset)
        return widen(data, operand.dtype)
    position: Array = np.zeros((1,) * len(extents), dtype=np.int64)
    for axis, stride in enumerate(operand.strides):
        if stride:
            line = np.arange(extents[axis], dtype=np.int64) * stride
            position = position + line.reshape((-1,) + (1,) * (len(extents) - axis - 1))
    for index, stride, limit in operand.lookups:
        value = values[index].astype(np.int64)
        if value.size and (int(value.min()) < 0 or int(value.max()) >= limit):
            raise HostError("CGLA-036", f"a looked-up index lies outside 0..{limit - 1}")
        position = position + value * stride
    whole = raw[operand.offset : operand.offset + (raw.size - operand.offset) // item * item].view(stored)
    return widen(whole[position], operand.dtype)


def _numpy(dtype: str) -> str:
    """The numpy type of stored items: bf16 is the upper half of f32, bool a byte."""
    return {
        "f32": "f4", "f64": "f8", "f16": "f2", "bf16": "u2", "i64": "i8", "i32": "i4", "i16": "i2", "i8": "i1", "u8": "u1", "bool": "u1",
    }[dtype]  # fmt: skip


def _strided(raw: Array, stored: str, shape: tuple[int, ...], strides: tuple[int, ...], offset: int) -> Array:
    item = np.dtype(stored).itemsize
    lowest = sum(stride * (extent - 1) for stride, extent in zip(strides, shape, strict=True) if stride < 0)
    start = offset + lowest
    flat = raw[start : start + (raw.size - start) // item * item].view(stored)[-lowest // item :]
    return as_strided(flat, shape, strides)


def widen(data: Array, dtype: str) -> Array:
    if dtype == "bf16":
        return (data.astype(np.uint32) << np.uint32(16)).view(np.float32)
    if dtype == "f16":
        return data.astype(np.float32)
    return data.astype(bool) if dtype == "bool" else data


def narrow(values: Array, dtype: str) -> Array:
    """Computed values as they are stored."""
    if dtype == "bf16":
        return (settle(values, "bf16").view(np.uint32) >> np.uint32(16)).astype(np.uint16)
    if dtype == "f16":
        with np.errstate(all="ignore"):
            return values.astype(np.float16)
    if dtype == "bool":
        return np.not_equal(values, 0).astype(np.uint8)
    whole = cast(values, dtype) if values.dtype.kind == "f" and dtype not in FLOATS else values
    return whole.astype(_numpy(dtype), copy=False)


def run_task(task: HostTask, view: View) -> None:
    """Evaluates a task: reads and writes the DDR symbols that `view` gives. Raises HostError for an index out of range."""
    values: list[Array] = [np.empty(0)]
    deferred = [i for i, operand in enumerate(task.operands) if i and operand.lookups]
    for number, operand in enumerate(task.operands[1:], start=1):
        values.append(np.empty(0) if number in deferred else _fetch(operand, task.extents, view, values))
    for number in deferred:
        values[number] = _fetch(task.operands[number], task.extents, view, values)
    {
        HostKind.MAP: _map, HostKind.REDUCE: _reduce, HostKind.SCATTER: _scatter, HostKind.SORT: _sort, HostKind.SCAN: _scan,
    }[task.kind](task, values, view)  # fmt: skip


def _axes(task: HostTask) -> list[Array]:
    rank = len(task.extents)
    return [np.arange(extent, dtype=np.int64).reshape((-1,) + (1,) * (rank - axis - 1)) for axis, extent in enumerate(task.extents)]


def _put(task: HostTask, values: Array, view: View) -> None:
    """Write values (over the result's axes) to the result."""
    result = task.operands[0]
    raw = view(result.symbol)
    extents = task.result_extents()
    shape = tuple(extent if stride else 1 for extent, stride in zip(extents, result.strides, strict=True))
    stored = "u2" if result.dtype == "bf16" else {"f16": "f2", "bool": "u1"}.get(result.dtype) or _numpy(result.dtype)
    target = _strided(raw, stored, shape, tuple(stride * result.item for stride in result.strides), result.offset)
    target[...] = narrow(values, result.dtype)


def _map(task: HostTask, values: list[Array], view: View) -> None:
    result = task.operands[0]
    if len(task.entries) == 1 and task.entries[0].op == "arg" and result.dtype == task.entries[0].dtype in ("f32", "i32"):
        _copy(task, task.operands[task.entries[0].a], values[task.entries[0].a], view)
        return
    _put(task, evaluate(task.entries, values, _axes(task)), view)


def _copy(task: HostTask, source: Operand, values: Array, view: View) -> None:
    """Moves 4-byte items to the result, two at once where they lie in pairs on both sides."""
    result = task.operands[0]
    pairs = [operand.strides and operand.strides[-1] == 1 and not operand.lookups and not operand.offset % 8
             and not any(stride % 2 for stride in operand.strides[:-1]) for operand in (result, source)]  # fmt: skip
    if not all(pairs) or task.extents[-1] % 2:
        _put(task, values, view)
        return
    extents = (*task.extents[:-1], task.extents[-1] // 2)
    moved = []
    for operand in (result, source):
        shape = tuple(extent if stride else 1 for extent, stride in zip(extents, operand.strides, strict=True))
        strides = tuple(stride * operand.item for stride in operand.strides[:-1])
        moved.append(_strided(view(operand.symbol), "u8", shape, (*strides, 8), operand.offset))
    moved[0][...] = moved[1]


def _reduce(task: HostTask, values: list[Array], view: View) -> None:
    result = task.operands[0]
    kept = [axis for axis, stride in enumerate(result.strides) if stride]
    gone = [axis for axis in range(len(task.extents)) if axis not in kept]
    product = _product_operands(task)
    if product is not None:
        letters = list(range(len(task.extents)))
        left, right = (np.broadcast_to(values[i], _dense(task, i)) for i in product)
        subs = [[a for a in letters if task.operands[i].strides[a]] for i in product]
        squeezed = [_squeeze(array, sub, letters) for array, sub in zip((left, right), subs, strict=True)]
        out = np.einsum(squeezed[0], subs[0], squeezed[1], subs[1], kept, optimize=True)
        shape = tuple(task.extents[a] if a in kept else 1 for a in letters)
        _put(task, out.reshape(shape), view)
        return
    if task.points > CHUNK_POINTS and kept and task.extents[kept[0]] > 1:
        pieces = [_reduced(task, _slice(values, kept[0], i), gone, kept[0], i) for i in range(task.extents[kept[0]])]
        _put(task, np.concatenate(pieces, axis=kept[0]), view)
        return
    _put(task, _reduced(task, values, gone, -1, 0), view)


def _dense(task: HostTask, number: int) -> tuple[int, ...]:
    strides = task.operands[number].strides
    return tuple(extent if stride else 1 for extent, stride in zip(task.extents, strides, strict=True))


def _squeeze(array: Array, keep: list[int], letters: list[int]) -> Array:
    return array.reshape([array.shape[a] for a in letters if a in keep])


def _product_operands(task: HostTask) -> tuple[int, int] | None:
    """Operand numbers where the nest is a sum of products of two f32 operands that together span all reduced axes."""
    if task.op != "sum" or len(task.entries) != 3 or task.entries[2].op != "mul" or task.entries[2].dtype != "f32":
        return None
    if [entry.op for entry in task.entries[:2]] != ["arg", "arg"] or {task.entries[2].a, task.entries[2].b} != {0, 1}:
        return None
    numbers = task.entries[0].a, task.entries[1].a
    if any(task.operands[i].dtype != "f32" or task.operands[i].lookups for i in numbers) or len(task.extents) > 20:
        return None
    spanned = [any(task.operands[i].strides[a] for i in numbers) for a in range(len(task.extents))]
    return numbers if all(s or task.extents[a] == 1 for a, s in enumerate(spanned)) else None


def _slice(values: list[Array], axis: int, index: int) -> list[Array]:
    return [v if v.ndim <= axis or v.shape[axis] == 1 else np.take(v, [index], axis=axis) for v in values]


def _reduced(task: HostTask, values: list[Array], gone: list[int], chunk_axis: int, index: int) -> Array:
    axes = _axes(task)
    extents = list(task.extents)
    if chunk_axis >= 0:
        axes[chunk_axis] = np.full_like(axes[chunk_axis][:1], index)
        extents[chunk_axis] = 1
    root = np.broadcast_to(evaluate(task.entries, values, axes), extents)
    where = tuple(gone)
    dtype = task.entries[-1].dtype
    if task.op in ("argmax", "argmin"):
        moved = np.moveaxis(root, where, range(root.ndim - len(gone), root.ndim))
        flat = moved.reshape(*moved.shape[: root.ndim - len(gone)], -1)
        found: Array = np.asarray(np.argmax(flat, axis=-1) if task.op == "argmax" else np.argmin(flat, axis=-1))
        return found.reshape([1 if a in gone else extents[a] for a in range(root.ndim)])
    if task.op in ("sum", "prod"):
        wide = {"f64": np.float64, "f32": np.float32, "f16": np.float32, "bf16": np.float32}.get(dtype, np.int64)
        total = np.add if task.op == "sum" else np.multiply
        out: Array = np.asarray(total.reduce(root, axis=where, dtype=wide, keepdims=True))
        return settle(out, dtype) if dtype in FLOATS else out
    function = {"max": np.maximum, "min": np.minimum, "any": np.logical_or, "all": np.logical_and}[task.op]
    return np.asarray(function.reduce(root, axis=where, keepdims=True))


def _scatter(task: HostTask, values: list[Array], view: View) -> None:
    result = task.operands[0]
    data = np.broadcast_to(evaluate(task.entries, values, _axes(task)), task.extents)
    position: Array = np.zeros((1,) * len(task.extents), dtype=np.int64)
    for axis, line in enumerate(_axes(task)):
        position = position + line * result.strides[axis]
    for index, stride, limit in result.lookups:
        value = values[index].astype(np.int64)
        if value.size and (int(value.min()) < 0 or int(value.max()) >= limit):
            raise HostError("CGLA-036", f"a looked-up index lies outside 0..{limit - 1}")
        position = position + value * stride
    where = np.broadcast_to(position, task.extents).ravel()
    raw = view(result.symbol)
    stored = "u2" if result.dtype == "bf16" else {"f16": "f2", "bool": "u1"}.get(result.dtype) or _numpy(result.dtype)
    whole = raw[result.offset : result.offset + (raw.size - result.offset) // result.item * result.item].view(stored)
    if task.op == "set":
        whole[where] = narrow(data, result.dtype).ravel()
        return
    touched, inverse = np.unique(where, return_inverse=True)
    total = widen(whole[touched], result.dtype).copy()
    function = {"add": np.add, "max": np.maximum, "min": np.minimum}[task.op]
    function.at(total, inverse, data.ravel().astype(total.dtype))
    whole[touched] = narrow(total, result.dtype)


def _sort(task: HostTask, values: list[Array], view: View) -> None:
    data = np.broadcast_to(values[1], task.extents)
    if task.flag:
        backwards = np.flip(data, axis=task.axis)
        order = task.extents[task.axis] - 1 - np.flip(np.argsort(backwards, axis=task.axis, kind="stable"), axis=task.axis)
    else:
        order = np.argsort(data, axis=task.axis, kind="stable")
    _put(task, np.take(order, np.arange(task.count), axis=task.axis), view)


def _scan(task: HostTask, values: list[Array], view: View) -> None:
    inputs = [np.broadcast_to(value, task.extents) for value in values[1:3]]
    if task.flag:
        inputs = [np.flip(value, axis=task.axis) for value in inputs]
    if task.op == "linear":
        out = _linear(task, inputs, values[3] if len(values) > 3 else None)
    else:
        function = {"add": np.add, "mul": np.multiply, "max": np.maximum, "min": np.minimum}[task.op]
        with np.errstate(all="ignore"):
            out = function.accumulate(inputs[0], axis=task.axis)
    _put(task, np.flip(out, axis=task.axis) if task.flag else out, view)


def _linear(task: HostTask, inputs: list[Array], initial: Array | None) -> Array:
    factor, addend = (np.moveaxis(value, task.axis, 0) for value in inputs)
    state: Array = np.zeros(addend.shape[1:], dtype=addend.dtype)
    if initial is not None:
        state = np.broadcast_to(np.moveaxis(initial, task.axis, 0)[0], addend.shape[1:])
    out = np.empty_like(addend)
    for step in range(addend.shape[0]):
        state = factor[step] * state + addend[step]
        out[step] = state
    return np.moveaxis(out, 0, task.axis)
