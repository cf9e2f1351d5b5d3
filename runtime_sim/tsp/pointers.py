"""The compiled loops of `values.py`: from claim elements to who computed their bytes, and from there to addresses."""

from __future__ import annotations

from typing import Any

from ..jit import compiled

KEPT, READ, MOVED = 0, 1, 2
"""What a burst does with bytes: makes its own, reads a row, hands on what it takes."""


@compiled
def first_step(
    first: Any, size: Any, burst: Any, plane: Any, how: Any, first_tap: Any, count: Any, link: Any, source: Any, undefined: int, out: Any
) -> None:  # fmt: skip
    """out[e] = the claim element whose bytes claim element e repeats (itself: none), -1 - place of a row as it was before the block, or
    `undefined`. `how` of bursts; `link` as in `memory.Memory`, `source` as in `streams.Feeds`."""
    for c in range(len(first)):
        b = burst[c]
        for k in range(size[c]):
            e = first[c] + k
            if how[b] == KEPT:
                out[e] = e
                continue
            tap = link[e] if how[b] == READ else first_tap[b] + plane[c] * count[b] + k
            if tap < 0:
                out[e] = tap
            else:
                out[e] = source[tap] if source[tap] >= 0 else undefined


@compiled
def follow(following: Any) -> None:
    """Replace every step by the end of its way."""
    for e in range(len(following)):
        x = e
        while following[x] >= 0 and following[x] != x:
            x = following[x]
        end = following[x]
        x = e
        while following[x] >= 0 and following[x] != x:
            further = following[x]
            following[x] = end
            x = further


@compiled
def addresses(
    leaf: Any, claim_of: Any, first: Any, burst: Any, plane: Any, base: Any, width: Any, interleaved: Any, whole: Any, joined: Any,
    head: Any, k: Any, total: Any, lanes: int, offset: Any, step: Any,
) -> None:  # fmt: skip
    """(offset, step) of every claim element by its `leaf`; (-1, 1) where no result is kept. `whole`, `joined`, `head`, `k` as in
    `joins.Joins`."""
    for e in range(len(leaf)):
        offset[e], step[e] = -1, 1
        if leaf[e] < 0:
            continue
        c = claim_of[leaf[e]]
        b, number = burst[c], leaf[e] - first[c]
        if interleaved[b]:
            step[e] = width[b]
        if whole[b]:
            at = joined[b] + number
            offset[e] = total[head[at]] + k[at] * 4 * lanes + plane[c]
        elif base[b] >= 0:
            offset[e] = base[b] + plane[c] * (1 if interleaved[b] else lanes) + number * width[b] * lanes


@compiled
def last_taken(
    taps: Any, tap_of: Any, tap_burst: Any, when: Any, by_burst: bool, source: Any, leaf: Any, claim_of: Any, first: Any, burst: Any,
    whole: Any, joined: Any, head: Any, result: Any, total: Any,
) -> None:  # fmt: skip
    """result[burst], total[head of a join] = the largest time at which a tap element takes bytes that it computed.

    The elements `taps`, at the times `when`; by_burst: all of them, each when its burst takes it (< 0: never).
    """
    for number in range(len(source) if by_burst else len(taps)):
        e = number if by_burst else taps[number]
        time = when[tap_burst[tap_of[e]]] if by_burst else when[number]
        if time < 0 or source[e] < 0 or leaf[source[e]] < 0:
            continue
        end = leaf[source[e]]
        c = claim_of[end]
        b = burst[c]
        if whole[b]:
            h = head[joined[b] + end - first[c]]
            total[h] = max(total[h], time)
        else:
            result[b] = max(result[b], time)


@compiled
def takes_any(taps: Any, tap_of: Any, tap_burst: Any, users: Any, source: Any, leaf: Any, claim_of: Any, burst: Any, wanted: Any) -> bool:
    """Whether a burst of `users`, or one of the tap elements `taps`, takes bytes that a `wanted` burst computed."""
    for number in range(len(source) + len(taps)):
        e = number if number < len(source) else taps[number - len(source)]
        if number < len(source) and not users[tap_burst[tap_of[e]]]:
            continue
        if source[e] >= 0 and leaf[source[e]] >= 0 and wanted[burst[claim_of[leaf[source[e]]]]]:
            return True
    return False


@compiled
def point(outer: Any, pair: Any, byte: Any, pairs: Any, offset: Any) -> None:
    """offset[outer[k]] = byte[k] bytes from where pair[k] lies, `pairs` (-1: nowhere)."""
    for k in range(len(outer)):
        first = pairs[pair[k]]
        offset[outer[k]] = first + byte[k] if first >= 0 else -1
