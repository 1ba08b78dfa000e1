"""Matrix-vector products: rows z = W q + B u, from every spelling PyTorch has for them."""

from dataclasses import replace

import torch

from echolith.compiler.differentiate import evaluate
from echolith.compiler.elementwise import map_vectors
from echolith.compiler.ir import Term, var
from echolith.compiler.ops import mul
from echolith.compiler.site import FORM, Argument, Site, moved, outer, single
from echolith.compiler.values import Fixed, Part, Piece, Product, Scalar, Value, Vector, rows

__all__ = ["dot", "linear", "matmul", "product"]


def product(site: Site, a: Argument, b: Argument) -> Product | None:
    """``matrix * vector`` broadcast, or None when it is something else."""
    fixed, vector = (a, b) if isinstance(a, Fixed) else (b, a)
    if not isinstance(fixed, Fixed) or not isinstance(vector, Vector) or len(site.shape) != 2:
        return None
    if fixed.tensor.numel() <= vector.length or tuple(fixed.tensor.shape) != site.shape:
        return None
    axis = vector.axis - len(vector.shape) + 2
    matrix = fixed if axis == 1 else _transposed(fixed)
    return Product(matrix, vector, site.shape, axis)


def _transposed(fixed: Fixed) -> Fixed:
    parts = tuple(replace(p, probe=p.probe.mT) for p in fixed.parts)
    return replace(fixed, tensor=fixed.tensor.mT, parts=parts)


def matmul(site: Site, a: Value, b: Value) -> Value:
    if isinstance(a, Fixed) and isinstance(b, Vector):
        return linear(site, a, b)
    if isinstance(a, Vector) and isinstance(b, Fixed):
        return linear(site, _transposed(b), a)
    if isinstance(a, Vector) and isinstance(b, Vector):
        return dot(site, a, b)
    raise outer(site) if isinstance(a, Product) or isinstance(b, Product) else site.of_sum()


def dot(site: Site, a: Value, b: Value) -> Value:
    length = next(v.length for v in (a, b) if isinstance(v, Vector))
    if not all(isinstance(v, Vector | Fixed) for v in (a, b)):
        raise site.of_sum()
    if any(size != 1 for size in site.shape):
        raise outer(site)
    product = map_vectors(replace(site, shape=(length,)), mul, a, b)
    return Scalar(product.pieces, shape=site.shape)


def linear(site: Site, matrix: Fixed, vector: Vector) -> Value:
    """``matrix @ vector`` as rows z = W q or B u."""
    two = [size for size in matrix.tensor.shape[:-2] if size != 1]
    if two or matrix.tensor.ndim < 2:
        raise outer(site)
    shape = (int(matrix.tensor.shape[-2]), int(matrix.tensor.shape[-1]))
    flat = Fixed(
        matrix.tensor.reshape(shape),
        tuple(replace(p, probe=p.probe.reshape(shape)) for p in matrix.parts if p.probe.numel() == shape[0] * shape[1]),
        matrix.learned,
    )
    if matrix.learned and shape[0] == 1 and any(site.store.values[p.name].ndim < 2 for p in matrix.parts):
        return dot(site, matrix, vector)
    source, scale, bias = _source(site, flat, vector)
    if bias is not None or isinstance(scale, torch.Tensor):
        if matrix.learned:
            raise site.refuse(
                "a trained matrix is applied to a scaled or shifted vector",
                "fold the scale and shift into the matrix and a bias", site.operator,
            )  # fmt: skip
        flat = Fixed(flat.tensor * scale)
        scale = 1.0
    parts = flat.parts if flat.parts else (site.store.anonymous(flat.tensor),)
    terms = [_term(site, flat, p, source, float(scale)) for p in parts]
    if bias is not None:
        terms.append(Term(site.store.constant(bias.numpy()), "one"))
    factor, space = rows(shape[0], terms)
    return Vector((Piece(space, mul(factor, var("z"))),), site.shape)


def _term(site: Site, matrix: Fixed, part: Part, source: str, scale: float) -> Term:
    array = site.store.values[part.name]
    if array.ndim == 2:
        order = torch.arange(array.size).reshape(array.shape)
        for transposed, expected in ((False, order), (True, order.T)):
            if part.probe.shape == expected.shape and torch.equal(part.probe, expected):
                return Term(part.name, source, transposed, part.scale * scale)
    if matrix.learned:
        raise moved(site, matrix)
    return _term(site, matrix, site.store.anonymous(matrix.tensor.contiguous()), source, scale)


def _source(
    site: Site, matrix: Fixed, vector: Vector
) -> tuple[str, float | torch.Tensor, torch.Tensor | None]:
    """``(source, s, d)`` with ``matrix @ vector = matrix @ (s * source) + d``."""
    piece = single(site, vector)
    split = site.store.linear(piece) if piece.space.kind in ("q", "u") else None
    if split is None:
        what = "a matrix is applied to a function of the states (a deep energy)"
        if site.store.affine(piece) is not None:
            what = "two matrices in a row"
        if piece.space.kind in ("u", "target"):
            what = f"a matrix is applied to a function of {piece.space.kind}"
        raise site.refuse(what, FORM, f"{site.operator} on {piece.expr} with {piece.space.variable} = {piece.space}")
    slope, rest = split
    bias = None
    if not (rest.op == "const" and rest.value == 0):
        known = Fixed(matrix.tensor, learned=matrix.learned)
        if site.store.learned & rest.variables():
            known = replace(known, learned=True)
        if known.learned:
            raise site.refuse(
                "a matrix is applied to a shifted vector", "add the shift as a bias after the matrix", rest
            )
        offset = torch.as_tensor(evaluate(rest, site.store.values)).expand(piece.space.length)
        bias = matrix.tensor @ offset
    return piece.space.kind, float(slope) if slope.ndim == 0 else torch.as_tensor(slope), bias
