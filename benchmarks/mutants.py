"""Does the executor notice? Change one field of a compiled program, at random, and see whether it is rejected or gives other numbers.

    python benchmarks/mutants.py [-t tsp -t cgla -t wafer] [--count 300] [--seed 0] [--workers 2] [--no-directed]

The programs are one Llama layer with embedding and head, as a decode step with a KV cache and as a prefill, compiled for each machine.
A mutant is one change: a field of one row of one table, an integer of a binding, a dropped row or a duplicated row. Fields are drawn by
category (cycle, address, stride, ...), so that rare kinds are hit as often as common ones. Digests follow the change, and the rules that
only compare the predicted with the counted cycles are off in the random campaign, since they would hide the others. A mutant is

- *rejected*: some rule is broken (or the container cannot be read);
- *other numbers*: some output or state differs, on one of several inputs;
- *other cycles*: the count differs and the numbers do not: a slower schedule of the same computation, seen by the predicted-cycles rule;
- *harmless*: it is proven to mean the same (`mutants_harmless.py`, one proof a reason);
- *survivor*: none of these. At most 1 % may be.

Last, every rule id must have a broken program of its own that it rejects: those of the executors' rule tests. `alone` counts the
programs, random or own, that this rule rejects and no other.
"""

from __future__ import annotations

import argparse
import copy
import importlib
import sys
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field, replace
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mutants_harmless import harmless

from spatialc import api, errors
from spatialc.machines.program import Program, Segment, Table
from spatialc.models.llama import Llama, LlamaConfig, LlamaDecode

PREDICTED = {"tsp": frozenset({"TSP-060"}), "cgla": frozenset({"CGLA-032-end"}), "wafer": frozenset({"W52"})}
TARGETS = tuple(PREDICTED)
NAMES_ONLY = frozenset({"provenance", "prov", "label"})
"""Columns that say where a row comes from and mean nothing to the machine."""

CATEGORIES: dict[str, dict[str, str]] = {
    "tsp": {
        "bursts": "t0=cycle i=cycle i2=cycle unit=unit opcode=opcode n=count n2=count row=address object=address row0=address "
        "entry=address stride=stride stride2=stride entry_stride=stride entry_stride2=stride a_stream=stream b_stream=stream "
        "m_stream=stream "
        "a_dir=stream b_dir=stream m_dir=stream dtype=format dtype2=format half=format amount=stride link=unit *=flag",
        "claims": "stream=stream direction=stream until=claim burst=claim",
        "objects": "rows=count *=unit",
        "instances": "offset=cycle *=unit",
        "binds": "row=address *=bind",
        "allocations": "row=address bank=address rows=count kind=bind *=unit",
        "placements": "*=bind",
        "links": "*=unit",
    },
    "cgla": {
        "slots": "kernel=unit row=unit col=unit op1=opcode op2=opcode op3=opcode mode=opcode ea0=opcode ea1=opcode ea0_base=address "
        "ea1_base=address ea0_offset=address ea1_offset=address ea0_mask=address ea1_mask=address br_base=address br_offset=address "
        "lmm=address self=flag init=flag fold=flag *=operand",
        "registers": "value=address *=unit",
        "descriptors": "top=address bottom=address *=flag",
        "buffers": "address=address bytes=count *=bind",
        "instances": "cycle=cycle segment=unit",
        "binds": "offset=address *=bind",
        "symbols": "bytes=count",
        "entry": "*=unit",
        "phases": "start=cycle length=cycle *=unit",
        "launches": "start=cycle length=cycle *=unit",
        "dmas": "start=cycle length=cycle iv_num=cycle iv_den=cycle offset=address lmm=address index_offset=address bytes=count "
        "index_stride=stride index_limit=count index_bytes=format direction=opcode *=unit",
        "host_tasks": "start=cycle length=cycle kind=opcode op=opcode core=unit axis=operand flag=flag *=count",
        "host_axes": "*=count",
        "host_operands": "offset=address dtype=format symbol=address",
        "host_terms": "stride=stride *=operand",
        "host_lookups": "stride=stride limit=count *=operand",
        "host_exprs": "op=opcode dtype=format real=value integer=value *=operand",
    },
    "wafer": {
        "bursts": "t0=cycle ty=cycle tx=cycle vy=cycle vx=cycle dense=cycle span=cycle op=opcode fmt=format trigger=trigger after=trigger "
        "lag=trigger rows=unit cols=unit region=unit loop=trigger id=trigger imm=value ext=count cin=colour cout=colour "
        "qin=queue qout=queue "
        "q=queue mt=queue control=flag look=address *=address",
        "regions": "first=cycle last=cycle *=unit",
        "objects": "word=address ext=count stride=stride fmt=format *=bind",
        "routes": "colour=colour since=cycle *=route",
        "loops": "rep=count period=cycle first=cycle *=trigger",
        "pool": "*=cycle",
        "instances": "start=cycle *=unit",
        "binds": "word=address *=bind",
        "placements": "*=placement",
        "streams": "*=cycle",
    },
}
"""Category of each field by table; `*` stands for the rest. Names with a suffix _stride or _step of the wafer's operands are strides."""


