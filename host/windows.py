"""What the sample and order memories of a chip hold, so that nothing is sent twice and two windows can take turns."""

from dataclasses import dataclass

import numpy as np

from echolith.compiler.design import Depths

__all__ = ["Place", "Room", "Window"]


@dataclass(frozen=True)
class Window:
    """Samples of one run: their packed ``lines`` (samples, lines), or None with the ``lines`` of a data set that is
    held, and where in these every sample begins. An odd last sample is doubled, its double masked by ``mask``."""

    lines: np.ndarray | None
    begins: np.ndarray
    mask: int

    @property
    def samples(self) -> int:
        return len(self.begins)

    @property
    def pairs(self) -> int:
        return -(-self.samples // 2)

    def order(self, base: int) -> np.ndarray:
        """Entries of the order memory for lines from ``base`` on."""
        places = self.begins + base
        return np.append(places, places[-1] | self.mask) if self.samples % 2 else places

    def same(self, other: "Window | None") -> bool:
        if other is None or not np.array_equal(self.begins, other.begins):
            return False
        if self.lines is None or other.lines is None:
            return self.lines is other.lines
        return np.array_equal(self.lines, other.lines)


@dataclass(frozen=True)
class Place:
    """Where a window goes: first line, first entry of the order memory."""

    half: int
    data: int
    order: int


class Room:
    """Halves of what is left of the memories behind a data set that is held.

    Parameters
    ----------
    depths : Depths
    record : int
        Lines of a sample.
    halves : bool
        The hardware lets windows take turns.
    """

    def __init__(self, depths: Depths, record: int, halves: bool):
        self.depths, self.record, self.halves = depths, record, halves
        self.held: np.ndarray | None = None
        self._there: list[Window | None] = [None, None]

    @property
    def _left(self) -> int:
        return self.depths.data - (0 if self.held is None else self.held.size)

    def most(self, held: bool) -> int:
        """Samples of a window; even. 0: not even a pair fits."""
        order = self.depths.order // (1 + self.halves)
        return (order if held else min(order, self._lines // self.record)) // 2 * 2

    @property
    def _lines(self) -> int:
        """Of a window: a half, or all if a pair does not fit into half."""
        half = self._left // 2
        return half if self.halves and half >= 2 * self.record else self._left

    @property
    def turns(self) -> bool:
        """Whether there is room for two windows."""
        return self._lines < self._left

    def free(self, window: Window) -> bool:
        """Whether the window may be sent beside another."""
        return self.turns or (self.halves and window.lines is None)

    def keep(self, lines: np.ndarray) -> None:
        """A data set takes the first lines; windows are forgotten."""
        self.held = lines
        self.forget()

    def drop(self) -> None:
        """Windows may take all."""
        self.held = None
        self.forget()

    def forget(self) -> None:
        """What the windows hold is not known any more."""
        self._there = [None, None]

    def find(self, window: Window) -> Place | None:
        """Where the chip has this window."""
        return next((self._place(i) for i, there in enumerate(self._there) if window.same(there)), None)

    def other(self, place: Place | None) -> Place:
        """A half that is not in use; it holds nothing from now on."""
        half = 1 - place.half if place and self.halves else 0
        if not self.turns:  # the lines are the same
            self.forget()
        self._there[half] = None
        return self._place(half)

    def put(self, place: Place, window: Window) -> None:
        """The window is there."""
        self._there[place.half] = window

    def _place(self, half: int) -> Place:
        begin = self.depths.data - self._left
        return Place(half, begin + (half * self._lines if self.turns else 0), half * (self.depths.order // 2))
