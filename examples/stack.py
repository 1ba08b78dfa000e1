"""A stack of two Hamiltonian layers on handwritten digits: one backward sweep of echoes beside autograd through time,
in float64 and in the chip's integers.

    python -m echolith.examples.stack
"""

import numpy as np
import torch
from torch import nn

import echolith as el
from echolith.compiler.reference import bptt
from echolith.compiler.stacked import stack_echo
from echolith.examples.digits import DT, SUBSTEPS, data

__all__ = ["Chain", "Digits", "Gate", "Layer", "compare", "main"]

_SAMPLES = 32


class Layer(nn.Module):
    """V = k |q|^2 / 2 + sum log cosh(W q + B u + b)."""

    def __init__(self, inputs: int, units: int):
        super().__init__()
        self.states, self.inputs = {"q": units}, inputs
        self.W, self.B = nn.Linear(units, units, bias=False), nn.Linear(inputs, units)
        self.k = nn.Parameter(torch.ones(units))

    def energy(self, q, u):
        return 0.5 * (self.k * q**2).sum() + torch.log(torch.cosh(self.W(q) + self.B(u))).sum()


class Gate(nn.Module):
    """The row of pixels, mapped, plus as much of a layer as a gate lets through."""

    def __init__(self, inputs: int, units: int, outputs: int):
        super().__init__()
        self.skip = nn.Linear(inputs, outputs)
        self.map, self.gate = nn.Linear(units, outputs), nn.Linear(units, outputs)

    def forward(self, u, q):
        return self.skip(u) + self.map(q) * torch.sigmoid(self.gate(q))


class Digits(el.Stack):
    outputs = 10

    def __init__(self):
        parts = {"low": Layer(8, 32), "gate": Gate(8, 32, 16), "high": Layer(16, 32), "logits": nn.Linear(32, 10)}
        super().__init__(parts, wires={"gate": ("u", "low")}, inputs=8)

    def cost(self, q, y):
        return nn.functional.binary_cross_entropy_with_logits(q, y, reduction="sum")

    def predict(self, q):
        return q


class Chain(el.Stack):
    """Two layers with tanh(F q + f) between; a readout C q + d."""

    outputs = 10

    def __init__(self, units: int = 32, width: int = 16):
        parts = {"low": Layer(8, units), "map": nn.Linear(units, width), "tanh": nn.Tanh(), "high": Layer(width, units)}
        super().__init__(parts, inputs=8)
        self.C = nn.Linear(units, self.outputs)
        with torch.no_grad():  # as of `digits.Digits`
            self.get_parameter("low.W.weight").mul_(3)
            self.get_parameter("low.B.weight").mul_(3)

    def cost(self, q, y):
        return nn.functional.binary_cross_entropy_with_logits(self.C(q), y, reduction="sum")

    def predict(self, q):
        return self.C(q)


def compare(samples: int = _SAMPLES) -> dict[str, tuple[float, float]]:
    """Cosines between gradients by echoes, in float64 and in integers, and autograd's, by part."""
    torch.manual_seed(0)
    net = Digits()
    x, y = (values[:samples] for values in data())
    expected = bptt(net, x, y, DT, SUBSTEPS)[0]
    design = el.compile(net, dynamics=el.Leapfrog(DT, SUBSTEPS), rule=el.HamiltonianEcho(), calibrate=(x, y), lanes=8)
    with design.open("int:") as chip:
        found = stack_echo(net, x, y, DT, SUBSTEPS)[0], chip.gradient(x, y)
    cosines = {}
    for part in net.order:
        a, b, c = (np.concatenate([g[n].ravel() for n in sorted(g) if n.startswith(f"{part}.")])
                   for g in (*found, expected))
        cosines[part] = tuple(float(g @ c / np.linalg.norm(g) / np.linalg.norm(c)) for g in (a, b))
    return cosines


def main() -> None:
    for part, (real, integer) in compare().items():
        print(f"{part:8} cosine to autograd's gradient: float64 {real:.12f}, the chip's integers {integer:.7f}")


if __name__ == "__main__":
    main()