@dataclass(frozen=True)
class Subject:
    """One compiled program with the inputs and states that it is judged on."""

    name: str
    program: Program
    runs: tuple[tuple[Mapping[str, np.ndarray], Mapping[str, np.ndarray]], ...]


@dataclass(frozen=True)
class Place:
    """One table of a program: `segment` is the position of its segment, -1 for the program's own tables."""

    segment: int
    table: str


@dataclass(frozen=True)
class Mutant:
    """A changed program and what was changed. `columns` is empty for dropped and duplicated rows and bindings."""

    program: Program
    category: str
    place: Place
    row: int
    column: str
    what: str


@dataclass(frozen=True)
class Verdict:
    """`kind` is rejected, numbers, cycles, harmless, survivor or crash; `detail` the first rule, the reason or the exception."""

    category: str
    what: str
    kind: str
    detail: str = ""
    rules: frozenset[str] = field(default_factory=frozenset)


# ---- programs ----------------------------------------------------------------------------------------------------------------------


VOCABULARY = 40
WIDE_RUNS = VOCABULARY
"""Runs of a subject: as many as there are token ids; positions from the end of the cache (negative ones) are among them. The first few
find what is to be found; the others prove integer arithmetic equal over the whole range of its inputs before a change of it is called
harmless."""
RUNS = 4


def llama(width: int = 32, vocabulary: int = VOCABULARY) -> Llama:
    """One decoder layer with random weights; norms have weights other than one, so that dropping them shows."""
    torch.manual_seed(1)
    model = Llama(LlamaConfig(vocabulary=vocabulary, width=width, layers=1, heads=2, kv_heads=1, hidden=2 * width, context=8))
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "norm" in name:
                parameter.uniform_(0.5, 1.5)
    return model.eval()


def decode_subject(target: str) -> Subject:
    """A decode step of 8 positions; the last run has every position visible, the others other tokens and places."""
    step = LlamaDecode(llama(), 1, 8).eval()
    program = api.compile(step, (torch.tensor([[3]]), torch.tensor([5])), target=target)
    rng = np.random.default_rng(7)
    runs = []
    for number in range(WIDE_RUNS):  # every token and every position that the program takes, those from the end included
        token, position = (3 + 37 * number) % VOCABULARY, (13 + 11 * number) % 16 - 8
        inputs = program._inputs((torch.tensor([[token]]), torch.tensor([position])), {}, timing_only=False)
        states = {b.name: rng.standard_normal(b.shape).astype(np.float32) for b in program.container.bindings_of("state")}
        runs.append((inputs, states))
    return Subject("decode", program.container, tuple(runs))


def prefill_subject(target: str) -> Subject:
    """A prefill of 6 tokens."""
    ids = [[(3 + 37 * run + 11 * place) % VOCABULARY for place in range(6)] for run in range(WIDE_RUNS)]
    program = api.compile(llama(64), (torch.tensor(ids[:1]),), target=target)
    return Subject("prefill", program.container, tuple((program._inputs((torch.tensor([row]),), {}, timing_only=False), {}) for row in ids))


