"""Element-wise expressions over vectors of the chip: each of the expression's own length, none of them the inputs.

    c * q          a state c of one unit becomes a node that repeats it
    q * u, q * u0  the inputs become a node, which is a drive
"""

import dataclasses

import numpy as np

from echolith.compiler.differentiate import names, substitute
from echolith.compiler.graph import Affine, Graph, Index, Reduce, Sum, Term
from echolith.compiler.ir import Expr, var

__all__ = ["broadcast"]


def broadcast(graph: Graph) -> Graph:
    """The graph with such expressions alone; a matrix is still applied to the inputs themselves."""
    return _Broadcast(graph).run()


class _Broadcast:
    def __init__(self, graph: Graph):
        self.graph = graph
        self.lengths = {**graph.states, "u": graph.inputs}
        self.nodes: dict[str, Affine | Reduce] = {}
        self.made: dict[tuple[str, int], str] = {}  # vector, length -> node

    def run(self) -> Graph:
        for name, node in self.graph.nodes.items():
            if isinstance(node, Affine):
                node = dataclasses.replace(node, terms=tuple(map(self._term, node.terms)))
            else:
                node = dataclasses.replace(node, expr=self._expr(node.expr, node.length))
            self.nodes[name] = node
            self.lengths[name] = node.length if isinstance(node, Affine) else 1
        energy = tuple(Sum(self._expr(e.expr, e.length), e.length) for e in self.graph.energy)
        return dataclasses.replace(self.graph, nodes=self.nodes, energy=energy)

    def _term(self, term: Term) -> Term:
        read = names(term.source)
        if term.source.op == "var" or read & set(self.lengths) <= {"u"}:
            return term
        sizes = {n: self.lengths.get(n) or np.size(self.graph.values[n]) for n in read}
        return dataclasses.replace(term, source=self._expr(term.source, max(sizes.values())))

    def _expr(self, expr: Expr, length: int) -> Expr:
        short = [n for n in sorted(names(expr)) if n == "u" or self.lengths.get(n, length) != length]
        return substitute(expr, {n: var(self._node(n, length)) for n in short}) if short else expr

    def _node(self, vector: str, length: int) -> str:
        """A node of ``length`` elements that repeats a vector of one, or is the inputs."""
        if (vector, length) not in self.made:
            known = f"_{length}" if any(other == vector for other, _ in self.made) else ""
            name = self.made[vector, length] = self._free(f"{vector}_all{known}")
            of = tuple(range(length)) if self.lengths[vector] == length else (0,) * length
            self.nodes[name] = Affine(length, (Term(Index(of), var(vector)),))
            self.lengths[name] = length
        return self.made[vector, length]

    def _free(self, name: str) -> str:
        while name in self.lengths or name in self.graph.values or name in self.graph.nodes:
            name += "_"
        return name
