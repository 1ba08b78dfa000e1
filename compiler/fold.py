"""Frozen parameters that repeat one number are that number."""

import dataclasses

import numpy as np

from echolith.compiler.differentiate import names, substitute
from echolith.compiler.graph import Affine, Bias, Graph
from echolith.compiler.ir import Expr, const

__all__ = ["biased", "folded"]


def biased(graph: Graph) -> Graph:
    """The graph with the frozen biases of a form that have another factor than its learned ones as one constant with
    that factor: 3 (C q + b) + 1 is 3 C q + 3 (b + 1/3)."""
    values = dict(graph.values)

    def merge(form: Affine) -> Affine:
        learned = [b for b in form.biases if b.parameter in graph.learned]
        frozen = [b for b in form.biases if b.parameter not in graph.learned]
        scale = learned[0].scale if learned else 1.0
        if all(b.scale == form.biases[0].scale for b in form.biases):
            return form
        name = f"constant{len(values)}"
        while name in values or name in graph.nodes or name in graph.states:
            name += "_"
        values[name] = sum((b.scale / scale * graph.values[b.parameter] for b in frozen), np.zeros(form.length))
        return dataclasses.replace(form, biases=(*learned, Bias(name, scale)) if frozen else form.biases)

    nodes = {name: merge(n) if isinstance(n, Affine) else n for name, n in graph.nodes.items()}
    readout = graph.readout and merge(graph.readout)
    return dataclasses.replace(graph, nodes=nodes, readout=readout, values=values)


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