SUBJECTS: dict[str, Callable[[str], Subject]] = {"decode": decode_subject, "prefill": prefill_subject}


# ---- mutants -----------------------------------------------------------------------------------------------------------------------


def rows_of(table: Table) -> int:
    return len(next(iter(table.values()), ()))


def tables_of(program: Program) -> dict[Place, Table]:
    """Every table with rows, in a fixed order."""
    found = {Place(-1, name): table for name, table in sorted(program.tables.items())}
    for number, segment in enumerate(program.segments):
        found |= {Place(number, name): table for name, table in sorted(segment.tables.items())}
    return {place: table for place, table in found.items() if rows_of(table)}


def with_table(program: Program, place: Place, table: Table) -> Program:
    """The program with one table replaced."""
    if place.segment < 0:
        return program.with_tables(**{place.table: table})
    segments = list(program.segments)
    old = segments[place.segment]
    segments[place.segment] = Segment(old.name, {**old.tables, place.table: table})
    return replace(program, segments=tuple(segments))


def category_of(target: str, table: str, column: str) -> str:
    """The category of one field."""
    known = dict(item.split("=") for item in CATEGORIES[target][table].split())
    if target == "wafer" and table == "bursts" and column not in known:
        return "stride" if column.endswith(("_stride", "_step", "_wrap")) else "operand" if column.endswith("_kind") else "address"
    return known[column] if column in known else known["*"]


def fields_of(program: Program) -> dict[str, list[tuple[Place, str]]]:
    """Category to the fields that belong to it."""
    found: dict[str, list[tuple[Place, str]]] = {}
    for place, table in tables_of(program).items():
        for column in sorted(table):
            if column not in NAMES_ONLY:
                found.setdefault(category_of(program.target, place.table, column), []).append((place, column))
    for kind in ("dropped row", "duplicated row"):
        found[kind] = [(place, "") for place in tables_of(program)]
    for kind in ("dropped burst", "duplicated burst"):
        found[kind] = [(place, "") for place in tables_of(program) if place.table in BURST_TABLES[program.target]]
    found["binding"] = [(Place(-1, "bindings"), "")]
    return found


BURST_TABLES = {"tsp": ("bursts",), "cgla": ("phases", "launches", "dmas", "host_tasks", "slots"), "wafer": ("bursts",)}


def mutate(program: Program, generator: np.random.Generator) -> Mutant:
    """One random change; the category first, then a table by the square root of its size, a field, a row and a value."""
    fields = fields_of(program)
    categories = sorted(fields)
    while True:
        category = categories[int(generator.integers(len(categories)))]
        choices = fields[category]
        tables = tables_of(program)
        if category == "binding":
            return _rebind(program, generator)
        weights = np.sqrt([rows_of(tables[place]) for place, _ in choices])
        place, column = choices[int(generator.choice(len(choices), p=weights / weights.sum()))]
        row = _row(tables[place], column, generator)
        where = f"{program.segments[place.segment].name if place.segment >= 0 else 'program'}.{place.table}[{row}]"
        if category.startswith(("dropped", "duplicated")):
            change = {"dropped row": drop_row, "duplicated row": duplicate_row, "dropped burst": drop_burst}.get(category, duplicate_burst)
            return Mutant(change(program, place, row), category, place, row, "", f"{category} {where}")
        array = tables[place][column].copy()
        index = (row, *(int(generator.integers(n)) for n in array.shape[1:]))
        before = array[index].copy()
        array[index] = other_value(before, array, generator)
        if array[index] != before:
            what = f"{where}.{column}{list(index[1:]) or ''}: {before} -> {array[index]}"
            return Mutant(with_table(program, place, {**tables[place], column: array}), category, place, row, column, what)


def _row(table: Table, column: str, generator: np.random.Generator) -> int:
    """A row; mostly one in which the field is in use, since a change of an unused field is found by its canonical form alone."""
    if column and generator.random() < 0.75:
        array = table[column].reshape(rows_of(table), -1)
        used = np.flatnonzero(((array != 0) & (array != -1)).any(1))
        if len(used):
            return int(used[int(generator.integers(len(used)))])
    return int(generator.integers(rows_of(table)))


