"""How far numbers may be from a reference, by number format: the one place that says so.

`torch` bounds the relative L2 error against torch in fp32, `interpreter` the error against the IR interpreter at the machine's own
precision (where only the order of sums and the machine's function units differ), `resolution` the relative spacing of the format: two
values closer than it are not told apart, so an arg-max between them is a tie.
"""

from __future__ import annotations

from dataclasses import dataclass

from ..errors import BadInput


@dataclass(frozen=True, slots=True)
class Tolerance:
    """Relative L2 bounds and the relative spacing of one format."""

    torch: float
    interpreter: float
    resolution: float


_TABLE: dict[str, Tolerance] = {
    "fp32": Tolerance(1e-4, 1e-4, 2.0**-23),
    "fp16": Tolerance(1e-2, 2e-3, 2.0**-10),
    "bf16": Tolerance(5e-2, 2e-3, 2.0**-7),
    "int8": Tolerance(5e-2, 2e-3, 2.0**-7),
    "q8_0": Tolerance(5e-2, 2e-3, 2.0**-7),
    **{name: Tolerance(2e-1, 2e-3, 2.0**-3) for name in ("int4", "q4_0", "q4_1")},
    "q6_k": Tolerance(5e-2, 2e-3, 2.0**-5),
    "q3_k": Tolerance(2e-1, 2e-3, 2.0**-2),
}


def tolerance_of(precision: str) -> Tolerance:
    """The tolerance of a precision name of the command line. Raises BadInput for an unknown one."""
    if precision not in _TABLE:
        raise BadInput(f"unknown precision {precision!r}: known are {', '.join(sorted(_TABLE))}")
    return _TABLE[precision]
