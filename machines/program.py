"""The program container: segments, instances, bursts and constant images in one `*.spx` file.

A program is what a backend emits and what the executor judges; nothing else passes between them. It is columnar: every table is a
mapping from column name to a numpy array, all of one length, whose `TableType` the machine declares in its `tables.py`. A *segment* is
a compiled and checked piece (one layer of a kind, say); the program-level table `instances` says where and when each segment runs and
`binds` what its symbolic objects (weights, inputs, state) are at that place.

The file is a zip without compression, with fixed dates and members in fixed order, so that equal programs are equal bytes:
`program.json` (everything but arrays, and the sha256 of every other member), `tables.safetensors`, `segments/NAME.safetensors`,
`images.safetensors` and `states.safetensors`. It is written aside and renamed. Nothing in it is executed and there is no pickle; a
truncated, altered or hostile file is a `BadInput`.
"""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
import zipfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import safetensors
import safetensors.numpy

from ..errors import BadInput

FORMAT_VERSION = 2
_EPOCH = (1980, 1, 1, 0, 0, 0)

Table = Mapping[str, np.ndarray]


@dataclass(frozen=True)
class Column:
    """One column of a table: numpy dtype, inner shape (`()` is a scalar a row) and what it means."""

    name: str
    dtype: str
    doc: str
    inner: tuple[int, ...] = ()
    default: int = 0


@dataclass(frozen=True)
class TableType:
    """The columns of one table. Tables are built from rows or columns and are always complete, typed and of one length."""

    name: str
    columns: tuple[Column, ...]

    def from_rows(self, rows: Iterable[Mapping[str, Any]]) -> dict[str, np.ndarray]:
        """A table from dictionaries; absent fields take the column's default. Raises BadInput for an unknown field."""
        rows = list(rows)
        known = {column.name for column in self.columns}
        for row in rows:
            if not row.keys() <= known:
                raise BadInput(f"table {self.name} has no column {sorted(row.keys() - known)[0]!r}")
        table = {}
        for column in self.columns:
            array = np.full((len(rows), *column.inner), column.default, dtype=column.dtype)
            for index, row in enumerate(rows):
                if column.name in row:
                    array[index] = row[column.name]
            table[column.name] = array
        return table

    def from_columns(self, length: int, **columns: Any) -> dict[str, np.ndarray]:
        """A table from arrays or scalars that broadcast to `length` rows; absent columns take their default."""
        table = {}
        for column in self.columns:
            value = columns.pop(column.name, column.default)
            array = np.empty((length, *column.inner), dtype=column.dtype)
            array[...] = value
            table[column.name] = array
        if columns:
            raise BadInput(f"table {self.name} has no column {sorted(columns)[0]!r}")
        return table

    def validate(self, table: Table, where: str) -> None:
        """Raises BadInput where a column is missing, unknown, of another type or length."""
        wanted = {column.name for column in self.columns}
        if set(table) != wanted:
            odd = sorted(set(table) ^ wanted)[0]
            raise BadInput(f"{where}: table {self.name} has a missing or unknown column {odd!r}")
        lengths = set()
        for column in self.columns:
            array = table[column.name]
            if array.dtype != np.dtype(column.dtype) or array.shape[1:] != column.inner or array.ndim != 1 + len(column.inner):
                raise BadInput(
                    f"{where}: column {self.name}.{column.name} is {array.dtype}{list(array.shape)}, "
                    f"it must be {column.dtype}[n{''.join(f',{n}' for n in column.inner)}]"
                )
            lengths.add(array.shape[0])
        if len(lengths) > 1:
            raise BadInput(f"{where}: columns of table {self.name} have different lengths {sorted(lengths)}")


def concatenate(tables: Sequence[Table]) -> dict[str, np.ndarray]:
    """One table with the rows of all, in order; the tables share one type and there is at least one."""
    return {name: np.concatenate([table[name] for table in tables]) for name in tables[0]}


def length(table: Table) -> int:
    """Number of rows."""
    return len(next(iter(table.values()))) if table else 0


