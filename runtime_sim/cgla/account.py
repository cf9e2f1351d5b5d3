"""Counters, utilisation and energy of a judged program (model sections 2 and 12)."""

from __future__ import annotations

from math import sqrt
from typing import Any

from ...machines.cgla.description import CglaMachine
from ...machines.cgla.tables import BufferKind
from .seams import Verdict

CAUSES = ("CONF", "REGV", "RANGE", "LOAD", "EXEC", "DRAIN", "host", "wait")
REFERENCE_LMM = 65536


def totals(verdict: Verdict) -> dict[str, float]:
    """Counters summed over all instances."""
    result: dict[str, float] = {}
    for segment, _ in verdict.instances:
        for name, value in verdict.reports[segment].counts.items():
            result[name] = result.get(name, 0.0) + value
    return result


def breakdown(verdict: Verdict) -> dict[str, int]:
    """Cycles of each cause, the first active one of EXEC, LOAD, DRAIN, host, CONF, REGV, RANGE; sums to `cycles`."""
    result = dict.fromkeys(CAUSES, 0)
    for segment, _ in verdict.instances:
        for name, value in verdict.reports[segment].breakdown.items():
            result[name] += value
    result["wait"] += verdict.cycles - sum(result.values())
    return result


def host_ops(verdict: Verdict) -> dict[str, int]:
    """Host tasks by label."""
    result: dict[str, int] = {}
    for segment, _ in verdict.instances:
        for name, count in verdict.reports[segment].host_ops.items():
            result[name] = result.get(name, 0) + count
    return dict(sorted(result.items()))


def utilization(verdict: Verdict, machine: CglaMachine, counts: dict[str, float]) -> dict[str, float]:
    """Busy fractions: launches of a lane, ALU slots, DMA engines, host cores."""
    cycles = max(verdict.cycles, 1)
    busy = sum(sum(verdict.reports[segment].lanes.values()) for segment, _ in verdict.instances)
    return {
        "lanes": busy / (cycles * machine.lanes),
        "slots": counts.get("slot_ops", 0.0) / (cycles * machine.lanes * machine.rows),
        "dma": counts.get("dma_cycles", 0.0) / (cycles * machine.lanes),
        "host": counts.get("core_cycles", 0.0) / (cycles * machine.cores),
    }


def energy(machine: CglaMachine, cycles: int, counts: dict[str, float]) -> dict[str, float]:
    """Joules by cause (section 12)."""
    constants = machine.energy
    scale = constants.dynamic_scale * 1e-12
    seconds = cycles / machine.clock_hz
    return {
        "static": constants.static_w_per_lane * machine.lanes * seconds,
        "slots": constants.slot_pj * counts.get("slot_ops", 0.0) * scale,
        "lmm": constants.lmm_pj * sqrt(machine.lmm_bytes / REFERENCE_LMM) * counts.get("lmm_accesses", 0.0) * scale,
        "br": constants.br_pj * counts.get("br_transfers", 0.0) * scale,
        "dma": constants.dma_pj_per_byte * counts.get("dma_bytes", 0.0) * scale,
        "host": constants.host_core_w * counts.get("core_cycles", 0.0) / machine.clock_hz,
    }


def traffic(counts: dict[str, float]) -> dict[str, float]:
    """Bytes over BRs and local memories, bytes x rows passed, bytes over DDR."""
    local = 8.0 * (counts.get("lmm_accesses", 0.0) + counts.get("br_transfers", 0.0))
    return {"onchip_bytes": local, "byte_hops": 8.0 * counts.get("br_transfers", 0.0), "offchip_bytes": counts.get("dma_bytes", 0.0)}


def occupancy(verdict: Verdict, machine: CglaMachine) -> dict[str, int]:
    """Local memory touched at most by one lane, and DDR, against what the machine has."""
    table = verdict.decoded.program.tables["buffers"]
    used = int(table["bytes"].sum()) if len(table["bytes"]) else 0
    return {"used_bytes": used, "capacity_bytes": machine.ddr_bytes}


def state_buffers(verdict: Verdict, kind: BufferKind) -> list[tuple[int, Any]]:
    """(buffer, binding) of every buffer of a kind."""
    program = verdict.decoded.program
    table = program.tables["buffers"]
    return [
        (number, program.bindings[binding])
        for number, (k, binding) in enumerate(zip(table["kind"].tolist(), table["binding"].tolist(), strict=True))
        if k == kind and 0 <= binding < len(program.bindings)
    ]
