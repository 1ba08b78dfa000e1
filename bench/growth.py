"""How cycles, memory and compile time grow with units, lanes and steps. Build times are in the table of areas.

Every size is measured in a process of its own, so that memory is its own too. Verilog is written of what fits the
board: the memories of larger networks alone would take minutes.
"""

import multiprocessing
import re
import resource
import time
from collections.abc import Iterator
from pathlib import Path

from echolith.bench.figure import Choice, Figure, Row, Say
from echolith.bench.store import Store

__all__ = ["FIGURE"]

_UNITS, _LANES, _ROWS = (16, 32, 64, 128, 256, 512, 1024), (1, 2, 4, 8, 16, 32, 64), (2, 4, 8, 16, 32, 64)
_AT = (64, 8, 8)  # units, lanes and input rows that do not grow


def _sizes(choice: Choice) -> list[tuple[int, int, int]]:
    units, lanes, rows = _AT
    if choice.units or choice.lanes:
        return [(n, m, rows) for n in choice.units or (units,) for m in choice.lanes or (lanes,)]
    grown = [*((n, lanes, rows) for n in _UNITS), *((units, n, rows) for n in _LANES),
             *((units, lanes, n) for n in _ROWS)]
    return list(dict.fromkeys(grown))


def _measure(choice: Choice, store: Store, say: Say) -> Iterator[Row]:
    for size in _sizes(choice):
        say("growth: {} units on {} lanes, {} input rows".format(*size))
        with multiprocessing.get_context("spawn").Pool(1) as fresh:
            yield fresh.apply(_row, size)


def _row(units: int, lanes: int, rows: int) -> Row:
    """Of a fresh process."""
    from echolith.bench.nets import design
    from echolith.boards.catalog import board
    from echolith.compiler.resources import resources
    from echolith.rtl.chip import Chip
    from echolith.sim.verilog import convert

    design(4, 2)  # torch's own first-time work
    before, begun = _megabytes(), time.process_time()
    found = design(units, lanes, rows=rows)
    compiled = time.process_time()
    memory, estimate = _megabytes(), found.estimate()
    estimated = time.process_time()
    fits = not resources(found.hardware, board(found.report["board"])).shortage()
    verilog = convert(Chip(found.hardware), "chip") if fits else None
    written = time.process_time() - estimated
    return {
        "units": units, "lanes": lanes, "rows": rows,
        "weights": sum(v.size for v in found.values.values()),
        "cycles_per_learned_sample": estimate["cycles"]["learn_sample"],
        "cycles_per_update": estimate["cycles"]["update"], "chip_memory_bits": estimate["memory_bits"],
        "program_words": len(found.program), "compile_seconds": compiled - begun,
        "estimate_seconds": estimated - compiled, "verilog_seconds": written if verilog else None,
        "verilog_bytes": len(verilog) if verilog else None, "peak_megabytes": memory, "base_megabytes": before,
    }


def _megabytes() -> int:
    """The most that this process had. Linux counts its parent's in ``ru_maxrss``."""
    status = Path("/proc/self/status")
    found = re.search(r"^VmHWM:\s+(\d+) kB$", status.read_text(), re.MULTILINE) if status.exists() else None
    return int(found[1] if found else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss) // 1024


FIGURE = Figure(
    title="Growth", keys=("units", "lanes", "rows"), tools=("torch", "amaranth"), measure=_measure,
    columns={
        "units": lambda r: r["units"], "lanes": lambda r: r["lanes"], "input rows": lambda r: r["rows"],
        "weights": lambda r: f"{r['weights']:,}",
        "cycles a learned sample": lambda r: f"{r['cycles_per_learned_sample']:,.0f}",
        "chip memory, kbit": lambda r: f"{r['chip_memory_bits'] / 1024:,.0f}",
        "compile, CPU s": lambda r: f"{r['compile_seconds']:.2f}",
        "Verilog, CPU s": lambda r: f"{r['verilog_seconds']:.1f}" if r["verilog_bytes"] else "does not fit",
        "Verilog, MB": lambda r: f"{r['verilog_bytes'] / 1e6:.2f}" if r["verilog_bytes"] else "",
        "peak memory, MB": lambda r: f"{r['peak_megabytes']:,} ({r['base_megabytes']:,} before)",
    },
)
