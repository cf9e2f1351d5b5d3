"""The result of one run: one object per target, names fixed, the same from `run` and `compare`."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

Status = Literal["ok", "illegal", "wrong", "infeasible", "unsupported"]


class Numerics(BaseModel):
    """Outputs against a reference. Errors are the worst over all floating outputs.

    `rel_l2_err` is ||got - want|| / ||want|| against torch fp32 eager, `interpreter_rel_l2_err` the same against the IR interpreter at
    the machine's precision (None where the graph is not at hand); `argmax_agreement` is the share of positions whose arg-max is
    torch's, ties closer than the format resolves (`argmax_ties` of them) counted as equal.
    """

    model_config = ConfigDict(extra="forbid")
    max_abs_err: float
    rel_l2_err: float
    argmax_agreement: float | None = None
    argmax_ties: int | None = None
    reference: str
    tolerance: float
    interpreter_rel_l2_err: float | None = None
    interpreter_tolerance: float | None = None
    passed: bool


class ResultData(BaseModel):
    """The schema of `--json`: the work, the verdict, cycles, bound, numbers, use of the machine, cost of the tool."""

    model_config = ConfigDict(extra="forbid")
    model: str | None = None
    target: str
    machine: str
    chips: int = 1
    phase: str = "prefill"
    batch: int = 1
    seq: int = 1
    context: int = 1
    precision: str = ""
    status: Status
    error: dict[str, Any] | None = None
    overhead: str = "ideal"
    accumulate: str = "fp32"
    order: str = "exact"
    legal: bool | None = None
    violations: list[str] = []
    cycles: int | None = None
    predicted_cycles: int | None = None
    clock_hz: float | None = None
    time_s: float | None = None
    interval_cycles: int | None = None
    tokens_per_s: float | None = None
    cycle_breakdown: dict[str, int] = {}
    load_s: float | None = None
    bound_cycles: int | None = None
    bound_fraction: float | None = None
    bound_kind: str | None = None
    class_bound_cycles: int | None = None
    numerics: Numerics | None = None
    utilization: dict[str, float] = {}
    traffic: dict[str, float] = {}
    memory: dict[str, int] = {}
    energy_j: float | None = None
    energy_breakdown: dict[str, float] = {}
    compile_s: float | None = None
    execute_s: float | None = None
    peak_rss_bytes: int | None = None
    program_bytes: int | None = None
    digest: str | None = None
    host_ops: dict[str, int] = {}

    def exit_code(self) -> int:
        """0 done and correct, 1 ran but illegal or wrong, 3 infeasible or unsupported on this machine."""
        return {"ok": 0, "illegal": 1, "wrong": 1, "infeasible": 3, "unsupported": 3}[self.status]
