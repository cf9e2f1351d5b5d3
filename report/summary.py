"""A short description of a program: what it computes, where, how large, how many cycles it claims."""

from __future__ import annotations

from rich.table import Table

from ..machines.program import Program, length


def summary(program: Program, digest: str) -> Table:
    """One row a fact."""
    meta = program.meta
    table = Table(show_header=False)
    table.add_column()
    table.add_column(overflow="fold")
    table.add_row("model", f"{meta.get('model') or 'unnamed'}, {meta.get('phase')}, batch {meta.get('batch')}, {meta.get('seq')} positions")
    table.add_row("machine", f"{program.machine.get('name')} ({program.target}), {meta.get('precision')}")
    table.add_row("predicted cycles", f"{program.predicted_cycles:,}")
    if program.bound:
        table.add_row("lower bound", f"{program.bound['bound_cycles']:,} ({program.bound['bound_kind']})")
    for kind in ("input", "output", "state"):
        for binding in program.bindings_of(kind):
            limits = f", {binding.range[0]} to {binding.range[1]}" if binding.range else ""
            table.add_row(kind, f"{binding.path or binding.name}: {binding.dtype}{list(binding.shape)}{limits}")
    table.add_row("instances", f"{length(program.tables.get('instances', {})):,} of {len(program.segments)} segments")
    rows = {s.name: sum(length(t) for t in s.tables.values()) for s in program.segments}
    table.add_row("segments", ", ".join(f"{name} ({count:,} rows)" for name, count in rows.items()))
    table.add_row("images", f"{sum(a.nbytes for a in program.images.values()):,} bytes")
    table.add_row("sha256", digest)
    return table
