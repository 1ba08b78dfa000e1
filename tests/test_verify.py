"""verify: float64, integer model and RTL agree, and damage is found at the step and unit where it first shows."""

import dataclasses
import functools
import re

import numpy as np
import pytest
from amaranth.hdl import Const
from energies import INPUTS, MODELS, Blocks, Hopfield, Model, Springs
from test_general import case
from test_machine import base, compiled, data

import echolith as el
from echolith.compiler.cut import commands, cut
from echolith.compiler.isa import Opcode
from echolith.compiler.registers import Bank, Flag, address
from echolith.host.session import Session
from echolith.host.stream import fetches
from echolith.rtl import units
from echolith.sim import simulator
from echolith.sim import verify as verification
from echolith.sim.data import words
from echolith.sim.model import IntegerModel
from echolith.sim.rounding import rounding
from echolith.sim.trace import traced
from echolith.sim.verify import verify
from echolith.sim.weights import from_values, load

SAMPLES = 3


@functools.cache
def blocks():
    """Two states of different sizes, three lanes."""
    return case(Blocks, "last")[1]


def samples(design, count=SAMPLES):
    d = design.dynamics
    return data(np.random.default_rng(5), count, d.steps, design.inputs, design.outputs, d.cost_at)


@pytest.fixture
def damaged(simulate, monkeypatch):
    """``damaged(design, damage)``: verify a design on a simulated chip after ``damage(chip)``."""
    chips = []

    def run(design, damage):
        chip = simulate(design)
        chips.append(chip)
        chip.fresh, chip.close = True, lambda: None
        damage(chip)
        monkeypatch.setattr(verification, "open_design", lambda design, url: Session(design, chip))
        return design.verify(*samples(design))

    yield run
    for chip in chips:
        chip.link.write(address("program"), 0)  # the next to open it loads everything again


def first_wrong(design, broken, changed, batch=2):
    """Step, sample, word and unit in which two integer models differ first on the way forward of the first batch in
    which they do."""
    x, y = words(design, samples(design)[0], samples(design)[1][:, None])
    good = from_values(design, design.values)
    for start in range(0, SAMPLES, batch):
        part = slice(start, start + batch)
        a = traced(design, good, "predict", x[part], y[part], 0, 0).states
        b = traced(broken, changed, "predict", x[part], y[part], 0, 0).states
        for place, state in a.items():
            for sample in range(len(state.q)):
                for name, was, now in (("momentum", state.p, b[place].p), ("position", state.q, b[place].q)):
                    units = np.flatnonzero(was[sample] != now[sample])
                    if len(units):
                        return place[1], sample + start, name, int(units[0])
    raise AssertionError("the damage shows nowhere")


def element(design, found):
    """A divergence's unit, counted over all states."""
    names = list(design.states)
    return sum(design.states[s] for s in names[:names.index(found.state)]) + found.unit


# -- agreement -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("design", [blocks, lambda: base("one lane")], ids=["general", "simple"])
def test_three_parties_agree(design):
    report = design().verify(*samples(design()))
    assert report
    assert report.predicted_cycles == report.measured_cycles > 0 and report.words > 1000
    assert report.cosine > 0.9999 and 0 < report.rounding.error <= report.rounding.bound < 16
    assert repr(report) == "<Verification passed>" and str(report).startswith("equal\nsim: against int:, 3 samples, ")


@pytest.mark.parametrize("model, cost_at", [(m, "last" if i % 2 else "every") for i, m in enumerate(MODELS)])
def test_the_integer_model_rounds_float64_within_its_formats(model, cost_at):
    """No step, read-out, gradient or update is beyond its bound, and bounds are not much wider than they need be."""
    _, design, x, y = case(model, cost_at)
    x, y = words(design, x, y if cost_at == "every" else y[:, None])
    found = rounding(design, from_values(design, design.values), x, y, 0.05)
    assert found.divergence is None
    assert found.error <= found.bound < 200 * found.error  # below 2.4 without reductions and exponentials


