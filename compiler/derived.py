"""Functions of learned parameters alone: softplus(k), W * mask, tanh(A + A').

The chip holds their values as parameters of their own; the host, which has the function, computes them and takes
gradients back to what they are made of. numpy only.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from echolith.compiler.differentiate import derivative, evaluate
from echolith.compiler.errors import CompileError
from echolith.compiler.ir import Expr

__all__ = ["Derived", "Operand", "chained", "completed", "unlearnable"]

Arrays = dict[str, np.ndarray]


@dataclass(frozen=True)
class Operand:
    """Element i is element ``of[i]`` of the parameter, both flat; () is the parameter as it is, or its one value."""

    parameter: str
    of: tuple[int, ...] = ()


@dataclass(frozen=True)
class Derived:
    """The parameter ``name`` holds the element-wise ``expr`` of ``operands``, by the names that it gives them."""

    name: str
    expr: Expr
    operands: dict[str, Operand]
    shape: tuple[int, ...]
    line: str  # of the model, as ``file.py:LINE: text``; empty if unknown


def _operands(made: Derived, values: Mapping[str, np.ndarray]) -> Arrays:
    flat = {text: np.asarray(values[o.parameter], np.float64).reshape(-1) for text, o in made.operands.items()}
    return {text: x[list(made.operands[text].of)] if made.operands[text].of else x for text, x in flat.items()}


def completed(derived: Sequence[Derived], values: Mapping[str, np.ndarray]) -> Arrays:
    """``values`` with the derived parameters computed from the others."""
    found = dict(values)
    for made in derived:
        value = np.broadcast_to(evaluate(made.expr, _operands(made, values)), (int(np.prod(made.shape)),))
        found[made.name] = value.reshape(made.shape).copy()
    return found


def chained(derived: Sequence[Derived], gradients: Mapping[str, np.ndarray], values: Mapping[str, np.ndarray],
            learned: frozenset[str]) -> Arrays:
    """Gradients of ``learned`` parameters from those of the parameters that the chip holds, derived ones among them."""
    names = {made.name for made in derived}
    found = {name: np.array(g) for name, g in gradients.items() if name not in names}
    for made in derived:
        if made.name not in gradients:
            continue
        env, seed = _operands(made, values), np.asarray(gradients[made.name]).reshape(-1)
        for text, operand in made.operands.items():
            if operand.parameter in learned:
                slope = np.broadcast_to(evaluate(derivative(made.expr, text), env), seed.shape) * seed
                total = found.setdefault(operand.parameter, np.zeros(np.shape(values[operand.parameter])))
                _scatter(total.reshape(-1), operand.of, slope)
    return found


def _scatter(total: np.ndarray, of: tuple[int, ...], part: np.ndarray) -> None:
    """Adds ``part``, one value per element of the function, to the parameter's elements in place."""
    if of:
        np.add.at(total, list(of), part)
    else:
        total += part if total.size == part.size else part.sum()


def unlearnable(made: Derived, learned: Sequence[str]) -> CompileError:
    """The refusal to learn on the chip what the host computes."""
    sources = sorted({o.parameter for o in made.operands.values()} & set(learned))
    where = f", at `{made.line}`" if made.line else ""
    text = " and ".join(sources)
    what, remedy = _instead(made, sources, text)
    return CompileError(f"fit: the chip learns parameters, not {what}{where}; {remedy}, or freeze {text} with "
                        f"requires_grad_(False), not {made.name}")


def _instead(made: Derived, sources: Sequence[str], text: str) -> tuple[str, str]:
    """What the function is, and what to write in place of it."""
    learned = [o for o in made.operands.values() if o.parameter in sources]
    moved = len(learned) == 1 and bool(learned[0].of)
    if moved and made.expr.op in ("param", "var"):
        return (f"{text} in another arrangement (permute, reshape, slices, einsum)",
                f"declare it in the arrangement in which it is used, of shape {made.shape}")
    if moved and len(set(learned[0].of)) == min(made.shape, default=0):
        return f"a matrix with {text} on its diagonal", f"write torch.diag({text}) @ q as {text} * q"
    if moved:
        return (f"elements of {text} among zeros or multiplied (triu, tril, masks)",
                f"make {text} itself the matrix, of shape {made.shape}, whose other elements then learn too, or learn "
                "those that are used as a vector t: (t * q[i] * q[j]).sum()")
    itself = f"write self.{sources[0]}" if len(made.operands) == 1 else "write one nn.Parameter"
    return f"functions of {text}", f"{itself} in place of {made.name} and initialise it with this value"
