"""A stack as two models that `capture` understands: all layers with what they are fed, and what feeds them.

    layers:  sum of V_l(q_l, x_l)                        states q_l and x_l, which is no state but is read like one
    joins:   sum of e_l . F_l(q of the layers below, u)  states q_l and e_l

F_l is all that lies between layers: what layer l is fed. Parameters keep their names, because both models are the stack
itself with other methods.
"""

import copy
from collections.abc import Mapping

import torch

from echolith.compiler.errors import CompileError
from echolith.compiler.stack import Stack, value_shapes
from echolith.compiler.steps import error, fed
from echolith.compiler.trace import shapes
from echolith.compiler.wires import INPUT

__all__ = ["fed_layers", "joined_layers", "joins"]

def fed_layers(stack: Stack) -> dict[str, int]:
    """Layers that are not fed by the input row itself, with the width of what they are fed."""
    value_shapes(stack)
    found = {name: int(getattr(stack.get_submodule(name), "inputs")) for name in stack.layers  # noqa: B009 - see trace
             if stack.wires[name] != (INPUT,)}
    for name in stack.layers:
        if name in map(fed, stack.layers) or name in map(error, stack.layers):
            raise CompileError(f"parts: names must not be those of what layers are fed on a chip, not {name!r}")
    return found


def joined_layers(stack: Stack) -> torch.nn.Module:
    """The layers: every one with its own energy, none that feels another."""
    widths = fed_layers(stack)
    methods = {"cost": _cost, "predict": _predict}
    methods = {name: method for name, method in methods.items() if callable(getattr(stack, name, None))}
    if not methods:
        name = type(stack).__name__
        raise CompileError(f"{name} must define cost(self, q, y) or, for inference alone, predict(self, q), not {name} "
                           "without them")
    methods["energy"] = _energy
    if any(callable(getattr(stack.get_submodule(name), "kinetic", None)) for name in stack.layers):
        methods["kinetic"] = _kinetic
    return _model(stack, methods, {**_sizes(stack), **{fed(name): n for name, n in widths.items()}})


def joins(stack: Stack) -> torch.nn.Module:
    """What feeds the layers, as an energy that is linear in the errors."""
    widths = fed_layers(stack)
    return _model(stack, {"energy": _joins}, {**_sizes(stack), **{error(name): n for name, n in widths.items()}})


def _sizes(stack: Stack) -> dict[str, tuple[int, ...]]:
    found = {}
    for name in (*(n for n in stack.layers if n != stack.output), *(n for n in stack.layers if n == stack.output)):
        ((_, found[name]),) = shapes(stack.get_submodule(name)).items()
    return found


def _model(stack: Stack, methods: Mapping[str, object], states: Mapping[str, object]) -> torch.nn.Module:
    model = copy.copy(stack)
    own = {"cost": None, "predict": None, **methods, "stack_class": type(stack)}
    model.__class__ = type(type(stack).__name__, (type(stack),), own)
    model.__dict__["states"] = dict(states)
    return model


def _positions(self, values: tuple[torch.Tensor, ...]) -> dict[str, torch.Tensor]:
    return dict(zip(self.states, values, strict=True))


def _energy(self, *arguments: torch.Tensor) -> torch.Tensor:
    *values, u = arguments
    given = _positions(self, tuple(values))
    total = u.new_zeros(())
    for name in self.layers:
        x = given[fed(name)] if fed(name) in given else u
        total = total + self.get_submodule(name).energy(given[name], x)
    return total


def _kinetic(self, *momenta: torch.Tensor) -> torch.Tensor:
    total = momenta[0].new_zeros(())
    for name, p in _positions(self, momenta).items():
        own = getattr(self.get_submodule(name), "kinetic", None) if name in self.layers else None
        total = total + (own(p) if callable(own) else (p * p).sum() / 2)  # type: ignore[operator]
    return total


def _joins(self, *arguments: torch.Tensor) -> torch.Tensor:
    *values, u = arguments
    given = _positions(self, tuple(values))
    found = self.values({name: given[name] for name in self.layers}, u)
    total = u.new_zeros(())
    for name in self.layers:
        if error(name) in given:
            total = total + (given[error(name)] * self.fed(name, found)).sum()
    return total


def _read(self, values: tuple[torch.Tensor, ...]) -> torch.Tensor:
    """The value of the last part; blocks may only come between it and layers."""
    positions = {name: v for name, v in _positions(self, values).items() if name in self.layers}
    return self.values(positions, values[0].new_zeros(self.inputs))[self.output]


def _cost(self, *arguments: torch.Tensor) -> torch.Tensor:
    *values, y = arguments
    return self.stack_class.cost(self, _read(self, tuple(values)), y)


def _predict(self, *values: torch.Tensor) -> torch.Tensor:
    return self.stack_class.predict(self, _read(self, values))

