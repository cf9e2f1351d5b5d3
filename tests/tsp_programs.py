"""Small TSP programs built from real bursts, shared by the tests of the executor."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from spatialc.machines.catalog import load_machine
from spatialc.machines.program import Binding, Program, Segment
from spatialc.machines.tsp import tables
from spatialc.machines.tsp.builder import In, Out, SegmentBuilder
from spatialc.machines.tsp.description import TspMachine
from spatialc.machines.tsp.geometry import Geometry
from spatialc.machines.tsp.isa import HALF_BOTH, DType, E, Opcode, W
from spatialc.machines.tsp.tables import Kind

MACHINE = load_machine("tsp")
G = Geometry.of(MACHINE)
Slice = tuple[int, int]


def region(
    allocation: int, shape: Sequence[int], lane_axis: int | None, strides: Sequence[int], planes: Sequence[Sequence[Slice]], /, **more: Any
) -> dict[str, Any]:
    """A binding region of a whole tensor."""
    return {
        "allocation": allocation, "row": 0, "start": [0] * len(shape), "shape": list(shape), "lane_axis": lane_axis, "lane_tile": 320,
        "lane_offset": 0, "broadcast": False, "strides": list(strides), "planes": [[list(s) for s in plane] for plane in planes], **more,
    }  # fmt: skip


class Builder:
    """One program of one chip in the making: allocations are objects of one instance of one segment."""

    def __init__(self, machine: TspMachine = MACHINE) -> None:
        self.machine = machine
        self.s = SegmentBuilder("main")
        self.allocations: list[dict[str, int]] = []
        self.placements: list[dict[str, int]] = []
        self.images: dict[str, np.ndarray] = {}
        self.bindings: list[Binding] = []

    def memory(self, kind: Kind, slices: Sequence[Slice], rows: int, *, bank: int = 0, row: int = 0) -> int:
        """An allocation and the object that is bound to it (same number)."""
        pairs = list(slices)
        self.allocations.append(
            {
                "kind": kind,
                "chip": 0,
                "bank": bank,
                "row": row,
                "rows": rows,
                "west": tables.slice_mask(pairs, 0),
                "east": tables.slice_mask(pairs, 1),
            }
        )
        return self.s.object(rows, pairs)

    def constant(self, slices: Sequence[Slice], image: np.ndarray, *, bank: int = 0, row: int = 0) -> int:
        """A constant image [slices, rows, 320]."""
        obj = self.memory(Kind.CONST, slices, image.shape[1], bank=bank, row=row)
        self.placements.append({"image": len(self.placements), "allocation": obj})
        self.images[f"image.{len(self.images)}"] = np.ascontiguousarray(image, dtype=np.uint8)
        return obj

    def bind(self, name: str, kind: str, dtype: str, stored: str, shape: Sequence[int], where: list[dict[str, Any]], **more: Any) -> None:
        """An input, output or state."""
        self.bindings.append(Binding(name, kind, dtype, tuple(shape), stored, name, where=where, **more))

    def program(self, cycles: int | None = None) -> Program:
        """The program; the predicted cycles are those of the last burst unless given."""
        segment = self.s.segment()
        return finish(
            Program("tsp", self.machine.to_json(), tuple(self.bindings), program_tables(self), (segment,), self.images, cycles or 0), cycles
        )


def finish(program: Program, cycles: int | None) -> Program:
    """Fill in the predicted cycles from the last burst (one instance at offset 0 each)."""
    if cycles is not None:
        return program
    last = 0
    for segment in program.segments:
        b = segment.tables["bursts"]
        last = max(last, int((b["t0"] + (b["n"] - 1) * b["i"] + (b["n2"] - 1) * b["i2"]).max(initial=0)))
    return replace(program, predicted_cycles=last + 20)


def program_tables(builder: Builder) -> dict[str, dict[str, np.ndarray]]:
    """Program-level tables of a one-instance program."""
    return {
        "instances": tables.INSTANCES.from_rows([{"segment": 0, "chip": 0, "offset": 0}]),
        "binds": tables.BINDS.from_rows([{"instance": 0, "object": k, "allocation": k, "row": 0} for k in range(len(builder.allocations))]),
        "allocations": tables.ALLOCATIONS.from_rows(builder.allocations),
        "placements": tables.PLACEMENTS.from_rows(builder.placements),
        "links": tables.LINKS.from_rows([]),
    }


def edit(program: Program, row: int, table: str = "bursts", /, **columns: Any) -> Program:
    """The program with fields of one row of its first segment changed."""
    segment = program.segments[0]
    changed = {name: column.copy() for name, column in segment.tables[table].items()}
    for name, value in columns.items():
        changed[name][row] = value
    return replace(program, segments=(Segment(segment.name, {**segment.tables, table: changed}), *program.segments[1:]))


def drop(program: Program, row: int) -> Program:
    """The program without one burst of its first segment."""
    segment = program.segments[0]
    bursts, claims = segment.tables["bursts"], segment.tables["claims"]
    kept = {name: np.delete(column, row, axis=0) for name, column in bursts.items()}
    mine = claims["burst"] != row
    rest = {name: column[mine] for name, column in claims.items()}
    rest["burst"] = rest["burst"] - (rest["burst"] > row).astype(np.int32)
    changed = Segment(segment.name, {**segment.tables, "bursts": kept, "claims": rest})
    return replace(program, segments=(changed, *program.segments[1:]))


def duplicate(program: Program, row: int, /, **columns: Any) -> Program:
    """The program with a copy of one burst (and its claims) at the end of its first segment, some fields changed."""
    segment = program.segments[0]
    bursts, claims = segment.tables["bursts"], segment.tables["claims"]
    size = len(bursts["unit"])
    more = {name: np.append(column, column[row : row + 1], axis=0) for name, column in bursts.items()}
    mine = np.flatnonzero(claims["burst"] == row)
    copies = {name: np.append(column, column[mine], axis=0) for name, column in claims.items()}
    copies["burst"][len(claims["burst"]) :] = size
    changed = Segment(segment.name, {**segment.tables, "bursts": more, "claims": copies})
    return edit(replace(program, segments=(changed, *program.segments[1:])), size, **columns)


def allocation(program: Program, row: int, /, **columns: Any) -> Program:
    """The program with fields of one allocation changed."""
    table = {name: column.copy() for name, column in program.tables["allocations"].items()}
    for name, value in columns.items():
        table[name][row] = value
    return program.with_tables(allocations=table)


EAST_WEIGHTS = [(1, s) for s in range(43, 7, -1) if (1, s) not in MACHINE.reserved_slices]


def weights_image(weights: np.ndarray, slices: Sequence[Slice]) -> np.ndarray:
    """fp16 [320, 320] as constant image of 32 slices: row r, byte p in slice slices[16 p + r % 16], row r // 16."""
    planes = weights.astype(np.float16).view(np.uint8).reshape(320, 320, 2)
    ordered = sorted(slices)
    image = np.zeros((32, 20, 320), np.uint8)
    for p in range(2):
        for j in range(16):
            image[ordered.index(slices[16 * p + j])] = planes[j::16, :, p]
    return image


