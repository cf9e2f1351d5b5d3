"""The matrix product kernels: Y[n, m] = sum over k of X[n, k] * W[k, m], weights of every row its own (model sections 4 and 7).

One iteration takes 2 outputs x 4 columns x 4 G inputs. G groups of rows follow each other; a group holds 4 inputs: one row loads their
weights (a word = the weights of 2 outputs), two rows load the activations of 4 columns (a word = 2 inputs of one column, broadcast by
H1010 and H3232), four rows multiply and add. Four chains, one a column, run down all groups; the last row adds over the K steps in its
own slot (`FAD` self) and stores. fp16 weights take one more row of X_H2F a group, Q8_0 two: SML8 with a one picks a byte and extends its
sign, FMI makes it fp32. A K step of Q8_0 is one block of 32 inputs, so the last row multiplies the chain by the block's scale.

    row 0            LOOP0 (t), LOOP1 (column group, set), step counters
    row 1, 2         offsets: weights (t, set), activations (t, column group), results
    row 2 + P g      weights of group g           P = 4 (fp32), 5 (fp16) or 6 (Q8_0)
    row 3, 5 + P g   activations of inputs 0, 1 and of 2, 3 (one row lower for Q8_0)
    rows 4..7 + P g  products                     (one row lower for Q8_0)
    last row         sum over t, store

The nest of three loops t < T, set < 2^b, column group < C runs on two hardware loops: LOOP0 = t, LOOP1 = C * 2^b with the set in the low
bits (model section 3, "more loops by bits"). Column n = j * C + c for chain j and column group c, so results are row-major.

Layouts (`Geometry`): weights [G][T][2^b][4 inputs][2 outputs] (Q8_0: [G][T][2^b][2 outputs][4 inputs], then scales [T][2^b][2 outputs]),
activations [G][2 halves][T][N][2 inputs], results [N][2^b][2 outputs]; all are contiguous, and one DMA request fills every row with its
own part through the descriptors. Input k has digits (g, t, half, i), for Q8_0 (t, g, half, i), outer to inner.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

from ...machines.cgla.isa import Register
from .body import Body, Held, Operand, Placed, Value, place

HIGH = 0xFFFFFFFF00000000
LOW = 0x00000000FFFFFFFF
BYTE_0 = 0x0000000100000001  # SML8 with these picks expanded byte 0 (2) of either word, with its sign
BYTE_2 = 0x0001000000010000
ONES = 0x3F8000003F800000  # 1.0, 1.0
CHAINS = 4
INPUTS = 4
OUTPUTS = 2
HEAD = 2
SCALE_BYTES = 4
"""A set's two fp16 scales of one block."""


@dataclass(frozen=True)
class Form:
    """How weights are stored: bytes of 4 inputs of 2 outputs, rows a group, rows from its weights to its first activations, and the
    number of groups where it is fixed (a block of 32 inputs is one K step of 8 groups)."""

    name: str
    bytes: int
    pitch: int
    lead: int
    groups: int = 0
    tail: int = 0


FORMS: dict[str, Form] = {
    form.name: form for form in (Form("f32", 32, 4, 1), Form("f16", 16, 5, 1), Form("q8_0", 8, 6, 2, groups=8, tail=1))
}


