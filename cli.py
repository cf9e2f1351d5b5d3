"""The command line: compare, compile, run, check, show, machines, models, ops."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from enum import Enum, StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from .errors import BadInput, Infeasible, SpatialcError, UnsupportedOp

if TYPE_CHECKING:
    from .api import Program, Result
    from .models.zoo import Case

app = typer.Typer(
    name="spatialc",
    help="Compile PyTorch transformers into static schedules for spatial arrays; run, check and compare those schedules.\n\n"
    "MODEL is a name that `spatialc models` lists, a Hugging Face id or local directory, `file.py:factory` (a function without arguments "
    "that returns (module, args, kwargs)), or a `.pt2` exported program.\n\n"
    "Exit codes: 0 done and correct; 1 ran, but numerics or legality failed; 2 usage or bad input; 3 infeasible on this machine.",
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
)
# typer brings its own copy of click: its base of usage errors is named only as an ancestor of BadParameter
_UsageError: Any = next(base for base in typer.BadParameter.__mro__ if base.__name__ == "ClickException")
err = Console(stderr=True, soft_wrap=True)


class Phase(StrEnum):
    prefill = "prefill"
    decode = "decode"


class HostOps(StrEnum):
    published = "published"
    embedding = "embedding"
    none = "none"


class Overhead(StrEnum):
    ideal = "ideal"
    software = "software"


class Accumulate(StrEnum):
    fp16 = "fp16"
    fp32 = "fp32"


class Strategy(StrEnum):
    greedy = "greedy"
    solver = "solver"


Model = Annotated[str, typer.Argument(help="zoo name, Hugging Face id, directory, file.py:factory or .pt2", show_default=True)]
Spx = Annotated[Path, typer.Argument(help="a program that `spatialc compile` wrote")]
Machine = Annotated[
    list[str] | None, typer.Option("--machine", help="preset or YAML file (see `spatialc machines`)", metavar="PRESET_OR_YAML")
]
Sets = Annotated[
    list[str] | None, typer.Option("--set", help="override a machine field, e.g. --set energy.idle_w=60", metavar="FIELD=VALUE")
]
Precision = Annotated[str | None, typer.Option(help="number format of weights and operands (default: the machine's)", metavar="P")]
PhaseOption = Annotated[Phase, typer.Option("--phase", help="prefill, or one decode step with a KV cache")]
Batch = Annotated[int, typer.Option(min=1, help="batch size")]
Seq = Annotated[int | None, typer.Option(min=1, help="sequence length (random ids)")]
Context = Annotated[int | None, typer.Option(min=1, help="length of the KV cache in decode")]
Prompt = Annotated[str | None, typer.Option(help="text to run the model on", metavar="TEXT")]
HostOpsOption = Annotated[
    HostOps | None, typer.Option("--host-ops", help="what may stay on the host (cgla default: published; others: none)")
]
OverheadOption = Annotated[Overhead, typer.Option("--overhead", help="wafer: ideal machine or published software overheads")]
AccumulateOption = Annotated[Accumulate, typer.Option("--accumulate", help="wafer: format of accumulators and partial sums")]
Region = Annotated[str | None, typer.Option(help="wafer: fix the rectangle of cores", metavar="WxH")]
StrategyOption = Annotated[
    Strategy, typer.Option("--strategy", help="tsp: constants choose their slices as they come, or a solver balances them too")
]
Seed = Annotated[int, typer.Option(min=0, help="seed of random inputs, solvers and defects")]
DefectFile = Annotated[
    Path | None, typer.Option("--defects", help="wafer: JSON file of dead physical cores and links, to be avoided", metavar="FILE")
]
DefectRate = Annotated[float | None, typer.Option("--defect-rate", help="wafer: every core is dead with this probability (see --seed)")]
Json = Annotated[str | None, typer.Option("--json", help="write results as JSON; - prints JSON and nothing else", metavar="FILE")]
Verify = Annotated[bool, typer.Option("--verify", help="verify the IR after every pass")]
DumpAfter = Annotated[str | None, typer.Option("--dump-after", help="print the IR after this pass (text form)", metavar="PASS")]
Exact = Annotated[bool, typer.Option("--exact", help="sum in the machine's own order, however slow")]
TimingOnly = Annotated[bool, typer.Option("--timing-only", help="check and count without data")]


def _machines(targets: Sequence[str], names: Sequence[str] | None) -> dict[str, str]:
    """Which machine each target uses. A preset says its own target; a YAML file its `target:` key, or the only target asked for."""
    from .machines.catalog import target_of

    chosen: dict[str, str] = {}
    for name in names or ():
        target = target_of(name)
        if target is None:
            if len(targets) != 1:
                raise BadInput(f"{name}: is no preset, and a YAML file needs `target: tsp|cgla|wafer` (or give one -t)")
            target = targets[0]
        if target not in targets:
            raise BadInput(f"machine {name} is a {target}, which was not asked for with -t")
        if target in chosen:
            raise BadInput(f"two machines for {target}: {chosen[target]} and {name}")
        chosen[target] = name
    return chosen


def _region(text: str | None) -> tuple[int, int] | None:
    if text is None:
        return None
    width, x, height = text.partition("x")
    if not x or not width.isdigit() or not height.isdigit() or not int(width) or not int(height):
        raise BadInput(f"--region takes WIDTHxHEIGHT such as 64x64, not {text!r}")
    return int(width), int(height)


def _case(model: str, prompt: str | None, phase: Phase, batch: int, seq: int | None, context: int | None, seed: int) -> Case:
    """The module and its inputs. User code runs only when the user named a file."""
    from .models.zoo import MODELS, Case, Request, build

    if context is not None and phase is Phase.prefill:
        raise BadInput("a prefill has no cache: --context is for --phase decode")
    if model in MODELS:
        return build(model, Request(prompt, phase.value, batch, seq, context, seed))
    if "/" not in model and ":" not in model and not model.endswith((".pt2", ".gguf")) and not Path(model).exists():
        raise BadInput(
            f"there is no model {model!r}: `spatialc models` lists the names; a Hugging Face id is ORGANISATION/NAME, "
            f"your own model is file.py:factory, a folder or a .pt2 file"
        )
    from .frontend.sources import resolve

    module, args, kwargs = resolve(model, prompt=prompt, batch=batch, seq=seq, seed=seed)
    return Case(model, module, tuple(args), dict(kwargs), phase=phase.value, batch=batch, seq=seq or 1, context=context or seq or 1)


def _options(case: Case, *, settings: Sequence[str] | None, region: str | None, dump_after: str | None, **named: Any) -> dict[str, Any]:
    """Keyword options of `compile` and `compare` from the command line's."""
    from .machines.catalog import parse_changes

    return {
        "changes": parse_changes(settings or ()), "region": _region(region), "dump_after": dump_after,
        "dump": lambda name, text: print(f"# after {name}\n{text}"),
        "model": case.name, "phase": case.phase, "batch": case.batch, "seq": case.seq, "context": case.context,
        **{key: value.value if isinstance(value, Enum) else value for key, value in named.items()},
    }  # fmt: skip


