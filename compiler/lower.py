"""Quantise: an element-wise expression becomes fixed-point ops.

Sub-expressions of one variable become tables, unless they are short polynomials, which stay exact in the multipliers.
Factors are rounded to the multiplier's width with the fraction bits that their calibrated range leaves.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from echolith.compiler.differentiate import evaluate, exchanged, is_univariate, names, substitute
from echolith.compiler.errors import CompileError
from echolith.compiler.formats import fraction
from echolith.compiler.ir import Expr, var
from echolith.compiler.ops import neg
from echolith.compiler.pipeline import Builder
from echolith.compiler.tables import table

__all__ = ["MARGIN", "Fixed", "Lowering"]

MARGIN = 2.0  # states grow in training
_POLYNOMIAL = frozenset({"add", "sub", "mul", "neg", "pow", "var", "const"})
_DEGREE = 4
_FLAT = 1e-6


@dataclass(frozen=True)
class Fixed:
    """An op whose integer stands for ``integer * 2^-frac``; ``word`` if it has at most the multiplier's bits, ``spare``
    of which it does without."""

    node: int
    frac: int
    word: bool = False
    spare: int = 0


class Lowering:
    """Lowers expressions into one builder.

    ``leaves`` are words by variable or parameter name; ``samples`` are calibrated values by name, broadcastable.
    ``tables`` collects the contents; slots count from ``first``. ``formats`` lists the chosen fraction bits in order;
    ``given`` repeats an earlier choice, so that another network fits the same hardware.
    """

    def __init__(self, builder: Builder, width: int, segments: int, leaves: Mapping[str, Fixed],
                 samples: Mapping[str, np.ndarray], first: int = 0, given: Sequence[int] = ()):
        self.b, self.width, self.segments = builder, width, segments
        self.leaves, self.samples, self.first, self.given = leaves, samples, first, given
        self.tables: list[np.ndarray] = []
        self.formats: list[int] = []

    def largest(self, expr: Expr) -> float:
        """Largest calibrated magnitude."""
        return float(np.abs(evaluate(expr, self.samples)).max(initial=0.0))

    def least(self, expr: Expr) -> float:
        """The least argument that a function of ``expr`` has to be known for: calibrated values that are never below
        zero, as of a sum of squares or a mass, stay so."""
        least = float(np.min(evaluate(expr, self.samples)))
        return least / 16 if least >= 0 else -math.inf  # samples are stretched, at most by so much

    def choose(self, frac: int) -> int:
        """The next format: as given, else ``frac``."""
        place = len(self.formats)
        self.formats.append(self.given[place] if place < len(self.given) else frac)
        return self.formats[-1]

    def word(self, expr: Expr, largest: float | None = None) -> Fixed:
        """``expr`` in at most the multiplier's width, clipped beyond ``largest`` if that is given."""
        value = self(expr)
        if value.word:
            return value
        largest = self.largest(expr) if largest is None else largest
        frac = self.choose(min(fraction(largest, self.width, MARGIN), value.frac))
        return Fixed(self.b("sat", self.b("rnd", value.node, n=value.frac - frac), n=self.width), frac, True)

    def wide(self, expr: Expr) -> Fixed:
        """``expr`` in twice the multiplier's width less one bit: products keep all their bits."""
        value, bits = self(expr), 2 * self.width - 1
        frac = self.choose(min(fraction(self.largest(expr), bits, MARGIN), value.frac + self.width - 2))
        return Fixed(self.b("sat", self.b("rnd", value.node, n=value.frac - frac), n=bits), frac)

    def __call__(self, expr: Expr) -> Fixed:
        if expr.op in ("var", "param"):
            return self.leaves[expr.name]
        if expr.op == "const":
            return self._const(expr.value)
        if is_univariate(expr) and not _short_polynomial(expr):
            (name,) = names(expr)
            argument = self.leaves[name] if self.leaves[name].word else self.word(var(name))
            return self._table(expr, argument, self.largest(var(name)), self.least(var(name)))
        if expr.op in ("add", "sub"):
            return self.sum(expr.op, *map(self, expr.args))
        if expr.op == "neg":
            return self.sum("sub", Fixed(self.b("const", n=0), 0), self(expr.args[0]))
        if expr.op == "mul":
            return self._product(*expr.args)
        if expr.op == "pow" and expr.args[1].op == "const" and expr.args[1].value in (2.0, 3.0, 4.0):
            half = expr.args[0] if expr.args[1].value < 4 else Expr("pow", (expr.args[0], Expr("const", value=2.0)))
            other = half if expr.args[1].value != 3 else Expr("pow", (expr.args[0], Expr("const", value=2.0)))
            return self._multiply(self.word(half), self.word(other))
        if expr.op == "div":
            one, below = Expr("const", value=1.0), expr.args[1]
            if is_univariate(below):
                return self._multiply(self.word(expr.args[0]), self(Expr("div", (one, below))))
            return self._multiply(self.word(expr.args[0]), self._of(Expr("div", (one, var("x"))), below))
        if len([a for a in expr.args if a.op != "const"]) == 1:
            return self._of(*_chain(expr))
        for inner in _several(expr):
            outer = _turned(exchanged(expr, inner, var("x")), inner)
            if names(outer) == {"x"}:
                return self._of(outer, inner)
        raise CompileError("an element-wise function of several vectors cannot be tabulated; write it as sums and "
                           f"products of functions of one vector each, not {expr}")

    def _const(self, value: float) -> Fixed:
        frac = fraction(abs(value), self.width, 1.0 + 2.0 ** (1 - self.width))
        return Fixed(self.b("const", n=round(value * 2.0**frac)), frac, True)

    def _of(self, expr: Expr, inner: Expr) -> Fixed:
        """A function of one variable, applied to an expression that has several."""
        if np.max(evaluate(inner, self.samples)) <= 0 and inner.op == "sub":  # known for one sign only, as in `least`
            expr, inner = substitute(expr, {"x": neg(var("x"))}), neg(inner)
        largest = _reach(expr, self.largest(inner))
        return self._table(expr, self.word(inner, largest), largest, self.least(inner))

    def _table(self, expr: Expr, argument: Fixed, largest: float, least: float) -> Fixed:
        """Segments are picked by the first bits of a whole word: a narrower one is moved up."""
        argument = Fixed(self.b("shl", argument.node, n=argument.spare), argument.frac + argument.spare, True)
        values = table(expr, argument.frac, MARGIN * largest, self.width, self.segments, least)
        frac = self.choose(values.frac)
        words = values.words(frac, self.width)
        self.tables.append(words)
        return Fixed(self.b("table", argument.node, n=self.first + len(self.tables) - 1), frac, True)

    def sum(self, op: str, a: Fixed, b: Fixed) -> Fixed:
        frac = max(a.frac, b.frac)
        return Fixed(self.b(op, self.b("shl", a.node, n=frac - a.frac), self.b("shl", b.node, n=frac - b.frac)), frac)

    def _product(self, a: Expr, b: Expr) -> Fixed:
        if b.op == "const":
            a, b = b, a
        if a.op == "const":
            mantissa, exponent = math.frexp(a.value)
            if abs(mantissa) == 0.5:  # a power of two moves the point, nothing else
                value = self(b)
                moved = Fixed(value.node, value.frac - exponent + 1, value.word)
                return moved if a.value > 0 else self.sum("sub", Fixed(self.b("const", n=0), 0), moved)
            if b.op in ("add", "sub") and b.args[1].op == "const":  # rounded as a word, it would be off by one amount
                return self.sum(b.op, self._product(a, b.args[0]), self._const(a.value * b.args[1].value))
        return self._multiply(self.word(a), self.word(b))

    def _multiply(self, a: Fixed, b: Fixed) -> Fixed:
        return Fixed(self.b("mul", a.node, b.node), a.frac + b.frac)


