"""What a session drives: a chip behind a link, or the integer model. Words in, words out; no floats."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from echolith.compiler.design import Design
from echolith.sim.state import State
from echolith.sim.weights import Words

__all__ = ["Device", "Run", "Samples"]

Samples = tuple[np.ndarray, np.ndarray]


@dataclass(frozen=True)
class Run:
    """What one run reports.

    ``outputs`` are (samples, read-outs, outputs) words or None; ``cycles`` and ``stalls`` are None where nothing
    counts them; ``first`` tells where a state wrapped, if that is known, ``strayed`` which sample's copy 0 did not
    return, and with which state, (units); ``pairs`` are those of the windows that the samples came in, if they did.
    ``late`` fetches outputs that were left on the chip, until the run after the next.
    """

    outputs: np.ndarray | None = None
    flags: int = 0
    response: int = 0
    leading: int = 0
    saturated: int = 0
    cycles: int | None = None
    stalls: int | None = None
    first: dict[str, int | str] | None = None
    strayed: tuple[int, State] | None = None
    pairs: tuple[int, ...] = ()
    late: Callable[[], np.ndarray] | None = None

    def results(self) -> np.ndarray | None:
        """``outputs``, fetched now if they are still on the chip."""
        return self.late() if self.late else self.outputs


class Device(ABC):
    """One chip, or its twin."""

    design: Design
    response: int  # exponent R
    gain: int  # gradient words are 2^gain times finer

    @abstractmethod
    def switched(self, design: Design) -> "Device":
        """This chip with another design of its hardware; what it learned is lost. Raises DesignMismatch before
        anything is loaded if the hardware is another."""

    @abstractmethod
    def write(self, words: Words) -> None:
        """Set all master words."""

    @abstractmethod
    def read(self) -> Words:
        """All master words."""

    @abstractmethod
    def write_gradients(self, words: Words) -> None: ...

    @abstractmethod
    def read_gradients(self) -> Words: ...

    @abstractmethod
    def run(self, entry: str, x: np.ndarray, target: np.ndarray, then: Samples | None = None) -> Run:
        """``predict``, ``echo`` or ``learn`` on (samples, steps, inputs) and (samples, read-outs, outputs) words.

        ``then`` are those of the next run of this entry: they may be sent while this one computes, and this one's
        outputs fetched while that one does."""

    @abstractmethod
    def hold(self, x: np.ndarray, target: np.ndarray) -> bool:
        """Keep a data set on the chip for `run_held`; False if it does not fit. One that is there already is not sent
        again."""

    @abstractmethod
    def run_held(self, entry: str, order: np.ndarray, then: np.ndarray | None = None) -> Run:
        """As `run`, on samples of the data set held."""

    @abstractmethod
    def update(self, rates: dict[str, tuple[int, int]]) -> Run:
        """Check, apply and decay the gradients; ``rates`` are (mantissa, coarse shift)."""

    @abstractmethod
    def clear(self) -> None:
        """Forget all gradients."""

    def close(self) -> None:  # noqa: B027 - optional
        """Release the link."""
