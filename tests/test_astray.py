"""A copy that does not return is stopped, and step and state are named from nothing but what it came back with."""

import re

import numpy as np
import pytest
from test_rules import case

import echolith as el
from echolith.sim.model import IntegerModel

NAMES = ["last", "every", "dissipative", "counted", "stack, last", "stack, mean"]


def upset(monkeypatch, back, step, sample, unit, word, bit, once):
    """A bit of copy 0 is flipped after a step of the integer model: once, or every time."""
    flipped = []

    def flip(s, where):
        here = where == (("echo", step) if back else ("forward", step)) or back and where == ("return", step)
        if here and not (once and flipped):
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
        flipped = upset(monkeypatch, back, step, 1, unit, word, bit, once=True)
        with pytest.raises(el.RangeError) as error:
            chip.fit(x[:3], y[:3], batch_size=3)
        assert flipped
        for n, value in chip.state_dict().items():
            np.testing.assert_array_equal(value, before[n])
    found = re.match(r"the un-nudged copy did not return to its initial state \((\w+), step (\d+), sample \d+, copy 0: "
                     r"(\w+) of (\w+)\[(\d+)\]: expected (-?\d+), got (-?\d+)\): the chip is faulty or overclocked; ",
                     str(error.value))
    assert found, str(error.value)
    state, local = ("q" if "stack" not in name else "low"), unit
    assert (found[4], int(found[5])) == (state, local) and int(found[6]) ^ int(found[7]) == 1 << bit
    assert found[3] == {"q": "position", "p": "momentum"}[word]
