"""Ranging: keep the echoes apart and the gradient words filled while errors shrink, one bit a batch.

The response exponent R moves the nudges, the gain moves the gradient's point. Both are hyperparameters of the chip,
decided here from what its runs report, so that every device decides alike.
"""

import re

import numpy as np

from echolith.compiler.design import Design
from echolith.compiler.registers import Flag
from echolith.host.device import Device, Run
from echolith.sim.arith import gradient_width
from echolith.sim.weights import Words

__all__ = ["Ranging"]

_STRONGER = 1  # bits by which nudges of a read-out's own passes may be stronger than at calibration
_ROOM = 3  # bits that a settled gradient leaves free
_CALM = 4  # batches at one gain, none large, before it rises: momentum fills up, and gradients grow


class Ranging:
    """R and gain of one device.

    Attributes
    ----------
    used : int
        The gain of the last settled run.
    """

    def __init__(self, design: Design, device: Device):
        self.design, self.device = design, device
        self.used = 0
        self._large = False
        self._calm = 0

    def text(self) -> str:
        """The settings, for a checkpoint."""
        return f"{self.device.response} {self.device.gain} {int(self._large)} {self._calm}"

    @staticmethod
    def valid(text: str) -> bool:
        return re.fullmatch(rf"\d\d? \d\d? [01] [0-{_CALM}]", text) is not None

    def restore(self, text: str) -> None:
        self.device.response, self.device.gain, large, self._calm = map(int, text.split())
        self._large = bool(large)

    @property
    def _unit(self) -> int:
        """Bits of the unit of which echoes part by a fraction: of the states', or more where motion is linear."""
        return self.design.fractions["state"] + self.design.apart

    def _apart(self, run: Run) -> int:
        """Bits by which the largest |q+ - q-| misses 1/16..1/4 of a unit."""
        leading, unit = run.response.bit_length() - 1, self._unit
        return max(leading - (unit - 3), 0) + min(leading - (unit - 4), 0)

    def _highest(self, run: Run) -> int:
        """The largest gain at which the sample with the largest error keeps its own exponent and is not clipped."""
        leading, hw = max(run.leading.bit_length() - 1, 0), self.design.hardware
        return max(0, min(self.device.response, hw.readout_shift + hw.width - 3) - leading)

    @property
    def strongest(self) -> int:
        """The largest R at which no row operand that becomes a nudge is clipped."""
        hw = self.design.hardware
        return self.design.response + _STRONGER if self.design.backs else min(hw.width - 1 + hw.delta_shift, 31)

    def least(self, run: Run) -> bool:
        """Whether the sample with the largest error would have a weaker nudge than there is."""
        return run.leading.bit_length() - 1 > self.device.response

    def next_gain(self, run: Run, following: float = 1.0) -> tuple[int, int]:
        """The gain in force and its change after this batch. What stays as momentum has to be ``following`` times
        larger for the next one; words become coarser by as much, in whole bits."""
        gain, highest = self.device.gain, self._highest(run)
        if following >= 2:
            return gain, -min(gain, int(following).bit_length() - 1)
        if gain and (self._large or gain > highest):
            return gain, -1
        return gain, int(not self._large and self._calm >= _CALM and gain < highest - 1)

    def move(self, run: Run, updated: Run, change: int) -> None:
        """Settings for the next batch."""
        self._large = bool(updated.flags >> Flag.LARGE & 1)
        self._calm = 0 if change or self._large else min(self._calm + 1, _CALM)
        self.device.gain += change
        apart = self._apart(run)
        self.device.response = self._within(self.device.response - (apart > 0) + (apart < 0))

    def _within(self, response: int) -> int:
        return min(max(response, 0), self.strongest)

    def crowded(self, words: Words, room: int = 1) -> bool:
        """Whether a word comes within 2^room of wrapping."""
        limit = 1 << gradient_width(self.design.hardware.width) - 1 - room
        return any(int(np.abs(g).max(initial=0)) >= limit for g in words.values())

    def aim(self, response: int) -> None:
        """This R; a gain that is as far below it as before, at most, so that no nudge is stronger than it says."""
        new = self._within(response)
        self.device.gain = max(0, self.device.gain - max(self.device.response - new, 0))
        self.device.response = new

    def settle(self, run: Run, words: Words, response: int | None = None) -> bool:
        """Choose settings for the same samples again, with this R or the usual one; False once they fit."""
        self.used = self.device.gain
        if response is None:
            apart = run.response.bit_length() - 1 - (self._unit - 3)
            response = self.device.response - apart
        response = self._within(response)
        largest = max((int(np.abs(g).max(initial=0)) for g in words.values()), default=0)
        free = gradient_width(self.design.hardware.width) - 1 - _ROOM - largest.bit_length()
        before = self.device.response, self.device.gain
        self.device.response = response
        self.device.gain = max(0, min(self._highest(run), self.used + free))
        return (self.device.response, self.device.gain) != before
