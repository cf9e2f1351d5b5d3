"""A TSP program as text: one line a burst, ordered by cycle, that parses back to the same program.

Each segment prints its objects, then its bursts:

    @18 MXM2.W LW #32 a=0E n=20
    @106 ALU0 ADD #44 a=0W b=4W dtype=F32 -> 8E<33 9E<33 10E<33 11E<33 ; layers.0.mlp

`@t0`, unit, opcode, `#row`, fields that differ from their default, `-> stream direction < until` for every claim, `; provenance`.
Program tables and header are lines of JSON. Images are named with shape and sha256; `parse` takes their arrays beside the text.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from itertools import pairwise
from typing import Any

import numpy as np

from ...errors import BadInput
from ..program import Binding, Program, Segment, Table, TableType
from . import isa
from .isa import DType, Opcode
from .tables import BURSTS, CLAIMS, OBJECTS, PROGRAM_TABLES

_OPERANDS = (("a", "a_stream", "a_dir"), ("b", "b_stream", "b_dir"), ("m", "m_stream", "m_dir"))
_PLAIN = [
    c
    for c in BURSTS.columns
    if c.name not in ("unit", "opcode", "t0", "provenance", "a_stream", "a_dir", "b_stream", "b_dir", "m_stream", "m_dir")
]
_UNITS = {isa.unit_name(unit): unit for unit in range(isa.QUEUES)}
_LINE = re.compile(r"@(-?\d+) (\S+) (\S+) #(\d+)((?: [a-z_0-9]+=\S+)*)(?: ->((?: \d+[WE]<-?\d+(?:!\d+)?)+))?(?: ; (.*))?")
_CLAIM = re.compile(r"(\d+)([WE])<(-?\d+)(?:!(\d+))?")
_DIRECTIONS = {"W": 0, "E": 1}


def listing(program: Program) -> str:
    """The program as text."""
    header = {
        "machine": dict(program.machine), "predicted_cycles": program.predicted_cycles, "bound": dict(program.bound),
        "meta": dict(program.meta), "provenance": list(program.provenance), "bindings": [binding.to_json() for binding in program.bindings],
    }  # fmt: skip
    lines = ["tsp listing 1", *(f"{key} {json.dumps(value, sort_keys=True)}" for key, value in header.items())]
    for name in sorted(program.images):
        image = program.images[name]
        digest = hashlib.sha256(np.ascontiguousarray(image).tobytes()).hexdigest()
        lines.append(f"image {json.dumps([name, str(image.dtype), list(image.shape), digest])}")
    for table in PROGRAM_TABLES:
        columns = program.tables[table.name]
        lines.append(f"table {table.name} {json.dumps({name: columns[name].tolist() for name in sorted(columns)})}")
    for segment in program.segments:
        lines.append(f"segment {json.dumps(segment.name)}")
        lines += _print_segment(segment, program.provenance)
    return "\n".join(lines) + "\n"


def _print_segment(segment: Segment, pool: tuple[str, ...]) -> Iterator[str]:
    objects = segment.tables["objects"]
    for row in range(len(objects["rows"])):
        yield f"object rows={objects['rows'][row]} west={int(objects['west'][row]):#x} east={int(objects['east'][row]):#x}"
    b = {name: column.tolist() for name, column in segment.tables["bursts"].items()}
    claims = _print_claims(segment.tables["claims"], len(b["unit"]))
    texts = {
        number: text for text, number in _sources(pool).items() if text == text.strip() and "\n" not in text and text[:1] not in ("", ":")
    }
    for row in sorted(range(len(b["unit"])), key=lambda r: (b["t0"][r], b["unit"][r], r)):
        yield _print_burst(b, row, claims[row], texts)


def _sources(pool: tuple[str, ...]) -> dict[str, int]:
    """First number of every text of the provenance pool."""
    return {text: number for number, text in reversed(list(enumerate(pool)))}


def _print_claims(claims: Table, size: int) -> list[list[str]]:
    """Claims of each burst; with their row number where they are not in the order of bursts."""
    texts: list[list[str]] = [[] for _ in range(size)]
    burst = claims["burst"].tolist()
    numbered = any(after < before for before, after in pairwise(burst))
    for number, (row, stream, direction, until) in enumerate(
        zip(burst, claims["stream"].tolist(), claims["direction"].tolist(), claims["until"].tolist(), strict=True)
    ):
        if not 0 <= row < size or direction not in (0, 1) or stream < 0:
            raise BadInput(f"claim {number} names a burst, stream or direction that is none; such a program cannot be listed")
        texts[row].append(f"{stream}{'WE'[direction]}<{until}" + (f"!{number}" if numbered else ""))
    return texts


def _print_burst(b: Mapping[str, list[int]], row: int, claims: list[str], pool: Mapping[int, str]) -> str:
    unit, code = b["unit"][row], b["opcode"][row]
    known = code in Opcode._value2member_map_
    parts = [
        f"@{b['t0'][row]}",
        isa.unit_name(unit) if 0 <= unit < isa.QUEUES else f"unit:{unit}",
        Opcode(code).name if known else f"op:{code}",
    ]
    parts.append(f"#{row}")
    for name, stream, direction in _OPERANDS:
        number, side = b[stream][row], b[direction][row]
        if number >= 0 and side in (0, 1):
            parts.append(f"{name}={number}{'WE'[side]}")
        elif number != -1 or side:
            parts.append(f"{name}={number},{side}")
    for column in _PLAIN:
        value = b[column.name][row]
        if value != column.default:
            typed = column.name in ("dtype", "dtype2") and value in DType._value2member_map_
            parts.append(f"{column.name}={DType(value).name if typed else value}")
    if claims:
        parts += ["->", *claims]
    source = b["provenance"][row]
    if source != -1:
        parts.append(f"; {pool.get(source, f':{source}')}")
    return " ".join(parts)


def parse(text: str, images: Mapping[str, np.ndarray] | None = None) -> Program:
    """The program of a listing, with the images given beside it. Raises BadInput naming the line that does not parse."""
    lines = text.removesuffix("\n").split("\n")
    if not lines or lines[0] != "tsp listing 1":
        raise BadInput("the text is not a tsp listing: its first line must be 'tsp listing 1'")
    header: dict[str, Any] = {}
    wanted: dict[str, list[Any]] = {}
    tables: dict[str, dict[str, np.ndarray]] = {}
    types = {table.name: table for table in PROGRAM_TABLES}
    segments: list[tuple[str, list[tuple[int, str]]]] = []
    for number, line in enumerate(lines[1:], 2):
        word, _, rest = line.partition(" ")
        try:
            if word == "segment":
                segments.append((json.loads(rest), []))
            elif segments:
                segments[-1][1].append((number, line))
            elif word == "table":
                name, _, columns = rest.partition(" ")
                tables[name] = _table(types[name], json.loads(columns))
            elif word == "image":
                name, *facts = json.loads(rest)
                wanted[name] = facts
            else:
                header[word] = json.loads(rest)
        except (ValueError, KeyError, TypeError) as error:
            raise BadInput(f"line {number} of the listing does not parse: {line[:80]!r}") from error
    given = _images(wanted, images or {})
    try:
        provenance = tuple(header["provenance"])
        return Program(
            "tsp", header["machine"], tuple(Binding.from_json(item) for item in header["bindings"]), tables,
            tuple(_parse_segment(name, body, provenance) for name, body in segments), given, header["predicted_cycles"], header["bound"],
            provenance, header["meta"],
        )  # fmt: skip
    except (KeyError, TypeError) as error:
        raise BadInput(f"the listing lacks or garbles a header line ({error})") from error


def _table(kind: TableType, columns: Mapping[str, list[int]]) -> dict[str, np.ndarray]:
    return {column.name: np.array(columns[column.name], dtype=column.dtype) for column in kind.columns}


def _images(wanted: Mapping[str, list[Any]], images: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    for name, (dtype, shape, digest) in wanted.items():
        if name not in images:
            raise BadInput(f"the listing needs {name}, {dtype}{shape}")
        image = np.ascontiguousarray(images[name])
        if str(image.dtype) != dtype or list(image.shape) != shape or hashlib.sha256(image.tobytes()).hexdigest() != digest:
            raise BadInput(f"{name} is not the image that the listing was printed with (sha256 {digest[:12]})")
    return {name: images[name] for name in wanted}


def _parse_segment(name: str, body: list[tuple[int, str]], provenance: tuple[str, ...]) -> Segment:
    objects, bursts, claims = [], [], []
    pool = _sources(provenance)
    for number, line in body:
        try:
            if line.startswith("object "):
                objects.append({key: int(value, 0) for key, _, value in (item.partition("=") for item in line.split()[1:])})
            else:
                row, columns, driven = _parse_burst(line, pool)
                bursts.append((row, columns))
                claims += [(at if at is not None else -1, row, *rest) for at, *rest in driven]
        except (ValueError, KeyError) as error:
            raise BadInput(f"line {number} of the listing is not a burst: {line[:80]!r}") from error
    bursts.sort(key=lambda item: item[0])
    if [row for row, _ in bursts] != list(range(len(bursts))):
        raise BadInput(f"the bursts of segment {name} are not numbered #0 to #{len(bursts) - 1}")
    claims.sort(key=lambda item: item[:2])
    driven_columns = {field: [claim[k + 1] for claim in claims] for k, field in enumerate(("burst", "stream", "direction", "until"))}
    return Segment(
        name,
        {
            "bursts": _columns(BURSTS, [columns for _, columns in bursts]),
            "claims": CLAIMS.from_columns(len(claims), **driven_columns),
            "objects": OBJECTS.from_rows(objects),
        },
    )  # fmt: skip


def _columns(kind: TableType, rows: list[dict[str, int]]) -> dict[str, np.ndarray]:
    return {c.name: np.array([row.get(c.name, c.default) for row in rows], dtype=c.dtype) for c in kind.columns}


def _parse_burst(line: str, pool: Mapping[str, int]) -> tuple[int, dict[str, int], list[tuple[int | None, int, int, int]]]:
    found = _LINE.fullmatch(line)
    if found is None:
        raise ValueError(line)
    time, unit, code, row, fields, driven, source = found.groups()
    columns = {
        "t0": int(time), "unit": int(unit[5:]) if unit.startswith("unit:") else _UNITS[unit],
        "opcode": int(code[3:]) if code.startswith("op:") else int(Opcode[code]),
    }  # fmt: skip
    names = {column.name for column in _PLAIN}
    for item in (fields or "").split():
        name, _, value = item.partition("=")
        operand = next((o for o in _OPERANDS if o[0] == name), None)
        if operand is not None:
            number, side = value.split(",") if "," in value else (value[:-1], str(_DIRECTIONS[value[-1]]))
            columns[operand[1]], columns[operand[2]] = int(number), int(side)
        elif name in names:
            columns[name] = int(DType[value]) if value in DType.__members__ else int(value)
        else:
            raise ValueError(f"unknown field {name}")
    if source is not None:
        columns["provenance"] = int(source[1:]) if source.startswith(":") else pool[source]
    claims = [
        (int(at) if at else None, int(stream), _DIRECTIONS[direction], int(until))
        for stream, direction, until, at in (c.groups() for c in _CLAIM.finditer(driven or ""))
    ]
    return int(row), columns, claims
