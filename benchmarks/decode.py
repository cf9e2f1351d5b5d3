"""Greedy decoding with a KV cache on each machine beside torch: equal tokens, legality, cycles of a step.

python benchmarks/decode.py [MODEL] [--steps 8] [--context 64] [-t tsp -t cgla -t wafer]      (default: llama-tiny)
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable

import torch
from rich.console import Console
from rich.table import Table

import spatialc
from spatialc.models.zoo import Request, build


def greedy(step: Callable[[torch.Tensor, torch.Tensor], torch.Tensor], first: int, steps: int) -> list[int]:
    """The tokens that follow `first`: each is the arg-max of `step(ids [1, 1], position [1]) -> logits [1, 1, V]`."""
    tokens = [first]
    for position in range(steps):
        logits = step(torch.tensor([[tokens[-1]]]), torch.tensor([position]))
        tokens.append(int(logits[0, -1].argmax()))
    return tokens[1:]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", nargs="?", default="llama-tiny")
    parser.add_argument("--steps", type=int, default=8)
    parser.add_argument("--context", type=int, default=64)
    parser.add_argument("-t", "--target", action="append", choices=["tsp", "cgla", "wafer"])
    options = parser.parse_args()
    request = Request(phase="decode", context=options.context)
    first = int(build(options.model, request).args[0][0, 0])
    with torch.no_grad():
        wanted = greedy(build(options.model, request).module, first, options.steps)
    table = Table("target", "tokens", "as torch", "legal", "cycles a step", "predicted", "seconds a step")
    table.add_row("torch", " ".join(map(str, wanted)), "", "", "", "", "")
    wrong = 0
    for target in options.target or ["tsp", "cgla", "wafer"]:
        case = build(options.model, request)
        program = spatialc.compile(case.module, case.args, case.kwargs, target=target)
        session = program.session()
        results = []

        def step(ids: torch.Tensor, position: torch.Tensor, session=session, results=results) -> torch.Tensor:
            results.append(session.run(ids, position))
            return results[-1].outputs[0]

        start = time.perf_counter()
        tokens = greedy(step, first, options.steps)
        seconds = (time.perf_counter() - start) / options.steps
        legal = all(result.legal for result in results)
        cycles = {result.cycles for result in results}
        wrong += tokens != wanted or not legal or cycles != {program.predicted_cycles}
        table.add_row(
            target, " ".join(map(str, tokens)), "yes" if tokens == wanted else "NO", "yes" if legal else "NO",
            " ".join(f"{c:,}" for c in sorted(cycles)), f"{program.predicted_cycles:,}", f"{seconds:.2f}",
        )  # fmt: skip
    Console(width=140).print(table)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
