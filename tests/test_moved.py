"""Forms that the chip computes and learns through what they are made of: gradients against autograd, fit, the RTL."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from test_forms import Net
from torch import nn
from torch.nn.utils import parametrizations

import echolith as el
from echolith.compiler.capture import capture
from echolith.compiler.reference import bptt


class Wide(Net):
    """`Net` with parameters of several axes, and a matrix that is normed."""

    def __init__(self, term=lambda s, q: 0.0 * q.sum(), cost=F.mse_loss):
        super().__init__(term, cost)
        self.H, self.K, self.A = (nn.Parameter(torch.randn(*n) / 3) for n in ((2, 3, 6), (2, 3), (6, 6)))
        self.ring = nn.Conv1d(1, 2, 3, padding=1, padding_mode="circular")
        self.layer, self.bilinear = nn.LayerNorm(6, eps=0.3), nn.Bilinear(6, 3, 2)
        self.normed = parametrizations.weight_norm(nn.Linear(6, 3))


LEARNED = {
    "heads": lambda s, q: torch.tanh(s.H[0] @ q).sum() + torch.cos(s.H[1, :2] @ q).sum() + s.H[1, 2] @ q,
    "kernel": lambda s, q: torch.tanh(F.conv1d(q[None, None], s.K[:, None])).sum(),
    "circular convolution": lambda s, q: torch.tanh(s.ring(q[None])).sum(),
    "diagonal": lambda s, q: s.A.diagonal() @ q**2,
    "broadcast matrix": lambda s, q: torch.cos(q.view(2, 1, 3) * s.K[None]).sum(),
    "bilinear": lambda s, q: s.bilinear(q, q[:3].tanh()).tanh().sum(),
    "layer norm": lambda s, q: torch.tanh(s.layer(q + 1)).sum(),
    "loop": lambda s, q: sum(c * torch.cos(q[i] - q[i - 1]) + s.k[i] * q[i] ** 4 for i, c in enumerate(
        (0.1, 0.2, 0.3, 0.4, 0.5, 0.6))),
    "pools": lambda s, q: F.avg_pool1d(q[None], 2).cos().sum() + F.avg_pool1d(q[None], 3, 1, 1).square().sum(),
    "running sum": lambda s, q: torch.tanh((s.k * q).cumsum(0)).sum(),
    "scattered": lambda s, q: torch.zeros(3).scatter_add(0, torch.tensor([0, 1, 2, 2, 1, 1]), s.k * q).square().sum(),
    "powers of a sum": lambda s, q: ((1 + q[:3] ** 2 + q[3:] ** 2) ** 0.7).sum() + ((1 + q**2) ** -s.k).sum(),
    "logaddexp": lambda s, q: torch.logaddexp(q[:4], s.V(q)).sum() + torch.atan2(q[:4], 2 + s.V(q) ** 2).sum(),
    "vector limits": lambda s, q: (q - q.clamp(0.1 - s.k, s.k)).square().sum(),
    "masked by a buffer": lambda s, q: torch.where(torch.arange(6) > 2, q**4, q.cos()).sum(),
    "gaussian of two": lambda s, q: -torch.exp(-(q[:4] ** 2) / 2 - s.V(q) ** 2).sum(),
}
COMPUTED = {
    "gram": lambda s, q: q @ (s.A @ s.A.T) @ q,
    "normed rows": lambda s, q: torch.tanh(s.normed(q)).sum() + torch.tanh(s.A / s.A.norm() @ q).sum(),
    "softmax": lambda s, q: (s.k.softmax(0) * q**2).sum() + s.H.sum((0, 1)) @ q,
}


def of(net):
    generator = np.random.default_rng(0)
    x, y = generator.integers(-8, 9, (12, 4, 2)) / 8, generator.integers(0, 2, (12, 1)).astype(float)
    design = el.compile(net, dynamics=el.Leapfrog(0.25, 2), rule=el.HamiltonianEcho("last"), calibrate=(x, y), lanes=2)
    return design, x, y


def agrees(net):
    """The design and its data, once its gradient has been compared with autograd."""
    design, x, y = of(net.double())
    with design.open("int:") as chip:
        found = chip.gradient(x, y)
    expected, _ = bptt(net, x, y, 0.25, 2)
    assert all(name in found for name, g in expected.items() if np.any(g))
    a, b = (np.concatenate([g[name].ravel() for name in found]) for g in (found, expected))
    assert a @ b / np.sqrt(a @ a * (b @ b)) > 0.9999
    np.testing.assert_allclose(np.linalg.norm(a), np.linalg.norm(b), rtol=0.01)
    return design, x, y


@pytest.mark.parametrize("term", LEARNED.values(), ids=LEARNED)
def test_the_chip_learns(term):
    design, x, y = agrees(Wide(term))
    with design.open("int:") as chip:
        losses = chip.fit(x, y, epochs=3, batch_size=4, learning_rate=0.02).loss
    assert losses[-1] < losses[0]


@pytest.mark.parametrize("term", COMPUTED.values(), ids=COMPUTED)
def test_the_host_goes_through_functions(term):
    design, x, y = agrees(Wide(term))
    with design.open("int:") as chip, pytest.raises(el.CompileError, match="^fit: the chip learns parameters, not"):
        chip.fit(x, y)


@pytest.fixture(scope="module")
def heads():
    return of(Wide(LEARNED["heads"]).double())


def test_elements_that_are_learned_come_back_in_their_places(heads):
    design, x, y = heads
    with design.open("int:") as chip:
        before, slope = chip.state_dict(), chip.gradient(x, y)
        chip.fit(x, y, batch_size=12, learning_rate=0.1)
        after = chip.state_dict()
        assert after.keys() == before.keys() and after["H"].shape == (2, 3, 6)
        np.testing.assert_allclose(after["H"] - before["H"], -0.1 * slope["H"], atol=1e-4)
        chip.load_state_dict({"H": np.zeros((2, 3, 6))})
        assert not chip.state_dict()["H"].any()
        assert (chip.state_dict()["B.weight"] == after["B.weight"]).all()


def test_elements_that_are_used_twice_are_not_learned():
    design, x, y = of(Wide(lambda s, q: torch.tanh(s.A @ q).sum() + s.A.diagonal() @ q).double())
    with design.open("int:") as chip, pytest.raises(el.CompileError, match=(
            r"^fit: the chip learns an element of A in one place, at `.*`; use the whole of it everywhere, or give "
            r"each place a parameter of its own, not A\[\.\.\]$")):
        chip.fit(x, y)


@pytest.mark.slow
def test_moved_parameters_learn_alike_in_the_rtl(heads, tmp_path):
    design, x, y = heads
    design.save(tmp_path / "heads.echolith")
    assert el.load(tmp_path / "heads.echolith").verify(x[:4], y[:4])


class Attention(Net):
    """An attention's energy, whose rows need more circuits than there are unless they share them."""

    states = {"q": (3, 2)}

    def __init__(self):
        super().__init__(None, F.mse_loss)
        self.Q, self.K = (nn.Parameter(torch.randn(2, 2) / 2) for _ in range(2))

    def energy(self, q, u):
        rows = torch.logsumexp((q @ self.Q) @ (q @ self.K).T, -1)
        return (q**2).sum() - q.flatten() @ self.B(u) - rows.sum()

    def cost(self, q, y):
        return self.of(self.C(q.flatten()), y)


