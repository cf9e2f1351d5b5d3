"""Which instances touch each other, and in what order the others run.

Each segment is summarised once: when it uses every resource, its streams, and what state it leaves open. Instances are then compared by
their offsets: where two of them use a queue, a matrix pair or a link in overlapping times, where a stream of one meets or feeds the other,
or where one needs the state of a plane or an ALU that another left, they become one block and are judged together, burst by burst. Other
instances are apart in every way but for rows of memory and of weight buffers, whose users follow each other: blocks are ordered so that
each comes after those whose rows it can see.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ...machines.program import Program
from ...machines.tsp import isa
from ...machines.tsp.description import TspMachine
from ...machines.tsp.isa import Class, Opcode
from ..threads import gather
from . import kernels, planes
from .flatten import ACC_CODES, Flat, Flow, among, flatten
from .layout import Array, Binds, Block, Columns, Layout, make_block
from .report import Notes
from .streams import sorted_runs

MXM, PERMUTOR, LINK = isa.QUEUES, isa.QUEUES + 2, isa.QUEUES + 4
RESOURCES = LINK + 16
"""Resources of a chip: its queues (those that share nothing), then the matrix units and permutors of both hemispheres, and its links."""


@dataclass(frozen=True)
class Summary:
    """A segment alone, in its own time.

    `resource, begin, end`: window of use of each resource, `end` with the time that it stays busy after the last issue. `sends`: the same
    of links that it sends on, `receives` of links that it receives on. `opens, closes`: resources whose state it takes from before, leaves
    behind. `claims, takes`: runs of streams by (key, diagonal) with their `ends` (see `streams.sorted_runs`); `low, high` their diagonals.
    """

    flat: Flat
    resource: Array
    begin: Array
    end: Array
    sends: tuple[Array, Array, Array]
    receives: tuple[Array, Array, Array]
    opens: Array
    closes: Array
    claims: Columns
    takes: Columns
    low: int
    high: int


def summarise(program: Program, machine: TspMachine, segment: int) -> Summary:
    """The summary of one segment, its objects taken as apart from each other."""
    flat = flatten(program, machine, _alone(program, segment))
    b, code = flat.b, flat.b["opcode"]
    side = np.where(b["cls"] >= Class.MXM_W, (b["unit"] - isa.MXM_BASE) // 6, 0)
    resource = b["unit"].copy()
    matrix = np.isin(b["cls"], (Class.MXM_W, Class.MXM_A, Class.MXM_R))
    resource[matrix] = MXM + side[matrix]
    shared = np.isin(b["cls"], (Class.PERMUTOR, Class.SHIFTER))
    resource[shared] = PERMUTOR + (b["unit"][shared] - isa.SXM_BASE) // isa.SXM_QUEUES
    busy = flat.last + np.where(matrix, machine.mode_change + machine.acc_latency + machine.mxm_install + 1, 0)
    claims, takes = _sorted(flat.claims), _sorted(flat.taps)
    known = [part for part in (claims, takes) if len(part["d0"])]
    return Summary(
        flat, *_windows(resource, b["t0"], busy),
        _windows(b["link"][code == Opcode.SEND], b["t0"][code == Opcode.SEND], flat.last[code == Opcode.SEND]),
        _windows(b["link"][code == Opcode.RECEIVE], b["t0"][code == Opcode.RECEIVE], flat.last[code == Opcode.RECEIVE]),
        *_states(flat), claims, takes,
        min((int(part["d0"].min()) for part in known), default=0), max((int(part["end"].max()) for part in known), default=-1),
    )  # fmt: skip


def _alone(program: Program, segment: int) -> Layout:
    """A layout of one instance, every object a slot of its own."""
    objects = len(program.segments[segment].tables["objects"]["rows"])
    rows = np.maximum(np.asarray(program.segments[segment].tables["objects"]["rows"], np.int64), 0)
    zero, none = np.zeros(objects, np.int64), np.zeros(1, np.int64)
    return Layout(none + segment, none, none, np.arange(objects), zero, zero, zero, rows, zero.astype(bool), zero, zero, np.full(16, -1))


def _windows(resource: Array, begin: Array, end: Array) -> tuple[Array, Array, Array]:
    """(resource, first begin, last end) of each resource in use."""
    distinct, at = np.unique(resource, return_inverse=True)
    first, last = np.full(len(distinct), 1 << 62), np.full(len(distinct), -(1 << 62))
    np.minimum.at(first, at, begin)
    np.maximum.at(last, at, end)
    return distinct, first, last


def _states(flat: Flat) -> tuple[Array, Array]:
    """(resources whose state comes from before, those that leave some): planes (TSP-020, 022, 025) and accumulating ALUs (TSP-034)."""
    passes = planes.analyse(flat, Notes(flat))
    b = flat.b
    reduce = np.flatnonzero(among(b["opcode"], ACC_CODES))
    reduce = reduce[np.lexsort((b["t0"][reduce], b["unit"][reduce]))]
    unit = b["unit"][reduce]
    head = np.append(True, unit[1:] != unit[:-1])[: len(unit)]
    tail = np.append(unit[1:] != unit[:-1], True)[: len(unit)]
    opens = np.concatenate([MXM + passes.opens // 2, unit[head & (b["first"][reduce] == 0)]])
    closes = np.concatenate([MXM + passes.closes // 2, unit[tail & (b["last"][reduce] == 0)]])
    return np.unique(opens), np.unique(closes)


def _sorted(flow: Flow) -> Columns:
    runs = flow.runs
    order, ends = sorted_runs(runs["key"], runs["d0"], runs["n"], runs["i"])
    result = {name: column[order] for name, column in runs.items()}
    return result | {"ends": ends, "end": result["d0"] + (result["n"] - 1) * result["i"]}


def _within(runs: Columns, low: int, high: int, by: int) -> Columns:
    """Runs that have a diagonal in [low, high] after they are moved by `by`."""
    some = np.flatnonzero((runs["d0"] + by <= high) & (runs["end"] + by >= low))
    result = {name: column[some] for name, column in runs.items()}
    result["d0"], result["end"] = result["d0"] + by, result["end"] + by
    return result


def meet(a: Summary, b: Summary, by: int) -> bool:
    """Whether a stream of one segment meets (MT-9) or feeds (MT-6) the other on the same chip, `b` starting `by` cycles after `a`."""
    low, high = max(a.low, b.low + by), min(a.high, b.high + by)
    if low > high:
        return False
    mine, theirs = _within(a.claims, low, high, 0), _within(b.claims, low, high, by)
    both = {name: np.concatenate([mine[name], theirs[name]]) for name in ("key", "d0", "n", "i", "pos", "until")}
    order, ends = sorted_runs(both["key"], both["d0"], both["n"], both["i"])
    clash = np.empty(len(order), np.int64)
    c = {name: column[order] for name, column in both.items()}
    kernels.conflicts(c["key"], c["d0"], c["n"], c["i"], c["pos"], c["until"], ends, clash)
    if (clash >= 0).any():
        return True
    return _feeds(mine, _within(b.takes, low, high, by)) or _feeds(theirs, _within(a.takes, low, high, 0))


def _feeds(claims: Columns, takes: Columns) -> bool:
    if not len(claims["key"]) or not len(takes["key"]):
        return False
    order, ends = sorted_runs(claims["key"], claims["d0"], claims["n"], claims["i"])
    c = {name: claims[name][order] for name in ("key", "d0", "n", "i", "pos", "until")}
    first = np.cumsum(c["n"]) - c["n"]
    take_first = np.cumsum(takes["n"]) - takes["n"]
    source, covered = np.full(int(takes["n"].sum()), -1, np.int64), np.zeros(int(c["n"].sum()), np.uint8)
    bucket = np.searchsorted(c["key"], np.arange(65))
    kernels.match(
        c["key"], c["d0"], c["n"], c["i"], c["pos"], c["until"], first, ends,
        takes["key"], takes["d0"], takes["n"], takes["i"], takes["pos"], take_first, bucket, source, covered,
    )  # fmt: skip
    return bool((source >= 0).any())


class _Sets:
    """Disjoint sets of instances."""

    def __init__(self, size: int) -> None:
        self.parent = list(range(size))

    def find(self, x: int) -> int:
        while self.parent[x] != x:
            self.parent[x] = self.parent[self.parent[x]]
            x = self.parent[x]
        return x

    def join(self, x: int, y: int) -> None:
        x, y = self.find(x), self.find(y)
        self.parent[max(x, y)] = min(x, y)


def make_blocks(program: Program, machine: TspMachine, binds: Binds) -> list[Block]:
    """All instances as blocks, in an order in which each comes after those whose rows it can see."""
    inst = binds.instances
    size = len(inst["segment"])
    used = np.unique(inst["segment"]).tolist()
    summaries = dict(zip(used, gather(lambda segment: summarise(program, machine, segment), used), strict=True))
    parts = [summaries[int(s)] for s in inst["segment"]]
    sets = _Sets(size)
    follows = _join_windows(parts, inst, sets)
    _join_links(parts, binds, machine, sets)
    _join_streams(parts, inst, sets)
    order = _order(sets, follows, inst["offset"] + np.array([part.begin.min(initial=0) for part in parts], np.int64))
    used_by = _users(binds, order, size)
    kept = (used_by > 1) | (binds.allocations["kind"] > 0) & (binds.allocations["kind"] < 4)
    dynamic = binds.dynamic_slices
    return [make_block(binds, members, kept, dynamic) for members in order]


def _join_windows(parts: list[Summary], inst: Columns, sets: _Sets) -> list[tuple[int, int]]:
    """Join instances that use a resource in overlapping times, or whose state one hands to another. Returns pairs (before, after) of
    instances that use the same memory slice or matrix unit one after the other."""
    if not parts:
        return []
    owner = np.repeat(np.arange(len(parts)), [len(part.resource) for part in parts])
    resource = np.concatenate([part.resource for part in parts])
    begin = np.concatenate([part.begin for part in parts]) + inst["offset"][owner]
    end = np.concatenate([part.end for part in parts]) + inst["offset"][owner]
    opens = np.concatenate([np.isin(part.resource, part.opens) for part in parts])
    closes = np.concatenate([np.isin(part.resource, part.closes) for part in parts])
    key = inst["chip"][owner] * RESOURCES + resource
    order = np.lexsort((owner, begin, key))
    owner, resource, key, begin, end, opens, closes = (c[order] for c in (owner, resource, key, begin, end, opens, closes))
    same = key[1:] == key[:-1]
    reach = _running_max(key, end)
    joined = same & (begin[1:] <= reach[:-1])
    hands = same & (_seen_before(key, closes)[1:])
    for k in np.flatnonzero(joined | hands).tolist():
        sets.join(int(owner[k]), int(owner[k + 1]))
    for k in np.flatnonzero(opens[1:] & same).tolist():
        head = int(np.searchsorted(key, key[k + 1]))
        for earlier in range(head, k + 1):
            sets.join(int(owner[earlier]), int(owner[k + 1]))
    matters = same & ((resource[1:] < isa.MEM_QUEUES) | ((resource[1:] >= MXM) & (resource[1:] < PERMUTOR)))
    return [(int(owner[k]), int(owner[k + 1])) for k in np.flatnonzero(matters)]


def _running_max(key: Array, value: Array) -> Array:
    """Largest value so far among rows of the same key (rows sorted by key)."""
    if not len(key):
        return value
    _, group = np.unique(key, return_inverse=True)
    low = int(value.min())
    span = int(value.max()) - low + 1
    return np.maximum.accumulate(group * span + (value - low)) - group * span + low


def _seen_before(key: Array, flag: Array) -> Array:
    """Whether an earlier row of the same key has its flag set."""
    return _running_max(np.append(key[:1], key[:-1]), np.append(False, flag[:-1]).astype(np.int64))[: len(key)] > 0


def _join_links(parts: list[Summary], binds: Binds, machine: TspMachine, sets: _Sets) -> None:
    """Join instances that send, or receive, on one link within its interval, and those that send with those that can receive it."""
    inst, links = binds.instances, binds.links
    other = {}
    for a, la, c, lc in zip(*(links[name].tolist() for name in ("chip_a", "link_a", "chip_b", "link_b")), strict=True):
        other[a, la], other[c, lc] = (c, lc), (a, la)
    rows = []
    for k, part in enumerate(parts):
        chip, offset = int(inst["chip"][k]), int(inst["offset"][k])
        for windows, sent in ((part.sends, True), (part.receives, False)):
            for link, begin, end in zip(*(column.tolist() for column in windows), strict=True):
                here = (chip, link) if sent else other.get((chip, link), (-1 - chip, link))
                late = machine.c2c_hop if sent else 0
                rows.append((here, begin + offset + late, end + offset + late + machine.c2c_interval, k))
    rows.sort()
    reach = 0
    for at, (here, begin, end, k) in enumerate(rows):
        if at and rows[at - 1][0] == here:
            if begin <= reach:
                sets.join(rows[at - 1][3], k)
            reach = max(reach, end)
        else:
            reach = end


def _join_streams(parts: list[Summary], inst: Columns, sets: _Sets) -> None:
    """Join instances of one chip whose streams meet or feed each other."""
    low = np.array([part.low for part in parts], np.int64) + inst["offset"]
    high = np.array([part.high for part in parts], np.int64) + inst["offset"]
    known: dict[tuple[int, int, int], bool] = {}
    active: list[int] = []
    for k in np.lexsort((low, inst["chip"])).tolist():
        active = [j for j in active if inst["chip"][j] == inst["chip"][k] and high[j] >= low[k]]
        for j in active:
            if sets.find(j) == sets.find(k):
                continue
            key = (int(inst["segment"][j]), int(inst["segment"][k]), int(inst["offset"][k] - inst["offset"][j]))
            if key not in known:
                known[key] = meet(parts[j], parts[k], key[2])
            if known[key]:
                sets.join(j, k)
        active.append(k)


def _order(sets: _Sets, follows: list[tuple[int, int]], start: Array) -> list[Array]:
    """Members of each block, ordered; blocks that would have to wait for each other are made one."""
    size = len(start)
    while True:
        root = np.array([sets.find(k) for k in range(size)], np.int64)
        after: dict[int, set[int]] = {}
        waits = dict.fromkeys(sorted(set(root.tolist())), 0)
        for one, other in follows:
            a, b = int(root[one]), int(root[other])
            if a != b and b not in after.setdefault(a, set()):
                after[a].add(b)
                waits[b] += 1
        begin = _begins(root, start)
        ready = sorted((begin[r], r) for r in waits if not waits[r])
        done = []
        while ready:
            _, r = ready.pop(0)
            done.append(r)
            for b in sorted(after.get(r, ())):
                waits[b] -= 1
                if not waits[b]:
                    ready.append((begin[b], b))
            ready.sort()
        stuck = [r for r in waits if waits[r]]
        if not stuck:
            rows = np.argsort(root, kind="stable")
            groups = np.split(rows, np.flatnonzero(np.diff(root[rows])) + 1) if size else []
            members = {int(root[group[0]]): group for group in groups}
            return [members[r] for r in done]
        for one, other in _circles(stuck, after):
            sets.join(one, other)


def _circles(nodes: list[int], after: dict[int, set[int]]) -> list[tuple[int, int]]:
    """Pairs of nodes that wait for each other in the graph `after`, enough to join all that do."""
    import networkx as nx  # takes long to load, and few programs need it

    graph = nx.DiGraph((one, other) for one in nodes for other in after.get(one, ()))
    return [(min(circle), other) for circle in nx.strongly_connected_components(graph) for other in circle]


def _begins(root: Array, start: Array) -> dict[int, int]:
    first = np.full(len(root), 1 << 62)
    np.minimum.at(first, root, start)
    return {int(r): int(first[r]) for r in np.unique(root)}


def _users(binds: Binds, order: list[Array], size: int) -> Array:
    """Number of blocks that each allocation is bound in."""
    block = np.zeros(size, np.int64)
    for number, members in enumerate(order):
        block[members] = number
    owner = np.repeat(np.arange(size), binds.sizes)
    pairs = np.unique(np.stack([binds.allocation, block[owner]]), axis=1) if len(owner) else np.zeros((2, 0), np.int64)
    return np.bincount(pairs[0], minlength=len(binds.allocations["kind"]))
