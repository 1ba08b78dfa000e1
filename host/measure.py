"""One precise gradient: the same samples at several nudges, because the best nudge depends on the network.

`extrapolate` makes one estimate of them. Where estimates do not agree well, all is measured with weights next to these
too (`dither`): what states lose to rounding is another amount each time, so the mean has less of it, and every
parameter is taken from the nudges that are best for it: layers of a stack part unlike each other.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from echolith.compiler.design import Design
from echolith.compiler.errors import RangeError
from echolith.compiler.registers import ERRORS, Flag
from echolith.host.device import Device, Run
from echolith.host.dither import dithered
from echolith.host.extrapolate import MOST, Gradient, Kind, agreement, chosen, closest, limit, limits
from echolith.host.ranging import Ranging
from echolith.sim.weights import gradients

__all__ = ["Measurement"]

_SAMPLES = 64  # of a part
_SEARCHED = 4  # parts on which nudges are compared
_TRIES = 4  # runs until the settings fit
_MUCH = 3  # bits by which nudges are weaker after a state left its range
_AGREE = 2e-6  # 1 - cosine of neighbours that is good enough at once
_DISAGREE = 1e-5  # with which neighbouring weights are measured too
_DITHERS = 8  # weights in all then
_FARTHEST = 5  # halvings and doublings of the nudge that are tried
_STRONGER = 1  # doublings, where a read-out's own passes leave less room
_BEYOND = 3  # doublings of the nudge that is best for all, which single parameters may prefer

Picks = dict[str, tuple[int, Kind]]  # by parameter: halvings of the usual nudge, and weights of it and weaker ones


@dataclass
class _Part:
    """Samples that are summed on the chip, and the response exponent of their usual nudge once it is known."""

    x: np.ndarray
    y: np.ndarray
    response: int | None = None


class Measurement:
    """Gradients of one device. ``good`` passes a run or raises."""

    def __init__(self, design: Design, device: Device, ranging: Ranging, good: Callable[..., Run]):
        self.design, self.device, self.ranging, self.good = design, device, ranging, good

    def gradient(self, x: np.ndarray, y: np.ndarray) -> Gradient:
        """Mean gradient over data words; the device's settings are restored, its gradient words cleared."""
        x, y = self._entries(x, y)
        settings = self.ranging.text()
        parts = [_Part(x[i:i + _SAMPLES], y[i:i + _SAMPLES]) for i in range(0, len(x), _SAMPLES)]
        try:
            picks, first = self._best(parts[:_SEARCHED])
            rest = [self._estimate(picks, [part]) for part in parts[_SEARCHED:]]
        finally:
            self.device.clear()
            self.ranging.restore(settings)
        return {name: np.sum([part[name] for part in (first, *rest)], axis=0) / len(x) for name in first}

    def at(self, x: np.ndarray, y: np.ndarray, weaker: int) -> Gradient:
        """Mean gradient of a few data words from one nudge, 2^-weaker of the usual; empty as `_at`. Settings are
        restored."""
        x, y = self._entries(x, y)
        settings = self.ranging.text()
        try:
            found = self._at(weaker, [_Part(x, y)], True)
        finally:
            self.device.clear()
            self.ranging.restore(settings)
        return {name: g / len(x) for name, g in found.items()}

    def _entries(self, *words: np.ndarray) -> tuple[np.ndarray, ...]:
        """Samples as often as the rule runs each."""
        return tuple(np.repeat(part, self.design.rule.runs, axis=0) for part in words)

    def _best(self, parts: list[_Part]) -> tuple[Picks, Gradient]:
        """The nudges at which estimates agree best with those of the next weaker ones, and the gradient there."""
        found = self._some(parts)
        start = min(found)
        apart = {start: agreement(found, start)} if len(found) > MOST else {start: 0.0}
        for direction in (-1, 1):  # stronger first: where that helps, rounding is what hurts
            weaker = start + direction
            while min(apart.values()) > _AGREE and abs(weaker) <= self._farthest(direction, _FARTHEST):
                new = weaker if direction < 0 else weaker + MOST
                gradient = self._at(new, parts, new < 0)
                if not gradient:
                    break
                found[new] = gradient
                apart[weaker] = agreement(found, weaker)
                if apart[weaker] > min(apart.values()):
                    break
                weaker += direction
        best = min(apart, key=apart.__getitem__)
        linear = {w: g for w, g in found.items() if w >= best}  # no less so: at a bend neighbours agree
        weaker, kind, disagreement = closest(linear)
        if disagreement > _DISAGREE and self.design.hardware.packed is None:
            return self._each(self._averaged(self._stronger(found, best, parts), parts))
        return dict.fromkeys(linear[best], (weaker, kind)), limits(linear, weaker, kind)

    def _farthest(self, direction: int, most: int) -> int:
        """Halvings or doublings of the usual nudge."""
        return min(most, _STRONGER) if direction < 0 and self.design.backs else most

    def _some(self, parts: list[_Part]) -> dict[int, Gradient]:
        """The usual nudge and weaker ones; as many stronger ones instead as these are too few."""
        found = {}
        for weaker in range(MOST + 1):
            if not (gradient := self._at(weaker, parts)):
                break
            found[weaker] = gradient
        while len(found) <= MOST and (gradient := self._at(min(found) - 1, parts, True)):
            found[min(found) - 1] = gradient
        return found

    def _stronger(self, found: dict[int, Gradient], best: int, parts: list[_Part]) -> dict[int, Gradient]:
        """With nudges that are stronger than the best of all parameters, for those that part less."""
        kept, most = {w: g for w, g in found.items() if w >= best}, self._farthest(-1, _FARTHEST)
        for weaker in range(best - 1, max(best - _BEYOND, -most) - 1, -1):
            if not (gradient := found.get(weaker) or self._at(weaker, parts, True)):
                break
            kept[weaker] = gradient
        return kept

    def _averaged(self, found: dict[int, Gradient], parts: list[_Part]) -> dict[int, list[Gradient]]:
        """Gradients with neighbouring weights too, as far as no state leaves its range; weights are put back."""
        words, runs = self.device.read(), {w: [g] for w, g in found.items()}
        try:
            for seed in range(1, _DITHERS):
                self.device.write(dithered(self.design, words, seed))
                new = {w: self._at(w, parts, True) for w in runs}
                if all(new[w] for w in runs if w >= 0):  # else without this neighbour
                    runs = {w: [*before, new[w]] for w, before in runs.items() if new[w]} or runs
        finally:
            self.device.write(words)
        return runs

    def _each(self, runs: dict[int, list[Gradient]]) -> tuple[Picks, Gradient]:
        """The best nudges of every parameter."""
        picks, gradient = {}, {}
        for name in next(iter(runs.values()))[0]:
            own = {w: [g[name] for g in found] for w, found in runs.items()}
            picks[name] = chosen(own)
            gradient[name] = limit({w: np.mean(found, axis=0) for w, found in own.items()}, *picks[name])
        return picks, gradient

    def _estimate(self, picks: Picks, parts: list[_Part]) -> Gradient:
        """From the nudges that each parameter picked, as far as there are such; if there are none, from the usual."""
        found = {}
        for w in sorted({weaker + i for weaker, kind in picks.values() for i in range(len(kind))}):
            if gradient := self._at(w, parts, w < 0):
                found[w] = gradient
        found = found or {0: self._at(0, parts)}
        return {name: limit({w: g[name] for w, g in found.items()}, *pick) for name, pick in picks.items()}

    def _at(self, weaker: int, parts: list[_Part], daring: bool = False) -> Gradient:
        """Summed gradient with a nudge 2^-weaker of the usual.

        Empty if a sample's nudge cannot be so weak or so strong, or if a ``daring`` one drives a state or a gradient
        word out of its range."""
        sums = [self._one(weaker, part, daring) for part in parts]
        return {name: np.sum([g[name] for g in sums], axis=0) for name in sums[0]} if all(sums) else {}

    def _one(self, weaker: int, part: _Part, daring: bool = False) -> Gradient:
        """`_at` for one part."""
        if weaker and part.response is None:
            self._one(0, part)
        x, y, response = part.x, part.y, None if part.response is None else part.response - weaker
        words, least = {}, False
        if response is not None:
            if response > self.ranging.strongest:
                return {}  # it would be the strongest again, and nudges that are the same agree
            self.ranging.aim(response)  # what the last run had may be far too strong
        for tries in range(1, _TRIES + 1):
            self.device.clear()
            run = self.device.run("learn", x, y)
            if daring and run.flags & ERRORS:
                return {}
            left = run.flags & ERRORS == 1 << Flag.WRAPPED  # and nothing worse, as copy 0 that did not return
            if left and response is None and tries < _TRIES and self.device.response >= _MUCH:
                self.device.response -= _MUCH  # may have been its nudges
                continue
            self.good(run, x, y, "learn")
            least = self.ranging.least(run)
            words = self.device.read_gradients()
            if not self.ranging.settle(run, words, response):
                break
        if weaker > 0 and least:
            return {}
        part.response = self.device.response if response is None else part.response
        if self.ranging.crowded(words):
            if daring:
                return {}
            raise RangeError("gradient words wrap even for few samples: calibrate with data like these")
        found = gradients(self.design, words, 1)
        return {name: g * 2.0**-self.ranging.used for name, g in found.items()}