@pytest.fixture(scope="module")
def attention():
    return agrees(Attention())


def test_rows_of_one_form_share_circuits(attention):
    design, *_ = attention
    assert len(design.hardware.step) <= 16


@pytest.mark.slow
def test_shared_circuits_compute_alike_in_the_rtl(attention):
    design, x, y = attention
    assert design.verify(x[:2], y[:2])


class Pooled(nn.Module):
    """Convolution, pooled read-out and softmax: 17 circuits, two of which are copies."""

    states, inputs, outputs = {"q": (3, 8)}, 3, 3

    def __init__(self):
        super().__init__()
        torch.manual_seed(1)
        self.conv, self.B, self.C = nn.Conv1d(3, 4, 3, padding=1, bias=False), nn.Linear(3, 24), nn.Linear(3, 3)

    def energy(self, q, u):
        return 0.5 * (q**2).sum() + torch.log(torch.cosh(self.conv(q[None]))).sum() - (q * self.B(u).view(3, 8)).sum()

    def predict(self, q):
        return self.C(torch.tanh(q).mean(1))

    def cost(self, q, y):
        return F.cross_entropy(self.predict(q), y.long())


def test_copies_are_one_circuit():
    generator = np.random.default_rng(0)
    x, y = generator.integers(-8, 9, (16, 4, 3)) / 8, generator.integers(0, 3, 16)
    design = el.compile(Pooled().double(), dynamics=el.Leapfrog(0.25, 2), rule=el.HamiltonianEcho("last"),
                        calibrate=(x, y), lanes=3)
    assert sum(not [op for op in made.ops if op.kind != "input"] for made in design.hardware.step) == 1
    assert design.verify(x[:4], y[:4], url="int:")


