"""Where vectors lie: storages (slices, bank, rows), sequences of vectors, and the allocator of one chip.

Slices are named by queue number (hemisphere * 44 + slice). They are grouped in **quads** (four slices, one per byte plane of a 32-bit
value) and **sets** (four quads = 16 slices, the stripes of a stationary operand). Permanent data grows from row 0 up, scratch from
the last row down, so that freed scratch does not cut the weights' space into pieces.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

from ...errors import Infeasible
from ...machines.tsp.description import TspMachine
from ...machines.tsp.isa import WIDTH, DType
from ...machines.tsp.tables import Kind
from .balance import Choice, balanced

Array = np.ndarray
LANES = 320
STRIPES = 16
NEVER = 1 << 60
"""A cycle after all others."""


@dataclass(eq=False)
class Storage:
    """Vectors of one number format: byte plane p of vector v is in slice `planes[p][v % L]`, row `offsets[p] + v // L` of the object.

    `image` gives a constant's vectors [vectors, lanes], from the array of graph node `source` where it has one. What lies in memory from
    before cycle 0 has its slices chosen here and its rows (`base` -1) when the program is put together. `number` is the object in its
    segment.
    """

    dtype: DType
    vectors: int
    planes: tuple[tuple[int, ...], ...]
    offsets: tuple[int, ...]
    kind: Kind
    bank: int
    base: int
    rows: int
    number: int = -1
    image: Callable[[Array | None], Array] | None = None
    source: int | None = None
    live: bool = True
    label: str = ""
    parent: Storage | None = None
    slot: tuple[int, int] | None = None
    """Of a value between sections: (node, position among its storages)."""
    after: int = -1
    """Cycle of its section until which others use its rows."""
    first: int = NEVER
    """Cycle of its section in which it is used first."""
    last: int = -1
    """Cycle of its section in which it is used last."""

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

    def distinct(self) -> tuple[Seq, Array]:
        """Its vectors without repeats, in the order in which they are stored, and the place of every element among them."""
        most = int(self.vector.max(initial=0)) + 1
        key, index = np.unique(self.which * most + self.vector, return_inverse=True)
        return Seq(self.storages, key // most, key % most), index.reshape(-1)

    @property
    def units(self) -> frozenset[int]:
        used = np.unique(self.which)
        return frozenset().union(*(self.storages[int(s)].units for s in used)) if len(used) else frozenset()

    @property
    def dtype(self) -> DType:
        return self.storages[0].dtype

    @classmethod
    def chain(cls, storages: Sequence[Storage]) -> Seq:
        """All vectors of several storages, one after the other."""
        return cls.join([cls.of(storage) for storage in storages])

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


FIXED = frozenset({Kind.CONST, Kind.INPUT, Kind.STATE})
"""Kinds that lie in memory from before cycle 0."""
CHUNK = 512
"""Most rows of one constant storage in one slice: small enough to find room, large enough to keep objects few."""
ROOM = 15
"""Sixteenths of a slice that constants and scratch may fill: the rest is for gaps between them."""
CROWDED = 13
"""Sixteenths of a slice that one section fills before it is cut in two, which may lie on two chips."""
DEEP = 2048
"""Rows of scratch in one slice beyond which a value goes on elsewhere: sixteen slices share the rows of a stationary constant."""
SCRATCH_ROWS = 2048
"""Most rows of one linear scratch storage: scratch must not fill the banks of a few slices, where constants have their places too."""


@dataclass
class Allocator:
    """Slices and rows, the same on every chip. `quads` and `sets` are lists of slices; `spare` are quads in no set.

    Scratch gets rows, from the last one down. Constants, inputs and state only choose slices, those with the least `load` of rows.
    """

    machine: TspMachine
    quads: list[tuple[int, ...]] = field(default_factory=list)
    sets: list[tuple[int, ...]] = field(default_factory=list)
    spare: list[tuple[int, ...]] = field(default_factory=list)
    turn: int = 0
    choices: list[Choice] = field(default_factory=list)
    """The sets that this section's striped constants have chosen."""
    plan: list[int] = field(default_factory=list)
    """Sets that the solver has chosen for them, in the order in which they ask."""

    def __post_init__(self) -> None:
        used = np.ones((88, self.machine.banks, self.machine.rows), dtype=bool)
        for side, number in self.machine.user_slices:
            used[44 * side + number] = False
        self.used = used
        self.reserved = used.copy()
        self.kept = used.copy()  # slots between sections
        self.here = used.copy()  # ever used by scratch in this section
        self.height = used.sum(axis=(1, 2))  # rows of it by slice
        self.between = np.zeros(88, dtype=np.int64)  # rows of slots by slice, when the section began
        self.ends = np.full(used.shape, -1, dtype=np.int64)  # cycle of this section until which scratch that was given back uses a row
        self.load = np.zeros(88, dtype=np.int64)
        for side in (1, 0):
            quads = self._quads(side)
            full = max(1, (len(quads) - 1) // 4)
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

    def gap(self, units: Sequence[int], bank: int, rows: int, top: bool, taken: Array) -> int | None:
        """A stretch of rows that are not `taken` in any of `units`: the last one, or the first one."""
        if rows > self.machine.rows:
            return None
        count = np.concatenate([[0], np.cumsum(taken[list(units), bank].any(axis=0))])
        free = np.flatnonzero(count[rows:] == count[: len(count) - rows])
        return None if not len(free) else int(free[-1] if top else free[0])

    def highest(self, units: Sequence[int], rows: int, taken: Array) -> tuple[int, int] | None:
        """(bank, first row) of the highest free stretch in all `units`; the first bank of equals."""
        found = [(base, -bank) for bank in range(self.machine.banks) if (base := self.gap(units, bank, rows, True, taken)) is not None]
        return (-max(found)[1], max(found)[0]) if found else None

    def lowest(self, units: Sequence[int], rows: int, taken: Array) -> tuple[int, int] | None:
        """(bank, first row) of the lowest free stretch in all `units` in the first bank that has one."""
        found = ((bank, self.gap(units, bank, rows, False, taken)) for bank in range(self.machine.banks))
        return next(((bank, base) for bank, base in found if base is not None), None)

    def longest(self, units: Sequence[int], bank: int, taken: Array) -> int:
        """Rows of the longest stretch that is not taken in any of `units`."""
        ends = np.flatnonzero(np.concatenate([[True], taken[list(units), bank].any(axis=0), [True]]))
        return int(np.diff(ends).max()) - 1

    def _scratch(
        self, dtype: DType, vectors: int, candidates: Sequence[tuple[Planes, tuple[int, ...]]], rows: int, kind: Kind, label: str,
        wishes: Sequence[bool] = (True, False),
    ) -> Storage | None:  # fmt: skip
        """The first candidate with a gap near the top, so that scratch keeps to the upper rows as long as it can.

        Rows that this section's scratch has used before cost nothing; others are taken only where they leave room for the constants
        that have chosen the slice, while there are such candidates.
        """
        spots: list[tuple[int, int, bool]] = []
        for roomy in wishes:
            for quarters in (3, 2, 1, 0):
                for k, (planes, offsets) in enumerate(candidates):
                    units = sorted({unit for plane in planes for unit in plane})
                    if k == len(spots):
                        spots.append(self._spot(units, rows))
                    base, bank, fits = spots[k]
                    if base >= 0 and fits >= roomy and base + rows > self.machine.rows * quarters // 4:
                        for table in (self.used, self.here):
                            table[units, bank, base : base + rows] = True
                        self.height[units] = self.here[units].sum(axis=(1, 2))
                        after = int(self.ends[units, bank, base : base + rows].max())
                        return Storage(dtype, vectors, planes, offsets, kind, bank, base, rows, label=label, after=after)
        return None

    def _spot(self, units: Sequence[int], rows: int) -> tuple[int, int, bool]:
        """(first row, bank, whether constants keep their room) of the highest gap in these slices; row -1 where there is none."""
        spot = self.highest(units, rows, self.used)
        if spot is None:
            return -1, 0, False
        bank, base = spot
        filled = self.load[units] + self.height[units] + self.between[units]
        fresh = rows - self.here[units, bank, base : base + rows].sum(axis=1)
        room = self.machine.rows * self.machine.banks * ROOM // 16
        fits = bool(((fresh == 0) | (filled + fresh <= room)).all())
        return base, bank, fits and (not fresh.any() or self._leaves_stretch(units, bank, base))

    def _leaves_stretch(self, units: Sequence[int], bank: int, base: int) -> bool:
        """Whether below scratch from row `base` on there are rows for the constants of all the slices that stripes go over with these."""
        for some in self.sets:
            if not set(some).isdisjoint(units):
                taken: Array = np.asarray((self.here[list(some)] | self.kept[list(some)]).any(axis=0))
                low = [int(row.argmax()) if row.any() else self.machine.rows for row in taken]
                low[bank] = min(low[bank], base)
                if sum(low) < int(self.load[list(some)].max()) + self.machine.rows // 16:
                    return False
        return True

    def begin(self, plan: Sequence[int] = ()) -> None:
        """A new section: it balances its own constants, since its copies may fill a chip alone, or lays them where `plan` says."""
        self.choices, self.plan = [], list(plan)
        self.load[:] = 0
        self.ends[:] = -1
        self.here = self.reserved.copy()
        self.height = self.here.sum(axis=(1, 2))
        self.between = (self.kept & ~self.reserved).sum(axis=(1, 2))

    def solved(self, seed: int) -> list[int]:
        """A plan for what this section's striped constants have asked for, beside its other rows."""
        others = self.load + self.height + self.between
        for choice in self.choices:
            others[list(self.sets[choice.chosen])] -= choice.rows
        return balanced(self.choices, [int(others[list(units)].max()) for units in self.sets], seed)

    def crowded(self) -> bool:
        """Whether many constants of this section might find no rows beside its scratch and the values between sections."""
        whole = self.machine.rows * self.machine.banks
        return bool(((self.load > whole // 8) & (self.load + self.height + self.between > whole * CROWDED // 16)).any())

    def _filled(self, units: Sequence[int]) -> int:
        """Rows of constants and of this section's scratch in the fullest of some slices."""
        return int((self.load[list(units)] + self.height[list(units)]).max())

    def _turned(self, items: list[tuple[int, ...]]) -> list[tuple[int, ...]]:
        self.turn += 1
        k = self.turn % len(items)
        return items[k:] + items[:k]

    def linear(
        self, dtype: DType, vectors: int, kind: Kind, avoid: frozenset[int], label: str, spare: bool = False,
        beside: frozenset[int] = frozenset(), wishes: Sequence[bool] = (True, False),
    ) -> Storage:  # fmt: skip
        """One slice per byte plane, in a quad that meets none of `avoid`, in slices of `beside` where they have room. Raises Infeasible.

        `wishes`: scratch leaves room for constants (True), then need not (False).
        """
        width = WIDTH[dtype]
        quads = self.spare + self._turned(self.quads) if spare else self._turned(self.quads)
        picks = [quad[k : k + width] for quad in quads for k in range(0, 4, width)]
        picks = [pick for pick in picks if not avoid.intersection(pick)]
        if vectors >= CHUNK:  # large ones keep away from slices that are filling up; small ones go round
            picks.sort(key=lambda pick: self._filled(pick) // CHUNK)
        if kind in FIXED:
            picks.sort(key=lambda pick: self._filled(pick))
            if not picks or vectors > self.machine.rows:
                raise self.full(vectors, picks, label)
            self.load[list(picks[0])] += vectors
            return Storage(dtype, vectors, tuple((u,) for u in picks[0]), (0,) * width, kind, 0, -1, vectors, label=label)
        found = None
        mine = [p for p in picks if beside.issuperset(p) and (self.height[list(p)] + vectors <= DEEP).all()]
        for some, roomy in ((mine, (True,)), (picks, wishes)):
            candidates = [(tuple((u,) for u in pick), (0,) * width) for pick in some]
            found = found or self._scratch(dtype, vectors, candidates, vectors, kind, label, roomy)
        if found is None:
            raise self.full(vectors, picks, label)
        return found

    def chunks(
        self, dtype: DType, vectors: int, kind: Kind, avoid: frozenset[int], label: str, spare: bool = False,
        beside: frozenset[int] = frozenset(),
    ) -> list[Storage]:  # fmt: skip
        """Linear storages for any number of vectors, all in one hemisphere."""
        most = min(SCRATCH_ROWS, self.machine.rows)
        if kind in FIXED:  # up to four parts: long stretches are rare; a whole bank would leave no row of it to scratch
            most = min(self.machine.rows * 3 // 4, max(self.machine.rows // 4, -(-vectors // 4)))
        if vectors <= most:
            return [self.linear(dtype, vectors, kind, avoid, label, spare, beside)]
        error: Infeasible | None = None
        for wishes, side in itertools.product([(True, False)] if kind in FIXED else [(True,), (False,)], (1, 0)):
            other = frozenset(range(44 * (1 - side), 44 * (2 - side)))
            made: list[Storage] = []
            try:
                for first in range(0, vectors, most):
                    mine = frozenset(u for s in made for u in s.units) | beside
                    barred = avoid | other | (mine if kind in FIXED else frozenset())
                    made.append(self.linear(dtype, min(most, vectors - first), kind, barred, label, spare, mine, wishes))
                return made
            except Infeasible as found:
                error = found
                for storage in made:
                    self.release(storage)
        assert error is not None
        raise error

    def striped(self, dtype: DType, vectors: int, kind: Kind, avoid: frozenset[int], label: str, tile: int = STRIPES) -> list[Storage]:
        """Vectors over the 16 slices of sets; plane p is turned by 4 p stripes, so that the planes of a vector lie in different slices.

        Long lists are cut into storages of whole tiles, those of one list in as few sets as hold them.
        """
        width = WIDTH[dtype]
        most = max(1, CHUNK * STRIPES // width // tile) * tile
        made: list[Storage] = []
        sets = [s for s in self._turned(self.sets) if not avoid.intersection(s)]
        for first in range(0, vectors, most):
            count = min(most, vectors - first)
            rows = -(-count // STRIPES)
            found = None
            if kind in FIXED:
                room = self.machine.rows * self.machine.banks * 7 // 10
                filled = {s: self._filled(s) for s in sets}
                fit = [s for s in sets if filled[s] + rows * width <= room]
                wanted = self.sets[self.plan[len(self.choices)]] if len(self.choices) < len(self.plan) else None
                planned = [s for s in sets if s == wanted]
                mine = [s for s in fit if made and s[0] in made[-1].units]
                chosen = planned or mine or sorted(fit or sets, key=lambda s: filled[s])
                if not chosen:
                    raise self.full(rows * width, sets, label)
                part_of = self.choices[-1].part_of if made else len(self.choices)
                numbers = tuple(sorted(self.sets.index(s) for s in sets))
                self.choices.append(Choice(rows * width, numbers, self.sets.index(chosen[0]), part_of))
                self.load[list(chosen[0])] += rows * width
                planes, offsets = _striped_planes(chosen[0], width), tuple(p * rows for p in range(width))
                found = Storage(dtype, count, planes, offsets, kind, 0, -1, rows * width, label=label)
            else:
                offsets = tuple(p * rows for p in range(width))
                found = self._scratch(dtype, count, [(_striped_planes(s, width), offsets) for s in sets], rows * width, kind, label)
            if found is None:
                raise self.full(rows * width, sets, label)
            made.append(found)
        return made

    def taken(self, again: bool) -> Array:
        """Rows that a value between sections may not have; `again`: the section runs once more, with all of its scratch."""
        return self.used | self.here if again else self.used

    def form(self, dtype: DType, vectors: int, avoid: frozenset[int], label: str, again: bool) -> tuple[tuple[int, Planes], ...]:
        """(vectors, slices by plane) of the storages in which a value between sections would find rows; takes none. Raises Infeasible."""
        before = self.used, self.here, self.height
        self.used, self.here, self.height = self.taken(again).copy(), self.here.copy(), self.height.copy()
        try:
            made = self.chunks(dtype, vectors, Kind.SCRATCH, avoid, label)
        finally:
            self.used, self.here, self.height = before
        return tuple((storage.vectors, storage.planes) for storage in made)

    def until(self, storage: Storage, bank: int, row: int) -> int:
        """Cycle of this section until which scratch that was given back uses rows from `row` on in the slices of a storage."""
        return int(self.ends[sorted(storage.units), bank, row : row + storage.rows].max())

    def release(self, storage: Storage) -> None:
        """Give scratch rows back."""
        if storage.live and storage.kind == Kind.SCRATCH:
            rows = sorted(storage.units), storage.bank, slice(storage.base, storage.base + storage.rows)
            self.used[rows] = False
            self.ends[rows] = np.maximum(self.ends[rows], storage.last)
            storage.live = False

    def full(self, rows: int, groups: Sequence[Sequence[int]], label: str) -> Infeasible:
        """The error for a value that needs `rows` free rows in a stretch in all slices of one of `groups`."""
        banks = range(self.machine.banks)
        longest = max((self.longest(units, bank, self.used) for units in groups for bank in banks), default=0)
        # a constant has not been given rows yet: no stretch is longer than what constants and scratch leave of a slice
        left = max((self.machine.rows * self.machine.banks - self._filled(units) for units in groups), default=0)
        where = f"every group of slices of one chip that may hold {label}"
        return Infeasible("memory", rows, min(longest, left, rows - 1), "rows", where, ("a shorter sequence", "a smaller model"))


Planes = tuple[tuple[int, ...], ...]


def _striped_planes(slices: tuple[int, ...], width: int) -> Planes:
    return tuple(tuple(slices[(j + 4 * p) % STRIPES] for j in range(STRIPES)) for p in range(width))


def plane_view(storage: Storage, plane: int) -> Storage:
    """One byte plane of a storage as a storage of bytes; it shares the object of its parent."""
    return Storage(
        DType.I8, storage.vectors, (storage.planes[plane],), (storage.offsets[plane],), storage.kind, storage.bank, storage.base,
        storage.rows, label=storage.label, parent=storage,
    )  # fmt: skip


def plane_seq(seq: Seq, plane: int) -> Seq:
    """One byte plane of a sequence as a sequence of bytes."""
    return Seq(tuple(plane_view(storage, plane) for storage in seq.storages), seq.which, seq.vector)
