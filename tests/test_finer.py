"""Momenta in finer units: which states get them, that motion and gradients stay what they are, what it is good for."""

import functools

import numpy as np
import pytest
import torch
from torch import nn

import echolith as el
from echolith.boards.catalog import board
from echolith.compiler import finer
from echolith.compiler.calibrate import forward
from echolith.compiler.case import case
from echolith.compiler.files import load
from echolith.compiler.flow import derive
from echolith.compiler.reference import bptt
from echolith.compiler.select import select

ROWS, DT = 40, 0.25


class Layer(nn.Module):
    """Units with masses that learn; ``rate`` slows them down."""

    def __init__(self, rate: float, inputs: int = 3):
        super().__init__()
        self.states, self.inputs, self.rate = {"q": 6}, inputs, rate
        self.W, self.B = nn.Linear(6, 5, bias=False), nn.Linear(inputs, 5)
        self.m = nn.Parameter(0.8 + 0.4 * torch.rand(6))

    def energy(self, q, u):
        return self.rate**2 * ((q * q).sum() / 2 + 2 * torch.log(torch.cosh(self.W(q) + self.B(u))).sum())

    def kinetic(self, p):
        return (p * p / (2 * self.m)).sum()


class Slow(Layer):
    outputs = 2

    def __init__(self, rate: float):
        super().__init__(rate)
        self.C = nn.Linear(6, 2)

    def cost(self, q, y):
        return 0.5 * ((self.C(q) - y) ** 2).sum()

    def predict(self, q):
        return self.C(q)


class Mix(nn.Module):
    def __init__(self):
        super().__init__()
        self.F = nn.Linear(6, 4)

    def forward(self, x):
        return torch.tanh(self.F(x))


class Above(el.Stack):
    """A slow layer above a fast one."""

    outputs = 2

    def __init__(self):
        super().__init__({"fast": Layer(1.0), "mix": Mix(), "slow": Layer(0.1, 4)}, inputs=3)
        self.R = nn.Linear(6, 2)

    def cost(self, q, y):
        return 0.5 * ((self.R(q) - y) ** 2).sum()

    def predict(self, q):
        return self.R(q)


NETS = {"slow": lambda: Slow(0.1), "fast": lambda: Slow(1.0), "stack": Above}
FINER = {"slow": {"q": 2}, "fast": {"q": 0}, "stack": {"fast": 0, "slow": 2}}


def data():
    generator = np.random.default_rng(0)
    return generator.integers(-64, 65, (16, ROWS, 3)) / 64, generator.uniform(-0.5, 0.5, (16, 2))


@functools.cache
def compiled(name):
    torch.manual_seed(0)
    net = NETS[name]()
    return net, el.compile(net, dynamics=el.Leapfrog(DT), rule=el.HamiltonianEcho(), lanes=3, calibrate=data())


def cosine(a, b):
    a, b = (np.concatenate([g[n].ravel() for n in sorted(b)]) for g in (a, b))
    return a @ b / np.linalg.norm(a) / np.linalg.norm(b)


@pytest.mark.parametrize("name", NETS)
def test_states_whose_momenta_stay_smaller_get_them(name):
    _, design = compiled(name)
    assert design.finer == FINER[name]
    told = [line for line in design.explain().splitlines() if "momenta of" in line]
    assert [line.split()[2] for line in told] == [state for state, bits in FINER[name].items() if bits]


def test_positions_move_as_before_and_momenta_are_as_much_larger():
    torch.manual_seed(0)
    found = case(Slow(0.1), el.Leapfrog(DT), None, data(), None, board("ulx3s-85f"), 3, None, None)
    runs, bits = [], found.finer["q"]
    for graph in (found.written, found.graph):
        flow = derive(graph, DT, False)
        runs.append(list(forward(graph, select(flow, ("q",)), flow, data()[0], DT, 1)))
    for (_, _, q, _, p), (_, _, q_finer, _, p_finer) in zip(*runs, strict=True):
        np.testing.assert_allclose(q_finer["q"], q["q"], rtol=1e-9)
        np.testing.assert_allclose(p_finer["q"], 2**bits * p["q"], rtol=1e-9)


