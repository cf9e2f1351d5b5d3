"""Where an ADD joins the two partial results of fp16 passes, so that one product with whole weights gives the sum (docs/tsp-model.md MX-8).

Found from who feeds whom alone: element e of the ADD takes, on all four byte planes, element k of the even plane's results of a pass as one
operand and element k of the odd plane's results of the same pass as the other.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ...machines.tsp import isa
from ...machines.tsp.isa import DType, Opcode
from . import pointers
from .flatten import expand
from .layout import Array
from .legality import Analysis
from .memory import UNDEFINED


@dataclass(frozen=True)
class Joins:
    """`whole[burst]`: an ADD all of whose elements join; its element e joins element `k[first[burst] + e]` of the pass with even ACC burst
    `head[first[burst] + e]`. `parts`: some partial result is used otherwise, or the planes of a pair keep unlike accumulators.
    """

    whole: Array
    first: Array
    head: Array
    k: Array
    parts: bool


def paired_passes(a: Analysis) -> Array:
    """ABC bursts (positions in `passes.abc`) of fp16 pairs of which both have their ACC."""
    passes = a.passes
    with_acc = passes.acc >= 0
    result: Array = with_acc & (passes.partner >= 0) & with_acc[np.maximum(passes.partner, 0)]
    return result


def leaf_of(a: Analysis, leaf: Array, tap_element: Array) -> Array:
    """Leaf (see `values.Values`) of what tap elements take."""
    source = a.feeds.source[tap_element]
    result: Array = np.where(source >= 0, leaf[np.maximum(source, 0)], UNDEFINED)
    return result


def find_joins(a: Analysis, leaf: Array) -> Joins:
    """All joining ADD bursts of a layout."""
    flat, passes, b = a.flat, a.passes, a.flat.b
    pairs = np.flatnonzero(paired_passes(a) & ((b["unit"][passes.abc] - isa.MXM_BASE) // 3 % 2 == 0))
    evens, odds = passes.acc[pairs], passes.acc[passes.partner[pairs]]
    even_of = np.full(flat.size, -1, np.int64)
    even_of[evens], even_of[odds] = evens, evens
    odd = np.zeros(flat.size, bool)
    odd[odds] = True
    whole, first = np.zeros(flat.size, bool), np.zeros(flat.size, np.int64)
    none = np.zeros(0, np.int64)
    if not len(pairs):
        return Joins(whole, first, none, none, False)
    symmetric = all((b[name][evens] == b[name][odds]).all() for name in ("add", "store", "emit", "entry", "entry_stride", "entry_stride2"))
    adds = np.flatnonzero((b["opcode"] == Opcode.ADD) & (b["dtype"] == DType.F32))
    first[adds] = np.cumsum(flat.count[adds]) - flat.count[adds]
    owner, head, k = _joined(a, leaf, adds, even_of, odd)
    whole[adds] = np.bincount(owner, weights=head >= 0, minlength=len(adds)) == flat.count[adds]
    return Joins(whole, first, head, k, not symmetric or _needed_apart(a, leaf, even_of >= 0, whole))


def _joined(a: Analysis, leaf: Array, adds: Array, even_of: Array, odd: Array) -> tuple[Array, Array, Array]:
    """(ADD, even ACC burst or -1, its element) of every element of the ADD bursts `adds`."""
    flat, claims = a.flat, a.flat.claims
    owner, e = expand(flat.count[adds])
    row = adds[owner]
    element = [leaf_of(a, leaf, flat.first_tap[row] + tap * flat.count[row] + e) for tap in range(8)]
    claim = [a.feeds.claim_of[np.maximum(at, 0)] for at in element]
    head, other = even_of[claims.burst[claim[0]]], odd[claims.burst[claim[0]]]
    k = element[0] - claims.first[claim[0]]
    same = head >= 0
    for tap in range(8):
        burst = claims.burst[claim[tap]]
        same &= (element[tap] >= 0) & (even_of[burst] == head) & (odd[burst] == (other if tap < 4 else ~other))
        same &= (claims.plane[claim[tap]] == tap % 4) & (element[tap] - claims.first[claim[tap]] == k)
    return owner, np.where(same, head, -1), k


def _needed_apart(a: Analysis, leaf: Array, halves: Array, whole: Array) -> bool:
    """Whether a partial result is used by anything but an ADD that joins it."""
    claims, code = a.flat.claims, a.flat.b["opcode"]
    users = (a.computing | (code == Opcode.LW) | (code == Opcode.ABC)) & ~whole
    return bool(
        pointers.takes_any(
            a.leaving, a.feeds.tap_of, a.flat.taps.burst, users, a.feeds.source, leaf, a.feeds.claim_of, claims.burst, halves
        )
    )  # fmt: skip
