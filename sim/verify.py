"""Float64, integer model and chip on the same samples, compared number for number and cycle for cycle."""

import contextlib
import warnings
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from echolith.compiler.design import Design
from echolith.compiler.errors import RangeError
from echolith.compiler.plain import plain
from echolith.compiler.registers import ERRORS
from echolith.host.arrays import inputs, targets
from echolith.host.chip import ChipDevice
from echolith.host.device import Device
from echolith.host.rates import rates
from echolith.host.session import Session, open_design
from echolith.sim.data import words as data_words
from echolith.sim.device import IntegerDevice
from echolith.sim.divergence import Divergence
from echolith.sim.real import Real, goals
from echolith.sim.rounding import Rounding, rounding
from echolith.sim.twin import Diverged, Twin
from echolith.sim.weights import Words, from_values

__all__ = ["Verification", "verify"]

Progress = Callable[[int, int], None]
Given = tuple[np.ndarray, np.ndarray]  # targets and mask as a session takes them


@dataclass(frozen=True, repr=False)
class Verification:
    """What `verify` found; true if nothing differed. Cycles are those of all runs, without stalls; None where the
    device counts none."""

    url: str
    samples: int
    runs: int
    words: int  # compared
    flags: int  # OR over all runs of the integer model
    predicted_cycles: int
    measured_cycles: int | None
    divergence: Divergence | None  # of the chip from the integer model
    rounding: Rounding  # of the integer model from float64
    cosine: float | None  # between their gradients of the batch; None if nothing learns

    def __bool__(self) -> bool:
        return self.divergence is None and self.rounding.divergence is None

    def _failures(self) -> list[str]:
        found = ((f"{self.url} differs from int:", self.divergence),
                 ("int: differs from float64", self.rounding.divergence))
        return [f"{parties} at {divergence}" for parties, divergence in found if divergence is not None]

    def __repr__(self) -> str:
        """One line, because pytest shows it as one."""
        return f"<{'; '.join(self._failures()) or 'Verification passed'}>"

    def __str__(self) -> str:
        r, cosine = self.rounding, "" if self.cosine is None else f", gradients' cosine {self.cosine:.9f}"
        measured = "not counted" if self.measured_cycles is None else f"{self.measured_cycles:,} measured"
        lines = [f"DIFFERENT: {text}" for text in self._failures()] or ["equal"]
        lines += [f"{self.url} against int:, {self.samples} samples, {self.runs} runs, {self.words:,} words compared, "
                  f"flags {self.flags}, cycles {self.predicted_cycles:,} predicted, {measured}",
                  f"int: against float64, a step is at most {r.error:.3g} units in the last place off (formats allow "
                  f"{r.bound:.3g} there), the last state {r.drifted:.3g}{cosine}"]
        return "\n".join(lines)


def verify(design: Design, x, y=None, *, mask=None, url: str = "sim:", progress: Progress | None = None
           ) -> Verification:
    """Float64, integer model and ``url`` on the same samples: predict, echo, gradients, updates.

    The chip must equal the integer model in every word, flag and cycle; the integer model must stay within its
    formats' rounding of float64 in every step. A chip that holds trained weights is verified with them and gets them
    back afterwards.

    Parameters
    ----------
    x : array-like
        (batch, steps, inputs).
    y : array-like, optional
        Targets; without them, and on inference-only hardware, nothing learns.
    mask : array-like, optional
        As for `Session.fit`.
    url : str
        As for `Design.open`.
    progress : callable, optional
        Called with (calls done, calls in all).
    """
    seen, x = inputs(design, x), plain("X", x, RangeError)
    given, goal = None, None
    if design.learned and design.hardware.learn and y is not None:
        goal, y = targets(design, y, len(x), mask), plain("Y", y, RangeError)
        given = y, np.ones(y.shape) if mask is None else plain("mask", mask, RangeError)
    data = data_words(design, seen, goal)
    rate = None if given is None else _rate(design, x)
    with open_design(design, url) as chip:
        device = chip.device
        fresh = not isinstance(device, ChipDevice) or device.fresh
        # Where the host computes parameters, a chip's weights alone do not tell them all.
        words = from_values(design, design.values) if fresh or design.derived else device.read()
        restore = _kept(device)
        twin = Twin(IntegerDevice(design), device)
        play = _Play(twin, words, x, given, rate, None if given is None else data)
        try:
            play.run(progress)
            divergence = None
        except Diverged as error:
            divergence = error.divergence
        finally:
            restore()
    return Verification(
        url, len(x), twin.runs, twin.words, twin.flags, twin.predicted_cycles, twin.measured_cycles, divergence,
        rounding(design, words, *data, rate), None if given is None else _cosine(design, words, x, given, data))


