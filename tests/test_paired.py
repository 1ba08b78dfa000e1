"""Pairs of samples beside each other: several in one run, on shapes at the edges of the schedule's rules."""

import numpy as np
import pytest
import torch
from networks import Oscillators

import echolith as el
from echolith.bench.nets import design as reference
from echolith.compiler import timing
from echolith.compiler.utilisation import utilisation

SAMPLES = 48  # calibrated with, so that all that are verified fit one window


def verified(lanes, sizes, steps, substeps, cost_at="last"):
    """A design whose RTL is found to be the model's equal."""
    torch.manual_seed(0)
    units, rows, inputs, outputs = sizes
    generator = np.random.default_rng(0)
    x = generator.integers(-8, 9, (SAMPLES, steps, inputs)) / 8
    y = generator.integers(0, 2, (SAMPLES, *(steps,) * (cost_at == "every"), outputs)).astype(float)
    design = el.compile(Oscillators(units, rows, inputs, outputs), dynamics=el.Leapfrog(0.25, substeps), lanes=lanes,
                        rule=el.HamiltonianEcho(cost_at), calibrate=(x, y))
    assert design.hardware.paired
    found = design.verify(x[:11], y[:11])
    assert found, str(found)
    assert found.measured_cycles == found.predicted_cycles
    return design


@pytest.fixture
def handing_on(monkeypatch, tmp_path):
    """Groups of lanes hand on what they get, however few they are."""
    timing.tails.cache_clear()
    monkeypatch.setattr(timing, "HANDING", 1)
    monkeypatch.setenv("ECHOLITH_CACHE", str(tmp_path))  # other tests' simulations are of other hardware
    yield
    timing.tails.cache_clear()


# One row more than lanes; sums of drives that follow each other at once; more columns than states; full tiles of
# outputs, whose exponents are wanted at once; no force at all; sweeps that end as the sums before them have left; tiles
# of three rows and of one, with lanes between whose operands are those of sweeps before.
@pytest.mark.parametrize("lanes, sizes, steps, substeps", [
    (4, (9, 7, 3, 4), 3, 2), (5, (6, 8, 2, 5), 4, 2), (6, (3, 13, 5, 1), 1, 1), (4, (8, 8, 2, 4), 2, 1),
    (4, (5, 9, 2, 1), 3, 2)])
def test_several_pairs_in_a_run_are_equal_to_the_model(lanes, sizes, steps, substeps):
    verified(lanes, sizes, steps, substeps)


# Row operands in the last group; in the last tile's, too; in none but the first, with a group filled in part.
@pytest.mark.parametrize("lanes, sizes, steps, substeps, cost_at", [
    (12, (9, 12, 3, 4), 3, 2, "last"), (8, (17, 24, 2, 8), 3, 1, "every"), (9, (20, 4, 2, 3), 3, 2, "last")])
def test_groups_one_behind_the_other_are_equal_to_the_model(lanes, sizes, steps, substeps, cost_at, handing_on):
    design = verified(lanes, sizes, steps, substeps, cost_at)
    assert timing.skew(design.hardware) == -(-lanes // 4) - 1


# Lanes that divide neither; a read-out in a fraction of the lanes; several read-outs.
@pytest.mark.parametrize("sizes, lanes, cost_at, least", [
    ((21, 19), 16, "last", 0.55), ((23, 29), 12, "last", 0.76), ((37, 41), 16, "last", 0.82),
    ((64, 64), 64, "last", 0.86), ((64, 64), 64, "every", 0.69), ((64, 64), 16, "every", 0.93)])
def test_multipliers_are_busy(sizes, lanes, cost_at, least):
    torch.manual_seed(0)
    generator = np.random.default_rng(0)
    x, outputs = generator.uniform(-1, 1, (16, 8, 8)), (8, 10) if cost_at == "every" else (10,)
    design = el.compile(Oscillators(*sizes, 8, 10, mse=True), dynamics=el.Leapfrog(0.25, 2), lanes=lanes,
                        rule=el.HamiltonianEcho(cost_at), calibrate=(x, generator.uniform(-0.5, 0.5, (16, *outputs))))
    assert utilisation(design, 32) > least


def test_as_many_lanes_as_the_reference_network_has_units_are_busy():
    assert utilisation(reference(64, 64), 32) >= 0.88


def test_rows_are_dealt_evenly_over_tiles():
    torch.manual_seed(0)
    x = np.random.default_rng(0).uniform(-1, 1, (8, 3, 2))
    options = {"dynamics": el.Leapfrog(0.25, 1), "calibrate": (x, np.zeros((8, 5))), "rule": el.HamiltonianEcho()}
    design = el.compile(Oscillators(6, 9, 2, 5), lanes=8, **options)
    assert {b.name: design.hardware.tile_rows(b.rows) for b in design.blocks} == {"hidden": 5, "drive": 5, "readout": 5}
    small = el.compile(Oscillators(6, 9, 2, 5), lanes=2, board="icebreaker", **options)
    assert {small.hardware.tile_rows(b.rows) for b in small.blocks} == {2}  # as in all hardware without overlap
