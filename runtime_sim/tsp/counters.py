"""What a schedule costs: busy cycles, causes of cycles, bytes and distance, energy (docs/tsp-model.md sections 6, 8, 15)."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from ...machines.tsp import isa
from ...machines.tsp.geometry import PITCH
from ...machines.tsp.isa import HALF_BOTH, Class, DType, Opcode
from ...machines.tsp.tables import Kind, mask_slices
from . import kernels
from .flatten import Array
from .legality import Analysis

_NOP_CYCLES = 65_535
CAUSES = ("latency", "move", "load", "vector", "compute")
"""Cause of a cycle, by rising priority: nothing issues; data moves only; weights load; an ALU issues; a plane takes activations."""


@dataclass(frozen=True)
class Counts:
    """Counters of one run; see `Execution` for the fields."""

    breakdown: dict[str, int]
    interval_cycles: int
    utilization: dict[str, float]
    traffic: dict[str, float]
    memory: dict[str, int]
    energy_j: float
    energy_breakdown: dict[str, float]
    time_s: float
    load_s: float
    program_bytes: int


def count(a: Analysis) -> Counts:
    """All counters of an analysed program."""
    host_in, host_out, constant = _host_bytes(a)
    m = a.machine
    c2c = int(a.flat.count[a.flat.of(Opcode.SEND)].sum()) * m.vector
    moved = _memory_rows(a)
    hops = _hops(a)
    time_s = a.cycles / m.clock_hz
    energy = _energy(a, moved, hops, c2c)
    return Counts(
        breakdown=breakdown(a),
        interval_cycles=_interval(a),
        utilization=_utilization(a),
        traffic={
            "onchip_bytes": float(moved * m.vector),
            "byte_hops": float(hops * m.vector),
            "offchip_bytes": float(host_in + host_out + c2c),
        },
        memory={"used_bytes": a.memory.used_rows * m.vector, "capacity_bytes": m.capacity_bytes * a.flat.chips},
        energy_j=math.fsum(energy.values()),
        energy_breakdown=energy,
        time_s=time_s + sum(m.host_latency_s + size / m.host_bytes_per_s for size in (host_in, host_out)),
        load_s=m.host_latency_s + constant / m.host_bytes_per_s,
        program_bytes=program_bytes(a),
    )


def breakdown(a: Analysis) -> dict[str, int]:
    """Cycles by cause; sums to `cycles`."""
    b, flat = a.flat.b, a.flat
    cls = b["cls"]
    value = np.ones(flat.size, np.int64)
    value[cls == Class.MXM_W] = 2
    value[cls == Class.VXM] = 3
    value[(cls == Class.MXM_A)] = 4
    cycles = np.zeros(a.cycles, np.int8)
    kernels.mark(cycles, b["t0"], b["n"], b["i"], b["n2"], b["i2"], value.astype(np.int8))
    both = np.flatnonzero((b["opcode"] == Opcode.ABC) & (b["half"] == HALF_BOTH) & (b["dtype"] == DType.F16))
    kernels.mark(cycles, b["t0"][both] + 1, b["n"][both], b["i"][both], b["n2"][both], b["i2"][both], value[both].astype(np.int8))
    counts = np.bincount(cycles, minlength=len(CAUSES))
    return {cause: int(n) for cause, n in zip(CAUSES, counts, strict=True)}


def _interval(a: Analysis) -> int:
    """Cycles between results when runs follow each other: the longest time that one chip is busy."""
    flat = a.flat
    if not flat.size or flat.chips == 1:
        return a.cycles
    spans = []
    for chip in range(flat.chips):
        mine = flat.b["chip"] == chip
        if mine.any():
            spans.append(int(flat.last[mine].max() - flat.b["t0"][mine].min()) + flat.machine.superlanes)
    return min(max(spans), a.cycles)


def _utilization(a: Analysis) -> dict[str, float]:
    """Busy element slots over queue cycles, per unit class."""
    flat, cls = a.flat, a.flat.b["cls"]
    both = (flat.b["opcode"] == Opcode.ABC) & (flat.b["half"] == HALF_BOTH) & (flat.b["dtype"] == DType.F16)
    busy = flat.count * np.where(both, 2, 1)
    classes = {"mem": (Class.MEM,), "vxm": (Class.VXM,), "mxm": (Class.MXM_A,), "mxm_load": (Class.MXM_W,),
               "sxm": (Class.DISTRIBUTOR, Class.TRANSPOSER, Class.PERMUTOR, Class.SHIFTER), "c2c": (Class.C2C,)}  # fmt: skip
    slots = max(a.cycles, 1) * flat.chips
    return {
        name: float(busy[np.isin(cls, kinds)].sum()) / (slots * sum(isa.QUEUE_CLASS.count(kind) for kind in kinds))
        for name, kinds in classes.items()
    }


def _memory_rows(a: Analysis) -> int:
    """Rows read and written."""
    return int(a.flat.count[a.flat.b["cls"] == Class.MEM].sum())


def _hops(a: Analysis) -> int:
    """Vectors times stops, from drive to last take."""
    claims = a.flat.claims
    distance = np.maximum(claims.until // PITCH - claims.pos // PITCH, 0)
    return int((distance * claims.n * claims.n2).sum())


def _energy(a: Analysis, rows: int, hops: int, c2c_bytes: int) -> dict[str, float]:
    flat, table = a.flat, a.machine.energy
    abc = flat.of(Opcode.ABC)
    area = a.machine.vector * a.machine.vector
    half = flat.b["dtype"][abc] == DType.F16
    lanes = np.where(flat.b["half"][abc] == HALF_BOTH, area, area // 2)
    int8 = float((flat.count[abc] * ~half).sum()) * area
    fp16 = float((flat.count[abc] * half * lanes).sum()) / 2
    pico = 1e-12
    return {
        "idle": table.idle_w * flat.chips * a.cycles / a.machine.clock_hz,
        "int8_mac": int8 * table.int8_mac_pj * pico,
        "fp16_mac": fp16 * table.fp16_mac_pj * pico,
        "sram": rows * table.sram_row_pj * pico,
        "streams": hops * table.hop_pj * pico,
        "alu": float(flat.count[flat.b["cls"] == Class.VXM].sum()) * table.alu_pj * pico,
        "c2c": c2c_bytes * 8 * table.c2c_bit_pj * pico,
    }


def _host_bytes(a: Analysis) -> tuple[int, int, int]:
    """(input, output, constant) bytes over the host link; copies count (docs/tsp-model.md section 8)."""
    sizes = {"input": 0, "output": 0, "state": 0}
    alloc = {name: np.asarray(column, np.int64) for name, column in a.program.tables["allocations"].items()}
    for binding in a.program.bindings:
        for region in binding.where or ():
            vectors = 1
            for axis, n in enumerate(region["shape"]):
                vectors *= -(-n // region["lane_tile"]) if axis == region["lane_axis"] else n
            sizes[binding.kind] += vectors * len(region["planes"]) * a.machine.vector
    constant = 0
    for row in np.flatnonzero(alloc["kind"] == Kind.CONST).tolist():
        slices = len(mask_slices(int(alloc["west"][row]), int(alloc["east"][row])))
        constant += slices * int(alloc["rows"][row]) * a.machine.vector
    return sizes["input"], sizes["output"], constant


def program_bytes(a: Analysis) -> int:
    """Instruction bytes of all queues by IC-3."""
    b, flat = a.flat.b, a.flat
    if not flat.size:
        return 0
    slot = a.machine.slot_bytes
    queue = b["chip"] * isa.QUEUES + b["unit"]
    order = np.lexsort((b["t0"], queue))
    queue, start, end = queue[order], b["t0"][order], flat.last[order]
    head = np.append(True, queue[1:] != queue[:-1])
    span = int(end.max()) + 1
    reach = np.maximum.accumulate(queue * span + end) - queue * span
    before = np.where(head, -1, np.append(-1, reach[:-1]))
    meets = ~head & (start <= before)
    tangled = meets | np.append(meets[1:], False)
    several = (b["n"] > 1)[order].astype(np.int64) + (b["n2"] > 1)[order]
    gaps = np.where(meets, 0, -(-np.maximum(start - before - 1, 0) // _NOP_CYCLES))
    plain = slot * (np.where(tangled, 0, 1 + several) + gaps)
    return int(plain.sum()) + slot * _tangled_slots(a, order[tangled], np.cumsum(~meets)[tangled])


def _tangled_slots(a: Analysis, rows: Array, cluster: Array) -> int:
    """Slots of bursts that interleave: one per element, and NOPs for the idle cycles between elements of a cluster."""
    if not len(rows):
        return 0
    owner, time = a.flat.times(rows)
    span = int(time.max()) + 2
    key = np.sort(cluster[owner] * span + time)
    idle = np.where(key[1:] // span == key[:-1] // span, np.diff(key) - 1, 0)
    return len(key) + int((-(-np.maximum(idle, 0) // _NOP_CYCLES)).sum())
