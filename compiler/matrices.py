"""Matrix products: parameters times vectors are nodes, whatever their spelling; other products are expanded."""

import torch

from echolith.compiler.graph import Affine, Dense, Index, Term
from echolith.compiler.moves import join, reindex
from echolith.compiler.ops import mul
from echolith.compiler.site import Argument, Site
from echolith.compiler.values import Array, Fixed, Part

__all__ = ["dot", "linear", "matmul"]


def matmul(site: Site, a: Fixed | Array, b: Fixed | Array) -> Array:
    """``mm``, ``mv``, ``bmm`` and ``dot`` of values, at least one of which depends on vectors."""
    if len(a.shape) == 1:
        return dot(site, a, b)
    if len(b.shape) == 1:
        b = reindex(site.store, b, lambda t: t[:, None])
    if len(a.shape) == 2:
        return Array(site.shape, _product(site, a, b).expr)
    parts = [
        _product(site, reindex(site.store, a, lambda t, i=i: t[i]), reindex(site.store, b, lambda t, i=i: t[i]))
        for i in range(a.shape[0])
    ]
    return Array(site.shape, join(site.store, parts, 0).expr)


def _product(site: Site, a: Fixed | Array, b: Fixed | Array) -> Array:
    """(I, K) times (K, J), of shape (I, J)."""
    store, (rows, inner), columns = site.store, a.shape, b.shape[1]
    if rows == columns == 1 and not (isinstance(a, Fixed) and _matrix(a)) and not (isinstance(b, Fixed) and _matrix(b)):
        return dot(site, a, b, (1, 1))
    if inner == 1 and rows > 1 and (columns > 1 or isinstance(a, Array)):  # nothing to sum
        return _expanded(site, a, b, (rows, columns, inner))
    if isinstance(a, Fixed) and isinstance(b, Array):
        found = [linear(site, a, reindex(store, b, lambda t, j=j: t[:, j])) for j in range(columns)]
        return join(store, found, 1)
    if isinstance(b, Fixed) and isinstance(a, Array):
        turned = reindex(store, b, lambda t: t.mT)
        return join(store, [linear(site, turned, reindex(store, a, lambda t, i=i: t[i])) for i in range(rows)], 0)
    if isinstance(a, Fixed) and isinstance(b, Fixed):
        raise site.of_parameters(sorted({p.name for v in (a, b) if v.learned for p in v.parts}),
                                 "apply one matrix after the other, A @ (B @ q), ")
    return _expanded(site, a, b, (rows, columns, inner))


def _matrix(value: Fixed) -> bool:
    """Whether ``value`` is stored with two axes."""
    return any(p.probe.ndim == 2 for p in value.parts) and value.tensor.ndim == 2


def _expanded(site: Site, a: Fixed | Array, b: Fixed | Array, shape: tuple[int, int, int]) -> Array:
    """All products, then their sums."""
    site.bounded(shape)
    left = site.store.expression(reindex(site.store, a, lambda t: t[:, None, :]), shape)
    right = site.store.expression(reindex(site.store, b, lambda t: t.mT[None]), shape)
    return _row_sums(site, Array(shape, mul(left, right)))


def _row_sums(site: Site, x: Array) -> Array:
    """Sums along the last axis."""
    *kept, inner = x.shape
    if inner == 1 or site.store.width(x.expr) == 1:
        return Array(tuple(kept), mul(inner, x.expr))
    if x.size == inner:
        return Array(tuple(kept), site.reduce("sum", x.expr, x.size))
    if not site.store.nodes.given(x.expr):
        raise site.of_parameters(x.expr)
    columns = torch.arange(x.size).reshape(-1, inner).T
    terms = tuple(Term(Index(tuple(c.tolist())), x.expr) for c in columns)
    return Array(tuple(kept), site.store.nodes.add(Affine(columns.shape[1], terms)))


def dot(site: Site, a: Argument, b: Argument, shape: tuple[int, ...] = ()) -> Array:
    for row, vector in ((a, b), (b, a)):
        if isinstance(row, Fixed) and isinstance(vector, Array) and _row(site, row):
            turned = reindex(site.store, row, lambda t: t.reshape(1, -1))
            return Array(shape, linear(site, turned, Array((vector.size,), vector.expr)).expr)
    x, y = site.array(a), site.array(b)
    return Array(shape, _row_sums(site, Array((1, x.size), mul(x.expr, y.expr))).expr)


def _row(site: Site, value: Fixed) -> bool:
    """Whether ``value`` is a row or a column of a learned matrix, or of several axes."""
    return value.learned and value.expr is None and all(
        site.store.values[p.name].ndim > 1 and not site.store.in_place(p) for p in value.parts)


def linear(site: Site, matrix: Fixed, vector: Array) -> Array:
    """``matrix @ vector``, (rows,) from (rows, columns) and (columns,)."""
    rows, columns = matrix.shape
    if matrix.learned and any(_dense(site, p) is None and not site.store.in_place(p) for p in matrix.parts):
        matrix = site.store.derived_from(matrix)
    parts = [(_dense(site, part), part.scale) for part in matrix.parts]
    if matrix.learned and any(dense is None for dense, _ in parts):
        if rows == 1:
            return dot(site, matrix, vector, (1,))
        found = _expanded(site, matrix, reindex(site.store, vector, lambda t: t[:, None]), (rows, 1, columns))
        return Array((rows,), found.expr)
    if not parts or any(dense is None for dense, _ in parts):
        parts = [(Dense(site.store.constant(matrix.tensor.to(torch.float64).numpy())), 1.0)]
    terms = tuple(Term(dense, vector.expr, scale) for dense, scale in parts if dense is not None)
    return Array((rows,), site.store.nodes.add(Affine(rows, terms)))


def _dense(site: Site, part: Part) -> Dense | None:
    """A part of two axes as a block of its parameter, or None if it is something else."""
    stored = site.store.values[part.name].shape
    if len(stored) != 2 or part.probe.ndim != 2:
        return None
    for transposed, probe in ((False, part.probe), (True, part.probe.mT)):
        row, column = divmod(int(probe[0, 0]), stored[1])
        rows, columns = (row, row + probe.shape[0]), (column, column + probe.shape[1])
        if rows[1] > stored[0] or columns[1] > stored[1]:
            continue
        block = torch.arange(stored[0] * stored[1]).reshape(stored)[slice(*rows), slice(*columns)]
        if torch.equal(probe, block):
            whole = rows == (0, stored[0]), columns == (0, stored[1])
            return Dense(part.name, transposed, None if whole[0] else rows, None if whole[1] else columns)
    return None
