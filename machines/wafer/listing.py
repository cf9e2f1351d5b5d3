"""The text listing of a wafer program: one line a burst, ordered by cycle; with the images beside it, it parses back to the same program.

    wafer listing 1
    head {"bindings": [...], "machine": {...}, ...}
    instances segment=0 x=4 y=0 start=0
    segment chain
    region w=4 h=2 last=26
    object word=7680 fmt=F32 ext=[1,1,1,8] stride=[0,0,0,1] kind=INPUT
    route rows=[0,2,1] cols=[0,3,2] rx=RAMP tx=E
    pool 0: 0 1 2 3
             6 burst id=1 rows=[0,2,1] cols=[1,2,1] op=ADD fmt=F32 trigger=ARRIVE span=8 d_kind=FABRIC a_kind=FABRIC ...

Fields at their defaults are left out. The text names enum members where the tables have numbers; everything else is the tables' own value.
"""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Iterable, Mapping
from enum import IntEnum
from typing import Any

import numpy as np

from ...errors import BadInput
from ..program import Binding, Column, Program, Segment, Table, TableType
from .isa import Element, Fmt, Op
from .tables import (
    BURSTS,
    LOOPS,
    OBJECTS,
    PROGRAM_TABLES,
    REGIONS,
    ROUTES,
    SEGMENT_TABLES,
    ObjectKind,
    OperandKind,
    Port,
    Trigger,
)

_ENUMS: dict[tuple[str, str], type[IntEnum]] = {
    ("objects", "fmt"): Element, ("objects", "kind"): ObjectKind, ("routes", "rx"): Port, ("bursts", "op"): Op, ("bursts", "fmt"): Fmt,
    ("bursts", "trigger"): Trigger, **{("bursts", f"{p}_kind"): OperandKind for p in "dabs"},
}  # fmt: skip
_WORDS = {"regions": "region", "objects": "object", "routes": "route", "loops": "loop", "bursts": "burst"}
_TYPES = {kind.name: kind for kind in (REGIONS, OBJECTS, ROUTES, LOOPS, BURSTS)}
_FIELD = re.compile(r"(\w+)=(\S+)")


HEADER = "wafer listing 1"


def listing(program: Program) -> str:
    """The text of a program: its head, its own tables, then every segment with bursts ordered by cycle."""
    head = {
        "machine": program.machine, "bindings": [binding.to_json() for binding in program.bindings], "meta": program.meta,
        "bound": program.bound, "provenance": list(program.provenance), "predicted_cycles": program.predicted_cycles,
    }  # fmt: skip
    lines = [HEADER, f"head {json.dumps(head, sort_keys=True)}"]
    for kind in PROGRAM_TABLES:
        lines += [f"{kind.name} {_fields(kind, row)}" for row in _rows(program.tables[kind.name])]
    return "\n".join([*lines, *(segment_listing(segment) for segment in program.segments)])


def parse(text: str, images: Mapping[str, np.ndarray] | None = None) -> Program:
    """The program of a listing, with the given image arrays. Raises BadInput naming the line that is wrong."""
    lines = text.splitlines()
    if lines[:1] != [HEADER]:
        raise BadInput(f"a wafer listing starts with {HEADER!r}")
    first = next((n for n, line in enumerate(lines) if line.startswith("segment ")), len(lines))
    kinds = {kind.name: kind for kind in PROGRAM_TABLES}
    rows: dict[str, list[dict[str, Any]]] = {name: [] for name in kinds}
    head: dict[str, Any] = {}
    for number, line in enumerate(lines[1:first], 2):
        word, _, rest = line.partition(" ")
        try:
            if word == "head":
                head = json.loads(rest)
            else:
                rows[word].append(_parsed(kinds[word], rest))
        except (KeyError, ValueError, SyntaxError) as error:
            raise BadInput(f"line {number} of the listing is no row of a wafer program: {line[:80]!r} ({error})") from error
    try:
        return Program(
            "wafer", head["machine"], tuple(Binding.from_json(item) for item in head["bindings"]),
            {name: kinds[name].from_rows(items) for name, items in rows.items()},
            tuple(parse_segments("\n" * first + "\n".join(lines[first:]))), dict(images or {}), int(head["predicted_cycles"]),
            head["bound"], tuple(head["provenance"]), head["meta"],
        )  # fmt: skip
    except (KeyError, TypeError) as error:
        raise BadInput(f"the listing lacks {error}") from error


