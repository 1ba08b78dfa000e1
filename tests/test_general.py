"""Energies of any shape: gradients against float64 autograd, and every bit and cycle of the RTL against the model."""


import numpy as np
import pytest
import torch
from energies import BUILT, INPUTS, MODELS, OUTPUTS, STEPS, Blocks, Deep, Local, Pieces, Tied
from networks import Oscillators
from test_machine import compare, data
from torch import nn

import echolith as el
from echolith.compiler.reference import bptt


def case(model, cost_at):
    net = model().double()
    x, y = data(np.random.default_rng(0), 32, STEPS, INPUTS, OUTPUTS, cost_at)
    design = el.compile(net, dynamics=el.Leapfrog(0.25, 2), rule=el.HamiltonianEcho(cost_at), calibrate=(x, y), lanes=3)
    return net, design, x, y


def cosine(a, b):
    return float(np.sum(a * b) / np.sqrt(np.sum(a * a) * np.sum(b * b)))


@pytest.mark.parametrize("cost_at", ["last", "every"])
@pytest.mark.parametrize("model", MODELS)
def test_gradient_agrees_with_autograd_and_learning_learns(model, cost_at):
    net, design, x, y = case(model, cost_at)
    with design.open("int:") as chip:
        found, state = chip.gradient(x, y), chip.state_dict()
        with torch.no_grad():
            for name, parameter in net.named_parameters():
                parameter.copy_(torch.from_numpy(state[name]))
        expected = {name: np.asarray(g) for name, g in bptt(net, x, y, 0.25, 2, cost_at)[0].items()}
        a, b = (np.concatenate([g[name].ravel() for name in found]) for g in (found, expected))
        assert cosine(a, b) >= (0.9999 if cost_at == "last" else 0.9998)
        heavy = [n for n in found if found[n].size > 1 and np.linalg.norm(expected[n]) >= 0.01 * np.linalg.norm(b)]
        for name in heavy:
            assert cosine(found[name], expected[name]) >= 0.999, name
        np.testing.assert_allclose(np.linalg.norm(a), np.linalg.norm(b), rtol=0.01)
        before = np.mean((chip.predict(x).reshape(y.shape) - y) ** 2)
        chip.fit(x, y, epochs=4, batch_size=8, learning_rate=0.02, momentum=0.5)
        assert np.mean((chip.predict(x).reshape(y.shape) - y) ** 2) < before


def built():
    """All models; those beyond `BUILT` with the slow tests, since each needs a simulator of its own."""
    for i, model in enumerate(MODELS):
        yield pytest.param(model, "every" if i % 2 else "last", marks=[] if model in BUILT else [pytest.mark.slow])


@pytest.mark.parametrize("model, cost_at", list(built()))
def test_rtl_equals_the_integer_model(simulate, model, cost_at):
    _, design, _, _ = case(model, cost_at)
    compare(design, simulate(design), 3, cost_at, 0.9)


def test_the_mean_over_the_rows_is_their_sum_scaled():
    net, design, x, y = case(Blocks, "every")
    mean = el.compile(net, dynamics=el.Leapfrog(0.25, 2), rule=el.HamiltonianEcho("mean"), calibrate=(x, y), lanes=3)
    assert (mean.hardware, mean.program) == (design.hardware, design.program)
    with design.open("int:") as a, mean.open("int:") as b:
        every, found, expected = a.gradient(x, y), b.gradient(x, y), bptt(net, x, y, 0.25, 2, "mean")[0]
        for name, gradient in found.items():
            np.testing.assert_allclose(gradient, every[name] / STEPS, rtol=1e-12)
            assert cosine(gradient, np.asarray(expected[name])) >= 0.999, name
        losses = [s.fit(x, y, epochs=1, batch_size=32, learning_rate=0.0).loss[0] for s in (a, b)]
        assert losses[1] == pytest.approx(losses[0] / STEPS)


