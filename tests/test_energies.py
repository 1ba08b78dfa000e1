"""Energies of every form that a graph can hold, each against autograd."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from echolith.compiler import numeric
from echolith.compiler.capture import capture
from echolith.compiler.derived import chained
from echolith.compiler.graph import Affine, Convolution, Dense, Index, Reduce, Sum
from echolith.compiler.ir import var
from echolith.compiler.trace import float64

N, M, H, U, Y = 6, 4, 5, 3, 2


class Parts(nn.Module):
    """Two states, one of them with two axes, and every kind of parameter that the energies below use."""

    states = {"a": N, "b": (M, H)}
    inputs = U
    outputs = Y

    def __init__(self):
        super().__init__()
        torch.manual_seed(1)
        self.W, self.V = nn.Linear(N, H), nn.Linear(H, M)
        self.B, self.readout, self.joint = nn.Linear(U, N), nn.Linear(N, Y), nn.Linear(N + U, H)
        self.S, self.G, self.P = (nn.Parameter(torch.randn(*s) / 2) for s in ((N, N), (N, M * H), (8, 2 * N)))
        self.D = nn.Parameter(torch.randn(Y, M * H) / 2)
        self.k, self.edge, self.bias = (nn.Parameter(torch.rand(n) + 0.5) for n in (N, N - 1, 3))
        self.m, self.row, self.grid = (nn.Parameter(torch.rand(s) + 0.5) for s in ((), (H,), (M, H)))
        self.c1, self.c2 = nn.Conv1d(2, 4, 3), nn.Conv2d(1, 2, (2, 3))
        self.up, self.grouped = nn.ConvTranspose1d(2, 3, 3), nn.Conv1d(2, 4, 2, groups=2, stride=2)
        self.frozen = nn.Parameter(torch.rand(H, N), requires_grad=False)
        self.register_buffer("order", torch.tensor([3, 1, 5, 0]))
        self.register_buffer("mask", torch.rand(N, N) > 0.6)

    def energy(self, a, b, u):
        return (a**2).sum() + (b**2).sum()


def model(energy=None, **attributes) -> nn.Module:
    methods = {"energy": energy} if energy else {}
    return type("Model", (Parts,), methods | attributes)().double()


def autograd(module: nn.Module, method: str, states, *others):
    """(value, derivatives by state, derivatives by parameter) straight from PyTorch."""
    sizes = zip(states.values(), shapes(module), strict=True)
    given = [torch.tensor(v[0].reshape(s), requires_grad=True) for v, s in sizes]
    module.zero_grad()
    with float64():
        value = getattr(module, method)(*given, *others)
    value.backward()
    slopes = [np.zeros_like(q.detach()) if q.grad is None else q.grad.numpy() for q in given]
    grads = {n: p.grad for n, p in module.named_parameters()}
    return value.item(), [s.reshape(1, -1) for s in slopes], {n: g.numpy() for n, g in grads.items() if g is not None}


def shapes(module):
    return [s if isinstance(s, tuple) else (s,) for s in module.states.values()]


def random_states(graph, rng):
    return {name: rng.normal(size=(1, units)) for name, units in graph.states.items()}


def same(found, expected):
    value, slopes, parameters = expected
    np.testing.assert_allclose(found[0][0], value, rtol=1e-9, atol=1e-12)
    for state, slope in zip(found[1].values(), slopes, strict=True):
        np.testing.assert_allclose(state, slope, rtol=1e-8, atol=1e-11)
    for name, slope in parameters.items():
        np.testing.assert_allclose(found[2].get(name, 0 * slope), slope, rtol=1e-8, atol=1e-11, err_msg=name)


def captured(module: nn.Module):
    """The module's graph, its energy compared with autograd."""
    graph = capture(module)
    rng = np.random.default_rng(5)
    for _ in range(2):
        q, u = random_states(graph, rng), rng.normal(size=(1, graph.inputs))
        gradient = chained(graph.derived, numeric.gradient(graph, q, u), graph.values, graph.learned)
        found = numeric.energy(graph, q, u), numeric.Force(graph)(q, u), gradient
        same(found, autograd(module, "energy", q, torch.tensor(u[0])))
    return graph


