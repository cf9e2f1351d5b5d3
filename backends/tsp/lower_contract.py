"""Contract on matrix planes.

Both operands have K along lanes (MX, section 3). The moving operand is read as vectors [batch, K tile, M], the stationary one is held as
tiles [batch, N tile, K tile] striped over 16 slices; passes run K tiles innermost over blocks of `acc_depth` vectors, and the result
leaves through one ALU that adds the partial results of the two byte planes. Some axes of K may be tiles of their own, where that spares
lane moves (the offsets of a convolution's window, say); `contract_plan.py` decides.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ...ir.access import axes_used
from ...ir.expr import arg, make
from ...ir.expr import cast as cast_expr
from ...ir.graph import Constant, Contract, Map, Reduce
from ...ir.types import F16, F32
from ...machines.tsp.isa import DType, Opcode
from .engine import Image, MatrixJob, Pass, Plane, Provider, Sink
from .lower import Lowering, constant_identity, digits, lane_axes
from .lower_map import converted, operand_list, reduce_value, result_strides, run_map
from .memory import LANES, STRIPES, Seq, Storage
from .move import stripe
from .recipes import ISA_TYPE
from .route import ChainOp
from .values import Copy, Value, arrange, enumerate_digits, row_major_strides

Array = np.ndarray
EAST = 1


@dataclass(frozen=True)
class Operand:
    """A value read through an affine access: flat offset and stride per axis."""

    value: Value
    offset: int
    strides: tuple[int, ...]


@dataclass(frozen=True)
class Roles:
    """Axes by role, each in the order in which it is enumerated."""

    batch: tuple[int, ...]
    m: tuple[int, ...]
    n: tuple[int, ...]
    k: tuple[int, ...]
    """Along lanes."""
    tiles: tuple[int, ...] = ()
    """Axes of K every point of which has tiles of its own."""

    def tiles_k(self, axes: Sequence[int]) -> int:
        """Number of K tiles."""
        return extent(axes, self.tiles) * -(-extent(axes, self.k) // LANES)


def extent(axes: Sequence[int], names: Sequence[int]) -> int:
    """Number of points of some axes."""
    return int(np.prod([axes[a] for a in names], dtype=np.int64))


def in_halves(lowering: Lowering, operand: Operand) -> list[Operand]:
    """f16 operands whose sum is the operand to 22 bits: itself, or what f16 holds of it and the rest."""
    value = operand.value
    if value.dtype == DType.F16:
        return [operand]
    if not value.pieces:
        value.pieces = _constant_halves(lowering, value) if value.array is not None else _computed_halves(lowering, value)
    return [Operand(piece, operand.offset, operand.strides) for piece in value.pieces]


def _constant_halves(lowering: Lowering, value: Value) -> list[Value]:
    """The pieces of a constant; one that is stored in f16 is its own piece."""
    assert value.array is not None

    def high(array: Array) -> Array:
        return array.astype(np.float16)

    def low(array: Array) -> Array:
        return (array - high(array).astype(np.float32)).astype(np.float16)

    node = lowering.graph[value.source] if value.source is not None else None
    whole = isinstance(node, Constant) and node.ref.storage == "f16"
    return [Value(value.shape, DType.F16, [], part(value.array), value.source, part) for part in ((high,) if whole else (high, low))]


def _computed_halves(lowering: Lowering, value: Value) -> list[Value]:
    strides = row_major_strides(value.shape)
    lanes = lane_axes(value, strides, value.shape)
    last = tuple(range(len(value.shape)))[-1:]
    read = arg(0, F32)
    high = cast_expr(read, F16)
    low = cast_expr(make("sub", read, cast_expr(high, F32)), F16)
    return [run_map(lowering, part, [(value, 0, strides)], value.shape, strides, value.shape, last, "half", lanes) for part in (high, low)]


def lower_contract(lowering: Lowering, node: Contract) -> Value:
    """A Contract node: operands f16, or f32 in pieces of f16; accumulated in f32."""
    from .contract_plan import planned, vector_lanes
    from .gathered import gathered_contract

    for position, operand in enumerate(node.operands):
        if operand in lowering.deferred:
            return gathered_contract(lowering, node, position)
    first, second = (Operand(*item) for item in operand_list(lowering, node))
    used = [axes_used(access) for access in node.accesses]
    kept = [a for group in node.groups for a in group]
    batch = tuple(a for a in kept if a in used[0] and a in used[1])
    m = tuple(a for a in kept if a not in used[1])
    n = tuple(a for a in kept if a in used[1] and a not in used[0])
    strides = result_strides(node.groups, node.axes, node.shape)
    roles = Roles(batch, m, n, _k_order(node, [first, second]))
    swapped = _swapped(lowering, node, first, second, roles)
    left, right = (second, first) if swapped else (first, second)
    roles, cycles = planned(lowering, node.axes, left, right, Roles(batch, n, m, roles.k) if swapped else roles)
    lanes = vector_lanes(lowering, node, [first, second], cycles / 2) if extent(node.axes, batch) > 1 else None
    if lanes is not None:
        return _on_vector_unit(lowering, node, [first, second], lanes)
    return contract(
        lowering, in_halves(lowering, left), in_halves(lowering, right), roles, node.axes, strides, node.shape, ISA_TYPE[node.dtype]
    )


def _on_vector_unit(lowering: Lowering, node: Contract, operands: Sequence[Operand], lanes: Sequence[int]) -> Value:
    """Products of f16 numbers are exact in f32, and are summed there: what the matrix planes would do, for sums that share too little."""
    factors = [cast_expr(arg(number, lowering.graph[o].dtype), F32) for number, o in enumerate(node.operands)]
    strides = result_strides(node.groups, node.axes, node.shape)
    reads = [(operand.value, operand.offset, operand.strides) for operand in operands]
    value = reduce_value(lowering, "sum", make("mul", *factors), reads, node.axes, node.reduced, strides, node.shape, lanes=lanes)
    return converted(lowering, value, ISA_TYPE[node.dtype], node.dtype)


def _k_order(node: Contract, operands: Sequence[Operand]) -> tuple[int, ...]:
    """K axes in the order in which a dynamic operand already has them along its lanes."""
    for operand in operands:
        if operand.value.array is None:
            lanes = lane_axes(operand.value, operand.strides, node.axes) or ()
            along = [a for a in lanes if a in node.reduced]
            if along:
                return (*[a for a in node.reduced if a not in along], *along)
    return node.reduced


def _swapped(lowering: Lowering, node: Contract, left: Operand, right: Operand, roles: Roles) -> bool:
    """True where the first operand should be the stationary one: constants are, else what the readers want along lanes decides."""
    if left.value.array is not None and right.value.array is None:
        return not wants_lanes(lowering, node, roles.m)
    if right.value.array is not None and left.value.array is None:
        return wants_lanes(lowering, node, roles.m)
    if _reduced_later(lowering, node, roles.n, 2):  # a reduction along vectors is an accumulation, one along lanes needs moves
        m, n = extent(node.axes, roles.m), extent(node.axes, roles.n)
        if n * -(-m // LANES) <= 1.2 * m * -(-n // LANES):
            return True
    return wants_lanes(lowering, node, roles.m) and not wants_lanes(lowering, node, roles.n)


def _reduced_later(lowering: Lowering, node: Any, axes: Sequence[int], depth: int) -> bool:
    """True where a reader, or a reader of a Map that reads it, reduces over these axes of the node's result."""
    strides = result_strides(node.groups, node.axes, node.shape)
    wanted = {strides[a] for a in axes if node.axes[a] > 1}
    for user in lowering.users(node.id):
        reader = lowering.graph[user]
        if not isinstance(reader, (Map, Reduce)):
            continue
        for k, o in enumerate(reader.operands):
            if o != node.id:
                continue
            _, steps = lowering.operand_strides(reader, k)
            if isinstance(reader, Reduce) and {steps[a] for a in reader.reduced if steps[a]} & wanted:
                return True
            if isinstance(reader, Map) and depth:
                same = [a for a in range(len(reader.axes)) if steps[a] in wanted]
                if same and _reduced_later(lowering, reader, same, depth - 1):
                    return True
    return False


