"""Read-outs of functions of the states, with parameters of their own or of the energy: gradients against autograd, and
every bit and cycle of the RTL against the model."""

import numpy as np
import pytest
import torch
from energies import INPUTS, OUTPUTS, Model, log_cosh
from test_general import cosine
from test_machine import compare, data

import echolith as el
from echolith.compiler.reference import bptt

STEPS = 4


class Network(Model):
    """``read`` is the read-out; only the parameters that it or the energy uses are compiled."""

    states = {"q": 6}
    shapes = {"W": (9, 6), "B": (9, INPUTS), "b": (9,), "R": (OUTPUTS, 6), "S": (OUTPUTS, 5), "H": (5, 6), "h": (5,),
              "g": (6,), "a": (OUTPUTS,), "c": (OUTPUTS,)}  # fmt: skip

    def energy(self, q, u):
        return 0.4 * (q**2).sum() + log_cosh(self.W @ q + self.B @ u + self.b)

    def predict(self, *states):
        return READOUTS[self.read](self, *states)


class Pair(Network):
    states = {"q": 6, "r": 5}

    def energy(self, q, r, u):
        return super().energy(q, u) + 0.5 * (r**2).sum() + torch.tanh(r) @ self.H @ q


READOUTS = {
    "function": lambda s, q: s.R @ torch.tanh(q),
    "gain": lambda s, q: s.R @ torch.tanh(s.g * q) + s.c,
    "layers": lambda s, q: s.S @ torch.tanh(s.H @ q + s.h) + s.c,
    "scale": lambda s, q: s.a * (s.R @ q) + s.c,
    "squashed": lambda s, q: torch.sigmoid(s.R @ q + s.c),
    "elements": lambda s, q: torch.tanh(q[[5, 1]]),
    "product": lambda s, q: (s.R @ q) * (s.R @ torch.tanh(q)),
    "tied": lambda s, q: s.S @ torch.tanh(s.W @ q + s.b)[:5],
    "tied back": lambda s, q: (s.W.T @ torch.tanh(s.W @ q))[:2],
    "shares": lambda s, q: torch.softmax(s.R @ q, 0),
    "norm": lambda s, q: (s.R @ q) / torch.sqrt(1 + (q**2).sum()),
    "two states": lambda s, q, r: s.R @ torch.tanh(s.g * q) + s.S @ (s.H @ q) + s.S @ r,
    "joined": lambda s, q, r: s.S @ torch.cat([q[:2] * r[:2], r[2:] ** 2]),
}
BUILT = ["two states"]  # whose RTL is compared in the fast tests


def case(read, cost_at, **options):
    model = type("Network", (Pair if read in ("two states", "joined") else Network,), {"read": read})
    net = model().double()
    x, y = data(np.random.default_rng(0), 32, STEPS, INPUTS, OUTPUTS, cost_at)
    design = el.compile(net, dynamics=el.Leapfrog(0.25, 2), rule=el.HamiltonianEcho(cost_at), calibrate=(x, y),
                        **{"lanes": 3} | options)
    return net, design, x, y


def everywhere():
    return [pytest.param(read, ("last", "every")[i % 2]) for i, read in enumerate(READOUTS)]


@pytest.mark.parametrize("read, cost_at", everywhere())
def test_gradient_agrees_with_autograd_and_learning_learns(read, cost_at):
    net, design, x, y = case(read, cost_at)
    expected, outputs = bptt(net, x, y, 0.25, 2, cost_at)
    with design.open("int:") as chip:
        np.testing.assert_allclose(chip.predict(x), outputs, atol=2e-3)
        found = chip.gradient(x, y)
        a, b = (np.concatenate([np.asarray(g[name]).ravel() for name in found]) for g in (found, expected))
        assert cosine(a, b) >= 0.9999
        np.testing.assert_allclose(np.linalg.norm(a), np.linalg.norm(b), rtol=0.01)
        before = np.mean((chip.predict(x).reshape(y.shape) - y) ** 2)
        chip.fit(x, y, epochs=4, batch_size=8, learning_rate=0.02, momentum=0.5)
        assert np.mean((chip.predict(x).reshape(y.shape) - y) ** 2) < before


@pytest.mark.parametrize("read, cost_at", [
    pytest.param(*p.values, marks=[] if p.values[0] in BUILT else [pytest.mark.slow]) for p in everywhere()])
def test_rtl_equals_the_integer_model(simulate, read, cost_at):
    _, design, _, _ = case(read, cost_at)
    compare(design, simulate(design), 3, cost_at, 0.9)
