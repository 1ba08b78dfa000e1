"""Stacks: what is refused, what parts are worth, and echoes against backpropagation through time."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

import echolith as el
from echolith.bench.stack_bits import Case
from echolith.bench.stack_integers import Bits
from echolith.bench.stack_nets import KINDS, Blocks
from echolith.compiler.reference import bptt
from echolith.compiler.stack import value_shapes
from echolith.compiler.stacked import response_exponents, stack_bptt, stack_echo

INPUTS, OUTPUTS, ROWS, BATCH = 3, 2, 5, 4
DT, SUBSTEPS = 0.3, 2


class Linear(nn.Module):
    def __init__(self, inputs: int, units: int):
        super().__init__()
        self.states, self.inputs = {"q": units}, inputs
        self.a, self.B = nn.Parameter(torch.rand(units) + 0.5), nn.Linear(inputs, units)

    def energy(self, q, u):
        return 0.5 * (self.a * q**2).sum() - q @ self.B(u)


class Heavy(Linear):
    """With masses that learn."""

    def __init__(self, inputs: int, units: int):
        super().__init__(inputs, units)
        self.m = nn.Parameter(torch.rand(units) + 0.5)

    def kinetic(self, p):
        return 0.5 * (p**2 / self.m).sum()


class Coupled(Heavy):
    def __init__(self, inputs: int, units: int):
        super().__init__(inputs, units)
        self.W = nn.Parameter(torch.randn(units, units) / units**0.5)

    def energy(self, q, u):
        return 0.5 * (self.a * q**2).sum() + torch.log(torch.cosh(self.W @ q + self.B(u))).sum()


class Mix(nn.Module):
    """tanh(W x + b)."""

    def __init__(self, inputs: int, outputs: int):
        super().__init__()
        self.map = nn.Linear(inputs, outputs)

    def forward(self, x):
        return torch.tanh(self.map(x))


class Gate(nn.Module):
    def __init__(self, first: int, second: int, outputs: int):
        super().__init__()
        self.map, self.gate = nn.Linear(first, outputs), nn.Linear(second, outputs)

    def forward(self, x, y):
        return self.map(x) * torch.sigmoid(self.gate(y))


class Skip(nn.Module):
    def forward(self, x, y):
        return x + y


class Twice(nn.Module):
    def forward(self, x):
        return x, x


class Read(el.Stack):
    """A readout of its own, squared error."""

    outputs = OUTPUTS

    def __init__(self, parts, wires=None, inputs=INPUTS, read=6):
        super().__init__(parts, wires, inputs=inputs)
        self.C = nn.Linear(read, OUTPUTS)

    def cost(self, q, y):
        return F.mse_loss(self.C(q), y)

    def predict(self, q):
        return self.C(q)


def chain(layer):
    return Read({"low": layer(INPUTS, 5), "mix": Mix(5, 4), "high": layer(4, 6)})


def branched(layer):
    """The first layer feeds three parts, the input row a block and a layer; the parts are in no order."""
    parts = {"skip": Skip(), "top": layer(4, 6), "gate": Gate(5, 5, 4), "low": layer(INPUTS, 5), "middle": layer(4, 5),
             "first": Mix(5, 4), "bent": Mix(INPUTS, 4), "end": Gate(6, 5, 6)}
    wires = {"low": "u", "first": "low", "bent": "u", "middle": "bent", "gate": ("low", "middle"),
             "skip": ("first", "gate"), "top": "skip", "end": ("top", "low")}
    return Read(parts, wires)


def direct(layer):
    """Without any block, the middle layer under two others, one of which a square."""
    parts = {"low": layer(INPUTS, 4), "side": layer(4, 4), "high": layer(4, 4), "join": Gate(4, 4, 6)}
    return Read(parts, {"side": "low", "high": "low", "join": ("side", "high")})


NETS = {"chain": chain, "branched": branched, "direct": direct}


def net(shape, layer, seed=1):
    torch.manual_seed(seed)
    return NETS[shape](layer)


def data(cost_at="last", rows=ROWS):
    rng = np.random.default_rng(2)
    return rng.normal(size=(BATCH, rows, INPUTS)), rng.normal(size=(BATCH, OUTPUTS) if cost_at == "last" else
                                                               (BATCH, rows, OUTPUTS))


def cosines(found, expected):
    """The least of all parameters, and the largest error of their sizes."""
    assert found.keys() == expected.keys()
    pairs = [(found[name].ravel(), expected[name].ravel()) for name in expected]
    assert all(np.linalg.norm(b) > 1e-9 for _, b in pairs)
    ratios = [np.linalg.norm(a) / np.linalg.norm(b) for a, b in pairs]
    return min(a @ b / np.linalg.norm(a) / np.linalg.norm(b) for a, b in pairs), max(abs(r - 1) for r in ratios)


@pytest.mark.parametrize("cost_at", ["last", "every", "mean"])
@pytest.mark.parametrize("layer", [Linear, Heavy, Coupled])
@pytest.mark.parametrize("shape", NETS)
def test_the_echo_is_backpropagation_through_time(shape, layer, cost_at):
    model, (x, y) = net(shape, layer), data(cost_at)
    expected, outputs = bptt(model, x, y, DT, SUBSTEPS, cost_at)
    found, again = stack_echo(model, x, y, DT, SUBSTEPS, cost_at)
    np.testing.assert_array_equal(again, outputs)
    cosine, ratio = cosines(found, expected)
    assert cosine > 0.9999999 and ratio < 1e-5


@pytest.mark.parametrize("cost_at, shape", [("last", (BATCH,)), ("every", (BATCH, ROWS)), ("mean", (BATCH, ROWS))])
def test_masks_and_class_numbers(cost_at, shape):
    class Classes(Read):
        def cost(self, q, y):
            return F.cross_entropy(self.C(q), y)

    torch.manual_seed(1)
    model, (x, _) = Classes({"low": Coupled(INPUTS, 5), "mix": Mix(5, 4), "high": Coupled(4, 6)}), data(cost_at)
    rng = np.random.default_rng(0)
    y, mask = rng.integers(OUTPUTS, size=shape), rng.uniform(0.5, 1, shape)
    mask.flat[0] = 0
    expected, _ = bptt(model, x, y, DT, SUBSTEPS, cost_at, mask)
    cosine, _ = cosines(stack_echo(model, x, y, DT, SUBSTEPS, cost_at, mask=mask)[0], expected)
    assert cosine > 0.9999999
    none, _ = stack_echo(model, x, y, DT, SUBSTEPS, cost_at, mask=0 * mask)
    assert all(not g.any() for g in none.values())


def test_gradients_are_those_of_finite_differences():
    model, (x, y) = net("branched", Coupled).double(), data("every")
    found, _ = bptt(model, x, y, DT, SUBSTEPS, "every")

    def total():
        return ((stack_bptt(model, x, y, DT, SUBSTEPS, "every")[1] - y) ** 2).mean(axis=(0, 2)).sum()

    for name, index in {"low.m": 1, "middle.W": (0, 2), "gate.gate.weight": (1, 1), "C.weight": (1, 2)}.items():
        sides, value = [], dict(model.named_parameters())[name].data
        for sign in (1, -1):
            value[index] += sign * 1e-5
            sides.append(total())
            value[index] -= sign * 1e-5
        np.testing.assert_allclose((sides[0] - sides[1]) / 2e-5, found[name][index], rtol=1e-6, atol=1e-10)


def test_one_layer_is_the_model_without_a_stack():
    class Alone(Coupled):
        cost, predict = Read.cost, Read.predict

    torch.manual_seed(0)
    layer, (x, y) = Alone(INPUTS, 6), data()
    stack = Read({"only": layer})
    one, outputs = bptt(stack, x, y, DT, SUBSTEPS)
    layer.C = stack.C
    two, expected = bptt(layer, x, y, DT, SUBSTEPS)
    np.testing.assert_allclose(outputs, expected, rtol=1e-12)
    for name, gradient in two.items():
        np.testing.assert_allclose(one[name if name.startswith("C.") else f"only.{name}"], gradient, rtol=1e-10)


def test_a_tensor_of_two_parts_is_one_parameter():
    model, (x, y) = net("direct", Coupled), data()
    model.high.W = model.side.W  # of two layers
    model.join.gate = model.join.map
    expected, _ = bptt(model, x, y, DT, SUBSTEPS)
    assert "side.W" in expected and "high.W" not in expected
    cosine, _ = cosines(stack_echo(model, x, y, DT, SUBSTEPS)[0], expected)
    assert cosine > 0.9999999


def test_frozen_parameters_have_no_gradient():
    model, (x, y) = net("chain", Linear), data()
    model.low.requires_grad_(False)
    model.mix.map.bias.requires_grad_(False)
    names = {"mix.map.weight", "high.a", "high.B.weight", "high.B.bias", "C.weight", "C.bias"}
    assert set(bptt(model, x, y, DT, SUBSTEPS)[0]) == set(stack_echo(model, x, y, DT, SUBSTEPS)[0]) == names


def test_the_last_part_may_be_a_block_and_its_value_is_the_output():
    class Whole(el.Stack):
        outputs = OUTPUTS

        def cost(self, q, y):
            return F.mse_loss(q, y)

    torch.manual_seed(0)
    model, (x, y) = Whole({"low": Linear(INPUTS, 5), "read": nn.Linear(5, OUTPUTS)}, inputs=INPUTS), data("every")
    expected, outputs = bptt(model, x, y, DT, SUBSTEPS, "every")
    assert outputs.shape == (BATCH, ROWS, OUTPUTS)
    cosine, _ = cosines(stack_echo(model, x, y, DT, SUBSTEPS, "every")[0], expected)
    assert cosine > 0.9999999


def test_states_of_any_shape():
    class Grid(nn.Module):
        states, inputs = {"q": (2, 3)}, 6

        def __init__(self):
            super().__init__()
            self.W = nn.Parameter(torch.randn(2, 3))

        def energy(self, q, u):
            return 0.5 * (q**2).sum() - (torch.tanh(self.W * q).flatten() * u).sum()

    torch.manual_seed(0)
    model, (x, y) = Read({"map": nn.Linear(INPUTS, 6), "low": Grid(), "high": Grid(), "flat": nn.Flatten(0)}), data()
    assert value_shapes(model) == {"u": (3,), "map": (6,), "low": (2, 3), "high": (2, 3), "flat": (6,)}
    cosine, _ = cosines(stack_echo(model, x, y, DT, SUBSTEPS)[0], bptt(model, x, y, DT, SUBSTEPS)[0])
    assert cosine > 0.9999999


def test_a_large_nudge_is_exact_where_layers_are_linear():
    model, (x, y) = net("branched", Heavy), data("every")
    cosine, ratio = cosines(stack_echo(model, x, y, DT, SUBSTEPS, "every", nudge=4.0)[0],
                            bptt(model, x, y, DT, SUBSTEPS, "every")[0])
    assert cosine > 1 - 1e-12 and ratio < 1e-10


@pytest.mark.parametrize("kind", KINDS)
def test_the_echo_in_integers_returns_and_learns(kind):
    found = Case(Blocks(kind, 1), 8, "every").run(Bits())
    assert found.exact and not found.wrapped
    assert min(found.layer, found.block) > 0.9999
    assert -4 <= found.responses[0] and found.responses[1] <= -2


def test_exponents_change_nothing_while_layers_are_linear():
    model, (x, y) = net("branched", Coupled), data()
    one, _ = stack_echo(model, x, y, DT, SUBSTEPS)
    two, _ = stack_echo(model, x, y, DT, SUBSTEPS, nudge=1e-4 * np.array([1, 0.5, 2, 1]),
                        scale={"low": 3, "middle": -4, "top": 2})
    for name, gradient in one.items():
        np.testing.assert_allclose(two[name], gradient, rtol=1e-4, atol=1e-6 * np.abs(gradient).max())


@pytest.mark.parametrize("cost_at", ["last", "every"])
def test_with_its_exponents_all_layers_answer_alike(cost_at):
    """Seen by layers that are exactly linear: a second search with the nudge of the first finds nothing to add."""
    model, (x, y) = net("branched", Linear), data(cost_at)
    nudge = np.array([0.5, 1.0, 4.0, 2.0])
    found = response_exponents(model, x, y, DT, SUBSTEPS, cost_at, nudge)
    assert found.keys() == {"low", "middle", "top"} and len(set(found.values())) > 1
    again = response_exponents(model, x, y, DT, SUBSTEPS, cost_at, nudge * 2.0 ** found["top"])
    assert again == {name: e - found["top"] for name, e in found.items()}
    none = response_exponents(model, x, y, DT, SUBSTEPS, cost_at, mask=np.zeros(y.shape[:-1]))
    assert none == dict.fromkeys(found, 0)


def test_parts_order_values_and_names():
    model = branched(Linear)
    assert model.wires["first"] == ("low",) and model.output == "end" and model.layers == ("low", "middle", "top")
    for name, given in model.wires.items():
        assert all(s == "u" or model.order.index(s) < model.order.index(name) for s in given)
    names = [name for name, _ in model.named_parameters()]
    assert {n.partition(".")[0] for n in names} == {"low", "first", "bent", "middle", "gate", "top", "end", "C"}
    assert "low.a" in names and "gate.map.weight" in names
    q, u = {name: torch.randn(n) for name, n in (("low", 5), ("middle", 5), ("top", 6))}, torch.randn(INPUTS)
    values = model.values(q, u)
    assert values["u"] is u and values["low"] is q["low"]
    torch.testing.assert_close(values["skip"], model.first(q["low"]) + model.gate(q["low"], q["middle"]))
    assert torch.equal(model.fed("top", values), values["skip"])
    assert chain(Linear).wires == {"low": ("u",), "mix": ("low",), "high": ("mix",)}


def low():
    return Linear(INPUTS, 5)


REFUSED = {
    "a cycle": (
        lambda: Read({"low": Linear(5, 5), "mix": Mix(5, 5), "high": Linear(5, 6)}, {"low": "mix"}),
        "wires: layers must not feel the parts above them; wire one of these from elsewhere: low -> mix -> low form a "
        "cycle"),
    "an unknown source": (
        lambda: Read({"low": low(), "mix": Mix(5, 6)}, {"mix": ("low", "lo")}),
        "wires: mix must come from low, mix or u, not 'lo'"),
    "an unknown part": (lambda: Read({"low": low()}, {"lo": "u"}), "wires: keys must be parts, low, not 'lo'"),
    "no source": (
        lambda: Read({"low": low(), "mix": Mix(5, 6)}, {"mix": ()}), "wires: mix must have a source, not ()"),
    "two sources of a layer": (
        lambda: Read({"low": low(), "high": Linear(8, 6)}, {"high": ("low", "u")}),
        "wires: layer high must have one source; join several in a block, not ('low', 'u')"),
    "an unused part": (
        lambda: Read({"low": low(), "side": low(), "high": Linear(5, 6)}, {"side": "u", "high": "low"}),
        "wires: every part but the last must be the source of another; wire it or leave it out, not side"),
    "no layer": (
        lambda: Read({"mix": Mix(INPUTS, 5), "more": Mix(5, 6)}),
        "parts: one at least must be a layer, with energy(self, q, u), not only blocks: mix, more"),
    "no part": (
        lambda: Read({}), "parts: one at least must be a layer, with energy(self, q, u), not only blocks: "),
    "two states": (
        lambda: Read({"low": changed(low(), states={"q": 2, "r": 3})}),
        'parts: layer low must declare one state, as states = {"q": 32} does; make several layers of several, not '
        "{'q': 2, 'r': 3}"),
    "no states": (
        lambda: Read({"low": changed(low(), states=None)}),
        'parts: layer low must declare one state, as states = {"q": 32} does; make several layers of several, not '
        "None"),
    "no inputs of a layer": (
        lambda: Read({"low": changed(low(), inputs=0)}),
        "parts: layer low must declare inputs, a whole number from 1 on, not 0"),
    "no inputs": (lambda: Read({"low": low()}, inputs=0), "inputs must be a whole number from 1 on, not 0"),
    "the name u": (
        lambda: Read({"u": low()}), 'parts: names must be identifiers other than "u", the input row, not \'u\''),
    "a dot": (
        lambda: Read({"a.b": low()}), 'parts: names must be identifiers other than "u", the input row, not \'a.b\''),
    "a colon": (
        lambda: Read({"a:b": low()}), 'parts: names must be identifiers other than "u", the input row, not \'a:b\''),
    "a taken name": (
        lambda: Read({"cost": low()}), "parts: names must not be attributes of Read, not 'cost'"),
    "a function": (
        lambda: Read({"low": low(), "mix": torch.tanh}),
        "parts: mix must be a torch.nn.Module, not builtin_function_or_method"),
    "parts in a list": (
        lambda: Read([]), 'parts must map names to modules, e.g. {"layer": Layer()}, not list'),
    "no parts": (lambda: Read(None), 'parts must map names to modules, e.g. {"layer": Layer()}, not NoneType'),
    "no wires": (
        lambda: Read({"low": low()}, 3), 'wires must map parts to their sources, e.g. {"layer": "u"}, not int'),
    "a source of nothing": (
        lambda: Read({"low": low()}, {"low": None}),
        "wires: low must have the name of a source or a tuple of names, not NoneType"),
    "a part's name again": (
        lambda: Read({"C": low()}),
        "Read: C is a part, which keeps its name; give the new attribute another, not 'C'"),
    "an argument's name": (
        lambda: Read({"z0": low()}),
        "parts: layers must not have the names of formats, blocks or arguments; rename it, e.g. to z0_, not 'z0'"),
    "a format's name": (
        lambda: Read({"hidden": low()}),
        "parts: layers must not have the names of formats, blocks or arguments; rename it, e.g. to hidden_, not "
        "'hidden'"),
    "boundary conditions": (
        lambda: el.boundary_gradient(chain(Linear), *data(), DT, boundary="both"),
        "boundary conditions are built for a model with one energy(self, q, u); take one layer, not the stack Read"),
    "another size": (
        lambda: value_shapes(Read({"low": low(), "high": Linear(4, 6)})),
        "wires: layer high must be fed as many values as it has inputs, 4, not the 5 of low"),
    "another size of the input row": (
        lambda: value_shapes(Read({"low": low()}, inputs=2)),
        "wires: layer low must be fed as many values as it has inputs, 3, not the 2 of u"),
    "a block of another size": (
        lambda: value_shapes(Read({"low": low(), "mix": Mix(4, 6)})),
        "parts: block mix must be a function of one sample's low of shape (5,), without a batch axis, not "
        "RuntimeError: mat1 and mat2 shapes cannot be multiplied (1x5 and 4x6)"),
    "several values": (
        lambda: value_shapes(Read({"low": low(), "mix": Twice()})),
        "parts: block mix must return one tensor of real numbers, not tuple"),
    "no outputs": (
        lambda: stack_bptt(changed(chain(Linear), outputs=None), *data(), DT, SUBSTEPS),
        "Read must declare outputs, the width of y, a whole number from 1 on, not None"),
    "no cost": (
        lambda: stack_echo(changed(chain(Linear), cost=None), *data(), DT, SUBSTEPS),
        "Read must define cost(self, q, y) to have a gradient, not Read without it"),
    "cost_at": (
        lambda: bptt(chain(Linear), *data(), DT, SUBSTEPS, "first"),
        'cost_at must be "last", "every" or "mean", not \'first\''),
    "inputs of another width": (
        lambda: bptt(chain(Linear), np.zeros((2, 4, 5)), data()[1], DT, SUBSTEPS),
        "X must be (batch, time, 3), not (2, 4, 5)"),
    "wires of a stack that is made": (
        lambda: changed(chain(Linear), wires={"low": "u"}),
        "Read: parts and wires are what the stack was made with; make another one, do not set 'wires'"),
    "scale of a block": (
        lambda: stack_echo(chain(Linear), *data(), DT, SUBSTEPS, scale={"mix": 1}),
        "scale must name layers, low, high, not 'mix'"),
}


def changed(module, **attributes):
    for name, value in attributes.items():
        setattr(module, name, value)
    return module


@pytest.mark.parametrize("what", REFUSED)
def test_refusals(what):
    act, message = REFUSED[what]
    with pytest.raises(el.CompileError) as raised:
        act()
    assert str(raised.value) == message


@pytest.mark.parametrize("block, why", [(nn.Dropout(), "randomness"), (nn.BatchNorm1d(6), "expected 2D or 3D input")])
def test_blocks_that_are_no_functions_of_a_sample_are_refused(block, why):
    with pytest.raises(el.CompileError, match=rf"^parts: block odd must be a function of one sample's mix of shape "
                                              rf"\(6,\), without a batch axis, not \w+: .*{why}"):
        value_shapes(Read({"low": low(), "mix": Mix(5, 6), "odd": block}))


class Remembers(nn.Module):
    def __init__(self):
        super().__init__()
        self.F = nn.Linear(5, 4)
        self.register_buffer("h", torch.zeros(4))

    def forward(self, x):
        y = torch.tanh(self.F(x) + self.h)
        self.h = 0.5 * self.h + y
        return y


def test_a_block_that_remembers_earlier_steps_is_refused():
    stack = Read({"low": Linear(INPUTS, 5), "mix": Remembers(), "high": Linear(4, 6)})
    with pytest.raises(el.CompileError) as error:
        value_shapes(stack)
    assert str(error.value) == ("parts: block mix must be a function of what it is given, not of earlier steps: make "
                                "what it remembers the state of a layer, not 'h'")
