"""What the compiler cannot lower is refused with method, operation, source line and remedy."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from echolith.compiler.capture import capture
from echolith.compiler.errors import CompileError

N, M, R, Y = 6, 3, 4, 2
LINE = r"at `test_refusals\.py:\d+: .*`; "


class Parts(nn.Module):
    states = {"q": N}
    inputs = M
    outputs = Y

    def __init__(self):
        super().__init__()
        self.W, self.B, self.readout = nn.Linear(N, R), nn.Linear(M, R), nn.Linear(N, Y)
        self.k, self.k2, self.a = nn.Parameter(torch.rand(N)), nn.Parameter(torch.rand(N)), nn.Parameter(torch.rand(()))
        self.b, self.A, self.D, self.S = (nn.Parameter(torch.rand(*s)) for s in ((R,), (R, N), (N, R), (N, N)))
        self.joint = nn.Linear(N + M, R)
        self.register_buffer("gain", torch.rand(R))


def square(s, q, u):
    return q @ q


def model(energy=square, cost=None, predict=None, **attributes) -> nn.Module:
    methods = {"energy": energy, "cost": cost, "predict": predict}
    return type("Model", (Parts,), {k: v for k, v in methods.items() if v} | attributes)()


def branch(s, q, u):
    if q.sum() > 0:
        return q @ q
    return 2 * q @ q


ENERGIES = {
    "detach": (lambda s, q, u: q.detach() @ q, r"detach \(or \.data\) hides a dependence, " + LINE + "remove it"),
    "data": (lambda s, q, u: q.data @ q, r"detach \(or \.data\) hides a dependence, " + LINE + "remove it"),
    "detached parameter": (
        lambda s, q, u: s.k.detach() @ q,
        r"detach .* freeze with requires_grad_\(False\), not detach",
    ),
    "dropout": (
        lambda s, q, u: F.dropout(q).sum(),
        r"randomness \(dropout, noise\), " + LINE + r"call model\.eval\(\)",
    ),
    "noise": (lambda s, q, u: (q * torch.rand(N)).sum(), r"randomness \(dropout, noise\), " + LINE + ".*, not rand"),
    "branch": (branch, r"a Python value is taken from a tensor .*, at `.*: if q\.sum\(\) > 0:`; .*torch\.where"),
    "item": (lambda s, q, u: q.sum() * s.a.item(), r"a Python value is taken from a tensor \(\.item\(\)"),
    "vector": (
        lambda s, q, u: q**2,
        r"the energy must be a scalar, " + LINE + r"sum it with \.sum\(\), not shape \(6,\)",
    ),
    "number": (lambda s, q, u: 3.0, "the result is not a tensor; .*, not 3.0"),
    "float32": (lambda s, q, u: q.float().sum(), "`_to_copy` is not supported.*keep float64"),
    "norm": (lambda s, q, u: torch.norm(q), r"dV/dq must be finite at q = 0, u = 0"),
    "maximum": (lambda s, q, u: q.max(), "`max` is not supported, " + LINE + "use logsumexp, a smooth maximum"),
    "sort": (lambda s, q, u: (q.sort()[0] * s.k).sum(), "`sort` is not supported, " + LINE + "use a fixed order"),
    "inverse": (
        lambda s, q, u: q @ torch.linalg.solve(s.S, q),
        "`_linalg_solve_ex` is not supported, " + LINE + "freeze its parameters",
    ),
    "singular values": (lambda s, q, u: torch.linalg.svdvals(s.S + q).sum(), "`_linalg_svd` is not supported, " + LINE),
    "complex": (lambda s, q, u: torch.fft.rfft(q).abs().sum(), r"`_fft_r2c` is not supported, " + LINE),
    "whole numbers": (lambda s, q, u: (q.long() * q).sum(), "`_to_copy` is not supported.*keep float64"),
    "too many pairs": (
        lambda s, q, u: torch.tanh(torch.cat([q] * 50)[:, None] - torch.cat([q] * 50)).sum(1).tanh().sum(),
        r"`sum` makes all pairs of two vectors, .*cos a cos b \+ sin a sin b, not shape \(300, 300\)",
    ),
    "state as a kernel": (
        lambda s, q, u: F.conv1d(u[None, None], q[None, None, :2]).cos().sum(), "a kernel depends on the states, ",
    ),
    "batch of convolutions": (
        lambda s, q, u: F.conv1d(q.view(2, 1, 3), torch.ones(1, 1, 2)).cos().sum(), "a batch of convolutions, " + LINE,
    ),
    "weight decay": (
        lambda s, q, u: q @ q + (s.k**2).sum(),
        r"a term does not depend on the states, .*; remove it: it moves no state, not sum\(pow\(k, 2\)\)",
    ),
    "parameters alone": (lambda s, q, u: q @ q + s.a**2, "a term does not depend on the states, .*, not pow"),
    "constant": (lambda s, q, u: 0 * q.sum(), "the energy does not depend on the states, "),
    "written state": (lambda s, q, u: (q.mul_(2) ** 2).sum(), "a tensor is written in place, " + LINE + "build a new"),
    "written view": (lambda s, q, u: (q[:2].add_(1) ** 2).sum(), "a tensor is written in place, " + LINE + "build a"),
    "input only": (lambda s, q, u: q @ q + s.B(u).cos().sum(), "a term does not depend on the states.*remove it"),
    "shape of u": (
        lambda s, q, u: s.B(q).cos().sum(),
        r"the method raised RuntimeError, .*it must accept q of shape \(6,\), u of shape \(3,\) as declared by states, "
        r"inputs and outputs, not mat1 and mat2 shapes cannot be multiplied \(1x6 and 3x4\)",
    ),
    "force at the origin": (lambda s, q, u: torch.sqrt(q).sum(), r"dV/dq must be finite at q = 0, u = 0, .*, not inf"),
    "joint": (lambda s, q, p, u: q @ q + p @ p, r"an energy of positions and momenta together is not separable, and "
              r"its steps cannot be undone bit for bit; write a potential energy\(self, q, u\) and, unless it is "
              r"\|p\|\^2 / 2, a kinetic\(self, p\), not \(q, p, u\)"),
    "arguments": (lambda s, q: q @ q, r"wrong arguments; declare it as energy\(self, q, u\), not \(q\)"),
}  # fmt: skip


@pytest.mark.parametrize("name", ENERGIES)
def test_energy(name):
    energy, message = ENERGIES[name]
    with pytest.raises(CompileError, match="^energy: " + message):
        capture(model(energy))


COSTS = {
    "two readouts": (
        {"cost": lambda s, q, y: ((s.readout(q) - y) ** 2).sum() + (q**2).sum()},
        r"^cost: the cost uses more than one readout, .*\[q\] and \[readout.weight q \+ readout.bias\]",
    ),
    "constant predict": (
        {"predict": lambda s, q: 0 * s.readout(q) + s.readout.bias},
        r"^predict: predict does not depend on the states, .*use q or a readout of it, not add",
    ),
    "moved targets": (
        {"cost": lambda s, q, y: ((s.readout(q) - y.flip(0)) ** 2).sum()},
        r"^cost: targets are moved or multiplied by a matrix, .*store them as the cost uses them",
    ),
    "scores": (
        {"cost": lambda s, q, y: F.nll_loss(F.log_softmax(s.W(q), 0), y.long())},
        r"^cost: the scores disagree with outputs, .*compare the class with outputs scores, not \(4,\)",
    ),
    "parameter": (
        {"cost": lambda s, q, y: (s.k * (q - y) ** 2).sum(), "outputs": N},
        r"^cost: the cost uses parameters besides the readout, .*put them in y = f\(q\), not \['k'\]",
    ),
    "vector": (
        {"cost": lambda s, q, y: (s.readout(q) - y) ** 2},
        r"^cost: the cost must be a scalar, " + LINE + r"sum it with \.sum\(\), not shape \(2,\)",
    ),
    "no states": (
        {"cost": lambda s, q, y: (y**2).sum()},
        "^cost: the cost does not depend on the states.*, not target",
    ),
    "width": (
        {"cost": lambda s, q, y: ((s.W(q) - y) ** 2).sum()},
        r"^cost: the method raised RuntimeError, .*q of shape \(6,\), y of shape \(2,\) as declared .*\(4\) must match",
    ),
    "other predict": (
        {"cost": lambda s, q, y: ((s.readout(q) - y) ** 2).sum(), "predict": lambda s, q: s.readout(2 * q)},
        r"^cost: cost and predict use different readouts, .*, not \[readout.weight q \+ 0.5 readout.bias\]",
    ),
    "shape of predict": (
        {"predict": lambda s, q: q}, r"^predict: predict disagrees with outputs; return shape \(2,\), not shape \(6,\)",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", COSTS)
def test_cost_and_predict(name):
    attributes, message = COSTS[name]
    with pytest.raises(CompileError, match=message):
        capture(model(**attributes))


@pytest.mark.parametrize(
    "attributes, message",
    [
        ({"states": None}, r'^Model\.states must map names to units or shapes, e\.g\. {"q": 40}, not None$'),
        ({"states": {"q": 2.5}}, r"^Model\.states must give positive numbers of units, not {'q': 2\.5}$"),
        ({"states": {"q": (2, 0)}}, r"^Model\.states must give positive numbers of units, not {'q': \(2, 0\)}$"),
        ({"states": {"u": 2}}, r"^Model\.states must have names of their own \(u, y, p, .* are taken\), not 'u'$"),
        ({"states": {"z0": 2}}, r"^Model\.states must have names of their own .*, not 'z0'$"),
        (
            {"states": {"q": N, "r": 3}},
            r"^energy: wrong arguments; declare it as energy\(self, q, r, u\), not \(q, u\)$",
        ),
        ({"states": {"k": N}}, r"^k must not be the name of a parameter: it is a variable of the energy, not 'k'$"),
        (
            {"states": {"q": (2, 3)}},
            r"^energy: the method raised RuntimeError, .*it must accept q of shape \(2, 3\), u of shape \(3,\) as",
        ),
        (
            {"kinetic": lambda s, p: (p @ p) ** 2},
            r"^kinetic: the kinetic energy is not separable, .*sum functions of single momenta, .*, not pow\(z0, 2\)$",
        ),
        ({"kinetic": lambda s, p: (s.A @ p).cos().sum()}, r"^kinetic: the kinetic energy is not separable, "),
        ({"kinetic": lambda s, p: (s.k * s.k2).sum() + 0 * p.sum()}, r"^kinetic: .* not separable, .*, not sum\(k\*k2"),
        (
            {"kinetic": lambda s, p, u: p @ p},
            r"^kinetic: wrong arguments; declare it as kinetic\(self, p\), not \(p, u\)$",
        ),
        ({"inputs": None}, r"^Model\.inputs must be the width of u, a positive integer, not None$"),
        ({"outputs": 0, "cost": square}, r"^Model\.outputs must be the width of y, a positive integer, not 0$"),
    ],
)
def test_declarations(attributes, message):
    with pytest.raises(CompileError, match=message):
        capture(model(**attributes))


def test_a_model_needs_an_energy():
    with pytest.raises(CompileError, match=r"^Parts must define energy\(self, q, u\), a scalar in PyTorch, not Parts"):
        capture(Parts())


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_parameters_must_be_finite(value):
    module = model()
    with torch.no_grad():
        module.W.weight[1, 2] = value
    with pytest.raises(
        CompileError, match=rf"^W\.weight must hold finite numbers; initialise or reload it, not {value}$"
    ):
        capture(module)


def test_a_parameter_may_not_be_called_as_a_variable():
    module = model()
    module.u = nn.Parameter(torch.rand(N))
    with pytest.raises(CompileError, match="^u must not be the name of a parameter"):
        capture(module)


def test_dropout_is_accepted_in_eval_mode():
    module = model(lambda s, q, u: F.dropout(q**2, training=s.training).sum()).eval()
    assert [str(term.expr) for term in capture(module).energy] == ["pow(q, 2)"]
