"""Long samples of a stack: what a chip needs for them, whether they return, what is left of the gradient.

    python -m echolith.bench.stack_length [rows ..]      # 500 and 2000: a minute or two; 50000: more than half an hour

A block of linear oscillators and a layer above it (those of `echolith bench stack-cosines`), two samples, the cost at
the last row. Bits are those of all memories but inputs, targets, their order and results; growth is that of a
perturbation in a step; the gradient is that of one nudge, beside float64 backpropagation.
"""

import sys
import time

import numpy as np
import torch

import echolith as el
from echolith.bench.stacks import Blocks, by_part
from echolith.compiler.design import Design
from echolith.compiler.estimate import memories
from echolith.compiler.reference import bptt
from echolith.examples import series
from echolith.host.arrays import targets
from echolith.host.measure import Measurement
from echolith.sim.data import words
from echolith.sim.growth import growth

__all__ = ["main", "measured"]

_CHANNELS, _CLASSES, _LANES, _SEEN = 8, 5, 8, 2000  # rows in which growth is measured
_DATA = ("data", "order", "results")


def design(rows: int) -> tuple[torch.nn.Module, np.ndarray, np.ndarray, Design]:
    draws = np.random.default_rng(0)
    x = draws.integers(-64, 65, (2, rows, _CHANNELS)) / 64
    y = np.eye(_CLASSES)[draws.integers(_CLASSES, size=2)]
    torch.manual_seed(0)
    net = Blocks(1, linear=True)
    return net, x, y, el.compile(net, dynamics=el.Leapfrog(series.DT), rule=el.HamiltonianEcho(), lanes=_LANES,
                                 calibrate=(x, y))


def measured(rows: int) -> dict[str, object]:
    """One line."""
    started = time.process_time()
    net, x, y, found = design(rows)
    compiled = time.process_time() - started
    with found.open("int:") as chip:
        exact = chip.echo(x).exact
        data = words(found, x, targets(found, y, len(x)))
        measurement = Measurement(found, chip.device, chip._ranging, chip._good)
        gradient = measurement.at(*data, 0)
    expected, _ = bptt(net, x, y, series.DT, 1)
    bits = sum(m.copies * m.words * m.bits for m in memories(found) if m.name not in _DATA)
    return {"rows": rows, "compiled": compiled, "bits": bits, "exact": exact,
            "growth": float(np.exp(growth(found, found.values, x[:, :_SEEN]))),
            "cosine": by_part(net, gradient, expected)[0]}


def main(lengths: tuple[int, ...] = (500, 2000)) -> None:
    torch.set_num_threads(1)
    for rows in lengths:
        row = measured(rows)
        back = "exactly" if row["exact"] else "NOT"
        print(f"{rows:,} rows: returned {back}, growth {row['growth']:.6f} a step, cosine "
              f"{row['cosine']:.6f}; {row['bits']:,} bits beside data; compiled in {row['compiled']:.0f} s", flush=True)


if __name__ == "__main__":
    main(*[tuple(map(int, sys.argv[1:]))] if len(sys.argv) > 1 else ())
