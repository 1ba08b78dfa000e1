"""Formats of states' and sums' words: range for what is seen, and for how much it may grow in training."""

import re
from collections.abc import Sequence

import numpy as np

from echolith.compiler.case import Case
from echolith.compiler.damping import FACTORS
from echolith.compiler.formats import fraction
from echolith.compiler.graph import Dense
from echolith.compiler.ir import var
from echolith.compiler.isa import Opcode
from echolith.compiler.select import Pass
from echolith.compiler.steps import dense

__all__ = ["FINER", "room", "sums"]

_GROWTH = 4.0
_PACKED_GROWTH = 2.0  # of states that few bits see
FINER = 1  # bits by which what a stack's layers are fed may be finer than states


def sums(case: Case, width: int, learns: bool, state: int, reach: float) -> dict[str, int]:
    """Of forward sweeps' sums; those with a drive share the drives' one format, z. Of those that are added up none has
    more than a bit below the coarsest: what is lost in the sum is better used as room to grow. So is what is lost in
    the states of a stack. What is made of inputs within ``reach`` and of no learned weight cannot grow."""
    most = state + FINER if case.joins and learns else width
    passes = [p for name, part in case.parts.items() if name != "levels" for p in part]
    ranges = {p.acc: float(np.abs(case.samples.values[p.acc]).max(initial=0.0)) for p in passes
              if p.opcode == Opcode.FORWARD}
    bounds = _bounds(case, passes, reach)
    driven = {p.acc for p in passes if p.opcode == Opcode.FORWARD and p.drive}

    def bits(largest: float, bound: float = np.inf) -> int:
        if bound <= room(largest, learns):
            return min(fraction(bound, width, 1.0), width - 2, most)
        return min(fraction(room(largest, learns), width, 1.0), width - 3, most)

    z = bits(max((ranges[n] for n in driven or ranges), default=0.0))
    own = {n: z if n in driven else bits(r, bounds.get(n, np.inf)) for n, r in ranges.items()}
    whole: dict[str, int] = {}
    for name, frac in own.items():
        whole[_node(name)] = min(frac, whole.get(_node(name), frac))
    return {"z": z} | {n: frac if n in driven else min(frac, whole[_node(n)] + 1) for n, frac in own.items()}


def _bounds(case: Case, passes: Sequence[Pass], reach: float) -> dict[str, float]:
    """By sum, the largest that it can become, where it is of inputs and of weights that do not learn. The factors of a
    damped motion are at most 1."""
    found: dict[str, float] = {}
    known: dict[str, float] = {}  # of vectors
    inputs = np.full(case.graph.inputs, reach)
    inputs[case.graph.inputs - (FACTORS if case.graph.growth else 0):] = 1.0
    learned = case.graph.learned if case.learn else frozenset()
    for made in passes:
        if made.opcode != Opcode.FORWARD or made.drive:
            continue
        drive, matrix = case.flow.drives.get(made.matrix), case.flow.matrices.get(made.matrix)
        if drive is not None and not drive.biases:
            weights = [(abs(t.scale), t.matrix) for t in drive.terms if isinstance(t.matrix, Dense)]
        else:
            weights = [(1.0, matrix)] if matrix is not None and made.x in known else []
        given = inputs if drive is not None else known.get(made.x, 0.0)
        if not weights or any(m.parameter in learned for _, m in weights):
            continue
        rows = sum(scale * (np.abs(dense(m, case.flow.values)) * given).sum(1) for scale, m in weights)
        found[made.acc] = float(np.max(rows))
        if made.expr == var(made.acc):
            known[made.result] = found[made.acc]
    return found


def _node(acc: str) -> str:
    """The node that a sum is a part of."""
    return re.sub(r"(_\d*)+$", "", acc)


def room(largest: float, learns: bool, packed: bool = False) -> float:
    """Range for states and row sums, which grow in training."""
    return (_PACKED_GROWTH if packed else _GROWTH) * largest if learns else 1.5 * largest
