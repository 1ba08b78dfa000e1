"""Formats: found, wanted, edited, reported; gradients of steep energies; weights trained elsewhere."""

import json
import math

import energies
import numpy as np
import pytest
import torch
from energies import INPUTS, OUTPUTS, STEPS, Blocks, Deep, Hopfield, Local, Masses, Model, Springs, log_cosh
from safetensors.torch import save_file
from test_chained import Chained
from test_machine import compare, data
from test_softmax import case as softmax
from torch import nn
from typer.testing import CliRunner

import echolith as el
from echolith.compiler.reference import bptt
from echolith.examples import pretrained
from echolith.examples.digits import small
from echolith.host.cli import app
from echolith.host.figures import gradient_cosine, prediction_loss
from echolith.sim import adjoint
from echolith.sim.growth import growth


class Sextic(Model):
    states = {"q": 6}
    shapes = {"W": (5, 6), "B": (5, INPUTS), "k": (6,)}

    def energy(self, q, u):
        return 0.5 * (self.k * q**2).sum() + 0.1 * (q**6).sum() + log_cosh(self.W @ q + self.B @ u)


class Hill(nn.Module):
    """One unit that rolls down an inverted parabola."""

    states, inputs, outputs = {"q": 1}, 1, 2

    def __init__(self):
        super().__init__()
        self.B, self.C = nn.Parameter(torch.tensor([[0.01]])), nn.Parameter(torch.tensor([[1.0], [0.5]]))

    def energy(self, q, u):
        return -0.5 * (q @ q) + q @ (self.B @ u)

    def cost(self, q, y):
        return ((self.C @ q - y) ** 2).sum()


def case(model=Blocks, cost_at="last", scale=1.0, steps=STEPS, **options):
    rows = "every" if cost_at == "mean" else cost_at
    x, y = data(np.random.default_rng(0), 32, steps, model.inputs, model.outputs, rows)
    how = {"rule": el.HamiltonianEcho(cost_at), "calibrate": (scale * x, y), "lanes": 3}
    return el.compile(model().double(), dynamics=el.Leapfrog(0.25, 2), **{**how, **options}), scale * x, y


def canonical(y):
    return y if y.ndim == 3 else y[:, None]


# -- the float64 reference ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("model, cost_at", [
    (Blocks, "last"), (Deep, "every"), (Hopfield, "mean"), (Springs, "last"), (Masses, "every"), (Chained, "last")])
def test_the_adjoint_of_a_design_is_the_models_autograd(model, cost_at):
    design, x, y = case(model, cost_at)
    found = adjoint.gradient(design, design.values, x, canonical(y))
    expected, outputs = bptt(model().double(), x, y, 0.25, 2, cost_at)
    assert found.keys() == expected.keys()
    for name, gradient in found.items():
        np.testing.assert_allclose(gradient, expected[name], atol=1e-7 * np.abs(expected[name]).max(), err_msg=name)
    np.testing.assert_allclose(adjoint.outputs(design, design.values, x), outputs, atol=1e-12)


def test_masked_targets_and_classes_have_figures():
    x, y = data(np.random.default_rng(0), 32, STEPS, INPUTS, OUTPUTS, "every")
    mask = np.random.default_rng(1).uniform(size=y.shape[:-1]) < 0.6
    design, _, _ = case(cost_at="every", calibrate=(x, y, mask), precision=el.Wanted())
    masked = design.precision_report(x, y, mask)
    assert masked.cosine is not None and masked.cosine > 0.9999 and masked.by_nudge[0] > 0.999
    _, design, x, y = softmax("classes", "last")
    report = design.precision_report(x, y)
    assert report.cosine is not None and report.cosine > 0.9999 and report.loss <= 0.5


# -- steep energies ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("scale", [1.0, 3.0])
def test_a_steep_potential_keeps_its_gradient_before_and_after_learning(scale):
    design, x, y = case(Sextic, scale=scale)
    assert gradient_cosine(design, design.values, x, canonical(y)) >= 0.99999
    with design.open("int:") as chip:
        chip.fit(x, y, epochs=4, batch_size=8, learning_rate=0.02, momentum=0.5)
        assert gradient_cosine(design, chip.state_dict(), x, canonical(y)) >= 0.9999


