"""The circuit of the cost: y from sums, the cost's derivative from y and its target."""

from functools import cached_property

import numpy as np

from echolith.compiler.case import Case
from echolith.compiler.costs import LEVEL, LEVELS, WEIGHED, WEIGHT, Cost, slope
from echolith.compiler.differentiate import evaluate
from echolith.compiler.errors import CompileError
from echolith.compiler.formats import Formats
from echolith.compiler.lower import MARGIN, Fixed, Lowering
from echolith.compiler.masks import reserved
from echolith.compiler.pipeline import Builder, Pipeline
from echolith.compiler.pipeline import evaluate as run
from echolith.compiler.resolution import furthest, spread
from echolith.compiler.steps import OUTPUT

__all__ = ["CostCircuit", "steepest", "tried"]

_STEEP = 64.0  # times the calibrated cost derivatives
_NARROWER = (2.0, 1.4, 1.0, 0.7)  # times the calibrated outputs, where a steep cost has no bits left for more
_FULL = 2.0 ** np.arange(12.0, 0.0, -0.25)  # times the calibrated outputs, where a derivative's word may be full
_NEARER = (8.0, 4.0)  # times the calibrated outputs and targets, where pieces over all that words hold are too coarse
_ROUGH, _FINE = 2.0**-7, 2.0**-13  # root mean square error over the largest derivative: too much, and none to speak of


def tried(cost: Cost, y: np.ndarray, targets: np.ndarray) -> dict[str, np.ndarray]:
    """Outputs (samples, outputs, 1) against extreme targets, with their level and weights."""
    given = {name: v[..., None] for name, v in cost.given(y, np.zeros(())).items() if name != "target"}
    ends = np.array([targets.min(initial=0), targets.max(initial=0)])
    if targets.size and not np.isfinite(evaluate(slope(cost), {"target": ends, **given})).all():
        ends = np.array([targets.min(), targets.max()])  # log(target), 1 / target: no target is 0
    return {**given, "target": ends}


def steepest(cost: Cost, y: np.ndarray, targets: np.ndarray) -> float:
    """The largest derivative of the cost on calibrated outputs."""
    given = tried(cost, y, targets)
    found = np.asarray(evaluate(slope(cost), given))
    if not np.isfinite(found).all():
        bad = np.argwhere(~np.isfinite(found))[0]
        place = ", ".join(f"{n} = {np.broadcast_to(given[n], found.shape)[tuple(bad)]:g}" for n in ("y", "target"))
        raise CompileError("cost: dcost/dy must be finite on the calibration data; keep what is under log, sqrt and "
                           f"quotients away from 0, not {found[tuple(bad)]} at {place}")
    return float(np.abs(found).max())


