"""The text form: every kind prints and parses back, and errors say the line and what was expected."""

from __future__ import annotations

import math

import pytest

from spatialc.errors import BadInput
from spatialc.ir import expr as ex
from spatialc.ir.graph import Graph, GraphBuilder, Index, Input, Map, Origin, Region, Repeat
from spatialc.ir.text import parse, print_expr, print_graph, print_number
from spatialc.ir.types import BF16, BOOL, F16, F32, F64, I64
from spatialc.ir.verify import verify

EVERY_KIND = """\
%0: f32[4,6] = input "x"
%1: i64[3] = input "ids" range 0 to 4
%2: f32[5,6] = constant "w"
%3: f32[5,6] = constant "layer.\\"q\\"" as "q8_0"
%4: f32[5,6] = state "cache" = "zero"
%5: f32[4,5] = contract [i,j] over i:4 j:5 k:6: %0[i,k] * %2[j,k] acc f32
%6: f32[5,4] = map [i,j] over i:5 j:4: select((i <= (j + 2)), (%5[j,i] * 0.125), -inf)
%7: i64[4] = reduce argmax [i] over i:4 j:5: %5[i,j]
%8: f32[3,6] = gather [i,j] over i:3 j:6: %2[%1[i],j]
%9: f32[5,6] = scatter add %4 over i:3 j:6: [%1[i],j] <- %8[i,j]
%10: i64[4,2] = sort %0 axis 1 descending first 2
%11: f32[4,6] = scan add %0 axis 1 reverse
%12: f32[6,8] = move fill 0.5 at [0,1] step [1,2] [i,j] over i:6 j:3: %0[2,i]; at [5,0] [0,i] over i:4: %0[i,5]
%13: f32[4,6] = map [i,j] over i:4 j:6 reading %11[i,j], %0[i,j]: ($1 - $0)
%14: bool[2,3] = map [i,j] over i:2 j:3: not((i < j))
%15: f32[6,4] = map [i,j] over i:6 j:4: fma(f32(i64(%0[j,i])), %0[j,i], min(%0[j,i], 3))
output %5, %6, %7, %10, %12, %13, %14, %15
update "cache" = %9
region "contraction" %5 "contract", %6 "epilogue"
"""


def test_every_kind_round_trips() -> None:
    text = EVERY_KIND
    graph = parse(text)
    assert print_graph(graph) == text
    assert parse(print_graph(graph)) == graph
    assert [b for b in verify(graph) if b.rule != "IR-030"] == []


def test_origins_are_comments() -> None:
    builder = GraphBuilder()
    origin = Origin(("add_1", "view"), "model.layers.0", "modeling.py:12", "aten.add.Tensor")
    builder.new(Input, dtype=F32, shape=(2,), name="a # b", origin=origin)
    text = print_graph(builder.finish([0]))
    assert text.splitlines()[0] == '%0: f32[2] = input "a # b"  # add_1, view | model.layers.0 | modeling.py:12 | aten.add.Tensor'
    assert parse(text) == builder.finish([0])


def test_overlays_round_trip() -> None:
    graph = parse(EVERY_KIND.split("region")[0])
    full = Graph(graph.nodes, graph.outputs, graph.updates, (Region("softmax", (5, 6), ("max", "exp")),), (Repeat(5, 2, 3),))
    assert parse(print_graph(full)) == full


@pytest.mark.parametrize(
    "value", [0.0, -0.0, 1.0, 0.1, 1 / 576, 1e-12, -3.4028234663852886e38, 65504.0, 3.0e7, math.inf, -math.inf, 5e-324]
)
@pytest.mark.parametrize("dtype", [F64, F32, F16, BF16])
def test_numbers_parse_back_exactly(value: float, dtype: object) -> None:
    leaf = ex.const(value, dtype)  # type: ignore[arg-type]
    text = print_number(leaf.value, leaf.dtype)  # type: ignore[arg-type]
    assert ex.const(float(text), leaf.dtype) is leaf


def test_literals_take_the_type_of_their_neighbours() -> None:
    x = ex.arg(0, F16)
    expr = ex.make("add", ex.make("mul", x, ex.const(0.1, F16)), ex.const(2.0, F16))
    assert print_expr(expr, lambda n: "%0[i]") == "((%0[i] * 0.1) + 2)"
    text = '%0: f16[3] = input "x"\n%1: f16[3] = map [i] over i:3: ((%0[i] * 0.1) + 2)\noutput %1\n'
    node = parse(text)[1]
    assert isinstance(node, Map) and node.expr is expr


def test_axes_beyond_z_have_numbers() -> None:
    axes = (2,) * 20
    expr = ex.cast(ex.make("add", ex.axis(0), ex.axis(19)), F32)
    builder = GraphBuilder()
    builder.new(Map, dtype=F32, shape=(2**20,), axes=axes, accesses=(), groups=(tuple(range(20)),), expr=expr)
    graph = builder.finish([0])
    assert "z:2 a1:2 a2:2: f32((i + a2))" in print_graph(graph)
    assert parse(print_graph(graph)) == graph


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("hello", "starts no line"),
        ('%1: f32[2] = input "x"', "stands where %0 is due"),
        ('%0: f31[2] = input "x"', "expected an element type, found 'f31'"),
        ("%0: f32[2] = inputs", "unknown kind 'inputs'"),
        ('%0: f32[2] = input "x" extra', "expected end of line, found 'extra'"),
        ("%0: f32[2] = map [i] over i:2: %7[i]", "%7 is used before it is defined"),
        ("%0: f32[2] = map [i] over i:2: frob(i)", "unknown operator 'frob'"),
        ("%0: f32[2] = map [i] over i:2: (i + f32(1))", "mixed operands"),
        ("%0: f32[2] = map [i] over j:2: f32(1)", "expected the next axis letter"),
        ("%0: f32[2] = map [i] over i:2: (1 + 2)", "a typed operand of add"),
        ("%0: f32[2] = input ?", "cannot read '?'"),
    ],
)
def test_errors_name_the_line(line: str, message: str) -> None:
    with pytest.raises(BadInput, match="line 2") as error:
        parse("\n" + line + "\n")
    assert message in str(error.value)


def test_equal_entries_are_one_object() -> None:
    a = ex.make("add", ex.arg(0, F32), ex.const(1.0))
    assert ex.make("add", ex.arg(0, F32), ex.const(1.0)) is a
    assert ex.const(0.1, F32) is ex.const(float.fromhex("0x1.99999ap-4"), F32), "constants are rounded to their type"
    assert ex.const(0.0) is not ex.const(-0.0)


def test_local_rewrites_keep_rounding() -> None:
    x, i, true = ex.arg(0, F32), ex.axis(0), ex.const(True, BOOL)
    assert ex.make("mul", x, ex.const(1.0)) is x
    assert ex.make("add", x, ex.const(0.0)).op == "add", "-0 + 0 is +0"
    assert ex.make("add", x, ex.const(-0.0)) is x
    assert ex.make("mul", x, ex.const(0.0)).op == "mul", "NaN * 0 is NaN"
    assert ex.make("eq", i, i) is true
    assert ex.make("eq", x, x).op == "eq", "NaN is not itself"
    assert ex.make("pow", x, ex.const(2.0)) is ex.make("mul", x, x)
    assert ex.make("idiv", ex.const(-7, I64), ex.const(2, I64)).value == -4
    assert ex.make("select", true, x, ex.const(0.0)) is x


def test_index_normal_form() -> None:
    assert Index.of(1, ((2, 3), (0, 1), (2, -3))) == Index(1, ((0, 1),))
    assert Index(5, ((0, -1),)).bounds((6,)) == (0, 5)
