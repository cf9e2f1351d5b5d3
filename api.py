"""The public face: compile a torch module for a spatial machine, run the schedule, compare machines.

`compile` returns a `Program`; `Program.run` executes its schedule in the bundled executor and returns a `Result`. Nothing here decides
anything about a machine: the frontend lowers, the passes rewrite, a backend emits, `runtime_sim` judges, and this module hands the
pieces to each other and turns torch tensors into arrays and back.
"""

from __future__ import annotations

import dataclasses
import resource
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import torch

from .backends.options import CompileOptions
from .border import TORCH, Array, checked, leaves, to_numpy, to_torch, torch_outputs
from .collector import paused
from .errors import BadInput, Infeasible, LegalityError, UnsupportedOp, Violation
from .frontend import Lowered, lower_module
from .ir.graph import Graph
from .ir.interpret import interpret
from .ir.tolerance import tolerance_of
from .machines import program as container
from .machines.catalog import Machine, find_target, load_machine
from .machines.wafer.defects import random_defects, read_defects
from .machines.wafer.description import WaferMachine
from .passes.pipeline import prepare
from .report.numerics import judge
from .report.result import Numerics, ResultData
from .runtime_sim.execution import Execution, Prepared, once

TARGETS = ("tsp", "cgla", "wafer")
_VALUES = {
    "host_ops": (None, "published", "embedding", "none"), "overhead": ("ideal", "software"), "accumulate": ("fp32", "fp16"),
    "strategy": ("greedy", "solver"),
}  # fmt: skip
_OWNERS = {"region": "wafer", "overhead": "wafer", "accumulate": "wafer", "defects": "wafer", "defect_rate": "wafer", "strategy": "tsp"}
"""Options that one target alone takes."""
_ON_HOST = ("published", "embedding")
"""Values of `host_ops` that the CGLA alone takes; nothing runs on the host elsewhere."""


@dataclasses.dataclass(frozen=True)
class Options:
    """Options of `compile` and `compare` beside the module: see `compile` for their meaning."""

    machine: str | Machine | None = None
    changes: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    precision: str | None = None
    host_ops: str | None = None
    overhead: str = "ideal"
    accumulate: str = "fp32"
    region: tuple[int, int] | None = None
    strategy: str = "greedy"
    seed: int = 0
    defects: str | Path | None = None
    defect_rate: float | None = None
    verify: bool = False
    dump_after: str | None = None
    dump: Callable[[str, str], None] | None = None
    progress: Callable[[str, int, int], None] | None = None
    model: str | None = None
    phase: str = "prefill"
    batch: int | None = None
    seq: int | None = None
    context: int | None = None


def _chosen(options: Mapping[str, Any]) -> Options:
    """The options of a call. Raises BadInput for one that does not exist."""
    known = [field.name for field in dataclasses.fields(Options)]
    unknown = sorted(set(options) - set(known))
    if unknown:
        raise BadInput(f"there is no option {unknown[0]!r}; options are {', '.join(known)}")
    return Options(**options)


def _check(options: Options, targets: Sequence[str]) -> None:
    """Raise BadInput for an unknown target and for an option, away from its default, that none of `targets` takes."""
    for target in targets:
        find_target(target)
    for name, values in _VALUES.items():
        if getattr(options, name) not in values:
            raise BadInput(f"{name} is {getattr(options, name)!r}; it may be {', '.join(filter(None, values))}")
    for name, owner in _OWNERS.items():
        value = getattr(options, name)
        if value != getattr(Options, name) and owner not in targets:
            raise BadInput(f"{name} {value} means nothing on {', '.join(targets)}: only {owner} takes it")
    if options.host_ops in _ON_HOST and "cgla" not in targets:
        raise BadInput(f"host_ops {options.host_ops} means nothing on {', '.join(targets)}: only cgla takes it")


