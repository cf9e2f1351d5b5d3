"""Storage of weights: constants that contractions read get a stored form, and keep the type of their decoded value.

`f16` rounds each weight; `q8_0` holds blocks of 32 along K as int8 with one f16 scale (scale = max|x| / 127, as GGUF). The value under the
new key is the decoded tensor, so that every pass and the interpreter stay right; the planes are in the store beside it. A weight whose
last dimension is not K is stored transposed for a block format. Integer weights that a Map decodes (torchao's int8) become one constant
stored as `int8_channel`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np

from ..errors import BadInput
from ..ir.access import contract_axes
from ..ir.graph import Access, Constant, ConstantRef, Contract, Graph, GraphBuilder, Index, Map, Node
from ..ir.interpret import compute
from ..ir.store import ConstantStore
from ..ir.types import I8
from .base import Pass

Array = np.ndarray[Any, Any]
BLOCK = 32
STORAGES = ("dense", "f16", "q8_0")


@dataclass(frozen=True)
class Quantise(Pass):
    """`storage` is how weights of contractions are held: `dense` (as they come), `f16` or `q8_0`."""

    name: ClassVar[str] = "quantise"
    storage: str = "dense"

    def run(self, graph: Graph, store: ConstantStore) -> Graph:
        if self.storage not in STORAGES:
            raise BadInput(f"no storage {self.storage!r}; storages are {', '.join(STORAGES)}")
        graph = decode_integer_weights(graph, store)
        if self.storage == "dense":
            return graph
        builder = GraphBuilder()
        new_id: list[int] = []
        for node in graph.nodes:
            moved = replace(node, operands=tuple(new_id[o] for o in node.operands))
            if isinstance(moved, Contract):
                moved = self._contract(builder, moved, store)
            new_id.append(builder.add(moved))
        return builder.finish([new_id[o] for o in graph.outputs], {k: new_id[v] for k, v in graph.updates.items()})

    def _contract(self, builder: GraphBuilder, node: Contract, store: ConstantStore) -> Contract:
        for number in range(2):
            source = builder.nodes[node.operands[number]]
            if not isinstance(source, Constant) or not source.dtype.is_float or source.ref.storage == self.storage:
                continue
            constant, access = self._stored(source, node, number, store)
            operands = (*node.operands[:number], builder.add(constant), *node.operands[number + 1 :])
            node = replace(node, operands=operands, accesses=(*node.accesses[:number], access, *node.accesses[number + 1 :]))
        return node

    def _stored(self, source: Constant, node: Contract, number: int, store: ConstantStore) -> tuple[Constant, Access]:
        access = node.accesses[number]
        inner = _k_dimension(node, number) if self.storage == "q8_0" else None
        if inner is None or source.shape[inner] % BLOCK:
            return stored_as(source, "f16", store), access
        last = len(source.shape) - 1
        if inner != last:
            source = _transposed(source, inner, store)
            access = (*access[:inner], *access[inner + 1 :], access[inner])
        return stored_as(source, "q8_0", store), access


def _k_dimension(node: Contract, number: int) -> int | None:
    """The dimension of an operand that one summed axis walks step by step, or None."""
    summed = set(contract_axes(node).k)
    for d, entry in enumerate(node.accesses[number]):
        if isinstance(entry, Index) and entry.terms and entry.terms[-1][0] in summed and any(c == 1 for a, c in entry.terms if a in summed):
            return d
    return None


def _derived(
    source: Constant, key: str, shape: tuple[int, ...], storage: str, store: ConstantStore, value: Callable[[], Array]
) -> Constant:
    """A constant computed from another one when it is asked for; without a value where the other has none."""
    if store.has(source.ref.key):
        store.put(key, value)
    ref = ConstantRef(key, source.dtype, shape, storage)
    return replace(source, shape=shape, ref=ref)


def stored_as(source: Constant, storage: str, store: ConstantStore) -> Constant:
    """`source` in a stored form, under a key of its own; its value is what the stored form decodes to."""
    old, key = source.ref.key, f"{source.ref.key}@{storage}"
    if storage == "f16":
        return _derived(source, key, source.shape, storage, store, lambda: store.get(old).astype(np.float16).astype(np.float32))
    if store.has(old):
        store.put_block(key, lambda: encode_q8_0(store.get(old)))
    return _derived(source, key, source.shape, storage, store, lambda: decode_q8_0(encode_q8_0(store.get(old))))


def _transposed(source: Constant, inner: int, store: ConstantStore) -> Constant:
    old = source.ref.key
    shape = (*source.shape[:inner], *source.shape[inner + 1 :], source.shape[inner])
    return _derived(source, f"{old}@last{inner}", shape, "dense", store, lambda: np.moveaxis(store.get(old), inner, -1))


def encode_q8_0(values: Array) -> dict[str, Array]:
    """Planes of blocks of 32 along the last dimension: `quants` int8 of the same shape, `scales` f16 of one 32nd of it."""
    blocks = np.asarray(values, dtype=np.float32).reshape(*values.shape[:-1], -1, BLOCK)
    scales = np.abs(blocks).max(-1) / np.float32(127)
    inverse = np.divide(1.0, scales, out=np.zeros_like(scales), where=scales > 0)
    quants = np.rint(blocks * inverse[..., None]).astype(np.int8)
    return {"quants": quants.reshape(values.shape), "scales": scales.astype(np.float16)}


def decode_q8_0(planes: dict[str, Array]) -> Array:
    """The f32 values of `encode_q8_0`'s planes."""
    quants, scales = planes["quants"], planes["scales"].astype(np.float32)
    blocks = quants.reshape(*scales.shape, BLOCK).astype(np.float32) * scales[..., None]
    return blocks.reshape(quants.shape)


def decode_integer_weights(graph: Graph, store: ConstantStore) -> Graph:
    """Maps that only decode an int8 constant by scales along one dimension become constants stored as `int8_channel`."""
    builder = GraphBuilder()
    new_id: list[int] = []
    for node in graph.nodes:
        moved: Node = replace(node, operands=tuple(new_id[o] for o in node.operands))
        if isinstance(moved, Map) and moved.dtype.is_float and _decodes(moved, builder):
            moved = _decoded(moved, [n for n in (builder.nodes[o] for o in moved.operands) if isinstance(n, Constant)], store)
        new_id.append(builder.add(moved))
    return builder.finish([new_id[o] for o in graph.outputs], {k: new_id[v] for k, v in graph.updates.items()})


def _decodes(node: Map, builder: GraphBuilder) -> bool:
    sources = [builder.nodes[o] for o in node.operands]
    if len(sources) < 2 or not all(isinstance(s, Constant) for s in sources):
        return False
    integer = [s for s in sources if s.dtype is I8 and s.size == node.size]
    walked = {a for s, access in zip(sources, node.accesses, strict=True) if s not in integer for e in access for a in _axes(e)}
    return len(integer) == 1 and len(walked) <= 1


def _axes(entry: object) -> list[int]:
    return [a for a, _ in entry.terms] if isinstance(entry, Index) else []


def _decoded(node: Map, sources: list[Constant], store: ConstantStore) -> Constant:
    keys = [s.ref.key for s in sources]
    key = "decoded/" + "+".join(keys)
    if all(store.has(k) for k in keys):
        store.put(key, lambda: compute(node, [store.get(k) for k in keys]))
        store.put_block(key, lambda: {f"operand{n}": store.get(k) for n, k in enumerate(keys)})
    ref = ConstantRef(key, node.dtype, node.shape, "int8_channel")
    return Constant(id=-1, operands=(), dtype=node.dtype, shape=node.shape, origin=node.origin, ref=ref)