class Jumps(Model):
    """A force with jumps, which no table has where they are."""

    states = {"q": 5}
    shapes = {"W": (5, 5), "B": (5, INPUTS)}

    def energy(self, q, u):
        return 0.5 * (q @ q) + (self.W @ q + self.B @ u).abs().sum()


def test_a_force_that_jumps_is_allowed_the_jump():
    _, design, x, y = case(Jumps, "last")
    found = rounding(design, from_values(design, design.values), *words(design, x, y[:, None]), 0.005)
    assert found.divergence is None and 100 < found.error < found.bound


@pytest.mark.parametrize("cost_at", ["last", "every"])
def test_a_single_step_is_verified(cost_at):
    design = compiled("one lane", (5, 4, 2, 3), 1, 1, cost_at, base("one lane"))
    assert design.verify(*samples(design))


def test_an_inference_core_is_verified():
    x, _ = samples(blocks())
    design = el.compile(Blocks(), dynamics=el.Leapfrog(0.25, 2), rule=None, calibrate=(x, None), lanes=3)
    report = verify(design, x, url="int:")
    assert report and report.cosine is None and report.rounding.error > 0


def test_a_chip_is_verified_with_the_weights_it_holds_and_keeps_them(simulate, monkeypatch):
    design = blocks()
    chip = simulate(design)
    chip.fresh, chip.close = False, lambda: None
    trained = from_values(design, {name: 0.9 * v for name, v in design.values.items()})
    chip.write(trained)
    monkeypatch.setattr(verification, "open_design", lambda design, url: Session(design, chip))
    assert design.verify(*samples(design, 2))
    for name, held in chip.read().items():
        np.testing.assert_array_equal(held, trained[name])


def test_without_targets_the_motion_is_compared():
    report = verify(blocks(), samples(blocks())[0], url="int:")
    assert report and report.cosine is None and report.measured_cycles is None


@pytest.mark.parametrize("entry", ["predict", "echo", "learn"])
def test_a_cut_program_does_the_first_commands_and_no_more(entry):
    design = blocks()
    whole = commands(design.program, design.entries[entry])
    asked = list(fetches(design.program, design.entries[entry]))
    for count in range(len(whole) + 1):
        program = cut(design.program, design.entries[entry], count)
        assert commands(program, 0) == whole[:count] and len(program) <= design.hardware.depths.program
        assert list(fetches(program, 0)) == asked[:sum(word >> 28 == Opcode.FETCH for word in whole[:count])]


# -- damage ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("segment", [5, -113, -32])  # they show in steps 1, 12 and 15
def test_a_wrong_table_word_is_found(damaged, segment):
    design = base("one lane")
    place = (1 << design.hardware.segments - 1) + segment
    tables = [t.copy() for t in design.tables]
    tables[0][place, 0] += 300
    expected = first_wrong(design, dataclasses.replace(design, tables=tuple(tables)),
                           from_values(design, design.values))

    def damage(chip):
        chip._put(Bank.TABLES, 2 * place, tables[0][place, :1])

    report = damaged(design, damage)
    found = report.divergence
    assert not report and (found.phase, found.copy) == ("forward", "0")
    assert (found.step, found.sample, found.word, found.unit) == expected
    assert repr(report).startswith(f"<sim: differs from int: at forward, step {expected[0]}, sample {expected[1]}, "
                                   "copy 0: momentum of q[")
    assert len(repr(report)) < 240 and "\n" not in repr(report)


@functools.cache
def long(steps):
    return compiled("one lane", (3, 2, 3, 1), steps, 1, "last", base("one lane"))


@pytest.mark.parametrize("design, bit", [
    (blocks, 0), (blocks, 7), (lambda: long(40), 0),
    pytest.param(lambda: long(1500), 0, marks=pytest.mark.slow, id="streamed")])
