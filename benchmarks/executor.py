"""Execution time against torch eager fp32 on the same threads, and simulated machine cycles per second.

python benchmarks/executor.py [-t tsp -t cgla -t wafer] [--threads 2] [MODEL[:SEQ] ...]      (default: gpt2-small:128 smollm2-135m:128)
"""

from __future__ import annotations

import argparse
import sys
import time

import torch
from rich.console import Console
from rich.table import Table

from spatialc import api
from spatialc.models.zoo import Request, build


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="*", default=["gpt2-small:128", "smollm2-135m:128"])
    parser.add_argument("-t", "--target", action="append", choices=["tsp", "cgla", "wafer"])
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    table = Table("model", "target", "torch", "execute", "ratio", "compile", "cycles", "cycles/s", "of bound", "status")
    slow = 0
    for text in options.models:
        name, _, seq = text.partition(":")
        case = build(name, Request(seq=int(seq) if seq else None))
        times = []
        for _ in range(3):
            start = time.perf_counter()
            reference = api.torch_outputs(case.module, case.args, case.kwargs)
            times.append(time.perf_counter() - start)
        eager = sorted(times)[1]
        for target in options.target or ["tsp", "cgla", "wafer"]:
            program = api.compile(case.module, case.args, case.kwargs, target=target)
            data = program.execute(case.args, case.kwargs, reference=reference).data
            seconds = data.execute_s or 0.0
            slow += seconds > 10 * eager
            cycles = data.cycles or 0
            table.add_row(
                text, target, f"{eager:.2f} s", f"{seconds:.2f} s", f"{seconds / eager:.1f}", f"{data.compile_s or 0:.2f} s",
                f"{cycles:,}", f"{cycles / seconds:.1e}", f"{data.bound_fraction or 0:.2%}", data.status,
            )  # fmt: skip
    Console(width=140).print(table)
    return 0 if not slow else 1


if __name__ == "__main__":
    sys.exit(main())
