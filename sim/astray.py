"""Where a copy that did not return left its way, told by nothing but the state that it came back with.

Motion is reversible. Run forward from that state, the model goes through what the copy went through on its way back, up
to the word that went wrong; there it differs from the right way in that word alone, and further away in more and more.
So this finds a fault that does not happen again. Faults of the way forward are found alike, as the way back repeats
them.
"""

import numpy as np

from echolith.compiler.design import Design
from echolith.sim.divergence import Divergence, named
from echolith.sim.force import Motion
from echolith.sim.state import Outcome, State
from echolith.sim.trace import Traced, loaded
from echolith.sim.weights import Words

__all__ = ["astray"]


class _Way(Traced):
    """The way forward from a state before the first drift."""

    def __init__(self, design: Design, first: State):
        super().__init__(design)
        self.first = first

    def start(self, samples: int) -> State:
        s = self._state(self.first.q, self.first.p.copy())
        Motion(self, s, ("forward", 0), Outcome()).push(0)
        self.states["forward", -1], self.states["forward", 0] = self.first, s.copy()
        return s


def astray(design: Design, words: Words, x: np.ndarray, back: State) -> Divergence | None:
    """The word that differs where fewest do; of several such places that where the fewest bits are flipped.

    Parameters
    ----------
    words
        Master words of the run.
    x, back
        Words of one sample, (steps, inputs), and positions and momenta, (units), with which its copy came back; None
        if they are those of rest."""
    rest = State(np.zeros((1, design.units), np.int64), np.zeros((1, design.units), np.int64))
    right, wrong = (_way(design, words, x, first) for first in (rest, State(back.q[None], back.p[None])))
    steps = design.dynamics.steps * design.dynamics.substeps
    places = [("return", step, step - 2, step - 1) for step in range(steps, 0, -1)]
    places += [("forward", step, step, step) for step in range(1, steps)]

    def apart(place: tuple[str, int, int, int]) -> tuple[int, int]:
        """Words that differ, and bits in which they do."""
        q, p = place[2:]
        flipped = np.concatenate([right[q].q ^ wrong[q].q, right[p].p ^ wrong[p].p])
        kept = (1 << design.hardware.width) - 1
        return int((flipped != 0).sum()), sum(int(w & kept).bit_count() for w in flipped.ravel())

    phase, step, q, p = found = min(places, key=apart)
    count, _ = apart(found)
    for word, one, other in (("momentum", right[p].p[0], wrong[p].p[0]), ("position", right[q].q[0], wrong[q].q[0])):
        if (one != other).any():
            element = int(np.argmax(one != other))
            state, unit = named(design.states, element)
            return Divergence(phase, word, int(one[element]), int(other[element]), step, copy="0", state=state,
                              unit=unit, note=f", and {count - 1} words beside it" if count > 1 else "")
    return None


def _way(design: Design, words: Words, x: np.ndarray, first: State) -> dict[int, State]:
    """States after every step, from -1, before the first drift, on."""
    model = loaded(_Way(design, first), words)
    model.forward(x[None], lambda *_: None, Outcome())
    return {step: state for (_, step), state in model.states.items()}