def wants_lanes(lowering: Lowering, node: Any, axes: Sequence[int]) -> bool:
    """True where some contraction that reads the node's result sums over exactly these axes of it."""
    strides = result_strides(node.groups, node.axes, node.shape)
    wanted = {strides[a] for a in axes if node.axes[a] > 1}
    if not wanted or node.size > 1 << 22:
        return False
    for user in lowering.users(node.id):
        reader = lowering.graph[user]
        if isinstance(reader, Contract):
            for k, o in enumerate(reader.operands):
                if o == node.id:
                    _, steps = lowering.operand_strides(reader, k)
                    if {steps[a] for a in reader.reduced if steps[a]} <= wanted and any(steps[a] for a in reader.reduced):
                        return True
    return False


def contract(
    lowering: Lowering,
    moving: Sequence[Operand],
    stationary: Sequence[Operand],
    roles: Roles,
    axes: Sequence[int],
    strides: Sequence[int],
    shape: Sequence[int],
    dtype: DType = DType.F32,
) -> Value:
    """out[batch, M vectors, N lanes] in f32 or f16; half precision results hold zeros in open lanes.

    Operands come in pieces whose sums they are. The products of all pieces go to one accumulator entry, but for those of two second
    pieces, which are below its resolution.
    """
    engine = lowering.engine
    batch, m, n = extent(axes, roles.batch), extent(axes, roles.m), extent(axes, roles.n)
    tiles_k, tiles_n = roles.tiles_k(axes), -(-n // LANES)
    lead = moving[0]
    need = arrange(lead.offset, digits(lead.strides, axes, (*roles.batch, *roles.m, *roles.tiles)), digits(lead.strides, axes, roles.k))
    order = np.arange(len(need)).reshape(batch, m, tiles_k).transpose(0, 2, 1).reshape(-1)
    ordered = _ordered([lowering.fetch(piece.value, need, clean=True) for piece in moving], order)
    parts = []
    for low, high in _column_blocks(batch, tiles_n, tiles_k):
        held = [stationary_tiles(lowering, piece, roles, axes, DType.F16, (low, high)) for piece in stationary]
        weights, rows = tuple(storage for storages, _ in held for storage in storages), held[0][1]
        pairs = [(i, j) for j in range(len(stationary)) for i in range(len(moving)) if i + j < 2]
        passes, index = contraction_passes(batch, m, high - low, tiles_k, rows, engine.machine.acc_depth, pairs)
        job = MatrixJob(EAST, DType.F16, tuple(passes), ((weights, 0), (weights, 1)), ((ordered, (0, 1)),) * 2)
        valid = np.arange(low * LANES, high * LANES).reshape(1, -1, LANES) < n
        parts.append(_results(lowering, job, batch * m * (high - low), index, dtype, valid[0]))
    whole = Seq.join(parts)
    if len(parts) > 1:  # parts are [batch, M, their tiles]: put the tiles of a vector side by side
        numbers = np.split(np.arange(len(whole)), np.cumsum([len(part) for part in parts])[:-1])
        whole = whole.take(np.concatenate([part.reshape(batch * m, -1) for part in numbers], axis=1).reshape(-1))
    lanes = digits(strides, axes, roles.n)
    element = arrange(0, digits(strides, axes, (*roles.batch, *roles.m)), lanes)
    clean = n % LANES == 0 or dtype == DType.F16 or (stationary[0].value.array is not None and n > LANES)
    blocks = tuple((part.storages[0], *pair) for part, pair in zip(parts, _column_blocks(batch, tiles_n, tiles_k), strict=True))
    single = all(len(part.storages) == 1 for part in parts)
    return Value(tuple(shape), dtype, [Copy(element, whole, lanes, False, clean, blocks if single else ())])


BLOCK_VECTORS = 8192


def _column_blocks(batch: int, tiles_n: int, tiles_k: int) -> list[tuple[int, int]]:
    """Ranges of N tiles whose weights fit one set of slices, so that results find room beside them."""
    step = max(1, BLOCK_VECTORS // (batch * tiles_k * LANES))
    return [(low, min(low + step, tiles_n)) for low in range(0, tiles_n, step)]


def _results(lowering: Lowering, job: MatrixJob, count: int, index: Array, dtype: DType, valid: Array) -> Seq:
    """Run a job in f16: the two planes' partial results are added, rounded where the result is f16, and stored.

    `valid` [tiles, lanes] are the lanes of a result vector that hold results.
    """
    base: list[Seq] = []

    def sink(avoid: frozenset[int]) -> Seq:
        base.append(lowering.engine.scratch(dtype, count, avoid, dtype == DType.F16))
        return base[0].take(index)

    sources: list[Provider | Plane] = [Plane(0, DType.F32), Plane(1, DType.F32)]
    ops = [ChainOp(Opcode.ADD, DType.F32, (("in", 0), ("in", 1)))]
    if dtype == DType.F16:
        ops.append(ChainOp(Opcode.CAST, DType.F32, (("op", 0),), DType.F16, 1))
        if not valid.all():
            sources.append(lowering.mask(valid[index % len(valid)], DType.F16))
            ops.append(ChainOp(Opcode.AND, DType.F16, (("op", 1), ("in", 2))))
    lowering.engine.run("contract", sources, ops, [Sink(len(ops) - 1, sink)], count, job=job)
    return base[0]


def _ordered(providers: Sequence[Provider], order: Array) -> Provider:
    """The vectors of all providers, each in that order, one after the other."""
    if len(providers) == 1:
        return providers[0].take(order)
    return Provider(lambda avoid, _: Seq.join([provider.take(order)(avoid) for provider in providers]))


def contraction_passes(
    batch: int, m: int, tiles_n: int, tiles_k: int, rows: int, depth: int, pairs: Sequence[tuple[int, int]] = ((0, 0),)
) -> tuple[list[Pass], Array]:
    """Passes [batch, M block, N tile, K tile, pair] over moving vectors [piece, batch, K tile, M]; and the result vector of every emission.

    `pairs` are the pieces (moving, stationary) whose products are added; stationary tiles are [piece, batch, N tile, K tile].
    """
    passes: list[Pass] = []
    vectors, tiles = batch * tiles_k * m, batch * tiles_n * tiles_k
    steps = [(kt, i, j) for kt in range(tiles_k) for i, j in pairs]
    emitted = []
    for b in range(batch):
        for m0 in range(0, m, depth):
            count = min(depth, m - m0)
            for nt in range(tiles_n):
                for number, (kt, i, j) in enumerate(steps):
                    start = i * vectors + (b * tiles_k + kt) * m + m0
                    tile = j * tiles + (b * tiles_n + nt) * tiles_k + kt
                    last = number == len(steps) - 1
                    passes.append(Pass(tile * rows, rows, start, start + count, 0, int(number > 0), int(not last), int(last)))
                emitted.append(((b * m + m0 + np.arange(count)) * tiles_n) + nt)
    return passes, np.concatenate(emitted)


def stationary_tiles(
    lowering: Lowering, operand: Operand, roles: Roles, axes: Sequence[int], dtype: DType, columns: tuple[int, int] | None = None
) -> tuple[tuple[Storage, ...], int]:
    """The stationary operand as tiles [batch, N tile, K tile, rows] of vectors with K along lanes; returns storage and rows per tile."""
    batch, n = extent(axes, roles.batch), extent(axes, roles.n)
    tiles_n, tiles_k = -(-n // LANES), roles.tiles_k(axes)
    rows = LANES if n > LANES else -(-n // STRIPES) * STRIPES
    low, high = columns or (0, tiles_n)
    engine = lowering.engine
    value = operand.value
    if value.array is not None:
        key = ("tiles", operand.offset, operand.strides, roles, tuple(axes), constant_identity(value), low, high)
        image = _constant_tiles(operand, roles, axes, rows, (low, high))
        return engine.constant(batch * (high - low) * tiles_k * rows, dtype, frozenset(), key, image, value.source, rows), rows
    need = arrange(
        operand.offset, digits(operand.strides, axes, (*roles.batch, *roles.n, *roles.tiles)), digits(operand.strides, axes, roles.k)
    )
    source = lowering.fetch(operand.value, need, clean=True)(frozenset())
    index = np.minimum(np.arange(low * rows, high * rows), n - 1)
    order = (np.arange(batch)[:, None, None] * n + index.reshape(1, 1, -1)) * tiles_k + np.arange(tiles_k)[None, :, None]
    order = order.reshape(batch, tiles_k, high - low, rows).transpose(0, 2, 1, 3).reshape(-1)
    source = source.take(order)
    return stripe(lowering, source, rows), rows


def _constant_tiles(operand: Operand, roles: Roles, axes: Sequence[int], rows: int, columns: tuple[int, int]) -> Image:
    """How the tiles of a constant come from its array: vectors of whole tiles, zero where a tile goes beyond N or K."""
    at_batch, at_n, at_outer, at_k = (
        enumerate_digits(digits(operand.strides, axes, names)) for names in (roles.batch, roles.n, roles.tiles, roles.k)
    )
    inner = -(-len(at_k) // LANES)
    shape = len(at_batch), columns[1] - columns[0], len(at_outer), inner

    def image(given: Array | None, first: int, last: int) -> Array:
        array = operand.value.array if given is None else operand.value.derived(given)
        assert array is not None
        flat = np.ascontiguousarray(array).reshape(-1)
        tiles = np.zeros(((last - first) // rows, rows, LANES), dtype=flat.dtype)
        for number, tile in enumerate(tiles, first // rows):
            b, n, outer, k = np.unravel_index(number, shape)
            start = (columns[0] + n) * rows
            down = operand.offset + at_batch[b] + at_outer[outer] + at_n[start : start + rows]
            block = _block(flat, down, at_k[k * LANES : (k + 1) * LANES])
            tile[: block.shape[0], : block.shape[1]] = block
        return tiles.reshape(-1, LANES)

    return image


def _block(flat: Array, down: Array, along: Array) -> Array:
    """flat[down[i] + along[j]], as a view where both advance evenly."""
    steps = [np.diff(line) for line in (down, along)]
    if len(down) and all((step == step[:1]).all() for step in steps):
        pitch = [int(step[0]) * flat.itemsize if len(step) else 0 for step in steps]
        return np.lib.stride_tricks.as_strided(flat[down[0] + along[0] :], (len(down), len(along)), pitch, writeable=False)
    result: Array = flat[down[:, None] + along]
    return result
