"""Functions of learned parameters alone: the host goes through them, the chip refuses to learn them."""

import re

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from energies import INPUTS, OUTPUTS, STEPS, Model, Symmetric, log_cosh
from test_general import cosine
from test_machine import data

import echolith as el
from echolith.compiler.capture import capture
from echolith.compiler.derived import chained, completed
from echolith.compiler.reference import bptt


class Chained(Model):
    """A positive stiffness, a masked matrix, a gain and its power, a function of A + A'."""

    states = {"q": 5}
    shapes = {"k": (5,), "W": (6, 5), "A": (5, 5), "B": (6, INPUTS), "g": (1,), "h": (6,)}

    def __init__(self):
        super().__init__()
        self.register_buffer("mask", (torch.rand(6, 5) > 0.4).to(torch.float32))

    def energy(self, q, u):
        rows = self.h.exp() * torch.log(torch.cosh((self.W * self.mask) @ q + self.B @ u))
        pairs = log_cosh(torch.tanh(self.A + self.A.T) @ q)
        return 0.5 * (F.softplus(self.k) * q**2).sum() + rows.sum() + pairs + torch.exp(self.g[0]) * (q**2).sum() / 8


def compiled(net, x, y, rule=True):
    return el.compile(net, dynamics=el.Leapfrog(0.25, 2), rule=el.HamiltonianEcho("last") if rule else None,
                      calibrate=(x, y), lanes=3)


@pytest.fixture(scope="module")
def problem():
    net = Chained().double()
    x, y = data(np.random.default_rng(0), 32, STEPS, INPUTS, OUTPUTS, "last")
    return net, compiled(net, x, y), x, y


def assert_gradient_equals_autograd(chip, net, x, y):
    found, expected = chip.gradient(x, y), bptt(net, x, y, 0.25, 2)[0]
    assert found.keys() == {name for name, p in net.named_parameters() if p.requires_grad}
    for name, gradient in found.items():
        assert cosine(gradient, expected[name]) >= 0.999, name
    a, b = (np.concatenate([np.ravel(g[name]) for name in found]) for g in (found, expected))
    assert cosine(a, b) >= 0.9999
    np.testing.assert_allclose(np.linalg.norm(a), np.linalg.norm(b), rtol=0.01)
    assert not found["W"][net.mask.numpy() == 0].any()


def test_gradient_goes_through_functions_of_parameters(problem, tmp_path):
    net, design, x, y = problem
    assert {d.name for d in design.derived} == {"softplus(k)", "W*mask", "tanh((A + A.T))", "exp(g)", "exp(h)"}
    assert set(design.learned) == {"A", "B", "C_q", "W", "g", "h", "k"}
    design.save(tmp_path / "net.echolith")
    with el.open(tmp_path / "net.echolith", "int:") as chip:
        assert_gradient_equals_autograd(chip, net, x, y)


def test_a_session_speaks_the_users_parameters(problem):
    net, design, x, y = problem
    other = Chained().double()
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.mul_(0.8)
    with design.open() as chip:
        assert chip.state_dict().keys() == {*dict(net.named_parameters()), "mask"}
        chip.load_state_dict(dict(other.named_parameters()))
        np.testing.assert_array_equal(chip.state_dict()["k"], other.k.detach().numpy())
        assert_gradient_equals_autograd(chip, other, x, y)
    with compiled(other, x, y).open() as expected:
        np.testing.assert_allclose(chip.predict(x), expected.predict(x), atol=1e-3)


def test_a_checkpoint_keeps_what_the_functions_are_of(problem, tmp_path):
    _, design, x, _ = problem
    with design.open() as chip, design.open() as fresh:
        chip.load_state_dict({"k": np.linspace(-1, 1, 5)})
        chip.save(tmp_path / "one.ckpt")
        fresh.restore(tmp_path / "one.ckpt")
        np.testing.assert_array_equal(fresh.state_dict()["k"], np.linspace(-1, 1, 5))
        np.testing.assert_array_equal(fresh.predict(x), chip.predict(x))


def test_weights_of_another_session_are_not_guessed(problem):
    _, design, x, y = problem
    with design.open() as chip, design.open() as other:
        other.load_state_dict({"k": np.linspace(-1, 1, 5)})
        chip.device.write(other.device.read())
        for call in (chip.state_dict, lambda: chip.gradient(x, y)):
            with pytest.raises(el.DesignMismatch, match=re.escape(
                    "the chip holds weights of another session, and parameters cannot be read back from functions of "
                    "them: load_state_dict or restore a checkpoint, not W*mask alone") + "$"):
                call()
        chip.load_state_dict({"k": np.linspace(-1, 1, 5)})
        assert chip.gradient(x, y)["k"].shape == (5,)


class Stiff(Model):
    states = {"q": 5}
    shapes = {"k": (5,), "W": (6, 5), "B": (6, INPUTS)}

    def energy(self, q, u):
        return 0.5 * (F.softplus(self.k) * q**2).sum() + log_cosh(self.W @ q + self.B @ u)


def test_fit_refuses_with_the_rewrite(problem):
    *_, x, y = problem
    net = Stiff().double()
    line = next(i for i, s in enumerate(open(__file__), 1) if "softplus(self.k) * q**2).sum() + log_cosh(" in s)
    with compiled(net, x, y).open() as chip, pytest.raises(el.CompileError, match="^" + re.escape(
            f"fit: the chip learns parameters, not functions of k, at `test_chained.py:{line}: return 0.5 * "
            "(F.softplus(self.k) * q**2).sum() + log_cosh(self.W @ q + self.B @ u)`; write self.k in place of "
            "softplus(k) and initialise it with this value, or freeze k with requires_grad_(False), not softplus(k)")
            + "$"):
        chip.fit(x, y)
    net.k.requires_grad_(False)
    with compiled(net, x, y).open() as chip:
        history = chip.fit(x, y, epochs=3, batch_size=8, learning_rate=0.02)
        assert history.loss[-1] < history.loss[0] and set(chip.gradient(x, y)) == {"W", "B", "C_q"}


