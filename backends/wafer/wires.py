"""Defective wafers: which physical core each logical core is, and how long the wires between neighbours are (G4 to G6).

Logical row y is physical row `rho(y)`, logical column x of it physical column `phi(y, x)`; both only increase and meet live cores only.
A wire costs a cycle for every position that it bypasses, so maps of neighbouring rows should agree: all rows follow one common line
that skips columns where cores die most often, and a row leaves the line only where it must. A program that fits between the defects
pays nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil

import numpy as np
from numpy.typing import NDArray

from ...errors import Infeasible
from ...machines.wafer.description import WaferMachine

Ints = NDArray[np.int64]
_SPARES = (0.5, 0.75, 1.0, 1.25, 1.5, 2.0, 3.0, 4.0, 6.0)
"""Columns that the common line skips, as multiples of the most dead cores in a row."""


@dataclass(frozen=True)
class Wires:
    """What bypasses add to the lines of a rectangle: cycles from index 0 to each core (`away`) and back (`towards`) beyond one a hop,
    [rows, cols], by mesh axis."""

    away: tuple[Ints, Ints]
    towards: tuple[Ints, Ints]

    def key(self) -> bytes:
        """Equal for rectangles whose wires are equal."""
        return b"".join(a.tobytes() for a in (*self.away, *self.towards))

    @property
    def straight(self) -> bool:
        """Whether nothing is bypassed."""
        return not any(a.any() for a in (*self.away, *self.towards))


@dataclass(frozen=True)
class PhysicalMap:
    """`rho` [rows] and `phi` [rows, cols]: physical row and column, in the fabric, of every logical core; and the length of its wires to
    the east, west, north and south in cycles, [rows, cols], 0 where there is no neighbour."""

    rho: Ints
    phi: Ints
    east: Ints
    west: Ints
    north: Ints
    south: Ints

    def wires(self, x: int, cols: int) -> Wires:
        """The lines of the rectangle of all rows and `cols` columns from column x on."""
        rows = len(self.rho)
        here = slice(x, x + cols)

        def beyond(lengths: Ints, axis: int) -> Ints:
            return np.cumsum(lengths, axis=axis) - np.arange(lengths.shape[axis]).reshape((-1, 1) if axis == 0 else (1, -1))

        zero_row, zero_col = np.zeros((1, cols), np.int64), np.zeros((rows, 1), np.int64)
        south, north = np.vstack([zero_row, self.south[:-1, here]]), np.vstack([zero_row, self.north[1:, here]])
        east = np.hstack([zero_col, self.east[:, x : x + cols - 1]])
        west = np.hstack([zero_col, self.west[:, x + 1 : x + cols]])
        return Wires((beyond(south, 0), beyond(east, 1)), (beyond(north, 0), beyond(west, 1)))


def most_columns(machine: WaferMachine, rows: int) -> int:
    """Logical columns of the widest program of so many rows."""
    live = np.sort(machine.program_cols - dead_cores(machine).sum(axis=1))[::-1]
    return int(live[rows - 1])


def dead_cores(machine: WaferMachine) -> NDArray[np.bool_]:
    """Which cores of the program rectangle are dead, [rows, cols]."""
    dead = np.zeros((machine.program_rows, machine.program_cols), bool)
    for px, py in machine.defects.cores:
        x, y = px - machine.program_x, py - machine.program_y
        if 0 <= x < machine.program_cols and 0 <= y < machine.program_rows:
            dead[y, x] = True
    return dead


def physical_map(machine: WaferMachine, rows: int, cols: int) -> PhysicalMap:
    """A map for a program of this size. Raises Infeasible where too many cores of a row are dead."""
    dead = dead_cores(machine)
    usable = np.flatnonzero(machine.program_cols - dead.sum(axis=1) >= cols)
    if len(usable) < rows:
        bound = most_columns(machine, rows)
        where = f"the {rows} rows with the fewest dead cores"
        raise Infeasible("live cores in a row", cols, bound, "cores", where, ("a narrower region", "fewer rows", "fewer dead cores"))
    rho, first = _window(dead, usable, rows, cols)
    most, room = int(dead[rho].sum(axis=1).max()), machine.program_cols - cols
    spares = [n for n in dict.fromkeys([0, *(ceil(most * f) for f in _SPARES)]) if n <= room]
    lines = dict.fromkeys((start, spare) for spare in spares for start in (min(first, room - spare), 0))  # (0, 0) always fits
    found = [phi for start, spare in lines if (phi := _columns(dead[rho], start, cols, spare)) is not None]
    phi = min(found, key=lambda phi: _price(rho, phi))
    return _with_wires(machine, rho + machine.program_y, phi + machine.program_x)


def _window(dead: NDArray[np.bool_], usable: Ints, rows: int, cols: int) -> tuple[Ints, int]:
    """The rows, as close together as they come, and the first column of the window in them that has the fewest dead cores."""
    reach = usable[rows - 1 :] - usable[: len(usable) - rows + 1]
    sums = np.zeros((len(usable) + 1, dead.shape[1] + 1), np.int64)
    sums[1:, 1:] = dead[usable].cumsum(axis=0).cumsum(axis=1)
    inside = sums[rows:, cols:] - sums[rows:, :-cols] - sums[:-rows, cols:] + sums[:-rows, :-cols]
    inside[reach > reach.min()] = dead.size
    start, first = divmod(int(inside.argmin()), inside.shape[1])
    return usable[start : start + rows], first


def _columns(dead: NDArray[np.bool_], start: int, cols: int, spare: int) -> Ints | None:
    """phi relative to the program rectangle with `spare` columns skipped by the common line; None where a row runs out of columns."""
    width = dead.shape[1]
    often = dead[:, start : start + cols + spare].sum(axis=0).cumsum()
    total = int(often[-1])
    marks = (np.arange(spare) * 2 + 1) * total
    skips = np.unique(np.searchsorted(2 * spare * often, marks)) if spare and total else np.zeros(0, np.int64)
    line = np.setdiff1d(np.arange(cols + spare), skips)[:cols] + start
    phi = np.zeros((len(dead), cols), np.int64)
    last = np.full(len(dead), -1, np.int64)
    ahead = np.hstack([dead, np.zeros((len(dead), 1), bool)])
    rows = np.arange(len(dead))
    for x in range(cols):
        last = np.maximum(line[x], last + 1)
        while True:
            blocked = ahead[rows, np.minimum(last, width)]
            if not blocked.any():
                break
            last = last + blocked
        if int(last.max()) >= width:
            return None
        phi[:, x] = last
    return phi


def _price(rho: Ints, phi: Ints) -> float:
    """The longest row and the longest column, each in cycles a hop."""
    across: float = int((phi[:, -1] - phi[:, 0]).max()) / max(1, phi.shape[1] - 1)
    if len(rho) == 1:
        return across
    down = np.diff(rho)[:, None] + np.abs(np.diff(phi, axis=0))
    total: float = across + int(down.sum(axis=0).max()) / (len(rho) - 1)
    return total


def _with_wires(machine: WaferMachine, rho: Ints, phi: Ints) -> PhysicalMap:
    """The lengths of G5: a cycle for each position passed, two more where the direct link is dead."""
    east, west, north, south = (np.zeros(phi.shape, np.int64) for _ in range(4))
    east[:, :-1] = west[:, 1:] = np.diff(phi, axis=1)
    south[:-1] = north[1:] = np.diff(rho)[:, None] + np.abs(np.diff(phi, axis=0))
    for px, py, port in machine.defects.links:
        if port in "EW":
            low = px if port == "E" else px - 1
            for y in np.flatnonzero(rho == py).tolist():
                x = int(np.searchsorted(phi[y], low, "right")) - 1
                if 0 <= x < phi.shape[1] - 1:
                    east[y, x] += 2 if port == "E" else 0
                    west[y, x + 1] += 2 if port == "W" else 0
        else:
            low = py if port == "S" else py - 1
            y = int(np.searchsorted(rho, low, "right")) - 1
            if 0 <= y < len(rho) - 1:
                at = phi[y] == px
                south[y, at] += 2 if port == "S" else 0
                north[y + 1, at] += 2 if port == "N" else 0
    return PhysicalMap(rho, phi, east, west, north, south)
