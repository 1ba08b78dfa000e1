"""A learned parameter that enters in several places is one set of words: what would be a copy of it is rewritten.

    W u beside another use of W   becomes   W x, x a node that holds the inputs: one block, several sweeps;
                                            so does a learned convolution of u
    + b beside b in an element-wise function   becomes   an element-wise sum: b is a vector of the neuron unit
    + b in several nodes, or one number b in several rows   becomes   a move of b, which is one column of ones
"""

import dataclasses
from collections import Counter

from echolith.compiler.differentiate import names, substitute
from echolith.compiler.graph import Affine, Bias, Convolution, Dense, Graph, Index, Reduce, Term
from echolith.compiler.ir import Expr, param, var
from echolith.compiler.layout import overlap
from echolith.compiler.ops import add, intern, mul
from echolith.compiler.steps import window

__all__ = ["apart", "shared"]

_INPUTS = "u_held"


def apart(graph: Graph) -> Graph:
    """The graph with biases that are in element-wise functions too added there."""
    sources = [e.expr for e in graph.energy] + [e for n in graph.nodes.values() for e in _element_wise(n)]
    inside = graph.learned & set().union(*map(names, sources))
    nodes: dict[str, Affine | Reduce] = {}
    added: dict[str, Expr] = {}
    for name, node in graph.nodes.items():
        node = _replaced(node, added)
        if isinstance(node, Affine):
            moved = [b for b in node.biases if b.parameter in inside and graph.values[b.parameter].ndim < 2]
            total = var(name)
            for b in moved:
                total = add(total, mul(b.scale, param(b.parameter)))
            if moved:
                added[name] = total
                node = dataclasses.replace(node, biases=tuple(b for b in node.biases if b not in moved))
        nodes[name] = node
    energy = tuple(dataclasses.replace(e, expr=substitute(e.expr, added)) for e in graph.energy)
    return dataclasses.replace(graph, nodes=nodes, energy=energy) if added else graph


def _element_wise(node: Affine | Reduce) -> list[Expr]:
    """Expressions in a node, less moves of a parameter."""
    return [t.source for t in node.terms if t.source.op != "param"] if isinstance(node, Affine) else [node.expr]


def _replaced(node: Affine | Reduce, added: dict[str, Expr]) -> Affine | Reduce:
    if isinstance(node, Reduce):
        return dataclasses.replace(node, expr=substitute(node.expr, added))
    terms = tuple(dataclasses.replace(t, source=substitute(t.source, added)) for t in node.terms)
    return dataclasses.replace(node, terms=terms)


def shared(graph: Graph) -> Graph:
    """The graph with such uses rewritten; one that needs none comes back as it is."""
    affine = [n for n in graph.nodes.values() if isinstance(n, Affine)]
    biases = Counter(b.parameter for n in affine for b in n.biases if b.parameter in graph.learned)
    biases.update({t.source.name for n in affine for t in n.terms if t.source.op == "param"} & biases.keys())
    moved = {name for name, count in biases.items() if count > 1 and graph.values[name].ndim == 1}
    moved |= {b.parameter for n in affine for b in n.biases if b.parameter in biases
              and graph.values[b.parameter].shape == (1,) and n.length > 1}
    blocks = [t.matrix for n in affine for t in n.terms if isinstance(t.matrix, Dense)]
    nodes: dict[str, Affine | Reduce] = {}
    name = _INPUTS
    while name in graph.nodes or name in graph.values or name in graph.states:
        name += "_"
    for key, node in graph.nodes.items():
        if isinstance(node, Affine):
            terms = tuple(_held(t, name) if _twice(t, blocks, graph) else t for t in node.terms)
            if any(t.source == var(name) for t in terms) and name not in nodes:
                nodes[name] = Affine(graph.inputs, (Term(Index(tuple(range(graph.inputs))), var("u")),))
            terms += tuple(_move(b, node.length, graph) for b in node.biases if b.parameter in moved)
            node = dataclasses.replace(node, terms=terms,
                                       biases=tuple(b for b in node.biases if b.parameter not in moved))
        nodes[key] = node
    return dataclasses.replace(graph, nodes=nodes)


def _twice(term: Term, blocks: list[Dense], graph: Graph) -> bool:
    """Whether a matrix of the inputs has words that another use has too, as a kernel has in every place."""
    if isinstance(term.matrix, Convolution):
        return term.source == var("u") and term.matrix.parameter in graph.learned
    if term.source != var("u") or not isinstance(term.matrix, Dense) or term.matrix.parameter not in graph.learned:
        return False
    shape = graph.values[term.matrix.parameter].shape
    own = window(term.matrix, shape)
    return sum(m.parameter == term.matrix.parameter and overlap(own, window(m, shape)) for m in blocks) > 1


def _held(term: Term, name: str) -> Term:
    return dataclasses.replace(term, source=var(name))


def _move(bias: Bias, length: int, graph: Graph) -> Term:
    elements = range(length) if graph.values[bias.parameter].size == length else [0] * length
    return Term(Index(tuple(elements)), intern(param(bias.parameter)), bias.scale)
