"""Schedule: the phases of a rule as a program, with its entries."""

from dataclasses import dataclass

from echolith.compiler.assembler import Schedule
from echolith.compiler.isa import Context, Opcode, Setting, UpdateMode, exec_word, loop_word
from echolith.compiler.paired import Paired
from echolith.compiler.timing import cycles

__all__ = ["Program", "Schedule", "build"]


_PAIRS = 4  # of which orders are compared


@dataclass(frozen=True)
class Program:
    words: tuple[int, ...]
    entries: dict[str, int]
    rates: dict[str, int]


class _Entries(Paired):
    """What changes parameters, and everything before it."""

    def update(self) -> None:
        """Check every gradient word, then apply and decay; or clear them all if anything went wrong."""
        s = self.s
        self.everywhere(UpdateMode.CHECK)
        guard = self.emit(0)
        for name, (block, column, columns) in s.updates.items():
            self.set(Setting.BASE, block.base + column)
            if s.hardware.overlap:
                self.change(Setting.STRIDE, block.stride)
            else:
                self.set(Setting.COLUMNS, block.columns)
            self.set(Setting.TILES, self.tiles(block))
            self.set(Setting.LENGTH, columns)
            self.rates[name] = self.set(Setting.RATE, 0)
            self.emit(exec_word(Opcode.UPDATE, dest=UpdateMode.APPLY))
        self.set(Setting.BASE, 0)
        self.set(Setting.TILES, 1)
        for index, length in enumerate(s.vectors):
            self.set(Setting.LENGTH, length)
            self.rates[f"vector{index}"] = self.set(Setting.RATE, 0)
            self.emit(exec_word(Opcode.UPDATE, dest=UpdateMode.APPLY, kind=index + 1))
        self.rates["decay"] = self.set(Setting.RATE, 0)
        self.everywhere(UpdateMode.DECAY)
        self.emit(loop_word(Opcode.HALT))
        self.words[guard] = loop_word(Opcode.GUARD, len(self.words))
        self.entries["clear"] = len(self.words)
        self.set(Setting.RATE, 0)
        self.everywhere(UpdateMode.DECAY)

    def add_unchecked(self) -> None:
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

    def everywhere(self, mode: UpdateMode) -> None:
        self.set(Setting.BASE, 0)
        self.set(Setting.TILES, 1)
        self.set(Setting.LENGTH, self.s.used)
        self.emit(exec_word(Opcode.UPDATE, dest=mode))
        for index, length in enumerate(self.s.vectors):
            self.set(Setting.LENGTH, length)
            self.emit(exec_word(Opcode.UPDATE, dest=mode, kind=index + 1))


def build(schedule: Schedule) -> Program:
    """The entries, with the order of sweeps that takes the fewest cycles."""
    first = _Entries(schedule)
    found = [_program(schedule, order) for order in first.orders or (first.order,)]
    return min(found, key=lambda p: cycles(p.words, p.entries["unchecked"], schedule.hardware, _PAIRS)
               if len(found) > 1 else 0)


def _program(schedule: Schedule, order: str) -> Program:
    """Entries: ``predict``, ``echo`` (forward and back without nudges), and for learning ``learn`` (with the
    un-nudged copy), ``update``, ``clear`` and, where nothing but the check needs that copy, ``unchecked``, which learns
    the same without it."""
    asm = _Entries(schedule)
    asm.order = order
    with asm.entry("predict"), asm.loop(None):
        asm.forward(learn=False)
    with asm.entry("echo"), asm.loop(None):
        asm.forward(learn=False, echo_only=True)
        asm.reverse((), copy=True)
    if schedule.hardware.learn:
        with asm.entry("learn"), asm.loop(None):
            asm.forward(learn=True)
            asm.reverse((Context.ECHO_A, Context.ECHO_B), copy=True)
        with asm.entry("update"):
            asm.update()
        if schedule.dynamics.cost_at == "last":
            asm.add_unchecked()
    return Program(tuple(asm.words), asm.entries, asm.rates)
