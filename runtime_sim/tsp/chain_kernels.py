"""The compiled loop of `chains.py`: rows of ALU operations, one after the other, each over all lanes (docs/tsp-model.md VX-6 to VX-8).

Every operation gives the bits that `alu.apply` gives.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ..jit import compiled

ADD, SUB, MUL, NEG, RSQRT, TO_HALF, TO_HALF_CLIPPED, TO_BYTE, TO_BYTE_CLIPPED = range(9)
AND4, OR4, XOR4, TAKE4, DROP4, AND2, OR2, XOR2, TAKE2, DROP2 = range(9, 19)
"""TAKE, DROP: SELECT and MASK_BAR by int8; the digit is the width of the operands in bytes."""
OUTER = 1 << 62
"""An address from here on is that of a claim element, whose place is looked up."""


@compiled
def _gather(data: Any, own: Any, offset: Any, where: Any, step: Any, words: Any) -> None:
    """words[lane] = bytes of as many planes as `where` has, low first; -1 reads as zero."""
    lanes = len(words)
    for p in range(len(where)):
        o, s, shift = where[p], step[p], np.uint32(8 * p)
        if o >= OUTER:
            o = offset[o - OUTER]
        memory = data if o >= 0 else own
        at = o if o >= 0 else -2 - o
        if o == -1:
            if p == 0:
                for lane in range(lanes):
                    words[lane] = 0
        elif s == 1:
            row = memory[at : at + lanes]
            if p:
                for lane in range(lanes):
                    words[lane] |= np.uint32(row[lane]) << shift
            else:
                for lane in range(lanes):
                    words[lane] = row[lane]
        else:
            for lane in range(lanes):
                byte = np.uint32(memory[at + lane * s]) << shift
                words[lane] = words[lane] | byte if p else byte


@compiled
def _line(memory: Any, own: Any, address: int, shift: int, lanes: int) -> Any:
    """The row at an address, of numbers of 2^shift bytes, of which both arrays are."""
    at = address >> shift if address >= 0 else (-2 - address) >> shift
    return memory[at : at + lanes] if address >= 0 else own[at : at + lanes]


@compiled
def _to_half(x: Any, bits: Any, clipped: bool, out: Any) -> None:
    """fp32 `x`, whose memory is `bits`, to fp16: nearest even; beyond 65504 to that value where `clipped`, else to infinity."""
    largest = np.uint32(0x7BFF if clipped else 0x7C00)
    for lane in range(len(out)):
        word = bits[lane]
        sign, size = (word >> np.uint32(16)) & np.uint32(0x8000), word & np.uint32(0x7FFFFFFF)
        normal = (size - np.uint32(0x38000000) + np.uint32(0xFFF) + ((size >> np.uint32(13)) & np.uint32(1))) >> np.uint32(13)
        tiny = abs(x[lane]) * np.float32(16777216.0) + np.float32(8388608.0) - np.float32(8388608.0)
        fraction = (size & np.uint32(0x7FFFFF)) >> np.uint32(13)
        special = np.uint32(0x7C00) | (fraction if fraction else np.uint32(1))
        value = np.uint32(tiny) if size < 0x38800000 else normal
        value = largest if size > 0x477FEFFF else value
        value = largest if clipped and size > 0x477FE000 else value
        value = special if size > 0x7F800000 else value
        out[lane] = sign | value


@compiled
def _narrow(words: Any, out: Any) -> Any:
    for lane in range(len(out)):
        out[lane] = words[lane]
    return out


@compiled
def _to_byte(word: Any, clipped: bool, out: Any) -> None:
    """int32 to int8, saturated where `clipped`, else its low byte."""
    if clipped:
        for lane in range(len(out)):
            value = np.int32(word[lane])
            value = np.int32(127) if value > 127 else value
            out[lane] = np.int32(-128) if value < -128 else value
    else:
        for lane in range(len(out)):
            out[lane] = word[lane] & np.uint32(255)


@compiled
def _float_row(k: int, x: Any, y: Any, out: Any) -> None:
    if k == ADD:
        for lane in range(len(out)):
            out[lane] = x[lane] + y[lane]
    elif k == SUB:
        for lane in range(len(out)):
            out[lane] = x[lane] - y[lane]
    elif k == MUL:
        for lane in range(len(out)):
            out[lane] = x[lane] * y[lane]
    else:
        for lane in range(len(out)):
            root = np.sqrt(np.float64(x[lane]))
            out[lane] = 1.0 / root if root != 0.0 else np.copysign(np.inf, root)


@compiled
def _bit_row(k: int, x: Any, y: Any, out: Any) -> None:
    """0: and, 1: or, 2: exclusive or."""
    if k == 0:
        for lane in range(len(out)):
            out[lane] = x[lane] & y[lane]
    elif k == 1:
        for lane in range(len(out)):
            out[lane] = x[lane] | y[lane]
    else:
        for lane in range(len(out)):
            out[lane] = x[lane] ^ y[lane]


@compiled
def _mask_row(taken: bool, x: Any, mask: Any, out: Any) -> None:
    if taken:
        for lane in range(len(out)):
            out[lane] = x[lane] if mask[lane] else 0
    else:
        for lane in range(len(out)):
            out[lane] = 0 if mask[lane] else x[lane]


@compiled
def rows(
    data: Any, halves: Any, words: Any, floats: Any, offset: Any, kind: Any, target: Any, where: Any, step: Any, whole: Any, low: int,
    high: int, slots: int, lanes: int,
) -> None:  # fmt: skip
    """Operations low <= r < high of a chain, in order.

    `kind` says what; the result lies from address target[r] on. Plane p of operand a is the byte (where[r, p], step[r, p]), of operand b
    (where[r, 4 + p], ...); whole[r, 0], whole[r, 1]: its planes lie interleaved from where[r, 0], where[r, 4] on. `halves`, `words` and
    `floats` are the memory of `data` as wider numbers. Addresses below -1 are bytes -2 - address of `slots` rows that this call keeps for
    itself; address OUTER + e is offset[e].
    """
    own_words, a_words, b_words = np.empty(slots * lanes, np.uint32), np.empty(lanes, np.uint32), np.empty(lanes, np.uint32)
    own, own_halves, own_floats = own_words.view(np.uint8), own_words.view(np.uint16), own_words.view(np.float32)
    a_floats, b_floats = a_words.view(np.float32), b_words.view(np.float32)
    a_halves, b_halves = np.empty(lanes, np.uint16), np.empty(lanes, np.uint16)
    for r in range(low, high):
        k, at, a, b = kind[r], target[r], where[r, 0], where[r, 4]
        if not whole[r, 0]:
            _gather(data, own, offset, where[r, : 2 if k >= AND2 else 4], step[r, :4], a_words)
        if not whole[r, 1] and (k <= MUL or k >= AND4):
            width = 1 if k in (TAKE4, DROP4) or k >= TAKE2 else 2 if k >= AND2 else 4
            _gather(data, own, offset, where[r, 4 : 4 + width], step[r, 4:], b_words)
        if k <= MUL or k == RSQRT:
            x = _line(floats, own_floats, a, 2, lanes) if whole[r, 0] else a_floats
            y = _line(floats, own_floats, b, 2, lanes) if whole[r, 1] and k <= MUL else b_floats
            _float_row(k, x, y, _line(floats, own_floats, at, 2, lanes))
            continue
        if k >= AND2:
            x2 = _line(halves, own_halves, a, 1, lanes) if whole[r, 0] else _narrow(a_words, a_halves)
            if k >= TAKE2:
                _mask_row(k == TAKE2, x2, b_words, _line(halves, own_halves, at, 1, lanes))
                continue
            y2 = _line(halves, own_halves, b, 1, lanes) if whole[r, 1] else _narrow(b_words, b_halves)
            _bit_row(k - AND2, x2, y2, _line(halves, own_halves, at, 1, lanes))
            continue
        x4 = _line(words, own_words, a, 2, lanes) if whole[r, 0] else a_words
        if k in (TO_HALF, TO_HALF_CLIPPED):
            x = _line(floats, own_floats, a, 2, lanes) if whole[r, 0] else a_floats
            _to_half(x, x4, k == TO_HALF_CLIPPED, _line(halves, own_halves, at, 1, lanes))
        elif k in (TO_BYTE, TO_BYTE_CLIPPED):
            _to_byte(x4, k == TO_BYTE_CLIPPED, _line(data, own, at, 0, lanes))
        elif k == NEG:
            to = _line(words, own_words, at, 2, lanes)
            for lane in range(lanes):
                to[lane] = x4[lane] ^ np.uint32(0x80000000)
        elif k in (TAKE4, DROP4):
            _mask_row(k == TAKE4, x4, b_words, _line(words, own_words, at, 2, lanes))
        else:
            y4 = _line(words, own_words, b, 2, lanes) if whole[r, 1] else b_words
            _bit_row(k - AND4, x4, y4, _line(words, own_words, at, 2, lanes))


@compiled
def slots(source: Any, last: Any, inner: Any, shares: Any, slot: Any) -> int:
    """slot[r] = number of the row that holds the result of each operation r with inner[r] until its last use, -1 of others; each share
    (from, to) counts from 0. source[r, :]: operations that r takes (-1: none), last[r]: the last one that takes r.

    Returns the most rows of a share.
    """
    most = 0
    free = np.empty(len(source) + 1, np.int64)
    for share in range(len(shares)):
        known, count = 0, 0
        for r in range(shares[share, 0], shares[share, 1]):
            slot[r] = -1
            if inner[r]:
                if count:
                    count -= 1
                    slot[r] = free[count]
                else:
                    slot[r] = known
                    known += 1
            for p in range(source.shape[1]):
                g = source[r, p]
                if g >= 0 and last[g] == r and inner[g]:
                    last[g] = -1
                    free[count] = slot[g]
                    count += 1
            if inner[r] and last[r] < 0:
                free[count] = slot[r]
                count += 1
        most = max(most, known)
    return most


@compiled
def components(source: Any, parent: Any) -> None:
    """Joins the sets of operations (`parent`, each alone on entry) that take results of each other: source[r, :] are those that r takes
    (-1: none). Afterwards parent[r] is the first operation of its set."""
    for r in range(len(source)):
        for p in range(source.shape[1]):
            if source[r, p] >= 0:
                x, y = r, source[r, p]
                while parent[x] != x:
                    parent[x] = parent[parent[x]]
                    x = parent[x]
                while parent[y] != y:
                    parent[y] = parent[parent[y]]
                    y = parent[y]
                if x < y:
                    parent[y] = x
                else:
                    parent[x] = y
    for r in range(len(parent)):
        x = r
        while parent[x] != x:
            x = parent[x]
        parent[r] = x
