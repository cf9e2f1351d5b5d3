"""Walks an exported program and makes the dataflow graph: one registered lowering an FX node.

FX values become `Value`s (a `Pair` where complex), parameters and buffers become constants by reference, buffers and arguments that the
program changes become States. Nothing is skipped silently: every op without a lowering, and every node a lowering refuses, is collected,
and one UnsupportedOp names them all.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from math import prod
from typing import Any

import torch
from torch.export import ExportedProgram
from torch.export.graph_signature import ConstantArgument, InputKind, OutputKind, OutputSpec, TensorArgument
from torch.utils import _pytree as pytree

from ..errors import UnsupportedOp
from ..ir.graph import Constant, ConstantRef, Gather, Graph, GraphBuilder, Input, Lookup, Origin, State
from ..ir.store import ConstantStore
from ..ir.types import DType
from .constants import TorchConstants
from .emit import Emitter
from .export import decompose, export, is_plain
from .provenance import module_path, op_name, op_name_of, origin_of, source_line
from .ranges import derive_ranges
from .registry import COMPLEX, LOWERINGS, NOTHING, PARTWISE, REFUSED, TAKES_EMPTY
from .types import Empty, Pair, Refused, Result, Value, from_torch, result_of
from .weights import block_of

_CHANGES = (OutputKind.BUFFER_MUTATION, OutputKind.USER_INPUT_MUTATION)
_DATA_DEPENDENT = "it needs a number that depends on data while compiling"


@dataclass(frozen=True)
class Binding:
    """A tensor argument or result of the module: its name in the graph, pytree path, torch dtype, shape, and `input`, `state` or `output`.

    Paths are `args[0]`, `kwargs['input_ids']`, `out.logits`.
    """

    name: str
    path: str
    dtype: torch.dtype
    shape: tuple[int, ...]
    kind: str


@dataclass(frozen=True)
class Lowered:
    """The graph of a module with all that a caller needs to feed it and to put its results back into torch's structure.

    `output_leaves` has one entry a leaf of torch's flattened result: the number of the graph output, or the Python constant itself.
    `in_spec` and `out_spec` are torch's pytree specs as text.
    """

    graph: Graph
    store: ConstantStore
    input_bindings: tuple[Binding, ...]
    output_bindings: tuple[Binding, ...]
    output_leaves: tuple[int | tuple[object], ...]
    in_spec: str
    out_spec: str
    exported: ExportedProgram
    unused_inputs: frozenset[str] = frozenset()
    table_rows: frozenset[int] = field(default=frozenset())

    @property
    def paths(self) -> dict[str, str]:
        """Pytree paths of inputs, states and outputs by name."""
        return {b.name: b.path for b in (*self.input_bindings, *self.output_bindings)}

    @property
    def vocabulary_axis(self) -> bool:
        """Whether the first result scores tokens: floats whose last dimension has one entry a row of an embedding table."""
        first = self.output_bindings[0] if self.output_bindings else None
        return first is not None and first.dtype.is_floating_point and bool(first.shape) and first.shape[-1] in self.table_rows

    @property
    def class_axis(self) -> bool:
        """Whether the first result scores classes: a row of floats an item, from inputs that are not ids."""
        first = self.output_bindings[0] if self.output_bindings else None
        floats = all(b.dtype.is_floating_point for b in self.input_bindings)
        return first is not None and first.dtype.is_floating_point and len(first.shape) == 2 and floats and not self.vocabulary_axis


@dataclass(frozen=True)
class _Poison:
    """The value of a node that was refused, or that reads one: its readers are not reported again."""


@dataclass(frozen=True)
class _Missing:
    """One op that cannot be compiled, where it stands and why."""

    op: str
    module: str
    source: str
    reason: str


_POISON = _Poison()


def lower_module(module: torch.nn.Module | ExportedProgram, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None) -> Lowered:
    """Export `module` for the shapes of `args` and `kwargs` and lower it. Raises UnsupportedOp with every op that has no form here."""
    program = export(module, args, kwargs)
    try:
        return lower_exported(program)
    except UnsupportedOp as refusal:
        if not is_plain(program):
            raise
        try:
            decomposed = decompose(program)  # torch may resolve a composite op that its lowering refuses
        except UnsupportedOp:
            raise refusal from None
        return lower_exported(decomposed)


def lower_exported(program: ExportedProgram) -> Lowered:
    """Lower a functional exported program (as `export` gives it)."""
    return _Walk(program).run()


class _Walk:
    """One lowering in progress."""

    def __init__(self, program: ExportedProgram) -> None:
        self.program = program
        self.builder = GraphBuilder()
        self.store = ConstantStore()
        self.constants = TorchConstants(self.store)
        self.emit = Emitter(self.builder, self.store)
        self.values: dict[torch.fx.Node, Any] = {}
        self.missing: list[_Missing] = []
        self.inputs: list[Binding] = []
        self.states: dict[str, str] = {}  # FX placeholder -> state name
        self._targets: dict[str, str] = {}  # name in the signature's outputs -> FX placeholder
        self.unused: set[str] = set()

    def run(self) -> Lowered:
        self._placeholders()
        for node in self.program.graph.nodes:
            if node.op == "call_function":
                self.values[node] = self._call(node)
            elif node.op == "get_attr":
                self.values[node] = self._refuse(node, "submodules in a graph (control flow) have no form in the IR")
        outputs, leaves = self._outputs()
        if self.missing:
            raise unsupported(self.missing)
        updates = {self.states[self._targets[target]]: value for target, value in self._updates().items()}
        graph = derive_ranges(self.builder.finish([value.id for value, _ in outputs], updates))
        return Lowered(
            graph, self.store, tuple(self.inputs), tuple(binding for _, binding in outputs), tuple(leaves),
            _spec_text(self.program.call_spec.in_spec), _spec_text(self.program.call_spec.out_spec), self.program,
            frozenset(self.unused), _table_rows(graph),
        )  # fmt: skip

    def _returned(self) -> list[tuple[OutputSpec, Any]]:
        """What the program returns beside what the signature says of it."""
        output = next(n for n in self.program.graph.nodes if n.op == "output")
        results: Any = output.args[0]
        return list(zip(self.program.graph_signature.output_specs, results, strict=True))

    def _outputs(self) -> tuple[list[tuple[Value, Binding]], list[int | tuple[object]]]:
        """The tensors that torch returns with their bindings, and every leaf of torch's result; refuses what cannot be returned."""
        outputs: list[tuple[Value, Binding]] = []
        leaves: list[int | tuple[object]] = []
        paths = _output_paths(self.program)
        for spec, result in self._returned():
            if spec.kind is OutputKind.USER_OUTPUT:
                path = next(paths)
                value = self.values.get(result, _POISON) if isinstance(result, torch.fx.Node) else result
                if value is None or isinstance(value, int | float | bool | str):
                    leaves.append((value,))
                elif self._tensor_result(result, value):
                    leaves.append(len(outputs))
                    outputs.append((value, Binding(f"output_{len(outputs)}", path, *_torch_type(result), "output")))
            elif spec.kind in _CHANGES:
                self._tensor_result(result, self.values.get(result, _POISON))
            elif spec.kind is not OutputKind.TOKEN:
                self.missing.append(_Missing(f"output {spec.kind.name.lower()}", "", "", "training graphs cannot be compiled"))
        return outputs, leaves

    def _updates(self) -> dict[str, int]:
        """The new value of every changed buffer and argument, by its name in the signature."""
        return {str(spec.target): self.values[result].id for spec, result in self._returned() if spec.kind in _CHANGES}

    # -- sources ------------------------------------------------------------------------------------------------------------------

    def _placeholders(self) -> None:
        signature = self.program.graph_signature
        nodes = [n for n in self.program.graph.nodes if n.op == "placeholder"]
        changed = {str(s.target) for s in signature.output_specs if s.kind in _CHANGES}
        paths = _input_paths(self.program)
        for node, spec in zip(nodes, signature.input_specs, strict=True):
            self.emit.origin = Origin((node.name,), "", "", "placeholder")
            path = next(paths) if spec.kind is InputKind.USER_INPUT else ""
            try:
                if spec.kind is InputKind.TOKEN:
                    self.values[node] = None
                elif isinstance(spec.arg, ConstantArgument):
                    self.values[node] = spec.arg.value
                elif not isinstance(spec.arg, TensorArgument):
                    self.values[node] = self._refuse(node, "only tensors and Python constants can be arguments")
                elif spec.kind is InputKind.USER_INPUT:
                    self.values[node] = self._argument(node, path, node.name in changed)
                else:
                    self.values[node] = self._stored(node, str(spec.target), str(spec.target) in changed)
            except Refused as reason:
                self.values[node] = self._refuse(node, str(reason))

    def _argument(self, node: torch.fx.Node, path: str, changed: bool) -> Value | Pair | Empty:
        dtype, shape = _torch_type(node)
        kind = result_of(node.meta["val"])
        if not prod(shape):
            return Empty(kind.dtype, shape)
        if kind.is_complex:
            raise Refused("complex arguments cannot be bound: pass torch.view_as_real(x) and rebuild it inside")
        if not node.users and not changed:
            self.unused.add(path)
            return Empty(kind.dtype, shape)
        self.inputs.append(Binding(node.name, path, dtype, shape, "state" if changed else "input"))
        if changed:
            return self._state(node, node.name, kind, None)
        return self._source(Input, kind, name=node.name)

    def _stored(self, node: torch.fx.Node, name: str, changed: bool) -> Value | Pair | Empty:
        tensor = self._tensor(name)
        kind = result_of(tensor)
        if not tensor.numel():
            return Empty(kind.dtype, kind.shape)
        if kind.is_complex:
            if changed:
                raise Refused("a complex buffer that changes has no form in the IR")
            parts = [self._constant(f"{name}.{part}", getattr(tensor, part), kind.dtype) for part in ("real", "imag")]
            return Pair(*parts)
        if not changed:
            return self._constant(name, tensor, kind.dtype)
        initial = None
        if not tensor.is_meta and bool(torch.any(tensor != 0)):
            initial = name
            self.constants.put(name, tensor.clone())  # a copy: running the module changes the buffer
        return self._state(node, name, kind, initial)

    def _tensor(self, name: str) -> torch.Tensor:
        found = self.program.state_dict.get(name)
        if found is None:
            found = self.program.constants[name]
        if not isinstance(found, torch.Tensor):
            raise Refused(f"the constant {name!r} is not a tensor")
        return found

    def _constant(self, name: str, tensor: torch.Tensor, dtype: DType) -> Value:
        key = self.constants.key(name, tensor)
        shape = tuple(tensor.shape)
        block = block_of(tensor)
        if block is not None:
            self.store.put_block(key, block.planes)
        ref = ConstantRef(key, dtype, shape, "dense" if block is None else block.format)
        return self._source(Constant, Result(dtype, shape, ()), ref=ref)

    def _state(self, node: torch.fx.Node, name: str, kind: Result, initial: str | None) -> Value:
        self.states[node.name] = name
        self._targets[name] = node.name
        return self._source(State, kind, name=name, initial=initial)

    def _source(self, kind: type[Any], result: Result, **fields: Any) -> Value:
        node_id = self.builder.new(kind, [], dtype=result.dtype, shape=result.shape, origin=self.emit.origin, **fields)
        return Value(node_id, result.dtype, result.shape)

    # -- calls --------------------------------------------------------------------------------------------------------------------

    def _call(self, node: torch.fx.Node) -> Any:
        name = op_name(node)
        args: Any = torch.fx.node.map_arg(node.args, self._value_of)
        kwargs: Any = torch.fx.node.map_arg(node.kwargs, self._value_of)
        if name == "higher_order.with_effects" and op_name_of(node.args[1]) in NOTHING:
            return None  # an ordered check or print; its result is a token
        if name in NOTHING or (name == "operator.getitem" and (not node.users or args[0] is None)):
            return None
        if name == "operator.getitem" and not isinstance(args[0], _Poison):
            value = args[0][args[1]]
            return value if value is not None else self._refuse(node.args[0], f"its result {args[1]} has no form in the IR")
        function = self._lowering(node, name, args, kwargs)
        if function is None and name in REFUSED:
            return self._refuse(node, REFUSED[name])
        if function is None and not name.startswith("operator.") and not _on_symbols(node):
            return self._refuse(node, "no lowering is registered for it")
        if _holds(args, _Poison) or _holds(kwargs, _Poison):
            return _POISON
        if function is None:
            return self._python(node, args)
        try:
            inspect.signature(function).bind(self.emit, *args, **kwargs)
        except TypeError as error:
            return self._refuse(node, f"its lowering does not take these arguments: {error}")
        try:
            self._enter(node)
            first = self.emit.results[0] if len(self.emit.results) == 1 else None
            if first is not None and not prod(first.shape):
                return Empty(first.dtype, first.shape)
            if name not in TAKES_EMPTY and (_holds(args, Empty) or _holds(kwargs, Empty)):
                raise Refused("an operand has no elements")
            return self._checked(node, function(self.emit, *args, **kwargs))
        except Refused as reason:
            return self._refuse(node, str(reason))

    def _value_of(self, node: torch.fx.Node) -> Any:
        return self.values.get(node, _POISON)

    @staticmethod
    def _lowering(node: torch.fx.Node, name: str, args: Any, kwargs: Any) -> Callable[..., Any] | None:
        meta = node.meta.get("val")
        makes_complex = isinstance(meta, torch.Tensor) and meta.is_complex()
        if makes_complex or _holds(args, Pair) or _holds(kwargs, Pair):
            if name in COMPLEX:
                return COMPLEX[name]
            if name in PARTWISE and _holds(args, Pair):
                return _partwise(LOWERINGS[name])
            if name in LOWERINGS:
                return _no_complex
            return None
        return LOWERINGS.get(name) or COMPLEX.get(name)

    def _enter(self, node: torch.fx.Node) -> None:
        """Set the emitter to this node: provenance, result types, which results are read, torch's common type of its operands."""
        emit = self.emit
        emit.origin = origin_of(node)
        value = node.meta.get("val")
        tensors = value if isinstance(value, list | tuple) else (value,)
        many = isinstance(value, list | tuple)
        used = {u.args[1] for u in node.users if op_name(u) == "operator.getitem" and u.users} if many else {0}
        emit.used = frozenset(int(n) for n in used if isinstance(n, int))
        emit.results = tuple(
            result_of(t) if isinstance(t, torch.Tensor) and (not many or n in emit.used) else None for n, t in enumerate(tensors)
        )

        def meta(position: int) -> Any:
            argument = node.args[position]
            return argument.meta["val"] if isinstance(argument, torch.fx.Node) else argument

        emit.common = lambda *positions: from_torch(torch.result_type(*(meta(p) for p in positions)))
        emit.operand_stride = lambda position: tuple(meta(position).stride())

    def _checked(self, node: torch.fx.Node, value: Any) -> Any:
        """The lowering's value after a check against torch's type of the node: a lowering that errs is a defect found here."""
        parts = value if isinstance(value, list | tuple) else (value,)
        for part, expected in zip(parts, self.emit.results, strict=False):
            if expected is None or part is None:
                continue
            if (part.dtype, part.shape, isinstance(part, Pair)) != (expected.dtype, expected.shape, expected.is_complex):
                raise AssertionError(
                    f"the lowering of {self.emit.origin.op} gives {part.dtype}{list(part.shape)}, "
                    f"torch gives {expected.dtype}{list(expected.shape)} at {node.name}"
                )
        return value

    def _python(self, node: torch.fx.Node, args: Any) -> Any:
        """Python arithmetic on sizes: numbers are computed, numbers that depend on data are refused."""
        function = node.target
        if callable(function) and all(isinstance(a, int | float | bool) for a in args):
            return function(*args)
        return self._refuse(node, _DATA_DEPENDENT)

    # -- results and refusals -----------------------------------------------------------------------------------------------------------

    def _tensor_result(self, node: torch.fx.Node, value: Any) -> bool:
        """Whether `value` is a real tensor; complex and empty ones are refused."""
        if isinstance(value, Pair):
            self._refuse(node, "a complex result cannot be returned: return torch.view_as_real(x)")
        elif isinstance(value, Empty):
            self._refuse(node, "a result without elements cannot be returned")
        return isinstance(value, Value)

    def _refuse(self, node: Any, reason: str) -> _Poison:
        self.missing.append(_Missing(op_name(node), module_path(node), source_line(node), reason))
        return _POISON


