"""Move, Gather and Scatter on a rectangle: strided copies, looked-up loads and stores.

A looked-up dimension of a table may be cut over a mesh axis (a `Split` whose axis is `LOOKUP`): every core loads what it owns, gets
zeros for the rest (LDX), and a line reduction adds the parts, of which at most one is not zero.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from math import prod

from ...errors import UnsupportedOp
from ...ir.expr import Expr, arg, const, make
from ...ir.graph import Access, Constant, Gather, Index, Lookup, Move, Node, Piece, Scatter, State
from ...ir.types import I32
from ...machines.wafer.builder import Range, one
from ...machines.wafer.isa import Element, Op
from .elementwise import Evaluator, convert
from .emitter import Role
from .layout import Ref, Shard, Shards, Split, Splits, Value, X, Y, clashes, local_axes, reference
from .lines import PLAIN, reduce_splits
from .nests import result_ref, window
from .stage import Stage, element_of, ideal_shards

LOOKUP = -1


@dataclass(frozen=True)
class PieceCut:
    """How a cut of a Move's result cuts one of its pieces.

    The outermost axis of a cut dimension is dealt out in blocks as the result is, so that its position 0 on the first core may lie
    before the piece: `access` and `axes` are the piece's with that axis moved and extended, and reach beyond the operand; `runs` says
    what of it there is. `corner` is where position 0 lies in a core's block.
    """

    access: Access
    axes: tuple[int, ...]
    splits: Splits
    corner: tuple[int, ...]

    def moved(self, piece: Piece) -> bool:
        """Whether it reaches beyond the piece."""
        return self.access != piece.access or self.axes != piece.axes


def cut_piece(node: Move, piece: Piece, splits: Splits) -> PieceCut | None:
    """The piece under a cut of the result's dimensions, None where blocks cut through its steps or inner axes."""
    access, axes, corner = piece.access, list(piece.axes), list(piece.corner)
    found: list[Split | None] = [None, None]
    for m, split in enumerate(splits):
        if split is None:
            continue
        d = split.axis
        group = piece.groups[d]
        if not group:
            corner[d] %= split.tile
            continue
        unit = piece.step[d] * prod(piece.axes[a] for a in group[1:])
        if split.tile % unit or corner[d] % unit >= piece.step[d]:
            return None
        first, corner[d] = divmod(corner[d], unit)
        found[m] = Split(group[0], split.tile // unit, split.count)
        axes[group[0]] = max(axes[group[0]], split.tile // unit * split.count)
        access = moved_access(access, group[0], -first)
    return PieceCut(access, tuple(axes), (found[0], found[1]), tuple(corner))


def moved_access(access: Access, axis: int, by: int) -> Access:
    """The access at `axis + by`."""
    return tuple(Index(x.offset + dict(x.terms).get(axis, 0) * by, x.terms) if isinstance(x, Index) else x for x in access)


def _runs(piece: Piece, split: Split | None, cores: int) -> list[tuple[Range, int, int]]:
    """Cores that hold equal parts of a piece: (cores, first local position, number of them) along the axis that `split` (of the result)
    deals out; all cores and nothing where there is none."""
    if split is None:
        return [((0, cores, 1), 0, 0)]
    d = split.axis
    group, corner = piece.groups[d], piece.corner[d]
    if not group:
        return [(one(corner // split.tile), 0, 0)]
    unit = piece.step[d] * prod(piece.axes[a] for a in group[1:])
    tile, first, extent = split.tile // unit, corner // unit, piece.axes[group[0]]
    found: list[tuple[Range, int, int]] = []
    for c in range(split.count):
        low, high = max(0, first - c * tile), min(tile, first + extent - c * tile)
        if high <= low:
            continue
        if found and found[-1][1:] == (low, high - low):
            found[-1] = ((found[-1][0][0], c + 1, 1), low, high - low)
        else:
            found.append((one(c), low, high - low))
    return found


def dim_shards(splits: Splits) -> Shards:
    """Shards of a result whose dimensions are cut by `splits`."""
    y, x = (Shard(s.axis, s.tile, s.count) if s is not None else None for s in splits)
    return (y, x)


def emit_move(stage: Stage, node: Node, splits: Splits) -> Value:
    """Fill, then the pieces in order."""
    assert isinstance(node, Move)
    value = stage.new(node.shape, element_of(node.dtype), dim_shards(splits))
    padded = any(s is not None and s.tile * s.count > node.shape[s.axis] for s in splits)
    if node.fill is not None or padded:
        flat = Ref(value.obj, value.fmt, 0, (1,))
        stage.e.vec(Op.MOV, PLAIN[value.fmt], stage.e.role(splits), [value.size], flat, float(node.fill or 0))
    for piece in node.pieces:
        cut = cut_piece(node, piece, splits)
        assert cut is not None
        source = stage.operand(node.operands[piece.operand], cut.access, cut.axes, cut.splits, clipped=cut.moved(piece))
        axes = local_axes(cut.axes, cut.splits)
        strides = [0] * len(axes)
        for group, step, stride in zip(piece.groups, piece.step, value.strides, strict=True):
            walk = step * stride
            for a in reversed(group):
                strides[a] = walk
                walk *= axes[a]
        target = Ref(value.obj, value.fmt, sum(c * s for c, s in zip(cut.corner, value.strides, strict=True)), tuple(strides))
        for cells in product(_runs(piece, splits[Y], stage.e.rows), _runs(piece, splits[X], stage.e.cols)):
            box = [(0, n) for n in axes]
            for m, (_, low, count) in enumerate(cells):
                split = cut.splits[m]
                if split is not None:
                    box[split.axis] = (low, count)
            role = Role(cells[Y][0], cells[X][0])
            convert(stage.e, role, [n for _, n in box], window(target, tuple(box)), window(source, tuple(box)))
        stage.drop_temporaries()
    return value


def _indices(
    stage: Stage, role: Role, axes: Sequence[int], refs: dict[int, Ref], lookups: Sequence[tuple[int, int]]
) -> tuple[Ref, list[int]]:
    """One i32 index a point: sum of index operand x multiplier over `lookups`; and the scratch to free afterwards."""
    if len(lookups) == 1 and lookups[0][1] == 1 and refs[lookups[0][0]].fmt == Element.I32:
        return refs[lookups[0][0]], []
    total: Expr | None = None
    for operand, factor in lookups:
        term = arg(operand, I32)
        term = term if factor == 1 else make("mul", term, const(factor, I32))
        total = term if total is None else make("add", total, term)
    assert total is not None
    walked = [any(refs[k].strides[a] for k, _ in lookups) for a in range(len(axes))]
    here = Evaluator(stage.e, role, [n if w else 1 for n, w in zip(axes, walked, strict=True)], lambda i: refs[i])
    index = here.dense(Element.I32, walked)
    here.store(total, index)
    return index, [index.obj]


def _lookup_plan(access: Access, value: Value) -> tuple[list[tuple[int, int]], tuple[int, int, int, int, int]]:
    """Index operands with multipliers, and the `look` columns, for the looked-up dimensions of a value."""
    dims = [(d, entry.operand) for d, entry in enumerate(access) if isinstance(entry, Lookup)]
    if len(dims) == 1:
        d, operand = dims[0]
        per = [s.tile if s is not None and s.dim == d else 0 for s in value.shards]
        return [(operand, 1)], (0, value.local[d], value.strides[d], per[Y], per[X])
    lookups = [(operand, value.strides[d]) for d, operand in dims]
    return lookups, (0, 1 + sum((value.local[d] - 1) * value.strides[d] for d, _ in dims), 1, 0, 0)


def _vector(axes: Sequence[int], index: Ref) -> int:
    """The axis that may be the vector of a looked-up access: the longest that the index does not walk, or -1."""
    free = [a for a in range(len(axes)) if not index.strides[a] and axes[a] > 1]
    return max(free, key=lambda a: axes[a], default=-1)


def emit_gather(stage: Stage, node: Node, splits: Splits) -> Value:
    """Looked-up loads (LDX), and line reductions where the table's looked-up dimension is cut."""
    assert isinstance(node, Gather)
    access = node.accesses[0]
    looked = {d for d, entry in enumerate(access) if isinstance(entry, Lookup)}
    plain: Splits = tuple(s if s is not None and s.axis != LOOKUP else None for s in splits)  # type: ignore[assignment]
    data = _table(stage, node, access, looked, splits, plain)
    axes = local_axes(node.axes, plain)
    role = stage.e.role(splits)
    lookups, look = _lookup_plan(access, data)
    refs = {k: stage.operand(node.operands[k], node.accesses[k], node.axes, plain) for k, _ in lookups}
    shards: list[Shard | None] = [None, None]
    for m, split in enumerate(plain):
        for d, group in enumerate(node.groups):
            if split is not None and split.axis in group:
                shards[m] = Shard(d, split.tile * prod(node.axes[a] for a in group[1:]), split.count)
    value = stage.new(node.shape, element_of(node.dtype), (shards[0], shards[1]))
    index, scratch = _indices(stage, role, axes, refs, lookups)
    source = reference(data, access, node.axes, plain)
    target = result_ref(value, node.groups, axes)
    stage.e.vec(Op.LDX, PLAIN[value.fmt], role, axes, target, source, None, index, inner=_vector(axes, index), look=look)
    for obj in scratch:
        stage.e.free(obj)
    reduce_splits(stage.e, splits, (LOOKUP,), Ref(value.obj, value.fmt, 0, (1,)), value.size)
    return value


def _table(stage: Stage, node: Gather, access: Access, looked: set[int], splits: Splits, plain: Splits) -> Value:
    """The data operand in a form that the gather can read: cut as `splits` says, or made whole where it clashes."""
    source = stage.graph[node.operands[0]]
    dim = min(looked)
    if not stage.variants(source.id) or isinstance(source, Constant):
        shards = list(ideal_shards(source.shape, access, node.axes, plain))
        for m, split in enumerate(splits):
            if split is not None and split.axis == LOOKUP:
                shards[m] = Shard(dim, split.tile, split.count)
        key: Shards = (shards[0], shards[1])
        return stage.variants(source.id).get(key) or stage.place_free(source, key)
    wanted = [m for m, s in enumerate(splits) if s is not None and s.axis == LOOKUP]
    best = min(stage.variants(source.id).values(), key=lambda v: len(_gather_clashes(v, access, node, plain, wanted)))
    value = best
    for m in _gather_clashes(best, access, node, plain, wanted):
        value = stage.unshard(source.id, value, m)
    return value


def _gather_clashes(value: Value, access: Access, node: Gather, plain: Splits, wanted: Sequence[int]) -> list[int]:
    """Mesh axes to make whole: affine clashes, and cut looked-up dimensions that the gather does not add up."""
    found = []
    for m in clashes(value, access, node.axes, plain):
        shard = value.shards[m]
        if not (shard is not None and m in wanted and isinstance(access[shard.dim], Lookup)):
            found.append(m)
    return found


def emit_scatter(stage: Stage, node: Node, splits: Splits) -> Value:
    """The base copied (or, for a state that nothing else reads, kept in place), then looked-up stores in the order of the axes."""
    assert isinstance(node, Scatter)
    shards = scatter_shards(node, splits)
    assert shards is not None
    e = stage.e
    base_id = node.operands[0]
    role = e.role(splits)
    value = _scatter_base(stage, node, base_id, shards, role)
    axes = local_axes(node.axes, splits)
    lookups, look = _lookup_plan(node.target, value) if any(isinstance(x, Lookup) for x in node.target) else ([], (0, 0, 0, 0, 0))
    source = stage.operand(node.operands[1], node.accesses[0], node.axes, splits)
    target = reference(value, node.target, node.axes, splits)
    if source.fmt != value.fmt:
        raise UnsupportedOp(f"scatter of {source.fmt.name} into {value.fmt.name}: cast the source first")
    fmt = PLAIN[value.fmt]
    if not lookups and node.mode == "set":
        e.vec(Op.MOV, fmt, role, axes, target, source)
        return value
    if not lookups:
        raise UnsupportedOp("a scatter that combines needs a looked-up dimension")
    refs = {k: stage.operand(node.operands[k], node.accesses[k - 1], node.axes, splits) for k, _ in lookups}
    index, scratch = _indices(stage, role, axes, refs, lookups)
    inner = _vector(axes, index)
    if node.mode == "set":
        e.vec(Op.STX, fmt, role, axes, target, source, None, index, inner=inner, look=look)
    else:
        _combine(stage, role, axes, node.mode, target, source, index, look)
    for obj in scratch:
        e.free(obj)
    return value


def _scatter_base(stage: Stage, node: Scatter, base_id: int, shards: Shards, role: Role) -> Value:
    base = stage.graph[base_id]
    in_place = isinstance(base, State) and stage.uses[base_id] == 1 and stage.graph.updates.get(base.name) == node.id
    identity = tuple(Shard(s.dim, s.tile, s.count) if s else None for s in shards)
    if not stage.variants(base_id):
        stage.place_free(base, (identity[0], identity[1]))
    known = stage.variants(base_id).get(shards)
    if in_place and known is not None:
        return known
    access = tuple(Index(0, ((d, 1),)) for d in range(len(base.shape)))
    splits: Splits = tuple(Split(s.dim, s.tile, s.count) if s else None for s in shards)  # type: ignore[assignment]
    source = stage.operand(base_id, access, base.shape, splits)
    value = stage.new(node.shape, element_of(node.dtype), shards)
    local = [value.local[d] for d in range(len(node.shape))]
    convert(stage.e, role if any(shards) else stage.e.role(), local, Ref(value.obj, value.fmt, 0, value.strides), source)
    return value


def scatter_shards(node: Scatter, splits: Splits) -> Shards | None:
    """Shards of the result where the split axes are whole dimensions of the target, else None."""
    found: list[Shard | None] = [None, None]
    for m, split in enumerate(splits):
        if split is None:
            continue
        dims = [d for d, x in enumerate(node.target) if not isinstance(x, Lookup) and dict(x.terms).get(split.axis)]
        if len(dims) != 1:
            return None
        entry = node.target[dims[0]]
        if isinstance(entry, Lookup) or entry.offset or entry.terms != ((split.axis, 1),) or node.axes[split.axis] != node.shape[dims[0]]:
            return None
        found[m] = Shard(dims[0], split.tile, split.count)
    return (found[0], found[1])


def _combine(
    stage: Stage, role: Role, axes: Sequence[int], mode: str, target: Ref, source: Ref, index: Ref, look: tuple[int, int, int, int, int]
) -> None:
    """Read, combine and write back point by point of the index, since equal indices must see each other."""
    e = stage.e
    op = {"add": Op.ADD, "max": Op.MAX, "min": Op.MIN}[mode]
    fmt = PLAIN[target.fmt]
    walked = [a for a in range(len(axes)) if index.strides[a] and axes[a] > 1]
    rest = [1 if a in walked else n for a, n in enumerate(axes)]
    old = e.scratch(target.fmt, prod(rest))
    strides = [0] * len(axes)
    step = 1
    for a in reversed(range(len(axes))):
        if rest[a] > 1:
            strides[a], step = step, step * rest[a]
    block = Ref(old.obj, target.fmt, 0, tuple(strides))
    for point in product(*(range(axes[a]) for a in walked)):
        at = dict(zip(walked, point, strict=True))

        def here(ref: Ref, at: dict[int, int] = at) -> Ref:
            return ref.moved(sum(ref.strides[a] * k for a, k in at.items()))

        inner = _vector(rest, here(index))
        e.vec(Op.LDX, fmt, role, rest, block, here(target), None, here(index), inner=inner, look=look)
        e.vec(op, fmt, role, rest, block, block, here(source))
        e.vec(Op.STX, fmt, role, rest, here(target), block, None, here(index), inner=inner, look=look)
    e.free(old.obj)
