"""Energies of any shape: gradients against float64 autograd, and every bit and cycle of the RTL against the model."""

import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import echolith as el
from echolith.compiler.reference import bptt

sys.path.insert(0, str(Path(__file__).parent))
from test_machine import compare, data  # noqa: E402

INPUTS, OUTPUTS, STEPS = 3, 2, 5


class Model(nn.Module):
    """``kinds`` of parameters with a fixed seed; the readout is linear in all states."""

    inputs, outputs = INPUTS, OUTPUTS
    shapes: dict[str, tuple[int, ...]] = {}

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        for name, shape in self.shapes.items():
            vector = len(shape) == 1
            setattr(self, name, nn.Parameter(torch.rand(shape) + 0.5 if vector else torch.randn(shape) * 0.4))
        for state, units in self.states.items():
            setattr(self, f"C_{state}", nn.Parameter(torch.randn(OUTPUTS, units) * 0.4))

    def predict(self, *states):
        return sum(getattr(self, f"C_{name}") @ q for name, q in zip(self.states, states, strict=True))

    def cost(self, *arguments):
        return nn.functional.mse_loss(self.predict(*arguments[:-1]), arguments[-1])


def log_cosh(z):
    return torch.log(torch.cosh(z)).sum()


class Blocks(Model):
    """Two states of different sizes in one coupling, one of them with a learned stiffness."""

    states = {"s": 6, "r": 4}
    shapes = {"W": (5, 6), "V": (5, 4), "B": (5, INPUTS), "b": (5,), "k": (6,)}

    def energy(self, s, r, u):
        local = 0.5 * (self.k * s**2).sum() + 0.4 * (r**2).sum()
        return local + log_cosh(self.W @ s + self.V @ r + self.B @ u + self.b)


class Deep(Model):
    """Three matrices in a row, a learned gain before the first."""

    states = {"q": 5}
    shapes = {"W1": (6, 5), "W2": (5, 6), "W3": (4, 5), "B": (6, INPUTS), "g": (5,)}

    def energy(self, q, u):
        first = torch.tanh(self.W1 @ (self.g * q) + self.B @ u)
        return 0.5 * (q @ q) + log_cosh(self.W3 @ torch.tanh(self.W2 @ first))


class Hopfield(Model):
    """Bilinear in functions of two layers, inputs as a direct drive."""

    states = {"s": 6, "r": 4}
    shapes = {"W": (6, 4), "B": (6, INPUTS)}

    def energy(self, s, r, u):
        return 0.5 * (s @ s + r @ r) - torch.tanh(s) @ self.W @ torch.tanh(r) + s @ (self.B @ u)


class Ring(Model):
    """Phase oscillators on a ring with a learned strength per edge."""

    states = {"q": 7}
    shapes = {"e": (7,), "B": (7, INPUTS)}

    def energy(self, q, u):
        edges = 1 - torch.cos(q - torch.roll(q, -1))
        return 0.2 * (q @ q) + (self.e * edges).sum() + q @ (self.B @ u)


class Tied(Model):
    """One matrix, used forwards by one state and transposed by the other."""

    states = {"s": 6, "r": 5}
    shapes = {"W": (5, 6), "B": (5, INPUTS), "D": (5, INPUTS)}

    def energy(self, s, r, u):
        return 0.5 * (s @ s + r @ r) + log_cosh(self.W @ s + self.B @ u) + log_cosh(self.W.T @ r) + r @ (self.D @ u)


class Products(Model):
    """Products of vectors of both states and of rows, a learned gain on the rows' potential."""

    states = {"s": 6, "r": 6}
    shapes = {"W": (6, 6), "g": (6,), "B": (6, INPUTS)}

    def energy(self, s, r, u):
        z = self.W @ s + self.B @ u
        local = 0.5 * (s @ s) + 0.6 * (r @ r)
        return local + (self.g * torch.log(torch.cosh(z))).sum() + 0.2 * (torch.tanh(s) * z * r).sum()