@dataclass(frozen=True)
class Binding:
    """Where one input, output or state of the program lies on the machine.

    `dtype` and `shape` are torch's, `stored` is the format on the machine, `range` the integers a caller may pass (inclusive),
    `path` torch's pytree path (`args[0]`, `kwargs['input_ids']`, `out.logits`), `where` the machine's own regions (JSON values only).
    """

    name: str
    kind: str
    dtype: str
    shape: tuple[int, ...]
    stored: str = ""
    path: str = ""
    range: tuple[int, int] | None = None
    where: Any = None

    def to_json(self) -> dict[str, Any]:
        return {
            "name": self.name, "kind": self.kind, "dtype": self.dtype, "shape": list(self.shape), "stored": self.stored,
            "path": self.path, "range": list(self.range) if self.range else None, "where": self.where,
        }  # fmt: skip

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Binding:
        return cls(
            data["name"], data["kind"], data["dtype"], tuple(data["shape"]), data["stored"], data["path"],
            tuple(data["range"]) if data["range"] else None, data["where"],
        )  # fmt: skip


@dataclass(frozen=True)
class Segment:
    """A compiled piece: tables of bursts and of what they refer to, with times and places relative to its instance."""

    name: str
    tables: Mapping[str, Table]


@dataclass(frozen=True)
class Program:
    """One compiled model for one machine.

    `machine` is the full machine description as JSON values; `meta` holds what the schema wants to show and the executor need not
    trust (model, precision, phase, batch, seq, context, overhead, accumulate, pytree specs, versions); `predicted_cycles` and
    `bound` are the compiler's claims; `provenance` is a pool of strings that bursts refer to by number. `states` holds what State
    starts from, in logical shape by binding name, where that is not zeros.
    """

    target: str
    machine: Mapping[str, Any]
    bindings: tuple[Binding, ...] = ()
    tables: Mapping[str, Table] = field(default_factory=dict)
    segments: tuple[Segment, ...] = ()
    images: Mapping[str, np.ndarray] = field(default_factory=dict)
    predicted_cycles: int = 0
    bound: Mapping[str, Any] = field(default_factory=dict)
    provenance: tuple[str, ...] = ()
    meta: Mapping[str, Any] = field(default_factory=dict)
    states: Mapping[str, np.ndarray] = field(default_factory=dict)

    def bindings_of(self, kind: str) -> tuple[Binding, ...]:
        """The bindings of one kind (`input`, `output`, `state`), in order."""
        return tuple(binding for binding in self.bindings if binding.kind == kind)

    def segment(self, name: str) -> Segment:
        """The segment of that name; raises BadInput."""
        for segment in self.segments:
            if segment.name == name:
                return segment
        raise BadInput(f"the program has no segment {name!r}")

    def with_tables(self, **tables: Table) -> Program:
        """The same program with some program-level tables replaced."""
        return replace(self, tables={**self.tables, **tables})

    def payload_bytes(self) -> int:
        """Bytes of all tables and images: the size of the `.spx` file but for its header and padding."""
        tables = [*self.tables.values(), *(table for segment in self.segments for table in segment.tables.values())]
        return sum(a.nbytes for table in tables for a in table.values()) + sum(a.nbytes for a in self.images.values())

    def _members(self) -> list[tuple[str, bytes]]:
        members = [("tables.safetensors", _pack({f"{t}.{c}": a for t, cols in self.tables.items() for c, a in cols.items()}))]
        for segment in self.segments:
            flat = {f"{t}.{c}": a for t, cols in segment.tables.items() for c, a in cols.items()}
            members.append((f"segments/{segment.name}.safetensors", _pack(flat)))
        members.append(("images.safetensors", _pack(self.images)))
        members.append(("states.safetensors", _pack(self.states)))
        return members

    def _header(self, members: Sequence[tuple[str, bytes]]) -> bytes:
        header = {
            "format": "spatialc", "version": FORMAT_VERSION, "target": self.target, "machine": self.machine,
            "bindings": [binding.to_json() for binding in self.bindings], "segments": [s.name for s in self.segments],
            "tables": {t: sorted(cols) for t, cols in self.tables.items()},
            "predicted_cycles": self.predicted_cycles, "bound": self.bound, "provenance": list(self.provenance), "meta": self.meta,
            "sha256": {name: hashlib.sha256(data).hexdigest() for name, data in members},
        }  # fmt: skip
        return json.dumps(header, sort_keys=True, separators=(",", ":"), allow_nan=False).encode()

    def digest(self) -> str:
        """sha256 of `program.json`, which holds the sha256 of every other member: one number for the whole program."""
        return hashlib.sha256(self._header(self._members())).hexdigest()

    def save(self, path: str | os.PathLike[str]) -> str:
        """Write the `.spx` file (aside, then renamed) and return the program's digest. Raises BadInput for a folder that is not there."""
        target = Path(path)
        if not target.parent.is_dir():
            raise BadInput(f"cannot write {target}: the folder {target.parent} does not exist")
        members = self._members()
        header = self._header(members)
        handle, aside = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.")
        try:
            with os.fdopen(handle, "wb") as out, zipfile.ZipFile(out, "w", zipfile.ZIP_STORED) as archive:
                for name, data in [("program.json", header), *members]:
                    info = zipfile.ZipInfo(name, _EPOCH)
                    padding = -(out.tell() + 30 + len(name) + 4) % 64
                    info.extra = b"\x01\xff" + padding.to_bytes(2, "little") + b"\0" * padding
                    info.external_attr = 0o644 << 16
                    archive.writestr(info, data)
            os.chmod(aside, 0o644)
            os.replace(aside, target)
        except BaseException:
            Path(aside).unlink(missing_ok=True)
            raise
        return hashlib.sha256(header).hexdigest()


