"""The command `echolith bench`: figures of tiny networks, what is kept, what is routed again, what it refuses."""

import json

import numpy as np
import pytest
import torch
from test_cli import found, refusal

from echolith.bench import area, autograd, nets, passes
from echolith.bench.figure import Choice
from echolith.bench.run import FIGURES, measure
from echolith.bench.store import Store
from echolith.boards import build as building
from echolith.boards.build import Build, Survey
from echolith.compiler.errors import ResourceError
from echolith.compiler.reference import bptt
from echolith.compiler.utilisation import work
from echolith.examples.digits import DT, SUBSTEPS, Digits
from echolith.examples.teach import Curve
from echolith.sim.data import words
from echolith.sim.model import IntegerModel
from echolith.sim.weights import load

TINY = ("--units", "6", "--lanes", "2")


@pytest.fixture
def brief(monkeypatch):
    """Torch is timed for a moment only."""
    monkeypatch.setattr(autograd, "BATCHES", (1, 32))
    monkeypatch.setattr(autograd, "_SECONDS", 0.002)
    monkeypatch.setattr(autograd, "_REPEATS", 3)


def test_the_quick_figures_are_measured_kept_and_drawn(tmp_path, brief):
    report = found("bench", "cycles", "speed", "link", *TINY, "--results", tmp_path / "r", "--plots", tmp_path / "p")
    assert report["ok"] and report["results"] == str(tmp_path / "r") and list(report["figures"]) == ["cycles", "speed",
                                                                                                      "link"]
    assert {"cpu", "cores", "system", "versions"} == report["machine"].keys()
    assert {"python", "torch", "amaranth"} <= report["machine"]["versions"].keys()
    for name, figure in report["figures"].items():
        assert Store(tmp_path / "r").rows(name) == figure["rows"]
        assert all({"date", "cpu", "tools", "units", "lanes"} <= row.keys() for row in figure["rows"])
    [row] = report["figures"]["cycles"]["rows"]
    assert row["rtl"]["counted"] == row["rtl"]["predicted"] and row["rtl"]["batch"] == row["batch"] == 32
    counted = row["rtl"]["counted"]
    assert counted["learn"] == 32 * row["cycles_per_checked_sample"]
    assert counted.get("unchecked", counted["learn"]) == 32 * row["cycles_per_learned_sample"]
    assert row["tools"].keys() == {"amaranth", "verilator"} and 0 < row["mac_utilisation"] < 1
    [speed] = report["figures"]["speed"]["rows"]
    spent = row["mean_cycles_per_learned_sample"] + row["cycles_per_update"] / 32
    assert speed["samples_per_second"] == pytest.approx(125e6 / spent) and speed["clock_from"] == "not routed"
    assert speed["times_torch"]["own"] == pytest.approx(speed["samples_per_second"] / speed["torch"]["32"]["median"])
    link = report["figures"]["link"]["rows"]
    assert [r["baud"] for r in link] == [115_200, 1_000_000, 3_000_000]
    assert all(r["samples_per_second"]["learn"]["link"] < speed["samples_per_second"] for r in link)
    assert {p.name for p in (tmp_path / "p").iterdir()} == {
        f"{n}.{s}" for n in ("cycles", "speed", "link") for s in ("png", "svg")}


def test_growth_is_measured_in_processes_of_their_own(tmp_path):
    [row] = found("bench", "growth", "--units", 4, "--lanes", 1, "--results", tmp_path)["figures"]["growth"]["rows"]
    assert row["weights"] == 4 * 4 + 9 * 4 + 5 * 10 and row["peak_megabytes"] >= row["base_megabytes"] > 50
    assert row["verilog_bytes"] > 1e5 and row["compile_seconds"] > 0


def test_useful_multiplications_are_those_of_the_algorithm_spelled_out():
    n, inputs, outputs, rows, substeps = 5, Digits.inputs, Digits.outputs, nets.ROWS, SUBSTEPS
    predict = learn = 0
    for row in range(rows):
        predict += n * (inputs + 1)  # B u + b
        learn += n * (inputs + 1)  # again on the way back, for both copies
        for substep in range(substeps):
            if (row, substep) != (rows - 1, substeps - 1):
                predict += n * n + n * n  # W q, W' t
                learn += 2 * (n * n + n * n)
                learn += 2 * (n * n + n * (inputs + 1))  # t q', t (u, 1)'
    predict += outputs * (n + 1)
    learn += outputs * (n + 1) + outputs * n  # the readout's own gradient, the nudge
    found = work(nets.design(n, 2))
    assert (found.predict, found.learn) == (predict, predict + learn)
    assert found.update == n * n + n * (inputs + 1) + outputs * (n + 1)


