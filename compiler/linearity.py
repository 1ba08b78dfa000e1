"""Which states move linearly: where the energy has no more than their squares, echoes of any size are exact."""

import math
from collections.abc import Iterator, Mapping

from echolith.compiler.graph import Affine, Graph
from echolith.compiler.ir import Expr

__all__ = ["degree", "linear"]


def linear(graph: Graph) -> frozenset[str]:
    """States that no term of a degree above two contains, nor reaches through other states."""
    degrees: dict[str, float] = dict.fromkeys(graph.states, 1)
    found = {s: frozenset([s]) for s in graph.states}  # states that a vector depends on
    for name, node in graph.nodes.items():
        sources = [t.source for t in node.terms] if isinstance(node, Affine) else [node.expr]
        bend = math.inf if not isinstance(node, Affine) and node.kind != "sum" else 1
        degrees[name] = max((_raised(degree(e, degrees), bend) for e in sources), default=0)
        found[name] = frozenset().union(*(_states(e, found) for e in sources))
    bent: set[str] = set()
    together: list[frozenset[str]] = []
    for term in (t for total in graph.energy for t in _addends(total.expr)):
        states = _states(term, found)
        together.append(states)
        bent |= states if degree(term, degrees) > 2 else set()
    bent |= {s for s, e in graph.kinetic.items() if degree(e, {"p": 1}) > 2}
    while any(states & bent and not states <= bent for states in together):
        bent |= frozenset().union(*(states for states in together if states & bent))
    return frozenset(graph.states) - bent


def degree(expr: Expr, degrees: Mapping[str, float]) -> float:
    """Of a polynomial in the variables that have one; infinite for other functions of them."""
    inner = [degree(a, degrees) for a in expr.args]
    if expr.op in ("var", "param", "const"):
        return degrees.get(expr.name, 0) if expr.op == "var" else 0
    if expr.op in ("add", "sub", "neg"):
        return max(inner)
    if expr.op == "mul":
        return sum(inner)
    if expr.op == "div" and not inner[1]:
        return inner[0]
    if expr.op == "pow" and not inner[1] and expr.args[1].op == "const" and expr.args[1].value in (1, 2):
        return inner[0] * expr.args[1].value
    return math.inf if any(inner) else 0


def _raised(inner: float, bend: float) -> float:
    return inner * bend if inner else 0


def _addends(expr: Expr) -> Iterator[Expr]:
    if expr.op in ("add", "sub"):
        for arg in expr.args:
            yield from _addends(arg)
    else:
        yield expr


def _states(expr: Expr, found: Mapping[str, frozenset[str]]) -> frozenset[str]:
    return frozenset().union(*(found.get(n, frozenset()) for n in expr.variables()))
