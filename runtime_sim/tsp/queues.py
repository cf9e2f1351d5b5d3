"""Who may issue when: rules TSP-004, 005, 034, 041, 050, 051 (docs/tsp-model.md ME-4, VX-7, SX-3, IC-2, CC-2, CC-3)."""

from __future__ import annotations

import numpy as np

from ...machines.tsp import isa
from ...machines.tsp.isa import Class, Opcode
from .flatten import ACC_CODES, Flat, among, expand
from .layout import Array, Columns
from .report import Notes
from .streams import meetings

_WRITES = (Opcode.WRITE, Opcode.SCATTER)


def time_runs(flat: Flat, rows: Array) -> Columns:
    """Inner progressions in time of the bursts `rows`: `row`, t0, n, i (contiguous outer levels merged)."""
    b = flat.b
    n, i, n2, i2 = (b[name][rows].copy() for name in ("n", "i", "n2", "i2"))
    single = (n == 1) & (n2 > 1)
    n[single], i[single], n2[single] = n2[single], i2[single], 1
    merged = (n2 > 1) & (i2 == n * i)
    n[merged], n2[merged] = n[merged] * n2[merged], 1
    owner, k2 = expand(n2)
    return {"row": rows[owner], "t0": b["t0"][rows][owner] + k2 * i2[owner], "n": n[owner], "i": i[owner]}


def check_queues(flat: Flat, notes: Notes) -> None:
    """TSP-004, 041."""
    b = flat.b
    runs = time_runs(flat, np.arange(flat.size))
    row = runs["row"]
    queue = b["chip"][row] * isa.QUEUES + b["unit"][row]
    for one, other in _pairs(queue * 2 + among(b["opcode"][row], _WRITES), runs):
        notes.bursts("TSP-004", "two instructions of one queue in a cycle", [row[one], row[other]])
    shared = np.flatnonzero((b["cls"][row] == Class.PERMUTOR) | (b["cls"][row] == Class.SHIFTER))
    part = {name: column[shared] for name, column in runs.items()}
    side = b["chip"][part["row"]] * 2 + (b["unit"][part["row"]] - isa.SXM_BASE) // isa.SXM_QUEUES
    for one, other in _pairs(side, part):
        first, second = part["row"][one], part["row"][other]
        if b["unit"][first] != b["unit"][second]:
            notes.bursts("TSP-041", "two operations share the permutor datapath in a cycle", [first, second])


def check_banks(flat: Flat, bank: Array, notes: Notes) -> None:
    """TSP-005, where the objects of the members lie in the banks `bank`."""
    b = flat.b
    runs = time_runs(flat, np.flatnonzero(b["cls"] == Class.MEM))
    row = runs["row"]
    queue, held = b["chip"][row] * isa.QUEUES + b["unit"][row], bank[b["bound"][row]]
    writes = among(b["opcode"][row], _WRITES)
    for one, other in _pairs(queue * flat.machine.banks + held, runs):
        if writes[one] != writes[other]:
            notes.bursts("TSP-005", f"read and write of bank {held[one]} in one cycle", [row[one], row[other]])


def _pairs(key: Array, runs: Columns) -> list[tuple[int, int]]:
    first, second = meetings(key, runs["t0"], runs["n"], runs["i"])
    return list(zip(first.tolist(), second.tolist(), strict=True))


