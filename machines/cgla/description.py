"""The CGLA machine: sizes, clocks, costs and energies, with the ranges in which each number makes sense.

The facts and assumptions behind every field are in `docs/cgla-model.md` (sections 1, 2 and 12); the presets repeat the source beside
each number. All times are array cycles. Rates that are not whole numbers (`dma_interval`, `mem_interval`) are rationals written as
`"37/4"`: cycles for one 32-byte beat.
"""

from __future__ import annotations

from collections.abc import Mapping
from fractions import Fraction
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from ...errors import BadInput
from .isa import OP1

Rational = Annotated[str, Field(pattern=r"^[1-9][0-9]{0,6}(/[1-9][0-9]{0,6})?$")]

EXTENSIONS: tuple[str, ...] = tuple(op.name for op in OP1 if op.ext)


class Energy(BaseModel):
    """Energy constants of model section 12; `dynamic_scale` multiplies every dynamic term (12 on an FPGA)."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    static_w_per_lane: float = Field(gt=0, le=1000)
    slot_pj: float = Field(ge=0, le=1000)
    lmm_pj: float = Field(ge=0, le=1000)
    br_pj: float = Field(ge=0, le=1000)
    dma_pj_per_byte: float = Field(ge=0, le=10000)
    host_core_w: float = Field(ge=0, le=1000)
    dynamic_scale: float = Field(gt=0, le=1000)


class CglaMachine(BaseModel):
    """One CGLA machine: `lanes` arrays of `rows` rows, `lanes_per_memory` of them on one board memory with `host_cores` cores."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = Field(min_length=1, max_length=64)
    clock_hz: float = Field(ge=1e6, le=1e10)
    rows: Literal[8, 16, 32, 64] = 64
    lanes: int = Field(ge=1, le=8)
    lmm_bytes: Literal[32768, 65536, 131072, 262144, 524288]
    t_store: int = Field(ge=1, le=1000)
    t_launch: int = Field(ge=8, le=1_000_000)
    t_dma: int = Field(ge=0, le=1_000_000)
    dma: Literal["effective", "peak"] = "effective"
    dma_interval: Rational
    mem_interval: Rational
    lanes_per_memory: int = Field(ge=1, le=8)
    ddr_bytes: int = Field(ge=1 << 20, le=1 << 44)
    host_cores: int = Field(ge=1, le=64)
    host_memcpy_bytes_per_cycle: float = Field(gt=0, le=10000)
    host_flops_per_cycle: float = Field(gt=0, le=10000)
    host_special_per_cycle: float = Field(gt=0, le=1000)
    host_call_cycles: int = Field(ge=0, le=1_000_000)
    extensions: tuple[str, ...] = EXTENSIONS
    energy: Energy

    @field_validator("extensions")
    @classmethod
    def _known_extensions(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        unknown = sorted(set(value) - set(EXTENSIONS))
        if unknown:
            raise ValueError(f"unknown extension op {unknown[0]!r}; the machine model has {', '.join(EXTENSIONS)}")
        return tuple(name for name in EXTENSIONS if name in value)

    @property
    def memories(self) -> int:
        """Number of board memories."""
        return -(-self.lanes // self.lanes_per_memory)

    @property
    def cores(self) -> int:
        """Host cores over all boards; core i belongs to memory i // host_cores."""
        return self.host_cores * self.memories

    def memory_of(self, lane: int) -> int:
        """The memory that serves a lane."""
        return lane // self.lanes_per_memory

    @property
    def beat_interval(self) -> Fraction:
        """Smallest cycles per 32-byte beat of one lane (2.8, 2.17)."""
        return Fraction(1) if self.dma == "peak" else Fraction(self.dma_interval)

    @property
    def memory_interval(self) -> Fraction:
        """Cycles per beat over all lanes of one memory (2.9, 2.17)."""
        if self.dma == "peak":
            return Fraction(1, min(self.lanes_per_memory, self.lanes))
        return Fraction(self.mem_interval)

    def to_json(self) -> dict[str, Any]:
        """The description as JSON values, as it stands in a program."""
        return self.model_dump(mode="json")


def parse_machine(data: Mapping[str, Any], where: str) -> CglaMachine:
    """The machine of a mapping. Raises BadInput that names the field, the value and what is allowed."""
    try:
        return CglaMachine.model_validate(dict(data))
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(str(part) for part in first["loc"])
        raise BadInput(f"{where}: machine field {field or '?'}: {first['msg']} (got {first.get('input')!r})") from error
