"""Costs of many spellings on the machine: gradients against autograd, and that learning lowers the cost."""

import numpy as np
import pytest
import torch
from energies import INPUTS
from test_general import cosine
from test_machine import compare
from test_softmax import CLASSES, STEPS, Classifier, compiled
from torch.nn import functional as F

import echolith as el
from echolith.compiler.reference import bptt

W = torch.tensor([0.5, 1.5, 3.0], dtype=torch.float64)
VALUES, BITS, SHARES, NUMBERS = "values", "bits", "shares", "numbers"

COSTS = {  # over the scores z, which predict returns
    "weighted squares": (VALUES, lambda z, y: (W * (z - y) ** 2).sum()),
    "weighted logits": (BITS, lambda z, y: F.binary_cross_entropy_with_logits(z, y, weight=W)),
    "positive weights": (BITS, lambda z, y: F.binary_cross_entropy_with_logits(z, y, pos_weight=W)),
    "soft margin": (BITS, lambda z, y: F.soft_margin_loss(z, 2 * y - 1)),
    "hinge": (BITS, lambda z, y: F.relu(1 - (2 * y - 1) * z).sum()),
    "poisson": (BITS, F.poisson_nll_loss),
    "huber": (VALUES, lambda z, y: F.huber_loss(z, y, delta=0.3)),
    "smooth l1": (VALUES, lambda z, y: F.smooth_l1_loss(z, y, beta=0.5, reduction="sum")),
    "l1": (VALUES, lambda z, y: F.l1_loss(z, y, reduction="none").mean()),
    "class weights": (NUMBERS, lambda z, y: F.cross_entropy(z, y.long(), weight=W)),
    "smoothed": (NUMBERS, lambda z, y: F.cross_entropy(z, y.long(), label_smoothing=0.1)),
    "smoothed shares": (SHARES, lambda z, y: F.cross_entropy(z, y, label_smoothing=0.1)),
    "divergence": (SHARES, lambda z, y: F.kl_div(F.log_softmax(z, -1), y, reduction="sum")),
    "logarithm of a softmax": (SHARES, lambda z, y: -(y * torch.log(torch.softmax(z, -1))).sum(-1)),
    "sigmoid of targets": (BITS, lambda z, y: F.binary_cross_entropy_with_logits(z, torch.sigmoid(3 * y - 1))),
    "logarithm of targets": (SHARES, lambda z, y: ((z - torch.log(y)) ** 2).sum()),
    "one-hot classes": (NUMBERS, lambda z, y: F.mse_loss(z, F.one_hot(y.long(), CLASSES).float())),
    "not the class": (NUMBERS, lambda z, y: ((1 - F.one_hot(y, CLASSES)) * F.softplus(z)).sum() + (z**2).sum()),
    "score of the class": (NUMBERS, lambda z, y: torch.logsumexp(z, 0) - z[y.long()]),
    "batch of one": (NUMBERS, lambda z, y: F.cross_entropy(z[None], y.long()[None], reduction="none").mean()),
}
OF_ALL = {  # the chip has to compute more than the scores: without predict it finds what
    "brier": (SHARES, lambda z, y: ((torch.softmax(z, 0) - y) ** 2).sum()),
    "focal": (SHARES, lambda z, y: -(y * (1 - torch.softmax(z, 0)) ** 2 * F.log_softmax(z, 0)).sum()),
    "weighted shares": (SHARES, lambda z, y: F.cross_entropy(z, y, weight=W)),
    "centred": (VALUES, lambda z, y: ((z - z.mean() - y) ** 2).sum()),
}


class Scores(Classifier):
    def __init__(self, cost):
        super().__init__("classes")
        self.how = cost

    def cost(self, q, y):
        return self.how(self.C @ q + self.c, y)


class Unpredicted(Scores):
    predict = None  # type: ignore[assignment]


def targets(kind, generator):
    if kind == NUMBERS:
        return generator.integers(0, CLASSES, 24)
    if kind == SHARES:
        return np.eye(CLASSES)[generator.integers(0, CLASSES, 24)] * 0.625 + 0.125
    return generator.integers(0, 2, (24, CLASSES)) * 1.0 if kind == BITS else generator.integers(-8, 9, (24, 3)) / 8


def case(model, kind, cost):
    net, generator = model(cost).double(), np.random.default_rng(0)
    x = generator.integers(-8, 9, (24, STEPS, INPUTS)) / 8
    y = targets(kind, generator)
    return net, compiled(net, "last", (x, y)), x, y


