"""A copy that does not return is stopped, and step and state are named from nothing but what it came back with."""

import re

import numpy as np
import pytest
import torch
from test_rules import case

import echolith as el
from echolith.compiler.cycles import cycles
from echolith.compiler.isa import Opcode
from echolith.compiler.registers import Bank, Flag
from echolith.host.stream import streamed
from echolith.sim.data import words
from echolith.sim.model import IntegerModel

NAMES = ["last", "every", "dissipative", "counted", "stack, last", "stack, mean"]


def upset(monkeypatch, back, step, sample, unit, word, bit):
    """A bit of copy 0 is flipped after a step of the integer model, once."""
    flipped = []

    def flip(s, where):
        here = where == (("echo", step) if back else ("forward", step)) or back and where == ("return", step)
        if here and not flipped:
            flipped.append(where)
            getattr(s, word)[-len(s.q) + sample if where[0] != "echo" else len(s.q) * 2 // 3 + sample, unit] ^= 1 << bit

    step_, turn, back_ = IntegerModel._step, IntegerModel._turn, IntegerModel._step_back
    monkeypatch.setattr(IntegerModel, "_step", lambda m, s, row, where, *a, **b: (
        step_(m, s, row, where, *a, **b), flip(s, where))[0])
    monkeypatch.setattr(IntegerModel, "_turn", lambda m, s, nudge, where, *a: (
        turn(m, s, nudge, where, *a), flip(s, where))[0])
    monkeypatch.setattr(IntegerModel, "_step_back", lambda m, s, where, *a: (
        back_(m, s, where, *a), flip(s, where))[0])
    return flipped


@pytest.mark.parametrize("back, step, unit, word, bit", [
    (True, 12, 3, "q", 4), (True, 7, 2, "p", 5), (True, 1, 0, "q", 9), (False, 5, 4, "q", 3), (False, 1, 1, "p", 6)])
@pytest.mark.parametrize("name", NAMES)
def test_a_single_upset_is_named(name, back, step, unit, word, bit, monkeypatch):
    _, design, x, y = case(name)
    with design.open("int:") as chip:
        before = chip.state_dict()
        flipped = upset(monkeypatch, back, step, design.rule.runs, unit, word, bit)
        with pytest.raises(el.RangeError) as error:
            chip.fit(x[:3], y[:3], batch_size=3)
        assert flipped
        for n, value in chip.state_dict().items():
            np.testing.assert_array_equal(value, before[n])
    found = re.match(r"the un-nudged copy did not return to its initial state \((\w+), step (\d+), sample 1, copy 0: "
                     r"(\w+) of (\w+)\[(\d+)\]: expected (-?\d+), got (-?\d+)\): the chip is faulty or overclocked; ",
                     str(error.value))
    assert found, str(error.value)
    assert (found[4], int(found[5])) == ("low" if "stack" in name else "q", unit)
    assert int(found[6]) ^ int(found[7]) == 1 << bit
    assert found[3] == {"q": "position", "p": "momentum"}[word]


# -- on a chip -------------------------------------------------------------------------------------------------------


class Driven(torch.nn.Module):
    """Without biases: samples without inputs stay at rest."""

    states, inputs, outputs = {"q": 5}, 2, 1

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.W, self.B, self.C = (torch.nn.Linear(n, m, bias=False) for n, m in ((5, 4), (2, 4), (5, 1)))

    def energy(self, q, u):
        return 0.5 * q @ q + torch.log(torch.cosh(self.W(q) + self.B(u))).sum()

    def cost(self, q, y):
        return 0.5 * ((self.C(q) - y) ** 2).sum()


def driven(rows, rule=el.HamiltonianEcho, **options):
    x = np.random.default_rng(0).integers(-64, 65, (8, rows, 2)) / 64
    y = np.ones((8, 1))
    return el.compile(Driven(), dynamics=el.Leapfrog(0.25), rule=rule(), calibrate=(x, y), lanes=2, **options), x, y


def refused(session, x, y):
    """The message, with the weights as they were."""
    before = session.state_dict()
    with pytest.raises(el.RangeError) as error:
        session.fit(x, y, batch_size=len(x))
    for name, value in session.state_dict().items():
        np.testing.assert_array_equal(value, before[name])
    return str(error.value)


@pytest.mark.parametrize("rule, later", [(el.HamiltonianEcho, 0), (el.EchoBackpropagation, 800)])
def test_an_input_that_is_wrong_once_on_the_way_back_is_named(rule, later, simulate, monkeypatch):
    """Sent to the chip again by a link that broke it: the pair before has returned, the one behind never runs."""
    design, x, y = driven(400, rule, samples=0)
    session = el.Session(design, simulate(design))
    session.set_values(design.values)
    monkeypatch.setattr(session.device.link, "_timeout", 0.25)  # of rows that nobody asks for
    monkeypatch.setattr("echolith.host.chip._PATIENCE", 2.0)
    record, sent = design.record, []

    def broken(record, rows, program, entry):
        sent.append(entry)
        for piece in streamed(record, rows, program, entry):
            if len(sent) == 2:  # a row of two samples is two lines
                piece[-2 * (later + 100)] ^= 1 << 5
            yield piece

    monkeypatch.setattr("echolith.host.chip.streamed", broken)
    which = 2 // design.rule.runs  # the second pair begins with it
    found = re.match(rf"the un-nudged copy did not return to its initial state \(return, step (\d+), sample {which}, "
                     r"copy 0: momentum of q\[\d\]: expected -?\d+, got -?\d+(, and \d words beside it)?; not when it "
                     r"is run again\): the chip is faulty or ", refused(session, x[:6], y[:6]))
    assert found and int(found[1]) == 101 and record.reads and len(sent) >= 2


def test_a_run_ends_with_the_pair_that_does_not_return(simulate):
    """A program that forgets the last row on its way back: only sample 5 moves, and is named by the run's cycles."""
    design, x, y = driven(6)
    chip = simulate(design)
    session = el.Session(design, chip)
    session.set_values(design.values)
    x[:5], x[6:] = 0, 0
    loops = [i for i in range(design.entries["learn"], len(design.program)) if design.program[i] >> 28 == Opcode.LOOP]
    program = list(design.program)
    program[loops[1]] -= 1
    chip._put(Bank.PROGRAM, 0, np.array(program, np.int64))
    try:
        run = chip.run("learn", *words(design, x, y[:, None]))
        whole = cycles(tuple(program), design.entries["learn"], design.hardware, 4)
        three = cycles(tuple(program), design.entries["learn"], design.hardware, 3)
        assert run.flags == 1 << Flag.ECHO and run.strayed[0] == 5 and run.strayed[1].p.any()
        assert abs(run.cycles - three) < 10 < whole - three
    finally:
        chip._put(Bank.PROGRAM, 0, np.array(design.program, np.int64))
