"""Equal graphs made equal: linear combinations of nodes become one node, moves are composed, sums are split.

    tanh(2 * (W q + b) + B u)      one affine node: W q + B u / 2 + b, and tanh(2 z)
    W @ cat(q, u)                  two column blocks of W
    q.roll(1).roll(-1)             q
    a * (f(q).sum() + g(z).sum())  two sums: a f over q, a g over z
"""

from collections.abc import Iterable, Sequence
from dataclasses import replace

import numpy as np

from echolith.compiler.differentiate import names
from echolith.compiler.graph import Affine, Bias, Dense, Index, Matrix, Reduce, Sum, Term
from echolith.compiler.ir import Expr, const
from echolith.compiler.ops import add, apply, div, factor, intern, mul, neg
from echolith.compiler.values import Nodes, Store

__all__ = ["Canonical", "split", "summands"]

_LINEAR = ("add", "sub", "neg")


class Canonical:
    """Rewrites expressions over the nodes of ``store`` into equal ones over ``nodes``.

    With ``join_states``, states join the affine nodes that they are added to: what a readout needs.
    """

    def __init__(self, store: Store, nodes: Nodes, join_states: frozenset[str] = frozenset()):
        self.store, self.nodes, self.join_states = store, nodes, join_states
        self._exprs: dict[tuple[int, int], Expr] = {}
        self._nodes: dict[str, Expr] = {}

    def expr(self, expr: Expr, length: int) -> Expr:
        """``expr`` over ``length`` elements."""
        key = (id(expr), length)
        if key not in self._exprs:
            if expr.op == "var" and expr.name in self.store.nodes.nodes:
                self._exprs[key] = self._node(expr.name)
            elif expr.op in _LINEAR or factor(expr)[1] is not expr:
                self._exprs[key] = self._combination(expr, length)
            elif expr.args:
                self._exprs[key] = apply(expr.op, *(self.expr(a, length) for a in expr.args))
            else:
                self._exprs[key] = expr
        return self._exprs[key]

    def _combination(self, expr: Expr, length: int) -> Expr:
        rebuilt = apply(expr.op, *(self.expr(a, length) for a in expr.args))
        leaves = summands(rebuilt)
        affine = [(leaf, c) for leaf, c in leaves if self._affine(leaf, length)]
        states = [(leaf, c) for leaf, c in leaves if leaf.op == "var" and leaf.name in self.join_states]
        biases = [(leaf, c) for leaf, c in leaves if leaf.op == "param"]
        joined = affine + states
        if not joined or len(joined) + len(biases) < 2:
            return rebuilt
        terms = [Term(Index(tuple(range(length))), leaf, c) for leaf, c in states]
        added = [Bias(leaf.name, c) for leaf, c in biases]
        for leaf, c in affine:
            node = self.nodes.nodes[leaf.name]
            assert isinstance(node, Affine)
            terms += [replace(t, scale=t.scale * c) for t in node.terms]
            added += [replace(b, scale=b.scale * c) for b in node.biases]
        total = self.affine(length, terms, added)
        done = {id(leaf) for leaf, _ in joined + biases}
        for leaf, c in leaves:
            total = total if id(leaf) in done else add(total, mul(c, leaf))
        return total

    def _affine(self, leaf: Expr, length: int) -> bool:
        node = self.nodes.nodes.get(leaf.name) if leaf.op == "var" else None
        same = isinstance(node, Affine) and node.length == length
        return same and "target" not in self.nodes.given(leaf)  # a readout stays free of the targets

    def _node(self, name: str) -> Expr:
        if name not in self._nodes:
            node = self.store.nodes.nodes[name]
            if isinstance(node, Affine):
                terms = [t for term in node.terms for t in self._term(term)]
                self._nodes[name] = self.affine(node.length, terms, node.biases)
            else:
                inner = self.expr(node.expr, node.length)
                scale, inner = factor(inner) if node.kind == "sum" else (1.0, inner)
                self._nodes[name] = mul(scale, self.nodes.add(Reduce(node.kind, inner, node.length)))
        return self._nodes[name]

    def _columns(self, matrix: Matrix, source: Expr) -> int:
        if isinstance(matrix, Index):
            return self.store.width(source)
        if isinstance(matrix, Dense):
            span, axis = (matrix.rows, 0) if matrix.transposed else (matrix.columns, 1)
            return span[1] - span[0] if span else self.store.values[matrix.parameter].shape[axis]
        return int(np.prod(matrix.source_shape))

    def _term(self, term: Term) -> list[Term]:
        """A term over canonical sources: moves composed, matrices of concatenations in blocks."""
        scale, source = factor(self.expr(term.source, self._columns(term.matrix, term.source)))
        scale *= term.scale
        if source == const(0):
            return []
        if isinstance(term.matrix, Index) and max(term.matrix.of) > 0 and self._width(source) == 1:  # by now
            return [Term(Index(tuple(min(i, 0) for i in term.matrix.of)), source, scale)]
        inner = self.nodes.nodes.get(source.name) if source.op == "var" else None
        if isinstance(inner, Affine) and not inner.biases and all(isinstance(t.matrix, Index) for t in inner.terms):
            found = [_composed(term.matrix, t, self.nodes, scale) for t in inner.terms]
            if all(t is not None for t in found):
                return [t for t in found if t is not None and not _empty(t.matrix)]
        return [Term(term.matrix, source, scale)]

    def affine(self, length: int, terms: Iterable[Term], biases: Iterable[Bias]) -> Expr:
        """The sum of ``terms`` and ``biases``: equal sums, however spelled and scaled, are one node times a number."""
        merged: dict[tuple[Matrix, int], Term] = {}
        for t in terms:
            before = merged.get((t.matrix, id(t.source)))
            merged[t.matrix, id(t.source)] = t if before is None else replace(t, scale=t.scale + before.scale)
        scales: dict[str, float] = {}
        for b in biases:
            scales[b.parameter] = scales.get(b.parameter, 0.0) + b.scale
        kept = sorted(_united(t for t in merged.values() if t.scale != 0), key=self._order)
        if not kept and not scales:
            return const(0)
        if len(kept) == 1 and not scales and kept[0].matrix == Index(tuple(range(length))):
            if self._width(kept[0].source) == length:
                return mul(kept[0].scale, kept[0].source)
        scale = kept[0].scale if kept else 1.0
        unit = tuple(replace(t, scale=t.scale / scale) for t in kept)
        shifts = tuple(Bias(name, s / scale) for name, s in sorted(scales.items()) if s != 0)
        return mul(scale, self.nodes.add(Affine(length, unit, shifts)))

    def _order(self, term: Term) -> tuple[int, str]:
        """States, inputs, then the rest; by parameter."""
        plain = term.source.op == "var" and term.source.name not in self.nodes.nodes
        kind = 2 if not plain else 1 if term.source.name == "u" else 0
        return kind, "" if isinstance(term.matrix, Index) else term.matrix.parameter

    def _width(self, expr: Expr) -> int:
        lengths = self.nodes.lengths
        return max((lengths[n] if n in lengths else self.store.values[n].size for n in names(expr)), default=1)


