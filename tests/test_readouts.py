"""Read-outs of functions of the states, with parameters of their own or of the energy: gradients against autograd, and
every bit and cycle of the RTL against the model."""

import numpy as np
import pytest
import torch
from energies import INPUTS, OUTPUTS, Model, log_cosh
from test_general import cosine
from test_machine import compare, data
from torch.nn import functional

import echolith as el
from echolith.compiler.reference import bptt
from echolith.sim.adjoint import gradient

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
    "part": lambda s, q: s.S @ (s.W[2:7] @ q) + s.c,
    "bias inside": lambda s, q: s.S @ (s.b * torch.tanh(s.W @ q))[:5],
    "affine": lambda s, q: 3 * (s.R @ q + s.c) + 1,  # needs no passes of its own
    "shares": lambda s, q: torch.softmax(s.R @ q, 0),
    "norm": lambda s, q: (s.R @ q) / torch.sqrt(1 + (q**2).sum()),
    "two states": lambda s, q, r: s.R @ torch.tanh(s.g * q) + s.S @ (s.H @ q) + s.S @ r,
    "joined": lambda s, q, r: s.S @ torch.cat([q[:2] * r[:2], r[2:] ** 2]),
}
BUILT = ["gain"]  # whose RTL is compared in the fast tests


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
    learns(*case(read, cost_at), cost_at)


def learns(net, design, x, y, cost_at):
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
    compare(design, simulate(design), 3, cost_at, 0.9, rate=0.1)


class Grid(Model):
    """Learned convolutions of the state, of the inputs and in the read-out."""

    states = {"q": (2, 6)}
    shapes = {"K": (2, 2, 3), "I": (2, 1, 2), "U": (12, 4), "k": (3, 2, 3), "S": (OUTPUTS, 18)}

    def energy(self, q, u):
        drive = self.U @ functional.conv1d(u[None], self.I).flatten()
        return 0.4 * (q**2).sum() + log_cosh(functional.conv1d(q[None], self.K, padding=1)) + q.flatten() @ drive

    def predict(self, q):
        return self.S @ torch.tanh(functional.conv1d(q[None], self.k, padding=1)).flatten()


def test_convolutions_are_learned_in_the_inputs_and_in_the_readout():
    net = Grid().double()
    x, y = data(np.random.default_rng(0), 32, STEPS, INPUTS, OUTPUTS, "last")
    design = el.compile(net, dynamics=el.Leapfrog(0.25, 2), rule=el.HamiltonianEcho("last"), calibrate=(x, y), lanes=3)
    learns(net, design, x, y, "last")


@pytest.mark.parametrize("read", ["layers", "two states", "shares"])
def test_a_design_fits_its_own_hardware_its_formats_and_its_file(read, tmp_path):
    net, design, x, y = case(read, "last")
    how = {"dynamics": el.Leapfrog(0.25, 2), "rule": el.HamiltonianEcho("last"), "calibrate": (x, y)}
    assert el.compile(net, like=design, **how).hardware == design.hardware
    assert el.compile(net, precision=design.precision, lanes=3, **how).hardware == design.hardware
    design.save(tmp_path / "net.echolith")
    with el.open(tmp_path / "net.echolith", "int:") as chip, design.open("int:") as own:
        np.testing.assert_array_equal(chip.gradient(x, y)["R" if read != "layers" else "H"],
                                      own.gradient(x, y)["R" if read != "layers" else "H"])
    fixed = el.compile(net, lanes=3, **how | {"rule": None, "calibrate": (x, None)})
    with fixed.open("int:") as chip, design.open("int:") as own:
        np.testing.assert_allclose(chip.predict(x), own.predict(x), atol=1e-3)


@pytest.mark.parametrize("read, cost_at", [("layers", "last"), ("tied", "every"), ("two states", "last")])
def test_float64_is_the_same_by_autograd_by_the_adjoint_and_within_bounds(read, cost_at):
    net, design, x, y = case(read, cost_at)
    expected = bptt(net, x, y, 0.25, 2, cost_at)[0]
    found = gradient(design, design.values, x, y if cost_at == "every" else y[:, None])
    for name in found:
        np.testing.assert_allclose(found[name], expected[name], atol=1e-9)
    assert design.verify(x[:4], y[:4], url="int:")


def test_missing_targets_do_not_nudge():
    net, _, x, y = case("layers", "last")
    mask = (np.arange(32) % 3 > 0).astype(float)
    design = el.compile(net, dynamics=el.Leapfrog(0.25, 2), rule=el.HamiltonianEcho("last"), calibrate=(x, y, mask),
                        lanes=3)
    expected = bptt(net, x, y, 0.25, 2, "last", mask)[0]
    with design.open("int:") as chip:
        found = chip.gradient(x, y, mask=mask)
    a, b = (np.concatenate([np.asarray(g[name]).ravel() for name in found]) for g in (found, expected))
    assert cosine(a, b) > 0.9999


def test_explain_names_the_readout_and_what_learns_in_it():
    text = case("layers", "last")[1].explain()
    assert "S tanh(z" in text and "dcost/dy dy/dH" in text and "behind its cost" in text


def test_a_readout_that_is_affine_stays_a_block():
    _, design, _, _ = case("affine", "last")
    assert not design.reads and not design.hardware.adding
