"""Scalar expressions and the network they describe: what capture produces and everything downstream reads.

    expr    ::= var | param | const | op(expr, ...)          element-wise, real-valued
    affine  ::= sum of scale * matrix @ source  +  sum of scale * bias
    network ::= sum(local(q; params)) + sum(coupling.potential(z = affine(q, u))),  cost(y = readout(q), target)

An expression is hash-consed by value (frozen dataclasses), so equal sub-graphs are one node.
"""

from dataclasses import dataclass, field

import numpy as np

__all__ = ["Affine", "Coupling", "Expr", "Network", "Term", "const", "param", "var"]


@dataclass(frozen=True)
class Expr:
    """One element-wise operation.

    ``op`` is ``var``, ``param``, ``const`` or a key of ``ops.OPS``; ``name`` is set for variables
    (``q``, ``z``, ``y``, ``target``) and parameters (the fully qualified name), ``value`` for constants.
    """

    op: str
    args: tuple["Expr", ...] = ()
    name: str = ""
    value: float = 0.0

    def __str__(self) -> str:
        if self.op == "const":
            return f"{self.value:g}"
        if self.op in ("var", "param"):
            return self.name
        infix = {"add": " + ", "sub": " - ", "mul": "*", "div": "/"}
        if self.op in infix:
            return "(" + infix[self.op].join(map(str, self.args)) + ")"
        return f"{self.op}({', '.join(map(str, self.args))})"

    def variables(self) -> frozenset[str]:
        """Names of the variables and parameters this expression depends on."""
        if self.op in ("var", "param"):
            return frozenset([self.name])
        return frozenset().union(*(a.variables() for a in self.args))


def var(name: str) -> Expr:
    return Expr("var", name=name)


def param(name: str) -> Expr:
    return Expr("param", name=name)


def const(value: float) -> Expr:
    return Expr("const", value=float(value))


@dataclass(frozen=True)
class Term:
    """``scale * P @ source`` (a matrix) or ``scale * P`` (a bias, ``source == "one"``).

    ``transposed`` says that the stored parameter has shape (columns, rows).
    """

    parameter: str
    source: str  # "q", "u" or "one"
    transposed: bool = False
    scale: float = 1.0


@dataclass(frozen=True)
class Affine:
    """A vector of ``rows`` values, affine in q and u: the sum of its terms."""

    rows: int
    terms: tuple[Term, ...]


@dataclass(frozen=True)
class Coupling:
    """``sum_i potential(z_i)`` with ``z = affine(q, u)``; ``potential`` is over ``var("z")``."""

    affine: Affine
    potential: Expr


@dataclass(frozen=True)
class Network:
    """A captured model: one state ``q``, its energy, its readout and its cost."""

    units: int
    inputs: int
    outputs: int
    local: Expr  # element-wise potential over var("q") and vector parameters; const(0) if none
    couplings: tuple[Coupling, ...]
    readout: Affine | None  # y = readout(q), shared by cost and predict; None: predict returns the states
    cost: Expr | None  # sum_i cost(y_i, target_i) over var("y"), var("target")
    values: dict[str, np.ndarray] = field(default_factory=dict, hash=False)  # float64 parameters, buffers, constants
    learned: frozenset[str] = frozenset()  # names of the parameters that learn