def deep(s, a, b, u):
    x = a
    for _ in range(4):
        x = torch.tanh(s.S @ x + s.B(u)) + 0.5 * x
    return (s.readout(x) ** 2).sum() + (a**2).sum()


def springs(s, a, b, u):
    return (s.edge * (1 - torch.cos(a[1:] - a[:-1]))).sum() + (torch.diff(b, dim=1) ** 4).sum()


ENERGIES = {
    "two states": lambda s, a, b, u: 0.5 * (s.k * a**2).sum() + (b**2).sum() + a @ (s.G @ b.flatten()),
    "dense blocks": lambda s, a, b, u: F.softplus(s.W(a) + b.sum(0)).sum() + torch.cos(s.V(b[0]) + b[:, 1]).sum(),
    "tied": lambda s, a, b, u: torch.cos(s.S @ a).sum() + torch.sin(s.S.T @ a + s.B(u)).sum() + a @ (s.S @ a),
    "symmetric": lambda s, a, b, u: torch.cos((s.S + s.S.T) / 2 @ a).sum(),
    "masked": lambda s, a, b, u: torch.cos((s.S * s.mask) @ a).sum(),
    "deep": deep,
    "energy of a network": lambda s, a, b, u: (s.V(torch.tanh(s.W(a))) ** 2).sum() + F.gelu(s.V(s.W(a) + 1)).sum(),
    "scaled": lambda s, a, b, u: torch.cos(s.W(2 * a - 1)).sum() + (s.W(s.k * a + s.k) ** 2).sum(),
    "joint": lambda s, a, b, u: torch.log(torch.cosh(s.joint(torch.cat([a, u])))).sum(),
    "joint powers": lambda s, a, b, u: torch.cos(s.joint(torch.cat([a**3, torch.sin(u)]))).sum(),
    "slices": lambda s, a, b, u: torch.cos(s.P[:, :N] @ a + s.P[:, N:] @ a**2).sum()
    + (s.P[2:5, 1:4].T @ b[0, :3]).cos().sum(),
    "strided matrix": lambda s, a, b, u: torch.cos(s.P[::2, ::2] @ a).sum(),
    "gelu": lambda s, a, b, u: F.gelu(a).sum() + F.gelu(b, approximate="tanh").sum(),
    "pieces": lambda s, a, b, u: (a.relu() ** 2 + a.clamp(-1, 0.5) ** 2).sum() + torch.sqrt(1 + b**2).sum(),
    "products": lambda s, a, b, u: (a * s.B(u) * torch.tanh(s.S @ a)).sum() + (b[0] * b[1] * b[2]).sum(),
    "gains": lambda s, a, b, u: (s.row * torch.tanh(s.grid * b)).sum() + (s.row * F.softplus(s.m * s.W(a)
    + s.row)).sum(),
    "learned gain": lambda s, a, b, u: (F.softplus(s.k) * a**2).sum() + s.m * (b**2).sum()
    + (a**2).sum() / (1 + s.m**2),
    "roll": lambda s, a, b, u: (a * a.roll(1)).sum() + ((a - a.roll(2)) ** 4).sum()
    + (b.roll((1, 2), (0, 1)) * b).sum(),
    "strided": lambda s, a, b, u: (a[::2] * a[1::2]).sum() + (b[::2, 1:4:2] ** 3).sum() + a[0] ** 2 + b[-1, 2] * a[3],
    "springs": springs,
    "gather": lambda s, a, b, u: (a[s.order] ** 3).sum() + a.index_select(0, s.order).cos().sum()
    + torch.gather(b, 1, torch.tensor([[1], [0], [3], [3]])).sin().sum(),
    "flip": lambda s, a, b, u: (a * a.flip(0)).sum() + torch.cos(b.T.flip(1) - b.T).sum(),
    "stack": lambda s, a, b, u: (torch.stack([a, a.roll(1), s.B(u)]).cos() * s.bias[:, None]).sum(),
    "pad": lambda s, a, b, u: (F.pad(a, (1, 2)) * F.pad(a, (2, 1)) ** 2).sum() + (b.tril() ** 2).cos().sum(),
    "split": lambda s, a, b, u: sum(((x * (i + 1)) ** 2).sum() for i, x in enumerate(a.split(4)))
    + b.unbind(0)[1].cos().sum(),
    "unfold": lambda s, a, b, u: (a.unfold(0, 3, 1) @ s.bias).cos().sum(),
    "pairs": lambda s, a, b, u: torch.cos(a[:, None] - a[None, :]).sum() / N
    + (s.S * torch.cos(a[:, None] - a[None])).sum(),
    "pairs of sines": lambda s, a, b, u: torch.cos(a) @ s.S @ torch.cos(a) + torch.sin(a) @ s.S @ torch.sin(a),
    "broadcast": lambda s, a, b, u: ((b - s.W(a)) ** 2).sum() + torch.tanh(b * b[:, :1]).sum() + (b
    + s.bias[0]).cos().sum(),
    "hopfield": lambda s, a, b, u: -(torch.tanh(a) * (s.G @ torch.sigmoid(b).flatten())).sum() - torch.dot(a, s.B(u)),
    "bilinear": lambda s, a, b, u: torch.einsum("i,ij,j->", a, s.S, a.sin()) + torch.tanh(a) @ s.S.T @ a,
    "matrix of states": lambda s, a, b, u: torch.tanh(b @ s.W.weight).sum() + (s.V.weight @ b.T).cos().sum()
    + s.V(b).sin().sum(),
    "states times states": lambda s, a, b, u: (b @ b.T).tanh().sum() + (b * (s.V.weight.T @ a[:4])).cos().sum(),
    "duffing": lambda s, a, b, u: (s.k * a**2 / 2 + a**4 / 4 - a * torch.cos(u[0])).sum() + (s.grid * b**2).sum(),
    "logsumexp": lambda s, a, b, u: torch.logsumexp(s.W(a), 0) + torch.logsumexp(b, 1).sum()
    + 0.5 * torch.logsumexp(2 * b, (0, 1)),
    "attention": lambda s, a, b, u: (torch.softmax(s.V(b[0]), 0) * s.V(b[1])).sum() - F.log_softmax(a, 0)[2],
    "mean and variance": lambda s, a, b, u: a.mean() ** 2 + a.var() + ((b - b.mean()) ** 4).mean()
    + b.mean(1).cos().sum(),
    "std": lambda s, a, b, u: (1 + a.std() ** 2).log() + torch.var(b, unbiased=False),
    "norms": lambda s, a, b, u: torch.sqrt(1 + a.norm() ** 2) + (a @ a) ** 2 + torch.linalg.norm(s.W(a)) ** 4,
    "normalised": lambda s, a, b, u: (s.S @ (a / torch.sqrt(0.1 + a @ a))).cos().sum(),
    "product of sums": lambda s, a, b, u: a.sum() * b.sum() + s.m * a.sum() * (a**2).sum(),
    "direct drive": lambda s, a, b, u: (a**2).sum() - a @ s.B(u) + (b[0, :3] * u).sum(),
    "conv1d": lambda s, a, b, u: s.c1(a.view(1, 2, 3)).cos().sum()
    + F.conv1d(b[:2][None], s.c1.weight, padding=1).tanh().sum(),
    "conv1d stride": lambda s, a, b, u: F.conv1d(
        b[:2].reshape(1, 2, 5), s.c1.weight, s.c1.bias, stride=2, padding=2, dilation=2
    ).cos().sum(),
    "grouped": lambda s, a, b, u: s.grouped(b[:2][None]).cos().sum() + s.grouped(a.view(2, 3)).sin().sum(),
    "conv2d": lambda s, a, b, u: s.c2(b.view(1, 1, M, H)).relu().pow(2).sum() + s.c2(torch.tanh(b)[None]).cos().sum(),
    "conv_transpose": lambda s, a, b, u: s.up(b[:2][None]).cos().sum()
    + F.conv_transpose1d(a.view(1, 2, 3), s.up.weight, stride=2, padding=1, output_padding=1).sin().sum(),
    "frozen convolution": lambda s, a, b, u: F.conv1d(a.view(1, 1, N), torch.tensor([[[1.0, -2.0, 1.0]]])).pow(2).sum(),
    "frozen functions": lambda s, a, b, u: torch.cos(torch.linalg.pinv(s.frozen).T @ a).sum()
    + (a * s.frozen.sort(1)[0][0]).sum(),
    "diagonal matrix": lambda s, a, b, u: (torch.diag(s.k) @ a).cos().sum() + (torch.tril(s.S) @ a).tanh().sum(),
    "unmatched": lambda s, a, b, u: (s.S.masked_fill(s.mask, 0) @ a).cos().sum() + F.prelu(b, s.m).pow(2).sum(),
    "positive weights": lambda s, a, b, u: (F.softplus(s.S) @ a).cos().sum(),
    "columns": lambda s, a, b, u: (b.reshape(-1, 1) @ s.row[None]).tanh().sum()
    + F.linear(a[:, None], s.m[None, None]).sum(),
    "kuramoto": lambda s, a, b, u: -(torch.cos(a).sum() ** 2 + torch.sin(a).sum() ** 2) / N,
    "attention heads": lambda s, a, b, u: F.scaled_dot_product_attention(b[None], b[None], b[None]).sin().sum(),
    "one unit": lambda s, a, b, u: (a[0] - b[1, 1]) ** 2 + torch.cos(s.readout(a)[1])
    + torch.sin(a[1:2] * a[2:3]).squeeze(),
}  # fmt: skip


