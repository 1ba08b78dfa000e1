"""What all rules have in common: one optimiser on the chip, and one bitstream for several of them."""

import functools

import numpy as np
import pytest
import torch
from networks import Oscillators
from test_machine import data

import echolith as el
from echolith.compiler.boundaries import boundary_reference
from echolith.compiler.reference import bptt
from echolith.examples.stack import Layer
from echolith.host.chip import ChipDevice
from echolith.host.rates import SCHEDULES, batched
from echolith.host.session import Session
from echolith.sim.device import IntegerDevice
from echolith.sim.twin import Twin

DYNAMICS, RATE, SAMPLES = el.Leapfrog(0.25, 2), 0.3, 24


class Chain(el.Stack):
    """Two layers and what is between them."""

    outputs = 2

    def __init__(self):
        super().__init__({"low": Layer(3, 5), "map": torch.nn.Linear(5, 4), "tanh": torch.nn.Tanh(),
                          "high": Layer(4, 5), "out": torch.nn.Linear(5, 2)}, inputs=3)

    def cost(self, q, y):
        return 0.5 * ((q - y) ** 2).sum()


def single():
    return Oscillators(9, 7, 3, 2)


ECHO = functools.partial(el.HamiltonianEcho, weight_decay=True)
RULES = {
    "last": (single, ECHO()),
    "every": (single, ECHO("every")),
    "mean": (single, ECHO("mean")),
    "Lagrangian": (single, el.LagrangianEcho("mean", weight_decay=True)),
    "dissipative": (single, el.LagrangianEcho(weight_decay=True, dissipation=RATE)),
    "counted": (single, el.EchoBackpropagation(weight_decay=True)),
    "stack, last": (Chain, ECHO()),
    "stack, mean": (Chain, ECHO("mean")),
}
SETTINGS = {
    "plain": {},
    "momentum": {"momentum": 0.6},
    "decay": {"weight_decay": 0.05},
    "cosine": {"momentum": 0.6, "schedule": "cosine"},
    "linear": {"schedule": "linear"},
    "all": {"momentum": 0.6, "weight_decay": 0.02, "schedule": "linear", "accumulate": 3, "batch_size": 8},
    "ragged": {"momentum": 0.6, "weight_decay": 0.05, "schedule": "cosine", "accumulate": 2, "batch_size": 11},
}


@functools.cache
def case(name):
    model, rule = RULES[name]
    torch.manual_seed(0)
    net = model()
    x, y = data(np.random.default_rng(0), SAMPLES, 6, 3, 2, "last" if rule.cost_at == "last" else "every")
    return net, el.compile(net, dynamics=DYNAMICS, rule=rule, calibrate=(x, y), lanes=4), x, y


def gradient(net, rule, x, y):
    if rule.dissipation:
        return boundary_reference(net, x, y, DYNAMICS.dt, DYNAMICS.substeps, boundary="final",
                                  dissipation=rule.dissipation)
    return bptt(net, x, y, DYNAMICS.dt, DYNAMICS.substeps, rule.cost_at)[0]


def expected(name, epochs, rate, batch_size, accumulate=1, momentum=0.0, weight_decay=0.0, schedule="constant"):
    """torch.optim.SGD on float64 gradients, means over the samples of an update."""
    model, rule = RULES[name]
    _, design, x, y = case(name)
    net = model().double()
    net.load_state_dict({n: torch.as_tensor(design.values[n]) for n in net.state_dict()})
    optimiser = torch.optim.SGD(net.parameters(), lr=rate, momentum=momentum, weight_decay=weight_decay)
    batches = [b for epoch in range(epochs) for b in batched(SAMPLES, 0, epoch, batch_size * accumulate)]
    for update, batch in enumerate(batches):
        optimiser.param_groups[0]["lr"] = rate * SCHEDULES[schedule](update / len(batches))
        for parameter, g in gradient(net, rule, x[batch], y[batch]).items():
            net.get_parameter(parameter).grad = torch.from_numpy(g)
        optimiser.step()
    return {n: v.detach().numpy() for n, v in net.state_dict().items()}


@pytest.mark.parametrize("name, kind", [
    pytest.param(name, kind, marks=[] if kind in ("all", "ragged") or name == "last" else [pytest.mark.slow])
    for name in RULES for kind in SETTINGS])
