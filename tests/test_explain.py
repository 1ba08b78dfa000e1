"""Explanations, estimates and the count of useful work, on networks small enough to count by hand."""

import json

import numpy as np
import pytest
import torch
from torch import nn

import echolith as el
from echolith.compiler.cycles import cycles
from echolith.compiler.estimate import memories
from echolith.compiler.explain import explain, stability
from echolith.compiler.utilisation import copy0, utilisation, work

UNITS, ROWS, INPUTS, OUTPUTS = 3, 4, 2, 2


class Net(nn.Module):
    states, inputs, outputs = {"q": UNITS}, INPUTS, OUTPUTS

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.W = nn.Linear(UNITS, ROWS, bias=False)
        self.B = nn.Linear(INPUTS, ROWS)
        self.C = nn.Linear(UNITS, OUTPUTS)
        self.k = nn.Parameter(torch.full((UNITS,), 2.0))

    def energy(self, q, u):
        return 0.5 * (self.k * q**2).sum() + torch.log(torch.cosh(self.W(q) + self.B(u))).sum()

    def cost(self, q, y):
        return 0.5 * ((self.C(q) - y) ** 2).sum()


class Springs(nn.Module):
    """No readout, and a coupling that does nothing: V = 2 q^2 + const."""

    states, inputs, outputs = {"q": 2}, 1, 2

    def __init__(self):
        super().__init__()
        self.register_buffer("W", torch.zeros(1, 2))

    def energy(self, q, u):
        return 2 * (q**2).sum() + torch.sin(self.W @ q).sum()


def compiled(steps=3, substeps=2, cost_at: str | None = "last", check=16, **options):
    rule = el.HamiltonianEcho(cost_at, check) if cost_at else None
    return el.compile(Net(), dynamics=el.Leapfrog(0.25, substeps), rule=rule, steps=steps, **{"lanes": 2, **options})


def test_work_with_the_cost_at_the_last_step_is_counted_by_hand():
    found = work(compiled())
    # Six steps, five forces, which see all three input rows. W has 12 words, B and b 12, C and d 8 (6 face the units).
    assert found.predict == 5 * 2 * 12 + 3 * 12 + 8
    echo = 2 * 5 * (2 * 12 + 12 + 12) + 3 * 12
    assert found.learn == found.predict + echo + 6 + 8
    assert found.update == 12 + 12 + 8
    assert copy0(compiled()) == 5 * 2 * 12


def test_work_with_the_cost_at_every_step_adds_readouts_and_nudges():
    last, every = work(compiled()), work(compiled(cost_at="every"))
    assert every.predict == last.predict + 2 * 8
    assert every.learn == last.learn + 2 * 8 + 2 * (8 + 6)


def test_an_input_row_whose_only_force_comes_after_the_last_readout_is_not_counted():
    assert work(compiled(substeps=1)).predict == 2 * 2 * 12 + 2 * 12 + 8


def test_an_inference_core_has_no_learning_work():
    design = compiled(cost_at=None)
    assert (work(design).learn, work(design).update) == (0, 0)
    assert 0 < utilisation(design, 32) < 1


@pytest.mark.parametrize("lanes", [1, 2, 8])
def test_utilisation_is_useful_work_over_cycles_times_multipliers(lanes):
    design = compiled(lanes=lanes)
    update, found = cycles(design.program, design.entries["update"], design.hardware), work(design)
    for entry, more in (("unchecked", 0), ("learn", copy0(design))):
        spent = cycles(design.program, design.entries[entry], design.hardware, 16) + update
        useful = 32 * (found.learn + more) + found.update
        assert utilisation(design, 32, with_copy0=entry == "learn") == useful / (spent * 2 * lanes) < 1


