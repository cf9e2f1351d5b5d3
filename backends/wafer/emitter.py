"""Writes the bursts of one rectangle of cores, one after another on one clock.

The emitter owns what scheduling needs: the clock, the memory of a core, the builder of the segment's tables and the constants that the
segment wants. A burst starts when the one before it has ended on all its cores (AFTER), when its wavelets arrive (ARRIVE), or at a
cycle that the compiler waits for (HOLD, where the cores before it ended at different cycles). Elementwise nests of any rank are cut to
the machine's four extents here, with the innermost extent chosen for the fewest beats.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from math import gcd, prod
from typing import Any

from ...machines.wafer import timing
from ...machines.wafer.builder import NO_OPERAND, Operand, Range, SegmentBuilder, full, imm, mem
from ...machines.wafer.description import WaferMachine
from ...machines.wafer.isa import WORDS, Element, Fmt, Op, OpRow, find
from ...machines.wafer.tables import NONE, ObjectKind, Trigger
from .layout import Ref, Splits, X, Y
from .memory import BANKS, Words

Scalar = Ref | float | None
_Vector = tuple[int, Element, tuple[int, ...], bool]
"""What a beat count sees of a memory vector (`timing.Vector`), its address modulo the banks."""


@dataclass(frozen=True)
class Role:
    """The cores that run a burst: progressions of rows and columns of the rectangle."""

    rows: Range
    cols: Range

    def covers(self, other: Role) -> bool:
        """Whether every core of `other` is in this role (exact for step 1, else only equality counts)."""
        return all(
            mine == theirs or (mine[2] == 1 and mine[0] <= theirs[0] and theirs[1] <= mine[1])
            for mine, theirs in ((self.rows, other.rows), (self.cols, other.cols))
        )

    @property
    def empty(self) -> bool:
        return self.rows[0] >= self.rows[1] or self.cols[0] >= self.cols[1]


@dataclass(frozen=True)
class Last:
    """The burst before: its id, role, and the cycle at which it ends on all its cores (None where cores differ)."""

    burst: int
    role: Role
    end: int | None


@dataclass(frozen=True)
class Line:
    """One collective along mesh axis `m`: members, length of the line, the lines that take part, elements, wavelets and their common
    span. `first` is the first of its bursts."""

    m: int
    members: int
    length: int
    across: Range
    size: int
    n: int
    span: int
    fmt: Fmt
    beats: tuple[int, int, int, int]
    """Beats of a send, of a fused receive and send, of a receive that adds, and of a plain receive."""
    first: int


class Emitter:
    """Collects one region's bursts. `now` is the cycle at which every core of the rectangle is free."""

    def __init__(
        self, machine: WaferMachine, name: str, rows: int, cols: int, reserve: int, counted: dict[tuple[Any, ...], int] | None = None
    ) -> None:
        self.machine = machine
        self.counted = {} if counted is None else counted
        """Beats of bursts by what they depend on, shared by the rectangles of a program."""
        self.rows, self.cols = rows, cols
        self.builder = SegmentBuilder(name)
        self.region = self.builder.region(cols, rows)
        self.words = Words(machine.data_first_word, machine.memory_words, reserve)
        self.now = 0
        self.prov = NONE
        self.last: Last | None = None
        self.lines: list[Line] = []
        """Collectives in the order of their bursts."""
        self.address: dict[int, int] = {}
        self.qin, self.qout = min(machine.input_queues), min(machine.output_queues)

    # ---- memory

    def role(self, splits: Splits = (None, None)) -> Role:
        """Cores that take part in a nest with these splits."""
        y, x = splits[Y], splits[X]
        return Role(full(y.count if y else self.rows), full(x.count if x else self.cols))

    def object(self, fmt: Element, ext: Sequence[int], kind: ObjectKind = ObjectKind.SCRATCH, pitch: Sequence[int] | None = None) -> int:
        """A new block of memory with these extents, dense or with the strides `pitch`. Raises Full."""
        words = (1 + sum((n - 1) * s for n, s in zip(ext, pitch, strict=True)) if pitch else prod(ext)) * WORDS[fmt]
        fixed = kind in (ObjectKind.WEIGHT, ObjectKind.CONSTANT, ObjectKind.STATE)
        address = self.words.constant(words) if fixed else self.words.take(words)
        obj = self.builder.object(self.region, address, fmt, ext, kind, stride=pitch or (), prov=self.prov)
        self.address[obj] = address
        return obj

    def scratch(self, fmt: Element, size: int) -> Ref:
        """A dense one-dimensional scratch block."""
        return Ref(self.object(fmt, (size,)), fmt, 0, (1,))

    def free(self, obj: int) -> None:
        """The block is not read any more."""
        self.words.give(self.address[obj])

    def mark(self) -> tuple[Any, ...]:
        """A state to return to with `back`."""
        b = self.builder
        counts = (len(b.objects), len(b.bursts), len(b.vectors), len(b.routes), len(b.loops), len(self.lines))
        return (self.words.copy(), self.now, self.last, counts, dict(self.address))

    def back(self, mark: tuple[Any, ...]) -> None:
        """Forget everything emitted since `mark`."""
        words, self.now, self.last, (objects, bursts, vectors, routes, loops, lines), address = mark
        self.words = words.copy()
        self.address = dict(address)
        b = self.builder
        del b.objects[objects:], b.bursts[bursts:], b.vectors[vectors:], b.routes[routes:], b.loops[loops:], self.lines[lines:]

    # ---- bursts

    def beats(self, row: OpRow, ext: Sequence[int], d: Operand, a: Operand, b: Operand, s: Operand, wavelets: int = 0) -> int:
        """Beats of one burst, as the machine counts them (T2)."""
        extents = (1,) * (4 - len(ext)) + tuple(ext)

        def vector(operand: Operand, fmt: Element | None) -> _Vector | None:
            if operand.obj == NONE or fmt is None:
                return None
            moves = any((operand.step[0] * phase * WORDS[fmt]) % BANKS for phase in (operand.py, operand.px))
            return (self.address[operand.obj] + operand.addr) % BANKS, fmt, _strides(operand, extents), moves

        scalar = _strides(s, extents) if s.obj != NONE else None
        key = (row.op, row.fmt, extents, vector(d, row.d), vector(a, row.a), vector(b, row.b), scalar, wavelets)
        if key not in self.counted:
            v, w, x = (timing.Vector(*v) if v is not None else None for v in key[3:6])
            self.counted[key] = timing.beats(self.machine, row, extents, v, w, x, scalar, False, wavelets, 1)  # type: ignore[arg-type]
        return self.counted[key]

    def put(
        self, op: Op, fmt: Fmt, role: Role, ext: Sequence[int], d: Operand = NO_OPERAND, a: Operand = NO_OPERAND,
        b: Operand = NO_OPERAND, s: Operand = NO_OPERAND, **rest: Any,
    ) -> int:  # fmt: skip
        """One local burst at `now` on all cores of the role; the clock moves to its end. Returns its id."""
        span = self.beats(find(op, fmt), ext, d, a, b, s)
        trigger, after = self.reason(role)
        burst = self.builder.burst(
            self.region, op, fmt, self.now, span, rows=role.rows, cols=role.cols, d=d, a=a, b=b, s=s, ext=ext,
            trigger=trigger, after=after, prov=self.prov, **rest,
        )  # fmt: skip
        self.now += span
        self.last = Last(burst, role, self.now)
        return burst

    def reason(self, role: Role) -> tuple[Trigger, tuple[int, ...]]:
        """Why a burst that starts at `now` on `role` starts then."""
        if self.last is None:
            return (Trigger.AFTER if self.now == 0 else Trigger.HOLD), ()
        if not self.last.role.covers(role):
            return Trigger.HOLD, ()
        exact = self.last.end is not None and self.last.end == self.now
        return (Trigger.AFTER if exact else Trigger.HOLD), (self.last.burst,)

    def vec(
        self, op: Op, fmt: Fmt, role: Role, axes: Sequence[int], d: Ref, a: Scalar = None, b: Scalar = None, s: Scalar = None,
        *, inner: int | None = None, look: tuple[int, int, int, int, int] | None = None,
    ) -> None:  # fmt: skip
        """A local nest over `axes` (extents; the strides of every Ref belong to them), as one burst or several.

        `inner` names the axis that must be the vector (-1: a vector of one element); else the axis of fewest beats is taken.
        """
        operands = (d, a, b, s)
        refs = [r for r in operands if isinstance(r, Ref)]
        runs = _runs(axes, refs, inner)
        row = find(op, fmt)
        choices = [_ordered(runs, k, len(refs)) for k in ([-1] if inner == -1 else [0] if inner is not None else range(-1, len(runs)))]
        legal = [order for order in choices if _inner_legal(order[-1])]
        if not legal:
            legal = [_ordered(runs, -1, len(refs))]
        best: tuple[int, list[Run]] | None = None
        for order in legal:
            ext = [n for n, _ in order]
            cost = self.beats(row, ext[-4:], *self._operands(operands, order[-4:], ())) * prod(ext[:-4])
            if best is None or cost < best[0]:
                best = (cost, order)
        assert best is not None
        order = best[1]
        rest: dict[str, Any] = {} if look is None else {"look": look}
        outer = order[:-4]
        for point in product(*(range(n) for n, _ in outer)):
            shift = [(k, strides) for k, (_, strides) in zip(point, outer, strict=True)]
            ops = self._operands(operands, order[-4:], shift)
            self.put(op, fmt, role, [n for n, _ in order[-4:]], *ops, **rest)

    def _operands(
        self, operands: Sequence[Scalar], order: Sequence[Run], shift: Sequence[tuple[int, tuple[int, ...]]]
    ) -> tuple[Operand, Operand, Operand, Operand]:
        made = []
        number = 0
        for r in operands:
            if not isinstance(r, Ref):
                made.append(NO_OPERAND if r is None else imm(float(r)))
                continue
            outer = sum(k * strides[number] for k, strides in shift)
            step = gcd(abs(r.per_row), abs(r.per_col))
            py, px = (r.per_row // step, r.per_col // step) if step else (0, 0)
            strides_of = tuple(strides[number] for _, strides in order)
            made.append(mem(r.obj, *strides_of, addr=(r.base + outer) * WORDS[r.fmt], step=step, py=py, px=px))
            number += 1
        return (made[0], made[1], made[2], made[3])


def _strides(operand: Operand, extents: Sequence[int]) -> tuple[int, ...]:
    """Strides of all four extents, 0 where an extent is 1."""
    strides = (0,) * (4 - len(operand.stride)) + operand.stride
    return tuple(n if e > 1 else 0 for n, e in zip(strides, extents, strict=True))


Run = tuple[int, tuple[int, ...]]
"""An extent and the stride of every memory operand along it."""


def _runs(axes: Sequence[int], refs: Sequence[Ref], inner: int | None) -> list[Run]:
    """The nest with extents of 1 dropped and neighbours merged where every operand walks them as one; with `inner` that axis comes first
    and is never merged."""
    runs = [(n, tuple(r.strides[x] for r in refs)) for x, n in enumerate(axes) if n > 1 and x != inner]
    changed = True
    while changed:
        changed = False
        for i in range(len(runs)):
            for j in range(len(runs)):
                n, inside = runs[j]
                together = runs[i][0] * n < 65536 and all(p == q * n for p, q in zip(runs[i][1], inside, strict=True))
                if i != j and together:
                    merged = (runs[i][0] * n, inside)
                    runs = [merged if k == j else run for k, run in enumerate(runs) if k != i]
                    changed = True
                    break
            if changed:
                break
    if inner is not None and inner >= 0:
        return [(axes[inner], tuple(r.strides[inner] for r in refs)), *runs]
    return runs


def _ordered(runs: Sequence[Run], last: int, width: int) -> list[Run]:
    """The runs with number `last` innermost; -1 adds a vector of one element instead (`width` operands)."""
    if last < 0:
        return [*runs, (1, (0,) * width)]
    return [run for k, run in enumerate(runs) if k != last] + [runs[last]]


def _inner_legal(run: Run) -> bool:
    """C8: what the innermost extent may be."""
    return run[0] < 65536 and all(-128 <= stride <= 127 for stride in run[1])