def test_a_weight_bit_that_flips_after_loading_is_found(damaged, design, bit):
    design = design()
    flipped = from_values(design, design.values)
    flipped["hidden"][1, 2] ^= 1 << design.hardware.width + bit
    expected = first_wrong(design, design, flipped)

    def damage(chip):
        original = chip.run

        def run(*arguments):
            chip.run = original
            chip.write(flipped)
            return chip.run(*arguments)

        chip.run = run

    found = damaged(design, damage).divergence
    assert (found.phase, found.step, found.sample, found.word, element(design, found)) == ("forward", *expected)
    good = from_values(design, design.values)["hidden"][1, 2]
    assert found.note == ("; the chip's weights have changed: load: master word of hidden[1, 2]: expected "
                          f"{good}, got {flipped['hidden'][1, 2]}")


def test_a_weight_that_cannot_be_written_is_found_at_loading(damaged):
    def damage(chip):
        original = chip.write

        def write(written):
            original({**written, "vector0": written["vector0"] | 1 << 20})

        chip.write = write

    found = damaged(blocks(), damage).divergence
    assert (found.phase, found.word, found.state) == ("load", "master word", "vector0")
    assert found.got - found.expected == 1 << 20


def test_a_wrong_cost_derivative_is_found_in_the_echo(damaged):
    design = base("one lane")
    table = design.tables[1]

    def damage(chip):
        chip._put(Bank.TABLES, 1 << design.hardware.segments + 1, (table + [300, 0]).reshape(-1))

    found = damaged(design, damage).divergence
    assert (found.phase, found.step, found.sample, found.copy, found.word) == ("echo", 16, 0, "+", "momentum")


def changed(name, change):
    """Damage: a method of the chip that changes its results."""
    def damage(chip):
        original = getattr(chip, name)
        setattr(chip, name, lambda *arguments: change(chip, original(*arguments)))

    return damage


def off_by_one(chip, run):
    return run if run.outputs is None else dataclasses.replace(run, outputs=run.outputs + [[[0, 1]]])


def slower(chip, run):
    return dataclasses.replace(run, cycles=run.cycles + 1)


def flipped(chip, found):
    found["hidden"][3, 1] ^= 1
    return found


def overwritten(chip, run):
    chip.write(flipped(chip, chip.read()))
    return run


@pytest.mark.parametrize("damage, text", [
    (changed("run", off_by_one), r"readout, step 9, sample 0: output\[1\]: expected (-?\d+), got (-?\d+)"),
    (changed("run", slower), r"run: cycles of predict: expected (\d+), got (\d+)"),
    (changed("read_gradients", flipped), r"gradient, step 1: gradient word of hidden\[3, 1\]: expected (0), got (1)"),
    (changed("update", overwritten), r"update: master word of hidden\[3, 1\]: expected (-?\d+), got (-?\d+)"),
], ids=["output", "cycles", "gradient", "update"])
def test_what_is_no_state_is_found_too(damaged, damage, text):
    found = re.fullmatch(text, str(damaged(blocks(), damage).divergence))
    assert found and abs(int(found[1]) - int(found[2])) == 1


@pytest.mark.parametrize("again", [True, False])
def test_a_failed_return_names_step_and_state_and_keeps_the_weights(simulate, again):
    """A chip whose momentum is off from some step back on; or was, once."""
    design, chip = blocks(), simulate(blocks())
    chip.write(from_values(design, design.values))
    chip.clear()
    run, states, before = chip.run_held, chip.states, chip.read()
    back = len(commands(design.program, design.entries["echo"])) * 2 // 3

    def astray(program, entry, x, target):
        q, p = states(program, entry, x, target)
        p[0, 2, 1] ^= again and len(commands(program, 0)) > back
        return q, p

    chip.states = astray
    chip.run_held = lambda entry, *rest: dataclasses.replace(run(entry, *rest), flags=1 << Flag.ECHO)
    try:
        with pytest.raises(el.RangeError) as error:
            Session(design, chip).fit(*samples(design), batch_size=SAMPLES)
    finally:
        del chip.run_held, chip.states
    place = r"\(return, step \d+, sample 1, copy 0: momentum of \w+\[2\]: expected -?\d+, got -?\d+\)"
    place = place if again else r"\(and does when it is run again\)"
    assert re.match(rf"the un-nudged copy did not return to its initial state {place}: the chip is faulty or "
                    "overclocked; ", str(error.value))
    for name, found in chip.read().items():
        np.testing.assert_array_equal(found, before[name])


