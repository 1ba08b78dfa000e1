"""Stacks on the chip: gradients against backpropagation through time, RTL against the integer model."""

import functools

import numpy as np
import pytest
import torch
from test_rules import Chain
from test_stack import Mix, Skip
from torch import nn

import echolith as el
from echolith.bench import stack_random
from echolith.compiler.isa import KIND_BITS, Field, Opcode, exec_word
from echolith.compiler.reference import bptt
from echolith.compiler.utilisation import copy0, work
from echolith.examples.series import Series
from echolith.host.session import Session
from echolith.sim import adjoint
from echolith.sim.device import IntegerDevice
from echolith.sim.twin import Twin

INPUTS, OUTPUTS, ROWS, UNITS = 3, 2, 6, 6
DYNAMICS = el.Leapfrog(0.25, 2)


class Rows(nn.Module):
    """A layer of stiff units coupled through log-cosh rows."""

    def __init__(self, inputs, units=UNITS):
        super().__init__()
        self.states, self.inputs = {"q": units}, inputs
        self.W, self.B = nn.Linear(units, 5, bias=False), nn.Linear(inputs, 5)
        self.a = nn.Parameter(torch.rand(units) + 0.5)

    def energy(self, q, u):
        return 0.5 * (self.a * q**2).sum() + torch.log(torch.cosh(self.W(q) + self.B(u))).sum()


class Squared(Rows):
    """Fed in two ways, one of which is no matrix."""

    def energy(self, q, u):
        return super().energy(q, u) + 0.3 * (q[:4] * u**2).sum()


class Twice(Rows):
    """Fed by two matrices."""

    def __init__(self, inputs):
        super().__init__(inputs)
        self.P = nn.Linear(inputs, UNITS)

    def energy(self, q, u):
        return super().energy(q, u) - (q * self.P(u)).sum()


class Single(Rows):
    """Fed element by element, by the bias of a product."""

    def __init__(self, inputs):
        super().__init__(inputs)
        del self.B
        self.w = nn.Parameter(torch.rand(inputs) + 0.5)

    def energy(self, q, u):
        z = self.W(q)
        return 0.5 * (self.a * q**2).sum() + torch.log(torch.cosh(z[:4] * self.w + u)).sum() + 0.1 * (z * z).sum()


class Heavy(Rows):
    def __init__(self, inputs):
        super().__init__(inputs)
        self.m = nn.Parameter(torch.rand(UNITS) + 0.7)

    def kinetic(self, p):
        return 0.5 * (p**2 / self.m).sum()


class Net(el.Stack):
    outputs = OUTPUTS

    def __init__(self, parts, wires=None):
        super().__init__(parts, wires, inputs=INPUTS)
        self.C = nn.Linear(UNITS, OUTPUTS)

    def cost(self, q, y):
        return 0.5 * ((self.C(q) - y) ** 2).sum()

    def predict(self, q):
        return self.C(q)


NETS = {
    "blocks": lambda: Net({"low": Rows(INPUTS), "mix": Mix(UNITS, 4), "high": Rows(4)}),
    "direct": lambda: Net({"low": Rows(INPUTS), "high": Rows(UNITS)}),
    "squared": lambda: Net({"low": Rows(INPUTS), "mix": Mix(UNITS, 4), "high": Squared(4)}),
    "twice": lambda: Net({"low": Rows(INPUTS), "mix": Mix(UNITS, 4), "high": Twice(4)}),
    "single": lambda: Net({"low": Rows(INPUTS), "mix": Mix(UNITS, 4), "high": Single(4)}),
    "masses": lambda: Net({"low": Heavy(INPUTS), "mix": Mix(UNITS, 4), "high": Heavy(4)}),
    "gate": lambda: Net({"low": Rows(INPUTS), "mix": GATE(UNITS, 4), "high": Rows(4)}),
    "beside": lambda: Net({"low": Rows(INPUTS), "mix": Beside(UNITS, 4), "mid": Rows(4), "linear": nn.Linear(UNITS, 4),
                           "high": Rows(4)}),
    "skip": lambda: Net({"low": Rows(INPUTS), "mid": Rows(UNITS), "mix": Skip(), "high": Rows(UNITS)},
                        {"mix": ("mid", "low")}),
    "series": lambda: Calm(INPUTS, OUTPUTS, ROWS, blocks=1, width=5, units=UNITS, means=4),
    "linear series": lambda: Calm(INPUTS, OUTPUTS, ROWS, blocks=1, width=5, units=UNITS, means=4, linear=True),
    "three": lambda: Net({"low": Rows(INPUTS), "first": Mix(UNITS, 5), "mid": Rows(5), "second": Mix(UNITS, 4),
                          "high": Rows(4)}),
    "encoder": lambda: Net({"encode": nn.Linear(INPUTS, 5), "low": Rows(5), "mix": Mix(UNITS, 4), "high": Rows(4)}),
    "long series": lambda: Net({"low": Rows(INPUTS), **{
        name: part for i in range(6) for name, part in ((f"mix{i}", Mix(UNITS, 4)), (f"layer{i}", Single(4)))}}),
    "fork": lambda: Net({"low": Rows(INPUTS), "left": Rows(UNITS), "right": Rows(UNITS), "mix": Skip(),
                         "high": Rows(UNITS)}, {"left": "low", "right": "low", "mix": ("left", "right")}),
}


