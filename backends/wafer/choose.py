"""Which axes of a nest are dealt out over the rows and columns of a rectangle.

For every node all pairs (axis for Y, axis for X) are priced in cycles of the ideal machine: local beats, line reductions, copies that must
be made whole first, and a penalty for constants that would lie on too few cores. Axes are cut into equal parts; only axes of contractions
whose operands are all constants there may be padded. The cheapest pair that fits the memory is taken, node by node.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from math import inf, prod

from ...ir.access import axes_used
from ...ir.expr import Expr, entries
from ...ir.graph import (
    Access,
    Constant,
    Contract,
    Gather,
    Graph,
    Index,
    Lookup,
    Map,
    Move,
    Nest,
    Node,
    Reduce,
    Scan,
    Scatter,
    Sort,
    identity_access,
)  # fmt: skip
from ...machines.wafer.isa import WORDS, Element
from .contract import chunk_of
from .layout import Choice, Shard, Shards, Split, Splits, Value, X, Y, local_axes, local_shape, result_shards
from .lines import line_cycles
from .movement import LOOKUP, cut_piece, dim_shards, scatter_shards
from .nests import tabulated
from .recipes import lower
from .relayout import cheapest, plans
from .stage import Stage, element_of, free_shards, placeable, stored_element

_SLOW = {"exp": 10, "exp2": 10, "log": 12, "recip": 8, "div": 10, "rsqrt": 10, "sqrt": 10, "erf": 16, "sin": 16, "cos": 16}
LARGE_WORDS = 13_000
"""No single value on a core may be larger than this: three quarters of the data words."""

_ENOUGH = 4.0
"""A cut that costs so many times the cheapest need not be priced in full."""
_CROWDED_WORDS = 4096
"""Copies of operands that are larger than this make a contraction consider doing its work in chunks."""
_KEEP_ELEMENTS = 1024
"""Results with fewer elements on a core are stored whole along a line."""


def largest_divisor(n: int, limit: int) -> int:
    """The largest divisor of n that is at most `limit`."""
    return max(d for d in range(1, min(n, limit) + 1) if n % d == 0)


@lru_cache(maxsize=4096)
def expr_weight(expr: Expr) -> float:
    """Beats a point of an expression, roughly."""
    return 1.0 + sum(_SLOW.get(e.op, 1.0) for e in entries(lower(tabulated(expr)[0])))


def units_of(graph: Graph) -> list[tuple[int, ...]]:
    """For every node and dimension, the block size that its readers would like a cut to keep together (64 for heads of 64, say)."""
    units = [[1] * len(n.shape) for n in graph.nodes]
    for node in reversed(graph.nodes):
        if not isinstance(node, (Map, Reduce, Contract)):
            continue
        axis_unit = [1] * len(node.axes)
        for d, group in enumerate(node.groups):
            if group:
                inner = prod(node.axes[a] for a in group[1:])
                own = units[node.id][d]
                axis_unit[group[0]] = own // inner if own % inner == 0 else 1
        for operand, access in zip(node.operands, node.accesses, strict=True):
            shape = graph[operand].shape
            for d, entry in enumerate(access):
                if not isinstance(entry, Index) or not entry.terms or entry.offset < 0:
                    continue
                axis, coefficient = max(entry.terms, key=lambda t: t[1])
                wanted = coefficient * axis_unit[axis]
                if wanted > units[operand][d] and wanted < shape[d] and shape[d] % wanted == 0:
                    units[operand][d] = wanted
    return [tuple(u) for u in units]


def node_axes(graph: Graph, node: Node) -> tuple[int, ...]:
    """Extents of what may be cut: the nest's axes, or the dimensions of the result."""
    if isinstance(node, (Nest, Scatter)):
        return node.axes
    return graph[node.operands[0]].shape if isinstance(node, Sort) else node.shape


@dataclass(frozen=True)
class Read:
    """An affine read of a node under some cut: what the cores of `splits` read of operand `node` through `access` over `axes`; `clipped`
    where the access leads beyond the operand and cores read only what there is."""

    node: int
    access: Access
    axes: tuple[int, ...]
    splits: Splits
    clipped: bool = False