@pytest.mark.slow
def test_a_nudge_of_the_wrong_sign_is_found_in_its_echo(monkeypatch, tmp_path):
    """Hardware in which both echoes are nudged alike: forward and back are right, copy - is not."""
    kicked = units.UnitPath._kicked_momentum

    def alike(self, m, nudge):
        self._slot = lambda stage: Const(0)
        kick = kicked(self, m, nudge)
        del self._slot
        return kick

    monkeypatch.setattr(units.UnitPath, "_kicked_momentum", alike)
    monkeypatch.setenv("ECHOLITH_CACHE", str(tmp_path))
    monkeypatch.setattr(simulator, "_FLAGS", tuple(f.replace("-O2", "-O0") for f in simulator._FLAGS))
    design = base("one lane")
    report = design.verify(*samples(design))
    found = report.divergence
    assert (found.phase, found.step, found.copy, found.word) == ("echo", 16, "-", "momentum")
    assert report.rounding.divergence is None


# -- formats ---------------------------------------------------------------------------------------------------------


def test_a_state_that_wraps_is_found_against_float64():
    net, design, x, _ = case(Springs, "last")
    frac = design.fractions["state"] + 3
    narrow = el.compile(net, dynamics=el.Leapfrog(0.25, 2), rule=None, calibrate=(x, None), lanes=3,
                        precision={"state": f"Q{17 - frac}.{frac}"})
    model = IntegerModel(narrow)
    load(model, narrow.values)
    first = model.predict(words(narrow, x, None)[0])[1].first
    report = verify(narrow, x, None, url="int:")
    found = report.rounding.divergence
    assert not report and report.divergence is None and report.flags == 1
    assert (found.phase, found.step, found.sample, found.unit) == tuple(first.values())
    assert abs(found.got - found.expected) == pytest.approx(2**18, abs=found.tolerance)


def test_a_clipped_sum_is_found_against_float64():
    design = case(Hopfield, "last")[1]
    wild = dataclasses.replace(design, values={n: 3 * v for n, v in design.values.items()})
    report = verify(wild, samples(wild)[0], url="int:")
    assert report.flags == 0  # no state wraps
    assert re.match(r"<int: differs from float64 at forward, step 7, sample 0, copy 0: momentum of s\[4\]: expected "
                    r"3596.67\d* \(within 1.04\), got 3388>", repr(report))


def test_a_wrong_table_of_the_design_is_found_against_float64():
    design = base("one lane")
    tables = [t.copy() for t in design.tables]
    tables[0][(1 << design.hardware.segments - 1) + 9, 0] += 20000
    broken = dataclasses.replace(design, tables=tuple(tables))
    expected = first_wrong(design, broken, from_values(design, design.values), SAMPLES)
    found = verify(broken, *samples(broken), url="int:").rounding.divergence
    assert (found.phase, found.step, found.sample, found.word) == ("forward", *expected[:3])


def test_a_wrong_drift_is_found_against_float64():
    design = blocks()
    drift = tuple(dataclasses.replace(d, ops=tuple(
        dataclasses.replace(op, n=op.n + 1) if op.kind == "rnd" else op for op in d.ops))
        for d in design.hardware.drift)
    broken = dataclasses.replace(design, hardware=dataclasses.replace(design.hardware, drift=drift))
    found = verify(broken, *samples(broken), url="int:").rounding.divergence
    assert (found.phase, found.step, found.copy, found.word) == ("forward", 1, "0", "position")