@contextmanager
def _progress(quiet: bool) -> Iterator[Callable[[str, int, int], None] | None]:
    """A progress bar on a terminal, nothing in a pipe."""
    if quiet or not sys.stderr.isatty():
        yield None
        return
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=err, transient=True) as bar:
        tasks: dict[str, Any] = {}

        def report(stage: str, done: int, total: int) -> None:
            if stage not in tasks:
                tasks[stage] = bar.add_task(stage, total=total)
            bar.update(tasks[stage], completed=done, total=total)

        yield report


def _write_json(destination: str, data: Any) -> None:
    text = json.dumps(data, indent=1) + "\n"
    if destination == "-":
        sys.stdout.write(text)
        return
    target = Path(destination)
    if not target.parent.is_dir():
        raise BadInput(f"cannot write {target}: the folder {target.parent} does not exist")
    aside = target.with_name(f".{target.name}.{os.getpid()}")
    aside.write_text(text, encoding="utf-8")
    aside.replace(target)


def _next_tokens(case: Case, results: Sequence[Result], reference: Sequence[Any] | None) -> dict[str, str] | None:
    """The token that each machine, and torch, would say next after the first row."""
    if not case.tokens or case.tokenizer is None or not reference:
        return None
    said = {"torch": reference[0]}
    said |= {r.data.target: r.outputs[0] for r in results if r.outputs}
    return {name: repr(case.tokenizer.decode([int(logits[0, -1].argmax())])) for name, logits in said.items()}


