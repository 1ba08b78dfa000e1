"""Reductions over a vector as sums of products, a maximum, and functions of single elements.

    sum(x)        = 1' x
    logsumexp(x)  = m + log(1' exp(x - m)),  m = max(x);    its derivative is exp(x - logsumexp(x))

The ones are a frozen matrix of one row, so a sum and its transpose, the same number for all elements, are sweeps like
any other. Only the maximum is an operation of its own; the result does not depend on it, so nothing flows back.
"""

import dataclasses
from collections.abc import Mapping

import numpy as np

from echolith.compiler.graph import Affine, Dense, Graph, Index, Reduce, Term
from echolith.compiler.ir import Expr
from echolith.compiler.ops import add, apply, intern, neg, sub

__all__ = ["below_one", "bounded", "levels", "logarithm", "summed"]


def summed(graph: Graph) -> Graph:
    """The graph with every sum over elements as an affine form."""
    values = dict(graph.values)
    nodes: dict[str, Affine | Reduce] = {}
    for name, node in graph.nodes.items():
        if isinstance(node, Reduce) and node.kind == "sum":
            ones = f"ones{node.length}"
            while ones in graph.values or ones in graph.nodes or ones in graph.states:
                ones += "_"
            values[ones] = np.ones((1, node.length))
            node = Affine(1, (Term(Dense(ones), node.expr),))
        nodes[name] = node
    return dataclasses.replace(graph, nodes=nodes, values=values)


def below_one(x: Expr, top: Expr) -> Expr:
    """``exp(x - top)`` where x <= top up to rounding."""
    return apply("exp", neg(apply("relu", sub(top, x))))


def bounded(expr: Expr, levels: Mapping[str, Expr]) -> Expr:
    """``expr`` with `below_one` for exp(x - top), of vectors ``top`` that are the logsumexp of x: a softmax in the
    energy itself, whose words must not have room for exponentials that cannot be."""
    memo: dict[int, Expr] = {}

    def walk(node: Expr) -> Expr:
        if id(node) not in memo:
            inner = node.args[0] if node.op == "exp" else node
            share = inner.op == "sub" and inner.args[1].op == "var" and levels.get(inner.args[1].name) is inner.args[0]
            memo[id(node)] = (below_one(*inner.args) if share and node.op == "exp" else
                              apply(node.op, *map(walk, node.args)) if node.args else node)
        return memo[id(node)]

    return walk(expr)


def levels(graph: Graph) -> dict[str, Expr]:
    """Logsumexps and the vectors that repeat them, each with what it is the logsumexp of."""
    found: dict[str, Expr] = {}
    for name, node in graph.nodes.items():
        if isinstance(node, Reduce) and node.kind == "logsumexp":
            found[name] = intern(node.expr)
        elif isinstance(node, Affine) and len(node.terms) == 1 and node.terms[0].source.name in found:
            repeats = not node.biases and node.terms[0].scale == 1 and isinstance(node.terms[0].matrix, Index)
            of = graph.nodes[node.terms[0].source.name]
            if repeats and isinstance(of, Reduce) and of.length == node.length:
                found[name] = found[node.terms[0].source.name]
    return found


def logarithm(total: Expr) -> Expr:
    """``log(total)`` where it is at least 1 up to rounding."""
    return apply("log", add(apply("relu", sub(total, 0.5)), 0.5))
