"""Reductions over a vector as sums of products, a maximum, and functions of single elements.

    sum(x)        = 1' x
    logsumexp(x)  = m + log(1' exp(x - m)),  m = max(x);    its derivative is exp(x - logsumexp(x))

The ones are a frozen matrix of one row, so a sum and its transpose, the same number for all elements, are sweeps like
any other. Only the maximum is an operation of its own; the result does not depend on it, so nothing flows back.
"""

import dataclasses

import numpy as np

from echolith.compiler.graph import Affine, Dense, Graph, Reduce, Term
from echolith.compiler.ir import Expr
from echolith.compiler.ops import add, apply, neg, sub

__all__ = ["below_one", "logarithm", "summed"]


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


def logarithm(total: Expr) -> Expr:
    """``log(total)`` where it is at least 1 up to rounding."""
    return apply("log", add(apply("relu", sub(total, 0.5)), 0.5))
