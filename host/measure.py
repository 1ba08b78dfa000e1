"""One precise gradient: the same samples at several nudges, because the best nudge depends on the network.

A strong nudge leaves the linear response (errors grow with its square, then its 4th power), a weak one drowns in the
rounding of the states (error over nudge). Four nudges, each half of the one before, give an estimate without the
square and the 4th power that keeps as little rounding as possible, three one without the square alone, with less
rounding, and two their mean. Neighbouring estimates agree best where both errors are small; that needs no reference.
Where they do not agree well, all is measured with weights next to these too (`dither`): what states lose to rounding
is another amount each time, so the mean has less of it, and weaker nudges come into reach.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from echolith.compiler.design import Design
from echolith.compiler.errors import RangeError
from echolith.compiler.registers import ERRORS, Flag
from echolith.host.device import Device, Run
from echolith.host.dither import dithered
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

Gradient = dict[str, np.ndarray]


@dataclass
class _Part:
    """Samples that are summed on the chip, and the response exponent of their usual nudge once it is known."""

    x: np.ndarray
    y: np.ndarray
    response: int | None = None


def _weights(nudges: int, powers: int) -> np.ndarray:
    """Of nudges 1, 1/2, 1/4 ..: those that sum to 1, cancel ``powers`` even powers, and pass on the least rounding."""
    sizes = 2.0 ** -np.arange(nudges)
    conditions = sizes ** (2 * np.arange(powers + 1)[:, None])
    noise = np.diag(sizes**-2)
    inverse = np.linalg.inv(noise) @ conditions.T
    return inverse @ np.linalg.inv(conditions @ inverse)[:, 0]


_KINDS = _weights(4, 2), _weights(3, 1), _weights(2, 0)
_MOST = len(_KINDS[0])


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
            weaker, kind, first = self._best(parts[:_SEARCHED])
            rest = [self._estimate(weaker, kind, [part]) for part in parts[_SEARCHED:]]
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

    def _best(self, parts: list[_Part]) -> tuple[int, np.ndarray, Gradient]:
        """Halvings of the usual nudge and weights at which the estimate agrees best with the next weaker one's, and
        it."""
        found = self._some(parts)
        start = min(found)
        apart = {start: _agreement(found, start, _KINDS[0])} if len(found) > _MOST else {start: 0.0}
        for direction in (-1, 1):  # stronger first: where that helps, rounding is what hurts
            weaker = start + direction
            farthest = _FARTHEST if direction > 0 or not self.design.backs else _STRONGER
            while min(apart.values()) > _AGREE and abs(weaker) <= farthest:
                new = weaker if direction < 0 else weaker + _MOST
                gradient = self._at(new, parts, new < 0)
                if not gradient:
                    break
                found[new] = gradient
                apart[weaker] = _agreement(found, weaker, _KINDS[0])
                if apart[weaker] > min(apart.values()):
                    break
                weaker += direction
        best = min(apart, key=apart.__getitem__)
        found = {w: g for w, g in found.items() if w >= best}  # no less linear: at a bend neighbours agree
        weaker, kind, disagreement = _closest(found)
        if disagreement > _DISAGREE and self.design.hardware.packed is None:
            found = self._averaged(found, parts)
            weaker, kind, _ = _closest(found)
        return weaker, kind, _extrapolated(found, weaker, kind)

    def _some(self, parts: list[_Part]) -> dict[int, Gradient]:
        """The usual nudge and weaker ones; as many stronger ones instead as these are too few."""
        found = {}
        for weaker in range(_MOST + 1):
            if not (gradient := self._at(weaker, parts)):
                break
            found[weaker] = gradient
        while len(found) <= _MOST and (gradient := self._at(min(found) - 1, parts, True)):
            found[min(found) - 1] = gradient
        return found

    def _averaged(self, found: dict[int, Gradient], parts: list[_Part]) -> dict[int, Gradient]:
        """The mean with neighbouring weights' gradients, as far as no state leaves its range; weights are put back."""
        words, sums = self.device.read(), {w: [g] for w, g in found.items()}
        try:
            for seed in range(1, _DITHERS):
                self.device.write(dithered(self.design, words, seed))
                for w, gradients in sums.items():
                    gradients.append(self._at(w, parts, True))
        finally:
            self.device.write(words)
        return {w: {name: np.mean([g[name] for g in gradients if g], axis=0) for name in found[w]}
                for w, gradients in sums.items()}

    def _estimate(self, weaker: int, kind: np.ndarray, parts: list[_Part]) -> Gradient:
        """From this nudge and weaker ones, as far as there are such; if not even this, from the next to the usual."""
        found = {}
        for w in range(weaker, weaker + len(kind)):
            if not (gradient := self._at(w, parts, w < 0)):
                break
            found[w] = gradient
        if not found:
            return self._estimate(weaker + (1 if weaker < 0 else -1), kind, parts)
        return _extrapolated(found, weaker, kind if len(found) == len(kind) else _weights(len(found), 0))

    def _at(self, weaker: int, parts: list[_Part], daring: bool = False) -> Gradient:
        """Summed gradient with a nudge 2^-weaker of the usual.

        Empty if a sample's nudge cannot be so weak, or if a ``daring`` one drives a state out of its range."""
        sums = [self._one(weaker, part, daring) for part in parts]
        return {name: np.sum([g[name] for g in sums], axis=0) for name in sums[0]} if all(sums) else {}

    def _one(self, weaker: int, part: _Part, daring: bool = False) -> Gradient:
        """`_at` for one part."""
        if weaker and part.response is None:
            self._one(0, part)
        x, y, response = part.x, part.y, None if part.response is None else part.response - weaker
        words, least = {}, False
        if response is not None:
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
            raise RangeError("gradient words wrap even for few samples: calibrate with data like these")
        found = gradients(self.design, words, 1)
        return {name: g * 2.0**-self.ranging.used for name, g in found.items()}


