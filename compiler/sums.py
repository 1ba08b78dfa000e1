"""Sums over units and what may be done with them: add, scale, and nothing that couples the units afterwards."""

from collections.abc import Sequence
from dataclasses import replace

from echolith.compiler.elementwise import map_vectors
from echolith.compiler.ir import Expr, const
from echolith.compiler.matrices import linear
from echolith.compiler.ops import apply, power
from echolith.compiler.site import FORM, Argument, Site, number, outer, scaled_pieces
from echolith.compiler.spellings import LOSSES
from echolith.compiler.values import Piece, Product, Root, Scalar, Value, Vector, settle

__all__ = ["loss", "mean", "norm", "root", "scalar", "total"]


def _as_scalar(value: Argument) -> Argument:
    """A vector of one element is its own sum."""
    return Scalar(value.pieces) if isinstance(value, Vector) and value.length == 1 else value


def scalar(site: Site, *args: Argument, alpha: float = 1) -> Value:
    values = [_as_scalar(a) for a in args]
    scalars = [v for v in values if isinstance(v, Scalar)]
    if any(isinstance(v, Vector) for v in values):
        raise site.refuse("a sum over units is combined with a vector", FORM, site.operator)
    if site.operator in ("add", "sub", "rsub"):
        return _add_scalars(site, values, alpha)
    if site.operator in ("mul", "div", "neg") and len(scalars) == 1:
        factor = number(site, values[1] if values[0] is scalars[0] else values[0]) if len(values) > 1 else const(-1)
        if site.operator == "div" and factor is not None:
            if values[0] is not scalars[0]:
                raise site.of_sum()
            factor = apply("div", 1, factor)
        if factor is not None:
            return _scaled_scalar(site, scalars[0], factor)
    if site.operator == "sqrt" or (site.operator == "pow" and values[1] == 0.5):
        assert isinstance(values[0], Scalar)
        return Root(values[0], 2.0)
    if site.operator == "pow" and values[1] == 1:
        return scalars[0]
    raise site.of_sum()


def _scaled_scalar(site: Site, scalar: Scalar, factor: Expr) -> Scalar:
    if factor.op != "const" and scalar.constant != 0:
        raise site.refuse("a term of parameters alone", "remove it: it moves no state", factor)
    value = factor.value if factor.op == "const" else 1.0
    return Scalar(scaled_pieces(site, scalar.pieces, factor), scalar.constant * value, site.shape)


def _add_scalars(site: Site, values: Sequence[Argument], alpha: float) -> Scalar:
    factors = {"add": (1, alpha), "sub": (1, -alpha), "rsub": (-alpha, 1)}[site.operator]
    pieces: list[Piece] = []
    constant = 0.0
    for value, factor in zip(values, factors, strict=True):
        if isinstance(value, Scalar):
            pieces += scaled_pieces(site, value.pieces, const(factor))
            constant += factor * value.constant
            continue
        plain = number(site, value)
        if plain is None or plain.op != "const":
            raise site.refuse("a term of parameters alone", "remove it: it moves no state", plain or "a vector")
        constant += factor * plain.value
    return Scalar(settle(site.store, pieces), constant, site.shape)


def root(site: Site, *args: Argument) -> Scalar:
    root = args[0]
    if isinstance(root, Root) and len(args) == 2:
        if site.operator == "pow" and args[1] == root.order:
            return replace(root.inside, shape=site.shape)
        if site.operator == "mul" and args[1] == root and root.order == 2:
            return replace(root.inside, shape=site.shape)
    raise site.of_sum("raise the norm to its own power, e.g. norm(q)**2")


def total(site: Site, x: Value, dim: object = None, keepdim: bool = False, dtype: object = None) -> Value:
    if isinstance(x, Product):
        dims = [d % len(x.shape) for d in dim] if isinstance(dim, list | tuple) and dim else [0, 1]
        vector = linear(site, x.matrix, x.vector) if x.axis in dims else None
        if not isinstance(vector, Vector):
            raise outer(site)
        return vector if len(dims) == 1 else Scalar(settle(site.store, vector.pieces), shape=site.shape)
    if isinstance(x, Scalar):
        return replace(x, shape=site.shape)
    if not isinstance(x, Vector):
        raise site.of_sum()
    dims = [d % max(1, len(x.shape)) for d in dim] if isinstance(dim, list | tuple) and dim else None
    if x.length > 1 and (dims is None or x.axis in dims):
        return Scalar(settle(site.store, x.pieces), shape=site.shape)
    return replace(x, shape=site.shape)


def mean(site: Site, x: Value, dim: object = None, keepdim: bool = False, dtype: object = None) -> Value:
    summed = total(site, x, dim)
    if isinstance(x, Vector) and isinstance(summed, Scalar):
        return replace(summed, pieces=scaled_pieces(site, summed.pieces, const(1 / x.length)))
    if isinstance(x, Product):
        raise site.refuse("the mean of matrix * vector", "use sum, or W @ q", site.operator)
    return summed


def norm(site: Site, x: Value, order: float = 2, dim: object = None, *_: object, **__: object) -> Value:
    order = 2 if order is None else order
    if not isinstance(x, Vector) or order <= 0 or order == float("inf"):
        raise site.of_sum("raise the norm to its own power, e.g. norm(q)**2")
    even = float(order) % 2 == 0
    powers = map_vectors(replace(site, shape=x.shape), lambda e: power(e if even else apply("abs", e), order), x)
    return Root(Scalar(powers.pieces, shape=site.shape), float(order))


def loss(site: Site, x: Value, target: Value, *args: Argument, reduction: int = 1, **kwargs: float) -> Value:
    """A loss of two vectors with its reduction: 0 none, 1 mean, 2 sum."""
    length = next(v.length for v in (x, target) if isinstance(v, Vector))
    values = map_vectors(replace(site, shape=(length,)), LOSSES[site.operator], x, target, *args, **kwargs)
    if reduction == 0:
        return replace(values, shape=site.shape)
    return mean(site, values) if reduction == 1 else total(site, values)
