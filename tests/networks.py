"""Networks for the tests of the machine."""

import torch
from torch import nn

__all__ = ["Oscillators"]


class Oscillators(nn.Module):
    """Stiff units, optionally quartic, coupled through log-cosh rows; a linear readout."""

    def __init__(self, units, rows, inputs, outputs, *, quartic=0.05, mse=False, bias=True):
        super().__init__()
        self.states, self.inputs, self.outputs = {"q": units}, inputs, outputs
        self.quartic, self.mse = quartic, mse
        self.W = nn.Linear(units, rows, bias=False)
        self.B = nn.Linear(inputs, rows, bias=bias)
        self.C = nn.Linear(units, outputs, bias=bias)
        self.k = nn.Parameter(torch.ones(units))

    def energy(self, q, u):
        local = 0.5 * (self.k * q**2).sum() + self.quartic * (q**4).sum()
        return local + torch.log(torch.cosh(self.W(q) + self.B(u))).sum()

    def cost(self, q, y):
        if self.mse:
            return 0.5 * ((self.C(q) - y) ** 2).sum()
        return nn.functional.binary_cross_entropy_with_logits(self.C(q), y, reduction="sum")

    def predict(self, q):
        return self.C(q)