def test_states_that_an_energy_joins_have_the_same():
    class Joined(Slow):
        def __init__(self):
            super().__init__(0.1)
            self.states = {"q": 6, "r": 6}

        def energy(self, q, r, u):
            return super().energy(q, u) + 0.5 * (r * r).sum() + 0.1 * (q * r).sum()

        def kinetic(self, p, s):
            return super().kinetic(p) + 0.5 * (s * s).sum()

        def cost(self, q, r, y):
            return super().cost(q, y)

        def predict(self, q, r):
            return super().predict(q)

    torch.manual_seed(0)
    design = el.compile(Joined(), dynamics=el.Leapfrog(DT), rule=el.HamiltonianEcho(), lanes=3, calibrate=data())
    assert len(set(design.finer.values())) == 1


@pytest.mark.parametrize("name", NETS)
def test_gradients_are_those_of_the_network(name):
    net, design = compiled(name)
    expected, outputs = bptt(net, *data(), DT, 1)
    with design.open("int:") as chip:
        np.testing.assert_allclose(chip.predict(data()[0]), outputs, atol=2e-3)
        found = chip.gradient(*data())
    assert cosine(found, expected) >= 0.99999
    for n in expected:  # the masses' among them
        assert np.linalg.norm(found[n]) == pytest.approx(np.linalg.norm(expected[n]), rel=0.01), n


@pytest.mark.parametrize("name", ["slow", "stack"])
def test_three_parties_agree(name):
    _, design = compiled(name)
    x, y = data()
    found = design.verify(x[:2], y[:2])
    assert found, str(found)


def test_the_same_hardware_has_the_same_units(tmp_path):
    net, design = compiled("slow")
    design.save(tmp_path / "slow.echolith")
    assert load(tmp_path / "slow.echolith").finer == design.finer
    how = {"dynamics": el.Leapfrog(DT), "rule": el.HamiltonianEcho(), "lanes": 3}
    with torch.no_grad():
        net.W.weight *= 0.5
    again = el.compile(net, **how, calibrate=data(), like=design)
    with torch.no_grad():
        net.W.weight *= 2
    assert again.finer == design.finer and again.hardware == design.hardware
    assert el.compile(net, **how, steps=ROWS).finer == {"q": 0}  # nothing is known of ranges


def test_what_does_not_move_keeps_its_units():
    torch.manual_seed(0)
    x, y = data()
    still = el.compile(Slow(0.1), dynamics=el.Leapfrog(DT), rule=el.HamiltonianEcho(), lanes=3, calibrate=(x[:, :1], y))
    assert still.finer == {"q": 0}


def test_slow_means_are_rounded_less(monkeypatch):
    net, design = compiled("slow")
    torch.manual_seed(0)
    outputs = bptt(net, *data(), DT, 1)[1]
    monkeypatch.setattr(finer, "_WORTH", 99)
    coarse = el.compile(net, dynamics=el.Leapfrog(DT), rule=el.HamiltonianEcho(), lanes=3, calibrate=data())
    assert coarse.finer == {"q": 0}
    errors = []
    for made in (coarse, design):
        with made.open("int:") as chip:
            errors.append(np.abs(chip.predict(data()[0]) - outputs).mean())
    assert errors[1] < errors[0] / 2


class Two(Slow):
    """A slow and a fast state, which ``coupling`` joins."""

    def __init__(self, coupling: float):
        super().__init__(0.1)
        self.states, self.coupling = {"q": 6, "r": 6}, coupling

    def energy(self, q, r, u):
        found = super().energy(q, u) + 0.5 * (r * r).sum() - 0.3 * (r[:3] * u).sum()
        return found + self.coupling * (q * r).sum() if self.coupling else found

    def kinetic(self, p, s):
        return super().kinetic(p) + 0.5 * (s * s).sum()

    def cost(self, q, r, y):
        return super().cost(q + r, y)

    def predict(self, q, r):
        return super().predict(q + r)


def test_an_energy_may_not_join_states_of_different_units_on_given_hardware():
    torch.manual_seed(0)
    how = {"dynamics": el.Leapfrog(DT), "rule": el.HamiltonianEcho(), "lanes": 3, "calibrate": data()}
    apart = el.compile(Two(0.0), **how)
    assert apart.finer["q"] >= 2 and apart.finer["r"] == 0
    with pytest.raises(el.DesignMismatch) as error:
        el.compile(Two(0.01), **how, like=apart)
    assert str(error.value) == ("the network does not fit this hardware, whose states have momenta in units of their "
                                "own: an energy must not join those of different units, not q, r")
