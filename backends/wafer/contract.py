"""Contract on a rectangle: weights stay where they are, partial sums travel along the lines that cut K.

Every core multiplies its part of K for its block of the result, the lines add the partial sums in f32, and the result is rounded once.
An f32 operand beside one in f16 is multiplied in two f16 pieces, onto the same sums.
Where an operand would have to be whole on a line and does not fit, the contraction runs chunk by chunk along one of its axes, and only
what a chunk needs is brought together.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import product
from math import prod

from ...ir.access import axes_used
from ...ir.graph import Contract
from ...machines.wafer.isa import WORDS, Element, Fmt, Op
from .elementwise import convert
from .emitter import Role
from .layout import Ref, Splits, Value, X, Y, local_axes, result_shards, row_major
from .lines import PLAIN, reduce_splits
from .movement import moved_access
from .nests import Box, dense_strides, piecewise, result_ref, window
from .stage import Stage, element_of

_ROW = 8
"""Rows of accumulators and constants are padded to this many words, where that costs little, so that bank rule C6 holds for all rows."""


def emit_contract(stage: Stage, node: Contract, splits: Splits, keep: Splits = (None, None), chunk: tuple[int, int] | None = None) -> Value:
    """The result of the contraction.

    The vector of an FMAC runs along M or N, whichever takes fewer beats; the other operand gives the scalars. `keep` says which part of
    an axis of the result each core of a line stores once the line has all sums; `chunk` is an axis and how much of it to do at a time.
    """
    stored: Splits = (keep[Y] or splits[Y], keep[X] or splits[X])
    shards = result_shards(node.groups, node.axes, stored)
    assert shards is not None
    value = stage.new(node.shape, element_of(node.dtype), shards)
    target = result_ref(value, node.groups, local_axes(node.axes, stored))
    if any(k is not None and k.tile * k.count > node.axes[k.axis] for k in keep):
        stage.e.vec(Op.MOV, PLAIN[value.fmt], stage.e.role(stored), [value.size], Ref(value.obj, value.fmt, 0, (1,)), 0.0)
    if chunk is None:
        _chunk(stage, node, splits, keep, target, (0,) * len(node.axes))
        return value
    axis, size = chunk
    for start in range(0, node.axes[axis], size):
        part = chunk_of(node, axis, start, min(size, node.axes[axis] - start))
        _chunk(stage, part, splits, keep, target, tuple(start if a == axis else 0 for a in range(len(node.axes))))
        stage.drop_temporaries()
    return value


def chunk_of(node: Contract, axis: int, start: int, size: int) -> Contract:
    """The same contraction over [start, start + size) of one axis."""
    axes = tuple(size if a == axis else n for a, n in enumerate(node.axes))
    return replace(node, axes=axes, accesses=tuple(moved_access(a, axis, start) for a in node.accesses))


def _chunk(stage: Stage, node: Contract, splits: Splits, keep: Splits, target: Ref, first: tuple[int, ...]) -> None:
    """One chunk; `first` is its position in the whole nest, where `target` and `keep` live."""
    axes = local_axes(node.axes, splits)
    reduced = node.reduced
    kept = [a for group in node.groups for a in group]
    vector, inner = _vector_axis(node, axes)
    clean = any(s is not None and s.axis in reduced and s.tile * s.count > node.axes[s.axis] for s in splits)
    refs = [
        stage.operand(node.operands[i], node.accesses[i], node.axes, splits, inner if i == vector and inner >= 0 else None, clean)
        for i in (0, 1)
    ]
    fmts = {r.fmt for r in refs}
    half = Element.F16 in fmts and fmts <= {Element.F16, Element.F32}
    role = stage.e.role(splits)
    order = [a for a in kept if a != inner] + ([inner] if inner >= 0 else [])
    y, x = (None if s is not None and s.axis in reduced else s for s in splits)
    final = stage.e.role((y, x))

    def emit(box: Box) -> None:
        e = stage.e
        extents = [n for _, n in box]
        sources = [_pieces(stage, role, extents, window(r, box), half) for r in refs]
        sums = Element.F16 if half and stage.half_sums else Element.F32
        walk, flat, size = _accumulator(stage, extents, order, sources[vector][0], sums)
        e.vec(Op.MOV, PLAIN[sums], role, [size], flat, 0.0)
        fmt = Fmt.F32 if not half else Fmt.F16 if sums == Element.F16 else Fmt.F16_F32
        for piece, scalar in product(sources[vector], sources[1 - vector]):
            e.vec(Op.FMAC, fmt, role, extents, walk, piece, None, scalar, inner=inner)
        for source, r in zip(sources, refs, strict=True):
            for piece in source:
                if piece.obj != r.obj:
                    e.free(piece.obj)
        reduce_splits(e, splits, reduced, flat, size)
        shape = [extents[a] if a in kept else 1 for a in range(len(extents))]
        here = tuple((b[0] + f, b[1]) for b, f in zip(box, first, strict=True))
        _store(stage, final, shape, here, keep, target, walk)
        e.free(walk.obj)

    piecewise(stage, axes, kept, 2 * prod(axes[a] for a in kept), emit)


def _accumulator(stage: Stage, extents: Sequence[int], order: Sequence[int], vector: Ref, fmt: Element) -> tuple[Ref, Ref, int]:
    """Sums over the axes `order` (the vector last): their walk, the dense block that holds them, its elements. The first element lies
    4 words from the vector's modulo 8 and rows are padded, as C6 wants."""
    e = stage.e
    words = WORDS[fmt]
    shape = list(extents)
    lines = prod(extents[a] for a in order[:-1])
    if order and lines > 1:
        row = extents[order[-1]]
        padded = -(-row * words // _ROW) * _ROW // words
        if padded * 4 <= row * 5:
            shape[order[-1]] = padded
    size = prod(shape[a] for a in order)
    block = e.scratch(fmt, size + _ROW // words - 1)
    word = e.address[vector.obj] + vector.base * WORDS[vector.fmt]
    offset = (word - 4) % _ROW // words if (word - 4) % words == 0 else 0
    return Ref(block.obj, fmt, offset, dense_strides(shape, order)), Ref(block.obj, fmt, offset, (1,)), size


def _store(stage: Stage, role: Role, shape: list[int], box: Box, keep: Splits, target: Ref, total: Ref) -> None:
    """Round the sums of a box into the result; with `keep`, every core takes those of its own block that lie in the box."""
    m = Y if keep[Y] is not None else X
    split = keep[m]
    if split is None:
        convert(stage.e, role, shape, window(target, box), total)
        return
    first, n = box[split.axis]
    tile, step = split.tile, total.strides[split.axis]
    rest = tuple((0, 1) if a == split.axis else b for a, b in enumerate(box))
    place = window(target, rest)
    block = first // tile
    while block * tile < first + n:
        low, high = max(first, block * tile), min(first + n, (block + 1) * tile)
        last = block + 1
        if low == block * tile and high == low + tile:
            last = (first + n) // tile  # all blocks that lie in the box whole
        cells = (block, last, 1)
        here = Role(cells, role.cols) if m == Y else Role(role.rows, cells)
        per = tile * step
        base = total.base + (low - block * tile - first) * step
        source = Ref(total.obj, total.fmt, base, total.strides, per if m == Y else 0, per if m == X else 0)
        if last == block + 1:
            source = total.moved((low - first) * step)
        part = [high - low if a == split.axis else extent for a, extent in enumerate(shape)]
        convert(stage.e, here, part, place.moved((low - block * tile) * target.strides[split.axis]), source)
        block = last


def _pieces(stage: Stage, role: Role, extents: Sequence[int], source: Ref, half: bool) -> list[Ref]:
    """What FMAC reads of an operand: itself, f16 pieces whose sum it is to 22 bits (`half`), or a copy in f32."""
    if source.fmt == (Element.F16 if half else Element.F32):
        return [source]
    if not half:
        return [_copied(stage, role, extents, source, Element.F32)]
    e = stage.e
    high = _copied(stage, role, extents, source, Element.F16)
    rest = _copied(stage, role, extents, high, Element.F32)
    shape = _walked(extents, source)
    e.vec(Op.SUB, Fmt.F32, role, shape, rest, source, rest)
    low = _copied(stage, role, extents, rest, Element.F16)
    e.free(rest.obj)
    return [high, low]


def _walked(extents: Sequence[int], source: Ref) -> list[int]:
    """The extents of the axes that an operand walks, 1 for the others."""
    return [n if s else 1 for n, s in zip(extents, source.strides, strict=True)]


def _copied(stage: Stage, role: Role, extents: Sequence[int], source: Ref, fmt: Element) -> Ref:
    """A dense copy in another format over the axes that the operand walks."""
    shape = _walked(extents, source)
    block = stage.e.scratch(fmt, prod(shape))
    strides = tuple(s if n > 1 else 0 for s, n in zip(row_major(shape), shape, strict=True))
    copy = Ref(block.obj, fmt, 0, strides)
    convert(stage.e, role, shape, copy, source)
    return copy


def _vector_axis(node: Contract, axes: Sequence[int]) -> tuple[int, int]:
    """Which operand is the vector (0 or 1) and along which axis; axis -1 where neither M nor N exists."""
    walked = [axes_used(access) for access in node.accesses]
    kept = [a for group in node.groups for a in group]
    best = (0.0, 0, -1)
    for i in (0, 1):
        for a in kept:
            if a in walked[i] and a not in walked[1 - i] and axes[a] > 1:
                n = axes[a]
                rate = n / -(-n // 2) + (0.001 * min(n, 999) / 999) + (0.0005 if a == kept[-1] else 0.0)
                best = max(best, (rate, i, a))
    return best[1], best[2]