def _rate(design: Design, x: np.ndarray) -> float:
    """The largest of some learning rates that the design's formats can represent, wherever the gain moves."""
    if design.computed:
        return 0.0
    updates = -(-len(x) // 2)
    for rate in (0.05, 0.005, 0.0005):
        with contextlib.suppress(RangeError):
            rates(design, rate, 0.0, min(len(x), 2), design.gain - updates, 0)
            return rate
    return 0.0


def _kept(device: Device) -> Callable[[], None]:
    """Puts the device's words back."""
    words = device.read()
    gradients = device.read_gradients() if device.design.hardware.learn else None

    def restore() -> None:
        device.write(words)
        if gradients is not None:
            device.write_gradients(gradients)

    return restore


class _Play:
    """A session in small pieces: pairs, so that each is one run on any hardware, then everything at once."""

    def __init__(self, twin: Twin, words: Words, x: np.ndarray, given: Given | None, rate: float | None,
                 goal: tuple[np.ndarray, np.ndarray] | None):
        self.twin, self.words, self.x, self.given, self.rate = twin, words, x, given, rate
        self.session, self.goal = Session(twin.design, twin), goal

    def run(self, progress: Progress | None) -> None:
        self.twin.write(self.words)
        if self.twin.design.hardware.learn:
            self.twin.clear()
        calls = [(method, start) for method in (self._predict, self._echo, self._gradient)
                 for start in range(0, len(self.x), 2)] + [(self._fit, 0), (self._unchecked, 0)]
        for index, (call, start) in enumerate(calls):
            self._tried(call, start)
            if progress is not None:
                progress(index + 1, len(calls))

    def _tried(self, call: Callable[[slice], object], start: int) -> None:
        try:
            call(slice(start, start + 2))
        except RangeError:  # a raised flag is compared; anything else is the caller's mistake
            if not self.twin.flags & ERRORS:
                raise
        except Diverged as error:
            raise Diverged(error.divergence.after(start)) from error

    def _predict(self, pair: slice) -> None:
        self.session.predict(self.x[pair])

    def _echo(self, pair: slice) -> None:
        self.session.echo(self.x[pair])

    def _gradient(self, pair: slice) -> None:
        if self.given is not None:
            y, mask = self.given
            self.session.gradient(self.x[pair], y[pair], mask[pair])

    def _unchecked(self, _: slice) -> None:
        """All at once, as most batches learn."""
        if self.goal is not None and "unchecked" in self.twin.design.entries:
            self.twin.clear()
            self.twin.run("unchecked", *self.goal)

    def _fit(self, pair: slice) -> None:
        if self.given is not None and self.rate is not None and not self.session.design.computed:
            y, mask = self.given
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # what clips must do so in both
                self.session.fit(self.x, y, mask=mask, batch_size=2, learning_rate=self.rate, momentum=0.5)


def _cosine(design: Design, words: Words, x: np.ndarray, given: Given, data: tuple[np.ndarray, np.ndarray]
            ) -> float | None:
    """Of the integer model's gradient and float64's; None where the integer model's leaves its formats."""
    device = IntegerDevice(design)
    device.write(words)
    try:
        found = Session(design, device).gradient(x, *given)
    except RangeError:
        return None
    real = data[0] * 2.0 ** -design.fractions["input"], goals(design, data[1])
    expected = Real(design, words).gradient(*real)
    a, b = (np.concatenate([np.ravel(g[name]) for name in expected]) for g in (found, expected))
    norms = float(np.linalg.norm(a) * np.linalg.norm(b))
    return float(a @ b) / norms if norms else 1.0
