"""Elements that an operand walks: start per core and repetition, and the nest relative to it."""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from ...machines.wafer import tables as tb
from ...machines.wafer.isa import WORDS, Semantics
from .fields import phases
from .model import BurstView, Ints, OperandView, SegmentView


def start(burst: BurstView, operand: OperandView, k: int, outer: int, seg: SegmentView) -> Ints:
    """First element of a memory operand in repetition (k, outer): int64, 0-dimensional where all cores agree, else [rows, columns]."""
    target = seg.objects[operand.obj]
    inner = phases(burst, operand, seg) + k
    if operand.wrap[0]:
        inner = inner % operand.wrap[0]
    around = outer % operand.wrap[1] if operand.wrap[1] else outer
    out = operand.addr // WORDS[target.fmt] + operand.step[0] * inner + operand.step[1] * around
    out = np.asarray(out, np.int64)
    return out.reshape(()) if out.size and (out == out.flat[0]).all() and out.ndim == 0 else out


@lru_cache(maxsize=4096)
def nest(ext: tuple[int, ...], stride: tuple[int, ...]) -> Ints:
    """int64 [n3*n2*n1*n0]: elements of a nest in the order in which they are walked, relative to its start."""
    out = np.zeros((), np.int64)
    for n, s in zip(ext, stride, strict=True):
        out = out[..., None] + np.arange(n, dtype=np.int64) * s
    return out.reshape(-1)


def walk(burst: BurstView, name: str) -> Ints:
    """Elements that operand `name` touches relative to its start, lookups included (for these: everything they may reach)."""
    operand = burst.operand(name)
    elements = nest(burst.ext, operand.stride)
    meaning = burst.op.meaning
    if (meaning is Semantics.LOAD_INDEXED and name == "a") or (meaning is Semantics.STORE_INDEXED and name == "d"):
        return (elements[None, :] + np.arange(burst.look[1], dtype=np.int64)[:, None] * burst.look[2]).reshape(-1)
    return elements


def reads(burst: BurstView) -> list[str]:
    """Memory operands that a burst reads; an accumulator and the target of a masked move are read as well as written."""
    names = [p for p in "abs" if burst.operand(p).kind is tb.OperandKind.MEM]
    masked = burst.op.meaning is Semantics.SELECT and burst.s.kind is tb.OperandKind.NONE
    if burst.op.meaning is Semantics.MULTIPLY_ADD or masked:
        names.append("d")
    return names


def writes(burst: BurstView) -> list[str]:
    """Memory operands that a burst writes."""
    return ["d"] if burst.d.kind is tb.OperandKind.MEM else []


def one_to_one(burst: BurstView, operand: OperandView) -> bool:
    """Whether the walk touches every element once."""
    if all(s != 0 or n == 1 for n, s in zip(burst.ext, operand.stride, strict=True)):
        elements = nest(burst.ext, operand.stride)
        return len(np.unique(elements)) == len(elements)
    return False
