"""`Session.fit` says when training moved a network beyond its words, and only then."""

import re
import warnings

import numpy as np
import pytest
import torch
from energies import INPUTS, OUTPUTS, STEPS, Deep, Masses
from networks import Oscillators
from test_machine import data
from torch import nn

import echolith as el
from echolith.compiler.reference import bptt
from echolith.host.clipping import clipped
from echolith.host.precision import PrecisionReport


class Layer(nn.Module):
    def __init__(self, inputs: int, units: int):
        super().__init__()
        self.states, self.inputs = {"q": units}, inputs
        self.W, self.B = nn.Linear(units, units, bias=False), nn.Linear(inputs, units)

    def energy(self, q, u):
        return 0.5 * (q * q).sum() + torch.log(torch.cosh(self.W(q) + self.B(u))).sum()


class Encoded(el.Stack):
    outputs = 2

    def __init__(self):
        super().__init__({"enc": nn.Linear(2, 4), "l": Layer(4, 6)}, {"enc": ("u",), "l": ("enc",)}, inputs=2)
        self.C = nn.Linear(6, 2)

    def predict(self, q):
        return self.C(q)

    def cost(self, q, y):
        return 0.5 * ((self.C(q) - y) ** 2).sum()


def learn(net: nn.Module, times: float, *names: str, **precision: str) -> PrecisionReport:
    """With some parameters so many times larger than they were calibrated, clipped as in training;
    what all words hold then."""
    draws = np.random.default_rng(0)
    x, y = draws.uniform(-1, 1, (20, 6, 2)), draws.uniform(-0.5, 0.5, (20, 2))
    design = el.compile(net, dynamics=el.Leapfrog(0.25, 1), rule=el.HamiltonianEcho("last"), lanes=4,
                        calibrate=(x, y), precision=precision)
    with design.open("int:") as chip:
        values = chip.values()
        chip.set_values({**values, **{name: times * values[name] for name in names}})
        chip.fit(x, y, epochs=1, batch_size=10, learning_rate=1e-4)
        return design.precision_report(x, y, values=chip.state_dict())


SAID = ("training moved the network beyond the range it was compiled for, and what clips gives no exact gradient: load "
        "state_dict() into the model and compile it again, or learn at a lower rate; ")


def test_what_a_layer_is_fed_beyond_its_words():
    torch.manual_seed(0)
    with pytest.warns(UserWarning, match="^" + re.escape(SAID + "l_fed reaches 6.13 and its words (Q2.15) end at 4; ")):
        learn(Encoded(), 20, "enc.weight", "enc.bias")


def test_outputs_beyond_their_words():
    torch.manual_seed(0)
    with pytest.warns(UserWarning, match="^" + re.escape(SAID + "output reaches ") + r"3\.\d+ and its words \(Q1\.16\) "
                                         r"end at 2$"):
        learn(Oscillators(6, 4, 2, 2, mse=True), 16, "B.weight", "C.weight")


@pytest.mark.parametrize("times, text", [(1.0, []), (0.5, []), (0.15, ["the circuit of the gradient of m clips"])])
def test_masses_that_shrank(times, text):
    torch.manual_seed(0)
    x, y = data(np.random.default_rng(0), 16, STEPS, INPUTS, OUTPUTS, "last")
    design = el.compile(Masses(), dynamics=el.Leapfrog(0.25, 2), rule=el.HamiltonianEcho(), lanes=4, calibrate=(x, y))
    assert clipped(design, {**design.values, "m": times * design.values["m"]}, x, y[:, None]) == text


def test_the_few_samples_that_clip_first():
    """Three matrices in a row grow together: one percent of what the rows' circuits make is wrong, gradients by 4 %."""
    x, y = data(np.random.default_rng(0), 32, STEPS, INPUTS, OUTPUTS, "last")
    design = el.compile(Deep(), dynamics=el.Leapfrog(0.25, 2), rule=el.HamiltonianEcho(), lanes=3, calibrate=(x, y))
    with design.open("int:") as chip:
        with pytest.warns(UserWarning, match="the circuit of z0_t clips$"):
            chip.fit(x, y, epochs=25, batch_size=8, learning_rate=0.05, momentum=0.8)


class Steep(Oscillators):
    """A force that jumps, or nearly."""

    def __init__(self, rows):
        super().__init__(6, 4, 2, 2, mse=True)
        self.rows = rows

    def energy(self, q, u):
        return 0.5 * (q @ q) + self.rows(self.W(q) + self.B(u)).sum()


