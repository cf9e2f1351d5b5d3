"""Which bytes of a TSP program matter: a proof that a change of what its moves carry cannot reach an output or a state.

Moves (Read, Write, Send, Receive, IDENTITY, a copying transposer, LW and IW) are followed to where their bytes come from, as the executor
does. What is left is a graph of *uses*: every stream element that an ALU, the SXM or a pass takes, every row of weights that a pass
multiplies, and every row that is read after the end. Each use has an origin: an element of a result, or a row as it was before the program.
Going backwards from the lanes that outputs and states are read from, a lane of a use is *live* if some live lane may depend on it.
Dependences are taken wide: lane by lane in the vector unit, everything in the SXM, and in a matrix plane row n of the weights and the whole
vector for lane n of the result. Only a product or an AND with a byte that is 0 in an image, in both programs, depends on nothing (products
of int8 alone: in fp16 infinity times 0 is no 0).

If two programs have the same results made from the same uses, and uses whose origins differ differ in no live lane, then all live lanes
are equal: by induction over the graph, since whatever a live lane depends on is live and has the same origin in both.
"""

from __future__ import annotations

from functools import cached_property

import numpy as np

from spatialc.machines.program import Program
from spatialc.machines.tsp.isa import ACC_OPS, DType, Opcode
from spatialc.machines.tsp.tables import BURSTS, Kind, mask_slices
from spatialc.runtime_sim.tsp.flatten import SXM_CODES
from spatialc.runtime_sim.tsp.legality import Judgement, analyse
from spatialc.runtime_sim.tsp.memory import UNDEFINED
from spatialc.runtime_sim.tsp.values import resolve_leaves

MOVES = (Opcode.READ, Opcode.WRITE, Opcode.SEND, Opcode.RECEIVE, Opcode.IDENTITY, Opcode.LW, Opcode.IW)
_ROW, _UNIT = 1 << 13, 256
"""Room for the row and the MEM unit in the name of a row."""


def carries_nothing_live(before: Program, after: Program) -> bool:
    """Whether the programs differ in moves alone, and only in lanes that no output and no state depends on."""
    one, two = Uses.of(before), Uses.of(after)
    if one is None or two is None or not _same_work(one, two):
        return False
    differ = one.names != two.names
    lanes = one.live(one.zeros & two.zeros)[differ]
    known = one.known[differ] & two.known[differ]
    lanes[known] &= one.bytes_of(differ)[known] != two.bytes_of(differ)[known]
    return not lanes.any()


def _same_work(one: Uses, two: Uses) -> bool:
    """Whether all bursts but moves are the same and drive the same streams."""
    fields = [column.name for column in BURSTS.columns if column.name != "provenance"]
    works = one.works, two.works
    pairs = [(one.a.flat.b[name][works[0]], two.a.flat.b[name][works[1]]) for name in fields]
    pairs += list(zip(one.driven(), two.driven(), strict=True))
    return all(np.array_equal(x, y) for x, y in pairs) and one.names.shape == two.names.shape


