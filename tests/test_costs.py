"""Costs and readouts: y = readout(q) is found whatever the cost looks like, and its gradients equal autograd's."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from echolith.compiler import numeric
from echolith.compiler.capture import capture

N, Y = 5, 2


class Base(nn.Module):
    states = {"q": N}
    inputs = 3
    outputs = Y

    def __init__(self):
        super().__init__()
        torch.manual_seed(4)
        self.readout = nn.Linear(N, Y, dtype=torch.float64)
        self.k = nn.Parameter(torch.rand(N, dtype=torch.float64))

    def energy(self, q, u):
        return q @ q


def model(**attributes) -> nn.Module:
    return type("Model", (Base,), attributes)()


def assert_cost_equals_autograd(module: nn.Module, network) -> None:
    rng = np.random.default_rng(6)
    for _ in range(3):
        q, y = rng.normal(size=(1, N)), rng.uniform(size=(1, network.outputs))
        state = torch.tensor(q[0], requires_grad=True)
        names = [n for n, p in module.named_parameters() if n in network.learned]
        leaves = [p for n, p in module.named_parameters() if n in network.learned]
        value = module.cost(state, torch.tensor(y[0]))
        dq, *grads = torch.autograd.grad(value, [state, *leaves])
        slope, parts = numeric.cost_gradient(network, q, y)
        np.testing.assert_allclose(numeric.cost(network, q, y), [value.item()], rtol=1e-12)
        np.testing.assert_allclose(slope[0], dq.numpy(), rtol=1e-10, atol=1e-13)
        assert set(parts) == set(names)
        for name, grad in zip(names, grads, strict=True):
            np.testing.assert_allclose(parts[name], grad.numpy(), rtol=1e-10, atol=1e-13)


SQUARE = "pow((y - target), 2)"
COSTS = {  # cost, expected expression
    "mse": (lambda s, q, y: F.mse_loss(s.readout(q), y), f"(0.5*{SQUARE})"),
    "sum of squares": (lambda s, q, y: 0.5 * ((s.readout(q) - y) ** 2).sum(), f"(0.5*{SQUARE})"),
    "reversed": (lambda s, q, y: ((y - s.readout(q)) ** 2).mean(), "(0.5*pow((target - y), 2))"),
    "none": (lambda s, q, y: F.mse_loss(s.readout(q), y, reduction="none").sum(), SQUARE),
    "norm": (lambda s, q, y: torch.norm(s.readout(q) - y) ** 2, SQUARE),
    "shifted target": (lambda s, q, y: ((s.readout(q) - (2 * y - 1)) ** 2).sum(), "pow((y - ((2*target) + -1)), 2)"),
    "logits": (
        lambda s, q, y: F.binary_cross_entropy_with_logits(s.readout(q), y, reduction="sum"),
        "((y*(1 - target)) + softplus(neg(y)))",
    ),
    "logits written out": (
        lambda s, q, y: (F.softplus(s.readout(q)) - y * s.readout(q)).sum(),
        "(softplus(y) - (target*y))",
    ),
    "bce": (lambda s, q, y: F.binary_cross_entropy(torch.sigmoid(s.readout(q)), y), None),
    "bce written out": (
        lambda s, q, y: -(y * torch.log(p := s.readout(q).sigmoid()) + (1 - y) * torch.log(1 - p)).mean(),
        None,
    ),
    "divergence": (lambda s, q, y: F.kl_div(F.logsigmoid(s.readout(q)), y, reduction="sum"), None),
    "huber": (lambda s, q, y: F.huber_loss(s.readout(q), y, delta=0.3), None),
    "smooth l1": (lambda s, q, y: F.smooth_l1_loss(s.readout(q), y, beta=0.3), None),
    "margin": (lambda s, q, y: F.soft_margin_loss(s.readout(q), y), "(0.5*softplus(neg((target*y))))"),
    "squashed": (lambda s, q, y: ((torch.tanh(s.readout(q)) - y) ** 2).sum(), "pow((tanh(y) - target), 2)"),
}


@pytest.mark.parametrize("name", COSTS)
def test_costs(name):
    cost, expected = COSTS[name]
    module = model(cost=cost)
    network = capture(module)
    assert expected is None or str(network.cost) == expected
    assert_cost_equals_autograd(module, network)
    q = np.random.default_rng(0).normal(size=(1, N))
    wanted = module.readout(torch.tensor(q[0])).detach().numpy()
    np.testing.assert_allclose(numeric.readout(network, q)[0], wanted, rtol=1e-12)


def test_a_readout_without_bias():
    module = model(cost=lambda s, q, y: F.mse_loss(F.linear(q, s.readout.weight), y))
    network = capture(module)
    assert network.learned == {"readout.weight"}
    assert_cost_equals_autograd(module, network)


def test_predict_sets_the_scale_of_the_outputs():
    module = model(
        cost=lambda s, q, y: F.mse_loss(2 * s.readout(q) + 0.5, y), predict=lambda s, q: 2 * s.readout(q) + 0.5
    )
    network = capture(module)
    assert str(network.cost) == f"(0.5*{SQUARE})"
    assert_cost_equals_autograd(module, network)
    q = np.random.default_rng(0).normal(size=(1, N))
    wanted = module.predict(torch.tensor(q[0])).detach().numpy()
    np.testing.assert_allclose(numeric.readout(network, q)[0], wanted, rtol=1e-12)


@pytest.mark.parametrize("shift", [lambda s: 0.0, lambda s: s.k])
def test_a_cost_on_the_states_gets_an_identity_readout(shift):
    module = model(cost=lambda s, q, y: ((q + shift(s) - y) ** 2).sum(), outputs=N)
    network = capture(module)
    assert network.readout is not None and str(network.cost) == SQUARE
    matrix = network.readout.terms[0]
    assert matrix.parameter not in network.learned
    np.testing.assert_array_equal(network.values[matrix.parameter], np.eye(N))
    assert_cost_equals_autograd(module, network)


def test_without_cost_the_readout_is_predict_or_none():
    network = capture(model(predict=lambda s, q: s.readout(q) - 1))
    assert network.cost is None
    rest = numeric.readout(network, np.zeros((1, N)))[0]
    np.testing.assert_allclose(rest, network.values["readout.bias"] - 1, rtol=1e-12)
    assert capture(model()).readout is None and capture(model()).outputs == Y


class Silent(nn.Module):
    states = {"q": N}
    inputs = 1

    def energy(self, q, u):
        return q @ q


def test_outputs_may_be_left_out_when_nothing_reads_out():
    assert capture(Silent()).outputs == N