@app.command()
def compare(
    model: Model = "tiny",
    target: Annotated[
        list[str] | None, typer.Option("-t", "--target", help="tsp, cgla or wafer; repeat for several (default: all)")
    ] = None,
    machine: Machine = None,
    settings: Sets = None,
    precision: Precision = None,
    phase: PhaseOption = Phase.prefill,
    batch: Batch = 1,
    seq: Seq = None,
    context: Context = None,
    prompt: Prompt = None,
    host_ops: HostOpsOption = None,
    overhead: OverheadOption = Overhead.ideal,
    accumulate: AccumulateOption = Accumulate.fp32,
    region: Region = None,
    strategy: StrategyOption = Strategy.greedy,
    seed: Seed = 0,
    defects: DefectFile = None,
    defect_rate: DefectRate = None,
    exact: Exact = False,
    verify: Verify = False,
    dump_after: DumpAfter = None,
    json_file: Json = None,
    timing_only: TimingOnly = False,
) -> None:
    """Run MODEL on every machine and show side by side what each costs, with torch's numbers as the reference."""
    from . import api
    from .report.table import comparison

    targets = tuple(target or api.TARGETS)
    machines = _machines(targets, machine)
    case = _case(model, prompt, phase, batch, seq, context, seed)
    options = _options(
        case, settings=settings, region=region, dump_after=dump_after, precision=precision, host_ops=host_ops,
        overhead=overhead, accumulate=accumulate, strategy=strategy, seed=seed, defects=defects, defect_rate=defect_rate, verify=verify,
    )  # fmt: skip
    with _progress(json_file == "-") as progress:
        results = api.compare(
            case.module, case.args, case.kwargs, targets=targets, machines=machines, exact=exact, timing_only=timing_only,
            progress=progress, **options,
        )  # fmt: skip
    if json_file is not None:
        _write_json(json_file, [result.to_dict() for result in results])
    if json_file != "-":
        reference = next((result.reference for result in results if result.reference is not None), None)
        title = f"{case.name}, {case.phase}, batch {case.batch}, {case.seq} positions"
        Console(width=None if sys.stdout.isatty() else 140).print(
            comparison([r.data for r in results], title, _next_tokens(case, results, reference))
        )
        _print_violations(results)
    raise typer.Exit(max(result.data.exit_code() for result in results))


def _print_violations(results: Sequence[Result], most: int = 10) -> None:
    for result in results:
        for line in result.violations[:most]:
            err.print(f"{result.data.target}: {escape(line)}")
        if len(result.violations) > most:
            err.print(f"{result.data.target}: and {len(result.violations) - most} more violations")


