"""What a schedule costs: busy cycles, causes of cycles, bytes and distance, energy (docs/tsp-model.md sections 6, 8, 15)."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from ...machines.tsp import isa
from ...machines.tsp.geometry import PITCH
from ...machines.tsp.isa import HALF_BOTH, Class, DType, Opcode
from ...machines.tsp.tables import Kind
from . import kernels
from .layout import Array
from .legality import Analysis, Judgement

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


@dataclass(frozen=True)
class Tally:
    """What the bursts of one layout add up to: busy slots by class, elements of links, memory rows, hops, products and ALU operations."""

    busy: Array
    sends: int
    rows: int
    hops: int
    int8: float
    fp16: float
    alu: int


def tally(a: Analysis) -> Tally:
    """The sums of one layout."""
    flat, b = a.flat, a.flat.b
    cls, count = b["cls"], flat.count
    busy = np.bincount(cls, weights=count * np.where(_both(a), 2, 1), minlength=len(Class))
    claims = flat.claims
    distance = np.maximum(claims.until // PITCH - claims.pos // PITCH, 0)
    abc = flat.of(Opcode.ABC)
    area = a.machine.vector * a.machine.vector
    half = b["dtype"][abc] == DType.F16
    lanes = np.where(b["half"][abc] == HALF_BOTH, area, area // 2)
    return Tally(
        busy, int(count[flat.of(Opcode.SEND)].sum()), int(count[cls == Class.MEM].sum()), int((distance * claims.n * claims.n2).sum()),
        float((count[abc] * ~half).sum()) * area, float((count[abc] * half * lanes).sum()) / 2, int(count[cls == Class.VXM].sum()),
    )  # fmt: skip


def _both(a: Analysis) -> Array:
    """Bursts whose elements occupy two cycles (TSP-023)."""
    b = a.flat.b
    result: Array = (b["opcode"] == Opcode.ABC) & (b["half"] == HALF_BOTH) & (b["dtype"] == DType.F16)
    return result


def count(j: Judgement) -> Counts:
    """All counters of a judged program."""
    host_in, host_out, constant = _host_bytes(j)
    m = j.machine
    tallies = [tally(a) for a in j.layouts]
    every = [tallies[number] for number in j.of]
    c2c = sum(t.sends for t in every) * m.vector
    moved, hops = sum(t.rows for t in every), sum(t.hops for t in every)
    time_s = j.cycles / m.clock_hz
    table, pico = m.energy, 1e-12
    energy = {
        "idle": table.idle_w * j.chips * j.cycles / m.clock_hz,
        "int8_mac": sum(t.int8 for t in every) * table.int8_mac_pj * pico,
        "fp16_mac": sum(t.fp16 for t in every) * table.fp16_mac_pj * pico,
        "sram": moved * table.sram_row_pj * pico,
        "streams": hops * table.hop_pj * pico,
        "alu": float(sum(t.alu for t in every)) * table.alu_pj * pico,
        "c2c": c2c * 8 * table.c2c_bit_pj * pico,
    }
    return Counts(
        breakdown=breakdown(j),
        interval_cycles=_interval(j),
        utilization=_utilization(j, sum((t.busy for t in every), np.zeros(len(Class)))),
        traffic={
            "onchip_bytes": float(moved * m.vector),
            "byte_hops": float(hops * m.vector),
            "offchip_bytes": float(host_in + host_out + c2c),
        },
        memory={"used_bytes": j.used_rows * m.vector, "capacity_bytes": m.capacity_bytes * j.chips},
        energy_j=math.fsum(energy.values()),
        energy_breakdown=energy,
        time_s=time_s + sum(m.host_latency_s + size / m.host_bytes_per_s for size in (host_in, host_out)),
        load_s=m.host_latency_s + constant / m.host_bytes_per_s,
    )


def _causes(a: Analysis) -> Array:
    """Cause of every cycle of a layout, by number."""
    b, flat = a.flat.b, a.flat
    cls = b["cls"]
    value = np.ones(flat.size, np.int8)
    value[cls == Class.MXM_W] = 2
    value[cls == Class.VXM] = 3
    value[(cls == Class.MXM_A)] = 4
    cycles = np.zeros(int(flat.last.max(initial=-1)) + 2, np.int8)
    kernels.mark(cycles, b["t0"], b["n"], b["i"], b["n2"], b["i2"], value)
    both = np.flatnonzero(_both(a))
    kernels.mark(cycles, b["t0"][both] + 1, b["n"][both], b["i"][both], b["n2"][both], b["i2"][both], value[both])
    return cycles


def breakdown(j: Judgement) -> dict[str, int]:
    """Cycles by cause; sums to `cycles`."""
    causes = [_causes(a) for a in j.layouts]
    alone = [np.bincount(c, minlength=len(CAUSES)) for c in causes]
    counts = np.zeros(len(CAUSES), np.int64)
    order = sorted(range(len(j.blocks)), key=lambda k: j.blocks[k].start)
    cluster: list[int] = []
    end = 0
    for k in [*order, -1]:
        if cluster and (k < 0 or j.blocks[k].start >= end):
            if len(cluster) == 1:
                counts += alone[j.of[cluster[0]]]
            else:
                low = j.blocks[cluster[0]].start
                joined = np.zeros(end - low, np.int8)
                for member in cluster:
                    at, mine = j.blocks[member].start - low, causes[j.of[member]]
                    np.maximum(joined[at : at + len(mine)], mine, out=joined[at : at + len(mine)])
                counts += np.bincount(joined, minlength=len(CAUSES))
            cluster = []
        if k >= 0:
            end = max(end if cluster else 0, j.blocks[k].start + len(causes[j.of[k]]))
            cluster.append(k)
    counts[0] = j.cycles - int(counts[1:].sum())
    return {cause: int(n) for cause, n in zip(CAUSES, counts, strict=True)}


def _interval(j: Judgement) -> int:
    """Cycles between results when runs follow each other: the longest time that one chip is busy."""
    if j.chips == 1 or not j.blocks:
        return j.cycles
    first, last = np.full(j.chips, 1 << 60), np.full(j.chips, -1)
    for block, number in zip(j.blocks, j.of, strict=True):
        flat = j.layouts[number].flat
        chip = block.chips[flat.b["chip"]]
        np.minimum.at(first, chip, flat.b["t0"] + block.start)
        np.maximum.at(last, chip, flat.last + block.start)
    spans = (last - first)[last >= 0]
    return min(int(spans.max(initial=0)) + j.machine.superlanes, j.cycles)


def _utilization(j: Judgement, busy: Array) -> dict[str, float]:
    """Busy element slots over queue cycles, per unit class."""
    classes = {"mem": (Class.MEM,), "vxm": (Class.VXM,), "mxm": (Class.MXM_A,), "mxm_load": (Class.MXM_W,),
               "sxm": (Class.DISTRIBUTOR, Class.TRANSPOSER, Class.PERMUTOR, Class.SHIFTER), "c2c": (Class.C2C,)}  # fmt: skip
    slots = max(j.cycles, 1) * j.chips
    return {
        name: float(busy[list(kinds)].sum()) / (slots * sum(isa.QUEUE_CLASS.count(kind) for kind in kinds))
        for name, kinds in classes.items()
    }


def _host_bytes(j: Judgement) -> tuple[int, int, int]:
    """(input, output, constant) bytes over the host link; copies count (docs/tsp-model.md section 8)."""
    sizes = {"input": 0, "output": 0, "state": 0}
    alloc = j.binds.allocations
    for binding in j.program.bindings:
        for region in binding.where or ():
            vectors = 1
            for axis, n in enumerate(region["shape"]):
                vectors *= -(-n // region["lane_tile"]) if axis == region["lane_axis"] else n
            sizes[binding.kind] += vectors * len(region["planes"]) * j.machine.vector
    constant = 0
    for row in np.flatnonzero(alloc["kind"] == Kind.CONST).tolist():
        slices = int(alloc["west"][row]).bit_count() + int(alloc["east"][row]).bit_count()
        constant += slices * int(alloc["rows"][row]) * j.machine.vector
    return sizes["input"], sizes["output"], constant


def program_bytes(j: Judgement) -> int:
    """Instruction bytes of all queues by IC-3 (no part of a run's record: nothing else depends on them)."""
    inner = [_queue_slots(a) for a in j.layouts]
    total = sum(inner[number][0] for number in j.of)
    rows = []
    for block, number in zip(j.blocks, j.of, strict=True):
        _, queue, start, end = inner[number]
        rows.append(np.stack([block.chips[queue // isa.QUEUES] * isa.QUEUES + queue % isa.QUEUES, start + block.start, end + block.start]))
    queue, start, end = np.concatenate(rows, axis=1) if rows else np.zeros((3, 0), np.int64)
    order = np.lexsort((start, queue))
    queue, start, end = queue[order], start[order], end[order]
    before = np.where(np.append(-1, queue[:-1]) == queue, np.append(-1, end[:-1]), -1)[: len(queue)]
    gaps = -(-np.maximum(start - before - 1, 0) // _NOP_CYCLES)
    return (total + int(gaps.sum())) * j.machine.slot_bytes


def _queue_slots(a: Analysis) -> tuple[int, Array, Array, Array]:
    """Slots of the queues of a layout from their first burst on; (queue, first cycle, last cycle) of each of them."""
    b, flat = a.flat.b, a.flat
    if not flat.size:
        none = np.zeros(0, np.int64)
        return 0, none, none, none
    queue = b["chip"] * isa.QUEUES + b["unit"]
    order = np.lexsort((b["t0"], queue))
    queue, start, end = queue[order], b["t0"][order], flat.last[order]
    head = np.append(True, queue[1:] != queue[:-1])
    span = int(end.max()) + 1
    reach = np.maximum.accumulate(queue * span + end) - queue * span
    before = np.where(head, start - 1, np.append(-1, reach[:-1]))
    meets = ~head & (start <= before)
    tangled = meets | np.append(meets[1:], False)
    several = (b["n"] > 1)[order].astype(np.int64) + (b["n2"] > 1)[order]
    gaps = np.where(meets, 0, -(-np.maximum(start - before - 1, 0) // _NOP_CYCLES))
    slots = int((np.where(tangled, 0, 1 + several) + gaps).sum()) + _tangled_slots(a, order[tangled], np.cumsum(~meets)[tangled])
    heads = np.flatnonzero(head)
    return slots, queue[heads], start[heads], reach[np.append(heads[1:], len(queue)) - 1]


def _tangled_slots(a: Analysis, rows: Array, cluster: Array) -> int:
    """Slots of bursts that interleave: one per element, and NOPs for the idle cycles between elements of a cluster."""
    if not len(rows):
        return 0
    elements = a.flat.elements(rows)
    owner, time = elements.owner, a.flat.times(elements)
    span = int(time.max()) + 2
    key = np.sort(cluster[owner] * span + time)
    idle = np.where(key[1:] // span == key[:-1] // span, np.diff(key) - 1, 0)
    return len(key) + int((-(-np.maximum(idle, 0) // _NOP_CYCLES)).sum())
