"""How fast the models of the chip are: the integer model beside torch, the RTL in cycles per second. Prints JSON and
keeps it in bench/results/models.json.

    .venv/bin/python bench/models.py [repeats]

Learning steps of one batch by the integer model, on numpy alone and compiled, and by torch's float32 autograd take
turns; medians. On a machine with other work look at ``cpu_ms``, the processor's time; only one thread is timed there.
"""

import json
import os
import platform
import resource
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from threadpoolctl import threadpool_limits
from torch import nn

import echolith as el
from echolith.compiler.design import Design
from echolith.examples.digits import DT, SUBSTEPS, Digits
from echolith.host.doctor import versions
from echolith.host.rates import rates
from echolith.sim.data import words
from echolith.sim.device import IntegerDevice
from echolith.sim.simulator import build
from echolith.sim.weights import from_values

__all__ = ["main"]

RESULTS = Path(__file__).parent / "results" / "models.json"
UNITS, ROWS, BATCH, LANES, RATE = 64, 8, 256, 16, 1e-4
Step = Callable[[], object]


def samples(count: int) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(0)
    x = generator.integers(0, 17, (count, ROWS, Digits.inputs)) / 16
    return x, generator.integers(0, 2, (count, Digits.outputs)).astype(float)


def integer(design: Design, compiled: bool) -> Step:
    """Learn a batch and update, as most batches are: without copy 0."""
    x, y = samples(BATCH)
    x, y = words(design, x, y[:, None])
    device = IntegerDevice(design, compiled)
    device.write(from_values(design, design.values))
    update = rates(design, RATE, 0.0, BATCH, device.gain, 0)

    def step() -> None:
        device.run("unchecked", x, y)
        device.update(update)

    return step


def autograd() -> Step:
    """The same by torch as fast as it is in eager mode: forces written out, B u + b once per row."""
    torch.manual_seed(0)
    net = Digits(UNITS, UNITS)
    x, y = (torch.from_numpy(a.astype(np.float32)) for a in samples(BATCH))
    optimiser, w = torch.optim.SGD(net.parameters(), lr=RATE), net.W.weight

    def step() -> None:
        optimiser.zero_grad()
        q = p = torch.zeros(BATCH, UNITS)
        for row in range(ROWS):
            drive = net.B(x[:, row])
            for _ in range(SUBSTEPS if row < ROWS - 1 else SUBSTEPS - 1):
                p = p - DT * (q + torch.tanh(q @ w.T + drive) @ w)
                q = q + DT * p
        cost = nn.functional.binary_cross_entropy_with_logits(net.C(q), y, reduction="sum") / BATCH
        cost.backward()
        optimiser.step()

    return step


def steps(design: Design, repeats: int) -> dict[str, dict]:
    """Milliseconds of a learning step and speed relative to torch, by threads and by who learns."""
    learners = {"numpy": integer(design, False), "compiled": integer(design, True), "torch": autograd()}
    found = {}
    cores = os.cpu_count() or 1
    busy = os.getloadavg()[0] > cores  # threads that wait for each other then take a hundred times as long
    for threads in (1,) if busy else sorted({1, cores}):
        torch.set_num_threads(threads)
        with threadpool_limits(threads):
            wall, cpu = timed(learners, repeats)
        found[f"threads {threads}"] = {
            name: {"ms": 1e3 * wall[name], "cpu_ms": 1e3 * cpu[name], "of_torch": wall["torch"] / wall[name],
                   "cpu_of_torch": cpu["torch"] / cpu[name]} for name in learners}
    return found


def timed(learners: dict[str, Step], repeats: int) -> tuple[dict[str, float], dict[str, float]]:
    """Medians in turns: seconds, and the processor's."""
    wall: dict[str, list[float]] = {name: [] for name in learners}
    cpu: dict[str, list[float]] = {name: [] for name in learners}
    for _ in range(repeats + 3):
        for name, step in learners.items():
            begun, used = time.perf_counter(), time.process_time()
            step()
            wall[name].append(time.perf_counter() - begun)
            cpu[name].append(time.process_time() - used)
    first, second = ({name: statistics.median(s[3:]) for name, s in each.items()} for each in (wall, cpu))
    return first, second


def rtl(design: Design) -> dict[str, float]:
    """Cycles per second while learning in a session; seconds to build the simulator."""
    begun = time.perf_counter()
    build(design)
    built = time.perf_counter() - begun
    used = _children()
    with design.open("sim:") as chip:
        begun = time.perf_counter()
        history = chip.fit(*samples(BATCH), batch_size=32, learning_rate=RATE)
        seconds = time.perf_counter() - begun
    assert history.cycles is not None
    return {"lanes": LANES, "cycles": history.cycles, "cycles_per_second": history.cycles / seconds,
            "cycles_per_cpu_second": history.cycles / (_children() - used), "build_seconds": built,
            "build_cpu_seconds": used}


def _children() -> float:
    """Processor time of all that has been started and has ended."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def main(repeats: int = 31) -> None:
    torch.manual_seed(0)
    design = el.compile(Digits(UNITS, UNITS), dynamics=el.Leapfrog(DT, SUBSTEPS), rule=el.HamiltonianEcho("last"),
                        calibrate=samples(64), lanes=LANES)
    with tempfile.TemporaryDirectory() as cache:
        os.environ["ECHOLITH_CACHE"] = cache  # so that the simulator is built
        simulated = rtl(design)
        learned = steps(design, repeats)
    report = {"batch": BATCH, "steps": learned, "rtl": simulated, "load": os.getloadavg()[0],
              "machine": {"cpu": _cpu(), "cores": os.cpu_count()}, "versions": versions()}
    text = json.dumps(report, indent=1)
    RESULTS.write_text(text + "\n")
    print(text)


def _cpu() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    return next((line.partition(": ")[2] for line in lines if line.startswith("model name")), platform.machine())


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