def test_torch_takes_the_step_that_the_chip_takes():
    torch.manual_seed(0)
    net = Digits(6, 6)
    x, y = nets.samples(4)
    expected, _ = bptt(net, x, y, DT, SUBSTEPS)
    before = net.W.weight.detach().clone()
    autograd.learner(net, 4)()
    for name, p in net.named_parameters():
        assert np.allclose(p.grad, expected[name], atol=1e-5), name
    assert np.allclose(net.W.weight.detach(), before - 1e-4 * net.W.weight.grad, atol=1e-7)


def test_what_a_figure_is_about_has_one_row(tmp_path):
    for units in (10, 10, 6):
        measure(["link"], Choice(units=(units,), lanes=(2,)), Store(tmp_path), lambda text: None)
    bauds = (115_200, 1_000_000, 3_000_000)
    assert [(r["units"], r["baud"]) for r in Store(tmp_path).rows("link")] == [(n, b) for n in (6, 10) for b in bauds]


class Down(passes.OneSided):
    def _up(self, samples):
        return np.zeros(samples, bool)


def swept(design, kind, x, y):
    """Gradient words that a model of that kind learns."""
    model = kind(design)
    load(model, design.values)
    model.learn(*words(design, x, y), False)
    return model.gradients


@pytest.mark.parametrize("cost_at", ["last", "every"])
def test_echo_schemes_share_out_the_same_contrasts(cost_at):
    """Up against copy 0 and copy 0 against down, doubled, are twice up against down; to the bit."""
    design, (x, y) = nets.design(6, 2, cost_at=cost_at), nets.samples(2, cost_at=cost_at)
    y = y if cost_at == "every" else y[:, None]
    both, up, down = (swept(design, kind, x, y) for kind in (IntegerModel, passes.OneSided, Down))
    first, second = (swept(design, kind, x[i:i + 1], y[i:i + 1]) for i, kind in enumerate((passes.OneSided, Down)))
    turns = swept(design, passes.Alternating, x, y)
    assert (up["hidden"] != both["hidden"]).any()
    for name, words_ in both.items():
        np.testing.assert_array_equal(up[name] + down[name], 2 * words_, name)
        np.testing.assert_array_equal(first[name] + second[name], turns[name], name)


def test_the_last_visits_exponents_are_taken():
    design, (x, y) = nets.design(6, 2), nets.samples(2)
    x, target = words(design, x, y[:, None])
    seen = []

    class Seen(passes.LastVisit):
        def _nudges(self, s, u, target, exponent, kept):
            seen.append(exponent.tolist())
            return super()._nudges(s, u, target, exponent, kept)

    model = Seen(design)
    load(model, design.values)
    for samples in (slice(0, 2), slice(None, None, -1)):
        model.learn(x[samples], target[samples])
        model.response += 1
    assert seen[0][0] >= model.gain and seen[1] == seen[0][::-1]


def test_echo_schemes_are_compared(tmp_path, monkeypatch):
    """Untrained, with a stand-in for what they learn."""
    def learned(chip, epochs, report, *_):
        for epoch in range(epochs):
            report(epoch + 1, 0.5, 0.9)
        return Curve([0.5], [0.9])

    monkeypatch.setattr(passes, "learn", learned)
    monkeypatch.setattr(passes, "learn_by_bptt", learned)
    monkeypatch.setattr(passes, "_BATCHES", 1)
    store = Store(tmp_path)
    measured = measure(["passes"], Choice(seeds=1), store, lambda text: None)
    rows = {(row["cost_at"], row["scheme"]): row for row in measured.rows["passes"]}
    assert len(rows) == 8 and measured.ok and "within both gates" in str(measured)
    for cost_at in ("last", "mean"):
        two, one, turns = (rows[cost_at, scheme] for scheme in ("+ and -", "+ and 0", "alternating"))
        assert turns["multiplications"] < one["multiplications"] < two["multiplications"] == 1
        assert one["cosine_untrained"] < two["cosine_untrained"]
        assert two["gates"] and two["test"] == two["bptt"] == 0.9 and two["finished"] == 1
    learned_, back = work(nets.design(64, 2)).learn, 15 * 2 * 64 * 64
    assert rows["last", "alternating"]["multiplications"] == pytest.approx((learned_ - back) / (learned_ + back / 16))