@pytest.mark.parametrize("name", ENERGIES)
def test_energy(name):
    captured(model(ENERGIES[name]))


def only(found):
    (item,) = found
    return item


def test_a_concatenation_is_two_blocks_of_columns():
    graph = captured(model(ENERGIES["joint"]))
    node = only(graph.nodes.values())
    assert isinstance(node, Affine) and [(t.matrix, t.source) for t in node.terms] == [
        (Dense("joint.weight", columns=(0, N)), var("a")), (Dense("joint.weight", columns=(N, N + U)), var("u"))
    ]  # fmt: skip


def test_moves_are_composed_and_vanish():
    graph = capture(model(lambda s, a, b, u: (a.roll(2).roll(-2) ** 2).sum() + (b.T.flip(1).flip(1).T ** 4).sum()))
    assert graph.nodes == {} and [str(t.expr) for t in graph.energy] == ["pow(a, 2)", "pow(b, 4)"]
    graph = capture(model(lambda s, a, b, u: (a.roll(1).roll(2).cos()).sum()))
    node = only(graph.nodes.values())
    assert isinstance(node, Affine) and node.terms[0].matrix == Index((3, 4, 5, 0, 1, 2))


def test_a_vector_cut_and_put_together_is_itself():
    graph = capture(model(lambda s, a, b, u: (torch.cat([a[:2], a[2:]]) ** 2).sum()
                          + torch.cat([a[-1:], a]).cos().sum()))  # fmt: skip
    node = only(graph.nodes.values())
    assert str(graph.energy[0].expr) == "pow(a, 2)"
    assert isinstance(node, Affine) and only(node.terms).matrix == Index((5, 0, 1, 2, 3, 4, 5))


