"""Gradients by the contrast of two trajectories against autograd, for every boundary condition."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from energies import Hopfield, Masses, Model, Relativistic
from torch import nn

from echolith.compiler.boundaries import boundary_gradient, boundary_reference
from echolith.compiler.errors import CompileError
from echolith.compiler.motion import motion
from echolith.compiler.orbits import orbit
from echolith.compiler.reference import bptt
from echolith.examples.boundaries import CASES, gradients
from echolith.examples.boundaries import cosine as alike

BATCH, ROWS, DT, SUBSTEPS = 2, 4, 0.15, 2


def data(cost_at="last"):
    rng = np.random.default_rng(0)
    return rng.normal(size=(BATCH, ROWS, 3)), rng.normal(size=(BATCH, 2) if cost_at == "last" else (BATCH, ROWS, 2))


@pytest.fixture(autouse=True)
def one_thread():
    """Small matrices: a second thread only waits."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def flat(gradient):
    return np.concatenate([g.ravel() for g in gradient.values()])


def cosine(a, b):
    assert list(a) == list(b)
    return alike(flat(a), flat(b))


def both(model, boundary, cost_at="last", dissipation=0.0, **options):
    """Contrast and oracle."""
    case = model, *data(cost_at), DT, SUBSTEPS
    shared = {"boundary": boundary, "cost_at": cost_at, "dissipation": dissipation}
    return boundary_gradient(*case, **shared, **options), boundary_reference(*case, **shared)


@pytest.mark.parametrize("model", [Masses, Hopfield, Relativistic])
@pytest.mark.parametrize("boundary, cost_at, dissipation", [
    ("both", "every", 0), ("periodic", "last", 0), ("final", "last", 0), ("final", "every", 0), ("final", "last", 0.5),
    ("final", "mean", 3.0)])
def test_the_local_contrast_is_the_gradient(model, boundary, cost_at, dissipation):
    found, expected = both(model(), boundary, cost_at, dissipation)
    assert cosine(found, expected) > 0.99999999
    np.testing.assert_allclose(flat(found), flat(expected), rtol=1e-4, atol=1e-5 * np.linalg.norm(flat(expected)))