def unsupported(missing: Sequence[_Missing]) -> UnsupportedOp:
    """One error for all of them: a line for each op, reason and Python line, with the first module and how many more there are."""
    places: dict[tuple[str, str, str], list[str]] = {}
    for m in missing:
        places.setdefault((m.op, m.source, m.reason), []).append(m.module)
    lines = []
    for (op, source, reason), modules in places.items():
        where = modules[0] or "the root module"
        more = f" and {len(modules) - 1} more" if len(modules) > 1 else ""
        lines.append(f"{op} in {where}{more}{f' ({source})' if source else ''}: {reason}")
    names = len({m.op for m in missing})
    head = "1 op cannot be compiled" if names == 1 else f"{names} ops cannot be compiled"
    return UnsupportedOp("\n  ".join([f"{head}:", *lines]), lines)


def _no_complex(lo: Emitter, *_: object, **__: object) -> Any:
    raise Refused("it has no form for complex numbers in the IR")


def _partwise(function: Callable[..., Any]) -> Callable[..., Any]:
    """A view of a complex value: the same view of both parts."""

    def both(lo: Emitter, *args: Any, **kwargs: Any) -> Any:
        parts = [function(lo, *_part(args, part), **kwargs) for part in ("re", "im")]
        if isinstance(parts[0], list | tuple):
            return [Pair(a, b) for a, b in zip(*parts, strict=True)]
        return Pair(*parts)

    return both