class Calm(Series):
    """With outputs near 1."""

    def __init__(self, *args, **options):
        super().__init__(*args, **options)
        with torch.no_grad():
            self.R.weight /= 12


class GATE(nn.Module):
    def __init__(self, inputs, outputs):
        super().__init__()
        self.a, self.b = nn.Linear(inputs, outputs), nn.Linear(inputs, outputs)

    def forward(self, q):
        return self.a(q) * torch.sigmoid(self.b(q))


class Beside(GATE):
    """A function beside what is linear: a gradient reaches weights as it came."""

    def forward(self, q):
        return torch.nn.functional.silu(self.a(q)) + self.b(q)


def data(cost_at="last", rows=ROWS, samples=24):
    generator = np.random.default_rng(0)
    shape = (samples, OUTPUTS) if cost_at == "last" else (samples, rows, OUTPUTS)
    return generator.integers(-8, 9, (samples, rows, INPUTS)) / 8, generator.uniform(-0.5, 0.5, shape)


@functools.cache
def compiled(name, cost_at="last"):
    torch.manual_seed(0)
    net = NETS[name]()
    return net, el.compile(net, dynamics=DYNAMICS, rule=el.HamiltonianEcho(cost_at), calibrate=data(cost_at), lanes=4)


def flat(gradient, names):
    return np.concatenate([np.ravel(gradient[name]) for name in names])


def cosine(found, expected, names):
    a, b = flat(found, names), flat(expected, names)
    return float(a @ b / np.linalg.norm(a) / np.linalg.norm(b))


def built(*fast, without=()):
    for name in [n for n in NETS if n not in without]:
        for cost_at in ("last", "every"):
            yield pytest.param(name, cost_at, marks=[] if (name, cost_at) in fast else [pytest.mark.slow])


SHORT = [(name, cost_at) for name in NETS for cost_at in ("last", "every") if "series" not in name]


# The long series is there for its circuits: six blocks leave its lowest layer 1e-11 of the cost.
@pytest.mark.parametrize("name, cost_at", list(built(*SHORT, ("series", "last"), without=("long series",))))
def test_gradients_of_all_parts_agree_with_autograd(name, cost_at):
    net, design = compiled(name, cost_at)
    x, y = data(cost_at)
    expected, outputs = bptt(net, x, y, DYNAMICS.dt, DYNAMICS.substeps, cost_at)
    with design.open("int:") as chip:
        assert chip.echo(x).exact
        np.testing.assert_allclose(chip.predict(x), outputs, atol=1e-3)
        found = chip.gradient(x, y)
    assert found.keys() == expected.keys()
    assert cosine(found, expected, expected) >= 0.99999
    for part in {name.split(".")[0] for name in expected}:
        names = [name for name in expected if name.split(".")[0] == part]
        assert cosine(found, expected, names) >= (0.999 if "series" in name else 0.9998), part
    sizes = [np.linalg.norm(flat(g, expected)) for g in (found, expected)]
    np.testing.assert_allclose(*sizes, rtol=0.01)


@pytest.mark.parametrize("name", ["three", "masses"])
def test_the_adjoint_of_a_design_is_backpropagation_through_time(name):
    net, design = compiled(name)
    x, y = data()
    expected = bptt(net, x, y, DYNAMICS.dt, DYNAMICS.substeps)[0]
    assert cosine(adjoint.gradient(design, design.values, x, y[:, None]), expected, expected) > 1 - 1e-9


