"""Where units touch the streams: stops x, the order `pos` along travel, and diagonals (docs/tsp-model.md section 1).

A value on a stream keeps its diagonal d = t - x (E) or t + x (W). `pos = 16 sigma x + sub` orders takes and drives along travel
(MT-4). Every function takes scalars or integer arrays. Hemisphere and direction: 0 West, 1 East.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from .description import TspMachine

SUB_DRIVE, SUB_SXM_TAKE, SUB_SXM_DRIVE, SUB_MEM_TAKE, SUB_MXM_TAKE = 0, 1, 2, 9, 1
PITCH = 16


@dataclass(frozen=True)
class Geometry:
    """Stops of one machine. `sr0` is |x| of SR_0, `c2c`, `sxm`, `mxm` are |x| of those stops."""

    sr0: int
    groups: int
    c2c: int
    sxm: int
    mxm: int

    @classmethod
    def of(cls, machine: TspMachine) -> Geometry:
        """The stops that follow from the crossing times (MT-2)."""
        sr0 = machine.vxm_cross // 2
        edge = sr0 + machine.groups
        return cls(sr0, machine.groups, edge + machine.io_cross // 2, edge + machine.io_cross, edge + machine.io_cross + machine.sxm_to_mxm)

    def mem_take_x(self, hemisphere: Any, slice_: Any, direction: Any) -> Any:
        """Stop at which a slice takes a stream of that direction: SR_(g+1) inward, SR_g outward (ME-1)."""
        inward = hemisphere != direction
        return (2 * hemisphere - 1) * (self.sr0 + slice_ // 4 + inward)

    def mem_drive_x(self, hemisphere: Any, slice_: Any, direction: Any) -> Any:
        """Stop at which a slice drives: SR_g inward, SR_(g+1) outward (ME-1)."""
        outward = hemisphere == direction
        return (2 * hemisphere - 1) * (self.sr0 + slice_ // 4 + outward)

    def vxm_x(self, direction: Any) -> Any:
        """Stop of all ALUs for a direction: +2 for E, -2 for W."""
        return (2 * direction - 1) * self.sr0

    def sxm_x(self, hemisphere: Any) -> Any:
        """Stop S."""
        return (2 * hemisphere - 1) * self.sxm

    def mxm_x(self, hemisphere: Any) -> Any:
        """Stop M."""
        return (2 * hemisphere - 1) * self.mxm

    def c2c_x(self, hemisphere: Any) -> Any:
        """Stop of the C2C links."""
        return (2 * hemisphere - 1) * self.c2c

    @staticmethod
    def pos(x: Any, direction: Any, sub: Any) -> Any:
        """Order along travel (MT-4); larger is further downstream."""
        return PITCH * (2 * direction - 1) * x + sub

    @staticmethod
    def diagonal(t: Any, x: Any, direction: Any) -> Any:
        """Diagonal of a value that is at stop x in cycle t (MT-3)."""
        return t - (2 * direction - 1) * x

    def mem_take(self, hemisphere: Any, slice_: Any, direction: Any) -> Any:
        """pos at which a Write, Scatter or Gather takes: the `until` of a claim that ends there."""
        return self.pos(self.mem_take_x(hemisphere, slice_, direction), direction, SUB_MEM_TAKE)

    def mem_drive(self, hemisphere: Any, slice_: Any, direction: Any) -> Any:
        """pos at which a Read or Gather drives."""
        return self.pos(self.mem_drive_x(hemisphere, slice_, direction), direction, SUB_DRIVE)

    def alu_rank(self, alu: Any, direction: Any) -> Any:
        """r': rank along travel, 0 first."""
        rank = alu % 4
        return direction * rank + (1 - direction) * (3 - rank)

    def alu_take(self, alu: Any, direction: Any) -> Any:
        """pos at which an ALU reads an operand."""
        return self.pos(self.vxm_x(direction), direction, 2 * self.alu_rank(alu, direction))

    def alu_drive(self, alu: Any, direction: Any) -> Any:
        """pos at which an ALU writes its result."""
        return self.pos(self.vxm_x(direction), direction, 2 * self.alu_rank(alu, direction) + 1)

    def mxm_take(self, hemisphere: Any) -> Any:
        """pos at which LW and ABC take (outward streams only)."""
        return self.pos(self.mxm_x(hemisphere), hemisphere, SUB_MXM_TAKE)

    def sxm_take(self, hemisphere: Any, direction: Any) -> Any:
        """pos at which an SXM unit takes data or maps."""
        return self.pos(self.sxm_x(hemisphere), direction, SUB_SXM_TAKE)

    def sxm_drive(self, hemisphere: Any, direction: Any) -> Any:
        """pos at which an SXM unit drives."""
        return self.pos(self.sxm_x(hemisphere), direction, SUB_SXM_DRIVE)

    def c2c_take(self, hemisphere: Any, direction: Any) -> Any:
        """pos at which a Send takes."""
        return self.pos(self.c2c_x(hemisphere), direction, SUB_SXM_TAKE)

    def c2c_drive(self, hemisphere: Any, direction: Any) -> Any:
        """pos at which a Receive drives."""
        return self.pos(self.c2c_x(hemisphere), direction, SUB_SXM_DRIVE)