class Result:
    """One run: `outputs` (tensors in the order of torch's flattened outputs) and everything that the schema names (`to_dict`).

    `reference` are the torch outputs that the caller judged by (`compare` computes them once for all targets), else None.
    """

    def __init__(self, outputs: Sequence[torch.Tensor], data: ResultData, reference: Sequence[torch.Tensor] | None = None) -> None:
        self.outputs = list(outputs)
        self.data = data
        self.reference = reference

    @property
    def legal(self) -> bool:
        """Whether the executor found no violation."""
        return bool(self.data.legal)

    @property
    def cycles(self) -> int:
        """Counted machine cycles. Raises BadInput for a result without a run (infeasible or unsupported)."""
        if self.data.cycles is None:
            raise BadInput(f"there was no run on {self.data.target}: {(self.data.error or {}).get('message', self.data.status)}")
        return self.data.cycles

    @property
    def host_ops(self) -> dict[str, int]:
        """Operators that ran on the host, with counts."""
        return dict(self.data.host_ops)

    @property
    def violations(self) -> list[str]:
        """The executor's complaints, each with its rule id."""
        return list(self.data.violations)

    def to_dict(self) -> dict[str, Any]:
        """The result as JSON values (design section 8)."""
        return self.data.model_dump(mode="json")

    def __repr__(self) -> str:
        return f"Result({self.data.target}, {self.data.status}, cycles={self.data.cycles})"


@dataclasses.dataclass(frozen=True)
class _Source:
    """What a compiled program still knows of its module: enough to judge its numbers."""

    module: torch.nn.Module
    lowered: Lowered
    graph: Graph


