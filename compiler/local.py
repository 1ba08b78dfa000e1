"""The parts of a stack over a batch, and the derivatives that each of them has by itself.

None of these reaches beyond one part and one step. They are float64, of a copy of the stack, and keep the graph of
autograd only where it is enabled and their arguments have one. Batches come first in all shapes.
"""

from collections.abc import Callable, Iterable
from typing import cast

import torch

from echolith.compiler.stack import Stack, value_shapes
from echolith.compiler.trace import double, float64

__all__ = ["Gradients", "Local", "Values"]

Values = dict[str, torch.Tensor]  # by source
Gradients = dict[str, torch.Tensor]  # by parameter


class Local:
    """Raises CompileError for stacks whose parts do not fit each other.

    Attributes
    ----------
    stack
        The copy.
    learned
        Its parameters that learn, by name.
    """

    def __init__(self, stack: Stack):
        self.shapes = value_shapes(stack)
        self.stack = cast(Stack, double(stack))
        self.learned = {name: p for name, p in self.stack.named_parameters() if p.requires_grad}

    def rest(self, batch: int) -> Values:
        """Zeros for all positions, or momenta."""
        return {name: torch.zeros(batch, *self.shapes[name], dtype=torch.float64) for name in self.stack.layers}

    def values(self, q: Values, u: torch.Tensor) -> Values:
        with float64():
            return torch.func.vmap(self.stack.values)(q, u)

    def fed(self, layer: str, values: Values) -> torch.Tensor:
        return torch.func.vmap(lambda v: self.stack.fed(layer, v))(values)

    def force(self, layer: str, q: torch.Tensor, u: torch.Tensor) -> torch.Tensor:
        """dV/dq."""
        with float64():
            return torch.func.vmap(torch.func.grad(self._method(layer, "energy")))(q, u)

    def velocity(self, layer: str, p: torch.Tensor) -> torch.Tensor:
        """dT/dp."""
        if not self._kinetic(layer):
            return p
        with float64():
            return torch.func.vmap(torch.func.grad(self._method(layer, "kinetic")))(p)

    def contrast(
        self, layer: str, up: torch.Tensor, down: torch.Tensor, u: torch.Tensor, weight: torch.Tensor
    ) -> tuple[torch.Tensor, Gradients]:
        """Derivatives of V at position ``up`` minus V at ``down``, times ``weight`` (batch,): by the input, and by
        parameter, summed over the batch."""
        given, leaves = u.detach().requires_grad_(), self._own(self.stack.get_submodule(layer))
        energy = torch.func.vmap(self._method(layer, "energy"))
        with torch.enable_grad(), float64():
            parted = energy(up.detach(), given) - energy(down.detach(), given)
        by_input, *found = _pulled(parted, [given, *leaves.values()], weight)
        return by_input, dict(zip(leaves, found, strict=True))

    def kinetic_contrast(self, layer: str, up: torch.Tensor, down: torch.Tensor, weight: torch.Tensor) -> Gradients:
        """dT/dparameter at momentum ``up`` minus at ``down``, times ``weight`` (batch,), summed over the batch."""
        if not self._kinetic(layer):
            return {}
        kinetic, leaves = torch.func.vmap(self._method(layer, "kinetic")), self._own(self.stack.get_submodule(layer))
        with torch.enable_grad(), float64():
            parted = kinetic(up.detach()) - kinetic(down.detach())
        return dict(zip(leaves, _pulled(parted, leaves.values(), weight), strict=True))

    def pulled(self, block: str, values: Values, handed: torch.Tensor) -> tuple[Values, Gradients]:
        """The vector-Jacobian product of one block with ``handed``: by source, and by parameter, summed over the
        batch."""
        part, wires = self.stack.get_submodule(block), self.stack.wires[block]
        given, leaves = [values[source].detach().requires_grad_() for source in wires], self._own(part)
        with torch.enable_grad(), float64():
            value = torch.func.vmap(part)(*given)
        found = _pulled(value, [*given, *leaves.values()], handed)
        by_source: Values = {}
        for source, one in zip(wires, found, strict=False):
            by_source[source] = by_source[source] + one if source in by_source else one
        return by_source, dict(zip(leaves, found[len(given):], strict=True))

    def cost(self, value: torch.Tensor, y: torch.Tensor, factor: torch.Tensor) -> tuple[torch.Tensor, Gradients]:
        """Derivatives of cost times factor: by the value, and by parameter, summed over the batch."""
        given = value.detach().requires_grad_()
        with torch.enable_grad(), float64():
            costs = self.costs(given, y)
        by_value, *found = _pulled(costs, [given, *self.learned.values()], factor)
        return by_value, dict(zip(self.learned, found, strict=True))

    def costs(self, value: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        """(batch,)"""
        with float64():
            return torch.func.vmap(self._method(None, "cost"))(value, y)

    def outputs(self, value: torch.Tensor) -> torch.Tensor:
        """What the stack predicts, or the value itself where it has no predict."""
        if not callable(getattr(self.stack, "predict", None)):
            return value.detach()
        with float64(), torch.no_grad():
            return torch.func.vmap(self._method(None, "predict"))(value.detach())

    def _kinetic(self, layer: str) -> bool:
        return callable(getattr(self.stack.get_submodule(layer), "kinetic", None))

    def _method(self, part: str | None, name: str) -> Callable[..., torch.Tensor]:
        return getattr(self.stack if part is None else self.stack.get_submodule(part), name)

    def _own(self, part: torch.nn.Module) -> Gradients:
        """The parameters of a part that learn, under their names in the stack."""
        own = {id(p) for p in part.parameters()}
        return {name: p for name, p in self.learned.items() if id(p) in own}


def _pulled(value: torch.Tensor, leaves: Iterable[torch.Tensor], weight: torch.Tensor) -> list[torch.Tensor]:
    """d(value . weight)/d(leaf) of every leaf."""
    leaves = list(leaves)
    if not value.requires_grad or not leaves:
        return [torch.zeros_like(leaf) for leaf in leaves]
    return list(torch.autograd.grad(value, leaves, weight, allow_unused=True, materialize_grads=True))