@pytest.mark.parametrize("boundary, dissipation", [("both", 0.0), ("periodic", 0.0), ("final", 0.7)])
def test_the_oracle_equals_finite_differences(boundary, dissipation):
    x, y = data("every")
    given = motion(Masses(), x, y, DT, SUBSTEPS, "mean", dissipation)
    fixed = replace(given, values={name: v.detach() for name, v in given.values.items()})
    free = None if boundary == "final" else orbit(fixed, boundary)

    def cost(name, index, step):
        moved = fixed.values[name].clone()
        moved[index] += step
        changed = replace(fixed, values=fixed.values | {name: moved})
        return float(changed.cost(changed.run(*changed.rest) if free is None else orbit(changed, boundary, 0, free)))

    expected = boundary_reference(Masses(), x, y, DT, SUBSTEPS, boundary=boundary, cost_at="mean",
                                  dissipation=dissipation)
    for name, index in {"W": (2, 3), "m": 1, "k": 0, "C_r": (1, 2)}.items():
        found = (cost(name, index, 1e-5) - cost(name, index, -1e-5)) / (2e-5 * BATCH)
        np.testing.assert_allclose(found, expected[name][index], rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("model", [Masses, Hopfield, Relativistic])
@pytest.mark.parametrize("cost_at", ["last", "every", "mean"])
def test_with_a_fixed_start_the_contrast_lacks_the_residual(model, cost_at):
    bulk, expected = both(model(), "initial", cost_at)
    assert cosine(bulk, expected) < 0.95
    assert cosine(both(model(), "initial", cost_at, residual=True)[0], expected) > 0.999999


def test_with_a_fixed_start_and_the_cost_at_the_end_only_the_readout_learns():
    bulk, expected = both(Masses(), "initial")
    for name in bulk:
        np.testing.assert_allclose(bulk[name], expected[name] if name[0] == "C" else 0, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("cost_at", ["last", "every", "mean"])
def test_the_final_condition_is_backpropagation_through_time(cost_at):
    x, y = data(cost_at)
    expected, _ = bptt(Masses(), x, y, DT, SUBSTEPS, cost_at)
    found, oracle = both(Masses(), "final", cost_at)
    assert cosine(found, expected) > 1 - 1e-9
    for name in expected:
        np.testing.assert_allclose(oracle[name], expected[name], rtol=1e-10, atol=1e-14)


class Classes(Model):
    """A softmax over two classes, a frozen parameter, a state of two axes."""

    states = {"q": (2, 3)}
    shapes = {"W": (5, 6), "B": (5, 3), "k": (6,)}

    def __init__(self):
        super().__init__()
        self.B.requires_grad_(False)

    def energy(self, q, u):
        return 0.5 * (self.k * q.flatten() ** 2).sum() + torch.cos(self.W @ q.flatten() + self.B @ u).sum()

    def cost(self, q, y):
        return nn.functional.cross_entropy(self.predict(q), y)


@pytest.mark.parametrize("boundary", ["periodic", "final"])
@pytest.mark.parametrize("y", [np.array([0, 1]), np.array([[0, 1, 1, 0], [1, 0, 1, 1]])])
def test_class_numbers(boundary, y):
    case = Classes(), data()[0], y, DT, SUBSTEPS
    options = {"boundary": boundary, "cost_at": "last" if y.ndim == 1 else "every"}
    found, expected = boundary_gradient(*case, **options), boundary_reference(*case, **options)
    assert set(found) == {"W", "k", "C_q"}
    assert cosine(found, expected) > 0.99999999


class Spring(nn.Module):
    """V = k q^2 / 2 - u q, of which the leapfrog is q'' = q' + a (q' - q) - a^1/2 dt^2 (k q' - u) by steps."""

    states, inputs, outputs = {"q": 1}, 1, 1

    def __init__(self, k=1.7):
        super().__init__()
        self.k = nn.Parameter(torch.tensor([k], dtype=torch.float64))

    def energy(self, q, u):
        return (0.5 * self.k * q**2 - u * q).sum()

    def cost(self, q, y):
        return 0.5 * ((q - y) ** 2).sum()


def test_the_example_shows_what_a_fixed_start_lacks():
    (bulk, expected), (echo, oracle) = (gradients(*CASES[name]) for name in ("initial", "final"))
    np.testing.assert_allclose(flat(oracle), flat(expected), rtol=1e-12)
    for name in expected:
        assert alike(echo[name], oracle[name]) > 1 - 1e-9
        assert (alike(bulk[name], oracle[name]) > 1 - 1e-9) == name.startswith("C.")


K, DRIVE, TARGET, STEPS = 1.7, 0.8, 0.3, 6


def spring(boundary, **options):
    """dC/dk of both functions, with the cost at every step."""
    case = Spring(K), np.full((1, STEPS, 1), DRIVE), np.full((1, STEPS, 1), TARGET), DT
    shared = {"boundary": boundary, "cost_at": "every"}
    return [float(g["k"].item()) for g in (boundary_gradient(*case, **shared, **options),
                                           boundary_reference(*case, **shared))]


def derivative(cost):
    """By k, of a cost in closed form."""
    return (cost(K + 1e-5) - cost(K - 1e-5)) / 2e-5


def around(k, centre):
    """Cost of q_j = u/k (1 - cos(phi (j - centre)) / cos(phi centre)), which is 0 at j = 0 and at j = 2 centre."""
    phi, j = np.arccos(1 - DT**2 * k / 2), np.arange(1, STEPS + 1)
    q = DRIVE / k * (1 - np.cos(phi * (j - centre)) / np.cos(phi * centre))
    return 0.5 * ((q - TARGET) ** 2).sum()


def test_a_spring_in_closed_form():
    fixed_start = derivative(lambda k: around(k, 0.5))  # q_0 = q_1 = 0: no momentum
    fixed_ends = derivative(lambda k: around(k, STEPS / 2))
    settled = STEPS * (DRIVE / K - TARGET) * -DRIVE / K**2  # a constant drive's orbit is q = u / k
    np.testing.assert_allclose(spring("initial", residual=True), fixed_start, rtol=1e-6)
    np.testing.assert_allclose(spring("final"), fixed_start, rtol=1e-6)
    np.testing.assert_allclose(spring("both"), fixed_ends, rtol=1e-6)
    np.testing.assert_allclose(spring("periodic"), settled, rtol=1e-6)


def test_a_damped_spring_by_hand():
    a = np.exp(-0.9 * DT)
    q2 = a**0.5 * DT**2 * DRIVE
    q3 = q2 + a * q2 - a**0.5 * DT**2 * (K * q2 - DRIVE)
    case = Spring(K), np.full((1, 3, 1), DRIVE), np.full((1, 1), TARGET), DT
    for function in (boundary_gradient, boundary_reference):
        found = function(*case, boundary="final", dissipation=0.9)["k"]
        np.testing.assert_allclose(found, [(q3 - TARGET) * -(a**0.5) * DT**2 * q2], rtol=1e-7)


def test_dissipation_goes_to_none():
    free, little = (both(Masses(), "final", "every", g)[0] for g in (0.0, 1e-6))
    assert 0 < np.abs(flat(free) - flat(little)).max() < 1e-4
    assert cosine(free, both(Masses(), "final", "every", 5.0)[0]) < 0.99


def test_the_echo_without_nudge_returns_and_gains_what_was_lost():
    moving = motion(Masses(), *data(), DT, SUBSTEPS, "last", dissipation=2.0)
    free = moving.run(*moving.rest)
    back = moving.retrace(free.q[-1], free.p[-1], 0.0)
    torch.testing.assert_close(back.q, free.q, rtol=0, atol=1e-12)
    torch.testing.assert_close(back.p, free.p, rtol=0, atol=1e-12)


REFUSED = [
    ({"boundary": "open"}, "boundary must be \"initial\", \"both\", \"periodic\" or \"final\", not 'open'"),
    ({"dissipation": -1.0}, "dissipation must be a number from 0 on, not -1.0"),
    ({"boundary": "periodic", "dissipation": 0.1},
     "dissipation needs boundary=\"final\", the only one that undoes it, not 'periodic'"),
    ({"boundary": "both"},
     'boundary="both" fixes the last position, where the only cost would be; take cost_at="every" or "mean" over '
     'several rows, not cost_at="last" over 4 of them'),
    ({"cost_at": "end"}, "cost_at must be \"last\", \"every\" or \"mean\", not 'end'"),
    ({"nudge": 0}, "nudge must be a positive number, not 0"),
    ({"residual": True}, "residual is 0 but for boundary=\"initial\"; leave it out, not with 'final'"),
]  # fmt: skip


@pytest.mark.parametrize("options, text", REFUSED)
def test_what_is_refused(options, text):
    with pytest.raises(CompileError) as error:
        boundary_gradient(Masses(), *data(), DT, SUBSTEPS, **{"boundary": "final", **options})
    assert str(error.value) == text


@pytest.mark.parametrize("options, text", REFUSED[:5])
def test_the_oracle_refuses_the_same(options, text):
    with pytest.raises(CompileError) as error:
        boundary_reference(Masses(), *data(), DT, SUBSTEPS, **{"boundary": "final", **options})
    assert str(error.value) == text


def test_a_spring_in_resonance_has_no_trajectory():
    k = (2 - 2 * np.cos(np.pi / 3)) / DT**2  # sin(phi steps) = 0
    case = Spring(k), np.full((1, 3, 1), DRIVE), np.full((1, 3, 1), TARGET), DT
    text = (r'^no trajectory found for boundary="both": Newton\'s method did not converge; change dt or the number of '
            r"steps, which may be in resonance, or take smaller inputs or weights, not a residual of \d\S*$")
    with pytest.raises(CompileError, match=text):
        boundary_gradient(*case, boundary="both", cost_at="every")


def test_a_model_without_a_cost_is_refused():
    class Costless(nn.Module):
        states, inputs = {"q": 1}, 3

        def energy(self, q, u):
            return (q @ q) + q.sum() * u.sum()

    with pytest.raises(CompileError) as error:
        boundary_gradient(Costless(), *data(), DT, boundary="final")
    assert str(error.value) == "Costless must define cost(self, q, y) to have a gradient, not Costless without it"
