"""Functions of two vectors that no table holds, as functions of one: comparisons are made of the difference.

    maximum(a, b)         b + relu(a - b)
    a > b                 a - b > 0
    where(c, a, b)        b + c * (a - b)
    a ** b                exp(b * log(a))
"""

import dataclasses
from collections.abc import Callable

from echolith.compiler.differentiate import exchanged, is_univariate, names
from echolith.compiler.graph import Affine, Graph
from echolith.compiler.ir import Expr, var
from echolith.compiler.ops import add, apply, mul, sub

__all__ = ["bent"]


def _where(condition: Expr, a: Expr, b: Expr) -> Expr:
    return add(b, mul(condition, sub(a, b)))


def _compared(op: str) -> Callable[[Expr, Expr], Expr]:
    return lambda a, b: apply(op, sub(a, b), 0)


_FORMS: dict[str, Callable[..., Expr]] = {
    "maximum": lambda a, b: add(b, apply("relu", sub(a, b))),
    "minimum": lambda a, b: sub(b, apply("relu", sub(b, a))),
    **{op: _compared(op) for op in ("gt", "ge", "lt", "le")}, "where": _where,
    "pow": lambda a, b: apply("exp", mul(b, apply("log", a))),
}


def bent(graph: Graph) -> Graph:
    """The graph with the functions above, of more than one vector or parameter, in their other form."""
    memo: dict[int, Expr] = {}

    def walk(expr: Expr) -> Expr:
        if id(expr) not in memo:
            args = tuple(map(walk, expr.args))
            plain = not args or expr.op not in _FORMS or _plain(expr)
            memo[id(expr)] = (_same(expr, args) if plain else _FORMS[expr.op](*args))
        return memo[id(expr)]

    nodes = {name: dataclasses.replace(n, terms=tuple(dataclasses.replace(t, source=walk(t.source)) for t in n.terms))
             if isinstance(n, Affine) else dataclasses.replace(n, expr=walk(n.expr)) for name, n in graph.nodes.items()}
    return dataclasses.replace(
        graph, nodes=nodes, energy=tuple(dataclasses.replace(e, expr=walk(e.expr)) for e in graph.energy))


def _plain(expr: Expr) -> bool:
    """Whether a table can hold it: a function of one vector, or of one sum of vectors."""
    if expr.op != "where":
        return is_univariate(expr) or sum(a.op != "const" for a in expr.args) == 1
    return is_univariate(expr) or any(names(exchanged(expr, s, var("x"))) == {"x"} for s in _sums(expr.args[0]))


def _sums(expr: Expr) -> list[Expr]:
    """Sums of leaves in ``expr``: their derivatives are numbers."""
    if expr.op in ("add", "sub") and all(not a.args for a in expr.args):
        return [expr]
    return [s for a in expr.args for s in _sums(a)]


def _same(expr: Expr, args: tuple[Expr, ...]) -> Expr:
    return apply(expr.op, *args) if any(a is not b for a, b in zip(args, expr.args, strict=True)) else expr
