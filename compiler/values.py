"""What a node of a traced graph stands for: constants, vectors over a space, sums, norms; and their affine algebra.

    Fixed   parameters, buffers and constants: known now
    Vector  sum of pieces, each an element-wise expression over one space: q, u, target, or rows z = affine(q, u)
    Scalar  sum over all elements of some pieces, plus a number
    Root    (sum of |x|^p)^(1/p), of use only when raised to p again
    Product matrix * vector before it is summed along the vector: a matrix-vector product in the making
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch

from echolith.compiler.differentiate import derivative, evaluate, names, substitute
from echolith.compiler.ir import Affine, Expr, Term, const, param, var
from echolith.compiler.ops import add, mul

__all__ = ["Fixed", "Part", "Piece", "Product", "Root", "Scalar", "Space", "Store", "Value", "Vector", "rows", "settle"]


@dataclass(frozen=True, eq=False)
class Part:
    """A named array inside a Fixed: ``scale * array``, moved as ``probe`` shows.

    ``probe`` holds the flat index, in the array, of every element: any view, slice or permutation can be read off it.
    """

    name: str
    scale: float
    probe: torch.Tensor


@dataclass(frozen=True, eq=False)
class Fixed:
    """A known tensor. It is the sum of ``parts``; without parts it is an anonymous constant."""

    tensor: torch.Tensor
    parts: tuple[Part, ...] = ()
    learned: bool = False

    def number(self) -> float | None:
        """The one number that this constant repeats, or None."""
        if self.learned or self.tensor.numel() == 0 or not bool((self.tensor == self.tensor.flatten()[0]).all()):
            return None
        return float(self.tensor.flatten()[0])


@dataclass(frozen=True)
class Space:
    """What a vector ranges over; ``affine`` defines z for rows."""

    kind: str  # "q", "u", "target" or "rows"
    length: int
    affine: Affine | None = None

    @property
    def variable(self) -> str:
        return "z" if self.kind == "rows" else self.kind

    def __str__(self) -> str:
        return self.kind if self.affine is None else " + ".join(map(_text, self.affine.terms))


def _text(term: Term) -> str:
    scale = "" if term.scale == 1 else f"{term.scale:g} "
    source = "" if term.source == "one" else f" {term.source}"
    return scale + term.parameter + ("'" if term.transposed else "") + source


@dataclass(frozen=True)
class Piece:
    space: Space
    expr: Expr  # over the variable of the space, parameters of its length, and (in a cost) the target


@dataclass(frozen=True)
class Vector:
    """A sum of pieces of one length, along the one axis of ``shape`` that is not 1."""

    pieces: Sequence[Piece]
    shape: tuple[int, ...]

    @property
    def length(self) -> int:
        return self.pieces[0].space.length

    @property
    def axis(self) -> int:
        return next((i for i, size in enumerate(self.shape) if size != 1), len(self.shape) - 1)


@dataclass(frozen=True)
class Scalar:
    pieces: Sequence[Piece]
    constant: float = 0.0
    shape: tuple[int, ...] = ()


@dataclass(frozen=True)
class Root:
    inside: Scalar
    order: float


@dataclass(frozen=True)
class Product:
    matrix: Fixed  # (rows, length of the vector)
    vector: Vector
    shape: tuple[int, ...]
    axis: int  # the axis of ``shape`` along the vector


Value = Fixed | Vector | Scalar | Root | Product


class Store:
    """Float64 arrays by name: those of the model, and constants that arise while reading its methods."""

    def __init__(self, values: dict[str, np.ndarray], learned: Iterable[str]):
        self.values = dict(values)
        self.learned = frozenset(learned)

    def constant(self, array: np.ndarray) -> str:
        """The name of a frozen constant; equal constants share one name."""
        array = np.asarray(array, np.float64)
        for name, value in self.values.items():
            if name not in self.learned and value.shape == array.shape and np.array_equal(value, array):
                return name
        name = f"constant{len(self.values)}"
        while name in self.values:
            name += "_"
        self.values[name] = array
        return name

    def anonymous(self, tensor: torch.Tensor) -> Part:
        """A frozen tensor as a part, under the name of an equal constant or a new one."""
        probe = torch.arange(tensor.numel()).reshape(tensor.shape)
        return Part(self.constant(tensor.numpy()), 1.0, probe)

    def whole(self, part: Part) -> bool:
        """Whether ``part`` is its array as a vector or scalar: nothing sliced, moved or flattened."""
        array = self.values[part.name]
        return array.ndim <= 1 and bool((part.probe.flatten() == torch.arange(array.size)).all())

    def expression(self, fixed: Fixed) -> Expr | None:
        """``fixed`` as an element-wise expression: a number where possible, else a sum of named vectors or scalars.

        None for a learned array that is not used as the vector it is.
        """
        number = fixed.number()
        if number is not None:
            return const(number)
        if not fixed.learned:
            return param(self.constant(fixed.tensor.flatten().numpy()))
        total = const(0)
        for part in fixed.parts:
            if not self.whole(part):
                return None
            array = self.values[part.name]
            plain = part.name not in self.learned and bool((array == array.flat[0]).all())
            total = add(total, mul(part.scale, float(array.flat[0]) if plain else param(part.name)))
        return total

    def linear(self, piece: Piece) -> tuple[np.ndarray, Expr] | None:
        """``(s, r)`` with ``piece = s * variable + r``, s known numbers and r free of the variable; else None."""
        name = piece.space.variable
        slope = derivative(piece.expr, name)
        free = names(slope)
        if name in free or "target" in free or free & self.learned:
            return None
        return evaluate(slope, self.values), substitute(piece.expr, {name: const(0)})

    def affine(self, piece: Piece) -> Piece | None:
        """``piece`` as one over rows, affine in z, or None; q and u enter through an identity or diagonal matrix."""
        split = self.linear(piece)
        if split is None or piece.space.kind == "target":
            return None
        slope, rest = split
        if piece.space.kind == "rows":
            return piece if slope.ndim == 0 else None
        bias = self.biases(rest, piece.space.length)
        if bias is None:
            return None
        terms, rest = bias
        matrix = self.constant(np.diag(np.broadcast_to(slope, piece.space.length)))
        scale, space = rows(piece.space.length, (Term(matrix, piece.space.kind), *terms))
        return Piece(space, add(mul(scale, var("z")), rest))

    def biases(self, rest: Expr, length: int) -> tuple[tuple[Term, ...], Expr] | None:
        """``rest`` as a sum of scaled bias vectors and an expression of target alone; None when it is not that."""
        terms = []
        for name in sorted(names(rest) - {"target"}):
            slope = derivative(rest, name)
            if slope.op != "const" or self.values[name].shape != (length,):
                return None
            terms.append(Term(name, "one", scale=slope.value))
        return tuple(terms), substitute(rest, {t.parameter: const(0) for t in terms})


def rows(length: int, terms: Iterable[Term]) -> tuple[float, Space]:
    """``(s, space)`` with ``sum(terms) = s * z``: equal sums, however spelled and scaled, give equal spaces."""
    merged: dict[tuple[str, str, bool], float] = {}
    for t in terms:
        key = (t.source, t.parameter, t.transposed)
        merged[key] = merged.get(key, 0.0) + t.scale
    order = {"q": 0, "u": 1, "one": 2}
    keys = sorted((k for k, s in merged.items() if s != 0), key=lambda k: (order[k[0]], k))
    scale = merged[keys[0]] if keys else 1.0
    unit = tuple(Term(p, source, flip, merged[source, p, flip] / scale) for source, p, flip in keys)
    return scale, Space("rows", length, Affine(length, unit))


def settle(store: Store, pieces: Iterable[Piece], single: bool = False) -> list[Piece]:
    """The same sum in fewer pieces: one per space, and one for everything affine over rows and u.

    With ``single``, pieces affine in q and pieces over the target join too; what still differs is for the caller
    to refuse.
    """
    merged: dict[Space, Expr] = {}
    for piece in pieces:
        merged[piece.space] = add(merged.get(piece.space, const(0)), piece.expr)
    every = [Piece(space, expr) for space, expr in merged.items()]
    kept = [p for p in every if p.expr != const(0)] or every[:1]
    joining = ("rows", "u", "q") if single else ("rows", "u")
    affine = [store.affine(p) if p.space.kind in joining else None for p in kept]
    found = [a for a in affine if a is not None]
    if len(found) > 1:
        kept = [_sum(found), *(p for p, a in zip(kept, affine, strict=True) if a is None)]
    return _absorb_target(kept) if single else kept


def _absorb_target(pieces: list[Piece]) -> list[Piece]:
    """Adds the piece over the target to another one: an expression may mix its space with the target."""
    others = [p for p in pieces if p.space.kind != "target"]
    if not others:
        return pieces
    total = others[0].expr
    for p in pieces:
        total = add(total, p.expr) if p.space.kind == "target" else total
    return [replace(others[0], expr=total), *others[1:]]


def _sum(pieces: list[Piece]) -> Piece:
    """Affine pieces over rows as one."""
    terms: list[Term] = []
    rest = const(0)
    for piece in pieces:
        assert piece.space.affine is not None
        slope = derivative(piece.expr, "z")
        terms += [replace(t, scale=t.scale * slope.value) for t in piece.space.affine.terms]
        rest = add(rest, substitute(piece.expr, {"z": const(0)}))
    scale, space = rows(pieces[0].space.length, terms)
    return Piece(space, add(mul(scale, var("z")), rest))