def max_groups(form: str, rows: int) -> int:
    """Largest number of groups that a lane of `rows` rows holds, 0 where none fits."""
    rule = FORMS[form]
    most = max((rows - 1 - HEAD - rule.lead - 5 - rule.tail) // rule.pitch + 1, 0)
    return (rule.groups if most >= rule.groups else 0) if rule.groups else most


@dataclass(frozen=True)
class GemmKernel:
    """One kernel: weight form (a name of `FORMS`), groups, log2 of the sets a launch, rows of the lane."""

    form: str
    groups: int
    set_bits: int
    rows: int

    @property
    def rule(self) -> Form:
        return FORMS[self.form]

    @property
    def set_bytes(self) -> int:
        """Weight bytes of one set and K step in one group: 4 inputs of 2 outputs."""
        return self.rule.bytes

    @property
    def weight_rows(self) -> tuple[int, ...]:
        return tuple(HEAD + self.rule.pitch * g for g in range(self.groups))

    @property
    def input_rows(self) -> tuple[tuple[int, int], ...]:
        """For every group the rows that load activations 0, 1 and 2, 3."""
        return tuple((row + self.rule.lead, row + self.rule.lead + 2) for row in self.weight_rows)

    @property
    def last_product_row(self) -> int:
        """Also the row that loads the scales of a block form."""
        return self.weight_rows[-1] + self.rule.lead + 4

    @property
    def store_row(self) -> int:
        return self.last_product_row + 1 + self.rule.tail


class _Writer:
    """Writes the body of one kernel."""

    def __init__(self, kernel: GemmKernel) -> None:
        self.kernel = kernel
        self.body = Body(kernel.rows)

    def write(self) -> Body:
        weights, offsets, results = self._counters()
        scales = self.body.alu(2, "NOP", weights, op3="SRL", imm5=1) if self.kernel.rule.tail else None
        sums: list[Value] | None = None
        for group in range(self.kernel.groups):
            sums = self._group(group, weights if group == 0 else offsets, offsets, sums)
        assert sums is not None
        self._finish(sums, results, scales)
        return self.body

    def _counters(self) -> tuple[Value, Value, Value]:
        """(weight offset for row 2, both offsets from row 3 on, result offset); weights in W0, activations and results in W1."""
        body, kernel = self.body, self.kernel
        sets = (1 << kernel.set_bits) - 1
        const = body.constant
        body.alu(0, "FOR", const("loop0"), const("minus1"), col=0)
        body.alu(0, "FOR", const("loop1"), const("minus1"), col=1)
        step = body.alu(0, "ADD", const("step_start"), const("step"), self_init=1, col=2)
        outer = body.alu(
            0, "ADD", const("outer_start"), const("outer"), op2="AND", imm4=HIGH | (sets * kernel.set_bytes), self_init=2, col=3
        )
        weights = body.alu(1, "ADD", step, outer, op2="AND", imm4=LOW)
        shift = 3 - kernel.set_bits  # the column group stands above the set bits, its columns are 8 bytes apart
        columns = body.alu(
            1, "NOP", outer, op2="AND", imm4=(LOW & ~sets) << 32,
            **({"op3": "SLL", "imm5": shift} if shift > 0 else {"op3": "SRL", "imm5": -shift} if shift < 0 else {}),  # type: ignore[arg-type]
        )  # fmt: skip
        inputs = body.alu(1, "NOP", step, op2="AND", imm4=HIGH)
        results = body.alu(1, "ADD", outer, const("result_start"), op2="AND", imm4=HIGH, op3="SLL", imm5=3)
        return weights, body.alu(2, "ADD3", columns, weights, inputs), results

    def _weights(self, group: int, offset: Value) -> list[Value]:
        """The weights of 4 inputs, a pair of fp32 (of unscaled integers in a block form) for the two outputs each."""
        body, kernel = self.body, self.kernel
        row = kernel.weight_rows[group]
        words = [body.load(row, f"w{group}.{i}", offset, "W0") for i in range(kernel.set_bytes // 8)]
        body.ring(row, 0, "IM_PREF")
        body.ring(row, 1, "IM_PREF")
        if kernel.form == "f32":
            return words
        if kernel.form == "f16":
            return [body.alu(row + 1, "X_H2F", words[i // 2], mode=i % 2) for i in range(INPUTS)]
        picks = [("B5410", "byte0"), ("B5410", "byte2"), ("B7632", "byte0"), ("B7632", "byte2")]
        whole = [body.alu(row + 1, "SML8", Operand(words[0], expand), body.constant(name)) for expand, name in picks]
        return [body.alu(row + 2, "FMI", body.constant("ones"), value) for value in whole]

    def _group(self, group: int, weight_offset: Value, offset: Value, sums: list[Value] | None) -> list[Value]:
        body = self.body
        weights = self._weights(group, weight_offset)
        for half, row in enumerate(self.kernel.input_rows[group]):
            inputs = [body.load(row, f"x{group}.{half}.{j}", offset, "W1") for j in range(CHAINS)]
            body.ring(row, 2, "IM_PREF")
            body.ring(row, 3, "IM_PREF")
            for i, expand in ((0, "H1010"), (1, "H3232")):
                weight = weights[2 * half + i]
                at = row + 1 + i
                if sums is None:
                    sums = [body.alu(at, "FML", weight, Operand(x, expand), col=j) for j, x in enumerate(inputs)]
                else:
                    pairs = enumerate(zip(sums, inputs, strict=True))
                    sums = [body.alu(at, "FMA", s, weight, Operand(x, expand), col=j) for j, (s, x) in pairs]
        assert sums is not None
        return sums

    def _finish(self, sums: list[Value], results: Value, scales: Value | None) -> None:
        """Sum over the K steps (times the scale of the step's block) and store."""
        body, row = self.body, self.kernel.store_row
        zero = body.constant("zero")
        scale = None
        if scales is not None:
            pair = body.load(row - 2, "scale", scales, "W0", op="LDWR")
            body.ring(row - 2, 0, "IM_PREF")
            body.ring(row - 2, 1, "IM_PREF")
            scale = body.alu(row - 1, "X_H2F", pair)
        for j, value in enumerate(sums):
            if scale is None:
                total = body.alu(row, "FAD", zero, value, self_init=1, col=j)
            else:
                total = body.alu(row, "FMA", zero, value, scale, self_init=1, col=j)
            body.store(total, f"y.{j}", results, "W1")
        body.ring(row, 0, "IM_DRAIN")
        body.ring(row, 1, "IM_DRAIN")


@lru_cache(maxsize=256)
def placed_kernel(kernel: GemmKernel) -> Placed:
    """The placed body of a kernel. Raises Infeasible on a lane with too few rows."""
    return place(_Writer(kernel).write())


@dataclass(frozen=True)
class Geometry:
    """A kernel with its loop counts and the sizes of its arrays: `steps` K steps, `columns` column groups a launch.

    Every array has two places in local memory (0 and 1), disjoint modulo `lmm` bytes, so that one is filled or drained while the other
    is used; with `single_input` the activations have one place only.
    """

    kernel: GemmKernel
    steps: int
    columns: int
    lmm: int
    single_input: bool = False

    @property
    def width(self) -> int:
        """Columns of a launch."""
        return CHAINS * self.columns

    @property
    def outputs(self) -> int:
        """Outputs of a launch."""
        return OUTPUTS << self.kernel.set_bits

    @property
    def iterations(self) -> int:
        return (self.steps * self.columns) << self.kernel.set_bits

    @property
    def weight_part(self) -> int:
        """Weight bytes of one row."""
        return (self.steps << self.kernel.set_bits) * self.kernel.set_bytes

    @property
    def scale_part(self) -> int:
        """Bytes of the scales of a block form; they follow the weights."""
        return (self.steps << self.kernel.set_bits) * SCALE_BYTES if self.kernel.rule.tail else 0

    @property
    def weight_bytes(self) -> int:
        """Bytes of a weight tile, all rows and scales."""
        return self.kernel.groups * self.weight_part + self.scale_part

    @property
    def input_part(self) -> int:
        """Activation bytes of one row."""
        return self.steps * self.width * 8

    @property
    def input_bytes(self) -> int:
        return 2 * self.kernel.groups * self.input_part

    @property
    def result_bytes(self) -> int:
        return self.width * self.outputs * 4

    def _second(self, total: int) -> int:
        """Distance of place 1 from place 0 of an array of `total` bytes over all rows: half a memory further, modulo its size."""
        return -(-total // self.lmm) * self.lmm + self.lmm // 2

    def weight_at(self, place_number: int) -> int:
        """Logical address of the weights in a place."""
        return place_number * self._second(self.weight_bytes)

    def input_at(self, place_number: int) -> int:
        return place_number * self._second(self.input_bytes)

    def result_at(self, place_number: int) -> int:
        return place_number * (self.lmm // 2)

    def receivers(self, what: str) -> tuple[int, ...]:
        """Rows that take the weights (`w`) or activations (`x`), or give the results (`y`)."""
        if what == "w":
            return self.kernel.weight_rows + ((self.kernel.last_product_row,) if self.kernel.rule.tail else ())
        if what == "x":
            return tuple(row for pair in self.kernel.input_rows for row in pair)
        return (self.kernel.store_row,)

    def descriptors(self) -> dict[tuple[int, int], tuple[int, int, int, int]]:
        """(row, slot) -> (top, bottom, write, read). Tags: weights 0 and 1, activations 2 and 3, results 0 and 1 by place."""
        found: dict[tuple[int, int], tuple[int, int, int, int]] = {}
        for index in (0, 1):
            for part, row in enumerate(self.receivers("w")):
                top = self.weight_at(index) + part * self.weight_part
                size = self.weight_part if part < self.kernel.groups else self.scale_part
                found[row, index] = (top, top + size - 1, 1, 0)
            if index == 0 or not self.single_input:
                for part, row in enumerate(self.receivers("x")):
                    top = self.input_at(index) + part * self.input_part
                    found[row, 2 + index] = (top, top + self.input_part - 1, 1, 0)
            top = self.result_at(index)
            found[self.kernel.store_row, index] = (top, top + self.result_bytes - 1, 0, 1)
        return found

    def registers(self, places: tuple[int, int, int]) -> dict[tuple[int, int, Register], int]:
        """Every host-written register when weights, activations and results use these places."""
        values = self._values(places)
        return {(h.row, h.col, h.register): values[h.name] for h in placed_kernel(self.kernel).held}

    def _values(self, places: tuple[int, int, int]) -> dict[str, int]:
        weight_place, input_place, result_place = places
        kernel = self.kernel
        weight_step, input_step = kernel.set_bytes << kernel.set_bits, self.width * 8
        values = {
            "loop0": self.steps,
            "loop1": self.columns << kernel.set_bits,
            "minus1": LOW,
            "zero": 0,
            "byte0": BYTE_0,
            "byte2": BYTE_2,
            "ones": ONES,
            "scale": kernel.groups * self.weight_part + self.weight_at(weight_place) // 2,
            "step_start": _pair(self.weight_at(weight_place) - weight_step, self.input_at(input_place) - input_step),
            "step": _pair(weight_step, input_step),
            "outer_start": _pair(-kernel.set_bytes, -1),
            "outer": _pair(kernel.set_bytes, 1),
            "result_start": _pair(0, self.result_at(result_place) // 8),
        }
        for group in range(kernel.groups):
            for i in range(kernel.set_bytes // 8):
                values[f"w{group}.{i}"] = group * self.weight_part + 8 * i
            for half in (0, 1):
                for j in range(CHAINS):
                    values[f"x{group}.{half}.{j}"] = (2 * group + half) * self.input_part + j * self.columns * 8
        for j in range(CHAINS):
            values[f"y.{j}"] = (j * self.columns << kernel.set_bits) * 8
        return values


def _pair(low: int, high: int) -> int:
    """Two 32-bit words as one register value."""
    return (low & LOW) | (high & LOW) << 32


__all__ = ["CHAINS", "FORMS", "INPUTS", "OUTPUTS", "GemmKernel", "Geometry", "Held", "max_groups", "placed_kernel"]
