"""Many updates on the chip against as many in float64: what is lost while weights, momenta and ranges move."""

from itertools import count
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from networks import Oscillators
from test_stacked import GATE, Net, Rows, cosine

import echolith as el
from echolith.compiler.reference import bptt
from echolith.compiler.registers import ERRORS
from echolith.examples.series import Series
from echolith.host import measure
from echolith.host.dither import dithered
from echolith.host.extrapolate import chosen, limit
from echolith.host.measure import Measurement
from echolith.sim.weights import from_values

RATE, MOMENTUM, UPDATES, SAMPLES, ROWS, INPUTS = 0.02, 0.9, 20, 16, 24, 3


class Strong(Series):
    """A read-out whose gradients are much larger than those of layers."""

    def __init__(self):
        super().__init__(INPUTS, 2, ROWS, blocks=1, width=6, units=6, means=4)


NETS = {
    "one layer": lambda: Oscillators(8, 6, INPUTS, 2),
    "gate": lambda: Net({"low": Rows(INPUTS), "mix": GATE(6, 4), "high": Rows(4)}),
    "series": Strong,
}


def learned_in_float64(net, x, y, dynamics):
    parameters = dict(net.double().named_parameters())
    velocity = {name: np.zeros(p.shape) for name, p in parameters.items()}
    for _ in range(UPDATES):
        gradient, _ = bptt(net, x, y, dynamics.dt, dynamics.substeps)
        for name, p in parameters.items():
            velocity[name] = MOMENTUM * velocity[name] + gradient[name]
            p.data -= RATE * torch.from_numpy(velocity[name])
    return {name: p.detach().numpy().copy() for name, p in parameters.items()}


@pytest.mark.parametrize("name", NETS)
def test_what_many_updates_change_is_what_they_change_in_float64(name):
    torch.manual_seed(0)
    net, dynamics, generator = NETS[name](), el.Leapfrog(0.25), np.random.default_rng(0)
    x = generator.integers(-8, 9, (SAMPLES, ROWS, net.inputs)) / 8
    y = np.eye(net.outputs)[generator.integers(net.outputs, size=SAMPLES)]
    design = el.compile(net, dynamics=dynamics, rule=el.HamiltonianEcho(), lanes=4, calibrate=(x, y))
    with design.open("int:") as chip:
        before = chip.state_dict()
        chip.fit(x, y, epochs=UPDATES, batch_size=SAMPLES, learning_rate=RATE, momentum=MOMENTUM)
        found = {n: w - before[n] for n, w in chip.state_dict().items()}
    expected = {n: w - before[n] for n, w in learned_in_float64(net, x, y, dynamics).items()}
    whole = np.sqrt(sum(np.sum(w**2) for w in expected.values()))
    for part in {n.split(".")[0] for n in expected}:
        names = [n for n in expected if n.split(".")[0] == part]
        if np.sqrt(sum(np.sum(expected[n] ** 2) for n in names)) >= 0.01 * whole:
            assert cosine(found, expected, names) >= 0.999, part


class Measured(Measurement):
    """Of gradients whose errors are known: of nudges that are too strong, and of rounding."""

    design = SimpleNamespace(backs=())

    def __init__(self, square, rounding):
        self._square, self._rounding = square, rounding
        self.exact = np.random.default_rng(0).normal(size=64)

    def _at(self, weaker, parts, daring=False):
        size, generator = 2.0**-weaker, np.random.default_rng(weaker + 99)
        bent = self._square * size**2 * np.roll(self.exact, 1) + self._square**2 * size**4 * np.roll(self.exact, 2)
        return {"w": self.exact + bent + self._rounding / size * generator.normal(size=64)}


@pytest.mark.parametrize("square, rounding, nudges", [(0.0, 0.01, 2), (0.1, 1e-5, 4)])
def test_an_estimate_cancels_what_bends_and_else_keeps_rounding_small(square, rounding, nudges):
    measured = Measured(square, rounding)
    picks, found = measured._best([])
    assert len(picks["w"][1]) == nudges
    assert 1 - cosine(found, {"w": measured.exact}, ["w"]) < 1e-4


def test_every_parameter_is_taken_from_the_nudges_that_are_best_for_it():
    """One bends early, one is mostly rounding, one has a rounding that is the same in every run."""
    exact, generator = np.random.default_rng(0).normal(size=64), np.random.default_rng(1)

    def runs(bend, rounding, same=0.0):
        fixed = generator.normal(size=64)
        return {w: [np.sin(bend * 2.0**-w * exact) / (bend * 2.0**-w)
                    + 2.0**w * (same * fixed + rounding * generator.normal(size=64)) for _ in range(8)]
                for w in range(-3, 6)}

    picked = []
    for made in (runs(0.5, 1e-4), runs(0.01, 0.03), runs(0.01, 1e-5, 0.03)):
        weaker, kind = chosen(made)
        found = limit({w: np.mean(values, axis=0) for w, values in made.items()}, weaker, kind)
        assert np.linalg.norm(found - exact) < 0.01 * np.linalg.norm(exact)
        picked.append((weaker, len(kind)))
    assert picked == [(-1, 4), (-3, 2), (-3, 2)]


