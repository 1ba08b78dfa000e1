"""The cost at every step without copy 0: the cost derivatives of the free phase wait for the echoes."""

import functools

import numpy as np
import pytest
import torch
from energies import Softmax
from networks import Oscillators
from test_general import case

import echolith as el
from echolith.compiler.cycles import cycles
from echolith.compiler.isa import Dest, Field, Opcode
from echolith.compiler.utilisation import utilisation
from echolith.sim.data import words
from echolith.sim.device import IntegerDevice
from echolith.sim.weights import from_values

SAMPLES = 48  # calibrated with, so that all that are run fit one window


def data(steps, sizes):
    generator = np.random.default_rng(0)
    x = generator.integers(-8, 9, (SAMPLES, steps, sizes[2])) / 8
    return x, generator.integers(0, 2, (SAMPLES, steps, sizes[3])).astype(float)


def compiled(steps, substeps, sizes, like=None, board="ulx3s-85f"):
    torch.manual_seed(0)
    return el.compile(Oscillators(*sizes, bias=False), dynamics=el.Leapfrog(0.2, substeps), lanes=3, like=like,
                      rule=el.HamiltonianEcho("every"), calibrate=data(steps, sizes), board=board)


@functools.cache
def base():
    return compiled(5, 2, (9, 14, 4, 4))


def ran(device, design, entry, samples):
    """A run from fresh weights, with the gradients that it leaves."""
    x, y = words(design, *data(design.dynamics.steps, (design.units, 0, design.inputs, design.outputs)))
    device.write(from_values(design, design.values))
    device.clear()
    return device.run(entry, x[:samples], y[:samples]), device.read_gradients()


def same(a, b):
    assert a.keys() == b.keys()
    for name, wanted in a.items():
        np.testing.assert_array_equal(wanted, b[name], name)


@pytest.mark.parametrize("steps, substeps, sizes, samples", [
    (1, 1, (9, 14, 4, 4), 4), (1, 3, (2, 3, 1, 2), 3), (2, 2, (9, 14, 4, 4), 6), (3, 2, (9, 14, 4, 4), 5),
    (4, 1, (8, 13, 4, 4), 7), (5, 2, (5, 7, 2, 1), 4), (3, 3, (1, 4, 3, 4), 2), (5, 1, (7, 2, 4, 3), 4)])
def test_pairs_beside_each_other_learn_what_copy_0_does(simulate, steps, substeps, sizes, samples):
    design = compiled(steps, substeps, sizes, base())
    assert design.hardware.hardware_id == base().hardware.hardware_id
    run, gradients = ran(IntegerDevice(design), design, "learn", samples)
    chip, found = ran(simulate(design), design, "unchecked", samples)
    np.testing.assert_array_equal(run.outputs, chip.outputs)
    assert (run.flags, run.response, run.leading) == (chip.flags, chip.response, chip.leading)
    assert chip.pairs == (-(-samples // 2),)
    assert chip.cycles - chip.stalls == cycles(design.program, design.entries["unchecked"], design.hardware,
                                               chip.pairs[0])
    same(gradients, found)
    same(gradients, ran(IntegerDevice(design), design, "unchecked", samples)[1])


def test_a_softmax_learns_the_same_with_and_without_copy_0():
    _, design, _, _ = case(Softmax, "every")
    assert design.hardware.general and "unchecked" in design.entries
    (_, with_copy), (_, without) = (ran_softmax(design, entry) for entry in ("learn", "unchecked"))
    same(with_copy, without)


def ran_softmax(design, entry):
    _, _, x, y = case(Softmax, "every")
    device = IntegerDevice(design)
    device.write(from_values(design, design.values))
    return device.run(entry, *words(design, x, y)), device.read_gradients()


def test_where_no_derivatives_are_kept_copy_0_runs_in_every_batch():
    for design in (compiled(3, 2, (9, 14, 4, 4), board="icebreaker"), compiled(9, 2, (9, 14, 4, 4), base())):
        assert "unchecked" not in design.entries and design.learning(1) == "learn"
        assert not any(kept(word) for word in design.program)
    assert any(kept(word) for word in base().program)


def kept(word):
    return word >> 28 == Opcode.FORWARD and word >> Field.DEST & 3 == Dest.COST and bool(word >> Field.NUDGE & 1)


def test_the_next_pair_runs_forward_beside_the_echoes():
    design = base()
    pairs = {n: cycles(design.program, design.entries["unchecked"], design.hardware, n) for n in (8, 9)}
    checked = {n: cycles(design.program, design.entries["learn"], design.hardware, n) for n in (8, 9)}
    assert pairs[9] - pairs[8] < 0.65 * (checked[9] - checked[8])
    assert utilisation(design, 32) > 1.25 * utilisation(compiled(9, 2, (9, 14, 4, 4), design), 32)
