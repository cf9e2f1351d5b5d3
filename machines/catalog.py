"""The machines that spatialc knows: presets, users' YAML files and single fields changed on the command line.

One loader for every target: YAML to the target's checked description, errors with file, line, field, value and allowed range.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, overload

import yaml
from pydantic import ValidationError

from ..errors import BadInput
from .cgla.description import CglaMachine
from .tsp.description import TspMachine
from .wafer.description import WaferMachine

Machine = TspMachine | CglaMachine | WaferMachine


@dataclass(frozen=True)
class Target:
    """One kind of machine: its description class, its default preset and the number formats that its backend has (default first)."""

    name: str
    summary: str
    model: type[TspMachine] | type[CglaMachine] | type[WaferMachine]
    default: str
    precisions: tuple[str, ...]

    @property
    def presets(self) -> tuple[str, ...]:
        return tuple(sorted(path.stem for path in self.folder.glob("*.yaml")))

    @property
    def folder(self) -> Path:
        return Path(__file__).parent / self.name / "presets"


TARGETS: dict[str, Target] = {
    target.name: target
    for target in (
        Target("tsp", "Groq-style deterministic streaming chip", TspMachine, "tsp-v1", ("fp16",)),
        Target("cgla", "Lenzo-style coarse-grained linear array", CglaMachine, "cgla-imax3-28nm", ("fp16", "fp32", "q8_0")),
        Target("wafer", "Cerebras-style wafer-scale mesh", WaferMachine, "wafer-wse2", ("fp16", "fp32")),
    )
}


def find_target(name: str) -> Target:
    """The target of that name. Raises BadInput."""
    if name not in TARGETS:
        raise BadInput(f"there is no target {name!r}; targets are {', '.join(TARGETS)}")
    return TARGETS[name]


def target_of(name_or_path: str) -> str | None:
    """The target whose preset has that name, or the target named by the `target:` key of a YAML file; None where neither says."""
    for target in TARGETS.values():
        if name_or_path in target.presets:
            return target.name
    path = Path(name_or_path)
    if path.is_file():
        data = _read(path)[0]
        return str(data["target"]) if "target" in data else None
    return None


@overload
def load_machine(target_name: Literal["tsp"], name_or_path: str | None = ..., changes: Mapping[str, Any] | None = ...) -> TspMachine: ...
@overload
def load_machine(target_name: Literal["cgla"], name_or_path: str | None = ..., changes: Mapping[str, Any] | None = ...) -> CglaMachine: ...
@overload
def load_machine(
    target_name: Literal["wafer"], name_or_path: str | None = ..., changes: Mapping[str, Any] | None = ...
) -> WaferMachine: ...
@overload
def load_machine(target_name: str, name_or_path: str | None = ..., changes: Mapping[str, Any] | None = ...) -> Machine: ...
def load_machine(target_name: str, name_or_path: str | None = None, changes: Mapping[str, Any] | None = None) -> Machine:
    """The description of a preset (the target's default for None) or of a YAML file, with dotted fields replaced by `changes`.

    A YAML file may hold only some fields beside `base: PRESET`, which gives the others. Raises BadInput.
    """
    target = find_target(target_name)
    name = name_or_path or target.default
    preset = target.folder / f"{name}.yaml"
    path = preset if name in target.presets else Path(name)
    if not path.is_file():
        raise BadInput(f"there is no {target_name} machine {name!r}: presets are {', '.join(target.presets)}, or give a YAML file")
    data, lines = _read(path)
    if data.pop("target", target_name) != target_name:
        raise BadInput(f"{path} describes another target than {target_name}")
    base = data.pop("base", None)
    if base is not None:
        if base not in target.presets:
            raise BadInput(
                f"{path} line {lines.get(('base',), 1)}: base = {base!r} is no {target_name} preset; use {', '.join(target.presets)}"
            )
        data = _merge(_read(target.folder / f"{base}.yaml")[0], data)
    for field, value in sorted((changes or {}).items()):
        _set(data, field.split("."), value, target)
    if "preset" in target.model.model_fields and path == preset:
        data = {**data, "preset": name, "changed": sorted({field.split(".")[0] for field in changes or {}})}
    try:
        return target.model.model_validate(data)
    except ValidationError as error:
        raise BadInput(_sentence(error, path, lines, changes or {})) from error


def parse_changes(settings: Sequence[str]) -> dict[str, Any]:
    """`FIELD=VALUE` strings as a mapping; values are read as YAML. Raises BadInput."""
    changes = {}
    for setting in settings:
        field, equals, value = setting.partition("=")
        if not equals or not field:
            raise BadInput(f"--set takes FIELD=VALUE, not {setting!r}")
        try:
            changes[field.strip()] = yaml.safe_load(value)
        except yaml.YAMLError as error:
            raise BadInput(f"--set {field}: {value!r} is not a value ({error})") from error
    return changes


def _read(path: Path) -> tuple[dict[str, Any], dict[tuple[str, ...], int]]:
    """The mapping in a YAML file and the line of every field. Raises BadInput."""
    try:
        text = path.read_text(encoding="utf-8")
        root = yaml.compose(text, Loader=yaml.SafeLoader)
        data = yaml.safe_load(text)
    except (yaml.YAMLError, UnicodeDecodeError, OSError) as error:
        raise BadInput(f"{path} is not a readable YAML file: {' '.join(str(error).split())}") from error
    if not isinstance(data, dict):
        raise BadInput(f"{path} must hold machine fields as `name: value` lines")
    lines: dict[tuple[str, ...], int] = {}

    def walk(node: Any, prefix: tuple[str, ...]) -> None:
        if isinstance(node, yaml.MappingNode):
            for key, value in node.value:
                lines[(*prefix, str(key.value))] = key.start_mark.line + 1
                walk(value, (*prefix, str(key.value)))

    walk(root, ())
    return data, lines


def _merge(base: dict[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(base)
    for key, value in over.items():
        nested = isinstance(value, Mapping) and isinstance(merged.get(key), dict)
        merged[key] = _merge(merged[key], value) if nested else value
    return merged


def _set(data: dict[str, Any], path: Sequence[str], value: Any, target: Target) -> None:
    if path[0] not in target.model.model_fields:
        known = ", ".join(sorted(target.model.model_fields))
        raise BadInput(f"a {target.name} machine has no field {path[0]!r}; fields are {known}")
    for part in path[:-1]:
        data[part] = dict(data.get(part) or {})
        data = data[part]
    data[path[-1]] = value


def _sentence(error: ValidationError, path: Path, lines: Mapping[tuple[str, ...], int], changes: Mapping[str, Any]) -> str:
    """All wrong fields in one sentence: place, field, value and what is allowed."""
    parts = []
    for item in error.errors():
        keys = tuple(str(part) for part in item["loc"])
        field = ".".join(keys)
        place = next((f"{path} line {lines[keys[:n]]}" for n in range(len(keys), 0, -1) if keys[:n] in lines), str(path))
        if field in changes:
            place = "--set"
        message = item["msg"][:1].lower() + item["msg"][1:]
        parts.append(f"{place}: {field} = {item['input']!r}: {message}" if keys else f"{place}: {message}")
    return "; ".join(parts)
