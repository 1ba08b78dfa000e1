"""Cells of the reference network on ULX3S-85F by part of the chip, as synthesised.

    .venv/bin/python bench/parts.py [lanes]     # 16 if not said

A carry cell counts as two LUT4, one of distributed memory as six. Synthesis takes a minute; its netlist is kept in the
cache.
"""

import json
import re
import sys
from collections import Counter
from pathlib import Path

from echolith.bench.nets import REFERENCE, design
from echolith.boards.build import Survey

__all__ = ["main", "parts"]

_WEIGHTS = {"LUT4": 1, "CCU2C": 2, "TRELLIS_DPR16X4": 6}
# What cells' names begin with. The first that fits counts; cells of the core itself decode and choose.
_PARTS = {
    "lanes": r"chip\.core\.array\.lane_", "rest of the array": r"chip\.core\.array\b",
    "neuron unit": r"chip\.core\.(rows|units|state)\b",
    "sequencer": r"chip\.core\.(sequencer|sweep|scoreboard|launched|ticks|counted|tail)",
    "link": r"chip\.(link|beat)\b|uart\b", "register window": r"chip\.core\.(window|flags|results|near|far)",
    "samples": r"chip\.core\.(feed|inputs|beat)", "rest": "",
}


def parts(cells: dict) -> dict[str, Counter]:
    """LUT4 with carries, LUT4 alone and flip-flops of each part."""
    found = {part: Counter() for part in _PARTS}
    for name, cell in cells.items():
        part = next(part for part, begins in _PARTS.items() if re.match(begins, name))
        kind = cell["type"]
        found[part].update({"lut": _WEIGHTS.get(kind, 0), "alone": kind == "LUT4", "ff": kind == "TRELLIS_FF"})
    return found


def main(lanes: int) -> None:
    netlist = Path(Survey(design(REFERENCE, lanes)).pack().path)
    cells = max(json.loads(netlist.read_text())["modules"].values(), key=lambda module: len(module["cells"]))["cells"]
    found = parts(cells)
    for part, count in found.items():
        print(f"{part:20} {count['lut']:7,} LUT4, {count['alone']:7,} without carries, {count['ff']:7,} flip-flops")
    for name, kinds in (("a lane", ("lanes",)), ("the array", ("lanes", "rest of the array"))):
        each = {key: sum(found[part][key] for part in kinds) / (2 * lanes) for key in ("lut", "ff")}
        print(f"per multiplier of {name}: {each['lut']:.0f} LUT4, {each['ff']:.0f} flip-flops")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 16)