class Program:
    """A compiled model. `container` is the machine program itself: tables, images, bindings."""

    def __init__(self, program: container.Program, source: _Source | None = None, compile_s: float | None = None) -> None:
        self.container = program
        self._source = source
        self._compile_s = compile_s
        self._digest: str | None = None

    @property
    def target(self) -> str:
        return self.container.target

    @property
    def predicted_cycles(self) -> int:
        return self.container.predicted_cycles

    @property
    def bound(self) -> dict[str, Any]:
        """The lower bound: `bound_cycles`, `bound_kind` and the kinds that it is the maximum of."""
        return dict(self.container.bound)

    def digest(self) -> str:
        """sha256 of the program."""
        if self._digest is None:
            self._digest = self.container.digest()
        return self._digest

    def save(self, path: str | Path) -> str:
        """Write the `.spx` file; returns the digest."""
        self._digest = self.container.save(path)
        return self._digest

    def check(self, strict: bool = False) -> list[Violation]:
        """Every breach of a machine rule that needs no data. With `strict`, raises LegalityError if there is one."""
        violations = list(_simulator(self.target).check(self.container))
        if strict and violations:
            raise LegalityError(violations)
        return violations

    def run(self, *args: Any, **kwargs: Any) -> Result:
        """Execute the schedule on these inputs (the module's own arguments). Raises BadInput for wrong shapes, types or values."""
        return self.execute(args, kwargs)

    def session(self) -> Session:
        """A sequence of runs that share the program's State (a KV cache, say)."""
        return Session(self)

    def execute(
        self,
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
        *,
        states: Mapping[str, Array] | None = None,
        exact: bool = False,
        timing_only: bool = False,
        reference: Sequence[torch.Tensor] | None = None,
        interpreter: bool = False,
    ) -> Result:
        """`run` with options.

        `states` are arrays by State name; `exact` forces the machine's summation order; `timing_only` checks and counts without data;
        `reference` are torch's outputs to judge by (computed from the module when it is at hand and no state is involved);
        `interpreter` also compares with the IR interpreter at the machine's precision.
        """
        inputs = self._inputs(args, kwargs or {}, timing_only)
        return self._execute(self._judged, inputs, args, kwargs or {}, states, exact, timing_only, reference, interpreter)[0]

    def run_named(self, inputs: Mapping[str, Array], *, exact: bool = False, reference: Sequence[torch.Tensor] | None = None) -> Result:
        """Execute with inputs keyed by pytree path or binding name (as files hold them)."""
        arrays = {}
        known = {name for b in self.container.bindings_of("input") for name in (b.path, b.name)}
        if unknown := sorted(set(inputs) - known - set(self.container.meta.get("unused_inputs", ()))):
            raise BadInput(f"the program has no input {unknown[0]!r}; its inputs are {self._input_list()}")
        for binding in self.container.bindings_of("input"):
            found = inputs.get(binding.path, inputs.get(binding.name))
            if found is None:
                raise BadInput(f"the input {binding.path or binding.name} is missing; the program takes {self._input_list()}")
            arrays[binding.name] = checked(np.asarray(found), binding)
        return self._execute(self._judged, arrays, (), {}, None, exact, False, reference, False)[0]

    def _judged(self) -> Prepared:
        """The program as the executor prepares it: judged once, ready for any number of runs."""
        prepared: Prepared = _simulator(self.target).prepare(self.container)
        return prepared

    def _input_list(self) -> str:
        return ", ".join(f"{b.path or b.name}: {b.dtype}{list(b.shape)}" for b in self.container.bindings_of("input"))

    def _inputs(self, args: Sequence[Any], kwargs: Mapping[str, Any], timing_only: bool) -> dict[str, Array]:
        if timing_only:
            return {}
        given = {path: leaf for path, leaf in leaves(tuple(args), dict(kwargs)) if isinstance(leaf, torch.Tensor)}
        bindings = {binding.path: binding for binding in self.container.bindings_of("input")}
        unknown = sorted(set(given) - set(bindings) - set(self.container.meta.get("unused_inputs", ())))
        missing = sorted(set(bindings) - set(given))
        if unknown or missing:
            what = f"does not take {unknown[0]}" if unknown else f"needs {missing[0]}"
            raise BadInput(f"the program {what}; its inputs are {self._input_list()}")
        return {binding.name: checked(to_numpy(given[path]), binding) for path, binding in bindings.items()}

    @paused()
    def _execute(
        self,
        judged: Callable[[], Prepared],
        inputs: Mapping[str, Array],
        args: Sequence[Any],
        kwargs: Mapping[str, Any],
        states: Mapping[str, Array] | None,
        exact: bool,
        timing_only: bool,
        reference: Sequence[torch.Tensor] | None,
        interpreter: bool,
    ) -> tuple[Result, dict[str, Array]]:
        if states is None and not timing_only:
            states = self._initial_states()
        start = time.perf_counter()
        execution = once(judged(), inputs, states, timing_only, exact)
        seconds = time.perf_counter() - start
        ran = not timing_only and bool(execution.outputs)  # an executor gives no numbers for a schedule that it cannot follow
        outputs = [] if not ran else [to_torch(execution.outputs[b.name], b.dtype) for b in self.container.bindings_of("output")]
        numerics = None if not ran else self._judge(outputs, execution.states, inputs, args, kwargs, states, reference, interpreter)
        return Result(outputs, self._data(execution, numerics, seconds), reference), dict(execution.states)

    def _initial_states(self) -> dict[str, Array] | None:
        """What every state starts from; None where all start at zero."""
        if not self.container.states:
            return None
        zero = {b.name: np.zeros(b.shape, np.float32) for b in self.container.bindings_of("state")}
        return zero | dict(self.container.states)

    def _judge(
        self,
        outputs: Sequence[torch.Tensor],
        left: Mapping[str, Array],
        inputs: Mapping[str, Array],
        args: Sequence[Any],
        kwargs: Mapping[str, Any],
        states: Mapping[str, Array] | None,
        reference: Sequence[torch.Tensor] | None,
        interpreter: bool,
    ) -> Numerics | None:
        """The verdict on outputs, and where the interpreter runs beside it on what the run `left` in states."""
        source = self._source
        if reference is None and source is not None and not self.container.bindings_of("state"):
            reference = torch_outputs(source.module, args, kwargs)
        if reference is None:
            return None
        meta = self.container.meta
        limits = tolerance_of(str(meta["precision"]))
        interpreted = None
        if interpreter and source is not None:
            values, updates = interpret(source.graph, inputs, states=states, store=source.lowered.store)
            interpreted = [*values, *(updates[name] for name in left)]
        vocabulary = bool(meta.get("tokens") or meta.get("classes"))
        return judge(
            [to_numpy(t) for t in outputs], [to_numpy(t) for t in reference], tolerance=limits.torch,
            resolution=limits.resolution if vocabulary else None, interpreted=interpreted, interpreter_tolerance=limits.interpreter,
            states=[np.asarray(value) for value in left.values()],
        )  # fmt: skip

    def _data(self, execution: Execution, numerics: Numerics | None, seconds: float) -> ResultData:
        program, meta = self.container, self.container.meta
        bound = program.bound.get("bound_cycles")
        status = "illegal" if not execution.legal else "wrong" if numerics is not None and not numerics.passed else "ok"
        time_s = execution.time_s
        tokens = {"prefill": meta["batch"] * meta["seq"], "decode": meta["batch"]}.get(str(meta["phase"]))
        return ResultData.model_validate(
            {
                **self._work(program),
                "status": status, "order": execution.order, "legal": execution.legal,
                "violations": [str(v) for v in execution.violations],
                "cycles": execution.cycles, "predicted_cycles": program.predicted_cycles, "clock_hz": program.machine["clock_hz"],
                "time_s": time_s, "interval_cycles": execution.interval_cycles, "load_s": execution.load_s,
                "tokens_per_s": tokens / time_s if tokens and meta.get("tokens") and time_s else None,
                "cycle_breakdown": dict(execution.breakdown), "chips": execution.chips,
                "bound_cycles": bound, "bound_kind": program.bound.get("bound_kind"),
                "class_bound_cycles": program.bound.get("class_bound_cycles"),
                "bound_fraction": bound / execution.cycles if bound and execution.cycles else None,
                "numerics": numerics, "utilization": dict(execution.utilization), "traffic": dict(execution.traffic),
                "memory": dict(execution.memory), "energy_j": execution.energy_j, "energy_breakdown": dict(execution.energy_breakdown),
                "compile_s": self._compile_s, "execute_s": seconds, "peak_rss_bytes": peak_rss_bytes(),
                "program_bytes": program.payload_bytes(), "digest": self.digest(), "host_ops": dict(execution.host_ops),
            }
        )  # fmt: skip

    @staticmethod
    def _work(program: container.Program) -> dict[str, Any]:
        names = ("model", "phase", "batch", "seq", "context", "precision", "overhead", "accumulate")
        return {"target": program.target, "machine": program.machine["name"], **{name: program.meta[name] for name in names}}


