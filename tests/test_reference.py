"""The float64 oracle against finite differences, closed forms and the captured network."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from echolith.compiler.capture import capture
from echolith.compiler.errors import CompileError
from echolith.compiler.reference import bptt, max_curvature, trajectory

DT, SUBSTEPS = 0.2, 2


class Oscillators(nn.Module):
    states = {"q": 5}
    inputs = 3
    outputs = 2

    def __init__(self):
        super().__init__()
        torch.manual_seed(2)
        self.W, self.B, self.readout = nn.Linear(5, 4), nn.Linear(3, 4), nn.Linear(5, 2)
        self.k = nn.Parameter(torch.rand(5) + 0.5)
        self.frozen = nn.Parameter(torch.rand(5), requires_grad=False)

    def energy(self, q, u):
        z = self.W(q) + self.B(u)
        return 0.5 * (self.k * q * q).sum() + torch.log(torch.cosh(z)).sum() + self.frozen @ q

    def cost(self, q, y):
        return F.mse_loss(self.readout(q), y)


class Springs(nn.Module):
    """V = k q^2 / 2 - u q with one unit: everything can be done by hand."""

    states = {"q": 1}
    inputs = outputs = 1

    def __init__(self, k: float):
        super().__init__()
        self.k = nn.Parameter(torch.tensor([k]))

    def energy(self, q, u):
        return (0.5 * self.k * q**2).sum() + 0.5 * ((q - u) ** 2).sum()

    def cost(self, q, y):
        return 0.5 * ((q - y) ** 2).sum()


def data(time: int = 4, every: bool = False):
    rng = np.random.default_rng(3)
    return rng.normal(size=(6, time, 3)), rng.uniform(size=(6, time, 2) if every else (6, 2))


def leapfrog(network, x):
    """States after the last drift of every row, written out with numpy for the Oscillators."""
    v = network.values
    q = p = np.zeros((len(x), 5))
    rows = []
    for u in np.moveaxis(x, 1, 0):
        for _ in range(SUBSTEPS):
            q = q + DT * p
            z = q @ v["W.weight"].T + v["W.bias"] + u @ v["B.weight"].T + v["B.bias"]
            p = p - DT * (v["k"] * q + v["frozen"] + np.tanh(z) @ v["W.weight"])
        rows.append(q)
    return np.stack(rows, axis=1)


@pytest.mark.parametrize("cost_at", ["last", "every"])
def test_gradient_equals_finite_differences(cost_at):
    model = Oscillators()
    x, y = data(every=cost_at == "every")
    gradients, _ = bptt(model, x, y, DT, SUBSTEPS, cost_at)
    assert set(gradients) == {n for n, p in model.named_parameters() if p.requires_grad}
    network = capture(model)

    def total() -> float:
        q = leapfrog(network, x)
        out = q @ network.values["readout.weight"].T + network.values["readout.bias"]
        if cost_at == "last":
            return ((out[:, -1] - y) ** 2).mean()
        return ((out - y) ** 2).mean(axis=(0, 2)).sum()

    elements = {"k": 2, "W.weight": (1, 3), "W.bias": 0, "B.weight": (3, 1), "readout.weight": (1, 4)}
    for name, index in elements.items():
        before, step = network.values[name][index], 1e-5
        sides = []
        for sign in (1, -1):
            network.values[name][index] = before + sign * step
            sides.append(total())
        network.values[name][index] = before
        np.testing.assert_allclose((sides[0] - sides[1]) / (2 * step), gradients[name][index], rtol=1e-6, atol=1e-9)


def test_one_spring_by_hand():
    k, u, y, dt = 0.5, 2.0, 3.0, 0.25
    gradients, outputs = bptt(Springs(k), np.full((1, 3, 1), u), np.full((1, 1), y), dt, 1)
    # q1 = 0, p1 = dt u; q2 = dt^2 u, p2 = p1 - dt ((k + 1) q2 - u); q3 = q2 + dt p2
    q2 = dt**2 * u
    q3 = q2 + dt * (dt * u - dt * ((k + 1) * q2 - u))
    np.testing.assert_allclose(outputs, [[q3]], rtol=1e-14)
    np.testing.assert_allclose(gradients["k"], [(q3 - y) * -(dt**2) * q2], rtol=1e-14)


def test_outputs_are_readouts_or_predictions_at_the_right_rows():
    model = Oscillators()
    x, y = data(every=True)
    network = capture(model)
    expected = leapfrog(network, x) @ network.values["readout.weight"].T + network.values["readout.bias"]
    np.testing.assert_allclose(bptt(model, x, y, DT, SUBSTEPS, "every")[1], expected, rtol=1e-12)
    np.testing.assert_allclose(bptt(model, x, y[:, -1], DT, SUBSTEPS)[1], expected[:, -1], rtol=1e-12)
    doubled = type("Predicting", (Oscillators,), {"predict": lambda self, q: 2 * self.readout(q)})()
    np.testing.assert_allclose(bptt(doubled, x, y[:, -1], DT, SUBSTEPS)[1], 2 * expected[:, -1], rtol=1e-12)


def test_the_model_is_left_as_it_was():
    model = Oscillators()
    x, y = data()
    bptt(model, x, y, DT, SUBSTEPS)
    assert all(p.grad is None and p.dtype == torch.float32 for p in model.parameters())
    assert torch.get_default_dtype() == torch.float32


def test_trajectory_equals_the_loop_written_out():
    network = capture(Oscillators())
    x, _ = data()
    run = trajectory(network, x, DT, SUBSTEPS)
    rows = leapfrog(network, x)
    np.testing.assert_allclose(run.q["q"][SUBSTEPS - 1 :: SUBSTEPS], np.moveaxis(rows, 1, 0), rtol=1e-12)
    assert run.q["q"].shape == (8, 6, 5) and run.u.shape == (8, 6, 3)
    assert run.q_ranges == {"q": (run.q["q"].min(), run.q["q"].max())}
    v = network.values
    z = run.q["q"] @ v["W.weight"].T + v["W.bias"] + run.u @ v["B.weight"].T + v["B.bias"]
    np.testing.assert_allclose(run.node_ranges["z0"], (z.min(), z.max()), rtol=1e-12)
    y = rows @ v["readout.weight"].T + v["readout.bias"]
    np.testing.assert_allclose(run.y_range, (y.min(), y.max()), rtol=1e-12)
    assert run.p_ranges["q"][0] < 0 < run.p_ranges["q"][1]


def test_divergence_is_refused_with_the_row():
    network = capture(type("Quartic", (Springs,), {"energy": lambda s, q, u: (q**4).sum() + ((q - u) ** 2).sum()})(1.0))
    with pytest.raises(CompileError, match=r"diverge at input row \d+: make dt smaller .*, not dt=3$"):
        trajectory(network, np.full((1, 20, 1), 5.0), 3.0, 2)


def test_curvature_is_the_largest_eigenvalue_of_the_hessian():
    model = Oscillators()
    network = capture(model)
    x, _ = data()
    run = trajectory(network, x, DT, SUBSTEPS)
    model = model.double()
    points = zip(run.q["q"].reshape(-1, 5), run.u.reshape(-1, 3), strict=True)
    hessians = [
        torch.autograd.functional.hessian(lambda q, u=u: model.energy(q, torch.tensor(u)), torch.tensor(q))
        for q, u in points
    ]
    expected = max(float(torch.linalg.eigvalsh(h)[-1]) for h in hessians)
    np.testing.assert_allclose(max_curvature(network, run, points=len(hessians)), expected, rtol=1e-10)


def test_curvature_of_a_large_network_by_power_iteration(monkeypatch):
    network = capture(Oscillators())
    x, _ = data()
    run = trajectory(network, x, DT, SUBSTEPS)
    exact = max_curvature(network, run)
    monkeypatch.setattr("echolith.compiler.reference._EXACT", 0)
    np.testing.assert_allclose(max_curvature(network, run), exact, rtol=1e-4)


def test_the_leapfrog_limit_is_where_a_spring_becomes_unstable():
    network = capture(Springs(3.0))
    x = np.ones((1, 400, 1))
    limit = 2 / np.sqrt(max_curvature(network, trajectory(network, x, 0.1, 1)))
    assert limit == pytest.approx(1.0)  # curvature k + 1 = 4
    assert trajectory(network, x, 0.99 * limit, 1).q_ranges["q"][1] < 20
    assert trajectory(network, x, 1.01 * limit, 1).q_ranges["q"][1] > 1e6


def test_cost_at_and_a_missing_cost_are_refused():
    x, y = data()
    with pytest.raises(CompileError, match='^cost_at must be "last", "every" or "mean", not \'first\'$'):
        bptt(Oscillators(), x, y, DT, SUBSTEPS, "first")
    without = type("Silent", (Springs,), {"cost": None})(1.0)
    with pytest.raises(CompileError, match=r"^Silent must define cost\(self, q, y\) to have a gradient, not Silent"):
        bptt(without, x, y, DT, SUBSTEPS)


class Two(nn.Module):
    """Two states with masses, a deep coupling and class targets."""

    states = {"a": 4, "b": (2, 3)}
    inputs, outputs = 2, 3

    def __init__(self):
        super().__init__()
        torch.manual_seed(3)
        self.W, self.B, self.readout = nn.Linear(4, 6), nn.Linear(2, 4), nn.Linear(6, 3)
        self.m = nn.Parameter(torch.rand(4) + 0.5)

    def energy(self, a, b, u):
        return 0.5 * ((a - self.B(u)) ** 2).sum() + 0.5 * (b**2).sum() + b.flatten() @ torch.tanh(self.W(a))

    def kinetic(self, p, r):
        return 0.5 * (p**2 / self.m).sum() + 0.5 * (r**2).sum()

    def cost(self, a, b, y):
        return F.cross_entropy(self.readout(b.flatten()), y.long())


@pytest.mark.parametrize("cost_at", ["last", "every"])
def test_several_states_with_masses_and_classes(cost_at):
    model = Two().double()
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(5, 3, 2)), rng.integers(3, size=5 if cost_at == "last" else (5, 3))
    gradients, outputs = bptt(model, x, y, DT, SUBSTEPS, cost_at)
    graph = capture(model)
    run = trajectory(graph, x, DT, SUBSTEPS)
    b = run.q["b"][SUBSTEPS - 1 :: SUBSTEPS]
    expected = np.moveaxis(b @ graph.values["readout.weight"].T + graph.values["readout.bias"], 0, 1)
    np.testing.assert_allclose(outputs, expected[:, -1] if cost_at == "last" else expected, rtol=1e-10)
    for name, index in {"m": 1, "W.weight": (2, 3), "B.bias": 0, "readout.weight": (1, 4)}.items():
        sides = []
        for sign in (1, -1):
            with torch.no_grad():
                dict(model.named_parameters())[name][index] += sign * 1e-5
            last = torch.tensor(bptt(model, x, y, DT, SUBSTEPS, cost_at)[1]).reshape(-1, 3)
            cost = F.cross_entropy(last, torch.tensor(y).reshape(-1), reduction="sum")
            sides.append(cost.item() / 5)
            with torch.no_grad():
                dict(model.named_parameters())[name][index] -= sign * 1e-5
        np.testing.assert_allclose((sides[0] - sides[1]) / 2e-5, gradients[name][index], rtol=1e-6, atol=1e-9)


def test_curvature_counts_masses():
    model = Two().double()
    graph = capture(model)
    run = trajectory(graph, np.zeros((1, 1, 2)), DT, 1)
    assert all(not q.any() for q in run.q.values())
    flat = torch.zeros(10, dtype=torch.float64)

    def energy(x):
        return model.energy(x[:4], x[4:].reshape(2, 3), torch.zeros(2, dtype=torch.float64))

    hessian = torch.autograd.functional.hessian(energy, flat)
    scale = torch.cat([model.m.detach() ** -0.5, torch.ones(6, dtype=torch.float64)])
    expected = torch.linalg.eigvalsh(scale[:, None] * hessian * scale)[-1].item()
    assert max_curvature(graph, run) == pytest.approx(expected, rel=1e-10)
