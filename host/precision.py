"""The precision report: what every tensor holds, and what the gradient loses to nudge, word length and chaos."""

import dataclasses
import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from echolith.compiler.derived import chained, completed
from echolith.compiler.design import Design
from echolith.compiler.errors import FileError, RangeError
from echolith.compiler.isa import Opcode
from echolith.compiler.paths import named, writable
from echolith.compiler.pipeline import Op, Pipeline
from echolith.host.arrays import inputs, targets
from echolith.host.figures import cosine, gradient_cosine, prediction_loss
from echolith.host.measure import Measurement
from echolith.host.ranging import Ranging
from echolith.host.weights import checked
from echolith.sim import adjoint
from echolith.sim.data import words
from echolith.sim.device import IntegerDevice
from echolith.sim.growth import growth
from echolith.sim.spans import Span, affordable, reach, spans
from echolith.sim.weights import from_values

__all__ = ["PrecisionReport", "precision_report"]

_SAMPLES = 16  # of the gradients and the growth
_NUDGES = range(-3, 6)  # halvings of the usual nudge
_COARSER = (0, 1, 2, 3, 4, 6)  # bits
_CHAOS = 8  # bits of a state that an echo cannot spare for growth: nudge, rounding, their distance
_COLUMNS = ("min", "25 %", "50 %", "75 %", "max")
_REACH = 1.5  # times the range seen that circuits should hold
_TIGHT = 0.5  # bits of margin that are worth a warning


@dataclass(frozen=True)
class PrecisionReport:
    """Plain figures; ``str`` is text for a terminal."""

    tensors: list[Span]
    reach: dict[str, float]  # times the range seen up to which each circuit is exact
    loss: float  # points or percent, see `figures.prediction_loss`
    cosine: float | None  # of `Session.gradient` against float64; None without a rule
    by_nudge: dict[int, float]  # halvings of the usual nudge -> cosine from that one alone; 0 where a state wraps
    by_bits: dict[int, float]  # fraction bits of the states -> cosine
    growth: float  # of perturbations per step, natural logarithm
    steps: int
    longest: float  # steps beyond which the gradient is lost to growth; inf if nothing grows

    @property
    def warnings(self) -> list[str]:
        found = [f"{t.name} comes within {t.margin:.1f} bits of its limit {t.limit:g}: give it a wider format than "
                 f"{t.format}" for t in self.tensors if t.margin < _TIGHT and t.name not in ("input", "target")]
        found += [f"the circuit of {name} clips soon beyond the range seen: make the function less steep, or "
                  f"calibrate with data that move the states further, not {times:g} times the range seen"
                  for name, times in self.reach.items() if times < _REACH]
        if self.steps > self.longest:
            found.append(f"perturbations grow by {math.exp(self.growth):.3f} a step, and the gradient is lost to chaos "
                         f"beyond about {self.longest:.0f} steps: use fewer steps, a smaller dt or weaker couplings, "
                         f"not {self.steps} steps")
        return found

    def plain(self) -> dict:
        """JSON: numbers, strings, lists and dicts; null for what is infinite."""
        found = {**dataclasses.asdict(self), "warnings": self.warnings}
        found["tensors"] = [{**dataclasses.asdict(t), "margin": t.margin} for t in self.tensors]
        return {name: _finite(value) for name, value in found.items()}

    def save(self, path) -> None:
        """Write ``.json``, or a picture: ``.png``, ``.pdf`` or ``.svg``, which needs matplotlib."""
        target = named(path)
        if target.suffix not in (".json", ".png", ".pdf", ".svg"):
            raise FileError(f"a precision report is saved as .json, .png, .pdf or .svg, not {target.name!r}")
        writable(target)
        if target.suffix == ".json":
            target.write_text(json.dumps(self.plain(), indent=2) + "\n")
            return
        from echolith.host.precision_picture import draw

        draw(self, target)

    def __str__(self) -> str:
        return "\n".join(self._lines())

    def _lines(self) -> Iterator[str]:
        yield f"{'tensor':<14}{'format':>8}{'limit':>10}  " + "".join(f"{n:>10}" for n in _COLUMNS) + "  margin"
        for t in self.tensors:
            numbers = "".join(f"{v:>10.3g}" for v in t.seen)
            yield f"{t.name:<14}{t.format:>8}{t.limit:>10.4g}  {numbers}  {t.margin:.1f} bits"
        yield ""
        yield "circuits hold   " + ", ".join(f"{n} {_times(r)}" for n, r in self.reach.items())
        yield f"predictions     lose {self.loss:.3g} points or percent against float64"
        if self.cosine is not None:
            yield f"gradient        cosine {self.cosine:.7f} against float64"
            yield "  by nudge      " + ", ".join(f"2^{-n}: {c:.6f}" for n, c in self.by_nudge.items())
            yield "  by state bits " + ", ".join(f"Q.{f}: {c:.6f}" for f, c in self.by_bits.items())
        limit = f"good for about {self.longest:,.0f} steps" if math.isfinite(self.longest) else "no limit"
        yield f"perturbations   grow by {math.exp(self.growth):.4f} a step: {limit}, used {self.steps}"
        yield from (f"warning: {text}" for text in self.warnings)


