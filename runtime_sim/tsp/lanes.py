"""The compiled inner loops of the numbers: bytes fetched lane by lane, and what passes of the planes multiply.

A byte of a vector is an (offset, step) pair: lane l is `arena[offset + l step]`; offset -1 reads as zero.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ..jit import Values, compiled

FEW = 4
"""Nonzero lanes up to which a vector adds columns of a tile; vectors up to which a pass is multiplied out."""
_ROWS, _LINES = 64, 16
"""Vectors of a pass that are taken together, and rows of a tile that they visit at a time: both stay in the cache."""
_LOOK = 32
"""Lanes that are looked at together for one that is not zero."""


@compiled
def _fetch(arena: Any, offset: Any, step: Any, out: Any, out2: Any, out4: Any) -> None:
    """out[m, lanes * w] = operands of w byte planes: plane p of element m, lane l, is arena[offset[p, m] + l step[p, m]].

    `out2`, `out4` are the memory of `out` as unsigned integers of 2 and 4 bytes.
    """
    w, count = offset.shape
    lanes = out.shape[1] // w
    for m in range(count):
        base = offset[0, m]
        whole = base >= 0 and step[0, m] == w
        apart = base >= 0 and step[0, m] == 1
        for p in range(1, w):
            whole = whole and offset[p, m] == base + p and step[p, m] == w
            apart = apart and offset[p, m] >= 0 and step[p, m] == 1
        if whole:
            row = arena[base : base + lanes * w]
            for byte in range(lanes * w):
                out[m, byte] = row[byte]
        elif apart and w == 2:
            low, high = arena[base : base + lanes], arena[offset[1, m] : offset[1, m] + lanes]
            for lane in range(lanes):
                out2[m, lane] = np.uint32(low[lane]) | np.uint32(high[lane]) << np.uint32(8)
        elif apart and w == 4:
            low, high = arena[base : base + lanes], arena[offset[1, m] : offset[1, m] + lanes]
            third, top = arena[offset[2, m] : offset[2, m] + lanes], arena[offset[3, m] : offset[3, m] + lanes]
            for lane in range(lanes):
                lower = np.uint32(low[lane]) | np.uint32(high[lane]) << np.uint32(8)
                out4[m, lane] = lower | np.uint32(third[lane]) << np.uint32(16) | np.uint32(top[lane]) << np.uint32(24)
        else:
            for p in range(w):
                o, s = offset[p, m], step[p, m]
                if o < 0:
                    for lane in range(lanes):
                        out[m, lane * w + p] = 0
                else:
                    row = arena[o : o + (lanes - 1) * s + 1]
                    for lane in range(lanes):
                        out[m, lane * w + p] = row[lane * s]


def fetch(arena: Values, lanes: int, offset: Values, step: Values) -> Values:
    """Operands [elements, lanes * w] of w byte planes, lane by lane, from their pointers [w, elements]."""
    width, count = offset.shape
    out = np.empty((count, lanes * width), np.uint8)
    _fetch(arena, np.ascontiguousarray(offset), np.ascontiguousarray(step), out, out.view(np.uint16), out.view(np.uint32))
    return out


@compiled
def rows_of(arena: Any, offset: Any, out: Any) -> None:
    """out[m, :] = the bytes from arena[offset[m]] on; zero where the offset is -1."""
    width = out.shape[1]
    for m in range(len(offset)):
        if offset[m] < 0:
            for byte in range(width):
                out[m, byte] = 0
            continue
        row = arena[offset[m] : offset[m] + width]
        for byte in range(width):
            out[m, byte] = row[byte]


@compiled
def move(arena: Any, lanes: int, offset: Any, step: Any, target: Any) -> None:
    """The rows from arena[target[m]] on := bytes (offset[m], step[m])."""
    for m in range(len(offset)):
        o, s, row = offset[m], step[m], arena[target[m] : target[m] + lanes]
        if s == 1:
            line = arena[o : o + lanes]
            for lane in range(lanes):
                row[lane] = line[lane]
        else:
            for lane in range(lanes):
                row[lane] = arena[o + lane * s]


@compiled
def selection(arena: Any, offset: Any, step: Any, lane: Any, factor: Any, runs: Any) -> int:
    """Whether every int8 row n of a tile has at most one nonzero lane; then lane[n] (-1: none) and factor[n] say which and its value.

    Returns how many runs (first row, rows, first lane, factor) of rows that take neighbouring lanes are written to `runs`; -1 where there
    are too many, -2 where a row has more than one nonzero lane.
    """
    lanes = len(lane)
    for n in range(lanes):
        lane[n], factor[n] = -1, 0
        if offset[n] < 0:
            continue
        used, place = 0, 0
        if step[n] == 1:
            row = arena[offset[n] : offset[n] + lanes]
            for j in range(lanes):
                used += row[j] != 0
        else:
            for j in range(lanes):
                used += arena[offset[n] + j * step[n]] != 0
        if used > 1:
            return -2
        if used:
            while arena[offset[n] + place * step[n]] == 0:
                place += 1
            lane[n], factor[n] = place, arena[offset[n] + place * step[n]]
    found = 0
    for n in range(lanes):
        if lane[n] < 0:
            continue
        if n and lane[n - 1] >= 0 and lane[n] == lane[n - 1] + 1 and factor[n] == factor[n - 1]:
            runs[found - 1, 1] += 1
            continue
        if found == len(runs):
            return -1
        runs[found, 0], runs[found, 1], runs[found, 2], runs[found, 3] = n, 1, lane[n], factor[n]
        found += 1
    return found


@compiled
def _select(arena: Any, o: Any, s: Any, lane: Any, factor: Any, runs: Any, count: Any, out: Any) -> None:
    """out[n] += lane[n] of a vector times factor[n], run by run where there are few."""
    if count < 0:
        for n in range(len(out)):
            if lane[n] >= 0:
                out[n] += np.int32(arena[o + lane[n] * s]) * factor[n]
        return
    for r in range(count):
        n, size, first, value = runs[r, 0], runs[r, 1], o + runs[r, 2] * s, np.int32(runs[r, 3])
        line = out[n : n + size]
        if s == 1:
            row = arena[first : first + size]
            for j in range(size):
                line[j] += np.int32(row[j]) * value
        else:
            for j in range(size):
                line[j] += np.int32(arena[first + j * s]) * value


@compiled
def _multiply(arena: Any, o: Any, s: Any, offset: Any, step: Any, tile: Any, out: Any) -> None:
    """out[n] += sum over lanes of a vector times the row of a tile that claim element tile[n] is."""
    lanes = len(out)
    for n in range(lanes):
        a, b = offset[tile[n]], step[tile[n]]
        total = np.int32(0)
        if a >= 0 and b == 1 and s == 1:
            x, row = arena[o : o + lanes], arena[a : a + lanes]
            for j in range(lanes):
                total += np.int32(x[j]) * np.int32(row[j])
        elif a >= 0:
            for j in range(lanes):
                total += np.int32(arena[o + j * s]) * np.int32(arena[a + j * b])
        out[n] += total


@compiled
def _nonzero(arena: Any, o: Any, s: Any, lanes: Any, at: Any) -> int:
    """How many lanes of a vector are not zero, and in `at` which; more than `at` holds where there are more."""
    used = 0
    for low in range(0, lanes, _LOOK):
        high, some = min(low + _LOOK, lanes), 0
        if s == 1:
            row = arena[o + low : o + high]
            for j in range(len(row)):
                some |= row[j]
        else:
            for j in range(low, high):
                some |= arena[o + j * s]
        if some:
            for j in range(low, high):
                if arena[o + j * s] != 0:
                    if used == len(at):
                        return used + 1
                    at[used] = j
                    used += 1
    return used


@compiled
def _columns(arena: Any, offset: Any, step: Any, tile: Any, row: Any, column: Any, value: Any, found: int, out: Any) -> None:
    """out[row[k], n] += value[k] times lane column[k] of the row of a tile that claim element tile[n] is."""
    first, pitch = np.empty(_LINES, np.int64), np.empty(_LINES, np.int64)
    for n in range(0, len(tile), _LINES):
        size = min(_LINES, len(tile) - n)
        whole = True
        for i in range(size):
            first[i], pitch[i] = offset[tile[n + i]], step[tile[n + i]]
            whole = whole and first[i] >= 0 and pitch[i] == 1
        for k in range(found):
            line, x = out[row[k], n : n + size], value[k]
            if whole:
                j = np.uint64(column[k])
                for i in range(size):
                    line[i] += np.int32(arena[np.uint64(first[i]) + j]) * x
            else:
                for i in range(size):
                    if first[i] >= 0:
                        line[i] += np.int32(arena[first[i] + column[k] * pitch[i]]) * x


@compiled
def byte_passes(
    arena: Any, offset: Any, step: Any, picks: Any, lane: Any, factor: Any, runs: Any, counts: Any, part: Any, low: Any, high: Any,
    fresh: Any, first: Any, count: Any, starts: Any, vector: Any, tile: Any, vectors: Any, tiles: Any, out: Any, dense: Any,
) -> None:  # fmt: skip
    """out[first[c] + m, n] int32 := the passes of chain c, modulo 2^32, for vectors low[u] <= m < high[u] of the chains c = part[u].

    Chain c has count[c] vectors in each of the passes starts[c] to starts[c + 1]: the claim elements `vectors` from vector[p] on, times
    those of tiles[tile[p]]. It is added to what `out` holds unless `fresh`.
    Tiles with picks[q] >= 0 take `lane`, `factor`, `runs`, `counts` of that row (see `selection`); vectors of few nonzero lanes add
    columns; few vectors are multiplied out. dense[vector] = 1 where none of this holds: those are left to the caller.
    """
    lanes = out.shape[1]
    at = np.empty(FEW, np.int64)
    row, column, value = np.empty(_ROWS * FEW, np.int64), np.empty(_ROWS * FEW, np.int64), np.empty(_ROWS * FEW, np.int32)
    for u in range(len(part)):
        c = part[u]
        for begin in range(low[u], high[u], _ROWS):
            end = min(begin + _ROWS, high[u])
            if fresh:
                for m in range(first[c] + begin, first[c] + end):
                    for n in range(lanes):
                        out[m, n] = 0
            for p in range(starts[c], starts[c + 1]):
                q, chosen, found = tile[p], picks[tile[p]], 0
                for m in range(begin, end):
                    v, line = vector[p] + m, out[first[c] + m]
                    o, s = offset[vectors[v]], step[vectors[v]]
                    if o < 0:
                        continue
                    if chosen >= 0:
                        _select(arena, o, s, lane[chosen], factor[chosen], runs[chosen], counts[chosen], line)
                        continue
                    used = _nonzero(arena, o, s, lanes, at)
                    if used > FEW:
                        if count[c] <= FEW:
                            _multiply(arena, o, s, offset, step, tiles[q], line)
                        else:
                            dense[v] = 1
                    else:
                        for k in range(used):
                            row[found], column[found], value[found] = first[c] + m, at[k], arena[o + at[k] * s]
                            found += 1
                if found:
                    _columns(arena, offset, step, tiles[q], row, column, value, found, out)


@compiled
def bytes_as_floats(arena: Any, offset: Any, step: Any, source: Any, out: Any) -> None:
    """out[m, lanes] float32 = the int8 vectors that claim elements `source` are."""
    for m in range(len(source)):
        o, s = offset[source[m]], step[source[m]]
        for j in range(out.shape[1]):
            out[m, j] = arena[o + j * s] if o >= 0 else 0


@compiled
def fetch_half(arena: Any, offset: Any, step: Any, source: Any, first: int, bits: Any, out: Any) -> Any:
    """out[m, k] float32 = lane `first` + k of the fp16 operands of claim elements source[:, m], two byte planes; `bits` is the memory of
    `out` as uint32. Returns (rows, columns) up to the last ones that are not all zero, and whether all are finite.

    Exponents are moved by a product, which makes numbers of what is too small for the exponent to be normal. What had the largest exponent,
    infinity or no number, is then beyond all others.
    """
    count, lanes = out.shape
    top = np.zeros(lanes, np.float32)
    for m in range(count):
        low, high, ls, hs = offset[source[0, m]], offset[source[1, m]], step[source[0, m]], step[source[1, m]]
        line, row = bits[m], out[m]
        if low >= 0 and high >= 0 and ls == 1 and hs == 1:
            lower, upper = arena[low + first : low + first + lanes], arena[high + first : high + first + lanes]
            for lane in range(lanes):
                word = np.uint32(lower[lane]) | (np.uint32(upper[lane]) << np.uint32(8))
                line[lane] = (word & np.uint32(0x7FFF)) << np.uint32(13) | (word & np.uint32(0x8000)) << np.uint32(16)
        else:
            for lane in range(lanes):
                word = np.uint32(0)
                if low >= 0:
                    word |= np.uint32(arena[low + (first + lane) * ls])
                if high >= 0:
                    word |= np.uint32(arena[high + (first + lane) * hs]) << np.uint32(8)
                line[lane] = (word & np.uint32(0x7FFF)) << np.uint32(13) | (word & np.uint32(0x8000)) << np.uint32(16)
        for lane in range(lanes):
            x = row[lane] * np.float32(5.192296858534828e33)
            row[lane] = x
            top[lane] = abs(x) if abs(x) > top[lane] else top[lane]
    rows, columns, finite = count, lanes, True
    while rows and not out[rows - 1].any():
        rows -= 1
    while columns and top[columns - 1] == 0:
        columns -= 1
    for lane in range(columns):
        finite = finite and top[lane] < 65536
    if not finite:
        for m in range(rows):
            for lane in range(columns):
                if abs(out[m, lane]) >= 65536:
                    bits[m, lane] |= np.uint32(0x7F800000)
    return rows, columns, finite
