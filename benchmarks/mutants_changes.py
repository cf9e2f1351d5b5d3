"""Random changes of compiled programs, for `mutants.py`: one field of one row, an integer of a binding, a dropped or a duplicated row.

Fields are drawn by category (cycle, address, stride, ...), so that rare kinds are hit as often as common ones.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from spatialc.machines.program import Program, Segment, Table

NAMES_ONLY = frozenset({"provenance", "prov", "label"})
"""Columns that say where a row comes from and mean nothing to the machine."""

CATEGORIES: dict[str, dict[str, str]] = {
    "tsp": {
        "bursts": "t0=cycle i=cycle i2=cycle unit=unit opcode=opcode n=count n2=count row=address object=address row0=address "
        "entry=address stride=stride stride2=stride entry_stride=stride entry_stride2=stride a_stream=stream b_stream=stream "
        "m_stream=stream "
        "a_dir=stream b_dir=stream m_dir=stream dtype=format dtype2=format half=format amount=stride link=unit *=flag",
        "claims": "stream=stream direction=stream until=claim burst=claim",
        "objects": "rows=count *=unit",
        "instances": "offset=cycle *=unit",
        "binds": "row=address *=bind",
        "allocations": "row=address bank=address rows=count kind=bind *=unit",
        "placements": "*=bind",
        "links": "*=unit",
    },
    "cgla": {
        "slots": "kernel=unit row=unit col=unit op1=opcode op2=opcode op3=opcode mode=opcode ea0=opcode ea1=opcode ea0_base=address "
        "ea1_base=address ea0_offset=address ea1_offset=address ea0_mask=address ea1_mask=address br_base=address br_offset=address "
        "lmm=address self=flag init=flag fold=flag *=operand",
        "registers": "value=address *=unit",
        "descriptors": "top=address bottom=address *=flag",
        "buffers": "address=address bytes=count *=bind",
        "instances": "cycle=cycle segment=unit",
        "binds": "offset=address *=bind",
        "symbols": "bytes=count",
        "entry": "*=unit",
        "phases": "start=cycle length=cycle *=unit",
        "launches": "start=cycle length=cycle *=unit",
        "dmas": "start=cycle length=cycle iv_num=cycle iv_den=cycle offset=address lmm=address index_offset=address bytes=count "
        "index_stride=stride index_limit=count index_bytes=format direction=opcode *=unit",
        "host_tasks": "start=cycle length=cycle kind=opcode op=opcode core=unit axis=operand flag=flag *=count",
        "host_axes": "*=count",
        "host_operands": "offset=address dtype=format symbol=address",
        "host_terms": "stride=stride *=operand",
        "host_lookups": "stride=stride limit=count *=operand",
        "host_exprs": "op=opcode dtype=format real=value integer=value *=operand",
    },
    "wafer": {
        "bursts": "t0=cycle ty=cycle tx=cycle vy=cycle vx=cycle dense=cycle span=cycle op=opcode fmt=format trigger=trigger after=trigger "
        "lag=trigger rows=unit cols=unit region=unit loop=trigger id=trigger imm=value ext=count cin=colour cout=colour "
        "qin=queue qout=queue "
        "q=queue mt=queue control=flag look=address *=address",
        "regions": "first=cycle last=cycle *=unit",
        "objects": "word=address ext=count stride=stride fmt=format *=bind",
        "routes": "colour=colour since=cycle *=route",
        "loops": "rep=count period=cycle first=cycle *=trigger",
        "pool": "*=cycle",
        "instances": "start=cycle *=unit",
        "binds": "word=address *=bind",
        "placements": "*=placement",
        "streams": "*=cycle",
    },
}
"""Category of each field by table; `*` stands for the rest. Names with a suffix _stride or _step of the wafer's operands are strides."""


@dataclass(frozen=True)
class Place:
    """One table of a program: `segment` is the position of its segment, -1 for the program's own tables."""

    segment: int
    table: str


@dataclass(frozen=True)
class Mutant:
    """A changed program and what was changed. `columns` is empty for dropped and duplicated rows and bindings."""

    program: Program
    category: str
    place: Place
    row: int
    column: str
    what: str


def rows_of(table: Table) -> int:
    return len(next(iter(table.values()), ()))


def tables_of(program: Program) -> dict[Place, Table]:
    """Every table with rows, in a fixed order."""
    found = {Place(-1, name): table for name, table in sorted(program.tables.items())}
    for number, segment in enumerate(program.segments):
        found |= {Place(number, name): table for name, table in sorted(segment.tables.items())}
    return {place: table for place, table in found.items() if rows_of(table)}


