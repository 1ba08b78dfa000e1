"""Softmax cross-entropy, with classes or shares as targets: gradients against autograd, and the RTL bit for bit."""

import numpy as np
import pytest
import torch
from energies import INPUTS, Model, log_cosh
from test_machine import compare
from torch import nn
from torch.nn import functional

import echolith as el
from echolith.compiler.reference import bptt

CLASSES, STEPS = 3, 4




COSTS = {
    "classes": lambda z, y: functional.cross_entropy(z, y.long()),
    "cooler": lambda z, y: functional.nll_loss(functional.log_softmax(2 * z, 0), y.long()),
    "shares": lambda z, y: torch.logsumexp(z, 0) - (y * z).sum(),
    "with decay": lambda z, y: functional.cross_entropy(z, y) + 0.1 * (z**2).sum(),
}


class Classifier(Model):
    states = {"q": 6}
    outputs = CLASSES
    shapes = {"W": (9, 6), "B": (9, INPUTS), "b": (9,)}

    def __init__(self, kind):
        super().__init__()
        self.kind = kind
        del self.C_q
        self.C, self.c = nn.Parameter(torch.randn(CLASSES, 6) * 0.5), nn.Parameter(torch.randn(CLASSES) * 0.1)

    def energy(self, q, u):
        return 0.4 * (q**2).sum() + log_cosh(self.W @ q + self.B @ u + self.b)

    def predict(self, q):
        return self.C @ q + self.c

    def cost(self, q, y):
        return COSTS[self.kind](self.predict(q), y)


def case(kind, cost_at):
    net, generator = Classifier(kind).double(), np.random.default_rng(0)
    x = generator.integers(-8, 9, (24, STEPS, INPUTS)) / 8
    y = generator.integers(0, CLASSES, (24,) if cost_at == "last" else (24, STEPS))
    y = np.eye(CLASSES)[y] if kind in ("shares", "with decay") else y
    return net, compiled(net, cost_at, (x, y)), x, y


def compiled(net, cost_at, samples):
    return el.compile(net, dynamics=el.Leapfrog(0.25, 2), rule=el.HamiltonianEcho(cost_at), calibrate=samples, lanes=2)


@pytest.mark.parametrize("cost_at", ["last", "every", "mean"])
@pytest.mark.parametrize("kind", COSTS)
def test_gradient_agrees_with_autograd_and_learning_learns(kind, cost_at):
    net, design, x, y = case(kind, cost_at)
    expected, outputs = bptt(net, x, y, 0.25, 2, cost_at)
    with design.open("int:") as chip:
        np.testing.assert_allclose(chip.predict(x), outputs, atol=0.01)
        found = chip.gradient(x, y)
        a, b = (np.concatenate([g[name].ravel() for name in expected]) for g in (found, expected))
        assert a @ b / np.sqrt(a @ a * (b @ b)) > 0.99999
        np.testing.assert_allclose(np.linalg.norm(a), np.linalg.norm(b), rtol=0.01)
        losses = chip.fit(x, y, epochs=6, batch_size=8, learning_rate=0.3 if cost_at != "every" else 0.05).loss
    assert losses[-1] < losses[0]


@pytest.mark.parametrize("cost_at", ["last", "every"])
def test_rtl_equals_the_integer_model(simulate, cost_at):
    _, design, *_ = case("classes", cost_at)
    compare(design, simulate(design), 3, cost_at, 0.5)


def test_the_reported_loss_is_the_cost():
    net, design, x, y = case("classes", "last")
    with design.open("int:") as chip:
        loss = chip.fit(x, y, epochs=1, batch_size=24, learning_rate=0.0).loss[0]
        expected = functional.cross_entropy(torch.tensor(chip.predict(x)), torch.tensor(y)).item()
    assert loss == pytest.approx(expected, rel=1e-6)


def test_targets_that_are_no_classes_are_refused():
    net, design, x, y = case("classes", "last")
    with design.open("int:") as chip, pytest.raises(el.RangeError, match=(
            r"^Y must hold class numbers from 0 to 2, not 3$")):
        chip.fit(x, np.full(len(x), 3))
    with pytest.raises(el.CompileError, match=r"^Y must have shape \(batch\) = \(24\); the cost takes class "
                                              r"numbers, e\.g\. Y\.argmax\(-1\), not \(24, 3\)$"):
        compiled(net, "last", (x, np.eye(CLASSES)[y]))


def test_shares_that_do_not_sum_to_one_are_refused():
    net, design, x, y = case("with decay", "last")
    with design.open("int:") as chip, pytest.raises(el.RangeError, match=(
            r"^Y must hold, for this softmax cross-entropy, shares of the classes that sum to 1 per sample, not to 2$"
    )):
        chip.fit(x, 2 * y)


def test_explain_names_the_softmax():
    text = case("classes", "last")[1].explain()
    assert "logsumexp y" in text and "exp" in text


class Margins(Classifier):
    def cost(self, q, y):
        return functional.multi_margin_loss(self.predict(q), y.long())


def test_another_reduction_is_refused_by_name():
    with pytest.raises(el.CompileError, match=(
            r"^cost: of reductions over the outputs, one logsumexp of a function of y \(softmax cross-entropy\) is "
            r"built on the chip, at `test_softmax.py:\d+: def cost\(self, q, y\):`; use that, or a cost per "
            r"output, as is a margin relu\(1 - \(2 \* y - 1\) \* z\) of every class, not sum$")):
        compiled(Margins("classes"), "last", (np.zeros((2, STEPS, INPUTS)), np.zeros(2)))
