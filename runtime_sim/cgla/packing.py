"""Factors of a multiply-add chain, read for all links at once.

Most factors are one load that went through a few operations with constants (a cast of halves, a byte picked and scaled). Such a factor
is a *recipe* over its load; links with the same recipe are gathered from the local memories with one index array and computed together.
Index arrays depend on addresses alone, so they are kept with the launch plan.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from math import prod
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...machines.cgla.isa import OP1, OP1_CODE, OP2, OP3, Source
from . import words as w
from .chains import kernels
from .kernel import Kernel, Value
from .plan import WORD, Ints, MemoryAccess
from .words import Words

MAX_DEPTH = 8
Place = tuple[int, int, int]
LAYOUTS = {"split": 0, "pairs": 1, "low": 2}
Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Factor:
    """A factor of one link: its load and the recipe from the loaded words, a nested tuple that `compute` understands."""

    load: Value
    recipe: tuple[Any, ...]


def trace(kernel: Kernel, constants: dict[tuple[int, int, int], int], value: Value, expand: int) -> Factor | None:
    """The factor behind an operand, None where it is not one load with constants."""
    if value not in kernel.recipes:
        kernel.recipes[value] = _recipe(kernel, value, 0)
    known = kernel.recipes[value]
    if known is None or len(known[1]) != 1:
        return None
    recipe, loads, places = known
    if places:
        recipe = _filled(recipe, constants)
    return Factor(next(iter(loads)), ("expand", expand, recipe))


Recipe = tuple[tuple[Any, ...], frozenset[Value], bool]


def _recipe(kernel: Kernel, value: Value, depth: int) -> Recipe | None:
    """(recipe with the places of constants, loads, whether it has constants) of a value; found once a kernel."""
    if value.kind == "const":
        return ("const", (value.row, value.col, value.part)), frozenset(), True
    if value.kind in ("load", "wide"):
        return ("load",), frozenset({value}), False
    slot = kernel.slots[(value.row, value.col)]
    if slot["self"] or slot.init or depth >= MAX_DEPTH:
        return None
    operands: list[tuple[Any, ...] | None] = []
    loads: frozenset[Value] = frozenset()
    places = False
    for index in (1, 2, 3):
        if slot[f"ex{index}"] < 0:
            operands.append(None)
            continue
        driver = kernel.driver(kernel.source_row(slot.row, bool(slot.fold)), slot[f"ex{index}"])
        assert driver is not None
        inner = _recipe(kernel, driver, depth + 1)
        if inner is None:
            return None
        operands.append(("expand", slot[f"expand{index}"], inner[0]))
        loads, places = loads | inner[1], places or inner[2]
    fields = (slot.op1, slot.mode, slot.op2, slot.src4, slot.imm4, slot.op3, slot.src5, slot.imm5)
    return ("alu", *fields, *operands), loads, places


def _filled(recipe: tuple[Any, ...], constants: dict[tuple[int, int, int], int]) -> tuple[Any, ...]:
    """A recipe with the values of its constants."""
    if recipe[0] == "const":
        return "const", constants.get(recipe[1], 0)
    return tuple(_filled(part, constants) if isinstance(part, tuple) else part for part in recipe)


def compute(recipe: tuple[Any, ...], loaded: Words) -> Words:
    """A recipe on loaded words."""
    kind = recipe[0]
    if kind == "load":
        return loaded
    if kind == "const":
        return np.full((1,) * loaded.ndim, recipe[1], dtype=np.uint64)
    if kind == "expand":
        return w.expand(compute(recipe[2], loaded), recipe[1])
    _, op1, mode, op2, src4, imm4, op3, src5, imm5, *sources = recipe
    operands = [None if source is None else compute(source, loaded) for source in sources]
    taken = tuple(operand for operand in operands[: OP1[op1].arity] if operand is not None)
    result = w.op1(OP1[op1].name, mode, taken)
    if op2:
        chosen = {Source.EX2: operands[1], Source.EX3: operands[2]}.get(Source(src4), np.asarray(imm4, dtype=np.uint64))
        result = w.op2(OP2[op2].name, result, chosen)
    if op3:
        amount = operands[2] if src5 == Source.EX3 else np.uint64(imm5)
        result = w.op3(OP3[op3], result, np.asarray(amount, dtype=np.uint64))
    return result


def same_words(factor: Factor) -> bool:
    """True where both words of the factor are equal by its last expansion."""
    return factor.recipe[1] in (1, 2)


@dataclass(frozen=True)
class Gather:
    """Links of a chain whose factors have one recipe and one set of address steps: the word of a link at a cell of the axes
    (batch, steps, own) lies at logical address `first` of the link plus the steps of the three axes.

    `links` are their positions in the chain, `starts` the byte of the lane where each one's partition of `size` bytes begins; `own` has
    no negative step; `item` is the size of a word in bytes. `loads` are the (row, slot, EA) of the links; where several sets of loads
    were put beside each other, those of each set.
    """

    recipe: tuple[Any, ...]
    links: tuple[int, ...]
    first: Ints
    starts: Ints
    size: int
    batch: Ints
    steps: Ints
    own: Ints
    item: int
    loads: tuple[tuple[Place, ...], ...] = ()

    @cached_property
    def reach(self) -> tuple[int, int]:
        """First and last byte (exclusive) that a link touches, from its `first`."""
        axes = (self.batch, self.steps, self.own)
        return sum(int(axis.min()) for axis in axes), sum(int(axis.max()) for axis in axes) + self.item

    @cached_property
    def geometry(self) -> tuple[Any, ...]:
        """All but the places of the links."""
        return self.recipe, self.links, self.item, self.batch.tobytes(), self.steps.tobytes(), self.own.tobytes()

    @cached_property
    def stride(self) -> int:
        """The step of the own axis, 0 where its steps differ."""
        step = int(self.own[1]) if self.own.size > 1 else self.item
        return step if np.array_equal(self.own, np.arange(self.own.size) * step) else 0

    @cached_property
    def wraps(self) -> bool:
        """Whether the array of a link goes beyond the end of its partition."""
        low, high = self.first + self.reach[0], self.first + self.reach[1] - 1
        return bool((low // self.size != high // self.size).any())

    def index(self, first: Ints) -> Ints:
        """Bytes [..., batch, steps, links, own] of links that begin at `first` [..., links]."""
        inner = self.batch[:, None, None, None] + self.steps[:, None, None] + self.own
        return np.asarray(first[..., None, None, :, None] + inner)

    def code(self) -> tuple[int, int] | None:
        """(recipe, expand) as `kernels.pack` takes them, None for a recipe that it does not know."""
        _, expand, inner = self.recipe
        if self.item != 8 or expand > 2:
            return None
        if inner == ("load",):
            return 0, expand
        halves = inner[0] == "alu" and inner[1] == OP1_CODE["X_H2F"] and not (inner[3] or inner[6])
        return (1 + inner[2], expand) if halves and inner[9:] == (("expand", 0, ("load",)), None, None) else None


def gathers(
    factors: Sequence[Factor],
    accesses: Sequence[MemoryAccess],
    strides: Sequence[tuple[int, ...]],
    digits: tuple[int, ...],
    row_bytes: int,
    groups: tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]],
) -> list[Gather] | None:
    """The factors over the axes (batch, steps, own); None where a load is unaligned."""
    together: dict[tuple[Any, ...], list[int]] = {}
    for link, (factor, access) in enumerate(zip(factors, accesses, strict=True)):
        if access.op == "LDRU":
            return None
        used = tuple(strides[link][axis] for group in groups for axis in group)
        together.setdefault((min(access.size, 8), factor.recipe, access.part_size, used), []).append(link)
    result = []
    for (item, recipe, size, _), links in together.items():
        batch, steps, own = (_steps(group, strides[links[0]], digits) for group in groups)
        low = int(own.min())
        first, starts = [], []
        for link in links:
            access, load = accesses[link], factors[link].load
            wide = 8 * load.part if load.kind == "wide" else 0
            first.append(access.first + low + wide)
            starts.append(access.row * row_bytes + access.part_start)
        loads = tuple((accesses[link].row, accesses[link].col, accesses[link].ea) for link in links)
        result.append(Gather(recipe, tuple(links), np.array(first), np.array(starts), size, batch, steps, own - low, item, (loads,)))
    return result


def _steps(group: tuple[int, ...], strides: tuple[int, ...], digits: tuple[int, ...]) -> Ints:
    """Address offsets over a group of axes, outermost first, as one axis."""
    total = np.zeros(1, dtype=np.int64)
    for axis in group:
        total = (total[:, None] + np.arange(digits[axis], dtype=np.int64) * strides[axis]).ravel()
    return total


def heads(layout: str) -> int:
    """Batches that the two words of a factor take."""
    return 2 if layout == "split" else 1


def pack(memory: NDArray[np.uint8], parts: Sequence[Gather], firsts: Sequence[Ints], layout: str, packed: Floats) -> None:
    """Factors as fp32 into `packed` [sets, batch, heads, steps, links, width]; `firsts` are, for each part, the first bytes of its links
    in `memory`, [sets, links].

    `layout`: `split` puts the two words of a factor in separate heads, `pairs` next to each other (own * 2), `low` takes one word of
    factors whose words are equal.
    """
    compiled = kernels()
    for part, first in zip(parts, firsts, strict=True):
        code = part.code() if compiled is not None else None
        if compiled is not None and code is not None:
            _pack_compiled(compiled, memory, part, first, code, layout, packed)
        else:
            pack_at(memory, part, part.index(first), layout, packed)


def _pack_compiled(
    compiled: ModuleType, memory: NDArray[np.uint8], part: Gather, first: Ints, code: tuple[int, int], layout: str, packed: Floats
) -> None:
    """One part by the compiled loop for its recipe, layout and steps."""
    recipe, expand = code
    joined = recipe == 0 and expand == 0 and layout == "pairs"
    unit = 2 * WORD if joined else WORD
    words, out = (array.view(np.uint64 if joined else np.uint32) for array in (memory[: memory.size // unit * unit], packed))
    links = np.array(part.links)
    places = first // unit, part.batch // unit, part.steps // unit
    if part.stride and recipe and expand == 0 and layout == "pairs":
        compiled.pack_halves(words[recipe - 1 :], *places, part.own.size, part.stride // unit, links, out)
    elif part.stride and recipe == 0 and (joined or layout == "low"):
        compiled.pack_words(words[int(expand == 2) :], *places, part.own.size, part.stride // unit, links, out)
    else:
        words, out = (array.view(np.uint32) for array in (memory[: memory.size // WORD * WORD], packed))
        compiled.pack(words, *(a // WORD for a in (first, part.batch, part.steps, part.own)), links, *code, LAYOUTS[layout], out)


def pack_lane(memory: NDArray[np.uint8], parts: Sequence[Gather], layout: str, packed: Floats) -> None:
    """`pack` from the local memories of a lane, where an array may wrap in its partition; `packed` has one set."""
    for part in parts:
        if part.wraps:
            index = part.index(part.first) % part.size + part.starts[:, None]
            pack_at(memory, part, index[None], layout, packed)
        else:
            pack(memory, [part], [(part.starts + part.first % part.size)[None]], layout, packed)


def pack_at(memory: NDArray[np.uint8], part: Gather, index: Ints, layout: str, packed: Floats) -> None:
    """One part from the bytes at `index` [sets, batch, steps, links, own]."""
    words = memory[: memory.size // part.item * part.item].view({8: np.uint64, 4: np.uint32, 1: np.uint8}[part.item])
    lanes = w.parts(compute(part.recipe, words[index // part.item].astype(np.uint64, copy=False)), "<f4")
    where, own = _slice(part.links), part.own.size
    if layout == "pairs":
        packed[:, :, 0][:, :, :, where, : 2 * own] = lanes.reshape(*lanes.shape[:-2], 2 * own)
    elif layout == "low":
        packed[:, :, 0][:, :, :, where, :own] = lanes[..., 0]
    else:
        packed[:, :, :, :, where, :own] = np.moveaxis(lanes, -1, 2)


def _slice(links: tuple[int, ...]) -> slice | list[int]:
    """Positions as a slice where they are evenly spaced."""
    step = links[1] - links[0] if len(links) > 1 else 1
    if all(b - a == step for a, b in pairwise(links)):
        return slice(links[0], links[-1] + 1, step)
    return list(links)


def sizes_of(groups: Sequence[tuple[int, ...]], digits: tuple[int, ...]) -> tuple[int, ...]:
    """Extents of groups of axes."""
    return tuple(prod(digits[axis] for axis in group) for group in groups)
