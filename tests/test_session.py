"""Sessions on the integer model: learning, checkpoints, files, and what bad input is told."""

import re

import numpy as np
import pytest
import torch
from networks import Oscillators

import echolith as el
from echolith.compiler.files import read_tensors, write_tensors
from echolith.host.rates import encode, rates, shuffled

OPTIONS = dict(epochs=1, batch_size=8, learning_rate=0.1, momentum=0.5)


def problem(samples=40):
    """Which of two inputs carries the pulse, and is it positive? Three rows each."""
    generator = np.random.default_rng(0)
    x = generator.integers(-2, 3, (samples, 3, 2)) / 16
    where, sign = generator.integers(0, 2, samples), generator.integers(0, 2, samples)
    x[np.arange(samples), 0, where] += np.where(sign, 1, -1)
    return x, np.stack([where, sign], axis=1).astype(float)


@pytest.fixture(scope="module")
def design():
    torch.manual_seed(0)
    x, y = problem()
    return el.compile(Oscillators(8, 8, 2, 2, quartic=0), dynamics=el.Leapfrog(0.25, 2),
                      rule=el.HamiltonianEcho("last"), calibrate=(x, y), lanes=2)


def test_it_learns(design):
    x, y = problem(200)
    with design.open() as chip:
        before = np.mean((chip.predict(x) > 0) == y)
        history = chip.fit(x, y, epochs=60, batch_size=16, learning_rate=0.1, momentum=0.9, schedule="cosine")
        after = np.mean((chip.predict(x) > 0) == y)
    assert before < 0.8 < 0.97 < after
    assert history.loss[-1] < 0.3 * history.loss[0] and history.updates == 60 * 13 and history.samples == 60 * 200


def test_a_checkpoint_continues_bit_for_bit(design, tmp_path):
    x, y = problem()
    straight, broken = design.open(), design.open()
    straight.fit(x, y, **OPTIONS)
    broken.fit(x, y, **OPTIONS, checkpoint=tmp_path / "one.ckpt")
    fresh = design.open()
    fresh.restore(tmp_path / "one.ckpt")
    for session in (straight, fresh):
        session.fit(x, y, **OPTIONS, seed=1)
    for name, value in straight.state_dict().items():
        np.testing.assert_array_equal(fresh.state_dict()[name], value)
    assert straight.device.response == fresh.device.response and straight.device.gain == fresh.device.gain


def test_parameters_round_trip(design):
    with design.open() as chip:
        state = chip.state_dict()
        assert state.keys() == design.values.keys()
        chip.load_state_dict({name: torch.from_numpy(value) for name, value in state.items()})
        for name, value in chip.state_dict().items():
            np.testing.assert_array_equal(value, state[name])
            np.testing.assert_allclose(value, design.values[name], atol=2.0**-30)


def test_a_saved_design_is_the_same_design(design, tmp_path):
    x, _ = problem()
    design.save(tmp_path / "net.echolith")
    loaded = el.load(tmp_path / "net.echolith")
    assert (loaded.hardware, loaded.program_id) == (design.hardware, design.program_id)
    with el.open(tmp_path / "net.echolith", "int:") as chip:
        np.testing.assert_array_equal(chip.predict(x), design.open().predict(x))