class Session:
    """Runs of one program that keep its State between them, as the machine's memory does.

    A schedule's legality and time do not depend on data: the first run judges the program and loads it, the others reuse both. The
    program must not be changed meanwhile.
    """

    def __init__(self, program: Program) -> None:
        self.program = program
        self._states: dict[str, Array] | None = None
        self._prepared: Prepared | None = None

    def _judged(self) -> Prepared:
        if self._prepared is None:
            self._prepared = self.program._judged()
        return self._prepared

    def run(self, *args: Any, **kwargs: Any) -> Result:
        """One run; State starts at its initial value in the first and where the last run left it in the others."""
        inputs = self.program._inputs(args, kwargs, timing_only=False)
        result, states = self.program._execute(self._judged, inputs, args, kwargs, self._states, False, False, None, False)
        if result.outputs:  # a run that data stopped leaves the states as they were
            self._states = states
        return result

    def reset(self) -> None:
        """Start again from the initial State."""
        self._states = None


@paused()
def compile(
    module: torch.nn.Module,
    args: Sequence[Any] = (),
    kwargs: Mapping[str, Any] | None = None,
    *,
    target: str,
    machine: str | Machine | None = None,
    precision: str | None = None,
    host_ops: str | None = None,
    **options: Any,
) -> Program:
    """Compile `module` for the shapes of `args` and `kwargs`.

    `target` is `tsp`, `cgla` or `wafer`; `machine` a preset, a YAML file or a description object (default: the target's preset);
    `precision` a number format that the target has; `host_ops` (cgla) is `published`, `embedding` or `none`. Further `options` are the
    fields of `Options`: `defects` (a JSON file) or `defect_rate` with `seed` make cores of a wafer dead, for instance. Raises
    UnsupportedOp (all missing ops at once), Infeasible (the model does not fit) and BadInput.
    """
    chosen = _chosen({"machine": machine, "precision": precision, "host_ops": host_ops, **options})
    _check(chosen, (target,))
    start = time.perf_counter()
    lowered = lower_module(module, tuple(args), dict(kwargs or {}))
    return _compile(module, lowered, target, chosen, start)


