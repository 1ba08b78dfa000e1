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
from echolith.compiler.kinetic import Drift
from echolith.compiler.record import Record
from echolith.compiler.sweep import Sweep

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
    sweeps: tuple[Sweep, ...]  # the force
    levels: tuple[Sweep, ...]  # of a softmax, before every cost
    drifts: tuple[Drift, ...]
    drives: dict[str, int]  # blocks of kept drives -> their first row
    updates: dict[str, tuple[Block, int, int]]  # rate name -> block, first column, columns
    vectors: tuple[int, ...]  # lengths of the learned vector parameters
    used: int  # words per lane
    record: Record
    reads: tuple[Sweep, ...] = ()  # before every read-out
    backs: tuple[Sweep, ...] = ()  # behind its cost
    source: int = 0  # first element of what the readout block is applied to


class _Assembler:
    def __init__(self, schedule: Schedule):
        self.s = schedule
        self.words: list[int] = []
        self.entries: dict[str, int] = {}
        self.rates: dict[str, int] = {}
        self.block = ""  # that the sweeps point at
        self.known: dict[Setting, int] = {}  # settings that need not be repeated here

    def emit(self, word: int) -> int:
        self.words.append(word)
        return len(self.words) - 1

    def set(self, setting: Setting, value: int) -> int:
        self.known[setting] = value
        return self.emit(set_word(setting, value))

    def place(self, **places: int) -> None:
        """Settings of offsets and repeats, where they are not so already."""
        if self.s.hardware.general:
            if not self.s.hardware.repeat:
                places.pop("repeat", None)
            for name, value in places.items():
                if self.known.get(Setting[name.upper()]) != value:
                    self.set(Setting[name.upper()], value)

    @contextmanager
    def loop(self, count: int | None) -> Iterator[None]:
        """Repeat what is emitted inside: ``count`` times, or once per pair if None."""
        if count is not None and count >= 1 << LOOP_BITS:
            raise CompileError(f"rows and substeps must be below {1 << LOOP_BITS}, not {count}")
        first = self.emit(loop_word(Opcode.PAIRS) if count is None else loop_word(Opcode.LOOP, count)) + 1
        self.known.clear()  # another round may come with other settings
        yield
        self.emit(loop_word(Opcode.END, first))
        self.known.clear()

    def use(self, name: str) -> None:
        """Point the sweeps at a block."""
        self.block = name
        block, lanes = self.s.blocks[name], self.s.hardware.lanes
        self.set(Setting.BASE, block.base)
        self.set(Setting.COLUMNS, block.columns)
        self.set(Setting.TILES, -(-block.rows // lanes))
        self.set(Setting.ROWS, block.rows)
        self.set(Setting.PERIOD, max(block.columns, 2 * lanes))

    def units(self, context: int, **options: bool) -> None:
        """All states at once, without a force."""
        self.place(first=0)
        self.set(Setting.LENGTH, self.s.units)
        self.emit(exec_word(Opcode.UNITS, context, **options))

    def drift(self, context: int, echo: bool) -> None:
        """The last drift undone; an echo starts at the un-nudged copy with its nudge."""
        for d in self.s.drifts:
            self.place(first=d.first)
            self.set(Setting.LENGTH, d.length)
            self.emit(exec_word(Opcode.UNITS, context, drift_kind=d.kind, reverse=True, nudge=echo, drift=True,
                                spread=echo, mass=echo and d.mass))

    def fetch(self) -> None:
        """This row's inputs and, if there is a drive, its sum."""
        if self.s.inputs:
            self.set(Setting.LENGTH, self.s.inputs)
            self.emit(exec_word(Opcode.FETCH))
        for name, row in self.s.drives.items():
            self.use(name)
            self.place(source=0, drive=row, repeat=0)
            self.emit(exec_word(Opcode.FORWARD, Context.PAIR, Dest.DRIVE, source=True))

    def fetch_target(self) -> None:
        """This row's target; with the cost at the last row, that of the sample."""
        self.row(self.s.record.target)
        self.set(Setting.LENGTH, self.s.outputs)
        self.emit(exec_word(Opcode.FETCH, target=True))
        self.row(-self.s.record.target)

    def row(self, places: int) -> None:
        self.emit(loop_word(Opcode.ROW, places))

    # -- phases ----------------------------------------------------------------------------------------------------

    def prepare(self) -> None:
        """Before a loop over `force`, so that a force of one block need not point at it in every round."""
        first = next((s.block for s in self.s.sweeps if s.block), "")
        if first and not self.s.hardware.general:
            self.use(first)

    def force(self, context: int, reverse: bool = False, nudge: bool = False) -> None:
        """One evaluation of the force with its kicks and the drift; in an echo also with its gradients."""
        echo = context != Context.PAIR
        start = self.block
        for sweep in self.s.sweeps:
            if echo or not sweep.echo_only:
                self.sweep(sweep, context, echo, reverse, nudge)
        if self.block != start and not self.s.hardware.general:
            self.use(start)

    def sweep(self, s: Sweep, context: int, echo: bool, reverse: bool, nudge: bool) -> None:
        if s.block and (s.block != self.block or (self.s.hardware.general and Setting.BASE not in self.known)):
            self.use(s.block)
        if s.opcode == Opcode.FORWARD:
            self.place(tile=s.tile, place=s.place, drive=s.drive, repeat=s.repeat, **self.columns(s))
            dest = Dest.DRIVE if s.kept else Dest.VALUE if s.value else Dest.HIDDEN
            self.emit(exec_word(Opcode.FORWARD, context, dest, s.kind,
                                echo=echo and s.rows, source=s.input, gather=s.gather))
        elif s.opcode == Opcode.OUTER:
            self.place(tile=s.tile, repeat=s.repeat, **self.columns(s))
            self.emit(exec_word(Opcode.OUTER, context, source=s.input, gather=s.gather))
        else:
            self.place(first=s.first, second=s.second, place=s.place, tile=s.tile)
            if s.opcode == Opcode.UNITS:
                self.set(Setting.LENGTH, s.length)
            else:
                self.place(repeat=s.repeat)
            kicks = not s.value and not s.rows
            self.emit(exec_word(Opcode(s.opcode), context, kind=s.kind, value=s.value, rows=s.rows, maximum=s.maximum,
                                force=s.force, drift=s.drift, drift_kind=s.drift_kind,
                                mass=echo and s.mass, echo=echo and s.rows, reverse=reverse and kicks,
                                nudge=nudge and s.drift, learn=echo and s.learn, gather=s.gather,
                                gather_second=s.gather_second))

    @staticmethod
    def columns(s: Sweep) -> dict[str, int]:
        """The setting of a column operand's place."""
        return {"first": s.first} if s.gather else {"source": s.source}

    def readout(self, learn: bool, target: bool) -> None:
        """Outputs to the results; with ``learn`` the readout's own gradient and the leading bit of the cost."""
        if "readout" not in self.s.blocks:
            self.units(Context.PAIR, emit=True, check=False)
            return
        if target:
            self.fetch_target()
        self.pair(self.s.reads, echo=False)
        if learn:
            self.level()
        self.use("readout")
        self.place(source=self.s.source, tile=0, repeat=0)
        self.emit(exec_word(Opcode.FORWARD, Context.PAIR, Dest.COST, emit=True))
        if learn and not self.s.backs:
            self.emit(exec_word(Opcode.OUTER, Context.PAIR))

    def level(self) -> None:
        """What all outputs together contribute to every one's cost, left in the drive memory at DRIVE."""
        self.pair(self.s.levels, echo=False)

    def pair(self, sweeps: Sequence[Sweep], echo: bool) -> None:
        """Sweeps of the un-nudged copies; ``echo``: with gradients and what they need."""
        for sweep in sweeps:
            self.sweep(sweep, Context.PAIR, echo, reverse=False, nudge=False)

    def forward(self, learn: bool, echo_only: bool = False) -> None:
        """All rows from the zero state; ends at the last read-out point."""
        d = self.s.dynamics
        every = d.cost_at == "every" and not echo_only
        self.emit(loop_word(Opcode.NEXT))
        self.units(Context.PAIR, clear=True)
        if d.steps > 1:
            with self.loop(d.steps - 1):
                self.fetch()
                self.prepare()
                self.substeps(d.substeps - 1)
                if every:
                    self.readout(learn, learn)
                    self.prepare()
                self.force(Context.PAIR)
                self.row(self.s.record.row)
        self.fetch()
        self.prepare()
        self.substeps(d.substeps - 1)
        if not echo_only:
            self.readout(learn, learn)

    def substeps(self, count: int) -> None:
        if count:
            with self.loop(count):
                self.force(Context.PAIR)

    def nudge(self) -> None:
        """Cost derivatives at the un-nudged copy, scaled to the wanted response, back to the units. Taken there and
        not at the echoes, they do not change with the nudge: a quadratic cost stays exact at any strength."""
        self.pair(self.s.reads, echo=True)
        self.level()
        self.use("readout")
        self.place(source=self.s.source, tile=0, first=0, repeat=0)
        self.emit(exec_word(Opcode.FORWARD, Context.PAIR, Dest.COST, echo=True))
        if self.s.backs:
            self.pair(self.s.backs, echo=True)
            self.use("nudge")
            walks = -(-self.s.units // self.s.hardware.lanes)
            self.place(first=0, tile=self.s.backs[-1].tile, repeat=walks - 1)
        self.emit(exec_word(Opcode.TRANSPOSED, Context.PAIR, 1))

    def reverse(self, echoes: Sequence[int], copy: bool) -> None:
        """From the last read-out point back to the start, then the exact-return check of the un-nudged copy."""
        d = self.s.dynamics
        contexts = (*echoes, Context.PAIR) if copy else tuple(echoes)
        every = d.cost_at == "every" and bool(echoes)
        if echoes:
            self.nudge()
        for context in contexts:
            echo = context != Context.PAIR
            self.drift(context, echo)
        self.prepare()
        self.back_substeps(contexts, d.substeps - 1)
        if d.steps > 1:
            with self.loop(d.steps - 1):
                self.row(-self.s.record.row)
                self.fetch()
                if every:
                    self.fetch_target()
                    self.nudge()
                self.prepare()
                self.back(contexts, every)
                self.back_substeps(contexts, d.substeps - 1)
        if copy:
            self.units(Context.PAIR, check=True)

    def back_substeps(self, contexts: Sequence[int], count: int) -> None:
        if count:
            with self.loop(count):
                self.back(contexts)

    def back(self, contexts: Sequence[int], nudge: bool = False) -> None:
        """One step of all copies. Where sweeps overlap, their commands alternate: while the results of one copy are on
        their way, the array works on another. Two copies at a time can have row operands."""
        if not self.s.hardware.overlap or self.s.hardware.general or len(contexts) == 1:
            for context in contexts:
                self.force(context, True, nudge and context != Context.PAIR)
            return
        first, second, *copy = contexts
        for context, forward in ((first, True), (second, True), (first, False), *((c, True) for c in copy),
                                 (second, False), *((c, False) for c in copy)):
            for sweep in self.s.sweeps:
                if (sweep.opcode == Opcode.FORWARD) == forward and (context != Context.PAIR or not sweep.echo_only):
                    self.sweep(sweep, context, context != Context.PAIR, True, nudge and context != Context.PAIR)

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
            self.emit(exec_word(Opcode.UPDATE, dest=UpdateMode.APPLY, kind=index + 1))
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
            self.emit(exec_word(Opcode.UPDATE, dest=mode, kind=index + 1))

    @contextmanager
    def entry(self, name: str) -> Iterator[None]:
        self.entries[name] = len(self.words)
        self.known.clear()
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