def with_table(program: Program, place: Place, table: Table) -> Program:
    """The program with one table replaced."""
    if place.segment < 0:
        return program.with_tables(**{place.table: table})
    segments = list(program.segments)
    old = segments[place.segment]
    segments[place.segment] = Segment(old.name, {**old.tables, place.table: table})
    return replace(program, segments=tuple(segments))


def category_of(target: str, table: str, column: str) -> str:
    """The category of one field."""
    known = dict(item.split("=") for item in CATEGORIES[target][table].split())
    if target == "wafer" and table == "bursts" and column not in known:
        return "stride" if column.endswith(("_stride", "_step", "_wrap")) else "operand" if column.endswith("_kind") else "address"
    return known[column] if column in known else known["*"]


def fields_of(program: Program) -> dict[str, list[tuple[Place, str]]]:
    """Category to the fields that belong to it."""
    found: dict[str, list[tuple[Place, str]]] = {}
    for place, table in tables_of(program).items():
        for column in sorted(table):
            if column not in NAMES_ONLY:
                found.setdefault(category_of(program.target, place.table, column), []).append((place, column))
    for kind in ("dropped row", "duplicated row"):
        found[kind] = [(place, "") for place in tables_of(program)]
    for kind in ("dropped burst", "duplicated burst"):
        found[kind] = [(place, "") for place in tables_of(program) if place.table in BURST_TABLES[program.target]]
    found["binding"] = [(Place(-1, "bindings"), "")]
    return found


BURST_TABLES = {"tsp": ("bursts",), "cgla": ("phases", "launches", "dmas", "host_tasks", "slots"), "wafer": ("bursts",)}


def mutate(program: Program, generator: np.random.Generator) -> Mutant:
    """One random change; the category first, then a table by the square root of its size, a field, a row and a value."""
    fields = fields_of(program)
    categories = sorted(fields)
    while True:
        category = categories[int(generator.integers(len(categories)))]
        choices = fields[category]
        tables = tables_of(program)
        if category == "binding":
            return _rebind(program, generator)
        weights = np.sqrt([rows_of(tables[place]) for place, _ in choices])
        place, column = choices[int(generator.choice(len(choices), p=weights / weights.sum()))]
        row = _row(tables[place], column, generator)
        where = f"{program.segments[place.segment].name if place.segment >= 0 else 'program'}.{place.table}[{row}]"
        if category.startswith(("dropped", "duplicated")):
            change = {"dropped row": drop_row, "duplicated row": duplicate_row, "dropped burst": drop_burst}.get(category, duplicate_burst)
            return Mutant(change(program, place, row), category, place, row, "", f"{category} {where}")
        array = tables[place][column].copy()
        index = (row, *(int(generator.integers(n)) for n in array.shape[1:]))
        before = array[index].copy()
        array[index] = other_value(before, array, generator)
        if array[index] != before:
            what = f"{where}.{column}{list(index[1:]) or ''}: {before} -> {array[index]}"
            return Mutant(with_table(program, place, {**tables[place], column: array}), category, place, row, column, what)


def _row(table: Table, column: str, generator: np.random.Generator) -> int:
    """A row; mostly one in which the field is in use, since a change of an unused field is found by its canonical form alone."""
    if column and generator.random() < 0.75:
        array = table[column].reshape(rows_of(table), -1)
        used = np.flatnonzero(((array != 0) & (array != -1)).any(1))
        if len(used):
            return int(used[int(generator.integers(len(used)))])
    return int(generator.integers(rows_of(table)))


def other_value(before: np.generic, array: np.ndarray, generator: np.random.Generator) -> Any:
    """A different value of the column's type: another value that the column holds, a small step, a flipped bit or an extreme."""
    if array.dtype.kind == "f":
        return float(before) * 2 + 1
    info = np.iinfo(array.dtype)
    choice = generator.random()
    others = np.unique(array[array != before])
    if choice < 0.35 and len(others):
        return others[int(generator.integers(len(others)))]
    if choice < 0.45:
        value = int(before) ^ 1 << int(generator.integers(min(8 * array.itemsize - 1, 40)))
    elif choice < 0.48:
        value = int(generator.choice([0, -1, info.max]))
    else:
        value = int(before) + int(generator.choice([1, -1, 1, -1, 2, -2, 4, -4, 8, -8, 16, -16, 32, 64]))
    return value if info.min <= value <= info.max else before


