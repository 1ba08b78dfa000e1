"""Overlapping blocks of one learned matrix are uses of all of it: W[:6] q beside W q is the first elements of W q."""

import dataclasses

from echolith.compiler.graph import Affine, Dense, Graph, Index, Reduce, Term
from echolith.compiler.ir import var
from echolith.compiler.layout import overlap
from echolith.compiler.ops import intern
from echolith.compiler.steps import window

__all__ = ["whole"]


def whole(graph: Graph) -> Graph:
    """The graph with such blocks rewritten; what overlaps is then shared."""
    return _Whole(graph).run()


class _Whole:
    def __init__(self, graph: Graph):
        self.graph = graph
        self.nodes: dict[str, Affine | Reduce] = {}
        uses = [t.matrix for n in graph.nodes.values() if isinstance(n, Affine) for t in n.terms
                if isinstance(t.matrix, Dense) and t.matrix.parameter in graph.learned]
        places = [(m.parameter, window(m, graph.values[m.parameter].shape)) for m in uses]
        self.clashing = {name for i, (name, place) in enumerate(places) for other, there in places[i + 1:]
                         if name == other and place != there and overlap(place, there)}

    def run(self) -> Graph:
        for name, node in self.graph.nodes.items():
            if isinstance(node, Affine):
                node = dataclasses.replace(node, terms=tuple(map(self._term, node.terms)))
            self.nodes[name] = node
        return dataclasses.replace(self.graph, nodes=self.nodes)

    def _term(self, term: Term) -> Term:
        matrix = term.matrix
        if not isinstance(matrix, Dense) or matrix.parameter not in self.clashing:
            return term
        rows, columns = self.graph.values[matrix.parameter].shape
        inner, outer = (matrix.rows, matrix.columns) if matrix.transposed else (matrix.columns, matrix.rows)
        if matrix.transposed:
            rows, columns = columns, rows
        if inner is None and outer is None:
            return term
        source = term.source
        if inner is not None:
            source = self._add(Affine(columns, (Term(_padded(inner, columns), source),)))
        full = dataclasses.replace(matrix, rows=None, columns=None)
        if outer is None:
            return dataclasses.replace(term, matrix=full, source=source)
        y = self._add(Affine(rows, (Term(full, source),)))
        return Term(Index(tuple(range(*outer))), y, term.scale)

    def _add(self, node: Affine):
        for name, known in self.nodes.items():
            if known == node:
                return intern(var(name))
        name = f"w{len(self.nodes)}"
        while name in self.graph.nodes or name in self.nodes or name in self.graph.values or name in self.graph.states:
            name += "_"
        self.nodes[name] = node
        return intern(var(name))


def _padded(span: tuple[int, int], length: int) -> Index:
    start, stop = span
    return Index(tuple(i - start if start <= i < stop else -1 for i in range(length)))
