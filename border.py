"""The border between torch and a program: arguments by their paths, tensors into arrays and back, torch's own outputs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch.utils import _pytree as pytree

from .errors import BadInput
from .machines import program as container

Array = np.ndarray[Any, Any]


def torch_outputs(module: torch.nn.Module, args: Sequence[Any], kwargs: Mapping[str, Any]) -> list[torch.Tensor]:
    """The module's own fp32 eager outputs, flattened; buffers that the call changes are put back."""
    buffers = {name: buffer.clone() for name, buffer in module.named_buffers()}
    training = module.training
    module.eval()
    try:
        with torch.no_grad():
            return [leaf for leaf in pytree.tree_leaves(_plain(module(*args, **kwargs))) if isinstance(leaf, torch.Tensor)]
    finally:
        module.train(training)
        for name, buffer in module.named_buffers():
            if not torch.equal(buffer, buffers[name]):
                buffer.copy_(buffers[name])


def with_inputs(args: Sequence[Any], kwargs: Mapping[str, Any], inputs: Mapping[str, Array]) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """The arguments with their tensors replaced by arrays keyed by pytree path, in the tensors' own types."""
    _, spec = pytree.tree_flatten((tuple(args), dict(kwargs)))
    new = [
        torch.from_numpy(np.ascontiguousarray(inputs[path])).to(leaf.dtype) if isinstance(leaf, torch.Tensor) and path in inputs else leaf
        for path, leaf in leaves(tuple(args), dict(kwargs))
    ]
    new_args, new_kwargs = pytree.tree_unflatten(new, spec)
    return new_args, new_kwargs


def _plain(output: Any) -> Any:
    """Model outputs of transformers flatten as their tuple does."""
    return output.to_tuple() if hasattr(output, "to_tuple") else output


def leaves(args: tuple[Any, ...], kwargs: dict[str, Any]) -> list[tuple[str, Any]]:
    """(path, leaf) of every argument: `args[0]`, `kwargs['ids']`, deeper ones with their keys behind."""
    named = []
    for keys, leaf in pytree.tree_flatten_with_path((args, kwargs))[0]:
        path = pytree.keystr(keys)
        named.append(((f"args{path[3:]}" if path.startswith("[0]") else f"kwargs{path[3:]}"), leaf))
    return named


def checked(array: Array, binding: container.Binding) -> Array:
    """The array in the binding's own type. Raises BadInput for a wrong shape, kind of number or value out of range."""
    label = binding.path or binding.name
    if array.shape != tuple(binding.shape):
        raise BadInput(f"{label} has shape {list(array.shape)}, the program was compiled for {list(binding.shape)}")
    whole = binding.dtype not in ("f64", "f32", "f16", "bf16")
    if whole != (array.dtype.kind in "iub"):
        raise BadInput(f"{label} holds {array.dtype} values, the program takes {binding.dtype}")
    if binding.range is not None and array.size:
        low, high = int(array.min()), int(array.max())
        if low < binding.range[0] or high > binding.range[1]:
            raise BadInput(f"{label} holds values from {low} to {high}, allowed are {binding.range[0]} to {binding.range[1]}")
    return array


TORCH = {
    "f64": torch.float64, "f32": torch.float32, "bf16": torch.bfloat16, "f16": torch.float16, "i64": torch.int64, "i32": torch.int32,
    "i16": torch.int16, "i8": torch.int8, "u8": torch.uint8, "bool": torch.bool,
}  # fmt: skip


def to_numpy(tensor: torch.Tensor) -> Array:
    tensor = tensor.detach().cpu()
    return (tensor.float() if tensor.dtype == torch.bfloat16 else tensor).contiguous().numpy()


def to_torch(array: Array, dtype: str) -> torch.Tensor:
    return torch.from_numpy(np.ascontiguousarray(array).reshape(np.shape(array))).to(TORCH[dtype])
