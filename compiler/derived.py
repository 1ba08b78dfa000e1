"""Functions of learned parameters alone: softplus(k), W * mask, A @ A.T, W / W.norm().

The chip holds their values as parameters of their own; the host, which has the functions, computes them and takes
gradients back to what they are made of. A function may be of other functions, which stand before it. numpy only.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from math import prod

import numpy as np

from echolith.compiler.differentiate import derivative, evaluate
from echolith.compiler.errors import CompileError
from echolith.compiler.ir import Expr

__all__ = ["Derived", "Operand", "chained", "completed", "restored", "unlearnable"]

Arrays = dict[str, np.ndarray]


@dataclass(frozen=True)
class Operand:
    """Element i is element ``of[i]`` of the parameter, both flat; () is the parameter as it is, or its one value."""

    parameter: str
    of: tuple[int, ...] = ()


@dataclass(frozen=True)
class Derived:
    """The parameter ``name`` holds a function of ``operands``, by the names that it gives them.

    ``kind`` is "map": the element-wise ``expr``; "sum" or "max": of its ``sizes`` = (results, elements of each), one
    result after the other; "product": of two operands, matrices of ``sizes`` = (matrices, rows, inner, columns)."""

    name: str
    expr: Expr
    operands: dict[str, Operand]
    shape: tuple[int, ...]
    line: str  # of the model, as ``file.py:LINE: text``; empty if unknown
    kind: str = "map"
    sizes: tuple[int, ...] = ()

    @property
    def moves(self) -> bool:
        """Whether it is different elements of a parameter, nothing else."""
        of = next(iter(self.operands.values())).of
        return self.kind == "map" and self.expr.op == "param" and len(set(of)) == len(of)

    def value(self, env: Arrays) -> np.ndarray:
        """Flat, from the operands' values."""
        if self.kind == "product":
            return np.matmul(*self._factors(env)).reshape(-1)
        found = self._elements(evaluate(self.expr, env))
        return found if self.kind == "map" else found.sum(1) if self.kind == "sum" else found.max(1)

    def slopes(self, env: Arrays, seed: np.ndarray) -> Arrays:
        """By operand: the gradient, given that of the value."""
        if self.kind == "product":
            a, b = self._factors(env)
            seed = seed.reshape(*a.shape[:2], b.shape[2])
            found = np.matmul(seed, b.swapaxes(1, 2)), np.matmul(a.swapaxes(1, 2), seed)
            return {text: g.reshape(-1) for text, g in zip(self.operands, found, strict=True)}
        if self.kind == "max":
            found = self._elements(evaluate(self.expr, env))
            top = found == found.max(1, keepdims=True)
            seed = (top / top.sum(1, keepdims=True) * seed[:, None]).reshape(-1)
        elif self.kind == "sum":
            seed = np.repeat(seed, self.sizes[1])
        return {text: self._elements(evaluate(derivative(self.expr, text), env)).reshape(-1) * seed
                for text in self.operands}

    def _elements(self, x: np.ndarray) -> np.ndarray:
        """Of the expression: flat, or a row for each result."""
        return np.broadcast_to(x.reshape(-1), (prod(self.sizes or self.shape),)).reshape(self.sizes or (-1,))

    def _factors(self, env: Arrays) -> tuple[np.ndarray, np.ndarray]:
        batch, rows, inner, columns = self.sizes
        a, b = env.values()
        return a.reshape(batch, rows, inner), b.reshape(batch, inner, columns)


def _operands(made: Derived, values: Mapping[str, np.ndarray]) -> Arrays:
    flat = {text: np.asarray(values[o.parameter], np.float64).reshape(-1) for text, o in made.operands.items()}
    return {text: x[list(made.operands[text].of)] if made.operands[text].of else x for text, x in flat.items()}


def completed(derived: Sequence[Derived], values: Mapping[str, np.ndarray]) -> Arrays:
    """``values`` with the derived parameters computed from the others."""
    found = dict(values)
    for made in derived:
        found[made.name] = made.value(_operands(made, found)).reshape(made.shape).copy()
    return found


