"""How fast the models of the chip run on this machine: the integer model, and the RTL under Verilator."""

import time
from collections.abc import Iterator

import numpy as np

from echolith.bench.figure import Choice, Figure, Row, Say
from echolith.bench.nets import REFERENCE, design, samples
from echolith.bench.store import Store

__all__ = ["FIGURE"]

_SAMPLES = {"int:": 1024, "sim:": 256}
_REPEATS = 3


def _measure(choice: Choice, store: Store, say: Say) -> Iterator[Row]:
    for units in choice.units or (REFERENCE,):
        for lanes in choice.lanes or (16,):
            for url, count in _SAMPLES.items():
                say(f"simulation: {units} units on {lanes} lanes, {url}")
                yield _row(units, lanes, url, count)


def _row(units: int, lanes: int, url: str, count: int) -> Row:
    x, y = samples(count)
    seconds, cycles = [], 0
    with design(units, lanes).open(url) as chip:
        for _ in range(_REPEATS):
            begun = time.perf_counter()
            cycles = chip.fit(x, y, batch_size=32, learning_rate=0.001).cycles
            seconds.append(time.perf_counter() - begun)
    spent = float(np.median(seconds))
    return {"units": units, "lanes": lanes, "url": url, "samples": count, "samples_per_second": count / spent,
            "slowest": count / max(seconds), "cycles_per_second": cycles / spent if cycles else None}


FIGURE = Figure(
    title="Learning on this machine, batches of 32: integer model and RTL", keys=("url", "units", "lanes"),
    tools=("numpy", "verilator"), measure=_measure,
    columns={
        "url": lambda r: r["url"], "units": lambda r: r["units"], "lanes": lambda r: r["lanes"],
        "samples/s": lambda r: f"{r['samples_per_second']:,.0f} (slowest {r['slowest']:,.0f})",
        "cycles/s": lambda r: f"{r['cycles_per_second']:,.0f}" if r["cycles_per_second"] else "",
    },
)
