"""Reductions along a line of cores as section 7.1 of the machine page has them: trees of sends with ordered children, their recurrence,
and programs of real bursts that follow it."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from wafer_programs import BASE, bound, program_of

from spatialc.machines.program import Program
from spatialc.machines.wafer.builder import FABRIC, NO_OPERAND, ProgramBuilder, SegmentBuilder, full, imm, mem, one
from spatialc.machines.wafer.isa import Element, Fmt, Op
from spatialc.machines.wafer.tables import ObjectKind, Port, Trigger, image_key

D = 5
"""2 * T_R + 1."""


@dataclass(frozen=True)
class Tree:
    """A reduction: ordered children of every core, the colour of every child's send, and cores that finish receiving before they send."""

    p: int
    root: int
    children: dict[int, tuple[int, ...]]
    colour: dict[int, int]
    unfused: frozenset[int] = frozenset()
    broadcast: int | None = None
    """Colour of a broadcast of the sum to all cores."""


def recurrence(tree: Tree, b: int) -> tuple[dict[int, int], dict[int, int], int]:
    """First beats of every send and of every child's receive at its parent, as early as possible; and F of the root."""
    send: dict[int, int] = {}
    receive: dict[int, int] = {}

    def finish(v: int) -> int:
        at = -b
        for c in tree.children.get(v, ()):
            send[c] = _send(c)
            receive[c] = at = max(at + b, send[c] + abs(c - v) + D)
        return at + b

    def _send(v: int) -> int:
        if not tree.children.get(v):
            return 0
        end = finish(v)
        return end if v in tree.unfused else end - b

    return send, receive, finish(tree.root)


def late(tree: Tree, b: int) -> tuple[dict[int, int], dict[int, int], int]:
    """The second pass, root to leaves: sends as late as their receives allow, so that waiting happens in memory."""
    send, receive, end = recurrence(tree, b)
    parents = [tree.root]
    while parents:
        v = parents.pop()
        kids = tree.children.get(v, ())
        if kids and v != tree.root:
            receive[kids[-1]] = send[v] - (b if v in tree.unfused else 0)
        for c in kids:
            send[c] = receive[c] - abs(c - v) - D
            parents.append(c)
    return send, receive, end


def chain_tree(p: int) -> Tree:
    """From core 0 to core p-1."""
    return Tree(p, p - 1, {v: (v - 1,) for v in range(1, p)}, {v: v % 2 for v in range(p - 1)})


def binary_tree(p: int) -> Tree:
    """Root at core 0; at level l, core (2j+1) * 2^l sends to 2j * 2^l."""
    children: dict[int, list[int]] = {v: [] for v in range(p)}
    colour = {}
    level = 0
    while 1 << level < p:
        for child in range(1 << level, p, 2 << level):
            children[child - (1 << level)].append(child)
            colour[child] = level
        level += 1
    return Tree(p, 0, {v: tuple(c) for v, c in children.items() if c}, colour)


