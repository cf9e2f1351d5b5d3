"""Execution time against torch eager fp32 on the same threads, and simulated machine cycles per second.

Medians of three in one process. `whole` is a whole execution: judging the schedule, loading constants, numbers. `again` is a later run of
a session, which has judged and loaded the program (legality and time do not depend on data), as torch has its module in memory. `first` is
the first execution, which also loads the executor and its compiled loops.

python benchmarks/executor.py [-t tsp -t cgla -t wafer] [--threads 2] [MODEL[:SEQ] ...]      (default: gpt2-small:128 smollm2-135m:128)
"""

from __future__ import annotations

import argparse
import sys
import time
from statistics import median

import torch
from rich.console import Console
from rich.table import Table

from spatialc import api
from spatialc.border import torch_outputs
from spatialc.models.zoo import Request, build

RUNS = 3


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="*", default=["gpt2-small:128", "smollm2-135m:128"])
    parser.add_argument("-t", "--target", action="append", choices=["tsp", "cgla", "wafer"])
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    table = Table("model", "target", "torch", "first", "whole", "ratio", "cycles/s", "again", "ratio", "cycles/s", "compile", "cycles", "")
    slow = 0
    for text in options.models:
        name, _, seq = text.partition(":")
        case = build(name, Request(seq=int(seq) if seq else None))
        times = []
        for _ in range(RUNS):
            start = time.perf_counter()
            reference = torch_outputs(case.module, case.args, case.kwargs)
            times.append(time.perf_counter() - start)
        eager = median(times)
        for target in options.target or ["tsp", "cgla", "wafer"]:
            program = api.compile(case.module, case.args, case.kwargs, target=target)
            runs = [program.execute(case.args, case.kwargs, reference=reference).data for _ in range(RUNS)]
            session = program.session()
            later = [session.run(*case.args, **case.kwargs).data for _ in range(RUNS + 1)][1:]
            whole, again = (median([run.execute_s or 0.0 for run in each]) for each in (runs, later))
            data = later[-1]
            slow += whole > 10 * eager
            cycles = data.cycles or 0
            table.add_row(
                text, target, f"{eager:.2f} s", f"{runs[0].execute_s or 0:.2f} s", f"{whole:.2f} s", f"{whole / eager:.1f}",
                f"{cycles / whole:.1e}", f"{again:.2f} s", f"{again / eager:.1f}", f"{cycles / again:.1e}",
                f"{data.compile_s or 0:.2f} s", f"{cycles:,}", data.status,
            )  # fmt: skip
    Console(width=140).print(table)
    return 0 if not slow else 1


if __name__ == "__main__":
    sys.exit(main())
