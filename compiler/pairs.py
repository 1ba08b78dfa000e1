"""Couplings of every pair of units one by one: what a matrix product does in one sweep is refused as so many edges."""

from collections.abc import Iterator

from echolith.compiler.differentiate import names
from echolith.compiler.errors import CompileError
from echolith.compiler.graph import Affine, Graph, Index
from echolith.compiler.ir import Expr
from echolith.compiler.site import LARGEST

__all__ = ["refuse_all_pairs"]

_FEW = 8  # units whose pairs are no more work than a matrix


def refuse_all_pairs(graph: Graph) -> Graph:
    """The graph as it is; CompileError if a cosine or sine of all differences is in the energy, or far too many."""
    lengths = {**graph.states, **{n: node.length for n, node in graph.nodes.items() if isinstance(node, Affine)}}
    for name, node in graph.nodes.items():
        if isinstance(node, Affine) and all(isinstance(t.matrix, Index) for t in node.terms):
            pairs = _pairs(node)
            units = max((lengths[v] for t in node.terms for v in names(t.source) & set(lengths)), default=0)
            phase = any(name in names(e) for total in graph.energy for e in _waves(total.expr))
            if units > _FEW and len(pairs) >= units * (units - 1) // 2 and (phase or node.length > LARGEST):
                raise CompileError(
                    "energy: every unit is coupled to every other one as an edge of its own; write a matrix product, "
                    "for phases cos(a - b) = cos a cos b + sin a sin b: torch.cos(q) @ K @ torch.cos(q) + torch.sin(q) "
                    f"@ K @ torch.sin(q), not {len(pairs)} pairs of {units} units")
    return graph


def _pairs(node: Affine) -> set[tuple[int, int]]:
    """Unordered pairs of different elements that enter one element."""
    if len(node.terms) != 2 or len({t.source for t in node.terms}) != 1:
        return set()
    a, b = (t.matrix.of for t in node.terms if isinstance(t.matrix, Index))
    return {(min(i, j), max(i, j)) for i, j in zip(a, b, strict=True) if i != j and i >= 0 and j >= 0}


def _waves(expr: Expr) -> Iterator[Expr]:
    """Arguments of cosines and sines."""
    for arg in expr.args:
        if expr.op in ("cos", "sin"):
            yield arg
        yield from _waves(arg)