def _compile(module: torch.nn.Module, lowered: Lowered, target: str, options: Options, start: float) -> Program:
    kind = find_target(target)
    precision = options.precision or kind.precisions[0]
    if precision not in kind.precisions:
        raise BadInput(f"{target} has no {precision}; its formats are {', '.join(kind.precisions)}")
    machine = options.machine
    if machine is None or isinstance(machine, str):
        machine = load_machine(target, machine, options.changes)
    if not isinstance(machine, kind.model):
        raise BadInput(f"a {type(machine).__name__} does not describe a {target} machine")
    if isinstance(machine, WaferMachine):
        machine = _with_defects(machine, options)
    graph = prepare(lowered.graph, lowered.store, target, precision, options.verify, options.dump_after, options.dump)
    batch, seq = _lengths(lowered, options)
    meta = {
        "model": options.model, "phase": options.phase, "batch": batch, "seq": seq, "context": options.context or seq,
        "precision": precision, "overhead": options.overhead, "accumulate": options.accumulate,
        "tokens": lowered.vocabulary_axis, "classes": lowered.class_axis,
        "in_spec": lowered.in_spec, "out_spec": lowered.out_spec, "unused_inputs": sorted(lowered.unused_inputs),
    }  # fmt: skip
    compile_options = CompileOptions(
        machine=machine, precision=precision, host_ops=options.host_ops or ("published" if target == "cgla" else "none"),
        overhead=options.overhead, accumulate=options.accumulate, region=options.region, strategy=options.strategy, seed=options.seed,
        meta=meta, paths=lowered.paths,
    )  # fmt: skip
    if options.progress is not None:
        compile_options = dataclasses.replace(compile_options, progress=options.progress)
    backend = import_module(f".backends.{target}", __package__)
    program = _with_border(backend.compile_graph(graph, lowered.store, compile_options), lowered)
    return Program(program, _Source(module, lowered, graph), time.perf_counter() - start)


def _with_defects(machine: WaferMachine, options: Options) -> WaferMachine:
    """The wafer with the dead cores and links that the caller names or lets draw."""
    if options.defects is not None and options.defect_rate is not None:
        raise BadInput("give either a file of defects or a defect rate, not both")
    if options.defects is not None:
        return read_defects(machine, options.defects)
    return machine if options.defect_rate is None else random_defects(machine, options.defect_rate, options.seed)


def _starting_values(lowered: Lowered) -> dict[str, Array]:
    """What the states that do not start at zeros start from, by state name."""
    store = lowered.store
    values = {s.name: np.asarray(store.get(s.initial)) for s in lowered.graph.states if s.initial and store.has(s.initial)}
    return {name: value for name, value in values.items() if np.any(value)}