def other_value(before: np.generic, array: np.ndarray, generator: np.random.Generator) -> Any:
    """A different value of the column's type: another value that the column holds, a small step, a flipped bit or an extreme."""
    if array.dtype.kind == "f":
        return float(before) * 2 + 1
    info = np.iinfo(array.dtype)
    choice = generator.random()
    others = np.unique(array[array != before])
    if choice < 0.35 and len(others):
        return others[int(generator.integers(len(others)))]
    if choice < 0.45:
        value = int(before) ^ 1 << int(generator.integers(min(8 * array.itemsize - 1, 40)))
    elif choice < 0.48:
        value = int(generator.choice([0, -1, info.max]))
    else:
        value = int(before) + int(generator.choice([1, -1, 1, -1, 2, -2, 4, -4, 8, -8, 16, -16, 32, 64]))
    return value if info.min <= value <= info.max else before


def drop_row(program: Program, place: Place, row: int) -> Program:
    """The program without one row."""
    table = tables_of(program)[place]
    return with_table(program, place, {name: np.delete(array, row, 0) for name, array in table.items()})


def duplicate_row(program: Program, place: Place, row: int) -> Program:
    """The program with one row twice, one after the other."""
    table = tables_of(program)[place]
    return with_table(program, place, {name: np.insert(array, row, array[row], 0) for name, array in table.items()})


def drop_burst(program: Program, place: Place, row: int) -> Program:
    """The program without one burst: what refers to it forgets it, so that only its work is missing."""
    table = tables_of(program)[place]
    dropped = drop_row(program, place, row)
    if program.target == "tsp":
        claims = program.segments[place.segment].tables["claims"]
        mine = claims["burst"] != row
        rest = {name: array[mine] for name, array in claims.items()}
        rest["burst"] = rest["burst"] - (rest["burst"] > row).astype(np.int32)
        return with_table(dropped, Place(place.segment, "claims"), rest)
    if program.target == "wafer":
        kept = dict(tables_of(dropped).get(place, {}))
        if kept:
            kept["after"], kept["lag"] = _without(kept["after"], kept["lag"], int(table["id"][row]))
            return with_table(dropped, place, kept)
    return dropped


def _without(after: np.ndarray, lag: np.ndarray, number: int) -> tuple[np.ndarray, np.ndarray]:
    """The predecessor lists without one burst, unused places at the end."""
    after, lag = after.copy(), lag.copy()
    for row in np.flatnonzero((after == number).any(1)):
        kept = [(a, k) for a, k in zip(after[row], lag[row], strict=True) if a not in (number, -1)]
        after[row], lag[row] = -1, 0
        for place, (a, k) in enumerate(kept):
            after[row, place], lag[row, place] = a, k
    return after, lag


def duplicate_burst(program: Program, place: Place, row: int) -> Program:
    """The program with one burst twice, with its claims, under a number of its own."""
    if program.target == "cgla":
        return duplicate_row(program, place, row)
    table = tables_of(program)[place]
    if program.target == "wafer":
        copied = {name: np.insert(array, row + 1, array[row], 0) for name, array in table.items()}
        copied["id"][row + 1] = table["id"].max() + 1
        order = np.lexsort((copied["id"], copied["t0"], copied["region"]))
        return with_table(program, place, {name: array[order] for name, array in copied.items()})
    claims = program.segments[place.segment].tables["claims"]
    mine = np.flatnonzero(claims["burst"] == row)
    copies = {name: np.append(array, array[mine], axis=0) for name, array in claims.items()}
    copies["burst"][len(claims["burst"]) :] = rows_of(table)
    more = {name: np.append(array, array[row : row + 1], axis=0) for name, array in table.items()}
    return with_table(with_table(program, place, more), Place(place.segment, "claims"), copies)