def test_differences_of_neighbours_are_one_node():
    graph = capture(model(lambda s, a, b, u: (s.edge * torch.cos(a[1:] - a[:-1])).sum()))
    node = only(graph.nodes.values())
    assert isinstance(node, Affine) and node.length == N - 1
    assert [(t.matrix, t.scale) for t in node.terms] == [(Index((1, 2, 3, 4, 5)), 1.0), (Index((0, 1, 2, 3, 4)), -1.0)]
    assert str(only(graph.energy).expr) == "(edge*cos(z0))"


def test_deep_energies_are_chains_of_nodes():
    graph = capture(model(lambda s, a, b, u: (s.V(torch.tanh(s.W(a))) ** 2).sum()))
    first, second = graph.nodes.values()
    assert isinstance(first, Affine) and isinstance(second, Affine)
    assert str(second.terms[0].source) == "tanh(z0)" and only(graph.energy) == Sum(only(graph.energy).expr, M)


def test_a_symmetric_matrix_is_two_terms():
    node = only(captured(model(ENERGIES["symmetric"])).nodes.values())
    assert [(t.matrix.transposed, t.scale) for t in node.terms] == [(False, 1.0), (True, 1.0)]


def test_a_convolution_keeps_its_shapes():
    rows, node = capture(model(lambda s, a, b, u: s.c1(b[:2][None]).cos().sum())).nodes.values()
    assert isinstance(rows, Affine) and isinstance(node, Affine)
    assert rows.terms[0].matrix == Index(tuple(range(2 * H)))
    bias, kernel = sorted((t.matrix for t in node.terms), key=str, reverse=True)
    assert bias == Index((0, 0, 0, 1, 1, 1, 2, 2, 2, 3, 3, 3))
    assert kernel == Convolution("c1.weight", (2, H), (4, 3), (1,), (0,), (1,))


