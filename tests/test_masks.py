"""Missing targets: no cost, no nudge, and the same cycles."""

import re

import numpy as np
import pytest
import test_softmax
import torch
from energies import INPUTS, OUTPUTS, STEPS, Blocks
from test_general import cosine
from test_machine import data, same

import echolith as el
from echolith.compiler.reference import bptt
from echolith.host.session import Session
from echolith.sim.device import IntegerDevice
from echolith.sim.twin import Twin

SAMPLES = 32


def problem(cost_at, share=0.6):
    generator = np.random.default_rng(0)
    x, y = data(generator, SAMPLES, STEPS, INPUTS, OUTPUTS, "last" if cost_at == "last" else "every")
    mask = generator.uniform(size=y.shape[:-1]) < share
    mask[:2] = [[False], [True]] if mask.ndim == 2 else [False, True]
    return x, y, mask


def compiled(net, cost_at, calibrate, like=None):
    return el.compile(net, dynamics=el.Leapfrog(0.25, 2), rule=el.HamiltonianEcho(cost_at), calibrate=calibrate,
                      lanes=3, like=like)


@pytest.fixture(scope="module")
def every():
    net, given = Blocks().double(), problem("every")
    return net, compiled(net, "every", given), given


def flat(gradient, names):
    return np.concatenate([np.ravel(gradient[name]) for name in names])


def apart(a, b):
    return np.linalg.norm(a - b) / np.linalg.norm(b)


@pytest.mark.parametrize("cost_at", ["last", "every", "mean"])
def test_gradient_agrees_with_autograd(cost_at):
    net, (x, y, mask) = Blocks().double(), problem(cost_at)
    expected = bptt(net, x, y, 0.25, 2, cost_at, mask)[0]
    without = bptt(net, x, y, 0.25, 2, cost_at)[0]
    with compiled(net, cost_at, (x, y, mask)).open() as chip:
        found = chip.gradient(x, y, mask)
        a, b, c = (flat(g, found) for g in (found, expected, without))
        assert cosine(a, b) >= 0.9998 and apart(a, b) < 0.02 < 0.3 < apart(a, c)


def test_the_rtl_equals_the_integer_model(every, simulate):
    _, design, (x, y, mask) = every
    twin = Twin(IntegerDevice(design), simulate(design))  # raises where they differ
    session = Session(design, twin)
    session.set_values(design.values)
    session.fit(x[:7], y[:7], mask=mask[:7], batch_size=4, learning_rate=0.05, momentum=0.5)
    session.gradient(x[:3], y[:3], mask[:3])
    assert (session.state_dict()["W"] != design.values["W"]).any()
    assert twin.measured_cycles == twin.predicted_cycles > 0


def test_without_a_mask_nothing_changes_but_the_cost_circuit(every):
    net, design, (x, y, mask) = every
    plain = compiled(net, "every", (x, y))
    whole = compiled(net, "every", (x, y, np.ones_like(mask)))
    assert plain.missing is None and whole.missing == design.missing == -(1 << design.hardware.target_bits - 1)
    assert [op.kind for op in whole.hardware.cost.ops if op not in plain.hardware.cost.ops] == ["unless"]
    with plain.open() as a, whole.open() as b:
        same("gradient", a.gradient(x, y), b.gradient(x, y))
        same("gradient", a.gradient(x, y, np.ones_like(mask)), b.gradient(x, y, np.ones_like(mask)))


def test_what_is_masked_may_be_anything(every):
    _, design, (x, y, mask) = every
    odd = np.where(mask[..., None], y, np.nan)
    with design.open() as chip:
        same("gradient", chip.gradient(x, y, mask), chip.gradient(x, torch.from_numpy(odd), torch.from_numpy(mask)))
        assert not any(g.any() for g in chip.gradient(x, odd, np.zeros_like(mask)).values())


@pytest.mark.parametrize("cost_at", ["every", "mean"])
def test_losses_leave_masked_steps_out(cost_at):
    x, y, mask = problem(cost_at)
    with compiled(Blocks().double(), cost_at, (x, y, mask)).open() as chip:
        costs = ((chip.predict(x) - y) ** 2).mean(-1) * mask
        loss = chip.fit(x, y, mask=mask, learning_rate=0.0, batch_size=SAMPLES).loss[0]
        assert loss == pytest.approx(costs.sum(1).mean() / (STEPS if cost_at == "mean" else 1), rel=1e-6)


