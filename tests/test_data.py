"""Samples on the chip: held ones as sent ones, windows that take turns, and what a broken link leaves."""

import numpy as np
import pytest
import torch
from networks import Oscillators

import echolith as el
from echolith.compiler.errors import CompileError, LinkError
from echolith.compiler.registers import Bank
from echolith.host.chip import ChipDevice
from echolith.host.link import Link
from echolith.host.session import Session
from echolith.sim.device import IntegerDevice
from echolith.sim.golden import Emulation
from echolith.sim.paced import PacedTransport
from echolith.sim.twin import Twin

CLOCK, BAUD, BATCH = 12_000_000, 1_000_000, 4


def problem(samples):
    rng = np.random.default_rng(0)
    return rng.integers(-8, 9, (samples, 5, 3)) / 8, rng.integers(0, 2, (samples, 2)).astype(float)


@pytest.fixture(scope="module")
def design():
    """A record of 5 lines; room for 12 of them."""
    torch.manual_seed(0)
    return el.compile(Oscillators(7, 6, 3, 2, quartic=0.0), dynamics=el.Leapfrog(0.25, 2), lanes=2,
                      rule=el.HamiltonianEcho("last"), calibrate=problem(40), samples=12)


@pytest.fixture(scope="module")
def simulated():
    """The core takes about as long as the wire; room for two windows of 32 samples."""
    torch.manual_seed(0)
    return el.compile(Oscillators(7, 6, 3, 2, quartic=0.0), dynamics=el.Leapfrog(0.25, 2), lanes=1,
                      rule=el.HamiltonianEcho("last"), calibrate=problem(40), samples=80)


class Counting(Emulation):
    """Words pushed, by the bank they went to."""

    def __init__(self, design):
        super().__init__(design)
        self.pushed = dict.fromkeys(Bank, 0)

    def push(self, words, *, stall=0.0):
        self.pushed[Bank(self.registers["bank"])] += len(words)
        super().push(words, stall=stall)


def learned(design, device, samples, epochs=2):
    """Weights and losses after a fit."""
    session = Session(design, device)
    session.set_values(design.values)
    x, y = problem(samples)
    history = session.fit(x, y, epochs=epochs, batch_size=BATCH, learning_rate=0.1, momentum=0.5)
    return {**session.state_dict(), "loss": np.array(history.loss)}


def same(a, b):
    for name, value in a.items():
        np.testing.assert_array_equal(value, b[name])


def test_a_data_set_is_sent_once(design):
    link = Counting(design)
    chip = ChipDevice(design, link)
    same(learned(design, chip, 9), learned(design, IntegerDevice(design), 9))
    assert link.pushed[Bank.DATA] == 9 * design.record.lines
    learned(design, chip, 9)
    assert link.pushed[Bank.DATA] == 9 * design.record.lines, "the same data set is there already"
    assert link.pushed[Bank.ORDER] <= 2 * 2 * (9 + 1)


def test_samples_that_repeat_are_not_sent_again(design):
    link = Counting(design)
    session = Session(design, ChipDevice(design, link))
    x, y = problem(4)
    session.gradient(x, y)
    sent = link.pushed[Bank.DATA]
    session.gradient(x, y)
    assert sent == link.pushed[Bank.DATA] == 4 * design.record.lines


@pytest.mark.parametrize("samples", [9, 30])
def test_held_and_streamed_samples_learn_what_the_model_does(design, simulate, samples):
    """9 samples are held, 30 come in windows; the twin compares every word and cycle."""
    twin = Twin(IntegerDevice(design), simulate(design))
    found = learned(design, twin, samples)
    same(found, learned(design, IntegerDevice(design), samples))
    assert twin.measured_cycles == twin.predicted_cycles > 0


def test_replay_equals_sending_again(design, simulate):
    """The same batches with the data set held, and sent batch by batch."""
    held, chip = learned(design, simulate(design), 9), simulate(design)
    chip.hold = lambda x, target: False
    same(held, learned(design, chip, 9))


def test_a_data_set_can_be_sent_ahead(design):
    link = Counting(design)
    session = Session(design, ChipDevice(design, link))
    assert session.load(*problem(12)) and link.pushed[Bank.DATA] == 12 * design.record.lines
    session.fit(*problem(12), batch_size=BATCH)
    assert link.pushed[Bank.DATA] == 12 * design.record.lines
    assert not session.load(*problem(40))


