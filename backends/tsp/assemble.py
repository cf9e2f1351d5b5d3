"""From lowered sections to a program: instances on chips, rows for what lies in memory before cycle 0, transfers, bindings, tables.

Copies are laid on chips in order, as many as their constants allow (a pipeline cut). An instance starts at the earliest cycle at which
every resource of its chip is free. A value that a later chip needs is sent over the link between the two chips, at one vector every
`c2c_interval` cycles.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ...errors import Infeasible
from ...ir.graph import Constant, Graph, Input, State
from ...ir.store import ConstantStore
from ...machines.program import Binding, Program, Segment
from ...machines.tsp.builder import Out
from ...machines.tsp.description import TspMachine
from ...machines.tsp.geometry import Geometry
from ...machines.tsp.isa import NUMPY, WIDTH, Class, DType, Opcode, sxm_unit
from ...machines.tsp.tables import ALLOCATIONS, BINDS, INSTANCES, LINKS, PLACEMENTS, Kind, mesh_links, slice_mask
from ..options import CompileOptions
from .memory import LANES, Allocator, Seq, Storage
from .recipes import ISA_TYPE
from .runs import runs
from .sections import Section, mapping
from .step import Step, Timeline
from .values import Copy, Digits

Array = np.ndarray
STORED = {DType.F16: "f16", DType.F32: "f32", DType.I8: "i8", DType.I16: "i16", DType.I32: "i32"}

Place = tuple[tuple[int, int], ...]
"""(bank, first row) of every storage of a slot."""
Spot = tuple[Storage, int, int]
"""A storage with its bank and first row."""


@dataclass(eq=False)
class Slot:
    """The form of a value between sections: its arrangement, and in which slices its storages lie."""

    element: Array
    dtype: DType
    lanes: Digits
    replicated: bool
    clean: bool
    forms: tuple[tuple[int, tuple[tuple[int, ...], ...]], ...]
    allocator: Allocator

    @classmethod
    def of(cls, copy: Copy, allocator: Allocator, label: str, avoid: frozenset[int], again: bool) -> Slot:
        """A slot for an arrangement, in slices where `place` finds rows."""
        forms = allocator.form(copy.seq.dtype, len(copy.seq), avoid, label, again)
        return cls(copy.element, copy.seq.dtype, copy.lanes, copy.replicated, copy.clean, forms, allocator)

    def storages(self, node: int) -> list[Storage]:
        """The storages of `node`'s value, as objects of a segment."""
        made = []
        for k, (vectors, planes) in enumerate(self.forms):
            storage = Storage(self.dtype, vectors, planes, (0,) * len(planes), Kind.SCRATCH, 0, -1, vectors, label=f"%{node}")
            storage.slot = (node, k)
            storage.live = False
            made.append(storage)
        return made

    def place(self, again: bool) -> Place:
        """Rows for one value, never given back; `again`: where no scratch of this section has been, since the section runs again."""
        taken = self.allocator.taken(again)
        found = []
        for vectors, planes in self.forms:
            units = sorted({unit for plane in planes for unit in plane})
            spot = self.allocator.highest(units, vectors, taken)
            if spot is None:
                raise self.allocator.full(vectors, [units], "a value between layers")
            bank, base = spot
            self.allocator.used[units, bank, base : base + vectors] = True
            self.allocator.kept[units, bank, base : base + vectors] = True
            found.append(spot)
        return tuple(found)


@dataclass
class Lowered:
    """One section's segment: its timeline, objects and border storages by node."""

    section: Section
    timeline: Timeline
    borders: Mapping[int, list[Storage]]
    written: Array


