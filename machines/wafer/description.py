"""The wafer machine as numbers: a validated description, loaded from YAML, that programs carry in full.

Rule ids (G, C, F, T, H, W) are those of `docs/wafer-model.md`. A description with `preset` set claims to be that preset with only the
fields in `changed` altered; the executor verifies the claim (W06). Units are in the field names; a word is 16 bit, a wavelet 32 bit.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from ...errors import BadInput

PRESETS = Path(__file__).with_name("presets")
WORD_BYTES = 2


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Overheads(_Part):
    """Extra beats and cycles of the software model (section 4); all zero in the ideal model."""

    map_beats: int = Field(ge=0, le=1000)
    """Beats per inner vector whose scalar or base changes (`o_map`)."""
    burst_beats: int = Field(ge=0, le=1000)
    """Beats per burst outside such a map (`o_dsd`)."""
    wavelet_cycles: int = Field(ge=0, le=10_000)
    """Cycles by which wavelets of a burst outside a gated loop become available later (`beta`)."""
    gate_cycles: int = Field(ge=0, le=100_000)
    """Cycles by which an AFTER of lag 1 is late in a loop whose repetition joins two or more fabric-in bursts (`gate`)."""
    route_change_beats: int = Field(ge=1, le=100_000)
    """Beats of the core when a route entry is replaced (F7)."""
    dispatch_beats: int = Field(ge=0, le=1000)
    """Beats a wavelet of a scalar stream from a queue (C9)."""


class Energy(_Part):
    """Section 12: estimate only."""

    busy_beat_pj: float = Field(gt=0, le=1e6)
    idle_fraction: float = Field(ge=0, le=1)
    """Power of an idle core as a fraction of a busy one."""


class Host(_Part):
    """Host and wafer links (section 9)."""

    in_bytes_per_s: float = Field(gt=0)
    out_bytes_per_s: float = Field(gt=0)
    nominal_bytes_per_s: float = Field(gt=0)
    launch_s: float = Field(ge=0)
    """One host round trip, added to `time_s` per launch."""
    wafer_link_bytes_per_cycle: float = Field(gt=0)
    wafer_link_latency_cycles: int = Field(ge=0)


class Defects(_Part):
    """Dead physical cores `(x, y)` and dead physical links `(x, y, port)` inside the fabric (G4); port is E, W, N or S."""

    cores: tuple[tuple[int, int], ...] = ()
    links: tuple[tuple[int, int, Literal["E", "W", "N", "S"]], ...] = ()


class WaferMachine(_Part):
    """One wafer. `widths` maps a width class of `isa.OPS` to elements per beat."""

    name: str = Field(min_length=1, max_length=80)
    preset: str = ""
    changed: tuple[str, ...] = ()
    fabric_cols: int = Field(ge=1, le=4096)
    fabric_rows: int = Field(ge=1, le=4096)
    program_x: int = Field(ge=0, le=4096)
    program_y: int = Field(ge=0, le=4096)
    program_cols: int = Field(ge=1, le=4096)
    program_rows: int = Field(ge=1, le=4096)
    clock_hz: float = Field(gt=0, le=1e11)
    memory_words: int = Field(ge=1024, le=1 << 20)
    data_first_word: int = Field(ge=0, le=1 << 20)
    banks: int = Field(ge=1, le=64)
    bank_conflicts: bool
    """Whether C6 applies (WSE-2 only)."""
    issue: Literal["shared", "overlapped"] = "shared"
    widths: Mapping[str, int]
    scalar_beats: Mapping[str, tuple[int, int]]
    """Beats an element of the scalar functions: (ideal, software)."""
    overhead: Literal["ideal", "software"] = "ideal"
    overheads: Mapping[Literal["ideal", "software"], Overheads]
    ramp_cycles: int = Field(ge=0, le=100)
    """T_R of F2."""
    positions: int = Field(ge=1, le=16)
    colours: tuple[int, ...]
    input_queues: Mapping[int, int]
    """Usable input queue id -> depth in wavelets (F9)."""
    output_queues: Mapping[int, int]
    microthreads: int = Field(ge=0, le=64)
    """Number of explicit microthread ids; 0 where the id follows from the queues (F11)."""
    rates: tuple[int, ...]
    """Allowed wavelets per beat (`q` of F12)."""
    io: Literal["measured", "nominal"] = "measured"
    host: Host
    energy: Energy
    defects: Defects = Defects()

    @model_validator(mode="after")
    def _consistent(self) -> WaferMachine:
        if self.program_x + self.program_cols > self.fabric_cols or self.program_y + self.program_rows > self.fabric_rows:
            raise ValueError("the program rectangle does not lie inside the fabric")
        if self.data_first_word >= self.memory_words or self.data_first_word % 8:
            raise ValueError("data_first_word must be a multiple of 8 below memory_words")
        if any(not 1 <= width <= 64 for width in self.widths.values()):
            raise ValueError("every width must be 1 to 64 elements a beat")
        if set(self.overheads) != {"ideal", "software"}:
            raise ValueError("overheads needs the two entries ideal and software")
        if any(not 0 <= colour < 32 for colour in self.colours) or len(set(self.colours)) != len(self.colours):
            raise ValueError("colours must be different numbers from 0 to 31")
        for x, y in (*self.defects.cores, *((x, y) for x, y, _ in self.defects.links)):
            if not (0 <= x < self.fabric_cols and 0 <= y < self.fabric_rows):
                raise ValueError(f"the defect at ({x}, {y}) lies outside the fabric of {self.fabric_cols} x {self.fabric_rows} cores")
        return self

    @property
    def data_bytes(self) -> int:
        """Bytes of one core that programs may use for data (C1)."""
        return (self.memory_words - self.data_first_word) * WORD_BYTES

    @property
    def live_cores(self) -> int:
        """Cores of the program rectangle that are not dead."""
        cols = range(self.program_x, self.program_x + self.program_cols)
        rows = range(self.program_y, self.program_y + self.program_rows)
        return len(cols) * len(rows) - len({(x, y) for x, y in self.defects.cores if x in cols and y in rows})

    @property
    def cost(self) -> Overheads:
        """The overheads of the model in force."""
        return self.overheads[self.overhead]

    def host_rates(self) -> tuple[float, float]:
        """Bytes a second (in, out) of the host stream (H1)."""
        if self.io == "nominal":
            return self.host.nominal_bytes_per_s, self.host.nominal_bytes_per_s
        return self.host.in_bytes_per_s, self.host.out_bytes_per_s

    def to_json(self) -> dict[str, Any]:
        """JSON values from which `from_json` rebuilds the same description."""
        return self.model_dump(mode="json")


def from_json(data: Mapping[str, Any], where: str = "machine") -> WaferMachine:
    """A description from JSON or YAML values. Raises BadInput naming field, value and allowed range."""
    try:
        return WaferMachine.model_validate(data)
    except ValidationError as error:
        raise BadInput(_sentence(error, where)) from error


def _sentence(error: ValidationError, where: str) -> str:
    parts = []
    for item in error.errors():
        field = ".".join(str(part) for part in item["loc"]) or "the description"
        parts.append(f"{field} = {item['input']!r}: {item['msg']}" if item["loc"] else item["msg"])
    return f"{where}: {'; '.join(parts)}"


def matches_preset(machine: WaferMachine) -> bool:
    """W06: whether the description equals the preset that it names, apart from the fields listed in `changed`."""
    if not machine.preset:
        return not machine.changed
    shipped = {path.stem: path for path in PRESETS.glob("*.yaml")}
    if machine.preset not in shipped or "preset" in machine.changed or "changed" in machine.changed:
        return False
    present = machine.to_json()
    if not set(machine.changed) <= set(present):
        return False
    data = yaml.safe_load(shipped[machine.preset].read_text(encoding="utf-8"))
    reference = WaferMachine.model_validate({**data, "preset": machine.preset}).to_json()
    return {**reference, **{field: present[field] for field in (*machine.changed, "changed")}} == present
