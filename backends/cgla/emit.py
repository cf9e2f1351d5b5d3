"""One piece of a graph as one segment: host tasks for most nodes, launches for contractions.

The emitter walks a template (the nodes of one copy of a repeated layer, or any stretch of nodes) in order. Every piece of DDR is a symbol
of the segment; what a symbol is bound to (a value of another piece, a constant's image, scratch memory) is kept beside it, so that each
copy binds its own.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from math import prod

from ...ir.access import access_strides, is_affine, order_of, row_major
from ...ir.graph import Constant, Contract, Gather, Graph, Input, Map, Move, Node, Reduce, Scan, Scatter, Sort, State
from ...ir.types import BF16, F16, F32
from ...machines.cgla.tables import DTYPE_BYTES, HostKind
from ..options import CompileOptions
from .constants import known_result
from .contract import Plan, Roles, plan_contract, roles_of
from .digits import Box, Radix, cover, refine
from .gemm import max_groups
from .host import HostOperand, HostTask, constant, identity
from .images import Array, Blocks, Image, RowMajor, Weights, stored
from .nest_kernel import NoSlot
from .nest_launch import SMALLEST_DMA, Nest, NestRun, nest_of
from .nests import (
    Value,
    contract_tasks,
    copy_task,
    fill_task,
    gather_tasks,
    label_of,
    map_tasks,
    move_tasks,
    reduce_tasks,
    scan_tasks,
    scatter_tasks,
    sort_tasks,
)
from .row_copies import RowRun, row_copies
from .schedule import Job, Place, Pools, Schedule

HOST_ADVANTAGE = 4
"""A contraction in many batch elements goes to the host where its loops take this many times less than its launches."""


@dataclass(frozen=True)
class Scratch:
    """A symbol that lives inside the segment."""

    size: int


@dataclass(frozen=True)
class Shared:
    """A symbol that holds the value of a node (by template id) for other pieces."""

    node: int


@dataclass(frozen=True)
class Imaged:
    """A symbol that holds an image of a Constant node (by template id)."""

    node: int
    image: Image


@dataclass(frozen=True)
class Given:
    """A symbol that is one buffer of the program."""

    number: int


@dataclass(frozen=True, eq=False)
class Tabled:
    """A symbol whose bytes are known when the program is compiled; `node` is the template id whose value it is for other pieces, or -1."""

    values: Array
    node: int


Bound = Scratch | Shared | Imaged | Given | Tabled


@dataclass(frozen=True)
class Prepared:
    """A contraction with its plan; `weights` is the symbol of constant weights."""

    node: Contract
    roles: Roles
    plan: Plan
    weights: int | None
    where: str


@dataclass(frozen=True)
class _Pending:
    """A contraction whose launches wait for others of the same geometry."""

    product: Prepared
    results: Value
    value: Value
    shares: list[list[Job]]


@dataclass(frozen=True)
class Strided:
    """A row-major value seen through one role of a contraction or another: extents and item strides of each role's axes."""

    value: Value
    offset: int
    roles: tuple[tuple[tuple[int, int], ...], ...]


def constant_cast(graph: Graph, node_id: int) -> tuple[Constant, str] | None:
    """(constant, dtype) where a node is a Constant, or nothing but a cast of one."""
    node = graph[node_id]
    if isinstance(node, Constant):
        return node, node.dtype.name
    if isinstance(node, Map) and len(node.operands) == 1 and node.expr.op == "cast" and node.expr.args[0].op == "arg":
        source = graph[node.operands[0]]
        whole = isinstance(source, Constant) and source.shape == node.shape and source.dtype.is_float and node.dtype.is_float
        if whole and is_affine(node.accesses[0]) and order_of(node.groups) == tuple(range(len(node.axes))):
            view = access_strides(node.accesses[0], source.shape, len(node.axes))
            if not view.offset and view.strides == row_major(node.axes):
                assert isinstance(source, Constant)
                return source, node.dtype.name
    return None


def provenance_of(node: Node) -> str:
    """What a person needs to find the node in the model."""
    origin = node.origin
    parts = [f"%{node.id}", origin.op or node.kind.lower(), origin.module, origin.source]
    return " ".join(part for part in parts if part)


