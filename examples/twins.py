"""One epoch of all training samples on the RTL and in the integer model, compared word for word."""

from collections.abc import Callable
from dataclasses import dataclass

from echolith.compiler.design import Design
from echolith.compiler.registers import Flag
from echolith.examples.digits import BATCH, LEARNING_RATE, MOMENTUM, data
from echolith.host.session import History, Session
from echolith.sim.device import IntegerDevice
from echolith.sim.twin import Diverged, Twin
from echolith.sim.weights import from_values

__all__ = ["Twins", "epoch_on_both"]


@dataclass(frozen=True)
class Twins:
    """What the RTL did, and whether the integer model did the same.

    ``difference`` is the first one in weights, gradient words, outputs, flags or cycles, else None: it ended the
    epoch, and there is no loss.
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
    """Learn one epoch from the design's initial weights in ``int:`` and ``sim:`` at once."""
    x, y = data()
    history, difference = History(loss=[float("nan")]), None
    with design.open("sim:") as chip:
        twin = Twin(IntegerDevice(design), chip.device)
        try:
            twin.write(from_values(design, design.values))
            history = Session(design, twin).fit(
                x, y, epochs=1, batch_size=BATCH, learning_rate=LEARNING_RATE, momentum=MOMENTUM,
                progress=lambda done, total, loss: progress(done, total))
        except Diverged as error:
            difference = str(error.divergence)
    return Twins(
        samples=history.samples, updates=history.updates, loss=history.loss[0], difference=difference,
        echo_exact=not twin.flags >> Flag.ECHO & 1, predicted_cycles=twin.predicted_cycles,
        measured_cycles=twin.measured_cycles or 0, words=twin.words)
