"""Lengths of phases, DMAs and host tasks in array cycles: model section 2 and 8 as closed formulas."""

from __future__ import annotations

from collections.abc import Iterable
from fractions import Fraction
from math import ceil

from .description import CglaMachine

LINE = 32


def exec_cycles(iterations: int, rows: Iterable[tuple[int, bool]]) -> int:
    """EXEC of a launch (2.4): `rows` lists (row, folded) of every configured row."""
    return 4 * iterations + max(8 * (row + 1) + 8 * int(fold) for row, fold in rows)


def beats(address: int, length: int) -> int:
    """32-byte lines touched by `length` bytes at `address` (2.7)."""
    return (address + length - 1) // LINE - address // LINE + 1


def dma_cycles(machine: CglaMachine, address: int, length: int, interval: Fraction) -> int:
    """Length of a DMA request (2.8): set-up and beats at `interval` cycles each."""
    return machine.t_dma + ceil(beats(address, length) * interval)


def port_interval(memory_ops: int) -> Fraction | None:
    """Cycles a beat that a row with `memory_ops` busy slots on the port leaves during EXEC (2.8); None where no cycle is left."""
    return Fraction(4, 4 - memory_ops) if memory_ops < 4 else None


def conf_cycles(machine: CglaMachine, changed_slots: int) -> int:
    """CONF (2.11): two stores a slot whose 32-byte word changes."""
    return 2 * machine.t_store * changed_slots


def store_cycles(machine: CglaMachine, changed: int) -> int:
    """REGV and RANGE (2.11): one store a changed constant, register pair or descriptor."""
    return machine.t_store * changed


def host_cycles(machine: CglaMachine, data_bytes: int, flops: int, special: int) -> int:
    """One host task on one core (section 8)."""
    return (
        ceil(data_bytes / machine.host_memcpy_bytes_per_cycle)
        + ceil(flops / machine.host_flops_per_cycle)
        + ceil(special / machine.host_special_per_cycle)
        + machine.host_call_cycles
    )
