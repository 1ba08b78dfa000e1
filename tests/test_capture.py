"""Models, however spelled, become the network that autograd agrees with."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from echolith.compiler import numeric
from echolith.compiler.capture import capture
from echolith.compiler.errors import CompileError
from echolith.compiler.graph import Affine, Bias, Dense, Term
from echolith.compiler.ir import var
from echolith.compiler.ops import OPS, Op, apply
from echolith.compiler.trace import float64

N, M, R, Y = 6, 3, 4, 2


class Parts(nn.Module):
    """Every kind of parameter that the energies below use."""

    states = {"q": N}
    inputs = M
    outputs = Y

    def __init__(self):
        super().__init__()
        torch.manual_seed(1)
        self.W, self.B, self.readout, self.single = nn.Linear(N, R), nn.Linear(M, R), nn.Linear(N, Y), nn.Linear(N, 1)
        self.k, self.k2 = nn.Parameter(torch.rand(N) + 0.5), nn.Parameter(torch.rand(N))
        self.a, self.a1 = nn.Parameter(torch.tensor(0.7)), nn.Parameter(torch.rand(1))
        self.A, self.At, self.S = (
            nn.Parameter(torch.rand(R, N)),
            nn.Parameter(torch.rand(N, R)),
            nn.Parameter(torch.rand(N, N)),
        )
        self.C, self.b = nn.Parameter(torch.rand(R, M)), nn.Parameter(torch.rand(R))
        self.frozen = nn.Parameter(torch.rand(R, N), requires_grad=False)
        self.register_buffer("f", torch.rand(N))
        self.plain = torch.rand(N)


def model(energy, cost=None, predict=None, base=Parts, **attributes) -> nn.Module:
    methods = {"energy": energy, "cost": cost, "predict": predict}
    return type("Model", (base,), {k: v for k, v in methods.items() if v} | attributes)()


def autograd(module: nn.Module, method: str, q: np.ndarray, other: np.ndarray):
    """(value, d/dq, {name: d/dparameter}) straight from PyTorch."""
    state = torch.tensor(q, requires_grad=True)
    module.zero_grad()
    with float64():
        value = getattr(module, method)(state, torch.tensor(other))
    value.backward()
    grads = {n: p.grad for n, p in module.named_parameters() if p.requires_grad}
    return value.item(), state.grad.numpy(), {n: 0.0 if g is None else g.numpy() for n, g in grads.items()}


def assert_equal_to_autograd(module: nn.Module, graph) -> None:
    rng = np.random.default_rng(5)
    module = module.double()
    if isinstance(getattr(module, "plain", None), torch.Tensor):
        module.plain = module.plain.double()
    ((state, units),) = graph.states.items()
    for _ in range(3):
        q, u = rng.normal(size=(1, units)), rng.normal(size=(1, graph.inputs))
        y = rng.uniform(size=(1, graph.outputs))
        given = {state: q}
        cases = [
            ("energy", u, numeric.energy(graph, given, u), numeric.Force(graph)(given, u),
             numeric.gradient(graph, given, u))
        ]  # fmt: skip
        if graph.cost:
            cases.append(("cost", y, numeric.cost(graph, given, y), *numeric.cost_gradient(graph, given, y)))
        for method, other, value, slope, gradient in cases:
            expected, dq, grads = autograd(module, method, q[0], other[0])
            np.testing.assert_allclose(value[0], expected, rtol=1e-10)
            np.testing.assert_allclose(slope[state][0], dq, rtol=1e-9, atol=1e-12)
            for name, grad in grads.items():
                np.testing.assert_allclose(gradient.get(name, 0.0), grad, rtol=1e-9, atol=1e-12, err_msg=name)


def terms(node: Affine) -> list[str]:
    """An affine node as sorted text."""
    found = []
    for term in node.terms:
        assert isinstance(term.matrix, Dense)
        found.append(term.matrix.parameter + ("'" if term.matrix.transposed else "") + f" {term.source}")
    return sorted(found + [f"{b.parameter} one" for b in node.biases])


def accumulated(s, q, u):
    e = torch.zeros(())
    e += (q**2).sum()
    z = s.W(q)
    z += s.B(u)
    z *= 2
    e -= z.sin().sum()
    return e


POTENTIALS = {
    "log cosh": lambda z: torch.log(torch.cosh(z)),
    "stable log cosh": lambda z: z.abs() + F.softplus(-2 * z.abs()) - math.log(2),
    "softplus": lambda z: F.softplus(z),
    "softplus beta": lambda z: F.softplus(z, beta=2),
    "log(1 + exp)": lambda z: torch.log(1 + torch.exp(z)),
    "silu written out": lambda z: z.sigmoid() * z,
    "silu": F.silu,
    "gelu": F.gelu,
    "gelu tanh": lambda z: F.gelu(z, approximate="tanh"),
    "sin": torch.sin,
    "polynomial": lambda z: 0.1 + 0.2 * z - 0.3 * z**2 + z**3 / 3 + z.pow(4) / 24,
    "horner": lambda z: ((z * 0.1 + 0.2) * z - 0.5) * z,
    "square": lambda z: z.square() / 2,
    "exp": lambda z: torch.exp(-z),
    "gaussian": lambda z: -torch.exp(-(z**2) / 2),
    "sqrt": lambda z: torch.sqrt(1 + z * z),
    "rsqrt": lambda z: torch.rsqrt(1 + z * z),
    "atan": lambda z: z * torch.atan(z) - 0.5 * torch.log1p(z**2),
    "erf": torch.erf,
    "logistic written out": lambda z: 1 / (1 + torch.exp(-z)),
    "logaddexp": lambda z: torch.logaddexp(z, -z),
    "elu": F.elu,
    "mish": F.mish,
    "softsign": F.softsign,
    "log sigmoid": F.logsigmoid,
    "huber": lambda z: F.huber_loss(z, torch.zeros_like(z), reduction="none"),
    "relu squared": lambda z: F.relu(z) ** 2,
    "clamped": lambda z: z.clamp(-1, 1) ** 2,
    "where": lambda z: torch.where(z > 0, z**2, 0.5 * z**2),
    "exp2": lambda z: 2**z + torch.exp2(-z),
}


@pytest.mark.parametrize("name", POTENTIALS)
def test_any_smooth_potential(name):
    module = model(lambda s, q, u: 0.5 * (s.k * q * q).sum() + POTENTIALS[name](s.W(q) + s.B(u)).sum())
    graph = capture(module)
    assert list(graph.nodes) == ["z0"]
    assert terms(graph.nodes["z0"]) == ["B.bias one", "B.weight u", "W.bias one", "W.weight q"]
    assert graph.learned == {"k", "W.weight", "W.bias", "B.weight", "B.bias"}
    assert_equal_to_autograd(module, graph)


COUPLINGS = {  # spelling -> terms of the one coupling, as parameter, source, transposed
    "linear": (lambda s, q, u: s.W(q), ["W.weight q", "W.bias one"]),
    "functional": (lambda s, q, u: F.linear(q, s.A, s.b), ["A q", "b one"]),
    "at": (lambda s, q, u: s.A @ q + s.C @ u + s.b, ["A q", "C u", "b one"]),
    "vector first": (lambda s, q, u: q @ s.At + u @ s.C.T, ["At' q", "C u"]),
    "T": (lambda s, q, u: s.At.T @ q, ["At' q"]),
    "mv": (lambda s, q, u: torch.mv(s.A, q) + torch.matmul(s.C, u), ["A q", "C u"]),
    "addmv": (lambda s, q, u: torch.addmv(s.b, s.A, q), ["A q", "b one"]),
    "einsum": (lambda s, q, u: torch.einsum("ij,j->i", s.A, q) + torch.einsum("j,ij->i", u, s.C), ["A q", "C u"]),
    "einsum transposed": (lambda s, q, u: torch.einsum("ji,j->i", s.At, q), ["At' q"]),
    "tensordot": (lambda s, q, u: torch.tensordot(s.A, q, 1), ["A q"]),
    "column": (lambda s, q, u: (s.A @ q[:, None]).squeeze(-1), ["A q"]),
    "row": (lambda s, q, u: (q.unsqueeze(0) @ s.A.t())[0], ["A q"]),
    "broadcast": (lambda s, q, u: (s.A * q).sum(-1), ["A q"]),
    "two biases": (
        lambda s, q, u: s.W(q) + s.B(u) - s.b,
        ["B.bias one", "B.weight u", "W.bias one", "W.weight q", "b one"],
    ),
    "learned sum": (lambda s, q, u: s.A @ q + (s.b + s.W.bias / 2), ["A q", "W.bias one", "b one"]),
    "one row": (lambda s, q, u: s.single(q), ["single.weight q", "single.bias one"]),
    "one row squeezed": (lambda s, q, u: s.single(q).squeeze(), ["single.weight q", "single.bias one"]),
    "frozen": (lambda s, q, u: s.frozen @ q, ["frozen q"]),
}  # fmt: skip


@pytest.mark.parametrize("name", COUPLINGS)
def test_any_spelling_of_an_affine_map(name):
    spelling, expected = COUPLINGS[name]
    module = model(lambda s, q, u: (torch.cos(3 * spelling(s, q, u)) / 2).sum())
    graph = capture(module)
    assert list(graph.nodes) == ["z0"]
    assert terms(graph.nodes["z0"]) == sorted(expected)
    assert [str(term.expr) for term in graph.energy] == ["(0.5*cos((3*z0)))"]
    assert_equal_to_autograd(module, graph)


def test_terms_keep_their_scale():
    graph = capture(model(lambda s, q, u: torch.cos(s.A @ q - 2 * (s.C @ u) + s.b / 4).sum()))
    terms = (Term(Dense("A"), var("q")), Term(Dense("C"), var("u"), -2.0))
    assert graph.nodes["z0"] == Affine(R, terms, (Bias("b", 0.25),))


LOCALS = {
    "trainable stiffness": (lambda s, q, u: 0.5 * (s.k * q * q).sum(), "(0.5*(k*pow(q, 2)))"),
    "dot": (lambda s, q, u: q @ q, "pow(q, 2)"),
    "weighted dot": (lambda s, q, u: (q * s.k) @ q, "(k*pow(q, 2))"),
    "linear": (lambda s, q, u: q @ s.k2, "(k2*q)"),
    "several": (lambda s, q, u: (s.k * q**2 + s.k2 * q**4).sum(), "((k*pow(q, 2)) + (k2*pow(q, 4)))"),
    "inside": (lambda s, q, u: torch.cos(s.k * q - s.k2).sum(), "cos(((k*q) - k2))"),
    "sum of parameters": (lambda s, q, u: ((s.k + 0.5 * s.k2 + 1) * q**2).sum(), "(pow(q, 2)*((k + (0.5*k2)) + 1))"),
    "scalar": (lambda s, q, u: s.a * (q**4).sum(), "(a*pow(q, 4))"),
    "scalar of one element": (lambda s, q, u: (s.a1 * q**4).sum(), "(a1*pow(q, 4))"),
    "mean": (lambda s, q, u: (q**2).mean(), "(0.166667*pow(q, 2))"),
    "norm": (lambda s, q, u: torch.norm(q) ** 2 / 2, "(0.5*pow(q, 2))"),
    "4-norm": (lambda s, q, u: torch.linalg.vector_norm(q, 4) ** 4, "pow(q, 4)"),
    "buffer": (lambda s, q, u: (s.f * q**2).sum(), "(f*pow(q, 2))"),
    "double well": (lambda s, q, u: ((q**2 - 1) ** 2).sum(), "pow((pow(q, 2) + -1), 2)"),
    "einsum": (lambda s, q, u: torch.einsum("i,i,i->", q, s.k, q), "(k*pow(q, 2))"),
    "literal": (lambda s, q, u: (torch.tensor(0.1) * q + torch.ones(N) * q**2).sum(), "((0.1*q) + pow(q, 2))"),
    "constant": (lambda s, q, u: q @ q + 12, "pow(q, 2) and 12"),
}


@pytest.mark.parametrize("name", LOCALS)
def test_any_element_wise_part(name):
    energy, expected = LOCALS[name]
    module = model(energy)
    graph = capture(module)
    assert [str(term.expr) for term in graph.energy] == expected.split(" and ")
    assert graph.nodes == {}
    assert_equal_to_autograd(module, graph)


MIXED = {
    "one sum over both": lambda s, q, u: (0.5 * s.k * q**2 + torch.log(torch.cosh(s.S @ q))).sum(),
    "in place": accumulated,
    "two potentials": lambda s, q, u: torch.cos(s.W(q)).sum() + F.softplus(s.A @ q + s.C @ u).sum(),
    "difference of potentials": lambda s, q, u: (torch.tanh(s.W(q)) - torch.sin(s.A @ q)).sum(),
    "filled": lambda s, q, u: (torch.full_like(q, 2.0) * q**2 + u.new_ones(N) * q).sum(),
    "folded vector": lambda s, q, u: (F.softplus(s.f) * q**2).sum(),
    "folded matrix": lambda s, q, u: torch.cos((torch.tril(s.frozen) / 2) @ q + s.frozen[:, :M] @ u).sum(),
    "shifted states": lambda s, q, u: torch.cosh(s.frozen @ (2 * q - 1)).sum(),
    "plain attribute": lambda s, q, u: (s.plain * q**2).sum(),
    "identity coupling": lambda s, q, u: torch.cos(q + s.S @ q - 0.5).sum(),
    "tied": lambda s, q, u: torch.cos(s.S @ q).sum() + torch.sin(s.S.T @ q).sum(),
    "squares of rows": lambda s, q, u: s.W(q) @ s.W(q) + torch.linalg.norm(s.W(q) - s.b) ** 2,
    "modules": lambda s, q, u: nn.Sequential(nn.Tanh(), nn.Softplus())(s.W(q)).sum(),
    "vmap": lambda s, q, u: torch.vmap(lambda x: x**4)(q).sum(),
}  # fmt: skip


@pytest.mark.parametrize("name", MIXED)
def test_mixed_energies(name):
    module = model(MIXED[name])
    assert_equal_to_autograd(module, capture(module))


def test_couplings_over_equal_rows_share_one_potential():
    graph = capture(model(lambda s, q, u: torch.cos(s.W(q)).sum() - torch.sin(2 * s.W(q)).sum()))
    assert [str(term.expr) for term in graph.energy] == ["(cos(z0) - sin((2*z0)))"]


class Equal(nn.Module):
    """Every width is equal, so only the operations tell the spaces apart."""

    states = {"x": (3,)}
    inputs = outputs = 3

    def __init__(self):
        super().__init__()
        self.W, self.B, self.k = nn.Linear(3, 3), nn.Linear(3, 3), nn.Parameter(torch.rand(3))
        self.tied = nn.Linear(3, 3, bias=False)
        self.tied.weight = self.W.weight


class Unit(Equal):
    states = {"q": 1}
    inputs = outputs = 1

    def __init__(self):
        super().__init__()
        self.W, self.B, self.k = nn.Linear(1, 1), nn.Linear(1, 1), nn.Parameter(torch.rand(1))


def test_equal_widths():
    module = model(
        lambda s, q, u: (s.k * q**2 + torch.cos(s.W(q) + s.B(u)) + F.softplus(q @ s.W.weight) + torch.sin(s.tied(q))
                         + torch.cosh(q + u)).sum(),
        lambda s, q, y: F.mse_loss(s.B(q) + q, y), base=Equal,
    )  # fmt: skip
    graph = capture(module)
    assert "tied.weight" not in graph.values
    assert_equal_to_autograd(module, graph)


def test_one_unit():
    module = model(
        lambda s, q, u: (0.5 * s.k * q**2)[0] + torch.cosh(s.W(q) + s.B(u)).squeeze() + q.mean() ** 2,
        lambda s, q, y: (s.W(q) - y).pow(2).squeeze(), base=Unit,
    )  # fmt: skip
    assert_equal_to_autograd(module, capture(module))


def test_the_model_is_left_as_it_was():
    module = model(lambda s, q, u: (s.plain * q**2).sum() + torch.cos(s.W(q)).sum())
    before = {k: v.clone() for k, v in module.state_dict().items()}
    capture(module)
    assert torch.get_default_dtype() == module.plain.dtype == module.W.weight.dtype == torch.float32
    assert all(torch.equal(v, before[k]) for k, v in module.state_dict().items())
    assert all(p.grad is None for p in module.parameters())


def test_a_wrong_derivative_rule_is_noticed(monkeypatch):
    monkeypatch.setitem(OPS, "sin", Op(np.sin, lambda x: (apply("sin", x),), ("sin",)))
    with pytest.raises(CompileError, match=r"energy: dV/dq of the captured network must equal autograd within 1e-08"):
        capture(model(lambda s, q, u: torch.sin(s.W(q)).sum()))


def test_torchs_softplus_is_its_argument_from_20_on():
    capture(model(lambda s, q, u: F.softplus(20.2 + 0.1 * torch.tanh(s.W(q))).sum()))


def test_calibration_points_are_checked_too(monkeypatch):
    monkeypatch.setitem(OPS, "relu", Op(lambda x: np.maximum(x, 0) * (x < 50), OPS["relu"].partials, ("relu",)))
    module = model(lambda s, q, u: torch.relu(q).sum())
    capture(module)
    with pytest.raises(CompileError, match="energy: value of the captured network must equal autograd"):
        capture(module, [(np.full(N, 60.0), np.zeros(M))])