def test_a_steep_potential_and_edited_sizes_in_rtl(simulate):
    design, _, _ = case(Sextic, scale=3.0, precision={"accumulator": "45 bits", "table": "4096 pieces"})
    compare(design, simulate(design), 3, "last", 0.9)


# -- the mapping -------------------------------------------------------------------------------------------------------


def test_precision_is_saved_edited_and_passed_back():
    design, _, _ = case()
    saved = json.loads(json.dumps(design.precision))
    assert saved["accumulator"] == f"{design.hardware.accumulator} bits" and saved["table"] == "2048 pieces"
    assert case(precision=saved)[0].hardware == design.hardware
    old = {name: text for name, text in saved.items() if name not in ("accumulator", "table")}
    assert case(precision=old)[0].hardware == design.hardware
    edited, _, _ = case(precision={**saved, "accumulator": "48 bits", "table": "512 pieces"})
    assert (edited.hardware.accumulator, edited.hardware.segments) == (48, 9)
    assert edited.precision == {**saved, "accumulator": "48 bits", "table": "512 pieces"}


def test_both_spellings_of_a_format_are_one():
    assert case(precision={"state": "Q5.12"})[0].hardware == case(precision={"state": "ap_fixed<18,6>"})[0].hardware


@pytest.mark.parametrize("precision, message", [
    ("best", 'precision must be "auto", "packed", a mapping of names to formats, or a Wanted, not \'best\''),
    ({"state": "5.12"}, "a format must be spelled like Q5.12 or ap_fixed<18,6>, not '5.12'"),
    ({"accumulator": "30 bits"}, 'precision: accumulator must be spelled like "39 bits" and have 39 to 62 of them, the '
                                 "least that hold every sum of products, not '30 bits'"),
    ({"table": "1000 pieces"}, 'precision: table must be spelled like "2048 pieces" and have a power of two from 16 to '
                               "8192 of them, not '1000 pieces'"),
    ({"hiden": "Q5.12"}, "precision names are state, input, target, output, u, z, z0_0, z0_1, hidden, hidden1, "
                         "readout, drive, vector0, delta, z0_drive, z0, z0_t, z0_0_back, z0_1_back, accumulator, "
                         "table, word, product, not 'hiden'"),
])
def test_a_mapping_that_means_nothing_is_refused(precision, message):
    with pytest.raises(el.CompileError) as error:
        case(precision=precision)
    assert str(error.value) == message


# -- wanted figures ----------------------------------------------------------------------------------------------------


def test_figures_that_calibrated_formats_meet_change_nothing():
    design, _, _ = case(precision=el.Wanted(cosine=0.9999, loss=0.5))
    assert design.hardware == case()[0].hardware and design.values.keys() == case()[0].values.keys()


def test_figures_that_they_do_not_meet_give_finer_formats():
    plain, x, y = case(Springs, board="icebreaker")
    wanted = el.Wanted(cosine=0.999998, loss=0.2)
    design, _, _ = case(Springs, board="icebreaker", precision=wanted)
    before, after = (gradient_cosine(d, d.values, x, canonical(y)) for d in (plain, design))
    assert before < wanted.cosine <= after and design.fractions["state"] > plain.fractions["state"]
    assert prediction_loss(design, design.values, x, canonical(y)) <= wanted.loss
    again, _, _ = case(Springs, board="icebreaker", precision=design.precision)
    assert again.hardware == design.hardware


def test_figures_out_of_reach_are_refused_with_the_best():
    with pytest.raises(el.CompileError, match=(
            r"^precision: the best formats, states Q\d\.\d+ and tables of 2048 pieces, have a gradient cosine of "
            r"0\.\d{7} and a loss of 0\.\d+: ask for less, or see in precision_report\(\) whether perturbations grow "
            r"too fast, not Wanted\(cosine=0\.9999999, loss=0\.0\)$")):
        case(Local, precision=el.Wanted(cosine=0.9999999, loss=0.0))