def test_damaged_files_are_refused(design, tmp_path):
    path = tmp_path / "net.echolith"
    design.save(path)
    whole = path.read_bytes()
    (tmp_path / "short").write_bytes(whole[:len(whole) // 2])
    (tmp_path / "text").write_text("not a design")
    for name in ("short", "text"):
        with pytest.raises(el.FileError, match=rf"^{re.escape(str(tmp_path / name))} is truncated, damaged or not an "):
            el.load(tmp_path / name)
    with pytest.raises(el.FileError, match=f"^there is no file {re.escape(str(tmp_path / 'absent'))}$"):
        el.load(tmp_path / "absent")
    tensors, text = read_tensors(path, "echolith-design-2")
    other = re.sub('"drive_shift": ([0-9]+)', '"drive_shift": 9', text["design"])
    write_tensors(tmp_path / "changed", "echolith-design-2", tensors, text | {"design": other})
    with pytest.raises(el.FileError, match=r"is damaged: its program should be [0-9a-f]{8}, not [0-9a-f]{8}$"):
        el.load(tmp_path / "changed")
    tensors, text = read_tensors(path, "echolith-design-2")
    for value, shown in (("null", "None"), ("0", "0"), ("[]", "[]")):
        write_tensors(path, text["kind"], tensors, {**text, "design": value})
        with pytest.raises(el.FileError) as error:
            el.load(path)
        assert str(error.value) == (f"{path} is not a design of this version: TypeError('an object is needed, not "
                                    f"{shown}')")
    chip = design.open()
    with pytest.raises(el.FileError, match=r"must be a file of kind echolith-checkpoint-1, not 'echolith-design-2'$"):
        chip.restore(path)


def test_a_flipped_bit_is_found_wherever_it_is(design, tmp_path):
    with design.open() as chip:
        chip.fit(*problem(), **OPTIONS, checkpoint=tmp_path / "one.ckpt")
        before, whole = chip.state_dict(), (tmp_path / "one.ckpt").read_bytes()
        places = np.random.default_rng(0).integers(0, 8 * len(whole), 100)
        for place in [*places, 8 * len(whole) - 1]:
            damaged = bytearray(whole)
            damaged[place // 8] ^= 1 << place % 8
            (tmp_path / "two.ckpt").write_bytes(damaged)
            with pytest.raises(el.FileError):
                chip.restore(tmp_path / "two.ckpt")
        for name, value in chip.state_dict().items():
            np.testing.assert_array_equal(value, before[name])
    with pytest.raises(el.FileError, match=r"two.ckpt is damaged: the checksum of what it holds is [0-9a-f]{8}, not "
                                           r"[0-9a-f]{8}$"):
        design.open().restore(tmp_path / "two.ckpt")


def test_a_checkpoint_of_another_design_is_refused(design, tmp_path):
    x, y = problem()
    other = el.compile(Oscillators(4, 8, 2, 2), dynamics=el.Leapfrog(0.25, 2), rule=el.HamiltonianEcho("last"),
                       calibrate=(x, y), lanes=2)
    other.open().save(tmp_path / "other.ckpt")
    with pytest.raises(el.FileError, match=f"belongs to another design: this one is {design.program_id:08x}, the "
                                           f"checkpoint's {other.program_id:08x}$"):
        design.open().restore(tmp_path / "other.ckpt")


@pytest.mark.parametrize("call, text", [
    (lambda c, x, y: c.predict(x[:, :2]), r"^X must have shape \(batch, steps, inputs\) = \(any, 3, 2\) for this "
                                          r"design, not \(40, 2, 2\)$"),
    (lambda c, x, y: c.fit(x, y[:5]), r"^Y must have shape \(batch, outputs\) = \(40, 2\) for this design, not "
                                      r"\(5, 2\)$"),
    (lambda c, x, y: c.fit(x * np.nan, y), r"^X must be finite; X\[0, 0, 0\] is nan$"),
    (lambda c, x, y: c.fit(x, y, momentum=1.0), r"^momentum must be in \[0, 1\), not 1.0$"),
    (lambda c, x, y: c.fit(x, y, schedule="step"), r"^schedule must be one of constant, cosine, linear, not 'step'$"),
    (lambda c, x, y: c.fit(x, y, learning_rate=1e9), r"^the learning rate is too large for the gradient's format; "),
    (lambda c, x, y: c.fit(x, y, learning_rate=1e300), r"^the learning rate is too large for the gradient's format; "),
    (lambda c, x, y: c.load_state_dict({"V": x}), r"^parameter names are .*, not 'V'$"),
    (lambda c, x, y: c.load_state_dict({"k": np.zeros(3)}), r"^k must have shape \(8,\), not \(3,\)$"),
    (lambda c, x, y: c.load_state_dict({"k": np.full(8, np.inf)}), r"^k must be finite, not inf$"),
])
def test_bad_input_is_named_and_nothing_is_lost(design, call, text):
    x, y = problem()
    with design.open() as chip:
        before = chip.state_dict()
        with pytest.raises(el.RangeError, match=text):
            call(chip, x, y)
        for name, value in chip.state_dict().items():
            np.testing.assert_array_equal(value, before[name])


@pytest.mark.parametrize("change, text", [
    (dict(dynamics=el.Leapfrog(4.0)), r"^energy: the dynamics diverge on the calibration data at input row \d+, "
                                      r"at `.*`; make dt "),
    (dict(calibrate=(np.zeros((4, 3, 3)), np.zeros((4, 2)))), r"^X must have shape \(batch, steps, inputs\) = "
                                                             r"\(any, any, 2\), not \(4, 3, 3\)$"),
    (dict(calibrate=(np.full((4, 3, 2), np.inf), np.zeros((4, 2)))), r"^X must be finite; X\[0, 0, 0\] is inf$"),
    (dict(calibrate=None), r"^give calibrate=\(X, Y\), or steps= with the number of input rows per sample$"),
    (dict(lanes=0), r'^lanes must be a whole number from 1 to 128 or "auto", not 0$'),
    (dict(board="icestick"), r"^board must be one of icebreaker, ulx3s-85f, not 'icestick'$"),
    (dict(precision={"state": "Q5"}), r"^a format must be spelled like Q5.12 or ap_fixed<18,6>, not 'Q5'$"),
])
def test_what_cannot_be_compiled_is_refused(change, text):
    x, y = problem()
    options = dict(dynamics=el.Leapfrog(0.25), rule=el.HamiltonianEcho(), calibrate=(x, y), lanes=2) | change
    with pytest.raises(el.CompileError, match=text):
        el.compile(Oscillators(4, 3, 2, 2, quartic=1.0), **options)


def test_without_data_the_fallback_format_is_used():
    design = el.compile(Oscillators(4, 3, 2, 2), dynamics=el.Leapfrog(0.25), rule=el.HamiltonianEcho(), steps=5)
    assert (design.hardware.width, design.fractions["state"], design.dynamics.steps) == (18, 12, 5)


def test_two_biases_share_their_word_and_what_it_learns():
    torch.manual_seed(0)
    model = Oscillators(4, 3, 2, 2)
    model.W = torch.nn.Linear(4, 3)
    x, y = problem()
    design = el.compile(model, dynamics=el.Leapfrog(0.25, 2), rule=el.HamiltonianEcho(), calibrate=(x, y), lanes=2)
    with design.open() as chip:
        g = chip.gradient(x, y)
        np.testing.assert_array_equal(g["W.bias"], g["B.bias"])
        before = chip.state_dict()
        chip.fit(x, y, epochs=1, batch_size=40, learning_rate=0.1)
        after = chip.state_dict()
    moved = [after[n] - before[n] for n in ("W.bias", "B.bias")]
    np.testing.assert_allclose(moved[0], moved[1], atol=1e-9)
    np.testing.assert_allclose(moved[0], -0.1 * g["W.bias"], rtol=0.05, atol=1e-4)


def test_rates_and_order_do_not_depend_on_library_versions():
    assert encode(0.75, 18) == (24576, 2) and encode(-3.0, 18) == (-98304, 2) and encode(0.0, 18) == (0, 3)
    assert sorted(shuffled(100, 3, 4)) == list(range(100))
    assert shuffled(6, 1, 2).tolist() == [1, 2, 0, 4, 5, 3]


def test_one_update_is_the_learning_rate_times_the_mean_gradient(design):
    x, y = problem(16)
    with design.open() as chip:
        g, before = chip.gradient(x, y), chip.state_dict()
        chip.fit(x, y, epochs=1, batch_size=16, learning_rate=0.2)
        for name, value in chip.state_dict().items():
            step = -0.2 * g[name]
            np.testing.assert_allclose(value - before[name], step, rtol=0.1, atol=1e-2 * np.abs(step).max())
    assert rates(design, 0.2, 0.0, 16, 0, 0)["decay"][0] == 0
