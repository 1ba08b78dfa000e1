"""What the compiler cannot lower is refused with method, operation, source line and remedy."""

import re

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from echolith.compiler.capture import capture
from echolith.compiler.errors import CompileError

N, M, R, Y = 6, 3, 4, 2
FORM = re.escape("write the energy as elementwise(q) + sum(v(W q + B u + b))")
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


def written(s, q, u):
    z = torch.zeros(N)
    z[0] = q[0]
    return (z**2).sum()


MATRIX = r"write it as a matrix: W @ q with a frozen 0/1 matrix W, not aten\."
LEARNED = r"make the result itself the nn\.Parameter, or freeze its parts with requires_grad_\(False\), not "
ENERGIES = {
    "roll": (lambda s, q, u: (q * q.roll(1)).sum(), "`roll` is not supported, " + LINE + MATRIX + "roll"),
    "slice": (lambda s, q, u: ((q[1:] - q[:-1]) ** 2).sum(), "`slice` is not supported, " + LINE + MATRIX + "slice"),
    "element": (lambda s, q, u: q[0] ** 2, "`select` is not supported, " + LINE + MATRIX + "select"),
    "index": (lambda s, q, u: q[torch.tensor([0, 2])].sum(), "`index` is not supported, " + LINE + MATRIX + "index"),
    "pairs": (
        lambda s, q, u: ((q[:, None] - q[None]) ** 2).sum(),
        "`sub` makes all pairs.*" + LINE + FORM + r".*\(6, 6\)",
    ),
    "turned product": (lambda s, q, u: (s.S * q).T.sum(1).cos().sum(), "`(t|permute|numpy_T)` makes all pairs"),
    "deep": (
        lambda s, q, u: (s.D @ torch.tanh(s.A @ q)).cos().sum(),
        r"a matrix is applied to .* \(a deep energy\), " + LINE + FORM + r".*tanh\(z\) with z = A q$",
    ),
    "two matrices": (lambda s, q, u: (s.D @ (s.A @ q)).cos().sum(), "two matrices in a row, " + LINE),
    "quadratic form": (
        lambda s, q, u: q @ (s.S @ q),
        "`dot` combines vectors from different spaces.*" + r"\[q\] and \[S q\]",
    ),
    "product of rows": (
        lambda s, q, u: (s.A @ q * s.W(q)).sum(),
        r"`mul` combines .*\[A q\] and \[W.weight q \+ W.bias\]",
    ),
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
    "norm": (lambda s, q, u: torch.norm(q), r"a norm couples all units, .*norm\(q\)\*\*2, not a bare norm"),
    "square of a sum": (
        lambda s, q, u: q.sum() ** 2,
        "a nonlinear function of a sum over units.*" + FORM + ", not pow",
    ),
    "variance": (lambda s, q, u: ((q - q.mean()) ** 2).sum(), "a sum over units is combined with a vector.*, not sub"),
    "softmax": (
        lambda s, q, u: torch.softmax(q, 0).sum(),
        "`_softmax` is not supported.*softmax costs belong to a later",
    ),
    "product": (lambda s, q, u: q.prod(), "`prod` is not supported, " + LINE + FORM + r", not aten\.prod\.default"),
    "concatenation": (lambda s, q, u: s.joint(torch.cat([q, u])).cos().sum(), r"`cat` .*one matrix per vector: W\(q\)"),
    "convolution": (
        lambda s, q, u: F.conv1d(q[None, None], torch.ones(1, 1, 3)).sum(),
        "`convolution` is not supported, .*write it as a dense matrix",
    ),
    "float32": (lambda s, q, u: q.float().sum(), "`_to_copy` is not supported.*keep float64"),
    "written in place": (written, r"a tensor is written in place, at `.*: z\[0\] = q\[0\]`; build a new tensor"),
    "learned softplus": (
        lambda s, q, u: (F.softplus(s.k) * q).sum(),
        "`softplus` makes a function of.*" + LEARNED + r"\['k'\]",
    ),
    "learned product": (
        lambda s, q, u: (s.k * s.k2 * q).sum(),
        "`mul` makes a function of.*" + LEARNED + r"\['k', 'k2'\]",
    ),
    "learned matrices": (
        lambda s, q, u: (s.D @ s.A @ q).cos().sum(),
        "`mm` makes a function of.*" + LEARNED + r"\['A', 'D'\]",
    ),
    "weight decay": (lambda s, q, u: q @ q + (s.k**2).sum(), "`pow` makes a function of learned parameters"),
    "masked": (lambda s, q, u: (s.S * torch.eye(N) @ q).sum(), "`mul` makes a function of.*" + LEARNED + r"\['S'\]"),
    "learned slice": (
        lambda s, q, u: (s.S[:4] @ q).cos().sum(),
        r"S is not used as it is stored, shape \(6, 6\).*\(4, 6\)",
    ),
    "learned row": (lambda s, q, u: (s.S[0] * q).sum(), r"S is not used as it is stored.*a view of shape \(6,\)"),
    "gain per row": (
        lambda s, q, u: (s.b * torch.tanh(s.A @ q)).sum(),
        r"a trainable gain or shift inside the potential over \[A q\].*, not b",
    ),
    "gain": (
        lambda s, q, u: s.a * torch.tanh(s.A @ q).sum(),
        r"a trainable gain multiplies a function of \[A q\].*, not a",
    ),
    "slope": (
        lambda s, q, u: torch.tanh(s.a * (s.A @ q)).sum(),
        r"a trainable gain multiplies a function of \[A q\].*, not a",
    ),
    "frozen gain": (
        lambda s, q, u: (s.gain * torch.tanh(s.A @ q)).sum(),
        r"a per-row gain or shift inside the potential",
    ),
    "scalar bias": (
        lambda s, q, u: torch.tanh(s.A @ q + s.a).sum(),
        r"a is broadcast over rows, " + LINE + r"declare it with shape \(4,\), not shape \(\)",
    ),
    "input only": (lambda s, q, u: q @ q + s.B(u).cos().sum(), "a term does not depend on the states.*remove it"),
    "shape of u": (
        lambda s, q, u: s.B(q).cos().sum(),
        r"the method raised RuntimeError, .*it must accept q of shape \(6,\), u of shape \(3,\) as declared by states, "
        r"inputs and outputs, not mat1 and mat2 shapes cannot be multiplied \(1x6 and 3x4\)",
    ),
    "force at the origin": (lambda s, q, u: torch.sqrt(q).sum(), r"dV/dq must be finite at q = 0, u = 0, .*, not inf"),
    "arguments": (lambda s, q: q @ q, r"wrong arguments; declare it as energy\(self, q, u\), not \(q\)"),
}  # fmt: skip


