"""The energy h^2 V(e y, e w) of a damped motion, e h = 1 (see `damping`), with its factors where they cancel.

    z = W (e y) + B (e w) + b   becomes   e z',  z' = W y + B w + b h
    h^2 k (e y)^2 / 2           becomes   k y^2 / 2
    h^2 log cosh(z)             becomes   h^2 log cosh(e z'), whose slope is h tanh(e z')

Products of matrices then take states and inputs as they are, and what is linear in a force has no factor at all.
"""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, replace

import numpy as np

from echolith.compiler.canonical import factor
from echolith.compiler.differentiate import names, substitute
from echolith.compiler.graph import Affine, Dense, Graph, Index, Reduce, Term
from echolith.compiler.ir import Expr, const, var
from echolith.compiler.ops import add, apply, div, intern, mul, power
from echolith.compiler.prune import prune

__all__ = ["Factors", "factors", "homogeneous"]

_ALIKE = ("abs", "relu")  # f(e x) = e f(x)


@dataclass(frozen=True)
class Factors:
    """Vectors that repeat e / ``largest``, and such that repeat h = 1 / e."""

    up: frozenset[str]
    down: frozenset[str]
    largest: float

    def cancelled(self, expr: Expr) -> Expr:
        """``expr`` with all its factors taken out of sums and products, as far as they cancel."""
        return self.given(*self.taken(expr), expr)

    def taken(self, expr: Expr) -> tuple[int, Expr]:
        """``(n, x)`` with ``expr`` = (e / largest)^n x."""
        if not names(expr) & (self.up | self.down):
            return 0, expr
        if expr.op == "var":
            return (1, const(1)) if expr.name in self.up else (-1, const(1 / self.largest))
        if expr.op == "pow" and expr.args[1].op == "const" and expr.args[1].value > 0 and expr.args[1].value % 1 == 0:
            n, exponent = int(expr.args[1].value), expr.args[1].value
            k, inner = self.taken(expr.args[0])
            scale, inner = factor(inner)
            return n * k, mul(scale**n, power(inner, exponent))
        parts = [self.taken(a) for a in expr.args]
        if expr.op in ("add", "sub"):
            powers = [n for n, _ in parts]
            common = min(powers) if min(powers) > 0 else min(max(powers), 0)
            return common, apply(expr.op, *(self.given(n - common, x, expr) for n, x in parts))
        if expr.op in ("neg", *_ALIKE):
            return parts[0][0], apply(expr.op, parts[0][1])
        if expr.op == "mul":
            return parts[0][0] + parts[1][0], mul(parts[0][1], parts[1][1])
        if expr.op == "div":
            return parts[0][0] - parts[1][0], div(parts[0][1], parts[1][1])
        return 0, apply(expr.op, *(self.given(n, x, expr) for n, x in parts))

    def given(self, n: int, expr: Expr, within: Expr) -> Expr:
        """(e / largest)^n ``expr``, by the vectors that ``within`` has."""
        up, down = (sorted(names(within) & every) for every in (self.up, self.down))
        if n > 0 and not up:
            return div(expr, mul(self.largest**n, power(var(down[0]), n)))
        if n < 0 and not down:
            return div(expr, power(var(up[0]), -n))
        return mul(expr, power(var(up[0]), n)) if n > 0 else mul(
            expr, mul(self.largest**-n, power(var(down[0]), -n))) if n < 0 else expr


def factors(graph: Graph) -> Factors:
    """Nodes of such a graph that are nothing but one of the last two inputs, h and e."""
    found: dict[str, int] = {}
    for name, node in graph.nodes.items():
        if isinstance(node, Affine) and len(node.terms) == 1 and not node.biases and node.terms[0].scale == 1:
            term, = node.terms
            columns = set(term.matrix.of) if isinstance(term.matrix, Index) else set()
            if term.source == var("u") and len(columns) == 1 and max(columns) >= graph.inputs - 2:
                found[name] = max(columns)
            elif columns == {0} and term.source.name in found:
                found[name] = found[term.source.name]
    up, down = (frozenset(n for n, column in found.items() if column == graph.inputs - back) for back in (1, 2))
    return Factors(up, down, float(graph.growth or 1.0))


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
