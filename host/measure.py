"""One precise gradient: the same samples at several nudges, because the best nudge depends on the network.

A strong nudge leaves the linear response (the error of the gradient's direction grows with the fourth power), a weak
one drowns in the rounding of the states (it grows with the inverse square). Gradients at neighbouring nudges agree
best in between; that needs no reference.
"""

from collections.abc import Callable

import numpy as np

from echolith.compiler.design import Design
from echolith.compiler.errors import RangeError
from echolith.host.device import Device, Run
from echolith.host.ranging import Ranging
from echolith.sim.weights import gradients

__all__ = ["Measurement"]

_PART = 64  # samples that are summed on the chip
_TRIES = 4  # runs until the settings fit
_AGREE = 1e-5  # 1 - cosine of neighbours that is good enough at once
_WEAKEST = 6  # halvings of the nudge that are tried

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
        """The nudge whose gradient agrees best with the next weaker one's."""
        here = self._at(0, x, y)
        best, least = (0, here), np.inf
        for weaker in range(_WEAKEST):
            there = self._at(weaker + 1, x, y)
            apart = _angle(here, there)
            if apart < least:
                best, least = (weaker, here), apart
            if apart < _AGREE or apart > 2 * least:
                break
            here = there
        return best

    def _at(self, weaker: int, x: np.ndarray, y: np.ndarray) -> Gradient:
        """Summed gradient of at most _PART samples with a nudge 2^-weaker of the usual."""
        for _ in range(_TRIES):
            self.device.clear()
            run = self.good(self.device.run("learn", x, y), x, y, "learn")
            words = self.device.read_gradients()
            if not self.ranging.settle(run, words, weaker):
                break
        if self.ranging.crowded(words):
            raise RangeError("gradient words wrap even for few samples: calibrate with data like these")
        found = gradients(self.design, words, 1)
        return {name: g * 2.0**-self.ranging.used for name, g in found.items()}


def _angle(a: Gradient, b: Gradient) -> float:
    """1 - cosine of the concatenated gradients."""
    left, right = (np.concatenate([g[name].ravel() for name in a]) for g in (a, b))
    norms = float(np.linalg.norm(left) * np.linalg.norm(right))
    return 1.0 - float(left @ right) / norms if norms else 0.0
