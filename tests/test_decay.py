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


@pytest.mark.parametrize("momentum, times", [(0.0, 10), (0.5, 10)])
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


@pytest.mark.parametrize("momentum, weight_decay", [
    (0.0, 0.5), (0.5, 1e-4), (0.5, 0.5), (0.9, 1e-4), (0.9, 0.02), (0.99, 1e-4)])
def test_words_that_hold_no_decay_move_parameters_as_sgd_does(momentum, weight_decay):
    """In float, with a learning rate that falls: what the rates do is exactly what torch's optimiser does."""
    shrinking = Shrinking(small(rule=RULES[0])[0], weight_decay)
    theirs = torch.ones((), dtype=torch.float64, requires_grad=True)
    optimiser = torch.optim.SGD([theirs], lr=1.0, momentum=momentum, weight_decay=weight_decay)
    parameter, word = 1.0, 0.0
    for step, g in enumerate(np.random.default_rng(0).normal(size=100)):
        rate = 0.1 * (1 - step / 100)
        optimiser.param_groups[0]["lr"] = rate
        theirs.grad = torch.as_tensor(g)
        optimiser.step()
        shares = shrinking.rates(rate, momentum).values()
        share, = {mantissa * 2.0 ** -rate_shift(coarse) / 2**18 for mantissa, coarse in shares}
        word += g
        parameter = (1 + share) * parameter - rate * word
        word *= momentum * shrinking.growth
    assert parameter == pytest.approx(theirs.item(), rel=1e-3)


def test_a_decay_by_which_parameters_would_swing_stays_bounded():
    shrinking = Shrinking(small(rule=RULES[0])[0], 0.5)
    for _ in range(100):
        shares = shrinking.rates(0.1, 0.9).values()
    share, = {mantissa * 2.0 ** -rate_shift(coarse) / 2**18 for mantissa, coarse in shares}
    assert -share == pytest.approx(0.9**0.5 - 0.9 + 0.05, rel=1e-3) and shrinking.growth == pytest.approx(0.9**-0.5)


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
