"""Defective wafers: the map from logical to physical cores and the hop lengths that follow (G4 to G6, W04)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ...machines.program import Program
from ...machines.wafer import tables as tb
from ...machines.wafer.description import WaferMachine
from .breaches import Breaches
from .flows import E, Hops, N, S, W
from .model import Ints


@dataclass(frozen=True)
class PhysicalMap:
    """`rho` int64 [rows] and `phi` int64 [rows, cols]: physical row and column, in the fabric, of each logical core."""

    machine: WaferMachine
    rho: Ints
    phi: Ints

    def hops(self, x: int, y: int, w: int, h: int) -> Hops:
        """Link lengths of a frame at (x, y) of the program rectangle (G5)."""
        rho, phi = self.rho[y : y + h], self.phi[y : y + h, x : x + w]
        length = np.ones((4, h, w), np.int64)
        length[E, :, :-1] = length[W, :, 1:] = phi[:, 1:] - phi[:, :-1]
        vertical = (rho[1:] - rho[:-1])[:, None] + np.abs(phi[1:] - phi[:-1])
        length[S, :-1], length[N, 1:] = vertical, vertical
        for px, py, port in self.machine.defects.links:
            self._lengthen(length, rho, phi, px, py, {"E": E, "W": W, "N": N, "S": S}[port])
        return Hops(length.reshape(4, -1))

    @staticmethod
    def _lengthen(length: Ints, rho: Ints, phi: Ints, px: int, py: int, port: int) -> None:
        """+2 on the logical link whose straight path uses a dead physical link."""
        if port in (E, W):
            row = np.flatnonzero(rho == py)
            for y in row.tolist():
                # the physical step between columns lo and lo + 1
                lo = px if port == E else px - 1
                x = int(np.searchsorted(phi[y], lo, "right")) - 1
                if 0 <= x < phi.shape[1] - 1 and phi[y, x] <= lo < phi[y, x + 1]:
                    length[port, y, x if port == E else x + 1] += 2
            return
        lo = py if port == S else py - 1
        y = int(np.searchsorted(rho, lo, "right")) - 1
        if 0 <= y < len(rho) - 1 and rho[y] <= lo < rho[y + 1]:
            for x in np.flatnonzero(phi[y] == px).tolist():
                length[port, y if port == S else y + 1, x] += 2


def read_map(program: Program, machine: WaferMachine, out: Breaches) -> PhysicalMap | None:
    """The map of a program, None where logical and physical cores are the same and nothing is dead. W04 where it is not a legal one."""
    rho, phi = program.images.get(tb.RHO), program.images.get(tb.PHI)
    dead = machine.defects.cores
    if rho is None and phi is None and not dead and not machine.defects.links:
        return None
    rows, cols = machine.program_rows, machine.program_cols
    if rho is None and phi is None:
        rho = np.arange(rows) + machine.program_y
        phi = np.broadcast_to(np.arange(cols) + machine.program_x, (rows, cols))
    fits = rho is not None and phi is not None and rho.ndim == 1 and phi.ndim == 2 and phi.shape[0] == len(rho)
    if not fits or rho is None or phi is None or len(rho) > rows or phi.shape[1] > cols or rho.dtype.kind != "i" or phi.dtype.kind != "i":
        out.add("W04", "physical map", "rho [rows] and phi [rows, cols] must be integers and fit the program rectangle", fatal=True)
        return None
    found = PhysicalMap(machine, rho.astype(np.int64), phi.astype(np.int64))
    _check(found, out)
    return found


def _check(found: PhysicalMap, out: Breaches) -> None:
    machine, rho, phi = found.machine, found.rho, found.phi
    if (np.diff(rho) < 1).any() or (np.diff(phi, axis=1) < 1).any():
        out.add("W04", "physical map", "rho or a row of phi is not strictly increasing", fatal=True)
    inside_y = (rho >= machine.program_y) & (rho < machine.program_y + machine.program_rows)
    inside_x = (phi >= machine.program_x) & (phi < machine.program_x + machine.program_cols)
    if not inside_y.all() or not inside_x.all():
        out.add("W04", "physical map", "rho or phi leaves the program rectangle", fatal=True)


def check_dead(found: PhysicalMap, rectangles: list[tuple[int, int, int, int]], out: Breaches) -> None:
    """W04: no core of a region is dead, and the map covers every region."""
    for x, y, w, h in rectangles:
        if y + h > len(found.rho) or x + w > found.phi.shape[1]:
            out.add("W04", f"region at ({x}, {y})", "lies outside the physical map", fatal=True)
            continue
        rho, phi = found.rho[y : y + h], found.phi[y : y + h, x : x + w]
        for px, py in found.machine.defects.cores:
            row = np.flatnonzero(rho == py)
            if len(row) and (phi[row[0]] == px).any():
                column = int(np.flatnonzero(phi[row[0]] == px)[0])
                out.add("W04", f"core ({x + column}, {y + int(row[0])})", f"is the dead physical core ({px}, {py})")
