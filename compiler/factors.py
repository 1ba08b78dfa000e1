"""The factors e and h = 1 / e of a damped motion, taken out of sums and products until they cancel."""

from dataclasses import dataclass

from echolith.compiler.differentiate import names
from echolith.compiler.graph import Affine, Graph, Index
from echolith.compiler.ir import Expr, const, var
from echolith.compiler.ops import apply, div, factor, mul, power

__all__ = ["Factors", "factors"]

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