def test_estimates_are_exact_cycles_and_plain_json():
    design = compiled()
    found = json.loads(json.dumps(design.estimate()))
    for name, entry in (("learn", "unchecked"), ("checked", "learn")):
        batch = cycles(design.program, design.entries[entry], design.hardware, 16)
        assert found["cycles"][f"{name}_sample"] == batch / 32
    assert found["cycles"]["update"] == cycles(design.program, design.entries["update"], design.hardware)
    speeds = found["samples_per_second"]["learn"]
    assert speeds["chip"] == pytest.approx(125e6 / (found["cycles"]["learn_sample"] + found["cycles"]["update"] / 32))
    assert speeds["chip"] > speeds["held"] > speeds["link"]


def test_an_inference_core_estimates_no_learning():
    found = compiled(cost_at=None).estimate()
    assert list(found["cycles"]) == ["predict_sample"]
    assert "gradients" not in [m["name"] for m in found["memory"]]


def test_memories_hold_what_the_network_uses():
    for design in (compiled(), compiled(lanes=8), compiled(cost_at="every", board="icebreaker")):
        assert all(0 < m.used <= m.words for m in memories(design))


def test_multipliers_are_two_per_lane_and_those_of_the_pipelines():
    found = compiled(lanes=4).estimate()["multipliers"]
    assert found["array"] == 8
    assert found["total"] == 8 + found["neuron_unit"]
    assert found["neuron_unit"] >= 3  # the activation's table and two for the update of k


def explained(design) -> dict[str, str]:
    """Lines by their label, blanks squeezed."""
    lines = [line.strip() for line in explain(design).splitlines() if line.startswith("  ")]
    return {line.split("  ")[0]: " ".join(line.split()) for line in lines}


def test_an_explanation_tells_energy_forces_and_updates():
    lines = explained(compiled())
    assert lines["z0"] == "z0 W.weight q + B.weight u + B.bias"
    assert lines["dV/dz0"] == "dV/dz0 tanh(z0)"
    assert lines["dV/dq"] == "dV/dq (k*q) + W.weight' dV/dz0"
    assert lines["dW.weight"] == "dW.weight contrast of dV/dz0 q'"
    assert lines["dB.weight"] == "dB.weight contrast of dV/dz0 u'"
    assert lines["dB.bias"] == "dB.bias contrast of dV/dz0"
    assert lines["dC.weight"] == "dC.weight dcost/dy q'"
    assert lines["dC.bias"] == "dC.bias dcost/dy"
    assert lines["dk"] == "dk contrast of 0.5*pow(q, 2)"


@pytest.mark.parametrize("check, copy0_runs", [(16, ", in 1 of 16 batches copy 0 too,"), (1, " and copy 0")])
def test_an_explanation_says_which_echoes_run(check, copy0_runs):
    lines = explained(compiled(check=check))
    assert lines["learn"] == (
        "learn predict, then echoes + and - (two-sided, of what a chip can run the cheapest within the gates: "
        f"`echolith bench passes`){copy0_runs} back: per step the force and its outer products")
    assert ("copy 0 not counted but always run" in lines["useful MACs"]) == (check == 1)


def test_an_explanation_of_an_inference_core_has_no_updates():
    text = explain(compiled(cost_at=None))
    assert "inference only" in text
    assert "contrast" not in text and "update" not in text


def test_a_model_without_drive_and_readout_is_explained_too():
    design = el.compile(Springs(), dynamics=el.Leapfrog(0.25), rule=None, steps=4, lanes=1)
    lines = explained(design)
    assert lines["dV/dq"] == "dV/dq (4*q) + W' dV/dz0"
    assert lines["dV/dz0"] == "dV/dz0 cos(z0)"
    assert "y" not in lines
    assert stability(design) == pytest.approx(0.25**2 * 4)


def test_formats_are_spelled_in_q_notation():
    x = np.linspace(0, 1, 16).reshape(4, 2, 2)
    design = el.compile(Net(), dynamics=el.Leapfrog(0.25), rule=el.HamiltonianEcho(), calibrate=(x, x[:, 0]), lanes=2,
                        precision={"state": "Q5.12"})
    line = next(line for line in explain(design).splitlines() if "states q, p" in line)
    assert line.split("states q, p")[1].split() == ["Q5.12", "within", "+-32"]
