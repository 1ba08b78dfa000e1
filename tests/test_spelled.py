"""Spellings that are made of other forms, captured and compared with autograd: value, forces, gradients."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from test_energies import H, M, N, Parts, captured
from torch import nn
from torch.nn.utils import parametrizations, parametrize

INDEX = torch.tensor([0, 2, 1, 2, 0, 1])


class Upper(nn.Module):
    def forward(self, x):
        return x.triu() + x.triu(1).T


class More(Parts):
    """With the modules that the energies below use."""

    def __init__(self):
        super().__init__()
        self.bilinear, self.embedding = nn.Bilinear(N, H, 3), nn.Embedding(5, N)
        self.layer, self.group = nn.LayerNorm(N, eps=0.3), nn.GroupNorm(2, M, eps=0.3)
        self.batch, self.prelu = nn.BatchNorm1d(M).eval(), nn.PReLU()
        self.ring = nn.Conv1d(M, 2, 3, padding=1, padding_mode="circular")
        self.mirror = nn.Conv2d(1, 2, 3, padding=1, padding_mode="reflect")
        self.edge_conv = nn.Conv1d(M, 2, 3, padding=1, padding_mode="replicate")
        self.heads, self.kernel = nn.Parameter(torch.randn(2, 3, N) / 2), nn.Parameter(torch.randn(3))
        self.normed = parametrizations.weight_norm(nn.Linear(N, 3))
        self.spectral = parametrizations.spectral_norm(nn.Linear(N, 3)).eval()
        self.symmetric = nn.Linear(N, N)
        parametrize.register_parametrization(self.symmetric, "weight", Upper())
        self.attention = nn.MultiheadAttention(H - 1, 2, batch_first=True)
        self.register_buffer("powers", torch.tensor([2, 3, 4, 2, 3, 3]))


def filled(s, a, b, u):
    x = torch.zeros(N + 2)
    x[1:-1] = a
    x[0] += 2 * a[0]
    x.mul_(s.m)
    view = x[2:4]
    view.add_(a[0])
    return x.diff().cos().sum() + view.sin().sum()


def pairwise(s, a, b, u):
    return (torch.cdist(b, s.V.weight) ** 2).sum() + torch.pdist(b + 3 * torch.eye(M, H)).cos().sum()


def norms(s, a, b, u):
    return (F.normalize(a + 2, dim=0) * s.k).sum() + F.cosine_similarity(b + 1, s.grid, dim=1).sum() \
        + F.pairwise_distance(b + 1, s.grid).sum() + torch.linalg.matrix_norm(b) ** 2 + torch.dist(a, s.k) ** 2


ELEMENTS = {
    "maximum": lambda s, a, b, u: torch.maximum(a, s.S @ a).square().sum() + torch.fmin(b, s.grid).sum(),
    "clamp to vectors": lambda s, a, b, u: a.clamp(-s.k, s.k).square().sum() + a.clamp(min=s.S @ a).sum(),
    "where of two": lambda s, a, b, u: torch.where(a > s.S @ a, a**2, torch.sin(s.S @ a)).sum(),
    "where of masks": lambda s, a, b, u: torch.where(s.mask[0], a**4, a.cos()).sum(),
    "truth": lambda s, a, b, u: torch.where((a > -1) & ~(a > 1) | (a > 2), s.k * a**2, a).sum()
    + ((a > 0) ^ (a > 1)).double() @ a**2,
    "powers": lambda s, a, b, u: ((1 + a**2 + (s.S @ a) ** 2) ** 0.7).sum() + ((1 + a**2) ** s.k).sum()
    + ((1 + b**2) ** -s.grid).sum(),
    "powers of elements": lambda s, a, b, u: (a**s.powers).sum() + ((1 + a**2) ** (s.powers / 3)).sum(),
    "logarithms": lambda s, a, b, u: torch.logaddexp(a, s.S @ a).sum() + torch.logaddexp2(a, s.k).sum(),
    "angles": lambda s, a, b, u: torch.atan2(a, 3 + (s.S @ a) ** 2).sum() + torch.deg2rad(90 * a).cos().sum()
    + torch.hypot(a, s.k).sum() + torch.sinc(b).sum(),
    "units": lambda s, a, b, u: F.selu(s.W(a)).sum() + F.celu(a, 0.5).sum() + F.softsign(b).sum() + F.hardtanh(a).sum(),
    "shrink": lambda s, a, b, u: (F.softshrink(a) + F.hardshrink(a) + F.threshold(a, 0.1, 0.0)).square().sum(),
    "glu": lambda s, a, b, u: F.glu(b[0, :4]).cos().sum() + F.leaky_relu(a, 0.2).sum() + s.prelu(b).sum(),
    "huber of two": lambda s, a, b, u: F.huber_loss(a, s.S @ a, delta=0.3) + F.smooth_l1_loss(b, s.grid, beta=0.2),
    "signs": lambda s, a, b, u: torch.copysign(a**2, a).sum() + torch.nan_to_num(a).cos().sum(),
}  # fmt: skip

PRODUCTS = {
    "rows one by one": lambda s, a, b, u: sum(torch.tanh(s.S[i] @ a + s.k[i]) for i in range(N))
    + torch.dot(s.P[:, 0], a.repeat(2)[:8]),
    "heads": lambda s, a, b, u: torch.einsum("hij,j->hi", s.heads, a).cos().sum() + (s.heads[0] @ a.sin()).sum(),
    "bilinear": lambda s, a, b, u: s.bilinear(a, b[0]).cos().sum() + s.bilinear(a.sin(), b[1]).sum(),
    "batches": lambda s, a, b, u: torch.baddbmm(b[:2, :3, None], s.heads, a.expand(2, N)[..., None]).cos().sum()
    + torch.addbmm(torch.zeros(3, 1), s.heads, a.expand(2, N)[..., None]).sin().sum(),
    "tensordot": lambda s, a, b, u: torch.tensordot(s.grid, b, ([0, 1], [0, 1])).cos()
    + torch.tensordot(s.heads, a, 1).sin().sum() + torch.inner(b, s.row).cos().sum(),
    "outer": lambda s, a, b, u: (torch.outer(a, b[0]) * s.joint.weight[:, :1].T).cos().sum()
    + torch.addr(s.grid, b[:, 0], b[0]).cos().sum() + torch.kron(a[:2], b[0]).cos().sum(),
    "trace": lambda s, a, b, u: torch.trace(b @ s.G[:H, :M]) + torch.linalg.cross(a[:3], a[3:]).cos().sum()
    + torch.diagonal(s.S).mul(a**2).sum(),
    "distances": pairwise,
    "norms": norms,
    "products": lambda s, a, b, u: a.prod() + b.prod(1).cos().sum() + a.cumprod(0).cos().sum(),
    "self attention": lambda s, a, b, u: s.attention(b[None, :, 1:], b[None, :, 1:], b[None, :, 1:])[0].cos().sum(),
    "self attention without weights": lambda s, a, b, u: s.attention(
        b[None, :, 1:], b[None, :, 1:], b[None, :, 1:], need_weights=False)[0].cos().sum(),
}  # fmt: skip

LINEAR = {
    "running sums": lambda s, a, b, u: a.cumsum(0).cos().sum() + (s.grid * b).cumsum(1).sin().sum(),
    "averages": lambda s, a, b, u: F.avg_pool1d(a[None], 2).cos().sum() + F.adaptive_avg_pool2d(b[None], 2).cos().sum()
    + F.avg_pool2d(b[None], 2, stride=1, padding=1).sin().sum(),
    "added by index": lambda s, a, b, u: torch.zeros(3).index_add(0, INDEX, a * s.k).cos().sum()
    + torch.ones(3).scatter_add(0, INDEX, a).sin().sum(),
    "put by index": lambda s, a, b, u: torch.zeros(8).scatter(0, torch.arange(6) + 1, a).diff().cos().sum()
    + torch.zeros(8).index_copy(0, torch.arange(6) + 1, a).sin().sum(),
    "filled": filled,
    "padded": lambda s, a, b, u: F.pad(a, (1, 2), value=0.5).diff().cos().sum()
    + F.pad(b[None], (2, 1, 1, 1), mode="circular").diff().cos().sum(),
    "padded convolutions": lambda s, a, b, u: s.ring(b).cos().sum() + s.mirror(b[None]).cos().sum()
    + s.edge_conv(b).cos().sum(),
    "patches": lambda s, a, b, u: F.unfold(b[None, None], (2, 2)).cos().sum()
    + F.pixel_shuffle(b[:, None, :2], 2).diff().cos().sum(),
    "upsampled": lambda s, a, b, u: (F.interpolate(a[None, None], scale_factor=2, mode="linear")[0, 0, :8]
    * s.P[:, 0]).cos().sum() + F.interpolate(b[None], scale_factor=2).diff().cos().sum(),
    "flipped kernel": lambda s, a, b, u: F.conv1d(a[None, None], s.kernel[None, None]).cos().sum()
    + F.conv1d(a[None, None], s.kernel.flip(0)[None, None]).sin().sum(),
}  # fmt: skip

MODULES = {
    "layer norm": lambda s, a, b, u: s.layer(a).cos().sum() + F.layer_norm(b, (H,), eps=0.2).sin().sum(),
    "other norms": lambda s, a, b, u: s.group(b[None]).cos().sum() + s.batch(b[None, :, 0]).sin().sum()
    + F.instance_norm(b[None], eps=0.3).cos().sum() + F.rms_norm(a, (N,), eps=0.3).cos().sum(),
    "embedding": lambda s, a, b, u: (s.embedding(torch.tensor(3)) * a).cos().sum()
    + (s.embedding(torch.tensor([1, 0])) @ a).sin().sum(),
    "normed weights": lambda s, a, b, u: s.normed(a).cos().sum() + s.spectral(a).sin().sum(),
    "parametrized": lambda s, a, b, u: a @ s.symmetric.weight @ a + s.symmetric(a).cos().sum(),
}  # fmt: skip

PARAMETERS = {
    "gram": lambda s, a, b, u: a @ (s.S @ s.S.T) @ a + ((s.W.weight.T @ s.W.weight) @ a).cos().sum(),
    "factors": lambda s, a, b, u: ((s.S[:, :2] * s.bias[:2]) @ s.S[:2] @ a).cos().sum()
    + (s.S[:, :2] @ torch.diag(s.bias[:2]) @ s.S[:2] @ a).sin().sum(),
    "normalised": lambda s, a, b, u: (s.S / s.S.norm() @ a).cos().sum() + (F.normalize(s.S, dim=1) @ a).sin().sum()
    + (s.S / s.S.abs().amax() @ a).sin().sum() + (s.S / s.S.norm(3, dim=0, keepdim=True) @ a).cos().sum(),
    "softmax": lambda s, a, b, u: (torch.softmax(s.S / s.m, 1) @ a).cos().sum() + (s.k.softmax(0) * a**2).sum()
    + (F.log_softmax(s.k, 0) * a).sum() + torch.logsumexp(s.k, 0) * a.sum(),
    "sums": lambda s, a, b, u: s.k.sum() * (a**2).sum() + (s.S.mean(1) * a).cos().sum() + (s.k @ s.edge.sum(0, True)
    .expand(N)) * a.cos().sum() + torch.trace(s.S) * a.sin().sum() + s.k.cumsum(0) @ a**2 + s.k.min() * a.sum(),
    "standardised": lambda s, a, b, u: ((s.S - s.S.mean(1, True)) / s.S.std(1, keepdim=True) @ a).cos().sum()
    + ((s.S - s.S.mean()) / s.S.var().sqrt() @ a).sin().sum(),
    "laplacian": lambda s, a, b, u: a @ (lambda A: torch.diag(A.sum(1)) - A)(F.softplus(s.S + s.S.T)) @ a,
    "hypernetwork": lambda s, a, b, u: ((F.linear(s.k, s.G[:, :N].T, s.k)) * a**2).sum()
    + (torch.tanh(s.S @ s.k + s.k) * a).cos().sum(),
    "batches": lambda s, a, b, u: (torch.einsum("hij,kj->hik", s.heads, s.S).sum(0) @ a).cos().sum(),
    "beside each other": lambda s, a, b, u: (torch.cat([s.S, 2 * s.W.weight]) @ a).cos().sum()
    + (torch.block_diag(s.S[:2, :2], s.S[2:, 2:]) @ a).sin().sum(),
    "toeplitz": lambda s, a, b, u: (s.k[(torch.arange(N)[:, None] - torch.arange(N)) % N] @ a).cos().sum(),
    "pooled kernel": lambda s, a, b, u: (F.avg_pool1d(s.S, 2) @ a[:3]).cos().sum(),
    "broadcast": lambda s, a, b, u: (b[:, None, :] * s.grid[None]).cos().sum() + (b[:, :, None] * s.S[:H]).cos().sum(),
}  # fmt: skip


@pytest.mark.parametrize("energy", [f for group in (ELEMENTS, PRODUCTS, LINEAR, MODULES, PARAMETERS)
                                    for f in group.values()],
                         ids=[n for g in (ELEMENTS, PRODUCTS, LINEAR, MODULES, PARAMETERS) for n in g])
def test_energy(energy):
    made = type("Model", (More,), {"energy": energy})()
    with torch.no_grad():  # away from what a kink would make of equal numbers
        made.k += torch.linspace(0, 0.1, N)
    captured(made.double())


def test_a_constant_term_of_frozen_parameters_is_a_number():
    graph = captured(type("Model", (More,), {"energy": lambda s, a, b, u: (a**2).sum() + (s.powers / 3).sum()})())
    assert [t.expr.value for t in graph.energy if t.expr.op == "const"] == pytest.approx([np.sum([17 / 3])])


def test_terms_of_a_loop_are_one_vector():
    weights = torch.linspace(0.1, 1.5, N).tolist()

    def energy(s, a, b, u):
        terms = [w * torch.cos(a[i] - a[(i + 1) % N]) + s.k[i] * a[i] ** 4 for i, w in enumerate(weights)]
        return sum(terms) + (b**2).sum() + sum(torch.tanh(s.S[i] @ a + s.k[i]) for i in range(N))

    graph = captured(type("Model", (More,), {"energy": energy})().double())
    assert sorted(t.length for t in graph.energy) == [N, N, N, M * H]


def test_pairs_of_a_loop_are_one_vector():
    def energy(s, a, b, u):
        return sum(s.S[i, j] * torch.cos(a[i] - a[j]) for i in range(N) for j in range(i)) + (b**2).sum()

    graph = captured(type("Model", (More,), {"energy": energy})().double())
    assert sorted(t.length for t in graph.energy) == [N * (N - 1) // 2, M * H]
    assert [made.moves for made in graph.derived] == [True]
