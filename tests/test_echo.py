"""The echo: every bit returns, over very many steps, with inputs streamed in reversed windows."""

import functools

import numpy as np
import pytest
import torch
from networks import Oscillators

import echolith as el


@functools.cache
def long_design(rows, rule):
    torch.manual_seed(0)
    x = np.random.default_rng(0).integers(-64, 65, (1, rows, 2)) / 64
    y = np.ones((1, 1))
    design = el.compile(Oscillators(3, 4, 2, 1, quartic=0.0), dynamics=el.Leapfrog(0.3, 2), rule=rule,
                        calibrate=(x, y), lanes=2, samples=0)
    return design, x, y


def test_100_000_steps_return_bit_for_bit_in_the_integer_model():
    design, x, _ = long_design(50_000, None)
    with design.open("int:compiled") as chip:
        echo = chip.echo(x)
    assert (echo.exact, echo.steps) == (True, 100_000)


def test_100_000_steps_return_bit_for_bit_in_rtl(simulate):
    design, x, _ = long_design(50_000, None)
    assert 2 * design.record.lines > design.hardware.depths.data, "the sample must not fit, so that its inputs stream"
    session = el.Session(design, simulate(design))
    session.set_values(design.values)
    echo = session.echo(x)
    assert (echo.exact, echo.steps) == (True, 100_000)


def test_a_streamed_sample_learns_what_a_held_one_does(simulate):
    """Samples beyond the data memory: reversed windows bring the same inputs to the echo."""
    design, x, y = long_design(200, el.HamiltonianEcho("last"))
    x = np.repeat(x, 3, axis=0) * np.array([1, -1, 0.5])[:, None, None]
    y = np.array([[1.0], [0.0], [1.0]])
    sessions = design.open("int:"), el.Session(design, simulate(design))
    sessions[1].set_values(design.values)
    assert 2 * design.record.lines > design.hardware.depths.data
    losses = [s.fit(x, y, epochs=2, batch_size=3, learning_rate=0.1).loss for s in sessions]
    assert losses[0] == losses[1] and losses[0][1] != losses[0][0]
    for one, two in ([s.state_dict() for s in sessions], [s.device.read_gradients() for s in sessions]):
        for name, expected in one.items():
            np.testing.assert_array_equal(two[name], expected)


@pytest.mark.parametrize("cost_at", ["last", "every"])
def test_the_echo_is_exact_even_while_states_wrap(cost_at):
    """Wrap-around is exact: only the range flag tells that the numbers mean nothing."""
    torch.manual_seed(0)
    x = np.random.default_rng(0).uniform(-1, 1, (4, 20, 2)).round(2)
    y = np.ones((4, 20, 1) if cost_at == "every" else (4, 1))
    design = el.compile(Oscillators(5, 6, 2, 1, quartic=0), dynamics=el.Leapfrog(0.25, 1),
                        rule=el.HamiltonianEcho(cost_at), calibrate=(x, y))
    with design.open("int:") as chip:
        chip.load_state_dict({"k": np.full(5, -3.9)})
        assert chip.echo(x).exact
        with pytest.raises(el.RangeError, match=r"a state left its range of \+-\d+ \(phase forward, step \d+, "
                                                r"sample \d+, unit \d+\); dt\^2 \* lambda_max = .*the batch was "
                                                r"discarded and the weights are kept; last checkpoint: none$"):
            chip.fit(x, y, epochs=1)
        assert np.array_equal(chip.state_dict()["k"], np.full(5, -3.9)) or np.allclose(chip.state_dict()["k"], -3.9)
