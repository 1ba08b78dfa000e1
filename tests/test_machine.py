"""The RTL against the integer model: every word, flag and cycle, on many networks and few hardware builds."""

import functools

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from networks import Oscillators

import echolith as el
from echolith.compiler.cycles import cycles
from echolith.compiler.registers import ERRORS
from echolith.host.chip import ChipDevice
from echolith.host.rates import rates
from echolith.sim.data import words
from echolith.sim.device import IntegerDevice
from echolith.sim.weights import from_values

# lanes, dt, mse, bias; the sizes are those of the largest network each build takes
BUILDS = {
    "one lane": (1, 0.25, False, True, (9, 7, 3, 4)),
    "four lanes": (4, 0.3, True, True, (15, 13, 7, 5)),
    "eight lanes": (8, 0.125, False, False, (20, 24, 5, 10)),
}


def data(generator, samples, steps, inputs, outputs, cost_at):
    x = generator.integers(-8, 9, (samples, steps, inputs)) / 8
    shape = (samples, steps, outputs) if cost_at == "every" else (samples, outputs)
    return x, generator.integers(0, 2, shape).astype(float)


def compiled(build, sizes, steps, substeps, cost_at, like, seed=0):
    lanes, dt, mse, bias, _ = BUILDS[build]
    torch.manual_seed(seed)
    model = Oscillators(*sizes, mse=mse, bias=bias)
    x, y = data(np.random.default_rng(seed), 24, steps, sizes[2], sizes[3], cost_at)
    return el.compile(model, dynamics=el.Leapfrog(dt, substeps), rule=el.HamiltonianEcho(cost_at), calibrate=(x, y),
                      lanes=lanes, like=like)


@functools.cache
def base(build):
    return compiled(build, BUILDS[build][4], 8, 2, "last", None)


def same(name, expected, got):
    assert expected.keys() == got.keys()
    for block, want in expected.items():
        wrong = np.argwhere(want != got[block])
        assert not len(wrong), f"{name} {block}{wrong[0].tolist()}: expected {want[tuple(wrong[0])]}, " \
                               f"got {got[block][tuple(wrong[0])]}"


