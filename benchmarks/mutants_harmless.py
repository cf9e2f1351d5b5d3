"""Changes that mean the same: for a mutant that no rule rejects and that changes no number, the reason why, where it can be verified.

Each reason is a predicate on the unchanged and the changed program. A reason may rely on what the judge has already shown: that the
changed program is legal and as long as the other. A reason that ends with `BY_RUNS` holds if the numbers are equal in more runs, which
cover the range of the inputs. What no predicate explains is a survivor. Reasons by machine are in `docs/mutants.md`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

import numpy as np
from mutants_bytes import carries_nothing_live
from mutants_poison import Runs, no_constant_shows, nothing_takes

from spatialc.machines.cgla.isa import MEMORY_CODE
from spatialc.machines.cgla.tables import EXPR_OPS, HOST_DTYPES, LEAVES, BufferKind, Direction, Phase
from spatialc.machines.program import Program, Table
from spatialc.machines.tsp.description import TspMachine
from spatialc.machines.tsp.isa import WIDTH, DType, Opcode
from spatialc.machines.wafer.description import from_json
from spatialc.machines.wafer.isa import OPS, Fmt, Op, Semantics
from spatialc.machines.wafer.tables import OPERANDS, ObjectKind, OperandKind, Trigger
from spatialc.runtime_sim.cgla.dataflow import Dataflow, no_loads
from spatialc.runtime_sim.cgla.decode import decode
from spatialc.runtime_sim.cgla.host import HostTask
from spatialc.runtime_sim.cgla.kernel import Kernel
from spatialc.runtime_sim.cgla.lane import pieces
from spatialc.runtime_sim.cgla.plan import WORD, LaunchPlan
from spatialc.runtime_sim.cgla.seams import PROGRAM_END, Verdict, judge
from spatialc.runtime_sim.tsp.bindings import Region, lay_out
from spatialc.runtime_sim.wafer.breaches import Breaches
from spatialc.runtime_sim.wafer.flows import Fabric, Flow, Hops
from spatialc.runtime_sim.wafer.model import view_segment

BY_RUNS = ", in every run over the range of the inputs"


def harmless(before: Program, after: Program, segment: int, table: str, row: int, column: str, runs: Runs) -> str:
    """Why the change of one field (`column` empty: of a row; table `bindings`: of a region) means the same, or empty. `runs`: a few inputs
    and states."""
    reason = {"tsp": _tsp, "cgla": _cgla, "wafer": _wafer}[before.target](before, after, segment, table, row, column)
    if (
        not reason
        and before.target == "cgla"
        and table == "host_exprs"
        and column == "real"
        and no_constant_shows(before, segment, row, runs)
    ):
        return "a constant that nothing takes: absurd values in its place change no number" + BY_RUNS
    if not reason and before.target == "wafer" and table == "bursts" and column and nothing_takes(before, after, segment, row, runs):
        return "other results, or on other cores, where nothing takes them: absurd values in their place change no number" + BY_RUNS
    return reason


def _tables(program: Program, segment: int) -> Mapping[str, Table]:
    return program.tables if segment < 0 else program.segments[segment].tables


def _pair(before: Program, after: Program, segment: int, table: str, row: int, column: str) -> tuple[Any, Any]:
    """The field before and after."""
    return tuple(np.asarray(_tables(p, segment)[table][column][row]).tolist() for p in (before, after))  # type: ignore[return-value]


# ---- TSP ---------------------------------------------------------------------------------------------------------------------------


def _tsp(before: Program, after: Program, segment: int, table: str, row: int, column: str) -> str:
    if table == "bindings":
        return _tsp_region(before, after, row)
    if table == "bursts" and column != "modular" and carries_nothing_live(before, after):
        return "moves other bytes, none of which an output or a state depends on"
    if not column:
        return ""
    old, new = _pair(before, after, segment, table, row, column)
    if table == "allocations" and column in ("row", "bank"):
        return "an allocation at other rows, which are free (TSP-010)"
    if table in ("allocations", "objects") and (new > old if column == "rows" else column in ("west", "east") and new & old == old):
        return "a larger allocation or object, on free rows (TSP-010)"
    if table == "objects" and column in ("rows", "west", "east"):
        return "a smaller object, which every access stays within (TSP-002)"
    if table == "bursts" and column == "modular":
        return "what a cast or sum does with values beyond its range, which do not occur" + BY_RUNS
    if table == "bursts" and column == "dtype" and _bits_alone(before, segment, row, old, new):
        return "the bits are the same whichever type of that width they have"
    if table == "placements" and column == "image" and np.array_equal(before.images[f"image.{old}"], before.images[f"image.{new}"]):
        return "another image with the same bytes"
    if table == "binds" and column == "allocation" and _same_constant(before, old, new):
        return "another constant with the same bytes"
    return ""


def _bits_alone(program: Program, segment: int, row: int, old: int, new: int) -> bool:
    """Whether a burst of the vector unit treats its operands as bits, as many in either type."""
    bits = (Opcode.IDENTITY, Opcode.AND, Opcode.OR, Opcode.XOR, Opcode.SELECT, Opcode.MASK_BAR)
    return _tables(program, segment)["bursts"]["opcode"][row] in bits and WIDTH[DType(old)] == WIDTH[DType(new)]


def _same_constant(program: Program, one: int, other: int) -> bool:
    placed = dict(zip(program.tables["placements"]["allocation"].tolist(), program.tables["placements"]["image"].tolist(), strict=True))
    if one not in placed or other not in placed:
        return False
    return np.array_equal(program.images[f"image.{placed[one]}"], program.images[f"image.{placed[other]}"])


def _same_places(x: Region, y: Region, planes: int | None = None) -> bool:
    """Whether two regions lie in the same rows of the same allocation, in their first byte planes."""
    same = np.array_equal(x.units[:planes], y.units[:planes]) and np.array_equal(x.rows[:planes], y.rows[:planes])
    return x.allocation == y.allocation and same


def _tsp_region(before: Program, after: Program, row: int) -> str:
    """Regions that lay the same elements in the same places, but for byte planes that are always zero and lanes that held nothing."""
    old, new = before.bindings[row], after.bindings[row]
    machine = TspMachine.model_validate(dict(before.machine))
    pairs = [(lay_out(x, old.shape, machine), lay_out(y, old.shape, machine)) for x, y in zip(old.where, new.where, strict=True)]
    same = [np.array_equal(x.elements, y.elements) for x, y in pairs]
    if all(same) and all(_same_places(x, y) for x, y in pairs):
        return "a region that lays out the same"
    if old.kind == "input" and old.range is not None and old.range[0] >= 0:
        planes = max(1, (int(old.range[1]).bit_length() + 7) // 8)
        if all(same) and all(_same_places(x, y, planes) for x, y in pairs):
            return "byte planes that are zero for every value in range, at other places"
    wider = all(_same_places(x, y) and (y.elements[x.elements >= 0] == x.elements[x.elements >= 0]).all() for x, y in pairs)
    if old.kind != "output" and wider:
        return "lanes that no operation of this program passes on hold values as well"
    return ""


# ---- CGLA --------------------------------------------------------------------------------------------------------------------------


def _cgla(before: Program, after: Program, segment: int, table: str, row: int, column: str) -> str:
    if not column:
        if table == "descriptors" and _descriptors_held(before) == _descriptors_held(after):
            return "a descriptor that the lane holds already: it holds the same ones after every RANGE phase"
        return ""
    old, new = _pair(before, after, segment, table, row, column)
    if column == "core":
        return "another free core of the same board does the work (CGLA-033)"
    if column == "start":
        return "a start inside its slack: nothing waits for it (CGLA-030), the end is the same"
    if table == "descriptors":
        return "every request is still taken or given by the rows that it lists, and no others (CGLA-022, CGLA-023)"
    if table in ("buffers", "symbols") and column == "bytes" and new > old:
        return "a larger buffer or symbol, on free bytes (CGLA-036)"
    if (table, column) in (("buffers", "address"), ("binds", "offset")):
        return "a buffer or symbol at other bytes, which are free (CGLA-036)"
    if table == "launches" and column == "ranges":
        return "the launch relies on no descriptor (CGLA-022)"
    if column in ("ea0", "ea1") and {old, new} <= {0, MEMORY_CODE["IM_PREF"], MEMORY_CODE["IM_DRAIN"]}:
        return "the permission of a slot for requests during EXEC, of which none comes (CGLA-026)"
    if column == "init" and old ^ new == 2 and all(plan.loop0 == 1 for plan in _plans(before, int(before.tables["slots"]["kernel"][row]))):
        return "a gate that opens at the first step of the inner loop, which has one step"
    if table == "dmas" and _sources(before) == _sources(after):
        return "every launch and drain takes the same bytes of the same requests: what the lane lacks it holds already"
    if table == "slots" and column.startswith("expand") and _halves_equal(before, row, column):
        return "both halves of the operand are the same constant"
    if table == "slots" and column in ("ea0_mask", "ea1_mask") and _same_addresses(before, after):
        return "another part of the offset, which has the same value in every iteration of every launch"
    if table == "slots" and _addresses_alone(before, after):
        return "reaches addresses alone, which are the same in every iteration of every launch"
    if table == "slots" and _unread(before, after):
        return "results of padding: no request or task reads the bytes that they are drained to"
    if column == "dtype" and table in ("host_operands", "host_exprs") and all(_zeros(p, segment, table, row) for p in (before, after)):
        return "a task that stores 0, whose bytes are 0 in either type"
    if table == "host_exprs" and column == "real" and _guard(before, segment, row):
        return "the value of a branch that is not taken" + BY_RUNS
    if table == "host_exprs" and column == "dtype" and _truth(before, segment, row):
        return "a truth value held as another type that has 0 and 1" + BY_RUNS
    if table == "host_exprs" and column == "dtype" and _both_whole(old, new):
        return "a whole number held in another width that it fits" + BY_RUNS
    if table == "host_exprs" and column == "dtype" and HOST_DTYPES[old] in ("i64", "i32", "i16") and HOST_DTYPES[new] in ("f32", "f64"):
        return "a whole number held as a float that has it exactly" + BY_RUNS
    if table == "host_exprs" and column in ("integer", "op", "a", "b", "c") and _whole(before, segment, row):
        return "index arithmetic for values that the inputs do not lead to" + BY_RUNS
    return ""


def _plans(program: Program, kernel: int) -> list[LaunchPlan]:
    """All launches of a kernel."""
    return [plan for report in judge(decode(program)).reports.values() for plan in report.launches.values() if plan.kernel.number == kernel]


def _sources(program: Program) -> dict[tuple[int, str, int], list[bytes]]:
    """By (instance, "launch" or "dma", number): where what it takes of the local memories comes from. A word of a lane is named by the
    symbol's byte that was loaded, with the number of writes of that symbol before it, or by the store of a launch."""
    verdict = judge(decode(program))
    machine = verdict.decoded.machine
    memories = {lane: np.full((machine.rows, machine.lmm_bytes // WORD, 3), -1, np.int64) for lane in range(machine.lanes)}
    found: dict[tuple[int, str, int], list[bytes]] = {}
    for instance, (number, _) in enumerate(verdict.instances):
        report, written = verdict.reports[number], Counter[int]()
        lanes = report.segment.tables["launches"]["lane"].tolist()
        dmas = {dma["index"]: dma for dma in report.dmas}
        for _, kind, index in report.steps:
            if kind == "host":
                written[int(report.tasks[index].operands[0].symbol)] += 1
            elif kind == "launch":
                memory, accesses = memories[lanes[index]], report.launches[index].accesses
                found[instance, kind, index] = [memory[a.row, a.physical(a.words) // WORD].tobytes() for a in accesses if not a.store]
                for k, a in enumerate(accesses):
                    if a.store:
                        memory[a.row, a.physical(a.words) // WORD] = np.stack(
                            np.broadcast_arrays(instance << 32 | index, -2 - k, a.words), axis=-1
                        )
            else:
                dma = dmas[index]
                taken = []
                for part in report.parts[index]:
                    for physical, logical, count in pieces(part):
                        words = memories[dma["lane"]][part[0], physical // WORD : (physical + count) // WORD]
                        byte = dma["offset"] + np.arange(logical, logical + count, WORD) - dma["lmm"]
                        taken.append(words.tobytes() + byte.tobytes())
                        if dma["direction"] == Direction.LOAD:
                            name = dma["symbol"] if dma["index_symbol"] == -1 else -2 - index  # which bytes come follows from data
                            words[:] = np.stack(np.broadcast_arrays(instance << 32 | name, written[dma["symbol"]], byte), axis=-1)
                if dma["direction"] == Direction.DRAIN:
                    found[instance, kind, index] = [dma["symbol"].to_bytes(8, "little"), *taken]
                    written[dma["symbol"]] += 1
    return found


def _descriptors_held(program: Program) -> list[tuple[int, dict[tuple[int, int], tuple[int, int, int, int]]]]:
    """(lane, all that it holds) after every RANGE phase, instance after instance."""
    sets, found = decode(program).range_sets, []
    lanes: dict[int, dict[tuple[int, int], tuple[int, int, int, int]]] = {}
    for number in program.tables["instances"]["segment"].tolist():
        phases = program.segments[number].tables["phases"]
        for k in np.argsort(phases["start"], kind="stable").tolist():
            if phases["kind"][k] == Phase.RANGE:
                lane = int(phases["lane"][k])
                lanes[lane] = lanes.get(lane, {}) | sets.get(int(phases["target"][k]), {})
                found.append((lane, lanes[lane]))
    return found


def _zeros(program: Program, segment: int, table: str, row: int) -> bool:
    """Whether a row of host operands or expressions is of a task that stores the constant 0, in a type of the same width as its result."""
    tables = _tables(program, segment)
    name = "operand" if table == "host_operands" else "expr"
    first, count = tables["host_tasks"][f"first_{name}"], tables["host_tasks"][f"{name}s"]
    task = int(np.flatnonzero((first <= row) & (row < first + count))[0])
    expr, target = (int(tables["host_tasks"][column][task]) for column in ("first_expr", "first_operand"))
    exprs, target_type = tables["host_exprs"], HOST_DTYPES[tables["host_operands"]["dtype"][target]]
    zero = exprs["real"][expr] == 0 and not np.signbit(exprs["real"][expr]) and exprs["integer"][expr] == 0
    alone = tables["host_tasks"]["exprs"][task] == 1 and tables["host_tasks"]["operands"][task] == 1
    return bool(alone and EXPR_OPS[exprs["op"][expr]] == "const" and zero and target_type.endswith("32"))


def _same_addresses(before: Program, after: Program) -> bool:
    """Whether every access of every launch has the same address in every iteration."""
    one, two = judge(decode(before)), judge(decode(after))
    for number, report in one.reports.items():
        for launch, plan in report.launches.items():
            other = two.reports[number].launches.get(launch)
            if other is None or len(other.accesses) != len(plan.accesses):
                return False
            for x, y in zip(plan.accesses, other.accesses, strict=True):
                if (x.row, x.col, x.ea, x.op) != (y.row, y.col, y.ea, y.op):
                    return False
                if not np.array_equal(x.base + x.offsets.vector, y.base + y.offsets.vector):
                    return False
                if (x.enable is None) != (y.enable is None) or not np.array_equal(x.enable, y.enable):
                    return False
    return True


def _addresses_alone(before: Program, after: Program) -> bool:
    """Whether what changed reaches no stored value and no predicate of a store, and every launch accesses the same words."""
    kernels = zip(decode(before).kernels, decode(after).kernels, strict=True)
    return not any(new.slots[place].stores for old, new in kernels for place in _reached(old, new, ("ex", "pred"))) and _same_addresses(
        before, after
    )


def _unread(before: Program, after: Program) -> bool:
    """Whether the values that changed reach stores alone whose words go, by every drain that may take them, to bytes that nobody reads."""
    verdict, kernels = judge(decode(after)), (decode(before).kernels, decode(after).kernels)
    if any(breach.unit != PROGRAM_END for breach in verdict.violations):
        return False
    changed = {new.number: _reached(old, new) for old, new in zip(*kernels, strict=True)}
    read = _read_bytes(verdict)
    for index, (number, _) in enumerate(verdict.instances):
        report = verdict.reports[number]
        lanes = report.segment.tables["launches"]["lane"].tolist()
        for launch, plan in report.launches.items():
            for access in plan.accesses:
                if not access.store or (access.row, access.col) not in changed[plan.kernel.number]:
                    continue
                words = access.words
                if any(_loaded(other, access.row, words) for other in report.launches.values()):
                    return False
                for dma in report.dmas:
                    if dma["direction"] == Direction.DRAIN and dma["lane"] == lanes[launch]:
                        buffer, start = verdict.binds[index][dma["symbol"]]
                        mine = words[(words >= dma["lmm"]) & (words < dma["lmm"] + dma["bytes"])] - dma["lmm"] + dma["offset"] + start
                        if any(part[0] == access.row for part in report.parts[dma["index"]]) and read[buffer][mine].any():
                            return False
    return any(changed.values())


def _loaded(plan: LaunchPlan, row: int, words: np.ndarray) -> bool:
    return any(not a.store and a.row == row and bool(np.intersect1d(a.words, words).size) for a in plan.accesses)


def _reached(old: Kernel, new: Kernel, ways: tuple[str, ...] = ("ex", "pred", "br_")) -> set[tuple[int, int]]:
    """Slots of which an operand, predicate, address or stored value comes from elsewhere, and all that these reach; `ways`: fields by which
    a value reaches another slot."""
    if old.slots.keys() != new.slots.keys():
        return set(new.slots)
    found: set[tuple[int, int]] = set()
    while True:
        more = {place for place in new.slots if place not in found and _differs(old, new, place, found, ways)}
        if not more:
            return found
        found |= more


def _differs(old: Kernel, new: Kernel, place: tuple[int, int], found: set[tuple[int, int]], ways: tuple[str, ...]) -> bool:
    kept = {name: value for name, value in old.slots[place].fields.items() if not name.startswith(("tr", "br"))}
    if any(new.slots[place][name] != value for name, value in kept.items()):
        return True
    sources = []
    for kernel in (old, new):
        reads = [kernel.driver(row, select) for name, row, select in kernel.reads(place) if name.startswith(ways)]
        sources.append(
            reads + (list(Dataflow(kernel, {}, (1,), 1, no_loads).stored(kernel.slots[place])) if kernel.slots[place].stores else [])
        )
    made = [value for value in sources[1] if value is not None and value.kind == "alu" and (value.row, value.col) != place]
    return sources[0] != sources[1] or any((value.row, value.col) in found for value in made)


def _read_bytes(verdict: Verdict) -> list[np.ndarray]:
    """For every buffer which bytes some task, request, output or state takes."""
    table = verdict.decoded.program.tables["buffers"]
    kinds, sizes = table["kind"].tolist(), table["bytes"].tolist()
    read = [np.full(size, kind != BufferKind.WORK) for kind, size in zip(kinds, sizes, strict=True)]
    for index, (number, _) in enumerate(verdict.instances):
        report = verdict.reports[number]
        spans = [(dma["symbol"], np.array([dma["offset"]]), dma["bytes"]) for dma in report.dmas if dma["direction"] == Direction.LOAD]
        for task in report.tasks:
            if not isinstance(task, HostTask):
                return [np.ones(size, dtype=bool) for size in sizes]
            spans += [(operand.symbol, *task.runs(i)) for i, operand in enumerate(task.operands) if i or operand.lookups]
        for dma in report.dmas:
            if dma["index_symbol"] != -1:
                spans.append((dma["symbol"], np.array([0]), report.symbols[dma["symbol"]]))
                spans.append((dma["index_symbol"], np.array([dma["index_offset"]]), dma["index_bytes"]))
        for symbol, starts, run in spans:
            buffer, offset = verdict.binds[index][symbol]
            for start in starts.tolist():
                read[buffer][offset + start : offset + start + run] = True
    return read


def _truth(program: Program, segment: int, row: int) -> bool:
    return HOST_DTYPES[int(_tables(program, segment)["host_exprs"]["dtype"][row])] == "bool"


def _whole(program: Program, segment: int, row: int) -> bool:
    return HOST_DTYPES[int(_tables(program, segment)["host_exprs"]["dtype"][row])] in ("i64", "i32", "i16", "bool")


def _both_whole(old: int, new: int) -> bool:
    return all(HOST_DTYPES[code][0] in "ib" and HOST_DTYPES[code] != "bf16" for code in (old, new))


def _guard(program: Program, segment: int, row: int) -> bool:
    """Whether an entry is a constant that its task uses as a branch of selections alone."""
    tables = _tables(program, segment)
    exprs = {name: column.tolist() for name, column in tables["host_exprs"].items()}
    tasks = zip(tables["host_tasks"]["first_expr"].tolist(), tables["host_tasks"]["exprs"].tolist(), strict=True)
    first, count = next((first, count) for first, count in tasks if first <= row < first + count)
    users = [
        (EXPR_OPS[exprs["op"][i]], place)
        for i in range(first, first + count)
        for place in "abc"
        if EXPR_OPS[exprs["op"][i]] not in LEAVES and exprs[place][i] == row - first
    ]
    return EXPR_OPS[exprs["op"][row]] == "const" and set(users) <= {("select", "b"), ("select", "c")} and bool(users)


def _halves_equal(program: Program, row: int, column: str) -> bool:
    """Whether the operand of a slot is a constant with two equal words in every register set that has it."""
    slots, registers = program.tables["slots"], program.tables["registers"]
    select = int(slots[f"ex{column[-1]}"][row])
    place = (int(slots["row"][row]) - 1) % 64, select // 4, select % 4
    mine = (registers["row"] == place[0]) & (registers["col"] == place[1]) & (registers["register"] == place[2])
    values = registers["value"][mine]
    return len(values) > 0 and bool((values >> np.uint64(32) == values & np.uint64(0xFFFFFFFF)).all())


# ---- wafer -------------------------------------------------------------------------------------------------------------------------

_ALIKE = ({ObjectKind.WEIGHT, ObjectKind.CONSTANT}, {ObjectKind.ACTIVATION, ObjectKind.SCRATCH})


def _wafer(before: Program, after: Program, segment: int, table: str, row: int, column: str) -> str:
    if not column or table == "bindings":
        return ""
    old, new = _pair(before, after, segment, table, row, column)
    if table == "objects" and column == "kind" and any({old, new} <= alike for alike in _ALIKE):
        return "weight and constant, activation and scratch are the same to every rule"
    if table == "objects" and column == "kind" and new == ObjectKind.OUTPUT and old in (ObjectKind.ACTIVATION, ObjectKind.SCRATCH):
        return "an object that is kept to the end, on words that stay free (W42)"
    if table == "regions" and column in ("w", "h") and new > old:
        return "a larger region, of which no more cores do anything (W02, W28)"
    if table == "objects" and column == "ext" and all(n >= o for o, n in zip(old, new, strict=True)):
        return "a longer object on free words (W42)"
    if (table, column) in (("objects", "word"), ("binds", "word")):
        return "an object on other free words (W42) with the same bank conflicts (W11)"
    alone = len(before.tables["instances"]["x"]) == 1 and all(len(s.tables["regions"]["x"]) == 1 for s in before.segments)
    if table in ("instances", "regions") and column in ("x", "y") and alone:
        return "the whole program elsewhere on the wafer"
    if table == "routes" and _same_flows(before, after, segment):
        return "routers that no wavelet passes: every burst's wavelets go the same way"
    if table != "bursts":
        return ""
    bursts = _tables(before, segment)["bursts"]
    if column == "id" and not np.isin(_tables(after, segment)["bursts"]["after"], (old, new)).any():
        return "another name of a burst that no other names"
    if column == "imm" and bursts["op"][row] == Op.SEL and OperandKind.IMM in (bursts["b_kind"][row], bursts["s_kind"][row]):
        return "the value of a choice that is not taken" + BY_RUNS
    if column == "ext" and _repeats(bursts, row, old, new):
        return "an extent along which no operand steps: the same elements are made from the same ones again"
    trigger = int(bursts["trigger"][row])
    if column == "trigger" and new == Trigger.HOLD:
        return "held until the very cycle at which it would start (W37)"
    if column in ("qin", "qout", "mt"):
        return "another queue that is free and deep enough (W36, W38, W39)"
    if column == "after":
        return "a predecessor that ends no later than another one, or than the held start (W37)"
    if column in ("t0", "ty", "tx", "vy", "vx") and trigger == Trigger.HOLD:
        return "a held time inside its slack (W37)"
    if column.endswith("_wrap") and _no_phase(bursts, row, column[0], old, new):
        return "a modulus that no phase reaches"
    return ""


def _same_flows(before: Program, after: Program, segment: int) -> bool:
    """Whether the wavelets of every burst that sends go the same way; never, where routers change meanwhile."""
    one, two = _flows(before, segment), _flows(after, segment)
    return (
        bool(one) and len(one) == len(two) and all(np.array_equal(a, b) for x, y in zip(one, two, strict=True) for a, b in _columns(x, y))
    )


def _columns(one: Flow, other: Flow) -> list[tuple[np.ndarray, np.ndarray]]:
    return [(getattr(one, name), getattr(other, name)) for name in ("dst", "src", "hops", "link", "link_src", "link_hops")]


def _flows(program: Program, segment: int) -> list[Flow]:
    seg = view_segment(program.segments[segment], from_json(program.machine, "the program's machine"))
    fabric = Fabric(seg, Hops.straight(seg.w, seg.h), Breaches(frozenset(), program.provenance))
    senders = [burst for burst in seg.bursts if burst.n_out]
    return [fabric.static_flow(burst) for burst in senders] if all(fabric.is_static(burst) for burst in senders) else []


def _repeats(bursts: Table, row: int, old: list[int], new: list[int]) -> bool:
    """Whether a burst of one operation an element steps in no operand along the extents that changed, and does not read what it writes."""
    meaning = OPS[Op(int(bursts["op"][row])), Fmt(int(bursts["fmt"][row]))].meaning
    if meaning not in (Semantics.UNARY, Semantics.BINARY, Semantics.SELECT, Semantics.CONVERT):
        return False
    kinds = {p: bursts[f"{p}_kind"][row] for p in OPERANDS}
    memory = [p for p in OPERANDS if kinds[p] == OperandKind.MEM]
    still = all(bursts[f"{p}_stride"][row][k] == 0 for p in memory for k in range(4) if old[k] != new[k])
    reads = {int(bursts[f"{p}_obj"][row]) for p in memory if p != "d"}
    return still and OperandKind.FABRIC not in kinds.values() and int(bursts["d_obj"][row]) not in reads


def _no_phase(bursts: Table, row: int, operand: str, old: list[int], new: list[int]) -> bool:
    """Whether phases of an operand outside loops stay below its moduli, old and new (none is 0)."""
    assert operand in OPERANDS
    if bursts["loop"][row] != -1 or bursts[f"{operand}_pvy"][row] != -1 or bursts[f"{operand}_pvx"][row] != -1 or old[1] != new[1]:
        return False
    last = (int(bursts["rows"][row][1]) - 1) * int(bursts[f"{operand}_py"][row]) + (int(bursts["cols"][row][1]) - 1) * int(
        bursts[f"{operand}_px"][row]
    )
    low = min(int(bursts[f"{operand}_py"][row]), int(bursts[f"{operand}_px"][row]))
    return low >= 0 and all(w == 0 or last < w for w in (old[0], new[0]))