@pytest.mark.parametrize("options, message", [
    ({"cosine": 1.5}, "Wanted: cosine must be a number between 0 and 1, not 1.5"),
    ({"loss": -1}, "Wanted: loss must be a number of points, not negative, not -1"),
])
def test_figures_that_mean_nothing_are_refused(options, message):
    with pytest.raises(el.CompileError) as error:
        el.Wanted(**options)
    assert str(error.value) == message


def test_wanted_figures_need_data_and_a_choice_of_hardware():
    design, x, y = case()
    how = {"dynamics": el.Leapfrog(0.25, 2), "rule": el.HamiltonianEcho("last"), "precision": el.Wanted()}
    for options in ({"steps": 3}, {"calibrate": (x, y), "like": design}):
        with pytest.raises(el.CompileError) as error:
            el.compile(Blocks(), **how, **options)
        assert str(error.value) == ("precision: wanted figures are measured on calibrate=(X, Y) and choose the "
                                    "hardware; they need data and no like=, not Wanted(cosine=0.9995, loss=0.5)")


# -- the report --------------------------------------------------------------------------------------------------------


def test_the_report_shows_ranges_and_what_the_gradient_loses(tmp_path):
    design, x, y = case()
    report = design.precision_report(x, y)
    spans = {t.name: t for t in report.tensors}
    assert {"input", "s", "r", "momenta", "output", "target", "delta", "hidden", "drive", "vector0"} <= spans.keys()
    for name, span in spans.items():
        assert list(span.seen) == sorted(span.seen) and span.margin > 0, name
    assert spans["input"].seen[4] == x.max() and spans["s"].limit == 2.0 ** (17 - design.fractions["state"])
    assert report.cosine is not None and report.cosine > 0.99999 and abs(report.loss) < 0.5
    assert report.by_nudge[0] > report.by_nudge[5] and report.by_nudge[0] > report.by_nudge[-3]
    assert report.by_bits[design.fractions["state"]] > report.by_bits[design.fractions["state"] - 6]
    assert not report.warnings and min(report.reach.values()) >= 2
    text = str(report)
    assert all(t.name in text for t in report.tensors) and "perturbations   grow by" in text
    report.save(tmp_path / "report.json")
    found = json.loads((tmp_path / "report.json").read_text())
    assert found["cosine"] == report.cosine and found["tensors"][0]["margin"] == spans["input"].margin
    report.save(tmp_path / "report.png")
    assert (tmp_path / "report.png").read_bytes().startswith(b"\x89PNG")
    with pytest.raises(el.FileError, match=r"^a precision report is saved as .json, .png, .pdf or .svg, not 'a.txt'$"):
        report.save(tmp_path / "a.txt")


@pytest.mark.parametrize("model", [energies.Ring, energies.Waves])
def test_gathered_operands_and_kernels_have_a_report(model):
    design, x, y = case(model)
    report = design.precision_report(x, y)
    assert report.cosine is not None and report.cosine > 0.9999 and min(report.reach.values()) >= 1.5


def test_an_inference_core_has_a_report_without_gradients():
    design, x, _ = case(rule=None)
    report = design.precision_report(x)
    assert report.cosine is None and not report.by_nudge and not report.by_bits and report.loss < 0.5


def test_growth_is_the_largest_eigenvalue_of_a_step():
    steps = 24
    design, x, _ = case(Hill, steps=steps)
    step = np.array([[1, 0.25], [0.25, 1 + 0.25**2]])  # of (q, p) downhill
    assert growth(design, design.values, x) == pytest.approx(math.log(np.linalg.eigvals(step).max()), rel=0.1)
    assert growth(case(Local)[0], case(Local)[0].values, case(Local)[1]) < 0.05


