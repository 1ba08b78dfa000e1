"""Real builds of varied designs, for the resource model: what they are made of and what place-and-route counted.

    .venv/bin/python bench/builds.py [--packed] [name ...]     # all if none is named; those of this RTL are skipped

Adds to bench/results/builds.json. A build takes one to five minutes; its files are in build/builds. With --packed it
takes half a minute, and cells are counted before placement: the row has "routed": false.
"""

import dataclasses
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import nn

import echolith as el
from echolith.boards.build import Survey
from echolith.compiler.design import Design
from echolith.examples import demo
from echolith.examples.digits import Digits

_ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(_ROOT / "tests"))
from energies import Deep, Hopfield, Inputs, Joined, Ring, Shared, Springs, Tied  # noqa: E402
from networks import Oscillators  # noqa: E402

__all__ = ["CASES", "HELD_OUT", "RESULTS", "main"]

RESULTS = _ROOT / "bench" / "results" / "builds.json"
_COUNTED = (
    "board", "lanes", "hardware_id", "fmax_mhz", "lut", "ff", "dsp", "bram", "spram", "seed", "seconds", "tools",
)


def _compiled(net: Callable[[], nn.Module], lanes: int, *, board: str = "ulx3s-85f", learn: bool = True,
              cost_at: str = "last", samples: int = 32, steps: int = 5) -> Callable[[], Design]:
    def make() -> Design:
        torch.manual_seed(0)
        model, generator = net(), np.random.default_rng(0)
        x = generator.integers(-8, 9, (samples, steps, model.inputs)) / 8
        shape = (samples, steps, model.outputs) if cost_at == "every" else (samples, model.outputs)
        y = generator.integers(0, 2, shape).astype(float)
        rule = el.HamiltonianEcho(cost_at) if learn else None
        return el.compile(model, dynamics=el.Leapfrog(0.25, 2), rule=rule, calibrate=(x, y), board=board, lanes=lanes)

    return make


def _ice(net: Callable[[], nn.Module], lanes: int, **how) -> Callable[[], Design]:
    return _compiled(net, lanes, board="icebreaker", **how)


# Designs by name: board, lanes and what is special.
CASES: dict[str, Callable[[], Design]] = {
    "demo-ulx3s": lambda: demo.designs()["ulx3s-85f"],
    "demo-icebreaker": lambda: demo.designs()["icebreaker"],
    "ecp5-1-stiff": _compiled(lambda: Oscillators(9, 7, 3, 4), 1),
    "ice-1-learn": _ice(lambda: Digits(12, 12), 1),
    "ecp5-3-deep": _compiled(Deep, 3),
    "ice-2-infer": _ice(lambda: Digits(24, 24), 2, learn=False),
    "ecp5-2-plain": _compiled(lambda: Digits(12, 12), 2, samples=100),
    "ecp5-2-hopfield": _compiled(Hopfield, 2),
    "ice-1-infer": _ice(lambda: Oscillators(10, 12, 3, 4), 1, learn=False),
    "ecp5-4-infer": _compiled(lambda: Oscillators(20, 24, 5, 10), 4, learn=False),
    "ecp5-6-stiff": _compiled(lambda: Oscillators(24, 30, 5, 10, quartic=0.0), 6),
    "ice-1-stiff": _ice(lambda: Oscillators(8, 8, 3, 2, quartic=0.0, mse=True), 1),
    "ecp5-1-ring": _compiled(Ring, 1, cost_at="every"),
    "ecp5-3-mse": _compiled(lambda: Oscillators(15, 13, 7, 5, mse=True), 3, samples=500),
    "ecp5-1-infer": _compiled(lambda: Digits(32, 32), 1, learn=False),
    "ice-1-hopfield": _ice(Hopfield, 1, learn=False),
    "ecp5-4-tied": _compiled(Tied, 4, cost_at="every"),
    "ecp5-2-springs": _compiled(Springs, 2, learn=False),
    "ecp5-1-shared": _compiled(Shared, 1),
    "ecp5-8-infer": _compiled(lambda: Digits(48, 48), 8, learn=False),
    "ice-2-stiff": _ice(lambda: Oscillators(12, 12, 3, 4, quartic=0.0), 2, learn=False),
    "ice-1-gain": _ice(lambda: Oscillators(6, 10, 2, 2, quartic=0.0, mse=True), 1),
    "ice-1-every": _ice(lambda: Digits(8, 8), 1, cost_at="every", steps=3),
    "ice-1-ring": _ice(Ring, 1, learn=False),
    "ecp5-2-joined": _compiled(Joined, 2),
    "ecp5-1-inputs": _compiled(Inputs, 1, learn=False),
}

# Kept from the fit: some of every kind.
HELD_OUT = ("ecp5-3-mse", "ecp5-4-tied", "ecp5-8-infer", "ecp5-1-shared", "ecp5-2-joined", "ecp5-2-springs",
            "ecp5-1-inputs", "ice-1-gain", "ice-2-stiff", "ice-1-every", "ice-1-ring")


def main(arguments: list[str]) -> None:
    """One after the other; what fails is said and left out."""
    packed = "--packed" in arguments
    for name in [a for a in arguments if a != "--packed"] or list(CASES):
        rows = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
        there = rows.get(name)
        if there and there["rtl"] == _rtl() and (packed or there.get("routed", True)):
            continue
        try:
            design = CASES[name]()
            print(name, design.hardware.lanes, f"{design.hardware.hardware_id:08x}", flush=True)
            made = Survey(design).pack() if packed else design.build(_ROOT / "build" / "builds" / name, progress=print)
        except el.EcholithError as error:
            print(f"{name}: {error}", flush=True)
            continue
        row = {key: value for key, value in dataclasses.asdict(made).items() if key in _COUNTED}
        rows[name] = row | {"rtl": _rtl(), "routed": not packed, "hardware": dataclasses.asdict(design.hardware)}
        _store(rows)
        print({key: row[key] for key in ("lut", "ff", "dsp", "bram", "spram", "fmax_mhz", "seconds")}, flush=True)


def _rtl() -> str:
    """The last commit that changed the RTL or what the tools are told."""
    command = ["git", "-C", str(_ROOT), "log", "-1", "--format=%h", "--", "rtl", "boards"]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


def _store(rows: dict[str, dict]) -> None:
    """A line per build."""
    lines = ",\n".join(f"{json.dumps(name)}: {json.dumps(row, separators=(',', ':'))}" for name, row in rows.items())
    RESULTS.parent.mkdir(parents=True, exist_ok=True)
    RESULTS.write_text(f"{{\n{lines}\n}}\n")


if __name__ == "__main__":
    main(sys.argv[1:])