@pytest.mark.parametrize("name, cost_at", list(built(("blocks", "last"), ("skip", "every"), ("series", "last"))))
def test_rtl_equals_the_integer_model(name, cost_at):
    _, design = compiled(name, cost_at)
    x, y = data(cost_at)
    with design.open("sim:") as chip:
        twin = Twin(IntegerDevice(design), chip.device)
        twin.write(chip.device.read())
        twin.clear()
        session = Session(design, twin)
        session.predict(x[:3])
        assert session.echo(x[:3]).exact
        session.fit(x[:3], y[:3], epochs=2, batch_size=2, learning_rate=0.05, momentum=0.5)
    assert twin.words and twin.predicted_cycles == twin.measured_cycles and not twin.flags & 3


@pytest.mark.parametrize("name, bits", [("series", KIND_BITS), ("long series", KIND_BITS + 1)])
def test_blocks_need_more_circuits_than_the_shorter_field_names(name, bits):
    _, design = compiled(name)
    used = {s.kind for s in (*design.feeds, *design.sweeps, *design.errors)}
    assert max(used) >= 1 << bits and len(design.hardware.step) == max(used) + 1
    word, kind = exec_word(Opcode.TRANSPOSED, kind=max(used)), max(used) >> KIND_BITS
    assert (word >> Field.TARGET & 1, word >> Field.SOURCE & 1) == (kind & 1, kind >> 1)


def test_three_parties_agree():
    _, design = compiled("three")
    x, y = data()
    found = design.verify(x[:3], y[:3], url="int:")
    assert found, str(found)
    assert found.cosine > 0.9999


def test_memory_does_not_grow_with_steps():
    torch.manual_seed(0)
    net = NETS["blocks"]()
    short, long = (el.compile(net, dynamics=DYNAMICS, rule=el.HamiltonianEcho(), lanes=4, steps=rows, samples=0,
                              precision={"state": "Q7.10"}) for rows in (6, 150))
    one, other = (d.hardware.depths for d in (short, long))
    assert {n: v for n, v in vars(one).items() if n != "data"} == {n: v for n, v in vars(other).items() if n != "data"}


@pytest.mark.slow
def test_50_000_rows_return_bit_for_bit_on_the_hardware_of_500():
    torch.manual_seed(0)
    net = Chain()
    draws = np.random.default_rng(0)
    x, y = draws.integers(-8, 9, (2, 500, net.inputs)) / 8, draws.normal(size=(2, net.outputs))
    short = el.compile(net, dynamics=el.Leapfrog(0.25), rule=el.HamiltonianEcho(), calibrate=(x, y), lanes=4)
    long = el.compile(net, dynamics=el.Leapfrog(0.25), rule=el.HamiltonianEcho(), steps=50_000, lanes=4, like=short)
    assert long.hardware == short.hardware
    with long.open("int:compiled") as chip:
        echo = chip.echo(np.tile(x, (1, 100, 1)))
    assert (echo.exact, echo.steps) == (True, 50_000)


def test_learning_is_the_same_on_both_integer_devices_and_from_a_file(tmp_path):
    _, design = compiled("blocks")
    design.save(tmp_path / "net.echolith")
    x, y = data()
    found = []
    for url in ("int:", "int:compiled"):
        with el.open(tmp_path / "net.echolith", url) as chip:
            history = chip.fit(x, y, epochs=8, batch_size=8, learning_rate=0.1, momentum=0.5)
            found.append((history.loss, chip.state_dict()))
    assert found[0][0] == found[1][0] and found[0][0][-1] < 0.9 * found[0][0][0]
    for name, value in found[0][1].items():
        np.testing.assert_array_equal(value, found[1][1][name])


def test_explain_tells_what_lies_between_layers():
    text = compiled("blocks")[1].explain()
    for line in ("f:z0                      mix.map.weight low + mix.map.bias",
                 "high_fed                  high.B.weight tanh(f:z0) + high.B.bias",
                 "high_error                tanh((z1 + high_fed))",
                 "dmix.map.bias             contrasts of errors, d(high_fed)/dmix.map.bias"):
        assert line in text, line


def test_useful_multiplications_count_all_copies_and_what_they_hand_down():
    design = compiled("direct")[1]
    words = {b.name: b.rows * b.columns for b in design.blocks}
    owner = {p.parameters[0]: words[p.block] for p in design.placements}
    couplings, fed = owner["low.W.weight"] + owner["high.W.weight"], owner["high.B.weight"]
    inputs, bias = owner["low.B.weight"], owner["high.B.bias"]
    drives, readout, forces = inputs + bias, words["readout"], ROWS * 2 - 1
    force, outer = 2 * couplings, couplings + inputs
    predict = forces * (force + fed) + ROWS * drives + readout
    echoes = 2 * forces * (force + outer) + ROWS * drives
    costs = readout + OUTPUTS * 2 * UNITS
    assert work(design).predict == predict
    assert work(design).learn == predict + echoes + costs + forces * (force + 3 * fed + bias)
    assert copy0(design) == 0


