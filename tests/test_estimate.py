"""The estimate of cells against stored builds and the RTL; lanes that fill a board; refusals before synthesis."""

import json
import re
import time
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from amaranth.back import rtlil
from energies import INPUTS, OUTPUTS, STEPS, Blocks, Deep, Products, Softmax
from networks import Oscillators

import echolith as el
from echolith.boards.build import build
from echolith.boards.catalog import board
from echolith.compiler.design import Hardware
from echolith.compiler.files import typed
from echolith.compiler.inventory import banks, copies, multipliers
from echolith.compiler.mapping import Memory, mapped
from echolith.compiler.resources import MODEL, resources
from echolith.rtl.array import SynapseArray
from echolith.rtl.chip import Chip

BUILDS = json.loads((Path(__file__).parent.parent / "bench" / "results" / "builds.json").read_text())
FITTED = set(json.loads(MODEL.read_text())["lut"]["fitted"])


def compiled(model, inputs, outputs, *, learn=True, steps=STEPS, **options):
    torch.manual_seed(0)
    generator = np.random.default_rng(0)
    x, y = generator.uniform(-1, 1, (16, steps, inputs)).round(2), generator.integers(0, 2, (16, outputs)).astype(float)
    return el.compile(model() if isinstance(model, type) else model, dynamics=el.Leapfrog(0.25, 2), calibrate=(x, y),
                      rule=el.HamiltonianEcho() if learn else None, **options)


@pytest.mark.parametrize("rates, text", [
    (dict(baud=0), "baud must be a positive number of bits per second, not 0"),
    (dict(baud="a"), "baud must be a positive number of bits per second, not 'a'"),
    (dict(baud=None), "baud must be a positive number of bits per second, not None"),
    (dict(clock=0), "clock must be a positive number of Hz, not 0"),
    (dict(clock=-1), "clock must be a positive number of Hz, not -1"),
    (dict(clock=float("nan")), "clock must be a positive number of Hz, not nan"),
])
def test_rates_that_are_none_are_refused(rates, text):
    design = oscillators(4, 4)
    with pytest.raises(el.RangeError, match=f"^{re.escape(text)}$"):
        design.estimate(**rates)


def oscillators(units, rows, **options):
    torch.manual_seed(0)
    return compiled(Oscillators(units, rows, 3, 4, quartic=0.0, mse=True), 3, 4, **options)


@pytest.mark.parametrize("name", BUILDS)
def test_cells_are_those_of_real_builds(name):
    row = BUILDS[name]
    found = resources(typed(Hardware, row["hardware"]), board(row["board"]))
    assert {k: found.used[k] for k in ("dsp", "bram")} == {k: row[k] for k in ("dsp", "bram")}
    assert found.used.get("spram", 0) == row["spram"]
    for kind in ("lut", "ff"):
        assert abs(found.used[kind] / row[kind] - 1) <= found.error[kind] + 1e-3
    assert found.error["lut"] <= 0.1


def test_builds_of_both_families_are_kept_from_the_fit():
    held_out = [row["board"] for name, row in BUILDS.items() if name not in FITTED]
    assert len(BUILDS) >= 12 and min(Counter(held_out).values()) >= 2 and len(set(held_out)) == 2
    assert BUILDS.keys() >= FITTED


@pytest.mark.parametrize("model, options", [
    (Deep, {"lanes": 3}), (Blocks, {"lanes": 2, "learn": False}), (Products, {"lanes": 2, "board": "icebreaker"}),
    (Oscillators(9, 7, INPUTS, OUTPUTS), {"lanes": 2}), (Oscillators(9, 7, INPUTS, OUTPUTS), {"lanes": 8}),
    (Oscillators(10, 7, INPUTS, OUTPUTS), {"lanes": 4, "precision": "packed"}),
    (Oscillators(10, 7, INPUTS, OUTPUTS), {"lanes": 8, "precision": "packed"}),
    (Oscillators(10, 7, INPUTS, OUTPUTS), {"lanes": 4, "precision": "packed", "learn": False}),
])
def test_memories_and_multipliers_are_those_of_the_rtl(model, options):
    hw = compiled(model, INPUTS, OUTPUTS, **options).hardware
    text = rtlil.convert(Chip(hw))
    found = Counter((int(words), int(bits)) for bits, words in re.findall(r"memory width (\d+) size (\d+) ", text))
    counted: Counter = Counter()
    for bank in banks(hw):
        counted[bank.words, bank.bits] += bank.copies
    assert counted == found
    wide = [int(a) > 1 for a in re.findall(r"cell \$mul .*\n.*\n.*\n\s*parameter \\A_WIDTH (\d+)", text)]
    assert multipliers(hw)["total"] == sum(wide)


