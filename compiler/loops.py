"""Terms that a Python loop wrote one by one, of one form, as one vector.

    sum(c[i] * cos(q[i] - q[i + 1]) for i in range(n))        (c * cos(q[:n] - q[1:n + 1])).sum()

What differs from term to term may be numbers, elements of one vector, rows of one matrix.
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np
import torch

from echolith.compiler.derived import Derived
from echolith.compiler.graph import Affine, Bias, Dense, Index, Matrix, Sum, Term
from echolith.compiler.ir import Expr, const, param, var
from echolith.compiler.ops import apply, intern
from echolith.compiler.values import Fixed, Nodes, Part, Store

__all__ = ["rolled"]

_MANY = 4  # terms that are worth it

_Form = tuple
_Leaf = float | str


def rolled(store: Store, nodes: Nodes, sums: Sequence[Sum]) -> tuple[Sum, ...]:
    """``sums`` with those over one element that have one form united."""
    groups: dict[object, list[tuple[Sum, Expr, list[_Leaf]]]] = {}
    for term in sums:
        leaves: list[_Leaf] = []
        expr = _ordered(store, nodes, term.expr) if term.length == 1 else term.expr
        form = _form(store, nodes, expr, leaves) if term.length == 1 else id(term)
        groups.setdefault(form, []).append((term, expr, leaves))
    found: list[Sum] = []
    for group in groups.values():
        united = _united(store, nodes, group) if len(group) >= _MANY else None
        found += [united] if united is not None else [before for before, _, _ in group]
    return tuple(found)


def _ordered(store: Store, nodes: Nodes, expr: Expr) -> Expr:
    """With factors and summands in the order of their forms: elsewhere it is that of the vectors' names."""
    if not expr.args:
        return expr
    if expr.op not in ("mul", "add"):
        return replace(expr, args=tuple(_ordered(store, nodes, a) for a in expr.args))
    parts = [_ordered(store, nodes, a) for a in _chained(expr, expr.op)]
    parts.sort(key=lambda a: str(_form(store, nodes, a, [])))
    total = parts[0]
    for part in parts[1:]:
        total = Expr(expr.op, (total, part))
    return total


def _chained(expr: Expr, op: str) -> list[Expr]:
    return [part for a in expr.args for part in _chained(a, op)] if expr.op == op else [expr]


def _form(store: Store, nodes: Nodes, expr: Expr, leaves: list[_Leaf]) -> _Form:
    """What is left of an expression without its numbers and vectors, which are added to ``leaves``."""
    if expr.op == "const":
        leaves.append(expr.value)
        return ("const",)
    if not expr.args:
        leaves.append(expr.name)
        made = store.derived.get(expr.name)
        if made is not None and _single(made):
            return ("element", next(iter(made.operands.values())).parameter)
        node = nodes.nodes.get(expr.name)
        apart = isinstance(node, Affine) and all(isinstance(t.matrix, Index | Dense) for t in node.terms)
        return (_shape(node),) if isinstance(node, Affine) and apart and not node.biases else (expr,)
    if expr.op == "pow":  # whose circuit depends on the exponent
        return ("pow", _form(store, nodes, expr.args[0], leaves), expr.args[1])
    return (expr.op, *(_form(store, nodes, a, leaves) for a in expr.args))


def _shape(node: Affine) -> _Form:
    """What nodes that can be united have in common."""
    return tuple((_kind(t.matrix), id(t.source), t.scale) for t in node.terms)


def _kind(matrix: Matrix) -> object:
    assert isinstance(matrix, Index | Dense)
    return "index" if isinstance(matrix, Index) else replace(matrix, **{_axis(matrix): None})


def _axis(matrix: Dense) -> str:
    """Where the rows of its product are."""
    return "columns" if matrix.transposed else "rows"


def _united(store: Store, nodes: Nodes, group: list[tuple[Sum, Expr, list[_Leaf]]]) -> Sum | None:
    columns = [list(c) for c in zip(*(leaves for *_, leaves in group), strict=True)]
    leaves: list[Expr] = []
    for column in columns:
        leaf = _leaf(store, nodes, column)
        if leaf is None:
            return None
        leaves.append(leaf)
    return Sum(_rebuilt(group[0][1], iter(leaves)), len(group))


def _leaf(store: Store, nodes: Nodes, column: list[_Leaf]) -> Expr | None:
    """The leaves at one place of all terms as one vector."""
    first = column[0]
    if not isinstance(first, str):
        same = all(c == first for c in column)
        return const(first) if same else intern(param(store.constant(np.array(column, np.float64))))
    if first in store.derived and _single(store.derived[first]):
        return _elements(store, [store.derived[str(c)] for c in column])
    if not isinstance(nodes.nodes.get(first), Affine):
        return intern(param(first) if first in store.values else var(first))
    if all(c == first for c in column):
        return intern(var(first))
    return _node(store, nodes, [nodes.nodes[str(c)].terms for c in column])  # pyright: ignore


def _single(made: Derived) -> bool:
    """Whether it is one element of a parameter."""
    return made.moves and made.shape == () and len(next(iter(made.operands.values())).of) == 1


def _elements(store: Store, found: Sequence[Derived]) -> Expr:
    """Elements of a parameter as one vector."""
    operands = [next(iter(made.operands.values())) for made in found]
    of = torch.tensor([o.of[0] for o in operands])
    if len(set(of.tolist())) == 1:
        return intern(param(found[0].name))
    name = operands[0].parameter
    values = torch.as_tensor(store.values[name]).flatten()[of]
    made = store.derived_from(Fixed(values, (Part(name, 1.0, of),), True, line=found[0].line))
    return intern(param(made.parts[0].name))


def _node(store: Store, nodes: Nodes, all_terms: Sequence[Sequence[Term]]) -> Expr | None:
    """Nodes of one element as one of as many."""
    every = Index(tuple(range(len(all_terms))))
    terms: list[Term] = []
    biases: list[Bias] = []
    for same in zip(*all_terms, strict=True):
        matrix, first = _stacked(store, [t.matrix for t in same]), same[0]
        if matrix is None:
            return None
        whole = matrix == every and not first.source.args and store.size(first.source.name) == len(every.of)
        if whole and len(all_terms[0]) == 1 and first.scale == 1:
            return first.source
        if whole and first.source.op == "param":
            biases.append(Bias(first.source.name, first.scale))
        else:
            terms.append(Term(matrix, first.source, first.scale))
    return nodes.add(Affine(len(every.of), tuple(terms), tuple(biases)))


def _stacked(store: Store, matrices: Sequence[Matrix]) -> Matrix | None:
    """One matrix of the rows of all, or None."""
    if all(isinstance(m, Index) for m in matrices):
        return Index(tuple(i for m in matrices if isinstance(m, Index) for i in m.of))
    first = matrices[0]
    assert isinstance(first, Dense)
    rows = [getattr(m, _axis(first)) for m in matrices]
    if None in rows or any(b[0] != a[1] for a, b in zip(rows, rows[1:], strict=False)):
        return None
    span = (rows[0][0], rows[-1][1])
    every = store.values[first.parameter].shape[1 if first.transposed else 0]
    return replace(first, **{_axis(first): None if span == (0, every) else span})


def _rebuilt(expr: Expr, leaves: Iterator[Expr]) -> Expr:
    if not expr.args:
        return next(leaves)
    if expr.op == "pow":
        return apply("pow", _rebuilt(expr.args[0], leaves), expr.args[1])
    return apply(expr.op, *[_rebuilt(a, leaves) for a in expr.args])
