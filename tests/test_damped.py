"""Momenta that decay, on the chip: a leapfrog in coordinates that grow as they decay."""

import numpy as np
import pytest
import torch
from energies import Blocks, Deep, Hopfield, Inputs
from torch import nn

import echolith as el
from echolith.bench.dissipation import main
from echolith.compiler.boundaries import boundary_reference
from echolith.compiler.damped import damped
from echolith.compiler.damping import Damping
from echolith.compiler.motion import motion
from echolith.compiler.reference import bptt
from echolith.host.precision import precision_report


class Net(nn.Module):
    """Stiff units of two axes, coupled through log-cosh rows."""

    states, inputs, outputs = {"q": (2, 3)}, 3, 2

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.W, self.B, self.C = nn.Linear(6, 5, bias=False), nn.Linear(3, 5), nn.Linear(6, 2)
        self.k = nn.Parameter(torch.rand(2, 3) + 0.5)

    def energy(self, q, u):
        return 0.5 * (self.k * q**2).sum() + torch.log(torch.cosh(self.W(q.flatten()) + self.B(u))).sum()

    def predict(self, q):
        return self.C(torch.tanh(q).flatten())

    def cost(self, q, y):
        return 0.5 * ((self.predict(q) - y) ** 2).sum()


def data(rows=8, samples=16):
    draws = np.random.default_rng(0)
    return draws.integers(0, 9, (samples, rows, 3)) / 8, draws.normal(size=(samples, 2)) / 4 + 0.5


def compiled(rate=0.5, dt=0.25, substeps=2, model=Net, **options):
    x, y = data()
    return el.compile(model(), dynamics=el.Leapfrog(dt, substeps), rule=el.LagrangianEcho(dissipation=rate),
                      calibrate=(x, y), lanes=4, **options)


def flat(gradient, names):
    return np.concatenate([np.ravel(gradient[name]) for name in names])


@pytest.mark.parametrize("model", [Net, Blocks, Deep, Hopfield, Inputs])
@pytest.mark.parametrize("rate, substeps", [(0.3, 1), (1.1, 3)])
def test_the_same_motion_in_other_coordinates(model, rate, substeps):
    x, y = data()
    net, dynamics, given, _ = damped(model(), el.Leapfrog(0.2, substeps), el.LagrangianEcho(dissipation=rate), (x, y))
    found, outputs = bptt(net, *given, dynamics.dt, dynamics.substeps)
    expected = boundary_reference(model(), x, y, 0.2, substeps, boundary="final", dissipation=rate)
    assert found.keys() == expected.keys()
    np.testing.assert_allclose(flat(found, expected), flat(expected, expected), rtol=1e-10, atol=1e-12)
    given = motion(model(), x, y, 0.2, substeps, "last", rate)
    with torch.no_grad():
        last = given.run(*given.rest).q[-1]
        direct = torch.func.vmap(lambda q: given._method("predict", q))(last)
    np.testing.assert_allclose(outputs, direct, rtol=1e-10)


def test_factors_by_hand():
    found = Damping(2 * np.log(2), 3, 1).inputs(np.full((1, 3, 1), 7.0))
    np.testing.assert_allclose(found, [[[7 / 4, 1 / 4, 1], [7 / 2, 1 / 2, 1 / 2], [7, 1, 1 / 4]]])  # e = 4, 2, 1, of 4
    twice = Damping(0.1, 4, 2).inputs(np.array([[[1.0], [2.0]]]))
    np.testing.assert_allclose(twice[0, :, 0] / twice[0, :, 1], [1, 1, 2, 2])


@pytest.mark.parametrize("rate", [0.1, 0.5, 1.5])
def test_the_chip_returns_exactly_and_learns_the_gradient_of_the_damped_run(rate, tmp_path):
    (x, y), design = data(), compiled(rate)
    design.save(tmp_path / "damped.echolith")
    design = el.load(tmp_path / "damped.echolith")
    expected = boundary_reference(Net(), x, y, 0.25, 2, boundary="final", dissipation=rate)
    with design.open("int:") as chip:
        echo = chip.echo(x)
        assert echo.exact and echo.steps == 16
        found = chip.gradient(x, y)
        losses = chip.fit(x, y, epochs=4, batch_size=8).loss
    a, b = flat(found, expected), flat(expected, expected)
    assert a @ b / np.linalg.norm(a) / np.linalg.norm(b) > 0.9999
    np.testing.assert_allclose(np.linalg.norm(a), np.linalg.norm(b), rtol=0.01)
    assert losses[-1] < 0.8 * losses[0]