def test_single_outputs_can_be_masked():
    class Partial(Blocks):
        def cost(self, s, r, y):
            return torch.where(torch.isnan(y), 0.0, self.predict(s, r) - torch.nan_to_num(y)).square().mean()

    x, y, _ = problem("every")
    mask = np.random.default_rng(1).integers(0, 2, y.shape)
    expected = bptt(Partial().double(), x, np.where(mask, y, np.nan), 0.25, 2, "every")[0]
    with compiled(Blocks().double(), "every", (x, y, mask)).open() as chip:
        found = chip.gradient(x, y, mask)
        assert cosine(flat(found, found), flat(expected, found)) >= 0.9998


@pytest.mark.parametrize("kind, cost_at", [("classes", "every"), ("classes", "last"), ("shares", "every")])
def test_targets_of_a_softmax_can_be_masked(kind, cost_at):
    net, _, x, y = test_softmax.case(kind, cost_at)
    mask = np.random.default_rng(1).uniform(size=y.shape[:1 if cost_at == "last" else 2]) < 0.5
    expected = bptt(net, x, y, 0.25, 2, cost_at, mask)[0]
    y = np.where(mask if kind == "classes" else mask[..., None], y, np.nan)
    with test_softmax.compiled(net, cost_at, (x, y, mask)).open() as chip:
        found = chip.gradient(x, y, mask)
        a, b = (flat(g, found) for g in (found, expected))
        assert cosine(a, b) >= 0.9999 and apart(a, b) < 0.02
        if kind == "shares":
            with refusal("mask must leave out whole targets of a softmax, not single outputs"):
                chip.gradient(x, y, np.eye(y.shape[-1])[np.zeros(y.shape[:-1], int)])
        else:
            assert chip.design.verify(x[:2], y[:2], mask=mask[:2], url="int:")


def test_learning_follows_the_targets_that_are_there(every):
    _, design, (x, y, mask) = every
    with design.open() as chip:
        wrong = np.where(mask[..., None], y, 1 - y)
        before = np.mean((chip.predict(x) - y)[mask] ** 2)
        chip.fit(x, wrong, mask=mask, epochs=8, batch_size=8, learning_rate=0.02, momentum=0.5)
        assert np.mean((chip.predict(x) - y)[mask] ** 2) < 0.7 * before


def test_the_reserved_word_is_no_target():
    x, y, mask = problem("every")
    x, y = np.clip(np.rint(x), -1, 1), np.where(y, 1.0, -2.0)  # which fit two bits, -2 as the most negative word
    net = Blocks().double()
    plain, design = compiled(net, "every", (x, y)), compiled(net, "every", (x, y, mask))
    assert (plain.hardware.target_bits, design.hardware.target_bits) == (2, 3)
    with plain.open() as a, design.open() as b:
        assert apart(flat(a.gradient(x, y), a.design.learned), flat(b.gradient(x, y), a.design.learned)) < 0.005


def test_one_hardware_serves_networks_with_and_without_a_mask(every):
    net, design, (x, y, mask) = every
    again = compiled(net, "every", (x, y), like=design)
    assert again.hardware == design.hardware
    with pytest.raises(el.DesignMismatch, match="^the network does not fit this hardware: cost is another circuit$"):
        compiled(net, "every", (x, y, mask), like=compiled(net, "every", (x, y)))


def test_the_cycles_do_not_depend_on_the_mask(every):
    net, design, (x, y, _) = every
    rows = np.zeros((SAMPLES, STEPS))
    rows[:, -1] = 1
    late = compiled(net, "every", (x, y, rows))
    assert late.estimate()["cycles"] == design.estimate()["cycles"]


def test_verify_takes_a_mask(every):
    _, design, (x, y, mask) = every
    assert design.verify(x[:4], y[:4], mask=mask[:4], url="int:")


def refusal(text):
    return pytest.raises(el.EcholithError, match="^" + re.escape(text) + "$")


def test_wrong_masks_are_refused(every):
    net, design, (x, y, mask) = every
    with design.open() as chip, compiled(net, "every", (x, y)).open() as plain:
        with refusal(f"mask must have shape {mask.shape}, one value per target, or that of Y, not (32,)"):
            chip.gradient(x, y, mask[:, 0])
        with refusal("mask must hold ones, and zeros where there is no target, not 0.5"):
            chip.fit(x, y, mask=np.full(mask.shape, 0.5))
        with refusal("this design was compiled without masks; compile it with calibrate=(X, Y, mask), not "
                     f"{np.count_nonzero(~mask) * OUTPUTS} masked targets"):
            plain.fit(x, y, mask=mask)
        with refusal("Y must be finite; Y[0, 0, 0] is nan"):
            chip.gradient(x, np.full(y.shape, np.nan), np.ones_like(mask))
    with refusal("mask must leave targets to calibrate with, not none"):
        compiled(net, "every", (x, y, 0 * mask))