class Emitter:
    """Emits nodes below `stop` into a schedule.

    `shared` are template ids whose value other pieces read; `aliases` maps a node to the State whose buffer it updates in place; what
    neither the array nor, by the options, the host computes goes to `missing` as (label, why, provenance).
    """

    def __init__(
        self,
        graph: Graph,
        pools: Pools,
        options: CompileOptions,
        stop: int,
        shared: frozenset[int],
        aliases: Mapping[int, int],
        missing: list[tuple[str, str, str]],
    ) -> None:
        self.graph = graph
        self.pools = pools
        self.options = options
        self.schedule = Schedule(pools)
        self.stop = stop
        self.shared = shared
        self.aliases = aliases
        self.missing = missing
        self.hosted = options.host_ops == "published"
        self.bounds: list[Bound] = []
        self._values: dict[int, Value] = {}
        self._images: dict[tuple[int, Image], int] = {}
        self._known: dict[int, Array] = {}
        self._filled: set[int] = set()
        self._packed: dict[tuple[object, ...], int] = {}
        self._prepared: dict[int, Prepared | None] = {}
        self._pending: list[_Pending] = []
        self._rules: dict[type[Node], Callable[[Node], None]] = {
            Map: self._host, Reduce: self._host, Gather: self._host, Move: self._host, Scatter: self._host, Sort: self._host,
            Scan: self._host, Contract: self._contract,
        }  # fmt: skip

    # --- values ------------------------------------------------------------------------------------------------------------------------

    def symbol(self, bound: Bound, size: int) -> int:
        """A new symbol."""
        self.bounds.append(bound)
        return self.schedule.symbol(max(size, 1 if self.hosted or isinstance(bound, Imaged) else SMALLEST_DMA))

    def scratch(self, items: int, dtype: str) -> Value:
        """A new scratch array."""
        size = items * DTYPE_BYTES[dtype]
        return Value(self.symbol(Scratch(size), size), dtype, (items,))

    def _part(self, items: int, dtype: str) -> tuple[int, str]:
        value = self.scratch(items, dtype)
        return value.symbol, value.dtype

    def value(self, node_id: int) -> Value:
        """Where the value of a node lies."""
        node = self.graph[node_id]
        found = self._values.get(node_id)
        if found is not None:
            if any(p.value.symbol == found.symbol for p in self._pending):
                self.flush()
            return found
        source = constant_cast(self.graph, node_id)
        size = node.size * node.dtype.bytes
        if source is not None:
            image = RowMajor(source[1], node.shape)
            found = Value(self.image(source[0], image), source[1], node.shape)
        else:
            found = Value(self.symbol(Shared(node_id), size), node.dtype.name, node.shape)
        self._values[node_id] = found
        return found

    def image(self, node: Constant, image: Image) -> int:
        """The symbol of an image of a constant."""
        key = (node.id, image)
        if key not in self._images:
            self._images[key] = self.symbol(Imaged(node.id, image), image.size)
        return self._images[key]

    def _result(self, node: Node) -> Value:
        size = node.size * node.dtype.bytes
        if node.id in self.aliases:
            base = self.value(self.aliases[node.id])
            found = Value(base.symbol, base.dtype, node.shape)
        else:
            bound: Bound = Shared(node.id) if node.id in self.shared else Scratch(size)
            found = Value(self.symbol(bound, size), node.dtype.name, node.shape)
        self._values[node.id] = found
        return found

    # --- nodes -------------------------------------------------------------------------------------------------------------------------

    def emit(self, node: Node) -> None:
        """Everything that computes one node."""
        if isinstance(node, Input | Constant | State):
            return
        if constant_cast(self.graph, node.id) is not None and node.id not in self.shared:
            return
        self._rules[type(node)](node)

    def copy(self, source: int, target: Value) -> None:
        """The value of a node into a buffer of its own (an output or a state)."""
        self.run(copy_task(self.value(source), target, "copy"), provenance_of(self.graph[source]))

    def run(self, task: HostTask, provenance: str) -> None:
        """Schedule a loop nest: on the host where the options leave it there, else as launches."""
        task, mode = replace(task, provenance=provenance), self.options.host_ops
        if self.hosted or (mode == "embedding" and task.label == "gather"):
            self.schedule.host(task)
            return
        try:
            self._on_array(task)
        except NoSlot as error:
            if not self._tabulate(task):
                self.missing.append((task.label, str(error), provenance))

    def _on_array(self, task: HostTask) -> None:
        """A loop nest as launches, or as copies of rows. Raises NoSlot."""
        machine = self.pools.machine
        if any(operand.lookups for operand in task.operands):
            RowRun(self.schedule, row_copies(task, machine.lmm_bytes)).run()
            return
        result = task.operands[0]
        NestRun(self.schedule, self._nest(task, result.symbol in self._filled)).run()
        if _items(task) * DTYPE_BYTES[result.dtype] == self.schedule.symbols[result.symbol].size:
            self._filled.add(result.symbol)

    def _nest(self, task: HostTask, filled: bool) -> Nest:
        """The launches of a loop nest; `filled`: its result's bytes are all written. Raises NoSlot."""
        machine = self.pools.machine
        sizes = [self.schedule.symbols[operand.symbol].size for operand in task.operands]
        return nest_of(task, machine.rows, machine.lmm_bytes, frozenset(machine.extensions), sizes, filled)

    def _runs(self, task: HostTask, filled: bool) -> bool:
        """Whether the array has launches for a loop nest."""
        try:
            self._nest(task, filled)
        except NoSlot:
            return False
        return True

    def _run_all(self, tasks: Sequence[HostTask], result: Value, provenance: str) -> None:
        """Schedule the loop nests of a value, those that write parts of it among them. Parts smaller than a request are written into what
        is there, so it is filled first."""
        if not self.hosted and result.symbol not in self._filled:
            parts = [task for task in tasks if task.operands[0].symbol == result.symbol and not any(o.lookups for o in task.operands)]
            fill = fill_task(0.0 if result.dtype.startswith("f") else 0, result, "fill")
            if any(not self._runs(part, False) and self._runs(part, True) for part in parts) and self._runs(fill, False):
                self.run(fill, provenance)
        for task in tasks:
            self.run(task, provenance)

    def _tabulate(self, task: HostTask) -> bool:
        """Where the array lacks a function, a result that can be known becomes an image; whether this one did."""
        symbol = task.operands[0].symbol
        bound = self.bounds[symbol]
        node = bound.node if isinstance(bound, Shared) else -1
        if (
            symbol in self._filled
            or not isinstance(bound, Scratch | Shared)
            or node in self.graph.outputs
            or node in self.graph.updates.values()
        ):
            return False
        values = known_result(task, self._known)
        dtype = task.operands[0].dtype
        if values is None or values.size * DTYPE_BYTES[dtype] != self.schedule.symbols[symbol].size:
            return False
        self.bounds[symbol] = Tabled(stored(values, dtype), node)
        self._known[symbol] = values
        return True

    def _host(self, node: Node) -> None:
        values = [self.value(o) for o in node.operands]
        result = self._result(node)
        if node.id in self.aliases:
            self._filled.add(result.symbol)
        self._run_all(self._host_tasks(node, values, result), result, provenance_of(node))

    def _host_tasks(self, node: Node, values: Sequence[Value], result: Value) -> list[HostTask]:
        label = label_of(node)
        if isinstance(node, Map):
            return map_tasks(node, values, result, self._part, label, not self.hosted)
        if isinstance(node, Reduce):
            return reduce_tasks(node, values, result, self._part, label, not self.hosted)
        if isinstance(node, Gather):
            return gather_tasks(node, values, result, label)
        if isinstance(node, Move):
            return move_tasks(node, values, result, label, skip=1 if node.id in self.aliases else 0)
        if isinstance(node, Scatter):
            return scatter_tasks(node, values, result, label, node.id in self.aliases)
        if isinstance(node, Sort):
            return sort_tasks(node, values, result, label)
        assert isinstance(node, Scan)
        return scan_tasks(node, values, result, label)

    # --- contractions ------------------------------------------------------------------------------------------------------------------

    def prepared(self, node: Contract) -> Prepared | None:
        """The plan of a contraction, None where the host computes it: in arithmetic that the array lacks (integers, double precision),
        or in many small batch elements."""
        if node.id not in self._prepared:
            types = [self.graph[o].dtype for o in node.operands]
            fits = node.acc is F32 and all(t in (F32, F16, BF16) for t in types)
            self._prepared[node.id] = self._prepare(node) if fits else None
        return self._prepared[node.id]

    def _prepare(self, node: Contract) -> Prepared | None:
        constants = [constant_cast(self.graph, o) for o in node.operands]
        roles = roles_of(node, (constants[0] is not None, constants[1] is not None))
        found = constants[roles.weights]
        source = found[0] if found is not None else None
        roles = self._ordered(node, roles, roles.weights if source is not None else roles.inputs)
        form = self._form(self.graph[node.operands[roles.weights]].dtype.name, source)
        batch, m, n, k = (prod(node.axes[a] for a in axes) for axes in (roles.batch, roles.m, roles.n, roles.k))
        where = provenance_of(node)
        plan = plan_contract(self.pools.machine, form, batch, m, n, k, source is not None, where)
        if self._better_on_host(node, plan):
            return None
        weights = self._constant_weights(node, roles, plan, source) if source is not None else None
        return Prepared(node, roles, plan, weights, where)

    def _better_on_host(self, node: Contract, plan: Plan) -> bool:
        """Whether a contraction has so many small batch elements (a depthwise convolution, say) that launches cost far more than loops."""
        machine = self.pools.machine
        loops = 2 * prod(node.axes) / machine.host_flops_per_cycle / machine.cores
        return plan.batch > 1 and loops * HOST_ADVANTAGE < plan.cycles

    def _ordered(self, node: Contract, roles: Roles, operand: int) -> Roles:
        """The roles with K in the memory order of an operand: its blocks (and long runs) stay whole."""
        view = access_strides(node.accesses[operand], self.graph[node.operands[operand]].shape, len(node.axes))
        return replace(roles, k=tuple(sorted(roles.k, key=lambda axis: (-abs(view.strides[axis]), axis))))

    def _contract(self, node: Node) -> None:
        assert isinstance(node, Contract)
        product = self.prepared(node)
        if product is None:
            types = [self.graph[o].dtype for o in node.operands]
            values = [self.value(o) for o in node.operands]
            kind = "batched" if node.acc is F32 else types[0].name
            for task in contract_tasks(node, values, self._result(node), types, f"contract {kind}"):
                self.run(task, provenance_of(node))
            return
        weights = product.weights if product.weights is not None else self._pack_weights(product)
        inputs = self._pack_inputs(product)
        plan = product.plan
        results = self.scratch(plan.batch * plan.result_items, "f32")
        shares = self._shares(product, weights, inputs, results.symbol)
        if self._pending and self._pending[0].product.plan.geometry != plan.geometry:
            self.flush()
        self._pending.append(_Pending(product, results, self._result(node), shares))

    def flush(self) -> None:
        """Launch the contractions that wait (all of one geometry, one after the other), then fetch the first weights of the next one
        while the host unpacks."""
        pending, self._pending = self._pending, []
        if not pending:
            return
        lanes = range(self.pools.machine.lanes)
        shares = [[job for p in pending for job in p.shares[lane]] for lane in lanes]
        self.schedule.launches(pending[0].product.plan.geometry, shares)
        self.fetch_ahead(pending[-1].product.node.id + 1)
        for p in pending:
            self._unpack(p.product, p.results, p.value)

    def fetch_ahead(self, start: int) -> None:
        """Configure the lanes for the first contraction from node `start` on, and load its first weights if they are constant: the host
        works meanwhile."""
        if not self.hosted:
            return
        for node_id in range(start, self.stop):
            node = self.graph[node_id]
            product = self.prepared(node) if isinstance(node, Contract) else None
            if product is not None:
                if product.weights is not None:
                    self.schedule.preload(product.plan.geometry, self._shares(product, product.weights, -1, -1))
                return

    def _form(self, dtype: str, source: Constant | None) -> str:
        """Weights of constants are fp16 unless fp32 is asked for or they are Q8_0; other operands keep what they hold."""
        if "X_H2F" not in self.pools.machine.extensions:
            return "f32"
        if source is not None and source.ref.storage == "q8_0":
            return "q8_0" if max_groups("q8_0", self.pools.machine.rows) else "f32"
        half = dtype == "f16" or (source is not None and self.options.precision != "fp32")
        return "f16" if half else "f32"

    def _strided(self, node: Contract, operand: int, value: Value, parts: Sequence[tuple[int, ...]]) -> Strided:
        view = access_strides(node.accesses[operand], value.shape, len(node.axes))
        roles = tuple(tuple((node.axes[a], view.strides[a]) for a in axes) for axes in parts)
        return Strided(value, view.offset, roles)

    def _constant_weights(self, node: Contract, roles: Roles, plan: Plan, source: Constant) -> int:
        operand = self.graph[node.operands[roles.weights]]
        view = access_strides(node.accesses[roles.weights], operand.shape, len(node.axes))
        batch, m, k = (tuple((node.axes[a], view.strides[a]) for a in axes) for axes in (roles.batch, roles.m, roles.k))
        geometry = plan.geometry
        form, sets = geometry.kernel.form, 1 << geometry.kernel.set_bits
        block = form == "q8_0"
        image = Weights("f32" if block else form, view.offset, batch, m, k, plan.output_tiles, sets, plan.padded_k // 4)
        return self.image(source, Blocks(image) if block else image)

    def _pack_weights(self, product: Prepared) -> int:
        node, roles, plan, where = product.node, product.roles, product.plan, product.where
        value = self.value(node.operands[roles.weights])
        natural = self._strided(node, roles.weights, value, (roles.batch, roles.k, roles.m))
        layouts = (Radix((), (plan.weight_items,)), *plan.weight_layout())
        return self._pack(natural, layouts, (plan.batch, plan.padded_k, plan.padded_m), plan.geometry.kernel.form, where)

    def _pack_inputs(self, product: Prepared) -> int:
        node, roles, plan, where = product.node, product.roles, product.plan, product.where
        value = self.value(node.operands[roles.inputs])
        natural = self._strided(node, roles.inputs, value, (roles.batch, roles.k, roles.n))
        layouts = (Radix((), (plan.input_items,)), *plan.input_layout())
        return self._pack(natural, layouts, (plan.batch, plan.padded_k, plan.padded_n), "f32", where)

    def _pack(self, natural: Strided, layouts: Sequence[Radix], padded: tuple[int, ...], dtype: str, where: str) -> int:
        """An operand in its blocked layout, zeros where it is padded; operands that several contractions read are packed once."""
        key = (natural, tuple(layouts), padded, dtype)
        if key not in self._packed:
            blocked = self.scratch(prod(padded), dtype)
            sizes = [prod(e for e, _ in role) for role in natural.roles]
            if self.hosted:
                self._pad(blocked, layouts, sizes, padded, where)
            elif tuple(padded) != tuple(sizes):
                self.run(fill_task(0.0, blocked, "pad"), where)
            self._rearrange(natural, layouts, blocked, True, "pack", where)
            self._packed[key] = blocked.symbol
        return self._packed[key]

    def _pad(self, blocked: Value, layouts: Sequence[Radix], sizes: Sequence[int], padded: Sequence[int], where: str) -> None:
        for role in range(len(sizes)):
            if padded[role] == sizes[role]:
                continue
            spans = [(0, sizes[r] if r < role else padded[r]) for r in range(len(sizes))]
            spans[role] = (sizes[role], padded[role])
            for boxes in _product([cover(*span, layout) for span, layout in zip(spans, layouts, strict=True)]):
                digits = [d for box in boxes for d in box.digits]
                strides = {i: d.weight for i, d in enumerate(digits)}
                target = HostOperand(blocked.symbol, blocked.dtype, strides, sum(b.offset for b in boxes) * DTYPE_BYTES[blocked.dtype])
                extents = tuple(d.extent for d in digits) or (1,)
                self.run(HostTask(HostKind.MAP, extents, (target,), constant(0.0, blocked.dtype), label="pad"), where)

    def _rearrange(self, natural: Strided, layouts: Sequence[Radix], blocked: Value, into: bool, label: str, where: str) -> None:
        """Copy between a value and its blocked form; through a flat copy where the axes and the blocks do not nest."""
        covers = [refine([e for e, _ in role], layout) for role, layout in zip(natural.roles, layouts, strict=True)]
        if all(boxes is not None for boxes in covers):
            every = _product([b for b in covers if b is not None])
            tasks = [_box_task(natural, boxes, blocked, into, label) for boxes in every]
            self._run_all(tasks, blocked if into else natural.value, where)
            return
        sizes = [prod(e for e, _ in role) for role in natural.roles]
        steps = row_major(sizes)
        flat = self.scratch(prod(sizes), natural.value.dtype if into else blocked.dtype)
        staged = Strided(flat, 0, tuple(((size, step),) for size, step in zip(sizes, steps, strict=True)))
        inner = tuple(Radix((), (step,)) for step in steps)
        if into:
            self._rearrange(natural, inner, flat, True, label, where)
        every = _product([cover(0, size, layout) for size, layout in zip(sizes, layouts, strict=True)])
        tasks = [_box_task(staged, boxes, blocked, into, label) for boxes in every]
        self._run_all(tasks, blocked if into else flat, where)
        if not into:
            self._rearrange(natural, inner, flat, False, label, where)

    def _shares(self, product: Prepared, weights: int, inputs: int, results: int) -> list[list[Job]]:
        """The launches of every lane."""
        plan, geometry = product.plan, product.plan.geometry

        def job(b: int, c: int, o: int) -> Job:
            return Job(
                Place(weights, (b * plan.output_tiles + o) * geometry.weight_bytes),
                Place(inputs, (b * plan.column_tiles + c) * geometry.input_bytes),
                Place(results, ((b * plan.column_tiles + c) * plan.output_tiles + o) * geometry.result_bytes),
                product.where,
            )

        return [[job(*tile) for tile in share] for share in plan.shares(self.pools.machine.lanes)]

    def _unpack(self, product: Prepared, results: Value, value: Value) -> None:
        node, roles, plan = product.node, product.roles, product.plan
        order = order_of(node.groups)
        steps = dict(zip(order, row_major([node.axes[a] for a in order]), strict=True))
        parts = tuple(tuple((node.axes[a], steps[a]) for a in axes) for axes in (roles.batch, roles.m, roles.n))
        layouts = (Radix((), (plan.result_items,)), *plan.result_layout())
        self._rearrange(Strided(value, 0, parts), layouts, results, False, "unpack", product.where)


def _items(task: HostTask) -> int:
    """Items that a task's nest writes."""
    strides = task.operands[0].strides
    return prod(extent for axis, extent in enumerate(task.extents) if strides.get(axis))


def _product(choices: Sequence[Sequence[Box]]) -> list[tuple[Box, ...]]:
    found: list[tuple[Box, ...]] = [()]
    for boxes in choices:
        found = [(*head, box) for head in found for box in boxes]
    return found


def _box_task(natural: Strided, boxes: Sequence[Box], blocked: Value, into: bool, label: str) -> HostTask:
    """One MAP between a box of a value and the same box of its blocked form."""
    value = natural.value
    offset = natural.offset
    inner: list[tuple[int, int, int]] = []
    for role, box in zip(natural.roles, boxes, strict=True):
        offset += sum(first * stride for first, (_, stride) in zip(box.start, role, strict=True))
        inner += [(d.extent, d.step * role[d.axis][1], d.weight) for d in box.digits]
    inner.sort(key=lambda loop: (-loop[2], -loop[1]) if into else (-abs(loop[1]), -loop[2]))
    plain = HostOperand(value.symbol, value.dtype, {i: s for i, (_, s, _) in enumerate(inner)}, offset * DTYPE_BYTES[value.dtype])
    start = sum(box.offset for box in boxes) * DTYPE_BYTES[blocked.dtype]
    tiled = HostOperand(blocked.symbol, blocked.dtype, {i: w for i, (_, _, w) in enumerate(inner)}, start)
    extents = tuple(e for e, _, _ in inner) or (1,)
    operands = (tiled, plain) if into else (plain, tiled)
    return HostTask(HostKind.MAP, extents, operands, identity(operands[1].dtype, operands[0].dtype), label=label)
