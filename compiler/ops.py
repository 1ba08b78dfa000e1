"""The one table of element-wise operations: float64 value, partial derivatives, and how PyTorch spells them.

Add an operation by adding an entry to ``OPS``; capture, differentiation, evaluation and tables follow. Spellings that
are made of other operations (gelu, softsign, losses) live in ``spellings.py``.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from weakref import WeakValueDictionary

import numpy as np

from echolith.compiler.ir import Expr, const

__all__ = ["OPS", "Op", "Operand", "add", "apply", "div", "factor", "intern", "mul", "neg", "power", "sub"]


Operand = Expr | float | int


@dataclass(frozen=True)
class Op:
    """One element-wise operation.

    ``evaluate`` maps float64 arrays to a float64 array; ``partials`` maps the argument expressions to one derivative
    per argument; ``aten`` lists the PyTorch operator names with exactly this meaning.
    """

    evaluate: Callable[..., np.ndarray]
    partials: Callable[..., tuple[Operand, ...]]
    aten: tuple[str, ...] = ()


_nodes: WeakValueDictionary[tuple, Expr] = WeakValueDictionary()


def intern(expr: Expr) -> Expr:
    """The one shared node equal to ``expr``, whose arguments must be shared nodes already."""
    # Identity of the arguments stands for their value: comparing by value would walk shared sub-graphs repeatedly.
    return _nodes.setdefault((expr.op, tuple(map(id, expr.args)), expr.name, expr.value), expr)


def apply(op: str, *args: Operand) -> Expr:
    """``op(*args)``, simplified: constants folded, neutral elements removed, equal nodes shared."""
    nodes = tuple(a if isinstance(a, Expr) else const(a) for a in args)
    if all(a.op == "const" for a in nodes):
        with np.errstate(all="ignore"):
            value = float(OPS[op].evaluate(*(np.float64(a.value) for a in nodes)))
        if math.isfinite(value):
            return intern(const(value))
    # Variables and constants are made by callers, compound nodes only here: leaves are all that is left to share.
    nodes = tuple(a if a.args else intern(a) for a in nodes)
    simpler = _SIMPLER[op](*nodes) if op in _SIMPLER else None
    return intern(Expr(op, nodes)) if simpler is None else simpler


def add(a: Operand, b: Operand) -> Expr:
    return apply("add", a, b)


def sub(a: Operand, b: Operand) -> Expr:
    return apply("sub", a, b)


def mul(a: Operand, b: Operand) -> Expr:
    return apply("mul", a, b)


def div(a: Operand, b: Operand) -> Expr:
    return apply("div", a, b)


def neg(a: Operand) -> Expr:
    return apply("neg", a)


def power(a: Operand, exponent: float) -> Expr:
    return apply("pow", a, exponent)


def factor(expr: Expr) -> tuple[float, Expr]:
    """``(c, x)`` with ``expr = c * x``, c a number."""
    if expr.op == "neg":
        c, x = factor(expr.args[0])
        return -c, x
    if expr.op == "mul" and expr.args[0].op == "const":
        c, x = factor(expr.args[1])
        return c * expr.args[0].value, x
    return 1.0, expr


def _is(expr: Expr, value: float) -> bool:
    return expr.op == "const" and expr.value == value


def _simpler_add(a: Expr, b: Expr) -> Expr | None:
    if a.op == "const":
        a, b = b, a
    if _is(b, 0):
        return a
    if a is b:
        return mul(2, a)
    if b.op == "const" and a.op == "add" and a.args[1].op == "const":
        return add(a.args[0], a.args[1].value + b.value)
    if b.op == "neg":
        return sub(a, b.args[0])
    return sub(b, a.args[0]) if a.op == "neg" else intern(Expr("add", (a, b)))


def _simpler_sub(a: Expr, b: Expr) -> Expr | None:
    if a is b:
        return const(0)
    if _is(a, 0):
        return neg(b)
    if b.op == "const":
        return add(a, -b.value)
    if _is(a, 1) and b.op == "sigmoid":  # keeps log(1 - sigmoid(z)) and its derivative finite for large z
        return apply("sigmoid", neg(b.args[0]))
    return add(a, b.args[0]) if b.op == "neg" else None


def _simpler_mul(a: Expr, b: Expr) -> Expr | None:
    """One number, then powers of different factors: equal products, in whatever order, are one node."""
    if a is b:
        return power(a, 2)
    powers: dict[int, tuple[Expr, float]] = {}
    scale = _factors(b, _factors(a, 1.0, powers), powers)
    if scale == 0:
        return const(0)
    quotient = next((f for f, n in powers.values() if f.op == "div" and f.args[0].op == "const" and n == 1), None)
    if quotient is not None:  # so that the derivative of log(cosh(z)) meets sinh and cosh in one quotient
        del powers[id(quotient)]
        return div(_product(scale * quotient.args[0].value, powers), quotient.args[1])
    return _product(scale, powers)


def _factors(expr: Expr, scale: float, powers: dict[int, tuple[Expr, float]]) -> float:
    """Adds the factors of ``expr`` to ``powers`` and returns ``scale`` times its number."""
    if expr.op == "const":
        return scale * expr.value
    if expr.op == "neg":
        return -_factors(expr.args[0], scale, powers)
    if expr.op == "mul":
        return _factors(expr.args[1], _factors(expr.args[0], scale, powers), powers)
    base, exponent = _as_power(expr)
    powers[id(base)] = (base, exponent + powers.get(id(base), (base, 0.0))[1])
    return scale


def _product(scale: float, powers: dict[int, tuple[Expr, float]]) -> Expr:
    # Leaves first, by kind and name; compound factors keep the order in which they came.
    ordered = sorted(powers.values(), key=lambda f: ("~",) if f[0].args else (f[0].op, f[0].name))
    nodes = [power(base, exponent) for base, exponent in ordered]
    if not nodes:
        return const(scale)
    total = nodes[0]
    for node in nodes[1:]:
        total = intern(Expr("mul", (total, node)))
    if abs(scale) == 1:
        return total if scale == 1 else intern(Expr("neg", (total,)))
    return intern(Expr("mul", (intern(const(scale)), total)))


def _as_power(a: Expr) -> tuple[Expr, float]:
    """``(x, n)`` with ``a = x**n``, n a positive whole number, so that exponents of equal bases may be added."""
    if a.op == "pow" and a.args[1].op == "const" and a.args[1].value > 0 and a.args[1].value.is_integer():
        return a.args[0], a.args[1].value
    return a, 1


def _simpler_div(a: Expr, b: Expr) -> Expr | None:
    if b.op == "const" and b.value != 0:
        return mul(1 / b.value, a)
    if a.op == "neg":
        return neg(div(a.args[0], b))
    if a.op == "mul" and a.args[0].op == "const":
        return mul(a.args[0], div(a.args[1], b))
    if (a.op, b.op) == ("sinh", "cosh") and a.args == b.args:  # the derivative of log(cosh(z)), finite for any z
        return apply("tanh", *a.args)
    if a.op == "mul" and b.op == "cosh":  # the same with a factor inside: h sinh(h z) / cosh(h z)
        for factor, other in (a.args, a.args[::-1]):
            if factor.op == "sinh" and factor.args == b.args:
                return mul(other, apply("tanh", *b.args))
    return const(0) if _is(a, 0) else None


def _simpler_neg(a: Expr) -> Expr | None:
    if a.op == "neg":
        return a.args[0]
    if a.op == "sub":
        return sub(a.args[1], a.args[0])
    return mul(-a.args[0].value, a.args[1]) if a.op == "mul" and a.args[0].op == "const" else None


def _simpler_pow(a: Expr, b: Expr) -> Expr | None:
    if _is(b, 0):
        return const(1)
    if _is(b, 1):
        return a
    if b.op == "const" and _root(a) == b.value:  # a norm to its own power: finite derivatives at 0
        return a.args[0]
    base, exponent = _as_power(a)
    if b.op == "const" and exponent != 1 and b.value > 0 and b.value.is_integer():
        return power(base, exponent * b.value)
    return None


def _root(a: Expr) -> float | None:
    """n with ``a = x**(1/n)``, n a whole number; None if it is not that."""
    exponent = 0.5 if a.op == "sqrt" else a.args[1].value if a.op == "pow" and a.args[1].op == "const" else 0.0
    n = round(1 / exponent) if exponent > 0 else 0
    return float(n) if n > 1 and 1 / n == exponent else None


def _simpler_log(a: Expr) -> Expr | None:
    if a.op == "sigmoid":
        return neg(apply("softplus", neg(a.args[0])))
    if a.op == "add" and a.args[0].op == "exp" and _is(a.args[1], 1):
        return apply("softplus", *a.args[0].args)
    return a.args[0] if a.op == "exp" else None


def _simpler_where(c: Expr, a: Expr, b: Expr) -> Expr | None:
    if c.op == "const":
        return a if c.value else b
    return a if a == b else None


def _simpler_log1p(a: Expr) -> Expr | None:
    return apply("softplus", *a.args) if a.op == "exp" else None


_SIMPLER: dict[str, Callable[..., Expr | None]] = {
    "add": _simpler_add, "sub": _simpler_sub, "mul": _simpler_mul, "div": _simpler_div, "neg": _simpler_neg,
    "pow": _simpler_pow, "log": _simpler_log, "log1p": _simpler_log1p, "where": _simpler_where,
}  # fmt: skip


def _truth(compare: Callable[..., np.ndarray]) -> Callable[..., np.ndarray]:
    return lambda a, b: compare(a, b).astype(np.float64)


def _erf(x: np.ndarray) -> np.ndarray:
    return np.asarray(np.frompyfunc(math.erf, 1, 1)(x), np.float64)


def _pow_partials(a: Expr, b: Expr) -> tuple[Operand, ...]:
    if b.op == "const":
        return mul(b, power(a, b.value - 1)), 0
    return mul(b, apply("pow", a, sub(b, 1))), mul(apply("pow", a, b), apply("log", a))


def _one_minus_square(op: str) -> Callable[[Expr], tuple[Operand, ...]]:
    return lambda x: (sub(1, power(apply(op, x), 2)),)


_SECH2 = _one_minus_square("tanh")

OPS: dict[str, Op] = {
    "neg": Op(np.negative, lambda a: (-1,), ("neg",)),
    "add": Op(np.add, lambda a, b: (1, 1)),
    "sub": Op(np.subtract, lambda a, b: (1, -1)),
    "mul": Op(np.multiply, lambda a, b: (b, a), ("mul", "multiply")),
    "div": Op(np.divide, lambda a, b: (div(1, b), neg(div(div(a, b), b)))),
    "pow": Op(np.power, _pow_partials, ("pow", "float_power")),
    "exp": Op(np.exp, lambda x: (apply("exp", x),), ("exp",)),
    "expm1": Op(np.expm1, lambda x: (apply("exp", x),), ("expm1", "special_expm1")),
    "log": Op(np.log, lambda x: (div(1, x),), ("log",)),
    "log1p": Op(np.log1p, lambda x: (div(1, add(x, 1)),), ("log1p",)),
    "sqrt": Op(np.sqrt, lambda x: (div(0.5, apply("sqrt", x)),), ("sqrt",)),
    "sin": Op(np.sin, lambda x: (apply("cos", x),), ("sin",)),
    "cos": Op(np.cos, lambda x: (neg(apply("sin", x)),), ("cos",)),
    "tan": Op(np.tan, lambda x: (add(power(apply("tan", x), 2), 1),), ("tan",)),
    "sinh": Op(np.sinh, lambda x: (apply("cosh", x),), ("sinh",)),
    "cosh": Op(np.cosh, lambda x: (apply("sinh", x),), ("cosh",)),
    "tanh": Op(np.tanh, _SECH2, ("tanh",)),
    "asin": Op(np.arcsin, lambda x: (div(1, apply("sqrt", sub(1, power(x, 2)))),), ("asin",)),
    "acos": Op(np.arccos, lambda x: (div(-1, apply("sqrt", sub(1, power(x, 2)))),), ("acos",)),
    "atan": Op(np.arctan, lambda x: (div(1, add(power(x, 2), 1)),), ("atan",)),
    "asinh": Op(np.arcsinh, lambda x: (div(1, apply("sqrt", add(power(x, 2), 1))),), ("asinh",)),
    "acosh": Op(np.arccosh, lambda x: (div(1, apply("sqrt", sub(power(x, 2), 1))),), ("acosh",)),
    "atanh": Op(np.arctanh, lambda x: (div(1, sub(1, power(x, 2))),), ("atanh",)),
    "erf": Op(_erf, lambda x: (mul(2 / math.sqrt(math.pi), apply("exp", neg(power(x, 2)))),), ("erf", "special_erf")),
    "sigmoid": Op(  # through logaddexp: relative precision on both tails
        lambda x: np.exp(-np.logaddexp(0.0, -x)),
        lambda x: (mul(apply("sigmoid", x), apply("sigmoid", neg(x))),),
        ("sigmoid", "special_expit"),
    ),
    "softplus": Op(lambda x: np.logaddexp(0.0, x), lambda x: (apply("sigmoid", x),)),
    "abs": Op(np.abs, lambda x: (apply("sign", x),), ("abs",)),
    "sign": Op(np.sign, lambda x: (0,), ("sign", "sgn")),
    "relu": Op(lambda x: np.maximum(x, 0.0), lambda x: (apply("gt", x, 0),), ("relu",)),
    "maximum": Op(np.maximum, lambda a, b: (apply("ge", a, b), apply("lt", a, b)), ("maximum",)),
    "minimum": Op(np.minimum, lambda a, b: (apply("le", a, b), apply("gt", a, b)), ("minimum",)),
    "gt": Op(_truth(np.greater), lambda a, b: (0, 0), ("gt",)),
    "ge": Op(_truth(np.greater_equal), lambda a, b: (0, 0), ("ge",)),
    "lt": Op(_truth(np.less), lambda a, b: (0, 0), ("lt",)),
    "le": Op(_truth(np.less_equal), lambda a, b: (0, 0), ("le",)),
    "where": Op(lambda c, a, b: np.where(c != 0, a, b), lambda c, a, b: (0, c, sub(1, c)), ("where",)),
}
