"""Networks whose read-outs, or what lies between their layers, begin at zero or small: gradients before and after they
have grown."""

import numpy as np
import pytest
import torch
from networks import Oscillators
from test_stacked import GATE, Net, Rows, cosine
from torch import nn
from torch.nn import functional as F

import echolith as el
from echolith.compiler.reference import bptt

ROWS, INPUTS, OUTPUTS, SAMPLES = 6, 3, 3, 24
DYNAMICS = el.Leapfrog(0.25)


class Classes(Oscillators):
    def __init__(self):
        super().__init__(9, 7, INPUTS, OUTPUTS)

    def cost(self, q, y):
        return F.cross_entropy(self.C(q), y.long())


class Counts(Classes):
    def cost(self, q, y):
        return F.poisson_nll_loss(self.C(q), y)


class Deep(Classes):
    """A read-out of two layers."""

    def __init__(self):
        super().__init__()
        self.D, self.C = nn.Linear(9, 6), nn.Linear(6, OUTPUTS)

    def read(self, q):
        return self.C(torch.tanh(self.D(q)))

    def cost(self, q, y):
        return F.cross_entropy(self.read(q), y.long())

    def predict(self, q):
        return self.read(q)


def gated():
    return Net({"low": Rows(INPUTS), "mix": GATE(6, 4), "high": Rows(4)})


def targets(net, generator):
    if isinstance(net, Counts):
        return generator.poisson(1.0, (SAMPLES, OUTPUTS)).astype(float)
    if isinstance(net, Classes):
        return generator.integers(OUTPUTS, size=SAMPLES)
    return np.eye(net.outputs)[generator.integers(net.outputs, size=SAMPLES)]


@pytest.mark.parametrize("scale", [0.0, 0.01])
@pytest.mark.parametrize("make, small, rule", [
    (Classes, "C", el.HamiltonianEcho()), (Classes, "C", el.EchoBackpropagation()), (Counts, "C", el.HamiltonianEcho()),
    (Deep, "C", el.HamiltonianEcho()), (Deep, "D", el.HamiltonianEcho()), (gated, "C", el.HamiltonianEcho()),
    (gated, "mix", el.HamiltonianEcho()),
])
def test_gradients_are_right_before_and_after_weights_have_grown(make, small, rule, scale, recwarn):
    torch.manual_seed(0)
    net, generator = make(), np.random.default_rng(0)
    with torch.no_grad():
        for parameter in getattr(net, small).parameters():
            parameter.mul_(scale)
    x = generator.integers(-8, 9, (SAMPLES, ROWS, INPUTS)) / 8
    y = targets(net, generator)
    design = el.compile(net, dynamics=DYNAMICS, rule=rule, calibrate=(x, y), lanes=4)
    with design.open("int:") as chip:
        for epochs in (0, 25):
            if epochs:
                chip.fit(x, y, epochs=epochs, batch_size=8, learning_rate=0.05, momentum=0.9)
            net.double().load_state_dict({name: torch.from_numpy(v) for name, v in chip.state_dict().items()})
            expected, found = bptt(net, x, y, DYNAMICS.dt, DYNAMICS.substeps)[0], chip.gradient(x, y)
            assert cosine(found, expected, list(expected)) >= 0.9999
    assert not [str(w.message) for w in recwarn if "clip" in str(w.message)]