def test_every_rule_has_the_same_optimiser(name, kind):
    _, design, x, y = case(name)
    rate, settings = 0.1 if "every" not in name else 0.02, {"batch_size": SAMPLES, **SETTINGS[kind]}
    with design.open("int:") as chip:
        before = chip.state_dict()
        history = chip.fit(x, y, epochs=6, learning_rate=rate, **settings)
        found = chip.state_dict()
    assert history.updates == 6 * -(-SAMPLES // (settings["batch_size"] * settings.get("accumulate", 1)))
    wanted = expected(name, 6, rate, **settings)
    moved = max(np.abs(wanted[n] - before[n]).max() for n in wanted)
    for n, value in wanted.items():
        np.testing.assert_allclose(found[n], value, atol=0.01 * moved, err_msg=n)


# -- one bitstream ---------------------------------------------------------------------------------------------------

FAMILY = {
    "last": el.HamiltonianEcho(),
    "counted": el.EchoBackpropagation(),
    "mean": el.LagrangianEcho("mean"),
    "every": el.HamiltonianEcho("every"),
}


@functools.cache
def family():
    """Designs of one network by rule, for the hardware of the first; targets stay what they are."""
    torch.manual_seed(0)
    net, found = single(), {}
    x, y = data(np.random.default_rng(0), SAMPLES, 6, 3, 2, "last")
    for name, rule in FAMILY.items():
        targets = y if rule.cost_at == "last" else np.repeat(y[:, None], 6, axis=1)
        found[name] = el.compile(net, dynamics=DYNAMICS, rule=rule, calibrate=(x, targets), lanes=4,
                                 like=found["last"][0] if found else None), x, targets
    return found


def test_rules_are_programs_that_a_running_chip_is_sent(simulate):
    """One simulated chip, never reset, learns by five rules in turn, each going on from the weights of the last."""
    designs = family()
    programs = {name: design.program for name, (design, *_) in designs.items()}
    assert len(set(programs.values())) == 3  # the host repeats samples for two signs, and divides sums by rows
    assert programs["mean"] == programs["every"]
    assert len({d.hardware for d, *_ in designs.values()}) == 1
    first = designs["last"][0]
    chip = simulate(first)
    twin = Twin(IntegerDevice(first), chip)
    session = Session(first, twin)
    session.set_values(first.values)
    for design, x, y in designs.values():
        before = session.state_dict()
        session.switch(design)
        for name, value in session.state_dict().items():
            np.testing.assert_allclose(value, before[name], atol=2.0**-20)
        losses = session.fit(x[:6], y[:6], epochs=2, batch_size=3, learning_rate=0.02, momentum=0.5).loss
        assert losses[1] < losses[0] and session.echo(x[:3]).exact
    assert session.device.chip.link is chip.link and session.device.words


def test_a_switched_session_learns_what_a_new_one_does():
    (last, x, y), (counted, *_) = family()["last"], family()["counted"]
    found = []
    with last.open("int:compiled") as chip:
        chip.fit(x, y, batch_size=8, learning_rate=0.1, momentum=0.9)
        weights = chip.state_dict()
        chip.switch(counted)
        chip.fit(x, y, batch_size=8, learning_rate=0.1, momentum=0.9)
        found.append(chip.state_dict())
    with counted.open("int:") as chip:
        chip.load_state_dict(weights)
        chip.fit(x, y, batch_size=8, learning_rate=0.1, momentum=0.9)
        found.append(chip.state_dict())
    for name, value in found[0].items():
        np.testing.assert_array_equal(value, found[1][name])


def test_a_design_of_another_hardware_is_refused_and_nothing_changes():
    (last, x, y), other = family()["last"], case("last")[1]
    with last.open("int:") as chip:
        before = chip.state_dict()
        with pytest.raises(el.DesignMismatch) as error:
            chip.switch(other)
        chip.fit(x, y, batch_size=8, learning_rate=0.1)
        assert chip.design is last and any(not np.array_equal(v, before[n]) for n, v in chip.state_dict().items())
    assert str(error.value) == ("the design is of another hardware: compile it with like=, the present one; the design "
                                f"is {other.hardware.hardware_id:08x}, the present one {last.hardware.hardware_id:08x}")


def test_a_link_that_breaks_on_the_way_leaves_the_parameters_with_the_host(simulate, monkeypatch):
    designs = family()
    chip = simulate(designs["last"][0])
    session = Session(designs["last"][0], chip)
    session.set_values(session.design.values)
    before, pushed = session.state_dict(), chip.link.push

    def broken(*words, **options):
        if chip.link.read(0, 1) and broken.left == 0:
            raise el.LinkError("unplugged")
        broken.left -= 1
        return pushed(*words, **options)

    broken.left = 3
    monkeypatch.setattr(chip.link, "push", broken)
    monkeypatch.setattr(chip.link, "close", lambda: None)
    with pytest.raises(el.LinkError, match="^unplugged$"):
        session.switch(designs["counted"][0])
    monkeypatch.undo()
    for name, value in session.kept.items():
        np.testing.assert_array_equal(value, before[name])
    assert ChipDevice(designs["last"][0], chip.link).fresh  # half a program is none


# -- what no echo undoes ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rule", [el.HamiltonianEcho, el.EchoBackpropagation])
def test_dissipation_is_refused_by_name(rule):
    with pytest.raises(el.CompileError) as error:
        rule(dissipation=0.5)
    assert str(error.value) == (f"{rule.__name__} runs back what it ran, and what dissipation takes from momenta does "
                                "not come back; take LagrangianEcho(dissipation=...), whose coordinates keep it, not "
                                "dissipation=0.5")
