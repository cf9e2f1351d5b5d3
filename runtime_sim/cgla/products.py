"""Launches that only sum products, as matrix products on DDR.

A launch whose every store is the last value of a sum that begins with zero is, for each place of its grid, a sum of products of two
factors. Where the factors lie in DDR (`sources.py`) it runs as a matrix product [columns, products] x [products, outputs] of numpy: the
terms are those of the launch, their order is that of BLAS. All of this follows from slots and addresses.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from math import prod

import numpy as np
from numpy.typing import NDArray

from ..threads import each, even, one_thread_products
from .chain_forms import LaneMemory
from .lane import pieces
from .launch import SummedStores, summed_stores
from .packing import Gather, heads, pack, pack_lane
from .plan import WORD, Ints, LaunchPlan

Bytes = NDArray[np.uint8]
PACKED_BYTES = 1 << 20
"""Packed factors of the wide side that are multiplied before the next ones are packed: they stay in a core's cache."""
SHARED_PRODUCTS = 1 << 21
"""Products below which handing them to another thread costs more than it saves."""


@dataclass(frozen=True)
class Side:
    """One side of a product: its factors by recipe, how they are packed ([batch, heads, steps, links, own]), and for each part the
    partition that each link is read from. `spans` are what is read of local memory, at most: (row, first byte, end, partition), two of a
    partition where that wraps."""

    parts: tuple[Gather, ...]
    layout: str
    shape: tuple[int, ...]
    owners: tuple[Ints, ...]
    spans: tuple[tuple[int, int, int, int], ...]

    @cached_property
    def geometry(self) -> tuple[object, ...]:
        """All but the places of the links."""
        return tuple(part.geometry for part in self.parts), self.layout, self.shape

    def moved(self, moves: Ints) -> list[Ints]:
        """For each part the first byte of each link where what is read of each partition lies `moves` bytes after its address."""
        return [part.first + moves[owner] for part, owner in zip(self.parts, self.owners, strict=True)]

    def packed(self, memory: Bytes, firsts: Sequence[Ints]) -> NDArray[np.float32]:
        """The factors of several products, [products, batch * heads, steps * links, own]; `firsts` as for `pack`."""
        batch, head, steps, links, own = self.shape
        result = np.empty((len(firsts[0]), batch, head, steps, links, own), dtype=np.float32)
        pack(memory, self.parts, firsts, self.layout, result)
        return result.reshape(-1, batch * head, steps * links, own)


@dataclass(frozen=True)
class ProductForm:
    """A launch as a matrix product: result (t, c, j) of the wide side's j and the narrow side's c goes to byte
    `first` + t, c, j times `strides` of local memory row `row`, and these bytes are dense."""

    wide: Side
    narrow: Side
    row: int
    first: int
    strides: tuple[int, int, int]
    size: int

    @property
    def shape(self) -> tuple[int, int, int]:
        """Batches, columns and outputs."""
        batch, head, _, _, own = self.wide.shape
        return batch * head, self.narrow.shape[4], own

    @property
    def products(self) -> int:
        """Multiplications of one launch."""
        return prod(self.shape) * self.wide.shape[2] * self.wide.shape[3]


def product_form(plan: LaunchPlan, lane: LaneMemory) -> ProductForm | None:
    """The product that a launch is, None where it is something else; made once a plan."""
    if "product" not in plan.forms:
        row_bytes = lane.data.shape[1]
        model = plan.model
        made = None if model is None or model is plan else _moved(plan, model, product_form(model, lane), row_bytes)
        if made is None:
            stores = summed_stores(plan, lane)
            made = _product_form(stores[0], row_bytes) if stores is not None and len(stores) == 1 else None
        plan.forms["product"] = made
    form: ProductForm | None = plan.forms["product"]
    return form


