"""The plan of a segment: its steps once analysed, run for every instance.

Groups of steps that are one thing together become one action (`collectives`): line sums and spreads, found by following the deliveries of
their bursts, and only where nothing else reads or writes the elements in between. A step whose write is all that its object holds
afterwards is marked, so that equal rows or columns can be stored once. Nothing here depends on data, names or the layer that emitted the
program; the order of additions stays the machine's, except where products are joined (N6, not with `exact`).
"""

from __future__ import annotations

from bisect import insort
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from ...machines.wafer import tables as tb
from ...machines.wafer.isa import Op, Semantics
from .addresses import nest, reads, start, writes
from .collectives import Cells, LineSum, Run, Spread
from .deliveries import Deliveries
from .elementwise import Elementwise
from .events import Event
from .fields import operand_range
from .held import Held, among, role_of
from .liveness import FILLED
from .lookups import lowest
from .model import BurstView, Ints, SegmentView
from .order import Step, Wave, unfolded
from .parts import Parts
from .products import kinds_of, summed_extents
from .storage import dense, gapless

MEM, FABRIC, IMM, NO = tb.OperandKind.MEM, tb.OperandKind.FABRIC, tb.OperandKind.IMM, tb.OperandKind.NONE
Key = tuple[int, int, int]


@dataclass
class Plan:
    """What the engine runs: steps and actions in order, how many cores copy from each sending event's buffer, and the objects that are
    used for the last time by each action."""

    actions: list[Any]
    uses: dict[Key, int]
    done: dict[int, list[int]]
    bound: dict[int, Elementwise | None] = field(default_factory=dict)
    """By number of the action: steps that have been found to be such ones."""


def make_plan(
    seg: SegmentView, deliveries: Deliveries, steps: Sequence[Any], held: Collection[int], kept: Collection[int], exact: bool, plain: bool
) -> Plan:
    """The plan of a segment. `held` are objects whose words hold something before the segment starts, `kept` those that are read after it
    has ended, for this instance; `plain`: step by step, where objects of the instance are the same words."""
    actions = unfolded(steps) if plain else _Planner(seg, deliveries, steps, held, kept, exact).actions()
    return Plan(actions, count_uses(actions, deliveries), last_uses(actions))


def bursts_of(action: Any) -> Sequence[BurstView]:
    """The bursts that an action evaluates."""
    if isinstance(action, Wave):
        return [event.burst for event in action.events]
    return (action.event.burst,) if isinstance(action, Step) else action.bursts


def events_of(action: Any) -> Sequence[Event]:
    """The events of a step or a wave."""
    if isinstance(action, Wave):
        return action.events
    return (action.event,) if isinstance(action, Step) else ()


def last_uses(actions: Sequence[Any]) -> dict[int, list[int]]:
    """Objects by the number of the last action that touches them."""
    last: dict[int, int] = {}
    for number, action in enumerate(actions):
        for burst in bursts_of(action):
            for name in tb.OPERANDS:
                operand = burst.operand(name)
                if operand.kind is MEM:
                    last[operand.obj] = number
    out: dict[int, list[int]] = {}
    for obj, number in sorted(last.items()):
        out.setdefault(number, []).append(obj)
    return out


def count_uses(actions: Sequence[Any], deliveries: Deliveries) -> dict[Key, int]:
    """How many cores will copy from each sending event's buffer."""
    uses: dict[Key, int] = {}
    for event in receiving(actions):
        delivery = deliveries.of(event)
        for part in delivery.parts if delivery else ():
            uses[part.send] = uses.get(part.send, 0) + len(part.at)
    return uses


def receiving(actions: Iterable[Any]) -> list[Event]:
    """The events that receive, each once."""
    found = {event.key: event for a in actions for event in events_of(a) if event.burst.n_in}
    return list(found.values())