def check_accumulating_alus(flat: Flat, notes: Notes) -> tuple[Array, Array]:
    """TSP-034. Returns the state chain: (earlier burst, later burst) pairs where the later continues the earlier one's state."""
    b = flat.b
    alus = np.flatnonzero(b["cls"] == Class.VXM)
    queue = b["chip"][alus] * isa.QUEUES + b["unit"][alus]
    reduces = among(b["opcode"][alus], ACC_CODES)
    busy = np.unique(queue[reduces])
    alus = alus[np.isin(queue, busy)]
    n2 = np.where(among(b["opcode"][alus], ACC_CODES), b["n2"][alus], 1)
    owner, k2 = expand(n2)
    rows = alus[owner]
    acc = among(b["opcode"][rows], ACC_CODES)
    start = b["t0"][rows] + k2 * b["i2"][rows]
    end = np.where(acc, start + (b["n"][rows] - 1) * b["i"][rows], flat.last[rows])
    order = np.lexsort((end, start, b["chip"][rows] * isa.QUEUES + b["unit"][rows]))
    rows, acc, start, end = rows[order], acc[order], start[order], end[order]
    unit = (b["chip"] * isa.QUEUES + b["unit"])[rows].tolist()
    code, dtype, first, last = (b[name][rows].tolist() for name in ("opcode", "dtype", "first", "last"))
    chain: list[tuple[int, int]] = []
    opener, until = -1, -1
    for k, row in enumerate(rows.tolist()):
        if k == 0 or unit[k] != unit[k - 1]:
            opener, until = -1, -1
        if opener >= 0 and until < 0 and (not acc[k] or first[k] or (code[k], dtype[k]) != (b["opcode"][opener], b["dtype"][opener])):
            notes.bursts("TSP-034", "another operation on the ALU between first and last", [row, opener])
        if acc[k]:
            if not first[k]:
                if opener < 0 or until >= 0:
                    notes.bursts("TSP-034", "accumulate without first", [row])
                elif opener != row:
                    chain.append((opener, row))
            opener = row
            until = int(end[k]) if last[k] else -1
    together = np.array(unit[1:]) == np.array(unit[:-1])
    overlap = np.flatnonzero(together & (start[1:] <= end[:-1]) & (acc[1:] | acc[:-1]))
    for k in map(int, overlap):
        notes.bursts("TSP-034", "an operation inside the span of an accumulation on the same ALU", [rows[k + 1], rows[k]])
    pairs = np.array(chain, np.int64).reshape(-1, 2)
    return pairs[:, 0], pairs[:, 1]


def check_links(flat: Flat, notes: Notes) -> tuple[Array, Array]:
    """TSP-050, 051. Returns (receive element, send element) pairs as (flat burst, k) codes: burst * 2**32 + k."""
    b, machine, table = flat.b, flat.machine, flat.layout.links
    sends, receives = flat.of(Opcode.SEND), flat.of(Opcode.RECEIVE)
    elements = []
    for rows, shift in ((sends, machine.c2c_hop), (receives, 0)):
        every = flat.elements(rows)
        owner, time = every.owner, flat.times(every)
        row = rows[owner]
        k = np.arange(len(row)) - (np.cumsum(flat.count[rows]) - flat.count[rows])[owner]
        end = b["chip"][row] * 16 + b["link"][row]
        order = np.lexsort((time, end))
        row, k, end, time = row[order], k[order], end[order], time[order]
        close = np.flatnonzero((end[1:] == end[:-1]) & (time[1:] - time[:-1] < machine.c2c_interval))
        for at in map(int, close):
            notes.bursts("TSP-050", f"link elements {time[at + 1] - time[at]} cycles apart", [row[at + 1], row[at]], int(time[at + 1]))
        elements.append((row, k, table[end] if shift else end, time + shift))
    (s_row, s_k, s_end, s_time), (r_row, r_k, r_end, r_time) = elements
    span = int(max(s_time.max(initial=0), r_time.max(initial=0))) + 1
    s_key, r_key = s_end * span + s_time, r_end * span + r_time
    for at in map(int, np.flatnonzero((s_end < 0) | ~np.isin(s_key, r_key))):
        notes.bursts(
            "TSP-051",
            f"a Send without a Receive {machine.c2c_hop} cycles later at the other end",
            [s_row[at]],
            int(s_time[at]) - machine.c2c_hop,
        )
    for at in map(int, np.flatnonzero(~np.isin(r_key, s_key))):
        notes.bursts("TSP-051", "a Receive without a Send", [r_row[at]], int(r_time[at]))
    _, mine, theirs = np.intersect1d(r_key, s_key, return_indices=True)
    return r_row[mine] * (1 << 32) + r_k[mine], s_row[theirs] * (1 << 32) + s_k[theirs]
