"""Formats for wanted figures: the calibrated ones, then finer ones, until the integer model's figures are met."""

import dataclasses
import itertools
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from echolith.compiler.case import Case
from echolith.compiler.design import Design
from echolith.compiler.errors import CompileError, EcholithError
from echolith.compiler.isa import Opcode
from echolith.compiler.quantise import Formats, choose_formats
from echolith.compiler.scalars import real

__all__ = ["Wanted", "search"]

_SAMPLES = 32, 512  # calibration samples for gradients, for predictions
_FINER = (0, 1, 2)  # bits
_PIECES = (0, 1, 2)  # doublings of the tables
_SPARE = 0.3  # bits of a format beyond the calibrated range that must be left


@dataclass(frozen=True)
class Wanted:
    """Figures of the integer model against float64, on the calibration data.

    Parameters
    ----------
    cosine : float
        At least this between the gradients, all parameters in one vector. Not looked at without a rule.
    loss : float
        At most so many points of accuracy lost, or percent of the outputs where targets are not classes.
    """

    cosine: float = 0.9995
    loss: float = 0.5

    def __post_init__(self) -> None:
        if not 0 < (real(self.cosine) or 0) < 1:
            raise CompileError(f"Wanted: cosine must be a number between 0 and 1, not {self.cosine!r}")
        if (loss := real(self.loss)) is None or loss < 0:
            raise CompileError(f"Wanted: loss must be a number of points, not negative, not {self.loss!r}")


@dataclass(frozen=True)
class _Tried:
    design: Design
    cosine: float
    loss: float

    def short(self, wanted: Wanted) -> float:
        """How far from what is wanted, as a factor; at most 1 if it is met."""
        return max((1 - self.cosine) / (1 - wanted.cosine), self.loss / max(wanted.loss, 1e-9))


def search(case: Case, wanted: Wanted, lower: Callable[[Formats], Design]) -> Design:
    """The first design that meets ``wanted``; raises CompileError with the best figures if none does."""
    best: _Tried | None = None
    failed: EcholithError | None = None
    for formats in _candidates(case):
        if best and not best.design.hardware.tables and formats.segments != case.board.segments:
            continue
        try:
            tried = _measured(case, lower(formats))
        except EcholithError as error:
            failed = failed or error
            continue
        if tried.short(wanted) <= 1.0:
            return tried.design
        if best is None or tried.short(wanted) < best.short(wanted):
            best = tried
    if best is None:
        raise CompileError(f"precision: no format works on the calibration data: {failed}")
    raise CompileError(f"precision: the best formats, states {best.design.precision['state']} and tables of "
                       f"{best.design.precision['table']}, have a gradient cosine of {best.cosine:.7f} and a loss of "
                       f"{best.loss:.3g}: ask for less, or see in precision_report() whether perturbations grow too "
                       f"fast, not {wanted}")


def _candidates(case: Case) -> Iterator[Formats]:
    """Calibrated formats first, then those that differ least; last of all wider ranges, if states wrap."""
    formats = choose_formats(case)
    spare, seen = _spare(case, formats), set()
    for bits, pieces in (*sorted(itertools.product(_FINER, _PIECES), key=lambda c: (sum(c), c[1])), (-1, 0), (-2, 0)):
        fractions = {name: formats[name] + (bits if bits < 0 or left >= bits + _SPARE else 0)
                     for name, left in spare.items()}
        key = (tuple(fractions.values()), pieces)
        if key not in seen and fractions["state"] >= 0:
            seen.add(key)
            yield dataclasses.replace(choose_formats(case, fractions), segments=formats.segments + pieces)


def _spare(case: Case, formats: Formats) -> dict[str, float]:
    """Bits that calibrated values leave unused, of states, sums, weights and vector parameters."""
    samples, values = case.samples, case.flow.values
    sums = {p.acc: float(np.abs(samples.values[p.acc]).max()) for p in case.passes if p.opcode == Opcode.FORWARD}
    driven = [sums[p.acc] for p in case.passes if p.opcode == Opcode.FORWARD and p.drive]
    largest = {"state": max(samples.p, *(float(np.abs(samples.values[s]).max()) for s in case.graph.states))}
    largest |= {**sums, "z": max(driven or sums.values(), default=0.0)}
    largest |= {p.acc: largest["z"] for p in case.passes if p.opcode == Opcode.FORWARD and p.drive}
    blocks = {"readout", *(case.plan.names[m] for p in case.passes for m in (p.matrix, p.drive) if m)}
    for column in (c for c in case.plan.columns if c.block in blocks):  # all drives share one format
        block = "drive" if column.block.startswith("drive") else column.block
        found = max(abs(column.scale) * float(np.abs(values[n]).max(initial=0.0)) for n, *_ in column.parameters)
        largest[block] = max(found, largest.get(block, 0.0))
    largest |= {b: largest["drive"] for b in blocks if b.startswith("drive")}
    largest |= {f"vector{i}": float(np.abs(values[name]).max()) for i, name in enumerate(case.vectors)}
    width = case.board.width
    return {name: width - 1 - formats[name] - math.log2(max(x, 2.0**-width)) for name, x in largest.items()}


def _measured(case: Case, design: Design) -> _Tried:
    from echolith.host.figures import gradient_cosine, prediction_loss
    from echolith.sim.spans import affordable

    few, many = (affordable(design, most) for most in _SAMPLES)
    x, y = case.samples.inputs, case.samples.targets
    if case.samples.missing is not None:
        y = np.where(case.samples.missing, np.nan, y)
    found = gradient_cosine(design, design.values, x[:few], y[:few]) if case.learn else 1.0
    return _Tried(design, found, prediction_loss(design, design.values, x[:many], y[:many]))