def _several(expr: Expr) -> Iterator[Expr]:
    """Sub-expressions of several vectors inside ``expr``, from the inside out."""
    for arg in expr.args:
        yield from _several(arg)
        if len(names(arg)) > 1:
            yield arg


def _turned(outer: Expr, inner: Expr) -> Expr:
    """``outer`` with a difference that is ``inner``'s negative as ``-x``."""
    return exchanged(outer, Expr("sub", inner.args[::-1]), neg(var("x"))) if inner.op == "sub" else outer


def _chain(expr: Expr) -> tuple[Expr, Expr]:
    """A function of x, and the expression of several vectors that it is a function of."""
    inner = next(a for a in expr.args if a.op != "const")
    outer, place = Expr(expr.op, tuple(var("x") if a is inner else a for a in expr.args)), inner
    if sum(a.op != "const" for a in place.args) == 1:
        around, inner = _chain(place)
        outer = substitute(outer, {"x": around})
    return outer, inner


def _reach(expr: Expr, largest: float) -> float:
    """The argument up to which a function of x has to be known: beyond, it is flat."""
    half = np.linspace(0.0, 1.0, 129)
    x = MARGIN * largest * np.concatenate([-half[::-1], half])
    values = np.broadcast_to(evaluate(expr, {"x": x}), x.shape)
    if not np.isfinite(values).all():
        return largest
    for shift in range(6, 0, -1):
        ends = values[x <= x[0] / 2**shift], values[x >= x[-1] / 2**shift]
        if all(np.ptp(e) <= _FLAT * np.abs(values).max() for e in ends):
            return largest / 2**shift
    return largest


def _short_polynomial(expr: Expr) -> bool:
    return _degree(expr) <= _DEGREE


def _degree(expr: Expr) -> float:
    """Degree of a polynomial with few multiplications, else infinity."""
    if expr.op not in _POLYNOMIAL:
        return math.inf
    if expr.op == "pow":
        n = expr.args[1].value if expr.args[1].op == "const" else math.inf
        return n * _degree(expr.args[0]) if n in (2.0, 3.0, 4.0) else math.inf
    degrees = [_degree(a) for a in expr.args]
    if expr.op == "mul":
        return sum(degrees)
    return max(degrees, default=1.0 if expr.op == "var" else 0.0)
