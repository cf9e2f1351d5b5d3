"""Fills the constant store: torch parameters and buffers as views, with one key for tensors that share their memory.

Weights are never copied: a float32 parameter is stored as a numpy view of torch's memory, a bf16 one is widened when it is read.
Tensors on the meta device have a key and no value.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from ..ir.store import ConstantStore
from .types import from_torch


def to_numpy(tensor: torch.Tensor) -> np.ndarray[Any, Any]:
    """A view of the tensor's memory; bf16 becomes float32 (a copy)."""
    tensor = tensor.detach()
    if tensor.dtype is torch.bfloat16:
        tensor = tensor.float()
    array: np.ndarray[Any, Any] = tensor.cpu().resolve_conj().resolve_neg().numpy()
    return array


class TorchConstants:
    """Keys for torch tensors in a store: the name of the first tensor seen with the same memory, offset, shape and stride."""

    def __init__(self, store: ConstantStore) -> None:
        self.store = store
        self._keys: dict[tuple[object, ...], str] = {}

    def key(self, name: str, tensor: torch.Tensor) -> str:
        """The key of `tensor`, which is put into the store when it is new and has a value."""
        identity = (
            tensor.untyped_storage()._cdata, tensor.storage_offset(), tuple(tensor.shape), tuple(tensor.stride()), tensor.dtype,
        )  # fmt: skip
        known = self._keys.get(identity)
        if known is not None:
            return known
        self._keys[identity] = name
        self.put(name, tensor)
        return name

    def put(self, key: str, tensor: torch.Tensor) -> None:
        """Store the value under `key`; a meta tensor has none."""
        if tensor.is_meta:
            return
        from_torch(tensor.dtype)
        if tensor.dtype is torch.bfloat16:
            self.store.put(key, lambda: to_numpy(tensor))
        else:
            self.store.put(key, to_numpy(tensor))