def test_too_many_steps_for_the_growth_are_warned_of():
    design, x, y = case(Hill, steps=24)
    report = design.precision_report(x, y)
    limit = max(design.fractions["state"] - 8, 1) * math.log(2) / report.growth
    assert report.longest == limit < report.steps == 48
    assert report.warnings[-1] == (
        f"perturbations grow by {math.exp(report.growth):.3f} a step, and the gradient is lost to chaos beyond about "
        f"{limit:.0f} steps: use fewer steps, a smaller dt or weaker couplings, not 48 steps")


# -- weights trained elsewhere -----------------------------------------------------------------------------------------


def test_weights_trained_in_pytorch_lose_at_most_half_a_point(tmp_path):
    torch.set_num_threads(1)
    net = small()
    pretrained.train(net, epochs=2)
    save_file(net.state_dict(), tmp_path / "net.safetensors")
    found = pretrained.compare(tmp_path / "net.safetensors")
    assert found["float"] > 80 and found["float"] - found["chip"] <= 0.5


def test_a_safetensors_file_is_as_good_as_a_state_dict(tmp_path):
    design, x, _ = case()
    torch.manual_seed(3)
    weights = {name: value + 0.1 for name, value in Blocks().state_dict().items()}
    save_file(weights, tmp_path / "net.safetensors")
    with design.open("int:") as a, design.open("int:") as b, \
            design.with_weights(tmp_path / "net.safetensors").open("int:") as c:
        a.load_state_dict(weights)
        b.load_state_dict(tmp_path / "net.safetensors")
        np.testing.assert_array_equal(a.predict(x), b.predict(x))
        np.testing.assert_array_equal(a.predict(x), c.predict(x))
        with pytest.raises(el.FileError) as error:
            a.load_state_dict(tmp_path / "net.pt")
        assert str(error.value) == ("weights are read from .safetensors, never from a pickle: save them with "
                                    "safetensors.torch.save_file(model.state_dict(), ...), not as "
                                    f"{tmp_path / 'net.pt'}")
        with pytest.raises(el.RangeError, match=r"^W must have shape \(5, 6\), not \(2,\)$"):
            a.load_state_dict({"W": [1.0, 2.0]})
    (tmp_path / "broken.safetensors").write_bytes(b"not a file")
    with pytest.raises(el.FileError, match=r"broken.safetensors is truncated, damaged, or of a type that numpy does"):
        design.with_weights(tmp_path / "broken.safetensors")


# -- the command line --------------------------------------------------------------------------------------------------


def test_the_command_line_reports_edits_and_loads(tmp_path):
    (tmp_path / "net.py").write_text(
        "import sys\nfrom energies import Blocks\nfrom test_machine import data as make\nimport numpy as np\n"
        "def data():\n    return make(np.random.default_rng(0), 6, 3, 3, 2, 'last')\n")
    save_file({name: value * 0.5 for name, value in Blocks().state_dict().items()}, tmp_path / "net.safetensors")
    model, formats = f"{tmp_path / 'net.py'}:Blocks", tmp_path / "formats.json"

    def run(*arguments):
        return CliRunner().invoke(app, [str(a) for a in arguments])

    report = json.loads(run("precision", model, "--out", tmp_path / "a.json", "--formats", formats, "--json").stdout)
    assert report["cosine"] > 0.999 and json.loads((tmp_path / "a.json").read_text())["steps"] == 3
    chosen = json.loads(formats.read_text())
    assert chosen == report["formats"]
    formats.write_text(json.dumps({**chosen, "state": "Q6.11"}))
    done = run("compile", model, "--precision", formats, "--weights", tmp_path / "net.safetensors", "-o",
               tmp_path / "a.echolith")
    assert done.exit_code == 0, done.output
    design = el.load(tmp_path / "a.echolith")
    assert design.precision["state"] == "Q6.11"
    np.testing.assert_allclose(design.values["W"], 0.5 * Blocks().W.detach().numpy())
    formats.write_text("[1]")
    refused = run("compile", model, "--precision", formats)
    assert refused.exit_code == 1 and refused.stderr == (
        f'error: {formats} must hold an object of formats by name, like {{"state": "Q5.12"}}, not [1]\n')
