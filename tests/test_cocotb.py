"""The generated Verilog under cocotb: synapse array, generated pipelines, the core at its window and behind PCIe."""

import json

import numpy as np
import pytest

from echolith.compiler.pipeline import evaluate
from echolith.compiler.timing import fetched
from echolith.rtl.array import SynapseArray
from echolith.rtl.core import Core
from echolith.rtl.pipeline import ElementPipeline
from echolith.sim.bench_network import design
from echolith.sim.cocotb import run, simulator
from echolith.sim.golden import script
from echolith.sim.verilog import convert

pytest.importorskip("cocotb_tools.runner")
if simulator() != "verilator":  # Icarus starts the memories that `convert` leaves out at X
    pytest.skip("needs Verilator, make, perl and a C++ compiler", allow_module_level=True)


@pytest.fixture(scope="module")
def small():
    return design()


@pytest.fixture(scope="module")
def work(tmp_path_factory):
    """One directory for all, so that the simulator's library is built once."""
    return tmp_path_factory.mktemp("cocotb")


def passes(component, name, bench, work, count=1, **variables):
    """Run ``bench`` on ``component``; on failure the end of its log is the message."""
    source, verilog = work / f"{name}.v", convert(component, name)
    if not source.exists() or source.read_text() != verilog:  # an older file would be built again
        source.write_text(verilog)
    result = run(source, name, f"echolith.sim.bench_{bench}", work, variables)
    assert result == (count, 0), (work / "bench.log").read_text()[-4000:]


@pytest.mark.parametrize("lanes, board", [(3, "ulx3s-85f"), pytest.param(8, "icebreaker", marks=pytest.mark.slow)])
def test_array(work, lanes, board):
    hw = design(lanes=lanes, board=board).hardware
    size = {"width": hw.width, "lanes": hw.lanes, "accumulator": hw.accumulator, "fetched": fetched(hw)}
    passes(SynapseArray(hw), f"array_{lanes}", "array", work, 11, ARRAY=json.dumps(size))


def vectors(small, pipeline, count=300):
    """What the bench of a pipeline reads: words of all sizes in, what `evaluate` says out."""
    hw, generator = small.hardware, np.random.default_rng(5)
    inputs = {name: generator.integers(-(1 << bits - 1), 1 << bits - 1, count) >> generator.integers(0, bits, count)
              for name, bits in pipeline.inputs}
    outputs = evaluate(pipeline, inputs, small.tables, hw.width, hw.segments)
    tables = [[slot, *place, int(word)] for slot, table in enumerate(pipeline.tables())
              for place, word in np.ndenumerate(small.tables[table])]
    return {"tables": tables, "inputs": {n: w.tolist() for n, w in inputs.items()},
            "outputs": {n: np.broadcast_to(w, count).tolist() for n, w in outputs.items()}}


@pytest.mark.parametrize("name", ["cost", pytest.param("activate", marks=pytest.mark.slow),
                                  pytest.param("step", marks=pytest.mark.slow)])
def test_pipeline(small, work, name):
    hw = small.hardware
    pipeline = hw.cost if name == "cost" else getattr(hw, name)[0]
    component = ElementPipeline(pipeline, width=hw.width, segments=hw.segments)
    case = work / f"{name}.json"
    case.write_text(json.dumps({"latency": component.latency, **vectors(small, pipeline)}))
    passes(component, name, "pipeline", work, PIPELINE=str(case))


@pytest.mark.parametrize("bench", ["core", "pcie"])
def test_core_equals_the_integer_model(small, work, bench):
    if bench == "pcie":
        pytest.importorskip("cocotbext.pcie")
    golden = work / "golden.json"
    golden.write_text(json.dumps({"steps": script(small)}))
    passes(Core(small), "core", bench, work, GOLDEN=str(golden))


@pytest.mark.slow
@pytest.mark.parametrize("options", [{"cost_at": "every"}, {"board": "icebreaker", "lanes": 2},
                                     {"cost_at": "every", "lanes": 1}, {"lanes": 8, "board": "icebreaker"}], ids=str)
def test_other_cores_equal_the_integer_model(tmp_path, options):
    other = design(**options)
    golden = tmp_path / "golden.json"
    golden.write_text(json.dumps({"steps": script(other, samples=6)}))
    passes(Core(other), "core", "core", tmp_path, GOLDEN=str(golden))
