"""Pictures of where a program lies: memory rows of TSP slices, rectangles of the wafer, the time line of a CGLA's lanes and host."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import matplotlib
from matplotlib.axes import Axes
from matplotlib.collections import PatchCollection
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle

from ..errors import BadInput
from ..machines.program import Program, length
from ..machines.tsp.tables import Kind, mask_slices
from ..machines.wafer.tables import ObjectKind

_COLOURS = ("#4c72b0", "#dd8452", "#55a868", "#c44e52", "#8172b3", "#937860", "#da8bc3", "#8c8c8c")


def draw(program: Program, path: Path) -> None:
    """Write the picture as SVG or PNG, by the file's ending; equal programs give equal files. Raises BadInput."""
    if path.suffix not in (".svg", ".png"):
        raise BadInput(f"{path}: a placement is drawn as .svg or .png")
    if not path.parent.is_dir():
        raise BadInput(f"cannot write {path}: the folder {path.parent} does not exist")
    painters: dict[str, Callable[[Program], Figure]] = {"tsp": _tsp, "wafer": _wafer, "cgla": _cgla}
    figure = painters[program.target](program)
    aside = path.with_name(f".{path.name}")
    with matplotlib.rc_context({"svg.hashsalt": "spatialc"}):
        figure.savefig(aside, format=path.suffix[1:], metadata={"Date": None} if path.suffix == ".svg" else {"Software": None})
    aside.replace(path)


def _boxes(axes: Axes, boxes: dict[str, list[tuple[float, float, float, float]]]) -> None:
    """Rectangles (x, y, width, height) by label, with a legend."""
    handles = []
    for index, (label, members) in enumerate(boxes.items()):
        colour = _COLOURS[index % len(_COLOURS)]
        patches = [Rectangle((x, y), w, h) for x, y, w, h in members]
        axes.add_collection(PatchCollection(patches, facecolor=colour, edgecolor="white", linewidth=0.3))
        handles.append(Line2D([], [], color=colour, linewidth=6, label=label))
    if handles:
        axes.legend(handles=handles, loc="upper left", bbox_to_anchor=(1.01, 1.0), fontsize="small", frameon=False)


def _tsp(program: Program) -> Figure:
    """One panel a chip: slices from West to East, rows of bank 0 below those of bank 1."""
    table = program.tables["allocations"]
    chips = int(table["chip"].max(initial=0)) + 1
    rows, slices = int(program.machine["rows"]), int(program.machine["groups"]) * int(program.machine["slices_per_group"])
    figure = Figure(figsize=(11, 3.2 * chips), layout="constrained")
    for chip in range(chips):
        axes = figure.add_subplot(chips, 1, chip + 1)
        boxes: dict[str, list[tuple[float, float, float, float]]] = {kind.name.lower(): [] for kind in Kind}
        for i in range(length(table)):
            if table["chip"][i] == chip:
                for side, slice_ in mask_slices(int(table["west"][i]), int(table["east"][i])):
                    x = slices - 1 - slice_ if side == 0 else slices + slice_
                    y = float(table["bank"][i]) * rows + float(table["row"][i])
                    boxes[Kind(int(table["kind"][i])).name.lower()].append((x, y, 1, float(table["rows"][i])))
        _boxes(axes, {label: members for label, members in boxes.items() if members})
        axes.set(xlim=(0, 2 * slices), ylim=(0, int(program.machine["banks"]) * rows), ylabel="row (banks stacked)")
        axes.set_title(f"chip {chip}: MEM slices, West {slices - 1}..0 | East 0..{slices - 1}", fontsize="medium")
    return figure


def _wafer(program: Program) -> Figure:
    """Rectangles of all instances in the program rectangle, coloured by segment; the legend adds words used by kind of object."""
    figure = Figure(figsize=(9, 8), layout="constrained")
    axes = figure.add_subplot()
    boxes: dict[str, list[tuple[float, float, float, float]]] = {}
    instances = program.tables["instances"]
    right = bottom = 1.0
    for i in range(length(instances)):
        segment = program.segments[int(instances["segment"][i])]
        regions = segment.tables["regions"]
        for r in range(length(regions)):
            x, y = float(instances["x"][i] + regions["x"][r]), float(instances["y"][i] + regions["y"][r])
            w, h = float(regions["w"][r]), float(regions["h"][r])
            boxes.setdefault(segment.name, []).append((x, y, w, h))
            right, bottom = max(right, x + w), max(bottom, y + h)
    _boxes(axes, boxes)
    axes.set(xlim=(0, right), ylim=(bottom, 0), xlabel="column (east)", ylabel="row (south)", aspect="equal")
    kinds = sorted({ObjectKind(int(k)).name.lower() for s in program.segments for k in s.tables["objects"]["kind"]})
    axes.set_title(f"{length(instances)} instances; objects: {', '.join(kinds)}", fontsize="medium")
    return figure


def _cgla(program: Program) -> Figure:
    """Time line: register phases, launches, loads and drains of every lane, and host tasks by core."""
    figure = Figure(figsize=(12, 4.5), layout="constrained")
    axes = figure.add_subplot()
    boxes: dict[str, list[tuple[float, float, float, float]]] = {}
    tracks: dict[str, int] = {}

    def track(name: str) -> int:
        return tracks.setdefault(name, len(tracks))

    instances = program.tables["instances"]
    for i in range(length(instances)):
        segment, start = program.segments[int(instances["segment"][i])].tables, float(instances["cycle"][i])
        for name, label, unit in (
            ("phases", "registers", "lane"),
            ("launches", "launch", "lane"),
            ("dmas", "dma", "lane"),
            ("host_tasks", "host", "core"),
        ):
            table = segment[name]
            for r in range(length(table)):
                lane = "host core" if unit == "core" else "dma of lane" if name == "dmas" else "lane"
                y = track(f"{lane} {int(table[unit][r])}")
                boxes.setdefault(label, []).append((start + float(table["start"][r]), y + 0.1, float(table["length"][r]), 0.8))
    _boxes(axes, boxes)
    axes.set(xlim=(0, max(program.predicted_cycles, 1)), ylim=(len(tracks), 0), xlabel="cycle")
    axes.set_yticks([y + 0.5 for y in range(len(tracks))], list(tracks))
    return figure
