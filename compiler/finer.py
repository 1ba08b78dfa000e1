"""Momenta in finer units than positions, where they stay smaller.

Slow units have small momenta, and every kick's rounding is integrated twice: the mean over 100 rows of a slow
oscillator was off by 17 units of the states' last place. With V' = 2^k V and T'(p) = 2^k T(2^-k p) of all states that
an energy joins, positions move as before and momenta are 2^k as large, so that their words round 2^k times finer.
Nudges and contrasts grow alike, so gradients stay what they are. In circuits a power of two only moves points.
"""

from collections.abc import Iterable, Mapping
from dataclasses import replace

import numpy as np

from echolith.compiler.differentiate import names, substitute
from echolith.compiler.graph import Affine, Graph
from echolith.compiler.ir import var
from echolith.compiler.ops import mul

__all__ = ["finer", "joined", "refined"]

_WORTH, _STACKED = 2, 1  # bits; fewer are left alone; of stacks, whose nudges between layers are rounded alike
_QUIET = 2.0**-20  # of the largest state: what stays below it does not move


def finer(graph: Graph, steps: Iterable[tuple[dict[str, np.ndarray], dict[str, np.ndarray]]]) -> dict[str, int]:
    """Bits by state, from positions and momenta of a run; states that an energy joins have the same."""
    q, p = dict.fromkeys(graph.states, 0.0), dict.fromkeys(graph.states, 0.0)
    for positions, momenta in steps:
        for s in graph.states:
            q[s] = max(q[s], float(np.abs(positions[s]).max(initial=0.0)))
            p[s] = max(p[s], float(np.abs(momenta[s]).max(initial=0.0)))
    most, found = max(*q.values(), *p.values()), dict.fromkeys(graph.states, 0)
    worth = _STACKED if graph.fed else _WORTH
    for group in joined(graph):
        far, fast = (max(v[s] for s in group) for v in (q, p))
        if min(far, fast) > _QUIET * most:
            bits = min(round(np.log2(far / fast)), int(np.floor(np.log2(most / fast))))
            found |= dict.fromkeys(group, bits if bits >= worth else 0)
    return found


def refined(graph: Graph, bits: Mapping[str, int]) -> Graph:
    """The same motion with momenta of every state in units of 2^-bits of what they were."""
    kinetic = {s: mul(2.0 ** bits[s], substitute(e, {"p": mul(2.0 ** -bits[s], var("p"))})) if bits[s] else e
               for s, e in graph.kinetic.items()}
    energy = []
    for term in graph.energy:
        own = max((bits[s] for s in _states(graph, names(term.expr))), default=0)
        energy.append(replace(term, expr=mul(2.0**own, term.expr)) if own else term)
    return replace(graph, kinetic=kinetic, energy=tuple(energy))


def joined(graph: Graph) -> list[set[str]]:
    """Groups of states that terms of the energy join."""
    groups = [{s} for s in graph.states]
    for term in graph.energy:
        met = _states(graph, names(term.expr))
        together = [g for g in groups if g & met]
        groups = [g for g in groups if not g & met] + ([set().union(*together)] if together else [])
    return groups


def _states(graph: Graph, found: Iterable[str]) -> set[str]:
    """States that vectors of these names are made of."""
    states: set[str] = set()
    for name in found:
        if name in graph.states:
            states.add(name)
        elif name in graph.nodes:
            node = graph.nodes[name]
            inside = [t.source for t in node.terms] if isinstance(node, Affine) else [node.expr]
            states |= _states(graph, {n for e in inside for n in names(e)})
    return states
