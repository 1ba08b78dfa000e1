"""A kinetic energy by state: a function of one momentum, with parameters element by element.

    (p.reshape(4, 2)**2 / m[:, None]).sum()     p**2 / m[..],  m[..] a mass for each unit
    (p[:3]**2).sum()                            p**2 times 1 where it counts, else 0
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import count

import numpy as np
import torch

from echolith.compiler.differentiate import derivative, names, substitute
from echolith.compiler.graph import Affine, Index, Sum
from echolith.compiler.ir import Expr, const, param, var
from echolith.compiler.ops import add, intern, mul
from echolith.compiler.values import Fixed, Nodes, Part, Store

__all__ = ["separated"]

_ZERO = const(0)


@dataclass(frozen=True)
class _Piece:
    """A sum of ``expr`` over elements; a variable stands for those elements of a vector or parameter, one each."""

    expr: Expr
    elements: dict[str, tuple[str, np.ndarray]]
    length: int


def separated(store: Store, nodes: Nodes, states: Mapping[str, int], terms: Sequence[Sum],
              line: str | None = None) -> dict[str, Expr] | Expr:  # fmt: skip
    """The energy of a unit of every state that is in ``terms``, over var("p"); or what is not of this form."""
    units = _Units(store, states, line)
    found: dict[str, Expr] = {}
    for term in terms:
        for piece in _pieces(store, nodes, _whole(store, nodes, term)):
            made = units.unit(piece) if piece is not None else None
            if made is None:
                return term.expr
            found[made[0]] = add(found.get(made[0], _ZERO), made[1])
    return found


def _whole(store: Store, nodes: Nodes, term: Sum) -> _Piece:
    elements: dict[str, tuple[str, np.ndarray]] = {}
    return _Piece(_renamed(store, nodes, term.expr, np.arange(term.length), elements), elements, term.length)


def _pieces(store: Store, nodes: Nodes, piece: _Piece) -> Iterator[_Piece | None]:
    """``piece`` in parts without nodes; None if that cannot be."""
    inner = next((n for n, (of, _) in piece.elements.items() if of in nodes.nodes), None)
    if inner is None:
        yield piece
        return
    name, at = piece.elements[inner]
    node = nodes.nodes[name]
    if not isinstance(node, Affine) or node.biases or not all(isinstance(t.matrix, Index) for t in node.terms):
        yield None
        return
    places = [np.array(t.matrix.of)[at] for t in node.terms if isinstance(t.matrix, Index)]
    single = (np.sum([p >= 0 for p in places], axis=0) == 1).all()
    slope = derivative(piece.expr, inner)
    if not single and inner in names(slope):
        yield None
        return
    rest = substitute(piece.expr, {inner: _ZERO})
    if not single and rest != _ZERO:
        yield from _pieces(store, nodes, _Piece(rest, _without(piece.elements, inner), piece.length))
    for term, place in zip(node.terms, places, strict=True):
        here = place >= 0
        if here.any():
            kept = {n: (of, x[here]) for n, (of, x) in _without(piece.elements, inner).items()}
            source = mul(term.scale, _renamed(store, nodes, term.source, place[here], kept))
            whole = substitute(piece.expr, {inner: source}) if single else mul(slope, source)
            yield from _pieces(store, nodes, _Piece(whole, kept, int(here.sum())))


def _without(elements: dict[str, tuple[str, np.ndarray]], name: str) -> dict[str, tuple[str, np.ndarray]]:
    return {n: e for n, e in elements.items() if n != name}


def _renamed(store: Store, nodes: Nodes, expr: Expr, at: np.ndarray, elements: dict[str, tuple[str, np.ndarray]]
             ) -> Expr:  # fmt: skip
    """``expr`` with a variable for those elements of each of its vectors; new ones join ``elements``."""
    changed: dict[str, Expr] = {}
    for name in sorted(names(expr)):
        place = at if _size(store, nodes, name) > 1 else np.zeros_like(at)
        known = next((n for n, (of, x) in elements.items() if of == name and np.array_equal(x, place)), None)
        known = known or next(n for i in count() if (n := f"{name}:{i}") not in elements)
        elements[known] = name, place
        changed[name] = intern(var(known))
    return substitute(expr, changed)


def _size(store: Store, nodes: Nodes, name: str) -> int:
    return nodes.lengths[name] if name in nodes.lengths else store.values[name].size


class _Units:
    """Pieces as energies of single units."""

    def __init__(self, store: Store, states: Mapping[str, int], line: str | None):
        self.store, self.states, self.line = store, states, line

    def unit(self, piece: _Piece) -> tuple[str, Expr] | None:
        """The state of a piece, and its energy per unit; 0 for units that are not in it."""
        moving = [n for n, (of, _) in piece.elements.items() if of in self.states and n in names(piece.expr)]
        if len(moving) > 1:
            return None
        if not moving:
            state, constant = next(iter(self.states)), piece.expr.op == "const"
            return (state, const(piece.expr.value * piece.length / self.states[state])) if constant else None
        state, at = piece.elements[moving[0]]
        if len(set(at.tolist())) < len(at):
            return None
        changed = {moving[0]: intern(var("p"))}
        for name in names(piece.expr) - {moving[0]}:
            parameter, of = piece.elements[name]
            places = np.zeros(self.states[state], np.int64)
            places[at] = of
            changed[name] = self._placed(parameter, places)
        expr = substitute(piece.expr, changed)
        if len(at) == self.states[state]:
            return state, expr
        return state, mul(intern(param(self.store.constant(np.isin(np.arange(self.states[state]), at)))), expr)

    def _placed(self, name: str, places: np.ndarray) -> Expr:
        """A parameter with one element for each unit."""
        array = self.store.values[name]
        if array.size == 1 or np.array_equal(places, np.arange(array.size)):
            return intern(param(name))
        if name not in self.store.learned:
            return intern(param(self.store.constant(array.reshape(-1)[places])))
        values = torch.as_tensor(array).flatten()[torch.as_tensor(places)]
        part = Part(name, 1.0, torch.as_tensor(places))
        return intern(param(self.store.derived_from(Fixed(values, (part,), True, line=self.line)).parts[0].name))
