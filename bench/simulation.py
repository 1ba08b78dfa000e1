"""How fast the models of the chip run on this machine: the integer model beside torch, the RTL under Verilator.

Learning steps of one batch by torch's float32 autograd and by the integer model, on numpy alone and compiled, take
turns on one thread; the figure is the processor's time, which other work on the machine disturbs least. Most batches
are learned without the un-nudged copy, and so is this one.
"""

import os
import resource
import statistics
import time
from collections.abc import Callable, Iterator

import torch
from threadpoolctl import threadpool_limits

from echolith.bench import autograd
from echolith.bench.figure import Choice, Figure, Row, Say
from echolith.bench.nets import REFERENCE, design, samples
from echolith.bench.store import Store
from echolith.compiler.design import Design
from echolith.examples.digits import Digits
from echolith.host.rates import rates
from echolith.sim.data import words
from echolith.sim.device import IntegerDevice
from echolith.sim.weights import from_values

__all__ = ["FIGURE"]

_GOALS = {"int:": 0.25, "int:compiled": 0.5, "sim:": 1e6}  # torch's speed, torch's speed, cycles a CPU second
_BATCH, _RATE = 256, 1e-4
_REPEATS, _SESSIONS = 31, 3
Step = Callable[[], object]


def _measure(choice: Choice, store: Store, say: Say) -> Iterator[Row]:
    for units in choice.units or (REFERENCE,):
        for lanes in choice.lanes or (16,):
            say(f"simulation: {units} units, integer model and torch")
            yield from _steps(units, lanes)
            say(f"simulation: {units} units on {lanes} lanes, RTL")
            yield _rtl(units, lanes)


def _row(url: str, units: int, lanes: int, speed: float, **more: object) -> Row:
    return {"url": url, "units": units, "lanes": lanes, "batch": _BATCH, "speed": speed, "goal": _GOALS[url],
            "load": os.getloadavg()[0], **more}


def _steps(units: int, lanes: int) -> Iterator[Row]:
    """The integer models; ``speed`` is that of torch's on the same net in the same run."""
    d = design(units, lanes)
    torch.manual_seed(0)
    learners = {"torch": autograd.learner(Digits(units, units), _BATCH), "int:": _integer(d, False),
                "int:compiled": _integer(d, True)}
    with autograd.on_threads(1), threadpool_limits(1):
        wall, cpu = _timed(learners)
    for url in ("int:", "int:compiled"):
        yield _row(url, units, lanes, cpu["torch"] / cpu[url], cpu_seconds=cpu[url], seconds=wall[url],
                   torch_cpu_seconds=cpu["torch"], torch_seconds=wall["torch"], samples_per_second=_BATCH / wall[url])


def _integer(d: Design, compiled: bool) -> Step:
    """Learns a batch and updates."""
    x, y = samples(_BATCH)
    x, y = words(d, x, y[:, None])
    device = IntegerDevice(d, compiled)
    device.write(from_values(d, d.values))
    update = rates(d, _RATE, 0.0, _BATCH, device.gain, 0)

    def step() -> None:
        device.run(d.learning(1), x, y)
        device.update(update)

    return step


def _timed(learners: dict[str, Step]) -> tuple[dict[str, float], dict[str, float]]:
    """Medians in turns: seconds, and the processor's."""
    wall: dict[str, list[float]] = {name: [] for name in learners}
    cpu: dict[str, list[float]] = {name: [] for name in learners}
    for _ in range(_REPEATS + 3):
        for name, step in learners.items():
            begun, used = time.perf_counter(), time.process_time()
            step()
            wall[name].append(time.perf_counter() - begun)
            cpu[name].append(time.process_time() - used)
    first, second = ({name: statistics.median(s[3:]) for name, s in each.items()} for each in (wall, cpu))
    return first, second


def _rtl(units: int, lanes: int) -> Row:
    """Sessions that learn a batch, loading included; ``speed`` in cycles per second of the simulator's processor."""
    from echolith.sim.simulator import build

    d, x, y = design(units, lanes), *samples(_BATCH)
    build(d)
    wall, cpu, cycles = [], [], 0
    for _ in range(_SESSIONS):
        used = _children()
        with d.open("sim:") as chip:
            begun = time.perf_counter()
            cycles = chip.fit(x, y, batch_size=32, learning_rate=_RATE).cycles or 0
            wall.append(time.perf_counter() - begun)
        cpu.append(_children() - used)
    seconds, spent = statistics.median(wall), statistics.median(cpu)
    return _row("sim:", units, lanes, cycles / spent, cpu_seconds=spent, seconds=seconds,
                samples_per_second=_BATCH / seconds, cycles=cycles, cycles_per_second=cycles / seconds)


def _children() -> float:
    """Processor time of all that has been started and has ended."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def _speed(r: Row) -> str:
    text = f"{r['speed']:,.0f} cycles a CPU second" if "cycles" in r else f"{r['speed']:.2f} of torch"
    return text if r["speed"] >= r["goal"] else f"{text}, BELOW {r['goal']:,}"


FIGURE = Figure(
    title=f"Learning on one thread of this machine: integer model beside torch, batch of {_BATCH}, and RTL",
    keys=("url", "units", "lanes"), tools=("numpy", "torch", "verilator"), measure=_measure,
    columns={
        "url": lambda r: r["url"], "units": lambda r: r["units"], "lanes": lambda r: r["lanes"], "speed": _speed,
        "CPU ms": lambda r: f"{1e3 * r['cpu_seconds']:,.1f}",
        "torch's": lambda r: f"{1e3 * r['torch_cpu_seconds']:,.1f}" if "torch_cpu_seconds" in r else "",
        "samples/s": lambda r: f"{r['samples_per_second']:,.0f}", "load": lambda r: f"{r['load']:.1f}",
    },
)