class _Planner:
    """Turns steps into actions; positions in `items` stay, what is taken up becomes None."""

    def __init__(
        self, seg: SegmentView, deliveries: Deliveries, steps: Sequence[Any], held: Collection[int], kept: Collection[int], exact: bool
    ) -> None:
        self.seg, self.deliveries, self.held, self.kept, self.exact = seg, deliveries, held, kept, exact
        self.items: list[Any] = list(steps)
        self.places: dict[Key, list[int]] = {}
        self.events: dict[Key, Event] = {}
        self.takers: dict[Key, list[Event]] = {}
        self._of_burst: dict[int, frozenset[int]] = {}
        self._known: dict[bytes, Ints | None] = {}
        self._axes: dict[int, int | None] = {}
        for number, item in enumerate(self.items):
            for event in events_of(item):
                self.places.setdefault(event.key, []).append(number)
                self.events[event.key] = event
        self.touched = self._touched()
        self.uses = count_uses(self.items, deliveries)
        for event in receiving(self.items):
            for key in {part.send for part in self._parts(event)}:
                self.takers.setdefault(key, []).append(event)

    def actions(self) -> list[Any]:
        """The plan's actions."""
        for event in list(self.events.values()):
            if event.key in self.events and _is_root(event.burst):
                self._line(event)
        for event in list(self.events.values()):
            if event.key in self.events and _is_move(event.burst) and event.burst.n_out:
                self._spread(event)
        self.items = unfolded(item for item in self.items if item is not None)
        self.touched = self._touched()
        self._cover()
        return [item for item in self.items if item is not None]

    def _touched(self) -> dict[int, list[int]]:
        """Places of the actions that touch an object."""
        out: dict[int, list[int]] = {}
        for number, item in enumerate(self.items):
            for obj in {obj for burst in bursts_of(item) for obj in self._objects(burst)}:
                out.setdefault(obj, []).append(number)
        return out

    def _objects(self, burst: BurstView) -> frozenset[int]:
        """Objects that a burst reads or writes."""
        if burst.row not in self._of_burst:
            self._of_burst[burst.row] = frozenset(burst.operand(p).obj for p in (*reads(burst), *writes(burst)))
        return self._of_burst[burst.row]

    # -- groups --------------------------------------------------------------------------------------------------------------------

    def _parts(self, event: Event) -> Sequence[Any]:
        delivery = self.deliveries.of(event)
        return delivery.parts if delivery else ()

    def _run(self, event: Event, name: str) -> Run | None:
        """An operand as a run, None where it is none."""
        burst = event.burst
        operand = burst.operand(name)
        first = start(burst, operand, event.k, event.outer, self.seg)
        if first.ndim or not dense(burst.ext, operand.stride):
            return None
        return Run(operand.obj, int(first), burst.count)

    def _line(self, root: Event) -> None:
        """Join the events that send to `root` through cores that each add their own elements."""
        own, into = self._run(root, _own(root.burst)), self._run(root, "d")
        if own is None or into is None:
            return
        feeds = np.full(self.seg.w * self.seg.h, -1)
        members, todo, taken = {root.key: root}, [root], dict[Key, int]()
        while todo:
            event = todo.pop()
            flat = event.burst.core_ids.reshape(-1)
            if (feeds[flat] >= 0).any():
                return
            for part in self._parts(event):
                feeds[flat[part.at]] = part.src
                taken[part.send] = taken.get(part.send, 0) + len(part.at)
                if part.send in members:
                    continue
                sender = self.events.get(part.send)
                if sender is None or not self._passes_on(sender, root, own):
                    return
                members[part.send] = sender
                if sender.burst.n_in:
                    todo.append(sender)
        lines, count = self._lines(root.burst.core_ids.reshape(-1), feeds), sum(event.burst.cores for event in members.values())
        if lines is None or lines.size != count or any(self.uses[key] != n or n != members[key].burst.cores for key, n in taken.items()):
            return
        last = self._join(members, {own.obj}, {into.obj})
        if last is not None:
            region = root.burst.region
            bursts = tuple(event.burst for event in members.values())
            self.items[last] = LineSum(bursts, region, self._in_region(root.burst, lines), own, into, root.burst)

    def _lines(self, ends: Ints, feeds: Ints) -> Ints | None:
        """`_follow`, None where two lines share a core; the same array for equal lines."""
        key = ends.tobytes() + feeds.tobytes()
        if key not in self._known:
            lines = _follow(ends, feeds)
            self._known[key] = lines if lines is not None and lines.size == np.count_nonzero(among(lines, len(feeds))) else None
        return self._known[key]

    def _passes_on(self, sender: Event, root: Event, own: Run) -> bool:
        """Whether a sender adds its own elements to what it receives, or begins a line with them."""
        burst = sender.burst
        if burst.region.id != root.burst.region.id or burst.op.fmt is not root.burst.op.fmt or burst.d.kind is not FABRIC:
            return False
        if burst.n_in:
            alike = burst.op is root.burst.op and burst.a.kind is root.burst.a.kind and burst.s.kind is NO
            return alike and self._run(sender, _own(burst)) == own
        return _is_move(burst) and self._run(sender, "a") == own

    def _in_region(self, burst: BurstView, cores: Ints) -> Ints:
        """Cores of the frame as flat positions in a burst's region."""
        r = burst.region
        if (r.x, r.y, r.w) == (0, 0, self.seg.w):
            return cores
        return np.asarray((cores // self.seg.w - r.y) * r.w + cores % self.seg.w - r.x)

    def _spread(self, send: Event) -> None:
        """Join a sender with the cores that store what it sends."""
        taken, takers = self._run(send, "a"), self.takers.get(send.key, [])
        if taken is None or not takers:
            return
        given = self._run(takers[0], "d") if _is_move(takers[0].burst) else None
        if given is None or self.seg.objects[given.obj].fmt is not self.seg.objects[taken.obj].fmt:
            return
        source, target = [], []
        for event in takers:
            parts = self._parts(event)
            if not _is_move(event.burst) or self._run(event, "d") != given or any(part.send != send.key for part in parts):
                return
            source += [part.src for part in parts]
            target += [event.burst.core_ids.reshape(-1)[part.at] for part in parts]
        src, dst = np.concatenate(source), np.concatenate(target)
        if len(src) != self.uses[send.key]:
            return
        last = self._join({event.key: event for event in (send, *takers)}, {taken.obj}, {given.obj})
        if last is not None:
            bursts = (send.burst, *(event.burst for event in takers))
            src, dst = self._in_region(send.burst, src), self._in_region(takers[0].burst, dst)
            self.items[last] = Spread(bursts, taken, given, src, dst)

    def _join(self, members: dict[Key, Event], kept: set[int], free: set[int]) -> int | None:
        """Take the steps of a group out and return the place of the last; None where something in between writes an object of `kept` or
        touches one of `free`."""
        places = sorted({n for key in members for n in self.places[key]})
        own = set(places)
        if any(event.key not in members for n in places for event in events_of(self.items[n])):
            return None
        first, last = places[0], places[-1]
        for obj in kept | free:
            for number in self.touched.get(obj, ()):
                item = self.items[number]
                if not first < number < last or number in own or item is None:
                    continue
                if obj in free or any(b.d.kind is MEM and b.d.obj == obj for b in bursts_of(item)):
                    return None
        for number in places:
            self.items[number] = None
        for key in members:
            del self.events[key]
        for obj in kept | free:
            if last not in self.touched[obj]:
                insort(self.touched[obj], last)
        return last

    # -- what objects hold -----------------------------------------------------------------------------------------------------------

    def _cover(self) -> None:
        """Mark the writes that are all their object holds, and let line sums take up what filled their objects."""
        self.needed = self._needed()
        self.changes: dict[int, list[tuple[int, str]]] = {}
        known = {obj: self._at_first(obj) for obj in self.seg.objects}
        written: dict[int, int] = {}
        for number, item in enumerate(self.items):
            if item is None:
                continue
            if isinstance(item, LineSum):
                self._cover_line(number, item, known, written)
            elif isinstance(item, Spread):
                self._cover_spread(number, item, known)
            elif isinstance(item, Step):
                self._cover_step(number, item, known)
            else:
                for burst in item.bursts:
                    for name in (*reads(burst), *writes(burst)):
                        known[burst.operand(name).obj] = self._everything(burst.operand(name).obj)
                        self._change(number, burst.operand(name).obj, "part")
            for burst in bursts_of(item):
                if burst.d.kind is MEM:
                    written[burst.d.obj] = number
            for obj in {obj for burst in bursts_of(item) for obj in self._objects(burst)}:
                if (number, obj) in self.needed:
                    known[obj] = known[obj].both(self.needed[number, obj])
        self._widen()

    def _at_first(self, obj: int) -> Held:
        view = self.seg.objects[obj]
        return self._everything(obj) if view.kind in FILLED or obj in self.held else self._nothing(obj)

    def _nothing(self, obj: int) -> Held:
        view = self.seg.objects[obj]
        region = self.seg.regions[view.region]
        return Held(np.zeros((region.h, region.w), bool), view.size, -1)

    def _everything(self, obj: int) -> Held:
        view = self.seg.objects[obj]
        region = self.seg.regions[view.region]
        return Held(np.ones((region.h, region.w), bool), 0, view.size - 1)

    def _needed(self) -> dict[tuple[int, int], Held]:
        """What of an object may still be read before it is written again, after every action that touches it."""
        after: dict[tuple[int, int], Held] = {}
        looks: dict[int, dict[int, list[tuple[Any, int, int]]]] = {}
        """What actions read: by object, on which cores and from which to which element."""
        for number, item in enumerate(self.items):
            if item is not None:
                here = looks[number] = {}
                for burst in bursts_of(item):
                    for name in reads(burst):
                        here.setdefault(burst.operand(name).obj, []).append((role_of(burst), *operand_range(burst, name, self.seg)))
        for obj, places in self.touched.items():
            now = self._everything(obj) if obj in self.kept else self._nothing(obj)
            for number in reversed(places):
                item = self.items[number]
                if item is None:
                    continue
                after[number, obj] = Held(now.cores.copy(), now.low, now.high)
                if isinstance(item, Step):
                    if item.event.burst.d.kind is MEM and item.event.burst.d.obj == obj and (found := self._whole(item)) is not None:
                        now.drop(role_of(item.event.burst), *found)
                elif isinstance(item, Spread | LineSum):
                    run, cores = (item.given, item.target) if isinstance(item, Spread) else (item.into, item.lines[:, -1])
                    if run.obj == obj:
                        now.drop(np.unravel_index(cores, now.cores.shape), run.begin, run.begin + run.count - 1)
                for look in looks[number].get(obj, ()):
                    now.add(*look)
        return after

    def _whole(self, step: Step) -> tuple[int, int] | None:
        """First and last element of what a step writes, where it always writes all between them on every core of its role."""
        burst = step.event.burst
        masked = burst.op.meaning is Semantics.STORE_INDEXED or (burst.op.meaning is Semantics.SELECT and burst.s.kind is NO)
        first = start(burst, burst.d, step.event.k, step.event.outer, self.seg)
        if masked or step.at is not None or first.ndim or not gapless(burst.ext, burst.d.stride):
            return None
        low = int(first) + sum(min((n - 1) * s, 0) for n, s in zip(burst.ext, burst.d.stride, strict=True))
        high = int(first) + sum(max((n - 1) * s, 0) for n, s in zip(burst.ext, burst.d.stride, strict=True))
        return low, high

    def _change(self, number: int, obj: int, how: str) -> None:
        """Note that an action makes all that an object holds ("all"), writes wherever it holds something ("span"), or not ("part")."""
        self.changes.setdefault(obj, []).append((number, how))

    def _widen(self) -> None:
        """What later writes add to elsewhere is stored core by core from the start."""
        for changes in self.changes.values():
            wide = False
            for number, how in reversed(changes):
                item = self.items[number]
                if item is None:
                    continue
                if how == "all" and wide:
                    self.items[number] = replace(item, covers=False, anew=True) if isinstance(item, Step) else replace(item, anew=True)
                wide = how == "part" or (wide and how != "all")

    def _cover_step(self, number: int, step: Step, known: dict[int, Held]) -> None:
        burst = step.event.burst
        for name in reads(burst):
            if name != "d":
                known[burst.operand(name).obj].filled = []
        if burst.d.kind is not MEM:
            return
        now, adds = known[burst.d.obj], burst.op.meaning is Semantics.MULTIPLY_ADD
        role = np.zeros_like(now.cores)
        role[role_of(burst)] = True
        rest = now.both(self.needed[number, burst.d.obj])
        there = self._whole(step)
        outside = bool((rest.cores & ~role).any())
        inside = there is not None and (not rest.cores.any() or (there[0] <= rest.low and rest.high <= there[1]))
        if there is not None and inside and not outside and (not adds or self._closed(step)):
            self.items[number] = replace(step, covers=True)
            self._change(number, burst.d.obj, "all")
            fill = burst.op.op is Op.MOV and burst.a.kind is IMM and burst.imm == 0 and not np.signbit(burst.imm)
            filled = [*now.filled, number] if adds and now.filled else [number] if fill else []
            known[burst.d.obj] = Held(role, *there, filled)
            return
        spans = step.at is None and not outside and not start(burst, burst.d, step.event.k, step.event.outer, self.seg).ndim
        if spans:
            self.items[number] = replace(step, spans=True)
        self._change(number, burst.d.obj, "span" if spans else "part")
        now.add(role_of(burst), *operand_range(burst, "d", self.seg))
        now.filled = [*now.filled, number] if now.filled else []

    def _closed(self, step: Step) -> bool:
        """Whether an FMAC is evaluated in closed form."""
        burst = step.event.burst
        kinds = kinds_of(burst)
        return not self.exact and kinds is not None and any(n > 1 and not s for n, s in zip(burst.ext, burst.d.stride, strict=True))

    def _cover_spread(self, number: int, spread: Spread, known: dict[int, Held]) -> None:
        known[spread.taken.obj].filled = []
        senders = np.flatnonzero(among(spread.source, int(spread.source.max()) + 1))
        rank = np.searchsorted(senders, spread.source)
        now = known[spread.given.obj]
        holds = np.full(now.cores.size, -1)
        holds[spread.target] = rank
        if spread.given == spread.taken:
            holds[senders] = np.arange(len(senders))
        cells = self._cells(spread.given, holds, now.both(self.needed[number, spread.given.obj]))
        if cells is not None:
            self.items[number] = replace(spread, cells=cells, senders=senders)
        self._after(number, spread.given, holds, known, cells is not None)

    def _cells(self, run: Run, holds: Ints, now: Held) -> Cells | None:
        """How an object is stored whose cores hold the values of the sources `holds` (-1: something else); None where more of it is needed
        (`now`)."""
        grid = holds.reshape(now.cores.shape)
        if (now.cores & (grid < 0)).any() or (now.cores.any() and (run.begin > now.low or run.begin + run.count <= now.high)):
            return None
        small = []
        for axis in (0, 1):
            best = grid.max(axis=axis, keepdims=True)
            alike = bool(((grid == best) | (grid < 0)).all())
            small.append(1 if alike else grid.shape[axis])
            grid = best if alike else grid
        cell = np.flatnonzero(grid.reshape(-1) >= 0)
        return Cells((small[0], small[1]), cell, grid.reshape(-1)[cell])

    def _after(self, number: int, run: Run, holds: Ints, known: dict[int, Held], covers: bool) -> None:
        """What the object of a run holds once cores `holds` have its elements."""
        now = known[run.obj]
        cores = (holds >= 0).reshape(now.cores.shape)
        self._change(number, run.obj, "all" if covers else "part")
        if covers:
            known[run.obj] = Held(cores, run.begin, run.begin + run.count - 1)
        else:
            now.add(cores, run.begin, run.begin + run.count - 1)

    def _cover_line(self, number: int, line: LineSum, known: dict[int, Held], written: dict[int, int]) -> None:
        """A line whose sums are all that their object holds, spread at once perhaps, and what it takes up."""
        now = known[line.own.obj]
        filled, now.filled = now.filled, []
        follower = self._follower(number, line)
        holds, needed = self._roots(line), self.needed[number, line.into.obj]
        if follower is not None:
            place, spread = follower
            holds[spread.target] = holds[spread.source]
            needed = self.needed[place, line.into.obj]
        cells = self._cells(line.into, holds, known[line.into.obj].both(needed))
        if cells is None and follower is not None:
            holds = self._roots(line)
        elif cells is not None:
            line = replace(line, cells=cells)
            if follower is not None:
                line = replace(line, bursts=(*line.bursts, *spread.bursts))
                self.items[place] = None
                self.needed[number, line.into.obj] = needed
            self.items[number] = self._take_up(line, filled, written) if line.own.obj == line.into.obj else line
        self._after(number, line.into, holds, known, cells is not None)

    @staticmethod
    def _roots(line: LineSum) -> Ints:
        holds = np.full(line.region.h * line.region.w, -1)
        holds[line.lines[:, -1]] = np.arange(len(line.lines))
        return holds

    def _follower(self, number: int, line: LineSum) -> tuple[int, Spread] | None:
        """The spread of a line's sums, where it is the next that touches their object."""
        for place in self.touched[line.into.obj]:
            item = self.items[place]
            if place <= number or item is None:
                continue
            if isinstance(item, Spread) and item.given == item.taken == line.into:
                ends = among(line.lines[:, -1], line.region.h * line.region.w)
                return (place, item) if ends[item.source].all() else None
            return None
        return None

    def _take_up(self, line: LineSum, filled: list[int], written: dict[int, int]) -> LineSum:
        """The line with the steps that filled its object inside, where they are zeros and one part a core, or zeros and products."""
        if len(filled) < 2 or line.lines.shape[1] < 2 or not line.adds:
            return line
        fill, steps = self.items[filled[0]], [self.items[n] for n in filled[1:]]
        if not all(isinstance(s, Step) and s.at is None for s in steps):
            return line
        covered = among(self._positions(fill.event.burst), line.region.h * line.region.w)
        run = self._run(fill.event, "d")
        if not covered[line.lines].all() or run is None:
            return line
        if run.begin > line.own.begin or run.begin + run.count < line.own.begin + line.own.count:
            return line
        if any(written.get(s.event.burst.operand(p).obj, -1) > n for s, n in zip(steps, filled[1:], strict=True) for p in "as"
               if s.event.burst.operand(p).kind is MEM):  # fmt: skip
            return line
        axis = self._axis(line)
        if not self.exact and axis is not None and all(self._multiplies(s.event, line, axis) for s in steps):
            taken = replace(line, products=tuple(s.event for s in steps), axis=axis, bursts=(*line.bursts, *(s.event.burst for s in steps)))
        elif len(steps) == 1 and _stores_part(steps[0].event.burst):
            taken = replace(line, placed=self._part(line, steps[0]), bursts=(*line.bursts, steps[0].event.burst))
        else:
            return line
        for n in filled:
            self.items[n] = None
        return taken

    def _part(self, line: LineSum, step: Step) -> Parts:
        event, burst = step.event, step.event.burst
        place = np.full(line.region.h * line.region.w, -1)
        place[self._positions(burst)] = np.arange(burst.cores)
        first = np.broadcast_to(start(burst, burst.d, event.k, event.outer, self.seg), burst.core_ids.shape).reshape(-1) - line.own.begin
        low = np.broadcast_to(lowest(burst), burst.core_ids.shape).reshape(-1)
        return Parts(step, place[line.lines], first, np.ascontiguousarray(low))

    def _positions(self, burst: BurstView) -> Ints:
        return self._in_region(burst, burst.core_ids.reshape(-1))

    def _axis(self, line: LineSum) -> int | None:
        """The mesh axis along which lines run, None where they bend."""
        if id(line.lines) not in self._axes:
            y, x = line.lines // line.region.w, line.lines % line.region.w
            self._axes[id(line.lines)] = 1 if (y == y[:, :1]).all() else 0 if (x == x[:, :1]).all() else None
        return self._axes[id(line.lines)]

    def _multiplies(self, event: Event, line: LineSum, axis: int) -> bool:
        """Whether an event adds a product in f32 onto the line's elements on just the line's cores."""
        burst = event.burst
        if burst.n_in:
            return False
        kinds = kinds_of(burst)
        first = start(burst, burst.d, event.k, event.outer, self.seg)
        if kinds is None or first.ndim:
            return False
        steps = nest(summed_extents(burst.ext, kinds), burst.d.stride)
        low, high = int(first) + int(steps.min()) - line.own.begin, int(first) + int(steps.max()) - line.own.begin
        if low < 0 or high >= line.own.count or np.count_nonzero(among(steps - steps.min(), high - low + 1)) != len(steps):
            return False
        length = len(burst.cols) if axis == 1 else len(burst.rows)
        if line.lines.shape[1] != length or line.lines.size != burst.cores:
            return False
        return bool(among(self._positions(burst), line.region.h * line.region.w)[line.lines].all())


def _follow(ends: Ints, feeds: Ints) -> Ints | None:
    """Lines [lines, length] from their first core to their end; None where they differ in length or run in a circle."""
    cores = [ends]
    while len(cores) <= len(feeds):
        before = feeds[cores[-1]]
        if (before < 0).any():
            return np.stack(cores[::-1], axis=1) if (before < 0).all() else None
        cores.append(before)
    return None


def _own(burst: BurstView) -> str:
    """The operand of a receiving addition that lies in memory."""
    return "b" if burst.a.kind is FABRIC else "a"


def _is_root(burst: BurstView) -> bool:
    """Whether a burst joins its own elements to what arrives (adds them, or another operation of two operands) and stores the result."""
    kinds, formats = {burst.a.kind, burst.b.kind}, {burst.op.a, burst.op.b, burst.op.d}
    joins = burst.op.meaning is Semantics.BINARY and len(formats) == 1
    return joins and burst.d.kind is MEM and kinds == {MEM, FABRIC} and burst.s.kind is NO


def _is_move(burst: BurstView) -> bool:
    """Whether a burst moves elements between memory and fabric, one side each."""
    return burst.op.op is Op.MOV and {burst.d.kind, burst.a.kind} == {MEM, FABRIC}


def _stores_part(burst: BurstView) -> bool:
    """Whether a burst copies elements of one memory object to another, by address or by index."""
    moves = burst.op.op is Op.MOV or burst.op.meaning is Semantics.STORE_INDEXED
    return moves and burst.a.kind is MEM and burst.d.kind is MEM and burst.a.obj != burst.d.obj
