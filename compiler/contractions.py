"""Sums, norms and matrix products of learned parameters alone: derived parameters that the host computes.

Whatever is made of them, softmax(W), W / W.norm(), is element-wise functions of such values.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from math import prod
from typing import Any

import torch

from echolith.compiler.functions import combination, function
from echolith.compiler.linear import LINEAR, matrix, run
from echolith.compiler.moves import reindex
from echolith.compiler.site import Site
from echolith.compiler.values import Fixed

__all__ = ["contraction", "linear"]


def contraction(site: Site, args: Sequence[Any], options: Mapping[str, Any], result: Any) -> Fixed | None:
    """The operator on known tensors, learned ones among them; None for others."""
    rule = _RULES.get(site.operator)
    if rule is None or not isinstance(result, torch.Tensor):
        return None
    try:
        return rule(site, *args, **options)
    except TypeError:  # a variant that the rules for arrays refuse by name
        return None


def _each(site: Site, operator: str, compute: Callable[..., torch.Tensor], *args: Any, **options: Any) -> Fixed:
    """An element-wise operator."""
    result = compute(*(a.tensor if isinstance(a, Fixed) else a for a in args))
    if not any(isinstance(a, Fixed) and a.learned for a in args):
        return Fixed(result)
    here = replace(site, operator=operator, shape=tuple(result.shape))
    found = combination(here, args, options, result) or function(here, args, options, result)
    assert found is not None, operator
    return found


def _axes(x: Fixed, dim: Any) -> list[int]:
    every = list(range(len(x.shape)))
    dim = [dim] if isinstance(dim, int) else dim
    return sorted(d % len(every) for d in dim) if dim and every else every


def _reduced(site: Site, kind: str, x: Fixed, dim: Any, keepdim: bool) -> Fixed:
    axes = _axes(x, dim)
    kept = [d for d in range(len(x.shape)) if d not in axes]
    shape = [1 if d in axes else n for d, n in enumerate(x.shape)] if keepdim else [x.shape[d] for d in kept]
    if prod(x.shape[d] for d in axes) == 1:  # nothing to sum: it stays what the chip learns
        return reindex(site.store, x, lambda t: t.reshape(shape))
    rows = reindex(site.store, x, lambda t: t.permute([*kept, *axes]).reshape(prod(t.shape[d] for d in kept), -1))
    result = rows.tensor.sum(1) if kind == "sum" else rows.tensor.amax(1)
    if not rows.learned:
        return Fixed(result.reshape(shape))
    return site.store.reduced(kind, rows, rows.shape[1], result.reshape(shape), site.line)


def _sum(site: Site, x: Fixed, dim: Any = None, keepdim: bool = False, *, dtype: Any = None) -> Fixed:
    return _reduced(site, "sum", x, dim, keepdim)


def _count(x: Fixed, dim: Any) -> int:
    return prod(x.shape[d] for d in _axes(x, dim))


def _mean(site: Site, x: Fixed, dim: Any = None, keepdim: bool = False, *, dtype: Any = None) -> Fixed:
    return _each(site, "mul", torch.mul, _sum(site, x, dim, keepdim), 1 / _count(x, dim))


def _var(site: Site, x: Fixed, dim: Any = None, *, correction: float | None = 1, keepdim: bool = False) -> Fixed:
    spread = _each(site, "sub", torch.sub, x, _mean(site, x, dim, True))
    squares = _sum(site, _each(site, "square", torch.square, spread), dim, keepdim)
    return _each(site, "mul", torch.mul, squares, 1 / (_count(x, dim) - (1 if correction is None else correction)))


def _std(site: Site, *args: Any, **options: Any) -> Fixed:
    return _each(site, "sqrt", torch.sqrt, _var(site, *args, **options))


def _norm(site: Site, x: Fixed, order: float | None = 2, dim: Any = None, keepdim: bool = False, *,
          dtype: Any = None) -> Fixed:  # fmt: skip
    if order is None or order == 2:
        return _each(site, "sqrt", torch.sqrt, _sum(site, _each(site, "square", torch.square, x), dim, keepdim))
    size = _each(site, "abs", torch.abs, x)
    if order == torch.inf:
        return _reduced(site, "max", size, dim, keepdim)
    powers = _sum(site, _each(site, "pow", torch.pow, size, order), dim, keepdim)
    return _each(site, "pow", torch.pow, powers, 1 / order)


def _logsumexp(site: Site, x: Fixed, dim: Any, keepdim: bool = False) -> Fixed:
    return _each(site, "log", torch.log, _sum(site, _each(site, "exp", torch.exp, x), dim, keepdim))


def _softmax(site: Site, x: Fixed, dim: int, *_: Any) -> Fixed:
    exps = _each(site, "exp", torch.exp, x)
    return _each(site, "div", torch.div, exps, _sum(site, exps, dim, True))


def _log_softmax(site: Site, x: Fixed, dim: int, *_: Any) -> Fixed:
    return _each(site, "sub", torch.sub, x, _logsumexp(site, x, dim, True))


def _max(site: Site, x: Fixed, dim: Any = (), keepdim: bool = False) -> Fixed:
    return _reduced(site, "max", x, dim, keepdim)


def _min(site: Site, x: Fixed, dim: Any = (), keepdim: bool = False) -> Fixed:
    return _each(site, "neg", torch.neg, _max(site, _each(site, "neg", torch.neg, x), dim, keepdim))


def _product(site: Site, a: Fixed, b: Fixed) -> Fixed:
    """``mm``, ``mv``, ``dot`` and ``bmm``."""
    result = torch.matmul(a.tensor, b.tensor)
    batch = a.shape[0] if len(a.shape) == 3 else 1
    rows, inner = (1, *a.shape)[-2:]
    columns = b.shape[-1] if len(b.shape) > 1 else 1
    if not (a.learned or b.learned):
        return Fixed(result)
    return site.store.multiplied(a, b, (batch, rows, inner, columns), result, site.line)


def _sum_of_product(site: Site, bias: Fixed, a: Fixed, b: Fixed, *, beta: float = 1, alpha: float = 1) -> Fixed:
    left = _each(site, "mul", torch.mul, bias, float(beta))
    return _each(site, "add", torch.add, left, _each(site, "mul", torch.mul, _product(site, a, b), float(alpha)))


def linear(site: Site, operator: Callable[..., torch.Tensor], args: Sequence[Any], options: Mapping[str, Any],
           result: torch.Tensor) -> Fixed | None:  # fmt: skip
    """An operator that is linear in its one learned argument, as a product with its matrix; None for others."""
    learned = [v for v in args if isinstance(v, Fixed) and v.learned]
    if site.operator not in LINEAR or len(learned) != 1:
        return None
    base = run(operator, args, options, {})
    if base.any():
        return None
    flat = reindex(site.store, learned[0], lambda t: t.reshape(-1, 1))
    found = _product(site, Fixed(matrix(operator, args, options, learned[0], base)), flat)
    return reindex(site.store, found, lambda t: t.reshape(result.shape))


_RULES: dict[str, Callable[..., Fixed]] = {
    "sum": _sum, "mean": _mean, "var": _var, "std": _std, "linalg_vector_norm": _norm, "norm": _norm,
    "logsumexp": _logsumexp, "_softmax": _softmax, "_safe_softmax": _softmax, "_log_softmax": _log_softmax,
    "amax": _max, "amin": _min, "max": _max, "min": _min,
    "mm": _product, "mv": _product, "dot": _product, "vdot": _product, "bmm": _product,
    "addmm": _sum_of_product, "addmv": _sum_of_product, "baddbmm": _sum_of_product,
}  # fmt: skip
