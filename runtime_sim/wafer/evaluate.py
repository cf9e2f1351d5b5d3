"""The numbers of one run: every instance in order of time, then what outputs and states hold."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from ..threads import one_thread_products
from .arrays import Arrays, Contents, Part
from .storage import Memory


@dataclass(frozen=True)
class Run:
    """Outputs and states of one run by binding name; `blocked`: whether sums were taken in a closed form."""

    outputs: Mapping[str, np.ndarray] = field(default_factory=dict)
    states: Mapping[str, np.ndarray] = field(default_factory=dict)
    blocked: bool = False


NOTHING = Run()


@one_thread_products()
def evaluate(contents: Contents, inputs: Mapping[str, np.ndarray], states: Mapping[str, np.ndarray], exact: bool) -> Run:
    """Run a program on inputs and states. Raises BadInput for inputs that do not fit."""
    layout, arrays, blocked = contents.layout, Arrays(contents, inputs, states), False
    with np.errstate(all="ignore"):
        in_order = sorted(layout.instances, key=lambda i: (i.start, i.number))
        final = {id(instance.analysis): instance.number for instance in in_order}
        for instance in in_order:
            share = contents.share(instance.number)
            plan = instance.analysis.plan(exact, share.held, share.kept, bool(share.same))
            engine = instance.analysis.engine()
            engine.run(plan, Memory(Part(arrays, share), share.same, instance.analysis.seg.shapes), exact)
            blocked |= engine.blocked
            if final[id(instance.analysis)] == instance.number and not contents.lasts:
                # what only this segment needs is not kept beside others in a single run
                engine.forget()
                arrays.spare.clear()
        outputs, after = ({b.name: arrays.read(b) for b in layout.program.bindings_of(kind)} for kind in ("output", "state"))
    arrays.finish()
    contents.lasts = True
    return Run(outputs, after, blocked)
