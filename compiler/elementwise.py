"""Element-wise operators on vectors: one expression over one space, or a formal sum over several."""

from collections.abc import Callable
from dataclasses import replace

from echolith.compiler.ir import Expr, const, var
from echolith.compiler.ops import add, mul
from echolith.compiler.site import (
    Argument,
    Site,
    check_shape,
    moved,
    number,
    operand,
    scaled_pieces,
    single,
    spaces_differ,
)  # fmt: skip
from echolith.compiler.values import Fixed, Piece, Vector, rows, settle

__all__ = ["add_vectors", "map_vectors", "scaled"]


def map_vectors(site: Site, function: Callable[..., Expr], *args: Argument, **kwargs: float) -> Vector:
    """``function`` of vectors over one space, numbers, and constants of that space."""
    singles = [single(site, a) if isinstance(a, Vector) else None for a in args]
    spaces = list(dict.fromkeys(p.space for p in singles if p is not None))
    spaces = [s for s in spaces if s.kind != "target"] or spaces
    if len(spaces) != 1:
        raise spaces_differ(site, spaces)
    check_shape(site, spaces[0].length)
    plain = [
        p.expr if p else operand(site, spaces[0], a) if isinstance(a, Fixed) else a
        for p, a in zip(singles, args, strict=True)
    ]
    try:
        expr = function(*plain, **kwargs)
    except TypeError:
        raise site.refuse(
            f"this variant of `{site.operator}` is not supported", "use its plain form", sorted(kwargs) or len(args)
        ) from None
    return Vector((Piece(spaces[0], expr),), site.shape)


def scaled(site: Site, a: Argument, b: Argument = -1) -> Vector | None:
    """A vector times or over a number; None for everything that needs one space."""
    factor = number(site, b)
    if site.operator == "div" and factor is not None and factor.op == "const" and factor.value != 0:
        factor = const(1 / factor.value)
    elif site.operator == "div":
        return None
    elif not isinstance(a, Vector):
        a, factor = b, number(site, a)
    if not isinstance(a, Vector) or factor is None:
        return None
    check_shape(site, a.length)
    return Vector(scaled_pieces(site, a.pieces, factor), site.shape)


def add_vectors(site: Site, a: Argument, b: Argument, alpha: float = 1) -> Vector:
    """A formal sum of pieces: they need one space only if something nonlinear is applied to the sum."""
    ka, kb = (1, alpha) if site.operator == "add" else (1, -alpha) if site.operator == "sub" else (-alpha, 1)
    vectors = [(v, k) for v, k in ((a, ka), (b, kb)) if isinstance(v, Vector)]
    lengths = {v.length for v, _ in vectors}
    if len(lengths) > 1:
        raise spaces_differ(site, [p.space for v, _ in vectors for p in v.pieces])
    check_shape(site, vectors[0][0].length)
    pieces = [p for v, k in vectors for p in scaled_pieces(site, v.pieces, const(k))]
    for value, k in ((a, ka), (b, kb)):
        if not isinstance(value, Vector):
            pieces.append(_shift(site, vectors[0][0], value, k))
    return Vector(settle(site.store, pieces), site.shape)


def _shift(site: Site, vector: Vector, value: Argument, factor: float) -> Piece:
    """A constant added to ``vector``: a number, a vector parameter of the units, or a bias of rows."""
    first = vector.pieces[0].space
    plain = number(site, value)
    if plain is not None and (plain.op == "const" or first.kind == "q"):
        return Piece(first, mul(factor, plain))
    assert isinstance(value, Fixed)
    if len(vector.pieces) == 1 and first.kind == "q" and site.method == "energy":
        return Piece(first, mul(factor, operand(site, first, value)))
    expr = site.store.expression(value)
    bias = site.store.biases(expr, first.length) if expr is not None else None
    if bias is None and expr is not None:
        shape = tuple(site.store.values[value.parts[0].name].shape)
        remedy = f"declare it with shape {(first.length,)}"
        raise site.refuse(f"{expr} is broadcast over rows", remedy, f"shape {shape}")
    if bias is None:
        raise moved(site, value)
    scale, space = rows(first.length, [replace(t, scale=t.scale * factor) for t in bias[0]])
    return Piece(space, add(mul(scale, var("z")), mul(factor, bias[1])))
