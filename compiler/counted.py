"""Echo backpropagation: gradient words are the momenta of the parameters.

A pair of samples runs forward and back in its own place, with opposite nudges at the turn. Every step forward counts
the momenta down by what the step back counts them up: the array only ever adds, so their sign is turned before and
after the way there.
"""

from echolith.compiler.isa import Context, Opcode, Setting, UpdateMode, loop_word
from echolith.compiler.phases import Phases
from echolith.compiler.updates import Updates
from echolith.sim.arith import rate_shift

__all__ = ["Counted"]

_COARSE = 1  # of the rate -1


class Counted(Phases, Updates):
    """Needs a readout without passes of its own, and the cost at the last step."""

    orders = ()

    def echo(self) -> None:
        self.emit(loop_word(Opcode.NEXT))
        self._unnudged()

    def learning(self) -> None:
        with self.entry("learn"), self.loop(None):
            self.emit(loop_word(Opcode.NEXT))
            self._unnudged()
            self._nudged()
        with self.entry("update"):
            self.update()
        with self.entry("unchecked"), self.loop(None):
            self.emit(loop_word(Opcode.NEXT))
            self._nudged()

    def _nudged(self) -> None:
        self._there()
        self.readout(learn=True, target=True)
        self.nudge()
        self.parting = True
        self.drift(Context.PAIR, True)
        self._back()
        self.parting = False

    def _unnudged(self) -> None:
        self._there()
        self.drift(Context.PAIR, False)
        self._back()
        self.check()

    def _there(self) -> None:
        self._turn()
        self.counting = True
        self.way_there(learn=False, echo_only=True)
        self._turn()

    def _back(self) -> None:
        self.retrace((Context.PAIR,))
        self.counting = False

    def _turn(self) -> None:
        """All momenta change their sign, exactly."""
        self.set(Setting.RATE, -(1 << rate_shift(_COARSE)) & (1 << 22) - 1 | _COARSE << 22)
        self.everywhere(UpdateMode.DECAY)
        self.block = ""