@dataclass
class Assembly:
    """Sections as they are lowered, then the program."""

    machine: TspMachine
    graph: Graph
    store: ConstantStore
    allocator: Allocator
    options: CompileOptions
    lowered: list[Lowered] = field(default_factory=list)
    slots: dict[int, Slot] = field(default_factory=dict)
    places: dict[int, Place] = field(default_factory=dict)
    turns: dict[int, tuple[Place, Place]] = field(default_factory=dict)
    """Of the section at hand: the two places, in turn, of what its copies hand on."""
    outputs: list[tuple[str, int, list[tuple[tuple[tuple[int, int], ...], Storage]]]] = field(default_factory=list)
    updated: set[Storage] = field(default_factory=set)
    """First storages of states that their section writes: of several places of a state it is read back from such a one."""

    def begin(self, section: Section) -> None:
        """Find second places for what copies of the section hand on, before its scratch takes rows."""
        self.turns = {}
        for number, first in sorted(self.carried(section).items()):
            if self._in_turn(section, number, first) and first in self.slots:
                self.turns[number] = self.slots[first].place(False), self.places[first]

    def carried(self, section: Section) -> dict[int, int]:
        """Nodes of the section whose value the next copy reads -> what the first copy reads in its stead."""
        if section.count == 1:
            return {}
        own = set(section.nodes)
        return {now: first for first, now in mapping(self.graph, section, 1).items() if now in own and first not in own}

    def _in_turn(self, section: Section, node: int, first: int) -> bool:
        """Whether only the next copy reads the value of a node, and nothing after the first copy reads `first`, which that one reads in its
        stead, so that two places in turn do for all copies."""
        graph = self.graph
        low, high = section.nodes[0], section.nodes[0] + section.period * section.count
        kept = {*graph.outputs, *graph.updates.values()}
        if first in kept or any(user > section.nodes[-1] for user in graph.users[first]):
            return False
        return not any(m in kept or any(not low <= user < high for user in graph.users[m]) for m in section.copies(node)[:-1])

    def export(self, section: Section, node: int, slot: Slot) -> None:
        """Remember slot and place of a value for every copy: two places in turn for what only the next copy reads, else one each."""
        turns = self.turns.get(node)
        for c, member in enumerate(section.copies(node)):
            self.slots[member] = slot
            self.places[member] = slot.place(section.count > 1) if turns is None else turns[c % 2]

    def add(self, section: Section, timeline: Timeline, borders: Mapping[int, list[Storage]]) -> None:
        """A lowered section."""
        self.lowered.append(Lowered(section, timeline, borders, self.allocator.here))

    def program(self, bound: Mapping[str, Any]) -> Program:
        """Lay everything out. Raises Infeasible where the machine's chips do not suffice."""
        return _Layout(self).program(bound)


@dataclass
class _Chip:
    """What is placed on one chip."""

    fixed: Array
    """Rows of what lies there from before cycle 0."""
    scratch: Array
    """Rows that some section on this chip uses, and slots."""
    free: dict[tuple[Any, ...], int] = field(default_factory=dict)
    allocations: dict[Any, int] = field(default_factory=dict)
    holder: Array = field(init=False)
    """The allocation that was given each row last, of those that share rows in turn."""
    ends: Array = field(init=False)
    """Cycle in which that allocation is used last, in any of its slices."""

    def __post_init__(self) -> None:
        self.holder = np.full(self.fixed.shape, -1, dtype=np.int64)
        self.ends = np.full(self.fixed.shape, -1, dtype=np.int64)

    def earliest(self, timeline: Timeline, allocations: Sequence[int], rows: Sequence[Mapping[str, int]]) -> int:
        """The first cycle from which a timeline finds its resources free, and its rows used by no other allocation any more."""
        shift = max((self.free[key] - low for key, low in timeline.first.items() if key in self.free), default=0)
        for storage, allocation, where in _shared(timeline, allocations, rows):
            others = self.holder[where] != allocation
            if others.any():
                shift = max(shift, int(self.ends[where][others].max()) + 1 - storage.first)
        return shift

    def run(self, timeline: Timeline, allocations: Sequence[int], rows: Sequence[Mapping[str, int]], shift: int) -> None:
        """Take its resources and rows for a timeline that starts at cycle `shift`."""
        for key, high in timeline.free.items():
            self.free[key] = high + shift
        for storage, allocation, where in _shared(timeline, allocations, rows):
            before = np.where(self.holder[where] == allocation, self.ends[where], -1)
            self.ends[where] = np.maximum(before, storage.last + shift)
            self.holder[where] = allocation


def _shared(
    timeline: Timeline, allocations: Sequence[int], rows: Sequence[Mapping[str, int]]
) -> Iterator[tuple[Storage, int, tuple[list[int], int, slice]]]:
    """(object, allocation, where its rows are) of a timeline's objects on rows that others may have in other cycles."""
    for storage, allocation in zip(timeline.objects, allocations, strict=True):
        if storage.kind in (Kind.SCRATCH, Kind.OUTPUT):
            first = rows[allocation]["row"]
            yield storage, allocation, (sorted(storage.units), rows[allocation]["bank"], slice(first, first + storage.rows))


