"""Compiled inner loops for what moves most: streams through cores, and lookups.

Each does in one pass over memory what whole-array operations do in four: gather what a neighbour sent, add the core's own elements, round,
store. Arrays are [cores, elements], float32 or int32; `bits` arguments are the same memory as uint32. Results equal those of
`arithmetic` bit for bit (tests compare them).
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from ..jit import compiled, elementwise, loaded

_SIGN, _INFINITE, _OVER, _NORMAL = np.uint32(0x80000000), np.uint32(0x7F800000), np.uint32(0x477FF000), np.uint32(0x38800000)
_HALF_ULP, _KEEP, _ONE, _SHIFT = np.uint32(0xFFF), np.uint32(0xFFFFE000), np.uint32(1), np.uint32(13)

_SCALE = np.float32(2.0**112)

_FEW = 1 << 17


def pays(count: int) -> bool:
    """Whether these loops pay for that many elements: until some are loaded, operations on whole arrays do few elements in less time than
    loading takes."""
    return count > _FEW or loaded()


@compiled
def _round_half(values: Any, bits: Any) -> None:
    """Round float32 values to f16, to nearest even, in place."""
    small = False
    for i in range(bits.size):
        m = bits[i] & ~_SIGN
        small |= (m - _ONE) < (_NORMAL - _ONE)
    if not small:
        for i in range(bits.size):
            s = bits[i] & _SIGN
            m = bits[i] ^ s
            r = (m + _HALF_ULP + ((m >> _SHIFT) & _ONE)) & _KEEP
            r = r if m < _OVER else (_INFINITE if m <= _INFINITE else m)
            bits[i] = s | r
        return
    for i in range(bits.size):
        s = bits[i] & _SIGN
        m = bits[i] ^ s
        if m != 0 and m < _NORMAL:
            # below 2**-14 the spacing is 2**-24, that of float32 around 0.75
            v = np.float32(np.float32(abs(values[i]) + np.float32(0.75)) - np.float32(0.75))
            values[i] = -v if s else v
        else:
            r = (m + _HALF_ULP + ((m >> _SHIFT) & _ONE)) & _KEEP
            r = r if m < _OVER else (_INFINITE if m <= _INFINITE else m)
            bits[i] = s | r


@compiled
def round_half(values: Any, bits: Any) -> None:
    """Round a flat float32 array to f16 in place, block by block so that it stays in cache."""
    step = 4096
    for i in range(0, values.size, step):
        _round_half(values[i : i + step], bits[i : i + step])


@compiled
def _from_half(halves: Any, values: Any, bits: Any) -> None:
    """A run of f16 as uint16 to float32."""
    for i in range(halves.size):
        bits[i] = np.uint32(halves[i] & np.uint16(0x7FFF)) << _SHIFT
    for i in range(halves.size):
        # exponents of f16 are 112 less than those of float32; subnormals come out right too
        values[i] = values[i] * _SCALE
    for i in range(halves.size):
        sign = np.uint32(halves[i] & np.uint16(0x8000)) << np.uint32(16)
        bits[i] |= sign | (_INFINITE if halves[i] & np.uint16(0x7C00) == np.uint16(0x7C00) else np.uint32(0))


@compiled
def from_half(source: Any, out: Any, bits: Any) -> None:
    """f16 as uint16 [x, y, run] to float32, block by block so that it stays in cache."""
    step = 4096
    for x in range(source.shape[0]):
        for y in range(source.shape[1]):
            for i in range(0, source.shape[2], step):
                _from_half(source[x, y, i : i + step], out[x, y, i : i + step], bits[x, y, i : i + step])


@compiled
def move(source: Any, source_core: Any, first: int, target: Any, target_core: Any, start: int, count: int) -> None:
    """target[core, start + j] = source[source core, first + j] for every core of a step."""
    for i in range(target_core.size):
        target[target_core[i], start : start + count] = source[source_core[i], first : first + count]


@compiled
def add(
    source: Any, source_core: Any, own: Any, own_core: Any, own_start: int, target: Any, bits: Any, target_core: Any, start: int,
    count: int, half: bool,
) -> None:  # fmt: skip
    """target[core, start + j] = source[source core, j] + own[core, own_start + j], rounded to f16 if `half`."""
    for i in range(target_core.size):
        a, b, c = source_core[i], own_core[i], target_core[i]
        for j in range(count):
            target[c, start + j] = source[a, j] + own[b, own_start + j]
        if half:
            _round_half(target[c, start : start + count], bits[c, start : start + count])


@compiled
def gather(values: Any, first: Any, steps: Any, out: Any) -> None:
    """out[y, x, j] = values[y, x, first[y, x] + steps[j]]."""
    for y in range(out.shape[0]):
        for x in range(out.shape[1]):
            for j in range(steps.size):
                out[y, x, j] = values[y, x, first[y, x] + steps[j]]


@compiled
def scatter(target: Any, first: Any, steps: Any, values: Any) -> None:
    """target[y, x, first[y, x] + steps[j]] = values[y, x, j]."""
    for y in range(values.shape[0]):
        for x in range(values.shape[1]):
            for j in range(steps.size):
                target[y, x, first[y, x] + steps[j]] = values[y, x, j]


@compiled
def sum_lines(values: Any, lines: Any, start: int, out: Any, bits: Any, half: bool) -> None:
    """out[line] = sum of values[core, start:] over the cores of a line, in their order, each sum rounded to f16 if `half`."""
    count = out.shape[1]
    for i in range(lines.shape[0]):
        out[i] = values[lines[i, 0], start : start + count]
        for c in range(1, lines.shape[1]):
            core = lines[i, c]
            for j in range(count):
                out[i, j] = out[i, j] + values[core, start + j]
            if half:
                _round_half(out[i], bits[i])


@compiled
def sum_parts(
    values: Any, source: Any, first: Any, index: Any, low: Any, limit: int, pace: int, steps: Any, lines: Any, out: Any, bits: Any,
    half: bool,
) -> None:  # fmt: skip
    """The same for cores that hold zeros and one part: values [source [n], visits, inner] at first [n] + (index [n, visits] - low [n]) *
    pace + steps [visits, inner], where 0 <= index - low < limit; elements outside of `out` are left out. `lines` give numbers below n, -1
    for a core without a part. Adding zeros changes nothing (lines have two cores at least, so that no sum keeps a negative zero)."""
    count = out.shape[1]
    own, stored = np.zeros(count, values.dtype), np.zeros(count, np.bool_)
    for i in range(lines.shape[0]):
        for c in range(lines.shape[1]):
            core = lines[i, c]
            if core < 0:
                continue
            for adds in (False, True):
                for v in range(steps.shape[0]):
                    place = index[core, v] - low[core]
                    if place < 0 or place >= limit:
                        continue
                    base = first[core] + place * pace
                    for j in range(steps.shape[1]):
                        e = base + steps[v, j]
                        if e < 0 or e >= count:
                            continue
                        if not adds:
                            own[e], stored[e] = values[source[core], v, j], True
                        elif stored[e]:
                            stored[e], before = False, out[i, e]
                            out[i, e] = before + own[e]
                            if half and before != 0:
                                # a part alone is a value of its format
                                _round_half(out[i, e : e + 1], bits[i, e : e + 1])


@compiled
def one_part(place: Any, source: Any, first: Any, index: Any, low: Any, limit: int, pace: int, steps: Any, taken: Any) -> bool:
    """The same cores and parts, `index` [n or 1, visits]: where every element of the sums gets one part at most, its number among all
    elements [stored cores, visits, inner] in `taken` [lines, elements], which is -1 before; False elsewhere."""
    visits, inner = steps.shape
    for i in range(place.shape[0]):
        for c in range(place.shape[1]):
            core = place[i, c]
            if core < 0:
                continue
            for v in range(visits):
                chosen = index[core if index.shape[0] > 1 else 0, v] - low[core]
                if chosen < 0 or chosen >= limit:
                    continue
                for j in range(inner):
                    e = first[core] + chosen * pace + steps[v, j]
                    if e < 0 or e >= taken.shape[1]:
                        continue
                    if taken[i, e] >= 0:
                        return False
                    taken[i, e] = (source[core] * visits + v) * inner + j
    return True


@compiled
def store_indexed(values: Any, target: Any, core: Any, start: Any, offset: Any, found: Any, steps: Any) -> None:
    """STX: target[core, start + offset + step] = value, visit by visit: values [n, visits, inner], offset and found [n, visits],
    steps [visits, inner]."""
    for i in range(core.size):
        for v in range(steps.shape[0]):
            if found[i, v]:
                base = start[i] + offset[i, v]
                for j in range(steps.shape[1]):
                    target[core[i], base + steps[v, j]] = values[i, v, j]


@compiled
def deliver(cores: Any, source: Any, hops: Any, number: int, start: int, first: Any, waiting: Any, last: Any) -> bool:
    """Let what event `number` sends wait at its cores: rows of `waiting` [3, cores] are event (-1: none), source and time, which is that of
    the source (`start`, or where that is negative `first` [cores]) and the hops. False, and nothing is changed, where something waits
    already or where a time is not after `last` [cores]."""
    for i in range(cores.size):
        if waiting[0, cores[i]] >= 0 or (start if start >= 0 else first[source[i]]) + hops[i] <= last[cores[i]]:
            return False
    for i in range(cores.size):
        core, src = cores[i], source[i]
        time = (start if start >= 0 else first[src]) + hops[i]
        waiting[0, core], waiting[1, core], waiting[2, core], last[core] = number, src, time, time
    return True


@compiled
def take(cores: Any, start: int, times: Any, waiting: Any, last: Any, number: Any, source: Any, arrive: Any) -> tuple[int, int]:
    """Take what waits at cores, at `start` or where that is negative at `times`: event, source and time of each. The least and the greatest
    event; (-1, -1) where nothing waits, or where a time is not after `last` [cores]."""
    low, high = waiting[0, cores[0]], waiting[0, cores[0]]
    for i in range(cores.size):
        core = cores[i]
        event = waiting[0, core]
        time = start if start >= 0 else times[i]
        if event < 0 or time <= last[core]:
            return -1, -1
        low, high = min(low, event), max(high, event)
        number[i], source[i], arrive[i], last[core] = event, waiting[1, core], waiting[2, core], time
        waiting[0, core] = -1
    return low, high


@compiled
def lead(parent: Any, length: Any, count: Any, most: int) -> None:
    """Make the parent of everything the root that it leads to (a parent of itself), -1 where it leads nowhere, some part of the circle
    where it leads into one; `length` and `count` (`most` at most) become sums over the way there."""
    todo, on_way = np.empty(parent.size, np.int64), np.zeros(parent.size, np.bool_)
    known = np.zeros(parent.size, np.bool_)
    for first in range(parent.size):
        at, n = first, 0
        while parent[at] >= 0 and parent[at] != at and not known[at] and not on_way[at]:
            on_way[at] = True
            todo[n] = at
            n += 1
            at = parent[at]
        for i in range(n - 1, -1, -1):
            over = parent[todo[i]]
            if not on_way[over]:
                length[todo[i]] += length[over]
                count[todo[i]] = min(count[todo[i]] + count[over], most)
                parent[todo[i]] = parent[over]
            on_way[todo[i]], known[todo[i]] = False, True


@elementwise
def erf(x: float) -> float:
    """erf in float64."""
    return math.erf(x)
