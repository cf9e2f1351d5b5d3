"""Elements that an operand walks: start per core and repetition, and the nest relative to it."""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from ...machines.wafer.isa import WORDS, Semantics
from .fields import phases
from .model import BurstView, Ints, OperandView, SegmentView


def start(burst: BurstView, operand: OperandView, k: int, outer: int, seg: SegmentView) -> Ints:
    """First element of a memory operand in repetition (k, outer): int64, 0-dimensional where all cores agree, else [rows, columns]."""
    target = seg.objects[operand.obj]
    if operand.step == (0, 0):
        return np.array(operand.addr // WORDS[target.fmt])
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


def footprint(burst: BurstView, name: str) -> Ints:
    """Elements that operand `name` touches relative to its start, ascending, lookups included (for these: everything they may reach)."""
    operand = burst.operand(name)
    meaning = burst.op.meaning
    if (meaning is Semantics.LOAD_INDEXED and name == "a") or (meaning is Semantics.STORE_INDEXED and name == "d"):
        return _footprint((burst.look[1], *burst.ext), (burst.look[2], *operand.stride))
    return _footprint(burst.ext, operand.stride)


@lru_cache(maxsize=4096)
def _footprint(ext: tuple[int, ...], stride: tuple[int, ...]) -> Ints:
    moving = [(n, s) for n, s in zip(ext, stride, strict=True) if n > 1 and s]
    elements = nest(tuple(n for n, _ in moving), tuple(s for _, s in moving))
    return elements if (elements[1:] > elements[:-1]).all() else np.unique(elements)


def reads(burst: BurstView) -> tuple[str, ...]:
    """Memory operands that a burst reads; an accumulator and the target of a masked move are read as well as written."""
    return burst.read_names


def writes(burst: BurstView) -> tuple[str, ...]:
    """Memory operands that a burst writes."""
    return burst.write_names


def one_to_one(burst: BurstView, operand: OperandView) -> bool:
    """Whether the walk touches every element once."""
    if all(s != 0 or n == 1 for n, s in zip(burst.ext, operand.stride, strict=True)):
        elements = nest(burst.ext, operand.stride)
        return len(np.unique(elements)) == len(elements)
    return False
