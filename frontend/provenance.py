"""Where an FX node comes from: its module path and the Python line of the model's code."""

from __future__ import annotations

import re
from pathlib import PurePath

import torch

from ..ir.graph import Origin

_FRAME = re.compile(r'File "([^"]+)", line (\d+)')


def module_path(node: torch.fx.Node) -> str:
    """The innermost module (`model.layers.3.mlp`), empty for the root."""
    stack = node.meta.get("nn_module_stack") or {}
    path = ""
    for entry in stack.values():
        path = entry[0] if isinstance(entry, tuple) else str(entry)
    return re.sub(r"^L\['self'\]\.?|@\d+$", "", path)


def source_line(node: torch.fx.Node) -> str:
    """`file.py:line` of the innermost frame outside torch itself; library files by their path below site-packages."""
    frames = _FRAME.findall(node.meta.get("stack_trace") or "")
    outside = [(name, line) for name, line in frames if "/torch/" not in name.replace("\\", "/")] or frames
    if not outside:
        return ""
    name, line = outside[-1]
    parts = PurePath(name).parts
    if "site-packages" in parts:
        parts = parts[len(parts) - parts[::-1].index("site-packages") :]
    else:
        parts = parts[-1:]
    return f"{'/'.join(parts)}:{line}"


def op_name(node: torch.fx.Node) -> str:
    """`aten.add.Tensor`, `transformers.grouped_mm_fallback.default`, or the name of a Python function."""
    return op_name_of(node.target)


def op_name_of(target: object) -> str:
    """The same for the function itself."""
    if isinstance(target, str):
        return target
    if isinstance(target, torch._ops.OpOverload):
        return str(target)
    module = (getattr(target, "__module__", "") or "").removeprefix("torch.ops.")
    name = getattr(target, "__name__", str(target))
    return f"operator.{name}" if module == "_operator" else f"{module}.{name}" if module else str(name)


def origin_of(node: torch.fx.Node) -> Origin:
    return Origin((node.name,), module_path(node), source_line(node), op_name(node))
