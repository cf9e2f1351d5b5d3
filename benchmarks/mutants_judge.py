"""What an executor makes of a changed program, for `mutants.py`: the compiled programs, their inputs, and the verdict on a mutant."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from mutants_changes import Mutant
from mutants_harmless import BY_RUNS, harmless
from mutants_poison import same_numbers

from spatialc import api, errors
from spatialc.machines.program import Program
from spatialc.models.llama import Llama, LlamaConfig, LlamaDecode

PREDICTED = {"tsp": frozenset({"TSP-060"}), "cgla": frozenset({"CGLA-032-end"}), "wafer": frozenset({"W52"})}
TARGETS = tuple(PREDICTED)


@dataclass(frozen=True)
class Subject:
    """One compiled program with the inputs and states that it is judged on."""

    name: str
    program: Program
    runs: tuple[tuple[Mapping[str, np.ndarray], Mapping[str, np.ndarray]], ...]


@dataclass(frozen=True)
class Verdict:
    """`kind` is rejected, numbers, cycles, harmless, survivor or crash; `detail` the first rule, the reason or the exception."""

    category: str
    what: str
    kind: str
    detail: str = ""
    rules: frozenset[str] = field(default_factory=frozenset)


VOCABULARY = 40
WIDE_RUNS = VOCABULARY
"""Runs of a subject: as many as there are token ids; positions from the end of the cache (negative ones) are among them. The first few
find what is to be found; the others are for what they leave open: they show integer arithmetic equal over the whole range of its inputs
before a change of it is called harmless, and find what shows in few inputs, such as a low byte of a number that is rounded later."""
RUNS = 4
LARGEST = (1.0, 8.0)
"""Largest values of other constants: small ones, and such that softmax meets scores hundreds apart and shows any maximum but its own."""
OTHER_CONSTANTS = "other constants would show it: it reads or leaves out padding or equal values, or what rounding hides"


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
    """A decode step with a cache of 8 positions; runs differ in token and position."""
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
            if not violations and not same_numbers(run, wanted):
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
    place, few = mutant.place, subject.runs[:RUNS]
    reason = harmless(subject.program, mutant.program, place.segment, place.table, mutant.row, mutant.column, few)
    if (not reason or reason.endswith(BY_RUNS)) and not agree(subject.program, mutant.program, subject.runs[RUNS:]):
        return Verdict(*told, "numbers")
    reason = reason or _of_these_data(subject, mutant)
    return Verdict(*told, "harmless", reason) if reason else Verdict(*told, "survivor")


def agree(one: Program, other: Program, runs: Sequence[Any]) -> bool:
    """Whether two programs give the same numbers in all runs, none of which breaks a rule."""
    executor, skip = simulate(one.target), PREDICTED[one.target]
    for inputs, states in runs:
        first, second = (executor.execute(program, inputs, states, skip=skip) for program in (one, other))
        if not same_numbers(first, second) or bool(first.violations) != bool(second.violations):
            return False
    return True


def _of_these_data(subject: Subject, mutant: Mutant) -> str:
    """A change of what is read, written or computed with that shows as soon as constants hold other bytes: for the constants that the
    program has (padding of zeros, repeated values) it means the same. Legality and order do not depend on constants."""
    if mutant.place.table not in ("bursts", "slots", "registers", "host_operands", "host_terms", "host_exprs", "binds", "placements"):
        return ""
    skip, executor = PREDICTED[subject.program.target], simulate(subject.program.target)
    inputs, states = subject.runs[0]
    for largest in LARGEST:
        noisy = [with_noise(program, largest) for program in (subject.program, mutant.program)]
        if not executor.execute(noisy[0], inputs, states, skip=skip).violations and not agree(*noisy, subject.runs[:1]):
            return OTHER_CONSTANTS
    return ""


def with_noise(program: Program, largest: float) -> Program:
    """The program with other constants: floats from 0.1 to `largest`, the same in every program with images of the same shapes."""
    rng = np.random.default_rng(5)
    return replace(program, images={name: _noise(array, rng, largest) for name, array in program.images.items()})


def _noise(array: np.ndarray, rng: np.random.Generator, largest: float) -> np.ndarray:
    """Other values of the same type: floats, bytes that make floats of any width; index tables stay."""
    if array.dtype == np.uint8:
        top = int(np.float16(largest).view(np.uint16)) >> 8
        return rng.integers(0, top, array.shape, dtype=np.uint8)
    return rng.uniform(0.1, largest, array.shape).astype(array.dtype) if array.dtype.kind == "f" else array