def test_the_rtl_equals_the_integer_model():
    x, y = data()
    assert compiled().verify(x[:2], y[:2])


def test_factors_have_no_room_to_grow():
    """Nothing learns between them and the inputs, whose format bounds them; sums that learn have room."""
    design = compiled()
    assert design.fractions["input"] == 14 and design.hardware.input_bits == 16  # from -2 to 2
    factors = [name for name in design.fractions if name.startswith(("z0", "z1"))]
    assert len(factors) > 3 and {design.fractions[name] for name in factors} == {16}


def test_figures_of_precision_are_those_of_the_damped_run():
    x, y = data()
    found = precision_report(compiled(), x, y)
    assert found.cosine > 0.9999 and found.loss < 0.1


def test_explain_tells_what_was_added():
    text = compiled().explain()
    assert "6 units, 3 inputs and 2 factors, 2 outputs" in text
    assert ("dissipation               momenta decay by exp(-0.125) a step: positions are the states times 4 and the "
            "second factor, inputs those given times the first") in text


class Heavy(Net):
    def kinetic(self, p):
        return (p**2).sum()


REFUSED = {
    "rate": (lambda: el.LagrangianEcho(dissipation=-0.5), "dissipation must be a number from 0 on, not -0.5"),
    "costs": (lambda: el.LagrangianEcho("every", dissipation=0.5),
              'dissipation needs cost_at="last" on a chip: its states are positions over a factor that is 1 at the '
              "last row alone, and costs see no factor; boundary_gradient(...) computes others in float64, "
              "not 'every'"),
    "masses": (lambda: compiled(model=Heavy),
               "dissipation needs the kinetic energy p**2 / 2 on a chip: leave kinetic out, and scale the state's "
               "energy instead, not kinetic of its own"),
    "long": (lambda: compiled(4.0),
             "dissipation * dt * steps must be at most 6: what decays stays in the words of the states, 10.8 bits of "
             "each; make dissipation smaller or samples shorter, not 15"),
    "no data": (lambda: el.compile(Net(), dynamics=el.Leapfrog(1), rule=el.LagrangianEcho(dissipation=1), steps=3),
                "dissipation needs calibrate=(X, Y), whose rows tell for how long momenta decay, not None"),
    "stack": (lambda: el.compile(el.Stack({"low": Net()}, inputs=3), dynamics=el.Leapfrog(0.25), calibrate=data(),
                                 rule=el.LagrangianEcho(dissipation=1)),
              "dissipation takes single networks: compile stacks with dissipation=0, not 1"),
    "shape": (lambda: el.compile(Net(), dynamics=el.Leapfrog(0.25), calibrate=(data()[0][0], data()[1]),
                                 rule=el.LagrangianEcho(dissipation=1)),
              "X must have shape (batch, steps, inputs) = (any, any, 3); write X[:, None] for samples of one row, "
              "X[None] for one sample, not (8, 3)"),
}


def test_much_decay_warns():
    with pytest.warns(UserWarning) as found:
        compiled(1.2)
    assert str(found[0].message) == (
        "dissipation * dt * steps is 4.5: what decays stays in the words of the states, 3.2 bits of each. Once "
        "trained, parameters with a small share of the gradient may lose theirs beyond 4; look at "
        "design.precision_report(X, Y, values=chip.state_dict())")


@pytest.mark.parametrize("name", REFUSED)
def test_refusals(name):
    call, text = REFUSED[name]
    with pytest.raises(el.CompileError) as found:
        call()
    assert str(found.value) == text


def test_a_session_takes_the_models_own_inputs():
    design = compiled()
    with design.open("int:") as chip, pytest.raises(el.RangeError) as found:
        chip.predict(np.zeros((1, 16, 5)))
    assert str(found.value) == "X must have shape (batch, steps, inputs) = (any, 8, 3) for this design, not (1, 16, 5)"


def test_the_bench_counts_bits_and_tells_what_is_refused(capsys):
    main((2.0, 7.0), (4,))
    lines = capsys.readouterr().out.splitlines()
    found = lines[1].split()
    assert found[:2] == ["2", "1.4"] and float(found[2]) > 0.999 and found[-1] == "exact"
    assert lines[2].split() == ["7", "5.0", "refused"]
