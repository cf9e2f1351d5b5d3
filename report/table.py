"""Results as a table for people: one column a machine, one row a field that matters."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from rich.table import Table

from .result import ResultData


def _count(value: float | None) -> str:
    return "" if value is None else f"{value:,.0f}"


def _time(seconds: float | None) -> str:
    if seconds is None:
        return ""
    for scale, unit in ((1.0, "s"), (1e-3, "ms"), (1e-6, "us")):
        if seconds >= scale:
            return f"{seconds / scale:.3g} {unit}"
    return f"{seconds * 1e9:.3g} ns"


def _bytes(value: float | None) -> str:
    if value is None:
        return ""
    for scale, unit in ((2**30, "GiB"), (2**20, "MiB"), (2**10, "KiB")):
        if value >= scale:
            return f"{value / scale:.3g} {unit}"
    return f"{value:.0f} B"


def _shares(parts: Mapping[str, float], total: float, most: int = 4) -> str:
    ordered = sorted(parts.items(), key=lambda item: (-item[1], item[0]))[:most]
    return ", ".join(f"{name} {value / total:.0%}" for name, value in ordered if value > 0) if total else ""


def _memory(r: ResultData) -> str:
    if not r.memory.get("capacity_bytes"):
        return ""
    return f"{_bytes(r.memory['used_bytes'])} of {_bytes(r.memory['capacity_bytes'])}"


def _error(r: ResultData) -> str:
    return "" if r.numerics is None else f"{r.numerics.rel_l2_err:.2e} (allowed {r.numerics.tolerance:g})"


def _own_error(r: ResultData) -> str:
    n = r.numerics
    return "" if n is None or n.interpreter_rel_l2_err is None else f"{n.interpreter_rel_l2_err:.2e} (allowed {n.interpreter_tolerance:g})"


def _argmax(r: ResultData) -> str:
    if r.numerics is None or r.numerics.argmax_agreement is None:
        return ""
    ties = f", {r.numerics.argmax_ties} ties" if r.numerics.argmax_ties else ""
    return f"{r.numerics.argmax_agreement:.0%}{ties}"


ROWS: tuple[tuple[str, Callable[[ResultData], str]], ...] = (
    ("machine", lambda r: r.machine + (f" x {r.chips}" if r.chips > 1 else "")),
    ("status", lambda r: r.status),
    ("precision", lambda r: r.precision),
    ("legal", lambda r: "" if r.legal is None else ("yes" if r.legal else f"NO: {len(r.violations)} violations")),
    ("error against torch", _error),
    ("against the interpreter", _own_error),
    ("arg-max agreement", _argmax),
    ("cycles", lambda r: _count(r.cycles)),
    ("predicted cycles", lambda r: _count(r.predicted_cycles)),
    ("lower bound", lambda r: f"{_count(r.bound_cycles)} ({r.bound_kind})" if r.bound_cycles else ""),
    ("fraction of bound", lambda r: "" if r.bound_fraction is None else f"{r.bound_fraction:.2%}"),
    ("where cycles go", lambda r: _shares(r.cycle_breakdown, r.cycles or 0)),
    ("time", lambda r: _time(r.time_s)),
    ("tokens/s", lambda r: _count(r.tokens_per_s)),
    ("weight load", lambda r: _time(r.load_s)),
    ("busy", lambda r: ", ".join(f"{k} {v:.1%}" for k, v in sorted(r.utilization.items(), key=lambda kv: (-kv[1], kv[0]))[:4])),
    ("memory", _memory),
    ("energy (estimate)", lambda r: "" if r.energy_j is None else f"{r.energy_j * 1e3:.3g} mJ"),
    ("on the host", lambda r: ", ".join(f"{k} x{v}" for k, v in sorted(r.host_ops.items())) or ("nothing" if r.legal is not None else "")),
    ("compile / execute", lambda r: "" if r.compile_s is None else f"{_time(r.compile_s)} / {_time(r.execute_s)}"),
    ("error", lambda r: "" if r.error is None else str(r.error.get("message", ""))),
)


def comparison(results: Sequence[ResultData], title: str, next_tokens: Mapping[str, str] | None = None) -> Table:
    """The comparison table. `next_tokens` maps a target (and `torch`) to the token it would say next."""
    table = Table(title=title, title_justify="left")
    table.add_column("")
    for result in results:
        table.add_column(result.target, overflow="fold")
    if next_tokens:
        shown = [f"{next_tokens.get(r.target, '')} (torch: {next_tokens.get('torch', '')})" for r in results]
        table.add_row("next token", *shown)
    for label, show in ROWS:
        cells = [show(result) for result in results]
        if any(cells):
            table.add_row(label, *cells)
    return table