@pytest.mark.parametrize("lanes", [8, 12])
def test_copies_of_broadcast_registers_are_those_of_the_rtl(lanes):
    hw = compiled(Oscillators(12, 24, INPUTS, OUTPUTS), INPUTS, OUTPUTS, lanes=lanes).hardware
    text = rtlil.convert(SynapseArray(hw))
    kept = re.findall(r"attribute .keep 1\n +wire (?:width (\d+) )?.*?\\\w+_1(?:\$\d+)?\n", text)
    assert copies(hw) == (lanes // 4 - 1) * sum(int(bits or 1) for bits in kept) > 0


def test_equal_products_of_several_pipelines_are_multipliers_of_their_own():
    found = multipliers(compiled(Softmax, INPUTS, OUTPUTS, lanes=2).hardware)
    assert found == {"array": 4, "neuron_unit": 13, "total": 17}  # cells with registers are not merged; else it were 13


def test_memories_take_the_cheapest_cells():
    assert mapped(16, 18, "ecp5") == Memory("lutram", 5, 1)
    assert mapped(64, 18, "ecp5") == Memory("lutram", 20, 4)
    assert mapped(128, 18, "ecp5") == Memory("bram", 1, 1)
    assert mapped(512, 35, "ecp5") == Memory("bram", 1, 1)
    assert mapped(1 << 17, 6, "ecp5") == Memory("bram", 48, 8)
    assert mapped(4, 5, "ice40") == Memory("ff", 20, 4)
    assert mapped(512, 31, "ice40") == Memory("bram", 4, 1)


def test_an_estimate_takes_less_than_a_second_and_states_its_error():
    design = oscillators(64, 64, lanes=16)
    begun = time.perf_counter()
    found = design.estimate()
    assert time.perf_counter() - begun < 1
    cells = found["resources"]
    assert cells["available"] == {"lut": 83640, "ff": 83640, "dsp": 156, "bram": 208}
    assert cells["used"].keys() == cells["available"].keys() and cells["error"].keys() == {"lut", "ff"}
    assert 0 < cells["error"]["lut"] <= 0.1
    assert cells["used"]["dsp"] == found["multipliers"]["total"]


def test_auto_takes_the_fastest_of_the_numbers_of_lanes_that_fit():
    found = oscillators(20, 16, lanes="auto")
    spent = {lanes: oscillators(20, 16, lanes=lanes).estimate()["cycles"]["learn_sample"] for lanes in range(1, 17)}
    lanes = found.hardware.lanes
    assert spent[lanes] == min(spent.values())
    assert all(spent[fewer] > spent[lanes] for fewer in range(1, lanes))
    assert found.hardware == oscillators(20, 16, lanes=lanes).hardware


def test_auto_stops_where_the_board_is_full():
    found = oscillators(16, 16, board="icebreaker", lanes="auto", learn=False)
    assert not resources(found.hardware, board("icebreaker")).shortage()
    more = oscillators(16, 16, board="icebreaker", lanes=found.hardware.lanes + 1, learn=False)
    assert resources(more.hardware, board("icebreaker")).shortage()


def test_auto_on_given_hardware_takes_its_lanes():
    first = oscillators(12, 12, lanes=3)
    assert oscillators(12, 10, lanes="auto", like=first).hardware == first.hardware


def test_auto_names_what_does_not_fit():
    with pytest.raises(el.ResourceError) as error:
        oscillators(60, 60, board="icebreaker", lanes="auto")
    pattern = (r"^the network does not fit the icebreaker with any number of lanes, with \d+ it takes (.+, )?block "
               r"memories: \d+ of 30(, .+)?: use fewer units, rows or samples, or a larger board, not icebreaker$")
    assert re.match(pattern, str(error.value)), error.value


def test_a_build_that_cannot_fit_is_refused_at_once(tmp_path):
    design = oscillators(16, 16, board="icebreaker", lanes=6, learn=False)
    begun = time.perf_counter()
    with pytest.raises(el.ResourceError) as error:
        build(design, tmp_path)
    assert time.perf_counter() - begun < 1 and not list(tmp_path.iterdir())
    pattern = (r"^the design does not fit the icebreaker by the estimate before synthesis \(.*multipliers: 14 of 8, "
               r"large memories: 12 of 4\): about 2 lanes would fit, not 6$")
    assert re.match(pattern, str(error.value)), error.value