@pytest.mark.parametrize("rows", [torch.abs, lambda z: torch.tanh(200 * z) / 200, lambda z: torch.cos(200 * z) / 200])
def test_coarse_pieces_of_a_table_are_no_clipping(rows):
    torch.manual_seed(0)
    x, y = data(np.random.default_rng(0), 32, 8, 2, 2, "last")
    design = el.compile(Steep(rows), dynamics=el.Leapfrog(0.1), rule=el.HamiltonianEcho(), lanes=2, calibrate=(x, y))
    assert clipped(design, design.values, x, y[:, None]) == []


@pytest.mark.parametrize("mse", [False, True])
def test_logits_may_leave_their_words(mse):
    """Their sigmoid is flat there; a squared error has a slope."""
    torch.manual_seed(0)
    x = np.random.default_rng(0).uniform(-1, 1, (8, 6, 2))
    y = np.tile([0.0, 1.0], (8, 1))
    design = el.compile(Oscillators(6, 4, 2, 2, mse=mse), dynamics=el.Leapfrog(0.25, 1), rule=el.HamiltonianEcho(),
                        lanes=4, calibrate=(x, y), precision={"output": "Q4.13"})
    found = clipped(design, {**design.values, "C.bias": np.array([-20.0, 20.0])}, x, y[:, None])
    assert [text.split()[0] for text in found] == (["output", "delta"] if mse else [])


class Cauchy(Oscillators):
    """A cost whose derivative needs short pieces."""

    def cost(self, q, y):
        return torch.log(1 + (self.C(q) - y) ** 2).sum()


def test_the_circuit_of_a_cost_is_precise_near_what_outputs_and_targets_are():
    """Over all that outputs can hold its pieces are too long: here .12 % off, a percent with coarser outputs."""
    torch.manual_seed(0)
    draws = np.random.default_rng(0)
    x, y = draws.uniform(-1, 1, (24, 4, 2)), draws.uniform(-0.5, 0.5, (24, 2))
    net = Cauchy(6, 4, 2, 2, mse=True).double()
    with torch.no_grad():
        net.C.weight *= 3
        net.C.bias *= 2
    design = el.compile(net, dynamics=el.Leapfrog(0.25), rule=el.HamiltonianEcho(), lanes=4, calibrate=(x, y),
                        precision={"output": "Q3.14"})
    exact = np.round(x * 2.0 ** design.fractions["input"]) * 2.0 ** -design.fractions["input"]
    with design.open("int:") as chip:
        found, expected = chip.gradient(exact, y)["C.bias"], bptt(net, exact, y, 0.25, 1)[0]["C.bias"]
    np.testing.assert_allclose(found, expected, rtol=7e-4, atol=0)


@pytest.mark.parametrize("times, text", [(1.0, []), (100.0, ["the circuit of the cost's derivative clips"])])
def test_outputs_beyond_what_the_circuit_of_the_cost_is_for(times, text):
    torch.manual_seed(0)
    draws = np.random.default_rng(0)
    x, y = draws.uniform(-1, 1, (20, 6, 2)), draws.uniform(-0.1, 0.1, (20, 2))
    design = el.compile(Cauchy(6, 4, 2, 2, mse=True), dynamics=el.Leapfrog(0.25), rule=el.HamiltonianEcho(), lanes=4,
                        calibrate=(x, y), precision={"output": "Q7.10"})
    values = {**design.values, "C.weight": times * design.values["C.weight"], "C.bias": times * design.values["C.bias"]}
    assert clipped(design, values, x, y[:, None]) == text


@pytest.mark.parametrize("net, times, names", [(Encoded, 3, ("enc.weight", "enc.bias")),
                                               (lambda: Oscillators(6, 4, 2, 2, mse=True), 8, ("B.weight",))])
def test_what_fits_is_silent(net, times, names):
    torch.manual_seed(0)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        learn(net(), times, *names)


def test_sums_may_clip_where_their_functions_are_flat():
    """tanh of sums that end at 4."""
    torch.manual_seed(0)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        report = learn(Oscillators(6, 4, 2, 2, mse=True), 12, "B.weight", z="Q2.15", z0_="Q2.15")
    (z,) = (t for t in report.tensors if t.name == "z0_")
    assert z.limit == 4 and z.margin < -0.2


def test_sums_may_not_clip_where_their_functions_are_steep():
    torch.manual_seed(0)
    with pytest.warns(UserWarning, match="^" + re.escape(SAID + "the circuit of z0_t clips") + "$"):
        learn(Oscillators(6, 4, 2, 2, mse=True), 12, "B.weight", z="Q0.17", z0_="Q0.17")
