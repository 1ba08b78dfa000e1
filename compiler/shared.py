"""Element-wise results that several places read, or that are a factor beside a vector, as vectors of their own: they
are computed once, and what comes back to them is added up before it goes through their derivative. A skip beside a
gate is one; written out, every way back would be a function of its own.
"""

import math
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace

from echolith.compiler.differentiate import exchanged, names
from echolith.compiler.graph import Affine, Graph
from echolith.compiler.ir import Expr, var
from echolith.compiler.linearity import degree
from echolith.compiler.ops import intern
from echolith.compiler.steps import error

__all__ = ["Value", "shared"]


@dataclass(frozen=True)
class Value:
    """A node that is an element-wise function of vectors."""

    length: int
    expr: Expr


def shared(graph: Graph, prefix: str) -> Graph:
    """The graph with a `Value`, named ``prefix`` and a number, for every function of two vectors or more, or one that
    is no polynomial, that is read twice or more, or multiplied with another vector; largest first."""
    while (found := _largest(graph)) is not None:
        name = f"{prefix}{sum(isinstance(n, Value) for n in graph.nodes.values())}"
        graph = _named(graph, found, name)
    return graph


def _largest(graph: Graph) -> Expr | None:
    parents: Counter[Expr] = Counter()
    seen: set[Expr] = set()
    for expr in _exprs(graph):
        parents[expr] += 1
        _count(expr, parents, seen)
    vectors = {*graph.states, *graph.fed, *graph.nodes, "u"}
    factors = {a for e in seen if e.op == "mul" and all(names(x) & vectors for x in e.args) for a in e.args}
    errors = set(map(error, graph.fed))
    found = [e for e, n in parents.items()
             if not names(e) & errors and (n > 1 and math.isinf(degree(e, dict.fromkeys(vectors, 1)))
                                           or (n > 1 or e in factors) and len(names(e) & vectors) > 1)]
    return max(found, key=_size, default=None)


def _exprs(graph: Graph) -> Iterator[Expr]:
    for node in graph.nodes.values():
        yield from [t.source for t in node.terms] if isinstance(node, Affine) else [node.expr]
    yield from (t.expr for t in graph.energy)


def _count(expr: Expr, parents: Counter[Expr], seen: set[Expr]) -> None:
    if expr not in seen:
        seen.add(expr)
        for arg in expr.args:
            parents[arg] += 1
            _count(arg, parents, seen)


def _size(expr: Expr) -> int:
    return 1 + sum(map(_size, expr.args))


def _named(graph: Graph, found: Expr, name: str) -> Graph:
    """With ``found`` a node behind all that it reads."""
    new = intern(var(name))
    lengths = {**graph.states, **graph.fed, "u": graph.inputs}
    lengths |= {n: x.length if isinstance(x, Affine | Value) else 1 for n, x in graph.nodes.items()}
    read = names(found) & set(lengths)
    value = Value(max(lengths[n] for n in read), found)
    left, nodes = set(read & set(graph.nodes)), {}
    if not left:
        nodes[name] = value
    for other, node in graph.nodes.items():
        nodes[other] = _exchanged(node, found, new)
        left.discard(other)
        if not left and name not in nodes:
            nodes[name] = value
    energy = tuple(replace(t, expr=exchanged(t.expr, found, new)) for t in graph.energy)
    return replace(graph, nodes=nodes, energy=energy)


def _exchanged(node, found: Expr, new: Expr):
    if isinstance(node, Affine):
        return replace(node, terms=tuple(replace(t, source=exchanged(t.source, found, new)) for t in node.terms))
    return replace(node, expr=exchanged(node.expr, found, new))