def restored(derived: Sequence[Derived], values: Mapping[str, np.ndarray]) -> Arrays:
    """``values`` with the elements that derived parameters are moves of, taken from them."""
    found = dict(values)
    for made in derived:
        if made.moves and made.name in values:
            (operand,) = made.operands.values()
            whole = found[operand.parameter] = np.array(found[operand.parameter])
            flat = np.asarray(values[made.name]).reshape(-1)
            whole.reshape(-1)[list(operand.of) or slice(None)] = flat
    return found


def chained(derived: Sequence[Derived], gradients: Mapping[str, np.ndarray], values: Mapping[str, np.ndarray],
            learned: frozenset[str]) -> Arrays:
    """Gradients of ``learned`` parameters from those of the parameters that the chip holds, derived ones among them."""
    names = {made.name for made in derived}
    found = {name: np.array(g) for name, g in gradients.items()}
    values = completed(derived, values)
    for made in reversed(derived):
        if made.name not in found:
            continue
        slopes = made.slopes(_operands(made, values), found.pop(made.name).reshape(-1))
        for text, operand in made.operands.items():
            if operand.parameter in learned | names:
                total = found.setdefault(operand.parameter, np.zeros(np.shape(values[operand.parameter])))
                _scatter(total.reshape(-1), operand.of, slopes[text])
    return found


def _scatter(total: np.ndarray, of: tuple[int, ...], part: np.ndarray) -> None:
    """Adds ``part``, one value per element of the function, to the parameter's elements in place."""
    if of:
        np.add.at(total, list(of), part)
    else:
        total += part if total.size == part.size else part.sum()


def unlearnable(derived: Sequence[Derived], held: Collection[str], learned: Collection[str]
                ) -> CompileError | None:
    """The refusal to learn on the chip what the host computes; None if all that the chip ``held`` is parameters or
    different elements of them."""
    used: dict[str, list[int]] = {}
    for made in derived:
        if not made.moves or any(o.parameter not in learned for o in made.operands.values()):
            return _refusal(made, derived, learned)
        (operand,) = made.operands.values()
        mine = list(operand.of) or list(range(prod(made.shape)))
        if operand.parameter in held or set(used.setdefault(operand.parameter, [])) & set(mine):
            where = f", at `{made.line}`" if made.line else ""
            return CompileError(f"fit: the chip learns an element of {operand.parameter} in one place{where}; use the "
                                f"whole of it everywhere, or give each place a parameter of its own, not {made.name}")
        used[operand.parameter] += mine
    return None


def _refusal(made: Derived, derived: Sequence[Derived], learned: Collection[str]) -> CompileError:
    sources = sorted(_sources(made, {d.name: d for d in derived}) & set(learned))
    where = f", at `{made.line}`" if made.line else ""
    text = " and ".join(sources)
    what, remedy = _instead(made, sources, text)
    return CompileError(f"fit: the chip learns parameters, not {what}{where}; {remedy}, or freeze {text} with "
                        f"requires_grad_(False), not {made.name}")


def _instead(made: Derived, sources: Sequence[str], text: str) -> tuple[str, str]:
    """What the function is, and what to write in place of it."""
    learned = [o for o in made.operands.values() if o.parameter in sources]
    moved = len(learned) == 1 and bool(learned[0].of)
    if moved and len(set(learned[0].of)) == min(made.shape, default=0):
        return f"a matrix with {text} on its diagonal", f"write torch.diag({text}) @ q as {text} * q"
    if moved:
        return (f"elements of {text} among zeros or multiplied (triu, tril, masks)",
                f"make {text} itself the matrix, of shape {made.shape}, whose other elements then learn too, or learn "
                "those that are used as a vector t: (t * q[i] * q[j]).sum()")
    itself = f"write self.{sources[0]}" if len(made.operands) == 1 else "write one nn.Parameter"
    return f"functions of {text}", f"{itself} in place of {made.name} and initialise it with this value"


def _sources(made: Derived, derived: Mapping[str, Derived]) -> set[str]:
    """Parameters that it is made of in the end."""
    return set().union(*(_sources(derived[o.parameter], derived) if o.parameter in derived else {o.parameter}
                         for o in made.operands.values()))