def _rebind(program: Program, generator: np.random.Generator) -> Mutant:
    """One integer in one binding's regions changed."""
    bindings = list(program.bindings)
    while True:
        number = int(generator.integers(len(bindings)))
        where = copy.deepcopy(bindings[number].where)
        leaves = list(_leaves(where))
        if not leaves:
            number_of = {"binding": number}
            # the machine names the binding from its own tables: exchange it with another, or change its extent
            shape = bindings[number].shape
            if not shape:
                continue
            axis = int(generator.integers(len(shape)))
            new = tuple(n + (1 if k == axis else 0) for k, n in enumerate(shape))
            bindings[number] = replace(bindings[number], shape=new)
            what = f"bindings[{number_of['binding']}].shape: {shape} -> {new}"
        else:
            parent, key = leaves[int(generator.integers(len(leaves)))]
            before = parent[key]
            parent[key] = not before if isinstance(before, bool) else before + int(generator.choice([1, -1, 2, -2, 4, 32]))
            bindings[number] = replace(bindings[number], where=where)
            what = f"bindings[{number}] {bindings[number].name} {key}: {before} -> {parent[key]}"
        return Mutant(replace(program, bindings=tuple(bindings)), "binding", Place(-1, "bindings"), number, "where", what)


def _leaves(value: Any) -> list[tuple[Any, Any]]:
    """(container, key) of every number in JSON values."""
    found: list[tuple[Any, Any]] = []
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in items:
        found += [(value, key)] if isinstance(inner, (int, bool)) else _leaves(inner)
    return found


# ---- judging -----------------------------------------------------------------------------------------------------------------------


def simulate(target: str) -> Any:
    """The executor of a target."""
    return importlib.import_module(f"spatialc.runtime_sim.{target}")


def baseline(subject: Subject) -> list[Any]:
    """The first runs of the unchanged program; exits where it is not legal to begin with."""
    target = subject.program.target
    runs = [simulate(target).execute(subject.program, inputs, states) for inputs, states in subject.runs[:RUNS]]
    for run in runs:
        if run.violations:
            raise SystemExit(f"{target} {subject.name}: not legal to begin with: {run.violations[0]}")
    return runs


def judge(subject: Subject, expected: Sequence[Any], mutant: Mutant) -> Verdict:
    """Check, then run on one input after the other until something differs."""
    target = subject.program.target
    executor, skip = simulate(target), PREDICTED[target]
    told = (mutant.category, f"{subject.name}: {mutant.what}")
    try:
        violations = executor.check(mutant.program, skip=skip)
        slower = False
        for (inputs, states), wanted in zip(subject.runs, expected, strict=False):
            if violations:
                break
            run = executor.execute(mutant.program, inputs, states, skip=skip)
            violations = list(run.violations)
            if not violations and not (_equal(run.outputs, wanted.outputs) and _equal(run.states, wanted.states)):
                return Verdict(*told, "numbers")
            slower = slower or run.cycles != wanted.cycles
    except errors.BadInput as error:
        return Verdict(*told, "rejected", "container", frozenset({"container"}) if error else frozenset())
    except Exception as error:
        return Verdict(*told, "crash", f"{type(error).__name__}: {error}")
    if violations:
        return Verdict(*told, "rejected", violations[0].rule, frozenset(v.rule for v in violations))
    if slower:
        return Verdict(*told, "cycles")
    reason = harmless(subject.program, mutant.program, mutant.place.segment, mutant.place.table, mutant.row, mutant.column)
    if mutant.place.table == "host_exprs" and reason and not _agree(subject.program, mutant.program, subject.runs[RUNS:]):
        return Verdict(*told, "numbers")
    reason = reason or _of_these_data(subject, mutant)
    return Verdict(*told, "harmless", reason) if reason else Verdict(*told, "survivor")


def _agree(one: Program, other: Program, runs: Sequence[Any]) -> bool:
    """Whether two programs give the same numbers in all runs, none of which breaks a rule."""
    executor, skip = simulate(one.target), PREDICTED[one.target]
    for inputs, states in runs:
        first, second = (executor.execute(program, inputs, states, skip=skip) for program in (one, other))
        same = _equal(first.outputs, second.outputs) and _equal(first.states, second.states)
        if not same or bool(first.violations) != bool(second.violations):
            return False
    return True


