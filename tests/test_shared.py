"""What several places between the layers of a stack read, and which layers move linearly."""

import dataclasses

import numpy as np
import pytest
import torch
from torch import nn

import echolith as el
from echolith.compiler.capture import capture
from echolith.compiler.differentiate import derivative, evaluate
from echolith.compiler.graph import Sum
from echolith.compiler.ir import const, param, var
from echolith.compiler.joint import joined_layers, joins
from echolith.compiler.linearity import degree, linear
from echolith.compiler.ops import OPS, add, apply, mul
from echolith.compiler.shared import Value, shared


class Layer(nn.Module):
    def __init__(self, inputs, bend):
        super().__init__()
        self.states, self.inputs, self.bend = {"q": 4}, inputs, bend
        self.W, self.B = nn.Linear(4, 4, bias=False), nn.Linear(inputs, 4)

    def energy(self, q, u):
        z = self.W(q)
        return 0.5 * (q * q).sum() + self.bend(q, z, self.B(u)).sum()


BENDS = {
    "square": (lambda q, z, b: (z + b) ** 2, True),
    "product": (lambda q, z, b: q * b - z * q, True),
    "function of inputs": (lambda q, z, b: torch.tanh(b) * q**2, True),
    "cube": (lambda q, z, b: q**3 + b * q, False),
    "log cosh": (lambda q, z, b: torch.log(torch.cosh(z + b)), False),
    "square of squares": (lambda q, z, b: (z * z + b) ** 2, False),
}


class Net(el.Stack):
    outputs = 2

    def __init__(self, low, high):
        super().__init__({"low": low, "gate": Gate(), "high": high}, {"gate": ("low", "u")}, inputs=3)
        self.C = nn.Linear(4, 2)

    def cost(self, q, y):
        return ((self.C(q) - y) ** 2).sum()

    def predict(self, q):
        return self.C(q)


class Gate(nn.Module):
    """x = E u; g = gelu(F q + x); x + V g * sigmoid(G g)."""

    def __init__(self):
        super().__init__()
        self.E, self.F, self.V, self.G = nn.Linear(3, 4), nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 4)

    def forward(self, q, u):
        x = self.E(u)
        g = torch.nn.functional.gelu(self.F(q) + x)
        return (x + self.V(g) * torch.sigmoid(self.G(g))) * x


@pytest.mark.parametrize("name", BENDS)
def test_layers_whose_energy_is_quadratic_are_linear(name):
    bend, straight = BENDS[name]
    graph = capture(joined_layers(Net(Layer(3, bend), Layer(4, BENDS["log cosh"][0]))))
    assert linear(graph) & {"low", "high"} == ({"low"} if straight else set())


def test_a_state_that_meets_a_bent_one_is_not_linear():
    class Coupled(nn.Module):
        states, inputs = {"a": 3, "b": 3, "c": 3}, 2

        def energy(self, a, b, c, u):
            return (a * b).sum() + (b**4).sum() + (c * c).sum() + (u.sum() * c).sum()

    assert linear(capture(Coupled())) == {"c"}


def test_degrees():
    q, u, k = var("q"), var("u"), param("k")
    known = {"q": 1}
    assert degree(mul(mul(k, q), add(q, u)), known) == 2
    assert degree(apply("pow", q, const(2)), known) == 2
    assert degree(apply("tanh", u), known) == 0 and degree(apply("tanh", q), known) == float("inf")
    assert degree(apply("div", q, k), known) == 1 and degree(apply("div", k, q), known) == float("inf")
    assert "pow" in OPS


def test_shared_values_leave_the_meaning():
    torch.manual_seed(0)
    graph = capture(joins(Net(*(Layer(n, BENDS["log cosh"][0]) for n in (3, 4)))))
    graph = dataclasses.replace(graph, fed={"high": 4})
    found = shared(graph, "v")
    values = {n: x for n, x in found.nodes.items() if isinstance(x, Value)}
    assert values and not any(isinstance(x, Value) for x in graph.nodes.values())
    order = list(found.nodes)
    for name, value in values.items():
        assert all(order.index(n) < order.index(name) for n in value.expr.variables() & set(order))
        assert value.length == 4
    generator = np.random.default_rng(0)
    env = {n: generator.normal(size=(5, 4)) for n in (*graph.states, *graph.nodes, "u") if n not in values}
    full = dict(env)
    for name, node in found.nodes.items():
        if isinstance(node, Value):
            full[name] = evaluate(node.expr, full)
    for a, b in zip(graph.energy, found.energy, strict=True):
        assert isinstance(a, Sum)
        np.testing.assert_allclose(evaluate(b.expr, full), evaluate(a.expr, env), atol=1e-12)
        assert derivative(a.expr, "none") == const(0)