def segment_listing(segment: Segment) -> str:
    """One segment as text."""
    lines = [f"segment {segment.name}"]
    for name in ("regions", "objects", "routes", "loops"):
        lines += [f"{_WORDS[name]} {_fields(_TYPES[name], row)}" for row in _rows(segment.tables[name])]
    pool = segment.tables["pool"]
    vectors = np.unique(pool["vector"]).tolist()
    lines += [f"pool {v}: {' '.join(map(str, pool['value'][pool['vector'] == v].tolist()))}" for v in vectors]
    bursts = list(enumerate(_rows(segment.tables["bursts"])))
    for _, row in sorted(bursts, key=lambda item: (item[1]["t0"], item[1]["region"], item[1]["id"])):
        lines.append(f"{row['t0']:>10} burst {_fields(BURSTS, {k: v for k, v in row.items() if k != 't0'})}")
    return "\n".join(lines) + "\n"


def parse_segments(text: str) -> list[Segment]:
    """The segments of a listing. Raises BadInput naming the line that is wrong."""
    segments: list[Segment] = []
    rows: dict[str, list[dict[str, Any]]] = {}
    name = ""
    for number, line in enumerate(text.splitlines(), 1):
        words = line.split(maxsplit=1)
        if not words:
            continue
        if words[0] == "segment":
            if name:
                segments.append(_segment(name, rows))
            name, rows = words[1].strip(), {kind.name: [] for kind in SEGMENT_TABLES}
            continue
        try:
            _line(words[0], words[1] if len(words) > 1 else "", rows)
        except (KeyError, ValueError, SyntaxError, IndexError) as error:
            raise BadInput(f"line {number} of the listing is no row of a wafer segment: {line.strip()!r} ({error})") from error
    return [*segments, _segment(name, rows)] if name else segments


def _line(word: str, rest: str, rows: dict[str, list[dict[str, Any]]]) -> None:
    if word == "pool":
        vector, values = rest.split(":")
        rows["pool"] += [{"vector": int(vector), "value": int(v)} for v in values.split()]
        return
    if word.lstrip("-").isdigit():
        kind, fields = rest.split(maxsplit=1)
        if kind != "burst":
            raise ValueError(f"{kind!r} after a cycle")
        rows["bursts"].append({"t0": int(word), **_parsed(BURSTS, fields)})
        return
    table = {w: t for t, w in _WORDS.items() if t != "bursts"}[word]
    rows[table].append(_parsed(_TYPES[table], rest))


def _segment(name: str, rows: Mapping[str, list[dict[str, Any]]]) -> Segment:
    ordered = {**rows, "bursts": sorted(rows["bursts"], key=lambda r: (r.get("region", 0), r["t0"], r.get("id", 0)))}
    tables: dict[str, Table] = {kind.name: kind.from_rows(ordered[kind.name]) for kind in SEGMENT_TABLES}
    return Segment(name, tables)


def _rows(table: Table) -> Iterable[dict[str, Any]]:
    columns = {name: array.tolist() for name, array in table.items()}
    return (dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True))


def _fields(kind: TableType, row: Mapping[str, Any]) -> str:
    """Fields that are not at their defaults, in the order of the table's columns."""
    shown = [c for c in kind.columns if c.name in row and row[c.name] != _default(c)]
    return " ".join(f"{c.name}={_shown(kind.name, c, row[c.name])}" for c in shown)


def _default(column: Column) -> Any:
    return np.full(column.inner, column.default, column.dtype).tolist()


def _shown(table: str, column: Column, value: Any) -> str:
    enum = _ENUMS.get((table, column.name))
    if enum is not None and value in list(enum):
        return enum(value).name
    if (table, column.name) == ("routes", "tx") and 0 < value < 32:
        return "+".join(port.name for port in Port if value >> port & 1)
    if column.dtype == "float64":
        return float(value).hex()
    return str(value).replace(" ", "")


def _parsed(kind: TableType, text: str) -> dict[str, Any]:
    columns = {column.name: column for column in kind.columns}
    found: dict[str, Any] = {}
    for name, value in _FIELD.findall(text):
        column = columns[name]
        enum = _ENUMS.get((kind.name, name))
        if enum is not None and value in enum.__members__:
            found[name] = int(enum[value])
        elif (kind.name, name) == ("routes", "tx") and not value.isdigit():
            found[name] = sum(1 << Port[port] for port in value.split("+"))
        elif column.dtype == "float64":
            found[name] = float.fromhex(value)
        else:
            found[name] = ast.literal_eval(value)
    if not re.fullmatch(r"(\s*\w+=\S+)*\s*", text):
        raise ValueError("text between fields")
    return found
