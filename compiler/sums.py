"""Sums over elements and what is made of them: means, norms, variances, logsumexp, softmax."""

import math
from collections.abc import Sequence
from dataclasses import replace

import torch

from echolith.compiler.graph import Affine, Index, Term
from echolith.compiler.matrices import linear
from echolith.compiler.moves import join, reindex
from echolith.compiler.ops import apply, div, mul, power, sub
from echolith.compiler.site import Argument, Site
from echolith.compiler.values import Array

__all__ = ["log_softmax", "logsumexp", "mean", "norm", "softmax", "std", "total", "var"]


def _axes(x: Array, dim: object) -> list[int]:
    if isinstance(dim, int):
        dim = [dim]
    every = list(range(len(x.shape)))
    return sorted(d % len(x.shape) for d in dim) if isinstance(dim, list | tuple) and dim and every else every


def _rows(x: Array, axes: Sequence[int]) -> torch.Tensor:
    """Element numbers, (results, elements of each)."""
    numbers = torch.arange(x.size).reshape(x.shape)
    kept = [d for d in range(len(x.shape)) if d not in axes]
    count = math.prod(x.shape[d] for d in axes)
    return numbers.permute([*kept, *axes]).reshape(-1, count)


def total(site: Site, x: Argument, dim: object = None, keepdim: bool = False, dtype: object = None) -> Array:
    x = site.array(x)
    axes = _axes(x, dim)
    rows = _rows(x, axes)
    if x.product is not None and len(x.shape) == 2:
        return _matrix(site, x, axes)
    if len(rows) == 1:
        return Array(site.shape, site.reduce("sum", x.expr, x.size))
    if rows.shape[1] == 1 or site.store.width(x.expr) == 1:
        return Array(site.shape, mul(rows.shape[1], x.expr))
    site.bounded(x.shape)
    if not site.store.nodes.given(x.expr):
        raise site.of_parameters(x.expr)
    terms = tuple(Term(Index(tuple(column.tolist())), x.expr) for column in rows.T)
    return Array(site.shape, site.store.nodes.add(Affine(len(rows), terms)))


def _matrix(site: Site, x: Array, axes: Sequence[int]) -> Array:
    """The sum of matrix * vector: along the vector it is a matrix-vector product."""
    assert x.product is not None
    matrix, vector = x.product
    axis = len(x.shape) - 1 if len(vector.shape) == 1 or vector.shape[0] == 1 else 0
    if axis not in axes:
        return total(site, replace(x, product=None), axes)
    turned = matrix if axis == 1 else reindex(site.store, matrix, lambda t: t.mT)
    rows = linear(site, turned, Array((vector.size,), vector.expr))
    return Array(site.shape, rows.expr if len(axes) == 1 else site.reduce("sum", rows.expr, rows.size))


def mean(site: Site, x: Argument, dim: object = None, keepdim: bool = False, dtype: object = None) -> Array:
    x = site.array(x)
    summed = total(site, x, dim)
    return Array(site.shape, mul(_rows(x, _axes(x, dim)).shape[1] ** -1, summed.expr))


def var(site: Site, x: Argument, dim: object = None, *, correction: float | None = 1, keepdim: bool = False) -> Array:
    x, axes = site.array(x), _axes(site.array(x), dim)
    count = _rows(x, axes).shape[1]
    kept = tuple(1 if d in axes else n for d, n in enumerate(x.shape))
    centre = site.store.expression(mean(replace(site, shape=kept), x, dim), x.shape)
    squares = total(site, Array(x.shape, power(sub(x.expr, centre), 2)), dim)
    return Array(site.shape, div(squares.expr, count - (1 if correction is None else correction)))


def std(site: Site, *args: Argument, **kwargs: object) -> Array:
    found = var(site, *args, **kwargs)  # pyright: ignore[reportArgumentType]
    return replace(found, expr=apply("sqrt", found.expr))


def norm(site: Site, x: Argument, order: float | None = 2, dim: object = None, *_: object, **__: object) -> Array:
    order = 2 if order is None else order
    x = site.array(x)
    if order <= 0 or order == math.inf:
        raise site.refuse("a norm of this order", "use a positive number", order)
    even = float(order) % 2 == 0
    powers = Array(x.shape, power(x.expr if even else apply("abs", x.expr), order))
    summed = total(site, powers, dim).expr
    return Array(site.shape, apply("sqrt", summed) if order == 2 else power(summed, 1 / order))


def logsumexp(site: Site, x: Argument, dim: object = None, keepdim: bool = False) -> Array:
    x = site.array(x)
    rows = _rows(x, _axes(x, dim))
    if len(rows) == 1:
        return Array(site.shape, site.reduce("logsumexp", x.expr, x.size))
    site.bounded(x.shape)
    parts = [reindex(site.store, x, lambda t, row=row: t.flatten()[row]) for row in rows]
    joined = join(site.store, [Array((), site.reduce("logsumexp", p.expr, p.size)) for p in parts], 0)
    return Array(site.shape, joined.expr)


def log_softmax(site: Site, x: Argument, dim: int, *_: object) -> Array:
    x = site.array(x)
    kept = tuple(1 if d == dim % max(1, len(x.shape)) else n for d, n in enumerate(x.shape))
    level = logsumexp(replace(site, shape=kept), x, dim if x.shape else None)
    return Array(x.shape, sub(x.expr, site.store.expression(level, x.shape)))


def softmax(site: Site, x: Argument, dim: int, *_: object) -> Array:
    found = log_softmax(site, x, dim)
    return Array(found.shape, apply("exp", found.expr))

