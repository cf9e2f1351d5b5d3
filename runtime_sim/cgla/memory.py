"""DDR buffers and local memories while a program runs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...errors import BadInput
from ...machines.cgla.tables import DTYPE_BYTES, BufferKind, image_name
from ...machines.program import Binding, Program
from .decode import Decoded
from .expressions import NUMPY_DTYPE, cast
from .host import narrow, widen

Bytes = NDArray[np.uint8]


class Ddr:
    """The DDR buffers of a program, each an array of bytes; images are the program's own arrays and are never written."""

    def __init__(self, decoded: Decoded) -> None:
        self.program = decoded.program
        table = self.program.tables["buffers"]
        self.kinds = [BufferKind(kind) for kind in table["kind"].tolist()]
        self.sizes: list[int] = table["bytes"].tolist()
        self.bindings: list[int] = table["binding"].tolist()
        self.buffers: list[Bytes] = []
        for number, (kind, size) in enumerate(zip(self.kinds, self.sizes, strict=True)):
            if kind == BufferKind.IMAGE:
                self.buffers.append(self._image(number, size))
            elif kind == BufferKind.STATE and image_name(number) in self.program.images:
                self.buffers.append(self._image(number, size).copy())
            else:
                self.buffers.append(np.zeros(size, dtype=np.uint8))

    def _image(self, number: int, size: int) -> Bytes:
        name = image_name(number)
        if name not in self.program.images:
            raise BadInput(f"the program has no image {name!r}; it was compiled without weights and runs with timing_only alone")
        data = np.ascontiguousarray(self.program.images[name]).reshape(-1).view(np.uint8)
        if data.size != size:
            raise BadInput(f"image {name!r} has {data.size} bytes, its buffer {size}")
        return data

    def put(self, number: int, values: np.ndarray) -> None:
        """Store the value of a binding in its buffer. Raises BadInput for a wrong shape, kind of number or range."""
        binding = self.program.bindings[self.bindings[number]]
        data = stored_bytes(binding, values)
        if data.size > self.sizes[number]:
            raise BadInput(f"{binding.kind} {binding.name!r} needs {data.size} bytes, its buffer has {self.sizes[number]}")
        self.buffers[number][: data.size] = data

    def get(self, number: int) -> np.ndarray:
        """The value of a binding as its buffer holds it, in logical shape."""
        binding = self.program.bindings[self.bindings[number]]
        count = int(np.prod(binding.shape, dtype=np.int64))
        raw = self.buffers[number][: count * DTYPE_BYTES[binding.stored]]
        dtype = {"bf16": "u2", "f16": "f2", "bool": "u1"}.get(binding.stored, NUMPY_DTYPE[binding.stored])
        values = widen(raw.view(dtype), binding.stored).reshape(binding.shape)
        return np.array(as_torch(values, binding.dtype))


def as_torch(values: np.ndarray, dtype: str) -> np.ndarray:
    """Stored values in the numpy dtype of a torch dtype (f16 stays half, bf16 is f32)."""
    if dtype == "f16":
        return values.astype(np.float16)
    return cast(values, dtype) if dtype in NUMPY_DTYPE else values


def stored_bytes(binding: Binding, values: Any) -> Bytes:
    """The bytes of a value in the binding's stored format. Raises BadInput."""
    array = np.asarray(values)
    if tuple(array.shape) != tuple(binding.shape):
        raise BadInput(f"{binding.kind} {binding.name!r} has shape {list(array.shape)}, the program takes {list(binding.shape)}")
    wanted = "f" if binding.dtype in ("f32", "f16", "bf16", "f64") else "biu"
    if array.dtype.kind not in wanted:
        raise BadInput(f"{binding.kind} {binding.name!r} is {array.dtype}, the program takes {binding.dtype}")
    if binding.range is not None and array.size:
        low, high = binding.range
        if int(array.min()) < low or int(array.max()) > high:
            raise BadInput(f"{binding.kind} {binding.name!r} has values in {array.min()}..{array.max()}, allowed are {low}..{high}")
    return np.ascontiguousarray(narrow(array, binding.stored)).reshape(-1).view(np.uint8)


def check_names(program: Program, given: Mapping[str, Any], kind: str) -> None:
    """Raises BadInput where names are missing or unknown."""
    wanted = {binding.name for binding in program.bindings_of(kind)}
    if set(given) - wanted:
        raise BadInput(f"the program has no {kind} {sorted(set(given) - wanted)[0]!r}; it has {', '.join(sorted(wanted)) or 'none'}")
    if kind == "input" and wanted - set(given):
        raise BadInput(f"input {sorted(wanted - set(given))[0]!r} is missing")
