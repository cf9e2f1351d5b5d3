"""Tables of a wafer program: the contract between emitter and executor (section 5 of `docs/wafer-model.md`).

**Places.** Program tables use columns x (EAST) and rows y (SOUTH) of the program rectangle. A *segment* has its own frame: its regions
are placed relative to the instance's (x, y) and all its cycles are relative to the instance's `start`. Roles (`rows`, `cols`: start,
stop, step) are relative to the region's corner; so are the x, y that multiply `tx`, `ty`, `px`, `py`.

**Memory.** An object is a block of consecutive words at one word address on every core of its region. An operand names an object and a
word offset inside it, so that an instance can keep its objects at other word addresses (`binds.word`, equal modulo 8 so that bank rule
C6 holds for all instances alike). Elements of an object are numbered from 0; `extents` and `strides` (outermost first, in elements)
give its logical shape [e0, e1, e2, e3], which images, placements and bindings use. Instructions are free to walk it otherwise.

**Operand address**, in elements, on core (y, x) of the region, repetition k of the burst's loop and K of that loop's parent:
`addr/words + step[0] * m0 + step[1] * m1 + sum(index * stride)` where `m0 = k + py*y + px*x + vector(pvy)[y] + vector(pvx)[x]`
(taken modulo `wrap[0]` if that is not 0) and `m1 = K` (modulo `wrap[1]` if not 0). Outside loops k = K = 0, so `step[0]` with `py`,
`px` or vectors is also the way to give each core its own address.

**Fabric operands** stream `n3*n2*n1*n0` elements in the order of the nest (last extent fastest), packed as F12 says; a scalar from a
queue streams `n3*n2*n1` halves. Their object, address, strides and steps are at their defaults.

**Time** of a burst on a core: `t0 + ty*y + tx*x + vector(vy)[y] + vector(vx)[x] + vector(dense)[y*w + x] + k*period + K*period'`.

**What fills memory at cycle 0.** Weights and constants by `binds` (IMAGE, PLACED or, to share words with an object of another instance,
OBJECT); inputs and states by the program's bindings; an input object that continues an earlier instance's output by OBJECT.
`Binding.where` of inputs, outputs and states is a list of pieces `{"instance": row of instances, "object": id, "placement": id}`; several
pieces of an input or state are parts or copies, the pieces of an output or state must cover it.
"""

from __future__ import annotations

from enum import IntEnum

from ..program import Column, TableType

NONE = -1


class Port(IntEnum):
    """Router ports; a tx mask has bit `1 << port`."""

    E = 0
    W = 1
    N = 2
    S = 3
    RAMP = 4


class Trigger(IntEnum):
    """Why a burst starts when it does (T7)."""

    AFTER = 0
    ARRIVE = 1
    HOLD = 2


class ObjectKind(IntEnum):
    """Weight, constant, state and input have contents at cycle 0; the others are undefined until written (W44)."""

    WEIGHT = 0
    CONSTANT = 1
    STATE = 2
    INPUT = 3
    OUTPUT = 4
    ACTIVATION = 5
    SCRATCH = 6


class OperandKind(IntEnum):
    """Where an operand lies."""

    NONE = 0
    MEM = 1
    FABRIC = 2
    IMM = 3


class BindKind(IntEnum):
    """What fills an object of an instance: tiles [h, w, *extents], a dense array with a placement, or an object of another instance."""

    IMAGE = 0
    PLACED = 1
    OBJECT = 2


def image_key(number: int) -> str:
    """Name in `Program.images` of image member `number`."""
    return f"m{number:06d}"


RHO = "rho"
"""Image member: int32 [rows], physical row of each logical row of the program rectangle (only in programs with defects)."""
PHI = "phi"
"""Image member: int32 [rows, cols], physical column of each logical core."""

REGIONS = TableType(
    "regions",
    (
        Column("id", "int32", "number of the region in its segment"),
        Column("x", "int32", "first column, relative to the instance"),
        Column("y", "int32", "first row, relative to the instance"),
        Column("w", "int32", "columns"),
        Column("h", "int32", "rows"),
        Column("first", "int64", "first cycle of the region's life"),
        Column("last", "int64", "end of its life: no burst ends later"),
        Column("prov", "int32", "index into Program.provenance", default=NONE),
    ),
)

