"""The text listing of a CGLA program: one line a row, timed rows ordered by cycle; it parses back to the same program.

A line is `table#row field=value ...`; fields at their default are left out, codes are written as mnemonics. Timed rows (phases,
launches, DMAs, host tasks) start with `@cycle`. Weights are not text: the listing names each image with its shape and sha256, and
`parse` takes the arrays.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from ...errors import BadInput
from ..program import Binding, Program, Segment, Table, TableType
from . import tables as t
from .isa import EXPAND, MASK, MEMORY, OP1, OP2, OP3, Address, BrInput, Register, Source, StoreData

HEADER = "cgla listing 1"
TIMED = ("phases", "launches", "dmas", "host_tasks")


def _names(members: Sequence[Any]) -> tuple[str, ...]:
    return tuple(member if isinstance(member, str) else member.name for member in members)


_MNEMONICS: dict[str, dict[str, tuple[str, ...]]] = {
    "slots": {
        "op1": _names(OP1), "op2": _names(OP2), "op3": OP3, "ea0": _names(MEMORY), "ea1": _names(MEMORY), "src4": _names(list(Source)),
        "src5": _names(list(Source)), "store": _names(list(StoreData)), **{f"expand{i}": EXPAND for i in (1, 2, 3)},
        **{f"ea{ea}_mask": MASK for ea in (0, 1)}, **{f"br{k}": _names(list(BrInput)) for k in range(4)},
        **{f"ea{ea}_{part}": _names(list(Address)) for ea in (0, 1) for part in ("base", "offset")},
    },
    "registers": {"register": _names(list(Register))},
    "buffers": {"kind": _names(list(t.BufferKind))},
    "phases": {"kind": _names(list(t.Phase))},
    "dmas": {"direction": _names(list(t.Direction))},
    "host_tasks": {"kind": _names(list(t.HostKind))},
    "host_operands": {"dtype": t.HOST_DTYPES},
    "host_exprs": {"op": t.EXPR_OPS, "dtype": t.HOST_DTYPES},
}  # fmt: skip


def listing(program: Program) -> str:
    """The text of a program."""
    head = {
        "machine": program.machine, "bindings": [binding.to_json() for binding in program.bindings], "meta": program.meta,
        "bound": program.bound, "provenance": list(program.provenance), "predicted_cycles": program.predicted_cycles,
    }  # fmt: skip
    lines = [HEADER]
    lines += [f"{name} {json.dumps(value, sort_keys=True, separators=(',', ':'))}" for name, value in head.items()]
    for name, image in sorted(program.images.items()):
        digest = hashlib.sha256(np.ascontiguousarray(image).tobytes()).hexdigest()
        lines.append(f"image {name} {image.dtype}{list(image.shape)} sha256={digest}".replace(", ", ","))
    for kind in t.PROGRAM_TABLES:
        lines += _rows(kind, program.tables[kind.name])
    for segment in program.segments:
        lines.append(f"segment {json.dumps(segment.name)}")
        timed: list[tuple[int, int, int, str]] = []
        for order, kind in enumerate(t.SEGMENT_TABLES):
            rows = list(_rows(kind, segment.tables[kind.name]))
            if kind.name in TIMED:
                starts = segment.tables[kind.name]["start"].tolist()
                timed += [(start, order, index, f"@{start} {row}") for index, (start, row) in enumerate(zip(starts, rows, strict=True))]
            else:
                lines += rows
        lines += [line for *_, line in sorted(timed)]
    return "\n".join(lines) + "\n"


def _rows(kind: TableType, table: Table) -> Iterator[str]:
    columns = {column.name: table[column.name].tolist() for column in kind.columns}
    names = _MNEMONICS.get(kind.name, {})
    size = len(next(iter(columns.values())))
    for index in range(size):
        fields = [
            f"{column.name}={_text(columns[column.name][index], names.get(column.name))}"
            for column in kind.columns
            if columns[column.name][index] != column.default and not (kind.name in TIMED and column.name == "start")
        ]
        yield " ".join([f"{kind.name}#{index}", *fields])


def _text(value: float, names: tuple[str, ...] | None) -> str:
    if names is not None and 0 <= value < len(names):
        return names[int(value)]
    return repr(value)


def parse(text: str, images: Mapping[str, np.ndarray] | None = None) -> Program:
    """The program of a listing, with the given image arrays. Raises BadInput that names the line."""
    lines = text.splitlines()
    if not lines or lines[0] != HEADER:
        raise BadInput(f"a CGLA listing starts with {HEADER!r}")
    head: dict[str, Any] = {}
    kinds = {kind.name: kind for kind in (*t.PROGRAM_TABLES, *t.SEGMENT_TABLES)}
    parts: list[tuple[str, dict[str, dict[int, dict[str, Any]]]]] = [("", {})]
    for number, line in enumerate(lines[1:], start=2):
        word, _, rest = line.partition(" ")
        try:
            if word.startswith("@"):
                name, index, row = _line(rest, kinds)
                row["start"] = int(word[1:])
                parts[-1][1].setdefault(name, {})[index] = row
            elif word == "segment":
                parts.append((json.loads(rest), {}))
            elif "#" in word:
                name, index, row = _line(line, kinds)
                parts[-1][1].setdefault(name, {})[index] = row
            elif word != "image":
                head[word] = json.loads(rest)
        except (ValueError, KeyError, IndexError) as error:
            raise BadInput(f"line {number} of the listing is not valid ({error}): {line[:80]}") from error
    try:
        bindings = tuple(Binding.from_json(item) for item in head["bindings"])
        return Program(
            "cgla", head["machine"], bindings, _tables(t.PROGRAM_TABLES, parts[0][1]),
            tuple(Segment(name, _tables(t.SEGMENT_TABLES, rows)) for name, rows in parts[1:]), dict(images or {}),
            int(head["predicted_cycles"]), head["bound"], tuple(head["provenance"]), head["meta"],
        )  # fmt: skip
    except (KeyError, TypeError) as error:
        raise BadInput(f"the listing lacks {error}") from error


def _line(text: str, kinds: Mapping[str, TableType]) -> tuple[str, int, dict[str, Any]]:
    place, *fields = text.split()
    name, _, index = place.partition("#")
    types = {column.name: column.dtype for column in kinds[name].columns}
    row: dict[str, Any] = {}
    for field in fields:
        column, _, value = field.partition("=")
        row[column] = _value(value, types[column], _MNEMONICS.get(name, {}).get(column))
    return name, int(index), row


def _value(text: str, dtype: str, names: tuple[str, ...] | None) -> float | int:
    if names is not None and text in names:
        return names.index(text)
    return float(text) if dtype.startswith("float") else int(text)


def _tables(kinds: Sequence[TableType], rows: Mapping[str, Mapping[int, Mapping[str, Any]]]) -> dict[str, dict[str, np.ndarray]]:
    result = {}
    for kind in kinds:
        given = rows.get(kind.name, {})
        if sorted(given) != list(range(len(given))):
            raise BadInput(f"the listing misses rows of table {kind.name}")
        result[kind.name] = kind.from_rows([given[index] for index in range(len(given))])
    return result
