"""The energy h^2 V(e y, e w) of a damped motion, e h = 1 (see `damping`), with its factors where they cancel.

    z = W (e y) + B (e w) + b   becomes   e z',  z' = W y + B w + b h
    h^2 k (e y)^2 / 2           becomes   k y^2 / 2
    h^2 log cosh(z)             becomes   h^2 log cosh(e z'), whose slope is h tanh(e z')

Products of matrices then take states and inputs as they are, and what is linear in a force has no factor at all.
"""

from collections import Counter
from collections.abc import Iterable
from dataclasses import replace

import numpy as np

from echolith.compiler.differentiate import names, substitute
from echolith.compiler.factors import factors
from echolith.compiler.graph import Affine, Dense, Graph, Reduce, Term
from echolith.compiler.ir import Expr, var
from echolith.compiler.ops import add, factor, intern, mul
from echolith.compiler.prune import prune

__all__ = ["homogeneous"]


def homogeneous(graph: Graph, growth: float) -> Graph:
    """A captured graph, whose last two inputs are h and e / ``growth``, with e taken out of its nodes."""
    return _Homogeneous(replace(graph, growth=growth)).run()


class _Homogeneous:
    def __init__(self, graph: Graph):
        self.graph, self.factors = graph, factors(graph)
        self.nodes = dict(graph.nodes)  # what a read-out reads stays
        self.known: dict[str, Expr] = {}  # node -> what it is now
        uses = Counter(b.parameter for n in graph.nodes.values() if isinstance(n, Affine) for b in n.biases)
        inside = set().union(*map(names, _expressions(graph)))
        self.once = {name for name, count in uses.items() if count == 1 and name not in inside}

    def run(self) -> Graph:
        if not self.factors.up or not self.factors.down:
            return self.graph
        for name, node in self.graph.nodes.items():
            if name not in self.factors.up | self.factors.down:
                self.known[name] = self._affine(node) if isinstance(node, Affine) else self._reduce(node)
        energy = tuple(replace(e, expr=self._now(e.expr)) for e in self.graph.energy)
        return prune(replace(self.graph, nodes=self.nodes, energy=energy))

    def _now(self, expr: Expr) -> Expr:
        return self.factors.cancelled(substitute(expr, self.known))

    def _reduce(self, node: Reduce) -> Expr:
        expr = self._now(node.expr)
        n, inner = self.factors.taken(expr) if node.kind == "sum" else (0, expr)
        return self._times(n, self._new(replace(node, expr=inner)))

    def _affine(self, node: Affine) -> Expr:
        """Terms in a state or input, and the biases beside them, apart from functions of them."""
        down = min(self.factors.down)
        terms = [replace(t, source=self._now(t.source)) for t in node.terms]
        found = [(t, *self.factors.taken(t.source)) for t in terms]
        pulled = [_scaled(t, inner) for t, n, inner in found if n == 1]
        rest = [t for t, n, _ in found if n != 1]
        if not pulled:
            return self._new(replace(node, terms=tuple(rest)))
        beside = [b for b in node.biases if b.parameter in self.once
                  and np.shape(self.graph.values[b.parameter]) == (node.length,)]
        pulled += [Term(Dense(b.parameter, transposed=True), intern(var(down)), self.factors.largest * b.scale)
                   for b in beside]
        scale = pulled[0].scale
        pulled = [replace(t, scale=t.scale / scale) for t in pulled]
        total = mul(scale, self._times(1, self._new(Affine(node.length, tuple(pulled)))))
        others = tuple(b for b in node.biases if b not in beside)
        return add(total, self._new(Affine(node.length, tuple(rest), others))) if rest or others else total

    def _times(self, n: int, expr: Expr) -> Expr:
        up, down = (intern(var(min(every))) for every in (self.factors.up, self.factors.down))
        return self.factors.given(n, expr, add(up, down))

    def _new(self, node: Affine | Reduce) -> Expr:
        name = f"z{len(self.nodes)}"
        while name in self.nodes or name in self.graph.values or name in self.graph.states:
            name += "_"
        self.nodes[name] = node
        return intern(var(name))


def _scaled(term: Term, source: Expr) -> Term:
    c, source = factor(source)
    return replace(term, source=source, scale=term.scale * c)


def _expressions(graph: Graph) -> Iterable[Expr]:
    yield from (e.expr for e in graph.energy)
    for node in graph.nodes.values():
        yield from (t.source for t in node.terms) if isinstance(node, Affine) else (node.expr,)
