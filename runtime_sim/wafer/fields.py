"""Rules that look at one row at a time: W01, W03, W05, W11 to W13, W20, W22, W32 (payload), W40, W41.

Everything later trusts these: where one of them fails in a way that leaves a row without meaning, the judgement stops after this stage.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import prod
from typing import Any

import numpy as np

from ...machines.program import Segment
from ...machines.wafer import tables as tb
from ...machines.wafer.description import WaferMachine
from ...machines.wafer.isa import OPS, PER_WAVELET, WORDS, Element, Fmt, Op, OpRow, Semantics
from .breaches import Breaches
from .model import BurstView, OperandView, SegmentView

MEM, FABRIC, IMM, NO = tb.OperandKind.MEM, tb.OperandKind.FABRIC, tb.OperandKind.IMM, tb.OperandKind.NONE
_CANONICAL = {"obj": -1, "addr": 0, "stride": [0] * 4, "step": [0, 0], "wrap": [0, 0], "py": 0, "px": 0, "pvy": -1, "pvx": -1}
_TRIGGERS, _KINDS = frozenset(map(int, tb.Trigger)), frozenset(map(int, tb.OperandKind))
_VECTORS = (
    ("vy", "h"), ("vx", "w"), ("dense", "hw"), *((f"{p}_pvy", "h") for p in tb.OPERANDS), *((f"{p}_pvx", "w") for p in tb.OPERANDS),
)  # fmt: skip
"""Columns that name pool vectors, and the sides of the region that say how long these are."""
FAR = 1 << 48
"""Cycles beyond which a time cannot be meant; keeps sums of times inside 64 bits."""


def table_rows(table: Mapping[str, np.ndarray]) -> list[dict[str, Any]]:
    """The rows of a table as dictionaries of Python values."""
    columns = {name: array.tolist() for name, array in table.items()}
    return [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]


def check_rows(segment: Segment, machine: WaferMachine, out: Breaches) -> None:
    """Ranges, references and canonical form of every row of a segment; all breaches here are fatal except W05 and W20 to W22."""
    t = {name: table_rows(table) for name, table in segment.tables.items()}
    regions = {r["id"]: r for r in t["regions"]}
    objects = {o["id"]: o for o in t["objects"]}
    loops = {r["id"]: r for r in t["loops"]}
    for name, rows in (("regions", t["regions"]), ("objects", t["objects"]), ("loops", t["loops"]), ("bursts", t["bursts"])):
        ids = [r["id"] for r in rows]
        if len(set(ids)) != len(ids) or any(i < 0 for i in ids):
            out.add("W05", f"table {name}", "duplicate or negative ids", fatal=True)
        if name != "bursts" and ids != sorted(ids):
            out.add("W05", f"table {name}", "rows are not in the order of their ids")
    for r in t["regions"]:
        if min(r["w"], r["h"]) < 1 or max(r["w"], r["h"]) > 4096 or max(abs(r["x"]), abs(r["y"])) > 4096:
            out.add("W02", f"region {r['id']}", f"has {r['w']} x {r['h']} cores", fatal=True)
        if not 0 <= r["first"] <= r["last"] < FAR:
            out.add("W01", f"region {r['id']}", f"lives from {r['first']} to {r['last']}", fatal=True)
    for o in t["objects"]:
        _object(o, regions, machine, out)
    for loop in t["loops"]:
        _loop(loop, loops, out)
    vectors = _pool(segment, out)
    for r in t["routes"]:
        _route(r, regions, machine, segment, out)
    if out.fatal:
        return
    keys = [(b["region"], b["t0"], b["id"]) for b in t["bursts"]]
    if keys != sorted(keys):
        out.add("W05", "table bursts", "rows are not ordered by region, t0, id")
    used: set[int] = set()
    known = {b["id"] for b in t["bursts"]}
    for b in t["bursts"]:
        _burst(b, regions, objects, loops, vectors, known, machine, out, used)
    for number in sorted(vectors.keys() - used):
        out.add("W05", f"pool vector {number}", "is not used by any burst")
    turning = {r["colour"] for r in t["routes"] if r["position"]}
    for b in t["bursts"]:
        if b["control"] and b["cout"] not in turning:
            message = f"a control wavelet on colour {b['cout']}, whose routers have one position"
            out.add("W05", f"burst {b['id']}", message, prov=[b["prov"]])
    if not out.fatal:
        _idle_values(t["bursts"], segment, {r["id"]: r["w"] for r in t["regions"]}, out)


def _idle_values(bursts: list[dict[str, Any]], segment: Segment, widths: dict[int, int], out: Breaches) -> None:
    """W05: values of pool vectors that no role reaches are 0."""
    pool = segment.tables["pool"]
    first = np.searchsorted(pool["vector"], np.arange(int(pool["vector"].max()) + 1 if len(pool["vector"]) else 0))
    reached = np.zeros(len(pool["vector"]), bool)
    for b in bursts if len(pool["vector"]) else ():
        rows, cols = np.arange(*b["rows"]), np.arange(*b["cols"])
        by_row = [b["vy"], *(b[f"{p}_pvy"] for p in tb.OPERANDS)]
        by_column = [b["vx"], *(b[f"{p}_pvx"] for p in tb.OPERANDS)]
        if b["dense"] != tb.NONE:
            reached[first[b["dense"]] + (rows[:, None] * widths[b["region"]] + cols[None, :]).reshape(-1)] = True
        for numbers, places in ((by_row, rows), (by_column, cols)):
            for number in numbers:
                if number != tb.NONE:
                    reached[first[number] + places] = True
    idle = np.flatnonzero(~reached & (pool["value"] != 0))
    if len(idle):
        out.add("W05", f"pool vector {int(pool['vector'][idle[0]])}", "holds a value that no role reaches")


def _object(o: dict[str, Any], regions: dict[int, Any], machine: WaferMachine, out: Breaches) -> None:
    unit = f"object {o['id']}"
    if o["region"] not in regions or o["fmt"] not in list(Element) or o["kind"] not in list(tb.ObjectKind):
        out.add("W01", unit, "unknown region, format or kind", fatal=True)
        return
    if any(not 1 <= n < 65536 for n in o["ext"]) or any(not 0 <= s < 65536 for s in o["stride"]):
        out.add("W12", unit, f"extents {o['ext']} or strides {o['stride']} out of range", fatal=True)
        return
    if any((s != 0) != (n > 1) for n, s in zip(o["ext"], o["stride"], strict=True)):
        out.add("W05", unit, "a stride is 0 exactly where the extent is 1")
    size = 1 + sum((n - 1) * s for n, s in zip(o["ext"], o["stride"], strict=True))
    words = size * WORDS[Element(o["fmt"])]
    if o["word"] < machine.data_first_word or o["word"] + words > machine.memory_words:
        allowed = f"[{machine.data_first_word}, {machine.memory_words})"
        out.add("W40", unit, f"words [{o['word']}, {o['word'] + words}) leave the data words {allowed}", prov=[o["prov"]], fatal=True)
    if o["word"] % WORDS[Element(o["fmt"])]:
        out.add("W13", unit, f"{Element(o['fmt']).name} at odd word {o['word']}", prov=[o["prov"]])


def _loop(loop: dict[str, Any], loops: dict[int, Any], out: Breaches) -> None:
    unit = f"loop {loop['id']}"
    if not 1 <= loop["rep"] < 1 << 31 or not 0 <= loop["period"] < FAR >> 16 or not 0 <= loop["first"] < FAR:
        out.add("W01", unit, f"rep {loop['rep']}, period {loop['period']}, first {loop['first']} out of range", fatal=True)
    if loop["rep"] > 1 and loop["period"] < 1:
        out.add("W01", unit, "a loop of several repetitions needs a period of at least 1", fatal=True)
    if loop["rep"] == 1 and loop["period"] != 0:
        out.add("W05", unit, "period of a single repetition is not 0")
    parent = loop["parent"]
    if parent != tb.NONE and (parent not in loops or parent == loop["id"] or loops[parent]["parent"] != tb.NONE):
        out.add("W01", unit, f"parent {parent} is not there, or loops nest deeper than two", fatal=True)


def _pool(segment: Segment, out: Breaches) -> dict[int, int]:
    numbers = segment.tables["pool"]["vector"]
    if len(numbers) and (numbers[0] != 0 or ((np.diff(numbers) != 0) & (np.diff(numbers) != 1)).any()):
        out.add("W05", "table pool", "vectors are not numbered 0, 1, .. in order", fatal=True)
        return {}
    if len(numbers) and np.abs(segment.tables["pool"]["value"].astype(np.int64)).max() > 1 << 30:
        out.add("W01", "table pool", "a value is out of range", fatal=True)
    return dict(enumerate(np.bincount(numbers).tolist())) if len(numbers) else {}


def _role_ok(triple: list[int], limit: int) -> bool:
    start, stop, step = triple
    return step >= 1 and 0 <= start < stop <= limit


def _role_canonical(triple: list[int]) -> bool:
    start, stop, step = triple
    count = len(range(start, stop, step))
    return stop == start + (count - 1) * step + 1 and (step == 1 or count > 1)


def _route(r: dict[str, Any], regions: dict[int, Any], machine: WaferMachine, segment: Segment, out: Breaches) -> None:
    unit = f"route of colour {r['colour']} in region {r['region']}"
    if r["region"] != tb.NONE and r["region"] not in regions:
        out.add("W01", unit, "unknown region", fatal=True)
        return
    if r["rx"] not in list(tb.Port) or not 0 < r["tx"] < 32 or not 0 <= r["since"] < FAR or not 0 <= r["colour"] < 32:
        out.add("W01", unit, f"unknown port or colour, or no tx: rx {r['rx']}, tx {r['tx']}, since {r['since']}", fatal=True)
        return
    if r["region"] == tb.NONE:
        x0 = int(segment.tables["regions"]["x"].min())
        y0 = int(segment.tables["regions"]["y"].min())
        w = int((segment.tables["regions"]["x"] + segment.tables["regions"]["w"]).max())
        h = int((segment.tables["regions"]["y"] + segment.tables["regions"]["h"]).max())
        ok = all(t[2] >= 1 and t[0] < t[1] for t in (r["rows"], r["cols"])) and r["rows"][0] >= y0 and r["cols"][0] >= x0
        ok = ok and r["rows"][1] <= h and r["cols"][1] <= w
    else:
        ok = _role_ok(r["rows"], regions[r["region"]]["h"]) and _role_ok(r["cols"], regions[r["region"]]["w"])
    if not ok:
        out.add("W03", unit, f"routers rows {r['rows']} cols {r['cols']} are empty or outside", fatal=True)
        return
    if not (_role_canonical(r["rows"]) and _role_canonical(r["cols"])):
        out.add("W05", unit, "a progression of routers is not in its shortest form")
    if r["colour"] not in machine.colours:
        out.add("W20", unit, f"colour {r['colour']} is not free on {machine.name}")
    if not 0 <= r["position"] < machine.positions:
        out.add("W21", unit, f"position {r['position']}: a router has {machine.positions}", fatal=True)
    if r["tx"] >> r["rx"] & 1:
        out.add("W22", unit, f"wavelets would leave by {tb.Port(r['rx']).name}, where they come from")


def _burst(
    b: dict[str, Any], regions: dict[int, Any], objects: dict[int, Any], loops: dict[int, Any], vectors: dict[int, int], ids: set[int],
    machine: WaferMachine, out: Breaches, used: set[int],
) -> None:  # fmt: skip
    unit, prov = f"burst {b['id']}", [b["prov"]]
    before = out.counts.total()
    bad = []
    if b["region"] not in regions:
        bad.append(f"region {b['region']}")
    if (b["op"], b["fmt"]) not in OPS:
        bad.append(f"operation {b['op']} in format {b['fmt']}")
    if b["trigger"] not in _TRIGGERS:
        bad.append(f"trigger {b['trigger']}")
    if b["loop"] != tb.NONE and b["loop"] not in loops:
        bad.append(f"loop {b['loop']}")
    bad += [
        f"predecessor {i} lag {lag}" for i, lag in zip(b["after"], b["lag"], strict=True) if (i != -1 and i not in ids) or lag not in (0, 1)
    ]
    bad += [f"operand kind {b[f'{p}_kind']}" for p in tb.OPERANDS if b[f"{p}_kind"] not in _KINDS]
    bad += [f"object {b[f'{p}_obj']}" for p in tb.OPERANDS if b[f"{p}_kind"] == MEM and b[f"{p}_obj"] not in objects]
    bad += [f"{name} {b[name]}" for name in ("control",) if b[name] not in (0, 1)]
    if not 0 <= b["t0"] < FAR or not 1 <= b["span"] < 1 << 30 or np.isnan(b["imm"]):
        bad.append(f"t0 {b['t0']}, span {b['span']} or immediate {b['imm']}")
    if bad:
        out.add("W01", unit, f"unknown or out of range: {', '.join(bad)}", prov=prov, fatal=True)
        return
    region = regions[b["region"]]
    if not _role_ok(b["rows"], region["h"]) or not _role_ok(b["cols"], region["w"]):
        out.add("W03", unit, f"role rows {b['rows']} cols {b['cols']} is empty or leaves its region", prov=prov, fatal=True)
        return
    lengths = {"h": region["h"], "w": region["w"], "hw": region["h"] * region["w"]}
    for name, along in _VECTORS:
        if b[name] != tb.NONE:
            used.add(b[name])
            wanted = lengths[along]
            if vectors.get(b[name]) != wanted:
                out.add("W01", unit, f"{name} names pool vector {b[name]}, which has not {wanted} values", prov=prov, fatal=True)
    row = OPS[Op(b["op"]), Fmt(b["fmt"])]
    _operands(b, row, unit, out)
    _extents(b, unit, out)
    if out.counts.total() == before:
        _fabric(b, row, machine, unit, out)
        _canonical(b, machine, loops, unit, out)
        _formats(b, row, objects, regions, unit, out)


def _operands(b: dict[str, Any], row: OpRow, unit: str, out: Breaches) -> None:
    """W12: which operands an operation has."""
    kinds = {p: tb.OperandKind(b[f"{p}_kind"]) for p in tb.OPERANDS}
    meaning = row.meaning
    sources = [p for p in "abs" if kinds[p] is FABRIC]
    allowed: dict[str, set[tb.OperandKind]] = {"d": {MEM, FABRIC}, "a": {MEM, FABRIC}, "b": {NO}, "s": {NO}}
    if meaning is Semantics.ADVANCE:
        allowed = {p: {NO} for p in "dabs"}
    elif meaning is Semantics.UNARY and row.op is Op.MOV:
        allowed["a"] = {MEM, FABRIC, IMM}
    elif meaning in (Semantics.BINARY, Semantics.MERGE_PAIRS):
        allowed["a"] = {MEM, FABRIC, IMM} if row.two_of else {MEM, FABRIC}
        allowed["b"] = {MEM, FABRIC} if row.b is not None else {NO}
        if row.two_of and (kinds["b"] is NO or row.b is None):
            allowed["b"], allowed["s"] = {NO}, {MEM, IMM}
    elif meaning is Semantics.MULTIPLY_ADD:
        allowed |= {"d": {MEM}, "s": {MEM, IMM, FABRIC}}
    elif meaning is Semantics.SELECT:
        allowed |= {"b": {MEM, FABRIC, IMM}, "s": {NO, MEM, IMM}}
        if kinds["s"] is NO:
            allowed["d"] = {MEM}
    elif meaning is Semantics.LOAD_INDEXED:
        allowed |= {"a": {MEM}, "s": {MEM}}
    elif meaning is Semantics.STORE_INDEXED:
        allowed |= {"d": {MEM}, "s": {MEM}}
    wrong = [f"{p} is {kinds[p].name}" for p in tb.OPERANDS if kinds[p] not in allowed[p]]
    if len(sources) > 1:
        wrong.append("two fabric sources")
    if kinds["s"] is FABRIC and row.s is not Element.F16:
        wrong.append("a scalar stream that is not f16")
    if list(kinds.values()).count(IMM) > 1:
        wrong.append("two immediates")
    if row.op is Op.SCALE and (kinds["s"] is not IMM or abs(np.frexp(b["imm"])[0]) != 0.5):
        wrong.append("SCALE by something else than a power of two")
    if row.op is Op.ARGMAX and (b["ext"][3] % 2 or any(kinds[p] is MEM and b[f"{p}_stride"][3] != 1 for p in "dab")):
        wrong.append("ARGMAX pairs that are not contiguous")
    if wrong:
        out.add("W12", unit, f"{row.op.name} {row.fmt.name}: {', '.join(wrong)}", prov=[b["prov"]], fatal=True)


def _extents(b: dict[str, Any], unit: str, out: Breaches) -> None:
    """W12: C8."""
    wrong = [f"extent {n}" for n in b["ext"] if not 1 <= n < 65536]
    if prod(b["ext"]) > 1 << 28:
        wrong.append(f"{b['ext']} elements")
    for p in tb.OPERANDS:
        outer, inner = b[f"{p}_stride"][:3], b[f"{p}_stride"][3]
        if not -128 <= inner <= 127 or any(not -32768 <= s <= 32767 for s in (*outer, *b[f"{p}_step"])):
            wrong.append(f"stride of {p}")
        if any(not 0 <= w < 1 << 31 for w in b[f"{p}_wrap"]):
            wrong.append(f"wrap of {p}")
    if b["s_stride"][3] != 0 and Op(b["op"]) not in (Op.LDX, Op.STX):
        wrong.append("a scalar that moves inside the vector")
    if b["s_stride"][3] != 0 and Op(b["op"]) in (Op.LDX, Op.STX):
        wrong.append("an index that moves inside the vector")
    if wrong:
        out.add("W12", unit, f"out of range: {', '.join(wrong)}", prov=[b["prov"]], fatal=True)


def _fabric(b: dict[str, Any], row: OpRow, machine: WaferMachine, unit: str, out: Breaches) -> None:
    """W01, W32: colours, rates and payloads of fabric operands."""
    vectors = [(p, getattr(row, p)) for p in ("a", "b", "d") if b[f"{p}_kind"] == FABRIC]
    receives = any(b[f"{p}_kind"] == FABRIC for p in "abs")
    sends = b["d_kind"] == FABRIC
    bad = []
    if receives and not (0 <= b["cin"] < 32 and 0 <= b["qin"] < 32):
        bad.append(f"cin {b['cin']}, qin {b['qin']}")
    if sends and not (0 <= b["cout"] < 32 and 0 <= b["qout"] < 32):
        bad.append(f"cout {b['cout']}, qout {b['qout']}")
    if row.meaning is Semantics.ADVANCE and not 0 <= b["cout"] < 32:
        bad.append(f"cout {b['cout']}")
    if vectors and b["q"] not in machine.rates:
        bad.append(f"q {b['q']} of {list(machine.rates)}")
    if machine.microthreads and (receives or sends) and not 0 <= b["mt"] < machine.microthreads:
        bad.append(f"microthread {b['mt']}")
    if b["trigger"] == tb.Trigger.ARRIVE and not receives:
        bad.append("ARRIVE without a fabric source")
    if bad:
        out.add("W01", unit, f"unknown or out of range: {', '.join(bad)}", prov=[b["prov"]], fatal=True)
        return
    for name, colour in (("cin", b["cin"]), ("cout", b["cout"])):
        if colour != tb.NONE and colour not in machine.colours:
            out.add("W20", unit, f"{name} {colour} is not free on {machine.name}", prov=[b["prov"]])
    count = prod(b["ext"])
    limit = 1 if row.function else machine.widths.get(row.width, 1)
    for p, fmt in vectors:
        wavelets = -(-count // PER_WAVELET[fmt])
        if wavelets % b["q"]:
            out.add("W32", unit, f"operand {p} has {wavelets} wavelets, not a multiple of {b['q']} a beat", prov=[b["prov"]])
        if b["q"] > 1 and b["q"] * PER_WAVELET[fmt] > limit:
            out.add(
                "W32", unit, f"operand {p}: {b['q']} wavelets a beat are more than the {limit} elements of {row.op.name}", prov=[b["prov"]]
            )


def _canonical(b: dict[str, Any], machine: WaferMachine, loops: dict[int, Any], unit: str, out: Breaches) -> None:
    """W05: fields without use are at their defaults, and roles and times are in their shortest form."""
    odd = []
    for p in tb.OPERANDS:
        if b[f"{p}_kind"] != MEM:
            odd += [f"{p}_{name}" for name, value in _CANONICAL.items() if b[f"{p}_{name}"] != value]
            continue
        odd += [f"{p}_stride" for n, s in zip(b["ext"], b[f"{p}_stride"], strict=True) if n == 1 and s]
        loop = loops.get(b["loop"])
        step, wrap = b[f"{p}_step"], b[f"{p}_wrap"]
        phases = b[f"{p}_py"], b[f"{p}_px"], b[f"{p}_pvy"], b[f"{p}_pvx"]
        if (loop is None or loop["parent"] == tb.NONE) and (step[1] or wrap[1]):
            odd.append(f"{p}_step")
        if any(w and not s for s, w in zip(step, wrap, strict=True)) or (not step[0] and phases != (0, 0, -1, -1)):
            odd.append(f"{p}_wrap")
        if loop is None and step[0] and phases == (0, 0, -1, -1):
            odd.append(f"{p}_step")
    kinds = [b[f"{p}_kind"] for p in tb.OPERANDS]
    receives, sends = FABRIC in kinds[1:], kinds[0] == FABRIC
    advance = b["op"] == Op.SWITCH
    unused = {
        "imm": IMM in kinds, "cin": receives, "qin": receives, "cout": sends or advance, "qout": sends, "q": FABRIC in kinds[:3],
        "mt": machine.microthreads > 0 and (receives or sends), "control": sends, "look": b["op"] in (Op.LDX, Op.STX),
    }  # fmt: skip
    defaults: dict[str, Any] = {"imm": 0.0, "q": 0, "control": 0, "look": [0] * 5}
    odd += [name for name, has_use in unused.items() if not has_use and b[name] != defaults.get(name, -1)]
    odd += [name for name in ("rows", "cols") if not _role_canonical(b[name])]
    if len(range(*b["rows"])) == 1 and (b["ty"] or b["vy"] != tb.NONE):
        odd.append("ty, vy")
    if len(range(*b["cols"])) == 1 and (b["tx"] or b["vx"] != tb.NONE):
        odd.append("tx, vx")
    if b["dense"] != tb.NONE and (b["ty"] or b["tx"] or b["vy"] != tb.NONE or b["vx"] != tb.NONE):
        odd.append("dense")
    used = [i for i in b["after"] if i != tb.NONE]
    if any(b["lag"]) and b["loop"] == tb.NONE:
        odd.append("lag")
    if (
        b["after"] != used + [-1] * (4 - len(used))
        or any(b["lag"][len(used) :])
        or len(set(zip(used, b["lag"], strict=False))) != len(used)
    ):
        odd.append("after, lag")
    if odd:
        out.add("W05", unit, f"not canonical: {', '.join(dict.fromkeys(odd))}", prov=[b["prov"]])


def _formats(b: dict[str, Any], row: OpRow, objects: dict[int, Any], regions: dict[int, Any], unit: str, out: Breaches) -> None:
    """W13, W41: formats of memory operands, and that they are in the burst's region."""
    for p in tb.OPERANDS:
        if b[f"{p}_kind"] != MEM:
            continue
        target = objects[b[f"{p}_obj"]]
        wanted = getattr(row, p)
        if target["region"] != b["region"]:
            out.add("W41", unit, f"operand {p} lies in region {target['region']}, not in {b['region']}", prov=[b["prov"]], fatal=True)
        if wanted is None or target["fmt"] != wanted:
            name = Element(target["fmt"]).name
            out.add(
                "W13",
                unit,
                f"operand {p} is {name}, {row.op.name} {row.fmt.name} takes {wanted and wanted.name}",
                prov=[b["prov"]],
                fatal=True,
            )
        elif (target["word"] + b[f"{p}_addr"]) % WORDS[Element(target["fmt"])]:
            out.add("W13", unit, f"operand {p}: {wanted.name} at an odd word", prov=[b["prov"]], fatal=True)


