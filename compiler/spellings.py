"""PyTorch element-wise operators that are made of other operations, with the arguments and defaults of ``aten``.

Tensor arguments arrive as expressions, numbers as numbers. Forms are chosen so that value and derivative stay finite in
float64 for arguments up to 64.
"""

import math
from collections.abc import Callable

from echolith.compiler.ir import Expr
from echolith.compiler.ops import OPS, Operand, add, apply, div, mul, neg, power, sub

__all__ = ["ELEMENTWISE", "LOSSES"]


def _add(x: Operand, y: Operand, alpha: float = 1) -> Expr:
    return add(x, mul(alpha, y))


def _sub(x: Operand, y: Operand, alpha: float = 1) -> Expr:
    return sub(x, mul(alpha, y))


def _rsub(x: Operand, y: Operand, alpha: float = 1) -> Expr:
    return sub(y, mul(alpha, x))


def _addcmul(x: Operand, a: Operand, b: Operand, value: float = 1) -> Expr:
    return add(x, mul(value, mul(a, b)))


def _addcdiv(x: Operand, a: Operand, b: Operand, value: float = 1) -> Expr:
    return add(x, mul(value, div(a, b)))


def _lerp(x: Operand, y: Operand, weight: Operand) -> Expr:
    return add(x, mul(weight, sub(y, x)))


def _hypot(x: Operand, y: Operand) -> Expr:
    return apply("sqrt", add(power(x, 2), power(y, 2)))


def _logaddexp(x: Operand, y: Operand) -> Expr:
    return add(y, apply("softplus", sub(x, y)))


def _softplus(x: Operand, beta: float = 1, threshold: float = 20) -> Expr:
    # Beyond the threshold PyTorch returns x itself; the difference is below 2.1e-9 / beta.
    return div(apply("softplus", mul(beta, x)), beta)


def _log_sigmoid(x: Operand) -> Expr:
    return neg(apply("softplus", neg(x)))


def _gelu(x: Operand, approximate: str = "none") -> Expr:
    if approximate == "tanh":
        inner = mul(math.sqrt(2 / math.pi), add(x, mul(0.044715, power(x, 3))))
        return mul(mul(0.5, x), add(apply("tanh", inner), 1))
    return mul(mul(0.5, x), add(apply("erf", mul(math.sqrt(0.5), x)), 1))


def _silu(x: Operand) -> Expr:
    return mul(x, apply("sigmoid", x))


def _mish(x: Operand) -> Expr:
    return mul(x, apply("tanh", apply("softplus", x)))


def _elu(x: Operand, alpha: float = 1, scale: float = 1, input_scale: float = 1) -> Expr:
    negative = mul(scale * alpha, apply("expm1", mul(input_scale, x)))
    return apply("where", apply("gt", x, 0), mul(scale, x), negative)  # at 0 the derivative of one side


def _celu(x: Operand, alpha: float = 1) -> Expr:
    return _elu(x, alpha, 1, 1 / alpha)


def _leaky_relu(x: Operand, negative_slope: float = 0.01) -> Expr:
    return sub(apply("relu", x), mul(negative_slope, apply("relu", neg(x))))


def _clamp(x: Operand, min: Operand | None = None, max: Operand | None = None) -> Expr:
    x = x if min is None else apply("maximum", x, min)
    return add(x, 0) if max is None else apply("minimum", x, max)


def _hardtanh(x: Operand, min_val: float = -1, max_val: float = 1) -> Expr:
    return _clamp(x, min_val, max_val)


def _hardswish(x: Operand) -> Expr:
    # Its sibling hardsigmoid is left out: PyTorch's own derivative of that has float32 precision.
    return mul(x, div(_clamp(add(x, 3), 0, 6), 6))


def _softshrink(x: Operand, lambd: float = 0.5) -> Expr:
    return sub(apply("relu", sub(x, lambd)), apply("relu", sub(neg(x), lambd)))


def _xlogy(x: Operand, y: Operand) -> Expr:
    return apply("where", apply("le", apply("abs", x), 0), 0, mul(x, apply("log", y)))


def _mse(x: Operand, y: Operand) -> Expr:
    return power(sub(x, y), 2)


def _huber(x: Operand, y: Operand, delta: float = 1) -> Expr:
    size = apply("abs", sub(x, y))
    return apply("where", apply("le", size, delta), mul(0.5, _mse(x, y)), mul(delta, sub(size, 0.5 * delta)))


def _smooth_l1(x: Operand, y: Operand, beta: float = 1) -> Expr:
    return div(_huber(x, y, beta), beta)


def _bce(x: Operand, target: Operand) -> Expr:
    return neg(add(mul(target, apply("log", x)), mul(sub(1, target), apply("log", sub(1, x)))))


def _bce_with_logits(x: Operand, target: Operand) -> Expr:
    return add(mul(sub(1, target), x), apply("softplus", neg(x)))


def _soft_margin(x: Operand, target: Operand) -> Expr:
    return apply("softplus", neg(mul(target, x)))


def _operation(name: str) -> Callable[..., Expr]:
    return lambda *args: apply(name, *args)


# operator name without overload and without the in-place underscore -> expression
ELEMENTWISE: dict[str, Callable[..., Expr]] = {
    **{aten: _operation(name) for name, op in OPS.items() for aten in op.aten},
    "add": _add, "sub": _sub, "rsub": _rsub, "div": lambda x, y: div(x, y), "true_divide": lambda x, y: div(x, y),
    "reciprocal": lambda x: div(1, x), "rsqrt": lambda x: power(x, -0.5), "square": lambda x: power(x, 2),
    "exp2": lambda x: apply("exp", mul(math.log(2), x)), "log2": lambda x: div(apply("log", x), math.log(2)),
    "log10": lambda x: div(apply("log", x), math.log(10)), "erfc": lambda x: sub(1, apply("erf", x)),
    "logit": lambda x: apply("log", div(x, sub(1, x))), "addcmul": _addcmul, "addcdiv": _addcdiv, "lerp": _lerp,
    "hypot": _hypot, "logaddexp": _logaddexp, "xlogy": _xlogy, "special_xlogy": _xlogy,
    "softplus": _softplus, "log_sigmoid_forward": _log_sigmoid, "gelu": _gelu, "silu": _silu, "mish": _mish,
    "elu": _elu, "celu": _celu, "leaky_relu": _leaky_relu, "clamp": _clamp, "clamp_min": _clamp,
    "clamp_max": lambda x, max: _clamp(x, None, max), "hardtanh": _hardtanh,
    "hardswish": _hardswish, "softshrink": _softshrink,
}  # fmt: skip

# the same for losses, before their ``reduction`` argument is applied; ``weight`` arguments are not part of the form
LOSSES: dict[str, Callable[..., Expr]] = {
    "mse_loss": _mse, "huber_loss": _huber, "smooth_l1_loss": _smooth_l1, "soft_margin_loss": _soft_margin,
    "binary_cross_entropy": _bce, "binary_cross_entropy_with_logits": _bce_with_logits,
}  # fmt: skip