def reads(node: Node, splits: Splits) -> Iterator[Read | None]:
    """Everything that a node reads affinely, None where it cannot be cut like this."""
    if isinstance(node, Move):
        for piece in node.pieces:
            cut = cut_piece(node, piece, splits)
            yield Read(node.operands[piece.operand], cut.access, cut.axes, cut.splits, cut.moved(piece)) if cut is not None else None
    elif isinstance(node, Nest):
        for operand, access in zip(node.operands, node.accesses, strict=True):
            yield Read(operand, access, node.axes, splits)
    elif isinstance(node, Scatter):
        for operand, access in zip(node.operands[1:], node.accesses, strict=True):
            yield Read(operand, access, node.axes, splits)
    else:
        for operand in node.operands:
            yield Read(operand, identity_access(len(node.shape)), node.shape, splits)


class Chooser:
    """Prices the cuts of the nodes of one graph on one rectangle."""

    def __init__(self, stage: Stage, units: Sequence[tuple[int, ...]]) -> None:
        self.stage, self.graph, self.units = stage, stage.graph, units
        self.size = (stage.e.rows, stage.e.cols)

    def choices(self, node: Node) -> list[Choice]:
        """Legal cuts, cheapest first; the last one is always "not at all" where that fits."""
        cuts = [(splits, keep) for splits in self._pairs(node) for keep in self._keeps(node, splits)]
        found: list[Choice] = []
        best = inf
        for splits, keep in cuts:
            cycles = self.price(node, splits, keep, enough=_ENOUGH * best)
            best = min(best, cycles)
            found.append(Choice(cycles, splits, keep))
        if isinstance(node, Contract) and self._crowded(node, found):
            for chunk in self._chunks(node):
                axis, size = chunk
                part = chunk_of(node, axis, 0, size)
                rounds = -(-node.axes[axis] // size)
                for splits, keep in cuts:
                    if all(s is None or s.axis != axis for s in splits):
                        cycles = self.price(part, splits, keep, node) * rounds
                        found.append(Choice(cycles, splits, keep, chunk))
        return sorted((c for c in found if c.cycles < inf), key=lambda c: (c.cycles, str(c)))

    def _crowded(self, node: Contract, found: Sequence[Choice]) -> bool:
        """Whether the cheapest cut needs large copies of operands, or there is none."""
        best = min(found, key=lambda c: c.cycles)
        if best.cycles == inf:
            return True
        words = 0
        for operand, access in zip(node.operands, node.accesses, strict=True):
            values = self.stage.variants(operand).values()
            if not isinstance(self.graph[operand], Constant) and values:
                cheapest = [p for v in values for p in plans(v, access, node.axes, best.splits, self.size)]
                words += min(cheapest, key=lambda p: p.cycles).words
        return words > _CROWDED_WORDS

    def _chunks(self, node: Contract) -> list[tuple[int, int]]:
        """Axes of the result along which an operand is cut now, in multiples of its blocks."""
        found: dict[tuple[int, int], None] = {}
        for operand, access in zip(node.operands, node.accesses, strict=True):
            for value in self.stage.variants(operand).values():
                for shard in value.shards:
                    entry = access[shard.dim] if shard is not None else None
                    if shard is None or not isinstance(entry, Index) or not entry.terms:
                        continue
                    axis, coefficient = max(entry.terms, key=lambda t: t[1])
                    if axis in node.reduced or coefficient < 1:
                        continue
                    fixed = [o for o, a in zip(node.operands, node.accesses, strict=True) if axis in axes_used(a)]
                    if not any(isinstance(self.graph[o], Constant) for o in fixed):
                        for times in (4, 1):
                            found[axis, min(node.axes[axis], max(1, times * shard.tile // coefficient))] = None
        return [c for c in found if c[1] < node.axes[c[0]]]

    def _pairs(self, node: Node) -> Iterator[Splits]:
        options = [self._options(node, m) for m in (Y, X)]
        for y in options[Y]:
            for x in options[X]:
                if y is None or x is None or y.axis != x.axis:
                    yield (y, x)

    def _keeps(self, node: Node, splits: Splits) -> Iterator[Splits]:
        """Parts of a large result that cores along a cut K may store; nothing kept apart comes first."""
        yield (None, None)
        if not isinstance(node, Contract):
            return
        shards = result_shards(node.groups, node.axes, splits)
        if shards is None or prod(local_shape(node.shape, shards)) < _KEEP_ELEMENTS:
            return
        for m in (Y, X):
            split, other = splits[m], splits[1 - m]
            if split is None or split.axis not in node.reduced:
                continue
            for group in node.groups:
                if group and (other is None or other.axis != group[0]):
                    extent = node.axes[group[0]]
                    tile = -(-extent // self.size[m])
                    if tile < extent:
                        part = Split(group[0], tile, -(-extent // tile))
                        yield (part, None) if m == Y else (None, part)

    def _options(self, node: Node, m: int) -> list[Split | None]:
        """Cuts along one mesh axis."""
        size = self.size[m]
        axes = node_axes(self.graph, node)
        found: dict[Split | None, None] = {None: None}
        if size == 1:
            return [None]
        banned = {node.axis} if isinstance(node, (Sort, Scan)) else set()
        for a, extent in enumerate(axes):
            if extent == 1 or a in banned:
                continue
            for unit in self._units(node, a, extent):
                count = largest_divisor(extent // unit, size)
                if count > 1:
                    found[Split(a, extent // count, count)] = None
            if self._may_pad(node, a) and largest_divisor(extent, size) * 2 <= min(size, extent):
                tile = -(-extent // size)
                if -(-extent // tile) > 1:
                    found[Split(a, tile, -(-extent // tile))] = None
        for read in reads(node, (None, None)) if not isinstance(node, Move) else ():
            assert read is not None
            for value in self.stage.variants(read.node).values():
                shard = value.shards[m]
                entry = read.access[shard.dim] if shard else None
                if shard is not None and isinstance(entry, Index):
                    for a, c in entry.terms:
                        if c > 0 and shard.tile % c == 0 and a not in banned:
                            found[Split(a, shard.tile // c, shard.count)] = None
        if isinstance(node, Move):
            self._move_options(node, m, found)
        if isinstance(node, Gather):
            self._table_options(node, m, found)
        return list(found)

    def _table_options(self, node: Gather, m: int, found: dict[Split | None, None]) -> None:
        """Cuts of the looked-up dimension of a table: any of a constant, those in which a value lies already."""
        dims = [d for d, entry in enumerate(node.accesses[0]) if isinstance(entry, Lookup)]
        table = self.graph[node.operands[0]]
        extent = table.shape[dims[0]]
        if len(dims) > 1 or extent == 1:
            return
        if isinstance(table, Constant):
            tile = -(-extent // self.size[m])
            found[Split(LOOKUP, tile, -(-extent // tile))] = None
            return
        for value in self.stage.variants(table.id).values():
            shard = value.shards[m]
            if shard is not None and shard.dim == dims[0]:
                found[Split(LOOKUP, shard.tile, shard.count)] = None

    def _move_options(self, node: Move, m: int, found: dict[Split | None, None]) -> None:
        """Cuts of the result that follow the cuts of what its pieces read."""
        for piece in node.pieces:
            for value in self.stage.variants(node.operands[piece.operand]).values():
                shard = value.shards[m]
                entry = piece.access[shard.dim] if shard else None
                if shard is None or not isinstance(entry, Index):
                    continue
                for d, group in enumerate(piece.groups):
                    c = dict(entry.terms).get(group[0], 0) if group else 0
                    if c > 0 and shard.tile % c == 0:
                        inner = prod(piece.axes[a] for a in group[1:])
                        found[Split(d, shard.tile // c * inner, shard.count)] = None

    def _units(self, node: Node, axis: int, extent: int) -> list[int]:
        units = [1]
        if isinstance(node, (Map, Reduce, Contract)):
            for d, group in enumerate(node.groups):
                if group and group[0] == axis:
                    inner = prod(node.axes[a] for a in group[1:])
                    wanted = self.units[node.id][d]
                    if wanted % inner == 0 and extent % (wanted // inner) == 0 and wanted // inner > 1:
                        units.append(wanted // inner)
        return units

    @staticmethod
    def _may_pad(node: Node, axis: int) -> bool:
        """Whether an axis may be cut into parts that do not divide it."""
        if isinstance(node, Move):
            return True
        if not isinstance(node, (Map, Reduce, Contract)):
            return False
        return axis in node.reduced or axis in {group[0] for group in node.groups if group}

    # ---- prices

    def result_shards(self, node: Node, splits: Splits) -> Shards | None:
        """How the result would lie, None where the cut is not possible."""
        axes = node_axes(self.graph, node)
        for split in splits:
            if split is None:
                continue
            if split.axis == LOOKUP:
                continue
            extent = axes[split.axis]
            if split.count != -(-extent // split.tile):
                return None
            if split.tile * split.count != extent and not self._may_pad(node, split.axis):
                return None
        if isinstance(node, Gather):
            plain: Splits = tuple(s if s is not None and s.axis != LOOKUP else None for s in splits)  # type: ignore[assignment]
            if splits[Y] is not None and splits[X] is not None and splits[Y].axis == splits[X].axis == LOOKUP:  # type: ignore[union-attr]
                return None
            return result_shards(node.groups, node.axes, plain)
        if isinstance(node, Nest):
            return result_shards(node.groups, node.axes, splits)
        if isinstance(node, Scatter):
            return scatter_shards(node, splits)
        if isinstance(node, (Sort, Scan)) and any(s is not None and s.axis == node.axis for s in splits):
            return None
        return dim_shards(splits)

    def price(self, node: Node, splits: Splits, keep: Splits = (None, None), stored: Contract | None = None, enough: float = inf) -> float:
        """Cycles of a cut, infinite where it cannot be. `stored` is the whole contraction of which `node` is a chunk. A cut that costs
        more than `enough` may be priced in part."""
        shards = self.result_shards(node, splits)
        if shards is None:
            return inf
        computed = (
            prod(local_axes([n if a not in node.reduced else 1 for a, n in enumerate(node.axes)], splits))
            if isinstance(node, Contract)
            else prod(local_shape(node.shape, shards))
        )
        if keep != (None, None) and isinstance(node, Contract):
            full_axes = (stored or node).axes
            shards = result_shards(node.groups, full_axes, (keep[Y] or splits[Y], keep[X] or splits[X]))
            if shards is None or (shards[Y] and shards[X] and shards[Y].dim == shards[X].dim):  # type: ignore[union-attr]
                return inf
        shape = node.shape
        local = local_shape(shape, shards)
        if node.id in self.graph.outputs and not placeable(shape, shards):
            return inf
        fmt = element_of(node.dtype)
        largest, room = self.stage.e.words.holes
        if prod(local) * WORDS[fmt] > min(largest, LARGE_WORDS):
            return inf
        room -= prod(local) * WORDS[fmt]
        total = 0.0
        for read in reads(node, splits):
            if read is None:
                return inf
            if not read.clipped and self._overrun(read.node, read.access, read.axes, read.splits) > LARGE_WORDS:
                return inf
            cycles, words = self._operand(read, min(room, LARGE_WORDS))
            if cycles == inf:
                return inf
            total += cycles
            if total > enough:
                return total
            room -= 0 if isinstance(node, Move) else words  # copies for one piece are gone before the next
        total += self._work(node, splits, computed) + prod(local) * WORDS[fmt] / 8
        if isinstance(node, Scatter) and not self.stage.variants(node.operands[0]):
            total += 5.0 * max(0, prod(local) * WORDS[fmt] - 128)  # a state stays where it is put
        if isinstance(node, (Map, Reduce, Move)):
            total += self._spread(node, shards, prod(shape))
        return total

    def _overrun(self, operand: int, access: Access, axes: Sequence[int], splits: Splits) -> int:
        """Words of a padded copy of an operand that a padded cut would read beyond its end."""
        if not any(s is not None and s.axis >= 0 and s.tile * s.count > axes[s.axis] and s.axis in axes_used(access) for s in splits):
            return 0
        return max((v.size * WORDS[v.fmt] for v in self.stage.variants(operand).values()), default=0)

    def _spread(self, node: Node, shards: Shards, size: int) -> float:
        """What it will probably cost to make whole again what no operand made it necessary to cut."""
        if not self.graph.users[node.id]:
            return 0.0
        total = 0.0
        for m, shard in enumerate(shards):
            cut = any(v.shards[m] is not None for o in node.operands for v in self.stage.variants(o).values())
            if shard is None:
                continue
            other = shards[1 - m]
            elements = size // (other.count if other else 1)
            broken = shard.tile % self.units[node.id][shard.dim] != 0
            if broken and elements * WORDS[element_of(node.dtype)] > LARGE_WORDS:
                total += 1e6  # readers that want whole units could not have them
            elif not cut or broken:
                total += line_cycles(elements, element_of(node.dtype), shard.count, self.size[m])
        return total

    def _operand(self, read: Read, room: int) -> tuple[float, int]:
        """Cycles to have an operand where a nest reads it, and words of the copies that this takes; infinite where they find no room."""
        node, access, axes, splits = self.graph[read.node], read.access, read.axes, read.splits
        if isinstance(node, Constant) and not any(isinstance(x, Lookup) for x in access) and not read.clipped:
            return self._constant(node, access, axes, splits), 0
        values, total = list(self.stage.variants(read.node).values()), 0.0
        lookups = [m for m, s in enumerate(splits) if s is not None and s.axis == LOOKUP]
        if not values:
            shards = free_shards(node, access, axes, _affine(splits), self.size)
            total = self._free(node, shards, splits)
            if lookups:
                return total, 0
            values = [Value(node.shape, element_of(node.dtype), shards, -1, local_shape(node.shape, shards))]
        plan = cheapest([p for v in values for p in plans(v, access, axes, _affine(splits), self.size, lookups)], room)
        return (total + plan.cycles, plan.words) if plan is not None else (inf, 0)

    def _constant(self, node: Node, access: Access, axes: Sequence[int], splits: Splits) -> float:
        used = axes_used(access)
        local = local_axes(axes, _affine(splits))
        walked = sorted(used)
        cut = [s for s in _affine(splits) if s is not None and s.axis in used]
        shards = [Shard(walked.index(s.axis), s.tile, s.count) for s in cut]
        if not placeable([axes[a] for a in walked], (shards[0] if shards else None, shards[1] if len(shards) > 1 else None)):
            return inf
        words = prod(local[a] for a in used) * WORDS[stored_element(node)]
        if words > LARGE_WORDS:
            return inf
        fair = node.size * WORDS[stored_element(node)] / (self.size[0] * self.size[1])
        return 10.0 * max(0.0, words - 4 * fair - 64)

    def _free(self, node: Node, shards: Shards, splits: Splits) -> float:
        """The price of laying a source out like this, infinite where it would not fit."""
        for split in splits:
            if split is not None and split.axis == LOOKUP:
                extra = prod(s.count for s in shards if s) or 1
                words = node.size // (extra * split.count) * WORDS[element_of(node.dtype)]
                return inf if words > LARGE_WORDS else 10.0 * max(0.0, words - 4 * node.size / prod(self.size) - 64)
        words = prod(local_shape(node.shape, shards)) * WORDS[element_of(node.dtype)]
        fair = node.size * WORDS[element_of(node.dtype)] / prod(self.size)
        return inf if words > LARGE_WORDS else 5.0 * max(0.0, words - 2 * fair - 64)  # it stays there for the whole program

    def _work(self, node: Node, splits: Splits, size: int) -> float:
        """Beats of the local nest and cycles of the line reductions."""
        axes = local_axes(node_axes(self.graph, node), _affine(splits))
        points = prod(axes)
        fmt = element_of(node.dtype)
        total = 0.0
        if isinstance(node, Map):
            total = points * expr_weight(node.expr)
        elif isinstance(node, Reduce):
            total = points * (expr_weight(node.expr) + 1) + 2 * size
        elif isinstance(node, Contract):
            total = points * self._contract_rate(node, axes) * self._pieces(node) + 2.5 * size
        elif isinstance(node, (Gather, Scatter)):
            total = points * 1.5
        elif isinstance(node, Sort):
            total = 4 * points * axes[node.axis]
        elif isinstance(node, Scan):
            total = points * 8
        else:
            total = points / 3
        reduced = node.reduced if isinstance(node, (Reduce, Contract)) else ()
        for m, split in enumerate(splits):
            if split is not None and (split.axis in reduced or split.axis == LOOKUP):
                wide = fmt if split.axis == LOOKUP else element_of(node.dtype) if not node.dtype.is_float else Element.F32
                total += line_cycles(size, wide, split.count, self.size[m])
        return total

    def _pieces(self, node: Contract) -> int:
        """Products an FMAC nest takes: an f32 operand beside one in f16 comes in two pieces."""
        return 2 if {stored_element(self.graph[o]) for o in node.operands} == {Element.F16, Element.F32} else 1

    @staticmethod
    def _contract_rate(node: Contract, axes: Sequence[int]) -> float:
        first, second = (axes_used(a) for a in node.accesses)
        kept = {a for group in node.groups for a in group}
        lengths = [axes[a] for a in kept if (a in first) != (a in second)]
        return min((-(-n // 2) / n for n in lengths), default=1.0)


def _affine(splits: Splits) -> Splits:
    """The cuts of real axes only."""
    y, x = (s if s is not None and s.axis != LOOKUP else None for s in splits)
    return (y, x)