def test_sums_inside_functions_are_reductions():
    graph = capture(model(lambda s, a, b, u: (a**2).sum() ** 2 + torch.logsumexp(b, (0, 1))))
    found = sorted((n.kind, str(n.expr), n.length) for n in graph.nodes.values() if isinstance(n, Reduce))
    assert found == [("logsumexp", "b", M * H), ("sum", "pow(a, 2)", N)]


KINETIC = {
    "masses": lambda s, p, r: 0.5 * (p**2 / s.k).sum() + 0.5 * (s.grid * r * r).sum(),
    "relativistic": lambda s, p, r: torch.sqrt(1 + p**2).sum() + s.m * torch.cosh(r).sum() + 3,
}


@pytest.mark.parametrize("name", KINETIC)
def test_kinetic_energies(name):
    module = model(kinetic=KINETIC[name])
    graph = capture(module)
    p = random_states(graph, np.random.default_rng(1))
    found = numeric.kinetic(graph, p), *numeric.kinetic_gradient(graph, p)
    same(found, autograd(module, "kinetic", p))
    assert graph.learned & {"k", "grid", "m"}


@pytest.mark.parametrize("name", ["deep", "attention", "conv2d", "pairs", "mean and variance", "logsumexp"])
def test_hessian_products(name):
    module = model(ENERGIES[name])
    graph, rng = capture(module), np.random.default_rng(2)
    q, d, u = random_states(graph, rng), random_states(graph, rng), rng.normal(size=(1, U))
    sizes = shapes(module)
    given, along = ([torch.tensor(v[0].reshape(s)) for v, s in zip(x.values(), sizes, strict=True)] for x in (q, d))
    with float64():
        _, expected = torch.autograd.functional.hvp(
            lambda a, b: module.energy(a, b, torch.tensor(u[0])), tuple(given), tuple(along)
        )
    for state, want in zip(numeric.Force(graph).along(q, u, d).values(), expected, strict=True):
        np.testing.assert_allclose(state[0], want.numpy().ravel(), rtol=1e-8, atol=1e-11)


def test_a_readout_of_several_states():
    module = model(
        cost=lambda s, a, b, y: F.mse_loss(s.readout(a) + s.D @ b.flatten(), y),
        predict=lambda s, a, b: s.readout(a) + s.D @ b.flatten(),
    )
    graph, rng = capture(module), np.random.default_rng(3)
    q, y = random_states(graph, rng), rng.normal(size=(1, Y))
    found = numeric.cost(graph, q, y), *numeric.cost_gradient(graph, q, y)
    same(found, autograd(module, "cost", q, torch.tensor(y[0])))


def test_states_that_are_concatenated_are_a_readout():
    module = model(cost=lambda s, a, b, y: F.mse_loss(torch.cat([a, b[0]]), y), outputs=N + H)
    graph, rng = capture(module), np.random.default_rng(3)
    q, y = random_states(graph, rng), rng.normal(size=(1, N + H))
    same((numeric.cost(graph, q, y), *numeric.cost_gradient(graph, q, y)),
         autograd(module, "cost", q, torch.tensor(y[0])))  # fmt: skip


def test_without_a_readout_the_states_follow_each_other():
    graph = capture(model())
    q = random_states(graph, np.random.default_rng(0))
    assert graph.readout is None
    np.testing.assert_array_equal(numeric.readout(graph, q), np.concatenate([q["a"], q["b"]], axis=1))
    assert math.isclose(numeric.kinetic(graph, q)[0], 0.5 * sum((v**2).sum() for v in q.values()))
