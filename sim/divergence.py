"""The first number in which two of the three parties - float64, integer model, chip - differ."""

from dataclasses import dataclass, replace

import numpy as np

from echolith.sim.weights import Words

__all__ = ["Divergence", "first", "named", "words_differ"]


@dataclass(frozen=True)
class Divergence:
    """Where, what was expected, what came. Fields that do not apply are None or empty.

    ``phase`` is load, forward, readout, echo, return, gradient, update or run (flags, counts). Steps count integrator
    steps as they run forward, from 1 on; in echo and return a step is the one that is being undone. ``copy`` is 0, +
    or -. ``state`` names the state, or the block of gradient and master words; ``unit`` is the unit in it, or (row,
    column). ``tolerance`` is how far apart the two may be."""

    phase: str
    word: str  # position, momentum, nudge, output, gradient word, master word, or the name of a flag or count
    expected: float
    got: float
    step: int | None = None
    sample: int | None = None
    copy: str = ""
    state: str = ""
    unit: int | tuple[int, ...] | None = None
    tolerance: float | None = None
    note: str = ""

    def after(self, start: int) -> "Divergence":
        """The same, with samples counted from ``start``."""
        return self if self.sample is None else replace(self, sample=self.sample + start)

    def __str__(self) -> str:
        places = [self.phase]
        places += [f"{name} {value}" for name, value in (("step", self.step), ("sample", self.sample),
                                                         ("copy", self.copy)) if value not in (None, "")]
        unit = "" if self.unit is None else str(np.atleast_1d(self.unit).tolist())
        what = f"{self.word} of {self.state}{unit}" if self.state else f"{self.word}{unit}"
        off = "" if self.tolerance is None else f" (within {self.tolerance:.3g})"
        return f"{', '.join(places)}: {what}: expected {_text(self.expected)}{off}, got {_text(self.got)}{self.note}"


def _text(number: float) -> str:
    return str(number) if isinstance(number, int) else f"{number:.6g}"


def first(expected: np.ndarray, got: np.ndarray) -> tuple[int, ...] | None:
    """Index of the first element that differs."""
    places = np.argwhere(expected != got)
    return tuple(int(i) for i in places[0]) if len(places) else None


def named(states: dict[str, int], element: int) -> tuple[str, int]:
    """State and unit of an element of all states."""
    for name, units in states.items():
        if element < units:
            return name, element
        element -= units
    raise AssertionError("an element belongs to a state")


def words_differ(phase: str, word: str, expected: Words, got: Words) -> Divergence | None:
    """The first of all blocks' and vectors' words that differs."""
    for name in expected:
        place = first(expected[name], got[name])
        if place:
            return Divergence(phase, word, int(expected[name][place]), int(got[name][place]), state=name,
                              unit=place if len(place) > 1 else place[0])
    return None
