"""Hamiltonian echo backpropagation: gradient words are momenta of the parameters, in float64, in integers, in RTL."""

import functools
import math

import numpy as np
import pytest
import torch
from energies import INPUTS, MODELS, OUTPUTS, STEPS, Blocks, Masses
from networks import Oscillators
from test_machine import data

import echolith as el
from echolith.compiler.backpropagation import echo_backpropagation
from echolith.compiler.learning import named
from echolith.compiler.reference import bptt
from echolith.examples import xor

DYNAMICS = el.Leapfrog(0.25, 2)


def flat(gradient, names):
    return np.concatenate([np.ravel(gradient[name]) for name in names])


def cosine(found, expected):
    a, b = flat(found, found), flat(expected, found)
    return float(a @ b / np.linalg.norm(a) / np.linalg.norm(b))


def problem(model, samples=32):
    torch.manual_seed(0)
    return model().double(), *data(np.random.default_rng(0), samples, STEPS, INPUTS, OUTPUTS, "last")


@functools.cache
def compiled(model):
    net, x, y = problem(model)
    return el.compile(net, dynamics=DYNAMICS, rule=el.EchoBackpropagation(), calibrate=(x, y), lanes=3)


def small(units=9, **changed):
    torch.manual_seed(0)
    x, y = data(np.random.default_rng(0), 24, 6, 3, 2, "last")
    given = dict(dynamics=DYNAMICS, rule=el.EchoBackpropagation(), calibrate=(x, y), lanes=4)
    return el.compile(Oscillators(units, 7, 3, 2), **given | changed), x, y


# -- float64 ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("averaged, mass, most", [(False, math.inf, 5e-7), (True, math.inf, 1e-9), (True, 1e6, 1e-9)])
@pytest.mark.parametrize("model", [Blocks, Masses])
def test_momenta_are_the_gradient(model, averaged, mass, most):
    net, x, y = problem(model, 8)
    found = echo_backpropagation(net, x, y, 0.25, 2, averaged=averaged, mass=mass)
    assert 1 - cosine(found, bptt(net, x, y, 0.25, 2)[0]) < most


class Spring(torch.nn.Module):
    """One unit, one stiffness: small enough to write its motion down."""

    states, inputs, outputs = {"q": 1}, 1, 1

    def __init__(self):
        super().__init__()
        self.k = torch.nn.Parameter(torch.tensor([0.5]))

    def energy(self, q, u):
        return (0.5 * self.k * q**2 - u * q).sum()

    def cost(self, q, y):
        return 0.5 * ((q - y) ** 2).sum()


@pytest.mark.parametrize("mass", [1.0, 10.0, 1000.0])
def test_light_parameters_move_and_their_momentum_tells_the_slope_at_the_start(mass):
    """Against autograd through the joint motion of unit and stiffness, as it is written in a textbook."""
    net, dt, u, goal = Spring().double(), 0.5, [0.3, -0.2, 0.4, 0.1], 0.25
    start = torch.tensor(0.5, dtype=torch.float64, requires_grad=True)
    q, p, k, pi = torch.zeros(()), torch.zeros(()), start, torch.zeros(())
    for row in range(4):
        q, k = q + dt * p, k + dt / mass * pi
        if row < 3:
            p, pi = p - dt * (k * q - u[row]), pi - dt * 0.5 * q**2
    (slope,) = torch.autograd.grad(0.5 * (q - goal) ** 2, start)
    found = echo_backpropagation(net, np.array(u)[None, :, None], np.array([[goal]]), dt, mass=mass)
    np.testing.assert_allclose(found["k"], [slope.item()], rtol=1e-6)


def test_without_a_kick_momenta_return():
    net, x, y = problem(Masses, 4)
    found = echo_backpropagation(net, x, y, 0.25, 2, eta=0.0, mass=3.0)
    assert max(np.abs(pi).max() for pi in found.values()) < 1e-14


