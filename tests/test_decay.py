"""Weight decay on the chip: weights are added to their gradients, under every rule alike."""

import numpy as np
import pytest
import torch
from test_backpropagation import DYNAMICS, small

import echolith as el
from echolith.compiler.reference import bptt
from echolith.host.rates import Shrinking
from echolith.host.session import Session
from echolith.sim.device import IntegerDevice
from echolith.sim.twin import Twin

RULES = [el.HamiltonianEcho(weight_decay=True), el.EchoBackpropagation(weight_decay=True)]
SETTINGS = {"learning_rate": 0.1, "momentum": 0.5, "weight_decay": 0.05}
ARRAY = ("W.weight", "B.weight", "B.bias", "C.weight", "C.bias")  # the neuron unit's stiffness keeps its size


def expected(design, x, y, updates):
    """torch.optim.SGD on float64 gradients of the whole batch, from the same weights."""
    from networks import Oscillators

    net = Oscillators(9, 7, 3, 2).double()
    net.load_state_dict({name: torch.as_tensor(v) for name, v in design.values.items() if name in net.state_dict()})
    inside = [p for name, p in net.named_parameters() if name in ARRAY]
    others = [p for name, p in net.named_parameters() if name not in ARRAY]
    optimiser = torch.optim.SGD([{"params": inside, "weight_decay": SETTINGS["weight_decay"]}, {"params": others}],
                                lr=SETTINGS["learning_rate"], momentum=SETTINGS["momentum"])
    for _ in range(updates):
        gradient = bptt(net, x, y, DYNAMICS.dt, DYNAMICS.substeps)[0]
        for name, p in net.named_parameters():
            p.grad = torch.from_numpy(gradient[name])
        optimiser.step()
    return {name: v.detach().numpy() for name, v in net.state_dict().items()}


@pytest.mark.parametrize("rule", RULES)
def test_it_is_that_of_sgd(rule):
    design, x, y = small(rule=rule)
    wanted, plain = expected(design, x, y, 8), {}
    with design.open("int:") as chip:
        chip.fit(x, y, epochs=8, batch_size=len(x), **SETTINGS)
        found = chip.state_dict()
    with design.open("int:") as chip:
        chip.fit(x, y, epochs=8, batch_size=len(x), **SETTINGS | {"weight_decay": 0.0})
        plain = chip.state_dict()
    for name, value in wanted.items():
        np.testing.assert_allclose(found[name], value, atol=2e-3)
        if name in ARRAY:
            assert np.abs(plain[name] - value).max() > 10 * np.abs(found[name] - value).max()


@pytest.mark.parametrize("rule", RULES)
def test_rtl_equals_the_integer_model(rule):
    design, x, y = small(rule=rule)
    with design.open("sim:") as chip:
        twin = Twin(IntegerDevice(design), chip.device)
        twin.write(chip.device.read())
        twin.clear()
        Session(design, twin).fit(x[:5], y[:5], batch_size=3, epochs=2, **SETTINGS)
    assert twin.words and twin.predicted_cycles == twin.measured_cycles


def test_small_rates_hold_on_average():
    design = small(rule=RULES[0])[0]
    shrinking = Shrinking(design, 1e-5)
    found = [shrinking.mantissas(4, 0) for _ in range(4000)]
    assert {} in found
    for p in design.placements:
        unit = p.gradient_scale * p.scale * 2.0 ** (p.fraction - design.hardware.width)
        total = sum(f.get(p.key, 0) for f in found)
        assert total == pytest.approx(4000 * 1e-5 * 4 / unit, abs=1)


REFUSED = {
    "negative": (dict(weight_decay=-1.0), dict(rule=RULES[0]),
                 "weight_decay must be a finite number, not negative, not -1.0"),
    "hardware": (dict(weight_decay=0.1), {},
                 "this hardware cannot add weights to their gradients: compile with a rule that has weight_decay=True "
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
    with design.open("int:") as chip, pytest.raises(el.RangeError, match="weight_decay is too large for the"):
        chip.fit(x, y, weight_decay=1e6)
