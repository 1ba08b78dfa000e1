"""Where a chip leaves the integer model: its program is cut after some step and the states are read from its memory.

The chip runs the same words as ever, fewer of them, so this needs nothing but the link: it works on a board. Motion is
reversible, so a wrong state stays wrong within its phase, and the first wrong step is found by bisection. Should a
fault heal, every step is looked at.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

from echolith.compiler.cut import commands, cut
from echolith.compiler.design import Design
from echolith.compiler.isa import Context, Field, Opcode
from echolith.host.chip import ChipDevice
from echolith.sim.divergence import Divergence, first, named, words_differ
from echolith.sim.state import State
from echolith.sim.trace import Traced, traced
from echolith.sim.weights import Words

__all__ = ["locate"]


@dataclass(frozen=True)
class _Mark:
    """The end of a step: after so many commands of a run."""

    back: bool
    step: int
    commands: int


def locate(chip: ChipDevice, words: Words, entry: str, x: np.ndarray, target: np.ndarray, every: bool = True
           ) -> Divergence | None:
    """The first state or gradient word that differs from the integer model's with these master words.

    ``x`` and ``target`` are words of one or two samples. None if all agree at the end of every step; if not ``every``,
    at both ends of the run."""
    model = traced(chip.design, words, entry, x, target, chip.response, chip.gain)
    return _Search(chip, model, entry, x, target).run(every)


class _Search:
    def __init__(self, chip: ChipDevice, model: Traced, entry: str, x: np.ndarray, target: np.ndarray):
        self.chip, self.model, self.entry, self.x, self.target = chip, model, entry, x, target
        self.design: Design = chip.design
        self.marks = _marks(self.design, entry)

    def run(self, every: bool) -> Divergence | None:
        ends = [i for i, mark in enumerate(self.marks) if i + 1 == len(self.marks) or self.marks[i + 1].back
                != mark.back]
        good = -1
        for end in ends:
            found = self._at(end)
            if found:
                return self._bisect(good, end, found)
            good = end
        return next((found for i in range(len(self.marks) if every else 0) if (found := self._at(i))), None)

    def _bisect(self, good: int, bad: int, found: Divergence) -> Divergence:
        while bad - good > 1:
            middle = (good + bad) // 2
            there = self._at(middle)
            if there:
                bad, found = middle, there
            else:
                good = middle
        return found

    def _at(self, index: int) -> Divergence | None:
        mark, learns = self.marks[index], self.design.hardware.learn and self.entry == "learn"
        if learns:
            self.chip.clear()
        program = cut(self.design.program, self.design.entries[self.entry], mark.commands)
        q, p = self.chip.states(program, self.entry, self.x, self.target)
        for phase, copy, sample, context, slot in self._copies(mark):
            state = self._expected(phase, mark.step)
            row = sample + len(self.x) * (copy == "-")
            got = State(q[context, :self.design.units, slot], p[context, :self.design.units, slot])
            if found := _differs(self.design, State(state.q[row], state.p[row]), got):
                return replace(found, phase=phase, step=mark.step, sample=sample, copy=copy)
        if learns and mark.step and (found := words_differ("gradient", "gradient word", self._sums(mark),
                                                           self.chip.read_gradients())):
            return replace(found, step=mark.step)
        return None

    def _copies(self, mark: _Mark) -> Iterator[tuple[str, str, int, int, int]]:
        """(phase, copy, sample, context, slot) of the states that move in a step, in the order in which they do."""
        samples = range(len(self.x))
        if mark.back and self.entry == "learn":
            for sample in samples:
                context = (Context.ECHO_A, Context.ECHO_B)[sample]
                yield from (("echo", copy, sample, context, slot) for slot, copy in enumerate("+-"))
        for sample in samples:
            yield ("return" if mark.back else "forward", "0", sample, Context.PAIR, sample)

    def _expected(self, phase: str, step: int) -> State:
        return self.model.states[phase, step] if step else self.model.start(len(self.x))

    def _sums(self, mark: _Mark) -> Words:
        return self.model.sums["return" if mark.back else "forward", mark.step]


def _marks(design: Design, entry: str) -> list[_Mark]:
    """After clearing (step 0), after every step forward and, if the entry runs back, after every step undone.

    A step is over when every state of copy 0 has drifted."""
    found, drifts = [], 0
    states = sum(s.drift for s in design.sweeps)
    step, back = 0, False
    # Where momenta are counted, those of masses are told of the rest that a run starts from.
    first = sum(d.mass for d in design.drifts) if design.rule.counted and entry != "predict" else 0
    for index, word in enumerate(commands(design.program, design.entries[entry])):
        unit = word >> 28 in (Opcode.UNITS, Opcode.TRANSPOSED) and word & 3 == Context.PAIR
        if unit and word >> Field.CLEAR & 1:
            found.append(_Mark(False, 0, index + 1))
        if not unit or not word >> Field.DRIFT & 1:
            continue
        if first:
            first -= 1
            continue
        drifts += 1
        if word >> Field.REVERSE & 1 and not back:  # the first way back is all states' drift at once
            back, step, drifts = True, step + 2, states
        if drifts == states:
            drifts, step = 0, step - 1 if back else step + 1
            found.append(_Mark(back, step, index + 1))
    return found


def _differs(design: Design, expected: State, got: State) -> Divergence | None:
    """The kick comes before the drift."""
    for word, a, b in (("momentum", expected.p, got.p), ("position", expected.q, got.q)):
        place = first(a, b)
        if place:
            state, unit = named(design.states, place[0])
            return Divergence("", word, int(a[place]), int(b[place]), state=state, unit=unit)
    return None
