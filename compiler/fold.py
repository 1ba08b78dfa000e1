"""Frozen parameters that repeat one number are that number."""

import dataclasses

import numpy as np

from echolith.compiler.differentiate import names, substitute
from echolith.compiler.graph import Affine, Graph
from echolith.compiler.ir import Expr, const

__all__ = ["folded"]


def folded(graph: Graph) -> Graph:
    """The graph with such parameters as constants in all its expressions."""
    known = {name: const(float(np.asarray(v).flat[0])) for name, v in graph.values.items()
             if name not in graph.learned and np.size(v) and np.ptp(v) == 0}

    def fold(expr: Expr) -> Expr:
        return substitute(expr, known) if names(expr) & set(known) else expr

    nodes = {name: dataclasses.replace(n, terms=tuple(dataclasses.replace(t, source=fold(t.source)) for t in n.terms))
             if isinstance(n, Affine) else dataclasses.replace(n, expr=fold(n.expr)) for name, n in graph.nodes.items()}
    return dataclasses.replace(
        graph, nodes=nodes, energy=tuple(dataclasses.replace(e, expr=fold(e.expr)) for e in graph.energy),
        kinetic={state: fold(e) for state, e in graph.kinetic.items()},
        cost=tuple(dataclasses.replace(e, expr=fold(e.expr)) for e in graph.cost))