@pytest.mark.parametrize("model", [Deep, Tied])
def test_an_inference_core_predicts_as_the_learning_one_does(model):
    net, design, x, _ = case(model, "last")
    fixed = el.compile(net, dynamics=el.Leapfrog(0.25, 2), rule=None, calibrate=(x, None), lanes=3)
    with design.open("int:") as a, fixed.open("int:") as b:
        np.testing.assert_allclose(a.predict(x), b.predict(x), atol=0.01)


def test_matrices_of_pieces_of_the_inputs_are_one_drive():
    """Swept once a row of inputs, as a matrix of all of them is, and not at every step."""
    design = case(Pieces, "last")[1]
    assert [(b.name, b.rows, b.columns) for b in design.blocks] == [
        ("hidden", 5, 6), ("drive", 5, 3), ("drive1", 6, 3), ("readout", 2, 6)]
    assert "  drive weights             Q3.14   within +-8 swept, 18 more bits kept   (B, D)\n" in design.explain()


@pytest.mark.parametrize("model", MODELS)
def test_a_design_fits_its_own_hardware_and_its_file(model, tmp_path):
    net, design, x, y = case(model, "last")
    again = el.compile(net, dynamics=el.Leapfrog(0.25, 2), rule=el.HamiltonianEcho("last"), calibrate=(x, y),
                       like=design)
    assert again.hardware == design.hardware
    design.save(tmp_path / "net.echolith")
    assert el.open(tmp_path / "net.echolith", "int:").design.program_id == design.program_id


def test_a_state_named_as_a_format_is_refused():
    class Named(Local):
        states = {"hidden": 5}

    with pytest.raises(el.CompileError, match="^states: a name of a format or a block cannot be a state's; rename it, "
                                              "e.g. to hidden_, not 'hidden'$"):
        case(Named, "last")


@pytest.mark.parametrize("model", [Blocks, Tied, Deep])
def test_precision_can_be_read_edited_and_given_back(model):
    net, design, x, y = case(model, "last")
    how = {"dynamics": el.Leapfrog(0.25, 2), "rule": el.HamiltonianEcho("last"), "calibrate": (x, y), "lanes": 3}
    assert el.compile(net, precision=design.precision, **how).hardware == design.hardware
    state = el.compile(net, precision={**design.precision, "state": "Q6.11"}, **how)
    assert state.fractions["state"] == 11 and state.precision["state"] == "Q6.11"


class Pushed(nn.Module):
    """Inputs push some of the units, and nothing else couples them."""

    def __init__(self):
        super().__init__()
        self.states, self.inputs, self.outputs = {"q": 4}, 3, 4
        self.k, self.B = nn.Parameter(torch.rand(4) + 0.5), nn.Linear(3, 2, bias=False)

    def energy(self, q, u):
        return 0.5 * (self.k * q * q).sum() - (q[:2] * self.B(u)).sum()

    def cost(self, q, y):
        return 0.5 * ((q - y) ** 2).sum()

    def predict(self, q):
        return q


@pytest.mark.parametrize("rule", [None, el.HamiltonianEcho()])
def test_inputs_that_are_no_drive_of_a_coupling(rule):
    torch.manual_seed(0)
    x, y = np.random.default_rng(0).uniform(-1, 1, (4, 3, 3)), np.zeros((4, 4))
    design = el.compile(Pushed(), dynamics=el.Leapfrog(0.25), rule=rule, lanes=2, calibrate=(x, y))
    assert design.verify(x, y)


@pytest.mark.parametrize("rule", [None, el.HamiltonianEcho()])
def test_they_do_not_fit_a_core_built_for_a_coupling_with_a_drive(rule):
    torch.manual_seed(0)
    x, y = np.random.default_rng(0).uniform(-1, 1, (4, 3, 3)), np.zeros((4, 4))
    how = {"dynamics": el.Leapfrog(0.25), "rule": rule, "lanes": 2, "calibrate": (x, y)}
    given = el.compile(Oscillators(4, 4, 3, 4, mse=True), **how)
    with pytest.raises(el.DesignMismatch) as error:
        el.compile(Pushed(), **how, like=given)
    assert str(error.value) == ("the network does not fit this hardware: its energy must have the form of that one's, "
                                "whose formats know no z1_u")