def _moved(plan: LaunchPlan, model: LaunchPlan, form: ProductForm | None, row_bytes: int) -> ProductForm | None:
    """The form of a plan from that of its model, whose accesses begin elsewhere; None where it is not that simple."""
    moves = {place: access.first - model.by_place[place].first for place, access in plan.by_place.items()}
    stores = [access for access in plan.accesses if access.store]
    steps = {moves[(access.row, access.col, access.ea)] for access in stores}
    starts = {(access.part_start, access.part_size) for access in stores}
    if form is None or len(steps) != 1 or len(starts) != 1:
        return None
    (step,), ((start, size),) = steps, starts
    sides = []
    for side in (form.wide, form.narrow):
        parts = []
        for part in side.parts:
            by = [[moves[place] for place in places] for places in part.loads]
            if any(other != by[0] for other in by):
                return None
            parts.append(replace(part, first=part.first + np.array(by[0])))
        sides.append(_side(parts, side.layout, side.shape[3], row_bytes))
    first = (form.first - start + step) % size
    return replace(form, wide=sides[0], narrow=sides[1], first=start + first) if first + form.size <= size else None


def _product_form(stores: SummedStores, row_bytes: int) -> ProductForm | None:
    group = stores.group
    if stores.start.any() or (group.head is not None and group.head.any()) or len(stores.rows) != 1:
        return None
    form = group.form
    wide, narrow = (_side(p, lay, form.links, row_bytes) for p, lay in zip((form.wide, form.narrow), form.layouts, strict=True))
    shape = wide.shape[0] * wide.shape[1], narrow.shape[4], wide.shape[4]
    places = np.full(group.extents, -1, dtype=np.int64)
    places.reshape(-1)[stores.taken] = stores.words
    places = places[:, : shape[1], : shape[2]]
    first = int(places[0, 0, 0])
    steps = tuple(int(places[tuple(int(a == axis) for a in range(3))]) - first if shape[axis] > 1 else 0 for axis in range(3))
    expected = first + sum(np.arange(shape[a]).reshape([-1 if b == a else 1 for b in range(3)]) * steps[a] for a in range(3))
    dense = stores.taken.size == prod(shape) and np.array_equal(places, expected) and int(places.min()) >= 0
    if not dense or int(places.max()) - int(places.min()) + 1 != prod(shape) or len(np.unique(places)) != prod(shape):
        return None
    row, inside = divmod(first * WORD, row_bytes)
    if min(steps) < 0:
        return None
    return ProductForm(wide, narrow, row, inside, (steps[0] * WORD, steps[1] * WORD, steps[2] * WORD), prod(shape) * WORD)


def _side(parts: Sequence[Gather], layout: str, links: int, row_bytes: int) -> Side:
    reach: dict[tuple[int, int, int], tuple[int, int]] = {}
    owners = []
    for part in parts:
        keys = [(*divmod(start, row_bytes), part.size) for start in part.starts.tolist()]
        for key, first in zip(keys, part.first.tolist(), strict=True):
            low, high = first + part.reach[0], first + part.reach[1]
            known = reach.get(key, (low, high))
            reach[key] = min(known[0], low), max(known[1], high)
        order = {key: number for number, key in enumerate(reach)}
        owners.append(np.array([order[key] for key in keys]))
    one = parts[0]
    shape = one.batch.size, heads(layout), one.steps.size, links, one.own.size * (2 if layout == "pairs" else 1)
    spans = tuple(
        (row, place, place + count, number)
        for number, ((row, start, size), (low, high)) in enumerate(reach.items())
        for place, _, count in pieces((row, low, high - 1, start, size))
    )
    return Side(tuple(parts), layout, shape, tuple(owners), spans)


def run_product(form: ProductForm, lane: LaneMemory) -> None:
    """One launch on the local memories of its lane: the same bits as from DDR to DDR."""
    sides = []
    for side in (form.wide, form.narrow):
        batch, head, steps, links, own = side.shape
        packed = np.empty((1, batch, head, steps, links, own), dtype=np.float32)
        pack_lane(lane.data.reshape(-1), side.parts, side.layout, packed)
        sides.append(packed.reshape(batch * head, steps * links, own))
    result: NDArray[np.float32] = np.ndarray(form.shape, np.float32, lane.data[form.row], form.first, form.strides)
    with one_thread_products(), np.errstate(all="ignore"):
        np.matmul(np.swapaxes(sides[1], 1, 2), sides[0], out=result)
    lane.touch(form.row)