@pytest.mark.filterwarnings("ignore:There is a performance drop", "error:Using a target size")
@pytest.mark.parametrize("model, name", [(Scores, n) for n in COSTS] + [(Unpredicted, n) for n in OF_ALL])
def test_gradient_agrees_with_autograd_and_learning_learns(model, name):
    kind, cost = (COSTS | OF_ALL)[name]
    net, design, x, y = case(model, kind, cost)
    expected, outputs = bptt(net, x, y, 0.25, 2)
    with design.open("int:") as chip:
        np.testing.assert_allclose(chip.predict(x), outputs, atol=1e-3)
        found = chip.gradient(x, y)
        a, b = (np.concatenate([np.asarray(g[n]).ravel() for n in found]) for g in (found, expected))
        assert cosine(a, b) >= 0.9999
        np.testing.assert_allclose(np.linalg.norm(a), np.linalg.norm(b), rtol=0.01)
        losses = chip.fit(x, y, epochs=6, batch_size=24, learning_rate=0.01).loss
    assert losses[-1] < losses[0]


@pytest.mark.slow
def test_rtl_equals_the_integer_model(simulate):
    _, design, _, _ = case(Scores, *COSTS["positive weights"])
    compare(design, simulate(design), 3, "last", 0.5)


@pytest.mark.parametrize("name, cost, message", [
    ("ignored", lambda z, y: F.cross_entropy(z, y.long(), ignore_index=1),
     r"a class is ignored, .*; leave its samples out with mask=, as in fit\(X, Y, mask=M\), not ignore_index=1$"),
    ("two vectors", lambda z, y: F.binary_cross_entropy_with_logits(z, y, weight=W, pos_weight=1 + W),
     r"one vector of numbers per output is built on the chip, .*; write several as one, e.g. as their product, not "
     r"constant\d+, constant\d+$"),
    ("weighed softmax", lambda z, y: F.cross_entropy(z, y, weight=W),
     r"weights of outputs beside a reduction over the outputs are not built on the chip, .*; let predict return all "
     r"of it, e.g. log_softmax\(R q\), and weigh that, not constant\d+ beside logsumexp$"),
    ("brier of scores", lambda z, y: ((torch.softmax(z, 0) - y) ** 2).sum(),
     r"the logsumexp of the outputs may be added or multiplied by the target, .*; let predict return what else "
     r"depends on all outputs, e.g. softmax\(R q\), not with the factor "),
    ("logarithm of 0", lambda z, y: ((z - torch.log(y - 0.125)) ** 2).sum(),
     r"dcost/dy must be finite on the calibration data, at `.*`; keep what is under log, sqrt and quotients away from "
     r"0, not inf at y = \S+, target = 0\.125$"),
])  # fmt: skip
def test_what_is_refused_says_what_to_write(name, cost, message):
    with pytest.raises(el.CompileError, match="^cost: " + message):
        case(Scores, NUMBERS if name == "ignored" else SHARES, cost)


def test_scores_with_a_learned_scale_are_the_readout():
    class Scaled(Unpredicted):
        def __init__(self, cost):
            super().__init__(cost)
            self.s = torch.nn.Parameter(torch.tensor(0.7))

        def cost(self, q, y):
            return F.cross_entropy(self.s * (self.C @ q + self.c), y.long())

    _, design, x, _ = case(Scaled, NUMBERS, None)
    with design.open("int:") as chip:  # not their log_softmax, which takes more circuits than there are
        assert np.abs(np.exp(chip.predict(x)).sum(-1) - 1).max() > 0.1


def test_a_learned_temperature_is_part_of_the_readout(tmp_path):
    class Tempered(Unpredicted):
        def __init__(self, cost):
            super().__init__(cost)
            self.T = torch.nn.Parameter(torch.tensor(1.5))

        def cost(self, q, y):
            return F.cross_entropy((self.C @ q + self.c) / self.T, y.long())

    net, design, x, y = case(Tempered, NUMBERS, None)
    expected = bptt(net, x, y, 0.25, 2)[0]
    with design.open("int:") as chip:
        found = chip.gradient(x, y)
    np.testing.assert_allclose(found["T"], expected["T"], rtol=0.02)
    design.save(tmp_path / "net.echolith")
    with el.open(tmp_path / "net.echolith") as chip:  # a scalar stays one
        assert chip.gradient(x, y)["T"].shape == chip.state_dict()["T"].shape == expected["T"].shape == ()
    assert cosine(found["C"], expected["C"]) > 0.9999
