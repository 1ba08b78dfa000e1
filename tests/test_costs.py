"""Costs and readouts: y = readout(q) is found whatever the cost looks like, and its gradients equal autograd's."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from echolith.compiler import numeric
from echolith.compiler.capture import capture
from echolith.compiler.graph import Index, Term
from echolith.compiler.ir import var

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


def assert_cost_equals_autograd(module: nn.Module, graph) -> None:
    rng = np.random.default_rng(6)
    for _ in range(3):
        q, y = rng.normal(size=(1, N)), rng.uniform(size=(1, graph.outputs))
        state = torch.tensor(q[0], requires_grad=True)
        names = [n for n, p in module.named_parameters() if n in graph.learned]
        leaves = [p for n, p in module.named_parameters() if n in graph.learned]
        value = module.cost(state, torch.tensor(y[0]))
        dq, *grads = torch.autograd.grad(value, [state, *leaves])
        slope, parts = numeric.cost_gradient(graph, {"q": q}, y)
        np.testing.assert_allclose(numeric.cost(graph, {"q": q}, y), [value.item()], rtol=1e-12)
        np.testing.assert_allclose(slope["q"][0], dq.numpy(), rtol=1e-10, atol=1e-13)
        assert set(parts) == set(names)
        for name, grad in zip(names, grads, strict=True):
            np.testing.assert_allclose(parts[name], grad.numpy(), rtol=1e-10, atol=1e-13)


def cost_text(graph) -> str:
    (term,) = graph.cost
    assert term.length == graph.outputs
    return str(term.expr)


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
    graph = capture(module)
    assert expected is None or cost_text(graph) == expected
    assert_cost_equals_autograd(module, graph)
    q = np.random.default_rng(0).normal(size=(1, N))
    wanted = module.readout(torch.tensor(q[0])).detach().numpy()
    np.testing.assert_allclose(numeric.readout(graph, {"q": q})[0], wanted, rtol=1e-12)


def test_a_readout_without_bias():
    module = model(cost=lambda s, q, y: F.mse_loss(F.linear(q, s.readout.weight), y))
    graph = capture(module)
    assert graph.learned == {"readout.weight"}
    assert_cost_equals_autograd(module, graph)


def test_predict_sets_the_scale_of_the_outputs():
    module = model(
        cost=lambda s, q, y: F.mse_loss(2 * s.readout(q) + 0.5, y), predict=lambda s, q: 2 * s.readout(q) + 0.5
    )
    graph = capture(module)
    assert cost_text(graph) == f"(0.5*{SQUARE})"
    assert_cost_equals_autograd(module, graph)
    q = np.random.default_rng(0).normal(size=(1, N))
    wanted = module.predict(torch.tensor(q[0])).detach().numpy()
    np.testing.assert_allclose(numeric.readout(graph, {"q": q})[0], wanted, rtol=1e-12)


@pytest.mark.parametrize("shift", [lambda s: 0.0, lambda s: s.k])
def test_a_cost_on_the_states_gets_an_identity_readout(shift):
    module = model(cost=lambda s, q, y: ((q + shift(s) - y) ** 2).sum(), outputs=N)
    graph = capture(module)
    assert graph.readout is not None and cost_text(graph) == SQUARE
    assert graph.readout.terms == (Term(Index(tuple(range(N))), var("q")),)
    assert_cost_equals_autograd(module, graph)


def test_without_cost_the_readout_is_predict_or_none():
    graph = capture(model(predict=lambda s, q: s.readout(q) - 1))
    assert graph.cost == ()
    rest = numeric.readout(graph, {"q": np.zeros((1, N))})[0]
    np.testing.assert_allclose(rest, graph.values["readout.bias"] - 1, rtol=1e-12)
    assert capture(model()).readout is None and capture(model()).outputs == Y


class Silent(nn.Module):
    states = {"q": N}
    inputs = 1

    def energy(self, q, u):
        return q @ q


def test_outputs_may_be_left_out_when_nothing_reads_out():
    assert capture(Silent()).outputs == N


PROBABILITIES = torch.tensor([0.7, 1.3], dtype=torch.float64)
VECTORS = {  # costs that couple the outputs, and weighted ones
    "cross entropy": lambda s, q, y: F.cross_entropy(s.readout(q), y),
    "softmax written out": lambda s, q, y: -(y * F.log_softmax(s.readout(q), 0)).sum(),
    "batch of one": lambda s, q, y: F.cross_entropy(s.readout(q)[None], y[None], weight=PROBABILITIES),
    "brier": lambda s, q, y: ((torch.softmax(s.readout(q), 0) - y) ** 2).sum(),
    "weighted": lambda s, q, y: F.binary_cross_entropy_with_logits(s.readout(q), y, weight=PROBABILITIES),
    "positive weight": lambda s, q, y: F.binary_cross_entropy_with_logits(s.readout(q), y, pos_weight=PROBABILITIES),
    "weights": lambda s, q, y: (PROBABILITIES * (s.readout(q) - y) ** 2).sum(),
    "centred": lambda s, q, y: ((s.readout(q) - s.readout(q).mean() - y) ** 2).sum(),
    "hinge": lambda s, q, y: F.relu(1 - (2 * y - 1) * s.readout(q)).sum(),
    "of a function": lambda s, q, y: F.mse_loss(s.readout(torch.tanh(q)), y),
    "residual": lambda s, q, y: F.mse_loss(s.readout(q) + q[:2], y),
}


@pytest.mark.parametrize("name", VECTORS)
def test_costs_that_couple_or_weigh_outputs(name):
    module = model(cost=VECTORS[name])
    assert_cost_equals_autograd(module, capture(module))


CLASSES = {
    "cross entropy": lambda s, q, y: F.cross_entropy(s.readout(q), y.long()),
    "batch of one": lambda s, q, y: F.cross_entropy(s.readout(q)[None], y.reshape(1), label_smoothing=0.0),
    "nll": lambda s, q, y: F.nll_loss(F.log_softmax(s.readout(q), 0), y),
    "margin": lambda s, q, y: F.multi_margin_loss(s.readout(q), y),
    "squared margin": lambda s, q, y: F.multi_margin_loss(s.readout(q)[None], y, p=2, margin=0.5),
    "weighted margin": lambda s, q, y: F.multi_margin_loss(s.readout(q), y, weight=PROBABILITIES),
    "gather": lambda s, q, y: torch.logsumexp(s.readout(q), 0) - s.readout(q).gather(0, y[None])[0],
    "index": lambda s, q, y: torch.logsumexp(s.readout(q), 0) - s.readout(q)[y[None]].sum(),
    "compared": lambda s, q, y: ((s.readout(q) - (torch.arange(Y) == y).double()) ** 2).sum(),
}


@pytest.mark.parametrize("name", CLASSES)
def test_class_targets(name):
    module = model(cost=CLASSES[name])
    graph = capture(module)
    assert graph.classes or name == "batch of one"
    rng = np.random.default_rng(6)
    for label in range(Y) if graph.classes else ():
        q = rng.normal(size=(1, N))
        state, target = torch.tensor(q[0], requires_grad=True), torch.tensor(label)
        try:
            value = module.cost(state, target)
        except (RuntimeError, ValueError):
            value = module.cost(state, target[None])
        (dq,) = torch.autograd.grad(value, [state])
        slope, _ = numeric.cost_gradient(graph, {"q": q}, np.array([label]))
        np.testing.assert_allclose(numeric.cost(graph, {"q": q}, np.array([label])), [value.item()], rtol=1e-12)
        np.testing.assert_allclose(slope["q"][0], dq.numpy(), rtol=1e-10, atol=1e-13)