@app.command("compile")
def compile_command(
    model: Model,
    target: Annotated[str, typer.Option("-t", "--target", help="tsp, cgla or wafer")],
    output: Annotated[Path, typer.Option("-o", "--output", help="the .spx file to write")],
    machine: Machine = None,
    settings: Sets = None,
    precision: Precision = None,
    phase: PhaseOption = Phase.prefill,
    batch: Batch = 1,
    seq: Seq = None,
    context: Context = None,
    prompt: Prompt = None,
    host_ops: HostOpsOption = None,
    overhead: OverheadOption = Overhead.ideal,
    accumulate: AccumulateOption = Accumulate.fp32,
    region: Region = None,
    strategy: StrategyOption = Strategy.greedy,
    seed: Seed = 0,
    defects: DefectFile = None,
    defect_rate: DefectRate = None,
    verify: Verify = False,
    dump_after: DumpAfter = None,
) -> None:
    """Compile MODEL for one machine and write the program."""
    from . import api

    machines = _machines((target,), machine)
    if not output.parent.is_dir():
        raise BadInput(f"cannot write {output}: the folder {output.parent} does not exist")
    case = _case(model, prompt, phase, batch, seq, context, seed)
    options = _options(
        case, settings=settings, region=region, dump_after=dump_after, precision=precision, host_ops=host_ops,
        overhead=overhead, accumulate=accumulate, strategy=strategy, seed=seed, defects=defects, defect_rate=defect_rate, verify=verify,
    )  # fmt: skip
    with _progress(False) as progress:
        program = api.compile(
            case.module, case.args, case.kwargs, target=target, machine=machines.get(target), progress=progress, **options
        )
    digest = program.save(output)
    print(f"{output}: {program.predicted_cycles:,} cycles on {program.container.machine['name']}, sha256 {digest}")


@app.command()
def run(
    program_file: Spx,
    input_file: Annotated[Path | None, typer.Option("--input", help="safetensors file keyed by pytree path")] = None,
    seed: Annotated[int, typer.Option(min=0, help="seed of random inputs when there is no --input")] = 0,
    output: Annotated[Path | None, typer.Option("--output", help="write the outputs as safetensors")] = None,
    reference: Annotated[str | None, typer.Option(help="compare with torch: the model that was compiled", metavar="MODEL")] = None,
    exact: Exact = False,
    json_file: Json = None,
) -> None:
    """Execute a saved program: legality, numbers, cycles."""
    from . import api
    from .border import torch_outputs, with_inputs
    from .report.table import comparison

    program = api.load(program_file)
    inputs = _read_inputs(input_file) if input_file is not None else _random_inputs(program, seed)
    expected = None
    if reference is not None:
        meta = program.container.meta
        seq = int(meta["seq"]) if meta["phase"] == "prefill" else None
        context = None if meta["phase"] == "prefill" else int(meta["context"])
        case = _case(reference, None, Phase(meta["phase"]), int(meta["batch"]), seq, context, seed)
        args, kwargs = with_inputs(case.args, case.kwargs, inputs)
        expected = torch_outputs(case.module, args, kwargs)
    result = program.run_named(inputs, exact=exact, reference=expected)
    if output is not None:
        _write_outputs(output, program, result)
    if json_file is not None:
        _write_json(json_file, result.to_dict())
    if json_file != "-":
        Console(width=None if sys.stdout.isatty() else 140).print(comparison([result.data], str(program_file)))
        _print_violations([result])
    raise typer.Exit(result.data.exit_code())


def _read_inputs(path: Path) -> dict[str, Any]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    from .border import to_numpy

    try:
        return {name: to_numpy(tensor) for name, tensor in load_file(str(path)).items()}
    except (OSError, SafetensorError) as error:
        raise BadInput(f"{path} is not a readable safetensors file ({error})") from error


def _random_inputs(program: Program, seed: int) -> dict[str, Any]:
    """Standard normal numbers, and integers drawn from the range that the program takes."""
    import numpy as np

    generator = np.random.default_rng(seed)
    inputs: dict[str, Any] = {}
    for binding in program.container.bindings_of("input"):
        if binding.dtype == "bool":
            inputs[binding.path] = generator.integers(0, 2, binding.shape).astype(bool)
        elif binding.dtype in ("f64", "f32", "f16", "bf16"):
            inputs[binding.path] = generator.standard_normal(binding.shape).astype(np.float32)
        else:
            low, high = binding.range or (0, 1)
            inputs[binding.path] = generator.integers(low, high + 1, binding.shape).astype(np.int64)
    return inputs


