"""The same session on the integer model and on a chip, compared word for word and cycle for cycle."""

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from echolith.compiler.design import Design
from echolith.compiler.errors import RangeError
from echolith.compiler.registers import ERRORS
from echolith.compiler.timing import cycles
from echolith.host.arrays import inputs, plain, targets
from echolith.host.device import Device, Run
from echolith.host.session import Session, open_design

__all__ = ["Event", "Recorder", "Verification", "difference", "predicted", "verify"]

Progress = Callable[[int, int], None]

_KEPT = ("run", "run_held", "update", "read", "read_gradients")
_UNCOUNTED = ("cycles", "stalls", "first")  # fields of a Run that the integer model need not share


@dataclass(frozen=True)
class Event:
    """One call of a device and what it returned."""

    call: str
    entry: str  # program entry of a run, else empty
    samples: int
    result: Run | dict[str, np.ndarray]


class Recorder:
    """Keeps what every run, update and read-back of a device returns, in order; not what a device asks of itself.

    Attributes
    ----------
    events : list of Event
    """

    def __init__(self, device: Device):
        self.events: list[Event] = []
        self._inside = False
        for name in _KEPT:
            setattr(device, name, self._kept(name, getattr(device, name)))

    def _kept(self, name: str, function: Callable) -> Callable:
        def call(*args, **kwargs):
            outermost, self._inside = not self._inside, True
            try:
                result = function(*args, **kwargs)
            finally:
                self._inside = not outermost
            if outermost:
                runs = name in ("run", "run_held")
                entry = args[0] if runs else "update" if name == "update" else ""
                self.events.append(Event(name, entry, len(args[1]) if runs else 0, result))
            return result

        return call