@pytest.mark.parametrize("name", ENERGIES)
def test_energy(name):
    energy, message = ENERGIES[name]
    with pytest.raises(CompileError, match="^energy: " + message):
        capture(model(energy))


COSTS = {
    "cross entropy": (
        {"cost": lambda s, q, y: F.cross_entropy(s.readout(q), y)},
        "^cost: `_log_softmax` is not supported, " + LINE + "softmax costs belong to a later release",
    ),
    "two readouts": (
        {"cost": lambda s, q, y: ((s.readout(q) - y) ** 2).sum() + (q**2).sum()},
        r"^cost: the cost uses more than one readout, .*\[readout.weight q \+ readout.bias\] and \[q\]",
    ),
    "parameter": (
        {"cost": lambda s, q, y: ((s.k * q - y) ** 2).sum(), "outputs": N},
        r"^cost: the cost uses parameters besides the readout, .*put them in y = R q \+ b, not \['k'\]",
    ),
    "vector": (
        {"cost": lambda s, q, y: (s.readout(q) - y) ** 2},
        r"^cost: the cost must be a scalar, " + LINE + r"sum it with \.sum\(\), not shape \(2,\)",
    ),
    "no states": (
        {"cost": lambda s, q, y: (y**2).sum()},
        "^cost: the cost does not depend on the states.*, not target",
    ),
    "weights": (
        {"cost": lambda s, q, y: F.binary_cross_entropy_with_logits(s.readout(q), y, pos_weight=torch.ones(Y))},
        "^cost: `binary_cross_entropy_with_logits` with pos_weight, .*, not pos_weight",
    ),
    "width": (
        {"cost": lambda s, q, y: ((s.W(q) - y) ** 2).sum()},
        r"^cost: the method raised RuntimeError, .*q of shape \(6,\), y of shape \(2,\) as declared .*\(4\) must match",
    ),
    "squashed predict": (
        {"predict": lambda s, q: torch.tanh(s.readout(q))},
        r"^predict: predict is not affine in the states, .*return R q \+ b, not tanh",
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
        ({"states": None}, r'^Model\.states must map one state to its units, e\.g\. {"q": 40}, not None$'),
        ({"states": {"q": 2, "r": 3}}, r"^Model\.states must hold one state; .*, not {'q': 2, 'r': 3}$"),
        (
            {"states": {"q": (2, 3)}},
            r"^Model\.states must give a positive number of units in one axis, not {'q': \(2, 3\)}$",
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
    module.q = nn.Parameter(torch.rand(N))
    with pytest.raises(CompileError, match="^q must not be the name of a parameter"):
        capture(module)


def test_dropout_is_accepted_in_eval_mode():
    module = model(lambda s, q, u: F.dropout(q**2, training=s.training).sum()).eval()
    assert str(capture(module).local) == "pow(q, 2)"