def _with_border(program: container.Program, lowered: Lowered) -> container.Program:
    """The program with the module's own border: inputs and outputs in torch's types (narrowing is the machine's affair, not the
    caller's), and what its states start from."""
    names = {dtype: name for name, dtype in TORCH.items()}
    types = {b.name: names[b.dtype] for b in lowered.input_bindings if b.kind == "input"}
    outputs = program.bindings_of("output")
    types |= {b.name: names[want.dtype] for b, want in zip(outputs, lowered.output_bindings, strict=True)}
    bindings = tuple(dataclasses.replace(b, dtype=types.get(b.name, b.dtype)) for b in program.bindings)
    return dataclasses.replace(program, bindings=bindings, states=_starting_values(lowered))


@paused()
def compare(
    module: torch.nn.Module,
    args: Sequence[Any] = (),
    kwargs: Mapping[str, Any] | None = None,
    *,
    targets: Sequence[str] = TARGETS,
    machines: Mapping[str, str | Machine] | None = None,
    exact: bool = False,
    timing_only: bool = False,
    **options: Any,
) -> list[Result]:
    """Compile and run one module on several machines; one result a target, in order.

    An infeasible or unsupported target is a result with that `status`, not an exception. `machines` maps a target to a preset, file or
    description; `options` are the fields of `Options`.
    """
    arguments, keywords = tuple(args), dict(kwargs or {})
    start = time.perf_counter()
    chosen = _chosen(options)
    _check(chosen, targets)
    failure: UnsupportedOp | None = None
    lowered: Lowered | None = None
    try:
        lowered = lower_module(module, arguments, keywords)
    except UnsupportedOp as error:
        failure = error
    exported_s = time.perf_counter() - start
    reference = None if timing_only or failure else torch_outputs(module, arguments, keywords)
    results = []
    for target in targets:
        own = dataclasses.replace(chosen, machine=(machines or {}).get(target, chosen.machine))
        try:
            if failure is not None or lowered is None:
                raise failure or BadInput("nothing was lowered")
            program = _compile(module, lowered, target, own, time.perf_counter() - exported_s)
            result = program.execute(
                arguments, keywords, exact=exact, timing_only=timing_only, reference=reference, interpreter=not timing_only
            )
        except (Infeasible, UnsupportedOp) as error:
            result = _failed(target, own, error)
        results.append(result)
    return results


def _failed(target: str, options: Options, error: Infeasible | UnsupportedOp) -> Result:
    kind = find_target(target)
    machine = options.machine or kind.default
    details: dict[str, Any] = {"kind": type(error).__name__, "message": str(error)}
    if isinstance(error, Infeasible):
        details |= {
            "resource": error.resource, "demand": error.demand, "bound": error.bound, "gap": error.gap, "unit": error.unit,
            "where": error.where, "levers": list(error.levers),
        }  # fmt: skip
    else:
        details["ops"] = list(error.ops)
    data = ResultData(
        model=options.model, target=target, machine=machine if isinstance(machine, str) else machine.name, phase=options.phase,
        batch=options.batch or 1, seq=options.seq or 1, context=options.context or options.seq or 1,
        precision=options.precision or kind.precisions[0],
        status="infeasible" if isinstance(error, Infeasible) else "unsupported", error=details,
    )  # fmt: skip
    return Result([], data)


def load(path: str | Path) -> Program:
    """Read a saved program. Raises BadInput for a truncated or altered file."""
    return Program(container.load_program(path))


def _simulator(target: str) -> Any:
    find_target(target)
    return import_module(f".runtime_sim.{target}", __package__)


def _lengths(lowered: Lowered, options: Options) -> tuple[int, int]:
    """(batch, sequence length) of the work: as the caller says, else the first two dimensions of the first input."""
    first = next((node.shape for node in lowered.graph.inputs if node.shape), (1, 1))
    return options.batch or first[0], options.seq or (first[1] if len(first) > 1 else 1)


def peak_rss_bytes() -> int:
    """Largest resident memory of this process so far."""
    scale = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * scale
