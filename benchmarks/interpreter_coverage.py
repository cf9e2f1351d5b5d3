#!/usr/bin/env python3
"""How many architectures the frontend lowers with torch's numbers: export, lower, (canonicalise,) interpret, compare with eager fp32.

usage: interpreter_coverage.py FOLDER [--canonical] [--only a,b] [--skip N] [--take N] [--jobs 2] [--timeout 120] [--json FILE]

FOLDER holds `tiny_models.py` (`build(architecture, task) -> (module, kwargs)`, `tensors(output) -> list`), `architectures.txt` and
`refused.txt` (`architecture task` a line; those in `refused.txt` must raise UnsupportedOp). A model passes when every floating output is
within 1e-4 relative L2 error and every integer output is equal. Each model runs in a process of its own. Exit code 0 if at least 138
of 143 (96.5 %) pass and every refused model is refused.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing as mp
import multiprocessing.connection
import os
import pathlib
import signal
import sys
import time
from typing import Any

THRESHOLD = 1e-4
REQUIRED = 138 / 143


def measure(folder: str, architecture: str, task: str, canonical: bool) -> dict[str, Any]:
    """One row: error against torch, node counts, seconds."""
    sys.path.insert(0, folder)
    import numpy as np
    import torch

    from spatialc.frontend import lower_module
    from spatialc.ir.interpret import interpret

    torch.set_num_threads(1)
    from tiny_models import build, tensors  # type: ignore[import-not-found]

    module, kwargs = build(architecture, task)
    with torch.no_grad():
        expected = [t.numpy() for t in tensors(module(**kwargs))]
    start = time.perf_counter()
    lowered = lower_module(module, (), kwargs)
    row: dict[str, Any] = {"lower_s": round(time.perf_counter() - start, 2), "nodes": len(lowered.graph.nodes)}
    graph = lowered.graph
    if canonical:
        from spatialc.ir.verify import verify
        from spatialc.passes.canonicalise import Canonicalise

        start = time.perf_counter()
        graph = Canonicalise().run(graph, lowered.store)
        breaches = verify(graph, canonical=True)
        row.update(canonical_s=round(time.perf_counter() - start, 2), canonical_nodes=len(graph.nodes))
        if breaches:
            return row | {"error": f"{len(breaches)} breaches, first: {breaches[0]}"[:200]}
    inputs = {b.name: kwargs[b.path[len("kwargs['") : -len("']")]].numpy() for b in lowered.input_bindings}
    start = time.perf_counter()
    outputs, _ = interpret(graph, inputs, store=lowered.store)
    row["interpret_s"] = round(time.perf_counter() - start, 2)
    if len(outputs) != len(expected):
        return row | {"error": f"{len(outputs)} outputs, torch gives {len(expected)}"}
    worst = 0.0
    for got, want in zip(outputs, expected, strict=True):
        if got.shape != want.shape:
            return row | {"error": f"shape {got.shape}, torch gives {want.shape}"}
        if np.issubdtype(want.dtype, np.floating):
            finite = np.isfinite(want)
            if not np.array_equal(np.isfinite(got), finite):
                return row | {"error": "infinities differ"}
            difference = np.linalg.norm((got[finite] - want[finite]).astype(np.float64))
            worst = max(worst, float(difference / max(np.linalg.norm(want[finite].astype(np.float64)), 1e-12)))
        elif not np.array_equal(got, want):
            return row | {"error": "integer outputs differ"}
    return row | {"rel_l2_err": worst, "passed": worst <= THRESHOLD}


def child(folder: str, architecture: str, task: str, canonical: bool, timeout: int, pipe: Any) -> None:
    signal.alarm(timeout)
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
    try:
        row = measure(folder, architecture, task, canonical)
    except BaseException as error:
        text = str(error).strip().splitlines() or [""]
        row = {"error": f"{type(error).__name__}: {' '.join(text)[:300]}", "refused": type(error).__name__ == "UnsupportedOp"}
    pipe.send(row)
    pipe.close()


def rows_of(lines: list[list[str]], options: argparse.Namespace) -> Any:
    """Runs `jobs` children at a time; yields rows in order of completion."""
    context = mp.get_context("fork")
    waiting = list(lines)
    running: list[tuple[Any, Any, list[str]]] = []
    while waiting or running:
        while waiting and len(running) < options.jobs:
            line = waiting.pop(0)
            read, write = context.Pipe(duplex=False)
            process = context.Process(target=child, args=(options.folder, *line[:2], options.canonical, options.timeout, write))
            process.start()
            write.close()
            running.append((process, read, line))
        ready = mp.connection.wait([read for _, read, _ in running])
        for entry in [e for e in running if e[1] in ready]:
            process, read, line = entry
            try:
                row = read.recv()
            except EOFError:
                row = {"error": f"no answer in {options.timeout} s"}
            process.join()
            running.remove(entry)
            yield {"model": line[0], "task": line[1], "passed": False, **row}


def listed(path: pathlib.Path) -> list[list[str]]:
    return [line.split() for line in path.read_text().splitlines() if line.strip() and not line.startswith("#")]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder")
    parser.add_argument("--canonical", action="store_true", help="canonicalise and verify before interpreting")
    parser.add_argument("--only")
    parser.add_argument("--skip", type=int, default=0)
    parser.add_argument("--take", type=int)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--timeout", type=int, default=120)
    parser.add_argument("--json")
    options = parser.parse_args()
    folder = pathlib.Path(options.folder)
    lines = listed(folder / "architectures.txt")
    refused = listed(folder / "refused.txt")
    if options.only:
        names = options.only.split(",")
        lines, refused = [x for x in lines if x[0] in names], [x for x in refused if x[0] in names]
    elif options.skip or options.take is not None:
        end = None if options.take is None else options.skip + options.take
        lines, refused = lines[options.skip : end], []
    rows = []
    # The parent imports what all children share; it runs nothing, so that forking is safe.
    sys.path.insert(0, str(folder))
    import tiny_models  # noqa: F401

    import spatialc.frontend  # noqa: F401

    for row in rows_of(lines, options):
        rows.append(row)
        error = f"{row['rel_l2_err']:.1e}" if "rel_l2_err" in row else "-"
        print(
            f"{row['model']:24} {row['task']:9} {'ok' if row['passed'] else 'FAIL':4} {error:>8} nodes {row.get('nodes', '-')!s:>5} "
            f"{row.get('canonical_nodes', '')!s:>5} lower {row.get('lower_s', '-')!s:>6} s  {row.get('error', '')}",
            flush=True,
        )
    held = 0
    for row in rows_of(refused, options):
        held += bool(row.get("refused"))
        verdict = "refused" if row.get("refused") else "NOT REFUSED"
        print(f"{row['model']:24} {row['task']:9} {verdict} {row.get('error', '')[:200]}", flush=True)
    passed = sum(row["passed"] for row in rows)
    print(f"{passed} of {len(rows)} give torch's numbers, {held} of {len(refused)} are refused")
    if options.json:
        pathlib.Path(options.json).write_text(json.dumps(rows, indent=1))
    return 0 if passed >= REQUIRED * len(rows) and held == len(refused) else 1


if __name__ == "__main__":
    sys.exit(main())