OBJECTS = TableType(
    "objects",
    (
        Column("id", "int32", "number of the object in its segment"),
        Column("region", "int32", "id of its region"),
        Column("word", "int32", "word address on every core of the region"),
        Column("fmt", "int32", "isa.Element"),
        Column("ext", "int32", "logical extents, outermost first, unused are 1", (4,), 1),
        Column("stride", "int32", "elements per step of each extent, 0 where the extent is 1", (4,)),
        Column("kind", "int32", "ObjectKind"),
        Column("prov", "int32", "index into Program.provenance", default=NONE),
    ),
)

ROUTES = TableType(
    "routes",
    (
        Column("region", "int32", "id, or -1: coordinates of the instance, traffic between regions"),
        Column("colour", "int32", "colour"),
        Column("position", "int32", "switch position, 0 where the router has one"),
        Column("rows", "int32", "routers: start, stop, step", (3,)),
        Column("cols", "int32", "routers: start, stop, step", (3,)),
        Column("rx", "int32", "Port that wavelets come from"),
        Column("tx", "int32", "mask of Ports that they leave by"),
        Column("since", "int64", "cycle from which the entry holds; 0: from the start of the region's life (F7)"),
    ),
)

LOOPS = TableType(
    "loops",
    (
        Column("id", "int32", "number of the loop in its segment"),
        Column("parent", "int32", "id of the enclosing loop or -1; nests are at most two deep", default=NONE),
        Column("rep", "int32", "repetitions", default=1),
        Column("period", "int64", "cycles from one repetition to the next; 0 where rep is 1"),
        Column("first", "int64", "first cycle of repetition 0 (of the parent's repetition 0)"),
    ),
)

POOL = TableType(
    "pool",
    (
        Column("vector", "int32", "number of the vector, ascending"),
        Column("value", "int32", "its elements in order"),
    ),
)


def _operand(prefix: str, what: str) -> tuple[Column, ...]:
    return (
        Column(f"{prefix}_kind", "int32", f"{what}: OperandKind"),
        Column(f"{prefix}_obj", "int32", "object id", default=NONE),
        Column(f"{prefix}_addr", "int32", "word offset inside the object"),
        Column(f"{prefix}_stride", "int32", "elements per step of n3, n2, n1, n0; 0 where the extent is 1", (4,)),
        Column(f"{prefix}_step", "int32", "elements per repetition of the loop and of its parent", (2,)),
        Column(f"{prefix}_wrap", "int32", "modulus of the repetition, 0: none", (2,)),
        Column(f"{prefix}_py", "int32", "phase per row"),
        Column(f"{prefix}_px", "int32", "phase per column"),
        Column(f"{prefix}_pvy", "int32", "pool vector of phases by row", default=NONE),
        Column(f"{prefix}_pvx", "int32", "pool vector of phases by column", default=NONE),
    )


OPERANDS = ("d", "a", "b", "s")