def _of_these_data(subject: Subject, mutant: Mutant) -> str:
    """A change of what is read, written or computed with that shows as soon as constants hold other bytes: for the constants that the
    program has (padding of zeros, repeated values) it means the same. Legality and order do not depend on constants."""
    if mutant.place.table not in ("bursts", "slots", "registers", "host_operands", "host_terms", "host_exprs", "binds", "placements"):
        return ""
    rng = np.random.default_rng(5)
    images = {name: _noise(array, rng) for name, array in subject.program.images.items()}
    noisy = [replace(program, images=images) for program in (subject.program, mutant.program)]
    executor = simulate(subject.program.target)
    inputs, states = subject.runs[0]
    if executor.execute(noisy[0], inputs, states, skip=PREDICTED[subject.program.target]).violations:
        return ""
    if _agree(*noisy, subject.runs[:1]):
        return ""
    return "other constants would show it: it reads or leaves out padding or equal values"


def _noise(array: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Other values of the same type: small floats, bytes that make small floats of any width; index tables stay."""
    if array.dtype == np.uint8:
        return rng.integers(0, 0x3C, array.shape, dtype=np.uint8)
    return rng.uniform(0.1, 1.0, array.shape).astype(array.dtype) if array.dtype.kind == "f" else array


def _equal(found: Mapping[str, np.ndarray], wanted: Mapping[str, np.ndarray]) -> bool:
    return found.keys() == wanted.keys() and all(np.array_equal(found[k], wanted[k], equal_nan=wanted[k].dtype.kind == "f") for k in wanted)


def _judge_one(task: tuple[str, int, int]) -> Verdict:
    name, seed, number = task
    subject, expected = _STATE[name]
    return judge(subject, expected, mutate(subject.program, np.random.default_rng([seed, number])))


_STATE: dict[str, tuple[Subject, list[Any]]] = {}


def campaign(target: str, count: int, seed: int, subjects: Sequence[str] = ("decode", "prefill"), workers: int = 1) -> list[Verdict]:
    """`count` mutants of the compiled subjects, in turn; deterministic by seed whatever the number of workers."""
    _STATE.clear()
    for name in subjects:
        subject = SUBJECTS[name](target)
        _STATE[name] = (subject, baseline(subject))
    tasks = [(subjects[number % len(subjects)], seed, number) for number in range(count)]
    if workers == 1:
        return [_judge_one(task) for task in tasks]
    with ProcessPoolExecutor(workers, mp_context=get_context("fork")) as pool:
        return list(pool.map(_judge_one, tasks, chunksize=4))


# ---- rule by rule ------------------------------------------------------------------------------------------------------------------


def rule_tests(target: str) -> Any:
    """The rule tests of an executor."""
    folder = str(Path(__file__).resolve().parent.parent / "tests")
    if folder not in sys.path:
        sys.path.insert(0, folder)
    return importlib.import_module(f"test_{target}_rules")


def directed(target: str) -> dict[str, list[Callable[[], Program]]]:
    """Rule to the programs of the executor's rule tests that break it."""
    module = rule_tests(target)
    cases = module.BREAKS.items() if target == "wafer" else module.CASES
    found: dict[str, list[Callable[[], Program]]] = {}
    for rule, broken in cases:
        found.setdefault(rule, []).append(broken)
    return found


def gather_fault() -> tuple[Program, dict[str, np.ndarray]]:
    """The TSP program whose data break TSP-012: a Gather that is given a row outside its object."""
    module = rule_tests("tsp")
    codes = np.zeros((2, 20, 16), np.uint8)
    codes[:, :, 0] = 100
    codes[1, 3, 1] = 1
    return module.embedding(), {"codes": codes.reshape(2, 320)}


def rule_ids(target: str) -> list[str]:
    """Every rule of the machine's page."""
    numbers = {
        "tsp": [*range(1, 13), *range(20, 28), *range(30, 35), 40, 41, 50, 51, 60, 61],
        "cgla": range(1, 39),
        "wafer": [*range(1, 7), *range(10, 14), *range(20, 29), *range(30, 40), *range(40, 45), *range(50, 53)],
    }[target]
    return [f"TSP-{n:03}" if target == "tsp" else f"CGLA-{n:03}" if target == "cgla" else f"W{n:02}" for n in numbers]


@dataclass(frozen=True)
class RuleKills:
    """What one rule's own broken programs show: how many it rejects, of how many, and how many no other rule would reject."""

    cases: int
    kills: int
    alone: int


def directed_kills(target: str) -> dict[str, RuleKills]:
    """Every rule on its own broken programs; other rules may reject them as well, `alone` says how often none does."""
    rules = rule_ids(target)
    found = {}
    for rule, programs in directed(target).items():
        kills = alone = 0
        for broken in programs:
            named = {violation.rule for violation in simulate(target).check(broken())}
            kills += rule in named
            alone += named == {rule}
        found[rule] = RuleKills(len(programs), kills, alone)
    if target == "tsp":
        program, inputs = gather_fault()
        named = {violation.rule for violation in simulate(target).execute(program, inputs).violations}
        found["TSP-012"] = RuleKills(1, int("TSP-012" in named), int(named == {"TSP-012"}))
    return {rule: found.get(rule, RuleKills(0, 0, 0)) for rule in rules}


# ---- report ------------------------------------------------------------------------------------------------------------------------


def report(target: str, verdicts: Sequence[Verdict], kills: Mapping[str, RuleKills] | None) -> bool:
    """Print one backend's campaign; whether it stands: survivors at most 1 %, no crash, every rule kills a mutant of its own."""
    kinds = Counter(v.kind for v in verdicts)
    total = len(verdicts)
    bad = kinds["survivor"] + kinds["crash"]
    print(
        f"\n{target}: {total} mutants: {kinds['rejected']} rejected, {kinds['numbers']} other numbers, {kinds['cycles']} other cycles, "
        f"{kinds['harmless']} harmless, {kinds['survivor']} survive ({kinds['survivor'] / total:.1%}), {kinds['crash']} crash"
    )
    print("  category           mutants rejected numbers cycles harmless survive")
    for category in sorted({v.category for v in verdicts}):
        of = Counter(v.kind for v in verdicts if v.category == category)
        counts = [of[k] for k in ("rejected", "numbers", "cycles", "harmless")]
        print(f"  {category:18} {sum(of.values()):7} " + " ".join(f"{n:>8}" for n in counts) + f" {of['survivor'] + of['crash']:>7}")
    for kind in ("harmless", "survivor", "crash"):
        for verdict in verdicts:
            if verdict.kind == kind:
                print(f"  {kind}: {verdict.what}" + (f": {verdict.detail}" if verdict.detail else ""))
    first = Counter(v.detail for v in verdicts if v.kind == "rejected")
    seen = Counter(rule for v in verdicts for rule in v.rules)
    alone = Counter(next(iter(v.rules)) for v in verdicts if len(v.rules) == 1)
    print("  rule        random: first  among  alone" + ("   own: cases  kills  alone" if kills else ""))
    for rule in rule_ids(target) + sorted(set(seen) - set(rule_ids(target))):
        own = (kills or {}).get(rule)
        line = f"  {rule:12} {first[rule]:12} {seen[rule]:6} {alone[rule]:6}"
        print(line + (f" {own.cases:12} {own.kills:6} {own.alone:6}" if own else ""))
    idle = [rule for rule, own in (kills or {}).items() if own.kills < max(own.cases, 1)]
    if idle:
        print(f"  rules without a kill of their own: {', '.join(idle)}")
    return bad <= 0.01 * total and not kinds["crash"] and not idle


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-t", "--target", action="append", choices=sorted(PREDICTED))
    parser.add_argument("--count", type=int, default=300)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--subject", action="append", choices=sorted(SUBJECTS))
    parser.add_argument("--no-directed", action="store_true", help="leave the rules' own mutants out")
    options = parser.parse_args()
    good = True
    for target in options.target or TARGETS:
        start = time.perf_counter()
        verdicts = campaign(target, options.count, options.seed, options.subject or tuple(SUBJECTS), options.workers)
        good &= report(target, verdicts, None if options.no_directed else directed_kills(target))
        print(f"  {time.perf_counter() - start:.0f} s")
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