def load_program(path: str | os.PathLike[str]) -> Program:
    """Read a `.spx` file and check every digest. Raises BadInput for anything that `Program.save` did not write."""
    source = Path(path)
    if not source.is_file():
        raise BadInput(f"{source} is not there; `spatialc compile MODEL -t TARGET -o {source.name}` writes such a file")
    try:
        with zipfile.ZipFile(source) as archive:
            data = {info.filename: _member(archive, info, source) for info in archive.infolist()}
    except (zipfile.BadZipFile, EOFError, OSError, NotImplementedError, RuntimeError) as error:
        raise BadInput(f"{source} is not a complete .spx program ({error}); compile the model again") from error
    return _parse(data, source)


def _member(archive: zipfile.ZipFile, info: zipfile.ZipInfo, source: Path) -> bytes:
    if info.compress_type != zipfile.ZIP_STORED or info.flag_bits & 1:
        raise BadInput(f"{source}: member {info.filename} is compressed or encrypted; spatialc writes neither")
    if info.file_size > source.stat().st_size:
        raise BadInput(f"{source}: member {info.filename} claims more bytes than the file has")
    return archive.read(info)


def _parse(data: Mapping[str, bytes], source: Path) -> Program:
    if "program.json" not in data:
        raise BadInput(f"{source} holds no program.json; it is not a spatialc program")
    try:
        header = json.loads(data["program.json"])
        if header["format"] != "spatialc" or header["version"] != FORMAT_VERSION:
            raise BadInput(f"{source} has format version {header['version']}; this spatialc reads {FORMAT_VERSION}: compile again")
        digests = header["sha256"]
        parts = [f"segments/{name}" for name in header["segments"]]
        names = [f"{part}.safetensors" for part in ("tables", *parts, "images", "states")]
        if set(data) != {"program.json", *names} or set(digests) != set(names):
            raise BadInput(f"{source} has members that its header does not list, or lacks some that it lists")
        for name in names:
            if hashlib.sha256(data[name]).hexdigest() != digests[name]:
                raise BadInput(f"{source} was altered or damaged: sha256 of {name} does not match; compile the model again")
        return Program(
            target=header["target"],
            machine=header["machine"],
            bindings=tuple(Binding.from_json(item) for item in header["bindings"]),
            tables=_unflatten(data["tables.safetensors"], header["tables"]),
            segments=tuple(Segment(name, _unflatten(data[f"segments/{name}.safetensors"])) for name in header["segments"]),
            images=_unpack(data["images.safetensors"]),
            states=_unpack(data["states.safetensors"]),
            predicted_cycles=int(header["predicted_cycles"]),
            bound=header["bound"],
            provenance=tuple(header["provenance"]),
            meta=header["meta"],
        )
    except BadInput:
        raise
    except (KeyError, TypeError, ValueError, AttributeError, safetensors.SafetensorError) as error:
        raise BadInput(f"{source} is not a valid spatialc program ({type(error).__name__}: {error})") from error


def _pack(arrays: Mapping[str, np.ndarray]) -> bytes:
    return bytes(safetensors.numpy.save({name: np.ascontiguousarray(array) for name, array in sorted(arrays.items())}))


def _unpack(data: bytes) -> dict[str, np.ndarray]:
    return dict(safetensors.numpy.load(data))


def _unflatten(data: bytes, expected: Mapping[str, Sequence[str]] | None = None) -> dict[str, dict[str, np.ndarray]]:
    tables: dict[str, dict[str, np.ndarray]] = {name: {} for name in expected or ()}
    for key, array in _unpack(data).items():
        table, _, column = key.partition(".")
        tables.setdefault(table, {})[column] = array
    return tables
