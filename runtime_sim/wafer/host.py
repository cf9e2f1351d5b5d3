"""Transfers over the host link while a program runs: W51, and that streamed data is there when it is used (H1)."""

from __future__ import annotations

from fractions import Fraction

import numpy as np

from ...machines.wafer.isa import WORDS
from .breaches import Breaches
from .instances import Layout


def check_streams(layout: Layout, out: Breaches) -> int:
    """All rules of this module; returns the end of the last transfer."""
    t = {name: column.tolist() for name, column in layout.program.tables["streams"].items()}
    keys = list(zip(t["binding"], t["start"], strict=True))
    if keys != sorted(keys) or len(set(t["binding"])) != len(keys):
        out.add("W05", "table streams", "rows are not ordered by binding, or stream one twice")
    claims: dict[str, list[tuple[int, int, Fraction, str]]] = {"input": [], "output": []}
    end = 0
    for binding_number, start, span in zip(t["binding"], t["start"], t["span"], strict=True):
        if not 0 <= binding_number < len(layout.program.bindings) or start < 0 or span < 1:
            out.add("W01", "table streams", f"binding {binding_number}, start {start} or span {span} is out of range")
            continue
        binding = layout.program.bindings[binding_number]
        if binding.kind not in claims:
            out.add("W01", f"stream of {binding.name}", f"a {binding.kind} does not cross the host link")
            continue
        end = max(end, start + span)
        pieces = layout.pieces[binding.name]
        size = int(np.prod(binding.shape, dtype=np.int64)) * (2 * WORDS[layout.object(pieces[0].slot).fmt] if pieces else 0)
        claims[binding.kind].append((start, start + span, Fraction(size, span), binding.name))
        _order(layout, binding.name, binding.kind, start, start + span, out)
    for kind, rate in zip(("input", "output"), layout.machine.host_rates(), strict=True):
        limit = rate / layout.machine.clock_hz
        for start, *_ in claims[kind]:
            here = [c for c in claims[kind] if c[0] <= start < c[1]]
            total = float(sum(c[2] for c in here))
            if total > limit:
                names = [c[3] for c in here]
                message = f"{total:.3g} bytes a cycle are claimed, the link carries {limit:.3g}"
                out.add("W51", f"host link, {kind}s", message, cycle=start, claimants=names)
                break
    return end


def _order(layout: Layout, name: str, kind: str, start: int, end: int, out: Breaches) -> None:
    """A streamed input is read once it is there (W44), a streamed output is complete when it leaves (W43)."""
    for piece in layout.pieces[name]:
        root = layout.root(piece.slot)
        for slot in layout.slots():
            if layout.root(slot) != root:
                continue
            instance = layout.instances[slot[0]]
            life = instance.analysis.liveness.lives[slot[1]]
            if kind == "input" and life.first >= 0 and instance.start + life.first < end:
                message = f"is used from cycle {instance.start + life.first}, its stream ends at {end}"
                out.add("W44", f"input {name}", message, cycle=instance.start + life.first)
            if kind == "output" and life.last_write_end >= 0 and instance.start + life.last_write_end > start:
                message = f"leaves from cycle {start}, it is written until {instance.start + life.last_write_end}"
                out.add("W43", f"output {name}", message, cycle=start)
