"""The TSP machine description: every number of the machine model as a checked field (docs/tsp-model.md section 13).

`machines/catalog.py` reads presets and users' YAML files; field names are those of the model page, units are in the names or in the
field's text. Emitter and executor both take their numbers from here, so that `--set FIELD=VALUE` changes the machine for both.
"""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from ...errors import BadInput


class EnergyTable(BaseModel):
    """Energy per event in picojoules and idle power in watts (docs/tsp-model.md section 15)."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    idle_w: float = Field(default=80.0, ge=0, le=10_000)
    int8_mac_pj: float = Field(default=0.20, ge=0, le=1_000)
    fp16_mac_pj: float = Field(default=0.80, ge=0, le=1_000)
    sram_row_pj: float = Field(default=300.0, ge=0, le=1e6)
    hop_pj: float = Field(default=8.0, ge=0, le=1e6)
    alu_pj: float = Field(default=150.0, ge=0, le=1e6)
    c2c_bit_pj: float = Field(default=1.5, ge=0, le=1_000)


class TspMachine(BaseModel):
    """One TSP chip and how several are joined. Cycles are superlane-0 cycles; positions follow MT-2."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = "tsp-v1"
    clock_hz: float = Field(default=900e6, gt=0, le=1e11)
    chips: int = Field(default=1, ge=1, le=64, description="largest number of chips that a program may use")
    superlanes: int = Field(default=20, ge=1, le=20)
    lanes: int = Field(default=16, ge=16, le=16, description="byte lanes of a superlane; map formats fix it")
    streams: int = Field(default=32, ge=32, le=32, description="streams per direction; the ALU reach table fixes it")
    groups: int = Field(default=11, ge=1, le=11)
    slices_per_group: int = Field(default=4, ge=4, le=4, description="four slices share one stop; queue numbers fix it")
    banks: int = Field(default=2, ge=1, le=2)
    rows: int = Field(default=4096, ge=1, le=65536)
    reserved: tuple[str, ...] = ("W16", "W20", "W24", "W28", "W38", "E16", "E20", "E24", "E28")
    hop: int = Field(default=1, ge=1, le=1, description="cycles a hop; diagonals (MT-3) rest on 1")
    vxm_entry: int = Field(default=4, ge=2, le=16, description="SR_0 inward to ALU input; equals vxm_cross")
    vxm_cross: int = Field(default=4, ge=2, le=16)
    io_cross: int = Field(default=4, ge=2, le=16)
    sxm_to_mxm: int = Field(default=5, ge=1, le=32)
    mem_read: int = Field(default=1, ge=1, le=16)
    mem_write: int = Field(default=0, ge=0, le=0, description="a write issued at t takes the value at its stop at t, visible at t + 1")
    gather_turn: int = Field(default=1, ge=1, le=16)
    gather_same: int = Field(default=2, ge=1, le=16)
    alu: int = Field(default=3, ge=1, le=32)
    mxm_cross: int = Field(default=1, ge=0, le=32)
    mxm_multiply: int = Field(default=13, ge=1, le=64)
    mxm_drain: int = Field(default=34, ge=1, le=128)
    mxm_install: int = Field(default=1, ge=1, le=16)
    lw_rows: int = Field(default=16, ge=16, le=16)
    acc_depth: int = Field(default=128, ge=1, le=4096)
    mode_change: int = Field(default=22, ge=0, le=256)
    transposer: int = Field(default=4, ge=1, le=64)
    distributor: int = Field(default=2, ge=1, le=64)
    shift: int = Field(default=36, ge=1, le=256)
    permute: int = Field(default=48, ge=1, le=256)
    broadcast: int = Field(default=36, ge=1, le=256)
    permutor_streams: int = Field(default=1, ge=1, le=1)
    c2c_hop: int = Field(default=216, ge=1, le=4096)
    c2c_interval: int = Field(default=24, ge=1, le=1024)
    links: int = Field(default=16, ge=0, le=16)
    slot_bytes: int = Field(default=16, ge=1, le=256)
    ifetch_bytes: int = Field(default=640, ge=1, le=65536)
    notify: int = Field(default=35, ge=0, le=4096)
    host_latency_s: float = Field(default=10e-6, ge=0, le=1)
    host_bytes_per_s: float = Field(default=24e9, gt=0, le=1e13)
    energy: EnergyTable = EnergyTable()

    @field_validator("reserved")
    @classmethod
    def _slices(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for item in value:
            if item[:1] not in ("W", "E") or not item[1:].isdigit():
                raise ValueError(f"a reserved slice is written W16 or E28, not {item!r}")
        return tuple(sorted(set(value)))

    @model_validator(mode="after")
    def _entry(self) -> TspMachine:
        if self.vxm_entry != self.vxm_cross or self.vxm_cross % 2:
            raise ValueError("vxm_entry and vxm_cross must be one even number: the ALUs of a direction lie at its far VXM edge (MT-2)")
        return self

    @property
    def slices(self) -> int:
        """MEM slices of a hemisphere."""
        return self.groups * self.slices_per_group

    @property
    def vector(self) -> int:
        """Bytes of one stream value: superlanes x lanes."""
        return self.superlanes * self.lanes

    @property
    def reserved_slices(self) -> frozenset[tuple[int, int]]:
        """Reserved (hemisphere, slice) pairs; hemisphere 0 West, 1 East."""
        return frozenset((0 if item[0] == "W" else 1, int(item[1:])) for item in self.reserved)

    @property
    def user_slices(self) -> tuple[tuple[int, int], ...]:
        """(hemisphere, slice) pairs that programs may use, West first, ascending."""
        taken = self.reserved_slices
        return tuple((h, s) for h in (0, 1) for s in range(self.slices) if (h, s) not in taken)

    @property
    def capacity_bytes(self) -> int:
        """User memory of one chip (ME-5: 207,093,760 B for tsp-v1)."""
        return len(self.user_slices) * self.banks * self.rows * self.vector

    @property
    def acc_latency(self) -> int:
        """ABC to its ACC (MX-4: 14)."""
        return self.mxm_cross + self.mxm_multiply

    @property
    def emit_latency(self) -> int:
        """ABC to the result on the inward stream at stop S (MX-4: 48)."""
        return self.acc_latency + self.mxm_drain

    def to_json(self) -> dict[str, Any]:
        """The description as JSON values, for `Program.machine`."""
        return self.model_dump(mode="json")


def parse(data: object, source: str = "machine") -> TspMachine:
    """A description from JSON or YAML values. Raises BadInput with field, value and allowed range."""
    if not isinstance(data, dict):
        raise BadInput(f"{source} must be a mapping of machine fields, not {type(data).__name__}")
    try:
        return TspMachine.model_validate(data)
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(str(part) for part in first["loc"]) or "machine"
        text = first["msg"].removeprefix("Value error, ")
        raise BadInput(f"{source}: field {field} = {first.get('input')!r}: {text[:1].lower()}{text[1:]}") from error
