"""Scalar expressions, element-wise and real-valued: expr ::= var | param | const | op(expr, ...).

An expression is hash-consed by value (frozen dataclasses), so equal sub-graphs are one node.
"""

from dataclasses import dataclass

__all__ = ["Expr", "const", "param", "var"]


@dataclass(frozen=True)
class Expr:
    """One element-wise operation.

    ``op`` is ``var``, ``param``, ``const`` or a key of ``ops.OPS``; ``name`` is set for variables
    (vectors, ``y``, ``target``) and parameters (the fully qualified name), ``value`` for constants.
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
