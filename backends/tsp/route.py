"""Placing and routing chains of vector operations on the 4 x 4 ALU grid (docs/tsp-model.md section 4).

A chain is a small DAG in which every operand comes from the level just before (`balance` inserts IDENTITY stages), so that operand
times agree without waiting: an operation of level l takes its operands 3 l cycles after level 0. `place` searches, by depth-first
backtracking, an ALU for every operation and a stream group for every value: groups must be in reach of producer and consumers (VX-3),
a value moves on only downstream (VX-2), and no two values may share a (direction, group) where their extents meet.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

from ...machines.tsp.isa import LARGE_ALUS, OPS, ROW_REACH, DType, Opcode

Ref = tuple[str, int]
"""("in", input number) or ("op", operation number)."""
Lane = tuple[int, int]
"""(direction, SG4 number)."""
OUTSIDE = 99


@dataclass(frozen=True)
class ChainOp:
    """One ALU operation; `first`/`last` mark an accumulation, `after` operations that work on its results only."""

    opcode: Opcode
    dtype: DType
    args: tuple[Ref, ...]
    dtype2: DType = DType.NONE
    modular: int = 0
    after: bool = False
    level: int = -1
    """Stage of the chain, where balancing has fixed it."""


@dataclass(frozen=True)
class Chain:
    """Operations in order of dependence, the direction from which every input comes and those to which results go."""

    ops: tuple[ChainOp, ...]
    inputs: tuple[int, ...]
    outputs: tuple[tuple[int, int], ...]
    """(operation, direction) pairs, sorted."""
    forbidden: frozenset[Lane] = frozenset()


@dataclass(frozen=True)
class Placement:
    """ALU of every operation, lane of every input and the lanes that every operation drives, with the lane of each operand."""

    alus: tuple[int, ...]
    inputs: tuple[Lane, ...]
    operands: tuple[tuple[Lane, ...], ...]
    drives: tuple[tuple[tuple[Lane, int], ...], ...]
    """Per operation: (lane, rank r' of the last reader inside the unit, OUTSIDE for a result that leaves)."""


def levels(ops: Sequence[ChainOp]) -> list[int]:
    """Level of every operation: as balancing fixed it, else one more than its latest operand."""
    found: list[int] = []
    for op in ops:
        if op.level >= 0:
            found.append(op.level)
            continue
        found.append(1 + max((found[k] for kind, k in op.args if kind == "op"), default=-1))
    return found


def balance(ops: Sequence[ChainOp], fixed: Sequence[bool], types: Sequence[DType]) -> tuple[list[ChainOp], list[int]]:
    """Insert IDENTITY stages so that every operand comes from the level before.

    `fixed[j]`: input j is one stream and needs stages too where it is read at several levels (others are read again for every use);
    `types[j]` is its format. Returns the operations and the new number of every old one.
    """
    level = levels(ops)
    start: dict[int, int] = {}
    for op, at in zip(ops, level, strict=True):
        for kind, k in op.args:
            if kind == "in" and fixed[k]:
                start[k] = min(start.get(k, at), at)
    new: list[ChainOp] = []
    renamed: list[int] = []
    delayed: dict[tuple[Ref, int], Ref] = {}

    def at_level(ref: Ref, wanted: int, dtype: DType, after: bool) -> Ref:
        kind, k = ref
        ready = level[k] + 1 if kind == "op" else start[k]
        current: Ref = ("op", renamed[k]) if kind == "op" else ref
        for stage in range(ready, wanted):
            key = (ref, stage)
            if key not in delayed:
                new.append(ChainOp(Opcode.IDENTITY, dtype, (current,), after=after, level=stage))
                delayed[key] = ("op", len(new) - 1)
            current = delayed[key]
        return current

    for op, at in zip(ops, level, strict=True):
        args = []
        for ref in op.args:
            kind, k = ref
            if kind == "in" and not fixed[k]:
                args.append(ref)
            else:
                source_type = result_type(ops[k]) if kind == "op" else types[k]
                after = op.after and (kind == "in" or ops[k].after or is_accumulation(ops[k]))
                args.append(at_level(ref, at, source_type, after))
        new.append(replace(op, args=tuple(args), level=at))
        renamed.append(len(new) - 1)
    return new, renamed


def is_accumulation(op: ChainOp) -> bool:
    """True for acc operations, after which only every last element goes on."""
    return op.opcode in (Opcode.ACC_ADD, Opcode.ACC_MAX, Opcode.ACC_MIN)


def result_type(op: ChainOp) -> DType:
    """Format of the result."""
    converts = op.opcode == Opcode.CAST or Opcode.EQ <= op.opcode <= Opcode.LE
    return op.dtype2 if converts else op.dtype


@lru_cache(maxsize=4096)
def place(chain: Chain, budget: int = 3000) -> Placement | None:
    """A placement, or None where the search finds none within `budget` tried operations."""
    return _Search(chain, budget).run()


def _rank(alu: int, direction: int) -> int:
    rank = alu % 4
    return rank if direction else 3 - rank


class _Search:
    """Depth-first over operations in order; state is undone on return."""

    def __init__(self, chain: Chain, budget: int) -> None:
        self.chain = chain
        self.left = budget
        self.alus: list[int] = []
        self.inputs: dict[int, Lane] = {}
        self.operands: list[tuple[Lane, ...]] = []
        self.tracks: dict[tuple[Ref, Lane], list[int]] = {}
        self.extents: dict[Lane, list[list[int]]] = {}
        self.exits: dict[int, list[int]] = {}
        for op, direction in chain.outputs:
            self.exits.setdefault(op, []).append(direction)

    def run(self) -> Placement | None:
        if not self._op(0):
            return None
        drives = []
        for number in range(len(self.chain.ops)):
            mine = [(lane, self._reader(track)) for (ref, lane), track in self.tracks.items() if ref == ("op", number)]
            drives.append(tuple(sorted(mine)))
        lanes = tuple(self.inputs.get(j, (0, 0)) for j in range(len(self.chain.inputs)))
        return Placement(tuple(self.alus), lanes, tuple(self.operands), tuple(drives))

    @staticmethod
    def _reader(track: list[int]) -> int:
        return OUTSIDE if track[1] == OUTSIDE else track[1] // 2

    def _op(self, number: int) -> bool:
        if number == len(self.chain.ops):
            return True
        op = self.chain.ops[number]
        for alu in self._alus(op):
            self.left -= 1
            if self.left < 0:
                return False
            self.alus.append(alu)
            if self._args(number, alu, 0, ()):
                return True
            self.alus.pop()
        return False

    def _alus(self, op: ChainOp) -> list[int]:
        large = OPS[op.opcode].large
        free = [alu for alu in range(16) if alu not in self.alus and (not large or alu in LARGE_ALUS)]
        return free if large else sorted(free, key=lambda alu: (alu in LARGE_ALUS, alu))

    def _args(self, number: int, alu: int, position: int, chosen: tuple[Lane, ...]) -> bool:
        op = self.chain.ops[number]
        if position == len(op.args):
            self.operands.append(chosen)
            if self._exit(number, alu, 0):
                return True
            self.operands.pop()
            return False
        ref = op.args[position]
        for lane in self._lanes(ref, alu):
            if any(other[1] == lane[1] and other[0] != lane[0] for other in chosen):
                continue
            undo = self._extend(ref, lane, 2 * _rank(alu, lane[0]))
            if undo is None:
                continue
            if self._args(number, alu, position + 1, (*chosen, lane)):
                return True
            undo()
        return False

    def _lanes(self, ref: Ref, alu: int) -> Iterator[Lane]:
        kind, k = ref
        reach = ROW_REACH[alu // 4]
        if kind == "in":
            if k in self.inputs:
                if self.inputs[k][1] in reach:
                    yield self.inputs[k]
                return
            direction = self.chain.inputs[k]
            lanes = [(direction, group) for group in reach]
        else:
            source = self.alus[k]
            shared = [group for group in ROW_REACH[source // 4] if group in reach]
            lanes = []
            for direction in (1, 0):
                if _rank(alu, direction) > _rank(source, direction):
                    lanes += [(direction, group) for group in shared]
            lanes.sort(key=lambda lane: (ref, lane) not in self.tracks)
        yield from (lane for lane in lanes if lane not in self.chain.forbidden)

    def _extend(self, ref: Ref, lane: Lane, to: int):  # type: ignore[no-untyped-def]
        """Make the value `ref` reach sub position `to` on `lane`; returns the undo, or None where it would meet another value."""
        key = (ref, lane)
        track = self.tracks.get(key)
        if track is not None:
            old = track[1]
            if old >= to:
                return lambda: None
            if any(other is not track and other[0] <= to and other[1] > old for other in self.extents[lane]):
                return None
            track[1] = to

            def shrink() -> None:
                track[1] = old

            return shrink
        low = -1 if ref[0] == "in" else 2 * _rank(self.alus[ref[1]], lane[0]) + 1
        if any(other[0] <= to and other[1] >= low for other in self.extents.get(lane, ())):
            return None
        created = [low, to]
        self.tracks[key] = created
        self.extents.setdefault(lane, []).append(created)
        fresh = ref[0] == "in"
        if fresh:
            self.inputs[ref[1]] = lane

        def remove() -> None:
            del self.tracks[key]
            self.extents[lane] = [track for track in self.extents[lane] if track is not created]
            if fresh:
                del self.inputs[ref[1]]

        return remove

    def _exit(self, number: int, alu: int, position: int) -> bool:
        directions = self.exits.get(number, [])
        if position == len(directions):
            return self._op(number + 1)
        for group in ROW_REACH[alu // 4]:
            lane = (directions[position], group)
            if lane in self.chain.forbidden:
                continue
            undo = self._extend(("op", number), lane, OUTSIDE)
            if undo is None:
                continue
            if self._exit(number, alu, position + 1):
                return True
            undo()
        return False
