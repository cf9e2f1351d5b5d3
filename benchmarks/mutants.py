"""Does the executor notice? Change one field of a compiled program, at random, and see whether it is rejected or gives other numbers.

    python benchmarks/mutants.py [-t tsp -t cgla -t wafer] [--count 300] [--seed 0] [--workers 2] [--no-directed] [--only NUMBER ...]

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

What survives, and what is harmless, is listed with its number; `--only` judges mutants of these numbers again and says what came of them.
Programs, fields and draws are in `mutants_changes.py`, verdicts in `mutants_judge.py`, the rules' own programs in `mutants_rules.py`.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from typing import Any

import numpy as np
from mutants_changes import mutate
from mutants_judge import PREDICTED, SUBJECTS, TARGETS, Subject, Verdict, baseline, judge
from mutants_rules import RuleKills, directed_kills, rule_ids


def _judge_one(task: tuple[str, int, int]) -> Verdict:
    name, seed, number = task
    subject, expected = _STATE[name]
    return judge(subject, expected, mutate(subject.program, np.random.default_rng([seed, number])))


_STATE: dict[str, tuple[Subject, list[Any]]] = {}


def campaign(
    target: str, numbers: Sequence[int], seed: int, subjects: Sequence[str] = tuple(SUBJECTS), workers: int = 1
) -> list[Verdict]:  # fmt: skip
    """The mutants of these numbers, of the compiled subjects in turn; each follows from seed and number alone."""
    _STATE.clear()
    tasks = [(subjects[number % len(subjects)], seed, number) for number in numbers]
    for name in sorted({name for name, _, _ in tasks}):
        subject = SUBJECTS[name](target)
        _STATE[name] = (subject, baseline(subject))
    if workers == 1:
        return [_judge_one(task) for task in tasks]
    with ProcessPoolExecutor(workers, mp_context=get_context("fork")) as pool:
        return list(pool.map(_judge_one, tasks, chunksize=4))


def replay(target: str, numbers: Sequence[int], seed: int, subjects: Sequence[str]) -> None:
    """Judge single mutants and print what came of each."""
    for number, verdict in zip(numbers, campaign(target, numbers, seed, subjects), strict=True):
        said = " ".join(sorted(verdict.rules)) or verdict.detail
        print(f"{target} {number} {verdict.kind}: {verdict.what}" + (f": {said}" if said else ""))


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
        for number, verdict in enumerate(verdicts):
            if verdict.kind == kind:
                print(f"  {kind} {number}: {verdict.what}" + (f": {verdict.detail}" if verdict.detail else ""))
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
    parser.add_argument("--only", type=int, nargs="+", metavar="NUMBER", help="judge only the mutants of these numbers")
    options = parser.parse_args()
    good = True
    for target in options.target or TARGETS:
        start, subjects = time.perf_counter(), options.subject or tuple(SUBJECTS)
        if options.only:
            replay(target, options.only, options.seed, subjects)
            continue
        verdicts = campaign(target, range(options.count), options.seed, subjects, options.workers)
        good &= report(target, verdicts, None if options.no_directed else directed_kills(target))
        print(f"  {time.perf_counter() - start:.0f} s")
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