class Quadratic(Model):
    """q'Wq, which moves by W + W'."""

    states = {"q": 5}
    shapes = {"W": (5, 5), "B": (5, INPUTS)}

    def energy(self, q, u):
        return (q @ q) + 0.3 * (q @ (self.W @ q)) + q @ (self.B @ u)


class Springs(Model):
    """Masses on a line: slices, and no matrix at all but for the inputs."""

    states = {"q": 8}
    shapes = {"B": (8, INPUTS), "k": (8,)}

    def energy(self, q, u):
        stretch = q[1:] - q[:-1]
        return 0.5 * (self.k * q**2).sum() + 0.25 * (stretch**2).sum() + 0.1 * (stretch**4).sum() + q @ (self.B @ u)


class Joined(Model):
    """One learned matrix over the state and the inputs together, another one in two parts."""

    states = {"s": 5, "r": 4}
    shapes = {"W": (6, 5 + INPUTS), "V": (7, 4)}

    def energy(self, s, r, u):
        z, v = torch.cat([s, u]) @ self.W.T, torch.sin(self.V[3:] @ r)
        return 0.6 * (s @ s + r @ r) + log_cosh(z) + log_cosh(self.V[:3] @ r + z[:3]) + v @ z[:4]


class Inputs(Model):
    """The inputs themselves, and a function of them, in the energy; parameters named as the compiler names vectors."""

    states = {"q": INPUTS}
    shapes = {"m0": (INPUTS, INPUTS), "x0": (INPUTS,)}

    def energy(self, q, u):
        return 0.5 * (self.x0 * q**2).sum() + q @ u + log_cosh(self.m0 @ q + torch.tanh(u))


class Shared(Model):
    """One unit that all others see, a learned gain inside and outside of rows' functions."""

    states = {"c": 1, "q": 5}
    shapes = {"W": (5, 5), "B": (5, INPUTS), "g": (5,)}

    def energy(self, c, q, u):
        rows = (self.g * torch.nn.functional.softplus(self.W @ q + self.B @ u)).sum()
        return 0.5 * (c @ c) + 0.8 * (q @ q) + 0.2 * (c * q**2).sum() + rows


class Local(Model):
    """Units that do not see each other."""

    states = {"q": 5}
    shapes = {"B": (5, INPUTS), "k": (5,)}

    def energy(self, q, u):
        return 0.5 * (self.k * q**2).sum() + q @ (self.B @ u)


MODELS = [Blocks, Deep, Hopfield, Ring, Tied, Products, Quadratic, Springs, Joined, Inputs, Shared, Local]


def case(model, cost_at):
    net = model().double()
    x, y = data(np.random.default_rng(0), 32, STEPS, INPUTS, OUTPUTS, cost_at)
    design = el.compile(net, dynamics=el.Leapfrog(0.25, 2), rule=el.HamiltonianEcho(cost_at), calibrate=(x, y), lanes=3)
    return net, design, x, y


def cosine(a, b):
    return float(np.sum(a * b) / np.sqrt(np.sum(a * a) * np.sum(b * b)))


@pytest.mark.parametrize("cost_at", ["last", "every"])
@pytest.mark.parametrize("model", MODELS)
def test_gradient_agrees_with_autograd_and_learning_learns(model, cost_at):
    net, design, x, y = case(model, cost_at)
    with design.open("int:") as chip:
        found, state = chip.gradient(x, y), chip.state_dict()
        with torch.no_grad():
            for name, parameter in net.named_parameters():
                parameter.copy_(torch.from_numpy(state[name]))
        expected = {name: np.asarray(g) for name, g in bptt(net, x, y, 0.25, 2, cost_at)[0].items()}
        a, b = (np.concatenate([g[name].ravel() for name in found]) for g in (found, expected))
        assert cosine(a, b) >= (0.9999 if cost_at == "last" else 0.9998)
        heavy = [n for n in found if found[n].size > 1 and np.linalg.norm(expected[n]) >= 0.01 * np.linalg.norm(b)]
        for name in heavy:
            assert cosine(found[name], expected[name]) >= 0.999, name
        np.testing.assert_allclose(np.linalg.norm(a), np.linalg.norm(b), rtol=0.01)
        before = np.mean((chip.predict(x).reshape(y.shape) - y) ** 2)
        chip.fit(x, y, epochs=4, batch_size=8, learning_rate=0.02, momentum=0.5)
        assert np.mean((chip.predict(x).reshape(y.shape) - y) ** 2) < before