def predicted(design: Design, event: Event) -> int | None:
    """Cycles of an event's run, if it was one run; None for a read-back."""
    if not event.entry:
        return None
    return cycles(design.program, design.entries[event.entry], design.hardware, -(-max(event.samples, 1) // 2))


def difference(expected: Event, got: Event) -> str | None:
    """What differs first between two events, or None. Cycles and stalls are not compared."""
    if (expected.call, expected.entry, expected.samples) != (got.call, got.entry, got.samples):
        return f"another call: expected {expected.call} {expected.entry}, got {got.call} {got.entry}"
    if isinstance(expected.result, dict) and isinstance(got.result, dict):
        where = {"read": "master word", "read_gradients": "gradient word"}[expected.call]
        for name, words in expected.result.items():
            if found := _first(words, got.result[name]):
                return f"{where} of {name}{found}"
        return None
    for field in dataclasses.fields(Run):
        a, b = getattr(expected.result, field.name), getattr(got.result, field.name)
        if field.name in _UNCOUNTED or field.name == "leading" and expected.entry != "learn":
            continue  # errors have no meaning where nothing learns
        if isinstance(a, np.ndarray) and isinstance(b, np.ndarray):
            if found := _first(a, b):
                return f"output word{found}"
        elif a is not b and a != b:
            return f"{field.name}: expected {a}, got {b}"
    return None


def _first(expected: np.ndarray, got: np.ndarray) -> str | None:
    if expected.shape != got.shape:
        return f": expected shape {expected.shape}, got {got.shape}"
    places = np.argwhere(expected != got)
    if not len(places):
        return None
    place = tuple(int(i) for i in places[0])
    return f" {list(place)}: expected {expected[place]}, got {got[place]} ({len(places)} of {expected.size} differ)"


@dataclass(frozen=True)
class Verification:
    """What `verify` found; true if nothing differed.

    ``divergence`` names the first difference: what, where, expected, got. Cycles are those of all runs, without
    stalls; None where the device counts none.
    """

    url: str
    samples: int
    runs: int
    words: int  # compared
    flags: int  # OR over all runs of the integer model
    divergence: str | None
    predicted_cycles: int
    measured_cycles: int | None

    def __bool__(self) -> bool:
        return self.divergence is None

    def __str__(self) -> str:
        measured = "not counted" if self.measured_cycles is None else f"{self.measured_cycles:,} measured"
        body = (f"{self.url} against int:, {self.samples} samples, {self.runs} runs, {self.words:,} words compared, "
                f"flags {self.flags}, cycles {self.predicted_cycles:,} predicted, {measured}")
        return f"equal: {body}" if self else f"DIFFERENT: {self.divergence}\n{body}"


def verify(design: Design, x, y=None, *, mask=None, url: str = "sim:", progress: Progress | None = None
           ) -> Verification:
    """Predict, echo, gradients and updates of the same samples on ``int:`` and on ``url``.

    A chip that holds trained weights is verified with them and gets them back afterwards.

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
    x = inputs(design, x)
    learns = design.hardware.learn and y is not None
    data = _data(design, y, len(x), mask) if learns else None
    calls = _calls(design, x, data, _rate(design, x, data))
    with open_design(design, "int:") as golden, open_design(design, url) as chip:
        kept = _copy(chip, golden)
        expected = _played(golden, calls, None)
        got = _played(chip, calls, progress)
        chip.device.write(kept[0])
        if kept[1] is not None:
            chip.device.write_gradients(kept[1])
    return _compared(design, url, len(x), expected, got)


def _data(design: Design, y, batch: int, mask) -> tuple[np.ndarray, np.ndarray]:
    """Targets and mask as a session takes them, checked."""
    targets(design, y, batch, mask)
    y = plain(y)
    return y, np.ones(y.shape) if mask is None else plain(mask)


def _copy(chip: Session, golden: Session) -> tuple[dict, dict | None]:
    """The chip's weights and gradients, loaded into the integer model too."""
    words = chip.device.read()
    golden.device.write(words)
    if not chip.design.hardware.learn:
        return words, None
    gradients = chip.device.read_gradients()
    golden.device.write_gradients(gradients)
    return words, gradients


def _rate(design: Design, x: np.ndarray, data: tuple[np.ndarray, np.ndarray] | None) -> float:
    """The largest of some learning rates that the design's formats can represent."""
    if data is None or design.derived:
        return 0.0
    y, mask = data
    for rate in (0.05, 0.005, 0.0005):
        with open_design(design, "int:") as trial:
            recorder = Recorder(trial.device)
            try:
                trial.fit(x[:2], y[:2], mask=mask[:2], batch_size=2, learning_rate=rate, momentum=0.5)
            except RangeError:
                if not _raised(recorder.events):
                    continue
            return rate
    return 0.0


def _raised(events: list[Event]) -> bool:
    return any(isinstance(e.result, Run) and e.result.flags & ERRORS for e in events)


def _calls(design: Design, x: np.ndarray, data: tuple[np.ndarray, np.ndarray] | None, rate: float
           ) -> list[Callable[[Session], object]]:
    """A session in small pieces: pairs, so that each is one run on any hardware, then everything at once."""
    found: list[Callable[[Session], object]] = []
    for start in range(0, len(x), 2):
        part = x[start:start + 2]
        found += [lambda s, part=part: s.predict(part), lambda s, part=part: s.echo(part)]
    if data is not None:
        y, mask = data
        found += [lambda s, i=i: s.gradient(x[i:i + 2], y[i:i + 2], mask[i:i + 2]) for i in range(0, len(x), 2)]
        if not design.derived:
            found.append(lambda s: s.fit(x, y, mask=mask, batch_size=2, learning_rate=rate, momentum=0.5))
        found += [lambda s: s.device.read(), lambda s: s.device.read_gradients()]
    return found


def _played(session: Session, calls: list[Callable[[Session], object]], progress: Progress | None) -> list[Event]:
    recorder = Recorder(session.device)
    for index, call in enumerate(calls):
        try:
            call(session)
        except RangeError:  # a raised flag is recorded and compared; anything else is the caller's mistake
            if not _raised(recorder.events):
                raise
        if progress is not None:
            progress(index + 1, len(calls))
    return recorder.events


def _compared(design: Design, url: str, samples: int, expected: list[Event], got: list[Event]) -> Verification:
    divergence, words, flags, total, measured = None, 0, 0, 0, 0
    counted = True
    for index, (a, b) in enumerate(zip(expected, got, strict=False)):
        words += _size(a)
        if isinstance(a.result, Run) and isinstance(b.result, Run):
            flags |= a.result.flags
            guess, spent = predicted(design, b) or 0, _cycles(b.result)
            counted = counted and spent is not None
            total, measured = total + guess, measured + (spent or 0)
            if spent is not None and spent != guess and not a.result.flags & ERRORS:
                divergence = divergence or f"cycles of call {index} ({b.entry}): expected {guess}, got {spent}"
        if found := difference(a, b):
            divergence = divergence or f"call {index} ({b.entry or b.call}), {found}"
    if len(expected) != len(got):
        divergence = divergence or f"number of calls: expected {len(expected)}, got {len(got)}"
    return Verification(url, samples, sum(bool(e.entry) for e in expected), words, flags, divergence, total,
                        measured if counted else None)


def _size(event: Event) -> int:
    if isinstance(event.result, dict):
        return sum(w.size for w in event.result.values())
    return 0 if event.result.outputs is None else event.result.outputs.size


def _cycles(run: Run) -> int | None:
    return None if run.cycles is None or run.stalls is None else run.cycles - run.stalls
