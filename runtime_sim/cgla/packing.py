"""Factors of a multiply-add chain, read for all links at once.

Most factors are one load that went through a few operations with constants (a cast of halves, a byte picked and scaled). Such a factor
is a *recipe* over its load; links with the same recipe are gathered from the local memories with one index array and computed together.
Index arrays depend on addresses alone, so they are kept with the launch plan.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...machines.cgla.isa import OP1, OP1_CODE, OP2, OP3, Source
from . import words as w
from .chains import kernels, padded
from .kernel import Kernel, Value
from .plan import Ints, MemoryAccess
from .words import Words

MAX_DEPTH = 8
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
    """Links with one recipe: their positions in the chain and the index array [batch, steps, links, own] into the memory words."""

    recipe: tuple[Any, ...]
    links: tuple[int, ...]
    index: Ints
    item: int

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
    """Index arrays of all links over the axes (batch, steps, own); None where a load is unaligned."""
    by_recipe: dict[tuple[Any, ...], list[int]] = {}
    for link, (factor, access) in enumerate(zip(factors, accesses, strict=True)):
        by_recipe.setdefault((min(access.size, 8), factor.recipe), []).append(link)
    result = []
    for (item, recipe), links in by_recipe.items():
        rows = []
        for link in links:
            access = accesses[link]
            if access.op == "LDRU":
                return None
            first = access.base + int(access.offsets.vector[0]) + (8 * factors[link].load.part if factors[link].load.kind == "wide" else 0)
            parts = [_steps(group, strides[link], digits) for group in groups]
            logical = first + parts[0][:, None, None] + parts[1][None, :, None] + parts[2][None, None, :]
            rows.append((access.row * row_bytes + access.physical(logical)) // item)
        result.append(Gather(recipe, tuple(links), np.ascontiguousarray(np.stack(rows, axis=2)), item))
    return result


def _steps(group: tuple[int, ...], strides: tuple[int, ...], digits: tuple[int, ...]) -> Ints:
    """Address offsets over a group of axes, outermost first, as one axis."""
    total = np.zeros(1, dtype=np.int64)
    for axis in group:
        total = (total[:, None] + np.arange(digits[axis], dtype=np.int64) * strides[axis]).ravel()
    return total


def pack(memory: NDArray[np.uint8], parts: Sequence[Gather], links: int, multiple: int, layout: str, known: Floats | None = None) -> Floats:
    """Factors as fp32 [batch, steps, links, own padded to `multiple`], in the place of `known` where an older packing is given.

    `layout`: `split` puts the two words of a factor in separate batches (batch * 2), `pairs` next to each other (own * 2), `low` takes
    one word of factors whose words are equal.
    """
    batch, steps, _, own = parts[0].index.shape
    width = padded(own * (2 if layout == "pairs" else 1), multiple)
    heads = 2 if layout == "split" else 1
    result = np.zeros((batch * heads, steps, links, width), dtype=np.float32) if known is None else known
    packed = result.reshape(batch, heads, steps, links, width)
    compiled = kernels()
    for part in parts:
        flat = memory.reshape(-1).view({8: np.uint64, 4: np.uint32, 1: np.uint8}[part.item])
        code = part.code() if compiled is not None else None
        if compiled is not None and code is not None:
            compiled.pack(flat, part.index, np.array(part.links), *code, LAYOUTS[layout], packed.view(np.uint32))
            continue
        loaded = flat[part.index].astype(np.uint64, copy=False)
        lanes = w.parts(compute(part.recipe, loaded), "<f4")
        where = _slice(part.links)
        if layout == "pairs":
            packed[:, 0][:, :, where, : 2 * own] = lanes.reshape(batch, steps, len(part.links), 2 * own)
        elif layout == "low":
            packed[:, 0][:, :, where, :own] = lanes[..., 0]
        else:
            packed[:, :, :, where, :own] = np.transpose(lanes, (0, 4, 1, 2, 3))
    return result


def _slice(links: tuple[int, ...]) -> slice | list[int]:
    """Positions as a slice where they are evenly spaced."""
    step = links[1] - links[0] if len(links) > 1 else 1
    if all(b - a == step for a, b in pairwise(links)):
        return slice(links[0], links[-1] + 1, step)
    return list(links)


def sizes_of(groups: Sequence[tuple[int, ...]], digits: tuple[int, ...]) -> tuple[int, ...]:
    """Extents of groups of axes."""
    return tuple(prod(digits[axis] for axis in group) for group in groups)
