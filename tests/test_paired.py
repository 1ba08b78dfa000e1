"""Pairs of samples beside each other: several in one run, on shapes at the edges of the schedule's rules."""

import numpy as np
import pytest
import torch
from networks import Oscillators

import echolith as el

SAMPLES = 48  # calibrated with, so that all that are verified fit one window


# One row more than lanes; sums of drives that follow each other at once; more columns than states; full tiles of
# outputs, whose exponents are wanted at once; no force at all; sweeps that end as the sums before them have left.
@pytest.mark.parametrize("lanes, sizes, steps, substeps", [
    (4, (9, 7, 3, 4), 3, 2), (5, (6, 8, 2, 5), 4, 2), (6, (3, 13, 5, 1), 1, 1), (4, (8, 8, 2, 4), 2, 1)])
def test_several_pairs_in_a_run_are_equal_to_the_model(lanes, sizes, steps, substeps):
    torch.manual_seed(0)
    units, rows, inputs, outputs = sizes
    generator = np.random.default_rng(0)
    x = generator.integers(-8, 9, (SAMPLES, steps, inputs)) / 8
    y = generator.integers(0, 2, (SAMPLES, outputs)).astype(float)
    design = el.compile(Oscillators(units, rows, inputs, outputs), dynamics=el.Leapfrog(0.25, substeps), lanes=lanes,
                        rule=el.HamiltonianEcho("last"), calibrate=(x, y))
    assert design.hardware.paired
    found = design.verify(x[:11], y[:11])
    assert found, str(found)
    assert found.measured_cycles == found.predicted_cycles