def _times(factor: float) -> str:
    return f"{factor:g} x the range seen" if math.isfinite(factor) else "all their operands can"


def _finite(value):
    if isinstance(value, dict):
        return {str(k): _finite(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(v) for v in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def precision_report(design: Design, X, Y=None, mask=None, values: Mapping[str, object] | None = None
                     ) -> PrecisionReport:
    """Measure ``design`` on samples.

    Parameters
    ----------
    X, Y : array-like
        (batch, steps, inputs) and targets; without targets nothing is said about gradients.
    mask : array-like, optional
        As for `Session.fit`.
    values : mapping, optional
        Parameters, e.g. a session's ``state_dict()``; those of the design if None, or not named.
    """
    x, held = inputs(design, X), design.values if values is None else checked(design, design.values, values)
    held = completed(design.derived, held)
    y = None if Y is None else targets(design, Y, len(x), mask)
    nudged = y if design.hardware.learn else None
    most = affordable(design, _SAMPLES)
    rate, few = growth(design, held, x[:most]), slice(0, most)
    spare = max(design.fractions["state"] - _CHAOS, 1) * math.log(2)
    return PrecisionReport(
        tensors=spans(design, held, x, y), reach=reach(design, held, x),
        loss=prediction_loss(design, held, x, y),
        cosine=gradient_cosine(design, held, x[few], nudged[few]) if nudged is not None else None,
        by_nudge=_by_nudge(design, held, x[few], nudged[few]) if nudged is not None else {},
        by_bits=_by_bits(design, held, x[few], nudged[few]) if nudged is not None else {},
        growth=rate, steps=design.dynamics.steps * design.dynamics.substeps,
        longest=spare / rate if rate > 0 else math.inf)


def _by_nudge(design: Design, values: Mapping[str, np.ndarray], x: np.ndarray, y: np.ndarray) -> dict[int, float]:
    device = IntegerDevice(design)
    device.write(from_values(design, values))
    measurement = Measurement(design, device, Ranging(design, device), lambda run, *_: run)
    exact, data, found = adjoint.gradient(design, values, x, y), words(design, x, y), {}
    for weaker in _NUDGES:
        gradient = chained(design.derived, measurement.at(*data, weaker), values, frozenset(design.learned))
        found[weaker] = cosine(gradient, exact) if gradient else 0.0
    return found


def _by_bits(design: Design, values: Mapping[str, np.ndarray], x: np.ndarray, y: np.ndarray) -> dict[int, float]:
    found = {}
    for bits in _COARSER:
        if design.fractions["state"] - bits > 0:
            try:
                found[design.fractions["state"] - bits] = gradient_cosine(_coarser(design, bits), values, x, y)
            except RangeError:  # of what rounding alone does: nothing is left of the gradient
                found[design.fractions["state"] - bits] = 0.0
    return found


def _coarser(design: Design, bits: int) -> Design:
    """Kicks and drifts rounded to so many fraction bits fewer."""
    kinds = {s.kind for s, p in zip(design.sweeps, design.passes, strict=True) if p.state and p.opcode != Opcode.OUTER}
    hw = design.hardware
    step = tuple(_rounded(p, "force", bits) if i in kinds else p for i, p in enumerate(hw.step))
    drift = tuple(_rounded(p, "d", bits) for p in hw.drift)
    return dataclasses.replace(design, hardware=dataclasses.replace(hw, step=step, drift=drift))


def _rounded(pipeline: Pipeline, output: str, bits: int) -> Pipeline:
    last = len(pipeline.ops)
    ops = (*pipeline.ops, Op("rnd", (dict(pipeline.outputs)[output],), bits), Op("shl", (last,), bits))
    outputs = tuple((name, last + 1 if name == output else index) for name, index in pipeline.outputs)
    return dataclasses.replace(pipeline, ops=ops, outputs=outputs)