def test_mistakes_are_explained(tmp_path):
    assert refusal("bench", "frob", "cycles") == f"figures are {', '.join(FIGURES)}, not 'frob'"
    assert refusal("bench", "cycles", "--units", "6,x") == (
        "units must be whole numbers from 1 on with commas between, not '6,x'")
    assert refusal("bench", "area", "--lanes", "0") == (
        "lanes must be whole numbers from 1 on with commas between, not '0'")
    assert refusal("bench", "area", "--seeds", "0") == "seeds must be a whole number from 1 on, not 0"
    assert refusal("bench", "area", "--clock", "0") == "clock must be MHz above 0, not 0"
    assert refusal("bench", "area", "--board", "frob") == "board must be one of icebreaker, ulx3s-85f, not 'frob'"
    (tmp_path / "area.json").write_text("{}")
    for option in ("--results", "--plots"):
        assert refusal("bench", "area", option, tmp_path / "area.json") == (
            f"cannot make the directory {tmp_path / 'area.json'}: [Errno 17] File exists: '{tmp_path / 'area.json'}'")
    assert refusal("bench", "area", "--results", tmp_path) == (
        f"{tmp_path / 'area.json'} must be a list of rows as `echolith bench` writes it; delete it to measure again")


class Routed:
    """Stands in for `Survey`: any clock, at once."""

    key, seconds, reached = "first", 60.0, (70.0, 50.0, 60.0, 90.0, 80.0)
    runs: list[int] = []

    def __init__(self, design, clock):
        self.design, self.mhz = design, clock / 1e6

    def route(self, seed):
        self.runs.append(seed)
        fmax = {"clk": self.reached[seed - 1], "other": 200.0}
        return Build("", "", "", 2, 0, self.mhz, fmax, 1000 + seed, 10, 6, 5, 0, {"lut": 2000}, seed, 0, self.seconds,
                     {"yosys": "1"})


@pytest.fixture
def routed(monkeypatch):
    monkeypatch.setattr(area, "Survey", Routed)
    monkeypatch.setattr(Routed, "runs", [])
    return Routed


def surveyed(tmp_path, **choice):
    """The row of a tiny network's area."""
    [row] = measure(["area"], Choice(units=(6,), lanes=(2,), boards=("ulx3s-85f",), **choice), Store(tmp_path),
                    lambda text: None).rows["area"]
    return row


def test_seeds_are_routed_once(tmp_path, routed):
    row = surveyed(tmp_path, builds=True)
    assert row["fmax_mhz"] == {"median": 70, "worst": 50, "best": 90, "each": [70, 50, 60, 90, 80]}
    assert row["used"]["lut"] == 1005 and row["asked_mhz"] == 250 and routed.runs == [1, 2, 3, 4, 5]
    assert surveyed(tmp_path) == surveyed(tmp_path, builds=True) == row and len(routed.runs) == 5


def test_builds_of_another_netlist_are_said_to_be_old_and_made_again(tmp_path, routed, monkeypatch):
    first = surveyed(tmp_path, builds=True, seeds=2)
    monkeypatch.setattr(Routed, "key", "second")
    assert surveyed(tmp_path) == first | {"stale": True} and routed.runs == [1, 2]
    again = surveyed(tmp_path, builds=True, clock=80.0)
    assert not again["stale"] and again["asked_mhz"] == 80 and len(again["seeds"]) == 5
    assert surveyed(tmp_path)["asked_mhz"] == 80
    monkeypatch.setattr(Routed, "__init__", missing)
    assert surveyed(tmp_path)["stale"] is None


def missing(self, design, clock):
    raise ResourceError("yosys is missing")


