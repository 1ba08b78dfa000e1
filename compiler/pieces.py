"""A matrix of a piece of the inputs is one of the inputs, whose other columns are 0: B u[2:5] is a drive.

Drives are swept once a row; as a product of a vector, which u[2:5] is, it would be swept at every step.
"""

from dataclasses import replace

from echolith.compiler.differentiate import names
from echolith.compiler.graph import Affine, Convolution, Dense, Graph, Index, Reduce, Term
from echolith.compiler.ir import var
from echolith.compiler.layout import overlap
from echolith.compiler.steps import window

__all__ = ["whole_inputs"]


def whole_inputs(graph: Graph) -> Graph:
    """The graph with such matrices of the inputs, and without the pieces that nothing reads then."""
    pieces = {name: span for name, node in graph.nodes.items() if (span := _piece(node, graph.inputs)) is not None}
    if not pieces:
        return graph
    nodes = {name: _moved(node, pieces, graph) if isinstance(node, Affine) else node
             for name, node in graph.nodes.items()}
    return _without(replace(graph, nodes=nodes), set(pieces))


def _piece(node: Affine | Reduce, inputs: int) -> tuple[int, int] | None:
    """First element and stop of the inputs that a node is; None if it is anything else, or all of them."""
    if not isinstance(node, Affine) or node.biases or len(node.terms) != 1:
        return None
    term, = node.terms
    if not isinstance(term.matrix, Index) or term.source != var("u") or term.scale != 1:
        return None
    first, stop = term.matrix.of[0], term.matrix.of[0] + node.length
    whole = stop - first == inputs
    return (first, stop) if 0 <= first and term.matrix.of == tuple(range(first, stop)) and not whole else None


def _moved(node: Affine, pieces: dict[str, tuple[int, int]], graph: Graph) -> Affine:
    """The node with matrices of pieces as such of the inputs, unless two pieces overlap or a matrix has other uses."""
    spans = [(0, graph.inputs) for t in node.terms if t.source == var("u")]
    terms = list(node.terms)
    for place, term in enumerate(terms):
        span = pieces.get(term.source.name) if term.source.op == "var" else None
        if span is None or not isinstance(term.matrix, Dense) or _again(term, graph):
            continue
        if all(span == other or span[1] <= other[0] or other[1] <= span[0] for other in spans):
            spans.append(span)
            terms[place] = replace(term, matrix=replace(term.matrix, within=(*span, graph.inputs)), source=var("u"))
    return replace(node, terms=tuple(terms))


def _again(term: Term, graph: Graph) -> bool:
    """Whether another use has words of a learned matrix too: they are one block then, which is swept."""
    matrix = term.matrix
    assert isinstance(matrix, Dense)
    if matrix.parameter not in graph.learned:
        return False
    shape = graph.values[matrix.parameter].shape
    others = [t.matrix for n in graph.nodes.values() if isinstance(n, Affine) for t in n.terms
              if not isinstance(t.matrix, Index) and t.matrix.parameter == matrix.parameter and t is not term]
    return any(isinstance(m, Convolution) or overlap(window(matrix, shape), window(m, shape)) for m in others)


def _without(graph: Graph, names_of: set[str]) -> Graph:
    """The graph less those of the nodes that nothing reads."""
    read = set().union(*(names(t.expr) for t in (*graph.energy, *graph.cost)))
    for node in graph.nodes.values():
        read |= set().union(*(names(t.source) for t in node.terms)) if isinstance(node, Affine) else names(node.expr)
    if graph.readout:
        read |= set().union(*(names(t.source) for t in graph.readout.terms))
    return replace(graph, nodes={n: node for n, node in graph.nodes.items() if n in read or n not in names_of})
