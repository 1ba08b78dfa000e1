"""Symbolic derivatives and float64 values of expressions. Both walk every shared node once."""

from collections.abc import Callable, Mapping
from dataclasses import replace

import numpy as np

from echolith.compiler.ir import Expr, const
from echolith.compiler.ops import OPS, add, apply, intern, mul

__all__ = ["derivative", "evaluate", "exchanged", "is_moving", "is_univariate", "names", "substitute"]


def names(expr: Expr) -> frozenset[str]:
    """Names of the variables and parameters in ``expr``, as ``Expr.variables`` but linear in shared nodes."""
    return frozenset(leaf.name for leaf in _leaves(expr))


def is_univariate(expr: Expr) -> bool:
    """Whether ``expr`` depends on exactly one variable and on no parameter: the form a table can hold."""
    leaves = _leaves(expr)
    return len(leaves) == 1 and leaves[0].op == "var"


def is_moving(expr: Expr) -> bool:
    """Whether ``expr`` depends on a variable, not on parameters alone."""
    return any(leaf.op == "var" for leaf in _leaves(expr))


def _leaves(expr: Expr) -> list[Expr]:
    """The different variables and parameters in ``expr``."""
    seen: dict[int, Expr] = {}
    stack = [expr]
    while stack:
        node = stack.pop()
        if id(node) not in seen:
            seen[id(node)] = node
            stack.extend(node.args)
    return list({(n.op, n.name): n for n in seen.values() if n.op in ("var", "param")}.values())


def substitute(expr: Expr, replacements: Mapping[str, Expr]) -> Expr:
    """``expr`` with variables and parameters replaced by name, simplified and shared."""
    memo: dict[int, Expr] = {}

    def walk(node: Expr) -> Expr:
        if id(node) not in memo:
            if node.args:
                memo[id(node)] = apply(node.op, *map(walk, node.args))
            else:
                memo[id(node)] = intern(replacements.get(node.name, node) if node.name else node)
        return memo[id(node)]

    return walk(expr)


def derivative(expr: Expr, name: str) -> Expr:
    """d ``expr`` / d ``name``, simplified; ``name`` is a variable or a parameter."""
    memo: dict[int, Expr] = {}

    def walk(node: Expr) -> Expr:
        if id(node) not in memo:
            memo[id(node)] = _chain(node, walk, name)
        return memo[id(node)]

    # Expressions built by hand may hold equal nodes twice; sharing them first lets x*x and sinh/cosh be recognised.
    root = substitute(expr, {})
    return walk(root)


def _chain(node: Expr, walk: Callable[[Expr], Expr], name: str) -> Expr:
    if not node.args:
        return const(float(node.op in ("var", "param") and node.name == name))
    inner = [walk(a) for a in node.args]
    if node.op == "where":  # not through the partials: 0 * inf of the branch not taken would be NaN
        return apply("where", node.args[0], inner[1], inner[2])
    total = const(0)
    for partial, d in zip(OPS[node.op].partials(*node.args), inner, strict=True):
        if not (d.op == "const" and d.value == 0):
            total = add(total, mul(partial, d))
    return total


def evaluate(expr: Expr, env: Mapping[str, np.ndarray]) -> np.ndarray:
    """Value of ``expr`` in float64.

    ``env`` maps every variable and parameter to an array; shapes broadcast as in numpy. Overflow and invalid
    arguments give inf and NaN without a warning.
    """
    memo: dict[int, np.ndarray] = {}

    def walk(node: Expr) -> np.ndarray:
        if id(node) not in memo:
            if node.op == "const":
                memo[id(node)] = np.asarray(node.value, np.float64)
            elif node.op in ("var", "param"):
                memo[id(node)] = np.asarray(env[node.name], np.float64)
            else:
                memo[id(node)] = np.asarray(OPS[node.op].evaluate(*map(walk, node.args)), np.float64)
        return memo[id(node)]

    with np.errstate(all="ignore"):
        return walk(expr)


def exchanged(expr: Expr, old: Expr, new: Expr) -> Expr:
    """``expr`` with every sub-expression equal to ``old`` replaced."""
    if expr == old:
        return new
    return replace(expr, args=tuple(exchanged(a, old, new) for a in expr.args))