def summands(expr: Expr) -> list[tuple[Expr, float]]:
    """The different summands of ``expr``, each with its number."""
    found: dict[int, tuple[Expr, float]] = {}

    def gather(expr: Expr, scale: float) -> None:
        c, inner = factor(expr)
        if inner.op == "const":
            c, inner = c * inner.value, intern(const(1))
        if inner.op in ("add", "sub"):
            gather(inner.args[0], scale * c)
            gather(inner.args[1], -scale * c if inner.op == "sub" else scale * c)
        else:
            found[id(inner)] = (inner, scale * c + found.get(id(inner), (inner, 0.0))[1])

    gather(expr, 1.0)
    return list(found.values())


def _united(terms: Iterable[Term]) -> list[Term]:
    """Moves of one vector to different places as one move."""
    found: list[Term] = []
    for term in terms:
        for place, other in enumerate(found):
            together = term.source is other.source and term.scale == other.scale
            if not together or not isinstance(term.matrix, Index) or not isinstance(other.matrix, Index):
                continue
            pairs = list(zip(term.matrix.of, other.matrix.of, strict=True))
            if all(min(a, b) < 0 for a, b in pairs):
                found[place] = replace(other, matrix=Index(tuple(max(a, b) for a, b in pairs)))
                break
        else:
            found.append(term)
    return found


