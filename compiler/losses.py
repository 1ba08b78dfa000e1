"""Losses with their weights and reductions, and the few operators that take a class number."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch

from echolith.compiler.elementwise import map_elements
from echolith.compiler.ir import Expr, const, var
from echolith.compiler.ops import add, apply, intern, mul, neg, power, sub
from echolith.compiler.site import Argument, Site
from echolith.compiler.spellings import LOSSES
from echolith.compiler.sums import mean, total
from echolith.compiler.values import Array, Classes, Fixed

__all__ = ["CLASS_RULES", "loss"]

_MEAN, _SUM = 1, 2


def loss(site: Site, x: Argument, target: Argument, weight: Argument = None, pos_weight: Argument = None,
         reduction: int = _MEAN, **options: float) -> Array:  # fmt: skip
    """An element-wise loss: weighted, then summed or averaged."""
    shape = torch.broadcast_shapes(*(v.shape for v in (x, target) if isinstance(v, Fixed | Array)))
    inside = replace(site, shape=tuple(shape))
    function = LOSSES[site.operator]
    if pos_weight is not None:
        values = map_elements(inside, _weighted_logits, x, target, pos_weight)
    else:
        values = map_elements(inside, function, x, target, **options)
    if weight is not None:
        values = Array(inside.shape, mul(values.expr, inside.expression(weight)))
    return {_MEAN: mean, _SUM: total}.get(reduction, lambda site, v: v)(site, values)


def _weighted_logits(x: Expr, target: Expr, weight: Expr) -> Expr:
    slope = add(mul(sub(weight, 1), target), 1)
    return add(mul(sub(1, target), x), mul(slope, apply("softplus", neg(x))))


def _one_hot() -> Expr:
    return intern(var("target"))


def _scores(site: Site, x: Argument) -> Array:
    """Scores of all classes as a vector."""
    scores = site.array(x)
    if scores.size != site.store.nodes.lengths["target"]:
        raise site.refuse("the scores disagree with outputs", "compare the class with outputs scores", scores.shape)
    return scores


def _chosen(site: Site, expr: Expr, size: int) -> Expr:
    """The element of the target's class."""
    return site.reduce("sum", mul(_one_hot(), expr), size)


def _nll(site: Site, x: Argument, target: Argument, weight: Argument, reduction: int, ignore: int) -> Array:
    if 0 <= ignore < site.store.nodes.lengths["target"]:
        raise site.refuse("a class is ignored", "leave its samples out with mask=, as in fit(X, Y, mask=M)",
                          f"ignore_index={ignore}")
    scores = _scores(site, x)  # one sample: its weighted mean does not depend on the weight
    found = neg(_chosen(site, scores.expr, scores.size))
    if weight is not None and reduction != _MEAN:
        found = mul(found, _chosen(site, site.expression(weight, (scores.size,)), scores.size))  # pyright: ignore
    return Array(site.shape, found)


def _multi_margin(site: Site, x: Argument, target: Argument, p: float = 1, margin: float = 1,
                  weight: Argument = None, reduction: int = _MEAN) -> Array:  # fmt: skip
    scores = _scores(site, x)
    excess = apply("relu", add(sub(scores.expr, _chosen(site, scores.expr, scores.size)), margin))
    found = mul(sub(1, _one_hot()), excess if p == 1 else power(excess, p))
    summed = mul(1 / scores.size, site.reduce("sum", found, scores.size))
    if weight is not None:
        summed = mul(summed, _chosen(site, site.expression(weight, (scores.size,)), scores.size))  # pyright: ignore
    return Array(site.shape, summed)


def _gather(site: Site, x: Argument, *others: Any) -> Array:
    scores = _scores(site, x)
    return Array(site.shape, _chosen(site, scores.expr, scores.size))


def _eq(site: Site, a: Argument, b: Argument) -> Array:
    known = a if isinstance(a, Fixed) else b
    outputs = site.store.nodes.lengths["target"]
    if isinstance(known, int) and known < 0:  # an ignore_index that is no class
        return Array(site.shape, const(0))
    if not isinstance(known, Fixed) or known.tensor.flatten().tolist() != list(range(outputs)):
        raise site.refuse("a class number is compared", "compare it with torch.arange(outputs)", site.operator)
    return Array(site.shape, _one_hot())


def _ne(site: Site, a: Argument, b: Argument) -> Array:
    return Array(site.shape, sub(1, _eq(site, a, b).expr))


def _scatter(site: Site, x: Argument, dim: int, index: Argument, value: Argument) -> Array:
    """A row with a number or an element at the class."""
    row = site.expression(x)
    filled = site.expression(value, site.shape) if isinstance(value, int | float) else site.array(value).expr
    if torch.Size(site.shape).numel() != site.store.nodes.lengths["target"]:
        raise site.refuse("a one-hot vector disagrees with outputs", "use num_classes=outputs", f"shape {site.shape}")
    return Array(site.shape, add(mul(_one_hot(), sub(filled, row)), row))


def _same(site: Site, x: Argument, *_: Any, **__: Any) -> Classes:
    return Classes(site.shape)


CLASS_RULES: dict[str, Callable[..., Array | Classes]] = {  # operators of which one argument is a class number
    "nll_loss_forward": _nll, "nll_loss": _nll, "nll_loss_nd": _nll, "multi_margin_loss": _multi_margin,
    "gather": _gather, "index": _gather, "eq": _eq, "ne": _ne, "scatter": _scatter,
    **dict.fromkeys(("view", "_unsafe_view", "reshape", "unsqueeze", "squeeze", "expand", "clone", "alias", "_to_copy",
                     "contiguous", "lift_fresh_copy"), _same),
}  # fmt: skip