def operand_range(burst: BurstView, name: str, seg: SegmentView) -> tuple[int, int]:
    """Smallest and greatest element of its object that a memory operand touches, over all cores and repetitions."""
    key = burst.row, name
    if key not in seg.ranges:
        seg.ranges[key] = _range(burst, burst.operand(name), seg)
    return seg.ranges[key]


def _range(burst: BurstView, operand: OperandView, seg: SegmentView) -> tuple[int, int]:
    target = seg.objects[operand.obj]
    low = high = operand.addr // WORDS[target.fmt]
    phase = phases(burst, operand, seg)
    spans = [(int(phase.min()), int(phase.max()) + burst.loop.rep - 1), (0, burst.outer.rep - 1)]
    for (first, last), step, wrap in zip(spans, operand.step, operand.wrap, strict=True):
        if wrap and not (first >= 0 and last < wrap):
            first, last = 0, wrap - 1
        low, high = low + min(first * step, last * step), high + max(first * step, last * step)
    for n, s in zip(burst.ext, operand.stride, strict=True):
        low, high = low + min(0, (n - 1) * s), high + max(0, (n - 1) * s)
    moved = (burst.op.meaning is Semantics.LOAD_INDEXED and operand is burst.a) or (
        burst.op.meaning is Semantics.STORE_INDEXED and operand is burst.d
    )
    if moved:
        reach = (burst.look[1] - 1) * burst.look[2]
        low, high = low + min(0, reach), high + max(0, reach)
    return low, high