def paced(design, samples, batches, turns=True):
    """Samples per second of a fit, but for its first two and last batches."""
    transport = PacedTransport(design, baud=BAUD, clock=CLOCK)
    with Session(design, ChipDevice(design, Link(transport))) as session:
        session.set_values(design.values)
        times, update, x, y = [], session.device.update, *problem(samples)
        session.device.update = lambda rates: (times.append(transport.seconds), update(rates))[1]
        session.device._room.halves = turns
        session.fit(x, y, epochs=batches * 32 // samples, batch_size=32, learning_rate=0.05, momentum=0.5,
                    schedule="cosine")
    return 32 * (len(times) - 3) / (times[-2] - times[1])


def test_the_estimate_is_what_the_wire_measures(simulated):
    estimate = simulated.estimate(baud=BAUD, clock=CLOCK)["samples_per_second"]["learn"]
    assert paced(simulated, 32, 5) == pytest.approx(estimate["held"], rel=0.02)
    assert paced(simulated, 160, 5) == pytest.approx(estimate["link"], rel=0.02)
    assert estimate["link"] < estimate["held"] < estimate["chip"]


def test_a_window_is_sent_while_the_core_computes(simulated):
    """What is saved is the shorter of the time that the lines take on the wire and that of the core; outputs are
    fetched beside it either way."""
    word = (4 + 8 / 63) * 10 / BAUD
    lines, results = simulated.record.lines * word, simulated.outputs * word
    core = simulated.estimate()["cycles"]["learn_sample"] / CLOCK
    saved = 1 / paced(simulated, 160, 5, turns=False) - 1 / paced(simulated, 160, 5)
    assert saved == pytest.approx(min(lines, core - results), rel=0.15)


class Cut(PacedTransport):
    """Sends nothing while it is broken."""

    broken = False

    def write(self, data):
        if not self.broken:
            super().write(data)


def test_a_link_that_breaks_in_a_window_leaves_the_weights(design):
    transport = Cut(design, baud=100_000, clock=1_000_000)
    session = Session(design, ChipDevice(design, Link(transport, timeout=0.1, attempts=3)))
    session.set_values(design.values)
    before, (x, y) = session.state_dict(), problem(30)
    send, sent = session.device._send, []

    def cut(window, place):  # the first window's run has begun, the second is on its way
        transport.broken = len(sent) == 1
        sent.append(window)
        return send(window, place)

    session.device._send = cut
    with pytest.raises(LinkError, match=r"^WRITE failed after 3 attempts or more: nothing came back; "):
        session.fit(x, y, batch_size=BATCH, learning_rate=0.1)
    transport.broken, session.device._send = False, send
    same(before, session.state_dict())
    after = session.fit(x, y, batch_size=BATCH, learning_rate=0.1)
    other = design.open("int:")
    assert after.loss == other.fit(x, y, batch_size=BATCH, learning_rate=0.1).loss
    same(session.state_dict(), other.state_dict())
    session.close()


def test_inputs_take_the_format_that_is_asked_for():
    x, y = problem(16)
    options = dict(dynamics=el.Leapfrog(0.25, 2), rule=el.HamiltonianEcho("last"), lanes=2)
    noisy = x + np.random.default_rng(1).normal(size=x.shape) / 100
    torch.manual_seed(0)
    net = Oscillators(7, 6, 3, 2, quartic=0.0)
    own = el.compile(net, calibrate=(noisy, y), **options)
    narrow = el.compile(net, calibrate=(noisy, y), precision={"input": "Q2.5"}, **options)
    assert own.precision["input"] == "Q2.13" and narrow.precision["input"] == "Q2.5"
    assert narrow.record.lines < own.record.lines and narrow.precision["target"] == own.precision["target"] == "Q1.0"
    with pytest.raises(CompileError, match=r"^precision: input must have from 2 to 18 bits with its sign, not 'Q9.9'$"):
        el.compile(net, calibrate=(noisy, y), precision={"input": "Q9.9"}, **options)
    with narrow.open() as a, own.open() as b:
        g, h = (np.concatenate([v.ravel() for v in c.gradient(noisy, y).values()]) for c in (a, b))
    assert g @ h / np.linalg.norm(g) / np.linalg.norm(h) > 0.999
    again = el.compile(net, calibrate=(noisy, y), precision=narrow.precision, **options)
    assert again.hardware == narrow.hardware
