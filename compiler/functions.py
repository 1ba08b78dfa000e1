"""Operators on learned parameters alone: linear combinations, and element-wise functions of moved elements."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch

from echolith.compiler.differentiate import derivative, names, substitute
from echolith.compiler.ir import Expr, const, param, var
from echolith.compiler.ops import add, apply, intern, mul
from echolith.compiler.site import Site
from echolith.compiler.spellings import ELEMENTWISE
from echolith.compiler.values import Array, Fixed, Part, Store

__all__ = ["combination", "filled", "function", "joined", "settled"]

_RULES: dict[str, Callable[..., Expr]] = {
    **ELEMENTWISE, "masked_fill": lambda x, mask, value: apply("where", mask, value, x),
}  # fmt: skip


def combination(site: Site, args: Sequence[Any], options: Mapping[str, Any], result: torch.Tensor) -> Fixed | None:
    """Learned tensors added, subtracted, or scaled by a number."""
    a, b = (*args, None)[:2]
    if any(isinstance(v, Fixed) and v.expr is not None for v in (a, b)):
        return None
    alpha = float(options.get("alpha", 1))
    if site.operator in ("add", "sub") and isinstance(a, Fixed | int | float) and isinstance(b, Fixed | int | float):
        sign = alpha if site.operator == "add" else -alpha
        left, right = _summands(site, a, result), _summands(site, b, result)
        return Fixed(result, (*left, *(replace(p, scale=p.scale * sign) for p in right)), True, line=site.line)
    factor = -1.0 if site.operator == "neg" else None
    if site.operator in ("mul", "div"):
        if site.operator == "mul" and not (isinstance(a, Fixed) and a.learned):
            a, b = b, a
        plain = b.number() if isinstance(b, Fixed) and b.tensor.numel() == 1 else b
        factor = plain if isinstance(plain, int | float) else None
        factor = 1 / factor if factor and site.operator == "div" else factor
    if factor is None or not isinstance(a, Fixed):
        return None
    return Fixed(result, tuple(replace(p, scale=p.scale * factor) for p in a.parts), True, line=site.line)


def _summands(site: Site, value: Fixed | float, result: torch.Tensor) -> tuple[Part, ...]:
    """The parts of a term of a sum, broadcast to its result."""
    fixed = value if isinstance(value, Fixed) else Fixed(torch.tensor(float(value), dtype=torch.float64))
    if fixed.parts:
        return tuple(replace(p, probe=p.probe.broadcast_to(result.shape)) for p in fixed.parts)
    return (_constant(site.store, fixed.tensor, result.shape),)


def _constant(store: Store, tensor: torch.Tensor, shape: torch.Size) -> Part:
    array = tensor.to(torch.float64).broadcast_to(shape).contiguous()
    return Part(store.constant(array.numpy()), 1.0, torch.arange(array.numel()).reshape(array.shape))


def function(site: Site, args: Sequence[Any], options: Mapping[str, Any], result: Any) -> Fixed | None:
    """An element-wise function of known tensors, learned ones among them; None for other operators."""
    if site.operator not in _RULES or not isinstance(result, torch.Tensor):
        return None
    parts: list[Part] = []
    plain = [_operand(site, a, result.shape, parts) if isinstance(a, Fixed) else a for a in args]
    try:
        expr = add(_RULES[site.operator](*plain, **options), 0)
    except TypeError:  # a variant that the rules for arrays refuse by name
        return None
    return Fixed(result, tuple(parts), True, expr, site.line)


def _operand(site: Site, value: Fixed, shape: torch.Size, parts: list[Part]) -> Expr:
    """``value`` broadcast to ``shape`` as an expression over ``parts``, to which its own are added."""
    number = value.number()
    if number is not None:
        return const(number)
    known = replace(value, parts=()) if not value.learned else value
    own = known.parts or (_constant(site.store, known.tensor, shape),)
    placed = {str(i): _place(replace(p, scale=1.0, probe=p.probe.broadcast_to(shape)), parts)
              for i, p in enumerate(own)}
    return substitute(replace(known, parts=own).form, placed)


def _place(part: Part, parts: list[Part]) -> Expr:
    """The variable of ``part`` among ``parts``."""
    for i, other in enumerate(parts):
        if other.name == part.name and torch.equal(other.probe, part.probe):
            return intern(var(str(i)))
    parts.append(part)
    return intern(var(str(len(parts) - 1)))


def filled(site: Site, value: Fixed, args: Sequence[Any], operator: Callable[[torch.Tensor], torch.Tensor]
           ) -> Fixed | None:  # fmt: skip
    """A function moved by an ``operator`` that also puts zeros; None if it puts another number."""
    if site.operator == "constant_pad_nd" and len(args) > 2 and args[2] != 0:
        return None
    marked = operator(torch.ones_like(value.tensor))
    parts: list[Part] = []
    moved = [replace(p, probe=operator(p.probe)) for p in value.parts]
    inner = _operand(site, replace(value, tensor=marked, parts=tuple(moved)), marked.shape, parts)
    mask = _place(_constant(site.store, marked, marked.shape), parts)
    return Fixed(operator(value.tensor), tuple(parts), True, mul(mask, inner), site.line)


def joined(site: Site, values: Sequence[Fixed], operator: Callable[[list[torch.Tensor]], torch.Tensor],
           result: torch.Tensor) -> Fixed:  # fmt: skip
    """Arrays of several axes beside each other: each in its places, 0 elsewhere, and their sum."""
    parts: list[Part] = []
    total = const(0)
    for i, value in enumerate(values):
        def moved(x: torch.Tensor, i: int = i) -> torch.Tensor:
            return operator([x if j == i else torch.zeros(v.shape, dtype=x.dtype) for j, v in enumerate(values)])

        marked = moved(torch.ones(value.shape, dtype=torch.float64))
        own = [replace(p, probe=moved(p.probe)) for p in value.parts]
        inner = _operand(site, replace(value, tensor=moved(value.tensor), parts=tuple(own)), result.shape, parts)
        mask = _place(_constant(site.store, marked, result.shape), parts)
        total = add(total, mul(mask, inner) if value.learned else inner)
    return Fixed(result, tuple(parts), True, total, site.line)


def settled(store: Store, value: Any) -> Any:
    """A function of learned parameters as what the chip holds: a derived parameter, or, where it is a vector that is
    linear in each of them, as the products that the chip learns by itself."""
    if not isinstance(value, Fixed) or value.expr is None:
        return value
    if value.tensor.ndim <= 1 and all(map(store.in_place, value.parts)) and _linear(value.expr, value.parts, store):
        leaves = {str(i): _leaf(store, p) for i, p in enumerate(value.parts)}
        return Array(value.shape, substitute(value.expr, leaves))
    return store.derived_from(value)


def _linear(expr: Expr, parts: Sequence[Part], store: Store) -> bool:
    moving = [str(i) for i, p in enumerate(parts) if p.name in store.learned]
    return all(name not in names(derivative(expr, name)) for name in moving)


def _leaf(store: Store, part: Part) -> Expr:
    number = store.repeated(part.name)
    return intern(param(part.name)) if number is None else const(number)