def phases(burst: BurstView, operand: OperandView, seg: SegmentView) -> np.ndarray:
    """int64 [rows, columns] of the role: what is added to the repetition before the first step (0-dimensional where it is 0)."""
    if not (operand.py or operand.px or operand.pvy != tb.NONE or operand.pvx != tb.NONE):
        return np.zeros((), np.int64)
    y, x = np.array(burst.rows, np.int64), np.array(burst.cols, np.int64)
    u, v = operand.py * y, operand.px * x
    if operand.pvy != tb.NONE:
        u = u + seg.vectors[operand.pvy][y]
    if operand.pvx != tb.NONE:
        v = v + seg.vectors[operand.pvx][x]
    return u[:, None] + v[None, :]


def check_bursts(seg: SegmentView, out: Breaches) -> None:
    """W11 and W41, which need the derived beats and addresses."""
    for burst in seg.bursts:
        unit = f"region {burst.region.id}"
        if burst.span < max(burst.m, burst.n_in, burst.n_out):
            need = f"{burst.m} beats, {max(burst.n_in, burst.n_out)} wavelets"
            out.add("W11", unit, f"span {burst.span} is shorter than {need}", claimants=[burst.name], prov=[burst.prov], fatal=True)
        if burst.op.meaning in (Semantics.LOAD_INDEXED, Semantics.STORE_INDEXED) and burst.look[1] < 1:
            out.add("W01", unit, "a lookup in an empty range", claimants=[burst.name], prov=[burst.prov], fatal=True)
        for name in tb.OPERANDS:
            operand = burst.operand(name)
            if operand.kind is not MEM:
                continue
            low, high = operand_range(burst, name, seg)
            size = seg.objects[operand.obj].size
            if low < 0 or high >= size:
                message = f"operand {name} touches elements {low}..{high} of object {operand.obj}, which has {size}"
                out.add("W41", unit, message, claimants=[burst.name], prov=[burst.prov], fatal=True)