class Uses:
    """The uses of a program of one block without data-dependent addresses.

    Use u is tap element `element[u]`, ascending, of burst `burst[u]`; after these come, from `weights` on, 320 rows of weights a pass, and
    last the rows of outputs and states, with the lanes that are read of them (both: burst -1). `leaf[u]` is the claim element that made its
    bytes, or -1 - place; `names[u]` says the same in a way that two programs share.
    """

    def __init__(self, program: Program, judgement: Judgement) -> None:
        self.program, self.judgement = program, judgement
        self.block, self.a = judgement.blocks[0], judgement.layouts[0]
        a, taps = self.a, self.a.flat.taps
        self.vector = a.machine.vector
        self.origin = np.append(resolve_leaves(a), UNDEFINED)
        self.works = ~np.isin(a.flat.b["opcode"], MOVES) & (a.flat.b["null"] == 0)
        tap = np.repeat(np.arange(taps.size), taps.n * taps.n2)
        self.element = np.flatnonzero(self.works[taps.burst[tap]])
        self.weights = len(self.element)
        content = np.append(a.passes.content, np.full((1, self.vector), -1), axis=0)[a.passes.iw].reshape(-1)
        installed = np.where(content >= 0, self.origin[a.feeds.source[np.maximum(content, 0)]], UNDEFINED)
        rows, self.read_lanes = self._rows_read()
        self.burst = np.append(taps.burst[tap[self.element]], np.full(len(content) + len(rows), -1))
        self.leaf = np.concatenate([self.origin[a.feeds.source[self.element]], installed, rows])
        self.names = self._names()

    @staticmethod
    def of(program: Program) -> Uses | None:
        """The uses; None where the program is of another kind."""
        judgement = analyse(program)[0]
        if judgement is None or len(judgement.blocks) != 1 or judgement.layouts[0].memory.dynamic.any():
            return None
        if np.isin(judgement.layouts[0].flat.b["opcode"], (Opcode.GATHER, Opcode.SCATTER)).any():
            return None
        return Uses(program, judgement)

    def driven(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """(work, stream, direction) of every claim of a work."""
        claims = self.a.flat.claims
        mine = self.works[claims.burst]
        return np.cumsum(self.works)[claims.burst[mine]], claims.stream[mine], claims.direction[mine]

    def _rows_read(self) -> tuple[np.ndarray, np.ndarray]:
        """(leaf, lanes [rows, 320]) of every row that holds a byte plane of an output or a state after the end."""
        j, flat, memory = self.judgement, self.a.flat, self.a.memory
        slices, first = j.store.pairs(self.block, flat, j.binds.allocations)
        pair, row = flat.within(np.arange(flat.places))
        number = j.store.number(slices[pair], first[pair] + row)
        order = np.argsort(number, kind="stable")
        leaves, lanes = [np.zeros(0, np.int64)], [np.zeros((0, self.vector), bool)]
        for region in (region for _, regions in sorted(j.outputs.items()) for region in regions):
            wanted = j.store.number(*j.store.region(region))
            at = np.minimum(np.searchsorted(number[order], wanted), len(order) - 1)
            place = np.where(number[order[at]] == wanted, order[at], -1)
            written = (place >= 0) & (memory.starts[place + 1] > memory.starts[place])
            leaf = np.where(place >= 0, -1 - place, UNDEFINED)
            leaf[written] = self.origin[self.a.feeds.source[memory.final(place[written])]]
            leaves.append(leaf.reshape(-1))
            lanes.append(np.broadcast_to(region.elements >= 0, (*wanted.shape, self.vector)).reshape(-1, self.vector))
        return np.concatenate(leaves), np.concatenate(lanes)

    def _places(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """(allocation, MEM unit, row in the allocation) of every place."""
        flat, block = self.a.flat, self.block
        pair = np.repeat(np.arange(len(flat.pair_slot)), block.layout.rows[flat.pair_slot])
        slot = flat.pair_slot[pair]
        allocation = block.slots[slot]
        row = np.arange(flat.places) - flat.pair_first[pair] + block.first[slot]
        return allocation, flat.pair_unit[pair], row - self.judgement.binds.allocations["row"][allocation]

    def _names(self) -> np.ndarray:
        """By use: claim of a work and element of it, or allocation, unit and row: the same in two programs that do the same work."""
        claims = self.a.flat.claims
        owner = np.repeat(np.arange(claims.size), claims.n * claims.n2)
        rank = np.cumsum(self.works[claims.burst])
        made = np.append(rank[owner] << 32 | np.arange(claims.total) - claims.first[owner], UNDEFINED)
        allocation, unit, row = self._places()
        place = np.append(-1 - ((allocation * _UNIT + unit) * _ROW + row), UNDEFINED)
        inside = (self.leaf < 0) & (self.leaf > UNDEFINED)
        result: np.ndarray = np.where(inside, place[np.where(inside, -1 - self.leaf, -1)], made[np.maximum(self.leaf, -1)])
        return result

    # ---- bytes of images -------------------------------------------------------------------------------------------------------

    @cached_property
    def known(self) -> np.ndarray:
        """Uses whose bytes are those of an image."""
        kinds = self.judgement.binds.allocations["kind"]
        inside = (self.leaf < 0) & (self.leaf > UNDEFINED)
        allocation = self._places()[0]
        result = np.zeros(len(self.leaf), bool)
        result[inside] = kinds[allocation[-1 - self.leaf[inside]]] == Kind.CONST
        return result

    def bytes_of(self, which: np.ndarray) -> np.ndarray:
        """uint8 [uses, 320] of the uses `which` (mask): the bytes of images, 0 where they are not known."""
        at = np.flatnonzero(which)
        out = np.zeros((len(at), self.vector), np.uint8)
        alloc, placed = self.program.tables["allocations"], self.program.tables["placements"]
        image = dict(zip(placed["allocation"].tolist(), placed["image"].tolist(), strict=True))
        allocation, unit, row = self._places()
        for k in np.flatnonzero(self.known[at]).tolist():
            place = -1 - int(self.leaf[at[k]])
            a = int(allocation[place])
            slices = mask_slices(int(alloc["west"][a]), int(alloc["east"][a]))
            index = slices.index(divmod(int(unit[place]), 44))
            out[k] = self.program.images[f"image.{image[a]}"][index, int(row[place])]
        return out

    @cached_property
    def zeros(self) -> np.ndarray:
        """bool [uses, 320]: bytes of operands of matrix planes and of AND that are 0 in an image."""
        operand = np.isin(self.a.flat.b["opcode"][self.burst], (Opcode.ABC, Opcode.AND)) & (self.burst >= 0)
        operand[self.weights : len(operand) - len(self.read_lanes)] = True
        which = self.known & operand
        result = np.zeros((len(self.leaf), self.vector), bool)
        result[which] = self.bytes_of(which) == 0
        return result

    # ---- liveness --------------------------------------------------------------------------------------------------------------

    def live(self, zeros: np.ndarray) -> np.ndarray:
        """bool [uses, 320]: lanes that an output or a state may depend on; `zeros` are the bytes known to be 0."""
        return Sweep(self, zeros).run()


class Sweep:
    """Backwards over the results, until nothing more becomes live. `made` [claim elements, 320], `uses` [uses, 320],
    `entries` [accumulator elements, 320] and `states` (ALU accumulators by burst) are the lanes found live so far."""

    def __init__(self, u: Uses, zeros: np.ndarray) -> None:
        self.u, self.a, self.zeros = u, u.a, zeros
        flat, passes = u.a.flat, u.a.passes
        self.made = np.zeros((flat.claims.total, u.vector), bool)
        self.uses = np.zeros((len(u.leaf), u.vector), bool)
        self.entries = np.zeros((len(passes.acc_row), u.vector), bool)
        self.states: dict[int, np.ndarray] = {}
        self.use_of = np.full(flat.taps.total + 1, -1)
        self.use_of[u.element] = np.arange(len(u.element))
        self.claims_of, self.taps_of = _groups(flat.claims.burst, flat.size), _groups(flat.taps.burst, flat.size)
        self.entries_of = _groups(passes.acc_row, flat.size)
        self.pass_of = {int(row): k for k, row in enumerate(passes.acc) if row >= 0}
        self.feeder = dict(zip(u.a.chain[1].tolist(), u.a.chain[0].tolist(), strict=True))
        self.more = True

    def run(self) -> np.ndarray:
        """The live lanes of all uses."""
        code, made = self.a.flat.b["opcode"], np.flatnonzero(self.a.computing)
        self._mark(np.arange(len(self.uses) - len(self.u.read_lanes), len(self.uses)), self.u.read_lanes)
        while self.more:
            self.more = False
            for row in made[np.argsort(-self.a.level[made], kind="stable")].tolist():
                if code[row] == Opcode.ACC:
                    self._pass(row)
                elif code[row] in ACC_OPS:
                    self._reduce(row)
                else:
                    lanes = self._result(row, self.a.flat.count[row])
                    if code[row] in SXM_CODES:
                        lanes |= lanes.any(axis=1, keepdims=True)
                    self._take(row, lanes)
        return self.uses

    def _mark(self, uses: np.ndarray, lanes: np.ndarray) -> None:
        """Lanes [uses, 320] of uses are live, and those of what made them."""
        new = lanes & ~self.uses[uses]
        some = np.flatnonzero(new.any(axis=1))
        self.more |= bool(len(some))
        self.uses[uses[some]] |= new[some]
        for leaf, line in zip(self.u.leaf[uses[some]].tolist(), new[some], strict=True):
            if leaf >= 0:
                self.made[leaf] |= line

    def _result(self, row: int, count: int) -> np.ndarray:
        """Live lanes [elements, 320] of the result of a burst, any of its byte planes in any of its streams."""
        claims = self.a.flat.claims
        lanes = np.zeros((count, self.u.vector), bool)
        for claim in self.claims_of[row].tolist():
            lanes |= self.made[claims.first[claim] : claims.first[claim] + count]
        return lanes

    def _take(self, row: int, lanes: np.ndarray) -> None:
        """Every stream that a burst takes is live in the lanes [elements, 320]; of an AND, where the same byte of the other is not 0."""
        streams = self._streams(row)
        both = self.a.flat.b["opcode"][row] == Opcode.AND
        for uses, other in zip(streams, streams[len(streams) // 2 :] + streams[: len(streams) // 2], strict=True):
            self._mark(uses, lanes & ~self.zeros[other] if both else lanes)

    def _streams(self, row: int) -> list[np.ndarray]:
        """The uses of each stream that a burst takes, byte planes of a before those of b."""
        flat = self.a.flat
        count = int(flat.count[row])
        return [self.use_of[first : first + count] for first in flat.taps.first[self.taps_of[row]].tolist()]

    def _reduce(self, row: int) -> None:
        """Accumulating ALUs: element k2 of the result, or the state that goes on to another burst, depends on all k of k2."""
        b = self.a.flat.b
        n, n2 = int(b["n"][row]), int(b["n2"][row])
        lanes = self._result(row, n2) if b["last"][row] else np.zeros((n2, self.u.vector), bool)
        lanes = lanes | self.states.get(row, False)
        if row in self.feeder:
            giver = self.feeder[row]
            self.states[giver] = self.states.get(giver, False) | lanes.any(axis=0)
        self._take(row, np.repeat(lanes, n, axis=0))

    def _pass(self, row: int) -> None:
        """A matrix pass: both planes of an fp16 pair are taken as one."""
        passes, b = self.a.passes, self.a.flat.b
        first = self.pass_of[row]
        pair = [first] if passes.partner[first] < 0 else [first, int(passes.partner[first])]
        lanes = np.zeros((int(self.a.flat.count[row]), self.u.vector), bool)
        for number in pair:
            acc = int(passes.acc[number])
            if b["emit"][acc]:
                lanes |= self._result(acc, len(lanes))
            mine = self.entries_of[acc]
            lanes[passes.acc_k[mine]] |= self.entries[mine]
        for number in pair:
            mine = self.entries_of[int(passes.acc[number])]
            adds = mine[passes.acc_source[mine] >= 0]
            sources = passes.acc_source[adds]
            self.more |= bool((lanes[passes.acc_k[adds]] & ~self.entries[sources]).any())
            np.logical_or.at(self.entries, sources, lanes[passes.acc_k[adds]])
            self._operands(number, lanes)

    def _operands(self, number: int, lanes: np.ndarray) -> None:
        """Weights and vectors of one plane's pass whose result is live in `lanes` [vectors, 320 rows of the weights]."""
        abc = int(self.a.passes.abc[number])
        rows = np.flatnonzero(lanes.any(axis=0))
        lanes, weights = lanes[:, rows], self.u.weights + number * self.u.vector + rows
        exact = self.a.flat.b["dtype"][abc] == DType.I8
        held = ~self.zeros[weights] if exact else np.ones((len(rows), self.u.vector), bool)
        for mine in self._streams(abc):
            self._mark(mine, _any(lanes, held))
            factor = ~self.zeros[mine] if exact else np.ones((len(lanes), self.u.vector), bool)
            self._mark(weights, _any(lanes.T, factor))


def _any(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """bool [m, n]: whether some k has left[m, k] and right[k, n]."""
    result: np.ndarray = left.astype(np.float32) @ right.astype(np.float32) > 0
    return result


def _groups(owner: np.ndarray, count: int) -> list[np.ndarray]:
    """For each of `count` owners the positions that name it."""
    order = np.argsort(owner, kind="stable")
    return np.split(order, np.searchsorted(owner[order], np.arange(1, count)))