def _part(args: Any, part: str) -> Any:
    return pytree.tree_map(lambda a: getattr(a, part) if isinstance(a, Pair) else a, args, is_leaf=lambda a: isinstance(a, Pair))


def _holds(args: Any, kind: type[Any]) -> bool:
    if isinstance(args, kind):
        return True
    if isinstance(args, dict):
        args = args.values()
    elif not isinstance(args, list | tuple):
        return False
    return any(_holds(a, kind) for a in args)


def _on_symbols(node: torch.fx.Node) -> bool:
    """Whether the node computes a size or another number, not a tensor."""
    return isinstance(node.meta.get("val"), torch.SymInt | torch.SymFloat | torch.SymBool | int | float | bool)


def _torch_type(node: torch.fx.Node) -> tuple[torch.dtype, tuple[int, ...]]:
    tensor = node.meta["val"]
    return tensor.dtype, tuple(tensor.shape)


def _input_paths(program: ExportedProgram) -> Any:
    """`args[0]`, `kwargs['ids']`... for the flattened arguments, in order."""
    spec = program.call_spec.in_spec
    leaves = pytree.tree_flatten_with_path(pytree.tree_unflatten(list(range(spec.num_leaves)), spec))[0]
    for keys, _ in leaves:
        text = pytree.keystr(keys)
        yield f"args{text[3:]}" if text.startswith("[0]") else f"kwargs{text[3:]}"


def _output_paths(program: ExportedProgram) -> Any:
    """`out`, `out[0]`, `out.logits` (fields of a class)... for the flattened results, in order."""
    spec = program.call_spec.out_spec
    tree = pytree.tree_unflatten([_Leaf() for _ in range(spec.num_leaves)], spec)
    for keys, _ in pytree.tree_flatten_with_path(tree)[0]:
        text = pytree.keystr(keys)
        yield "out" + (text if spec.type is dict else re.sub(r"^\['([A-Za-z_]\w*)'\]", r".\1", text))


class _Leaf:
    """A placeholder that is no pytree node, for naming the leaves of a structure."""


def _spec_text(spec: Any) -> str:
    try:
        return str(pytree.treespec_dumps(spec))
    except NotImplementedError:  # a class of the model's own that has no serialised name
        return repr(spec)


def _table_rows(graph: Graph) -> frozenset[int]:
    """Row counts of the tables that Gathers look up in their first dimension."""
    rows = set()
    for node in graph.nodes:
        if isinstance(node, Gather) and isinstance(node.accesses[0][0], Lookup):
            data = graph[node.operands[0]]
            if isinstance(data, Constant) and len(data.shape) == 2:
                rows.add(data.shape[0])
    return frozenset(rows)