@pytest.mark.parametrize("model, cost_at", [(m, "every" if i % 2 else "last") for i, m in enumerate(MODELS)])
def test_rtl_equals_the_integer_model(simulate, model, cost_at):
    _, design, _, _ = case(model, cost_at)
    compare(design, simulate(design), 3, cost_at, 0.9)


def test_the_mean_over_the_rows_is_their_sum_scaled():
    net, design, x, y = case(Blocks, "every")
    mean = el.compile(net, dynamics=el.Leapfrog(0.25, 2), rule=el.HamiltonianEcho("mean"), calibrate=(x, y), lanes=3)
    assert (mean.hardware, mean.program) == (design.hardware, design.program)
    with design.open("int:") as a, mean.open("int:") as b:
        every, found, expected = a.gradient(x, y), b.gradient(x, y), bptt(net, x, y, 0.25, 2, "mean")[0]
        for name, gradient in found.items():
            np.testing.assert_allclose(gradient, every[name] / STEPS, rtol=1e-12)
            assert cosine(gradient, np.asarray(expected[name])) >= 0.999, name
        losses = [s.fit(x, y, epochs=1, batch_size=32, learning_rate=0.0).loss[0] for s in (a, b)]
        assert losses[1] == pytest.approx(losses[0] / STEPS)


@pytest.mark.parametrize("model", [Deep, Tied])
def test_an_inference_core_predicts_as_the_learning_one_does(model):
    net, design, x, _ = case(model, "last")
    fixed = el.compile(net, dynamics=el.Leapfrog(0.25, 2), rule=None, calibrate=(x, None), lanes=3)
    with design.open("int:") as a, fixed.open("int:") as b:
        np.testing.assert_allclose(a.predict(x), b.predict(x), atol=0.01)


@pytest.mark.parametrize("model", MODELS)
def test_a_design_fits_its_own_hardware_and_its_file(model, tmp_path):
    net, design, x, y = case(model, "last")
    again = el.compile(net, dynamics=el.Leapfrog(0.25, 2), rule=el.HamiltonianEcho("last"), calibrate=(x, y),
                       like=design)
    assert again.hardware == design.hardware
    design.save(tmp_path / "net.echolith")
    assert el.open(tmp_path / "net.echolith", "int:").design.program_id == design.program_id


def test_a_state_named_as_a_format_is_refused():
    class Named(Local):
        states = {"hidden": 5}

    with pytest.raises(el.CompileError, match="^states: a name of a format or a block cannot be a state's; rename it, "
                                              "e.g. to hidden_, not 'hidden'$"):
        case(Named, "last")


@pytest.mark.parametrize("model", [Blocks, Tied, Deep])
def test_precision_can_be_read_edited_and_given_back(model):
    net, design, x, y = case(model, "last")
    how = {"dynamics": el.Leapfrog(0.25, 2), "rule": el.HamiltonianEcho("last"), "calibrate": (x, y), "lanes": 3}
    assert el.compile(net, precision=design.precision, **how).hardware == design.hardware
    state = el.compile(net, precision={**design.precision, "state": "Q6.11"}, **how)
    assert state.fractions["state"] == 11 and state.precision["state"] == "Q6.11"
