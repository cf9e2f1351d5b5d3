"""Where vectors lie: storages (slices, bank, rows), sequences of vectors, and the allocator of one chip.

Slices are named by queue number (hemisphere * 44 + slice). They are grouped in **quads** (four slices, one per byte plane of a 32-bit
value) and **sets** (four quads = 16 slices, the stripes of a stationary operand). Permanent data grows from row 0 up, scratch from
the last row down, so that freed scratch does not cut the weights' space into pieces.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np

from ...errors import Infeasible
from ...machines.tsp.description import TspMachine
from ...machines.tsp.isa import WIDTH, DType
from ...machines.tsp.tables import Kind

Array = np.ndarray
LANES = 320
STRIPES = 16


@dataclass(eq=False)
class Storage:
    """Vectors of one number format: byte plane p of vector v is in slice `planes[p][v % L]`, row `offsets[p] + v // L` of the object.

    `image` holds a constant's bytes [planes, vectors, 320] until the program is put together. `number` is the object in its segment.
    """

    dtype: DType
    vectors: int
    planes: tuple[tuple[int, ...], ...]
    offsets: tuple[int, ...]
    kind: Kind
    chip: int
    bank: int
    base: int
    rows: int
    number: int = -1
    image: Array | None = None
    live: bool = True
    label: str = ""
    parent: Storage | None = None

    @property
    def stripes(self) -> int:
        return len(self.planes[0])

    @property
    def units(self) -> frozenset[int]:
        """All slices that hold a part of it."""
        return frozenset(unit for plane in self.planes for unit in plane)


@dataclass(frozen=True, eq=False)
class Seq:
    """A sequence of vectors: element k is vector `vector[k]` of `storages[which[k]]`; all storages have one number format."""

    storages: tuple[Storage, ...]
    which: Array
    vector: Array

    @classmethod
    def of(cls, storage: Storage, vectors: Array | None = None) -> Seq:
        index = np.arange(storage.vectors) if vectors is None else np.asarray(vectors)
        return cls((storage,), np.zeros(len(index), dtype=np.int64), index.astype(np.int64))

    def __len__(self) -> int:
        return len(self.vector)

    def take(self, index: Array) -> Seq:
        """The elements at `index`, in that order."""
        return Seq(self.storages, self.which[index], self.vector[index])

    @property
    def units(self) -> frozenset[int]:
        used = np.unique(self.which)
        return frozenset().union(*(self.storages[int(s)].units for s in used)) if len(used) else frozenset()

    @property
    def dtype(self) -> DType:
        return self.storages[0].dtype

    @staticmethod
    def join(parts: Sequence[Seq]) -> Seq:
        """One sequence after the other."""
        storages = tuple(dict.fromkeys(s for part in parts for s in part.storages))
        number = {s: k for k, s in enumerate(storages)}
        which = [np.array([number[s] for s in part.storages], dtype=np.int64)[part.which] for part in parts]
        return Seq(storages, np.concatenate(which), np.concatenate([part.vector for part in parts]))


def hemisphere(unit: int) -> int:
    """0 West, 1 East."""
    return unit // 44


@dataclass
class Allocator:
    """Free rows of one chip. `quads` and `sets` are lists of slices; `spare` are quads in no set."""

    machine: TspMachine
    chip: int
    quads: list[tuple[int, ...]] = field(default_factory=list)
    sets: list[tuple[int, ...]] = field(default_factory=list)
    spare: list[tuple[int, ...]] = field(default_factory=list)
    turn: int = 0

    def __post_init__(self) -> None:
        used = np.ones((88, self.machine.banks, self.machine.rows), dtype=bool)
        for side, number in self.machine.user_slices:
            used[44 * side + number] = False
        self.used = used
        self.written = used.copy()
        self.free_rows = int((~used).sum())
        for side in (1, 0):
            quads = self._quads(side)
            full = len(quads) // 4 if len(quads) % 4 else max(1, len(quads) // 4 - 1)
            for k in range(full):
                self.sets.append(tuple(unit for quad in quads[4 * k : 4 * k + 4] for unit in quad))
            self.quads += quads
            self.spare += quads[4 * full :]

    def _quads(self, side: int) -> list[tuple[int, ...]]:
        """Whole groups first, then the rest in fours: a quad of one group has one position and one diagonal."""
        groups: dict[int, list[int]] = {}
        for h, number in self.machine.user_slices:
            if h == side:
                groups.setdefault(number // 4, []).append(44 * h + number)
        whole = [tuple(units) for units in groups.values() if len(units) == 4]
        rest = [unit for units in groups.values() if len(units) < 4 for unit in units]
        return whole + [tuple(rest[k : k + 4]) for k in range(0, len(rest) - 3, 4)]

    def _gap(self, units: Sequence[int], bank: int, rows: int, kind: Kind) -> int | None:
        """First free row; what lies there from before cycle 0 must not be where scratch ever was."""
        top = kind == Kind.SCRATCH
        taken = self.used if kind in (Kind.SCRATCH, Kind.OUTPUT) else self.written
        taken = np.concatenate([[0], np.cumsum(taken[list(units), bank].any(axis=0))])
        if rows > self.machine.rows:
            return None
        free = np.flatnonzero(taken[rows:] == taken[: len(taken) - rows])
        return None if not len(free) else int(free[-1] if top else free[0])

    def place(
        self, dtype: DType, vectors: int, candidates: Iterable[tuple[tuple[tuple[int, ...], ...], tuple[int, ...], int]],
        kind: Kind, label: str,
    ) -> Storage | None:  # fmt: skip
        """The first candidate (planes, row offsets, rows) with a gap, in either bank; None where none fits."""
        for planes, offsets, rows in candidates:
            units = sorted({unit for plane in planes for unit in plane})
            for bank in range(self.machine.banks):
                base = self._gap(units, bank, rows, kind)
                if base is not None:
                    self.used[units, bank, base : base + rows] = True
                    self.written[units, bank, base : base + rows] = True
                    return Storage(dtype, vectors, planes, offsets, kind, self.chip, bank, base, rows, label=label)
        return None

    def linear(self, dtype: DType, vectors: int, kind: Kind, avoid: frozenset[int], label: str, spare: bool = False) -> Storage:
        """One slice per byte plane, in a quad that meets none of `avoid` where possible. Raises Infeasible."""
        width = WIDTH[dtype]
        quads = (self.spare + self.quads) if spare else self.quads[self.turn % len(self.quads) :] + self.quads[: self.turn % len(self.quads)]
        self.turn += 0 if spare else 1
        picks = [quad[k : k + width] for quad in quads for k in range(0, 4, width)]
        good = [pick for pick in picks if not avoid.intersection(pick)]
        found = self.place(dtype, vectors, (((tuple((u,) for u in pick)), (0,) * width, vectors) for pick in good), kind, label)
        if found is None:
            raise self.full(vectors * width, label)
        return found

    def striped(self, dtype: DType, vectors: int, kind: Kind, avoid: frozenset[int], label: str) -> Storage:
        """Vectors over the 16 slices of a set; plane p is turned by 4 p stripes, so that the planes of a vector lie in different slices."""
        rows = -(-vectors // STRIPES)
        width = WIDTH[dtype]
        sets = self.sets[self.turn % len(self.sets) :] + self.sets[: self.turn % len(self.sets)]
        self.turn += 1
        candidates = []
        for slices in sets:
            if not avoid.intersection(slices):
                planes = tuple(tuple(slices[(j + 4 * p) % STRIPES] for j in range(STRIPES)) for p in range(width))
                candidates.append((planes, tuple(p * rows for p in range(width)), rows * width))
        found = self.place(dtype, vectors, candidates, kind, label)
        if found is None:
            raise self.full(vectors * width, label)
        return found

    def release(self, storage: Storage) -> None:
        """Give scratch rows back."""
        if storage.live and storage.kind == Kind.SCRATCH:
            self.used[sorted(storage.units), storage.bank, storage.base : storage.base + storage.rows] = False
            storage.live = False

    def full(self, rows: int, label: str) -> Infeasible:
        """The error for a value that finds no room."""
        free = int((~self.used).sum())
        return Infeasible(
            "memory", max(rows, free + 1) * LANES, free * LANES, "bytes", f"chip {self.chip} at {label}", ("more chips", "a shorter sequence")
        )


def plane_view(storage: Storage, plane: int) -> Storage:
    """One byte plane of a storage as a storage of bytes; it shares the object of its parent."""
    return Storage(
        DType.I8, storage.vectors, (storage.planes[plane],), (storage.offsets[plane],), storage.kind, storage.chip, storage.bank, storage.base,
        storage.rows, label=storage.label, parent=storage,
    )  # fmt: skip