def test_inference_needs_no_echoes():
    torch.manual_seed(0)
    net = NETS["fork"]()
    x, _ = data()
    design = el.compile(net, dynamics=DYNAMICS, rule=None, calibrate=(x, None), board="icebreaker", lanes=2)
    with design.open("int:") as chip:
        np.testing.assert_allclose(chip.predict(x), bptt(net, *data(), DYNAMICS.dt, DYNAMICS.substeps)[1], atol=5e-3)


class One(nn.Module):
    """A function whose value is one number."""

    def __init__(self, kind):
        super().__init__()
        self.kind, self.w = kind, nn.Parameter(torch.rand(UNITS) + 0.5)

    def forward(self, q):
        return {
            "mean": q.mean(0, keepdim=True), "norm": torch.sqrt((q**2).sum() + 0.1)[None],
            "weighted": (self.w * q).sum()[None] + q[2:3] + 0.5,
        }[self.kind]


@pytest.mark.filterwarnings("ignore:.*neither energy nor cost depends")
@pytest.mark.parametrize("kind", ["mean", "norm", "weighted"])
def test_a_layer_may_be_fed_one_number(kind):
    torch.manual_seed(0)
    net, (x, y) = Net({"low": Rows(INPUTS), "one": One(kind), "high": Rows(1)}), data()
    design = el.compile(net, dynamics=DYNAMICS, rule=el.HamiltonianEcho(), calibrate=(x, y), lanes=4)
    expected, outputs = bptt(net, x, y, DYNAMICS.dt, DYNAMICS.substeps)
    with design.open("int:") as chip:
        found = chip.gradient(x, y)
        np.testing.assert_allclose(chip.predict(x), outputs, atol=5e-3)
    for name in expected:
        if np.any(expected[name]):
            np.testing.assert_allclose(found[name], expected[name], atol=0.01 * np.abs(expected[name]).max())
    if kind == "weighted":
        assert design.verify(x[:1], y[:1])


def without(net, *methods):
    """The network, of a class in which these methods are not."""
    net.__class__ = type(type(net).__name__, (type(net),), dict.fromkeys(methods))
    return net


def test_inference_needs_no_cost():
    torch.manual_seed(0)
    net, (x, _) = NETS["fork"](), data()
    how = {"dynamics": DYNAMICS, "rule": None, "calibrate": (x, None)}
    assert el.compile(net, **how).program == el.compile(without(net, "cost"), **how).program


REFUSED = {
    "no cost": (lambda: without(NETS["fork"](), "cost"), {},
                "a rule needs a cost: give the model a method cost(q, y), or compile with rule=None"),
    "no outputs": (lambda: without(NETS["fork"](), "cost", "predict"), {},
                   "Net must define cost(self, q, y) or, for inference alone, predict(self, q), not Net without them"),
    "board": (lambda: NETS["blocks"](), dict(board="icebreaker", lanes=2),
              "a stack learns on boards where two echoes have row operands of their own; compile for ulx3s-85f, or "
              "with rule=None, not for icebreaker"),
    "rule": (lambda: NETS["blocks"](), dict(rule=el.EchoBackpropagation()),
             "EchoBackpropagation is not built for stacks: what a layer hands down is the contrast of two echoes; "
             "learn them by HamiltonianEcho(), not by EchoBackpropagation()"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refusals(name):
    make, changed, text = REFUSED[name]
    torch.manual_seed(0)
    given = dict(dynamics=DYNAMICS, rule=el.HamiltonianEcho(), calibrate=data(), lanes=4) | changed
    with pytest.raises(el.CompileError) as error:
        el.compile(make(), **given)
    assert str(error.value).startswith(text)


@pytest.mark.slow
def test_a_stack_that_nobody_chose():
    """Masses learn in all of its layers; momenta grow by more than half while it does."""
    found = stack_random.measured(204)
    assert [when for when, *_ in found] == ["untrained", "trained"]
    for when, whole, worst, *_ in found:
        assert whole < 1e-4 and worst < 1e-3, when