class Waves(Net):
    """Seventeen functions of as many sums."""

    def __init__(self, loss):
        super().__init__(lambda s, q: sum(torch.cos((i + 1) * w(q)).sum() for i, w in enumerate(s.many)), loss)
        self.many = nn.ModuleList(nn.Linear(6, 2) for _ in range(17))


def test_too_many_circuits_are_refused():
    with pytest.raises(el.CompileError, match=(
            r"^energy: must need at most 16 element-wise circuits, .*; use fewer different functions in energy, "
            r"read-out and cost, or one vector for terms of the same form, not \d+$")):
        of(Waves(F.mse_loss).double())


KINETIC = {
    "blocks": lambda s, p: (p.reshape(2, 3) ** 2 / (2 * s.k[:2, None])).sum(),
    "rows": lambda s, p: ((p.reshape(3, 2) ** 2).sum(1) / F.softplus(s.k[:3])).sum(),
    "slices": lambda s, p: (p[:2] ** 2).sum() + (p[2:] ** 2 / s.k[2:]).sum() / 2,
    "relativistic": lambda s, p: (s.k * torch.sqrt(1 + (p / s.k) ** 2)).sum(),
    "permuted": lambda s, p: (p.roll(2) ** 2 / s.k).sum() + torch.cat([p[3:], p[:3]]).cosh().sum(),
}


@pytest.mark.parametrize("kinetic", KINETIC.values(), ids=KINETIC)
def test_kinetic_energies(kinetic):
    agrees(type("Moving", (Wide,), {"kinetic": kinetic})(lambda s, q: torch.tanh(s.V(q)).sum()))


REFUSED = {
    "spectral norm in training": (
        lambda s, q: s.spectral(q).sum(), r"an operator writes into a buffer, .*; call model\.eval\(\)"),
    "orthogonal": (
        lambda s, q: s.orthogonal(q).sum(), "`linalg_matrix_exp` is not supported, .*; freeze its parameters"),
    "maximum pool": (
        lambda s, q: F.max_pool1d(q[None], 2).sum(), "`max_pool2d_with_indices` .*; use avg_pool or logsumexp"),
    "floor": (lambda s, q: (q - q.floor()).sum(), "`floor` is not supported, .*; it has no slope: use a smooth func"),
}


@pytest.mark.parametrize("term, message", REFUSED.values(), ids=REFUSED)
def test_refusals(term, message):
    net = Wide(term)
    net.spectral = parametrizations.spectral_norm(nn.Linear(6, 3))
    net.orthogonal = parametrizations.orthogonal(nn.Linear(6, 6))
    with pytest.raises(el.CompileError, match="^energy: " + message):
        capture(net)


def test_weights_that_are_computed_by_hooks_are_refused():
    net = Wide()
    net.old = nn.utils.weight_norm(nn.Linear(6, 3))
    with pytest.raises(el.CompileError, match=r"^Wide must be a module that can be copied; compute weights with "
                                              r"torch\.nn\.utils\.parametrizations, not "):
        capture(net)
