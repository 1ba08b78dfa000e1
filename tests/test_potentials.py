"""Energies of the supported form, each against float64 autograd and, bit for bit, in RTL."""


import numpy as np
import pytest
import torch
from networks import Oscillators
from test_machine import compare, data
from torch import nn

import echolith as el
from echolith.compiler.reference import bptt

UNITS, ROWS, INPUTS, OUTPUTS, STEPS = 7, 6, 3, 2, 8


class Base(nn.Module):
    states, inputs, outputs = {"q": UNITS}, INPUTS, OUTPUTS

    def __init__(self):
        super().__init__()
        self.W, self.B = nn.Linear(UNITS, ROWS), nn.Linear(INPUTS, ROWS)  # two biases, summed
        self.C = nn.Linear(UNITS, OUTPUTS)
        self.k = nn.Parameter(torch.rand(UNITS) + 0.5)

    def z(self, q, u):
        return self.W(q) + self.B(u)

    def cost(self, q, y):
        return nn.functional.mse_loss(self.C(q), y)


class Pendulums(Base):
    """A learned gain on a tabulated potential, softplus rows."""

    def energy(self, q, u):
        return (self.k * (1 - torch.cos(q))).sum() + 0.2 * (q @ q) + nn.functional.softplus(self.z(q, u)).sum()


class Duffing(Base):
    """Two learned vectors, one learned scalar for all units, swish rows."""

    def __init__(self):
        super().__init__()
        self.c = nn.Parameter(torch.full((UNITS,), 0.1))
        self.a = nn.Parameter(torch.tensor(0.7))

    def energy(self, q, u):
        local = 0.5 * (self.k * q**2).sum() + 0.25 * (self.c * q**4).sum() + 0.5 * self.a * (q**2).sum()
        z = self.z(q, u)
        return local + (z.sigmoid() * z).sum()


class Frozen(Base):
    """Frozen recurrence and stiffness; only drive and readout learn; sqrt(1 + z^2) rows."""

    def __init__(self):
        super().__init__()
        self.W.requires_grad_(False)
        self.k.requires_grad_(False)

    def energy(self, q, u):
        return 0.5 * (self.k * q**2).sum() + torch.sqrt(1 + self.z(q, u) ** 2).sum()

    def cost(self, q, y):
        return nn.functional.binary_cross_entropy(torch.sigmoid(self.C(q)), y, reduction="sum")


class Bare(nn.Module):
    """No drive bias, no local potential, readout without bias; quadratic rows (a linear network)."""

    states, inputs, outputs = {"q": UNITS}, INPUTS, OUTPUTS

    def __init__(self):
        super().__init__()
        self.W = nn.Parameter(torch.randn(ROWS, UNITS) * 0.4)
        self.B = nn.Parameter(torch.randn(INPUTS, ROWS) * 0.4)
        self.C = nn.Parameter(torch.randn(UNITS, OUTPUTS) * 0.4)

    def energy(self, q, u):
        return 0.5 * ((self.W @ q + u @ self.B) ** 2).sum()

    def cost(self, q, y):
        return ((q @ self.C - y) ** 2).sum()


def case(model, cost_at, dt=0.25):
    torch.manual_seed(0)
    model = model().double()
    x, y = data(np.random.default_rng(0), 32, STEPS, INPUTS, OUTPUTS, cost_at)
    design = el.compile(model, dynamics=el.Leapfrog(dt, 2), rule=el.HamiltonianEcho(cost_at), calibrate=(x, y), lanes=3)
    return model, design, x, y


def cosine(a, b):
    return float(np.sum(a * b) / np.sqrt(np.sum(a * a) * np.sum(b * b)))


@pytest.mark.parametrize("cost_at", ["last", "every"])
@pytest.mark.parametrize("model", [Pendulums, Duffing, Frozen, Bare])
def test_gradient_agrees_with_autograd(model, cost_at):
    model, design, x, y = case(model, cost_at, 0.3)
    with design.open("int:") as chip:
        for _ in range(2):  # untrained, then after some learning
            found = chip.gradient(x, y)
            state = chip.state_dict()
            with torch.no_grad():
                for name, parameter in model.named_parameters():
                    parameter.copy_(torch.from_numpy(state[name]))
            expected, _outputs = bptt(model, x, y, 0.3, 2, cost_at)
            expected = {name: np.asarray(expected[name]) for name in found}
            total = np.sqrt(sum(np.sum(g**2) for g in expected.values()))
            flat = [np.concatenate([g[n].ravel() for n in found]) for g in (found, expected)]
            assert cosine(*flat) >= (0.9999 if cost_at == "last" else 0.9998)
            for name, want in expected.items():
                if np.sqrt(np.sum(want**2)) >= 0.01 * total and want.size > 1:
                    assert cosine(found[name], want) >= 0.999, name
                assert found[name].shape == want.shape
            np.testing.assert_allclose(np.linalg.norm(flat[0]), np.linalg.norm(flat[1]), rtol=0.01)
            chip.fit(x, y, epochs=4, batch_size=8, learning_rate=0.05, momentum=0.5)


@pytest.mark.parametrize("model, cost_at", [(Pendulums, "last"), (Duffing, "every"), (Bare, "last")])
def test_rtl_equals_the_integer_model(simulate, model, cost_at):
    _, design, _, _ = case(model, cost_at)
    compare(design, simulate(design), 3, cost_at, 0.9)


@pytest.mark.parametrize("readout", [True, False])
def test_inference_only(simulate, readout):
    torch.manual_seed(0)
    model = Oscillators(6, 5, 3, 4)
    if not readout:
        model.predict = model.cost = None
    x, _ = data(np.random.default_rng(0), 5, 4, 3, 4, "last")
    design = el.compile(model, dynamics=el.Leapfrog(0.25, 2), rule=None, calibrate=(x, None), lanes=2)
    one, two = design.open("int:"), el.Session(design, simulate(design))
    two.set_values(design.values)
    np.testing.assert_array_equal(one.predict(x), two.predict(x))
    assert one.predict(x).shape == ((5, 4) if readout else (5, 6))
    with pytest.raises(el.RangeError, match=r"^this design was compiled with rule=None and cannot learn; compile it "
                                            r"with a rule$"):
        one.gradient(x, np.zeros((5, 4)))