def test_fit_refuses_a_function_of_several_parameters(problem):
    _, design, x, y = problem
    with design.open() as chip, pytest.raises(el.CompileError, match=re.escape(
            "write one nn.Parameter in place of W*mask and initialise it with this value, or freeze W with "
            "requires_grad_(False), not W*mask") + "$"):
        chip.fit(x, y)


def test_verify_compares_gradients_without_learning(problem):
    _, design, x, y = problem
    assert design.verify(x[:3], y[:3], url="int:")


def test_explain_names_them(problem):
    assert "softplus(k): gradient() goes through it, fit() refuses" in problem[1].explain()


def test_without_a_rule_they_are_loaded_like_others(problem):
    net, design, x, _ = problem
    with compiled(net, x, None, rule=False).open() as fixed, design.open() as chip:
        np.testing.assert_allclose(fixed.predict(x), chip.predict(x), atol=0.01)
        before = fixed.predict(x)
        with pytest.raises(el.RangeError, match=r"^softplus\(k\) must be from -2 to 2, as far as the words of this "
                                                r"design go; compile the model with these weights, not 3\.04859$"):
            fixed.load_state_dict({"k": np.full(5, 3.0)})
        np.testing.assert_array_equal(fixed.predict(x), before)
        fixed.load_state_dict({"k": np.full(5, 1.5)})
        assert np.abs(fixed.predict(x) - before).max() > 0.01


FORMS = {  # a learned matrix and a learned vector -> what the chip holds, None if it learns the parameters themselves
    "abs": (lambda s: s.W.abs() @ s.x, "abs(W)"), "square": (lambda s: s.W.square() @ s.x, "pow(W, 2)"),
    "sigmoid": (lambda s: s.W.sigmoid() @ s.x, "sigmoid(W)"),
    "clamp": (lambda s: s.W.clamp(-0.3, 0.2) @ s.x, "minimum(maximum(W, -0.3), 0.2)"),
    "where": (lambda s: torch.where(s.mask > 0, s.W, 0.0) @ s.x, "where(mask, W, 0)"),
    "masked_fill": (lambda s: s.W.masked_fill(s.mask > 0, 0.5) @ s.x, "where(mask, 0.5, W)"),
    "triu": (lambda s: s.W.exp().triu() @ s.x, "constant*exp(W[..])"), "flip": (lambda s: s.W.flip(0) @ s.x, "W[..]"),
    "rows scaled": (lambda s: (s.W * s.k[:, None]) @ s.x, "W*k[..]"),
    "diagonal": (lambda s: torch.diag(s.k.exp()) @ s.x, "constant*exp(k[..])"),
    "nested": (lambda s: torch.tanh(2 * s.W + s.W.T.exp()).T @ s.x, "tanh(((2*W.T) + exp(W)))"),
    "bias": (lambda s: s.x + torch.tanh(s.k), "tanh(k)"), "scaled by one": (lambda s: (s.g * s.W) @ s.x, "W*g"),
    "symmetric": (lambda s: (s.W + s.W.T) / 2 @ s.x, None), "antisymmetric": (lambda s: (s.W - s.W.T) @ s.x, None),
    "number": (lambda s: (0.5 * s.W) @ s.x, None), "masked vector": (lambda s: s.k * s.mask[0] * s.x, None),
    "two gains": (lambda s: s.g * s.k * s.x, None),
}


class Form(Model):
    states = {"q": 5}
    shapes = {"W": (5, 5), "k": (5,), "g": (1,)}
    rows = None

    def __init__(self):
        super().__init__()
        self.register_buffer("mask", (torch.rand(5, 5) > 0.4).to(torch.float32))

    def energy(self, q, u):
        self.x = q
        return (q @ q) + log_cosh(FORMS[self.rows][0](self))


@pytest.mark.parametrize("form", FORMS)
def test_what_becomes_a_derived_parameter(form):
    graph = capture(type("One", (Form,), {"rows": form})().double())  # which compares with autograd
    assert [re.sub(r"constant\d+_*", "constant", d.name) for d in graph.derived] == [FORMS[form][1]] * bool(
        FORMS[form][1])
    rebuilt = completed(graph.derived, {n: v for n, v in graph.values.items() if n not in {
        d.name for d in graph.derived}})
    for name, value in graph.values.items():
        np.testing.assert_allclose(rebuilt[name], value, rtol=1e-14)


def test_gradients_add_up_where_a_parameter_is_used_plainly_too():
    graph = capture(type("Both", (Stiff,), {"energy": lambda s, q, u: Stiff.energy(s, q, u) + (s.k * q**4).sum()})())
    found = chained(graph.derived, {"k": np.ones(5), "softplus(k)": np.full(5, 2.0)}, graph.values, graph.learned)
    np.testing.assert_allclose(found["k"], 1 + 2 / (1 + np.exp(-graph.values["k"])))


def test_a_symmetric_part_is_learned_on_the_chip(problem):
    *_, x, y = problem
    design = compiled(Symmetric().double(), x, y)
    with design.open() as chip:
        assert not design.derived
        history = chip.fit(x, y, epochs=3, batch_size=8, learning_rate=0.02)
        assert history.loss[-1] < history.loss[0] and (chip.state_dict()["A"] != design.values["A"]).any()