def two_phase(p: int, g: int) -> Tree:
    """Chains inside groups of g, then a chain over the groups' last members; the phases are not fused."""
    children: dict[int, list[int]] = {v: [] for v in range(p)}
    colour = {}
    for v in range(p):
        if v % g:
            children[v].append(v - 1)
            colour[v - 1] = (v - 1) % 2
    for v in range(2 * g - 1, p, g):
        children[v].append(v - g)
        colour[v - g] = 2 + (v // g) % 2
    return Tree(p, p - 1, {v: tuple(c) for v, c in children.items() if c}, colour, frozenset({g - 1}))


def k_tree(p: int, groups: tuple[int, ...], broadcast: bool = True) -> Tree:
    """K = len(groups) + 1 levels; at each, members are cut into groups whose middle member takes a left chain, then a right chain."""
    children: dict[int, list[int]] = {v: [] for v in range(p)}
    colour = {}
    members = list(range(p))
    for level, g in enumerate((*groups, 1)):
        m = len(members)
        roots = []
        for i in range(g):
            group = members[m * i // g : m * (i + 1) // g]
            middle = len(group) // 2
            roots.append(group[middle])
            for side, chain in ((0, group[:middle]), (1, group[:middle:-1])):
                path = [*chain, group[middle]]
                for step, (child, parent) in enumerate(pairwise(path)):
                    # the last send of the left chain takes colour 0, that of the right chain colour 1
                    colour[child] = 2 * level + (side + len(path) - 2 - step) % 2
                    children[parent].append(child)
        members = roots
    kids = {v: tuple(c) for v, c in children.items() if c}
    return Tree(p, members[0], kids, colour, broadcast=2 * len(groups) + 2 if broadcast else None)


def total_cycles(tree: Tree, b: int) -> int:
    """Cycles of the program: the recurrence, and b + distance + 5 for a broadcast."""
    far = max(tree.root, tree.p - 1 - tree.root)
    return recurrence(tree, b)[2] + (b + far + D if tree.broadcast is not None else 0)


def reduction(tree: Tree, b: int, rows: int = 1) -> Program:
    """The program: x [rows, p, b] summed over p; y [rows, b] at the root or, with a broadcast, [rows, p, b] everywhere."""
    s = SegmentBuilder("reduction")
    r = s.region(tree.p, rows)
    x = s.object(r, BASE, Element.F32, [b], ObjectKind.INPUT)
    at = BASE + 2 * b + (-2 * b) % 8 + 4
    acc = s.object(r, at, Element.F32, [b], ObjectKind.OUTPUT)
    send, receive, end = late(tree, b)
    parent = {c: v for v, kids in tree.children.items() for c in kids}
    for child, v in parent.items():
        _route(s, r, rows, child, v, tree.colour[child])
    for v in range(tree.p):
        _core(s, r, rows, tree, v, x, acc, b, send, receive)
    everywhere = tree.broadcast is not None
    if everywhere:
        _broadcast(s, r, rows, tree, acc, b, end)
    builder = ProgramBuilder()
    i = builder.instance(0, 0, 0, 0)
    px = builder.placement([rows, tree.p, b], [(0, 1, 0), (0, 0, 1), (0, 0, 0)], [[0], [0], [1]], full(rows), full(tree.p), ext=[b])
    shape = (rows, tree.p, b) if everywhere else (rows, b)
    py = px if everywhere else builder.placement([rows, b], [(0, 1, 0), (0, 0, 0)], [[0], [1]], full(rows), one(tree.root), ext=[b])
    bindings = [bound("x", "input", "f32", (rows, tree.p, b), (i, x, px)), bound("y", "output", "f32", shape, (i, acc, py))]
    return program_of(s.build(), builder, bindings, total_cycles(tree, b))


def summed_product(p: int, m: int, k: int, n: int, spread: bool = True) -> Program:
    """y = x @ W with K cut over the p cores of a row: zeros, one FMAC burst, a chain of sums to the last core, and (`spread`) its
    broadcast; x f16 [m, p*k], W f16 [p*k, n], y f32 [m, n] on every core, or on the last one."""
    s = SegmentBuilder("summed")
    r = s.region(p, 1)
    x = s.object(r, BASE, Element.F16, [m, k], ObjectKind.INPUT)
    w = s.object(r, BASE + 256, Element.F16, [k, n], ObjectKind.INPUT)
    acc = s.object(r, BASE + 516, Element.F32, [m, n], ObjectKind.OUTPUT)
    b = m * n
    tree = chain_tree(p)
    role = {"rows": full(1), "cols": full(p)}
    beats = m * k * (-(-n // 2))
    z = s.burst(r, Op.MOV, Fmt.F32, 0, b, d=mem(acc, n, 1), a=imm(0), ext=(m, n), **role)
    s.burst(
        r, Op.FMAC, Fmt.F16_F32, b, beats, d=mem(acc, n, 0, 1), a=mem(w, 0, n, 1), s=mem(x, k, 1, 0), ext=(m, k, n), after=[z], **role
    )  # fmt: skip
    end, _ = _chain(s, r, acc, (1, p, b), b + beats, tree)
    if spread:
        _broadcast(s, r, 1, Tree(p, p - 1, {}, {}, broadcast=2), acc, b, end)
        end += b + p - 1 + D
    builder = ProgramBuilder()
    i = builder.instance(0, 0, 0, 0)
    px = builder.placement([m, p * k], [(0, 0, 0), (0, 0, k)], [[1, 0], [0, 1]], full(1), full(p), ext=[m, k])
    pw = builder.placement([p * k, n], [(0, 0, k), (0, 0, 0)], [[1, 0], [0, 1]], full(1), full(p), ext=[k, n])
    py = builder.placement([m, n], [(0, 0, 0), (0, 0, 0)], [[1, 0], [0, 1]], full(1), full(p) if spread else one(p - 1), ext=[m, n])
    inputs = [bound("x", "input", "f16", (m, p * k), (i, x, px)), bound("w", "input", "f16", (p * k, n), (i, w, pw))]
    return program_of(s.build(), builder, [*inputs, bound("y", "output", "f32", (m, n), (i, acc, py))], end)


def _chain(s: SegmentBuilder, r: int, acc: int, size: tuple[int, int, int], start: int, tree: Tree) -> tuple[int, int]:
    """Sums of the `n` f32 elements of `acc` along `rows` lines of `p` cores, left in the last core: their end, the last burst."""
    rows, p, n = size
    last = -1
    for v in range(p):
        if v < p - 1:
            _route(s, r, rows, v, v + 1, tree.colour[v])
        out = {"cout": tree.colour[v], "qout": 3} if v < p - 1 else {}
        into = {"cin": tree.colour[v - 1], "qin": 2} if v else {}
        d, a, own = FABRIC if v < p - 1 else mem(acc, 1), FABRIC if v else mem(acc, 1), mem(acc, 1) if v else NO_OPERAND
        last = s.burst(
            r, Op.ADD if v else Op.MOV, Fmt.F32, start + 6 * v, n, cols=one(v), rows=full(rows), ext=(n,), q=1, d=d, a=a, b=own,
            trigger=Trigger.HOLD, **into, **out,
        )  # fmt: skip
    return start + 6 * (p - 1) + n, last


def _route(s: SegmentBuilder, r: int, rows: int, child: int, parent: int, colour: int) -> None:
    step = 1 if parent > child else -1
    out, into = (Port.E, Port.W) if step > 0 else (Port.W, Port.E)
    s.route(r, colour, full(rows), one(child), Port.RAMP, [out])
    for between in range(child + step, parent, step):
        s.route(r, colour, full(rows), one(between), into, [out])
    s.route(r, colour, full(rows), one(parent), into, [Port.RAMP])


def _core(
    s: SegmentBuilder, r: int, rows: int, tree: Tree, v: int, x: int, acc: int, b: int, send: dict[int, int], receive: dict[int, int]
) -> None:
    """All bursts of one column: receives in order, the last one fused with the send unless the tree says otherwise."""
    kids = tree.children.get(v, ())
    role = {"rows": full(rows), "cols": one(v), "ext": (b,), "q": 1}
    fused = bool(kids) and v != tree.root and v not in tree.unfused
    out = {"cout": tree.colour.get(v, -1), "qout": 3}
    before: tuple[int, ...] = ()
    for n, c in enumerate(kids):
        last = fused and n == len(kids) - 1
        wait = Trigger.ARRIVE if receive[c] == send[c] + abs(c - v) + D else Trigger.HOLD
        burst = s.burst(
            r, Op.ADD, Fmt.F32, receive[c], b, d=FABRIC if last else mem(acc, 1), a=FABRIC, b=mem(acc if n else x, 1), trigger=wait,
            after=before, cin=tree.colour[c], qin=2, **role, **(out if last else {}),
        )  # fmt: skip
        before = (burst,)
    if v != tree.root and not fused:
        source = mem(acc if kids else x, 1)
        s.burst(r, Op.MOV, Fmt.F32, send[v], b, d=FABRIC, a=source, b=NO_OPERAND, trigger=Trigger.HOLD, after=before, **role, **out)


def _broadcast(s: SegmentBuilder, r: int, rows: int, tree: Tree, acc: int, b: int, start: int) -> None:
    colour, root, p = tree.broadcast, tree.root, tree.p
    assert colour is not None
    s.route(r, colour, full(rows), one(root), Port.RAMP, [port for port, some in ((Port.W, root > 0), (Port.E, root < p - 1)) if some])
    for v in range(p):
        if v == root:
            continue
        into, out = (Port.W, Port.E) if v > root else (Port.E, Port.W)
        s.route(r, colour, full(rows), one(v), into, [Port.RAMP] if v in (0, p - 1) else [out, Port.RAMP])
    common = {"rows": full(rows), "ext": (b,), "q": 1}
    s.burst(r, Op.MOV, Fmt.F32, start, b, cols=one(root), d=FABRIC, a=mem(acc, 1), trigger=Trigger.HOLD, cout=colour, qout=3, **common)
    distance = s.vector([abs(v - root) for v in range(p)])
    for cols in ((0, root, 1), (root + 1, p, 1)):
        if len(range(*cols)):
            s.burst(
                r, Op.MOV, Fmt.F32, start + D, b, vx=distance, cols=cols, d=mem(acc, 1), a=FABRIC, trigger=Trigger.ARRIVE, cin=colour,
                qin=4,
                **common,
            )  # fmt: skip


def placed_sums(p: int, b: int, runs: int) -> Program:
    """Instances of one segment, each with indices of its own: every core of a row puts its b elements among zeros at the places that its
    indices name, and a chain of sums to the last core joins them. x<k> f32 [2, p, b], y<k> f32 [2, p*b], image k the indices [2, p, b]."""
    s = SegmentBuilder("placed")
    r, n = s.region(p, 2), p * b
    x = s.object(r, BASE, Element.F32, [b], ObjectKind.INPUT)
    acc = s.object(r, BASE + 68, Element.F32, [n], ObjectKind.SCRATCH)
    index = s.object(r, BASE + 256, Element.I32, [b], ObjectKind.WEIGHT)
    y = s.object(r, BASE + 512, Element.F32, [n], ObjectKind.OUTPUT)
    role, tree = {"rows": full(2), "cols": full(p)}, chain_tree(p)
    zeros = s.burst(r, Op.MOV, Fmt.F32, 0, n, d=mem(acc, 1), a=imm(0), ext=(n,), **role)
    s.burst(
        r, Op.STX, Fmt.F32, n, 8 * b, d=mem(acc, 0, 0), a=mem(x, 1, 0), s=mem(index, 1, 0), ext=(b, 1), look=(0, n, 1, 0, 0),
        after=[zeros], **role,
    )  # fmt: skip
    end, last = _chain(s, r, acc, (2, p, n), n + 8 * b, tree)
    s.burst(r, Op.MOV, Fmt.F32, end, n, cols=one(p - 1), rows=full(2), ext=(n,), d=mem(y, 1), a=mem(acc, 1), after=[last])
    builder = ProgramBuilder()
    each = builder.placement([2, p, b], [(0, 1, 0), (0, 0, 1), (0, 0, 0)], [[0], [0], [1]], full(2), full(p), ext=[b])
    whole = builder.placement([2, n], [(0, 1, 0), (0, 0, 0)], [[0], [1]], full(2), one(p - 1), ext=[n])
    images, bindings = {}, []
    for k in range(runs):
        i = builder.instance(0, 0, 0, k * (end + n))
        for obj, word in ((x, 0), (acc, 68), (y, 512)):
            builder.relocate(i, obj, BASE + 1024 * k + word)
        builder.bind_placed(i, index, k, each, word=BASE + 1024 * k + 256)
        images[image_key(k)] = np.stack([np.random.default_rng([k, row]).permutation(n).reshape(p, b) for row in (0, 1)]).astype(np.int32)
        bindings += [bound(f"x{k}", "input", "f32", (2, p, b), (i, x, each)), bound(f"y{k}", "output", "f32", (2, n), (i, y, whole))]
    return program_of(s.build(), builder, bindings, runs * (end + n), images)