def with_states(form):
    """An oscillator network whose states have this format, its gradient in float64, and samples."""
    torch.manual_seed(0)
    net, generator = Oscillators(8, 6, INPUTS, 2), np.random.default_rng(0)
    x = generator.integers(-8, 9, (SAMPLES, ROWS, INPUTS)) / 8
    y = np.eye(2)[generator.integers(2, size=SAMPLES)]
    dynamics = el.Leapfrog(0.25)
    design = el.compile(net, dynamics=dynamics, rule=el.HamiltonianEcho(), lanes=4, calibrate=(x, y),
                        precision={"state": form})
    return design, bptt(net.double(), x, y, dynamics.dt, dynamics.substeps, "last")[0], x, y


def test_neighbouring_weights_make_a_gradient_better_and_are_taken_back(monkeypatch):
    design, expected, x, y = with_states("Q8.9")
    with design.open("int:") as chip:
        before = chip.device.read()
        averaged = 1 - cosine(chip.gradient(x, y), expected, expected)
        after = chip.device.read()
        monkeypatch.setattr(measure, "_DITHERS", 1)
        single = 1 - cosine(chip.gradient(x, y), expected, expected)
    assert 1e-5 < averaged < 0.6 * single
    assert all((after[name] == word).all() for name, word in before.items())


def test_weights_are_put_back_when_a_run_fails(monkeypatch):
    design, _, x, y = with_states("Q8.9")
    with design.open("int:") as chip:
        before, run, written = chip.device.read(), chip.device.run, chip.device.write

        def failing(words):
            written(words)
            if any((words[name] != word).any() for name, word in before.items()):
                monkeypatch.setattr(chip.device, "run", lambda *_, **__: 1 / 0)

        monkeypatch.setattr(chip.device, "write", failing)
        with pytest.raises(ZeroDivisionError):
            chip.gradient(x, y)
        monkeypatch.setattr(chip.device, "run", run)
        assert all((chip.device.read()[name] == word).all() for name, word in before.items())


def test_dithered_words_are_less_than_a_unit_of_states_away_and_only_of_what_learns():
    torch.manual_seed(0)
    net = Oscillators(8, 6, INPUTS, 2)
    net.B.requires_grad_(False)
    x = np.zeros((4, ROWS, INPUTS))
    x[:, 0] = 1.0
    design = el.compile(net, dynamics=el.Leapfrog(0.25), rule=el.HamiltonianEcho(), lanes=4,
                        calibrate=(x, np.eye(2)[[0, 1, 0, 1]]))
    words = from_values(design, design.values)
    found = dithered(design, words, 1)
    for p in design.placements:
        moved = (found[p.block] - words[p.block])[:, p.column:p.column + p.columns] * 2.0**-p.fraction
        assert np.abs(moved).max() < 2.0 ** -design.fractions["state"]
        assert (moved != 0).any() == any(p.learned)
    again, other = dithered(design, words, 1), dithered(design, words, 2)
    assert all((again[name] == word).all() for name, word in found.items())
    assert any((other[name] != word).any() for name, word in found.items())


def test_nudges_between_layers_are_rounded_otherwise_too_and_their_mean_is_what_it_was():
    torch.manual_seed(0)
    net, generator = NETS["gate"](), np.random.default_rng(0)
    x, y = generator.integers(-8, 9, (4, ROWS, INPUTS)) / 8, np.eye(2)[[0, 1, 0, 1]]
    design = el.compile(net, dynamics=el.Leapfrog(0.25), rule=el.HamiltonianEcho(), lanes=4, calibrate=(x, y))
    words = from_values(design, design.values)
    found = [words["nudge"], *(dithered(design, words, seed)["nudge"] for seed in range(1, measure._DITHERS))]
    assert len({tuple(w.ravel()) for w in found}) == 7 and np.all(np.mean(found, axis=0) == words["nudge"])


def test_nudges_that_drove_a_state_out_of_its_range_are_forgotten(monkeypatch):
    """As long as estimates agree better and better, stronger nudges are tried until one wraps; then weaker ones."""
    (design, _, x, y), better = with_states("Q1.16"), count(1.0, -0.01)
    monkeypatch.setattr(measure, "_FARTHEST", 8)
    monkeypatch.setattr(measure, "agreement", lambda *_: next(better))
    tried = []
    with design.open("int:") as chip:
        settings, run = (chip.device.response, chip.device.gain), chip.device.run

        def watched(*arguments, **options):
            found = run(*arguments, **options)
            tried.append((chip.device.response, bool(found.flags & ERRORS)))
            return found

        monkeypatch.setattr(chip.device, "run", watched)
        gradient = chip.gradient(x, y)
        assert (chip.device.response, chip.device.gain) == settings
    wrapped = [at for at, (_, flagged) in enumerate(tried) if flagged]
    assert wrapped == [wrapped[0]] and tried[wrapped[0] + 1][0] < settings[0]
    assert all(np.isfinite(g).all() for g in gradient.values())
