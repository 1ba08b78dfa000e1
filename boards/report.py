"""What synthesis and place-and-route say about a design, in one vocabulary for all families."""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

__all__ = ["Timing", "Usage", "clocks", "flip_flops", "usage"]

# Names of nextpnr's kinds of cells.
_KINDS = {
    "ecp5": {"TRELLIS_COMB": "lut", "MULT18X18D": "dsp", "DP16KD": "bram"},
    "ice40": {"ICESTORM_LC": "lut", "ICESTORM_DSP": "dsp", "ICESTORM_RAM": "bram", "ICESTORM_SPRAM": "spram"},
}
_UTILISATION = re.compile(r"^Info:\s+(\w+):\s+(\d+)/\s*(\d+)\s+\d+%\s*$", re.MULTILINE)


@dataclass(frozen=True)
class Usage:
    """Cells by kind: ``lut`` (on iCE40 logic cells, with their flip-flop), ``dsp``, ``bram``, ``spram``."""

    used: Mapping[str, int]
    available: Mapping[str, int]

    def short(self) -> dict[str, int]:
        """How many too many, for every kind that does not fit."""
        return {k: n - self.available[k] for k, n in self.used.items() if n > self.available[k]}


@dataclass(frozen=True)
class Timing:
    """MHz of one clock."""

    wanted: float
    reached: float


def usage(log: str, family: str) -> Usage | None:
    """Utilisation from nextpnr's log, which has it even if the design does not fit; None if it came not that far."""
    kinds = _KINDS[family]
    found = {kinds[cell]: (int(used), int(available)) for cell, used, available in _UTILISATION.findall(log)
             if cell in kinds}
    if not found:
        return None
    return Usage({k: v[0] for k, v in found.items()}, {k: v[1] for k, v in found.items()})


def clocks(report: Path) -> dict[str, Timing]:
    """Clocks of nextpnr's JSON report by the name of their pin or signal."""
    fmax = json.loads(report.read_text())["fmax"]
    return {_short(name): Timing(entry["constraint"], entry["achieved"]) for name, entry in fmax.items()}


def _short(name: str) -> str:
    """``$glbnet$clk25_0__io$TRELLIS_IO_IN`` -> ``clk25``; of a PLL ``$glbnet$chip.core.array.clk`` -> ``clk``."""
    match = re.search(r"([A-Za-z]\w*?)_\d+__io?\b", name)
    return match[1] if match else name.removeprefix("$glbnet$").rsplit(".", 1)[-1]


def flip_flops(cells: Path) -> int:
    """Flip-flops counted by yosys's ``stat -json``."""
    kinds = json.loads(cells.read_text())["design"]["num_cells_by_type"]
    return sum(count for kind, count in kinds.items() if kind.startswith(("SB_DFF", "TRELLIS_FF")))
