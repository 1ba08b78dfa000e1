"""Terms and costs that users write in one line and that take several passes: gradients against autograd."""

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

import echolith as el
from echolith.compiler.reference import bptt

TERMS = {
    "function of a learned sum": lambda s, q: torch.tanh(s.k @ q),
    "square of a learned sum": lambda s, q: (s.k @ q) ** 2,
    "root of a weighted norm": lambda s, q: torch.sqrt(1 + (s.k * q**2).sum()),
    "centred rows": lambda s, q: torch.tanh(s.V(q - q.mean())).sum(),
    "function of a variance": lambda s, q: torch.sqrt(q.var() + 0.1),
    "root mean square norm": lambda s, q: torch.cos(s.V(q / torch.sqrt(q.square().mean() + 0.5))).sum(),
    "logsumexp of rows": lambda s, q: torch.logsumexp(q.view(2, 3), 1).sum(),
    "softmax": lambda s, q: torch.softmax(q, 0) @ q,
    "squares of steep shares": lambda s, q: (torch.softmax(9 * q, 0) ** 2).sum(),
    "entropy": lambda s, q: -(torch.softmax(s.V(q), 0) * torch.log_softmax(s.V(q), 0)).sum(),
    "one bias for all rows": lambda s, q: torch.tanh(s.V(q) + s.b).sum(),
    "convolution to one channel": lambda s, q: torch.tanh(s.conv(q[None])).sum(),
    "elu": lambda s, q: functional.elu(s.V(q)).sum(),
    "quotient with a small number": lambda s, q: (q + 1) @ torch.arange(6.0) / ((q + 1).square().sum().sqrt() + 1e-8),
}
COSTS = {
    "poisson": lambda y, t: (torch.exp(y) - t * y).sum(),
    "cosh": lambda y, t: torch.cosh(y - t).sum(),
    "huber": functional.huber_loss,
}


class Net(nn.Module):
    states, inputs, outputs = {"q": 6}, 2, 1

    def __init__(self, term, cost):
        super().__init__()
        torch.manual_seed(0)
        self.B, self.C = nn.Linear(2, 6), nn.Linear(6, self.outputs)
        self.V, self.conv = nn.Linear(6, 4), nn.Conv1d(1, 1, 3)
        self.k, self.b = nn.Parameter(torch.rand(6) + 0.5), nn.Parameter(torch.zeros(1))
        self.term, self.of = term, cost

    def energy(self, q, u):
        return (q**2).sum() - q @ self.B(u) + self.term(self, q)

    def cost(self, q, y):
        return self.of(self.C(q), y)


class Pair(Net):
    outputs = 2


def gradients(term, cost):
    net, generator = Net(term, cost).double(), np.random.default_rng(0)
    x, y = generator.integers(-8, 9, (16, 4, 2)) / 8, generator.integers(0, 2, (16, 1)).astype(float)
    design = el.compile(net, dynamics=el.Leapfrog(0.25, 2), rule=el.HamiltonianEcho("last"), calibrate=(x, y), lanes=2)
    with design.open("int:") as chip:
        found = chip.gradient(x, y)
    expected, _ = bptt(net, x, y, 0.25, 2)
    return (np.concatenate([g[name].ravel() for name in found]) for g in (found, expected))


@pytest.mark.parametrize("term, cost", [*((t, functional.mse_loss) for t in TERMS.values()),
                                        *((lambda s, q: 0.0 * q.sum(), c) for c in COSTS.values())],
                         ids=[*TERMS, *COSTS])
def test_gradient_agrees_with_autograd(term, cost):
    found, expected = gradients(term, cost)
    assert found @ expected / np.sqrt(found @ found * (expected @ expected)) > 0.99999
    np.testing.assert_allclose(np.linalg.norm(found), np.linalg.norm(expected), rtol=0.01)
