"""Weight decay on the chip: parameters shrink in every update, under every rule alike."""

import numpy as np
import pytest
import torch
from networks import Oscillators
from test_backpropagation import DYNAMICS, small
from test_machine import data

import echolith as el
from echolith.compiler.reference import bptt
from echolith.host.rates import Shrinking
from echolith.host.session import Session
from echolith.sim.arith import rate_shift
from echolith.sim.device import IntegerDevice
from echolith.sim.twin import Twin

RULES = [el.HamiltonianEcho(weight_decay=True), el.EchoBackpropagation(weight_decay=True)]
SETTINGS = {"learning_rate": 0.1, "momentum": 0.5, "weight_decay": 0.05}


def expected(design, x, y, updates, settings):
    """torch.optim.SGD on float64 gradients of the whole batch, from the same weights."""
    net = Oscillators(9, 7, 3, 2).double()
    net.load_state_dict({name: torch.as_tensor(v) for name, v in design.values.items() if name in net.state_dict()})
    optimiser = torch.optim.SGD(net.parameters(), lr=settings["learning_rate"], momentum=settings["momentum"],
                                weight_decay=settings["weight_decay"])
    for _ in range(updates):
        gradient = bptt(net, x, y, DYNAMICS.dt, DYNAMICS.substeps)[0]
        for name, p in net.named_parameters():
            p.grad = torch.from_numpy(gradient[name])
        optimiser.step()
    return {name: v.detach().numpy() for name, v in net.state_dict().items()}


@pytest.mark.parametrize("momentum, times", [(0.0, 10), (0.5, 4)])
@pytest.mark.parametrize("rule", RULES)
def test_it_is_that_of_sgd(rule, momentum, times):
    design, x, y = small(rule=rule)
    settings = SETTINGS | {"momentum": momentum}
    wanted = expected(design, x, y, 8, settings)
    with design.open("int:") as chip:
        chip.fit(x, y, epochs=8, batch_size=len(x), **settings)
        found = chip.state_dict()
    with design.open("int:") as chip:
        chip.fit(x, y, epochs=8, batch_size=len(x), **settings | {"weight_decay": 0.0})
        plain = chip.state_dict()
    for name, value in wanted.items():
        np.testing.assert_allclose(found[name], value, atol=2e-3)
        assert np.abs(plain[name] - value).max() > times * np.abs(found[name] - value).max()


@pytest.mark.parametrize("rule", RULES)
def test_rtl_equals_the_integer_model(rule):
    design, x, y = small(rule=rule)
    with design.open("sim:") as chip:
        twin = Twin(IntegerDevice(design), chip.device)
        twin.write(chip.device.read())
        twin.clear()
        Session(design, twin).fit(x[:5], y[:5], batch_size=3, epochs=2, **SETTINGS)
    assert twin.words and twin.predicted_cycles == twin.measured_cycles


def test_rates_are_those_of_a_parameter_that_stays():
    design = small(rule=RULES[0])[0]
    shrinking, width, gathered = Shrinking(design, 1e-6), design.hardware.width, 0.0
    for step in range(5):
        gathered = 0.9 * gathered + 1e-6
        found = shrinking.rates(0.1 / (step + 1), 0.9)
        assert found.keys() == {name for name in design.rates if name.startswith("shrink:")}
        for mantissa, coarse in found.values():
            assert mantissa * 2.0 ** -rate_shift(coarse) / 2**width == pytest.approx(
                -0.1 / (step + 1) * gathered, rel=1e-3)


def test_frozen_parameters_keep_their_size():
    torch.manual_seed(0)
    x, y = data(np.random.default_rng(0), 24, 6, 3, 2, "last")
    net = Oscillators(9, 7, 3, 2)
    frozen = {name for name, p in net.named_parameters() if name in ("B.weight", "C.bias")}
    for name in frozen:
        net.get_parameter(name).requires_grad_(False)
    design = el.compile(net, dynamics=DYNAMICS, rule=RULES[0], calibrate=(x, y), lanes=4)
    with design.open("int:") as chip:
        before = chip.state_dict()
        chip.fit(x, y, learning_rate=0.1, weight_decay=0.1)
        for name, value in chip.state_dict().items():
            assert np.array_equal(value, before[name]) == (name in frozen)


def test_nothing_shrinks_without_it():
    assert set(Shrinking(small(rule=RULES[0])[0], 0.0).rates(0.1, 0.9).values()) == {(0, 3)}
    assert Shrinking(small()[0], 0.0).rates(0.1, 0.9) == {}


REFUSED = {
    "negative": (dict(weight_decay=-1.0), dict(rule=RULES[0]),
                 "weight_decay must be a finite number, not negative, not -1.0"),
    "hardware": (dict(weight_decay=0.1), {},
                 "this hardware cannot shrink weights: compile with a rule that has weight_decay=True "
                 "(--decays), or leave it at 0, not 0.1"),
    "board": ({}, dict(board="icebreaker", lanes=2, rule=RULES[0]),
              "weight_decay needs a board with room for overlapping sweeps; compile for ulx3s-85f, or with "
              "weight_decay=False, not for icebreaker"),
    "packed": ({}, dict(precision="packed", units=8, rule=RULES[0]),
               "precision: packed products have no weight decay; leave product out, or weight_decay=False, not 4 x 11 "
               "bits"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refusals(name):
    settings, changed, text = REFUSED[name]
    with pytest.raises(el.EcholithError) as error:
        design, x, y = small(**changed)
        with design.open("int:") as chip:
            chip.fit(x, y, **settings)
    assert str(error.value) == text


def test_far_too_much_of_it_is_refused():
    design, x, y = small(rule=RULES[0])
    with design.open("int:") as chip, pytest.raises(el.RangeError) as error:
        chip.fit(x, y, learning_rate=0.1, weight_decay=1e6)
    assert str(error.value) == ("weight_decay is too large: an update would take 1e+05 times a parameter from itself, "
                                "and parameters grow from 2 on; make it or the learning rate smaller, not 1e+06")
