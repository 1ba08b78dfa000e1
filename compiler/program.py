"""Schedule: the phases of a rule as a program, with its entries."""

from dataclasses import dataclass

from echolith.compiler.assembler import Schedule
from echolith.compiler.counted import Counted
from echolith.compiler.cycles import cycles
from echolith.compiler.isa import Context
from echolith.compiler.paired_every import PairedEvery
from echolith.compiler.updates import Updates

__all__ = ["Program", "Schedule", "build"]


_PAIRS = 4  # of which orders are compared


@dataclass(frozen=True)
class Program:
    words: tuple[int, ...]
    entries: dict[str, int]
    rates: dict[str, int]


class _Echoes(PairedEvery, Updates):
    """Echoes in places of their own, beside the un-nudged copies."""

    def echo(self) -> None:
        self.forward(learn=False, echo_only=True)
        self.reverse((), copy=True)

    def learning(self) -> None:
        with self.entry("learn"), self.loop(None):
            self.forward(learn=True)
            self.reverse((Context.ECHO_A, Context.ECHO_B), copy=True)
        with self.entry("update"):
            self.update()
        if not self.s.errors and (self.s.dynamics.cost_at == "last" or self.keeps):
            self._unchecked()

    def _unchecked(self) -> None:
        """Left out where memory is dear and the program would take more of it."""
        before = len(self.words)
        with self.entry("unchecked"):
            if self.can_pair:
                self.learn_in_pairs()
            else:
                with self.loop(None):
                    self.forward(learn=True)
                    self.reverse((Context.ECHO_A, Context.ECHO_B), copy=False)
        if not self.s.hardware.overlap and len(self.words) > self.s.hardware.depths.program:
            del self.words[before:], self.entries["unchecked"]


def build(schedule: Schedule) -> Program:
    """The entries, with the order of sweeps that takes the fewest cycles."""
    orders = (Counted if schedule.counted else _Echoes)(schedule).orders
    found = [_program(schedule, order) for order in orders or (("", ""),)]
    return min(found, key=lambda p: cycles(p.words, p.entries["unchecked"], schedule.hardware, _PAIRS)
               if len(found) > 1 else 0)


def _program(schedule: Schedule, order: tuple[str, str]) -> Program:
    """Entries: ``predict``, ``echo`` (forward and back without nudges), and for learning ``learn`` (with the
    un-nudged copy), ``update``, ``clear`` and, where nothing but the check needs that copy, ``unchecked``, which
    learns the same without it."""
    asm = (Counted if schedule.counted else _Echoes)(schedule)
    if any(order):
        asm.order = order
    with asm.entry("predict"), asm.loop(None):
        asm.forward(learn=False)
    with asm.entry("echo"), asm.loop(None):
        asm.echo()
    if schedule.hardware.learn:
        asm.learning()
    return Program(tuple(asm.words), asm.entries, asm.rates)