def expect_cycles(design, entry, run, samples=2):
    predicted = cycles(design.program, design.entries[entry], design.hardware, -(-samples // 2))
    assert run.cycles - run.stalls == predicted, f"{entry} took {run.cycles} cycles, predicted {predicted}"


@pytest.mark.parametrize("build", BUILDS)
@given(draw=st.data())
@settings(max_examples=12, deadline=None, derandomize=True, phases=[Phase.generate],
          suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_rtl_equals_the_integer_model(build, simulate, draw):
    largest = BUILDS[build][4]
    sizes = tuple(draw.draw(st.integers(1, n), label=name)
                  for n, name in zip(largest, ("units", "rows", "inputs", "outputs"), strict=True))
    steps, substeps = draw.draw(st.integers(1, 4), label="steps"), draw.draw(st.integers(1, 3), label="substeps")
    samples = draw.draw(st.integers(1, 5), label="samples")
    cost_at = draw.draw(st.sampled_from(["last", "every"]), label="cost_at")
    momentum = draw.draw(st.sampled_from([0.0, 0.5, 0.9]), label="momentum")
    design = compiled(build, sizes, steps, substeps, cost_at, base(build), seed=draw.draw(st.integers(0, 99)))
    compare(design, simulate(design), samples, cost_at, momentum)


def compare(design, chip, samples, cost_at, momentum, rate=0.3):
    twin = IntegerDevice(design)
    start = from_values(design, design.values)
    for device in (chip, twin):
        device.write(start)
        device.clear()
    generator = np.random.default_rng(1)
    x, y = data(generator, samples, design.dynamics.steps, design.inputs, design.outputs, cost_at)
    x, y = words(design, x, y if cost_at == "every" else y[:, None])
    for entry in ("predict", "echo"):
        got, want = chip.run(entry, x, y), twin.run(entry, x, y)
        assert got.flags == want.flags == 0
        expect_cycles(design, entry, got, samples)
        if entry == "predict":
            np.testing.assert_array_equal(got.outputs, want.outputs)
    for batch in range(2):
        chip.gain = twin.gain = batch
        got, want = chip.run("learn", x, y), twin.run("learn", x, y)
        assert (got.flags, got.response, got.leading) == (want.flags, want.response, want.leading)
        assert want.flags & ERRORS == 0  # a chip's run ends there
        np.testing.assert_array_equal(got.outputs, want.outputs)
        expect_cycles(design, "learn", got, samples)
        same("gradient", twin.read_gradients(), chip.read_gradients())
        found = rates(design, rate, momentum, samples, batch, 1)
        got, want = chip.update(found), twin.update(found)
        assert (got.flags, got.saturated) == (want.flags, want.saturated)
        expect_cycles(design, "update", got)
        same("master", twin.read(), chip.read())
        same("momentum", twin.read_gradients(), chip.read_gradients())


def test_a_failed_run_raises_the_same_flags(simulate):
    """Weights far too large: states wrap, gradients crowd, masters clip, on both alike."""
    design = base("four lanes")
    chip, twin = simulate(design), IntegerDevice(design)
    generator = np.random.default_rng(3)
    wild = {name: generator.integers(1 << 33, 1 << 35, w.shape) * (-1 if name == "vector0" else 1)
            for name, w in from_values(design, design.values).items()}
    x, y = data(generator, 2, 8, design.inputs, design.outputs, "last")
    x, y = words(design, x, y[:, None])
    for device in (chip, twin):
        device.write(wild)
        device.clear()
    got, want = chip.run("learn", x, y), twin.run("learn", x, y)
    assert want.flags & 1 and got.flags == want.flags
    same("gradient", twin.read_gradients(), chip.read_gradients())
    crowded = {name: generator.integers(-(1 << 34), 1 << 34, w.shape) for name, w in wild.items()}
    for words_, flags in ((crowded, 4), ({n: w >> 3 for n, w in crowded.items()}, 8)):
        for device in (chip, twin):
            device.write_gradients(words_)
        found = {name: (70000, 1) for name in design.rates}
        got, want = chip.update(found), twin.update(found)
        assert got.flags == want.flags and want.flags & flags and got.saturated == want.saturated
        same("master", twin.read(), chip.read())
        same("momentum", twin.read_gradients(), chip.read_gradients())
    assert want.saturated > 0


def test_a_strange_chip_is_refused(simulate):
    """A wrong bitstream always, another program unless it is to be replaced; both ids are shown."""
    design = base("one lane")
    other = compiled("one lane", (5, 4, 2, 3), 3, 1, "last", design)
    link = simulate(design).link
    with pytest.raises(el.DesignMismatch, match=rf"the design is {other.program_id:08x}, the chip has "
                                                rf"{design.program_id:08x}$"):
        ChipDevice(other, link)
    assert ChipDevice(design, link).fresh is False
    stranger = base("four lanes")
    with pytest.raises(el.DesignMismatch, match=rf"^the bitstream was built for another hardware: load this design's "
                                                rf"bitstream; the design is {stranger.hardware.hardware_id:08x}, the "
                                                rf"chip {design.hardware.hardware_id:08x}$"):
        ChipDevice(stranger, link)


@pytest.mark.slow
def test_without_a_compiler_the_slow_simulator_answers(monkeypatch, tmp_path):
    monkeypatch.setattr("echolith.sim.simulator.have_compiler", lambda: False)
    monkeypatch.setenv("ECHOLITH_CACHE", str(tmp_path))
    design = compiled("one lane", (2, 2, 1, 1), 2, 1, "last", None)
    x, _ = data(np.random.default_rng(0), 1, 2, 1, 1, "last")
    with design.open("sim:") as slow, design.open("int:") as fast:
        np.testing.assert_array_equal(slow.predict(x), fast.predict(x))
