"""Refusals after capture: of tables, ranges and words, with the method's name and the line where it can be told."""

import numpy as np
import pytest
import torch
from torch import nn

import echolith as el

GENERATOR = np.random.default_rng(0)
X, Y = GENERATOR.integers(-8, 9, (8, 4, 3)) / 8, GENERATOR.integers(0, 2, (8, 2)).astype(float)
LINE = r"at `test_located\.py:\d+: "


class Net(nn.Module):
    states, inputs, outputs = {"q": 6}, 3, 2

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.W, self.B, self.C = nn.Linear(6, 4), nn.Linear(3, 6), nn.Linear(6, 2)

    def energy(self, q, u):
        return q @ q + q @ self.B(u) + self.term(q)

    def term(self, q):
        return torch.tanh(self.W(q)).sum()

    def cost(self, q, y):
        return ((self.C(q) - y) ** 2).sum()


def quotient(s, q):
    third = q.roll(3) + 2
    return torch.sin(q * q.roll(1) *
                     q.roll(2) / third).sum()


def nested(s, q):
    for _ in range(400):
        q = torch.tanh(q)
    return q.sum()


RANGE = r"energy: its derivative must be finite for \|\w+\| <= \S+, the calibrated range with a margin, "
KEEP = "`; keep what is under log, sqrt and quotients away from 0, and exponents small, "
STEEP = r"keep what is under log, sqrt, powers and quotients away from 0, e\.g\. sqrt\(1 \+ x\), not inf"
CASES = {
    "a table": (
        {"term": quotient},
        RANGE + LINE + r"return torch\.sin\(q \* q\.roll\(1\) \*" + KEEP + r"not \(1/\(\w+ \+ 2\)\) at \w+ = -2"),
    "at rest": (
        {"term": lambda s, q: torch.sqrt(q).sum()},  # A
        "energy: dV/dq must be finite at q = 0, u = 0, where every sample starts, " + LINE + r".*# A`; " + STEEP),
    "on the way": (
        {"term": lambda s, q: 9 * ((1 + q) ** 1.5).sum()},  # B
        r"energy: its derivative must be finite where the states go, but at input row \d+ of the calibration data "
        "it is not, " + LINE + ".*# B`; keep what is under log, sqrt and powers positive, not nan"),
    "diverging": (
        {"term": lambda s, q: 1e3 * q @ q},
        r"energy: the dynamics diverge on the calibration data at input row \d+, " + LINE
        + r"def energy\(self, q, u\):`; make dt smaller \(leapfrog needs dt\^2 \* lambda_max < 4\) or scale the "
        r"weights, not dt=0\.25"),
    "growing": (
        {"term": lambda s, q: -50 * q @ q},
        "energy: the states grow beyond words of 18 bits on the calibration data, " + LINE
        + r"def energy\(self, q, u\):`; make dt smaller or scale the weights, not \S+"),
    "nested": (
        {"term": nested},
        "energy: functions are nested too deeply, " + LINE + r"def energy\(self, q, u\):`; keep hidden results as "
        "states of their own, or run the loop fewer times, not a chain of hundreds"),
    "sizes": (
        {"energy": lambda s, q, u: 1e-30 * (q @ q + torch.tanh(s.W(q)).sum() + q @ s.B(u))},  # C
        "energy: numbers of very different size meet, which no word holds together, " + LINE
        + r".*# C`; scale the terms alike and leave out what moves nothing, not a shift by \d+ bits"),
    "of the cost": (
        {"cost": lambda s, q, y: (y / s.C(q)).sum()},  # D
        RANGE.replace("energy", "cost") + LINE + ".*# D" + KEEP + r"not \(1/y\) at y = 0"),
    "cost of infinity": (
        {"cost": lambda s, q, y: s.C(q).sum() * float("inf")},  # E
        "cost: must be finite near q = 0, " + LINE + ".*# E`; " + STEEP + " or NaN at every point tried"),
    "of momenta": (
        {"kinetic": lambda s, p: torch.log(p).sum()},  # F
        "kinetic: dT/dp must be finite at p = 0, where every sample starts, " + LINE + ".*# F`; " + STEEP),
}  # fmt: skip


@pytest.mark.filterwarnings("ignore::RuntimeWarning", "ignore:.*neither energy nor cost depends")
@pytest.mark.parametrize("name", CASES)
def test_the_place_is_named(name):
    methods, message = CASES[name]
    with pytest.raises(el.CompileError, match=f"^{message}$"):
        el.compile(type("Model", (Net,), methods)(), dynamics=el.Leapfrog(0.25, 2), rule=el.HamiltonianEcho(),
                   calibrate=(X, Y), lanes=2)


class Twisted(nn.Module):
    """A layer whose momenta are multiplied with each other."""

    states, inputs = {"q": 6}, 6

    def energy(self, q, u):
        return q @ q + q @ u

    def kinetic(self, p):
        return p @ p + p @ p.roll(1)


def test_a_layer_is_named_and_no_line_of_the_compiler():
    class Two(el.Stack):
        outputs = 2

        def __init__(self):
            parts = {"into": nn.Linear(3, 6), "low": Twisted(), "cut": nn.Linear(6, 3), "top": Net()}
            super().__init__(parts, inputs=3)

        def cost(self, q, y):
            return self.top.cost(q, y)

    with pytest.raises(el.CompileError) as error:
        el.compile(Two(), dynamics=el.Leapfrog(0.25), rule=el.HamiltonianEcho(), calibrate=(X, Y))
    assert str(error.value) == ("kinetic: the kinetic energy of low is not separable; sum functions of single momenta, "
                                "e.g. (p**2 / m).sum() / 2, not (low*z9)")
