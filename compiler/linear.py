"""Operators that are linear in their elements, by fixed numbers: running sums, pools, interpolations, scatters.

Whatever the operator, it is run on every element alone: that is its matrix. Few different numbers in it make moves.
"""

from collections.abc import Callable, Mapping, Sequence
from math import prod
from typing import Any

import torch

from echolith.compiler.gathers import rounds
from echolith.compiler.graph import Affine, Dense, Index, Term
from echolith.compiler.ir import Expr, const
from echolith.compiler.ops import add
from echolith.compiler.site import Site
from echolith.compiler.values import Array, Fixed

__all__ = ["LINEAR", "linear_operator", "matrix", "run"]

LINEAR = frozenset(
    ("cumsum", "avg_pool1d", "avg_pool2d", "avg_pool3d", "_adaptive_avg_pool2d", "upsample_linear1d",
     "upsample_bilinear2d", "upsample_nearest1d", "upsample_nearest2d", "index_add", "scatter_add", "scatter",
     "index_put", "index_copy", "col2im", "im2col", "pixel_shuffle", "pixel_unshuffle", "channel_shuffle",
     "native_channel_shuffle", "copy")
)  # fmt: skip

_NUMBERS = 4  # different ones in a matrix of moves


def linear_operator(site: Site, operator: Callable[..., torch.Tensor], args: Sequence[Any],
                    options: Mapping[str, Any]) -> Array:  # fmt: skip
    """The result of ``operator`` on the values of its arguments: what it makes of zeros, and of each array alone."""
    args = [site.array(v) if isinstance(v, Fixed) and v.learned else v for v in args]
    arrays = [v for v in args if isinstance(v, Array)]
    base = run(operator, args, options, {})
    total = site.store.expression(Fixed(base), tuple(base.shape))
    for array in arrays:
        site.bounded((base.numel(), array.size))
        total = add(total, _applied(site, matrix(operator, args, options, array, base), array))
    return Array(site.shape, total)


def run(operator: Callable[..., torch.Tensor], args: Sequence[Any], options: Mapping[str, Any],
        given: Mapping[int, torch.Tensor]) -> torch.Tensor:  # fmt: skip
    """``operator`` with ``given`` values, by identity of the argument; other arrays and learned tensors are zeros."""

    def pick(value: Any) -> Any:
        if isinstance(value, list):
            return [pick(v) for v in value]
        if id(value) in given:
            return given[id(value)]
        if isinstance(value, Array) or isinstance(value, Fixed) and value.learned:
            return torch.zeros(value.shape, dtype=torch.float64)
        return value.tensor.clone() if isinstance(value, Fixed) else value

    return operator(*map(pick, args), **{name: pick(v) for name, v in options.items()})


def matrix(operator: Callable[..., torch.Tensor], args: Sequence[Any], options: Mapping[str, Any],
           moving: Array | Fixed, base: torch.Tensor) -> torch.Tensor:  # fmt: skip
    """(elements of the result, elements of the argument ``moving``); ``base`` is the result of zeros."""
    size = prod(moving.shape)
    unit = torch.eye(size, dtype=torch.float64).reshape(size, *moving.shape)
    return torch.stack([(run(operator, args, options, {id(moving): row}) - base).flatten() for row in unit], 1)


def _applied(site: Site, matrix: torch.Tensor, array: Array) -> Expr:
    """A frozen matrix times the elements of an array: moves with their factors where its numbers are few."""
    if site.store.width(array.expr) == 1:
        matrix = matrix.sum(1, keepdim=True)
    numbers = sorted(set(matrix[matrix != 0].tolist()))
    if len(numbers) > _NUMBERS:
        terms = (Term(Dense(site.store.constant(matrix.numpy())), array.expr),)
    else:
        terms = tuple(Term(Index(of), array.expr, number) for number in numbers
                      for of in rounds(map(tuple, (matrix == number).nonzero().tolist()), len(matrix)))
    return site.store.nodes.add(Affine(len(matrix), terms)) if terms else const(0)
