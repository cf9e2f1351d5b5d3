"""Cold-process wall time and peak memory, compile + execution + numeric check, per backend, beyond importing torch.

    python benchmarks/peers.py [-t tsp -t cgla -t wafer]

(a) one GEMM 128 x 768 x 3072; (b) one GPT-2-small decoder layer at sequence 128. Every figure is one fresh process; times on a shared
machine are upper bounds, the time to import torch is measured in the same run and subtracted.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys

from rich.console import Console
from rich.table import Table

CHILD = """
import json, resource, sys, time
start = time.perf_counter()
import torch
imported = time.perf_counter()
torch.manual_seed(0)
import spatialc
from spatialc.models.gpt2 import GPT2Config, Layer
which, target = sys.argv[1:]
module = (torch.nn.Linear(768, 3072, bias=False) if which == "gemm" else Layer(GPT2Config())).eval()
x = torch.randn(128, 768) if which == "gemm" else torch.randn(1, 128, 768)
program = spatialc.compile(module, (x,), target=target)
compiled = time.perf_counter()
result = program.execute((x,), interpreter=True)
done = time.perf_counter()
print(json.dumps(dict(
    torch_s=imported - start, compile_s=compiled - imported, execute_s=done - compiled, beyond_s=done - imported, cycles=result.cycles,
    predicted=program.predicted_cycles, status=result.data.status, error=result.data.numerics.rel_l2_err,
    bound=result.data.bound_fraction, rss_mb=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)))
"""
WORK = {"gemm": ("GEMM 128x768x3072", 2.0), "layer": ("GPT-2-small layer, S=128", 8.0)}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-t", "--target", action="append", choices=["tsp", "cgla", "wafer"])
    options = parser.parse_args()
    table = Table("work", "target", "beyond torch", "goal", "compile", "execute", "import torch", "peak", "cycles", "of bound", "status")
    late = 0
    for which, (label, goal) in WORK.items():
        for target in options.target or ["tsp", "cgla", "wafer"]:
            done = subprocess.run([sys.executable, "-c", CHILD, which, target], capture_output=True, text=True, check=False)
            if done.returncode:
                table.add_row(label, target, "failed", "", "", "", "", "", "", "", (done.stderr.strip().splitlines() or ["?"])[-1][:100])
                late += 1
                continue
            row = json.loads(done.stdout.strip().splitlines()[-1])
            late += row["beyond_s"] > goal
            table.add_row(
                label, target, f"{row['beyond_s']:.2f} s", f"{goal:.0f} s", f"{row['compile_s']:.2f} s", f"{row['execute_s']:.2f} s",
                f"{row['torch_s']:.2f} s", f"{row['rss_mb']:.0f} MB", f"{row['cycles']:,}", f"{row['bound'] or 0:.2%}", row["status"],
            )  # fmt: skip
    Console(width=160).print(table)
    return 0 if not late else 1


if __name__ == "__main__":
    sys.exit(main())
