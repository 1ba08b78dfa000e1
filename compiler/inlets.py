"""What the layers of a stack make of what they are fed, by one matrix, is made before they are fed.

    layer:  V(q, B x + b), fed x        becomes    V(q, x), fed x
    joins:  e . F(q of layers below, u)    "       e . (B F(q of layers below, u) + b)

The contrast of a layer's echoes is then that of dV/d(B x + b), a function of single elements, and all products of B,
there and back and outer ones, are of the pair: once a step, where every copy would have had its own.

    joins:  e f(q_1) + e f(q_2) + ..    becomes    e s, s the sum, where a layer is fed one number
"""

from collections.abc import Iterable
from dataclasses import replace
from functools import reduce

from echolith.compiler.differentiate import derivative, names, substitute
from echolith.compiler.graph import Affine, Dense, Graph, Reduce, Sum, Term
from echolith.compiler.ir import Expr, const, var
from echolith.compiler.ops import add, mul
from echolith.compiler.steps import error

__all__ = ["inlets", "single"]


def single(joins: Graph, fed: Iterable[str]) -> Graph:
    """What lies between layers, with the error of a layer that is fed one number times one sum: capture has it in every
    summand, of which none is what the layer is fed."""
    errors = {name for name in map(error, fed) if joins.states[name] == 1}
    nodes, energy = dict(joins.nodes), []
    for term in joins.energy:
        for name in sorted(errors & names(term.expr)) if term.length > 1 else ():
            made = f"z{len(nodes)}"  # capture counts them
            nodes[made] = Reduce("sum", derivative(term.expr, name), term.length)
            energy.append(Sum(mul(var(name), var(made)), 1))
            term = replace(term, expr=substitute(term.expr, {name: const(0)}))
        energy += [term] if term.expr != const(0) else []
    return replace(joins, nodes=nodes, energy=tuple(energy))


def inlets(layers: Graph, joins: Graph) -> tuple[Graph, Graph]:
    """Both graphs with the matrices moved. A layer that is fed in more than one way, or by more than one matrix, stays
    as it is."""
    for name in layers.fed:
        place = _inlet(layers, name)
        if place is not None:
            layers, node, term = _taken(layers, name, *place)
            joins = _given(joins, layers, name, node, term)
    return layers, joins


def _inlet(graph: Graph, name: str) -> tuple[str, Term] | None:
    """The node and its term that alone read what a layer is fed, if that is a matrix."""
    found, others = [], [t.expr for t in graph.energy]
    for node, form in graph.nodes.items():
        if not isinstance(form, Affine):
            others.append(form.expr)
            continue
        found += [(node, term) for term in form.terms if name in names(term.source)]
    if len(found) != 1 or any(name in names(expr) for expr in others):
        return None
    (place, term), = found
    return (place, term) if isinstance(term.matrix, Dense) and term.source == var(name) else None


def _taken(graph: Graph, name: str, place: str, term: Term) -> tuple[Graph, Affine, Term]:
    """The layers without the term and what its node adds to it, which they are fed; the node as it was."""
    node = graph.nodes[place]
    assert isinstance(node, Affine)
    left = tuple(t for t in node.terms if t != term)
    nodes = {n: _read(form, {}) for n, form in graph.nodes.items()}
    instead: dict[str, Expr] = {place: var(name)}
    if left:
        nodes[place] = Affine(node.length, left)
        instead = {place: add(var(place), var(name))}
    else:
        del nodes[place]
    nodes = {n: form if n == place else _read(form, instead) for n, form in nodes.items()}
    energy = tuple(replace(t, expr=substitute(t.expr, instead)) for t in graph.energy)
    return replace(graph, nodes=nodes, energy=energy, fed=graph.fed | {name: node.length}), node, term


def _read(node, instead: dict[str, Expr]):
    if isinstance(node, Affine):
        return replace(node, terms=tuple(replace(t, source=substitute(t.source, instead)) for t in node.terms))
    return replace(node, expr=substitute(node.expr, instead))


def _given(joins: Graph, layers: Graph, name: str, node: Affine, term: Term) -> Graph:
    """What lies between the layers, with the matrix behind what it is applied to."""
    source, e = reduce(add, (derivative(t.expr, error(name)) for t in joins.energy)), error(name)
    made = f"out:{name}"
    nodes = joins.nodes | {made: Affine(node.length, (replace(term, source=source),), node.biases)}
    rest = (replace(t, expr=substitute(t.expr, {e: const(0)})) for t in joins.energy)
    energy = (*(t for t in rest if t.expr != const(0)), Sum(mul(var(e), var(made)), node.length))
    assert isinstance(term.matrix, Dense)
    parameters = {term.matrix.parameter, *(b.parameter for b in node.biases)}
    return replace(joins, nodes=nodes, energy=energy, states=joins.states | {e: node.length},
                   fed=joins.fed | {name: node.length}, learned=joins.learned | (parameters & layers.learned),
                   values=joins.values | {p: layers.values[p] for p in parameters})