def example_e(weights: np.ndarray) -> tuple[Program, dict[str, int]]:
    """fp16 1 x 320 x 320 in the East hemisphere; returns the program and the rows of some bursts by name."""
    b = Builder()
    s = b.s
    w = b.constant(EAST_WEIGHTS, weights_image(weights, EAST_WEIGHTS))
    x = b.memory(Kind.INPUT, [(1, 0), (1, 1)], 1)
    y = b.memory(Kind.OUTPUT, [(1, 0), (1, 1)], 1, bank=1)
    at = {}
    take = G.mxm_take(1)
    for number, (h, slice_) in enumerate(EAST_WEIGHTS):
        at.setdefault("read", s.mem_read(h, slice_, w, 0, Out(number, E, take), t=slice_ // 4 - 2, n=20))
    at["lw"] = s.lw(2, 0, t=18)
    s.lw(3, 1, t=18)
    at["iw"] = s.iw(2, t=38)
    s.iw(3, t=38)
    for p in range(2):
        at.setdefault("x", s.mem_read(1, p, x, 0, Out(p, E, take), t=19))
    for plane in (2, 3):
        at.setdefault("abc", s.abc(plane, 0, DType.F16, t=39, n=1, i=2, half=HALF_BOTH))
        at.setdefault("acc", s.acc(plane, t=53, n=1, i=2, out=Out((plane - 2) * 4, W, G.alu_take(0, W), 4)))
    at["add"] = s.alu(0, Opcode.ADD, In(0, W), In(4, W), [Out(8, E, G.alu_take(2, E), 4)], DType.F32, t=106)
    at["cast"] = s.alu(2, Opcode.CAST, In(8, E), None, [Out(0, E, G.mem_take(1, 0, E), 2)], DType.F32, t=109, dtype2=DType.F16)
    for p in range(2):
        at.setdefault("write", s.mem_write(1, p, y, 0, In(p, E), t=112))
    b.bind("x", "input", "float16", "f16", [1, 320], [region(x, [1, 320], 1, [0, 0], [[(1, 0)], [(1, 1)]])])
    b.bind("y", "output", "float16", "f16", [1, 320], [region(y, [1, 320], 1, [0, 0], [[(1, 0)], [(1, 1)]])])
    return b.program(), at