def _write_outputs(path: Path, program: Program, result: Result) -> None:
    from safetensors.torch import save_file

    bindings = program.container.bindings_of("output")
    tensors = {b.path or b.name: t.contiguous().clone() for b, t in zip(bindings, result.outputs, strict=True)}
    if not path.parent.is_dir():
        raise BadInput(f"cannot write {path}: the folder {path.parent} does not exist")
    aside = path.with_name(f".{path.name}.{os.getpid()}")
    save_file(tensors, str(aside))
    aside.replace(path)


@app.command()
def check(program_file: Spx, json_file: Json = None) -> None:
    """Check every machine rule of a saved program, without data."""
    from . import api

    program = api.load(program_file)
    violations = [str(v) for v in program.check()]
    if json_file is not None:
        _write_json(json_file, {"program": str(program_file), "legal": not violations, "violations": violations})
    if json_file != "-":
        for line in violations:
            print(line)
        print(f"{program_file}: {'legal' if not violations else f'{len(violations)} violations'} on {program.container.machine['name']}")
    raise typer.Exit(1 if violations else 0)


@app.command()
def show(
    program_file: Spx,
    listing: Annotated[bool, typer.Option("--listing", help="one line a burst, ordered by cycle; parses back")] = False,
    placement: Annotated[Path | None, typer.Option("--placement", help="draw where things lie (.svg or .png)", metavar="FILE")] = None,
) -> None:
    """Show what is in a program: a summary, its listing, or a picture of its placement."""
    from . import api

    program = api.load(program_file)
    if listing:
        from .machines.listing import listing_of

        sys.stdout.write(listing_of(program.container))
    if placement is not None:
        from .report.placement import draw

        draw(program.container, placement)
        err.print(f"wrote {placement}")
    if not listing and placement is None:
        from .report.summary import summary

        Console().print(summary(program.container, program.digest()))


@app.command()
def machines() -> None:
    """List the machines: presets, number formats, sizes."""
    from .machines.catalog import TARGETS, load_machine

    table = Table("preset", "target", "clock", "formats", "what it is")
    for target in TARGETS.values():
        for preset in target.presets:
            clock = f"{load_machine(target.name, preset).clock_hz / 1e6:,.0f} MHz"
            table.add_row(preset, target.name, clock, " ".join(target.precisions), target.summary)
    Console().print(table)
    print("A YAML file with `target:`, `base: PRESET` and changed fields describes another machine; --set FIELD=VALUE changes one field.")


@app.command()
def models() -> None:
    """List the models that spatialc knows by name."""
    from .models.zoo import MODELS

    table = Table("model", "what it is", "weights")
    for model in MODELS.values():
        table.add_row(model.name, model.summary, model.weights)
    Console().print(table)


@app.command()
def ops() -> None:
    """List the ATen ops that the frontend lowers, by family."""
    from .frontend import supported_ops

    table = Table("family", "ops")
    for family, names in supported_ops().items():
        table.add_row(family, " ".join(names))
    Console().print(table)


def _fail(message: str, code: int) -> int:
    err.print(f"spatialc: {escape(message)}", highlight=False)
    return code


def main(arguments: Sequence[str] | None = None) -> None:
    """Entry point: runs a command and exits with its code; every expected error is one sentence on standard error."""
    sys.exit(_run(arguments))


def _run(arguments: Sequence[str] | None) -> int:
    given = list(sys.argv[1:] if arguments is None else arguments)
    try:
        outcome = app(args=given or ["--help"], standalone_mode=False, prog_name="spatialc")
        return outcome if isinstance(outcome, int) else 0
    except typer.Exit as done:
        return int(done.exit_code)
    except _UsageError as error:
        return _fail(error.format_message(), 2)
    except (typer.Abort, KeyboardInterrupt):
        return _fail("interrupted; nothing was written", 130)
    except UnsupportedOp as error:
        return _fail("\n".join((str(error), *(f"  {line}" for line in error.ops))), 3)
    except Infeasible as error:
        return _fail(str(error), 3)
    except SpatialcError as error:
        return _fail(str(error), 2)
