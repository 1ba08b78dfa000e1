"""Which rule reads which aten operator. Everything that is not listed here is refused by name."""

from collections.abc import Callable
from dataclasses import replace

import torch

from echolith.compiler.convolutions import convolution
from echolith.compiler.elementwise import elementwise, map_elements
from echolith.compiler.ir import const
from echolith.compiler.losses import loss
from echolith.compiler.matrices import matmul
from echolith.compiler.ops import add, apply, mul, neg, power, sub
from echolith.compiler.site import Argument, Site
from echolith.compiler.spellings import ELEMENTWISE, LOSSES
from echolith.compiler.sums import log_softmax, logsumexp, mean, norm, softmax, std, total, var
from echolith.compiler.values import Array, Fixed

__all__ = ["RULES"]

_EXPONENTS = 4  # different ones in one power


def _addmm(site: Site, bias: Argument, a: Fixed | Array, b: Fixed | Array, beta: float = 1, alpha: float = 1) -> Array:
    product = elementwise(replace(site, operator="mul"), matmul(site, a, b), alpha)
    return elementwise(replace(site, operator="add"), product, bias, alpha=beta)


def _converted(site: Site, x: Argument, dtype: object = None, **_: object) -> Array:
    return replace(site.array(x), shape=site.shape)


def _negated(site: Site, x: Argument) -> Array:
    """Of a comparison."""
    return map_elements(site, lambda x: sub(1, x), x)


def _masked(site: Site, x: Argument, mask: Argument, value: Argument) -> Array:
    return map_elements(site, lambda x, mask, value: apply("where", mask, value, x), x, mask, value)


def _power(site: Site, x: Argument, exponent: Argument) -> Array:
    """Of a few different frozen exponents each its own power: a negative base has no logarithm."""
    if not isinstance(exponent, Fixed) or exponent.learned or exponent.number() is not None:
        return elementwise(site, x, exponent)
    numbers = torch.unique(exponent.tensor)
    if len(numbers) > _EXPONENTS:
        return elementwise(site, x, exponent)
    base, total = site.expression(x), const(0)
    for number in numbers:
        here = site.store.expression(Fixed((exponent.tensor == number).to(torch.float64)), site.shape)
        total = add(total, mul(here, power(base, float(number))))
    return Array(site.shape, total)


def _prelu(site: Site, x: Argument, weight: Argument) -> Array:
    return map_elements(site, lambda x, w: sub(apply("relu", x), mul(w, apply("relu", neg(x)))), x, weight)


RULES: dict[str, Callable[..., Array]] = {
    **dict.fromkeys(ELEMENTWISE, elementwise),
    **dict.fromkeys(LOSSES, loss), "pow": _power, "float_power": _power,
    "sum": total, "mean": mean, "linalg_vector_norm": norm, "norm": norm, "var": var, "std": std,
    "logsumexp": logsumexp, "_softmax": softmax, "_safe_softmax": softmax,
    "_log_softmax": log_softmax,
    "mm": matmul, "mv": matmul, "bmm": matmul, "dot": matmul, "vdot": matmul,
    "addmm": _addmm, "addmv": _addmm, "baddbmm": _addmm,
    "convolution": convolution, "_to_copy": _converted, "masked_fill": _masked, "_prelu_kernel": _prelu,
    "bitwise_not": _negated, "logical_not": _negated,
}  # fmt: skip
