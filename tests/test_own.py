"""A session speaks of the model's own parameters: all of them, by PyTorch's names, and of nothing else."""

import re

import numpy as np
import pytest
import torch
from torch import nn

import echolith as el

GENERATOR = np.random.default_rng(0)
X, Y = GENERATOR.integers(-8, 9, (8, 4, 3)) / 8, GENERATOR.integers(0, 2, (8, 2)).astype(float)


class Many(nn.Module):
    """Parameters in lists, dictionaries and modules; tied, frozen, folded, never used."""

    states, inputs, outputs = {"q": 6}, 3, 2

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.weights = nn.ParameterList([0.3 * torch.randn(4, 6) for _ in range(2)])
        self.gains = nn.ParameterDict({"k": torch.rand(6) + 0.5, "never": torch.rand(3)})
        self.net, self.B = nn.Sequential(nn.Linear(6, 4), nn.Tanh(), nn.Linear(4, 3, bias=False)), nn.Linear(3, 4)
        self.C, self.tied = nn.Linear(6, 2), nn.Linear(6, 2, bias=False)
        self.tied.weight = self.C.weight
        self.scale = nn.Parameter(torch.tensor(2.0), requires_grad=False)
        self.A = nn.Parameter(torch.rand(6, 6), requires_grad=False)
        self.register_buffer("mask", torch.eye(6))
        self.register_buffer("passing", torch.rand(6), persistent=False)

    def energy(self, q, u):
        hidden = sum(torch.tanh(w @ q + self.B(u)).sum() for w in self.weights)
        fixed = self.scale * torch.cos((self.mask * self.A) @ q).sum() + self.passing @ q
        return (self.gains["k"] * q**2).sum() + hidden + self.net(q).sum() + 0.1 * fixed + q.roll(1).cos().sum()

    def cost(self, q, y):
        return ((self.tied(q) + self.C.bias - y) ** 2).sum()


def compiled(net):
    return el.compile(net, dynamics=el.Leapfrog(0.25, 2), rule=el.HamiltonianEcho(), calibrate=(X, Y), lanes=2)


@pytest.fixture(scope="module")
def many():
    net = Many()
    with pytest.warns(UserWarning, match=r"^gains\.never: neither energy nor cost depends on these parameters; "):
        return net, compiled(net)


def test_the_state_is_the_models(many, tmp_path):
    net, design = many
    design.save(tmp_path / "net.echolith")
    with el.open(tmp_path / "net.echolith") as chip:
        state = chip.state_dict()
    assert list(state) == list(net.state_dict()) and "tied.weight" in state and "passing" not in state
    found = Many()
    found.load_state_dict({name: torch.as_tensor(value) for name, value in state.items()}, strict=True)
    for name, value in net.state_dict().items():
        np.testing.assert_allclose(found.state_dict()[name], value, atol=1e-6)


def test_gradients_are_of_all_that_learn(many):
    net, design = many
    with design.open() as chip:
        found = chip.gradient(X, Y)
    assert {n: g.shape for n, g in found.items()} == {n: p.shape for n, p in net.named_parameters() if p.requires_grad}
    assert not found["gains.never"].any() and found["weights.1"].any() and found["net.0.weight"].any()


def test_what_the_model_saves_is_loaded(many):
    net, design = many
    state = {name: value.clone() for name, value in net.state_dict().items()}
    state["gains.never"] += 1
    state["tied.weight"] *= 0.5
    with design.open() as chip:
        chip.load_state_dict(state)
        found = chip.state_dict()
    np.testing.assert_array_equal(found["gains.never"], state["gains.never"])
    np.testing.assert_allclose(found["C.weight"], state["tied.weight"], atol=1e-6)


@pytest.mark.parametrize("weights, message", [
    ({"scale": 3.0}, "scale is frozen and part of the program: compile the model with its new value, not 3"),
    ({"A": np.ones((6, 6))}, "A is frozen and part of the program: compile the model with its new value, not 1"),
    ({"gains.k": "abc"}, "gains.k must be an array of real numbers, not texts"),
    ({"gains.never": np.zeros(2)}, "gains.never must have shape (3,), not (2,)"),
])
def test_weights_that_cannot_be_loaded(many, weights, message):
    _, design = many
    with design.open() as chip, pytest.raises(el.RangeError, match=f"^{re.escape(message)}$"):
        chip.load_state_dict(weights)


def test_nothing_that_learns_is_an_error_of_its_own():
    net = Many().requires_grad_(False)
    design = compiled(net)
    message = (r"^nothing of this design learns: every parameter that its energy and cost depend on is frozen; call "
               r"requires_grad_\(\) on those that should learn and compile again$")
    with design.open() as chip:
        assert chip.predict(X).shape == (8, 2)
        for call in (chip.gradient, chip.fit):
            with pytest.raises(el.RangeError, match=message):
                call(X, Y)
    assert design.verify(X[:2], Y[:2], url="int:")


ARRANGED = {
    "diag": (lambda s, q: ((torch.diag(s.k) @ q) ** 2).sum(),
             "not a matrix with k on its diagonal, at `.*`; write torch.diag\\(k\\) @ q as k \\* q, or freeze k with "
             "requires_grad_\\(False\\), not "),
    "triu": (lambda s, q: q @ torch.triu(s.M, 1) @ q,
             "not elements of M among zeros or multiplied \\(triu, tril, masks\\), at `.*`; make M itself the "
             "matrix, of shape \\(6, 6\\), whose other elements then learn too, or learn those that are used as a "
             "vector t: \\(t \\* q\\[i\\] \\* q\\[j\\]\\).sum\\(\\), or freeze M with requires_grad_\\(False\\), not "),
}  # fmt: skip


@pytest.mark.filterwarnings("ignore:.*neither energy nor cost depends")
@pytest.mark.parametrize("name", ARRANGED)
def test_what_fit_refuses_says_how_to_declare_it(name):
    term, message = ARRANGED[name]

    class Arranged(Many):
        def __init__(self):
            super().__init__()
            self.T, self.M, self.k = (nn.Parameter(0.1 * torch.rand(*s)) for s in ((6, 6, 6), (6, 6), (6,)))

        def energy(self, q, u):
            return q @ q + torch.tanh(self.B(u)).sum() * q.sum() + term(self, q)

    with compiled(Arranged()).open() as chip, pytest.raises(el.CompileError, match=(
            "^fit: the chip learns parameters, " + message)):
        chip.fit(X, Y)