def test_a_slow_build_is_made_once(tmp_path, routed, monkeypatch):
    monkeypatch.setattr(Routed, "seconds", 301.0)
    assert surveyed(tmp_path, builds=True)["seeds"] == [1]
    assert surveyed(tmp_path, builds=True, seeds=2)["seeds"] == [1, 2]


def test_what_does_not_fit_is_left_out_unless_asked_for(tmp_path, routed, monkeypatch, capsys):
    monkeypatch.setattr(Routed, "__init__", missing)
    with pytest.raises(ResourceError, match="^yosys is missing$"):
        surveyed(tmp_path, builds=True)
    monkeypatch.setitem(area._DESIGNS, "ulx3s-85f", (6, (2,)))
    assert measure(["area"], Choice(boards=("ulx3s-85f",), builds=True), Store(tmp_path), print).rows == {"area": []}
    assert "ulx3s-85f, 6 units on 2 lanes: yosys is missing" in capsys.readouterr().err


def test_the_clock_is_that_of_the_routed_reference_network(tmp_path, routed, monkeypatch):
    store = Store(tmp_path)
    assert area.clock(store, "ulx3s-85f", 2) == (125e6, "not routed")
    demo = {"board": "ulx3s-85f", "lanes": 2, "fmax_mhz": {"clk": 62.5, "link": 99.0}, "rtl": "abc"}
    (tmp_path / "builds.json").write_text(json.dumps({"ecp5-2": demo, "demo-not": demo | {"routed": False},
                                                      "demo-ulx3s": demo}))
    assert area.clock(store, "ulx3s-85f", 2) == (62.5e6, "the demo's build of RTL abc, one seed")
    assert area.clock(store, "ulx3s-85f", 3) == (125e6, "not routed")
    monkeypatch.setitem(area._DESIGNS, "ulx3s-85f", (6, (2,)))
    day = surveyed(tmp_path, builds=True)["date"][:10]
    assert area.clock(store, "ulx3s-85f", 2) == (70e6, f"median of 5 routed {day}")


class Tools:
    """Stands in for yosys, nextpnr and ecppack: writes what they would."""

    version = "1"
    runs: list[str] = []

    def __init__(self, name):
        self.name = name

    def run(self, arguments, folder, log):
        self.runs.append(self.name)
        log.write_text("")
        if self.name == "yosys":
            (folder / "top.cells.json").write_text(json.dumps({"design": {"num_cells_by_type": {"TRELLIS_FF": 7}}}))
        else:
            (folder / "top.tim").write_text("Info:  TRELLIS_COMB:  5/ 10  50%\nInfo:  MULT18X18D:  99/ 156  50%\n"
                                            "Info:  DP16KD:  3/ 208  1%\n")
            if "--pack-only" in arguments:  # nothing is routed that could be written
                assert "--textcfg" not in arguments and "--seed" not in arguments
                return
            fmax = {"constraint": 50, "achieved": 60 + int(arguments[arguments.index("--seed") + 1])}
            (folder / "top.pnr.json").write_text(json.dumps({"fmax": {"clk": fmax}}))


def test_a_survey_synthesises_once_and_routes_every_seed_once(tmp_path, monkeypatch):
    monkeypatch.setenv("ECHOLITH_CACHE", str(tmp_path))
    monkeypatch.setattr(Tools, "runs", [])
    monkeypatch.setattr(building, "find_tools", lambda names: {name: Tools(name) for name in names})
    design = nets.design(6, 2)
    survey = Survey(design)
    first = survey.route(1)
    assert (first.fmax_mhz, first.lut, first.ff, first.seed) == ({"clk": 61}, 5, 7, 1)
    again = Survey(design)
    assert again.key == survey.key and again.route(1) == first and again.route(2).fmax_mhz == {"clk": 62}
    assert Tools.runs == ["yosys", "nextpnr-ecp5", "nextpnr-ecp5"]
    packed = survey.pack()
    assert (packed.fmax_mhz, packed.lut, packed.ff, packed.bram) == ({}, 5, 7, 3) and Survey(design).pack() == packed
    assert Tools.runs.pop() == "nextpnr-ecp5" and len(Tools.runs) == 3
    monkeypatch.setattr(Tools, "version", "2")
    assert Survey(design).route(1).lut == 5
    assert Tools.runs[3:] == ["yosys", "nextpnr-ecp5"]
