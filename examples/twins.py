"""One epoch of all training samples on the RTL and in the integer model, compared word for word."""

from collections.abc import Callable
from dataclasses import dataclass

from echolith.compiler.design import Design
from echolith.compiler.registers import Flag
from echolith.examples.digits import BATCH, LEARNING_RATE, MOMENTUM, data
from echolith.host.device import Run
from echolith.host.session import Session
from echolith.sim.verify import Event, Recorder, difference, predicted

__all__ = ["Twins", "epoch_on_both"]


@dataclass(frozen=True)
class Twins:
    """What the RTL did, and whether the integer model did the same.

    ``difference`` is the first one in weights, momentum words, outputs, flags or other registers, else None.
    """

    samples: int
    updates: int
    loss: float
    difference: str | None
    echo_exact: bool  # copy 0 of every sample returned to its initial state, bit for bit
    predicted_cycles: int
    measured_cycles: int
    words: int  # compared


def epoch_on_both(design: Design, progress: Callable[[int, int], None]) -> Twins:
    """Learn one epoch from the design's initial weights in ``int:`` and in ``sim:``."""
    expected, _ = _epoch(design, "int:", lambda done, total: None)
    got, loss = _epoch(design, "sim:", progress)
    found = next((f"event {i}: {text}" for i, (a, b) in enumerate(zip(expected, got, strict=True))
                  if (text := difference(a, b))), None)
    runs = [e for e in got if isinstance(e.result, Run)]
    learned = [e for e in runs if e.entry == "learn"]
    return Twins(
        samples=sum(e.samples for e in learned), updates=sum(e.entry == "update" for e in runs), loss=loss,
        difference=found, echo_exact=not any(e.result.flags >> Flag.ECHO & 1 for e in learned),
        predicted_cycles=sum(predicted(design, e) or 0 for e in runs),
        measured_cycles=sum((e.result.cycles or 0) - (e.result.stalls or 0) for e in runs),
        words=sum(_words(e) for e in expected))


def _epoch(design: Design, url: str, progress: Callable[[int, int], None]) -> tuple[list[Event], float]:
    """Everything the device returned, its final master and gradient words last; and the loss."""
    x, y = data()
    with design.open(url) as chip:
        recorder = Recorder(chip.device)
        loss = _fit(chip, x, y, progress)
        chip.device.read()
        chip.device.read_gradients()
        return recorder.events, loss


def _fit(chip: Session, x, y, progress: Callable[[int, int], None]) -> float:
    history = chip.fit(x, y, epochs=1, batch_size=BATCH, learning_rate=LEARNING_RATE, momentum=MOMENTUM,
                       progress=lambda done, total, loss: progress(done, total))
    return history.loss[0]


def _words(event: Event) -> int:
    if isinstance(event.result, Run):
        return 0 if event.result.outputs is None else event.result.outputs.size
    return sum(w.size for w in event.result.values())
