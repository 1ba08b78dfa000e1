"""The energy of a damped motion with its factors taken out of nodes is the same energy."""

import numpy as np
import pytest
import torch
from energies import MODELS, STEPS
from torch import nn

import echolith as el
from echolith.compiler import numeric
from echolith.compiler.boundaries import boundary_reference
from echolith.compiler.capture import capture
from echolith.compiler.cycles import cycles
from echolith.compiler.damped import damped
from echolith.compiler.homogeneous import homogeneous
from echolith.compiler.prepare import prepared

SAMPLES = 4


class Spring(nn.Module):
    """Linear: no factor is left in its force."""

    states, inputs, outputs = {"q": 5}, 3, 2

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.k = nn.Parameter(torch.rand(5) + 0.5)
        self.B, self.C = nn.Linear(3, 5), nn.Linear(5, 2)

    def energy(self, q, u):
        return 0.5 * (self.k * q**2).sum() + ((q[1:] - q[:-1]) ** 2).sum() - (q * self.B(u)).sum()

    def cost(self, q, y):
        return 0.5 * ((self.C(q) - y) ** 2).sum()


class Shifted(Spring):
    """A vector that is learned at rest."""

    def __init__(self):
        super().__init__()
        self.b = nn.Parameter(torch.randn(5))

    def energy(self, q, u):
        return 0.5 * (self.k * (q - self.b) ** 2).sum() - (q * self.B(u)).sum()


class Mixed(Spring):
    """Nodes of which a part has a factor and a part has not, one bias in two places, |q|, a quotient, a norm."""

    def __init__(self):
        super().__init__()
        self.W, self.V = nn.Linear(5, 4), nn.Linear(4, 4, bias=False)

    def energy(self, q, u):
        z = self.W(q)
        v = self.V(torch.tanh(z)) + self.W.bias + self.B(u)[:4]
        return (0.5 * (q**2).sum() + torch.log(torch.cosh(v + z)).sum() + torch.sqrt((q**2).sum() + 1)
                + (torch.sqrt(q**2 + 0.1) * self.k).sum() + (q / (1 + q**2)).sum())


def graphs(model, rate=0.7):
    """Before and behind, states, and inputs whose factors are such."""
    net = model()
    draws = np.random.default_rng(0)
    x = draws.uniform(-1, 1, (SAMPLES, STEPS, net.inputs))
    made, _, (rows, _), damping = damped(net, el.Leapfrog(0.3, 1), el.LagrangianEcho(dissipation=rate),
                                         (x, np.zeros((SAMPLES, net.outputs))))
    graph = capture(made)
    q = {s: draws.uniform(-1, 1, (SAMPLES * STEPS, n)) for s, n in graph.states.items()}
    return graph, homogeneous(graph, damping.largest), q, rows.reshape(-1, rows.shape[2])


def plain(model):
    return not hasattr(model, "kinetic")


@pytest.mark.parametrize("model", [*filter(plain, MODELS), Spring, Shifted, Mixed])
def test_forces_and_gradients_are_the_same(model):
    before, behind, q, u = graphs(model)
    for graph in (behind, prepared(behind)):
        expected, found = (numeric.Force(g)(q, u) for g in (before, graph))
        for state in before.states:
            np.testing.assert_allclose(found[state], expected[state], rtol=1e-9, atol=1e-12)
        expected, found = (numeric.gradient(g, q, u) for g in (before, graph))
        for name in expected:
            np.testing.assert_allclose(found[name], expected[name], rtol=1e-9, atol=1e-12)


def test_what_is_linear_has_no_factor():
    x, y = np.random.default_rng(0).normal(size=(8, 6, 3)), np.random.default_rng(1).normal(size=(8, 2))
    made, still = (el.compile(Spring(), dynamics=el.Leapfrog(0.3, 1), rule=el.LagrangianEcho(dissipation=rate),
                              calibrate=(x, y)) for rate in (0.5, 0.0))
    taken, before = (cycles(d.program, d.entries["learn"], d.hardware) for d in (made, still))
    assert taken < 1.1 * before


@pytest.mark.parametrize("model", [Spring, Shifted, Mixed])
def test_the_chip_learns_what_backpropagation_does(model):
    draws = np.random.default_rng(0)
    x, y = draws.normal(size=(32, 6, 3)), draws.normal(size=(32, 2))
    design = el.compile(model(), dynamics=el.Leapfrog(0.25, 1), rule=el.LagrangianEcho(dissipation=1.0),
                        calibrate=(x, y))
    with design.open() as chip:
        assert chip.echo(x).exact
        found = chip.gradient(x, y)
    expected = boundary_reference(model(), x, y, 0.25, 1, boundary="final", dissipation=1.0)
    total = np.sqrt(sum((g**2).sum() for g in expected.values()))
    for name, g in expected.items():
        if np.linalg.norm(g) >= 0.01 * total:
            assert (g * found[name]).sum() / np.linalg.norm(g) / np.linalg.norm(found[name]) > 0.999, name
