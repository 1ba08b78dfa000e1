"""Hyperparameters as the chip's numbers: update rates, momentum, schedules, the order of samples."""

import math
from collections.abc import Callable

import numpy as np

from echolith.compiler.design import Design
from echolith.compiler.errors import RangeError
from echolith.compiler.isa import shrunk
from echolith.sim.arith import rate_shift

__all__ = ["SCHEDULES", "Shrinking", "batched", "encode", "rates", "shuffled", "sizes"]

Rate = tuple[int, int]

_DIVERGES = 2  # times itself, taken from a parameter

SCHEDULES: dict[str, Callable[[float], float]] = {
    "constant": lambda done: 1.0,
    "cosine": lambda done: 0.5 * (1.0 + math.cos(math.pi * done)),
    "linear": lambda done: 1.0 - done,
}


def encode(factor: float, width: int) -> Rate:
    """Mantissa and coarse shift with mantissa * 2^-rate_shift(coarse) nearest to ``factor``."""
    limit = 1 << (width - 1)
    for coarse in (3, 2, 1, 0):
        scaled = factor * 2.0 ** rate_shift(coarse)
        if abs(scaled) < limit - 0.5:
            return round(scaled), coarse
    raise RangeError("the learning rate is too large for the gradient's format; divide it by at least "
                     f"{abs(factor) * 2.0 ** rate_shift(0) / limit:.3g}")


def rates(design: Design, learning_rate: float, momentum: float, samples: int, gain: int, change: int
          ) -> dict[str, Rate]:
    """Rates of all updates for gradients summed over ``samples``: parameter -= learning_rate * mean gradient.

    The words are 2^gain times finer than `Design` says; what stays as ``momentum`` is rescaled for ``gain + change``.
    It stays as a sum: a caller whose next update has other samples makes it as many times larger."""
    width, step = design.hardware.width, learning_rate / samples * 2.0**-gain
    found = {p.key: encode(-step * p.gradient_scale * p.scale * sum(p.learned) * 2.0**p.fraction, width)
             for p in design.placements if any(p.learned)}
    found.update({f"vector{i}": encode(-step * v.gradient_scale * 2.0**v.fraction, width)
                  for i, v in enumerate(design.vectors) if v.learned})
    found["decay"] = encode(momentum * 2.0**change, width)
    return found


def shuffled(count: int, seed: int, epoch: int) -> np.ndarray:
    """A permutation that depends on nothing but its arguments (splitmix64 keys, sorted)."""
    mask = (1 << 64) - 1
    start = (seed * 0x9E3779B97F4A7C15 + epoch * 0xD1B54A32D192ED03 + 0x2545F4914F6CDD1D) & mask
    with np.errstate(over="ignore"):
        z = np.uint64(start) + np.arange(1, count + 1, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        z = z ^ (z >> np.uint64(31))
    return np.argsort(z, kind="stable")


def batched(count: int, seed: int, epoch: int, size: int) -> list[np.ndarray]:
    """An epoch's batches of ``size`` samples, the last of what is left."""
    order = shuffled(count, seed, epoch)
    return [order[start:start + size] for start in range(0, count, size)]


def sizes(count: int, batch: int, accumulate: int) -> list[int]:
    """Samples of every update of an epoch; the last has what is left."""
    step = batch * accumulate
    return [min(step, count - start) for start in range(0, count, step)]


class Shrinking:
    """Weight decay, as torch.optim.SGD's: v' = m v + g + d w, w' = w - r v', of which the chip's words keep no d w.

    They keep u = v - a w, with a = 0 at first. With c = m a + d and s = m u + g that is

        w' = (1 - r c) w - r s        u' = s / (1 - r c)        a' = c / (1 - r c)

    so that parameters shrink by r c, and what stays as momentum grows. Where decay and momentum would make parameters
    swing (r d > (1 - sqrt(m))^2), a has no limit; there it stops at that of the largest d for which they do not."""

    def __init__(self, design: Design, weight_decay: float):
        self.width, self.weight_decay, self._held = design.hardware.width, weight_decay, 0.0
        self.growth = 1.0  # of the momentum, by the last update
        learned = {p.key: any(p.learned) for p in design.placements}
        learned |= {f"vector{i}": v.learned for i, v in enumerate(design.vectors)}
        self._names = [shrunk(name) for name, learns in learned.items() if learns and shrunk(name) in design.rates]

    def rates(self, learning_rate: float, momentum: float) -> dict[str, Rate]:
        """Of the next update."""
        gathered = momentum * self._held + self.weight_decay
        share = learning_rate * gathered
        if share >= _DIVERGES:
            raise RangeError(f"weight_decay is too large: an update would take {share:.3g} times a parameter from "
                             f"itself, and parameters grow from {_DIVERGES} on; make it or the learning rate smaller, "
                             f"not {self.weight_decay:g}")
        if momentum:
            least = max(1.0 - share, math.sqrt(momentum))
            self.growth = 1.0 / least
            self._held = gathered / least if least == 1.0 - share else (self.growth - 1.0) / learning_rate
        return dict.fromkeys(self._names, encode(-share * 2.0**self.width, self.width))
