"""One precise gradient: the same samples at several nudges, because the best nudge depends on the network.

A strong nudge leaves the linear response (1 - cosine grows with its fourth power), a weak one drowns in the rounding
of the states (it grows with its inverse square). Gradients at neighbouring nudges agree best in between; that needs
no reference.
"""

from collections.abc import Callable

import numpy as np

from echolith.compiler.design import Design
from echolith.compiler.errors import RangeError
from echolith.compiler.registers import ERRORS
from echolith.host.device import Device, Run
from echolith.host.ranging import Ranging
from echolith.sim.weights import gradients

__all__ = ["Measurement"]

_PART = 64  # samples that are summed on the chip
_TRIES = 4  # runs until the settings fit
_AGREE = 2e-6  # 1 - cosine of neighbours that is good enough at once
_FARTHEST = 5  # halvings and doublings of the nudge that are tried

Gradient = dict[str, np.ndarray]


class Measurement:
    """Gradients of one device. ``good`` passes a run or raises."""

    def __init__(self, design: Design, device: Device, ranging: Ranging, good: Callable[..., Run]):
        self.design, self.device, self.ranging, self.good = design, device, ranging, good

    def gradient(self, x: np.ndarray, y: np.ndarray) -> Gradient:
        """Mean gradient over data words; the device's settings are restored, its gradient words cleared."""
        settings = self.ranging.text()
        try:
            weaker, first = self._best(x[:_PART], y[:_PART])
            parts = [first] + [self._at(weaker, x[i:i + _PART], y[i:i + _PART]) for i in range(_PART, len(x), _PART)]
        finally:
            self.device.clear()
            self.ranging.restore(settings)
        return {name: np.sum([part[name] for part in parts], axis=0) / len(x) for name in first}

    def _best(self, x: np.ndarray, y: np.ndarray) -> tuple[int, Gradient]:
        """Halvings of the usual nudge at which the gradient agrees best with the next weaker one's, and it."""
        found = {0: self._at(0, x, y), 1: self._at(1, x, y)}
        apart = {0: _apart(found[0], found[1])}
        for direction in (-1, 1):  # stronger first: where that helps, rounding is what hurts
            weaker = direction
            while min(apart.values()) > _AGREE and abs(weaker) <= _FARTHEST:
                new = weaker if direction < 0 else weaker + 1
                gradient = self._at(new, x, y, new < 0)
                if not gradient:
                    break
                found[new] = gradient
                apart[weaker] = _apart(found[weaker], found[weaker + 1])
                if apart[weaker] > min(apart.values()):
                    break
                weaker += direction
        best = min(apart, key=apart.__getitem__)
        return best, found[best]

    def _at(self, weaker: int, x: np.ndarray, y: np.ndarray, daring: bool = False) -> Gradient:
        """Summed gradient of at most _PART samples with a nudge 2^-weaker of the usual.

        A ``daring`` nudge may drive a state out of its range: then the result is empty."""
        words = {}
        for _ in range(_TRIES):
            self.device.clear()
            run = self.device.run("learn", x, y)
            if daring and run.flags & ERRORS:
                return {}
            self.good(run, x, y, "learn")
            words = self.device.read_gradients()
            if not self.ranging.settle(run, words, weaker):
                break
        if self.ranging.crowded(words):
            raise RangeError("gradient words wrap even for few samples: calibrate with data like these")
        found = gradients(self.design, words, 1)
        return {name: g * 2.0**-self.ranging.used for name, g in found.items()}


def _apart(a: Gradient, b: Gradient) -> float:
    """1 - cosine of the concatenated gradients, or a tenth of that of a parameter with at least 1 % of the norm."""
    total = float(np.sqrt(sum(np.sum(g**2) for g in a.values())))
    heavy = [name for name, g in a.items() if g.size > 1 and np.linalg.norm(g) >= 0.01 * total]
    whole = _angle(*(np.concatenate([g[name].ravel() for name in a]) for g in (a, b)))
    return max([whole] + [_angle(a[name].ravel(), b[name].ravel()) / 10 for name in heavy])


def _angle(a: np.ndarray, b: np.ndarray) -> float:
    norms = float(np.linalg.norm(a) * np.linalg.norm(b))
    return 1.0 - float(a @ b) / norms if norms else 0.0
