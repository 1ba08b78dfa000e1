"""Stacks that are measured: blocks of a Hamiltonian layer, a dense map, GELU, a GLU and a skip, and chains without any.

Every product and every function is a part of its own, so that what runs between parts is what a chip would store.
"""

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import nn

from echolith.compiler.stack import Stack

__all__ = ["INPUTS", "KINDS", "OUTPUTS", "Blocks", "Chain", "Layer"]

INPUTS, OUTPUTS = 8, 10
_WEIGHT_BITS = 16  # fraction bits of all weights
Rounding = Callable[[torch.Tensor], torch.Tensor]


class Layer(nn.Module):
    """What all kinds share. Where integers are studied, ``z`` and ``t`` round sums and activations."""

    z: Rounding | None = None
    t: Rounding | None = None

    def __init__(self, units: int, inputs: int):
        super().__init__()
        self.states, self.inputs = {"q": units}, inputs
        self.k = nn.Parameter(torch.rand(units) + 0.5)
        self.B = nn.Linear(inputs, units)

    def log_cosh(self, z: torch.Tensor, share: torch.Tensor) -> torch.Tensor:
        """sum(log cosh(z) * share). With roundings, its derivative by z is the rounded tanh of the rounded z."""
        if self.z is None or self.t is None:
            return (_log_cosh(z) * share).sum()
        fixed = self.z(z.detach())
        return (self.t(torch.tanh(fixed)) * (z - z.detach()) * share.detach() + _log_cosh(fixed) * share).sum()


def _log_cosh(z: torch.Tensor) -> torch.Tensor:
    return torch.logaddexp(z, -z) - math.log(2.0)


class Linear(Layer):
    """LinOSS: V = q' A q / 2 - q' (B u + b), A diagonal."""

    def energy(self, q, u):
        return 0.5 * (self.k * q**2).sum() - q @ self.B(u)


class Diagonal(Layer):
    """UnICORNN: V = k |q|^2 / 2 + sum log cosh(a q + B u + b) / a, a diagonal."""

    def __init__(self, units: int, inputs: int):
        super().__init__(units, inputs)
        self.a = nn.Parameter(torch.rand(units) + 0.5)

    def energy(self, q, u):
        return 0.5 * (self.k * q**2).sum() + self.log_cosh(self.a * q + self.B(u), 1 / self.a)


class Dense(Layer):
    """V = k |q|^2 / 2 + sum log cosh(W q + B u + b)."""

    def __init__(self, units: int, inputs: int):
        super().__init__(units, inputs)
        self.W = nn.Linear(units, units, bias=False)

    def energy(self, q, u):
        z = self.W(q) + self.B(u)
        return 0.5 * (self.k * q**2).sum() + self.log_cosh(z, torch.ones_like(z))


class _Mix(nn.Module):
    """C q + D x."""

    def __init__(self, units: int, width: int):
        super().__init__()
        self.C, self.D = nn.Linear(units, width), nn.Linear(width, width, bias=False)

    def forward(self, q, x):
        return self.C(q) + self.D(x)


class _Gate(nn.Module):
    """Half of ``z`` times the logistic function of the other."""

    def forward(self, z):
        return F.glu(z, dim=-1)


class _Skip(nn.Module):
    def forward(self, x, y):
        return x + y


KINDS = {"linear": Linear, "diagonal": Diagonal, "dense": Dense}


class _Logits(Stack):
    """Ten classes, by the last part."""

    outputs = OUTPUTS

    def cost(self, q, y):
        return F.cross_entropy(q, y)

    def predict(self, q):
        return q

    def _to_words(self) -> None:
        with torch.no_grad():
            for p in self.parameters():
                p.copy_((p * 2**_WEIGHT_BITS).round() / 2**_WEIGHT_BITS)


class Blocks(_Logits):
    """``blocks`` blocks between a dense map of the inputs and one to the logits."""

    def __init__(self, kind: str, blocks: int, units: int = 16, width: int = 16):
        torch.manual_seed(0)
        parts: dict[str, nn.Module] = {"x0": nn.Linear(INPUTS, width)}
        wires: dict[str, str | tuple[str, ...]] = {}
        for i in range(1, blocks + 1):
            before = f"x{i - 1}"
            parts |= {f"layer{i}": KINDS[kind](units, width), f"mix{i}": _Mix(units, width), f"gelu{i}": nn.GELU(),
                      f"wide{i}": nn.Linear(width, 2 * width), f"gate{i}": _Gate(), f"x{i}": _Skip()}
            wires |= {f"layer{i}": before, f"mix{i}": (f"layer{i}", before), f"x{i}": (before, f"gate{i}")}
        super().__init__({**parts, "logits": nn.Linear(width, OUTPUTS)}, wires, inputs=INPUTS)
        self._to_words()


class Chain(_Logits):
    """Layers and tanh(C q + d) in turns; a small ``gain`` of the maps makes gradients small below."""

    def __init__(self, kind: str, layers: int, gain: float, units: int = 16):
        torch.manual_seed(0)
        parts: dict[str, nn.Module] = {"x0": nn.Linear(INPUTS, units)}
        for i in range(1, layers + 1):
            parts |= {f"layer{i}": KINDS[kind](units, units), f"mix{i}": nn.Linear(units, units), f"tanh{i}": nn.Tanh()}
        super().__init__({**parts, "logits": nn.Linear(units, OUTPUTS)}, inputs=INPUTS)
        with torch.no_grad():
            for i in range(1, layers + 1):
                self.get_parameter(f"mix{i}.weight").mul_(gain)
        self._to_words()
