"""Schedule: the phases of a rule as a program of sweeps.

A pair of samples (a, b) runs forward side by side; the echoes (a+, a-), (b+, b-) and the un-nudged copy (a, b) then
run back in lock-step, so that every input row is read once per direction. The kick after the last step is never
computed: no read-out sees it and the echo would undo it.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from echolith.compiler.design import Block, Dynamics, Hardware
from echolith.compiler.errors import CompileError
from echolith.compiler.isa import (
    LOOP_BITS,
    Context,
    Dest,
    Opcode,
    Setting,
    UpdateMode,
    exec_word,
    loop_word,
    set_word,
)

__all__ = ["Program", "Schedule", "build"]


@dataclass(frozen=True)
class Program:
    words: tuple[int, ...]
    entries: dict[str, int]
    rates: dict[str, int]


@dataclass(frozen=True)
class Schedule:
    """What the program generator needs to know about a network."""

    hardware: Hardware
    dynamics: Dynamics
    units: int
    inputs: int
    outputs: int
    blocks: dict[str, Block]
    updates: dict[str, tuple[Block, int, int]]  # rate name -> block, first column, columns
    vectors: tuple[int, ...]  # lengths of the learned vector parameters
    used: int  # words per lane


class _Assembler:
    def __init__(self, schedule: Schedule):
        self.s = schedule
        self.words: list[int] = []
        self.entries: dict[str, int] = {}
        self.rates: dict[str, int] = {}

    def emit(self, word: int) -> int:
        self.words.append(word)
        return len(self.words) - 1

    def set(self, setting: Setting, value: int) -> int:
        return self.emit(set_word(setting, value))

    @contextmanager
    def loop(self, count: int | None) -> Iterator[None]:
        """Repeat what is emitted inside: ``count`` times, or once per pair if None."""
        if count is not None and count >= 1 << LOOP_BITS:
            raise CompileError(f"rows and substeps must be below {1 << LOOP_BITS}, not {count}")
        first = self.emit(loop_word(Opcode.PAIRS) if count is None else loop_word(Opcode.LOOP, count)) + 1
        yield
        self.emit(loop_word(Opcode.END, first))

    def use(self, name: str) -> None:
        """Point the sweeps at a block."""
        block, lanes = self.s.blocks[name], self.s.hardware.lanes
        self.set(Setting.BASE, block.base)
        self.set(Setting.COLUMNS, block.columns)
        self.set(Setting.TILES, -(-block.rows // lanes))
        self.set(Setting.ROWS, block.rows)
        self.set(Setting.PERIOD, max(block.columns, 2 * lanes))

    def units(self, context: int, **options: bool) -> None:
        self.set(Setting.LENGTH, self.s.units)
        self.emit(exec_word(Opcode.UNITS, context, **options))

    def fetch(self) -> None:
        """This row's inputs and, if there is a drive, its sum."""
        if self.s.inputs:
            self.set(Setting.LENGTH, self.s.inputs)
            self.emit(exec_word(Opcode.FETCH))
        if "drive" in self.s.blocks:
            self.use("drive")
            self.emit(exec_word(Opcode.FORWARD, Context.PAIR, Dest.DRIVE, source=True))

    def fetch_target(self) -> None:
        self.set(Setting.LENGTH, self.s.outputs)
        self.emit(exec_word(Opcode.FETCH, target=True))

    def row(self, words: int) -> None:
        self.emit(loop_word(Opcode.ROW, words))

    # -- phases ----------------------------------------------------------------------------------------------------

    @property
    def row_words(self) -> int:
        every = self.s.dynamics.cost_at == "every" and self.s.hardware.cost is not None
        return self.s.inputs + (self.s.outputs if every else 0)

    def step(self, context: int = Context.PAIR) -> None:
        """Forward: force at q, kick, drift. The hidden block must be in use."""
        self.emit(exec_word(Opcode.FORWARD, context, Dest.HIDDEN))
        self.emit(exec_word(Opcode.TRANSPOSED, context, drift=True))

    def readout(self, learn: bool, target: bool) -> None:
        """Outputs to the results; with ``learn`` the readout's own gradient and the leading bit of the cost."""
        if "readout" not in self.s.blocks:
            self.units(Context.PAIR, emit=True, check=False)
            return
        if target:
            self.row(self.s.inputs)
            self.fetch_target()
            self.row(-self.s.inputs)
        self.use("readout")
        self.emit(exec_word(Opcode.FORWARD, Context.PAIR, Dest.COST, emit=True))
        if learn:
            self.emit(exec_word(Opcode.OUTER, Context.PAIR))

    def forward(self, learn: bool, echo_only: bool = False) -> None:
        """All rows from the zero state; ends at the last read-out point."""
        d = self.s.dynamics
        every = d.cost_at == "every" and not echo_only
        self.emit(loop_word(Opcode.NEXT))
        self.units(Context.PAIR, clear=True)
        if d.steps > 1:
            with self.loop(d.steps - 1):
                self.fetch()
                self.use("hidden")
                self.substeps(d.substeps - 1)
                if every:
                    self.readout(learn, learn)
                    self.use("hidden")
                self.step()
                self.row(self.row_words)
        self.fetch()
        self.use("hidden")
        self.substeps(d.substeps - 1)
        if not echo_only:
            self.readout(learn, learn)

    def substeps(self, count: int) -> None:
        if count:
            with self.loop(count):
                self.step()

    def nudge(self) -> None:
        """Cost derivatives at the un-nudged copy, scaled to the wanted response, back to the units. Taken there and
        not at the echoes, they do not change with the nudge: a quadratic cost stays exact at any strength."""
        self.use("readout")
        self.emit(exec_word(Opcode.FORWARD, Context.PAIR, Dest.COST, echo=True))
        self.emit(exec_word(Opcode.TRANSPOSED, Context.PAIR, 1))

    def back(self, context: int, nudge: bool = False) -> None:
        """Reverse: force, gradient, kick back, nudge, drift back. The hidden block must be in use."""
        echo = context != Context.PAIR
        self.emit(exec_word(Opcode.FORWARD, context, Dest.HIDDEN, echo=echo))
        if echo:
            self.emit(exec_word(Opcode.OUTER, context))
            if "drive" in self.s.blocks:
                self.use("drive")
                self.emit(exec_word(Opcode.OUTER, context, source=True))
                self.use("hidden")
        self.emit(exec_word(Opcode.TRANSPOSED, context, reverse=True, nudge=nudge, drift=True,
                            learn=echo and bool(self.s.vectors)))

    def reverse(self, echoes: Sequence[int], copy: bool) -> None:
        """From the last read-out point back to the start, then the exact-return check of the un-nudged copy."""
        d = self.s.dynamics
        contexts = (*echoes, Context.PAIR) if copy else tuple(echoes)
        every = d.cost_at == "every" and bool(echoes)
        if echoes:
            self.nudge()
        for context in contexts:
            echo = context != Context.PAIR
            self.units(context, reverse=True, nudge=echo, drift=True, spread=echo)
        self.use("hidden")
        self.back_substeps(contexts, d.substeps - 1)
        if d.steps > 1:
            with self.loop(d.steps - 1):
                self.row(-self.row_words)
                self.fetch()
                if every:
                    self.row(self.s.inputs)
                    self.fetch_target()
                    self.row(-self.s.inputs)
                if every:
                    self.nudge()
                self.use("hidden")
                for context in contexts:
                    self.back(context, every and context != Context.PAIR)
                self.back_substeps(contexts, d.substeps - 1)
        if copy:
            self.units(Context.PAIR, check=True)

    def back_substeps(self, contexts: Sequence[int], count: int) -> None:
        if count:
            with self.loop(count):
                for context in contexts:
                    self.back(context)

    def update(self) -> None:
        """Check every gradient word, then apply and decay; or clear them all if anything went wrong."""
        s = self.s
        self.everywhere(UpdateMode.CHECK)
        guard = self.emit(0)
        for name, (block, column, columns) in s.updates.items():
            self.set(Setting.BASE, block.base + column)
            self.set(Setting.COLUMNS, block.columns)
            self.set(Setting.TILES, -(-block.rows // s.hardware.lanes))
            self.set(Setting.LENGTH, columns)
            self.rates[name] = self.set(Setting.RATE, 0)
            self.emit(exec_word(Opcode.UPDATE, dest=UpdateMode.APPLY))
        self.set(Setting.BASE, 0)
        self.set(Setting.TILES, 1)
        for index, length in enumerate(s.vectors):
            self.set(Setting.LENGTH, length)
            self.rates[f"vector{index}"] = self.set(Setting.RATE, 0)
            self.emit(exec_word(Opcode.UPDATE, dest=UpdateMode.APPLY, vector=index + 1))
        self.rates["decay"] = self.set(Setting.RATE, 0)
        self.everywhere(UpdateMode.DECAY)
        self.emit(loop_word(Opcode.HALT))
        self.words[guard] = loop_word(Opcode.GUARD, len(self.words))
        self.entries["clear"] = len(self.words)
        self.set(Setting.RATE, 0)
        self.everywhere(UpdateMode.DECAY)

    def everywhere(self, mode: UpdateMode) -> None:
        self.set(Setting.BASE, 0)
        self.set(Setting.TILES, 1)
        self.set(Setting.LENGTH, self.s.used)
        self.emit(exec_word(Opcode.UPDATE, dest=mode))
        for index, length in enumerate(self.s.vectors):
            self.set(Setting.LENGTH, length)
            self.emit(exec_word(Opcode.UPDATE, dest=mode, vector=index + 1))

    @contextmanager
    def entry(self, name: str) -> Iterator[None]:
        self.entries[name] = len(self.words)
        yield
        self.emit(loop_word(Opcode.HALT))


def build(schedule: Schedule) -> Program:
    """Entries: ``predict``, ``echo`` (forward and back without nudges), and for learning ``learn`` (with the
    un-nudged copy), ``update`` and ``clear``."""
    asm = _Assembler(schedule)
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
    return Program(tuple(asm.words), asm.entries, asm.rates)
