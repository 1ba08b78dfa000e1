"""XOR learned by Hamiltonian echo backpropagation: parameters have momenta, and nothing computes a gradient.

Oscillators see two inputs for eight steps; the first one's last position is the answer. The cost kicks that one
oscillator by how far it is off, everything runs back, and what the parameters' momenta have gained moves them.

    python -m echolith.examples.xor          # integer model
    python -m echolith.examples.xor sim:     # the core's RTL, simulated, behind its link
"""

import sys

import numpy as np
import torch
from torch import nn

import echolith as el

__all__ = ["X", "Y", "Xor", "learned", "main"]

_INPUTS = np.array([[-1, -1], [-1, 1], [1, -1], [1, 1]], float)
X = np.repeat(_INPUTS[:, None], 8, axis=1)  # (samples, steps, inputs)
Y = -np.prod(_INPUTS, axis=1, keepdims=True) / 2  # (samples, outputs)
_RATE, _MOMENTUM, _EPOCHS = 0.2, 0.5, 400


class Xor(nn.Module):
    """V = k q^2 / 2 + sum log cosh(W q + B u + b) of eight units, the first of which is read."""

    states, inputs, outputs = {"q": 8}, 2, 1

    def __init__(self):
        super().__init__()
        self.W, self.B = nn.Linear(8, 8, bias=False), nn.Linear(2, 8)
        self.k = nn.Parameter(torch.ones(8))

    def energy(self, q, u):
        return 0.5 * (self.k * q**2).sum() + torch.log(torch.cosh(self.W(q) + self.B(u))).sum()

    def cost(self, q, y):
        return 0.5 * ((q[:1] - y) ** 2).sum()

    def predict(self, q):
        return q[:1]


def learned(url: str = "int:", seed: int = 0, *, epochs: int = _EPOCHS) -> tuple[np.ndarray, list[float], bool]:
    """Outputs of the four samples after learning, loss by epoch, and whether un-nudged momenta return bit for bit."""
    torch.manual_seed(seed)
    design = el.compile(Xor(), dynamics=el.Leapfrog(0.25, 2), rule=el.EchoBackpropagation(), calibrate=(X, Y),
                        lanes=4)
    with design.open(url) as chip:
        history = chip.fit(X, Y, epochs=epochs, batch_size=4, learning_rate=_RATE, momentum=_MOMENTUM, seed=seed)
        return chip.predict(X)[:, 0], history.loss, chip.echo(X).exact


def main(url: str) -> None:
    found, losses, exact = learned(url)
    print(f"loss {losses[0]:.3f} -> {losses[-1]:.2g}",
          "momenta return bit for bit" if exact else "MOMENTA DO NOT RETURN")
    for inputs, output, target in zip(_INPUTS, found, Y[:, 0], strict=True):
        print(f"  {inputs[0]:+.0f} {inputs[1]:+.0f}: {output:+.3f}, target {target:+.1f}")


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else "int:")