# -- integers --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("model", MODELS)
def test_gradient_agrees_with_autograd(model):
    net, x, y = problem(model)
    with compiled(model).open("int:") as chip:
        found = chip.gradient(x, y)
        expected = bptt(net, x, y, 0.25, 2)[0]
        assert cosine(found, expected) >= 0.9999
        heavy = [n for n in found if np.linalg.norm(expected[n]) >= 0.01 * np.linalg.norm(flat(expected, found))]
        for name in heavy:
            assert cosine({name: found[name]}, expected) >= 0.999, name
        np.testing.assert_allclose(np.linalg.norm(flat(found, found)), np.linalg.norm(flat(expected, found)), rtol=0.01)


class Quartic(torch.nn.Module):
    """Steep and far from linear over long rows: its errors are so large that few nudges are weaker."""

    states, inputs, outputs = {"q": 6}, 1, 3

    def __init__(self):
        super().__init__()
        self.W, self.B, self.C = torch.nn.Linear(6, 10), torch.nn.Linear(1, 10, bias=False), torch.nn.Linear(6, 3)

    def energy(self, q, u):
        return 0.1 * (q**2).sum() + torch.sqrt(1 + (self.W(q) + self.B(u)) ** 2).sum() + 0.1 * (q**4).sum()

    def cost(self, q, y):
        return torch.nn.functional.cross_entropy(self.C(q), y.long())


@pytest.mark.parametrize("seed", [1, 2])
def test_nudges_that_cannot_be_weaker_are_not_taken_for_agreement(seed):
    torch.manual_seed(seed)
    net, generator = Quartic().double(), np.random.default_rng(40 + seed)
    x, y = 2 * generator.normal(size=(8, 20, 1)), generator.integers(0, 3, 8)
    design = el.compile(net, dynamics=el.Leapfrog(0.35, 2), rule=el.EchoBackpropagation(), calibrate=(x, y))
    with design.open("int:") as chip:
        found = chip.gradient(x, y)
    assert cosine(found, bptt(net, x, y, 0.35, 2)[0]) > 0.9995


def test_xor_is_learned_by_momenta_alone():
    outputs, losses, exact = xor.learned(epochs=250)
    assert np.abs(outputs - xor.Y[:, 0]).max() < 0.05 and losses[-1] < 1e-3 < losses[0] and exact


def test_nudges_find_their_size_while_parameters_learn():
    """From ones 2^5 times too strong or too weak, by a bit a batch, to those of Hamiltonian echoes."""
    (design, x, y), found = small(), set()
    for rule in (design, small(rule=el.HamiltonianEcho(), like=design)[0]):
        for off in (5, 0, -5):
            with rule.open("int:") as chip:
                chip.device.response += off
                chip.fit(x, y, epochs=12, batch_size=24, learning_rate=1e-6)
                found.add(chip.device.response)
    assert max(found) - min(found) <= 1, found  # the wanted response spans two bits


def test_batches_of_any_size_learn_the_same_on_both_devices():
    design, x, y = small()
    found = []
    for url in ("int:", "int:compiled"):
        with design.open(url) as chip:
            history = chip.fit(x[:7], y[:7], epochs=2, batch_size=3, learning_rate=0.1, momentum=0.9)
            found.append((history.loss, chip.state_dict()))
        assert history.samples == 14 and history.updates == 6
    assert found[0][0] == found[1][0]
    for name, value in found[0][1].items():
        np.testing.assert_array_equal(value, found[1][1][name])


@pytest.mark.parametrize("rule", [el.HamiltonianEcho(), el.EchoBackpropagation()])
def test_gradients_of_several_batches_add_up_to_one_update(rule):
    design, x, y = small(rule=rule)
    found = []
    for size, accumulate in ((8, 1), (4, 2), (2, 4)):
        with design.open("int:") as chip:
            history = chip.fit(x, y, epochs=2, batch_size=size, accumulate=accumulate, learning_rate=0.1, momentum=0.9)
            found.append((chip.values(), history.updates, history.loss))
    for values, updates, loss in found[1:]:
        assert updates == found[0][1] == 6
        np.testing.assert_allclose(loss, found[0][2])
        for name, value in values.items():
            np.testing.assert_array_equal(value, found[0][0][name])


# -- RTL -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("model", [Blocks, pytest.param(Masses, marks=pytest.mark.slow)])
def test_rtl_equals_the_integer_model(model):
    _, x, y = problem(model)
    found = compiled(model).verify(x[:3], y[:3])
    assert found, str(found)
    assert found.predicted_cycles == found.measured_cycles and found.runs > 10


