"""A chip and the integer model as one device: both do everything, and the first difference ends it."""

from dataclasses import replace

import numpy as np

from echolith.compiler.cycles import cycles
from echolith.compiler.design import Design
from echolith.compiler.errors import EcholithError
from echolith.compiler.registers import ERRORS
from echolith.host.chip import ChipDevice
from echolith.host.device import Device, Run, Samples
from echolith.sim.device import IntegerDevice
from echolith.sim.divergence import Divergence, first, words_differ
from echolith.sim.locate import locate
from echolith.sim.weights import Words

__all__ = ["Diverged", "Twin"]


class Diverged(EcholithError):
    """The chip and the integer model differ; ``divergence`` says where."""

    def __init__(self, divergence: Divergence):
        super().__init__(f"the chip differs from the integer model: {divergence}")
        self.divergence = divergence


class Twin(Device):
    """Answers as the integer model does, and raises `Diverged` as soon as the chip does not.

    Every output, flag, count and cycle is compared; gradient words after every run that learns, all words after an
    update.

    Parameters
    ----------
    golden : IntegerDevice
    chip : Device
        On a `ChipDevice`, the step and unit of a divergence are found.

    Attributes
    ----------
    runs, words, flags : int
        Runs so far, words compared, the OR of all flags.
    predicted_cycles, measured_cycles : int
        Of all runs, without stalls; measured is None where nothing counts.
    """

    def __init__(self, golden: IntegerDevice, chip: Device):
        self.design, self.golden, self.chip = golden.design, golden, chip
        self.runs = self.words = self.flags = self.predicted_cycles = 0
        self.measured_cycles: int | None = 0
        self._held: tuple[np.ndarray, np.ndarray] | None = None
        self._on_chip = False

    def switched(self, design: Design) -> "Twin":
        return Twin(self.golden.switched(design), self.chip.switched(design))

    @property
    def response(self) -> int:
        return self.golden.response

    @response.setter
    def response(self, value: int) -> None:
        self.golden.response = self.chip.response = value

    @property
    def gain(self) -> int:
        return self.golden.gain

    @gain.setter
    def gain(self, value: int) -> None:
        self.golden.gain = self.chip.gain = value

    # -- words -----------------------------------------------------------------------------------------------------

    def write(self, words: Words) -> None:
        self.golden.write(words)
        self.chip.write(words)
        self._same_masters("load")

    def read(self) -> Words:
        return self.golden.read()

    def write_gradients(self, words: Words) -> None:
        self.golden.write_gradients(words)
        self.chip.write_gradients(words)
        self._same_gradients("load")

    def read_gradients(self) -> Words:
        return self.golden.read_gradients()

    def _same_masters(self, phase: str) -> None:
        self._raise(self._compared(phase, "master word", self.golden.read(), self.chip.read()))

    def _same_gradients(self, phase: str) -> None:
        self._raise(self._compared(phase, "gradient word", self.golden.read_gradients(), self.chip.read_gradients()))

    def _compared(self, phase: str, word: str, expected: Words, got: Words) -> Divergence | None:
        self.words += sum(w.size for w in expected.values())
        return words_differ(phase, word, expected, got)

    # -- runs ------------------------------------------------------------------------------------------------------

    def run(self, entry: str, x: np.ndarray, target: np.ndarray, then: Samples | None = None) -> Run:
        expected = self.golden.run(entry, x, target)
        self._ran(entry, x, target, expected, self.chip.run(entry, x, target, then))
        return expected

    def hold(self, x: np.ndarray, target: np.ndarray) -> bool:
        self._held, self._on_chip = (x, target), self.chip.hold(x, target)
        return True

    def run_held(self, entry: str, order: np.ndarray, then: np.ndarray | None = None) -> Run:
        if self._held is None:
            raise ValueError("hold a data set before run_held")
        x, target = (part[order] for part in self._held)
        expected = self.golden.run(entry, x, target)
        if self._on_chip:
            got = self.chip.run_held(entry, order, then)
        else:
            following = None if then is None else (self._held[0][then], self._held[1][then])
            got = self.chip.run(entry, x, target, following)
        try:
            self._ran(entry, x, target, expected, got)
        except Diverged as error:
            found = error.divergence
            if found.sample is not None:
                found = replace(found, sample=int(order[found.sample]))
            raise Diverged(found) from error
        return expected

    def update(self, rates: dict[str, tuple[int, int]]) -> Run:
        expected = self.golden.update(rates)
        got = self.chip.update(rates)
        miscounted = self._counted("update", 2, expected, got)
        self._same_masters("update")
        self._same_gradients("update")
        self._raise(self._registers("update", expected, got) or miscounted)
        return expected

    def clear(self) -> None:
        self.golden.clear()
        self.chip.clear()

    def _ran(self, entry: str, x: np.ndarray, target: np.ndarray, expected: Run, got: Run) -> None:
        miscounted = self._counted(entry, len(x), expected, got)
        if expected.flags & ERRORS and got.flags & ERRORS:
            return  # the chip has ended with the pair that failed, the model goes on
        found = self._outputs(expected, got)
        if found is None and entry in ("learn", "unchecked"):
            found = self._compared("gradient", "gradient word", self.golden.read_gradients(),
                                   self.chip.read_gradients())
        found = found or self._registers(entry, expected, got) or miscounted
        if found is not None:
            self._raise(self._located(entry, x, target) or found)

    def _outputs(self, expected: Run, got: Run) -> Divergence | None:
        a, b = expected.outputs, got.outputs
        if a is None or b is None:
            return None
        self.words += a.size
        place = first(a, b)
        if place is None:
            return None
        sample, row, unit = place
        d = self.design.dynamics
        row = row if d.cost_at == "every" else d.steps - 1
        return Divergence("readout", "output", int(a[place]), int(b[place]), step=(row + 1) * d.substeps - 1,
                          sample=sample, unit=unit)

    @staticmethod
    def _registers(entry: str, expected: Run, got: Run) -> Divergence | None:
        """Flags and counts. Leading bits have no meaning where nothing learns."""
        for name in ("flags", "response", "saturated", *(("leading",) if entry in ("learn", "unchecked") else ())):
            a, b = getattr(expected, name), getattr(got, name)
            if a != b:
                return Divergence("update" if entry == "update" else "run", name, int(a), int(b))
        return None

    def _counted(self, entry: str, samples: int, expected: Run, got: Run) -> Divergence | None:
        """Count a run; its cycles must be those predicted, unless a flag cut it short."""
        self.runs, self.flags = self.runs + 1, self.flags | expected.flags
        guess = sum(cycles(self.design.program, self.design.entries[entry], self.design.hardware, pairs)
                    for pairs in got.pairs or (-(-samples // 2),))
        self.predicted_cycles += guess
        if got.cycles is None or got.stalls is None or self.measured_cycles is None:
            self.measured_cycles = None
            return None
        spent = got.cycles - got.stalls
        self.measured_cycles += spent
        return None if spent == guess or expected.flags & ERRORS else Divergence("run", f"cycles of {entry}", guess,
                                                                                spent)

    def _located(self, entry: str, x: np.ndarray, target: np.ndarray) -> Divergence | None:
        """The first step of the first pair that goes wrong, if running it again does, one pair at a time."""
        entry = "learn" if entry == "unchecked" else entry
        if self.design.rule.counted and entry == "learn":  # whose steps are those of an un-nudged run
            entry = "echo"
        if not isinstance(self.chip, ChipDevice):
            return None
        for start in range(0, len(x), 2):
            pair = slice(start, start + 2)
            found = locate(self.chip, self.golden.read(), entry, x[pair], target[pair])
            if found:
                changed = words_differ("load", "master word", self.golden.read(), self.chip.read())
                note = f"; the chip's weights have changed: {changed}" if changed else ""
                return replace(found.after(start), note=note)
        return None

    @staticmethod
    def _raise(found: Divergence | None) -> None:
        if found is not None:
            raise Diverged(found)
