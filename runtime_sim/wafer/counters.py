"""What a run of a program uses: busy fractions, bytes, joules and seconds, from the counts of its segments."""

from __future__ import annotations

from typing import Any

import numpy as np

from ...machines.program import Binding
from ...machines.wafer.isa import WORDS
from .instances import Layout
from .judge import Judgement


def count(verdict: Judgement) -> dict[str, Any]:
    """Utilisation, traffic, memory, energy and time of a judged program, by the names of `Execution`'s fields."""
    machine, layout, cycles = verdict.machine, verdict.layout, verdict.cycles
    if layout is None:
        empty: dict[str, Any] = {"utilization": {}, "traffic": {}, "memory": {}, "energy_j": 0.0, "energy_breakdown": {}, "time_s": 0.0}
        return empty
    counts = [i.analysis.counters for i in layout.instances]
    cores = max(layout.cores(), 1)
    beats = sum(c.beats for c in counts)
    wafer_cores = machine.live_cores
    busy_j = beats * machine.energy.busy_beat_pj * 1e-12
    idle_j = max(wafer_cores * cycles - beats, 0) * machine.energy.busy_beat_pj * machine.energy.idle_fraction * 1e-12
    into = sum(_bound_bytes(layout, b) for b in verdict.program.bindings_of("input"))
    out_of = sum(_bound_bytes(layout, b) for b in verdict.program.bindings_of("output"))
    rate_in, rate_out = machine.host_rates()
    wavelets = sum(c.wavelets for c in counts)
    return {
        "utilization": {
            "issue": beats / (cores * max(cycles, 1)),
            "links": sum(c.link_cycles for c in counts) / (4 * cores * max(cycles, 1)),
            "wafer": beats / (wafer_cores * max(cycles, 1)),
        },
        "traffic": {
            "onchip_bytes": float(sum(c.memory_bytes for c in counts) + 4 * wavelets),
            "byte_hops": float(4 * sum(c.wavelet_hops for c in counts)),
            "offchip_bytes": float(into + out_of),
        },
        "memory": {"used_bytes": layout.used_bytes(), "capacity_bytes": wafer_cores * machine.memory_words * 2},
        "energy_j": busy_j + idle_j,
        "energy_breakdown": {"beats": busy_j, "idle": idle_j},
        "time_s": cycles / machine.clock_hz + machine.host.launch_s + into / rate_in + out_of / rate_out,
        "load_s": layout.image_bytes() / rate_in,
    }


def _bound_bytes(layout: Layout, binding: Binding) -> int:
    """Bytes that cross the host link for an input or output: its elements in the machine's format."""
    pieces = layout.pieces[binding.name]
    fmt = layout.object(pieces[0].slot).fmt if pieces else None
    return int(np.prod(binding.shape, dtype=np.int64)) * (WORDS[fmt] * 2 if fmt is not None else 0)
