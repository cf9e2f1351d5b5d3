"""The compiled inner loops of judging: matching on streams, memory versions, planes, levels.

Each kernel walks bursts and the elements that meet, never cycles. Compiled code is cached on disk (`runtime_sim/jit.py`).
"""

from __future__ import annotations

from typing import Any

from ..jit import compiled


@compiled
def conflicts(key: Any, d0: Any, n: Any, i: Any, pos: Any, until: Any, ends: Any, out: Any) -> None:
    """MT-9: out[r] = an earlier run of the same key (sorted by d0) that meets run r in diagonal and pos, or -1."""
    for r in range(len(key)):
        out[r] = -1
        last = d0[r] + (n[r] - 1) * i[r]
        j = r - 1
        while j >= 0 and key[j] == key[r] and ends[j] >= d0[r]:
            end = d0[j] + (n[j] - 1) * i[j]
            if end >= d0[r] and pos[j] <= until[r] and pos[r] <= until[j]:
                ii, ij = (i[r] if n[r] > 1 else 1), (i[j] if n[j] > 1 else 1)
                a, b = ii, ij
                while b:
                    a, b = b, a % b
                if (d0[j] - d0[r]) % a == 0:
                    # step through the coarser progression inside the common range; its period against the other is ij / gcd
                    low, high = d0[r], min(last, end)
                    if ii >= ij:
                        base, step, other, mod, count, stop = d0[r], ii, d0[j], ij, n[r], ij // a
                    else:
                        base, step, other, mod, count, stop = d0[j], ij, d0[r], ii, n[j], ii // a
                    k = max(0, -((base - low) // step)) if base < low else 0
                    tries = 0
                    while k < count and base + k * step <= high and tries <= stop:
                        d = base + k * step
                        if d >= low and (d - other) % mod == 0:
                            out[r] = j
                            break
                        k += 1
                        tries += 1
                    if out[r] >= 0:
                        break
            j -= 1


@compiled
def match(
    c_key: Any, c_d0: Any, c_n: Any, c_i: Any, c_pos: Any, c_until: Any, c_first: Any, c_ends: Any,
    t_key: Any, t_d0: Any, t_n: Any, t_i: Any, t_pos: Any, t_first: Any, bucket: Any, source: Any, covered: Any,
) -> None:  # fmt: skip
    """MT-6: source[tap element] = claim element it reads (-1: none); covered[claim element] = 1 where a tap lies at its `until`."""
    for r in range(len(t_key)):
        lo, hi = bucket[t_key[r]], bucket[t_key[r] + 1]
        first, step, place = t_d0[r], t_i[r], t_pos[r]
        last = first + (t_n[r] - 1) * step
        a, b = lo, hi
        while a < b:
            m = (a + b) // 2
            if c_d0[m] <= last:
                a = m + 1
            else:
                b = m
        j = a - 1
        while j >= lo and c_ends[j] >= first:
            base, ci, cn = c_d0[j], c_i[j], c_n[j]
            end = base + (cn - 1) * ci
            if end >= first and c_pos[j] <= place and place <= c_until[j]:
                k = 0
                if base > first:
                    k = (base - first + step - 1) // step
                at_end = place == c_until[j]
                while k < t_n[r]:
                    q = first + k * step - base
                    if q > end - base:
                        break
                    if q % ci == 0:
                        e = c_first[j] + q // ci
                        source[t_first[r] + k] = e
                        if at_end:
                            covered[e] = 1
                    k += 1
            j -= 1


@compiled
def versions(
    place: Any, t0: Any, n: Any, i: Any, n2: Any, i2: Any, stride: Any, stride2: Any, first: Any, starts: Any, w_time: Any, w_element: Any,
    link: Any,
) -> None:  # fmt: skip
    """For every element of READ bursts the write element of the block whose row it sees (ME-2), or -1 - place where there is none before.

    `starts` is a CSR index by place into writes sorted by (place, time).
    """
    for r in range(len(place)):
        e = first[r]
        for k2 in range(n2[r]):
            for k in range(n[r]):
                p = place[r] + k * stride[r] + k2 * stride2[r]
                t = t0[r] + k * i[r] + k2 * i2[r]
                a, b = starts[p], starts[p + 1]
                low = a
                while a < b:
                    m = (a + b) // 2
                    if w_time[m] < t:
                        a = m + 1
                    else:
                        b = m
                link[e] = w_element[a - 1] if a > low else -1 - p
                e += 1


@compiled
def change_edges(owner_of: Any, owner_burst: Any, source: Any, source_of: Any, source_burst: Any, out: Any) -> int:
    """Pairs (before, after) of bursts: element e of flow `owner_of` takes element source[e] (< 0: none) of flow `source_of`.

    Equal neighbours are written once. Returns how many pairs were written to out[2, :].
    """
    count = 0
    last_before, last_after = -1, -1
    for e in range(len(source)):
        if source[e] >= 0:
            before, after = source_burst[source_of[source[e]]], owner_burst[owner_of[e]]
            if before != last_before or after != last_after:
                last_before, last_after = before, after
                out[0, count] = before
                out[1, count] = after
                count += 1
    return count


@compiled
def mismatches(first: Any, count: Any, wanted: Any, source: Any, claim_of: Any, produced: Any, allowed: Any, wrong: Any) -> None:
    """wrong[tap] = 1 where an element's producer type is not allowed[produced, wanted]; wanted 0 takes anything."""
    for tap in range(len(first)):
        if wanted[tap]:
            for e in range(first[tap], first[tap] + count[tap]):
                if source[e] >= 0 and not allowed[produced[claim_of[source[e]]], wanted[tap]]:
                    wrong[tap] = 1


@compiled
def levels(starts: Any, targets: Any, weight: Any, degree: Any, level: Any, queue: Any) -> int:
    """Longest weighted path to each burst of the graph (CSR by source); returns how many bursts were reached: fewer than all in a cycle.

    They are in `queue`, in an order in which they can be computed.
    """
    n = len(weight)
    tail = 0
    for b in range(n):
        if degree[b] == 0:
            queue[tail] = b
            tail += 1
    head = 0
    while head < tail:
        b = queue[head]
        head += 1
        value = level[b] + weight[b]
        for at in range(starts[b], starts[b + 1]):
            c = targets[at]
            if level[c] < value:
                level[c] = value
            degree[c] -= 1
            if degree[c] == 0:
                queue[tail] = c
                tail += 1
    return tail


@compiled
def weight_queue(
    plane: Any, is_iw: Any, n: Any, row0: Any, first: Any, lw_rows: Any, buffer: Any, fresh: Any, content: Any, loader: Any, double: Any
) -> None:
    """Contents of the weight buffers: events of all W queues in order of (plane, time), planes numbered from 0.

    content[w, row] = tap element that IW number w installs in that row (-1: as before the first event), loader[w, 0] = first event that
    loaded it, loader[w, 1] = last one (-1: none); double[e] = 1 where LW event e overwrites a row that was loaded and not yet installed.
    buffer[plane, row] (-1 on entry) and fresh[plane, row] (0): what it holds after the last event, and whether no IW took that.
    `first` is the tap element of stream 0; that of stream j of the same burst follows j n elements later.
    """
    w = 0
    begin, end = -1, -1
    for e in range(len(plane)):
        p = plane[e]
        if e == 0 or p != plane[e - 1]:
            begin, end = -1, -1
        if is_iw[e]:
            loader[w, 0] = begin
            loader[w, 1] = end
            for row in range(buffer.shape[1]):
                content[w, row] = buffer[p, row]
                fresh[p, row] = 0
            begin, end = -1, -1
            w += 1
        else:
            if begin < 0:
                begin = e
            end = e
            for k in range(n[e]):
                for j in range(lw_rows):
                    row = row0[e] + lw_rows * k + j
                    if 0 <= row < buffer.shape[1]:
                        if fresh[p, row]:
                            double[e] = 1
                        fresh[p, row] = 1
                        buffer[p, row] = first[e] + j * n[e] + k


@compiled
def accumulators(plane: Any, entry: Any, add: Any, store: Any, holder: Any, used: Any, source: Any, fault: Any) -> None:
    """TSP-025: accumulator elements in order of (plane, time), planes numbered from 0.

    source[e] = element that stored what e adds (-1 none). fault[e] = 1: outside the depth, 2: add from an entry never stored, 3: store over
    a stored entry that nothing used. holder[plane, entry] (-1 on entry): the element that stored it last; used[plane, entry] (1 on entry):
    whether anything added it since.
    """
    for e in range(len(plane)):
        p, slot = plane[e], entry[e]
        if not add[e] and not store[e]:
            continue
        if slot < 0 or slot >= holder.shape[1]:
            fault[e] = 1
            continue
        if add[e]:
            if holder[p, slot] < 0:
                fault[e] = 2
            source[e] = holder[p, slot]
            used[p, slot] = 1
        if store[e]:
            if not used[p, slot]:
                fault[e] = 3
            holder[p, slot] = e
            used[p, slot] = 0


@compiled
def overlaps(place: Any, row0: Any, row1: Any, born: Any, dies: Any, group: Any, out: Any) -> int:
    """TSP-010: pairs of allocations (different `group`) that share rows of one place at one time; input sorted by (place, row0)."""
    count = 0
    for a in range(len(place)):
        b = a + 1
        while b < len(place) and place[b] == place[a] and row0[b] < row1[a]:
            if group[a] != group[b] and born[a] <= dies[b] and born[b] <= dies[a]:
                out[0, count], out[1, count] = group[a], group[b]
                count += 1
                if count == out.shape[1]:
                    return count
            b += 1
    return count


@compiled
def mark(cycles: Any, t0: Any, n: Any, i: Any, n2: Any, i2: Any, value: Any) -> None:
    """cycles[t] = max(cycles[t], value) in every cycle of the bursts."""
    for r in range(len(t0)):
        for k2 in range(n2[r]):
            t = t0[r] + k2 * i2[r]
            for _ in range(n[r]):
                if cycles[t] < value[r]:
                    cycles[t] = value[r]
                t += i[r]
