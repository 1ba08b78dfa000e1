"""The integer model with a memory: its states after every step, and the gradient words when they were there."""

from typing import TypeVar

import numpy as np

from echolith.compiler.design import Design
from echolith.sim import arith
from echolith.sim.inputs import Row
from echolith.sim.model import IntegerModel
from echolith.sim.state import State
from echolith.sim.weights import Words

__all__ = ["Place", "Traced", "loaded", "traced"]

Place = tuple[str, int]  # phase (forward, echo, return) and step
_Model = TypeVar("_Model", bound=IntegerModel)


class Traced(IntegerModel):
    """Attributes ``states`` and ``sums``: by place, in the order of the run.

    The states of ``echo`` are both nudged copies, plus first, minus second. ``sums`` are the gradient words when copy 0
    starts a step: forward those of the read-outs before, in ``return`` also those of the echoes' same step."""

    def __init__(self, design: Design):
        super().__init__(design)
        self.states: dict[Place, State] = {}
        self.sums: dict[Place, Words] = {}

    def _step(self, s: State, row: Row, where: Place, *rest, **options) -> None:
        super()._step(s, row, where, *rest, **options)
        self._keep(s, where)

    def _step_back(self, copies: State, where: Place, *rest) -> None:
        super()._step_back(copies, where, *rest)
        self._keep(copies, where)

    def _turn(self, s: State, nudge, where: Place, *rest) -> None:
        super()._turn(s, nudge, where, *rest)
        self._keep(s, where)

    def _keep(self, s: State, where: Place) -> None:
        phase, step = where
        if phase == "echo":
            nudged = len(s.q) * 2 // 3
            self.states[where] = s[:nudged].copy()
            s, where = s[nudged:], ("return", step)
        self.states[where], self.sums[where] = s.copy(), self._words()

    def _words(self) -> Words:
        width = arith.gradient_width(self.hw.width)
        found = {name: arith.wrap(g, width) for name, g in self.gradients.items()}
        return found | {f"vector{i}": arith.wrap(g, width) for i, g in enumerate(self.vector_gradients)}


def loaded(model: _Model, words: Words) -> _Model:
    """The model with these master words."""
    model.masters = {b.name: words[b.name].copy() for b in model.design.blocks}
    model.vectors = [words[f"vector{i}"].copy() for i in range(len(model.design.vectors))]
    return model


def traced(design: Design, words: Words, entry: str, x: np.ndarray, target: np.ndarray, response: int, gain: int
           ) -> Traced:
    """A run of ``predict``, ``echo`` or ``learn`` from cleared gradients, with master words and settings given."""
    model = loaded(Traced(design), words)
    model.response, model.gain = response, gain
    if entry == "learn":
        model.learn(x, target)
    elif entry == "echo":
        model.echo(x)
    else:
        model.predict(x)
    return model