def test_one_bitstream_learns_by_several_rules():
    """The program is loaded, the hardware stays; un-nudged momenta return on the chip itself."""
    echo, x, y = small(rule=el.HamiltonianEcho())
    counted = small(like=echo)[0]
    lagrangian = small(rule=el.LagrangianEcho(), like=echo)[0]
    assert counted.hardware == echo.hardware == lagrangian.hardware and counted.program_id != echo.program_id
    assert lagrangian.program == echo.program
    found = []
    for design in (echo, counted, lagrangian):
        with design.open("sim:") as chip, design.open("int:") as golden:
            for session in (chip, golden):
                session.fit(x[:6], y[:6], batch_size=3, learning_rate=0.05, momentum=0.5)
            words = chip.device.read_gradients()
            assert any(w.any() for w in words.values())
            assert chip.echo(x[:5]).exact  # different samples side by side: what is counted down is large
            for name, w in chip.device.read_gradients().items():
                np.testing.assert_array_equal(w, words[name])
            for name, value in chip.state_dict().items():
                np.testing.assert_array_equal(value, golden.state_dict()[name])
            found.append(chip.state_dict()["W.weight"])
    np.testing.assert_array_equal(found[0], found[2])
    np.testing.assert_allclose(found[0], found[1], atol=2e-3)


def test_the_small_board_counts_too():
    design, x, y = small(board="icebreaker", lanes=2)
    found = design.verify(x[:2], y[:2])
    assert found, str(found)


# -- words -----------------------------------------------------------------------------------------------------------


def test_explain_names_the_rule():
    text = small()[0].explain()
    assert 'rule                      Hamiltonian echo backpropagation, + and - averaged, cost at "last"' in text
    assert "forward, counting the parameters' momenta down; the cost kicks the state; back, counting them up" in text


REFUSED = {
    "check": (lambda: el.EchoBackpropagation(check=0), "check must be a number of batches, at least 1, not 0"),
    "accumulate": (lambda: small()[0].open("int:").fit(*small()[1:], accumulate=0),
                   "accumulate must be a whole number of batches, at least 1, not 0"),
    "name": (lambda: named("Echo"), "rule must be HamiltonianEcho, LagrangianEcho, EchoBackpropagation, not 'Echo'"),
    "every": (lambda: named("EchoBackpropagation", "every"),
              'EchoBackpropagation has its cost at the last step: cost_at must be "last", not \'every\''),
    "mass": (lambda: echo_backpropagation(Spring(), [[[0.0]]], [[0.0]], 0.25, mass=0), "mass must be positive, not 0"),
    "initial": (lambda: el.LagrangianEcho(boundary="initial"),
                'boundary must be "final" on a chip: its gradient has a residual that needs the derivative of the last '
                "state by every parameter; boundary_gradient(...) computes it in float64, not 'initial'"),
    "both": (lambda: el.LagrangianEcho(boundary="both"),
             'boundary must be "final" on a chip: its trajectory solves a boundary-value problem, which steps in time '
             "do not; boundary_gradient(...) computes it in float64, not 'both'"),
    "boundary": (lambda: el.LagrangianEcho(boundary="open"),
                 'boundary must be "final", "initial", "both" or "periodic", not \'open\''),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refusals(name):
    make, text = REFUSED[name]
    with pytest.raises(el.EcholithError) as error:
        make()
    assert str(error.value) == text


def test_readouts_with_passes_of_their_own_are_refused():
    class Deep(Oscillators):
        def cost(self, q, y):
            return 0.5 * ((torch.tanh(self.C(q)) - y) ** 2).sum()

        def predict(self, q):
            return torch.tanh(self.C(q))

    x, y = data(np.random.default_rng(0), 8, 4, 3, 2, "last")
    with pytest.raises(el.CompileError, match="EchoBackpropagation takes readouts R q \\+ b of words of their own"):
        el.compile(Deep(5, 4, 3, 2), dynamics=DYNAMICS, rule=el.EchoBackpropagation(), calibrate=(x, y), lanes=2)