def _extrapolated(found: dict[int, Gradient], weaker: int, kind: np.ndarray) -> Gradient:
    """The limit of no nudge from ``weaker`` and the ones below, by their weights."""
    return {name: np.sum([c * found[weaker + i][name] for i, c in enumerate(kind)], axis=0) for name in found[weaker]}


def _closest(found: dict[int, Gradient]) -> tuple[int, np.ndarray, float]:
    """The estimate that agrees best with the next weaker one, and how far they are apart."""
    every = {(w, k): _agreement(found, w, kind)
             for k, kind in enumerate(_KINDS) for w in found if w + len(kind) in found}
    if not every:
        return min(found), _weights(len(found), 0), np.inf
    weaker, k = min(every, key=every.__getitem__)
    return weaker, _KINDS[k], every[weaker, k]


def _agreement(found: dict[int, Gradient], weaker: int, kind: np.ndarray) -> float:
    """How far apart two neighbouring estimates are."""
    return _apart(_extrapolated(found, weaker, kind), _extrapolated(found, weaker + 1, kind))


def _apart(a: Gradient, b: Gradient) -> float:
    """1 - cosine of the concatenated gradients, or a tenth of that of a parameter with at least 1 % of the norm."""
    total = float(np.sqrt(sum(np.sum(g**2) for g in a.values())))
    heavy = [name for name, g in a.items() if g.size > 1 and np.linalg.norm(g) >= 0.01 * total]
    whole = _angle(*(np.concatenate([g[name].ravel() for name in a]) for g in (a, b)))
    return max([whole] + [_angle(a[name].ravel(), b[name].ravel()) / 10 for name in heavy])


def _angle(a: np.ndarray, b: np.ndarray) -> float:
    norms = float(np.linalg.norm(a) * np.linalg.norm(b))
    return 1.0 - float(a @ b) / norms if norms else 0.0