@dataclass
class Product:
    """One launch with its factors in DDR: for each side the symbol and how far its bytes lie after their logical addresses
    (`Side.moved`); `result` is the symbol and byte where result (0, 0, 0) goes, None as long as nothing drains it."""

    launch: int
    form: ProductForm
    symbols: tuple[int, int]
    moves: tuple[Ints, Ints]
    result: tuple[int, int] | None = None


@dataclass(frozen=True)
class _Stack:
    """Products of one geometry on the same symbols: `wide` and `narrow` are the distinct packings (first bytes of the links of each part,
    [packings, links]), `pairs` which of them each product multiplies, in order of the wide one, and `places` where it goes."""

    form: ProductForm
    symbols: tuple[int, int, int]
    wide: tuple[Ints, ...]
    narrow: tuple[Ints, ...]
    pairs: tuple[tuple[int, int, int], ...]

    def run(self, view: Callable[[int], Bytes]) -> None:
        """All products of the stack, cut over the threads by their wide packings."""
        form = self.form
        source, target = view(self.symbols[0]), view(self.symbols[2])
        narrow = form.narrow.packed(view(self.symbols[1]), self.narrow)
        each(partial(self._some, source, narrow, target), even(len(self.wide[0]), form.products * len(self.pairs), SHARED_PRODUCTS))

    def _some(self, source: Bytes, narrow: NDArray[np.float32], target: Bytes, rows: slice) -> None:
        """The products of some wide packings."""
        form = self.form
        step = max(1, PACKED_BYTES // (WORD * prod(form.wide.shape)))
        columns = np.swapaxes(narrow, 2, 3)
        pairs = [pair for pair in self.pairs if rows.start <= pair[0] < rows.stop]
        at = 0
        for begin in range(rows.start, rows.stop, step):
            end = min(begin + step, rows.stop)
            wide = form.wide.packed(source, [first[begin:end] for first in self.wide])
            while at < len(pairs) and pairs[at][0] < end:
                left, right, place = pairs[at]
                result: NDArray[np.float32] = np.ndarray(form.shape, np.float32, target, place, form.strides)
                np.matmul(columns[right], wide[left - begin], out=result)
                at += 1


class Batch:
    """Products that can be computed together: none reads or writes what another one writes."""

    def __init__(self, products: Sequence[Product]) -> None:
        together: dict[tuple[object, ...], list[tuple[Product, int]]] = {}
        for product in products:
            assert product.result is not None
            form, (symbol, place) = product.form, product.result
            key = form.wide.geometry, form.narrow.geometry, form.strides, *product.symbols, symbol
            together.setdefault(key, []).append((product, place))
        self.stacks = [_stack([product for product, _ in members], [place for _, place in members]) for members in together.values()]

    def run(self, view: Callable[[int], Bytes]) -> None:
        """Computes every product; `view` gives the bytes of a symbol."""
        with one_thread_products(), np.errstate(all="ignore"):
            for stack in self.stacks:
                stack.run(view)


def _stack(products: Sequence[Product], places: Sequence[int]) -> _Stack:
    """Products of one geometry on the same symbols, and where each one's result begins."""
    wide, left = _distinct([product.form.wide.moved(product.moves[0]) for product in products])
    narrow, right = _distinct([product.form.narrow.moved(product.moves[1]) for product in products])
    first = products[0]
    assert first.result is not None
    return _Stack(first.form, (*first.symbols, first.result[0]), wide, narrow, tuple(sorted(zip(left, right, places, strict=True))))


def _distinct(sides: Sequence[list[Ints]]) -> tuple[tuple[Ints, ...], list[int]]:
    """The distinct packings, and which of them each side is."""
    known: dict[bytes, int] = {}
    kept: list[list[Ints]] = []
    numbers = []
    for side in sides:
        key = b"".join(first.tobytes() for first in side)
        if key not in known:
            known[key] = len(kept)
            kept.append(side)
        numbers.append(known[key])
    return tuple(np.stack(part) for part in zip(*kept, strict=True)), numbers