BURSTS = TableType(
    "bursts",
    (
        Column("id", "int32", "number of the burst in its segment; rows are ordered by (region, t0, id)"),
        Column("loop", "int32", "id of its loop or -1", default=NONE),
        Column("region", "int32", "id of its region"),
        Column("rows", "int32", "role: start, stop, step", (3,)),
        Column("cols", "int32", "role: start, stop, step", (3,)),
        Column("op", "int32", "isa.Op"),
        Column("fmt", "int32", "isa.Fmt"),
        Column("trigger", "int32", "Trigger"),
        Column("after", "int32", "ids of predecessors on the same core, unused -1 at the end", (4,), NONE),
        Column("lag", "int32", "0: same repetition, 1: the one before; one per predecessor", (4,)),
        Column("t0", "int64", "cycle on core (0, 0), repetition 0"),
        Column("ty", "int32", "cycles per row"),
        Column("tx", "int32", "cycles per column"),
        Column("vy", "int32", "pool vector of cycles by row of the region", default=NONE),
        Column("vx", "int32", "pool vector of cycles by column of the region", default=NONE),
        Column("dense", "int32", "pool vector of cycles by core [h*w] of the region", default=NONE),
        Column("span", "int32", "cycles from first beat to end (T2)", default=1),
        *_operand("d", "destination"),
        *_operand("a", "first source"),
        *_operand("b", "second source"),
        *_operand("s", "scalar"),
        Column("imm", "float64", "value of the immediate operand (at most one operand is IMM), else 0"),
        Column("ext", "int32", "extents n3, n2, n1, n0; n0 is the vector", (4,), 1),
        Column("cin", "int32", "colour of the fabric source", default=NONE),
        Column("qin", "int32", "its input queue", default=NONE),
        Column("cout", "int32", "colour of the fabric destination, or of SWITCH", default=NONE),
        Column("qout", "int32", "its output queue", default=NONE),
        Column("q", "int32", "wavelets per beat; 0 without fabric vectors"),
        Column("mt", "int32", "microthread where the machine has explicit ids and the burst has fabric operands", default=NONE),
        Column("control", "int32", "1: a control wavelet follows and advances every router that it passes (F6b)"),
        Column("look", "int32", "LDX, STX: lo, count, stride, lo per row, lo per column", (5,)),
        Column("prov", "int32", "index into Program.provenance", default=NONE),
    ),
)

INSTANCES = TableType(
    "instances",
    (
        Column("segment", "int32", "index into Program.segments"),
        Column("x", "int32", "column of the segment's origin in the program rectangle"),
        Column("y", "int32", "row of the segment's origin"),
        Column("start", "int64", "cycle that its cycles are relative to"),
    ),
)

BINDS = TableType(
    "binds",
    (
        Column("instance", "int32", "row of instances; rows are ordered by (instance, object)"),
        Column("object", "int32", "object id in the instance's segment"),
        Column("kind", "int32", "BindKind"),
        Column("image", "int32", "image member of IMAGE and PLACED", default=NONE),
        Column("placement", "int32", "placement id of PLACED", default=NONE),
        Column("source", "int32", "instance of OBJECT, earlier than `instance`", default=NONE),
        Column("source_object", "int32", "object id of OBJECT, in the source's segment", default=NONE),
        Column("word", "int32", "word address of the object in this instance; -1: the object's own", default=NONE),
    ),
)
"""Relocation without contents (an activation or state at another word) is an OBJECT bind with `source` -1."""

PLACEMENTS = TableType(
    "placements",
    (
        Column("id", "int32", "number of the placement"),
        Column("view", "int32", "row-major shape [d0, d1, d2, d3] that the tensor is viewed as, leading 1s", (4,), 1),
        Column("origin", "int32", "first index of core (y, x) along each dimension: constant, per row, per column", (4, 3)),
        Column("index", "int32", "image member int32 [h, w, 4] of origins instead (then `origin` is 0), or -1", default=NONE),
        Column("coef", "int32", "index steps of dimension d per step of object extent e: coef[d][e]", (4, 4)),
        Column("rows", "int32", "cores that hold a part: start, stop, step", (3,)),
        Column("cols", "int32", "cores that hold a part: start, stop, step", (3,)),
    ),
)
"""Tensor index of element (i0..i3) on core (y, x): `origin[d] . (1, y, x) + sum_e coef[d][e] * i_e`; positions outside the view are
padding: 0 when loaded, ignored when read. One object element has one tensor index; a tensor element may have several copies."""

STREAMS = TableType(
    "streams",
    (
        Column("binding", "int32", "index into Program.bindings; rows are ordered by (binding, start)"),
        Column("start", "int64", "first cycle on the host link"),
        Column("span", "int64", "cycles", default=1),
    ),
)
"""Transfers over the host link while the program runs (H1, H4, W51). An input that is streamed is in memory from `start + span`, an
output may be read from `start`. Bindings without a stream are in memory at cycle 0 and read after the end (H2)."""

SEGMENT_TABLES = (REGIONS, OBJECTS, ROUTES, LOOPS, POOL, BURSTS)
PROGRAM_TABLES = (INSTANCES, BINDS, PLACEMENTS, STREAMS)