def _empty(matrix: Matrix) -> bool:
    return isinstance(matrix, Index) and all(i < 0 for i in matrix.of)


def _composed(outer: Matrix, inner: Term, nodes: Nodes, scale: float) -> Term | None:
    """``outer @ inner`` as one term, or None."""
    assert isinstance(inner.matrix, Index)
    of = inner.matrix.of
    if isinstance(outer, Index):
        return Term(Index(tuple(of[i] if i >= 0 else -1 for i in outer.of)), inner.source, scale * inner.scale)
    taken = [i for i, j in enumerate(of) if j >= 0]
    if not isinstance(outer, Dense) or not taken or inner.source.op != "var":
        return None
    start, size = taken[0], nodes.lengths[inner.source.name]
    if [of[i] for i in taken] != list(range(size)) or taken != list(range(start, start + size)):
        return None
    span = outer.rows if outer.transposed else outer.columns
    start += span[0] if span else 0
    if span is None and size == len(of):
        return Term(outer, inner.source, scale * inner.scale)
    block = (start, start + size)
    block = replace(outer, rows=block) if outer.transposed else replace(outer, columns=block)
    return Term(block, inner.source, scale * inner.scale)


def split(nodes: Nodes, expr: Expr, apart: bool = True) -> tuple[Sum, ...]:
    """The scalar ``expr`` as sums over elements; a number is a sum of its own.

    ``apart``: one sum for each combination of vectors, else one for each length."""
    groups: dict[tuple[int, frozenset[str]], Expr] = {}
    for part, length in _Distribution(nodes, apart).parts(expr, 1):
        vectors = frozenset(n for n in names(part) if n in nodes.lengths and apart)
        if part.op == "const":
            part, length, vectors = const(part.value * length), 0, frozenset()
        groups[length, vectors] = add(groups.get((length, vectors), const(0)), part)
    return tuple(Sum(e, max(length, 1)) for (length, _), e in groups.items() if e != const(0))


class _Distribution:
    """A scalar as summands over elements: what multiplies a sum is multiplied into it."""

    def __init__(self, nodes: Nodes, apart: bool):
        self.nodes, self.apart = nodes, apart

    def parts(self, expr: Expr, length: int) -> list[tuple[Expr, int]]:
        """Pairs of an expression and the number of elements to sum it over."""
        if expr.op in ("add", "sub"):
            left, right = (self.parts(a, length) for a in expr.args)
            return left + ([(neg(e), n) for e, n in right] if expr.op == "sub" else right)
        node = self.nodes.nodes.get(expr.name) if expr.op == "var" else None
        if isinstance(node, Reduce) and node.kind == "sum" and length == 1:
            return self.parts(node.expr, node.length)
        if expr.op == "neg":
            return [(neg(e), n) for e, n in self.parts(expr.args[0], length)]
        if expr.op == "div":
            parts = [(div(e, expr.args[1]), n) for e, n in self.parts(expr.args[0], length)]
            return parts if self._worth(parts, length) else [(expr, length)]
        if expr.op == "mul":
            for one, other in (expr.args, expr.args[::-1]):
                if length == 1 or other.op == "const":
                    parts = [(mul(other, e), n) for e, n in self.parts(one, length)]
                    if self._worth(parts, length):
                        return parts
        return [(expr, length)]

    def _worth(self, parts: Sequence[tuple[Expr, int]], length: int) -> bool:
        """Whether distributing a product separates sums."""
        return any(n != length for _, n in parts) or (self.apart and len({names(e) for e, _ in parts}) > 1)