class CostCircuit:
    """``pipeline``, and how it was lowered: with given formats, or for outputs as far from zero as leaves enough bits.
    """

    def __init__(self, case: Case, formats: Formats, segments: int, accumulator: int, first: int):
        self.case, self.formats, self.segments, self.first = case, formats, segments, first
        self.accumulator, self.width = accumulator, case.board.width
        self.reach = np.inf
        if case.learn and "cost" not in formats.lowered:
            self._choose()

    def _choose(self) -> None:
        """The furthest reach that is precise enough."""
        y, targets = (float(np.abs(v).max(initial=0.0)) for v in (self.case.samples.y, self.case.samples.targets))
        beside = max(1.0, targets / y) if y else 1.0
        nearer = tuple(times * beside for times in _NEARER)
        reach = furthest(lambda reach: self._error(reach) / _FINE, (np.inf, self._full(), *nearer))
        for each in (reach, *_NARROWER):
            if self._error(each) <= _ROUGH:
                break

    def _full(self) -> float:
        """With its margin, as far as the derivative is at most twice what its word holds, whatever the target."""
        cost, most = self.case.cost, 2.0 ** (self.width - 1 - self.formats["delta"])
        assert cost is not None
        return next((r for r in _FULL if self._steepest(cost, r) <= most), 1.0) / MARGIN

    def outputs(self) -> Pipeline:
        """Of y alone."""
        b, y = self._y()
        return b.build(y=y)

    @property
    def low(self) -> Lowering:
        return self._lowered[1]

    @property
    def pipeline(self) -> Pipeline:
        return self._lowered[0]

    def _y(self) -> tuple[Builder, int]:
        formats = self.formats
        b = Builder(("acc", self.accumulator), ("target", formats.target_bits),
                    *[("drive", self.width)] * bool(self.case.levels))
        return b, b("sat", b("rnd", b.input("acc"), n=self._dropped), n=self.width)

    @property
    def _dropped(self) -> int:
        read = self.formats["state" if self.case.reading is None else OUTPUT]
        return self.formats["readout"] + read - self.formats["output"]

    @cached_property
    def _lowered(self) -> tuple[Pipeline, Lowering]:
        case, cost, formats, width = self.case, self.case.cost, self.formats, self.width
        assert cost is not None
        b, y = self._y()
        target = Fixed(b.input("target"), formats["target"], True, width - formats.target_bits)
        leaves = {"y": Fixed(y, formats["output"], True), "target": target}
        if cost.weights:
            leaves[WEIGHT] = Fixed(b.input("drive"), formats[WEIGHED], True)
        elif case.levels:
            leaves[LEVEL] = Fixed(b.input("drive"), formats[LEVELS], True)
        low = Lowering(b, width, self.segments, leaves, self._values(cost), self.first,
                       formats.lowered.get("cost", ()))
        value = low(slope(cost))
        delta = b("sat", b("rnd", value.node, n=value.frac - formats["delta"]), n=width - 1)
        if case.samples.missing is not None:
            delta = b("unless", delta, b.input("target"), n=reserved(formats.target_bits))
        return b.build(y=y, delta=delta), low

    def _values(self, cost: Cost) -> dict[str, np.ndarray]:
        """Outputs over their whole format, or only as far as the cost derivative stays near the calibrated ones: that
        of an exponential would leave those no bits."""
        if self.reach < np.inf:
            return self._tried(cost, self.reach)
        wanted = _STEEP * self._steepest(cost, 1.0)
        return self._tried(cost, next((r for r in (np.inf, *_FULL) if self._steepest(cost, r) <= wanted), 1.0))

    def _tried(self, cost: Cost, reach: float) -> dict[str, np.ndarray]:
        samples = self.case.samples
        return tried(cost, spread(samples.y, self.formats["output"], self.width, reach), samples.targets)

    def _steepest(self, cost: Cost, reach: float) -> float:
        """The largest derivative on outputs that are so much larger; where they have no level, of either sign."""
        given = self._tried(cost, reach)
        tried_on = (given["y"],) if self.case.levels else (given["y"], -given["y"])
        found = [np.asarray(evaluate(slope(cost), {**given, "y": y})) for y in tried_on]
        return max(float(np.abs(v[np.isfinite(v)]).max(initial=0.0)) for v in found)

    def _error(self, reach: float) -> float:
        """Root mean square error of the derivative on calibrated outputs, over the largest, lowered for ``reach``, as
        it stays."""
        self.reach = reach
        self.__dict__.pop("_lowered", None)
        case, f = self.case, self.formats
        assert case.cost is not None
        given = self._tried(case.cost, 1.0)
        exact = np.asarray(evaluate(slope(case.cost), given))
        beside = given.get(WEIGHT, given.get(LEVEL, np.zeros(())))
        frac = f[WEIGHED] if case.cost.weights else f[LEVELS] if case.levels else 0
        acc = np.rint(given["y"] * 2.0 ** f["output"]).astype(np.int64)
        acc = acc << self._dropped if self._dropped >= 0 else acc >> -self._dropped
        words = {"acc": acc, "target": np.rint(given["target"] * 2.0 ** f["target"]).astype(np.int64),
                 "drive": np.rint(beside * 2.0**frac).astype(np.int64)}
        tables = [np.zeros((1 << self.segments, 2), np.int64)] * self.first + self.low.tables
        found = run(self.pipeline, words, tables, self.width, self.segments)["delta"] * 2.0 ** -f["delta"]
        largest = float(np.abs(exact).max(initial=0.0))
        return float(np.sqrt(np.mean((found - exact) ** 2))) / largest if largest else 0.0
