"""The integer model with a memory: its states after every step, and the gradient words when they were there."""

import numpy as np

from echolith.compiler.design import Design
from echolith.sim import arith
from echolith.sim.model import IntegerModel, State
from echolith.sim.weights import Words

__all__ = ["Place", "Traced", "traced"]

Place = tuple[str, int]  # phase (forward, echo, return) and step


class Traced(IntegerModel):
    """Attributes ``states`` and ``sums``: by place, in the order of the run.

    The states of ``echo`` are both nudged copies, plus first, minus second. ``sums`` are the gradient words when copy 0
    starts a step: forward those of the read-outs before, in ``return`` also those of the echoes' same step."""

    def __init__(self, design: Design):
        super().__init__(design)
        self.states: dict[Place, State] = {}
        self.sums: dict[Place, Words] = {}

    def _move(self, s: State, force, nudge, reverse: bool, where: tuple, *rest, **options) -> None:
        if where not in self.states and where[0] != "echo":
            self.sums[where] = self._words()
        super()._move(s, force, nudge, reverse, where, *rest, **options)
        self.states[where] = s.copy()

    def _words(self) -> Words:
        width = arith.gradient_width(self.hw.width)
        found = {name: arith.wrap(g, width) for name, g in self.gradients.items()}
        return found | {f"vector{i}": arith.wrap(g, width) for i, g in enumerate(self.vector_gradients)}


def traced(design: Design, words: Words, entry: str, x: np.ndarray, target: np.ndarray, response: int, gain: int
           ) -> Traced:
    """A run of ``predict``, ``echo`` or ``learn`` from cleared gradients, with master words and settings given."""
    model = Traced(design)
    model.masters = {b.name: words[b.name].copy() for b in design.blocks}
    model.vectors = [words[f"vector{i}"].copy() for i in range(len(design.vectors))]
    model.response, model.gain = response, gain
    if entry == "learn":
        model.learn(x, target)
    elif entry == "echo":
        model.echo(x)
    else:
        model.predict(x)
    return model
