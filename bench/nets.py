"""The networks that are measured: the digits' oscillators, with as many units as rows, on random samples."""

from functools import cache

import numpy as np
import torch

import echolith as el
from echolith.compiler.design import Design
from echolith.examples.digits import DT, SUBSTEPS, Digits

__all__ = ["REFERENCE", "ROWS", "UNITS", "design", "samples"]

REFERENCE = 64  # units of the network that most figures are about
UNITS = (16, 32, REFERENCE, 128, 224)
ROWS = 8  # input rows of a sample
_SAMPLES = 64  # to calibrate with


def samples(count: int, *, rows: int = ROWS, cost_at: str = "last") -> tuple[np.ndarray, np.ndarray]:
    """Inputs (count, rows, 8) in [0, 1] and targets of ten outputs, the same ones every time."""
    generator = np.random.default_rng(0)
    x = generator.integers(0, 17, (count, rows, Digits.inputs)) / 16
    shape = (count, rows, Digits.outputs) if cost_at == "every" else (count, Digits.outputs)
    return x, generator.integers(0, 2, shape).astype(float)


@cache
def design(units: int, lanes: int, board: str = "ulx3s-85f", *, cost_at: str = "last", rows: int = ROWS) -> Design:
    """A learning design of ``units`` oscillators and as many rows of the coupling."""
    torch.manual_seed(0)
    return el.compile(Digits(units, units), dynamics=el.Leapfrog(DT, SUBSTEPS), rule=el.HamiltonianEcho(cost_at),
                      calibrate=samples(_SAMPLES, rows=rows, cost_at=cost_at), board=board, lanes=lanes)
