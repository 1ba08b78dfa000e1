"""Operators that only move elements: views, slices, rolls, gathers, concatenations, padding.

Whatever the operator, it is run on the elements' numbers: where each one lands says which element it was.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch

from echolith.compiler.ir import Expr
from echolith.compiler.site import Site
from echolith.compiler.values import Array, Classes, Fixed, Store

__all__ = ["FILLING", "MOVES", "join", "move", "reindex"]

MOVES = frozenset(
    ("view", "_unsafe_view", "reshape", "unsqueeze", "squeeze", "t", "transpose", "permute", "expand", "clone", "alias",
     "contiguous", "lift_fresh_copy", "select", "slice", "flip", "roll", "index", "index_select", "diagonal", "gather",
     "take", "cat", "stack", "split", "split_with_sizes", "chunk", "unbind", "unfold", "repeat", "tril", "triu",
     "constant_pad_nd", "movedim", "swapaxes", "narrow", "rot90", "view_as", "expand_as", "unsafe_split",
     "unsafe_chunk", "_reshape_alias", "as_strided", "diag_embed", "reflection_pad1d", "replication_pad1d",
     "reflection_pad2d", "replication_pad2d", "masked_select", "select_scatter", "slice_scatter",
     "diagonal_copy")
)  # fmt: skip

FILLING = frozenset(("tril", "triu", "constant_pad_nd", "diag_embed"))  # those that also put zeros

_PICKING = frozenset(("index", "index_select", "gather", "take", "masked_select"))


def move(site: Site, operator: Callable[..., Any], args: Sequence[Any], options: Mapping[str, Any]) -> Any:
    """The result of a moving operator, one Array or a list of them, from the values of its arguments."""
    sources: list[tuple[Expr, int]] = []
    start = 0

    def probe(value: Any) -> Any:
        nonlocal start
        if isinstance(value, Classes):
            raise site.refuse("a class number is used as an index", "use cross_entropy or gather", site.operator)
        if isinstance(value, Fixed) and not value.tensor.is_floating_point():
            return value.tensor.clone()
        if not isinstance(value, Fixed | Array):
            return value
        array = site.array(value)
        sources.append((array.expr, array.size))
        numbers = torch.arange(start + 1, start + 1 + array.size).reshape(array.shape)
        start += array.size
        return numbers

    if site.operator in _PICKING and any(isinstance(v, Array) for v in _flat(args[1:])):
        raise site.refuse("elements are picked by values of states or inputs",
                          "use torch.where(q > 0, q, 0) or fixed numbers", site.operator)  # fmt: skip
    args, options = _each(args, probe), {k: _each(v, probe) for k, v in options.items()}
    result = operator(*args, **options)
    return _each(result, lambda t: Array(tuple(t.shape), site.store.moved(sources, t - 1)))


def _each(value: Any, function: Callable[[Any], Any]) -> Any:
    """``function`` of everything in nested lists and tuples, in order."""
    if isinstance(value, list | tuple):
        return [_each(v, function) for v in value]
    return function(value)


def _flat(value: Any) -> list[Any]:
    return [x for v in value for x in _flat(v)] if isinstance(value, list | tuple) else [value]


def reindex(store: Store, value: Fixed | Array, function: Callable[[torch.Tensor], torch.Tensor]) -> Any:
    """A value whose elements are moved as ``function`` moves those of a tensor."""
    if isinstance(value, Fixed):
        parts = tuple(replace(p, probe=function(p.probe)) for p in value.parts)
        return replace(value, tensor=function(value.tensor), parts=parts)
    of = function(torch.arange(value.size).reshape(value.shape))
    return Array(tuple(of.shape), store.moved([(value.expr, value.size)], of))


def join(store: Store, arrays: Sequence[Array], dim: int) -> Array:
    """Arrays of one shape stacked along a new axis."""
    size = arrays[0].size
    of = torch.stack([torch.arange(size).reshape(a.shape) + i * size for i, a in enumerate(arrays)], dim)
    return Array(tuple(of.shape), store.moved([(a.expr, size) for a in arrays], of))