def drop_row(program: Program, place: Place, row: int) -> Program:
    """The program without one row."""
    table = tables_of(program)[place]
    return with_table(program, place, {name: np.delete(array, row, 0) for name, array in table.items()})


def duplicate_row(program: Program, place: Place, row: int) -> Program:
    """The program with one row twice, one after the other."""
    table = tables_of(program)[place]
    return with_table(program, place, {name: np.insert(array, row, array[row], 0) for name, array in table.items()})


def drop_burst(program: Program, place: Place, row: int) -> Program:
    """The program without one burst: what refers to it forgets it, so that only its work is missing."""
    table = tables_of(program)[place]
    dropped = drop_row(program, place, row)
    if program.target == "tsp":
        claims = program.segments[place.segment].tables["claims"]
        mine = claims["burst"] != row
        rest = {name: array[mine] for name, array in claims.items()}
        rest["burst"] = rest["burst"] - (rest["burst"] > row).astype(np.int32)
        return with_table(dropped, Place(place.segment, "claims"), rest)
    if program.target == "wafer":
        kept = dict(tables_of(dropped).get(place, {}))
        if kept:
            kept["after"], kept["lag"] = _without(kept["after"], kept["lag"], int(table["id"][row]))
            return with_table(dropped, place, kept)
    return dropped


def _without(after: np.ndarray, lag: np.ndarray, number: int) -> tuple[np.ndarray, np.ndarray]:
    """The predecessor lists without one burst, unused places at the end."""
    after, lag = after.copy(), lag.copy()
    for row in np.flatnonzero((after == number).any(1)):
        kept = [(a, k) for a, k in zip(after[row], lag[row], strict=True) if a not in (number, -1)]
        after[row], lag[row] = -1, 0
        for place, (a, k) in enumerate(kept):
            after[row, place], lag[row, place] = a, k
    return after, lag


def duplicate_burst(program: Program, place: Place, row: int) -> Program:
    """The program with one burst twice, with its claims, under a number of its own."""
    if program.target == "cgla":
        return duplicate_row(program, place, row)
    table = tables_of(program)[place]
    if program.target == "wafer":
        copied = {name: np.insert(array, row + 1, array[row], 0) for name, array in table.items()}
        copied["id"][row + 1] = table["id"].max() + 1
        order = np.lexsort((copied["id"], copied["t0"], copied["region"]))
        return with_table(program, place, {name: array[order] for name, array in copied.items()})
    claims = program.segments[place.segment].tables["claims"]
    mine = np.flatnonzero(claims["burst"] == row)
    copies = {name: np.append(array, array[mine], axis=0) for name, array in claims.items()}
    copies["burst"][len(claims["burst"]) :] = rows_of(table)
    more = {name: np.append(array, array[row : row + 1], axis=0) for name, array in table.items()}
    return with_table(with_table(program, place, more), Place(place.segment, "claims"), copies)


def _rebind(program: Program, generator: np.random.Generator) -> Mutant:
    """One integer in one binding's regions changed."""
    bindings = list(program.bindings)
    while True:
        number = int(generator.integers(len(bindings)))
        where = copy.deepcopy(bindings[number].where)
        leaves = list(_leaves(where))
        if not leaves:
            number_of = {"binding": number}
            # the machine names the binding from its own tables: exchange it with another, or change its extent
            shape = bindings[number].shape
            if not shape:
                continue
            axis = int(generator.integers(len(shape)))
            new = tuple(n + (1 if k == axis else 0) for k, n in enumerate(shape))
            bindings[number] = replace(bindings[number], shape=new)
            what = f"bindings[{number_of['binding']}].shape: {shape} -> {new}"
        else:
            parent, key = leaves[int(generator.integers(len(leaves)))]
            before = parent[key]
            parent[key] = not before if isinstance(before, bool) else before + int(generator.choice([1, -1, 2, -2, 4, 32]))
            bindings[number] = replace(bindings[number], where=where)
            what = f"bindings[{number}] {bindings[number].name} {key}: {before} -> {parent[key]}"
        return Mutant(replace(program, bindings=tuple(bindings)), "binding", Place(-1, "bindings"), number, "where", what)


def _leaves(value: Any) -> list[tuple[Any, Any]]:
    """(container, key) of every number in JSON values."""
    found: list[tuple[Any, Any]] = []
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in items:
        found += [(value, key)] if isinstance(inner, (int, bool)) else _leaves(inner)
    return found