class _Layout:
    """All instances on chips."""

    def __init__(self, assembly: Assembly) -> None:
        self.assembly = assembly
        self.machine, self.graph = assembly.machine, assembly.graph
        self.chips: list[_Chip] = []
        self.rows: list[dict[str, int]] = []
        self.placements: list[dict[str, int]] = []
        self.filled: dict[int | None, list[tuple[int, Storage]]] = {}
        self.instances: list[dict[str, int]] = []
        self.binds: list[dict[str, int]] = []
        self.segments: list[Segment] = [item.timeline.segment() for item in assembly.lowered]
        self.present: dict[int, list[int]] = {}
        self.inputs: dict[int, list[tuple[int, list[Storage]]]] = {}
        self.image_numbers: dict[Any, int] = {}
        self.end = 0
        self.pool: dict[str, int] = {}
        self.scratch = np.logical_or.reduce([assembly.allocator.kept, *(item.written for item in assembly.lowered)])
        """Rows of one chip that some section or slot uses."""
        for position, item in enumerate(assembly.lowered):
            self._join_provenance(position, item.timeline)

    def _join_provenance(self, position: int, timeline: Timeline) -> None:
        numbers = np.array([self.pool.setdefault(text, len(self.pool)) for text in timeline.provenance] or [0], dtype=np.int32)
        bursts = self.segments[position].tables["bursts"]
        self.segments[position] = Segment(
            self.segments[position].name,
            {**self.segments[position].tables, "bursts": {**bursts, "provenance": numbers[bursts["provenance"]]}},
        )

    # chips ---------------------------------------------------------------------------------------------------------------
    def program(self, bound: Mapping[str, Any]) -> Program:
        """Everything laid out. Raises Infeasible."""
        for position, item in enumerate(self.assembly.lowered):
            for copy in range(item.section.count):
                self._instance(position, item, copy)
        chips = len(self.chips)
        if chips > self.machine.chips:
            raise Infeasible("chips", chips, self.machine.chips, "chips", "the TSP", ("a smaller model", "a shorter sequence"))
        options = self.assembly.options
        return Program(
            "tsp", self.machine.to_json(), tuple(self._bindings()),
            {
                "instances": INSTANCES.from_rows(self.instances), "binds": _columns(BINDS, self.binds),
                "allocations": _columns(ALLOCATIONS, self.rows), "placements": PLACEMENTS.from_rows(self.placements),
                "links": LINKS.from_rows(mesh_links(chips) if chips > 1 else []),
            },
            tuple(self.segments), self._images(), self.end + self.machine.superlanes, dict(bound), tuple(self.pool), dict(options.meta),
        )  # fmt: skip

    def _new_chip(self) -> _Chip:
        chip = _Chip(self.assembly.allocator.reserved.copy(), self.assembly.allocator.kept.copy())
        self.chips.append(chip)
        return chip

    def _instance(self, position: int, item: Lowered, copy: int) -> None:
        names = mapping(self.graph, item.section, copy) if copy else {}
        fixed = [s for s in item.timeline.objects if s.kind in (Kind.CONST, Kind.INPUT, Kind.STATE)]
        chip = self.chips[-1] if self.chips else self._new_chip()
        rows, without = self._plan(chip, item, fixed, names)
        if without is not None and chip.allocations:
            chip = self._new_chip()
            rows, without = self._plan(chip, item, fixed, names)
        if without is not None:
            raise self._no_room(item, without, rows)
        chip.scratch |= item.written
        for storage, bank, row in rows:
            units = sorted(storage.units)
            chip.fixed[units, bank, row : row + storage.rows] = True
            key = self._key(storage, names)
            self._row(len(self.chips) - 1, key, storage, bank, row, storage.kind)
            if storage.kind == Kind.CONST:
                self._image(key, storage, chip.allocations[key])
        number = len(self.chips) - 1
        chip = self.chips[number]
        needed = sorted({names.get(s.slot[0], s.slot[0]) for s in item.timeline.objects if s.slot is not None})
        own = {names.get(n, n) for n in item.section.nodes}
        for value in needed:
            if value not in own and number not in self.present[value]:
                self._transfer(value, self.present[value][-1], number)
        allocations = [self._allocation(number, storage, names, len(self.instances)) for storage in item.timeline.objects]
        shift = max(0, chip.earliest(item.timeline, allocations, self.rows))
        self._run(position, number, item.timeline, allocations, shift)
        for value in own:
            self.present.setdefault(value, []).append(number)
        for node, storages in item.borders.items():
            self.inputs.setdefault(names.get(node, node), []).append((number, storages))

    def _plan(self, chip: _Chip, item: Lowered, fixed: Sequence[Storage], names: Mapping[int, int]) -> tuple[list[Spot], Storage | None]:
        """Rows for everything that is not on the chip yet, large ones first, and the first storage that finds none."""
        if (chip.fixed & item.written & ~self.assembly.allocator.reserved).any():
            return [], item.timeline.objects[0]
        # rows where sections that come later have scratch are left to them while there are others: they may run on this chip too
        found: list[Spot] = []
        without: Storage | None = None
        for scratch in (self.scratch, chip.scratch | item.written):
            found, without = self._rows(chip, chip.fixed | scratch, fixed, names)
            if without is None:
                break
        return found, without

    def _rows(self, chip: _Chip, taken: Array, fixed: Sequence[Storage], names: Mapping[int, int]) -> tuple[list[Spot], Storage | None]:
        """The same in rows that are not `taken` (which is changed)."""
        found: list[Spot] = []
        for storage in sorted(fixed, key=lambda s: -s.rows):
            if self._key(storage, names) in chip.allocations:
                continue
            units = sorted(storage.units)
            spot = self.assembly.allocator.lowest(units, storage.rows, taken)
            if spot is None:
                return found, storage
            bank, row = spot
            taken[units, bank, row : row + storage.rows] = True
            found.append((storage, bank, row))
        return found, None

    def _no_room(self, item: Lowered, storage: Storage, found: Sequence[Spot]) -> Infeasible:
        """The error for a section that an empty chip does not hold: `storage` has no stretch of rows beside what was `found`."""
        taken = self.assembly.allocator.kept | item.written
        for other, bank, row in found:
            taken[sorted(other.units), bank, row : row + other.rows] = True
        longest = max(self.assembly.allocator.longest(sorted(storage.units), bank, taken) for bank in range(self.machine.banks))
        return Infeasible(
            "memory", storage.rows, longest, "rows", f"every bank of {len(storage.units)} slices of one chip, for {storage.label} in "
            f"section {item.section.name}", ("a shorter sequence", "a smaller model"),
        )  # fmt: skip

    def _run(self, segment: int, number: int, timeline: Timeline, allocations: Sequence[int], shift: int) -> None:
        """One instance of a segment on a chip, from cycle `shift`."""
        self.chips[number].run(timeline, allocations, self.rows, shift)
        self.end = max(self.end, timeline.end + shift)
        instance = len(self.instances)
        self.instances.append({"segment": segment, "chip": number, "offset": shift})
        for k, allocation in enumerate(allocations):
            self.binds.append({"instance": instance, "object": k, "allocation": allocation, "row": 0})

    # memory --------------------------------------------------------------------------------------------------------------
    def _key(self, storage: Storage, names: Mapping[int, int]) -> Any:
        source = storage.source
        return (id(storage), None if source is None else names.get(source, source))

    def _allocation(self, number: int, storage: Storage, names: Mapping[int, int], instance: int) -> int:
        chip = self.chips[number]
        if storage.slot is not None:
            node, k = storage.slot
            bank, row = self.assembly.places[names.get(node, node)][k]
            return self._row(number, ("slot", bank, row, storage.units), storage, bank, row, Kind.SCRATCH)
        if storage.kind in (Kind.CONST, Kind.INPUT, Kind.STATE):
            key = self._key(storage, names)
            return chip.allocations[key]
        return self._row(number, ("instance", instance, id(storage)), storage, storage.bank, storage.base, storage.kind)

    def _row(self, number: int, key: Any, storage: Storage, bank: int, row: int, kind: Kind) -> int:
        chip = self.chips[number]
        if key not in chip.allocations:
            pairs = [(u // 44, u % 44) for u in sorted(storage.units)]
            chip.allocations[key] = len(self.rows)
            self.rows.append({
                "kind": int(kind), "chip": number, "bank": bank, "row": row, "rows": storage.rows,
                "west": slice_mask(pairs, 0), "east": slice_mask(pairs, 1),
            })  # fmt: skip
        return chip.allocations[key]

    def _image(self, key: Any, storage: Storage, allocation: int) -> None:
        if key not in self.image_numbers:
            self.image_numbers[key] = len(self.image_numbers)
            self.filled.setdefault(key[1], []).append((self.image_numbers[key], storage))
        self.placements.append({"image": self.image_numbers[key], "allocation": allocation})

    def _images(self) -> dict[str, Array]:
        """The bytes of all images; those of one constant one after the other, so that its array is asked for once."""
        found: dict[int, Array] = {}
        for source, parts in self.filled.items():
            array = None
            if source is not None:
                node = self.graph[source]
                assert isinstance(node, Constant)
                array = (
                    np.asarray(self.assembly.store.get(node.ref.key)).reshape(node.shape).astype(NUMPY[ISA_TYPE[node.dtype]], copy=False)
                )
            for number, storage in parts:
                found[number] = image_of(storage, array)
        return {f"image.{number}": found[number] for number in range(len(found))}

    # transfers -----------------------------------------------------------------------------------------------------------
    def _transfer(self, value: int, source: int, target: int) -> None:
        """Send a value from one chip to another: two segments that run together."""
        slot, place = self.assembly.slots[value], self.assembly.places[value]
        link = next((row for row in mesh_links(self.machine.chips) if {row["chip_a"], row["chip_b"]} == {source, target}), None)
        if link is None:
            raise Infeasible("chips", target + 1, self.machine.chips, "chips", "the TSP", ("a smaller model",))
        out_link = link["link_a"] if link["chip_a"] == source else link["link_b"]
        in_link = link["link_b"] if link["chip_a"] == source else link["link_a"]
        sender = _transfer_segment(self.machine, slot.storages(value), out_link, True, f"send{len(self.segments)}")
        receiver = _transfer_segment(self.machine, slot.storages(value), in_link, False, f"receive{len(self.segments)}")
        ends = [(number, timeline, self._slot_rows(number, timeline, place)) for number, timeline in ((source, sender), (target, receiver))]
        shift = 0
        for number, timeline, allocations in ends:
            away = max((-low for key, low in timeline.first.items() if key[0] == "unit"), default=0)
            shift = max(shift, away, self.chips[number].earliest(timeline, allocations, self.rows))
        for number, timeline, allocations in ends:
            self.segments.append(timeline.segment())
            self._join_provenance(len(self.segments) - 1, timeline)
            self._run(len(self.segments) - 1, number, timeline, allocations, shift)
        self.present[value].append(target)

    def _slot_rows(self, number: int, timeline: Timeline, place: Place) -> list[int]:
        """The allocations of a transfer's objects on a chip."""
        found = []
        for storage in timeline.objects:
            bank, row = place[storage.slot[1]]
            found.append(self._row(number, ("slot", bank, row, storage.units), storage, bank, row, Kind.SCRATCH))
        return found

    # bindings ------------------------------------------------------------------------------------------------------------
    def _bindings(self) -> list[Binding]:
        from .compile import border_parts

        options, found = self.assembly.options, []
        for node in self.graph.nodes:
            if isinstance(node, (Input, State)):
                regions = []
                for number, storages in self._homes(node):
                    chip = self.chips[number]
                    for (box, _), storage in zip(border_parts(node.shape, self.machine.rows), storages, strict=True):
                        regions.append(region(node.shape, box, chip.allocations[id(storage), node.id], storage))
                kind = "input" if isinstance(node, Input) else "state"
                found.append(
                    Binding(
                        node.name, kind, node.dtype.name, tuple(node.shape), STORED[ISA_TYPE[node.dtype]], options.paths.get(node.name, ""),
                        node.range, regions,
                    )
                )  # fmt: skip
        last = len(self.chips) - 1
        final = len(self.instances) - 1
        for name, number, boxes in self.assembly.outputs:
            result = self.graph[number]
            regions = [region(result.shape, box, self.chips[last].allocations["instance", final, id(s)], s) for box, s in boxes]
            found.append(
                Binding(
                    name,
                    "output",
                    result.dtype.name,
                    tuple(result.shape),
                    STORED[ISA_TYPE[result.dtype]],
                    options.paths.get(name, ""),
                    None,
                    regions,
                )
            )
        return found

    def _homes(self, node: Input | State) -> list[tuple[int, list[Storage]]]:
        """Where a source lies: at least one place, even where nothing reads it."""
        seen: dict[Any, tuple[int, list[Storage]]] = {}
        for number, storages in self.inputs.get(node.id, []):
            seen.setdefault((number, id(storages[0])), (number, storages))
        if not seen:
            from .compile import border_parts

            storages = []
            for _, count in border_parts(node.shape, self.machine.rows):
                kind = Kind.INPUT if isinstance(node, Input) else Kind.STATE
                storage = self.assembly.allocator.linear(ISA_TYPE[node.dtype], count, kind, frozenset(), node.name)
                storage.source = node.id
                units = sorted(storage.units)
                taken = self.chips[0].fixed | self.chips[0].scratch
                spot = self.assembly.allocator.lowest(units, count, taken)
                if spot is None:
                    raise self.assembly.allocator.full(count, [units], node.name)
                bank, row = spot
                self.chips[0].fixed[units, bank, row : row + count] = True
                self._row(0, (id(storage), node.id), storage, bank, row, kind)
                storages.append(storage)
            seen[0, 0] = (0, storages)
        return sorted(seen.values(), key=lambda home: home[1][0] not in self.assembly.updated)


def region(shape: Sequence[int], box: Sequence[tuple[int, int]], allocation: int, storage: Storage) -> dict[str, Any]:
    """One region of a binding, as machines/tsp/tables.py describes it."""
    extents = [n for _, n in box]
    tiles = -(-extents[-1] // LANES)
    vectors = [int(np.prod(extents[d + 1 : -1], dtype=np.int64)) * tiles for d in range(len(extents) - 1)] + [1]
    scalar = not len(shape)
    return {
        "allocation": allocation, "row": 0, "start": [] if scalar else [a for a, _ in box], "shape": [] if scalar else extents,
        "lane_axis": None if scalar else len(shape) - 1, "lane_tile": LANES, "lane_offset": 0, "broadcast": False,
        "strides": [] if scalar else vectors, "planes": [[[u // 44, u % 44] for u in plane] for plane in storage.planes],
    }  # fmt: skip


def image_of(storage: Storage, array: Array | None) -> Array:
    """The bytes of a constant storage as [slices ascending, rows, 320]."""
    assert storage.image is not None
    rows = storage.image(array)
    width = WIDTH[storage.dtype]
    data = np.ascontiguousarray(rows, dtype=NUMPY[storage.dtype])
    if rows.shape[1] < LANES:
        data = np.pad(data, ((0, 0), (0, LANES - rows.shape[1])))
    planes = data.view("u1").reshape(storage.vectors, LANES, width)
    units = sorted(storage.units)
    place = {unit: k for k, unit in enumerate(units)}
    image = np.zeros((len(units), storage.rows, LANES), dtype=np.uint8)
    for p, plane in enumerate(storage.planes):
        for j, unit in enumerate(plane):
            part = planes[j :: storage.stripes, :, p]
            image[place[unit], storage.offsets[p] : storage.offsets[p] + len(part)] = part
    return image


def _columns(table: Any, rows: Sequence[Mapping[str, int]]) -> dict[str, Array]:
    columns = {column.name: [row.get(column.name, column.default) for row in rows] for column in table.columns}
    return dict(table.from_columns(len(rows), **columns))


def _transfer_segment(machine: TspMachine, storages: Sequence[Storage], link: int, sends: bool, name: str) -> Timeline:
    """Vectors of all byte planes, one every `c2c_interval` cycles, from memory to a link or from a link to memory."""
    geometry = Geometry.of(machine)
    side = link // 8
    step = Step(machine, geometry, name)
    seq = Seq.chain(storages)
    unit = sxm_unit(side, Class.C2C)
    x = int(geometry.c2c_x(side))
    homes = np.array([next(iter(s.units)) // 44 for s in seq.storages])[seq.which]
    start = 0
    for home in (0, 1):
        index = np.flatnonzero(homes == home)
        for plane in range(WIDTH[seq.dtype]):
            if not len(index):
                continue
            part = seq.take(index)
            tau = start + machine.c2c_interval * np.arange(len(index))
            start = int(tau[-1]) + machine.c2c_interval
            if sends:
                take = int(geometry.c2c_take(side, side))
                step.read(part, plane, tau, x, side, plane, take)
                step.hold(("link", link, sends), int(tau[0]), start - 1)
                for run in runs((tau,)):
                    step.burst(run, unit=unit, opcode=Opcode.SEND, link=link, a_stream=plane, a_dir=side)
            else:
                tau = tau + machine.c2c_hop
                step.hold(("link", link, sends), int(tau[0]), int(tau[-1]) + machine.c2c_interval - 1)
                until = step.write(part, plane, tau, x, 1 - side, plane)
                for value in np.unique(until).tolist():
                    mine = np.flatnonzero(until == value)
                    for run in runs((tau[mine],)):
                        step.burst(run, [Out(plane, 1 - side, value)], unit=unit, opcode=Opcode.RECEIVE, link=link)
                    step.hold_stream(plane, 1 - side, x, value, int(tau[mine[0]]), int(tau[mine[-1]]))
    timeline = Timeline(name)
    timeline.put(step)
    return timeline
